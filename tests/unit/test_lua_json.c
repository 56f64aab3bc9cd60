/*
 * test_lua_json.c - JSON as scripts see it
 *
 * Each text of the lists is given to decode, pick, flatten and records, which must agree on what is
 * JSON. The lists are our own, one text per class of RFC 8259's rules.
 */
#include "tests/unit/lua_harness.h"

static struct harness h;

static int set_up(void **state)
{
    (void)state;
    harness_init(&h);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    harness_release(&h);
    return 0;
}

#define T(literal) {literal, sizeof(literal) - 1}

struct text {
    const char *bytes;
    size_t size;
};

static const struct text good[] = {
    T("null"), T("true"), T("false"), T("0"), T("-0"), T("1"), T("-1"), T("12345678901234567890"),
    T("0.5"), T("-0.5e-7"), T("1E+2"), T("1e400"), T("-1e400"), T("1e-400"), T("1e0000000000001"),
    T("123.456e78"), T("\"\""), T("\"a\""), T("\"\\u0000\""), T("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""),
    T("\"\\u00e9\\uD83D\\uDE00\\ud83d\\ude00\""), T("\"\xc3\xa9\xf0\x9f\x98\x80\""),
    T("\"\x7f\""), T("\"\xef\xbf\xbf\xf4\x8f\xbf\xbf\""), T("[]"), T("{}"), T("[ ]"), T("{ }"),
    T(" \t\r\n[1 , 2]\n"), T("[[],[[]],{}]"), T("{\"a\":{\"b\":[1,{\"c\":null}]}}"),
    T("{\"\":0}"), T("{\"a\":1,\"a\":2}"), T("{\"a\\u0062\":1}"), T("[null,true,false]"),
    T("\xef\xbb\xbf{\"a\":1}"), T("{\"a\":\"\\u2028\"}"), T("[0e0,0E-1,0.0]"),
    T("{\"min\":-9223372036854775808,\"max\":9223372036854775807}"),
};

static const struct text bad[] = {
    T(""), T(" "), T("nul"), T("nulll"), T("True"), T("NaN"), T("Infinity"), T("-Infinity"),
    T("undefined"), T("+1"), T("01"), T("-01"), T("1."), T(".5"), T("-"), T("1e"), T("1e+"),
    T("1.e1"), T("0x1"), T("1 2"), T("--1"), T("1_000"), T("\""), T("\"a"), T("\"\\\""),
    T("\"\\x41\""), T("\"\\u12\""), T("\"\\u12g4\""), T("\"\\ud800\""), T("\"\\udc00\""),
    T("\"\\ud800\\u0041\""), T("\"\\ud800\\ud800\""), T("\"\x01\""), T("\"\t\""), T("\"\n\""),
    T("\"\0\""), T("\"\xff\""), T("\"\xc0\xaf\""), T("\"\xed\xa0\x80\""), T("\"\xf4\x90\x80\x80\""),
    T("\"\xe2\x82\""), T("'a'"), T("["), T("]"), T("[1"), T("[1,"), T("[1,]"), T("[,1]"),
    T("[1,,2]"), T("[1 2]"), T("[1}"), T("{"), T("}"), T("{\"a\""), T("{\"a\":"), T("{\"a\":1"),
    T("{\"a\":1,"), T("{\"a\":1,}"), T("{,\"a\":1}"), T("{a:1}"), T("{1:1}"), T("{'a':1}"),
    T("{\"a\" 1}"), T("{\"a\":1 \"b\":2}"), T("{\"a\",1}"), T("{\"a\":}"), T("{\"a\"::1}"),
    T("{null:1}"), T("[1]]"), T("{}}"), T("[]\0"), T("[1]//c"), T("/**/[1]"), T("[1]#"),
    T("\xfe\xff\0[\0]"), T("\xff\xfe[\0]\0"), T("[\0]\0"), T("\0[\0]"), T("\xa0[1]"),
    T("\xef\xbb\xbf"), T("\xef\xbb[]"), T("[\"a\",\n4\n,1,"), T("[\x0c]"), T("\xc2\xa0[]"),
    T("{\"a\":\"b\"}{"), T("[-]"), T("[1e1.5]"), T("[\"\\a\"]"), T("\xef\xbb\xbf\xef\xbb\xbf[]"),
};

static const char *run(const char *body, struct text text, bool jit_off)
{
    return harness_eval_bytes(&h, body, rf_bytes(text.bytes, text.size), jit_off);
}

static bool failed(const char *words)
{
    return strncmp(words, "failed: ", 8) == 0;
}

static void accepts_and_refuses(void **state)
{
    static const char *const bodies[] = {
        "blob:json()", "refuge.json.decode(blob:content())", "blob:pick('a')",
        "blob:pick('a', 'x.y', '/0', '/a/b/1/c')", "refuge.json.flatten(blob, function() end)",
    };

    (void)state;
    for (int windowed = 0; windowed < 2; windowed++) {
        for (size_t b = 0; b < sizeof bodies / sizeof bodies[0]; b++) {
            h.windowed = windowed;
            for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
                if (failed(run(bodies[b], good[i], false)))
                    fail_msg("%s refuses good text %zu: %s: %s", bodies[b], i, good[i].bytes,
                             h.message);
            for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
                if (!failed(run(bodies[b], bad[i], false)))
                    fail_msg("%s accepts bad text %zu: %s", bodies[b], i, bad[i].bytes);
        }
    }
}

/* Written again and read again, every good text is the same; JIT or not. */
static void keeps_values(void **state)
{
    static const char body[] =
        "local json = refuge.json\n"
        "local d = blob:json()\n"
        "if d == math.huge or d == -math.huge then return out 'infinite' end\n"
        "local text = json.encode(d)\n"
        "assert(json.encode(json.decode(text)) == text) out(text)";
    static const struct {
        struct text text;
        const char *want;
    } cases[] = {
        {T("{\"b\":1,\"a\":[],\"c\":{},\"d\":[null,{\"x\":null}]}"),
         "t:\"{\"a\":[],\"b\":1,\"c\":{},\"d\":[null,{\"x\":null}]}\"\n"},
        {T("{\"a\":1,\"a\":2}"), "t:\"{\"a\":2}\"\n"},
        {T("[1.0,-0,1e2,0.1,1e21,123456789012345678,1e-7]"),
         "t:\"[1,0,100,0.1,1e+21,123456789012345678,1e-7]\"\n"},
        {T("[9223372036854775807,-9223372036854775808,9223372036854775808]"),
         "t:\"[9223372036854775807,-9223372036854775808,9223372036854776000]\"\n"},
        {T("\"\\u0000\\u001f\\\"\\\\\\/\xc3\xa9\\ud83d\\ude00\""),
         "t:\"\"\\u0000\\u001f\\\"\\\\/\xc3\xa9\xf0\x9f\x98\x80\"\"\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int jit_off = 0; jit_off < 2; jit_off++)
            assert_string_equal(run(body, cases[i].text, jit_off), cases[i].want);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (failed(run(body, good[i], false)))
            fail_msg("text %zu: %s", i, h.message);
}

static void picks_what_decode_finds(void **state)
{
    static const char body[] =
        "local d = blob:json()\n"
        "local function at(...) local v = d for _, k in ipairs { ... } do\n"
        "  if type(v) ~= 'table' then return nil end v = v[k] end return v end\n"
        "local encode = refuge.json.encode\n"
        "local a, ab, abc, x, p1, whole = blob:pick('a', 'a.b', 'a.b.c', 'x', '/l/1', "
        "'/l/2/k~1~0')\n"
        "for _, pair in ipairs { { a, at 'a' }, { ab, at('a', 'b') }, { abc, at('a', 'b', 'c') },\n"
        "  { x, at 'x' }, { p1, at('l', 2) }, { whole, at('l', 3, 'k/~') } } do\n"
        "  assert(encode(pair[1]) == encode(pair[2]), encode(pair[1]) .. encode(pair[2]))\n"
        "end out(encode(refuge.array { abc or 0, p1 or 0, whole or 0 }))";
    static const struct {
        struct text text;
        const char *want;
    } cases[] = {
        {T("{\"a\":{\"b\":{\"c\":7}},\"l\":[1,\"two\",{\"k/~\":3}]}"), "t:\"[7,\"two\",3]\"\n"},
        {T("{\"a\":{\"b\":{\"c\":7}},\"a\":{\"b\":{}}}"), "t:\"[0,0,0]\"\n"},
        {T("{\"a\":1,\"a\":{\"b\":{\"c\":1,\"c\":2}}}"), "t:\"[2,0,0]\"\n"},
        {T("{\"\\u0061\":{\"\\u0062\":{\"c\":[]}}}"), "t:\"[[],0,0]\"\n"},
        {T("{\"a\":null,\"l\":null}"), "t:\"[0,0,0]\"\n"},
        {T("[1,2]"), "t:\"[0,0,0]\"\n"},
        {T("5"), "t:\"[0,0,0]\"\n"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int jit_off = 0; jit_off < 2; jit_off++)
            assert_string_equal(run(body, cases[i].text, jit_off), cases[i].want);
}

static void tells_where_it_is_wrong(void **state)
{
    static const struct text text = T("{\"a\": 1,\n \"b\": tru}");

    (void)state;
    run("blob:json()", text, false);
    assert_non_null(strstr(h.message, "test.lua:3: blob:json: line 2, column 7:"));
    run("blob:pick('z')", text, false);
    assert_non_null(strstr(h.message, "blob:pick: line 2, column 7:"));
    run("refuge.json.decode('\\255\\254[\\0]\\0')", text, false);
    assert_non_null(strstr(h.message, "the text is UTF-16"));
}

static void survives_depth(void **state)
{
    size_t size = 200000;
    char *deep = malloc(size + 1);
    static const char *const bodies[] = {"blob:json()", "blob:pick('a')", "blob:pick('/0')",
                                         "refuge.json.flatten(blob, print)",
                                         "refuge.json.records(blob)"};

    (void)state;
    for (int object = 0; object < 2; object++) {
        for (size_t i = 0; i < size; i++)
            deep[i] = object ? "{\"a\":"[i % 5] : '[';
        for (size_t b = 0; b < sizeof bodies / sizeof bodies[0]; b++) {
            if (b == 4 && !object)
                continue; /* an array of arrays holds no records: not read to its end */
            run(bodies[b], (struct text){deep, size}, false);
            if (h.outcome != RF_ENV_FAILED || !strstr(h.message, "deep"))
                fail_msg("%s: %s", bodies[b], h.message);
        }
    }
    memset(deep, '[', 1000);
    memset(deep + 1000, ']', 1000);
    assert_string_equal(run("out(#refuge.json.encode(1)) blob:json()", (struct text){deep, 2000},
                            false), "t:\"1\"\n");
    free(deep);
    assert_true(failed(harness_eval(&h, "local t = {} t[1] = t refuge.json.encode(t)", "")));
    assert_non_null(strstr(h.message, "holding itself"));
}

static void encodes_tables(void **state)
{
    static const struct {
        const char *body;
        const char *want; /* NULL: refused */
    } cases[] = {
        {"{}", "{}"},
        {"refuge.array()", "[]"},
        {"{ 1, 2, 3 }", "[1,2,3]"},
        {"{ a = refuge.null, b = true }", "{\"a\":null,\"b\":true}"},
        {"{ 1, a = 2 }", NULL},
        {"{ [2] = 1 }", NULL},
        {"{ [true] = 1 }", NULL},
        {"print", NULL},
        {"0/0", NULL},
        {"1/0", NULL},
        {"'a\\255b'", "\"a\xef\xbf\xbd" "b\""},
        {"9007199254740993LL", "9007199254740993"},
        {"18446744073709551615ULL", "18446744073709551615"},
        {"refuge.time.parse('2024-01-02T03:04:05+02:00')", "\"2024-01-02T03:04:05+02:00\""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char body[200], want[200];
        const char *got;
        snprintf(body, sizeof body, "out(refuge.json.encode(%s))", cases[i].body);
        got = harness_eval(&h, body, "");
        snprintf(want, sizeof want, "t:\"%s\"\n", cases[i].want ? cases[i].want : "");
        if (cases[i].want ? strcmp(got, want) != 0 : !failed(got))
            fail_msg("%s gave %s", cases[i].body, got);
    }
}

static void decodes_long_containers(void **state)
{
    static const char body[] =
        "local a, o = {}, {}\n"
        "for i = 1, 5000 do a[i] = i o[('k%05d'):format(i)] = i end\n"
        "local json = refuge.json\n"
        "local text = json.encode { a = a, o = o }\n"
        "local d = json.decode(text)\n"
        "assert(#d.a == 5000 and d.a[1] == 1 and d.a[128] == 128 and d.a[129] == 129)\n"
        "assert(d.a[5000] == 5000 and d.o.k00001 == 1 and d.o.k00128 == 128)\n"
        "assert(d.o.k00129 == 129 and d.o.k05000 == 5000 and json.encode(d) == text)\n"
        "out(#text)";

    (void)state;
    assert_true(strncmp(harness_eval(&h, body, ""), "t:\"", 3) == 0);
}

static const char list_records[] =
    "local records, kind = refuge.json.records(blob)\n"
    "out(kind)\n"
    "if records then for offset, size in records do "
    "out(offset .. ':' .. blob:sub(offset + 1, offset + size)) end end";

static void finds_records(void **state)
{
    static const struct {
        struct text text;
        const char *want;
    } cases[] = {
        {T("[{\"a\":1}, {}]"), "t:\"array\"\nt:\"1:{\"a\":1}\"\nt:\"10:{}\"\n"},
        {T("\xef\xbb\xbf {\"x\" : [ {\"a\":[{}]} ] } \n"), "t:\"array\"\nt:\"13:{\"a\":[{}]}\"\n"},
        {T("{\"a\":1}\n{\"b\":\"}\"}\r\n\n{}"),
         "t:\"lines\"\nt:\"0:{\"a\":1}\"\nt:\"8:{\"b\":\"}\"}\"\nt:\"20:{}\"\n"},
        {T("{\"x\":[{}]}\n{}"), "t:\"lines\"\nt:\"0:{\"x\":[{}]}\"\nt:\"11:{}\"\n"},
        {T("{\"x\":[{}],\"y\":1}"), "t:\"object\"\n"},
        {T("{\"x\":[]}"), "t:\"object\"\n"},
        {T("{\"x\":[1]}"), "t:\"object\"\n"},
        {T("{}"), "t:\"object\"\n"},
        {T("[]"), "t:\"array\"\n"},
        {T("[{},1]"), "t:\"array\"\n"},
        {T("[1,{}]"), "t:\"array\"\n"},
        {T("7"), "t:\"scalar\"\n"},
    };
    static const struct text broken[] = {
        T(""), T("[{}"), T("[{},"), T("[{}]]"), T("[{}] x"),
        T("{\"x\":[{}]"), T("{\"a\":1}\n{\"a\":"),
        T("{\"a\":1}\n5"), T("{\"a\":1}\n[]"), T("{\"x\":[{\"a\":tru}]}"), T("[{\"a\":1} {}]"),
    };

    (void)state;
    for (int windowed = 0; windowed < 2; windowed++) {
        h.windowed = windowed;
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            assert_string_equal(run(list_records, cases[i].text, false), cases[i].want);
        for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++)
            if (!failed(run(list_records, broken[i], false)))
                fail_msg("records accepts %zu: %s", i, broken[i].bytes);
    }
    run(list_records, (struct text)T("{\"a\":1}\n{\"a\":1}\n{\"a\":x}\n"), false);
    assert_non_null(strstr(h.message, "line 3:"));
}

/* A line that no heap can hold is one broken line: those around it are found. */
static void passes_long_lines(void **state)
{
    static const char list[] =
        "local records, kind = refuge.json.%s(blob, %s{ broken = true })\n"
        "out(kind)\n"
        "for offset, size, a, b in records do out(offset .. ' ' .. size .. ' ' .. (%s or 0)) end";
    static const char before[] = "{\"a\":1}\n{\"b\":\"", behind[] = "\"}\n{\"c\":1}\n";
    enum { LONG = 20 << 20 };
    size_t size = sizeof before - 1 + LONG + sizeof behind - 1;
    char *bytes = malloc(size), script[256], want[256];

    (void)state;
    assert_non_null(bytes);
    memset(bytes, 'x', size);
    memcpy(bytes, before, sizeof before - 1);
    memcpy(bytes + size - sizeof behind + 1, behind, sizeof behind - 1);
    snprintf(want, sizeof want, "t:\"lines\"\nt:\"0 7 0\"\nt:\"8 %d 2\"\nt:\"%d 7 0\"\n",
             LONG + 8, LONG + 17);
    h.windowed = true;
    for (int pieces = 0; pieces < 2; pieces++) {
        snprintf(script, sizeof script, list, pieces ? "pieces" : "records", pieces ? "1, " : "",
                 pieces ? "b" : "a");
        assert_string_equal(run(script, (struct text){bytes, size}, false), want);
    }
    /* By itself such a value is no JSON lines. */
    run("refuge.json.records(blob)", (struct text){bytes + 8, size - 8}, false);
    assert_non_null(strstr(h.message, "line 1: too long for the Lua heap"));
    free(bytes);
}

/* Broken lines of JSON lines are answered with their number, where that is asked for. */
static void finds_broken_lines(void **state)
{
    static const char list[] =
        "local records, kind = refuge.json.%s(blob, %s{ broken = true%s })\n"
        "out(kind)\n"
        "if records then for offset, size, a, b in records do local line = %s "
        "out((line or '') .. ':' .. blob:sub(offset + 1, offset + size)) end end";
    static const struct {
        struct text text;
        const char *want; /* NULL: it fails */
        bool lines;
    } cases[] = {
        {T("{\"a\":1}\n{\"b\":} \r\n{}"),
         "t:\"lines\"\nt:\":{\"a\":1}\"\nt:\"2:{\"b\":}\"\nt:\":{}\"\n", false},
        {T("{}\n\n{\"b\":[\n{}"), "t:\"lines\"\nt:\":{}\"\nt:\"3:{\"b\":[\"\nt:\":{}\"\n", false},
        {T("{}\n{\n} x"), "t:\"lines\"\nt:\":{}\"\nt:\":{\n}\"\nt:\"3:x\"\n", false},
        {T("{}\n5\n[{}]"), "t:\"lines\"\nt:\":{}\"\nt:\"2:5\"\nt:\"3:[{}]\"\n", false},
        {T("{\n}\n5"), NULL, false},  /* its first line is no object */
        {T("{} {\n5"), NULL, false},
        {T("{\n}\n5"), "t:\"lines\"\nt:\":{\n}\"\nt:\"3:5\"\n", true},
        {T("{x\n{}\n"), NULL, false},
        {T("{x\n{}\n"), "t:\"lines\"\nt:\"1:{x\"\nt:\":{}\"\n", true},
        {T("x\n{}"), "t:\"lines\"\nt:\"1:x\"\nt:\":{}\"\n", true},
        {T("x\ny"), "t:\"scalar\"\n", true},
        {T("{x\n{y"), NULL, true},
        {T("[{},\n{x]"), NULL, true},
        {T("{}"), "t:\"object\"\n", true},
    };
    char script[512];

    (void)state;
    for (int windowed = 0; windowed < 2; windowed++) {
        h.windowed = windowed;
        for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++) {
            bool pieces = i % 2;
            struct text text = cases[i / 2].text;

            /* Runs of one byte are of one record each. */
            snprintf(script, sizeof script, list, pieces ? "pieces" : "records",
                     pieces ? "1, " : "", cases[i / 2].lines ? ", lines = true" : "",
                     pieces ? "b" : "a");
            if (!cases[i / 2].want)
                assert_true(failed(run(script, text, false)));
            else
                assert_string_equal(run(script, text, false), cases[i / 2].want);
        }
    }
}

/* 6 MB in a heap of 2: only windows can do that. */
static void streams_large_content(void **state)
{
    static const char script[] =
        "return { name = 'm', splits = true, limits = { memory_mb = 2, parts = 1000000 }, "
        "map = function(blob, emit)\n"
        "  local n, bytes = 0, 0\n"
        "  for offset, size in refuge.json.records(blob) do n, bytes = n + 1, bytes + size\n"
        "    if n % 10000 == 1 then emit.part { offset = offset, size = size, media = 'a/b' } end\n"
        "  end\n"
        "  local lines = 0 for line in blob:lines() do lines = lines + #line end\n"
        "  assert(n == 60000 and bytes == 60000 * 99, n .. ' ' .. bytes)\n"
        "  assert(lines == blob.size - (blob:sub(1, 1) == '[' and 59999 or 60000))\n"
        "end }";
    struct rf_buf text;

    (void)state;
    for (int array = 0; array < 2; array++) {
        rf_buf_init(&text, 16 << 20);
        for (int i = 0; i < 60000; i++)
            rf_buf_printf(&text, "%s{\"n\":%7d,\"text\":\"%076d\"}%s", array && i == 0 ? "[" : "",
                          i,
                          i, !array ? "\n" : i < 59999 ? ",\n" : "]");
        assert_true(harness_open(&h, script, false));
        h.windowed = true;
        harness_map_bytes(&h, rf_buf_bytes(&text), NULL);
        if (h.outcome != RF_ENV_ROWS)
            fail_msg("%s", h.message);
        rf_buf_release(&text);
    }
    assert_true(h.reads > 20);
}

static void flattens(void **state)
{
    static const char body[] =
        "refuge.json.flatten(blob, function(key, value, kind, number)\n"
        "out(key .. '=' .. tostring(value) .. ' ' .. kind .. ' ' .. tostring(number)) end)";

    (void)state;
    assert_string_equal(
        run(body, (struct text)T("{\"a\":{\"b/~\":[1.50,{\"c\":\"x\\ty\"}],\"\":null},\"t\":true,"
                                 "\"e\":[],\"big\":9007199254740993}"), false),
        "t:\"a/b~1~0/0=1.50 number 1.5\"\nt:\"a/b~1~0/1/c=x\ty string nil\"\nt:\"a/=nil null "
        "nil\"\n"
        "t:\"t=true boolean nil\"\nt:\"big=9007199254740993 number 9007199254740993\"\n");
    assert_string_equal(run(body, (struct text)T("\"s\""), false), "t:\"=s string nil\"\n");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(accepts_and_refuses),
        TEST(keeps_values),
        TEST(picks_what_decode_finds),
        TEST(tells_where_it_is_wrong),
        TEST(survives_depth),
        TEST(encodes_tables),
        TEST(decodes_long_containers),
        TEST(finds_records),
        TEST(finds_broken_lines),
        TEST(passes_long_lines),
        TEST(streams_large_content),
        TEST(flattens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
