#!/bin/sh
# t0140-oracle.sh - the rows of `record` and of the countries example are what the oracle maps itself
#
# Over real data (iso-codes, when it is there), awkward files, and files drawn from the seed.
. "$(dirname "$0")/lib.sh"

seed=${REFUGE_TEST_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
note "seed $seed (again: REFUGE_TEST_SEED=$seed)"
mkdir "$tmp/in"
python3 - "$tmp/in" "$seed" <<'PYTHON'
import json, os, random, sys
folder, rng = sys.argv[1], random.Random(int(sys.argv[2]))

def write(name, data):
    with open(os.path.join(folder, name), "wb") as file:
        file.write(data if isinstance(data, bytes) else data.encode("utf-8"))

write("object.json", '{"a": {"b/c": [1, {"d~": null}]}, "": 2, "t": true, "big": 9007199254740993}')
write("equal-keys.json", '{"a": 1, "a": 2}')
write("numbers.json", '[0, -0, -0.0, 1e3, 1E-7, 123456789012345678901234567890, 5e-324, 1e999]')
write("strings.json", '["\\u0000nul", "\\ud83d\\ude00", '
      '"caf\\u00e9 \u4e2d\u6587", "\\"\\\\\\/\\b\\f\\n\\r\\t"]')
write("empty-array.json", '[]')
write("empty-object.json", '{}')
write("scalar.json", ' "alone" ')
write("mixed.json", '[{"a": 1}, 2]')
write("wrapped.json", '{ "rows" : [ {"a": 1} , {"b": [] } ] }')
write("wrapped-mixed.json", '{"rows": [{"a": 1}, 5]}')
write("nested-wrapped.json", '[{"inner": [{"x": 1}, {"x": 2}]}]')
write("bom.json", b'\xef\xbb\xbf[{"a": 1}]')
write("same.json", '[{"a": 1}, {"a": 1}, {"a":1}]')
write("lines.jsonl", '{"a": 1}\n\n{"b": 2}\n {"c": [1, 2]} \n')
write("one-line.jsonl", '{"only": 1}\n')
write("deep.json", "[" * 1000 + "]" * 1000)
write("too-deep.json", "[" * 3000 + "]" * 3000)
write("broken.json", '{"a": 1')
write("broken-line.jsonl", '{"a": 1}\n{"b": }\n')
write("broken-first.jsonl", 'not this\n{"a": 2}\r\n\n[1, 2]\n"text" \n{"a": {"b": 1}}} \n')
write("all-broken.jsonl", 'not this\n{"a": }\n')
write("scalars.jsonl", '1\n2\n')
write("lines.json", '{"a": 3}\n{"b": tru}\n{"c": "\\ud800"}\n{"d": [1,\n{"e": 1}\n')
write("pretty.json", '{\n"a": 1\n}\n{"b": }\n')
write("one-line-two.json", '{"a": 4} {"b": }\n')
write("bad-utf8.jsonl", b'{"a": 5}\n{"a": "\xff"}\n{"a": 6}')
write("deep-line.jsonl", '{"a": 7}\n{"a": ' + "[" * 1100 + "]" * 1100 + '}\n{"a": 8}\n')
write("open-quote.jsonl", '{"a": 9}\n{"a": "open\n{"a": 10}\n{"a": "')
write("thousand.jsonl", "".join('{"row": %s}\n' % (n if n != 500 else "") for n in range(1000)))
write("utf-16.json", '[{"a": "\u00fc\U0001f600"}, {"b": 2}]'.encode("utf-16"))
write("utf-16.jsonl", b"\xfe\xff" + '{"a": 11}\n{"a": }\n{"a": "\u4e2d"}\n'.encode("utf-16-be"))
write("utf-16.csv", "k;v\r\n\u00fc;1\r\n".encode("utf-16"))
write("utf-16.tsv", "k\tv\r\n\u00fc\t1\r\n".encode("utf-16"))
write("utf-32.json", '[{"a": 12}]'.encode("utf-32"))
write("not-utf8.json", b'{"a": "\xff"}')
write("nothing.json", '')
write("plain.csv", 'name,town\nAda,London\nGrace,"New York"\n')
write("quotes.csv", 'a;b\r\n"x;""y""";"two\r\nlines"\r\n\r\nlast;row')
write("ragged.csv", 'a,b,\n1\n1,2,3,4,5\n,,\n')
write("names.csv", 'a,a,a_2,\n1,2,3,4\n')
write("latin.csv", b'name,word\nJos\xe9,na\xefve\n')
write("sep.csv", 'sep=;\na;b\n1;2\n')
write("bom.csv", b'\xef\xbb\xbfk,v\n1,2\n')
write("bars.csv", 'a|b|c\n1|2|3\n')
write("unended.csv", 'a,b\n"1,2\n')
write("unended-header.csv", 'a,"b\n1,2\n')
write("unended-late.csv", '\xef\xbb\xbfa;b\r\n1;"x\ny"\r\n\r\n3;"4"",\r\n5;6\r\n')
write("unended-doubled.csv", 'a,b\n1,2\n3,"4""\n5,""\n')
write("unended-other.csv", 'a;x,b\nc;2,"d\n')
write("unended-first.tsv", '"a\tb\n')
write("header-only.csv", 'a,b\n')
write("tabs.tsv", 'a\tb\n1\t"2\t3"\n')

# Above 2 MiB: cut into pieces first, which must not show in the records.
def wide(number):
    return "%d " % number + "wide, \u00e9\n" * 900

def quoted(text):
    return '"%s"' % text.replace('"', '""')

write("large.csv", 'id,"two\nlines",na"me,\n' + "".join(
    '%d,%s,plain,%s\n%s' % (n, quoted(wide(n)), n if n % 3 else "x,y", "\n" if n % 50 == 0 else "")
    for n in range(300)))
write("large-unended.csv", "id,text\n" + "".join("%d,%s\n" % (n, quoted(wide(n))) for n in range(300)) +
      '300,"open\n' + "".join("%d,plain\n" % n for n in range(2000)))
write("large-unended-early.csv", 'id;text\n1;one\n2;"two\n' + "".join(
    "%d;plain text\n" % n for n in range(700000)) + '"')
write("large-unended-first.csv", 'id;text\n"2;two\n' + "".join(
    "%d;plain text\n" % n for n in range(200000)))
write("large.tsv", "id\ttext\r\n" + "".join("%d\t%s\r\n" % (n, quoted(wide(n))) for n in range(250)))
write("large-latin.csv", b"sep=;\nk;v\n" + b"".join(
    b"%d;%s\n" % (n, b"na\xefve " * 1500) for n in range(250)))
write("large.jsonl", "".join(json.dumps({"n": n, "w": wide(n)}) + "\n" for n in range(300)))
write("large.json", json.dumps([{"n": n, "w": wide(n)} for n in range(300)], indent=1))
write("large-wrapped.json", json.dumps({"rows": [{"n": n // 2, "w": wide(n // 2)} for n in range(300)]}))
write("large-one.json", json.dumps([{"n": 1}, {"w": wide(1) * 300}, {"n": 2}]))
write("large-object.json", json.dumps({"w": wide(1) * 300, "n": 1}))
write("large-broken.jsonl", "".join(
    json.dumps({"w": wide(n)}) + "\n" + ("{ %d\n" % n if n % 70 == 0 else "") for n in range(300)))
write("large-broken-first.jsonl", "{\n" + "".join(
    json.dumps({"x": wide(n)}) + "\n" for n in range(300)) + "[1]\n{")
write("large-pretty.json", '{"a":\n1}\n' + "".join(
    json.dumps({"w": wide(n)}) + "\n" for n in range(300)) + "{\n")

def value(depth):
    kind = rng.randrange(8 if depth < 4 else 6)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind < 3:
        return rng.choice([rng.randrange(-10**6, 10**6), rng.random() * 10 ** rng.randrange(-5, 9)])
    if kind < 6:
        return "".join(rng.choice("ab/~ \"\\,;\n\t\u00e9\u4e2d\U0001f600") for _ in range(rng.randrange(9)))
    if kind == 6:
        return [value(depth + 1) for _ in range(rng.randrange(5))]
    return {value_key(): value(depth + 1) for _ in range(rng.randrange(5))}

def value_key():
    return "".join(rng.choice("kxy/~\u00fc") for _ in range(rng.randrange(1, 4)))

def record():
    return {value_key(): value(1) for _ in range(rng.randrange(6))}

for number in range(60):
    style = dict(ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1, 2]))
    write("object%02d.json" % number, json.dumps(value(0), **style))
    write("array%02d.json" % number, json.dumps([record() for _ in range(rng.randrange(8))], **style))
    write("lines%02d.jsonl" % number,
          "".join(json.dumps(record()) + "\n" for _ in range(rng.randrange(1, 8))))

for number in range(40):
    delimiter, end = rng.choice(",;\t|"), rng.choice(["\n", "\r\n"])
    columns = rng.randrange(2, 6)
    lines = [["col%d" % column for column in range(columns)]]
    for _ in range(rng.randrange(12)):
        lines.append(["".join(rng.choice("ab \"\n\u00e9\u4e2d") for _ in range(rng.randrange(6)))
                      for _ in range(columns)])
    def cell(text):
        plain = text and not set(text) & set('"\n\r' + delimiter)
        return text if plain else '"%s"' % text.replace('"', '""')
    text = end.join(delimiter.join(map(cell, line)) for line in lines) + rng.choice(["", end])
    write("table%02d.csv" % number, text)
    quotes = [at for at, c in enumerate(text) if c == '"']
    if quotes:  # one is missing
        at = rng.choice(quotes)
        write("unended%02d.csv" % number, text[:at] + text[at + 1:])
PYTHON

run refuge init
run refuge put --quiet "$tmp/in"
status_is "files are put" 0
if [ -d /usr/share/iso-codes/json ]; then
    run refuge put --quiet --match '*.json' /usr/share/iso-codes/json
    cp "$source_dir/examples/mappers/countries.lua" "$REFUGE_HOME/mappers/"
    status_is "iso-codes are put" 0
else
    skip "iso-codes are put" "package iso-codes is not installed"
fi
printf '{"from": "a pipe"}' | refuge put - >/dev/null
run refuge index run
status_is "the index runs, broken files set aside" 3
run refuge sql --csv "select count(*) from record where key = 'row'"
out_matches "a broken line costs itself alone" '^999'
run refuge index errors
out_has "and is named by its number" "line 501 of thousand.jsonl"
out_has "also in a large file" "line 286 of large-broken.jsonl"
out_has "a quote of CSV that does not end costs what is behind it" "line 5 of unended-late.csv"
out_has "which has its line in a large file, too" "line 270302 of large-unended.csv"
out_matches "a file without a good line is set aside whole" '^all-broken.jsonl$'
run python3 "$source_dir/tests/oracle.py" "$REFUGE_HOME" --refuge "$REFUGE" --log
status_is "the oracle finds no other row" 0
out_is "and says so" "0 differences"
run refuge index verify
status_is "verify agrees" 0

# The oracle itself must notice.
python3 - "$REFUGE_HOME/index/main.db" <<'PYTHON'
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("UPDATE record SET value = 'London!' WHERE value = 'London'")
connection.commit()
PYTHON
run python3 "$source_dir/tests/oracle.py" "$REFUGE_HOME" --refuge "$REFUGE" --log
status_is "a changed cell is a difference" 1
done_testing
