/* test_conf.c - configuration: the data subset of Lua, JSON, option tables */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/conf.h"

static const char *const levels[] = {"error", "warn", "info", "debug", NULL};

static const struct rf_option log_options[] = {
    {.name = "level", .type = RF_OPTION_TEXT, .preset = "info", .choices = levels, .help =
     "how much is said"},
    {.name = "file", .type = RF_OPTION_PATH, .help = "where to"},
    {0},
};

static const struct rf_option index_options[] = {
    {.name = "sink", .type = RF_OPTION_TEXT, .required = true, .help = "where rows go"},
    {.name = "batch_items", .type = RF_OPTION_INT, .preset = "10000", .min = 1, .max = 1000000,
     .help = "items"},
    {.name = "cache", .type = RF_OPTION_SIZE, .preset = "64M", .min = 65536, .max = 1 << 30,
     .help = "memory"},
    {.name = "wait", .type = RF_OPTION_DURATION, .preset = "500ms", .min = 0, .max = 3600000,
     .help = "at most"},
    {.name = "follow", .type = RF_OPTION_BOOL, .preset = "true", .help = "go on"},
    {.name = "mappers", .type = RF_OPTION_TEXTS, .help = "which"},
    {0},
};

static const struct rf_section sections[] = {
    {.name = "log", .options = log_options, .help = "what is said"},
    {.name = "index", .named = true, .options = index_options, .help = "what is kept"},
    {0},
};

static const char lua_text[] = "-- a comment\n"
                               "return {\n"
                               "    log = { level = 'debug'; file = [[/var/log/it's \"mine\"]] },\n"
                               "    --[[ a longer\n"
                               "         one ]] index = {\n"
                               "        main = {\n"
                               "            sink = \"sqlite:index/main.db\", batch_items = 500,\n"
                               "            cache = \"1G\", wait = \"2s\", follow = false,\n"
                               "            mappers = { \"bundled:record\", \"a\\tb\\65\\x42\\u{"
                               "e9}\\u{20ac}\\u{1F600}\", },\n"
                               "        },\n"
                               "        [\"second-one\"] = { [ 'sink' ] = [==[\na]]b]==], cache = "
                               "131072, mappers = 'one' },\n"
                               "    },\n"
                               "}\n";

static void parse(struct rf_conf *conf, struct rf_arena *arena, const char *text)
{
    struct rf_error err = {0};
    char *copy = malloc(strlen(text) + 1);

    assert_non_null(copy);
    memcpy(copy, text, strlen(text));
    rf_arena_init(arena, 16 << 20);
    if (rf_conf_parse(conf, arena, "refuge.conf", rf_bytes(copy, strlen(text)), &err) != RF_OK ||
        rf_conf_check(conf, sections, &err) != RF_OK)
        fail_msg("%s", err.message);
    free(copy);
}

static void expect_values(const struct rf_conf *conf)
{
    const struct rf_json *log = rf_conf_find(conf, "log", NULL), *main_ =
        rf_conf_find(conf, "index", "main");
    const struct rf_json *second = rf_conf_find(conf, "index", "second-one");
    struct rf_setting setting;

    assert_non_null(log);
    assert_non_null(main_);
    assert_non_null(second);
    assert_null(rf_conf_find(conf, "index", "third"));
    assert_string_equal(rf_conf_get(log, log_options, "level").text, "debug");
    assert_string_equal(rf_conf_get(log, log_options, "file").text, "/var/log/it's \"mine\"");
    assert_int_equal(rf_conf_get(main_, index_options, "batch_items").number, 500);
    assert_int_equal(rf_conf_get(main_, index_options, "cache").number, 1 << 30);
    assert_int_equal(rf_conf_get(main_, index_options, "wait").number, 2000);
    assert_false(rf_conf_get(main_, index_options, "follow").flag);
    setting = rf_conf_get(main_, index_options, "mappers");
    assert_int_equal(setting.count, 2);
    assert_string_equal(rf_setting_text(&setting, 0), "bundled:record");
    assert_string_equal(rf_conf_get(second, index_options, "sink").text, "a]]b");
    setting = rf_conf_get(second, index_options, "cache");
    assert_true(setting.given && setting.number == 131072);
    setting = rf_conf_get(second, index_options, "mappers");
    assert_int_equal(setting.count, 1);
    assert_string_equal(rf_setting_text(&setting, 0), "one");
    /* What is not given. */
    setting = rf_conf_get(second, index_options, "batch_items");
    assert_true(!setting.given && setting.present && setting.number == 10000);
    assert_true(rf_conf_get(second, index_options, "follow").flag);
    assert_int_equal(rf_conf_get(NULL, index_options, "wait").number, 500);
    assert_int_equal(rf_conf_get(NULL, index_options, "cache").number, 64 << 20);
    assert_false(rf_conf_get(NULL, log_options, "file").present);
    assert_int_equal(rf_conf_get(NULL, index_options, "mappers").count, 0);
}

static void reads_lua(void **state)
{
    struct rf_arena arena;
    struct rf_conf conf;
    struct rf_setting setting;

    (void)state;
    parse(&conf, &arena, lua_text);
    expect_values(&conf);
    setting = rf_conf_get(rf_conf_find(&conf, "index", "main"), index_options, "mappers");
    assert_int_equal(setting.line, 9);
    assert_string_equal(rf_setting_text(&setting, 1), "a\tbAB\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
    rf_arena_release(&arena);
    parse(&conf, &arena, "{ index = { a = { sink = 'x' } } }");
    rf_arena_release(&arena);
    parse(&conf, &arena, "return {};");
    assert_null(rf_conf_find(&conf, "log", NULL));
    rf_arena_release(&arena);
}

static void reads_json(void **state)
{
    struct rf_arena arena;
    struct rf_conf conf;

    (void)state;
    parse(&conf, &arena,
          "{\"log\": {\"level\": \"debug\", \"file\": \"/var/log/it's \\\"mine\\\"\"},\n"
          "\"index\": {\"main\": {\"sink\": \"sqlite:index/main.db\", \"batch_items\": 500, "
          "\"cache\": \"1G\",\n"
          "\"wait\": \"2s\", \"follow\": false, \"mappers\": [\"bundled:record\", \"b\"]},\n"
          "\"second-one\": {\"sink\": \"a]]b\", \"cache\": 131072, \"mappers\": \"one\"}}}");
    expect_values(&conf);
    rf_arena_release(&arena);
}

static void expect_refused(const char *text, const char *words)
{
    struct rf_arena arena;
    struct rf_conf conf;
    struct rf_error err = {0};
    enum rf_status status;

    rf_arena_init(&arena, 16 << 20);
    status = rf_conf_parse(&conf, &arena, "refuge.conf", rf_bytes_text(text), &err);
    if (status == RF_OK)
        status = rf_conf_check(&conf, sections, &err);
    if (status == RF_OK || strcmp(err.message, words) != 0)
        fail_msg("%s\n says '%s'\n not  '%s'", text, status == RF_OK ? "fine" : err.message, words);
    rf_arena_release(&arena);
}

#define ALLOWED "allowed are strings, numbers, true, false and tables"

static void refuses_what_could_run(void **state)
{
    (void)state;
    expect_refused("return { log = { level = os.getenv('X') } }",
                   "refuge.conf:1: 'os' is no value: " ALLOWED);
    expect_refused("return {\n log = { level = function() end } }",
                   "refuge.conf:2: 'function' is no value: " ALLOWED);
    expect_refused("local x = 1\nreturn { }",
                   "refuge.conf:1: a configuration is one table: return { section = { option = "
                   "value } }");
    expect_refused("return { log = { level = 'a' .. 'b' } }",
                   "refuge.conf:1: expected ',' or '}' behind a value (no operators or calls)");
    expect_refused("return { index = { a = { batch_items = 2 * 3 } } }",
                   "refuge.conf:1: expected ',' or '}' behind a value (no operators or calls)");
    expect_refused("return { log = require 'x' }",
                   "refuge.conf:1: 'require' is no value: " ALLOWED);
    expect_refused("return { log = nil }", "refuge.conf:1: 'nil' is no value: " ALLOWED);
    expect_refused("return { [1] = 2 }", "refuge.conf:1: expected a name in quotes behind '['");
    expect_refused("return { } , 2", "refuge.conf:1: nothing may follow the table");
    expect_refused("return { log = #x }", "refuge.conf:1: expected a value: " ALLOWED);
    expect_refused("",
                   "refuge.conf:1: a configuration is one table: return { section = { option = "
                   "value } }");
}

static void refuses_what_is_broken(void **state)
{
    (void)state;
    expect_refused("return {\n\nlog = {\n",
                   "refuge.conf:4: the table that begins in line 3 is not closed with '}'");
    expect_refused("return { log = 'x", "refuge.conf:1: a string without its closing quote");
    expect_refused("return { log = 'x\n' }", "refuge.conf:1: a string without its closing quote");
    expect_refused("return {\n log = [[x }", "refuge.conf:2: '[[' without its ']]'");
    expect_refused("return { --[[ x\n }", "refuge.conf:1: '[[' without its ']]'");
    expect_refused("return { log = '\\q' }", "refuge.conf:1: unknown escape in a string");
    expect_refused("return { log = '\\u{110000}' }",
                   "refuge.conf:1: \\u{...} needs the hexadecimal number of a character");
    expect_refused("return { log = '\\u{d800}' }",
                   "refuge.conf:1: a string must be UTF-8 text without NUL");
    expect_refused("return { log = '\\256' }", "refuge.conf:1: an escape above \\255");
    expect_refused("return { log = '\\0' }",
                   "refuge.conf:1: a string must be UTF-8 text without NUL");
    expect_refused("return { log = '\\xff' }",
                   "refuge.conf:1: a string must be UTF-8 text without NUL");
    expect_refused("return { log = 64M }",
                   "refuge.conf:1: not a number (write sizes and durations as strings: \"64M\", "
                   "\"30s\")");
    expect_refused("return { log = 0x }",
                   "refuge.conf:1: a hexadecimal number needs 1 to 15 digits");
    expect_refused("return { log = {},\n log = {} }",
                   "refuge.conf:2: 'log' was set in line 1 already");
    expect_refused("return { log = { 1, level = 2 } }",
                   "refuge.conf:1: a table holds either names or a list, not both");
    expect_refused("return { end = 1 }",
                   "refuge.conf:1: 'end' is a word of Lua; write [\"end\"] =");
    expect_refused("return { 1, 2 }",
                   "refuge.conf:1: the outer table holds sections: name = { ... }");
    expect_refused("return { log = {{{{{{{{{{{{{{{{{{{{}}}}}}}}}}}}}}}}}}}} }",
                   "refuge.conf:1: tables nested deeper than 16");
    expect_refused("{\"log\":\n {\"level\" 1}}", "refuge.conf:2: column 11: expected ':'");
    expect_refused("{\"log\":{},\"log\":{}}",
                   "refuge.conf:1: column 20: the object ending here has two members of one name, "
                   "but the text ends here");
}

static void checks_against_the_tables(void **state)
{
    (void)state;
    expect_refused("return {\n stroe = {} }", "refuge.conf:2: unknown section 'stroe'");
    expect_refused("return {\n lgo = {} }",
                   "refuge.conf:2: unknown section 'lgo', did you mean 'log'?");
    expect_refused("return { index = { main = { sink = 'x',\n bach_items = 1 } } }",
                   "refuge.conf:2: unknown option 'bach_items' in index 'main', did you mean "
                   "'batch_items'?");
    expect_refused("return { log = { colour = true } }",
                   "refuge.conf:1: unknown option 'colour' in section 'log'");
    expect_refused("return { log = 'x' }",
                   "refuge.conf:1: expected a table of options in section 'log', not a string");
    expect_refused("return { index = { main = 1 } }",
                   "refuge.conf:1: expected a table of options in index 'main', not a number");
    expect_refused("return { index = { 1 } }",
                   "refuge.conf:1: section 'index' holds tables by name: index = { NAME = { ... } "
                   "}, not a list");
    expect_refused("return { index = { Main = {} } }",
                   "refuge.conf:1: the name 'Main' in section 'index' must be a-z, 0-9, '_' or "
                   "'-', at most 48");
    expect_refused("return { index = { main = { } } }",
                   "refuge.conf:1: option 'sink' is missing in index 'main'");
    expect_refused("return { log = { level = 'wran' } }",
                   "refuge.conf:1 in section 'log': option 'level': unknown value 'wran', did you "
                   "mean 'warn'?");
    expect_refused("return { log = { level = 'loud!!' } }",
                   "refuge.conf:1 in section 'log': option 'level': unknown value 'loud!!', "
                   "allowed are 'error', 'warn', 'info', 'debug'");
    expect_refused("return { log = { level = 1 } }",
                   "refuge.conf:1 in section 'log': option 'level' must be a string, not a number");
}

static void values_have_types_and_bounds(void **state)
{
    static const struct {
        const char *option, *words;
    } cases[] = {
        {"batch_items = 0", "option 'batch_items' must be from 1 to 1000000"},
        {"batch_items = 1000001", "option 'batch_items' must be from 1 to 1000000"},
        {"batch_items = 1.5", "option 'batch_items' must be a whole number, not '1.5'"},
        {"batch_items = '7'", "option 'batch_items' must be a whole number, not a string"},
        {"batch_items = 99999999999999999999",
         "option 'batch_items' must be a whole number, not '99999999999999999999'"},
        {"cache = '1X'",
         "option 'cache' must be a size: a number of bytes, or a string like \"64M\" (k, M, G, T),"
         " not '1X'"},
        {"cache = 'M'",
         "option 'cache' must be a size: a number of bytes, or a string like \"64M\" (k, M, G, T),"
         " not 'M'"},
        {"cache = '2G'", "option 'cache' must be from 64k to 1G"},
        {"cache = '8388607T'", "option 'cache' must be from 64k to 1G"},
        {"cache = '9999999T'",
         "option 'cache' must be a size: a number of bytes, or a string like \"64M\" (k, M, G, T),"
         " not '9999999T'"},
        {"cache = 1", "option 'cache' must be from 64k to 1G"},
        {"wait = 500",
         "option 'wait' must be a duration: a string like \"500ms\", \"30s\", \"5m\", \"12h\", "
         "\"7d\", not a number"},
        {"wait = '500'",
         "option 'wait' must be a duration: a string like \"500ms\", \"30s\", \"5m\", \"12h\", "
         "\"7d\", not '500'"},
        {"wait = '2h'", "option 'wait' must be from 0ms to 1h"},
        {"wait = '-1s'", "option 'wait' must be from 0ms to 1h"},
        {"follow = 1", "option 'follow' must be true or false, not a number"},
        {"follow = 'true'", "option 'follow' must be true or false, not a string"},
        {"mappers = { 1 }", "option 'mappers' must be a list of strings, not a list"},
        {"mappers = { a = 'b' }", "option 'mappers' must be a list of strings, not a table"},
        {"mappers = true", "option 'mappers' must be a list of strings, not a boolean"},
    };
    char text[300], words[300];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(text, sizeof text, "return { index = { main = { sink = 'x',\n %s } } }",
                 cases[i].option);
        snprintf(words, sizeof words, "refuge.conf:2 in index 'main': %s", cases[i].words);
        expect_refused(text, words);
    }
    expect_refused("{\"log\":{\"file\":\"a\\u0000b\"}}",
                   "refuge.conf:1 in section 'log': option 'file' must be a path as a string, not "
                   "one with a NUL");
}

static void units_mean_what_they_say(void **state)
{
    static const struct {
        const struct rf_option *option;
        const char *text;
        int64_t value;
    } cases[] = {
        {&index_options[2], "65536", 65536}, {&index_options[2], "64k", 65536},
            {&index_options[2], "3M", 3 << 20},
        {&index_options[2], "1G", 1 << 30}, {&index_options[3], "1500ms", 1500},
            {&index_options[3], "7s", 7000},
        {&index_options[3], "5m", 300000}, {&index_options[3], "1h", 3600000},
            {&index_options[1], "42", 42},
    };
    struct rf_option wide = {.name = "w", .type = RF_OPTION_SIZE, .min = -5};
    struct rf_setting setting;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(rf_option_parse(cases[i].option, cases[i].text, &setting, NULL), RF_OK);
        assert_int_equal(setting.number, cases[i].value);
    }
    assert_int_equal(rf_option_parse(&wide, "9223372036854775807", &setting, NULL), RF_OK);
    assert_int_equal(rf_option_parse(&wide, "9223372036854775808", &setting, NULL), RF_INVALID);
    assert_int_equal(rf_option_parse(&wide, "8388607T", &setting, NULL), RF_OK);
    assert_int_equal(rf_option_parse(&wide, "8388608T", &setting, NULL), RF_INVALID);
    assert_int_equal(rf_option_parse(&wide, "-5", &setting, NULL), RF_OK);
    assert_int_equal(rf_option_parse(&wide, "", &setting, NULL), RF_INVALID);
    assert_int_equal(rf_option_parse(&wide, "-", &setting, NULL), RF_INVALID);
}

static void reads_files(void **state)
{
    char path[] = "/tmp/refuge-conf-XXXXXX";
    int fd = mkstemp(path);
    struct rf_arena arena;
    struct rf_conf conf;
    struct rf_error err = {0};
    char blank[65536];

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(write(fd, lua_text, sizeof lua_text - 1), sizeof lua_text - 1);
    rf_arena_init(&arena, 16 << 20);
    assert_int_equal(rf_conf_read(&conf, &arena, path, &err), RF_OK);
    assert_string_equal(conf.file, path);
    expect_values(&conf);
    memset(blank, ' ', sizeof blank);
    for (int i = 0; i < 17; i++)
        assert_int_equal(write(fd, blank, sizeof blank), sizeof blank);
    assert_int_equal(rf_conf_read(&conf, &arena, path, &err), RF_LIMIT);
    close(fd);
    unlink(path);
    rf_error_clear(&err);
    assert_int_equal(rf_conf_read(&conf, &arena, path, &err), RF_NOT_FOUND);
    assert_non_null(strstr(err.message, "No such file"));
    rf_arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_lua),
        cmocka_unit_test(reads_json),
        cmocka_unit_test(refuses_what_could_run),
        cmocka_unit_test(refuses_what_is_broken),
        cmocka_unit_test(checks_against_the_tables),
        cmocka_unit_test(values_have_types_and_bounds),
        cmocka_unit_test(units_mean_what_they_say),
        cmocka_unit_test(reads_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
