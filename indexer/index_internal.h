/*
 * index_internal.h - what the files of indexer/ share beside pipeline.h
 */
#ifndef RF_INDEXER_INDEX_INTERNAL_H
#define RF_INDEXER_INDEX_INTERNAL_H

#include "indexer/index.h"
#include "indexer/plan.h"
#include "indexer/unit.h"

#define PATH_MAX_FACT 4200 /* "mapper:" and a path */

/* Blobs and files drawn at random: those whose number is not above `most`. */
struct rf_sample {
    uint64_t seed, most;
};

static inline uint64_t rf_sample_number(const struct rf_sample *sample,
                                        const struct rf_blobref *ref)
{
    uint64_t number;

    memcpy(&number, ref->digest, sizeof number);
    number = (number ^ sample->seed) + 0x9e3779b97f4a7c15u; /* splitmix64 (Steele, Lea, Flood) */
    number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9u;
    number = (number ^ (number >> 27)) * 0x94d049bb133111ebu;
    return number ^ (number >> 31);
}

/* As rf_index_open, with mappers from bundles instead of files when bundles is not NULL, by a plan
 * (lent) whose texts are loaded, and reading no further than the change until_seq. */
RF_MUST_USE enum rf_status rf_index_open_with(struct rf_index **out,
                                              const struct rf_index_options *options,
                                              const struct rf_bytes *bundles, size_t bundle_count,
                                              const struct rf_plan *plan,
                                              const struct rf_sample *sample, uint64_t until_seq,
                                              struct rf_error *err);

/* Read from the content of an item that a pipeline lent to the pool. */
RF_MUST_USE enum rf_status rf_pipeline_read_item(struct rf_unit_reader *reader,
                                                 struct rf_item *item, uint64_t offset, void *out,
                                                 size_t size, size_t *got, struct rf_error *err);

#endif
