#!/bin/sh
# t0220-postgresql-access.sh - who may come in and how, and what a server's troubles look like
#
# A server of the test's own: TLS with a certificate of its own, passwords (SCRAM), a role that may
# only read, several hosts, tables changed by psql, a full disk.
. "$(dirname "$0")/lib.sh"

service=$source_dir/tests/services/postgres
[ -n "${REFUGE_TEST_POSTGRESQL:-}" ] || skip_all "there is no PostgreSQL server here"
for program in psql openssl python3; do
    command -v $program >/dev/null || skip_all "$program is not installed"
done
place=$(mktemp -d /tmp/rf-pga-XXXXXX)
chmod 755 "$place"
full="" # a small file system, when one can be made
close_server()
{
    "$service" stop "$place" >/dev/null 2>&1 || :
    [ -z "$full" ] || umount -l "$full" 2>/dev/null || :
    rm -rf "$place"
    cleanup
}
trap close_server EXIT
refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1

free_port()
{
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
port=$(free_port)
closed=$(free_port)
"$service" install "$place" || fail "install"
for name in ca other; do
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=refuge test $name" \
        -keyout $name.key -out $name.crt >/dev/null 2>&1 || fail "openssl"
done
openssl req -newkey rsa:2048 -nodes -subj "/CN=server" -keyout server.key -out server.csr \
    >/dev/null 2>&1
echo "subjectAltName = IP:127.0.0.1" >san
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san \
    -out server.crt >/dev/null 2>&1 || fail "openssl"
cp server.crt server.key "$place/data/"
chmod 600 "$place/data/server.key"
[ "$(id -u)" -ne 0 ] || chown postgres "$place/data/server.crt" "$place/data/server.key"
echo "ssl = on" >>"$place/data/postgresql.conf"
cat >"$place/data/pg_hba.conf" <<'HBA'
local all postgres,looker trust
hostssl all all 127.0.0.1/32 scram-sha-256
HBA
eval "$("$service" start "$place" "$port")" || fail "start"
# shellcheck disable=SC2154 -- set by what was evaluated
local_url=$REFUGE_TEST_POSTGRESQL
as_admin()
{
    psql -q -X -A -t -v ON_ERROR_STOP=1 "$local_url" "$@"
}
as_looker()
{
    PGOPTIONS="-c search_path=tls" psql -q -X -A -t -v ON_ERROR_STOP=1 \
        "$(echo "$local_url" | sed s/postgres@/looker@/)" "$@" >looked 2>&1
}
as_admin -c "SET password_encryption = 'scram-sha-256'; CREATE ROLE keeper LOGIN PASSWORD 'right';
    CREATE ROLE looker LOGIN; CREATE ROLE frozen LOGIN PASSWORD 'right';
    ALTER ROLE frozen SET default_transaction_read_only = on;
    GRANT CREATE ON DATABASE postgres TO keeper, frozen" || fail "roles"
printf '127.0.0.1:*:*:*:right\nlocalhost:*:*:*:right\n' >pass
printf '127.0.0.1:*:*:*:wrong\n' >wrong
chmod 600 pass wrong

printf '{"title":"hello harbour","n":1}\n' >one.json
refuge put one.json >/dev/null
cat >"$REFUGE_HOME/mappers/notes.lua" <<'LUA'
return {
    name = "notes", version = "1", on = { "blob", "file" }, match = { media = "application/json" },
    tables = { note = { columns = { "title text search", "num int" }, latest = { key = "num" } } },
    map = function(blob, emit) local o = blob:json() emit.note { title = o.title, num = o.n } end,
}
LUA

secure="sslmode=verify-full&sslrootcert=$tmp/ca.crt"
host="keeper@127.0.0.1:$port/postgres"
try()
{
    run refuge index create tried --sink "$1"
}
try "postgresql://$host?$secure&passfile=$tmp/wrong"
status_is "a wrong password is refused" 12
err_has "and where to look is said" passfile
err_lacks "the password is not told" wrong@
try "postgresql://$host?$secure&passfile=$tmp/none"
status_is "so is no password" 12
err_has "that is said, too" passfile
try "postgresql://nobody@127.0.0.1:$port/postgres?$secure&passfile=$tmp/pass"
status_is "a user that is not there is refused" 12
try "postgresql://$host?sslmode=disable&passfile=$tmp/pass"
status_is "without TLS nobody comes in" 12
err_has "and the server says why" pg_hba.conf
try "postgresql://$host?sslmode=verify-full&sslrootcert=$tmp/other.crt&passfile=$tmp/pass"
ok "a certificate of another authority is not taken" [ "$status" -ne 0 ]
err_has "that is said" "certificate verify failed"
try "postgresql://keeper@localhost:$port/postgres?$secure&passfile=$tmp/pass"
ok "nor one for another host" [ "$status" -ne 0 ]
err_has "that is said, too" "does not match host name"
try "postgresql://keeper@127.0.0.1:$port/nowhere?$secure&passfile=$tmp/pass"
ok "a database that is not there is named" [ "$status" -eq 1 ]
err_has "with the command that makes it" createdb
try "postgresql://frozen@127.0.0.1:$port/postgres?$secure&passfile=$tmp/pass"
ok "a session that only reads is no place for an index" [ "$status" -eq 12 ]
err_has "that is said as well" primary
two="127.0.0.1:$closed,127.0.0.1:$port/postgres"
try "postgresql://frozen@$two?$secure&passfile=$tmp/pass&target_session_attrs=read-write"
status_is "nor is it one when the URL asks for a session that writes" 75
err_has "and the reason is the server's" read-only

run refuge index create tls --reader looker \
    --sink "postgresql://keeper@$two?$secure&passfile=$tmp/pass&target_session_attrs=read-write"
status_is "TLS, a password file and the second of two hosts lead in" 0
run refuge index run tls
status_is "it runs" 0
is "over TLS" "$(refuge sql --index tls --csv \
    "select ssl as s from pg_stat_ssl where pid = pg_backend_pid()" | tail -1)" 1
run refuge search --index tls harbour
out_has "and searches" one.json

looks()
{
    for name in $(as_admin -c "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = \
        c.relnamespace WHERE n.nspname = 'tls' AND c.relkind IN ('r', 'v')"); do
        as_looker -c "SELECT count(*) FROM \"$name\"" || fail "$1: the reader reads $name" "$(cat looked)"
    done
    ok "$1: the reader reads every table and view" [ -s looked ]
}
looks "at first"
for statement in "INSERT INTO note(blob, n, num) VALUES(1, 1, 1)" "UPDATE note SET num = 2" \
    "DELETE FROM blobs" "TRUNCATE refuge_lanes" "CREATE TABLE tls.mine(a int)" "DROP TABLE note"; do
    as_looker -c "$statement"
    ok "it cannot: $statement" grep -qE "permission denied|must be owner" looked
done
as_admin -c "SET ROLE keeper; CREATE VIEW tls.loud AS SELECT upper(title) AS t FROM tls.note;
    GRANT SELECT ON tls.loud TO looker; RESET ROLE; CREATE VIEW tls.strange AS SELECT 1 AS one" ||
    fail "views"
as_admin -c "GRANT SELECT ON tls.strange TO looker"
sed -e 's/version = "1"/version = "2"/; s/"num int"/"num int", "more text"/' \
    -e 's/num = o.n }/num = o.n, more = "m" }/' \
    "$REFUGE_HOME/mappers/notes.lua" >new.lua
mv new.lua "$REFUGE_HOME/mappers/notes.lua"
run refuge index run tls
status_is "a changed mapper is swapped in" 0
looks "after a swap"
as_looker -c "SELECT more FROM note"
is "the new column is there" "$(cat looked)" m
as_looker -c "SELECT t FROM loud"
is "a view over the table lives on" "$(cat looked)" "HELLO HARBOUR"
as_admin -c "CREATE MATERIALIZED VIEW tls.heap AS SELECT title FROM tls.note"
sed -i 's/version = "2"/version = "3"/; s/"m"/"n"/' "$REFUGE_HOME/mappers/notes.lua"
run refuge index run tls
status_is "what cannot be made again stops a swap" 1
err_has "and is named" heap
as_looker -c "SELECT more FROM note"
is "the version before stays" "$(cat looked)" m
as_admin -c "DROP MATERIALIZED VIEW tls.heap"
run refuge index run tls
status_is "and when it is gone the swap goes on" 0
as_looker -c "SELECT more FROM note"
is "to the new version" "$(cat looked)" n

# behind NAME WORD SQL: what was changed is found, named, and mended by the command that is said
behind()
{
    as_admin -c "SET search_path = tls; $3" || fail "$1: the change is made"
    printf '{"title":"%s","n":7}\n' "$1" >changed.json
    refuge put changed.json >/dev/null
    run refuge index run tls
    ok "$1: found" [ "$status" -eq 1 ]
    err_has "$1: named" "$2"
    command=$(sed -n "s/.*'\(refuge index [a-z]*\)[ a-z]*'.*/\1/p" "$err" | head -1)
    ok "$1: a command is said" [ -n "$command" ]
    if [ "$command" = "refuge index rebuild" ]; then
        run refuge index rebuild tls
        status_is "$1: it mends it" 0
    else
        run refuge index drop tls
        status_is "$1: dropped" 0
        run refuge index create tls --reader looker --sink "postgresql://$host?$secure&passfile=$tmp/pass"
        run refuge index run tls
        status_is "$1: and made again" 0
    fi
    run refuge index verify tls
    status_is "$1: verify agrees" 0
}
as_admin -c "DROP VIEW tls.strange"
behind "a column dropped" note "DROP VIEW loud; ALTER TABLE note DROP COLUMN more CASCADE"
behind "a type changed" note \
    "DROP VIEW note_latest; ALTER TABLE note ALTER COLUMN num TYPE text USING num::text"
behind "a table dropped" note "DROP TABLE note CASCADE"
behind "a table of refuge's own dropped" refuge_cuts "DROP TABLE refuge_cuts CASCADE"

full=$place/small
mkdir "$full"
if mount -t tmpfs -o size=24m,mode=777 tmpfs "$full" 2>/dev/null; then
    mkdir "$full/space"
    [ "$(id -u)" -ne 0 ] || chown postgres "$full/space"
    as_admin -c "CREATE TABLESPACE small LOCATION '$full/space'" \
        -c "GRANT CREATE ON TABLESPACE small TO keeper" \
        -c "ALTER ROLE keeper SET default_tablespace = small"
    run refuge index create cramped --sink "postgresql://$host?$secure&passfile=$tmp/pass"
    status_is "an index on a small disk is made" 0
    run refuge index run cramped
    python3 - <<'PY' >many.jsonl
import random
random.seed(1)
for i in range(6000):
    print('{"title":"%s","n":%d}' % (" ".join("%x" % random.getrandbits(40) for _ in range(180)), i))
PY
    refuge put many.jsonl >/dev/null
    run refuge index run cramped
    ok "a full disk stops the index" [ "$status" -eq 1 ]
    err_has "and is named, with what to do" "make room on the server's disk"
    before=$(refuge sql --index cramped --csv "select count(*) from note" | tail -1)
    is "nothing of the batch is stored" "$before" "$(refuge sql --index cramped --csv \
        "select count(distinct blob) from note" | tail -1)"
    mount -o remount,size=400m "$full"
    run refuge index run cramped
    status_is "with more room it goes on" 0
    run refuge index verify cramped
    status_is "and nothing is lost or doubled" 0
else
    full=""
    skip "a full disk" "no file system can be mounted here"
fi
done_testing
