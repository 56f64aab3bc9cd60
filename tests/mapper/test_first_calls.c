/*
 * test_first_calls.c - no helper needs the system at its first call
 *
 * Libraries open files and ask for memory maps of files when they are first used: a configuration,
 * a table, a locale. In the jail that is death, so the zygote has it behind it. Each mapper process
 * here is fresh, and its first call calls each helper once. A sanitized build lets such a call fail
 * instead of killing, so it is the release and controls builds that tell.
 */
#include "../unit/pool_harness.h"

static void test_no_helper_opens_anything(void **state)
{
    struct rf_pool *pool = pool_open((struct rf_pool_options){.workers = 1, .fast_ms = 10000});
    struct rf_item item = item_text("{\"a\":\"b\"}");
    struct rf_error err = {.status = RF_OK};
    struct rf_pool_stats stats;
    struct rf_mapper *mapper;
    struct rf_result *result;

    (void)state;
    if (rf_pool_load(pool, RF_SOURCE_DIR "/tests/mapper/first_calls.lua", &mapper, &err) != RF_OK)
        fail_msg("%s", err.message);
    result = map_one(pool, RF_LANE_FAST, &item, mapper);
    if (result->calls[0].outcome != RF_CALL_ROWS)
        fail_msg("%s", result->calls[0].message);
    assert_int_equal(result->calls[0].parts, 1);
    assert_true(result->calls[0].rows >= 50);
    rf_result_free(result);
    rf_pool_stats(pool, &stats);
    assert_int_equal(stats.crashes, 0);
    rf_pool_close(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_helper_opens_anything)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
