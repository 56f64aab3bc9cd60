/*
 * identity.c - whose folder this is, and who may write it
 *
 * store.json is one line, {"refuge_store":1,"uuid":"...","generation":1,"salt":"<16 hex>",
 * "check":"<16 hex>"}; check is the XXH3-64 of all before its comma. The begin record of every
 * segment says the same, so a lost or damaged store.json is made again.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "blobstore/disk.h"
#include "core/control.h"
#include "core/holder.h"

#define FILE_NAME "store.json"
#define TEMP_NAME "store.json.tmp"
#define TEXT_SIZE 256
#define LOCK_NAME "lock"
#define LOCK_SIZE 192
#define LOCK_STEP_MS 20
#define RECOVERY_MS 10000 /* a reader waits so long for a writer that recovers the log */
#define CLOSED "closed\n" /* all of 'lock' after a writer left nothing unfinished */
#define READY "ready\n"   /* at its end while one writes: the log is recovered and published */

static enum rf_status write_file(struct rf_disk *disk, struct rf_error *err)
{
    char text[TEXT_SIZE], uuid[37];
    int size, fd;
    bool ok;

    rf_uuid_format(disk->uuid, uuid);
    size = snprintf(text, sizeof text,
                    "{\"refuge_store\":%d,\"uuid\":\"%s\",\"generation\":%" PRIu32
                    ",\"salt\":\"%016" PRIx64 "\"", RF_LOG_FORMAT, uuid, disk->generation,
                    disk->salt);
    size += snprintf(text + size, sizeof text - (size_t)size, ",\"check\":\"%016" PRIx64 "\"}\n",
                     rf_log_checksum(rf_bytes(text, (size_t)size)));
    fd = openat(disk->dir, TEMP_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return rf_error_errno(err, RF_IO, errno, "cannot write '%s/%s'", disk->path, FILE_NAME);
    errno = ENOSPC;
    ok = write(fd, text, (size_t)size) == size && fsync(fd) == 0;
    if (!ok)
        rf_error_errno(err, RF_IO, errno, "cannot write '%s/%s'", disk->path, FILE_NAME);
    close(fd);
    if (ok && (renameat(disk->dir, TEMP_NAME, disk->dir, FILE_NAME) != 0 ||
               fsync(disk->dir) != 0)) {
        ok = false;
        rf_error_errno(err, RF_IO, errno, "cannot name '%s/%s'", disk->path, FILE_NAME);
    }
    if (!ok)
        unlinkat(disk->dir, TEMP_NAME, 0);
    return ok ? RF_OK : RF_IO;
}

/* Whether a line of any version has a check as ours, which does not hold. */
static bool fails_check(const char *text)
{
    const char *at = strstr(text, ",\"check\":\"");
    uint64_t check;

    return at && sscanf(at, ",\"check\":\"%16" SCNx64 "\"}", &check) == 1 &&
           check != rf_log_checksum(rf_bytes(text, (size_t)(at - text)));
}

/* RF_NOT_FOUND: no such file. RF_CORRUPT: not of this form. */
static enum rf_status read_file(struct rf_disk *disk, struct rf_error *err)
{
    char text[TEXT_SIZE] = "", uuid[37] = "";
    char end[64];
    unsigned format = 0;
    int checked = 0, fd = openat(disk->dir, FILE_NAME, O_RDONLY | O_CLOEXEC);
    ssize_t size;

    if (fd < 0 && errno == ENOENT)
        return RF_NOT_FOUND;
    if (fd < 0)
        return rf_error_errno(err, RF_IO, errno, "cannot open '%s/%s'", disk->path, FILE_NAME);
    size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size < 0)
        return rf_error_errno(err, RF_IO, errno, "cannot read '%s/%s'", disk->path, FILE_NAME);
    if (sscanf(text, "{\"refuge_store\":%u", &format) == 1 && format > RF_LOG_FORMAT &&
        !fails_check(text))
        return rf_error_set(err, RF_UNSUPPORTED,
                            "store '%s' has format %u, this refuge reads up to %d: use a newer one",
                            disk->path, format, RF_LOG_FORMAT);
    if (sscanf(text, "{\"refuge_store\":1,\"uuid\":\"%36[0-9a-f-]\",\"generation\":%" SCNu32
               ",\"salt\":\"%16" SCNx64 "\"%n", uuid, &disk->generation, &disk->salt,
               &checked) != 3 || checked == 0)
        return RF_CORRUPT;
    /* Byte by byte: a number is also read with white space in the place of its leading zero. */
    snprintf(end, sizeof end, ",\"check\":\"%016" PRIx64 "\"}\n",
             rf_log_checksum(rf_bytes(text, (size_t)checked)));
    if ((size_t)size != (size_t)checked + strlen(end) || strcmp(text + checked, end) != 0 ||
        !rf_uuid_parse(disk->uuid, uuid) || disk->generation == 0)
        return RF_CORRUPT;
    return RF_OK;
}

static enum rf_status make_folder(int dir, const char *name, struct rf_error *err)
{
    if (mkdirat(dir, name, 0700) != 0 && errno != EEXIST)
        return rf_error_errno(err, RF_IO, errno, "cannot make folder '%s'", name);
    return RF_OK;
}

enum rf_status rf_identity_create(struct rf_disk *disk, struct rf_error *err)
{
    static const char *const folders[] = {"log", "large", "run"};
    enum rf_status status = read_file(disk, err);
    uint64_t salt;

    if (status != RF_NOT_FOUND) {
        if (status == RF_IO || status == RF_UNSUPPORTED)
            return status;
        return rf_error_set(err, RF_EXISTS, "there is a store in '%s' already", disk->path);
    }
    if (faccessat(disk->dir, "log", F_OK, 0) == 0 && rf_identity_load(disk, false, NULL) == RF_OK)
        return rf_error_set(err, RF_EXISTS, "there is a store in '%s' already", disk->path);
    status = RF_OK;
    for (size_t i = 0; i < sizeof folders / sizeof *folders && status == RF_OK; i++)
        status = make_folder(disk->dir, folders[i], err);
    if (status != RF_OK)
        return status;
    rf_uuid_random(disk->uuid);
    disk->generation = 1;
    if (getrandom(&salt, sizeof salt, 0) != sizeof salt)
        return rf_error_errno(err, RF_IO, errno, "cannot take a random number");
    disk->salt = salt;
    return write_file(disk, err); /* last: a folder without it is no store yet */
}

/* From the begin record of any segment that has a sound one. */
static enum rf_status read_log(struct rf_disk *disk, struct rf_error *err)
{
    struct rf_log_dir log = {.fd = -1};
    int fd = openat(disk->dir, "log", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum rf_status status = RF_NOT_FOUND;
    struct rf_log_place place;

    if (fd < 0)
        return RF_NOT_FOUND;
    if (rf_log_dir_init(&log, fd, err) != RF_OK) {
        rf_log_dir_release(&log);
        return RF_IO;
    }
    for (size_t i = 0; status == RF_NOT_FOUND && rf_log_dir_at(&log, i, &place); i++) {
        struct rf_segment_file *file;
        struct rf_log_begin begin;
        struct rf_scanned found;
        struct rf_scan scan;
        if (rf_log_dir_acquire(&log, &place, &file, NULL) != RF_OK)
            continue;
        rf_scan_init(&scan, file->fd, &place, 0, RF_LOG_HEADER_SIZE + RF_LOG_BEGIN_SIZE);
        if (rf_scan_next(&scan, &found, NULL) == RF_OK && !found.damaged &&
            found.record.op == RF_LOG_BEGIN && rf_log_begin_decode(&begin, found.payload)) {
            memcpy(disk->uuid, begin.uuid, sizeof disk->uuid);
            disk->generation = begin.generation;
            disk->salt = begin.salt;
            status = RF_OK;
            if (begin.format > RF_LOG_FORMAT)
                status = rf_error_set(err, RF_UNSUPPORTED,
                                      "store '%s' has format %u, this refuge reads up to %d: use "
                                      "a newer one", disk->path, begin.format, RF_LOG_FORMAT);
        }
        rf_scan_release(&scan);
        rf_log_dir_release_file(&log, file);
    }
    rf_log_dir_release(&log);
    return status;
}

enum rf_status rf_identity_load(struct rf_disk *disk, bool mend, struct rf_error *err)
{
    enum rf_status status = read_file(disk, err), log;

    if (status != RF_NOT_FOUND && status != RF_CORRUPT)
        return status;
    log = read_log(disk, err);
    if (log == RF_OK) {
        disk->lost |= RF_STORE_IDENTITY;
        return mend ? write_file(disk, err) : RF_OK;
    }
    if (log != RF_NOT_FOUND)
        return log;
    if (status == RF_NOT_FOUND)
        return rf_error_set(err, RF_NOT_FOUND, "there is no store in '%s'", disk->path);
    return rf_error_set(err, RF_CORRUPT,
                        "'%s/%s' is damaged and no segment of the log tells whose store it is",
                        disk->path, FILE_NAME);
}

/* ---- the lock ---- */

/* "refuge put" of this process, for those who wait: the program and its subcommand. */
static void command_name(char *out, size_t size)
{
    char text[512] = "", *name = text, *word;
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 2);

    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = text[n > 0 ? n + 1 : 1] = '\0';
    word = text + strlen(text) + 1;
    if (strrchr(text, '/'))
        name = strrchr(text, '/') + 1;
    for (char *at = word; *at; at++) {
        if ((*at < 'a' || *at > 'z') && *at != '-')
            *word = '\0'; /* a path or a value: not for others to read */
    }
    snprintf(out, size, "%.60s%s%.40s", name, *word && *word != '-' ? " " : "",
             *word != '-' ? word : "");
}

/* The whole of 'lock', with a NUL; "" when it cannot be read. */
static void read_lock(int fd, char out[LOCK_SIZE])
{
    ssize_t size = pread(fd, out, LOCK_SIZE - 1, 0);

    out[size > 0 ? size : 0] = '\0';
}

/*
 * Two locks make one. That on the folder excludes: unlike a file it cannot be removed under the one
 * who holds it. That on the file tells: it can be looked at without being taken, so that a reader
 * never stands in a writer's way.
 */
static enum rf_status try_lock(struct rf_disk *disk, struct rf_error *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    /* Any other refusal: a file system that does not lock folders. */
    if (flock(disk->dir, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK &&
        RF_SAFEGUARD("store-lock-folder"))
        return RF_LOCKED;
    if (disk->lock_fd < 0)
        disk->lock_fd = openat(disk->dir, LOCK_NAME, O_RDWR | O_CLOEXEC);
    if (disk->lock_fd < 0 && errno == ENOENT) {
        disk->lost |= RF_STORE_LOCK;
        disk->lock_fd = openat(disk->dir, LOCK_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    }
    if (disk->lock_fd < 0)
        return rf_error_errno(err, errno == EACCES || errno == EROFS ? RF_DENIED : RF_IO, errno,
                              "cannot lock store '%s'", disk->path);
    if (fcntl(disk->lock_fd, F_OFD_SETLK, &lock) == 0)
        return RF_OK;
    if (errno == EAGAIN || errno == EACCES)
        return RF_LOCKED;
    return rf_error_errno(err, RF_IO, errno, "cannot lock store '%s'", disk->path);
}

static bool is_free(int fd)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};

    return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK;
}

/* The kernel knows who holds the folder; else what the holder wrote. */
static enum rf_status locked(struct rf_disk *disk, struct rf_error *err)
{
    char text[LOCK_SIZE] = "", command[112] = "", holder[RF_HOLDER_SIZE];
    long pid = 0;
    int fd;

    if (rf_holder_find(disk->dir, holder))
        return rf_error_set(err, RF_LOCKED, "store '%s' is locked by process %s", disk->path,
                            holder);
    fd = openat(disk->dir, LOCK_NAME, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        read_lock(fd, text);
        close(fd);
    }
    if (sscanf(text, "%ld %111[^\n]", &pid, command) == 2)
        return rf_error_set(err, RF_LOCKED, "store '%s' is locked by process %ld (%s)",
                            disk->path, pid, command);
    return rf_error_set(err, RF_LOCKED, "store '%s' is locked by another process", disk->path);
}

static void wait_a_step(int *timeout_ms)
{
    struct timespec step = {.tv_nsec = LOCK_STEP_MS * 1000000L};

    nanosleep(&step, NULL);
    *timeout_ms -= LOCK_STEP_MS;
}

/* Replace what 'lock' says. */
static bool write_lock(int fd, const char *text)
{
    size_t size = strlen(text);

    errno = ENOSPC;
    return ftruncate(fd, 0) == 0 && pwrite(fd, text, size, 0) == (ssize_t)size && fsync(fd) == 0;
}

enum rf_status rf_identity_lock(struct rf_disk *disk, int timeout_ms, struct rf_error *err)
{
    char text[LOCK_SIZE], command[112];
    enum rf_status status;

    while ((status = try_lock(disk, err)) == RF_LOCKED) {
        if (timeout_ms <= 0)
            return locked(disk, err);
        wait_a_step(&timeout_ms);
    }
    if (status != RF_OK)
        return status;
    disk->locked = true;
    read_lock(disk->lock_fd, text);
    disk->was_closed = strcmp(text, CLOSED) == 0;
    command_name(command, sizeof command);
    snprintf(text, sizeof text, "%ld %s\n%" PRId64 "\n", (long)getpid(), command,
             rf_store_now_us());
    if (!write_lock(disk->lock_fd, text))
        return rf_error_errno(err, RF_IO, errno, "cannot write '%s/" LOCK_NAME "'", disk->path);
    return RF_OK;
}

enum rf_status rf_identity_ready(struct rf_disk *disk, struct rf_error *err)
{
    off_t end = lseek(disk->lock_fd, 0, SEEK_END);

    errno = ENOSPC;
    if (end < 0 ||
        pwrite(disk->lock_fd, READY, sizeof READY - 1, end) != (ssize_t)sizeof READY - 1)
        return rf_error_errno(err, RF_IO, errno, "cannot write '%s/" LOCK_NAME "'", disk->path);
    return RF_OK;
}

void rf_identity_unlock(struct rf_disk *disk, bool closed)
{
    if (disk->locked && closed && !write_lock(disk->lock_fd, CLOSED))
        errno = 0; /* the next writer looks for what a crash would have left */
    if (disk->lock_fd >= 0)
        close(disk->lock_fd);
    if (disk->dir >= 0)
        flock(disk->dir, LOCK_UN);
    disk->lock_fd = -1;
    disk->locked = false;
}

/* What a writer wrote into 'lock' is never written again, so the same text before and after a look
 * at the lock itself was there meanwhile, too. */
static enum rf_writer look_at_lock(int fd)
{
    char before[LOCK_SIZE], text[LOCK_SIZE];
    size_t size;
    bool free;

    do {
        read_lock(fd, before);
        free = is_free(fd);
        read_lock(fd, text);
    } while (strcmp(before, text) != 0);
    size = strlen(text);
    if (strcmp(text, CLOSED) == 0)
        return RF_WRITER_CLOSED;
    if (free)
        return RF_WRITER_DIED;
    return size >= sizeof READY && strcmp(text + size - (sizeof READY - 1), READY) == 0
               ? RF_WRITER_READY : RF_WRITER_RECOVERS;
}

enum rf_writer rf_identity_writer(struct rf_disk *disk)
{
    int fd = openat(disk->dir, LOCK_NAME, O_RDONLY | O_CLOEXEC), left_ms = RECOVERY_MS;
    enum rf_writer writer;

    if (fd < 0) {
        disk->lost |= errno == ENOENT ? RF_STORE_LOCK : 0;
        return RF_WRITER_DIED;
    }
    while ((writer = look_at_lock(fd)) == RF_WRITER_RECOVERS && left_ms > 0 &&
           RF_SAFEGUARD("reader-awaits-recovery"))
        wait_a_step(&left_ms);
    close(fd);
    return writer;
}
