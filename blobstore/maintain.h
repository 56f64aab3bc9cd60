/*
 * maintain.h - the thread that tidies up behind the committer
 *
 * Merges lookup runs, makes damaged ones again, compacts segments. Nothing waits for it, and what
 * it does not get done stays for the next time; a failure (a full disk) is tried again when it is
 * poked next.
 */
#ifndef RF_BLOBSTORE_MAINTAIN_H
#define RF_BLOBSTORE_MAINTAIN_H

#include "core/error.h"

struct rf_disk;
struct rf_maintain;

RF_MUST_USE enum rf_status rf_maintain_open(struct rf_maintain **out, struct rf_disk *disk,
                                            struct rf_error *err);

/* Finish the piece of work at hand, do what is short, end the thread. NULL is fine. */
void rf_maintain_close(struct rf_maintain *maintain);

/* Look whether something is to be done. Any thread; NULL is fine. */
void rf_maintain_poke(struct rf_maintain *maintain);

/* Hold the thread off between begin and end: verify and compact change the same things. */
void rf_maintain_begin(struct rf_maintain *maintain);
void rf_maintain_end(struct rf_maintain *maintain);

#endif
