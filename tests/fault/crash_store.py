#!/usr/bin/env python3
"""crash_store.py - no acknowledged blob is lost by a kill, a power cut, a broken or a full disk

Drives the built program over a workload of puts (bare, files, large, many at once, duplicates) and
deletes, breaks it at every file operation (or a draw of them) in every way, starts it again and checks,
by this file's own record of what was acknowledged:

    lost         an acknowledged blob cannot be read, or reads as other bytes
    back         an acknowledged delete is undone
    queue        the change queue has a gap, or disagrees with the list of blobs
    invented     a blob is there that nobody put
    verify       `refuge store verify` finds damage
    stuck        the store does not open, or does not take another blob

Between the fault and the check the folder is what the kernel has (kill, errors) or one of the outcomes
replay.py makes of a power cut. Errors are followed by a power cut in every second point.
"""
import collections
import hashlib
import json
import os
import random
import sys

import faultlib
from faultlib import tap

MIB = 1 << 20


def ref_of(data):
    return "sha256-" + hashlib.sha256(data).hexdigest()


class Memory:
    """What the harness knows: per ref its bytes, and whether it is there ("yes", "no", "maybe")."""

    def __init__(self):
        self.content = {}  # ref -> (bytes, is it a file blob)
        self.there = {}
        self.material = set()  # refs of contents and chunks that may be there as parts

    def clone(self):
        other = Memory()
        other.content, other.there = dict(self.content), dict(self.there)
        other.material = set(self.material)
        return other


class Step:
    def __init__(self, name, arguments, stdin=b"", puts=(), deletes=()):
        self.name, self.arguments, self.stdin = name, arguments, stdin
        self.puts = puts        # [(path or "-", bytes)]
        self.deletes = deletes  # refs, or names resolved when the step runs

    def run(self, bench, **how):
        arguments = self.arguments
        if self.deletes:
            arguments = [bench.known.get(word, word) for word in arguments]
        return bench.run(*arguments, stdin=self.stdin, faulty=True, **how)


def acknowledged(result):
    """Lines "ref  path" of stdout that are whole."""
    text = result.out.decode("utf-8", "replace")
    lines = text.split("\n")[:-1]
    return [line.partition("  ")[::2] for line in lines if line.startswith("sha256-")]


def observe(memory, step, result, bench, trusted=True):
    """Record what the step acknowledged; what it may have done without saying is "maybe"."""
    contents = dict(step.puts)
    for ref, word in acknowledged(result):
        if step.puts:
            is_file = word != "-"
            data = contents.get(word)
            if data is None:
                continue
            memory.content[ref] = (data, is_file)
            memory.there[ref] = "yes"
            if trusted:
                bench.known.setdefault(word if is_file else step.name, ref)
                bench.refs[(step.name, word)] = ref
    said = {ref for ref, _ in acknowledged(result)} if step.puts else set()
    for word, data in step.puts:
        memory.material.add(ref_of(data))
        ref = bench.refs.get((step.name, word))
        if ref is None or ref in said:
            continue
        memory.content.setdefault(ref, (data, word != "-"))
        if memory.there.get(ref) != "yes":
            memory.there[ref] = "maybe"
    for word in step.deletes:
        ref = bench.known[word]
        done = result.code == 0 or any(line[0] == ref for line in acknowledged(result))
        memory.there[ref] = "no" if done else "maybe"


class Violation:
    def __init__(self, kind, words):
        self.kind, self.words = kind, words


def material(base):
    """Files of the workload: deterministic, of all sizes that are treated differently."""
    rng = random.Random(7)
    sizes = {"tiny.json": 40, "page.txt": 4096, "odd.bin": 70001, "inline.bin": MIB,
             "large.bin": MIB + 1, "chunked.bin": 5 * MIB + 12345}
    folder = os.path.join(base, "material")
    os.makedirs(os.path.join(folder, "many"))
    files = {}
    for name, size in sizes.items():
        files[name] = rng.randbytes(size)
    for index in range(12):
        files["many/%02d.json" % index] = b'{"number": %d, "words": "%s"}\n' % (
            index, rng.randbytes(20 * (index + 1)).hex().encode())
    for name, data in files.items():
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(data)
        os.utime(path, (1600000000, 1600000000))
    return folder, files


def workload(base):
    folder, files = material(base)

    def path(name):
        return os.path.join(folder, name)

    def put(step, *names):
        return Step(step, ["put"] + [path(name) for name in names],
                    puts=[(path(name), files[name]) for name in names])

    def bare(step, data):
        return Step(step, ["put", "-"], data, puts=[("-", data)])

    rng = random.Random(8)
    first, big = b"a bare blob\n", rng.randbytes(3 * MIB // 2)
    many = sorted(name for name in files if name.startswith("many/"))
    return [
        Step("init", ["init"]),
        bare("bare", first),
        put("file", "tiny.json", "page.txt"),
        bare("bare-large", big),
        bare("bare-again", first),
        Step("put-folder", ["put", path("many")],
             puts=[(path(name), files[name]) for name in many]),
        put("file-large", "large.bin", "inline.bin"),
        Step("delete-bare", ["delete", "bare"], deletes=["bare"]),
        put("duplicate", "tiny.json", "large.bin"),
        Step("delete-large", ["delete", "bare-large"], deletes=["bare-large"]),
        put("file-chunked", "chunked.bin"),
        bare("lift", files["page.txt"]),
        bare("bare-back", first),
        Step("delete-file", ["delete", path("tiny.json")], deletes=[path("tiny.json")]),
        Step("repair", ["store", "verify", "--repair"]),
        put("last", "odd.bin"),
    ]


class Store:
    """The harness over one build; controls.py uses it too."""

    def __init__(self, build, without=None):
        self.bench = faultlib.Bench(build)
        self.bench.known, self.bench.refs = {}, {}
        self.without = without
        self.steps = workload(self.bench.base)
        self.problems = []
        self.clean = faultlib.Clean(self.bench, self.steps, Memory(), self.observe_clean, without)

    def close(self):
        self.bench.close()

    def observe_clean(self, memory, step, result):
        if result.code != 0:
            self.problems.append("step %s: status %s: %s" %
                                 (step.name, result.code, result.err.decode(errors="replace")))
        observe(memory, step, result, self.bench)
        want = len(step.puts)
        if len(acknowledged(result)) < want:
            self.problems.append("step %s acknowledged %d of %d" %
                                 (step.name, len(acknowledged(result)), want))

    # ---- one point ----

    def break_at(self, point, rng):
        """Run the step with the fault; the home to look at, and what is known then. None: the
        operation was not reached this time."""
        before, step, bench = self.clean.befores[point.step], self.steps[point.step], self.bench
        bench.restore(before.snapshot)
        bench.reset_count(before.count)
        bench.drop_journal()
        cut = point.kind == faultlib.CUT
        fails = point.kind in faultlib.ERRORS
        journal = cut or (fails and point.number % 2 == 0)
        kind = "kill-before" if cut else point.kind
        result = step.run(bench, fault="%s:%d" % (kind, point.number), journal=journal,
                          without=self.without)
        if not result.fired:
            return None
        memory = before.memory.clone()
        observe(memory, step, result, bench, trusted=False)
        if not journal:
            return bench.home, memory, result
        model = before.model.clone()
        model.play(bench.take_journal())
        target = bench.fresh()
        model.cut(rng, target, faultlib.volatile_fill(rng, bench.dir))
        return os.path.join(target, "home"), memory, result

    def check(self, home, memory, rng):
        """Start again and compare; the violations."""
        bench, found = self.bench, []
        if not memory.there and not os.path.exists(os.path.join(home, "store")):
            again = bench.run("init", home=home)  # the very first step: nothing was promised
            return [] if again.code == 0 else [Violation("stuck", said("init", again))]
        if not memory.there:
            again = bench.run("init", home=home)
            if again.code != 0:
                return [Violation("stuck", said("init", again))]
        # The first one after the crash may be a reader.
        seen = self.listing(bench.run("ls", home=home, without=self.without))
        for ref, there in memory.there.items():
            if there == "yes" and ref not in seen:
                found.append(Violation("lost", "%s is not there for a reader" % ref))
        extra = b"after the crash %d\n" % rng.randrange(1 << 30)
        put = bench.run("put", "-", stdin=extra, home=home)
        if put.code != 0:
            return [Violation("stuck", said("put", put))]
        memory.content[ref_of(extra)] = (extra, False)
        memory.there[ref_of(extra)] = "yes"
        alive, parts = self.check_queue(home, found)
        for ref, there in memory.there.items():
            if there == "yes" and ref not in alive:
                found.append(Violation("lost", "%s (%d bytes) is not there" %
                                       (ref, len(memory.content[ref][0]))))
            elif there == "no" and ref in alive:
                found.append(Violation("back", "%s was deleted and is there" % ref))
        for ref in alive - set(memory.there) - parts:
            found.append(Violation("invented", "%s is there, nobody put it" % ref))
        verify = bench.run("store", "verify", home=home)
        if verify.code != 0:
            found.append(Violation("verify", said("store verify", verify)))
        self.check_bytes(home, memory, alive, rng, found)
        return found

    @staticmethod
    def listing(result):
        return {line.split()[0] for line in result.out.decode().splitlines() if line}

    def check_queue(self, home, found):
        """The alive refs by `ls`, those that came as parts; the queue must tell the same."""
        changes = self.bench.run("changes", "--json", home=home)
        listing = self.bench.run("ls", home=home)
        if changes.code != 0 or listing.code != 0:
            found.append(Violation("queue", said("changes", changes) + said("ls", listing)))
            return set(), set()
        rows = [json.loads(line) for line in changes.out.decode().splitlines()]
        rows = [row for row in rows if "seq" in row]
        for index, row in enumerate(rows):
            if row["seq"] != rows[0]["seq"] + index or rows[0]["seq"] != 1:
                found.append(Violation("queue", "change %d has sequence %d" % (index + 1, row["seq"])))
                break
        alive, parts = set(), set()
        for row in rows:
            ref, op = row["ref"], row["op"]
            if op == "delete":
                if ref not in alive:
                    found.append(Violation("queue", "%s is deleted before it was put" % ref))
                alive.discard(ref)
            elif op == "lift":
                if ref not in alive:
                    found.append(Violation("queue", "%s is lifted before it was put" % ref))
                parts.discard(ref)
            else:
                if ref in alive:
                    found.append(Violation("queue", "%s is in the queue twice" % ref))
                alive.add(ref)
                parts.discard(ref)
                if row["part"]:
                    parts.add(ref)
        listed = self.listing(listing)
        for ref in sorted(alive ^ listed):
            found.append(Violation("queue", "%s is %s the queue only" %
                                   (ref, "in" if ref in alive else "not in")))
        return listed, parts

    def check_bytes(self, home, memory, alive, rng, found):
        """Read blobs back, all acknowledged ones in turn over the points."""
        sure = sorted(ref for ref, there in memory.there.items() if there == "yes" and ref in alive)
        for ref in rng.sample(sure, min(4, len(sure))):
            data, is_file = memory.content[ref]
            got = self.bench.run("get", ref, home=home)
            if got.code != 0 or got.out != data:
                found.append(Violation("lost", "get %s: status %s, %d of %d bytes %s" %
                                       (ref, got.code, len(got.out), len(data), got.err[:200])))
            if is_file:
                raw = self.bench.run("get", "--raw", ref, home=home)
                if ref_of(raw.out) != ref:
                    found.append(Violation("lost", "get --raw %s gives other bytes" % ref))

    def try_point(self, point, seed):
        """The violations of one point; None when the operation was not reached."""
        rng = random.Random("%d %r" % (seed, tuple(point)))
        broken = self.break_at(point, rng)
        if broken is None:
            return None
        home, memory, result = broken
        if result.code is None:
            return [Violation("stuck", "%s hangs after the fault" % self.steps[point.step].name)]
        if point.kind in faultlib.ERRORS and result.code < 0:
            return [Violation("crash", "%s ends by signal %d on an error" %
                              (self.steps[point.step].name, -result.code))]
        return self.check(home, memory, rng)


def said(what, result):
    return "%s: status %s: %s" % (what, result.code,
                                  result.err.decode("utf-8", "replace").strip()[-300:])


def sweep(harness, points, seed, stop_after=None):
    """Try the points; (tried by kind, tried by operation, [(point, violation)])."""
    tried, by_op, violations = collections.Counter(), collections.Counter(), []
    for point in points:
        found = harness.try_point(point, seed)
        if found is None:
            continue
        tried[point.kind] += 1
        by_op[point.op] += 1
        violations += [(point, violation) for violation in found]
        if stop_after and len(violations) >= stop_after:
            break
    return tried, by_op, violations


def choose(harness, options, rng):
    points = list(harness.clean.points(variants=12 if options.all else 4))
    if options.kinds:
        points = [point for point in points if point.kind in options.kinds.split(",")]
    if options.point:
        step, number, kind, variant = options.point.split(":")
        return [point for point in points
                if (point.step, point.number, point.kind, point.variant) ==
                (int(step), int(number), kind, int(variant))], len(points)
    return faultlib.draw(points, None if options.all else options.points, rng), len(points)


def print_result(name, script, options, total, tried, by_op, violations, harness):
    by_kind = collections.Counter(point.kind for point, _ in violations)
    for kind in sorted(tried):
        details = ["%s: %s (step %s, operation %d, %s)\n    again: %s --seed %d --point %d:%d:%s:%d" %
                   (violation.kind, violation.words, harness.steps[point.step].name, point.number,
                    point.op, script, options.seed, point.step, point.number, point.kind,
                    point.variant)
                   for point, violation in violations if point.kind == kind][:8]
        tap.ok(not by_kind[kind], "%s: %d points, %d violations" %
               (kind, tried[kind], by_kind[kind]), "\n".join(details))
    tap.remark("%s: %d of %d points tried, %d violations, seed %d" %
               (name, sum(tried.values()), total, len(violations), options.seed))
    tap.remark("%s: by operation: %s" %
               (name, ", ".join("%s %d" % pair for pair in by_op.most_common())))


def main():
    options = faultlib.options(__doc__.split("\n")[0], points=400)
    tap.note("seed %d" % options.seed)
    harness = Store(options.build, options.without)
    try:
        tap.ok(not harness.problems, "the workload runs clean", harness.problems)
        tap.ok(not harness.clean.unseen, "the journal tells every byte of the folder",
               harness.clean.unseen[:10])
        found = harness.check(harness.bench.home, harness.clean.memory.clone(), random.Random(1))
        tap.ok(not found, "nothing is wrong without a fault",
               ["%s: %s" % (one.kind, one.words) for one in found[:10]])
        points, total = choose(harness, options, random.Random(options.seed))
        tried, by_op, violations = sweep(harness, points, options.seed)
        tap.ok(sum(tried.values()) > 0, "points were reached")
        print_result("store", "tests/fault/crash_store.py", options, total, tried, by_op, violations,
                     harness)
    finally:
        harness.close()
    tap.done()


if __name__ == "__main__":
    sys.exit(main())
