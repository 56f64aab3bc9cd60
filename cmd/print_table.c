/*
 * print_table.c - rows as a table whose columns line up
 *
 * Widths come from the first rows (at most TABLE_LOOK, held in an arena); the rest streams with
 * those. On a terminal the whole is cut to its width, the widest column giving way first; off a
 * terminal nothing is cut.
 */
#include "cmd/print_table.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TABLE_LOOK 200                    /* rows that decide the widths */
#define TABLE_HELD_MAX ((size_t)32 << 20) /* bytes of them */

static const char hex_digits[] = "0123456789abcdef";

struct rf_bytes rf_cell_text(const struct rf_cell *cell, struct rf_buf *buf)
{
    rf_buf_clear(buf);
    switch (cell->type) {
    case RF_CELL_INT:
        rf_buf_printf(buf, "%lld", (long long)cell->integer);
        break;
    case RF_CELL_FLOAT:
        rf_buf_printf(buf, "%.15g", cell->real);
        if (strtod(rf_buf_text(buf), NULL) != cell->real) {
            rf_buf_clear(buf);
            rf_buf_printf(buf, "%.17g", cell->real);
        }
        break;
    case RF_CELL_TEXT:
        return cell->text;
    case RF_CELL_BYTES:
        rf_buf_put_text(buf, "X'");
        for (size_t i = 0; i < cell->text.size; i++) {
            rf_buf_put_u8(buf, (uint8_t)hex_digits[cell->text.data[i] >> 4]);
            rf_buf_put_u8(buf, (uint8_t)hex_digits[cell->text.data[i] & 15]);
        }
        rf_buf_put_text(buf, "'");
        break;
    default:
        break;
    }
    return rf_buf_bytes(buf);
}

static void put_spaces(struct rf_cli *cli, size_t count)
{
    rf_out_printf(cli, "%*s", (int)count, "");
}

/* Off a terminal nothing is cut; a line break becomes a blank. */
static void print_whole(struct rf_print_table *table, struct rf_bytes text)
{
    while (text.size) {
        size_t size = 0;

        while (size < text.size && text.data[size] != '\n' && text.data[size] != '\r')
            size++;
        rf_out_word(table->cli, rf_bytes(text.data, size));
        if (size < text.size)
            rf_out_printf(table->cli, " ");
        size += size < text.size;
        text = rf_bytes(text.data + size, text.size - size);
    }
}

/* A cell on one line: on a terminal up to its first line break, cut to its column. */
static void print_cell(struct rf_print_table *table, struct rf_bytes text, size_t column,
                       bool right)
{
    bool whole = !table->cli->out.terminal;
    const uint8_t *newline = text.size && !whole ? memchr(text.data, '\n', text.size) : NULL;
    size_t width = table->widths[column], full, fit;
    bool cut = newline != NULL, last = column + 1 == table->count;

    if (newline)
        text.size = (size_t)(newline - text.data);
    full = rf_text_width(text);
    if (!whole && (full > width || (cut && full == width))) {
        fit = rf_text_fit(text, width ? width - 1 : 0);
        cut = true;
    } else {
        fit = text.size;
    }
    full = rf_text_width(rf_bytes(text.data, fit)) + cut;
    if (right && full < width)
        put_spaces(table->cli, width - full);
    if (whole)
        print_whole(table, text);
    else
        rf_out_word(table->cli, rf_bytes(text.data, fit));
    if (cut)
        rf_out_printf(table->cli, "…");
    if (!last && !right && full < width)
        put_spaces(table->cli, width - full);
    rf_out_printf(table->cli, last ? "\n" : "  ");
}

/* Make the columns fit the terminal: the widest gives way first. */
static void fit_widths(struct rf_print_table *table)
{
    size_t room = (size_t)rf_terminal_width(STDOUT_FILENO), gaps = 2 * (table->count - 1);

    for (;;) {
        size_t sum = gaps, widest = 0;

        for (size_t i = 0; i < table->count; i++) {
            sum += table->widths[i];
            if (table->widths[i] > table->widths[widest])
                widest = i;
        }
        if (sum <= room || table->widths[widest] <= 4)
            return;
        table->widths[widest]--;
    }
}

static void settle(struct rf_print_table *table)
{
    table->settled = true;
    for (size_t i = 0; i < table->count; i++) {
        size_t width = rf_text_width(table->names[i]);

        for (size_t row = 0; row < table->held_rows; row++) {
            size_t one = rf_text_width(table->held[row * table->count + i]);

            width = one > width ? one : width;
        }
        table->widths[i] = width;
        table->right[i] = table->held_rows > 0;
        for (size_t row = 0; row < table->held_rows && table->right[i]; row++)
            table->right[i] = table->held_right[row * table->count + i] ||
                              table->held[row * table->count + i].size == 0;
    }
    if (table->cli->out.terminal)
        fit_widths(table);
    for (size_t i = 0; i < table->count; i++)
        print_cell(table, table->names[i], i, table->right[i]);
    for (size_t i = 0; i < table->count; i++) {
        for (size_t j = 0; j < table->widths[i]; j++)
            rf_out_printf(table->cli, "-");
        rf_out_printf(table->cli, i + 1 == table->count ? "\n" : "  ");
    }
    for (size_t i = 0; i < table->held_rows * table->count; i++)
        print_cell(table, table->held[i], i % table->count, table->right[i % table->count]);
}

void rf_print_table_init(struct rf_print_table *table, struct rf_cli *cli)
{
    memset(table, 0, sizeof *table);
    table->cli = cli;
    rf_arena_init(&table->arena, TABLE_HELD_MAX);
}

void rf_print_table_header(struct rf_print_table *table, size_t count, const char *const *names)
{
    table->count = count;
    table->held_max = TABLE_LOOK;
    table->widths = rf_arena_alloc(&table->arena, count * sizeof *table->widths);
    table->right = rf_arena_alloc(&table->arena, count * sizeof *table->right);
    table->names = rf_arena_alloc(&table->arena, count * sizeof *table->names);
    table->held = rf_arena_alloc(&table->arena, count * TABLE_LOOK * sizeof *table->held);
    table->held_right = rf_arena_alloc(&table->arena, count * TABLE_LOOK);
    for (size_t i = 0; i < count; i++) {
        size_t size = strlen(names[i]);
        char *copy = rf_arena_copy(&table->arena, names[i], size);

        table->names[i] = rf_bytes(copy, copy ? size : 0);
    }
}

/* Keep a row until the widths are known; false when there is no more room. */
static bool hold_row(struct rf_print_table *table, const struct rf_cell *cells, struct rf_buf *buf)
{
    for (size_t i = 0; i < table->count; i++) {
        struct rf_bytes text = rf_cell_text(&cells[i], buf);
        char *copy = rf_arena_copy(&table->arena, text.data ? (const void *)text.data : "",
                                   text.size);
        size_t at = table->held_rows * table->count + i;

        if (!copy)
            return false;
        table->held[at] = rf_bytes(copy, text.size);
        table->held_right[at] = cells[i].type == RF_CELL_INT || cells[i].type == RF_CELL_FLOAT;
    }
    table->held_rows++;
    return true;
}

void rf_print_table_row(struct rf_print_table *table, const struct rf_cell *cells)
{
    struct rf_buf buf;
    bool held = false;

    table->rows++;
    rf_buf_init(&buf, SIZE_MAX / 4);
    if (!table->settled) {
        held = table->held_rows < table->held_max && hold_row(table, cells, &buf);
        if (!held)
            settle(table);
    }
    for (size_t i = 0; i < table->count && !held; i++)
        print_cell(table, rf_cell_text(&cells[i], &buf), i, table->right[i]);
    rf_buf_release(&buf);
}

void rf_print_table_finish(struct rf_print_table *table)
{
    if (!table->settled && table->count)
        settle(table);
    rf_arena_release(&table->arena);
}
