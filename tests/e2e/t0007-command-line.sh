#!/bin/sh
# The command line itself: help, mistakes, exit codes, and that the manual says what the program does.
. "$(dirname "$0")/lib.sh"

run refuge
status_is "no command: status 2" 2
err_has "says what is missing" "a command is missing"
run refuge --version
out_matches "--version" '^refuge [0-9]+\.[0-9]+\.[0-9]+$'
run refuge help
status_is "help" 0
refuge help >"$tmp/help"
run refuge --help
ok "--help is the same" cmp -s "$out" "$tmp/help"

# Every command of the list has a help of its own, by both ways, with a usage line.
refuge help --mdoc | sed -n 's/^\.Ss refuge //p' | sed 's/ [][A-Z|].*//' >"$tmp/names"
ok "there are commands" test "$(wc -l <"$tmp/names")" -ge 25
while read -r name; do
    # shellcheck disable=SC2086
    run refuge $name --help
    head -1 "$out" >"$tmp/first"
    if [ "$status" -ne 0 ] || ! grep -q "^usage: refuge $name" "$tmp/first"; then
        fail "$name --help" "$(cat "$tmp/first")"
    else
        pass "$name --help"
    fi
    cp "$out" "$tmp/one"
    # shellcheck disable=SC2086
    run refuge help $name
    ok "help $name is the same" cmp -s "$out" "$tmp/one"
    # Its options are those of the manual, in the same order.
    sed -n 's/^ *\(-., \)*--\([a-z-]*\).*/\2/p' "$tmp/one" >"$tmp/from-help"
    {
        awk -v name="$name" '/^\.Ss refuge /{line = substr($0, 12); on = (line == name ||
            index(line, name " ") == 1 && substr(line, length(name) + 2) !~ /^[a-z]/); next}
            /^\.S[hs]/{on = 0} on' "$source_dir/doc/refuge.1"
        sed -n '/^\.Sh OPTIONS/,/^\.Sh COMMANDS/p' "$source_dir/doc/refuge.1"
    } | sed -n 's/^\.It \(Fl . , \)*Fl -\([a-z-]*\).*/\2/p' >"$tmp/from-manual"
    ok "the manual has the options of $name" cmp -s "$tmp/from-help" "$tmp/from-manual"
done <"$tmp/names"
ok "the manual pages are what the program says" sh "$source_dir/scripts/manual" --check

run refuge pit
status_is "an unknown command: status 2" 2
err_has "did you mean" "did you mean 'put'?"
run refuge index rnu
err_has "also within a group" "did you mean 'run'?"
run refuge index
status_is "a group alone" 2
run refuge put --mtach x y
status_is "an unknown option" 2
err_has "did you mean" "did you mean '--match'?"
run refuge put -Z x
err_has "an unknown letter" "unknown option '-Z'"
run refuge ls --limit
err_has "a value is missing" "needs N"
run refuge ls --limit=x
err_has "a number is none" "needs a whole number"
run refuge ls --long=yes
err_has "a flag takes no value" "takes no value"
run refuge ls more
err_has "an argument too many" "takes no argument 'more'"
run refuge get
err_has "an argument is missing" "needs REF"
run refuge --json nonsense
out_matches "a mistake with --json ends in a summary" '^\{"type":"summary".*"exit":2'
run refuge --version --json
out_matches "--version --json" '^\{"type":"version","version":"[0-9]+\.[0-9]+\.[0-9]+"\}$'
out_matches "and a summary" '^\{"type":"summary","command":null,"ok":true,"exit":0,'
for words in "help" "--help" "help index" "put --help" "help sql" "search -h"; do
    # shellcheck disable=SC2086
    run refuge --json $words
    ok "$words --json is JSON, its options and commands, a summary last" python3 - "$out" <<'PYTHON'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
types = [line["type"] for line in lines]
commands = [line for line in lines if line["type"] == "command"]
assert types[-1] == "summary" and types.count("summary") == 1
assert types.count("option") == 5 and commands
for one in commands:
    assert one["name"] and one["help"] and isinstance(one["options"], list)
    assert all(option["name"] and option["help"] for option in one["options"])
PYTHON
done
run refuge help --json put
out_has "an option that may be repeated" '"name":"match","letter":"m","argument":"GLOB"'
out_has "an example" '{"command":"refuge put notes.json","meaning":"store one file"}'
run refuge help --json --mdoc
status_is "--mdoc is no JSON" 2
run refuge put --jobs 0 x
status_is "no home comes first" 10

refuge init -q >/dev/null
run refuge put --jobs 0 x
status_is "a number out of bounds" 2
cd "$tmp" || exit 1
printf 'x' >./-x
run refuge put -- -x
status_is "-- ends the options" 0
run refuge put ./-x --jobs=2 -q -j 3
status_is "options anywhere, in every form" 0
printf 'y' >"$(printf 'a\033[31mb')"
run refuge put "$(printf 'a\033[31mb')"
status_is "a name with control bytes" 0
run refuge put --json "$(printf 'a\033[31mb')"
out_has "is escaped in JSON" 'a\u001b[31mb'
run refuge put "$(printf 'no\033[31msuch')"
ok "no control byte reaches stderr" sh -c "! grep -q '$(printf '\033')' '$err'"
printf 'z' >"$(printf 'bad\377name')"
run refuge put --json "$(printf 'bad\377name')"
out_has "a name that is no text" '"name_b64":"YmFk/25hbWU="'

# A full disk under stdout is told.
if [ -w /dev/full ]; then
    "$REFUGE" ls >/dev/full 2>"$err"
    is "a full stdout: status 1" $? 1
    err_has "is told" "cannot write to standard output"
    echo '{"kind": "person"}' | "$REFUGE" put -q - >/dev/null
    "$REFUGE" index run main -q 2>/dev/null
    "$REFUGE" search person >/dev/full 2>"$err"
    is "so it is of search" $? 1
else
    skip "a full stdout" "no /dev/full"
fi

# Whoever starts it with standard files closed must not find its own in their place.
(exec <&-; exec "$REFUGE" put - >"$out" 2>"$err")
status=$?
status_is "put - without a standard input" 1
err_has "says so" "standard input"
(exec >&-; exec "$REFUGE" ls --long 2>"$err")
status=$?
status_is "ls without a standard output" 1
err_has "says so" "cannot write to standard output"
(exec <&- >&- 2>&-; exec "$REFUGE" put x.json)
status=$?
is "without any of them it fails too" "$status" 1
run refuge store verify
status_is "and nothing was written where it should not be" 0

# Another process holds the store.
background sh -c "sleep 60 | '$REFUGE' put -"
holder=$pid
locked()
{
    "$REFUGE" put --wait 0 ./-x >/dev/null 2>"$err"
    [ $? -eq 11 ]
}
wait_for 20 "the store to be held" locked
pass "the store is held: status 11"
err_matches "and by whom" 'process [0-9]+ \(refuge put'
run refuge ls
status_is "readers need no lock" 0
kill "$holder" 2>/dev/null
done_testing
