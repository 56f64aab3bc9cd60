/*
 * mapper_rows.h - what a mapper made of one item, kept as text, and how two of those differ
 *
 * What `refuge mapper test` and `refuge mapper diff` share. A value is kept as JSON; the offset of
 * a time is a column of its own, as in an index.
 */
#ifndef RF_CMD_MAPPER_ROWS_H
#define RF_CMD_MAPPER_ROWS_H

#include "mappers/pool.h"

struct rf_table_rows {
    const struct rf_table *table; /* lent from the mapper */
    const char **names;           /* of the columns */
    const enum rf_type *types;
    size_t column_count;
    struct rf_bytes **rows;       /* a value for each column; data NULL: null */
    size_t count;
};

struct rf_mapper_rows {
    enum rf_call_outcome outcome; /* NONE after init */
    const char *message;          /* of a call that failed, else NULL */
    uint64_t parts;
    struct rf_table_rows *tables; /* in the order of the declaration */
    size_t table_count;
    struct rf_arena arena;
};

void rf_mapper_rows_init(struct rf_mapper_rows *rows);
void rf_mapper_rows_release(struct rf_mapper_rows *rows);

/* Copy what came of a call; content_size: of the item that was mapped. RF_LIMIT: too much. */
RF_MUST_USE enum rf_status rf_mapper_rows_take(struct rf_mapper_rows *out,
                                               const struct rf_call *call, uint64_t content_size,
                                               struct rf_error *err);

bool rf_mapper_rows_failed(const struct rf_mapper_rows *rows);

/* Append a row as a JSON object of its columns that are not null. */
void rf_table_row_json(struct rf_buf *buf, const struct rf_table_rows *table,
                       const struct rf_bytes *row);

enum rf_rows_change { RF_ROWS_ADDED, RF_ROWS_REMOVED, RF_ROWS_CHANGED, RF_ROWS_CHANGE_COUNT };

struct rf_rows_column {
    const char *name;
    struct rf_bytes before, after; /* JSON; data NULL: null or no such column */
};

struct rf_rows_difference {
    enum rf_rows_change change;
    const char *table;
    size_t n;      /* the row's number in its table, before; of an added one, after */
    const struct rf_table_rows *of;      /* ADDED, REMOVED: its table, */
    const struct rf_bytes *row;          /* and the row */
    const struct rf_rows_column *columns; /* CHANGED: those whose values differ */
    size_t column_count;
};

/*
 * Call visit for each row that is in one of them only or has other values there: by table, those
 * of before first; within a table what changed or went by its number, then what came. Rows are
 * matched by their values, then each that is left with the one that has the most values in common;
 * where many are left, in their order. A row that only moved is no difference. Columns are matched
 * by name; a value of another type is another value.
 */
void rf_mapper_rows_compare(const struct rf_mapper_rows *before, const struct rf_mapper_rows *after,
                            void (*visit)(void *user, const struct rf_rows_difference *difference),
                            void *user);

#endif
