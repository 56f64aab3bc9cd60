#!/bin/sh
# A verify shuffles changes: files that are cut into many parts, more than have a place at a time, must not
# wait for each other when a batch ends between them.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
mkdir in
python3 - <<'PYTHON'
for index in range(60):
    with open("in/%03d.json%s" % (index, "l" if index % 2 else ""), "w") as file:
        for line in range(4000 if index % 2 else 1):  # 300 KB
            file.write('{"n": %d, "filler": "%s"}\n' % (index * 10000 + line, "x" * 60))
PYTHON
refuge put -q in >/dev/null || fail "put"
run refuge index run
status_is "they are indexed" 0
for items in 500 1000; do
    REFUGE_INDEX__BATCH_ITEMS=$items timeout 90 "$REFUGE" index verify >"$out" 2>"$err"
    status=$?
    status_is "verify in batches of $items ends" 0
    out_has "with what it found" "240060 rows compared: 0 differences"
    [ "$status" -eq 0 ] || break
done

done_testing
