/*
 * put_file.c - a file of the file system into the store
 *
 * Parts first, the file blob last: whoever sees the file blob finds its parts. A file may change
 * while it is read; then its size or one of its times differs afterwards, and everything is read
 * again (parts of the first try are content like any other; what is equal is found by the next).
 *
 * A part costs a wait for the disk, so a few chunks of a file are on their way at the same time
 * while the next one is read; they are counted in the order of the file.
 */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/chunk.h"
#include "backup/schema.h"
#include "core/control.h"

#define TRIES 3
#define CHUNKS_MAX 4
#define READ_STEP ((size_t)256 << 10) /* bytes read at once, and at most too many, for a chunk */

/* A place for a chunk on its way into the store. */
struct chunk {
    struct rf_act act;
    sem_t answered;
    bool under_way;
    uint8_t *bytes; /* RF_CHUNK_MAX; made when the place is used first */
    uint64_t offset;
};

struct put {
    struct rf_store *store;
    struct rf_put_file_options options;
    const char *path;
    int fd;
    struct rf_chunker *chunker; /* made for a file above RF_CHUNK_FROM, as is */
    uint8_t *carry;             /* what was read of the chunk behind the last one cut, */
    size_t carried;             /* and how many bytes that are */
    struct chunk chunks[CHUNKS_MAX];
    int places; /* chunks that may be under way */
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

/* bytes holds *have of what stands at offset: read on until it holds size. RF_END: the file ends
 * before that, so it became shorter. */
static enum rf_status fill(struct put *put, uint8_t *bytes, uint64_t offset, size_t *have,
                           size_t size)
{
    ssize_t got;

    while (*have < size) {
        got = pread(put->fd, bytes + *have, size - *have, (off_t)(offset + *have));
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

static enum rf_status put_small(struct put *put, uint64_t size)
{
    uint8_t *bytes = malloc((size_t)size);
    struct rf_blobref ref;
    enum rf_put_outcome outcome;
    size_t have = 0;
    enum rf_status status = bytes ? fill(put, bytes, 0, &have, (size_t)size) : no_memory(put);

    if (status == RF_OK)
        status = take(put, rf_bytes(bytes, (size_t)size), true, &ref, &outcome);
    free(bytes);
    return status == RF_OK ? keep_part(put, &ref, 0, size, outcome) : status;
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

/* ---- chunks ---- */

static void answer(struct rf_act *act)
{
    sem_post(act->user);
}

/* Wait for the chunk that stands first in the file. RF_NOT_FOUND: none is under way. */
static enum rf_status finish_one(struct put *put)
{
    struct chunk *chunk = NULL;
    struct rf_act *act;

    for (int i = 0; i < CHUNKS_MAX; i++) {
        if (put->chunks[i].under_way && (!chunk || put->chunks[i].offset < chunk->offset))
            chunk = &put->chunks[i];
    }
    if (!chunk)
        return RF_NOT_FOUND;
    while (sem_wait(&chunk->answered) != 0) /* interrupted by a signal */
        ;
    sem_destroy(&chunk->answered);
    chunk->under_way = false;
    act = &chunk->act;
    if (act->status != RF_OK)
        return rf_error_set(put->err, act->status, "%s", act->error.message);
    return keep_part(put, &act->ref, chunk->offset, act->bytes.size, act->outcome);
}

/* Wait for all; status is what went wrong before. */
static enum rf_status finish_all(struct put *put, enum rf_status status)
{
    enum rf_status one;

    while ((one = finish_one(put)) != RF_NOT_FOUND) {
        if (status == RF_OK)
            status = one;
    }
    return status;
}

/* One place more, if there are more to have. */
static bool add_place(struct put *put)
{
    if (put->places == CHUNKS_MAX)
        return false;
    if (put->options.spare_chunks && put->places > 0 &&
        atomic_fetch_sub(put->options.spare_chunks, 1) <= 0) {
        atomic_fetch_add(put->options.spare_chunks, 1);
        return false;
    }
    put->places++;
    return true;
}

/* A place for the next chunk; waits for an earlier one when there is none. */
static enum rf_status find_place(struct put *put, struct chunk **out)
{
    int under_way = 0;
    enum rf_status status = RF_OK;

    for (int i = 0; i < CHUNKS_MAX; i++)
        under_way += put->chunks[i].under_way;
    if (under_way == put->places && !add_place(put))
        status = finish_one(put);
    for (int i = 0; i < put->places; i++) {
        if (!put->chunks[i].under_way)
            *out = &put->chunks[i];
    }
    if (status == RF_OK && !(*out)->bytes) {
        (*out)->bytes = malloc(RF_CHUNK_MAX);
        if (!(*out)->bytes)
            status = no_memory(put);
    }
    return status;
}

/* Read the chunk at offset, of which and behind which there are left bytes in the file. */
static enum rf_status read_chunk(struct put *put, struct chunk *chunk, uint64_t offset,
                                 uint64_t left, size_t *size)
{
    size_t most = left < RF_CHUNK_MAX ? (size_t)left : RF_CHUNK_MAX, have = put->carried;
    struct rf_chunk_look look = {0};
    enum rf_status status = RF_OK;

    memcpy(chunk->bytes, put->carry, have);
    *size = rf_chunk_find(put->chunker, &look, rf_bytes(chunk->bytes, have));
    while (status == RF_OK && *size == 0 && have < most) {
        size_t want = have + READ_STEP < most ? have + READ_STEP : most;
        status = fill(put, chunk->bytes, offset, &have, want);
        *size = rf_chunk_find(put->chunker, &look, rf_bytes(chunk->bytes, have));
    }
    if (*size == 0)
        *size = have;
    put->carried = have - *size;
    memcpy(put->carry, chunk->bytes + *size, put->carried);
    return status;
}

static enum rf_status send(struct put *put, struct chunk *chunk, uint64_t offset, size_t size)
{
    struct rf_bytes bytes = rf_bytes(chunk->bytes, size);
    enum rf_put_outcome outcome;
    struct rf_blobref ref;
    enum rf_status status;

    if (put->options.dry_run) {
        status = take(put, bytes, true, &ref, &outcome);
        return status == RF_OK ? keep_part(put, &ref, offset, size, outcome) : status;
    }
    sem_init(&chunk->answered, 0, 0);
    chunk->act = (struct rf_act){.part = true, .bytes = bytes, .done = answer,
                                 .user = &chunk->answered};
    chunk->offset = offset;
    chunk->under_way = true;
    rf_store_submit(put->store, &chunk->act);
    return RF_OK;
}

static enum rf_status make_chunker(struct put *put)
{
    if (put->chunker)
        return RF_OK;
    put->chunker = malloc(sizeof *put->chunker);
    put->carry = malloc(READ_STEP);
    if (!put->chunker || !put->carry)
        return no_memory(put);
    rf_chunker_init(put->chunker);
    return RF_OK;
}

static enum rf_status put_chunks(struct put *put, uint64_t size)
{
    enum rf_status status = make_chunker(put);
    struct chunk *chunk = NULL;
    uint64_t offset = 0;
    size_t cut;

    put->carried = 0;
    while (status == RF_OK && offset < size) {
        status = find_place(put, &chunk);
        if (status == RF_OK)
            status = read_chunk(put, chunk, offset, size - offset, &cut);
        if (status == RF_OK)
            status = send(put, chunk, offset, cut);
        if (status == RF_OK)
            offset += cut;
    }
    return finish_all(put, status);
}

static void release_chunks(struct put *put)
{
    for (int i = 0; i < CHUNKS_MAX; i++)
        free(put->chunks[i].bytes);
    if (put->options.spare_chunks && put->places > 1)
        atomic_fetch_add(put->options.spare_chunks, put->places - 1);
    free(put->chunker);
    free(put->carry);
}

/* ---- the file ---- */

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
    char beyond;

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
    /* Files that the kernel makes while they are read (procfs, sysfs) have no size. */
    if (pread(put->fd, &beyond, 1, st->st_size) > 0)
        return rf_error_set(put->err, RF_INVALID,
                            "'%s' holds more than the %llu bytes that are its size; pipe it to "
                            "'refuge put -'",
                            put->path, (unsigned long long)size);
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
    status = open_file(&put);
    if (status == RF_OK)
        status = put_opened(&put, name, &result);
    if (status == RF_OK)
        *out = result;
    if (put.fd >= 0)
        close(put.fd);
    release_chunks(&put);
    free(put.parts);
    return status;
}
