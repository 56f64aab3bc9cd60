/*
 * lookup.h - where a blob is: sorted runs for what is old, a table for the log's tail
 *
 * The newest record of a blob decides. Everything here can be made again from the log: where a run
 * is missing or damaged the log itself is read, slowly but right, until the run was made again.
 * Finding and listing: any thread. Adding and flushing: one. Merging and healing: one.
 */
#ifndef RF_BLOBSTORE_LOOKUP_H
#define RF_BLOBSTORE_LOOKUP_H

#include <pthread.h>

#include "blobstore/log_dir.h"
#include "blobstore/runs.h"
#include "blobstore/table.h"

#define RF_LOOKUP_FOLDER "run"

struct rf_lookup {
    pthread_mutex_t lock; /* guards tail, tail_bytes, runs, epoch */
    struct rf_table tail;
    uint64_t tail_bytes;  /* of log the tail stands for */
    struct rf_runs *runs;
    uint64_t epoch;       /* raised when entries move from the tail into a run */
    int store_dir;        /* lent: the folder that of the runs is in */
    int dir;              /* of the runs; -1: missing, as good as empty */
    struct rf_log_dir *log;
    uint64_t oldest, run_bytes;
    void (*damaged)(void *user); /* a run was found bad; may be NULL; any thread */
    void *user;
};

/* Load the runs of the folder RF_LOOKUP_FOLDER in store_dir (lent until close); the tail is empty.
 * writing: make the folder when it is missing. *lost: it was, or a file in it is no whole run. */
RF_MUST_USE enum rf_status rf_lookup_open(struct rf_lookup *lookup, int store_dir, bool writing,
                                          struct rf_log_dir *log, uint64_t oldest,
                                          uint64_t run_bytes, bool *lost, struct rf_error *err);
void rf_lookup_close(struct rf_lookup *lookup);

/* The last change that runs (or holes between runs) stand for. */
uint64_t rf_lookup_covered(struct rf_lookup *lookup);
uint64_t rf_lookup_tail_bytes(struct rf_lookup *lookup);

/* RF_NOT_FOUND: no record names it. A deleted blob is found, with its tombstone. *epoch (may be
 * NULL): for rf_lookup_newer. */
RF_MUST_USE enum rf_status rf_lookup_find(struct rf_lookup *lookup, const struct rf_blobref *ref,
                                          struct rf_entry *out, uint64_t *epoch,
                                          struct rf_error *err);

/* What was added since the find that gave epoch: RF_OK with a newer entry, RF_END: that find still
 * holds, RF_NOT_FOUND: it cannot be told, find again. Only by the thread that adds. */
RF_MUST_USE enum rf_status rf_lookup_newer(struct rf_lookup *lookup, const struct rf_blobref *ref,
                                           uint64_t epoch, struct rf_entry *out);

/* Make room for count entries, so that adding them cannot fail. bytes: of log they stand for. */
RF_MUST_USE enum rf_status rf_lookup_reserve(struct rf_lookup *lookup, size_t count,
                                             struct rf_error *err);
void rf_lookup_add(struct rf_lookup *lookup, const struct rf_entry *entries, size_t count,
                   uint64_t bytes);

/* The newest entry of every blob behind after, dead ones too, in the order of their refs. */
RF_MUST_USE enum rf_status rf_lookup_list(struct rf_lookup *lookup, const struct rf_blobref *after,
                                          enum rf_status (*visit)(void *user,
                                                                  const struct rf_entry *entry),
                                          void *user, struct rf_error *err);

/* ---- a writer's care ---- */

/* Make a run of the tail, which holds all up to change to. Failing, the tail stays. */
RF_MUST_USE enum rf_status rf_lookup_flush(struct rf_lookup *lookup, uint64_t to,
                                           struct rf_error *err);

/* Merge runs once, when due and no more than most entries. RF_END: nothing to do. */
RF_MUST_USE enum rf_status rf_lookup_merge(struct rf_lookup *lookup, uint64_t most,
                                           struct rf_error *err);

/* Make one run again that is bad or missing. RF_END: none is. */
RF_MUST_USE enum rf_status rf_lookup_heal(struct rf_lookup *lookup, struct rf_error *err);

/* Read every page of every run and mark the bad ones. *bad: bad runs and holes. */
RF_MUST_USE enum rf_status rf_lookup_check(struct rf_lookup *lookup, uint64_t *bad,
                                           struct rf_error *err);

/* Mark all runs bad: they contradict the log. */
void rf_lookup_condemn(struct rf_lookup *lookup);

/* ---- a reader's: another process changed the runs ---- */

/* Load the runs again into *out, from what has the folder's name now. */
RF_MUST_USE enum rf_status rf_lookup_load(struct rf_lookup *lookup, struct rf_runs **out,
                                          struct rf_error *err);
/* Put runs and tail in the place of the old ones. Takes both over; *tail is left empty. */
void rf_lookup_install_take(struct rf_lookup *lookup, struct rf_runs *runs, struct rf_table *tail);

#endif
