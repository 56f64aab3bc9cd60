/* append.c - see append.h */
#include "blobstore/append.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/control.h"
#include "blobstore/backend.h"

#define STEP_MIN (1ull << 20)
#define STEP_MAX (64ull << 20)
#define VECTORS_MAX 1024 /* IOV_MAX of Linux */

static enum rf_status fail(const struct rf_append *append, const char *what, struct rf_error *err)
{
    int cause = errno;
    char name[RF_SEGMENT_NAME_SIZE];

    rf_segment_name(&append->point.place, name);
    return rf_error_errno(err, RF_IO, cause, "cannot %s segment %s of the log", what, name);
}

enum rf_status rf_append_init(struct rf_append *append, struct rf_log_dir *log,
                              uint64_t segment_bytes, const struct rf_log_begin *identity,
                              const struct rf_commit_point *point, struct rf_error *err)
{
    char name[RF_SEGMENT_NAME_SIZE];

    *append = (struct rf_append){.log = log, .segment_bytes = segment_bytes,
                                 .identity = *identity, .point = *point, .fd = -1,
                                 .allocated = point->end, .step = STEP_MIN / 2};
    append->point.has_segment = false;
    if (!point->has_segment)
        return RF_OK;
    rf_segment_name(&point->place, name);
    append->fd = openat(log->fd, name, O_RDWR | O_CLOEXEC);
    if (append->fd < 0)
        return fail(append, "open", err);
    append->point.has_segment = true;
    return RF_OK;
}

/* Nobody will write to this segment again. Trimming is a courtesy: preallocated zeros mean nothing,
 * and what lies behind an abandoned segment's end is void. */
static void leave_segment(struct rf_append *append)
{
    if (append->fd < 0)
        return;
    if (ftruncate(append->fd, (off_t)append->point.end) != 0)
        errno = 0;
    close(append->fd);
    append->fd = -1;
    append->point.has_segment = false;
}

void rf_append_release(struct rf_append *append)
{
    leave_segment(append);
}

/* Take room on disk ahead, in steps that double, so that an append is not also an allocation. When
 * the file system cannot or the disk is nearly full, the write itself will tell. */
static void preallocate(struct rf_append *append, uint64_t size)
{
    uint64_t end = append->point.end + size;

    while (append->allocated < end) {
        uint64_t step = append->step < STEP_MAX ? append->step * 2 : STEP_MAX;
        if (append->allocated < append->segment_bytes &&
            step > append->segment_bytes - append->allocated)
            step = append->segment_bytes - append->allocated;
        if (fallocate(append->fd, 0, (off_t)append->allocated, (off_t)step) != 0)
            return;
        append->allocated += step;
        append->step = step;
    }
}

static enum rf_status write_begin(struct rf_append *append, int fd,
                                  const struct rf_log_place *place, struct rf_error *err)
{
    uint8_t bytes[RF_LOG_HEADER_SIZE + RF_LOG_BEGIN_SIZE];
    struct rf_log_begin begin = append->identity;
    struct rf_log_record record = {.op = RF_LOG_BEGIN, .chain = append->point.chain,
                                   .seq = append->point.next_seq, .stored = RF_LOG_BEGIN_SIZE,
                                   .timestamp_us = rf_store_now_us()};

    begin.previous_first = append->point.place.first;
    begin.previous_attempt = append->point.place.attempt;
    begin.previous_end = append->point.end;
    begin.blobs = append->point.blobs;
    begin.bytes = append->point.bytes;
    rf_log_begin_encode(bytes + RF_LOG_HEADER_SIZE, &begin, place->first);
    record.checksum = rf_log_checksum(rf_bytes(bytes + RF_LOG_HEADER_SIZE, RF_LOG_BEGIN_SIZE));
    rf_log_encode(bytes, &record, place, 0);
    errno = ENOSPC;
    if (pwrite(fd, bytes, sizeof bytes, 0) != sizeof bytes)
        return fail(append, "begin the one after", err);
    if (RF_SAFEGUARD("log-fdatasync") && fdatasync(fd) != 0)
        return fail(append, "make durable the one after", err);
    if (RF_SAFEGUARD("segment-dir-fsync") && fsync(append->log->fd) != 0)
        return fail(append, "make durable the name of the one after", err);
    return RF_OK;
}

static enum rf_status open_segment(struct rf_append *append, struct rf_error *err)
{
    struct rf_log_place place = {.salt = append->identity.salt, .first = append->point.next_seq};
    char name[RF_SEGMENT_NAME_SIZE];
    enum rf_status status;
    int fd;

    if (append->point.place.first == place.first)
        place.attempt = append->point.place.attempt + 1;
    for (;; place.attempt++) { /* one that failed half-way may still be lying there */
        rf_segment_name(&place, name);
        fd = openat(append->log->fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd >= 0 || errno != EEXIST || place.attempt == UINT32_MAX)
            break;
    }
    if (fd < 0)
        return rf_error_errno(err, RF_IO, errno, "cannot make segment %s of the log", name);
    status = write_begin(append, fd, &place, err);
    if (status == RF_OK)
        status = rf_log_dir_add(append->log, &place, err);
    if (status != RF_OK) {
        close(fd);
        unlinkat(append->log->fd, name, 0);
        return status;
    }
    append->fd = fd;
    append->point.place = place;
    append->point.has_segment = true;
    append->point.end = RF_LOG_HEADER_SIZE + RF_LOG_BEGIN_SIZE;
    append->allocated = append->point.end;
    append->step = STEP_MIN / 2;
    return RF_OK;
}

enum rf_status rf_append_prepare(struct rf_append *append, uint64_t size, uint64_t *room,
                                 struct rf_error *err)
{
    enum rf_status status = RF_OK;

    /* A segment takes at least one record, however small segments are set. */
    if (append->fd >= 0 && append->point.end > RF_LOG_HEADER_SIZE + RF_LOG_BEGIN_SIZE &&
        append->point.end + size > append->segment_bytes)
        leave_segment(append);
    if (append->fd < 0)
        status = open_segment(append, err);
    if (status == RF_OK)
        *room = append->point.end < append->segment_bytes
                    ? append->segment_bytes - append->point.end : 0;
    return status;
}

static enum rf_status write_all(struct rf_append *append, struct iovec *vectors, size_t count,
                                struct rf_error *err)
{
    uint64_t offset = append->point.end;

    while (count > 0) {
        int some = count < VECTORS_MAX ? (int)count : VECTORS_MAX;
        ssize_t n = pwritev(append->fd, vectors, some, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            errno = n < 0 ? errno : ENOSPC;
            return fail(append, "write to", err);
        }
        offset += (uint64_t)n;
        while (count > 0 && (size_t)n >= vectors->iov_len) {
            n -= (ssize_t)vectors->iov_len;
            vectors++;
            count--;
        }
        if (n > 0) {
            vectors->iov_base = (uint8_t *)vectors->iov_base + n;
            vectors->iov_len -= (size_t)n;
        }
    }
    return RF_OK;
}

enum rf_status rf_append_write(struct rf_append *append, struct iovec *vectors, size_t count,
                               uint64_t size, struct rf_error *err)
{
    enum rf_status status;

    assert(append->fd >= 0);
    preallocate(append, size);
    status = write_all(append, vectors, count, err);
    if (status == RF_OK && RF_SAFEGUARD("log-fdatasync") && fdatasync(append->fd) != 0)
        status = fail(append, "make durable", err);
    if (status != RF_OK)
        leave_segment(append);
    return status;
}
