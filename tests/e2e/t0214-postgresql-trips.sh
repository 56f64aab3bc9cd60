#!/bin/sh
# t0214-postgresql-trips.sh - a run with nothing to do asks the server little, however many tables there are
. "$(dirname "$0")/lib.sh"

[ -n "${REFUGE_TEST_POSTGRESQL:-}" ] || skip_all "REFUGE_TEST_POSTGRESQL names no server"
case $REFUGE_TEST_POSTGRESQL in
*@%2F*) ;;
*) skip_all "the server is not at a socket of this machine" ;;
esac
cd "$tmp" || exit 1
chmod 755 .

refuge init -q >/dev/null || fail "init"
printf '{"a": 1}' >a.json
refuge put -q a.json >/dev/null || fail "put"
cat >count.py <<'PYTHON'
import os, subprocess, sys, urllib.parse
sys.path.insert(0, os.path.join(sys.argv[1], "tests", "services"))
import wire

server = urllib.parse.unquote(os.environ["REFUGE_TEST_POSTGRESQL"].split("@")[1])
user = os.environ["REFUGE_TEST_POSTGRESQL"].split("@")[0]
folder, database = os.path.abspath("wire"), server.rsplit("/", 1)[1]
os.mkdir(folder)
between = wire.Wire(folder, os.path.join(server.rsplit("/", 1)[0], ".s.PGSQL.5432"))


def refuge(*words):
    subprocess.run([os.environ["REFUGE"], *words, "-q"], check=True, stdout=subprocess.DEVNULL)


for tables in (1, 12):
    name = "t%d" % tables
    with open(name + ".lua", "w", encoding="utf-8") as file:
        file.write("return { name = '%s', version = 1, on = { 'blob', 'file' }, tables = { %s }, map = "
                   "function(blob, emit) emit.%s_0 { size = 1 } end }"
                   % (name, ", ".join("%s_%d = { columns = { 'size int facet' } }" % (name, i)
                                      for i in range(tables)), name))
    refuge("index", "create", name, "--mapper", name + ".lua", "--sink",
           "%s@%s/%s#trips_%d_%s" % (user, urllib.parse.quote(folder, safe=""), database, os.getpid(), name))
    refuge("index", "run", name)
    between.disarm()
    refuge("index", "run", name)
    print(name, between.trips)
    refuge("index", "drop", name)
PYTHON
run python3 count.py "$source_dir"
status_is "two indexes run" 0
few=$(sed -n 's/^t1 //p' "$out")
many=$(sed -n 's/^t12 //p' "$out")
note "$few round trips"
is "twelve tables cost no round trip more than one" "$many" "$few"
ok "and there are not more than 40" [ "${few:-99}" -le 40 ]
done_testing
