#!/bin/sh
# t0100-readme.sh - what the README and the page on mappers tell to type works, and answers what
# they say
#
# A block of a page counts when the line before it is one of
#
#     <!-- file PATH -->         the block is written there (PATH as in sh)
#     <!-- run -->               it is run by sh, in an empty folder of the page
#     <!-- run, status N -->     the same, ending so
#     <!-- run with servers -->  the same where PG and OS can name servers, as scripts/test starts them
#     <!-- answers -->           is what the block before it printed
#     <!-- says -->              is among what it said on standard error, broken in lines anywhere
. "$(dirname "$0")/lib.sh"

mkdir "$tmp/bin"
ln -s "$REFUGE" "$tmp/bin/refuge"
ln -s "$REFUGE_MAPPER" "$tmp/bin/refuge-mapper"
PATH=$tmp/bin:$PATH
export PATH

# Servers of the tests, by the names the README gives them.
PG=${REFUGE_TEST_POSTGRESQL:-}
OS=${REFUGE_TEST_OPENSEARCH:-}
export PG OS

words() { tr -s ' \n' '  ' <"$1" | sed 's/ $//'; }

# run_page FILE: its blocks, in order.
run_page()
{
    page=$1
    work=$tmp/$(basename "$page")
    REFUGE_HOME=$work/home
    export REFUGE_HOME
    mkdir -p "$work/blocks" "$work/folder"
    python3 - "$source_dir/$page" "$work/blocks" <<'PYTHON'
import os, re, sys
text = open(sys.argv[1], encoding="utf-8").read()
kinds = r"<!-- (file|run|answers|says)(?:,? (?:status )?([^\n>]+?))? -->\n+```[a-z]*\n(.*?)```"
servers = bool(os.environ["PG"] and os.environ["OS"])
passed = False
for number, (kind, word, body) in enumerate(re.findall(kinds, text, re.S)):
    if kind in ("file", "run"):
        passed = word == "with servers" and not servers
    if passed:
        continue
    word = "" if word == "with servers" else word
    name = os.path.join(sys.argv[2], "%02d." % number)
    open(name + kind, "w").write(body)
    open(name + "word", "w").write(word)
PYTHON
    [ "$page" = README.md ] || refuge init -q >"$out"
    for block in "$work"/blocks/*; do
        number=$(basename "$block")
        word=$(cat "${block%.*}.word")
        case $block in
        *.file) (cd "$work/folder" && eval "cp \"\$block\" \"$word\"") ;;
        *.run)
            (cd "$work/folder" && REFUGE_CLONE=$source_dir sh -eu "$block") >"$out" 2>"$err"
            status=$?
            status_is "$page, block $number runs: $(head -n 1 "$block")" "${word:-0}"
            ;;
        *.answers)
            is "$page, block $number is what was answered" \
                "$(sed 's/ *$//; /^$/d' "$out")" "$(cat "$block")"
            ;;
        *.says)
            words "$err" >"$work/said"
            ok "$page, block $number is what was said" grep -qF "$(words "$block")" "$work/said"
            ;;
        esac
    done
    ok "$page has blocks to run" test "$(find "$work/blocks" -name '*.run' | wc -l)" -ge 3
}

run_page README.md
for index in team web; do # in servers that others use, too
    [ ! -e "$REFUGE_HOME/conf.d/index-$index.json" ] || refuge index drop -q "$index"
done
[ -n "$PG" ] && [ -n "$OS" ] || skip "README.md: an index in each server" "PG and OS name none"
run_page doc/writing-a-mapper.md
done_testing
