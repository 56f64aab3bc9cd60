/*
 * walk.h - the changes of a log in order, from segment to segment and past damage
 *
 * Under the change feed, recovery of lookup runs, readers that catch up, and verify. Holds one open
 * segment and one window, whatever lies ahead. A segment that is compacted meanwhile stays readable
 * through the descriptor held.
 */
#ifndef RF_BLOBSTORE_WALK_H
#define RF_BLOBSTORE_WALK_H

#include "blobstore/log_dir.h"

/* How far the log is published. */
struct rf_log_end {
    uint64_t seq;           /* of the newest change; 0: none */
    uint64_t segment_first; /* the segment it ends in, */
    uint64_t segment_end;   /* and where; meaningless for sealed segments */
};

struct rf_walk {
    struct rf_log_dir *log;
    struct rf_segment_file *file;
    struct rf_scan scan;
    bool headers_only;
    bool sealed;         /* its size is final, and the scan's limit */
    uint64_t next_first; /* of the segment behind; UINT64_MAX: none known */
    uint64_t seq;        /* expected next */
};

struct rf_walked {
    struct rf_scanned at;     /* the record; payload lent until the next call */
    uint64_t first;           /* of its segment */
    uint64_t lost_from, lost_to; /* with RF_CORRUPT: sequences without a sound header */
};

void rf_walk_init(struct rf_walk *walk, struct rf_log_dir *log, uint64_t seq, bool headers_only);
void rf_walk_release(struct rf_walk *walk);

/* RF_OK: a change (see at.damaged). RF_END: all up to end was given; call again when there is more.
 * RF_CORRUPT: changes lost_from..lost_to cannot be read; the next call goes on behind them. */
RF_MUST_USE enum rf_status rf_walk_next(struct rf_walk *walk, const struct rf_log_end *end,
                                        struct rf_walked *out, struct rf_error *err);

/* Read the one change with sequence seq. hint: where it may be (0: no idea). RF_CORRUPT: its header
 * is not sound. The result lends from walk, which keeps its segment open for the next one. */
RF_MUST_USE enum rf_status rf_walk_at(struct rf_walk *walk, const struct rf_log_end *end,
                                      uint64_t seq, struct rf_walked *out, struct rf_error *err);

#endif
