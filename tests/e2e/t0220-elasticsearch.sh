#!/bin/sh
# An index in Elasticsearch and one in OpenSearch, from `index create` to `index drop`, as a person meets
# them.
. "$(dirname "$0")/lib.sh"

[ -n "${REFUGE_TEST_ELASTICSEARCH:-}${REFUGE_TEST_OPENSEARCH:-}" ] ||
    skip_all "neither REFUGE_TEST_ELASTICSEARCH nor REFUGE_TEST_OPENSEARCH names a server"
command -v curl >/dev/null || skip_all "curl is not installed"
refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1

printf '{"title":"hello harbour","n":1}\n' >one.json
printf 'name,city\nada,london\nbob,paris\n' >people.csv
printf '{"title": broken' >bad.json
printf '{"t":"the north gate, lanterns at foo.bar"}\n{"t":"運用マニュアル for iPhone用"}\n{"t":"gate"}\n' >w.jsonl
refuge put -q one.json people.csv bad.json w.jsonl >/dev/null 2>&1
refuge index run main -q >/dev/null 2>&1

run refuge index create web --sink "elasticsearch+http://ada:secret@127.0.0.1:1"
status_is "a password in the URL is refused" 2
err_has "and what to do instead is said" passfile
run refuge index create web --sink "elasticsearch+http://127.0.0.1:1"
status_is "a server that is not there is unreachable" 75
run refuge index create web --sink "elasticsearch+http://127.0.0.1:1#_all"
ok "a prefix that would reach other indexes is refused" [ "$status" -ne 0 ]
err_has "and why is said" "cannot begin the names of indexes"
run refuge index create web --sink "elasticsearch+http://127.0.0.1:1#one#two"
ok "so is a second '#'" [ "$status" -ne 0 ]
err_has "for what it is" "more than one '#'"
printf 'ada:secret\n' >secret
chmod 644 secret
run refuge index create web --sink "elasticsearch+http://127.0.0.1:1?passfile=$tmp/secret"
err_has "a secret that others can read is refused" "chmod 600"

# engine NAME URL: all of it at one server
engine()
{
    server=$2
    prefix=e2e-$$
    run refuge index create "$1" --sink "$1+$server#$prefix"
    status_is "$1: an index is made" 0
    run refuge index create twin --sink "$1+$(echo "$server" |
        sed 's/127\.0\.0\.1/localhost/')/#$prefix"
    ok "$1: before its first run the same place by another spelling is refused" [ "$status" -ne 0 ]
    err_has "$1: and which index has it is said" "which may be '$1'"
    run refuge index run "$1"
    status_is "$1: it runs; what cannot be mapped is set aside" 3
    run refuge index verify "$1"
    status_is "$1: verify agrees" 0
    refuge index run main -q >/dev/null 2>&1
    is "$1: its digest is that of the index in SQLite" "$(refuge index digest "$1" | cut -c 1-64)" \
        "$(refuge index digest main | cut -c 1-64)"
    run refuge index status "$1"
    out_has "$1: status tells where it stands" "up to date"
    run refuge search --index "$1" harbour
    out_has "$1: search finds a word" "[harbour]"
    out_has "$1: and names the file" "one.json"
    for words in harbour Hárbour 'foo.bar' bar '"north gate"' '"gate north"' lanter 'lant*' 'gate -north' \
        '運用' '用マ' 'iphone用' 'ニュアル' nowhere '-gate'; do
        refuge --json search --index main --limit 100 -- "$words" 2>/dev/null |
            grep -o '"item":"[^"]*"' | sort >main.hits
        refuge --json search --index "$1" --limit 100 -- "$words" 2>/dev/null |
            grep -o '"item":"[^"]*"' | sort >engine.hits
        is "$1: '$words' finds what it finds in SQLite" "$(cat engine.hits)" "$(cat main.hits)"
    done
    run refuge search --index "$1" hello harbour
    out_has "$1: each word has its mark" "[hello] [harbour]"
    run curl -sS "$server/$prefix-record/_search?q=value:paris"
    out_has "$1: who asks the server itself finds it, too" '"value":"paris"'
    run refuge sql --index "$1" "select 1"
    ok "$1: SQL is refused" [ "$status" -ne 0 ]
    err_has "$1: and what to use instead is said" "refuge search"
    run refuge index errors "$1"
    out_has "$1: errors name what was set aside" "bad.json"
    run refuge index why bad.json "$1"
    out_has "$1: why says what became of a file" "set aside"
    run refuge index retry "$1" --all
    status_is "$1: what was set aside is tried again" 0
    run refuge index run "$1"
    status_is "$1: and set aside again" 3
    printf '{"title":"second at %s"}\n' "$1" >"two-$1.json"
    refuge put "two-$1.json" >/dev/null 2>&1
    refuge index run "$1" -q >/dev/null 2>&1
    refuge index run main -q >/dev/null 2>&1
    run refuge search --index "$1" second "$1"
    out_has "$1: a later run adds what came" "two-$1.json"
    run refuge index rebuild "$1"
    run refuge index verify "$1"
    status_is "$1: verify agrees with a rebuilt one" 0

    # A follower is killed: nobody's lock stays behind, and the next run goes on.
    background "$REFUGE" index run "$1" --follow
    printf '{"title":"third at %s"}\n' "$1" >"three-$1.json"
    refuge put "three-$1.json" >/dev/null 2>&1
    wait_for 60 "the follower to take what came" refuge index wait "$1"
    kill -9 "$pid"
    wait "$pid" 2>/dev/null
    run refuge search --index "$1" third
    out_has "$1: what a follower wrote is found at once" "three-$1.json"
    run refuge index run "$1"
    status_is "$1: after a kill the next one goes on" 3

    # Nobody holds an index that may not be written.
    table=$(curl -sS "$server/_cat/aliases/$prefix-record?h=index" | tr -d ' ')
    curl -sS -X PUT "$server/$table/_settings" -H 'Content-Type: application/json' \
        -d '{"index.blocks.write": true}' >/dev/null
    printf '{"title":"fourth at %s"}\n' "$1" >"four-$1.json"
    refuge put "four-$1.json" >/dev/null 2>&1
    run refuge index run "$1"
    status_is "$1: what may not be written is a matter of access" 12
    curl -sS -X PUT "$server/$table/_settings" -H 'Content-Type: application/json' \
        -d '{"index.blocks.write": false}' >/dev/null
    run refuge index run "$1"
    status_is "$1: and goes on when it may" 3

    run refuge index drop "$1"
    status_is "$1: drop removes it" 0
    is "$1: and all of it" "$(curl -sS "$server/_cat/indices/$prefix-*?expand_wildcards=all")" ""

    # What somebody else made is left alone.
    curl -sS -X PUT "$server/$prefix-.refuge" >/dev/null
    run refuge index create "$1" --sink "$1+$server#$prefix"
    ok "$1: an index of that name that is not refuge's is refused" [ "$status" -ne 0 ]
    err_has "$1: and left alone" "left alone"
    run curl -sS "$server/$prefix-.refuge/_mapping"
    out_has "$1: it is still there" "mappings"
    curl -sS -X DELETE "$server/$prefix-.refuge" >/dev/null
    for body in '' "{\"aliases\":{\"$prefix-record\":{}}}"; do # by its name, by an alias
        name=$prefix-record
        [ -z "$body" ] || name=other-$$
        curl -sS -X PUT -H 'Content-Type: application/json' "$server/$name" ${body:+-d "$body"} >/dev/null
        run refuge index create "$1" --sink "$1+$server#$prefix"
        status_is "$1: so is one that a table's name would meet, at once" 12
        err_has "$1: and named" "'$name'"
        ok "$1: nothing of that stays" [ ! -e "$REFUGE_HOME/conf.d/index-$1.json" ]
        is "$1: nor at the server" "$(curl -sS "$server/_cat/indices/$prefix-.refuge?expand_wildcards=all" |
            grep -c green)" 0
        curl -sS -X DELETE "$server/$name" >/dev/null
    done
    run refuge index create "$1" --sink "$1+$server#$prefix"
    run refuge index create "$1-two" --sink "$1+$server#$prefix-two"
    status_is "$1: a prefix may go on where another ends" 0
    refuge index drop "$1-two" -q >/dev/null 2>&1
    curl -sS -X PUT "$server/$prefix-record" >/dev/null
    run refuge index run "$1"
    ok "$1: one that came later stops a run" [ "$status" -ne 0 ]
    err_has "$1: and is left alone" "left alone"
    curl -sS -X DELETE "$server/$prefix-record" >/dev/null
    refuge index drop "$1" -q >/dev/null 2>&1
}

[ -z "${REFUGE_TEST_ELASTICSEARCH:-}" ] || engine elasticsearch "$REFUGE_TEST_ELASTICSEARCH"
[ -z "${REFUGE_TEST_OPENSEARCH:-}" ] || engine opensearch "$REFUGE_TEST_OPENSEARCH"
done_testing
