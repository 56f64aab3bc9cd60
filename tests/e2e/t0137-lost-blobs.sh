#!/bin/sh
# Blobs that the store lost and the index still holds: verify does not advise to lose them there, too.
. "$(dirname "$0")/lib.sh"

refuge init -q >/dev/null || fail "init"
cd "$tmp" || exit 1
printf '{"title":"the last copy of this"}' >only.json
printf '{"title":"another"}' >other.json
refuge put -q only.json other.json >/dev/null
refuge index run -q
printf '{"later":1}' >later.json
refuge put -q later.json >/dev/null
run refuge index verify
status_is "an index that is behind verifies" 0
out_matches "saying how far" "^as of change 4 of 6: 'refuge index run' goes on"
refuge index run -q

python3 - "$REFUGE_HOME/store/home" <<'PYTHON'
import os, sys
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(folder, name)
        data = open(path, "rb").read()
        at = data.find(b"the last copy")
        if at >= 0:
            with open(path, "r+b") as file:
                file.seek(at)
                file.write(b"T")
PYTHON
run refuge index verify
status_is "a damaged blob: status 1" 1
err_has "the store is what cannot be read" "the store cannot read all that the index was made from"
err_has "and a rebuild would lose more" "a rebuild would lose them"
err_lacks "so none is advised" "'refuge index rebuild'"
run refuge search "last copy"
out_has "the index still finds it" "only.json"
refuge put -q only.json >/dev/null
run refuge store verify
status_is "the file put again heals the store" 0
run refuge index verify
status_is "and the index is what it says" 0
done_testing
