#!/usr/bin/env python3
"""wire.py - the wire between a client and a PostgreSQL server, cut where a test wants it

    tests/services/wire.py DIR TARGET    listen in DIR, forward to the socket TARGET; print "ready"

What a client sends is read message by message. A round trip ends with a query or a sync; they are
counted from 1 and every one is a place to cut:

    answer    the server gets it, does it and answers; the answer never arrives
    request   it never reaches the server

With `dark`, connections are refused for so many seconds after the cut, so that nobody can look what
became of it. From the command line a cut is ordered by a file DIR/cut, renamed into place, that says
"KIND TEXT SECONDS": the next round trip whose statement begins with TEXT; the file is removed when it
is done.
"""
import os
import socket
import struct
import sys
import threading
import time

PLAIN_ANSWERS = {80877103, 80877104}  # TLS, GSSAPI: answered by one byte


class Cut(Exception):
    pass


class Wire:
    def __init__(self, folder, target):
        self.folder, self.target = folder, target
        self.path = os.path.join(folder, ".s.PGSQL.5432")
        self.trips, self.texts = 0, []  # round trips so far, and their statements
        self.at, self.kind, self.text, self.dark = 0, None, None, 0.0
        self.fired, self.until = 0, 0.0
        self.lock = threading.Lock()
        self.listener = socket.socket(socket.AF_UNIX)
        made = os.path.join(folder, "new")
        self.listener.bind(made)
        os.chmod(made, 0o777)
        self.listener.listen(16)
        os.rename(made, self.path)  # whoever sees it can connect
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.listener.close()
        if os.path.exists(self.path):
            os.unlink(self.path)

    def arm(self, kind, at=0, text=None, dark=0.0):
        """Cut at the at-th round trip from now, or at the first whose statement begins so."""
        with self.lock:
            self.trips, self.texts, self.fired = 0, [], 0
            self.at, self.kind, self.text, self.dark = at, kind, text, dark

    def disarm(self):
        self.arm(None)

    # ---- threads: one that accepts, one for each connection ----

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        server = socket.socket(socket.AF_UNIX)
        try:
            if time.monotonic() < self.until:
                return
            server.connect(self.target)
            self.start_up(client, server)
            threading.Thread(target=pump, args=(server, client), daemon=True).start()
            self.forward(client, server)
        except (OSError, EOFError, Cut):
            pass
        finally:
            for one in (client, server):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                one.close()

    @staticmethod
    def start_up(client, server):
        while True:
            head = read(client, 8)
            size, code = struct.unpack("!II", head)
            server.sendall(head + read(client, size - 8))
            if code not in PLAIN_ANSWERS:
                return
            client.sendall(read(server, 1))

    def forward(self, client, server):
        statement = b""
        while True:
            head = read(client, 5)
            body = read(client, struct.unpack("!I", head[1:])[0] - 4)
            kind = head[:1]
            if kind == b"Q":
                statement = body[:-1]
            elif kind == b"P":
                statement = body.split(b"\0", 2)[1]
            cut = self.strikes(statement) if kind in (b"Q", b"S") else None
            if cut:
                self.strike(cut, server, head + body)
            server.sendall(head + body)

    def strikes(self, statement):
        """The kind of cut that this round trip is to see, or None."""
        order = os.path.join(self.folder, "cut")
        with self.lock:
            self.trips += 1
            self.texts.append(statement.decode("utf-8", "replace"))
            ordered = self.kind is None and os.path.exists(order)
            if ordered:
                with open(order, encoding="utf-8") as file:
                    kind, text, dark = file.read().split()
            else:
                kind, text, dark = self.kind, self.text, self.dark
            if not kind or self.fired or not (self.texts[-1].startswith(text) if text
                                              else self.trips == self.at):
                return None
            self.until = time.monotonic() + float(dark)
            if ordered:
                os.unlink(order)
            else:
                self.fired = self.trips
            return kind

    @staticmethod
    def strike(kind, server, message):
        if kind == "answer":
            with pumps:
                silent.add(server)
            server.sendall(message)
            with pumps:
                pumps.wait_for(lambda: server not in silent, 60)
        raise Cut


silent, pumps = set(), threading.Condition()  # servers whose next answer goes nowhere


def pump(server, client):
    """From server to client; of a silenced server, up to the end of its answer, into nothing."""
    try:
        tail = b""
        while True:
            data = server.recv(1 << 16)
            if not data:
                break
            with pumps:
                if server in silent:
                    tail = (tail + data)[-6:]
                    if tail[:5] == b"Z\0\0\0\5":
                        break
                    continue
            client.sendall(data)
    except OSError:
        pass
    finally:
        with pumps:
            silent.discard(server)
            pumps.notify_all()
        try:
            client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def read(source, size):
    found = b""
    while len(found) < size:
        more = source.recv(size - len(found))
        if not more:
            raise EOFError
        found += more
    return found


def main():
    Wire(sys.argv[1], sys.argv[2])
    print("ready", flush=True)
    sys.stdin.read()  # until whoever started it goes


if __name__ == "__main__":
    main()
