#!/bin/sh
# One of a thing is said in the singular: a home with exactly one of everything, and nothing that is
# said of it reads "1 files".
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
cat >"$REFUGE_HOME/mappers/lines.lua" <<'LUA'
return {
  name = "lines", version = "1", on = { "file" }, match = { name = { "*.line" } },
  tables = { lines = { columns = { "line text search" } } },
  map = function(blob, emit)
    emit.lines { line = blob:content() }
    if blob:content() == "cut" then emit.part { bytes = "piece", media = "text/plain" } end
  end,
}
LUA
cat >"$REFUGE_HOME/refuge.conf" <<'LUA'
return { mappers = { bundled = false } }
LUA
mkdir folder
ln -s nowhere folder/link
printf 1 >folder/one.line
printf x >x

nouns="blob byte change count difference error file hit home item mapper mapping match mistake part \
row run symlink table test token value"
many=$(printf '%s' "$nouns" | sed 's/ /s|/g')s
check()
{
    run refuge "$@"
    cat "$out" "$err" >both
    if grep -E "(^|[^0-9.])1 ($many)\\b" both >found; then
        fail "refuge $*" "$(cat found)"
    else
        pass "refuge $*"
    fi
}

check put --dry-run folder
check put folder
check index run
check index run
check index status
check index why folder/one.line
check index verify
check status
check search 1
check mapper run lines folder/one.line
check mapper list
check mapper check
check doctor
check stat "$(refuge put folder/one.line | cut -d' ' -f1)"
check store verify
check store verify --repair
REFUGE_PROGRESS_FPS=1000
export REFUGE_PROGRESS_FPS
check put folder
check store verify
unset REFUGE_PROGRESS_FPS
printf cut >folder/one.line
check mapper run lines folder/one.line
printf 'return { name = "lines" }' >"$REFUGE_HOME/mappers/lines.lua"
check mapper check
check doctor
python3 - "$REFUGE_HOME/index/main.db" <<'PYTHON' || fail "damage"
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db:
    db.execute("update blobs set name = 'other' where name = 'one.line'")
PYTHON
check index verify
status_is "one difference is found" 1
check delete --dry-run "$(refuge put x | cut -d' ' -f1)"
done_testing
