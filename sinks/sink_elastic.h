/*
 * sink_elastic.h - what the files of the Elasticsearch backend share
 *
 * es_http.c           requests, `_bulk`
 * sink_elastic.c      opening, the state document, facts, the table of functions
 * elastic_schema.c    what the indexes look like
 * elastic_lanes.c     generations: begin, ready, swap, drop
 * elastic_items.c     manifests of items: as JSON and back
 * elastic_write.c     one batch of items: begin, put, remove, commit; what a crash left
 * elastic_group.c     what is written together, parts nothing reaches
 * elastic_again.c     who holds a part, and mapping it again
 * elastic_parks.c     parks, dead letters, counts
 * elastic_search.c    words in, hits out
 * elastic_why.c       what became of one item
 * elastic_canonical.c canonical rows, and what must hold beside them
 *
 * An index of refuge is
 *
 *   PREFIX-.refuge       hidden, all that is refuge's own, one document each:
 *     state                lanes, positions, facts, who writes; changed by if_seq_no alone
 *     mapper:<identity>    declaration and texts
 *     i:<key>              an item: the manifest of all that the index has of it
 *     e:<gen>:<n>:<key>    an edge to a part that item <key> has
 *     l:<key>              a part that lost an edge: to be looked at before the batch ends
 *   PREFIX-<table>-<gen>  rows of one table of one generation of a mapper: <table>:<key>:<n>
 *   PREFIX-<table>        an alias to the one of the live lane
 *
 * THE PROTOCOL. There are no transactions. Each batch has a number, higher than any before: the
 * writer's epoch, taken by if_seq_no from the state document at opening, and a counter. The number
 * is the version (external_gte) of every document that the batch writes or deletes, so of two
 * writers the later one wins whatever arrives when; deletes are remembered for index.gc_deletes. A
 * manifest holds what was before the batch beside what is new, and the batch's number. It is
 * written before the rows and edges it speaks of; when that is refused, none of these are sent.
 * That of an item that goes for good is removed behind its rows: nothing else names them.
 * The state document names the highest number that is done; commit sets it together with the
 * position. So:
 *
 *  1. Until commit a manifest counts for what it says was before; from then on for what is new. All
 *     manifests of a batch change their meaning in one act, and with the position.
 *  2. Rows that an unfinished batch wrote or removed are those that its manifests name, old and
 *     new. After a crash, or a batch rolled back, the next one to write finds these manifests
 *     (their number is above the one that is done), removes those rows and edges, and says so in
 *     the manifests, as a batch of its own. A call whose rows or edges went in this way is then a
 *     ready park of its lane, beside what else is said of it: it is mapped again whether or not a
 *     change comes that would have it mapped. All else of the item is as it was before.
 *  3. A writer that slept while another took over cannot move the position. Its manifests and rows
 *     bear a lower number. One that arrives before the other touches that item is found by it then
 *     (numbers that were given up are kept in the state document); one that arrives later is
 *     refused, and the sleeper stops before it sends rows.
 *  4. A part that loses an edge gets an l: document with the manifests of the group, before the
 *     edge goes, so that no crash forgets to look whether something else reaches it. Who recovers
 *     looks at it for every lane; what lives is woken for all mappers, since who had shared it
 *     (rf_sink_share) is not known any more.
 */
#ifndef RF_SINKS_SINK_ELASTIC_H
#define RF_SINKS_SINK_ELASTIC_H

#include "core/row.h"
#include "sinks/es_http.h"
#include "sinks/sink_ops.h"

#define RF_ELASTIC_FORMAT 1
#define RF_ELASTIC_NAME 200   /* of an index, NUL included */
#define RF_ELASTIC_PAGE 1000  /* documents of one answer */
#define RF_ELASTIC_OWN "%s-.refuge"

/* ---- the state ---- */

struct rf_el_table {
    const struct rf_table *decl;
    char *index;         /* PREFIX-<table>-<gen> */
    size_t search_count; /* 0: no column `search` */
    bool stale;          /* written since its last refresh */
};

struct rf_el_mapper {
    int64_t gen; /* one mapper in one lane; its rows keep it through a swap */
    const char *name, *identity;
    bool edges_only;
    const struct rf_decl *decl;
    struct rf_el_table *tables;
};

struct rf_el_lost {
    uint64_t first, last;
};

enum rf_el_lane_state { RF_EL_LIVE, RF_EL_BUILDING, RF_EL_DROPPING };

struct rf_el_lane {
    uint32_t id;
    enum rf_el_lane_state state;
    bool full, ready;
    char position[RF_POSITION_SIZE], writer[24];
    int64_t started;
    struct rf_el_lost *lost;
    size_t lost_count;
    struct rf_el_mapper *mappers;
    size_t mapper_count;
};

struct rf_el_doomed { /* what a mapper that left has still lying about */
    int64_t gen;
    const char **tables;
    size_t table_count;
};

struct rf_el_fact {
    const char *name, *value;
};

struct rf_el_owner {
    char token[24], machine[72], program[128];
    int64_t pid, start, renewed; /* start: of the process, in ticks since boot; renewed in us */
};

struct rf_el_range {
    uint64_t first, last;
};

#define RF_EL_ABORTED_MAX 1000
#define RF_EL_LANES_MAX 8

struct rf_el_state {
    struct rf_arena arena;
    bool known;
    int64_t seq_no, primary_term;
    uint64_t epoch, done;
    struct rf_el_range aborted[RF_EL_ABORTED_MAX]; /* numbers given up, ascending */
    size_t aborted_count;
    uint32_t next_lane;
    int64_t next_gen;
    bool owned;
    struct rf_el_owner owner;
    bool aliases; /* are to be set again */
    struct rf_el_lane *lanes[RF_EL_LANES_MAX];
    size_t lane_count;
    struct rf_el_doomed *doomed;
    size_t doomed_count;
    struct rf_el_fact *facts;
    size_t fact_count;
};

/* ---- items ---- */

struct rf_el_run { /* so many rows one behind the other in one table */
    uint32_t table, count;
};

struct rf_el_runs {
    struct rf_el_run *items;
    size_t count;
};

struct rf_el_extent { /* what there may be in an index of one generation of a mapper */
    int64_t gen;
    struct rf_el_runs runs;
    uint32_t edges;
};

struct rf_el_need {
    char ref[RF_BLOBREF_SIZE];
    bool present;
};

enum rf_el_outcome { RF_EL_ROWS, RF_EL_PARK, RF_EL_DEAD };

struct rf_el_call {
    struct rf_el_extent has; /* its gen too */
    enum rf_el_outcome outcome;
    uint8_t kind; /* enum rf_park_kind or enum rf_dead_class */
    bool again; /* it has what it says, and waits to be mapped again: a ready park beside it */
    uint32_t attempts;
    const char *reason;
    int64_t at;
    struct rf_el_need *needs;
    size_t need_count;
    const char *cuts; /* JSON: [[n,table,column,kind],...], or NULL */
    uint32_t cut_count;
};

struct rf_el_content {
    bool absent;
    enum rf_sink_item_kind kind;
    int64_t size, ts, mtime; /* size < 0, INT64_MIN: unknown */
    uint64_t seq;
    bool deleted;
    const char *name;
    struct rf_el_call *calls;
    size_t call_count;
};

enum rf_el_reach { RF_EL_REACH_UNKNOWN, RF_EL_REACH_NONE, RF_EL_REACH_SOME };

struct rf_el_item {
    struct rf_el_item *next;    /* with the same hash */
    struct rf_el_content cur;
    struct rf_el_content *prev; /* before this batch; NULL: not changed in it */
    struct rf_el_extent *junk;  /* what this batch, or one given up, may have left besides */
    size_t junk_count;
    bool changed;               /* to be written with the group */
    bool gone;                  /* its document is to be deleted */
    bool in_prev;               /* the stored document holds this batch's prev */
    uint64_t group;             /* that it was put or removed in */
    uint64_t loosened;          /* group that wrote its l: document */
    int64_t park_at;
    enum rf_el_reach reach;
    struct rf_el_item *witness; /* SOME: has an edge to it */
    uint32_t witness_cuts, cuts; /* cuts: how often this one was unmapped in the batch */
    char key[];
};

/* ---- the group ---- */

struct rf_el_group_call {
    struct rf_el_item *item;
    uint16_t mapper;
    uint32_t attempts;
    bool refused;
    char *reason;
};

struct rf_el_op { /* one act upon rows or edges */
    uint32_t call; /* RF_EL_NO_CALL */
    uint32_t act_size, document_size; /* 0: a delete */
};
#define RF_EL_NO_CALL UINT32_MAX

struct rf_el_trim { /* edges from the call's number on are surplus */
    struct rf_el_item *item;
    int64_t gen;
    uint32_t old;
};

struct rf_el_group {
    uint64_t number;
    enum { RF_EL_GROUP_EMPTY, RF_EL_GROUP_PUTS, RF_EL_GROUP_REMOVES } kind;
    size_t items;
    struct rf_buf text; /* of the ops, one behind the other */
    struct rf_el_op *ops;
    size_t op_count, op_room;
    struct rf_el_item **changed;
    size_t changed_count, changed_room;
    struct rf_el_group_call *calls;
    size_t call_count, call_room;
    struct rf_el_item **loosened; /* parts that lose an edge */
    size_t loosened_count, loosened_room;
    struct rf_el_trim *trims;
    size_t trim_count, trim_room;
    char (*refs)[RF_BLOBREF_SIZE]; /* that arrived, or were removed */
    size_t ref_count, ref_room;
    bool edges; /* it makes or removes edges */
    bool refused;
};

struct rf_elastic {
    struct rf_sink base;
    struct rf_es *es;
    char own[RF_ELASTIC_NAME];
    uint64_t token;
    struct rf_el_owner self;
    struct rf_el_state state;
    uint64_t counter;         /* of numbers in this epoch */
    uint64_t batch;           /* number of the open batch; 0: none */
    bool written;             /* it has sent something */
    bool recover;             /* something was given up: to be cleaned before the next batch */
    bool every_lane;          /* it is being cleaned: parts are looked at for all lanes */
    bool own_stale, rows_stale; /* changed since the last refresh */
    int64_t refreshed;        /* us */
    bool loose;               /* there may be l: documents */
    uint64_t shared;          /* rf_sink_share, of the open batch */
    enum { RF_EL_WAITING_UNKNOWN, RF_EL_WAITING_NONE, RF_EL_WAITING_SOME } waiting, needing;
    struct rf_el_lane *lane;  /* of the open batch */
    char from[RF_POSITION_SIZE];
    char unknown_to[RF_POSITION_SIZE]; /* a commit whose answer was lost went there */
    uint32_t unknown_lane;
    int64_t now, park_at;
    struct rf_el_item *put_last; /* NULL: it was stale */
    uint8_t *put_taken;   /* by mapper: it may have more parts */
    uint32_t *put_calls;  /* by mapper: its call in the group */
    const struct rf_sink_call **calls; /* of the item at hand, by mapper */
    uint64_t put_group;
    struct rf_el_item **slots;
    size_t slot_count, item_count;
    struct rf_arena arena;    /* of the items */
    struct rf_el_group group;
    struct rf_buf scratch, words, act;
};

static inline struct rf_elastic *rf_elastic_of(struct rf_sink *sink)
{
    return (struct rf_elastic *)sink;
}

/* ---- sink_elastic.c ---- */

int64_t rf_elastic_now(void);
/* The state as it is known, or read anew; when writing it is ours. */
RF_MUST_USE enum rf_status rf_elastic_ready(struct rf_elastic *sink, struct rf_error *err);
/* Before a question: what an open batch collected is written, and can be found; without one, what
 * was given up is cleaned away. */
RF_MUST_USE enum rf_status rf_elastic_ask(struct rf_elastic *sink, struct rf_error *err);
/* RF_UNSOUND: what is wrong, and that only a drop mends it. */
RF_MUST_USE enum rf_status rf_elastic_damaged(const struct rf_elastic *sink, const char *what,
                                              struct rf_error *err);
#ifdef __clang_analyzer__ /* it cannot see from here what this returns */
#define rf_elastic_damaged(sink, what, err) ((void)(sink), (void)(what), (void)(err), RF_UNSOUND)
#endif
/* Write the state; RF_LOCKED: another writer came first. After a failure it is read anew. */
RF_MUST_USE enum rf_status rf_elastic_save(struct rf_elastic *sink, struct rf_error *err);
/* Whether a batch of this number is done. */
bool rf_elastic_is_done(const struct rf_elastic *sink, uint64_t number);
void rf_elastic_give_up(struct rf_el_state *state, uint64_t first, uint64_t last);
/* What was written can be found. */
RF_MUST_USE enum rf_status rf_elastic_refresh(struct rf_elastic *sink, bool rows,
                                              struct rf_error *err);
/* RF_NOT_FOUND: no such lane. id 0: the live one. */
RF_MUST_USE enum rf_status rf_elastic_lane(struct rf_elastic *sink, uint32_t id,
                                           struct rf_el_lane **out, struct rf_error *err);
RF_MUST_USE enum rf_status rf_elastic_open_reader(struct rf_elastic **out, const char *rest,
                                                  struct rf_error *err);
void rf_elastic_close(struct rf_sink *base);
/* A search in refuge's own index; body is JSON. */
RF_MUST_USE enum rf_status rf_elastic_search_own(struct rf_elastic *sink, const char *body,
                                                 const struct rf_json **hits, uint64_t *total,
                                                 const struct rf_json **aggregations,
                                                 struct rf_error *err);
/* "[1,2]" of the generations of a lane. */
void rf_elastic_put_gens(struct rf_buf *out, const struct rf_el_lane *lane);
/* Words that may quote anything, as a JSON string; null for NULL. */
void rf_elastic_put_words(struct rf_buf *out, const char *words);
/* The mapper's declaration and tables, with copies of their own; its gen is set. */
RF_MUST_USE enum rf_status rf_elastic_keep_decl(struct rf_elastic *sink,
                                                struct rf_el_mapper *mapper,
                                                struct rf_bytes json, struct rf_error *err);
const struct rf_el_mapper *rf_elastic_mapper_of(const struct rf_el_state *state, int64_t gen);
void *rf_elastic_grow(void *items, size_t count, size_t *room, size_t size);

/* ---- elastic_schema.c ---- */

RF_MUST_USE enum rf_status rf_elastic_make_own(struct rf_elastic *sink, struct rf_error *err);
RF_MUST_USE enum rf_status rf_elastic_make_table(struct rf_elastic *sink,
                                                 const struct rf_el_table *table,
                                                 struct rf_error *err);
/* Whether the answer's mapping of an index says that it is of this prefix. */
bool rf_elastic_is_ours(const struct rf_elastic *sink, const struct rf_json *index);
/* RF_NOT_FOUND: no index of that name. RF_DENIED: it is not one of ours. */
RF_MUST_USE enum rf_status rf_elastic_check_ours(struct rf_elastic *sink, const char *index,
                                                 struct rf_error *err);
/* Its mapping is what refuge made: else RF_UNSOUND. */
RF_MUST_USE enum rf_status rf_elastic_check_table(struct rf_elastic *sink,
                                                  const struct rf_el_table *table,
                                                  struct rf_error *err);
/* Nobody else has indexes or aliases of this prefix: a table could not have its name. */
RF_MUST_USE enum rf_status rf_elastic_check_prefix(struct rf_elastic *sink, struct rf_error *err);
/* Nothing else has the name that its alias will have. */
RF_MUST_USE enum rf_status rf_elastic_check_alias(struct rf_elastic *sink,
                                                  const struct rf_table *table,
                                                  struct rf_error *err);
RF_MUST_USE enum rf_status rf_elastic_drop_index(struct rf_elastic *sink, const char *index,
                                                 struct rf_error *err);
/* Aliases as the state says, in one act. */
RF_MUST_USE enum rf_status rf_elastic_set_aliases(struct rf_elastic *sink, struct rf_error *err);
void rf_elastic_table_index(char out[RF_ELASTIC_NAME], const struct rf_elastic *sink,
                            const char *table, int64_t gen);

/* ---- elastic_lanes.c ---- */

RF_MUST_USE enum rf_status rf_elastic_finish_lanes(struct rf_elastic *sink, struct rf_error *err);
enum rf_status rf_elastic_lanes(struct rf_sink *sink, struct rf_arena *arena,
                                struct rf_sink_lane **lanes, size_t *count, struct rf_error *err);
enum rf_status rf_elastic_lane_begin(struct rf_sink *sink, const struct rf_sink_mapper *mappers,
                                     size_t count, bool full, uint32_t *lane,
                                     struct rf_error *err);
enum rf_status rf_elastic_lane_ready(struct rf_sink *sink, uint32_t lane, struct rf_error *err);
enum rf_status rf_elastic_lane_swap(struct rf_sink *sink, uint32_t lane,
                                    const char *const *removed, size_t removed_count,
                                    struct rf_error *err);
enum rf_status rf_elastic_lane_drop(struct rf_sink *sink, uint32_t lane, struct rf_error *err);

/* ---- elastic_items.c ---- */

extern const char *const rf_elastic_park_names[RF_PARK_KIND_COUNT];
extern const char *const rf_elastic_dead_names[RF_DEAD_SINK + 1];

/* What a document says, as the batch at hand sees it. Into the sink's arena. */
RF_MUST_USE enum rf_status rf_elastic_read_item(struct rf_elastic *sink,
                                                const struct rf_json *source,
                                                struct rf_el_item *out, struct rf_error *err);
/* What counts of a document, for a reader. */
RF_MUST_USE enum rf_status rf_elastic_read_content(const struct rf_elastic *sink,
                                                   struct rf_arena *arena,
                                                   const struct rf_json *source,
                                                   struct rf_el_content *out,
                                                   struct rf_error *err);
void rf_elastic_put_item(struct rf_buf *out, const struct rf_elastic *sink,
                         const struct rf_el_item *item);
void rf_elastic_edge_id(struct rf_buf *out, int64_t gen, uint32_t n, const char *key);

/* ---- elastic_group.c ---- */

void rf_elastic_group_init(struct rf_el_group *group);
void rf_elastic_group_release(struct rf_el_group *group);
void rf_elastic_group_clear(struct rf_el_group *group);
RF_MUST_USE enum rf_status rf_elastic_group_flush(struct rf_elastic *sink, struct rf_error *err);
/* Note an item as changed. The first time in a batch what it was is kept. */
void rf_elastic_touch(struct rf_elastic *sink, struct rf_el_item *item);
/* The first of what is noted of a generation in this batch. */
struct rf_el_extent *rf_elastic_junk(struct rf_elastic *sink, struct rf_el_item *item,
                                     int64_t gen);
/* What the batch writes of a generation, besides what it wrote of it before. */
void rf_elastic_note(struct rf_elastic *sink, struct rf_el_item *item,
                     const struct rf_el_extent *extent);
struct rf_el_call *rf_elastic_call(struct rf_el_content *content, int64_t gen);
void rf_elastic_drop_call(struct rf_el_item *item, int64_t gen);
/* Add an act: document.data NULL: a delete. */
RF_MUST_USE enum rf_status rf_elastic_op(struct rf_elastic *sink, uint32_t call,
                                         const char *index, const char *id,
                                         struct rf_bytes document, struct rf_error *err);
/* Rows and edges of a generation go: all that may be there but what `kept` is going to write. */
RF_MUST_USE enum rf_status rf_elastic_unmap(struct rf_elastic *sink, struct rf_el_item *item,
                                            const struct rf_el_mapper *mapper,
                                            const struct rf_el_runs *kept, struct rf_error *err);
RF_MUST_USE enum rf_status rf_elastic_collect(struct rf_elastic *sink, struct rf_error *err);
/* This part lost an edge. */
RF_MUST_USE enum rf_status rf_elastic_loosen(struct rf_elastic *sink, struct rf_el_item *child,
                                             struct rf_error *err);

/* ---- elastic_write.c ---- */

/* Items of these keys, known by now. */
RF_MUST_USE enum rf_status rf_elastic_look_up(struct rf_elastic *sink, const char *const *keys,
                                              size_t count, struct rf_error *err);
struct rf_el_item *rf_elastic_find(const struct rf_elastic *sink, const char *key);
RF_MUST_USE enum rf_status rf_elastic_get(struct rf_elastic *sink, const char *key,
                                          bool with_reach, struct rf_el_item **out,
                                          struct rf_error *err);
/* What a search found becomes an item of the cache, unless it is known. */
RF_MUST_USE enum rf_status rf_elastic_take_hit(struct rf_elastic *sink, const struct rf_json *hit,
                                               struct rf_el_item **out, struct rf_error *err);
void rf_elastic_cache_clear(struct rf_elastic *sink);
/* A batch of refuge's own that moves no position. */
RF_MUST_USE enum rf_status rf_elastic_work_begin(struct rf_elastic *sink, struct rf_el_lane *lane,
                                                 struct rf_error *err);
RF_MUST_USE enum rf_status rf_elastic_work_end(struct rf_elastic *sink, enum rf_status status,
                                               struct rf_error *err);
/* What batches that were given up left. */
RF_MUST_USE enum rf_status rf_elastic_recover(struct rf_elastic *sink, struct rf_error *err);

/* A call of this item waits. */
void rf_elastic_park(struct rf_elastic *sink, struct rf_el_item *item, int64_t gen,
                     enum rf_park_kind kind, const char *reason, uint32_t attempts);

/* It is to be mapped again, and keeps what it has until then. */
void rf_elastic_again_call(struct rf_elastic *sink, struct rf_el_item *item, int64_t gen);
/* A dead letter becomes a ready park. */
void rf_elastic_retry_call(struct rf_elastic *sink, struct rf_el_item *item, int64_t gen);

enum rf_status rf_elastic_begin(struct rf_sink *sink, uint32_t lane, const char *from,
                                struct rf_error *err);
enum rf_status rf_elastic_expect(struct rf_sink *sink, const char *const *keys, size_t count,
                                 struct rf_error *err);
enum rf_status rf_elastic_put(struct rf_sink *sink, const struct rf_sink_item *item, bool *stale,
                              struct rf_error *err);
enum rf_status rf_elastic_put_parts(struct rf_sink *sink, uint16_t mapper,
                                    const struct rf_sink_part *parts, size_t count,
                                    struct rf_error *err);
enum rf_status rf_elastic_remove(struct rf_sink *sink, const struct rf_blobref *ref, uint64_t seq,
                                 int64_t timestamp_us, struct rf_error *err);
enum rf_status rf_elastic_arrived(struct rf_sink *sink, const struct rf_blobref *ref,
                                  struct rf_error *err);
enum rf_status rf_elastic_lost(struct rf_sink *sink, uint64_t first, uint64_t last,
                               struct rf_error *err);
enum rf_status rf_elastic_commit(struct rf_sink *sink, const char *to, struct rf_error *err);
void rf_elastic_rollback(struct rf_sink *sink);
enum rf_status rf_elastic_has_part(struct rf_sink *sink, uint32_t lane, const char *key, bool *out,
                                   struct rf_error *err);

/* ---- elastic_again.c ---- */

/* These items and all parts below them become ready parks (rf_sink_again). What a group holds is
 * written. */
RF_MUST_USE enum rf_status rf_elastic_wake_below(struct rf_elastic *sink, const char *const *keys,
                                                 size_t count, const char *media,
                                                 uint64_t mappers, struct rf_error *err);
enum rf_status rf_elastic_holders(struct rf_sink *sink, uint32_t lane, const char *key,
                                  enum rf_status (*visit)(void *user,
                                                          const struct rf_sink_holder *),
                                  void *user, struct rf_error *err);
enum rf_status rf_elastic_again(struct rf_sink *sink, const char *key, const char *media,
                                uint64_t mappers, struct rf_error *err);
enum rf_status rf_elastic_share(struct rf_sink *sink, uint64_t mappers, struct rf_error *err);

/* ---- elastic_parks.c ---- */

/* Whether a call waits in this way: as its outcome, or beside it. */
static inline bool rf_elastic_waits(const struct rf_el_call *call, enum rf_park_kind kind)
{
    return (call->outcome == RF_EL_PARK && call->kind == (uint8_t)kind) ||
           (call->again && kind == RF_PARK_READY);
}

/* What the index says of one item now. RF_NOT_FOUND, without words: nothing. */
RF_MUST_USE enum rf_status rf_elastic_read_one(struct rf_elastic *sink, struct rf_arena *arena,
                                               const char *key, struct rf_el_content *out,
                                               struct rf_error *err);

enum rf_status rf_elastic_parks(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                                enum rf_park_kind kind, int64_t *after, struct rf_sink_park *out,
                                size_t max, size_t *count, struct rf_error *err);
enum rf_status rf_elastic_park_counts(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                                      uint64_t counts[RF_PARK_KIND_COUNT], struct rf_error *err);
enum rf_status rf_elastic_is_parked(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                                    const char *key, bool *out, uint32_t *attempts,
                                    struct rf_error *err);
enum rf_status rf_elastic_park_needs(struct rf_sink *sink, uint32_t lane,
                                     const struct rf_sink_park *park, struct rf_arena *arena,
                                     struct rf_blobref **refs, size_t *count,
                                     struct rf_error *err);
enum rf_status rf_elastic_origin_of(struct rf_sink *sink, uint32_t lane, const char *key,
                                    struct rf_sink_origin *out, struct rf_error *err);
enum rf_status rf_elastic_dead_letters(struct rf_sink *sink,
                                       enum rf_status (*visit)(void *user,
                                                               const struct rf_dead_letter *),
                                       void *user, struct rf_error *err);
enum rf_status rf_elastic_retry(struct rf_sink *sink, const char *mapper, const char *key,
                                uint64_t *count, struct rf_error *err);
enum rf_status rf_elastic_mapper_splits(struct rf_sink *sink, uint32_t lane, const char *name,
                                        bool *out, struct rf_error *err);
enum rf_status rf_elastic_counts(struct rf_sink *sink, uint32_t lane, struct rf_sink_counts *out,
                                 struct rf_error *err);

/* ---- elastic_search.c, elastic_canonical.c ---- */

/* The words of a text as refuge cuts them, with a space between each: what is searched. */
void rf_elastic_put_tokens(struct rf_buf *out, struct rf_bytes text);
enum rf_status rf_elastic_search(const char *rest, const char *words,
                                 const struct rf_search_options *options,
                                 enum rf_status (*visit)(void *user, const struct rf_hit *hit),
                                 void *user, uint64_t *total, struct rf_error *err);
enum rf_status rf_elastic_query_items(const char *rest, const struct rf_items_question *question,
                                      enum rf_status (*visit)(void *user,
                                                              const struct rf_item_answer *),
                                      void *user, struct rf_error *err);
enum rf_status rf_elastic_query_item(const char *rest, const char *key,
                                     enum rf_status (*parent)(void *user,
                                                              const struct rf_item_parent_answer *),
                                     enum rf_status (*call)(void *user,
                                                            const struct rf_item_call_answer *),
                                     void *user, struct rf_error *err);
enum rf_status rf_elastic_canon(struct rf_canon **out, const char *rest, struct rf_error *err);

#endif
