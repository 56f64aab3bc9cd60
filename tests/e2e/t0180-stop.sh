#!/bin/sh
# Ctrl-C while a large file is indexed or an index is verified: it ends soon, and nothing is lost.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
python3 -c '
for i in range(30000): print("{\"n\": %d, \"text\": \"harbour %d\"}" % (i, i))' >lines.jsonl
refuge put -q lines.jsonl >refs

# Send SIGINT to the command in $pid once the file $1 is larger than 500 KB, and take its status.
stop_it() {
    is_large() { [ "$(stat -c %s "$1" 2>/dev/null || echo 0)" -gt 500000 ]; }
    wait_for 60 "'$1' to grow" is_large "$1"
    kill -INT "$pid"
    wait "$pid"
    status=$?
}

"$REFUGE" index run >"$out" 2>"$err" &
pid=$!
stop_it "$REFUGE_HOME/index/main.db-wal"
status_is "a run that is stopped" 130
err_has "says so at once" "stopping: what is committed stays"
err_has "says so" "stopped"
run refuge sql --csv 'select count(*) from record'
out_has "what was not committed is not there" 0
run refuge index run
status_is "the next run does it again" 0
run refuge sql --csv 'select count(*) from record'
out_has "all of it" 60000

"$REFUGE" index verify >"$out" 2>"$err" &
pid=$!
stop_it "$REFUGE_HOME/index/main.db.verify-wal"
status_is "a verify that is stopped" 130
err_has "says so at once" "stopping: nothing is kept"
err_has "says what came of it" "nothing was compared"
is "leaves nothing" "$(find "$REFUGE_HOME/index" -name 'main.db.verify*' | wc -l)" 0

# It is stopped just so while it compares, of which it tells how far it is.
REFUGE_PROGRESS_FPS=1000 "$REFUGE" index verify >"$out" 2>"$err" &
pid=$!
wait_for 60 "it to compare" grep -q "rows .*comparing" "$err"
kill -INT "$pid"
wait "$pid"
status=$?
status_is "a verify that is stopped while it compares" 130
err_has "says so at once" "stopping: nothing is kept"
err_has "says what came of it" "not all was compared"
is "tells no difference" "$(cat "$out")" ""
is "leaves nothing" "$(find "$REFUGE_HOME/index" -name 'main.db.verify*' | wc -l)" 0
run refuge index verify
status_is "verify" 0
out_has "finds nothing" "0 differences"
is "off a terminal it shows no progress" "$(cat "$err")" ""
REFUGE_PROGRESS_FPS=1000 "$REFUGE" index verify --json >"$out" 2>"$err"
is "programs read of rows compared" "$(python3 -c '
import json, sys
rows = [one for one in map(json.loads, open(sys.argv[1])) if one.get("unit") == "row"]
print(len(rows) > 1 and all(a["done"] <= b["done"] <= b["total"] for a, b in zip(rows, rows[1:])))
' "$out")" True
is "and nothing else does" "$(cat "$err")" ""

# Many files of some records each: what is not begun is left, so that a stop does not wait for all
# that was read ahead; what was begun is there as a whole, or not at all.
export REFUGE_HOME="$tmp/many"
refuge init -q >/dev/null || fail "init"
mkdir many.d
python3 -c '
for f in range(150):
    with open("many.d/%d.jsonl" % f, "w") as out:
        for i in range(1000): out.write("{\"n\": %d, \"text\": \"harbour %d\"}\n" % (f * 1000 + i, i))'
refuge put -q many.d >refs
"$REFUGE" index run >"$out" 2>"$err" &
pid=$!
stop_it "$REFUGE_HOME/index/main.db-wal"
status_is "a run over many files that is stopped" 130
refuge sql --csv 'select count(*) from record where key = '"'n'" | tail -n 1 >count
is "files are there as a whole" "$(($(cat count) % 1000))" 0
is "it did not go on to the end" "$(($(cat count) < 150000))" 1
err_matches "what is there was counted" " $(($(cat count) * 2)) rows? in this run"
"$REFUGE" index run >"$out" 2>"$err" &
pid=$!
wait_for 60 "the log to grow" is_large "$REFUGE_HOME/index/main.db-wal"
kill -INT "$pid"
kill -INT "$pid" 2>"$out"
wait "$pid"
status=$?
status_is "a second signal" 130
run refuge index run
status_is "the run after the next" 0
run refuge sql --csv 'select count(*), sum(value) from record where key = '"'n'"
out_has "has all of it" "150000,$((150000 * 149999 / 2))"

# A verify maps in another order. A batch that ends early leaves what comes after it to the next one,
# wherever it stands in that order.
export REFUGE_HOME="$tmp/few"
refuge init -q >/dev/null || fail "init"
echo 'return { index = { batch_items = 300 } }' >"$REFUGE_HOME/refuge.conf"
mkdir few.d
python3 -c '
for f in range(200):
    with open("few.d/%d.jsonl" % f, "w") as out:
        for i in range(100): out.write("{\"n\": %d}\n" % (f * 100 + i))'
# What each commit brings is counted by a trigger of the test's own: no more than a batch holds (300), twice
# what may be under way (2048) and a file (101), however many changes were read ahead.
refuge index run -q
python3 - "$REFUGE_HOME/index/main.db" <<'PYTHON' || fail "count commits"
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.executescript("""CREATE TABLE test_commits(items INTEGER);
    CREATE TRIGGER test_commit AFTER UPDATE OF position ON refuge_lanes BEGIN
        INSERT INTO test_commits SELECT count(*) FROM blobs; END;""")
PYTHON
refuge put -q few.d >refs
run refuge index run
status_is "small batches" 0
python3 - "$REFUGE_HOME/index/main.db" >most <<'PYTHON'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
counts = [0] + [row[0] for row in db.execute("SELECT items FROM test_commits ORDER BY rowid")]
print(max(b - a for a, b in zip(counts, counts[1:])))
db.executescript("DROP TRIGGER test_commit; DROP TABLE test_commits")
PYTHON
note "at most $(cat most) items in a commit"
ok "a batch ends behind what was begun" [ "$(cat most)" -lt 4500 ]
for _ in 1 2 3; do
    timeout 120 "$REFUGE" index verify >"$out" 2>"$err"
    status=$?
    status_is "a verify comes to its end" 0
done
# While it waits for a reader that does not read.
mkfifo slow
head -c 1000000 /dev/zero >zeros
zeros=$(refuge put -q zeros | cut -d' ' -f1)
write_call=$(python3 -c 'import platform; print(1 if platform.machine() == "x86_64" else 64)')
waits() { [ "$(cut -d' ' -f1 "/proc/$pid/syscall" 2>/dev/null)" = "$write_call" ]; }
# stopped_before_reader WHAT ARGUMENTS
stopped_before_reader() {
    what=$1
    shift
    "$REFUGE" "$@" >slow 2>"$err" &
    pid=$!
    exec 8<slow
    wait_for 60 "it to wait for its reader" waits
    kill -INT "$pid"
    wait "$pid"
    status=$?
    exec 8<&-
    status_is "$what stopped before a reader that does not read" 130
    err_lacks "it does not complain" "cannot write"
}
stopped_before_reader "get" get "$zeros"
stopped_before_reader "sql" sql --csv 'select blob, key, value from record'

done_testing
