/*
 * cmd_mapper_test.c - refuge mapper test: the tests that mappers declare
 *
 * A test names an item (bytes in place, or a file beside the mapper) and what comes of it: rows by
 * table, a number of parts, an error, or a golden file of one row a line. Each test runs twice, the
 * second time in fresh workers, in the reverse order and with compiling switched off: a mapper
 * whose rows differ then would make an index that no rebuild equals. Prints TAP.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/index_home.h"
#include "cmd/mapper_item.h"
#include "cmd/mapper_rows.h"
#include "core/json.h"

#define GOLDEN_MAX ((size_t)64 << 20)
#define OUTPUT_MAX ((size_t)256 << 20)
#define DIFFERENCES_MAX 20 /* lines printed of one test */

/* What came of one test, as text: its rows, one JSON object a line, then what else is compared. */
struct verdict {
    struct rf_buf rows; /* {"table":"t","row":{...}} a line, by table, then in order */
    enum rf_call_outcome outcome;
    char message[RF_ERROR_SIZE];
    uint64_t parts;
};

struct suite {
    struct rf_cli *cli;
    struct rf_pool *pools[2]; /* compiled, interpreted */
    const char *path;         /* of the mapper */
    char *folder;             /* it is in; NULL: bundled */
    struct rf_mapper *mappers[2];
    const struct rf_json *tests;
    struct verdict *verdicts[2];
    struct rf_arena arena;
    int64_t number, failed, updated;
};

/* ---- running a test ---- */

static void row_lines(struct rf_buf *out, const struct rf_mapper_rows *rows)
{
    for (size_t i = 0; i < rows->table_count; i++) {
        const struct rf_table_rows *table = &rows->tables[i];

        for (size_t n = 0; n < table->count; n++) {
            rf_buf_printf(out, "{\"table\":\"%s\",\"row\":", table->table->name);
            rf_table_row_json(out, table, table->rows[n]);
            rf_buf_put_text(out, "}\n");
        }
    }
}

static enum rf_status make_item(struct suite *suite, const struct rf_json *test,
                                struct rf_mapper_item *item, struct rf_error *err)
{
    const struct rf_json *blob = rf_json_find(test, "blob");
    const char *file = rf_json_string(rf_json_find(test, "file"));
    const char *media = rf_json_string(rf_json_find(test, "media"));
    const char *name = rf_json_string(rf_json_find(test, "filename"));
    enum rf_status status;
    char *path;

    if (blob && blob->type == RF_JSON_STRING) {
        rf_mapper_item_bytes(item, blob->text, name, media);
        return RF_OK;
    }
    if (!file)
        return rf_error_set(err, RF_INVALID, "the test has neither 'blob' nor 'file'");
    if (!suite->folder)
        return rf_error_set(err, RF_UNSUPPORTED, "a bundled mapper has no folder to find '%s' in",
                            file);
    path = rf_path_join(suite->folder, file);
    status = rf_mapper_item_path(item, path, name, err);
    free(path);
    return status;
}

static void judge(struct suite *suite, unsigned pass, const struct rf_json *test,
                  struct verdict *verdict)
{
    struct rf_result *result = NULL;
    struct rf_mapper_item item;
    struct rf_mapper_rows made;
    struct rf_error err = {0};
    enum rf_status status;

    rf_buf_init(&verdict->rows, OUTPUT_MAX);
    rf_mapper_rows_init(&made);
    rf_mapper_item_init(&item);
    verdict->outcome = RF_CALL_FAILED;
    status = make_item(suite, test, &item, &err);
    if (status == RF_OK)
        status = rf_mapper_item_map(suite->pools[pass], &item, NULL, suite->mappers[pass], &result,
                                    &err);
    if (status == RF_OK)
        status = rf_mapper_rows_take(&made, &result->calls[0], item.item.size, &err);
    if (status) {
        snprintf(verdict->message, sizeof verdict->message, "%s", err.message);
    } else {
        verdict->outcome = made.outcome;
        verdict->parts = made.parts;
        if (made.message)
            snprintf(verdict->message, sizeof verdict->message, "%s", made.message);
        row_lines(&verdict->rows, &made);
    }
    rf_mapper_rows_release(&made);
    rf_result_free(result);
    rf_mapper_item_release(&item);
}

/* ---- comparing ---- */

static bool same_time(const struct rf_json *want, const struct rf_json *have);

/* Equal values; of objects, members that are null count as not there. */
static bool same(const struct rf_json *want, const struct rf_json *have)
{
    int64_t a, b;
    double x, y;
    size_t members = 0, others = 0;

    if (!want || want->type == RF_JSON_NULL)
        return !have || have->type == RF_JSON_NULL;
    if (!have || want->type != have->type)
        return false;
    switch (want->type) {
    case RF_JSON_NUMBER:
        if (rf_json_int(want, &a) && rf_json_int(have, &b))
            return a == b;
        return rf_json_double(want, &x) && rf_json_double(have, &y) && !(x < y) && !(x > y);
    case RF_JSON_STRING:
        return rf_bytes_equal(want->text, have->text) || same_time(want, have);
    case RF_JSON_ARRAY:
        if (want->count != have->count)
            return false;
        for (size_t i = 0; i < want->count; i++) {
            if (!same(&want->items[i], &have->items[i]))
                return false;
        }
        return true;
    case RF_JSON_OBJECT:
        for (size_t i = 0; i < want->count; i++) {
            if (want->items[i].type == RF_JSON_NULL)
                continue;
            members++;
            if (!same(&want->items[i], rf_json_find(have, (const char *)want->items[i].key.data)))
                return false;
        }
        for (size_t i = 0; i < have->count; i++)
            others += have->items[i].type != RF_JSON_NULL;
        return members == others;
    default:
        return true;
    }
}

/* A time may be written without its fraction: "2024-05-01T10:00:00Z". */
static bool same_time(const struct rf_json *want, const struct rf_json *have)
{
    const char *a = (const char *)want->text.data, *b = (const char *)have->text.data;

    return want->text.size == 20 && have->text.size == 27 && a[19] == 'Z' &&
           memcmp(a, b, 19) == 0 && memcmp(b + 19, ".000000Z", 8) == 0;
}

struct lines {
    const struct rf_json **rows; /* {"table","row"} */
    size_t count;
};

/* Parse "one object a line" text; lines live in the arena. */
static enum rf_status parse_lines(struct rf_arena *arena, struct rf_bytes text, struct lines *out,
                                  struct rf_error *err)
{
    size_t lines = 0;

    for (size_t i = 0; i < text.size; i++)
        lines += text.data[i] == '\n';
    out->rows = rf_arena_alloc(arena, (lines + 1) * sizeof *out->rows);
    out->count = 0;
    while (text.size) {
        const uint8_t *end = memchr(text.data, '\n', text.size);
        size_t size = end ? (size_t)(end - text.data) : text.size;

        if (size) {
            enum rf_status status = rf_json_parse(&out->rows[out->count], arena,
                                                  rf_bytes(text.data, size), err);

            if (status)
                return status;
            out->count++;
        }
        size += end != NULL;
        text = rf_bytes(text.data + size, text.size - size);
    }
    return RF_OK;
}

/* ---- saying what differs ---- */

struct differences {
    struct rf_buf text;
    unsigned count;
};

RF_PRINTF(2, 3)
static void differ(struct differences *diff, const char *format, ...)
{
    char line[4096];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (diff->count++ < DIFFERENCES_MAX)
        rf_buf_printf(&diff->text, "#   %s\n", line);
}

static void row_text(const struct rf_json *row, char *out, size_t size)
{
    struct rf_buf buf;

    rf_buf_init(&buf, OUTPUT_MAX);
    if (row)
        rf_json_put_canonical(&buf, row);
    else
        rf_buf_put_text(&buf, "nothing");
    snprintf(out, size, "%.*s", (int)buf.size, (const char *)buf.data);
    rf_buf_release(&buf);
}

/* Whether a row is the one wanted; the offset of a time counts only when the test names it. */
static bool same_row(const struct rf_table *table, const struct rf_json *want,
                     const struct rf_json *have)
{
    struct rf_json *kept, row = *have;
    bool equal;

    row.items = kept = calloc(have->count + 1, sizeof *kept);
    if (!kept)
        abort();
    row.count = 0;
    for (size_t i = 0; i < have->count; i++) {
        const char *key = (const char *)have->items[i].key.data;
        bool offset = false;

        for (size_t j = 0; j < table->column_count; j++) {
            size_t size = strlen(table->columns[j].name);

            offset |= table->columns[j].type == RF_TYPE_TIME &&
                      strncmp(key, table->columns[j].name, size) == 0 &&
                      strcmp(key + size, "_offset") == 0;
        }
        if (!offset || rf_json_find(want, key))
            kept[row.count++] = have->items[i];
    }
    equal = same(want, &row);
    free(kept);
    return equal;
}

static void compare_row(struct differences *diff, const struct rf_table *of, size_t n,
                        const struct rf_json *want, const struct rf_json *have)
{
    const char *table = of->name;
    char text[1500];

    if (want && have && want->type == RF_JSON_OBJECT && same_row(of, want, have))
        return;
    if (want) {
        row_text(want, text, sizeof text);
        differ(diff, "- %s[%zu] %s", table, n, text);
    }
    if (have) {
        row_text(have, text, sizeof text);
        differ(diff, "+ %s[%zu] %s", table, n, text);
    }
}

/* Rows of one table within lines, by number; NULL past the last. */
static const struct rf_json *nth_row(const struct lines *lines, const char *table, size_t n)
{
    for (size_t i = 0; i < lines->count; i++) {
        const char *of = rf_json_string(rf_json_find(lines->rows[i], "table"));

        if (of && strcmp(of, table) == 0 && n-- == 0)
            return rf_json_find(lines->rows[i], "row");
    }
    return NULL;
}

static void compare_declared(struct differences *diff, const struct rf_decl *decl,
                             const struct rf_json *rows, const struct lines *have)
{
    for (size_t i = 0; i < rows->count; i++) {
        const char *name = (const char *)rows->items[i].key.data;
        bool known = false;

        for (size_t j = 0; j < decl->table_count; j++)
            known |= strcmp(decl->tables[j].name, name) == 0;
        if (!known)
            differ(diff, "the mapper has no table '%s'", name);
    }
    for (size_t i = 0; i < decl->table_count; i++) {
        const char *table = decl->tables[i].name;
        const struct rf_json *want = rf_json_find(rows, table), *row;
        size_t count = want ? want->count : 0;

        for (size_t n = 0; n < count || nth_row(have, table, n); n++) {
            row = n < count ? &want->items[n] : NULL;
            compare_row(diff, &decl->tables[i], n, row, nth_row(have, table, n));
        }
    }
}

static void compare_golden(struct differences *diff, const struct rf_decl *decl,
                           const struct lines *want, const struct lines *have)
{
    for (size_t i = 0; i < decl->table_count; i++) {
        const char *table = decl->tables[i].name;

        for (size_t n = 0; nth_row(want, table, n) || nth_row(have, table, n); n++)
            compare_row(diff, &decl->tables[i], n, nth_row(want, table, n),
                        nth_row(have, table, n));
    }
}

/* ---- golden files ---- */

static enum rf_status read_file(const char *path, struct rf_buf *out, struct rf_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum rf_status status = RF_OK;
    ssize_t got = 1;

    if (fd < 0)
        return rf_error_errno(err, RF_NOT_FOUND, errno, "cannot open golden file '%s' ('--update' "
                              "writes it)", path);
    while (got > 0) {
        uint8_t *room = rf_buf_reserve(out, 65536);

        if (!room) {
            status = rf_error_set(err, RF_LIMIT, "golden file '%s' is too large", path);
            break;
        }
        got = read(fd, room, 65536);
        out->size += got > 0 ? (size_t)got : 0;
    }
    if (got < 0)
        status = rf_error_errno(err, RF_IO, errno, "cannot read '%s'", path);
    close(fd);
    return status;
}

static bool write_file(const char *path, struct rf_bytes bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool ok = fd >= 0 && write(fd, bytes.data, bytes.size) == (ssize_t)bytes.size;

    if (fd >= 0)
        ok = close(fd) == 0 && ok;
    return ok;
}

static void check_golden(struct suite *suite, const char *golden, const struct verdict *verdict,
                         const struct lines *have, struct differences *diff)
{
    struct rf_error err = {0};
    struct lines want;
    struct rf_buf text;
    char *path;

    if (!suite->folder) {
        differ(diff, "a bundled mapper has no folder to find '%s' in", golden);
        return;
    }
    path = rf_path_join(suite->folder, golden);
    rf_buf_init(&text, GOLDEN_MAX);
    if (rf_args_flag(&suite->cli->args, "update")) {
        if (write_file(path, rf_buf_bytes(&verdict->rows)))
            suite->updated++;
        else
            differ(diff, "cannot write '%s': %s", path, strerror(errno));
    } else if (read_file(path, &text, &err) ||
               parse_lines(&suite->arena, rf_buf_bytes(&text), &want, &err)) {
        differ(diff, "%s", err.message);
    } else {
        compare_golden(diff, rf_mapper_decl(suite->mappers[0]), &want, have);
    }
    rf_buf_release(&text);
    free(path);
}

/* ---- one test ---- */

static const char *outcome_words(const struct verdict *verdict)
{
    switch (verdict->outcome) {
    case RF_CALL_ROWS:
        return "mapped";
    case RF_CALL_NONE:
        return "not wanted by 'on' or 'match'";
    case RF_CALL_MISSING:
        return "it needs a blob that is not there";
    default:
        return verdict->message[0] ? verdict->message : "failed";
    }
}

static void check_outcome(const struct rf_json *test, const struct verdict *verdict,
                          struct differences *diff)
{
    const char *error = rf_json_string(rf_json_find(test, "error"));
    const struct rf_json *rows = rf_json_find(test, "rows");
    bool wants_rows = (rows && rows->count) || rf_json_find(test, "golden");
    bool failed = verdict->outcome != RF_CALL_ROWS && verdict->outcome != RF_CALL_NONE;

    if (error && !failed)
        differ(diff, "an error with '%s' was expected, but it %s", error, outcome_words(verdict));
    else if (error && !strstr(outcome_words(verdict), error))
        differ(diff, "an error with '%s' was expected, not: %s", error, outcome_words(verdict));
    else if (!error && (failed || (wants_rows && verdict->outcome == RF_CALL_NONE)))
        differ(diff, "%s", outcome_words(verdict));
}

static void check_test(struct suite *suite, size_t index, struct differences *diff)
{
    const struct rf_json *test = &suite->tests->items[index];
    const struct verdict *first = &suite->verdicts[0][index], *second = &suite->verdicts[1][index];
    const struct rf_json *rows = rf_json_find(test, "rows");
    const char *golden = rf_json_string(rf_json_find(test, "golden"));
    struct lines have = {0};
    int64_t parts;

    check_outcome(test, first, diff);
    if (first->outcome != second->outcome || first->parts != second->parts ||
        !rf_bytes_equal(rf_buf_bytes(&first->rows), rf_buf_bytes(&second->rows)))
        differ(diff, "a second run (fresh worker, other order, not compiled) made something else: "
               "an index could not be rebuilt");
    if (diff->count || parse_lines(&suite->arena, rf_buf_bytes(&first->rows), &have, NULL))
        return;
    if (rows && rows->type == RF_JSON_OBJECT)
        compare_declared(diff, rf_mapper_decl(suite->mappers[0]), rows, &have);
    if (golden)
        check_golden(suite, golden, first, &have, diff);
    if (rf_json_int(rf_json_find(test, "parts"), &parts) && (uint64_t)parts != first->parts)
        differ(diff, "made %s, %lld expected", RF_COUNT(first->parts, "part"), (long long)parts);
}

static void print_test(struct suite *suite, const char *name, const struct differences *diff)
{
    struct rf_cli *cli = suite->cli;
    const char *mapper = suite->mappers[0] ? rf_mapper_decl(suite->mappers[0])->name : suite->path;

    suite->number++;
    suite->failed += diff->count > 0;
    rf_out_printf(cli, "%s %lld - %s: ", diff->count ? "not ok" : "ok", (long long)suite->number,
                  mapper);
    rf_out_word(cli, rf_bytes_text(name));
    rf_out_printf(cli, "\n");
    if (diff->text.size)
        rf_out_printf(cli, "%.*s", (int)diff->text.size, (const char *)diff->text.data);
    if (diff->count > DIFFERENCES_MAX)
        rf_out_printf(cli, "#   %u more\n", diff->count - DIFFERENCES_MAX);
    rf_out_begin(&cli->out, "test");
    rf_out_text(&cli->out, "mapper", mapper);
    rf_out_text(&cli->out, "name", name);
    rf_out_bool(&cli->out, "ok", diff->count == 0);
    rf_out_bytes(&cli->out, "differences", rf_buf_bytes(&diff->text));
    rf_out_end(&cli->out);
}

static void fail_suite(struct suite *suite, const char *name, const struct rf_error *err)
{
    struct differences diff = {0};

    rf_buf_init(&diff.text, 1 << 20);
    differ(&diff, "%s", err->message);
    print_test(suite, name, &diff);
    rf_buf_release(&diff.text);
}

/* ---- one mapper ---- */

static void run_tests(struct suite *suite)
{
    size_t count = suite->tests->count;

    for (unsigned pass = 0; pass < 2; pass++) {
        suite->verdicts[pass] = rf_arena_alloc(&suite->arena,
                                               (count + 1) * sizeof *suite->verdicts[pass]);
        for (size_t i = 0; i < count && !rf_stop_asked(); i++) {
            size_t at = pass ? count - 1 - i : i;

            judge(suite, pass, &suite->tests->items[at], &suite->verdicts[pass][at]);
        }
    }
    for (size_t i = 0; i < count && !rf_stop_asked(); i++) {
        const char *name = rf_json_string(rf_json_find(&suite->tests->items[i], "name"));
        struct differences diff = {0};
        char number[32];

        rf_buf_init(&diff.text, 1 << 20);
        snprintf(number, sizeof number, "test %zu", i + 1);
        check_test(suite, i, &diff);
        print_test(suite, name ? name : number, &diff);
        rf_buf_release(&diff.text);
    }
    for (unsigned pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < count; i++)
            rf_buf_release(&suite->verdicts[pass][i].rows);
    }
}

static void test_mapper(struct suite *suite, const char *path)
{
    const char *slash = strrchr(path, '/');
    struct rf_error err = {0};
    struct rf_bytes text;
    enum rf_status status = RF_OK;

    suite->path = path;
    suite->mappers[0] = suite->mappers[1] = NULL;
    suite->folder = strncmp(path, "bundled:", 8) == 0 ? NULL
                    : slash ? strndup(path, (size_t)(slash - path) + 1) : strdup("./");
    rf_arena_init(&suite->arena, (size_t)1 << 30);
    for (unsigned pass = 0; pass < 2 && status == RF_OK; pass++)
        status = rf_pool_load(suite->pools[pass], path, &suite->mappers[pass], &err);
    if (status == RF_OK)
        status = rf_pool_describe(suite->pools[0], suite->mappers[0], "tests", &suite->arena, &text,
                                  &err);
    if (status == RF_OK)
        status = rf_json_parse(&suite->tests, &suite->arena, text, &err);
    if (status)
        fail_suite(suite, "it loads", &err);
    else if (suite->tests->count == 0)
        rf_out_printf(suite->cli, "# %s declares no tests\n",
                      rf_mapper_decl(suite->mappers[0])->name);
    else
        run_tests(suite);
    rf_arena_release(&suite->arena);
    free(suite->folder);
}

static bool open_pools(struct suite *suite, int *code)
{
    for (unsigned pass = 0; pass < 2; pass++) {
        struct rf_pool_options options = {.program = rf_mapper_program(), .workers = 1,
                                          .jit_off = pass == 1};
        struct rf_error err = {0};

        if (rf_pool_open(&suite->pools[pass], &options, &err)) {
            *code = rf_fail(suite->cli, &err);
            return false;
        }
    }
    return true;
}

static int test_all(struct suite *suite, char **paths, size_t count)
{
    struct rf_cli *cli = suite->cli;
    int code = RF_EXIT_OK;

    if (open_pools(suite, &code)) {
        for (size_t i = 0; i < count && !rf_stop_asked(); i++)
            test_mapper(suite, paths[i]);
        rf_out_printf(cli, "1..%lld\n", (long long)suite->number);
        code = rf_stop_asked() ? RF_EXIT_STOPPED : suite->failed ? RF_EXIT_FAILED : RF_EXIT_OK;
    }
    rf_pool_close(suite->pools[0]);
    rf_pool_close(suite->pools[1]);
    rf_summary_int(cli, "tests", suite->number);
    rf_summary_int(cli, "failed", suite->failed);
    rf_summary_int(cli, "updated", suite->updated);
    if (suite->updated)
        rf_say(cli, "%s written", RF_COUNT((uint64_t)suite->updated, "golden file"));
    return code;
}

int cmd_mapper_test(struct rf_cli *cli)
{
    struct suite suite = {.cli = cli};
    size_t count = (size_t)cli->args.word_count;
    char **paths;
    int code = RF_EXIT_OK;

    /* Files can be tested without a home; names cannot. */
    for (size_t i = 0; i < count; i++) {
        if (access(cli->args.words[i], F_OK) && !cli->settings && !rf_home_open(cli, &code))
            return code;
    }
    if (count == 0 && !rf_home_open(cli, &code))
        return code;
    paths = rf_mapper_arguments(cli, &count);
    code = test_all(&suite, paths, count);
    rf_names_free(paths, count);
    return code;
}
