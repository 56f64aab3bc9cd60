#!/bin/sh
# A sink that dies stops its own index only, which catches up when the sink is back.
. "$(dirname "$0")/lib.sh"

service=$source_dir/tests/services/postgres
chmod 755 "$tmp"
if ! "$service" install "$tmp/pg" >"$tmp/.service" 2>&1; then
    case " ${REFUGE_TEST_REQUIRE:-} " in
    *" postgresql "*)
        fail "a server of its own" "$(cat "$tmp/.service")"
        done_testing
        ;;
    esac
    skip_all "$(tail -1 "$tmp/.service")"
fi
stop_service() { "$service" stop "$tmp/pg" >/dev/null 2>&1; }
trap 'stop_service; cleanup' EXIT

start() { "$service" start "$tmp/pg" >"$tmp/.url" || fail "start the server"; }

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
start
refuge index create -q team --sink "$(cut -d= -f2- <"$tmp/.url")#team" || fail "create"

# put N: N more records; $put counts them.
put=0
put_more()
{
    python3 -c "
for i in range($put, $put + $1):
    print('{\"n\": \"record %d\"}' % i)" >"more$put.jsonl"
    put=$((put + $1))
    refuge put -q "$(ls -t more*.jsonl | head -1)" >/dev/null
}

holds()
{
    [ "$(refuge sql --csv --index "$1" "select count(*) from record" | tail -1)" = "$2" ]
}

put_more 300
refuge index run -q main
run refuge index run
status_is "both indexes run" 0
ok "the file is filled" holds main 300
ok "and the schema of the server" holds team 300

"$service" kill "$tmp/pg"
put_more 50
run refuge index run
status_is "with a server that is down the status is that it cannot be reached" 75
err_has "the index is named" "team"
ok "the other index is up to date" holds main 350
run refuge index run --json
status_is "as JSON, too" 75
is "there is one summary" "$(grep -c '"type":"summary"' "$out")" 1
is "it is last and counts" "$(tail -1 "$out" |
    grep -c '"type":"summary".*"exit":75.*"indexes":2,"up_to_date":1,.*"unreachable":1,"failed":0')" 1
is "each index has an object" "$(grep -c '"type":"index"' "$out")" 2

# Following, it waits for the server from the start.
background "$REFUGE" index run --follow
follower=$pid
put_more 50
wait_for 60 "main to follow while the server is down" holds main 400
wait_for 60 "another attempt to reach the server" grep -q "team: .*trying again in" "$tmp/.background.err"
start
wait_for 120 "team to catch up" holds team 400
pass "an index that could not be reached at the start catches up"

# And when it dies in the middle.
"$service" kill "$tmp/pg"
put_more 3000
wait_for 120 "main to go on" holds main 3400
pass "main goes on while the server is down again"
start
wait_for 120 "team to catch up again" holds team 3400
pass "and team catches up"
put_more 2000
"$service" kill "$tmp/pg"
start
wait_for 120 "team to catch up after a kill in the middle of a batch" holds team 5400
wait_for 120 "main, too" holds main 5400
pass "a kill in the middle of a batch loses nothing"
ok "both still follow" kill -0 "$follower"
kill -TERM "$follower"
wait "$follower"
is "and end when they are stopped" "$?" 130
run refuge index verify team
status_is "what it holds is what a rebuild gives" 0

# A server that never comes back.
url=$(sed -n 's/.*"sink": *"\([^"]*\)".*/\1/p' "$REFUGE_HOME/conf.d/index-team.json")
"$service" stop "$tmp/pg" >/dev/null 2>&1
run refuge doctor
status_is "doctor fails" 1
out_has "doctor names the index and the server" "'team': cannot reach index 'postgresql://"
out_has "and what can be done" "'refuge index drop team --forget'"
run refuge index drop team
status_is "a drop cannot reach it" 75
err_has "and says how it goes all the same" "'refuge index drop team --forget' forgets the index here"
run refuge index drop --forget main
status_is "an index of the home cannot be forgotten" 2
run refuge index drop team --forget --dry-run
status_is "it can be tried" 0
err_has "with what would be" "would forget index 'team'"
ok "and nothing is done" [ -e "$REFUGE_HOME/conf.d/index-team.json" ]
run refuge index drop team --forget
status_is "it is forgotten" 0
err_has "what stays is said" "schema 'team' stays in '$url'"
err_has "and what takes it up again" "'refuge index create team --sink $url'"
grep -o "'refuge index create[^']*'" "$err" | tr -d "'" >again
run refuge index list
out_lacks "it is no index of this home any more" team
run refuge index run
status_is "and a run does not wait for it" 0
run refuge doctor
out_lacks "nor does doctor" team
start
read -r program arguments <again
# shellcheck disable=SC2086 # they are words
"$program" $arguments >/dev/null 2>&1 || fail "create"
run refuge index run team
status_is "it is taken up again" 0
ok "with what it held" holds team 5400
psql -q -X "${url%%#*}" -c "CREATE DATABASE gone" || fail "a database"
refuge index create -q gone --sink "$(echo "$url" | sed 's|/postgres#.*|/gone#gone|')" || fail "create"
psql -q -X "${url%%#*}" -c "DROP DATABASE gone" || fail "drop the database"
run refuge index drop gone
status_is "an index whose database is gone can be dropped" 0
run refuge index drop team
status_is "and one whose server is there" 0
is "with all it held" "$(psql -q -X -A -t "${url%%#*}" -c \
    "SELECT count(*) FROM pg_namespace WHERE nspname = 'team'")" 0
"$service" stop "$tmp/pg" >/dev/null 2>&1
done_testing
