/*
 * conf.c - the data subset of Lua, by hand, and the check against option tables
 *
 * The parser is a lexer's worth of functions over one cursor; tables recurse no deeper than
 * RF_CONF_DEPTH_MAX. Values of tables still open wait on one stack, as in json.c.
 */
#include "core/conf.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/json_scan.h"
#include "core/utf8.h"

/* ---- the data subset of Lua ---- */

struct lua {
    const char *file;
    const uint8_t *p, *end;
    uint32_t line;
    struct rf_arena *arena;
    struct rf_json *values;
    size_t count, capacity;
    unsigned depth;
    struct rf_error *err;
};

#define ALLOWED "allowed are strings, numbers, true, false and tables"

static enum rf_status wrong(struct lua *lua, const char *what)
{
    return rf_error_set(lua->err, RF_INVALID, "%s:%u: %s", lua->file, lua->line, what);
}

static enum rf_status too_large(struct lua *lua)
{
    return rf_error_set(lua->err, RF_LIMIT, "%s: the configuration is too large", lua->file);
}

static bool is_alpha(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static int peek(const struct lua *lua, size_t ahead)
{
    return (size_t)(lua->end - lua->p) > ahead ? lua->p[ahead] : -1;
}

static void pass(struct lua *lua)
{
    lua->line += *lua->p == '\n';
    lua->p++;
}

/* At '[': the number of '=' when a long bracket opens here, or -1. */
static int long_level(const struct lua *lua)
{
    size_t level = 0;

    while (peek(lua, 1 + level) == '=' && level < 100)
        level++;
    return peek(lua, 1 + level) == '[' ? (int)level : -1;
}

/* At the '[' of a long bracket: its content, without a newline right behind the opening. */
static enum rf_status take_long(struct lua *lua, int level, struct rf_bytes *out)
{
    uint32_t began = lua->line;
    const uint8_t *first;

    lua->p += 2 + level;
    if (peek(lua, 0) == '\r')
        pass(lua);
    if (peek(lua, 0) == '\n')
        pass(lua);
    first = lua->p;
    for (; lua->p < lua->end; pass(lua)) {
        int seen = 0;
        if (*lua->p != ']')
            continue;
        while (peek(lua, 1 + (size_t)seen) == '=' && seen < level)
            seen++;
        if (seen == level && peek(lua, 1 + (size_t)level) == ']') {
            *out = rf_bytes(first, (size_t)(lua->p - first));
            lua->p += 2 + level;
            return RF_OK;
        }
    }
    lua->line = began;
    return wrong(lua, "'[[' without its ']]'");
}

/* Skip blanks and comments. */
static enum rf_status skip_space(struct lua *lua)
{
    struct rf_bytes ignored;
    enum rf_status status;
    int c, level;

    for (;;) {
        c = peek(lua, 0);
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f') {
            pass(lua);
        } else if (c == '-' && peek(lua, 1) == '-') {
            lua->p += 2;
            level = peek(lua, 0) == '[' ? long_level(lua) : -1;
            if (level >= 0) {
                status = take_long(lua, level, &ignored);
                if (status != RF_OK)
                    return status;
            } else {
                while (lua->p < lua->end && *lua->p != '\n')
                    lua->p++;
            }
        } else {
            return RF_OK;
        }
    }
}

static enum rf_status keep_text(struct lua *lua, struct rf_bytes text, struct rf_bytes *out)
{
    const char *copy;

    if (rf_utf8_valid(text) != text.size || (text.size && memchr(text.data, 0, text.size)))
        return wrong(lua, "a string must be UTF-8 text without NUL");
    copy = rf_arena_copy(lua->arena, text.data, text.size);
    if (!copy)
        return too_large(lua);
    *out = rf_bytes(copy, text.size);
    return RF_OK;
}

static int hex_value(int c)
{
    if (is_digit(c))
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* At "u{": the UTF-8 of a code point. The result is checked with the whole string. */
static enum rf_status take_code(struct lua *lua, uint8_t *out, size_t *size)
{
    uint32_t code = 0;
    size_t digits = 2;

    while (hex_value(peek(lua, digits)) >= 0 && code < 0x110000)
        code = code << 4 | (uint32_t)hex_value(peek(lua, digits++));
    if (digits == 2 || code > 0x10ffff || peek(lua, digits) != '}')
        return wrong(lua, "\\u{...} needs the hexadecimal number of a character");
    lua->p += digits + 1;
    if (code < 0x80) {
        out[(*size)++] = (uint8_t)code;
        return RF_OK;
    }
    if (code >= 0x10000) {
        out[(*size)++] = (uint8_t)(0xf0 | code >> 18);
        out[(*size)++] = (uint8_t)(0x80 | (code >> 12 & 0x3f));
    } else if (code >= 0x800) {
        out[(*size)++] = (uint8_t)(0xe0 | code >> 12);
    }
    if (code >= 0x800)
        out[(*size)++] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
    else
        out[(*size)++] = (uint8_t)(0xc0 | code >> 6);
    out[(*size)++] = (uint8_t)(0x80 | (code & 0x3f));
    return RF_OK;
}

/* Behind the backslash: append what the escape stands for. */
static enum rf_status take_escape(struct lua *lua, uint8_t *out, size_t *size)
{
    static const char letters[] = "abfnrtv", stands[] = "\a\b\f\n\r\t\v";
    int c = peek(lua, 0), value = 0;
    const char *letter = c > 0 ? strchr(letters, c) : NULL;

    if (letter) {
        out[(*size)++] = (uint8_t)stands[letter - letters];
        pass(lua);
    } else if (c == '\\' || c == '"' || c == '\'' || c == '\n') {
        out[(*size)++] = (uint8_t)c;
        pass(lua);
    } else if (c == 'x' && hex_value(peek(lua, 1)) >= 0 && hex_value(peek(lua, 2)) >= 0) {
        out[(*size)++] = (uint8_t)(hex_value(peek(lua, 1)) * 16 + hex_value(peek(lua, 2)));
        lua->p += 3;
    } else if (c == 'u' && peek(lua, 1) == '{') {
        return take_code(lua, out, size);
    } else if (is_digit(c)) {
        for (int i = 0; i < 3 && is_digit(peek(lua, 0)); i++, lua->p++)
            value = value * 10 + peek(lua, 0) - '0';
        if (value > 255)
            return wrong(lua, "an escape above \\255");
        out[(*size)++] = (uint8_t)value;
    } else if (c == 'z') {
        for (lua->p++; peek(lua, 0) == ' ' || (peek(lua, 0) >= '\t' && peek(lua, 0) <= '\r');)
            pass(lua);
    } else {
        return wrong(lua, "unknown escape in a string");
    }
    return RF_OK;
}

/* Bytes up to the closing quote; escapes only shrink, so the content is never longer. */
static size_t quoted_size(const struct lua *lua, int quote)
{
    size_t size = 0;
    int c;

    while ((c = peek(lua, size)) >= 0 && c != quote)
        size += c == '\\' ? 2 : 1;
    return size;
}

static enum rf_status take_quoted(struct lua *lua, struct rf_bytes *out)
{
    int quote = *lua->p++, c;
    uint8_t *text = rf_arena_try(lua->arena, quoted_size(lua, quote) + 1);
    enum rf_status status;
    size_t size = 0;

    if (!text)
        return too_large(lua);
    while ((c = peek(lua, 0)) != quote) {
        if (c < 0 || c == '\n')
            return wrong(lua, "a string without its closing quote");
        lua->p++;
        if (c != '\\') {
            text[size++] = (uint8_t)c;
            continue;
        }
        status = take_escape(lua, text, &size);
        if (status != RF_OK)
            return status;
    }
    lua->p++;
    return keep_text(lua, rf_bytes(text, size), out);
}

/* A number, kept as JSON writes it. */
static enum rf_status take_number(struct lua *lua, struct rf_bytes *out)
{
    struct rf_json_scan scan;
    struct rf_json_number number;
    uint64_t value = 0;
    char text[32];
    bool negative = *lua->p == '-';
    size_t digits = 0;

    if (peek(lua, negative) == '0' && (peek(lua, negative + 1u) | 0x20) == 'x') {
        for (lua->p += 2 + negative; hex_value(peek(lua, 0)) >= 0; lua->p++, digits++)
            value = value << 4 | (uint64_t)hex_value(peek(lua, 0));
        if (digits == 0 || digits > 15)
            return wrong(lua, "a hexadecimal number needs 1 to 15 digits");
        snprintf(text, sizeof text, "%s%llu", negative ? "-" : "", (unsigned long long)value);
        if (is_alpha(peek(lua, 0)) || peek(lua, 0) == '.')
            return wrong(lua, "not a number");
        return keep_text(lua, rf_bytes_text(text), out);
    }
    rf_json_scan_init(&scan, rf_bytes(lua->p, (size_t)(lua->end - lua->p)));
    if (!rf_json_number_next(&scan, &number) || is_alpha(scan.p < lua->end ? *scan.p : -1))
        return wrong(lua, "not a number (write sizes and durations as strings: \"64M\", \"30s\")");
    lua->p = scan.p;
    return keep_text(lua, number.text, out);
}

static enum rf_status push(struct lua *lua, const struct rf_json *value)
{
    size_t capacity = lua->capacity ? 2 * lua->capacity : 32;
    struct rf_json *grown;

    if (lua->count == lua->capacity) {
        grown = realloc(lua->values, capacity * sizeof *grown);
        if (!grown)
            return rf_error_set(lua->err, RF_NOMEM, "%s: out of memory", lua->file);
        lua->values = grown;
        lua->capacity = capacity;
    }
    lua->values[lua->count++] = *value;
    return RF_OK;
}

static struct rf_bytes word_here(const struct lua *lua)
{
    size_t size = 0;

    while (is_alpha(peek(lua, size)) || (size > 0 && is_digit(peek(lua, size))))
        size++;
    return rf_bytes(lua->p, size);
}

static bool is_keyword(struct rf_bytes word)
{
    static const char *const keywords[] = {
        "and",   "break", "do",  "else", "elseif", "end",    "false", "for",  "function", "goto",
            "if",
        "in",    "local", "nil", "not",  "or",     "repeat", "return", "then", "true",    "until",
            "while"};

    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
        if (rf_bytes_equal(word, rf_bytes_text(keywords[i])))
            return true;
    return false;
}

static enum rf_status take_table(struct lua *lua, struct rf_json *value);

static enum rf_status take_value(struct lua *lua, struct rf_json *value)
{
    int c = peek(lua, 0), level;
    struct rf_bytes word = word_here(lua), text;
    enum rf_status status;

    value->line = lua->line;
    if (c == '{')
        return take_table(lua, value);
    if (c == '"' || c == '\'') {
        value->type = RF_JSON_STRING;
        return take_quoted(lua, &value->text);
    }
    if (c == '[' && (level = long_level(lua)) >= 0) {
        value->type = RF_JSON_STRING;
        status = take_long(lua, level, &text);
        return status == RF_OK ? keep_text(lua, text, &value->text) : status;
    }
    if (is_digit(c) || (c == '-' && is_digit(peek(lua, 1)))) {
        value->type = RF_JSON_NUMBER;
        return take_number(lua, &value->text);
    }
    if (rf_bytes_equal(word, rf_bytes_text("true")) || rf_bytes_equal(word,
                                                                      rf_bytes_text("false"))) {
        value->type = word.size == 4 ? RF_JSON_TRUE : RF_JSON_FALSE;
        lua->p += word.size;
        return RF_OK;
    }
    if (word.size > 0)
        return rf_error_set(lua->err, RF_INVALID, "%s:%u: '%.*s' is no value: " ALLOWED, lua->file,
                            lua->line, (int)(word.size < 60 ? word.size : 60), word.data);
    if (c < 0)
        return wrong(lua, "the file ends where a value should stand");
    return wrong(lua, "expected a value: " ALLOWED);
}

/* `name =` or `["name"] =`, when one stands here; else *named is false. */
static enum rf_status take_key(struct lua *lua, struct rf_bytes *key, bool *named)
{
    struct lua before = *lua;
    struct rf_bytes word = word_here(lua), text;
    enum rf_status status;

    *named = false;
    if (peek(lua, 0) == '[' && long_level(lua) < 0) {
        lua->p++;
        if ((status = skip_space(lua)) != RF_OK)
            return status;
        if (peek(lua, 0) != '"' && peek(lua, 0) != '\'')
            return wrong(lua, "expected a name in quotes behind '['");
        if ((status = take_quoted(lua, key)) != RF_OK || (status = skip_space(lua)) != RF_OK)
            return status;
        if (peek(lua, 0) != ']')
            return wrong(lua, "expected ']'");
        lua->p++;
        if ((status = skip_space(lua)) != RF_OK)
            return status;
        if (peek(lua, 0) != '=' || peek(lua, 1) == '=')
            return wrong(lua, "expected '='");
    } else {
        if (word.size == 0)
            return RF_OK;
        lua->p += word.size;
        if ((status = skip_space(lua)) != RF_OK)
            return status;
        if (peek(lua, 0) != '=' || peek(lua, 1) == '=') { /* a value, or nonsense: not a key */
            lua->p = before.p;
            lua->line = before.line;
            return RF_OK;
        }
        if (is_keyword(word))
            return rf_error_set(lua->err, RF_INVALID,
                                "%s:%u: '%.*s' is a word of Lua; write [\"%.*s\"] =",
                                lua->file, lua->line, (int)word.size, word.data, (int)word.size,
                                word.data);
        text = word;
        if ((status = keep_text(lua, text, key)) != RF_OK)
            return status;
    }
    lua->p++;
    *named = true;
    return skip_space(lua);
}

/* The entries from first on go from the stack into the table. */
static enum rf_status close_table(struct lua *lua, size_t first, struct rf_json *value)
{
    size_t count = lua->count - first;

    for (size_t i = first + 1; value->type == RF_JSON_OBJECT && i < lua->count; i++)
        for (size_t j = first; j < i; j++)
            if (rf_bytes_equal(lua->values[i].key, lua->values[j].key))
                return rf_error_set(lua->err, RF_INVALID, "%s:%u: '%s' was set in line %u already",
                                    lua->file, lua->values[i].line, lua->values[i].key.data,
                                    lua->values[j].line);
    if (count > 0) {
        value->items = rf_arena_try(lua->arena, count * sizeof *value->items);
        if (!value->items)
            return too_large(lua);
        memcpy(value->items, lua->values + first, count * sizeof *value->items);
        value->count = count;
    }
    lua->count = first;
    return RF_OK;
}

#define ENTRIES_MAX 4096 /* of one table */

static enum rf_status take_entry(struct lua *lua, size_t first, struct rf_json *table)
{
    struct rf_json entry = {0};
    enum rf_status status;
    bool named;

    if ((status = take_key(lua, &entry.key, &named)) != RF_OK ||
        (status = take_value(lua, &entry)) != RF_OK)
        return status;
    if (lua->count == first)
        table->type = named ? RF_JSON_OBJECT : RF_JSON_ARRAY;
    else if (named != (table->type == RF_JSON_OBJECT))
        return wrong(lua, "a table holds either names or a list, not both");
    if (lua->count - first == ENTRIES_MAX)
        return too_large(lua);
    return push(lua, &entry);
}

static enum rf_status take_table(struct lua *lua, struct rf_json *value)
{
    size_t first = lua->count;
    enum rf_status status;

    if (lua->depth == RF_CONF_DEPTH_MAX)
        return rf_error_set(lua->err, RF_LIMIT, "%s:%u: tables nested deeper than %d", lua->file,
                            lua->line, RF_CONF_DEPTH_MAX);
    lua->depth++;
    lua->p++;
    value->type = RF_JSON_OBJECT; /* also that of an empty one */
    for (;;) {
        if ((status = skip_space(lua)) != RF_OK)
            return status;
        if (peek(lua, 0) == '}')
            break;
        if (lua->p == lua->end)
            return rf_error_set(lua->err, RF_INVALID,
                                "%s:%u: the table that begins in line %u is not closed with '}'",
                                lua->file, lua->line, value->line);
        if ((status = take_entry(lua, first, value)) != RF_OK || (status =
                                                                  skip_space(lua)) != RF_OK)
            return status;
        if (peek(lua, 0) == ',' || peek(lua, 0) == ';')
            lua->p++;
        else if (peek(lua, 0) != '}' && lua->p != lua->end)
            return wrong(lua, "expected ',' or '}' behind a value (no operators or calls)");
    }
    lua->p++;
    lua->depth--;
    return close_table(lua, first, value);
}

static enum rf_status parse_lua(struct lua *lua, struct rf_json *root)
{
    enum rf_status status = skip_space(lua);
    struct rf_bytes word = word_here(lua);

    if (status != RF_OK)
        return status;
    if (rf_bytes_equal(word, rf_bytes_text("return"))) {
        lua->p += word.size;
        if ((status = skip_space(lua)) != RF_OK)
            return status;
    }
    if (peek(lua, 0) != '{')
        return wrong(lua, "a configuration is one table: return { section = { option = value } }");
    root->line = lua->line;
    if ((status = take_table(lua, root)) != RF_OK || (status = skip_space(lua)) != RF_OK)
        return status;
    if (peek(lua, 0) == ';') {
        lua->p++;
        if ((status = skip_space(lua)) != RF_OK)
            return status;
    }
    if (lua->p != lua->end)
        return wrong(lua, "nothing may follow the table");
    return RF_OK;
}

/* '{' and then '"' or '}': JSON. */
static bool looks_like_json(struct rf_bytes text)
{
    struct rf_json_scan scan;
    int c;

    rf_json_scan_init(&scan, text);
    if (rf_json_space(&scan) != '{')
        return false;
    scan.p++;
    c = rf_json_space(&scan);
    return c == '"' || c == '}';
}

static enum rf_status parse_json(const struct rf_json **root, struct rf_arena *arena,
                                 const char *file, struct rf_bytes text, struct rf_error *err)
{
    struct rf_error cause = {0};
    enum rf_status status = rf_json_parse(root, arena, text, &cause);
    char *rest;
    unsigned long line;

    if (status == RF_OK)
        return RF_OK;
    if (strncmp(cause.message, "line ", 5) == 0) { /* "line 3, column 4: ..." */
        line = strtoul(cause.message + 5, &rest, 10);
        return rf_error_set(err, status, "%s:%lu: %s", file, line, rest + strspn(rest, ", "));
    }
    return rf_error_set(err, status, "%s: %s", file, cause.message);
}

enum rf_status rf_conf_parse(struct rf_conf *out, struct rf_arena *arena, const char *file,
                             struct rf_bytes text, struct rf_error *err)
{
    struct lua lua = {.line = 1, .arena = arena, .err = err};
    struct rf_json *table;
    const struct rf_json *root;
    enum rf_status status;

    lua.file = rf_arena_copy(arena, file, strlen(file));
    if (!lua.file || text.size > RF_CONF_SIZE_MAX)
        return rf_error_set(err, RF_LIMIT, "%s: larger than %u bytes", file, RF_CONF_SIZE_MAX);
    if (looks_like_json(text)) {
        status = parse_json(&root, arena, file, text, err);
    } else {
        lua.p = text.size ? text.data : (const uint8_t *)"";
        lua.end = lua.p + text.size;
        table = rf_arena_alloc(arena, sizeof *table);
        root = table;
        status = parse_lua(&lua, table);
        free(lua.values);
    }
    if (status != RF_OK)
        return status;
    if (root->type != RF_JSON_OBJECT)
        return rf_error_set(err, RF_INVALID,
                            "%s:%u: the outer table holds sections: name = { ... }", file,
                            root->line);
    *out = (struct rf_conf){.file = lua.file, .root = root};
    return RF_OK;
}

enum rf_status rf_conf_read(struct rf_conf *out, struct rf_arena *arena, const char *path,
                            struct rf_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum rf_status status = RF_OK;
    struct rf_buf buf;
    ssize_t got = 1;

    if (fd < 0)
        return rf_error_errno(err,
                              errno == ENOENT ? RF_NOT_FOUND : errno == EACCES ? RF_DENIED : RF_IO,
                              errno, "cannot read configuration '%s'", path);
    rf_buf_init(&buf, RF_CONF_SIZE_MAX + 4096);
    while (got != 0) {
        uint8_t *to = rf_buf_reserve(&buf, 4096);
        if (!to) {
            status = rf_error_set(err, RF_LIMIT, "%s: larger than %u bytes", path,
                                  RF_CONF_SIZE_MAX);
            break;
        }
        got = read(fd, to, 4096);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            status = rf_error_errno(err, RF_IO, errno, "cannot read configuration '%s'", path);
            break;
        }
        buf.size += (size_t)got;
    }
    if (status == RF_OK)
        status = rf_conf_parse(out, arena, path, rf_buf_bytes(&buf), err);
    rf_buf_release(&buf);
    close(fd);
    return status;
}

/* ---- values of options ---- */

const char *rf_option_type_name(enum rf_option_type type)
{
    static const char *const names[] = {"text", "path", "number", "size", "duration",
                                        "true or false", "list"};
    return names[type];
}

static const char *wanted(enum rf_option_type type)
{
    static const char *const wants[] = {
        "a string",
        "a path as a string",
        "a whole number",
        "a size: a number of bytes, or a string like \"64M\" (k, M, G, T)",
        "a duration: a string like \"500ms\", \"30s\", \"5m\", \"12h\", \"7d\"",
        "true or false",
        "a list of strings",
    };
    return wants[type];
}

struct unit {
    const char *name;
    int64_t factor;
};

static const struct unit size_units[] = {{"", 1}, {"k", 1024}, {"M", 1 << 20}, {"G", 1 << 30},
                                         {"T", (int64_t)1 << 40}, {NULL, 0}};
static const struct unit duration_units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000},
                                             {"d", 86400000}, {NULL, 0}};
static const struct unit no_units[] = {{"", 1}, {NULL, 0}};

/* Digits and one of the units; false when it is not that or does not fit. */
static bool parse_units(const char *text, const struct unit *units, int64_t *out)
{
    bool negative = *text == '-';
    int64_t value = 0;
    const char *p = text + negative;

    if (!is_digit(*p))
        return false;
    for (; is_digit(*p); p++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *p - '0', &value))
            return false;
    for (; units->name; units++)
        if (strcmp(p, units->name) == 0) {
            *out = negative ? -value : value;
            return !__builtin_mul_overflow(*out, units->factor, out);
        }
    return false;
}

static const struct unit *units_of(enum rf_option_type type)
{
    if (type == RF_OPTION_SIZE)
        return size_units;
    return type == RF_OPTION_DURATION ? duration_units : no_units;
}

/* A number as a person would write it for this type. */
static void print_units(char *out, size_t size, enum rf_option_type type, int64_t number)
{
    const struct unit *units = units_of(type), *best = &units[0];

    for (; units->name; units++)
        if (number != 0 && number % units->factor == 0)
            best = units;
    snprintf(out, size, "%lld%s", (long long)(number / best->factor), best->name);
}

static enum rf_status check_range(const struct rf_option *option, int64_t number,
                                  struct rf_error *err)
{
    int64_t max = option->max ? option->max : INT64_MAX;
    char low[40], high[40];

    if (number >= option->min && number <= max)
        return RF_OK;
    print_units(low, sizeof low, option->type, option->min);
    print_units(high, sizeof high, option->type, max);
    if (max == INT64_MAX)
        return rf_error_set(err, RF_INVALID, "option '%s' must be at least %s", option->name, low);
    return rf_error_set(err, RF_INVALID, "option '%s' must be from %s to %s", option->name, low,
                        high);
}

static enum rf_status check_choice(const struct rf_option *option, const char *text,
                                   struct rf_error *err)
{
    char list[400] = "";
    size_t used = 0;
    const char *near;

    for (size_t i = 0; option->choices[i]; i++) {
        if (strcmp(option->choices[i], text) == 0)
            return RF_OK;
        if (used < sizeof list)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s'%s'", i ? ", " : "",
                                     option->choices[i]);
    }
    near = rf_nearest(text, option->choices, SIZE_MAX);
    if (near)
        return rf_error_set(err, RF_INVALID, "option '%s': unknown value '%s', did you mean '%s'?",
                            option->name, text, near);
    return rf_error_set(err, RF_INVALID, "option '%s': unknown value '%s', allowed are %s",
                        option->name,
                        text, list);
}

enum rf_status rf_option_parse(const struct rf_option *option, const char *text,
                               struct rf_setting *out, struct rf_error *err)
{
    struct rf_setting setting = {.present = true};
    enum rf_status status = RF_OK;

    assert(option->type != RF_OPTION_TEXTS);
    switch (option->type) {
    case RF_OPTION_TEXT:
    case RF_OPTION_PATH:
        setting.text = text;
        if (option->choices)
            status = check_choice(option, text, err);
        break;
    case RF_OPTION_BOOL:
        setting.flag = strcmp(text, "true") == 0;
        if (!setting.flag && strcmp(text, "false") != 0)
            status = RF_INVALID;
        break;
    default:
        if (!parse_units(text, units_of(option->type), &setting.number))
            status = RF_INVALID;
        else
            status = check_range(option, setting.number, err);
    }
    if (status != RF_OK)
        return rf_error_set(err, status, "option '%s' must be %s, not '%s'", option->name,
                            wanted(option->type), text);
    *out = setting;
    return RF_OK;
}

/* ---- checking the tree ---- */

static const char *kind_of(const struct rf_json *value)
{
    static const char *const kinds[] = {"null", "a boolean", "a boolean", "a number",
                                        "a string", "a list", "a table"};
    return kinds[value->type];
}

static bool is_list(const struct rf_json *value)
{
    return value->type == RF_JSON_ARRAY || (value->type == RF_JSON_OBJECT && value->count == 0);
}

/* Whether the value's kind is one the type can be written as. */
static bool kind_fits(const struct rf_json *value, enum rf_option_type type)
{
    switch (type) {
    case RF_OPTION_TEXT:
    case RF_OPTION_PATH:
    case RF_OPTION_DURATION:
        return value->type == RF_JSON_STRING;
    case RF_OPTION_INT:
        return value->type == RF_JSON_NUMBER;
    case RF_OPTION_SIZE:
        return value->type == RF_JSON_NUMBER || value->type == RF_JSON_STRING;
    case RF_OPTION_BOOL:
        return value->type == RF_JSON_TRUE || value->type == RF_JSON_FALSE;
    case RF_OPTION_TEXTS:
        if (value->type == RF_JSON_STRING)
            return true;
        for (size_t i = 0; is_list(value) && i < value->count; i++)
            if (value->items[i].type != RF_JSON_STRING)
                return false;
        return is_list(value);
    }
    return false;
}

/* No string of a value may hold a NUL: it would be cut there. */
static bool has_nul(const struct rf_json *value)
{
    if (value->type == RF_JSON_STRING && strlen(rf_json_string(value)) != value->text.size)
        return true;
    for (size_t i = 0; i < value->count; i++)
        if (has_nul(&value->items[i]))
            return true;
    return false;
}

static enum rf_status read_setting(const struct rf_option *option, const struct rf_json *value,
                                   struct rf_setting *out, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    if (!kind_fits(value, option->type) || has_nul(value))
        return rf_error_set(err, RF_INVALID, "option '%s' must be %s, not %s", option->name,
                            wanted(option->type),
                                has_nul(value) ? "one with a NUL" : kind_of(value));
    if (option->type == RF_OPTION_TEXTS) {
        *out = (struct rf_setting){.present = true, .list = value, .count = value->count};
        if (value->type == RF_JSON_STRING)
            out->count = 1;
    } else if (option->type == RF_OPTION_BOOL) {
        *out = (struct rf_setting){.present = true, .flag = value->type == RF_JSON_TRUE};
    } else {
        status = rf_option_parse(option, (const char *)value->text.data, out, err);
    }
    if (status == RF_OK) {
        out->given = true;
        out->line = value->line;
    }
    return status;
}

static const struct rf_option *option_find(const struct rf_option *options, const char *name)
{
    for (; options && options->name; options++)
        if (strcmp(options->name, name) == 0)
            return options;
    return NULL;
}

#define NAMES_MAX 256

static enum rf_status unknown(const struct rf_conf *conf, const struct rf_json *value,
                              const char *what, const char *where, const char *const *names,
                              size_t count, struct rf_error *err)
{
    const char *name = (const char *)value->key.data, *near = rf_nearest(name, names, count);

    return rf_error_set(err, RF_INVALID, "%s:%u: unknown %s '%s'%s%s%s%s", conf->file, value->line,
                        what,
                        name, where, near ? ", did you mean '" : "", near ? near : "",
                            near ? "'?" : "");
}

/* where: " in section 'store'" or " in index 'main'". */
static enum rf_status check_options(const struct rf_conf *conf, const struct rf_json *table,
                                    const struct rf_option *options, const char *where,
                                    struct rf_error *err)
{
    const char *names[NAMES_MAX];
    struct rf_setting setting;
    enum rf_status status;
    size_t count = 0;

    if (table->type != RF_JSON_OBJECT)
        return rf_error_set(err, RF_INVALID, "%s:%u: expected a table of options%s, not %s",
                            conf->file,
                            table->line, where, kind_of(table));
    for (; options && options[count].name && count < NAMES_MAX; count++)
        names[count] = options[count].name;
    for (size_t i = 0; i < table->count; i++) {
        const struct rf_json *value = &table->items[i];
        const struct rf_option *option = option_find(options, (const char *)value->key.data);
        if (!option)
            return unknown(conf, value, "option", where, names, count, err);
        status = read_setting(option, value, &setting, err);
        if (status != RF_OK)
            return rf_error_context(err, status, "%s:%u%s", conf->file, value->line, where);
    }
    for (size_t i = 0; i < count; i++)
        if (options[i].required && !rf_json_find(table, options[i].name))
            return rf_error_set(err, RF_INVALID, "%s:%u: option '%s' is missing%s", conf->file,
                                table->line,
                                options[i].name, where);
    return RF_OK;
}

static bool is_instance_name(struct rf_bytes name)
{
    for (size_t i = 0; i < name.size; i++) {
        uint8_t c = name.data[i];
        if (!(c >= 'a' && c <= 'z') && !is_digit(c) && (i == 0 || (c != '_' && c != '-')))
            return false;
    }
    return name.size > 0 && name.size <= 48;
}

static enum rf_status check_named(const struct rf_conf *conf, const struct rf_json *table,
                                  const struct rf_section *section, struct rf_error *err)
{
    char where[120];
    enum rf_status status;

    if (table->type != RF_JSON_OBJECT)
        return rf_error_set(err, RF_INVALID,
                            "%s:%u: section '%s' holds tables by name: %s = { NAME = { ... } }, "
                            "not %s",
                            conf->file, table->line, section->name, section->name, kind_of(table));
    for (size_t i = 0; i < table->count; i++) {
        const struct rf_json *value = &table->items[i];
        if (!is_instance_name(value->key))
            return rf_error_set(err, RF_INVALID,
                                "%s:%u: the name '%s' in section '%s' must be a-z, 0-9, '_' or "
                                "'-', at most 48",
                                conf->file, value->line, value->key.data, section->name);
        snprintf(where, sizeof where, " in %s '%s'", section->name, value->key.data);
        status = check_options(conf, value, section->options, where, err);
        if (status != RF_OK)
            return status;
    }
    return RF_OK;
}

enum rf_status rf_conf_check(const struct rf_conf *conf, const struct rf_section *sections,
                             struct rf_error *err)
{
    const char *names[NAMES_MAX];
    char where[120];
    enum rf_status status;
    size_t count = 0, at;

    for (; count < NAMES_MAX && sections[count].name; count++)
        names[count] = sections[count].name;
    for (size_t i = 0; i < conf->root->count; i++) {
        const struct rf_json *value = &conf->root->items[i];
        for (at = 0; at < count && !rf_bytes_equal(value->key, rf_bytes_text(names[at])); at++)
            ;
        if (at == count)
            return unknown(conf, value, "section", "", names, count, err);
        snprintf(where, sizeof where, " in section '%s'", names[at]);
        status = sections[at].named ? check_named(conf, value, &sections[at], err)
                                    : check_options(conf, value, sections[at].options, where, err);
        if (status != RF_OK)
            return status;
    }
    return RF_OK;
}

const struct rf_json *rf_conf_find(const struct rf_conf *conf, const char *section,
                                   const char *name)
{
    const struct rf_json *table = rf_json_find(conf->root, section);

    return name ? rf_json_find(table, name) : table;
}

struct rf_setting rf_conf_get(const struct rf_json *table, const struct rf_option *options,
                              const char *name)
{
    const struct rf_option *option = option_find(options, name);
    const struct rf_json *value = rf_json_find(table, name);
    struct rf_setting setting = {0};
    enum rf_status status = RF_OK;

    assert(option);
    if (value)
        status = read_setting(option, value, &setting, NULL);
    else if (option->preset)
        status = rf_option_parse(option, option->preset, &setting, NULL);
    assert(status == RF_OK); /* the tree was checked, and presets are ours */
    (void)status;
    return setting;
}

const char *rf_setting_text(const struct rf_setting *setting, size_t i)
{
    assert(i < setting->count);
    if (setting->list->type == RF_JSON_STRING)
        return rf_json_string(setting->list);
    return rf_json_string(&setting->list->items[i]);
}
