"""tap.py - test points on stdout, for the tests written in Python

    import tap
    tap.ok(condition, "name", "why it is so when it is not")
    tap.done()

A line that starts with "## " is a remark scripts/test shows in its listing (counts, seeds).
"""
import sys

_count = 0
_failed = 0


def ok(condition, name, *details):
    """One point; details (text or lists of lines) are printed when it fails. Returns condition."""
    global _count, _failed
    _count += 1
    print("%sok %d - %s" % ("" if condition else "not ", _count, name.replace("#", "\\#")))
    if not condition:
        _failed += 1
        for detail in details:
            lines = detail if isinstance(detail, (list, tuple)) else str(detail).split("\n")
            for line in lines:
                print("# " + str(line))
    sys.stdout.flush()
    return bool(condition)


def skip(name, reason):
    global _count
    _count += 1
    print("ok %d - %s # SKIP %s" % (_count, name, reason))


def note(text):
    for line in str(text).split("\n"):
        print("# " + line)
    sys.stdout.flush()


def remark(text):
    print("## " + text)
    sys.stdout.flush()


def done():
    print("1..%d" % _count)
    sys.stdout.flush()
    sys.exit(1 if _failed else 0)
