#!/usr/bin/env python3
"""memory.py - memory does not grow with the store, a blob or a backlog

Runs the built program over data made to need much memory and reads the peak of each process from
the kernel (wait4). The bounds: an indexer 64 MiB and 96 MiB of the database, other commands far
less. Only meaningful without sanitizers.
"""
import json
import os
import shutil
import sys
import tempfile

import faultlib
from faultlib import tap

INDEXER = 64 + 96  # MiB
SMALL = 64         # MiB, any other command

PLAIN = """return {
    name = "plain", on = { "blob", "file" }, match = { media = "application/json" },
    tables = { plain = { columns = { "title text" } } },
    map = function(blob, emit) emit.plain { title = blob:pick("title") } end,
}
"""


class Home:
    def __init__(self, build, without=None):
        self.folder = tempfile.mkdtemp(prefix="refuge-memory.")
        self.program = os.path.join(build, "bin", "refuge")
        self.env = {key: value for key, value in os.environ.items()
                    if not key.startswith("REFUGE")}
        self.env.update(REFUGE_HOME=os.path.join(self.folder, "home"), LC_ALL="C.UTF-8")
        if without:
            self.env["REFUGE_WITHOUT"] = without
        self.run("init")

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, *arguments, **settings):
        """Peak of a command and its workers in MiB; it must succeed."""
        out = os.open("/dev/null", os.O_WRONLY)
        words = os.open(self.path("words"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        actions = [(os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, words, 2)]
        process = os.posix_spawn(self.program, [self.program, "--quiet"] + list(arguments),
                                 dict(self.env, **settings), file_actions=actions)
        os.close(out)
        os.close(words)
        _, status, usage = os.wait4(process, 0)
        if status != 0:
            with open(self.path("words"), encoding="utf-8", errors="replace") as file:
                raise RuntimeError("%s: status %d: %s" % (" ".join(arguments), status, file.read()))
        return usage.ru_maxrss / 1024

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def lines(path, count):
    with open(path, "w", encoding="utf-8") as file:
        for i in range(count):
            file.write(json.dumps({"n": i, "text": "word%d lorem harbour %d" % (i, i * 7),
                                   "k": i % 13}) + "\n")


def names(path, count):
    """A folder of many names: an empty file, and links to it as many as any file system takes."""
    os.mkdir(path)
    for i in range(count):
        name = os.path.join(path, "a file of the folder %07d" % i)
        if i % 10000 == 0:
            first = name
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600))
        else:
            os.link(first, name)


def backlog_of_large_items(build, count, without=None):
    """Peak of an index run over a backlog of items of 240 KB, each just small enough to be held."""
    home = Home(build, without)
    try:
        os.mkdir(home.path("items"))
        for i in range(count):
            with open(os.path.join(home.path("items"), "%d.json" % i), "w", encoding="utf-8") as file:
                json.dump({"text": ("%d " % i) * (240000 // len("%d " % i)), "title": str(i)}, file)
        mapper = os.path.join(home.env["REFUGE_HOME"], "mappers", "plain.lua")
        with open(mapper, "w", encoding="utf-8") as file:
            file.write(PLAIN)
        home.run("put", home.path("items"))
        return home.run("index", "run", REFUGE_MAPPERS__BUNDLED="false", REFUGE_INDEX__CACHE="8M")
    finally:
        home.close()


def try_control(build, name):
    """Without the pipeline's window the backlog does not fit."""
    with_it = backlog_of_large_items(build, 900)
    peak = backlog_of_large_items(build, 900, name)
    tap.ok(with_it <= 64 + 40 < peak,
           "without %s memory finds %.0f MiB, %.0f with it" % (name, peak, with_it))


def check(home, most, *arguments):
    peak = home.run(*arguments)
    words = " ".join(os.path.basename(word) for word in arguments[:2])
    tap.ok(peak <= most, "%s: %.0f MiB, at most %d" % (words, peak, most))


def main():
    options = faultlib.options(__doc__.split("\n")[0], points=0)
    home = Home(options.build)
    try:
        lines(home.path("lines.jsonl"), 1000000 if options.all else 200000)
        with open(home.path("large.bin"), "wb") as file:
            for i in range(200):
                file.write(bytes([i]) + os.urandom(1 << 16) + bytes(1 << 20))
        check(home, SMALL, "put", home.path("lines.jsonl"))
        check(home, SMALL, "put", home.path("large.bin"))
        many = 1000000 if options.all else 100000
        names(home.path("many"), many)
        check(home, 24 + (many * 60 >> 20), "put", "--dry-run", home.path("many"))
        check(home, INDEXER, "index", "run")
        check(home, INDEXER, "index", "rebuild")
        check(home, INDEXER, "index", "verify")
        check(home, SMALL, "search", "harbour")
        check(home, SMALL, "sql", "select * from record")
        check(home, SMALL, "store", "verify")
        check(home, SMALL, "changes")
    finally:
        home.close()
    peak = backlog_of_large_items(options.build, 1200)
    tap.ok(peak <= 64 + 40, "a backlog of 1200 items of 240 KB: %.0f MiB, at most 104 with a cache of "
           "8 MiB" % peak)
    tap.done()


if __name__ == "__main__":
    sys.exit(main())
