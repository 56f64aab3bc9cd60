/*
 * print_table.h - rows as a table whose columns line up
 */
#ifndef RF_CMD_PRINT_TABLE_H
#define RF_CMD_PRINT_TABLE_H

#include "cmd/cli.h"
#include "core/arena.h"
#include "sinks/query.h"

/* The caller's storage; init, header, rows, finish. Prints nothing before 200 rows or finish. */
struct rf_print_table {
    struct rf_cli *cli;
    struct rf_arena arena;
    size_t count;            /* columns */
    size_t *widths;
    bool *right;             /* numbers only so far */
    struct rf_bytes *names;
    struct rf_bytes *held;   /* cells of the first rows */
    bool *held_right;        /* whether each is a number */
    size_t held_rows, held_max;
    bool settled;
    uint64_t rows;
};

void rf_print_table_init(struct rf_print_table *table, struct rf_cli *cli);
void rf_print_table_header(struct rf_print_table *table, size_t count, const char *const *names);
void rf_print_table_row(struct rf_print_table *table, const struct rf_cell *cells);
void rf_print_table_finish(struct rf_print_table *table);

/* A cell's text; bytes as X'..', NULL empty. Lent from the cell or from buf. */
struct rf_bytes rf_cell_text(const struct rf_cell *cell, struct rf_buf *buf);

#endif
