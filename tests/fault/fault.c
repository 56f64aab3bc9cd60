/*
 * fault.c - a preload library that breaks file operations at a chosen point
 *
 * Loaded into the program under test by LD_PRELOAD, it sees every operation that changes a file or
 * folder under REFUGE_FAULT_DIR, numbers them 1, 2, 3, … over all threads and, because the number
 * lives in a shared file, over the processes of one workload. At the chosen number it kills the
 * process, fails the call or shortens the write. It can also journal every operation with its
 * bytes, so that replay.py can build what a power cut would have left.
 *
 * Where rows go to a server, what is sent to it is an operation, too; and the wall clock can be
 * made to jump.
 *
 *   REFUGE_FAULT_DIR      absolute folder to watch, as the program will name it
 *   REFUGE_FAULT_STATE    file of struct state (made by the harness, zeroed); required
 *   REFUGE_FAULT          KIND:K, or nothing to count only. KIND is one of
 *                           kill-before kill-after kill-mid   SIGKILL around or inside the K-th
 *                           eio enospc                        that call fails, once
 *                           eio-ever enospc-ever              and every later one of its sort
 *                           short                             the K-th write writes half
 *                           stop                              SIGSTOP before the K-th
 *   REFUGE_FAULT_JOURNAL  file to append the journal to
 *   REFUGE_FAULT_SOCKETS  set: number sends to servers, too (the first three kinds and stop)
 *   REFUGE_FAULT_CLOCK    seconds: each look at the wall clock is off by up to so much, either way
 *
 * Operations run one at a time under one lock, so the journal's order is the order of effects. A
 * process that never opens a file under the folder (a jailed mapper) makes no system call because
 * of this library, and no descriptor is kept open by it. Stores through mmap are invisible;
 * replay.py knows which files those are. Calls that stdio makes inside libc are invisible too; the
 * harness detects them, because then the journal does not reproduce the folder.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Kinds of operation; the order is that of OPS in replay.py. */
enum op {
    OP_CREATE = 1,
    OP_WRITE,
    OP_FSYNC,
    OP_FDATASYNC,
    OP_RENAME,
    OP_UNLINK,
    OP_TRUNCATE,
    OP_FALLOCATE,
    OP_MKDIR,
    OP_RMDIR,
    OP_LINK,
    OP_CLONE,
    OP_SEND,
    OP_COUNT
};

/* Shared with the harness, which reads it by offsets: 8-byte fields only. */
struct state {
    _Atomic uint64_t count;
    _Atomic uint64_t by_op[16];
    _Atomic uint64_t fired; /* number of the operation that was broken; 0: none was reached */
    _Atomic uint64_t fired_op;
    char fired_path[256];
};

/* One journal record; path, second path and data follow. All little-endian, no padding. */
struct record {
    uint32_t magic; /* RECORD_MAGIC */
    uint32_t op;
    uint64_t number;
    uint64_t inode;
    uint64_t offset;
    uint64_t size;
    int32_t error; /* 0, or the errno it failed with: a failed fsync is journalled too */
    uint32_t path_size;
    uint32_t path2_size;
    uint32_t data_size;
};

#define RECORD_MAGIC 0x544c4146u
#define FD_MAX 65536

enum kind {
    KIND_NONE,
    KIND_KILL_BEFORE,
    KIND_KILL_AFTER,
    KIND_KILL_MID,
    KIND_ERROR,
    KIND_SHORT,
    KIND_STOP
};

static char dir[PATH_MAX];
static size_t dir_size;
static const char *journal_path;
static struct state *state;
static enum kind kind;
static int fault_errno;
static bool ever;
static uint64_t fault_at;
static atomic_bool tracked[FD_MAX]; /* descriptors that were opened under the folder */
static atomic_bool remote[FD_MAX];  /* sockets that were connected to a server */
static bool count_sends;
static int64_t clock_span; /* seconds; 0: the clock is right */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void die(const char *what)
{
    static const char intro[] = "fault.c: cannot ";

    (void)!syscall(SYS_write, 2, intro, sizeof intro - 1);
    (void)!syscall(SYS_write, 2, what, strlen(what));
    (void)!syscall(SYS_write, 2, "\n", 1);
    _exit(99);
}

static void parse_fault(const char *text)
{
    static const struct {
        const char *name;
        enum kind kind;
        int error;
        bool ever;
    } kinds[] = {
        { "kill-before", KIND_KILL_BEFORE, 0, false },
        { "kill-after", KIND_KILL_AFTER, 0, false },
        { "kill-mid", KIND_KILL_MID, 0, false },
        { "eio", KIND_ERROR, EIO, false },
        { "enospc", KIND_ERROR, ENOSPC, false },
        { "eio-ever", KIND_ERROR, EIO, true },
        { "enospc-ever", KIND_ERROR, ENOSPC, true },
        { "short", KIND_SHORT, 0, false },
        { "stop", KIND_STOP, 0, false },
    };
    size_t name = strcspn(text, ":");

    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strlen(kinds[i].name) == name && memcmp(kinds[i].name, text, name) == 0) {
            kind = kinds[i].kind;
            fault_errno = kinds[i].error;
            ever = kinds[i].ever;
        }
    }
    if (kind == KIND_NONE || text[name] != ':')
        die("read REFUGE_FAULT");
    fault_at = strtoull(text + name + 1, NULL, 10);
}

static void attach(void);
static void start_clock(void);

__attribute__((constructor)) static void start(void)
{
    const char *folder = getenv("REFUGE_FAULT_DIR"), *fault = getenv("REFUGE_FAULT");

    start_clock();
    if (!folder || folder[0] != '/' || strlen(folder) >= sizeof dir)
        return;
    dir_size = strlen(folder);
    memcpy(dir, folder, dir_size + 1);
    while (dir_size > 1 && dir[dir_size - 1] == '/')
        dir[--dir_size] = '\0';
    journal_path = getenv("REFUGE_FAULT_JOURNAL");
    count_sends = getenv("REFUGE_FAULT_SOCKETS") != NULL;
    if (fault && fault[0])
        parse_fault(fault);
}

void refuge_fault_arm(const char *fault);

/* For a test program that has this library loaded: break the K-th operation from now, K as in
 * REFUGE_FAULT; NULL: break none. Between operations only. */
void refuge_fault_arm(const char *fault)
{
    kind = KIND_NONE;
    fault_errno = 0;
    ever = false;
    if (!fault)
        return;
    attach();
    parse_fault(fault);
    fault_at += atomic_load(&state->count);
}

/* Map the shared state at the first operation under the folder, not before: a jailed process must
 * not see a descriptor or a system call more than without this library. */
static void attach(void)
{
    const char *path = getenv("REFUGE_FAULT_STATE");
    void *memory;
    int fd;

    if (state)
        return;
    fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0)
        die("open REFUGE_FAULT_STATE");
    memory = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (memory == MAP_FAILED)
        die("map REFUGE_FAULT_STATE");
    state = memory;
}

static bool is_inside(const char *path)
{
    return dir_size && strncmp(path, dir, dir_size) == 0 &&
           (path[dir_size] == '/' || path[dir_size] == '\0');
}

static bool descriptor_path(int fd, char out[PATH_MAX])
{
    char name[64];
    long size;

    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    size = syscall(SYS_readlinkat, AT_FDCWD, name, out, PATH_MAX - 1);
    if (size < 0)
        return false;
    out[size] = '\0';
    return true;
}

/* The absolute name of path as seen from folder fd; false when it is not under the folder. */
static bool full_path(int fd, const char *path, char out[PATH_MAX])
{
    size_t base, rest = path ? strlen(path) : 0;

    if (!dir_size || !path || rest >= PATH_MAX)
        return false;
    if (path[0] == '/') {
        memcpy(out, path, rest + 1);
        return is_inside(out);
    }
    if (fd == AT_FDCWD) {
        if (!getcwd(out, PATH_MAX))
            return false;
    } else if (!descriptor_path(fd, out)) { /* maybe of opendir(), which we do not see */
        return false;
    }
    base = strlen(out);
    if (base + 1 + rest >= PATH_MAX)
        return false;
    out[base] = '/';
    memcpy(out + base + 1, path, rest + 1);
    return is_inside(out);
}

/* Whether fd is a file or folder of ours; then its path, kind and inode. */
static bool names_own(int fd, char path[PATH_MAX], struct stat *st)
{
    return dir_size && descriptor_path(fd, path) && is_inside(path) && fstat(fd, st) == 0 &&
           (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode));
}

/* The same, without a system call for descriptors that were not opened under the folder. */
static bool own_descriptor(int fd, char path[PATH_MAX], struct stat *st)
{
    return fd >= 0 && fd < FD_MAX && atomic_load(&tracked[fd]) && names_own(fd, path, st);
}

static void track(int fd, bool inside)
{
    if (fd >= 0 && fd < FD_MAX)
        atomic_store(&tracked[fd], inside);
}

static uint64_t inode_at(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 ? st.st_ino : 0;
}

/* ---- one operation: number it, decide, journal ---- */

struct step {
    uint64_t number;
    bool broken; /* the fault strikes this one */
};

static void kill_self(void)
{
    for (;;)
        kill(getpid(), SIGKILL);
}

/* A full disk refuses what needs room; a broken disk refuses everything. */
static bool is_struck_after(enum op op)
{
    if (op == OP_SEND)
        return false;
    if (fault_errno == ENOSPC)
        return op == OP_WRITE || op == OP_CREATE || op == OP_FALLOCATE || op == OP_MKDIR ||
               op == OP_CLONE || op == OP_LINK;
    return true;
}

/* Takes the lock; leave() gives it back. */
static struct step enter(enum op op, const char *path)
{
    struct step step;

    pthread_mutex_lock(&lock);
    attach();
    step.number = atomic_fetch_add(&state->count, 1) + 1;
    atomic_fetch_add(&state->by_op[op], 1);
    step.broken = kind != KIND_NONE &&
                  (step.number == fault_at ||
                   (ever && step.number > fault_at && is_struck_after(op)));
    if (step.number == fault_at && kind != KIND_NONE) {
        atomic_store(&state->fired_op, (uint64_t)op);
        memcpy(state->fired_path, path, strnlen(path, sizeof state->fired_path - 1));
        atomic_store(&state->fired, step.number);
    }
    if (step.broken && kind == KIND_KILL_BEFORE)
        kill_self();
    if (step.broken && kind == KIND_STOP)
        kill(getpid(), SIGSTOP);
    return step;
}

static void append_all(int fd, const void *data, size_t size)
{
    const char *from = data;

    while (size > 0) {
        long put = syscall(SYS_write, fd, from, size);
        if (put <= 0)
            die("write the journal");
        from += put;
        size -= (size_t)put;
    }
}

struct effect {
    enum op op;
    uint64_t inode, offset, size;
    int error;
    const char *path, *path2;
    const void *data;
    size_t data_size;
};

static void journal(const struct step *step, const struct effect *effect)
{
    struct record record = {
        .magic = RECORD_MAGIC,
        .op = (uint32_t)effect->op,
        .number = step->number,
        .inode = effect->inode,
        .offset = effect->offset,
        .size = effect->size,
        .error = effect->error,
        .path_size = effect->path ? (uint32_t)strlen(effect->path) : 0,
        .path2_size = effect->path2 ? (uint32_t)strlen(effect->path2) : 0,
        .data_size = (uint32_t)effect->data_size,
    };
    int fd;

    if (!journal_path)
        return;
    fd = (int)syscall(SYS_openat, AT_FDCWD, journal_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC,
                      0600);
    if (fd < 0)
        die("open the journal");
    append_all(fd, &record, sizeof record);
    append_all(fd, effect->path, record.path_size);
    append_all(fd, effect->path2, record.path2_size);
    append_all(fd, effect->data, effect->data_size);
    syscall(SYS_close, fd);
}

/* After the effect: journal it, strike if this is the kill after, unlock. Keeps errno. */
static void leave(const struct step *step, const struct effect *effect, bool happened)
{
    int saved = errno;

    if (happened || effect->op == OP_FSYNC || effect->op == OP_FDATASYNC)
        journal(step, effect);
    if (step->broken && (kind == KIND_KILL_AFTER || kind == KIND_KILL_MID))
        kill_self();
    pthread_mutex_unlock(&lock);
    errno = saved;
}

static bool fails(const struct step *step)
{
    if (step->broken && kind == KIND_ERROR) {
        errno = fault_errno;
        return true;
    }
    return false;
}

/* ---- writes ---- */

/* Where the call writes: at an offset, or at the descriptor's position. */
#define AT_POSITION ((off_t)-1)

static ssize_t write_flat(int fd, const void *data, size_t size, off_t offset)
{
    if (offset == AT_POSITION)
        return syscall(SYS_write, fd, data, size);
    return syscall(SYS_pwrite64, fd, data, size, offset);
}

static ssize_t write_own(int fd, const char *path, uint64_t inode, const void *data, size_t size,
                         off_t offset)
{
    struct step step = enter(OP_WRITE, path);
    struct effect effect = { .op = OP_WRITE, .inode = inode, .path = path, .data = data };
    ssize_t put = -1;

    if (!fails(&step)) {
        size_t part = size;
        if (step.broken && (kind == KIND_KILL_MID || kind == KIND_SHORT) && size > 1)
            part = size / 2;
        put = write_flat(fd, data, part, offset);
    }
    if (put >= 0) {
        effect.data_size = (size_t)put;
        effect.offset = (uint64_t)(offset == AT_POSITION ? lseek(fd, 0, SEEK_CUR) - put : offset);
    }
    leave(&step, &effect, put >= 0);
    return put;
}

static ssize_t write_any(int fd, const void *data, size_t size, off_t offset)
{
    char path[PATH_MAX];
    struct stat st;

    if (!own_descriptor(fd, path, &st))
        return write_flat(fd, data, size, offset);
    return write_own(fd, path, st.st_ino, data, size, offset);
}

static ssize_t writev_any(int fd, const struct iovec *vector, int count, off_t offset)
{
    char path[PATH_MAX];
    struct stat st;
    size_t size = 0, at = 0;
    char *flat;
    ssize_t put;

    if (!own_descriptor(fd, path, &st)) {
        if (offset == AT_POSITION)
            return syscall(SYS_writev, fd, vector, count);
        return syscall(SYS_pwritev, fd, vector, count, offset, 0);
    }
    for (int i = 0; i < count; i++)
        size += vector[i].iov_len;
    flat = malloc(size ? size : 1);
    if (!flat)
        die("copy a vector");
    for (int i = 0; i < count; i++) {
        memcpy(flat + at, vector[i].iov_base, vector[i].iov_len);
        at += vector[i].iov_len;
    }
    put = write_own(fd, path, st.st_ino, flat, size, offset);
    free(flat);
    return put;
}

/* ---- sends ---- */

/* Only what was connected to a server that has a name: not the pairs that lead to mappers. */
int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    int result = (int)syscall(SYS_connect, fd, address, size);

    if (count_sends && fd >= 0 && fd < FD_MAX)
        atomic_store(&remote[fd], address->sa_family == AF_UNIX || address->sa_family == AF_INET ||
                                      address->sa_family == AF_INET6);
    return result;
}

static bool is_remote(int fd)
{
    struct sockaddr_storage peer = { 0 };
    socklen_t size = sizeof peer;

    if (fd < 0 || fd >= FD_MAX || !atomic_load(&remote[fd]) ||
        syscall(SYS_getpeername, fd, &peer, &size) != 0)
        return false;
    return peer.ss_family != AF_UNIX || size > sizeof(sa_family_t);
}

static ssize_t send_flat(int fd, const void *data, size_t size, int flags)
{
    return syscall(SYS_sendto, fd, data, size, flags, NULL, 0);
}

static ssize_t send_remote(int fd, const void *data, size_t size, int flags)
{
    struct step step = enter(OP_SEND, "");
    struct effect effect = { .op = OP_SEND, .path = "" };
    size_t part = step.broken && kind == KIND_KILL_MID && size > 1 ? size / 2 : size;
    ssize_t put = send_flat(fd, data, part, flags);

    leave(&step, &effect, true);
    return put;
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    return is_remote(fd) ? send_remote(fd, data, size, flags) : send_flat(fd, data, size, flags);
}

ssize_t write(int fd, const void *data, size_t size)
{
    return is_remote(fd) ? send_remote(fd, data, size, 0)
                         : write_any(fd, data, size, AT_POSITION);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return write_any(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    return write_any(fd, data, size, offset);
}

ssize_t writev(int fd, const struct iovec *vector, int count)
{
    return writev_any(fd, vector, count, AT_POSITION);
}

ssize_t pwritev(int fd, const struct iovec *vector, int count, off_t offset)
{
    return writev_any(fd, vector, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *vector, int count, off64_t offset)
{
    return writev_any(fd, vector, count, offset);
}

ssize_t pwritev2(int fd, const struct iovec *vector, int count, off_t offset, int flags)
{
    char path[PATH_MAX];
    struct stat st;

    if (!own_descriptor(fd, path, &st))
        return syscall(SYS_pwritev2, fd, vector, count, offset, 0, flags);
    if (flags != 0) {
        errno = EOPNOTSUPP; /* would be a write this library cannot model */
        return -1;
    }
    return writev_any(fd, vector, count, offset);
}

ssize_t pwritev64v2(int fd, const struct iovec *vector, int count, off64_t offset, int flags)
{
    return pwritev2(fd, vector, count, offset, flags);
}

/* ---- sync ---- */

#define MAPPED_MAX 16384 /* bytes of a file that may be written through mmap */

/* Stores through mmap are seen here at last: what a small file holds when it is synced. */
static size_t read_whole(int fd, const struct stat *st, void *out)
{
    char name[64];
    ssize_t got;
    int readable;

    if (!S_ISREG(st->st_mode) || st->st_size > MAPPED_MAX)
        return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    readable = (int)syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0);
    got = syscall(SYS_pread64, readable, out, (size_t)MAPPED_MAX, (off_t)0);
    syscall(SYS_close, readable);
    return got == st->st_size ? (size_t)got : 0;
}

static int sync_any(int fd, enum op op, long call)
{
    char path[PATH_MAX], content[MAPPED_MAX];
    struct stat st;
    struct step step;
    struct effect effect = { .op = op, .path = path };
    int result;

    if (!names_own(fd, path, &st)) /* the folder may come from opendir(), which we do not see */
        return (int)syscall(call, fd);
    step = enter(op, path);
    effect.inode = st.st_ino;
    if (fails(&step)) {
        effect.error = fault_errno;
        result = -1;
    } else {
        effect.data_size = journal_path ? read_whole(fd, &st, content) : 0;
        effect.data = content;
        result = 0; /* the folder is throw-away: the journal is what makes it durable */
    }
    leave(&step, &effect, result == 0);
    return result;
}

int fsync(int fd)
{
    return sync_any(fd, OP_FSYNC, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_any(fd, OP_FDATASYNC, SYS_fdatasync);
}

/* ---- names ---- */

static int rename_any(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    char source[PATH_MAX], target[PATH_MAX];
    struct step step;
    struct effect effect = { .op = OP_RENAME, .path = source, .path2 = target };
    bool inside = full_path(to_fd, to, target);
    int result = -1;

    if (!full_path(from_fd, from, source) || !inside)
        return (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
    step = enter(OP_RENAME, target);
    effect.inode = inode_at(source);
    effect.size = flags;
    if (!fails(&step))
        result = (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, flags);
    leave(&step, &effect, result == 0);
    return result;
}

int rename(const char *from, const char *to)
{
    return rename_any(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return rename_any(from_fd, from, to_fd, to, 0);
}

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    return rename_any(from_fd, from, to_fd, to, flags);
}

static int unlink_any(int fd, const char *name, int flags)
{
    char path[PATH_MAX];
    struct step step;
    struct effect effect = { .op = flags & AT_REMOVEDIR ? OP_RMDIR : OP_UNLINK, .path = path };
    int result = -1;

    if (!full_path(fd, name, path))
        return (int)syscall(SYS_unlinkat, fd, name, flags);
    effect.inode = inode_at(path);
    if (!effect.inode) {
        errno = ENOENT; /* nothing would change: no operation */
        return -1;
    }
    step = enter(effect.op, path);
    if (!fails(&step))
        result = (int)syscall(SYS_unlinkat, fd, name, flags);
    leave(&step, &effect, result == 0);
    return result;
}

int unlink(const char *name)
{
    return unlink_any(AT_FDCWD, name, 0);
}

int unlinkat(int fd, const char *name, int flags)
{
    return unlink_any(fd, name, flags);
}

int rmdir(const char *name)
{
    return unlink_any(AT_FDCWD, name, AT_REMOVEDIR);
}

int remove(const char *name)
{
    struct stat st;

    if (lstat(name, &st) != 0)
        return -1;
    return unlink_any(AT_FDCWD, name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0);
}

static int mkdir_any(int fd, const char *name, mode_t mode)
{
    char path[PATH_MAX];
    struct step step;
    struct effect effect = { .op = OP_MKDIR, .path = path };
    int result = -1;

    if (!full_path(fd, name, path))
        return (int)syscall(SYS_mkdirat, fd, name, mode);
    if (inode_at(path)) {
        errno = EEXIST;
        return -1;
    }
    step = enter(OP_MKDIR, path);
    if (!fails(&step))
        result = (int)syscall(SYS_mkdirat, fd, name, mode);
    if (result == 0)
        effect.inode = inode_at(path);
    leave(&step, &effect, result == 0);
    return result;
}

int mkdir(const char *name, mode_t mode)
{
    return mkdir_any(AT_FDCWD, name, mode);
}

int mkdirat(int fd, const char *name, mode_t mode)
{
    return mkdir_any(fd, name, mode);
}

/* from may name a descriptor ("/proc/self/fd/N", or fd with AT_EMPTY_PATH): the inode tells. */
static int link_any(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    char path[PATH_MAX];
    struct step step;
    struct effect effect = { .op = OP_LINK, .path = path };
    int result = -1;

    if (!full_path(to_fd, to, path))
        return (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
    step = enter(OP_LINK, path);
    if (!fails(&step))
        result = (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
    if (result == 0)
        effect.inode = inode_at(path);
    leave(&step, &effect, result == 0);
    return result;
}

int link(const char *from, const char *to)
{
    return link_any(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    return link_any(from_fd, from, to_fd, to, flags);
}

/* ---- size ---- */

static int truncate_own(int fd, const char *path, uint64_t inode, off_t size)
{
    struct step step = enter(OP_TRUNCATE, path);
    struct effect effect = { .op = OP_TRUNCATE, .inode = inode, .size = (uint64_t)size,
                             .path = path };
    int result = -1;

    if (!fails(&step))
        result = (int)syscall(SYS_ftruncate, fd, size);
    leave(&step, &effect, result == 0);
    return result;
}

static int truncate_any(int fd, off_t size)
{
    char path[PATH_MAX];
    struct stat st;

    if (!own_descriptor(fd, path, &st))
        return (int)syscall(SYS_ftruncate, fd, size);
    return truncate_own(fd, path, st.st_ino, size);
}

int ftruncate(int fd, off_t size)
{
    return truncate_any(fd, size);
}

int ftruncate64(int fd, off64_t size)
{
    return truncate_any(fd, size);
}

static int fallocate_any(int fd, int mode, off_t offset, off_t size)
{
    char path[PATH_MAX];
    struct stat st;
    struct step step;
    struct effect effect = { .op = OP_FALLOCATE, .offset = (uint64_t)offset, .size = (uint64_t)size,
                             .path = path };
    char mode_text[16];
    int result = -1;

    if (!own_descriptor(fd, path, &st))
        return (int)syscall(SYS_fallocate, fd, mode, offset, size);
    effect.inode = st.st_ino;
    snprintf(mode_text, sizeof mode_text, "%d", mode);
    effect.path2 = mode_text;
    step = enter(OP_FALLOCATE, path);
    if (!fails(&step))
        result = (int)syscall(SYS_fallocate, fd, mode, offset, size);
    leave(&step, &effect, result == 0);
    return result;
}

int fallocate(int fd, int mode, off_t offset, off_t size)
{
    return fallocate_any(fd, mode, offset, size);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t size)
{
    return fallocate_any(fd, mode, offset, size);
}

int posix_fallocate(int fd, off_t offset, off_t size)
{
    int saved = errno, result = fallocate_any(fd, 0, offset, size) == 0 ? 0 : errno;

    errno = saved;
    return result;
}

int posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    return posix_fallocate(fd, offset, size);
}

/* ---- open and close ---- */

static int open_plain(int fd, const char *name, int flags, mode_t mode)
{
    return (int)syscall(SYS_openat, fd, name, flags, mode);
}

static int open_any(int fd, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX];
    uint64_t inode;
    int result = -1;

    if (!full_path(fd, name, path)) {
        result = open_plain(fd, name, flags, mode);
        track(result, false);
        return result;
    }
    inode = flags & O_TMPFILE & ~O_DIRECTORY ? 0 : inode_at(path);
    if ((flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) && !inode) {
        struct step step = enter(OP_CREATE, path);
        struct effect effect = { .op = OP_CREATE, .path = path };
        struct stat st;
        if (!fails(&step))
            result = open_plain(fd, name, flags, mode);
        if (result >= 0 && fstat(result, &st) == 0)
            effect.inode = st.st_ino;
        if (!(flags & O_CREAT))
            effect.path = ""; /* O_TMPFILE: no name yet */
        leave(&step, &effect, result >= 0);
    } else {
        result = open_plain(fd, name, flags & ~O_TRUNC, mode);
        if (result >= 0 && flags & O_TRUNC && truncate_own(result, path, inode, 0) != 0) {
            int saved = errno;
            syscall(SYS_close, result);
            errno = saved;
            result = -1;
        }
    }
    track(result, true);
    return result;
}

#define MODE_OF(flags, mode)                                                                       \
    do {                                                                                           \
        if ((flags) & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) {                                    \
            va_list list;                                                                          \
            va_start(list, flags);                                                                 \
            (mode) = va_arg(list, mode_t);                                                         \
            va_end(list);                                                                          \
        }                                                                                          \
    } while (0)

int open(const char *name, int flags, ...)
{
    mode_t mode = 0;

    MODE_OF(flags, mode);
    return open_any(AT_FDCWD, name, flags, mode);
}

int open64(const char *name, int flags, ...)
{
    mode_t mode = 0;

    MODE_OF(flags, mode);
    return open_any(AT_FDCWD, name, flags | O_LARGEFILE, mode);
}

int openat(int fd, const char *name, int flags, ...)
{
    mode_t mode = 0;

    MODE_OF(flags, mode);
    return open_any(fd, name, flags, mode);
}

int openat64(int fd, const char *name, int flags, ...)
{
    mode_t mode = 0;

    MODE_OF(flags, mode);
    return open_any(fd, name, flags | O_LARGEFILE, mode);
}

int creat(const char *name, mode_t mode)
{
    return open_any(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

/* What a fortified program calls when it passes no mode. */
int __open_2(const char *name, int flags);
int __open64_2(const char *name, int flags);
int __openat_2(int fd, const char *name, int flags);
int __openat64_2(int fd, const char *name, int flags);

int __open_2(const char *name, int flags)
{
    return open_any(AT_FDCWD, name, flags, 0);
}

int __open64_2(const char *name, int flags)
{
    return open_any(AT_FDCWD, name, flags, 0);
}

int __openat_2(int fd, const char *name, int flags)
{
    return open_any(fd, name, flags, 0);
}

int __openat64_2(int fd, const char *name, int flags)
{
    return open_any(fd, name, flags, 0);
}

int close(int fd)
{
    track(fd, false);
    return (int)syscall(SYS_close, fd);
}

static int duplicate(int from, int result)
{
    if (from >= 0 && from < FD_MAX)
        track(result, atomic_load(&tracked[from]));
    return result;
}

int dup(int fd)
{
    return duplicate(fd, (int)syscall(SYS_dup, fd));
}

int dup2(int fd, int to)
{
    if (fd == to) /* dup3 refuses what dup2 allows */
        return syscall(SYS_fcntl, fd, F_GETFD) < 0 ? -1 : to;
    return duplicate(fd, (int)syscall(SYS_dup3, fd, to, 0));
}

int dup3(int fd, int to, int flags)
{
    return duplicate(fd, (int)syscall(SYS_dup3, fd, to, flags));
}

/* ---- copies inside the kernel ---- */

/* The bytes a clone or copy put into the file are read back, so that the journal has them. */
static void journal_copied(const struct step *step, struct effect *effect, int fd, uint64_t offset,
                           size_t size, bool happened)
{
    char *data = happened && size ? malloc(size) : NULL;

    effect->offset = offset;
    if (data) {
        char name[64];
        int readable; /* fd may be write-only */
        ssize_t got;
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        readable = open_plain(AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0);
        got = syscall(SYS_pread64, readable, data, size, offset);
        if (readable < 0 || got != (ssize_t)size)
            die("read back a copied range");
        syscall(SYS_close, readable);
        effect->data = data;
        effect->data_size = size;
    }
    leave(step, effect, happened);
    free(data);
}

ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t size,
                        unsigned flags)
{
    char path[PATH_MAX];
    struct stat st;
    struct step step;
    struct effect effect = { .op = OP_CLONE, .path = path };
    off_t start = to_offset ? *to_offset : lseek(to, 0, SEEK_CUR);
    ssize_t put = -1;

    if (!own_descriptor(to, path, &st))
        return syscall(SYS_copy_file_range, from, from_offset, to, to_offset, size, flags);
    effect.inode = st.st_ino;
    step = enter(OP_CLONE, path);
    if (!fails(&step)) {
        if (step.broken && (kind == KIND_KILL_MID || kind == KIND_SHORT) && size > 1)
            size /= 2;
        put = syscall(SYS_copy_file_range, from, from_offset, to, to_offset, size, flags);
    }
    journal_copied(&step, &effect, to, (uint64_t)start, put > 0 ? (size_t)put : 0, put >= 0);
    return put;
}

int ioctl(int fd, unsigned long request, ...)
{
    char path[PATH_MAX];
    struct stat st;
    struct step step;
    struct effect effect = { .op = OP_CLONE, .path = path };
    const struct file_clone_range *range;
    void *argument;
    va_list list;
    uint64_t offset = 0, size;
    int result = -1;

    va_start(list, request);
    argument = va_arg(list, void *);
    va_end(list);
    if ((request != FICLONE && request != FICLONERANGE) || !own_descriptor(fd, path, &st))
        return (int)syscall(SYS_ioctl, fd, request, argument);
    effect.inode = st.st_ino;
    step = enter(OP_CLONE, path);
    if (!fails(&step))
        result = (int)syscall(SYS_ioctl, fd, request, argument);
    fstat(fd, &st);
    size = (uint64_t)st.st_size;
    if (request == FICLONERANGE) {
        range = argument;
        offset = range->dest_offset;
        size = range->src_length ? range->src_length : (uint64_t)st.st_size - offset;
    }
    journal_copied(&step, &effect, fd, offset, (size_t)size, result == 0);
    return result;
}

/* ---- the wall clock ---- */

static int (*real_clock)(clockid_t clock, struct timespec *out);

/* Looked up before a jail closes: the one of libc makes no system call. Only the program itself
 * jumps; mappers see no clock. */
static void start_clock(void)
{
    const char *span = getenv("REFUGE_FAULT_CLOCK");

    *(void **)&real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    if (span && strcmp(program_invocation_short_name, "refuge") == 0)
        clock_span = strtoll(span, NULL, 10);
}

/* Each look is somewhere else, a step of an ordered walk that visits all of the span. */
static int64_t jump(void)
{
    static _Atomic uint64_t looks;
    uint64_t look = atomic_fetch_add(&looks, 1) + 1;

    return (int64_t)(look * 2654435761u % (2 * (uint64_t)clock_span + 1)) - clock_span;
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
    int result = real_clock ? real_clock(clock, out)
                            : (int)syscall(SYS_clock_gettime, clock, out);

    if (result == 0 && clock_span && clock == CLOCK_REALTIME)
        out->tv_sec += jump();
    return result;
}
