/*
 * test_blobstore.c - what every store must do, over every backend
 *
 * The oracle of the histories is a model in this file: an array of blobs with their lives, and a
 * list of changes. The seed is printed; REFUGE_TEST_SEED sets it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "blobstore/blobstore.h"

struct fixture {
    bool disk;
    char dir[64];
    char url[80];
    struct rf_store *store;
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void open_fixture(struct fixture *f, enum rf_store_mode mode)
{
    struct rf_store_options options = {.mode = mode, .segment_bytes = 256u << 10,
                                       .run_bytes = 32u << 10};
    struct rf_error err = {0};

    if (rf_store_open(&f->store, f->url, &options, &err) != RF_OK)
        fail_msg("%s", err.message);
}

static int set_up(void **state, bool disk)
{
    struct fixture *f = calloc(1, sizeof *f);

    f->disk = disk;
    snprintf(f->url, sizeof f->url, "memory:");
    if (disk) {
        /* In memory where that is: what a sync means is for tests/fault to try. */
        snprintf(f->dir, sizeof f->dir, "%s/test_blobstore.XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        assert_non_null(mkdtemp(f->dir));
        snprintf(f->url, sizeof f->url, "disk:%s/store", f->dir);
    }
    open_fixture(f, RF_STORE_CREATE);
    *state = f;
    return 0;
}

static int set_up_disk(void **state)
{
    return set_up(state, true);
}

static int set_up_memory(void **state)
{
    return set_up(state, false);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    rf_store_close(f->store);
    if (f->disk)
        nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

/* A store in memory has no second life. */
static void reopen(struct fixture *f)
{
    if (!f->disk)
        return;
    rf_store_close(f->store);
    open_fixture(f, RF_STORE_WRITE);
}

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct rf_error err = {0};                                                                 \
        enum rf_status status_ = (call);                                                           \
        if (status_ != RF_OK)                                                                      \
            fail_msg("%s: %s: %s", #call, rf_status_name(status_), err.message);                   \
    } while (0)

#define REFUSED(expected, call)                                                                    \
    do {                                                                                           \
        struct rf_error err = {0};                                                                 \
        enum rf_status status_ = (call);                                                           \
        if (status_ != (expected))                                                                 \
            fail_msg("%s: %s: %s", #call, rf_status_name(status_), err.message);                   \
        assert_true(err.message[0]);                                                               \
    } while (0)

static struct rf_blobref put_text(struct fixture *f, const char *text, bool part,
                                  enum rf_put_outcome expected)
{
    enum rf_put_outcome outcome;
    struct rf_blobref ref;

    OK(rf_store_put(f->store, rf_bytes_text(text), NULL, part, &ref, &outcome, &err));
    assert_int_equal(outcome, expected);
    return ref;
}

static void expect_text(struct fixture *f, const struct rf_blobref *ref, const char *text)
{
    struct rf_buf buf;

    rf_buf_init(&buf, 1 << 20);
    OK(rf_store_get(f->store, ref, &buf, &err));
    assert_int_equal(buf.size, strlen(text));
    assert_memory_equal(buf.data, text, buf.size);
    rf_buf_release(&buf);
}

/* ---- putting, getting, deleting ---- */

static void a_blob_comes_back_as_it_was(void **state)
{
    struct fixture *f = *state;
    struct rf_blobref ref = put_text(f, "hello", false, RF_PUT_NEW), expected, other;
    struct rf_stat stat;
    struct rf_store_info info;
    char some[3] = "xxx";
    struct rf_buf buf;
    size_t got;

    rf_blobref_of(&expected, rf_bytes_text("hello"));
    assert_true(rf_blobref_equal(&ref, &expected));
    put_text(f, "hello", false, RF_PUT_PRESENT);
    put_text(f, "hello", true, RF_PUT_PRESENT);
    for (int i = 0; i < 2; i++) {
        expect_text(f, &ref, "hello");
        OK(rf_store_stat(f->store, &ref, &stat, &err));
        assert_int_equal(stat.size, 5);
        assert_int_equal(stat.seq, 1);
        assert_int_equal(stat.life, 1);
        assert_false(stat.part);
        assert_true(stat.timestamp_us > 1500000000000000);
        OK(rf_store_read(f->store, &ref, 3, some, 3, &got, &err));
        assert_int_equal(got, 2);
        assert_memory_equal(some, "lox", 3);
        OK(rf_store_read(f->store, &ref, 5, some, 3, &got, &err));
        assert_int_equal(got, 0);
        rf_buf_init(&buf, 4);
        REFUSED(RF_LIMIT, rf_store_get(f->store, &ref, &buf, &err));
        rf_buf_release(&buf);
        OK(rf_store_info(f->store, &info, &err));
        assert_int_equal(info.blobs, 1);
        assert_int_equal(info.bytes, 5);
        assert_int_equal(info.next_seq, 2);
        assert_int_equal(info.oldest_seq, 1);
        assert_int_equal(strlen(info.uuid), 36);
        reopen(f);
    }
    rf_blobref_of(&other, rf_bytes_text("nobody"));
    REFUSED(RF_NOT_FOUND, rf_store_stat(f->store, &other, &stat, &err));
    REFUSED(RF_NOT_FOUND, rf_store_read(f->store, &other, 0, some, 3, &got, &err));
    REFUSED(RF_INVALID, rf_store_put(f->store, rf_bytes_text("hello"), &other, false, NULL, NULL,
                                     &err));
}

static void the_empty_blob_is_a_blob(void **state)
{
    struct fixture *f = *state;
    struct rf_blobref ref = put_text(f, "", false, RF_PUT_NEW);
    size_t got = 1;

    reopen(f);
    expect_text(f, &ref, "");
    OK(rf_store_read(f->store, &ref, 0, NULL, 0, &got, &err));
    assert_int_equal(got, 0);
    put_text(f, "", false, RF_PUT_PRESENT);
}

static void a_delete_is_a_change_and_may_be_undone(void **state)
{
    struct fixture *f = *state;
    struct rf_blobref ref = put_text(f, "one", false, RF_PUT_NEW), none;
    enum rf_put_outcome outcome;
    struct rf_store_info info;
    struct rf_stat stat;

    rf_blobref_of(&none, rf_bytes_text("none"));
    OK(rf_store_delete(f->store, &none, &outcome, &err));
    assert_int_equal(outcome, RF_PUT_ABSENT);
    OK(rf_store_delete(f->store, &ref, &outcome, &err));
    assert_int_equal(outcome, RF_PUT_DELETED);
    OK(rf_store_delete(f->store, &ref, &outcome, &err));
    assert_int_equal(outcome, RF_PUT_ABSENT);
    reopen(f);
    REFUSED(RF_NOT_FOUND, rf_store_stat(f->store, &ref, &stat, &err));
    OK(rf_store_info(f->store, &info, &err));
    assert_int_equal(info.blobs, 0);
    assert_int_equal(info.bytes, 0);
    put_text(f, "one", false, RF_PUT_NEW);
    OK(rf_store_stat(f->store, &ref, &stat, &err));
    assert_int_equal(stat.life, 3);
    assert_int_equal(stat.seq, 3);
    reopen(f);
    expect_text(f, &ref, "one");
}

static void a_bare_put_lifts_a_part(void **state)
{
    struct fixture *f = *state;
    struct rf_blobref ref = put_text(f, "piece", true, RF_PUT_NEW);
    struct rf_feed *feed = NULL;
    struct rf_change change;
    struct rf_bytes bytes;
    struct rf_stat stat;

    OK(rf_store_stat(f->store, &ref, &stat, &err));
    assert_true(stat.part);
    put_text(f, "piece", true, RF_PUT_PRESENT);
    put_text(f, "piece", false, RF_PUT_LIFTED);
    put_text(f, "piece", false, RF_PUT_PRESENT);
    put_text(f, "piece", true, RF_PUT_PRESENT);
    reopen(f);
    OK(rf_store_stat(f->store, &ref, &stat, &err));
    assert_false(stat.part);
    assert_int_equal(stat.life, 1);
    assert_int_equal(stat.seq, 2);
    expect_text(f, &ref, "piece");
    OK(rf_feed_open(&feed, f->store, NULL, &err));
    OK(rf_feed_next(feed, &change, 0, &err));
    assert_true(change.part);
    assert_false(change.lift);
    OK(rf_feed_next(feed, &change, 0, &err));
    assert_false(change.part);
    assert_true(change.lift);
    OK(rf_feed_blob(feed, &bytes, &err));
    assert_true(rf_bytes_equal(bytes, rf_bytes_text("piece")));
    rf_feed_close(feed);
}

static enum rf_status collect(void *user, const struct rf_stat *stat)
{
    struct rf_stat **next = user;

    *(*next)++ = *stat;
    return RF_OK;
}

static enum rf_status stop_at_once(void *user, const struct rf_stat *stat)
{
    (void)stat;
    ++*(int *)user;
    return RF_END;
}

static void a_list_is_in_order_and_can_go_on(void **state)
{
    struct fixture *f = *state;
    struct rf_stat stats[64], *next = stats;
    struct rf_blobref ref;
    char text[16];
    int calls = 0;

    for (int i = 0; i < 50; i++) {
        snprintf(text, sizeof text, "blob %d", i);
        ref = put_text(f, text, i % 3 == 0, RF_PUT_NEW);
        if (i % 10 == 9)
            OK(rf_store_delete(f->store, &ref, NULL, &err));
        if (i == 25)
            reopen(f);
    }
    OK(rf_store_list(f->store, NULL, collect, &next, &err));
    assert_int_equal(next - stats, 45);
    for (int i = 1; i < 45; i++)
        assert_true(rf_blobref_compare(&stats[i - 1].ref, &stats[i].ref) < 0);
    next = stats + 45;
    OK(rf_store_list(f->store, &stats[40].ref, collect, &next, &err));
    assert_int_equal(next - stats, 49);
    assert_memory_equal(&stats[45].ref, &stats[41].ref, sizeof ref);
    assert_int_equal(rf_store_list(f->store, NULL, stop_at_once, &calls, NULL), RF_END);
    assert_int_equal(calls, 1);
}

/* ---- large blobs ---- */

static uint8_t *noise(size_t size, unsigned seed)
{
    uint8_t *data = malloc(size);

    for (size_t i = 0; i < size; i++) {
        seed = seed * 1664525u + 1013904223u;
        data[i] = (uint8_t)(seed >> 24);
    }
    return data;
}

static void a_large_blob_comes_back_whole_and_in_ranges(void **state)
{
    struct fixture *f = *state;
    size_t size = (3u << 20) + 12345, got;
    uint8_t *data = noise(size, 7), *some = malloc(200000);
    static const uint64_t offsets[] = {0, 1, 65535, 65536, 65537, 1u << 20, (3u << 20) + 12000};
    enum rf_put_outcome outcome;
    struct rf_blobref ref, expected;
    struct rf_feed *feed = NULL;
    struct rf_change change;
    struct rf_bytes bytes;
    struct rf_stat stat;
    struct rf_buf buf;

    OK(rf_store_put(f->store, rf_bytes(data, size), NULL, false, &ref, &outcome, &err));
    assert_int_equal(outcome, RF_PUT_NEW);
    rf_blobref_of(&expected, rf_bytes(data, size));
    assert_true(rf_blobref_equal(&ref, &expected));
    OK(rf_store_put(f->store, rf_bytes(data, size), &expected, true, &ref, &outcome, &err));
    assert_int_equal(outcome, RF_PUT_PRESENT);
    reopen(f);
    rf_buf_init(&buf, size);
    OK(rf_store_get(f->store, &ref, &buf, &err));
    assert_int_equal(buf.size, size);
    assert_memory_equal(buf.data, data, size);
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        size_t left = size - (size_t)offsets[i];
        OK(rf_store_read(f->store, &ref, offsets[i], some, 200000, &got, &err));
        assert_int_equal(got, left < 200000 ? left : 200000);
        assert_memory_equal(some, data + offsets[i], got);
    }
    OK(rf_feed_open(&feed, f->store, NULL, &err));
    OK(rf_feed_next(feed, &change, 0, &err));
    assert_int_equal(change.size, size);
    assert_false(change.gone);
    REFUSED(RF_LIMIT, rf_feed_blob(feed, &bytes, &err));
    rf_feed_close(feed);
    OK(rf_store_delete(f->store, &ref, &outcome, &err));
    assert_int_equal(outcome, RF_PUT_DELETED);
    REFUSED(RF_NOT_FOUND, rf_store_stat(f->store, &ref, &stat, &err));
    OK(rf_feed_open(&feed, f->store, NULL, &err));
    OK(rf_feed_next(feed, &change, 0, &err));
    assert_true(change.gone);
    OK(rf_feed_next(feed, &change, 0, &err));
    assert_true(change.is_delete);
    rf_feed_close(feed);
    OK(rf_store_put(f->store, rf_bytes(data, size), NULL, true, &ref, &outcome, &err));
    assert_int_equal(outcome, RF_PUT_NEW);
    OK(rf_store_put(f->store, rf_bytes(data, size), NULL, false, &ref, &outcome, &err));
    assert_int_equal(outcome, RF_PUT_LIFTED);
    reopen(f);
    rf_buf_clear(&buf);
    OK(rf_store_get(f->store, &ref, &buf, &err));
    assert_memory_equal(buf.data, data, size);
    rf_buf_release(&buf);
    free(data);
    free(some);
}

static void an_upload_comes_in_pieces(void **state)
{
    static const size_t sizes[] = {0, 1, 1u << 20, (1u << 20) + 1, 5u << 20};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *data = noise(sizes[i] + 1, (unsigned)i + 100);
        struct rf_upload *upload = NULL;
        enum rf_put_outcome outcome;
        struct rf_blobref ref, expected, wrong;
        struct rf_buf buf;
        rf_blobref_of(&expected, rf_bytes(data, sizes[i]));
        rf_blobref_of(&wrong, rf_bytes_text("wrong"));
        for (int round = 0; round < 4; round++) { /* refused, given up, stored, there */
            OK(rf_upload_open(&upload, f->store, &err));
            for (size_t at = 0, some = 1; at < sizes[i]; at += some, some = some * 3 + 1) {
                if (some > sizes[i] - at)
                    some = sizes[i] - at;
                OK(rf_upload_write(upload, rf_bytes(data + at, some), &err));
            }
            if (round == 0)
                REFUSED(RF_INVALID, rf_upload_commit(upload, &wrong, false, &ref, NULL, &err));
            if (round >= 2) {
                OK(rf_upload_commit(upload, &expected, false, &ref, &outcome, &err));
                assert_int_equal(outcome, round == 2 ? RF_PUT_NEW : RF_PUT_PRESENT);
                assert_true(rf_blobref_equal(&ref, &expected));
            }
            rf_upload_close(upload);
        }
        rf_buf_init(&buf, sizes[i] + 1);
        OK(rf_store_get(f->store, &expected, &buf, &err));
        assert_int_equal(buf.size, sizes[i]);
        if (sizes[i])
            assert_memory_equal(buf.data, data, sizes[i]);
        rf_buf_release(&buf);
        free(data);
    }
}

#define LARGE_ACTS 24 /* more than may wait */

static void count_answer(struct rf_act *act)
{
    sem_post(act->user);
}

/* Acts of any size, equal ones and one that is not what it is said to be among them. */
static void acts_may_be_large(void **state)
{
    struct fixture *f = *state;
    size_t size = (1u << 20) + 4711;
    uint8_t *data = noise(size + LARGE_ACTS, 21);
    struct rf_act *acts = calloc(LARGE_ACTS, sizeof *acts);
    struct rf_store_info info;
    struct rf_blobref wrong;
    unsigned stored = 0, refused = 0;
    sem_t answers;

    sem_init(&answers, 0, 0);
    rf_blobref_of(&wrong, rf_bytes_text("wrong"));
    for (int i = 0; i < LARGE_ACTS; i++) {
        acts[i] = (struct rf_act){.bytes = rf_bytes(data + i / 2, size), .part = i % 3 == 0,
                                  .done = count_answer, .user = &answers};
        if (i == 7)
            acts[i].ref = wrong;
        rf_store_submit(f->store, &acts[i]);
    }
    for (int i = 0; i < LARGE_ACTS; i++)
        while (sem_wait(&answers) != 0)
            continue;
    for (int i = 0; i < LARGE_ACTS; i++) {
        struct rf_blobref ref;
        struct rf_stat stat;
        rf_blobref_of(&ref, acts[i].bytes);
        refused += acts[i].status == RF_INVALID;
        if (acts[i].status != RF_OK)
            continue;
        stored += acts[i].outcome == RF_PUT_NEW;
        assert_true(rf_blobref_equal(&acts[i].ref, &ref));
        OK(rf_store_stat(f->store, &ref, &stat, &err));
        assert_true(stat.size == size && acts[i].seq > 0 && acts[i].seq <= stat.seq);
    }
    assert_int_equal(refused, 1);
    assert_int_equal(acts[7].status, RF_INVALID);
    assert_int_equal(stored, LARGE_ACTS / 2);
    OK(rf_store_info(f->store, &info, &err));
    assert_int_equal(info.blobs, LARGE_ACTS / 2);
    sem_destroy(&answers);
    free(acts);
    free(data);
}

static void an_upload_takes_a_file_descriptor(void **state)
{
    struct fixture *f = *state;
    size_t size = (2u << 20) + 99;
    uint8_t *data = noise(size, 3);
    char path[] = "/tmp/test_blobstore.fd.XXXXXX";
    int fd = mkstemp(path);
    struct rf_upload *upload = NULL;
    struct rf_blobref ref, expected;
    struct rf_buf buf;

    assert_int_equal(write(fd, data, size), size);
    rf_blobref_of(&expected, rf_bytes(data + 17, size - 17));
    OK(rf_upload_open(&upload, f->store, &err));
    OK(rf_upload_write_fd(upload, fd, 17, 1000, &err));
    OK(rf_upload_write_fd(upload, fd, 1017, size - 1017, &err));
    REFUSED(RF_INVALID, rf_upload_write_fd(upload, fd, size - 10, 20, &err));
    rf_upload_close(upload);
    OK(rf_upload_open(&upload, f->store, &err));
    OK(rf_upload_write_fd(upload, fd, 17, 1000, &err));
    OK(rf_upload_write_fd(upload, fd, 1017, size - 1017, &err));
    OK(rf_upload_commit(upload, NULL, false, &ref, NULL, &err));
    rf_upload_close(upload);
    assert_true(rf_blobref_equal(&ref, &expected));
    rf_buf_init(&buf, size);
    OK(rf_store_get(f->store, &ref, &buf, &err));
    assert_memory_equal(buf.data, data + 17, size - 17);
    rf_buf_release(&buf);
    close(fd);
    unlink(path);
    free(data);
}

/* ---- the change queue ---- */

static void a_feed_gives_every_change_in_order(void **state)
{
    struct fixture *f = *state;
    struct rf_feed *feed = NULL;
    struct rf_change change;
    struct rf_cursor cursor, middle = {0};
    struct rf_bytes bytes;
    struct rf_blobref ref;
    char text[16];

    for (int i = 0; i < 100; i++) {
        snprintf(text, sizeof text, "change %d", i);
        put_text(f, text, false, RF_PUT_NEW);
        put_text(f, text, false, RF_PUT_PRESENT);
        if (i == 50)
            reopen(f);
    }
    OK(rf_feed_open(&feed, f->store, NULL, &err));
    for (unsigned i = 0; i < 100; i++) {
        OK(rf_feed_next(feed, &change, 0, &err));
        assert_int_equal(change.seq, i + 1);
        snprintf(text, sizeof text, "change %u", i);
        OK(rf_feed_blob(feed, &bytes, &err));
        assert_true(rf_bytes_equal(bytes, rf_bytes_text(text)));
        assert_false(change.is_delete || change.part || change.lift || change.gone);
        assert_int_equal(change.life, 1);
        assert_int_equal(change.cursor.seq, i + 1);
        rf_feed_cursor(feed, &cursor);
        assert_int_equal(cursor.seq, change.cursor.seq);
        assert_true(cursor.has_chain && cursor.chain == change.cursor.chain);
        if (i == 41)
            middle = cursor;
    }
    REFUSED(RF_TIMEOUT, rf_feed_next(feed, &change, 0, &err));
    REFUSED(RF_TIMEOUT, rf_feed_next(feed, &change, 5, &err));
    rf_blobref_of(&ref, rf_bytes_text("change 7"));
    OK(rf_store_delete(f->store, &ref, NULL, &err));
    OK(rf_feed_next(feed, &change, 0, &err));
    assert_true(change.is_delete);
    assert_int_equal(change.life, 2);
    REFUSED(RF_NOT_FOUND, rf_feed_blob(feed, &bytes, &err));
    rf_feed_close(feed);
    if (f->disk)
        reopen(f);
    OK(rf_feed_open(&feed, f->store, &middle, &err));
    OK(rf_feed_next(feed, &change, 0, &err));
    assert_int_equal(change.seq, 43);
    rf_feed_close(feed);
}

static void a_cursor_that_does_not_fit_is_refused(void **state)
{
    struct fixture *f = *state;
    struct rf_cursor good, cursor;
    struct rf_feed *feed = NULL;
    struct rf_change change;

    put_text(f, "a", false, RF_PUT_NEW);
    put_text(f, "b", false, RF_PUT_NEW);
    OK(rf_feed_open(&feed, f->store, NULL, &err));
    rf_feed_cursor(feed, &cursor);
    assert_int_equal(cursor.seq, 0);
    assert_true(cursor.has_chain);
    OK(rf_feed_next(feed, &change, 0, &err));
    good = change.cursor;
    rf_feed_close(feed);
    OK(rf_feed_open(&feed, f->store, &good, &err));
    rf_feed_close(feed);
    OK(rf_feed_open(&feed, f->store, &cursor, &err));
    rf_feed_close(feed);
    cursor = good;
    cursor.generation++;
    REFUSED(RF_CURSOR_GENERATION, rf_feed_open(&feed, f->store, &cursor, &err));
    cursor = good;
    cursor.chain ^= 1;
    REFUSED(RF_CURSOR_HISTORY, rf_feed_open(&feed, f->store, &cursor, &err));
    cursor.has_chain = false;
    OK(rf_feed_open(&feed, f->store, &cursor, &err));
    rf_feed_close(feed);
    cursor.seq = 3;
    REFUSED(RF_CURSOR_FUTURE, rf_feed_open(&feed, f->store, &cursor, &err));
    cursor.seq = UINT64_MAX - 1;
    REFUSED(RF_CURSOR_FUTURE, rf_feed_open(&feed, f->store, &cursor, &err));
}

static void a_cursor_has_one_text(void **state)
{
    static const char *const good[] = {"1-0", "1-17", "4294967295-18446744073709551614",
                                       "7-3-00000000000000ff", "7-3-fedcba9876543210"};
    static const char *const bad[] = {"", "1", "1-", "-1", "1-2-", "01-2", "1-02", "1-2-3",
                                      "1-2-00000000000000FF", "1-2-00000000000000fff", "1-2 ",
                                      " 1-2", "4294967296-1", "1-18446744073709551615", "+1-2",
                                      "1-2-00000000000000f", "x-1", "1--2"};
    struct rf_cursor cursor;
    char text[RF_CURSOR_SIZE];

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        OK(rf_cursor_parse(&cursor, good[i], &err));
        rf_cursor_format(&cursor, text);
        assert_string_equal(text, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        REFUSED(RF_INVALID, rf_cursor_parse(&cursor, bad[i], &err));
}

struct waiter {
    struct rf_feed *feed;
    enum rf_status status;
    struct rf_change change;
};

static void *wait_for_change(void *user)
{
    struct waiter *waiter = user;

    waiter->status = rf_feed_next(waiter->feed, &waiter->change, -1, NULL);
    return NULL;
}

static void a_feed_wakes_for_a_change_and_for_a_cancel(void **state)
{
    struct fixture *f = *state;
    struct waiter waiter = {0};
    struct timespec moment = {.tv_nsec = 20000000};
    pthread_t thread;

    OK(rf_feed_open(&waiter.feed, f->store, NULL, &err));
    for (int i = 0; i < 3; i++) { /* wherever the waiter is by then, it must wake */
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        pthread_create(&thread, NULL, wait_for_change, &waiter);
        if (i > 0)
            nanosleep(&moment, NULL);
        put_text(f, text, false, RF_PUT_NEW);
        pthread_join(thread, NULL);
        assert_int_equal(waiter.status, RF_OK);
        assert_int_equal(waiter.change.seq, i + 1);
    }
    pthread_create(&thread, NULL, wait_for_change, &waiter);
    nanosleep(&moment, NULL);
    rf_feed_cancel(waiter.feed);
    pthread_join(thread, NULL);
    assert_int_equal(waiter.status, RF_CANCELLED);
    REFUSED(RF_CANCELLED, rf_feed_next(waiter.feed, &waiter.change, -1, &err));
    rf_feed_close(waiter.feed);
}

/* ---- many in flight, many threads ---- */

#define FLIGHT 300

struct flight {
    pthread_mutex_t lock;
    pthread_cond_t landed;
    int left;
};

static void land(struct rf_act *act)
{
    struct flight *flight = act->user;

    pthread_mutex_lock(&flight->lock);
    flight->left--;
    pthread_cond_signal(&flight->landed);
    pthread_mutex_unlock(&flight->lock);
}

static void many_acts_are_answered_once(void **state)
{
    struct fixture *f = *state;
    struct flight flight = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, FLIGHT};
    struct rf_act *acts = calloc(FLIGHT, sizeof *acts);
    char (*texts)[16] = calloc(FLIGHT, sizeof *texts);
    int fresh = 0, present = 0;
    struct rf_store_info info;

    for (int i = 0; i < FLIGHT; i++) { /* every blob three times */
        snprintf(texts[i], sizeof *texts, "act %d", i / 3);
        acts[i] = (struct rf_act){.bytes = rf_bytes_text(texts[i]), .done = land,
                                  .user = &flight};
        rf_store_submit(f->store, &acts[i]);
    }
    pthread_mutex_lock(&flight.lock);
    while (flight.left > 0)
        pthread_cond_wait(&flight.landed, &flight.lock);
    pthread_mutex_unlock(&flight.lock);
    for (int i = 0; i < FLIGHT; i++) {
        assert_int_equal(acts[i].status, RF_OK);
        assert_int_equal(acts[i].seq, acts[i / 3 * 3].seq);
        fresh += acts[i].outcome == RF_PUT_NEW;
        present += acts[i].outcome == RF_PUT_PRESENT;
    }
    assert_int_equal(fresh, FLIGHT / 3);
    assert_int_equal(present, FLIGHT - FLIGHT / 3);
    OK(rf_store_info(f->store, &info, &err));
    assert_int_equal(info.blobs, FLIGHT / 3);
    free(acts);
    free(texts);
}

#define PUTTERS 4
#define PUTS 400

struct putter {
    struct fixture *f;
    int number;
    int failures;
    int fresh; /* blobs this thread was told it stored */
};

static void *put_many(void *user)
{
    struct putter *putter = user;
    struct rf_buf buf;

    rf_buf_init(&buf, 64);
    for (int i = 0; i < PUTS; i++) { /* half of them are put by every thread */
        enum rf_put_outcome outcome;
        struct rf_blobref ref;
        char text[32];
        snprintf(text, sizeof text, "%d of %d", i, i % 2 ? putter->number : -1);
        if (rf_store_put(putter->f->store, rf_bytes_text(text), NULL, i % 3 == 0, &ref, &outcome,
                         NULL) != RF_OK) {
            putter->failures++;
            continue;
        }
        putter->fresh += outcome == RF_PUT_NEW;
        rf_buf_clear(&buf);
        if (rf_store_get(putter->f->store, &ref, &buf, NULL) != RF_OK ||
            !rf_bytes_equal(rf_buf_bytes(&buf), rf_bytes_text(text)))
            putter->failures++;
    }
    rf_buf_release(&buf);
    return NULL;
}

struct follower {
    struct rf_feed *feed;
    uint64_t until, seen;
    int failures;
};

static void *follow(void *user)
{
    struct follower *follower = user;

    while (follower->seen < follower->until) {
        struct rf_change change;
        struct rf_blobref ref;
        struct rf_bytes bytes;
        if (rf_feed_next(follower->feed, &change, 30000, NULL) != RF_OK ||
            change.seq != follower->seen + 1 ||
            rf_feed_blob(follower->feed, &bytes, NULL) != RF_OK) {
            follower->failures++;
            break;
        }
        rf_blobref_of(&ref, bytes);
        follower->failures += !rf_blobref_equal(&ref, &change.ref);
        follower->seen++;
    }
    return NULL;
}

static void putters_and_followers_agree(void **state)
{
    struct fixture *f = *state, reader = *f;
    struct putter putters[PUTTERS];
    struct follower followers[3] = {{0}};
    pthread_t threads[PUTTERS + 3];
    struct rf_store_info info;
    int fresh = 0;

    if (f->disk)
        open_fixture(&reader, RF_STORE_READ); /* as another process would */
    for (int i = 0; i < 3; i++) {
        followers[i].until = PUTS / 2 * (PUTTERS + 1);
        OK(rf_feed_open(&followers[i].feed, i == 2 ? reader.store : f->store, NULL, &err));
        pthread_create(&threads[PUTTERS + i], NULL, follow, &followers[i]);
    }
    for (int i = 0; i < PUTTERS; i++) {
        putters[i] = (struct putter){.f = f, .number = i};
        pthread_create(&threads[i], NULL, put_many, &putters[i]);
    }
    for (int i = 0; i < PUTTERS + 3; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < PUTTERS; i++) {
        assert_int_equal(putters[i].failures, 0);
        fresh += putters[i].fresh;
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(followers[i].failures, 0);
        assert_int_equal(followers[i].seen, followers[i].until);
        rf_feed_close(followers[i].feed);
    }
    assert_int_equal(fresh, PUTS / 2 * (PUTTERS + 1));
    OK(rf_store_info(reader.store, &info, &err));
    assert_int_equal(info.blobs, fresh);
    if (f->disk)
        rf_store_close(reader.store);
}

struct large_putter {
    struct fixture *f;
    struct rf_bytes bytes;
    enum rf_status status;
    enum rf_put_outcome outcome;
};

static void *put_large(void *user)
{
    struct large_putter *putter = user;

    putter->status = rf_store_put(putter->f->store, putter->bytes, NULL, false, NULL,
                                  &putter->outcome, NULL);
    return NULL;
}

static void two_clients_with_one_large_blob_store_it_once(void **state)
{
    struct fixture *f = *state;
    size_t size = 2u << 20;
    uint8_t *data = noise(size, 5);
    struct large_putter putters[4];
    struct rf_store_info info;
    pthread_t threads[4];
    int fresh = 0;

    for (int i = 0; i < 4; i++) {
        putters[i] = (struct large_putter){.f = f, .bytes = rf_bytes(data, size)};
        pthread_create(&threads[i], NULL, put_large, &putters[i]);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(putters[i].status, RF_OK);
        fresh += putters[i].outcome == RF_PUT_NEW;
    }
    assert_int_equal(fresh, 1);
    OK(rf_store_info(f->store, &info, &err));
    assert_int_equal(info.next_seq, 2);
    free(data);
}

/* ---- random histories against a model ---- */

#define MODEL_BLOBS 120
#define MODEL_STEPS 1500

struct model {
    struct {
        uint8_t *data;
        size_t size;
        struct rf_blobref ref;
        uint32_t life;
        bool part;
        uint64_t seq;
    } blobs[MODEL_BLOBS];
    struct {
        int blob;
        uint32_t life;
        bool lift, part;
    } changes[MODEL_STEPS + 1];
    uint64_t seq;
};

static unsigned draw(unsigned *seed, unsigned below)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (unsigned)(((uint64_t)*seed * below) >> 32);
}

static void note_change(struct model *model, int i, bool lift)
{
    model->seq++;
    model->blobs[i].seq = model->seq;
    model->changes[model->seq - 1].blob = i;
    model->changes[model->seq - 1].life = model->blobs[i].life;
    model->changes[model->seq - 1].lift = lift;
    model->changes[model->seq - 1].part = model->blobs[i].part;
}

static void step_put(struct fixture *f, struct model *model, int i, bool part)
{
    struct rf_bytes bytes = rf_bytes(model->blobs[i].data, model->blobs[i].size);
    enum rf_put_outcome outcome, expected = RF_PUT_PRESENT;

    OK(rf_store_put(f->store, bytes, &model->blobs[i].ref, part, NULL, &outcome, &err));
    if (model->blobs[i].life % 2 == 0) {
        model->blobs[i].life++;
        model->blobs[i].part = part;
        note_change(model, i, false);
        expected = RF_PUT_NEW;
    } else if (model->blobs[i].part && !part) {
        model->blobs[i].part = false;
        note_change(model, i, true);
        expected = RF_PUT_LIFTED;
    }
    assert_int_equal(outcome, expected);
}

static void step_delete(struct fixture *f, struct model *model, int i)
{
    enum rf_put_outcome outcome;

    OK(rf_store_delete(f->store, &model->blobs[i].ref, &outcome, &err));
    if (model->blobs[i].life % 2 == 0) {
        assert_int_equal(outcome, RF_PUT_ABSENT);
        return;
    }
    assert_int_equal(outcome, RF_PUT_DELETED);
    model->blobs[i].life++;
    note_change(model, i, false);
}

static void compare_blob(struct rf_store *store, struct model *model, int i)
{
    struct rf_stat stat;
    struct rf_buf buf;

    rf_buf_init(&buf, 4u << 20);
    if (model->blobs[i].life % 2 == 0) {
        REFUSED(RF_NOT_FOUND, rf_store_get(store, &model->blobs[i].ref, &buf, &err));
        return;
    }
    OK(rf_store_stat(store, &model->blobs[i].ref, &stat, &err));
    assert_int_equal(stat.size, model->blobs[i].size);
    assert_int_equal(stat.life, model->blobs[i].life);
    assert_int_equal(stat.part, model->blobs[i].part);
    assert_int_equal(stat.seq, model->blobs[i].seq);
    OK(rf_store_get(store, &model->blobs[i].ref, &buf, &err));
    assert_true(rf_bytes_equal(rf_buf_bytes(&buf),
                               rf_bytes(model->blobs[i].data, model->blobs[i].size)));
    rf_buf_release(&buf);
}

static void compare_feed(struct rf_store *store, struct model *model)
{
    struct rf_feed *feed = NULL;
    struct rf_change change;

    OK(rf_feed_open(&feed, store, NULL, &err));
    for (uint64_t seq = 1; seq <= model->seq; seq++) {
        int i = model->changes[seq - 1].blob;
        uint32_t life = model->changes[seq - 1].life;
        struct rf_bytes bytes;
        OK(rf_feed_next(feed, &change, 0, &err));
        assert_int_equal(change.seq, seq);
        assert_true(rf_blobref_equal(&change.ref, &model->blobs[i].ref));
        assert_int_equal(change.life, life);
        assert_int_equal(change.is_delete, life % 2 == 0);
        assert_int_equal(change.lift, model->changes[seq - 1].lift);
        assert_int_equal(change.size, model->blobs[i].size);
        if (!change.is_delete)
            assert_int_equal(change.part, model->changes[seq - 1].part);
        if (change.gone)
            assert_true(model->blobs[i].life > life);
        if (!change.is_delete && life == model->blobs[i].life &&
            change.size <= RF_BLOB_INLINE_MAX) {
            OK(rf_feed_blob(feed, &bytes, &err));
            assert_true(rf_bytes_equal(bytes, rf_bytes(model->blobs[i].data,
                                                       model->blobs[i].size)));
        }
    }
    REFUSED(RF_TIMEOUT, rf_feed_next(feed, &change, 0, &err));
    rf_feed_close(feed);
}

static void compare_all(struct rf_store *store, struct model *model)
{
    struct rf_stat stats[MODEL_BLOBS], *next = stats;
    struct rf_store_info info;
    uint64_t alive = 0, bytes = 0;

    for (int i = 0; i < MODEL_BLOBS; i++) {
        compare_blob(store, model, i);
        if (model->blobs[i].life % 2 == 1) {
            alive++;
            bytes += model->blobs[i].size;
        }
    }
    OK(rf_store_list(store, NULL, collect, &next, &err));
    assert_int_equal(next - stats, alive);
    OK(rf_store_info(store, &info, &err));
    assert_int_equal(info.blobs, alive);
    assert_int_equal(info.bytes, bytes);
    assert_int_equal(info.next_seq, model->seq + 1);
    compare_feed(store, model);
}

static void say(void *user, const char *line)
{
    (void)user;
    print_message("%s\n", line);
}

static void random_histories_match_the_model(void **state)
{
    struct fixture *f = *state, reader = *f;
    const char *set = getenv("REFUGE_TEST_SEED");
    unsigned seed = set ? (unsigned)strtoul(set, NULL, 10) : (unsigned)time(NULL), at = seed;
    struct model *model = calloc(1, sizeof *model);
    struct rf_verify_report report;

    print_message("REFUGE_TEST_SEED=%u\n", seed);
    for (int i = 0; i < MODEL_BLOBS; i++) {
        size_t size = i == 0 ? 0 : i < 4 ? (1u << 20) + draw(&at, 300000)
                      : 16 + (i < 10 ? draw(&at, 1u << 18) : draw(&at, 3000)); /* all differ */
        model->blobs[i].size = size;
        model->blobs[i].data = noise(size + 1, (unsigned)i * 77 + 1);
        rf_blobref_of(&model->blobs[i].ref, rf_bytes(model->blobs[i].data, size));
    }
    if (f->disk)
        open_fixture(&reader, RF_STORE_READ);
    for (int step = 0; step < MODEL_STEPS; step++) {
        int i = (int)draw(&at, MODEL_BLOBS);
        unsigned what = draw(&at, 1000);
        uint64_t freed;
        if (what < 550)
            step_put(f, model, i, draw(&at, 2));
        else if (what < 900)
            step_delete(f, model, i);
        else if (what < 980)
            compare_blob(reader.store, model, i);
        else if (what < 990)
            reopen(f);
        else if (what < 995)
            OK(rf_store_compact(f->store, &freed, &err));
        else
            compare_all(what < 998 ? reader.store : f->store, model);
        if (!f->disk)
            reader.store = f->store;
    }
    compare_all(f->store, model);
    compare_all(reader.store, model);
    OK(rf_store_verify(f->store, &report, say, NULL, NULL, &err));
    assert_int_equal(report.changes, model->seq);
    assert_int_equal(report.removed, 0);
    assert_int_equal(report.rebuilt, 0);
    if (f->disk)
        rf_store_close(reader.store);
    for (int i = 0; i < MODEL_BLOBS; i++)
        free(model->blobs[i].data);
    free(model);
}

/* ---- opening ---- */

static void a_store_is_found_or_refused(void **state)
{
    struct fixture *f = *state;
    struct rf_store_options options = {.mode = RF_STORE_CREATE};
    struct rf_store *other = NULL;
    char url[128];

    REFUSED(RF_INVALID, rf_store_open(&other, "nowhere", NULL, &err));
    REFUSED(RF_INVALID, rf_store_open(&other, "ftp:x", NULL, &err));
    if (!f->disk)
        return;
    REFUSED(RF_LOCKED, rf_store_open(&other, f->url, &options, &err));
    options.mode = RF_STORE_WRITE;
    REFUSED(RF_LOCKED, rf_store_open(&other, f->url, &options, &err));
    snprintf(url, sizeof url, "disk:%s/nothing", f->dir);
    REFUSED(RF_NOT_FOUND, rf_store_open(&other, url, &options, &err));
    snprintf(url, sizeof url, "disk:%s", f->dir);
    REFUSED(RF_NOT_FOUND, rf_store_open(&other, url, &options, &err));
    options.mode = RF_STORE_READ;
    REFUSED(RF_NOT_FOUND, rf_store_open(&other, url, &options, &err));
    OK(rf_store_open(&other, f->url, &options, &err));
    REFUSED(RF_DENIED, rf_store_put(other, rf_bytes_text("x"), NULL, false, NULL, NULL, &err));
    REFUSED(RF_DENIED, rf_store_compact(other, NULL, &err));
    rf_store_close(other);
    rf_store_close(f->store);
    options.mode = RF_STORE_CREATE;
    REFUSED(RF_EXISTS, rf_store_open(&other, f->url, &options, &err));
    open_fixture(f, RF_STORE_WRITE);
}

#define BOTH(test)                                                                                 \
    {#test " (disk)", test, set_up_disk, tear_down, NULL},                                         \
    {#test " (memory)", test, set_up_memory, tear_down, NULL}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        BOTH(a_blob_comes_back_as_it_was),
        BOTH(the_empty_blob_is_a_blob),
        BOTH(a_delete_is_a_change_and_may_be_undone),
        BOTH(a_bare_put_lifts_a_part),
        BOTH(a_list_is_in_order_and_can_go_on),
        BOTH(a_large_blob_comes_back_whole_and_in_ranges),
        BOTH(an_upload_comes_in_pieces),
        BOTH(acts_may_be_large),
        BOTH(an_upload_takes_a_file_descriptor),
        BOTH(a_feed_gives_every_change_in_order),
        BOTH(a_cursor_that_does_not_fit_is_refused),
        cmocka_unit_test(a_cursor_has_one_text),
        BOTH(a_feed_wakes_for_a_change_and_for_a_cancel),
        BOTH(many_acts_are_answered_once),
        BOTH(putters_and_followers_agree),
        BOTH(two_clients_with_one_large_blob_store_it_once),
        BOTH(random_histories_match_the_model),
        BOTH(a_store_is_found_or_refused),
    };

    if (argc > 1) /* a pattern of names */
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
