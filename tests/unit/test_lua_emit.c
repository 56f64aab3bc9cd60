/* test_lua_emit.c - emit: conversion by declared type, cleaning, parts; and the blob's methods. */
#include "mappers/media.h"
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

/* One row with one column of this type; what is emitted is a Lua expression. */
static const char *emit(const char *type, const char *expression)
{
    char script[600];

    snprintf(script, sizeof script,
             "return { name = 'm', limits = { memory_mb = 64 }, "
             "tables = { t = { columns = { 'v %s' } } }, map = function(blob, "
             "emit)\nemit.t { v = %s }\nend }", type, expression);
    if (!harness_open(&h, script, false))
        fail_msg("%s: %s", expression, h.err.message);
    return harness_map(&h, "");
}

struct conversion {
    const char *type, *expression;
    const char *want; /* the dump, or words of the failure */
    bool fails;
};

static void converts_by_declared_type(void **state)
{
    static const struct conversion cases[] = {
        {"int", "5", "t:5\n", false},
        {"int", "-0.0", "t:0\n", false},
        {"int", "2^53", "t:9007199254740992\n", false},
        {"int", "'-9223372036854775808'", "t:-9223372036854775808\n", false},
        {"int", "9223372036854775807LL", "t:9223372036854775807\n", false},
        {"int", "'9223372036854775808'", "column 'v' (int) cannot take the string", true},
        {"int", "18446744073709551615ULL", "within 64 bits", true},
        {"int", "1.5", "cannot take the number '1.5'", true},
        {"int", "1e19", "within 64 bits", true},
        {"int", "0/0", "within 64 bits", true},
        {"int", "''", "within 64 bits", true},
        {"int", "' 1'", "within 64 bits", true},
        {"int", "true", "cannot take the boolean 'true'", true},
        {"int", "{}", "cannot take the table", true},
        {"int", "nil", "t:null\n", false},
        {"int", "refuge.null", "t:null\n", false},
        {"float", "0.1", "t:0.10000000000000001\n", false},
        {"float", "-0.0", "t:0\n", false},
        {"float", "'1e3'", "t:1000\n", false},
        {"float", "'0x10'", "wants a number", true},
        {"float", "'nan'", "wants a number", true},
        {"float", "9007199254740993LL", "t:9007199254740992\n", false},
        {"float", "0/0", "t:null\ncut:0.0.0 float\n", false},
        {"float", "-1/0", "t:null\ncut:0.0.0 float\n", false},
        {"bool", "true", "t:true\n", false},
        {"bool", "1", "wants true or false", true},
        {"text", "'x'", "t:\"x\"\n", false},
        {"text", "''", "t:\"\"\n", false},
        {"text", "1e15", "t:\"1000000000000000\"\n", false},
        {"text", "0.1", "t:\"0.1\"\n", false},
        {"text", "9007199254740993LL", "t:\"9007199254740993\"\n", false},
        {"text", "true", "wants a string or a number", true},
        {"text", "{}", "wants a string or a number", true},
        {"text", "'a\\0b\\255'", "t:\"ab\xef\xbf\xbd\"\ncut:0.0.0 utf8\ncut:0.0.0 nul\n", false},
        {"json", "{ a = { 1, 'x' } }", "t:{\"a\":[1,\"x\"]}\n", false},
        {"json", "refuge.array()", "t:[]\n", false},
        {"json", "{ 0/0 }", "t:[null]\ncut:0.0.0 float\n", false},
        {"json", "{ 'a\\0' }", "t:[\"a\"]\ncut:0.0.0 nul\n", false},
        {"text", "refuge.unicode.decode('\\0\\216a\\0', 'utf-16le')",
         "t:\"\xef\xbf\xbd" "a\"\ncut:0.0.0 utf8\n", false},
        {"text", "refuge.unicode.decode('\\0\\216a\\0', 'utf-16le'):sub(4)", "t:\"a\"\n", false},
        {"text", "'\xef\xbf\xbd'", "t:\"\xef\xbf\xbd\"\n", false},
        {"json", "{ (refuge.unicode.decode('a\\0b', 'utf-16')) }",
         "t:[\"a\xef\xbf\xbd\"]\ncut:0.0.0 utf8\n", false},
        {"json", "{ print }", "cannot make JSON of a function", true},
        {"time", "'2024-05-06T07:08:09+02:00'", "t:2024-05-06T05:08:09.000000Z+120\n", false},
        {"time", "'2024-05-06'", "t:2024-05-06T00:00:00.000000Z\n", false},
        {"time", "refuge.time.epoch(0)", "t:1970-01-01T00:00:00.000000Z\n", false},
        {"time", "'6 May 2024 07:08 GMT'", "wants a time of refuge.time", true},
        {"time", "1715000000", "refuge.time.epoch numbers", true},
        {"time", "'+171546-01-01'", "t:null\ncut:0.0.0 year\n", false},
        {"time", "'0000-12-31'", "t:null\ncut:0.0.0 year\n", false},
        {"blobref", "refuge.hash.blobref('')",
         "t:sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n", false},
        {"blobref", "'sha256-E3'", "wants a blobref", true},
        {"blobref", "blob.ref == tostring(blob) and refuge.null", "t:null\n", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *got = emit(cases[i].type, cases[i].expression);
        bool ok = cases[i].fails ? h.outcome == RF_ENV_FAILED && strstr(got, cases[i].want)
                                 : strcmp(got, cases[i].want) == 0;
        if (!ok)
            fail_msg("%s = %s\n  gave: %s\n  want: %s", cases[i].type, cases[i].expression, got,
                     cases[i].want);
        if (cases[i].fails && !strstr(got, "test.lua:2: "))
            fail_msg("no place in: %s", got);
    }
}

static void cuts_long_text(void **state)
{
    const char *got = emit("text", "('\\195\\169'):rep(2 * 1024 * 1024 + 5)");

    (void)state;
    assert_int_equal(h.outcome, RF_ENV_ROWS);
    assert_int_equal(strcspn(got, "\n"), strlen("t:\"\"") + RF_TEXT_MAX);
    assert_string_equal(strchr(got, '\n') + 1, "cut:0.0.0 long\n");
    got = emit("text", "'x' .. ('\\0'):rep(10) .. ('y'):rep(5 * 1024 * 1024)");
    assert_int_equal(strcspn(got, "\n"), strlen("t:\"\"") + RF_TEXT_MAX);
    got = emit("json", "{ ('y'):rep(5 * 1024 * 1024) }");
    assert_string_equal(got, "t:null\ncut:0.0.0 long\n");
}

static void names_what_is_unknown(void **state)
{
    static const struct {
        const char *body, *words;
    } cases[] = {
        {"emit.note { titel = 'x' }", "emit.note: unknown column 'titel', did you mean 'title'?"},
        {"emit.note { zzz = 'x' }", "emit.note: unknown column 'zzz'"},
        {"emit.note { 'x' }", "a row's fields are named after columns"},
        {"emit.notes { }", "emit.notes: no table of this name is declared, did you mean 'note'?"},
        {"emit.note('x')", "a table of columns was expected, got a string"},
        {"emit.note()", "a table of columns was expected, got a nil"},
        {"emit.part { bytes = 'x', media = 'a/b' }", "add 'splits = true'"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[400];
        snprintf(text, sizeof text,
                 "return { name = 'm', tables = { note = { columns = { 'title text', 'body text' } "
                 "} }, map = function(blob, emit)\n%s\nend }", cases[i].body);
        assert_true(harness_open(&h, text, false));
        harness_map(&h, "");
        if (h.outcome != RF_ENV_FAILED || !strstr(h.message, cases[i].words))
            fail_msg("%s gave %s", cases[i].body, h.message);
    }
}

static const char *part(const char *fields)
{
    char script[500];

    snprintf(script, sizeof script,
             "return { name = 'm', splits = true, limits = { parts = 2 }, map = "
             "function(blob, emit) "
             "emit.part { %s } end }", fields);
    if (!harness_open(&h, script, false))
        fail_msg("%s: %s", fields, h.err.message);
    return harness_map(&h, "0123456789");
}

static void makes_parts(void **state)
{
    static const struct {
        const char *fields, *want;
        bool fails;
    } cases[] = {
        {"offset = 2, size = 8, media = 'text/plain'", "part:2+8|text/plain|-\n", false},
        {"offset = 10, size = 0, media = 'a/b', name = 'x/y'", "part:10+0|a/b|x/y\n", false},
        {"bytes = 'hello', media = 'a/b', name = ''", "part:hello|a/b|\n", false},
        {"bytes = '', media = 'a/b', name = refuge.null", "part:|a/b|-\n", false},
        {"bytes = 'x', media = 'a/b', name = 'a\\0\\255'", "part:x|a/b|a\xef\xbf\xbd\n", false},
        {"offset = 3, size = 8, media = 'a/b'", "not within the blob of 10 bytes", true},
        {"offset = 2^60, size = 1, media = 'a/b'", "whole number of bytes", true},
        {"offset = -1, size = 1, media = 'a/b'", "whole number of bytes", true},
        {"offset = 1.5, size = 1, media = 'a/b'", "whole number of bytes", true},
        {"offset = 1, media = 'a/b'", "either offset and size, or bytes", true},
        {"offset = 1, size = 1, bytes = 'x', media = 'a/b'", "either offset", true},
        {"bytes = 'x'", "'media' must be", true},
        {"bytes = 'x', media = 'A/b'", "'media' must be", true},
        {"bytes = 'x', media = 'ab'", "'media' must be", true},
        {"bytes = 'x', media = 'a/b c'", "'media' must be", true},
        {"bytes = 5, media = 'a/b'", "'bytes' must be a string", true},
        {"byte = 'x', media = 'a/b'", "did you mean 'bytes'?", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *got = part(cases[i].fields);
        if (cases[i].fails ? h.outcome != RF_ENV_FAILED || !strstr(got, cases[i].want)
                           : strcmp(got, cases[i].want) != 0)
            fail_msg("%s gave %s", cases[i].fields, got);
    }
    assert_true(harness_open(&h, "return { name = 'm', splits = true, limits = { parts = 2 }, "
                                 "map = "
                                 "function(blob, emit) for i = 1, 3 do pcall(emit.part, "
                                 "{ bytes = 'x', media = 'a/b' }) end end }", false));
    assert_string_equal(harness_map(&h, ""), "limit: more than limits.parts = 2 parts in one call");
}

/* ---- the blob ---- */

static void reads_the_blob(void **state)
{
    static const struct {
        const char *body, *want;
    } cases[] = {
        {"out(blob:content())", "t:\"0123456789\"\n"},
        {"out(blob:sub(1, 3)) out(blob:sub(-3)) out(blob:sub(-3, -2)) out(blob:sub(0)) "
         "out(blob:sub(5, 4)) out(blob:sub(9, 100)) out(blob:sub(100)) out(blob:sub(-100, 2))",
         "t:\"012\"\nt:\"789\"\nt:\"78\"\nt:\"0123456789\"\nt:\"\"\nt:\"89\"\nt:\"\"\nt:\"01\"\n"},
        {"out(#blob) out(blob.size) out(blob.kind)", "t:\"10\"\nt:\"10\"\nt:\"file\"\n"},
        {"out(blob.name) out(blob.seq) out(blob.timestamp) out(blob.mtime)",
         "t:\"a.txt\"\nt:\"7\"\nt:\"1970-01-01T00:00:01\"\nt:\"1970-01-01T00:00:02\"\n"},
        {"out(blob.ref == tostring(blob)) out(#blob.ref) out(blob.content_ref)",
         "t:\"true\"\nt:\"71\"\nt:null\n"},
        {"for line, at in blob:lines() do out(at .. line) end", "t:\"00123456789\"\n"},
    };

    (void)state;
    h.item.kind = RF_ITEM_FILE;
    h.item.name = "a.txt";
    h.item.seq = 7;
    h.item.timestamp_us = 1000000;
    h.item.mtime_us = 2000000;
    for (int windowed = 0; windowed < 2; windowed++) {
        h.windowed = windowed;
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
            assert_string_equal(harness_eval(&h, cases[i].body, "0123456789"), cases[i].want);
    }
    h.item.kind = RF_ITEM_PART; /* a part answers from its bytes alone */
    assert_string_equal(harness_eval(&h, "out(blob.name) out(blob.seq) out(blob.timestamp) "
                                         "out(blob.mtime) out(blob.kind)", ""),
                        "t:null\nt:null\nt:null\nt:null\nt:\"part\"\n");
    harness_eval(&h, "out(blob.nam)", "");
    assert_non_null(strstr(h.message, "a blob has no field or method 'nam'"));
    harness_eval(&h, "blob.content()", "");
    assert_non_null(strstr(h.message, "call it with ':'"));
    harness_eval(&h, "blob.x = 1", "");
    assert_non_null(strstr(h.message, "cannot be set"));
}

static void large_content_is_refused_whole(void **state)
{
    struct rf_buf text;
    static const char *const bodies[] = {"blob:content()", "blob:json()", "blob:sub(1)",
                                         "refuge.json.decode(blob)"};

    (void)state;
    rf_buf_init(&text, 64 << 20);
    for (int i = 0; i < 20 << 10; i++)
        rf_buf_printf(&text, "%1023d\n", i);
    h.windowed = true;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        harness_eval_bytes(&h, bodies[i], rf_buf_bytes(&text), false);
        assert_int_equal(h.outcome, RF_ENV_FAILED);
        assert_non_null(strstr(h.message, "20.0 MB do not fit the Lua heap of 16 MB"));
        assert_non_null(strstr(h.message, "blob:lines()"));
    }
    assert_string_equal(harness_eval_bytes(&h, "local n = 0 for line, at in blob:lines() do "
                                               "assert(tonumber(line) == n and at == n * 1024) "
                                               "n = n + 1 end out(n)", rf_buf_bytes(&text), false),
                        "t:\"20480\"\n");
    memset(text.data, 'x', text.size); /* one line of 20 MB */
    harness_eval_bytes(&h, "for line in blob:lines() do end", rf_buf_bytes(&text), false);
    assert_int_equal(h.outcome, RF_ENV_FAILED);
    assert_non_null(strstr(h.message, "longer than the Lua heap"));
    rf_buf_release(&text);
}

static enum rf_status need(void *user, const struct rf_blobref *ref, uint64_t *size)
{
    struct rf_blobref there;

    (void)user;
    rf_blobref_of(&there, rf_bytes_text("there"));
    *size = 8;
    return rf_blobref_equal(&there, ref) ? RF_OK : RF_NOT_FOUND;
}

static enum rf_status need_read(void *user, const struct rf_blobref *ref, uint64_t offset,
                                void *out, size_t size, size_t *got)
{
    (void)user;
    (void)ref;
    *got = size < 3 ? size : 3;
    memcpy(out, &"{\"a\":17}"[offset], *got);
    return RF_OK;
}

static void needs_other_blobs(void **state)
{
    (void)state;
    h.item.need = need;
    h.item.need_read = need_read;
    assert_string_equal(harness_eval(&h, "local b = blob:need(refuge.hash.blobref('there')) "
                                         "out(b:pick('a')) out(b:content()) out(b.size) "
                                         "out(b.name)",
                                     ""),
                        "need:there\nt:\"17\"\nt:\"{\"a\":17}\"\nt:\"8\"\nt:null\n");
    assert_string_equal(harness_eval(&h, "out('row') blob:need(refuge.hash.blobref('there')) "
                                         "pcall(blob.need, blob, refuge.hash.blobref('gone')) "
                                         "pcall(out, 'more')", ""),
                        "need:there\nneed:missing\n");
    assert_int_equal(h.outcome, RF_ENV_MISSING);
    harness_eval(&h, "for i = 1, 1001 do blob:need(refuge.hash.blobref('there')) end", "");
    assert_int_equal(h.outcome, RF_ENV_LIMIT);
    harness_eval(&h, "blob:need('x')", "");
    assert_int_equal(h.outcome, RF_ENV_FAILED);
}

/* ---- media types ---- */

static void finds_media_types(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        const char *name, *want;
    } cases[] = {
#define M(bytes, name, want) {bytes, sizeof(bytes) - 1, name, want}
        M("\x89PNG\r\n\x1a\n....", "x.json", "image/png"),
        M("\xff\xd8\xff\xe0", NULL, "image/jpeg"),
        M("GIF89a", NULL, "image/gif"),
        M("%PDF-1.4", NULL, "application/pdf"),
        M("PK\3\4....", NULL, "application/zip"),
        M("PK\3\4....", "a.docx",
          "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        M("\x1f\x8b\x08", NULL, "application/gzip"),
        M("SQLite format 3\0", NULL, "application/vnd.sqlite3"),
        M("{\"a\":1}", NULL, "application/json"),
        M("\xef\xbb\xbf \n[1, 2]", NULL, "application/json"),
        M("{\"a\":1}\n{\"a\":2}\n", "log.jsonl", "application/x-ndjson"),
        M("\xff\xfe[\0]\0", "a.json", "application/json"),
        M("\xfe\xff\0a\0,", "t.csv", "text/csv"),
        M("\xff\xfe[\0]\0", NULL, "application/octet-stream"),
        M("\xff\xfe\0\0[\0\0\0", "a.json", "application/octet-stream"),
        M("{not json}", NULL, "text/plain"),
        M("{\"a\":}", NULL, "text/plain"),
        M("{\"a\":}", "a.json", "application/json"),
        M("[section]\nkey=value\n", NULL, "text/plain"),
        M("<?xml version=\"1.0\"?><gpx>", NULL, "application/gpx+xml"),
        M("<?xml version=\"1.0\"?><x>", NULL, "application/xml"),
        M("<!DOCTYPE html><p>", NULL, "text/html"),
        M("a,b\n1,2\n", NULL, "text/plain"),
        M("a,b\n1,2\n", "t.csv", "text/csv"),
        M("a,b,c\n1,2,3\n4,\"5,5\",6\n", NULL, "text/csv"),
        M("a\tb\n1\t2\n3\t4\n", NULL, "text/tab-separated-values"),
        M("one, two, three\nfour, five\nsix\n", NULL, "text/plain"),
        M("From: a@b\nSubject: x\n\nbody", NULL, "message/rfc822"),
        M("From a@b Mon\nFrom: a@b\nTo: c\n\nbody", NULL, "application/mbox"),
        M("Note: this is\nno mail\n", NULL, "text/plain"),
        M("BEGIN:VCARD\r\n", NULL, "text/vcard"),
        M("BEGIN:VCALENDAR\r\n", NULL, "text/calendar"),
        M("# Title\n", "x.md", "text/markdown"),
        M("plain words", NULL, "text/plain"),
        M("\0\x01\x02", NULL, "application/octet-stream"),
        M("", NULL, "application/x-empty"),
        M("", "a.txt", "text/plain"),
#undef M
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *got = rf_media_find(rf_bytes(cases[i].bytes, cases[i].size), cases[i].name);
        if (strcmp(got, cases[i].want) != 0)
            fail_msg("case %zu (%s): %s, want %s", i, cases[i].bytes, got, cases[i].want);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(converts_by_declared_type),
        TEST(cuts_long_text),
        TEST(names_what_is_unknown),
        TEST(makes_parts),
        TEST(reads_the_blob),
        TEST(large_content_is_refused_whole),
        TEST(needs_other_blobs),
        TEST(finds_media_types),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
