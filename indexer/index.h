/*
 * index.h - keeping an index true to a store
 *
 * An index reads the change queue of one store, runs its mappers over every item, and writes rows,
 * removals, edges, parks, dead letters and the position to one sink, batch by batch. A mapper that
 * changed gets a lane of its own beside the live one and is swapped in when it has caught up.
 */
#ifndef RF_INDEXER_INDEX_H
#define RF_INDEXER_INDEX_H

#include "blobstore/blobstore.h"
#include "mappers/pool.h"
#include "sinks/sink.h"

struct rf_index;

/* The mappers of one index: each needs table names of its own, and there is room for so many. */
#define RF_LANE_MAPPERS_MAX 64u /* the pool's maximum of one item */
struct rf_index_room {
    const struct rf_decl *taken[RF_LANE_MAPPERS_MAX + 1]; /* lent */
    size_t count;
};
/* Take a mapper in beside those before. RF_INVALID, RF_LIMIT: it cannot stand there; why tells. */
RF_MUST_USE enum rf_status rf_index_room_take(struct rf_index_room *room,
                                              const struct rf_decl *decl, struct rf_error *why);

struct rf_compare_progress;

struct rf_index_progress {
    uint64_t changes_done, changes_total; /* of the lane being driven */
    uint64_t items, rows, dead_letters, parked;
    uint64_t unmatched;                   /* blobs and files that no mapper takes */
    uint64_t damaged;                     /* changes passed over: the store cannot read them */
    bool building;                        /* a lane beside the live one */
    bool passing;                         /* looking for what a policy has mapped again */
    uint64_t pool_cpu_us, sink_us, feed_us; /* spent by stage */
};

struct rf_index_hooks {
    /* a few times a second */
    void (*progress)(void *user, const struct rf_index_progress *progress);
    void (*warn)(void *user, const char *line);
    /* of rf_index_verify, once all is mapped again; may be NULL */
    void (*compare)(void *user, const struct rf_compare_progress *progress);
    /* rf_index_verify: index works now, rf_index_stop ends it; NULL: it is over. May be NULL. */
    void (*works)(void *user, struct rf_index *index);
    void *user;
};

struct rf_index_options {
    const char *name;               /* for messages */
    const char *store_url, *sink_url;
    const char *const *mappers;     /* paths or "bundled:NAME" */
    size_t mapper_count;
    const char *mapper_program;     /* or NULL, as rf_pool_options */
    unsigned workers;               /* 0: one per core */
    uint64_t cache_bytes;           /* of the sink; 0: its default */
    const char *reader;             /* a role that may read the index, or NULL (rf_sink_options) */
    uint32_t batch_items;           /* 0: 100,000 items a transaction */
    uint32_t batch_ms;              /* 0: 5 s at most before a transaction is committed */
    uint64_t parts_max;             /* of one item, parts of parts included, beside one for each of
                                     * its bytes; 0: 1,000,000 */
    uint64_t slow_budget_ms;        /* CPU for slow calls that fail one after another; 0: 600 s */
    int lock_timeout_ms;
    bool rebuild;                   /* start a full lane even when nothing changed */
    bool forget;                    /* rebuild: with the newest versions alone (plan.h) */
    const char *policy;             /* of mappers that changed or came (plan.h); NULL: full */
    uint32_t shuffle_seed;          /* map in another order within a batch; 0: in order */
    bool jit_off;                   /* interpret mappers only, for cross-checks */
    uint64_t sample, sample_seed;   /* verify: so many blobs and files, drawn so; 0: all */
    const char *verify_url;         /* verify: where to map again; NULL: beside the sink's file */
    const volatile int *interrupted; /* verify: nonzero ends the comparing; or NULL */
    const char *scratch_dir;        /* verify: when the index's folder cannot take more; or NULL */
    struct rf_index_hooks hooks;    /* how it speaks while it works */
};

/*
 * Open store, sink and mappers and settle which lanes are needed. A mapper that does not load is
 * told through hooks.warn and costs itself only: when the index has a running version of it, that
 * one goes on; a version that fails never replaces a running one. rf_index_broken counts them.
 *
 * RF_INVALID  not one mapper loads, or the index was made from another store
 * RF_DENIED   the index may not be written             RF_LOCKED    another process writes it
 * RF_CURSOR_* the store was rolled back
 */
RF_MUST_USE enum rf_status rf_index_open(struct rf_index **out,
                                         const struct rf_index_options *options,
                                         struct rf_error *err);
void rf_index_close(struct rf_index *index);

/* Mappers that were asked for and did not load. */
size_t rf_index_broken(const struct rf_index *index);

/*
 * Bring the index up to date: live lane, parks, other lanes, swap. Without follow it ends when
 * everything is done; with it, it goes on until rf_index_stop. RF_OK also when items were set
 * aside (rf_sink_counts) or mappers stopped (rf_index_stopped).
 *
 * RF_LOCKED  another writer came first      RF_CANCELLED  stopped; what was committed stays
 */
RF_MUST_USE enum rf_status rf_index_run(struct rf_index *index, bool follow, struct rf_error *err);

/*
 * Mappers that rf_index_run stopped in the slow lane, because their calls used up the budget
 * without one that did not fail: each in turn, by index from 0. What waits for them is tried again
 * after the next rf_index_open, with a new budget. Meanwhile the index holds a fact for each:
 * RF_INDEX_STOPPED and the mapper's name, whose value is the CPU seconds used up.
 *
 * RF_END  no more
 */
#define RF_INDEX_STOPPED "stopped:"
/* Behind the path of an index: the throw-away index of a verify beside it. */
#define RF_INDEX_VERIFY_SUFFIX ".verify"
struct rf_index_stopped {
    const char *mapper; /* lent until rf_index_close */
    uint64_t waiting;   /* items parked for it */
    uint64_t budget_ms;
};
RF_MUST_USE enum rf_status rf_index_stopped(struct rf_index *index, size_t i,
                                            struct rf_index_stopped *out, struct rf_error *err);

/* Ask a running index to stop: what it began of the batch at hand is committed if that is done
 * within a second, else undone, and of a verify at once. Any thread; async-signal-safe. */
void rf_index_stop(struct rf_index *index);

/* What the live lane holds, while no run is on. */
RF_MUST_USE enum rf_status rf_index_counts(struct rf_index *index, struct rf_sink_counts *out,
                                           struct rf_error *err);

/* The totals of the last run. */
void rf_index_totals(const struct rf_index *index, struct rf_index_progress *out);

/*
 * While it is held nobody verifies the index whose verify_url this is, nor removes what a verify
 * left: a file beside says so. *fd goes to rf_index_verify_release, which removes that file. Does
 * not block.
 *
 * RF_LOCKED  another process holds it: the words say which
 */
RF_MUST_USE enum rf_status rf_index_verify_hold(const char *verify_url, int *fd,
                                                struct rf_error *err);
void rf_index_verify_release(const char *verify_url, int fd);
#define RF_INDEX_VERIFY_HOLD ".busy" /* that file: behind the path of the throw-away index */

/* Map everything again into a throw-away sink beside the index or in scratch_dir, in another order
 * and in fresh workers, from the mapper texts kept in the index, and compare. RF_CORRUPT when they
 * differ; RF_DENIED when no folder can take it; RF_LOCKED while another verify has the place. */
struct rf_compare_report;
RF_MUST_USE enum rf_status rf_index_verify(const struct rf_index_options *options,
                                           void (*problem)(void *user, const char *line),
                                           struct rf_compare_report *out, struct rf_error *err);

#endif
