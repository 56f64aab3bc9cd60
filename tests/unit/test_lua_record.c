/*
 * test_lua_record.c - the mappers that come with refuge keep their own tests
 *
 * Each file's `tests` table is run: rows are compared as JSON by column, parts counted. Then the
 * record mapper goes over the iso-codes files when they are there.
 */
#include "core/json.h"
#include "tests/unit/lua_harness.h"

static struct harness h;
static struct rf_buf script;

static int set_up(void **state)
{
    (void)state;
    harness_init(&h);
    rf_buf_init(&script, 1 << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    rf_buf_release(&script);
    harness_release(&h);
    return 0;
}

static bool read_file(const char *path, struct rf_buf *out)
{
    FILE *file = fopen(path, "rb");
    uint8_t bytes[65536];
    size_t n;

    rf_buf_clear(out);
    if (!file)
        return false;
    while ((n = fread(bytes, 1, sizeof bytes, file)) > 0)
        rf_buf_put(out, bytes, n);
    fclose(file);
    return true;
}

static void open_mapper(const char *path)
{
    char full[512];

    snprintf(full, sizeof full, "%s/%s", RF_SOURCE_DIR, path);
    assert_true(read_file(full, &script));
    if (!harness_open(&h, rf_buf_text(&script), false))
        fail_msg("%s: %s", path, h.err.message);
}

/* The expected row's columns, in the dump's form. */
static void put_expected(struct rf_buf *want, const struct rf_json *row,
                         const struct rf_table *table)
{
    rf_buf_printf(want, "%s", table->name);
    for (size_t i = 0; i < table->column_count; i++) {
        const struct rf_json *value = rf_json_find(row, table->columns[i].name);
        int64_t integer;
        double real;
        char when[RF_TIME_TEXT_SIZE];

        rf_buf_put_text(want, i ? "|" : ":");
        if (!value || value->type == RF_JSON_NULL) {
            rf_buf_put_text(want, "null");
        } else if (table->columns[i].type == RF_TYPE_TIME) {
            assert_string_equal(rf_json_string(value), "2024-05-06T07:08:09Z");
            rf_time_format(1714979289000000, when);
            rf_buf_printf(want, "%s+0", when);
        } else if (value->type == RF_JSON_STRING) {
            rf_buf_printf(want, "\"%s\"", rf_json_string(value));
        } else if (table->columns[i].type == RF_TYPE_INT && rf_json_int(value, &integer)) {
            rf_buf_printf(want, "%lld", (long long)integer);
        } else {
            assert_true(rf_json_double(value, &real));
            rf_buf_printf(want, "%.17g", real);
        }
    }
    rf_buf_put_text(want, "\n");
}

static size_t count_parts(const char *dump, struct rf_buf *rows)
{
    size_t parts = 0;

    for (const char *line = dump; *line;) {
        const char *end = strchr(line, '\n');
        assert_non_null(end);
        if (strncmp(line, "part:", 5) == 0)
            parts++;
        else
            rf_buf_put(rows, line, (size_t)(end + 1 - line));
        line = end + 1;
    }
    return parts;
}

static void check_case(const struct rf_json *test)
{
    const struct rf_json *rows = rf_json_find(test, "rows"), *error = rf_json_find(test, "error");
    const struct rf_json *parts = rf_json_find(test, "parts"), *blob = rf_json_find(test, "blob");
    struct rf_buf want, got;
    size_t part_count;
    int64_t wanted_parts;

    h.item.kind = rf_json_find(test, "filename") ? RF_ITEM_FILE : RF_ITEM_BLOB;
    h.item.name = rf_json_string(rf_json_find(test, "filename"));
    harness_map_bytes(&h, blob->text, NULL);
    if (error) {
        assert_int_equal(h.outcome, RF_ENV_FAILED);
        assert_non_null(strstr(h.message, rf_json_string(error)));
        return;
    }
    if (h.outcome != RF_ENV_ROWS)
        fail_msg("%s: %s", rf_json_string(rf_json_find(test, "name")), rf_buf_text(&h.dump));
    rf_buf_init(&want, 1 << 20);
    rf_buf_init(&got, 1 << 20);
    for (size_t t = 0; t < h.decl->table_count; t++) {
        const struct rf_json *list = rf_json_find(rows, h.decl->tables[t].name);
        for (size_t i = 0; list && i < list->count; i++)
            put_expected(&want, &list->items[i], &h.decl->tables[t]);
    }
    part_count = count_parts(rf_buf_text(&h.dump), &got);
    assert_string_equal(rf_buf_text(&got), rf_buf_text(&want));
    if (parts && rf_json_int(parts, &wanted_parts))
        assert_int_equal(part_count, wanted_parts);
    rf_buf_release(&want);
    rf_buf_release(&got);
}

static void check_mapper(const char *path)
{
    const struct rf_json *tests;
    struct rf_arena arena;
    struct rf_buf json;

    open_mapper(path);
    rf_buf_init(&json, 1 << 20);
    rf_arena_init(&arena, 1 << 20);
    assert_int_equal(rf_env_tests(h.env, &json, &h.err), RF_OK);
    assert_int_equal(rf_json_parse(&tests, &arena, rf_buf_bytes(&json), &h.err), RF_OK);
    assert_true(tests->count > 0);
    for (size_t i = 0; i < tests->count; i++)
        check_case(&tests->items[i]);
    rf_arena_release(&arena);
    rf_buf_release(&json);
}

static void bundled_mappers_pass_their_tests(void **state)
{
    (void)state;
    check_mapper("mappers/lua/record.lua");
    check_mapper("mappers/lua/template.lua");
    check_mapper("examples/mappers/countries.lua");
}

/* Parts of the file, then rows of each part: counted by hand from the file's text. */
static void countries_come_out(void **state)
{
    struct rf_buf file, parts;
    size_t countries = 0, at = 0;

    (void)state;
    rf_buf_init(&file, 16 << 20);
    rf_buf_init(&parts, 16 << 20);
    if (!read_file("/usr/share/iso-codes/json/iso_3166-1.json", &file)) {
        print_message("skipped: no iso-codes\n");
        rf_buf_release(&file);
        rf_buf_release(&parts);
        return;
    }
    for (const char *p = rf_buf_text(&file); (p = strstr(p, "\"alpha_2\"")); p++)
        countries++;
    open_mapper("mappers/lua/record.lua");
    harness_map_bytes(&h, rf_buf_bytes(&file), NULL);
    rf_buf_put_text(&parts, rf_buf_text(&h.dump));
    open_mapper("examples/mappers/countries.lua");
    for (const char *line = rf_buf_text(&parts); *line; line = strchr(line, '\n') + 1) {
        unsigned long long offset, size;
        assert_int_equal(sscanf(line, "part:%llu+%llu|application/json|-", &offset, &size), 2);
        h.item.kind = RF_ITEM_PART;
        h.item.media = "application/json";
        harness_map_bytes(&h, rf_bytes(file.data + offset, size), NULL);
        assert_int_equal(h.outcome, RF_ENV_ROWS);
        assert_int_equal(strncmp(rf_buf_text(&h.dump), "countries:\"", 11), 0);
        at++;
    }
    assert_int_equal(at, countries);
    rf_buf_release(&file);
    rf_buf_release(&parts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bundled_mappers_pass_their_tests, set_up, tear_down),
        cmocka_unit_test_setup_teardown(countries_come_out, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
