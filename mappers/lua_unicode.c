/*
 * lua_unicode.c - normal forms, case, characters (utf8proc), and text in older encodings
 *
 * Bytes that are no UTF-8 become U+FFFD first, so that every text has an answer. Positions and
 * lengths count code points.
 */
#include "core/utf8.h"
#include "mappers/lua_host.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static bool is_ascii(struct rf_bytes text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] >= 0x80)
            return false;
    return true;
}

/* The string at index as valid UTF-8, on the stack where it stays. */
static struct rf_bytes check_utf8(lua_State *L, int index)
{
    struct rf_bytes text;

    text.data = (const uint8_t *)luaL_checklstring(L, index, &text.size);
    if (rf_utf8_valid(text) != text.size) {
        rf_utf8_clean(rf_host_scratch(L), text, false, NULL, NULL);
        rf_host_push_scratch(L);
        lua_replace(L, index);
        text.data = (const uint8_t *)lua_tolstring(L, index, &text.size);
    }
    return text;
}

/* What utf8proc makes of the string at 1, pushed. Its memory is ours only inside this function,
 * which does not raise while it holds any. */
static int push_mapped(lua_State *L, int options, const char *what)
{
    struct rf_bytes text = check_utf8(L, 1);
    struct rf_buf *buf = rf_host_scratch(L);
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t size;

    size = utf8proc_map(text.data, (utf8proc_ssize_t)text.size, &mapped, options);
    if (size >= 0)
        rf_buf_put(buf, mapped, (size_t)size);
    free(mapped);
    if (size < 0)
        rf_host_error(L, "unicode.%s: %s", what, utf8proc_errmsg(size));
    rf_host_push_scratch(L);
    return 1;
}

static int push_normal(lua_State *L, int options, const char *what)
{
    struct rf_bytes text;

    text.data = (const uint8_t *)luaL_checklstring(L, 1, &text.size);
    if (is_ascii(text)) { /* every normal form of ASCII is itself */
        lua_settop(L, 1);
        return 1;
    }
    return push_mapped(L, options | UTF8PROC_STABLE, what);
}

static int unicode_nfc(lua_State *L)
{
    return push_normal(L, UTF8PROC_COMPOSE, "nfc");
}

static int unicode_nfd(lua_State *L)
{
    return push_normal(L, UTF8PROC_DECOMPOSE, "nfd");
}

static int unicode_nfkc(lua_State *L)
{
    return push_normal(L, UTF8PROC_COMPOSE | UTF8PROC_COMPAT, "nfkc");
}

static int unicode_nfkd(lua_State *L)
{
    return push_normal(L, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT, "nfkd");
}

/* unicode.fold(text): NFC of full case folding; equal texts but for case fold to the same. */
static int unicode_fold(lua_State *L)
{
    return push_mapped(L, UTF8PROC_COMPOSE | UTF8PROC_CASEFOLD | UTF8PROC_STABLE, "fold");
}

/* unicode.strip(text): without accents and other marks. */
static int unicode_strip(lua_State *L)
{
    return push_mapped(L, UTF8PROC_COMPOSE | UTF8PROC_STRIPMARK | UTF8PROC_STABLE, "strip");
}

static void put_code(struct rf_buf *buf, utf8proc_int32_t code)
{
    uint8_t bytes[4];

    rf_buf_put(buf, bytes, (size_t)utf8proc_encode_char(code, bytes));
}

static int push_case(lua_State *L, utf8proc_int32_t (*convert)(utf8proc_int32_t))
{
    struct rf_bytes text = check_utf8(L, 1);
    struct rf_buf *buf = rf_host_scratch(L);

    for (size_t at = 0; at < text.size;) {
        utf8proc_int32_t code;
        at += (size_t)utf8proc_iterate(text.data + at, (utf8proc_ssize_t)(text.size - at), &code);
        put_code(buf, convert(code));
    }
    rf_host_push_scratch(L);
    return 1;
}

static int unicode_lower(lua_State *L)
{
    return push_case(L, utf8proc_tolower);
}

static int unicode_upper(lua_State *L)
{
    return push_case(L, utf8proc_toupper);
}

static size_t count_characters(struct rf_bytes text)
{
    size_t count = 0;

    for (size_t i = 0; i < text.size; i++)
        count += (text.data[i] & 0xc0) != 0x80;
    return count;
}

static int unicode_len(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)count_characters(check_utf8(L, 1)));
    return 1;
}

/* unicode.width(text): columns on a terminal. */
static int unicode_width(lua_State *L)
{
    struct rf_bytes text = check_utf8(L, 1);
    lua_Number width = 0;

    for (size_t at = 0; at < text.size;) {
        utf8proc_int32_t code;
        at += (size_t)utf8proc_iterate(text.data + at, (utf8proc_ssize_t)(text.size - at), &code);
        width += utf8proc_charwidth(code);
    }
    lua_pushnumber(L, width);
    return 1;
}

/* unicode.sub(text, from, to): as string.sub, by characters. */
static int unicode_sub(lua_State *L)
{
    struct rf_bytes text = check_utf8(L, 1);
    lua_Integer count = (lua_Integer)count_characters(text), from = luaL_checkinteger(L, 2);
    lua_Integer to = luaL_optinteger(L, 3, -1), at = 0;
    size_t start = text.size, end = text.size;

    if (from < 0)
        from = from < -count ? 1 : count + from + 1;
    else if (from == 0)
        from = 1;
    if (to < 0)
        to = count + to + 1;
    for (size_t i = 0; i < text.size; i++) {
        if ((text.data[i] & 0xc0) == 0x80)
            continue;
        at++;
        if (at == from)
            start = i;
        if (at == to + 1) {
            end = i;
            break;
        }
    }
    if (to < from || start > end)
        lua_pushliteral(L, "");
    else
        lua_pushlstring(L, (const char *)text.data + start, end - start);
    return 1;
}

/* Upvalue: offset of the next character. Answers its code point and its text. */
static int codepoints_step(lua_State *L)
{
    struct rf_bytes text;
    size_t at = (size_t)lua_tonumber(L, lua_upvalueindex(2));
    utf8proc_int32_t code;
    utf8proc_ssize_t n;

    text.data = (const uint8_t *)lua_tolstring(L, lua_upvalueindex(1), &text.size);
    if (at >= text.size)
        return 0;
    n = utf8proc_iterate(text.data + at, (utf8proc_ssize_t)(text.size - at), &code);
    lua_pushnumber(L, (lua_Number)(at + (size_t)n));
    lua_replace(L, lua_upvalueindex(2));
    lua_pushinteger(L, code);
    lua_pushlstring(L, (const char *)text.data + at, (size_t)n);
    return 2;
}

/* for code, character in unicode.codepoints(text) */
static int unicode_codepoints(lua_State *L)
{
    check_utf8(L, 1);
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, codepoints_step, 2);
    return 1;
}

/* unicode.char(code, ...) */
static int unicode_char(lua_State *L)
{
    struct rf_buf *buf = rf_host_scratch(L);
    int n = lua_gettop(L);

    for (int i = 1; i <= n; i++) {
        lua_Number code = luaL_checknumber(L, i);
        luaL_argcheck(L, code >= 0 && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff), i,
                      "no Unicode character");
        put_code(buf, (utf8proc_int32_t)code);
    }
    rf_host_push_scratch(L);
    return 1;
}

/* unicode.valid(text): whether it is UTF-8, and bytes of the valid beginning. */
static int unicode_valid(lua_State *L)
{
    struct rf_bytes text;
    size_t valid;

    text.data = (const uint8_t *)luaL_checklstring(L, 1, &text.size);
    valid = rf_utf8_valid(text);
    lua_pushboolean(L, valid == text.size);
    lua_pushnumber(L, (lua_Number)valid);
    return 2;
}

/* unicode.clean(text): with U+FFFD for what is no UTF-8. */
static int unicode_clean(lua_State *L)
{
    check_utf8(L, 1);
    lua_settop(L, 1);
    return 1;
}

void rf_unicode_put_1252(struct rf_buf *buf, struct rf_bytes text)
{
    /* Of the WHATWG index: 0x80 to 0x9f; the five it leaves open stay control characters. */
    static const uint16_t upper[32] = {
        0x20ac, 0x0081, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
        0x2039, 0x0152, 0x008d, 0x017d, 0x008f, 0x0090, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
        0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0x009d, 0x017e, 0x0178,
    };

    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        put_code(buf, c >= 0x80 && c < 0xa0 ? upper[c - 0x80] : c);
    }
}

/* How many characters had to be replaced: halves of a pair alone, and an odd byte at the end. */
static size_t put_utf16(struct rf_buf *buf, struct rf_bytes text, bool big)
{
    size_t replaced = 0;

    for (size_t i = 0; i + 1 < text.size; i += 2) {
        uint32_t unit = big ? (uint32_t)text.data[i] << 8 | text.data[i + 1]
                            : (uint32_t)text.data[i + 1] << 8 | text.data[i];
        if (unit >= 0xd800 && unit < 0xdc00 && i + 3 < text.size) {
            uint32_t low = big ? (uint32_t)text.data[i + 2] << 8 | text.data[i + 3]
                               : (uint32_t)text.data[i + 3] << 8 | text.data[i + 2];
            if (low >= 0xdc00 && low < 0xe000) {
                put_code(buf, (utf8proc_int32_t)(0x10000 + ((unit - 0xd800) << 10) + low - 0xdc00));
                i += 2;
                continue;
            }
        }
        if (unit >= 0xd800 && unit < 0xe000) {
            unit = 0xfffd;
            replaced++;
        }
        if (i > 0 || unit != 0xfeff)
            put_code(buf, (utf8proc_int32_t)unit);
    }
    if (text.size % 2) {
        put_code(buf, 0xfffd);
        replaced++;
    }
    return replaced;
}

/* unicode.decode(bytes, encoding, count): UTF-8 of windows-1252, latin1, utf-16, -16le, -16be.
 * How many characters were replaced only when asked: the answer is often another's argument. */
static int unicode_decode(lua_State *L)
{
    static const char *const encodings[] = {"windows-1252", "latin1", "utf-16le", "utf-16be",
                                            "utf-16", NULL};
    struct rf_bytes text;
    struct rf_buf *buf;
    size_t replaced = 0;
    int encoding;

    text.data = (const uint8_t *)luaL_checklstring(L, 1, &text.size);
    encoding = luaL_checkoption(L, 2, NULL, encodings);
    lua_settop(L, 3);
    buf = rf_host_scratch(L);
    if (encoding == 0)
        rf_unicode_put_1252(buf, text);
    else if (encoding == 1)
        for (size_t i = 0; i < text.size; i++)
            put_code(buf, text.data[i]);
    else
        replaced = put_utf16(buf, text, encoding == 3 || (encoding == 4 && text.size >= 2 &&
                                                          text.data[0] == 0xfe &&
                                                          text.data[1] == 0xff));
    rf_host(L)->replaced |= replaced > 0;
    rf_host_push_scratch(L);
    if (!lua_toboolean(L, 3))
        return 1;
    lua_pushinteger(L, (lua_Integer)replaced);
    return 2;
}

void rf_lua_open_unicode(lua_State *L)
{
    static const struct rf_host_function functions[] = {
        {"char", unicode_char},   {"clean", unicode_clean}, {"codepoints", unicode_codepoints},
        {"decode", unicode_decode}, {"fold", unicode_fold}, {"len", unicode_len},
        {"lower", unicode_lower}, {"nfc", unicode_nfc},     {"nfd", unicode_nfd},
        {"nfkc", unicode_nfkc},   {"nfkd", unicode_nfkd},   {"strip", unicode_strip},
        {"sub", unicode_sub},     {"upper", unicode_upper}, {"valid", unicode_valid},
        {"width", unicode_width},
    };

    lua_newtable(L);
    rf_host_register(L, functions, sizeof functions / sizeof functions[0]);
}
