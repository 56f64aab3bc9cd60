#!/bin/sh
# t0230-elasticsearch-damage.sh - `refuge index verify` finds what curl did behind its back
#
# One kind of damage at a time; verify must fail and name it, and the rebuild that it advises must mend
# it.
. "$(dirname "$0")/lib.sh"

server=${REFUGE_TEST_OPENSEARCH:-${REFUGE_TEST_ELASTICSEARCH:-}}
[ -n "$server" ] || skip_all "neither REFUGE_TEST_ELASTICSEARCH nor REFUGE_TEST_OPENSEARCH names a server"
command -v curl >/dev/null || skip_all "curl is not installed"
prefix=damage-$$
cd "$tmp" || exit 1

printf '{"kind": "poison", "id": "bad"}' >poison.json
printf '{"kind": "plain", "id": "good", "rows": 2}' >good.json
printf '{"kind": "plain", "id": "doomed", "rows": 1}' >doomed.json
printf '{"kind": "need", "id": "waits", "ref": "%s"}' \
    "sha256-0000000000000000000000000000000000000000000000000000000000000000" >waits.json
printf '{"kind": "split", "id": "s", "parts": [{"kind": "plain", "id": "p", "rows": 1}]}' >split.json
refuge init -q >/dev/null
cp "$source_dir/tests/fault/history.lua" "$REFUGE_HOME/mappers/"
refuge put ./*.json >refs 2>/dev/null
ref_of()
{
    sed -n "s|^\(sha256-[0-9a-f]*\)  .*$1\$|\1|p" refs
}
run refuge index create es --sink "elasticsearch+$server#$prefix"
status_is "an index is made in the server" 0
refuge index run es -q >/dev/null 2>&1
refuge delete "$(ref_of doomed.json)" >/dev/null
refuge index run es -q >/dev/null 2>&1
run refuge index verify es
status_is "an undamaged index verifies" 0

# The index behind the alias of table history, and a place in it for a document of this id.
history()
{
    curl -sS "$server/$prefix-history/_mapping" | grep -o "$prefix-history-[0-9]*" | head -n 1
}
send()
{
    curl -sS -X "$1" -H 'Content-Type: application/json' "$server/$2" ${3:+-d "$3"} >changed 2>&1
    grep -q '"error"' changed && fail "the damage is done" "$(cat changed)"
}

# damage NAME WORDS METHOD PATH [BODY]: verify must fail, and say every word; a rebuild mends it.
damage()
{
    damage_name=$1
    damage_words=$2
    shift 2
    send "$@"
    run refuge index verify es
    cat "$out" "$err" >said
    status_is "$damage_name: found" 1
    case $damage_words in
    *": "*) ok "$damage_name: named" grep -qF -e "$damage_words" said ;;
    *) for word in $damage_words; do
        ok "$damage_name: named" grep -qF -e "$word" said
    done ;;
    esac
    case $damage_name in
    *alias*) ok "$damage_name: a rebuild is advised" grep -q "'refuge index rebuild es' makes" said ;;
    esac
    refuge index rebuild es -q >/dev/null 2>&1
    run refuge index verify es
    status_is "$damage_name: mended by a rebuild" 0
}

good=$(ref_of good.json)
doomed=$(ref_of doomed.json)
split=$(ref_of split.json)
damage "a row gone" "history $good" DELETE "$(history)/_doc/history:$good:1?refresh=true"
damage "a row doubled" "history $good" PUT "$(history)/_doc/history:$good:100?refresh=true" \
    "{\"refuge\":{\"item\":\"$good\",\"n\":100},\"key\":\"good\"}"
damage "one cell changed" "history $good key" PUT "$(history)/_doc/history:$good:0?refresh=true" \
    "{\"refuge\":{\"item\":\"$good\",\"n\":0,\"words\":[\"plain number 1\"]},\"key\":\"another\",
      \"kind\":\"plain\",\"note\":\"plain number 1\"}"
damage "a full-text entry changed" "history $good full-text" \
    PUT "$(history)/_doc/history:$good:0?refresh=true" \
    "{\"refuge\":{\"item\":\"$good\",\"n\":0,\"words\":[\"weasel\"]},\"key\":\"good\",
      \"kind\":\"plain\",\"note\":\"plain number 1\"}"
damage "a deleted blob's row put back" "history $doomed" \
    PUT "$(history)/_doc/history:$doomed:0?refresh=true" \
    "{\"refuge\":{\"item\":\"$doomed\",\"n\":0},\"key\":\"doomed\"}"
damage "an alias gone" "alias $prefix-history" DELETE "$(history)/_alias/$prefix-history"
damage "an alias with a filter" "alias '$prefix-history': it has 'filter'" POST _aliases \
    "{\"actions\":[{\"add\":{\"index\":\"$(history)\",\"alias\":\"$prefix-history\",
      \"filter\":{\"term\":{\"key\":\"good\"}}}}]}"
damage "an alias with a routing" "alias '$prefix-history': it has 'search_routing'" POST _aliases \
    "{\"actions\":[{\"add\":{\"index\":\"$(history)\",\"alias\":\"$prefix-history\",
      \"search_routing\":\"1\"}}]}"

# by_hand NAME LINE: verify must say LINE and advise nothing but what the line says; a rebuild says the
# same and changes nothing; the request that it names, sent as it stands, mends it.
by_hand()
{
    run refuge index verify es
    status_is "$1: found" 1
    out_has "$1: named" "$2"
    err_lacks "$1: no rebuild is advised" "'refuge index rebuild"
    sed -n 's|.*; "DELETE /\(.*\)" takes .*|\1|p' "$out" >request
    run refuge index rebuild es
    status_is "$1: a rebuild is refused" 1
    err_has "$1: which says what to do" "\"DELETE /$(cat request)\""
    send DELETE "$(cat request)"
    run refuge index verify es
    status_is "$1: mended by hand" 0
    run refuge index rebuild es
    ok "$1: and can be rebuilt" [ "$status" -eq 3 ]
}
foreign=foreign-$$
send PUT "$foreign" '{"settings":{"number_of_replicas":0}}'
send PUT "$foreign/_alias/$prefix-history"
by_hand "an alias on a foreign index" "alias '$prefix-history': it also names index '$foreign'"
send DELETE "$foreign"
send PUT "$foreign" '{"settings":{"number_of_replicas":0,"hidden":true}}'
send PUT "$foreign/_alias/$prefix-history"
by_hand "an alias on a hidden index" "alias '$prefix-history': it also names index '$foreign'"
send DELETE "$foreign"
send DELETE "$(history)/_alias/$prefix-history"
send PUT "$prefix-history" '{"settings":{"number_of_replicas":0}}'
run refuge index verify es
err_has "an index in the place of an alias: a rebuild is advised behind that" \
    "'refuge index rebuild es' makes"
sed -n 's|.*; "DELETE /\(.*\)" takes it away .*|\1|p' "$out" >request
is "an index in the place of an alias: what to do is said" "$(cat request)" "$prefix-history"
run refuge index rebuild es
err_has "an index in the place of an alias: a rebuild says it, too" "\"DELETE /$prefix-history\""
damage "an alias that was in the way" "alias '$prefix-history': it does not name index" \
    DELETE "$(cat request)"
edge=$(curl -sS "$server/$prefix-.refuge/_search?q=kind:edge&size=1" | grep -o 'e:[0-9]*:0:sha256-[0-9a-f]*')
damage "an edge to a part gone" "$split" DELETE "$prefix-.refuge/_doc/$edge?refresh=true"
index=$(history)
send DELETE "$index"
run refuge index verify es
status_is "a table gone: found" 1
for command in run rebuild; do
    run refuge index $command es
    ok "a table gone: $command writes nothing" [ "$status" -ne 0 ]
    err_has "a table gone: $command names it" "it held table 'history'"
done
grep "index drop es'" "$err" | grep -o "'refuge [^']*'" | tr -d "'" >commands
is "a table gone: what to do is said" "$(cut -d ' ' -f 1-4 commands | tr '\n' ' ')" \
    "refuge index drop es refuge index create es refuge index run es "
while read -r program arguments; do
    # shellcheck disable=SC2086 # they are words
    "$program" $arguments -q </dev/null >/dev/null 2>&1
done <commands
run refuge index verify es
status_is "a table gone: mended so" 0
refuge index drop es -q
is "drop leaves nothing" "$(curl -sS "$server/_cat/indices/$prefix-*?expand_wildcards=all")" ""
done_testing
