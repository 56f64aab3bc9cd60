#!/usr/bin/env python3
"""read_schema.py - a second reader of file blobs, from doc/format-schema.md alone

With a file blob's path: prints what it says. With --chunks FILE: the chunks of a file's content.
Without: checks the golden blob of the format page and the chunk rule's test vector.
"""
import base64
import hashlib
import json
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

REF = re.compile(r"sha256-[0-9a-f]{64}\Z")
MIN, NORMAL, MAX = 256 << 10, 1 << 20, 4 << 20


def must(condition, what):
    if not condition:
        raise ValueError(what)


def pairs_once(pairs):
    must(len(dict(pairs)) == len(pairs), "a member twice")
    return dict(pairs)


def read(data):
    """The file blob as a dict with name (bytes), size, parts [(ref, length)]; ValueError."""
    blob = json.loads(data.decode("utf-8"), object_pairs_hook=pairs_once)
    name_key = "name" if "name" in blob else "name_b64"
    keys = {"!refuge", "gid", "mode", "mtime_ns", name_key, "parts", "size", "uid"}
    must(blob["!refuge"] == "file/1" and set(blob) in (keys, keys | {"prev"}), "members")
    # No key or number of a file blob needs more of RFC 8785 than sorted keys without blanks.
    form = json.dumps(blob, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    must(form.encode("utf-8") == data, "form")
    must(all(type(blob[key]) is int and 0 <= blob[key] < 2**32 for key in ("gid", "uid", "mode")), "numbers")
    must(blob["mode"] <= 0o7777, "mode")
    for digits in [blob["size"]] + [part["len"] for part in blob["parts"]]:
        must(re.match(r"(0|[1-9][0-9]*)\Z", digits) and int(digits) < 2**63, "sizes")
    must(re.match(r"(0|-?[1-9][0-9]*)\Z", blob["mtime_ns"]), "mtime_ns")
    refs = [part["ref"] for part in blob["parts"]] + [blob[key] for key in ("prev",) if key in blob]
    must(all(set(part) == {"len", "ref"} for part in blob["parts"]) and all(map(REF.match, refs)), "parts")
    must(sum(int(part["len"]) for part in blob["parts"]) == int(blob["size"]), "sum of the parts")
    name = blob["name"].encode() if name_key == "name" else base64.b64decode(blob["name_b64"], validate=True)
    must(0 < len(name) <= 1024 and not set(name) & {0, 0x2f} and name not in (b".", b".."), "name")
    return dict(blob, name=name, size=int(blob["size"]), mtime_ns=int(blob["mtime_ns"]),
                parts=[(part["ref"], int(part["len"])) for part in blob["parts"]])


def chunks(data):
    """Sizes of the chunks of some content."""
    gear = [int.from_bytes(hashlib.sha256(bytes([b])).digest()[:8], "little") for b in range(256)]
    start = 0
    while start < len(data):
        end, hashed = min(start + MAX, len(data)), 0
        at = min(start + MIN, end)
        while at < end:
            hashed = ((hashed << 1) + gear[data[at]]) & (2**64 - 1)
            at += 1
            if hashed >> (42 if at - start <= NORMAL else 46) == 0:
                break
        yield at - start
        start = at


def check_golden():
    import tap
    with open(os.path.join(HERE, "file-1.golden"), "rb") as file:
        data = file.read()
    blob = read(data)
    tap.ok(blob["name"] == 'café "1".txt'.encode(), "name", blob)
    tap.ok(blob["size"] == 2**32 + 3 and [size for _, size in blob["parts"]] == [2**32, 3], "sizes", blob)
    tap.ok(blob["parts"][1][0] == "sha256-" + hashlib.sha256(b"abc").hexdigest() == blob["prev"], "refs")
    numbers = (blob["mode"], blob["uid"], blob["gid"], blob["mtime_ns"])
    tap.ok(numbers == (0o644, 1000, 100, -1), "numbers", blob)
    for what, wrong in (("a blank", data.replace(b",", b", ", 1)),
                        ("a wrong sum", data.replace(b'"3"', b'"4"')),
                        ("another version", data.replace(b"file/1", b"file/2"))):
        try:
            read(wrong)
            tap.ok(False, what + " is refused")
        except ValueError:
            tap.ok(True, what + " is refused")
    # The format page's vector: SHA-256 of 0, 1, 2, ... as 8 little-endian bytes, 6 MiB of it.
    content = b"".join(hashlib.sha256(n.to_bytes(8, "little")).digest() for n in range((6 << 20) // 32))
    found = list(chunks(content))
    tap.ok(found == VECTOR, "chunks of the format page's vector", found)
    tap.done()


VECTOR = [1281680, 1512000, 1438185, 879644, 1179947]

if __name__ == "__main__":
    if len(sys.argv) == 1:
        check_golden()
    else:
        with open(sys.argv[-1], "rb") as file:
            content = file.read()
        print(*(chunks(content) if sys.argv[1] == "--chunks" else read(content).items()), sep="\n")
