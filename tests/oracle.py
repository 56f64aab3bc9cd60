#!/usr/bin/env python3
"""oracle.py - maps JSON, JSON lines and CSV itself, and compares with an index

    tests/oracle.py HOME [--refuge PROGRAM] [--index NAME] [--log]

Written from what doc/refuge-mapper.7 says of the bundled mapper `record`, and from the comment at the
head of examples/mappers/countries.lua; it shares no line with refuge and uses Python's standard
library only. Of refuge it asks which items there are and their bytes, and hashes those itself; with --log
the bytes come from the store's files, read by tests/format/read_store.py.
Compared are the rows of table `record` per item in order, the edges to parts, which items are dead
letters of that mapper, and, when the index has it, table `countries`. Prints each difference; exit
status 1 when there is one.
"""
import argparse
import collections
import hashlib
import itertools
import json
import math
import os
import re
import sqlite3
import subprocess
import sys

sys.dont_write_bytecode = True
sys.setrecursionlimit(8000)

JSON_MEDIA, LINES_MEDIA = "application/json", "application/x-ndjson"
CSV_MEDIA, TSV_MEDIA = "text/csv", "text/tab-separated-values"
CSV_BROKEN = "application/vnd.refuge.csv-broken"
QUOTE_MAX = 7 << 20  # bytes behind the beginning of a row where a quote must have ended
ENDINGS = {"json": JSON_MEDIA, "geojson": JSON_MEDIA, "jsonl": LINES_MEDIA, "ndjson": LINES_MEDIA,
           "csv": CSV_MEDIA, "tsv": TSV_MEDIA, "tab": TSV_MEDIA}
DEPTH_MAX = 1024
SPACE = " \t\n\r"
BOM = b"\xef\xbb\xbf"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")

Item = collections.namedtuple("Item", "key name media data")


class Bad(Exception):
    """The item is no JSON or CSV: a dead letter."""


class OpenQuote(Bad):
    """A quote of CSV does not end in the row that begins at self.at."""

    def __init__(self, at):
        super().__init__("a quoted cell does not end")
        self.at = at


# ---- JSON ----

class Pairs(list):
    """An object as its members in order, equal keys and all."""


class Number(str):
    """A number as it is written."""


def refuse(text):
    raise ValueError(text)


DECODER = json.JSONDecoder(object_pairs_hook=Pairs, parse_int=Number, parse_float=Number,
                           parse_constant=refuse)


def skip(text, at):
    while at < len(text) and text[at] in SPACE:
        at += 1
    return at


TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[][{}]', re.DOTALL)


def check_depth(text, at):
    """Brackets outside of strings nest at most so deep; done by hand, before any recursion."""
    level = 0
    for token in TOKEN.finditer(text, at):
        char = token.group()
        if char in "[{":
            level += 1
            if level > DEPTH_MAX:
                raise Bad("nested too deep")
        elif char in "]}":
            level -= 1
        if level <= 0:
            return


def check_text(value):
    """No half of a surrogate pair, which is also what stands for a byte that is no UTF-8."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Bad(str(error)) from error
    elif isinstance(value, list):
        for member in value:
            check_text(member)
    elif isinstance(value, tuple):
        for half in value:
            check_text(half)


def value_at(text, at):
    """(value, end) of the JSON value at this place."""
    check_depth(text, at)
    try:
        value, end = DECODER.raw_decode(text, at)
    except (ValueError, RecursionError, IndexError) as error:
        raise Bad(str(error)) from error
    check_text(value)
    return value, end


def elements(text, at):
    """[(start, end)] of an array's elements when all are objects and there is one; else None.
    text[at] is the opening bracket of a well-formed array."""
    found, at = [], skip(text, at + 1)
    while text[at] != "]":
        value, end = value_at(text, at)
        if not isinstance(value, Pairs):
            return None
        found.append((at, end))
        at = skip(text, end)
        if text[at] == ",":
            at = skip(text, at + 1)
    return found or None


def is_array(value):
    return isinstance(value, list) and not isinstance(value, Pairs)


def line_records(text, at, lines):
    """[(start, end)] of JSON lines: of objects, one behind the other; with lines, of the rest of a line
    where there is none."""
    found, objects = [], 0
    while at < len(text):
        end = None
        if text[at] == "{":
            try:
                end = value_at(text, at)[1]
                objects += 1
            except Bad:
                if not lines:
                    raise
        elif not lines:
            raise Bad("more behind the value")
        if end is None:
            line = text.find("\n", at)
            end = at + len(text[at:line if line >= 0 else len(text)].rstrip(SPACE))
        found.append((at, end))
        at = skip(text, end)
    return found if objects else None


def records(text, lines):
    """[(start, end)] of the records of a text that holds several; None when it is one itself. lines:
    its media type says that it is JSON lines."""
    start = skip(text, 0)
    if start == len(text):
        raise Bad("empty")
    try:
        value, end = value_at(text, start)
    except Bad:
        found = line_records(text, start, True) if lines and text[start] != "[" else None
        if found is None:
            raise
        return found
    behind = skip(text, end)
    if behind == len(text):
        if isinstance(value, Pairs):
            if len(value) != 1 or not is_array(value[0][1]):
                return None
            at = skip(text, start + 1)
            at = skip(text, value_at(text, at)[1])  # behind the only key
            return elements(text, skip(text, at + 1))
        return elements(text, start) if is_array(value) else None
    if not isinstance(value, Pairs):
        found = line_records(text, start, True) if lines and not is_array(value) else None
        if found is None:
            raise Bad("more behind the value")
        return found
    # The first line is an object and not all: the others may be broken.
    lines = lines or ("\n" not in text[start:end] and "\n" in text[end:behind])
    return line_records(text, start, lines)


def flatten(value, path=""):
    """(key, value, kind, number) of every scalar, in order."""
    if isinstance(value, list):
        members = value if isinstance(value, Pairs) else enumerate(value)
        for key, member in members:
            step = str(key).replace("~", "~0").replace("/", "~1")
            yield from flatten(member, path + "/" + step if path else step)
    elif isinstance(value, Number):
        number = float(value)
        yield path, str(value), "number", number + 0.0 if math.isfinite(number) else None
    elif isinstance(value, bool):
        yield path, "true" if value else "false", "boolean", None
    elif value is None:
        yield path, None, "null", None
    else:
        yield path, value, "string", None


# ---- CSV ----

def csv_rows(data, delimiter):
    """Lists of cells as bytes; empty lines are passed over."""
    plain = re.compile(rb"[^\r\n%s]*" % re.escape(delimiter))
    row, at, start = [], 0, 0
    while at < len(data):
        cell = bytearray()
        start = start if row else at
        if data[at:at + 1] == b'"':
            end = data.find(b'"', at + 1)
            while end >= 0 and data[end + 1:end + 2] == b'"':
                cell += data[at + 1:end + 1]
                at, end = end + 1, data.find(b'"', end + 2)
            if end < 0 or end >= start + QUOTE_MAX:
                raise OpenQuote(start)
            cell += data[at + 1:end]
            at = end + 1
            touched = True
        else:
            touched = bool(row)
        rest = plain.match(data, at)
        cell += rest.group()
        touched = touched or bool(cell)
        at = rest.end() + 1
        stop = data[rest.end():at]
        if stop == delimiter:
            row.append(bytes(cell))
            if at < len(data):
                continue
            cell = b""  # a delimiter at the very end
            touched = True
        if stop == b"\r" and data[at:at + 1] == b"\n":
            at += 1
        if touched:
            yield row + [bytes(cell)]
        row = []


def sniff(data):
    """The delimiter on whose number of cells the first lines agree, the most cells winning; else the
    one that splits the first line into the most."""
    best, most = b",", 1
    for lines in (20, 1):
        for delimiter in (b",", b";", b"\t", b"|"):
            counts = set()
            try:
                for row in itertools.islice(csv_rows(data, delimiter), lines):
                    counts.add(len(row))
            except OpenQuote:
                pass  # that row tells nothing
            if len(counts) == 1 and max(counts) > most:
                best, most = delimiter, max(counts)
        if most > 1:
            break
    return best


def cell_text(cell):
    try:
        return cell.decode("utf-8")
    except UnicodeDecodeError:
        return cell.decode("cp1252", "replace")


def header_names(texts):
    names = []
    for number, text in enumerate(texts, 1):
        name = base = text or "column_%d" % number
        copy = 2
        while name in names:
            name = "%s_%d" % (base, copy)
            copy += 1
        names.append(name)
    return names


def canonical(members):
    """RFC 8785 of a flat object of strings."""
    ordered = sorted(members.items(), key=lambda pair: pair[0].encode("utf-16-be"))
    return json.dumps(dict(ordered), ensure_ascii=False, separators=(",", ":")).encode()


def csv_records(data, delimiter):
    data = data[3:] if data.startswith(BOM) else data
    if data[:4] == b"sep=" and data[5:6] in (b"\n", b"\r"):
        delimiter = delimiter or data[4:5]
        data = data[7:] if data[5:7] == b"\r\n" else data[6:]
    rows = csv_rows(data, delimiter or sniff(data))
    names = header_names([cell_text(cell) for cell in next(rows, [])])
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except OpenQuote as quote:  # what is behind it is one item that cannot be read
            yield data[quote.at:], CSV_BROKEN
            return
        if len(row) > len(names):
            names = header_names(names + [""] * (len(row) - len(names)))
        yield canonical(dict(zip(names, map(cell_text, row)))), JSON_MEDIA


# ---- items ----

def media_of(name, data):
    if data[:4] == b"\xff\xfe\0\0":
        return None
    ending = name.rsplit(".", 1)[-1].lower() if name and "." in name[1:] else ""
    if ending in ENDINGS:
        return ENDINGS[ending]
    if name is None and data[:1] in (b"{", b"["):
        return JSON_MEDIA
    return None


class Expected:
    """What an index of these items holds of the mapper `record`."""

    def __init__(self, items):
        self.rows = {}     # item key -> [(key, value, kind, number)]
        self.edges = {}    # item key -> [part key]
        self.dead = set()
        for item in items:
            self.add(item, frozenset([hash_of(item.data)]))

    def add(self, item, ancestors):
        if item.key in self.rows or item.key in self.edges or item.key in self.dead:
            return
        try:
            rows, parts = self.map(item)
        except Bad:
            self.dead.add(item.key)
            return
        # A part with the bytes of an ancestor would be its own grandchild: no item, no edge.
        parts = [part for part in parts if hash_of(part.data) not in ancestors]
        if rows:
            self.rows[item.key] = rows
        if parts:
            self.edges[item.key] = [part.key for part in parts]
        for part in parts:
            self.add(part, ancestors | {hash_of(part.data)})

    @staticmethod
    def map(item):
        if item.media and item.data[:2] in UTF_16:
            return [], [part_of(item.data.decode("utf-16").encode(), item.media)]
        if item.media in (CSV_MEDIA, TSV_MEDIA):
            delimiter = b"\t" if item.media == TSV_MEDIA else None
            return [], [part_of(*part) for part in csv_records(item.data, delimiter)]
        if item.media == CSV_BROKEN:
            raise Bad("the rest of a text behind a quote that does not end")
        if item.media not in (JSON_MEDIA, LINES_MEDIA):
            return [], []
        data = item.data[3:] if item.data.startswith(BOM) else item.data
        text = data.decode("utf-8", "surrogateescape")
        found = records(text, item.media == LINES_MEDIA)
        if found is not None:
            return [], [part_of(text[start:end].encode("utf-8", "surrogateescape"))
                        for start, end in found]
        return list(flatten(value_at(text, skip(text, 0))[0])), []


def hash_of(data):
    return "sha256-" + hashlib.sha256(data).hexdigest()


def part_of(data, media=JSON_MEDIA):
    return Item("%s;%s" % (hash_of(data), media), None, media, data)


# ---- the index ----

def rows_of(database, query):
    found = {}
    for row in database.execute(query):
        found.setdefault(row[0], []).append(row[1] if len(row) == 2 else row[1:])
    return found


def without_pieces(edges):
    """A large text is cut into pieces first: their parts stand in their place."""
    def whole(parts):
        for part in parts:
            if part.endswith("-piece"):
                yield from whole(edges.get(part, []))
            else:
                yield part

    return {key: list(whole(parts)) for key, parts in edges.items() if not key.endswith("-piece")}


def clean(row):
    """As an index stores it: NUL is dropped from text."""
    key, value, kind, number = row
    return (key.replace("\0", ""), value.replace("\0", "") if value is not None else None, kind,
            number)


def differences(what, got, want):
    for key in sorted(set(got) | set(want)):
        if got.get(key) != want.get(key):
            yield "%s of %s: got %s, want %s" % (what, key, shown(got.get(key)), shown(want.get(key)))


def shown(value):
    text = repr(value)
    return text if len(text) < 300 else text[:300] + "..."


def records_of(database):
    return rows_of(database, "SELECT b.item, r.key, r.value, r.kind, r.number FROM record r "
                             "JOIN blobs b ON b.id = r.blob ORDER BY b.item, r.n")


def compare_records(database, expected):
    """What the mapper `record` left in any kind of database, beside what these items should give."""
    problems = list(differences(
        "rows", records_of(database),
        {key: [clean(row) for row in rows] for key, rows in expected.rows.items()}))
    problems += differences(
        "parts",
        without_pieces(rows_of(database, "SELECT parent, part FROM refuge_edges WHERE "
                                         "mapper = 'record' ORDER BY parent, n")),
        expected.edges)
    problems += differences(
        "dead letters",
        {row[0]: 1 for row in database.execute(
            "SELECT item FROM refuge_errors WHERE mapper = 'record'")},
        {key: 1 for key in expected.dead})
    return problems


def lost_and_doubled(database, expected):
    """How many rows of table `record` are missing, and how many are there too often or too many."""
    got = collections.Counter((key,) + row for key, rows in records_of(database).items()
                              for row in rows)
    want = collections.Counter((key,) + clean(row) for key, rows in expected.rows.items()
                               for row in rows)
    return sum((want - got).values()), sum((got - want).values())


def compare(path, items):
    """Differences between the index file and what these items should give."""
    database = sqlite3.connect("file:%s?mode=ro" % path, uri=True)
    try:
        problems = compare_records(database, Expected(items))
        tables = {row[0] for row in database.execute("SELECT name FROM sqlite_schema")}
        if "countries" in tables:
            problems += compare_countries(database, items)
    finally:
        database.close()
    return problems


def compare_countries(database, items):
    """The example mapper: a row per entry of ISO 3166-1 as the package iso-codes has it."""
    want = {}
    for item in items:
        if item.media != JSON_MEDIA:
            continue
        try:
            value = json.loads(item.data.decode("utf-8"))
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and isinstance(value.get("3166-1"), list):
            for entry in value["3166-1"]:
                name = entry.get("common_name", entry["name"])
                want[entry["alpha_2"]] = [(entry["alpha_3"], int(entry["numeric"]), name,
                                           entry.get("official_name", entry["name"]))]
    got = rows_of(database, "SELECT code, alpha_3, number, name, official_name FROM countries "
                            "ORDER BY code")
    return list(differences("country", got, want))


# ---- a home ----

_contents = {}  # a blob's name is its content's hash: what was fetched once is right for ever


def fetch(refuge, home, *arguments):
    env = dict(os.environ, REFUGE_HOME=home)
    done = subprocess.run([refuge] + list(arguments), env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise RuntimeError("refuge %s: %s" % (" ".join(arguments), done.stderr.decode()))
    return done.stdout


def content_of(refuge, home, ref):
    """(name or None, content) of an item, its parts joined here."""
    if ref not in _contents:
        raw = fetch(refuge, home, "get", "--raw", ref)
        if hash_of(raw) != ref:
            raise RuntimeError("%s does not hash to its name" % ref)
        _contents[ref] = joined(raw, lambda part: fetch(refuge, home, "get", "--raw", part))
    return _contents[ref]


def joined(raw, part):
    """(name or None, content) of a blob's bytes; part(ref) gives those of another."""
    if not raw.startswith(b'{"!refuge":"'):
        return None, raw
    schema = json.loads(raw)
    return schema.get("name", ""), b"".join(part(one["ref"]) for one in schema["parts"])


def items_of(refuge, home):
    """The items of a home's store, by its change queue."""
    alive = {}
    for line in fetch(refuge, home, "changes", "--json").decode().splitlines():
        change = json.loads(line)
        if "seq" not in change:
            continue
        if change["op"] == "delete":
            alive.pop(change["ref"], None)
        elif not change["part"] or change["op"] == "lift":
            alive[change["ref"]] = True
    for ref in alive:
        name, data = content_of(refuge, home, ref)
        yield Item(ref, name, media_of(name, data), data)


def read_log(home):
    """Take the contents from the store's log by the second reader, which starts no program for each."""
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "format"))
    import read_store  # pylint: disable=import-outside-toplevel
    raws = {"sha256-" + record["digest"].hex(): payload
            for record, payload in read_store.changes(os.path.join(home, "store", "home"))
            if payload is not None}
    for ref, raw in raws.items():
        _contents[ref] = joined(raw, raws.__getitem__)


def compare_home(home, refuge, index="main"):
    return compare(os.path.join(home, "index", index + ".db"), list(items_of(refuge, home)))


def main():
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("home")
    parser.add_argument("--refuge", default=os.environ.get(
        "REFUGE", os.path.join(top, "build", "dev", "bin", "refuge")))
    parser.add_argument("--index", default="main")
    parser.add_argument("--log", action="store_true")
    options = parser.parse_args()
    if options.log:
        read_log(options.home)
    problems = compare_home(options.home, options.refuge, options.index)
    for problem in problems[:50]:
        print(problem)
    print("%d differences" % len(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
