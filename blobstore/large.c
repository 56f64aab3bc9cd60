/*
 * large.c - see large.h
 *
 * Order of durability: bytes and footer, fsync of the file, rename, fsync of the folder; only then
 * may a record name it. A source is shared with FICLONERANGE or copied through memory: where blocks
 * cannot be shared, a copy inside the kernel would save nothing, for every byte must be hashed.
 */
#include "blobstore/large.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "blobstore/blobstore.h"
#include "core/control.h"

#define BLOCK ((size_t)RF_BLOB_BLOCK_SIZE)
#define SUMS_HELD 8192 /* checksums in memory: of 512 MiB; more wait in a nameless file */
#define PATH_SIZE (sizeof RF_LARGE_FOLDER + RF_LARGE_NAME_SIZE) /* "large/<name>", with its NUL */
static const uint8_t magic[8] = {'R', 'F', 'L', 'A', 'R', 'G', 'E', '1'};

struct rf_large_writer {
    int dir, fd, sums_fd;
    char temp[PATH_SIZE]; /* empty once it has its name */
    struct rf_hasher *hasher;
    struct rf_blobref ref;
    uint64_t size;      /* bytes in the file: whole blocks until finish */
    size_t filled;      /* bytes waiting in block */
    size_t sum_count;   /* waiting in sums */
    uint64_t sums_done; /* written to sums_fd */
    uint8_t block[RF_BLOB_BLOCK_SIZE];
    uint8_t sums[SUMS_HELD * 8];
};

/* ---- names ---- */

void rf_large_name(const struct rf_blobref *ref, uint32_t life, char out[RF_LARGE_NAME_SIZE])
{
    rf_blobref_format(ref, out);
    snprintf(out + RF_BLOBREF_SIZE - 1, RF_LARGE_NAME_SIZE - RF_BLOBREF_SIZE + 1, "-%" PRIu32,
             life);
}

bool rf_large_parse(struct rf_blobref *ref, uint32_t *life, const char *name)
{
    char again[RF_LARGE_NAME_SIZE];

    if (strlen(name) < RF_BLOBREF_SIZE + 1 ||
        rf_blobref_parse(ref, name, RF_BLOBREF_SIZE - 1, NULL) != RF_OK ||
        sscanf(name + RF_BLOBREF_SIZE - 1, "-%" SCNu32, life) != 1)
        return false;
    rf_large_name(ref, *life, again);
    return strcmp(name, again) == 0;
}

static void path_of(const struct rf_blobref *ref, uint32_t life, char out[PATH_SIZE])
{
    char name[RF_LARGE_NAME_SIZE];

    rf_large_name(ref, life, name);
    snprintf(out, PATH_SIZE, RF_LARGE_FOLDER "/%s", name);
}

/* ---- the folder ---- */

enum rf_status rf_large_make_folder(int dir, bool *made, struct rf_error *err)
{
    bool absent = mkdirat(dir, RF_LARGE_FOLDER, 0700) == 0;

    if (!absent && errno != EEXIST)
        return rf_error_errno(err, RF_IO, errno, "cannot make folder '" RF_LARGE_FOLDER "'");
    if (absent && fsync(dir) != 0)
        return rf_error_errno(err, RF_IO, errno,
                              "cannot make the name of '" RF_LARGE_FOLDER "' durable");
    if (made)
        *made = absent;
    return RF_OK;
}

enum rf_status rf_large_sync_folder(int dir, struct rf_error *err)
{
    int fd = openat(dir, RF_LARGE_FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool synced = fd >= 0 && fsync(fd) == 0;
    int cause = errno;

    if (fd >= 0)
        close(fd);
    if (synced)
        return RF_OK;
    return rf_error_errno(err, RF_IO, cause,
                          "cannot make the names in '" RF_LARGE_FOLDER "' durable");
}

/* ---- writing ---- */

static enum rf_status open_temp(int dir, char path[PATH_SIZE], int *out, struct rf_error *err)
{
    for (;;) {
        uint64_t random;
        enum rf_status status;
        if (getrandom(&random, sizeof random, 0) != sizeof random)
            continue;
        snprintf(path, PATH_SIZE, RF_LARGE_FOLDER "/" RF_LARGE_TEMP "%016" PRIx64, random);
        *out = openat(dir, path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (*out >= 0)
            return RF_OK;
        if (errno == EEXIST)
            continue;
        if (errno != ENOENT)
            return rf_error_errno(err, RF_IO, errno, "cannot make '%s'", path);
        status = rf_large_make_folder(dir, NULL, err);
        if (status != RF_OK)
            return status;
    }
}

enum rf_status rf_large_create(struct rf_large_writer **out, int dir, struct rf_error *err)
{
    struct rf_large_writer *writer = malloc(sizeof *writer);
    enum rf_status status;

    if (!writer)
        return rf_error_set(err, RF_NOMEM, "no memory for an upload");
    writer->dir = dir;
    writer->sums_fd = -1;
    writer->size = writer->sums_done = 0;
    writer->filled = writer->sum_count = 0;
    status = open_temp(dir, writer->temp, &writer->fd, err);
    if (status != RF_OK) {
        free(writer);
        return status;
    }
    writer->hasher = rf_hasher_new();
    *out = writer;
    return RF_OK;
}

static enum rf_status write_at(int fd, const uint8_t *data, size_t size, uint64_t offset,
                               struct rf_error *err)
{
    while (size > 0) {
        ssize_t n = pwrite(fd, data, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return rf_error_errno(err, RF_IO, n < 0 ? errno : ENOSPC,
                                  "cannot write a large blob");
        data += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return RF_OK;
}

static enum rf_status spill_sums(struct rf_large_writer *writer, struct rf_error *err)
{
    char path[PATH_SIZE];
    enum rf_status status;

    if (writer->sums_fd < 0) {
        status = open_temp(writer->dir, path, &writer->sums_fd, err);
        if (status != RF_OK)
            return status;
        unlinkat(writer->dir, path, 0);
    }
    status = write_at(writer->sums_fd, writer->sums, writer->sum_count * 8, writer->sums_done,
                      err);
    writer->sums_done += writer->sum_count * 8;
    writer->sum_count = 0;
    return status;
}

/* Hash and checksum bytes that start at a block's start. */
static enum rf_status take_note(struct rf_large_writer *writer, const uint8_t *data, size_t size,
                                uint64_t block, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    rf_hasher_update(writer->hasher, data, size);
    while (size > 0 && status == RF_OK) {
        size_t some = size < BLOCK ? size : BLOCK;
        if (writer->sum_count == SUMS_HELD)
            status = spill_sums(writer, err);
        rf_put_u64(writer->sums + writer->sum_count * 8, XXH3_64bits_withSeed(data, some, block));
        writer->sum_count++;
        block++;
        data += some;
        size -= some;
    }
    return status;
}

/* Whole blocks, or the last piece. */
static enum rf_status put_blocks(struct rf_large_writer *writer, const uint8_t *data, size_t size,
                                 struct rf_error *err)
{
    enum rf_status status = take_note(writer, data, size, writer->size / BLOCK, err);

    if (status == RF_OK)
        status = write_at(writer->fd, data, size, writer->size, err);
    writer->size += size;
    return status;
}

enum rf_status rf_large_write(struct rf_large_writer *writer, struct rf_bytes bytes,
                              struct rf_error *err)
{
    enum rf_status status = RF_OK;

    while (bytes.size > 0 && status == RF_OK) {
        size_t some;
        if (writer->filled == 0 && bytes.size >= BLOCK) {
            some = bytes.size / BLOCK * BLOCK;
            status = put_blocks(writer, bytes.data, some, err);
        } else {
            some = BLOCK - writer->filled < bytes.size ? BLOCK - writer->filled : bytes.size;
            memcpy(writer->block + writer->filled, bytes.data, some);
            writer->filled += some;
            if (writer->filled == BLOCK) {
                status = put_blocks(writer, writer->block, BLOCK, err);
                writer->filled = 0;
            }
        }
        bytes.data += some;
        bytes.size -= some;
    }
    return status;
}

/* Exactly size bytes at offset. RF_CORRUPT: the file ends before. */
static enum rf_status read_at(int fd, uint8_t *out, size_t size, uint64_t offset,
                              struct rf_error *err)
{
    while (size > 0) {
        ssize_t n = pread(fd, out, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return rf_error_errno(err, RF_IO, errno, "cannot read a large blob");
        if (n == 0)
            return rf_error_set(err, RF_CORRUPT, "the file of a large blob is too short");
        out += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return RF_OK;
}

enum rf_status rf_large_clone(struct rf_large_writer *writer, int fd, uint64_t offset,
                              uint64_t size, uint64_t *taken, struct rf_error *err)
{
    struct file_clone_range range = {
        .src_fd = fd,
        .src_offset = offset,
        .src_length = size / BLOCK * BLOCK,
        .dest_offset = writer->size,
    };
    uint64_t left = range.src_length;
    enum rf_status status = RF_OK;

    *taken = 0;
    if (writer->filled > 0 || left == 0 || ioctl(writer->fd, FICLONERANGE, &range) != 0)
        return RF_OK;
    while (left > 0 && status == RF_OK) {
        status = read_at(writer->fd, writer->block, BLOCK, writer->size, err);
        if (status == RF_OK)
            status = take_note(writer, writer->block, BLOCK, writer->size / BLOCK, err);
        writer->size += BLOCK;
        left -= BLOCK;
    }
    *taken = range.src_length;
    return status;
}

enum rf_status rf_large_finish(struct rf_large_writer *writer, struct rf_blobref *ref,
                               uint64_t *size, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    if (writer->filled > 0)
        status = put_blocks(writer, writer->block, writer->filled, err);
    writer->filled = 0;
    rf_hasher_finish(writer->hasher, &writer->ref);
    *ref = writer->ref;
    *size = writer->size;
    return status;
}

static void encode_footer(uint8_t out[RF_LARGE_FOOTER_SIZE], const struct rf_blobref *ref,
                          uint64_t size, uint32_t life)
{
    memcpy(out, magic, sizeof magic);
    rf_put_u64(out + 8, size);
    rf_put_u32(out + 16, RF_BLOB_BLOCK_SIZE);
    rf_put_u32(out + 20, life);
    memcpy(out + 24, ref->digest, RF_DIGEST_SIZE);
    rf_put_u64(out + 56, XXH3_64bits(out, 56));
}

static enum rf_status write_trailer(struct rf_large_writer *writer, uint32_t life,
                                    struct rf_error *err)
{
    uint8_t footer[RF_LARGE_FOOTER_SIZE];
    uint64_t at = writer->size;
    enum rf_status status = RF_OK;

    for (uint64_t done = 0; done < writer->sums_done && status == RF_OK;) {
        size_t some = writer->sums_done - done < BLOCK ? (size_t)(writer->sums_done - done) : BLOCK;
        status = read_at(writer->sums_fd, writer->block, some, done, err);
        if (status == RF_OK)
            status = write_at(writer->fd, writer->block, some, at, err);
        done += some;
        at += some;
    }
    if (status == RF_OK)
        status = write_at(writer->fd, writer->sums, writer->sum_count * 8, at, err);
    at += writer->sum_count * 8;
    encode_footer(footer, &writer->ref, writer->size, life);
    if (status == RF_OK)
        status = write_at(writer->fd, footer, sizeof footer, at, err);
    return status;
}

enum rf_status rf_large_publish(struct rf_large_writer *writer, uint32_t life,
                                struct rf_error *err)
{
    char path[PATH_SIZE];
    enum rf_status status = write_trailer(writer, life, err);

    if (status != RF_OK)
        return status;
    path_of(&writer->ref, life, path);
    if (RF_SAFEGUARD("large-fsync") && fsync(writer->fd) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot make '%s' durable", path);
    if (renameat(writer->dir, writer->temp, writer->dir, path) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot name '%s'", path);
    writer->temp[0] = '\0';
    return RF_SAFEGUARD("dir-fsync") ? rf_large_sync_folder(writer->dir, err) : RF_OK;
}

void rf_large_free(struct rf_large_writer *writer)
{
    if (!writer)
        return;
    if (writer->temp[0])
        unlinkat(writer->dir, writer->temp, 0);
    if (writer->sums_fd >= 0)
        close(writer->sums_fd);
    close(writer->fd);
    rf_hasher_free(writer->hasher);
    free(writer);
}

/* ---- reading ---- */

static enum rf_status open_large(int dir, const struct rf_blobref *ref, uint32_t life, int *out,
                                 struct rf_error *err)
{
    char path[PATH_SIZE];

    path_of(ref, life, path);
    *out = openat(dir, path, O_RDONLY | O_CLOEXEC);
    if (*out < 0)
        return rf_error_errno(err, errno == ENOENT ? RF_NOT_FOUND : RF_IO, errno,
                              "cannot open '%s'", path);
    return RF_OK;
}

static enum rf_status corrupt(const struct rf_blobref *ref, const char *what, struct rf_error *err)
{
    char text[RF_BLOBREF_SIZE];

    rf_blobref_format(ref, text);
    return rf_error_set(err, RF_CORRUPT, "blob %s is corrupt: %s", text, what);
}

static enum rf_status hash_mismatch(const struct rf_blobref *ref, const struct rf_blobref *got,
                                    struct rf_error *err)
{
    char text[RF_BLOBREF_SIZE], found[RF_BLOBREF_SIZE];

    rf_blobref_format(ref, text);
    rf_blobref_format(got, found);
    return rf_error_set(err, RF_CORRUPT, "blob %s is corrupt: its content hashes to %s", text,
                        found);
}

enum rf_status rf_large_get(int dir, const struct rf_blobref *ref, uint32_t life, uint64_t size,
                            struct rf_buf *buf, struct rf_error *err)
{
    struct rf_blobref got;
    uint8_t *to;
    int fd;
    enum rf_status status = open_large(dir, ref, life, &fd, err);

    if (status != RF_OK)
        return status;
    to = size <= SIZE_MAX ? rf_buf_reserve(buf, (size_t)size) : NULL;
    if (!to)
        status = rf_error_set(err, buf->failed ? buf->failed : RF_LIMIT,
                              "a blob of %" PRIu64 " bytes is more than was asked for", size);
    if (status == RF_OK)
        status = read_at(fd, to, (size_t)size, 0, err);
    close(fd);
    if (status != RF_OK)
        return status;
    rf_blobref_of(&got, rf_bytes(to, (size_t)size));
    if (!rf_blobref_equal(&got, ref))
        return hash_mismatch(ref, &got, err);
    buf->size += (size_t)size;
    return RF_OK;
}

static enum rf_status check_footer(int fd, const struct rf_blobref *ref, uint32_t life,
                                   uint64_t size, struct rf_error *err)
{
    uint64_t blocks = (size + BLOCK - 1) / BLOCK;
    uint8_t footer[RF_LARGE_FOOTER_SIZE], expected[RF_LARGE_FOOTER_SIZE];
    enum rf_status status = read_at(fd, footer, sizeof footer, size + blocks * 8, err);

    if (status != RF_OK)
        return status;
    encode_footer(expected, ref, size, life);
    if (memcmp(footer, expected, sizeof footer) != 0)
        return corrupt(ref, "the end of its file is not its own", err);
    return RF_OK;
}

static enum rf_status read_block(int fd, const struct rf_blobref *ref, uint64_t size,
                                 uint64_t block, uint8_t out[RF_BLOB_BLOCK_SIZE], size_t *count,
                                 struct rf_error *err)
{
    uint64_t at = block * BLOCK;
    size_t some = size - at < BLOCK ? (size_t)(size - at) : BLOCK;
    uint8_t sum[8];
    enum rf_status status = read_at(fd, out, some, at, err);

    if (status == RF_OK)
        status = read_at(fd, sum, sizeof sum, size + block * 8, err);
    if (status == RF_OK && rf_get_u64(sum) != XXH3_64bits_withSeed(out, some, block))
        return corrupt(ref, "a block does not match its checksum", err);
    *count = some;
    return status;
}

enum rf_status rf_large_read(int dir, const struct rf_blobref *ref, uint32_t life, uint64_t size,
                             uint64_t offset, void *out, size_t count, struct rf_error *err)
{
    uint8_t *to = out, *block = malloc(BLOCK);
    int fd = -1;
    enum rf_status status;

    if (!block)
        return rf_error_set(err, RF_NOMEM, "no memory to read a large blob");
    status = open_large(dir, ref, life, &fd, err);
    if (status == RF_OK)
        status = check_footer(fd, ref, life, size, err);
    while (count > 0 && status == RF_OK) {
        size_t within = (size_t)(offset % BLOCK), got = 0, some;
        status = read_block(fd, ref, size, offset / BLOCK, block, &got, err);
        if (status != RF_OK)
            break;
        assert(within < got);
        some = got - within < count ? got - within : count;
        memcpy(to, block + within, some);
        to += some;
        offset += some;
        count -= some;
    }
    if (fd >= 0)
        close(fd);
    free(block);
    return status;
}

enum rf_status rf_large_verify(int dir, const struct rf_blobref *ref, uint32_t life, uint64_t size,
                               struct rf_error *err)
{
    struct rf_hasher *hasher = rf_hasher_new();
    uint8_t *block = malloc(BLOCK);
    struct rf_blobref got;
    int fd = -1;
    enum rf_status status;

    if (block)
        status = open_large(dir, ref, life, &fd, err);
    else
        status = rf_error_set(err, RF_NOMEM, "no memory to read a large blob");
    if (status == RF_OK)
        status = check_footer(fd, ref, life, size, err);
    for (uint64_t at = 0; at * BLOCK < size && status == RF_OK; at++) {
        size_t count = 0;
        status = read_block(fd, ref, size, at, block, &count, err);
        rf_hasher_update(hasher, block, count);
    }
    rf_hasher_finish(hasher, &got);
    if (status == RF_OK && !rf_blobref_equal(&got, ref))
        status = hash_mismatch(ref, &got, err);
    if (fd >= 0)
        close(fd);
    rf_hasher_free(hasher);
    free(block);
    return status;
}

void rf_large_remove(int dir, const struct rf_blobref *ref, uint32_t life)
{
    char path[PATH_SIZE];

    path_of(ref, life, path);
    unlinkat(dir, path, 0);
}
