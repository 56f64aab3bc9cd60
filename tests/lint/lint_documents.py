#!/usr/bin/env python3
"""lint_documents.py - manual pages, shell scripts, Python files, links of the documents"""
import os
import re
import shutil
import subprocess

import tree
import tap


def run(*command):
    found = subprocess.run(command, cwd=tree.TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           text=True, errors="replace")
    return found.returncode, found.stdout.strip()


def manuals():
    pages = [path for path in tree.files(under="doc") if re.search(r"\.[1-8]$", path)]
    for path in pages:
        if not shutil.which("mandoc"):
            tap.skip(path, "mandoc is not installed")
            continue
        code, words = run("mandoc", "-Tlint", "-Wwarning", path)
        tap.ok(code == 0, path + " is clean mdoc", words)


def scripts():
    shells = [path for path in tree.files() if is_shell(path)]
    for path in shells:
        code, words = run("sh", "-n", path)
        tap.ok(code == 0, path + " parses", words)
        if shutil.which("shellcheck"):
            code, words = run("shellcheck", "-s", "sh", "-x", "-e", "SC1090,SC1091,SC3043", path)
            tap.ok(code == 0, path + " passes shellcheck", words)
    for path in tree.files(".py"):
        try:
            compile(tree.text(path), path, "exec")
            words = None
        except SyntaxError as error:
            words = str(error)
        tap.ok(words is None, path + " parses", words)


def is_shell(path):
    if path.endswith(".sh"):
        return True
    if not os.access(os.path.join(tree.TOP, path), os.X_OK):
        return False
    return tree.text(path)[:20].startswith("#!/bin/sh")


def links():
    """Relative links of Markdown files lead somewhere."""
    broken = []
    for path in tree.files(".md"):
        folder = os.path.dirname(path)
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", tree.text(path)):
            if "://" in target or target.startswith("mailto:"):
                continue
            if not os.path.exists(os.path.join(tree.TOP, folder, target)):
                broken.append("%s: %s" % (path, target))
    tap.ok(not broken, "links lead somewhere", broken)


def safeguards():
    """Every safeguard that the code can take away is in the list of tests/README.md, and back."""
    named = set()
    for path in tree.files(".c", ".h"):
        if tree.room(path) in tree.ROOMS and not path.startswith("core/control."):
            named |= set(re.findall(r'RF_SAFEGUARD\("([^"]+)"\)', tree.text(path)))
    section = tree.text("tests/README.md").split("## Safeguards", 1)[-1]
    listed = set(re.findall(r"^\| `([a-z0-9-]+)` \|", section, re.M))
    tap.ok(named == listed, "tests/README.md lists the safeguards of the code",
           ["not listed: " + name for name in sorted(named - listed)] +
           ["not in the code: " + name for name in sorted(listed - named)])


def main():
    manuals()
    scripts()
    links()
    safeguards()
    tap.done()


main()
