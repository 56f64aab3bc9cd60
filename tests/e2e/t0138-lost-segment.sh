#!/bin/sh
# The last segment of a log is gone: readers say what is lost, once, and go on with what is there, as the
# next writer does.
. "$(dirname "$0")/lib.sh"

REFUGE_STORE__SEGMENT=1M
export REFUGE_STORE__SEGMENT
refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
mkdir in
python3 -c '
import json
for i in range(40): open("in/%02d.json" % i, "w").write(json.dumps({"n": i, "t": "x%d" % i * 60000}))'
refuge put -q in >/dev/null || fail "put"
log=$REFUGE_HOME/store/home/log
last=$(find "$log" -type f | sort | tail -n 1)
first=$(printf '%d' "0x$(basename "$last" | cut -d- -f1)")
rm "$last"
timeout 60 "$REFUGE" changes >"$out" 2>"$err"
status=$?
status_is "changes come to an end: status 1" 1
is "those before it are there" "$(wc -l <"$out" | tr -d ' ')" "$((first - 1))"
is "what is lost is said" "$(cat "$err")" "refuge: changes $first to 80 of the log are damaged"
run refuge store verify
status_is "verify: status 1" 1
out_has "verify says the same" "changes $first to 80 of the log are damaged"
out_has "and reads the others" "$((first - 1)) changes"
run refuge index run
status_is "an index passes over them: status 3" 3
err_has "and says so" "$((81 - first)) changes passed over"
echo '{"n": 100}' | refuge put -q - >/dev/null
run refuge changes
is "a writer goes on behind them" "$(wc -l <"$out" | tr -d ' ')" "$first"
run refuge index run
status_is "to an index that is another history" 1
err_has "it says what to do" "'refuge index drop main' and 'refuge index run main' make it anew"
refuge index drop -q main
run refuge index run main
status_is "which helps" 3
run refuge index verify
status_is "it is what it would be made again" 0

done_testing
