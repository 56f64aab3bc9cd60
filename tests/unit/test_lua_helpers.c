/*
 * test_lua_helpers.c - text, time, uri, hash, unicode and csv, with the JIT and without
 *
 * Each case is a line of Lua and what it answers. Expected digests and dates are from RFCs and
 * coreutils, not from the code.
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

struct line {
    const char *expression; /* Lua */
    const char *want;       /* its tostring; NULL: it fails */
};

static void check_lines(const struct line *lines, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (int jit_off = 0; jit_off < 2; jit_off++) {
            char body[1000], want[500];
            const char *got;
            snprintf(body, sizeof body,
                     "local text, time, uri, hash, unicode, csv, json = refuge.text, refuge.time, "
                     "refuge.uri, refuge.hash, refuge.unicode, refuge.csv, refuge.json\n"
                     "local r for i = 1, 70 do r = (%s) end out(tostring(r))",
                     lines[i].expression);
            got = harness_eval_bytes(&h, body, rf_bytes_text(""), jit_off);
            snprintf(want, sizeof want, "t:\"%s\"\n", lines[i].want ? lines[i].want : "");
            if (lines[i].want ? strcmp(got, want) != 0 : h.outcome != RF_ENV_FAILED)
                fail_msg("%s\n  gave: %s\n  want: %s", lines[i].expression, got,
                         lines[i].want ? lines[i].want : "a failure");
        }
    }
}
#define CHECK(lines) check_lines(lines, sizeof(lines) / sizeof(lines)[0])

static void text(void **state)
{
    static const struct line lines[] = {
        {"text.trim('  a b\\n')", "a b"},
        {"text.trim(' ')", ""},
        {"json.encode(text.split('a,b,,c', ','))", "[\"a\",\"b\",\"\",\"c\"]"},
        {"json.encode(text.split('a,b,c', ',', 2))", "[\"a\",\"b,c\"]"},
        {"json.encode(text.split('', ','))", "[\"\"]"},
        {"json.encode(text.split('a.b', '.'))", "[\"a\",\"b\"]"},
        {"text.split('a', '')", NULL},
        {"json.encode(text.words(\"L'\xc3\xa9t\xc3\xa9, 2 fois; na\xc3\xafve_x\"))",
         "[\"L\",\"\xc3\xa9t\xc3\xa9\",\"2\",\"fois\",\"na\xc3\xafve\",\"x\"]"},
        {"#text.words('')", "0"},
        {"text.truncate('h\xc3\xa9llo', 2)", "h\xc3\xa9"},
        {"text.truncate('hello', 5, '...')", "hello"},
        {"text.truncate('hello world', 8, '...')", "hello..."},
        {"text.truncate('hello', 2, '...')", "he"},
        {"text.collapse('  a\\t\\n b ')", "a b"},
        {"text.snippet('one two three four', 10)", "one two\xe2\x80\xa6"},
        {"text.snippet('short')", "short"},
        {"text.snippet(('x'):rep(50), 10)", "xxxxxxxxx\xe2\x80\xa6"},
        {"text.starts('abc', 'ab')", "true"},
        {"text.ends('abc', 'ab')", "false"},
        {"(function() local t = {} for line, at in text.lines('a\\r\\nb\\n\\nc') do "
         "t[#t + 1] = at .. line end return table.concat(t, '|') end)()", "0a|3b|5|6c"},
        {"text.trim(nil)", NULL},
    };

    (void)state;
    CHECK(lines);
}

static void time(void **state)
{
    static const struct line lines[] = {
        {"time.parse('1970-01-01T00:00:00Z').epoch", "0"},
        {"time.parse('2000-02-29')", "2000-02-29T00:00:00"},
        {"time.parse('2001-02-29')", "nil"},
        {"time.parse('1900-02-29')", "nil"},
        {"time.parse('2024-01-02T03:04:05.678901234+02:30')", "2024-01-02T03:04:05.678901+02:30"},
        {"time.parse('2024-01-02T03:04:05+02:00').epoch", "1704157445"}, /* date -d */
        {"time.parse('2024-01-02 03:04')", "2024-01-02T03:04:00"},
        {"time.parse('20240102T030405Z')", "2024-01-02T03:04:05Z"},
        {"time.parse('2024-01-02T24:00:00Z')", "2024-01-03T00:00:00Z"},
        {"time.parse('2016-12-31T23:59:60Z').epoch", "1483228800"},
        {"time.parse('2024-01-02T03:04:05-00:00').offset", "nil"},
        {"time.parse('2024-01-02T03:04:05').offset", "nil"},
        {"time.parse('2024-01-02T03:04:05Z').offset", "0"},
        {"time.parse('2024-01-02T03:04:05-0330').offset", "-210"},
        {"time.parse('2024-01-02 03:04:05 UTC').offset", "0"},
        {"time.parse('2024-13-02')", "nil"},
        {"time.parse('2024-01-02T25:00')", "nil"},
        {"time.parse('2024-01-02T03:04:05+25:00')", "nil"},
        {"time.parse('2024-01-02x')", "nil"},
        {"time.parse('')", "nil"},
        {"time.parse(refuge.null)", "nil"},
        {"time.parse('0001-01-01T00:00:00Z').epoch", "-62135596800"},
        {"time.parse('9999-12-31T23:59:59Z').epoch", "253402300799"},
        {"time.parse('+171546-01-02')", "+171546-01-02T00:00:00"},
        {"time.parse('-0044-03-15').year", "-44"},
        /* Of RFC 5322. */
        {"time.parse('Fri, 21 Nov 1997 09:55:06 -0600')", "1997-11-21T09:55:06-06:00"},
        {"time.parse('Thu, 13 Feb 1969 23:32 -0330 (Newfoundland Time)')",
         "1969-02-13T23:32:00-03:30"},
        {"time.parse('21 Nov 97 09:55:06 GMT')", "1997-11-21T09:55:06Z"},
        {"time.parse('1 Jan 24 00:00:00 EST').offset", "-300"},
        {"time.parse('1 Jan 2024 00:00:00 -0000').offset", "nil"},
        {"time.parse('Sun Nov  6 08:49:37 1994')", "1994-11-06T08:49:37"},
        {"time.parse('Wed Oct 10 20:19:24 +0000 2018')", "2018-10-10T20:19:24Z"},
        {"time.parse('Sunday, 06-Nov-94 08:49:37 GMT')", "1994-11-06T08:49:37Z"},
        {"time.parse('yesterday')", "nil"},
        {"time.epoch(0)", "1970-01-01T00:00:00"},
        {"time.epoch(1.5, 's', 0)", "1970-01-01T00:00:01.500000Z"},
        {"time.epoch(1700000000123, 'ms').us", "123000"},
        {"time.epoch(-1)", "1969-12-31T23:59:59"},
        {"time.epoch(-86400 * 365)", "1969-01-01T00:00:00"},
        {"time.epoch(1/0)", NULL},
        {"time.epoch('x')", NULL},
        {"time.date{year=2024,month=2,day=29,hour=12,offset=60}", "2024-02-29T12:00:00+01:00"},
        {"time.date{year=2023,month=2,day=29}", "nil"},
        {"time.date{year=2023}", NULL},
        {"time.parse('2024-05-06').weekday", "1"}, /* a Monday */
        {"time.parse('2024-12-31').yearday", "366"},
        {"time.parse('2024-05-06T07:08:09Z'):format('%d %b %Y (%a) %H:%M:%S %z %j %%')",
         "06 May 2024 (Mon) 07:08:09 +0000 127 %"},
        {"time.parse('2024-05-06'):format('%Q')", NULL},
        {"time.parse('2024-05-06T00:00:00Z') == time.parse('2024-05-06T02:00:00+02:00')", "true"},
        {"time.parse('2024-05-06') < time.parse('2024-05-07')", "true"},
        {"time.parse('2024-05-07') - time.parse('2024-05-06')", "86400"},
        {"time.parse('2024-05-06'):add(3600)", "2024-05-06T01:00:00"},
        {"time.parse('2024-05-06T00:00:00Z'):at(120)", "2024-05-06T02:00:00+02:00"},
        {"time.parse('2024-05-06').century", NULL},
    };

    (void)state;
    CHECK(lines);
}

static void uri(void **state)
{
    static const struct line lines[] = {
        {"json.encode(uri.parse('HTTP://user:pw@Example.COM:8080/a/b?x=1&y#frag'))",
         "{\"fragment\":\"frag\",\"host\":\"example.com\",\"path\":\"/a/b\",\"port\":8080,"
         "\"query\":\"x=1&y\",\"scheme\":\"http\",\"userinfo\":\"user:pw\"}"},
        {"json.encode(uri.parse('mailto:a@b.c'))", "{\"path\":\"a@b.c\",\"scheme\":\"mailto\"}"},
        {"json.encode(uri.parse('//[::1]:80/x'))",
         "{\"host\":\"[::1]\",\"path\":\"/x\",\"port\":80}"},
        {"json.encode(uri.parse('../a?b'))", "{\"path\":\"../a\",\"query\":\"b\"}"},
        {"json.encode(uri.parse(''))", "{\"path\":\"\"}"},
        {"uri.encode('a b/\xc3\xa9~')", "a%20b%2F%C3%A9~"},
        {"uri.decode('a%20b%2f%C3%a9%zz%')", "a b/\xc3\xa9%zz%"},
        {"uri.query('a=1&b=x+y%21&a=2&c').a", "2"},
        {"uri.query('a=1&b=x+y%21&a=2&c').b", "x y!"},
        {"json.encode(select(2, uri.query('a=1&a=2&c')))",
         "[[\"a\",\"1\"],[\"a\",\"2\"],[\"c\",\"\"]]"},
    };

    (void)state;
    CHECK(lines);
}

static void hash(void **state)
{
    static const struct line lines[] = {
        {"hash.sha256('abc')", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"hash.blobref('')",
         "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"hash.crc32('123456789')", "3421780262"}, /* 0xcbf43926, the check value */
        {"hash.hex('\\0\\255a')", "00ff61"},
        {"hash.unhex('00FF61') == '\\0\\255a'", "true"},
        {"hash.unhex('0')", "nil"},
        {"hash.unhex('0g')", "nil"},
        {"hash.base64('')", ""},
        {"hash.base64('f')", "Zg=="},
        {"hash.base64('foobar')", "Zm9vYmFy"},
        {"hash.unbase64('Zm9v\\r\\nYmE=')", "fooba"},
        {"hash.unbase64('Zm9vYmE')", "fooba"},
        {"hash.hex(hash.unbase64('-_8'))", "fbff"},
        {"hash.unbase64('Z')", "nil"},
        {"hash.unbase64('Zg==x')", "nil"},
        {"hash.unbase64('Z!g=')", "nil"},
    };

    (void)state;
    CHECK(lines);
}

static void unicode(void **state)
{
    static const struct line lines[] = {
        {"unicode.nfc('e\xcc\x81')", "\xc3\xa9"},
        {"unicode.nfd('\xc3\xa9') == 'e\xcc\x81'", "true"},
        {"unicode.nfkc('\xef\xac\x81\xc2\xb2')", "fi2"},
        {"unicode.fold('Stra\xc3\x9f" "E')", "strasse"},
        {"unicode.lower('\xc3\x89T\xc3\x89 \xce\xa9')", "\xc3\xa9t\xc3\xa9 \xcf\x89"},
        {"unicode.upper('\xc3\xa9t\xc3\xa9')", "\xc3\x89T\xc3\x89"},
        {"unicode.strip('\xc3\xa9t\xc3\xa9')", "ete"},
        {"unicode.len('\xc3\xa9\xf0\x9f\x98\x80x')", "3"},
        {"unicode.width('\xe6\xbc\xa2x')", "3"},
        {"unicode.sub('h\xc3\xa9llo', 2, 3)", "\xc3\xa9l"},
        {"unicode.sub('h\xc3\xa9llo', -2)", "lo"},
        {"unicode.sub('abc', 3, 2)", ""},
        {"unicode.sub('abc', 5)", ""},
        {"unicode.char(233, 0x1f600)", "\xc3\xa9\xf0\x9f\x98\x80"},
        {"unicode.char(0xd800)", NULL},
        {"unicode.valid('a\\255')", "false"},
        {"unicode.clean('a\\255b')", "a\xef\xbf\xbd" "b"},
        {"unicode.nfc('a\\255')", "a\xef\xbf\xbd"},
        {"unicode.decode('\\128\\233', 'windows-1252')", "\xe2\x82\xac\xc3\xa9"},
        {"unicode.decode('\\233', 'latin1')", "\xc3\xa9"},
        {"unicode.decode('\\255\\254a\\0=\\216\\0\\222', 'utf-16')", "a\xf0\x9f\x98\x80"},
        {"unicode.decode('\\0a', 'utf-16be')", "a"},
        {"select('#', unicode.decode('\\0a', 'utf-16be'))", "1"},
        {"select(2, unicode.decode('\\0a', 'utf-16be', true))", "0"},
        {"select(2, unicode.decode('\\0\\216a\\0\\0\\220b', 'utf-16', true))", "3"},
        {"unicode.decode('x', 'ebcdic')", NULL},
        {"(function() local t = {} for c, s in unicode.codepoints('a\xc3\xa9') do "
         "t[#t + 1] = c .. s end return table.concat(t, ' ') end)()", "97a 233\xc3\xa9"},
    };

    (void)state;
    CHECK(lines);
}

/* All rows of a text, cells joined by '|', rows by ';'. */
#define ROWS(text) "(function() local t = {} for row in csv.rows(" text ") do " \
                   "t[#t + 1] = table.concat(row, '|') end return table.concat(t, ';') end)()"
#define JSON(text) "(function() local t = {} for row in csv.json(" text ") do " \
                   "t[#t + 1] = row end return table.concat(t, ';') end)()"

static void csv(void **state)
{
    static const struct line lines[] = {
        {ROWS("'a,b\\n1,2\\n'"), "a|b;1|2"},
        {ROWS("'a,b\\r\\n1,2'"), "a|b;1|2"},
        {ROWS("'a,b\\r1,2\\r'"), "a|b;1|2"},
        {ROWS("'a;b\\n1,5;2\\n'"), "a|b;1,5|2"},
        {ROWS("'a\\tb\\n1\\t2\\n'"), "a|b;1|2"},
        {ROWS("'sep=|\\na|b,c\\n'"), "a|b,c"},
        {ROWS("'a|b\\nc|d\\n'"), "a|b;c|d"},
        {ROWS("'\\239\\187\\191a,b\\n'"), "a|b"},
        {ROWS("'\"x,\"\"y\"\"\",\"l1\\nl2\",\\n'"), "x,\"y\"|l1\nl2|"},
        {ROWS("'\"a\"b,c\"d\\n'"), "ab|c\"d"},
        {ROWS("'a,b\\n\\n\\n1,2\\n\\n'"), "a|b;1|2"},
        {ROWS("''"), ""},
        {ROWS("'one'"), "one"},
        {ROWS("'a,b\\n1,\"2'"), NULL},
        {ROWS("'caf\\233,\\128\\n'"), "caf\xc3\xa9|\xe2\x82\xac"},
        {ROWS("'\"caf\\233\"\"\",x\\n'"), "caf\xc3\xa9\"|x"},
        {"csv.rows('\\255\\254a\\0')", NULL},
        {"csv.rows('a', { delimiter = 'xx' })", NULL},
        {"csv.rows('a', { delimeter = ',' })", NULL},
        {JSON("'b,a,\xef\xbf\xbd,\xf0\x9f\x98\x80\\n1,\"q\"\"\",3,4\\n'"),
         "{\"a\":\"q\\\"\",\"b\":\"1\",\"\xf0\x9f\x98\x80\":\"4\",\"\xef\xbf\xbd\":\"3\"}"},
        {JSON("'x,x,,x_2\\n1,2,3,4,5\\n6\\n'"),
         "{\"column_3\":\"3\",\"column_5\":\"5\",\"x\":\"1\",\"x_2\":\"2\","
         "\"x_2_2\":\"4\"};{\"x\":\"6\"}"},
        {JSON("'a,b\\n'"), ""},
        {"(function() local t = {} for r, at, size in csv.records('n;v\\nx;1\\ny;2') do "
         "t[#t + 1] = r.n .. r.v .. at .. '+' .. size end return table.concat(t, ' ') end)()",
         "x14+3 y28+3"},
        {"(function() local t = {} for r, at, size, line in csv.json('n;v\\nx;1\\n\\n\"y;2\\nz;3', "
         "{ broken = true }) do t[#t + 1] = (r or 'line ' .. line) .. at .. '+' .. size end "
         "return table.concat(t, ' ') end)()",
         "{\"n\":\"x\",\"v\":\"1\"}4+3 line 49+8"},
        {"(function() local t = {} for at, size, line in "
         "csv.pieces('n;v\\nx;1\\ny;2\\n\"z;\"\"3\\n', "
         "{ broken = true }, 4) do t[#t + 1] = at .. '+' .. size .. (line or '') end "
         "return table.concat(t, ' ') end)()",
         "4+4 8+4 12+74"},
        {"csv.json('\"v\\nx;1', { broken = true })", NULL},
        {"table.concat(select(2, csv.records('n;v\\nx;1')), ',')", "n,v"},
        {"select(2, csv.rows('n;v\\nx;1'))", ";"},
    };

    (void)state;
    CHECK(lines);
}

/* 4 MB of rows, some longer than a window, in a heap of 3. */
static void csv_streams(void **state)
{
    static const char script[] =
        "return { name = 'm', limits = { memory_mb = 3 }, tables = { t = { columns = { 'v "
        "int' } } },"
        "map = function(blob, emit) local n, bytes = 0, 0\n"
        "for text in refuge.csv.json(blob) do n, bytes = n + 1, bytes + #text end\n"
        "emit.t { v = n } emit.t { v = bytes } end }";
    struct rf_buf rows;
    size_t bytes = 0;
    char want[64];

    (void)state;
    rf_buf_init(&rows, 16 << 20);
    rf_buf_put_text(&rows, "key,value\n");
    for (int i = 0; i < 20000; i++) {
        int width = i % 10000 == 5000 ? 300000 : 180;
        rf_buf_printf(&rows, "%d,\"%0*d\n\"\r\n", i % 10, width, i);
        bytes += strlen("{'key':'0','value':'\\n'}") + (size_t)width;
    }
    assert_true(harness_open(&h, script, false));
    h.windowed = true;
    snprintf(want, sizeof want, "t:20000\nt:%zu\n", bytes);
    assert_string_equal(harness_map_bytes(&h, rf_buf_bytes(&rows), NULL), want);
    rf_buf_release(&rows);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(text), TEST(time), TEST(uri), TEST(hash), TEST(unicode), TEST(csv), TEST(csv_streams),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
