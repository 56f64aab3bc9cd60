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
err_has "says so" "nothing was compared"
is "leaves nothing" "$(find "$REFUGE_HOME/index" -name 'main.db.verify*' | wc -l)" 0
run refuge index verify
status_is "verify" 0
out_has "finds nothing" "0 differences"
done_testing
