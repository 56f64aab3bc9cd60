/*
 * json_scan.h - walking over JSON text without building anything (RFC 8259, strict)
 *
 * What every JSON decoder of refuge stands on: the tree of json.h and the decoder that builds Lua
 * values. A scan is three pointers and a place for what went wrong; it allocates nothing, keeps no
 * stack but the C one it is in, and reads no byte at or behind end.
 *
 * It offers:
 *   rf_json_scan_init     start over some bytes
 *   rf_json_space         skip blanks; the next byte, or -1 at the end: the decoder switches on it
 *   rf_json_string_next   pass a string: UTF-8, escapes, surrogates and control bytes are checked
 *   rf_json_unescape      decode what rf_json_string_next found to hold escapes
 *   rf_json_number_next   pass a number: its text, and its value when it is a 64-bit integer
 *   rf_json_number_double the nearest double of such a text
 *   rf_json_literal_next  pass one of true, false, null
 *   rf_json_byte_next     pass one structural byte ( : , [ ] { } )
 *   rf_json_check_next    pass one value of any kind, checking every rule (no duplicate keys)
 *   rf_json_skip_next     pass one value quickly, checking only that strings end and brackets match
 *   rf_json_scan_end      nothing but blanks may be left
 *   rf_json_fail          set aside an error of the decoder's own at the present place
 *   rf_json_error         turn the error into words with line and column
 *
 * Every ..._next answers false on bad text; then `why` is set, p stands where it is wrong, and the
 * scan must be given up. One thread.
 */
#ifndef RF_CORE_JSON_SCAN_H
#define RF_CORE_JSON_SCAN_H

#include "core/bytes.h"
#include "core/error.h"

#define RF_JSON_NEST_MAX 1024 /* arrays and objects within each other, for check and skip */

struct rf_json_scan {
    const uint8_t *p;     /* the next byte */
    const uint8_t *end;   /* behind the last */
    const uint8_t *start; /* the first */
    const char *why;      /* NULL, or what is wrong at p: constant words */
    enum rf_status status; /* RF_INVALID, or RF_LIMIT for what nests too deep */
};

void rf_json_scan_init(struct rf_json_scan *scan, struct rf_bytes text);

/* Note what is wrong at p; false, so that a decoder may return it. The first cause is kept. */
bool rf_json_fail(struct rf_json_scan *scan, enum rf_status status, const char *why);

/* Skip blanks. The next byte, not passed, or -1 at the end. */
static inline int rf_json_space(struct rf_json_scan *scan)
{
    const uint8_t *p = scan->p, *end = scan->end;

    while (p < end && *p <= ' ' && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    scan->p = p;
    return p < end ? *p : -1;
}

/* Skip blanks and pass the byte want. why: what was wanted, for a person ("expected ':'"). */
static inline bool rf_json_byte_next(struct rf_json_scan *scan, int want, const char *why)
{
    if (rf_json_space(scan) != want)
        return rf_json_fail(scan, RF_INVALID, why);
    scan->p++;
    return true;
}

/* What stands between the quotes, lent from the text. */
struct rf_json_raw {
    struct rf_bytes raw;
    bool escaped; /* has escapes: raw is not the content, rf_json_unescape makes it */
};

/* p stands at the opening quote; afterwards behind the closing one. */
bool rf_json_string_next(struct rf_json_scan *scan, struct rf_json_raw *out);

/* Decode raw into out, which has room for raw.size bytes: the content is never longer. Only for
 * what rf_json_string_next accepted. Answers the bytes written; the content may hold NULs. */
size_t rf_json_unescape(struct rf_bytes raw, uint8_t *out);

struct rf_json_number {
    struct rf_bytes text; /* as written */
    bool is_int;          /* neither fraction nor exponent, and it fits; "-0" is one: 0 */
    bool has_fraction;    /* a '.' or an exponent */
    int64_t integer;      /* when is_int */
};

/* p stands at a digit or '-'. */
bool rf_json_number_next(struct rf_json_scan *scan, struct rf_json_number *out);

/* The nearest double of a number's text (exact; the locale does not matter). Infinite when it is
 * too large. text must be a number as rf_json_number_next accepts. */
double rf_json_number_double(struct rf_bytes text);

/* p stands at 't', 'f' or 'n': pass true, false or null. */
bool rf_json_literal_next(struct rf_json_scan *scan);

/* Pass one value and the blanks before it, checked by every rule but that of duplicate keys. */
bool rf_json_check_next(struct rf_json_scan *scan);

/* Pass one value and the blanks before it as fast as it goes. Strings must end and brackets match;
 * whatever else is inside is not looked at. */
bool rf_json_skip_next(struct rf_json_scan *scan);

/* Only blanks may be left. */
bool rf_json_scan_end(struct rf_json_scan *scan);

/* Line and column (both from 1; the column counts bytes) of a place in the text. */
void rf_json_position(const struct rf_json_scan *scan, const uint8_t *at, size_t *line,
                      size_t *column);

/* "line 3, column 14: <why>" into err. Answers the scan's status. */
enum rf_status rf_json_error(const struct rf_json_scan *scan, struct rf_error *err);

/* Whether all of text is one well-formed value. RF_INVALID or RF_LIMIT: err says where. */
RF_MUST_USE enum rf_status rf_json_check(struct rf_bytes text, struct rf_error *err);

#endif
