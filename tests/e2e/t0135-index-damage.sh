#!/bin/sh
# t0135-index-damage.sh - what is wrong with an index that cannot be used is named, with what mends it
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
printf '[{"a": 1}, {"a": 2}]' >rows.json
refuge put rows.json >/dev/null
refuge index run -q
status=$?
status_is "an index is made" 0
index=$REFUGE_HOME/index/main.db
cp -a "$REFUGE_HOME/index" good

# The index as it was, with a statement run behind refuge's back.
damage()
{
    rm -rf "$REFUGE_HOME/index"
    cp -a good "$REFUGE_HOME/index"
    python3 - "$index" "$1" <<'PYTHON'
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.executescript(sys.argv[2])
connection.close()
PYTHON
}

# mends NAME: the commands that are advised make the index again.
mends()
{
    run refuge index drop main
    status_is "$1: the index is dropped" 0
    run refuge index run main
    status_is "$1: and made again" 0
    run refuge sql --csv 'select count(*) as n from record'
    out_has "$1: with its rows" 2
}

advice="'refuge index drop main' and 'refuge index run main' make it again"
for tables in "refuge_lanes refuge_lane_mappers" refuge_lanes refuge_lane_mappers \
    "refuge_lanes refuge_lane_mappers refuge_tables" refuge_mappers; do
    # shellcheck disable=SC2086
    damage "$(printf 'DELETE FROM %s;' $tables)"
    for command in "index run" "index rebuild" "index verify" "index status" doctor; do
        # shellcheck disable=SC2086
        run refuge $command
        cat "$out" >>"$err"
        status_is "without $tables: $command" 1
        err_matches "names what lacks and what to do" "is damaged: table refuge_.* lacks .*; $advice\$"
        err_lacks "says it once" "again; "
    done
done
mends "a lost table"

rm -rf "$REFUGE_HOME/index"
cp -a good "$REFUGE_HOME/index"
: >"$index"
for command in doctor "index status"; do
    # shellcheck disable=SC2086
    run refuge $command
    cat "$out" >>"$err"
    status_is "a file of no bytes: $command" 1
    err_has "says what to do" \
        "is empty: it was never made, or its content was lost; 'refuge index run main' makes it"
done
run refuge index run main
status_is "which makes it" 0
run refuge sql --csv 'select count(*) as n from record'
out_has "with its rows" 2

# A text that is none.
sqlite3 "$index" "update record set value = cast(x'41ff0ac3a9fe' as text) where rowid = 1"
run refuge index verify
status_is "a text of other bytes" 1
out_has "is shown in letters" "is 'A\\xff\\x0aé\\xfe', should be"

# The header of the file: first letters, page size, versions of its format, owner.
for byte in 0 16 18 19 44 47 68; do
    rm -rf "$REFUGE_HOME/index"
    cp -a good "$REFUGE_HOME/index"
    printf '\377' | dd of="$index" bs=1 seek=$byte conv=notrunc 2>/dev/null
    for command in "index run" "sql select+1" "search x" doctor; do
        # shellcheck disable=SC2086
        run refuge $command
        cat "$out" >>"$err"
        status_is "byte $byte of the header: $command" 1
        err_matches "says what to do" "'refuge index drop main'.* 'refuge index run main' make"
        case $byte in
        0) err_has "names the damage" "does not begin as an SQLite database" ;;
        18 | 19) err_has "names the byte" "byte $byte of its header is 255" ;;
        44 | 47) err_has "names the bytes" "bytes 44 to 47 of its header" ;;
        68) err_has "says whose it is" "not an index of refuge" ;;
        esac
    done
    mends "byte $byte"
done

for content in "no database at all, and longer than a header" "short"; do
    rm -rf "$REFUGE_HOME/index"
    mkdir -m 700 "$REFUGE_HOME/index"
    (umask 077 && echo "$content" >"$index")
    for command in "index run" "index rebuild" "index verify" "sql x" "search x" "index errors"; do
        # shellcheck disable=SC2086
        run refuge $command
        status_is "a text for an index: $command" 1
        err_matches "what, why, what to do" "is damaged: it does not begin .*; $advice\$"
    done
    mends "a text for an index"
done

# A folder where the file should be.
rm -rf "$REFUGE_HOME/index"
mkdir -m 700 "$REFUGE_HOME/index" "$index"
for command in "index run" "index rebuild" "index verify" "sql x" "search x" "index errors" \
    "index drop main" doctor; do
    # shellcheck disable=SC2086
    run refuge $command
    cat "$out" >>"$err"
    status_is "a folder for an index: $command" 1
    err_matches "what, why, what to do" \
        "is a folder, not a file; move it away, then 'refuge index run main' makes the index\$"
done
mv "$index" away
run refuge index run main
status_is "the advice works" 0
done_testing
