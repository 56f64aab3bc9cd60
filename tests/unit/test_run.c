/* test_run.c - lookup runs: written, found, merged; damaged and never believed */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blobstore/run.h"

static uint64_t seed;

static uint64_t random_next(void) /* splitmix64 */
{
    uint64_t z = seed += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

struct fixture {
    char path[64];
    int dir;
};

static int set_up(void **state)
{
    const char *text = getenv("REFUGE_TEST_SEED");
    struct fixture *fixture = calloc(1, sizeof *fixture);

    seed = text ? strtoull(text, NULL, 10) : 77;
    print_message("REFUGE_TEST_SEED=%llu\n", (unsigned long long)seed);
    snprintf(fixture->path, sizeof fixture->path, "/tmp/refuge-run-XXXXXX");
    if (!mkdtemp(fixture->path))
        return -1;
    fixture->dir = open(fixture->path, O_RDONLY | O_DIRECTORY);
    *state = fixture;
    return fixture->dir < 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    char command[100];

    close(fixture->dir);
    snprintf(command, sizeof command, "rm -r %s", fixture->path);
    if (system(command) != 0)
        return -1;
    free(fixture);
    return 0;
}

/* ---- the oracle: entries in an array ---- */

static int by_ref(const void *a, const void *b)
{
    const struct rf_run_entry *x = a, *y = b;
    int order = memcmp(x->ref.digest, y->ref.digest, 32);

    return order ? order : x->seq < y->seq ? 1 : -1; /* the newest of a ref first */
}

static void random_entry(struct rf_run_entry *out, uint64_t seq)
{
    uint8_t number[8];

    memset(out, 0, sizeof *out);
    rf_put_u64(number, random_next());
    rf_blobref_of(&out->ref, rf_bytes(number, 8));
    out->flags = random_next() % 16;
    out->life = (uint32_t)random_next();
    out->seq = seq;
    out->size = random_next();
    out->timestamp_us = (int64_t)random_next();
    out->segment = random_next();
    out->offset = (uint32_t)random_next();
    out->stored = (uint32_t)random_next();
}

static struct rf_run_entry *random_entries(size_t count, uint64_t first_seq)
{
    struct rf_run_entry *entries = calloc(count + 1, sizeof *entries);

    assert_non_null(entries);
    for (size_t i = 0; i < count; i++)
        random_entry(&entries[i], first_seq + i);
    qsort(entries, count, sizeof *entries, by_ref);
    return entries;
}

static void write_run(int dir, const char *name, const struct rf_run_entry *entries, size_t count,
                      uint64_t first_seq)
{
    struct rf_run_source source = {1, first_seq, first_seq + count - 1};
    struct rf_run_writer *writer;

    assert_int_equal(rf_run_create(&writer, dir, name, &source, 1, NULL), RF_OK);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(rf_run_add(writer, &entries[i], NULL), RF_OK);
    assert_int_equal(rf_run_commit(writer, count % 2, NULL), RF_OK);
    rf_run_writer_free(writer);
}

static struct rf_run *open_run(int dir, const char *name)
{
    struct rf_run *run;
    struct rf_error err = {0};

    if (rf_run_open(&run, dir, name, &err) != RF_OK)
        fail_msg("%s", err.message);
    return run;
}

static void expect_entry(const struct rf_run_entry *got, const struct rf_run_entry *want)
{
    assert_true(rf_blobref_equal(&got->ref, &want->ref));
    assert_true(got->flags == want->flags && got->life == want->life && got->seq == want->seq);
    assert_true(got->size == want->size && got->timestamp_us == want->timestamp_us);
    assert_true(got->segment == want->segment && got->offset == want->offset &&
                got->stored == want->stored);
}

/* ---- whole runs ---- */

static void expect_prefixes(struct rf_run *run, const struct rf_run_entry *entries, size_t count)
{
    for (int byte = 0; byte < 256; byte++) {
        struct rf_run_prefix got;
        uint64_t want = 0;
        unsigned sum[32] = {0};
        for (size_t i = 0; i < count; i++)
            if (entries[i].ref.digest[0] == byte && !(entries[i].flags & RF_RUN_DELETE)) {
                want++;
                for (int b = 0; b < 32; b++)
                    sum[b] += entries[i].ref.digest[b];
            }
        for (int b = 31; b > 0; b--) { /* carry once, at the end */
            sum[b - 1] += sum[b] >> 8;
            sum[b] &= 255;
        }
        rf_run_prefix(run, (uint8_t)byte, &got);
        assert_int_equal(got.count, want);
        for (int b = 0; b < 32; b++)
            assert_int_equal(got.sum[b], sum[b] & 255);
    }
}

static void finds_what_was_written(void **state)
{
    static const size_t counts[] = {0, 1, 2, 50, 51, 52, 815, 816, 817, 2000, 20000};
    struct fixture *f = *state;
    struct rf_run_entry found;
    struct stat st;

    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        size_t count = counts[c];
        struct rf_run_entry *entries = random_entries(count, 100), other;
        struct rf_run *run;
        write_run(f->dir, "r", entries, count, 100);
        run = open_run(f->dir, "r");
        assert_int_equal(rf_run_info(run)->count, count);
        assert_int_equal(rf_run_info(run)->min_seq, count ? 100 : 0);
        assert_int_equal(rf_run_info(run)->max_seq, count ? 99 + count : 0);
        assert_int_equal(rf_run_info(run)->source_count, 1);
        assert_int_equal(rf_run_info(run)->sources[0].to_seq, 99 + count);
        assert_int_equal(fstatat(f->dir, "r", &st, 0), 0);
        assert_int_equal(rf_run_info(run)->file_bytes, st.st_size);
        assert_int_equal(fstatat(f->dir, "r.tmp", &st, 0), -1);
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(rf_run_find(run, &entries[i].ref, &found, NULL), RF_OK);
            expect_entry(&found, &entries[i]);
            other = entries[i];
            other.ref.digest[31] ^= 1;
            assert_int_equal(rf_run_find(run, &other.ref, &found, NULL), RF_NOT_FOUND);
        }
        for (int i = 0; i < 500; i++) {
            random_entry(&other, 1);
            assert_int_equal(rf_run_find(run, &other.ref, &found, NULL), RF_NOT_FOUND);
        }
        expect_prefixes(run, entries, count);
        rf_run_close(run);
        free(entries);
    }
}

/* Digests someone chose: all alike but for the end. */
static void finds_among_chosen_digests(void **state)
{
    struct fixture *f = *state;
    size_t count = 3000;
    struct rf_run_entry *entries = random_entries(count, 1), found;
    struct rf_run *run;

    for (size_t i = 0; i < count; i++) {
        memset(entries[i].ref.digest, i < 2990 ? 0x7f : 0x80, 32);
        rf_put_u16(entries[i].ref.digest + 29, (uint16_t)random_next());
        entries[i].ref.digest[31] = (uint8_t)i;
        entries[i].ref.digest[28] = (uint8_t)(i >> 8);
    }
    qsort(entries, count, sizeof *entries, by_ref);
    write_run(f->dir, "r", entries, count, 1);
    run = open_run(f->dir, "r");
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(rf_run_find(run, &entries[i].ref, &found, NULL), RF_OK);
        expect_entry(&found, &entries[i]);
    }
    rf_run_close(run);
    free(entries);
}

static void walks_from_anywhere(void **state)
{
    struct fixture *f = *state;
    size_t count = 3000;
    struct rf_run_entry *entries = random_entries(count, 1), got, key;
    struct rf_run *run;
    struct rf_run_cursor *cursor;

    write_run(f->dir, "r", entries, count, 1);
    run = open_run(f->dir, "r");
    for (int round = 0; round < 60; round++) {
        size_t at = 0;
        random_entry(&key, 1);
        if (round % 2)
            key = entries[random_next() % count];
        if (round == 3)
            key = entries[count - 1];
        while (round > 0 && at < count && rf_blobref_compare(&entries[at].ref, &key.ref) <= 0)
            at++;
        assert_int_equal(rf_run_cursor_open(&cursor, &run, 1, round ? &key.ref : NULL, NULL),
                         RF_OK);
        for (; at < count; at++) {
            assert_int_equal(rf_run_cursor_next(cursor, &got, NULL), RF_OK);
            expect_entry(&got, &entries[at]);
        }
        assert_int_equal(rf_run_cursor_next(cursor, &got, NULL), RF_END);
        assert_int_equal(rf_run_cursor_next(cursor, &got, NULL), RF_END);
        rf_run_cursor_close(cursor);
    }
    rf_run_close(run);
    free(entries);
}

static void merges_as_an_array_would(void **state)
{
    struct fixture *f = *state;
    enum { RUNS = 7, EACH = 1500 };
    struct rf_run *runs[RUNS], *merged;
    struct rf_run_entry *all = calloc(RUNS * EACH, sizeof *all), *pool = random_entries(3000, 1),
        got;
    struct rf_run_cursor *cursor;
    struct rf_error err = {0};
    size_t kept = 0;

    assert_non_null(all);
    for (int r = 0; r < RUNS; r++) {
        struct rf_run_entry *some = calloc(EACH, sizeof *some);
        char name[16];
        size_t count = 0;
        assert_non_null(some);
        for (size_t i = 0; i < 3000 && count < EACH; i++)
            if (random_next() % 2) { /* some refs again and again */
                random_entry(&some[count], (uint64_t)r * EACH + 1 + count);
                some[count].ref = pool[i].ref;
                count++;
            }
        memcpy(all + kept, some, count * sizeof *some);
        kept += count;
        snprintf(name, sizeof name, "r%d", r);
        write_run(f->dir, name, some, count, (uint64_t)r * EACH + 1);
        runs[r] = open_run(f->dir, name);
        free(some);
    }
    qsort(all, kept, sizeof *all, by_ref);
    for (int drop = 0; drop < 2; drop++) {
        uint64_t given = 0;
        if (rf_run_merge(f->dir, "m", runs, RUNS, drop, false, &err) != RF_OK)
            fail_msg("%s", err.message);
        merged = open_run(f->dir, "m");
        assert_int_equal(rf_run_cursor_open(&cursor, &merged, 1, NULL, NULL), RF_OK);
        for (size_t i = 0; i < kept; i++) {
            if (i > 0 && rf_blobref_equal(&all[i].ref, &all[i - 1].ref))
                continue;
            if (drop && (all[i].flags & RF_RUN_DELETE))
                continue;
            assert_int_equal(rf_run_cursor_next(cursor, &got, NULL), RF_OK);
            expect_entry(&got, &all[i]);
            given++;
        }
        assert_int_equal(rf_run_cursor_next(cursor, &got, NULL), RF_END);
        assert_int_equal(rf_run_info(merged)->count, given);
        /* Every run took part of segment 1, and each range touches or follows the one before. */
        assert_true(rf_run_info(merged)->source_count <= RUNS);
        assert_int_equal(rf_run_info(merged)->sources[0].from_seq, 1);
        rf_run_cursor_close(cursor);
        rf_run_close(merged);
    }
    for (int r = 0; r < RUNS; r++)
        rf_run_close(runs[r]);
    free(all);
    free(pool);
}

static void sources_that_touch_become_one(void **state)
{
    struct fixture *f = *state;
    static const struct rf_run_source parts[3][2] = {{{1, 1, 10}, {11, 11, 20}},
                                                     {{11, 21, 30}, {31, 31, 35}},
                                                         {{31, 40, 50}, {0}}};
    struct rf_run *runs[3], *merged;
    struct rf_run_writer *writer;
    const struct rf_run_info *info;
    char name[16];

    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "s%d", i);
        assert_int_equal(rf_run_create(&writer, f->dir, name, parts[i], i < 2 ? 2 : 1, NULL),
                         RF_OK);
        assert_int_equal(rf_run_commit(writer, true, NULL), RF_OK);
        rf_run_writer_free(writer);
        runs[2 - i] = open_run(f->dir, name);
    }
    assert_int_equal(rf_run_merge(f->dir, "m", runs, 3, true, true, NULL), RF_OK);
    merged = open_run(f->dir, "m");
    info = rf_run_info(merged);
    assert_int_equal(info->source_count, 4);
    assert_true(info->sources[1].segment == 11 && info->sources[1].from_seq == 11 &&
                info->sources[1].to_seq == 30);
    assert_true(info->sources[2].segment == 31 && info->sources[2].to_seq == 35);
    assert_true(info->sources[3].segment == 31 && info->sources[3].from_seq == 40);
    rf_run_close(merged);
    for (int i = 0; i < 3; i++)
        rf_run_close(runs[i]);
}

static void what_is_not_committed_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    struct rf_run_writer *writer;
    struct rf_run_entry *entries = random_entries(100, 1);
    struct rf_run *run;
    struct stat st;

    assert_int_equal(rf_run_create(&writer, f->dir, "u", NULL, 0, NULL), RF_OK);
    for (int i = 0; i < 100; i++)
        assert_int_equal(rf_run_add(writer, &entries[i], NULL), RF_OK);
    assert_int_equal(fstatat(f->dir, "u.tmp", &st, 0), 0);
    rf_run_writer_free(writer);
    assert_int_equal(fstatat(f->dir, "u.tmp", &st, 0), -1);
    assert_int_equal(rf_run_open(&run, f->dir, "u", NULL), RF_NOT_FOUND);
    free(entries);
}

/* ---- damage ---- */

static uint8_t *read_file(int dir, const char *name, size_t *size)
{
    struct stat st;
    int fd = openat(dir, name, O_RDONLY);
    uint8_t *data;

    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    *size = (size_t)st.st_size;
    data = malloc(*size + 1);
    assert_int_equal(read(fd, data, *size), *size);
    close(fd);
    return data;
}

static void write_file(int dir, const char *name, const uint8_t *data, size_t size)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    close(fd);
}

/* Nothing a run answers may be wrong: it is right, or RF_CORRUPT in words that name the run. True
 * when any damage was seen. */
static bool is_honest(int dir, const char *name, const struct rf_run_entry *entries, size_t count)
{
    struct rf_run *run;
    struct rf_run_entry found, other;
    struct rf_run_cursor *cursor;
    struct rf_error err = {0};
    enum rf_status status = rf_run_open(&run, dir, name, &err);
    bool seen = false;
    size_t i = 0;

    if (status != RF_OK) {
        assert_true(status == RF_CORRUPT || status == RF_UNSUPPORTED);
        assert_non_null(strstr(err.message, name));
        return true;
    }
    for (i = 0; i < count; i += 7) {
        rf_error_clear(&err);
        status = rf_run_find(run, &entries[i].ref, &found, &err);
        if (status == RF_OK) {
            expect_entry(&found, &entries[i]);
        } else {
            if (status != RF_CORRUPT || !strstr(err.message, name) || !strstr(err.message, "page"))
                fail_msg("%s: '%s'", rf_status_name(status), err.message);
            seen = true;
        }
        other = entries[i];
        other.ref.digest[30] ^= 1;
        status = rf_run_find(run, &other.ref, &found, NULL);
        assert_true(status == RF_NOT_FOUND || status == RF_CORRUPT);
    }
    status = rf_run_cursor_open(&cursor, &run, 1, NULL, NULL);
    for (i = 0; status == RF_OK && (status = rf_run_cursor_next(cursor, &found,
                                                                NULL)) == RF_OK; i++)
        expect_entry(&found, &entries[i]);
    seen |= status == RF_CORRUPT;
    if (status == RF_END)
        assert_int_equal(i, count);
    if (status == RF_END || i > 0)
        rf_run_cursor_close(cursor);
    rf_run_close(run);
    return seen;
}

static void a_flipped_bit_is_seen(void **state)
{
    struct fixture *f = *state;
    size_t count = 130, size;
    struct rf_run_entry *entries = random_entries(count, 1);
    uint8_t *data;

    write_run(f->dir, "good", entries, count, 1);
    data = read_file(f->dir, "good", &size);
    assert_false(is_honest(f->dir, "good", entries, count));
    for (int i = 0; i < 1500; i++) {
        size_t at = random_next() % size;
        uint8_t bit = (uint8_t)(1 << random_next() % 8);
        data[at] ^= bit;
        write_file(f->dir, "bad", data, size);
        if (!is_honest(f->dir, "bad", entries, count))
            fail_msg("bit %#x of byte %zu flipped, and nobody saw", bit, at);
        data[at] ^= bit;
    }
    free(data);
    free(entries);
}

static void a_cut_or_longer_file_is_seen(void **state)
{
    struct fixture *f = *state;
    size_t count = 130, size;
    struct rf_run_entry *entries = random_entries(count, 1);
    uint8_t *data;

    write_run(f->dir, "good", entries, count, 1);
    data = read_file(f->dir, "good", &size);
    for (size_t cut = 0; cut < size; cut += 1 + random_next() % 200) {
        write_file(f->dir, "bad", data, cut);
        assert_true(is_honest(f->dir, "bad", entries, count));
    }
    data[size] = 0;
    write_file(f->dir, "bad", data, size + 1);
    assert_true(is_honest(f->dir, "bad", entries, count));
    free(data);
    free(entries);
}

/* A run that was often searched in vain keeps the filter it made: no page is read for most of what
 * is not there, and none of what is there is missed. */
static void what_is_not_there_is_known_without_reading(void **state)
{
    enum { COUNT = 5000, TRIES = 2000 };
    struct fixture *f = *state;
    struct rf_run_entry *entries = random_entries(COUNT, 1), other;
    unsigned read = 0;
    struct rf_run *run;

    write_run(f->dir, "run", entries, COUNT, 1);
    run = open_run(f->dir, "run");
    for (int i = 0; i < TRIES; i++) {
        random_entry(&other, 0);
        assert_int_equal(rf_run_find(run, &other.ref, &other, NULL), RF_NOT_FOUND);
    }
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(rf_run_find(run, &entries[i].ref, &other, NULL), RF_OK);
        expect_entry(&other, &entries[i]);
    }
    write_file(f->dir, "run", (const uint8_t *)"", 0);
    for (int i = 0; i < TRIES; i++) {
        random_entry(&other, 0);
        read += rf_run_find(run, &other.ref, &other, NULL) != RF_NOT_FOUND;
    }
    assert_true(read < TRIES / 20);
    for (size_t i = 0; i < COUNT; i++)
        assert_int_not_equal(rf_run_find(run, &entries[i].ref, &other, NULL), RF_NOT_FOUND);
    rf_run_close(run);
    free(entries);
}

/* Cut while it is open: an error, no signal. */
static void a_file_cut_while_open_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct rf_run_entry *entries = random_entries(5000, 1), found;
    struct rf_run *run;
    struct rf_error err = {0};
    int fd;

    write_run(f->dir, "r", entries, 5000, 1);
    run = open_run(f->dir, "r");
    fd = openat(f->dir, "r", O_WRONLY);
    assert_int_equal(ftruncate(fd, 5000), 0);
    close(fd);
    assert_int_equal(rf_run_find(run, &entries[4999].ref, &found, &err), RF_CORRUPT);
    assert_non_null(strstr(err.message, "'r' ends too early"));
    rf_run_close(run);
    free(entries);
}

/* Pages of another place, and of another run's same place, have sound bytes of their own. */
static void a_page_written_astray_is_seen(void **state)
{
    struct fixture *f = *state;
    size_t count = 300, size, other_size;
    struct rf_run_entry *entries = random_entries(count, 1), *others = random_entries(count, 1000);
    uint8_t *data, *other, keep[4096];

    write_run(f->dir, "good", entries, count, 1);
    write_run(f->dir, "other", others, count, 1000);
    data = read_file(f->dir, "good", &size);
    other = read_file(f->dir, "other", &other_size);
    assert_int_equal(size, other_size);
    memcpy(keep, data + 4096, 4096);
    memcpy(data + 4096, data + 8192, 4096);
    write_file(f->dir, "bad", data, size);
    assert_true(is_honest(f->dir, "bad", entries, count));
    memcpy(data + 4096, other + 4096, 4096);
    write_file(f->dir, "bad", data, size);
    assert_true(is_honest(f->dir, "bad", entries, count));
    memcpy(data + 4096, keep, 4096);
    write_file(f->dir, "bad", data, size);
    assert_false(is_honest(f->dir, "bad", entries, count));
    free(data);
    free(other);
    free(entries);
    free(others);
}

/* A disk that is full must not leave a run behind: /dev/full stands in through a link. */
static void a_full_disk_is_told(void **state)
{
    struct fixture *f = *state;
    struct rf_run_writer *writer;
    struct rf_run_entry *entries = random_entries(2000, 1);
    struct rf_error err = {0};
    enum rf_status status = RF_OK;
    struct rf_run *run;

    assert_int_equal(symlinkat("/dev/full", f->dir, "x.tmp"), 0);
    assert_int_equal(rf_run_create(&writer, f->dir, "x", NULL, 0, NULL), RF_OK);
    for (int i = 0; i < 2000 && status == RF_OK; i++)
        status = rf_run_add(writer, &entries[i], &err);
    assert_int_equal(status, RF_IO);
    assert_string_equal(err.message, "cannot write lookup run 'x.tmp': No space left on device");
    rf_run_writer_free(writer);
    assert_int_equal(rf_run_open(&run, f->dir, "x", NULL), RF_NOT_FOUND);
    free(entries);
}

/* ---- the format ---- */

/* The run of the format page: three blobs and a tombstone. Written with REFUGE_GOLDEN=write. */
static void bytes_are_those_of_the_format_page(void **state)
{
    struct fixture *f = *state;
    static const char *const texts[] = {"abc", "", "hello\n", "gone"};
    static const struct rf_run_source sources[] = {{1, 1, 3}, {4, 4, 6}};
    struct rf_run_entry entries[4] = {
        {.life = 1, .seq = 1, .size = 3, .timestamp_us = 1700000000000001, .segment = 1, .offset =
         96, .stored = 3},
        {.life = 1, .seq = 2, .size = 0, .timestamp_us = 1700000000000002, .segment = 1, .offset =
         200, .flags = RF_RUN_PART},
        {.life = 3, .seq = 5, .size = 6, .timestamp_us = 1700000000000005, .segment = 4, .offset =
         200, .stored = 6},
        {.life = 2, .seq = 6, .size = 4, .timestamp_us = 1700000000000006, .segment = 4, .offset =
         304, .flags = RF_RUN_DELETE},
    };
    const char *golden = RF_SOURCE_DIR "/tests/format/run-1.golden", *mode =
        getenv("REFUGE_GOLDEN");
    struct rf_run_writer *writer;
    uint8_t *got, *want;
    size_t got_size, want_size;

    for (int i = 0; i < 4; i++)
        rf_blobref_of(&entries[i].ref, rf_bytes_text(texts[i]));
    qsort(entries, 4, sizeof *entries, by_ref);
    assert_int_equal(rf_run_create(&writer, f->dir, "g", sources, 2, NULL), RF_OK);
    for (int i = 0; i < 4; i++)
        assert_int_equal(rf_run_add(writer, &entries[i], NULL), RF_OK);
    assert_int_equal(rf_run_commit(writer, false, NULL), RF_OK);
    rf_run_writer_free(writer);
    got = read_file(f->dir, "g", &got_size);
    if (mode && strcmp(mode, "write") == 0)
        write_file(AT_FDCWD, golden, got, got_size);
    want = read_file(AT_FDCWD, golden, &want_size);
    assert_int_equal(got_size, want_size);
    assert_memory_equal(got, want, want_size);
    free(got);
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(finds_what_was_written, set_up, tear_down),
        cmocka_unit_test_setup_teardown(finds_among_chosen_digests, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_not_there_is_known_without_reading, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(walks_from_anywhere, set_up, tear_down),
        cmocka_unit_test_setup_teardown(merges_as_an_array_would, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sources_that_touch_become_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_not_committed_leaves_nothing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_flipped_bit_is_seen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_cut_or_longer_file_is_seen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_cut_while_open_is_an_error, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_page_written_astray_is_seen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_full_disk_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(bytes_are_those_of_the_format_page, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
