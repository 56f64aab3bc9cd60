#!/usr/bin/env python3
"""lint_text.py - banned calls, and how the text looks"""
import re

import tree
import tap

LIBRARY = tuple(room for room in tree.ROOMS if room != "cmd")
# The program refuge-mapper lives in mappers/: its own main may end the process.
PROGRAM_FILES = re.compile(r"^mappers/(zygote|worker|jail|mapper_main|main|refuge_mapper)\w*\.c$")

# (why, pattern, where). A call is a name followed by "(" that no letter, "." or ">" precedes.
def call(*names):
    return r"(?<![\w.>])(?:%s)\s*\(" % "|".join(names)


EVERYWHERE = tree.ROOMS + ("tests", "bench", "examples")
BANNED = [
    ("unbounded copies", call("strcpy", "strcat", "sprintf", "vsprintf", "gets", "stpcpy"),
     tree.ROOMS),
    ("copies that may not end in NUL", call("strncpy", "strncat"), tree.ROOMS),
    ("numbers read without an error", call("atoi", "atol", "atoll", "atof", "scanf"), tree.ROOMS),
    ("a shell", call("system", "popen"), tree.ROOMS),
    ("hidden state", call("strtok", "rand", "srand", "random", "srandom", "localtime", "gmtime",
                          "ctime", "asctime", "setlocale", "tmpnam", "tempnam", "mktemp"),
     tree.ROOMS),
    ("the stack as a heap", call("alloca"), EVERYWHERE),
    ("sleeping", call("sleep", "usleep"), tree.ROOMS),
    ("printing in a library", call("printf", "vprintf", "puts", "putchar", "perror"), LIBRARY),
    ("standard streams in a library", r"\b(?:stdout|stderr)\b", LIBRARY),
    ("ending the process in a library", call("exit", "_exit", "_Exit", "quick_exit"), LIBRARY),
    ("signal handlers in a library", call("signal", "sigaction"), LIBRARY),
    ("a sync that is tried again", r"\b(?:while|for)\s*\([^;{]*\bf(?:data)?sync\s*\(", tree.ROOMS),
    ("struct typedefs", r"\btypedef\s+(?:struct|union|enum)\b[^(;]*[;{]", tree.ROOMS + ("tests", "bench")),
]
# File -> what it may use after all, and why.
EXCUSED = {
    # They end the process when memory or the hash is gone, and say so.
    "core/arena.c": {"standard streams in a library"},
    "core/buf.c": {"standard streams in a library"},
    "core/blobref.c": {"standard streams in a library"},
    "indexer/unit.c": {"standard streams in a library"},
    # It waits out what cannot be reached, 50 ms at a time, so that a stop is seen.
    "indexer/index.c": {"sleeping"},
}


def banned():
    for why, pattern, where in BANNED:
        found = []
        for path in tree.files(".c", ".h"):
            if tree.room(path) not in where or why in EXCUSED.get(path, ()):
                continue
            if where is LIBRARY and PROGRAM_FILES.match(path):
                continue
            found += tree.matches(path, tree.code(path), pattern)
        tap.ok(not found, "none of: " + why, found[:20])


def looks():
    sources = tree.files(".c", ".h")
    slashes = ["%s:%d" % (path, line) for path in sources for line in tree.comment_slashes(path)]
    tap.ok(not slashes, "comments are /* */", slashes[:20])
    own = sources + tree.files(".lua", ".py", ".sh")
    wide, tabs, blanks, ends, notes = [], [], [], [], []
    for path in own:
        text = tree.text(path)
        wide += ["%s:%d: %d columns" % (path, number, len(line))
                 for number, line in enumerate(text.split("\n"), 1)
                 if len(line) > (100 if path.endswith((".c", ".h", ".lua")) else 110)]
        tabs += tree.matches(path, text, r"\t")
        blanks += tree.matches(path, text, r"(?m)[ \t]+$")
        if text and not text.endswith("\n"):
            ends.append(path)
        if not path.startswith("tests/lint/"):
            notes += tree.matches(path, text, r"\b(?:TODO|FIXME|HACK)\b|not implemented\b")
    tap.ok(not wide, "lines end at column 100 (C, Lua) or 110", wide[:20])
    tap.ok(not tabs, "no tabs", tabs[:20])
    tap.ok(not blanks, "no blanks at the end of a line", blanks[:20])
    tap.ok(not ends, "files end with a newline", ends[:20])
    tap.ok(not notes, "nothing is left for later", notes[:20])


def headers():
    bare, unguarded = [], []
    for path in tree.files(".h"):
        text = tree.text(path)
        if tree.room(path) not in tree.ROOMS:
            continue
        name = path.split("/")[-1]
        if not text.startswith("/*\n * %s - " % name):
            bare.append(path)
        guard = "RF_%s" % re.sub(r"\W", "_", path).upper()
        if "#ifndef %s\n#define %s\n" % (guard, guard) not in text:
            unguarded.append("%s: want %s" % (path, guard))
    tap.ok(not bare, "headers open with their promise", bare)
    tap.ok(not unguarded, "headers are guarded by their path", unguarded)
    silent = [path for path in tree.files(".c")
              if tree.room(path) in tree.ROOMS and
              not tree.text(path).startswith(("/*\n * %s - " % path.split("/")[-1],
                                              "/* %s - " % path.split("/")[-1]))]
    tap.ok(not silent, "source files open with why they exist", silent)


def main():
    banned()
    looks()
    headers()
    tap.done()


main()
