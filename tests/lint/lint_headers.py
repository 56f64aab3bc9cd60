#!/usr/bin/env python3
"""lint_headers.py - every header compiles alone, and twice, with gcc and with clang"""
import concurrent.futures
import os
import shutil
import subprocess

import tree
import tap

FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wstrict-prototypes",
         "-fsyntax-only", "-I", tree.TOP, "-x", "c", "-"]


def foreign_flags():
    """Where the libraries are; a header that needs one finds it."""
    flags = []
    for name in ("luajit", "sqlite3", "libseccomp", "libutf8proc", "libxxhash", "libcrypto"):
        found = subprocess.run(["pkg-config", "--cflags", name], stdout=subprocess.PIPE, text=True)
        flags += found.stdout.split()
    return flags


def check(compiler, path, flags):
    source = '#include "%s"\n#include "%s"\ntypedef int lint_not_empty;\n' % (path, path)
    found = subprocess.run([compiler] + flags + FLAGS, input=source, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return found.stdout.split("\n")[:5] if found.returncode else None


def main():
    flags = foreign_flags()
    headers = [path for path in tree.files(".h") if tree.room(path) in tree.ROOMS]
    for compiler in ("gcc", "clang"):
        if not shutil.which(compiler):
            tap.skip("headers alone with " + compiler, compiler + " is not installed")
            continue
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            answers = list(pool.map(lambda path: check(compiler, path, flags), headers))
        for path, problem in zip(headers, answers):
            tap.ok(problem is None, "%s alone with %s" % (path, compiler), problem)
    tap.done()


main()
