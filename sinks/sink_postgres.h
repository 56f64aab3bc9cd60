/*
 * sink_postgres.h - what the files of the PostgreSQL backend share
 *
 * sink_postgres.c     opening, the writer's lock, facts, the table of functions
 * postgres_schema.c   what the tables look like
 * postgres_lanes.c    generations: begin, ready, swap, drop
 * postgres_group.c    rows of many items, collected and written together
 * postgres_write.c    one batch of items: begin, put, remove, commit
 * postgres_changes.c  tables that somebody changed or dropped
 * postgres_objects.c  the same of all else: views, indexes, constraints, comments
 * postgres_parks.c    parks, dead letters, counts
 * postgres_search.c   words in, hits out
 * postgres_canonical.c  canonical rows, and what must hold beside them
 */
#ifndef RF_SINKS_SINK_POSTGRES_H
#define RF_SINKS_SINK_POSTGRES_H

#include "core/row.h"
#include "sinks/pg.h"
#include "sinks/sink_ops.h"

#define RF_POSTGRES_FORMAT 1
/* What changes of the log a lane ($1) could not read: facts "lost:<lane>:<first>", whose value is
 * the last of them. */
#define RF_POSTGRES_LOST_OF "name LIKE 'lost:' || $1::bigint || ':%'"
#define RF_POSTGRES_LOST_FIRST "split_part(refuge_facts.name, ':', 3)::bigint"
#define RF_POSTGRES_MARK " (refuge)" /* what the comment of whatever refuge made ends in */
#define RF_POSTGRES_NAME 64 /* bytes of a name, its NUL included */

/* ---- small containers (postgres_group.c) ---- */

/* Numbers in a row. */
struct rf_ids {
    int64_t *items;
    size_t count, room;
};
void rf_ids_put(struct rf_ids *ids, int64_t id);
void rf_ids_release(struct rf_ids *ids);

/* What is known of items in the batch at hand, by key and, of those unmapped in it, by id. */
struct rf_pg_item {
    struct rf_pg_item *next;  /* with the same hash */
    int64_t id;
    uint64_t seq;
    uint64_t group;           /* number of the group that it was written in; 0: none */
    bool absent;              /* not in `blobs` */
    bool deleted, seen_now;   /* mapped_at is this batch's */
    enum rf_pg_reach { RF_REACH_UNKNOWN, RF_REACH_NONE, RF_REACH_SOME } reach;
    int64_t witness;          /* SOME: an item that has an edge to this one */
    uint32_t witness_cuts;    /* how often that was unmapped in this batch by then */
    char key[];
};

/* ---- lanes ---- */

struct rf_pg_slice { /* rows of one call within a table's buffer */
    uint32_t call;
    uint32_t size;
};

struct rf_pg_rowset { /* rows for one table, in COPY's form */
    struct rf_buf rows;
    struct rf_pg_slice *slices;
    size_t slice_count, slice_room;
};

struct rf_pg_table {
    const struct rf_table *decl;
    int64_t id; /* of refuge_tables */
    char *name; /* as it stands now: "mail", or "mail@2" in a lane that is not live */
    char *target;        /* for COPY */
    uint16_t columns;    /* that COPY fills */
    size_t search_count; /* 0: no column `search` */
    int64_t top;         /* the highest blobs.id it has rows of */
    struct rf_pg_rowset set;
};

struct rf_pg_mapper {
    int64_t id; /* of refuge_lane_mappers: one mapper in one lane */
    const char *name, *identity;
    const struct rf_decl *decl;
    bool edges_only;
    bool has_edges; /* may have some */
    int64_t edges_of, edges;  /* item put last with a call that was taken; the edges it has */
    uint32_t edges_call;      /* its call in the group */
    uint64_t edges_group;     /* that group's number */
    struct rf_ids unmap;      /* items of the group of which only this mapper's things go first */
    struct rf_pg_table *tables;
};

struct rf_pg_lane {
    struct rf_pg_lane *next;
    struct rf_arena arena;
    uint32_t id;
    bool live, full;
    struct rf_pg_mapper *mappers;
    size_t mapper_count;
    int64_t *ids;                      /* of the mappers */
    int64_t top;                       /* the highest blobs.id it has anything of */
    const struct rf_sink_call **calls; /* of the item at hand, by mapper */
};

/* ---- the group ---- */

enum rf_pg_own { /* refuge's own tables that a group fills */
    RF_OWN_BLOBS,
    RF_OWN_PARTS, /* rows of this and the next belong to calls */
    RF_OWN_CUTS,
    RF_OWN_NEEDS,
    RF_OWN_PARKS,
    RF_OWN_LETTERS,
    RF_OWN_COUNT
};

struct rf_pg_call { /* one (item, mapper) with rows or edges in the group */
    int64_t blob;
    uint16_t mapper;
    uint32_t attempts;
    bool refused;
    bool there; /* its rows are in the table as they are here */
    struct rf_ids children; /* of its edges: orphans when it is refused */
    char *reason;
};

struct rf_pg_update { /* of a row of blobs */
    int64_t id;
    const char *kind, *name; /* NULL kind: a tombstone; name in the group's arena */
    int64_t size, ts, seq, mtime;
};

struct rf_pg_group {
    uint64_t number;
    enum { RF_GROUP_EMPTY, RF_GROUP_PUTS, RF_GROUP_REMOVES } kind;
    size_t items, bytes;
    struct rf_ids unmap; /* items of which all that the lane has goes first */
    struct rf_ids again; /* those of them that were there with this change: maybe as they are */
    struct rf_pg_rowset own[RF_OWN_COUNT];
    struct rf_pg_call *calls;
    size_t call_count, call_room;
    struct rf_pg_update *updates;
    size_t update_count, update_room;
    char (*refs)[RF_BLOBREF_SIZE]; /* that arrived, or were removed */
    size_t ref_count, ref_room;
    struct rf_arena arena;
};

struct rf_pg_cache {
    struct rf_pg_item **slots;
    size_t slot_count, count;
    struct rf_arena arena;
    struct rf_pg_cut { int64_t id; uint32_t count; } *cuts; /* unmapped ids, open addressing */
    size_t cut_room, cut_count;
};

struct rf_postgres {
    struct rf_sink base;
    struct rf_pg *pg;
    uint64_t session;  /* that the lock was taken in */
    uint64_t token;
    char *reader;      /* a role, or NULL */
    char argument[RF_NAME_MAX + 2]; /* " NAME" behind a command in words; or "" */
    struct rf_pg_lane *lanes; /* loaded so far */
    struct rf_pg_lane *lane;  /* of the open batch */
    char from[RF_POSITION_SIZE];
    char unknown_to[RF_POSITION_SIZE]; /* a commit whose answer was lost went there */
    uint32_t unknown_lane;             /* of that lane; 0: none */
    int64_t now;       /* of the open batch: mapped_at */
    int64_t next_id, last_id; /* of the block of blobs.id at hand */
    bool orphans;      /* pg_temp.refuge_orphans may hold something */
    uint64_t shared;   /* rf_sink_share of the open batch */
    enum { RF_PG_WAITING_UNKNOWN, RF_PG_WAITING_NONE, RF_PG_WAITING_SOME } waiting;
    int64_t put_last;  /* id of the item put last in this batch; 0: it was stale */
    struct rf_pg_cache cache;
    struct rf_pg_group group;
    struct rf_lexemes *lexemes;
    struct rf_buf vector;
};

static inline struct rf_postgres *rf_postgres_of(struct rf_sink *sink)
{
    return (struct rf_postgres *)sink;
}

/* ---- sink_postgres.c ---- */

/* A connection that stands, with the writer's lock when writing: before any question. */
RF_MUST_USE enum rf_status rf_postgres_ready(struct rf_postgres *sink, struct rf_error *err);

/* Let all statements until rf_postgres_let_go see one state, unless a transaction is open already.
 * What it returns goes to rf_postgres_let_go. */
bool rf_postgres_hold(struct rf_postgres *sink);
void rf_postgres_let_go(struct rf_postgres *sink, bool held);
/* Before a question: what an open batch collected is written; else as ready, and who only reads
 * holds one state: what a writer reads changes by nobody else. */
RF_MUST_USE enum rf_status rf_postgres_ask(struct rf_postgres *sink, bool *held,
                                           struct rf_error *err);

/* End a transaction: commit when all went well. */
RF_MUST_USE enum rf_status rf_postgres_finish(struct rf_postgres *sink, enum rf_status status,
                                              struct rf_error *err);
int64_t rf_postgres_now(void);

/* Connect to what stands behind the URL's colon. */
RF_MUST_USE enum rf_status rf_postgres_connect(struct rf_pg **out, const char *rest,
                                               struct rf_error *err);

/* Whether the schema holds an index: RF_NOT_FOUND none, RF_UNSUPPORTED a newer one, RF_UNSOUND one
 * that does not say so. */
RF_MUST_USE enum rf_status rf_postgres_check(struct rf_pg *pg, struct rf_error *err);

/* ---- postgres_schema.c ---- */

RF_MUST_USE enum rf_status rf_postgres_make_schema(struct rf_postgres *sink, struct rf_error *err);
/* refuge's own tables and views, with their comments, wherever the search path leads. */
RF_MUST_USE enum rf_status rf_postgres_make_own(struct rf_pg *pg, struct rf_error *err);

/* Let the role that may read do so, of all that is ours in the schema. */
RF_MUST_USE enum rf_status rf_postgres_grant_all(struct rf_postgres *sink, struct rf_error *err);
/* Whether it has a column refuge_stems, of words stemmed by the rules of its language. */
bool rf_postgres_has_stems(const struct rf_table *table);
/* The name of a column's type in SQL. */
const char *rf_postgres_type(enum rf_type type);
/* A declared table of a lane, still without what make_indexes makes. */
RF_MUST_USE enum rf_status rf_postgres_make_table(struct rf_postgres *sink, int64_t table_id,
                                                  const struct rf_table *table, uint32_t lane,
                                                  bool live, struct rf_error *err);
/* Indexes of a filled table: on id, facets, times, declared ones, and the full text. */
RF_MUST_USE enum rf_status rf_postgres_make_indexes(struct rf_postgres *sink, int64_t table_id,
                                                    const struct rf_table *table,
                                                    const char *name, struct rf_error *err);
RF_MUST_USE enum rf_status rf_postgres_make_view(struct rf_postgres *sink,
                                                 const struct rf_table *table,
                                                 struct rf_error *err);
RF_MUST_USE enum rf_status rf_postgres_drop_table(struct rf_postgres *sink,
                                                  const struct rf_table *table, uint32_t lane,
                                                  bool live, struct rf_error *err);
/* From "<name>@<lane>" to "<name>". */
RF_MUST_USE enum rf_status rf_postgres_raise_table(struct rf_postgres *sink,
                                                   const struct rf_table *table, uint32_t lane,
                                                   struct rf_error *err);
size_t rf_postgres_search_count(const struct rf_table *table);
void rf_postgres_table_name(char out[RF_POSTGRES_NAME], const struct rf_table *table,
                            uint32_t lane, bool live);
/* Tables, views and sequences of ours in the schema, then the schema when nothing else is in it. */
RF_MUST_USE enum rf_status rf_postgres_drop_schema(struct rf_pg *pg, struct rf_error *err);

/* ---- postgres_lanes.c ---- */

/* The lane ready for use, kept until rf_postgres_forget_lanes. id 0: the live lane. */
RF_MUST_USE enum rf_status rf_postgres_lane_get(struct rf_postgres *sink, uint32_t id,
                                                struct rf_pg_lane **out, struct rf_error *err);
void rf_postgres_forget_lanes(struct rf_postgres *sink);
/* "ARRAY[(SELECT max(blob) FROM "mail"), ...]::bigint[]" of all tables of the lane, in order. */
void rf_postgres_put_of_tables(struct rf_buf *out, const struct rf_pg_lane *lane,
                               const char *what);
RF_MUST_USE enum rf_status rf_postgres_finish_drops(struct rf_postgres *sink,
                                                    struct rf_error *err);
/* RF_UNSOUND: what is wrong, and that only a drop mends it. */
RF_MUST_USE enum rf_status rf_postgres_damaged(struct rf_pg *pg, const char *what,
                                               struct rf_error *err);
/* All of refuge's own tables are there; else RF_UNSOUND names those that are not. */
RF_MUST_USE enum rf_status rf_postgres_check_own(struct rf_pg *pg, struct rf_error *err);
/* Every table that the lanes should have is there with its columns, of their types; else RF_CORRUPT
 * names it or, with mend, it is made anew and its lane begins at the start; what refuge can make
 * again of its own is made, too. */
RF_MUST_USE enum rf_status rf_postgres_check_tables(struct rf_postgres *sink, bool mend,
                                                    struct rf_error *err);

enum rf_status rf_postgres_lanes(struct rf_sink *sink, struct rf_arena *arena,
                                 struct rf_sink_lane **lanes, size_t *count,
                                 struct rf_error *err);
enum rf_status rf_postgres_lane_begin(struct rf_sink *sink, const struct rf_sink_mapper *mappers,
                                      size_t count, bool full, uint32_t *lane,
                                      struct rf_error *err);
enum rf_status rf_postgres_lane_ready(struct rf_sink *sink, uint32_t lane, struct rf_error *err);
enum rf_status rf_postgres_lane_swap(struct rf_sink *sink, uint32_t lane,
                                     const char *const *removed, size_t removed_count,
                                     struct rf_error *err);
enum rf_status rf_postgres_lane_drop(struct rf_sink *sink, uint32_t lane, struct rf_error *err);

/* ---- postgres_changes.c ---- */

struct rf_pg_named {
    const char *name; /* as it is in the schema */
    const struct rf_table *decl;
};

/* A row for each of these tables that is not as it was made: its name, and in words what is not
 * there or of another type. */
RF_MUST_USE enum rf_status rf_postgres_find_changes(struct rf_pg *pg,
                                                    const struct rf_pg_named *tables, size_t count,
                                                    struct rf_pg_rows **out, struct rf_error *err);
/* The same for all tables of a lane. */
RF_MUST_USE enum rf_status rf_postgres_lane_changes(struct rf_postgres *sink,
                                                    const struct rf_pg_lane *lane,
                                                    struct rf_pg_rows **out, struct rf_error *err);
/* RF_CORRUPT names them and what mends them; RF_OK when there is none. */
RF_MUST_USE enum rf_status rf_postgres_tell_changes(struct rf_postgres *sink,
                                                    const struct rf_pg_rows *changes,
                                                    struct rf_error *err);

/* ---- postgres_objects.c ---- */

/* Columns of what follows. IS null: it is not there. SHOULD null: somebody added it. DDL: what
 * makes it so, null: nothing can. UNDO: of what was added, what takes it away. */
enum { RF_OBJECT_KIND, RF_OBJECT_TABLE, RF_OBJECT_NAME, RF_OBJECT_IS, RF_OBJECT_SHOULD,
       RF_OBJECT_DDL, RF_OBJECT_UNDO };

/* A row for each thing that is not as refuge makes it, of its own tables and these of the live
 * lane; in an order in which they can be made again. A transaction must be open. */
RF_MUST_USE enum rf_status rf_postgres_find_objects(struct rf_pg *pg,
                                                    const struct rf_pg_named *tables, size_t count,
                                                    struct rf_pg_rows **out, struct rf_error *err);
/* Whether the row is about this mapper table, or its view. */
bool rf_postgres_object_is_of(const struct rf_pg_rows *rows, size_t row, const char *table);
/* own: not of a mapper table. */
enum rf_canon_mend rf_postgres_object_mend(const struct rf_pg_rows *rows, size_t row, bool own);
void rf_postgres_object_words(struct rf_buf *out, const struct rf_pg_rows *rows, size_t row,
                              bool own);
/* Make refuge's own views, indexes, constraints and comments again where they are not as they were
 * made. RF_UNSOUND: something else of its own is not there, or they cannot be made. */
RF_MUST_USE enum rf_status rf_postgres_mend_own(struct rf_postgres *sink, struct rf_error *err);

/* ---- postgres_group.c ---- */

void rf_pg_rowset_init(struct rf_pg_rowset *set);
void rf_pg_rowset_release(struct rf_pg_rowset *set);
/* What was put into the set since `before` belongs to this call (RF_PG_NO_CALL: to none). */
#define RF_PG_NO_CALL UINT32_MAX
RF_MUST_USE enum rf_status rf_pg_group_close(struct rf_pg_group *group, struct rf_pg_rowset *set,
                                             size_t before, uint32_t call, struct rf_error *err);
void rf_pg_group_init(struct rf_pg_group *group);
void rf_pg_group_release(struct rf_pg_group *group);
void rf_pg_group_clear(struct rf_postgres *sink);
uint32_t rf_pg_group_call(struct rf_pg_group *group, int64_t blob, uint16_t mapper,
                          uint32_t attempts);
void rf_pg_group_update(struct rf_pg_group *group, const struct rf_pg_update *update);
/* The item put last has more than rows of tables: it is written whatever is there. */
void rf_pg_group_unlike(struct rf_pg_group *group, int64_t blob);
void rf_pg_group_ref(struct rf_pg_group *group, const char *ref);
/* One row of refuge_parks or refuge_dead_letters. */
RF_MUST_USE enum rf_status rf_pg_group_set_aside(struct rf_postgres *sink, enum rf_pg_own own,
                                                 struct rf_pg_mapper *mapper, int64_t blob,
                                                 const char *kind, const char *reason,
                                                 uint32_t attempts, struct rf_error *err);
/* Write what was collected. */
RF_MUST_USE enum rf_status rf_pg_group_flush(struct rf_postgres *sink, struct rf_error *err);
/* Parts without an edge go, with what only they reached. */
RF_MUST_USE enum rf_status rf_postgres_collect_orphans(struct rf_postgres *sink,
                                                       struct rf_pg_lane *lane,
                                                       struct rf_error *err);

/* ---- postgres_write.c ---- */

/* Write what was collected before a question is asked; nothing without an open batch. */
RF_MUST_USE enum rf_status rf_postgres_flush(struct rf_postgres *sink, struct rf_error *err);
/* An item was unmapped in this batch: what its edges reached is to be looked at again. */
void rf_pg_cache_cut(struct rf_pg_cache *cache, int64_t id);
void rf_pg_cache_release(struct rf_pg_cache *cache);

enum rf_status rf_postgres_begin(struct rf_sink *sink, uint32_t lane, const char *from,
                                 struct rf_error *err);
enum rf_status rf_postgres_expect(struct rf_sink *sink, const char *const *keys, size_t count,
                                  struct rf_error *err);
enum rf_status rf_postgres_put(struct rf_sink *sink, const struct rf_sink_item *item, bool *stale,
                               struct rf_error *err);
enum rf_status rf_postgres_put_parts(struct rf_sink *sink, uint16_t mapper,
                                     const struct rf_sink_part *parts, size_t count,
                                     struct rf_error *err);
enum rf_status rf_postgres_remove(struct rf_sink *sink, const struct rf_blobref *ref,
                                  uint64_t seq, int64_t timestamp_us, struct rf_error *err);
enum rf_status rf_postgres_arrived(struct rf_sink *sink, const struct rf_blobref *ref,
                                   struct rf_error *err);
enum rf_status rf_postgres_lost(struct rf_sink *sink, uint64_t first, uint64_t last,
                                struct rf_error *err);
enum rf_status rf_postgres_commit(struct rf_sink *sink, const char *to, struct rf_error *err);
void rf_postgres_rollback(struct rf_sink *sink);
enum rf_status rf_postgres_has_part(struct rf_sink *sink, uint32_t lane, const char *key,
                                    bool *out, struct rf_error *err);

/* ---- postgres_again.c ---- */

/* Items and the parts below them become ready parks of these mappers of the lane; media, when not
 * NULL, is a pattern of LIKE. */
RF_MUST_USE enum rf_status rf_postgres_wake_below(struct rf_postgres *sink,
                                                  struct rf_pg_lane *lane, const int64_t *blobs,
                                                  size_t count, const char *media,
                                                  uint64_t mappers, struct rf_error *err);
enum rf_status rf_postgres_share(struct rf_sink *sink, uint64_t mappers, struct rf_error *err);
enum rf_status rf_postgres_again(struct rf_sink *sink, const char *key, const char *media,
                                 uint64_t mappers, struct rf_error *err);
enum rf_status rf_postgres_holders(struct rf_sink *sink, uint32_t lane, const char *key,
                                   enum rf_status (*visit)(void *user,
                                                           const struct rf_sink_holder *),
                                   void *user, struct rf_error *err);

/* ---- postgres_parks.c ---- */

extern const char *const rf_postgres_park_names[RF_PARK_KIND_COUNT];

enum rf_status rf_postgres_parks(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                                 enum rf_park_kind kind, int64_t *after, struct rf_sink_park *out,
                                 size_t max, size_t *count, struct rf_error *err);
enum rf_status rf_postgres_park_counts(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                                       uint64_t counts[RF_PARK_KIND_COUNT], struct rf_error *err);
enum rf_status rf_postgres_is_parked(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                                     const char *key, bool *out, uint32_t *attempts,
                                     struct rf_error *err);
enum rf_status rf_postgres_park_needs(struct rf_sink *sink, uint32_t lane,
                                      const struct rf_sink_park *park, struct rf_arena *arena,
                                      struct rf_blobref **refs, size_t *count,
                                      struct rf_error *err);
enum rf_status rf_postgres_origin_of(struct rf_sink *sink, uint32_t lane, const char *key,
                                     struct rf_sink_origin *out, struct rf_error *err);
enum rf_status rf_postgres_dead_letters(struct rf_sink *sink,
                                        enum rf_status (*visit)(void *user,
                                                                const struct rf_dead_letter *),
                                        void *user, struct rf_error *err);
enum rf_status rf_postgres_retry(struct rf_sink *sink, const char *mapper, const char *key,
                                 uint64_t *count, struct rf_error *err);
enum rf_status rf_postgres_mapper_splits(struct rf_sink *sink, uint32_t lane, const char *name,
                                         bool *out, struct rf_error *err);
enum rf_status rf_postgres_counts(struct rf_sink *sink, uint32_t lane, struct rf_sink_counts *out,
                                  struct rf_error *err);

/* ---- queries ---- */

enum rf_status rf_postgres_query_sql(const char *rest, const char *sql,
                                     void (*header)(void *user, size_t count,
                                                    const char *const *names),
                                     rf_query_visit visit, void *user,
                                     const volatile int *interrupted, struct rf_error *err);
enum rf_status rf_postgres_search(const char *rest, const char *words,
                                  const struct rf_search_options *options,
                                  enum rf_status (*visit)(void *user, const struct rf_hit *hit),
                                  void *user, uint64_t *total, struct rf_error *err);
enum rf_status rf_postgres_canon(struct rf_canon **out, const char *rest, struct rf_error *err);

#endif
