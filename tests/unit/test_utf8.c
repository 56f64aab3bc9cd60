/* test_utf8.c - what is text, and how the rest is cleaned */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/utf8.h"

/* The oracle: decode by value, then ask whether encoding it again gives the same bytes. */
static size_t reference_sequence(const uint8_t *p, size_t left)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t need = p[0] < 0x80 ? 1 : (p[0] >> 5) == 6 ? 2 : (p[0] >> 4) == 14 ? 3 : 4;
    uint32_t code = need == 1 ? p[0] : p[0] & (0xffu >> (need + 1));

    if (need == 4 && (p[0] >> 3) != 30)
        return 0;
    if (need > left)
        return 0;
    for (size_t i = 1; i < need; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3fu);
    }
    if (code < least[need] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        return 0;
    return need;
}

static void every_two_and_three_bytes(void **state)
{
    uint8_t text[4];

    (void)state;
    for (uint32_t n = 0; n < 1u << 24; n += n < 0x10000 ? 1 : 7) {
        size_t size = n < 0x10000 ? 2 : 3, want = 0, one;
        text[0] = (uint8_t)n;
        text[1] = (uint8_t)(n >> 8);
        text[2] = (uint8_t)(n >> 16);
        while (want < size && (one = reference_sequence(text + want, size - want)) > 0)
            want += one;
        if (rf_utf8_valid(rf_bytes(text, size)) != want)
            fail_msg("%02x %02x %02x: not %zu", text[0], text[1], text[2], want);
    }
    for (uint32_t n = 0; n < 1u << 16; n++) { /* the first two of four decide */
        memcpy(text, (uint8_t[]){(uint8_t)(0xf0 | (n & 15)), (uint8_t)(n >> 8), 0xbf, 0x80}, 4);
        if (rf_utf8_valid(rf_bytes(text, 4)) != reference_sequence(text, 4) &&
            reference_sequence(text, 4) == 4)
            fail_msg("%02x %02x bf 80", text[0], text[1]);
    }
}

static void finds_a_bad_byte_wherever_it_stands(void **state)
{
    uint8_t text[70];

    (void)state;
    for (size_t size = 1; size < sizeof text; size++)
        for (size_t at = 0; at < size; at++) {
            memset(text, 'a', sizeof text);
            text[at] = 0x80;
            assert_int_equal(rf_utf8_valid(rf_bytes(text, size)), at);
        }
    assert_int_equal(rf_utf8_valid(rf_bytes(NULL, 0)), 0);
}

static void expect_clean(const char *in, size_t size, const char *want, bool replaced, bool dropped)
{
    struct rf_buf buf;
    bool r = false, d = false;

    rf_buf_init(&buf, 1000);
    rf_utf8_clean(&buf, rf_bytes(in, size), true, &r, &d);
    assert_string_equal(rf_buf_text(&buf), want);
    assert_int_equal(r, replaced);
    assert_int_equal(d, dropped);
    rf_buf_release(&buf);
}

#define R "\xef\xbf\xbd"
static void cleans(void **state)
{
    struct rf_buf buf;

    (void)state;
    expect_clean("plain", 5, "plain", false, false);
    expect_clean("", 0, "", false, false);
    expect_clean("a\0\0b", 4, "ab", false, true);
    expect_clean("\xc3\xa9\xff", 3, "\xc3\xa9" R, true, false);
    /* The standard's own example (Unicode 15, table 3-11): one mark per maximal part. */
    expect_clean("\x61\xf1\x80\x80\xe1\x80\xc2\x62\x80\x63\x80\xbf\x64", 13,
                 "a" R R R "b" R "c" R R "d", true, false);
    expect_clean("\xed\xa0\x80", 3, R R R, true, false); /* table 3-9: a surrogate is three */
    expect_clean("x\xf0\x9f\x98", 4, "x" R, true, false);
    expect_clean("\xff\0", 2, R, true, true);
    rf_buf_init(&buf, 10);
    rf_utf8_clean(&buf, rf_bytes("a\0b", 3), false, NULL, NULL);
    assert_int_equal(buf.size, 3);
    rf_buf_release(&buf);
}

static void cuts_between_characters(void **state)
{
    struct rf_bytes text = rf_bytes_text("a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    static const size_t want[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10};

    (void)state;
    for (size_t max = 0; max < sizeof want / sizeof *want; max++)
        assert_int_equal(rf_utf8_cut(text, max), want[max]);
}

static void what_is_cut_shows_it(void **state)
{
    char text[2 * RF_SHORT_SIZE + 1], out[RF_SHORT_SIZE];
    size_t size = sizeof text - 1;

    (void)state;
    memset(text, 'a', size);
    text[size] = '\0';
    assert_string_equal(rf_utf8_short(out, text + size - RF_SHORT_SIZE + 1),
                        text + size - RF_SHORT_SIZE + 1);
    rf_utf8_short(out, text);
    assert_int_equal(strlen(out), RF_SHORT_SIZE - 1);
    assert_string_equal(out + RF_SHORT_SIZE - 5, "a…");
    for (size_t i = 0; i < size; i += 2)
        memcpy(text + i, "\xc3\xa9", 2);
    rf_utf8_short(out, text + 1); /* cut in the middle of one */
    assert_string_equal(out + strlen(out) - 5, "\xc3\xa9…");
    rf_utf8_short(out, text);
    assert_string_equal(out + strlen(out) - 5, "\xc3\xa9…");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_two_and_three_bytes),
        cmocka_unit_test(finds_a_bad_byte_wherever_it_stands),
        cmocka_unit_test(cleans),
        cmocka_unit_test(cuts_between_characters),
        cmocka_unit_test(what_is_cut_shows_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
