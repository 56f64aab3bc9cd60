/*
 * json_scan.c - the strict scanner under every JSON decoder
 *
 * Strings are most of any JSON text, so the search for their end looks at 16 bytes at once (SSE2,
 * which every x86-64 has; elsewhere 8 at a time by the classic bit tricks). Nesting is kept as one
 * bit per level, so that neither check nor skip recurses.
 */
#include "core/json_scan.h"

#include <math.h>
#include <stdlib.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "core/utf8.h"

void rf_json_scan_init(struct rf_json_scan *scan, struct rf_bytes text)
{
    static const uint8_t nothing[1];
    const uint8_t *start = text.size ? text.data : nothing;

    *scan = (struct rf_json_scan){.p = start, .end = start + text.size, .start = start};
}

bool rf_json_fail(struct rf_json_scan *scan, enum rf_status status, const char *why)
{
    if (!scan->why) {
        scan->why = why;
        scan->status = status;
    }
    return false;
}

/* ---- strings ---- */

/* The first byte from p that is '"', '\\', a control byte or (when high) not ASCII; or end. */
static inline const uint8_t *plain_end(const uint8_t *p, const uint8_t *end)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\');
    const __m128i blank = _mm_set1_epi8(' ');

    for (; end - p >= 16; p += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
        /* A signed comparison: bytes from 0x80 are negative, so they stop it as controls do. */
        __m128i stop = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(x, quote),
                                                 _mm_cmpeq_epi8(x, slash)),
                                    _mm_cmplt_epi8(x, blank));
        int mask = _mm_movemask_epi8(stop);
        if (mask)
            return p + __builtin_ctz((unsigned)mask);
    }
#else
    const uint64_t ones = 0x0101010101010101u, high = 0x8080808080808080u;
    uint64_t x;

    for (; end - p >= 8; p += 8) {
        memcpy(&x, p, 8);
        uint64_t q = x ^ ones * '"', s = x ^ ones * '\\';
        if (((q - ones) | (s - ones) | (x - ones * ' ') | x) & high)
            break; /* may stop early at a byte that only borrowed; the loop below settles it */
    }
#endif
    while (p < end && *p >= ' ' && *p < 0x80 && *p != '"' && *p != '\\')
        p++;
    return p;
}

/* The first '"' or '\\' from p, or end. */
static inline const uint8_t *quote_or_slash(const uint8_t *p, const uint8_t *end)
{
#ifdef __SSE2__
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\');

    for (; end - p >= 16; p += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
        int mask =
            _mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(x, quote), _mm_cmpeq_epi8(x, slash)));
        if (mask)
            return p + __builtin_ctz((unsigned)mask);
    }
#endif
    while (p < end && *p != '"' && *p != '\\')
        p++;
    return p;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The value of four hex digits at p, or -1. */
static int hex4(const uint8_t *p, const uint8_t *end)
{
    int value = 0, digit;

    if (end - p < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        digit = hex_digit(p[i]);
        if (digit < 0)
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* p stands behind "\u". Pass the digits, and the second half of a surrogate pair. */
static bool check_unicode_escape(struct rf_json_scan *scan)
{
    int code = hex4(scan->p, scan->end), low;

    if (code < 0)
        return rf_json_fail(scan, RF_INVALID, "\\u needs four hex digits");
    if (code >= 0xdc00 && code <= 0xdfff)
        return rf_json_fail(scan, RF_INVALID, "lone surrogate");
    scan->p += 4;
    if (code < 0xd800 || code > 0xdbff)
        return true;
    if (scan->end - scan->p < 6 || scan->p[0] != '\\' || scan->p[1] != 'u')
        return rf_json_fail(scan, RF_INVALID, "lone surrogate");
    low = hex4(scan->p + 2, scan->end);
    if (low < 0xdc00 || low > 0xdfff)
        return rf_json_fail(scan, RF_INVALID, "lone surrogate");
    scan->p += 6;
    return true;
}

static bool check_escape(struct rf_json_scan *scan)
{
    scan->p++;
    if (scan->p == scan->end)
        return rf_json_fail(scan, RF_INVALID, "string without end");
    switch (*scan->p++) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return true;
    case 'u':
        return check_unicode_escape(scan);
    default:
        scan->p--;
        return rf_json_fail(scan, RF_INVALID, "unknown escape in a string");
    }
}

/* Pass the run of characters beyond ASCII at p. */
static bool check_high(struct rf_json_scan *scan)
{
    const uint8_t *p = scan->p, *end = scan->end;

    while (p < end && *p >= 0x80) {
        /* The two commonest kinds at hand, the others through the one that knows all the rules. */
        if (*p >= 0xc2 && *p <= 0xdf && end - p >= 2 && (p[1] & 0xc0) == 0x80) {
            p += 2;
        } else if (*p >= 0xe1 && *p <= 0xec && end - p >= 3 && (p[1] & 0xc0) == 0x80 &&
                   (p[2] & 0xc0) == 0x80) {
            p += 3;
        } else {
            size_t size = *p < 0xf0 ? 3 : 4;
            if ((size_t)(end - p) < size || rf_utf8_valid(rf_bytes(p, size)) != size) {
                scan->p = p;
                return rf_json_fail(scan, RF_INVALID, "invalid UTF-8 in a string");
            }
            p += size;
        }
    }
    scan->p = p;
    return true;
}

bool rf_json_string_next(struct rf_json_scan *scan, struct rf_json_raw *out)
{
    const uint8_t *first;

    if (scan->p == scan->end || *scan->p != '"')
        return rf_json_fail(scan, RF_INVALID, "expected a string");
    first = ++scan->p;
    out->escaped = false;
    for (;;) {
        scan->p = plain_end(scan->p, scan->end);
        if (scan->p == scan->end)
            return rf_json_fail(scan, RF_INVALID, "string without end");
        if (*scan->p == '"') {
            out->raw = rf_bytes(first, (size_t)(scan->p - first));
            scan->p++;
            return true;
        }
        if (*scan->p == '\\') {
            out->escaped = true;
            if (!check_escape(scan))
                return false;
        } else if (*scan->p < ' ') {
            return rf_json_fail(scan, RF_INVALID, "control byte in a string (write it as \\u00..)");
        } else if (!check_high(scan)) {
            return false;
        }
    }
}

static uint8_t *put_code(uint8_t *out, uint32_t code)
{
    if (code < 0x80) {
        *out++ = (uint8_t)code;
    } else if (code < 0x800) {
        *out++ = (uint8_t)(0xc0 | code >> 6);
        *out++ = (uint8_t)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        *out++ = (uint8_t)(0xe0 | code >> 12);
        *out++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (code & 0x3f));
    } else {
        *out++ = (uint8_t)(0xf0 | code >> 18);
        *out++ = (uint8_t)(0x80 | (code >> 12 & 0x3f));
        *out++ = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (code & 0x3f));
    }
    return out;
}

static uint8_t unescaped(uint8_t c)
{
    switch (c) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return c;
    }
}

size_t rf_json_unescape(struct rf_bytes raw, uint8_t *out)
{
    const uint8_t *p = raw.data, *end = p + raw.size, *slash;
    uint8_t *to = out;

    while (p < end) {
        slash = memchr(p, '\\', (size_t)(end - p));
        if (!slash)
            slash = end;
        memcpy(to, p, (size_t)(slash - p));
        to += slash - p;
        p = slash;
        if (p == end)
            break;
        if (p[1] != 'u') {
            *to++ = unescaped(p[1]);
            p += 2;
        } else {
            uint32_t code = (uint32_t)hex4(p + 2, end);
            p += 6;
            if (code >= 0xd800 && code <= 0xdbff) {
                code = 0x10000 + ((code - 0xd800) << 10) + ((uint32_t)hex4(p + 2, end) - 0xdc00);
                p += 6;
            }
            to = put_code(to, code);
        }
    }
    return (size_t)(to - out);
}

/* ---- numbers and literals ---- */

static const uint8_t *digits_end(const uint8_t *p, const uint8_t *end)
{
    while (p < end && *p >= '0' && *p <= '9')
        p++;
    return p;
}

/* 64-bit value of digits; false when it does not fit. */
static bool parse_integer(const uint8_t *p, const uint8_t *end, bool negative, int64_t *out)
{
    uint64_t value = 0, most = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX;

    for (; p < end; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (value > (most - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

bool rf_json_number_next(struct rf_json_scan *scan, struct rf_json_number *out)
{
    const uint8_t *p = scan->p, *end = scan->end, *first = p, *digits;
    bool negative = p < end && *p == '-';

    digits = p += negative;
    p = digits_end(p, end);
    scan->p = p;
    if (p == digits)
        return rf_json_fail(scan, RF_INVALID, negative ? "'-' without digits" : "expected a value");
    if (*digits == '0' && p - digits > 1) {
        scan->p = digits;
        return rf_json_fail(scan, RF_INVALID, "a number must not start with 0");
    }
    out->has_fraction = false;
    out->is_int = parse_integer(digits, p, negative, &out->integer);
    if (p < end && *p == '.') {
        out->has_fraction = true;
        scan->p = digits_end(p + 1, end);
        if (scan->p == p + 1)
            return rf_json_fail(scan, RF_INVALID, "'.' without digits behind it");
        p = scan->p;
    }
    if (p < end && (*p | 0x20) == 'e') {
        out->has_fraction = true;
        p++;
        p += p < end && (*p == '+' || *p == '-');
        scan->p = digits_end(p, end);
        if (scan->p == p)
            return rf_json_fail(scan, RF_INVALID, "exponent without digits");
        p = scan->p;
    }
    if (out->has_fraction)
        out->is_int = false;
    out->text = rf_bytes(first, (size_t)(p - first));
    return true;
}

/*
 * A number taken apart: digits without point, and the power of ten they are to be multiplied by.
 * A double is decided by at most 767 significant digits (Muller et al., Handbook of Floating-Point
 * Arithmetic, 2nd ed., 4.8); those behind the room kept here can only say "a little more", which
 * one more non-zero digit says as well.
 */
struct decimal {
    char digits[800];
    size_t count;
    int64_t exponent;
    bool negative;
};

#define EXPONENT_MAX 100000000 /* beyond it every double is 0 or infinite already */

static void take_digit(struct decimal *d, uint8_t digit, bool *more)
{
    if (d->count == 0 && digit == '0')
        return;
    if (d->count < sizeof d->digits - 32) {
        d->digits[d->count++] = (char)digit;
    } else {
        d->exponent++;
        *more |= digit != '0';
    }
}

static void take_apart(struct decimal *d, struct rf_bytes text)
{
    const uint8_t *p = text.data, *end = p + text.size;
    bool more = false, down;
    int64_t exponent = 0;

    d->count = 0;
    d->exponent = 0;
    d->negative = *p == '-';
    for (p += d->negative; p < end && *p >= '0' && *p <= '9'; p++)
        take_digit(d, *p, &more);
    if (p < end && *p == '.')
        for (p++; p < end && *p >= '0' && *p <= '9'; p++) {
            take_digit(d, *p, &more);
            d->exponent--;
        }
    if (p < end) {
        p++;
        down = *p == '-';
        p += *p == '-' || *p == '+';
        for (; p < end; p++)
            if (exponent < EXPONENT_MAX * (int64_t)10)
                exponent = exponent * 10 + (*p - '0');
        d->exponent += down ? -exponent : exponent;
    }
    if (more) {
        d->digits[d->count++] = '1';
        d->exponent--;
    }
}

double rf_json_number_double(struct rf_bytes text)
{
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    struct decimal d;
    uint64_t mantissa = 0;
    double value;
    int exponent;

    take_apart(&d, text);
    if (d.count == 0)
        return d.negative ? -0.0 : 0.0;
    if (d.count <= 15 && d.exponent >= -22 && d.exponent <= 22) {
        /* Both exact as doubles, so one operation rounds once (Clinger 1990). */
        for (size_t i = 0; i < d.count; i++)
            mantissa = mantissa * 10 + (uint64_t)(d.digits[i] - '0');
        value = (double)mantissa;
        value = d.exponent < 0 ? value / tens[-d.exponent] : value * tens[d.exponent];
    } else {
        exponent = d.exponent > EXPONENT_MAX    ? EXPONENT_MAX
                   : d.exponent < -EXPONENT_MAX ? -EXPONENT_MAX
                                                : (int)d.exponent;
        /* Without a point strtod does not ask the locale what a point looks like. */
        d.digits[d.count++] = 'e';
        if (exponent < 0)
            d.digits[d.count++] = '-';
        for (int unit = EXPONENT_MAX; unit > 0; unit /= 10)
            d.digits[d.count++] = (char)('0' + abs(exponent) / unit % 10);
        d.digits[d.count] = '\0';
        value = strtod(d.digits, NULL);
    }
    return d.negative ? -value : value;
}

bool rf_json_literal_next(struct rf_json_scan *scan)
{
    size_t left = (size_t)(scan->end - scan->p);

    if (left >= 4 && memcmp(scan->p, "true", 4) == 0)
        scan->p += 4;
    else if (left >= 5 && memcmp(scan->p, "false", 5) == 0)
        scan->p += 5;
    else if (left >= 4 && memcmp(scan->p, "null", 4) == 0)
        scan->p += 4;
    else
        return rf_json_fail(scan, RF_INVALID, "expected a value");
    return true;
}

/* ---- whole values ---- */

/* One bit per open bracket: set for an object. */
struct nest {
    unsigned depth;
    uint64_t objects[RF_JSON_NEST_MAX / 64];
};

static bool nest_push(struct rf_json_scan *scan, struct nest *nest, bool object)
{
    uint64_t bit = (uint64_t)1 << (nest->depth % 64);

    if (nest->depth == RF_JSON_NEST_MAX)
        return rf_json_fail(scan, RF_LIMIT, "nested too deep");
    if (object)
        nest->objects[nest->depth / 64] |= bit;
    else
        nest->objects[nest->depth / 64] &= ~bit;
    nest->depth++;
    return true;
}

static bool nest_is_object(const struct nest *nest)
{
    unsigned top = nest->depth - 1;

    return nest->objects[top / 64] >> (top % 64) & 1;
}

static bool check_key(struct rf_json_scan *scan)
{
    struct rf_json_raw raw;

    if (rf_json_space(scan) != '"')
        return rf_json_fail(scan, RF_INVALID, "expected a member's name in quotes");
    return rf_json_string_next(scan, &raw) && rf_json_byte_next(scan, ':', "expected ':'");
}

/* After a value: close what closes and pass a comma. *done when the outermost value is through. */
static bool check_after(struct rf_json_scan *scan, struct nest *nest, bool *done)
{
    while (nest->depth > 0) {
        bool object = nest_is_object(nest);
        int c = rf_json_space(scan);
        if (c == ',') {
            scan->p++;
            *done = false;
            return object ? check_key(scan) : true;
        }
        if (c != (object ? '}' : ']'))
            return rf_json_fail(scan, RF_INVALID,
                                object ? "expected ',' or '}'" : "expected ',' or ']'");
        scan->p++;
        nest->depth--;
    }
    *done = true;
    return true;
}

/* Pass an opening bracket. *empty when its closing one was passed too. */
static bool check_open(struct rf_json_scan *scan, struct nest *nest, bool *empty)
{
    bool object = *scan->p == '{';

    if (!nest_push(scan, nest, object))
        return false;
    scan->p++;
    *empty = rf_json_space(scan) == (object ? '}' : ']');
    if (*empty) {
        scan->p++;
        nest->depth--;
        return true;
    }
    return object ? check_key(scan) : true;
}

bool rf_json_check_next(struct rf_json_scan *scan)
{
    struct nest nest = {0};
    struct rf_json_number number;
    struct rf_json_raw raw;
    bool good, done = false, empty;

    while (!done) {
        int c = rf_json_space(scan);
        if (c == '[' || c == '{') {
            if (!check_open(scan, &nest, &empty))
                return false;
            if (!empty)
                continue;
            good = true;
        } else if (c == '"') {
            good = rf_json_string_next(scan, &raw);
        } else if (c == 't' || c == 'f' || c == 'n') {
            good = rf_json_literal_next(scan);
        } else {
            good = rf_json_number_next(scan, &number);
        }
        if (!good || !check_after(scan, &nest, &done))
            return false;
    }
    return true;
}

/* p stands behind the opening quote: pass the closing one. */
static bool skip_string(struct rf_json_scan *scan)
{
    const uint8_t *p = scan->p, *end = scan->end;

    for (;;) {
        p = quote_or_slash(p, end);
        if (p == end)
            break;
        if (*p == '"') {
            scan->p = p + 1;
            return true;
        }
        if (end - p < 2)
            break;
        p += 2;
    }
    scan->p = end;
    return rf_json_fail(scan, RF_INVALID, "string without end");
}

/* The first byte from p that opens or closes something, or end. */
static inline const uint8_t *structure(const uint8_t *p, const uint8_t *end)
{
#ifdef __SSE2__
    /* '[' ']' '{' '}' are 0x5b 0x5d 0x7b 0x7d: with 0x20 set only two values are left. */
    const __m128i quote = _mm_set1_epi8('"'), open = _mm_set1_epi8('{');
    const __m128i close = _mm_set1_epi8('}'), bit = _mm_set1_epi8(0x20);

    for (; end - p >= 16; p += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);
        __m128i y = _mm_or_si128(x, bit);
        int mask = _mm_movemask_epi8(_mm_or_si128(
            _mm_cmpeq_epi8(x, quote), _mm_or_si128(_mm_cmpeq_epi8(y, open),
                                                   _mm_cmpeq_epi8(y, close))));
        if (mask)
            return p + __builtin_ctz((unsigned)mask);
    }
#endif
    while (p < end && *p != '"' && (*p | 0x20) != '{' && (*p | 0x20) != '}')
        p++;
    return p;
}

/* p stands behind an opening bracket: pass everything up to the one that closes it. */
static bool skip_nested(struct rf_json_scan *scan, bool object)
{
    struct nest nest = {0};

    if (!nest_push(scan, &nest, object))
        return false;
    while (nest.depth > 0) {
        scan->p = structure(scan->p, scan->end);
        if (scan->p == scan->end)
            return rf_json_fail(scan, RF_INVALID, "a bracket is not closed");
        switch (*scan->p++) {
        case '"':
            if (!skip_string(scan))
                return false;
            break;
        case '{':
        case '[':
            if (!nest_push(scan, &nest, scan->p[-1] == '{'))
                return false;
            break;
        default:
            if (nest_is_object(&nest) != (scan->p[-1] == '}')) {
                scan->p--;
                return rf_json_fail(scan, RF_INVALID, "a bracket closes what it did not open");
            }
            nest.depth--;
        }
    }
    return true;
}

bool rf_json_skip_next(struct rf_json_scan *scan)
{
    struct rf_json_number number;
    int c = rf_json_space(scan);

    switch (c) {
    case '"':
        scan->p++;
        return skip_string(scan);
    case '{':
    case '[':
        scan->p++;
        return skip_nested(scan, c == '{');
    case 't':
    case 'f':
    case 'n':
        return rf_json_literal_next(scan);
    default:
        return rf_json_number_next(scan, &number);
    }
}

bool rf_json_scan_end(struct rf_json_scan *scan)
{
    if (rf_json_space(scan) != -1)
        return rf_json_fail(scan, RF_INVALID, "bytes behind the value");
    return true;
}

/* ---- errors ---- */

void rf_json_position(const struct rf_json_scan *scan, const uint8_t *at, size_t *line,
                      size_t *column)
{
    const uint8_t *p = scan->start, *newline;

    *line = 1;
    while ((newline = memchr(p, '\n', (size_t)(at - p)))) {
        p = newline + 1;
        ++*line;
    }
    *column = (size_t)(at - p) + 1;
}

enum rf_status rf_json_error(const struct rf_json_scan *scan, struct rf_error *err)
{
    size_t line, column;

    rf_json_position(scan, scan->p, &line, &column);
    return rf_error_set(err, scan->status, "line %zu, column %zu: %s%s", line, column, scan->why,
                        scan->p == scan->end ? ", but the text ends here" : "");
}

enum rf_status rf_json_check(struct rf_bytes text, struct rf_error *err)
{
    struct rf_json_scan scan;

    rf_json_scan_init(&scan, text);
    if (rf_json_check_next(&scan) && rf_json_scan_end(&scan))
        return RF_OK;
    return rf_json_error(&scan, err);
}
