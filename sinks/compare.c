/*
 * compare.c - whether two indexes hold the same, and a hash of what one holds
 *
 * Works on canonical streams alone (canonical.h), so the two may be of different kinds: a
 * PostgreSQL schema is compared with a rebuild in a SQLite file.
 */
#include "sinks/canonical.h"

#include "core/blobref.h"
#include "core/control.h"
#include "core/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LINES_MAX 1000
#define PROGRESS_EVERY_US 100000
#define PROGRESS_ROWS 256 /* between looks at the clock */
#define VALUE_BYTES 80 /* of a value in a line */

struct compare {
    struct rf_canon *is, *should;
    const struct rf_compare_options *how;
    struct rf_compare_report report;
    struct rf_compare_progress progress;
    char doing[RF_NAME_MAX + 64]; /* its words */
    int64_t shown_us;             /* when it was told last */
    struct rf_buf line, keys, last;
    struct rf_error lost; /* a server that went away: then nothing more is known of `is` */
    uint64_t *items; /* hashes of the sampled items' keys, sorted */
    size_t item_count, item_room;
};

/* A stream with the words for its cells; the first `keys` of them tell its rows apart. */
struct stream {
    struct rf_canon_stream canon;
    const char *what;
    size_t keys;
    const char *const *names;
};

/* What fails then says nothing of what is compared. */
static bool stopped(const struct compare *compare)
{
    return compare->is->interrupted && *compare->is->interrupted;
}

/* ---- progress ---- */

static void show_progress(void *user)
{
    struct compare *compare = user;
    struct timespec now;
    int64_t now_us;

    clock_gettime(CLOCK_MONOTONIC, &now);
    now_us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    if (now_us - compare->shown_us < PROGRESS_EVERY_US)
        return;
    compare->shown_us = now_us;
    compare->progress.differences = compare->report.differences;
    if (compare->progress.total && compare->progress.total < compare->progress.done)
        compare->progress.total = compare->progress.done;
    compare->how->progress(compare->how->user, &compare->progress);
}

static void count_row(struct compare *compare)
{
    if (++compare->progress.done % PROGRESS_ROWS == 0 && compare->how->progress)
        show_progress(compare);
}

static void begin_phase(struct compare *compare, const char *doing, const char *what)
{
    snprintf(compare->doing, sizeof compare->doing, "%s %s", doing, what);
}

/* ---- lines ---- */

static void end_line(struct compare *compare)
{
    if (compare->report.differences++ < LINES_MAX && compare->how->problem) {
        const char *text = rf_buf_text(&compare->line);
        compare->how->problem(compare->how->user,
                              text ? text : "a difference too long to be told");
    }
    rf_buf_clear(&compare->line);
}

static void tell(void *user, enum rf_canon_mend mend, const char *line)
{
    struct compare *compare = user;

    if (stopped(compare)) /* of a check that was broken off */
        return;
    compare->report.unsound |= mend == RF_MEND_ANEW;
    compare->report.by_hand += mend == RF_MEND_HAND;
    rf_buf_clear(&compare->line);
    rf_buf_put_text(&compare->line, line);
    end_line(compare);
}

static void say(struct compare *compare, const char *what, const char *words, const char *why)
{
    rf_buf_clear(&compare->line);
    rf_buf_printf(&compare->line, "%s: %s: %s", what, words, why);
    end_line(compare);
}

/* What `is` holds may be broken in any way: that is a difference, not a failure. */
static void tell_broken(struct compare *compare, const char *what, const char *words,
                        const struct rf_error *broken)
{
    if (broken->status == RF_UNAVAILABLE || broken->status == RF_TIMEOUT)
        compare->lost = *broken;
    else if (!stopped(compare))
        say(compare, what, words, broken->message);
}

static enum rf_status take_lost(const struct compare *compare, struct rf_error *err)
{
    return compare->lost.status == RF_OK
               ? RF_OK : rf_error_set(err, compare->lost.status, "%s", compare->lost.message);
}

/* The start of a text; control bytes, and bytes that are no UTF-8, made visible. */
static void put_quoted(struct rf_buf *out, struct rf_bytes text)
{
    size_t size = text.size > VALUE_BYTES ? VALUE_BYTES : text.size, good = 0;

    while (size < text.size && size > 0 && (text.data[size] & 0xc0) == 0x80)
        size--;
    rf_buf_put_u8(out, '\'');
    for (size_t i = 0; i < size; i++) {
        if (i >= good)
            good = i + rf_utf8_valid(rf_bytes(text.data + i, size - i));
        if (i >= good || text.data[i] < 0x20 || text.data[i] == 0x7f)
            rf_buf_printf(out, "\\x%02x", text.data[i]);
        else
            rf_buf_put_u8(out, text.data[i]);
    }
    rf_buf_put_text(out, size < text.size ? "…'" : "'");
}

static void put_cell(struct rf_buf *out, const struct rf_cell *cell)
{
    switch (cell->type) {
    case RF_CELL_NULL:
        rf_buf_put_text(out, "null");
        break;
    case RF_CELL_INT:
        rf_buf_printf(out, "%" PRId64, cell->integer);
        break;
    case RF_CELL_FLOAT:
        rf_buf_printf(out, "%.17g", cell->real);
        break;
    case RF_CELL_TEXT:
    case RF_CELL_BYTES:
        put_quoted(out, cell->text);
        break;
    }
}

static void put_keys(struct rf_buf *out, const struct stream *stream, const struct rf_cell *cells)
{
    rf_buf_clear(out);
    rf_buf_put_text(out, stream->what);
    for (size_t i = 0; i < stream->keys; i++) {
        rf_buf_printf(out, ", %s ", stream->names[i]);
        put_cell(out, &cells[i]);
    }
}

static void say_row(struct compare *compare, const struct stream *stream,
                    const struct rf_cell *cells, const char *words)
{
    put_keys(&compare->line, stream, cells);
    rf_buf_put_text(&compare->line, words);
    end_line(compare);
}

/* A row of one side only. The same key once more is a row that was doubled. */
static void say_lonely(struct compare *compare, const struct stream *stream,
                       const struct rf_cell *cells)
{
    const struct rf_buf *last = &compare->last, *keys = &compare->keys;
    bool twice;

    put_keys(&compare->keys, stream, cells);
    twice = last->size && last->size == keys->size &&
            memcmp(last->data, keys->data, keys->size) == 0;
    say_row(compare, stream, cells, twice ? ": is there twice" : ": should not be there");
}

/* ---- two streams ---- */

static int text_order(struct rf_bytes x, struct rf_bytes y)
{
    int order = x.size && y.size ? memcmp(x.data, y.data, x.size < y.size ? x.size : y.size) : 0;

    return order ? order : (x.size > y.size) - (x.size < y.size);
}

/* Order of two cells: null, numbers, text, bytes; texts by bytes. */
static int cell_order(const struct rf_cell *a, const struct rf_cell *b)
{
    static const int ranks[] = {[RF_CELL_NULL] = 0, [RF_CELL_INT] = 1, [RF_CELL_FLOAT] = 1,
                                [RF_CELL_TEXT] = 2, [RF_CELL_BYTES] = 3};
    double x, y;

    if (ranks[a->type] != ranks[b->type])
        return ranks[a->type] - ranks[b->type];
    if (a->type == RF_CELL_NULL)
        return 0;
    if (ranks[a->type] > 1)
        return text_order(a->text, b->text);
    if (a->type == RF_CELL_INT && b->type == RF_CELL_INT)
        return (a->integer > b->integer) - (a->integer < b->integer);
    x = a->type == RF_CELL_INT ? (double)a->integer : a->real;
    y = b->type == RF_CELL_INT ? (double)b->integer : b->real;
    return x != y ? (x > y) - (x < y) : (int)a->type - (int)b->type;
}

static int key_order(const struct stream *stream, const struct rf_cell *a, const struct rf_cell *b)
{
    for (size_t i = 0; i < stream->keys; i++) {
        int order = cell_order(&a[i], &b[i]);
        if (order)
            return order;
    }
    return 0;
}

static void compare_cells(struct compare *compare, const struct stream *stream,
                          const struct rf_cell *is, const struct rf_cell *should)
{
    for (size_t i = stream->keys; i < stream->canon.count; i++) {
        if (cell_order(&is[i], &should[i]) == 0)
            continue;
        put_keys(&compare->line, stream, should);
        rf_buf_printf(&compare->line, ", column '%s': is ", stream->names[i]);
        put_cell(&compare->line, &is[i]);
        rf_buf_put_text(&compare->line, ", should be ");
        put_cell(&compare->line, &should[i]);
        end_line(compare);
    }
}

/* ---- a sample ---- */

static uint64_t hash_text(struct rf_bytes text)
{
    uint64_t hash = 1469598103934665603u; /* FNV-1a */

    for (size_t i = 0; i < text.size; i++)
        hash = (hash ^ text.data[i]) * 1099511628211u;
    return hash;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static enum rf_status collect_items(struct compare *compare, struct rf_error *err)
{
    const struct rf_canon_stream items = {.kind = RF_CANON_ITEMS, .count = 8};
    const struct rf_cell *cells = NULL;
    enum rf_status status;

    if (!compare->how->sample)
        return RF_OK;
    status = compare->should->ops->begin(compare->should, &items, err);
    if (status != RF_OK)
        return status;
    while ((status = compare->should->ops->next(compare->should, &cells, err)) == RF_OK) {
        if (compare->item_count == compare->item_room) {
            size_t more = compare->item_room ? 2 * compare->item_room : 1024;
            uint64_t *grown = realloc(compare->items, more * sizeof *grown);

            if (!grown) {
                status = rf_error_set(err, RF_NOMEM, "no memory for the items of a sample");
                break;
            }
            compare->items = grown;
            compare->item_room = more;
        }
        compare->items[compare->item_count++] = hash_text(cells[0].text);
    }
    compare->should->ops->end(compare->should);
    if (compare->item_count)
        qsort(compare->items, compare->item_count, sizeof *compare->items, by_number);
    return status == RF_END ? RF_OK : status;
}

static bool is_unsure(const struct compare *compare, const struct stream *stream,
                      const struct rf_cell *cells)
{
    const struct rf_compare_sample *sample = compare->how->sample;
    struct rf_bytes name = {0};

    if (!memchr(cells[0].text.data, ';', cells[0].text.size))
        return false;
    if (stream->canon.kind == RF_CANON_ROWS)
        name = rf_bytes_text(stream->canon.decl->name);
    else if (stream->canon.kind != RF_CANON_ITEMS && cells[1].type == RF_CELL_TEXT)
        name = cells[1].text;
    for (size_t i = 0; i < sample->unsure_count; i++) {
        if (name.size == strlen(sample->unsure[i]) &&
            memcmp(name.data, sample->unsure[i], name.size) == 0)
            return true;
    }
    return false;
}

/* Whether a row is of an item that was not sampled, or depends on such. */
static bool is_beside(const struct compare *compare, const struct stream *stream,
                      const struct rf_cell *cells)
{
    enum rf_canon_kind kind = stream->canon.kind;
    uint64_t hash;

    if (!compare->how->sample || kind < RF_CANON_ITEMS || kind > RF_CANON_ROWS ||
        cells[0].type != RF_CELL_TEXT)
        return false;
    hash = hash_text(cells[0].text);
    return !compare->item_count ||
           !bsearch(&hash, compare->items, compare->item_count, sizeof hash, by_number) ||
           is_unsure(compare, stream, cells);
}

static enum rf_status next_is(struct compare *compare, const struct stream *stream,
                              const struct rf_cell **cells)
{
    struct rf_error broken = {0};
    enum rf_status status;

    do
        status = compare->is->ops->next(compare->is, cells, &broken);
    while (status == RF_OK && is_beside(compare, stream, *cells));
    if (status == RF_OK || status == RF_END)
        return status;
    tell_broken(compare, stream->what, "cannot be read", &broken);
    return RF_END;
}

static enum rf_status next_should(struct compare *compare, const struct stream *stream,
                                  const struct rf_cell **cells, struct rf_error *err)
{
    enum rf_status status;

    do
        status = compare->should->ops->next(compare->should, cells, err);
    while (status == RF_OK && is_beside(compare, stream, *cells));
    return status;
}

static enum rf_status walk(struct compare *compare, const struct stream *stream,
                           struct rf_error *err)
{
    const struct rf_cell *is = NULL, *should = NULL;
    enum rf_status here = next_is(compare, stream, &is);
    enum rf_status there = next_should(compare, stream, &should, err);

    rf_buf_clear(&compare->last);
    while ((there == RF_OK || there == RF_END) && (here == RF_OK || there == RF_OK) &&
           !stopped(compare) && compare->lost.status == RF_OK) {
        int order = here ? 1 : there ? -1 : key_order(stream, is, should);
        if (order < 0) {
            say_lonely(compare, stream, is);
            here = next_is(compare, stream, &is);
        } else if (order > 0) {
            say_row(compare, stream, should, ": is missing");
            there = next_should(compare, stream, &should, err);
        } else {
            compare_cells(compare, stream, is, should);
            put_keys(&compare->last, stream, is);
            compare->report.rows += stream->canon.kind == RF_CANON_ROWS;
            here = next_is(compare, stream, &is);
            there = next_should(compare, stream, &should, err);
        }
        count_row(compare);
    }
    if (stopped(compare))
        return rf_error_set(err, RF_CANCELLED, "stopped");
    return there == RF_END || there == RF_OK ? take_lost(compare, err) : there;
}

/* *there: whether `is` has such a stream at all; if not, that is told. */
static enum rf_status compare_stream(struct compare *compare, const struct stream *stream,
                                     bool *there, struct rf_error *err)
{
    bool begun;
    struct rf_error broken = {0};
    enum rf_status status;

    begin_phase(compare, "comparing", stream->what);
    status = compare->should->ops->begin(compare->should, &stream->canon, err);
    if (status != RF_OK)
        return status;
    begun = compare->is->ops->begin(compare->is, &stream->canon, &broken) == RF_OK;
    if (!begun) {
        tell_broken(compare, stream->what, "cannot be read", &broken);
        status = take_lost(compare, err);
    } else {
        status = walk(compare, stream, err);
        compare->is->ops->end(compare->is);
    }
    compare->should->ops->end(compare->should);
    *there = begun;
    return status;
}

/* ---- the streams ---- */

#define NAMES(...)                                                                              \
    (const char *const[]){__VA_ARGS__},                                                         \
        .canon.count = sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *)

static const struct stream fixed_streams[] = {
    {.what = "lane", .keys = 1, .canon.kind = RF_CANON_LANE, .names = NAMES("lane", "position")},
    {.what = "refuge_facts", .keys = 1, .canon.kind = RF_CANON_FACTS,
     .names = NAMES("fact", "value")},
    {.what = "refuge_tables", .keys = 2, .canon.kind = RF_CANON_TABLES,
     .names = NAMES("mapper", "table", "title", "search")},
    {.what = "mappers", .keys = 1, .canon.kind = RF_CANON_MAPPERS,
     .names = NAMES("mapper", "identity")},
    {.what = "items", .keys = 1, .canon.kind = RF_CANON_ITEMS,
     .names = NAMES("item", "seq", "deleted", "ts", "kind", "size", "name", "mtime")},
    {.what = "parts", .keys = 3, .canon.kind = RF_CANON_PARTS,
     .names = NAMES("item", "mapper", "n", "part", "name", "offset", "size")},
    {.what = "needs", .keys = 3, .canon.kind = RF_CANON_NEEDS,
     .names = NAMES("item", "mapper", "needs", "present")},
    {.what = "parks", .keys = 2, .canon.kind = RF_CANON_PARKS,
     .names = NAMES("item", "mapper", "kind")},
    {.what = "dead letters", .keys = 2, .canon.kind = RF_CANON_LETTERS,
     .names = NAMES("item", "mapper", "class")},
    {.what = "cuts", .keys = 5, .canon.kind = RF_CANON_CUTS,
     .names = NAMES("item", "mapper", "n", "column", "kind", "table")},
};
/* A digest leaves out where the lane stands, and in which store. */
enum { FIXED_COUNT = sizeof fixed_streams / sizeof *fixed_streams, DIGEST_FROM = 2 };

/* The stream of a mapper table, its words in the arena. */
static void rows_stream(struct rf_arena *arena, const struct rf_decl *decl,
                        const struct rf_table *table, struct stream *out)
{
    const char **names = rf_arena_alloc(arena, (2 + 2 * table->column_count) * sizeof *names);
    char *what = rf_arena_alloc(arena, RF_NAME_MAX + 16);
    size_t count = 0;

    snprintf(what, RF_NAME_MAX + 16, "table '%s'", table->name);
    names[count++] = "item";
    names[count++] = "n";
    for (size_t i = 0; i < table->column_count; i++) {
        const char *name = table->columns[i].name;
        names[count++] = name;
        if (table->columns[i].type == RF_TYPE_TIME) {
            char *offset = rf_arena_alloc(arena, RF_NAME_MAX + 16);
            snprintf(offset, RF_NAME_MAX + 16, "%s_offset", name);
            names[count++] = offset;
        }
    }
    *out = (struct stream){.what = what, .keys = 2, .names = names,
                           .canon = {RF_CANON_ROWS, decl, table, count}};
}

/* ---- what is left out ---- */

struct leaving {
    struct rf_canon *const *sides;
    size_t count;
    struct rf_error *err;
};

static enum rf_status leave(void *user, const char *item, const char *mapper, bool parked)
{
    struct leaving *leaving = user;
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < leaving->count && status == RF_OK; i++)
        status = leaving->sides[i]->ops->leave_out(leaving->sides[i], item, mapper, parked,
                                                   leaving->err);
    return status;
}

static enum rf_status leave_item(void *user, const char *item)
{
    struct leaving *leaving = user;
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < leaving->count && status == RF_OK; i++)
        status = leaving->sides[i]->ops->leave_item(leaving->sides[i], item, leaving->err);
    return status;
}

/* Whatever one side says to leave out, all leave out. */
static enum rf_status leave_out(struct rf_canon *const *sides, size_t count, struct rf_error *err)
{
    struct leaving leaving = {.sides = sides, .count = count, .err = err};
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < count && status == RF_OK; i++)
        status = sides[i]->ops->undecided(sides[i], leave, &leaving, err);
    for (size_t i = 0; i < count && status == RF_OK; i++)
        status = sides[i]->ops->beneath(sides[i], leave_item, &leaving, err);
    return status;
}

/* ---- all of it ---- */

static bool is_searched(const struct rf_table *table)
{
    for (size_t i = 0; i < table->column_count; i++)
        if (table->columns[i].search)
            return true;
    return false;
}

static enum rf_status compare_table(struct compare *compare, const struct rf_decl *decl,
                                    const struct rf_table *table, struct rf_error *err)
{
    struct rf_arena arena;
    struct rf_error broken = {0};
    struct stream stream;
    uint64_t rows = compare->report.rows;
    bool there = false;
    enum rf_status status;

    rf_arena_init(&arena, 1 << 20);
    rows_stream(&arena, decl, table, &stream);
    status = compare_stream(compare, &stream, &there, err);
    compare->report.tables++;
    if (status == RF_OK && there && is_searched(table) && RF_SAFEGUARD("compare-fts")) {
        begin_phase(compare, "comparing the full-text index of", stream.what);
        if (compare->is->ops->check_search(compare->is, table, tell, compare, &broken) != RF_OK)
            tell_broken(compare, stream.what, "cannot be checked", &broken);
        compare->progress.done += compare->report.rows - rows;
    }
    rf_arena_release(&arena);
    return status == RF_OK ? take_lost(compare, err) : status;
}

static enum rf_status compare_tables(struct compare *compare, struct rf_error *err)
{
    const struct rf_canon_mapper *mappers = NULL;
    size_t count = 0;
    enum rf_status status =
        compare->should->ops->mappers(compare->should, &mappers, &count, err);

    for (size_t i = 0; status == RF_OK && i < count; i++)
        for (size_t k = 0; status == RF_OK && k < mappers[i].decl->table_count; k++)
            status = compare_table(compare, mappers[i].decl, &mappers[i].decl->tables[k], err);
    return status;
}

/* How many rows there will be to count, full-text entries being looked at once more. */
static enum rf_status expect(struct compare *compare, struct rf_error *err)
{
    const struct rf_compare_options *how = compare->how;
    const struct rf_canon_mapper *mappers = NULL;
    size_t count = 0;
    bool searched = false;
    enum rf_status status = compare->should->ops->mappers(compare->should, &mappers, &count, err);

    for (size_t i = 0; status == RF_OK && i < count; i++)
        for (size_t k = 0; k < mappers[i].decl->table_count; k++)
            searched |= is_searched(&mappers[i].decl->tables[k]);
    compare->progress.total = how->others + how->rows * (1 + searched);
    return status;
}

static enum rf_status compare_all(struct compare *compare, struct rf_error *err)
{
    struct rf_canon *const sides[] = {compare->is, compare->should};
    struct rf_compare_report *report = &compare->report;
    struct rf_error broken = {0};
    uint64_t differences;
    bool there = true;
    enum rf_status status = expect(compare, err);

    if (status == RF_OK)
        status = leave_out(sides, 2, err);
    if (status == RF_OK)
        status = collect_items(compare, err);
    for (size_t i = 0; i < FIXED_COUNT && status == RF_OK; i++) {
        differences = report->differences;
        status = compare_stream(compare, &fixed_streams[i], &there, err);
        /* A rebuild goes on with refuge's own tables, and the items and the store in them. */
        report->unsound |= !there;
        if (fixed_streams[i].canon.kind == RF_CANON_FACTS)
            report->unsound |= report->differences > differences;
    }
    if (status == RF_OK)
        status = compare_tables(compare, err);
    if (status == RF_OK)
        status = compare->is->ops->left_out(compare->is, &report->limit_letters, &report->parked,
                                            err);
    if (status != RF_OK || stopped(compare))
        return status;
    begin_phase(compare, "looking for", "damage");
    if (compare->is->ops->check(compare->is, tell, compare, &broken) != RF_OK) {
        differences = report->differences;
        tell_broken(compare, "index", "cannot be checked", &broken);
        report->unsound |= report->differences > differences;
    }
    return take_lost(compare, err);
}

static enum rf_status conclude(struct compare *compare, const char *name, struct rf_error *err)
{
    uint64_t count = compare->report.differences;

    if (count > LINES_MAX && compare->how->problem) {
        char line[64];
        snprintf(line, sizeof line, "and %" PRIu64 " more difference%s", count - LINES_MAX,
                 count - LINES_MAX == 1 ? "" : "s");
        compare->how->problem(compare->how->user, line);
    }
    if (count)
        return rf_error_set(err, RF_CORRUPT,
                            "index '%s' is not what its blobs and mappers say: %" PRIu64
                            " difference%s",
                            name, count, count == 1 ? "" : "s");
    return RF_OK;
}

enum rf_status rf_canon_compare(struct rf_canon *is, const char *is_name, struct rf_canon *should,
                                const struct rf_compare_options *options,
                                struct rf_compare_report *out, struct rf_error *err)
{
    struct compare compare = {.is = is, .should = should, .how = options};
    enum rf_status status;

    compare.report.begun = true;
    compare.progress.what = compare.doing;
    begin_phase(&compare, "comparing", "items");
    if (options->progress) {
        is->working = should->working = show_progress;
        is->user = should->user = &compare;
    }

    rf_buf_init(&compare.line, 1 << 16);
    rf_buf_init(&compare.keys, 1 << 16);
    rf_buf_init(&compare.last, 1 << 16);
    status = compare_all(&compare, err);
    if (status == RF_OK && stopped(&compare))
        status = rf_error_set(err, RF_CANCELLED, "stopped");
    if (status == RF_OK)
        status = conclude(&compare, is_name, err);
    is->working = should->working = NULL;
    if (out)
        *out = compare.report;
    rf_buf_release(&compare.line);
    rf_buf_release(&compare.keys);
    rf_buf_release(&compare.last);
    free(compare.items);
    return status;
}

/* ---- digest ---- */

/* Each cell as one byte of type, then its value; texts with their size before them. */
static void hash_cell(struct rf_hasher *hasher, const struct rf_cell *cell)
{
    uint8_t head[9] = {(uint8_t)cell->type};
    uint64_t bits;

    switch (cell->type) {
    case RF_CELL_NULL:
        rf_hasher_update(hasher, head, 1);
        break;
    case RF_CELL_INT:
        rf_put_u64(head + 1, (uint64_t)cell->integer);
        rf_hasher_update(hasher, head, sizeof head);
        break;
    case RF_CELL_FLOAT:
        memcpy(&bits, &cell->real, sizeof bits);
        rf_put_u64(head + 1, bits);
        rf_hasher_update(hasher, head, sizeof head);
        break;
    case RF_CELL_TEXT:
    case RF_CELL_BYTES:
        rf_put_u64(head + 1, cell->text.size);
        rf_hasher_update(hasher, head, sizeof head);
        rf_hasher_update(hasher, cell->text.data, cell->text.size);
        break;
    }
}

struct digest {
    struct rf_canon *canon;
    struct rf_hasher *hasher;
    uint64_t rows;
};

static enum rf_status hash_stream(struct digest *digest, const char *what,
                                  const struct rf_canon_stream *stream, struct rf_error *err)
{
    struct rf_canon *canon = digest->canon;
    const struct rf_cell *cells;
    enum rf_status status = canon->ops->begin(canon, stream, err);

    rf_hasher_update(digest->hasher, what, strlen(what) + 1);
    if (status != RF_OK)
        return status;
    while ((status = canon->ops->next(canon, &cells, err)) == RF_OK) {
        for (size_t i = 0; i < stream->count; i++)
            hash_cell(digest->hasher, &cells[i]);
        digest->rows++;
        if (canon->interrupted && *canon->interrupted) {
            status = rf_error_set(err, RF_CANCELLED, "stopped before all rows were hashed");
            break;
        }
    }
    canon->ops->end(canon);
    return status == RF_END ? RF_OK : status;
}

struct named_table {
    const struct rf_decl *decl;
    const struct rf_table *table;
};

static int by_table_name(const void *a, const void *b)
{
    return strcmp(((const struct named_table *)a)->table->name,
                  ((const struct named_table *)b)->table->name);
}

static enum rf_status hash_table(struct digest *digest, const struct named_table *at,
                                 struct rf_error *err)
{
    struct rf_arena arena;
    struct stream rows;
    struct rf_canon_stream strays = {RF_CANON_STRAYS, at->decl, at->table, 1};
    enum rf_status status;

    rf_arena_init(&arena, 1 << 20);
    rows_stream(&arena, at->decl, at->table, &rows);
    status = hash_stream(digest, at->table->name, &rows.canon, err);
    if (status == RF_OK)
        status = hash_stream(digest, at->table->name, &strays, err);
    if (status != RF_OK && status != RF_CANCELLED)
        rf_error_context(err, status, "cannot read table '%s'", at->table->name);
    rf_arena_release(&arena);
    return status;
}

/* Tables in order of their names: mappers may have come in any order. */
static enum rf_status hash_tables(struct digest *digest, struct rf_error *err)
{
    struct rf_canon *canon = digest->canon;
    const struct rf_canon_mapper *mappers = NULL;
    struct named_table *tables;
    size_t mapper_count = 0, count = 0;
    enum rf_status status = canon->ops->mappers(canon, &mappers, &mapper_count, err);

    if (status != RF_OK)
        return status;
    tables = calloc(mapper_count * RF_TABLES_MAX + 1, sizeof *tables);
    if (!tables)
        return rf_error_set(err, RF_NOMEM, "no memory for the tables of an index");
    for (size_t i = 0; i < mapper_count; i++)
        for (size_t k = 0; k < mappers[i].decl->table_count; k++)
            tables[count++] = (struct named_table){mappers[i].decl, &mappers[i].decl->tables[k]};
    qsort(tables, count, sizeof *tables, by_table_name);
    for (size_t i = 0; i < count && status == RF_OK; i++)
        status = hash_table(digest, &tables[i], err);
    free(tables);
    return status;
}

enum rf_status rf_canon_digest(struct rf_canon *canon, struct rf_digest *out,
                               struct rf_error *err)
{
    struct digest digest = {.canon = canon, .hasher = rf_hasher_new()};
    struct rf_blobref ref;
    char text[RF_BLOBREF_SIZE];
    enum rf_status status = leave_out(&canon, 1, err);

    for (size_t i = DIGEST_FROM; i < FIXED_COUNT && status == RF_OK; i++)
        status = hash_stream(&digest, fixed_streams[i].what, &fixed_streams[i].canon, err);
    if (status == RF_OK)
        status = hash_tables(&digest, err);
    if (status == RF_OK) {
        rf_hasher_finish(digest.hasher, &ref);
        rf_blobref_format(&ref, text);
        memcpy(out->hex, strchr(text, '-') + 1, sizeof out->hex);
        out->rows = digest.rows;
    }
    rf_hasher_free(digest.hasher);
    return status;
}
