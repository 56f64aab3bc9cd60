/*
 * test_slow_lane.c - what takes long, what loops, and how both are had again
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/index_fixture.h"

/* Lines of JSON become parts; the parts are mapped by whoever wants JSON. */
static const char lines[] =
    "return { name = 'lines', splits = true,\n"
    "  match = function(blob) return blob:sub(1, 7) == '#lines\\n' end,\n"
    "  tables = { files = { columns = { 'count int' } } },\n"
    "  map = function(blob, emit)\n"
    "    local text, at, count = blob:content(), 8, 0\n"
    "    while at <= #text do\n"
    "      local stop = text:find('\\n', at, true) or #text + 1\n"
    "      emit.part { offset = at - 1, size = stop - at, media = 'application/json' }\n"
    "      at, count = stop + 1, count + 1\n"
    "    end\n"
    "    emit.files { count = count }\n"
    "  end }\n";

static void slow_calls_end_in_rows(void **state)
{
    static const char text[] =
        "return { name = 'busy', match = { media = { 'application/json' } },\n"
        "  tables = { busy = { columns = { 'num int' } } },\n"
        "  limits = { cpu_ms = 60000 },\n"
        "  map = function(blob, emit)\n"
        "    local d, x = blob:json(), 0\n"
        "    if d.n % 20 == 7 then for i = 1, 4e7 do x = (x + i) % 7 end end\n"
        "    emit.busy { num = d.n + 0 * x }\n"
        "  end }\n";
    struct home home;
    struct rf_blobref ref;

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "busy", text);
    for (int i = 0; i < 60; i++) {
        char json[100];

        snprintf(json, sizeof json, "{\"n\":%d}", i);
        put(&home, json, &ref);
    }
    run(&home);
    assert_int_equal(number(&home, "select count(*) from busy"), 60);
    assert_int_equal(number(&home, "select count(*) from refuge_parks"), 0);
    home_close(&home);
}

/* Parts that wait for the slow lane are had again from the blob they were cut from. */
static void slow_parts_end_in_rows(void **state)
{
    static const char busy[] =
        "return { name = 'busy', match = { media = { 'application/json' } },\n"
        "  tables = { busy = { columns = { 'num int' } } },\n"
        "  limits = { cpu_ms = 60000 },\n"
        "  map = function(blob, emit)\n"
        "    local d, x = blob:json(), 0\n"
        "    if d.n % 5 == 1 then for i = 1, 4e7 do x = (x + i) % 7 end end\n"
        "    emit.busy { num = d.n + 0 * x }\n"
        "  end }\n";
    struct home home;
    struct rf_blobref ref;

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "busy", busy);
    set_mapper(&home, 1, "lines", lines);
    put(&home, "#lines\n{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n{\"n\":6}\n", &ref);
    run(&home);
    assert_int_equal(number(&home, "select count(*) from busy"), 4);
    assert_int_equal(number(&home, "select count(*) from refuge_parks"), 0);
    verify(&home);
    home_close(&home);
}

/* Slow where n % 50 is 1; loops where n % 100 is 3. */
static const char awkward[] =
    "return { name = 'awkward', match = { media = { 'application/json' } },\n"
    "  tables = { awkward = { columns = { 'num int' } } },\n"
    "  limits = { cpu_ms = 600 },\n"
    "  map = function(blob, emit)\n"
    "    local n, x = blob:json().n, 0\n"
    "    while n % 100 == 3 do x = x + 1 end\n"
    "    if n % 50 == 1 then for i = 1, 4e7 do x = (x + i) % 7 end end\n"
    "    emit.awkward { num = n + 0 * x }\n"
    "  end }\n";

/* Bags of bags of notes, none of whose bytes lie in the stored blob as they are. */
static const char bags[] =
    "return { name = 'bags', splits = true,\n"
    "  match = function(blob) return blob:sub(1, 3) == 'bag' end,\n"
    "  map = function(blob, emit)\n"
    "    for depth, from, to in blob:content():gmatch('bag(%d) (%d+) (%d+)') do\n"
    "      for n = from, to do\n"
    "        if depth == '0' then\n"
    "          emit.part { bytes = ('{\"n\":%d}'):format(n), media = 'application/json' }\n"
    "        else\n"
    "          emit.part { bytes = ('bag%d %d %d'):format(depth - 1, 10 * n, 10 * n + 9),\n"
    "                      media = 'text/plain' }\n"
    "        end\n"
    "      end\n"
    "    end\n"
    "  end }\n";

/* So are parts whose bytes a mapper made, several levels below the stored blob. */
static void slow_parts_are_made_again(void **state)
{
    struct home home;
    struct rf_blobref ref;

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "awkward", awkward);
    set_mapper(&home, 1, "bags", bags);
    put(&home, "bag0 1 4", &ref);
    put(&home, "bag2 1 1", &ref); /* 100 to 199 */
    run(&home);
    assert_int_equal(number(&home, "select count(*) from awkward"), 3 + 99);
    assert_int_equal(number(&home, "select count(*) from awkward where num % 50 = 1"), 3);
    assert_int_equal(number(&home, "select count(*) from refuge_dead_letters"), 2);
    assert_int_equal(number(&home, "select count(*) from refuge_parks"), 0);
    verify(&home);
    home_close(&home);
}

static const char patient[] =
    "return { name = 'patient', match = { media = { 'application/json' } },\n"
    "  tables = { waited = { columns = { 'num int' } } },\n"
    "  limits = { cpu_ms = 60000 },\n"
    "  map = function(blob, emit)\n"
    "    local n, x = blob:json().n, 0\n"
    "    if n % 10 == 1 then for i = 1, 4e7 do x = (x + i) % 7 end end\n"
    "    emit.waited { num = n + 0 * x }\n"
    "  end }\n";

static const char loops[] =
    "return { name = 'loops', match = { media = { 'application/json' } },\n"
    "  tables = { looped = { columns = { 'num int' } } },\n"
    "  limits = { cpu_ms = 200 },\n"
    "  map = function(blob, emit)\n"
    "    while true do end\n"
    "  end }\n";

static void run_within(struct home *home, uint64_t slow_budget_ms, uint64_t waiting)
{
    struct rf_index_options options = index_options(home);
    struct rf_index_stopped stopped;
    struct rf_index *index;

    options.slow_budget_ms = slow_budget_ms;
    OK(rf_index_open(&index, &options, err));
    OK(rf_index_run(index, false, err));
    if (waiting) {
        OK(rf_index_stopped(index, 0, &stopped, err));
        assert_string_equal(stopped.mapper, "loops");
        assert_int_equal(stopped.waiting, waiting);
    }
    assert_int_equal(rf_index_stopped(index, waiting ? 1 : 0, &stopped, NULL), RF_END);
    rf_index_close(index);
}

/* A call that hits its limit costs 200 ms twice: with 1 s for them, three are tried. */
static void a_mapper_that_only_loops_is_stopped(void **state)
{
    struct home home;
    struct rf_blobref ref;
    struct rf_compare_report report = {0};
    struct rf_index_options options;
    char json[100];

    (void)state;
    home_open(&home);
    set_mapper(&home, 0, "loops", loops);
    set_mapper(&home, 1, "patient", patient);
    for (int i = 0; i < 30; i++) {
        snprintf(json, sizeof json, "{\"n\":%d}", i);
        put(&home, json, &ref);
    }
    run_within(&home, 1000, 27);
    assert_int_equal(number(&home, "select count(*) from refuge_dead_letters d join "
                                   "refuge_lane_mappers m on m.id = d.mapper where m.name = "
                                   "'loops'"), 3);
    /* What it holds back is not claimed to have been tried, and nobody else is held up. */
    assert_int_equal(number(&home, "select count(*) from refuge_parks where kind = 'slow'"), 27);
    assert_int_equal(number(&home, "select count(*) from waited"), 30);
    assert_true(home.warned > 0);
    options = index_options(&home);
    options.slow_budget_ms = 500;
    OK(rf_index_verify(&options, print_problem, &report, err));
    assert_int_equal(report.differences, 0);
    assert_int_equal(report.parked + report.limit_letters, 30);
    assert_true(report.parked >= 27);
    run_within(&home, 1000, 24); /* a new run goes on behind what it tried */
    home.mapper_count = 2; /* a version that works has what waited */
    set_mapper(&home, 0, "loops",
               "return { name = 'loops', match = { media = { 'application/json' } },\n"
               "  tables = { looped = { columns = { 'num int' } } },\n"
               "  map = function(blob, emit) emit.looped { num = blob:json().n } end }\n");
    run_within(&home, 1000, 0);
    assert_int_equal(number(&home, "select count(*) from looped"), 30);
    assert_int_equal(number(&home, "select count(*) from refuge_parks"), 0);
    verify(&home);
    home_close(&home);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slow_calls_end_in_rows),
        cmocka_unit_test(slow_parts_end_in_rows),
        cmocka_unit_test(slow_parts_are_made_again),
        cmocka_unit_test(a_mapper_that_only_loops_is_stopped),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
