/*
 * postgres_again.c - versions of a mapper side by side: who holds a part, and mapping it again
 *
 * Which version maps a part depends on all that hold it (indexer/plan.h). So whoever writes asks
 * for the holders, and is told, by a ready park, when a part lost one of them.
 */
#include "sinks/sink_postgres.h"

#include "core/glob.h"

static enum rf_status visit_holders(struct rf_pg_stream *stream,
                                    enum rf_status (*visit)(void *user,
                                                            const struct rf_sink_holder *),
                                    void *user, struct rf_error *err)
{
    const struct rf_pg_rows *rows;
    size_t row;
    enum rf_status status;

    while ((status = rf_pg_stream_next(stream, &rows, &row, err)) == RF_OK) {
        struct rf_sink_holder holder = {
            .seq = (uint64_t)rf_pg_int_at(rows, row, 0),
            .timestamp_us = rf_pg_time_at(rows, row, 1),
            .name = rf_pg_is_null(rows, row, 2) ? NULL : rf_pg_text_at(rows, row, 2),
        };
        status = visit(user, &holder);
        if (status)
            break;
    }
    return status == RF_END ? RF_OK : status;
}

enum rf_status rf_postgres_holders(struct rf_sink *base, uint32_t id, const char *key,
                                   enum rf_status (*visit)(void *user,
                                                           const struct rf_sink_holder *),
                                   void *user, struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_pg_stream *stream = NULL;
    bool held;
    enum rf_status status = rf_postgres_ask(sink, &held, err);

    if (!status && !held) /* a stream wants a transaction */
        held = rf_postgres_hold(sink);
    if (!status)
        status = rf_pg_stream_open(
            sink->pg, &stream, err,
            "WITH RECURSIVE up(id) AS (SELECT id FROM blobs WHERE item = $1 UNION SELECT e.parent "
            "FROM refuge_parts e JOIN up ON e.child = up.id WHERE e.mapper IN (SELECT id FROM "
            "refuge_lane_mappers WHERE lane = $2)) SELECT b.seq, b.ts, b.name FROM up JOIN blobs b "
            "ON b.id = up.id WHERE b.kind <> 'part'",
            "ti", key, (int64_t)id);
    if (!status)
        status = visit_holders(stream, visit, user, err);
    rf_pg_stream_close(stream);
    rf_postgres_let_go(sink, held);
    return status;
}

enum rf_status rf_postgres_wake_below(struct rf_postgres *sink, struct rf_pg_lane *lane,
                                      const int64_t *blobs, size_t count, const char *media,
                                      uint64_t mappers, struct rf_error *err)
{
    struct rf_ids ids = {0};
    int64_t top = 0;
    enum rf_status status;

    for (size_t i = 0; i < lane->mapper_count; i++)
        if (mappers >> i & 1)
            rf_ids_put(&ids, lane->ids[i]);
    status = rf_pg_int(sink->pg, &top, 0, err,
                       "WITH RECURSIVE below(id) AS (SELECT unnest($1) UNION SELECT e.child FROM "
                       "refuge_parts e JOIN below ON e.parent = below.id WHERE e.mapper = ANY($2))"
                       ", woken AS (INSERT INTO refuge_parks(mapper, blob, kind, reason, attempts, "
                       "at) SELECT m, below.id, 'ready', 'another version may have to map it', 0, "
                       "now() FROM below, unnest($3) m WHERE $4::text IS NULL OR EXISTS (SELECT 1 "
                       "FROM blobs b WHERE b.id = below.id AND b.media ILIKE $4) ON "
                       "CONFLICT(blob, mapper) DO UPDATE SET kind = 'ready' WHERE "
                       "refuge_parks.kind = 'need') SELECT max(id) FROM below",
                       "IIIt", blobs, count, lane->ids, lane->mapper_count, ids.items, ids.count,
                       media);
    if (top > lane->top)
        lane->top = top;
    rf_ids_release(&ids);
    return status;
}

enum rf_status rf_postgres_again(struct rf_sink *base, const char *key, const char *media,
                                 uint64_t mappers, struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_buf like;
    int64_t blob = 0;
    enum rf_status status = rf_postgres_flush(sink, err);

    if (!status)
        status = rf_pg_int(sink->pg, &blob, 0, err,
                           "SELECT id FROM blobs WHERE item = $1 AND deleted = 0", "t", key);
    rf_buf_init(&like, 1 << 16);
    if (media)
        rf_glob_put_like(&like, media);
    if (!status && blob)
        status = rf_postgres_wake_below(sink, sink->lane, &blob, 1,
                                        media ? rf_buf_text(&like) : NULL, mappers, err);
    rf_buf_release(&like);
    if (status)
        rf_postgres_rollback(base);
    return status;
}

enum rf_status rf_postgres_share(struct rf_sink *base, uint64_t mappers, struct rf_error *err)
{
    (void)err;
    rf_postgres_of(base)->shared = mappers;
    return RF_OK;
}
