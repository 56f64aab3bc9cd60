"""replay.py - what a power cut leaves of a folder, from the journal fault.c wrote

The model is POSIX at its word and no kinder: bytes are durable when fsync or fdatasync of their file
returned after they were written; a name is durable when fsync of its folder returned after it was
made. All else may be there or not after a cut, independently: any subset of a file's unsynced writes,
torn at sectors of 512 bytes, and any subset of the names' changes, except that changes of one name
keep their order and a rename is atomic. What was written before a sync that failed is lost: the
kernel marks such pages clean.

    model = Model(root)           root: the folder as the journal names it, existing and durable
    model.play(journal_bytes)     as often as there are journals; inode numbers are not compared
                                  between two journals, so a folder may be copied in between
    model.cut(rng, target)        build one outcome in an empty folder target
"""
import fnmatch
import os
import struct

OPS = ("", "create", "write", "fsync", "fdatasync", "rename", "unlink", "ftruncate", "fallocate",
       "mkdir", "rmdir", "link", "clone", "send")
MAGIC = 0x544C4146
RECORD = struct.Struct("<IIQQQQiIII")
SECTOR = 512
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE = 1, 2, 16


class Record:
    __slots__ = ("op", "number", "inode", "offset", "size", "error", "path", "path2", "data")


def records(journal):
    """The records of a journal; an incomplete last one (the process was killed) is left out."""
    at = 0
    while at + RECORD.size <= len(journal):
        record = Record()
        (magic, op, record.number, record.inode, record.offset, record.size, record.error, path,
         path2, data) = RECORD.unpack_from(journal, at)
        if magic != MAGIC:
            raise ValueError("no record at byte %d of the journal" % at)
        record.op = OPS[op]
        at += RECORD.size
        if at + path + path2 + data > len(journal):
            return
        record.path = os.fsdecode(journal[at:at + path])
        record.path2 = os.fsdecode(journal[at + path:at + path + path2])
        record.data = journal[at + path + path2:at + path + path2 + data]
        at += path + path2 + data
        yield record


class File:
    """Durable bytes and what was done since: ("write", offset, data), ("size", n), ("zero", o, n)."""

    def __init__(self):
        self.durable = b""
        self.pending = []

    def clone(self):
        other = File()
        other.durable, other.pending = self.durable, list(self.pending)
        return other

    def sync(self):
        if self.pending:
            self.durable = bytes(applied(bytearray(self.durable), self.pending))
            self.pending = []

    def lose(self):
        self.pending = []

    def live(self):
        return bytes(applied(bytearray(self.durable), self.pending))


class Folder:
    def __init__(self):
        self.entries = {}  # durable: name -> node id

    def clone(self):
        other = Folder()
        other.entries = dict(self.entries)
        return other

    def sync(self):
        pass


def applied(data, acts):
    for act in acts:
        if act[0] == "write":
            _, offset, more = act
            if len(data) < offset:
                data.extend(bytes(offset - len(data)))
            data[offset:offset + len(more)] = more
        elif act[0] == "size":
            if act[1] < len(data):
                del data[act[1]:]
            else:
                data.extend(bytes(act[1] - len(data)))
        elif act[0] == "grow":
            data.extend(bytes(max(0, act[1] - len(data))))
        else:
            _, offset, size = act
            end = min(len(data), offset + size)
            if offset < end:
                data[offset:end] = bytes(end - offset)
    return data


class Model:
    def __init__(self, root):
        self.root = root.rstrip("/")
        self.nodes = {0: Folder()}
        self.live = {0: {}}    # folder id -> {name: node id}, as the program sees it
        self.pending = []      # changes of names, oldest first: (((folder, name, id or None), ...))
        self.next_id = 1

    def clone(self):
        other = Model(self.root)
        other.nodes = {key: node.clone() for key, node in self.nodes.items()}
        other.live = {key: dict(names) for key, names in self.live.items()}
        other.pending = list(self.pending)
        other.next_id = self.next_id
        return other

    # ---- names ----

    def parts(self, path):
        if path != self.root and not path.startswith(self.root + "/"):
            raise ValueError("'%s' is not under '%s'" % (path, self.root))
        return [part for part in path[len(self.root):].split("/") if part and part != "."]

    def find(self, path):
        node = 0
        for part in self.parts(path):
            node = self.live.get(node, {}).get(part)
            if node is None:
                return None
        return node

    def place(self, path):
        """(folder id, name) of a path whose folder exists."""
        parts = self.parts(path)
        folder = self.find(self.root + "".join("/" + part for part in parts[:-1]))
        if folder is None:
            raise ValueError("the folder of '%s' was made unseen" % path)
        return folder, parts[-1]

    def add(self, node):
        self.nodes[self.next_id] = node
        if isinstance(node, Folder):
            self.live[self.next_id] = {}
        self.next_id += 1
        return self.next_id - 1

    def adopt(self, path, data):
        """A file the harness itself wrote: there, and durable."""
        folder, name = self.place(path)
        node = self.find(path)
        if node is None:
            node = self.add(File())
            self.live[folder][name] = self.nodes[folder].entries[name] = node
        self.nodes[node].durable, self.nodes[node].pending = data, []

    def change(self, *names):
        """Names that change together: (folder, name, id or None to remove)."""
        for folder, name, node in names:
            if node is None:
                self.live[folder].pop(name, None)
            else:
                self.live[folder][name] = node
        self.pending.append(names)

    def settle(self, names):
        for folder, name, node in names:
            entries = self.nodes[folder].entries
            if node is None:
                entries.pop(name, None)
            else:
                entries[name] = node

    def sync_folder(self, folder):
        """Changes that touch the folder become durable, with earlier ones of the same names."""
        keys, chosen = set(), set()
        for index in range(len(self.pending) - 1, -1, -1):
            names = {(entry[0], entry[1]) for entry in self.pending[index]}
            if any(entry[0] == folder for entry in self.pending[index]) or names & keys:
                chosen.add(index)
                keys |= names
        for index in sorted(chosen):
            self.settle(self.pending[index])
        self.pending = [names for index, names in enumerate(self.pending) if index not in chosen]

    # ---- the journal ----

    def play(self, journal, until=None):
        """Apply the records; with until, only those numbered up to it."""
        inodes = {}
        for record in records(journal):
            if until is not None and record.number > until:
                break
            self.step(record, inodes)

    def node_of(self, record, inodes):
        """By inode; an inode not seen in this journal yet is known by its path."""
        node = inodes.get(record.inode)
        if node is None:
            node = self.find(record.path.removesuffix(" (deleted)"))
            if node is None:
                raise ValueError("'%s' was made unseen (by stdio?)" % record.path)
            inodes[record.inode] = node
        return node

    def step(self, record, inodes):
        op = record.op
        if op == "create":
            node = self.add(File())
            inodes[record.inode] = node
            if record.path:
                self.change(self.place(record.path) + (node,))
        elif op == "mkdir":
            node = self.add(Folder())
            inodes[record.inode] = node
            self.change(self.place(record.path) + (node,))
        elif op in ("write", "clone"):
            self.nodes[self.node_of(record, inodes)].pending.append(
                ("write", record.offset, record.data))
        elif op in ("fsync", "fdatasync"):
            node = self.node_of(record, inodes)
            if record.error:
                if isinstance(self.nodes[node], File):
                    self.nodes[node].lose()
            elif isinstance(self.nodes[node], Folder):
                self.sync_folder(node)
            else:
                self.nodes[node].sync()
                if record.data:  # a small file whole: what came through mmap is in it
                    self.nodes[node].durable = record.data
        elif op == "ftruncate":
            self.nodes[self.node_of(record, inodes)].pending.append(("size", record.size))
        elif op == "fallocate":
            self.fallocate(record, self.nodes[self.node_of(record, inodes)])
        elif op == "rename":
            self.rename(record)
        elif op in ("unlink", "rmdir"):
            folder, name = self.place(record.path)
            self.change((folder, name, None))
        elif op == "link":
            node = inodes.get(record.inode)
            if node is None:
                raise ValueError("'%s' links what was made unseen" % record.path)
            self.change(self.place(record.path) + (node,))

    @staticmethod
    def fallocate(record, node):
        mode, end = int(record.path2), record.offset + record.size
        if mode & (FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE):
            node.pending.append(("zero", record.offset, record.size))
        if not mode & FALLOC_KEEP_SIZE:
            node.pending.append(("grow", end))

    def rename(self, record):
        source, target = self.place(record.path), self.place(record.path2)
        node = self.live[source[0]].get(source[1])
        if node is None:
            raise ValueError("'%s' was made unseen" % record.path)
        if record.size & 2:  # RENAME_EXCHANGE
            other = self.live[target[0]][target[1]]
            self.change(source + (other,), target + (node,))
        else:
            self.change(source + (None,), target + (node,))

    # ---- outcomes ----

    def cut(self, rng, target, volatile=None):
        """
        Build one outcome in target. volatile maps a name pattern to a function (path, bytes) ->
        bytes or None, for files that the program also writes through mmap: it is given what the
        journal says and answers what is there, None for no such file.
        """
        entries = {key: dict(node.entries) for key, node in self.nodes.items()
                   if isinstance(node, Folder)}
        for names in self.surviving_changes(rng):
            for folder, name, node in names:
                if node is None:
                    entries[folder].pop(name, None)
                else:
                    entries[folder][name] = node
        style = rng.choice(("none", "all", "prefix", "subset", "mixed"))
        self.build(0, target, entries, volatile or {},
                   lambda node: surviving_bytes(node, rng, style))

    def surviving_changes(self, rng):
        style = rng.choice(("none", "all", "prefix", "subset", "subset"))
        if style == "none":
            return []
        if style == "all":
            return self.pending
        if style == "prefix":
            return self.pending[:rng.randrange(len(self.pending) + 1)]
        kept, stuck = [], set()
        for names in self.pending:
            keys = {(entry[0], entry[1]) for entry in names}
            if keys & stuck or rng.random() < 0.5:
                stuck |= keys
            else:
                kept.append(names)
        return kept

    def whole(self, target):
        """Build what the program itself sees."""
        self.build(0, target, self.live, {}, File.live)

    def build(self, folder, target, entries, volatile, content):
        os.makedirs(target, exist_ok=True)
        for name, node in entries.get(folder, {}).items():
            path = os.path.join(target, name)
            if isinstance(self.nodes[node], Folder):
                self.build(node, path, entries, volatile, content)
                continue
            data = content(self.nodes[node])
            for pattern, fill in volatile.items():
                if fnmatch.fnmatch(name, pattern):
                    data = fill(path, data)
            if data is not None:
                with open(path, "wb") as file:
                    file.write(data)
                os.chmod(path, 0o600)

    def difference(self, folder, ignored=()):
        """Where the folder on disk is not what the journal says; [] when all was seen."""
        found, seen = [], set()

        def walk(node, path):
            for name, child in self.live[node].items():
                inner = os.path.join(path, name)
                seen.add(inner)
                if isinstance(self.nodes[child], Folder):
                    walk(child, inner)
                elif not any(fnmatch.fnmatch(name, pattern) for pattern in ignored):
                    if not os.path.isfile(inner):
                        found.append("%s is not there" % inner)
                    elif open(inner, "rb").read() != self.nodes[child].live():
                        found.append("%s holds other bytes" % inner)

        walk(0, folder)
        for path, folders, names in os.walk(folder):
            for name in folders + names:
                inner = os.path.join(path, name)
                if inner not in seen and not os.path.islink(inner) and \
                        not stat_is_socket(inner) and \
                        not any(fnmatch.fnmatch(name, pattern) for pattern in ignored):
                    found.append("%s was made unseen" % inner)
        return found


def stat_is_socket(path):
    return not os.path.isfile(path) and not os.path.isdir(path)


def torn(act, rng):
    """Some sectors of a write, as writes."""
    _, offset, data = act
    edges = {0, len(data)}
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = (offset + rng.randrange(len(data) + 1)) // SECTOR * SECTOR - offset
        edges.add(min(max(at, 0), len(data)))
    edges = sorted(edges)
    return [("write", offset + start, data[start:end])
            for start, end in zip(edges, edges[1:]) if rng.random() < 0.5]


def surviving_bytes(node, rng, style):
    """One outcome of a file's unsynced acts."""
    acts, kept = node.pending, []
    if not acts:
        return node.durable
    if style == "mixed":
        style = rng.choice(("none", "all", "prefix", "subset"))
    if style == "all":
        kept = acts
    elif style == "prefix":
        count = rng.randrange(len(acts) + 1)
        kept = list(acts[:count])
        if count < len(acts) and acts[count][0] == "write":
            kept += torn(acts[count], rng)
    elif style == "subset":
        for act in acts:
            dice = rng.random()
            if dice < 0.4:
                kept.append(act)
            elif act[0] == "write" and dice < 0.7:
                kept += torn(act, rng)
            elif act[0] == "write" and dice < 0.85:
                kept.append(("grow", act[1] + len(act[2])))  # the size came, the bytes did not
    return bytes(applied(bytearray(node.durable), kept))
