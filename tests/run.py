#!/usr/bin/env python3
"""run.py - the tests' runner behind scripts/test

Every test is a job with a name like dev/test_core: which build it needs, the command, how its points
are counted. Jobs that speak TAP (cmocka programs, shell and Python tests) count each point; others
count as one. To add a test nothing is registered here: unit, contract and fuzz programs come from
ctest, tests/e2e/t*.sh, tests/lint/lint_*.py and tests/format/read_*.py by their name. A new harness
under tests/fault is one line in fault_jobs().
"""
import argparse
import concurrent.futures
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOGS = os.path.join(TOP, "build", "logs")
CORES = os.cpu_count() or 1
POINT = re.compile(r"^(not )?ok\b ?(\d+)?(?: ?- ?|\s*)(.*?)\s*(?:#\s*(?:SKIP|skip)\b\s*(.*))?$")
PLAN = re.compile(r"^1\.\.(\d+)(?:\s*#\s*SKIP\s*(.*))?$", re.I)


class Service:
    """One server for the whole run, unless the environment names one. Where it cannot be started,
    its tests are skipped and say so; with its name in REFUGE_TEST_REQUIRE that is a failure."""

    def __init__(self, name, script, title):
        self.name, self.title, self.folder, self.reason = name, title, None, None
        self.script = os.path.join(TOP, "tests", "services", script)
        self.variable = "REFUGE_TEST_" + name.upper()
        self.thread, self.url = None, None

    def call(self, command):
        return subprocess.run([self.script, command, self.folder], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)

    def begin(self):
        """Start it while something else goes on; what is told of it waits for `ready`."""
        if os.environ.get(self.variable):
            return
        self.folder = tempfile.mkdtemp(prefix="rf-%s-" % self.name[:2], dir="/tmp")
        os.chmod(self.folder, 0o755)
        self.thread = threading.Thread(target=self.start)
        self.thread.start()

    def start(self):
        for command in ("install", "start"):
            done = self.call(command)
            if done.returncode != 0:
                self.reason = (done.stderr.strip().split("\n") or ["no reason given"])[-1]
                return
        self.url = done.stdout.strip().split("=", 1)[1]

    def ready(self, run):
        """Wait until it is known how it came out; a point tells when there is no server."""
        if not self.thread:
            return
        self.thread.join()
        self.thread = None
        if self.reason:
            run.do(self.job())
        else:
            os.environ[self.variable] = self.url

    def stop(self):
        if self.folder:
            if self.thread:
                self.thread.join()
            self.call("stop")
            shutil.rmtree(self.folder, ignore_errors=True)

    def job(self):
        required = self.name in os.environ.get("REFUGE_TEST_REQUIRE", "").split()
        line = "echo 1..1; echo %s" % shlex.quote(
            "not ok 1 - %s: %s" % (self.title, self.reason) if required else
            "ok 1 - %s # SKIP %s" % (self.title, self.reason))
        return Job("service/" + self.name, ["sh", "-c", line])


class Job:
    def __init__(self, name, command, preset=None, env=None, timeout=600, serial=False):
        self.name, self.command, self.preset = name, command, preset
        self.env, self.timeout, self.serial = env or {}, timeout, serial
        self.passed = self.failed = self.skipped = 0
        self.failures, self.skips, self.remarks = [], [], []
        self.seconds, self.seed = 0.0, 0

    def without_engines(self):
        """What a search engine is asked is one thread's work: once is enough."""
        self.env.update(REFUGE_TEST_ELASTICSEARCH="", REFUGE_TEST_OPENSEARCH="")
        return self

    @property
    def log(self):
        return os.path.join(LOGS, self.name.replace("/", "-") + ".log")

    def run(self):
        """Run the command, its output into the log, and count its points."""
        start = time.monotonic()
        env = dict(os.environ, LC_ALL="C.UTF-8", CMOCKA_MESSAGE_OUTPUT="TAP", REFUGE_SOURCE=TOP,
                   REFUGE_TEST_SEED=str(self.seed))
        env.update(self.env)
        with open(self.log, "wb") as log:
            process = subprocess.Popen(self.command, cwd=TOP, env=env, stdin=subprocess.DEVNULL,
                                       stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                code = process.wait(self.timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                code = None
        self.seconds = time.monotonic() - start
        with open(self.log, encoding="utf-8", errors="replace") as log:
            self.count(log, code)

    def count(self, lines, code):
        planned, seen, tail = 0, 0, []
        for line in lines:
            line = line.rstrip("\n")
            tail = (tail + [line])[-12:]
            plan, point = PLAN.match(line), POINT.match(line)
            if plan:
                planned += int(plan.group(1))
                if plan.group(2) is not None:
                    self.skipped += 1
                    self.skips.append((self.name, plan.group(2)))
            elif point and (point.group(2) or point.group(1) or line.startswith("ok -")):
                seen += 1
                if point.group(4) is not None:  # cmocka writes "not ok N # SKIP name"
                    self.skipped += 1
                    self.skips.append((point.group(3) or self.name, point.group(4)))
                elif point.group(1):
                    self.failed += 1
                    self.failures.append(point.group(3))
                else:
                    self.passed += 1
            elif line.startswith("## "):
                self.remarks.append(line[3:])
        if code is None:
            self.fail("ended by force after %d s" % self.timeout)
        elif seen == 0 and planned == 0 and not self.skips:
            if code == 0:
                self.passed += 1
            else:
                self.fail("exit status %d: %s" % (code, " / ".join(tail[-3:])))
        elif code != 0 and self.failed == 0:
            self.fail("exit status %d: %s" % (code, " / ".join(tail[-3:])))
        elif seen != planned and planned + seen > 0 and not self.skips:
            self.fail("%d points, planned were %d" % (seen, planned))

    def fail(self, words):
        self.failed += 1
        self.failures.append(words)


class Run:
    def __init__(self, options):
        self.options, self.jobs = options, []
        self.lock = threading.Lock()

    def wanted(self, name):
        return not self.options.only or re.search(self.options.only, name)

    def do(self, job):
        job.seed = self.options.seed
        job.run()
        with self.lock:
            self.jobs.append(job)
            verdict = "FAIL" if job.failed else "skip" if not job.passed else "ok"
            print("%-4s %-34s %5d points %7.1f s" %
                  (verdict, job.name, job.passed + job.failed + job.skipped, job.seconds))
            for remark in job.remarks:
                print("       %s" % remark)
            sys.stdout.flush()
        return job.failed == 0

    def do_all(self, jobs):
        jobs = [job for job in jobs if self.wanted(job.name)]
        together = [job for job in jobs if not job.serial]
        with concurrent.futures.ThreadPoolExecutor(CORES) as pool:
            list(pool.map(self.do, together))
        for job in jobs:
            if job.serial:
                self.do(job)

    def build(self, preset):
        """Configure and build one preset; one job. Whether its programs are there."""
        line = "cmake --preset %s -DREFUGE_TESTS=ON && cmake --build --preset %s" % (preset, preset)
        return self.do(Job("build/" + preset, ["sh", "-c", line], timeout=1500))


def program(preset, name):
    return os.path.join(TOP, "build", preset, "bin", name)


def ctest_jobs(preset, keep):
    """The programs ctest knows in this preset, as jobs; keep decides by name and labels."""
    listing = subprocess.run(["ctest", "--preset", preset, "--show-only=json-v1"], cwd=TOP,
                             stdout=subprocess.PIPE, check=True).stdout
    jobs = []
    for test in json.loads(listing)["tests"]:
        properties = {entry["name"]: entry["value"] for entry in test.get("properties", [])}
        labels = properties.get("LABELS", [])
        if "command" not in test or not keep(test["name"], labels):
            continue
        env = dict(entry.split("=", 1) for entry in properties.get("ENVIRONMENT", []))
        jobs.append(Job("%s/%s" % (preset, test["name"]), test["command"], preset, env,
                        int(float(properties.get("TIMEOUT", 300))) * 2,
                        bool(properties.get("RUN_SERIAL"))))
    return jobs


def listed(folder, pattern):
    path = os.path.join(TOP, "tests", folder)
    names = os.listdir(path) if os.path.isdir(path) else []
    return [(re.sub(r"\.[a-z]+$", "", name), os.path.join(path, name))
            for name in sorted(names) if re.match(pattern, name)]


def lint_jobs(options):
    return [Job("lint/" + name, ["python3", path] + (["--all"] if options.all else []), "dev",
                timeout=1200)
            for name, path in listed("lint", r"lint_.*\.py$")]


def e2e_jobs(options):
    env = {"REFUGE": program("dev", "refuge"), "REFUGE_MAPPER": program("dev", "refuge-mapper")}
    if options.all:
        env["REFUGE_TEST_ALL"] = "1"
    return [Job("e2e/" + name, ["sh", path], "dev", env, timeout=1200)
            for name, path in listed("e2e", r"t\d.*\.sh$")]


def fault_jobs(options):
    amount = ["--all"] if options.all else []
    seed = ["--seed", str(options.seed)]

    def job(name, preset, *more):
        path = os.path.join(TOP, "tests", "fault", name.partition("@")[0] + ".py")
        return Job("fault/" + name, ["python3", path, "--build", os.path.join(TOP, "build", preset)]
                   + seed + amount + list(more), preset, timeout=14400 if options.all else 1200)

    return [job("crash_store", "release"), job("crash_index", "release"),
            job("histories", "release"), job("memory", "release"),
            job("crash_sink@postgresql", "release", "--sink", "postgresql"),
            job("histories@postgresql", "release", "--sink", "postgresql", "--count", "20"),
            job("crash_elastic", "release"), job("every_sink", "release"),
            job("controls", "controls")]


def plan(options):
    """Every (preset, jobs) in order; presets are built when a job needs them."""
    # What runs threads or processes is worth the ThreadSanitizer; parsers are not.
    threaded = lambda name, labels: "e2e" not in labels and "fuzz" not in labels
    jailed = re.compile(r"^test_(pool|jail|hostile|worker|zygote|lua|env|index)").match
    return [
        ("dev", lambda: ctest_jobs("dev", lambda name, labels: "e2e" not in labels)),
        ("dev", lambda: lint_jobs(options)),
        ("dev", lambda: e2e_jobs(options)),
        ("release", lambda: ctest_jobs("release", lambda name, labels: bool(jailed(name)))),
        ("release", lambda: [job for job in fault_jobs(options) if job.preset == "release"]),
        ("controls", lambda: [job for job in fault_jobs(options) if job.preset == "controls"]),
        ("tsan", lambda: [job.without_engines() for job in ctest_jobs("tsan", threaded)]),
    ]


def report(run, options, start):
    passed, failed, skipped = (sum(getattr(job, what) for job in run.jobs)
                               for what in ("passed", "failed", "skipped"))
    skips = [(job, skip) for job in run.jobs for skip in job.skips]
    if skips:
        print("\nskipped:")
        for job, (name, reason) in skips:
            print("  %s: %s: %s" % (job.name, name, reason))
    if failed:
        print("\nfailed:")
        for job in run.jobs:
            for words in job.failures[:20]:
                print("  %s: %s" % (job.name, words))
            if len(job.failures) > 20:
                print("  %s: and %d more" % (job.name, len(job.failures) - 20))
            if job.failures:
                print("    log:   %s" % os.path.relpath(job.log, TOP))
                print("    again: scripts/test --seed %d --only '^%s$'%s" %
                      (options.seed, job.name, " --all" if options.all else ""))
    print("\nseed %d, %d s" % (options.seed, time.monotonic() - start))
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    return 1 if failed or not passed else 0


def main():
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__.split("\n")[0])
    parser.add_argument("--all", action="store_true", help="every fault point and history")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--only", metavar="REGEX", help="only tests whose name matches")
    parser.add_argument("--list", action="store_true", help="name the tests of what is built")
    options = parser.parse_args()
    os.makedirs(LOGS, exist_ok=True)
    start, run, built = time.monotonic(), Run(options), {}

    print("seed %d" % options.seed)
    sys.stdout.flush()
    services = [Service("postgresql", "postgres", "a PostgreSQL server"),
                Service("elasticsearch", "elasticsearch", "an Elasticsearch node"),
                Service("opensearch", "opensearch", "an OpenSearch node")]
    try:
        if not options.list and not re.match(r"^\^?(lint|build)/", options.only or ""):
            for service in services:
                service.begin()
        do_plan(options, run, built, services)
    finally:
        for service in services:
            service.stop()
    return 0 if options.list else report(run, options, start)


def do_plan(options, run, built, services):
    for preset, jobs in plan(options):
        if options.list:
            if os.path.exists(os.path.join(TOP, "build", preset, "CTestTestfile.cmake")):
                print("\n".join(job.name for job in jobs() if run.wanted(job.name)))
            continue
        # With --only, do not build a preset that plainly cannot hold a match.
        literal = re.match(r"^\^?(dev|tsan|release|lint|e2e|fault|build)/", options.only or "")
        if literal and not may_hold(preset, literal.group(1), options.only):
            continue
        if preset not in built:
            built[preset] = run.build(preset)
        if built[preset]:
            for service in services: # they have been starting while this was built
                service.ready(run)
            run.do_all(jobs())


def may_hold(preset, kind, only):
    """Whether a step that needs this preset can hold tests of this kind."""
    if kind == "fault":
        return preset == ("controls" if "controls" in only else "release")
    if kind in ("lint", "e2e"):
        return preset == "dev"
    return kind == "build" or preset == kind


if __name__ == "__main__":
    sys.exit(main())
