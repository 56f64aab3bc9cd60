/*
 * pool.h - running mappers in jailed processes, seen from the host program
 *
 * The host never runs Lua. It starts refuge-mapper (posix_spawn), which forks jailed workers on
 * request; items go to them through shared rings, encoded output (core/row.h) comes back. Mapper
 * and item of a result are stamped here, and its bytes are copied out of shared memory before they
 * are checked: nothing a worker says is trusted. A worker that hangs, grows or dies is killed and
 * replaced; what else it had is sent again to another.
 *
 * One thread drives a pool. A thread of the pool's own watches deadlines and kills.
 */
#ifndef RF_MAPPERS_POOL_H
#define RF_MAPPERS_POOL_H

#include "core/arena.h"
#include "core/blobref.h"
#include "core/decl.h"
#include "core/row.h"

struct rf_pool;
struct rf_mapper; /* one version of one mapper: its texts, declaration, identity; immutable */

struct rf_pool_options {
    const char *program;   /* path of refuge-mapper; NULL: beside the running executable */
    unsigned workers;      /* of the fast lane; 0: one per core */
    uint32_t fast_ms;      /* CPU of one call in the fast lane; 0: 100 */
    uint32_t recycle_calls; /* a worker is replaced after so many calls; 0: 100,000 */
    bool jit_off;          /* interpret only; for cross-checks */
};

RF_MUST_USE enum rf_status rf_pool_open(struct rf_pool **out,
                                        const struct rf_pool_options *options,
                                        struct rf_error *err);
void rf_pool_close(struct rf_pool *pool); /* kills every process it started; NULL is fine */

/* ---- mappers ---- */

/*
 * Read a mapper file and, from its folder, what it requires; run its chunk in a jailed worker;
 * check the declaration it returns. path may also be "bundled:NAME". The mapper is the pool's and
 * lives until rf_pool_close.
 *
 * RF_INVALID  err is the script's error or the rule the declaration breaks, with file:line
 */
RF_MUST_USE enum rf_status rf_pool_load(struct rf_pool *pool, const char *path,
                                        struct rf_mapper **out, struct rf_error *err);

/* Names of the bundled mappers, in order; NULL after the last. */
const char *rf_pool_bundled(size_t index);

/* The same from a bundle that rf_mapper_bundle gave earlier (kept in the sink). */
RF_MUST_USE enum rf_status rf_pool_load_bundle(struct rf_pool *pool, struct rf_bytes bundle,
                                               struct rf_mapper **out, struct rf_error *err);

const struct rf_decl *rf_mapper_decl(const struct rf_mapper *mapper);
/* 64 hex digits: hash of its texts, what it requires, the API version. */
const char *rf_mapper_identity(const struct rf_mapper *mapper);
/* All its texts as one JSON text: {"name","files":{"name.lua":"text",...}}. */
struct rf_bytes rf_mapper_bundle(const struct rf_mapper *mapper);

/* ---- items ---- */

enum rf_item_kind { RF_ITEM_BLOB, RF_ITEM_FILE, RF_ITEM_PART };

/* Lent to the pool from submit until its result was taken. */
struct rf_item {
    enum rf_item_kind kind;
    struct rf_blobref ref;  /* BLOB: the blob; FILE: its file blob; PART: hash of its bytes */
    struct rf_blobref content_ref; /* FILE: its content's, or algo 0 */
    const char *media;      /* PART: as its parent said; else NULL: found in the jail */
    const char *name;       /* FILE: its name as text; else NULL */
    int64_t mtime_us;       /* FILE; else INT64_MIN */
    int64_t timestamp_us;   /* of its change; PART: INT64_MIN */
    uint64_t seq;           /* of its change; PART: 0 */
    uint64_t size;          /* bytes of its content */
    const uint8_t *content; /* all of it, or NULL: read by range through the pool's callback */
    bool trace;             /* have its calls write a trace, for a person */
    void *user;
};

enum rf_call_outcome {
    RF_CALL_ROWS,    /* mapped; output holds its records, maybe none */
    RF_CALL_NONE,    /* the mapper's match or `on` does not want this item */
    RF_CALL_FAILED,  /* the script raised an error: message, with file:line */
    RF_CALL_SLOW,    /* fast lane only: it took more than fast_ms; call again in the slow lane */
    RF_CALL_LIMIT,   /* it hit a limit twice, the second time alone in a fresh worker: message */
    RF_CALL_MISSING  /* it needs a blob that is not there: needs hold it; park the item */
};

/* What is missing for a call may also come from the host: content or a needed blob unreachable. */
struct rf_call {
    const struct rf_mapper *mapper;
    enum rf_call_outcome outcome;
    struct rf_bytes output;  /* ROWS: checked against the declaration; MISSING: its N records */
    const char *message;     /* FAILED, LIMIT: one line; else NULL */
    const char *traceback;   /* FAILED: lines with file:line, or NULL */
    uint32_t rows, parts, needs, cuts; /* of these records in output */
    uint32_t cpu_us;  /* of all its tries; of a killed one, as the watchdog last saw it */
    uint32_t wall_us; /* as the worker measured it */
    const char *trace; /* lines, when the item asked for a trace; else NULL */
};

struct rf_result {
    struct rf_item *item;
    struct rf_call *calls; /* one per mapper that was asked for, in that order */
    size_t call_count;
    enum rf_status status; /* RF_OK; else the host's callback failed so: nothing was mapped */
    struct rf_error error;
    struct rf_arena arena; /* holds all of the above */
};

/* How a worker's requests are answered; called from rf_pool_next, in the driving thread. */
struct rf_pool_source {
    /* Bytes of an item whose content was not given. Any status but RF_OK ends the item's result
     * with that status. */
    enum rf_status (*read)(void *user, struct rf_item *item, uint64_t offset, void *out,
                           size_t size, size_t *got, struct rf_error *err);
    /* blob:need(ref): its size, or RF_NOT_FOUND; then its bytes. */
    enum rf_status (*need_stat)(void *user, const struct rf_blobref *ref, uint64_t *size,
                                struct rf_error *err);
    enum rf_status (*need_read)(void *user, const struct rf_blobref *ref, uint64_t offset,
                                void *out, size_t size, size_t *got, struct rf_error *err);
    void *user;
};

void rf_pool_set_source(struct rf_pool *pool, const struct rf_pool_source *source);

enum rf_pool_lane { RF_LANE_FAST, RF_LANE_SLOW };

/*
 * Map an item with these mappers (at most 64; the array is copied). Never blocks: RF_UNAVAILABLE
 * when the lane's queue is full (take results first). Results come in the order of completion.
 * With mappers that declare `slow`, the fast lane answers RF_CALL_SLOW for those at once.
 */
RF_MUST_USE enum rf_status rf_pool_submit(struct rf_pool *pool, enum rf_pool_lane lane,
                                          struct rf_item *item,
                                          const struct rf_mapper *const *mappers, size_t count,
                                          struct rf_error *err);

/* The same for a mapper whose calls are known to be slow, whatever it declares: until this is taken
 * back the fast lane does not try it. */
void rf_pool_set_slow(struct rf_pool *pool, const struct rf_mapper *mapper, bool slow);

/* A finished result, yours to free; waits up to timeout_ms (-1: without end) while items are under
 * way. RF_END: nothing is under way. RF_TIMEOUT. RF_UNAVAILABLE: workers cannot be started. */
RF_MUST_USE enum rf_status rf_pool_next(struct rf_pool *pool, struct rf_result **out,
                                        int timeout_ms, struct rf_error *err);
void rf_result_free(struct rf_result *result);

/* Items under way in a lane. */
size_t rf_pool_pending(const struct rf_pool *pool, enum rf_pool_lane lane);

/* Forget everything under way: their results never come. For shutdown and tests. */
void rf_pool_cancel(struct rf_pool *pool);

/* Run a mapper's own `tests` table, or any verb of `refuge mapper`, in a jailed worker: the answer
 * is JSON text in the arena. verb "tests": the declared tests, [{"name","blob","media","rows"}]. */
RF_MUST_USE enum rf_status rf_pool_describe(struct rf_pool *pool, const struct rf_mapper *mapper,
                                            const char *verb, struct rf_arena *arena,
                                            struct rf_bytes *out, struct rf_error *err);

struct rf_pool_stats {
    uint64_t calls, kills_slow, kills_limit, crashes, recycled, workers_started;
    uint64_t cpu_us; /* of calls */
};
void rf_pool_stats(const struct rf_pool *pool, struct rf_pool_stats *out);

#endif
