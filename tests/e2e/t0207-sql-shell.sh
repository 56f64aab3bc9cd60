#!/bin/sh
# refuge sql on a terminal becomes sqlite3 or psql on the index, which can only read it.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
echo '{"name": "Ada"}' | refuge put -q - >/dev/null
refuge index run -q

# shell INDEX LINE...: refuge sql on a terminal of its own, each LINE typed into it. What it shows
# goes to $out, its status to $status.
shell()
{
    python3 - "$REFUGE" "$@" >"$out" 2>"$err" <<'PYTHON'
import os, pty, select, sys, time
program, index, lines = sys.argv[1], sys.argv[2], sys.argv[3:]
pid, fd = pty.fork()
if pid == 0:
    os.execv(program, [program, "sql", "--index", index])
shown, status, deadline = b"", None, time.monotonic() + 60
for line in lines:
    os.write(fd, line.encode() + b"\n")
while time.monotonic() < deadline:
    try:
        if not select.select([fd], [], [], 1)[0]:
            continue
        got = os.read(fd, 65536)
    except OSError: # the other end is closed
        break
    if not got:
        break
    shown += got
else:
    os.kill(pid, 9)
_, status = os.waitpid(pid, 0)
sys.stdout.write(shown.decode("utf-8", "replace").replace("\r", ""))
sys.exit(os.waitstatus_to_exitcode(status) & 255)
PYTHON
    status=$?
}

if command -v sqlite3 >/dev/null; then
    shell main "select 'rows: ' || count(*) from record;" "delete from record;" ".quit"
    out_has "sqlite3 starts on a terminal and answers" "rows: 1"
    out_has "it only reads" "readonly database"
    run refuge sql --csv "select count(*) from record"
    out_has "nothing was deleted" "1"
    shell main ".quit"
    status_is "its exit status is ours" 0
else
    skip "sqlite3 on a terminal" "sqlite3 is not installed"
fi

mkdir "$tmp/none"
python3 - "$REFUGE" "$tmp/none" >"$out" 2>"$err" <<'PYTHON'
import os, pty, sys
os.environ["PATH"] = sys.argv[2]
sys.exit(os.waitstatus_to_exitcode(pty.spawn([sys.argv[1], "sql"])))
PYTHON
status=$?
status_is "without the program it fails" 1
out_has "and says which to install" "install the package sqlite3, or give a QUERY"

run sh -c 'echo "select 6 * 7 as answer" | "$REFUGE" sql --csv'
out_has "a query from a pipe is read from there" "42"

if [ -z "${REFUGE_TEST_POSTGRESQL:-}" ]; then
    case " ${REFUGE_TEST_REQUIRE:-} " in
    *" postgresql "*) fail "psql on a terminal" "REFUGE_TEST_POSTGRESQL names no server" ;;
    *) skip "psql on a terminal" "REFUGE_TEST_POSTGRESQL is not set" ;;
    esac
elif command -v psql >/dev/null; then
    refuge index create team --sink "$REFUGE_TEST_POSTGRESQL#sql_shell_$$" -q
    refuge index run -q team
    PGOPTIONS="-c statement_timeout=77s"
    PSQLRC=/dev/null
    PAGER=cat
    export PGOPTIONS PSQLRC PAGER
    shell team "select 'rows: ' || count(*) from record;" "delete from record;" \
        "select 'limit: ' || current_setting('statement_timeout');" '\q'
    unset PGOPTIONS
    out_has "psql starts on a terminal, in the index's schema" "rows: 1"
    out_has "it only reads, too" "read-only transaction"
    out_has "options of the environment hold beside ours" "limit: 77s"
    refuge index drop -q team
    role=sql_shell_$$
    psql -q "$REFUGE_TEST_POSTGRESQL" -c "CREATE ROLE $role" || fail "a role"
    refuge index create team --sink "$REFUGE_TEST_POSTGRESQL#$role" --reader "$role" -q
    shell team '\q'
    ok "which role can do nothing else is said" \
        grep -q "only reads until that is turned off in it; role '$role' can do nothing else" "$out"
    refuge index drop -q team
    psql -q "$REFUGE_TEST_POSTGRESQL" -c "DROP OWNED BY $role; DROP ROLE $role" >/dev/null 2>&1
else
    skip "psql on a terminal" "psql is not installed"
fi
done_testing
