#!/bin/sh
# The change queue: in order, from any position, and across processes.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1

for word in a b c; do
    printf %s $word | refuge put - >>refs
done
run refuge changes
status_is "changes" 0
is "one line for each" "$(wc -l <"$out")" 3
awk '{print $4}' "$out" >seen
cut -d' ' -f1 refs >want
ok "in the order of the puts" cmp -s want seen
second=$(awk 'NR==2{print $1}' "$out")
run refuge changes --since "$second"
is "--since continues behind a cursor" "$(awk '{print $4}' "$out")" "$(sed -n 3p want)"
run refuge changes --limit 2
is "--limit" "$(wc -l <"$out")" 2
run refuge changes --json
out_matches "as JSON" '^\{"type":"change","cursor":"[0-9]+-1-[0-9a-f]{16}","seq":1,'
out_matches "the summary says where to go on" '"type":"summary".*"changes":3.*"cursor":"[0-9]+-3-'
refuge delete "$(sed -n 1p want)" >/dev/null
run refuge changes --since "$second"
out_matches "a delete is a change" ' delete '
run refuge changes --since now
out_is "--since now: nothing yet" ""

run refuge changes --since "$(echo "$second" | sed 's/-[^-]*$/-0123456789abcdef/')"
status_is "a cursor of another history" 1
err_matches "is an error" 'history|rolled back|chain'
run refuge changes --since "$(echo "$second" | sed 's/^\([0-9]*\)-[0-9]*-.*/\1-99999/')"
status_is "a cursor of the future" 1
run refuge changes --since 77-1
status_is "a cursor of another generation" 1
run refuge changes --since rubbish
status_is "no cursor: status 2" 2

background "$REFUGE" changes --since now --follow
follower=$pid
wait_for 20 "the follower to start" kill -0 "$follower"
# It may not have read "now" yet: put until one arrives.
seen_one()
{
    date +%N | refuge put - >/dev/null
    test -s "$tmp/.background.out"
}
wait_for 30 "a change to reach another process" seen_one
pass "a follower in another process sees new changes"
printf last | refuge put - >last
wait_for 20 "the last change" grep -q "$(cut -d' ' -f1 last)" "$tmp/.background.out"
kill -TERM "$follower"
wait "$follower"
is "SIGTERM ends it with status 130" $? 130

# A reader while a writer works: what it has printed is a prefix of the queue.
mkdir many
i=0
while [ $i -lt 500 ]; do
    echo $i >many/$i
    i=$((i + 1))
done
background "$REFUGE" put many
refuge changes >during
wait "$pid"
refuge changes >after
ok "a reader beside a writer sees a prefix" sh -c 'head -n "$(wc -l <during)" after | cmp -s - during'
done_testing
