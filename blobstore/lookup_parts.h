/*
 * lookup_parts.h - what lookup.c and lookup_care.c share; nobody else's
 */
#ifndef RF_BLOBSTORE_LOOKUP_PARTS_H
#define RF_BLOBSTORE_LOOKUP_PARTS_H

#include "blobstore/lookup.h"

void rf_entry_to_run(struct rf_run_entry *out, const struct rf_entry *entry);
void rf_entry_from_run(struct rf_entry *out, const struct rf_run_entry *entry);

bool rf_part_is_whole(struct rf_part *part);

/* Before a writer writes to the folder: make it again if it was removed. */
RF_MUST_USE enum rf_status rf_lookup_keep_folder(struct rf_lookup *lookup, struct rf_error *err);

/* Call visit for every change of a part, from the log; bytes: of its record. */
RF_MUST_USE enum rf_status
rf_part_scan(struct rf_lookup *lookup, const struct rf_part *part,
             enum rf_status (*visit)(void *user, const struct rf_entry *entry, uint64_t bytes),
             void *user, struct rf_error *err);

/* Read every page of every run and mark the bad. *bad: how many were found bad now. */
RF_MUST_USE enum rf_status rf_runs_check(struct rf_runs *runs, uint64_t *bad,
                                         struct rf_error *err);

#endif
