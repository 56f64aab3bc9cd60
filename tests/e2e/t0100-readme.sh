#!/bin/sh
# t0100-readme.sh - what the README tells to type works, and answers what it says
#
# Runs the blocks of README.md that are marked <!-- run -->, in order, in one shell, in an empty
# folder; a block marked <!-- answers --> behind one must be what it printed.
. "$(dirname "$0")/lib.sh"

mkdir "$tmp/bin" "$tmp/work"
ln -s "$REFUGE" "$tmp/bin/refuge"
ln -s "$REFUGE_MAPPER" "$tmp/bin/refuge-mapper"
PATH=$tmp/bin:$PATH
export PATH

python3 - "$source_dir/README.md" "$tmp/blocks" <<'PYTHON'
import os, re, sys
text = open(sys.argv[1], encoding="utf-8").read()
os.makedirs(sys.argv[2])
number = 0
for kind, body in re.findall(r"<!-- (run|answers) -->\n+```[a-z]*\n(.*?)```", text, re.S):
    if kind == "run":
        number += 1
    with open(os.path.join(sys.argv[2], "%02d.%s" % (number, kind)), "w") as file:
        file.write(body)
PYTHON

blocks=0
for block in "$tmp"/blocks/*.run; do
    [ -f "$block" ] || continue
    blocks=$((blocks + 1))
    number=$(basename "$block" .run)
    (cd "$tmp/work" && REFUGE_CLONE=$source_dir sh -eu "$block") >"$out" 2>"$err"
    status=$?
    status_is "block $number runs: $(head -n 1 "$block")" 0
    answers=$tmp/blocks/$number.answers
    [ ! -f "$answers" ] || is "block $number answers what the README says" \
        "$(tr -d '\r' <"$out")" "$(cat "$answers")" # CSV lines end in CR LF
done
ok "the README has blocks to run" [ "$blocks" -ge 3 ]
done_testing
