#!/bin/sh
# mapper new, check, run, test, list: writing a mapper without an index.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1

run refuge mapper new recipes
status_is "mapper new" 0
out_is "prints the file" "$REFUGE_HOME/mappers/recipes.lua"
run refuge mapper new recipes
status_is "does not replace one" 1
err_has "unless forced" "--force"
run refuge mapper new Recipes
status_is "a name must be a name" 2
run refuge mapper new record
status_is "the name of a bundled mapper is taken" 1
err_has "and what to do is said" "mappers.disabled"
ok "nothing is written" test ! -e "$REFUGE_HOME/mappers/record.lua"
run env REFUGE_MAPPERS__DISABLED=record "$REFUGE" mapper new record
status_is "when it is disabled the name is free" 0
rm "$REFUGE_HOME/mappers/record.lua"
run refuge mapper check recipes
status_is "the template loads" 0
out_has "and declares a table" "table recipes_note: title text search"
run refuge mapper test recipes
status_is "its tests pass" 0
out_matches "as TAP" '^ok 1 - recipes: a note$'
out_matches "with a plan" '^1\.\.2$'
run refuge mapper list
out_matches "mapper list" '^recipes +1 '
out_lacks "the template is no mapper in use" "template"
cat >"$REFUGE_HOME/mappers/recipes.lua" <<'LUA'
return {
  name = "recipes", version = "1", on = { "file" }, match = { name = { "*.json" } },
  tables = { recipes = { columns = { "title text search", "size int" } } },
  map = function(blob, emit)
    local object = blob:json()
    emit.recipes { title = object.title, size = blob.size }
  end,
}
LUA
run refuge mapper check recipes
out_has "mapper check prints the columns" "table recipes: title text search, size int"

printf '{"title":"Cake"}' >cake.json
run refuge mapper run recipes cake.json
status_is "mapper run on a file" 0
out_has "prints its table" "table recipes"
out_matches "and row" '^Cake +16$'
run refuge mapper run "$REFUGE_HOME/mappers/recipes.lua" cake.json --json
out_has "as JSON" '"table":"recipes","n":0,"row":{"title":"Cake","size":16}'
out_matches "summary" '"type":"summary".*"rows":1'
ref=$(refuge put cake.json | cut -d' ' -f1)
run refuge mapper run recipes "$ref"
out_matches "on a file of the store" '^Cake +16$'
run refuge mapper run recipes zz
status_is "neither a file nor a blobref: status 2" 2
run refuge mapper run recipes zz.json
status_is "a file that is not there: status 1" 1
run refuge mapper run recipes cake.json --trace
err_has "--trace shows the emit" "recipes"
blob=$(refuge put - <cake.json | cut -d' ' -f1)
run refuge mapper run recipes "$blob"
status_is "an item it does not want" 0
err_has "is said to be so" "does not want"
ok "and no index was made" test ! -e "$REFUGE_HOME/index/main.db"

printf '[{"title":"Soup"},{"title":"Stew"}]' >many.json
run refuge mapper run record many.json
status_is "a file that is cut into parts" 0
err_has "makes no rows itself" "0 rows, 2 parts"
err_has "and how to try a part" "try one: refuge mapper run 'record' 'many.json' --part 1"
cat >dishes.lua <<'LUA'
return {
  name = "dishes", match = { media = { "application/json" } },
  tables = { dishes = { columns = { "title text", "size int" } } },
  map = function(blob, emit)
    local title = blob:pick("title")
    if title then emit.dishes { title = title, size = blob.size } end
  end,
}
LUA
run refuge mapper run dishes.lua many.json
err_has "parts that another mapper makes" "mapper 'record' cuts it into 2 parts"
run refuge mapper run dishes.lua many.json --part 2
status_is "--part" 0
out_matches "maps that part" '^Stew +16$'
err_lacks "and has no more to say of parts" "cuts it"
run refuge mapper run dishes.lua many.json --part 3
status_is "a part that is not there" 1
err_has "is said to be none" "there is no part 3 of 'many.json': 2 parts"
run refuge mapper run dishes.lua cake.json --part 1
err_has "nor one of a file in one piece" "no mapper in use cuts it up"
run refuge mapper run dishes.lua cake.json
err_lacks "which is not said to be cut" "cuts it"

sed 's/object.title/object.title.x.y/' "$REFUGE_HOME/mappers/recipes.lua" >bad.lua
sed -i 's/"recipes"/"bad"/; s/recipes/bad/g' bad.lua
run refuge mapper run bad.lua "$ref"
status_is "a mapper that fails" 3
err_matches "names file and line" 'bad\.lua:[0-9]+:'
err_has "the blob" "$ref"
err_has "its name" "cake.json"
err_has "and how to run it again" "refuge mapper run 'bad.lua' '$ref' --trace"

printf 'return { name = "x", map = 1 }\n' >broken.lua
run refuge mapper check broken.lua
status_is "mapper check on a broken one" 1
out_has "says what is wrong" "map"
printf 'return {\n  name = = 1\n}\n' >syntax.lua
run refuge mapper check syntax.lua
out_has "with its line" "syntax.lua:2"
run refuge mapper check nowhere.lua
status_is "a file that is not there" 1

cat >golden.lua <<'LUA'
return {
  name = "golden", version = "1", on = { "file", "blob" },
  tables = { golden = { columns = { "word text", "at int" } } },
  map = function(blob, emit)
    local n = 0
    for word in blob:content():gmatch("%a+") do
      n = n + 1
      emit.golden { word = word, at = n }
    end
  end,
  tests = {
    { name = "words", blob = "one two", golden = "words.jsonl" },
    { name = "wrong", blob = "one", rows = { golden = { { word = "two", at = 1 } } } },
  },
}
LUA
run refuge mapper test golden.lua
status_is "a test that fails" 1
out_matches "is not ok" '^not ok 2 - golden: wrong$'
out_has "with what was expected" '- golden[0] {"at":1,"word":"two"}'
out_has "and what came" '+ golden[0] {"at":1,"word":"one"}'
out_has "a golden file that is not there" "--update"
run refuge mapper test --update golden.lua
ok "--update writes it" test -s words.jsonl
run refuge mapper test golden.lua --json
out_matches "then it passes" '"name":"words","ok":true'
sed -i 's/two/three/' words.jsonl
run refuge mapper test golden.lua
out_matches "and fails when it differs" '^not ok 1'
run env -u REFUGE_HOME HOME="$tmp/none" "$REFUGE" mapper test golden.lua
status_is "a file is tested without a home" 1
out_matches "all the same" '^1\.\.2$'

cat >loop.lua <<'LUA'
return {
  name = "loop", version = "1", on = { "blob" }, limits = { cpu_ms = 200 },
  tables = { loop = { columns = { "a int" } } },
  map = function(blob, emit) while true do end end,
}
LUA
run refuge mapper run loop.lua "$blob"
status_is "a mapper that never ends is ended" 3
err_has "with its reason" "loop"

# A bundled mapper with limits of one's own: a record of more values than it takes.
export REFUGE_HOME="$tmp/limits"
refuge init -q >/dev/null || fail "init"
python3 -c 'import json; print(json.dumps({"k%d" % i: i for i in range(100001)}))' >wide.json
refuge put -q wide.json >/dev/null
run refuge index run
status_is "a record of too many values is set aside" 3
run refuge index errors
out_has "because of a limit" "more than limits.rows = 100000 rows"
cat >"$REFUGE_HOME/mappers/records.lua" <<'EOF'
local mapper = require "record"
mapper.limits.rows = 100001
return mapper
EOF
echo 'return { mappers = { disabled = { "record" } } }' >"$REFUGE_HOME/refuge.conf"
run refuge index run
status_is "a mapper that builds on the bundled one raises it" 0
run refuge sql --csv 'select count(*) from record'
out_has "and has its rows" 100001
run refuge index verify
status_is "which a rebuild has, too" 0
echo 'return require "template_of_nobody"' >"$REFUGE_HOME/mappers/other.lua"
run refuge mapper check
out_has "what is nowhere cannot be required" "template_of_nobody"
done_testing
