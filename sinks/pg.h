/*
 * pg.h - one connection to a PostgreSQL server, made easy
 *
 * The only file of ours that sees libpq is pg.c. A URL is
 *
 *   postgresql://[USER@]HOST[:PORT]/DATABASE[?PARAMETER=VALUE&...]#SCHEMA
 *
 * (postgres:// too), its query any parameter of libpq but a password: that comes from passfile,
 * service or the environment. The schema is where every name without one is looked for. Values
 * travel as binary parameters; names and fixed texts are put into a statement quoted.
 *
 * A failure gets words from the server and a status that says what to do:
 *
 *   RF_UNAVAILABLE  not reached, connection lost, deadlock, shutting down: later again
 *   RF_INVALID      a value was refused (SQLSTATE 22, 23, 44, 54, P0): set the row aside
 *   RF_DENIED       user, password or right is missing, or the server only reads
 *   RF_NOT_FOUND    no such database or schema
 *   RF_CORRUPT      a table, column or function is not what it should be (SQLSTATE 42)
 *   RF_CANCELLED    rf_pg_each or rf_pg_set_poll interrupted it
 *   RF_IO           anything else, a full disk first of all
 *
 * One thread per connection.
 */
#ifndef RF_SINKS_PG_H
#define RF_SINKS_PG_H

#include "core/buf.h"
#include "core/bytes.h"
#include "core/error.h"
#include "sinks/query.h"

struct rf_pg;
struct rf_pg_rows;

/* ---- connection ---- */

/* Connect, at most ten seconds or the URL's connect_timeout. RF_INVALID: the URL, with what is
 * wrong in it. RF_UNSUPPORTED: a server before 12, or a database that is not in UTF-8. */
RF_MUST_USE enum rf_status rf_pg_open(struct rf_pg **out, const char *url, struct rf_error *err);
void rf_pg_close(struct rf_pg *pg);

/* Connect again when the connection was lost; nothing when it stands. */
RF_MUST_USE enum rf_status rf_pg_reconnect(struct rf_pg *pg, struct rf_error *err);

const char *rf_pg_name(const struct rf_pg *pg);   /* for words: the URL without parameters */
const char *rf_pg_schema(const struct rf_pg *pg);
/* SQLSTATE of the last failure; "" when it was not the server's. */
const char *rf_pg_state(const struct rf_pg *pg);
bool rf_pg_is_lost(const struct rf_pg *pg);
/* The row of a COPY that it was about, from 1; 0: not known. */
size_t rf_pg_bad_row(const struct rf_pg *pg);
/* Changes whenever a new connection was made. */
uint64_t rf_pg_session(const struct rf_pg *pg);
bool rf_pg_in_transaction(const struct rf_pg *pg);
/* While the server works on a query, run or stream, poll is called some ten times a second; true
 * cancels the statement, which fails with RF_CANCELLED. NULL: it is waited for. */
void rf_pg_set_poll(struct rf_pg *pg, bool (*poll)(void *user), void *user);

/* ---- statements ---- */

/* Append SQL: %w a name (within double quotes written by the caller), %Q a text as a literal or
 * NULL, %s as it is, %d int, %u unsigned, %lld long long, %zu size_t, %%. */
void rf_pg_put_sql(struct rf_buf *out, const char *format, ...);

/* Run statements of such a format; results are dropped. */
RF_MUST_USE enum rf_status rf_pg_exec(struct rf_pg *pg, struct rf_error *err, const char *format,
                                      ...);

/*
 * One statement with parameters $1, $2, ... of these kinds:
 *   i int64_t  o int (boolean)  t const char *, NULL: null  b struct rf_bytes as text, data NULL:
 *   null  x struct rf_bytes as bytea  m int64_t us as timestamptz, INT64_MIN: null
 *   I const int64_t *, size_t: bigint[]  T const char *const *, size_t: text[], NULL: null
 *   M const int64_t *, size_t: timestamptz[], INT64_MIN: null
 */
RF_MUST_USE enum rf_status rf_pg_query(struct rf_pg *pg, struct rf_pg_rows **out,
                                       struct rf_error *err, const char *sql, const char *kinds,
                                       ...);
/* The same for its effect alone; *changed (may be NULL): rows that it concerned. */
RF_MUST_USE enum rf_status rf_pg_run(struct rf_pg *pg, int64_t *changed, struct rf_error *err,
                                     const char *sql, const char *kinds, ...);
/* The first column of its first row, or otherwise. */
RF_MUST_USE enum rf_status rf_pg_int(struct rf_pg *pg, int64_t *out, int64_t otherwise,
                                     struct rf_error *err, const char *sql, const char *kinds,
                                     ...);

/* ---- rows ---- */

void rf_pg_rows_free(struct rf_pg_rows *rows);
size_t rf_pg_count(const struct rf_pg_rows *rows);
bool rf_pg_is_null(const struct rf_pg_rows *rows, size_t row, int column);
/* bool, smallint, integer, bigint, oid; 0 for null. */
int64_t rf_pg_int_at(const struct rf_pg_rows *rows, size_t row, int column);
double rf_pg_float_at(const struct rf_pg_rows *rows, size_t row, int column);
/* Text with a NUL behind it, "" for null; lent until the rows are freed. */
const char *rf_pg_text_at(const struct rf_pg_rows *rows, size_t row, int column);
/* Any type's bytes; data NULL: null. */
struct rf_bytes rf_pg_bytes_at(const struct rf_pg_rows *rows, size_t row, int column);
/* timestamptz in us; INT64_MIN for null. */
int64_t rf_pg_time_at(const struct rf_pg_rows *rows, size_t row, int column);

/* ---- several statements in one round trip ---- */

/* Statements sent between begin and end run in order; the first failure stops those behind it. What
 * they may answer is small: counts, no rows. */
RF_MUST_USE enum rf_status rf_pg_pipe_begin(struct rf_pg *pg, struct rf_error *err);
RF_MUST_USE enum rf_status rf_pg_pipe_run(struct rf_pg *pg, struct rf_error *err, const char *sql,
                                          const char *kinds, ...);
/* changed[i] (may be NULL): rows that statement i concerned, for as many as were sent. */
RF_MUST_USE enum rf_status rf_pg_pipe_end(struct rf_pg *pg, int64_t *changed,
                                          struct rf_error *err);

/* ---- many rows in ---- */

/* One row in binary COPY's form: begin with the number of its columns, then each. */
void rf_pg_row_begin(struct rf_buf *buf, uint16_t columns);
void rf_pg_put_null(struct rf_buf *buf);
void rf_pg_put_bigint(struct rf_buf *buf, int64_t value);
void rf_pg_put_smallint(struct rf_buf *buf, int16_t value);
void rf_pg_put_int(struct rf_buf *buf, int32_t value);
void rf_pg_put_float(struct rf_buf *buf, double value);
void rf_pg_put_bool(struct rf_buf *buf, bool value);
void rf_pg_put_text(struct rf_buf *buf, struct rf_bytes text);    /* data NULL: null */
void rf_pg_put_time(struct rf_buf *buf, int64_t us);              /* INT64_MIN: null */

/* COPY `target` ("\"table\"(a, b)") FROM STDIN: rows as encoded above, in pieces of whole rows. */
RF_MUST_USE enum rf_status rf_pg_copy(struct rf_pg *pg, const char *target,
                                      const struct rf_bytes *pieces, size_t count,
                                      struct rf_error *err);

/* The other way: what `query` gives, in the same form, to the end of out. RF_LIMIT: more than out
 * takes; the connection is fine. */
RF_MUST_USE enum rf_status rf_pg_copy_out(struct rf_pg *pg, const char *query, struct rf_buf *out,
                                          struct rf_error *err);

/* ---- many rows out ---- */

/* The rows of a query as a stream, by a cursor: a transaction must be open, and several streams may
 * be. Memory: some 4 MiB, or one row. */
struct rf_pg_stream;
RF_MUST_USE enum rf_status rf_pg_stream_open(struct rf_pg *pg, struct rf_pg_stream **out,
                                             struct rf_error *err, const char *sql,
                                             const char *kinds, ...);
/* The next row: row *at of *rows, lent until the next call. RF_END behind the last. */
RF_MUST_USE enum rf_status rf_pg_stream_next(struct rf_pg_stream *stream,
                                             const struct rf_pg_rows **rows, size_t *at,
                                             struct rf_error *err);
void rf_pg_stream_close(struct rf_pg_stream *stream);

/*
 * One statement of a person's, row by row as it comes, as in rf_query_sql: numbers as numbers,
 * times as "YYYY-MM-DDThh:mm:ss.ffffffZ", bytea as bytes, all else as text; *interrupted is polled
 * (may be NULL). Its errors are RF_INVALID with the server's words and the place,
 * RF_END when there is no statement in it.
 */
RF_MUST_USE enum rf_status rf_pg_each(struct rf_pg *pg, const char *sql,
                                      void (*header)(void *user, size_t count,
                                                     const char *const *names),
                                      rf_query_visit visit, void *user,
                                      const volatile int *interrupted, struct rf_error *err);

#endif
