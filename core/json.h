/*
 * json.h - JSON as in RFC 8259: a small tree for our own files, and writing
 *
 * For configuration, declarations and schema blobs. Mappers decode JSON straight into Lua instead
 * (mappers/lua_json.c), over the same scanner (json_scan.h). Strict: UTF-8 is checked, lone
 * surrogates, duplicate keys, trailing bytes and a byte order mark are refused.
 */
#ifndef RF_CORE_JSON_H
#define RF_CORE_JSON_H

#include "core/arena.h"
#include "core/buf.h"

enum rf_json_type {
    RF_JSON_NULL,
    RF_JSON_FALSE,
    RF_JSON_TRUE,
    RF_JSON_NUMBER,
    RF_JSON_STRING,
    RF_JSON_ARRAY,
    RF_JSON_OBJECT
};

struct rf_json {
    enum rf_json_type type;
    uint32_t line;         /* of the text, from 1, where the value begins */
    struct rf_bytes text;  /* STRING: decoded, NUL behind it; NUMBER: as written, NUL behind it */
    struct rf_bytes key;   /* of a member of an object: decoded, NUL behind it */
    struct rf_json *items; /* ARRAY and OBJECT: count values, in the order of the text */
    size_t count;
};

#define RF_JSON_DEPTH_MAX 128 /* of rf_json_parse */

/* Parse all of text into the arena; nothing of text is needed afterwards. RF_INVALID: err names
 * line and column; RF_LIMIT: deeper than RF_JSON_DEPTH_MAX or larger than the arena allows. */
RF_MUST_USE enum rf_status rf_json_parse(const struct rf_json **out, struct rf_arena *arena,
                                         struct rf_bytes text, struct rf_error *err);

/* The member called key of an object, or NULL (also when value is NULL or no object). */
const struct rf_json *rf_json_find(const struct rf_json *value, const char *key);

/* A number without fraction or exponent that fits; false otherwise. */
bool rf_json_int(const struct rf_json *value, int64_t *out);

/* Any number, to the nearest double; false when value is no number or overflows. */
bool rf_json_double(const struct rf_json *value, double *out);

/* A string's text (NUL-terminated, may hold NULs inside), or NULL when value is no string. */
const char *rf_json_string(const struct rf_json *value);

/* Writing. Strings must be valid UTF-8 (asserted); the form of each is RFC 8785's. */
void rf_json_put_string(struct rf_buf *buf, struct rf_bytes text);
void rf_json_put_int(struct rf_buf *buf, int64_t value);
void rf_json_put_double(struct rf_buf *buf, double value); /* finite; ECMAScript's shortest form */

/* Write the RFC 8785 form of a parsed value: keys sorted by UTF-16 code units, shortest numbers.
 * Numbers go through a double, as that RFC says; one too large for it marks buf RF_LIMIT. */
void rf_json_put_canonical(struct rf_buf *buf, const struct rf_json *value);

#endif
