#!/usr/bin/env python3
"""test_store.py - the golden store, read by the second reader"""
import hashlib
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.dirname(HERE))

import read_store  # noqa: E402
import tap  # noqa: E402

STORE = os.path.join(HERE, "store-1.golden")
LARGE = bytes((1 << 20) + 1)
EXPECTED = [  # op, flags without "first of a batch", life, content, payload there, refers to
    (1, 0, 1, b"hello, log\n", True, None),
    (1, 1, 1, b"a part\n", True, None),
    (1, 0, 1, b"to be deleted\n", True, None),
    (2, 0, 2, b"to be deleted\n", False, 3),
    (1, 2, 1, b"a part\n", False, 2),
    (1, 0, 1, LARGE, True, None),
    (1, 0, 1, b"", True, None),
]


def main():
    found = list(read_store.changes(STORE))
    tap.ok(len(found) == len(EXPECTED), "the golden store has %d changes" % len(EXPECTED))
    for number, ((record, payload), (op, flags, life, content, there, refers)) in enumerate(
            zip(found, EXPECTED), 1):
        tap.ok(record["seq"] == number and record["op"] == op and record["flags"] & ~16 == flags and
               record["life"] == life and record["size"] == len(content) and
               record["digest"] == hashlib.sha256(content).digest() and
               payload == (content if there else None) and
               (refers is None or record["refers"] == refers),
               "change %d is what was put" % number)
    with open(os.path.join(STORE, "store.json"), encoding="ascii") as file:
        identity = json.load(file)
    tap.ok(identity["refuge_store"] == 1 and identity["generation"] == 1, "store.json is JSON")
    tap.done()


main()
