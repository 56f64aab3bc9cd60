/*
 * pipeline_internal.h - what the files of the pipeline share
 *
 *   pipeline.c        changes in, rows out, batch by batch
 *   pipeline_parks.c  the slow lane: what is parked is mapped again
 *   pipeline_versions.c  which version of a mapper maps what
 */
#ifndef RF_INDEXER_PIPELINE_INTERNAL_H
#define RF_INDEXER_PIPELINE_INTERNAL_H

#include <stdatomic.h>

#include "indexer/pipeline.h"
#include "indexer/unit.h"
#include "indexer/writer.h"

#define RF_SHUFFLE_BLOCK 512u   /* changes mapped in another order together */
#define RF_SLOW_MAX 16u         /* parks under way */

/* An item on the way from a stored blob to a parked part. */
struct rf_fetch_step {
    char key[RF_ITEM_KEY_SIZE];
    uint16_t mapper; /* who cut it out of the item above it */
    bool inlined;    /* its bytes were made, else they are this range: */
    uint64_t offset, size;
};

/*
 * A part whose bytes a mapper made is had again by fetching: the item above it is mapped by who
 * made it, nothing of that is written, and its parts are looked through for those that are parked.
 */
struct rf_fetch {
    struct rf_unit *unit;        /* under way, in `slow` too; NULL: none */
    struct rf_fetch_step *steps; /* owned; the last is the parked part */
    size_t step_count, at;       /* the unit's parts are looked through for steps[at] */
    struct rf_sink_park park;    /* for whose sake */
    bool mapped;                 /* its result, or why there is none, is known */
    bool reading;                /* reader is set up */
    bool met;                    /* the parked part was among them */
    struct rf_output_reader reader;
    uint16_t mapper;             /* of the part at hand: the mapper to look at next */
    bool waiting[RF_LANE_MAPPERS_MAX]; /* mappers with parks */
};

struct rf_batch {
    uint64_t number;
    size_t changes;     /* read into it */
    size_t outstanding; /* units of it that are not DONE */
    bool closed;        /* nothing more is read into it */
    bool parked_need;   /* parks wait for blobs: ask the store again after the commit */
    int64_t started_us; /* monotonic, of its first change */
    struct rf_cursor to; /* of its last change; seq 0: it has none */
    struct rf_cursor begun; /* of the last one that is in the transaction; seq 0: none is */
    bool ended;         /* nothing behind begun is in it */
    uint64_t written, written_bytes; /* units and their output */
    struct rf_lost { uint64_t first, last; } *lost; /* changes that cannot be read; allocated */
    size_t lost_count;
};

/* Items whose parts may have to be mapped by another version: to be woken with the batch. */
struct rf_again {
    char (*keys)[RF_ITEM_KEY_SIZE];
    size_t count, capacity;
};

struct rf_pipeline {
    struct rf_pipeline_options options;
    struct rf_pipeline_mapper mappers[RF_LANE_MAPPERS_MAX];
    uint64_t chained;              /* bits of the mappers with a chain of versions */
    struct rf_again again;         /* of the current batch */
    _Atomic(struct rf_feed *) feed;
    atomic_int waking;             /* callers of rf_pipeline_wake that may hold feed */
    bool broken;                   /* abandoned: read again from the position */
    bool has_seen;                 /* rf_pipeline_wait took `seen` from the feed */
    struct rf_change seen;
    enum rf_status seen_status;    /* RF_OK; RF_CORRUPT: it cannot be read, */
    struct rf_error seen_why;      /* for this reason */
    struct rf_batch current, next;
    struct rf_writer *writer;      /* has the sink and scratch while it is not idle */
    bool open;                     /* a transaction is open for the current batch */
    int64_t opened_us;             /* monotonic, since then */
    struct rf_index_progress before; /* what was counted until then */
    int64_t stop_us;               /* monotonic, when a stop was first seen; 0: it was not */
    atomic_bool undoing;           /* the writer need not go on: it will be undone */
    char position[RF_POSITION_SIZE];
    uint64_t position_seq;
    struct rf_queue queued;        /* QUEUED: waiting for room in the pool */
    struct rf_queue large;         /* QUEUED: large ones that may have parts wait for a slot */
    unsigned large_out[RF_PART_DEPTH_MAX + 1]; /* slots taken, by depth: from submit to DONE */
    unsigned large_next;           /* of those of depth 0, by units of the next batch */
    struct rf_queue ready;         /* READY: parts, and what belongs to no batch */
    struct rf_unit *order, **order_end; /* units of changes, in order, until they are begun */
    size_t order_ready, order_bytes; /* those READY, and their output */
    size_t order_told;             /* of how many of those next in order the sink knows */
    struct rf_queue expanding;     /* WRITTEN with parts left; the latest first */
    struct rf_unit *shuffle[RF_SHUFFLE_BLOCK];
    size_t shuffled;
    uint64_t random;
    struct rf_unit *all;           /* under way, in no order */
    size_t units, bytes;           /* of them */
    size_t batch_units;            /* of them that belong to a batch */
    uint64_t taken;                /* results so far */
    char (*refused)[RF_ITEM_KEY_SIZE]; /* of whom too many parts came: cut no more */
    size_t refused_count;
    bool restart;                  /* one was added: what is not committed is done again */
    bool at_end;                   /* the last look found no more changes */
    struct rf_unit *slow[RF_SLOW_MAX]; /* parks under way; held */
    size_t slow_count;
    struct rf_fetch fetch;
    uint16_t turn;                 /* the mapper whose parks are looked at first */
    bool parks_dirty;              /* there may be parks to work on */
    bool needs_checked;            /* need parks were looked up in the store since open */
    struct rf_arena scratch;
    int64_t told_us;               /* when progress was last told */
};

/* ---- pipeline.c ---- */

/* A unit comes under way; batch NULL: it resolves a park and holds up no batch. */
void rf_pipeline_enter(struct rf_pipeline *p, struct rf_unit *unit, struct rf_batch *batch);
/* The pipeline is through with a unit. */
void rf_pipeline_done(struct rf_pipeline *p, struct rf_unit *unit);
/* Wait until the writer is idle: the sink is this thread's until units are ready. What fails in
 * the writer is told here, or at the next turn. */
RF_MUST_USE enum rf_status rf_pipeline_settle(struct rf_pipeline *p, struct rf_error *err);
/* A transaction for what is to be written. The writer is idle, or there is one. */
RF_MUST_USE enum rf_status rf_pipeline_begin(struct rf_pipeline *p, struct rf_error *err);

/* ---- pipeline_versions.c ---- */

/* The version of a mapper that a unit is mapped by, or NULL. */
const struct rf_mapper *rf_version_of(const struct rf_pipeline *p, const struct rf_unit *unit,
                                      uint16_t mapper);
/* Choose the versions for a unit: a part is taken to be held by those above it alone. */
void rf_versions_choose(struct rf_pipeline *p, struct rf_unit *unit);
/* The version of a mapper for a part, by all its holders. The sink is the caller's. */
RF_MUST_USE enum rf_status rf_version_of_part(struct rf_pipeline *p, const char *key,
                                              const char *media, uint16_t mapper, int *out,
                                              struct rf_error *err);
/* An edge from the unit to a part was written; known: the part was reached before. When it may have
 * to be mapped by another version now it is noted, to be woken with the batch. */
RF_MUST_USE enum rf_status rf_versions_note_edge(struct rf_pipeline *p,
                                                 const struct rf_unit *unit, const char *key,
                                                 bool known, struct rf_error *err);
/* Wake what was noted: behind all that the batch writes. */
RF_MUST_USE enum rf_status rf_versions_wake(struct rf_pipeline *p, struct rf_error *err);
/* Whether any version of a mapper is stopped by the brake. */
bool rf_versions_stopped(const struct rf_pipeline *p, uint16_t mapper);

/* ---- pipeline_parks.c ---- */

/* Keep the slow lane busy; *left is false when there is nothing to start or under way. */
RF_MUST_USE enum rf_status rf_parks_start(struct rf_pipeline *p, bool *left, struct rf_error *err);
/* Go on with a fetch whose result is there; *went: something was done. */
RF_MUST_USE enum rf_status rf_parks_fetch(struct rf_pipeline *p, bool *went, struct rf_error *err);
/* Let go of the fetch; its park remains. */
void rf_parks_drop_fetch(struct rf_pipeline *p);
/* Ask the store again for what need parks wait for: it may have come since they were made. */
RF_MUST_USE enum rf_status rf_parks_check_needs(struct rf_pipeline *p, struct rf_error *err);

#endif
