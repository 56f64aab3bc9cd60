/*
 * sink_sqlite.h - the SQLite sink's own state, shared by its files
 *
 * sink_sqlite.c        opening, the writer's lock, facts, the table of functions
 * sqlite_schema.c      the tables of an index as SQL text
 * sqlite_lanes.c       lanes: begin, swap, drop, and lanes as loaded for writing
 * sqlite_write.c       a batch: items, removals, parts, needs
 * sqlite_parks.c       parks, dead letters, counts
 * sqlite_{sql,search,metadata}.c  what query.h promises
 * sqlite_canonical.c, sqlite_checks.c  what canonical.h asks for
 */
#ifndef RF_SINKS_SINK_SQLITE_H
#define RF_SINKS_SINK_SQLITE_H

#include "sinks/db.h"
#include "sinks/sink_ops.h"

/* Statements of the write path over one mapper table; prepared at first use. */
struct rf_sqlite_table {
    const struct rf_table *decl;
    char *name, *fts;    /* as they stand now: "mail", or "mail@2" in a lane that is not live */
    size_t search_count; /* 0: no full-text table */
    char (*scratch)[RF_BLOBREF_SIZE]; /* times and blobrefs of a row as text, by column */
    struct rf_bytes *texts;           /* of the searched columns of a row, lent */
    sqlite3_stmt *insert, *fts_insert, *select, *fts_delete, *remove;
};

struct rf_sqlite_mapper {
    int64_t id; /* of refuge_lane_mappers: one mapper in one lane */
    const char *name, *identity;
    const struct rf_decl *decl;
    bool edges_only;
    bool has_edges; /* may have some */
    /* The highest blobs.id this mapper has anything of: items come in order of their ids while a
     * lane is filled, and one above it has nothing to be removed first. */
    int64_t top;
    int64_t edges_of, edges; /* item put last with a call that was taken, and the edges it has */
    struct rf_sqlite_table *tables;
};

/* A lane as needed for writing. */
struct rf_sqlite_lane {
    struct rf_sqlite_lane *next;
    struct rf_arena arena;
    uint32_t id;
    bool live, full;
    struct rf_sqlite_mapper *mappers;
    size_t mapper_count;
    const struct rf_sink_call **calls; /* of the item at hand, by mapper */
};

enum rf_sqlite_stmt {
    RF_STMT_BLOB_INSERT,
    RF_STMT_BLOB_FIND,
    RF_STMT_BLOB_UPDATE,
    RF_STMT_BLOB_TOMBSTONE,
    RF_STMT_BLOB_DELETE,
    RF_STMT_PART_INSERT,
    RF_STMT_PART_REACHED,
    RF_STMT_EDGE_INSERT,
    RF_STMT_EDGE_FORGET,
    RF_STMT_EDGE_DELETE,
    RF_STMT_NEED_INSERT,
    RF_STMT_NEED_DELETE,
    RF_STMT_NEED_CUT,
    RF_STMT_NEED_MISSING,
    RF_STMT_NEED_DEPENDANT,
    RF_STMT_WAITING_AT_ALL,
    RF_STMT_WAITING,
    RF_STMT_PARK_INSERT,
    RF_STMT_PARK_DELETE,
    RF_STMT_PARK_READY,
    RF_STMT_PARK_WAITS,
    RF_STMT_LETTER_INSERT,
    RF_STMT_LETTER_DELETE,
    RF_STMT_CUT_INSERT,
    RF_STMT_CUT_DELETE,
    RF_STMT_ORPHAN_NEXT,
    RF_STMT_ORPHAN_DELETE,
    RF_STMT_REACHED_AT_ALL,
    RF_STMT_POSITION,
    RF_STMT_COUNT
};

struct rf_sqlite {
    struct rf_sink base;
    struct rf_db db;
    int lock_fd;
    uint64_t token;
    struct rf_sqlite_lane *lanes; /* loaded so far */
    sqlite3_stmt *stmts[RF_STMT_COUNT];
    struct rf_buf grams;
    struct rf_sqlite_lane *lane; /* of the open batch */
    char from[RF_POSITION_SIZE];
    char now[RF_TIME_TEXT_SIZE]; /* of the open batch: mapped_at */
    bool orphans;                /* temp.refuge_orphans may hold something */
    enum rf_sqlite_waiting {
        RF_WAITING_UNKNOWN, /* not looked yet */
        RF_WAITING_NONE,    /* no item needs a blob that is not there */
        RF_WAITING_SOME     /* some may */
    } waiting;
    uint64_t shared;  /* rf_sink_share of the open batch */
    int64_t put_last; /* blobs.id of the item put last in this batch; 0: it was stale */
};

/* ---- sqlite_schema.c ---- */

/* The tables every index has. */
RF_MUST_USE enum rf_status rf_sqlite_make_schema(struct rf_db *db, struct rf_error *err);

/* Table, indexes and full-text table of a declared table; suffix "" or "@<lane>". */
RF_MUST_USE enum rf_status rf_sqlite_make_table(struct rf_db *db, const struct rf_table *table,
                                                uint32_t lane, bool live, size_t fts_hash,
                                                struct rf_error *err);
RF_MUST_USE enum rf_status rf_sqlite_make_view(struct rf_db *db, const struct rf_table *table,
                                               struct rf_error *err);
RF_MUST_USE enum rf_status rf_sqlite_drop_table(struct rf_db *db, const struct rf_table *table,
                                                uint32_t lane, bool live, struct rf_error *err);
/* From "<name>@<lane>" to "<name>". */
RF_MUST_USE enum rf_status rf_sqlite_raise_table(struct rf_db *db, const struct rf_table *table,
                                                 uint32_t lane, struct rf_error *err);
size_t rf_sqlite_search_count(const struct rf_table *table);
/* Names in the arena. fts NULL when there is none. */
void rf_sqlite_table_names(struct rf_arena *arena, const struct rf_table *table, uint32_t lane,
                           bool live, char **name, char **fts);

/* ---- sqlite_lanes.c ---- */

/* The lane ready for use, kept until rf_sqlite_forget_lanes. RF_NOT_FOUND: no such lane.
 * id 0: the live lane. */
RF_MUST_USE enum rf_status rf_sqlite_lane_get(struct rf_sqlite *sink, uint32_t id,
                                              struct rf_sqlite_lane **out, struct rf_error *err);
void rf_sqlite_forget_lanes(struct rf_sqlite *sink);

/* Finish drops that a crash cut short. */
RF_MUST_USE enum rf_status rf_sqlite_finish_drops(struct rf_sqlite *sink, struct rf_error *err);

enum rf_status rf_sqlite_lanes(struct rf_sink *sink, struct rf_arena *arena,
                               struct rf_sink_lane **lanes, size_t *count, struct rf_error *err);
enum rf_status rf_sqlite_lane_begin(struct rf_sink *sink, const struct rf_sink_mapper *mappers,
                                    size_t count, bool full, uint32_t *lane, struct rf_error *err);
enum rf_status rf_sqlite_lane_swap(struct rf_sink *sink, uint32_t lane, const char *const *removed,
                                   size_t removed_count, struct rf_error *err);
enum rf_status rf_sqlite_lane_drop(struct rf_sink *sink, uint32_t lane, struct rf_error *err);

/* ---- sqlite_write.c ---- */

/* One of the fixed statements, ready to bind. */
RF_MUST_USE enum rf_status rf_sqlite_stmt(struct rf_sqlite *sink, enum rf_sqlite_stmt which,
                                          sqlite3_stmt **out, struct rf_error *err);

/* What changes of the log a lane could not read: facts "lost:<lane>:<first>", whose value is the
 * last of them. */
#define RF_SQLITE_LOST_OF "name GLOB 'lost:' || %u || ':*'"
#define RF_SQLITE_LOST_FIRST "CAST(substr(name, 7 + length(%u)) AS INTEGER)"

/* Remove what the lane has of parts in temp.refuge_orphans that no edge of it reaches. */
RF_MUST_USE enum rf_status rf_sqlite_collect_orphans(struct rf_sqlite *sink,
                                                     struct rf_sqlite_lane *lane,
                                                     struct rf_error *err);

/* "YYYY-...Z", now. */
void rf_sqlite_now(char out[RF_TIME_TEXT_SIZE]);

enum rf_status rf_sqlite_begin(struct rf_sink *sink, uint32_t lane, const char *from,
                               struct rf_error *err);
enum rf_status rf_sqlite_put(struct rf_sink *sink, const struct rf_sink_item *item, bool *stale,
                             struct rf_error *err);
enum rf_status rf_sqlite_put_parts(struct rf_sink *sink, uint16_t mapper,
                                   const struct rf_sink_part *parts, size_t count,
                                   struct rf_error *err);
enum rf_status rf_sqlite_remove(struct rf_sink *sink, const struct rf_blobref *ref, uint64_t seq,
                                int64_t timestamp_us, struct rf_error *err);
enum rf_status rf_sqlite_lost(struct rf_sink *sink, uint64_t first, uint64_t last,
                              struct rf_error *err);
enum rf_status rf_sqlite_arrived(struct rf_sink *sink, const struct rf_blobref *ref,
                                 struct rf_error *err);
enum rf_status rf_sqlite_commit(struct rf_sink *sink, const char *to, struct rf_error *err);
void rf_sqlite_rollback(struct rf_sink *sink);
enum rf_status rf_sqlite_has_part(struct rf_sink *sink, uint32_t lane, const char *key, bool *out,
                                  struct rf_error *err);
enum rf_status rf_sqlite_is_parked(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                                   const char *key, bool *out, uint32_t *attempts,
                                   struct rf_error *err);
enum rf_status rf_sqlite_mapper_splits(struct rf_sink *sink, uint32_t lane, const char *name,
                                       bool *out, struct rf_error *err);

/* ---- sqlite_again.c ---- */

/* An item and the parts below it become ready parks of these mappers of the lane; media, when not
 * NULL, is a pattern of LIKE. */
RF_MUST_USE enum rf_status rf_sqlite_wake_below(struct rf_sqlite *sink,
                                                struct rf_sqlite_lane *lane, int64_t blob,
                                                const char *media, uint64_t mappers,
                                                struct rf_error *err);
enum rf_status rf_sqlite_share(struct rf_sink *sink, uint64_t mappers, struct rf_error *err);
enum rf_status rf_sqlite_again(struct rf_sink *sink, const char *key, const char *media,
                               uint64_t mappers, struct rf_error *err);
enum rf_status rf_sqlite_holders(struct rf_sink *sink, uint32_t lane, const char *key,
                                 enum rf_status (*visit)(void *user,
                                                         const struct rf_sink_holder *),
                                 void *user, struct rf_error *err);

/* ---- sqlite_parks.c ---- */

enum rf_status rf_sqlite_parks(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                               enum rf_park_kind kind, int64_t *after, struct rf_sink_park *out,
                               size_t max, size_t *count, struct rf_error *err);
enum rf_status rf_sqlite_park_counts(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                                     uint64_t counts[RF_PARK_KIND_COUNT], struct rf_error *err);
enum rf_status rf_sqlite_park_needs(struct rf_sink *sink, uint32_t lane,
                                    const struct rf_sink_park *park, struct rf_arena *arena,
                                    struct rf_blobref **refs, size_t *count, struct rf_error *err);
enum rf_status rf_sqlite_origin_of(struct rf_sink *sink, uint32_t lane, const char *key,
                                   struct rf_sink_origin *out, struct rf_error *err);
enum rf_status rf_sqlite_dead_letters(struct rf_sink *sink,
                                      enum rf_status (*visit)(void *user,
                                                              const struct rf_dead_letter *),
                                      void *user, struct rf_error *err);
enum rf_status rf_sqlite_retry(struct rf_sink *sink, const char *mapper, const char *key,
                               uint64_t *count, struct rf_error *err);
enum rf_status rf_sqlite_counts(struct rf_sink *sink, uint32_t lane, struct rf_sink_counts *out,
                                struct rf_error *err);

extern const char *const rf_sqlite_park_names[RF_PARK_KIND_COUNT];

/* ---- queries: as rf_query_* ---- */

enum rf_status rf_sqlite_query_sql(const char *path, const char *sql,
                                   void (*header)(void *user, size_t count,
                                                  const char *const *names),
                                   rf_query_visit visit, void *user,
                                   const volatile int *interrupted, struct rf_error *err);
enum rf_status rf_sqlite_search(const char *path, const char *words,
                                const struct rf_search_options *options,
                                enum rf_status (*visit)(void *user, const struct rf_hit *hit),
                                void *user, uint64_t *total, struct rf_error *err);
enum rf_status rf_sqlite_canon(struct rf_canon **out, const char *path, struct rf_error *err);
enum rf_status rf_sqlite_metadata(const char *path, struct rf_buf *buf, struct rf_error *err);

/* The cells of the row a statement stands on, texts lent until its next step. */
void rf_sqlite_cells(sqlite3_stmt *stmt, struct rf_cell *cells, size_t count);

/* ---- sqlite_checks.c: as the functions of struct rf_canon_ops ---- */

RF_MUST_USE enum rf_status rf_sqlite_check_search(struct rf_db *db, const struct rf_table *table,
                                                  rf_canon_tell tell, void *user,
                                                  struct rf_error *err);
void rf_sqlite_check(struct rf_db *db, rf_canon_tell tell, void *user);

/* The declarations of the live lane's mappers, in order; in the arena. */
struct rf_sqlite_live {
    uint32_t lane;
    size_t count;
    struct {
        int64_t id;
        const char *name, *identity;
        struct rf_decl *decl;
    } *mappers;
};
RF_MUST_USE enum rf_status rf_sqlite_live(struct rf_db *db, struct rf_arena *arena,
                                          struct rf_sqlite_live *out, struct rf_error *err);

#endif
