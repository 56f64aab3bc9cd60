/*
 * lua_text.c - cutting text: trim, split, words, lines, truncate, snippet
 *
 * Blanks are ASCII's; characters are code points of UTF-8, and a byte that is no UTF-8 counts as
 * one character. Nothing here takes a pattern: what a separator looks like is what it is.
 */
#include "core/utf8.h"
#include "mappers/lua_host.h"

#include <string.h>
#include <utf8proc.h>

static bool is_blank(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static struct rf_bytes check_text(lua_State *L, int index)
{
    struct rf_bytes text;

    text.data = (const uint8_t *)luaL_checklstring(L, index, &text.size);
    return text;
}

static void push_bytes(lua_State *L, struct rf_bytes text)
{
    lua_pushlstring(L, text.size ? (const char *)text.data : "", text.size);
}

/* Size of the character at the start; at least 1. */
static size_t character_size(struct rf_bytes text, utf8proc_int32_t *code)
{
    utf8proc_ssize_t n;

    if (text.data[0] < 0x80) {
        *code = text.data[0];
        return 1;
    }
    n = utf8proc_iterate(text.data, (utf8proc_ssize_t)(text.size < 4 ? text.size : 4), code);
    return n > 0 ? (size_t)n : 1;
}

static struct rf_bytes trimmed(struct rf_bytes text)
{
    while (text.size && is_blank(text.data[0]))
        text = rf_bytes(text.data + 1, text.size - 1);
    while (text.size && is_blank(text.data[text.size - 1]))
        text.size--;
    return text;
}

static int text_trim(lua_State *L)
{
    push_bytes(L, trimmed(check_text(L, 1)));
    return 1;
}

/* text.split(text, separator, most): a list; the rest of the text is the last when most are had. */
static int text_split(lua_State *L)
{
    struct rf_bytes text = check_text(L, 1), separator = check_text(L, 2);
    lua_Integer most = luaL_optinteger(L, 3, 0);
    int count = 0;

    luaL_argcheck(L, separator.size > 0, 2, "the separator is empty");
    lua_newtable(L);
    for (;;) {
        const uint8_t *found = most > 0 && count + 1 >= most
                                   ? NULL
                                   : memmem(text.data, text.size, separator.data, separator.size);
        if (!found)
            break;
        push_bytes(L, rf_bytes(text.data, (size_t)(found - text.data)));
        lua_rawseti(L, -2, ++count);
        text.size -= (size_t)(found - text.data) + separator.size;
        text.data = found + separator.size;
    }
    push_bytes(L, text);
    lua_rawseti(L, -2, ++count);
    return 1;
}

static bool is_word(utf8proc_int32_t code)
{
    if (code < 0x80)
        return (code >= '0' && code <= '9') || (code >= 'a' && code <= 'z') ||
               (code >= 'A' && code <= 'Z');
    switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return true;
    default:
        return false;
    }
}

/* text.words(text): runs of letters, marks and digits, as they are written. */
static int text_words(lua_State *L)
{
    struct rf_bytes text = check_text(L, 1);
    const uint8_t *start = NULL;
    int count = 0;

    lua_newtable(L);
    while (text.size > 0) {
        utf8proc_int32_t code = -1;
        size_t n = character_size(text, &code);
        bool word = code >= 0 && is_word(code);

        if (word && !start)
            start = text.data;
        if (!word && start) {
            push_bytes(L, rf_bytes(start, (size_t)(text.data - start)));
            lua_rawseti(L, -2, ++count);
            start = NULL;
        }
        text = rf_bytes(text.data + n, text.size - n);
    }
    if (start) {
        push_bytes(L, rf_bytes(start, (size_t)(text.data - start)));
        lua_rawseti(L, -2, ++count);
    }
    return 1;
}

/* Bytes of the first count characters. */
static size_t prefix_size(struct rf_bytes text, lua_Integer count)
{
    size_t at = 0;
    utf8proc_int32_t code;

    for (; count > 0 && at < text.size; count--)
        at += character_size(rf_bytes(text.data + at, text.size - at), &code);
    return at;
}

/* text.truncate(text, characters, ending = ""): at most so many, the ending's included. */
static int text_truncate(lua_State *L)
{
    struct rf_bytes text = check_text(L, 1), ending = {0};
    lua_Integer most = luaL_checkinteger(L, 2), ending_size = 0;

    luaL_argcheck(L, most >= 0, 2, "a number of characters from 0");
    if (!lua_isnoneornil(L, 3))
        ending = check_text(L, 3);
    if (prefix_size(text, most) == text.size) {
        lua_settop(L, 1);
        return 1;
    }
    for (size_t at = 0; at < ending.size; ending_size++)
        at += prefix_size(rf_bytes(ending.data + at, ending.size - at), 1);
    if (ending_size > most)
        ending = (struct rf_bytes){0};
    else
        most -= ending_size;
    push_bytes(L, rf_bytes(text.data, prefix_size(text, most)));
    push_bytes(L, ending);
    lua_concat(L, 2);
    return 1;
}

/* Append text with runs of blanks as one, none at its ends; stop once buf holds most bytes. */
static void collapse(struct rf_buf *buf, struct rf_bytes text, size_t most)
{
    text = trimmed(text);
    while (text.size > 0 && buf->size < most) {
        size_t n = 0;
        while (n < text.size && !is_blank(text.data[n]))
            n++;
        rf_buf_put(buf, text.data, n);
        text = trimmed(rf_bytes(text.data + n, text.size - n));
        if (text.size > 0)
            rf_buf_put_u8(buf, ' ');
    }
}

static int text_collapse(lua_State *L)
{
    struct rf_bytes text = check_text(L, 1);

    collapse(rf_host_scratch(L), text, SIZE_MAX);
    rf_host_push_scratch(L);
    return 1;
}

/* text.snippet(text, characters = 200): blanks collapsed, cut between words, with an ellipsis. */
static int text_snippet(lua_State *L)
{
    struct rf_bytes text = check_text(L, 1);
    lua_Integer most = luaL_optinteger(L, 2, 200);
    struct rf_buf *buf = rf_host_scratch(L);
    size_t size;

    luaL_argcheck(L, most > 0 && most <= 1000000, 2, "a number of characters from 1");
    collapse(buf, text, 4 * (size_t)most + 8);
    text = rf_buf_bytes(buf);
    size = prefix_size(text, most);
    if (size < text.size) {
        size_t cut = prefix_size(text, most - 1), word = cut;
        while (word > cut / 2 && text.data[word] != ' ')
            word--;
        if (word > cut / 2)
            cut = word;
        buf->size = cut;
        rf_buf_put_text(buf, "\xe2\x80\xa6");
    }
    rf_host_push_scratch(L);
    return 1;
}

static int text_starts(lua_State *L)
{
    struct rf_bytes text = check_text(L, 1), with = check_text(L, 2);

    lua_pushboolean(L, text.size >= with.size && memcmp(text.data, with.data, with.size) == 0);
    return 1;
}

static int text_ends(lua_State *L)
{
    struct rf_bytes text = check_text(L, 1), with = check_text(L, 2);

    lua_pushboolean(L, text.size >= with.size &&
                           memcmp(text.data + text.size - with.size, with.data, with.size) == 0);
    return 1;
}

void rf_lua_open_text(lua_State *L)
{
    static const struct rf_host_function functions[] = {
        {"collapse", text_collapse}, {"ends", text_ends},       {"lines", rf_lua_lines},
        {"snippet", text_snippet},   {"split", text_split},     {"starts", text_starts},
        {"trim", text_trim},         {"truncate", text_truncate}, {"words", text_words},
    };

    lua_newtable(L);
    rf_host_register(L, functions, sizeof functions / sizeof functions[0]);
}
