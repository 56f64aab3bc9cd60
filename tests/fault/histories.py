#!/usr/bin/env python3
"""histories.py - random lives of a home end in an index that equals its rebuild

Runs build/…/bin/histories (histories.c) over numbers drawn from a seed, with fault.c loaded. With
--sink the index is in the server that a variable of the environment names (SERVERS); without one
there it skips.
"""
import argparse
import concurrent.futures
import os
import random
import re
import shutil
import subprocess
import tempfile

import faultlib
from faultlib import tap

CHUNK = 25
SERVERS = {"postgresql": "REFUGE_TEST_POSTGRESQL"}


def run_chunk(build, seed, first, count, server=None, keep=False):
    roomy = "/dev/shm" if os.path.isdir("/dev/shm") and not os.environ.get("TMPDIR") else None
    base = tempfile.mkdtemp(prefix="refuge-histories.", dir=roomy)
    state = os.path.join(base, "state")
    with open(state, "wb") as file:
        file.write(bytes(faultlib.STATE.size))
    env = {key: value for key, value in os.environ.items() if not key.startswith("REFUGE")
           or key == "REFUGE_WITHOUT"}
    env.update(LD_PRELOAD=os.path.join(build, "bin", "librefuge_fault.so"), REFUGE_FAULT_DIR=base,
               REFUGE_FAULT_STATE=state)
    if server:
        env["REFUGE_FAULT_SOCKETS"] = "1"
    try:
        done = subprocess.run([os.path.join(build, "bin", "histories"), "--seed", str(seed),
                               "--first", str(first), "--count", str(count), "--folder", base,
                               "--mapper", os.path.join(build, "bin", "refuge-mapper"),
                               "--lua", os.path.join(faultlib.HERE, "history.lua")]
                              + (["--server", server] if server else [])
                              + (["--keep"] if keep else []),
                              env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              errors="replace", timeout=60 + 30 * count)
        out, words = done.stdout, done.stderr
        if done.returncode not in (0, 1):
            words += "\nhistories ends with status %d" % done.returncode
    except subprocess.TimeoutExpired as late:
        out, words = "", "hangs: %r" % (late.stderr,)
    finally:
        if not keep:
            shutil.rmtree(base, ignore_errors=True)
    return first, out, words


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=os.path.join(faultlib.TOP, "build", "release"))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--all", action="store_true", help="10,000 of them; in a server 1,000")
    parser.add_argument("--first", type=int, help="only this one, and keep its folder")
    parser.add_argument("--sink", choices=sorted(SERVERS), help="in a server; default: in a file")
    options = parser.parse_args()
    server, again = None, ""
    if options.sink:
        server, again = os.environ.get(SERVERS[options.sink]), " --sink " + options.sink
        if not server:
            print("1..0 # SKIP %s names no server" % SERVERS[options.sink])
            return
    tap.note("seed %d" % options.seed)
    build = os.path.abspath(options.build)
    if options.first is not None:
        _, out, words = run_chunk(build, options.seed, options.first, 1, server, True)
        print(out + words)
        return
    amount = (1000 if server else 10000) if options.all else options.count
    firsts = range(0, amount, CHUNK)
    jobs = os.cpu_count() if options.all else 1
    done, totals = [], [0, 0, 0, 0]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for answer in pool.map(lambda first: run_chunk(build, options.seed, first,
                                                       min(CHUNK, amount - first), server), firsts):
            done.append(answer)
    failures = []
    for first, out, words in done:
        summary = re.search(r"^done (\d+) histories (\d+) acts (\d+) crashes (\d+) failed$", out, re.M)
        for number, why in re.findall(r"^failed (\d+): (.*)$", out, re.M):
            failures.append("history %s: %s" % (number, why))
            failures.append("    again: tests/fault/histories.py --seed %d --first %s%s" %
                            (options.seed, number, again))
        if summary:
            totals = [a + int(b) for a, b in zip(totals, summary.groups())]
        else:
            failures.append("histories %d and on: %s" % (first, words[-500:]))
    tap.ok(not failures and totals[0] == amount,
           "%d histories%s end in an index equal to its rebuild" %
           (amount, " in a server" if server else ""), failures[:40])
    tap.remark("histories: %d, %d acts, %d crashes in them, %d unequal, seed %d" %
               (totals[0], totals[1], totals[2], totals[3], options.seed))
    tap.done()


if __name__ == "__main__":
    main()
