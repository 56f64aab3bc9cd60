/* postgres_parks.c - what waits, what was set aside, and how much there is of everything */
#include "sinks/sink_postgres.h"

#include <stdio.h>

const char *const rf_postgres_park_names[RF_PARK_KIND_COUNT] = {
    [RF_PARK_SLOW] = "slow", [RF_PARK_NEED] = "need", [RF_PARK_READY] = "ready"};

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
static enum rf_status mapper_of(struct rf_postgres *sink, uint32_t lane_id, int64_t id,
                                uint16_t *out, struct rf_error *err)
{
    struct rf_pg_lane *lane;
    enum rf_status status = rf_postgres_lane_get(sink, lane_id, &lane, err);

    for (size_t i = 0; !status && i < lane->mapper_count; i++) {
        if (lane->mappers[i].id == id) {
            *out = (uint16_t)i;
            return RF_OK;
        }
    }
    return status ? status
                  : rf_error_set(err, RF_CORRUPT, "index '%s' has no mapper %lld in lane %u",
                                 rf_pg_name(sink->pg), (long long)id, (unsigned)lane_id);
}

enum rf_status rf_postgres_parks(struct rf_sink *base, uint32_t id, uint16_t mapper,
                                 enum rf_park_kind kind, int64_t *after, struct rf_sink_park *out,
                                 size_t max, size_t *count, struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_pg_rows *rows = NULL;
    struct rf_pg_lane *lane;
    int64_t last = *after;
    size_t row = 0;
    bool held;
    enum rf_status status = rf_postgres_ask(sink, &held, err);

    if (!status)
        status = rf_postgres_lane_get(sink, id, &lane, err);
    if (!status)
        status = rf_pg_query(sink->pg, &rows, err,
                             "SELECT p.id, p.attempts, b.item, b.kind, b.size, b.seq, b.ts FROM "
                             "refuge_parks p JOIN blobs b ON b.id = p.blob WHERE p.mapper = $1 AND "
                             "p.kind = $2 AND p.id > $3 ORDER BY p.id LIMIT $4",
                             "itii", lane->mappers[mapper].id, rf_postgres_park_names[kind],
                             *after, (int64_t)max);
    for (; !status && row < rf_pg_count(rows); row++) {
        last = rf_pg_int_at(rows, row, 0);
        out[row] = (struct rf_sink_park){.park = kind, .mapper = mapper,
                                         .attempts = (uint32_t)rf_pg_int_at(rows, row, 1),
                                         .kind = kind_of(rf_pg_text_at(rows, row, 3)),
                                         .size = (uint64_t)rf_pg_int_at(rows, row, 4),
                                         .seq = (uint64_t)rf_pg_int_at(rows, row, 5),
                                         .timestamp_us = rf_pg_time_at(rows, row, 6)};
        snprintf(out[row].key, sizeof out[row].key, "%s", rf_pg_text_at(rows, row, 2));
        status = ref_of(&out[row].ref, out[row].key, err);
    }
    rf_pg_rows_free(rows);
    rf_postgres_let_go(sink, held);
    if (status)
        return status;
    *count = row;
    *after = last;
    return RF_OK;
}

enum rf_status rf_postgres_park_counts(struct rf_sink *base, uint32_t id, uint16_t mapper,
                                       uint64_t counts[RF_PARK_KIND_COUNT], struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_pg_rows *rows = NULL;
    struct rf_pg_lane *lane;
    bool held;
    enum rf_status status = rf_postgres_ask(sink, &held, err);

    if (!status)
        status = rf_postgres_lane_get(sink, id, &lane, err);
    if (!status)
        status = rf_pg_query(sink->pg, &rows, err,
                             "SELECT count(*) FILTER (WHERE kind = 'slow'), count(*) FILTER (WHERE "
                             "kind = 'need'), count(*) FILTER (WHERE kind = 'ready') FROM "
                             "refuge_parks WHERE mapper = $1",
                             "i", lane->mappers[mapper].id);
    for (int kind = 0; !status && kind < RF_PARK_KIND_COUNT; kind++)
        counts[kind] = (uint64_t)rf_pg_int_at(rows, 0, kind);
    rf_pg_rows_free(rows);
    rf_postgres_let_go(sink, held);
    return status;
}

enum rf_status rf_postgres_is_parked(struct rf_sink *base, uint32_t id, uint16_t mapper,
                                     const char *key, bool *out, uint32_t *attempts,
                                     struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_pg_lane *lane;
    int64_t found = -1;
    bool held;
    enum rf_status status = rf_postgres_ask(sink, &held, err);

    *out = false;
    if (!status)
        status = rf_postgres_lane_get(sink, id, &lane, err);
    if (!status)
        status = rf_pg_int(sink->pg, &found, -1, err,
                           "SELECT p.attempts FROM refuge_parks p JOIN blobs b ON b.id = p.blob "
                           "WHERE b.item = $1 AND p.mapper = $2 AND p.kind <> 'need'",
                           "ti", key, lane->mappers[mapper].id);
    rf_postgres_let_go(sink, held);
    if (!status && found >= 0) {
        *out = true;
        *attempts = (uint32_t)found;
    }
    return status;
}

enum rf_status rf_postgres_park_needs(struct rf_sink *base, uint32_t id,
                                      const struct rf_sink_park *park, struct rf_arena *arena,
                                      struct rf_blobref **refs, size_t *count,
                                      struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_pg_rows *rows = NULL;
    struct rf_blobref *list = NULL;
    struct rf_pg_lane *lane;
    bool held;
    enum rf_status status = rf_postgres_ask(sink, &held, err);

    if (!status)
        status = rf_postgres_lane_get(sink, id, &lane, err);
    if (!status)
        status = rf_pg_query(sink->pg, &rows, err,
                             "SELECT ref FROM refuge_needs WHERE present = 0 AND mapper = $1 AND "
                             "blob = (SELECT id FROM blobs WHERE item = $2) ORDER BY n",
                             "it", lane->mappers[park->mapper].id, park->key);
    list = rf_arena_alloc(arena, (rf_pg_count(rows) + 1) * sizeof *list);
    for (size_t row = 0; !status && row < rf_pg_count(rows); row++) {
        const char *text = rf_pg_text_at(rows, row, 0);
        status = rf_blobref_parse(&list[row], text, strlen(text), err);
    }
    if (!status) {
        *refs = list;
        *count = rf_pg_count(rows);
    }
    rf_pg_rows_free(rows);
    rf_postgres_let_go(sink, held);
    return status;
}

static enum rf_status read_origin(struct rf_postgres *sink, uint32_t lane, const char *key,
                                  const struct rf_pg_rows *rows, struct rf_sink_origin *out,
                                  struct rf_error *err)
{
    enum rf_status status;

    if (!rf_pg_count(rows))
        return rf_error_set(err, RF_NOT_FOUND, "no item of index '%s' holds part '%s' any more",
                            rf_pg_name(sink->pg), key);
    snprintf(out->parent_key, sizeof out->parent_key, "%s", rf_pg_text_at(rows, 0, 0));
    out->parent_kind = kind_of(rf_pg_text_at(rows, 0, 1));
    out->inlined = rf_pg_is_null(rows, 0, 2);
    out->offset = (uint64_t)rf_pg_int_at(rows, 0, 2);
    out->size = (uint64_t)rf_pg_int_at(rows, 0, 3);
    status = mapper_of(sink, lane, rf_pg_int_at(rows, 0, 4), &out->mapper, err);
    return status ? status : ref_of(&out->parent_ref, out->parent_key, err);
}

enum rf_status rf_postgres_origin_of(struct rf_sink *base, uint32_t id, const char *key,
                                     struct rf_sink_origin *out, struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_sink_origin origin = {0};
    struct rf_pg_rows *rows = NULL;
    bool held;
    enum rf_status status;

    if (!strchr(key, ';')) { /* a blob or file is got by its own ref */
        *out = origin;
        return RF_OK;
    }
    status = rf_postgres_ask(sink, &held, err);
    if (!status)
        status = rf_pg_query(sink->pg, &rows, err,
                             "SELECT p.item, p.kind, e.\"offset\", e.size, e.mapper FROM "
                             "refuge_parts e JOIN blobs p ON p.id = e.parent WHERE e.child = "
                             "(SELECT id FROM blobs WHERE item = $1) AND e.mapper IN (SELECT id "
                             "FROM refuge_lane_mappers WHERE lane = $2) ORDER BY e.\"offset\" IS "
                             "NULL, p.kind = 'part', e.parent, e.n LIMIT 1",
                             "ti", key, (int64_t)id);
    if (!status)
        status = read_origin(sink, id, key, rows, &origin, err);
    rf_pg_rows_free(rows);
    rf_postgres_let_go(sink, held);
    if (!status)
        *out = origin;
    return status;
}

#define LIVE_MAPPERS                                                                            \
    "(SELECT m.id FROM refuge_lane_mappers m JOIN refuge_lanes l ON l.id = m.lane "             \
    "WHERE l.state = 'live')"

static enum rf_status visit_letters(struct rf_pg_stream *stream,
                                    enum rf_status (*visit)(void *user,
                                                            const struct rf_dead_letter *),
                                    void *user, struct rf_error *err)
{
    const struct rf_pg_rows *rows;
    size_t row;
    enum rf_status status;

    while ((status = rf_pg_stream_next(stream, &rows, &row, err)) == RF_OK) {
        struct rf_dead_letter letter = {
            .key = rf_pg_text_at(rows, row, 0),
            .mapper = rf_pg_text_at(rows, row, 1),
            .reason = rf_pg_text_at(rows, row, 2),
            .dead_class = rf_pg_text_at(rows, row, 3),
            .name = rf_pg_is_null(rows, row, 4) ? NULL : rf_pg_text_at(rows, row, 4),
            .seq = (uint64_t)rf_pg_int_at(rows, row, 5),
            .attempts = (uint32_t)rf_pg_int_at(rows, row, 6),
            .at_us = rf_pg_time_at(rows, row, 7),
        };
        status = visit(user, &letter);
        if (status)
            break;
    }
    return status == RF_END ? RF_OK : status;
}

enum rf_status rf_postgres_dead_letters(struct rf_sink *base,
                                        enum rf_status (*visit)(void *user,
                                                                const struct rf_dead_letter *),
                                        void *user, struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_pg_stream *stream = NULL;
    bool held;
    enum rf_status status = rf_postgres_ask(sink, &held, err);

    /* A part without a name of its own is known by the name its parent gave it, else by its place
     * there: "line 7 of x", "part 7 of x". */
    if (!status && !held) /* a stream wants a transaction */
        held = rf_postgres_hold(sink);
    if (!status)
        status = rf_pg_stream_open(
            sink->pg, &stream, err,
            "SELECT b.item, m.name, d.reason, d.class, coalesce(b.name, (SELECT coalesce(e.name, "
            "'part ' || (e.n + 1)) || ' of ' || coalesce(p.name, p.item) FROM refuge_parts e JOIN "
            "blobs p ON p.id = e.parent WHERE e.child = b.id AND e.mapper IN " LIVE_MAPPERS
            " ORDER BY e.name IS NULL, e.parent, e.n LIMIT 1)), b.seq, d.attempts, d.at FROM "
            "refuge_dead_letters d JOIN blobs b ON b.id = d.blob JOIN refuge_lane_mappers m ON "
            "m.id = d.mapper WHERE d.mapper IN " LIVE_MAPPERS " ORDER BY b.item, m.name",
            "");
    if (!status)
        status = visit_letters(stream, visit, user, err);
    rf_pg_stream_close(stream);
    rf_postgres_let_go(sink, held);
    return status;
}

enum rf_status rf_postgres_retry(struct rf_sink *base, const char *mapper, const char *key,
                                 uint64_t *count, struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    int64_t found = 0;
    enum rf_status status = rf_postgres_ready(sink, err);

    if (!status)
        status = rf_pg_int(sink->pg, &found, 0, err,
                           "WITH gone AS (DELETE FROM refuge_dead_letters WHERE mapper IN "
                           LIVE_MAPPERS " AND ($1::text IS NULL OR mapper IN (SELECT id FROM "
                           "refuge_lane_mappers WHERE name = $1)) AND ($2::text IS NULL OR blob = "
                           "(SELECT id FROM blobs WHERE item = $2)) RETURNING mapper, blob, "
                           "reason, attempts, at), parked AS (INSERT INTO refuge_parks(mapper, "
                           "blob, kind, reason, attempts, at) SELECT mapper, blob, 'ready', "
                           "reason, attempts, at FROM gone ON CONFLICT(blob, mapper) DO UPDATE "
                           "SET kind = 'ready') SELECT count(*) FROM gone",
                           "tt", mapper, key);
    if (!status && count)
        *count = (uint64_t)found;
    return status;
}

enum rf_status rf_postgres_mapper_splits(struct rf_sink *base, uint32_t lane, const char *name,
                                         bool *out, struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    int64_t found = 0;
    bool held;
    enum rf_status status = rf_postgres_ask(sink, &held, err);

    if (!status)
        status = rf_pg_int(sink->pg, &found, 0, err,
                           "SELECT 1 FROM refuge_parts WHERE mapper = (SELECT id FROM "
                           "refuge_lane_mappers WHERE lane = $1 AND name = $2) LIMIT 1",
                           "it", (int64_t)lane, name);
    rf_postgres_let_go(sink, held);
    if (!status)
        *out = found != 0;
    return status;
}

/* ---- counts ---- */

static enum rf_status count_rows(struct rf_postgres *sink, const struct rf_pg_lane *lane,
                                 uint64_t *rows, struct rf_error *err)
{
    struct rf_buf sql;
    int64_t count = 0;
    enum rf_status status;

    rf_buf_init(&sql, 4 << 20);
    rf_buf_put_text(&sql, "SELECT sum(t)::bigint FROM unnest(");
    rf_postgres_put_of_tables(&sql, lane, "count(*)");
    rf_buf_put_text(&sql, ") t");
    status = rf_buf_text(&sql) ? rf_pg_int(sink->pg, &count, 0, err, rf_buf_text(&sql), "")
                               : rf_error_set(err, sql.failed, "a lane has too many tables");
    rf_buf_release(&sql);
    *rows = (uint64_t)count;
    return status;
}

static enum rf_status count_own(struct rf_postgres *sink, const struct rf_pg_lane *lane,
                                struct rf_sink_counts *out, struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    enum rf_status status = rf_pg_query(
        sink->pg, &rows, err,
        "SELECT (SELECT count(*) FROM blobs WHERE deleted = 0), (SELECT count(*) FROM "
        "refuge_parts WHERE mapper = ANY($1)), (SELECT count(*) FROM refuge_dead_letters WHERE "
        "mapper = ANY($1)), (SELECT count(*) FROM refuge_cuts WHERE mapper = ANY($1)), (SELECT "
        "count(*) FROM refuge_parks WHERE mapper = ANY($1) AND kind = 'slow'), (SELECT count(*) "
        "FROM refuge_parks WHERE mapper = ANY($1) AND kind = 'need'), (SELECT count(*) FROM "
        "refuge_parks WHERE mapper = ANY($1) AND kind = 'ready')",
        "I", lane->ids, lane->mapper_count);

    if (!status)
        *out = (struct rf_sink_counts){.items = (uint64_t)rf_pg_int_at(rows, 0, 0),
                                       .parts = (uint64_t)rf_pg_int_at(rows, 0, 1),
                                       .dead_letters = (uint64_t)rf_pg_int_at(rows, 0, 2),
                                       .cuts = (uint64_t)rf_pg_int_at(rows, 0, 3),
                                       .parked_slow = (uint64_t)rf_pg_int_at(rows, 0, 4),
                                       .parked_need = (uint64_t)rf_pg_int_at(rows, 0, 5),
                                       .parked_ready = (uint64_t)rf_pg_int_at(rows, 0, 6)};
    rf_pg_rows_free(rows);
    return status;
}

/* All tables are there, as they were made. */
static enum rf_status check_whole(struct rf_postgres *sink, const struct rf_pg_lane *lane,
                                  struct rf_error *err)
{
    struct rf_pg_rows *changes = NULL;
    enum rf_status status = rf_postgres_check_own(sink->pg, err);

    if (!status)
        status = rf_postgres_lane_changes(sink, lane, &changes, err);
    if (!status)
        status = rf_postgres_tell_changes(sink, changes, err);
    rf_pg_rows_free(changes);
    return status;
}

enum rf_status rf_postgres_counts(struct rf_sink *base, uint32_t id, struct rf_sink_counts *out,
                                  struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_sink_counts counts = {0};
    struct rf_pg_lane *lane;
    int64_t lost = 0;
    bool held;
    enum rf_status status = rf_postgres_ask(sink, &held, err);

    if (!status)
        status = rf_postgres_lane_get(sink, id, &lane, err);
    if (!status && !base->write) /* who writes looked when it opened */
        status = check_whole(sink, lane, err);
    if (!status)
        status = count_own(sink, lane, &counts, err);
    if (!status)
        status = count_rows(sink, lane, &counts.rows, err);
    if (!status)
        status = rf_pg_int(sink->pg, &lost, 0, err,
                           "SELECT sum(value::bigint - " RF_POSTGRES_LOST_FIRST " + 1)::bigint "
                           "FROM refuge_facts WHERE " RF_POSTGRES_LOST_OF,
                           "i", (int64_t)id);
    counts.lost = (uint64_t)lost;
    rf_postgres_let_go(sink, held);
    if (!status)
        *out = counts;
    return status;
}
