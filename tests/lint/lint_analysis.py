#!/usr/bin/env python3
"""lint_analysis.py - clang-tidy (.clang-tidy) and cppcheck (cppcheck.txt) have nothing to say

What was clean is remembered in build/lint by the hash of the file, of every header and of the
configuration, so a second run looks only at what changed. --all looks at everything.
"""
import concurrent.futures
import hashlib
import json
import os
import shutil
import subprocess
import sys

import tree
import tap

CACHE = os.path.join(tree.TOP, "build", "lint")
BUILD = os.path.join(tree.TOP, "build", "dev")


def digest(paths):
    whole = hashlib.sha256()
    for path in paths:
        whole.update(path.encode() + b"\0" + tree.text(path).encode("utf-8", "replace") + b"\0")
    return whole.hexdigest()


def tidy(path):
    return ["clang-tidy", "--quiet", "-p", BUILD, os.path.join(tree.TOP, path)]


def cppcheck(path):
    return ["cppcheck", "--quiet", "--std=c11", "--language=c", "--error-exitcode=1",
            "--enable=warning,performance,portability", "--inline-suppr",
            "--suppressions-list=" + os.path.join(tree.TOP, "tests/lint/cppcheck.txt"),
            "-D_GNU_SOURCE", "-D__linux__", "-D__x86_64__", '-DREFUGE_VERSION="0"',
            "-I", tree.TOP, path]


def check(tool, command, path, key):
    mark = os.path.join(CACHE, "%s-%s" % (tool, hashlib.sha256((path + key).encode()).hexdigest()))
    if os.path.exists(mark) and "--all" not in sys.argv:
        return None
    found = subprocess.run(command(path), cwd=tree.TOP, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, errors="replace")
    words = found.stdout.strip() if tool == "clang-tidy" else found.stderr.strip()
    if found.returncode == 0 and "warning:" not in words:
        open(mark, "w").close()
        return None
    return (words or found.stderr.strip()).split("\n")[:25]


def main():
    os.makedirs(CACHE, exist_ok=True)
    try:
        with open(os.path.join(BUILD, "compile_commands.json")) as file:
            known = {os.path.relpath(entry["file"], tree.TOP) for entry in json.load(file)}
    except FileNotFoundError:
        known = set()
    sources = [path for path in tree.files(".c")
               if tree.room(path) in tree.ROOMS and path in known]
    shared = digest(tree.files(".h") + [".clang-tidy", "tests/lint/cppcheck.txt"])
    for tool, command in (("clang-tidy", tidy), ("cppcheck", cppcheck)):
        if not shutil.which(tool):
            tap.skip(tool, tool + " is not installed")
            continue
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            answers = list(pool.map(lambda path: check(tool, command, path,
                                                       shared + digest([path])), sources))
        for path, problem in zip(sources, answers):
            tap.ok(problem is None, "%s: %s" % (tool, path), problem)
    tap.done()


main()
