#!/bin/sh
# Parts of parts of parts: what may come of one item is bounded, and who passes it costs itself only.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
cat >"$REFUGE_HOME/mappers/bomb.lua" <<'LUA'
return {
  name = "bomb", version = "1", splits = true, on = { "blob" }, match = { media = "text/*" },
  tables = { bomb = { columns = { "size int" } } },
  map = function(blob, emit)
    emit.bomb { size = blob.size }
    for i = 1, blob.size < 10 and 3 or 0 do
      emit.part { bytes = blob:content() .. i, media = "text/x-bomb" }
    end
  end,
}
LUA
for number in 1 2 3; do echo "{\"good\":$number}" | refuge put -q - >/dev/null; done
hello=$(printf hello | refuge put -q - | cut -d' ' -f1)
echo '{"good":4}' | refuge put -q - >/dev/null

# 3 + 9 + 27 + 81 + 243 parts come of it.
REFUGE_INDEX__PARTS=300
export REFUGE_INDEX__PARTS
run refuge index run
status_is "one item is set aside: status 3" 3
run refuge sql --csv "select (select count(*) from record) as good, (select count(*) from bomb) as bad"
out_has "the good ones are rows, nothing of it is" "4,0"
run refuge index errors --json
is "it is one dead letter" "$(grep -c '"type":"dead_letter"' "$out")" 1
out_has "its own" "$hello"
out_has "of a limit" '"class":"limit"'
out_has "which is named" "index.parts"
run refuge index verify
status_is "verify comes to the same" 0
run refuge index rebuild
status_is "so does a rebuild" 3
run refuge index retry --all
run refuge index run
status_is "and a retry" 3

REFUGE_INDEX__PARTS=400
run refuge index retry --all
run refuge index run
status_is "where more may come of it, it is mapped" 0
run refuge sql --csv "select (select count(*) from record) as good, (select count(*) from bomb) as bad"
out_has "with all that comes of it" "4,364"
run refuge index verify
status_is "verify agrees" 0

done_testing
