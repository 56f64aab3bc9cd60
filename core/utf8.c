/* utf8.c - one function decides what a valid sequence is; ASCII is passed 8 bytes at a time. */
#include "core/utf8.h"

#include <stdio.h>
#include <string.h>

#define HIGH_BITS 0x8080808080808080u

static bool tail(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

/*
 * Bytes of the valid sequence at p, or 0; then *bad is how many bytes form the maximal invalid
 * part to be replaced by one U+FFFD (Unicode 15, section 3.9, as in the WHATWG decoder).
 */
static size_t sequence(const uint8_t *p, const uint8_t *end, size_t *bad)
{
    size_t left = (size_t)(end - p), need;
    uint8_t low = 0x80, high = 0xbf;

    *bad = 1;
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    need = p[0] < 0xe0 ? 1 : p[0] < 0xf0 ? 2 : 3;
    if (p[0] == 0xe0)
        low = 0xa0; /* nothing over-long */
    else if (p[0] == 0xed)
        high = 0x9f; /* no surrogates */
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f; /* nothing above U+10FFFF */
    if (left < 2 || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i <= need; i++) {
        *bad = i;
        if (left <= i || !tail(p[i]))
            return 0;
    }
    return need + 1;
}

/* Past the ASCII bytes at p. */
static const uint8_t *skip_ascii(const uint8_t *p, const uint8_t *end)
{
    uint64_t word;

    while (end - p >= 8) {
        memcpy(&word, p, 8);
        if (word & HIGH_BITS)
            break;
        p += 8;
    }
    while (p < end && *p < 0x80)
        p++;
    return p;
}

size_t rf_utf8_valid(struct rf_bytes text)
{
    const uint8_t *p = text.data, *end;
    size_t bad, size;

    if (text.size == 0)
        return 0;
    end = p + text.size;
    while ((p = skip_ascii(p, end)) < end) {
        size = sequence(p, end, &bad);
        if (size == 0)
            break;
        p += size;
    }
    return (size_t)(p - text.data);
}

void rf_utf8_clean(struct rf_buf *buf, struct rf_bytes text, bool drop_nul, bool *replaced,
                   bool *dropped)
{
    const uint8_t *p = text.data, *end, *good, *nul;
    size_t bad, size;

    if (text.size == 0)
        return;
    end = p + text.size;
    while (p < end) {
        good = p; /* a valid stretch without NUL goes over in one piece */
        size = rf_utf8_valid(rf_bytes(p, (size_t)(end - p)));
        nul = drop_nul ? memchr(p, 0, size) : NULL;
        p = nul ? nul : p + size;
        rf_buf_put(buf, good, (size_t)(p - good));
        if (nul) {
            while (p < end && *p == 0)
                p++;
            if (dropped)
                *dropped = true;
        } else if (p < end) {
            (void)sequence(p, end, &bad);
            rf_buf_put(buf, "\xef\xbf\xbd", 3);
            p += bad;
            if (replaced)
                *replaced = true;
        }
    }
}

size_t rf_utf8_cut(struct rf_bytes text, size_t max)
{
    size_t at = max, bad;

    if (text.size <= max)
        return text.size;
    for (size_t back = 0; back < 4 && at > 0 && tail(text.data[at]); back++)
        at--;
    /* Only a character that really spans the cut moves it: stray tail bytes do not. */
    if (at < max && at + sequence(text.data + at, text.data + text.size, &bad) > max)
        return at;
    return max;
}

const char *rf_utf8_short(char out[RF_SHORT_SIZE], const char *text)
{
    static const char more[] = "…";
    size_t size = strlen(text);

    if (size < RF_SHORT_SIZE)
        memcpy(out, text, size + 1);
    else
        snprintf(out, RF_SHORT_SIZE, "%.*s%s",
                 (int)rf_utf8_cut(rf_bytes(text, size), RF_SHORT_SIZE - sizeof more), text, more);
    return out;
}
