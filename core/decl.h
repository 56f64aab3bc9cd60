/*
 * decl.h - what a mapper declares: its tables, limits and what it maps
 *
 * The declaration is read out of the mapper's Lua table in the jail, travels as JSON, is checked
 * here, and is what sinks make tables from. A declaration that passed rf_decl_parse is safe to
 * build SQL names from.
 */
#ifndef RF_CORE_DECL_H
#define RF_CORE_DECL_H

#include "core/arena.h"
#include "core/error.h"

#define RF_API_VERSION 1         /* of the Lua environment; part of a mapper's identity */
#define RF_NAME_MAX 48           /* bytes of a mapper, table or column name */
#define RF_TABLES_MAX 32         /* of one mapper */
#define RF_COLUMNS_MAX 200       /* of one table */
#define RF_TEXT_MAX (4u << 20) /* bytes of one text or json value; a longer one is cut and noted */

enum rf_type {
    RF_TYPE_INT = 1, /* 64-bit signed */
    RF_TYPE_FLOAT,   /* finite double; NaN and infinities became null, -0.0 became 0.0 */
    RF_TYPE_BOOL,
    RF_TYPE_TEXT,    /* valid UTF-8 without NUL */
    RF_TYPE_JSON,    /* RFC 8259 text */
    RF_TYPE_TIME,    /* microseconds since 1970 UTC within years 1-9999, and an offset if known */
    RF_TYPE_BLOBREF,
    RF_TYPE_COUNT
};

struct rf_column {
    const char *name;
    enum rf_type type;
    bool search; /* in the full-text index (text only) */
    bool facet;  /* indexed, offered as a filter */
    const char *title; /* for a person, or NULL */
};

struct rf_table_index {
    const char *columns[8];
    size_t count;
};

/* A view of the newest row per key: named "<table>_latest", newest by `by` (a time or int column),
 * or by the item's own timestamp when by is NULL; ties by sequence, then item. */
struct rf_latest {
    const char *key[8];
    size_t count; /* 0: no such view */
    const char *by;
};

struct rf_table {
    const char *name;  /* unique within an index */
    const char *title; /* for a person, or NULL */
    const char *language; /* the mapper's */
    struct rf_column *columns;
    size_t column_count;
    struct rf_table_index *indexes;
    size_t index_count;
    struct rf_latest latest;
};

#define RF_ON_BLOB 1u /* bare blobs as stored */
#define RF_ON_FILE 2u /* backed-up files */

struct rf_limits {
    uint32_t cpu_ms;    /* of one call in the slow lane: 5000; at most 600000 */
    uint32_t memory_mb; /* Lua heap: 16; at most 1024 */
    uint32_t rows;      /* of one call: 10000; at most 10 million */
    uint32_t parts;     /* of one call: 10000; at most 10 million */
    uint32_t output_mb; /* encoded rows and parts of one call: 16; at most 256 */
};

struct rf_decl {
    const char *name;
    const char *version; /* the author's, as text; "" when not given */
    const char *title;   /* for a person, or NULL */
    const char *language; /* of its texts: a sink that can stems words by its rules; or NULL */
    unsigned on;         /* RF_ON_* */
    bool splits;         /* calls emit.part */
    bool slow;           /* starts in the slow lane */
    struct rf_table *tables;
    size_t table_count;
    struct rf_limits limits;
    struct rf_bytes json; /* what was parsed, in the arena */
};

/*
 * Check a declaration and copy it into the arena. Form of the JSON: {"name","version","title",
 * "on":["blob","file"],"splits","slow","limits":{"cpu_ms","memory_mb","rows","parts","output_mb"},
 * "tables":[{"name","title","columns":[{"name","type","search","facet","title"}],
 * "indexes":[["a","b"]],"latest":{"key":["a"],"by":"t"}}]}; absent members take the defaults above.
 *
 * Names match [a-z][a-z0-9_]{0,47}; reserved: names beginning refuge, sqlite, pg_, and the table
 * names blobs, everything; the column names id, blob, n, grams, rowid, rank; a column ending in
 * _offset whose stem is a time column. A time column t also makes a column t_offset.
 *
 * RF_INVALID: err says which table and column, and the rule it breaks.
 */
RF_MUST_USE enum rf_status rf_decl_parse(struct rf_decl **out, struct rf_arena *arena,
                                         struct rf_bytes json, struct rf_error *err);

const char *rf_type_name(enum rf_type type);
enum rf_type rf_type_find(const char *name, size_t size); /* 0 when there is no such type */

#endif
