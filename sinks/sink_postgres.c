/*
 * sink_postgres.c - an index in one schema of a PostgreSQL database
 *
 * One session writes it: it holds an advisory lock named after the schema, which the server takes
 * back when the session ends, however it ends. A connection that was lost is made again where that
 * is safe: before a question, and before a batch. Rows and the position are of one transaction;
 * synchronous_commit is left as the server has it.
 */
#include "sinks/sink_postgres.h"

#include "core/control.h"
#include "sinks/lexemes.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LOCK_POLL_MS 50
#define LOCK_GRACE_MS 1000 /* for the session of a process that was killed just now */
#define VECTOR_MAX (2u << 20)

/* The lock's number: of our name and the schema's. */
#define LOCK_NUMBER                                                                             \
    "('x' || left(md5('refuge ' || $1), 16))::bit(64)::bigint"

int64_t rf_postgres_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

enum rf_status rf_postgres_finish(struct rf_postgres *sink, enum rf_status status,
                                  struct rf_error *err)
{
    if (!status)
        status = rf_pg_exec(sink->pg, err, "COMMIT");
    if (status && rf_pg_in_transaction(sink->pg))
        (void)!rf_pg_exec(sink->pg, NULL, "ROLLBACK");
    return status;
}

/* ---- the writer's lock ---- */

/* RF_LOCKED with the session that holds it, RF_OK when none does. */
static enum rf_status find_holder(struct rf_pg *pg, struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    enum rf_status status;

    status = rf_pg_query(pg, &rows, err,
                         "SELECT a.pid, coalesce(host(a.client_addr), 'a local socket'), "
                         "a.application_name FROM pg_locks l JOIN pg_stat_activity a USING(pid), "
                         "(SELECT " LOCK_NUMBER " AS number) k WHERE l.locktype = 'advisory' AND "
                         "l.granted AND l.objsubid = 1 AND l.database = (SELECT oid FROM "
                         "pg_database WHERE datname = current_database()) AND "
                         "((l.classid::bigint << 32) | l.objid::bigint) = k.number",
                         "t", rf_pg_schema(pg));
    if (status)
        return status;
    if (rf_pg_count(rows))
        status = rf_error_set(err, RF_LOCKED,
                              "index '%s' is being written by server process %lld, for '%s' from "
                              "%s",
                              rf_pg_name(pg), (long long)rf_pg_int_at(rows, 0, 0),
                              rf_pg_text_at(rows, 0, 2), rf_pg_text_at(rows, 0, 1));
    rf_pg_rows_free(rows);
    return status;
}

static enum rf_status locked(struct rf_pg *pg, struct rf_error *err)
{
    enum rf_status status = find_holder(pg, err);

    if (status)
        return status;
    return rf_error_set(err, RF_LOCKED, "index '%s' is being written by another process",
                        rf_pg_name(pg));
}

static enum rf_status postgres_writer(struct rf_sink *base, struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    bool held;
    enum rf_status status = rf_postgres_ask(sink, &held, err);

    if (!status)
        status = find_holder(sink->pg, err);
    rf_postgres_let_go(sink, held);
    return status;
}

static enum rf_status take_lock(struct rf_pg *pg, int timeout_ms, struct rf_error *err)
{
    int64_t taken = 0;
    enum rf_status status;

    timeout_ms = timeout_ms > LOCK_GRACE_MS ? timeout_ms : LOCK_GRACE_MS;
    for (;;) {
        struct timespec pause = {.tv_nsec = LOCK_POLL_MS * 1000000L};
        status = rf_pg_int(pg, &taken, 0, err, "SELECT pg_try_advisory_lock(" LOCK_NUMBER ")", "t",
                           rf_pg_schema(pg));
        if (status || taken || !RF_SAFEGUARD("sink-lock"))
            return status;
        if (timeout_ms <= 0)
            return locked(pg, err);
        nanosleep(&pause, NULL);
        timeout_ms -= LOCK_POLL_MS;
    }
}

/* ---- open and close ---- */

enum rf_status rf_postgres_check(struct rf_pg *pg, struct rf_error *err)
{
    int64_t there, version = 0; /* 2: the format, 1: only what stands beside it */
    struct rf_error why = {0};
    enum rf_status known = rf_pg_int(pg, &version, 0, &why, "SELECT max(version) FROM "
                                                            "refuge_format", "");
    enum rf_status status;

    if (!known && version <= RF_POSTGRES_FORMAT)
        return RF_OK;
    if (!known)
        return rf_error_set(err, RF_UNSUPPORTED,
                            "index '%s' is of format %lld, this program knows up to %d: use a "
                            "newer refuge",
                            rf_pg_name(pg), (long long)version, RF_POSTGRES_FORMAT);
    if (known != RF_CORRUPT)
        return rf_error_set(err, known, "%s", why.message);
    status = rf_pg_int(pg, &there, 0, err,
                       "SELECT max(CASE c.relname WHEN 'refuge_format' THEN 2 ELSE 1 END) FROM "
                       "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = "
                       "$1 AND c.relname IN ('refuge_format', 'refuge_lanes')",
                       "t", rf_pg_schema(pg));
    if (!status && !there)
        return rf_error_set(err, RF_NOT_FOUND, "there is no index '%s'", rf_pg_name(pg));
    if (!status && there == 1)
        return rf_postgres_damaged(pg, "table refuge_format is not there", err);
    return status ? status : rf_error_set(err, known, "%s", why.message);
}

/* What a session of the writer needs. */
static enum rf_status prepare_session(struct rf_postgres *sink, struct rf_error *err)
{
    sink->session = rf_pg_session(sink->pg);
    return rf_pg_exec(sink->pg, err,
                      "SET enable_seqscan = off; " /* all its statements name what they want */
                      "CREATE TEMP TABLE refuge_orphans(id bigint PRIMARY KEY); "
                      "CREATE TEMP TABLE refuge_dying(id bigint PRIMARY KEY)");
}

enum rf_status rf_postgres_ready(struct rf_postgres *sink, struct rf_error *err)
{
    struct rf_error why = {0};
    enum rf_status status;

    if (!rf_pg_is_lost(sink->pg) && (!sink->base.write ||
                                     sink->session == rf_pg_session(sink->pg)))
        return RF_OK;
    status = rf_pg_reconnect(sink->pg, err);
    if (status || !sink->base.write)
        return status;
    rf_postgres_forget_lanes(sink); /* somebody else may have written since */
    sink->waiting = RF_PG_WAITING_UNKNOWN;
    status = take_lock(sink->pg, 0, &why);
    if (status) /* it was ours: the server may still keep it for the connection that was lost */
        return rf_error_set(err, status == RF_LOCKED ? RF_UNAVAILABLE : status, "%s",
                            why.message);
    return prepare_session(sink, err);
}

bool rf_postgres_hold(struct rf_postgres *sink)
{
    if (rf_pg_in_transaction(sink->pg))
        return false;
    return rf_pg_exec(sink->pg, NULL, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") == RF_OK;
}

void rf_postgres_let_go(struct rf_postgres *sink, bool held)
{
    if (held && !rf_pg_is_lost(sink->pg))
        (void)!rf_pg_exec(sink->pg, NULL, "ROLLBACK");
}

enum rf_status rf_postgres_ask(struct rf_postgres *sink, bool *held, struct rf_error *err)
{
    enum rf_status status =
        sink->base.batch_open ? rf_postgres_flush(sink, err) : rf_postgres_ready(sink, err);

    *held = !status && !sink->base.write && rf_postgres_hold(sink);
    return status;
}

/* The server ends a session some time after us; its locks go now. */
static void leave(struct rf_pg *pg, bool locked)
{
    if (pg && locked && !rf_pg_is_lost(pg))
        (void)!rf_pg_exec(pg, NULL, "%sSELECT pg_advisory_unlock_all()",
                          rf_pg_in_transaction(pg) ? "ROLLBACK; " : "");
    rf_pg_close(pg);
}

static void postgres_close(struct rf_sink *base)
{
    struct rf_postgres *sink = rf_postgres_of(base);

    if (base->batch_open)
        rf_postgres_rollback(base);
    rf_postgres_forget_lanes(sink);
    rf_pg_cache_release(&sink->cache);
    rf_pg_group_release(&sink->group);
    rf_lexemes_free(sink->lexemes);
    rf_buf_release(&sink->vector);
    leave(sink->pg, base->write);
    free(sink->reader);
    free(sink);
}

static enum rf_status open_writer(struct rf_postgres *sink, const struct rf_sink_options *options,
                                  struct rf_error *err)
{
    struct rf_error why = {0};
    enum rf_status status = take_lock(sink->pg, options->lock_timeout_ms, err);

    if (status)
        return status;
    status = rf_postgres_check(sink->pg, &why);
    if (status == RF_NOT_FOUND && options->create)
        status = rf_postgres_make_schema(sink, err);
    else if (status)
        rf_error_set(err, status, "%s", why.message);
    else
        status = rf_postgres_grant_all(sink, err);
    if (!status)
        status = prepare_session(sink, err);
    if (!status)
        status = rf_postgres_finish_drops(sink, err);
    return status ? status : rf_postgres_check_tables(sink, options->mend, err);
}

/* The whole URL again: ops get what stands behind the colon. */
static char *whole_url(const char *rest)
{
    char *url;

    if (asprintf(&url, "postgresql:%s", rest) < 0)
        abort();
    return url;
}

enum rf_status rf_postgres_connect(struct rf_pg **out, const char *rest, struct rf_error *err)
{
    char *url = whole_url(rest);
    enum rf_status status = rf_pg_open(out, url, err);

    free(url);
    return status;
}

static enum rf_status postgres_open(struct rf_sink **out, const char *rest,
                                    const struct rf_sink_options *options, struct rf_error *err)
{
    struct rf_postgres *sink = calloc(1, sizeof *sink);
    enum rf_status status;

    if (!sink)
        abort();
    sink->base.ops = &rf_sink_postgres_ops;
    sink->base.write = options->write;
    sink->token = options->writer_token;
    if (options->name)
        snprintf(sink->argument, sizeof sink->argument, " %s", options->name);
    sink->reader = options->reader ? strdup(options->reader) : NULL;
    sink->lexemes = rf_lexemes_new();
    rf_buf_init(&sink->vector, VECTOR_MAX);
    rf_pg_group_init(&sink->group);
    rf_arena_init(&sink->cache.arena, SIZE_MAX);
    status = rf_postgres_connect(&sink->pg, rest, err);
    if (!status)
        status = options->write ? open_writer(sink, options, err)
                                : rf_postgres_check(sink->pg, err);
    if (status) {
        postgres_close(&sink->base);
        return status;
    }
    *out = &sink->base;
    return RF_OK;
}

static enum rf_status postgres_erase(const char *rest, struct rf_error *err)
{
    struct rf_pg *pg = NULL;
    struct rf_error why = {0};
    enum rf_status status = rf_postgres_connect(&pg, rest, &why);

    if (status == RF_NOT_FOUND) /* its database is gone, and with it the index */
        return RF_OK;
    if (status)
        return rf_error_set(err, status, "%s", why.message);
    status = take_lock(pg, 0, err);
    if (!status && rf_postgres_check(pg, &why) != RF_NOT_FOUND)
        status = rf_postgres_drop_schema(pg, err);
    leave(pg, true);
    return status;
}

/* ---- facts ---- */

static enum rf_status postgres_set_fact(struct rf_sink *base, const char *name, const char *value,
                                        struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    enum rf_status status = base->batch_open ? RF_OK : rf_postgres_ready(sink, err);

    if (status)
        return status;
    if (!value)
        return rf_pg_run(sink->pg, NULL, err, "DELETE FROM refuge_facts WHERE name = $1", "t",
                         name);
    return rf_pg_run(sink->pg, NULL, err,
                     "INSERT INTO refuge_facts(name, value) VALUES($1, $2) "
                     "ON CONFLICT(name) DO UPDATE SET value = excluded.value",
                     "tt", name, value);
}

static enum rf_status postgres_get_fact(struct rf_sink *base, struct rf_arena *arena,
                                        const char *name, const char **value,
                                        struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_pg_rows *rows = NULL;
    enum rf_status status = base->batch_open ? RF_OK : rf_postgres_ready(sink, err);

    if (!status)
        status = rf_pg_query(sink->pg, &rows, err,
                             "SELECT value FROM refuge_facts WHERE name = $1", "t", name);
    if (!status && rf_pg_count(rows) == 0)
        status = rf_error_set(err, RF_NOT_FOUND, "index '%s' has no fact '%s'",
                              rf_pg_name(sink->pg), name);
    if (!status) {
        struct rf_bytes text = rf_pg_bytes_at(rows, 0, 0);
        *value = rf_arena_copy(arena, text.data, text.size);
        if (!*value)
            status = rf_error_set(err, RF_NOMEM, "no memory for fact '%s'", name);
    }
    rf_pg_rows_free(rows);
    return status;
}

/* ---- queries ---- */

/* One of the words a statement that only reads begins with. */
static bool begins_reading(const char *sql)
{
    static const char *const words[] = {"select", "with", "values", "table", "explain", "show"};
    size_t size;

    for (;;) {
        sql += strspn(sql, " \t\r\n\f(;");
        if (strncmp(sql, "--", 2) == 0)
            sql += strcspn(sql, "\n");
        else if (strncmp(sql, "/*", 2) == 0 && strstr(sql, "*/"))
            sql = strstr(sql, "*/") + 2;
        else
            break;
    }
    size = strspn(sql, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_");
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i]) == size && strncasecmp(sql, words[i], size) == 0)
            return true;
    return *sql == '\0';
}

enum rf_status rf_postgres_query_sql(const char *rest, const char *sql,
                                     void (*header)(void *user, size_t count,
                                                    const char *const *names),
                                     rf_query_visit visit, void *user,
                                     const volatile int *interrupted, struct rf_error *err)
{
    struct rf_pg *pg = NULL;
    enum rf_status status = rf_postgres_connect(&pg, rest, err);

    if (status)
        return status;
    status = rf_postgres_check(pg, err);
    /* Two fences: the transaction only reads, and the statement is of a kind that asks. COPY to a
     * file of the server, which reads to the first, is none. */
    if (!status && RF_SAFEGUARD("query-readonly"))
        status = rf_pg_exec(pg, err,
                            "SET search_path = \"%w\", public; SET default_transaction_read_only "
                            "= on; BEGIN READ ONLY",
                            rf_pg_schema(pg));
    if (!status && !begins_reading(sql) && RF_SAFEGUARD("query-readonly"))
        status = rf_error_set(err, RF_INVALID,
                              "only reading is allowed here: begin with select, with, values, "
                              "table, explain or show");
    if (!status)
        status = rf_pg_each(pg, sql, header, visit, user, interrupted, err);
    rf_pg_close(pg);
    return status;
}

static enum rf_status postgres_metadata(const char *rest, struct rf_buf *buf, struct rf_error *err)
{
    (void)rest;
    (void)buf;
    return rf_error_set(err, RF_UNSUPPORTED,
                        "Datasette reads no PostgreSQL: this index has no metadata for it");
}

const struct rf_sink_ops rf_sink_postgres_ops = {
    .scheme = "postgresql",
    .alias = "postgres",
    .open = postgres_open,
    .close = postgres_close,
    .writer = postgres_writer,
    .erase = postgres_erase,
    .lanes = rf_postgres_lanes,
    .lane_begin = rf_postgres_lane_begin,
    .lane_ready = rf_postgres_lane_ready,
    .lane_swap = rf_postgres_lane_swap,
    .lane_drop = rf_postgres_lane_drop,
    .begin = rf_postgres_begin,
    .expect = rf_postgres_expect,
    .put = rf_postgres_put,
    .put_parts = rf_postgres_put_parts,
    .remove = rf_postgres_remove,
    .arrived = rf_postgres_arrived,
    .lost = rf_postgres_lost,
    .share = rf_postgres_share,
    .again = rf_postgres_again,
    .commit = rf_postgres_commit,
    .rollback = rf_postgres_rollback,
    .has_part = rf_postgres_has_part,
    .mapper_splits = rf_postgres_mapper_splits,
    .parks = rf_postgres_parks,
    .park_counts = rf_postgres_park_counts,
    .is_parked = rf_postgres_is_parked,
    .park_needs = rf_postgres_park_needs,
    .origin_of = rf_postgres_origin_of,
    .holders = rf_postgres_holders,
    .dead_letters = rf_postgres_dead_letters,
    .retry = rf_postgres_retry,
    .set_fact = postgres_set_fact,
    .get_fact = postgres_get_fact,
    .counts = rf_postgres_counts,
    .query_sql = rf_postgres_query_sql,
    .query_search = rf_postgres_search,
    .query_canon = rf_postgres_canon,
    .query_metadata = postgres_metadata,
};
