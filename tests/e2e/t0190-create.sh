#!/bin/sh
# More than one index: each with mappers and a place of its own, kept in conf.d.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
cat >titles.lua <<'LUA'
return {
  name = "titles", version = "1", on = { "file" }, match = { name = { "*.txt" } },
  tables = { titles = { columns = { "title text search" } } },
  map = function(blob, emit) emit.titles { title = blob:content() } end,
}
LUA
printf 'a quiet title' >a.txt
printf '{"k":"value"}' >b.json
run refuge put a.txt b.json
status_is "put" 0

run refuge index create titles --sink sqlite:elsewhere.db --mapper titles.lua
status_is "create" 0
err_has "create says what fills it" "'refuge index run titles' fills it"
is "it is defined" "$(cat "$REFUGE_HOME/conf.d/index-titles.json")" "{\"index\": {
    \"sink\": \"sqlite:$tmp/elsewhere.db\",
    \"mappers\": [\"$tmp/titles.lua\"]
}}"
is "only for its owner" "$(stat -c %a "$REFUGE_HOME/conf.d/index-titles.json")" 600
run refuge index create titles
status_is "a second of this name is refused" 1
err_has "and says where it is" "kept in '$tmp/elsewhere.db'"

run refuge index create same --sink sqlite:elsewhere.db
status_is "two cannot share a place" 1
err_has "and which one has it is said" "index 'titles' is kept in 'sqlite:$tmp/elsewhere.db' already"
ln -s . another
run refuge index create same --sink sqlite:another/elsewhere.db
status_is "nor by another path to the same file" 1
err_has "and which one may have it is said" "which may be 'titles'"
ok "nothing of that stays" test ! -e "$REFUGE_HOME/conf.d/index-same.json"

# Somebody's own files.
echo 'a file of somebody, long enough to be taken for the header of a database' >mine.txt
sqlite3 mine.db 'create table mine(x)'
for file in mine.txt mine.db; do
    cp "$file" before
    run refuge index create foreign --sink "sqlite:$file"
    status_is "the place of somebody's $file is refused" 1
    err_has "as what it is" "the file there is no index of refuge"
    ok "it is as it was" cmp "$file" before
    ok "nothing is made beside it" test ! -e "$file.lock"
done
run refuge config check
status_is "config check reads definitions too" 0
out_has "each is told of" "conf.d/index-titles.json: ok"
echo '{"index": {"sink": }}' >"$REFUGE_HOME/conf.d/index-broken.json"
run refuge config check
status_is "one that is broken: status 1" 1
err_has "which" "index-broken.json"
out_has "the others are told of" "conf.d/index-titles.json: ok"
rm "$REFUGE_HOME/conf.d/index-broken.json"
ok "nothing is defined" test ! -e "$REFUGE_HOME/conf.d/index-foreign.json"

run refuge put a.txt nowhere.txt
err_has "a file that is not there" "'nowhere.txt': No such file or directory"

run refuge index run titles
status_is "run" 0
ok "its file is where it was asked for" test -s elsewhere.db
run refuge index run main
status_is "the main index beside it" 0
run refuge sql --index titles "SELECT title FROM titles"
out_has "its mapper" "a quiet title"
run refuge sql "SELECT count(*) FROM sqlite_master WHERE name = 'titles'" --csv
out_has "which the main index has not" "0"
run refuge sql --index titles "SELECT count(*) FROM sqlite_master WHERE name LIKE 'record%'" --csv
out_has "nor this one the other" "0"
run refuge search --index titles quiet
out_has "search" "a [quiet] title"
run refuge index verify titles
status_is "verify" 0
out_has "verify compares its table" "1 table, 1 row compared: 0 differences"
run refuge index status titles
out_matches "status knows its mapper" "^ +titles [0-9a-f]{12}$"
out_lacks "and expects no other" record
run refuge index list
out_matches "list names both" "^titles .*$tmp/elsewhere.db"
out_matches "list names main" "^main .*/index/main.db"
run refuge status
out_has "status" "index     titles"

printf 'a loud title' >c.txt
run refuge put c.txt
run refuge index run
status_is "all of them" 0
err_has "one" "index 'main' is up to date: 1 item"
err_has "and the other" "index 'titles' is up to date: 1 item"
background "$REFUGE" index run --follow
follower=$pid
printf 'a third title' >d.txt
run refuge put d.txt
counts()
{
    test "$("$REFUGE" sql --index "$1" --csv "SELECT count(*) FROM blobs" | tail -1 | tr -d "\r")" = 4
}
ok "index titles follows" wait_for 60 "index titles to follow" counts titles
ok "index main follows" wait_for 60 "index main to follow" counts main
loaded_again() { grep "$1: mapper files changed" "$tmp/.background.err"; }
sed -i 's/version = "1"/version = "1a"/' titles.lua
ok "a follower takes a mapper of the index's own that changed" \
    wait_for 60 "titles to load its mapper again" loaded_again titles
ok "and the other index is left alone" [ -z "$(loaded_again main)" ]
kill -TERM "$follower"
wait "$follower"
is "a signal ends all of them" $? 130
ok "their words have their names" grep -q '^titles: ' "$tmp/.background.err"

run refuge index create bad --sink nonsense:x
status_is "no such kind of sink" 2
run refuge index create bad --sink postgresql://me:secret@host/db
status_is "no password in a URL" 2
err_has "but a passfile" "passfile=FILE"
err_lacks "and the password is not told" "secret"
run refuge index create bad --policy "$(printf '%0300d' 0)"
err_matches "what is too long to be shown is cut, with a sign" "unknown policy '0{50,}…'"
run refuge index create bad --mapper nowhere.lua
status_is "a mapper that is not there" 1
run refuge index create bad --sink sqlite:no/such/folder/x.db
status_is "a folder that is not there" 1
ok "nothing of these stays" test ! -e "$REFUGE_HOME/conf.d/index-bad.json"

echo '{"index": {"sank": "sqlite:x"}}' >"$REFUGE_HOME/conf.d/index-odd.json"
run refuge index run odd
status_is "a definition with a mistake" 1
err_has "names the file and line" "conf.d/index-odd.json:1"
err_has "and what was meant" "did you mean 'sink'"
err_has "and the way out" "mend that file, or 'refuge index drop odd' removes it"
printf 'a fourth title' >e.txt
run refuge put e.txt
run refuge index run
status_is "all of them, one with a mistake" 1
err_has "it is named" "conf.d/index-odd.json:1"
err_has "one goes on" "index 'main' is up to date"
err_has "and the other" "index 'titles' is up to date"
run refuge index list
status_is "list has the mistake in its status" 1
out_matches "and names the others" "^titles "
run refuge index status titles
status_is "another index has its status" 0
run refuge doctor
status_is "doctor fails" 1
out_matches "and names it" "^fail +index +.*conf.d/index-odd.json:1: .*'refuge index drop odd'"
run refuge index create odd
status_is "there is an index of this name" 1
err_has "and the way out is said again" "'refuge index drop odd' removes it"
run refuge index create beside -q
status_is "another one is made beside it" 0
is "without a word about it" "$(cat "$err")" ""
refuge index drop beside -q
run refuge index drop odd --dry-run
err_has "drop says what it would remove" "would remove '$REFUGE_HOME/conf.d/index-odd.json'"
ok "a dry run removes nothing" test -e "$REFUGE_HOME/conf.d/index-odd.json"
run refuge index drop odd
status_is "drop takes it away" 0
err_has "and says what it cannot" "could not be told and stays"
ok "it is gone" test ! -e "$REFUGE_HOME/conf.d/index-odd.json"
printf '{"index": {\n"sink": "sqlight:x.db"}}' >"$REFUGE_HOME/conf.d/index-odd.json"
run refuge index status odd
err_has "so is a kind of sink that there is not" "conf.d/index-odd.json:2: cannot use sink 'sqlight:x.db'"
cp "$REFUGE_HOME/index/main.db" "$REFUGE_HOME/index/odd.db"
run refuge index drop odd
err_has "a file of the home stays" "is now the one in '$REFUGE_HOME/index/odd.db'"
ok "until it is dropped" test -e "$REFUGE_HOME/index/odd.db"
run refuge index drop odd
ok "as any other" test ! -e "$REFUGE_HOME/index/odd.db"
run refuge index run
status_is "and all run" 0

rm "$REFUGE_HOME/conf.d/index-titles.json"
run refuge index create titles --sink sqlite:elsewhere.db --mapper titles.lua
err_has "an index whose definition was lost is taken up again" "'titles' is taken up again"
refuge init -q --home "$tmp/stranger" >/dev/null
run refuge --home "$tmp/stranger" index create titles --sink sqlite:elsewhere.db
status_is "another home's index is not" 1
err_has "and why is said" "one of another store"
ok "nothing of that stays" test ! -e "$tmp/stranger/conf.d/index-titles.json"
run refuge index drop titles
status_is "drop" 0
ok "its file is gone" test ! -e elsewhere.db
ok "and its definition" test ! -e "$REFUGE_HOME/conf.d/index-titles.json"
refuge index create titles -q
run refuge index run titles
status_is "the name is free again" 0
ok "for an index of the home" test -s "$REFUGE_HOME/index/titles.db"

# Without the bundled mappers there may be none.
REFUGE_HOME=$tmp/bare
refuge init -q >/dev/null
refuge put -q b.json >/dev/null
bundled()
{
    printf 'return { mappers = { bundled = %s, disabled = { %s } } }\n' "$1" "$2" >"$REFUGE_HOME/refuge.conf"
}
bundled false ""
run refuge index run
status_is "without a mapper a run fails" 1
err_has "and says so" "no mapper is in use ('refuge mapper new NAME' begins one)"
run refuge index status
out_has "so does status" "no mapper is in use"
run refuge mapper list
err_has "and the list" "no mapper is in use"
run refuge doctor
out_matches "and doctor" "^warn +mapper +none is in use"
bundled true ""
refuge index run -q
bundled false ""
run refuge index status
out_matches "a bundled mapper that runs has no file that is gone" \
    "^ +record [0-9a-f]{12}, mappers.bundled is false: no mapper is left, so a run fails and its tables stay$"
run refuge index run
status_is "so it does" 1
run refuge sql --csv "select count(*) from record"
out_has "and so they do" 1
bundled true '"record"'
cp "$tmp/titles.lua" "$REFUGE_HOME/mappers/"
run refuge index status
out_matches "beside another mapper they go" \
    "^ +record [0-9a-f]{12}, mappers.disabled names it: the next run drops its tables$"
refuge index run -q
run refuge sql "select count(*) from record"
status_is "with the next run" 1
done_testing
