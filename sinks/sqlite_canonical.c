/*
 * sqlite_canonical.c - the canonical rows of an index in SQLite, see canonical.h
 *
 * One read transaction, begun when it is opened. What is left out is kept in temporary tables.
 */
#include "sinks/sink_sqlite.h"

#include <stdlib.h>

#define CACHE_BYTES (32u << 20)
#define POLL_STEPS 10000 /* instructions of SQLite's machine between looks at `interrupted` */

struct canon {
    struct rf_canon base;
    struct rf_db db;
    struct rf_arena arena;
    struct rf_sqlite_live live;
    struct rf_canon_mapper *mappers;
    sqlite3_stmt *stmt; /* of the stream at hand */
    struct rf_cell *cells;
    size_t count;
};

static struct canon *of(struct rf_canon *canon)
{
    return (struct canon *)canon;
}

/* ---- streams ---- */

#define LIVE_ONLY "JOIN temp.live l ON l.id = x.mapper JOIN blobs b ON b.id = x.blob "
#define NOT_LEFT_OUT                                                                             \
    "b.item NOT IN (SELECT item FROM temp.beneath) AND NOT EXISTS (SELECT 1 FROM temp.left_out " \
    "WHERE left_out.item = b.item AND left_out.mapper = l.name) "

static const char *const fixed_sql[] = {
    [RF_CANON_LANE] = "SELECT state, position FROM refuge_lanes WHERE state = 'live'",
    [RF_CANON_FACTS] = "SELECT name, value FROM refuge_facts WHERE name = 'store'",
    [RF_CANON_TABLES] =
        "SELECT l.name, x.name, x.title, x.search FROM refuge_tables x JOIN "
        "temp.live l ON l.id = x.mapper ORDER BY l.name, x.name",
    [RF_CANON_MAPPERS] = "SELECT name, identity FROM temp.live ORDER BY name",
    [RF_CANON_ITEMS] =
        "SELECT item, seq, deleted, ts, CASE deleted WHEN 0 THEN kind END, "
        "CASE deleted WHEN 0 THEN size END, CASE deleted WHEN 0 THEN name END, "
        "CASE deleted WHEN 0 THEN mtime END FROM blobs b WHERE (kind <> 'part' OR "
        "EXISTS (SELECT 1 FROM refuge_parts e WHERE e.child = b.id AND e.mapper IN "
        "(SELECT id FROM temp.live))) AND item NOT IN (SELECT item FROM temp.beneath) "
        "ORDER BY item",
    [RF_CANON_PARTS] =
        "SELECT b.item, l.name, x.n, c.item, x.name, x.offset, x.size FROM "
        "refuge_parts x JOIN temp.live l ON l.id = x.mapper JOIN blobs b ON b.id = x.parent "
        "LEFT JOIN blobs c ON c.id = x.child WHERE " NOT_LEFT_OUT "ORDER BY b.item, l.name, x.n",
    [RF_CANON_NEEDS] =
        "SELECT b.item, l.name, x.ref, max(x.present) FROM refuge_needs "
        "x " LIVE_ONLY "WHERE (x.present = 0 OR NOT EXISTS (SELECT 1 FROM refuge_parks p WHERE "
        "p.mapper = x.mapper AND p.blob = x.blob)) AND " NOT_LEFT_OUT
        "GROUP BY b.item, l.name, x.ref ORDER BY b.item, l.name, x.ref",
    [RF_CANON_PARKS] =
        "SELECT b.item, l.name, x.kind FROM refuge_parks x " LIVE_ONLY "WHERE " NOT_LEFT_OUT
        "ORDER BY b.item, l.name",
    [RF_CANON_LETTERS] =
        "SELECT b.item, l.name, x.class FROM refuge_dead_letters x " LIVE_ONLY
        "WHERE x.class <> 'limit' AND " NOT_LEFT_OUT "ORDER BY b.item, l.name",
    [RF_CANON_CUTS] =
        "SELECT b.item, l.name, x.n, x.\"column\", x.kind, x.\"table\" FROM refuge_cuts x "
        LIVE_ONLY "WHERE " NOT_LEFT_OUT "ORDER BY b.item, l.name, x.n, x.\"column\", x.kind",
};

/* Every column of a declared table; sql to be freed by sqlite3_free. */
static char *rows_sql(const struct rf_canon_stream *stream)
{
    struct rf_buf columns;
    char *sql;

    rf_buf_init(&columns, 1 << 16);
    for (size_t i = 0; i < stream->table->column_count; i++) {
        const struct rf_column *column = &stream->table->columns[i];
        rf_buf_printf(&columns, ", t.\"%s\"", column->name);
        if (column->type == RF_TYPE_TIME)
            rf_buf_printf(&columns, ", t.\"%s_offset\"", column->name);
    }
    sql = sqlite3_mprintf("SELECT b.item, t.n%s FROM blobs b CROSS JOIN \"%w\" t ON t.blob = b.id "
                          "WHERE b.item NOT IN (SELECT item FROM temp.beneath) AND b.item NOT IN "
                          "(SELECT item FROM temp.left_out WHERE mapper = %Q) ORDER BY b.item, t.n",
                          rf_buf_text(&columns), stream->table->name, stream->decl->name);
    rf_buf_release(&columns);
    return sql;
}

static enum rf_status canon_begin(struct rf_canon *base, const struct rf_canon_stream *stream,
                                  struct rf_error *err)
{
    struct canon *canon = of(base);
    char *sql;
    enum rf_status status;

    if (stream->kind == RF_CANON_ROWS)
        sql = rows_sql(stream);
    else if (stream->kind == RF_CANON_STRAYS)
        sql = sqlite3_mprintf("SELECT n FROM \"%w\" WHERE blob NOT IN (SELECT id FROM blobs) "
                              "ORDER BY n",
                              stream->table->name);
    else
        sql = sqlite3_mprintf("%s", fixed_sql[stream->kind]);
    canon->count = stream->count;
    canon->cells = calloc(stream->count + 1, sizeof *canon->cells);
    if (!canon->cells || !sql)
        status = rf_error_set(err, RF_NOMEM, "no memory to read index '%s'", canon->db.path);
    else
        status = rf_db_prepare(&canon->db, &canon->stmt, err, "%s", sql);
    sqlite3_free(sql);
    if (status != RF_OK) {
        free(canon->cells);
        canon->cells = NULL;
    }
    return status;
}

static enum rf_status canon_next(struct rf_canon *base, const struct rf_cell **cells,
                                 struct rf_error *err)
{
    struct canon *canon = of(base);
    enum rf_status status = rf_db_step(&canon->db, canon->stmt, err);

    if (status == RF_OK)
        rf_sqlite_cells(canon->stmt, canon->cells, canon->count);
    *cells = canon->cells;
    return status;
}

static void canon_end(struct rf_canon *base)
{
    struct canon *canon = of(base);

    sqlite3_finalize(canon->stmt);
    canon->stmt = NULL;
    free(canon->cells);
    canon->cells = NULL;
}

/* ---- what is left out ---- */

static enum rf_status canon_undecided(struct rf_canon *base,
                                      enum rf_status (*visit)(void *user, const char *item,
                                                              const char *mapper, bool parked),
                                      void *user, struct rf_error *err)
{
    struct canon *canon = of(base);
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    status = rf_db_prepare(&canon->db, &stmt, err,
                           "SELECT b.item, l.name, 0 FROM refuge_dead_letters x " LIVE_ONLY
                           "WHERE x.class = 'limit' UNION ALL "
                           "SELECT b.item, l.name, 1 FROM refuge_parks x " LIVE_ONLY
                           "WHERE x.kind <> 'need'");
    while (!status && (status = rf_db_step(&canon->db, stmt, err)) == RF_OK)
        status = visit(user, rf_db_text(stmt, 0), rf_db_text(stmt, 1),
                       sqlite3_column_int(stmt, 2) != 0);
    sqlite3_finalize(stmt);
    return status == RF_END ? RF_OK : status;
}

static enum rf_status canon_leave_out(struct rf_canon *base, const char *item, const char *mapper,
                                      bool parked, struct rf_error *err)
{
    return rf_db_exec(&of(base)->db, err,
                      "INSERT INTO temp.left_out VALUES(%Q, %Q, %d) ON CONFLICT DO UPDATE SET "
                      "parked = max(parked, excluded.parked)",
                      item, mapper, parked);
}

static enum rf_status canon_left_out(struct rf_canon *base, uint64_t *limited, uint64_t *parked,
                                     struct rf_error *err)
{
    struct canon *canon = of(base);
    int64_t all = 0, waiting = 0;
    enum rf_status status;

    status = rf_db_int(&canon->db, &all, 0, err, "SELECT count(*) FROM temp.left_out");
    if (!status)
        status = rf_db_int(&canon->db, &waiting, 0, err,
                           "SELECT count(*) FROM temp.left_out WHERE parked");
    *limited = (uint64_t)(all - waiting);
    *parked = (uint64_t)waiting;
    return status;
}

static enum rf_status canon_beneath(struct rf_canon *base,
                                    enum rf_status (*visit)(void *user, const char *item),
                                    void *user, struct rf_error *err)
{
    struct canon *canon = of(base);
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    status = rf_db_prepare(
        &canon->db, &stmt, err,
        "WITH RECURSIVE below(id) AS (SELECT e.child FROM temp.left_out t JOIN blobs b ON b.item = "
        "t.item JOIN temp.live l ON l.name = t.mapper JOIN refuge_parts e ON e.mapper = l.id AND "
        "e.parent = b.id UNION SELECT e.child FROM below JOIN temp.live l JOIN refuge_parts e ON "
        "e.mapper = l.id AND e.parent = below.id) SELECT b.item FROM below JOIN blobs b USING(id)");
    while (!status && (status = rf_db_step(&canon->db, stmt, err)) == RF_OK)
        status = visit(user, rf_db_text(stmt, 0));
    sqlite3_finalize(stmt);
    return status == RF_END ? RF_OK : status;
}

static enum rf_status canon_leave_item(struct rf_canon *base, const char *item,
                                       struct rf_error *err)
{
    return rf_db_exec(&of(base)->db, err,
                      "INSERT OR IGNORE INTO temp.beneath VALUES(%Q)", item);
}

/* ---- opening ---- */

static enum rf_status canon_mappers(struct rf_canon *base, const struct rf_canon_mapper **out,
                                    size_t *count, struct rf_error *err)
{
    struct canon *canon = of(base);
    enum rf_status status = RF_OK;

    if (!canon->mappers) {
        status = rf_sqlite_live(&canon->db, &canon->arena, &canon->live, err);
        if (status != RF_OK)
            return status;
        canon->mappers =
            rf_arena_alloc(&canon->arena, (canon->live.count + 1) * sizeof *canon->mappers);
        for (size_t i = 0; i < canon->live.count; i++)
            canon->mappers[i] = (struct rf_canon_mapper){canon->live.mappers[i].name,
                                                         canon->live.mappers[i].identity,
                                                         canon->live.mappers[i].decl};
    }
    *out = canon->mappers;
    *count = canon->live.count;
    return status;
}

static enum rf_status canon_check_search(struct rf_canon *base, const struct rf_table *table,
                                         rf_canon_tell tell, void *user, struct rf_error *err)
{
    return rf_sqlite_check_search(&of(base)->db, table, tell, user, err);
}

static enum rf_status canon_check(struct rf_canon *base, rf_canon_tell tell, void *user,
                                  struct rf_error *err)
{
    (void)err;
    rf_sqlite_check(&of(base)->db, tell, user);
    return RF_OK;
}

static void canon_close(struct rf_canon *base)
{
    struct canon *canon = of(base);

    rf_db_close(&canon->db);
    rf_arena_release(&canon->arena);
    free(canon);
}

static const struct rf_canon_ops canon_ops = {
    .close = canon_close,
    .mappers = canon_mappers,
    .undecided = canon_undecided,
    .leave_out = canon_leave_out,
    .left_out = canon_left_out,
    .beneath = canon_beneath,
    .leave_item = canon_leave_item,
    .begin = canon_begin,
    .next = canon_next,
    .end = canon_end,
    .check_search = canon_check_search,
    .check = canon_check,
};

static int poll_interrupted(void *user)
{
    return rf_canon_poll(user);
}

enum rf_status rf_sqlite_canon(struct rf_canon **out, const char *path, struct rf_error *err)
{
    struct canon *canon = calloc(1, sizeof *canon);
    enum rf_status status;

    if (!canon)
        return rf_error_set(err, RF_NOMEM, "no memory to read index '%s'", path);
    canon->base.ops = &canon_ops;
    rf_arena_init(&canon->arena, 64u << 20);
    status = rf_db_open(&canon->db, path, RF_DB_SCRATCH, CACHE_BYTES, NULL, err);
    if (!status)
        status = rf_db_exec(
            &canon->db, err,
            "CREATE TEMP TABLE live(id INTEGER PRIMARY KEY, name TEXT, identity TEXT);"
            "CREATE TEMP TABLE left_out(item TEXT, mapper TEXT, parked, "
            "PRIMARY KEY(item, mapper)) WITHOUT ROWID;"
            "CREATE TEMP TABLE beneath(item TEXT PRIMARY KEY) WITHOUT ROWID;"
            "BEGIN; INSERT INTO temp.live SELECT m.id, m.name, m.identity FROM "
            "refuge_lane_mappers m JOIN refuge_lanes l ON l.id = m.lane "
            "WHERE l.state = 'live';");
    if (!status)
        sqlite3_progress_handler(canon->db.handle, POLL_STEPS, poll_interrupted, &canon->base);
    if (status) {
        canon_close(&canon->base);
        return status;
    }
    *out = &canon->base;
    return RF_OK;
}
