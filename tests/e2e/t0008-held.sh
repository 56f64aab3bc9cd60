#!/bin/sh
# A blob that is content of a file: delete keeps it, and store verify names a file that lost it.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
printf '{"self":1}' >s.json
cp s.json twin.json
touch -d 2001-01-01 twin.json
file=$(refuge put -q s.json | cut -d' ' -f1)
twin=$(refuge put -q twin.json | cut -d' ' -f1)
bare=$(refuge put -q - <s.json | cut -d' ' -f1)
other=$(echo other | refuge put -q - | cut -d' ' -f1)

run refuge delete "$bare"
status_is "a blob that a file holds: status 1" 1
err_matches "says which file" "content of file '(s|twin)\.json' \(sha256-"
err_has "and what to do" "--force"
run refuge get "$file"
out_is "the file has its content" '{"self":1}'
run refuge delete --dry-run "$bare"
status_is "a dry run says so, too" 1
run refuge delete "$bare" "$other"
status_is "of two the other one goes" 1
out_has "and is named" "$other"
run refuge store verify
status_is "nothing is amiss" 0
run refuge delete "$file" "$bare"
status_is "a twin holds it still" 1
run refuge delete "$twin" "$bare"
status_is "together with the last file it goes" 0

file=$(refuge put -q s.json | cut -d' ' -f1)
run refuge delete --force --content "$(sha s.json)"
status_is "force and content: status 2" 2
run refuge delete --force "$(sha s.json)"
status_is "by force" 0
run refuge store verify
status_is "verify: status 1" 1
out_has "names the file" "file 's.json' ($file): its content $(sha s.json) is not in the store"
out_has "and counts it" "1 file without content"
refuge put -q s.json >/dev/null
run refuge store verify
status_is "put again it is whole" 0
done_testing
