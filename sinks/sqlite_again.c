/*
 * sqlite_again.c - versions of a mapper side by side: who holds a part, and mapping it again
 *
 * Which version maps a part depends on all that hold it (indexer/plan.h). So whoever writes asks
 * for the holders, and is told, by a ready park, when a part lost one of them.
 */
#include "sinks/sink_sqlite.h"

#include "core/glob.h"

static struct rf_sqlite *of(struct rf_sink *sink)
{
    return (struct rf_sqlite *)sink;
}

enum rf_status rf_sqlite_holders(struct rf_sink *base, uint32_t id, const char *key,
                                 enum rf_status (*visit)(void *user, const struct rf_sink_holder *),
                                 void *user, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    status = rf_db_prepare(&sink->db, &stmt, err,
                           "WITH RECURSIVE up(id) AS (SELECT id FROM blobs WHERE item = %Q UNION "
                           "SELECT e.parent FROM refuge_parts e JOIN up ON e.child = up.id WHERE "
                           "e.mapper IN (SELECT id FROM refuge_lane_mappers WHERE lane = %u)) "
                           "SELECT b.seq, b.ts, b.name FROM up JOIN blobs b ON b.id = up.id WHERE "
                           "b.kind <> 'part'",
                           key, (unsigned)id);
    while (!status && (status = rf_db_step(&sink->db, stmt, err)) == RF_OK) {
        struct rf_sink_holder holder = {
            .seq = (uint64_t)sqlite3_column_int64(stmt, 0),
            .timestamp_us = rf_db_time(rf_db_text(stmt, 1)),
            .name = (const char *)sqlite3_column_text(stmt, 2),
        };
        status = visit(user, &holder);
    }
    sqlite3_finalize(stmt);
    return status == RF_END ? RF_OK : status;
}

enum rf_status rf_sqlite_wake_below(struct rf_sqlite *sink, struct rf_sqlite_lane *lane,
                                    int64_t blob, const char *media, uint64_t mappers,
                                    struct rf_error *err)
{
    char *which = media ? sqlite3_mprintf("id IN (SELECT b.id FROM blobs b WHERE b.id = below.id "
                                          "AND b.media LIKE %Q ESCAPE '\\')",
                                          media)
                        : sqlite3_mprintf("true");
    enum rf_status status = which ? RF_OK : RF_NOMEM;

    for (size_t i = 0; !status && i < lane->mapper_count; i++) {
        struct rf_sqlite_mapper *mapper = &lane->mappers[i];
        int64_t top = 0;

        if (!(mappers >> i & 1))
            continue;
        status = rf_db_exec(&sink->db, err,
                            "INSERT INTO refuge_parks(mapper, blob, kind, reason, attempts, at) "
                            "WITH RECURSIVE below(id) AS (SELECT %lld UNION SELECT e.child FROM "
                            "refuge_parts e JOIN below ON e.parent = below.id WHERE e.mapper IN "
                            "(SELECT id FROM refuge_lane_mappers WHERE lane = %u)) SELECT %lld, "
                            "id, 'ready', 'another version may have to map it', 0, %Q FROM below "
                            "WHERE %s ON CONFLICT(mapper, blob) DO UPDATE SET kind = 'ready' "
                            "WHERE kind = 'need'",
                            (long long)blob, (unsigned)lane->id, (long long)mapper->id, sink->now,
                            which);
        if (!status)
            status = rf_db_int(&sink->db, &top, 0, err,
                               "SELECT max(blob) FROM refuge_parks WHERE mapper = %lld",
                               (long long)mapper->id);
        if (top > mapper->top)
            mapper->top = top;
    }
    sqlite3_free(which);
    return status;
}

enum rf_status rf_sqlite_again(struct rf_sink *base, const char *key, const char *media,
                               uint64_t mappers, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    struct rf_buf like;
    int64_t blob;
    enum rf_status status;

    rf_buf_init(&like, 1 << 16);
    if (media)
        rf_glob_put_like(&like, media);
    status = rf_db_int(&sink->db, &blob, 0, err,
                       "SELECT id FROM blobs WHERE item = %Q AND deleted = 0", key);
    if (!status && blob)
        status = rf_sqlite_wake_below(sink, sink->lane, blob, media ? rf_buf_text(&like) : NULL,
                                      mappers, err);
    rf_buf_release(&like);
    if (status)
        rf_sqlite_rollback(base);
    return status;
}

enum rf_status rf_sqlite_share(struct rf_sink *base, uint64_t mappers, struct rf_error *err)
{
    (void)err;
    of(base)->shared = mappers;
    return RF_OK;
}
