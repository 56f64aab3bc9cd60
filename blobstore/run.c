/*
 * run.c - opening a run and finding one entry
 *
 * Digests are uniform, so an entry's page is computed from where its digest lies between the first
 * entries of its prefix and the next; it is off by one page now and then, and bisection bounds what
 * chosen digests could do. Pages are read with pread into the caller's frame: no cache of ours, no
 * lock, and the kernel keeps what is hot.
 *
 * A new blob is looked for in every run, in vain, and reading a page for that costs more than
 * hashing the blob. A run that was searched in vain as often as reading all of it would cost makes
 * itself a filter: 12 bits an entry in blocks of a cache line (Putze, Sanders, Singler, "Cache-,
 * Hash- and Space-Efficient Bloom Filters", 2007). Some 1 % of what is not there passes it.
 */
#include "blobstore/run_format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "core/control.h"

#define FILTER_BLOCK 8   /* words of 64 bits */
#define FILTER_BITS 12   /* an entry */
#define FILTER_PROBES 6  /* of 9 bits each, from one word of the digest */
#define FILTER_ENTRIES_MAX (1u << 22) /* 6 MiB; with the runs below it some 24 in a lookup */
#define FILTER_VAIN_MIN 16

struct rf_run {
    int fd;
    char name[RF_RUN_NAME_MAX + 1];
    uint64_t tag;
    struct rf_run_info info;
    struct rf_run_source *sources;
    uint64_t first[257]; /* index of the first entry per first byte; the last is the count */
    struct rf_run_prefix prefixes[256];
    uint64_t vain;    /* atomic: finds without an entry */
    uint64_t *filter; /* atomic; NULL: none yet */
    uint64_t filter_blocks;
};

/* ---- opening ---- */

static enum rf_status read_all(struct rf_run *run, uint8_t *out, size_t size, uint64_t offset,
                               struct rf_error *err)
{
    ssize_t got;

    while (size > 0) {
        got = pread(run->fd, out, size, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return rf_error_errno(err, RF_IO, errno, "cannot read lookup run '%s'", run->name);
        if (got == 0)
            return rf_error_set(err, RF_CORRUPT, "lookup run '%s' ends too early", run->name);
        out += got;
        offset += (uint64_t)got;
        size -= (size_t)got;
    }
    return RF_OK;
}

static enum rf_status corrupt(struct rf_run *run, struct rf_error *err, const char *what)
{
    return rf_error_set(err, RF_CORRUPT, "lookup run '%s' is corrupt: %s", run->name, what);
}

/* The trailer's own numbers must fit each other and the file's size. */
static enum rf_status check_trailer(struct rf_run *run, const uint8_t *trailer, uint64_t file_size,
                                    struct rf_error *err)
{
    uint64_t count = rf_get_u64(trailer + 16), pages = rf_get_u64(trailer + 24);
    uint64_t sources = rf_get_u32(trailer + 56), footer = rf_get_u32(trailer + 60);

    if (memcmp(trailer, RUN_MAGIC, 8) != 0)
        return corrupt(run, err, "its end is not that of a run");
    if (rf_get_u32(trailer + 8) > RUN_VERSION)
        return rf_error_set(err, RF_UNSUPPORTED,
                            "lookup run '%s' has format %u, this program knows %d",
                            run->name, rf_get_u32(trailer + 8), RUN_VERSION);
    if (rf_get_u32(trailer + 8) != RUN_VERSION || rf_get_u32(trailer + 12) != RUN_ENTRY_SIZE ||
        sources > RF_RUN_SOURCES_MAX ||
        footer != RUN_PREFIXES_SIZE + sources * RUN_SOURCE_SIZE + RUN_TRAILER_SIZE ||
        pages > UINT32_MAX || pages != run_page_count(count) ||
        file_size != pages * RUN_PAGE_SIZE + footer || rf_get_u64(trailer + 64) > count)
        return corrupt(run, err, "the numbers at its end do not fit it");
    run->info.count = count;
    run->info.deleted = rf_get_u64(trailer + 64);
    run->info.min_seq = rf_get_u64(trailer + 32);
    run->info.max_seq = rf_get_u64(trailer + 40);
    run->info.source_count = (size_t)sources;
    run->info.file_bytes = file_size;
    run->tag = rf_get_u64(trailer + 48);
    return RF_OK;
}

static enum rf_status take_footer(struct rf_run *run, const uint8_t *footer, struct rf_error *err)
{
    const uint8_t *p;

    for (int i = 0; i < 256; i++) {
        p = footer + i * RUN_PREFIX_SIZE;
        run->first[i] = rf_get_u64(p);
        run->prefixes[i].count = rf_get_u64(p + 8);
        memcpy(run->prefixes[i].sum, p + 16, 32);
        if (run->first[i] > run->info.count ||
            (i == 0 ? run->first[0] != 0 : run->first[i] < run->first[i - 1]))
            return corrupt(run, err, "its prefixes are out of order");
    }
    run->first[256] = run->info.count;
    run->sources = malloc(run->info.source_count * sizeof *run->sources + 1);
    if (!run->sources)
        return rf_error_set(err, RF_NOMEM, "no memory to open lookup run '%s'", run->name);
    for (size_t i = 0; i < run->info.source_count; i++) {
        p = footer + RUN_PREFIXES_SIZE + i * RUN_SOURCE_SIZE;
        run->sources[i] = (struct rf_run_source){rf_get_u64(p), rf_get_u64(p + 8),
                                                 rf_get_u64(p + 16)};
    }
    run->info.sources = run->sources;
    return RF_OK;
}

static enum rf_status load(struct rf_run *run, struct rf_error *err)
{
    uint8_t trailer[RUN_TRAILER_SIZE], *footer = NULL;
    struct stat st;
    uint64_t file_size;
    size_t size;
    enum rf_status status;

    if (fstat(run->fd, &st) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot read lookup run '%s'", run->name);
    file_size = (uint64_t)st.st_size;
    if (file_size < RUN_PREFIXES_SIZE + RUN_TRAILER_SIZE)
        return corrupt(run, err, "it is too short");
    if ((status = read_all(run, trailer, sizeof trailer, file_size - sizeof trailer,
                           err)) != RF_OK ||
        (status = check_trailer(run, trailer, file_size, err)) != RF_OK)
        return status;
    size = rf_get_u32(trailer + 60);
    footer = malloc(size);
    if (!footer)
        return rf_error_set(err, RF_NOMEM, "no memory to open lookup run '%s'", run->name);
    status = read_all(run, footer, size, file_size - size, err);
    if (status == RF_OK && XXH3_64bits(footer, size - 8) != rf_get_u64(trailer + 120) &&
        RF_SAFEGUARD("run-footer-checksum"))
        status = corrupt(run, err, "its footer fails its checksum");
    if (status == RF_OK)
        status = take_footer(run, footer, err);
    free(footer);
    return status;
}

enum rf_status rf_run_open(struct rf_run **out, int dir, const char *name, struct rf_error *err)
{
    struct rf_run *run;
    enum rf_status status;
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return rf_error_errno(err, errno == ENOENT ? RF_NOT_FOUND : RF_IO, errno,
                              "cannot open lookup run '%s'", name);
    run = calloc(1, sizeof *run);
    if (!run) {
        close(fd);
        return rf_error_set(err, RF_NOMEM, "no memory to open lookup run '%s'", name);
    }
    run->fd = fd;
    snprintf(run->name, sizeof run->name, "%s", name);
    status = load(run, err);
    if (status != RF_OK) {
        rf_run_close(run);
        return status;
    }
    *out = run;
    return RF_OK;
}

void rf_run_close(struct rf_run *run)
{
    if (!run)
        return;
    close(run->fd);
    free(run->sources);
    free(run->filter);
    free(run);
}

const struct rf_run_info *rf_run_info(const struct rf_run *run)
{
    return &run->info;
}

const char *rf_run_name(const struct rf_run *run)
{
    return run->name;
}

void rf_run_prefix(const struct rf_run *run, uint8_t byte, struct rf_run_prefix *out)
{
    *out = run->prefixes[byte];
}

/* ---- pages ---- */

static bool page_is_good(const struct rf_run *run, uint64_t number, const uint8_t *page)
{
    if (rf_get_u32(page + 8) != (uint32_t)number ||
        rf_get_u32(page + 12) != run_page_entries(run->info.count, number))
        return false;
    return rf_get_u64(page) == XXH3_64bits_withSeed(page + 8, RUN_PAGE_SIZE - 8,
                                                    run->tag + number) ||
           !RF_SAFEGUARD("run-page-checksum");
}

enum rf_status run_read_pages(struct rf_run *run, uint64_t page, size_t count, uint8_t *out,
                              struct rf_error *err)
{
    enum rf_status status = read_all(run, out, count * RUN_PAGE_SIZE, page * RUN_PAGE_SIZE, err);

    for (size_t i = 0; status == RF_OK && i < count; i++)
        if (!page_is_good(run, page + i, out + i * RUN_PAGE_SIZE))
            status = rf_error_set(err, RF_CORRUPT,
                                  "lookup run '%s' is corrupt: page %llu fails its checksum",
                                  run->name, (unsigned long long)(page + i));
    return status;
}

void run_entry_decode(struct rf_run_entry *out, const uint8_t *p)
{
    out->ref.algo = p[32];
    memcpy(out->ref.digest, p, RF_DIGEST_SIZE);
    out->flags = p[33];
    out->life = rf_get_u32(p + 36);
    out->seq = rf_get_u64(p + 40);
    out->size = rf_get_u64(p + 48);
    out->timestamp_us = (int64_t)rf_get_u64(p + 56);
    out->segment = rf_get_u64(p + 64);
    out->offset = rf_get_u32(p + 72);
    out->stored = rf_get_u32(p + 76);
}

/* ---- finding ---- */

static const uint8_t *entry_at(const uint8_t *page, uint32_t index)
{
    return page + RUN_PAGE_HEAD + (size_t)index * RUN_ENTRY_SIZE;
}

/* Where among the entries of its first byte the digest is to be expected. */
static uint64_t guess_index(const struct rf_run *run, const uint8_t *digest)
{
    uint64_t low = run->first[digest[0]], high = run->first[digest[0] + 1];
    double part = 0;

    for (int i = 5; i > 0; i--)
        part = (part + digest[i]) / 256;
    return low + (uint64_t)((double)(high - low) * part);
}

/* Index within the page of the first entry that is not below the digest; entries when none is. */
static uint32_t lower_bound(const uint8_t *page, uint32_t entries, const uint8_t *digest)
{
    uint32_t low = 0, high = entries;

    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (memcmp(entry_at(page, middle), digest, RF_DIGEST_SIZE) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/*
 * Index of the first entry that is not below the digest, and the page it would stand in. Tries the
 * page the digest suggests, then its neighbour, then bisects what is left.
 */
static enum rf_status find_index(struct rf_run *run, const uint8_t *digest,
                                 uint8_t page[RUN_PAGE_SIZE], uint64_t *page_number,
                                 uint32_t *index, struct rf_error *err)
{
    uint64_t low = run->first[digest[0]] / RUN_PAGE_ENTRIES;
    uint64_t high = (run->first[digest[0] + 1] - 1) / RUN_PAGE_ENTRIES;
    uint64_t try = guess_index(run, digest) / RUN_PAGE_ENTRIES;
    enum rf_status status;
    uint32_t entries;

    for (unsigned probe = 1;; probe++) {
        if (try > high)
            try = high;
        status = run_read_pages(run, try, 1, page, err);
        if (status != RF_OK)
            return status;
        entries = run_page_entries(run->info.count, try);
        *page_number = try;
        *index = lower_bound(page, entries, digest);
        if (*index == entries && try < high) {
            low = try + 1;
            try = probe == 1 ? low : low + (high - low) / 2;
        } else if (*index == 0 && try > low &&
                   memcmp(entry_at(page, 0), digest, RF_DIGEST_SIZE) > 0) {
            high = try - 1;
            try = probe == 1 ? high : low + (high - low) / 2;
        } else {
            return RF_OK;
        }
    }
}

/* ---- the filter ---- */

/* Visit the bits of a digest: set them, or answer whether all are set. The page was found by the
 * digest's first bytes; these are others. */
static bool filter_bits(uint64_t *filter, uint64_t blocks, const uint8_t *digest, bool set)
{
    uint64_t block = (uint64_t)((unsigned __int128)rf_get_u64(digest + 8) * blocks >> 64);
    uint64_t bits = rf_get_u64(digest + 16), *words = filter + block * FILTER_BLOCK;

    for (int i = 0; i < FILTER_PROBES; i++, bits >>= 9) {
        uint64_t bit = (uint64_t)1 << (bits & 63), *word = &words[bits >> 6 & (FILTER_BLOCK - 1)];
        if (set)
            *word |= bit;
        else if (!(*word & bit))
            return false;
    }
    return true;
}

/* Failing, the run goes on without. */
static void make_filter(struct rf_run *run)
{
    uint64_t pages = run_page_count(run->info.count);
    uint64_t blocks = run->info.count * FILTER_BITS / (FILTER_BLOCK * 64) + 1;
    uint64_t *filter = aligned_alloc(64, blocks * FILTER_BLOCK * 8);
    uint8_t *window = malloc(RUN_IO_PAGES * RUN_PAGE_SIZE);
    enum rf_status status = filter && window ? RF_OK : RF_NOMEM;

    if (filter)
        memset(filter, 0, blocks * FILTER_BLOCK * 8);
    for (uint64_t page = 0; page < pages && status == RF_OK; page += RUN_IO_PAGES) {
        uint64_t at = page * RUN_PAGE_ENTRIES;
        size_t count = pages - page < RUN_IO_PAGES ? (size_t)(pages - page) : RUN_IO_PAGES;
        status = run_read_pages(run, page, count, window, NULL);
        for (size_t i = 0; i < count * RUN_PAGE_ENTRIES && at < run->info.count; i++, at++)
            filter_bits(filter, blocks, entry_at(window + i / RUN_PAGE_ENTRIES * RUN_PAGE_SIZE,
                                                 (uint32_t)(i % RUN_PAGE_ENTRIES)), true);
    }
    free(window);
    if (status != RF_OK) {
        free(filter);
        return;
    }
    run->filter_blocks = blocks;
    __atomic_store_n(&run->filter, filter, __ATOMIC_RELEASE);
}

static void count_vain(struct rf_run *run)
{
    uint64_t vain = __atomic_add_fetch(&run->vain, 1, __ATOMIC_RELAXED);

    if (vain == FILTER_VAIN_MIN + run_page_count(run->info.count) / 2 &&
        run->info.count <= FILTER_ENTRIES_MAX)
        make_filter(run);
}

/* ---- finding one ---- */

enum rf_status rf_run_find(struct rf_run *run, const struct rf_blobref *ref,
                           struct rf_run_entry *out, struct rf_error *err)
{
    uint64_t *filter = __atomic_load_n(&run->filter, __ATOMIC_ACQUIRE), number;
    uint8_t page[RUN_PAGE_SIZE];
    uint32_t index;
    enum rf_status status;

    if (ref->algo != RF_ALGO_SHA256 ||
        run->first[ref->digest[0]] == run->first[ref->digest[0] + 1] ||
        (filter && !filter_bits(filter, run->filter_blocks, ref->digest, false)))
        return RF_NOT_FOUND;
    status = find_index(run, ref->digest, page, &number, &index, err);
    if (status != RF_OK)
        return status;
    if (index == run_page_entries(run->info.count, number) ||
        memcmp(entry_at(page, index), ref->digest, RF_DIGEST_SIZE) != 0) {
        count_vain(run);
        return RF_NOT_FOUND;
    }
    run_entry_decode(out, entry_at(page, index));
    return RF_OK;
}

enum rf_status run_after(struct rf_run *run, const struct rf_blobref *ref, uint64_t *out,
                         struct rf_error *err)
{
    uint8_t page[RUN_PAGE_SIZE];
    uint64_t number;
    uint32_t index;
    enum rf_status status;

    if (ref->algo != RF_ALGO_SHA256) { /* all of ours stand before or behind it */
        *out = ref->algo < RF_ALGO_SHA256 ? 0 : run->info.count;
        return RF_OK;
    }
    *out = run->first[ref->digest[0]];
    if (*out == run->first[ref->digest[0] + 1])
        return RF_OK;
    status = find_index(run, ref->digest, page, &number, &index, err);
    if (status != RF_OK)
        return status;
    *out = number * RUN_PAGE_ENTRIES + index;
    if (index < run_page_entries(run->info.count, number) &&
        memcmp(entry_at(page, index), ref->digest, RF_DIGEST_SIZE) == 0)
        ++*out;
    return RF_OK;
}
