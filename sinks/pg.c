/*
 * pg.c - PostgreSQL by libpq: connecting, statements, COPY, and what a failure means
 *
 * Connecting goes step by step (PQconnectPoll) and not by PQconnectdb, because only so can libpq be
 * asked beforehand to put the SQLSTATE into the words of a refusal: words alone come in the
 * server's language. A connection's settings are made by one statement, so that what a server or a
 * role has as its defaults (time zone, time limits, search path) changes nothing here.
 */
#include "sinks/pg.h"

#include "core/load.h"
#include "core/row.h"
#include "core/utf8.h"

#include <assert.h>
#include <libpq-fe.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define CONNECT_SECONDS 10
#define SERVER_VERSION_MIN 120000 /* generated columns */
#define EPOCH_US 946684800000000  /* 2000-01-01 in us since 1970: PostgreSQL's zero */
#define PARAMS_MAX 16
#define SQL_MAX (4u << 20)
#define STREAM_ROWS 1000
#define STREAM_BYTES (4u << 20)
#define STREAM_FIRST 16
#define POLL_MS 100 /* between looks at `interrupted` */
#define SCHEMA_MAX 48

enum { OID_BOOL = 16, OID_BYTEA = 17, OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23, OID_TEXT = 25,
       OID_OID = 26, OID_FLOAT4 = 700, OID_FLOAT8 = 701, OID_TEXT_ARRAY = 1009,
       OID_INT8_ARRAY = 1016, OID_TIMESTAMPTZ = 1184, OID_TIMESTAMPTZ_ARRAY = 1185,
       OID_NUMERIC = 1700 };

/* ---- libpq, loaded at the first connection (core/load.h) ---- */

#define FUNCTIONS(X)                                                                            \
    X(PQcancel) X(PQclear) X(PQcmdTuples) X(PQconnectPoll) X(PQconnectStartParams)              \
    X(PQconnectionNeedsPassword) X(PQconninfo)                                                  \
    X(PQconninfoFree) X(PQconninfoParse) X(PQconsumeInput) X(PQenterPipelineMode)               \
    X(PQerrorMessage) X(PQexec) X(PQexecParams) X(PQexitPipelineMode) X(PQfinish) X(PQfname)    \
    X(PQfreeCancel) X(PQfreemem) X(PQftype) X(PQgetCancel) X(PQgetCopyData) X(PQgetResult)      \
    X(PQgetisnull)                                                                              \
    X(PQgetlength) X(PQgetvalue) X(PQisBusy) X(PQnfields) X(PQntuples) X(PQparameterStatus)     \
    X(PQpipelineSync) X(PQputCopyData) X(PQputCopyEnd) X(PQresultErrorField)                    \
    X(PQresultMemorySize) X(PQresultStatus) X(PQsendQueryParams) X(PQserverVersion)             \
    X(PQsetErrorVerbosity) X(PQsetNoticeReceiver) X(PQsetSingleRowMode) X(PQsocket) X(PQstatus) \
    X(PQtransactionStatus) X(PQunescapeBytea)
#define MEMBER(name) __typeof__(&(name))(name);
#define SYMBOL(name) {#name, &pq.name},

static struct {
    FUNCTIONS(MEMBER)
} pq;
static pthread_once_t pq_once = PTHREAD_ONCE_INIT;
static struct rf_error pq_error;

static void load_functions(void)
{
    static const struct rf_symbol symbols[] = {FUNCTIONS(SYMBOL)};

    (void)!rf_load("libpq.so.5", "libpq5", symbols, sizeof symbols / sizeof *symbols, &pq_error);
}

static enum rf_status load_libpq(struct rf_error *err)
{
    pthread_once(&pq_once, load_functions);
    return pq_error.status ? rf_error_set(err, pq_error.status, "%s", pq_error.message) : RF_OK;
}

struct rf_pg {
    PGconn *conn;
    char *url, *name;
    char schema[SCHEMA_MAX + 1];
    char state[6]; /* SQLSTATE of the last failure, or empty */
    uint64_t session;
    unsigned streams; /* made so far: their names */
    size_t piped;     /* statements sent into the pipeline */
    size_t bad_row;   /* of the last COPY that failed, from 1; 0: not known */
    bool (*poll)(void *user); /* may be NULL, see rf_pg_set_poll */
    void *poll_user;
};

/* A PGresult by our name: never made, only cast to. */
static const PGresult *result_of(const struct rf_pg_rows *rows)
{
    return (const PGresult *)rows;
}

const char *rf_pg_name(const struct rf_pg *pg)
{
    return pg->name;
}

const char *rf_pg_schema(const struct rf_pg *pg)
{
    return pg->schema;
}

const char *rf_pg_state(const struct rf_pg *pg)
{
    return pg->state;
}

bool rf_pg_is_lost(const struct rf_pg *pg)
{
    return pq.PQstatus(pg->conn) != CONNECTION_OK;
}

size_t rf_pg_bad_row(const struct rf_pg *pg)
{
    return pg->bad_row;
}

uint64_t rf_pg_session(const struct rf_pg *pg)
{
    return pg->session;
}

bool rf_pg_in_transaction(const struct rf_pg *pg)
{
    PGTransactionStatusType status = pq.PQtransactionStatus(pg->conn);

    return status == PQTRANS_INTRANS || status == PQTRANS_INERROR || status == PQTRANS_ACTIVE;
}

void rf_pg_set_poll(struct rf_pg *pg, bool (*poll)(void *user), void *user)
{
    pg->poll = poll;
    pg->poll_user = user;
}

/* ---- failures ---- */

static bool is_class(const char *state, const char *prefix)
{
    return strncmp(state, prefix, strlen(prefix)) == 0;
}

static enum rf_status status_of(const char *state)
{
    static const struct {
        const char *prefix;
        enum rf_status status;
    } meanings[] = {
        {"08", RF_UNAVAILABLE},    {"40", RF_UNAVAILABLE},    {"57P", RF_UNAVAILABLE},
        {"57014", RF_UNAVAILABLE}, {"55P03", RF_UNAVAILABLE}, {"53300", RF_UNAVAILABLE},
        {"53200", RF_UNAVAILABLE}, {"22", RF_INVALID},        {"23", RF_INVALID},
        {"44", RF_INVALID},        {"P0", RF_INVALID}, /* a trigger's own words */
        {"54", RF_INVALID},        {"28", RF_DENIED},         {"25006", RF_DENIED},
        {"42501", RF_DENIED},      {"3D", RF_NOT_FOUND},      {"3F", RF_NOT_FOUND},
        {"42", RF_CORRUPT},
    };

    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
        if (is_class(state, meanings[i].prefix))
            return meanings[i].status;
    return RF_IO;
}

/* What a person can do about it; "" when the words say it all. */
static const char *advice_of(const char *state)
{
    if (is_class(state, "53100"))
        return "; make room on the server's disk and run again";
    if (is_class(state, "28"))
        return "; look at the user in the URL, at passfile, and at the server's pg_hba.conf";
    if (is_class(state, "3D"))
        return "; make it with 'createdb'";
    if (is_class(state, "25006"))
        return "; it is a standby or set to read only: name the primary";
    if (is_class(state, "42501"))
        return "; grant it to the user in the URL";
    return "";
}

static void keep_state(struct rf_pg *pg, const char *state)
{
    snprintf(pg->state, sizeof pg->state, "%s", state ? state : "");
}

/* The first line of libpq's words. */
static int line_size(const char *words)
{
    return (int)strcspn(words, "\n");
}

static enum rf_status lost(struct rf_pg *pg, struct rf_error *err)
{
    const char *words = pq.PQerrorMessage(pg->conn);

    keep_state(pg, "");
    return rf_error_set(err, RF_UNAVAILABLE, "connection to index '%s' was lost: %.*s", pg->name,
                        line_size(words), words);
}

/* Words and status of a result that is an error. */
static enum rf_status fail(struct rf_pg *pg, const PGresult *result, struct rf_error *err)
{
    const char *state = result ? pq.PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
    const char *words = result ? pq.PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    const char *detail = result ? pq.PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL) : NULL;
    const char *context = result ? pq.PQresultErrorField(result, PG_DIAG_CONTEXT) : NULL;
    const char *line = context ? strstr(context, ", line ") : NULL;

    pg->bad_row = line ? (size_t)strtoul(line + 7, NULL, 10) : 0;

    if (!state || !words)
        return rf_pg_is_lost(pg) || !result ? lost(pg, err)
                                            : rf_error_set(err, RF_IO, "index '%s': %.*s", pg->name,
                                                           line_size(pq.PQerrorMessage(pg->conn)),
                                                           pq.PQerrorMessage(pg->conn));
    keep_state(pg, state);
    return rf_error_set(err, status_of(state), "index '%s': %s%s%.200s%s%s", pg->name, words,
                        detail ? " (" : "", detail ? detail : "", detail ? ")" : "",
                        advice_of(state));
}

/* ---- the URL ---- */

static enum rf_status bad_url(const char *url, struct rf_error *err, const char *why)
{
    return rf_error_set(err, RF_INVALID, "cannot use sink '%.*s': %s", (int)strcspn(url, "?"), url,
                        why);
}

static enum rf_status check_schema(const char *url, const char *schema, struct rf_error *err)
{
    size_t size = strspn(schema, "abcdefghijklmnopqrstuvwxyz0123456789_");
    char shown[RF_SHORT_SIZE];

    if (size == 0 || size > SCHEMA_MAX || schema[size] || schema[0] < 'a' || schema[0] > 'z')
        return rf_error_set(err, RF_INVALID,
                            "cannot use sink '%.*s': '%s' cannot be the name of a schema: a "
                            "letter, then letters, digits or '_', all lower case, at most %d",
                            (int)strcspn(url, "?#"), url, rf_utf8_short(shown, schema),
                            SCHEMA_MAX);
    if (strncmp(schema, "pg_", 3) == 0 || strcmp(schema, "public") == 0 ||
        strcmp(schema, "information_schema") == 0)
        return rf_error_set(err, RF_INVALID,
                            "cannot use sink '%.*s': schema '%s' is not ours to fill; name another "
                            "behind '#'",
                            (int)strcspn(url, "?#"), url, schema);
    return RF_OK;
}

static enum rf_status check_secrets(const char *url, const char *without, struct rf_error *err)
{
    char *words = NULL;
    PQconninfoOption *options = pq.PQconninfoParse(without, &words);
    bool secret = false;
    enum rf_status status = RF_OK;

    if (!options) {
        char why[256];
        snprintf(why, sizeof why, "%.*s", words ? line_size(words) : 0, words ? words : "");
        pq.PQfreemem(words);
        return bad_url(url, err, why);
    }
    for (PQconninfoOption *o = options; o->keyword; o++)
        secret |= o->val && (strcmp(o->keyword, "password") == 0 ||
                             strcmp(o->keyword, "sslpassword") == 0);
    pq.PQconninfoFree(options);
    if (secret) /* its words must not hold the URL */
        status = rf_error_set(err, RF_INVALID,
                              "cannot use a URL with a password in it: put the password into a "
                              "file that only you can read and name it by '?passfile=PATH' "
                              "(or ~/.pgpass)");
    return status;
}

/* Split and check; url becomes what libpq is given. */
static enum rf_status take_url(struct rf_pg *pg, const char *url, struct rf_error *err)
{
    const char *hash = strchr(url, '#');
    enum rf_status status;

    if (hash && strchr(hash + 1, '#')) /* the words do not hold the URL: it may be of a password */
        return rf_error_set(err, RF_INVALID,
                            "cannot use a sink's URL with more than one '#': one stands before the "
                            "schema, any other is written %%23");
    if (!hash || !hash[1])
        return bad_url(url, err, "name the schema of the index: "
                                 "postgresql://USER@HOST/DATABASE#SCHEMA");
    pg->url = strndup(url, (size_t)(hash - url));
    if (!pg->url)
        abort();
    status = check_secrets(url, pg->url, err);
    if (!status)
        status = check_schema(url, hash + 1, err);
    if (status)
        return status;
    snprintf(pg->schema, sizeof pg->schema, "%s", hash + 1);
    if (asprintf(&pg->name, "%.*s#%s", (int)strcspn(pg->url, "?"), pg->url, pg->schema) < 0)
        abort();
    return RF_OK;
}

/* ---- connecting ---- */

static int64_t clock_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int connect_ms(PGconn *conn)
{
    PQconninfoOption *options = pq.PQconninfo(conn);
    long seconds = 0;

    for (PQconninfoOption *o = options; o && o->keyword; o++)
        if (strcmp(o->keyword, "connect_timeout") == 0 && o->val)
            seconds = strtol(o->val, NULL, 10);
    pq.PQconninfoFree(options);
    if (seconds <= 0)
        seconds = CONNECT_SECONDS;
    return seconds > 3600 ? 3600000 : (int)seconds * 1000;
}

/* False: not connected within its time, or refused. */
static bool finish_connecting(PGconn *conn)
{
    int64_t until = clock_ms() + connect_ms(conn);
    PostgresPollingStatusType state = PGRES_POLLING_WRITING;

    while (state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED) {
        struct pollfd fd = {.fd = pq.PQsocket(conn),
                            .events = state == PGRES_POLLING_READING ? POLLIN : POLLOUT};
        int64_t left = until - clock_ms();
        if (left <= 0 || fd.fd < 0)
            return false;
        if (poll(&fd, 1, (int)left) == 0)
            return false;
        state = pq.PQconnectPoll(conn);
    }
    return state == PGRES_POLLING_OK;
}

/* What libpq says of each host it tried, in one line; the hints between them are left out. */
static void join_words(const char *words, char *out, size_t size)
{
    size_t used = 0;

    out[0] = '\0';
    for (int length; *words && used < size; words += length + (words[length] == '\n')) {
        length = line_size(words);
        if (*words != '\t' && length)
            used += (size_t)snprintf(out + used, size - used, "%s%.*s", used ? "; " : "", length,
                                     words);
    }
}

/* What to do about a refusal on our side of the wire, where there is no SQLSTATE; NULL: it is none,
 * and trying again may help. */
static const char *own_refusal(const struct rf_pg *pg, const char *words)
{
    if (pq.PQconnectionNeedsPassword(pg->conn))
        return advice_of("28");
    if (strstr(words, "certificate")) /* libpq has no other sign of it */
        return "; look at sslmode and sslrootcert in the URL, and at the server's certificate";
    return NULL;
}

/* Why the server was not reached; its SQLSTATE stands in the words. */
static enum rf_status refused(struct rf_pg *pg, struct rf_error *err)
{
    const char *words = pq.PQerrorMessage(pg->conn), *fatal = strstr(words, "FATAL:  ");
    const char *advice = own_refusal(pg, words);
    char line[600];
    size_t size;

    if (!fatal) {
        join_words(words[0] ? words : "no answer in time", line, sizeof line);
        return rf_error_set(err, advice ? RF_DENIED : RF_UNAVAILABLE,
                            "cannot %s index '%s': %s%s", advice ? "open" : "reach", pg->name,
                            line, advice ? advice : "");
    }
    fatal += 8;
    size = strspn(fatal, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    if (size == 5 && fatal[5] == ':') {
        char state[6];
        snprintf(state, sizeof state, "%.5s", fatal);
        keep_state(pg, state);
        fatal += 7;
    }
    return rf_error_set(err, pg->state[0] ? status_of(pg->state) : RF_UNAVAILABLE,
                        "cannot open index '%s': %.*s%s", pg->name, line_size(fatal), fatal,
                        advice_of(pg->state));
}

static void drop_notice(void *user, const PGresult *result)
{
    (void)user;
    (void)result;
}

static enum rf_status check_server(struct rf_pg *pg, struct rf_error *err)
{
    const char *encoding = pq.PQparameterStatus(pg->conn, "server_encoding");

    if (pq.PQserverVersion(pg->conn) < SERVER_VERSION_MIN)
        return rf_error_set(err, RF_UNSUPPORTED,
                            "cannot use index '%s': the server is PostgreSQL %d, needed is 12 or "
                            "newer",
                            pg->name, pq.PQserverVersion(pg->conn) / 10000);
    if (!encoding || strcmp(encoding, "UTF8") != 0)
        return rf_error_set(err, RF_UNSUPPORTED,
                            "cannot use index '%s': its database is in %s, needed is UTF8; make "
                            "one with 'createdb -E UTF8 -T template0'",
                            pg->name, encoding ? encoding : "another encoding");
    return RF_OK;
}

static enum rf_status connect_now(struct rf_pg *pg, struct rf_error *err)
{
    const char *const names[] = {"fallback_application_name", "keepalives_idle",
                                 "keepalives_interval", "keepalives_count", "tcp_user_timeout",
                                 "dbname", "client_encoding", NULL};
    const char *const values[] = {"refuge", "30", "10", "3", "60000", pg->url, "UTF8", NULL};
    enum rf_status status;

    keep_state(pg, "");
    pg->conn = pq.PQconnectStartParams(names, values, 1);
    if (!pg->conn)
        abort();
    pq.PQsetErrorVerbosity(pg->conn, PQERRORS_VERBOSE);
    if (pq.PQstatus(pg->conn) == CONNECTION_BAD || !finish_connecting(pg->conn))
        return refused(pg, err);
    pq.PQsetErrorVerbosity(pg->conn, PQERRORS_DEFAULT);
    pq.PQsetNoticeReceiver(pg->conn, drop_notice, NULL);
    pg->session++;
    status = check_server(pg, err);
    return status ? status
                  : rf_pg_exec(pg, err,
                               "SET search_path = \"%w\"; SET client_min_messages = warning; "
                               "SET standard_conforming_strings = on; SET datestyle = 'ISO'; "
                               "SET intervalstyle = 'postgres'; SET timezone = 'UTC'; "
                               "SET bytea_output = 'hex'; SET statement_timeout = 0; "
                               "SET lock_timeout = 0; SET row_security = off; "
                               "SET idle_in_transaction_session_timeout = 0; "
                               "SET default_transaction_isolation = 'read committed'",
                               pg->schema);
}

enum rf_status rf_pg_open(struct rf_pg **out, const char *url, struct rf_error *err)
{
    struct rf_pg *pg = calloc(1, sizeof *pg);
    enum rf_status status;

    if (!pg)
        abort();
    status = load_libpq(err);
    if (!status)
        status = take_url(pg, url, err);
    if (!status)
        status = connect_now(pg, err);
    if (status) {
        rf_pg_close(pg);
        return status;
    }
    *out = pg;
    return RF_OK;
}

void rf_pg_close(struct rf_pg *pg)
{
    if (!pg)
        return;
    if (pg->conn)
        pq.PQfinish(pg->conn);
    free(pg->url);
    free(pg->name);
    free(pg);
}

enum rf_status rf_pg_reconnect(struct rf_pg *pg, struct rf_error *err)
{
    if (!rf_pg_is_lost(pg))
        return RF_OK;
    pq.PQfinish(pg->conn);
    return connect_now(pg, err);
}

/* ---- texts of statements ---- */

static void put_doubled(struct rf_buf *out, const char *text, char quote)
{
    for (; *text; text++) {
        if (*text == quote)
            rf_buf_put_u8(out, (uint8_t)quote);
        rf_buf_put_u8(out, (uint8_t)*text);
    }
}

/* standard_conforming_strings is on: within quotes only the quote itself is special. */
static void put_literal(struct rf_buf *out, const char *text)
{
    if (!text) {
        rf_buf_put_text(out, "NULL");
        return;
    }
    rf_buf_put_u8(out, '\'');
    put_doubled(out, text, '\'');
    rf_buf_put_u8(out, '\'');
}

static void put_sql(struct rf_buf *out, const char *format, va_list args)
{
    for (; *format; format++) {
        if (*format != '%') {
            size_t size = strcspn(format, "%");
            rf_buf_put(out, format, size);
            format += size - 1;
            continue;
        }
        format++;
        if (*format == 'w')
            put_doubled(out, va_arg(args, const char *), '"');
        else if (*format == 'Q')
            put_literal(out, va_arg(args, const char *));
        else if (*format == 's')
            rf_buf_put_text(out, va_arg(args, const char *));
        else if (*format == 'd')
            rf_buf_printf(out, "%d", va_arg(args, int));
        else if (*format == 'u')
            rf_buf_printf(out, "%u", va_arg(args, unsigned));
        else if (strncmp(format, "lld", 3) == 0)
            rf_buf_printf(out, "%lld", va_arg(args, long long));
        else if (strncmp(format, "zu", 2) == 0)
            rf_buf_printf(out, "%zu", va_arg(args, size_t));
        else if (*format == '%')
            rf_buf_put_u8(out, '%');
        else
            assert(!"a known format");
        format += *format == 'l' ? 2 : *format == 'z' ? 1 : 0;
    }
}

void rf_pg_put_sql(struct rf_buf *out, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    put_sql(out, format, args);
    va_end(args);
}

static bool is_fine(const PGresult *result)
{
    ExecStatusType kind = pq.PQresultStatus(result);

    return kind == PGRES_COMMAND_OK || kind == PGRES_TUPLES_OK;
}

enum rf_status rf_pg_exec(struct rf_pg *pg, struct rf_error *err, const char *format, ...)
{
    struct rf_buf sql;
    PGresult *result;
    va_list args;
    enum rf_status status = RF_OK;

    rf_buf_init(&sql, SQL_MAX);
    va_start(args, format);
    put_sql(&sql, format, args);
    va_end(args);
    if (!rf_buf_text(&sql)) {
        status = rf_error_set(err, sql.failed, "a statement for index '%s' is too long", pg->name);
        rf_buf_release(&sql);
        return status;
    }
    result = pq.PQexec(pg->conn, rf_buf_text(&sql));
    if (!is_fine(result))
        status = fail(pg, result, err);
    pq.PQclear(result);
    rf_buf_release(&sql);
    return status;
}

/* ---- parameters ---- */

/* Values of one statement in binary form: fixed ones in `fixed`, arrays in `arrays`. */
struct params {
    int count;
    Oid types[PARAMS_MAX];
    const char *values[PARAMS_MAX];
    int sizes[PARAMS_MAX], formats[PARAMS_MAX];
    uint8_t fixed[PARAMS_MAX][8];
    struct rf_buf arrays[PARAMS_MAX];
    int array_count;
};

static void put_be(uint8_t *out, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
}

static uint64_t get_be(const uint8_t *in, size_t size)
{
    uint64_t value = 0;

    for (size_t i = 0; i < size; i++)
        value = value << 8 | in[i];
    return value;
}

static void buf_put_be(struct rf_buf *out, uint64_t value, size_t size)
{
    uint8_t bytes[8];

    put_be(bytes, value, size);
    rf_buf_put(out, bytes, size);
}

static void set_param(struct params *params, Oid type, const void *value, size_t size)
{
    int i = params->count++;

    assert(i < PARAMS_MAX);
    params->types[i] = type;
    params->values[i] = value;
    params->sizes[i] = (int)size;
    params->formats[i] = 1;
}

static void set_number(struct params *params, Oid type, uint64_t value, size_t size)
{
    uint8_t *fixed = params->fixed[params->count];

    put_be(fixed, value, size);
    set_param(params, type, fixed, size);
}

static struct rf_buf *begin_array(struct params *params, Oid element, size_t count)
{
    struct rf_buf *out = &params->arrays[params->array_count++];

    rf_buf_init(out, INT32_MAX);
    buf_put_be(out, count ? 1 : 0, 4); /* dimensions, nulls, type, length, lower bound */
    buf_put_be(out, 1, 4);
    buf_put_be(out, element, 4);
    if (count) {
        buf_put_be(out, count, 4);
        buf_put_be(out, 1, 4);
    }
    return out;
}

static void set_ints(struct params *params, const int64_t *items, size_t count)
{
    struct rf_buf *out = begin_array(params, OID_INT8, count);

    for (size_t i = 0; i < count; i++) {
        buf_put_be(out, 8, 4);
        buf_put_be(out, (uint64_t)items[i], 8);
    }
    set_param(params, OID_INT8_ARRAY, out->data, out->size);
}

static void set_texts(struct params *params, const char *const *items, size_t count)
{
    struct rf_buf *out = begin_array(params, OID_TEXT, count);

    for (size_t i = 0; i < count; i++) {
        size_t size = items[i] ? strlen(items[i]) : 0;
        buf_put_be(out, items[i] ? size : UINT32_MAX, 4);
        rf_buf_put(out, items[i], size);
    }
    set_param(params, OID_TEXT_ARRAY, out->data, out->size);
}

static void set_times(struct params *params, const int64_t *items, size_t count)
{
    struct rf_buf *out = begin_array(params, OID_TIMESTAMPTZ, count);

    for (size_t i = 0; i < count; i++) {
        buf_put_be(out, items[i] == INT64_MIN ? UINT32_MAX : 8, 4);
        if (items[i] != INT64_MIN)
            buf_put_be(out, (uint64_t)(items[i] - EPOCH_US), 8);
    }
    set_param(params, OID_TIMESTAMPTZ_ARRAY, out->data, out->size);
}

static void set_bytes(struct params *params, Oid type, struct rf_bytes bytes)
{
    /* libpq takes a null pointer for null; an empty text has somewhere to point. */
    set_param(params, type, bytes.data ? (const void *)bytes.data : NULL, bytes.size);
}

static void params_init(struct params *params, const char *kinds, va_list args)
{
    const int64_t *ints;
    const char *const *texts;
    const char *text;
    int64_t number;

    params->count = params->array_count = 0;
    for (; *kinds; kinds++) {
        switch (*kinds) {
        case 'i':
            set_number(params, OID_INT8, (uint64_t)va_arg(args, int64_t), 8);
            break;
        case 'o':
            set_number(params, OID_BOOL, va_arg(args, int) != 0, 1);
            break;
        case 't':
            text = va_arg(args, const char *);
            set_bytes(params, OID_TEXT, text ? rf_bytes_text(text) : rf_bytes(NULL, 0));
            break;
        case 'b':
            set_bytes(params, OID_TEXT, va_arg(args, struct rf_bytes));
            break;
        case 'x':
            set_bytes(params, OID_BYTEA, va_arg(args, struct rf_bytes));
            break;
        case 'm':
            number = va_arg(args, int64_t);
            if (number == INT64_MIN)
                set_bytes(params, OID_TIMESTAMPTZ, rf_bytes(NULL, 0));
            else
                set_number(params, OID_TIMESTAMPTZ, (uint64_t)(number - EPOCH_US), 8);
            break;
        case 'I':
            ints = va_arg(args, const int64_t *);
            set_ints(params, ints, va_arg(args, size_t));
            break;
        case 'M':
            ints = va_arg(args, const int64_t *);
            set_times(params, ints, va_arg(args, size_t));
            break;
        case 'T':
            texts = va_arg(args, const char *const *);
            set_texts(params, texts, va_arg(args, size_t));
            break;
        default:
            assert(!"a known kind");
        }
    }
}

static bool params_failed(const struct params *params)
{
    for (int i = 0; i < params->array_count; i++)
        if (params->arrays[i].failed)
            return true;
    return false;
}

static void params_release(struct params *params)
{
    for (int i = 0; i < params->array_count; i++)
        rf_buf_release(&params->arrays[i]);
}

static void cancel(struct rf_pg *pg)
{
    PGcancel *handle = pq.PQgetCancel(pg->conn);
    char words[256];

    if (handle)
        (void)pq.PQcancel(handle, words, sizeof words); /* what it does not end, the close does */
    pq.PQfreeCancel(handle);
}

/* Wait for a result while looking whether somebody wants an end. */
static PGresult *next_result(struct rf_pg *pg, bool (*wants_end)(void *user), void *user,
                             bool *cancelled)
{
    while (wants_end && pq.PQisBusy(pg->conn)) {
        struct pollfd fd = {.fd = pq.PQsocket(pg->conn), .events = POLLIN};
        if (wants_end(user)) { /* again each time: one that comes before the statement is lost */
            *cancelled = true;
            cancel(pg);
        }
        if (poll(&fd, 1, POLL_MS) > 0 && !pq.PQconsumeInput(pg->conn))
            break;
    }
    return pq.PQgetResult(pg->conn);
}

/* As PQexecParams with results in binary form, polling. */
static PGresult *exec_params(struct rf_pg *pg, const char *sql, const struct params *params,
                             bool *cancelled)
{
    PGresult *result, *last = NULL;

    if (!pg->poll)
        return pq.PQexecParams(pg->conn, sql, params->count, params->types, params->values,
                               params->sizes, params->formats, 1);
    if (!pq.PQsendQueryParams(pg->conn, sql, params->count, params->types, params->values,
                              params->sizes, params->formats, 1))
        return NULL;
    while ((result = next_result(pg, pg->poll, pg->poll_user, cancelled)) != NULL) {
        pq.PQclear(last);
        last = result;
    }
    return last;
}

/* What a statement that failed says; nothing but that it was cancelled, if it was. */
static enum rf_status query_failed(struct rf_pg *pg, const PGresult *result, bool cancelled,
                                   struct rf_error *err)
{
    if (cancelled && !rf_pg_is_lost(pg))
        return rf_error_set(err, RF_CANCELLED, "the query was interrupted");
    return fail(pg, result, err);
}

static enum rf_status query(struct rf_pg *pg, PGresult **out, struct rf_error *err,
                            const char *sql, const char *kinds, va_list args)
{
    struct params params;
    PGresult *result = NULL;
    bool cancelled = false;
    enum rf_status status = RF_OK;

    params_init(&params, kinds, args);
    if (params_failed(&params))
        status = rf_error_set(err, RF_NOMEM, "no memory for a statement for index '%s'", pg->name);
    else
        result = exec_params(pg, sql, &params, &cancelled);
    params_release(&params);
    if (!status && !is_fine(result)) {
        status = query_failed(pg, result, cancelled, err);
        pq.PQclear(result);
        result = NULL;
    }
    *out = result;
    return status;
}

enum rf_status rf_pg_query(struct rf_pg *pg, struct rf_pg_rows **out, struct rf_error *err,
                           const char *sql, const char *kinds, ...)
{
    PGresult *result;
    va_list args;
    enum rf_status status;

    va_start(args, kinds);
    status = query(pg, &result, err, sql, kinds, args);
    va_end(args);
    *out = (struct rf_pg_rows *)result;
    return status;
}

static int64_t changed_by(PGresult *result)
{
    return strtoll(pq.PQcmdTuples(result), NULL, 10);
}

enum rf_status rf_pg_run(struct rf_pg *pg, int64_t *changed, struct rf_error *err, const char *sql,
                         const char *kinds, ...)
{
    PGresult *result;
    va_list args;
    enum rf_status status;

    va_start(args, kinds);
    status = query(pg, &result, err, sql, kinds, args);
    va_end(args);
    if (!status && changed)
        *changed = changed_by(result);
    pq.PQclear(result);
    return status;
}

enum rf_status rf_pg_int(struct rf_pg *pg, int64_t *out, int64_t otherwise, struct rf_error *err,
                         const char *sql, const char *kinds, ...)
{
    PGresult *result;
    va_list args;
    enum rf_status status;

    va_start(args, kinds);
    status = query(pg, &result, err, sql, kinds, args);
    va_end(args);
    *out = otherwise;
    if (!status && pq.PQntuples(result) > 0 && !pq.PQgetisnull(result, 0, 0))
        *out = rf_pg_int_at((const struct rf_pg_rows *)result, 0, 0);
    pq.PQclear(result);
    return status;
}

/* ---- rows ---- */

void rf_pg_rows_free(struct rf_pg_rows *rows)
{
    pq.PQclear((PGresult *)rows);
}

size_t rf_pg_count(const struct rf_pg_rows *rows)
{
    return rows ? (size_t)pq.PQntuples(result_of(rows)) : 0;
}

bool rf_pg_is_null(const struct rf_pg_rows *rows, size_t row, int column)
{
    return pq.PQgetisnull(result_of(rows), (int)row, column) != 0;
}

struct rf_bytes rf_pg_bytes_at(const struct rf_pg_rows *rows, size_t row, int column)
{
    const PGresult *result = result_of(rows);

    if (pq.PQgetisnull(result, (int)row, column))
        return rf_bytes(NULL, 0);
    return rf_bytes(pq.PQgetvalue(result, (int)row, column),
                    (size_t)pq.PQgetlength(result, (int)row, column));
}

int64_t rf_pg_int_at(const struct rf_pg_rows *rows, size_t row, int column)
{
    struct rf_bytes bytes = rf_pg_bytes_at(rows, row, column);

    switch (bytes.size) {
    case 1:
        return bytes.data[0];
    case 2:
        return (int16_t)get_be(bytes.data, 2);
    case 4:
        return pq.PQftype(result_of(rows), column) == OID_OID ? (int64_t)get_be(bytes.data, 4)
                                                           : (int32_t)get_be(bytes.data, 4);
    case 8:
        return (int64_t)get_be(bytes.data, 8);
    default:
        return 0;
    }
}

double rf_pg_float_at(const struct rf_pg_rows *rows, size_t row, int column)
{
    struct rf_bytes bytes = rf_pg_bytes_at(rows, row, column);
    double value = 0;
    float small;
    uint64_t bits;
    uint32_t small_bits;

    if (bytes.size == 8) {
        bits = get_be(bytes.data, 8);
        memcpy(&value, &bits, sizeof value);
    } else if (bytes.size == 4) {
        small_bits = (uint32_t)get_be(bytes.data, 4);
        memcpy(&small, &small_bits, sizeof small);
        value = (double)small;
    }
    return value;
}

const char *rf_pg_text_at(const struct rf_pg_rows *rows, size_t row, int column)
{
    return pq.PQgetvalue(result_of(rows), (int)row, column); /* "" for null */
}

int64_t rf_pg_time_at(const struct rf_pg_rows *rows, size_t row, int column)
{
    if (rf_pg_is_null(rows, row, column))
        return INT64_MIN;
    return rf_pg_int_at(rows, row, column) + EPOCH_US;
}

/* ---- several statements in one round trip ---- */

enum rf_status rf_pg_pipe_begin(struct rf_pg *pg, struct rf_error *err)
{
    pg->piped = 0;
    return pq.PQenterPipelineMode(pg->conn) ? RF_OK : lost(pg, err);
}

enum rf_status rf_pg_pipe_run(struct rf_pg *pg, struct rf_error *err, const char *sql,
                              const char *kinds, ...)
{
    struct params params;
    va_list args;
    int sent = 0;

    va_start(args, kinds);
    params_init(&params, kinds, args);
    va_end(args);
    if (!params_failed(&params))
        sent = pq.PQsendQueryParams(pg->conn, sql, params.count, params.types, params.values,
                                 params.sizes, params.formats, 1);
    params_release(&params);
    if (!sent)
        return lost(pg, err);
    pg->piped++;
    return RF_OK;
}

/* One statement's answer: its result and the NULL behind it. */
static enum rf_status take_piped(struct rf_pg *pg, int64_t *changed, struct rf_error *err)
{
    enum rf_status status = RF_OK;
    PGresult *result = pq.PQgetResult(pg->conn);

    if (!result)
        return lost(pg, err);
    if (pq.PQresultStatus(result) == PGRES_PIPELINE_ABORTED)
        status = RF_INVALID; /* one before it failed, with words */
    else if (!is_fine(result))
        status = fail(pg, result, err);
    else if (changed)
        *changed = changed_by(result);
    pq.PQclear(result);
    while ((result = pq.PQgetResult(pg->conn)) != NULL)
        pq.PQclear(result);
    return status;
}

enum rf_status rf_pg_pipe_end(struct rf_pg *pg, int64_t *changed, struct rf_error *err)
{
    enum rf_status status = RF_OK;
    PGresult *result;

    if (!pq.PQpipelineSync(pg->conn))
        status = lost(pg, err);
    for (size_t i = 0; i < pg->piped && !rf_pg_is_lost(pg); i++) {
        enum rf_status one = take_piped(pg, changed ? &changed[i] : NULL, err);
        status = status ? status : one;
    }
    pg->piped = 0;
    if (!rf_pg_is_lost(pg)) {
        result = pq.PQgetResult(pg->conn); /* of the sync */
        pq.PQclear(result);
    }
    if (!pq.PQexitPipelineMode(pg->conn) && !status)
        status = lost(pg, err);
    return status;
}

/* ---- COPY ---- */

void rf_pg_row_begin(struct rf_buf *buf, uint16_t columns)
{
    buf_put_be(buf, columns, 2);
}

void rf_pg_put_null(struct rf_buf *buf)
{
    buf_put_be(buf, UINT32_MAX, 4);
}

static void put_field(struct rf_buf *buf, uint64_t value, uint8_t size)
{
    uint8_t bytes[12] = {0, 0, 0, size};

    put_be(bytes + 4, value, size);
    rf_buf_put(buf, bytes, 4u + size);
}

void rf_pg_put_bigint(struct rf_buf *buf, int64_t value)
{
    put_field(buf, (uint64_t)value, 8);
}

void rf_pg_put_smallint(struct rf_buf *buf, int16_t value)
{
    put_field(buf, (uint16_t)value, 2);
}

void rf_pg_put_int(struct rf_buf *buf, int32_t value)
{
    put_field(buf, (uint32_t)value, 4);
}

void rf_pg_put_float(struct rf_buf *buf, double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof bits);
    put_field(buf, bits, 8);
}

void rf_pg_put_bool(struct rf_buf *buf, bool value)
{
    put_field(buf, value, 1);
}

void rf_pg_put_text(struct rf_buf *buf, struct rf_bytes text)
{
    if (!text.data) {
        rf_pg_put_null(buf);
        return;
    }
    buf_put_be(buf, text.size, 4);
    rf_buf_put(buf, text.data, text.size);
}

void rf_pg_put_time(struct rf_buf *buf, int64_t us)
{
    if (us == INT64_MIN)
        rf_pg_put_null(buf);
    else
        rf_pg_put_bigint(buf, us - EPOCH_US);
}

static enum rf_status send_pieces(struct rf_pg *pg, const struct rf_bytes *pieces, size_t count,
                                  struct rf_error *err)
{
    static const char head[19] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0"; /* signature, flags, no more */

    if (pq.PQputCopyData(pg->conn, head, sizeof head) != 1)
        return lost(pg, err);
    for (size_t i = 0; i < count; i++) {
        for (size_t at = 0, step; at < pieces[i].size; at += step) {
            step = pieces[i].size - at < (1u << 20) ? pieces[i].size - at : 1u << 20;
            if (pq.PQputCopyData(pg->conn, (const char *)pieces[i].data + at, (int)step) != 1)
                return lost(pg, err);
        }
    }
    if (pq.PQputCopyData(pg->conn, "\377\377", 2) != 1 || pq.PQputCopyEnd(pg->conn, NULL) != 1)
        return lost(pg, err);
    return RF_OK;
}

enum rf_status rf_pg_copy(struct rf_pg *pg, const char *target, const struct rf_bytes *pieces,
                          size_t count, struct rf_error *err)
{
    struct rf_buf sql;
    PGresult *result;
    enum rf_status status = RF_OK;

    rf_buf_init(&sql, SQL_MAX);
    rf_buf_printf(&sql, "COPY %s FROM STDIN (FORMAT binary)", target);
    result = pq.PQexec(pg->conn, rf_buf_text(&sql));
    rf_buf_release(&sql);
    if (pq.PQresultStatus(result) != PGRES_COPY_IN) {
        status = fail(pg, result, err);
        pq.PQclear(result);
        return status;
    }
    pq.PQclear(result);
    status = send_pieces(pg, pieces, count, err);
    while ((result = pq.PQgetResult(pg->conn)) != NULL) {
        if (!status && !is_fine(result))
            status = fail(pg, result, err);
        pq.PQclear(result);
        if (rf_pg_is_lost(pg))
            break;
    }
    return status || !rf_pg_is_lost(pg) ? status : lost(pg, err);
}

/* All rows, to the server's end of them, whatever out takes. */
static enum rf_status take_copied(struct rf_pg *pg, struct rf_buf *out, struct rf_error *err)
{
    size_t left = 19; /* of the head */
    char *data = NULL;
    int size;

    while ((size = pq.PQgetCopyData(pg->conn, &data, 0)) > 0) {
        size_t head = left < (size_t)size ? left : (size_t)size;
        rf_buf_put(out, data + head, (size_t)size - head);
        left -= head;
        pq.PQfreemem(data);
    }
    if (size == -2)
        return lost(pg, err);
    if (out->failed)
        return rf_error_set(err, RF_LIMIT, "index '%s' has more rows of some items than fit into "
                            "memory", pg->name);
    if (out->size >= 2)
        out->size -= 2; /* what marks the end */
    return RF_OK;
}

enum rf_status rf_pg_copy_out(struct rf_pg *pg, const char *query, struct rf_buf *out,
                              struct rf_error *err)
{
    struct rf_buf sql;
    PGresult *result;
    enum rf_status status = RF_OK;

    rf_buf_init(&sql, SQL_MAX);
    rf_buf_printf(&sql, "COPY (%s) TO STDOUT (FORMAT binary)", query);
    result = pq.PQexec(pg->conn, rf_buf_text(&sql));
    rf_buf_release(&sql);
    if (pq.PQresultStatus(result) != PGRES_COPY_OUT)
        status = fail(pg, result, err);
    pq.PQclear(result);
    if (status)
        return status;
    status = take_copied(pg, out, err);
    while ((result = pq.PQgetResult(pg->conn)) != NULL) {
        if (!status && !is_fine(result))
            status = fail(pg, result, err);
        pq.PQclear(result);
        if (rf_pg_is_lost(pg))
            break;
    }
    return status || !rf_pg_is_lost(pg) ? status : lost(pg, err);
}

/* ---- streams ---- */

struct rf_pg_stream {
    struct rf_pg *pg;
    unsigned number;
    PGresult *rows;
    size_t at, step; /* next row of `rows`; rows to ask for */
    bool last;       /* `rows` are the last */
};

enum rf_status rf_pg_stream_open(struct rf_pg *pg, struct rf_pg_stream **out,
                                 struct rf_error *err, const char *sql, const char *kinds, ...)
{
    struct rf_pg_stream *stream = calloc(1, sizeof *stream);
    struct rf_buf text;
    PGresult *result;
    va_list args;
    enum rf_status status;

    if (!stream)
        abort();
    assert(rf_pg_in_transaction(pg));
    stream->pg = pg;
    stream->number = ++pg->streams;
    stream->step = STREAM_FIRST;
    rf_buf_init(&text, SQL_MAX);
    rf_buf_printf(&text, "DECLARE refuge_%u NO SCROLL CURSOR FOR %s", stream->number, sql);
    va_start(args, kinds);
    status = query(pg, &result, err, rf_buf_text(&text), kinds, args);
    va_end(args);
    pq.PQclear(result);
    rf_buf_release(&text);
    if (status)
        free(stream);
    else
        *out = stream;
    return status;
}

static enum rf_status fetch(struct rf_pg_stream *stream, struct rf_error *err)
{
    struct rf_pg *pg = stream->pg;
    const struct params none = {0};
    size_t bytes = 0, count;
    bool cancelled = false;
    char sql[64];

    pq.PQclear(stream->rows);
    snprintf(sql, sizeof sql, "FETCH %zu FROM refuge_%u", stream->step, stream->number);
    stream->rows = exec_params(pg, sql, &none, &cancelled);
    stream->at = 0;
    if (!is_fine(stream->rows))
        return query_failed(pg, stream->rows, cancelled, err);
    count = (size_t)pq.PQntuples(stream->rows);
    stream->last = count < stream->step;
    bytes = pq.PQresultMemorySize(stream->rows) / (count ? count : 1);
    stream->step = bytes * STREAM_ROWS <= STREAM_BYTES ? STREAM_ROWS : STREAM_BYTES / bytes;
    if (stream->step == 0)
        stream->step = 1;
    return RF_OK;
}

enum rf_status rf_pg_stream_next(struct rf_pg_stream *stream, const struct rf_pg_rows **rows,
                                 size_t *at, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    if (!stream->rows || (stream->at == (size_t)pq.PQntuples(stream->rows) && !stream->last))
        status = fetch(stream, err);
    if (status)
        return status;
    if (stream->at == (size_t)pq.PQntuples(stream->rows))
        return RF_END;
    *rows = (const struct rf_pg_rows *)stream->rows;
    *at = stream->at++;
    return RF_OK;
}

void rf_pg_stream_close(struct rf_pg_stream *stream)
{
    struct rf_error ignored = {0};

    if (!stream)
        return;
    pq.PQclear(stream->rows);
    if (pq.PQtransactionStatus(stream->pg->conn) == PQTRANS_INTRANS)
        (void)!rf_pg_exec(stream->pg, &ignored, "CLOSE refuge_%u", stream->number);
    free(stream);
}

/* ---- a person's statement ---- */

static enum rf_status each_failed(struct rf_pg *pg, const PGresult *result, const char *sql,
                                  bool cancelled, struct rf_error *err)
{
    const char *state = pq.PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *words = pq.PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    const char *hint = pq.PQresultErrorField(result, PG_DIAG_MESSAGE_HINT);
    const char *place = pq.PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION);
    unsigned line = 1, column = 1;

    if (cancelled)
        return rf_error_set(err, RF_CANCELLED, "the query was interrupted");
    if (!state || !words || status_of(state) == RF_UNAVAILABLE)
        return fail(pg, result, err);
    keep_state(pg, state);
    if (is_class(state, "25006"))
        return rf_error_set(err, RF_INVALID,
                            "only reading is allowed here: the statement would do more (%s)",
                            words);
    if (!place)
        return rf_error_set(err, RF_INVALID, "%s%s%s%s", words, hint ? " (" : "",
                            hint ? hint : "", hint ? ")" : "");
    for (long left = strtol(place, NULL, 10) - 1; left > 0 && *sql; sql++) {
        if (((unsigned char)*sql & 0xc0) == 0x80)
            continue; /* places are counted in characters */
        column = *sql == '\n' ? 1 : column + 1;
        line += *sql == '\n';
        left--;
    }
    return rf_error_set(err, RF_INVALID, "%s (line %u, column %u)", words, line, column);
}


/* "2023-11-14 22:13:21.5+00" becomes "2023-11-14T22:13:21.500000Z"; false: another form. */
static bool format_time(const char *text, char out[RF_TIME_TEXT_SIZE])
{
    static const char form[] = "dddd-dd-dd dd:dd:dd";
    char digits[7] = "000000";
    size_t at = 0, count = 0;

    for (; form[at]; at++)
        if (form[at] == 'd' ? text[at] < '0' || text[at] > '9' : text[at] != form[at])
            return false;
    if (text[at] == '.')
        for (at++; text[at] >= '0' && text[at] <= '9' && count < 6; at++)
            digits[count++] = text[at];
    if (strcmp(text + at, "+00") != 0)
        return false;
    snprintf(out, RF_TIME_TEXT_SIZE, "%.10sT%.8s.%sZ", text, text + 11, digits);
    return true;
}

static bool is_whole(const char *text)
{
    size_t sign = text[0] == '-', size = strspn(text + sign, "0123456789");

    return size > 0 && size <= 18 && text[sign + size] == '\0';
}

static void read_number(struct rf_cell *cell, const char *text, bool whole)
{
    char *end;
    double real = strtod(text, &end);

    if (whole || is_whole(text)) {
        cell->type = RF_CELL_INT;
        cell->integer = strtoll(text, NULL, 10);
    } else if (strchr(text, '.') || strchr(text, 'e') || real - real != 0) {
        cell->type = RF_CELL_FLOAT;
        cell->real = real;
    }
}

/* What each needs beside a row's cells: texts of its times, bytes of its byteas. */
struct cell_room {
    char time[RF_TIME_TEXT_SIZE];
    unsigned char *bytes;
};

/* One cell of a row in text form. A number that neither type holds exactly stays text. */
static void read_cell(const PGresult *result, int column, struct rf_cell *cell,
                      struct cell_room *room)
{
    const char *text = pq.PQgetvalue(result, 0, column);
    size_t size;

    *cell = (struct rf_cell){.type = RF_CELL_NULL};
    if (pq.PQgetisnull(result, 0, column))
        return;
    cell->type = RF_CELL_TEXT;
    cell->text = rf_bytes(text, (size_t)pq.PQgetlength(result, 0, column));
    switch (pq.PQftype(result, column)) {
    case OID_BOOL:
        cell->type = RF_CELL_INT;
        cell->integer = text[0] == 't';
        break;
    case OID_INT2:
    case OID_INT4:
    case OID_INT8:
    case OID_OID:
        read_number(cell, text, true);
        break;
    case OID_NUMERIC:
        read_number(cell, text, false);
        break;
    case OID_FLOAT4:
    case OID_FLOAT8:
        cell->type = RF_CELL_FLOAT;
        cell->real = strtod(text, NULL);
        break;
    case OID_TIMESTAMPTZ:
        if (format_time(text, room->time))
            cell->text = rf_bytes_text(room->time);
        break;
    case OID_BYTEA:
        room->bytes = pq.PQunescapeBytea((const unsigned char *)text, &size);
        cell->type = RF_CELL_BYTES;
        cell->text = room->bytes ? rf_bytes(room->bytes, size) : rf_bytes("", 0);
        break;
    default:
        break;
    }
}

struct each {
    void (*header)(void *user, size_t count, const char *const *names);
    rf_query_visit visit;
    void *user;
    size_t count;
    const char **names; /* of the first result, copied */
    struct rf_cell *cells;
    struct cell_room *rooms;
    uint64_t index;
};

static void each_begin(struct each *each, const PGresult *result)
{
    if (each->names)
        return;
    each->count = (size_t)pq.PQnfields(result);
    each->names = calloc(each->count + 1, sizeof *each->names);
    each->cells = calloc(each->count + 1, sizeof *each->cells);
    each->rooms = calloc(each->count + 1, sizeof *each->rooms);
    if (!each->names || !each->cells || !each->rooms)
        abort();
    for (size_t i = 0; i < each->count; i++)
        if (!(each->names[i] = strdup(pq.PQfname(result, (int)i))))
            abort();
    if (each->header)
        each->header(each->user, each->count, each->names);
}

static enum rf_status each_row(struct each *each, const PGresult *result)
{
    enum rf_status status;

    for (size_t i = 0; i < each->count; i++)
        read_cell(result, (int)i, &each->cells[i], &each->rooms[i]);
    status = each->visit(each->user, each->index++, each->count, each->names, each->cells);
    for (size_t i = 0; i < each->count; i++) {
        pq.PQfreemem(each->rooms[i].bytes);
        each->rooms[i].bytes = NULL;
    }
    return status;
}

static void each_release(struct each *each)
{
    for (size_t i = 0; each->names && i < each->count; i++)
        free((char *)(uintptr_t)each->names[i]);
    free(each->names);
    free(each->cells);
    free(each->rooms);
}

static bool is_interrupted(void *user)
{
    const volatile int *interrupted = user;

    return *interrupted != 0;
}

enum rf_status rf_pg_each(struct rf_pg *pg, const char *sql,
                          void (*header)(void *user, size_t count, const char *const *names),
                          rf_query_visit visit, void *user, const volatile int *interrupted,
                          struct rf_error *err)
{
    struct each each = {.header = header, .visit = visit, .user = user};
    bool cancelled = false;
    enum rf_status status = RF_OK;
    PGresult *result;

    if (!pq.PQsendQueryParams(pg->conn, sql, 0, NULL, NULL, NULL, NULL, 0) ||
        !pq.PQsetSingleRowMode(pg->conn))
        return lost(pg, err);
    while ((result = next_result(pg, interrupted ? is_interrupted : NULL,
                                 (void *)(uintptr_t)interrupted, &cancelled)) != NULL) {
        ExecStatusType kind = pq.PQresultStatus(result);
        if (!status && (kind == PGRES_SINGLE_TUPLE || kind == PGRES_TUPLES_OK)) {
            each_begin(&each, result);
            if (kind == PGRES_SINGLE_TUPLE && !cancelled)
                status = each_row(&each, result);
            if (status) {
                cancel(pg);
            } else if (interrupted && *interrupted && !cancelled) {
                cancelled = true;
                cancel(pg);
            }
        } else if (!status && kind == PGRES_EMPTY_QUERY) {
            status = rf_error_set(err, RF_END, "there is no statement in it");
        } else if (!status && kind != PGRES_COMMAND_OK) {
            status = each_failed(pg, result, sql, cancelled, err);
        }
        pq.PQclear(result);
        if (kind == PGRES_COPY_IN || kind == PGRES_COPY_OUT || kind == PGRES_COPY_BOTH)
            break;
    }
    if (!status && cancelled)
        status = rf_error_set(err, RF_CANCELLED, "the query was interrupted");
    each_release(&each);
    return status;
}
