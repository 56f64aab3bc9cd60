#!/usr/bin/env python3
"""crash_sink.py - an index in a server that was interrupted is an index that was not

    tests/fault/crash_sink.py --sink postgresql [--points N | --all] [--seed N]    (--all: 2,000)

A server's state cannot be put back as a folder can, so this drives lives: the workload of
crash_index.py from its beginning to its end, into a schema of its own, and at each step one break:

    kill-before, kill-after, kill-mid   SIGKILL of the indexer around or inside one of its operations
                                        on files of the home, or of its sends to the server
    stop                                the server is killed at such an operation and started again
    answer, request                     the connection is cut: the answer to a round trip is lost after
                                        its work was done, or the request before

In every other life the wall clock jumps at each look, by up to 400 days. After each break the index
runs once more, and then:

    stuck        that run fails
    rows         tests/oracle.py finds other rows; how many are lost or doubled is counted
    digest       an index in SQLite of the same home says something else
    verify       `refuge index verify` finds a difference to a rebuild
    errors       the dead letters are not those of an undisturbed life

A step begins where an undisturbed life is, so its operations have the numbers that they had there. To
add a kind of server: a class like PostgreSQL below, and a line in SERVICES and in tests/run.py.
"""
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import crash_index
import crash_store
import faultlib
import oracle
from crash_index import DONE
from crash_store import Violation, said
from faultlib import tap

sys.path[:0] = [os.path.join(faultlib.TOP, "tests", "services")]
import wire  # noqa: E402

NAME = "served"
CLOCK_SPAN = 400 * 86400
KILLS, STOP, CUTS = ("kill-before", "kill-after", "kill-mid"), "stop", ("answer", "request")
ALL = 2000    # points there are seven thousand of: what --all draws
ENDED = 120  # seconds that a step may take


class PostgreSQL:
    """A server of the harness's own, behind a wire that can be cut."""
    SCRIPT = os.path.join(faultlib.TOP, "tests", "services", "postgres")
    cuts = CUTS

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="rf-pgc-", dir="/tmp")
        os.chmod(self.folder, 0o755)
        self.wire = None
        try:
            self.call("install")
            self.start()
        except RuntimeError:
            self.close()
            raise
        front = os.path.join(self.folder, "w")
        os.mkdir(front)
        self.wire = wire.Wire(front, os.path.join(self.folder, "s", ".s.PGSQL.5432"))

    def call(self, command):
        done = subprocess.run([self.SCRIPT, command, self.folder], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        if done.returncode != 0:
            raise RuntimeError((done.stderr.strip().split("\n") or ["?"])[-1])

    def url(self, life):
        """Where the rows of a life go."""
        return "postgresql://postgres@%s/postgres#life_%d" % (
            os.path.join(self.folder, "w").replace("/", "%2F"), life)

    def start(self):
        self.call("start")

    def kill(self):
        self.call("kill")

    def close(self):
        if self.wire:
            self.wire.close()
        self.call("stop")
        shutil.rmtree(self.folder, ignore_errors=True)


SERVICES = {"postgresql": PostgreSQL}

Break = collections.namedtuple("Break", "step kind number")


class Answers:
    """What `refuge sql` says, in the form of a database of Python's."""

    def __init__(self, bench, index):
        self.bench, self.index = bench, index

    def execute(self, query):
        done = self.bench.run("sql", "--index", self.index, "--json", query)
        if done.code != 0:
            raise RuntimeError("sql: " + done.err.decode("utf-8", "replace"))
        lines = [json.loads(line) for line in done.out.decode().splitlines()]
        return [tuple(line.values()) for line in lines if "summary" not in line]


class Sink:
    """The harness over one build and one kind of server."""

    def __init__(self, build, service, without=None):
        self.bench = faultlib.Bench(build)
        self.bench.known, self.bench.refs = {}, {}
        self.bench.more = {"REFUGE_FAULT_SOCKETS": "1"}
        self.service, self.without = service, without
        self.lives = 0
        self.steps = crash_index.workload(self.bench, NAME, "index", "create", NAME, "--sink", "")
        self.counts, self.trips, self.letters = [], [], []  # of each step, undisturbed
        self.lost = self.doubled = 0
        self.problems = []
        self.live({}, self.observe)

    def close(self):
        self.bench.close()

    # ---- one life ----

    def live(self, breaks, observe):
        """All steps; breaks: {step: Break}. observe(step number, Break or None, Result, fired)."""
        bench, self.lives = self.bench, self.lives + 1
        shutil.rmtree(bench.dir, ignore_errors=True)
        os.makedirs(bench.dir)
        url = self.service.url(self.lives)
        try:
            for index, step in enumerate(self.steps):
                if step.name == "create":
                    step.arguments = step.arguments[:-1] + (url,)
                result, fired = self.do(step, breaks.get(index), random.Random(self.lives))
                for ref, path in crash_store.acknowledged(result):
                    bench.known[path] = ref
                if observe(index, breaks.get(index), result, fired) is False:
                    break
        finally:
            self.disarm()
            bench.run("index", "drop", NAME)

    def disarm(self):
        """No cut from now on, and the server in reach."""
        if self.service.cuts:
            self.service.wire.disarm()
            time.sleep(max(0.0, self.service.wire.until - time.monotonic()))

    def do(self, step, broken, rng):
        """The step, and whether the break was reached."""
        bench = self.bench
        bench.reset_count(0)
        if broken and broken.kind in self.service.cuts:
            self.service.wire.arm(broken.kind, at=broken.number, dark=rng.choice((0, 0, 0.3)))
            result = step.run(bench, without=self.without)
            fired = bool(self.service.wire.fired)
            self.disarm()
            return result, fired
        self.disarm()
        if not broken:
            return step.run(bench, without=self.without), False
        fault = "%s:%d" % (broken.kind, broken.number)
        if broken.kind == STOP:
            result = self.run_over_a_crash(step, fault, rng)
        else:
            result = step.run(bench, fault=fault, without=self.without)
        return result, bool(result.fired)

    def run_over_a_crash(self, step, fault, rng):
        """The program stops at the operation; then the server is killed."""
        bench = self.bench
        env = bench.environment(bench.home, True, fault, False, self.without)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen([bench.refuge] + list(step.arguments), env=env, cwd=bench.base,
                                       stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            deadline = time.monotonic() + ENDED
            while process.poll() is None and time.monotonic() < deadline:
                if state_of(process.pid) == "T":
                    self.service.kill()
                    early = rng.random() < 0.5
                    if not early:
                        self.service.start()
                    process.send_signal(signal.SIGCONT)
                    if early:
                        self.service.start()
                time.sleep(0.005)
            if process.poll() is None:
                process.kill()
                process.wait()
                process.returncode = None
            for file in (out, err):
                file.seek(0)
            return faultlib.Result(process.returncode, out.read(), err.read(), bench.read_state())

    # ---- looking ----

    def observe(self, index, _, result, __):
        """Of the undisturbed life."""
        step = self.steps[index]
        if result.code not in step.want:
            self.problems.append(said("step " + step.name, result))
        self.counts.append(result.count if step.breakable else 0)
        self.trips.append(self.service.wire.trips if step.breakable and self.service.cuts else 0)
        self.letters.append(self.letters_now() if len(self.letters) > 1 else [])
        if step.breakable and step.name != "retry":
            self.problems += ["%s: %s: %s" % (step.name, one.kind, one.words)
                              for one in self.check(index, again=False)]

    def letters_now(self):
        try:
            return ["%s %s %s" % row for row in Answers(self.bench, NAME).execute(
                "SELECT item, mapper, class FROM refuge_errors ORDER BY item, mapper")]
        except RuntimeError:
            return []

    def settled(self, step):
        while self.steps[step].arguments[:2] not in (("index", "run"), ("index", "rebuild")):
            step += 1
        return self.letters[step]

    def check(self, step, again=True):
        bench, found = self.bench, []
        if again:
            result = bench.run("index", "run", NAME)
            if result.code not in DONE:
                return [Violation("stuck", said("index run", result))]
        if self.steps[step].name == "retry":  # a retry that was lost leaves them as they were
            bench.run("index", "retry", "--all", NAME)
            bench.run("index", "run", NAME)
        result = bench.run("index", "verify", NAME)
        if result.code != 0:
            found.append(Violation("verify", said("index verify", result) +
                                   result.out.decode("utf-8", "replace")[:300]))
        result = bench.run("index", "run", "main")
        digests = [bench.run("index", "digest", name).out.split()[:1] for name in (NAME, "main")]
        if result.code not in DONE or digests[0] != digests[1] or not digests[0]:
            found.append(Violation("digest", "%r is not %r" % tuple(digests)))
        expected = oracle.Expected(list(oracle.items_of(bench.refuge, bench.home)))
        answers = Answers(bench, NAME)
        for problem in oracle.compare_records(answers, expected)[:3]:
            found.append(Violation("rows", problem))
        lost, doubled = oracle.lost_and_doubled(answers, expected)
        self.lost, self.doubled = self.lost + lost, self.doubled + doubled
        if again and self.letters_now() != self.settled(step):
            found.append(Violation("errors", "dead letters %r, want %r" %
                                   (self.letters_now(), self.settled(step))))
        return found

    # ---- points ----

    def points(self):
        for index, step in enumerate(self.steps):
            for number in range(1, self.counts[index] + 1):
                for kind in KILLS + (STOP,):
                    yield Break(index, kind, number)
            for number in range(1, self.trips[index] + 1):
                for kind in self.service.cuts:
                    yield Break(index, kind, number)

    def sweep(self, points, stop_after=None):
        """Lives until all points were tried: ({kind: tried}, {kind of operation: tried}, violations)."""
        waiting = collections.defaultdict(list)
        tried, by_op, violations = collections.Counter(), collections.Counter(), []
        for point in points:
            waiting[point.step].append(point)

        def look(index, broken, result, fired):
            if not broken or not fired:
                return None
            tried[broken.kind] += 1
            by_op[result.fired_op or "round trip"] += 1
            found = self.check(index)
            if result.code is None:
                found.append(Violation("stuck", "the step hangs after the break"))
            elif broken.kind not in KILLS and result.code not in self.steps[index].want + (75,):
                found.append(Violation("broken", said(self.steps[index].name, result)))
            violations.extend((broken, violation) for violation in found)
            return False if found else None

        while any(waiting.values()) and not (stop_after and len(violations) >= stop_after):
            if self.lives % 2:
                self.bench.more["REFUGE_FAULT_CLOCK"] = str(CLOCK_SPAN)
            else:
                self.bench.more.pop("REFUGE_FAULT_CLOCK", None)
            self.live({step: points.pop() for step, points in waiting.items() if points}, look)
        return tried, by_op, violations


def state_of(pid):
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def draw(points, amount, rng):
    """Of every five, three kills, one death of the server and one cut."""
    points = list(points)
    rng.shuffle(points)
    groups = [[point for point in points if point.kind in kinds]
              for kinds in (KILLS, (STOP,), CUTS)]
    shares = (amount - 2 * (amount // 5), amount // 5, amount // 5)
    return [point for group, share in zip(groups, shares) for point in group[:share]]


def print_result(harness, options, total, tried, by_op, violations):
    for kind in KILLS + (STOP,) + CUTS:
        details = ["%s: %s (step %s, operation %d)\n    again: tests/fault/crash_sink.py --sink %s "
                   "--seed %d --point %d:%d:%s" %
                   (violation.kind, violation.words, harness.steps[point.step].name, point.number,
                    options.sink, options.seed, point.step, point.number, point.kind)
                   for point, violation in violations if point.kind == kind][:8]
        if tried[kind]:
            tap.ok(not details, "%s: %d points, %d violations" %
                   (kind, tried[kind], sum(point.kind == kind for point, _ in violations)), details)
    tap.ok(harness.lost == 0 and harness.doubled == 0, "%d rows lost, %d doubled" %
           (harness.lost, harness.doubled))
    tap.remark("sink %s: %d of %d points tried in %d lives, %d violations, %d lost, %d doubled, seed "
               "%d" % (options.sink, sum(tried.values()), total, harness.lives, len(violations),
                       harness.lost, harness.doubled, options.seed))
    tap.remark("sink %s: by operation: %s" %
               (options.sink, ", ".join("%s %d" % pair for pair in by_op.most_common())))


def choose(harness, options):
    rng = random.Random(options.seed)
    points = list(harness.points())
    if options.kinds:
        points = [point for point in points if point.kind in options.kinds.split(",")]
        rng.shuffle(points)
        return points[:ALL if options.all else options.points], len(points)
    if options.point:
        step, number, kind = options.point.split(":")[:3]
        return [Break(int(step), kind, int(number))], len(points)
    return draw(points, ALL if options.all else options.points, rng), len(points)


def main():
    options = faultlib.options(__doc__.split("\n", maxsplit=1)[0], points=40,
                               sink=sorted(SERVICES))
    tap.note("seed %d" % options.seed)
    try:
        service = SERVICES[options.sink]()
    except RuntimeError as error:
        required = options.sink in os.environ.get("REFUGE_TEST_REQUIRE", "").split()
        if required:
            tap.ok(False, "a server for sink %s: %s" % (options.sink, error))
            tap.done()
        print("1..0 # SKIP %s" % error)
        return
    harness = None
    try:
        harness = Sink(options.build, service, options.without)
        tap.ok(not harness.problems, "the workload runs clean, and as in SQLite", harness.problems)
        points, total = choose(harness, options)
        tried, by_op, violations = harness.sweep(points)
        tap.ok(sum(tried.values()) > 0, "points were reached")
        left = faultlib.left_behind(harness.bench.base)
        tap.ok(not left, "no mapper process outlives a killed host", left)
        print_result(harness, options, total, tried, by_op, violations)
    finally:
        if harness:
            harness.close()
        service.close()
    tap.done()


if __name__ == "__main__":
    sys.exit(main())
