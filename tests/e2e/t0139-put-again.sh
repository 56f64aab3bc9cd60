#!/bin/sh
# Files deleted with their content and put again: in a verify, which maps changes in another order than
# they were made, the tombstone of a content may come behind its second arrival.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cat >"$REFUGE_HOME/mappers/names.lua" <<'LUA'
return {
    name = "names",
    version = "1",
    on = { "file" },
    match = { media = { "text/plain" } },
    tables = { names = { columns = { "name text" } } },
    map = function(blob, emit)
        emit.names { name = blob.name }
    end,
}
LUA
mkdir "$tmp/notes" && cd "$tmp/notes" || exit 1
for i in $(seq 40); do
    echo "note number $i" >"$i.txt"
done
refuge put -q . >"$tmp/refs" || fail "put"
refuge index run -q || fail "run"
# shellcheck disable=SC2046
refuge delete -q --content $(head -n 20 "$tmp/refs" | cut -d" " -f1) >/dev/null || fail "delete"
refuge put -q . >/dev/null || fail "put again"
refuge index run -q || fail "run again"
run refuge sql "SELECT count(*) FROM names"
out_has "every file is mapped" "40"
for turn in 1 2 3; do
    run refuge index verify
    status_is "verify number $turn finds no difference" 0
done
done_testing
