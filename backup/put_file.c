/*
 * put_file.c - a file of the file system into the store
 *
 * Parts first, the file blob last: whoever sees the file blob finds its parts. A file may change
 * while it is read; then its size or one of its times differs afterwards, and everything is read
 * again (parts of the first try are content like any other; what is equal is found by the next).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/chunk.h"
#include "backup/schema.h"
#include "core/control.h"

#define TRIES 3

struct put {
    struct rf_store *store;
    struct rf_put_file_options options;
    const char *path;
    int fd;
    struct rf_chunker *chunker; /* made for a file above RF_CHUNK_FROM */
    uint8_t *window;            /* RF_CHUNK_MAX bytes */
    struct rf_file_part *parts;
    size_t part_count, part_capacity;
    uint64_t stored;
    struct rf_error *err;
};

static enum rf_status no_memory(struct put *put)
{
    return rf_error_set(put->err, RF_NOMEM, "no memory to store '%s'", put->path);
}

static enum rf_status cannot_read(struct put *put, int errnum)
{
    enum rf_status status = errnum == ENOENT ? RF_NOT_FOUND : errnum == EACCES ? RF_DENIED : RF_IO;

    return rf_error_errno(put->err, status, errnum, "cannot read '%s'", put->path);
}

static enum rf_status keep_part(struct put *put, const struct rf_blobref *ref, uint64_t offset,
                                uint64_t size, enum rf_put_outcome outcome)
{
    size_t capacity = put->part_capacity ? 2 * put->part_capacity : 16;
    struct rf_file_part *grown;

    if (put->part_count == RF_FILE_PARTS_MAX)
        return rf_error_set(put->err, RF_LIMIT, "'%s' has more than %d parts", put->path,
                            RF_FILE_PARTS_MAX);
    if (put->part_count == put->part_capacity) {
        grown = realloc(put->parts, capacity * sizeof *grown);
        if (!grown)
            return no_memory(put);
        put->parts = grown;
        put->part_capacity = capacity;
    }
    put->parts[put->part_count++] =
        (struct rf_file_part){.ref = *ref, .size = size, .offset = offset};
    if (outcome == RF_PUT_NEW)
        put->stored += size;
    if (put->options.progress)
        put->options.progress(put->options.user, offset + size);
    return RF_OK;
}

/* Store bytes, or only look whether they are there. */
static enum rf_status take(struct put *put, struct rf_bytes bytes, bool part,
                           struct rf_blobref *ref, enum rf_put_outcome *outcome)
{
    struct rf_stat stat;
    enum rf_status status;

    if (!put->options.dry_run)
        return rf_store_put(put->store, bytes, NULL, part, ref, outcome, put->err);
    rf_blobref_of(ref, bytes);
    status = rf_store_stat(put->store, ref, &stat, put->err);
    if (status == RF_NOT_FOUND) {
        rf_error_clear(put->err);
        *outcome = RF_PUT_NEW;
        return RF_OK;
    }
    if (status == RF_OK)
        *outcome = stat.part && !part ? RF_PUT_LIFTED : RF_PUT_PRESENT;
    return status;
}

/* The window holds *have bytes of what stands at offset: read on until it holds size. RF_END: the
 * file ends before that, so it became shorter. */
static enum rf_status fill(struct put *put, uint64_t offset, size_t *have, size_t size)
{
    ssize_t got;

    while (*have < size) {
        got = pread(put->fd, put->window + *have, size - *have, (off_t)(offset + *have));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return cannot_read(put, errno);
        if (got == 0)
            return RF_END;
        *have += (size_t)got;
    }
    return RF_OK;
}

/* The window's first bytes as the next part. */
static enum rf_status put_part(struct put *put, uint64_t offset, size_t size)
{
    struct rf_blobref ref;
    enum rf_put_outcome outcome;
    enum rf_status status = take(put, rf_bytes(put->window, size), true, &ref, &outcome);

    return status == RF_OK ? keep_part(put, &ref, offset, size, outcome) : status;
}

static enum rf_status put_small(struct put *put, uint64_t size)
{
    size_t have = 0;
    enum rf_status status = fill(put, 0, &have, (size_t)size);

    return status == RF_OK ? put_part(put, 0, (size_t)size) : status;
}

/* One part for the whole file, by way of the kernel where the store can. */
static enum rf_status put_whole(struct put *put, uint64_t size)
{
    struct rf_upload *upload;
    struct rf_blobref ref;
    struct rf_error cause = {0};
    enum rf_put_outcome outcome;
    enum rf_status status = rf_upload_open(&upload, put->store, put->err);

    if (status != RF_OK)
        return status;
    status = rf_upload_write_fd(upload, put->fd, 0, size, &cause);
    if (status == RF_INVALID)
        status = RF_END; /* it became shorter */
    else if (status != RF_OK)
        rf_error_set(put->err, status, "%s", cause.message);
    else
        status = rf_upload_commit(upload, NULL, true, &ref, &outcome, put->err);
    rf_upload_close(upload);
    return status == RF_OK ? keep_part(put, &ref, 0, size, outcome) : status;
}

static enum rf_status put_chunks(struct put *put, uint64_t size)
{
    enum rf_status status;
    uint64_t offset = 0;
    size_t have = 0, cut, want;

    if (!put->chunker) {
        put->chunker = malloc(sizeof *put->chunker);
        if (!put->chunker)
            return no_memory(put);
        rf_chunker_init(put->chunker);
    }
    while (offset < size) {
        want = size - offset < RF_CHUNK_MAX ? (size_t)(size - offset) : RF_CHUNK_MAX;
        if ((status = fill(put, offset, &have, want)) != RF_OK)
            return status;
        cut = rf_chunk_cut(put->chunker, rf_bytes(put->window, have));
        if ((status = put_part(put, offset, cut)) != RF_OK)
            return status;
        have -= cut;
        memmove(put->window, put->window + cut, have);
        offset += cut;
    }
    return RF_OK;
}

static bool is_unchanged(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Read all of it once. RF_END: it changed meanwhile. */
static enum rf_status put_content(struct put *put, struct stat *st)
{
    struct stat after;
    enum rf_status status = RF_OK;
    uint64_t size;

    if (fstat(put->fd, st) != 0)
        return cannot_read(put, errno);
    size = (uint64_t)st->st_size;
    put->part_count = 0;
    if (size > RF_CHUNK_FROM)
        status = put_chunks(put, size);
    else if (size > RF_BLOB_INLINE_MAX && !put->options.dry_run)
        status = put_whole(put, size);
    else if (size > 0)
        status = put_small(put, size);
    if (status != RF_OK)
        return status;
    if (fstat(put->fd, &after) != 0)
        return cannot_read(put, errno);
    if (!is_unchanged(st, &after) && RF_SAFEGUARD("file-unchanged"))
        return RF_END;
    return RF_OK;
}

/* Nanoseconds since 1970; times outside 64 bits (1677 to 2262) become the nearest one within. */
static int64_t nanoseconds(const struct timespec *time)
{
    int64_t ns;

    if (__builtin_mul_overflow((int64_t)time->tv_sec, (int64_t)1000000000, &ns) ||
        __builtin_add_overflow(ns, (int64_t)time->tv_nsec, &ns))
        return time->tv_sec < 0 ? INT64_MIN : INT64_MAX;
    return ns;
}

static enum rf_status put_file_blob(struct put *put, const struct stat *st, const char *name,
                                    struct rf_put_file_result *out)
{
    struct rf_file file = {
        .name = rf_bytes_text(name),
        .size = (uint64_t)st->st_size,
        .mode = st->st_mode & 07777,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .mtime_ns = nanoseconds(&st->st_mtim),
        .parts = put->parts,
        .part_count = put->part_count,
    };
    enum rf_put_outcome outcome;
    enum rf_status status;
    struct rf_buf buf;

    rf_buf_init(&buf, RF_SCHEMA_SIZE_MAX);
    rf_file_encode(&buf, &file);
    if (buf.failed)
        status = rf_error_set(put->err, buf.failed, "no room for the file blob of '%s'", put->path);
    else
        status = take(put, rf_buf_bytes(&buf), false, &out->ref, &outcome);
    rf_buf_release(&buf);
    if (status != RF_OK)
        return status;
    if (put->part_count == 1)
        out->content = put->parts[0].ref;
    out->size = file.size;
    out->stored = put->stored;
    out->present = outcome == RF_PUT_PRESENT;
    return RF_OK;
}

static enum rf_status open_file(struct put *put)
{
    struct stat st;

    /* A pipe must not make us wait for its other end. */
    put->fd = open(put->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (put->fd < 0 || fstat(put->fd, &st) != 0)
        return cannot_read(put, errno);
    if (!S_ISREG(st.st_mode))
        return rf_error_set(put->err, RF_INVALID, "'%s' is no regular file", put->path);
    return RF_OK;
}

static bool name_is_good(const char *name)
{
    return *name && strlen(name) <= RF_FILE_NAME_MAX && !strchr(name, '/') &&
           strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static enum rf_status put_opened(struct put *put, const char *name, struct rf_put_file_result *out)
{
    enum rf_status status = RF_END;
    struct stat st;

    for (int i = 0; status == RF_END && i < TRIES; i++)
        status = put_content(put, &st);
    if (status == RF_END)
        return rf_error_set(put->err, RF_INVALID, "'%s' changed while it was read, %d times",
                            put->path, TRIES);
    return status == RF_OK ? put_file_blob(put, &st, name, out) : status;
}

enum rf_status rf_put_file(struct rf_store *store, const char *path, const char *name,
                           const struct rf_put_file_options *options,
                           struct rf_put_file_result *out, struct rf_error *err)
{
    struct put put = {.store = store, .path = path, .fd = -1, .err = err};
    struct rf_put_file_result result = {0};
    enum rf_status status;

    if (!name_is_good(name))
        return rf_error_set(err, RF_INVALID,
                            "'%s' cannot be the name of a file: 1 to %d bytes without '/'", name,
                            RF_FILE_NAME_MAX);
    if (options)
        put.options = *options;
    put.window = malloc(RF_CHUNK_MAX);
    if (!put.window)
        return no_memory(&put);
    status = open_file(&put);
    if (status == RF_OK)
        status = put_opened(&put, name, &result);
    if (status == RF_OK)
        *out = result;
    if (put.fd >= 0)
        close(put.fd);
    free(put.window);
    free(put.parts);
    free(put.chunker);
    return status;
}
