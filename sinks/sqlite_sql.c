/*
 * sqlite_sql.c - one read-only statement for a person
 *
 * Three fences, each enough: the file is opened read-only, the statement must be one that SQLite
 * calls read-only, and the authorizer lets only reading through (no ATTACH, no transactions, no
 * pragmas but those that describe the schema).
 */
#include "sinks/sink_sqlite.h"

#include "core/control.h"

#include <ctype.h>
#include <stdlib.h>

#define CACHE_BYTES (16u << 20)
#define POLL_STEPS 1000 /* instructions of SQLite's machine between looks at `interrupted` */

static int authorize(void *user, int action, const char *first, const char *second,
                     const char *database, const char *trigger)
{
    static const char *const pragmas[] = {
        "table_info",  "table_xinfo", "table_list",     "index_list",      "index_info",
        "index_xinfo", "page_count",  "database_list",  "foreign_key_list", "compile_options",
        "function_list", "user_version", "application_id",
        "data_version" /* asked by FTS5 itself */};

    (void)user;
    (void)database;
    (void)trigger;
    switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE:
        return SQLITE_OK;
    case SQLITE_FUNCTION:
        return second && strcmp(second, "load_extension") == 0 ? SQLITE_DENY : SQLITE_OK;
    case SQLITE_UPDATE:
        /* What FTS5 says of its columns when it is connected is asked about in this form; a
         * person's UPDATE of it fails at the other fences. */
        return first && strcmp(first, "sqlite_master") == 0 ? SQLITE_OK : SQLITE_DENY;
    case SQLITE_PRAGMA:
        for (size_t i = 0; i < sizeof pragmas / sizeof *pragmas; i++)
            if (first && strcmp(first, pragmas[i]) == 0)
                return SQLITE_OK;
        return SQLITE_DENY;
    default:
        return SQLITE_DENY;
    }
}

static int poll_interrupted(void *user)
{
    const volatile int *interrupted = user;

    return *interrupted != 0;
}

/* SQLite's words, with line and column of the place they mean. */
static enum rf_status sql_error(struct rf_db *db, const char *sql, int code, struct rf_error *err)
{
    int offset = sqlite3_error_offset(db->handle);
    unsigned line = 1, column = 1;

    if ((code & 0xff) == SQLITE_AUTH)
        return rf_error_set(err, RF_INVALID,
                            "only reading is allowed here: the statement would do more (%s)",
                            sqlite3_errmsg(db->handle));
    if ((code & 0xff) != SQLITE_ERROR)
        return rf_db_fail(db, code, err);
    if (offset < 0)
        return rf_error_set(err, RF_INVALID, "%s", sqlite3_errmsg(db->handle));
    for (int i = 0; i < offset && sql[i]; i++) {
        column = sql[i] == '\n' ? 1 : column + 1;
        line += sql[i] == '\n';
    }
    return rf_error_set(err, RF_INVALID, "%s (line %u, column %u)", sqlite3_errmsg(db->handle),
                        line, column);
}

/* Whether nothing but blanks, semicolons and comments is left. */
static bool is_blank(const char *sql)
{
    for (;;) {
        while (isspace((unsigned char)*sql) || *sql == ';')
            sql++;
        if (strncmp(sql, "--", 2) == 0) {
            sql += strcspn(sql, "\n");
        } else if (strncmp(sql, "/*", 2) == 0) {
            const char *end = strstr(sql + 2, "*/");
            if (!end)
                return true;
            sql = end + 2;
        } else {
            return *sql == '\0';
        }
    }
}

static enum rf_status prepare(struct rf_db *db, const char *sql, sqlite3_stmt **out,
                              struct rf_error *err)
{
    const char *tail = NULL;
    int code = sqlite3_prepare_v2(db->handle, sql, -1, out, &tail);

    if (code != SQLITE_OK)
        return sql_error(db, sql, code, err);
    if (!*out)
        return rf_error_set(err, RF_END, "there is no statement in the query");
    if (!is_blank(tail))
        return rf_error_set(err, RF_INVALID, "only one statement at a time, more follows: %.40s",
                            tail);
    if (!sqlite3_stmt_readonly(*out) && RF_SAFEGUARD("query-readonly"))
        return rf_error_set(err, RF_INVALID, "only reading is allowed here");
    return RF_OK;
}

void rf_sqlite_cells(sqlite3_stmt *stmt, struct rf_cell *cells, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct rf_cell *cell = &cells[i];
        int column = (int)i;

        *cell = (struct rf_cell){.type = RF_CELL_NULL};
        switch (sqlite3_column_type(stmt, column)) {
        case SQLITE_INTEGER:
            cell->type = RF_CELL_INT;
            cell->integer = sqlite3_column_int64(stmt, column);
            break;
        case SQLITE_FLOAT:
            cell->type = RF_CELL_FLOAT;
            cell->real = sqlite3_column_double(stmt, column);
            break;
        case SQLITE_TEXT:
        case SQLITE_BLOB:
            cell->type = sqlite3_column_type(stmt, column) == SQLITE_TEXT ? RF_CELL_TEXT
                                                                          : RF_CELL_BYTES;
            cell->text = rf_db_bytes(stmt, column);
            break;
        default:
            break;
        }
    }
}

static enum rf_status run(struct rf_db *db, sqlite3_stmt *stmt, const char *sql,
                          void (*header)(void *user, size_t count, const char *const *names),
                          rf_query_visit visit, void *user, struct rf_error *err)
{
    size_t count = (size_t)sqlite3_column_count(stmt);
    const char **names = calloc(count + 1, sizeof *names);
    struct rf_cell *cells = calloc(count + 1, sizeof *cells);
    uint64_t index = 0;
    int code = SQLITE_DONE;
    enum rf_status status = RF_OK;

    if (!names || !cells)
        abort();
    for (size_t i = 0; i < count; i++)
        names[i] = sqlite3_column_name(stmt, (int)i);
    if (header)
        header(user, count, names);
    while (!status && (code = sqlite3_step(stmt)) == SQLITE_ROW) {
        rf_sqlite_cells(stmt, cells, count);
        status = visit(user, index++, count, names, cells);
    }
    if (!status && code != SQLITE_DONE)
        status = sql_error(db, sql, code, err);
    free(names);
    free(cells);
    return status;
}

enum rf_status rf_sqlite_query_sql(const char *path, const char *sql,
                                   void (*header)(void *user, size_t count,
                                                  const char *const *names),
                                   rf_query_visit visit, void *user,
                                   const volatile int *interrupted, struct rf_error *err)
{
    struct rf_db db;
    sqlite3_stmt *stmt = NULL;
    /* Taken away, only the statement's own check is left to be tested. */
    enum rf_db_mode mode = RF_SAFEGUARD("query-readonly") ? RF_DB_READ : RF_DB_WRITE;
    enum rf_status status = rf_db_open(&db, path, mode, CACHE_BYTES, NULL, err);

    if (status)
        return status;
    if (RF_SAFEGUARD("query-readonly"))
        sqlite3_set_authorizer(db.handle, authorize, NULL);
    if (interrupted)
        sqlite3_progress_handler(db.handle, POLL_STEPS, poll_interrupted,
                                 (void *)(uintptr_t)interrupted);
    status = prepare(&db, sql, &stmt, err);
    if (!status)
        status = run(&db, stmt, sql, header, visit, user, err);
    sqlite3_finalize(stmt);
    rf_db_close(&db);
    return status;
}
