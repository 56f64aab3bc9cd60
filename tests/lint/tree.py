"""tree.py - the files of the project, for the lint tests"""
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests"))
sys.dont_write_bytecode = True

ROOMS = ("core", "blobstore", "replication", "backup", "mappers", "sinks", "indexer", "cmd")
SKIPPED = {".git", "build", ".cache", "corpus", "__pycache__"}


def files(*suffixes, under=""):
    """Paths relative to the top of all files that end so, sorted."""
    found = []
    for folder, folders, names in os.walk(os.path.join(TOP, under)):
        folders[:] = sorted(name for name in folders if name not in SKIPPED)
        for name in sorted(names):
            if not suffixes or name.endswith(suffixes):
                found.append(os.path.relpath(os.path.join(folder, name), TOP))
    return found


def text(path):
    with open(os.path.join(TOP, path), encoding="utf-8", errors="replace") as file:
        return file.read()


def room(path):
    return path.split("/")[0]


CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def blank(match):
    """Comments and the insides of literals as spaces; lines stay where they are."""
    found = match.group(0)
    if found[0] in "\"'":
        return found[0] + " " * (len(found) - 2) + found[-1]
    return re.sub(r"[^\n]", " ", found)


def code(path):
    return CODE.sub(blank, text(path))


def comment_slashes(path):
    """Line numbers of // comments."""
    source = text(path)
    return [source.count("\n", 0, match.start()) + 1 for match in CODE.finditer(source)
            if match.group(0).startswith("//")]


def matches(path, source, pattern):
    """"path:line: text" for each match."""
    lines = source.split("\n")
    return ["%s:%d: %s" % (path, number, lines[number - 1].strip())
            for number in (source.count("\n", 0, match.start()) + 1
                           for match in re.finditer(pattern, source))]
