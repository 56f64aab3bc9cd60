/*
 * lua_json.c - JSON for scripts: decode, encode, pick, flatten, records
 *
 * All stand on the strict scanner of core/json_scan.h and accept the same texts: RFC 8259 in UTF-8,
 * one leading byte order mark passed over, nested at most RF_JSON_NEST_MAX deep. Of equal keys the
 * last one wins, in decode and in pick, and pick checks all of the text: what it answers is what
 * decode would have answered.
 *
 * Numbers: integers within 64 bits stay exact (beyond 2^53 as int64 cdata), others are the nearest
 * double. null is refuge.null; an array carries refuge.array's metatable, so that an empty one
 * stays one.
 */
#include "core/json.h"
#include "core/json_scan.h"
#include "core/utf8.h"
#include "mappers/lua_host.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATHS_MAX 64
#define SEGMENTS_MAX 16    /* of one path */
#define GATHER_MAX 128     /* members gathered on the Lua stack before a table is made */
#define GATHER_TOP 4000    /* of LuaJIT's 8000 slots for one C function */
#define ENCODE_DEPTH_MAX 200
#define KEYS_ON_STACK 32

/* ---- starting and failing ---- */

static void begin(struct rf_json_scan *scan, struct rf_bytes text)
{
    rf_json_scan_init(scan, text);
    if (text.size >= 3 && memcmp(text.data, "\xef\xbb\xbf", 3) == 0)
        scan->p += 3;
}

static bool is_utf16(struct rf_bytes text)
{
    return text.size >= 2 && ((text.data[0] == 0xff && text.data[1] == 0xfe) ||
                              (text.data[0] == 0xfe && text.data[1] == 0xff) ||
                              text.data[0] == 0 || text.data[1] == 0);
}

__attribute__((noreturn)) static void raise(lua_State *L, const struct rf_json_scan *scan,
                                            const char *what)
{
    struct rf_error err = {0};

    if (is_utf16(rf_bytes(scan->start, (size_t)(scan->end - scan->start))))
        rf_host_error(L, "%s: the text is UTF-16; JSON is read in UTF-8 only", what);
    rf_json_error(scan, &err);
    rf_host_error(L, "%s: %s", what, err.message);
}

/* ---- decode ---- */

static void push_string(lua_State *L, const struct rf_json_raw *raw)
{
    uint8_t small[256], *out = small;
    struct rf_buf *scratch;
    size_t size;

    if (!raw->escaped) {
        lua_pushlstring(L, (const char *)raw->raw.data, raw->raw.size);
        return;
    }
    if (raw->raw.size > sizeof small) {
        scratch = rf_host_scratch(L);
        out = rf_buf_reserve(scratch, raw->raw.size);
        if (!out)
            rf_host_error(L, "json: a string of %zu bytes does not fit the heap", raw->raw.size);
    }
    size = rf_json_unescape(raw->raw, out);
    lua_pushlstring(L, (const char *)out, size);
}

static void push_number(lua_State *L, const struct rf_json_number *number)
{
    if (number->is_int)
        rf_host_push_int(L, number->integer);
    else
        lua_pushnumber(L, rf_json_number_double(number->text));
}

static bool decode_next(lua_State *L, struct rf_json_scan *scan, int depth);

/*
 * Members are gathered on the stack and the table is made in its final size, which spares it
 * growing step by step; a long object goes over to a table early. Members are set in the order of
 * the text, so that of equal keys the last wins.
 */
static bool object_next(lua_State *L, struct rf_json_scan *scan, int depth)
{
    struct rf_json_raw key;
    int base = lua_gettop(L), table = 0, c;

    scan->p++;
    if (rf_json_space(scan) == '}') {
        scan->p++;
        lua_newtable(L);
        return true;
    }
    for (int count = 0;; count++) {
        if (rf_json_space(scan) != '"')
            return rf_json_fail(scan, RF_INVALID, "expected a key in quotes");
        if (!rf_json_string_next(scan, &key))
            return false;
        push_string(L, &key);
        if (!rf_json_byte_next(scan, ':', "expected ':' behind a key") ||
            !decode_next(L, scan, depth + 1))
            return false;
        if (table)
            lua_rawset(L, table);
        else if (count + 1 == GATHER_MAX || lua_gettop(L) > GATHER_TOP) {
            lua_createtable(L, 0, 2 * GATHER_MAX);
            lua_insert(L, base + 1);
            table = base + 1;
            for (int i = base + 2; i < lua_gettop(L); i += 2) {
                lua_pushvalue(L, i);
                lua_pushvalue(L, i + 1);
                lua_rawset(L, table);
            }
            lua_settop(L, table);
        }
        c = rf_json_space(scan);
        if (c != ',' && c != '}')
            return rf_json_fail(scan, RF_INVALID, "expected ',' or '}'");
        scan->p++;
        if (c == '}')
            break;
    }
    if (!table) {
        int top = lua_gettop(L);
        lua_createtable(L, 0, (top - base) / 2);
        for (int i = base + 1; i < top; i += 2) {
            lua_pushvalue(L, i);
            lua_pushvalue(L, i + 1);
            lua_rawset(L, top + 1);
        }
        lua_replace(L, base + 1);
        lua_settop(L, base + 1);
    }
    return true;
}

static bool array_next(lua_State *L, struct rf_json_scan *scan, int depth)
{
    int base = lua_gettop(L), table = 0, count = 0, c;

    scan->p++;
    if (rf_json_space(scan) == ']') {
        scan->p++;
        lua_newtable(L);
        table = base + 1;
    }
    while (count > 0 || !table) {
        if (!decode_next(L, scan, depth + 1))
            return false;
        count++;
        if (table) {
            lua_rawseti(L, table, count);
        } else if (count == GATHER_MAX || lua_gettop(L) > GATHER_TOP) {
            lua_createtable(L, 2 * GATHER_MAX, 0);
            lua_insert(L, base + 1);
            table = base + 1;
            for (int i = count; i > 0; i--)
                lua_rawseti(L, table, i);
        }
        c = rf_json_space(scan);
        if (c != ',' && c != ']')
            return rf_json_fail(scan, RF_INVALID, "expected ',' or ']'");
        scan->p++;
        if (c == ']')
            break;
    }
    if (!table) {
        lua_createtable(L, count, 0);
        lua_insert(L, base + 1);
        table = base + 1;
        for (int i = count; i > 0; i--)
            lua_rawseti(L, table, i);
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, rf_host(L)->ref_array);
    lua_setmetatable(L, table);
    return true;
}

/* Pass one value and push it; false leaves anything on the stack. */
static bool decode_next(lua_State *L, struct rf_json_scan *scan, int depth)
{
    struct rf_json_raw raw;
    struct rf_json_number number;
    int c = rf_json_space(scan);

    luaL_checkstack(L, 8, "json");
    switch (c) {
    case '"':
        if (!rf_json_string_next(scan, &raw))
            return false;
        push_string(L, &raw);
        return true;
    case '{':
    case '[':
        if (depth >= RF_JSON_NEST_MAX)
            return rf_json_fail(scan, RF_LIMIT, "nested too deep (at most 1024)");
        return c == '{' ? object_next(L, scan, depth) : array_next(L, scan, depth);
    case 't':
    case 'f':
    case 'n':
        if (!rf_json_literal_next(scan))
            return false;
        if (c == 'n')
            rf_host_push_null(L);
        else
            lua_pushboolean(L, c == 't');
        return true;
    case -1:
        return rf_json_fail(scan, RF_INVALID, "the text ends where a value was expected");
    default:
        if (c != '-' && (c < '0' || c > '9'))
            return rf_json_fail(scan, RF_INVALID, "expected a value");
        if (!rf_json_number_next(scan, &number))
            return false;
        push_number(L, &number);
        return true;
    }
}

void rf_lua_json_push(lua_State *L, struct rf_bytes text, const char *what)
{
    struct rf_json_scan scan;

    begin(&scan, text);
    if (!decode_next(L, &scan, 0) || !rf_json_scan_end(&scan))
        raise(L, &scan, what);
}

static int json_decode(lua_State *L)
{
    rf_lua_json_push(L, rf_host_text(L, 1, "json.decode"), "json.decode");
    return 1;
}

/* ---- pick ---- */

struct path {
    struct rf_bytes segments[SEGMENTS_MAX];
    unsigned count;
    bool pointer;
    struct rf_bytes found; /* the last value seen there; data NULL: none */
};

struct pick {
    lua_State *L;
    struct rf_json_scan scan;
    struct path *paths;
    unsigned count;
};

/* Cut "a.b" at dots, or "/a/b" as a JSON pointer whose ~0 and ~1 are undone within text. */
static void cut_path(lua_State *L, struct path *path, uint8_t *text, size_t size, const char *what)
{
    size_t from = 0, out = 0, begun;
    char separator = '.';

    memset(path, 0, sizeof *path);
    if (size > 0 && text[0] == '/') {
        path->pointer = true;
        separator = '/';
        from = 1;
    }
    for (begun = out = from; from <= size; from++) {
        if (from == size || text[from] == (uint8_t)separator) {
            if (path->count == SEGMENTS_MAX)
                rf_host_error(L, "%s: a path has at most %d steps", what, SEGMENTS_MAX);
            path->segments[path->count++] = rf_bytes(text + begun, out - begun);
            out = begun = from + 1;
        } else if (path->pointer && text[from] == '~' && from + 1 < size &&
                   (text[from + 1] == '0' || text[from + 1] == '1')) {
            text[out++] = text[++from] == '0' ? '~' : '/';
        } else {
            text[out++] = text[from];
        }
    }
}

/* The active paths whose step at depth is this key. */
static uint64_t match_key(const struct pick *pick, uint64_t active, unsigned depth,
                          struct rf_bytes key)
{
    uint64_t matched = 0;

    for (unsigned i = 0; i < pick->count; i++)
        if (active >> i & 1 && rf_bytes_equal(pick->paths[i].segments[depth], key))
            matched |= (uint64_t)1 << i;
    return matched;
}

static bool pick_next(struct pick *pick, uint64_t active, unsigned depth);

/* Pass the value that the matched paths lead to or through. */
static bool pick_matched(struct pick *pick, uint64_t matched, unsigned depth)
{
    uint64_t through = 0;
    const uint8_t *start;

    if (rf_json_space(&pick->scan) == -1)
        return rf_json_check_next(&pick->scan);
    start = pick->scan.p;
    for (unsigned i = 0; i < pick->count; i++) {
        if (!(matched >> i & 1))
            continue;
        pick->paths[i].found = (struct rf_bytes){0};
        if (pick->paths[i].count > depth + 1)
            through |= (uint64_t)1 << i;
    }
    if (!(through ? pick_next(pick, through, depth + 1) : rf_json_check_next(&pick->scan)))
        return false;
    for (unsigned i = 0; i < pick->count; i++)
        if (matched >> i & 1 && pick->paths[i].count == depth + 1)
            pick->paths[i].found = rf_bytes(start, (size_t)(pick->scan.p - start));
    return true;
}

/* A key's content: lent from the text, or unescaped into small or the scratch. */
static struct rf_bytes plain_key(lua_State *L, const struct rf_json_raw *key, uint8_t *small,
                                 size_t size)
{
    uint8_t *out = small;

    if (!key->escaped)
        return key->raw;
    if (key->raw.size > size)
        out = rf_buf_reserve(rf_host_scratch(L), key->raw.size);
    if (!out)
        rf_host_error(L, "json: a key of %zu bytes does not fit the heap", key->raw.size);
    return rf_bytes(out, rf_json_unescape(key->raw, out));
}

static bool pick_object(struct pick *pick, uint64_t active, unsigned depth)
{
    struct rf_json_scan *scan = &pick->scan;
    struct rf_json_raw key;
    uint8_t small[256];
    uint64_t matched;
    int c;

    scan->p++;
    if (rf_json_space(scan) == '}') {
        scan->p++;
        return true;
    }
    for (;;) {
        if (rf_json_space(scan) != '"')
            return rf_json_fail(scan, RF_INVALID, "expected a key in quotes");
        if (!rf_json_string_next(scan, &key))
            return false;
        matched = match_key(pick, active, depth, plain_key(pick->L, &key, small, sizeof small));
        if (!rf_json_byte_next(scan, ':', "expected ':' behind a key"))
            return false;
        if (!(matched ? pick_matched(pick, matched, depth) : rf_json_check_next(scan)))
            return false;
        c = rf_json_space(scan);
        if (c != ',' && c != '}')
            return rf_json_fail(scan, RF_INVALID, "expected ',' or '}'");
        scan->p++;
        if (c == '}')
            return true;
    }
}

static bool pick_array(struct pick *pick, uint64_t active, unsigned depth)
{
    struct rf_json_scan *scan = &pick->scan;
    int c;

    scan->p++;
    if (rf_json_space(scan) == ']') {
        scan->p++;
        return true;
    }
    for (size_t index = 0;; index++) {
        char digits[24];
        int size = snprintf(digits, sizeof digits, "%zu", index);
        uint64_t matched = match_key(pick, active, depth, rf_bytes(digits, (size_t)size));

        if (!(matched ? pick_matched(pick, matched, depth) : rf_json_check_next(scan)))
            return false;
        c = rf_json_space(scan);
        if (c != ',' && c != ']')
            return rf_json_fail(scan, RF_INVALID, "expected ',' or ']'");
        scan->p++;
        if (c == ']')
            return true;
    }
}

static bool pick_next(struct pick *pick, uint64_t active, unsigned depth)
{
    uint64_t pointers = 0;
    int c = rf_json_space(&pick->scan);

    if (c == '{')
        return pick_object(pick, active, depth);
    if (c == '[') { /* only a JSON pointer steps into an array */
        for (unsigned i = 0; i < pick->count; i++)
            if (active >> i & 1 && pick->paths[i].pointer)
                pointers |= (uint64_t)1 << i;
        if (pointers)
            return pick_array(pick, pointers, depth);
    }
    return rf_json_check_next(&pick->scan);
}

int rf_lua_json_pick(lua_State *L, struct rf_bytes text, int first, const char *what)
{
    struct pick pick = {.L = L};
    int top = lua_gettop(L), count = top - first + 1;
    size_t total = 0, size;
    uint8_t *copy;

    if (count < 1 || count > PATHS_MAX)
        rf_host_error(L, "%s: give 1 to %d names, got %d", what, PATHS_MAX, count < 0 ? 0 : count);
    for (int i = first; i <= top; i++) {
        if (lua_type(L, i) != LUA_TSTRING)
            rf_host_error(L, "%s: name %d is a %s, not a string", what, i - first + 1,
                          luaL_typename(L, i));
        total += lua_objlen(L, i);
    }
    pick.paths = lua_newuserdata(L, (size_t)count * sizeof *pick.paths + total);
    copy = (uint8_t *)(pick.paths + count);
    for (int i = first; i <= top; i++) {
        const char *name = lua_tolstring(L, i, &size);
        memcpy(copy, name, size);
        cut_path(L, &pick.paths[pick.count++], copy, size, what);
        copy += size;
    }
    begin(&pick.scan, text);
    if (!pick_next(&pick, count == 64 ? UINT64_MAX : ((uint64_t)1 << count) - 1, 0) ||
        !rf_json_scan_end(&pick.scan))
        raise(L, &pick.scan, what);
    luaL_checkstack(L, count, what);
    for (int i = 0; i < count; i++) {
        struct rf_json_scan scan;
        if (!pick.paths[i].found.data) {
            lua_pushnil(L);
            continue;
        }
        rf_json_scan_init(&scan, pick.paths[i].found);
        if (!decode_next(L, &scan, 0))
            raise(L, &scan, what);
    }
    return count;
}

static int json_pick(lua_State *L)
{
    return rf_lua_json_pick(L, rf_host_text(L, 1, "json.pick"), 2, "json.pick");
}

/* ---- encode ---- */

struct encoder {
    lua_State *L;
    struct rf_buf *buf;
    bool for_row;
    unsigned *cuts;
};

static void encode_value(struct encoder *e, int index, int depth);

static void encode_text(struct encoder *e, int index)
{
    struct rf_bytes text;
    const char *bytes = lua_tolstring(e->L, index, &text.size);
    bool replaced = false, dropped = false;
    bool has_nul;

    text.data = (const uint8_t *)bytes;
    has_nul = e->for_row && memchr(bytes, 0, text.size);
    if (!has_nul && rf_utf8_valid(text) == text.size) {
        rf_json_put_string(e->buf, text);
        return;
    }
    rf_utf8_clean(rf_host_scratch(e->L), text, e->for_row, &replaced, &dropped);
    if (e->cuts)
        *e->cuts |= (replaced ? 1u << RF_CUT_UTF8 : 0) | (dropped ? 1u << RF_CUT_NUL : 0);
    rf_json_put_string(e->buf, rf_buf_bytes(&rf_host(e->L)->scratch));
}

static void encode_number(struct encoder *e, int index)
{
    double n = lua_tonumber(e->L, index);

    if (n >= -RF_LUA_EXACT && n <= RF_LUA_EXACT && n == floor(n)) {
        rf_json_put_int(e->buf, (int64_t)n);
        return;
    }
    if (isfinite(n)) {
        rf_json_put_double(e->buf, n);
        return;
    }
    if (!e->for_row)
        rf_host_error(e->L, "json.encode: %s is no JSON number", isnan(n) ? "nan" : "infinity");
    *e->cuts |= 1u << RF_CUT_FLOAT;
    rf_buf_put_text(e->buf, "null");
}

static void encode_array(struct encoder *e, int index, size_t count, int depth)
{
    rf_buf_put_u8(e->buf, '[');
    for (size_t i = 1; i <= count; i++) {
        if (i > 1)
            rf_buf_put_u8(e->buf, ',');
        lua_rawgeti(e->L, index, (int)i);
        encode_value(e, lua_gettop(e->L), depth + 1);
        lua_pop(e->L, 1);
    }
    rf_buf_put_u8(e->buf, ']');
}

static int compare_text(const void *left, const void *right)
{
    const struct rf_bytes *a = left, *b = right;
    size_t size = a->size < b->size ? a->size : b->size;
    int order = size ? memcmp(a->data, b->data, size) : 0;

    return order ? order : (a->size > b->size) - (a->size < b->size);
}

static void encode_object(struct encoder *e, int index, size_t count, int depth)
{
    struct rf_bytes few[KEYS_ON_STACK], *keys = few;
    lua_State *L = e->L;
    size_t at = 0;
    int top = lua_gettop(L);

    if (count > KEYS_ON_STACK)
        keys = lua_newuserdata(L, count * sizeof *keys);
    lua_pushnil(L);
    while (lua_next(L, index)) {
        lua_pop(L, 1);
        keys[at].data = (const uint8_t *)lua_tolstring(L, -1, &keys[at].size);
        at++;
    }
    qsort(keys, count, sizeof *keys, compare_text);
    rf_buf_put_u8(e->buf, '{');
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            rf_buf_put_u8(e->buf, ',');
        lua_pushlstring(L, (const char *)keys[i].data, keys[i].size);
        encode_text(e, lua_gettop(L));
        rf_buf_put_u8(e->buf, ':');
        lua_rawget(L, index);
        encode_value(e, lua_gettop(L), depth + 1);
        lua_pop(L, 1);
    }
    rf_buf_put_u8(e->buf, '}');
    lua_settop(L, top);
}

/* An array: refuge.array, or keys 1 to n. An object: only strings as keys. */
static void encode_table(struct encoder *e, int index, int depth)
{
    lua_State *L = e->L;
    size_t count = 0, strings = 0;

    if (depth >= ENCODE_DEPTH_MAX)
        rf_host_error(L, "cannot make JSON of a table nested more than %d deep (or holding itself)",
                      ENCODE_DEPTH_MAX);
    luaL_checkstack(L, 8, "json");
    if (rf_host_is_array(L, index)) {
        encode_array(e, index, lua_objlen(L, index), depth);
        return;
    }
    lua_pushnil(L);
    while (lua_next(L, index)) {
        lua_pop(L, 1);
        count++;
        if (lua_type(L, -1) == LUA_TSTRING)
            strings++;
    }
    if (strings == count)
        encode_object(e, index, count, depth);
    else if (strings == 0 && lua_objlen(L, index) == count)
        encode_array(e, index, count, depth);
    else
        rf_host_error(L, "cannot make JSON of a table whose keys are neither all strings nor 1 to "
                         "n; for a list with gaps use refuge.array and refuge.null");
}

static void encode_value(struct encoder *e, int index, int depth)
{
    const struct rf_lua_time *time;
    int64_t integer;
    char text[48];

    switch (lua_type(e->L, index)) {
    case LUA_TSTRING:
        encode_text(e, index);
        return;
    case LUA_TNUMBER:
        encode_number(e, index);
        return;
    case LUA_TBOOLEAN:
        rf_buf_put_text(e->buf, lua_toboolean(e->L, index) ? "true" : "false");
        return;
    case LUA_TNIL:
    case LUA_TLIGHTUSERDATA:
        rf_buf_put_text(e->buf, "null");
        return;
    case LUA_TTABLE:
        encode_table(e, index, depth);
        return;
    case RF_LUA_TCDATA:
        if (rf_host_to_int64(e->L, index, &integer)) {
            rf_json_put_int(e->buf, integer);
        } else {
            rf_host_push_text(e->L, index);
            rf_buf_put_text(e->buf, lua_tostring(e->L, -1));
            lua_pop(e->L, 1);
        }
        return;
    default:
        time = rf_host_to(e->L, index, RF_TAG_TIME);
        if (!time)
            rf_host_error(e->L, "cannot make JSON of a %s", luaL_typename(e->L, index));
        rf_json_put_string(e->buf, rf_bytes(text, rf_lua_time_text(time, text)));
    }
}

void rf_lua_json_put(lua_State *L, int index, struct rf_buf *buf, bool for_row, unsigned *cuts)
{
    struct encoder e = {L, buf, for_row, cuts};

    if (index < 0)
        index = lua_gettop(L) + index + 1;
    encode_value(&e, index, 0);
}

/* The text grows in a buffer of its own: strings to be cleaned use the scratch. */
static int json_encode(lua_State *L)
{
    struct rf_env *env = rf_host(L);

    luaL_checkany(L, 1);
    rf_buf_clear(&env->encoded);
    rf_lua_json_put(L, 1, &env->encoded, false, NULL);
    if (env->encoded.failed || !rf_host_room(L, env->encoded.size))
        rf_host_error(L, "json.encode: the text does not fit the heap of %zu MB",
                      env->used_max >> 20);
    lua_pushlstring(L, (const char *)env->encoded.data, env->encoded.size);
    return 1;
}

/* ---- flatten ---- */

struct flat {
    lua_State *L;
    struct rf_json_scan scan;
    uint8_t *path; /* the present JSON pointer, without its leading slash; a userdata at slot 3 */
    size_t size, capacity;
};

#define FLAT_PATH 3

/* Append a step to the path, escaped as RFC 6901 says. */
static void path_add(struct flat *flat, const void *step, size_t size)
{
    const uint8_t *bytes = step;
    size_t need = flat->size + 1 + 2 * size;

    if (need > flat->capacity) {
        uint8_t *grown = lua_newuserdata(flat->L, 2 * need);
        memcpy(grown, flat->path, flat->size);
        lua_replace(flat->L, FLAT_PATH);
        flat->path = grown;
        flat->capacity = 2 * need;
    }
    if (flat->size > 0)
        flat->path[flat->size++] = '/';
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] == '~' || bytes[i] == '/') {
            flat->path[flat->size++] = '~';
            flat->path[flat->size++] = bytes[i] == '~' ? '0' : '1';
        } else {
            flat->path[flat->size++] = bytes[i];
        }
    }
}

static bool flat_next(struct flat *flat, int depth);

static bool flat_object(struct flat *flat, int depth)
{
    struct rf_json_scan *scan = &flat->scan;
    struct rf_json_raw key;
    size_t size = flat->size;
    int c;

    scan->p++;
    if (rf_json_space(scan) == '}') {
        scan->p++;
        return true;
    }
    for (;;) {
        if (rf_json_space(scan) != '"')
            return rf_json_fail(scan, RF_INVALID, "expected a key in quotes");
        if (!rf_json_string_next(scan, &key))
            return false;
        push_string(flat->L, &key);
        path_add(flat, lua_tostring(flat->L, -1), lua_objlen(flat->L, -1));
        lua_pop(flat->L, 1);
        if (!rf_json_byte_next(scan, ':', "expected ':' behind a key") ||
            !flat_next(flat, depth + 1))
            return false;
        flat->size = size;
        c = rf_json_space(scan);
        if (c != ',' && c != '}')
            return rf_json_fail(scan, RF_INVALID, "expected ',' or '}'");
        scan->p++;
        if (c == '}')
            return true;
    }
}

static bool flat_array(struct flat *flat, int depth)
{
    struct rf_json_scan *scan = &flat->scan;
    size_t size = flat->size;
    int c;

    scan->p++;
    if (rf_json_space(scan) == ']') {
        scan->p++;
        return true;
    }
    for (size_t index = 0;; index++) {
        char digits[24];
        int digit_count = snprintf(digits, sizeof digits, "%zu", index);
        path_add(flat, digits, (size_t)digit_count);
        if (!flat_next(flat, depth + 1))
            return false;
        flat->size = size;
        c = rf_json_space(scan);
        if (c != ',' && c != ']')
            return rf_json_fail(scan, RF_INVALID, "expected ',' or ']'");
        scan->p++;
        if (c == ']')
            return true;
    }
}

/* Pass one scalar and call the function with path, text, kind and, of a number, its value. */
static bool flat_scalar(struct flat *flat, int c)
{
    lua_State *L = flat->L;
    struct rf_json_raw raw;
    struct rf_json_number number;
    int arguments = 3;

    luaL_checkstack(L, 8, "json.flatten");
    lua_pushvalue(L, 2);
    lua_pushlstring(L, (const char *)flat->path, flat->size);
    if (c == '"') {
        if (!rf_json_string_next(&flat->scan, &raw))
            return false;
        push_string(L, &raw);
        lua_pushliteral(L, "string");
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        if (!rf_json_number_next(&flat->scan, &number))
            return false;
        lua_pushlstring(L, (const char *)number.text.data, number.text.size);
        lua_pushliteral(L, "number");
        push_number(L, &number);
        arguments = 4;
    } else if (c == 't' || c == 'f' || c == 'n') {
        if (!rf_json_literal_next(&flat->scan))
            return false;
        if (c == 'n')
            lua_pushnil(L);
        else
            lua_pushstring(L, c == 't' ? "true" : "false");
        lua_pushstring(L, c == 'n' ? "null" : "boolean");
    } else {
        return rf_json_fail(&flat->scan, RF_INVALID, "expected a value");
    }
    lua_call(L, arguments, 0);
    return true;
}

static bool flat_next(struct flat *flat, int depth)
{
    int c = rf_json_space(&flat->scan);

    if (c == '{' || c == '[') {
        if (depth >= RF_JSON_NEST_MAX)
            return rf_json_fail(&flat->scan, RF_LIMIT, "nested too deep (at most 1024)");
        return c == '{' ? flat_object(flat, depth) : flat_array(flat, depth);
    }
    return flat_scalar(flat, c);
}

/* json.flatten(source, function(path, text, kind, number)) */
static int json_flatten(lua_State *L)
{
    struct flat flat = {.L = L, .capacity = 256};
    struct rf_bytes text = rf_host_text(L, 1, "json.flatten");

    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    flat.path = lua_newuserdata(L, flat.capacity);
    begin(&flat.scan, text);
    if (!flat_next(&flat, 0) || !rf_json_scan_end(&flat.scan))
        raise(L, &flat.scan, "json.flatten");
    return 0;
}

/* ---- records ---- */

#define RECORDS "json.records"

/* Line of an offset, from 1; reads from the start, so only for words of an error. */
static size_t line_of(lua_State *L, int window, uint64_t offset)
{
    size_t line = 1;

    for (uint64_t at = 0; at < offset;) {
        struct rf_bytes bytes = rf_host_window(L, window, at, 1, RECORDS);
        size_t size = bytes.size < offset - at ? bytes.size : (size_t)(offset - at);
        if (size == 0)
            break;
        for (size_t i = 0; i < size; i++)
            line += bytes.data[i] == '\n';
        at += size;
    }
    return line;
}

__attribute__((noreturn)) static void records_fail(lua_State *L, int window, uint64_t offset,
                                                   const char *why)
{
    rf_host_error(L, "%s: line %zu: %s", RECORDS, line_of(L, window, offset), why);
}

/* Skip blanks from *offset on; the byte there, or -1 at the end. */
static int records_space(lua_State *L, int window, uint64_t *offset)
{
    for (;;) {
        struct rf_bytes bytes = rf_host_window(L, window, *offset, 1, RECORDS);
        struct rf_json_scan scan;
        int c;

        if (bytes.size == 0)
            return -1;
        rf_json_scan_init(&scan, bytes);
        c = rf_json_space(&scan);
        *offset += (uint64_t)(scan.p - bytes.data);
        if (c != -1)
            return c;
    }
}

/* What is wrong with a text, and where. */
struct fault {
    uint64_t offset;
    const char *why;
};

__attribute__((noreturn)) static void records_fault(lua_State *L, int window,
                                                    const struct fault *fault)
{
    records_fail(L, window, fault->offset, fault->why);
}

#define CUT_MAX 16 /* a token that the end of a window cuts fails so close to it */

/* The largest window that fits the heap beside the half as large one before it, and then some. */
static size_t value_max(lua_State *L)
{
    size_t heap = rf_host(L)->used_max, size = RF_WINDOW;

    while (size * 2 + size + size / 2 <= heap)
        size *= 2;
    return size;
}

/* Pass one value that begins at *offset, growing the window until it is in there whole. false: it
 * is broken or too long to be looked at, and *offset stays. */
static bool records_value(lua_State *L, int window, uint64_t *offset, bool known_good,
                          struct fault *fault)
{
    struct rf_window *w = lua_touserdata(L, window);
    size_t want = 1, most = value_max(L);

    for (;;) {
        struct rf_bytes bytes = rf_host_window(L, window, *offset, want, RECORDS);
        struct rf_json_scan scan;
        bool whole = *offset + bytes.size == w->size;

        rf_json_scan_init(&scan, bytes);
        if ((known_good ? rf_json_skip_next(&scan) : rf_json_check_next(&scan)) &&
            (whole || scan.p < scan.end)) {
            *offset += (uint64_t)(scan.p - bytes.data);
            return true;
        }
        if (scan.why && (whole || scan.end - scan.p > CUT_MAX)) {
            *fault = (struct fault){*offset + (uint64_t)(scan.p - bytes.data), scan.why};
            return false;
        }
        if (bytes.size >= most) {
            *fault = (struct fault){*offset, "too long for the Lua heap, whose size the mapper's "
                                             "limits.memory_mb sets"};
            return false;
        }
        want = bytes.size * 2 < most ? bytes.size * 2 : most; /* maybe only cut off by the window */
    }
}

enum array { ARRAY_OF_OBJECTS, ARRAY_OTHER, ARRAY_BROKEN };

/* Pass the elements of an array, from behind its '['. ARRAY_OF_OBJECTS: there are some and all are
 * objects; *offset is then behind the ']'. ARRAY_OTHER: it stands at the first that is none. */
static enum array records_array(lua_State *L, int window, uint64_t *offset, struct fault *fault)
{
    int c = records_space(L, window, offset);

    for (;;) {
        if (c == -1) {
            *fault = (struct fault){*offset, "the text ends within an array"};
            return ARRAY_BROKEN;
        }
        if (c != '{')
            return ARRAY_OTHER;
        if (!records_value(L, window, offset, false, fault))
            return ARRAY_BROKEN;
        c = records_space(L, window, offset);
        if (c != ',' && c != ']') {
            *fault = (struct fault){*offset, "expected ',' or ']'"};
            return ARRAY_BROKEN;
        }
        ++*offset;
        if (c == ']')
            return ARRAY_OF_OBJECTS;
        c = records_space(L, window, offset);
    }
}

/* Whether the object at offset has one member only, an array of objects; *array: behind its '['. */
static bool records_wrapped(lua_State *L, int window, uint64_t offset, uint64_t *array)
{
    struct fault fault;

    offset++;
    if (records_space(L, window, &offset) != '"')
        return false;
    if (!records_value(L, window, &offset, false, &fault))
        return false;
    if (records_space(L, window, &offset) != ':')
        return false;
    offset++;
    if (records_space(L, window, &offset) != '[')
        return false;
    *array = ++offset;
    if (records_array(L, window, &offset, &fault) != ARRAY_OF_OBJECTS ||
        records_space(L, window, &offset) != '}')
        return false;
    offset++;
    return records_space(L, window, &offset) == -1;
}

/* The end of the line that offset is in, without the blanks before it. */
static uint64_t line_end(lua_State *L, int window, uint64_t offset)
{
    uint64_t end = offset; /* of what is no blank */

    for (;;) {
        struct rf_bytes bytes = rf_host_window(L, window, offset, 1, RECORDS);

        for (size_t i = 0; i < bytes.size; i++) {
            if (bytes.data[i] == '\n')
                return end;
            if (bytes.data[i] != ' ' && bytes.data[i] != '\t' && bytes.data[i] != '\r')
                end = offset + i + 1;
        }
        if (bytes.size == 0)
            return end;
        offset += bytes.size;
    }
}

/* How an iterator reads: values of its table of upvalues. */
enum { UP_WINDOW = 1, UP_OFFSET, UP_LINES, UP_BROKEN, UP_COUNTED, UP_LINE, UP_COUNT = UP_LINE };

/* One record: its place, and its line when it is broken, else 0. */
struct record {
    uint64_t start, end;
    size_t line;
};

/* Line of an offset, counted on from the last one that was asked for. */
static size_t next_line(lua_State *L, int window, uint64_t offset)
{
    uint64_t at = (uint64_t)lua_tonumber(L, lua_upvalueindex(UP_COUNTED));
    size_t line = (size_t)lua_tonumber(L, lua_upvalueindex(UP_LINE));

    while (at < offset) {
        struct rf_bytes bytes = rf_host_window(L, window, at, 1, RECORDS);
        size_t size = bytes.size < offset - at ? bytes.size : (size_t)(offset - at);

        if (size == 0)
            break;
        for (size_t i = 0; i < size; i++)
            line += bytes.data[i] == '\n';
        at += size;
    }
    lua_pushnumber(L, (lua_Number)at);
    lua_replace(L, lua_upvalueindex(UP_COUNTED));
    lua_pushnumber(L, (lua_Number)line);
    lua_replace(L, lua_upvalueindex(UP_LINE));
    return line;
}

/* The record at *offset or behind; *offset goes behind it. false: there is none. */
static bool next_record(lua_State *L, int window, uint64_t *offset, struct record *out)
{
    bool lines = lua_toboolean(L, lua_upvalueindex(UP_LINES));
    struct fault fault = {0};
    int c = records_space(L, window, offset);

    if (c == -1 || (!lines && c == ']'))
        return false;
    *out = (struct record){.start = *offset};
    if (c != '{')
        fault = (struct fault){*offset, "expected an object (of JSON lines each is one)"};
    if (c == '{' && records_value(L, window, offset, !lines, &fault)) {
        out->end = *offset;
        if (!lines && records_space(L, window, offset) == ',')
            ++*offset;
        return true;
    }
    if (!lua_toboolean(L, lua_upvalueindex(UP_BROKEN)))
        records_fault(L, window, &fault);
    *offset = out->end = line_end(L, window, out->start);
    out->line = next_line(L, window, out->start);
    return true;
}

/* Answers offset and size of the next record, and the line of a broken one. */
static int records_step(lua_State *L)
{
    uint64_t offset = (uint64_t)lua_tonumber(L, lua_upvalueindex(UP_OFFSET));
    struct record record;

    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(UP_WINDOW));
    if (!next_record(L, 1, &offset, &record))
        return 0;
    lua_pushnumber(L, (lua_Number)offset);
    lua_replace(L, lua_upvalueindex(UP_OFFSET));
    lua_pushnumber(L, (lua_Number)record.start);
    lua_pushnumber(L, (lua_Number)(record.end - record.start));
    if (!record.line)
        return 2;
    lua_pushnumber(L, (lua_Number)record.line);
    return 3;
}

static int push_records(lua_State *L, int window, uint64_t offset, bool lines, bool broken)
{
    lua_pushvalue(L, window);
    lua_pushnumber(L, (lua_Number)offset);
    lua_pushboolean(L, lines);
    lua_pushboolean(L, broken);
    lua_pushnumber(L, 0);
    lua_pushnumber(L, 1);
    lua_pushcclosure(L, records_step, UP_COUNT);
    lua_pushstring(L, lines ? "lines" : "array");
    return 2;
}

static int push_kind(lua_State *L, const char *kind)
{
    lua_pushnil(L);
    lua_pushstring(L, kind);
    return 2;
}

/* Whether an object stands at offset or at the beginning of a later line. */
static bool has_object_line(lua_State *L, int window, uint64_t offset)
{
    struct fault fault;
    int c;

    while ((c = records_space(L, window, &offset)) != -1) {
        if (c == '{' && records_value(L, window, &offset, false, &fault))
            return true;
        offset = line_end(L, window, offset);
    }
    return false;
}

static bool read_option(lua_State *L, int options, const char *name)
{
    bool set;

    if (lua_isnoneornil(L, options))
        return false;
    luaL_checktype(L, options, LUA_TTABLE);
    lua_getfield(L, options, name);
    set = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return set;
}

/* The records of a text that begins with an object, at offset. */
static int object_records(lua_State *L, int window, uint64_t offset, bool lines, bool broken)
{
    struct fault fault;
    uint64_t after = offset, more, array;

    if (records_wrapped(L, window, offset, &array))
        return push_records(L, window, array, false, false);
    if (!records_value(L, window, &after, false, &fault)) {
        if (!lines || !broken || !has_object_line(L, window, offset))
            records_fault(L, window, &fault);
        return push_records(L, window, offset, true, true);
    }
    more = after;
    if (records_space(L, window, &more) == -1)
        return push_kind(L, "object");
    if (broken && !lines) /* its first line tells whether a text is JSON lines */
        lines = line_of(L, window, offset) == line_of(L, window, after) &&
                line_of(L, window, after) < line_of(L, window, more);
    return push_records(L, window, offset, true, lines && broken);
}

/*
 * json.records(source, options): an iterator over offset and size of each record, and "array" or
 * "lines"; or nil and "object", "array" or "scalar" when the text is no sequence of records (which
 * says nothing of whether all of it is JSON). An array is read to its end first, to know that all
 * its elements are objects.
 *
 * options.broken: a line of JSON lines that is no object is answered too, from where it is broken
 * to its end, with its number; options.lines: it is JSON lines, though the first be broken.
 */
static int find_records(lua_State *L, int options)
{
    bool lines = read_option(L, options, "lines"), broken = read_option(L, options, "broken");
    uint64_t offset = 0, after;
    struct fault fault;
    struct rf_bytes head;
    int window, c;

    rf_host_push_window(L, 1, RECORDS);
    window = lua_gettop(L);
    head = rf_host_window(L, window, 0, 3, RECORDS);
    if (head.size >= 3 && memcmp(head.data, "\xef\xbb\xbf", 3) == 0)
        offset = 3;
    else if (is_utf16(head))
        rf_host_error(L, "%s: the text is UTF-16; JSON is read in UTF-8 only", RECORDS);
    c = records_space(L, window, &offset);
    if (c == -1)
        rf_host_error(L, "%s: the text is empty", RECORDS);
    if (c == '[') {
        after = offset + 1;
        switch (records_array(L, window, &after, &fault)) {
        case ARRAY_OTHER:
            return push_kind(L, "array");
        case ARRAY_BROKEN:
            records_fault(L, window, &fault);
        case ARRAY_OF_OBJECTS:
            break;
        }
        if (records_space(L, window, &after) != -1)
            records_fail(L, window, after, "there is more behind the array");
        return push_records(L, window, offset + 1, false, false);
    }
    if (c == '{')
        return object_records(L, window, offset, lines, broken);
    if (lines && broken && has_object_line(L, window, offset))
        return push_records(L, window, offset, true, true);
    return push_kind(L, "scalar");
}

static int json_records(lua_State *L)
{
    lua_settop(L, 2);
    return find_records(L, 2);
}

/* Upvalues: as of records, then the size. Answers offset, size and number of the next run of
 * records; of a broken one also its line. */
static int pieces_step(lua_State *L)
{
    uint64_t offset = (uint64_t)lua_tonumber(L, lua_upvalueindex(UP_OFFSET)), start = 0, end = 0;
    double most = lua_tonumber(L, lua_upvalueindex(UP_COUNT + 1));
    struct record record = {0};
    size_t count = 0;

    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(UP_WINDOW));
    while (count == 0 || (double)(end - start) < most) {
        uint64_t before = offset;

        if (!next_record(L, 1, &offset, &record))
            break;
        if (record.line && count) { /* one by itself, the next time */
            offset = before;
            record.line = 0;
            break;
        }
        start = count++ ? start : record.start;
        end = record.end;
        if (record.line)
            break;
    }
    if (count == 0)
        return 0;
    lua_pushnumber(L, (lua_Number)offset);
    lua_replace(L, lua_upvalueindex(UP_OFFSET));
    lua_pushnumber(L, (lua_Number)start);
    lua_pushnumber(L, (lua_Number)(end - start));
    lua_pushnumber(L, (lua_Number)count);
    if (!record.line)
        return 3;
    lua_pushnumber(L, (lua_Number)record.line);
    return 4;
}

/* json.pieces(source, size, options): as json.records, but the iterator goes over runs of whole
 * records of about so many bytes, and answers how many there are too. A broken one is no part of
 * a run. */
static int json_pieces(lua_State *L)
{
    double size = luaL_optnumber(L, 2, 1u << 20);

    lua_settop(L, 3);
    if (find_records(L, 3) == 2 && lua_isnil(L, -2))
        return 2;
    for (int i = 1; i <= UP_COUNT; i++)
        lua_getupvalue(L, -1 - i, i);
    lua_pushnumber(L, size);
    lua_pushcclosure(L, pieces_step, UP_COUNT + 1);
    lua_pushvalue(L, -2);
    return 2;
}

/* json.objects(source): an iterator over offset and size of each object of a run of them, with
 * blanks or a comma between two: of what json.pieces found. */
static int json_objects(lua_State *L)
{
    lua_settop(L, 1);
    rf_host_push_window(L, 1, RECORDS);
    push_records(L, lua_gettop(L), 0, false, false);
    lua_pop(L, 1);
    return 1;
}

void rf_lua_open_json(lua_State *L)
{
    static const struct rf_host_function functions[] = {
        {"decode", json_decode},   {"encode", json_encode}, {"flatten", json_flatten},
        {"objects", json_objects}, {"pick", json_pick},     {"pieces", json_pieces},
        {"records", json_records},
    };

    lua_newtable(L);
    rf_host_register(L, functions, sizeof functions / sizeof functions[0]);
    rf_host_push_null(L);
    lua_setfield(L, -2, "null");
}
