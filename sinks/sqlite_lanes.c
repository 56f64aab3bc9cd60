/*
 * sqlite_lanes.c - generations of mappers side by side in one file
 *
 *   (none) --begin--> live                    the first lane of an index
 *   (none) --begin--> building --swap--> gone its mappers belong to the live lane now
 *                     building --drop--> dropping --> gone
 *
 * A swap keeps the live lane's id and position and moves mappers into it: everything but the mapper
 * tables hangs on refuge_lane_mappers.id, so re-stamping one row per mapper carries its edges,
 * needs, parks and dead letters over, and those of the mappers it replaces are deleted by one
 * statement a table. Mapper tables change place by renames under legacy_alter_table (else a rename
 * would rewrite every view that names the table); all of it is one transaction, so readers see the
 * old lane whole or the new one whole. A mapper that ran along for its edges only loses them: they
 * equal the live ones. Parts that only a replaced mapper reached are removed last.
 *
 * A drop may be large, so it goes in steps and is taken up again at the next opening.
 */
#include "sinks/sink_sqlite.h"

#include "core/control.h"
#include "sinks/table_names.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define FTS_HASH_ALL (16u << 20) /* bytes of all full-text tables' write buffers together */
#define FTS_HASH_MIN (1u << 20)
#define DROP_SLICE 20000         /* rows of a bookkeeping table per transaction */
#define LANE_ARENA_MAX (64u << 20)

static const char *const owned_tables[] = {"refuge_needs",        "refuge_parks",
                                           "refuge_dead_letters", "refuge_cuts",
                                           "refuge_tables",       "refuge_parts"};
enum { OWNED_COUNT = sizeof owned_tables / sizeof *owned_tables };

static struct rf_sqlite *of(struct rf_sink *sink)
{
    return (struct rf_sqlite *)sink;
}

/* End a transaction: commit when all went well. */
static enum rf_status finish(struct rf_db *db, enum rf_status status, struct rf_error *err)
{
    if (!status)
        status = rf_db_exec(db, err, "COMMIT");
    if (status && !sqlite3_get_autocommit(db->handle))
        sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

/* ---- loading ---- */

static char *copy_text(struct rf_arena *arena, sqlite3_stmt *stmt, int column)
{
    struct rf_bytes text = rf_db_bytes(stmt, column);

    return rf_arena_copy(arena, text.data, text.size);
}

static enum rf_status parse_decl(struct rf_decl **out, struct rf_arena *arena, sqlite3_stmt *stmt,
                                 int column, const char *name, struct rf_error *err)
{
    struct rf_bytes text = rf_db_bytes(stmt, column);
    char *json = rf_arena_copy(arena, text.data, text.size);
    enum rf_status status;

    if (!json)
        return rf_error_set(err, RF_NOMEM, "no memory for the declaration of mapper '%s'", name);
    status = rf_decl_parse(out, arena, rf_bytes(json, text.size), err);
    if (status)
        status = rf_error_context(err, status, "the stored declaration of mapper '%s' is damaged",
                                  name);
    return status;
}

/* Every mapper of a lane has its text and declaration. */
static enum rf_status check_texts(struct rf_db *db, uint32_t lane, struct rf_error *err)
{
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    status = rf_db_prepare(db, &stmt, err,
                           "SELECT group_concat(name, ', ') FROM refuge_lane_mappers WHERE lane = "
                           "%lld AND identity NOT IN (SELECT identity FROM refuge_mappers)",
                           (long long)lane);
    if (!status)
        status = rf_db_step(db, stmt, err);
    if (!status && sqlite3_column_type(stmt, 0) != SQLITE_NULL)
        status = rf_db_damaged(db, err, "table refuge_mappers lacks the text of %.200s",
                               rf_db_text(stmt, 0));
    sqlite3_finalize(stmt);
    return status;
}

/* Every mapper has its lane and every table its mapper; without a lane there is no table. */
static enum rf_status check_owners(struct rf_db *db, struct rf_error *err)
{
    static const struct {
        const char *query, *words;
    } checks[] = {
        {"SELECT group_concat(DISTINCT name) FROM refuge_lane_mappers WHERE lane NOT IN "
         "(SELECT id FROM refuge_lanes)",
         "table refuge_lanes lacks the lane of mapper"},
        {"SELECT group_concat(DISTINCT name) FROM refuge_tables WHERE mapper NOT IN "
         "(SELECT id FROM refuge_lane_mappers)",
         "table refuge_lane_mappers lacks the mapper of table"},
        {"SELECT group_concat(name) FROM sqlite_schema WHERE type = 'table' AND "
         "name NOT GLOB 'refuge_*' AND name NOT GLOB 'sqlite_*' AND "
         "name <> 'blobs' AND NOT EXISTS (SELECT 1 FROM refuge_lanes)",
         "table refuge_lanes lacks the lane of table"},
    };
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < sizeof checks / sizeof *checks; i++) {
        sqlite3_stmt *stmt = NULL;

        status = rf_db_prepare(db, &stmt, err, "%s", checks[i].query);
        if (!status)
            status = rf_db_step(db, stmt, err);
        if (!status && sqlite3_column_type(stmt, 0) != SQLITE_NULL)
            status = rf_db_damaged(db, err, "%s %.200s", checks[i].words, rf_db_text(stmt, 0));
        sqlite3_finalize(stmt);
    }
    return status;
}

static enum rf_status max_of(struct rf_sqlite *sink, const char *table, const char *column,
                             int64_t mapper, int64_t *top, struct rf_error *err)
{
    int64_t found;
    enum rf_status status;

    if (mapper)
        status = rf_db_int(&sink->db, &found, 0, err,
                           "SELECT max(\"%w\") FROM \"%w\" WHERE mapper = %lld", column, table,
                           (long long)mapper);
    else
        status = rf_db_int(&sink->db, &found, 0, err, "SELECT max(\"%w\") FROM \"%w\"", column,
                           table);
    if (!status && found > *top)
        *top = found;
    return status;
}

static enum rf_status find_top(struct rf_sqlite *sink, struct rf_sqlite_mapper *mapper,
                               struct rf_error *err)
{
    enum rf_status status = max_of(sink, "refuge_parts", "parent", mapper->id, &mapper->top, err);

    mapper->has_edges = mapper->top > 0;
    if (!status)
        status = max_of(sink, "refuge_needs", "blob", mapper->id, &mapper->top, err);
    if (!status)
        status = max_of(sink, "refuge_parks", "blob", mapper->id, &mapper->top, err);
    if (!status)
        status = max_of(sink, "refuge_dead_letters", "blob", mapper->id, &mapper->top, err);
    if (!status)
        status = max_of(sink, "refuge_cuts", "blob", mapper->id, &mapper->top, err);
    for (size_t i = 0; !status && !mapper->edges_only && i < mapper->decl->table_count; i++)
        status = max_of(sink, mapper->tables[i].name, "blob", 0, &mapper->top, err);
    return status;
}

static enum rf_status load_mapper(struct rf_sqlite *sink, struct rf_sqlite_lane *lane,
                                  struct rf_sqlite_mapper *mapper, sqlite3_stmt *stmt,
                                  struct rf_error *err)
{
    struct rf_decl *decl;
    enum rf_status status;

    mapper->id = sqlite3_column_int64(stmt, 0);
    mapper->name = copy_text(&lane->arena, stmt, 1);
    mapper->identity = copy_text(&lane->arena, stmt, 2);
    mapper->edges_only = sqlite3_column_int(stmt, 3) != 0;
    status = parse_decl(&decl, &lane->arena, stmt, 4, mapper->name, err);
    if (status)
        return status;
    mapper->decl = decl;
    mapper->tables =
        rf_arena_alloc(&lane->arena, (decl->table_count + 1) * sizeof *mapper->tables);
    for (size_t i = 0; i < decl->table_count; i++) {
        struct rf_sqlite_table *table = &mapper->tables[i];
        table->decl = &decl->tables[i];
        table->search_count = rf_sqlite_search_count(table->decl);
        table->scratch = rf_arena_alloc(&lane->arena,
                                        table->decl->column_count * sizeof *table->scratch + 1);
        table->texts =
            rf_arena_alloc(&lane->arena, (table->search_count + 1) * sizeof *table->texts);
        rf_sqlite_table_names(&lane->arena, table->decl, lane->id, lane->live, &table->name,
                              &table->fts);
    }
    return sink->base.write ? find_top(sink, mapper, err) : RF_OK;
}

#define MAPPERS_OF_LANE                                                                         \
    "SELECT l.id, l.name, l.identity, l.edges_only, m.declaration, m.bundle "                   \
    "FROM refuge_lane_mappers l JOIN refuge_mappers m USING(identity) "                          \
    "WHERE l.lane = %lld ORDER BY l.ordinal, l.id"

static enum rf_status load_mappers(struct rf_sqlite *sink, struct rf_sqlite_lane *lane,
                                   struct rf_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int64_t count;
    enum rf_status status;

    status = rf_db_int(&sink->db, &count, 0, err,
                       "SELECT count(*) FROM refuge_lane_mappers WHERE lane = %lld",
                       (long long)lane->id);
    if (status)
        return status;
    lane->mappers = rf_arena_alloc(&lane->arena, ((size_t)count + 1) * sizeof *lane->mappers);
    lane->calls = rf_arena_alloc(&lane->arena, ((size_t)count + 1) * sizeof *lane->calls);
    status = rf_db_prepare(&sink->db, &stmt, err, MAPPERS_OF_LANE, (long long)lane->id);
    while (!status && lane->mapper_count < (size_t)count &&
           (status = rf_db_step(&sink->db, stmt, err)) == RF_OK)
        status = load_mapper(sink, lane, &lane->mappers[lane->mapper_count++], stmt, err);
    sqlite3_finalize(stmt);
    if (status && status != RF_END)
        return status;
    return check_texts(&sink->db, lane->id, err);
}

static void free_table(struct rf_sqlite_table *table)
{
    sqlite3_finalize(table->insert);
    sqlite3_finalize(table->fts_insert);
    sqlite3_finalize(table->select);
    sqlite3_finalize(table->fts_delete);
    sqlite3_finalize(table->remove);
}

static void free_lane(struct rf_sqlite_lane *lane)
{
    for (size_t i = 0; i < lane->mapper_count; i++)
        for (size_t k = 0; lane->mappers[i].decl && k < lane->mappers[i].decl->table_count; k++)
            free_table(&lane->mappers[i].tables[k]);
    rf_arena_release(&lane->arena);
    free(lane);
}

void rf_sqlite_forget_lanes(struct rf_sqlite *sink)
{
    while (sink->lanes) {
        struct rf_sqlite_lane *lane = sink->lanes;
        sink->lanes = lane->next;
        free_lane(lane);
    }
}

static enum rf_status load_lane(struct rf_sqlite *sink, uint32_t id, struct rf_sqlite_lane **out,
                                struct rf_error *err)
{
    struct rf_sqlite_lane *lane;
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    status = rf_db_prepare(&sink->db, &stmt, err,
                           "SELECT id, state = 'live', full FROM refuge_lanes WHERE %s ORDER BY id",
                           id ? "id = ?1 AND state <> 'dropping'" : "state = 'live'");
    if (status)
        return status;
    if (id)
        rf_db_bind(stmt, "i", (int64_t)id);
    status = rf_db_step(&sink->db, stmt, err);
    if (status) {
        sqlite3_finalize(stmt);
        if (status == RF_END && id)
            status = rf_error_set(err, RF_NOT_FOUND, "index '%s' has no lane %u", sink->db.path,
                                  (unsigned)id);
        else if (status == RF_END)
            status = rf_error_set(err, RF_NOT_FOUND, "index '%s' is empty: run 'refuge index run'",
                                  sink->db.path);
        return status;
    }
    lane = calloc(1, sizeof *lane);
    if (!lane)
        abort();
    rf_arena_init(&lane->arena, LANE_ARENA_MAX);
    lane->id = (uint32_t)sqlite3_column_int64(stmt, 0);
    lane->live = sqlite3_column_int(stmt, 1) != 0;
    lane->full = sqlite3_column_int(stmt, 2) != 0;
    sqlite3_finalize(stmt);
    status = load_mappers(sink, lane, err);
    if (status) {
        free_lane(lane);
        return status;
    }
    *out = lane;
    return RF_OK;
}

enum rf_status rf_sqlite_lane_get(struct rf_sqlite *sink, uint32_t id, struct rf_sqlite_lane **out,
                                  struct rf_error *err)
{
    struct rf_sqlite_lane *lane = NULL;
    enum rf_status status;

    if (!sink->base.write) /* a reader's lanes change under it: it loads them anew each time */
        rf_sqlite_forget_lanes(sink);
    for (lane = sink->lanes; lane; lane = lane->next) {
        if (id ? lane->id == id : lane->live) {
            *out = lane;
            return RF_OK;
        }
    }
    status = load_lane(sink, id, &lane, err);
    if (!status) {
        assert(lane);
        lane->next = sink->lanes;
        sink->lanes = lane;
        *out = lane;
    }
    return status;
}

enum rf_status rf_sqlite_live(struct rf_db *db, struct rf_arena *arena, struct rf_sqlite_live *out,
                              struct rf_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int64_t id, count;
    enum rf_status status;

    *out = (struct rf_sqlite_live){0};
    status = rf_db_int(db, &id, 0, err, "SELECT id FROM refuge_lanes WHERE state = 'live'");
    if (!status && id == 0)
        return RF_OK;
    if (!status)
        status = rf_db_int(db, &count, 0, err,
                           "SELECT count(*) FROM refuge_lane_mappers WHERE lane = %lld",
                           (long long)id);
    if (!status)
        status = rf_db_prepare(db, &stmt, err, MAPPERS_OF_LANE, (long long)id);
    if (status)
        return status;
    out->lane = (uint32_t)id;
    out->mappers = rf_arena_alloc(arena, ((size_t)count + 1) * sizeof *out->mappers);
    while (out->count < (size_t)count && (status = rf_db_step(db, stmt, err)) == RF_OK) {
        out->mappers[out->count].id = sqlite3_column_int64(stmt, 0);
        out->mappers[out->count].name = copy_text(arena, stmt, 1);
        out->mappers[out->count].identity = copy_text(arena, stmt, 2);
        status = parse_decl(&out->mappers[out->count].decl, arena, stmt, 4,
                            out->mappers[out->count].name, err);
        if (status)
            break;
        out->count++;
    }
    sqlite3_finalize(stmt);
    return status && status != RF_END ? status : check_texts(db, out->lane, err);
}

/* ---- the list ---- */

static enum rf_status list_mappers(struct rf_sqlite *sink, struct rf_arena *arena,
                                   struct rf_sink_lane *lane, struct rf_error *err)
{
    struct rf_sink_mapper *mappers;
    sqlite3_stmt *stmt = NULL;
    int64_t count;
    enum rf_status status;

    status = rf_db_int(&sink->db, &count, 0, err,
                       "SELECT count(*) FROM refuge_lane_mappers WHERE lane = %lld",
                       (long long)lane->id);
    if (!status)
        status = rf_db_prepare(&sink->db, &stmt, err, MAPPERS_OF_LANE, (long long)lane->id);
    if (status)
        return status;
    mappers = rf_arena_alloc(arena, ((size_t)count + 1) * sizeof *mappers);
    while (lane->mapper_count < (size_t)count &&
           (status = rf_db_step(&sink->db, stmt, err)) == RF_OK) {
        struct rf_sink_mapper *mapper = &mappers[lane->mapper_count];
        struct rf_bytes bundle = rf_db_bytes(stmt, 5);
        struct rf_decl *decl = NULL;

        mapper->identity = copy_text(arena, stmt, 2);
        mapper->edges_only = sqlite3_column_int(stmt, 3) != 0;
        mapper->bundle = rf_bytes(rf_arena_copy(arena, bundle.data, bundle.size), bundle.size);
        status = mapper->bundle.data
                     ? parse_decl(&decl, arena, stmt, 4, rf_db_text(stmt, 1), err)
                     : rf_error_set(err, RF_NOMEM, "no memory for the mappers of an index");
        if (status)
            break;
        mapper->decl = decl;
        lane->mapper_count++;
    }
    lane->mappers = mappers;
    sqlite3_finalize(stmt);
    return status && status != RF_END ? status : check_texts(&sink->db, lane->id, err);
}

enum rf_status rf_sqlite_lanes(struct rf_sink *base, struct rf_arena *arena,
                               struct rf_sink_lane **lanes, size_t *count, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    sqlite3_stmt *stmt = NULL;
    struct rf_sink_lane *list;
    int64_t rows;
    size_t used = 0;
    bool held = rf_db_hold(&sink->db);
    enum rf_status status;

    status = rf_db_int(&sink->db, &rows, 0, err, "SELECT count(*) FROM refuge_lanes");
    if (!status)
        status = rf_db_prepare(&sink->db, &stmt, err,
                               "SELECT id, state = 'live', full, position, started FROM "
                               "refuge_lanes WHERE state <> 'dropping' "
                               "ORDER BY state <> 'live', id LIMIT %lld",
                               (long long)rows);
    if (status) {
        rf_db_let_go(&sink->db, held);
        return status;
    }
    list = rf_arena_alloc(arena, ((size_t)rows + 1) * sizeof *list);
    while ((status = rf_db_step(&sink->db, stmt, err)) == RF_OK) {
        struct rf_sink_lane *lane = &list[used++];
        lane->id = (uint32_t)sqlite3_column_int64(stmt, 0);
        lane->live = sqlite3_column_int(stmt, 1) != 0;
        lane->full = sqlite3_column_int(stmt, 2) != 0;
        snprintf(lane->position, sizeof lane->position, "%s", rf_db_text(stmt, 3));
        lane->started_us = rf_db_time(rf_db_text(stmt, 4));
        status = list_mappers(sink, arena, lane, err);
        if (status)
            break;
    }
    sqlite3_finalize(stmt);
    if (status == RF_END)
        status = check_owners(&sink->db, err);
    rf_db_let_go(&sink->db, held);
    if (status)
        return status;
    *lanes = list;
    *count = used;
    return RF_OK;
}

/* ---- begin ---- */

static bool names_mapper(const struct rf_sink_mapper *mappers, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!mappers[i].edges_only && strcmp(mappers[i].decl->name, name) == 0)
            return true;
    return false;
}

static enum rf_status check_names(const struct rf_sqlite_lane *live,
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

static size_t count_searched(const struct rf_decl *decl)
{
    size_t count = 0;

    for (size_t i = 0; i < decl->table_count; i++)
        count += rf_sqlite_search_count(&decl->tables[i]) > 0;
    return count;
}

static size_t hash_share(const struct rf_sqlite_lane *live, const struct rf_sink_mapper *mappers,
                         size_t count)
{
    size_t tables = 0, share;

    for (size_t i = 0; i < count; i++)
        tables += count_searched(mappers[i].decl);
    for (size_t i = 0; live && i < live->mapper_count; i++)
        if (!names_mapper(mappers, count, live->mappers[i].name))
            tables += count_searched(live->mappers[i].decl);
    share = FTS_HASH_ALL / (tables ? tables : 1);
    return share < FTS_HASH_MIN ? FTS_HASH_MIN : share;
}

static enum rf_status add_mapper_row(struct rf_sqlite *sink, uint32_t lane, size_t ordinal,
                                     const struct rf_sink_mapper *mapper, int64_t *id,
                                     struct rf_error *err)
{
    const struct rf_decl *decl = mapper->decl;
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    status = rf_db_prepare(&sink->db, &stmt, err,
                           "INSERT OR IGNORE INTO refuge_mappers(identity, name, version, title, "
                           "declaration, bundle) VALUES(?1, ?2, ?3, ?4, ?5, CAST(?6 AS BLOB))");
    if (status)
        return status;
    rf_db_bind(stmt, "ttttbb", mapper->identity, decl->name, decl->version ? decl->version : "",
               decl->title, decl->json,
               mapper->bundle.data ? mapper->bundle : rf_bytes_text(""));
    status = rf_db_run(&sink->db, stmt, err);
    sqlite3_finalize(stmt);
    if (!status)
        status = rf_db_exec(&sink->db, err,
                            "INSERT INTO refuge_lane_mappers(lane, ordinal, name, identity, "
                            "edges_only) VALUES(%u, %lld, %Q, %Q, %d)",
                            (unsigned)lane, (long long)ordinal, decl->name, mapper->identity,
                            mapper->edges_only);
    if (!status)
        *id = sqlite3_last_insert_rowid(sink->db.handle);
    return status;
}

static enum rf_status add_mapper(struct rf_sqlite *sink, uint32_t lane, bool live, size_t ordinal,
                                 const struct rf_sink_mapper *mapper, size_t hash,
                                 struct rf_error *err)
{
    const struct rf_decl *decl = mapper->decl;
    int64_t id;
    enum rf_status status = add_mapper_row(sink, lane, ordinal, mapper, &id, err);

    for (size_t i = 0; !status && !mapper->edges_only && i < decl->table_count; i++) {
        const struct rf_table *table = &decl->tables[i];
        status = rf_sqlite_make_table(&sink->db, table, lane, live, hash, err);
        if (!status)
            status = rf_db_exec(&sink->db, err,
                                "INSERT INTO refuge_tables(mapper, name, title, search) "
                                "VALUES(%lld, %Q, %Q, %d)",
                                (long long)id, table->name, table->title,
                                rf_sqlite_search_count(table) > 0);
    }
    return status;
}

enum rf_status rf_sqlite_lane_begin(struct rf_sink *base, const struct rf_sink_mapper *mappers,
                                    size_t count, bool full, uint32_t *lane, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    struct rf_sqlite_lane *live = NULL;
    struct rf_error ignored = {0};
    char now[RF_TIME_TEXT_SIZE];
    uint32_t id = 0;
    size_t hash;
    enum rf_status status;

    rf_sqlite_now(now);
    status = rf_db_exec(&sink->db, err, "BEGIN IMMEDIATE");
    if (status)
        return status;
    status = rf_sqlite_lane_get(sink, 0, &live, &ignored);
    if (status && status != RF_NOT_FOUND)
        rf_error_set(err, status, "%s", ignored.message);
    else
        status = check_names(live, mappers, count, full, err);
    hash = hash_share(full ? NULL : live, mappers, count);
    if (!status)
        status = rf_db_exec(&sink->db, err,
                            "INSERT INTO refuge_lanes(state, full, started) VALUES(%Q, %d, %Q)",
                            live ? "building" : "live", full || !live, now);
    if (!status)
        id = (uint32_t)sqlite3_last_insert_rowid(sink->db.handle);
    for (size_t i = 0; !status && i < count; i++)
        status = add_mapper(sink, id, live == NULL, i, &mappers[i], hash, err);
    status = finish(&sink->db, status, err);
    if (!status)
        *lane = id;
    return status;
}

/* ---- swap ---- */

static bool named(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static const struct rf_sqlite_mapper *find_own(const struct rf_sqlite_lane *lane, const char *name)
{
    for (size_t i = 0; i < lane->mapper_count; i++)
        if (!lane->mappers[i].edges_only && strcmp(lane->mappers[i].name, name) == 0)
            return &lane->mappers[i];
    return NULL;
}

static enum rf_status mark_dying(struct rf_sqlite *sink, int64_t id, struct rf_error *err)
{
    return rf_db_exec(&sink->db, err, "INSERT INTO temp.refuge_dying(id) VALUES(%lld)",
                      (long long)id);
}

/* Replaced and removed mappers of the live lane, with their tables; helpers of the other lane. */
static enum rf_status bury(struct rf_sqlite *sink, const struct rf_sqlite_lane *live,
                           const struct rf_sqlite_lane *lane, const char *const *removed,
                           size_t removed_count, struct rf_error *err)
{
    enum rf_status status = rf_db_exec(&sink->db, err, "DELETE FROM temp.refuge_dying");

    for (size_t i = 0; !status && i < live->mapper_count; i++) {
        const struct rf_sqlite_mapper *mapper = &live->mappers[i];
        if (!lane->full && !named(removed, removed_count, mapper->name) &&
            !find_own(lane, mapper->name))
            continue;
        status = mark_dying(sink, mapper->id, err);
        for (size_t k = 0; !status && k < mapper->decl->table_count; k++)
            status = rf_sqlite_drop_table(&sink->db, mapper->tables[k].decl, live->id, true, err);
    }
    for (size_t i = 0; !status && i < lane->mapper_count; i++)
        if (lane->mappers[i].edges_only)
            status = mark_dying(sink, lane->mappers[i].id, err);
    return status;
}

/* Parts that lose their last edge of what will be the live lane. */
static enum rf_status note_orphans(struct rf_sqlite *sink, const struct rf_sqlite_lane *live,
                                   const struct rf_sqlite_lane *lane, struct rf_error *err)
{
    return rf_db_exec(&sink->db, err,
                      "INSERT OR IGNORE INTO temp.refuge_orphans SELECT child FROM refuge_parts p "
                      "WHERE mapper IN (SELECT id FROM temp.refuge_dying) AND NOT EXISTS ("
                      "SELECT 1 FROM refuge_parts q JOIN refuge_lane_mappers m ON m.id = q.mapper "
                      "WHERE q.child = p.child AND m.lane IN (%u, %u) "
                      "AND m.id NOT IN (SELECT id FROM temp.refuge_dying))",
                      (unsigned)live->id, (unsigned)lane->id);
}

/*
 * A splitter that ran along may have failed in the lane where the live lane's call did not: on a
 * limit, which depends on the machine. What parts it cut in the live lane alone wait then for the
 * mappers that the lane brings, as ready parks.
 */
static enum rf_status park_missed(struct rf_sqlite *sink, const struct rf_sqlite_lane *live,
                                  const struct rf_sqlite_lane *lane, struct rf_error *err)
{
    char now[RF_TIME_TEXT_SIZE];
    bool any = false;

    for (size_t i = 0; i < lane->mapper_count; i++)
        any |= lane->mappers[i].edges_only;
    if (!any)
        return RF_OK;
    rf_sqlite_now(now);
    return rf_db_exec(&sink->db, err,
                      "INSERT INTO refuge_parks(mapper, blob, kind, reason, attempts, at) "
                      "SELECT n.id, e.child, 'ready', 'its part was not cut while this version was "
                      "built', 0, %Q FROM refuge_lane_mappers n, (SELECT DISTINCT p.child FROM "
                      "refuge_parts p WHERE p.mapper IN (SELECT id FROM refuge_lane_mappers WHERE "
                      "lane = %u AND name IN (SELECT name FROM refuge_lane_mappers WHERE lane = %u "
                      "AND edges_only)) AND NOT EXISTS (SELECT 1 FROM refuge_parts q JOIN "
                      "refuge_lane_mappers m ON m.id = q.mapper WHERE q.child = p.child AND "
                      "m.lane = %u)) e WHERE n.lane = %u AND NOT n.edges_only ORDER BY e.child "
                      "ON CONFLICT DO NOTHING",
                      now, (unsigned)live->id, (unsigned)lane->id, (unsigned)lane->id,
                      (unsigned)lane->id);
}

static enum rf_status delete_dying(struct rf_sqlite *sink, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < OWNED_COUNT; i++)
        status = rf_db_exec(&sink->db, err,
                            "DELETE FROM \"%w\" WHERE mapper IN (SELECT id FROM "
                            "temp.refuge_dying)",
                            owned_tables[i]);
    if (!status)
        status = rf_db_exec(&sink->db, err,
                            "DELETE FROM refuge_lane_mappers WHERE id IN (SELECT id FROM "
                            "temp.refuge_dying); DELETE FROM temp.refuge_dying;");
    return status;
}

/* A replaced mapper leaves its place in the order to the new one; a new one comes last. */
static enum rf_status raise_mapper(struct rf_sqlite *sink, const struct rf_sqlite_lane *live,
                                   const struct rf_sqlite_lane *lane, size_t index,
                                   struct rf_error *err)
{
    const struct rf_sqlite_mapper *mapper = &lane->mappers[index];
    size_t ordinal = lane->full ? index : live->mapper_count + index;
    enum rf_status status;

    for (size_t i = 0; !lane->full && i < live->mapper_count; i++)
        if (strcmp(live->mappers[i].name, mapper->name) == 0)
            ordinal = i;
    status = rf_db_exec(&sink->db, err,
                        "UPDATE refuge_lane_mappers SET lane = %u, ordinal = %lld WHERE id = %lld",
                        (unsigned)live->id, (long long)ordinal, (long long)mapper->id);
    for (size_t i = 0; !status && i < mapper->decl->table_count; i++)
        status = rf_sqlite_raise_table(&sink->db, mapper->tables[i].decl, lane->id, err);
    return status;
}

static enum rf_status forget_texts(struct rf_sqlite *sink, struct rf_error *err)
{
    return rf_db_exec(&sink->db, err,
                      "DELETE FROM refuge_mappers WHERE identity NOT IN "
                      "(SELECT identity FROM refuge_lane_mappers)");
}

/* Ordinals of the live lane from 0 without gaps, so that the next swap can count on them. */
static enum rf_status renumber(struct rf_sqlite *sink, uint32_t live, struct rf_error *err)
{
    return rf_db_exec(&sink->db, err,
                      "UPDATE refuge_lane_mappers SET ordinal = r.place FROM (SELECT id, "
                      "row_number() OVER (ORDER BY ordinal, id) - 1 AS place FROM "
                      "refuge_lane_mappers WHERE lane = %u) r WHERE r.id = refuge_lane_mappers.id",
                      (unsigned)live);
}

/* A full lane knows nothing of items whose latest change it could not read; what it lost is what
 * the live lane has lost from now on. */
static enum rf_status forget_lost(struct rf_sqlite *sink, const struct rf_sqlite_lane *live,
                                  const struct rf_sqlite_lane *lane, struct rf_error *err)
{
    unsigned old = live->id, new = lane->id;
    enum rf_status status;

    if (!lane->full || !RF_SAFEGUARD("sink-forgets-lost"))
        return RF_OK;
    status = rf_db_exec(&sink->db, err,
                        "DELETE FROM blobs WHERE kind <> 'part' AND EXISTS (SELECT 1 FROM "
                        "refuge_facts WHERE " RF_SQLITE_LOST_OF " AND blobs.seq BETWEEN "
                        RF_SQLITE_LOST_FIRST " AND CAST(value AS INTEGER))",
                        new, new);
    if (!status)
        status = rf_db_exec(&sink->db, err, "DELETE FROM refuge_facts WHERE " RF_SQLITE_LOST_OF,
                            old);
    return status ? status
                  : rf_db_exec(&sink->db, err,
                               "UPDATE refuge_facts SET name = 'lost:%u:' || "
                               RF_SQLITE_LOST_FIRST " WHERE " RF_SQLITE_LOST_OF,
                               old, new, new);
}

static enum rf_status swap_in(struct rf_sqlite *sink, const struct rf_sqlite_lane *live,
                              const struct rf_sqlite_lane *lane, const char *const *removed,
                              size_t removed_count, struct rf_error *err)
{
    enum rf_status status = bury(sink, live, lane, removed, removed_count, err);

    if (!status)
        status = note_orphans(sink, live, lane, err);
    if (!status && RF_SAFEGUARD("sink-missed-parts"))
        status = park_missed(sink, live, lane, err);
    if (!status)
        status = delete_dying(sink, err);
    if (!status)
        status = forget_lost(sink, live, lane, err);
    for (size_t i = 0; !status && i < lane->mapper_count; i++)
        if (!lane->mappers[i].edges_only)
            status = raise_mapper(sink, live, lane, i, err);
    if (!status)
        status = rf_db_exec(&sink->db, err, "DELETE FROM refuge_lanes WHERE id = %u",
                            (unsigned)lane->id);
    if (!status)
        status = renumber(sink, live->id, err);
    return status ? status : forget_texts(sink, err);
}

static enum rf_status check_positions(struct rf_sqlite *sink, const struct rf_sqlite_lane *live,
                                      const struct rf_sqlite_lane *lane, struct rf_error *err)
{
    int64_t equal;
    enum rf_status status;

    status = rf_db_int(&sink->db, &equal, 0, err,
                       "SELECT (SELECT position FROM refuge_lanes WHERE id = %u) = "
                       "(SELECT position FROM refuge_lanes WHERE id = %u)",
                       (unsigned)live->id, (unsigned)lane->id);
    if (!status && !equal && RF_SAFEGUARD("sink-swap-position"))
        status = rf_error_set(err, RF_DENIED,
                              "cannot swap lane %u of index '%s': it does not stand where the live "
                              "lane stands",
                              (unsigned)lane->id, sink->db.path);
    return status;
}

enum rf_status rf_sqlite_lane_swap(struct rf_sink *base, uint32_t id, const char *const *removed,
                                   size_t removed_count, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    struct rf_sqlite_lane *live = NULL, *lane = NULL;
    enum rf_status status;

    status = rf_db_exec(&sink->db, err, "BEGIN IMMEDIATE");
    if (status)
        return status;
    status = rf_sqlite_lane_get(sink, 0, &live, err);
    if (!status)
        status = rf_sqlite_lane_get(sink, id, &lane, err);
    assert(status || (live && lane));
    if (!status && lane == live)
        status = rf_error_set(err, RF_INVALID, "lane %u of index '%s' is live already",
                              (unsigned)id, sink->db.path);
    if (!status)
        status = check_positions(sink, live, lane, err);
    if (!status)
        status = swap_in(sink, live, lane, removed, removed_count, err);
    if (!status) {
        rf_sqlite_forget_lanes(sink);
        status = rf_sqlite_lane_get(sink, 0, &live, err);
    }
    if (!status)
        status = rf_sqlite_collect_orphans(sink, live, err);
    status = finish(&sink->db, status, err);
    if (status)
        rf_sqlite_forget_lanes(sink);
    return status;
}

/* ---- drop ---- */

static enum rf_status drop_tables(struct rf_sqlite *sink, uint32_t id, struct rf_error *err)
{
    struct rf_arena arena;
    sqlite3_stmt *stmt = NULL;
    struct rf_decl **decls;
    size_t count = 0;
    int64_t most;
    enum rf_status status;

    rf_arena_init(&arena, LANE_ARENA_MAX);
    status = rf_db_int(&sink->db, &most, 0, err,
                       "SELECT count(*) FROM refuge_lane_mappers WHERE lane = %u", (unsigned)id);
    decls = rf_arena_alloc(&arena, ((size_t)most + 1) * sizeof(*decls));
    if (!status)
        status = rf_db_prepare(&sink->db, &stmt, err, MAPPERS_OF_LANE, (long long)id);
    while (!status && (status = rf_db_step(&sink->db, stmt, err)) == RF_OK)
        if (!sqlite3_column_int(stmt, 3))
            status = parse_decl(&decls[count++], &arena, stmt, 4, rf_db_text(stmt, 1), err);
    sqlite3_finalize(stmt);
    if (status == RF_END)
        status = RF_OK;
    for (size_t i = 0; !status && i < count; i++)
        for (size_t k = 0; !status && k < decls[i]->table_count; k++)
            status = rf_sqlite_drop_table(&sink->db, &decls[i]->tables[k], id, false, err);
    rf_arena_release(&arena);
    return status;
}

/* WITHOUT ROWID tables are cut by their key, in slices. */
static enum rf_status drop_owned(struct rf_sqlite *sink, uint32_t id, struct rf_error *err)
{
    static const char *const keys[OWNED_COUNT] = {
        "mapper, blob, n", "mapper, blob",
        "mapper, blob",    "mapper, blob, n, \"table\", \"column\", kind",
        "mapper, name",    "mapper, parent, n"};
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < OWNED_COUNT; i++) {
        int changes;
        do {
            status = rf_db_exec(&sink->db, err,
                                "DELETE FROM \"%w\" WHERE (%s) IN (SELECT %s FROM \"%w\" WHERE "
                                "mapper IN (SELECT id FROM refuge_lane_mappers WHERE lane = %u) "
                                "LIMIT %d)",
                                owned_tables[i], keys[i], keys[i], owned_tables[i], (unsigned)id,
                                DROP_SLICE);
            changes = status ? 0 : sqlite3_changes(sink->db.handle);
        } while (!status && changes == DROP_SLICE);
    }
    return status;
}

static enum rf_status drop_rest(struct rf_sqlite *sink, uint32_t id, struct rf_error *err)
{
    enum rf_status status = rf_db_exec(&sink->db, err, "BEGIN IMMEDIATE");

    if (status)
        return status;
    status = rf_db_exec(&sink->db, err,
                        "DELETE FROM blobs WHERE kind = 'part' AND NOT EXISTS "
                        "(SELECT 1 FROM refuge_parts WHERE child = blobs.id);"
                        "DELETE FROM refuge_lane_mappers WHERE lane = %u;"
                        "DELETE FROM refuge_lanes WHERE id = %u;"
                        "DELETE FROM refuge_facts WHERE " RF_SQLITE_LOST_OF,
                        (unsigned)id, (unsigned)id, (unsigned)id);
    if (!status)
        status = forget_texts(sink, err);
    return finish(&sink->db, status, err);
}

static enum rf_status drop_marked(struct rf_sqlite *sink, uint32_t id, struct rf_error *err)
{
    enum rf_status status = drop_tables(sink, id, err);

    if (!status)
        status = drop_owned(sink, id, err);
    return status ? status : drop_rest(sink, id, err);
}

enum rf_status rf_sqlite_lane_drop(struct rf_sink *base, uint32_t id, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    enum rf_status status;

    status = rf_db_exec(&sink->db, err,
                        "UPDATE refuge_lanes SET state = 'dropping' WHERE id = %u AND "
                        "state = 'building'",
                        (unsigned)id);
    if (status)
        return status;
    if (sqlite3_changes(sink->db.handle) == 0)
        return rf_error_set(err, RF_NOT_FOUND,
                            "cannot drop lane %u of index '%s': there is no such lane beside the "
                            "live one",
                            (unsigned)id, sink->db.path);
    rf_sqlite_forget_lanes(sink);
    return drop_marked(sink, id, err);
}

enum rf_status rf_sqlite_finish_drops(struct rf_sqlite *sink, struct rf_error *err)
{
    int64_t id;
    enum rf_status status;

    do {
        status = rf_db_int(&sink->db, &id, 0, err,
                           "SELECT id FROM refuge_lanes WHERE state = 'dropping'");
        if (!status && id)
            status = drop_marked(sink, (uint32_t)id, err);
    } while (!status && id);
    return status;
}
