"""faultlib.py - running a program with fault.c loaded, and drawing points to break

A workload is a list of steps, each one run of the program. Clean runs it once and keeps, before each
step, a copy of the folder, the number of operations so far and the model of what is durable. A point
is (step, operation, kind): the copy is put back, that step alone runs with the fault, and the harness
looks at what it acknowledged and at what is left.
"""
import argparse
import collections
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(TOP, "tests")]
sys.dont_write_bytecode = True

import replay  # noqa: E402
import tap  # noqa: E402,F401

STATE = struct.Struct("<Q16QQQ256s")
KILLS = ("kill-before", "kill-after", "kill-mid")
ERRORS = ("eio", "enospc", "short", "eio-ever", "enospc-ever")
CUT = "power-cut"
# Which kinds make sense at which operation; the rest would repeat another point.
ONLY_WRITES = {"kill-mid", "short"}
ROOMY = {"create", "write", "fallocate", "mkdir", "clone", "link"}


def kinds_for(op):
    kinds = ["kill-before", "kill-after", "eio", "eio-ever", CUT]
    if op in ("write", "clone"):
        kinds += ["kill-mid", "short"]
    if op in ROOMY:
        kinds += ["enospc", "enospc-ever"]
    return kinds


class Result:
    def __init__(self, code, out, err, state):
        self.code, self.out, self.err = code, out, err
        self.count, self.fired, self.fired_op, self.fired_path = state


class Bench:
    """A folder of its own with a home in it, the program and the preload library."""

    def __init__(self, build, refuge=None):
        roomy = "/dev/shm" if os.path.isdir("/dev/shm") and \
            shutil.disk_usage("/dev/shm").free > 2 << 30 else None
        self.base = tempfile.mkdtemp(prefix="refuge-fault.", dir=os.environ.get("TMPDIR", roomy))
        self.dir = os.path.join(self.base, "watched")  # what fault.c watches
        self.home = os.path.join(self.dir, "home")
        self.scratch = os.path.join(self.base, "scratch")
        self.journal = os.path.join(self.base, "journal")
        self.state = os.path.join(self.base, "state")
        self.refuge = refuge or os.path.join(build, "bin", "refuge")
        self.preload = os.path.join(build, "bin", "librefuge_fault.so")
        self.mapper = os.path.join(build, "bin", "refuge-mapper")
        for path in (self.dir, self.scratch):
            os.makedirs(path)
        for path in (self.refuge, self.preload):
            if not os.path.exists(path):
                raise SystemExit("no %s: cmake --build --preset %s" % (path, os.path.basename(build)))
        self.more = {}  # of the environment of every program that may be broken
        self.reset_count(0)

    def close(self):
        shutil.rmtree(self.base, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    # ---- the shared counter ----

    def reset_count(self, count):
        with open(self.state, "wb") as file:
            file.write(STATE.pack(count, *([0] * 16), 0, 0, b""))

    def read_state(self):
        with open(self.state, "rb") as file:
            fields = STATE.unpack(file.read(STATE.size))
        op = fields[18]
        return (fields[0], fields[17], replay.OPS[op] if op else "",
                os.path.relpath(os.fsdecode(fields[19].rstrip(b"\0")) or self.dir, self.dir))

    def by_op(self):
        with open(self.state, "rb") as file:
            fields = STATE.unpack(file.read(STATE.size))
        return {name: fields[1 + index] for index, name in enumerate(replay.OPS) if name}

    # ---- running ----

    def environment(self, home, faulty, fault, journal, without):
        env = {key: value for key, value in os.environ.items()
               if not key.startswith(("REFUGE", "LD_", "XDG_", "ASAN"))}
        env.update(REFUGE_HOME=home, HOME=self.base, LC_ALL="C.UTF-8")
        if os.path.exists(self.mapper):
            env["REFUGE_MAPPER"] = self.mapper
        if without:
            env["REFUGE_WITHOUT"] = without
        if faulty:
            env.update(LD_PRELOAD=self.preload, REFUGE_FAULT_DIR=self.dir,
                       REFUGE_FAULT_STATE=self.state)
            if fault:
                env["REFUGE_FAULT"] = fault
            if journal:
                env["REFUGE_FAULT_JOURNAL"] = self.journal
            env.update(self.more)
        return env

    def run(self, *arguments, stdin=b"", home=None, faulty=False, fault=None, journal=False,
            without=None, timeout=120):
        env = self.environment(home or self.home, faulty, fault, journal, without)
        try:
            done = subprocess.run([self.refuge] + list(arguments), input=stdin, env=env,
                                  cwd=self.base, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  timeout=timeout)
            code, out, err = done.returncode, done.stdout, done.stderr
        except subprocess.TimeoutExpired as late:
            code, out, err = None, late.stdout or b"", (late.stderr or b"") + b"\n(hangs)"
        return Result(code, out, err, self.read_state())

    def take_journal(self):
        try:
            with open(self.journal, "rb") as file:
                return file.read()
        except FileNotFoundError:
            return b""

    def drop_journal(self):
        if os.path.exists(self.journal):
            os.unlink(self.journal)

    def restore(self, snapshot):
        shutil.rmtree(self.dir, ignore_errors=True)
        copy_tree(snapshot, self.dir)

    def fresh(self, name="cut"):
        path = os.path.join(self.base, name)
        shutil.rmtree(path, ignore_errors=True)
        return path


def processes_of(base):
    """Processes that were started with this folder in their environment and are still there."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open("/proc/%s/environ" % name, "rb") as file:
                    if os.fsencode(base) in file.read():
                        found.append(int(name))
            except OSError:
                pass
    return found


def left_behind(base, seconds=10):
    """Those that do not end by themselves; zygote and workers must, when their host was killed."""
    deadline = time.monotonic() + seconds
    while processes_of(base) and time.monotonic() < deadline:
        time.sleep(0.05)
    return processes_of(base)


def copy_tree(source, target):
    """Regular files and folders only: sockets of a killed program are not data."""
    os.makedirs(target, exist_ok=True)
    with os.scandir(source) as entries:
        for entry in entries:
            path = os.path.join(target, entry.name)
            if entry.is_dir(follow_symlinks=False):
                copy_tree(entry.path, path)
            elif entry.is_file(follow_symlinks=False):
                shutil.copyfile(entry.path, path)
                os.chmod(path, entry.stat().st_mode & 0o777)


Before = collections.namedtuple("Before", "snapshot count model memory")
Point = collections.namedtuple("Point", "step number op kind variant")


class Clean:
    """The workload once without fault: befores, and the operations of each step."""

    def __init__(self, bench, steps, memory, observe, without=None, volatile=("*-shm",)):
        self.bench, self.steps = bench, steps
        self.befores, self.ops = [], []
        model = replay.Model(bench.dir)
        bench.drop_journal()
        for index, step in enumerate(steps):
            snapshot = os.path.join(bench.base, "before%d" % index)
            copy_tree(bench.dir, snapshot)
            self.befores.append(Before(snapshot, bench.read_state()[0], model.clone(),
                                       memory.clone()))
            result = step.run(bench, journal=True, without=without)
            observe(memory, step, result)
            journal = bench.take_journal()
            bench.drop_journal()
            model.play(journal)
            for path, data in getattr(step, "writes", ()):
                model.adopt(path, data)
            numbers = {record.number: record.op for record in replay.records(journal)}
            first = self.befores[-1].count
            self.ops.append([numbers.get(number, "clone") for number in range(first + 1, result.count + 1)])
        self.count = bench.read_state()[0]
        self.by_op = bench.by_op()
        self.unseen = model.difference(bench.dir, volatile)
        self.memory = memory

    def points(self, variants):
        """Every point there is: each operation, each kind that makes sense there."""
        for step, ops in enumerate(self.ops):
            for index, op in enumerate(ops):
                for kind in kinds_for(op):
                    for variant in range(variants if kind == CUT else 1):
                        yield Point(step, self.befores[step].count + 1 + index, op, kind, variant)


def volatile_fill(rng, killed):
    """Files that hold nothing that cannot be made again, after a cut: damaged or gone. Those written
    through mmap are not in the journal; any sector may be old or new."""
    def head(path, durable):
        kind = rng.choice(("missing", "empty", "zero", "durable", "new", "mixed", "garbage"))
        if kind == "missing":
            return None
        if kind in ("empty", "zero", "garbage"):
            size = 0 if kind == "empty" else len(durable)
            return rng.randbytes(size) if kind == "garbage" else bytes(size)
        new = newest(killed, os.path.basename(path))
        if kind == "durable" or new is None or len(new) != len(durable):
            return durable
        if kind == "new":
            return new
        return b"".join(rng.choice((durable, new))[at:at + replay.SECTOR]
                        for at in range(0, len(new), replay.SECTOR))

    def shm(_, durable):
        kind = rng.choice(("missing", "zero", "garbage"))
        size = len(durable)
        return None if kind == "missing" else bytes(size) if kind == "zero" else rng.randbytes(size)

    return {"head": head, "*-shm": shm}


def newest(tree, name):
    for folder, _, names in os.walk(tree):
        if name in names:
            with open(os.path.join(folder, name), "rb") as file:
                return file.read()
    return None


def draw(points, amount, rng):
    """amount of the points, spread evenly over kinds and then at random."""
    points = list(points)
    if amount is None or amount >= len(points):
        return points
    by_kind = collections.defaultdict(list)
    for point in points:
        by_kind[point.kind].append(point)
    for group in by_kind.values():
        rng.shuffle(group)
    chosen = []
    while len(chosen) < amount:
        for group in by_kind.values():
            if group and len(chosen) < amount:
                chosen.append(group.pop())
    return sorted(chosen)


def options(description, points, sink=None, lives=None):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--build", default=os.path.join(TOP, "build", "release"))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--points", type=int, default=points, help="how many points to draw")
    parser.add_argument("--all", action="store_true", help="every point")
    parser.add_argument("--without", metavar="SAFEGUARD",
                        help="remove a safeguard (preset controls): the harness must then fail")
    parser.add_argument("--kinds", help="only these kinds of fault, separated by commas")
    parser.add_argument("--point", metavar="STEP:NUMBER:KIND:VARIANT", help="only this one point")
    if sink:
        parser.add_argument("--sink", choices=sink, default=sink[0], help="which kind of server")
    if lives is not None:
        parser.add_argument("--lives", type=int, default=lives,
                            help="how many histories, of the seeds from --seed on")
    chosen = parser.parse_args()
    chosen.build = os.path.abspath(chosen.build)
    return chosen


class Clock:
    def __init__(self):
        self.start = time.monotonic()

    def __str__(self):
        return "%.0f s" % (time.monotonic() - self.start)
