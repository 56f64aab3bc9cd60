#!/bin/sh
# One home, an index in every kind of sink: the same rows, the same dead letters, one digest; also after
# deletes, a mapper that changed, and a run that was killed. What a row says is asked of each by its own
# client.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
cat >"$REFUGE_HOME/mappers/ten.lua" <<'LUA'
return {
    name = "ten", version = "1", on = { "file" }, match = { name = { "ten-*.json" } },
    tables = { ten = { columns = { "number int", "word text search", "share float", "at time",
                                   "ok bool", "long text facet" },
                       indexes = { "word", { "number", "long", "word" } } } },
    map = function(blob, emit)
        local item = blob:json()
        if item.n == 7 then error("seven is not to be mapped") end
        local long = {}
        for i = 1, 640 do -- more than a B-tree or a search engine takes of one value
            long[i] = refuge.hash.sha256(item.word .. i)
        end
        emit.ten { number = item.n, word = item.word, share = item.share, at = item.at,
                   ok = item.ok, long = table.concat(long) }
    end,
}
LUA
for n in 0 1 2 3 4 5 6 7 8 9; do
    word="word $n"
    [ "$n" -ne 4 ] || word='nul \u0000 within'
    truth=$([ $((n % 2)) -eq 0 ] && echo true || echo false)
    printf '{"n": %s, "word": "%s", "share": %s.25, "at": "2024-02-0%sT01:02:03.5+02:00", "ok": %s}' \
        "$n" "$word" "-$n" "$((n % 9 + 1))" "$truth" >"ten-$n.json"
done
refuge put -q ten-*.json >/dev/null
samples=/usr/share/iso-codes/json
[ ! -d $samples ] || refuge put -q --match 'iso_3166-1.json' --match 'iso_15924.json' $samples >/dev/null

names=main
prefix=every-$$
refuge index run -q main
for kind in POSTGRESQL ELASTICSEARCH OPENSEARCH; do
    eval "url=\${REFUGE_TEST_$kind:-}"
    name=$(echo $kind | tr A-Z a-z)
    if [ -z "$url" ]; then
        skip "$name" "REFUGE_TEST_$kind names no server"
        continue
    fi
    case $kind in
    POSTGRESQL) sink="$url#every_$$" ;;
    *) sink="$name+$url#$prefix-$name" ;;
    esac
    run refuge index create "$name" --sink "$sink"
    status_is "$name is made" 0
    names="$names $name"
done

# rows NAME: how many rows of table ten its own client counts, and what it has of blob 4.
rows()
{
    case $1 in
    main)
        query "$REFUGE_HOME/index/main.db" \
            "SELECT (SELECT count(*) FROM ten) || ' ' || word FROM ten WHERE number = 4"
        ;;
    postgresql)
        psql "$REFUGE_TEST_POSTGRESQL" -Atc "SELECT (SELECT count(*) FROM every_$$.ten) || ' ' || word
            FROM every_$$.ten WHERE number = 4" ;;
    *)
        eval "url=\$REFUGE_TEST_$(echo "$1" | tr a-z A-Z)"
        python3 - "$url/$prefix-$1-ten" <<'PYTHON'
import json, sys, urllib.request
def ask(query):
    return json.load(urllib.request.urlopen(sys.argv[1] + "/_search?" + query))["hits"]
four = ask("q=number:4")["hits"][0]["_source"]
print(ask("size=0&track_total_hits=true")["total"]["value"], four["word"])
PYTHON
        ;;
    esac
}

# same WHEN: all say the same now.
same()
{
    want=$(refuge index digest main | cut -c1-64)
    for name in $names; do
        got=$(refuge index digest "$name" | cut -c1-64)
        is "$1: $name says the same" "$got" "$want"
        [ "$got" = "$want" ] || refuge index verify "$name" 2>&1 | sed 's/^/# /'
    done
}

for name in $names; do
    run refuge index run "$name"
    status_is "$name runs, with one item set aside" 3
    is "$name: nine rows, the NUL dropped" "$(rows "$name" | tr -s ' ')" "9 nul within"
    run refuge index errors "$name" --mapper ten
    out_has "$name: one dead letter" "ten-7.json"
    out_has "with its reason" "seven is not to be mapped"
    is "and no other" "$(grep -c 'try it' "$out")" 1
done
same "at first"
python3 "$source_dir/tests/oracle.py" "$REFUGE_HOME" --refuge "$REFUGE" >"$out" 2>"$err"
is "and it is what the oracle says" $? 0

refuge delete -q "$(refuge put -q ten-1.json | cut -d' ' -f1)" >/dev/null
echo '{"n": 10, "word": "later"}' >ten-10.json
refuge put -q ten-10.json >/dev/null
sed -i 's/version = "1"/version = "2"/; s/word = item.word/word = item.word .. "!"/' \
    "$REFUGE_HOME/mappers/ten.lua"
for name in $names; do
    background "$REFUGE" index run "$name"
    sleep 0.3
    kill -9 "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    run refuge index run --wait 30 "$name"
    status_is "$name goes on behind a kill" 3
    is "$name: the new version's rows" "$(rows "$name" | tr -s ' ')" "9 nul within!"
    run refuge index verify "$name"
    status_is "$name verifies" 0
done
same "after a delete, another version and a kill"

# A part that its mapper gave no name is known by its place in what it was cut from.
cat >"$REFUGE_HOME/mappers/cuts.lua" <<'LUA'
return {
    name = "cuts", version = "1", on = { "file" }, match = { name = { "*.halves" } }, splits = true,
    map = function(blob, emit)
        emit.part { offset = 0, size = 5, media = "text/x-half" }
        emit.part { offset = 5, size = 5, media = "text/x-half", name = "the end" }
    end,
}
LUA
cat >"$REFUGE_HOME/mappers/halves.lua" <<'LUA'
return {
    name = "halves", version = "1", match = { media = { "text/x-half" } },
    tables = { halves = { columns = { "text text" } } },
    map = function(blob, emit) error("half of a thing") end,
}
LUA
printf 'firstother' >whole.halves
refuge put -q whole.halves >/dev/null
for name in $names; do
    run refuge index run "$name"
    status_is "$name: halves are set aside" 3
    run refuge index errors --mapper halves "$name"
    out_matches "$name: a part without a name is said to be of its parent" "^part 1 of .*whole.halves$"
    out_matches "$name: one with a name, too" "^the end of .*whole.halves$"
    run refuge index why "$(printf 'first' | sha256sum | sed 's/^/sha256-/; s/ .*//')" "$name"
    out_has "$name: so it is where it is asked for why" "is a part of"
    out_has "$name: with the parent's name" "whole.halves, cut out by mapper cuts"
done
same "with parts that are set aside"
for name in $names; do
    [ "$name" = main ] || refuge index drop -q --wait 30 "$name"
done
done_testing
