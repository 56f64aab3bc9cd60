/*
 * pipeline.h - one lane from its change queue to its sink (internal to indexer/)
 *
 * The pipeline reads changes, makes items of them, has them mapped and writes what comes back, one
 * transaction per batch. Two batches exist at a time: the current one, whose transaction is open,
 * and the next, whose items are mapped already while the current one is finished.
 *
 * States of one item (struct rf_unit), with the function behind each arrow:
 *
 *   state      what is so                              leaves by                to
 *   ---------  --------------------------------------  -----------------------  -----------------
 *   QUEUED     content known, waits for room           submit_units             MAPPING | QUEUED
 *   MAPPING    lent to the pool                        take_results             READY
 *   READY      outcome known, or none needed (a        write_ready: parts at    WRITING | WRITTEN
 *              tombstone, an arrival)                  once, changes in order
 *                                                      when their batch is the
 *                                                      current one
 *   WRITING    without parts: lent to the writer       finish_written           DONE
 *              (writer.h)
 *   WRITTEN    in the open transaction; its new parts  expand_parts             DONE
 *              become units of the same batch
 *   DONE       nothing left; memory lives on while a   release_unit             -
 *              part still reads from it
 *
 * What becomes of (item, mapper), decided in write_result:
 *
 *   outcome of the call        stored as                 later
 *   -------------------------  ------------------------  -----------------------------------------
 *   ROWS                       rows, edges, needs        replaced by the item's next change
 *   NONE                       nothing                   -
 *   FAILED                     dead letter `mapper`      ready park by `index retry`
 *   SLOW (fast lane only)      park `slow`               slow lane, as the brake (brake.h) allows
 *   LIMIT                      dead letter `limit`       ready park by `index retry`
 *   MISSING                    park `need`               ready when the blob arrives
 *   content missing            park `need`               ready when the content arrives
 *   content corrupt            dead letter `blob`        ready park by `index retry`
 *
 * States of a lane:
 *
 *   state     what is so                             leaves by                 to
 *   --------  -------------------------------------  ------------------------  --------------------
 *   BUILDING  tables beside the live ones, position  rf_sink_lane_swap when    LIVE (the replaced
 *             behind or at the live lane's           both stand equal          mappers' tables go)
 *   LIVE      what people query                      swap of another lane      parts of it replaced
 *   DROPPED   a building lane whose mappers changed  rf_sink_lane_drop         -
 *             again
 *
 * A batch ends where reading closed it (batch_items, batch_ms, the end of the queue), or sooner
 * behind the last change that was begun, when it wrote as much or took as long as it may, or when a
 * stop was asked for (end_batch): the changes after it are the first of the next batch.
 *
 * The checkpoint is the position before the oldest change that is not yet done, parked or a dead
 * letter: a batch commits only when every item read into it, parts included, is written.
 */
#ifndef RF_INDEXER_PIPELINE_H
#define RF_INDEXER_PIPELINE_H

#include <stdatomic.h>

#include "indexer/brake.h"
#include "indexer/index.h"
#include "indexer/plan.h"

struct rf_pipeline;
struct rf_sample; /* index_internal.h */

struct rf_pipeline_mapper {
    const struct rf_mapper *mapper; /* its newest version */
    bool edges_only;                /* as in struct rf_sink_mapper */
    const struct rf_plan_mapper *chain; /* of versions side by side (plan.h), or NULL; lent */
    const struct rf_mapper *const *versions; /* of the chain, in its order; lent */
};

struct rf_pipeline_options {
    struct rf_store *store;
    struct rf_unit_reader *reader; /* of that store; shared by the lanes of an index */
    struct rf_pool *pool;
    struct rf_sink *sink;
    struct rf_brake *brake;
    uint32_t lane;
    const char *position;                     /* where the lane stands */
    const struct rf_pipeline_mapper *mappers; /* in the order of the lane; copied */
    size_t mapper_count;
    bool building;
    bool partial;                             /* other mappers are in another lane */
    uint32_t batch_items, batch_ms, shuffle_seed;
    uint64_t parts_max;                       /* of one item, beside one for each of its bytes */
    const atomic_int *stop;                    /* nonzero: finish what was begun and return */
    bool scratch;                              /* a throw-away index: then finish nothing */
    const struct rf_sample *sample;           /* only these blobs and files, or NULL */
    const struct rf_index_hooks *hooks;
    struct rf_index_progress *progress;       /* shared by the lanes of an index */
};

/* Everything in options but the mapper array is lent until rf_pipeline_close. */
RF_MUST_USE enum rf_status rf_pipeline_open(struct rf_pipeline **out,
                                            const struct rf_pipeline_options *options,
                                            struct rf_error *err);
void rf_pipeline_close(struct rf_pipeline *pipeline); /* rolls back what is not committed */

/*
 * Work until the lane is caught up (with the queue's end, or with the change until_seq when it is
 * not UINT64_MAX) and no park can be worked on, everything committed. Parks of mappers that the
 * brake stops are left. slice_ms > 0: stop reading
 * after so long and answer RF_TIMEOUT when what was read is committed.
 *
 * RF_CANCELLED    stop was set. What was begun of the batch is committed when it is done within a
 *                 second, else undone; what was read behind it is read again
 * RF_UNAVAILABLE  the sink or the store cannot be reached: rolled back, call again later
 */
RF_MUST_USE enum rf_status rf_pipeline_drive(struct rf_pipeline *pipeline, uint64_t until_seq,
                                             uint32_t slice_ms, struct rf_error *err);

/* Wait for a change after the lane's position. RF_OK: there is one; RF_TIMEOUT; RF_CANCELLED. */
RF_MUST_USE enum rf_status rf_pipeline_wait(struct rf_pipeline *pipeline, int timeout_ms,
                                            struct rf_error *err);

/* There are parks that others made: the next drive looks for them. */
void rf_pipeline_woken(struct rf_pipeline *pipeline);

/* Make a waiting rf_pipeline_wait return. Any thread; async-signal-safe. */
void rf_pipeline_wake(struct rf_pipeline *pipeline);

/* The committed position: "" or a cursor's text; its sequence (0 for ""). */
const char *rf_pipeline_position(const struct rf_pipeline *pipeline);
uint64_t rf_pipeline_seq(const struct rf_pipeline *pipeline);

#endif
