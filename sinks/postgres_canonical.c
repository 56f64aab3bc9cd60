/*
 * postgres_canonical.c - the canonical rows of an index in PostgreSQL, see canonical.h
 *
 * One transaction of one snapshot, begun when it is opened. What is left out is kept in temporary
 * tables. Tables that somebody changed are known from the catalogue before they are asked, and what
 * fails all the same ends at a savepoint, so that the rest is looked at.
 */
#include "sinks/sink_postgres.h"

#include "core/control.h"
#include "sinks/lexemes.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define VECTOR_MAX (2u << 20)

enum cell_form { FORM_INT, FORM_FLOAT, FORM_TEXT, FORM_TIME };

struct canon {
    struct rf_canon base;
    struct rf_pg *pg;
    struct rf_arena arena;
    struct rf_canon_mapper *mappers;
    size_t mapper_count;
    struct rf_pg_rows *changes; /* of tables of the live lane, see rf_postgres_find_changes */
    struct rf_pg_stream *stream; /* at hand */
    bool saved, failed;          /* since the savepoint */
    struct rf_cell *cells;
    enum cell_form *forms;
    char (*times)[RF_TIME_TEXT_SIZE];
    size_t count;
};

static struct canon *of(struct rf_canon *canon)
{
    return (struct canon *)canon;
}

/* ---- savepoints ---- */

static enum rf_status save(struct canon *canon, struct rf_error *err)
{
    enum rf_status status = rf_pg_exec(canon->pg, err, "SAVEPOINT refuge_step");

    canon->saved = status == RF_OK;
    canon->failed = false;
    return status;
}

/* Leave the transaction as it was at the savepoint if something failed since. */
static void settle(struct canon *canon)
{
    if (canon->saved && !rf_pg_is_lost(canon->pg))
        (void)!rf_pg_exec(canon->pg, NULL, "%sRELEASE SAVEPOINT refuge_step",
                          canon->failed ? "ROLLBACK TO SAVEPOINT refuge_step; " : "");
    canon->saved = false;
}

/* ---- the mappers ---- */

static enum rf_status canon_mappers(struct rf_canon *base, const struct rf_canon_mapper **out,
                                    size_t *count, struct rf_error *err)
{
    struct canon *canon = of(base);
    struct rf_pg_rows *rows = NULL;
    enum rf_status status = RF_OK;

    if (!canon->mappers)
        status = rf_pg_query(canon->pg, &rows, err,
                             "SELECT l.name, l.identity, m.declaration FROM pg_temp.live l JOIN "
                             "refuge_mappers m USING(identity) ORDER BY l.ordinal, l.id", "");
    if (status == RF_OK && rows) {
        canon->mapper_count = rf_pg_count(rows);
        canon->mappers = rf_arena_alloc(&canon->arena,
                                        (canon->mapper_count + 1) * sizeof *canon->mappers);
    }
    for (size_t i = 0; status == RF_OK && rows && i < canon->mapper_count; i++) {
        const char *name = rf_pg_text_at(rows, i, 0), *identity = rf_pg_text_at(rows, i, 1);
        struct rf_bytes json = rf_pg_bytes_at(rows, i, 2);
        struct rf_decl *decl = NULL;
        status = rf_decl_parse(&decl, &canon->arena, json, err);
        if (status == RF_OK)
            canon->mappers[i] = (struct rf_canon_mapper){
                rf_arena_copy(&canon->arena, name, strlen(name)),
                rf_arena_copy(&canon->arena, identity, strlen(identity)), decl};
    }
    rf_pg_rows_free(rows);
    *out = canon->mappers;
    *count = canon->mapper_count;
    return status;
}

/* All tables of the live lane; the caller's to free. */
static enum rf_status list_tables(struct canon *canon, struct rf_pg_named **out, size_t *count,
                                  struct rf_error *err)
{
    const struct rf_canon_mapper *mappers;
    size_t mapper_count, most = 1;
    enum rf_status status = canon_mappers(&canon->base, &mappers, &mapper_count, err);

    *count = 0;
    if (status != RF_OK)
        return status;
    for (size_t i = 0; i < mapper_count; i++)
        most += mappers[i].decl->table_count;
    *out = malloc(most * sizeof **out);
    if (!*out)
        return rf_error_set(err, RF_NOMEM, "no memory for the tables of an index");
    for (size_t i = 0; i < mapper_count; i++)
        for (size_t k = 0; k < mappers[i].decl->table_count; k++)
            (*out)[(*count)++] = (struct rf_pg_named){mappers[i].decl->tables[k].name,
                                                      &mappers[i].decl->tables[k]};
    return RF_OK;
}

static enum rf_status read_changes(struct canon *canon, struct rf_error *err)
{
    struct rf_pg_named *tables;
    size_t count;
    enum rf_status status = list_tables(canon, &tables, &count, err);

    if (status != RF_OK)
        return status;
    status = rf_postgres_find_changes(canon->pg, tables, count, &canon->changes, err);
    free(tables);
    return status;
}

/* What is changed of a table, in words, or NULL. */
static enum rf_status find_change(struct canon *canon, const char *table, const char **words,
                                  struct rf_error *err)
{
    enum rf_status status = canon->changes ? RF_OK : read_changes(canon, err);

    *words = NULL;
    for (size_t row = 0; status == RF_OK && row < rf_pg_count(canon->changes); row++)
        if (strcmp(rf_pg_text_at(canon->changes, row, 0), table) == 0)
            *words = rf_pg_text_at(canon->changes, row, 1);
    return status;
}

/* ---- streams ---- */

#define LIVE_ONLY "JOIN pg_temp.live l ON l.id = x.mapper JOIN blobs b ON b.id = x.blob "
#define NOT_BENEATH "NOT EXISTS (SELECT 1 FROM pg_temp.beneath u WHERE u.item = b.item) "
#define NOT_LEFT_OUT                                                                            \
    NOT_BENEATH "AND NOT EXISTS (SELECT 1 FROM pg_temp.left_out o WHERE o.item = b.item AND "    \
    "o.mapper = l.name) "

/* What a row is, a letter a cell: i number, t text, m time. */
static const struct {
    const char *forms, *sql;
} fixed[] = {
    [RF_CANON_LANE] = {"tt", "SELECT state, position FROM refuge_lanes WHERE state = 'live'"},
    [RF_CANON_FACTS] = {"tt", "SELECT name, value FROM refuge_facts WHERE name = 'store'"},
    [RF_CANON_TABLES] =
        {"ttti", "SELECT l.name, x.name, x.title, x.search FROM refuge_tables x JOIN pg_temp.live "
                 "l ON l.id = x.mapper ORDER BY l.name, x.name"},
    [RF_CANON_MAPPERS] = {"tt", "SELECT name, identity FROM pg_temp.live ORDER BY name"},
    [RF_CANON_ITEMS] =
        {"tiimtitm",
         "SELECT b.item, b.seq, b.deleted, b.ts, CASE b.deleted WHEN 0 THEN b.kind END, "
         "CASE b.deleted WHEN 0 THEN b.size END, CASE b.deleted WHEN 0 THEN b.name END, "
         "CASE b.deleted WHEN 0 THEN b.mtime END FROM blobs b WHERE (b.kind <> 'part' OR EXISTS "
         "(SELECT 1 FROM refuge_parts e WHERE e.child = b.id AND e.mapper IN (SELECT id FROM "
         "pg_temp.live))) AND " NOT_BENEATH "ORDER BY b.item"},
    [RF_CANON_PARTS] =
        {"ttittii",
         "SELECT b.item, l.name, x.n, c.item, x.name, x.\"offset\", x.size FROM refuge_parts x "
         "JOIN pg_temp.live l ON l.id = x.mapper JOIN blobs b ON b.id = x.parent LEFT JOIN blobs "
         "c ON c.id = x.child WHERE " NOT_LEFT_OUT "ORDER BY b.item, l.name, x.n"},
    [RF_CANON_NEEDS] =
        {"ttti",
         "SELECT b.item, l.name, x.ref, max(x.present) FROM refuge_needs x " LIVE_ONLY
         "WHERE (x.present = 0 OR NOT EXISTS (SELECT 1 FROM refuge_parks p WHERE p.mapper = "
         "x.mapper AND p.blob = x.blob)) AND " NOT_LEFT_OUT
         "GROUP BY b.item, l.name, x.ref ORDER BY b.item, l.name, x.ref"},
    [RF_CANON_PARKS] = {"ttt", "SELECT b.item, l.name, x.kind FROM refuge_parks x " LIVE_ONLY
                               "WHERE " NOT_LEFT_OUT "ORDER BY b.item, l.name"},
    [RF_CANON_LETTERS] =
        {"ttt", "SELECT b.item, l.name, x.class FROM refuge_dead_letters x " LIVE_ONLY
                "WHERE x.class <> 'limit' AND " NOT_LEFT_OUT "ORDER BY b.item, l.name"},
    [RF_CANON_CUTS] =
        {"ttittt", "SELECT b.item, l.name, x.n, x.\"column\", x.kind, x.\"table\" FROM "
                   "refuge_cuts x " LIVE_ONLY "WHERE " NOT_LEFT_OUT
                   "ORDER BY b.item, l.name, x.n, x.\"column\", x.kind"},
};

static enum cell_form form_of(char letter)
{
    return letter == 'i' ? FORM_INT : letter == 'm' ? FORM_TIME : FORM_TEXT;
}

static enum cell_form form_of_type(enum rf_type type)
{
    switch (type) {
    case RF_TYPE_INT:
    case RF_TYPE_BOOL:
        return FORM_INT;
    case RF_TYPE_FLOAT:
        return FORM_FLOAT;
    case RF_TYPE_TIME:
        return FORM_TIME;
    default:
        return FORM_TEXT;
    }
}

/* Every column of a declared table, with what each cell is. */
static void put_rows_sql(struct canon *canon, const struct rf_canon_stream *stream,
                         struct rf_buf *sql)
{
    const struct rf_table *table = stream->table;
    size_t at = 0;

    rf_buf_put_text(sql, "SELECT b.item, t.n");
    canon->forms[at++] = FORM_TEXT;
    canon->forms[at++] = FORM_INT;
    for (size_t i = 0; i < table->column_count; i++) {
        const struct rf_column *column = &table->columns[i];
        rf_buf_printf(sql, ", t.\"%s\"", column->name);
        canon->forms[at++] = form_of_type(column->type);
        if (column->type == RF_TYPE_TIME) {
            rf_buf_printf(sql, ", t.\"%s_offset\"", column->name);
            canon->forms[at++] = FORM_INT;
        }
    }
    rf_pg_put_sql(sql, " FROM \"%w\" t JOIN blobs b ON b.id = t.blob WHERE " NOT_BENEATH
                  "AND NOT EXISTS (SELECT 1 FROM pg_temp.left_out o WHERE o.item = b.item AND "
                  "o.mapper = %Q) ORDER BY b.item, t.n",
                  table->name, stream->decl->name);
}

static void canon_end(struct rf_canon *base)
{
    struct canon *canon = of(base);

    rf_pg_stream_close(canon->stream);
    canon->stream = NULL;
    settle(canon);
    free(canon->cells);
    free(canon->forms);
    free(canon->times);
    canon->cells = NULL;
    canon->forms = NULL;
    canon->times = NULL;
}

static enum rf_status canon_begin(struct rf_canon *base, const struct rf_canon_stream *stream,
                                  struct rf_error *err)
{
    struct canon *canon = of(base);
    const char *changed = NULL;
    struct rf_buf sql;
    enum rf_status status = RF_OK;

    if (stream->kind == RF_CANON_ROWS)
        status = find_change(canon, stream->table->name, &changed, err);
    if (status == RF_OK && changed)
        status = rf_error_set(err, RF_CORRUPT, "%s", changed);
    if (status == RF_OK)
        status = save(canon, err);
    if (status != RF_OK)
        return status;
    canon->count = stream->count;
    canon->cells = calloc(stream->count + 1, sizeof *canon->cells);
    canon->forms = calloc(stream->count + 1, sizeof *canon->forms);
    canon->times = calloc(stream->count + 1, sizeof *canon->times);
    if (!canon->cells || !canon->forms || !canon->times) {
        canon_end(base);
        return rf_error_set(err, RF_NOMEM, "no memory to read index '%s'", rf_pg_name(canon->pg));
    }
    rf_buf_init(&sql, 1 << 16);
    if (stream->kind == RF_CANON_ROWS) {
        put_rows_sql(canon, stream, &sql);
    } else if (stream->kind == RF_CANON_STRAYS) {
        canon->forms[0] = FORM_INT;
        rf_pg_put_sql(&sql, "SELECT t.n FROM \"%w\" t WHERE NOT EXISTS (SELECT 1 FROM blobs b "
                      "WHERE b.id = t.blob) ORDER BY t.n", stream->table->name);
    } else {
        for (size_t i = 0; i < stream->count; i++)
            canon->forms[i] = form_of(fixed[stream->kind].forms[i]);
        rf_buf_put_text(&sql, fixed[stream->kind].sql);
    }
    status = rf_buf_text(&sql)
                 ? rf_pg_stream_open(canon->pg, &canon->stream, err, rf_buf_text(&sql), "")
                 : sql.failed;
    rf_buf_release(&sql);
    canon->failed = status != RF_OK;
    if (status != RF_OK)
        canon_end(base);
    return status;
}

static void read_cell(struct canon *canon, const struct rf_pg_rows *rows, size_t row, int column)
{
    struct rf_cell *cell = &canon->cells[column];
    char *text = canon->times[column];

    *cell = (struct rf_cell){.type = RF_CELL_NULL};
    if (rf_pg_is_null(rows, row, column))
        return;
    switch (canon->forms[column]) {
    case FORM_INT:
        cell->type = RF_CELL_INT;
        cell->integer = rf_pg_int_at(rows, row, column);
        break;
    case FORM_FLOAT:
        cell->type = RF_CELL_FLOAT;
        cell->real = rf_pg_float_at(rows, row, column);
        break;
    case FORM_TIME:
        rf_time_format(rf_pg_time_at(rows, row, column), text);
        cell->type = RF_CELL_TEXT;
        cell->text = rf_bytes_text(text);
        break;
    case FORM_TEXT:
        cell->type = RF_CELL_TEXT;
        cell->text = rf_pg_bytes_at(rows, row, column);
        break;
    }
}

static enum rf_status canon_next(struct rf_canon *base, const struct rf_cell **cells,
                                 struct rf_error *err)
{
    struct canon *canon = of(base);
    const struct rf_pg_rows *rows;
    size_t row;
    enum rf_status status = rf_pg_stream_next(canon->stream, &rows, &row, err);

    canon->failed = status != RF_OK && status != RF_END;
    for (size_t i = 0; status == RF_OK && i < canon->count; i++)
        read_cell(canon, rows, row, (int)i);
    *cells = canon->cells;
    return status;
}

/* ---- what is left out ---- */

static enum rf_status canon_undecided(struct rf_canon *base,
                                      enum rf_status (*visit)(void *user, const char *item,
                                                              const char *mapper, bool parked),
                                      void *user, struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    enum rf_status status;

    status = rf_pg_query(of(base)->pg, &rows, err,
                         "SELECT b.item, l.name, false FROM refuge_dead_letters x " LIVE_ONLY
                         "WHERE x.class = 'limit' UNION ALL "
                         "SELECT b.item, l.name, true FROM refuge_parks x " LIVE_ONLY
                         "WHERE x.kind <> 'need'", "");
    for (size_t i = 0; status == RF_OK && i < rf_pg_count(rows); i++)
        status = visit(user, rf_pg_text_at(rows, i, 0), rf_pg_text_at(rows, i, 1),
                       rf_pg_int_at(rows, i, 2) != 0);
    rf_pg_rows_free(rows);
    return status;
}

static enum rf_status canon_leave_out(struct rf_canon *base, const char *item, const char *mapper,
                                      bool parked, struct rf_error *err)
{
    return rf_pg_run(of(base)->pg, NULL, err,
                     "INSERT INTO pg_temp.left_out VALUES($1, $2, $3) ON CONFLICT(item, mapper) "
                     "DO UPDATE SET parked = left_out.parked OR excluded.parked",
                     "tto", item, mapper, parked);
}

static enum rf_status canon_left_out(struct rf_canon *base, uint64_t *limited, uint64_t *parked,
                                     struct rf_error *err)
{
    int64_t all = 0, waiting = 0;
    enum rf_status status;

    status = rf_pg_int(of(base)->pg, &all, 0, err, "SELECT count(*) FROM pg_temp.left_out", "");
    if (status == RF_OK)
        status = rf_pg_int(of(base)->pg, &waiting, 0, err,
                           "SELECT count(*) FROM pg_temp.left_out WHERE parked", "");
    *limited = (uint64_t)(all - waiting);
    *parked = (uint64_t)waiting;
    return status;
}

static enum rf_status canon_beneath(struct rf_canon *base,
                                    enum rf_status (*visit)(void *user, const char *item),
                                    void *user, struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    enum rf_status status;

    status = rf_pg_query(of(base)->pg, &rows, err,
                         "WITH RECURSIVE below(id) AS (SELECT e.child FROM pg_temp.left_out t JOIN "
                         "blobs b ON b.item = t.item JOIN pg_temp.live l ON l.name = t.mapper JOIN "
                         "refuge_parts e ON e.mapper = l.id AND e.parent = b.id UNION SELECT "
                         "e.child FROM below JOIN refuge_parts e ON e.parent = below.id AND "
                         "e.mapper IN (SELECT id FROM pg_temp.live)) "
                         "SELECT b.item FROM below JOIN blobs b USING(id)", "");
    for (size_t i = 0; status == RF_OK && i < rf_pg_count(rows); i++)
        status = visit(user, rf_pg_text_at(rows, i, 0));
    rf_pg_rows_free(rows);
    return status;
}

static enum rf_status canon_leave_item(struct rf_canon *base, const char *item,
                                       struct rf_error *err)
{
    return rf_pg_run(of(base)->pg, NULL, err,
                     "INSERT INTO pg_temp.beneath VALUES($1) ON CONFLICT DO NOTHING", "t", item);
}

/* ---- checks ---- */

RF_PRINTF(4, 5)
static void say(rf_canon_tell tell, void *user, enum rf_canon_mend mend, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    tell(user, mend, text);
}

/* Columns: item, n, search as it is, then the texts. */
static bool same_words(const struct rf_pg_rows *rows, size_t row, size_t count,
                       struct rf_lexemes *lexemes, struct rf_buf *vector)
{
    struct rf_bytes is = rf_pg_bytes_at(rows, row, 2);
    bool any = false;

    rf_lexemes_clear(lexemes);
    rf_buf_clear(vector);
    for (size_t i = 0; i < count; i++) {
        struct rf_bytes text = rf_pg_bytes_at(rows, row, (int)i + 3);
        any |= text.data != NULL;
        if (text.data)
            rf_lexemes_add(lexemes, text);
    }
    if (!any)
        return is.data == NULL;
    rf_lexemes_encode(lexemes, vector);
    return is.data && is.size == vector->size && memcmp(is.data, vector->data, is.size) == 0;
}

static enum rf_status canon_check_search(struct rf_canon *base, const struct rf_table *table,
                                         rf_canon_tell tell, void *user, struct rf_error *err)
{
    struct canon *canon = of(base);
    struct rf_lexemes *lexemes = rf_lexemes_new();
    struct rf_pg_stream *stream = NULL;
    const struct rf_pg_rows *rows;
    struct rf_buf sql, vector;
    size_t row, count = 0;
    enum rf_status status;

    rf_buf_init(&sql, 1 << 16);
    rf_buf_init(&vector, VECTOR_MAX);
    rf_buf_put_text(&sql, "SELECT b.item, t.n, t.search");
    for (size_t i = 0; i < table->column_count; i++) {
        if (!table->columns[i].search)
            continue;
        rf_buf_printf(&sql, ", t.\"%s\"", table->columns[i].name);
        count++;
    }
    rf_pg_put_sql(&sql, " FROM \"%w\" t LEFT JOIN blobs b ON b.id = t.blob", table->name);
    status = sql.failed ? sql.failed : save(canon, err);
    if (status == RF_OK)
        status = rf_pg_stream_open(canon->pg, &stream, err, rf_buf_text(&sql), "");
    while (status == RF_OK && (status = rf_pg_stream_next(stream, &rows, &row, err)) == RF_OK) {
        if (!same_words(rows, row, count, lexemes, &vector))
            say(tell, user, RF_MEND_REBUILD,
                "table '%s', item '%s', n %" PRId64 ": its full-text entry is not that of its text",
                table->name, rf_pg_text_at(rows, row, 0), rf_pg_int_at(rows, row, 1));
    }
    rf_pg_stream_close(stream);
    canon->failed = status != RF_END;
    settle(canon);
    rf_lexemes_free(lexemes);
    rf_buf_release(&sql);
    rf_buf_release(&vector);
    return status == RF_END ? RF_OK : status;
}

/* The table of a mapper that the row is about, or NULL: one of refuge's own. */
static const char *table_of(struct canon *canon, const struct rf_pg_rows *rows, size_t row)
{
    for (size_t i = 0; i < canon->mapper_count; i++)
        for (size_t k = 0; k < canon->mappers[i].decl->table_count; k++)
            if (rf_postgres_object_is_of(rows, row, canon->mappers[i].decl->tables[k].name))
                return canon->mappers[i].decl->tables[k].name;
    return NULL;
}

/* Of a table that was changed the stream of its rows told. */
static enum rf_status tell_objects(struct canon *canon, const struct rf_pg_rows *rows,
                                   rf_canon_tell tell, void *user, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t row = 0; status == RF_OK && row < rf_pg_count(rows); row++) {
        const char *table = table_of(canon, rows, row), *changed = NULL;
        struct rf_buf words;

        if (table)
            status = find_change(canon, table, &changed, err);
        if (status != RF_OK || changed)
            continue;
        rf_buf_init(&words, 1 << 16);
        rf_postgres_object_words(&words, rows, row, !table);
        say(tell, user, rf_postgres_object_mend(rows, row, !table), "%s", rf_buf_text(&words));
        rf_buf_release(&words);
    }
    return status;
}

static enum rf_status check_objects(struct canon *canon, rf_canon_tell tell, void *user,
                                    struct rf_error *err)
{
    struct rf_pg_named *tables;
    struct rf_pg_rows *rows = NULL;
    int64_t versions = 0;
    size_t count;
    enum rf_status status = list_tables(canon, &tables, &count, err);

    if (status != RF_OK)
        return status;
    status = rf_postgres_find_objects(canon->pg, tables, count, &rows, err);
    free(tables);
    if (status == RF_OK)
        status = tell_objects(canon, rows, tell, user, err);
    rf_pg_rows_free(rows);
    if (status == RF_OK)
        status = rf_pg_int(canon->pg, &versions, 0, err, "SELECT count(*) FROM refuge_format", "");
    if (status == RF_OK && versions != 1)
        say(tell, user, RF_MEND_REBUILD, "table 'refuge_format': it holds %" PRId64 " versions, "
            "should be 1", versions);
    return status;
}

/* Rows whose item is not there. Of a table that was changed the stream of its rows told. */
static enum rf_status check_items(struct canon *canon, const char *table, const char *column,
                                  rf_canon_tell tell, void *user, struct rf_error *err)
{
    struct rf_buf sql;
    const char *changed;
    int64_t count = 0;
    enum rf_status status = find_change(canon, table, &changed, err);

    if (status != RF_OK || changed)
        return status;
    rf_buf_init(&sql, 4096);
    rf_pg_put_sql(&sql, "SELECT count(*) FROM \"%w\" t WHERE NOT EXISTS (SELECT 1 FROM blobs b "
                  "WHERE b.id = t.\"%w\")", table, column);
    status = rf_pg_int(canon->pg, &count, 0, err, rf_buf_text(&sql), "");
    rf_buf_release(&sql);
    if (status == RF_OK && count)
        say(tell, user, RF_MEND_ANEW, "table '%s': %" PRId64 " row%s of an item that is not there",
            table, count, count == 1 ? "" : "s");
    return status;
}

static enum rf_status check_references(struct canon *canon, rf_canon_tell tell, void *user,
                                       struct rf_error *err)
{
    static const struct {
        const char *table, *column;
    } own[] = {{"refuge_parts", "parent"},       {"refuge_parts", "child"},
               {"refuge_needs", "blob"},         {"refuge_parks", "blob"},
               {"refuge_dead_letters", "blob"},  {"refuge_cuts", "blob"}};
    const struct rf_canon_mapper *mappers;
    size_t count;
    enum rf_status status = canon_mappers(&canon->base, &mappers, &count, err);

    for (size_t i = 0; status == RF_OK && i < sizeof own / sizeof *own; i++)
        status = check_items(canon, own[i].table, own[i].column, tell, user, err);
    for (size_t i = 0; status == RF_OK && i < count; i++)
        for (size_t k = 0; status == RF_OK && k < mappers[i].decl->table_count; k++)
            status = check_items(canon, mappers[i].decl->tables[k].name, "blob", tell, user, err);
    return status;
}

static enum rf_status canon_check(struct rf_canon *base, rf_canon_tell tell, void *user,
                                  struct rf_error *err)
{
    struct canon *canon = of(base);
    int64_t live = 0, strays = 0;
    enum rf_status status = RF_OK;

    /* First: a statement that fails below ends the transaction. */
    if (RF_SAFEGUARD("compare-objects"))
        status = check_objects(canon, tell, user, err);
    if (status == RF_OK)
        status = rf_pg_int(canon->pg, &live, 0, err,
                           "SELECT count(*) FROM refuge_lanes WHERE state = 'live'", "");
    if (status == RF_OK && live != 1)
        say(tell, user, RF_MEND_ANEW, "lanes: %" PRId64 " are live, should be 1", live);
    if (status == RF_OK)
        status = rf_pg_int(canon->pg, &strays, 0, err,
                           "SELECT count(*) FROM refuge_lane_mappers m WHERE NOT EXISTS (SELECT 1 "
                           "FROM refuge_lanes l WHERE l.id = m.lane)", "");
    if (status == RF_OK && strays)
        say(tell, user, RF_MEND_ANEW, "lanes: %" PRId64 " mappers of no lane", strays);
    return status == RF_OK ? check_references(canon, tell, user, err) : status;
}

/* ---- opening ---- */

static void canon_close(struct rf_canon *base)
{
    struct canon *canon = of(base);

    rf_pg_rows_free(canon->changes);
    rf_pg_close(canon->pg);
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

static bool poll_canon(void *user)
{
    return rf_canon_poll(user);
}

enum rf_status rf_postgres_canon(struct rf_canon **out, const char *rest, struct rf_error *err)
{
    struct canon *canon = calloc(1, sizeof *canon);
    enum rf_status status;

    if (!canon)
        return rf_error_set(err, RF_NOMEM, "no memory to read an index");
    canon->base.ops = &canon_ops;
    rf_arena_init(&canon->arena, 64u << 20);
    status = rf_postgres_connect(&canon->pg, rest, err);
    if (status == RF_OK)
        status = rf_postgres_check(canon->pg, err);
    if (status == RF_OK)
        status = rf_postgres_check_own(canon->pg, err);
    if (status == RF_OK)
        status = rf_pg_exec(canon->pg, err,
                            "CREATE TEMP TABLE live(id bigint PRIMARY KEY, name text COLLATE "
                            "\"C\", identity text, ordinal bigint);"
                            "CREATE TEMP TABLE left_out(item text COLLATE \"C\", mapper text "
                            "COLLATE \"C\", parked boolean, PRIMARY KEY(item, mapper));"
                            "CREATE TEMP TABLE beneath(item text COLLATE \"C\" PRIMARY KEY)");
    if (status == RF_OK)
        status = rf_pg_exec(canon->pg, err, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    if (status == RF_OK)
        status = rf_pg_exec(canon->pg, err,
                            "INSERT INTO pg_temp.live SELECT m.id, m.name, m.identity, m.ordinal "
                            "FROM refuge_lane_mappers m JOIN refuge_lanes l ON l.id = m.lane "
                            "WHERE l.state = 'live'");
    if (status != RF_OK) {
        canon_close(&canon->base);
        return status;
    }
    rf_pg_set_poll(canon->pg, poll_canon, &canon->base);
    *out = &canon->base;
    return RF_OK;
}
