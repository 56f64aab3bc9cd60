#!/usr/bin/env python3
"""read_store.py - a second reader of stores, from doc/format-store.md alone

With a folder: lists its changes. Python has no XXH3, so checksums are not recomputed; content is
hashed. tests/format/test_store.py says what the golden store must hold.
"""
import hashlib
import os
import struct
import sys

RECORD = "magic op algo flags check chain refers seq timestamp size stored life digest".split()


def changes(store):
    """Every change in order, with its payload (None: without)."""
    names = sorted((name.split("-") for name in os.listdir(os.path.join(store, "log"))
                    if not name.startswith(".")), key=lambda name: (name[0], int(name[1])))
    last = {first: attempt for first, attempt in names}  # the highest attempt counts
    for first, attempt in last.items():
        with open(os.path.join(store, "log", first + "-" + attempt), "rb") as file:
            data = file.read()
        later = [int(other, 16) for other in last if other > first]
        at = 0
        while data[at:at + 4] == b"RFL1":
            record = dict(zip(RECORD, struct.unpack_from("<4sBBHQQQQqQII32s", data, at)))
            payload = data[at + 96:at + 96 + record["stored"]]
            at = (at + 96 + record["stored"] + 7) & ~7
            if record["op"] == 3 or (later and record["seq"] >= min(later)):
                continue
            if record["op"] == 1 and record["size"] > 1 << 20 and not record["flags"] & 10:
                name = "sha256-%s-%d" % (record["digest"].hex(), record["life"])
                with open(os.path.join(store, "large", name), "rb") as file:
                    payload = file.read()[:record["size"]]
            if record["op"] == 1 and not record["flags"] & 10:
                if hashlib.sha256(payload).digest() != record["digest"]:
                    raise ValueError("change %d does not hash to its name" % record["seq"])
            else:
                payload = None
            yield record, payload


if __name__ == "__main__":
    for change, content in changes(sys.argv[1]) if len(sys.argv) > 1 else ():
        print(change["seq"], "put" if change["op"] == 1 else "delete", change["digest"].hex(),
              change["size"], change["life"], change["flags"] & 11)
