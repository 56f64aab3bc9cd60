#!/bin/sh
# A follower sees more than its queue: mapper files that come, change, break and go, and a pause.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
mappers=$REFUGE_HOME/mappers

# notes VERSION PREFIX: a mapper of notes whose titles begin so.
notes()
{
    cat <<LUA
return {
  name = "notes", version = "$1", on = { "file" }, match = { name = { "*.note" } },
  tables = { notes = { columns = { "title text search" } } },
  map = function(blob, emit) emit.notes { title = "$2" .. blob:content() } end,
}
LUA
}
titles() { refuge sql --csv "select title from notes order by title" | tr '\n' ' '; }
titles_are() { [ "$(titles)" = "title $1" ]; }
said() { grep -q "$1" "$tmp/.background.err"; }
# Looking must not take the lock: a run that starts just then would find it held.
lock_is_held() {
    grep -q ":$(stat -c %i "$REFUGE_HOME/index/main.db.lock" 2>/dev/null || echo none) " /proc/locks
}
lock_is_free() { ! lock_is_held; }

printf one >one.note
refuge put one.note >/dev/null
refuge index run -q
background "$REFUGE" index run --follow
follower=$pid
wait_for 60 "the follower to hold the index" lock_is_held

notes 1 a- >"$mappers/notes.lua"
wait_for 60 "a mapper that came" titles_are "a-one "
pass "a follower takes a mapper that comes"
notes 2 b- >"$mappers/notes.lua"
wait_for 60 "a mapper that changed" titles_are "b-one "
pass "and one that changes"
echo 'return { name = ' >"$mappers/notes.lua"
wait_for 60 "the broken file to be told" said "does not load"
printf two >two.note
refuge put two.note >/dev/null
wait_for 60 "the version before to go on" titles_are "b-one b-two "
pass "one that breaks is told, and the version before goes on"
notes 3 c- >"$mappers/notes.lua"
wait_for 60 "a mapper that was mended" titles_are "c-one c-two "
pass "one that is mended takes over"

# What a mapper requires is part of it: a module, whose name begins with _ so that it is no mapper.
echo 'return "d-"' >"$mappers/_prefix.lua"
{
    echo 'local prefix = require("_prefix")'
    notes 4 x- | sed 's/"x-"/prefix/'
} >"$mappers/new"
mv "$mappers/new" "$mappers/notes.lua"
wait_for 60 "a mapper with a module" titles_are "d-one d-two "
echo 'return "e-"' >"$mappers/_prefix.lua"
wait_for 60 "a module that changed" titles_are "e-one e-two "
pass "a module that changes counts"
rm "$mappers/notes.lua"
wait_for 60 "a mapper that went" sh -c "! '$REFUGE' sql 'select 1 from notes' 2>/dev/null"
pass "a mapper that goes takes its tables along"
mkdir lib
notes 5 f- >lib/notes.lua
ln -s "$tmp/lib/notes.lua" "$mappers/notes.lua"
wait_for 60 "a link to a mapper" titles_are "f-one f-two "
notes 6 g- >lib/notes.lua
wait_for 60 "a link's target that changed" titles_are "g-one g-two "
pass "a link's target counts"

run refuge index pause
status_is "pause reaches a follower" 0
ok "which has let go of the index when the command ends" lock_is_free
ok "and is still there" kill -0 "$follower"
printf three >three.note
refuge put three.note >/dev/null
run refuge index run
err_has "nobody else runs it either" "is paused"
run refuge index status
out_has "status says so" "(paused)"
is "nothing was written" "$(titles)" "title g-one g-two "
run refuge index pause
err_has "pausing it again" "already paused"
run refuge index resume
status_is "resume" 0
wait_for 60 "the follower to go on" titles_are "g-one g-three g-two "
pass "then it goes on by itself"
run refuge index resume
err_has "nothing to resume" "not paused"

refuge index pause -q
kill -INT "$follower"
wait "$follower"
is "SIGINT ends a paused follower with status 130" $? 130
refuge index resume -q

# A run that is under way ends after its batch.
cat >"$mappers/slow.lua" <<'LUA'
return {
  name = "slow", version = "1", on = { "blob" }, slow = true,
  tables = { slow = { columns = { "value int" } } },
  map = function(blob, emit)
    local n = 0
    for i = 1, 3000000 do n = (n + i * i) % 1000003 end
    emit.slow { value = n }
  end,
}
LUA
i=0
while [ $i -lt 150 ]; do
    echo $i | refuge put - >/dev/null
    i=$((i + 1))
done
background env REFUGE_INDEX__BATCH_ITEMS=1 REFUGE_INDEX__WORKERS=1 "$REFUGE" index run --json
wait_for 60 "the run to hold the index" lock_is_held
run refuge index pause --wait 60
status_is "pause reaches a run" 0
wait "$pid"
is "which ends well" $? 0
ok "saying that it was paused" grep -q '"state":"paused"' "$tmp/.background.out"
refuge index resume -q
run refuge index run
status_is "the next one goes on" 0
run refuge sql --csv "select count(*) as n from slow"
out_has "to the end" 150
refuge index pause -q
refuge index drop main -q
run refuge index run -q
ok "a pause does not outlive its index" test -e "$REFUGE_HOME/index/main.db"
done_testing
