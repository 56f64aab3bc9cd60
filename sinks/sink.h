/*
 * sink.h - where mapped rows end up
 *
 * A sink holds one index: the items ever seen, one real table per mapper table, edges, dead
 * letters, and the position up to which all of that is complete. What one batch brings commits
 * together with its position; the position moves by compare-and-swap, so a writer that came too
 * late is refused. Writing the same items twice leaves the same rows as once.
 *
 * A lane is one generation of one or more mappers: the live lane is what people query; another lane
 * is built beside it, with tables and a position of its own, and swapped in by one transaction.
 * Rows of `blobs` (items) are shared by all lanes; rows of mapper tables, edges, needs, parks and
 * dead letters belong to a lane.
 *
 * One thread at a time per sink. Backends: sqlite (sink_sqlite.c); the table of functions is
 * struct rf_sink_ops in sink.c.
 */
#ifndef RF_SINKS_SINK_H
#define RF_SINKS_SINK_H

#include "core/arena.h"
#include "core/blobref.h"
#include "core/decl.h"
#include "core/row.h"

struct rf_sink;

#define RF_ITEM_KEY_SIZE (RF_BLOBREF_SIZE + 1 + RF_MEDIA_MAX) /* with its NUL */
#define RF_POSITION_SIZE 128                                   /* of a position as text, with NUL */

struct rf_sink_options {
    const char *name;      /* of the index, for commands in words; or NULL */
    bool create;           /* make it when it is not there; else RF_NOT_FOUND */
    bool write;            /* take the writer's lock (RF_LOCKED names the holder) */
    int lock_timeout_ms;
    uint64_t cache_bytes;  /* 0: 64 MiB */
    uint64_t writer_token; /* chosen at random by each writer */
    const char *reader;    /* a role of the server that may read the index, or NULL; RF_UNSUPPORTED
                            * where a sink knows no roles */
    bool mend;             /* a table that somebody else changed or dropped is made anew, empty, and
                            * its lane begins at the start; else RF_CORRUPT. PostgreSQL */
};

/* RF_UNSUPPORTED: a newer format. RF_UNSOUND: no index, or damaged. RF_CORRUPT: a table of it was
 * changed (the command that mends it). */
RF_MUST_USE enum rf_status rf_sink_open(struct rf_sink **out, const char *url,
                                        const struct rf_sink_options *options,
                                        struct rf_error *err);
void rf_sink_close(struct rf_sink *sink); /* rolls an open batch back */

/* Whether somebody holds the writer's lock, found without asking for it: who looks is in nobody's
 * way. RF_OK: nobody. RF_LOCKED: err names the holder. Either may be over when this returns. */
RF_MUST_USE enum rf_status rf_sink_writer(struct rf_sink *sink, struct rf_error *err);

/* Remove an index that nobody has open, with all its files; RF_OK when there is none. */
RF_MUST_USE enum rf_status rf_sink_erase(const char *url, struct rf_error *err);

/* ---- lanes ---- */

struct rf_sink_mapper {
    const char *identity;       /* 64 hex digits */
    struct rf_bytes bundle;     /* its texts, kept so that an index can be rebuilt and verified */
    const struct rf_decl *decl;
    /* A live splitter that a lane which is not full runs along, so that parts reach the lane's own
     * mappers: its edges, needs and parks are kept in the lane and steer what lives there, but it
     * has no tables or dead letters here, its rows are ignored, and the swap drops its edges for
     * the live lane's. Where these differ, because a call failed here on a limit and not there, the
     * swap parks the parts that this lane missed for the mappers it brings; the dead letter that a
     * person needs is the live lane's. Its place in `mappers` counts for rf_sink_call.mapper all
     * the same. */
    bool edges_only;
};

struct rf_sink_lane {
    uint32_t id;      /* from 1, never used again */
    bool live;
    bool full;        /* covers every mapper of the index, its swap replaces all */
    const struct rf_sink_mapper *mappers;
    size_t mapper_count;
    char position[RF_POSITION_SIZE]; /* "" at the start; opaque to the sink */
    int64_t started_us;
};

/* The lanes as stored (decl parsed again from what was stored), in the arena; live lane first.
 * After the first fill there is always one live lane; *count is 0 in a new index. */
RF_MUST_USE enum rf_status rf_sink_lanes(struct rf_sink *sink, struct rf_arena *arena,
                                         struct rf_sink_lane **lanes, size_t *count,
                                         struct rf_error *err);

/* Make a lane's tables, at position "". The first lane of an index is live at once. The mappers are
 * lent for the call alone: what the sink keeps of them is its own. RF_INVALID: a table name is
 * taken by another mapper of the live lane. */
RF_MUST_USE enum rf_status rf_sink_lane_begin(struct rf_sink *sink,
                                              const struct rf_sink_mapper *mappers, size_t count,
                                              bool full, uint32_t *lane, struct rf_error *err);

/* The lane has caught up for now: what is cheaper to make behind a first fill than along with it
 * (indexes, a full-text index) is made, once. Nothing where it is there already. */
RF_MUST_USE enum rf_status rf_sink_lane_ready(struct rf_sink *sink, uint32_t lane,
                                              struct rf_error *err);

/*
 * One transaction: the lane's mappers replace those of the same name in the live lane (a full lane
 * replaces all); mappers named in `removed` leave it, their tables too. RF_DENIED unless the lane
 * stands where the live lane stands. Views are made again. The live lane keeps its id; the other
 * one is gone, and indexes of mappers are to be read anew (rf_sink_lanes).
 */
RF_MUST_USE enum rf_status rf_sink_lane_swap(struct rf_sink *sink, uint32_t lane,
                                             const char *const *removed, size_t removed_count,
                                             struct rf_error *err);

/* Remove a lane that is not live, and all it holds. Resumable. */
RF_MUST_USE enum rf_status rf_sink_lane_drop(struct rf_sink *sink, uint32_t lane,
                                             struct rf_error *err);

/* ---- writing ---- */

/*
 * Begin a batch of one lane. The transaction stays open until commit or rollback; items are written
 * as they come. from is where the caller believes the lane stands.
 *
 * RF_LOCKED       the lane stands elsewhere: another writer came first; stop
 * RF_NOT_FOUND    no such lane
 */
RF_MUST_USE enum rf_status rf_sink_begin(struct rf_sink *sink, uint32_t lane, const char *from,
                                         struct rf_error *err);

/* What the next calls are about: keys of items and parts, in any order. A sink at the other end of
 * a wire reads what it has of them at once, others do nothing. What was not told of is asked for
 * one by one and is right all the same. A batch must be open; a failure rolls it back. */
#define RF_SINK_EXPECT_MAX 1000
RF_MUST_USE enum rf_status rf_sink_expect(struct rf_sink *sink, const char *const *keys,
                                          size_t count, struct rf_error *err);

enum rf_sink_outcome {
    RF_SINK_ROWS,        /* output replaces what this mapper had of the item */
    RF_SINK_NONE,        /* this mapper has nothing of the item (removes what it had) */
    RF_SINK_DEAD,        /* a dead letter: class, reason; no rows */
    RF_SINK_PARKED_SLOW, /* waits for the slow lane; no rows until then */
    RF_SINK_PARKED_NEED  /* waits for blobs that are not there; no rows until then */
};

enum rf_dead_class { RF_DEAD_MAPPER = 1, RF_DEAD_LIMIT, RF_DEAD_BLOB, RF_DEAD_SINK };

struct rf_sink_part {       /* an edge: an item made of a piece of this item */
    const char *key;        /* of the child item */
    struct rf_blobref ref;  /* hash of its bytes */
    const char *media, *name; /* name NULL: none */
    bool inlined;           /* its bytes were made by the mapper, at least in part: no range */
    uint64_t offset, size;
};

struct rf_sink_need {
    struct rf_blobref ref;
    bool present;
};

struct rf_sink_call {
    uint16_t mapper; /* index into the lane's mappers */
    enum rf_sink_outcome outcome;
    struct rf_bytes output;        /* ROWS: checked records; P and N records are ignored here */
    const struct rf_sink_part *parts;
    size_t part_count;
    const struct rf_sink_need *needs; /* also of ROWS: re-mapped when one of them goes or comes */
    size_t need_count;
    enum rf_dead_class dead_class; /* DEAD */
    const char *reason;            /* DEAD, PARKED_*: one line */
    uint32_t attempts;
};

enum rf_sink_item_kind { RF_SINK_BLOB = 1, RF_SINK_FILE, RF_SINK_PART };

struct rf_sink_item {
    const char *key;         /* BLOB, FILE: the blobref's text; PART: "<blobref>;<media>" */
    enum rf_sink_item_kind kind;
    struct rf_blobref ref;
    uint64_t size, seq;      /* PART: seq 0 */
    int64_t timestamp_us;    /* PART: INT64_MIN (stored as null) */
    const char *media;       /* PART, else NULL */
    const char *name;        /* FILE: its name as text, else NULL */
    int64_t mtime_us;        /* FILE, else INT64_MIN */
    const struct rf_sink_call *calls; /* mappers of the lane not named here have nothing */
    size_t call_count;
    bool only_calls;         /* leave mappers not named here as they are (for parks) */
};

/* Write one item of the open batch. When a higher change of the item is stored already, nothing is
 * written and *stale (may be NULL) is true; so it is for a part that no edge of the lane reaches:
 * the parent is put first. A row that the sink refuses becomes a dead letter of class sink for its
 * (item, mapper); the rest of the item is stored. Any failure rolls the whole batch back. */
RF_MUST_USE enum rf_status rf_sink_put(struct rf_sink *sink, const struct rf_sink_item *item,
                                       bool *stale, struct rf_error *err);

/* More edges of a call of the item that was put last, behind those it has: a call may cut more
 * parts than its caller wants to hold at once. Nothing when that put was stale or the call was
 * refused. */
RF_MUST_USE enum rf_status rf_sink_put_parts(struct rf_sink *sink, uint16_t mapper,
                                             const struct rf_sink_part *parts, size_t count,
                                             struct rf_error *err);

/* A tombstone: remove all the lane holds of the item of this blobref, with the parts that nothing
 * else reaches; dependants that needed this blob are unmapped and parked. Nothing when a higher
 * change of the item is stored. Parts left without an edge by a put or a remove go at commit, so
 * that an edge made later in the same batch keeps them. */
RF_MUST_USE enum rf_status rf_sink_remove(struct rf_sink *sink, const struct rf_blobref *ref,
                                          uint64_t seq, int64_t timestamp_us,
                                          struct rf_error *err);

/* A blob came (any put, part contents included): parks that wait for it become ready. Cheap when
 * nothing is parked. */
RF_MUST_USE enum rf_status rf_sink_arrived(struct rf_sink *sink, const struct rf_blobref *ref,
                                           struct rf_error *err);

/* Changes first to last cannot be read any more. The lane keeps that (rf_sink_counts), and when a
 * full lane is swapped in, items whose latest change is one of them are gone from the index: all
 * that is known of them is what the lane before said. */
RF_MUST_USE enum rf_status rf_sink_lost(struct rf_sink *sink, uint64_t first, uint64_t last,
                                        struct rf_error *err);

/* For the rest of the open batch: a part that loses an edge while another reaches it all the same,
 * and all parts below it, become ready parks of these mappers (bit i: the lane's mapper i) when the
 * batch is committed. What they have stays until they are mapped again. */
RF_MUST_USE enum rf_status rf_sink_share(struct rf_sink *sink, uint64_t mappers,
                                         struct rf_error *err);

/* An item and all parts below it, along the edges of the lane, become ready parks of these mappers.
 * media, when not NULL: only the parts below whose media type matches it (core/glob.h). What they
 * have stays until they are mapped again. Nothing when the item is not there. */
RF_MUST_USE enum rf_status rf_sink_again(struct rf_sink *sink, const char *key, const char *media,
                                         uint64_t mappers, struct rf_error *err);

/* Commit items and the lane's new position together (the position as it was: to = from).
 * RF_UNAVAILABLE: nothing was stored, the batch is rolled back; write it again later.
 * RF_TIMEOUT: unknown; begin again, which tells. */
RF_MUST_USE enum rf_status rf_sink_commit(struct rf_sink *sink, const char *to,
                                          struct rf_error *err);
void rf_sink_rollback(struct rf_sink *sink);

/* Whether an edge of the lane already reaches this part: it was mapped then, with its rows
 * stored. */
RF_MUST_USE enum rf_status rf_sink_has_part(struct rf_sink *sink, uint32_t lane, const char *key,
                                            bool *out, struct rf_error *err);

/* Whether the mapper emitted any part in the lane. */
RF_MUST_USE enum rf_status rf_sink_mapper_splits(struct rf_sink *sink, uint32_t lane,
                                                 const char *name, bool *out,
                                                 struct rf_error *err);

/* ---- parks and dead letters ---- */

enum rf_park_kind {
    RF_PARK_SLOW,   /* for the slow lane */
    RF_PARK_NEED,   /* its blobs are not there */
    RF_PARK_READY,  /* its blobs came, or a person asked for a retry */
    RF_PARK_KIND_COUNT
};

/* How an item can be got again: a blob or file by its ref; a part from a parent of the lane. */
struct rf_sink_origin {
    char parent_key[RF_ITEM_KEY_SIZE]; /* "" unless the item is a part */
    struct rf_blobref parent_ref;
    enum rf_sink_item_kind parent_kind;
    bool inlined;
    uint64_t offset, size;
    uint16_t mapper; /* index into the lane's mappers: who cut it out */
};

struct rf_sink_park {
    char key[RF_ITEM_KEY_SIZE];
    enum rf_sink_item_kind kind;
    struct rf_blobref ref;
    uint64_t seq, size;
    int64_t timestamp_us;
    uint16_t mapper; /* index into the lane's mappers */
    enum rf_park_kind park;
    uint32_t attempts;
};

/* Parks of one mapper of a lane and kind, oldest first, at most max; after: resume behind this
 * rowid (0: first), set to the last one's. */
RF_MUST_USE enum rf_status rf_sink_parks(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                                         enum rf_park_kind kind, int64_t *after,
                                         struct rf_sink_park *out, size_t max, size_t *count,
                                         struct rf_error *err);

/* How many parks of each kind a mapper of a lane has. */
RF_MUST_USE enum rf_status rf_sink_park_counts(struct rf_sink *sink, uint32_t lane,
                                               uint16_t mapper,
                                               uint64_t counts[RF_PARK_KIND_COUNT],
                                               struct rf_error *err);

/* Whether the slow lane has still to see to (item, mapper): a park of kind slow or ready. attempts
 * is set when it has. */
RF_MUST_USE enum rf_status rf_sink_is_parked(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                                             const char *key, bool *out, uint32_t *attempts,
                                             struct rf_error *err);

/* The refs a need-park waits for. */
RF_MUST_USE enum rf_status rf_sink_park_needs(struct rf_sink *sink, uint32_t lane,
                                              const struct rf_sink_park *park,
                                              struct rf_arena *arena, struct rf_blobref **refs,
                                              size_t *count, struct rf_error *err);

/* Where a part can be cut out again: one of the edges that reach it. RF_NOT_FOUND: none does. */
RF_MUST_USE enum rf_status rf_sink_origin_of(struct rf_sink *sink, uint32_t lane, const char *key,
                                             struct rf_sink_origin *out, struct rf_error *err);

/* A blob or file that holds a part, itself or through other parts. */
struct rf_sink_holder {
    uint64_t seq;
    int64_t timestamp_us;
    const char *name; /* of a file, or NULL; lent to the visitor */
};

/* Visit the holders of a part along the edges of a lane, each once, in any order, until visit
 * answers something else than RF_OK: RF_END ends it early, the rest is a failure. */
RF_MUST_USE enum rf_status rf_sink_holders(struct rf_sink *sink, uint32_t lane, const char *key,
                                           enum rf_status (*visit)(void *user,
                                                                   const struct rf_sink_holder *),
                                           void *user, struct rf_error *err);

struct rf_dead_letter {
    const char *key, *mapper, *reason, *dead_class; /* lent to the visitor */
    const char *name;    /* of the item, or what a part is of which item; NULL: neither */
    uint64_t seq;
    uint32_t attempts;
    int64_t at_us;
};

/* Visit the live lane's dead letters in order of item and mapper. */
RF_MUST_USE enum rf_status rf_sink_dead_letters(struct rf_sink *sink,
                                                enum rf_status (*visit)(
                                                    void *user, const struct rf_dead_letter *),
                                                void *user, struct rf_error *err);

/* Turn dead letters of the live lane into ready parks: all, of one mapper, of one item (NULL: any).
 * A batch must not be open. */
RF_MUST_USE enum rf_status rf_sink_retry(struct rf_sink *sink, const char *mapper, const char *key,
                                         uint64_t *count, struct rf_error *err);

/* ---- small facts of the index ---- */

/* A named text kept with the index: plan, store uuid. NULL value removes. */
RF_MUST_USE enum rf_status rf_sink_set_fact(struct rf_sink *sink, const char *name,
                                            const char *value, struct rf_error *err);
/* In the arena; RF_NOT_FOUND. */
RF_MUST_USE enum rf_status rf_sink_get_fact(struct rf_sink *sink, struct rf_arena *arena,
                                            const char *name, const char **value,
                                            struct rf_error *err);

struct rf_sink_counts {
    uint64_t items, rows, parts, dead_letters, parked_slow, parked_need, parked_ready, cuts;
    uint64_t lost; /* changes that could not be read */
};
RF_MUST_USE enum rf_status rf_sink_counts(struct rf_sink *sink, uint32_t lane,
                                          struct rf_sink_counts *out, struct rf_error *err);

#endif
