/*
 * sqlite_compare.c - whether an index is what its rebuild is
 *
 * Everything the live lane says is laid out as streams of canonical rows in a fixed order: no
 * surrogate ids, times of mapping, attempts or reasons. Two indexes are compared by walking the
 * same stream in both; a digest is a hash over the streams of one. Deleted items are compared by
 * sequence alone, because a rebuild never sees their bytes; needs of a parked item by what is
 * missing.
 *
 * Dead letters of class limit depend on the machine, and what waits for the slow lane is not
 * settled: an item and mapper that have one on either side are left out on both, with the parts
 * below them.
 *
 * The full-text index holds tokens of rows by surrogate id, so it is compared with the rows of its
 * own index, which were compared before: per row, a sum over hash(token, column, offset), counted
 * up from the text by FTS5's own tokenizer and down from what fts5vocab finds in the index.
 */
#include "sinks/sink_sqlite.h"

#include "core/control.h"
#include "sinks/grams.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#define CACHE_BYTES (32u << 20)
#define LINES_MAX 1000
#define VALUE_BYTES 80         /* of a value in a line */
#define SPAN_MAX (4u << 20)    /* rows whose sums are kept at a time: 32 MiB */
#define TOKEN_MAX 32768        /* FTS5_MAX_TOKEN_SIZE of fts5Int.h: longer ones are cut */
#define INTEGRITY_MAX 100      /* lines of integrity_check */

struct side {
    struct rf_db db;
    struct rf_arena arena;
    struct rf_sqlite_live live;
    bool open;
};

struct compare {
    struct side is, should;
    struct rf_compare_report report;
    void (*problem)(void *user, const char *line);
    void *user;
    struct rf_buf line;
};

/* ---- lines ---- */

static void end_line(struct compare *compare)
{
    if (compare->report.differences++ < LINES_MAX && compare->problem) {
        const char *text = rf_buf_text(&compare->line);
        compare->problem(compare->user, text ? text : "a difference too long to be told");
    }
    rf_buf_clear(&compare->line);
}

static void say(struct compare *compare, const char *format, ...) RF_PRINTF(2, 3);
static void say(struct compare *compare, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    rf_buf_clear(&compare->line);
    rf_buf_put_text(&compare->line, text);
    end_line(compare);
}

/* The start of a text, control bytes and quotes made visible. */
static void put_quoted(struct rf_buf *out, struct rf_bytes text)
{
    size_t size = text.size > VALUE_BYTES ? VALUE_BYTES : text.size;

    while (size < text.size && size > 0 && (text.data[size] & 0xc0) == 0x80)
        size--;
    rf_buf_put_u8(out, '\'');
    for (size_t i = 0; i < size; i++) {
        if (text.data[i] < 0x20 || text.data[i] == 0x7f)
            rf_buf_printf(out, "\\x%02x", text.data[i]);
        else
            rf_buf_put_u8(out, text.data[i]);
    }
    rf_buf_put_text(out, size < text.size ? "…'" : "'");
}

static void put_cell(struct rf_buf *out, sqlite3_stmt *stmt, int column)
{
    switch (sqlite3_column_type(stmt, column)) {
    case SQLITE_NULL:
        rf_buf_put_text(out, "null");
        break;
    case SQLITE_INTEGER:
        rf_buf_printf(out, "%lld", (long long)sqlite3_column_int64(stmt, column));
        break;
    case SQLITE_FLOAT:
        rf_buf_printf(out, "%.17g", sqlite3_column_double(stmt, column));
        break;
    default:
        put_quoted(out, rf_db_bytes(stmt, column));
        break;
    }
}

/* ---- streams ---- */

/* One statement that gives the same rows in equal indexes, ordered by its first `keys` columns. */
struct stream {
    const char *what;
    int keys;
    const char *sql;
};

#define LIVE_ONLY "JOIN temp.live l ON l.id = x.mapper JOIN blobs b ON b.id = x.blob "
#define NOT_LEFT_OUT                                                                             \
    "b.item NOT IN (SELECT item FROM temp.beneath) AND NOT EXISTS (SELECT 1 FROM temp.left_out " \
    "WHERE left_out.item = b.item AND left_out.mapper = l.name) "

static const struct stream fixed_streams[] = {
    {"lane", 1, "SELECT state AS lane, position FROM refuge_lanes WHERE state = 'live'"},
    {"refuge_facts", 1, "SELECT name AS fact, value FROM refuge_facts WHERE name = 'store'"},
    {"refuge_tables", 2,
     "SELECT l.name AS mapper, x.name AS \"table\", x.title, x.search FROM refuge_tables x JOIN "
     "temp.live l ON l.id = x.mapper ORDER BY l.name, x.name"},
    {"mappers", 1, "SELECT name AS mapper, identity FROM temp.live ORDER BY name"},
    {"items", 1,
     "SELECT item, seq, deleted, ts, CASE deleted WHEN 0 THEN kind END AS kind, "
     "CASE deleted WHEN 0 THEN size END AS size, CASE deleted WHEN 0 THEN name END AS name, "
     "CASE deleted WHEN 0 THEN mtime END AS mtime FROM blobs b WHERE (kind <> 'part' OR "
     "EXISTS (SELECT 1 FROM refuge_parts e WHERE e.child = b.id AND e.mapper IN "
     "(SELECT id FROM temp.live))) AND item NOT IN (SELECT item FROM temp.beneath) ORDER BY item"},
    {"parts", 3,
     "SELECT b.item, l.name AS mapper, x.n, c.item AS part, x.name, x.offset, x.size FROM "
     "refuge_parts x JOIN temp.live l ON l.id = x.mapper JOIN blobs b ON b.id = x.parent "
     "LEFT JOIN blobs c ON c.id = x.child WHERE " NOT_LEFT_OUT "ORDER BY b.item, l.name, x.n"},
    {"needs", 3,
     "SELECT b.item, l.name AS mapper, x.ref AS needs, max(x.present) AS present FROM refuge_needs "
     "x " LIVE_ONLY "WHERE (x.present = 0 OR NOT EXISTS (SELECT 1 FROM refuge_parks p WHERE "
     "p.mapper = x.mapper AND p.blob = x.blob)) AND " NOT_LEFT_OUT
     "GROUP BY b.item, l.name, x.ref ORDER BY b.item, l.name, x.ref"},
    {"parks", 2,
     "SELECT b.item, l.name AS mapper, x.kind FROM refuge_parks x " LIVE_ONLY "WHERE " NOT_LEFT_OUT
     "ORDER BY b.item, l.name"},
    {"dead letters", 2,
     "SELECT b.item, l.name AS mapper, x.class FROM refuge_dead_letters x " LIVE_ONLY
     "WHERE x.class <> 'limit' AND " NOT_LEFT_OUT "ORDER BY b.item, l.name"},
    {"cuts", 5,
     "SELECT b.item, l.name AS mapper, x.n, x.\"column\", x.kind, x.\"table\" FROM refuge_cuts x "
     LIVE_ONLY "WHERE " NOT_LEFT_OUT "ORDER BY b.item, l.name, x.n, x.\"column\", x.kind"},
};
enum { FIXED_COUNT = sizeof fixed_streams / sizeof *fixed_streams, DIGEST_FROM = 2 };

/* The stream of a mapper table; sql to be freed by sqlite3_free. */
static char *table_sql(const struct rf_decl *decl, const struct rf_table *table)
{
    struct rf_buf columns;
    char *sql;

    rf_buf_init(&columns, 1 << 16);
    for (size_t i = 0; i < table->column_count; i++) {
        rf_buf_printf(&columns, ", t.\"%s\"", table->columns[i].name);
        if (table->columns[i].type == RF_TYPE_TIME)
            rf_buf_printf(&columns, ", t.\"%s_offset\"", table->columns[i].name);
    }
    sql = sqlite3_mprintf("SELECT b.item, t.n%s FROM blobs b CROSS JOIN \"%w\" t ON t.blob = b.id "
                          "WHERE b.item NOT IN (SELECT item FROM temp.beneath) AND b.item NOT IN "
                          "(SELECT item FROM temp.left_out WHERE mapper = %Q) ORDER BY b.item, t.n",
                          rf_buf_text(&columns), table->name, decl->name);
    rf_buf_release(&columns);
    if (!sql)
        abort();
    return sql;
}

/* Order of two cells as SQLite sorts them: null, numbers, text; texts by bytes. */
static int cell_order(sqlite3_stmt *a, sqlite3_stmt *b, int column)
{
    static const int ranks[] = {
        [SQLITE_NULL] = 0, [SQLITE_INTEGER] = 1, [SQLITE_FLOAT] = 1, [SQLITE_TEXT] = 2,
        [SQLITE_BLOB] = 3};
    int type_a = sqlite3_column_type(a, column), type_b = sqlite3_column_type(b, column);
    struct rf_bytes x, y;
    int order;

    if (ranks[type_a] != ranks[type_b])
        return ranks[type_a] - ranks[type_b];
    if (type_a == SQLITE_NULL)
        return 0;
    if (type_a == SQLITE_INTEGER && type_b == SQLITE_INTEGER) {
        int64_t i = sqlite3_column_int64(a, column), k = sqlite3_column_int64(b, column);
        return (i > k) - (i < k);
    }
    if (ranks[type_a] == 1) {
        double i = sqlite3_column_double(a, column), k = sqlite3_column_double(b, column);
        return i != k ? (i > k) - (i < k) : type_a - type_b;
    }
    x = rf_db_bytes(a, column);
    y = rf_db_bytes(b, column);
    order = x.size && y.size ? memcmp(x.data, y.data, x.size < y.size ? x.size : y.size) : 0;
    return order ? order : (x.size > y.size) - (x.size < y.size);
}

static int key_order(sqlite3_stmt *a, sqlite3_stmt *b, int keys)
{
    for (int i = 0; i < keys; i++) {
        int order = cell_order(a, b, i);
        if (order)
            return order;
    }
    return 0;
}

static void put_keys(struct compare *compare, const struct stream *stream, sqlite3_stmt *stmt)
{
    rf_buf_clear(&compare->line);
    rf_buf_put_text(&compare->line, stream->what);
    for (int i = 0; i < stream->keys; i++) {
        rf_buf_printf(&compare->line, ", %s ", sqlite3_column_name(stmt, i));
        put_cell(&compare->line, stmt, i);
    }
}

static void say_row(struct compare *compare, const struct stream *stream, sqlite3_stmt *stmt,
                    const char *words)
{
    put_keys(compare, stream, stmt);
    rf_buf_put_text(&compare->line, words);
    end_line(compare);
}

static void compare_cells(struct compare *compare, const struct stream *stream, sqlite3_stmt *is,
                          sqlite3_stmt *should)
{
    int count = sqlite3_column_count(should);

    for (int i = stream->keys; i < count; i++) {
        if (cell_order(is, should, i) == 0)
            continue;
        put_keys(compare, stream, should);
        rf_buf_printf(&compare->line, ", column '%s': is ", sqlite3_column_name(should, i));
        put_cell(&compare->line, is, i);
        rf_buf_put_text(&compare->line, ", should be ");
        put_cell(&compare->line, should, i);
        end_line(compare);
    }
}

/* A row of one side only. The same key once more is a row that was doubled. */
static void say_lonely(struct compare *compare, const struct stream *stream, sqlite3_stmt *stmt,
                       const char *previous, const char *words)
{
    struct rf_buf copy;

    put_keys(compare, stream, stmt);
    rf_buf_init(&copy, 1 << 16);
    rf_buf_put(&copy, compare->line.data, compare->line.size);
    if (previous && rf_buf_text(&copy) && strcmp(previous, rf_buf_text(&copy)) == 0)
        words = ": is there twice";
    rf_buf_release(&copy);
    rf_buf_put_text(&compare->line, words);
    end_line(compare);
}

/* What `is` holds may be broken in any way: that is a difference, not a failure. */
static enum rf_status step_is(struct compare *compare, const struct stream *stream,
                              sqlite3_stmt *stmt)
{
    struct rf_error broken = {0};
    enum rf_status status = rf_db_step(&compare->is.db, stmt, &broken);

    if (status && status != RF_END) {
        say(compare, "%s: cannot be read: %s", stream->what, broken.message);
        return RF_END;
    }
    return status;
}

static enum rf_status walk(struct compare *compare, const struct stream *stream, sqlite3_stmt *is,
                           sqlite3_stmt *should, struct rf_error *err)
{
    struct rf_buf last; /* key of the last row of `is` that had its like */
    enum rf_status here = step_is(compare, stream, is);
    enum rf_status there = rf_db_step(&compare->should.db, should, err);

    rf_buf_init(&last, 1 << 16);
    while ((here == RF_OK || here == RF_END) && (there == RF_OK || there == RF_END) &&
           !(here == RF_END && there == RF_END)) {
        int order = here ? 1 : there ? -1 : key_order(is, should, stream->keys);
        if (order < 0) {
            say_lonely(compare, stream, is, rf_buf_text(&last), ": should not be there");
            here = step_is(compare, stream, is);
        } else if (order > 0) {
            say_row(compare, stream, should, ": is missing");
            there = rf_db_step(&compare->should.db, should, err);
        } else {
            compare_cells(compare, stream, is, should);
            put_keys(compare, stream, is);
            rf_buf_clear(&last);
            rf_buf_put(&last, compare->line.data, compare->line.size);
            compare->report.rows += strncmp(stream->what, "table", 5) == 0;
            here = step_is(compare, stream, is);
            there = rf_db_step(&compare->should.db, should, err);
        }
    }
    rf_buf_release(&last);
    return there == RF_END ? RF_OK : there;
}

static enum rf_status compare_stream(struct compare *compare, const struct stream *stream,
                                     struct rf_error *err)
{
    sqlite3_stmt *is = NULL, *should = NULL;
    struct rf_error broken = {0};
    enum rf_status status = rf_db_prepare(&compare->should.db, &should, err, "%s", stream->sql);

    if (!status && rf_db_prepare(&compare->is.db, &is, &broken, "%s", stream->sql) != RF_OK)
        say(compare, "%s: cannot be read: %s", stream->what, broken.message);
    else if (!status)
        status = walk(compare, stream, is, should, err);
    sqlite3_finalize(is);
    sqlite3_finalize(should);
    return status;
}

/* ---- what is left out ---- */

static enum rf_status open_side(struct side *side, const char *path, struct rf_error *err)
{
    enum rf_status status = rf_db_open(&side->db, path, RF_DB_SCRATCH, CACHE_BYTES, NULL, err);

    if (status)
        return status;
    side->open = true;
    rf_arena_init(&side->arena, 64u << 20);
    status = rf_db_exec(&side->db, err,
                        "CREATE TEMP TABLE live(id INTEGER PRIMARY KEY, name TEXT, identity TEXT);"
                        "CREATE TEMP TABLE left_out(item TEXT, mapper TEXT, parked, "
                        "PRIMARY KEY(item, mapper)) WITHOUT ROWID;"
                        "CREATE TEMP TABLE beneath(item TEXT PRIMARY KEY) WITHOUT ROWID;"
                        "BEGIN; INSERT INTO temp.live SELECT m.id, m.name, m.identity FROM "
                        "refuge_lane_mappers m JOIN refuge_lanes l ON l.id = m.lane "
                        "WHERE l.state = 'live';");
    return status;
}

static void close_side(struct side *side)
{
    if (!side->open)
        return;
    rf_db_close(&side->db);
    rf_arena_release(&side->arena);
}

/* Carry the rows of a query on one side into a temporary table of the other. */
static enum rf_status carry(struct side *from, struct side *to, const char *query,
                            const char *insert, struct rf_error *err)
{
    sqlite3_stmt *source = NULL, *target = NULL;
    enum rf_status status = rf_db_prepare(&from->db, &source, err, "%s", query);

    if (!status)
        status = rf_db_prepare(&to->db, &target, err, "%s", insert);
    while (!status && (status = rf_db_step(&from->db, source, err)) == RF_OK) {
        rf_db_bind(target, "t", rf_db_text(source, 0));
        if (sqlite3_column_count(source) > 1)
            sqlite3_bind_text(target, 2, rf_db_text(source, 1), -1, SQLITE_STATIC);
        status = rf_db_run(&to->db, target, err);
    }
    sqlite3_finalize(source);
    sqlite3_finalize(target);
    return status == RF_END ? RF_OK : status;
}

static const char limit_query[] =
    "SELECT b.item, l.name FROM refuge_dead_letters x " LIVE_ONLY "WHERE x.class = 'limit'";
static const char parked_query[] =
    "SELECT b.item, l.name FROM refuge_parks x " LIVE_ONLY "WHERE x.kind <> 'need'";
static const char beneath_query[] =
    "WITH RECURSIVE below(id) AS (SELECT e.child FROM temp.left_out t JOIN blobs b ON b.item = "
    "t.item JOIN temp.live l ON l.name = t.mapper JOIN refuge_parts e ON e.mapper = l.id AND "
    "e.parent = b.id UNION SELECT e.child FROM below JOIN temp.live l JOIN refuge_parts e ON "
    "e.mapper = l.id AND e.parent = below.id) SELECT b.item FROM below JOIN blobs b USING(id)";

/* Fill temp.left_out and temp.beneath of every side given with what either of them says. */
static enum rf_status leave_out(struct side **sides, size_t count, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < count; i++)
        for (size_t k = 0; !status && k < count; k++)
            status = carry(sides[i], sides[k], parked_query,
                           "INSERT OR IGNORE INTO temp.left_out VALUES(?1, ?2, 1)", err);
    for (size_t i = 0; !status && i < count; i++)
        for (size_t k = 0; !status && k < count; k++)
            status = carry(sides[i], sides[k], limit_query,
                           "INSERT OR IGNORE INTO temp.left_out VALUES(?1, ?2, 0)", err);
    for (size_t i = 0; !status && i < count; i++)
        for (size_t k = 0; !status && k < count; k++)
            status = carry(sides[i], sides[k], beneath_query,
                           "INSERT OR IGNORE INTO temp.beneath VALUES(?1)", err);
    return status;
}

/* ---- the full-text index against the rows ---- */

struct fts_check {
    struct rf_db *db;
    const struct rf_table *table;
    int64_t first, count; /* the ids whose sums are kept */
    uint64_t *sums;
    Fts5Tokenizer *tokenizer;
    fts5_tokenizer api;
    struct rf_buf grams;
    int64_t id; /* of the row being cut into tokens */
    unsigned column, offset;
};

static uint64_t token_hash(const void *token, size_t size, int64_t id, unsigned column,
                           unsigned offset)
{
    uint64_t seed = (uint64_t)id * 0x9e3779b97f4a7c15u + ((uint64_t)column << 32 | offset);

    return XXH3_64bits_withSeed(token, size > TOKEN_MAX ? TOKEN_MAX : size, seed);
}

static int count_token(void *user, int flags, const char *token, int size, int start, int end)
{
    struct fts_check *check = user;

    (void)flags;
    (void)start;
    (void)end;
    check->sums[check->id - check->first] +=
        token_hash(token, (size_t)size, check->id, check->column, check->offset++);
    return SQLITE_OK;
}

static enum rf_status find_tokenizer(struct fts_check *check, struct rf_error *err)
{
    static const char *options[] = {"remove_diacritics", "2"};
    sqlite3_stmt *stmt = NULL;
    fts5_api *api = NULL;
    void *context = NULL;
    enum rf_status status = rf_db_prepare(check->db, &stmt, err, "SELECT fts5(?1)");

    if (status)
        return status;
    sqlite3_bind_pointer(stmt, 1, &api, "fts5_api_ptr", NULL);
    (void)sqlite3_step(stmt);
    sqlite3_finalize(stmt);
    if (!api || api->xFindTokenizer(api, "unicode61", &context, &check->api) != SQLITE_OK ||
        check->api.xCreate(context, options, 2, &check->tokenizer) != SQLITE_OK)
        return rf_error_set(err, RF_UNSUPPORTED, "this SQLite has no FTS5 tokenizer 'unicode61'");
    return RF_OK;
}

static void count_text(struct fts_check *check, unsigned column, struct rf_bytes text)
{
    check->column = column;
    check->offset = 0;
    if (text.size)
        check->api.xTokenize(check->tokenizer, check, FTS5_TOKENIZE_DOCUMENT,
                             (const char *)text.data, (int)text.size, count_token);
}

/* Add up what the rows say. */
static enum rf_status count_rows(struct fts_check *check, struct rf_error *err)
{
    struct rf_buf columns;
    sqlite3_stmt *stmt = NULL;
    size_t count = rf_sqlite_search_count(check->table);
    enum rf_status status;

    rf_buf_init(&columns, 1 << 16);
    for (size_t i = 0; i < check->table->column_count; i++)
        if (check->table->columns[i].search)
            rf_buf_printf(&columns, ", \"%s\"", check->table->columns[i].name);
    status = rf_db_prepare(check->db, &stmt, err,
                           "SELECT id%s FROM \"%w\" WHERE id >= %lld AND id < %lld",
                           rf_buf_text(&columns), check->table->name, (long long)check->first,
                           (long long)(check->first + check->count));
    while (!status && (status = rf_db_step(check->db, stmt, err)) == RF_OK) {
        check->id = sqlite3_column_int64(stmt, 0);
        rf_buf_clear(&check->grams);
        for (size_t i = 0; i < count; i++) {
            struct rf_bytes text = rf_db_bytes(stmt, (int)i + 1);
            count_text(check, (unsigned)i, text);
            rf_grams_put(&check->grams, text);
        }
        count_text(check, (unsigned)count, rf_buf_bytes(&check->grams));
    }
    sqlite3_finalize(stmt);
    rf_buf_release(&columns);
    return status == RF_END ? RF_OK : status;
}

static unsigned column_index(const struct rf_table *table, const char *name)
{
    unsigned index = 0;

    for (size_t i = 0; i < table->column_count; i++) {
        if (!table->columns[i].search)
            continue;
        if (strcmp(table->columns[i].name, name) == 0)
            return index;
        index++;
    }
    return index; /* grams */
}

/* Take away what the index says. stray: entries of rows outside any range. */
static enum rf_status count_index(struct fts_check *check, uint64_t *stray, struct rf_error *err)
{
    sqlite3_stmt *stmt = NULL;
    char last[RF_NAME_MAX + 16] = "";
    unsigned column = column_index(check->table, last);
    enum rf_status status;

    status = rf_db_exec(check->db, err,
                        "DROP TABLE IF EXISTS temp.refuge_vocabulary; CREATE VIRTUAL TABLE "
                        "temp.refuge_vocabulary USING fts5vocab(main, \"%w_fts\", instance)",
                        check->table->name);
    if (!status)
        status = rf_db_prepare(check->db, &stmt, err,
                               "SELECT term, doc, col, offset FROM temp.refuge_vocabulary");
    while (!status && (status = rf_db_step(check->db, stmt, err)) == RF_OK) {
        struct rf_bytes term = rf_db_bytes(stmt, 0);
        int64_t id = sqlite3_column_int64(stmt, 1);
        const char *name = rf_db_text(stmt, 2);

        if (strcmp(name, last) != 0) {
            snprintf(last, sizeof last, "%s", name);
            column = column_index(check->table, name);
        }
        if (id >= check->first && id < check->first + check->count)
            check->sums[id - check->first] -= token_hash(term.data, term.size, id, column,
                                                         (unsigned)sqlite3_column_int64(stmt, 3));
        else if (id < 1)
            ++*stray;
    }
    sqlite3_finalize(stmt);
    return status == RF_END ? RF_OK : status;
}

static enum rf_status name_rows(struct compare *compare, struct fts_check *check,
                                struct rf_error *err)
{
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    status = rf_db_prepare(check->db, &stmt, err,
                           "SELECT b.item, t.n FROM \"%w\" t LEFT JOIN blobs b ON b.id = t.blob "
                           "WHERE t.id = ?1",
                           check->table->name);
    for (int64_t i = 0; !status && i < check->count; i++) {
        if (check->sums[i] == 0)
            continue;
        rf_db_bind(stmt, "i", check->first + i);
        status = rf_db_step(check->db, stmt, err);
        if (!status)
            say(compare,
                "table '%s', item '%s', n %lld: its full-text entry is not that of its text",
                check->table->name, rf_db_text(stmt, 0),
                (long long)sqlite3_column_int64(stmt, 1));
        else if (status == RF_END)
            say(compare, "table '%s': a full-text entry belongs to row %" PRId64 ", which is not "
                         "there",
                check->table->name, check->first + i);
        sqlite3_reset(stmt);
        if (status == RF_END)
            status = RF_OK;
    }
    sqlite3_finalize(stmt);
    return status;
}

static enum rf_status check_range(struct compare *compare, struct fts_check *check,
                                  uint64_t *stray, struct rf_error *err)
{
    enum rf_status status;

    assert(check->sums);
    memset(check->sums, 0, (size_t)check->count * sizeof *check->sums);
    status = count_rows(check, err);
    if (!status)
        status = count_index(check, stray, err);
    return status ? status : name_rows(compare, check, err);
}

static enum rf_status check_fts(struct compare *compare, const struct rf_table *table,
                                struct rf_error *err)
{
    struct fts_check check = {.db = &compare->is.db, .table = table, .first = 1};
    uint64_t stray = 0;
    int64_t rows, entries;
    enum rf_status status = find_tokenizer(&check, err);

    rf_buf_init(&check.grams, RF_GRAMS_MAX);
    if (!status)
        status = rf_db_int(check.db, &rows, 0, err, "SELECT max(id) FROM \"%w\"", table->name);
    if (!status) /* an entry may outlive its row; every entry has a size kept beside it */
        status = rf_db_int(check.db, &entries, 0, err, "SELECT max(id) FROM \"%w_fts_docsize\"",
                           table->name);
    if (!status) {
        int64_t end = (rows > entries ? rows : entries) + 1;
        check.count = end > SPAN_MAX ? SPAN_MAX : end;
        check.sums = malloc((size_t)check.count * sizeof *check.sums);
        if (!check.sums)
            status = rf_error_set(err, RF_NOMEM, "no memory to check table '%s'", table->name);
        for (; !status && check.first <= end; check.first += check.count)
            status = check_range(compare, &check, check.first == 1 ? &stray : &(uint64_t){0}, err);
    }
    if (!status && stray)
        say(compare, "table '%s': %" PRIu64 " full-text token%s of no row", table->name, stray,
            stray == 1 ? "" : "s");
    free(check.sums);
    if (check.tokenizer)
        check.api.xDelete(check.tokenizer);
    rf_buf_release(&check.grams);
    return status;
}

/* ---- what must hold in any index ---- */

static enum rf_status check_integrity(struct compare *compare, struct rf_error *err)
{
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    status = rf_db_prepare(&compare->is.db, &stmt, err, "PRAGMA integrity_check(%d)",
                           INTEGRITY_MAX);
    while (!status && (status = rf_db_step(&compare->is.db, stmt, err)) == RF_OK)
        if (strcmp(rf_db_text(stmt, 0), "ok") != 0)
            say(compare, "file '%s': %s", compare->is.db.path, rf_db_text(stmt, 0));
    sqlite3_finalize(stmt);
    return status == RF_END ? RF_OK : status;
}

/* Rows that point at an item, lane or mapper that is not there. */
static enum rf_status check_references(struct compare *compare, struct rf_error *err)
{
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    status = rf_db_prepare(&compare->is.db, &stmt, err, "PRAGMA main.foreign_key_check");
    while (!status && (status = rf_db_step(&compare->is.db, stmt, err)) == RF_OK) {
        if (sqlite3_column_type(stmt, 1) == SQLITE_NULL)
            say(compare, "table '%s': a row points at a row of '%s' that is not there",
                rf_db_text(stmt, 0), rf_db_text(stmt, 2));
        else
            say(compare, "table '%s': row %lld points at a row of '%s' that is not there",
                rf_db_text(stmt, 0), (long long)sqlite3_column_int64(stmt, 1),
                rf_db_text(stmt, 2));
    }
    sqlite3_finalize(stmt);
    return status == RF_END ? RF_OK : status;
}

static enum rf_status check_lanes(struct compare *compare, struct rf_error *err)
{
    int64_t live, tables;
    enum rf_status status;

    status = rf_db_int(&compare->is.db, &live, 0, err,
                       "SELECT count(*) FROM refuge_lanes WHERE state = 'live'");
    if (!status && live != 1)
        say(compare, "lanes: %" PRId64 " are live, should be 1", live);
    if (!status)
        status = rf_db_int(&compare->is.db, &tables, 0, err,
                           "SELECT count(*) FROM refuge_tables x JOIN temp.live l ON l.id = "
                           "x.mapper WHERE NOT EXISTS (SELECT 1 FROM sqlite_master s WHERE s.type "
                           "= 'table' AND s.name = x.name)");
    if (!status && tables)
        say(compare, "lanes: %" PRId64 " tables of live mappers are not there", tables);
    return status;
}

/* A check of `is` that cannot be made is a difference as well. */
static void tell_broken(struct compare *compare, const char *what, enum rf_status status,
                        const struct rf_error *broken)
{
    if (status)
        say(compare, "%s: cannot be checked: %s", what, broken->message);
}

/* ---- all of it ---- */

static enum rf_status compare_tables(struct compare *compare, struct rf_error *err)
{
    const struct rf_sqlite_live *live = &compare->should.live;
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < live->count; i++) {
        const struct rf_decl *decl = live->mappers[i].decl;
        for (size_t k = 0; !status && k < decl->table_count; k++) {
            const struct rf_table *table = &decl->tables[k];
            struct rf_error broken = {0};
            char what[RF_NAME_MAX + 16];
            struct stream stream = {what, 2, NULL};
            char *sql = table_sql(decl, table);

            snprintf(what, sizeof what, "table '%s'", table->name);
            stream.sql = sql;
            status = compare_stream(compare, &stream, err);
            sqlite3_free(sql);
            compare->report.tables++;
            if (!status && rf_sqlite_search_count(table) && RF_SAFEGUARD("compare-fts"))
                tell_broken(compare, what, check_fts(compare, table, &broken), &broken);
        }
    }
    return status;
}

static enum rf_status compare_all(struct compare *compare, struct rf_error *err)
{
    struct side *sides[] = {&compare->is, &compare->should};
    struct rf_error broken[3] = {0};
    int64_t limited = 0, parked = 0;
    enum rf_status status = leave_out(sides, 2, err);

    for (size_t i = 0; !status && i < FIXED_COUNT; i++)
        status = compare_stream(compare, &fixed_streams[i], err);
    if (!status)
        status = compare_tables(compare, err);
    if (!status)
        status = rf_db_int(&compare->is.db, &parked, 0, err,
                           "SELECT count(*) FROM temp.left_out WHERE parked");
    if (!status)
        status = rf_db_int(&compare->is.db, &limited, 0, err,
                           "SELECT count(*) FROM temp.left_out WHERE NOT parked");
    compare->report.limit_letters = (uint64_t)limited;
    compare->report.parked = (uint64_t)parked;
    if (status)
        return status;
    tell_broken(compare, "lanes", check_lanes(compare, &broken[0]), &broken[0]);
    tell_broken(compare, "references", check_references(compare, &broken[1]), &broken[1]);
    tell_broken(compare, "file", check_integrity(compare, &broken[2]), &broken[2]);
    return RF_OK;
}

static enum rf_status conclude(struct compare *compare, struct rf_error *err)
{
    uint64_t count = compare->report.differences;

    if (count > LINES_MAX && compare->problem) {
        char line[64];
        snprintf(line, sizeof line, "and %" PRIu64 " more difference%s", count - LINES_MAX,
                 count - LINES_MAX == 1 ? "" : "s");
        compare->problem(compare->user, line);
    }
    if (count)
        return rf_error_set(err, RF_CORRUPT,
                            "index '%s' is not what its blobs and mappers say: %" PRIu64
                            " difference%s; make it again with 'refuge index rebuild'",
                            compare->is.db.path, count, count == 1 ? "" : "s");
    return RF_OK;
}

enum rf_status rf_sqlite_compare(const char *path, const char *rebuilt_path,
                                 void (*problem)(void *user, const char *line), void *user,
                                 struct rf_compare_report *out, struct rf_error *err)
{
    struct compare compare = {.problem = problem, .user = user};
    enum rf_status status = open_side(&compare.is, path, err);

    rf_buf_init(&compare.line, 1 << 16);
    if (!status)
        status = open_side(&compare.should, rebuilt_path, err);
    if (!status)
        status = rf_sqlite_live(&compare.should.db, &compare.should.arena, &compare.should.live,
                                err);
    if (!status)
        status = compare_all(&compare, err);
    if (!status)
        status = conclude(&compare, err);
    if (out)
        *out = compare.report;
    rf_buf_release(&compare.line);
    close_side(&compare.is);
    close_side(&compare.should);
    return status;
}

/* ---- digest ---- */

/* Each cell as one byte of type, then its value; texts with their size before them. */
static void hash_cell(struct rf_hasher *hasher, sqlite3_stmt *stmt, int column)
{
    int type = sqlite3_column_type(stmt, column);
    struct rf_bytes text;
    uint8_t head[9] = {(uint8_t)type};
    double real;
    uint64_t bits;

    switch (type) {
    case SQLITE_NULL:
        rf_hasher_update(hasher, head, 1);
        break;
    case SQLITE_INTEGER:
        rf_put_u64(head + 1, (uint64_t)sqlite3_column_int64(stmt, column));
        rf_hasher_update(hasher, head, sizeof head);
        break;
    case SQLITE_FLOAT:
        real = sqlite3_column_double(stmt, column);
        memcpy(&bits, &real, sizeof bits);
        rf_put_u64(head + 1, bits);
        rf_hasher_update(hasher, head, sizeof head);
        break;
    default:
        text = rf_db_bytes(stmt, column);
        rf_put_u64(head + 1, text.size);
        rf_hasher_update(hasher, head, sizeof head);
        rf_hasher_update(hasher, text.data, text.size);
        break;
    }
}

static enum rf_status hash_stream(struct side *side, struct rf_hasher *hasher,
                                  const struct stream *stream, struct rf_error *err)
{
    sqlite3_stmt *stmt = NULL;
    enum rf_status status = rf_db_prepare(&side->db, &stmt, err, "%s", stream->sql);

    rf_hasher_update(hasher, stream->what, strlen(stream->what) + 1);
    while (!status && (status = rf_db_step(&side->db, stmt, err)) == RF_OK)
        for (int i = 0, count = sqlite3_column_count(stmt); i < count; i++)
            hash_cell(hasher, stmt, i);
    sqlite3_finalize(stmt);
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

/* Tables in order of their names: mappers may have come in any order. */
static enum rf_status hash_tables(struct side *side, struct rf_hasher *hasher,
                                  struct rf_error *err)
{
    struct named_table *tables;
    size_t count = 0;
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < side->live.count; i++)
        count += side->live.mappers[i].decl->table_count;
    tables = rf_arena_alloc(&side->arena, (count + 1) * sizeof *tables);
    count = 0;
    for (size_t i = 0; i < side->live.count; i++)
        for (size_t k = 0; k < side->live.mappers[i].decl->table_count; k++)
            tables[count++] = (struct named_table){side->live.mappers[i].decl,
                                                   &side->live.mappers[i].decl->tables[k]};
    qsort(tables, count, sizeof *tables, by_table_name);
    for (size_t i = 0; !status && i < count; i++) {
        char *sql = table_sql(tables[i].decl, tables[i].table);
        struct stream stream = {tables[i].table->name, 2, sql};
        status = hash_stream(side, hasher, &stream, err);
        sqlite3_free(sql);
        /* Rows of no item, which a sound index has none of. */
        sql = sqlite3_mprintf("SELECT n FROM \"%w\" WHERE blob NOT IN (SELECT id FROM blobs) "
                              "ORDER BY n",
                              tables[i].table->name);
        stream.sql = sql;
        if (!status)
            status = hash_stream(side, hasher, &stream, err);
        sqlite3_free(sql);
    }
    return status;
}

enum rf_status rf_sqlite_digest(const char *path, char out[65], struct rf_error *err)
{
    struct side side = {0};
    struct side *sides[] = {&side};
    struct rf_hasher *hasher = rf_hasher_new();
    struct rf_blobref ref;
    char text[RF_BLOBREF_SIZE];
    enum rf_status status = open_side(&side, path, err);

    if (!status)
        status = rf_sqlite_live(&side.db, &side.arena, &side.live, err);
    if (!status)
        status = leave_out(sides, 1, err);
    /* Where the lane stands, and in which store, is not part of what it holds. */
    for (size_t i = DIGEST_FROM; !status && i < FIXED_COUNT; i++)
        status = hash_stream(&side, hasher, &fixed_streams[i], err);
    if (!status)
        status = hash_tables(&side, hasher, err);
    if (!status) {
        rf_hasher_finish(hasher, &ref);
        rf_blobref_format(&ref, text);
        memcpy(out, strchr(text, '-') + 1, 65);
    }
    rf_hasher_free(hasher);
    close_side(&side);
    return status;
}
