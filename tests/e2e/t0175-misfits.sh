#!/bin/sh
# Mappers that cannot stand beside each other: the newcomer is left out and told, the others go on.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
mappers=$REFUGE_HOME/mappers
# mapper FILE NAME TABLE COLUMN
mapper() {
    cat >"$mappers/$1.lua" <<LUA
return {
  name = "$2", version = "1", on = { "file" }, match = { name = { "*.note" } },
  tables = { $3 = { columns = { "$4 text search" } } },
  map = function(blob, emit) emit.$3 { $4 = blob:content() } end,
}
LUA
}
put_note() { echo "$1" >"$1.note" && refuge put -q "$1.note" >/dev/null; }

mapper notes notes notes body
put_note one
refuge index run -q

mapper a_record mine record body
run refuge mapper check
status_is "check: a table of another mapper's name: status 1" 1
out_has "and which it is" "both need the name 'record'"
run refuge mapper check "$mappers/a_record.lua"
status_is "checked alone, too" 1
run refuge mapper check "$mappers/notes.lua"
status_is "another one is fine" 0
put_note two
run refuge index run
status_is "a run leaves it out: status 3" 3
err_has "says so" "a_record.lua' is left out: table 'record' of mapper"
run refuge sql --csv "select count(*) as n from notes"
out_has "the others go on" 2
run refuge index status
out_matches "status tells" "mine, left out: table 'record'"
run refuge doctor
out_matches "doctor too" "^warn +mapper .*a_record.lua.*both need the name 'record'"
rm "$mappers/a_record.lua"

# A file that sorts before a running mapper's takes nothing from it.
mapper a_first first notes body
run refuge index run
status_is "the newcomer gives way: status 3" 3
err_has "whatever its file is called" "a_first.lua' is left out"
run refuge sql --csv "select count(*) as n from notes"
out_has "the rows of who was there first stay" 2
rm "$mappers/a_first.lua"

# A running mapper's new version that cannot stand is not taken.
mapper notes notes record body
run refuge index run
status_is "a changed version that clashes: status 3" 3
err_has "the one before goes on" "the version before goes on"
run refuge sql --csv "select count(*) as n from notes"
out_has "with its rows" 2
mapper notes notes notes search
run refuge index run
err_has "a column named as the full text of a server" "has a column 'search'"
mapper notes notes notes xmin
run refuge mapper check "$mappers/notes.lua"
status_is "or as one that PostgreSQL has by itself: status 1" 1
out_has "it is named" "has a column 'xmin'"
mapper notes notes notes body

# While a follower runs.
background "$REFUGE" index run --follow
said() { grep -q "$1" "$tmp/.background.err"; }
put_note three
wait_for 60 "the follower" refuge index wait --timeout 0
mapper b_clash clash notes body
wait_for 60 "the follower to tell of it" said "b_clash.lua' is left out"
put_note four
wait_for 60 "the follower to go on" refuge index wait --timeout 0
ok "it lives" kill -0 "$pid"
kill -INT "$pid"
wait "$pid"
rm "$mappers/b_clash.lua"

# As many as one index can have.
i=0
while [ $i -lt 63 ]; do
    mapper "m$i" "m$i" "t$i" body
    i=$((i + 1))
done
run refuge mapper check
status_is "one mapper too many: status 1" 1
out_has "said so" "an index has room for 64 mappers"
run refuge index run
status_is "a run leaves it out: status 3" 3
err_has "and says so" "is left out: an index has room for 64 mappers"
run refuge sql --csv "select count(*) as n from notes"
out_has "who was there first stays" 4
done_testing
