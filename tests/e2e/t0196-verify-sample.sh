#!/bin/sh
# index verify --sample: some items are mapped again, and what the index says of them compared.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
for i in $(seq 1 60); do
    printf '[{"name":"a %d"},{"name":"shared"},{"name":"b %d"}]' "$i" "$i" >"list$i.json"
done
refuge put -q list*.json >refs
refuge index run -q
database=$REFUGE_HOME/index/main.db

run refuge index verify --sample 10 --seed 7
status_is "a sample of a sound index agrees" 0
err_has "the seed is told" "--seed 7 draws it again"
cp "$out" seven
run refuge index verify --sample 10 --seed 7
ok "the same seed compares the same" cmp -s "$out" seven
is "ten lists are compared: their records and the shared one once" \
    "$(sed -n 's/.*, \([0-9]*\) rows compared.*/\1/p' seven)" 21
run refuge index verify --sample 10 --json
is "as JSON the summary has the seed" "$(tail -1 "$out" | grep -c '"type":"summary".*"seed":[0-9]')" 1
run refuge index verify --sample 1000
status_is "a sample larger than the store is all of it" 0
is "all rows are compared" "$(sed -n 's/.*, \([0-9]*\) rows compared.*/\1/p' "$out")" 121
run refuge delete -q "$(grep 'list60.json$' refs | cut -d' ' -f1)"
refuge index run -q
run refuge index verify --sample 1000
status_is "what was deleted is not drawn" 0

# Damage: a value of every list is wrong, then only one.
python3 - "$database" "update record set value = 'x' || value where value like 'a %'" <<'PYTHON'
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute(sys.argv[2])
database.commit()
PYTHON
run refuge index verify --sample 3
status_is "damage to every item is found by a small sample" 1
out_has "with what is there and what should be" "should be 'a "
refuge index rebuild -q 2>/dev/null
run refuge index verify --sample 3
status_is "a rebuild mends it" 0
python3 - "$database" "delete from record where value = 'b 31'" <<'PYTHON'
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute(sys.argv[2])
database.commit()
PYTHON
run refuge index verify --sample 1000
status_is "a row that is missing is found when its item is drawn" 1
out_has "and named" "is missing"

if [ -n "${REFUGE_TEST_POSTGRESQL:-}" ]; then
    refuge index create -q team --sink "$REFUGE_TEST_POSTGRESQL#sample_$$"
    refuge index run -q team
    run refuge index verify team --sample 5
    status_is "a sample of an index in PostgreSQL agrees" 0
    refuge index drop -q team
else
    skip "a sample of an index in PostgreSQL" "REFUGE_TEST_POSTGRESQL is not set"
fi
done_testing
