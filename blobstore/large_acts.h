/*
 * large_acts.h - submitted puts above RF_BLOB_INLINE_MAX
 *
 * Each gets a file of its own, which takes hashing, writing and two fsyncs before the committer has
 * its record. A few threads do that for those who submit, over the same functions of a backend that
 * an upload uses. The threads start when they are needed.
 */
#ifndef RF_BLOBSTORE_LARGE_ACTS_H
#define RF_BLOBSTORE_LARGE_ACTS_H

#include "blobstore/backend.h"

#define RF_LARGE_THREADS 4
#define RF_LARGE_QUEUE 16 /* acts that may wait for one of them */

RF_MUST_USE enum rf_status rf_large_acts_open(struct rf_large_acts **out, struct rf_store *store,
                                              struct rf_error *err);

/* Finish what was submitted. NULL is fine. */
void rf_large_acts_close(struct rf_large_acts *acts);

/* As rf_store_submit; done is called from one of the threads. */
void rf_large_acts_submit(struct rf_large_acts *acts, struct rf_act *act);

#endif
