/* test_json.c - the scanner, the tree, and RFC 8785 output */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/json.h"
#include "core/json_scan.h"

static bool parses(struct rf_bytes text, struct rf_error *err)
{
    struct rf_arena arena;
    const struct rf_json *value;
    enum rf_status status;

    rf_arena_init(&arena, 16 << 20);
    status = rf_json_parse(&value, &arena, text, err);
    rf_arena_release(&arena);
    return status == RF_OK;
}

/* The text in memory of exactly its size, so that ASan sees a byte read too much. */
static bool both_take(const char *text, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    struct rf_error err = {0}, parse_err = {0};
    bool checked, parsed;

    assert_non_null(copy);
    memcpy(copy, text, size);
    checked = rf_json_check(rf_bytes(copy, size), &err) == RF_OK;
    parsed = parses(rf_bytes(copy, size), &parse_err);
    if (checked != parsed && !strstr(parse_err.message, "two members"))
        fail_msg("check says %d, parse says %d: %.*s", checked, parsed, (int)size, text);
    if (!checked && strncmp(err.message, "line ", 5) != 0)
        fail_msg("no place in '%s'", err.message);
    free(copy);
    return checked;
}

static void takes_what_the_rfc_allows(void **state)
{
    static const char *const good[] = {
        "null", "true", " false ", "0", "-0", "-1", "1e5", "1E+5", "1.5e-3", "0.1",
            "123456789012345678901234567890",
        "\"\"", "\"a\"", "\"\\u0000\"", "\"\\ud83d\\ude00\"", "\"\\\\\\/\\\"\\b\\f\\n\\r\\t\"",
            "\"\x7f\"",
        "\"\xf0\x9f\x98\x80\xe2\x82\xac\xc3\xa9\"", "\"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\"",
        "[]", "[ ]", "{}", "{ }", "[1,2 , 3]", "[[],[[]],{}]", "{\"a\":1}",
            "{\"a\":{\"b\":[1,{\"c\":null}]},\"d\":\"\"}",
        "\t[\r\n1 ]\n", "{\"\":0}", "[\"0123456789abcdef0123456789abcdef\\n0123456789abcdefgh\"]",
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!both_take(good[i], strlen(good[i])))
            fail_msg("refused: %s", good[i]);
}

static void refuses_what_it_does_not(void **state)
{
    static const char *const bad[] = {
        "", " ", "nul", "nulll", "True", "01", "-01", "-", "+1", "1.", ".5", "1.e5", "1e", "1e+",
            "0x10", "NaN", "Infinity",
        "-Infinity", "1 2", "1,", "\"", "\"a", "\"\\\"", "\"\\", "\"\\a\"", "\"\\u12\"",
            "\"\\u123g\"", "\"\\ud800\"", "\"\\udc00\"",
        "\"\\ud800\\u0041\"", "\"\\ud800\\ud800\"", "\"\\ud83d\\ude0\"", "\"\n\"", "\"\t\"",
            "\"\x1f\"", "\"\xff\"", "\"\xc0\x80\"",
        "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\"", "\"\xe2\x82", "'a'", "[", "]",
            "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1}",
        "{", "}", "{1:2}", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{\"a\" 1}",
            "{\"a\":1 \"b\":2}", "{\"a\":1]", "[\"a\":1]",
        "\xef\xbb\xbf{}", "// c\n1", "/**/1", "[1]x", "{\"a\":1}}", "[[]", "\v1", "\f1",
            "\xc2\xa0 1", "{a:1}", "undefined",
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (both_take(bad[i], strlen(bad[i])))
            fail_msg("taken: %s", bad[i]);
    assert_false(both_take("[1]\0", 4));
    assert_false(both_take("\"a\0b\"", 5));
}

static void refuses_two_members_of_one_name(void **state)
{
    struct rf_error err = {0};
    char text[2000];
    size_t size = 0;

    (void)state;
    assert_false(parses(rf_bytes_text("{\"a\":1,\"b\":2,\"\\u0061\":3}"), &err));
    assert_non_null(strstr(err.message, "two members of one name"));
    assert_true(parses(rf_bytes_text("{\"a\":{\"a\":1},\"b\":{\"a\":1}}"), NULL));
    for (int twice = 0; twice < 2; twice++) {
        size = (size_t)snprintf(text, sizeof text, "{");
        for (int i = 0; i < 40; i++)
            size += (size_t)snprintf(text + size, sizeof text - size, "%s\"k%d\":1", i ? "," : "",
                                     twice && i == 33 ? 7 : i);
        size += (size_t)snprintf(text + size, sizeof text - size, "}");
        assert_int_equal(parses(rf_bytes(text, size), NULL), !twice);
    }
}

static void depth_is_bounded(void **state)
{
    size_t deep = 200000;
    char *text = malloc(2 * deep);
    struct rf_error err = {0};
    struct rf_json_scan scan;

    (void)state;
    assert_non_null(text);
    for (int kind = 0; kind < 2; kind++) {
        memset(text, '[', deep);
        memset(text + deep, ']', deep);
        rf_error_clear(&err);
        assert_int_equal(rf_json_check(rf_bytes(text, 2 * deep), &err), RF_LIMIT);
        assert_false(parses(rf_bytes(text, 2 * deep), NULL));
        rf_json_scan_init(&scan, rf_bytes(text, 2 * deep));
        assert_false(rf_json_skip_next(&scan));
        assert_int_equal(scan.status, RF_LIMIT);
    }
    assert_int_equal(rf_json_check(rf_bytes(text + deep - 1024, 2048), NULL), RF_OK);
    assert_int_equal(rf_json_check(rf_bytes(text + deep - 1025, 2050), NULL), RF_LIMIT);
    rf_json_scan_init(&scan, rf_bytes(text + deep - 1024, 2048));
    assert_true(rf_json_skip_next(&scan) && rf_json_scan_end(&scan));
    assert_true(parses(rf_bytes(text + deep - 128, 256), NULL));
    assert_false(parses(rf_bytes(text + deep - 129, 258), NULL));
    free(text);
}

static void arena_bounds_the_tree(void **state)
{
    struct rf_arena arena;
    const struct rf_json *value;
    struct rf_error err = {0};
    struct rf_buf text;

    (void)state;
    rf_buf_init(&text, 1 << 20);
    rf_buf_put_text(&text, "[0");
    for (int i = 0; i < 1000; i++)
        rf_buf_put_text(&text, ",0");
    rf_buf_put_text(&text, "]");
    rf_arena_init(&arena, 10000);
    assert_int_equal(rf_json_parse(&value, &arena, rf_buf_bytes(&text), &err), RF_LIMIT);
    assert_non_null(strstr(err.message, "larger than allowed"));
    rf_arena_release(&arena);
    rf_buf_release(&text);
}

static void builds_the_tree(void **state)
{
    static const char text[] =
        "{\n \"n\": -12, \"f\": 1.5e3,\n \"s\": \"a\\u0000\\ud83d\\ude00\\n\",\n"
                               " \"list\": [true,\n null, {\"x\": 9223372036854775807}], \"big\": "
                               "1e400}";
    struct rf_arena arena;
    const struct rf_json *root, *list;
    int64_t integer = 0;
    double real = 0;

    (void)state;
    rf_arena_init(&arena, 1 << 20);
    assert_int_equal(rf_json_parse(&root, &arena, rf_bytes_text(text), NULL), RF_OK);
    assert_int_equal(root->count, 5);
    assert_true(rf_json_int(rf_json_find(root, "n"), &integer));
    assert_int_equal(integer, -12);
    assert_false(rf_json_int(rf_json_find(root, "f"), &integer));
    assert_true(rf_json_double(rf_json_find(root, "f"), &real) && real == 1500);
    assert_false(rf_json_double(rf_json_find(root, "big"), &real));
    assert_int_equal(rf_json_find(root, "s")->text.size, 7);
    assert_memory_equal(rf_json_string(rf_json_find(root, "s")), "a\0\xf0\x9f\x98\x80\n", 8);
    list = rf_json_find(root, "list");
    assert_int_equal(list->count, 3);
    assert_int_equal(list->items[0].type, RF_JSON_TRUE);
    assert_int_equal(list->items[1].type, RF_JSON_NULL);
    assert_true(rf_json_int(rf_json_find(&list->items[2], "x"), &integer) && integer == INT64_MAX);
    assert_int_equal(root->line, 1);
    assert_int_equal(rf_json_find(root, "s")->line, 3);
    assert_int_equal(list->items[2].line, 5);
    assert_null(rf_json_find(root, "none"));
    assert_null(rf_json_find(NULL, "x"));
    assert_null(rf_json_find(list, "x"));
    assert_null(rf_json_string(list));
    rf_arena_release(&arena);
}

static void errors_name_the_place(void **state)
{
    struct rf_error err = {0};

    (void)state;
    assert_false(parses(rf_bytes_text("{\"a\": 1,\n  \"b\" 2}"), &err));
    assert_string_equal(err.message, "line 2, column 7: expected ':'");
    rf_error_clear(&err);
    assert_false(parses(rf_bytes_text("[1, 2"), &err));
    assert_string_equal(err.message,
                        "line 1, column 6: expected ',' or ']', but the text ends here");
}

static void integers_are_exact(void **state)
{
    static const struct {
        const char *text;
        bool is_int;
        int64_t value;
    } cases[] = {
        {"0", true, 0}, {"-0", true, 0}, {"9223372036854775807", true, INT64_MAX},
        {"9223372036854775808", false, 0}, {"-9223372036854775808", true, INT64_MIN},
        {"-9223372036854775809", false, 0}, {"99999999999999999999999", false, 0},
        {"1.0", false, 0}, {"1e2", false, 0}, {"18446744073709551616", false, 0},
    };
    struct rf_json_number number;
    struct rf_json_scan scan;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rf_json_scan_init(&scan, rf_bytes_text(cases[i].text));
        assert_true(rf_json_number_next(&scan, &number));
        assert_int_equal(number.is_int, cases[i].is_int);
        if (number.is_int)
            assert_true(number.integer == cases[i].value);
    }
}

static uint64_t random_next(uint64_t *seed) /* splitmix64 */
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t test_seed(void)
{
    const char *text = getenv("REFUGE_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : 20240607;

    print_message("REFUGE_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

/* The oracle is the C library's strtod, in the C locale. */
static void doubles_are_the_nearest(void **state)
{
    static const char *const hard[] = {
        "1e-400", "1e400", "5e-324", "2.4703282292062328e-324", "2.4703282292062327e-324",
            "1.7976931348623158e308",
        "1.7976931348623159e308", "9007199254740993", "9007199254740992.9999999999999999999999",
            "0.1e1", "123e-20",
        "2.2250738585072011e-308", "179769313486231580793728971405301e276",
            "0.000000000000000000000000000001e30", "1e99999999999999999999",
        "0e99999999999999999999", "1e-99999999999999999999", "6.9294956446009195e15",
            "100000000000000000000000", "-7.5e22", "-0.0",
    };
    uint64_t seed = test_seed();
    char text[1400];
    int size;

    (void)state;
    for (size_t i = 0; i < sizeof hard / sizeof *hard; i++) {
        double got = rf_json_number_double(rf_bytes_text(hard[i])), want = strtod(hard[i], NULL);
        if (memcmp(&got, &want, sizeof got) != 0)
            fail_msg("%s: %.17g, not %.17g", hard[i], got, want);
    }
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = random_next(&seed);
        double value, got, want;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value))
            continue;
        size = snprintf(text, sizeof text, "%.*e", (int)(bits % 25), value);
        got = rf_json_number_double(rf_bytes(text, (size_t)size));
        want = strtod(text, NULL);
        if (memcmp(&got, &want, sizeof got) != 0)
            fail_msg("%s: %.17g, not %.17g", text, got, want);
    }
    for (int i = 0; i < 300; i++) { /* just at, below and above the middle of two doubles */
        uint64_t bits = random_next(&seed) >> 12 | 1;
        double low, got, want;
        bits |= (uint64_t)(1 + random_next(&seed) % 40) << 52; /* tiny: many digits */
        memcpy(&low, &bits, sizeof low);
        /* The exact middle has one binary digit more: as long double it is exact. */
        size = snprintf(text, sizeof text, "%.1100Le",
                        (long double)low + ((long double)nextafter(low, 1) - low) / 2);
        for (int kind = 0; kind < 3; kind++) {
            if (kind == 1)
                text[900] = text[900] == '9' ? '8' : (char)(text[900] + 1);
            if (kind == 2)
                text[700] = text[700] == '0' ? '1' : (char)(text[700] - 1);
            got = rf_json_number_double(rf_bytes(text, (size_t)size));
            want = strtod(text, NULL);
            if (memcmp(&got, &want, sizeof got) != 0)
                fail_msg("%s: %.17g, not %.17g", text, got, want);
        }
    }
}

static const char *format_double(struct rf_buf *buf, double value)
{
    rf_buf_clear(buf);
    rf_json_put_double(buf, value);
    return rf_buf_text(buf);
}

/* RFC 8785, appendix B. */
static void numbers_as_in_rfc_8785(void **state)
{
    static const struct {
        uint64_t bits;
        const char *text;
    } cases[] = {
        {0x0000000000000000, "0"}, {0x8000000000000000, "0"}, {0x0000000000000001, "5e-324"},
        {0x8000000000000001, "-5e-324"}, {0x7fefffffffffffff, "1.7976931348623157e+308"},
        {0xffefffffffffffff, "-1.7976931348623157e+308"}, {0x4340000000000000, "9007199254740992"},
        {0xc340000000000000, "-9007199254740992"}, {0x4430000000000000, "295147905179352830000"},
        {0x44b52d02c7e14af5, "9.999999999999997e+22"}, {0x44b52d02c7e14af6, "1e+23"},
        {0x44b52d02c7e14af7, "1.0000000000000001e+23"}, {0x444b1ae4d6e2ef4e,
                                                         "999999999999999700000"},
        {0x444b1ae4d6e2ef4f, "999999999999999900000"}, {0x444b1ae4d6e2ef50, "1e+21"},
        {0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"}, {0x3eb0c6f7a0b5ed8d, "0.000001"},
        {0x41b3de4355555553, "333333333.3333332"}, {0x41b3de4355555554, "333333333.33333325"},
        {0x41b3de4355555555, "333333333.3333333"}, {0x41b3de4355555556, "333333333.3333334"},
        {0x41b3de4355555557, "333333333.33333343"}, {0xbecbf647612f3696,
                                                     "-0.0000033333333333333333"},
        {0x43143ff3c1cb0959, "1424953923781206.2"},
        /* Powers of two, whose neighbours below stand closer (as node and Python print them). */
        {0x3d30000000000000, "5.684341886080802e-14"}, {0x3d30000000000001,
                                                        "5.684341886080803e-14"},
        {0x0010000000000000, "2.2250738585072014e-308"}, {0x000fffffffffffff,
                                                          "2.225073858507201e-308"},
        {0x3ff8000000000000, "1.5"}, {0x3fb999999999999a, "0.1"}, {0x4059000000000000, "100"},
        {0xbfe0000000000000, "-0.5"}, {0x3e7ad7f29abcaf48, "1e-7"}, {0x40c81cd6e631f8a1,
                                                                     "12345.6789"},
    };
    struct rf_buf buf;

    (void)state;
    rf_buf_init(&buf, 100);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double value;
        memcpy(&value, &cases[i].bits, sizeof value);
        assert_string_equal(format_double(&buf, value), cases[i].text);
    }
    rf_buf_release(&buf);
}

/* Nothing shorter reads back: try both neighbours with one digit less, by strtod. */
static void expect_shortest(struct rf_buf *buf, double value)
{
    const char *text = format_double(buf, value);
    char shorter[64], digits[32];
    size_t count = 0, places;
    int power;

    if (strtod(text, NULL) != value)
        fail_msg("%.17g became %s", value, text);
    for (const char *p = text; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9' && (count > 0 || *p != '0'))
            digits[count++ % sizeof digits] = *p;
    while (count > 0 && digits[(count - 1) % sizeof digits] == '0')
        count--;
    if (count < 2)
        return;
    places = count - 2;
    for (int step = -1; step <= 1; step++) {
        char *e;
        snprintf(shorter, sizeof shorter, "%.*e", (int)places, value);
        e = strchr(shorter, 'e');
        power = atoi(e + 1);
        snprintf(shorter, sizeof shorter, "%lde%d",
                 (long)llround(value / pow(10, power - (double)places)) + step,
                     power - (int)places);
        if (power > -290 && power < 290 && strtod(shorter, NULL) == value)
            fail_msg("%s is longer than %s", text, shorter);
    }
}

static void doubles_are_shortest_and_read_back(void **state)
{
    uint64_t seed = test_seed();
    struct rf_buf buf;

    (void)state;
    rf_buf_init(&buf, 100);
    for (int power = -1022; power < 1024; power++)
        expect_shortest(&buf, ldexp(1, power));
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = random_next(&seed);
        double value;
        memcpy(&value, &bits, sizeof value);
        if (isfinite(value))
            expect_shortest(&buf, value);
        expect_shortest(&buf, (double)(int64_t)(bits >> 40) / 1000);
    }
    rf_buf_release(&buf);
}

static void locale_does_not_matter(void **state)
{
    struct rf_buf buf;

    (void)state;
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8") && !setlocale(LC_NUMERIC, "fr_FR.UTF-8")) {
        print_message("no locale with a decimal comma here\n");
        skip();
    }
    rf_buf_init(&buf, 100);
    assert_string_equal(format_double(&buf, 0.30000000000000004), "0.30000000000000004");
    assert_true(rf_json_number_double(rf_bytes_text("0.30000000000000004")) == 0.1 + 0.2);
    rf_buf_release(&buf);
    setlocale(LC_NUMERIC, "C");
}

static void expect_canonical(const char *text, const char *want)
{
    struct rf_arena arena;
    const struct rf_json *value;
    struct rf_error err = {0};
    struct rf_buf buf;

    rf_arena_init(&arena, 1 << 20);
    rf_buf_init(&buf, 10000);
    if (rf_json_parse(&value, &arena, rf_bytes_text(text), &err) != RF_OK)
        fail_msg("%s", err.message);
    rf_json_put_canonical(&buf, value);
    assert_string_equal(rf_buf_text(&buf), want);
    rf_buf_release(&buf);
    rf_arena_release(&arena);
}

static void canonical_as_in_rfc_8785(void **state)
{
    (void)state;
    /* Section 3.2.2. */
    expect_canonical("{\"numbers\": [333333333.33333329, 1E30, 4.50,\n 2e-3, "
                     "0.000000000000000000000000001],\n"
                     "\"string\": \"\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\\"\\/\",\n"
                     "\"literals\": [null, true, false]}",
                     "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,"
                     "0.002,1e-27],\"string\":\"\xe2\x82\xac$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}");
    /* Section 3.2.3: order of UTF-16 code units. */
    expect_canonical("{\"\\u20ac\":\"Euro Sign\",\"\\r\":\"Carriage Return\","
                     "\"\\ufb33\":\"Hebrew Letter Dalet With Dagesh\",\"1\":\"One\","
                     "\"\\ud83d\\ude00\":\"Emoji: Grinning Face\",\"\\u0080\":\"Control\","
                     "\"\\u00f6\":\"Latin Small Letter O With Diaeresis\"}",
                     "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\xc2\x80\":\"Control\","
                     "\"\xc3\xb6\":\"Latin Small Letter O With Diaeresis\","
                     "\"\xe2\x82\xac\":\"Euro Sign\","
                     "\"\xf0\x9f\x98\x80\":\"Emoji: Grinning Face\","
                     "\"\xef\xac\xb3\":\"Hebrew Letter Dalet With Dagesh\"}");
    expect_canonical(" [ ] ", "[]");
    expect_canonical("{\"b\":{\"y\":1,\"x\":2},\"a\":{}}", "{\"a\":{},\"b\":{\"x\":2,\"y\":1}}");
    expect_canonical("\"\\u0008\\u0009\\u000a\\u000b\\u000c\\u000d\\u001f\\u007f\"",
                     "\"\\b\\t\\n\\u000b\\f\\r\\u001f\x7f\"");
    expect_canonical("{\"ab\":1,\"a\":2,\"\":3}", "{\"\":3,\"a\":2,\"ab\":1}");
}

static void skip_passes_what_check_passes(void **state)
{
    static const char *const values[] = {
        "1", "-1.5e3", "\"a\\\"]}\"", "[1,\"]\",{\"}\":[]}]",
            "{\"a\":[{},[],\"{[\\\\\"],\"b\":{}}", "null", "true", "[]",
        "[\"0123456789abcdef\",\"0123456789abcde\\\"f\",[[[{\"k\":[1,2,3,4,5,6,7,8,9,10]}]]]]",
    };
    struct rf_json_scan fast, strict;
    char text[300];

    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        int size = snprintf(text, sizeof text, "  %s ,rest", values[i]);
        rf_json_scan_init(&fast, rf_bytes(text, (size_t)size));
        rf_json_scan_init(&strict, rf_bytes(text, (size_t)size));
        assert_true(rf_json_skip_next(&fast));
        assert_true(rf_json_check_next(&strict));
        assert_ptr_equal(fast.p, strict.p);
        assert_int_equal(*fast.p, ' ');
    }
    rf_json_scan_init(&fast, rf_bytes_text("[1,{]}"));
    assert_false(rf_json_skip_next(&fast));
    rf_json_scan_init(&fast, rf_bytes_text("[\"abc]"));
    assert_false(rf_json_skip_next(&fast));
    rf_json_scan_init(&fast, rf_bytes_text("\"abc\\"));
    assert_false(rf_json_skip_next(&fast));
}

/* Damage good text a little: check and parse must agree, and skip take all that check takes. */
static void agree_on_damaged_text(void **state)
{
    static const char good[] =
        "{\"name\":\"\xc3\x89" "douard \\ud83d\\ude00\",\"n\":[1,-2.5e+3,0],\"t\":true,"
                               "\"deep\":[[{\"x\":null}]],"
                               "\"text\":\"a longer run of plain text than one step of "
                               "sixteen\\n\"}";
    uint64_t seed = test_seed();
    char text[sizeof good];
    struct rf_json_scan fast, strict;
    int taken = 0;

    (void)state;
    for (int round = 0; round < 30000; round++) {
        static const char bytes[] = "\"\\{}[],:0123456789eE+-.tfnu \n\x80\xc3\xed\xf0";
        size_t size = sizeof good - 1;
        memcpy(text, good, sizeof good);
        for (uint64_t n = random_next(&seed) % 3; n > 0; n--)
            text[random_next(&seed) % size] = bytes[random_next(&seed) % (sizeof bytes - 1)];
        if (random_next(&seed) % 8 == 0)
            size = random_next(&seed) % size;
        taken += both_take(text, size);
        rf_json_scan_init(&fast, rf_bytes(text, size));
        rf_json_scan_init(&strict, rf_bytes(text, size));
        if (rf_json_check_next(&strict)) {
            assert_true(rf_json_skip_next(&fast));
            assert_ptr_equal(fast.p, strict.p);
        }
    }
    assert_true(taken > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_what_the_rfc_allows),
        cmocka_unit_test(refuses_what_it_does_not),
        cmocka_unit_test(refuses_two_members_of_one_name),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(arena_bounds_the_tree),
        cmocka_unit_test(builds_the_tree),
        cmocka_unit_test(errors_name_the_place),
        cmocka_unit_test(integers_are_exact),
        cmocka_unit_test(doubles_are_the_nearest),
        cmocka_unit_test(numbers_as_in_rfc_8785),
        cmocka_unit_test(doubles_are_shortest_and_read_back),
        cmocka_unit_test(locale_does_not_matter),
        cmocka_unit_test(canonical_as_in_rfc_8785),
        cmocka_unit_test(skip_passes_what_check_passes),
        cmocka_unit_test(agree_on_damaged_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
