#!/bin/sh
# Rebuild policies: which version of a mapper maps what, kept with the index and followed by verify
# and rebuild. Run once for an SQLite file, and once at each server that there is.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
mappers=$REFUGE_HOME/mappers

# seen VERSION [COLUMN]: a mapper that says which version of it saw a name.
seen()
{
    cat >"$mappers/seen.lua" <<LUA
return {
  name = "seen", version = "$1", on = { "blob", "file" }, match = { media = "application/json" },
  tables = { seen = { columns = { "who text search", "version int"${2:-} } } },
  map = function(blob, emit)
    local value = blob:json()
    if value.name then emit.seen { who = value.name, version = $1 } end
  end,
}
LUA
}

# late: a mapper that comes later.
late()
{
    sed -e 's/"seen"/"late"/' -e 's/seen = {/late = {/' -e 's/emit.seen/emit.late/' \
        "$mappers/seen.lua" >"$mappers/late.lua"
}

# rows INDEX [TABLE]: who and version of each row, in order.
rows()
{
    case $1 in
    *search) elastic rows "${2:-seen}"; return ;;
    esac
    refuge sql --index "$1" --csv "select who || version from ${2:-seen} order by 1" 2>"$tmp/.sql" |
        tail -n +2 | tr '\n' ' '
}

# kept_texts INDEX: how many texts of older versions it keeps.
kept_texts()
{
    case $1 in
    *search) elastic texts; return ;;
    esac
    refuge sql --index "$1" --csv "select count(*) from refuge_facts where name like 'text:%'" |
        tail -1
}

# elastic rows TABLE | texts: the same of the search engine at hand, $url with $prefix.
elastic()
{
    python3 - "$url/$prefix" "$@" <<'PYTHON'
import json, sys, urllib.request
def ask(path):
    return json.load(urllib.request.urlopen(sys.argv[1] + path))
if sys.argv[2] == "rows":
    hits = ask("-%s/_search?size=1000" % sys.argv[3])["hits"]["hits"]
    rows = sorted("%s%d" % (hit["_source"]["who"], hit["_source"]["version"]) for hit in hits)
    print("".join(row + " " for row in rows), end="")
else:
    facts = ask("-.refuge/_doc/state")["_source"]["body"]["facts"]
    print(sum(fact["name"].startswith("text:") for fact in facts))
PYTHON
}

seq_of()
{
    refuge stat --json "$1" | sed -n 's/.*"seq":\([0-9]*\).*/\1/p' | head -1
}

verifies()
{
    run refuge index verify "$2" --sample 100
    [ "$status" -ne 0 ] || run refuge index verify "$2"
    if [ "$status" -eq 0 ]; then pass "$1: verify finds no difference"; else
        fail "$1: verify finds no difference"
        last_run
    fi
}

# put FILE: its blobref.
put()
{
    refuge put -q "$1" | cut -d' ' -f1
}

# policies INDEX: the life of one index.
policies()
{
    index=$1
    rm -f "$mappers"/*.lua
    seen 1
    printf '[{"name":"Ada"},{"name":"Bob"}]' >a.json
    printf '{"name":"Eve"}' >e.json
    printf '{"name":"Fay"}' >f.json
    printf '[{"name":"Bob"},{"name":"Cyd"}]' >b.json
    a=$(put a.json)
    e=$(put e.json)
    f=$(put f.json)
    run refuge index run "$index"
    is "$index: the first fill maps everything" "$(rows "$index")" "Ada1 Bob1 Eve1 Fay1 "

    seen 2
    b=$(put b.json)
    run refuge index run "$index" --policy forward
    status_is "$index: forward: a run" 0
    is "$index: forward: older items keep their rows, a part is as old as what holds it" \
        "$(rows "$index")" "Ada1 Bob1 Cyd2 Eve1 Fay1 "
    verifies "$index, forward" "$index"
    run refuge index status "$index"
    out_matches "$index: the status shows the base" 'plan +seen [0-9a-f]{12} full'
    out_matches "$index: and what came" 'seen [0-9a-f]{12} forward from change [0-9]+'
    out_lacks "$index: the file is what runs" "its file changed"
    run refuge index run "$index" --policy forward
    is "$index: the same version comes once" \
        "$(refuge index status "$index" | grep -c 'seen [0-9a-f]* f')" 2

    refuge delete -q "$a" >/dev/null
    run refuge index run "$index"
    is "$index: a part whose old holder went is mapped by the version of the new one" \
        "$(rows "$index")" "Bob2 Cyd2 Eve1 Fay1 "
    verifies "$index, a holder that went" "$index"

    seen 3
    run refuge index run "$index" --policy 'match=E*.json'
    is "$index: match=NAME: files of that name are mapped again" \
        "$(rows "$index")" "Bob2 Cyd2 Eve3 Fay1 "
    verifies "$index, match=NAME" "$index"

    seen 4
    at=$(seq_of "$b")
    run refuge index run "$index" --policy "since=$at"
    is "$index: since=: what changed from then on, and the parts below it" \
        "$(rows "$index")" "Bob4 Cyd4 Eve3 Fay1 "
    verifies "$index, since=" "$index"
    run refuge index run "$index" --json
    out_has "$index: nothing is left to do" '"items":0'

    run refuge index rebuild "$index"
    is "$index: a rebuild follows the plan" "$(rows "$index")" "Bob4 Cyd4 Eve3 Fay1 "
    verifies "$index, rebuilt by the plan" "$index"

    a=$(put a.json) # back, as a new change: its part Bob is held by b.json, too
    run refuge index run "$index"
    is "$index: what comes is mapped by the newest version" \
        "$(rows "$index")" "Ada4 Bob4 Cyd4 Eve3 Fay1 "
    verifies "$index, put again" "$index"

    seen 5
    run refuge index run "$index" --policy since=2999-01-01
    is "$index: since= a day to come: nothing is mapped again" \
        "$(rows "$index")" "Ada4 Bob4 Cyd4 Eve3 Fay1 "
    printf '"no object"' | refuge put -q - >/dev/null
    seen 6
    run refuge index run "$index" --policy match=application/js*
    is "$index: match=MEDIA: blobs, files and parts of that type" \
        "$(rows "$index")" "Ada6 Bob6 Cyd6 Eve6 Fay6 "
    verifies "$index, match=MEDIA" "$index"

    # What cannot come under a policy.
    seen 7 ', "more text"'
    run refuge index run "$index" --policy forward
    status_is "$index: other tables do not come under a policy" 3
    err_has "$index: for this reason" "its tables are not those of the version before"
    is "$index: the version before goes on" "$(rows "$index")" "Ada6 Bob6 Cyd6 Eve6 Fay6 "
    run refuge index run "$index"
    status_is "$index: in full they do" 0
    is "$index: and all is mapped by it" "$(rows "$index")" "Ada7 Bob7 Cyd7 Eve7 Fay7 "
    run refuge index status "$index"
    out_lacks "$index: the plan is over" "  plan "
    is "$index: no text of an older version is kept" "$(kept_texts "$index")" 0

    seen 8 ', "more text"'
    run refuge index run "$index" --policy forward
    late
    run refuge index run "$index" --policy "since=$(seq_of "$a")"
    is "$index: a mapper that comes under a policy maps what that selects" \
        "$(rows "$index" late)" "Ada8 "
    printf '{"name":"Gus"}' >g.json
    g=$(put g.json)
    run refuge index run "$index"
    is "$index: and what comes" "$(rows "$index" late)" "Ada8 Gus8 "
    is "$index: beside one with a chain" "$(rows "$index")" "Ada7 Bob7 Cyd7 Eve7 Fay7 Gus8 "
    verifies "$index, a new mapper" "$index"
    run refuge index rebuild "$index" --full
    is "$index: rebuild --full forgets the plan" "$(rows "$index" late)" \
        "Ada8 Bob8 Cyd8 Eve8 Fay8 Gus8 "
    is "$index: of every mapper" "$(rows "$index")" "Ada8 Bob8 Cyd8 Eve8 Fay8 Gus8 "
    verifies "$index, --full" "$index"
    refuge delete -q "$a" "$b" "$e" "$f" "$g" >/dev/null
}

policies main

run refuge index run --policy sometimes
status_is "an unknown policy is a mistake in the command line" 2
err_has "that says what there is" "since=SEQUENCE"

# The policy of the index, and of the configuration.
seen 1
run refuge index create kept --policy forward
grep -q '"policy": "forward"' "$REFUGE_HOME/conf.d/index-kept.json"
is "the definition keeps the policy" "$?" 0
put e.json >/dev/null
run refuge index run kept
seen 2
run refuge index run kept
is "the policy of the index is the default of its runs" "$(rows kept)" "Eve1 "
seen 3
run refuge index run kept --policy full
is "the command line has the last word" "$(rows kept)" "Eve3 "
refuge delete -q "$e" >/dev/null

for kind in POSTGRESQL ELASTICSEARCH OPENSEARCH; do
    eval "url=\${REFUGE_TEST_$kind:-}"
    name=$(echo $kind | tr A-Z a-z)
    prefix=policy_$$
    if [ -z "$url" ]; then
        case " ${REFUGE_TEST_REQUIRE:-} " in
        *" $name "*) fail "policies in $name" "REFUGE_TEST_$kind names no server" ;;
        *) skip "policies in $name" "REFUGE_TEST_$kind names no server" ;;
        esac
        continue
    fi
    case $kind in
    POSTGRESQL) sink=$url#$prefix ;;
    *) sink=$name+$url#$prefix ;;
    esac
    refuge index create "$name" --sink "$sink" -q || fail "create $name"
    policies "$name"
    run refuge index drop "$name"
    status_is "the index in $name is removed" 0
done
done_testing
