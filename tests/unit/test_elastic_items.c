/*
 * test_elastic_items.c - manifests of items in a search engine, read without one
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "sinks/sink_elastic.h"

/* A batch that broke in the recovery of others names several extents of one generation. */
static void a_batch_names_a_generation_more_than_once(void **state)
{
    static const char text[] =
        "{\"kind\":\"item\",\"item\":\"sha256-00\",\"batch\":7,\"type\":\"blob\",\"seq\":3,"
        "\"calls\":[{\"g\":1,\"r\":[[0,2]],\"e\":0,\"o\":\"rows\"},"
        "{\"g\":2,\"r\":[[1,9]],\"e\":0,\"o\":\"rows\"},"
        "{\"g\":5,\"r\":[[3,1]],\"e\":0,\"o\":\"rows\"}],\"fresh\":true,"
        "\"junk\":[{\"g\":1,\"r\":[[0,4]],\"e\":1},{\"g\":1,\"r\":[[0,5]],\"e\":0},"
        "{\"g\":2,\"r\":[],\"e\":0},{\"g\":1,\"r\":[[0,6]],\"e\":0}]}";
    static const uint32_t want[] = {4, 5, 0, 6, 2, 9}; /* rows: junk, then calls it touched */
    struct rf_elastic sink = {.batch = 9};
    struct rf_el_item item = {0};
    const struct rf_json *json;
    struct rf_arena arena;

    (void)state;
    rf_arena_init(&arena, 1 << 20);
    rf_arena_init(&sink.arena, 1 << 20);
    assert_int_equal(rf_json_parse(&json, &arena, rf_bytes_text(text), NULL), RF_OK);
    assert_int_equal(rf_elastic_read_item(&sink, json, &item, NULL), RF_OK);
    assert_true(item.cur.absent);
    assert_int_equal(item.junk_count, sizeof want / sizeof *want);
    for (size_t i = 0; i < item.junk_count; i++)
        assert_int_equal(item.junk[i].runs.count ? item.junk[i].runs.items[0].count : 0, want[i]);
    rf_arena_release(&sink.arena);
    rf_arena_release(&arena);
}

/* What is named already is not named again, however many breaks follow one another. */
static void what_is_named_is_not_named_again(void **state)
{
    struct rf_el_run runs[] = {{0, 4}}, more[] = {{0, 5}};
    struct rf_el_extent first = {.gen = 1, .runs = {.items = runs, .count = 1}, .edges = 2};
    struct rf_el_extent second = {.gen = 1, .runs = {.items = more, .count = 1}, .edges = 1};
    struct rf_elastic sink = {.batch = 9};
    struct rf_el_item item = {0};

    (void)state;
    rf_arena_init(&sink.arena, 1 << 20);
    for (int turn = 0; turn < 3; turn++) {
        rf_elastic_note(&sink, &item, &first);
        rf_elastic_note(&sink, &item, &second);
        assert_int_equal(item.junk_count, 2);
    }
    second.edges = 3;
    rf_elastic_note(&sink, &item, &second);
    assert_int_equal(item.junk_count, 3);
    rf_arena_release(&sink.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_names_a_generation_more_than_once),
        cmocka_unit_test(what_is_named_is_not_named_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
