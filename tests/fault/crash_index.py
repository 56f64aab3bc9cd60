#!/usr/bin/env python3
"""crash_index.py - an index that was interrupted is an index that was not

Drives `refuge index run` over a workload (first fill, additions, deletes, dead letters, parts, a
changed mapper, a rebuild) and breaks it at file operations on the SQLite file, its -wal and -shm, and
everything else in the home, in every way crash_store.py knows. Then it runs once more and checks:

    stuck        the run after the crash fails
    rows         tests/oracle.py maps the store's files itself and finds other rows
    verify       `refuge index verify` finds a difference to a rebuild
    sqlite       PRAGMA integrity_check finds damage
    errors       the dead letters are not those of an undisturbed run
"""
import os
import random
import shutil
import sqlite3
import sys
import tempfile

import crash_store
import faultlib
import oracle
from crash_store import Violation, said
from faultlib import tap

DONE = (0, 3)  # 3: done, some items were set aside


class Memory:
    """Nothing is acknowledged by an index but what it holds."""

    def clone(self):
        return self


class Step:
    puts = deletes = ()

    def __init__(self, name, *arguments, breakable=False, want=DONE):
        self.name, self.arguments, self.breakable, self.want = name, arguments, breakable, want

    def run(self, bench, **how):
        arguments = self.arguments
        if arguments[0] == "delete":
            arguments = [bench.known.get(word, word) for word in arguments]
        return bench.run(*arguments, faulty=True, **how)


class Write:
    """The harness changes a file of the home, as a person would."""
    puts = deletes = arguments = ()
    breakable, want = False, DONE

    def __init__(self, name, path, data):
        self.name, self.path, self.data = name, path, data

    @property
    def writes(self):
        return [(self.path, self.data)]

    def run(self, bench, **_):
        with open(self.path, "wb") as file:
            file.write(self.data)
        return faultlib.Result(0, b"", b"", bench.read_state())


def mapper(version):
    """A mapper with rows, parts, dead letters and a need; each version maps differently."""
    with open(os.path.join(faultlib.HERE, "history.lua"), "rb") as file:
        return file.read().replace(b"VERSION = 1", b"VERSION = %d" % version)


def material(base):
    folder = os.path.join(base, "material")
    os.makedirs(folder)
    rng = random.Random(11)
    words = ["harbour", "lantern", "meadow", "north", "orchard", "pebble", "quarry", "river"]

    def text():
        return " ".join(rng.choice(words) for _ in range(rng.randrange(2, 9)))

    files = {
        "one.json": '{"title": "%s", "count": 7, "nested": {"a": [1, 2.5, null, true]}}' % text(),
        "array.json": "[%s]" % ",\n ".join('{"id": %d, "text": "%s"}' % (index, text())
                                          for index in range(40)),
        "lines.jsonl": "".join('{"id": %d, "text": "%s"}\n' % (index, text())
                               for index in range(30)),
        "table.csv": "name,words\r\n" + "".join('%d,"%s, %s"\r\n' % (index, text(), text())
                                               for index in range(30)),
        "broken.json": '{"this is": no JSON}',
        "more.json": "[%s]" % ", ".join('{"id": %d, "text": "%s"}' % (index + 20, text())
                                       for index in range(40)),
        "late.csv": "a;b\n1;2\n",
        "big.json": "[%s]" % ",".join('{"n": %d, "t": "%s"}' % (index, text() * 20)
                                     for index in range(300)),
    }
    for name, body in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8", newline="") as file:
            file.write(body)
        os.utime(os.path.join(folder, name), (1600000000, 1600000000))
    return folder


def workload(bench, name="main", *create):
    """The steps for the index of this name; create: the arguments that make it, where it is not the
    one that a home has by itself."""
    folder = material(bench.base)

    def put(name, *files):
        return Step(name, "put", *[os.path.join(folder, file) for file in files], want=(0,))

    def run(what, *more):
        return Step(what, "index", *(more or ("run",)), name, breakable=True)

    mapper_path = os.path.join(bench.home, "mappers", "history.lua")
    return [
        Step("init", "init"),
        *([Step("create", *create)] if create else []),
        put("first", "one.json", "array.json", "lines.jsonl", "table.csv", "broken.json"),
        run("fill"),
        put("second", "more.json", "late.csv"),
        Step("delete", "delete", os.path.join(folder, "lines.jsonl")),
        run("add"),
        Write("mapper", mapper_path, mapper(1)),
        run("new-mapper"),
        put("third", "big.json"),
        Write("mapper-2", mapper_path, mapper(2)),
        run("changed-mapper"),
        Step("retry", "index", "retry", "--all", name, breakable=True),
        run("retried"),
        run("rebuild", "rebuild"),
    ]


class Index:
    """The harness over one build; controls.py uses it too."""

    def __init__(self, build, without=None):
        self.bench = faultlib.Bench(build)
        self.bench.known, self.bench.refs = {}, {}
        self.without = without
        self.problems = []
        self.steps = workload(self.bench)
        self.letters = []  # after each step, the dead letters as text
        self.clean = faultlib.Clean(self.bench, self.steps, Memory(), self.observe, without)
        self.clean.ops = [ops if step.breakable else []
                          for step, ops in zip(self.steps, self.clean.ops)]

    def close(self):
        self.bench.close()

    def observe(self, _, step, result):
        if result.code not in step.want:
            self.problems.append(said("step " + step.name, result))
        for ref, path in crash_store.acknowledged(result):
            self.bench.known[path] = ref
        self.letters.append(letters(self.bench.home))

    def settled(self, step):
        """The dead letters an undisturbed workload has after this step and a run."""
        while self.steps[step].arguments[:2] not in (("index", "run"), ("index", "rebuild")):
            step += 1
        return self.letters[step]

    def break_at(self, point, rng):
        before, step, bench = self.clean.befores[point.step], self.steps[point.step], self.bench
        bench.restore(before.snapshot)
        bench.reset_count(before.count)
        bench.drop_journal()
        cut = point.kind == faultlib.CUT
        journal = cut or (point.kind in faultlib.ERRORS and point.number % 2 == 0)
        result = step.run(bench, fault="%s:%d" % ("kill-before" if cut else point.kind, point.number),
                          journal=journal, without=self.without)
        if not result.fired:
            return None
        if not journal:
            return bench.home, result
        model = before.model.clone()
        model.play(bench.take_journal())
        target = bench.fresh()
        model.cut(rng, target, faultlib.volatile_fill(rng, bench.dir))
        return os.path.join(target, "home"), result

    def check(self, home, step):
        bench, found = self.bench, []
        again = bench.run("index", "run", home=home)
        if again.code not in DONE:
            return [Violation("stuck", said("index run", again))]
        if self.steps[step].name == "retry":  # a retry that was lost leaves them as they were
            bench.run("index", "retry", "--all", home=home)
            bench.run("index", "run", home=home)
        verify = bench.run("index", "verify", home=home)
        if verify.code != 0:
            found.append(Violation("verify", said("index verify", verify) +
                                   verify.out.decode("utf-8", "replace")[:300]))
        database = os.path.join(home, "index", "main.db")
        for problem in oracle.compare_home(home, bench.refuge)[:3]:
            found.append(Violation("rows", problem))
        connection = sqlite3.connect(database)
        answer = connection.execute("PRAGMA integrity_check").fetchall()
        connection.close()
        if answer != [("ok",)]:
            found.append(Violation("sqlite", repr(answer[:3])))
        want = self.settled(step)
        if letters(home) != want:
            found.append(Violation("errors", "dead letters %r, want %r" % (letters(home), want)))
        return found

    def try_point(self, point, seed):
        rng = random.Random("%d %r" % (seed, tuple(point)))
        broken = self.break_at(point, rng)
        if broken is None:
            return None
        home, result = broken
        if result.code is None:
            return [Violation("stuck", "%s hangs after the fault" % self.steps[point.step].name)]
        if point.kind in faultlib.ERRORS and result.code < 0:
            return [Violation("crash", "%s ends by signal %d on an error" %
                              (self.steps[point.step].name, -result.code))]
        return self.check(home, point.step)


def letters(home):
    """Dead letters of the live lane as "item mapper class". Of a copy: even a reader makes files."""
    path = os.path.join(home, "index", "main.db")
    if not os.path.exists(path):
        return []
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.dirname(home))) as copy:
        for suffix in ("", "-wal"):
            if os.path.exists(path + suffix):
                shutil.copyfile(path + suffix, os.path.join(copy, "main.db" + suffix))
        connection = sqlite3.connect(os.path.join(copy, "main.db"))
        try:
            return ["%s %s %s" % row for row in connection.execute(
                "SELECT item, mapper, class FROM refuge_errors ORDER BY item, mapper")]
        except sqlite3.OperationalError:
            return []
        finally:
            connection.close()


def main():
    options = faultlib.options(__doc__.split("\n")[0], points=250)
    tap.note("seed %d" % options.seed)
    harness = Index(options.build, options.without)
    try:
        tap.ok(not harness.problems, "the workload runs clean", harness.problems)
        tap.ok(not harness.clean.unseen, "the journal tells every byte of the folder",
               harness.clean.unseen[:10])
        found = harness.check(harness.bench.home, len(harness.steps) - 1)
        tap.ok(not found, "nothing is wrong without a fault",
               ["%s: %s" % (one.kind, one.words) for one in found[:10]])
        points, total = crash_store.choose(harness, options, random.Random(options.seed))
        tried, by_op, violations = crash_store.sweep(harness, points, options.seed)
        tap.ok(sum(tried.values()) > 0, "points were reached")
        left = faultlib.left_behind(harness.bench.base)
        tap.ok(not left, "no mapper process outlives a killed host", left)
        crash_store.print_result("index", "tests/fault/crash_index.py", options, total, tried, by_op,
                                 violations, harness)
    finally:
        harness.close()
    tap.done()


if __name__ == "__main__":
    sys.exit(main())
