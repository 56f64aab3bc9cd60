#!/bin/sh
# t0130-verify-damage.sh - `refuge index verify` finds and names every kind of damage
#
# The damage is done with Python's sqlite3, behind refuge's back, one kind at a time on a copy of a
# good index. A verify that finds nothing, or names something else, fails.
. "$(dirname "$0")/lib.sh"

material=$tmp/material
mkdir "$material"
cat >"$material/people.json" <<'JSON'
[{"name": "Ada", "town": "London"}, {"name": "Grace", "town": "New York"},
 {"name": "Edsger", "town": "Nuenen"}]
JSON
printf 'name,words\r\none,"harbour, lantern"\r\ntwo,meadow\r\n' >"$material/table.csv"
printf '{"kind": "poison", "id": "bad"}' >"$material/poison.json"
printf '{"kind": "plain", "id": "good", "rows": 2}' >"$material/good.json"
printf '{"kind": "plain", "id": "doomed", "rows": 1}' >"$material/doomed.json"
printf '{"kind": "need", "id": "waits", "ref": "%s"}' \
    "sha256-0000000000000000000000000000000000000000000000000000000000000000" >"$material/waits.json"
printf '{"kind": "split", "id": "s", "parts": [{"kind": "plain", "id": "p", "rows": 1}]}' \
    >"$material/split.json"

run refuge init
status_is "a home is made" 0
cp "$source_dir/tests/fault/history.lua" "$REFUGE_HOME/mappers/"
run refuge put --match '*.json' --match '*.csv' "$material"
status_is "files are put" 0
cp "$out" "$tmp/refs"
ref_of()
{
    sed -n "s|^\(sha256-[0-9a-f]*\)  .*/$1\$|\1|p" "$tmp/refs"
}
run refuge index run
status_is "the index runs, with items set aside" 3
run refuge delete "$(ref_of doomed.json)"
run refuge index run
run refuge index verify
status_is "an undamaged index verifies" 0

database=$REFUGE_HOME/index/main.db
python3 - "$database" "$tmp/good.db" <<'PYTHON'
import sqlite3, sys
source, target = sqlite3.connect(sys.argv[1]), sqlite3.connect(sys.argv[2])
source.backup(target)
PYTHON

# damage NAME WORDS SQL: the statement on a fresh copy; verify must fail, and say every word.
damage()
{
    rm -f "$database" "$database-wal" "$database-shm"
    cp "$tmp/good.db" "$database"
    python3 - "$database" "$3" <<'PYTHON' >"$tmp/changed" 2>&1
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
before = connection.total_changes
connection.executescript(sys.argv[2])
print(connection.total_changes - before)
connection.commit()
PYTHON
    changed=$(cat "$tmp/changed")
    case $changed in
    0 | *[!0-9]*)
        fail "$1: the damage is done" "$changed"
        return
        ;;
    esac
    run refuge index verify
    cat "$out" "$err" >"$tmp/said"
    if [ "$status" -ne 1 ]; then
        fail "$1: found" "status $status"
        last_run
        return
    fi
    pass "$1: found"
    for word in $2; do
        if ! grep -qF -e "$word" "$tmp/said"; then
            fail "$1: named" "nothing about '$word' in:" "$(head -n 12 "$tmp/said")"
            return
        fi
    done
    pass "$1: named"
}

good=$(ref_of good.json)
doomed=$(ref_of doomed.json)
waits=$(ref_of waits.json)
split=$(ref_of split.json)
poison=$(ref_of poison.json)
of="(SELECT id FROM blobs WHERE item ="

damage "a row gone" "history $good" \
    "INSERT INTO history_fts(history_fts, rowid, note) SELECT 'delete', id, note FROM history
       WHERE blob = $of '$good') AND n = 1;
     DELETE FROM history WHERE blob = $of '$good') AND n = 1;"
damage "a row doubled" "history $good" \
    "INSERT INTO history(blob, n, key, kind, note) SELECT blob, n + 100, key, kind, note
       FROM history WHERE blob = $of '$good') AND n = 0;
     INSERT INTO history_fts(rowid, note) SELECT id, note FROM history WHERE n >= 100;"
damage "one cell changed" "history $good key" \
    "UPDATE history SET key = 'another' WHERE blob = $of '$good') AND n = 0;"
damage "a full-text entry gone" "history" \
    "INSERT INTO history_fts(history_fts, rowid, note) SELECT 'delete', id, note FROM history
       WHERE blob = $of '$good') AND n = 0;"
damage "a full-text entry too many" "history" \
    "INSERT INTO history_fts(rowid, note) SELECT id, 'weasel' FROM history
       WHERE blob = $of '$good') AND n = 0;"
damage "the sizes of a full-text entry gone" "history" \
    "DELETE FROM history_fts_docsize WHERE id IN (SELECT id FROM history
       WHERE blob = $of '$good') AND n = 0);"
damage "the sizes of a full-text entry changed" "history" \
    "UPDATE history_fts_docsize SET sz = x'7f7f' WHERE id IN (SELECT id FROM history
       WHERE blob = $of '$good') AND n = 0);"
damage "a view of refuge's gone" "view refuge_errors" \
    "DROP VIEW refuge_errors; INSERT INTO refuge_facts VALUES('x', ''); DELETE FROM refuge_facts
       WHERE name = 'x';"
damage "a view that says something else" "view refuge_edges" \
    "DROP VIEW refuge_edges; CREATE VIEW refuge_edges AS SELECT 1 AS parent;
     UPDATE refuge_facts SET value = value WHERE name = 'store';"
damage "an index gone" "index refuge_parts_child" \
    "DROP INDEX refuge_parts_child; UPDATE refuge_facts SET value = value WHERE name = 'store';"
damage "a trigger that changes rows" "trigger sly" \
    "CREATE TRIGGER sly AFTER INSERT ON history BEGIN DELETE FROM history WHERE id = new.id; END;
     UPDATE refuge_facts SET value = value WHERE name = 'store';"
damage "a dead letter gone" "$poison history" \
    "DELETE FROM refuge_dead_letters WHERE blob = $of '$poison') AND mapper IN
       (SELECT id FROM refuge_lane_mappers WHERE name = 'history');"
damage "a deleted blob's row put back" "history $doomed" \
    "INSERT INTO history(blob, n, key, kind, note) SELECT id, 0, 'doomed', 'plain', 'plain number 1'
       FROM blobs WHERE item = '$doomed';"
damage "a need gone" "$waits" \
    "DELETE FROM refuge_needs WHERE blob = $of '$waits');"
damage "a park gone" "$waits" \
    "DELETE FROM refuge_parks WHERE blob = $of '$waits');"
damage "an edge to a part gone" "$split" \
    "DELETE FROM refuge_parts WHERE parent = $of '$split');"
damage "an item gone" "$good drop" \
    "DELETE FROM history WHERE blob = $of '$good'); DELETE FROM blobs WHERE item = '$good';"
damage "a deleted item said to be there" "$doomed" \
    "UPDATE blobs SET deleted = 0 WHERE item = '$doomed';"

damage "the mappers' texts gone" "refuge_mappers history record" "DELETE FROM refuge_mappers;"
damage "one mapper's text gone" "refuge_mappers record" \
    "DELETE FROM refuge_mappers WHERE name = 'record';"
damage "a mapper's text changed" "record" \
    "UPDATE refuge_mappers SET bundle = replace(bundle, 'flatten', 'flattem') WHERE name = 'record';"
damage "the facts gone" "refuge_facts store" "DELETE FROM refuge_facts;"
damage "another store's uuid" "refuge_facts store" \
    "UPDATE refuge_facts SET value = '00000000-0000-4000-8000-000000000000' WHERE name = 'store';"
damage "the tables of mappers gone" "refuge_tables" "DELETE FROM refuge_tables;"
damage "the lanes gone" "refuge_lanes" "DELETE FROM refuge_lanes;"
damage "the lanes' mappers gone" "refuge_lane_mappers" "DELETE FROM refuge_lane_mappers;"

rm -f "$database" "$database-wal" "$database-shm"
cp "$tmp/good.db" "$database"
run refuge index verify
status_is "the good copy still verifies" 0
done_testing
