#!/bin/sh
# A line of 100 MB among good ones costs itself only, in an index and in what it is filled again to.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
python3 - <<'PYTHON'
with open("log.jsonl", "w") as file:
    for number in range(500):
        print('{"before": %d}' % number, file=file)
    print('{"long": "%s"}' % ("x" * 100000000), file=file)
    for number in range(500):
        print('{"behind": %d}' % number, file=file)
with open("export.json", "w") as file:  # told from its first line
    print('{"before": 1000}\n{"long": "%s"}\n{"behind": 1000}' % ("x" * 20000000), file=file)
PYTHON
refuge put -q log.jsonl export.json >/dev/null || fail "put"
rm log.jsonl export.json
run refuge index run
status_is "two lines are set aside: status 3" 3
run refuge sql --csv "select key, count(*) as n, sum(number) as s from record group by key"
is "the good lines of both are rows" "$(cat "$out")" "key,n,s
before,501,125750
behind,501,125750"
run refuge index errors
out_has "the line is named" "line 501 of log.jsonl"
out_has "that of the other too" "line 2 of export.json"
out_has "and what is wrong with it" "too long for the Lua heap, whose size the mapper's limits.memory_mb sets"
run refuge index verify
status_is "the index is what it would be made again" 0

done_testing
