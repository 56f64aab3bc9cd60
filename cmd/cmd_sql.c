/*
 * cmd_sql.c - refuge sql: a read-only question to an index, as table, CSV or JSON
 */
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/definition.h"
#include "cmd/index_home.h"
#include "cmd/print_table.h"
#include "sinks/query.h"

#define QUERY_MAX ((size_t)1 << 20) /* bytes of a query from standard input */

static enum rf_status reader_status(struct rf_cli *cli)
{
    return cli->out.closed ? RF_CANCELLED : RF_OK;
}

/* ---- CSV: RFC 4180, lines end as those of other tools ---- */

static void csv_field(struct rf_cli *cli, struct rf_bytes text, bool last)
{
    bool quote = false;

    for (size_t i = 0; i < text.size && !quote; i++)
        quote = text.data[i] == '"' || text.data[i] == ',' || text.data[i] == '\n' ||
                text.data[i] == '\r';
    if (!quote) {
        (void)rf_out_write(cli, text);
    } else {
        (void)rf_out_write(cli, rf_bytes("\"", 1));
        while (text.size) {
            const uint8_t *mark = memchr(text.data, '"', text.size);
            size_t size = mark ? (size_t)(mark - text.data) + 1 : text.size;

            (void)rf_out_write(cli, rf_bytes(text.data, size));
            if (mark)
                (void)rf_out_write(cli, rf_bytes("\"", 1));
            text = rf_bytes(text.data + size, text.size - size);
        }
        (void)rf_out_write(cli, rf_bytes("\"", 1));
    }
    (void)rf_out_write(cli, rf_bytes_text(last ? "\n" : ","));
}

static void csv_header(void *user, size_t count, const char *const *names)
{
    for (size_t i = 0; i < count; i++)
        csv_field(user, rf_bytes_text(names[i]), i + 1 == count);
}

static enum rf_status csv_row(void *user, uint64_t index, size_t count, const char *const *names,
                              const struct rf_cell *cells)
{
    struct rf_buf buf;

    (void)index;
    (void)names;
    rf_buf_init(&buf, SIZE_MAX / 4);
    for (size_t i = 0; i < count; i++)
        csv_field(user, rf_cell_text(&cells[i], &buf), i + 1 == count);
    rf_buf_release(&buf);
    return reader_status(user);
}

/* ---- JSON ---- */

struct json {
    struct rf_cli *cli;
    char **names; /* unique: an object's members must be */
    size_t count;
};

static bool taken(const struct json *json, const char *name)
{
    for (size_t i = 0; i < json->count; i++) {
        assert(json->names[i]);
        if (strcmp(json->names[i], name) == 0)
            return true;
    }
    return false;
}

/* "n", "n_2", "n_3": as the header of a CSV file becomes members of its records. */
static void json_header(void *user, size_t count, const char *const *names)
{
    struct json *json = user;

    json->names = calloc(count + 1, sizeof *json->names);
    if (!json->names)
        abort();
    for (size_t i = 0; i < count; i++) {
        char *name = rf_text_join(names[i], "", ""), number[24];
        size_t copy = 1;

        for (size_t k = 0; k < i; k++)
            copy += strcmp(names[k], names[i]) == 0;
        while (taken(json, name)) {
            free(name);
            copy += copy == 1;
            snprintf(number, sizeof number, "_%zu", copy++);
            name = rf_text_join(names[i], number, "");
        }
        json->names[json->count++] = name;
    }
}

static enum rf_status json_row(void *user, uint64_t index, size_t count,
                               const char *const *unused, const struct rf_cell *cells)
{
    struct json *json = user;
    struct rf_cli *cli = json->cli;
    struct rf_out *out = &cli->out;
    char *const *names = json->names;
    struct rf_buf buf;

    (void)index;
    (void)unused;
    rf_buf_init(&buf, SIZE_MAX / 4);
    rf_out_begin(out, NULL);
    for (size_t i = 0; i < count; i++) {
        if (cells[i].type == RF_CELL_INT)
            rf_out_int(out, names[i], cells[i].integer);
        else if (cells[i].type == RF_CELL_FLOAT && isfinite(cells[i].real))
            rf_out_real(out, names[i], cells[i].real);
        else if (cells[i].type == RF_CELL_TEXT || cells[i].type == RF_CELL_BYTES)
            rf_out_bytes(out, names[i], rf_cell_text(&cells[i], &buf));
        else
            rf_out_text(out, names[i], NULL);
    }
    rf_out_end(out);
    rf_buf_release(&buf);
    return reader_status(cli);
}

static enum rf_status query_json(struct rf_cli *cli, const char *url, const char *query,
                                 struct rf_error *err)
{
    struct json json = {.cli = cli};
    enum rf_status status =
        rf_query_sql(url, query, json_header, json_row, &json, &rf_stop_flag, err);

    rf_names_free(json.names, json.count);
    return status;
}

/* ---- table ---- */

static void table_header(void *user, size_t count, const char *const *names)
{
    rf_print_table_header(user, count, names);
}

static enum rf_status table_row(void *user, uint64_t index, size_t count, const char *const *names,
                                const struct rf_cell *cells)
{
    struct rf_print_table *table = user;

    (void)index;
    (void)count;
    (void)names;
    rf_print_table_row(table, cells);
    return reader_status(table->cli);
}

static enum rf_status query_table(struct rf_cli *cli, const char *url, const char *query,
                                  struct rf_error *err)
{
    struct rf_print_table table;
    enum rf_status status;

    rf_print_table_init(&table, cli);
    status = rf_query_sql(url, query, table_header, table_row, &table, &rf_stop_flag, err);
    rf_print_table_finish(&table);
    return status;
}

/* ---- the command ---- */

/* psql with the index's schema first in its search path, in transactions that only read unless the
 * person turns that off: it is the index's owner who connects. */
static void exec_psql(const struct rf_index_home *index)
{
    const char *fragment = strchr(index->url, '#'), *before = getenv("PGOPTIONS");
    char *url = strndup(index->url, fragment ? (size_t)(fragment - index->url)
                                             : strlen(index->url));
    char settings[4096];
    int size;

    size = snprintf(settings, sizeof settings,
                    "%s%s-c search_path=%.60s,public -c default_transaction_read_only=on",
                    before ? before : "", before ? " " : "", fragment ? fragment + 1 : "public");
    if (size < 0 || (size_t)size >= sizeof settings)
        errno = E2BIG;
    else if (url && setenv("PGOPTIONS", settings, 1) == 0)
        execlp("psql", "psql", url, (char *)NULL);
    free(url);
}

/* Become sqlite3 or psql on the index; comes back only when that fails. */
static int exec_shell(struct rf_cli *cli, const struct rf_index_home *index)
{
    const char *shell = index->path ? "sqlite3" : "psql";

    if (rf_sink_url_is_elastic(index->url))
        return rf_fail_with(cli, RF_EXIT_FAILED,
                            "index '%s' is kept in Elasticsearch or OpenSearch, which answers no "
                            "SQL of refuge's: use 'refuge search --index %s', or ask the cluster",
                            index->name, index->name);
    (void)signal(SIGPIPE, SIG_DFL); /* an ignored signal would be inherited */
    if (index->definition.reader)
        rf_say(cli, "this psql only reads until that is turned off in it; role '%s' can do nothing "
                    "else",
               index->definition.reader);
    if (index->path)
        execlp("sqlite3", "sqlite3", "-readonly", "-box", index->path, (char *)NULL);
    else
        exec_psql(index);
    return rf_fail_with(cli, RF_EXIT_FAILED,
                        "cannot start %s: %s; install the package %s, or give a QUERY", shell,
                        strerror(errno), index->path ? "sqlite3" : "postgresql-client");
}

static bool read_query(struct rf_cli *cli, struct rf_buf *query, int *code)
{
    uint8_t block[16384];
    ssize_t got;

    while ((got = read(STDIN_FILENO, block, sizeof block)) != 0) {
        if (rf_stop_asked()) {
            *code = RF_EXIT_STOPPED;
            return false;
        }
        if (got > 0)
            rf_buf_put(query, block, (size_t)got);
        else if (errno != EINTR)
            break;
    }
    if (got < 0)
        *code = rf_fail_with(cli, RF_EXIT_FAILED, "cannot read the query: %s", strerror(errno));
    else if (query->failed)
        *code = rf_fail_with(cli, RF_EXIT_FAILED, "the query is longer than %zu bytes", QUERY_MAX);
    else if (memchr(query->data ? (const void *)query->data : "", 0, query->size))
        *code = rf_fail_with(cli, RF_EXIT_FAILED, "the query holds a NUL byte");
    else
        return true;
    return false;
}

static int ask(struct rf_cli *cli, const struct rf_index_home *index, const char *query)
{
    struct rf_error err = {0};
    enum rf_status status;

    if (query[0] == '.') /* .tables, .schema, .help */
        return rf_fail_with(cli, RF_EXIT_USAGE,
                            "'%.*s' is a command of the sqlite3 shell, not SQL: 'refuge sql' "
                            "without a QUERY starts that shell on a terminal; \"select name, sql "
                            "from sqlite_schema\" lists tables here",
                            (int)strcspn(query, " \t\n"), query);
    if (cli->out.json)
        status = query_json(cli, index->url, query, &err);
    else if (rf_args_flag(&cli->args, "csv"))
        status = rf_query_sql(index->url, query, csv_header, csv_row, cli, &rf_stop_flag, &err);
    else
        status = query_table(cli, index->url, query, &err);
    if (rf_stop_asked())
        return RF_EXIT_STOPPED;
    if (status == RF_CANCELLED && cli->out.closed)
        return RF_EXIT_OK;
    if (status == RF_END)
        return rf_fail_with(cli, RF_EXIT_USAGE, "%s", err.message);
    return status ? rf_fail(cli, &err) : RF_EXIT_OK;
}

int cmd_sql(struct rf_cli *cli)
{
    struct rf_index_home index;
    struct rf_buf query;
    int code = RF_EXIT_OK;

    if (cli->out.json && rf_args_flag(&cli->args, "csv"))
        return rf_fail_with(cli, RF_EXIT_USAGE, "--csv and --json exclude each other");
    rf_buf_init(&query, QUERY_MAX);
    if (rf_index_home_init(&index, cli, rf_args_text(&cli->args, "index"), true, &code)) {
        if (cli->args.word_count)
            code = ask(cli, &index, cli->args.words[0]);
        else if (isatty(STDIN_FILENO))
            code = exec_shell(cli, &index);
        else if (read_query(cli, &query, &code))
            code = ask(cli, &index, rf_buf_text(&query));
    }
    rf_index_home_release(&index);
    rf_buf_release(&query);
    return code;
}
