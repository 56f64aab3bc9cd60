/*
 * committer.h - the one thread that appends
 *
 * It takes what queued up while it was making the last batch durable, and never waits for company:
 * alone, an act costs one fdatasync; among many, a share of one. Hashing and the first lookup are
 * done by those who submit.
 */
#ifndef RF_BLOBSTORE_COMMITTER_H
#define RF_BLOBSTORE_COMMITTER_H

#include "blobstore/append.h"
#include "blobstore/blobstore.h"

#define RF_QUEUE_ACTS 8192
#define RF_QUEUE_BYTES (64u << 20)

struct rf_disk;
struct rf_committer;

RF_MUST_USE enum rf_status rf_committer_open(struct rf_committer **out, struct rf_disk *disk,
                                             const struct rf_commit_point *point,
                                             struct rf_error *err);

/* Commit what is queued, then stop. *point: where the log ends now. NULL is fine. */
void rf_committer_close(struct rf_committer *committer, struct rf_commit_point *point);

/* As rf_store_submit. An act with own.large set has its payload in the file of own.large_life,
 * durable; RF_UNAVAILABLE when that is not the life the blob would get now. */
void rf_committer_submit(struct rf_committer *committer, struct rf_act *act);

#endif
