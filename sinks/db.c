/* db.c - see db.h. Order at creation: file with mode 0600, its directory synced, page size, WAL. */
#include "sinks/db.h"

#include "core/buf.h"
#include "core/control.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define BUSY_MS 5000
#define READER_CACHE_KIB 8192
#define SCHEMA_FORMAT 4      /* the highest that SQLite has made since 2005 */
#define WAL_LIMIT (64 << 20) /* bytes of the log kept after a checkpoint */

/* "main" of "/a/main.db" and "/a/main.db.verify": names of indexes have no dot. */
static int index_name(const char *path, const char **name)
{
    const char *slash = strrchr(path, '/');

    *name = slash ? slash + 1 : path;
    return (int)strcspn(*name, ".");
}

enum rf_status rf_db_damaged(const struct rf_db *db, struct rf_error *err, const char *format, ...)
{
    char what[RF_ERROR_SIZE / 2];
    const char *name;
    int size = index_name(db->path, &name);
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return rf_error_set(err, RF_UNSOUND,
                        "index '%s' is damaged: %s; 'refuge index drop %.*s' and 'refuge index run "
                        "%.*s' make it again",
                        db->path, what, size, name, size, name);
}

/* What SQLite says of a broken header names neither byte nor cause, and of one that calls the file
 * read-only, that it may not be written. Only for a file whose log has been recovered, or that
 * SQLite refuses: before that, an unfinished write of the header is no damage. */
static enum rf_status check_header(const struct rf_db *db, struct rf_error *err)
{
    uint8_t header[48];
    int fd = open(db->path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : pread(fd, header, sizeof header, 0);

    if (fd >= 0)
        close(fd);
    if (size <= 0) /* not this function's to tell */
        return RF_OK;
    if (size < (ssize_t)sizeof header || memcmp(header, "SQLite format 3", 16) != 0)
        return rf_db_damaged(db, err, "it does not begin as an SQLite database does");
    for (int at = 18; at < 20; at++) {
        if (header[at] < 1 || header[at] > 2)
            return rf_db_damaged(db, err, "byte %d of its header is %d, not 1 or 2", at,
                                 header[at]);
    }
    if (header[44] || header[45] || header[46] || header[47] > SCHEMA_FORMAT)
        return rf_db_damaged(db, err, "bytes 44 to 47 of its header are no schema format");
    return RF_OK;
}

enum rf_status rf_db_fail(struct rf_db *db, int code, struct rf_error *err)
{
    const char *path = db->path, *words = sqlite3_errmsg(db->handle);
    int system = sqlite3_system_errno(db->handle);
    enum rf_status status;

    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return rf_error_set(err, RF_UNAVAILABLE,
                            "index '%s' is busy: another program writes to it, trying again", path);
    case SQLITE_FULL:
        return rf_error_set(err, RF_IO,
                            "cannot write index '%s': no space left; nothing of this batch was "
                            "stored",
                            path);
    case SQLITE_IOERR:
        if (system)
            return rf_error_errno(err, RF_IO, system, "cannot read or write index '%s': %s", path,
                                  words);
        return rf_error_set(err, RF_IO, "cannot read or write index '%s': %s", path, words);
    case SQLITE_NOTADB:
        status = check_header(db, err);
        return status ? status : rf_db_damaged(db, err, "%s", words);
    case SQLITE_ERROR: /* in words alone: the header names a schema that no SQLite has made yet */
        if (strcmp(words, "unsupported file format") == 0 && (status = check_header(db, err)))
            return status;
        return rf_error_set(err, RF_IO, "cannot use index '%s': %s", path, words);
    case SQLITE_CORRUPT:
        return rf_db_damaged(db, err, "%s", words);
    case SQLITE_CANTOPEN:
        if (rf_status_of_errno(system) == RF_DENIED)
            return rf_error_errno(err, RF_DENIED, system, "cannot open index '%s'", path);
        return rf_error_set(err, RF_IO, "cannot open index '%s': %s", path, words);
    case SQLITE_NOMEM:
        return rf_error_set(err, RF_NOMEM, "no memory for index '%s'", path);
    case SQLITE_READONLY:
    case SQLITE_AUTH:
    case SQLITE_PERM:
        return rf_error_set(err, RF_DENIED, "cannot write index '%s': %s", path, words);
    case SQLITE_CONSTRAINT:
    case SQLITE_TOOBIG:
    case SQLITE_MISMATCH:
        return rf_error_set(err, RF_INVALID, "index '%s' refuses: %s", path, words);
    case SQLITE_INTERRUPT:
        return rf_error_set(err, RF_CANCELLED, "stopped");
    default:
        return rf_error_set(err, RF_IO, "cannot use index '%s': %s", path, words);
    }
}

/* ---- statements ---- */

static enum rf_status exec_text(struct rf_db *db, const char *sql, struct rf_error *err)
{
    int code = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);

    return code == SQLITE_OK ? RF_OK : rf_db_fail(db, code, err);
}

/* sqlite3_vmprintf; memory for a statement of ours is a small fixed size. */
static char *format_sql(const char *format, va_list args)
{
    char *sql = sqlite3_vmprintf(format, args);

    if (!sql)
        abort();
    return sql;
}

enum rf_status rf_db_exec(struct rf_db *db, struct rf_error *err, const char *format, ...)
{
    va_list args;
    char *sql;
    enum rf_status status;

    va_start(args, format);
    sql = format_sql(format, args);
    va_end(args);
    status = exec_text(db, sql, err);
    sqlite3_free(sql);
    return status;
}

static enum rf_status prepare_text(struct rf_db *db, sqlite3_stmt **out, const char *sql,
                                   struct rf_error *err)
{
    int code = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);

    return code == SQLITE_OK ? RF_OK : rf_db_fail(db, code, err);
}

enum rf_status rf_db_prepare(struct rf_db *db, sqlite3_stmt **out, struct rf_error *err,
                             const char *format, ...)
{
    va_list args;
    char *sql;
    enum rf_status status;

    va_start(args, format);
    sql = format_sql(format, args);
    va_end(args);
    status = prepare_text(db, out, sql, err);
    sqlite3_free(sql);
    return status;
}

void rf_db_bind(sqlite3_stmt *stmt, const char *kinds, ...)
{
    va_list args;
    int code = SQLITE_OK;

    va_start(args, kinds);
    for (int i = 1; *kinds; kinds++, i++) {
        struct rf_bytes bytes;
        const char *text;

        switch (*kinds) {
        case 'i':
            code = sqlite3_bind_int64(stmt, i, va_arg(args, int64_t));
            break;
        case 't':
            text = va_arg(args, const char *);
            code = sqlite3_bind_text(stmt, i, text, -1, SQLITE_STATIC);
            break;
        default:
            bytes = va_arg(args, struct rf_bytes);
            code = sqlite3_bind_text64(stmt, i, (const char *)bytes.data, bytes.size,
                                       SQLITE_STATIC, SQLITE_UTF8);
            break;
        }
        assert(code == SQLITE_OK);
    }
    va_end(args);
    (void)code;
}

enum rf_status rf_db_step(struct rf_db *db, sqlite3_stmt *stmt, struct rf_error *err)
{
    int code = sqlite3_step(stmt);
    enum rf_status status;

    if (code == SQLITE_ROW)
        return RF_OK;
    status = code == SQLITE_DONE ? RF_END : rf_db_fail(db, code, err);
    sqlite3_reset(stmt);
    return status;
}

enum rf_status rf_db_run(struct rf_db *db, sqlite3_stmt *stmt, struct rf_error *err)
{
    enum rf_status status = rf_db_step(db, stmt, err);

    if (status == RF_OK)
        sqlite3_reset(stmt);
    return status == RF_END ? RF_OK : status;
}

enum rf_status rf_db_int(struct rf_db *db, int64_t *out, int64_t otherwise, struct rf_error *err,
                         const char *format, ...)
{
    va_list args;
    char *sql;
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    va_start(args, format);
    sql = format_sql(format, args);
    va_end(args);
    status = prepare_text(db, &stmt, sql, err);
    sqlite3_free(sql);
    if (status)
        return status;
    status = rf_db_step(db, stmt, err);
    if (status == RF_OK && sqlite3_column_type(stmt, 0) != SQLITE_NULL)
        *out = sqlite3_column_int64(stmt, 0);
    else if (status == RF_OK || status == RF_END)
        *out = otherwise;
    sqlite3_finalize(stmt);
    return status == RF_END ? RF_OK : status;
}

bool rf_db_hold(struct rf_db *db)
{
    return sqlite3_get_autocommit(db->handle) &&
           sqlite3_exec(db->handle, "BEGIN", NULL, NULL, NULL) == SQLITE_OK;
}

void rf_db_let_go(struct rf_db *db, bool held)
{
    if (held)
        sqlite3_exec(db->handle, "COMMIT", NULL, NULL, NULL);
}

const char *rf_db_text(sqlite3_stmt *stmt, int column)
{
    const char *text = (const char *)sqlite3_column_text(stmt, column);

    return text ? text : "";
}

struct rf_bytes rf_db_bytes(sqlite3_stmt *stmt, int column)
{
    const void *data = sqlite3_column_blob(stmt, column);

    return rf_bytes(data, (size_t)sqlite3_column_bytes(stmt, column));
}

/* Days since 1970-01-01 of a date of the proleptic Gregorian calendar (Hinnant,
 * days_from_civil). */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t of_era = y - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

int64_t rf_db_time(const char *text)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.ddddddZ";
    int64_t field[7] = {0};
    size_t at = 0;

    if (!text)
        return INT64_MIN;
    for (size_t i = 0; i < sizeof form; i++) {
        if (form[i] != 'd') {
            if (text[i] != form[i])
                return INT64_MIN;
            at++;
        } else if (text[i] < '0' || text[i] > '9') {
            return INT64_MIN;
        } else {
            field[at] = field[at] * 10 + (text[i] - '0');
        }
    }
    return ((days_of(field[0], field[1], field[2]) * 24 + field[3]) * 60 + field[4]) * 60000000 +
           field[5] * 1000000 + field[6];
}

/* ---- opening ---- */

/* sqlite3_open takes ":memory:", "" and "file:..." for something else: never pass them bare. */
static char *plain_path(const char *path)
{
    bool plain = path[0] == '/' || strncmp(path, "./", 2) == 0;
    size_t size = strlen(path) + 3;
    char *out = malloc(size);

    if (!out)
        abort();
    snprintf(out, size, "%s%s", plain ? "" : "./", path);
    return out;
}

/* A log of SQLite's is read by way of files that it makes beside the database. Where no file can
 * be made and no log is there, the database file alone is all there is, and nobody changes it. */
static bool is_still(const char *path)
{
    size_t size = strlen(path) + sizeof "-wal";
    char *log = malloc(size);
    struct statvfs fs;
    bool still;

    if (!log)
        abort();
    snprintf(log, size, "%s-wal", path);
    still = statvfs(path, &fs) == 0 && (fs.f_flag & ST_RDONLY) && access(log, F_OK) != 0;
    free(log);
    return still;
}

/* "file:<path>?immutable=1" */
static void put_still_url(struct rf_buf *url, const char *path)
{
    rf_buf_put_text(url, "file:");
    for (; *path; path++) {
        if (*path == '%' || *path == '?' || *path == '#')
            rf_buf_printf(url, "%%%02x", (unsigned char)*path);
        else
            rf_buf_put_u8(url, (uint8_t)*path);
    }
    rf_buf_put_text(url, "?immutable=1");
}

static int open_handle(struct rf_db *db, bool reader)
{
    int flags = SQLITE_OPEN_NOMUTEX | (reader ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE);
    struct rf_buf url;
    int code;

    if (!reader || !is_still(db->path))
        return sqlite3_open_v2(db->path, &db->handle, flags, NULL);
    rf_buf_init(&url, 1 << 16);
    put_still_url(&url, db->path);
    code = SQLITE_CANTOPEN;
    if (rf_buf_text(&url))
        code = sqlite3_open_v2(rf_buf_text(&url), &db->handle, flags | SQLITE_OPEN_URI, NULL);
    rf_buf_release(&url);
    return code;
}

static enum rf_status sync_parent(const char *path, struct rf_error *err)
{
    const char *slash = strrchr(path, '/');
    size_t size = slash == path ? 1 : (size_t)(slash - path);
    char *parent = strndup(path, size);
    int fd;
    enum rf_status status = RF_OK;

    if (!parent)
        abort();
    fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        status = rf_error_errno(err, RF_IO, errno, "cannot sync folder '%s'", parent);
    if (fd >= 0)
        close(fd);
    free(parent);
    return status;
}

static enum rf_status create_file(const char *path, struct rf_error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0 && errno == EEXIST)
        return RF_OK;
    if (fd < 0)
        return rf_error_errno(err, rf_status_of_errno(errno), errno, "cannot create index '%s'",
                              path);
    close(fd);
    return sync_parent(path, err);
}

/* FTS5 and SQLite trust what is in the file more than a stranger's file deserves. */
static enum rf_status check_owner(const char *path, struct rf_error *err)
{
    const char *name;
    int size = index_name(path, &name);
    struct stat st;

    if (stat(path, &st) != 0) {
        if (errno == ENOENT)
            return rf_error_set(err, RF_NOT_FOUND, "there is no index '%s'", path);
        return rf_error_errno(err, rf_status_of_errno(errno), errno, "cannot open index '%s'",
                              path);
    }
    if (!S_ISREG(st.st_mode))
        return rf_error_set(err, RF_IO,
                            "cannot open index '%s': it is a %s, not a file; move it away, then "
                            "'refuge index run %.*s' makes the index",
                            path, S_ISDIR(st.st_mode) ? "folder" : "device, pipe or socket",
                            size, name);
    if (RF_SAFEGUARD("index-owner") && st.st_uid != geteuid() && st.st_uid != 0)
        return rf_error_set(err, RF_DENIED,
                            "cannot open index '%s': it belongs to user %lu, not to you", path,
                            (unsigned long)st.st_uid);
    /* Where every user has a group of their own, files may well be group-writable. */
    if (RF_SAFEGUARD("index-owner") &&
        ((st.st_mode & S_IWOTH) || ((st.st_mode & S_IWGRP) && st.st_gid != getegid())))
        return rf_error_set(err, RF_DENIED,
                            "cannot open index '%s': others may write it (mode %03o), run chmod "
                            "600 on it",
                            path, (unsigned)(st.st_mode & 0777));
    return RF_OK;
}

static void configure(sqlite3 *handle, bool reader)
{
    sqlite3_extended_result_codes(handle, 1);
    sqlite3_busy_timeout(handle, BUSY_MS);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, NULL);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_FTS3_TOKENIZER, 0, NULL);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
    sqlite3_db_config(handle, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
    if (reader) {
        sqlite3_db_config(handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        sqlite3_wal_autocheckpoint(handle, 0);
    }
}

static enum rf_status check_format(struct rf_db *db, enum rf_db_mode mode, bool *fresh,
                                   struct rf_error *err)
{
    int64_t application, format, objects;
    const char *name;
    int size = index_name(db->path, &name);
    enum rf_status status;

    status = rf_db_int(db, &application, 0, err, "PRAGMA application_id");
    if (!status)
        status = rf_db_int(db, &format, 0, err, "PRAGMA user_version");
    if (!status)
        status = rf_db_int(db, &objects, 0, err, "SELECT count(*) FROM sqlite_master");
    if (status)
        return status;
    *fresh = application == 0 && format == 0 && objects == 0;
    if (*fresh)
        return mode == RF_DB_CREATE ? RF_OK
                                    : rf_error_set(err, RF_NOT_FOUND,
                                                   "index '%s' is empty: it was never made, or "
                                                   "its content was lost; 'refuge index run "
                                                   "%.*s' makes it", db->path, size, name);
    status = check_header(db, err);
    if (status)
        return status;
    if (application != RF_DB_APPLICATION)
        return rf_error_set(err, RF_UNSOUND,
                            "'%s' is an SQLite database but not an index of refuge; move it away "
                            "or remove it by 'refuge index drop %.*s', then 'refuge index run "
                            "%.*s' makes the index",
                            db->path, size, name, size, name);
    if (format > RF_DB_FORMAT)
        return rf_error_set(err, RF_UNSUPPORTED,
                            "index '%s' has format %lld, this program knows up to %d: use a newer "
                            "refuge",
                            db->path, (long long)format, RF_DB_FORMAT);
    return RF_OK;
}

static enum rf_status set_pragmas(struct rf_db *db, enum rf_db_mode mode, uint64_t cache_bytes,
                                  bool fresh, struct rf_error *err)
{
    long long cache = cache_bytes ? (long long)(cache_bytes / 1024) : READER_CACHE_KIB;
    enum rf_status status = RF_OK;

    /* The size of pages first: SQLite counts the cache in pages, and keeps the number when their
     * size changes; the cache would be four times as large as it was told. */
    if (fresh && mode != RF_DB_SCRATCH && mode != RF_DB_READ)
        status = rf_db_exec(db, err, "PRAGMA page_size=16384");
    if (!status)
        status = rf_db_exec(db, err, "PRAGMA cache_size=-%lld; PRAGMA cell_size_check=ON;", cache);
    if (status || mode == RF_DB_SCRATCH)
        return status;
    if (mode == RF_DB_READ)
        return rf_db_exec(db, err, "PRAGMA query_only=ON");
    /* Debian builds with SECURE_DELETE, which zeroes every freed page: dropping a lane would write
     * it all once more. FAST clears what costs no further write. */
    return rf_db_exec(db, err,
                      "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                      "PRAGMA secure_delete=FAST; PRAGMA foreign_keys=OFF;"
                      "PRAGMA journal_size_limit=%d; PRAGMA wal_autocheckpoint=2000;",
                      WAL_LIMIT);
}

enum rf_status rf_db_open(struct rf_db *db, const char *path, enum rf_db_mode mode,
                          uint64_t cache_bytes, bool *fresh, struct rf_error *err)
{
    bool reader = mode == RF_DB_READ || mode == RF_DB_SCRATCH, is_fresh = false;
    int code;
    enum rf_status status = RF_OK;

    *db = (struct rf_db){.path = plain_path(path)};
    if (mode == RF_DB_CREATE)
        status = create_file(db->path, err);
    if (!status)
        status = check_owner(db->path, err);
    if (status)
        goto out;
    code = open_handle(db, reader);
    if (code != SQLITE_OK) {
        status = rf_db_fail(db, code, err);
        goto out;
    }
    configure(db->handle, reader);
    status = check_format(db, mode, &is_fresh, err);
    if (!status)
        status = set_pragmas(db, mode, cache_bytes, is_fresh, err);
    if (fresh)
        *fresh = is_fresh;
out:
    if (status)
        rf_db_close(db);
    return status;
}

void rf_db_close(struct rf_db *db)
{
    int code = sqlite3_close(db->handle);

    assert(code == SQLITE_OK); /* a statement of ours was not finalized */
    (void)code;
    free(db->path);
    *db = (struct rf_db){0};
}
