/*
 * sqlite_write.c - one batch: items in, rows out, all in one transaction
 *
 * Order within an item: its row of `blobs`, then per mapper what it had is removed and what it has
 * now is written: rows with their full-text rows, edges with the rows of `blobs` of their children,
 * needs, cuts, or else one dead letter or park. Nothing is removed for an item above the mapper's
 * `top` (it has nothing), so a first fill only inserts.
 *
 * An edge that goes puts its child into temp.refuge_orphans; at commit those no edge of the lane
 * reaches lose all the lane has of them, which may put their children there in turn. Each round
 * deletes edges, so it ends, whatever the graph.
 *
 * No savepoints: FTS5 would flush its buffer at each. A row that SQLite refuses undoes only its own
 * statement; what the call had stored before it is removed again and a dead letter takes its place.
 * Any other failure rolls the batch back.
 */
#include "sinks/sink_sqlite.h"

#include "core/control.h"
#include "sinks/grams.h"

#include <assert.h>
#include <stdio.h>
#include <time.h>

static const char *const statements[RF_STMT_COUNT] = {
    [RF_STMT_BLOB_INSERT] = "INSERT INTO blobs(item, kind, size, ts, seq, name, mtime, mapped_at) "
                            "VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
    [RF_STMT_BLOB_FIND] = "SELECT id, seq, deleted, mapped_at FROM blobs WHERE item = ?1",
    [RF_STMT_BLOB_UPDATE] = "UPDATE blobs SET kind = ?2, size = ?3, ts = ?4, seq = ?5, name = ?6, "
                            "mtime = ?7, mapped_at = coalesce(?8, mapped_at), deleted = 0 "
                            "WHERE id = ?1",
    [RF_STMT_BLOB_TOMBSTONE] = "UPDATE blobs SET deleted = 1, seq = ?2, ts = ?3 WHERE id = ?1",
    [RF_STMT_BLOB_DELETE] = "DELETE FROM blobs WHERE id = ?1 AND kind = 'part'",
    [RF_STMT_PART_INSERT] = "INSERT INTO blobs(item, kind, size, seq, mapped_at) "
                            "VALUES(?1, 'part', ?2, 0, ?3) ON CONFLICT DO NOTHING",
    [RF_STMT_PART_REACHED] = "SELECT 1 FROM refuge_parts WHERE child = ?1 AND mapper = ?2",
    [RF_STMT_EDGE_INSERT] = "INSERT INTO refuge_parts(mapper, parent, n, child, name, offset, "
                            "size) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [RF_STMT_EDGE_FORGET] = "INSERT OR IGNORE INTO temp.refuge_orphans SELECT child FROM "
                            "refuge_parts WHERE mapper = ?1 AND parent = ?2",
    [RF_STMT_EDGE_DELETE] = "DELETE FROM refuge_parts WHERE mapper = ?1 AND parent = ?2",
    [RF_STMT_NEED_INSERT] = "INSERT INTO refuge_needs(mapper, blob, n, ref, present) "
                            "VALUES(?1, ?2, ?3, ?4, ?5)",
    [RF_STMT_NEED_DELETE] = "DELETE FROM refuge_needs WHERE mapper = ?1 AND blob = ?2",
    [RF_STMT_NEED_CUT] = "DELETE FROM refuge_needs WHERE mapper = ?1 AND blob = ?2 AND n > ?3",
    [RF_STMT_NEED_MISSING] = "UPDATE refuge_needs SET present = 0 WHERE mapper = ?1 AND "
                             "blob = ?2 AND n = ?3",
    [RF_STMT_NEED_DEPENDANT] = "SELECT blob, min(n) FROM refuge_needs WHERE ref = ?1 AND "
                               "present = 1 AND mapper = ?2 GROUP BY blob LIMIT 1",
    [RF_STMT_WAITING_AT_ALL] = "SELECT 1 FROM refuge_needs WHERE present = 0 LIMIT 1",
    [RF_STMT_WAITING] = "SELECT DISTINCT mapper, blob FROM refuge_needs WHERE ref = ?1 AND "
                        "present = 0",
    [RF_STMT_PARK_INSERT] = "INSERT INTO refuge_parks(mapper, blob, kind, reason, attempts, at) "
                            "VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    [RF_STMT_PARK_DELETE] = "DELETE FROM refuge_parks WHERE mapper = ?1 AND blob = ?2",
    [RF_STMT_PARK_READY] = "UPDATE refuge_parks SET kind = 'ready' WHERE mapper = ?1 AND blob = ?2 "
                           "AND kind <> 'slow'",
    [RF_STMT_PARK_WAITS] = "SELECT attempts FROM refuge_parks WHERE mapper = ?1 AND "
                           "blob = ?2 AND kind <> 'need'",
    [RF_STMT_LETTER_INSERT] = "INSERT INTO refuge_dead_letters(mapper, blob, class, reason, "
                              "attempts, at) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    [RF_STMT_LETTER_DELETE] = "DELETE FROM refuge_dead_letters WHERE mapper = ?1 AND blob = ?2",
    [RF_STMT_CUT_INSERT] = "INSERT INTO refuge_cuts(mapper, blob, n, \"table\", \"column\", kind) "
                           "VALUES(?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
    [RF_STMT_CUT_DELETE] = "DELETE FROM refuge_cuts WHERE mapper = ?1 AND blob = ?2",
    [RF_STMT_ORPHAN_NEXT] = "SELECT id FROM temp.refuge_orphans LIMIT 1",
    [RF_STMT_ORPHAN_DELETE] = "DELETE FROM temp.refuge_orphans WHERE id = ?1",
    [RF_STMT_REACHED_AT_ALL] = "SELECT 1 FROM refuge_parts WHERE child = ?1",
    [RF_STMT_POSITION] = "UPDATE refuge_lanes SET position = ?2, writer = ?3 "
                         "WHERE id = ?1 AND position = ?4",
};

static const char *const item_kinds[] = {
    [RF_SINK_BLOB] = "blob", [RF_SINK_FILE] = "file", [RF_SINK_PART] = "part"};
static const char *const dead_classes[] = {[RF_DEAD_MAPPER] = "mapper",
                                           [RF_DEAD_LIMIT] = "limit",
                                           [RF_DEAD_BLOB] = "blob",
                                           [RF_DEAD_SINK] = "sink"};
static const char *const cut_names[RF_CUT_COUNT] = {[RF_CUT_UTF8] = "utf8",
                                                    [RF_CUT_NUL] = "nul",
                                                    [RF_CUT_LONG] = "long",
                                                    [RF_CUT_YEAR] = "year",
                                                    [RF_CUT_FLOAT] = "float"};

static struct rf_sqlite *of(struct rf_sink *sink)
{
    return (struct rf_sqlite *)sink;
}

void rf_sqlite_now(char out[RF_TIME_TEXT_SIZE])
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    rf_time_format((int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000, out);
}

enum rf_status rf_sqlite_stmt(struct rf_sqlite *sink, enum rf_sqlite_stmt which,
                              sqlite3_stmt **out, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    if (!sink->stmts[which])
        status = rf_db_prepare(&sink->db, &sink->stmts[which], err, "%s", statements[which]);
    *out = sink->stmts[which];
    return status;
}

/* Run a fixed statement on (mapper, blob). */
static enum rf_status run_on(struct rf_sqlite *sink, enum rf_sqlite_stmt which, int64_t mapper,
                             int64_t blob, struct rf_error *err)
{
    sqlite3_stmt *stmt;
    enum rf_status status = rf_sqlite_stmt(sink, which, &stmt, err);

    if (status)
        return status;
    rf_db_bind(stmt, "ii", mapper, blob);
    return rf_db_run(&sink->db, stmt, err);
}

/* Whether a fixed statement on two numbers (or one: second 0) finds a row. */
static enum rf_status exists(struct rf_sqlite *sink, enum rf_sqlite_stmt which, int64_t first,
                             int64_t second, bool *out, struct rf_error *err)
{
    sqlite3_stmt *stmt;
    enum rf_status status = rf_sqlite_stmt(sink, which, &stmt, err);

    if (status)
        return status;
    rf_db_bind(stmt, second ? "ii" : "i", first, second);
    status = rf_db_step(&sink->db, stmt, err);
    if (status && status != RF_END)
        return status;
    *out = status == RF_OK;
    sqlite3_reset(stmt);
    return RF_OK;
}

static void touch(struct rf_sqlite_mapper *mapper, int64_t blob)
{
    if (blob > mapper->top)
        mapper->top = blob;
}

/* ---- statements of a mapper table ---- */

static enum rf_status prepare_insert(struct rf_sqlite *sink, struct rf_sqlite_table *table,
                                     struct rf_error *err)
{
    struct rf_buf sql;
    enum rf_status status;
    size_t values = 2;

    rf_buf_init(&sql, 1 << 20);
    rf_buf_printf(&sql, "INSERT INTO \"%s\"(blob, n", table->name);
    for (size_t i = 0; i < table->decl->column_count; i++) {
        const struct rf_column *column = &table->decl->columns[i];
        rf_buf_printf(&sql, ", \"%s\"", column->name);
        values++;
        if (column->type == RF_TYPE_TIME) {
            rf_buf_printf(&sql, ", \"%s_offset\"", column->name);
            values++;
        }
    }
    rf_buf_put_text(&sql, ") VALUES(?1");
    for (size_t i = 2; i <= values; i++)
        rf_buf_printf(&sql, ", ?%zu", i);
    rf_buf_put_text(&sql, ")");
    status = rf_db_prepare(&sink->db, &table->insert, err, "%s", rf_buf_text(&sql));
    rf_buf_release(&sql);
    return status;
}

static void put_search_columns(struct rf_buf *sql, const struct rf_table *table)
{
    for (size_t i = 0; i < table->column_count; i++)
        if (table->columns[i].search)
            rf_buf_printf(sql, ", \"%s\"", table->columns[i].name);
}

/* Parameters: 1 rowid, then the search columns, then grams. */
static enum rf_status prepare_fts(struct rf_sqlite *sink, struct rf_sqlite_table *table,
                                  bool removal, sqlite3_stmt **out, struct rf_error *err)
{
    struct rf_buf sql;
    enum rf_status status;

    rf_buf_init(&sql, 1 << 20);
    rf_buf_printf(&sql, "INSERT INTO \"%s\"(", table->fts);
    if (removal)
        rf_buf_printf(&sql, "\"%s\", ", table->fts);
    rf_buf_put_text(&sql, "rowid");
    put_search_columns(&sql, table->decl);
    rf_buf_printf(&sql, ", grams) VALUES(%s?1", removal ? "'delete', " : "");
    for (size_t i = 0; i <= table->search_count; i++)
        rf_buf_printf(&sql, ", ?%zu", i + 2);
    rf_buf_put_text(&sql, ")");
    status = rf_db_prepare(&sink->db, out, err, "%s", rf_buf_text(&sql));
    rf_buf_release(&sql);
    return status;
}

static enum rf_status prepare_select(struct rf_sqlite *sink, struct rf_sqlite_table *table,
                                     struct rf_error *err)
{
    struct rf_buf sql;
    enum rf_status status;

    rf_buf_init(&sql, 1 << 20);
    rf_buf_put_text(&sql, "SELECT id");
    put_search_columns(&sql, table->decl);
    rf_buf_printf(&sql, " FROM \"%s\" WHERE blob = ?1", table->name);
    status = rf_db_prepare(&sink->db, &table->select, err, "%s", rf_buf_text(&sql));
    rf_buf_release(&sql);
    return status;
}

/* ---- the full-text row ---- */

/* Bind grams of the texts behind them; false when every text is null: no full-text row then. */
static bool bind_fts(struct rf_sqlite *sink, const struct rf_sqlite_table *table,
                     sqlite3_stmt *stmt, int64_t id)
{
    const struct rf_bytes *texts = table->texts;
    bool any = false;

    rf_buf_clear(&sink->grams);
    sqlite3_bind_int64(stmt, 1, id);
    for (size_t i = 0; i < table->search_count; i++) {
        any |= texts[i].data != NULL;
        sqlite3_bind_text64(stmt, (int)i + 2, (const char *)texts[i].data, texts[i].size,
                            SQLITE_STATIC, SQLITE_UTF8);
        if (texts[i].data)
            rf_grams_put(&sink->grams, texts[i]);
    }
    if (sink->grams.size)
        sqlite3_bind_text64(stmt, (int)table->search_count + 2, (const char *)sink->grams.data,
                            sink->grams.size, SQLITE_STATIC, SQLITE_UTF8);
    else
        sqlite3_bind_null(stmt, (int)table->search_count + 2);
    return any;
}

/* Take the full-text entry of the row that table->select stands on out of the index. FTS5 must be
 * given exactly what it was given when the row was made. */
static enum rf_status remove_fts_row(struct rf_sqlite *sink, struct rf_sqlite_table *table,
                                     struct rf_error *err)
{
    for (size_t i = 0; i < table->search_count; i++) {
        const void *text = sqlite3_column_text(table->select, (int)i + 1);
        /* An empty text comes back as a pointer; only null is NULL. */
        table->texts[i] = rf_bytes(text, (size_t)sqlite3_column_bytes(table->select, (int)i + 1));
    }
    if (!bind_fts(sink, table, table->fts_delete, sqlite3_column_int64(table->select, 0)))
        return RF_OK;
    return rf_db_run(&sink->db, table->fts_delete, err);
}

static enum rf_status remove_fts_rows(struct rf_sqlite *sink, struct rf_sqlite_table *table,
                                      int64_t blob, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    if (!table->select)
        status = prepare_select(sink, table, err);
    if (!status && !table->fts_delete)
        status = prepare_fts(sink, table, true, &table->fts_delete, err);
    if (status)
        return status;
    rf_db_bind(table->select, "i", blob);
    while ((status = rf_db_step(&sink->db, table->select, err)) == RF_OK) {
        status = remove_fts_row(sink, table, err);
        if (status)
            break;
    }
    sqlite3_reset(table->select);
    return status == RF_END ? RF_OK : status;
}

static enum rf_status remove_rows(struct rf_sqlite *sink, struct rf_sqlite_mapper *mapper,
                                  int64_t blob, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && !mapper->edges_only && i < mapper->decl->table_count; i++) {
        struct rf_sqlite_table *table = &mapper->tables[i];
        if (table->fts)
            status = remove_fts_rows(sink, table, blob, err);
        if (!status && !table->remove)
            status = rf_db_prepare(&sink->db, &table->remove, err,
                                   "DELETE FROM \"%w\" WHERE blob = ?1", table->name);
        if (status)
            return status;
        rf_db_bind(table->remove, "i", blob);
        status = rf_db_run(&sink->db, table->remove, err);
    }
    return status;
}

static enum rf_status remove_edges(struct rf_sqlite *sink, struct rf_sqlite_mapper *mapper,
                                   int64_t blob, struct rf_error *err)
{
    enum rf_status status;

    if (!mapper->has_edges)
        return RF_OK;
    status = run_on(sink, RF_STMT_EDGE_FORGET, mapper->id, blob, err);
    if (!status)
        status = run_on(sink, RF_STMT_EDGE_DELETE, mapper->id, blob, err);
    if (!status && sqlite3_changes(sink->db.handle))
        sink->orphans = true;
    return status;
}

/* Remove all that a mapper has of an item. */
static enum rf_status unmap(struct rf_sqlite *sink, struct rf_sqlite_mapper *mapper, int64_t blob,
                            struct rf_error *err)
{
    enum rf_status status;

    if (blob > mapper->top)
        return RF_OK;
    status = remove_rows(sink, mapper, blob, err);
    if (!status)
        status = remove_edges(sink, mapper, blob, err);
    if (!status)
        status = run_on(sink, RF_STMT_NEED_DELETE, mapper->id, blob, err);
    if (!status)
        status = run_on(sink, RF_STMT_PARK_DELETE, mapper->id, blob, err);
    if (!status)
        status = run_on(sink, RF_STMT_LETTER_DELETE, mapper->id, blob, err);
    if (!status)
        status = run_on(sink, RF_STMT_CUT_DELETE, mapper->id, blob, err);
    return status;
}

/* ---- rows ---- */

static void bind_value(sqlite3_stmt *stmt, int *at, const struct rf_value *value,
                       enum rf_type declared, char scratch[RF_BLOBREF_SIZE])
{
    int i = (*at)++;

    switch (value->type) {
    case RF_TYPE_INT:
        sqlite3_bind_int64(stmt, i, value->integer);
        break;
    case RF_TYPE_BOOL:
        sqlite3_bind_int(stmt, i, value->boolean);
        break;
    case RF_TYPE_FLOAT:
        sqlite3_bind_double(stmt, i, value->real);
        break;
    case RF_TYPE_TEXT:
    case RF_TYPE_JSON:
        /* SQLite takes a null pointer for null; an empty text has somewhere to point. */
        sqlite3_bind_text64(stmt, i, value->text.data ? (const char *)value->text.data : "",
                            value->text.size, SQLITE_STATIC, SQLITE_UTF8);
        break;
    case RF_TYPE_TIME:
        rf_time_format(value->integer, scratch);
        sqlite3_bind_text(stmt, i, scratch, -1, SQLITE_STATIC);
        break;
    case RF_TYPE_BLOBREF:
        rf_blobref_format(&value->ref, scratch);
        sqlite3_bind_text(stmt, i, scratch, -1, SQLITE_STATIC);
        break;
    default:
        sqlite3_bind_null(stmt, i);
        break;
    }
    if (declared != RF_TYPE_TIME)
        return;
    i = (*at)++;
    if (value->type == RF_TYPE_TIME && value->offset_minutes != RF_OFFSET_UNKNOWN)
        sqlite3_bind_int(stmt, i, value->offset_minutes);
    else
        sqlite3_bind_null(stmt, i);
}

static void bind_row(const struct rf_sqlite_table *table, int64_t blob, uint32_t n,
                     const struct rf_record *record)
{
    static const struct rf_value null = {0};
    sqlite3_stmt *stmt = table->insert;
    size_t searched = 0;
    int at = 3;

    sqlite3_bind_int64(stmt, 1, blob);
    sqlite3_bind_int64(stmt, 2, n);
    for (size_t i = 0; i < table->decl->column_count; i++) {
        const struct rf_column *column = &table->decl->columns[i];
        const struct rf_value *value = i < record->column_count ? &record->values[i] : &null;
        bind_value(stmt, &at, value, column->type, table->scratch[i]);
        if (column->search)
            table->texts[searched++] =
                value->type != RF_TYPE_TEXT ? rf_bytes(NULL, 0)
                : value->text.data          ? value->text
                                            : rf_bytes("", 0);
    }
}

/* A row that this table will never take, as against a failure of the database. */
static bool is_refusal(struct rf_sqlite *sink, int code)
{
    int primary = code & 0xff;

    return (primary == SQLITE_CONSTRAINT || primary == SQLITE_TOOBIG ||
            primary == SQLITE_MISMATCH) &&
           !sqlite3_get_autocommit(sink->db.handle) && RF_SAFEGUARD("sink-refusal");
}

/* Step and reset; *refused with its reason when the row itself was at fault. */
static enum rf_status step_row(struct rf_sqlite *sink, sqlite3_stmt *stmt, bool *refused,
                               char *reason, size_t reason_size, struct rf_error *err)
{
    int code = sqlite3_step(stmt);
    enum rf_status status = RF_OK;

    if (code != SQLITE_DONE && is_refusal(sink, code)) {
        *refused = true;
        snprintf(reason, reason_size, "%s", sqlite3_errmsg(sink->db.handle));
    } else if (code != SQLITE_DONE) {
        status = rf_db_fail(&sink->db, code, err);
    }
    sqlite3_reset(stmt);
    return status;
}

static enum rf_status insert_row(struct rf_sqlite *sink, struct rf_sqlite_table *table,
                                 int64_t blob, uint32_t n, const struct rf_record *record,
                                 bool *refused, char *reason, size_t reason_size,
                                 struct rf_error *err)
{
    int64_t id;
    enum rf_status status = RF_OK;

    if (!table->insert)
        status = prepare_insert(sink, table, err);
    if (!status && table->fts && !table->fts_insert)
        status = prepare_fts(sink, table, false, &table->fts_insert, err);
    if (status)
        return status;
    bind_row(table, blob, n, record);
    status = step_row(sink, table->insert, refused, reason, reason_size, err);
    if (status || *refused || !table->fts)
        return status;
    id = sqlite3_last_insert_rowid(sink->db.handle);
    if (!bind_fts(sink, table, table->fts_insert, id))
        return RF_OK;
    status = step_row(sink, table->fts_insert, refused, reason, reason_size, err);
    /* A row whose full-text entry is not there must not be left for unmap to take it out. */
    if (!status && *refused)
        status = rf_db_exec(&sink->db, err, "DELETE FROM \"%w\" WHERE id = %lld", table->name,
                            (long long)id);
    return status;
}

static enum rf_status insert_cut(struct rf_sqlite *sink, const struct rf_sqlite_mapper *mapper,
                                 int64_t blob, const struct rf_record *record,
                                 struct rf_error *err)
{
    const struct rf_table *table = &mapper->decl->tables[record->table];
    sqlite3_stmt *stmt;
    enum rf_status status = rf_sqlite_stmt(sink, RF_STMT_CUT_INSERT, &stmt, err);

    if (status)
        return status;
    rf_db_bind(stmt, "iiittt", mapper->id, blob, (int64_t)record->row, table->name,
               table->columns[record->column].name, cut_names[record->cut]);
    return rf_db_run(&sink->db, stmt, err);
}

/* All rows and cuts of a call. *refused: the table does not take one of them; those before it are
 * still there. */
static enum rf_status insert_rows(struct rf_sqlite *sink, struct rf_sqlite_mapper *mapper,
                                  int64_t blob, const struct rf_sink_call *call, bool *refused,
                                  char *reason, size_t reason_size, struct rf_error *err)
{
    struct rf_output_reader reader;
    struct rf_error bad = {0};
    struct rf_record record;
    uint32_t n = 0;
    enum rf_status status = RF_OK;

    rf_output_init(&reader, call->output, mapper->decl, UINT64_MAX);
    while (!status && !*refused &&
           (status = rf_output_next(&reader, &record, &bad)) == RF_OK) {
        if (record.kind == RF_RECORD_ROW) {
            struct rf_sqlite_table *table = &mapper->tables[record.table];
            char words[256];
            touch(mapper, blob);
            status = insert_row(sink, table, blob, n, &record, refused, words, sizeof words, err);
            if (*refused)
                snprintf(reason, reason_size, "row %u was refused by table '%s': %s", (unsigned)n,
                         table->decl->name, words);
            n++;
        } else if (record.kind == RF_RECORD_CUT) {
            touch(mapper, blob);
            status = insert_cut(sink, mapper, blob, &record, err);
        }
    }
    rf_output_release(&reader);
    if (status == RF_END || !bad.status)
        return status == RF_END ? RF_OK : status;
    if (status == RF_NOMEM)
        return rf_error_set(err, status, "%s", bad.message);
    /* Output that was not checked: the call is at fault, not the batch. */
    *refused = true;
    snprintf(reason, reason_size, "output is damaged: %.400s", bad.message);
    return RF_OK;
}

/* ---- parts, needs, letters, parks ---- */

static enum rf_status find_item(struct rf_sqlite *sink, const char *key, sqlite3_stmt **out,
                                bool *found, struct rf_error *err)
{
    enum rf_status status = rf_sqlite_stmt(sink, RF_STMT_BLOB_FIND, out, err);

    if (status)
        return status;
    rf_db_bind(*out, "t", key);
    status = rf_db_step(&sink->db, *out, err);
    *found = status == RF_OK;
    return status == RF_END ? RF_OK : status;
}

static enum rf_status child_id(struct rf_sqlite *sink, const struct rf_sink_part *part,
                               int64_t *out, struct rf_error *err)
{
    sqlite3_stmt *stmt;
    bool found;
    enum rf_status status = rf_sqlite_stmt(sink, RF_STMT_PART_INSERT, &stmt, err);

    if (status)
        return status;
    rf_db_bind(stmt, "tit", part->key, (int64_t)part->size, sink->now);
    status = rf_db_run(&sink->db, stmt, err);
    if (status)
        return status;
    if (sqlite3_changes(sink->db.handle)) {
        *out = sqlite3_last_insert_rowid(sink->db.handle);
        return RF_OK;
    }
    status = find_item(sink, part->key, &stmt, &found, err);
    if (!status && found)
        *out = sqlite3_column_int64(stmt, 0);
    else if (!status)
        status = rf_db_damaged(&sink->db, err, "item '%s' cannot be found", part->key);
    sqlite3_reset(stmt);
    return status;
}

static enum rf_status insert_edges(struct rf_sqlite *sink, struct rf_sqlite_mapper *mapper,
                                   int64_t blob, const struct rf_sink_part *parts, size_t count,
                                   struct rf_error *err)
{
    sqlite3_stmt *stmt;
    enum rf_status status = RF_OK;

    if (count) {
        touch(mapper, blob);
        mapper->has_edges = true;
    }
    for (size_t i = 0; !status && i < count; i++) {
        const struct rf_sink_part *part = &parts[i];
        int64_t child = 0;
        status = child_id(sink, part, &child, err);
        if (!status)
            status = rf_sqlite_stmt(sink, RF_STMT_EDGE_INSERT, &stmt, err);
        if (status)
            break;
        rf_db_bind(stmt, "iiiitii", mapper->id, blob, mapper->edges++, child, part->name,
                   (int64_t)part->offset, (int64_t)part->size);
        if (part->inlined)
            sqlite3_bind_null(stmt, 6);
        status = rf_db_run(&sink->db, stmt, err);
    }
    return status;
}

static enum rf_status insert_needs(struct rf_sqlite *sink, struct rf_sqlite_mapper *mapper,
                                   int64_t blob, const struct rf_sink_call *call,
                                   struct rf_error *err)
{
    sqlite3_stmt *stmt;
    char text[RF_BLOBREF_SIZE];
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < call->need_count; i++) {
        touch(mapper, blob);
        status = rf_sqlite_stmt(sink, RF_STMT_NEED_INSERT, &stmt, err);
        if (status)
            break;
        if (!call->needs[i].present)
            sink->waiting = RF_WAITING_SOME;
        rf_blobref_format(&call->needs[i].ref, text);
        rf_db_bind(stmt, "iiiti", mapper->id, blob, (int64_t)i, text,
                   (int64_t)call->needs[i].present);
        status = rf_db_run(&sink->db, stmt, err);
    }
    return status;
}

static enum rf_status set_aside(struct rf_sqlite *sink, enum rf_sqlite_stmt which,
                                struct rf_sqlite_mapper *mapper, int64_t blob, const char *kind,
                                const char *reason, uint32_t attempts, struct rf_error *err)
{
    sqlite3_stmt *stmt;
    enum rf_status status = rf_sqlite_stmt(sink, which, &stmt, err);

    if (status)
        return status;
    touch(mapper, blob);
    rf_db_bind(stmt, "iittit", mapper->id, blob, kind, reason, (int64_t)attempts, sink->now);
    return rf_db_run(&sink->db, stmt, err);
}

static enum rf_status park(struct rf_sqlite *sink, struct rf_sqlite_mapper *mapper, int64_t blob,
                           enum rf_park_kind kind, const char *reason, uint32_t attempts,
                           struct rf_error *err)
{
    return set_aside(sink, RF_STMT_PARK_INSERT, mapper, blob, rf_sqlite_park_names[kind], reason,
                     attempts, err);
}

static enum rf_status write_rows(struct rf_sqlite *sink, struct rf_sqlite_mapper *mapper,
                                 int64_t blob, const struct rf_sink_call *call,
                                 struct rf_error *err)
{
    char reason[512];
    bool refused = false;
    enum rf_status status = RF_OK;

    if (!mapper->edges_only)
        status = insert_rows(sink, mapper, blob, call, &refused, reason, sizeof reason, err);
    if (!status && refused) {
        status = unmap(sink, mapper, blob, err);
        if (!status)
            status = set_aside(sink, RF_STMT_LETTER_INSERT, mapper, blob,
                               dead_classes[RF_DEAD_SINK], reason, call->attempts, err);
        return status;
    }
    mapper->edges_of = blob;
    mapper->edges = 0;
    return status ? status
                  : insert_edges(sink, mapper, blob, call->parts, call->part_count, err);
}

static enum rf_status write_call(struct rf_sqlite *sink, struct rf_sqlite_mapper *mapper,
                                 int64_t blob, const struct rf_sink_call *call,
                                 struct rf_error *err)
{
    enum rf_status status = RF_OK;

    switch (call->outcome) {
    case RF_SINK_ROWS:
        status = write_rows(sink, mapper, blob, call, err);
        break;
    case RF_SINK_NONE:
        break;
    case RF_SINK_DEAD:
        if (!mapper->edges_only)
            status = set_aside(sink, RF_STMT_LETTER_INSERT, mapper, blob,
                               dead_classes[call->dead_class], call->reason, call->attempts, err);
        break;
    case RF_SINK_PARKED_SLOW:
        status = park(sink, mapper, blob, RF_PARK_SLOW, call->reason, call->attempts, err);
        break;
    case RF_SINK_PARKED_NEED:
        status = park(sink, mapper, blob, RF_PARK_NEED, call->reason, call->attempts, err);
        break;
    }
    return status ? status : insert_needs(sink, mapper, blob, call, err);
}

/* ---- the item ---- */

static const char *time_text(int64_t us, char out[RF_TIME_TEXT_SIZE])
{
    if (us == INT64_MIN)
        return NULL;
    if (us < RF_TIME_MIN)
        us = RF_TIME_MIN;
    if (us > RF_TIME_MAX)
        us = RF_TIME_MAX;
    rf_time_format(us, out);
    return out;
}

static enum rf_status reached(struct rf_sqlite *sink, const struct rf_sqlite_lane *lane,
                              int64_t blob, bool *out, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    *out = false;
    for (size_t i = 0; !status && !*out && i < lane->mapper_count; i++)
        if (lane->mappers[i].has_edges)
            status = exists(sink, RF_STMT_PART_REACHED, blob, lane->mappers[i].id, out, err);
    return status;
}

/* Insert the item's row, or find it; *known: it was there, with this sequence. */
static enum rf_status place_item(struct rf_sqlite *sink, const struct rf_sink_item *item,
                                 int64_t *id, bool *stale, struct rf_error *err)
{
    char ts[RF_TIME_TEXT_SIZE], mtime[RF_TIME_TEXT_SIZE];
    const char *ts_text = time_text(item->timestamp_us, ts);
    const char *mtime_text = time_text(item->mtime_us, mtime);
    sqlite3_stmt *stmt;
    int64_t seq;
    bool found, deleted, seen_now;
    enum rf_status status;

    if (item->kind != RF_SINK_PART) {
        status = rf_sqlite_stmt(sink, RF_STMT_BLOB_INSERT, &stmt, err);
        if (status)
            return status;
        rf_db_bind(stmt, "ttitittt", item->key, item_kinds[item->kind], (int64_t)item->size,
                   ts_text, (int64_t)item->seq, item->name, mtime_text, sink->now);
        status = rf_db_run(&sink->db, stmt, err);
        if (status)
            return status;
        if (sqlite3_changes(sink->db.handle)) {
            *id = sqlite3_last_insert_rowid(sink->db.handle);
            return RF_OK;
        }
    }
    status = find_item(sink, item->key, &stmt, &found, err);
    if (status)
        return status;
    if (!found) { /* a part that no edge ever named */
        *stale = true;
        return RF_OK;
    }
    *id = sqlite3_column_int64(stmt, 0);
    seq = sqlite3_column_int64(stmt, 1);
    deleted = sqlite3_column_int(stmt, 2) != 0;
    seen_now = strcmp(rf_db_text(stmt, 3), sink->now) == 0;
    sqlite3_reset(stmt);
    if (item->kind == RF_SINK_PART) {
        status = reached(sink, sink->lane, *id, &found, err);
        *stale = !found && RF_SAFEGUARD("sink-part-reached");
    } else {
        *stale = (seq > (int64_t)item->seq || (seq == (int64_t)item->seq && deleted)) &&
                 RF_SAFEGUARD("sink-stale");
    }
    /* Another lane sees the same item with the same facts; only the live one says when. */
    if (status || *stale ||
        (seq == (int64_t)item->seq && !deleted && (seen_now || !sink->lane->live)))
        return status;
    status = rf_sqlite_stmt(sink, RF_STMT_BLOB_UPDATE, &stmt, err);
    if (status)
        return status;
    rf_db_bind(stmt, "ititittt", *id, item_kinds[item->kind], (int64_t)item->size, ts_text,
               (int64_t)item->seq, item->name, mtime_text, sink->lane->live ? sink->now : NULL);
    return rf_db_run(&sink->db, stmt, err);
}

static enum rf_status write_calls(struct rf_sqlite *sink, const struct rf_sink_item *item,
                                  int64_t id, struct rf_error *err)
{
    struct rf_sqlite_lane *lane = sink->lane;
    enum rf_status status = RF_OK;

    memset(lane->calls, 0, lane->mapper_count * sizeof *lane->calls);
    for (size_t i = 0; i < item->call_count; i++) {
        assert(item->calls[i].mapper < lane->mapper_count);
        lane->calls[item->calls[i].mapper] = &item->calls[i];
    }
    for (size_t i = 0; !status && i < lane->mapper_count; i++) {
        const struct rf_sink_call *call = lane->calls[i];
        if (!call && item->only_calls)
            continue;
        status = unmap(sink, &lane->mappers[i], id, err);
        if (!status && call)
            status = write_call(sink, &lane->mappers[i], id, call, err);
    }
    return status;
}

/* Every failure of a write ends the batch: what was half done must not be committed. */
static enum rf_status settle(struct rf_sqlite *sink, enum rf_status status)
{
    if (status)
        rf_sqlite_rollback(&sink->base);
    return status;
}

enum rf_status rf_sqlite_put(struct rf_sink *base, const struct rf_sink_item *item, bool *stale,
                             struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    bool is_stale = false;
    int64_t id = 0;
    enum rf_status status = place_item(sink, item, &id, &is_stale, err);

    sink->put_last = is_stale ? 0 : id;
    for (size_t i = 0; i < sink->lane->mapper_count; i++)
        sink->lane->mappers[i].edges_of = 0;
    if (!status && !is_stale)
        status = write_calls(sink, item, id, err);
    if (!status && stale)
        *stale = is_stale;
    return settle(sink, status);
}

enum rf_status rf_sqlite_put_parts(struct rf_sink *base, uint16_t mapper,
                                   const struct rf_sink_part *parts, size_t count,
                                   struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    struct rf_sqlite_mapper *to = &sink->lane->mappers[mapper];

    assert(mapper < sink->lane->mapper_count);
    if (sink->put_last == 0 || to->edges_of != sink->put_last)
        return RF_OK;
    return settle(sink, insert_edges(sink, to, sink->put_last, parts, count, err));
}

/* ---- removal and arrival ---- */

/* Put the tombstone into the item's row. *id 0: a higher change is there. */
static enum rf_status place_tombstone(struct rf_sqlite *sink, const char *key, uint64_t seq,
                                      int64_t timestamp_us, int64_t *id, struct rf_error *err)
{
    char ts[RF_TIME_TEXT_SIZE];
    sqlite3_stmt *stmt;
    bool found;
    int64_t stored = 0;
    enum rf_status status = find_item(sink, key, &stmt, &found, err);

    if (status)
        return status;
    if (found) {
        *id = sqlite3_column_int64(stmt, 0);
        stored = sqlite3_column_int64(stmt, 1);
        sqlite3_reset(stmt);
        if (stored > (int64_t)seq && RF_SAFEGUARD("sink-stale")) {
            *id = 0;
            return RF_OK;
        }
        status = rf_sqlite_stmt(sink, RF_STMT_BLOB_TOMBSTONE, &stmt, err);
        if (status)
            return status;
        rf_db_bind(stmt, "iit", *id, (int64_t)seq, time_text(timestamp_us, ts));
        return rf_db_run(&sink->db, stmt, err);
    }
    status = rf_db_exec(&sink->db, err,
                        "INSERT INTO blobs(item, kind, ts, seq, deleted) VALUES(%Q, 'blob', %Q, "
                        "%lld, 1)",
                        key, time_text(timestamp_us, ts), (long long)seq);
    if (!status)
        *id = sqlite3_last_insert_rowid(sink->db.handle);
    return status;
}

/* What mapped an item with the help of a blob that is gone now is unmapped and waits for it. The
 * needs behind the missing one go: a mapper stops at the first blob that is not there. */
static enum rf_status park_dependant(struct rf_sqlite *sink, struct rf_sqlite_mapper *mapper,
                                     int64_t blob, int64_t n, struct rf_error *err)
{
    sqlite3_stmt *stmt;
    enum rf_status status = remove_rows(sink, mapper, blob, err);

    if (!status)
        status = remove_edges(sink, mapper, blob, err);
    if (!status)
        status = run_on(sink, RF_STMT_PARK_DELETE, mapper->id, blob, err);
    if (!status)
        status = run_on(sink, RF_STMT_LETTER_DELETE, mapper->id, blob, err);
    if (!status)
        status = run_on(sink, RF_STMT_CUT_DELETE, mapper->id, blob, err);
    sink->waiting = RF_WAITING_SOME;
    for (int i = 0; !status && i < 2; i++) {
        status = rf_sqlite_stmt(sink, i ? RF_STMT_NEED_MISSING : RF_STMT_NEED_CUT, &stmt, err);
        if (status)
            break;
        rf_db_bind(stmt, "iii", mapper->id, blob, n);
        status = rf_db_run(&sink->db, stmt, err);
    }
    if (!status)
        status = park(sink, mapper, blob, RF_PARK_NEED, "a blob it needs was deleted", 0, err);
    return status;
}

static enum rf_status park_dependants(struct rf_sqlite *sink, struct rf_sqlite_mapper *mapper,
                                      const char *ref, struct rf_error *err)
{
    sqlite3_stmt *stmt;
    enum rf_status status;

    for (;;) {
        int64_t blob, n;
        status = rf_sqlite_stmt(sink, RF_STMT_NEED_DEPENDANT, &stmt, err);
        if (status)
            return status;
        rf_db_bind(stmt, "ti", ref, mapper->id);
        status = rf_db_step(&sink->db, stmt, err);
        if (status)
            return status == RF_END ? RF_OK : status;
        blob = sqlite3_column_int64(stmt, 0);
        n = sqlite3_column_int64(stmt, 1);
        sqlite3_reset(stmt);
        status = park_dependant(sink, mapper, blob, n, err);
        if (status)
            return status;
    }
}

enum rf_status rf_sqlite_remove(struct rf_sink *base, const struct rf_blobref *ref, uint64_t seq,
                                int64_t timestamp_us, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    struct rf_sqlite_lane *lane = sink->lane;
    char key[RF_BLOBREF_SIZE];
    int64_t id = 0;
    enum rf_status status;

    rf_blobref_format(ref, key);
    status = place_tombstone(sink, key, seq, timestamp_us, &id, err);
    for (size_t i = 0; !status && id && i < lane->mapper_count; i++)
        status = unmap(sink, &lane->mappers[i], id, err);
    for (size_t i = 0; !status && id && i < lane->mapper_count; i++)
        status = park_dependants(sink, &lane->mappers[i], key, err);
    return settle(sink, status);
}

/* An item that waits becomes a ready park; one that has rows all the same is mapped again, too. */
static enum rf_status wake(struct rf_sqlite *sink, struct rf_sqlite_mapper *mapper, int64_t blob,
                           struct rf_error *err)
{
    sqlite3_stmt *stmt;
    enum rf_status status = run_on(sink, RF_STMT_PARK_READY, mapper->id, blob, err);

    if (status || sqlite3_changes(sink->db.handle))
        return status;
    status = rf_db_prepare(&sink->db, &stmt, err,
                           "INSERT INTO refuge_parks(mapper, blob, kind, reason, attempts, at) "
                           "VALUES(?1, ?2, 'ready', 'a blob it needs came', 0, ?3) "
                           "ON CONFLICT DO NOTHING");
    if (status)
        return status;
    rf_db_bind(stmt, "iit", mapper->id, blob, sink->now);
    status = rf_db_run(&sink->db, stmt, err);
    sqlite3_finalize(stmt);
    touch(mapper, blob);
    return status;
}

static struct rf_sqlite_mapper *mapper_of(struct rf_sqlite_lane *lane, int64_t id)
{
    for (size_t i = 0; i < lane->mapper_count; i++)
        if (lane->mappers[i].id == id)
            return &lane->mappers[i];
    return NULL;
}

/* Whether any item waits for a blob. Once true it stays: a rollback may only make it needlessly
 * so. */
static enum rf_status look_for_waiting(struct rf_sqlite *sink, struct rf_error *err)
{
    sqlite3_stmt *stmt;
    enum rf_status status = rf_sqlite_stmt(sink, RF_STMT_WAITING_AT_ALL, &stmt, err);

    if (status)
        return status;
    status = rf_db_step(&sink->db, stmt, err);
    if (status == RF_OK || status == RF_END)
        sink->waiting = status == RF_OK ? RF_WAITING_SOME : RF_WAITING_NONE;
    sqlite3_reset(stmt);
    return status == RF_END ? RF_OK : status;
}

enum rf_status rf_sqlite_arrived(struct rf_sink *base, const struct rf_blobref *ref,
                                 struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    char text[RF_BLOBREF_SIZE];
    sqlite3_stmt *stmt;
    enum rf_status status = RF_OK;

    if (sink->waiting == RF_WAITING_UNKNOWN)
        status = look_for_waiting(sink, err);
    if (!status && sink->waiting == RF_WAITING_NONE)
        return RF_OK;
    if (!status)
        status = rf_sqlite_stmt(sink, RF_STMT_WAITING, &stmt, err);
    if (status)
        return settle(sink, status);
    rf_blobref_format(ref, text);
    rf_db_bind(stmt, "t", text);
    while (!status && (status = rf_db_step(&sink->db, stmt, err)) == RF_OK) {
        struct rf_sqlite_mapper *mapper = mapper_of(sink->lane, sqlite3_column_int64(stmt, 0));
        if (mapper)
            status = wake(sink, mapper, sqlite3_column_int64(stmt, 1), err);
    }
    sqlite3_reset(stmt);
    return settle(sink, status == RF_END ? RF_OK : status);
}

enum rf_status rf_sqlite_lost(struct rf_sink *base, uint64_t first, uint64_t last,
                              struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);

    return settle(sink, rf_db_exec(&sink->db, err,
                                   "INSERT INTO refuge_facts VALUES('lost:%u:%lld', '%lld') "
                                   "ON CONFLICT(name) DO UPDATE SET value = excluded.value",
                                   (unsigned)sink->lane->id, (long long)first, (long long)last));
}

/* ---- parts nothing reaches ---- */

static enum rf_status next_orphan(struct rf_sqlite *sink, int64_t *id, struct rf_error *err)
{
    sqlite3_stmt *stmt;
    enum rf_status status = rf_sqlite_stmt(sink, RF_STMT_ORPHAN_NEXT, &stmt, err);

    if (status)
        return status;
    status = rf_db_step(&sink->db, stmt, err);
    if (status)
        return status;
    *id = sqlite3_column_int64(stmt, 0);
    sqlite3_reset(stmt);
    status = rf_sqlite_stmt(sink, RF_STMT_ORPHAN_DELETE, &stmt, err);
    if (status)
        return status;
    rf_db_bind(stmt, "i", *id);
    return rf_db_run(&sink->db, stmt, err);
}

enum rf_status rf_sqlite_collect_orphans(struct rf_sqlite *sink, struct rf_sqlite_lane *lane,
                                         struct rf_error *err)
{
    sqlite3_stmt *stmt;
    int64_t id;
    bool found;
    enum rf_status status;

    while ((status = next_orphan(sink, &id, err)) == RF_OK) {
        status = reached(sink, lane, id, &found, err);
        if (!status && found && sink->shared && RF_SAFEGUARD("sink-shared-again"))
            status = rf_sqlite_wake_below(sink, lane, id, NULL, sink->shared, err);
        if (!status && found && RF_SAFEGUARD("sink-shared-part"))
            continue;
        for (size_t i = 0; !status && i < lane->mapper_count; i++)
            status = unmap(sink, &lane->mappers[i], id, err);
        if (!status)
            status = exists(sink, RF_STMT_REACHED_AT_ALL, id, 0, &found, err);
        if (!status && !found)
            status = rf_sqlite_stmt(sink, RF_STMT_BLOB_DELETE, &stmt, err);
        if (!status && !found) {
            rf_db_bind(stmt, "i", id);
            status = rf_db_run(&sink->db, stmt, err);
        }
        if (status)
            return status;
    }
    sink->orphans = false;
    return status == RF_END ? RF_OK : status;
}

/* ---- the batch ---- */

static enum rf_status check_position(struct rf_sqlite *sink, const char *from,
                                     struct rf_error *err)
{
    sqlite3_stmt *stmt = NULL;
    enum rf_status status;

    status = rf_db_prepare(&sink->db, &stmt, err, "SELECT position FROM refuge_lanes WHERE id = %u",
                           (unsigned)sink->lane->id);
    if (!status)
        status = rf_db_step(&sink->db, stmt, err);
    if (status == RF_END)
        status = rf_error_set(err, RF_NOT_FOUND, "index '%s' has no lane %u", sink->db.path,
                              (unsigned)sink->lane->id);
    else if (!status && strcmp(rf_db_text(stmt, 0), from) != 0 && RF_SAFEGUARD("sink-cas"))
        status = rf_error_set(err, RF_LOCKED,
                              "index '%s' stands at '%s', not at '%s': another writer came first",
                              sink->db.path, rf_db_text(stmt, 0), from);
    sqlite3_finalize(stmt);
    return status;
}

enum rf_status rf_sqlite_begin(struct rf_sink *base, uint32_t lane, const char *from,
                               struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    enum rf_status status;

    /* Taken away, each statement commits alone: a crash then leaves half an item behind. */
    if (RF_SAFEGUARD("sink-one-transaction")) {
        status = rf_db_exec(&sink->db, err, "BEGIN IMMEDIATE");
        if (status)
            return status;
    }
    base->batch_open = true;
    sink->orphans = false;
    sink->shared = 0;
    rf_sqlite_now(sink->now);
    snprintf(sink->from, sizeof sink->from, "%s", from);
    status = rf_sqlite_lane_get(sink, lane, &sink->lane, err);
    if (!status)
        status = check_position(sink, from, err);
    return settle(sink, status);
}

static enum rf_status move_position(struct rf_sqlite *sink, const char *to, struct rf_error *err)
{
    sqlite3_stmt *stmt;
    char token[24];
    enum rf_status status = rf_sqlite_stmt(sink, RF_STMT_POSITION, &stmt, err);

    if (status)
        return status;
    snprintf(token, sizeof token, "%016llx", (unsigned long long)sink->token);
    rf_db_bind(stmt, "ittt", (int64_t)sink->lane->id, to, token, sink->from);
    status = rf_db_run(&sink->db, stmt, err);
    if (!status && sqlite3_changes(sink->db.handle) == 0 && RF_SAFEGUARD("sink-cas"))
        status = rf_error_set(err, RF_LOCKED,
                              "index '%s' does not stand at '%s' any more: another writer came "
                              "first",
                              sink->db.path, sink->from);
    return status;
}

enum rf_status rf_sqlite_commit(struct rf_sink *base, const char *to, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    enum rf_status status = RF_OK;

    if (sink->orphans)
        status = rf_sqlite_collect_orphans(sink, sink->lane, err);
    if (!status)
        status = move_position(sink, to, err);
    if (!status && !sqlite3_get_autocommit(sink->db.handle))
        status = rf_db_exec(&sink->db, err, "COMMIT");
    if (!status) {
        base->batch_open = false;
        sink->lane = NULL;
        sink->shared = 0;
    }
    return settle(sink, status);
}

void rf_sqlite_rollback(struct rf_sink *base)
{
    struct rf_sqlite *sink = of(base);

    /* Statements that failed have been reset; some errors have rolled back already. */
    if (!sqlite3_get_autocommit(sink->db.handle))
        sqlite3_exec(sink->db.handle, "ROLLBACK", NULL, NULL, NULL);
    sink->lane = NULL;
    sink->shared = 0;
    base->batch_open = false;
}

/* ---- questions of the pipeline ---- */

enum rf_status rf_sqlite_has_part(struct rf_sink *base, uint32_t id, const char *key, bool *out,
                                  struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    struct rf_sqlite_lane *lane;
    sqlite3_stmt *stmt;
    bool found = false;
    enum rf_status status = rf_sqlite_lane_get(sink, id, &lane, err);

    if (!status)
        status = find_item(sink, key, &stmt, &found, err);
    if (!status && found) {
        int64_t blob = sqlite3_column_int64(stmt, 0);
        sqlite3_reset(stmt);
        status = reached(sink, lane, blob, &found, err);
    }
    if (!status)
        *out = found;
    return status;
}

enum rf_status rf_sqlite_is_parked(struct rf_sink *base, uint32_t id, uint16_t mapper,
                                   const char *key, bool *out, uint32_t *attempts,
                                   struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    struct rf_sqlite_lane *lane;
    sqlite3_stmt *stmt;
    bool found = false;
    int64_t blob;
    enum rf_status status = rf_sqlite_lane_get(sink, id, &lane, err);

    *out = false;
    if (!status)
        status = find_item(sink, key, &stmt, &found, err);
    if (status || !found)
        return status;
    blob = sqlite3_column_int64(stmt, 0);
    sqlite3_reset(stmt);
    status = rf_sqlite_stmt(sink, RF_STMT_PARK_WAITS, &stmt, err);
    if (status)
        return status;
    rf_db_bind(stmt, "ii", lane->mappers[mapper].id, blob);
    status = rf_db_step(&sink->db, stmt, err);
    if (status)
        return status == RF_END ? RF_OK : status;
    *out = true;
    *attempts = (uint32_t)sqlite3_column_int64(stmt, 0);
    sqlite3_reset(stmt);
    return RF_OK;
}

enum rf_status rf_sqlite_mapper_splits(struct rf_sink *base, uint32_t lane, const char *name,
                                       bool *out, struct rf_error *err)
{
    struct rf_sqlite *sink = of(base);
    int64_t found;
    enum rf_status status;

    status = rf_db_int(&sink->db, &found, 0, err,
                       "SELECT EXISTS(SELECT 1 FROM refuge_parts WHERE mapper = (SELECT id FROM "
                       "refuge_lane_mappers WHERE lane = %u AND name = %Q))",
                       (unsigned)lane, name);
    if (!status)
        *out = found != 0;
    return status;
}
