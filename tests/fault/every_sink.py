#!/usr/bin/env python3
"""every_sink.py - one store, an index in every kind of sink: the same rows everywhere

    tests/fault/every_sink.py [--count N | --all] [--seed N]    (--all: 100,000 files)

Files drawn from the seed, and those of iso-codes when they are there, are indexed in SQLite and in each
server that the environment names. Every index is filled while its runs are killed again and again, then
files are deleted, others come, a mapper is changed, and it is brought up to date in the same way. Each
time all digests must be one, tests/oracle.py must find the rows that it makes itself, and each server,
asked by its own client, must count as many rows as SQLite: fewer are lost, more are doubled.
"""
import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request

import faultlib
from faultlib import tap

SAMPLES = "/usr/share/iso-codes/json"
SERVERS = (("postgresql", "REFUGE_TEST_POSTGRESQL"),
           ("elasticsearch", "REFUGE_TEST_ELASTICSEARCH"), ("opensearch", "REFUGE_TEST_OPENSEARCH"))
WORDS = "amber birch cedar delta ember frost grove heath iris juniper kelp larch moss".split()
KILLS = 6  # runs of each index that are killed, of each of the two lives
MAPPER = """
return {
    name = "visits",
    version = "%d",
    on = { "file" },
    match = { media = { "application/json" } },
    tables = { visits = { columns = { "number int", "place text search facet", "share float" } } },
    map = function(blob, emit)
        local item = blob:json()
        if item.fails then error("number " .. item.number .. " is not to be mapped") end
        if item.place then
            emit.visits { number = item.number * %d, place = item.place, share = item.share }
        end
    end,
}
"""


class Home:
    def __init__(self, build, seed):
        roomy = "/dev/shm" if os.path.isdir("/dev/shm") and not os.environ.get("TMPDIR") else None
        self.base = tempfile.mkdtemp(prefix="refuge-every.", dir=roomy)
        self.refuge = os.path.join(build, "bin", "refuge")
        self.home = os.path.join(self.base, "home")
        self.random = random.Random(seed)
        self.env = {key: value for key, value in os.environ.items()
                    if not key.startswith(("REFUGE", "XDG_"))}
        self.env.update(REFUGE_HOME=self.home, LC_ALL="C.UTF-8",
                        REFUGE_MAPPER=os.path.join(build, "bin", "refuge-mapper"))
        self.indexes, self.serial = [("main", None)], 0
        self.kills, self.files = 0, {}
        self.run("init")
        self.write_mapper(1)

    def start(self, *arguments):
        return subprocess.Popen([self.refuge, *arguments], env=self.env, cwd=self.base,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, start_new_session=True)

    def run(self, *arguments, good=(0,)):
        process = self.start(*arguments)
        out = process.communicate()[0].decode("utf-8", "replace")
        if process.returncode not in good:
            raise RuntimeError("%s: status %d: %s" % (" ".join(arguments), process.returncode,
                                                      out[-2000:]))
        return out

    def write_mapper(self, version):
        path = os.path.join(self.home, "mappers", "visits.lua")
        with open(path, "w", encoding="utf-8") as file:
            file.write(MAPPER % (version, version))

    def put(self, count):
        """So many files in folders of a thousand; the blobref of each and whether it makes a row."""
        folder = os.path.join(self.base, "in%d" % self.serial)
        for n in range(count):
            number = self.serial
            self.serial += 1
            inside = os.path.join(folder, "%d" % (n // 1000))
            if n % 1000 == 0:
                os.makedirs(inside)
            item = {"number": number, "place": " ".join(self.random.choices(WORDS, k=3)),
                    "share": self.random.random(), "tags": self.random.choices(WORDS, k=2)}
            if number % 97 == 0:
                item["fails"] = True
            text = json.dumps(item)
            if number % 41 == 0:  # parts, some of them in several files
                text = "".join(json.dumps({"number": number // 3 * 3, "place": WORDS[k]}) + "\n"
                               for k in range(number % 4 + 1))
            with open(os.path.join(inside, "%d.json%s" % (number, "l" if number % 41 == 0 else "")),
                      "w", encoding="utf-8") as file:
                file.write(text)
        put = self.run("put", folder)
        shutil.rmtree(folder)
        made = []
        for line in (line for line in put.splitlines() if line.startswith("sha256-")):
            ref, path = line.split(None, 1)
            number = int(os.path.basename(path).split(".")[0])
            made.append((ref, number % 97 != 0 and number % 41 != 0))
        self.files.update(made)
        return [ref for ref, _ in made]

    def create(self):
        for name, variable in SERVERS:
            url = os.environ.get(variable)
            if not url:
                tap.note("%s names no server" % variable)
                continue
            place = "every_%d_%s" % (os.getpid(), name)
            sink = "%s#%s" % (url, place) if name == "postgresql" else "%s+%s#%s" % (name, url, place)
            self.run("index", "create", name, "--sink", sink)
            self.indexes.append((name, (url, place)))

    def bring_up(self, name, whole):
        """Run an index, killed at KILLS drawn times. whole: seconds that a run is thought to take.
        How long the runs took."""
        started = time.monotonic()
        for _ in range(KILLS):
            process = self.start("index", "run", name)
            try:
                process.communicate(timeout=self.random.random() * max(whole, 1) / KILLS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                self.kills += 1
        self.run("index", "run", "--wait", "60", name, good=(0, 3))
        return time.monotonic() - started

    def oracle(self):
        done = subprocess.run([sys.executable, os.path.join(faultlib.TOP, "tests", "oracle.py"),
                               self.home, "--refuge", self.refuge, "--log"], env=self.env,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode == 0, done.stdout.strip().splitlines()[-20:]

    def rows(self, name, where, table):
        """What the index's own client counts."""
        if name == "main":
            return int(self.run("sql", "--csv", "SELECT count(*) FROM %s" % table).split()[1])
        url, place = where
        if name == "postgresql":
            return int(subprocess.run(["psql", url, "-Atc",
                                       "SELECT count(*) FROM %s.%s" % (place, table)],
                                      stdout=subprocess.PIPE, check=True).stdout)
        with urllib.request.urlopen("%s/%s-%s/_count" % (url, place, table)) as answer:
            return json.load(answer)["count"]

    def close(self):
        for name, _ in self.indexes[1:]:
            self.run("index", "drop", "-q", "--wait", "60", name, good=range(256))
        shutil.rmtree(self.base, ignore_errors=True)


def look(home, when):
    """All say the same, and what the oracle says. How many rows are lost and doubled."""
    want, lost, doubled = home.run("index", "digest", "main").split()[0], 0, 0
    agrees, words = home.oracle()
    made = int(home.run("sql", "--csv", "SELECT count(*) FROM visits WHERE share > -1").split()[1])
    tap.ok(made == sum(home.files.values()), "%s, every file has its row" % when,
           "%d rows, want %d" % (made, sum(home.files.values())))
    tap.ok(agrees, "%s, SQLite has the rows of the oracle" % when, "\n".join(words))
    for name, where in home.indexes:
        got = home.run("index", "digest", name).split()[0]
        tap.ok(got == want, "%s, %s says the same" % (when, name),
               "" if got == want else home.run("index", "verify", name, good=range(256))[-2000:])
        for table in ("record", "visits"):
            more = home.rows(name, where, table) - home.rows("main", None, table)
            lost, doubled = lost + max(-more, 0), doubled + max(more, 0)
    return lost, doubled


def live(home, count):
    refs = home.put(count)
    if os.path.isdir(SAMPLES):
        home.run("put", "-q", "--match", "iso_3166-1.json", "--match", "iso_15924.json", SAMPLES)
    home.create()
    whole = 1 + count / 3000
    for name, _ in home.indexes:
        took = home.bring_up(name, whole)
        tap.note("%s: filled in %.1f s" % (name, took))
    lost, doubled = look(home, "at first")
    gone = home.random.sample(refs, len(refs) // 20)
    for at in range(0, len(gone), 500):
        home.run("delete", "-q", "--content", *gone[at:at + 500])
    for ref in gone:
        del home.files[ref]
    home.put(count // 20)
    home.write_mapper(2)
    for name, _ in home.indexes:
        took = home.bring_up(name, whole)
        tap.note("%s: brought up in %.1f s" % (name, took))
    more = look(home, "after deletes and a new version")
    want = home.run("index", "digest", "main")
    with sqlite3.connect(os.path.join(home.home, "index", "main.db")) as database:
        database.execute("UPDATE visits SET place = 'nowhere' WHERE number ="
                         " (SELECT max(number) FROM visits)")
    tap.ok(home.run("index", "digest", "main") != want, "a changed cell is another digest")
    return lost + more[0], doubled + more[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=os.path.join(faultlib.TOP, "build", "release"))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--count", type=int, default=1000, help="files")
    parser.add_argument("--all", action="store_true", help="100,000 files")
    options = parser.parse_args()
    count = 100000 if options.all else options.count
    tap.note("seed %d" % options.seed)
    home = Home(os.path.abspath(options.build), options.seed)
    try:
        lost, doubled = live(home, count)
        tap.ok(lost + doubled == 0, "no row is lost or doubled in any sink",
               "%d lost, %d doubled" % (lost, doubled))
        tap.remark("every_sink: %d files, %d sinks, %d kills, %d lost, %d doubled, seed %d" %
                   (home.serial, len(home.indexes), home.kills, lost, doubled, options.seed))
    finally:
        home.close()
    tap.done()


if __name__ == "__main__":
    main()
