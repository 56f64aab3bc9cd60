/* test_writer.c - units handed to the thread that writes them, and had back */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "indexer/writer.h"

#define GROUP 64u
#define UNITS_MAX 512u              /* as writer.h says */
#define BYTES_MAX ((size_t)4 << 20)
#define LARGE ((size_t)1 << 20)     /* output of a large unit */

struct fixture {
    struct rf_writer *writer;
    pthread_t driving;
    uint64_t fail_at;        /* writing this sequence fails; 0: none does */
    bool busy;               /* each write takes a while */
    uint8_t *output;         /* of large units */

    /* of the writer's thread, until settled */
    uint64_t last;           /* sequence written last */
    size_t written, errors, most, most_bytes;

    atomic_size_t put, put_bytes; /* what rf_writer_put returned from */
    size_t written_bytes;
};

static enum rf_status write_unit(void *user, struct rf_unit *unit, struct rf_error *err)
{
    struct fixture *f = user;
    size_t under_way = atomic_load(&f->put) - f->written;
    size_t bytes = atomic_load(&f->put_bytes) - f->written_bytes;
    struct rf_blobref ref;

    f->errors += pthread_equal(pthread_self(), f->driving) || unit->item.seq <= f->last;
    /* The writer may begin before put returned: then less is counted, never more. */
    if (atomic_load(&f->put) >= f->written && under_way > f->most)
        f->most = under_way;
    if (atomic_load(&f->put_bytes) >= f->written_bytes && bytes > f->most_bytes)
        f->most_bytes = bytes;
    if (f->busy)
        rf_blobref_of(&ref, rf_bytes(f->output, LARGE / 16));
    if (unit->item.seq == f->fail_at)
        return rf_error_set(err, RF_UNAVAILABLE, "the sink went");
    f->last = unit->item.seq;
    f->written++;
    if (unit->result)
        f->written_bytes += unit->result->calls[0].output.size;
    return RF_OK;
}

static enum rf_status write_units(void *user, struct rf_unit *units, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (; units && status == RF_OK; units = units->next)
        status = write_unit(user, units, err);
    return status;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    f->driving = pthread_self();
    f->output = calloc(1, LARGE);
    *state = f;
    return rf_writer_open(&f->writer, write_units, f, NULL);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    rf_writer_close(f->writer);
    free(f->output);
    free(f);
    return 0;
}

/* Units of these sequences, with an output when `call` is given. */
static void put_units(struct fixture *f, uint64_t first, size_t count, struct rf_result *result)
{
    struct rf_queue group;

    rf_queue_init(&group);
    for (size_t i = 0; i < count; i++) {
        struct rf_unit *unit = rf_unit_new(RF_UNIT_ARRIVED);
        unit->item.seq = first + i;
        unit->result = result;
        rf_queue_put(&group, unit);
    }
    rf_writer_put(f->writer, &group);
    assert_null(group.head);
    assert_int_equal(group.count, 0);
    atomic_fetch_add(&f->put, count);
    atomic_fetch_add(&f->put_bytes, result ? count * result->calls[0].output.size : 0);
}

/* Let go of what came back, which must be in order; the sequence of the last. */
static uint64_t free_units(struct rf_queue *units, uint64_t last)
{
    struct rf_unit *unit;

    while ((unit = rf_queue_take(units))) {
        assert_int_equal(unit->item.seq, last + 1);
        last = unit->item.seq;
        unit->result = NULL;
        rf_unit_release(unit);
    }
    return last;
}

static void units_come_back_in_order(void **state)
{
    struct fixture *f = *state;
    struct rf_queue back;
    uint64_t last = 0;

    rf_queue_init(&back);
    assert_true(rf_writer_idle(f->writer));
    for (uint64_t i = 0; i < 100; i++) {
        put_units(f, i * GROUP + 1, GROUP, NULL);
        assert_int_equal(rf_writer_take(f->writer, &back, NULL), RF_OK);
        last = free_units(&back, last);
        assert_true(rf_writer_idle(f->writer) == (last == (i + 1) * GROUP));
    }
    assert_int_equal(rf_writer_settle(f->writer, &back, NULL), RF_OK);
    assert_true(rf_writer_idle(f->writer));
    assert_int_equal(free_units(&back, last), 100 * GROUP);
    assert_int_equal(f->written, 100 * GROUP);
    assert_int_equal(f->errors, 0);
}

static void little_is_under_way(void **state)
{
    struct fixture *f = *state;
    struct rf_call call = {.output = rf_bytes(f->output, LARGE)};
    struct rf_result result = {.calls = &call, .call_count = 1};
    struct rf_queue back;

    rf_queue_init(&back);
    f->busy = true;
    for (uint64_t i = 0; i < 40; i++)
        put_units(f, i * GROUP + 1, GROUP, NULL);
    assert_int_equal(rf_writer_settle(f->writer, &back, NULL), RF_OK);
    assert_true(f->most <= UNITS_MAX);
    for (uint64_t i = 0; i < 60; i++)
        put_units(f, 40 * GROUP + 1 + i, 1, &result);
    assert_int_equal(rf_writer_settle(f->writer, &back, NULL), RF_OK);
    assert_true(f->most_bytes <= BYTES_MAX);
    free_units(&back, 0);
}

static void one_unit_may_be_larger(void **state)
{
    struct fixture *f = *state;
    struct rf_call call = {.output = rf_bytes(f->output, 16 * LARGE)}; /* never looked at */
    struct rf_result result = {.calls = &call, .call_count = 1};
    struct rf_queue back;

    rf_queue_init(&back);
    for (uint64_t i = 0; i < 10; i++)
        put_units(f, i + 1, 1, &result);
    assert_int_equal(rf_writer_settle(f->writer, &back, NULL), RF_OK);
    assert_int_equal(free_units(&back, 0), 10);
}

/* What fails keeps all behind it from being written, until it was told. */
static void a_failure_stops_writing(void **state)
{
    struct fixture *f = *state;
    struct rf_error err = {0};
    struct rf_queue back;
    enum rf_status status;

    rf_queue_init(&back);
    f->fail_at = 70;
    for (uint64_t i = 0; i < 10; i++)
        put_units(f, i * GROUP + 1, GROUP, NULL);
    do {
        status = rf_writer_take(f->writer, &back, &err);
    } while (status == RF_OK && !rf_writer_idle(f->writer));
    assert_int_equal(status, RF_UNAVAILABLE);
    assert_string_equal(err.message, "the sink went");
    put_units(f, 10 * GROUP + 1, GROUP, NULL);
    assert_int_equal(rf_writer_take(f->writer, &back, NULL), RF_UNAVAILABLE);
    rf_error_clear(&err);
    assert_int_equal(rf_writer_settle(f->writer, &back, &err), RF_UNAVAILABLE);
    assert_string_equal(err.message, "the sink went");
    assert_int_equal(free_units(&back, 0), 11 * GROUP);
    assert_int_equal(f->written, 69);

    f->fail_at = 0;
    put_units(f, 11 * GROUP + 1, GROUP, NULL);
    assert_int_equal(rf_writer_settle(f->writer, &back, NULL), RF_OK);
    assert_int_equal(free_units(&back, 11 * GROUP), 12 * GROUP);
    assert_int_equal(f->written, 69 + GROUP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(units_come_back_in_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(little_is_under_way, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_unit_may_be_larger, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_failure_stops_writing, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
