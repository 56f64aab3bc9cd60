/*
 * runs.h - which lookup runs cover which changes
 *
 * A run covers the changes from..to of its name, "<from>-<to>" in 16 hex digits each. The parts of
 * a set follow one another without gap; one without a run is a hole, answered by reading the log.
 * Sets never change: a new one shares the parts of the old one. Runs stay open, and readable, until
 * the last set that has them is gone.
 */
#ifndef RF_BLOBSTORE_RUNS_H
#define RF_BLOBSTORE_RUNS_H

#include "blobstore/run.h"

#define RF_RUNS_NAME_SIZE 40
#define RF_RUNS_MAX 4096 /* files looked at */

struct rf_part {
    unsigned refs; /* atomic */
    uint64_t from, to;
    struct rf_run *run; /* NULL: a hole */
    int bad;            /* atomic: a page failed its checksum; the run must be made again */
};

struct rf_runs {
    unsigned refs; /* atomic */
    size_t count;
    size_t broken; /* files that were passed over when the set was loaded: no whole runs */
    struct rf_part *parts[];
};

void rf_runs_name(uint64_t from, uint64_t to, char out[RF_RUNS_NAME_SIZE]);
bool rf_runs_parse(uint64_t *from, uint64_t *to, const char *name);

void rf_runs_ref(struct rf_runs *runs);
void rf_runs_unref(struct rf_runs *runs); /* NULL is fine */

/* Open the runs of folder dir (-1: none, as if it were empty) that cover changes from oldest on;
 * where a run is missing or broken and later ones are not, there is a hole. */
RF_MUST_USE enum rf_status rf_runs_load(struct rf_runs **out, int dir, uint64_t oldest,
                                        struct rf_error *err);

/* A set with one part more, or in the place of all parts within from..to; run NULL: a hole. Takes
 * run over, also on failure. */
RF_MUST_USE enum rf_status rf_runs_with_take(struct rf_runs **out, const struct rf_runs *runs,
                                             uint64_t from, uint64_t to, struct rf_run *run,
                                             struct rf_error *err);

/* The last change covered; oldest - 1 when the set is empty. */
uint64_t rf_runs_covered(const struct rf_runs *runs, uint64_t oldest);

/* Which parts to merge: the longest tail of the set that holds at least four parts no larger than
 * some power of four. false: none. No holes and no bad parts are among them. */
bool rf_runs_merge_due(const struct rf_runs *runs, size_t *first, uint64_t *entries);

/* Remove files of the folder that no part of the set has. */
RF_MUST_USE enum rf_status rf_runs_sweep(const struct rf_runs *runs, int dir, uint64_t *count,
                                         struct rf_error *err);

#endif
