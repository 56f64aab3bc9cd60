#!/usr/bin/env python3
"""bench_live.py - how long questions take while an index is built anew, and what a replay costs

    scripts/bench live [--count=N] [--quick] [--dir=PATH] [--json=FILE]

For each kind of sink that is here (SQLite; PostgreSQL and Elasticsearch where REFUGE_TEST_POSTGRESQL and
REFUGE_TEST_ELASTICSEARCH name a server), over a store of N records:

    fill      the first run, CPU a record of refuge and its workers
    alone     `refuge search` of a word, each in a new process, nothing else running
    rebuild   the same questions while `refuge index rebuild` maps and writes everything again
    up to date  a run that finds nothing to do

Every answer is checked: a rebuild that is under way must not change what is found.
"""
import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import bench_peers  # noqa: E402
from bench_peers import REFUGE, WORDS, Skip, measured, server  # noqa: E402

SINKS = {
    "sqlite": lambda folder: "sqlite:" + os.path.join(folder, "live.db"),
    "postgresql": lambda _: server("REFUGE_TEST_POSTGRESQL") + "#bench_live",
    "elasticsearch": lambda _: server("REFUGE_TEST_ELASTICSEARCH").split("#")[0] + "#bench-live",
}


def question(material, word):
    """(milliseconds, hits in all) of one search in a new process."""
    start = time.monotonic()
    done = subprocess.run([REFUGE, "--home", material.home, "search", "--index", "live", "--limit", "3",
                           word], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)
    took = (time.monotonic() - start) * 1000
    if done.returncode != 0:
        sys.exit("bench: search: " + done.stderr.strip())
    return took, done.stdout.count("\n")


def ask_while(material, rng, running, least):
    """Latencies of questions as long as running() says, and of at least so many."""
    times = []
    while running() or len(times) < least:
        took, found = question(material, rng.choice(WORDS))
        if not found:
            sys.exit("bench: a word that every index holds was not found")
        times.append(took)
    return times


def shown(times):
    times = sorted(times)
    return {"n": len(times), "median_ms": statistics.median(times),
            "p95_ms": times[min(len(times) - 1, int(len(times) * 0.95))], "max_ms": times[-1]}


def measure(name, material, questions):
    rng = random.Random(9)
    material.refuge("index", "create", "live", "--sink", SINKS[name](material.folder), "--mapper",
                    material.mapper)
    try:
        wall, cpu = measured(lambda: material.refuge("index", "run", "live"))
        alone = ask_while(material, rng, lambda: False, questions)
        start = time.monotonic()
        rebuild = subprocess.Popen([REFUGE, "--home", material.home, "-q", "index", "rebuild", "live"],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        during = ask_while(material, rng, lambda: rebuild.poll() is None, 1)
        rebuild_wall = time.monotonic() - start
        if rebuild.returncode not in (0, 3):
            sys.exit("bench: the rebuild ended with %d" % rebuild.returncode)
        idle_wall, idle_cpu = measured(lambda: material.refuge("index", "run", "live"))
    finally:
        material.refuge("index", "drop", "live")
    result = {"sink": name, "records": material.count, "fill_s": wall,
              "fill_cpu_us": cpu / material.count * 1e6, "alone": shown(alone),
              "during_rebuild": shown(during), "rebuild_s": rebuild_wall,
              "up_to_date_ms": idle_wall * 1000, "up_to_date_cpu_ms": idle_cpu * 1000}
    print("%-14s fill %.0f records/s, %.1f CPU us a record; rebuild %.1f s; up to date %.0f ms" %
          (name, material.count / wall, result["fill_cpu_us"], rebuild_wall, idle_wall * 1000))
    for words, times in (("alone", result["alone"]), ("while it is rebuilt", result["during_rebuild"])):
        print("%-14s   search %-20s %6d times: median %.1f ms, 95 %% within %.1f ms, longest %.1f ms" %
              (name, words, times["n"], times["median_ms"], times["p95_ms"], times["max_ms"]))
    sys.stdout.flush()
    return result


def main():
    parser = argparse.ArgumentParser(prog="bench_live", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("sink", nargs="*", choices=list(SINKS) + [[]], help="default: all")
    parser.add_argument("--count", type=int, default=50000)
    parser.add_argument("--rounds", type=int, help="passed over: one fill, many questions")
    parser.add_argument("--quick", action="store_true", help="few records, few questions")
    parser.add_argument("--dir", default=os.environ.get("REFUGE_BENCH_DIR", "."))
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    if options.quick:
        options.count = 500
    folder = tempfile.mkdtemp(prefix="bench-live.", dir=options.dir)
    results = []
    try:
        material = bench_peers.Material(folder, options.count)
        for name in options.sink or SINKS:
            try:
                results.append(measure(name, material, 20 if options.quick else 200))
            except Skip as why:
                print("%-14s skipped: %s" % (name, why))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as out:
            out.writelines(json.dumps(result) + "\n" for result in results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
