/*
 * sqlite_checks.c - what must hold in an index in SQLite beside its canonical rows
 *
 * The full-text index holds tokens of rows by surrogate id, so it is compared with the rows of its
 * own index: per row, a sum over hash(token, column, offset), counted up from the text by FTS5's
 * own tokenizer and down from what fts5vocab finds in the index.
 */
#include "sinks/sink_sqlite.h"

#include "core/control.h"
#include "sinks/grams.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#define SPAN_MAX (4u << 20)    /* rows whose sums are kept at a time: 32 MiB */
#define TOKEN_MAX 32768        /* FTS5_MAX_TOKEN_SIZE of fts5Int.h: longer ones are cut */
#define INTEGRITY_MAX 100      /* lines of integrity_check */

struct teller {
    struct rf_db *db;
    rf_canon_tell tell;
    void *user;
    enum rf_canon_mend mend;
};

static void say(struct teller *teller, const char *format, ...) RF_PRINTF(2, 3);
static void say(struct teller *teller, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    teller->tell(teller->user, teller->mend, text);
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
    struct rf_buf sizes; /* of that row: tokens by column, as FTS5 keeps them */
};

/* Sizes of a row are tokens by column as varints (fts5_varint.c); "docsize" beside the tokens. */
#define SIZES_COLUMN UINT32_MAX

static void put_varint(struct rf_buf *out, unsigned value)
{
    uint8_t bytes[5];
    size_t at = sizeof bytes;

    bytes[--at] = value & 0x7f;
    for (value >>= 7; value; value >>= 7)
        bytes[--at] = (uint8_t)(value & 0x7f) | 0x80;
    rf_buf_put(out, bytes + at, sizeof bytes - at);
}

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
    put_varint(&check->sizes, check->offset);
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
        bool any = false; /* a row whose texts are all null has no entry */

        check->id = sqlite3_column_int64(stmt, 0);
        rf_buf_clear(&check->grams);
        rf_buf_clear(&check->sizes);
        for (size_t i = 0; i < count; i++) {
            struct rf_bytes text = rf_db_bytes(stmt, (int)i + 1);
            any |= sqlite3_column_type(stmt, (int)i + 1) != SQLITE_NULL;
            count_text(check, (unsigned)i, text);
            rf_grams_put(&check->grams, text);
        }
        count_text(check, (unsigned)count, rf_buf_bytes(&check->grams));
        if (any)
            check->sums[check->id - check->first] +=
                token_hash(check->sizes.data, check->sizes.size, check->id, SIZES_COLUMN, 0);
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

/* Take away the sizes that the index keeps: without them a row cannot be ranked. */
static enum rf_status count_sizes(struct fts_check *check, struct rf_error *err)
{
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    status = rf_db_prepare(check->db, &stmt, err,
                           "SELECT id, sz FROM \"%w_fts_docsize\" WHERE id >= %lld AND id < %lld",
                           check->table->name, (long long)check->first,
                           (long long)(check->first + check->count));
    while (!status && (status = rf_db_step(check->db, stmt, err)) == RF_OK) {
        int64_t id = sqlite3_column_int64(stmt, 0);
        struct rf_bytes sizes = rf_db_bytes(stmt, 1);

        check->sums[id - check->first] -=
            token_hash(sizes.data, sizes.size, id, SIZES_COLUMN, 0);
    }
    sqlite3_finalize(stmt);
    return status == RF_END ? RF_OK : status;
}

static enum rf_status name_rows(struct teller *teller, struct fts_check *check,
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
            say(teller,
                "table '%s', item '%s', n %lld: its full-text entry is not that of its text",
                check->table->name, rf_db_text(stmt, 0),
                (long long)sqlite3_column_int64(stmt, 1));
        else if (status == RF_END)
            say(teller, "table '%s': a full-text entry belongs to row %" PRId64 ", which is not "
                         "there",
                check->table->name, check->first + i);
        sqlite3_reset(stmt);
        if (status == RF_END)
            status = RF_OK;
    }
    sqlite3_finalize(stmt);
    return status;
}

static enum rf_status check_range(struct teller *teller, struct fts_check *check,
                                  uint64_t *stray, struct rf_error *err)
{
    enum rf_status status;

    assert(check->sums);
    memset(check->sums, 0, (size_t)check->count * sizeof *check->sums);
    status = count_rows(check, err);
    if (!status)
        status = count_index(check, stray, err);
    if (!status)
        status = count_sizes(check, err);
    return status ? status : name_rows(teller, check, err);
}

enum rf_status rf_sqlite_check_search(struct rf_db *db, const struct rf_table *table,
                                      rf_canon_tell tell, void *user, struct rf_error *err)
{
    struct teller teller = {db, tell, user, RF_MEND_REBUILD};
    struct fts_check check = {.db = db, .table = table, .first = 1};
    uint64_t stray = 0;
    int64_t rows, entries;
    enum rf_status status = find_tokenizer(&check, err);

    rf_buf_init(&check.grams, RF_GRAMS_MAX);
    rf_buf_init(&check.sizes, 4096);
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
            status = check_range(&teller, &check, check.first == 1 ? &stray : &(uint64_t){0}, err);
    }
    if (!status && stray)
        say(&teller, "table '%s': %" PRIu64 " full-text token%s of no row", table->name, stray,
            stray == 1 ? "" : "s");
    free(check.sums);
    if (check.tokenizer)
        check.api.xDelete(check.tokenizer);
    rf_buf_release(&check.grams);
    rf_buf_release(&check.sizes);
    return status;
}

/* ---- what must hold in any index ---- */

static enum rf_status check_integrity(struct teller *teller, struct rf_error *err)
{
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    status = rf_db_prepare(teller->db, &stmt, err, "PRAGMA integrity_check(%d)",
                           INTEGRITY_MAX);
    while (!status && (status = rf_db_step(teller->db, stmt, err)) == RF_OK)
        if (strcmp(rf_db_text(stmt, 0), "ok") != 0)
            say(teller, "file '%s': %s", teller->db->path, rf_db_text(stmt, 0));
    sqlite3_finalize(stmt);
    return status == RF_END ? RF_OK : status;
}

/* Rows that point at an item, lane or mapper that is not there. */
static enum rf_status check_references(struct teller *teller, struct rf_error *err)
{
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    status = rf_db_prepare(teller->db, &stmt, err, "PRAGMA main.foreign_key_check");
    while (!status && (status = rf_db_step(teller->db, stmt, err)) == RF_OK) {
        if (sqlite3_column_type(stmt, 1) == SQLITE_NULL)
            say(teller, "table '%s': a row points at a row of '%s' that is not there",
                rf_db_text(stmt, 0), rf_db_text(stmt, 2));
        else
            say(teller, "table '%s': row %lld points at a row of '%s' that is not there",
                rf_db_text(stmt, 0), (long long)sqlite3_column_int64(stmt, 1),
                rf_db_text(stmt, 2));
    }
    sqlite3_finalize(stmt);
    return status == RF_END ? RF_OK : status;
}

static enum rf_status check_lanes(struct teller *teller, struct rf_error *err)
{
    int64_t live, tables;
    enum rf_status status;

    status = rf_db_int(teller->db, &live, 0, err,
                       "SELECT count(*) FROM refuge_lanes WHERE state = 'live'");
    if (!status && live != 1)
        say(teller, "lanes: %" PRId64 " are live, should be 1", live);
    if (!status)
        status = rf_db_int(teller->db, &tables, 0, err,
                           "SELECT count(*) FROM refuge_tables x JOIN temp.live l ON l.id = "
                           "x.mapper WHERE NOT EXISTS (SELECT 1 FROM sqlite_master s WHERE s.type "
                           "= 'table' AND s.name = x.name)");
    if (!status && tables)
        say(teller, "lanes: %" PRId64 " tables of live mappers are not there", tables);
    return status;
}

/* The tables, views and indexes of an index, made anew in memory from what its mappers declare. */
static enum rf_status make_expected(struct rf_db *db, struct rf_db *fresh, struct rf_error *err)
{
    struct rf_sqlite_live live = {0};
    struct rf_arena arena;
    enum rf_status status;

    rf_arena_init(&arena, (size_t)256 << 20);
    status = rf_sqlite_live(db, &arena, &live, err);
    if (!status)
        status = rf_sqlite_make_schema(fresh, err);
    for (size_t i = 0; i < live.count && !status; i++)
        for (size_t k = 0; k < live.mappers[i].decl->table_count && !status; k++)
            status = rf_sqlite_make_table(fresh, &live.mappers[i].decl->tables[k], 0, true,
                                          1 << 16, err);
    rf_arena_release(&arena);
    return status;
}

/* An index is named after the lane that its table was made in; here all are of lane 0. */
#define PLAIN_SQL                                                                                 \
    "CASE WHEN type = 'index' AND instr(name, '@') THEN replace(sql, substr(name, instr(name, "   \
    "'@'), instr(substr(name, instr(name, '@')), ' index ') - 1), '@0') ELSE sql END"

/* What refuge made and searches rely on: a view that says something else answers wrongly, an index
 * that is missing answers slowly, a trigger changes rows. What a person added besides may stay. */
static enum rf_status check_objects(struct teller *teller, struct rf_error *err)
{
    struct rf_db fresh = {.path = teller->db->path};
    sqlite3_stmt *expected = NULL, *found = NULL;
    enum rf_status status = RF_OK;

    if (sqlite3_open(":memory:", &fresh.handle) != SQLITE_OK)
        status = rf_error_set(err, RF_NOMEM, "no memory to make its tables anew");
    if (!status)
        status = make_expected(teller->db, &fresh, err);
    if (!status)
        status = rf_db_prepare(&fresh, &expected, err,
                               "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL "
                               "AND name NOT GLOB '*_fts_*' ORDER BY type, name");
    if (!status)
        status = rf_db_prepare(teller->db, &found, err,
                               "SELECT count(*) FROM sqlite_master WHERE type = ?1 AND "
                               "(type = 'index' OR name = ?2) AND (" PLAIN_SQL ") = ?3");
    while (!status && (status = rf_db_step(&fresh, expected, err)) == RF_OK) {
        const char *type = rf_db_text(expected, 0), *name = rf_db_text(expected, 1);

        rf_db_bind(found, "ttt", type, name, rf_db_text(expected, 2));
        status = rf_db_step(teller->db, found, err);
        if (!status && sqlite3_column_int64(found, 0) == 0)
            say(teller, "%s '%s': it is not there as refuge makes it", type, name);
        sqlite3_reset(found);
    }
    sqlite3_finalize(expected);
    sqlite3_finalize(found);
    (void)sqlite3_close(fresh.handle);
    return status == RF_END ? RF_OK : status;
}

static enum rf_status check_triggers(struct teller *teller, struct rf_error *err)
{
    sqlite3_stmt *stmt = NULL;
    enum rf_status status = rf_db_prepare(teller->db, &stmt, err,
                                          "SELECT name, tbl_name FROM sqlite_master WHERE type = "
                                          "'trigger' ORDER BY name");

    while (!status && (status = rf_db_step(teller->db, stmt, err)) == RF_OK)
        say(teller, "trigger '%s' on '%s': refuge makes none; it may change what is written",
            rf_db_text(stmt, 0), rf_db_text(stmt, 1));
    sqlite3_finalize(stmt);
    return status == RF_END ? RF_OK : status;
}

/* A check that cannot be made tells of damage as well. */
static void tell_broken(struct teller *teller, const char *what, enum rf_status status,
                        const struct rf_error *broken)
{
    if (status)
        say(teller, "%s: cannot be checked: %.400s", what, broken->message);
}

void rf_sqlite_check(struct rf_db *db, rf_canon_tell tell, void *user)
{
    struct teller teller = {db, tell, user, RF_MEND_ANEW};
    struct rf_error broken[5] = {0};

    tell_broken(&teller, "lanes", check_lanes(&teller, &broken[0]), &broken[0]);
    tell_broken(&teller, "references", check_references(&teller, &broken[1]), &broken[1]);
    if (RF_SAFEGUARD("compare-objects")) {
        tell_broken(&teller, "tables", check_objects(&teller, &broken[3]), &broken[3]);
        tell_broken(&teller, "triggers", check_triggers(&teller, &broken[4]), &broken[4]);
    }
    tell_broken(&teller, "file", check_integrity(&teller, &broken[2]), &broken[2]);
}
