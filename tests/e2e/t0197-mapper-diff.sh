#!/bin/sh
# mapper diff: what a new version of a mapper would change, in files, blobs and parts.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
mappers=$REFUGE_HOME/mappers

# people EXPRESSION COLUMNS EXTRA: a mapper of JSON files with a table of people.
people()
{
    cat <<LUA
return {
  name = "people", version = "1", on = { "file" }, match = { name = { "*.people" } },
  tables = { people = { columns = { "name text", "town text"$2 } } },
  map = function(blob, emit)
    for line in blob:content():gmatch("[^\n]+") do
      local name, town = line:match("(%w+) (%w+)")
      $1
    end
  end,
}
LUA
}
people 'emit.people { name = name, town = town }' '' >old.lua
printf 'Ada London\nGrace Arlington\n' >a.people
printf 'Alan Wilmslow\n' >b.people
printf 'Edsger Rotterdam\nNiklaus Winterthur\n' >c.people
printf 'nothing' >d.other
refuge put a.people b.people c.people d.other >/dev/null

run refuge mapper diff old.lua old.lua
status_is "a version and itself: status 0" 0
out_has "nothing changes" "0 of 3 items change"
out_has "for each table" "table people: 0 rows added, 0 removed, 0 changed"
err_lacks "all was compared: no word of a sample" "--seed"

people 'if name ~= "Grace" then
        emit.people { name = name, town = town == "London" and "Paris" or town }
      end
      if name == "Alan" then emit.people { name = "Turing" } end' '' >new.lua
run refuge mapper diff old.lua new.lua
status_is "another version: status 0" 0
out_has "a value" 'changed  a.people people[0] town: "London" -> "Paris"'
out_has "a row that goes" 'removed  a.people people[1] {"name":"Grace","town":"Arlington"}'
out_has "a row that comes" 'added    b.people people[1] {"name":"Turing"}'
out_has "are counted" "table people: 1 row added, 1 removed, 1 changed"
out_has "and the items" "2 of 3 items change"
refuge mapper diff old.lua new.lua --seed 7 >seven 2>/dev/null
refuge mapper diff old.lua new.lua --seed 7 >again 2>/dev/null
ok "the same seed prints the same" cmp -s seven again
run refuge mapper diff old.lua new.lua --json --sample 0
out_has "a value as JSON" '"table":"people","n":0,"column":"town","old":"London","new":"Paris"}'
out_has "a row as JSON" '"change":"removed",'
out_has "with its values" '"row":{"name":"Grace","town":"Arlington"}'
is "the summary is last" "$(tail -1 "$out" | grep -c '"type":"summary".*"items":3,"items_changed":2')" 1
is "one object a difference" "$(grep -c '"type":"difference"' "$out")" 3
run refuge mapper diff old.lua new.lua --sample 1 --seed 3
out_has "a sample is as large as asked for" " of 1 item change"
err_has "and says how to draw it again" "--seed 3"

people 'emit.people { name = name, town = town, size = #name }' ', "size int"' >new.lua
run refuge mapper diff old.lua new.lua
out_has "a new column changes every row" "0 rows added, 0 removed, 5 changed"
out_has "from null" "size: null -> 4"
people 'emit.people { name = name, town = town } emit.more { n = 1 }' '' |
    sed 's/tables = {/tables = { more = { columns = { "n_ int" } },/; s/n = 1/n_ = 1/' >new.lua
run refuge mapper diff old.lua new.lua
out_has "a new table has only new rows" "table more: 5 rows added, 0 removed, 0 changed"
out_has "the other one is as it was" "table people: 0 rows added, 0 removed, 0 changed"
people 'emit.people { name = "first" }
      emit.people { name = name, town = town }' '' >new.lua
run refuge mapper diff old.lua new.lua
out_has "a row that moved did not change" "table people: 5 rows added, 0 removed, 0 changed"

people 'if name == "Alan" then error("no Alan") end
      emit.people { name = name, town = town }' '' >new.lua
run refuge mapper diff old.lua new.lua
status_is "an item that fails newly: status 3" 3
out_matches "with its reason" '^fails    b.people: .*no Alan'
out_has "its rows go" "0 rows added, 1 removed, 0 changed"
out_has "counted" "1 failure newly, 0 no more"
run refuge mapper diff new.lua old.lua
status_is "one that fails no more: status 0" 0
out_matches "told" '^mends    b.people: .*no Alan'
i=0
while [ $i -lt 20 ]; do
    echo "Name$i Town"
    i=$((i + 1))
done >many.people
refuge put many.people >/dev/null
people 'emit.people { name = name }' '' >new.lua
run refuge mapper diff old.lua new.lua --sample 0
is "ten examples are shown" "$(grep -c ' -> null' "$out")" 10
out_has "all are counted" "25 changed"
run refuge mapper diff old.lua new.lua --sample 0 --json
is "--json shows all" "$(grep -c '"new":null' "$out")" 25

# The version that an index runs.
run refuge mapper diff running people
status_is "running, without an index: status 1" 1
cp old.lua "$mappers/people.lua"
refuge index run -q
cp new.lua "$mappers/people.lua"
run refuge mapper diff running people --sample 0
status_is "running: the version of the index" 0
out_has "against the file" "25 changed"
sed 's/name = "people"/name = "others"/' new.lua >others.lua
run refuge mapper diff running others.lua
status_is "one the index does not run: status 1" 1
err_has "is named" "index 'main' runs no mapper 'others'"
run refuge mapper diff old.lua none.lua
status_is "a file that is not there: status 1" 1
run refuge mapper diff old.lua
status_is "one word only: status 2" 2
rm "$mappers/people.lua"

# Parts: those of another mapper reach both versions, those of a version only that version.
cat >"$mappers/cutter.lua" <<'LUA'
return {
  name = "cutter", version = "1", on = { "file" }, match = { name = { "*.people" } }, tables = {},
  splits = true,
  map = function(blob, emit)
    emit.part { head = "head ", offset = 0, size = 3, media = "text/x-head" }
  end,
}
LUA
piece() {
    cat <<LUA
return {
  name = "piece", version = "1", match = { media = { "$1" } },
  tables = { piece = { columns = { "text text" } } },
  map = function(blob, emit) emit.piece { text = $2 } end,
}
LUA
}
piece text/x-head 'blob:content()' >old.lua
piece text/x-head 'blob:content():upper()' >new.lua
run refuge mapper diff old.lua new.lua
out_has "a part has the bytes put before its range" 'piece[0] text: "head Ada" -> "HEAD ADA"'
out_matches "and is named with its item" '^changed  a\.people sha256-[0-9a-f]*;text/x-head '
out_has "each item's part counts" "4 of 4 items change"
run refuge mapper run old.lua a.people --part 1
out_has "mapper run has them, too" "head Ada"
cat >cuts.lua <<'LUA'
return {
  name = "piece", version = "2", on = { "file" }, match = { name = { "a.people" } }, splits = true,
  tables = { piece = { columns = { "text text" } } },
  map = function(blob, emit)
    if blob.kind == "part" then emit.piece { text = blob:content() } return end
    emit.part { bytes = "made", media = "text/x-made" }
  end,
}
LUA
sed 's/splits = true,//; s/emit.part.*//' cuts.lua >old.lua
run refuge mapper diff old.lua cuts.lua
status_is "a version that cuts: status 0" 0
out_has "its part is new" "1 part added, 0 removed"

# Looking needs no right to write, and leaves everything as it was.
files() { find "$REFUGE_HOME" -type f ! -name '*-shm' -exec sha256sum {} + | sort; }
cp new.lua "$mappers/piece.lua"
refuge index run -q
files >before
run refuge mapper diff running old.lua --sample 0
status_is "the index's version and a file" 0
files >after
ok "nothing is written" cmp before after
done_testing
