#!/usr/bin/env python3
"""crash_elastic.py - an index in Elasticsearch or OpenSearch, broken between any two requests

A proxy stands between the program and the server and counts the requests that change something. A point
is one of them, one way to break it, and a story: an index that follows its store, one whose mapper changed
(upgrade), or one at its first run (fresh).

    kill-before   SIGKILL before the server has it
    kill-after    SIGKILL when the server has done it
    lost          the server does it, the answer never comes; the program goes on
    late          SIGKILL, and the server gets it only after another run is through
    unseen        SIGKILL before a refresh of rows, which the next run finds nothing to do behind
    twice         SIGKILL behind a write of items or rows, and of the next run, which clears up, likewise
    doomed        SIGKILL when the server has deleted an index that a newer one took the place of

    refuse        the server is given one row that it cannot take; the rest must be stored

After it (not after `unseen`) blobs are deleted whose changes the broken run may have been writing, one
more run is made, and the digest of the index must be that of an index in SQLite which nobody broke. A plain
search, which asks for no refresh, must find its rows.

A life is an index that is broken again and again while its mapper gets new versions under drawn policies:
by a request as above, or by SIGKILL at a drawn time. Behind each turn a run must end, `index verify` must
find nothing, and where the same policies came in the same order the digest must be that of the index in
SQLite. Every life has a seed of its own: `--lives 1 --seed N` is the one that was drawn as N.
"""
import http.client
import json
import os
import random
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import urllib.request

import faultlib
from faultlib import tap

DEADLINE = 60  # seconds; a run takes less than one
KINDS = ("kill-before", "kill-after", "lost", "late", "unseen", "twice", "doomed")
STORIES = ("plain", "upgrade", "fresh")
SERVERS = (("elasticsearch", "REFUGE_TEST_ELASTICSEARCH"), ("opensearch", "REFUGE_TEST_OPENSEARCH"))
MAPPER = os.path.join(faultlib.HERE, "history.lua")
VISITS = """
return {
    name = "visits",
    version = "%d",
    on = { "file" },
    match = { media = { "application/json" } },
    tables = { visits = { columns = { "number int", "place text search" } } },
    map = function(blob, emit)
        local item = blob:json()
        if item.fails then error("number " .. item.number .. " is not to be mapped") end
        for n = 1, item.number %% 3 + 1 do
            emit.visits { number = item.number * %d, place = item.place }
        end
    end,
}
"""


class Proxy(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

    def __init__(self, upstream):
        super().__init__(("127.0.0.1", 0), Handler)
        self.upstream = upstream
        self.lock = threading.Lock()
        self.plan, self.count, self.process, self.held, self.fired = None, 0, None, [], False
        self.spoil = None
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def arm(self, kind, number):
        with self.lock:
            self.plan, self.count = (kind, number), 0
            self.process, self.fired = None, False

    def disarm(self):
        with self.lock:
            self.plan = None

    def kind_of(self, method, path):
        """How this request is to be broken; None: not."""
        acts = method in ("PUT", "DELETE") or any(word in path for word in ("_bulk", "_aliases"))
        with self.lock:
            kind = self.plan[0] if self.plan and not self.fired else None
            if kind == "unseen":
                acts = "-history-" in path and path.endswith("/_refresh")
            elif kind == "twice": # what holds items and rows: not the state
                acts = path.startswith("/_bulk")
            elif kind == "doomed":
                acts = method == "DELETE"
            if not acts:
                return None
            self.count += 1
            if self.plan and self.count == self.plan[1] and not self.fired:
                self.fired = True
                return self.plan[0]
            # What is under way beside a request that kills does not arrive, either.
            return "drop" if self.fired and self.plan and self.plan[0] != "lost" else None

    def forward(self, request):
        method, path, headers, body = request
        if self.spoil:
            body = body.replace(*self.spoil)
        connection = http.client.HTTPConnection(self.upstream, timeout=120)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.getheader("content-type", "application/json"), data

    def kill(self):
        if self.process:
            self.process.kill()


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            while self.one():
                pass
        except (OSError, ValueError):
            pass

    def one(self):
        line = self.rfile.readline().decode("latin-1").split()
        if len(line) != 3:
            return False
        headers = {}
        while True:
            header = self.rfile.readline().decode("latin-1").rstrip("\r\n")
            if not header:
                break
            name, value = header.split(":", 1)
            headers[name.strip().lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length", 0)))
        keep = {name: headers[name] for name in ("content-type", "content-encoding")
                if name in headers}
        return self.serve((line[0], line[1], keep, body))

    def serve(self, request):
        proxy, kind = self.server, self.server.kind_of(request[0], request[1])
        if kind == "drop":
            return False
        if kind == "late":
            proxy.held.append(request)
        if kind in ("kill-before", "late", "unseen"):
            proxy.kill()
            return False
        status, content, data = proxy.forward(request)
        if kind in ("kill-after", "twice", "doomed"):
            proxy.kill()
        if kind in ("kill-after", "twice", "doomed", "lost"):
            return False
        self.wfile.write(b"HTTP/1.1 %d x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" %
                         (status, content.encode(), len(data)) + data)
        return True


class Home:
    """A home with an index in SQLite and one behind the proxy."""
    serial = 0

    def __init__(self, build, scheme, proxy, without):
        self.base = tempfile.mkdtemp(prefix="refuge-elastic.")
        self.build, self.proxy, self.without = build, proxy, without
        Home.serial += 1
        self.run("init")
        self.mapper = os.path.join(self.base, "home", "mappers", "history.lua")
        shutil.copy(MAPPER, self.mapper)
        self.url = "%s+http://127.0.0.1:%d#crash-%d-%d" % (scheme, proxy.server_address[1],
                                                           os.getpid(), Home.serial)

    def environment(self, without):
        env = {key: value for key, value in os.environ.items()
               if not key.startswith(("REFUGE", "XDG_"))}
        env.update(REFUGE_HOME=os.path.join(self.base, "home"), LC_ALL="C.UTF-8",
                   REFUGE_MAPPER=os.path.join(self.build, "bin", "refuge-mapper"))
        if without and self.without:
            env["REFUGE_WITHOUT"] = self.without
        return env

    def start(self, *arguments, without=True):
        return subprocess.Popen([os.path.join(self.build, "bin", "refuge"), *arguments],
                                env=self.environment(without), cwd=self.base,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def run(self, *arguments, good=(0,), without=True):
        process = self.start(*arguments, without=without)
        try:
            out = process.communicate(timeout=DEADLINE)[0].decode("utf-8", "replace")
        except subprocess.TimeoutExpired as late:
            process.kill()
            process.communicate()
            raise RuntimeError("%s: does not end" % " ".join(arguments)) from late
        if good and process.returncode not in good:
            raise RuntimeError("%s: status %d: %s" % (" ".join(arguments), process.returncode, out))
        return out

    def put(self, name, text):
        path = os.path.join(self.base, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return self.run("put", path).split()[0]

    def plain(self, name, rows):
        return self.put(name + ".json", '{"kind":"plain","id":"%s","rows":%d}' % (name, rows))

    def split(self, name, parts):
        inner = ",".join('{"kind":"plain","id":"p%d","rows":%d}' % (n, n) for n in parts)
        return self.put(name + ".json", '{"kind":"split","id":"%s","parts":[%s]}' % (name, inner))

    def rows(self):
        """How many rows a plain search finds, and how many there are in the index in SQLite."""
        base, _, prefix = self.url.split("+", 1)[1].partition("#")
        with urllib.request.urlopen("%s/%s-history/_search?size=0&track_total_hits=true" %
                                    (base, prefix), timeout=120) as answer:
            found = json.load(answer)["hits"]["total"]["value"]
        out = self.run("sql", "--index", "main", "--csv", "select count(*) from history")
        return found, int(out.split()[-1])

    def digest(self, index):
        return self.run("index", "digest", index).split()[0]

    def close(self):
        self.run("index", "drop", "es", good=())
        shutil.rmtree(self.base, ignore_errors=True)


def before(home, fresh):
    """What the index holds when it is broken, unless it is made then."""
    refs = {"a": home.plain("a", 2), "b": home.plain("b", 3), "s1": home.split("s1", (1, 2, 3)),
            "s2": home.split("s2", (2, 4))}
    home.put("poison.json", '{"kind":"poison","id":"x"}')
    refs["need"] = home.put("need.json", '{"kind":"need","id":"n","ref":"%s"}' % refs["b"])
    home.run("index", "create", "es", "--sink", home.url)
    if not fresh:
        home.run("index", "run", "es", good=(0, 3))
    return refs


def during(home, refs, upgrade):
    """What the broken run is to write."""
    refs["c"], refs["d"] = home.plain("c", 5), home.plain("d", 1)
    refs["s3"] = home.split("s3", (3, 5, 6))
    for name in ("a", "b", "s1"):
        home.run("delete", refs[name])
    if upgrade:
        with open(home.mapper, encoding="utf-8") as file:
            text = file.read()
        with open(home.mapper, "w", encoding="utf-8") as file:
            file.write(text.replace("VERSION = 1", "VERSION = 2"))


def after(home, refs):
    home.run("delete", refs["c"])
    home.run("delete", "--content", refs["s3"])
    home.plain("b", 3)


def break_run(home, proxy, kind, number, *more):
    """Whether the fault came about."""
    proxy.arm(kind, number)
    process = proxy.process = home.start("index", "run", "es", *more)
    try:
        process.communicate(timeout=120)
    except subprocess.TimeoutExpired as late:
        process.kill()
        process.communicate()
        raise RuntimeError("the broken run does not end") from late
    finally:
        proxy.disarm()
    return proxy.fired


def try_point(build, scheme, upstream, kind, numbers, story, without=None):
    """Words about what is wrong, None: nothing; and whether the faults came about."""
    proxy, fired = Proxy(upstream), True
    home = Home(build, scheme, proxy, without)
    try:
        refs = before(home, story == "fresh")
        during(home, refs, story == "upgrade")
        for turn, number in enumerate(numbers):
            if turn:
                home.run("delete", "--content", refs["d"])
            fired = break_run(home, proxy, kind, number) and fired
        if kind != "unseen":
            after(home, refs)
        out = home.run("index", "run", "es", good=())
        for request in proxy.held:
            proxy.forward(request)
        home.run("index", "run", "main", good=(0, 3), without=False)
        home.run("index", "run", "es", good=())
        found, there = home.rows()
        if found != there:
            return "a search finds %d rows of %d (%s)" % (found, there, out.strip()[-200:]), fired
        if home.digest("es") != home.digest("main"):
            found = home.run("index", "verify", "es", good=()).strip().split("\n")
            return "%s (%s)" % (" / ".join(found[:3]), out.strip()[-200:]), fired
        return None, fired
    except RuntimeError as wrong:
        return str(wrong), fired
    finally:
        home.close()
        proxy.shutdown()
        proxy.server_close()


class Life:
    """An index whose runs are broken while versions of its mapper come under policies."""

    def __init__(self, build, scheme, upstream, seed, without=None):
        self.random = random.Random(seed)
        self.proxy = Proxy(upstream)
        self.home = Home(build, scheme, self.proxy, without)
        self.version, self.serial, self.broken, self.told = 0, 0, 0, []
        self.refs = []  # that were put and not deleted
        self.same = True  # the index in SQLite came by the same policies

    def tell(self, *words):
        self.told.append(" ".join(map(str, words)))

    def new_version(self):
        self.version += 1
        with open(os.path.join(self.home.base, "home", "mappers", "visits.lua"), "w",
                  encoding="utf-8") as file:
            file.write(VISITS % (self.version, self.version))

    def put(self, count):
        folder = os.path.join(self.home.base, "in%d" % self.serial)
        os.makedirs(folder)
        for _ in range(count):
            self.serial += 1
            item = {"number": self.serial, "place": "place %d" % self.random.randrange(9),
                    "fails": self.random.random() < 0.1}
            lines = [json.dumps(item)]
            if self.random.random() < 0.4:  # parts, some of them in several files
                lines = [json.dumps({"number": self.random.randrange(12), "place": "part"})
                         for _ in range(self.random.randrange(1, 5))]
            name = "%s%d.json%s" % (self.random.choice("ab"), self.serial, "l" if lines[0] !=
                                    json.dumps(item) else "")
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")
        put = self.home.run("put", folder)
        self.refs += [line.split()[0] for line in put.splitlines() if line.startswith("sha256-")]

    def delete(self, count):
        gone = self.random.sample(self.refs, min(count, len(self.refs)))
        self.refs = [ref for ref in self.refs if ref not in gone]
        if gone:
            self.home.run("delete", "-q", *self.random.choice(((), ("--content",))), *gone)

    def policy(self):
        kind = self.random.choice(("full", "full", "forward", "since", "name", "name", "media"))
        return {"since": "since=%d" % self.random.randrange(1, 4 * self.serial + 2),
                "name": "match=%s*" % self.random.choice("ab"),
                "media": "match=application/json"}.get(kind, kind)

    def break_once(self, policy):
        kind = self.random.choice(("time", "kill-before", "kill-after", "late", "lost"))
        number = self.random.randrange(1, 40)
        after = self.random.random() * 0.8
        if kind == "time":
            self.tell("run", policy, "killed after %.2f s" % after)
            process = self.home.start("index", "run", "es", "--policy", policy)
            try:
                process.communicate(timeout=after)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                self.broken += 1
            return
        self.tell("run", policy, kind, number)
        self.broken += break_run(self.home, self.proxy, kind, number, "--policy", policy)

    def release(self):
        for request in self.proxy.held:
            self.proxy.forward(request)
        self.proxy.held = []

    def turn(self):
        pick = self.random.random
        if pick() < 0.7:
            self.new_version()
        if pick() < 0.7:
            self.put(self.random.randrange(1, 20))
        if pick() < 0.5:
            self.delete(self.random.randrange(1, 8))
        policy = self.policy()
        self.tell("version", self.version, "policy", policy)
        for _ in range(self.random.randrange(1, 4)):
            held = bool(self.proxy.held)
            self.break_once(policy)
            if held:
                self.release()
            if pick() < 0.2:
                self.put(self.random.randrange(1, 6))
            if pick() < 0.2:
                self.delete(self.random.randrange(1, 4))
            if pick() < 0.15: # the policies come in another order than in SQLite
                if policy != "full":
                    self.same = False
                    policy = self.policy()
                self.new_version()
        self.look(policy)

    def look(self, policy):
        out = self.home.run("index", "run", "es", "--policy", policy, good=(0, 3))
        self.release()
        self.home.run("index", "run", "es", "--policy", policy, good=(0, 3))
        self.home.run("index", "run", "main", "--policy", policy, good=(0, 3), without=False)
        self.home.run("index", "verify", "es")
        if self.same and self.home.digest("es") != self.home.digest("main"):
            raise RuntimeError("the digests differ: %s" % out.strip()[-300:])

    def live(self, turns):
        """Words about what is wrong, or None."""
        try:
            self.new_version()
            self.put(self.random.randrange(30, 100))
            self.home.run("index", "create", "es", "--sink", self.home.url)
            for _ in range(turns):
                self.turn()
            self.same = True
            self.new_version()
            self.look("full")
            before = self.home.digest("es")
            self.home.run("index", "rebuild", "--full", "es", good=(0, 3))
            if self.home.digest("es") != before:
                raise RuntimeError("a rebuild is something else")
            return None
        except RuntimeError as wrong:
            return "%s\n  %s" % (str(wrong)[-1500:], "\n  ".join(self.told[-12:]))
        finally:
            self.home.close()
            self.proxy.shutdown()
            self.proxy.server_close()


def live_many(build, seed, count, turns=6, without=None, stop_after=0):
    """Lives of as many seeds; how many runs were broken, and what is wrong."""
    broken, wrong = 0, []
    where = servers()
    for number in range(seed, seed + count):
        if stop_after and len(wrong) >= stop_after:
            break
        scheme, upstream = where[number % len(where)]
        life = Life(build, scheme, upstream, number, without)
        words = life.live(turns)
        broken += life.broken
        if words:
            wrong.append("life %d of %s: %s" % (number, scheme, words))
            tap.note(wrong[-1])
    return broken, wrong


def try_refusal(build, scheme, upstream, without=None):
    """One row of a blob is refused: that costs its blob alone, with the reason, and can be mended."""
    proxy = Proxy(upstream)
    home = Home(build, scheme, proxy, without)
    try:
        refs = before(home, False)
        during(home, refs, False)
        proxy.spoil = (b'"n":3,"words":["plain number 4"]},"key":"c"',
                       b'"n":"x","words":["plain number 4"]},"key":"c"')
        home.run("index", "run", "es", good=(3,))
        told = home.run("index", "errors", "es", good=(3,))
        if "c.json" not in told or "refused" not in told:
            return "it is not told of: " + told
        found = home.run("search", "--index", "es", "--limit", "100", "plain", good=(0, 1))
        if "d.json  history" not in found or "c.json  history" in found:
            return "of the other blobs or of this one is found: " + found
        proxy.spoil = None
        home.run("index", "retry", "es", "--all")
        home.run("index", "run", "es", good=(0, 3))
        home.run("index", "run", "main", good=(0, 3), without=False)
        return None if home.digest("es") == home.digest("main") else "it is not mended"
    except RuntimeError as wrong:
        return str(wrong)
    finally:
        home.close()
        proxy.shutdown()
        proxy.server_close()


def servers():
    return [(scheme, os.environ[variable].split("//", 1)[1]) for scheme, variable in SERVERS
            if os.environ.get(variable)]


def points(seed):
    """All of them in an order of this seed; numbers beyond a run's requests come to nothing."""
    drawn = [(kind, (number,), story) for kind in KINDS if kind not in ("twice", "doomed")
             for number in range(1, 3 if kind == "unseen" else 20) for story in STORIES]
    drawn += [("doomed", (number,), "upgrade") for number in (1, 2)]
    drawn += [("twice", (first, second), story) for first in range(1, 11) for second in range(1, 5)
              for story in STORIES]
    random.Random(seed).shuffle(drawn)
    return drawn


def sweep(build, seed, most, kinds=KINDS, without=None, stop_after=0):
    tried, wrong = 0, []
    where = servers()
    for index, (kind, numbers, story) in enumerate(p for p in points(seed) if p[0] in kinds):
        if tried >= most or (stop_after and len(wrong) >= stop_after):
            break
        scheme, upstream = where[index % len(where)]
        words, fired = try_point(build, scheme, upstream, kind, numbers, story, without)
        tried += fired or words is not None
        if words:
            wrong.append("%s at request %s, %s, of %s: %s" %
                         (kind, " and ".join(map(str, numbers)), story, scheme, words))
    return tried, wrong


def main():
    options = faultlib.options(__doc__.split("\n")[0], points=12, lives=3)
    tap.note("seed %d" % options.seed)
    if not servers():
        print("1..0 # SKIP no server is named by REFUGE_TEST_ELASTICSEARCH or _OPENSEARCH")
        return 0
    tried, wrong = sweep(options.build, options.seed, options.points, without=options.without)
    for words in wrong[:20]:
        tap.note(words)
    for scheme, upstream in servers():
        words = try_refusal(options.build, scheme, upstream, options.without)
        tap.ok(words is None, "%s: a row that is refused costs its blob alone" % scheme, words or "")
    tap.ok(not wrong, "an index in a search engine survives %d broken requests" % tried)
    broken, bad = live_many(options.build, options.seed, options.lives, without=options.without)
    tap.ok(not bad, "and %d broken runs while policies change" % broken)
    tap.remark("crash_elastic: %d points, %d lives with %d broken runs, %d violations, seed %d" %
               (tried, options.lives, broken, len(wrong) + len(bad), options.seed))
    tap.done()
    return 0


if __name__ == "__main__":
    sys.exit(main())
