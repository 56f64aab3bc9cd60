/*
 * run.h - an immutable sorted run of the lookup: where each blob's newest record stands
 *
 * A run is one file made from the log and can always be made again from it. One entry per ref, in
 * the order of refs, 51 to a page of 4 KiB, each page under a checksum of its own; a footer with
 * counts and sums per first byte of the digest. Format page: doc/format-run.md.
 *
 * Opening reads the footer alone (some 12 KiB, whatever the count), and a lookup reads one or two
 * pages: digests are uniform, so their place is computed, not searched. Nothing is mapped: a file
 * that was cut off is an error here, never a signal. A bad page answers RF_CORRUPT and names run
 * and page: throw the run away and make it again from its sources.
 */
#ifndef RF_BLOBSTORE_RUN_H
#define RF_BLOBSTORE_RUN_H

#include "core/blobref.h"

#define RF_RUN_NAME_MAX 63         /* bytes of a run's name, ".tmp" not counted */
#define RF_RUN_SOURCES_MAX 65536   /* parts of the log in one run */
#define RF_RUN_MERGE_MAX 256       /* runs under one cursor */

enum rf_run_flag {
    RF_RUN_DELETE = 1, /* a tombstone */
    RF_RUN_PART = 2,   /* content of a file blob */
    RF_RUN_LARGE = 4,  /* the payload is a file of its own */
    RF_RUN_LIFT = 8,   /* the newest record only lifted `part`; the payload is an older record's */
    RF_RUN_FLAGS = 15
};

struct rf_run_entry {
    struct rf_blobref ref;
    uint8_t flags; /* RF_RUN_* */
    uint32_t life; /* acts on this ref; odd: it is there */
    uint64_t seq;  /* of its newest record */
    uint64_t size; /* of the blob */
    int64_t timestamp_us;
    uint64_t segment; /* first sequence of the segment that record stands in, */
    uint32_t offset;  /* where there, */
    uint32_t stored;  /* and how many bytes of payload follow its header */
};

/* A part of the log a run was made from. */
struct rf_run_source {
    uint64_t segment;          /* its first sequence */
    uint64_t from_seq, to_seq; /* changes of it that are in the run, both included */
};

/* ---- writing ---- */

struct rf_run_writer;

/*
 * Begin the run called name in the folder dir (lent until the writer is freed), from these sources
 * (copied; in the order of from_seq). It grows as "<name>.tmp"; such a file that a crash left
 * behind is written over, and may be removed by anyone who holds the store's lock.
 */
RF_MUST_USE enum rf_status rf_run_create(struct rf_run_writer **out, int dir, const char *name,
                                         const struct rf_run_source *sources, size_t source_count,
                                         struct rf_error *err);

/* Append an entry, whose ref must be greater than the last one's (asserted). RF_IO. */
RF_MUST_USE enum rf_status rf_run_add(struct rf_run_writer *writer,
                                      const struct rf_run_entry *entry, struct rf_error *err);

/* Write the footer and give the file its name, replacing a run of that name. sync: file and folder
 * are fsynced before and after; runs can be made again, so this is for comfort. Call once. */
RF_MUST_USE enum rf_status rf_run_commit(struct rf_run_writer *writer, bool sync,
                                         struct rf_error *err);

/* Also removes what was not committed. NULL is fine. */
void rf_run_writer_free(struct rf_run_writer *writer);

/* ---- reading: any number of threads on one run ---- */

struct rf_run;

/* RF_NOT_FOUND; RF_CORRUPT: not a whole run (err says what is wrong); RF_UNSUPPORTED: a newer
 * format. */
RF_MUST_USE enum rf_status rf_run_open(struct rf_run **out, int dir, const char *name,
                                       struct rf_error *err);
void rf_run_close(struct rf_run *run);

/* What the footer says; lent until close. */
struct rf_run_info {
    uint64_t count;            /* entries, tombstones too */
    uint64_t deleted;          /* of them tombstones */
    uint64_t min_seq, max_seq; /* of its entries; 0 when there are none */
    const struct rf_run_source *sources;
    size_t source_count;
    uint64_t file_bytes;
};
const struct rf_run_info *rf_run_info(const struct rf_run *run);
const char *rf_run_name(const struct rf_run *run);

/* Count and sum of the entries whose digest begins with this byte and that are no tombstones. The
 * sum is of the digests as 256-bit big-endian numbers, modulo 2^256. */
struct rf_run_prefix {
    uint64_t count;
    uint8_t sum[32];
};
void rf_run_prefix(const struct rf_run *run, uint8_t byte, struct rf_run_prefix *out);

/* The entry of a ref, a tombstone too. RF_NOT_FOUND: none here (err is left alone). RF_CORRUPT: a
 * page failed its checksum. RF_IO. Reads one or two pages. */
RF_MUST_USE enum rf_status rf_run_find(struct rf_run *run, const struct rf_blobref *ref,
                                       struct rf_run_entry *out, struct rf_error *err);

/* ---- in order, over one or several runs ---- */

struct rf_run_cursor;

/* The entries with a ref greater than after (NULL: all) of these runs (the array is copied, the
 * runs are lent until close), one per ref: that with the highest sequence, tombstones too. Takes
 * 64 KiB a run. RF_LIMIT: more than RF_RUN_MERGE_MAX runs. */
RF_MUST_USE enum rf_status rf_run_cursor_open(struct rf_run_cursor **out,
                                              struct rf_run *const *runs, size_t count,
                                              const struct rf_blobref *after,
                                              struct rf_error *err);
void rf_run_cursor_close(struct rf_run_cursor *cursor);

/* RF_OK, RF_END, RF_CORRUPT (the cursor is then of no more use), RF_IO. */
RF_MUST_USE enum rf_status rf_run_cursor_next(struct rf_run_cursor *cursor,
                                              struct rf_run_entry *out, struct rf_error *err);

/* Make one run of several: sources joined (ranges of one segment that touch become one),
 * tombstones left out when drop_deleted (only right when no older run is left beside it). */
RF_MUST_USE enum rf_status rf_run_merge(int dir, const char *name, struct rf_run *const *runs,
                                        size_t count, bool drop_deleted, bool sync,
                                        struct rf_error *err);

#endif
