/*
 * disk.h - the parts of the store on disk, as they know each other
 *
 *   PATH/store.json        version, uuid, generation, salt (also in every segment's begin record)
 *   PATH/lock              held by the writer; its pid and command for the message
 *   PATH/head              head.h
 *   PATH/log/              segments: segment.h, log_record.h
 *   PATH/large/            payloads above 1 MiB: large.h
 *   PATH/run/              lookup runs: lookup.h
 *
 * The order that makes an acknowledgement true: a large payload's bytes, its name, its folder; then
 * the record; then fdatasync of the segment; then the lookup's table, the head, the answer.
 */
#ifndef RF_BLOBSTORE_DISK_H
#define RF_BLOBSTORE_DISK_H

#include "blobstore/backend.h"
#include "blobstore/committer.h"
#include "blobstore/head.h"
#include "blobstore/log_dir.h"
#include "blobstore/lookup.h"
#include "blobstore/maintain.h"
#include "blobstore/walk.h"

#define RF_DISK_SEGMENT_BYTES (256ull << 20)
#define RF_DISK_RUN_BYTES (8ull << 20)

struct rf_disk {
    struct rf_store base;
    char *path;
    int dir, lock_fd;
    bool locked; /* by us */
    unsigned lost, mended; /* enum rf_store_part, found when it was opened; see rf_store_info */
    uint64_t segment_bytes, run_bytes;
    uint8_t uuid[16];
    uint32_t generation;
    uint64_t salt;
    struct rf_log_dir log;
    struct rf_lookup lookup;
    struct rf_head *head;
    struct rf_committer *committer; /* of a writer */
    struct rf_maintain *maintain;   /* of a writer */
    bool was_closed;                /* the writer before left nothing unfinished */
    bool opened;                    /* and neither do we, if closing goes well */

    pthread_mutex_t lock;       /* guards state; of a reader, also its catching up */
    struct rf_head_state state; /* what is published */
    bool caught_up;             /* reader: state, lookup and tail have been filled once */
    uint32_t seen_word;         /* reader: head's word when it last caught up */
    struct rf_walk tail;        /* reader: how far the lookup's tail has come */

    pthread_mutex_t claim_lock; /* large uploads that are being committed */
    pthread_cond_t claim_free;
    struct rf_claim *claims;
};

/* The seed of head's checksums and the chain before the first change. */
uint64_t rf_disk_seed(const struct rf_disk *disk);
uint64_t rf_disk_first_chain(const struct rf_disk *disk);

/* reader.c: what is published now. A reader's call also brings its lookup up to that. */
RF_MUST_USE enum rf_status rf_disk_state(struct rf_disk *disk, struct rf_head_state *out,
                                         struct rf_error *err);
void rf_disk_end(const struct rf_head_state *state, struct rf_log_end *out);

/* identity.c: make the folder, or read what it says of itself. Set uuid, generation and salt. */
RF_MUST_USE enum rf_status rf_identity_create(struct rf_disk *disk, struct rf_error *err);
RF_MUST_USE enum rf_status rf_identity_load(struct rf_disk *disk, bool mend, struct rf_error *err);
RF_MUST_USE enum rf_status rf_identity_lock(struct rf_disk *disk, int timeout_ms,
                                            struct rf_error *err);
/* What a writer acknowledged before it is recovered and published: readers need not wait. */
RF_MUST_USE enum rf_status rf_identity_ready(struct rf_disk *disk, struct rf_error *err);
/* closed: nothing is left unfinished. */
void rf_identity_unlock(struct rf_disk *disk, bool closed);

enum rf_writer {
    RF_WRITER_CLOSED,   /* nobody writes; the last one left nothing unfinished */
    RF_WRITER_DIED,     /* nobody writes; the last one left without closing, or it cannot be told */
    RF_WRITER_RECOVERS, /* one is looking for what the one before left */
    RF_WRITER_READY     /* one writes; all that was acknowledged is published */
};
/* Look at the lock without taking it, even for a moment. Waits a bounded time for a writer that
 * recovers. */
enum rf_writer rf_identity_writer(struct rf_disk *disk);

/* upload_disk.c */
RF_MUST_USE enum rf_status rf_disk_large_open(struct rf_large **out, struct rf_store *store,
                                              struct rf_error *err);
RF_MUST_USE enum rf_status rf_disk_large_write(struct rf_large *large, struct rf_bytes bytes,
                                               struct rf_error *err);
RF_MUST_USE enum rf_status rf_disk_large_clone(struct rf_large *large, int fd, uint64_t offset,
                                               uint64_t size, uint64_t *taken,
                                               struct rf_error *err);
RF_MUST_USE enum rf_status rf_disk_large_commit(struct rf_large *large,
                                                const struct rf_blobref *expect, bool part,
                                                struct rf_blobref *out,
                                                enum rf_put_outcome *outcome, uint64_t *seq,
                                                struct rf_error *err);
void rf_disk_large_close(struct rf_large *large);
/* Whether an upload of this ref is being committed. Caller holds claim_lock. */
bool rf_disk_is_claimed(const struct rf_disk *disk, const struct rf_blobref *ref);

/* Tell readers that runs or segments were replaced. */
void rf_disk_raise_epoch(struct rf_disk *disk);

/* recover.c: find the end of the log, drop what is torn, fill the lookup. *resume is where the
 * committer goes on. */
RF_MUST_USE enum rf_status rf_disk_recover(struct rf_disk *disk, struct rf_commit_point *resume,
                                           struct rf_error *err);

/* read.c: the payload of an entry. */
RF_MUST_USE enum rf_status rf_disk_find(struct rf_disk *disk, const struct rf_blobref *ref,
                                        struct rf_entry *out, struct rf_error *err);
/* Read the payload of a small blob that is there and compare its checksum. RF_CORRUPT: it is
 * lost. */
RF_MUST_USE enum rf_status rf_disk_check_small(struct rf_disk *disk, const struct rf_entry *entry,
                                               struct rf_error *err);
RF_MUST_USE enum rf_status rf_disk_get(struct rf_store *store, const struct rf_blobref *ref,
                                       struct rf_buf *buf, struct rf_error *err);
RF_MUST_USE enum rf_status rf_disk_read(struct rf_store *store, const struct rf_blobref *ref,
                                        uint64_t offset, void *out, size_t size, size_t *got,
                                        struct rf_error *err);

/* feed_disk.c */
RF_MUST_USE enum rf_status rf_disk_feed_open(struct rf_feed **out, struct rf_store *store,
                                             const struct rf_cursor *from, struct rf_error *err);
void rf_disk_feed_close(struct rf_feed *feed);
RF_MUST_USE enum rf_status rf_disk_feed_next(struct rf_feed *feed, struct rf_change *out,
                                             int timeout_ms, struct rf_error *err);
RF_MUST_USE enum rf_status rf_disk_feed_blob(struct rf_feed *feed, struct rf_bytes *out,
                                             struct rf_error *err);
void rf_disk_feed_cursor(struct rf_feed *feed, struct rf_cursor *out);
void rf_disk_feed_cancel(struct rf_feed *feed);

/* verify_store.c, compact.c */
/* Remove files of large payloads that no record names; with temps (nobody uploads or compacts) also
 * what unfinished work left. Adds to *count what it removes. */
RF_MUST_USE enum rf_status rf_disk_sweep(struct rf_disk *disk, bool temps, uint64_t *count,
                                         struct rf_error *err);
RF_MUST_USE enum rf_status rf_disk_check(struct rf_store *store, uint64_t *damaged,
                                         void (*problem)(void *user, const char *line),
                                         void *user, struct rf_error *err);
RF_MUST_USE enum rf_status rf_disk_verify(struct rf_store *store, struct rf_verify_report *out,
                                          void (*problem)(void *user, const char *line),
                                          void (*progress)(void *user, uint64_t done,
                                                           uint64_t total),
                                          void *user, struct rf_error *err);
/* Look at all sealed segments once and copy those that are due. One caller at a time. */
RF_MUST_USE enum rf_status rf_disk_compact_all(struct rf_disk *disk, uint64_t *freed,
                                               struct rf_error *err);
RF_MUST_USE enum rf_status rf_disk_compact(struct rf_store *store, uint64_t *freed,
                                           struct rf_error *err);

#endif
