/* sqlite_parks.c - what waits, what was set aside, and how much there is of everything */
#include "sinks/sink_sqlite.h"

#include <stdio.h>

const char *const rf_sqlite_park_names[RF_PARK_KIND_COUNT] = {
    [RF_PARK_SLOW] = "slow", [RF_PARK_NEED] = "need", [RF_PARK_READY] = "ready"};

static struct rf_sqlite *of(struct rf_sink *sink)
{
    return (struct rf_sqlite *)sink;
}

static enum rf_sink_item_kind kind_of(const char *name)
{
    return name[0] == 'b' ? RF_SINK_BLOB : name[0] == 'f' ? RF_SINK_FILE : RF_SINK_PART;
}

/* The blobref an item's key starts with. */
static enum rf_status ref_of(struct rf_blobref *out, const char *key, struct rf_error *err)
{
    return rf_blobref_parse(out, key, strcspn(key, ";"), err);
}

/* The place in its lane of the mapper that the index knows by this id. */
static enum rf_status mapper_of(struct rf_sqlite *sink, uint32_t lane_id, int64_t id,
                                uint16_t *out, struct rf_error *err)
{
    struct rf_sqlite_lane *lane;
    enum rf_status status = rf_sqlite_lane_get(sink, lane_id, &lane, err);

    for (size_t i = 0; !status && i < lane->mapper_count; i++) {
        if (lane->mappers[i].id == id) {
            *out = (uint16_t)i;
            return RF_OK;
        }
    }
    return status ? status
                  : rf_error_set(err, RF_CORRUPT, "index '%s' has no mapper %lld in lane %u",
                                 sink->db.path, (long long)id, (unsigned)lane_id);
}

static enum rf_status read_park(sqlite3_stmt *stmt, enum rf_park_kind kind,
                                struct rf_sink_park *out, struct rf_error *err)
{
    *out = (struct rf_sink_park){.park = kind,
                                 .attempts = (uint32_t)sqlite3_column_int64(stmt, 1),
                                 .kind = kind_of(rf_db_text(stmt, 3)),
                                 .size = (uint64_t)sqlite3_column_int64(stmt, 4),
                                 .seq = (uint64_t)sqlite3_column_int64(stmt, 5),
                                 .timestamp_us = rf_db_time(rf_db_text(stmt, 6))};
    snprintf(out->key, sizeof out->key, "%s", rf_db_text(stmt, 2));
    return ref_of(&out->ref, out->key, err);
}

enum rf_status rf_sqlite_parks(struct rf_sink *base, uint32_t id, uint16_t mapper,
                               enum rf_park_kind kind, int64_t *after, struct rf_sink_park *out,
                               size_t max, size_t *count, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    struct rf_sqlite_lane *lane;
    sqlite3_stmt *stmt = NULL;
    size_t used = 0;
    int64_t last = *after;
    bool held = rf_db_hold(&sink->db);
    enum rf_status status = rf_sqlite_lane_get(sink, id, &lane, err);

    if (!status)
        status = rf_db_prepare(&sink->db, &stmt, err,
                               "SELECT p.id, p.attempts, b.item, b.kind, b.size, b.seq, b.ts FROM "
                               "refuge_parks p JOIN blobs b ON b.id = p.blob WHERE p.mapper = %lld "
                               "AND p.kind = %Q AND p.id > %lld ORDER BY p.id",
                               (long long)lane->mappers[mapper].id, rf_sqlite_park_names[kind],
                               (long long)*after);
    while (!status && used < max && (status = rf_db_step(&sink->db, stmt, err)) == RF_OK) {
        last = sqlite3_column_int64(stmt, 0);
        status = read_park(stmt, kind, &out[used], err);
        out[used++].mapper = mapper;
    }
    sqlite3_finalize(stmt);
    rf_db_let_go(&sink->db, held);
    if (status && status != RF_END)
        return status;
    *count = used;
    *after = last;
    return RF_OK;
}

enum rf_status rf_sqlite_park_counts(struct rf_sink *base, uint32_t id, uint16_t mapper,
                                     uint64_t counts[RF_PARK_KIND_COUNT], struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    struct rf_sqlite_lane *lane;
    enum rf_status status = rf_sqlite_lane_get(sink, id, &lane, err);

    for (size_t kind = 0; !status && kind < RF_PARK_KIND_COUNT; kind++) {
        int64_t count = 0;
        status = rf_db_int(&sink->db, &count, 0, err,
                           "SELECT count(*) FROM refuge_parks WHERE mapper = %lld AND kind = %Q",
                           (long long)lane->mappers[mapper].id, rf_sqlite_park_names[kind]);
        counts[kind] = (uint64_t)count;
    }
    return status;
}

enum rf_status rf_sqlite_park_needs(struct rf_sink *base, uint32_t id,
                                    const struct rf_sink_park *park, struct rf_arena *arena,
                                    struct rf_blobref **refs, size_t *count, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    struct rf_sqlite_lane *lane;
    sqlite3_stmt *stmt = NULL;
    struct rf_blobref *list = NULL;
    size_t used = 0;
    int64_t most = 0;
    enum rf_status status = rf_sqlite_lane_get(sink, id, &lane, err);

    for (int pass = 0; !status && pass < 2; pass++) {
        status = rf_db_prepare(&sink->db, &stmt, err,
                               "SELECT %s FROM refuge_needs WHERE present = 0 AND mapper = %lld "
                               "AND blob = (SELECT id FROM blobs WHERE item = %Q)%s",
                               pass ? "ref" : "count(*)",
                               (long long)lane->mappers[park->mapper].id, park->key,
                               pass ? " ORDER BY n" : "");
        while (!status && (status = rf_db_step(&sink->db, stmt, err)) == RF_OK) {
            const char *text = rf_db_text(stmt, 0);
            if (!pass) {
                most = sqlite3_column_int64(stmt, 0);
                list = rf_arena_alloc(arena, ((size_t)most + 1) * sizeof *list);
            } else if (used < (size_t)most) {
                status = rf_blobref_parse(&list[used++], text, strlen(text), err);
            }
        }
        sqlite3_finalize(stmt);
        stmt = NULL;
        if (status == RF_END)
            status = RF_OK;
    }
    if (!status) {
        *refs = list;
        *count = used;
    }
    return status;
}

enum rf_status rf_sqlite_origin_of(struct rf_sink *base, uint32_t id, const char *key,
                                   struct rf_sink_origin *out, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    struct rf_sink_origin origin = {0};
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    if (!strchr(key, ';')) { /* a blob or file is got by its own ref */
        *out = origin;
        return RF_OK;
    }
    status = rf_db_prepare(&sink->db, &stmt, err,
                           "SELECT p.item, p.kind, e.offset, e.size, e.mapper FROM refuge_parts e "
                           "JOIN blobs p ON p.id = e.parent WHERE e.child = (SELECT id FROM blobs "
                           "WHERE item = %Q) AND e.mapper IN (SELECT id FROM refuge_lane_mappers "
                           "WHERE lane = %u) ORDER BY e.offset IS NULL, p.kind = 'part', "
                           "e.parent, e.n LIMIT 1",
                           key, (unsigned)id);
    if (!status)
        status = rf_db_step(&sink->db, stmt, err);
    if (status == RF_END)
        status = rf_error_set(err, RF_NOT_FOUND, "no item of index '%s' holds part '%s' any more",
                              sink->db.path, key);
    if (!status) {
        snprintf(origin.parent_key, sizeof origin.parent_key, "%s", rf_db_text(stmt, 0));
        origin.parent_kind = kind_of(rf_db_text(stmt, 1));
        origin.inlined = sqlite3_column_type(stmt, 2) == SQLITE_NULL;
        origin.offset = (uint64_t)sqlite3_column_int64(stmt, 2);
        origin.size = (uint64_t)sqlite3_column_int64(stmt, 3);
        status = mapper_of(sink, id, sqlite3_column_int64(stmt, 4), &origin.mapper, err);
    }
    if (!status)
        status = ref_of(&origin.parent_ref, origin.parent_key, err);
    sqlite3_finalize(stmt);
    if (!status)
        *out = origin;
    return status;
}

#define LIVE_MAPPERS                                                                            \
    "(SELECT m.id FROM refuge_lane_mappers m JOIN refuge_lanes l ON l.id = m.lane "             \
    "WHERE l.state = 'live')"

enum rf_status rf_sqlite_dead_letters(struct rf_sink *base,
                                      enum rf_status (*visit)(void *user,
                                                              const struct rf_dead_letter *),
                                      void *user, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    /* A part without a name of its own is known by the name its parent gave it, else by its place
     * there: "line 7 of x", "part 7 of x". */
    status = rf_db_prepare(&sink->db, &stmt, err,
                           "SELECT b.item, m.name, d.reason, d.class, coalesce(b.name, (SELECT "
                           "coalesce(e.name, 'part ' || (e.n + 1)) || ' of ' || coalesce(p.name, "
                           "p.item) FROM refuge_parts e JOIN "
                           "blobs p ON p.id = e.parent WHERE e.child = b.id AND e.mapper IN "
                           LIVE_MAPPERS " ORDER BY e.name IS NULL, e.parent, e.n LIMIT 1)), "
                           "b.seq, d.attempts, "
                           "d.at FROM refuge_dead_letters d JOIN blobs b ON b.id = d.blob JOIN "
                           "refuge_lane_mappers m ON m.id = d.mapper WHERE d.mapper IN "
                           LIVE_MAPPERS " ORDER BY b.item, m.name");
    while (!status && (status = rf_db_step(&sink->db, stmt, err)) == RF_OK) {
        struct rf_dead_letter letter = {
            .key = rf_db_text(stmt, 0),
            .mapper = rf_db_text(stmt, 1),
            .reason = rf_db_text(stmt, 2),
            .dead_class = rf_db_text(stmt, 3),
            .name = (const char *)sqlite3_column_text(stmt, 4),
            .seq = (uint64_t)sqlite3_column_int64(stmt, 5),
            .attempts = (uint32_t)sqlite3_column_int64(stmt, 6),
            .at_us = rf_db_time(rf_db_text(stmt, 7)),
        };
        status = visit(user, &letter);
    }
    sqlite3_finalize(stmt);
    return status == RF_END ? RF_OK : status;
}

/* Which dead letters a retry names; the two texts quoted by SQLite itself. */
static char *retry_where(const char *mapper, const char *key)
{
    char *by_mapper = mapper ? sqlite3_mprintf(" AND mapper IN (SELECT id FROM refuge_lane_mappers "
                                               "WHERE name = %Q)",
                                               mapper)
                             : sqlite3_mprintf("");
    char *by_key = key ? sqlite3_mprintf(" AND blob = (SELECT id FROM blobs WHERE item = %Q)", key)
                       : sqlite3_mprintf("");
    char *where = sqlite3_mprintf("mapper IN " LIVE_MAPPERS "%s%s", by_mapper, by_key);

    sqlite3_free(by_mapper);
    sqlite3_free(by_key);
    return where;
}

enum rf_status rf_sqlite_retry(struct rf_sink *base, const char *mapper, const char *key,
                               uint64_t *count, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    char *where = retry_where(mapper, key);
    int64_t found = 0;
    enum rf_status status;

    if (!where)
        return rf_error_set(err, RF_NOMEM, "no memory to retry dead letters");
    status = rf_db_exec(&sink->db, err, "BEGIN IMMEDIATE");
    if (status)
        goto out;
    status = rf_db_int(&sink->db, &found, 0, err, "SELECT count(*) FROM refuge_dead_letters "
                                                  "WHERE %s", where);
    if (!status)
        status = rf_db_exec(&sink->db, err,
                            "INSERT INTO refuge_parks(mapper, blob, kind, reason, attempts, at) "
                            "SELECT mapper, blob, 'ready', reason, attempts, at FROM "
                            "refuge_dead_letters WHERE %s ON CONFLICT(mapper, blob) DO UPDATE SET "
                            "kind = 'ready'; DELETE FROM refuge_dead_letters WHERE %s; COMMIT;",
                            where, where);
    if (status && !sqlite3_get_autocommit(sink->db.handle))
        sqlite3_exec(sink->db.handle, "ROLLBACK", NULL, NULL, NULL);
    if (!status && count)
        *count = (uint64_t)found;
out:
    sqlite3_free(where);
    return status;
}

/* ---- counts ---- */

static enum rf_status count_in(struct rf_sqlite *sink, uint64_t *out, uint32_t lane,
                               const char *table, const char *kind, struct rf_error *err)
{
    int64_t count;
    enum rf_status status;

    status = rf_db_int(&sink->db, &count, 0, err,
                       "SELECT count(*) FROM \"%w\" WHERE mapper IN (SELECT id FROM "
                       "refuge_lane_mappers WHERE lane = %u)%s%s%s",
                       table, (unsigned)lane, kind ? " AND kind = '" : "", kind ? kind : "",
                       kind ? "'" : "");
    *out = (uint64_t)count;
    return status;
}

static enum rf_status count_rows(struct rf_sqlite *sink, const struct rf_sqlite_lane *lane,
                                 uint64_t *rows, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < lane->mapper_count; i++) {
        const struct rf_sqlite_mapper *mapper = &lane->mappers[i];
        for (size_t k = 0; !status && !mapper->edges_only && k < mapper->decl->table_count; k++) {
            int64_t count = 0;
            status = rf_db_int(&sink->db, &count, 0, err, "SELECT count(*) FROM \"%w\"",
                               mapper->tables[k].name);
            *rows += (uint64_t)count;
        }
    }
    return status;
}

enum rf_status rf_sqlite_counts(struct rf_sink *base, uint32_t id, struct rf_sink_counts *out,
                                struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    struct rf_sink_counts counts = {0};
    struct rf_sqlite_lane *lane;
    int64_t items = 0, lost = 0;
    bool held = rf_db_hold(&sink->db);
    enum rf_status status = rf_sqlite_lane_get(sink, id, &lane, err);

    if (!status)
        status = rf_db_int(&sink->db, &items, 0, err,
                           "SELECT count(*) FROM blobs WHERE deleted = 0");
    counts.items = (uint64_t)items;
    if (!status)
        status = count_rows(sink, lane, &counts.rows, err);
    if (!status)
        status = count_in(sink, &counts.parts, id, "refuge_parts", NULL, err);
    if (!status)
        status = count_in(sink, &counts.dead_letters, id, "refuge_dead_letters", NULL, err);
    if (!status)
        status = count_in(sink, &counts.cuts, id, "refuge_cuts", NULL, err);
    if (!status)
        status = count_in(sink, &counts.parked_slow, id, "refuge_parks", "slow", err);
    if (!status)
        status = count_in(sink, &counts.parked_need, id, "refuge_parks", "need", err);
    if (!status)
        status = count_in(sink, &counts.parked_ready, id, "refuge_parks", "ready", err);
    if (!status)
        status = rf_db_int(&sink->db, &lost, 0, err,
                           "SELECT sum(CAST(value AS INTEGER) - " RF_SQLITE_LOST_FIRST " + 1) "
                           "FROM refuge_facts WHERE " RF_SQLITE_LOST_OF,
                           (unsigned)id, (unsigned)id);
    counts.lost = (uint64_t)lost;
    rf_db_let_go(&sink->db, held);
    if (!status)
        *out = counts;
    return status;
}
