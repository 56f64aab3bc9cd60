/*
 * lua_uri.c - URIs as in RFC 3986, percent-encoding, query strings
 */
#include "mappers/lua_host.h"

#include <string.h>

static bool is_alpha(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static int hex_value(uint8_t c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Up to the first of these bytes, or all; text goes on behind what was taken. */
static struct rf_bytes take_until(struct rf_bytes *text, const char *stops)
{
    struct rf_bytes taken = *text;
    size_t n = 0;

    while (n < text->size && !(text->data[n] && strchr(stops, text->data[n])))
        n++;
    taken.size = n;
    text->data += n;
    text->size -= n;
    return taken;
}

static void set_field(lua_State *L, const char *name, struct rf_bytes text)
{
    lua_pushlstring(L, text.size ? (const char *)text.data : "", text.size);
    lua_setfield(L, -2, name);
}

static void set_lower(lua_State *L, const char *name, struct rf_bytes text)
{
    struct rf_buf *buf = rf_host_scratch(L);

    for (size_t i = 0; i < text.size; i++)
        rf_buf_put_u8(buf, text.data[i] >= 'A' && text.data[i] <= 'Z' ? text.data[i] + 32
                                                                      : text.data[i]);
    rf_host_push_scratch(L);
    lua_setfield(L, -2, name);
}

static bool take_scheme(struct rf_bytes *text, struct rf_bytes *scheme)
{
    struct rf_bytes rest = *text;
    struct rf_bytes taken = take_until(&rest, ":/?#");

    if (taken.size == 0 || rest.size == 0 || rest.data[0] != ':' || !is_alpha(taken.data[0]))
        return false;
    for (size_t i = 0; i < taken.size; i++)
        if (!is_alpha(taken.data[i]) && !is_digit(taken.data[i]) &&
            !strchr("+-.", taken.data[i]))
            return false;
    *scheme = taken;
    *text = rf_bytes(rest.data + 1, rest.size - 1);
    return true;
}

/* userinfo@host:port */
static void set_authority(lua_State *L, struct rf_bytes authority)
{
    const uint8_t *at = authority.size ? memrchr(authority.data, '@', authority.size) : NULL;
    size_t end, digits;

    if (at) {
        set_field(L, "userinfo", rf_bytes(authority.data, (size_t)(at - authority.data)));
        authority.size -= (size_t)(at + 1 - authority.data);
        authority.data = at + 1;
    }
    end = authority.size;
    for (digits = 0; digits < end && is_digit(authority.data[end - digits - 1]);)
        digits++;
    if (digits < end && authority.data[end - digits - 1] == ':') {
        if (digits > 0 && digits < 6) {
            lua_pushlstring(L, (const char *)authority.data + end - digits, digits);
            lua_pushnumber(L, lua_tonumber(L, -1));
            lua_setfield(L, -3, "port");
            lua_pop(L, 1);
        }
        end -= digits + 1;
    }
    set_lower(L, "host", rf_bytes(authority.data, end));
}

/* uri.parse(text): { scheme, userinfo, host, port, path, query, fragment }, parts as written but
 * scheme and host in lower case; absent ones nil. A relative reference has no scheme. */
static int uri_parse(lua_State *L)
{
    struct rf_bytes text, scheme;

    text.data = (const uint8_t *)luaL_checklstring(L, 1, &text.size);
    lua_createtable(L, 0, 8);
    if (take_scheme(&text, &scheme))
        set_lower(L, "scheme", scheme);
    if (text.size >= 2 && text.data[0] == '/' && text.data[1] == '/') {
        text = rf_bytes(text.data + 2, text.size - 2);
        set_authority(L, take_until(&text, "/?#"));
    }
    set_field(L, "path", take_until(&text, "?#"));
    if (text.size > 0 && text.data[0] == '?') {
        text = rf_bytes(text.data + 1, text.size - 1);
        set_field(L, "query", take_until(&text, "#"));
    }
    if (text.size > 0)
        set_field(L, "fragment", rf_bytes(text.data + 1, text.size - 1));
    return 1;
}

/* uri.encode(text): all but RFC 3986's unreserved characters as %XX. */
static int uri_encode(lua_State *L)
{
    static const char hex[] = "0123456789ABCDEF";
    struct rf_bytes text;
    struct rf_buf *buf;

    text.data = (const uint8_t *)luaL_checklstring(L, 1, &text.size);
    buf = rf_host_scratch(L);
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (is_alpha(c) || is_digit(c) || c == '-' || c == '.' || c == '_' || c == '~') {
            rf_buf_put_u8(buf, c);
        } else {
            uint8_t escaped[3] = {'%', (uint8_t)hex[c >> 4], (uint8_t)hex[c & 15]};
            rf_buf_put(buf, escaped, sizeof escaped);
        }
    }
    rf_host_push_scratch(L);
    return 1;
}

/* Push text with %XX undone; a '%' that begins no escape stays. plus: '+' is a blank. */
static void push_decoded(lua_State *L, struct rf_bytes text, bool plus)
{
    struct rf_buf *buf = rf_host_scratch(L);

    for (size_t i = 0; i < text.size; i++) {
        int high = i + 2 < text.size && text.data[i] == '%' ? hex_value(text.data[i + 1]) : -1;
        int low = high >= 0 ? hex_value(text.data[i + 2]) : -1;

        if (low >= 0) {
            rf_buf_put_u8(buf, (uint8_t)(high << 4 | low));
            i += 2;
        } else {
            rf_buf_put_u8(buf, plus && text.data[i] == '+' ? ' ' : text.data[i]);
        }
    }
    rf_host_push_scratch(L);
}

static int uri_decode(lua_State *L)
{
    struct rf_bytes text;

    text.data = (const uint8_t *)luaL_checklstring(L, 1, &text.size);
    push_decoded(L, text, false);
    return 1;
}

/* uri.query(text): values by name (of equal names the last), and the list of { name, value }. */
static int uri_query(lua_State *L)
{
    struct rf_bytes text;
    int count = 0;

    text.data = (const uint8_t *)luaL_checklstring(L, 1, &text.size);
    lua_newtable(L);
    lua_newtable(L);
    while (text.size > 0) {
        struct rf_bytes pair = take_until(&text, "&;"), name;

        if (text.size > 0)
            text = rf_bytes(text.data + 1, text.size - 1);
        if (pair.size == 0)
            continue;
        name = take_until(&pair, "=");
        if (pair.size > 0)
            pair = rf_bytes(pair.data + 1, pair.size - 1);
        lua_createtable(L, 2, 0);
        push_decoded(L, name, true);
        push_decoded(L, pair, true);
        lua_pushvalue(L, -2);
        lua_pushvalue(L, -2);
        lua_rawset(L, 2);
        lua_rawseti(L, -3, 2);
        lua_rawseti(L, -2, 1);
        lua_rawseti(L, 3, ++count);
    }
    return 2;
}

void rf_lua_open_uri(lua_State *L)
{
    static const struct rf_host_function functions[] = {
        {"decode", uri_decode}, {"encode", uri_encode}, {"parse", uri_parse}, {"query", uri_query},
    };

    lua_newtable(L);
    rf_host_register(L, functions, sizeof functions / sizeof functions[0]);
}
