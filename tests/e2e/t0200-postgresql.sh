#!/bin/sh
# An index in a PostgreSQL server, from `index create` to `index drop`, as a person meets it.
. "$(dirname "$0")/lib.sh"

[ -n "${REFUGE_TEST_POSTGRESQL:-}" ] || skip_all "REFUGE_TEST_POSTGRESQL names no server"
refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
schema=e2e_$$
url="$REFUGE_TEST_POSTGRESQL#$schema"

printf '{"title":"hello harbour","n":1}\n' >one.json
printf 'name,city\nada,london\nbob,paris\n' >people.csv
printf '{"title": broken' >bad.json
refuge put one.json people.csv bad.json >/dev/null

run refuge index create pg --sink "postgresql://ada:secret@127.0.0.1/x"
status_is "a password in the URL is refused" 2
err_has "and what to do instead is said" passfile
run refuge index create pg --sink "postgresql://ada:se#cret@127.0.0.1/x"
status_is "so is one with a '#' in it" 2
err_lacks "and it is not told" cret
run refuge index create pg --sink "$url#more"
ok "a second '#' is refused" [ "$status" -ne 0 ]
err_has "for what it is" "more than one '#'"
run refuge index create pg --sink "postgresql://ada@127.0.0.1:1/x"
status_is "a server that is not there is unreachable" 75

run refuge index create pg --sink "$url"
status_is "an index is made in a server" 0
run refuge index create other --sink "${url}_other" --reader nobody_$$
ok "a role that is not there is named" grep -q "nobody_$$" "$err"

for twin in "$(echo "$url" | sed 's/^postgresql:/postgres:/')" \
    "$(echo "$url" | sed 's/#/?connect_timeout=9#/')"; do
    run refuge index create twin --sink "$twin"
    ok "before its first run the same place by another spelling is refused" [ "$status" -ne 0 ]
    err_has "and which index has it is said" "which may be 'pg'"
    ok "nothing of that stays" test ! -e "$REFUGE_HOME/conf.d/index-twin.json"
done
run refuge index run pg
ok "it runs; what cannot be mapped is set aside" [ "$status" -eq 3 ]
refuge index run main -q >/dev/null 2>&1
for query in "select count(*) as n from blobs where deleted = 0" \
    "select item, kind, size, ts, seq, name from blobs order by item" \
    "select parent, part, mapper from refuge_edges order by parent, part" \
    "select item, mapper, class, reason from refuge_errors order by item, mapper" \
    "select b.item, v.n, v.value from record v join blobs b on b.id = v.blob order by 1, 2, 3"; do
    refuge sql --csv "$query" >main.txt || fail "sql"
    refuge sql --index pg --csv "$query" >pg.txt || fail "sql"
    is "as in SQLite: $query" "$(cat pg.txt)" "$(cat main.txt)"
done

run refuge index create twin --sink "$twin"
ok "so it is behind it" [ "$status" -ne 0 ]
run refuge index status pg
out_has "status tells where it stands" "up to date"
run refuge search --index pg harbour
out_has "search finds a word" "[harbour]"
out_has "and names the file" "one.json"
run refuge sql --index pg "delete from blobs"
status_is "sql only reads" 1
run refuge index errors pg
out_has "errors name what was set aside" "bad.json"
run refuge index why bad.json pg
out_has "why says what became of a file" "set aside"
run refuge index retry pg --all
status_is "what was set aside is tried again" 0
run refuge index run pg
status_is "and set aside again" 3
run refuge index verify pg
status_is "verify agrees" 0

printf '{"title":"second"}\n' >two.json
refuge put two.json >/dev/null
refuge index run pg -q >/dev/null 2>&1
run refuge search --index pg second
out_has "a later run adds what came" "two.json"

cat >"$REFUGE_HOME/mappers/said.lua" <<'LUA'
return {
    name = "said", version = "1", language = "english", on = { "file" },
    match = { media = "application/json" },
    tables = { said = { columns = { "words text search" } } },
    map = function(blob, emit) emit.said { words = blob:json().title } end,
}
LUA
printf '{"title":"ships went through many harbours"}\n' >ships.json
refuge put ships.json >/dev/null
run refuge index run pg
run refuge search --index pg --table said going harbour
ok "a language finds no other words" [ "$(wc -l <"$out")" -eq 0 ]
run refuge search --index pg --table said ship harbour
out_has "but other forms of a word" ships.json
run refuge index verify pg
status_is "and verify agrees" 0

if command -v psql >/dev/null; then
    psql -q "$REFUGE_TEST_POSTGRESQL" -c "CREATE MATERIALIZED VIEW public.view_$schema AS SELECT value
        FROM $schema.record" || fail "a materialized view"
    run refuge index rebuild pg
    status_is "a view in the way of a rebuild is a failure, nobody's lock" 1
    err_has "and named" "view_$schema"
    run refuge index drop pg
    status_is "so it is in the way of a drop" 1
    psql -q "$REFUGE_TEST_POSTGRESQL" -c "DROP MATERIALIZED VIEW public.view_$schema"
else
    skip "a view in the way of a rebuild" "psql is not installed"
fi
run refuge index drop pg
status_is "drop removes it" 0
run refuge index create pg --sink "$url"
status_is "and its place is free" 0
refuge index drop pg -q
done_testing
