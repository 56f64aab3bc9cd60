/* test_compare.c - comparing an index whose server goes away says nothing of the index */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "sinks/canonical.h"

/* An index without mappers that has one item; it fails at the call named. */
struct fake {
    struct rf_canon base;
    enum { FAILS_NEVER, FAILS_BEGIN, FAILS_NEXT, FAILS_CHECK } fails;
    enum rf_status status;
    enum rf_canon_kind kind;
    bool given;
};

static struct fake *of(struct rf_canon *canon)
{
    return (struct fake *)canon;
}

static enum rf_status refuse(struct fake *fake, struct rf_error *err)
{
    return rf_error_set(err, fake->status, "refused");
}

static enum rf_status fake_mappers(struct rf_canon *canon, const struct rf_canon_mapper **out,
                                   size_t *count, struct rf_error *err)
{
    (void)canon;
    (void)err;
    *out = NULL;
    *count = 0;
    return RF_OK;
}

static enum rf_status fake_undecided(struct rf_canon *canon,
                                     enum rf_status (*visit)(void *user, const char *item,
                                                             const char *mapper, bool parked),
                                     void *user, struct rf_error *err)
{
    (void)canon;
    (void)visit;
    (void)user;
    (void)err;
    return RF_OK;
}

static enum rf_status fake_left_out(struct rf_canon *canon, uint64_t *limited, uint64_t *parked,
                                    struct rf_error *err)
{
    (void)canon;
    (void)err;
    *limited = *parked = 0;
    return RF_OK;
}

static enum rf_status fake_beneath(struct rf_canon *canon,
                                   enum rf_status (*visit)(void *user, const char *item),
                                   void *user, struct rf_error *err)
{
    (void)canon;
    (void)visit;
    (void)user;
    (void)err;
    return RF_OK;
}

static enum rf_status fake_begin(struct rf_canon *canon, const struct rf_canon_stream *stream,
                                 struct rf_error *err)
{
    struct fake *fake = of(canon);

    fake->kind = stream->kind;
    fake->given = false;
    return fake->fails == FAILS_BEGIN && fake->kind == RF_CANON_ITEMS ? refuse(fake, err) : RF_OK;
}

static enum rf_status fake_next(struct rf_canon *canon, const struct rf_cell **cells,
                                struct rf_error *err)
{
    static struct rf_cell row[8] = {{.type = RF_CELL_TEXT}};
    struct fake *fake = of(canon);

    if (fake->kind != RF_CANON_ITEMS || fake->given)
        return RF_END;
    if (fake->fails == FAILS_NEXT)
        return refuse(fake, err);
    row[0].text = rf_bytes_text("item");
    fake->given = true;
    *cells = row;
    return RF_OK;
}

static void fake_end(struct rf_canon *canon)
{
    (void)canon;
}

static enum rf_status fake_check(struct rf_canon *canon, rf_canon_tell tell, void *user,
                                 struct rf_error *err)
{
    struct fake *fake = of(canon);

    (void)tell;
    (void)user;
    return fake->fails == FAILS_CHECK ? refuse(fake, err) : RF_OK;
}

static const struct rf_canon_ops fake_ops = {
    .mappers = fake_mappers,
    .undecided = fake_undecided,
    .left_out = fake_left_out,
    .beneath = fake_beneath,
    .begin = fake_begin,
    .next = fake_next,
    .end = fake_end,
    .check = fake_check,
};

static void count_line(void *user, const char *line)
{
    (void)line;
    ++*(unsigned *)user;
}

static enum rf_status compare(int fails, enum rf_status status, unsigned *lines,
                              struct rf_error *err)
{
    struct fake is = {.base.ops = &fake_ops, .fails = fails, .status = status};
    struct fake should = {.base.ops = &fake_ops};
    struct rf_compare_options options = {.problem = count_line, .user = lines};
    struct rf_compare_report report;

    *lines = 0;
    return rf_canon_compare(&is.base, "here", &should.base, &options, &report, err);
}

static void what_cannot_be_read_is_a_difference(void **state)
{
    unsigned lines;

    (void)state;
    assert_int_equal(compare(FAILS_NEVER, RF_OK, &lines, NULL), RF_OK);
    for (int fails = FAILS_BEGIN; fails <= FAILS_CHECK; fails++) {
        struct rf_error err = {0};

        assert_int_equal(compare(fails, RF_CORRUPT, &lines, &err), RF_CORRUPT);
        assert_true(lines > 0);
        assert_non_null(strstr(err.message, "index 'here' is not what its blobs"));
    }
}

static void a_server_that_goes_away_is_none(void **state)
{
    unsigned lines;

    (void)state;
    for (int fails = FAILS_BEGIN; fails <= FAILS_CHECK; fails++) {
        struct rf_error err = {0};

        assert_int_equal(compare(fails, RF_UNAVAILABLE, &lines, &err), RF_UNAVAILABLE);
        assert_int_equal(lines, 0);
        assert_string_equal(err.message, "refused");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_read_is_a_difference),
        cmocka_unit_test(a_server_that_goes_away_is_none),
    };

    return cmocka_run_group_tests_name("compare", tests, NULL, NULL);
}
