#!/bin/sh
# t0125-slow-budget.sh - a mapper that loops on every item is stopped, and a person is told
. "$(dirname "$0")/lib.sh"

run refuge init
cat >"$REFUGE_HOME/mappers/loops.lua" <<'LUA'
return {
    name = "loops",
    limits = { cpu_ms = 200 },
    tables = { loops = { columns = { "number int" } } },
    map = function() while true do end end,
}
LUA
for n in 1 2 3 4 5 6 7 8; do
    echo "{\"n\": $n}" | refuge put --quiet - >/dev/null
done
database=$REFUGE_HOME/index/main.db
tried() { query "$database" "SELECT count(*) FROM refuge_errors WHERE mapper = 'loops'"; }
waits() { query "$database" "SELECT count(*) FROM refuge_parks"; }

REFUGE_INDEX__SLOW_BUDGET=700ms
export REFUGE_INDEX__SLOW_BUDGET
run refuge index run
status_is "the run ends with items set aside" 3
err_has "it says which mapper, and how many wait" "6 items wait for mapper 'loops'"
err_has "what it cost" "0.7 s of CPU"
err_has "and what to do" "have 'refuge index run' try on"
is "two were tried" "$(tried)" 2
is "what was not tried is parked, not set aside" "$(waits)" 6
is "the others are up to date" "$(query "$database" "SELECT count(*) FROM record")" 8

run refuge index status
status_is "status" 3
out_has "status says who is stopped" "stopped   loops"
out_has "and how many wait" "6 items wait"
run refuge index status --json
out_has "in JSON too" '"stopped":6'

run refuge index verify
status_is "verify finds no difference" 0
out_matches "verify says what it left out" "left out: [0-9]+ parks for the slow lane"

run refuge index run
status_is "the next run goes on" 3
is "with what was not tried before" "$(tried)" 4
is "and no more" "$(waits)" 4

REFUGE_INDEX__SLOW_BUDGET=1h
run refuge index run
status_is "with a larger budget it comes to the end" 3
is "everything was tried" "$(tried)" 8
is "nothing waits" "$(waits)" 0
run refuge index status
out_lacks "status says nothing of it then" "stopped"
done_testing
