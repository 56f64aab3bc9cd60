#!/bin/sh
# t0212-postgresql-objects.sh - views, indexes, constraints and comments that psql changed
#
# One change at a time; verify must name it and say by which command it goes, and that command, typed as
# it stands, must mend it.
. "$(dirname "$0")/lib.sh"

[ -n "${REFUGE_TEST_POSTGRESQL:-}" ] || skip_all "REFUGE_TEST_POSTGRESQL names no server"
command -v psql >/dev/null || skip_all "psql is not installed"
schema=objects_$$
cd "$tmp" || exit 1

refuge init -q >/dev/null || fail "init"
cat >"$REFUGE_HOME/mappers/note.lua" <<'LUA'
return {
    name = "note", version = 1, on = { "blob", "file" }, match = { media = "application/json" },
    language = "english",
    tables = {
        note = {
            title = "notes",
            columns = { "key text facet", "at time", "words text search",
                        { "grade", "int", title = "how good" } },
            indexes = { { "key", "grade" } },
            latest = { key = { "key" }, by = "at" },
        },
    },
    map = function(blob, emit)
        local note = blob:json()
        if not note.key then error("no key") end
        emit.note { key = note.key, words = note.words, grade = 1, at = refuge.time.parse("2020-01-02") }
    end,
}
LUA
printf '{"key": "a", "words": "harbours and lanterns"}' >a.json
printf '{"key": "b", "words": "meadow"}' >b.json
printf '{"words": "none"}' >bad.json
refuge put -q a.json b.json bad.json >/dev/null || fail "put"
refuge index create -q pg --sink "$REFUGE_TEST_POSTGRESQL#$schema" \
    --mapper "$REFUGE_HOME/mappers/note.lua" || fail "create"

db()
{
    PGOPTIONS="-c search_path=$schema" psql -q -X -A -t -v ON_ERROR_STOP=1 "$REFUGE_TEST_POSTGRESQL" "$@"
}

run refuge index run pg
status_is "the index runs" 3
run refuge index verify pg
status_is "an untouched index verifies" 0
db -c "CREATE VIEW mine AS SELECT key FROM note; CREATE INDEX mine_too ON note(grade)" || fail "add"
run refuge index verify pg
status_is "what a person added for reading may stay" 0
db -c "DROP VIEW mine; DROP INDEX mine_too" || fail "take away"

# What the last verify advises, a line for each command of refuge.
advised()
{
    tail -n 1 "$err" | grep -o "'refuge index [drc][^']*'" | tr -d "'"
}

# changed NAME SQL LINE [ADVICE]: do it; verify must say LINE, advise ADVICE and nothing else (a
# rebuild, unless another is named), and the advice must mend it.
changed()
{
    db -c "$2" >said 2>&1 || fail "$1: the change is made" "$(cat said)"
    run refuge index verify pg
    status_is "$1: found" 1
    cat "$err" >>"$out"
    out_has "$1: named" "$3"
    advised >commands
    is "$1: advised" "$(cut -d ' ' -f 3 commands | tr '\n' ' ')" "${4-rebuild }"
    if [ -z "${4-rebuild}" ]; then
        sed -n 's/.*; "\(.*\)" in psql takes it away.*/\1/p' "$out" >commands
        ok "$1: by hand" test -s commands
        psql -q -X -v ON_ERROR_STOP=1 "$REFUGE_TEST_POSTGRESQL" -f commands >said 2>&1 ||
            fail "$1: the command can be typed" "$(cat said)"
    else
        while read -r program arguments; do
            # shellcheck disable=SC2086 # they are words
            "$program" $arguments -q </dev/null >said 2>&1 || [ $? -eq 3 ] ||
                fail "$1: '$arguments' runs" "$(cat said)"
        done <commands
        [ "${4-rebuild }" = "rebuild " ] || refuge index run pg -q >/dev/null 2>&1
    fi
    run refuge index verify pg
    status_is "$1: mended" 0
    is "$1: errors can be asked for" "$(db -c 'SELECT count(*) FROM refuge_errors')" 1
    is "$1: and the latest" "$(db -c 'SELECT count(*) FROM note_latest')" 2
}

changed "a view of refuge's own dropped" "DROP VIEW refuge_errors" \
    "view 'refuge_errors': it is not there"
changed "another one" "DROP VIEW refuge_edges" "view 'refuge_edges': it is not there"
changed "a view that says something else" \
    "CREATE OR REPLACE VIEW note_latest AS SELECT * FROM (SELECT id, blob, n, key, at, at_offset, words, grade
     FROM note) x WHERE grade = 7" \
    "view 'note_latest': it is not as refuge makes it"
changed "a view of refuge's own that says something else" \
    "CREATE OR REPLACE VIEW refuge_errors AS SELECT b.item, b.name, m.name AS mapper, d.class, d.reason,
     d.attempts, d.at FROM refuge_dead_letters d JOIN refuge_lane_mappers m ON m.id = d.mapper JOIN blobs b
     ON b.id = d.blob" \
    "view 'refuge_errors': it is not as refuge makes it"
changed "the view of a table dropped" "DROP VIEW note_latest" "view 'note_latest': it is not there"

index_of()
{
    db -c "SELECT indexname FROM pg_indexes WHERE schemaname = '$schema' AND tablename = 'note' AND indexdef
        LIKE '%$1%' LIMIT 1"
}
changed "a full-text index dropped" "DROP INDEX $(index_of 'gin (search)')" \
    "table 'note': index gin (search) is not there"
changed "a declared index dropped" "DROP INDEX $(index_of '"left"(key')" \
    "table 'note': index btree (\"left\"(key"
changed "an index that is unique no more" \
    "DROP INDEX $(index_of 'btree (id)'); CREATE INDEX plain ON note(id)" \
    "table 'note': index UNIQUE btree (id) is not there"
changed "an index of refuge's own dropped" "DROP INDEX refuge_parts_child" \
    "table 'refuge_parts': index btree (child, mapper) is not there"

changed "a foreign key dropped" \
    "DO \$\$ BEGIN EXECUTE (SELECT 'ALTER TABLE note DROP CONSTRAINT ' || quote_ident(conname) FROM
     pg_constraint WHERE conrelid = 'note'::regclass AND contype = 'f'); END \$\$" \
    "table 'note': constraint FOREIGN KEY (blob) REFERENCES blobs(id) is not there"
changed "a primary key dropped" "ALTER TABLE refuge_parks DROP CONSTRAINT refuge_parks_pkey" \
    "table 'refuge_parks': constraint PRIMARY KEY (blob, mapper) is not there"
changed "what keeps items apart dropped" "ALTER TABLE blobs DROP CONSTRAINT blobs_item_key" \
    "table 'blobs': constraint UNIQUE (item) is not there"
changed "a constraint added" "ALTER TABLE note ADD CHECK (grade > 0)" \
    "table 'note': refuge made no constraint CHECK (grade > 0)"
changed "a constraint of refuge's own added" "ALTER TABLE blobs ADD CHECK (size > 0)" \
    "table 'blobs': refuge made no constraint CHECK (size > 0)" ""

changed "a column added" "ALTER TABLE note ADD extra integer" "table 'note': refuge made no column extra"
changed "a table of refuge's own that may hold nulls" "ALTER TABLE refuge_parts ALTER child DROP NOT NULL" \
    "table 'refuge_parts': column child is bigint, not bigint not null" "drop create run "
changed "a default added" "ALTER TABLE note ALTER grade SET DEFAULT 3" \
    "table 'note': column grade is bigint default 3"
changed "a column of refuge's own added" "ALTER TABLE blobs ADD extra integer" \
    "table 'blobs': refuge made no column extra" ""
changed "a column of refuge's own of another type" "ALTER TABLE refuge_parks ALTER attempts TYPE integer" \
    "table 'refuge_parks': column attempts is integer not null, not bigint not null" "drop create run "

changed "a comment gone" "COMMENT ON TABLE note IS NULL" \
    "'note': its comment is not there; 'index drop' would leave it behind"
changed "a comment of a column gone" "COMMENT ON COLUMN note.grade IS NULL" \
    "'note.grade': its comment is not there"
changed "a comment of refuge's own without its mark" "COMMENT ON TABLE blobs IS 'items'" \
    "'blobs': its comment is not there; 'index drop' would leave it behind"
changed "the version gone" "DELETE FROM refuge_format" \
    "table 'refuge_format': it holds 0 versions, should be 1"
changed "no table of the version" "DROP TABLE refuge_format" "table refuge_format is not there" \
    "drop create run "
changed "ids in smaller blocks" "ALTER SEQUENCE refuge_blob_ids INCREMENT BY 1" \
    "sequence 'refuge_blob_ids': it is not as refuge makes it"
changed "no ids" "DROP SEQUENCE refuge_blob_ids" "sequence 'refuge_blob_ids': it is not there"
changed "a table that a crash would empty" "ALTER TABLE note SET UNLOGGED" \
    "table 'note': it is unlogged, not logged"
changed "a trigger" \
    "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
     CREATE TRIGGER meddles BEFORE INSERT ON note FOR EACH ROW EXECUTE FUNCTION meddle()" \
    "table 'note': refuge made no trigger meddles" ""
changed "a rule" "CREATE RULE quiet AS ON UPDATE TO blobs DO INSTEAD NOTHING" \
    "table 'blobs': refuge made no rule quiet" ""
changed "a policy" "CREATE POLICY hides ON note USING (false)" \
    "table 'note': refuge made no policy hides" ""

is "verify leaves nothing behind" "$(db -c "SELECT count(*) FROM pg_class WHERE relnamespace IN (SELECT oid
    FROM pg_namespace WHERE nspname LIKE 'pg_temp%') AND relname LIKE 'refuge_%'")" 0
db -c "DROP FUNCTION meddle" || fail "the function goes"
run refuge index drop pg
status_is "the index is dropped" 0
is "with all it had" "$(db -c "SELECT count(*) FROM pg_namespace WHERE nspname = '$schema'")" 0
done_testing
