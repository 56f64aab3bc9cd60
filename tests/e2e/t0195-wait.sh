#!/bin/sh
# index wait: what was put is there when it comes back; who writes the index, or that nobody does.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
cat >"$REFUGE_HOME/mappers/notes.lua" <<'LUA'
return {
  name = "notes", version = "1", on = { "file" }, match = { name = { "*.note" } },
  tables = { notes = { columns = { "title text" } } },
  map = function(blob, emit) emit.notes { title = blob:content() } end,
}
LUA
put_note() { echo "$1" >"$1.note" && refuge put "$1.note" >/dev/null; }
count_notes() { refuge sql --csv "select count(*) from notes" | tail -1; }
lock_is_held() {
    grep -q ":$(stat -c %i "$REFUGE_HOME/index/main.db.lock" 2>/dev/null || echo none) " /proc/locks
}
said() { grep -q "$1" "$tmp/.background.err"; }
# Whether every thread of a process has come to a stop.
is_stopped() { ! grep -L "^State:.*T (stopped)" "/proc/$1/task/"*/status | grep -q .; }

run refuge index wait
status_is "without an index: status 1" 1
err_has "and how to make one" "refuge index run"
run refuge index wait --seq many
status_is "a change is a number" 2
put_note one
refuge index run -q
run refuge index wait
status_is "an index that is up to date is not waited for, whoever writes it" 0
err_has "saying where it is" "is at change 2"
put_note two
run refuge index wait
status_is "nobody writes it: status 1" 1
err_has "said so" "nobody writes it and it is at change 2"
err_has "with what to do" "'refuge index run' brings it up to date"
run refuge index wait --timeout 0
status_is "looking once: status 1" 1
err_has "said so, too" "nobody writes it"
run refuge index wait --seq 2 --timeout 0
status_is "an older change is there" 0
run refuge index wait --json --timeout 0
out_matches "as JSON" '"type":"summary".*"state":"nobody","seq":4,"at":2,"writer":null'

background "$REFUGE" index run --follow
follower=$pid
wait_for 60 "the follower to hold the index" lock_is_held
for name in three four five six seven; do
    put_note $name
    run refuge index wait --timeout 120
    [ "$status" -eq 0 ] || break
done
status_is "a follower writes it: what was put is waited for" 0
is "and is there" "$(count_notes)" 7

# The follower cannot go on: what is said while waiting, and when the time is up.
kill -STOP "$follower"
wait_for 60 "the follower to stop" is_stopped "$follower"
put_note eight
run refuge index wait --timeout 1
status_is "the time is up: status 1" 1
err_has "who writes it is said" "process $follower (refuge index run --follow); waiting for change"
err_has "and how far it is" "did not reach change 16 in 1 s: it is at change 14"
run refuge index wait --timeout 0 --json
out_matches "as JSON" '"state":"timeout","seq":16,"at":14,"writer":"index .*process [0-9]'
run refuge index wait --quiet --timeout 0
err_lacks "--quiet leaves who writes it out" "waiting for change"
"$REFUGE" index wait >/dev/null 2>"$tmp/.waiting.err" &
waiting=$!
children="$children $waiting"
wait_for 60 "it to wait" grep -q "waiting for change" "$tmp/.waiting.err"
kill -INT "$waiting"
wait "$waiting"
is "SIGINT ends it with status 130" $? 130
kill -CONT "$follower"
run refuge index wait --timeout 120
status_is "the follower goes on: reached" 0

# A mapper file that changes makes a follower let go of the index for a moment.
sed 's/version = "1"/version = "2"/' "$REFUGE_HOME/mappers/notes.lua" >new.lua
cp new.lua "$REFUGE_HOME/mappers/notes.lua"
put_note nine
run refuge index wait --timeout 120
status_is "also while mapper files are loaded again" 0
is "everything is there" "$(count_notes)" 9

refuge index pause -q --wait 60
put_note ten
run refuge index wait
status_is "a paused index: status 1" 1
err_has "said so" "it is paused at change 18; 'refuge index resume' lets it run"
refuge index resume -q
wait_for 60 "the follower to go on" lock_is_held
run refuge index wait --timeout 120
status_is "resumed: reached" 0
kill -INT "$follower"
wait "$follower"

run refuge index wait --seq 99999
err_has "a change that is not in the store yet" "nobody writes it, and the store has"
refuge index create other -q
run refuge index wait other --timeout 0
status_is "another index: one that was never run" 1
err_has "is at its start, with the command for it" "at change 0; 'refuge index run other'"
done_testing
