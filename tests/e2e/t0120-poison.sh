#!/bin/sh
# t0120-poison.sh - one bad item costs itself only
#
# 10,000 items, 1 % of them poison: endless loops, pattern bombs, memory bombs, JSON nested 100,000
# deep, a line of 100 MB. Every good one must be in the index before the slow lane is done; each bad
# one is one dead letter with its reason, or rows that record what was cut.
. "$(dirname "$0")/lib.sh"

total=${POISON_ITEMS:-10000}
mkdir "$tmp/in"
python3 - "$tmp/in" "$total" "$tmp/expect" <<'PYTHON'
import json, os, sys
folder, total, expect = sys.argv[1], int(sys.argv[2]), sys.argv[3]
kinds = ["loop", "pattern", "memory", "deep", "loop", "pattern", "memory", "deep", "deep", "memory"]
counts = {}
for index in range(total):
    kind = "good"
    if index % 100 == 37:
        kind = kinds[index // 100 % len(kinds)]
    if index == 37:
        kind = "line"
    counts[kind] = counts.get(kind, 0) + 1
    with open(os.path.join(folder, "%05d.json" % index), "w") as file:
        if kind == "deep":
            file.write("[" * 100000 + str(index) + "]" * 100000)
        elif kind == "line":
            for _ in range(100):
                file.write("x" * 1000000)
            file.write("\n")
        else:
            json.dump({"kind": kind, "number": index}, file)
with open(expect, "w") as file:
    for kind, count in sorted(counts.items()):
        print(kind, count, file=file)
PYTHON
mkdir "$tmp/mappers"
cat >"$tmp/mappers/poison.lua" <<'LUA'
local act = {}

function act.good(item, emit)
    emit.poison { number = item.number, note = "good item number " .. item.number }
end

function act.loop()
    while true do end
end

function act.pattern()
    return string.find(string.rep("a", 30000), ".-.-.-.-b")
end

function act.memory()
    local all = {}
    for n = 1, 1e9 do all[n] = string.rep("x", 1000) .. n end
end

return {
    name = "poison",
    version = "1",
    on = { "blob", "file" },
    limits = { cpu_ms = 300 },
    tables = { poison = { columns = { "number int", "note text search" } } },
    map = function(blob, emit)
        if blob.size > 1000000 and blob:sub(1, 1) == "x" then
            for line in blob:lines() do
                emit.poison { note = line }
            end
            return
        end
        local item = blob:json()
        act[item.kind](item, emit)
    end,
}
LUA

run refuge init
cp "$tmp/mappers/poison.lua" "$REFUGE_HOME/mappers/"
run refuge put --quiet "$tmp/in"
status_is "$total items are put" 0
rm -rf "$tmp/in"
run refuge index run
status_is "the run ends, with items set aside" 3

database=$REFUGE_HOME/index/main.db
want() { sed -n "s/^$1 //p" "$tmp/expect"; }
letters() { query "$database" "SELECT count(*) FROM refuge_errors WHERE mapper = 'poison' AND $1"; }

is "every good item is in the index" \
    "$(query "$database" "SELECT count(*) FROM poison WHERE number IS NOT NULL")" "$(want good)"
long_line="item IN (SELECT item FROM blobs WHERE name = '00037.json')"
is "every poison item is one dead letter" "$(letters "NOT ($long_line)")" \
    "$(($(want loop) + $(want pattern) + $(want memory) + $(want deep)))"
is "no dead letter is without its reason" "$(letters "coalesce(reason, '') = ''")" 0
is "loops and pattern bombs ran out of time" \
    "$(letters "class = 'limit' AND reason LIKE '%CPU%'")" "$(($(want loop) + $(want pattern)))"
is "memory bombs ran out of memory" \
    "$(letters "class = 'limit' AND (reason LIKE '%heap%' OR reason LIKE '%memory%')")" \
    "$(want memory)"
is "deep JSON is refused by its depth" \
    "$(letters "class = 'mapper' AND reason LIKE '%deep%'")" "$(want deep)"
is "the line of 100 MB is a dead letter, or a row that says what was cut" \
    "$(query "$database" "SELECT
        (SELECT count(*) FROM refuge_errors WHERE mapper = 'poison' AND $long_line)
      + (SELECT count(*) FROM poison p JOIN blobs b ON b.id = p.blob JOIN refuge_cuts c
           ON c.blob = b.id AND c.kind = 'long' WHERE b.name = '00037.json')")" 1
is "nothing is left waiting" "$(query "$database" "SELECT count(*) FROM refuge_parks")" 0

# What the slow lane gave up on was written after the last good item was.
is "every good item was in before the slow lane was done" \
    "$(query "$database" "SELECT (SELECT max(b.mapped_at) FROM poison p JOIN blobs b ON b.id = p.blob
         WHERE p.number IS NOT NULL) < (SELECT max(at) FROM refuge_dead_letters
         WHERE class = 'limit')")" 1
if [ -n "${REFUGE_TEST_ALL:-}" ]; then
    run refuge index verify
    status_is "verify agrees" 0
fi
done_testing
