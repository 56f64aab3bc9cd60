#!/usr/bin/env python3
"""controls.py - each safeguard is needed: without it, its harness fails

Reads the table of safeguards in tests/README.md. The third column names what must fail when the
safeguard is removed: `crash_store`, `crash_index` or `crash_elastic` with the kinds of fault in parentheses,
`memory`, the test programs of the preset `controls`, or an end-to-end test. A control that passes means that
the promise is not tested. `test_sink` is run for each kind of sink alone, since each has safeguards of its
own by these names; of search engines `crash_elastic` has them, or `test_sink` with `(search engine)` behind.
"""
import collections
import os
import random
import re
import subprocess
import sys

import crash_elastic
import crash_index
import crash_store
import faultlib
import memory
from faultlib import tap

Control = collections.namedtuple("Control", "name harness detail")
SINKS = {"sqlite": None, "postgresql": "REFUGE_TEST_POSTGRESQL"}  # and what says where a server is
ENGINES = dict(crash_elastic.SERVERS)
HANG = 180  # seconds; a test that hangs without its safeguard has failed, too


def table():
    """The controls that tests/README.md lists."""
    with open(os.path.join(faultlib.TOP, "tests", "README.md"), encoding="utf-8") as file:
        rows = re.findall(r"^\| `([a-z0-9-]+)` \|[^|]*\| ([^|]*) \|$", file.read(), re.M)
    found = []
    for name, cell in rows:
        for harness, detail in re.findall(r"`([a-z0-9_-]+)`(?: \(([^)]*)\))?", cell):
            found.append(Control(name, harness, detail))
    return found


def kinds_of(program, detail):
    """The kinds of sink that this program is run for."""
    if detail == "search engine":
        return [kind for kind, where in ENGINES.items() if os.environ.get(where)][:1]
    return [kind for kind, where in SINKS.items() if not where or os.environ.get(where)] \
        if program == "test_sink" else [None]


def run_program(build, program, without, kind):
    """Exit status of a test program; None when it hangs."""
    env = dict(os.environ, REFUGE=os.path.join(build, "bin", "refuge"), REFUGE_SOURCE=faultlib.TOP,
               REFUGE_MAPPER=os.path.join(build, "bin", "refuge-mapper"), LC_ALL="C.UTF-8")
    for name in ("REFUGE_WITHOUT", *(where for of, where in ENGINES.items() if of != kind)):
        env.pop(name, None) # what a search engine answers is crash_elastic's
    if without:
        env["REFUGE_WITHOUT"] = without
    if kind or program == "test_index": # its safeguards are the same over every sink
        env["REFUGE_TEST_SINK"] = kind or "sqlite"
    path = os.path.join(build, "bin", program)
    process = subprocess.Popen([path], env=env, cwd=build, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    try:
        out, _ = process.communicate(timeout=HANG)
        return process.returncode, out.decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return None, "hangs"


def try_program(build, control, sound):
    """Without the safeguard the program must fail; with it, it must not."""
    if not os.path.exists(os.path.join(build, "bin", control.harness)):
        tap.ok(False, "%s: there is a test program %s" % (control.name, control.harness))
        return
    kinds = kinds_of(control.harness, control.detail)
    if not kinds:
        tap.skip("without %s %s finds something" % (control.name, control.harness), "there is no server")
    for kind in kinds:
        if (control.harness, kind) not in sound:
            code, out = run_program(build, control.harness, None, kind)
            sound[control.harness, kind] = code == 0
            if code != 0:
                tap.note(out[-1500:])
        code, out = run_program(build, control.harness, control.name, kind)
        failed = len(set(re.findall(r"^\[  FAILED  \] (\S+)$|^not ok (.*)", out, re.M))) or 1
        tap.ok(code != 0 and sound[control.harness, kind],
               "without %s %s%s finds %s" % (control.name, control.harness,
                                             " with " + kind if kind else "",
                                             "a hang" if code is None else
                                             "%d failures" % failed if code else "nothing"))


def try_script(build, control):
    """An end-to-end test of the built program; with the safeguard it runs elsewhere."""
    path = os.path.join(faultlib.TOP, "tests", "e2e", control.harness + ".sh")
    env = dict(os.environ, REFUGE=os.path.join(build, "bin", "refuge"),
               REFUGE_TEST_WITHOUT=control.name)
    done = subprocess.run(["sh", path], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    failed = len(re.findall(r"^not ok ", done.stdout, re.M))
    tap.ok(failed > 0, "without %s %s finds %d failures" % (control.name, control.harness, failed))


def try_harness(build, control, make, seed, most):
    """Points until violations are found."""
    harness = make(build, control.name)
    try:
        points = list(harness.clean.points(variants=8))
        if control.detail:
            kinds = [word.strip() for word in control.detail.split(",")]
            points = [point for point in points if point.kind in kinds]
        random.Random(seed).shuffle(points)
        tried, _, violations = crash_store.sweep(harness, points[:most], seed, stop_after=3)
    finally:
        harness.close()
    words = sorted({violation.kind for _, violation in violations})
    tap.ok(violations, "without %s %s finds %d violations (%s) in %d points" %
           (control.name, control.harness, len(violations), ", ".join(words), sum(tried.values())))
    return sum(tried.values())


def try_elastic(build, control, seed):
    """Broken requests until one is found that shows."""
    if not crash_elastic.servers():
        tap.skip("without %s crash_elastic finds something" % control.name, "there is no server")
        return
    kinds = [word.strip() for word in control.detail.split(",")]
    most = len(crash_elastic.points(seed))  # few of them meet one safeguard
    tried, wrong = crash_elastic.sweep(build, seed, most, kinds, control.name, stop_after=1)
    tap.ok(wrong, "without %s crash_elastic finds %d violations in %d points" %
           (control.name, len(wrong), tried))


def main():
    options = faultlib.options(__doc__.split("\n")[0], points=400)
    tap.note("seed %d" % options.seed)
    sound, count = {}, 0
    for control in table():
        if options.without and control.name != options.without:
            continue
        count += 1
        if control.harness == "crash_store":
            try_harness(options.build, control, crash_store.Store, options.seed, options.points)
        elif control.harness == "crash_index":
            try_harness(options.build, control, crash_index.Index, options.seed, options.points)
        elif control.harness == "crash_elastic":
            try_elastic(options.build, control, options.seed)
        elif control.harness == "memory":
            memory.try_control(options.build, control.name)
        elif re.match(r"t\d{4}-", control.harness):
            try_script(options.build, control)
        else:
            try_program(options.build, control, sound)
    tap.ok(count > 0, "there are controls")
    tap.remark("controls: %d safeguards removed one at a time, seed %d" % (count, options.seed))
    tap.done()


if __name__ == "__main__":
    sys.exit(main())
