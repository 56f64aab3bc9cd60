/*
 * lookup.h - where a blob is: sorted runs for what is old, a table for the log's tail
 *
 * The newest record of a blob decides. Everything here can be made again from the log. Any thread;
 * one thread at a time adds.
 */
#ifndef RF_BLOBSTORE_LOOKUP_H
#define RF_BLOBSTORE_LOOKUP_H

#include <pthread.h>

#include "blobstore/table.h"

struct rf_lookup {
    pthread_mutex_t lock;
    struct rf_table tail;
    uint64_t covered; /* the runs hold every change up to this sequence */
    uint64_t epoch;   /* raised when entries move from the tail into a run */
};

void rf_lookup_init(struct rf_lookup *lookup);
void rf_lookup_release(struct rf_lookup *lookup);

/* RF_NOT_FOUND: no record names it. A deleted blob is found, with its tombstone. *epoch (may be
 * NULL): for rf_lookup_newer. */
RF_MUST_USE enum rf_status rf_lookup_find(struct rf_lookup *lookup, const struct rf_blobref *ref,
                                          struct rf_entry *out, uint64_t *epoch,
                                          struct rf_error *err);

/* What was added since the find that gave epoch: RF_OK with a newer entry, RF_END: that find still
 * holds, RF_NOT_FOUND: it cannot be told, find again. Only by the thread that adds. */
RF_MUST_USE enum rf_status rf_lookup_newer(struct rf_lookup *lookup, const struct rf_blobref *ref,
                                           uint64_t epoch, struct rf_entry *out);

/* Make room for count entries, so that adding them cannot fail. */
RF_MUST_USE enum rf_status rf_lookup_reserve(struct rf_lookup *lookup, size_t count,
                                             struct rf_error *err);
void rf_lookup_add(struct rf_lookup *lookup, const struct rf_entry *entries, size_t count);

/* The newest entry of every blob behind after, dead ones too, in the order of their refs. */
RF_MUST_USE enum rf_status rf_lookup_list(struct rf_lookup *lookup, const struct rf_blobref *after,
                                          enum rf_status (*visit)(void *user,
                                                                  const struct rf_entry *entry),
                                          void *user, struct rf_error *err);

#endif
