/*
 * mapper_rows.c - see mapper_rows.h
 */
#include "cmd/mapper_rows.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/mapper_item.h"
#include "core/json.h"

#define ROWS_MAX ((size_t)1 << 30) /* bytes of one item's rows */
#define VALUE_MAX (6 * (size_t)RF_TEXT_MAX + 64) /* escaped */
#define SIMILAR_MAX 2500 /* pairs of rows whose values are compared one by one */

void rf_mapper_rows_init(struct rf_mapper_rows *rows)
{
    memset(rows, 0, sizeof *rows);
    rows->outcome = RF_CALL_NONE;
    rf_arena_init(&rows->arena, ROWS_MAX);
}

void rf_mapper_rows_release(struct rf_mapper_rows *rows)
{
    rf_arena_release(&rows->arena);
    memset(rows, 0, sizeof *rows);
}

bool rf_mapper_rows_failed(const struct rf_mapper_rows *rows)
{
    return rows->outcome == RF_CALL_FAILED || rows->outcome == RF_CALL_LIMIT;
}

/* ---- taking ---- */

static void make_columns(struct rf_mapper_rows *out, struct rf_table_rows *table)
{
    const struct rf_table *declared = table->table;
    enum rf_type *types = rf_arena_alloc(&out->arena, 2 * declared->column_count * sizeof *types);

    table->types = types;
    table->names = rf_arena_alloc(&out->arena, 2 * declared->column_count * sizeof *table->names);
    for (size_t i = 0; i < declared->column_count; i++) {
        const struct rf_column *column = &declared->columns[i];
        char name[RF_NAME_MAX + 16];

        types[table->column_count] = column->type;
        table->names[table->column_count++] = column->name;
        if (column->type != RF_TYPE_TIME)
            continue;
        snprintf(name, sizeof name, "%s_offset", column->name);
        types[table->column_count] = RF_TYPE_INT;
        table->names[table->column_count++] = rf_arena_copy(&out->arena, name, strlen(name));
    }
}

static struct rf_bytes *copy_row(struct rf_arena *arena, const struct rf_table_rows *table,
                                 const struct rf_record *record)
{
    struct rf_bytes *row = rf_arena_try(arena, (table->column_count + 1) * sizeof *row);
    size_t at = 0;
    struct rf_buf buf;

    if (!row)
        return NULL;
    rf_buf_init(&buf, VALUE_MAX);
    for (size_t i = 0; row && i < record->column_count; i++) {
        const struct rf_value *value = &record->values[i];
        char *copy = NULL;

        row[at] = rf_bytes(NULL, 0);
        rf_buf_clear(&buf);
        if (value->type)
            rf_value_json(&buf, value);
        if (value->type && !buf.failed)
            copy = rf_arena_copy(arena, buf.data, buf.size);
        if (copy)
            row[at] = rf_bytes(copy, buf.size);
        at++;
        if (table->table->columns[i].type == RF_TYPE_TIME) {
            char text[16];

            snprintf(text, sizeof text, "%d", value->offset_minutes);
            row[at] = rf_bytes(NULL, 0);
            if (value->type && value->offset_minutes != RF_OFFSET_UNKNOWN)
                row[at] = rf_bytes_text(rf_arena_copy(arena, text, strlen(text)));
            at++;
        }
        if (value->type && !copy)
            row = NULL;
    }
    rf_buf_release(&buf);
    return row;
}

static bool take_table(struct rf_mapper_rows *out, struct rf_table_rows *table, size_t number,
                       const struct rf_call *call, uint64_t content_size)
{
    struct rf_output_reader reader;
    struct rf_record record;
    bool ok = true;

    make_columns(out, table);
    table->rows = rf_arena_try(&out->arena, ((size_t)call->rows + 1) * sizeof *table->rows);
    if (!table->rows)
        return false;
    rf_output_init(&reader, call->output, rf_mapper_decl(call->mapper), content_size);
    while (ok && rf_output_next(&reader, &record, NULL) == RF_OK) {
        if (record.kind != RF_RECORD_ROW || record.table != number)
            continue;
        table->rows[table->count] = copy_row(&out->arena, table, &record);
        ok = table->rows[table->count++] != NULL;
    }
    rf_output_release(&reader);
    return ok;
}

enum rf_status rf_mapper_rows_take(struct rf_mapper_rows *out, const struct rf_call *call,
                                   uint64_t content_size, struct rf_error *err)
{
    const struct rf_decl *decl = rf_mapper_decl(call->mapper);

    out->outcome = call->outcome;
    out->parts = call->parts;
    if (call->message)
        out->message = rf_arena_copy(&out->arena, call->message, strlen(call->message));
    if (call->outcome != RF_CALL_ROWS)
        return RF_OK;
    out->tables = rf_arena_alloc(&out->arena, (decl->table_count + 1) * sizeof *out->tables);
    out->table_count = decl->table_count;
    for (size_t i = 0; i < decl->table_count; i++) {
        out->tables[i].table = &decl->tables[i];
        if (!take_table(out, &out->tables[i], i, call, content_size))
            return rf_error_set(err, RF_LIMIT, "the rows of mapper '%s' are larger than %zu bytes "
                                "as text", decl->name, ROWS_MAX);
    }
    return RF_OK;
}

void rf_table_row_json(struct rf_buf *buf, const struct rf_table_rows *table,
                       const struct rf_bytes *row)
{
    bool first = true;

    rf_buf_put_u8(buf, '{');
    for (size_t i = 0; i < table->column_count; i++) {
        if (!row[i].data)
            continue;
        rf_buf_printf(buf, "%s\"%s\":", first ? "" : ",", table->names[i]);
        rf_buf_put(buf, row[i].data, row[i].size);
        first = false;
    }
    rf_buf_put_u8(buf, '}');
}

/* ---- comparing ---- */

/* A column of either: its place on both sides, or -1. */
struct column {
    const char *name;
    int place[2];
    bool retyped;
};

struct comparison {
    const struct rf_table_rows *tables[2];
    struct column *columns;
    size_t column_count;
    struct rf_rows_column *shown;
    void (*visit)(void *user, const struct rf_rows_difference *difference);
    void *user;
};

struct row {
    const struct comparison *in;
    int side;
    size_t n;
};

static struct rf_bytes value_of(const struct comparison *in, int side, size_t n, size_t column)
{
    int place = in->columns[column].place[side];

    return place < 0 ? rf_bytes(NULL, 0) : in->tables[side]->rows[n][place];
}

static int compare_value(const struct row *a, const struct row *b, size_t column)
{
    struct rf_bytes x = value_of(a->in, a->side, a->n, column);
    struct rf_bytes y = value_of(b->in, b->side, b->n, column);
    int order;

    if (!x.data || !y.data)
        return (x.data != NULL) - (y.data != NULL);
    if (a->in->columns[column].retyped && a->side != b->side)
        return a->side - b->side;
    order = memcmp(x.data, y.data, x.size < y.size ? x.size : y.size);
    return order ? order : (x.size > y.size) - (x.size < y.size);
}

static int compare_rows(const struct row *a, const struct row *b)
{
    int order = 0;

    for (size_t i = 0; order == 0 && i < a->in->column_count; i++)
        order = compare_value(a, b, i);
    return order;
}

static bool is_equal(const struct comparison *in, size_t before, size_t after)
{
    struct row a = {.in = in, .side = 0, .n = before}, b = {.in = in, .side = 1, .n = after};

    return compare_rows(&a, &b) == 0;
}

static int by_values(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    int order = compare_rows(x, y);

    return order ? order : (x->n > y->n) - (x->n < y->n);
}

static int by_number(const void *a, const void *b)
{
    const struct row *x = a, *y = b;

    return (x->n > y->n) - (x->n < y->n);
}

static size_t count_equal(const struct row *a, const struct row *b)
{
    size_t equal = 0;

    for (size_t i = 0; i < a->in->column_count; i++)
        equal += compare_value(a, b, i) == 0;
    return equal;
}

/* What is left of both sides when equal rows are taken away, by number. */
static void take_equal(struct row *rows[2], size_t counts[2])
{
    size_t at[2] = {0, 0}, left[2] = {0, 0};

    for (int side = 0; side < 2; side++)
        qsort(rows[side], counts[side], sizeof *rows[side], by_values);
    while (at[0] < counts[0] || at[1] < counts[1]) {
        int order = at[0] == counts[0]   ? 1
                    : at[1] == counts[1] ? -1
                                         : compare_rows(&rows[0][at[0]], &rows[1][at[1]]);

        if (order < 0)
            rows[0][left[0]++] = rows[0][at[0]];
        if (order > 0)
            rows[1][left[1]++] = rows[1][at[1]];
        at[0] += order <= 0;
        at[1] += order >= 0;
    }
    for (int side = 0; side < 2; side++) {
        counts[side] = left[side];
        qsort(rows[side], left[side], sizeof *rows[side], by_number);
    }
}

#define ALONE SIZE_MAX

/* pairs[i]: which row of side 1 belongs to row i of side 0; the fewer all find one. */
static void find_pairs(struct row *rows[2], const size_t counts[2], size_t *pairs, bool *taken)
{
    size_t wanted = counts[0] < counts[1] ? counts[0] : counts[1], found = 0;
    size_t columns = counts[0] || counts[1] ? rows[counts[0] ? 0 : 1][0].in->column_count : 0;
    bool few = counts[0] == 0 || counts[1] <= SIMILAR_MAX / counts[0];

    for (size_t i = 0; i < counts[0]; i++)
        pairs[i] = few || i >= wanted ? ALONE : i;
    for (size_t i = 0; !few && i < wanted; i++)
        taken[i] = true;
    for (size_t equal = columns + 1; few && equal-- > 0 && found < wanted;) {
        for (size_t i = 0; i < counts[0]; i++) {
            for (size_t j = 0; pairs[i] == ALONE && j < counts[1]; j++) {
                if (taken[j] || count_equal(&rows[0][i], &rows[1][j]) != equal)
                    continue;
                pairs[i] = j;
                taken[j] = true;
                found++;
            }
        }
    }
}

static void tell_alone(const struct comparison *in, const struct row *row)
{
    const struct rf_table_rows *of = in->tables[row->side];
    struct rf_rows_difference difference = {
        .change = row->side ? RF_ROWS_ADDED : RF_ROWS_REMOVED, .table = of->table->name,
        .n = row->n, .of = of, .row = of->rows[row->n]};

    in->visit(in->user, &difference);
}

static void tell_changed(const struct comparison *in, const struct row *before,
                         const struct row *after)
{
    struct rf_rows_difference difference = {.change = RF_ROWS_CHANGED, .n = before->n,
                                            .columns = in->shown};

    assert(in->tables[0] && in->tables[1]);
    difference.table = in->tables[0]->table->name;
    for (size_t i = 0; i < in->column_count; i++) {
        if (compare_value(before, after, i) != 0)
            in->shown[difference.column_count++] = (struct rf_rows_column){
                .name = in->columns[i].name, .before = value_of(in, 0, before->n, i),
                .after = value_of(in, 1, after->n, i)};
    }
    in->visit(in->user, &difference);
}

static void *allocate(size_t count, size_t size)
{
    void *out = calloc(count + 1, size);

    if (!out)
        abort();
    return out;
}

/* Most rows did not change: what is equal at both ends is not sorted. */
static void compare_all_rows(const struct comparison *in)
{
    size_t counts[2] = {in->tables[0] ? in->tables[0]->count : 0,
                        in->tables[1] ? in->tables[1]->count : 0};
    size_t fewer = counts[0] < counts[1] ? counts[0] : counts[1], first = 0, last = 0, *pairs;
    struct row *rows[2];
    bool *taken;

    while (first < fewer && is_equal(in, first, first))
        first++;
    while (last < fewer - first && is_equal(in, counts[0] - 1 - last, counts[1] - 1 - last))
        last++;
    for (int side = 0; side < 2; side++) {
        counts[side] -= first + last;
        rows[side] = allocate(counts[side], sizeof *rows[side]);
        for (size_t i = 0; i < counts[side]; i++)
            rows[side][i] = (struct row){.in = in, .side = side, .n = first + i};
    }
    take_equal(rows, counts);
    pairs = allocate(counts[0], sizeof *pairs);
    taken = allocate(counts[1], sizeof *taken);
    find_pairs(rows, counts, pairs, taken);
    for (size_t i = 0; i < counts[0]; i++) {
        if (pairs[i] == ALONE)
            tell_alone(in, &rows[0][i]);
        else
            tell_changed(in, &rows[0][i], &rows[1][pairs[i]]);
    }
    for (size_t i = 0; i < counts[1]; i++) {
        if (!taken[i])
            tell_alone(in, &rows[1][i]);
    }
    free(pairs);
    free(taken);
    free(rows[0]);
    free(rows[1]);
}

static void add_columns(struct comparison *in, int side)
{
    const struct rf_table_rows *table = in->tables[side];

    for (size_t i = 0; table && i < table->column_count; i++) {
        struct column *column = NULL;

        for (size_t j = 0; !column && j < in->column_count; j++) {
            if (strcmp(in->columns[j].name, table->names[i]) == 0)
                column = &in->columns[j];
        }
        if (!column) {
            column = &in->columns[in->column_count++];
            *column = (struct column){.name = table->names[i], .place = {-1, -1}};
        }
        column->place[side] = (int)i;
        column->retyped = side == 1 && column->place[0] >= 0 &&
                          in->tables[0]->types[column->place[0]] != table->types[i];
    }
}

static const struct rf_table_rows *find_table(const struct rf_mapper_rows *rows, const char *name)
{
    for (size_t i = 0; i < rows->table_count; i++) {
        if (strcmp(rows->tables[i].table->name, name) == 0)
            return &rows->tables[i];
    }
    return NULL;
}

static void compare_table(struct comparison *in)
{
    size_t most = (in->tables[0] ? in->tables[0]->column_count : 0) +
                  (in->tables[1] ? in->tables[1]->column_count : 0);

    in->columns = allocate(most, sizeof *in->columns);
    in->shown = allocate(most, sizeof *in->shown);
    in->column_count = 0;
    add_columns(in, 0);
    add_columns(in, 1);
    compare_all_rows(in);
    free(in->columns);
    free(in->shown);
}

void rf_mapper_rows_compare(const struct rf_mapper_rows *before, const struct rf_mapper_rows *after,
                            void (*visit)(void *user, const struct rf_rows_difference *difference),
                            void *user)
{
    struct comparison in = {.visit = visit, .user = user};

    for (size_t i = 0; i < before->table_count; i++) {
        in.tables[0] = &before->tables[i];
        in.tables[1] = find_table(after, before->tables[i].table->name);
        compare_table(&in);
    }
    for (size_t i = 0; i < after->table_count; i++) {
        in.tables[0] = NULL;
        in.tables[1] = &after->tables[i];
        if (!find_table(before, after->tables[i].table->name))
            compare_table(&in);
    }
}
