#!/bin/sh
# A home: where it is looked for, what init makes, what is said when it is not there.
. "$(dirname "$0")/lib.sh"

run refuge ls
status_is "without a home: status 10" 10
err_has "and the way out is named" "'refuge init' makes one"
run refuge ls --json
status_is "the same with --json" 10
out_matches "an error object" '^\{"type":"error","status":"no_home",'
out_matches "and a summary last" '^\{"type":"summary","command":"ls","ok":false,"exit":10,'

run refuge init --dry-run
status_is "init --dry-run" 0
ok "makes nothing" test ! -e "$REFUGE_HOME"
run refuge init
status_is "init" 0
out_is "prints the home" "$REFUGE_HOME"
is "only its owner may look into it" "$(stat -c %a "$REFUGE_HOME")" 700
is "nor into the configuration" "$(stat -c %a "$REFUGE_HOME/refuge.conf")" 600
for path in refuge.conf store/home index mappers; do
    ok "there is $path" test -e "$REFUGE_HOME/$path"
done
cp "$REFUGE_HOME/refuge.conf" "$tmp/conf"
run refuge init
status_is "init again" 0
err_has "changes nothing" "complete already"
ok "not even the configuration" cmp -s "$tmp/conf" "$REFUGE_HOME/refuge.conf"

run refuge init --home "$tmp/a b/c"
status_is "a home somewhere else, with its parents" 0
ok "is there" test -d "$tmp/a b/c/store/home"
(
    unset REFUGE_HOME
    HOME=$tmp/user
    export HOME
    run refuge init
    out_is "without \$REFUGE_HOME: below \$HOME" "$tmp/user/.local/share/refuge"
    XDG_DATA_HOME=$tmp/data
    export XDG_DATA_HOME
    run refuge init
    out_is "or in \$XDG_DATA_HOME" "$tmp/data/refuge"
    [ "$tap_failed" -eq 0 ]
) >"$tmp/sub"
sed 's/^/# /' "$tmp/sub"
ok "homes by environment" test "$(grep -c '^not ok' "$tmp/sub")" = 0

chmod 000 "$REFUGE_HOME/refuge.conf"
if [ "$(id -u)" -ne 0 ]; then
    run refuge ls
    status_is "no access: status 12" 12
else
    skip "no access: status 12" "root may read everything"
fi
chmod 600 "$REFUGE_HOME/refuge.conf"

run refuge config check
status_is "config check" 0
run refuge config show
status_is "config show" 0
out_has "shows an option" "index.workers"
run env REFUGE_INDEX__WORKERS=3 "$REFUGE" config show --origin
out_matches "the environment wins, and says so" 'index.workers.*3.*REFUGE_INDEX__WORKERS'
run refuge config show --json
out_has "as JSON" '"option":"index.workers"'
printf 'return { index = { wrokers = 2 } }\n' >"$REFUGE_HOME/refuge.conf"
run refuge config check
status_is "an unknown option" 1
err_has "is named with its line and what was meant" "did you mean 'workers'"
run refuge ls
status_is "and stops every command" 1
printf 'return { index = { workers = 2 } ' >"$REFUGE_HOME/refuge.conf"
run refuge config check
status_is "a broken file" 1
err_has "is named" "refuge.conf"
cp "$tmp/conf" "$REFUGE_HOME/refuge.conf"

run refuge doctor
status_is "doctor" 0
out_matches "says what is in order" '^ok +store'
out_lacks "and nothing fails" "fail"
chmod 755 "$REFUGE_HOME"
run refuge doctor
out_matches "warns of an open home" '^warn +home'
chmod 700 "$REFUGE_HOME"
run refuge doctor --home "$tmp/nowhere"
status_is "doctor without a home: status 10" 10
out_matches "says so" '^fail +home'
mkdir "$tmp/folder"
run refuge doctor --home "$tmp/folder"
status_is "nor is any folder one" 10
run env REFUGE_MAPPER=/bin/true "$REFUGE" doctor
status_is "doctor with a jail that does not answer" 1
out_matches "says so" '^fail +jail'
done_testing
