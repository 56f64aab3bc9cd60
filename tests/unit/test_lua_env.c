/* test_lua_env.c - the environment scripts see: white list, freezing, errors, limits, pairs. */
#include "tests/unit/lua_harness.h"

#include <sys/wait.h>
#include <unistd.h>

#include <malloc.h>

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

static void expect(const char *body, const char *want)
{
    const char *got = harness_eval(&h, body, "");

    if (strcmp(got, want) != 0)
        fail_msg("%s\n  gave: %s\n  want: %s", body, got, want);
}

static void expect_failure(const char *body, const char *words)
{
    const char *got = harness_eval(&h, body, "");

    if (strncmp(got, "failed: ", 8) != 0 || !strstr(got, words))
        fail_msg("%s\n  gave: %s\n  want a failure with: %s", body, got, words);
}

static void refuses_what_is_not_on_the_list(void **state)
{
    static const char *const gone[] = {
        "ffi", "jit", "package", "io", "os", "debug", "dofile", "loadfile", "load", "loadstring",
        "newproxy", "getfenv", "setfenv", "collectgarbage", "gcinfo", "module", "_G",
        "string.dump", "math.random", "math.randomseed", "table.foreach", "string.gfind",
        "require", "coroutine.close",
    };

    (void)state;
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++) {
        char body[100];
        if (strcmp(gone[i], "require") == 0)
            continue; /* there, and refuses */
        snprintf(body, sizeof body, "out(%s)", gone[i]);
        expect(body, "t:null\n");
    }
    expect_failure("require('util')", "modules are loaded only while the file is");
    expect("out(getmetatable(''))", "t:null\n");
    expect("out(getmetatable(1LL)) out(getmetatable(blob)) out(getmetatable(print))",
           "t:null\nt:null\nt:null\n");
}

static void refuses_byte_code(void **state)
{
    (void)state;
    assert_false(harness_open(&h, "\033LJ\2", false));
    assert_non_null(strstr(h.err.message, "this is compiled Lua; a mapper is given as text"));
}

static void freezes(void **state)
{
    (void)state;
    expect_failure("count = 1", "cannot set global 'count'");
    expect_failure("string.find = 1", "cannot set 'find': string is read-only");
    expect_failure("refuge.json.decode = 1", "read-only");
    expect_failure("rawset(string, 'find', 1)", "read-only");
    expect_failure("emit.t = 1", "read-only");
    expect_failure("setmetatable(string, {})", "read-only");
    expect_failure("table.insert(refuge, 1)", "bad argument");
    expect_failure("table.sort(refuge.json)", "bad argument");
    expect_failure("table.remove(emit)", "bad argument");
    expect("for k in pairs(refuge.csv) do out(k) end",
           "t:\"json\"\nt:\"pieces\"\nt:\"records\"\nt:\"rows\"\n");
    expect("local _, state = pairs(string) for _, t in ipairs(state) do\n"
           "if type(t) == 'table' then t.find = nil end end out(tostring(string.find ~= nil))",
           "t:\"true\"\n");
    expect_failure("setmetatable({}, { __mode = 'k' })", "weak tables are left out");
    assert_true(harness_open(&h, "function helper() return 'x' end\n"
                                 "return { name = 'm', tables = { t = { columns = { 'v text' } } },"
                                 "map = function(blob, emit) emit.t { v = helper() } end }",
                             false));
    assert_string_equal(harness_map(&h, ""), "t:\"x\"\n");
}

static void requires_while_loading(void **state)
{
    (void)state;
    assert_true(harness_open(&h, "local util = require 'util'\n"
                                 "assert(require 'util' == util)\n"
                                 "return { name = 'm', tables = { t = { columns = { 'v int' } } },"
                                 "map = function(blob, emit) emit.t { v = util.twice(21) } end }",
                             false));
    assert_string_equal(harness_map(&h, ""), "t:42\n");
    assert_false(harness_open(&h, "require 'nothing'", false));
    assert_non_null(strstr(h.err.message, "test.lua:1: require('nothing'): no such module"));
    assert_false(harness_open(&h, "require 'a'", false));
    assert_non_null(strstr(h.err.message, "in a circle"));
}

static void goes_through_tables_in_order(void **state)
{
    static const char body[] =
        "local t = { 'x', 'y', b = 1, a = 2, [true] = 3, [false] = 4, [0.5] = 5, [-1] = 6, "
        "['a\\0b'] = 7, [''] = 8 }\n"
        "local keys = {}\n"
        "for k in pairs(t) do keys[#keys + 1] = tostring(k) end\n"
        "out((table.concat(keys, ' '):gsub('%z', '0')))\n"
        "keys = {}\n"
        "for k in next, t do keys[#keys + 1] = tostring(k) end\n"
        "out((table.concat(keys, ' '):gsub('%z', '0')))\n";

    (void)state;
    expect(body, "t:\"-1 0.5 1 2  a a0b b false true\"\nt:\"-1 0.5 1 2  a a0b b false true\"\n");
    expect("for k, v in pairs { 'a', 'b', 'c' } do out(k .. v) end",
           "t:\"1a\"\nt:\"2b\"\nt:\"3c\"\n");
    expect("for k in pairs {} do out(k) end out(next({}))", "t:null\n");
    expect_failure("for k in pairs { [{}] = 1 } do end", "one of its keys is a table");
    /* The state of a traversal is a script's to spoil, not ours to trust. */
    expect_failure("local step, state = pairs { a = 1 } state[2] = 5 step(state)", "not the state");
    expect_failure("local step, state = pairs { 1 } state[1] = 5 step(state, 0)", "not the state");
    expect_failure("pairs { 1 }(nil)", "bad argument");
    /* What is removed on the way is not visited, what is added neither. */
    expect("local t = { a = 1, b = 2, c = 3 } for k in pairs(t) do t.b = nil t.d = 1 out(k) end",
           "t:\"a\"\nt:\"c\"\n");
    expect("local t = { 1, 2, 3, 4 } for k in pairs(t) do t[k] = nil t[3] = nil out(k) end",
           "t:\"1\"\nt:\"2\"\nt:\"4\"\n");
    expect("local t = {} for i = 1, 300 do t['k' .. i] = i end local n, last = 0, '' "
           "for k, v in pairs(t) do n = n + 1 assert(k > last and t[k] == v) last = k end out(n) "
           "n = 0 local k, v = next(t) while k do n = n + 1 t[k] = nil k, v = next(t, k) end "
           "out(n)",
           "t:\"300\"\nt:\"300\"\n");
}

/* The program of LuaJIT issue 827, where the built-in pairs ends early once compiled. */
static void pairs_is_right_when_compiled(void **state)
{
    (void)state;
    expect("local t = { 1, 2, 3, 4, 5 } local tab = { a = t, b = t, c = t, d = t, e = t }\n"
           "local function f() for j = 1, 100 do end end\n"
           "for i = 1, 30000 do f() local c = 0\n"
           "  for k, v in pairs(tab) do for _ in pairs(v) do end c = c + 1 end\n"
           "  assert(c == 5)\n"
           "end out 'ok'", "t:\"ok\"\n");
}

static void shows_no_addresses(void **state)
{
    (void)state;
    expect("out(tostring({})) out(tostring(print)) out(tostring(function() end))",
           "t:\"table\"\nt:\"function\"\nt:\"function\"\n");
    expect("out(string.format('%s %5.2f %d %q', {}, 1.25, 7, 'x'))", "t:\"table  1.25 7 \"x\"\"\n");
    expect("out(('%s %%p %s'):format(nil, true)) out(tostring(coroutine.create(print)))",
           "t:\"nil %p true\"\nt:\"thread\"\n");
    expect_failure("string.format('%p', {})", "left out");
    expect_failure("string.format('%-8p', {})", "left out");
    expect("out(tostring(0/0)) out(tostring(-(0/0))) out(1/0) out(refuge.null)",
           "t:\"nan\"\nt:\"nan\"\nt:\"inf\"\nt:\"null\"\n");
}

static void keeps_integers_exact(void **state)
{
    (void)state;
    expect("local d = refuge.json.decode('[9007199254740993,-9223372036854775808,"
           "9223372036854775807,5]') for i = 1, 4 do out(d[i]) end out(d[1] > 5) "
           "out(d[1] - 9007199254740992LL) out(refuge.json.encode(d)) "
           "out(string.format('%d', d[2]))",
           "t:\"9007199254740993\"\nt:\"-9223372036854775808\"\nt:\"9223372036854775807\"\n"
           "t:\"5\"\n"
           "t:\"true\"\nt:\"1\"\n"
           "t:\"[9007199254740993,-9223372036854775808,9223372036854775807,5]\"\n"
           "t:\"-9223372036854775808\"\n");
}

static void names_errors(void **state)
{
    (void)state;
    expect_failure("local x\nout(x.y)", "test.lua:4: attempt to index local 'x' (a nil value)");
    expect_failure("nothing()", "attempt to call global 'nothing' (a nil value)");
    expect_failure("error({ message = 'told' })", "told");
    expect_failure("error({})", "the error raised is a table");
    expect_failure("error()", "the error raised is a nil");
    expect_failure("error(('x'):rep(5000))", "xxx...");
    assert_in_range(strlen(h.message), 900, 1024);
    expect_failure("error('a\\nb\\0c')", "a\\x0ab\\x00c");
    expect_failure("local function inner() error('deep') end\n"
                   "local function outer() inner() end outer()", "deep");
    assert_non_null(strstr(h.traceback, "test.lua:3: in function 'inner'"));
    assert_non_null(strstr(h.traceback, "test.lua:4: in function 'outer'"));
    expect_failure("local function f() return 1 + f() end f()", "stack overflow");
    expect_failure("string.rep()", "bad argument #1 to 'rep'");
    expect_failure("xpcall(error, function(e) error(e) end) local t = nil + 1", "arithmetic");
    assert_false(harness_open(&h, "return {", false));
    assert_non_null(strstr(h.err.message, "test.lua:1:"));
    assert_false(harness_open(&h, "return 5", false));
    assert_non_null(strstr(h.err.message, "must return a table"));
}

static void limits_stick(void **state)
{
    static const char rows[] =
        "return { name = 'm', limits = { rows = 3 }, tables = { t = { columns = { 'v int' } } },"
        "map = function(blob, emit) for i = 1, 10 do pcall(emit.t, { v = i }) end end }";
    static const char output[] =
        "return { name = 'm', limits = { output_mb = 1 }, tables = { t = { columns = { 'v "
        "text' } } },"
        "map = function(blob, emit) for i = 1, 30 do coroutine.wrap(function() "
        "pcall(emit.t, { v = ('x'):rep(100000) }) end)() end end }";

    (void)state;
    assert_true(harness_open(&h, rows, false));
    assert_string_equal(harness_map(&h, ""),
                        "limit: more than limits.rows = 3 rows in one call");
    assert_int_equal(h.outcome, RF_ENV_LIMIT);
    assert_int_equal(h.output.size, 0);
    assert_true(harness_open(&h, output, false));
    harness_map(&h, "");
    assert_int_equal(h.outcome, RF_ENV_LIMIT);
    assert_non_null(strstr(h.message, "limits.output_mb = 1"));
    /* A bound of LuaJIT's own, which asks for no memory first. */
    assert_true(harness_open(
        &h, "return { name = 'm', map = function() ('xyz'):rep(2 ^ 31 - 2) end }", false));
    assert_string_equal(harness_map(&h, ""), "limit: needed more than 16 MB of memory");
}

/* In a child, because the worker's answer to a full heap is to end: 42, by the harness. */
static int exit_status_of(const char *body, bool jit_off)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(2);
        harness_eval_bytes(&h, body, rf_bytes_text(""), jit_off);
        _exit(h.outcome == RF_ENV_ROWS ? 0 : 1);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void the_heap_has_a_limit(void **state)
{
    static const char *const bombs[] = {
        "local t = {} for i = 1, 40 do t[i] = ('x'):rep(1024 * 1024) .. i end",
        "local t = {} for i = 1, 3000000 do t[i] = i end",
        "local s = 'x' for i = 1, 26 do s = s .. s end",
        "local t = {} for i = 1, 500000 do t['key' .. i] = { i } end",
        "local f = function() end for i = 1, 800000 do local g = f f = function() return g end end",
        "pcall(string.rep, 'x', 40 * 1024 * 1024)",
    };

    (void)state;
    for (size_t i = 0; i < sizeof bombs / sizeof bombs[0]; i++)
        for (int jit_off = 0; jit_off < 2; jit_off++)
            if (exit_status_of(bombs[i], jit_off) != 42)
                fail_msg("passed the limit: %s", bombs[i]);
    /* Garbage is no growth: 200 MB made and dropped, with 6 of 16 MB kept. */
    for (int jit_off = 0; jit_off < 2; jit_off++)
        assert_int_equal(exit_status_of("local keep = {} for i = 1, 6 do keep[i] = "
                                        "('x'):rep(1024 * "
                                        "1000) .. i end for i = 1, 2000 do local s = ('y'):rep(100 "
                                        "* 1000) .. i end out(#keep)", jit_off), 0);
}

static void a_failed_row_leaves_nothing(void **state)
{
    (void)state;
    assert_true(harness_open(&h, "return { name = 'm', tables = { t = { columns = { 'a text', "
                                 "'b int' } } }, map = function(blob, emit) "
                                 "emit.t { a = 'first', b = 1 } pcall(emit.t, { a = 'half', b "
                                 "= 'x' })"
                                 "emit.t { a = 'last', b = 2 } end }", false));
    assert_string_equal(harness_map(&h, ""), "t:\"first\"|1\nt:\"last\"|2\n");
}

static void a_blob_lives_one_call(void **state)
{
    (void)state;
    assert_true(harness_open(&h, "local kept\nreturn { name = 'm', tables = { t = { columns = "
                                 "{ 'v int' } } }, map = function(blob, emit) kept = kept or blob "
                                 "emit.t { v = kept.size } end }", false));
    assert_string_equal(harness_map(&h, "abc"), "t:3\n");
    harness_map(&h, "abcd");
    assert_int_equal(h.outcome, RF_ENV_FAILED);
    assert_non_null(strstr(h.message, "this blob was of another call"));
}

static void matches(void **state)
{
    static const char by_name[] =
        "return { name = 'm', match = { media = 'text/*', name = { '*.json' } }, "
        "tables = { t = { columns = { 'v text' } } }, "
        "map = function(blob, emit) emit.t { v = blob.media } end }";
    static const char by_function[] =
        "return { name = 'm', on = 'file', match = function(blob) return blob:sub(1, 2) == "
        "'ab' end,"
        "tables = { t = { columns = { 'v text' } } }, "
        "map = function(blob, emit) emit.t { v = blob.name } end }";

    (void)state;
    assert_true(harness_open(&h, by_name, false));
    assert_string_equal(harness_map(&h, "plain words\n"), "t:\"text/plain\"\n");
    harness_map(&h, "{\"a\":1}");
    assert_int_equal(h.outcome, RF_ENV_NONE);
    h.item.kind = RF_ITEM_FILE;
    h.item.name = "dir/X.JSON";
    assert_string_equal(harness_map(&h, "{\"a\":1}"), "t:\"application/json\"\n");
    h.item.kind = RF_ITEM_PART; /* has no name */
    harness_map(&h, "{\"a\":1}");
    assert_int_equal(h.outcome, RF_ENV_NONE);
    assert_true(harness_open(&h, by_function, false));
    h.item.kind = RF_ITEM_FILE;
    assert_string_equal(harness_map(&h, "abc"), "t:\"dir/X.JSON\"\n");
    harness_map(&h, "xabc");
    assert_int_equal(h.outcome, RF_ENV_NONE);
    h.item.kind = RF_ITEM_BLOB;
    harness_map(&h, "abc");
    assert_int_equal(h.outcome, RF_ENV_NONE);
}

static void checks_the_declaration(void **state)
{
    static const struct {
        const char *text;
        const char *words;
    } cases[] = {
        {"return { nam = 'x' }", "unknown field 'nam', did you mean 'name'?"},
        {"return { name = 'x' }", "field 'map' is missing"},
        {"return { name = 5, map = print }", "field 'name' cannot be a number"},
        {"return { name = 'x', map = print, tables = { t = { colums = {} } } }",
         "test.lua: tables.t: unknown field 'colums', did you mean 'columns'?"},
        {"return { name = 'x', map = print, tables = { t = { columns = { 'a txt' } } } }", "txt"},
        {"return { name = 'x', map = print, tables = { t = { columns = { 'a' } } } }",
         "tables.t.columns[1]: the type is missing"},
        {"return { name = 'x', map = print, tables = { t = { columns = { 'a text serch' } } } }",
         "'serch' is neither"},
        {"return { name = 'x', map = print, tables = { part = { columns = { 'a text' } } } }",
         "cannot be called 'part'"},
        {"return { name = 'x', map = print, limits = { rows = 0 } }", "limits.rows"},
        {"return { name = 'x', map = print, match = {} }", "names neither"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (harness_open(&h, cases[i].text, false))
            fail_msg("accepted: %s", cases[i].text);
        if (!strstr(h.err.message, cases[i].words))
            fail_msg("%s\n  gave: %s\n  want: %s", cases[i].text, h.err.message, cases[i].words);
    }
}

static void traces(void **state)
{
    (void)state;
    assert_true(harness_open(&h, "return { name = 'm', tables = { t = { columns = { 'v text' } } },"
                                 "\nmap = function(blob, emit)\nlocal d = "
                                 "refuge.json.decode('[1]')\n"
                                 "print('seen', d[1])\nemit.t { v = 'x' }\nend }", false));
    harness_map_bytes(&h, rf_bytes_text(""), &h.trace);
    assert_non_null(strstr(rf_buf_text(&h.trace), "test.lua:3: decode\n"));
    assert_non_null(strstr(rf_buf_text(&h.trace), "test.lua:4: seen\t1\n"));
    assert_non_null(strstr(rf_buf_text(&h.trace), "test.lua:5: emit.t { v=\"x\" }\n"));
}

static void tells_tests(void **state)
{
    static const char text[] =
        "return { name = 'm', map = print, tables = { t = { columns = { 'v int' } } }, tests = {"
        "{ name = 'one', blob = { a = { 1, 2 } }, rows = { t = { { v = 1 } } } },"
        "{ blob = 'text', filename = 'x.txt', rows = { t = {} }, parts = 2 } } }";
    struct rf_env_options options = {.out_of_memory = harness_oom, .module = harness_find};
    struct rf_env *env;
    struct rf_buf json;

    (void)state;
    rf_buf_init(&json, 4096);
    assert_int_equal(rf_env_open(&env, "test.lua", rf_bytes_text(text), NULL, &options, &h.err),
                     RF_OK);
    assert_int_equal(rf_env_tests(env, &json, &h.err), RF_OK);
    assert_string_equal(rf_buf_text(&json),
                        "[{\"name\":\"one\",\"blob\":\"{\\\"a\\\":[1,2]}\",\"rows\":{\"t\":"
                        "[{\"v\":1}]}},{\"filename\":\"x.txt\",\"blob\":\"text\",\"rows\":{\"t\":"
                        "[]},\"parts\":2}]");
    rf_env_close(env);
    rf_buf_release(&json);
}

int main(void)
{
    /* What is freed is overwritten: a state that LuaJIT, which no sanitizer sees into, reads after
     * it freed it must not look whole when it is closed. */
    mallopt(M_PERTURB, 0xa5);
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(refuses_what_is_not_on_the_list),
        TEST(refuses_byte_code),
        TEST(freezes),
        TEST(requires_while_loading),
        TEST(goes_through_tables_in_order),
        TEST(pairs_is_right_when_compiled),
        TEST(shows_no_addresses),
        TEST(keeps_integers_exact),
        TEST(names_errors),
        TEST(limits_stick),
        TEST(the_heap_has_a_limit),
        TEST(a_failed_row_leaves_nothing),
        TEST(a_blob_lives_one_call),
        TEST(matches),
        TEST(checks_the_declaration),
        TEST(traces),
        TEST(tells_tests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
