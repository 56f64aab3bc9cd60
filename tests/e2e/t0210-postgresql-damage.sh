#!/bin/sh
# t0210-postgresql-damage.sh - `refuge index verify` finds what psql did behind its back
#
# One kind of damage at a time; verify must fail and name it, and the rebuild that it advises must mend
# it.
. "$(dirname "$0")/lib.sh"

[ -n "${REFUGE_TEST_POSTGRESQL:-}" ] || skip_all "REFUGE_TEST_POSTGRESQL names no server"
command -v psql >/dev/null || skip_all "psql is not installed"
schema=damage_$$

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
run refuge index create pg --sink "$REFUGE_TEST_POSTGRESQL#$schema"
status_is "an index is made in the server" 0
run refuge index run pg
status_is "the index runs, with items set aside" 3
run refuge delete "$(ref_of doomed.json)"
run refuge index run pg
run refuge index verify pg
status_is "an undamaged index verifies" 0

# found NAME SQL: do the damage; verify must fail, and what it says is in $tmp/said.
found()
{
    PGOPTIONS="-c search_path=$schema" psql -q -X -v ON_ERROR_STOP=1 "$REFUGE_TEST_POSTGRESQL" \
        -c "$2" >"$tmp/changed" 2>&1 || fail "$1: the damage is done" "$(cat "$tmp/changed")"
    run refuge index verify pg
    cat "$out" "$err" >"$tmp/said"
    status_is "$1: found" 1
}

mended()
{
    refuge index rebuild pg -q >/dev/null 2>&1
    run refuge index verify pg
    status_is "$1: mended by a rebuild" 0
}

# damage NAME WORDS SQL: the statement; verify must fail, and say every word; a rebuild mends it.
damage()
{
    found "$1" "$3"
    for word in $2; do
        ok "$1: named" grep -qF -e "$word" "$tmp/said"
    done
    mended "$1"
}

good=$(ref_of good.json)
doomed=$(ref_of doomed.json)
waits=$(ref_of waits.json)
split=$(ref_of split.json)
poison=$(ref_of poison.json)
of="(SELECT id FROM blobs WHERE item ="

damage "a row gone" "history $good" "DELETE FROM history WHERE blob = $of '$good') AND n = 1"
damage "a row doubled" "history $good" \
    "INSERT INTO history(id, blob, n, key, kind, note, search) SELECT id + 1000000, blob, n + 100,
       key, kind, note, search FROM history WHERE blob = $of '$good') AND n = 0"
damage "one cell changed" "history $good key" \
    "UPDATE history SET key = 'another' WHERE blob = $of '$good') AND n = 0"
damage "a full-text entry gone" "history $good full-text" \
    "UPDATE history SET search = NULL WHERE blob = $of '$good') AND n = 0"
damage "a full-text entry changed" "history $good full-text" \
    "UPDATE history SET search = 'weasel:1'::tsvector WHERE blob = $of '$good') AND n = 0"
damage "a dead letter gone" "$poison history" \
    "DELETE FROM refuge_dead_letters WHERE blob = $of '$poison')"
damage "a deleted blob's row put back" "history $doomed" \
    "INSERT INTO history(id, blob, n, key, kind, note) SELECT 2000000, id, 0, 'doomed', 'plain',
       'plain number 1' FROM blobs WHERE item = '$doomed'"
damage "a need gone" "$waits" "DELETE FROM refuge_needs WHERE blob = $of '$waits')"
damage "a park gone" "$waits" "DELETE FROM refuge_parks WHERE blob = $of '$waits')"
damage "an edge to a part gone" "$split" "DELETE FROM refuge_parts WHERE parent = $of '$split')"
damage "an item gone" "$good" \
    "DELETE FROM history WHERE blob = $of '$good'); DELETE FROM record WHERE blob = $of '$good');
     DELETE FROM blobs WHERE item = '$good'"

# A table that somebody locked: the server is silent, and a verify that waits for it can be stopped.
mkfifo "$tmp/session"
PGOPTIONS="-c search_path=$schema" psql -q -X -A -t "$REFUGE_TEST_POSTGRESQL" <"$tmp/session" \
    >"$tmp/held" 2>&1 &
session=$!
exec 9>"$tmp/session"
echo "BEGIN; LOCK TABLE history IN ACCESS EXCLUSIVE MODE; SELECT 'held';" >&9
wait_for 60 "the table to be locked" grep -q held "$tmp/held"
REFUGE_PROGRESS_FPS=1000 "$REFUGE" index verify pg >"$out" 2>"$err" 9>&- &
pid=$!
wait_for 60 "it to wait for the table" grep -q "comparing table 'history'" "$err"
kill -INT "$pid"
wait_for 60 "it to stop" grep -q "not all was compared" "$err"
exec 9>&-
wait "$pid"
status=$?
status_is "a verify that waits for a lock is stopped" 130
out_lacks "and tells no difference" "history"
wait "$session"

# What is not there at all: named once by what it is, the rest compared, and what mends it said.
missing()
{
    found "$1" "$3"
    is "$1: named once" "$(grep -c "history" "$tmp/said")" 1
    out_has "$1: by what it is" "table 'history': cannot be read: $2"
    ok "$1: nothing is said of transactions" [ "$(grep -c transaction "$tmp/said")" -eq 0 ]
    out_has "$1: the other table is compared" "table 'record', item"
    out_has "$1: and counted" "2 tables, "
    err_has "$1: the index is named by its URL" "index 'postgresql://"
    err_has "$1: what mends it is said" "'refuge index rebuild pg' makes it again"
    for command in status run; do
        run refuge index $command pg
        status_is "$1: $command finds it, too" 1
        err_has "$1: $command names it" "table 'history' was changed behind refuge's back: $2"
        err_has "$1: $command says what mends it" "run 'refuge index rebuild pg'"
    done
    run refuge doctor
    out_has "$1: so does doctor" "table 'history' was changed behind refuge's back: $2"
    run refuge index digest pg
    err_has "$1: a digest says of which table" "cannot read table 'history': $2"
    run refuge search --index pg plain
    err_has "$1: a search says who knows more" "'refuge index verify pg' says what is wrong"
    mended "$1"
}

record="UPDATE record SET value = 'another' WHERE n = 0;"
missing "a table dropped" "it is not there" "$record DROP TABLE history CASCADE"
missing "a column dropped" "column key is not there" "$record ALTER TABLE history DROP COLUMN key CASCADE"
missing "a column of another type" "column key is integer, not text" \
    "$record ALTER TABLE history ALTER COLUMN key TYPE integer USING 1"

psql -q -X "$REFUGE_TEST_POSTGRESQL" -c "ALTER TABLE $schema.refuge_cuts DROP COLUMN kind CASCADE" \
    >/dev/null 2>&1
run refuge index verify pg
out_has "a column of refuge's own is named" "cuts: cannot be read: "
out_has "and in words" "table 'refuge_cuts': column kind is not there"
out_has "and all else compared" "2 tables, "
out_lacks "without a difference" "item"
err_has "what mends it is no rebuild" "'refuge index drop pg', 'refuge index create pg --sink"
psql -q -X "$REFUGE_TEST_POSTGRESQL" -c "DROP TABLE $schema.refuge_cuts CASCADE" >/dev/null 2>&1
run refuge index verify pg
err_has "a table of refuge's own is named" "table refuge_cuts is not there; remove it by"
refuge index drop pg -q
done_testing
