/*
 * json.c - the tree and the writer
 *
 * The parser keeps values whose parent is still open on one growing stack and copies the finished
 * members of a value into the arena when its bracket closes: no recursion, and each array lies in
 * one piece. The writer produces the one form RFC 8785 allows.
 */
#include "core/json.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/json_scan.h"
#include "core/utf8.h"

/* ---- parsing ---- */

struct frame {
    size_t first; /* its first member on the stack of values */
    struct rf_json value;
};

struct parser {
    struct rf_json_scan scan;
    struct rf_arena *arena;
    struct rf_json *values; /* members of what is still open */
    size_t count, capacity;
    struct frame frames[RF_JSON_DEPTH_MAX];
    size_t depth;
    const uint8_t *counted; /* lines are counted up to here */
    uint32_t line;
};

static bool no_room(struct parser *parser)
{
    return rf_json_fail(&parser->scan, RF_LIMIT, "larger than allowed here");
}

static uint32_t line_here(struct parser *parser)
{
    const uint8_t *p = parser->counted, *at = parser->scan.p, *newline;

    while (p < at && (newline = memchr(p, '\n', (size_t)(at - p)))) {
        p = newline + 1;
        parser->line++;
    }
    parser->counted = at;
    return parser->line;
}

static bool push_value(struct parser *parser, const struct rf_json *value)
{
    size_t capacity;
    struct rf_json *grown;

    if (parser->count == parser->capacity) {
        capacity = parser->capacity ? 2 * parser->capacity : 32;
        if (parser->count > parser->arena->max / sizeof *grown)
            return no_room(parser);
        grown = realloc(parser->values, capacity * sizeof *grown);
        if (!grown)
            return rf_json_fail(&parser->scan, RF_NOMEM, "out of memory");
        parser->values = grown;
        parser->capacity = capacity;
    }
    parser->values[parser->count++] = *value;
    return true;
}

static bool take_string(struct parser *parser, struct rf_bytes *out)
{
    struct rf_json_raw raw;
    uint8_t *copy;
    size_t size;

    if (!rf_json_string_next(&parser->scan, &raw))
        return false;
    copy = rf_arena_try(parser->arena, raw.raw.size + 1);
    if (!copy)
        return no_room(parser);
    size = raw.raw.size;
    if (raw.escaped)
        size = rf_json_unescape(raw.raw, copy);
    else if (size)
        memcpy(copy, raw.raw.data, size);
    copy[size] = '\0';
    *out = rf_bytes(copy, size);
    return true;
}

static bool take_scalar(struct parser *parser, struct rf_json *value, int c)
{
    struct rf_json_number number;
    char *copy;

    switch (c) {
    case '"':
        value->type = RF_JSON_STRING;
        return take_string(parser, &value->text);
    case 't':
    case 'f':
    case 'n':
        value->type = c == 't' ? RF_JSON_TRUE : c == 'f' ? RF_JSON_FALSE : RF_JSON_NULL;
        return rf_json_literal_next(&parser->scan);
    default:
        value->type = RF_JSON_NUMBER;
        if (!rf_json_number_next(&parser->scan, &number))
            return false;
        copy = rf_arena_copy(parser->arena, number.text.data, number.text.size);
        if (!copy)
            return no_room(parser);
        value->text = rf_bytes(copy, number.text.size);
        return true;
    }
}

static int compare_bytes(struct rf_bytes a, struct rf_bytes b)
{
    size_t size = a.size < b.size ? a.size : b.size;
    int order = size ? memcmp(a.data, b.data, size) : 0;

    return order ? order : (a.size > b.size) - (a.size < b.size);
}

static int compare_key_pointers(const void *a, const void *b)
{
    const struct rf_json *const *x = a, *const *y = b;

    return compare_bytes((*x)->key, (*y)->key);
}

/* Whether two of the members have one name. Few members are compared in place. */
static bool has_duplicates(struct parser *parser, const struct rf_json *items, size_t count,
                           bool *out)
{
    const struct rf_json **sorted;

    *out = false;
    if (count <= 12) {
        for (size_t i = 1; i < count; i++)
            for (size_t j = 0; j < i; j++)
                *out |= rf_bytes_equal(items[i].key, items[j].key);
        return true;
    }
    sorted = malloc(count * sizeof *sorted);
    if (!sorted)
        return rf_json_fail(&parser->scan, RF_NOMEM, "out of memory");
    for (size_t i = 0; i < count; i++)
        sorted[i] = &items[i];
    qsort(sorted, count, sizeof *sorted, compare_key_pointers);
    for (size_t i = 1; i < count; i++)
        *out |= rf_bytes_equal(sorted[i]->key, sorted[i - 1]->key);
    free(sorted);
    return true;
}

/* The innermost open value is through: its members go into the arena, itself to its parent's. */
static bool close_frame(struct parser *parser)
{
    struct frame *frame = &parser->frames[--parser->depth];
    size_t count = parser->count - frame->first;
    const struct rf_json *items = count ? parser->values + frame->first : NULL;
    bool twice;

    if (frame->value.type == RF_JSON_OBJECT) {
        if (!has_duplicates(parser, items, count, &twice))
            return false;
        if (twice)
            return rf_json_fail(&parser->scan, RF_INVALID,
                                "the object ending here has two members of one name");
    }
    if (count > 0) {
        frame->value.items = rf_arena_try(parser->arena, count * sizeof *items);
        if (!frame->value.items)
            return no_room(parser);
        memcpy(frame->value.items, items, count * sizeof *items);
        frame->value.count = count;
    }
    parser->count = frame->first;
    return push_value(parser, &frame->value);
}

static bool take_key(struct parser *parser, struct rf_bytes *key)
{
    if (rf_json_space(&parser->scan) != '"')
        return rf_json_fail(&parser->scan, RF_INVALID, "expected a member's name in quotes");
    return take_string(parser, key) && rf_json_byte_next(&parser->scan, ':', "expected ':'");
}

static bool open_frame(struct parser *parser, const struct rf_json *value)
{
    if (parser->depth == RF_JSON_DEPTH_MAX)
        return rf_json_fail(&parser->scan, RF_LIMIT, "nested too deep");
    parser->frames[parser->depth++] = (struct frame){.first = parser->count, .value = *value};
    parser->scan.p++;
    return true;
}

/* After a value: close what closes, pass a comma. *more: another member follows. */
static bool after_value(struct parser *parser, bool first, bool *more)
{
    while (parser->depth > 0) {
        bool object = parser->frames[parser->depth - 1].value.type == RF_JSON_OBJECT;
        int c = rf_json_space(&parser->scan);
        if (c == (object ? '}' : ']')) {
            parser->scan.p++;
            if (!close_frame(parser))
                return false;
            first = false;
            continue;
        }
        if (!first && c != ',')
            return rf_json_fail(&parser->scan, RF_INVALID,
                                object ? "expected ',' or '}'" : "expected ',' or ']'");
        parser->scan.p += !first;
        *more = true;
        return true;
    }
    *more = false;
    return true;
}

static bool parse_all(struct parser *parser)
{
    bool more = true, opened;

    while (more) {
        struct rf_json value = {0};
        if (parser->depth > 0 && parser->frames[parser->depth - 1].value.type == RF_JSON_OBJECT &&
            !take_key(parser, &value.key))
            return false;
        int c = rf_json_space(&parser->scan);
        value.line = line_here(parser);
        opened = c == '[' || c == '{';
        if (opened) {
            value.type = c == '[' ? RF_JSON_ARRAY : RF_JSON_OBJECT;
            if (!open_frame(parser, &value))
                return false;
        } else if (!take_scalar(parser, &value, c) || !push_value(parser, &value)) {
            return false;
        }
        if (!after_value(parser, opened, &more))
            return false;
    }
    return rf_json_scan_end(&parser->scan);
}

enum rf_status rf_json_parse(const struct rf_json **out, struct rf_arena *arena,
                             struct rf_bytes text, struct rf_error *err)
{
    struct parser parser;
    enum rf_status status = RF_OK;
    struct rf_json *root;

    rf_json_scan_init(&parser.scan, text);
    parser.arena = arena;
    parser.values = NULL;
    parser.count = parser.capacity = parser.depth = 0;
    parser.counted = parser.scan.start;
    parser.line = 1;
    if (!parse_all(&parser)) {
        status = rf_json_error(&parser.scan, err);
        goto out;
    }
    assert(parser.count == 1);
    root = rf_arena_try(arena, sizeof *root);
    if (!root) {
        no_room(&parser);
        status = rf_json_error(&parser.scan, err);
        goto out;
    }
    *root = parser.values[0];
    *out = root;
out:
    free(parser.values);
    return status;
}

/* ---- reading the tree ---- */

const struct rf_json *rf_json_find(const struct rf_json *value, const char *key)
{
    size_t size = strlen(key);

    if (!value || value->type != RF_JSON_OBJECT)
        return NULL;
    for (size_t i = 0; i < value->count; i++)
        if (value->items[i].key.size == size && memcmp(value->items[i].key.data, key, size) == 0)
            return &value->items[i];
    return NULL;
}

bool rf_json_int(const struct rf_json *value, int64_t *out)
{
    struct rf_json_scan scan;
    struct rf_json_number number;

    if (!value || value->type != RF_JSON_NUMBER)
        return false;
    rf_json_scan_init(&scan, value->text);
    if (!rf_json_number_next(&scan, &number) || !number.is_int)
        return false;
    *out = number.integer;
    return true;
}

bool rf_json_double(const struct rf_json *value, double *out)
{
    double number;

    if (!value || value->type != RF_JSON_NUMBER)
        return false;
    number = rf_json_number_double(value->text);
    if (!isfinite(number))
        return false;
    *out = number;
    return true;
}

const char *rf_json_string(const struct rf_json *value)
{
    return value && value->type == RF_JSON_STRING ? (const char *)value->text.data : NULL;
}

/* ---- writing ---- */

static void put_escape(struct rf_buf *buf, uint8_t c)
{
    static const char letters[] = "btnvfr"; /* of 8 to 13; 'v' is not one of JSON's */
    char text[7];

    if (c == '"' || c == '\\')
        snprintf(text, sizeof text, "\\%c", c);
    else if (c >= 8 && c <= 13 && c != 11)
        snprintf(text, sizeof text, "\\%c", letters[c - 8]);
    else
        snprintf(text, sizeof text, "\\u%04x", c);
    rf_buf_put_text(buf, text);
}

void rf_json_put_string(struct rf_buf *buf, struct rf_bytes text)
{
    size_t from = 0;

    assert(rf_utf8_valid(text) == text.size);
    rf_buf_put_u8(buf, '"');
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c >= ' ' && c != '"' && c != '\\')
            continue;
        rf_buf_put(buf, text.data + from, i - from);
        put_escape(buf, c);
        from = i + 1;
    }
    if (from < text.size)
        rf_buf_put(buf, text.data + from, text.size - from);
    rf_buf_put_u8(buf, '"');
}

void rf_json_put_int(struct rf_buf *buf, int64_t value)
{
    uint64_t rest = value < 0 ? -(uint64_t)value : (uint64_t)value;
    char digits[20];
    size_t at = sizeof digits;

    do
        digits[--at] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        digits[--at] = '-';
    rf_buf_put(buf, digits + at, sizeof digits - at);
}

/* Digits d1 d2 ... dn and a power: the value is 0.d1d2...dn times ten to the power. */
struct shortest {
    char digits[20];
    int count, power;
};

static double shortest_value(const struct shortest *s)
{
    char text[40];
    int size = snprintf(text, sizeof text, "%.*se%d", s->count, s->digits, s->power - s->count);

    return rf_json_number_double(rf_bytes(text, (size_t)size));
}

/* The digits of the positive value rounded to count places. */
static void round_to(struct shortest *s, double value, int count)
{
    char text[48];
    const char *p = text;

    snprintf(text, sizeof text, "%.*e", count - 1, value);
    s->count = 0;
    for (; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9') /* whatever the locale's point is */
            s->digits[s->count++] = *p;
    s->power = (int)strtol(p + 1, NULL, 10) + 1;
}

/* Add one to the last place. */
static void step_up(struct shortest *s)
{
    int i = s->count - 1;

    while (i >= 0 && s->digits[i] == '9')
        s->digits[i--] = '0';
    if (i >= 0) {
        s->digits[i]++;
    } else {
        memmove(s->digits + 1, s->digits, (size_t)s->count - 1);
        s->digits[0] = '1';
        s->power++;
    }
}

/*
 * The fewest digits that read back as value; among those the nearest. Fifteen places are always
 * told apart by a normal double, so a shorter form shows there as trailing zeros. Below a power of
 * two doubles stand closer than above it, so the nearest decimal may fall outside the interval that
 * reads back while the next one up falls inside it: 2^-44 is 5.684341886080802e-14.
 */
static void find_shortest(struct shortest *s, double value)
{
    for (int count = value < 2.2250738585072014e-308 ? 1 : 15; count <= 17; count++) {
        round_to(s, value, count);
        if (shortest_value(s) == value)
            break;
        step_up(s);
        if (shortest_value(s) == value)
            break;
    }
    while (s->count > 1 && s->digits[s->count - 1] == '0')
        s->count--;
}

/* ECMAScript's Number::toString (ECMA-262, 6.1.6.1.20), as RFC 8785 section 3.2.2.3 asks. */
void rf_json_put_double(struct rf_buf *buf, double value)
{
    struct shortest s;

    assert(isfinite(value));
    if (value == 0) {
        rf_buf_put_u8(buf, '0');
        return;
    }
    if (value == floor(value) && fabs(value) < 9007199254740992.0) {
        rf_json_put_int(buf, (int64_t)value);
        return;
    }
    if (value < 0)
        rf_buf_put_u8(buf, '-');
    find_shortest(&s, fabs(value));
    if (s.power > 0 && s.power <= 21) {
        if (s.count <= s.power) {
            rf_buf_printf(buf, "%.*s%.*s", s.count, s.digits, s.power - s.count,
                          "000000000000000000000");
        } else {
            rf_buf_printf(buf, "%.*s.%.*s", s.power, s.digits, s.count - s.power,
                          s.digits + s.power);
        }
    } else if (s.power > -6 && s.power <= 0) {
        rf_buf_printf(buf, "0.%.*s%.*s", -s.power, "00000", s.count, s.digits);
    } else {
        rf_buf_put(buf, s.digits, 1);
        if (s.count > 1)
            rf_buf_printf(buf, ".%.*s", s.count - 1, s.digits + 1);
        rf_buf_printf(buf, "e%+d", s.power - 1);
    }
}

/* Order of UTF-16 code units, asked of valid UTF-8: only the characters beyond U+FFFF (lead bytes
 * f0 and up), which become surrogates, move in front of U+E000 to U+FFFF (lead bytes ee and ef). */
static int compare_utf16(struct rf_bytes a, struct rf_bytes b)
{
    size_t size = a.size < b.size ? a.size : b.size, i = 0;

    while (i < size && a.data[i] == b.data[i])
        i++;
    if (i == size)
        return (a.size > b.size) - (a.size < b.size);
    if (a.data[i] >= 0xf0 && (b.data[i] & 0xfe) == 0xee)
        return -1;
    if (b.data[i] >= 0xf0 && (a.data[i] & 0xfe) == 0xee)
        return 1;
    return (int)a.data[i] - (int)b.data[i];
}

static int compare_members(const void *a, const void *b)
{
    const struct rf_json *const *x = a, *const *y = b;

    return compare_utf16((*x)->key, (*y)->key);
}

static void put_object(struct rf_buf *buf, const struct rf_json *value)
{
    const struct rf_json **sorted = NULL;

    if (value->count > 0) {
        sorted = malloc(value->count * sizeof *sorted);
        if (!sorted) {
            buf->failed = RF_NOMEM;
            return;
        }
    }
    for (size_t i = 0; i < value->count; i++)
        sorted[i] = &value->items[i];
    if (value->count > 1)
        qsort(sorted, value->count, sizeof *sorted, compare_members);
    rf_buf_put_u8(buf, '{');
    for (size_t i = 0; i < value->count; i++) {
        if (i)
            rf_buf_put_u8(buf, ',');
        rf_json_put_string(buf, sorted[i]->key);
        rf_buf_put_u8(buf, ':');
        rf_json_put_canonical(buf, sorted[i]);
    }
    rf_buf_put_u8(buf, '}');
    free(sorted);
}

/* Recursion is bounded: no tree is deeper than RF_JSON_DEPTH_MAX. */
void rf_json_put_canonical(struct rf_buf *buf, const struct rf_json *value)
{
    double number;

    switch (value->type) {
    case RF_JSON_NULL:
        rf_buf_put_text(buf, "null");
        break;
    case RF_JSON_FALSE:
        rf_buf_put_text(buf, "false");
        break;
    case RF_JSON_TRUE:
        rf_buf_put_text(buf, "true");
        break;
    case RF_JSON_NUMBER:
        if (rf_json_double(value, &number))
            rf_json_put_double(buf, number);
        else
            buf->failed = RF_LIMIT; /* no double holds it */
        break;
    case RF_JSON_STRING:
        rf_json_put_string(buf, value->text);
        break;
    case RF_JSON_ARRAY:
        rf_buf_put_u8(buf, '[');
        for (size_t i = 0; i < value->count; i++) {
            if (i)
                rf_buf_put_u8(buf, ',');
            rf_json_put_canonical(buf, &value->items[i]);
        }
        rf_buf_put_u8(buf, ']');
        break;
    case RF_JSON_OBJECT:
        put_object(buf, value);
        break;
    }
}
