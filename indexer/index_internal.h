/*
 * index_internal.h - what the files of indexer/ share beside pipeline.h
 */
#ifndef RF_INDEXER_INDEX_INTERNAL_H
#define RF_INDEXER_INDEX_INTERNAL_H

#include "indexer/index.h"
#include "indexer/plan.h"
#include "indexer/unit.h"

#define PATH_MAX_FACT 4200 /* "mapper:" and a path */

/* As rf_index_open, with mappers from bundles instead of files when bundles is not NULL, by a plan
 * (lent) whose texts are loaded, and reading no further than the change until_seq. */
RF_MUST_USE enum rf_status rf_index_open_with(struct rf_index **out,
                                              const struct rf_index_options *options,
                                              const struct rf_bytes *bundles, size_t bundle_count,
                                              const struct rf_plan *plan, uint64_t until_seq,
                                              struct rf_error *err);

/* Read from the content of an item that a pipeline lent to the pool. */
RF_MUST_USE enum rf_status rf_pipeline_read_item(struct rf_unit_reader *reader,
                                                 struct rf_item *item, uint64_t offset, void *out,
                                                 size_t size, size_t *got, struct rf_error *err);

#endif
