#!/bin/sh
# sql in three formats, and search.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
cat >"$REFUGE_HOME/mappers/words.lua" <<'LUA'
return {
  name = "words", version = "1", on = { "file" }, match = { name = { "*.txt" } },
  tables = { words = { columns = { "line text search", "at int", "part float", "flag bool" } } },
  map = function(blob, emit)
    local n = 0
    for line in blob:lines() do
      n = n + 1
      emit.words { line = line, at = n, part = n / 4, flag = n % 2 == 0 }
    end
  end,
}
LUA
printf 'The quick brown fox\nsays "hello, world"\nr\303\251sum\303\251 of a fox hunt\n' >a.txt
printf 'nothing here\n' >b.txt
refuge put a.txt b.txt >/dev/null
refuge index run -q
status=$?
status_is "the index is made" 0

run refuge sql 'select line, at, part, flag from words order by line limit 2'
status_is "sql prints a table" 0
out_matches "with a header" '^line +at +part +flag$'
out_matches "and aligned cells" '^The quick brown fox +1 +0\.25 +0$'
run refuge sql "select null as a, 1 as b"
out_matches "null is empty" '^ +1$'
run refuge sql --csv "select line, at from words where at = 2"
is "--csv quotes as RFC 4180 says" "$(od -An -c "$out" | tr -d ' \n')" \
    'line,at\n"says""hello,world""",2\n'
ok "and Python reads it back" python3 - "$out" <<'PYTHON'
import csv, sys
rows = list(csv.reader(open(sys.argv[1], newline="")))
sys.exit(rows != [["line", "at"], ['says "hello, world"', "2"]])
PYTHON
run refuge sql --json "select line, at, part, null as none from words where at = 2"
out_is "--json is one row a line" '{"line":"says \"hello, world\"","at":2,"part":0.5,"none":null}'
run refuge sql --json 'select 1 as n, 2 as n, 3 as n, 4 as n_2, 5 as ""'
out_is "--json: equal names are numbered" '{"n":1,"n_2":2,"n_3":3,"n_2_2":4,"":5}'
run refuge sql --csv 'select 1 as n, 2 as n'
out_matches "--csv: columns keep their names" '^n,n'
run sh -c "echo 'select count(*) as n from words' | '$REFUGE' sql --csv"
out_has "a query from standard input" 4
run refuge sql 'select * from words where 0'
out_matches "no rows: the header alone" '^id +blob'
is "of two lines" "$(wc -l <"$out")" 2

run refuge sql 'delete from words'
status_is "sql does not write" 1
run refuge sql 'select 1; select 2'
status_is "one statement only" 1
run refuge sql 'selec 1'
status_is "a mistake" 1
err_has "is told" "syntax error"
run refuge sql 'select * from nowhere'
err_has "as is a table that is not there" "no such table"
run refuge sql --json 'selec 1'
status_is "a mistake with --json" 1
out_matches "is an error object" '^\{"type":"error","status":"invalid","message":".*syntax error'
is "and nothing else" "$(wc -l <"$out")" 1
run refuge sql --json "select 1 as a union all select abs(-9223372036854775807 - 1)"
status_is "a failure behind a row" 1
is "the row, then the error" "$(sed 's/,"message.*//' "$out" | tr '\n' ' ')" \
    '{"a":1} {"type":"error","status":"invalid" '
run refuge search --json --table nowhere fox
status_is "a failing search with --json" 1
out_matches "is an error object too" '^\{"type":"error","status":"not_found","message":"'
for query in .tables '.schema record' .help; do
    run refuge sql "$query"
    status_is "$query is no SQL: status 2" 2
    err_has "the shell that knows it is named" "'${query%% *}' is a command of the sqlite3 shell"
    err_has "and what to ask instead" "sqlite_schema"
done
run sh -c "echo .tables | '$REFUGE' sql"
status_is "nor is it from standard input" 2
for query in '' ' ; ' '/* nothing */'; do
    run refuge sql "$query"
    status_is "no statement in '$query': status 2" 2
    err_has "is said" "there is no statement in the query"
done
run sh -c "'$REFUGE' sql </dev/null"
status_is "nor in an empty standard input" 2
run refuge sql --json ''
out_is "as an object with --json" \
    '{"type":"error","status":"usage","message":"there is no statement in the query"}'
run refuge sql --index none 'select 1'
status_is "an index that is not there" 1
run refuge sql --csv --json 'select 1'
status_is "one format only" 2
endless='with recursive n(i) as (select 1 union all select i + 1 from n)'
run sh -c "'$REFUGE' sql --csv '$endless select i from n' | head -1; exit 0"
out_is "a reader that leaves ends an endless query" i
is "quietly" "$(cat "$err")" ""
background "$REFUGE" sql --csv "$endless select max(i) from n"
catches_int() # the program, not the shell that is about to become it
{
    case $(readlink "/proc/$pid/exe") in */refuge) ;; *) return 1 ;; esac
    grep -Eq '^SigCgt:.*[2367abef]$' "/proc/$pid/status"
}
wait_for 20 "the program to catch SIGINT" catches_int
kill -INT "$pid"
wait "$pid"
is "SIGINT ends a query with status 130" $? 130

run refuge search fox
status_is "search" 0
err_has "counts its hits" "2 hits"
out_has "marks them" "[fox]"
out_has "names the file" "a.txt"
out_has "table and column" "words.line"
run refuge search resume
out_has "without accents" "[résumé]"
run refuge search '"fox hunt"'
err_has "a phrase" "1 hit"
run refuge search qui\*
out_has "a beginning" "[quick]"
run refuge search qui
out_has "the last word, when there is no hit" "[quick]"
run refuge search '"qui"'
err_has "but not of a phrase" "0 hits"
run refuge search fox -hunt
err_has "-word leaves hits out" "1 hit"
run refuge search --json fox --limit 1
is "--json is one hit a line" "$(wc -l <"$out")" 1
out_matches "with all there is" '"table":"words","mapper":"words","item":"sha256-[0-9a-f]{64}","name":"a'
run refuge search --json fox --limit 0
is "--limit 0 gives all" "$(wc -l <"$out")" 2
run refuge search nowhere
status_is "no hits is no failure" 0
err_has "and said" "0 hits"
for odd in 'AND' '"' '*' 'a"b' '(' 'NEAR(' "'" 'x:y' '^'; do
    run refuge search fox "$odd"
    if [ "$status" -ne 0 ]; then
        fail "any text is a query: $odd" "status $status"
    fi
    err_lacks "search $odd speaks no FTS5" "fts5"
done
# A question that cannot be asked is a mistake on the command line, whatever is wrong with it.
for odd in '!!' '*' '-fox' '""'; do
    run refuge search "$odd"
    status_is "no word in $odd: status 2" 2
done
run refuge search "$(printf 'fox %.0s' $(seq 70))"
status_is "too many words: status 2" 2
run refuge search "\"$(printf 'fox %.0s' $(seq 70))\""
status_is "a phrase of too many: status 2" 2
run refuge search "$(printf 'fox%.0s' $(seq 2000))"
status_is "too long: status 2" 2
done_testing
