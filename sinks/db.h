/*
 * db.h - one connection to an index kept in SQLite, opened so that it can be trusted
 *
 * Every file of ours that includes sqlite3.h does so through this header. A connection is opened on
 * a file that belongs to this user (or root) and that nobody else may write; the schema in it is
 * not trusted, shadow tables cannot be written, pages are checked as they are read. Readers never
 * checkpoint, so that only the writing connection moves the write-ahead log: SQLite before 3.51.3
 * can damage a database when two connections do.
 *
 * One thread per connection.
 */
#ifndef RF_SINKS_DB_H
#define RF_SINKS_DB_H

#include "core/bytes.h"
#include "core/error.h"

#include <sqlite3.h>

#define RF_DB_APPLICATION 0x72667567 /* "rfug" in the file's header */
#define RF_DB_FORMAT 1               /* user_version */

struct rf_db {
    sqlite3 *handle;
    char *path;
};

enum rf_db_mode {
    RF_DB_READ,    /* reads the committed state */
    RF_DB_SCRATCH, /* reads, and may make temporary tables beside */
    RF_DB_WRITE,   /* the one writing connection */
    RF_DB_CREATE   /* the same, and the file is made when it is not there */
};

/*
 * RF_NOT_FOUND    no such file
 * RF_DENIED       it belongs to somebody else, or others may write it
 * RF_IO           it is no file, or cannot be read
 * RF_UNSUPPORTED  a newer format
 * RF_UNSOUND      not an index, or damaged
 *
 * *fresh (may be NULL) is true when the file holds nothing yet (CREATE only): make its schema.
 */
RF_MUST_USE enum rf_status rf_db_open(struct rf_db *db, const char *path, enum rf_db_mode mode,
                                      uint64_t cache_bytes, bool *fresh, struct rf_error *err);
void rf_db_close(struct rf_db *db);

/* The status of an SQLite result code, with words for a person. */
enum rf_status rf_db_fail(struct rf_db *db, int code, struct rf_error *err);

/* RF_UNSOUND: the index is damaged, in what way, and the commands that make it again. */
enum rf_status rf_db_damaged(const struct rf_db *db, struct rf_error *err, const char *format, ...)
    RF_PRINTF(3, 4);

/* Run statements. The format is sqlite3_mprintf's: %w within double quotes for names, %Q for
 * texts. */
RF_MUST_USE enum rf_status rf_db_exec(struct rf_db *db, struct rf_error *err, const char *format,
                                      ...);

/* Compile one statement. */
RF_MUST_USE enum rf_status rf_db_prepare(struct rf_db *db, sqlite3_stmt **out,
                                         struct rf_error *err, const char *format, ...);

/* Bind parameters from the first on. kinds: i int64_t, t const char * (NULL: null), b struct
 * rf_bytes as text (data NULL: null). Texts are lent until the statement is reset. */
void rf_db_bind(sqlite3_stmt *stmt, const char *kinds, ...);

/* RF_OK: a row; RF_END: done (reset); else failed (reset). */
RF_MUST_USE enum rf_status rf_db_step(struct rf_db *db, sqlite3_stmt *stmt, struct rf_error *err);

/* Step a statement that gives no rows, and reset it. */
RF_MUST_USE enum rf_status rf_db_run(struct rf_db *db, sqlite3_stmt *stmt, struct rf_error *err);

/* The first column of the first row of a query, or otherwise when there is none. */
RF_MUST_USE enum rf_status rf_db_int(struct rf_db *db, int64_t *out, int64_t otherwise,
                                     struct rf_error *err, const char *format, ...);

/* Let all statements until rf_db_let_go see one state, unless a transaction is open already. What
 * it returns goes to rf_db_let_go. */
bool rf_db_hold(struct rf_db *db);
void rf_db_let_go(struct rf_db *db, bool held);

/* Text of a column, "" for null; valid until the next step. */
const char *rf_db_text(sqlite3_stmt *stmt, int column);
struct rf_bytes rf_db_bytes(sqlite3_stmt *stmt, int column);

/* "YYYY-MM-DDThh:mm:ss.ffffffZ" to microseconds; INT64_MIN when it is not that. */
int64_t rf_db_time(const char *text);

#endif
