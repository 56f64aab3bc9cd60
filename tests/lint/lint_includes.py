#!/usr/bin/env python3
"""lint_includes.py - each room includes only what it may know; foreign libraries stay hidden"""
import re

import tree
import tap

# Room -> what it may include besides its own headers. None: anything.
MAY = {
    "core": [],
    "blobstore": ["core/"],
    "mappers": ["core/"],
    "sinks": ["core/"],
    "backup": ["core/", "blobstore/blobstore.h"],
    "replication": ["core/", "blobstore/blobstore.h"],
    "indexer": ["core/", "blobstore/blobstore.h", "replication/", "backup/", "mappers/", "sinks/"],
    "cmd": None,
}
# Foreign header -> rooms that may see it (tests and bench may).
FOREIGN = {
    "sqlite3.h": {"sinks"}, "libpq-fe.h": {"sinks"},
    "lua.h": {"mappers"}, "lauxlib.h": {"mappers"}, "lualib.h": {"mappers"}, "luajit.h": {"mappers"},
    "seccomp.h": {"mappers"},
    "utf8proc.h": {"core", "mappers", "sinks"},
    "xxhash.h": {"core", "blobstore", "sinks"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]', re.M)


def includes(path):
    return [(match.group(1), match.group(2)) for match in INCLUDE.finditer(tree.text(path))]


def main():
    sources = [path for path in tree.files(".c", ".h") if tree.room(path) in MAY]
    crossings, rootless, foreign, exposed = [], [], [], []
    hiding = {}  # header of ours -> foreign libraries it shows
    for path in sources:
        room = tree.room(path)
        for kind, name in includes(path):
            if kind == '"':
                if "/" not in name:
                    rootless.append("%s: \"%s\" is not written from the root" % (path, name))
                elif MAY[room] is not None and not name.startswith(room + "/") and \
                        not any(name.startswith(prefix) for prefix in MAY[room]):
                    crossings.append("%s: %s may not know \"%s\"" % (path, room, name))
            elif name in FOREIGN or name.startswith("openssl/"):
                if name in FOREIGN and room not in FOREIGN[name]:
                    foreign.append("%s: %s must not see <%s>" % (path, room, name))
                if path.endswith(".h"):
                    hiding.setdefault(path, []).append(name)
    for path in sources:
        for kind, name in includes(path):
            if kind == '"' and name in hiding and tree.room(name) != tree.room(path):
                exposed.append("%s: \"%s\" shows it %s" % (path, name, ", ".join(hiding[name])))
    tap.ok(not crossings, "includes keep to the borders of the rooms", crossings)
    tap.ok(not rootless, "includes are written from the root", rootless)
    tap.ok(not foreign, "foreign libraries are seen by their rooms only", foreign)
    tap.ok(not exposed, "no header shows another room a foreign library", exposed)

    names, twice = {}, []
    for path in tree.files(".c", ".h"):
        if path.split("/")[-1] in names:
            twice.append("%s and %s" % (names[path.split("/")[-1]], path))
        names[path.split("/")[-1]] = path
    tap.ok(not twice, "file names are unique in the tree", twice)
    tap.done()


main()
