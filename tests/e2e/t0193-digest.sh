#!/bin/sh
# index digest: equal in indexes that say the same, whatever way they came about; else not.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
printf '[{"name": "Ada", "n": 1}, {"name": "Grace", "n": 2}]' >people.json
printf 'no JSON' >bad.json
refuge put -q people.json bad.json >/dev/null
run refuge index digest
status_is "without an index there is nothing to hash" 0
err_has "said so" "there is no index yet"
refuge index create twin --sink sqlite:twin.db -q
refuge index run -q main
digest() { refuge index digest "$1" | cut -c1-64; }

# The second index comes to the same rows by another way: a file that is gone again, and a rebuild.
printf '{"gone": true}' >gone.json
gone=$(refuge put -q gone.json | cut -d' ' -f1)
refuge index run -q twin
ok "a file that is gone again" sh -c "\"$REFUGE\" delete -q $gone >/dev/null"
refuge index run -q main
refuge index run -q twin
refuge index rebuild -q twin
run refuge index digest
status_is "of every index" 0
out_matches "a line each" "^[0-9a-f]{64}  main$"
is "two indexes that say the same have the same" "$(digest twin)" "$(digest main)"
run refuge index digest main --json
out_matches "as JSON, with the rows hashed" '"index":"main","digest":"[0-9a-f]{64}","rows":[1-9]'
before=$(digest twin)
python3 - <<'PYTHON'
import sqlite3
database = sqlite3.connect("twin.db")
database.execute("UPDATE record SET value = 'Eve' WHERE value = 'Ada'")
database.commit()
PYTHON
ok "one cell changed is another" test "$(digest twin)" != "$before"
run refuge index digest nowhere
status_is "an index that is not there" 1
done_testing
