#!/bin/sh
# index why: any name of an item finds it, and what became of it has a reason.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
mkdir "$tmp/files" && cd "$tmp/files" || exit 1
cat >"$REFUGE_HOME/mappers/notes.lua" <<'LUA'
return {
  name = "notes", version = "1", on = { "file" }, match = { name = { "*.note" } },
  tables = { notes = { columns = { "title text" } } },
  map = function(blob, emit) end,
}
LUA
printf '{"a":1}' >plain.json
printf '{"b":2}' >"$(printf 'bad\377name.json')"
ln -s plain.json link.json
printf '{"bom":1}' | iconv -f UTF-8 -t UTF-16 >utf16.json
printf '{"le":1}' | iconv -f UTF-8 -t UTF-16LE >utf16le.json
printf '\377\376[\0{\0"\0a\0"\0:\0"\0\0\330"\0}\0]\0' >utf16bad.json
: >empty.csv
printf 'a,b\n' >header.csv
printf '{}' >object.json
printf 'GIF89a........' >picture.gif
printf 'a note' >a.note
printf bare >bare
head -c 5000000 /dev/zero >large.bin
refuge put plain.json bad* utf16*.json ./*.csv object.json picture.gif a.note large.bin >refs
refuge put - <bare >/dev/null
refuge index run -q
ref() { awk -v name="$1" '{ sub(/^\.\//, "", $2) } $2 == name { print $1 }' refs; }

for path in plain.json ./plain.json "$PWD/plain.json" link.json "$PWD/link.json"; do
    run refuge index why "$path"
    status_is "why of $path" 0
    out_has "is its item" "$(ref plain.json)  plain.json"
    out_matches "with its row" 'record +mapped: 1 row \(record 1\)$'
done
run refuge index why bad*
status_is "why of a name that is not UTF-8" 0
out_matches "says what became of it" 'record +mapped: 1 row \(record 1\)$'
run refuge index why --json bad*
out_has "its name is told as bytes" '"name_b64":"YmFk/25hbWUuanNvbg=="'
mv bad* moved.json
run refuge index why "$(printf 'bad\377name.json')"
status_is "without the file only its blobref finds it" 1
err_has "and that is said" "ask by the file itself or its blobref"
run refuge index why large.bin
status_is "a file of several parts" 0
run refuge index why bare
out_has "a bare blob by a file of the same bytes" "$(sha bare)"

run refuge index why picture.gif
out_matches "no match: the media type" \
    "record +no match: its match does not take it \(media type 'image/gif'\)"
out_has "none takes it" "no mapper takes it"
run refuge index why utf16.json
out_has "UTF-16 with a mark" "note: it is text in UTF-16; mapper record makes a part of it in UTF-8"
run refuge sql --csv 'select name from refuge_parts where name is not null'
out_has "half a surrogate pair in it is recorded" "utf16bad.json (UTF-16, 1 bad character)"
run refuge index why utf16le.json
out_has "and without" "note: it looks like UTF-16 without a byte order mark; mappers read UTF-8"
run refuge index why empty.csv
out_matches "a mapper that emits nothing" 'record +no rows: it ran and emitted nothing$'
out_has "because there is nothing" "note: it is empty"
run refuge index why header.csv
out_has "or only a header" "note: it has a header and no records"
run refuge index why object.json
out_matches "emitted nothing, no more is known" 'record +no rows: it ran and emitted nothing$'
run refuge index why a.note
out_matches "a mapper of one's own" 'notes +no rows: it ran and emitted nothing$'
run refuge index why bare
out_matches "files only" 'notes +no match: it maps files, not bare blobs$'
run refuge index why --json utf16.json
out_has "as JSON" '"mapper":"record","state":"mapped","rows":0,"parts":1'
out_has "with media type and note" '"media":"application/json","note":"it is text in UTF-16'
run refuge index why --json utf16le.json
out_has "no match likewise" '"mapper":"record","state":"no match","rows":0'
run env REFUGE_MAPPER=/bin/false "$REFUGE" index why picture.gif
status_is "without a jail" 0
out_matches "it says what it can" 'record +no rows: no match, or it emitted nothing$'

printf '{"a":2}' >plain.json
run refuge index why plain.json
out_has "a file that was put before" "$(ref plain.json)"
err_has "and changed" "as it is now is not in the index"
printf new >new.json
run refuge index why new.json
status_is "a file that was never put" 1
err_has "how to" "'refuge put' stores it"
cp a.note other.note
touch -d '2001-02-03 04:05:06' other.note
run refuge index why other.note
status_is "one whose content alone is there" 1
err_has "is said to be so" "only its content under another name"
refuge put new.json >refs
run refuge index why new.json
out_has "a file that is not indexed yet" "is not indexed yet"
run refuge index why "$(sha bare | cut -c1-6)"
status_is "neither a blobref nor a name" 1
run refuge index why "$(sha /dev/null)"
status_is "a blobref that is not there" 1
printf '{"a":1}\n{"b":2}\n{broken\n{"c":3}\n' >some.jsonl
refuge put -q some.jsonl >/dev/null
refuge index run -q
run refuge index why some.jsonl
out_has "of a file with a broken line it says that a part is set aside" \
    "4 parts (1 set aside; 'refuge index errors' says why)"
broken=$(refuge index errors --json | sed -n 's/.*"item":"\(sha256-[0-9a-f]*\);.*/\1/p' | head -1)
run refuge index why "$(echo "$broken" | cut -c1-15)"
status_is "the beginning of a part's ref finds it" 0
out_has "and what became of it" "set aside (mapper)"
done_testing
