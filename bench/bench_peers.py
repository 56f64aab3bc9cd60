#!/usr/bin/env python3
"""bench_peers.py - small JSON records into a database, refuge beside programs people use for it

    scripts/bench peers [--count=N] [--rounds=N] [--quick] [--dir=PATH] [--json=FILE]

The work: N records of 390 B, their five fields as typed columns in a table that can be asked, by

    sqlite         refuge index run   | sqlite-utils insert --nl, then enable-fts on one column
    postgresql     refuge index run   | rsyslog imfile, mmjsonparse, ompgsql in batches of 1,000
                                      | psql \\copy of ready columns: what a program needs at least
    elasticsearch  refuge index run   | rsyslog omelasticsearch, bulkmode
                                      | curl _bulk of ready documents, 1,000 a request

What each reads is there before the clock starts: refuge's store is filled (as a topic of a broker would
be), the others have one file of JSON lines. refuge besides checks every record's hash, runs Lua in a
jail, keeps items, edges and a position, and can prove what it wrote; the others do not. Servers are
taken from REFUGE_TEST_POSTGRESQL and REFUGE_TEST_ELASTICSEARCH; what is not there is skipped by name.
CPU is that of the client and all its children, not of the server. Rounds alternate; printed are medians.
"""
import argparse
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REFUGE = os.path.join(TOP, "build", "release", "bin", "refuge")
WORDS = ("harbour lantern meadow north orchard pebble quarry river saddle timber umbrella valley "
         "willow yarrow zephyr amber birch cedar dune ember").split()
MAPPER = """return {
    name = "events", version = "1", on = "file", match = { name = { "*.json" } },
    tables = { events = { columns = { "number int", "kind text", "who text", "at time",
                                      "body text search" } } },
    map = function(blob, emit)
        local id, kind, who, at, body = blob:pick("id", "kind", "who", "at", "body")
        emit.events { number = id, kind = kind, who = who, at = at, body = body }
    end,
}
"""


class Skip(Exception):
    """This side cannot run here, and why."""


def records(count):
    rng = random.Random(5)
    for number in range(count):
        body = " ".join(rng.choice(WORDS) for _ in range(38))[:270]
        yield json.dumps({"id": number, "kind": rng.choice(WORDS), "who": "person%d" % (number % 997),
                          "at": "2024-03-%02dT10:%02d:00Z" % (number % 28 + 1, number % 60),
                          "body": body})


class Material:
    """A filled store and a file of JSON lines with the same records."""

    def __init__(self, folder, count):
        self.folder, self.count = folder, count
        self.lines = os.path.join(folder, "records.jsonl")
        self.home = os.path.join(folder, "home")
        files = os.path.join(folder, "files")
        os.makedirs(files)
        with open(self.lines, "w", encoding="utf-8") as out:
            for number, line in enumerate(records(count)):
                out.write(line + "\n")
                with open(os.path.join(files, "%07d.json" % number), "w", encoding="utf-8") as one:
                    one.write(line)
        self.refuge("init")
        self.refuge("put", files)
        shutil.rmtree(files)
        self.mapper = os.path.join(folder, "events.lua")
        with open(self.mapper, "w", encoding="utf-8") as out:
            out.write(MAPPER)

    def refuge(self, *arguments):
        must([REFUGE, "--home", self.home, "-q"] + list(arguments))


def must(command, **how):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True, check=False, **how)
    if done.returncode != 0:
        sys.exit("bench: %s: %s" % (" ".join(command), done.stderr.strip()[-500:]))


def program(name):
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if not path:
        raise Skip("there is no program '%s'" % name)
    return path


def measured(run):
    """(wall seconds, CPU seconds of children that ended meanwhile)."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    run()
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def refuge_into(material, sink):
    material.refuge("index", "create", "bench", "--sink", sink, "--mapper", material.mapper)
    try:
        return measured(lambda: material.refuge("index", "run", "bench"))
    finally:
        material.refuge("index", "drop", "bench")


# ---- SQLite ----

def sqlite_refuge(material):
    return refuge_into(material, "sqlite:" + os.path.join(material.folder, "bench.db"))


def sqlite_utils(material):
    tool, path = program("sqlite-utils"), os.path.join(material.folder, "utils.db")

    def run():
        must([tool, "insert", path, "events", material.lines, "--nl", "--batch-size", "1000"])
        must([tool, "enable-fts", path, "events", "body"])
    try:
        return measured(run)
    finally:
        os.unlink(path)


# ---- PostgreSQL ----

def server(name):
    if not os.environ.get(name):
        raise Skip("%s names no server" % name)
    return os.environ[name]


def psql(sql, url):
    return subprocess.run([program("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql,
                           url], stdout=subprocess.PIPE, check=True, text=True).stdout.strip()


def postgresql_refuge(material):
    return refuge_into(material, server("REFUGE_TEST_POSTGRESQL") + "#bench_refuge")


TABLE = ("set client_min_messages = warning; drop table if exists bench_events; "
         "create table bench_events (id bigint, kind text, who text, at timestamptz, body text)")


def psql_copy(material):
    url, tool = server("REFUGE_TEST_POSTGRESQL"), program("psql")
    ready = os.path.join(material.folder, "ready.csv")
    if not os.path.exists(ready):
        with open(ready, "w", encoding="utf-8") as out:
            for line in records(material.count):
                one = json.loads(line)
                out.write("%d,%s,%s,%s,%s\n" % tuple(one[key] for key in
                                                    ("id", "kind", "who", "at", "body")))
    psql(TABLE, url)
    try:
        return measured(lambda: must([tool, "-X", "-q", "-c", "\\copy bench_events from '%s' csv" % ready,
                                      url]))
    finally:
        psql("drop table bench_events", url)


def rsyslog(material, output, modules, done):
    """Run rsyslog over the file until done() says that all is there."""
    tool, folder = program("rsyslogd"), tempfile.mkdtemp(dir=material.folder)
    module_folder = "/usr/lib/x86_64-linux-gnu/rsyslog"
    for module in modules:
        if os.path.isdir(module_folder) and not os.path.exists(
                os.path.join(module_folder, module + ".so")):
            raise Skip("rsyslog has no module '%s'" % module)
    config = os.path.join(folder, "rsyslog.conf")
    with open(config, "w", encoding="utf-8") as out:
        out.write('global(workDirectory="%s" maxMessageSize="64k")\n' % folder)
        out.write('main_queue(queue.type="LinkedList" queue.size="200000" '
                  'queue.dequeueBatchSize="1000")\n')
        for module in ("imfile", "mmjsonparse") + tuple(modules):
            out.write('module(load="%s"%s)\n' % (module, ' mode="inotify"' if module == "imfile" else ""))
        out.write('input(type="imfile" file="%s" tag="bench" addMetadata="off")\n' % material.lines)
        out.write('action(type="mmjsonparse" cookie="")\n' + output)
    process = None

    def run():
        nonlocal process
        process = subprocess.Popen([tool, "-n", "-f", config, "-i", os.path.join(folder, "pid")],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 600
            while not done():
                if process.poll() is not None or time.monotonic() > until:
                    raise Skip("rsyslog did not bring all records through")
                time.sleep(0.1)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    try:
        return measured(run)
    finally:
        shutil.rmtree(folder)


def parts_of(url):
    parts = urllib.parse.urlsplit(url)
    host = urllib.parse.unquote(parts.hostname or "")
    return host, parts.port or 5432, parts.username or "postgres", parts.path.strip("/")


def rsyslog_postgresql(material):
    url = server("REFUGE_TEST_POSTGRESQL")
    host, port, user, database = parts_of(url)
    output = (
        'template(name="row" type="list" option.stdsql="on") {\n'
        ' constant(value="insert into bench_events values (")\n'
        ' property(name="$!id") constant(value=", \'") property(name="$!kind")\n'
        ' constant(value="\', \'") property(name="$!who") constant(value="\', \'")\n'
        ' property(name="$!at") constant(value="\', \'") property(name="$!body")\n'
        ' constant(value="\')") }\n'
        'action(type="ompgsql" server="%s" port="%d" user="%s" pass="x" db="%s" template="row"\n'
        ' queue.type="LinkedList" queue.dequeueBatchSize="1000" queue.size="200000")\n'
        % (host, port, user, database))
    psql(TABLE, url)
    try:
        return rsyslog(material, output, ("ompgsql",), lambda: int(
            psql("select count(*) from bench_events", url)) >= material.count)
    finally:
        psql("drop table bench_events", url)


# ---- Elasticsearch ----

def elastic_url():
    url = server("REFUGE_TEST_ELASTICSEARCH").split("#")[0]
    return url.replace("elasticsearch+", "").rstrip("/")


def ask(path, method="GET", body=None):
    request = urllib.request.Request(elastic_url() + path, method=method, data=body,
                                     headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def fresh_index():
    try:
        ask("/bench-events", "DELETE")
    except urllib.error.HTTPError:
        pass
    ask("/bench-events", "PUT", json.dumps(
        {"settings": {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"},
         "mappings": {"dynamic": False, "properties": {
             "id": {"type": "long"}, "kind": {"type": "keyword"}, "who": {"type": "keyword"},
             "at": {"type": "date"}, "body": {"type": "text"}}}}).encode())


def elastic_count():
    ask("/bench-events/_refresh", "POST")
    return ask("/bench-events/_search?size=0&track_total_hits=true")["hits"]["total"]["value"]


def elastic_refuge(material):
    return refuge_into(material, server("REFUGE_TEST_ELASTICSEARCH").split("#")[0] + "#bench-refuge")


def curl_bulk(material):
    tool = program("curl")
    elastic_url()
    folder = os.path.join(material.folder, "bulk")
    if not os.path.isdir(folder):
        os.makedirs(folder)
        lines = list(records(material.count))
        for at in range(0, len(lines), 1000):
            with open(os.path.join(folder, "%07d" % at), "w", encoding="utf-8") as out:
                for number, line in enumerate(lines[at:at + 1000]):
                    out.write('{"index":{"_id":"%d"}}\n%s\n' % (at + number, line))
    fresh_index()
    command = [tool, "-sS", "-o", os.devnull, "-H", "Content-Type: application/x-ndjson"]
    calls = []
    for name in sorted(os.listdir(folder)):
        calls += (["--next"] if calls else []) + command[1:] + [
            "--data-binary", "@" + os.path.join(folder, name), elastic_url() + "/bench-events/_bulk"]

    def run():
        must([tool] + calls)
        ask("/bench-events/_refresh", "POST")
    return measured(run)


def rsyslog_elastic(material):
    url = urllib.parse.urlsplit(elastic_url())
    output = (
        'template(name="doc" type="list") { property(name="$!all-json-plain") }\n'
        'action(type="omelasticsearch" server="%s" serverport="%d" template="doc"\n'
        ' searchIndex="bench-events" searchType="" bulkmode="on" maxbytes="5m"\n'
        ' queue.type="LinkedList" queue.dequeueBatchSize="1000" queue.size="200000")\n'
        % (url.hostname, url.port))
    fresh_index()
    return rsyslog(material, output, ("omelasticsearch",), lambda: elastic_count() >= material.count)


# ---- rounds ----

WORKS = {
    "sqlite": [("refuge index run", sqlite_refuge), ("sqlite-utils insert, enable-fts", sqlite_utils)],
    "postgresql": [("refuge index run", postgresql_refuge),
                   ("rsyslog ompgsql", rsyslog_postgresql), ("psql \\copy, ready", psql_copy)],
    "elasticsearch": [("refuge index run", elastic_refuge),
                      ("rsyslog omelasticsearch", rsyslog_elastic),
                      ("curl _bulk, ready", curl_bulk)],
}


def compare(name, material, rounds):
    sides, costs, skipped = WORKS[name], {}, {}
    for number in range(rounds):
        for label, run in sides if number % 2 == 0 else sides[::-1]:
            if label in skipped:
                continue
            try:
                cost = run(material)
                costs.setdefault(label, []).append(cost)
            except Skip as why:
                skipped[label] = str(why)
    results = []
    for label, _ in sides:
        if label not in costs:
            print("%-14s %-32s skipped: %s" % (name, label, skipped[label]))
            continue
        wall, cpu = (statistics.median(cost[at] for cost in costs[label]) for at in (0, 1))
        results.append({"work": name, "side": label, "records": material.count, "rounds": rounds,
                        "wall_s": wall, "cpu_us_per_record": cpu / material.count * 1e6})
        print("%-14s %-32s %9.0f records/s %9.1f CPU us a record" %
              (name, label, material.count / wall, cpu / material.count * 1e6))
        sys.stdout.flush()
    for other in results[1:]:
        if results[0]["side"].startswith("refuge"):
            print("%-14s refuge to %s: %.2f x in rate, %.2f x in CPU" %
                  (name, other["side"], other["wall_s"] / results[0]["wall_s"],
                   other["cpu_us_per_record"] / results[0]["cpu_us_per_record"]))
    return results


def main():
    parser = argparse.ArgumentParser(prog="bench_peers", description=__doc__.split("\n")[0])
    parser.add_argument("work", nargs="*", choices=list(WORKS) + [[]], help="default: all")
    parser.add_argument("--count", type=int, default=50000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few records, one round")
    parser.add_argument("--dir", default=os.environ.get("REFUGE_BENCH_DIR", "."))
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    if options.quick:
        options.count, options.rounds = 500, 1
    folder = tempfile.mkdtemp(prefix="bench-peers.", dir=options.dir)
    results = []
    try:
        material = Material(folder, options.count)
        for name in options.work or WORKS:
            results += compare(name, material, options.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as out:
            out.writelines(json.dumps(result) + "\n" for result in results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
