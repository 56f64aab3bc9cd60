/* test_row.c - records of a call: written, read back, and doubted */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "core/row.h"

static const char decl_json[] =
    "{\"name\":\"m\",\"splits\":true,\"limits\":{\"rows\":3,\"parts\":2,\"output_mb\":1},"
    "\"tables\":["
    "{\"name\":\"none\",\"columns\":[{\"name\":\"i\",\"type\":\"int\"}]},"
    "{\"name\":\"all\",\"columns\":[{\"name\":\"i\",\"type\":\"int\"},{\"name\":\"f\","
    "\"type\":\"float\"},"
    "{\"name\":\"b\",\"type\":\"bool\"},{\"name\":\"s\",\"type\":\"text\"},{\"name\":\"j\","
    "\"type\":\"json\"},"
    "{\"name\":\"t\",\"type\":\"time\"},{\"name\":\"r\",\"type\":\"blobref\"}]}]}";

struct fixture {
    struct rf_arena arena;
    struct rf_decl *decl;
    struct rf_buf buf;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);

    rf_arena_init(&fixture->arena, 1 << 20);
    rf_buf_init(&fixture->buf, 64 << 20);
    *state = fixture;
    return rf_decl_parse(&fixture->decl, &fixture->arena, rf_bytes_text(decl_json), NULL);
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    rf_arena_release(&fixture->arena);
    rf_buf_release(&fixture->buf);
    free(fixture);
    return 0;
}

static void put_range(struct fixture *f, uint64_t offset, uint64_t size, struct rf_bytes media,
                      struct rf_bytes name)
{
    rf_part_put_range(&f->buf, rf_bytes(NULL, 0), offset, size, media, name);
}

static void put_row(struct rf_buf *buf)
{
    struct rf_value values[7] = {
        {.type = RF_TYPE_INT, .integer = INT64_MIN},
        {.type = RF_TYPE_FLOAT, .real = -1.5},
        {.type = RF_TYPE_BOOL, .boolean = true},
        {.type = RF_TYPE_TEXT, .text = rf_bytes_text("\xc3\xa9t\xc3\xa9")},
        {.type = RF_TYPE_JSON, .text = rf_bytes_text("{\"a\":[1,2]}")},
        {.type = RF_TYPE_TIME, .integer = RF_TIME_MAX, .offset_minutes = -90},
        {.type = RF_TYPE_BLOBREF},
    };

    rf_blobref_of(&values[6].ref, rf_bytes_text("abc"));
    rf_row_begin(buf, 1, 7);
    for (int i = 0; i < 7; i++)
        rf_row_put(buf, &values[i]);
}

static void a_range_may_have_a_head(void **state)
{
    struct fixture *f = *state;
    struct rf_bytes none = rf_bytes(NULL, 0);
    struct rf_output_reader reader;
    struct rf_record record;
    uint8_t *large = calloc(1, RF_PART_HEAD_MAX + 1);

    rf_part_put_range(&f->buf, rf_bytes_text("a,b\n"), 10, 90, rf_bytes_text("text/csv"), none);
    rf_output_init(&reader, rf_buf_bytes(&f->buf), f->decl, 100);
    assert_int_equal(rf_output_next(&reader, &record, NULL), RF_OK);
    assert_false(record.inlined);
    assert_true(rf_bytes_equal(record.head, rf_bytes_text("a,b\n")));
    assert_int_equal(record.offset, 10);
    assert_int_equal(record.size, 90);
    rf_output_release(&reader);
    rf_buf_clear(&f->buf);
    rf_part_put_range(&f->buf, rf_bytes(large, RF_PART_HEAD_MAX + 1), 0, 1,
                      rf_bytes_text("text/csv"), none);
    rf_output_init(&reader, rf_buf_bytes(&f->buf), f->decl, 100);
    assert_int_not_equal(rf_output_next(&reader, &record, NULL), RF_OK);
    rf_output_release(&reader);
    free(large);
}

static void reads_back_what_was_written(void **state)
{
    struct fixture *f = *state;
    struct rf_output_reader reader;
    struct rf_record record;
    struct rf_value null = {0};
    struct rf_blobref ref;

    rf_blobref_of(&ref, rf_bytes_text("abc"));
    put_row(&f->buf);
    rf_cut_put(&f->buf, 1, 3, 0, RF_CUT_UTF8);
    rf_row_begin(&f->buf, 0, 1);
    rf_row_put(&f->buf, &null);
    put_range(f, 10, 90, rf_bytes_text("message/rfc822"), rf_bytes_text("1.eml"));
    rf_part_put_bytes(&f->buf, rf_bytes_text("x\0y"), rf_bytes_text("text/plain; charset=utf-8"),
                      rf_bytes(NULL, 0));
    rf_need_put(&f->buf, &ref, true);
    assert_int_equal(f->buf.failed, RF_OK);

    rf_output_init(&reader, rf_buf_bytes(&f->buf), f->decl, 100);
    assert_int_equal(rf_output_next(&reader, &record, NULL), RF_OK);
    assert_int_equal(record.kind, RF_RECORD_ROW);
    assert_int_equal(record.table, 1);
    assert_int_equal(record.column_count, 7);
    assert_true(record.values[0].integer == INT64_MIN);
    assert_true(record.values[1].real == -1.5);
    assert_true(record.values[2].type == RF_TYPE_BOOL && record.values[2].boolean);
    assert_true(rf_bytes_equal(record.values[3].text, rf_bytes_text("\xc3\xa9t\xc3\xa9")));
    assert_true(rf_bytes_equal(record.values[4].text, rf_bytes_text("{\"a\":[1,2]}")));
    assert_true(record.values[5].integer == RF_TIME_MAX && record.values[5].offset_minutes == -90);
    assert_true(rf_blobref_equal(&record.values[6].ref, &ref));
    assert_int_equal(rf_output_next(&reader, &record, NULL), RF_OK);
    assert_int_equal(record.kind, RF_RECORD_CUT);
    assert_true(record.table == 1 && record.column == 3 && record.row == 0 &&
                record.cut == RF_CUT_UTF8);
    assert_int_equal(rf_output_next(&reader, &record, NULL), RF_OK);
    assert_int_equal(record.values[0].type, 0);
    assert_int_equal(rf_output_next(&reader, &record, NULL), RF_OK);
    assert_true(!record.inlined && record.offset == 10 && record.size == 90);
    assert_true(rf_bytes_equal(record.media, rf_bytes_text("message/rfc822")));
    assert_true(rf_bytes_equal(record.name, rf_bytes_text("1.eml")));
    assert_int_equal(rf_output_next(&reader, &record, NULL), RF_OK);
    assert_true(record.inlined && record.bytes.size == 1 && !record.name.data);
    assert_int_equal(rf_output_next(&reader, &record, NULL), RF_OK);
    assert_true(record.kind == RF_RECORD_NEED && record.present &&
                rf_blobref_equal(&record.ref, &ref));
    assert_int_equal(rf_output_next(&reader, &record, NULL), RF_END);
    assert_true(reader.rows == 2 && reader.parts == 2 && reader.needs == 1);
    rf_output_release(&reader);
}

/* Read all of the buffer; the status that ended it must be want, in these words. */
static void expect_end(struct fixture *f, enum rf_status want, const char *words)
{
    struct rf_output_reader reader;
    struct rf_record record;
    struct rf_error err = {0};
    enum rf_status status;
    uint8_t *copy = malloc(f->buf.size + !f->buf.size);

    assert_non_null(copy);
    memcpy(copy, f->buf.data, f->buf.size);
    rf_output_init(&reader, rf_bytes(copy, f->buf.size), f->decl, 100);
    while ((status = rf_output_next(&reader, &record, &err)) == RF_OK)
        ;
    if (status != want || !strstr(err.message, words))
        fail_msg("%s: '%s', not %s: '%s'", rf_status_name(status), err.message,
                 rf_status_name(want), words);
    assert_int_equal(rf_output_next(&reader, &record, &err), want);
    rf_output_release(&reader);
    rf_buf_clear(&f->buf);
    free(copy);
}

static void put_one(struct fixture *f, int column, const struct rf_value *value)
{
    struct rf_value null = {0};

    rf_row_begin(&f->buf, 1, 7);
    for (int i = 0; i < 7; i++)
        rf_row_put(&f->buf, i == column ? value : &null);
}

static void values_are_doubted(void **state)
{
    struct fixture *f = *state;
    struct rf_value value;
    static const double floats[] = {NAN, INFINITY, -INFINITY, -0.0};
    static const char *const texts[] = {"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\x80"};
    static const char *const jsons[] = {"", "{", "{\"a\":1} x", "nul", "\"\\ud800\""};

    for (int column = 0; column < 7; column++)
        for (unsigned type = 1; type < RF_TYPE_COUNT; type++) {
            value = (struct rf_value){.type = (enum rf_type)type};
            if (type == f->decl->tables[1].columns[column].type)
                continue;
            put_one(f, column, &value);
            expect_end(f, RF_INVALID, "is declared");
        }
    for (int i = 0; i < 4; i++) {
        value = (struct rf_value){.type = RF_TYPE_FLOAT, .real = floats[i]};
        put_one(f, 1, &value);
        expect_end(f, RF_INVALID, "column 'f' of table 'all', row 0: a float must be finite");
        value = (struct rf_value){.type = RF_TYPE_TEXT, .text = rf_bytes_text(texts[i])};
        put_one(f, 3, &value);
        expect_end(f, RF_INVALID, "column 's' of table 'all', row 0: not UTF-8");
    }
    value = (struct rf_value){.type = RF_TYPE_TEXT, .text = rf_bytes("a\0b", 3)};
    put_one(f, 3, &value);
    expect_end(f, RF_INVALID, "not UTF-8 text without NUL");
    for (int i = 0; i < 5; i++) {
        value = (struct rf_value){.type = RF_TYPE_JSON, .text = rf_bytes_text(jsons[i])};
        put_one(f, 4, &value);
        expect_end(f, RF_INVALID, "column 'j' of table 'all', row 0: line 1");
    }
    for (int i = 0; i < 4; i++) {
        value = (struct rf_value){.type = RF_TYPE_TIME,
                                  .integer = i == 0   ? RF_TIME_MIN - 1
                                             : i == 1 ? RF_TIME_MAX + 1
                                                      : 0,
                                  .offset_minutes = i == 2 ? 1440 : i == 3 ? -1440 : 0};
        put_one(f, 5, &value);
        expect_end(f, RF_INVALID, i < 2 ? "outside the years" : "a time offset of");
    }
    value = (struct rf_value){.type = RF_TYPE_BLOBREF, .ref = {.algo = 2}};
    put_one(f, 6, &value);
    expect_end(f, RF_INVALID, "unknown hash algorithm 2");
}

static void a_text_has_its_maximum(void **state)
{
    struct fixture *f = *state;
    char *long_ = malloc(RF_TEXT_MAX + 1);
    struct rf_value value = {.type = RF_TYPE_TEXT, .text = rf_bytes(long_, RF_TEXT_MAX + 1)};

    assert_non_null(long_);
    memset(long_, 'x', RF_TEXT_MAX + 1);
    f->decl->limits.output_mb = 16;
    put_one(f, 3, &value);
    expect_end(f, RF_LIMIT, "at most 4194304");
    value.text.size--;
    put_one(f, 3, &value);
    expect_end(f, RF_END, "");
    f->decl->limits.output_mb = 1;
    put_one(f, 3, &value);
    expect_end(f, RF_LIMIT, "more than 1 MB of output");
    free(long_);
}

static void counts_are_doubted(void **state)
{
    struct fixture *f = *state;
    struct rf_blobref ref = {.algo = RF_ALGO_SHA256};
    struct rf_value null = {0};

    for (int i = 0; i < 4; i++)
        put_row(&f->buf);
    expect_end(f, RF_LIMIT, "more than 3 rows");
    for (int i = 0; i < 3; i++)
        put_range(f, 0, 1, rf_bytes_text("a/b"), rf_bytes(NULL, 0));
    expect_end(f, RF_LIMIT, "more than 2 parts");
    for (int i = 0; i < RF_NEEDS_MAX + 1; i++)
        rf_need_put(&f->buf, &ref, false);
    expect_end(f, RF_LIMIT, "more than 1000 needed");
    rf_row_begin(&f->buf, 2, 1);
    rf_row_put(&f->buf, &null);
    expect_end(f, RF_INVALID, "a row for table 2 of 2");
    rf_row_begin(&f->buf, 0, 2);
    expect_end(f, RF_INVALID, "has 2 columns, not 1");
    rf_cut_put(&f->buf, 0, 0, 0, RF_CUT_NUL);
    expect_end(f, RF_INVALID, "which is not there");
    put_row(&f->buf);
    rf_cut_put(&f->buf, 1, 7, 0, RF_CUT_NUL);
    expect_end(f, RF_INVALID, "which is not there");
    put_row(&f->buf);
    rf_cut_put(&f->buf, 1, 6, 0, RF_CUT_COUNT);
    expect_end(f, RF_INVALID, "unknown kind 6 of cut");
    rf_buf_put_u8(&f->buf, 'X');
    expect_end(f, RF_INVALID, "unknown kind 88");
}

static void parts_are_doubted(void **state)
{
    struct fixture *f = *state;
    static const char *const medias[] = {"", "text", "/", "text/", "/plain", "a/b/c", "a/\xc3\xa9",
                                         "a/b\n"};
    static const uint64_t ranges[][2] = {{0, 101}, {100, 1}, {101, 0}, {UINT64_MAX, 2},
                                         {2, UINT64_MAX}, {UINT64_MAX, UINT64_MAX}};

    for (size_t i = 0; i < sizeof medias / sizeof *medias; i++) {
        put_range(f, 0, 1, rf_bytes_text(medias[i]), rf_bytes(NULL, 0));
        expect_end(f, RF_INVALID, "media type");
    }
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        put_range(f, ranges[i][0], ranges[i][1], rf_bytes_text("a/b"),
                          rf_bytes(NULL, 0));
        expect_end(f, RF_INVALID, "of content of 100");
    }
    put_range(f, 100, 0, rf_bytes_text("a/b"), rf_bytes_text(""));
    expect_end(f, RF_END, "");
    put_range(f, 0, 1, rf_bytes_text("a/b"), rf_bytes_text("\xff"));
    expect_end(f, RF_INVALID, "a part's name");
    f->decl->splits = false;
    put_range(f, 0, 1, rf_bytes_text("a/b"), rf_bytes(NULL, 0));
    expect_end(f, RF_INVALID, "does not declare 'splits'");
}

static void every_cut_off_output_is_refused(void **state)
{
    struct fixture *f = *state;
    struct rf_output_reader reader;
    struct rf_record record;
    struct rf_blobref ref = {.algo = RF_ALGO_SHA256};
    size_t ends[5], count = 0, size;
    enum rf_status status;

    put_row(&f->buf);
    ends[count++] = f->buf.size;
    rf_cut_put(&f->buf, 1, 0, 0, RF_CUT_LONG);
    ends[count++] = f->buf.size;
    rf_part_put_bytes(&f->buf, rf_bytes_text("bytes"), rf_bytes_text("a/b"), rf_bytes_text("name"));
    ends[count++] = f->buf.size;
    put_range(f, 1, 2, rf_bytes_text("a/b"), rf_bytes_text("name"));
    ends[count++] = f->buf.size;
    rf_need_put(&f->buf, &ref, true);
    ends[count++] = f->buf.size;
    for (size = 1; size < f->buf.size; size++) {
        uint8_t *copy = malloc(size);
        bool whole = false;
        assert_non_null(copy);
        memcpy(copy, f->buf.data, size);
        for (size_t i = 0; i < count; i++)
            whole |= ends[i] == size;
        rf_output_init(&reader, rf_bytes(copy, size), f->decl, 100);
        while ((status = rf_output_next(&reader, &record, NULL)) == RF_OK)
            ;
        assert_int_equal(status, whole ? RF_END : RF_INVALID);
        rf_output_release(&reader);
        free(copy);
    }
}

/* The oracle is the C library's gmtime_r, day by day over all ten thousand years. */
static void times_as_gmtime_says(void **state)
{
    char text[RF_TIME_TEXT_SIZE], want[100], years[64];
    struct tm tm;

    (void)state;
    for (int64_t day = RF_TIME_MIN / 86400000000; day <= RF_TIME_MAX / 86400000000; day += 2) {
        time_t seconds = (time_t)(day * 86400 + (day * 7919 % 86400 + 86400) % 86400);
        if (seconds < RF_TIME_MIN / 1000000)
            continue;
        assert_non_null(gmtime_r(&seconds, &tm));
        strftime(years, sizeof years, "-%m-%dT%H:%M:%S.000007Z", &tm);
        snprintf(want, sizeof want, "%04d%s", tm.tm_year + 1900, years);
        rf_time_format((int64_t)seconds * 1000000 + 7, text);
        assert_string_equal(text, want);
    }
    rf_time_format(RF_TIME_MIN, text);
    assert_string_equal(text, "0001-01-01T00:00:00.000000Z");
    rf_time_format(RF_TIME_MAX, text);
    assert_string_equal(text, "9999-12-31T23:59:59.999999Z");
    rf_time_format(-1, text);
    assert_string_equal(text, "1969-12-31T23:59:59.999999Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_back_what_was_written, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_range_may_have_a_head, set_up, tear_down),
        cmocka_unit_test_setup_teardown(values_are_doubted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_text_has_its_maximum, set_up, tear_down),
        cmocka_unit_test_setup_teardown(counts_are_doubted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(parts_are_doubted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_cut_off_output_is_refused, set_up, tear_down),
        cmocka_unit_test(times_as_gmtime_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
