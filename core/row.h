/*
 * row.h - what one mapper call puts out, as bytes
 *
 * Written by the jailed worker, read by the supervisor and by sinks. The reader trusts nothing:
 * table and column counts, types, sizes, UTF-8 and limits are checked against the declaration, and
 * output that breaks a rule condemns the call, not the process.
 *
 * Output = records, each one byte of kind and a body; numbers little-endian:
 *   'R' row   u16 table, u16 column count, then per column one byte of tag and its value:
 *             0 null | 1 int i64 | 2 float f64 | 3 false | 4 true | 5 text u32 size, bytes |
 *             6 json u32 size, bytes | 7 time i64 us, i16 offset minutes (-32768: unknown) |
 *             8 blobref u8 algo, 32 bytes
 *             (each null or of the column's declared type; as many as the table has columns)
 *   'P' part  u8 form, then 0: u64 offset, u64 size within the item's content; 1: u32 size, bytes;
 *             2: u32 size, bytes (at most 1 MiB), u64 offset, u64 size: these bytes and then the
 *             range; then u8 media size, media; u16 name size (65535: none), name
 *   'N' need  u8 present (0 or 1), u8 algo, 32 bytes: another blob the call asked for
 *   'C' cut   u16 table, u16 column, u32 row, u8 kind (enum rf_cut): a value that was cleaned;
 *             stands behind its row
 * A part's media type is never missing: printable ASCII with one '/' between other characters.
 * Format version 1, stated by RF_API_VERSION.
 */
#ifndef RF_CORE_ROW_H
#define RF_CORE_ROW_H

#include "core/blobref.h"
#include "core/buf.h"
#include "core/decl.h"

#define RF_OFFSET_UNKNOWN INT16_MIN
#define RF_TIME_MIN (-62135596800000000LL) /* 0001-01-01T00:00:00Z in us */
#define RF_TIME_MAX 253402300799999999LL   /* 9999-12-31T23:59:59.999999Z in us */
#define RF_OFFSET_MAX 1439                 /* minutes either way: below a day */
#define RF_NEEDS_MAX 1000                  /* 'N' records of one call */
#define RF_PART_HEAD_MAX (1u << 20)        /* bytes before the range of a part */
#define RF_MEDIA_MAX 127                   /* bytes of a media type */
#define RF_PART_NAME_MAX 4096              /* bytes of a part's name */

struct rf_value {
    enum rf_type type; /* 0: null */
    int16_t offset_minutes; /* TIME */
    union {
        int64_t integer; /* INT, TIME (us) */
        double real;
        bool boolean;
        struct rf_bytes text; /* TEXT, JSON: lent from the output */
        struct rf_blobref ref;
    };
};

enum rf_cut {
    RF_CUT_UTF8 = 1, /* invalid bytes replaced by U+FFFD */
    RF_CUT_NUL,      /* NULs removed */
    RF_CUT_LONG,     /* shortened to RF_TEXT_MAX */
    RF_CUT_YEAR,     /* a time outside years 1-9999 became null */
    RF_CUT_FLOAT,    /* NaN or infinity became null */
    RF_CUT_COUNT
};

enum rf_record_kind {
    RF_RECORD_ROW = 'R',
    RF_RECORD_PART = 'P',
    RF_RECORD_NEED = 'N',
    RF_RECORD_CUT = 'C'
};

struct rf_record {
    enum rf_record_kind kind;
    uint16_t table, column_count; /* ROW; table also CUT */
    uint16_t column;              /* CUT */
    uint32_t row;                 /* CUT: number of the row within the call, from 0 */
    enum rf_cut cut;
    const struct rf_value *values; /* ROW: column_count of them, valid until the next call */
    bool inlined;                  /* PART: bytes, not a range */
    uint64_t offset, size;         /* PART: of the range */
    struct rf_bytes head;          /* PART: bytes before the range; data NULL: none */
    struct rf_bytes bytes, media, name; /* PART; name.data NULL: none */
    bool present;                  /* NEED */
    struct rf_blobref ref;         /* NEED */
};

/* Writing; a failure is kept in buf. Values are taken as they are: the writer has cleaned them. */
void rf_row_begin(struct rf_buf *buf, uint16_t table, uint16_t column_count);
void rf_row_put(struct rf_buf *buf, const struct rf_value *value);
void rf_part_put_range(struct rf_buf *buf, struct rf_bytes head, uint64_t offset, uint64_t size,
                       struct rf_bytes media, struct rf_bytes name);
void rf_part_put_bytes(struct rf_buf *buf, struct rf_bytes bytes, struct rf_bytes media,
                       struct rf_bytes name);
void rf_need_put(struct rf_buf *buf, const struct rf_blobref *ref, bool present);
void rf_cut_put(struct rf_buf *buf, uint16_t table, uint16_t column, uint32_t row, enum rf_cut cut);

/* Reading. The caller's storage; output and decl are lent until rf_output_release. */
struct rf_output_reader {
    struct rf_bytes output;
    const struct rf_decl *decl;
    size_t at;
    uint64_t content_size; /* parts must lie within */
    uint32_t rows, parts, needs; /* seen so far */
    struct rf_value *values;
};

void rf_output_init(struct rf_output_reader *reader, struct rf_bytes output,
                    const struct rf_decl *decl, uint64_t content_size);
void rf_output_release(struct rf_output_reader *reader);

/* The next record. RF_OK, RF_END, or RF_INVALID/RF_LIMIT: the whole output must be refused (a later
 * call says the same again). RF_NOMEM: nothing is known of it. */
RF_MUST_USE enum rf_status rf_output_next(struct rf_output_reader *reader, struct rf_record *out,
                                          struct rf_error *err);

/* "YYYY-MM-DDThh:mm:ss.ffffffZ" of a time within RF_TIME_MIN..MAX; 27 characters and a NUL. */
#define RF_TIME_TEXT_SIZE 28
void rf_time_format(int64_t us, char out[RF_TIME_TEXT_SIZE]);

#endif
