/*
 * lua_hash.c - digests and byte encodings
 *
 * SHA-256 as in FIPS 180-4 (OpenSSL), CRC-32 as in ISO 3309 (zip, gzip, PNG), hexadecimal, Base64
 * as in RFC 4648.
 */
#include "mappers/lua_host.h"

#include <string.h>

static struct rf_bytes check_bytes(lua_State *L, const char *what)
{
    return rf_host_text(L, 1, what);
}

static int hash_sha256(lua_State *L)
{
    struct rf_blobref ref;
    char text[RF_BLOBREF_SIZE];

    rf_blobref_of(&ref, check_bytes(L, "hash.sha256"));
    rf_blobref_format(&ref, text);
    lua_pushstring(L, strchr(text, '-') + 1);
    return 1;
}

/* hash.blobref(bytes): the name the store would give them. */
static int hash_blobref(lua_State *L)
{
    struct rf_blobref ref;
    char text[RF_BLOBREF_SIZE];

    rf_blobref_of(&ref, check_bytes(L, "hash.blobref"));
    rf_blobref_format(&ref, text);
    lua_pushstring(L, text);
    return 1;
}

static int hash_crc32(lua_State *L)
{
    struct rf_bytes text = check_bytes(L, "hash.crc32");
    uint32_t table[16], crc = 0xffffffff;

    for (uint32_t i = 0; i < 16; i++) { /* four bits at a time */
        table[i] = i;
        for (int bit = 0; bit < 4; bit++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320 : 0);
    }
    for (size_t i = 0; i < text.size; i++) {
        crc ^= text.data[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    lua_pushnumber(L, (lua_Number)(crc ^ 0xffffffff));
    return 1;
}

static int hash_hex(lua_State *L)
{
    static const char digits[] = "0123456789abcdef";
    struct rf_bytes text = check_bytes(L, "hash.hex");
    struct rf_buf *buf = rf_host_scratch(L);
    uint8_t *out = rf_buf_reserve(buf, 2 * text.size + 1);

    if (out) {
        for (size_t i = 0; i < text.size; i++) {
            out[2 * i] = (uint8_t)digits[text.data[i] >> 4];
            out[2 * i + 1] = (uint8_t)digits[text.data[i] & 15];
        }
        buf->size = 2 * text.size;
    }
    rf_host_push_scratch(L);
    return 1;
}

static int digit_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* hash.unhex(text): the bytes, or nil when it is no hexadecimal. */
static int hash_unhex(lua_State *L)
{
    struct rf_bytes text = check_bytes(L, "hash.unhex");
    struct rf_buf *buf = rf_host_scratch(L);

    for (size_t i = 0; i + 1 < text.size; i += 2) {
        int high = digit_value(text.data[i]), low = digit_value(text.data[i + 1]);
        if (high < 0 || low < 0)
            break;
        rf_buf_put_u8(buf, (uint8_t)(high << 4 | low));
    }
    if (buf->failed || 2 * buf->size != text.size)
        lua_pushnil(L);
    else
        rf_host_push_scratch(L);
    return 1;
}

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int hash_base64(lua_State *L)
{
    struct rf_bytes text = check_bytes(L, "hash.base64");
    struct rf_buf *buf = rf_host_scratch(L);

    for (size_t i = 0; i < text.size; i += 3) {
        size_t n = text.size - i < 3 ? text.size - i : 3;
        uint32_t bits = (uint32_t)text.data[i] << 16;
        uint8_t out[4] = {0, 0, '=', '='};

        if (n > 1)
            bits |= (uint32_t)text.data[i + 1] << 8;
        if (n > 2)
            bits |= text.data[i + 2];
        for (size_t k = 0; k <= n; k++)
            out[k] = (uint8_t)base64_digits[bits >> (18 - 6 * k) & 63];
        rf_buf_put(buf, out, sizeof out);
    }
    rf_host_push_scratch(L);
    return 1;
}

static int base64_value(uint8_t c)
{
    const char *found;

    if (c == '-')
        return 62; /* the URL-safe alphabet */
    if (c == '_')
        return 63;
    found = c ? strchr(base64_digits, c) : NULL;
    return found ? (int)(found - base64_digits) : -1;
}

/* hash.unbase64(text): the bytes; blanks are passed over, padding may be missing, both alphabets
 * are read. nil for anything else. */
static int hash_unbase64(lua_State *L)
{
    struct rf_bytes text = check_bytes(L, "hash.unbase64");
    struct rf_buf *buf = rf_host_scratch(L);
    uint32_t bits = 0;
    int held = 0;
    size_t digits = 0, padding = 0;

    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        int value = base64_value(c);

        if (c == ' ' || (c >= '\t' && c <= '\r'))
            continue;
        if (c == '=' && ++padding <= 2)
            continue;
        if (value < 0 || padding > 0) {
            lua_pushnil(L);
            return 1;
        }
        digits++;
        bits = bits << 6 | (uint32_t)value;
        held += 6;
        if (held >= 8) {
            held -= 8;
            rf_buf_put_u8(buf, (uint8_t)(bits >> held));
        }
    }
    if (digits % 4 == 1 || (padding > 0 && (digits + padding) % 4 != 0)) {
        lua_pushnil(L);
        return 1;
    }
    rf_host_push_scratch(L);
    return 1;
}

void rf_lua_open_hash(lua_State *L)
{
    static const struct rf_host_function functions[] = {
        {"base64", hash_base64}, {"blobref", hash_blobref}, {"crc32", hash_crc32},
        {"hex", hash_hex},       {"sha256", hash_sha256},   {"unbase64", hash_unbase64},
        {"unhex", hash_unhex},
    };

    lua_newtable(L);
    rf_host_register(L, functions, sizeof functions / sizeof functions[0]);
}
