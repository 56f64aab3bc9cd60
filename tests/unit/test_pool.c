/* test_pool.c - mappers in jailed processes: results, limits, kills, and what they leave. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "core/json.h"
#include "pool_harness.h"

struct fixture {
    struct folder folder;
    struct rf_pool *pool;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    folder_make(&f->folder);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    rf_pool_close(f->pool);
    folder_remove(&f->folder);
    free(f);
    return 0;
}

static struct rf_pool_stats stats_of(struct rf_pool *pool)
{
    struct rf_pool_stats stats;

    rf_pool_stats(pool, &stats);
    return stats;
}

#define ECHO "row{word = blob:content(), num = blob.size}"

/* ---- mapping ---- */

static void test_maps_an_item_with_several_mappers(void **state)
{
    struct fixture *f = *state;
    const struct rf_mapper *mappers[4];
    struct rf_item item = item_text("hello");
    struct rf_result *result;
    struct rf_error err = {.status = RF_OK};
    char *word;

    f->pool = pool_open((struct rf_pool_options){.workers = 1});
    mappers[0] = mapper_with(f->pool, &f->folder, "echo", "", "", ECHO);
    mappers[1] = mapper_with(f->pool, &f->folder, "fails", "", "", "local x = nil; row{num = x.y}");
    mappers[2] = mapper_with(f->pool, &f->folder, "refuses", "match = function() return false end,",
                             "", ECHO);
    mappers[3] = mapper_with(f->pool, &f->folder, "slowly", "slow = true,", "", ECHO);
    assert_int_equal(rf_pool_submit(f->pool, RF_LANE_FAST, &item, mappers, 4, &err), RF_OK);
    assert_int_equal(rf_pool_pending(f->pool, RF_LANE_FAST), 1);
    result = next(f->pool);
    assert_ptr_equal(result->item, &item);
    assert_int_equal(result->status, RF_OK);
    assert_int_equal(result->call_count, 4);
    for (int i = 0; i < 4; i++)
        assert_ptr_equal(result->calls[i].mapper, mappers[i]);
    assert_int_equal(result->calls[0].outcome, RF_CALL_ROWS);
    assert_int_equal(result->calls[0].rows, 1);
    word = word_of(&result->calls[0], &item, 0);
    assert_string_equal(word, "hello");
    free(word);
    assert_int_equal(result->calls[1].outcome, RF_CALL_FAILED);
    assert_non_null(strstr(result->calls[1].message, "fails.lua:"));
    assert_non_null(result->calls[1].traceback);
    assert_int_equal(result->calls[1].output.size, 0);
    assert_int_equal(result->calls[2].outcome, RF_CALL_NONE);
    assert_int_equal(result->calls[3].outcome, RF_CALL_SLOW);
    assert_null(result->calls[0].trace);
    rf_result_free(result);
    assert_int_equal(rf_pool_pending(f->pool, RF_LANE_FAST), 0);
    assert_int_equal(rf_pool_next(f->pool, &result, 0, &err), RF_END);

    assert_int_equal(rf_pool_submit(f->pool, RF_LANE_SLOW, &item, mappers, 4, &err), RF_OK);
    result = next(f->pool);
    assert_int_equal(result->calls[0].outcome, RF_CALL_ROWS);
    assert_int_equal(result->calls[1].outcome, RF_CALL_FAILED);
    assert_int_equal(result->calls[2].outcome, RF_CALL_NONE);
    assert_int_equal(result->calls[3].outcome, RF_CALL_ROWS);
    rf_result_free(result);
}

static void test_no_mapper_and_slow_ones_need_no_worker(void **state)
{
    struct fixture *f = *state;
    struct rf_item item = item_text("x");
    struct rf_result *result;
    struct rf_error err = {.status = RF_OK};

    f->pool = pool_open((struct rf_pool_options){.workers = 1});
    assert_int_equal(rf_pool_submit(f->pool, RF_LANE_FAST, &item, NULL, 0, &err), RF_OK);
    result = next(f->pool);
    assert_int_equal(result->call_count, 0);
    rf_result_free(result);
    assert_int_equal(stats_of(f->pool).workers_started, 0);
}

static void test_trace_and_cpu(void **state)
{
    struct fixture *f = *state;
    struct rf_item item = item_text("hello");
    struct rf_result *result;
    const struct rf_mapper *mapper;

    f->pool = pool_open((struct rf_pool_options){.fast_ms = 60000});
    mapper = mapper_with(f->pool, &f->folder, "echo", "", "",
                         "local n = 0 for i = 1, 3e6 do n = n + i % 7 end " ECHO);
    item.trace = true;
    result = map_one(f->pool, RF_LANE_FAST, &item, mapper);
    assert_int_equal(result->calls[0].outcome, RF_CALL_ROWS);
    assert_non_null(strstr(result->calls[0].trace, "emit.echo_t"));
    assert_true(result->calls[0].cpu_us > 0);
    assert_true(result->calls[0].wall_us >= result->calls[0].cpu_us);
    rf_result_free(result);
}

static void test_thousands_come_back_once_each(void **state)
{
    enum { COUNT = 5000 };
    struct fixture *f = *state;
    struct rf_item *items = calloc(COUNT, sizeof *items);
    char (*texts)[32] = calloc(COUNT, sizeof *texts);
    uint8_t *seen = calloc(COUNT, 1);
    const struct rf_mapper *mapper;
    size_t sent = 0, got = 0;
    bool was_full = false;

    f->pool = pool_open((struct rf_pool_options){.workers = 2});
    mapper = mapper_with(f->pool, &f->folder, "echo", "", "", ECHO);
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(texts[i], sizeof texts[i], "item %zu", i);
        items[i] = item_text(texts[i]);
    }
    while (got < COUNT) {
        struct rf_result *result;
        char *word;
        size_t i;

        for (enum rf_status status = RF_OK; sent < COUNT && status == RF_OK;) {
            status = rf_pool_submit(f->pool, RF_LANE_FAST, &items[sent], &mapper, 1, NULL);
            was_full |= status == RF_UNAVAILABLE;
            sent += status == RF_OK;
        }
        result = next(f->pool);
        i = (size_t)(result->item - items);
        assert_false(seen[i]++);
        assert_int_equal(result->calls[0].outcome, RF_CALL_ROWS);
        word = word_of(&result->calls[0], result->item, 0);
        assert_string_equal(word, texts[i]);
        free(word);
        rf_result_free(result);
        got++;
    }
    assert_true(was_full); /* the queue has a maximum */
    assert_int_equal(stats_of(f->pool).calls, COUNT);
    assert_int_equal(stats_of(f->pool).workers_started - 1, 2);
    free(items);
    free(texts);
    free(seen);
}

/* ---- content, needs, output ---- */

static enum rf_status read_pattern(void *user, struct rf_item *item, uint64_t offset, void *out,
                                   size_t size, size_t *got, struct rf_error *err)
{
    enum rf_status *status = user;

    (void)item;
    if (*status)
        return rf_error_set(err, *status, "the store is on fire");
    for (size_t i = 0; i < size; i++)
        ((char *)out)[i] = (char)('a' + (offset + i) % 26);
    *got = size;
    return RF_OK;
}

static void test_content_is_read_by_range(void **state)
{
    static const char body[] =
        "local s = blob:content() local n = 0 for i = 1, #s, 1000 do n = n + s:byte(i) end "
        "row{word = blob:sub(1000001, 1000005), num = n}";
    struct fixture *f = *state;
    enum { SIZE = 3000000 };
    enum rf_status status = RF_OK;
    struct rf_pool_source source = {.read = read_pattern, .user = &status};
    char *content = malloc(SIZE), *word;
    struct rf_item items[2];
    const struct rf_mapper *mapper;
    int64_t expected = 0;
    size_t got;

    f->pool = pool_open((struct rf_pool_options){.fast_ms = 60000});
    rf_pool_set_source(f->pool, &source);
    mapper = mapper_with(f->pool, &f->folder, "ranges", "", "", body);
    read_pattern(&status, NULL, 0, content, SIZE, &got, NULL);
    for (size_t i = 0; i < SIZE; i += 1000)
        expected += content[i];
    items[0] = items[1] = item_of(content, SIZE);
    items[1].content = NULL; /* through the callback */
    for (int i = 0; i < 2; i++) {
        struct rf_result *result = map_one(f->pool, RF_LANE_FAST, &items[i], mapper);
        if (result->calls[0].outcome != RF_CALL_ROWS)
            fail_msg("%s", result->calls[0].message);
        word = word_of(&result->calls[0], &items[i], 0);
        assert_memory_equal(word, content + 1000000, 5);
        free(word);
        assert_int_equal(num_of(&result->calls[0], &items[i]), expected);
        rf_result_free(result);
    }
    free(content);
}

static enum rf_status read_lines(void *user, struct rf_item *item, uint64_t offset, void *out,
                                 size_t size, size_t *got, struct rf_error *err)
{
    (void)user;
    (void)item;
    (void)err;
    for (size_t i = 0; i < size; i++)
        ((char *)out)[i] = (offset + i) % 32 == 31 ? '\n' : 'x';
    *got = size;
    return RF_OK;
}

/* Compiled loops keep the iterators they were made for; the heap of a worker must not fill up. */
static void test_windows_of_earlier_calls_are_let_go(void **state)
{
    static const char body[] = "local n = 0 for line in blob:lines() do n = n + #line end "
                               "row{num = n}";
    struct fixture *f = *state;
    enum { SIZE = 320000 };
    struct rf_pool_source source = {.read = read_lines};
    char *content = calloc(1, SIZE);
    struct rf_item item = item_of(content, SIZE);
    const struct rf_mapper *mapper;

    item.content = NULL;
    free(content);
    f->pool = pool_open((struct rf_pool_options){.workers = 1, .fast_ms = 60000});
    rf_pool_set_source(f->pool, &source);
    mapper = mapper_with(f->pool, &f->folder, "windows", "", "", body);
    for (int i = 0; i < 200; i++) {
        struct rf_result *result = map_one(f->pool, RF_LANE_FAST, &item, mapper);

        if (result->calls[0].outcome != RF_CALL_ROWS)
            fail_msg("call %d: %s", i, result->calls[0].message);
        assert_int_equal(num_of(&result->calls[0], &item), SIZE / 32 * 31);
        rf_result_free(result);
    }
}

static void test_a_store_out_of_reach_ends_the_item_only(void **state)
{
    struct fixture *f = *state;
    enum rf_status status = RF_UNAVAILABLE;
    struct rf_pool_source source = {.read = read_pattern, .user = &status};
    struct rf_item items[40];
    const struct rf_mapper *mapper;

    f->pool = pool_open((struct rf_pool_options){.workers = 1});
    rf_pool_set_source(f->pool, &source);
    mapper = mapper_with(f->pool, &f->folder, "echo", "", "", ECHO);
    for (int i = 0; i < 40; i++) {
        items[i] = item_text("good");
        if (i == 7)
            items[i].content = NULL;
        submit(f->pool, RF_LANE_FAST, &items[i], mapper);
    }
    for (int i = 0; i < 40; i++) {
        struct rf_result *result = next(f->pool);
        if (result->item == &items[7]) {
            assert_int_equal(result->status, RF_UNAVAILABLE);
            assert_string_equal(result->error.message, "the store is on fire");
        } else {
            assert_int_equal(result->status, RF_OK);
            assert_int_equal(result->calls[0].outcome, RF_CALL_ROWS);
        }
        rf_result_free(result);
    }
    assert_int_equal(stats_of(f->pool).crashes, 0);
}

static const char needed[] = "the other blob";

static enum rf_status stat_needed(void *user, const struct rf_blobref *ref, uint64_t *size,
                                  struct rf_error *err)
{
    struct rf_blobref there;

    (void)err;
    ++*(unsigned *)user;
    rf_blobref_of(&there, rf_bytes_text(needed));
    *size = sizeof needed - 1;
    return rf_blobref_equal(ref, &there) ? RF_OK : RF_NOT_FOUND;
}

static enum rf_status read_needed(void *user, const struct rf_blobref *ref, uint64_t offset,
                                  void *out, size_t size, size_t *got, struct rf_error *err)
{
    (void)user;
    (void)ref;
    (void)err;
    *got = offset < sizeof needed - 1 ? sizeof needed - 1 - offset : 0;
    if (*got > size)
        *got = size;
    memcpy(out, needed + offset, *got);
    return RF_OK;
}

static void test_another_blob_is_needed(void **state)
{
    struct fixture *f = *state;
    unsigned asked = 0;
    struct rf_pool_source source = {.need_stat = stat_needed, .need_read = read_needed,
                                    .user = &asked};
    char there[RF_BLOBREF_SIZE], missing[RF_BLOBREF_SIZE], *word;
    struct rf_blobref ref;
    struct rf_item items[2];
    struct rf_result *result;
    const struct rf_mapper *mapper;
    struct rf_output_reader reader;
    struct rf_record record;

    rf_blobref_of(&ref, rf_bytes_text(needed));
    rf_blobref_format(&ref, there);
    rf_blobref_of(&ref, rf_bytes_text("not there"));
    rf_blobref_format(&ref, missing);
    f->pool = pool_open((struct rf_pool_options){0});
    rf_pool_set_source(f->pool, &source);
    mapper = mapper_with(f->pool, &f->folder, "needs", "", "",
                         "local b = blob:need(blob:content()) row{word = b:content()}");
    items[0] = item_text(there);
    items[1] = item_text(missing);
    result = map_one(f->pool, RF_LANE_FAST, &items[0], mapper);
    if (result->calls[0].outcome != RF_CALL_ROWS)
        fail_msg("%s", result->calls[0].message);
    word = word_of(&result->calls[0], &items[0], 0);
    assert_string_equal(word, needed);
    free(word);
    assert_int_equal(result->calls[0].needs, 1);
    rf_result_free(result);
    result = map_one(f->pool, RF_LANE_FAST, &items[1], mapper);
    assert_int_equal(result->calls[0].outcome, RF_CALL_MISSING);
    assert_int_equal(result->calls[0].needs, 1);
    rf_output_init(&reader, result->calls[0].output, rf_mapper_decl(mapper), items[1].size);
    assert_int_equal(rf_output_next(&reader, &record, NULL), RF_OK);
    assert_int_equal(record.kind, RF_RECORD_NEED);
    assert_false(record.present);
    assert_true(rf_blobref_equal(&record.ref, &ref));
    assert_int_equal(rf_output_next(&reader, &record, NULL), RF_END);
    rf_output_release(&reader);
    rf_result_free(result);
    assert_true(asked >= 2);
}

static void test_large_output_comes_in_pieces(void **state)
{
    struct fixture *f = *state;
    struct rf_item items[6];
    const struct rf_mapper *mapper;

    f->pool = pool_open((struct rf_pool_options){.fast_ms = 60000, .workers = 2});
    mapper = mapper_with(f->pool, &f->folder, "large", "", "",
                         "for i = 1, 8 do row{word = string.rep(string.char(96 + i), 1000000), "
                         "num = i} end");
    for (int i = 0; i < 6; i++) {
        items[i] = item_text("x");
        submit(f->pool, RF_LANE_FAST, &items[i], mapper);
    }
    for (int i = 0; i < 6; i++) {
        struct rf_result *result = next(f->pool);
        if (result->calls[0].outcome != RF_CALL_ROWS)
            fail_msg("%s", result->calls[0].message);
        assert_int_equal(result->calls[0].rows, 8);
        for (unsigned r = 0; r < 8; r++) {
            char *word = word_of(&result->calls[0], result->item, r);
            assert_int_equal(strlen(word), 1000000);
            assert_int_equal(strspn(word, (char[]){(char)('a' + r), 0}), 1000000);
            free(word);
        }
        rf_result_free(result);
    }
}

/* ---- limits ---- */

#define POISON                                                                                     \
    "local s = blob:content() if s == 'loop' then while true do end end "                          \
    "if s == 'memory' then local t = {} while true do t[#t + 1] = {} end end "                     \
    "if s == 'flood' then while true do row{word = ('x'):rep(100000)} end end " ECHO

static void test_a_hang_in_the_fast_lane_costs_itself_only(void **state)
{
    enum { COUNT = 300 };
    struct fixture *f = *state;
    struct rf_item items[COUNT];
    const struct rf_mapper *mapper;
    struct rf_pool_stats stats;

    f->pool = pool_open((struct rf_pool_options){.workers = 2});
    mapper = mapper_with(f->pool, &f->folder, "poison", "", "", POISON);
    for (int i = 0; i < COUNT; i++) {
        items[i] = item_text(i % 100 == 50 ? "loop" : "good");
        submit(f->pool, RF_LANE_FAST, &items[i], mapper);
    }
    for (int i = 0; i < COUNT; i++) {
        struct rf_result *result = next(f->pool);
        assert_int_equal(result->calls[0].outcome, (result->item - items) % 100 == 50
                                                       ? RF_CALL_SLOW
                                                       : RF_CALL_ROWS);
        rf_result_free(result);
    }
    stats = stats_of(f->pool);
    assert_int_equal(stats.kills_slow, 3);
    assert_int_equal(stats.kills_limit, 0);
    assert_true(stats.workers_started >= 3);
}

static void test_only_the_guilty_call_of_an_item_is_set_aside(void **state)
{
    struct fixture *f = *state;
    struct rf_item item = item_text("loop");
    const struct rf_mapper *mappers[3];
    struct rf_result *result;

    f->pool = pool_open((struct rf_pool_options){.workers = 1});
    mappers[0] = mapper_with(f->pool, &f->folder, "before", "", "", ECHO);
    mappers[1] = mapper_with(f->pool, &f->folder, "poison", "", "", POISON);
    mappers[2] = mapper_with(f->pool, &f->folder, "after", "", "", ECHO);
    assert_int_equal(rf_pool_submit(f->pool, RF_LANE_FAST, &item, mappers, 3, NULL), RF_OK);
    result = next(f->pool);
    assert_int_equal(result->calls[0].outcome, RF_CALL_ROWS);
    assert_int_equal(result->calls[1].outcome, RF_CALL_SLOW);
    assert_int_equal(result->calls[2].outcome, RF_CALL_ROWS);
    rf_result_free(result);
}

static void expect_limit(struct rf_pool *pool, enum rf_pool_lane lane, const char *content,
                         const struct rf_mapper *mapper, const char *words)
{
    struct rf_item item = item_text(content);
    struct rf_result *result = map_one(pool, lane, &item, mapper);

    if (result->calls[0].outcome != RF_CALL_LIMIT)
        fail_msg("%s: outcome %d, %s", content, result->calls[0].outcome,
                 result->calls[0].message ? result->calls[0].message : "no message");
    if (!strstr(result->calls[0].message, words))
        fail_msg("%s: '%s' does not hold '%s'", content, result->calls[0].message, words);
    assert_int_equal(result->calls[0].output.size, 0);
    rf_result_free(result);
}

static void test_limits_are_named_after_a_second_try(void **state)
{
    struct fixture *f = *state;
    const struct rf_mapper *mapper;
    struct rf_pool_stats stats;

    f->pool = pool_open((struct rf_pool_options){.workers = 2, .fast_ms = 2000});
    mapper = mapper_with(f->pool, &f->folder, "poison",
                         "limits = {cpu_ms = 300, memory_mb = 8, output_mb = 2, rows = 1000000},",
                         "", POISON);
    expect_limit(f->pool, RF_LANE_SLOW, "loop", mapper, "took more than 300 ms of CPU");
    stats = stats_of(f->pool);
    assert_int_equal(stats.kills_limit, 2); /* once more, alone */
    assert_int_equal(stats.workers_started, 3); /* the one that loaded it, and two */
    expect_limit(f->pool, RF_LANE_SLOW, "memory", mapper, "needed more than 8 MB of memory");
    expect_limit(f->pool, RF_LANE_FAST, "memory", mapper, "needed more than 8 MB of memory");
    expect_limit(f->pool, RF_LANE_FAST, "flood", mapper, "output_mb = 2");
    assert_int_equal(stats_of(f->pool).kills_limit, 6);
}

/* A call that waits for nobody and uses no CPU can only be a worker that was stopped. */
static void test_wall_time_is_limited_too(void **state)
{
    struct fixture *f = *state;
    struct rf_item item = item_text("loop");
    const struct rf_mapper *mapper;
    struct rf_result *result;
    pid_t pids[4], zygote;

    f->pool = pool_open((struct rf_pool_options){.workers = 1, .fast_ms = 500});
    mapper = mapper_with(f->pool, &f->folder, "poison", "", "", POISON);
    zygote = zygote_of(getpid());
    submit(f->pool, RF_LANE_FAST, &item, mapper);
    AWAIT(children_of(zygote, pids, 4) == 1, "a worker");
    AWAIT(rf_pool_next(f->pool, &result, 10, NULL) == RF_TIMEOUT &&
              ticks_of(pids[0]) > (unsigned long)sysconf(_SC_CLK_TCK) / 5,
          "the call to run");
    kill_child(zygote, pids[0], SIGSTOP);
    result = next(f->pool);
    assert_int_equal(result->calls[0].outcome, RF_CALL_SLOW);
    rf_result_free(result);
}

static void test_a_good_call_waits_behind_a_bad_one(void **state)
{
    struct fixture *f = *state;
    struct rf_item bad[3], good = item_text("good");
    const struct rf_mapper *mapper;
    unsigned limits = 0;

    f->pool = pool_open((struct rf_pool_options){.workers = 2});
    mapper = mapper_with(f->pool, &f->folder, "poison", "limits = {cpu_ms = 200},", "", POISON);
    for (int i = 0; i < 3; i++) {
        bad[i] = item_text("loop");
        submit(f->pool, RF_LANE_SLOW, &bad[i], mapper);
    }
    submit(f->pool, RF_LANE_SLOW, &good, mapper);
    for (int i = 0; i < 4; i++) {
        struct rf_result *result = next(f->pool);
        assert_int_equal(result->calls[0].outcome,
                         result->item == &good ? RF_CALL_ROWS : RF_CALL_LIMIT);
        limits += result->item != &good;
        rf_result_free(result);
    }
    assert_int_equal(limits, 3);
}

/* ---- workers come and go ---- */

static void test_workers_are_recycled(void **state)
{
    enum { COUNT = 1000 };
    struct fixture *f = *state;
    struct rf_item items[COUNT];
    const struct rf_mapper *mapper;

    f->pool = pool_open((struct rf_pool_options){.workers = 2, .recycle_calls = 50});
    mapper = mapper_with(f->pool, &f->folder, "echo", "", "", ECHO);
    for (int i = 0; i < COUNT; i++) {
        items[i] = item_text("good");
        submit(f->pool, RF_LANE_FAST, &items[i], mapper);
    }
    for (int i = 0; i < COUNT; i++) {
        struct rf_result *result = next(f->pool);
        assert_int_equal(result->calls[0].outcome, RF_CALL_ROWS);
        rf_result_free(result);
    }
    assert_true(stats_of(f->pool).recycled >= 2);
    assert_int_equal(stats_of(f->pool).crashes, 0);
}

static void test_a_killed_zygote_is_replaced(void **state)
{
    enum { COUNT = 900 };
    struct fixture *f = *state;
    struct rf_item items[COUNT];
    const struct rf_mapper *mapper;
    pid_t before;

    f->pool = pool_open((struct rf_pool_options){.workers = 2});
    mapper = mapper_with(f->pool, &f->folder, "echo", "", "", ECHO);
    before = zygote_of(getpid());
    for (int i = 0; i < COUNT; i++) {
        items[i] = item_text("good");
        submit(f->pool, RF_LANE_FAST, &items[i], mapper);
        if (i % 300 == 299) {
            pid_t zygote; /* the pool starts a new one when it needs it, not before */
            if (children_of(getpid(), &zygote, 1) == 1)
                kill_child(getpid(), zygote, SIGKILL);
        }
    }
    for (int i = 0; i < COUNT; i++) {
        struct rf_result *result = next(f->pool);
        assert_int_equal(result->calls[0].outcome, RF_CALL_ROWS);
        rf_result_free(result);
    }
    submit(f->pool, RF_LANE_FAST, &items[0], mapper);
    rf_result_free(next(f->pool));
    assert_int_not_equal(zygote_of(getpid()), before);
}

static void test_a_killed_worker_is_replaced(void **state)
{
    struct fixture *f = *state;
    struct rf_item items[50];
    const struct rf_mapper *mapper;
    pid_t pids[8];

    f->pool = pool_open((struct rf_pool_options){.workers = 2});
    mapper = mapper_with(f->pool, &f->folder, "echo", "", "", ECHO);
    for (int round = 0; round < 10; round++) {
        size_t count;
        for (int i = 0; i < 50; i++) {
            items[i] = item_text("good");
            submit(f->pool, RF_LANE_FAST, &items[i], mapper);
        }
        count = children_of(zygote_of(getpid()), pids, 8);
        while (count)
            kill_child(zygote_of(getpid()), pids[--count], SIGKILL);
        for (int i = 0; i < 50; i++) {
            struct rf_result *result = next(f->pool);
            assert_int_equal(result->calls[0].outcome, RF_CALL_ROWS);
            rf_result_free(result);
        }
    }
}

static size_t alive(const pid_t *pids, size_t count)
{
    size_t left = 0;

    for (size_t i = 0; i < count; i++) {
        char state;
        pid_t parent;
        unsigned long ticks;
        left += process_find(pids[i], &state, &parent, &ticks) && state != 'Z';
    }
    return left;
}

/* A host of its own that has workers in endless calls. Does not return. */
static void run_host(struct folder *folder, int ready)
{
    struct rf_pool *pool = pool_open((struct rf_pool_options){.workers = 2, .fast_ms = 600000});
    const struct rf_mapper *mapper = mapper_with(pool, folder, "poison", "", "", POISON);
    struct rf_item items[2] = {item_text("loop"), item_text("loop")};
    struct rf_result *result;

    submit(pool, RF_LANE_FAST, &items[0], mapper);
    submit(pool, RF_LANE_FAST, &items[1], mapper);
    if (write(ready, "r", 1) == 1)
        (void)!rf_pool_next(pool, &result, -1, NULL);
    _exit(1);
}

static void test_no_process_survives_the_host(void **state)
{
    struct fixture *f = *state;
    pid_t pids[4] = {0}, host;
    size_t count = 1;
    int ready[2];
    char byte;

    assert_int_equal(pipe(ready), 0);
    host = fork();
    assert_true(host >= 0);
    if (host == 0)
        run_host(&f->folder, ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    pids[0] = zygote_of(host);
    assert_true(pids[0] > 0);
    AWAIT((count = 1 + children_of(pids[0], pids + 1, 3)) == 3, "two workers");
    assert_true(host > 1);
    kill(host, SIGKILL);
    assert_int_equal(waitpid(host, NULL, 0), host);
    AWAIT(alive(pids, count) == 0, "the end of zygote and workers");
    close(ready[0]);
    close(ready[1]);
}

static void test_closing_leaves_no_process(void **state)
{
    struct fixture *f = *state;
    struct rf_item items[4];
    const struct rf_mapper *mapper;
    pid_t pids[8];
    size_t count;

    f->pool = pool_open((struct rf_pool_options){.workers = 2, .fast_ms = 600000});
    mapper = mapper_with(f->pool, &f->folder, "poison", "limits = {cpu_ms = 600000},", "", POISON);
    for (int i = 0; i < 4; i++) {
        items[i] = item_text("loop");
        submit(f->pool, i % 2 ? RF_LANE_SLOW : RF_LANE_FAST, &items[i], mapper);
    }
    pids[0] = zygote_of(getpid());
    AWAIT((count = 1 + children_of(pids[0], pids + 1, 7)) >= 4, "three workers");
    rf_pool_close(f->pool);
    f->pool = NULL;
    assert_int_equal(alive(pids, count), 0);
}

static void test_cancelled_work_is_forgotten(void **state)
{
    struct fixture *f = *state;
    struct rf_item items[40];
    const struct rf_mapper *mapper;
    struct rf_result *result;

    f->pool = pool_open((struct rf_pool_options){.workers = 2, .fast_ms = 600000});
    mapper = mapper_with(f->pool, &f->folder, "poison", "limits = {cpu_ms = 600000},", "", POISON);
    for (int i = 0; i < 40; i++) {
        items[i] = item_text(i % 3 ? "loop" : "good");
        submit(f->pool, i % 2 ? RF_LANE_SLOW : RF_LANE_FAST, &items[i], mapper);
    }
    rf_pool_cancel(f->pool);
    assert_int_equal(rf_pool_pending(f->pool, RF_LANE_FAST), 0);
    assert_int_equal(rf_pool_pending(f->pool, RF_LANE_SLOW), 0);
    assert_int_equal(rf_pool_next(f->pool, &result, -1, NULL), RF_END);
    result = map_one(f->pool, RF_LANE_FAST, &items[0], mapper);
    assert_int_equal(result->calls[0].outcome, RF_CALL_ROWS);
    rf_result_free(result);
}

/* ---- what processes hold and use ---- */

static size_t count_fds(pid_t pid, int *highest)
{
    char path[64];
    struct dirent *entry;
    size_t count = 0;
    DIR *dir;

    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    *highest = -1;
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.') {
            int fd = (int)strtol(entry->d_name, NULL, 10);
            *highest = fd > *highest ? fd : *highest;
            count++;
        }
    if (dir)
        closedir(dir);
    return count;
}

static void test_no_descriptor_is_inherited(void **state)
{
    struct fixture *f = *state;
    struct rf_item item = item_text("good");
    const struct rf_mapper *mapper;
    pid_t pids[4], zygote;
    int open_fd = open("/dev/null", O_RDONLY), highest; /* not close-on-exec: the host's habit */

    assert_true(open_fd >= 0);
    assert_true(dup2(open_fd, 100) == 100);
    f->pool = pool_open((struct rf_pool_options){.workers = 1});
    mapper = mapper_with(f->pool, &f->folder, "echo", "", "", ECHO);
    rf_result_free(map_one(f->pool, RF_LANE_FAST, &item, mapper));
    zygote = zygote_of(getpid());
    AWAIT(children_of(zygote, pids, 4) == 1, "one worker; one that was retired is reaped later");
    AWAIT(count_fds(zygote, &highest) <= 6 && highest < 10,
          "what it held to make the worker to be let go");
    assert_true(count_fds(pids[0], &highest) <= 4);
    assert_int_equal(highest, 3); /* its socket; below it nothing, or what a sanitizer needs */
    close(open_fd);
    close(100);
}

/* Times the threads of a process have been scheduled out. */
static long switches_of(pid_t pid)
{
    char path[300], line[200];
    struct dirent *entry;
    long sum = 0;
    DIR *dir;

    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    dir = opendir(path);
    while (dir && (entry = readdir(dir))) {
        FILE *file;
        long tid = strtol(entry->d_name, NULL, 10);
        if (tid <= 0 || tid == getpid()) /* not ourselves */
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%ld/status", (int)pid, tid);
        file = fopen(path, "r");
        while (file && fgets(line, sizeof line, file))
            if (strstr(line, "voluntary_ctxt_switches"))
                sum += strtol(strchr(line, ':') + 1, NULL, 10);
        if (file)
            fclose(file);
    }
    if (dir)
        closedir(dir);
    return sum;
}

static void test_nothing_wakes_up_while_there_is_nothing_to_do(void **state)
{
    struct fixture *f = *state;
    struct rf_item items[20];
    const struct rf_mapper *mapper;
    pid_t pids[8];
    size_t count;
    int quiet = 0;

#ifdef __SANITIZE_THREAD__
    skip(); /* its runtime has a thread that wakes up */
#endif
    f->pool = pool_open((struct rf_pool_options){.workers = 2});
    mapper = mapper_with(f->pool, &f->folder, "echo", "", "", ECHO);
    for (int i = 0; i < 20; i++) {
        items[i] = item_text("good");
        submit(f->pool, i % 2 ? RF_LANE_FAST : RF_LANE_SLOW, &items[i], mapper);
    }
    for (int i = 0; i < 20; i++)
        rf_result_free(next(f->pool));
    pids[0] = zygote_of(getpid());
    count = 1 + children_of(pids[0], pids + 1, 7);
    assert_true(count >= 3);
    /* Whoever polls never lets a second pass; others' load may disturb one, not all of them. */
    for (int64_t until = now_ms() + DEADLINE_MS; quiet < 10 && now_ms() < until; quiet++) {
        long before = switches_of(getpid()), after;
        for (size_t i = 0; i < count; i++)
            before += switches_of(pids[i]);
        nap_ms(100);
        after = switches_of(getpid());
        for (size_t i = 0; i < count; i++)
            after += switches_of(pids[i]);
        if (after != before)
            quiet = -1;
    }
    assert_int_equal(quiet, 10);
}

/* ---- mappers ---- */

static void test_versions_run_side_by_side(void **state)
{
    struct fixture *f = *state;
    struct rf_item item = item_text("x");
    const struct rf_mapper *mappers[2];
    struct rf_mapper *again = NULL, *old = NULL;
    struct rf_result *result;
    struct rf_bytes bundle;

    f->pool = pool_open((struct rf_pool_options){.workers = 1});
    mappers[0] = mapper_with(f->pool, &f->folder, "same", "", "", "row{num = 1}");
    mappers[1] = mapper_with(f->pool, &f->folder, "same", "", "", "row{num = 2}");
    assert_ptr_not_equal(mappers[0], mappers[1]);
    assert_string_not_equal(rf_mapper_identity(mappers[0]), rf_mapper_identity(mappers[1]));
    assert_int_equal(strlen(rf_mapper_identity(mappers[0])), 64);
    assert_int_equal(rf_pool_submit(f->pool, RF_LANE_FAST, &item, mappers, 2, NULL), RF_OK);
    result = next(f->pool);
    assert_int_equal(num_of(&result->calls[0], &item), 1);
    assert_int_equal(num_of(&result->calls[1], &item), 2);
    rf_result_free(result);

    bundle = rf_mapper_bundle(mappers[0]);
    assert_int_equal(rf_pool_load_bundle(f->pool, bundle, &again, NULL), RF_OK);
    assert_ptr_equal(again, mappers[0]);
    rf_pool_close(f->pool);
    f->pool = pool_open((struct rf_pool_options){.workers = 1});
    old = mapper_with(f->pool, &f->folder, "same", "", "", "row{num = 1}");
    assert_non_null(old);
}

static void test_a_bundle_is_the_mapper(void **state)
{
    struct fixture *f = *state;
    struct rf_item item = item_text("x");
    const struct rf_mapper *mapper;
    struct rf_mapper *copy = NULL;
    struct rf_result *result;
    struct rf_error err = {.status = RF_OK};
    char *bundle, identity[65];
    struct rf_pool *other;

    folder_write(&f->folder, "helper_one.lua", "return {seven = require('helper_two') + 3}");
    folder_write(&f->folder, "helper_two.lua", "return 4");
    folder_write(&f->folder, "helper_three.lua", "return 'never asked for'");
    f->pool = pool_open((struct rf_pool_options){.workers = 1});
    mapper = mapper_with(f->pool, &f->folder, "parted", "", "local h = require 'helper_one'",
                         "row{num = h.seven}");
    bundle = strndup((const char *)rf_mapper_bundle(mapper).data, rf_mapper_bundle(mapper).size);
    assert_non_null(strstr(bundle, "helper_two.lua"));
    assert_null(strstr(bundle, "helper_three"));
    snprintf(identity, sizeof identity, "%s", rf_mapper_identity(mapper));
    folder_remove(&f->folder); /* the files are not needed any more */

    other = pool_open((struct rf_pool_options){.workers = 1});
    if (rf_pool_load_bundle(other, rf_bytes_text(bundle), &copy, &err) != RF_OK)
        fail_msg("%s", err.message);
    assert_string_equal(rf_mapper_identity(copy), identity);
    result = map_one(other, RF_LANE_FAST, &item, copy);
    assert_int_equal(num_of(&result->calls[0], &item), 7);
    rf_result_free(result);
    rf_pool_close(other);
    free(bundle);
}

static void expect_unloadable(struct fixture *f, const char *text, enum rf_status status,
                              const char *words)
{
    struct rf_error err = {.status = RF_OK};
    struct rf_mapper *mapper = NULL;

    assert_int_equal(rf_pool_load(f->pool, folder_write(&f->folder, "bad.lua", text), &mapper,
                                  &err), status);
    if (!strstr(err.message, words))
        fail_msg("'%s' does not hold '%s'", err.message, words);
}

static void test_bad_mappers_are_refused_with_reason(void **state)
{
    struct fixture *f = *state;
    struct rf_error err = {.status = RF_OK};
    struct rf_mapper *mapper = NULL;
    char link[128];

    f->pool = pool_open((struct rf_pool_options){.workers = 1});
    expect_unloadable(f, "return {", RF_INVALID, "bad.lua:1");
    expect_unloadable(f, "\nlocal x = nil + 1", RF_INVALID, "bad.lua:2");
    expect_unloadable(f, "return 7", RF_INVALID, "bad.lua");
    expect_unloadable(f, "return {name = 'Bad Name', on = 'blob', map = print}", RF_INVALID,
                      "bad");
    expect_unloadable(f, "require 'no_such_module'", RF_INVALID, "no_such_module");
    expect_unloadable(f, "require '../etc/passwd'", RF_INVALID, "passwd");
    expect_unloadable(f, "-- \xff\xfe", RF_INVALID, "UTF-8");
    expect_unloadable(f, "while true do end", RF_LIMIT, "took more than 5 s of CPU");
    expect_unloadable(f, "local t = {} while true do t[#t + 1] = {} end", RF_LIMIT, "memory");
    snprintf(link, sizeof link, "%s/leak.lua", f->folder.path);
    assert_int_equal(symlink("/etc/hostname", link), 0);
    expect_unloadable(f, "require 'leak'", RF_INVALID, "leak");
    assert_int_equal(rf_pool_load(f->pool, "/no/such/file.lua", &mapper, &err), RF_NOT_FOUND);
    assert_non_null(strstr(err.message, "/no/such/file.lua"));
    rf_error_clear(&err);
    assert_int_equal(rf_pool_load(f->pool, f->folder.path, &mapper, &err), RF_INVALID);
    rf_error_clear(&err);
    assert_int_equal(rf_pool_load(f->pool, "bundled:nothing_of_the_kind", &mapper, &err),
                     RF_NOT_FOUND);
    assert_null(mapper);
}

static void test_bundled_mappers_load(void **state)
{
    struct fixture *f = *state;
    const char *name;
    char path[80];

    f->pool = pool_open((struct rf_pool_options){.workers = 1});
    for (size_t i = 0; (name = rf_pool_bundled(i)); i++) {
        struct rf_error err = {.status = RF_OK};
        struct rf_mapper *mapper = NULL;
        snprintf(path, sizeof path, "bundled:%s", name);
        if (rf_pool_load(f->pool, path, &mapper, &err) != RF_OK)
            fail_msg("%s", err.message);
        assert_string_equal(rf_mapper_decl(mapper)->name, name);
    }
}

static void test_declared_tests_can_be_read(void **state)
{
    struct fixture *f = *state;
    struct rf_error err = {.status = RF_OK};
    const struct rf_mapper *mapper;
    const struct rf_json *json;
    struct rf_arena arena;
    struct rf_bytes text;

    f->pool = pool_open((struct rf_pool_options){.workers = 1});
    mapper = mapper_with(f->pool, &f->folder, "tested",
                         "tests = {{name = 'one', blob = 'x', rows = {}}},", "", ECHO);
    rf_arena_init(&arena, 1 << 20);
    if (rf_pool_describe(f->pool, mapper, "tests", &arena, &text, &err) != RF_OK)
        fail_msg("%s", err.message);
    assert_int_equal(rf_json_parse(&json, &arena, text, &err), RF_OK);
    assert_int_equal(json->count, 1);
    assert_string_equal(rf_json_string(rf_json_find(&json->items[0], "name")), "one");
    assert_int_equal(rf_pool_describe(f->pool, mapper, "fortune", &arena, &text, &err),
                     RF_UNSUPPORTED);
    rf_arena_release(&arena);
}

static void test_a_missing_program_is_said(void **state)
{
    struct rf_pool_options options = {.program = "/no/such/refuge-mapper"};
    struct rf_error err = {.status = RF_OK};
    struct rf_pool *pool = NULL;

    (void)state;
    assert_int_equal(rf_pool_open(&pool, &options, &err), RF_UNAVAILABLE);
    assert_non_null(strstr(err.message, "/no/such/refuge-mapper"));
    options.program = "/bin/true"; /* a program that is something else */
    rf_error_clear(&err);
    assert_int_equal(rf_pool_open(&pool, &options, &err), RF_UNAVAILABLE);
    assert_null(pool);
}

/* ---- workers that were taken over ---- */

/* What a worker under somebody else's control may write, and what the pool says of it. */
static const char *const evil[][2] = {
    {"number", "nobody asked for"}, {"index", "nobody asked for"}, {"outcome", "nobody asked"},
    {"kind", "nobody asked for"}, {"huge", "nobody asked for"}, {"sizes", "two sizes"},
    {"trace", "nobody asked for"}, {"rowsmissing", "output refused"},
    {"rowsnone", "nobody asked for"}, {"stray", "half a response"}, {"pieces", "piece"},
    {"table", "output refused"}, {"utf8", "output refused"}, {"part", "output refused"},
    {"cut", "output refused"}, {"headodd", "makes no sense"}, {"headfar", "makes no sense"},
    {"headback", "makes no sense"}, {"recordsize", "makes no sense"}, {"skip", "makes no sense"},
    {"askop", "does not exist"}, {"asksize", "nothing to do"}, {"askmapper", "not there"},
    {"askname", "not there"}, {"askneeds", "too many"}, {"askwords", "do not exist"},
    {"segv", "signal 11 (SIGSEGV)"}, {"exit", "status 0"}, {"exit3", "memory"},
    {"before", "status 9"}, {"forge", ""}, {"bells", ""}, {"spin", "CPU"},
};

static void test_what_a_captured_worker_writes_is_refused(void **state)
{
    struct fixture *f = *state;
    struct rf_mapper *mapper = NULL;
    struct rf_error err = {.status = RF_OK};
    struct rf_item good = item_text("good");

    f->pool = pool_open((struct rf_pool_options){.program = RF_BINARY_DIR "/bin/evil-mapper",
                                                 .workers = 1});
    if (rf_pool_load(f->pool, folder_write(&f->folder, "evil.lua", "return {}"), &mapper, &err))
        fail_msg("%s", err.message);
    for (size_t i = 0; i < sizeof evil / sizeof evil[0]; i++) {
        struct rf_result *result;
        expect_limit(f->pool, RF_LANE_SLOW, evil[i][0], mapper, evil[i][1]);
        result = map_one(f->pool, RF_LANE_FAST, &good, mapper);
        assert_int_equal(result->calls[0].outcome, RF_CALL_ROWS);
        assert_int_equal(result->calls[0].rows, 1);
        rf_result_free(result);
    }
}

/* The same among good items in the fast lane: every good one has its rows. */
static void test_a_captured_worker_costs_others_nothing(void **state)
{
    enum { COUNT = sizeof evil / sizeof evil[0] };
    struct fixture *f = *state;
    struct rf_mapper *mapper = NULL;
    struct rf_item good[8 * COUNT], bad[COUNT];
    struct rf_error err = {.status = RF_OK};
    unsigned rows = 0;

    f->pool = pool_open((struct rf_pool_options){.program = RF_BINARY_DIR "/bin/evil-mapper",
                                                 .workers = 2});
    if (rf_pool_load(f->pool, folder_write(&f->folder, "evil.lua", "return {}"), &mapper, &err))
        fail_msg("%s", err.message);
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t k = 0; k < 8; k++) {
            good[8 * i + k] = item_text("good");
            submit(f->pool, RF_LANE_FAST, &good[8 * i + k], mapper);
        }
        bad[i] = item_text(evil[i][0]);
        submit(f->pool, RF_LANE_FAST, &bad[i], mapper);
    }
    for (size_t i = 0; i < 9 * COUNT; i++) {
        struct rf_result *result = next(f->pool);
        if (result->item >= good && result->item < good + 8 * COUNT) {
            assert_int_equal(result->calls[0].outcome, RF_CALL_ROWS);
            rows++;
        } else {
            assert_true(result->calls[0].outcome == RF_CALL_LIMIT ||
                        result->calls[0].outcome == RF_CALL_SLOW);
        }
        rf_result_free(result);
    }
    assert_int_equal(rows, 8 * COUNT);
}

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_maps_an_item_with_several_mappers),
        T(test_no_mapper_and_slow_ones_need_no_worker),
        T(test_trace_and_cpu),
        T(test_thousands_come_back_once_each),
        T(test_content_is_read_by_range),
        T(test_windows_of_earlier_calls_are_let_go),
        T(test_a_store_out_of_reach_ends_the_item_only),
        T(test_another_blob_is_needed),
        T(test_large_output_comes_in_pieces),
        T(test_a_hang_in_the_fast_lane_costs_itself_only),
        T(test_only_the_guilty_call_of_an_item_is_set_aside),
        T(test_limits_are_named_after_a_second_try),
        T(test_wall_time_is_limited_too),
        T(test_a_good_call_waits_behind_a_bad_one),
        T(test_workers_are_recycled),
        T(test_a_killed_zygote_is_replaced),
        T(test_a_killed_worker_is_replaced),
        T(test_no_process_survives_the_host),
        T(test_closing_leaves_no_process),
        T(test_cancelled_work_is_forgotten),
        T(test_no_descriptor_is_inherited),
        T(test_nothing_wakes_up_while_there_is_nothing_to_do),
        T(test_versions_run_side_by_side),
        T(test_a_bundle_is_the_mapper),
        T(test_bad_mappers_are_refused_with_reason),
        T(test_bundled_mappers_load),
        T(test_declared_tests_can_be_read),
        T(test_a_missing_program_is_said),
        T(test_what_a_captured_worker_writes_is_refused),
        T(test_a_captured_worker_costs_others_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
