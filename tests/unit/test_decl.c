/* test_decl.c - declarations: what passes, what each rule says */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "core/decl.h"
#include "core/nearest.h"

static void reads_all_members(void **state)
{
    static const char json[] =
        "{\"name\":\"mail\",\"version\":\"1.2\",\"title\":\"Mail\",\"on\":[\"blob\",\"file\"],"
        "\"language\":\"english\","
        "\"splits\":true,\"slow\":true,\"limits\":{\"cpu_ms\":600000,\"rows\":5},"
        "\"tables\":[{\"name\":\"mails\",\"title\":\"All mails\",\"columns\":["
        "{\"name\":\"subject\",\"type\":\"text\",\"search\":true,\"title\":\"Subject\"},"
        "{\"name\":\"sent\",\"type\":\"time\",\"facet\":true},"
        "{\"name\":\"sender\",\"type\":\"text\",\"facet\":true}],"
        "\"indexes\":[[\"sender\",\"sent\"],[\"sent\"]],"
        "\"latest\":{\"key\":[\"sender\"],\"by\":\"sent\"}},"
        "{\"name\":\"tags\",\"columns\":[{\"name\":\"tag\",\"type\":\"blobref\"}],\"indexes\":{"
        "}}]}";
    struct rf_arena arena;
    struct rf_decl *decl;
    struct rf_error err = {0};
    char copy[sizeof json];

    (void)state;
    rf_arena_init(&arena, 1 << 20);
    memcpy(copy, json, sizeof json);
    if (rf_decl_parse(&decl, &arena, rf_bytes(copy, sizeof copy - 1), &err) != RF_OK)
        fail_msg("%s", err.message);
    memset(copy, 0, sizeof copy); /* nothing is lent from it */
    assert_string_equal(decl->name, "mail");
    assert_string_equal(decl->version, "1.2");
    assert_string_equal(decl->title, "Mail");
    assert_string_equal(decl->language, "english");
    assert_ptr_equal(decl->tables[1].language, decl->language);
    assert_int_equal(decl->on, RF_ON_BLOB | RF_ON_FILE);
    assert_true(decl->splits && decl->slow);
    assert_int_equal(decl->limits.cpu_ms, 600000);
    assert_int_equal(decl->limits.memory_mb, 16);
    assert_int_equal(decl->limits.rows, 5);
    assert_int_equal(decl->limits.parts, 10000);
    assert_int_equal(decl->limits.output_mb, 16);
    assert_int_equal(decl->table_count, 2);
    assert_string_equal(decl->tables[0].title, "All mails");
    assert_int_equal(decl->tables[0].column_count, 3);
    assert_true(decl->tables[0].columns[0].search && !decl->tables[0].columns[0].facet);
    assert_int_equal(decl->tables[0].columns[1].type, RF_TYPE_TIME);
    assert_int_equal(decl->tables[0].index_count, 2);
    assert_string_equal(decl->tables[0].indexes[0].columns[1], "sent");
    assert_int_equal(decl->tables[0].latest.count, 1);
    assert_string_equal(decl->tables[0].latest.by, "sent");
    assert_null(decl->tables[1].title);
    assert_int_equal(decl->tables[1].latest.count, 0);
    assert_memory_equal(decl->json.data, json, sizeof json);
    rf_arena_release(&arena);
}

static void defaults_hold(void **state)
{
    struct rf_arena arena;
    struct rf_decl *decl;

    (void)state;
    rf_arena_init(&arena, 1 << 20);
    assert_int_equal(rf_decl_parse(&decl, &arena, rf_bytes_text("{\"name\":\"a\"}"), NULL), RF_OK);
    assert_string_equal(decl->version, "");
    assert_null(decl->title);
    assert_int_equal(decl->on, RF_ON_BLOB);
    assert_int_equal(decl->limits.cpu_ms, 5000);
    assert_int_equal(decl->table_count, 0);
    assert_false(decl->splits || decl->slow);
    rf_arena_release(&arena);
}

static void expect_refused(const char *json, const char *words)
{
    struct rf_arena arena;
    struct rf_decl *decl = NULL;
    struct rf_error err = {0};

    rf_arena_init(&arena, 1 << 20);
    assert_int_equal(rf_decl_parse(&decl, &arena, rf_bytes_text(json), &err), RF_INVALID);
    assert_null(decl);
    if (!strstr(err.message, words))
        fail_msg("'%s' does not say '%s'", err.message, words);
    rf_arena_release(&arena);
}

static void rules_are_named(void **state)
{
    static const struct {
        const char *json, *words;
    } mappers[] = {
        {"[", "line 1, column 2"},
        {"[]", "a mapper must be an object, not a list"},
        {"{}", "a mapper has no 'name'"},
        {"{\"name\":7}", "'name' must be text, not a number"},
        {"{\"name\":\"Mail\"}", "name 'Mail' of a mapper must be a-z"},
        {"{\"name\":\"\"}", "must be a-z"},
        {"{\"name\":\"a\\u0000b\"}", "must be a-z"},
        {"{\"name\":\"1a\"}", "must be a-z"},
        {"{\"name\":\"_a\"}", "must be a-z"},
        {"{\"name\":\"a-b\"}", "must be a-z"},
        {"{\"name\":\"a\\\"; drop table x\"}", "must be a-z"},
        {"{\"name\":\"a234567890123456789012345678901234567890123456789\"}", "must be a-z"},
        {"{\"name\":\"refuge_x\"}", "beginning with 'refuge' are reserved"},
        {"{\"name\":\"sqlite_x\"}", "beginning with 'sqlite' are reserved"},
        {"{\"name\":\"pg_x\"}", "beginning with 'pg_' are reserved"},
        {"{\"name\":\"a\",\"splitz\":true}",
         "unknown member 'splitz' of a mapper, did you mean 'splits'?"},
        {"{\"name\":\"a\",\"zzzzzz\":true}", "unknown member 'zzzzzz' of a mapper"},
        {"{\"name\":\"a\",\"splits\":1}",
         "mapper 'a': 'splits' must be true or false, not a number"},
        {"{\"name\":\"a\",\"title\":[]}", "'title' must be text, not a list"},
        {"{\"name\":\"a\",\"title\":\"a\\u0000b\"}", "without NUL"},
        {"{\"name\":\"a\",\"on\":\"blobs\"}", "'on' must be"},
        {"{\"name\":\"a\",\"on\":[]}", "'on' must be"},
        {"{\"name\":\"a\",\"on\":[\"blob\",\"tree\"]}", "'on' must be"},
        {"{\"name\":\"a\",\"limits\":{\"cpu_ms\":600001}}",
         "limit 'cpu_ms' must be a whole number from 1 to 600000"},
        {"{\"name\":\"a\",\"limits\":{\"rows\":0}}", "limit 'rows'"},
        {"{\"name\":\"a\",\"limits\":{\"memory_mb\":1.5}}", "limit 'memory_mb'"},
        {"{\"name\":\"a\",\"limits\":{\"cpums\":5}}", "did you mean 'cpu_ms'?"},
        {"{\"name\":\"a\",\"tables\":3}", "'tables' must be a list"},
        {"{\"name\":\"a\",\"tables\":[{\"name\":\"t\"}]}", "table 't': 0 columns"},
        {"{\"name\":\"a\",\"tables\":[{\"name\":\"blobs\",\"columns\":[]}]}",
         "name 'blobs' of a table is reserved"},
        {"{\"name\":\"a\",\"tables\":[{\"name\":\"everything\",\"columns\":[]}]}", "is reserved"},
    };
    static const struct {
        const char *table, *words;
    } tables[] = {
        {"\"columns\":[{\"name\":\"id\",\"type\":\"int\"}]",
         "table 't': name 'id' of a column is reserved"},
        {"\"columns\":[{\"name\":\"blob\",\"type\":\"int\"}]", "is reserved"},
        {"\"columns\":[{\"name\":\"n\",\"type\":\"int\"}]", "is reserved"},
        {"\"columns\":[{\"name\":\"grams\",\"type\":\"int\"}]", "is reserved"},
        {"\"columns\":[{\"name\":\"rowid\",\"type\":\"int\"}]", "is reserved"},
        {"\"columns\":[{\"name\":\"rank\",\"type\":\"int\"}]", "is reserved"},
        {"\"columns\":[{\"name\":\"x\"}]", "column 'x' has no 'type'"},
        {"\"columns\":[{\"name\":\"x\",\"type\":\"txt\"}]",
         "unknown type 'txt', did you mean 'text'?"},
        {"\"columns\":[{\"name\":\"x\",\"type\":\"varchar\"}]", "types are int, float"},
        {"\"columns\":[{\"name\":\"x\",\"type\":\"int\",\"search\":true}]",
         "only text can be searched, not int"},
        {"\"columns\":[{\"name\":\"x\",\"type\":\"int\",\"facett\":true}]",
         "did you mean 'facet'?"},
        {"\"columns\":[{\"name\":\"x\",\"type\":\"int\"},{\"name\":\"x\",\"type\":\"int\"}]",
         "column 'x' is there twice"},
        {"\"columns\":[{\"name\":\"x\",\"type\":\"time\"},{\"name\":\"x_offset\","
         "\"type\":\"int\"}]", "the time column 'x' makes"},
        {"\"columns\":[{\"name\":\"x_offset\",\"type\":\"int\"},{\"name\":\"x\","
         "\"type\":\"time\"}]", "the time column 'x' makes"},
        {"\"columns\":[{\"name\":\"price\",\"type\":\"int\"}],\"indexes\":[[\"pirce\"]]",
         "no column 'pirce', did you mean 'price'?"},
        {"\"columns\":[{\"name\":\"x\",\"type\":\"int\"}],\"indexes\":[[]]", "one to eight"},
        {"\"columns\":[{\"name\":\"x\",\"type\":\"int\"}],\"indexes\":[[\"x\",\"x\"]]",
         "'x' twice"},
        {"\"columns\":[{\"name\":\"x\",\"type\":\"int\"}],\"indexes\":[\"x\"]", "one to eight"},
        {"\"columns\":[{\"name\":\"x\",\"type\":\"text\"}],\"latest\":{\"key\":[\"x\"],"
         "\"by\":\"x\"}", "is text, not time or int"},
        {"\"columns\":[{\"name\":\"x\",\"type\":\"text\"}],\"latest\":{\"by\":\"x\"}",
         "the key of 'latest'"},
    };
    char json[1000];

    (void)state;
    for (size_t i = 0; i < sizeof mappers / sizeof *mappers; i++)
        expect_refused(mappers[i].json, mappers[i].words);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        snprintf(json, sizeof json, "{\"name\":\"a\",\"tables\":[{\"name\":\"t\",%s}]}",
                 tables[i].table);
        expect_refused(json, tables[i].words);
    }
    expect_refused("{\"name\":\"a\",\"tables\":[{\"name\":\"t\",\"columns\":[{\"name\":\"x\","
                   "\"type\":\"int\"}]},"
                   "{\"name\":\"t\",\"columns\":[{\"name\":\"x\",\"type\":\"int\"}]}]}",
                       "table 't' is there twice");
    expect_refused("{\"name\":\"a\",\"tables\":[{\"name\":\"t_latest\",\"columns\":[{"
                   "\"name\":\"x\",\"type\":\"int\"}]},"
                   "{\"name\":\"t\",\"columns\":[{\"name\":\"x\",\"type\":\"int\"}],\"latest\":{"
                   "\"key\":[\"x\"]}}]}",
                   "makes a view of that name");
}

static void counts_are_bounded(void **state)
{
    char *json = malloc(100000);
    size_t size;

    (void)state;
    assert_non_null(json);
    for (int tables = 0; tables < 2; tables++) {
        size = (size_t)sprintf(json, "{\"name\":\"a\",\"tables\":[");
        for (int t = 0; t < (tables ? RF_TABLES_MAX + 1 : 1); t++) {
            size += (size_t)sprintf(json + size, "%s{\"name\":\"t%d\",\"columns\":[", t ? "," : "",
                                    t);
            for (int c = 0; c < (tables ? 1 : RF_COLUMNS_MAX + 1); c++)
                size += (size_t)sprintf(json + size, "%s{\"name\":\"c%d\",\"type\":\"int\"}",
                                        c ? "," : "", c);
            size += (size_t)sprintf(json + size, "]}");
        }
        sprintf(json + size, "]}");
        expect_refused(json, tables ? "at most 32" : "a table has 1 to 200");
    }
    free(json);
}

static void types_have_names(void **state)
{
    (void)state;
    for (unsigned i = 1; i < RF_TYPE_COUNT; i++) {
        const char *name = rf_type_name((enum rf_type)i);
        assert_int_equal(rf_type_find(name, strlen(name)), i);
    }
    assert_int_equal(rf_type_find("texts", 5), 0);
    assert_int_equal(rf_type_find("texts", 4), RF_TYPE_TEXT);
    assert_string_equal(rf_type_name(0), "null");
}

static void nearest_is_what_was_meant(void **state)
{
    static const char *const names[] = {"batch_items", "batch_ms", "store", "sink", "x", NULL};

    (void)state;
    assert_string_equal(rf_nearest("bacht_ms", names, SIZE_MAX), "batch_ms");
    assert_string_equal(rf_nearest("bach_items", names, SIZE_MAX), "batch_items");
    assert_string_equal(rf_nearest("stroe", names, SIZE_MAX), "store");
    assert_string_equal(rf_nearest("sinks", names, 4), "sink");
    assert_null(rf_nearest("sinks", names, 3));
    assert_null(rf_nearest("colour", names, SIZE_MAX));
    assert_null(rf_nearest("y", names, SIZE_MAX));
    assert_null(rf_nearest("", names, SIZE_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_all_members),
        cmocka_unit_test(defaults_hold),
        cmocka_unit_test(rules_are_named),
        cmocka_unit_test(counts_are_bounded),
        cmocka_unit_test(types_have_names),
        cmocka_unit_test(nearest_is_what_was_meant),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
