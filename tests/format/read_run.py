#!/usr/bin/env python3
"""read_run.py - a second reader of lookup runs, from doc/format-run.md alone

With a file: lists its entries. Without: checks the golden run of the format page. Python has no
XXH3, so checksums are not recomputed here (tests/unit/test_run.c damages every kind of byte); this
reader checks structure, order, counts and sums.
"""
import hashlib
import os
import struct
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

TRAILER = "magic version entry_size count pages min_seq max_seq tag sources footer deleted".split()
ENTRY = "digest algo flags zero life seq size timestamp_us segment offset stored".split()


def must(condition, what):
    if not condition:
        raise ValueError(what)


def read_pages(data, trailer):
    for page in range(trailer["pages"]):
        start = page * 4096
        _, number, here = struct.unpack_from("<QII", data, start)
        must(number == page and here == min(51, trailer["count"] - 51 * page), "page %d" % page)
        for at in range(start + 16, start + 16 + here * 80, 80):
            yield dict(zip(ENTRY, struct.unpack_from("<32sBBHIQQqQII", data, at)))
        must(not any(data[start + 16 + here * 80:start + 4096]), "zeros behind the entries")


def read(data):
    """(trailer, sources, entries); ValueError when a rule of the page is broken."""
    trailer = dict(zip(TRAILER, struct.unpack_from("<8sIIQQQQQIIQ", data, len(data) - 128)))
    must(trailer["magic"] == b"RFRUN001" and trailer["version"] == 1, "magic or version")
    must(trailer["entry_size"] == 80, "entry size")
    footer = len(data) - trailer["footer"]
    must(trailer["footer"] == 256 * 48 + 24 * trailer["sources"] + 128, "footer size")
    must(trailer["pages"] == -(-trailer["count"] // 51) and footer == trailer["pages"] * 4096, "pages")
    entries = list(read_pages(data, trailer))
    digests = [entry["digest"] for entry in entries]
    must(all(a < b for a, b in zip(digests, digests[1:])), "order")
    must(trailer["deleted"] == sum(entry["flags"] & 1 for entry in entries), "tombstones")
    for byte in range(256):
        first, count, total = struct.unpack_from("<QQ32s", data, footer + byte * 48)
        alive = [e["digest"] for e in entries if e["digest"][0] == byte and not e["flags"] & 1]
        must(first == sum(d[0] < byte for d in digests), "first entry of prefix %02x" % byte)
        must(count == len(alive), "count of prefix %02x" % byte)
        want = sum(int.from_bytes(d, "big") for d in alive) % 2**256
        must(int.from_bytes(total, "big") == want, "sum of prefix %02x" % byte)
    sources = [struct.unpack_from("<QQQ", data, footer + 256 * 48 + i * 24)
               for i in range(trailer["sources"])]
    return trailer, sources, entries


def check_golden():
    import tap
    with open(os.path.join(HERE, "run-1.golden"), "rb") as file:
        data = file.read()
    trailer, sources, entries = read(data)
    tap.ok(sources == [(1, 1, 3), (4, 4, 6)], "sources", sources)
    got = [trailer[name] for name in ("count", "deleted", "min_seq", "max_seq")]
    tap.ok(got == [4, 1, 1, 6], "trailer", trailer)
    by_seq = {entry["seq"]: entry for entry in entries}
    for seq, text, flags, life, segment, offset in (
            (1, b"abc", 0, 1, 1, 96), (2, b"", 2, 1, 1, 200), (5, b"hello\n", 0, 3, 4, 200),
            (6, b"gone", 1, 2, 4, 304)):
        entry = by_seq[seq]
        tap.ok(entry["digest"] == hashlib.sha256(text).digest() and entry["algo"] == 1,
               "digest of entry %d" % seq, entry)
        got = [entry[name] for name in ("flags", "life", "segment", "offset", "size", "stored")]
        stored = 0 if flags & 1 else len(text)
        tap.ok(got == [flags, life, segment, offset, len(text), stored], "fields of entry %d" % seq, got)
        tap.ok(entry["timestamp_us"] == 1700000000000000 + seq, "its timestamp", entry)
    broken = bytearray(data)
    broken[16], broken[96] = broken[96], broken[16]
    try:
        read(bytes(broken))
        tap.ok(False, "entries out of order are refused")
    except ValueError as error:
        tap.ok(True, "entries out of order are refused (%s)" % error)
    tap.done()


if __name__ == "__main__":
    if len(sys.argv) == 1:
        check_golden()
    else:
        with open(sys.argv[1], "rb") as run:
            for line in read(run.read())[2]:
                print("sha256-%s " % line.pop("digest").hex() +
                      " ".join("%s=%s" % pair for pair in line.items() if pair[0] != "zero"))
