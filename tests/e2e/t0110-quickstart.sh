#!/bin/sh
# t0110-quickstart.sh - scripts/quickstart: from a clone to answers, and again without harm
#
# Uses the release build of this tree, and makes it when it is not there.
. "$(dirname "$0")/lib.sh"

[ -d /usr/share/iso-codes/json ] || skip_all "package iso-codes is not installed"
command -v ninja >/dev/null || skip_all "ninja is not installed"
unset REFUGE REFUGE_MAPPER

run "$source_dir/scripts/quickstart"
status_is "without a folder: the iso-codes data" 0
out_matches "it says what it types" '^\$ .*/refuge (sql|search) '
out_has "SQL answers from the example mapper's table" "United Kingdom"
out_has "words are found" "Korea"

before=$(query "$REFUGE_HOME/index/main.db" "SELECT count(*) FROM blobs")
mkdir "$tmp/mine"
printf '[{"title": "Nightjar"}, {"title": "Bittern"}]\n' >"$tmp/mine/birds.json"
printf 'name,town\nAda,London\n' >"$tmp/mine/people.csv"
run "$source_dir/scripts/quickstart" "$tmp/mine"
status_is "with a folder, into the home that is there" 0
after=$(query "$REFUGE_HOME/index/main.db" "SELECT count(*) FROM blobs")
ok "what was there stays ($before, then $after items)" [ "$after" -gt "$before" ]

# Every line it said it typed can be typed again.
sed -n "s/^\$ \(.* \(sql\|search\) .*\)/\1/p" "$out" | head -n 1 >"$tmp/again"
run sh "$tmp/again"
status_is "a printed question can be asked again" 0
mkdir "$tmp/kitchen" "$tmp/texts"
printf '[{"title": "Küchenuhr, weiß"}]\n' >"$tmp/kitchen/clock.json"
run env REFUGE_HOME="$tmp/other" "$source_dir/scripts/quickstart" "$tmp/kitchen"
out_matches "a word with an umlaut is asked for whole" "refuge search --limit 5 'Küchenuhr'"
out_has "and found" "[Küchenuhr]"
printf '[{"title": "Übung macht"}]\n' >"$tmp/kitchen/clock.json"
run env REFUGE_HOME="$tmp/third" "$source_dir/scripts/quickstart" "$tmp/kitchen"
out_has "also one that begins with an umlaut" "[Übung]"
printf 'text\n' >"$tmp/texts/a.txt"
run "$source_dir/scripts/quickstart" "$tmp/texts"
status_is "a folder without JSON or CSV is an error" 1
err_has "and it is said" "no JSON or CSV file in '$tmp/texts'"
run "$source_dir/scripts/quickstart" "$tmp/nowhere"
status_is "a folder that is not there is an error" 1
err_has "it is named" "$tmp/nowhere"
done_testing
