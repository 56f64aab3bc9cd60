/*
 * postgres_lanes.c - generations of mappers side by side in one schema
 *
 *   (none) --begin--> live                                 the first lane of an index
 *   (none) --begin--> building --ready, swap--> gone       its mappers belong to the live lane now
 *                     building --drop--> dropping --> gone
 *
 * A swap is as in sqlite_lanes.c: mappers change their lane by one row each, tables change place by
 * renames, all in one transaction, so that readers see the old lane whole or the new one whole.
 *
 * What people built on a live table that goes is not lost: views over it are taken apart before and
 * made again on the new table, with owner, grants and comment, in the same transaction. Where that
 * cannot be (a materialised view, a foreign key, a trigger, a column that is gone) the swap is
 * refused and says what stands in the way. Nothing is dropped by CASCADE.
 *
 * A drop may be large, so it goes in steps and is taken up again at the next opening.
 */
#include "sinks/sink_postgres.h"

#include "core/control.h"
#include "sinks/table_names.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define DROP_SLICE 20000 /* rows of a table of refuge's own per transaction */
#define LANE_ARENA_MAX (64u << 20)

static const char *const owned_tables[] = {"refuge_needs",        "refuge_parks",
                                           "refuge_dead_letters", "refuge_cuts",
                                           "refuge_tables",       "refuge_parts"};
enum { OWNED_COUNT = sizeof owned_tables / sizeof *owned_tables };

/* ---- loading ---- */

static char *copy_text(struct rf_arena *arena, const struct rf_pg_rows *rows, size_t row,
                       int column)
{
    struct rf_bytes text = rf_pg_bytes_at(rows, row, column);

    return rf_arena_copy(arena, text.data, text.size);
}

static enum rf_status parse_decl(struct rf_decl **out, struct rf_arena *arena,
                                 const struct rf_pg_rows *rows, size_t row, int column,
                                 const char *name, struct rf_error *err)
{
    char *json = copy_text(arena, rows, row, column);
    enum rf_status status;

    if (!json)
        return rf_error_set(err, RF_NOMEM, "no memory for the declaration of mapper '%s'", name);
    status = rf_decl_parse(out, arena, rf_bytes(json, strlen(json)), err);
    if (status)
        status = rf_error_context(err, status, "the stored declaration of mapper '%s' is damaged",
                                  name);
    return status;
}

enum rf_status rf_postgres_damaged(struct rf_pg *pg, const char *what, struct rf_error *err)
{
    return rf_error_set(err, RF_UNSOUND,
                        "index '%s' is damaged: %s; remove it by 'refuge index drop' and make it "
                        "again",
                        rf_pg_name(pg), what);
}

#define MAPPERS_OF_LANE                                                                         \
    "SELECT l.id, l.name, l.identity, l.edges_only, m.declaration, m.bundle "                   \
    "FROM refuge_lane_mappers l LEFT JOIN refuge_mappers m USING(identity) "                    \
    "WHERE l.lane = $1 ORDER BY l.ordinal, l.id"

/* Every mapper of a lane has its text and declaration. */
static enum rf_status check_texts(struct rf_postgres *sink, const struct rf_pg_rows *mappers,
                                  struct rf_error *err)
{
    struct rf_buf names;
    char what[256];
    bool lacks;

    rf_buf_init(&names, 1 << 16);
    for (size_t row = 0; row < rf_pg_count(mappers); row++)
        if (rf_pg_is_null(mappers, row, 4))
            rf_buf_printf(&names, "%s%s", names.size ? ", " : "", rf_pg_text_at(mappers, row, 1));
    lacks = names.size > 0;
    if (lacks)
        snprintf(what, sizeof what, "table refuge_mappers lacks the text of %.200s",
                 rf_buf_text(&names));
    rf_buf_release(&names);
    return lacks ? rf_postgres_damaged(sink->pg, what, err) : RF_OK;
}

void rf_postgres_put_of_tables(struct rf_buf *out, const struct rf_pg_lane *lane, const char *what)
{
    const char *between = "";

    rf_buf_put_text(out, "ARRAY[");
    for (size_t i = 0; i < lane->mapper_count; i++) {
        const struct rf_pg_mapper *mapper = &lane->mappers[i];
        for (size_t k = 0; !mapper->edges_only && k < mapper->decl->table_count; k++) {
            rf_pg_put_sql(out, "%s(SELECT %s FROM \"%w\")", between, what,
                          mapper->tables[k].name);
            between = ", ";
        }
    }
    rf_buf_put_text(out, "]::bigint[]");
}

/* The highest item that each table of a lane has rows of. */
static enum rf_status find_tops(struct rf_postgres *sink, struct rf_pg_lane *lane,
                                struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    struct rf_error why = {0};
    struct rf_buf sql;
    size_t row = 0;
    enum rf_status status;

    rf_buf_init(&sql, 4 << 20);
    rf_buf_put_text(&sql, "SELECT * FROM unnest(");
    rf_postgres_put_of_tables(&sql, lane, "max(blob)");
    rf_buf_put_text(&sql, ")");
    status = rf_buf_text(&sql) ? rf_pg_query(sink->pg, &rows, &why, rf_buf_text(&sql), "")
                               : rf_error_set(&why, sql.failed, "a lane has too many tables");
    rf_buf_release(&sql);
    if (status)
        return rf_error_set(err, status, "%s%s%s%s", why.message,
                            status == RF_CORRUPT ? "; run 'refuge index rebuild" : "",
                            status == RF_CORRUPT ? sink->argument : "",
                            status == RF_CORRUPT ? "'" : "");
    for (size_t i = 0; i < lane->mapper_count; i++) {
        struct rf_pg_mapper *mapper = &lane->mappers[i];
        for (size_t k = 0; !mapper->edges_only && k < mapper->decl->table_count; k++) {
            mapper->tables[k].top = rf_pg_int_at(rows, row++, 0);
            if (mapper->tables[k].top > lane->top)
                lane->top = mapper->tables[k].top;
        }
    }
    rf_pg_rows_free(rows);
    return RF_OK;
}

/* The same of refuge's own tables, of all lanes together: to know it of each mapper would read them
 * whole. */
static enum rf_status find_own_top(struct rf_postgres *sink, struct rf_pg_lane *lane,
                                   struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    enum rf_status status = rf_pg_query(
        sink->pg, &rows, err,
        "SELECT (SELECT max(parent) FROM refuge_parts), greatest((SELECT max(blob) FROM "
        "refuge_needs), (SELECT max(blob) FROM refuge_parks), (SELECT max(blob) FROM "
        "refuge_dead_letters), (SELECT max(blob) FROM refuge_cuts))",
        "");

    for (int i = 0; !status && i < 2; i++)
        if (rf_pg_int_at(rows, 0, i) > lane->top)
            lane->top = rf_pg_int_at(rows, 0, i);
    for (size_t i = 0; !status && i < lane->mapper_count; i++)
        lane->mappers[i].has_edges = !rf_pg_is_null(rows, 0, 0);
    rf_pg_rows_free(rows);
    return status;
}

/* "\"mail\"(blob, n, \"subject\", ...)" for COPY. */
static void set_target(struct rf_arena *arena, struct rf_pg_table *table)
{
    const struct rf_table *decl = table->decl;
    struct rf_buf target;

    rf_buf_init(&target, 1 << 20);
    rf_pg_put_sql(&target, "\"%w\"(blob, n", table->name);
    table->columns = 2;
    for (size_t i = 0; i < decl->column_count; i++) {
        rf_pg_put_sql(&target, ", \"%w\"", decl->columns[i].name);
        table->columns++;
        if (decl->columns[i].type == RF_TYPE_TIME) {
            rf_pg_put_sql(&target, ", \"%w_offset\"", decl->columns[i].name);
            table->columns++;
        }
    }
    if (table->search_count) {
        rf_buf_put_text(&target, ", search");
        table->columns++;
    }
    rf_buf_put_text(&target, ")");
    table->target = rf_arena_copy(arena, target.data, target.size);
    rf_buf_release(&target);
}

/* made: of all tables of the lane its mapper, name and number. */
static void load_tables(struct rf_pg_lane *lane, struct rf_pg_mapper *mapper,
                        const struct rf_pg_rows *made)
{
    const struct rf_decl *decl = mapper->decl;

    mapper->tables = rf_arena_alloc(&lane->arena, (decl->table_count + 1) *
                                                      sizeof *mapper->tables);
    for (size_t i = 0; i < decl->table_count; i++) {
        struct rf_pg_table *table = &mapper->tables[i];
        char name[RF_POSTGRES_NAME];
        table->decl = &decl->tables[i];
        table->search_count = rf_postgres_search_count(table->decl);
        rf_postgres_table_name(name, table->decl, lane->id, lane->live);
        table->name = rf_arena_copy(&lane->arena, name, strlen(name));
        set_target(&lane->arena, table);
        rf_pg_rowset_init(&table->set);
        for (size_t row = 0; row < rf_pg_count(made); row++)
            if (rf_pg_int_at(made, row, 0) == mapper->id &&
                strcmp(rf_pg_text_at(made, row, 1), table->decl->name) == 0)
                table->id = rf_pg_int_at(made, row, 2);
    }
}

static enum rf_status take_mappers(struct rf_pg_lane *lane, const struct rf_pg_rows *rows,
                                   const struct rf_pg_rows *made, struct rf_error *err)
{
    size_t count = rf_pg_count(rows);
    struct rf_decl *decl;
    enum rf_status status = RF_OK;

    lane->mappers = rf_arena_alloc(&lane->arena, (count + 1) * sizeof *lane->mappers);
    lane->ids = rf_arena_alloc(&lane->arena, (count + 1) * sizeof *lane->ids);
    lane->calls = rf_arena_alloc(&lane->arena, (count + 1) * sizeof *lane->calls);
    for (size_t row = 0; !status && row < count; row++) {
        struct rf_pg_mapper *mapper = &lane->mappers[lane->mapper_count];
        mapper->id = lane->ids[row] = rf_pg_int_at(rows, row, 0);
        mapper->name = copy_text(&lane->arena, rows, row, 1);
        mapper->identity = copy_text(&lane->arena, rows, row, 2);
        mapper->edges_only = rf_pg_int_at(rows, row, 3) != 0;
        status = parse_decl(&decl, &lane->arena, rows, row, 4, mapper->name, err);
        if (status)
            break;
        mapper->decl = decl;
        lane->mapper_count++;
        load_tables(lane, mapper, made);
    }
    return status;
}

/* tops: with what a writer needs to know of the rows. */
static enum rf_status load_mappers(struct rf_postgres *sink, struct rf_pg_lane *lane, bool tops,
                                   struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL, *made = NULL;
    enum rf_status status =
        rf_pg_query(sink->pg, &rows, err, MAPPERS_OF_LANE, "i", (int64_t)lane->id);

    if (!status)
        status = check_texts(sink, rows, err);
    if (!status)
        status = rf_pg_query(sink->pg, &made, err,
                             "SELECT t.mapper, t.name, t.id FROM refuge_tables t JOIN "
                             "refuge_lane_mappers m ON m.id = t.mapper WHERE m.lane = $1",
                             "i", (int64_t)lane->id);
    if (!status)
        status = take_mappers(lane, rows, made, err);
    if (!status && tops)
        status = find_tops(sink, lane, err);
    if (!status && tops)
        status = find_own_top(sink, lane, err);
    rf_pg_rows_free(rows);
    rf_pg_rows_free(made);
    return status;
}

static void free_lane(struct rf_pg_lane *lane)
{
    for (size_t i = 0; i < lane->mapper_count; i++) {
        rf_ids_release(&lane->mappers[i].unmap);
        for (size_t k = 0; lane->mappers[i].tables && k < lane->mappers[i].decl->table_count; k++)
            rf_pg_rowset_release(&lane->mappers[i].tables[k].set);
    }
    rf_arena_release(&lane->arena);
    free(lane);
}

void rf_postgres_forget_lanes(struct rf_postgres *sink)
{
    while (sink->lanes) {
        struct rf_pg_lane *lane = sink->lanes;
        sink->lanes = lane->next;
        free_lane(lane);
    }
}

static enum rf_status load_lane(struct rf_postgres *sink, uint32_t id, bool tops,
                                struct rf_pg_lane **out, struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    struct rf_pg_lane *lane;
    enum rf_status status;

    status = rf_pg_query(sink->pg, &rows, err,
                         "SELECT id, state = 'live', \"full\" FROM refuge_lanes WHERE CASE WHEN $1 "
                         "= 0 THEN state = 'live' ELSE id = $1 AND state <> 'dropping' END "
                         "ORDER BY id",
                         "i", (int64_t)id);
    if (!status && !rf_pg_count(rows) && id)
        status = rf_error_set(err, RF_NOT_FOUND, "index '%s' has no lane %u", rf_pg_name(sink->pg),
                              (unsigned)id);
    else if (!status && !rf_pg_count(rows))
        status = rf_error_set(err, RF_NOT_FOUND, "index '%s' is empty: run 'refuge index run%s'",
                              rf_pg_name(sink->pg), sink->argument);
    if (status) {
        rf_pg_rows_free(rows);
        return status;
    }
    lane = calloc(1, sizeof *lane);
    if (!lane)
        abort();
    rf_arena_init(&lane->arena, LANE_ARENA_MAX);
    lane->id = (uint32_t)rf_pg_int_at(rows, 0, 0);
    lane->live = rf_pg_int_at(rows, 0, 1) != 0;
    lane->full = rf_pg_int_at(rows, 0, 2) != 0;
    rf_pg_rows_free(rows);
    status = load_mappers(sink, lane, tops, err);
    if (status) {
        free_lane(lane);
        return status;
    }
    *out = lane;
    return RF_OK;
}

enum rf_status rf_postgres_lane_get(struct rf_postgres *sink, uint32_t id, struct rf_pg_lane **out,
                                    struct rf_error *err)
{
    struct rf_pg_lane *lane = NULL;
    enum rf_status status;

    if (!sink->base.write) /* a reader's lanes change under it: it loads them anew each time */
        rf_postgres_forget_lanes(sink);
    for (lane = sink->lanes; lane; lane = lane->next) {
        if (id ? lane->id == id : lane->live) {
            *out = lane;
            return RF_OK;
        }
    }
    status = load_lane(sink, id, sink->base.write, &lane, err);
    if (!status) {
        assert(lane);
        lane->next = sink->lanes;
        sink->lanes = lane;
        *out = lane;
    }
    return status;
}

/* ---- the list ---- */

static enum rf_status list_mappers(struct rf_postgres *sink, struct rf_arena *arena,
                                   struct rf_sink_lane *lane, struct rf_error *err)
{
    struct rf_sink_mapper *mappers;
    struct rf_pg_rows *rows = NULL;
    enum rf_status status =
        rf_pg_query(sink->pg, &rows, err, MAPPERS_OF_LANE, "i", (int64_t)lane->id);

    if (!status)
        status = check_texts(sink, rows, err);
    mappers = rf_arena_alloc(arena, (rf_pg_count(rows) + 1) * sizeof *mappers);
    for (size_t row = 0; !status && row < rf_pg_count(rows); row++) {
        struct rf_sink_mapper *mapper = &mappers[row];
        struct rf_bytes bundle = rf_pg_bytes_at(rows, row, 5);
        struct rf_decl *decl = NULL;

        mapper->identity = copy_text(arena, rows, row, 2);
        mapper->edges_only = rf_pg_int_at(rows, row, 3) != 0;
        mapper->bundle = rf_bytes(rf_arena_copy(arena, bundle.data, bundle.size), bundle.size);
        status = mapper->bundle.data
                     ? parse_decl(&decl, arena, rows, row, 4, rf_pg_text_at(rows, row, 1), err)
                     : rf_error_set(err, RF_NOMEM, "no memory for the mappers of an index");
        mapper->decl = decl;
    }
    lane->mapper_count = rf_pg_count(rows);
    lane->mappers = mappers;
    rf_pg_rows_free(rows);
    return status;
}

static enum rf_status list_lanes(struct rf_postgres *sink, struct rf_arena *arena,
                                 struct rf_sink_lane **lanes, size_t *count, struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    struct rf_sink_lane *list;
    int64_t orphans = 0;
    enum rf_status status;

    status = rf_pg_query(sink->pg, &rows, err,
                         "SELECT id, state = 'live', \"full\", position, started FROM refuge_lanes "
                         "WHERE state <> 'dropping' ORDER BY state <> 'live', id",
                         "");
    list = rf_arena_alloc(arena, (rf_pg_count(rows) + 1) * sizeof *list);
    for (size_t row = 0; !status && row < rf_pg_count(rows); row++) {
        struct rf_sink_lane *lane = &list[row];
        lane->id = (uint32_t)rf_pg_int_at(rows, row, 0);
        lane->live = rf_pg_int_at(rows, row, 1) != 0;
        lane->full = rf_pg_int_at(rows, row, 2) != 0;
        snprintf(lane->position, sizeof lane->position, "%s", rf_pg_text_at(rows, row, 3));
        lane->started_us = rf_pg_time_at(rows, row, 4);
        status = list_mappers(sink, arena, lane, err);
    }
    if (!status)
        status = rf_pg_int(sink->pg, &orphans, 0, err,
                           "SELECT count(*) FROM refuge_lane_mappers WHERE lane NOT IN "
                           "(SELECT id FROM refuge_lanes)",
                           "");
    if (!status && orphans)
        status = rf_postgres_damaged(sink->pg, "table refuge_lanes lacks a lane that has mappers",
                                     err);
    if (!status) {
        *lanes = list;
        *count = rf_pg_count(rows);
    }
    rf_pg_rows_free(rows);
    return status;
}

enum rf_status rf_postgres_lanes(struct rf_sink *base, struct rf_arena *arena,
                                 struct rf_sink_lane **lanes, size_t *count, struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    bool held;
    enum rf_status status = rf_postgres_ask(sink, &held, err);

    if (!status)
        status = list_lanes(sink, arena, lanes, count, err);
    rf_postgres_let_go(sink, held);
    return status;
}

/* ---- what should be there ---- */

/* Make the table anew, and let its lane begin again: what it maps is written once more. */
static enum rf_status mend_table(struct rf_postgres *sink, struct rf_pg_lane *lane,
                                 const struct rf_pg_table *table, struct rf_error *err)
{
    struct rf_error why = {0};
    enum rf_status status = rf_pg_exec(sink->pg, err, "BEGIN");

    if (status)
        return status;
    status = rf_postgres_drop_table(sink, table->decl, lane->id, lane->live, &why);
    if (status)
        status = rf_error_set(err,
                              strcmp(rf_pg_state(sink->pg), "2BP01") == 0 ? RF_INVALID : status,
                              "table '%s' was changed behind refuge's back and cannot be made "
                              "anew: %s",
                              table->name, why.message);
    if (!status)
        status = rf_postgres_make_table(sink, table->id, table->decl, lane->id, lane->live, err);
    if (!status)
        status = rf_pg_exec(sink->pg, err,
                            "UPDATE refuge_tables SET indexed = 0 WHERE id = %lld; UPDATE "
                            "refuge_lanes SET position = '' WHERE id = %u",
                            (long long)table->id, (unsigned)lane->id);
    return rf_postgres_finish(sink, status, err);
}

static const struct rf_pg_table *find_table(const struct rf_pg_lane *lane, const char *name)
{
    for (size_t i = 0; i < lane->mapper_count; i++)
        for (size_t k = 0; !lane->mappers[i].edges_only && k < lane->mappers[i].decl->table_count;
             k++)
            if (strcmp(lane->mappers[i].tables[k].name, name) == 0)
                return &lane->mappers[i].tables[k];
    return NULL;
}

/* refuge's own tables: those that are missing, in words. */
enum rf_status rf_postgres_check_own(struct rf_pg *pg, struct rf_error *err)
{
    static const char *const own[] = {"blobs", "refuge_facts", "refuge_lanes", "refuge_mappers",
                                      "refuge_lane_mappers", "refuge_needs", "refuge_parks",
                                      "refuge_dead_letters", "refuge_cuts", "refuge_tables",
                                      "refuge_parts"};
    struct rf_pg_rows *rows = NULL;
    char what[300];
    enum rf_status status;

    status = rf_pg_query(pg, &rows, err,
                         "SELECT string_agg(name, ', ') FROM unnest($1) u(name) WHERE "
                         "to_regclass(name) IS NULL",
                         "T", own, sizeof own / sizeof *own);
    if (!status && !rf_pg_is_null(rows, 0, 0)) {
        snprintf(what, sizeof what, "table %.250s is not there", rf_pg_text_at(rows, 0, 0));
        status = rf_postgres_damaged(pg, what, err);
    }
    rf_pg_rows_free(rows);
    return status;
}

static enum rf_status check_lane(struct rf_postgres *sink, uint32_t id, bool mend,
                                 struct rf_error *err)
{
    struct rf_pg_rows *changes = NULL;
    struct rf_pg_lane *lane;
    enum rf_status status = load_lane(sink, id, false, &lane, err);

    if (status)
        return status;
    status = rf_postgres_lane_changes(sink, lane, &changes, err);
    if (!status && !mend)
        status = rf_postgres_tell_changes(sink, changes, err);
    for (size_t row = 0; !status && row < rf_pg_count(changes); row++)
        status = mend_table(sink, lane, find_table(lane, rf_pg_text_at(changes, row, 0)), err);
    rf_pg_rows_free(changes);
    free_lane(lane);
    return status;
}

enum rf_status rf_postgres_check_tables(struct rf_postgres *sink, bool mend, struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    enum rf_status status = rf_postgres_check_own(sink->pg, err);

    if (!status && mend)
        status = rf_postgres_mend_own(sink, err);
    if (!status)
        status = rf_pg_query(sink->pg, &rows, err,
                             "SELECT id FROM refuge_lanes WHERE state <> 'dropping'", "");
    for (size_t row = 0; !status && row < rf_pg_count(rows); row++)
        status = check_lane(sink, (uint32_t)rf_pg_int_at(rows, row, 0), mend, err);
    rf_pg_rows_free(rows);
    return status;
}

/* ---- begin ---- */

static bool names_mapper(const struct rf_sink_mapper *mappers, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!mappers[i].edges_only && strcmp(mappers[i].decl->name, name) == 0)
            return true;
    return false;
}

static enum rf_status check_names(const struct rf_pg_lane *live,
                                  const struct rf_sink_mapper *mappers, size_t count, bool full,
                                  struct rf_error *err)
{
    const struct rf_decl **decls = calloc(count + (live ? live->mapper_count : 0) + 1,
                                          sizeof *decls);
    size_t used = 0;
    enum rf_status status;

    if (!decls)
        abort();
    for (size_t i = 0; i < count; i++)
        if (!mappers[i].edges_only)
            decls[used++] = mappers[i].decl;
    for (size_t i = 0; live && !full && i < live->mapper_count; i++)
        if (!names_mapper(mappers, count, live->mappers[i].name))
            decls[used++] = live->mappers[i].decl;
    status = rf_table_names_check(decls, used, err);
    free(decls);
    return status;
}

static enum rf_status add_mapper(struct rf_postgres *sink, uint32_t lane, bool live,
                                 size_t ordinal, const struct rf_sink_mapper *mapper,
                                 struct rf_error *err)
{
    const struct rf_decl *decl = mapper->decl;
    int64_t id = 0, table_id;
    enum rf_status status;

    status = rf_pg_run(sink->pg, NULL, err,
                       "INSERT INTO refuge_mappers(identity, name, version, title, declaration, "
                       "bundle) VALUES($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                       "ttttbx", mapper->identity, decl->name, decl->version ? decl->version : "",
                       decl->title, decl->json,
                       mapper->bundle.data ? mapper->bundle : rf_bytes_text(""));
    if (!status)
        status = rf_pg_int(sink->pg, &id, 0, err,
                           "INSERT INTO refuge_lane_mappers(lane, ordinal, name, identity, "
                           "edges_only) VALUES($1, $2, $3, $4, $5::smallint) RETURNING id",
                           "iitti", (int64_t)lane, (int64_t)ordinal, decl->name, mapper->identity,
                           (int64_t)mapper->edges_only);
    for (size_t i = 0; !status && !mapper->edges_only && i < decl->table_count; i++) {
        const struct rf_table *table = &decl->tables[i];
        status = rf_pg_int(sink->pg, &table_id, 0, err,
                           "INSERT INTO refuge_tables(mapper, name, title, search) VALUES($1, $2, "
                           "$3, $4::smallint) RETURNING id",
                           "itti", id, table->name, table->title,
                           (int64_t)(rf_postgres_search_count(table) > 0));
        if (!status)
            status = rf_postgres_make_table(sink, table_id, table, lane, live, err);
    }
    return status;
}

enum rf_status rf_postgres_lane_begin(struct rf_sink *base, const struct rf_sink_mapper *mappers,
                                      size_t count, bool full, uint32_t *lane,
                                      struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_pg_lane *live = NULL;
    struct rf_error why = {0};
    int64_t id = 0;
    enum rf_status status = rf_postgres_ready(sink, err);

    if (!status)
        status = rf_pg_exec(sink->pg, err, "BEGIN");
    if (status)
        return status;
    status = rf_postgres_lane_get(sink, 0, &live, &why);
    if (status && status != RF_NOT_FOUND)
        rf_error_set(err, status, "%s", why.message);
    else
        status = check_names(live, mappers, count, full, err);
    if (!status)
        status = rf_pg_int(sink->pg, &id, 0, err,
                           "INSERT INTO refuge_lanes(state, \"full\", started) VALUES($1, "
                           "$2::smallint, $3) RETURNING id",
                           "tim", live ? "building" : "live", (int64_t)(full || !live),
                           rf_postgres_now());
    for (size_t i = 0; !status && i < count; i++)
        status = add_mapper(sink, (uint32_t)id, live == NULL, i, &mappers[i], err);
    status = rf_postgres_finish(sink, status, err);
    if (!status)
        *lane = (uint32_t)id;
    return status;
}

/* ---- ready ---- */

/* Whether the table still lacks what is made behind a first fill. */
static enum rf_status index_table(struct rf_postgres *sink, const struct rf_pg_table *table,
                                  struct rf_error *err)
{
    int64_t lacking;
    enum rf_status status;

    status = rf_pg_int(sink->pg, &lacking, 0, err,
                       "SELECT 1 FROM refuge_tables WHERE id = $1 AND indexed = 0", "i",
                       table->id);
    if (status || !lacking)
        return status;
    return rf_postgres_make_indexes(sink, table->id, table->decl, table->name, err);
}

static enum rf_status index_lane(struct rf_postgres *sink, const struct rf_pg_lane *lane,
                                 struct rf_error *err)
{
    int64_t lacking = 0;
    enum rf_status status;

    status = rf_pg_int(sink->pg, &lacking, 0, err,
                       "SELECT 1 FROM refuge_tables WHERE mapper = ANY($1) AND indexed = 0 LIMIT "
                       "1", "I", lane->ids, lane->mapper_count);
    for (size_t i = 0; !status && lacking && i < lane->mapper_count; i++)
        for (size_t k = 0; !status && !lane->mappers[i].edges_only &&
                           k < lane->mappers[i].decl->table_count; k++)
            status = index_table(sink, &lane->mappers[i].tables[k], err);
    return status;
}

enum rf_status rf_postgres_lane_ready(struct rf_sink *base, uint32_t id, struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_pg_lane *lane = NULL;
    enum rf_status status = rf_postgres_ready(sink, err);

    if (!status)
        status = rf_postgres_lane_get(sink, id, &lane, err);
    return status ? status : index_lane(sink, lane, err); /* each table by itself: a crash costs
                                                           * the one at hand */
}

/* ---- what people built on live tables ---- */

/* Statements that make again what was taken away, in order. */
struct keepsakes {
    struct rf_buf sql;
    struct rf_buf drops;
};

/* Views over the tables of oids $1 (our own "<table>_latest" left out), the deepest last. */
#define VIEWS                                                                                   \
    "WITH RECURSIVE over(oid, depth) AS (SELECT unnest($1), 0 UNION SELECT r.ev_class::bigint, " \
    "o.depth + 1 FROM over o JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND "       \
    "d.refobjid = o.oid::oid AND d.classid = 'pg_rewrite'::regclass JOIN pg_rewrite r ON r.oid " \
    "= d.objid AND r.ev_class <> d.refobjid WHERE o.depth < 50), "                                \
    "views AS (SELECT oid, max(depth) AS depth FROM over WHERE depth > 0 GROUP BY oid) "

static enum rf_status keep_views(struct rf_postgres *sink, const struct rf_ids *tables,
                                 struct keepsakes *kept, struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    enum rf_status status;

    status = rf_pg_query(
        sink->pg, &rows, err,
        VIEWS
        "SELECT format('%I.%I', n.nspname, c.relname), c.relkind::text, pg_get_viewdef(c.oid), "
        "pg_get_userbyid(c.relowner)::text, obj_description(c.oid, 'pg_class'), "
        "array_to_string(c.reloptions, ', '), (SELECT string_agg(format('GRANT %s ON %I.%I TO "
        "%s%s', a.privilege_type, n.nspname, c.relname, CASE WHEN a.grantee = 0 THEN 'PUBLIC' "
        "ELSE quote_ident(pg_get_userbyid(a.grantee)) END, CASE WHEN a.is_grantable THEN ' WITH "
        "GRANT OPTION' ELSE '' END), '; ') FROM aclexplode(c.relacl) a WHERE a.grantee <> "
        "c.relowner) FROM views v JOIN pg_class c ON c.oid = v.oid::oid JOIN pg_namespace n ON "
        "n.oid = c.relnamespace WHERE c.relkind = 'v' AND NOT (n.nspname = $2 AND "
        "coalesce(obj_description(c.oid, 'pg_class'), '') LIKE '% (refuge)') ORDER BY v.depth, 1",
        "It", tables->items, tables->count, rf_pg_schema(sink->pg));
    for (size_t row = 0; row < rf_pg_count(rows); row++) {
        const char *name = rf_pg_text_at(rows, row, 0);
        const char *options = rf_pg_text_at(rows, row, 5);
        rf_pg_put_sql(&kept->sql, "CREATE VIEW %s%s%s%s AS %s\n", name, options[0] ? " WITH (" : "",
                      options, options[0] ? ")" : "", rf_pg_text_at(rows, row, 2));
        rf_pg_put_sql(&kept->sql, ";ALTER VIEW %s OWNER TO \"%w\";\n", name,
                      rf_pg_text_at(rows, row, 3));
        if (!rf_pg_is_null(rows, row, 4))
            rf_pg_put_sql(&kept->sql, "COMMENT ON VIEW %s IS %Q;\n", name,
                          rf_pg_text_at(rows, row, 4));
        if (!rf_pg_is_null(rows, row, 6))
            rf_pg_put_sql(&kept->sql, "%s;\n", rf_pg_text_at(rows, row, 6));
    }
    for (size_t row = rf_pg_count(rows); row-- > 0;)
        rf_pg_put_sql(&kept->drops, "DROP VIEW %s;\n", rf_pg_text_at(rows, row, 0));
    rf_pg_rows_free(rows);
    return status;
}

/* Rights on the tables themselves: the new ones get them by the same names. */
static enum rf_status keep_grants(struct rf_postgres *sink, const struct rf_ids *tables,
                                  struct keepsakes *kept, struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    enum rf_status status;

    status = rf_pg_query(
        sink->pg, &rows, err,
        "SELECT format('DO $refuge$ BEGIN IF to_regclass(%L) IS NOT NULL THEN GRANT %s ON %I.%I TO "
        "%s%s; END IF; END $refuge$', format('%I.%I', n.nspname, c.relname), a.privilege_type, "
        "n.nspname, c.relname, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE "
        "quote_ident(pg_get_userbyid(a.grantee)) END, CASE WHEN a.is_grantable THEN ' WITH GRANT "
        "OPTION' ELSE '' END) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, "
        "aclexplode(c.relacl) a WHERE c.oid::bigint = ANY($1) AND a.grantee <> c.relowner",
        "I", tables->items, tables->count);
    for (size_t row = 0; row < rf_pg_count(rows); row++)
        rf_pg_put_sql(&kept->sql, "%s;\n", rf_pg_text_at(rows, row, 0));
    rf_pg_rows_free(rows);
    return status;
}

/* What a table takes with it when it goes, without a word from the server. */
static enum rf_status refuse_triggers(struct rf_postgres *sink, const struct rf_ids *tables,
                                      struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    enum rf_status status;

    status = rf_pg_query(sink->pg, &rows, err,
                         "SELECT 'trigger ' || tgname || ' on ' || tgrelid::regclass::text FROM "
                         "pg_trigger WHERE tgrelid::bigint = ANY($1) AND NOT tgisinternal UNION "
                         "ALL SELECT 'policy ' || polname || ' on ' || polrelid::regclass::text "
                         "FROM pg_policy WHERE polrelid::bigint = ANY($1)",
                         "I", tables->items, tables->count);
    if (!status && rf_pg_count(rows))
        status = rf_error_set(err, RF_INVALID,
                              "cannot replace tables of index '%s': %s would be lost; drop it "
                              "first and make it again",
                              rf_pg_name(sink->pg), rf_pg_text_at(rows, 0, 0));
    rf_pg_rows_free(rows);
    return status;
}

static enum rf_status take_apart(struct rf_postgres *sink, const struct rf_ids *tables,
                                 struct keepsakes *kept, struct rf_error *err)
{
    enum rf_status status = refuse_triggers(sink, tables, err);

    if (!status)
        status = keep_views(sink, tables, kept, err);
    if (!status)
        status = keep_grants(sink, tables, kept, err);
    if (!status && kept->drops.size)
        status = rf_pg_exec(sink->pg, err, "%s", rf_buf_text(&kept->drops));
    return status;
}

/* Words of a refusal that a dependant is the cause of. */
static enum rf_status in_the_way(struct rf_postgres *sink, enum rf_status status,
                                 const struct rf_error *why, struct rf_error *err)
{
    if (strcmp(rf_pg_state(sink->pg), "2BP01") == 0)
        return rf_error_set(err, RF_INVALID,
                            "cannot replace tables of %s; drop what depends on them and make it "
                            "again afterwards",
                            why->message);
    return rf_error_set(err, status, "%s", why->message);
}

static enum rf_status make_again(struct rf_postgres *sink, struct keepsakes *kept,
                                 struct rf_error *err)
{
    struct rf_error why = {0};
    enum rf_status status;

    if (!kept->sql.size)
        return RF_OK;
    status = rf_pg_exec(sink->pg, &why, "%s", rf_buf_text(&kept->sql));
    if (status == RF_UNAVAILABLE)
        return rf_error_set(err, status, "%s", why.message);
    if (status)
        return rf_error_set(err, RF_INVALID,
                            "cannot replace tables: a view over them cannot be made again: %s; "
                            "change or drop the view first",
                            why.message);
    return RF_OK;
}

/* ---- swap ---- */

static bool named(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static const struct rf_pg_mapper *find_own(const struct rf_pg_lane *lane, const char *name)
{
    for (size_t i = 0; i < lane->mapper_count; i++)
        if (!lane->mappers[i].edges_only && strcmp(lane->mappers[i].name, name) == 0)
            return &lane->mappers[i];
    return NULL;
}

struct swap {
    struct rf_pg_lane *live, *lane;
    const char *const *removed;
    size_t removed_count;
    struct keepsakes kept;
};

static bool is_replaced(const struct swap *swap, const struct rf_pg_mapper *mapper)
{
    return swap->lane->full || named(swap->removed, swap->removed_count, mapper->name) ||
           find_own(swap->lane, mapper->name);
}

static enum rf_status mark_dying(struct rf_postgres *sink, int64_t id, struct rf_error *err)
{
    return rf_pg_exec(sink->pg, err, "INSERT INTO pg_temp.refuge_dying(id) VALUES(%lld)",
                      (long long)id);
}

static enum rf_status find_dying_tables(struct rf_postgres *sink, const struct swap *swap,
                                        struct rf_ids *out, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < swap->live->mapper_count; i++) {
        const struct rf_pg_mapper *mapper = &swap->live->mappers[i];
        for (size_t k = 0; !status && is_replaced(swap, mapper) && k < mapper->decl->table_count;
             k++) {
            int64_t oid = 0;
            status = rf_pg_int(sink->pg, &oid, 0, err, "SELECT to_regclass(quote_ident($1))::oid",
                               "t", mapper->tables[k].name);
            if (oid)
                rf_ids_put(out, oid);
        }
    }
    return status;
}

/* Replaced and removed mappers of the live lane, with their tables; helpers of the other lane. */
static enum rf_status bury(struct rf_postgres *sink, struct swap *swap, struct rf_error *err)
{
    struct rf_ids tables = {0};
    enum rf_status status = rf_pg_exec(sink->pg, err, "DELETE FROM pg_temp.refuge_dying");

    if (!status)
        status = find_dying_tables(sink, swap, &tables, err);
    if (!status && tables.count)
        status = take_apart(sink, &tables, &swap->kept, err);
    rf_ids_release(&tables);
    for (size_t i = 0; !status && i < swap->live->mapper_count; i++) {
        const struct rf_pg_mapper *mapper = &swap->live->mappers[i];
        struct rf_error why = {0};
        if (!is_replaced(swap, mapper))
            continue;
        status = mark_dying(sink, mapper->id, err);
        for (size_t k = 0; !status && k < mapper->decl->table_count; k++)
            status = rf_postgres_drop_table(sink, mapper->tables[k].decl, swap->live->id, true,
                                            &why);
        if (why.status)
            status = in_the_way(sink, status, &why, err);
    }
    for (size_t i = 0; !status && i < swap->lane->mapper_count; i++)
        if (swap->lane->mappers[i].edges_only)
            status = mark_dying(sink, swap->lane->mappers[i].id, err);
    return status;
}

/* Parts that lose their last edge of what will be the live lane. */
static enum rf_status note_orphans(struct rf_postgres *sink, const struct swap *swap,
                                   struct rf_error *err)
{
    return rf_pg_run(sink->pg, NULL, err,
                     "INSERT INTO pg_temp.refuge_orphans SELECT DISTINCT child FROM refuge_parts p "
                     "WHERE mapper IN (SELECT id FROM pg_temp.refuge_dying) AND NOT EXISTS (SELECT "
                     "1 FROM refuge_parts q JOIN refuge_lane_mappers m ON m.id = q.mapper WHERE "
                     "q.child = p.child AND m.lane IN ($1, $2) AND m.id NOT IN (SELECT id FROM "
                     "pg_temp.refuge_dying)) ON CONFLICT DO NOTHING",
                     "ii", (int64_t)swap->live->id, (int64_t)swap->lane->id);
}

/* As in sqlite_lanes.c: what a splitter cut in the live lane alone waits for the mappers that the
 * lane brings. */
static enum rf_status park_missed(struct rf_postgres *sink, const struct swap *swap,
                                  struct rf_error *err)
{
    bool any = false;

    for (size_t i = 0; i < swap->lane->mapper_count; i++)
        any |= swap->lane->mappers[i].edges_only;
    if (!any)
        return RF_OK;
    return rf_pg_run(sink->pg, NULL, err,
                     "INSERT INTO refuge_parks(mapper, blob, kind, reason, attempts, at) SELECT "
                     "n.id, e.child, 'ready', 'its part was not cut while this version was built', "
                     "0, $3 FROM refuge_lane_mappers n, (SELECT DISTINCT p.child FROM refuge_parts "
                     "p WHERE p.mapper IN (SELECT id FROM refuge_lane_mappers WHERE lane = $1 AND "
                     "name IN (SELECT name FROM refuge_lane_mappers WHERE lane = $2 AND edges_only "
                     "<> 0)) AND NOT EXISTS (SELECT 1 FROM refuge_parts q JOIN refuge_lane_mappers "
                     "m ON m.id = q.mapper WHERE q.child = p.child AND m.lane = $2)) e WHERE "
                     "n.lane = $2 AND n.edges_only = 0 ORDER BY e.child ON CONFLICT DO NOTHING",
                     "iim", (int64_t)swap->live->id, (int64_t)swap->lane->id, rf_postgres_now());
}

static enum rf_status delete_dying(struct rf_postgres *sink, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < OWNED_COUNT; i++)
        status = rf_pg_exec(sink->pg, err,
                            "DELETE FROM \"%w\" WHERE mapper IN (SELECT id FROM "
                            "pg_temp.refuge_dying)",
                            owned_tables[i]);
    if (!status)
        status = rf_pg_exec(sink->pg, err,
                            "DELETE FROM refuge_lane_mappers WHERE id IN (SELECT id FROM "
                            "pg_temp.refuge_dying); DELETE FROM pg_temp.refuge_dying");
    return status;
}

/* A replaced mapper leaves its place in the order to the new one; a new one comes last. */
static enum rf_status raise_mapper(struct rf_postgres *sink, const struct swap *swap, size_t index,
                                   struct rf_error *err)
{
    const struct rf_pg_mapper *mapper = &swap->lane->mappers[index];
    size_t ordinal = swap->lane->full ? index : swap->live->mapper_count + index;
    enum rf_status status;

    for (size_t i = 0; !swap->lane->full && i < swap->live->mapper_count; i++)
        if (strcmp(swap->live->mappers[i].name, mapper->name) == 0)
            ordinal = i;
    status = rf_pg_exec(sink->pg, err,
                        "UPDATE refuge_lane_mappers SET lane = %u, ordinal = %zu WHERE id = %lld",
                        (unsigned)swap->live->id, ordinal, (long long)mapper->id);
    for (size_t i = 0; !status && i < mapper->decl->table_count; i++)
        status = rf_postgres_raise_table(sink, mapper->tables[i].decl, swap->lane->id, err);
    return status;
}

static enum rf_status forget_texts(struct rf_postgres *sink, struct rf_error *err)
{
    return rf_pg_exec(sink->pg, err,
                      "DELETE FROM refuge_mappers WHERE identity NOT IN "
                      "(SELECT identity FROM refuge_lane_mappers)");
}

/* Ordinals of the live lane from 0 without gaps, so that the next swap can count on them. */
static enum rf_status renumber(struct rf_postgres *sink, uint32_t live, struct rf_error *err)
{
    return rf_pg_exec(sink->pg, err,
                      "UPDATE refuge_lane_mappers SET ordinal = r.place FROM (SELECT id, "
                      "row_number() OVER (ORDER BY ordinal, id) - 1 AS place FROM "
                      "refuge_lane_mappers WHERE lane = %u) r WHERE r.id = refuge_lane_mappers.id",
                      (unsigned)live);
}

/* A full lane knows nothing of items whose latest change it could not read; what it lost is what
 * the live lane has lost from now on. */
static enum rf_status forget_lost(struct rf_postgres *sink, const struct swap *swap,
                                  struct rf_error *err)
{
    int64_t old = swap->live->id, new = swap->lane->id;
    enum rf_status status;

    if (!swap->lane->full || !RF_SAFEGUARD("sink-forgets-lost"))
        return RF_OK;
    status = rf_pg_run(sink->pg, NULL, err,
                       "DELETE FROM blobs WHERE kind <> 'part' AND EXISTS (SELECT 1 FROM "
                       "refuge_facts WHERE refuge_facts." RF_POSTGRES_LOST_OF " AND blobs.seq "
                       "BETWEEN " RF_POSTGRES_LOST_FIRST " AND value::bigint)",
                       "i", new);
    if (!status)
        status = rf_pg_run(sink->pg, NULL, err,
                           "DELETE FROM refuge_facts WHERE " RF_POSTGRES_LOST_OF, "i", old);
    return status ? status
                  : rf_pg_run(sink->pg, NULL, err,
                              "UPDATE refuge_facts SET name = 'lost:' || $2::bigint || ':' || "
                              RF_POSTGRES_LOST_FIRST " WHERE " RF_POSTGRES_LOST_OF,
                              "ii", new, old);
}

static enum rf_status swap_in(struct rf_postgres *sink, struct swap *swap, struct rf_error *err)
{
    const struct rf_pg_lane *lane = swap->lane;
    enum rf_status status = index_lane(sink, lane, err);

    if (!status)
        status = bury(sink, swap, err);
    if (!status)
        status = note_orphans(sink, swap, err);
    if (!status && RF_SAFEGUARD("sink-missed-parts"))
        status = park_missed(sink, swap, err);
    if (!status)
        status = delete_dying(sink, err);
    if (!status)
        status = forget_lost(sink, swap, err);
    for (size_t i = 0; !status && i < lane->mapper_count; i++)
        if (!lane->mappers[i].edges_only)
            status = raise_mapper(sink, swap, i, err);
    if (!status)
        status = rf_pg_exec(sink->pg, err, "DELETE FROM refuge_lanes WHERE id = %u",
                            (unsigned)lane->id);
    if (!status)
        status = renumber(sink, swap->live->id, err);
    return status ? status : forget_texts(sink, err);
}

static enum rf_status check_positions(struct rf_postgres *sink, const struct swap *swap,
                                      struct rf_error *err)
{
    int64_t equal;
    enum rf_status status;

    status = rf_pg_int(sink->pg, &equal, 0, err,
                       "SELECT (SELECT position FROM refuge_lanes WHERE id = $1) = "
                       "(SELECT position FROM refuge_lanes WHERE id = $2)",
                       "ii", (int64_t)swap->live->id, (int64_t)swap->lane->id);
    if (!status && !equal && RF_SAFEGUARD("sink-swap-position"))
        status = rf_error_set(err, RF_DENIED,
                              "cannot swap lane %u of index '%s': it does not stand where the live "
                              "lane stands",
                              (unsigned)swap->lane->id, rf_pg_name(sink->pg));
    return status;
}

static enum rf_status find_lanes(struct rf_postgres *sink, uint32_t id, struct swap *swap,
                                 struct rf_error *err)
{
    enum rf_status status = rf_postgres_lane_get(sink, 0, &swap->live, err);

    if (!status)
        status = rf_postgres_lane_get(sink, id, &swap->lane, err);
    assert(status || (swap->live && swap->lane));
    if (!status && swap->lane == swap->live)
        status = rf_error_set(err, RF_INVALID, "lane %u of index '%s' is live already",
                              (unsigned)id, rf_pg_name(sink->pg));
    return status ? status : check_positions(sink, swap, err);
}

enum rf_status rf_postgres_lane_swap(struct rf_sink *base, uint32_t id, const char *const *removed,
                                     size_t removed_count, struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct swap swap = {.removed = removed, .removed_count = removed_count};
    enum rf_status status = rf_postgres_ready(sink, err);

    if (!status)
        status = rf_pg_exec(sink->pg, err, "BEGIN");
    if (status)
        return status;
    rf_buf_init(&swap.kept.sql, 16 << 20);
    rf_buf_init(&swap.kept.drops, 16 << 20);
    status = find_lanes(sink, id, &swap, err);
    if (!status)
        status = swap_in(sink, &swap, err);
    if (!status) {
        rf_postgres_forget_lanes(sink);
        status = rf_postgres_lane_get(sink, 0, &swap.live, err);
    }
    if (!status)
        status = rf_postgres_collect_orphans(sink, swap.live, err);
    if (!status)
        status = make_again(sink, &swap.kept, err);
    status = rf_postgres_finish(sink, status, err);
    if (status)
        rf_postgres_forget_lanes(sink);
    rf_buf_release(&swap.kept.sql);
    rf_buf_release(&swap.kept.drops);
    return status;
}

/* ---- drop ---- */

static enum rf_status drop_tables(struct rf_postgres *sink, uint32_t id, struct rf_error *err)
{
    struct rf_arena arena;
    struct rf_pg_rows *rows = NULL;
    enum rf_status status = rf_pg_query(sink->pg, &rows, err, MAPPERS_OF_LANE, "i", (int64_t)id);

    rf_arena_init(&arena, LANE_ARENA_MAX);
    for (size_t row = 0; !status && row < rf_pg_count(rows); row++) {
        struct rf_decl *decl = NULL;
        if (rf_pg_int_at(rows, row, 3) != 0 || rf_pg_is_null(rows, row, 4))
            continue;
        status = parse_decl(&decl, &arena, rows, row, 4, rf_pg_text_at(rows, row, 1), err);
        for (size_t k = 0; !status && k < decl->table_count; k++)
            status = rf_postgres_drop_table(sink, &decl->tables[k], id, false, err);
    }
    rf_pg_rows_free(rows);
    rf_arena_release(&arena);
    return status;
}

/* Cut by the place of rows, in slices. */
static enum rf_status drop_owned(struct rf_postgres *sink, uint32_t id, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < OWNED_COUNT; i++) {
        int64_t changes = 0;
        char sql[300];
        snprintf(sql, sizeof sql,
                 "DELETE FROM %s WHERE ctid = ANY(ARRAY(SELECT ctid FROM %s WHERE mapper IN "
                 "(SELECT id FROM refuge_lane_mappers WHERE lane = $1) LIMIT %d))",
                 owned_tables[i], owned_tables[i], DROP_SLICE);
        do
            status = rf_pg_run(sink->pg, &changes, err, sql, "i", (int64_t)id);
        while (!status && changes == DROP_SLICE);
    }
    return status;
}

static enum rf_status drop_rest(struct rf_postgres *sink, uint32_t id, struct rf_error *err)
{
    enum rf_status status = rf_pg_exec(sink->pg, err, "BEGIN");

    if (status)
        return status;
    status = rf_pg_exec(sink->pg, err,
                        "DELETE FROM blobs WHERE kind = 'part' AND NOT EXISTS "
                        "(SELECT 1 FROM refuge_parts WHERE child = blobs.id);"
                        "DELETE FROM refuge_lane_mappers WHERE lane = %u;"
                        "DELETE FROM refuge_lanes WHERE id = %u;",
                        (unsigned)id, (unsigned)id);
    if (!status)
        status = rf_pg_run(sink->pg, NULL, err,
                           "DELETE FROM refuge_facts WHERE " RF_POSTGRES_LOST_OF, "i",
                           (int64_t)id);
    if (!status)
        status = forget_texts(sink, err);
    return rf_postgres_finish(sink, status, err);
}

static enum rf_status drop_marked(struct rf_postgres *sink, uint32_t id, struct rf_error *err)
{
    enum rf_status status = drop_tables(sink, id, err);

    if (!status)
        status = drop_owned(sink, id, err);
    return status ? status : drop_rest(sink, id, err);
}

enum rf_status rf_postgres_lane_drop(struct rf_sink *base, uint32_t id, struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    int64_t changed = 0;
    enum rf_status status = rf_postgres_ready(sink, err);

    if (!status)
        status = rf_pg_run(sink->pg, &changed, err,
                           "UPDATE refuge_lanes SET state = 'dropping' WHERE id = $1 AND state = "
                           "'building'",
                           "i", (int64_t)id);
    if (status)
        return status;
    if (!changed)
        return rf_error_set(err, RF_NOT_FOUND,
                            "cannot drop lane %u of index '%s': there is no such lane beside the "
                            "live one",
                            (unsigned)id, rf_pg_name(sink->pg));
    rf_postgres_forget_lanes(sink);
    return drop_marked(sink, id, err);
}

enum rf_status rf_postgres_finish_drops(struct rf_postgres *sink, struct rf_error *err)
{
    int64_t id;
    enum rf_status status;

    do {
        status = rf_pg_int(sink->pg, &id, 0, err,
                           "SELECT id FROM refuge_lanes WHERE state = 'dropping' LIMIT 1", "");
        if (!status && id)
            status = drop_marked(sink, (uint32_t)id, err);
    } while (!status && id);
    return status;
}
