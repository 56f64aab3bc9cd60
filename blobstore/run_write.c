/* run_write.c - runs grow under a temporary name, 16 pages at a time, then get their own. */
#include "blobstore/run_format.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

struct rf_run_writer {
    int dir, fd;
    char name[RF_RUN_NAME_MAX + 1], temporary[RF_RUN_NAME_MAX + 5];
    uint8_t *sources; /* as bytes */
    size_t source_count;
    uint64_t tag;
    uint64_t count, deleted, min_seq, max_seq;
    struct rf_blobref last;
    bool committed;
    uint8_t prefixes[RUN_PREFIXES_SIZE];
    uint8_t pages[RUN_IO_PAGES * RUN_PAGE_SIZE]; /* begun and full ones not yet written */
};

static enum rf_status write_all(struct rf_run_writer *writer, const uint8_t *data, size_t size,
                                struct rf_error *err)
{
    ssize_t done;

    while (size > 0) {
        done = write(writer->fd, data, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return rf_error_errno(err, RF_IO, done < 0 ? errno : EIO,
                                  "cannot write lookup run '%s'",
                                  writer->temporary);
        data += done;
        size -= (size_t)done;
    }
    return RF_OK;
}

enum rf_status rf_run_create(struct rf_run_writer **out, int dir, const char *name,
                             const struct rf_run_source *sources, size_t source_count,
                             struct rf_error *err)
{
    struct rf_run_writer *writer;

    assert(strlen(name) <= RF_RUN_NAME_MAX);
    if (source_count > RF_RUN_SOURCES_MAX)
        return rf_error_set(err, RF_LIMIT, "lookup run '%s' of %zu parts of the log, at most %d",
                            name,
                            source_count, RF_RUN_SOURCES_MAX);
    writer = calloc(1, sizeof *writer);
    if (writer)
        writer->sources = malloc(source_count * RUN_SOURCE_SIZE + 1);
    if (!writer || !writer->sources) {
        free(writer);
        return rf_error_set(err, RF_NOMEM, "no memory to write lookup run '%s'", name);
    }
    writer->dir = dir;
    snprintf(writer->name, sizeof writer->name, "%s", name);
    snprintf(writer->temporary, sizeof writer->temporary, "%s.tmp", name);
    for (size_t i = 0; i < source_count; i++) {
        rf_put_u64(writer->sources + i * RUN_SOURCE_SIZE, sources[i].segment);
        rf_put_u64(writer->sources + i * RUN_SOURCE_SIZE + 8, sources[i].from_seq);
        rf_put_u64(writer->sources + i * RUN_SOURCE_SIZE + 16, sources[i].to_seq);
    }
    writer->source_count = source_count;
    writer->tag = XXH3_64bits(writer->sources, source_count * RUN_SOURCE_SIZE);
    writer->fd = openat(dir, writer->temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (writer->fd < 0) {
        rf_error_errno(err, RF_IO, errno, "cannot create lookup run '%s'", writer->temporary);
        rf_run_writer_free(writer);
        return RF_IO;
    }
    *out = writer;
    return RF_OK;
}

/* sum += digest, as 256-bit big-endian numbers. */
static void add_digest(uint8_t sum[32], const uint8_t digest[32])
{
    unsigned carry = 0;

    for (int i = 31; i >= 0; i--) {
        carry += (unsigned)sum[i] + digest[i];
        sum[i] = (uint8_t)carry;
        carry >>= 8;
    }
}

static void count_entry(struct rf_run_writer *writer, const struct rf_run_entry *entry)
{
    uint8_t *prefix = writer->prefixes + entry->ref.digest[0] * RUN_PREFIX_SIZE;

    writer->count++;
    if (writer->count == 1 || entry->seq < writer->min_seq)
        writer->min_seq = entry->seq;
    if (entry->seq > writer->max_seq)
        writer->max_seq = entry->seq;
    rf_put_u64(prefix, rf_get_u64(prefix) + 1); /* becomes the first index at commit */
    if (entry->flags & RF_RUN_DELETE) {
        writer->deleted++;
    } else {
        rf_put_u64(prefix + 8, rf_get_u64(prefix + 8) + 1);
        add_digest(prefix + 16, entry->ref.digest);
    }
}

static void encode_entry(uint8_t *p, const struct rf_run_entry *entry)
{
    memcpy(p, entry->ref.digest, RF_DIGEST_SIZE);
    p[32] = entry->ref.algo;
    p[33] = entry->flags;
    rf_put_u16(p + 34, 0);
    rf_put_u32(p + 36, entry->life);
    rf_put_u64(p + 40, entry->seq);
    rf_put_u64(p + 48, entry->size);
    rf_put_u64(p + 56, (uint64_t)entry->timestamp_us);
    rf_put_u64(p + 64, entry->segment);
    rf_put_u32(p + 72, entry->offset);
    rf_put_u32(p + 76, entry->stored);
}

/* Write the last `pages` pages, of which the last may not be full. */
static enum rf_status write_pages(struct rf_run_writer *writer, size_t pages, struct rf_error *err)
{
    uint64_t first = run_page_count(writer->count) - pages;

    for (size_t i = 0; i < pages; i++) {
        uint8_t *page = writer->pages + i * RUN_PAGE_SIZE;
        uint32_t entries = run_page_entries(writer->count, first + i);
        size_t used = RUN_PAGE_HEAD + (size_t)entries * RUN_ENTRY_SIZE;
        memset(page + used, 0, RUN_PAGE_SIZE - used);
        rf_put_u32(page + 8, (uint32_t)(first + i));
        rf_put_u32(page + 12, entries);
        rf_put_u64(page, XXH3_64bits_withSeed(page + 8, RUN_PAGE_SIZE - 8,
                                              writer->tag + first + i));
    }
    return write_all(writer, writer->pages, pages * RUN_PAGE_SIZE, err);
}

enum rf_status rf_run_add(struct rf_run_writer *writer, const struct rf_run_entry *entry,
                          struct rf_error *err)
{
    size_t page = (size_t)(writer->count / RUN_PAGE_ENTRIES % RUN_IO_PAGES);
    size_t index = (size_t)(writer->count % RUN_PAGE_ENTRIES);

    assert(entry->ref.algo == RF_ALGO_SHA256 && (entry->flags & ~RF_RUN_FLAGS) == 0);
    assert(writer->count == 0 || rf_blobref_compare(&entry->ref, &writer->last) > 0);
    if (run_page_count(writer->count + 1) > UINT32_MAX)
        return rf_error_set(err, RF_LIMIT, "lookup run '%s' has too many entries", writer->name);
    encode_entry(writer->pages + page * RUN_PAGE_SIZE + RUN_PAGE_HEAD + index * RUN_ENTRY_SIZE,
                 entry);
    writer->last = entry->ref;
    count_entry(writer, entry);
    if (page == RUN_IO_PAGES - 1 && index == RUN_PAGE_ENTRIES - 1)
        return write_pages(writer, RUN_IO_PAGES, err);
    return RF_OK;
}

/* The counts per first byte become the index of its first entry. */
static void settle_prefixes(struct rf_run_writer *writer)
{
    uint64_t first = 0, count;

    for (int i = 0; i < 256; i++) {
        count = rf_get_u64(writer->prefixes + i * RUN_PREFIX_SIZE);
        rf_put_u64(writer->prefixes + i * RUN_PREFIX_SIZE, first);
        first += count;
    }
}

static enum rf_status write_footer(struct rf_run_writer *writer, struct rf_error *err)
{
    size_t sources = writer->source_count * RUN_SOURCE_SIZE;
    size_t size = RUN_PREFIXES_SIZE + sources + RUN_TRAILER_SIZE;
    uint8_t *footer = calloc(1, size), *trailer;
    enum rf_status status;

    if (!footer)
        return rf_error_set(err, RF_NOMEM, "no memory to write lookup run '%s'", writer->name);
    settle_prefixes(writer);
    memcpy(footer, writer->prefixes, RUN_PREFIXES_SIZE);
    memcpy(footer + RUN_PREFIXES_SIZE, writer->sources, sources);
    trailer = footer + size - RUN_TRAILER_SIZE;
    memcpy(trailer, RUN_MAGIC, 8);
    rf_put_u32(trailer + 8, RUN_VERSION);
    rf_put_u32(trailer + 12, RUN_ENTRY_SIZE);
    rf_put_u64(trailer + 16, writer->count);
    rf_put_u64(trailer + 24, run_page_count(writer->count));
    rf_put_u64(trailer + 32, writer->min_seq);
    rf_put_u64(trailer + 40, writer->max_seq);
    rf_put_u64(trailer + 48, writer->tag);
    rf_put_u32(trailer + 56, (uint32_t)writer->source_count);
    rf_put_u32(trailer + 60, (uint32_t)size);
    rf_put_u64(trailer + 64, writer->deleted);
    rf_put_u64(trailer + 120, XXH3_64bits(footer, size - 8));
    status = write_all(writer, footer, size, err);
    free(footer);
    return status;
}

enum rf_status rf_run_commit(struct rf_run_writer *writer, bool sync, struct rf_error *err)
{
    size_t pages = (size_t)(run_page_count(writer->count) % RUN_IO_PAGES);
    enum rf_status status = RF_OK;

    assert(!writer->committed);
    if (pages > 0 || writer->count % RUN_PAGE_ENTRIES != 0)
        status = write_pages(writer, pages ? pages : RUN_IO_PAGES, err);
    if (status == RF_OK)
        status = write_footer(writer, err);
    if (status != RF_OK)
        return status;
    if (sync && fsync(writer->fd) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot make lookup run '%s' durable",
                              writer->temporary);
    if (renameat(writer->dir, writer->temporary, writer->dir, writer->name) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot name lookup run '%s'", writer->name);
    writer->committed = true;
    if (sync && fsync(writer->dir) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot make the name of lookup run '%s' durable",
                              writer->name);
    return RF_OK;
}

void rf_run_writer_free(struct rf_run_writer *writer)
{
    if (!writer)
        return;
    if (writer->fd >= 0) {
        close(writer->fd);
        if (!writer->committed)
            unlinkat(writer->dir, writer->temporary, 0);
    }
    free(writer->sources);
    free(writer);
}
