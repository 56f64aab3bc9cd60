/*
 * test_pg.c - a connection to PostgreSQL: URLs, values there and back, COPY, streams, failures
 *
 * REFUGE_TEST_POSTGRESQL names a server as a URL without fragment; without it only what needs no
 * server is tested.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sinks/pg.h"

#define SCHEMA "test_pg"

#define CHECK(call)                                                                             \
    do {                                                                                        \
        struct rf_error err = {0};                                                              \
        enum rf_status got = (call);                                                            \
        if (got != RF_OK)                                                                       \
            fail_msg("%s: %s: %s", #call, rf_status_name(got), err.message);                    \
    } while (0)

static struct rf_pg *connect_to(const char *more)
{
    const char *url = getenv("REFUGE_TEST_POSTGRESQL");
    struct rf_pg *pg = NULL;
    char full[512];

    if (!url || !url[0])
        skip();
    snprintf(full, sizeof full, "%s%s#" SCHEMA, url, more);
    CHECK(rf_pg_open(&pg, full, &err));
    CHECK(rf_pg_exec(pg, &err, "DROP SCHEMA IF EXISTS " SCHEMA " CASCADE; CREATE SCHEMA " SCHEMA));
    return pg;
}

static void finish(struct rf_pg *pg)
{
    if (rf_pg_in_transaction(pg))
        CHECK(rf_pg_exec(pg, &err, "ROLLBACK"));
    CHECK(rf_pg_exec(pg, &err, "DROP SCHEMA " SCHEMA " CASCADE"));
    rf_pg_close(pg);
}

static void refuse_url(const char *url, enum rf_status expected, const char *words)
{
    struct rf_error err = {0};
    struct rf_pg *pg = NULL;
    enum rf_status status = rf_pg_open(&pg, url, &err);

    if (status != expected || !strstr(err.message, words))
        fail_msg("%s: %s: %s", url, rf_status_name(status), err.message);
}

static void urls_are_checked_before_anything_is_asked(void **state)
{
    (void)state;
    refuse_url("postgresql://h/d", RF_INVALID, "#SCHEMA");
    refuse_url("postgresql://h/d#", RF_INVALID, "#SCHEMA");
    refuse_url("postgresql://h/d#public", RF_INVALID, "not ours");
    refuse_url("postgresql://h/d#pg_x", RF_INVALID, "not ours");
    refuse_url("postgresql://h/d#Mail", RF_INVALID, "lower case");
    refuse_url("postgresql://h/d#mail#main", RF_INVALID, "more than one '#'");
    refuse_url("postgresql://u:secret@h/d#main", RF_INVALID, "passfile");
    refuse_url("postgresql://h/d?password=secret#main", RF_INVALID, "passfile");
    refuse_url("postgresql://h/d?nonsense=1#main", RF_INVALID, "nonsense");
    refuse_url("postgresql://127.0.0.1:1/d#main", RF_UNAVAILABLE, "cannot reach index");
}

static void a_refusal_to_connect_says_why(void **state)
{
    const char *url = getenv("REFUGE_TEST_POSTGRESQL");
    char wrong[512];
    size_t size;

    (void)state;
    rf_pg_close(connect_to(""));
    size = (size_t)(strrchr(url, '/') - url);
    snprintf(wrong, sizeof wrong, "%.*s/nowhere#main", (int)size, url);
    refuse_url(wrong, RF_NOT_FOUND, "createdb");
    snprintf(wrong, sizeof wrong, "%s?user=nobody_here#main", url);
    refuse_url(wrong, RF_DENIED, "pg_hba.conf");
}

static void values_come_back_as_they_went(void **state)
{
    struct rf_pg *pg = connect_to("");
    static const int64_t numbers[] = {-1, INT64_MAX};
    static const char *const texts[] = {"a,\"b\"", "", "\xe9\x81\x8b\xe7\x94\xa8"};
    struct rf_pg_rows *rows = NULL;
    struct rf_bytes bytes;
    int64_t number;

    (void)state;
    CHECK(rf_pg_query(pg, &rows, &err,
                      "SELECT $1, $2, $3, $4, $5, $6, $7[2], array_length($7, 1), $8[1], $8[3], "
                      "$8[2], $9, 0.25::float8, (-2)::int2",
                      "iottbxITm", INT64_MIN, 1, "it's", (const char *)NULL, rf_bytes("", 0),
                      rf_bytes("\0\1", 2),
                      numbers, (size_t)2, texts, (size_t)3, (int64_t)-62135596800000000));
    assert_int_equal(rf_pg_count(rows), 1);
    assert_true(rf_pg_int_at(rows, 0, 0) == INT64_MIN);
    assert_int_equal(rf_pg_int_at(rows, 0, 1), 1);
    assert_string_equal(rf_pg_text_at(rows, 0, 2), "it's");
    assert_true(rf_pg_is_null(rows, 0, 3));
    assert_false(rf_pg_is_null(rows, 0, 4));
    bytes = rf_pg_bytes_at(rows, 0, 5);
    assert_int_equal(bytes.size, 2);
    assert_memory_equal(bytes.data, "\0\1", 2);
    assert_true(rf_pg_int_at(rows, 0, 6) == INT64_MAX);
    assert_int_equal(rf_pg_int_at(rows, 0, 7), 2);
    assert_string_equal(rf_pg_text_at(rows, 0, 8), texts[0]);
    assert_string_equal(rf_pg_text_at(rows, 0, 9), texts[2]);
    assert_string_equal(rf_pg_text_at(rows, 0, 10), "");
    assert_true(rf_pg_time_at(rows, 0, 11) == -62135596800000000);
    assert_true(rf_pg_float_at(rows, 0, 12) == 0.25);
    assert_int_equal(rf_pg_int_at(rows, 0, 13), -2);
    rf_pg_rows_free(rows);
    CHECK(rf_pg_int(pg, &number, 7, &err, "SELECT 1 WHERE 1 = ANY($1)", "I", numbers, (size_t)0));
    assert_int_equal(number, 7);
    finish(pg);
}

static void names_and_texts_are_quoted(void **state)
{
    struct rf_pg *pg = connect_to("");
    int64_t count;

    (void)state;
    CHECK(rf_pg_exec(pg, &err, "CREATE TABLE \"%w\"(a text); INSERT INTO \"%w\" VALUES(%Q), (%Q)",
                     "odd\"; name", "odd\"; name", "it's \\ %s", (const char *)NULL));
    CHECK(rf_pg_int(pg, &count, 0, &err, "SELECT count(*) FROM \"odd\"\"; name\" WHERE a = $1",
                    "t", "it's \\ %s"));
    assert_int_equal(count, 1);
    finish(pg);
}

static void put_row(struct rf_buf *buf, int64_t id, const char *text)
{
    rf_pg_row_begin(buf, 4);
    rf_pg_put_bigint(buf, id);
    rf_pg_put_text(buf, text ? rf_bytes_text(text) : rf_bytes(NULL, 0));
    rf_pg_put_time(buf, 0);
    rf_pg_put_float(buf, 1.5);
}

static void rows_are_copied_in_and_streamed_out(void **state)
{
    struct rf_pg *pg = connect_to("");
    struct rf_pg_stream *stream[2] = {NULL, NULL};
    const struct rf_pg_rows *rows = NULL;
    struct rf_buf buf;
    struct rf_bytes pieces[2];
    int64_t count, seen = 0;
    size_t at, half;
    enum rf_status status = RF_OK;

    (void)state;
    CHECK(rf_pg_exec(pg, &err, "CREATE TABLE t(id bigint PRIMARY KEY, a text, w timestamptz, "
                               "f double precision)"));
    rf_buf_init(&buf, 64 << 20);
    for (int64_t i = 0; i < 2500; i++)
        put_row(&buf, i, i % 2 ? "odd" : NULL);
    half = buf.size;
    for (int64_t i = 2500; i < 5000; i++)
        put_row(&buf, i, "x");
    pieces[0] = rf_bytes(buf.data, half);
    pieces[1] = rf_bytes(buf.data + half, buf.size - half);
    CHECK(rf_pg_copy(pg, "t(id, a, w, f)", pieces, 2, &err));
    CHECK(rf_pg_int(pg, &count, 0, &err,
                    "SELECT count(*) FROM t WHERE w = '1970-01-01Z' AND f = 1.5", ""));
    assert_int_equal(count, 5000);
    CHECK(rf_pg_exec(pg, &err, "BEGIN"));
    for (int i = 0; i < 2; i++)
        CHECK(rf_pg_stream_open(pg, &stream[i], &err,
                                "SELECT id, a FROM t WHERE id >= $1 ORDER BY id", "i",
                                (int64_t)(i * 10)));
    while ((status = rf_pg_stream_next(stream[0], &rows, &at, NULL)) == RF_OK) {
        assert_int_equal(rf_pg_int_at(rows, at, 0), seen);
        assert_true(rf_pg_is_null(rows, at, 1) == (seen < 2500 && seen % 2 == 0));
        if (seen++ < 4990) {
            CHECK(rf_pg_stream_next(stream[1], &rows, &at, &err));
            assert_int_equal(rf_pg_int_at(rows, at, 0), seen + 9);
        }
    }
    assert_int_equal(status, RF_END);
    assert_int_equal(seen, 5000);
    assert_int_equal(rf_pg_stream_next(stream[1], &rows, &at, NULL), RF_END);
    rf_pg_stream_close(stream[0]);
    rf_pg_stream_close(stream[1]);
    rf_buf_release(&buf);
    finish(pg);
}

static void a_failure_says_what_to_do(void **state)
{
    struct rf_pg *pg = connect_to("");
    struct rf_error why = {0};
    struct rf_buf buf;
    struct rf_bytes piece;

    (void)state;
    CHECK(rf_pg_exec(pg, &err, "CREATE TABLE t(id bigint PRIMARY KEY, a text, w timestamptz, "
                               "f double precision)"));
    rf_buf_init(&buf, 1 << 20);
    put_row(&buf, 1, "a");
    put_row(&buf, 1, "b");
    piece = rf_buf_bytes(&buf);
    assert_int_equal(rf_pg_copy(pg, "t(id, a, w, f)", &piece, 1, &why), RF_INVALID);
    assert_string_equal(rf_pg_state(pg), "23505");
    assert_non_null(strstr(why.message, "duplicate key"));
    rf_buf_release(&buf);
    assert_int_equal(rf_pg_exec(pg, NULL, "SELECT nothing FROM t"), RF_CORRUPT);
    CHECK(rf_pg_exec(pg, &err, "BEGIN READ ONLY"));
    assert_int_equal(rf_pg_exec(pg, NULL, "DELETE FROM t"), RF_DENIED);
    CHECK(rf_pg_exec(pg, &err, "ROLLBACK"));
    rf_error_clear(&why);
    assert_int_equal(rf_pg_exec(pg, &why, "SELECT pg_terminate_backend(pg_backend_pid())"),
                     RF_UNAVAILABLE);
    assert_true(rf_pg_is_lost(pg));
    assert_int_equal(rf_pg_exec(pg, NULL, "SELECT 1"), RF_UNAVAILABLE);
    CHECK(rf_pg_reconnect(pg, &err));
    CHECK(rf_pg_exec(pg, &err, "SELECT 1"));
    finish(pg);
}

static void statements_go_together(void **state)
{
    struct rf_pg *pg = connect_to("");
    int64_t changed[3] = {-1, -1, -1}, count;
    struct rf_error why = {0};

    (void)state;
    CHECK(rf_pg_exec(pg, &err, "CREATE TABLE t(id bigint PRIMARY KEY)"));
    CHECK(rf_pg_exec(pg, &err, "BEGIN"));
    CHECK(rf_pg_pipe_begin(pg, &err));
    CHECK(rf_pg_pipe_run(pg, &err, "INSERT INTO t SELECT generate_series(1, $1)", "i", (int64_t)9));
    CHECK(rf_pg_pipe_run(pg, &err, "DELETE FROM t WHERE id > $1", "i", (int64_t)5));
    CHECK(rf_pg_pipe_run(pg, &err, "DELETE FROM t WHERE id > $1", "i", (int64_t)5));
    CHECK(rf_pg_pipe_end(pg, changed, &err));
    assert_int_equal(changed[0], 9);
    assert_int_equal(changed[1], 4);
    assert_int_equal(changed[2], 0);
    CHECK(rf_pg_exec(pg, &err, "COMMIT"));
    CHECK(rf_pg_exec(pg, &err, "BEGIN; SAVEPOINT s"));
    CHECK(rf_pg_pipe_begin(pg, &err));
    CHECK(rf_pg_pipe_run(pg, &err, "DELETE FROM t", ""));
    CHECK(rf_pg_pipe_run(pg, &err, "INSERT INTO t VALUES(1), (1)", ""));
    CHECK(rf_pg_pipe_run(pg, &err, "DELETE FROM t", ""));
    assert_int_equal(rf_pg_pipe_end(pg, NULL, &why), RF_INVALID);
    assert_non_null(strstr(why.message, "duplicate key"));
    CHECK(rf_pg_exec(pg, &err, "ROLLBACK TO s"));
    CHECK(rf_pg_int(pg, &count, 0, &err, "SELECT count(*) FROM t", ""));
    assert_int_equal(count, 5);
    finish(pg);
}

static enum rf_status take_cells(void *user, uint64_t index, size_t count,
                                 const char *const *names, const struct rf_cell *cells)
{
    struct rf_buf *out = user;

    (void)names;
    if (index > 3)
        return RF_LIMIT;
    for (size_t i = 0; i < count; i++) {
        rf_buf_printf(out, "%d:", (int)cells[i].type);
        if (cells[i].type == RF_CELL_INT)
            rf_buf_printf(out, "%lld", (long long)cells[i].integer);
        else if (cells[i].type == RF_CELL_FLOAT)
            rf_buf_printf(out, "%g", cells[i].real);
        else if (cells[i].type != RF_CELL_NULL)
            rf_buf_put(out, cells[i].text.data, cells[i].text.size);
        rf_buf_put_text(out, " ");
    }
    return RF_OK;
}

static void a_person_asks_row_by_row(void **state)
{
    struct rf_pg *pg = connect_to("");
    struct rf_error why = {0};
    volatile int stop = 1;
    struct rf_buf out;

    (void)state;
    rf_buf_init(&out, 4096);
    CHECK(rf_pg_each(pg,
                     "SELECT 1, true, null, 'a', 2.5::float8, 3::numeric, 0.5::numeric, "
                     "'\\x0041'::bytea, timestamptz '2023-11-14 22:13:21.5Z', "
                     "12345678901234567890::numeric, ARRAY[1,2]",
                     NULL, take_cells, &out, NULL, &err));
    assert_int_equal(out.size, strlen("1:1 1:1 0: 3:a 2:2.5 1:3 2:0.5 4:xA "
                                      "3:2023-11-14T22:13:21.500000Z 3:12345678901234567890 "
                                      "3:{1,2} "));
    assert_non_null(strstr(rf_buf_text(&out), "1:1 1:1 0: 3:a 2:2.5 1:3 2:0.5 4:"));
    assert_int_equal(rf_pg_each(pg, "SELECT *\nFROM note here", NULL, take_cells, &out, NULL, &why),
                     RF_INVALID);
    assert_non_null(strstr(why.message, "line 2, column 6"));
    rf_error_clear(&why);
    assert_int_equal(rf_pg_each(pg, "SELECT 1; SELECT 2", NULL, take_cells, &out, NULL, &why),
                     RF_INVALID);
    assert_int_equal(rf_pg_each(pg, "", NULL, take_cells, &out, NULL, NULL), RF_END);
    assert_int_equal(rf_pg_each(pg, "SELECT generate_series(1, 100000000)", NULL, take_cells, &out,
                                NULL, NULL),
                     RF_LIMIT);
    assert_int_equal(rf_pg_each(pg, "SELECT pg_sleep(1000)", NULL, take_cells, &out, &stop, NULL),
                     RF_CANCELLED);
    rf_buf_release(&out);
    finish(pg);
}

static bool want_end(void *user)
{
    unsigned *calls = user;

    return ++*calls > 1;
}

/* Whoever waits for a statement may end it; the connection is as good as before. */
static void a_silent_server_is_polled(void **state)
{
    struct rf_pg *pg = connect_to("");
    struct rf_pg_stream *stream = NULL;
    const struct rf_pg_rows *rows;
    struct rf_pg_rows *answer = NULL;
    unsigned calls = 0;
    size_t row;

    (void)state;
    rf_pg_set_poll(pg, want_end, &calls);
    assert_int_equal(rf_pg_query(pg, &answer, NULL, "SELECT pg_sleep(1000)", ""), RF_CANCELLED);
    assert_true(calls > 1);
    CHECK(rf_pg_exec(pg, &err, "BEGIN"));
    CHECK(rf_pg_stream_open(pg, &stream, &err, "SELECT pg_sleep(1000)", ""));
    assert_int_equal(rf_pg_stream_next(stream, &rows, &row, NULL), RF_CANCELLED);
    rf_pg_stream_close(stream);
    rf_pg_set_poll(pg, NULL, NULL);
    CHECK(rf_pg_exec(pg, &err, "ROLLBACK"));
    finish(pg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_are_checked_before_anything_is_asked),
        cmocka_unit_test(a_refusal_to_connect_says_why),
        cmocka_unit_test(values_come_back_as_they_went),
        cmocka_unit_test(names_and_texts_are_quoted),
        cmocka_unit_test(rows_are_copied_in_and_streamed_out),
        cmocka_unit_test(a_failure_says_what_to_do),
        cmocka_unit_test(statements_go_together),
        cmocka_unit_test(a_person_asks_row_by_row),
        cmocka_unit_test(a_silent_server_is_polled),
    };

    return cmocka_run_group_tests_name("pg", tests, NULL, NULL);
}
