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

#define FILE_NAME "store.json"
#define TEMP_NAME "store.json.tmp"
#define TEXT_SIZE 256
#define LOCK_STEP_MS 20
#define CLOSED "closed\n" /* in 'lock' after a writer left nothing unfinished */

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

/* RF_NOT_FOUND: no such file. RF_CORRUPT: not of this form. */
static enum rf_status read_file(struct rf_disk *disk, struct rf_error *err)
{
    char text[TEXT_SIZE] = "", uuid[37] = "";
    unsigned format = 0;
    uint64_t check = 0;
    int checked = 0, end = 0, fd = openat(disk->dir, FILE_NAME, O_RDONLY | O_CLOEXEC);
    ssize_t size;

    if (fd < 0 && errno == ENOENT)
        return RF_NOT_FOUND;
    if (fd < 0)
        return rf_error_errno(err, RF_IO, errno, "cannot open '%s/%s'", disk->path, FILE_NAME);
    size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size < 0)
        return rf_error_errno(err, RF_IO, errno, "cannot read '%s/%s'", disk->path, FILE_NAME);
    if (sscanf(text, "{\"refuge_store\":%u", &format) == 1 && format > RF_LOG_FORMAT)
        return rf_error_set(err, RF_UNSUPPORTED,
                            "store '%s' has format %u, this refuge reads up to %d: use a newer one",
                            disk->path, format, RF_LOG_FORMAT);
    if (sscanf(text, "{\"refuge_store\":1,\"uuid\":\"%36[0-9a-f-]\",\"generation\":%" SCNu32
               ",\"salt\":\"%16" SCNx64 "\"%n,\"check\":\"%16" SCNx64 "\"}\n%n", uuid,
               &disk->generation, &disk->salt, &checked, &check, &end) != 4 || end != size ||
        check != rf_log_checksum(rf_bytes(text, (size_t)checked)) ||
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
    if (log == RF_OK)
        return mend ? write_file(disk, err) : RF_OK;
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

static enum rf_status locked(struct rf_disk *disk, struct rf_error *err)
{
    char text[128] = "", command[112] = "";
    long pid = 0;

    if (pread(disk->lock_fd, text, sizeof text - 1, 0) > 0 &&
        sscanf(text, "%ld %111[^\n]", &pid, command) == 2)
        return rf_error_set(err, RF_LOCKED, "store '%s' is locked by process %ld (%s)",
                            disk->path, pid, command);
    return rf_error_set(err, RF_LOCKED, "store '%s' is locked by another process", disk->path);
}

static bool says_closed(int fd)
{
    char text[sizeof CLOSED];

    return pread(fd, text, sizeof text, 0) == sizeof CLOSED - 1 &&
           memcmp(text, CLOSED, sizeof CLOSED - 1) == 0;
}

bool rf_identity_was_closed(struct rf_disk *disk, int *fd)
{
    *fd = openat(disk->dir, "lock", O_RDONLY | O_CLOEXEC);
    return *fd >= 0 && says_closed(*fd);
}

enum rf_status rf_identity_lock(struct rf_disk *disk, int timeout_ms, struct rf_error *err)
{
    char text[128], command[112];
    int size;

    disk->lock_fd = openat(disk->dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (disk->lock_fd < 0)
        return rf_error_errno(err, errno == EACCES || errno == EROFS ? RF_DENIED : RF_IO, errno,
                              "cannot lock store '%s'", disk->path);
    while (flock(disk->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        struct timespec step = {.tv_nsec = LOCK_STEP_MS * 1000000L};
        if (errno != EWOULDBLOCK && errno != EINTR)
            return rf_error_errno(err, RF_IO, errno, "cannot lock store '%s'", disk->path);
        if (timeout_ms <= 0)
            return locked(disk, err);
        nanosleep(&step, NULL);
        timeout_ms -= LOCK_STEP_MS;
    }
    disk->was_closed = says_closed(disk->lock_fd);
    command_name(command, sizeof command);
    size = snprintf(text, sizeof text, "%ld %s\n", (long)getpid(), command);
    errno = ENOSPC;
    if (ftruncate(disk->lock_fd, 0) != 0 ||
        pwrite(disk->lock_fd, text, (size_t)size, 0) != size || fsync(disk->lock_fd) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot write '%s/lock'", disk->path);
    return RF_OK;
}

void rf_identity_unlock(struct rf_disk *disk, bool closed)
{
    if (disk->lock_fd < 0)
        return;
    if (closed && (ftruncate(disk->lock_fd, 0) != 0 ||
                   pwrite(disk->lock_fd, CLOSED, sizeof CLOSED - 1, 0) != sizeof CLOSED - 1 ||
                   fsync(disk->lock_fd) != 0))
        errno = 0; /* the next writer looks for what a crash would have left */
    close(disk->lock_fd);
    disk->lock_fd = -1;
}
