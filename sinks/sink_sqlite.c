/*
 * sink_sqlite.c - an index in one SQLite file
 *
 * One process writes it: it holds an flock on "<file>.lock", which also says who (the pid; left
 * behind by a crash it means nothing, the flock does). Whether an flock is held can only be found
 * out by taking it, and a run that starts just then would fail; so the writer puts a range lock
 * beside it, which others may ask about. Rows and the position are of one transaction
 * in write-ahead log mode with synchronous=NORMAL: a power cut may lose the last batches, never a
 * part of one, because the log's checksums chain; what is lost is replayed from the position.
 */
#include "sinks/sink_sqlite.h"

#include "core/control.h"
#include "core/holder.h"
#include "sinks/grams.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define CACHE_BYTES (64u << 20)
#define LOCK_POLL_MS 20

static struct rf_sqlite *of(struct rf_sink *sink)
{
    return (struct rf_sqlite *)sink;
}

/* ---- the writer's lock ---- */

static char *beside(const char *path, const char *suffix)
{
    size_t size = strlen(path) + strlen(suffix) + 1;
    char *out = malloc(size);

    if (!out)
        abort();
    snprintf(out, size, "%s%s", path, suffix);
    return out;
}

/* The kernel knows the holder; else what it wrote, which may be that of the one before. */
static enum rf_status locked(const char *path, int fd, struct rf_error *err)
{
    char holder[RF_HOLDER_SIZE] = "";
    ssize_t size;

    if (!rf_holder_find(fd, holder)) {
        size = pread(fd, holder, sizeof holder - 1, 0);
        holder[size > 0 ? (size_t)size : 0] = '\0';
        holder[strcspn(holder, "\n")] = '\0';
    }
    if (!holder[0])
        return rf_error_set(err, RF_LOCKED, "index '%s' is being written by another process", path);
    return rf_error_set(err, RF_LOCKED, "index '%s' is being written by process %s", path, holder);
}

static void sleep_ms(int ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};

    nanosleep(&time, NULL);
}

static enum rf_status take_lock(struct rf_sqlite *sink, const char *path, int timeout_ms,
                                struct rf_error *err)
{
    char *name = beside(path, ".lock"), pid[32];
    int size = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    enum rf_status status = RF_OK;

    sink->lock_fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (sink->lock_fd < 0) {
        status = rf_error_errno(err, rf_status_of_errno(errno), errno, "cannot lock index '%s'",
                                path);
        goto out;
    }
    while (flock(sink->lock_fd, LOCK_EX | LOCK_NB) != 0 && RF_SAFEGUARD("sink-lock")) {
        if (timeout_ms <= 0) {
            status = locked(path, sink->lock_fd, err);
            goto out;
        }
        sleep_ms(LOCK_POLL_MS);
        timeout_ms -= LOCK_POLL_MS;
    }
    /* Both only for the words to others: that one process writes does not depend on them. */
    (void)fcntl(sink->lock_fd, F_OFD_SETLK, &(struct flock){.l_type = F_WRLCK});
    if (ftruncate(sink->lock_fd, 0) != 0 || pwrite(sink->lock_fd, pid, (size_t)size, 0) != size)
        status = rf_error_errno(err, RF_IO, errno, "cannot write '%s'", name);
out:
    free(name);
    return status;
}

static enum rf_status sqlite_writer(struct rf_sink *base, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    struct flock range = {.l_type = F_WRLCK};
    char *name = beside(sink->db.path, ".lock"), holder[RF_HOLDER_SIZE];
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    enum rf_status status = RF_OK;

    if (fd < 0 && errno != ENOENT)
        status = rf_error_errno(err, rf_status_of_errno(errno), errno,
                                "cannot tell who writes index '%s'", sink->db.path);
    if (fd >= 0 && (rf_holder_find(fd, holder) ||
                    (fcntl(fd, F_OFD_GETLK, &range) == 0 && range.l_type != F_UNLCK)))
        status = locked(sink->db.path, fd, err);
    if (fd >= 0)
        close(fd);
    free(name);
    return status;
}

/* ---- open and close ---- */

static enum rf_status prepare_writer(struct rf_sqlite *sink, bool fresh, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    if (fresh)
        status = rf_sqlite_make_schema(&sink->db, err);
    if (!status)
        status = rf_db_exec(&sink->db, err,
                            "PRAGMA legacy_alter_table=ON;"
                            "CREATE TEMP TABLE refuge_orphans(id INTEGER PRIMARY KEY);"
                            "CREATE TEMP TABLE refuge_dying(id INTEGER PRIMARY KEY);");
    return status ? status : rf_sqlite_finish_drops(sink, err);
}

static void sqlite_close(struct rf_sink *base)
{
    struct rf_sqlite *sink = of(base);

    if (base->batch_open)
        rf_sqlite_rollback(base);
    rf_sqlite_forget_lanes(sink);
    for (size_t i = 0; i < RF_STMT_COUNT; i++)
        sqlite3_finalize(sink->stmts[i]);
    rf_db_close(&sink->db);
    rf_buf_release(&sink->grams);
    if (sink->lock_fd >= 0)
        close(sink->lock_fd);
    free(sink);
}

static enum rf_status sqlite_open(struct rf_sink **out, const char *path,
                                  const struct rf_sink_options *options, struct rf_error *err)
{
    enum rf_db_mode mode = options->create  ? RF_DB_CREATE
                           : options->write ? RF_DB_WRITE
                                            : RF_DB_READ;
    struct rf_sqlite *sink = calloc(1, sizeof *sink);
    bool fresh = false;
    enum rf_status status = RF_OK;

    if (!sink)
        abort();
    sink->base.ops = &rf_sink_sqlite_ops;
    sink->base.write = options->write;
    sink->token = options->writer_token;
    sink->lock_fd = -1;
    rf_buf_init(&sink->grams, RF_GRAMS_MAX);
    if (options->reader)
        status = rf_error_set(err, RF_UNSUPPORTED,
                              "index '%s' is a file and knows no role '%s': leave 'reader' out",
                              path, options->reader);
    if (!status && options->write && !options->create && access(path, F_OK) != 0)
        status = rf_error_set(err, RF_NOT_FOUND, "there is no index '%s'", path);
    if (!status && options->write)
        status = take_lock(sink, path, options->lock_timeout_ms, err);
    if (!status)
        status = rf_db_open(&sink->db, path, mode,
                            options->cache_bytes ? options->cache_bytes : CACHE_BYTES, &fresh, err);
    if (!status && options->write)
        status = prepare_writer(sink, fresh, err);
    if (status) {
        sqlite_close(&sink->base);
        return status;
    }
    *out = &sink->base;
    return RF_OK;
}

static enum rf_status sqlite_erase(const char *path, struct rf_error *err)
{
    /* The database first: without it the others mean nothing. */
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal", ".lock"};
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        char *name = beside(path, suffixes[i]);
        if (unlink(name) != 0 && errno != ENOENT)
            status = rf_error_errno(err, rf_status_of_errno(errno), errno, "cannot remove '%s'",
                                    name);
        free(name);
    }
    return status;
}

/* ---- what a file needs not be told ---- */

/* Indexes grow along with the rows: what they cost a first fill is little. */
static enum rf_status sqlite_lane_ready(struct rf_sink *base, uint32_t lane, struct rf_error *err)
{
    (void)base;
    (void)lane;
    (void)err;
    return RF_OK;
}

static enum rf_status sqlite_expect(struct rf_sink *base, const char *const *keys, size_t count,
                                    struct rf_error *err)
{
    (void)base;
    (void)keys;
    (void)count;
    (void)err;
    return RF_OK;
}

/* ---- facts ---- */

static enum rf_status sqlite_set_fact(struct rf_sink *base, const char *name, const char *value,
                                      struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);

    if (!value)
        return rf_db_exec(&sink->db, err, "DELETE FROM refuge_facts WHERE name = %Q", name);
    return rf_db_exec(&sink->db, err,
                      "INSERT INTO refuge_facts(name, value) VALUES(%Q, %Q) "
                      "ON CONFLICT(name) DO UPDATE SET value = excluded.value",
                      name, value);
}

static enum rf_status sqlite_get_fact(struct rf_sink *base, struct rf_arena *arena,
                                      const char *name, const char **value, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    status = rf_db_prepare(&sink->db, &stmt, err, "SELECT value FROM refuge_facts WHERE name = %Q",
                           name);
    if (!status)
        status = rf_db_step(&sink->db, stmt, err);
    if (status == RF_END)
        status = rf_error_set(err, RF_NOT_FOUND, "index '%s' has no fact '%s'", sink->db.path,
                              name);
    if (!status) {
        const char *text = rf_db_text(stmt, 0);
        *value = rf_arena_copy(arena, text, strlen(text));
        if (!*value)
            status = rf_error_set(err, RF_NOMEM, "no memory for fact '%s'", name);
    }
    sqlite3_finalize(stmt);
    return status;
}

const struct rf_sink_ops rf_sink_sqlite_ops = {
    .scheme = "sqlite",
    .open = sqlite_open,
    .close = sqlite_close,
    .writer = sqlite_writer,
    .erase = sqlite_erase,
    .lanes = rf_sqlite_lanes,
    .lane_begin = rf_sqlite_lane_begin,
    .lane_ready = sqlite_lane_ready,
    .lane_swap = rf_sqlite_lane_swap,
    .lane_drop = rf_sqlite_lane_drop,
    .begin = rf_sqlite_begin,
    .expect = sqlite_expect,
    .put = rf_sqlite_put,
    .put_parts = rf_sqlite_put_parts,
    .remove = rf_sqlite_remove,
    .arrived = rf_sqlite_arrived,
    .lost = rf_sqlite_lost,
    .share = rf_sqlite_share,
    .again = rf_sqlite_again,
    .commit = rf_sqlite_commit,
    .rollback = rf_sqlite_rollback,
    .has_part = rf_sqlite_has_part,
    .mapper_splits = rf_sqlite_mapper_splits,
    .parks = rf_sqlite_parks,
    .park_counts = rf_sqlite_park_counts,
    .is_parked = rf_sqlite_is_parked,
    .park_needs = rf_sqlite_park_needs,
    .origin_of = rf_sqlite_origin_of,
    .holders = rf_sqlite_holders,
    .dead_letters = rf_sqlite_dead_letters,
    .retry = rf_sqlite_retry,
    .set_fact = sqlite_set_fact,
    .get_fact = sqlite_get_fact,
    .counts = rf_sqlite_counts,
    .query_sql = rf_sqlite_query_sql,
    .query_search = rf_sqlite_search,
    .query_canon = rf_sqlite_canon,
    .query_metadata = rf_sqlite_metadata,
};
