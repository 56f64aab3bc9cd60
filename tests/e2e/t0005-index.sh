#!/bin/sh
# index run, status, errors, retry, why, pause, resume, rebuild, verify, list, drop.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1

cat >"$REFUGE_HOME/mappers/notes.lua" <<'LUA'
return {
  name = "notes", version = "1", on = { "file" }, match = { name = { "*.note" } },
  tables = { notes = { columns = { "title text search", "size int" } } },
  map = function(blob, emit)
    local text = blob:content()
    if text:find("poison") then error("this note is poison") end
    emit.notes { title = text:match("[^\n]*"), size = blob.size }
  end,
}
LUA
printf 'A walk by the river\n' >walk.note
printf 'poison\n' >bad.note
printf '{"a":1}' >x.json

run refuge index status
status_is "no index yet" 1
err_has "and how to make it" "'refuge index run' makes it"
run refuge sql 'select 1'
status_is "sql without an index" 1

refuge put walk.note x.json >refs
run refuge index run
status_is "index run" 0
err_has "says it is done" "is up to date"
ok "the database is there" test -s "$REFUGE_HOME/index/main.db"
ok "and titles for Datasette" python3 -c "import json, sys; json.load(open(sys.argv[1]))" \
    "$REFUGE_HOME/index/main.metadata.json"
run refuge sql --csv 'select title, size from notes'
out_has "the row is there" "A walk by the river,20"
printf 'abc\000' >raw.bin
refuge put raw.bin >/dev/null
run refuge index run
err_has "what no mapper takes is counted" "1 item no mapper takes; 'refuge index why REF|PATH' says why"
run refuge index why raw.bin
out_has "and why says so" "no mapper takes it"
run refuge index status
status_is "index status" 0
out_has "up to date" "up to date"
out_matches "with its mappers" '^ +notes [0-9a-f]{12}$'
run refuge index status --json
out_matches "as JSON" '"mappers":.*\{"mapper":"notes","identity":"[0-9a-f]{64}","state":"current"'
run refuge index errors
status_is "no errors" 0
run refuge index why walk.note
status_is "why a file has rows" 0
out_has "says which mapper made them" "mapped: 1 row (notes 1)"
run refuge index why x.json
out_matches "why another has none" 'notes +no match'

refuge put bad.note >bad.ref
bad=$(cut -d' ' -f1 bad.ref)
run refuge index why "$bad"
status_is "why before the run" 0
out_has "says it is not indexed yet" "not indexed yet"
run refuge index run
status_is "a run with a failing item: status 3" 3
err_has "and where to look" "refuge index errors"
run refuge index run --json
status_is "nothing to do, still set aside" 3
out_matches "in the summary" '"summary","command":"index run","ok":false,"exit":3.*"dead_letters":1'
run refuge index errors
status_is "index errors" 3
out_has "names the file" "bad.note"
out_matches "the reason with its line" 'notes\.lua:6: this note is poison'
out_has "and the command" "refuge index retry --mapper notes --item '$bad'"
run refuge index errors --json
out_has "as JSON" "\"type\":\"dead_letter\",\"item\":\"$bad\",\"name\":\"bad.note\",\"mapper\":\"notes\""
run refuge index why bad.note
out_has "why says so too" "this note is poison"
run refuge index status
status_is "status counts it" 3
out_has "by mapper" "set aside 1"
run refuge status
status_is "status too" 3

run refuge index retry
status_is "retry needs to know what" 2
run refuge index retry --all --dry-run
err_has "retry --dry-run counts" "1 would be mapped again"
run refuge index retry --item sha256- --dry-run
status_is "retry by the beginning of a blobref" 0
err_has "finds the one item" "1 would be mapped again"
run refuge index retry --item "$bad"
status_is "retry" 0
run refuge index why bad.note
out_has "the item waits for the run" "parked (ready)"
run refuge index run
status_is "it fails again" 3
run refuge index errors
out_has "with its attempts" "attempt 2"

# A mapper that was mended replaces the running one and maps everything again.
sed -i 's/error("this note is poison")/text = "mended"/; s/version = "1"/version = "2"/' \
    "$REFUGE_HOME/mappers/notes.lua"
run refuge index status
out_matches "status sees a mapper file that changed" \
    '^ +notes [0-9a-f]{12}, its file changed: the next run builds it anew$'
run refuge index status --json
out_matches "in JSON too" '\{"mapper":"notes","identity":"[0-9a-f]{64}","state":"changed"'
run refuge index run
status_is "a mended mapper" 0
run refuge index status
out_matches "which status does not see then" '^ +notes [0-9a-f]{12}$'
run refuge sql --csv 'select title from notes order by title'
out_has "maps what failed" "mended"
# One that does not load never replaces a running one.
printf 'return { name = "notes" }\n' >broken.lua
cp "$REFUGE_HOME/mappers/notes.lua" good.lua
cp broken.lua "$REFUGE_HOME/mappers/notes.lua"
run refuge index status
out_matches "status sees a mapper file that broke" \
    '^ +notes [0-9a-f]{12}, its file is broken, the version before goes on: .*notes\.lua'
printf 'Another\n' >another.note
refuge put another.note >/dev/null
run refuge index run
status_is "a broken mapper is told" 3
err_has "with its file" "notes.lua"
run refuge sql --csv 'select count(*) as n from notes'
out_has "the running version goes on" 3
cp good.lua "$REFUGE_HOME/mappers/notes.lua"

# Parts: a mapper fails on a record of a table; the command that errors prints runs it again.
cat >"$REFUGE_HOME/mappers/years.lua" <<'LUA'
return {
  name = "years", version = "1", on = { "file", "blob" },
  tables = { years = { columns = { "year int" } } },
  map = function(blob, emit)
    local year = blob:size_of_nothing()
  end,
}
LUA
run refuge index status
out_matches "status sees a new mapper" '^ +years, the next run builds it$'
printf 'title,year\nThe Lantern,1921\n' >books.csv
printf '[{"year":1}]' >books.json
refuge put books.csv books.json >/dev/null
run refuge index run
status_is "a mapper that fails on parts" 3
run refuge index errors --mapper yaers
status_is "errors of a mapper that is not there: status 2" 2
run refuge index errors --item zz
status_is "or of what is no item" 2
run refuge index retry --mapper yaers
status_is "retry likewise" 2
run refuge index errors --mapper years
sed -n "s/^  try it: //p" "$out" | grep ';' >tries
run refuge index retry --item sha256-
status_is "a beginning of several: status 2" 2
ok "parts are among the errors" test "$(wc -l <tries)" -ge 2
while read -r try; do
    run sh -c "$(printf '%s' "$try" | sed "s|^refuge|'$REFUGE'|")"
    status_is "the printed command runs a part again" 3
    err_has "and fails as it did" "years.lua:5"
done <tries
part=$(head -1 tries | sed "s/.*'\(.*\)'/\1/")
refuge index create other -q
run refuge index run other
err_has "another index says how to ask it" "'refuge index errors other' says why"
run refuge index errors other
out_has "and how to retry there" "refuge index retry other --mapper years --item '"
try=$(sed -n "s/^  try it: //p" "$out" | grep ';' | head -1)
ok "its parts are got by it" test "${try% --index other}" != "$try"
refuge index drop main -q
run sh -c "$(printf '%s' "$try" | sed "s|^refuge|'$REFUGE'|")"
err_has "also without the first one" "years.lua:5"
refuge index drop other -q
refuge index run -q
run refuge index why "$part"
out_has "why names what it is a part of" "is a part of books"
rm "$REFUGE_HOME/mappers/years.lua"
run refuge index status
out_matches "status sees a mapper that went" '^ +years [0-9a-f]{12}, its file is gone: the next run drops'
run env REFUGE_MAPPER=/bin/false "$REFUGE" index status
out_matches "without a jail it says what it knows" '^ +years [0-9a-f]{12}, its file was not looked at$'
run refuge index run
status_is "without that mapper nothing is set aside" 0

run refuge index pause
status_is "pause" 0
printf 'Later\n' >later.note
refuge put later.note >/dev/null
run refuge index run
status_is "a paused index does nothing" 0
err_has "and says so" "is paused"
run refuge index status
out_has "status too" "(paused)"
out_lacks "it lags" ", up to date"
run refuge index resume
status_is "resume" 0
run refuge index run
run refuge sql --csv "select count(*) as n from notes where title = 'Later'"
out_has "then it goes on" 1

refuge delete "$(refuge put walk.note | cut -d' ' -f1)" >/dev/null
refuge index run -q
run refuge sql --csv "select count(*) as n from notes where title like 'A walk%'"
out_has "a delete removes rows" 0
run refuge index why walk.note
out_has "why says it was deleted" "deleted by change"

run refuge index verify
status_is "verify" 0
out_has "finds no difference" "0 differences"
run refuge index rebuild
status_is "rebuild" 0
run refuge index verify
status_is "verify after a rebuild" 0

# A follower keeps up until it is stopped; another run says for whom it would have to wait.
background "$REFUGE" index run --follow
follower=$pid
printf 'Followed\n' >followed.note
refuge put followed.note >/dev/null
has_row()
{
    refuge sql --csv "select title from notes" | grep -q Followed
}
wait_for 60 "a follower to index a new file" has_row
pass "a follower indexes what is put"
run refuge index run
status_is "another run: status 11" 11
err_has "names the holder" "process $follower (refuge index run --follow)"
kill -INT "$follower"
wait "$follower"
is "SIGINT ends it with status 130" $? 130
run refuge index run
status_is "the lock is free again" 0

# Whoever holds the lock is told as the kernel knows it, not as some file says.
printf '1\n' >"$REFUGE_HOME/index/main.db.lock"
background flock -o "$REFUGE_HOME/index/main.db.lock" tail -f --pid=$$ /dev/null
# Looking must not take the lock: a run that starts just then would find it held.
lock_is_held() {
    grep -q ":$(stat -c %i "$REFUGE_HOME/index/main.db.lock" 2>/dev/null || echo none) " /proc/locks
}
wait_for 20 "the lock to be taken" lock_is_held
run refuge index run --wait 1
status_is "a lock that somebody else holds" 11
err_has "is told with process and command" "process $pid (flock "
err_has "also while it waits" "waiting up to 1 s"
err_has "and what would help" "'--wait SECONDS' waits longer"
for command in run rebuild "retry --all" "drop main" "pause --wait 0"; do
    # shellcheck disable=SC2086
    run refuge index $command
    status_is "index $command on a locked index" 11
    err_has "says how to wait" "'--wait SECONDS' waits for the other process"
done
run refuge index resume
kill "$pid"
wait "$pid"
run flock -n "$REFUGE_HOME/store/home" "$REFUGE" put --wait 0 walk.note
status_is "the store likewise" 11
err_matches "with process and command" 'process [0-9]+ \(flock -n '
err_has "and how to wait" "'--wait SECONDS' waits for the other process"

run refuge index run second
status_is "an index that nobody made: status 1" 1
err_has "with what makes it" "'refuge index create second' makes it"
refuge index create second -q
run refuge index run second
status_is "a second index" 0
run refuge index list
out_matches "list" '^main '
out_matches "both" '^second '
run refuge sql --index second --csv 'select count(*) as n from notes'
out_has "has the rows too" 4
run refuge index drop second --dry-run
ok "drop --dry-run" test -e "$REFUGE_HOME/index/second.db"
for suffix in '' -wal -shm .lock; do
    : >"$REFUGE_HOME/index/second.db.verify$suffix"
done
run refuge doctor
out_matches "doctor names what an interrupted verify left" '^warn +index .*second\.db\.verify. is of'
cat >hold.py <<'PYTHON'
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
open("held", "w").close()
time.sleep(600)
PYTHON
background python3 hold.py "$REFUGE_HOME/index/second.db.verify.busy"
wait_for 20 "the lock to be held" test -e held
for command in verify drop; do
    run refuge index $command second
    status_is "$command beside a verify" 11
    err_matches "says whose" "second\.db' is being verified by process $pid \(python3? hold"
done
run refuge doctor
out_matches "doctor too" "^ok +index .*second\.db' is being verified by process $pid "
kill "$pid"
wait "$pid"
mkdir aside
mv "$REFUGE_HOME/index/second.db" "$REFUGE_HOME/conf.d/index-second.json" aside
run refuge doctor
out_matches "doctor names what is left of an index that is gone" \
    "^warn .*second\.db\.verify. is of .*index 'second' is gone; rm "
is "once" "$(grep -c second "$out")" 1
mv aside/second.db "$REFUGE_HOME/index"
mv aside/index-second.json "$REFUGE_HOME/conf.d"
run refuge index drop second
status_is "drop" 0
is "leaves nothing" "$(find "$REFUGE_HOME/index" -name 'second*' | wc -l)" 0
run refuge index drop main.db/../x
status_is "a name must be a name" 2
run refuge index why nothing-of-the-sort
status_is "why of nothing" 1
run refuge doctor
status_is "doctor" 0

# A store that was rolled back: what to do with the index is said.
cp -a "$REFUGE_HOME/store" older
printf 'Newer\n' >newer.note
refuge put newer.note >/dev/null
refuge index run -q
rm -r "$REFUGE_HOME/store"
cp -a older "$REFUGE_HOME/store"
for command in run rebuild verify; do
    run refuge index "$command"
    status_is "index $command on a store that was rolled back" 1
    err_matches "says what to do" "'refuge index drop main' and 'refuge index run main' make it anew$"
done
refuge index drop main -q
run refuge index run main
status_is "drop and run make it anew" 0

# A log that lost its end: what was indexed stays, what is read again is what is left.
REFUGE_HOME=$tmp/cut
refuge init -q >/dev/null
for number in 1 2 3 4 5 6 7 8 9; do
    printf '{"a":%s}' $number | refuge put - >/dev/null
done
refuge index run -q
truncate -s 700 "$REFUGE_HOME"/store/home/log/*
run refuge index run
status_is "what was indexed before is up to date" 0
run refuge index rebuild
status_is "a rebuild passes over what was lost" 3
err_has "names it" "changes 6 to 9 of the log are damaged"
err_has "and counts it" "5 changes passed over, damaged in the store; 'refuge store verify' names them"
run refuge index verify
status_is "the rebuilt index is what is left of the log" 0
run refuge index status
out_has "status keeps what was lost" "lost      5 changes of the log cannot be read"
out_has "and of its items nothing stays" "items     4, rows 4"
printf '{"b":1}' | refuge put - >/dev/null
run refuge index run
status_is "what is new is behind it" 0
err_has "and mapped" "1 item and 1 row"
run refuge index verify
status_is "verify, with what is new" 0
done_testing
