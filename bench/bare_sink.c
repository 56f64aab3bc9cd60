/* bare_sink.c - the floor of a sink: prepared inserts into SQLite, nothing else */
#include "bench/bare_sink.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

struct table {
    sqlite3_stmt *insert, *search; /* search: NULL when nothing is searchable */
    const struct rf_table *decl;
    int64_t rows;
};

struct bare_sink {
    sqlite3 *db;
    enum bare_shape shape;
    sqlite3_stmt *item;
    const char *key;
    int64_t items;
    int n;
    struct table tables[RF_TABLES_MAX];
    size_t table_count;
};

static void run(struct bare_sink *sink, const char *sql)
{
    if (sqlite3_exec(sink->db, sql, NULL, NULL, NULL) != SQLITE_OK)
        bench_die("%s: %s", sql, sqlite3_errmsg(sink->db));
}

static sqlite3_stmt *prepare(struct bare_sink *sink, const char *sql)
{
    sqlite3_stmt *stmt;

    if (sqlite3_prepare_v3(sink->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL) != SQLITE_OK)
        bench_die("%s: %s", sql, sqlite3_errmsg(sink->db));
    return stmt;
}

static void step(struct bare_sink *sink, sqlite3_stmt *stmt)
{
    if (sqlite3_step(stmt) != SQLITE_DONE)
        bench_die("cannot insert: %s", sqlite3_errmsg(sink->db));
    sqlite3_reset(stmt);
}

static void make_table(struct bare_sink *sink, struct table *table, const struct rf_table *decl)
{
    bool one = sink->shape == BARE_ONE_TABLE;
    char create[2048], insert[2048], fts[2048], fill[2048];
    int c, i, f, v;
    size_t searched = 0;

    table->decl = decl;
    c = snprintf(create, sizeof create, "CREATE TABLE %s(id INTEGER PRIMARY KEY,%s", decl->name,
                 one ? "ref TEXT UNIQUE" : "blob INTEGER,n INTEGER");
    i = snprintf(insert, sizeof insert, "INSERT INTO %s VALUES(?,?%s", decl->name, one ? "" : ",?");
    f = snprintf(fts, sizeof fts, "CREATE VIRTUAL TABLE %s_fts USING fts5(", decl->name);
    v = snprintf(fill, sizeof fill, "INSERT INTO %s_fts(rowid", decl->name);
    for (size_t k = 0; k < decl->column_count; k++) {
        const struct rf_column *column = &decl->columns[k];
        c += snprintf(create + c, sizeof create - (size_t)c, ",%s", column->name);
        i += snprintf(insert + i, sizeof insert - (size_t)i, ",?");
        if (!column->search)
            continue;
        f += snprintf(fts + f, sizeof fts - (size_t)f, "%s,", column->name);
        v += snprintf(fill + v, sizeof fill - (size_t)v, ",%s", column->name);
        searched++;
    }
    snprintf(create + c, sizeof create - (size_t)c, "%s)", one ? "" : ",UNIQUE(blob,n)");
    snprintf(insert + i, sizeof insert - (size_t)i, ")");
    run(sink, create);
    table->insert = prepare(sink, insert);
    if (!searched)
        return;
    snprintf(fts + f, sizeof fts - (size_t)f, "content='%s',content_rowid='id')", decl->name);
    run(sink, fts);
    v += snprintf(fill + v, sizeof fill - (size_t)v, ") VALUES(?");
    for (size_t k = 0; k < searched; k++)
        v += snprintf(fill + v, sizeof fill - (size_t)v, ",?");
    snprintf(fill + v, sizeof fill - (size_t)v, ")");
    table->search = prepare(sink, fill);
    snprintf(fts, sizeof fts, "INSERT INTO %s_fts(%s_fts,rank) VALUES('hashsize',67108864)",
             decl->name, decl->name);
    run(sink, fts);
}

struct bare_sink *bare_sink_open(const char *path, const struct rf_decl *decl,
                                 enum bare_shape shape)
{
    struct bare_sink *sink = calloc(1, sizeof *sink);

    if (!sink || sqlite3_open(path, &sink->db) != SQLITE_OK)
        bench_die("cannot open '%s'", path);
    sink->shape = shape;
    run(sink, "PRAGMA page_size=16384; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
              "PRAGMA cache_size=-65536; PRAGMA wal_autocheckpoint=4000");
    if (shape == BARE_TWO_TABLES) {
        run(sink, "CREATE TABLE blobs(id INTEGER PRIMARY KEY, item TEXT UNIQUE, kind TEXT,"
                  "size INTEGER, ts TEXT, seq INTEGER, mapped_at TEXT)");
        sink->item = prepare(sink, "INSERT INTO blobs VALUES(?,?,'blob',?,"
                                   "'2026-01-01T00:00:00.000000Z',?,"
                                   "'2026-01-01T00:00:00.000000Z')");
    }
    sink->table_count = decl->table_count;
    for (size_t i = 0; i < decl->table_count; i++)
        make_table(sink, &sink->tables[i], &decl->tables[i]);
    run(sink, "BEGIN IMMEDIATE");
    return sink;
}

void bare_sink_item(struct bare_sink *sink, const char *key, uint64_t size, uint64_t seq)
{
    if (sink->items > 0 && sink->items % BARE_BATCH == 0)
        run(sink, "COMMIT; BEGIN IMMEDIATE");
    sink->items++;
    sink->key = key;
    sink->n = 0;
    if (!sink->item)
        return;
    sqlite3_bind_int64(sink->item, 1, sink->items);
    sqlite3_bind_text(sink->item, 2, key, RF_BLOBREF_SIZE - 1, SQLITE_STATIC);
    sqlite3_bind_int64(sink->item, 3, (int64_t)size);
    sqlite3_bind_int64(sink->item, 4, (int64_t)seq);
    step(sink, sink->item);
}

static void bind(sqlite3_stmt *stmt, int at, const struct rf_value *value)
{
    switch ((int)value->type) {
    case 0:
        sqlite3_bind_null(stmt, at);
        break;
    case RF_TYPE_INT:
        sqlite3_bind_int64(stmt, at, value->integer);
        break;
    case RF_TYPE_TEXT:
    case RF_TYPE_JSON:
        sqlite3_bind_text(stmt, at, (const char *)value->text.data, (int)value->text.size,
                          SQLITE_STATIC);
        break;
    default:
        bench_die("the bare sink knows no %s", rf_type_name(value->type));
    }
}

void bare_sink_row(struct bare_sink *sink, uint16_t index, const struct rf_value *values,
                   uint16_t count)
{
    struct table *table = &sink->tables[index];
    int at = 1, found = 2;

    table->rows++;
    sqlite3_bind_int64(table->insert, at++, table->rows);
    if (sink->shape == BARE_ONE_TABLE) {
        sqlite3_bind_text(table->insert, at++, sink->key, RF_BLOBREF_SIZE - 1, SQLITE_STATIC);
    } else {
        sqlite3_bind_int64(table->insert, at++, sink->items);
        sqlite3_bind_int64(table->insert, at++, sink->n++);
    }
    for (uint16_t k = 0; k < count; k++)
        bind(table->insert, at++, &values[k]);
    step(sink, table->insert);
    if (!table->search)
        return;
    sqlite3_bind_int64(table->search, 1, table->rows);
    for (uint16_t k = 0; k < count; k++)
        if (table->decl->columns[k].search)
            bind(table->search, found++, &values[k]);
    step(sink, table->search);
}

void bare_sink_commit(struct bare_sink *sink)
{
    run(sink, "COMMIT");
}

void bare_sink_close(struct bare_sink *sink)
{
    sqlite3_finalize(sink->item);
    for (size_t i = 0; i < sink->table_count; i++) {
        sqlite3_finalize(sink->tables[i].insert);
        sqlite3_finalize(sink->tables[i].search);
    }
    sqlite3_close(sink->db);
    free(sink);
}
