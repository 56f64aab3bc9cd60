/*
 * run_format.h - a lookup run as bytes, for the files that write and read it (doc/format-run.md)
 *
 *   pages     page_count x 4096: u64 checksum, u32 page number, u32 entries here, 51 x entry
 *   prefixes  256 x 48: u64 index of the first entry with this first byte, u64 count, 32 bytes sum
 *   sources   source_count x 24: u64 segment, u64 from_seq, u64 to_seq
 *   trailer   128 bytes: 0 "RFRUN001"   8 u32 version   12 u32 entry size   16 u64 entries
 *             24 u64 pages   32 u64 min_seq   40 u64 max_seq   48 u64 tag   56 u32 sources
 *             60 u32 footer size (prefixes, sources, trailer)   64 u64 tombstones   72 zeros
 *             120 u64 checksum
 *   entry     80 bytes: 0 digest   32 u8 algo   33 u8 flags   34 u16 zero   36 u32 life
 *             40 u64 seq   48 u64 size   56 i64 timestamp_us   64 u64 segment   72 u32 offset
 *             76 u32 stored
 *
 * Checksums are XXH3-64: of a page from byte 8, seeded with tag + page number, so that a page of
 * another place or another run does not pass; of the footer up to the checksum, unseeded. The tag
 * is XXH3-64 of the sources' bytes. All pages but the last are full.
 */
#ifndef RF_BLOBSTORE_RUN_FORMAT_H
#define RF_BLOBSTORE_RUN_FORMAT_H

#include "blobstore/run.h"

#define RUN_MAGIC "RFRUN001"
#define RUN_VERSION 1
#define RUN_PAGE_SIZE 4096
#define RUN_PAGE_HEAD 16
#define RUN_ENTRY_SIZE 80
#define RUN_PAGE_ENTRIES ((RUN_PAGE_SIZE - RUN_PAGE_HEAD) / RUN_ENTRY_SIZE)
#define RUN_PREFIX_SIZE 48
#define RUN_PREFIXES_SIZE (256 * RUN_PREFIX_SIZE)
#define RUN_SOURCE_SIZE 24
#define RUN_TRAILER_SIZE 128
#define RUN_IO_PAGES 16 /* written and read at once in order */

_Static_assert(RUN_PAGE_ENTRIES == 51, "as the format page says");

static inline uint64_t run_page_count(uint64_t entries)
{
    return entries / RUN_PAGE_ENTRIES + (entries % RUN_PAGE_ENTRIES != 0);
}

/* Entries in page number `page` of a run of count entries. */
static inline uint32_t run_page_entries(uint64_t count, uint64_t page)
{
    uint64_t left = count - page * RUN_PAGE_ENTRIES;

    return left < RUN_PAGE_ENTRIES ? (uint32_t)left : RUN_PAGE_ENTRIES;
}

/* ---- between run.c, which opens runs and reads pages, and run_cursor.c ---- */

/* Read count pages from page on into out and check each. */
RF_MUST_USE enum rf_status run_read_pages(struct rf_run *run, uint64_t page, size_t count,
                                          uint8_t *out, struct rf_error *err);
void run_entry_decode(struct rf_run_entry *out, const uint8_t *p);

/* Index of the first entry with a ref greater than ref. */
RF_MUST_USE enum rf_status run_after(struct rf_run *run, const struct rf_blobref *ref,
                                     uint64_t *out, struct rf_error *err);

#endif
