/*
 * sqlite_schema.c - what an index looks like in SQLite
 *
 * People and stock tools (sqlite3, Datasette) read these tables, so they carry comments and real
 * types. A mapper table is
 *
 *   CREATE TABLE "mail"(id INTEGER PRIMARY KEY, blob -> blobs.id, n, declared columns...,
 *     UNIQUE(blob, n))
 *   CREATE VIRTUAL TABLE "mail_fts" USING fts5(search columns..., grams, content="mail", ...)
 *
 * in the live lane, and "mail@2", "mail_fts@2" in lane 2 until it is swapped in. The full-text
 * table names the live table as its content from the start, because a rename cannot change that;
 * FTS5 reads the content table only for queries and snippets, which ask the live lane. It is
 * written explicitly, row by row: a trigger would open a savepoint per row, which makes FTS5 three
 * times as slow. `grams` holds 1- to 3-grams of scripts without spaces (grams.h); in the content
 * table it is a generated null, so that FTS5 finds a column of this name and nothing is stored
 * twice.
 *
 * Types: int, bool INTEGER; float REAL; text, json, blobref TEXT; time TEXT
 * "YYYY-MM-DDThh:mm:ss.ffffffZ" and <column>_offset INTEGER, minutes east, null unknown.
 *
 * What refuge keeps for itself hangs on refuge_lane_mappers.id, one mapper in one lane, so that a
 * swap moves all of it by changing that row's lane.
 */
#include "sinks/sink_sqlite.h"

#include <stdio.h>

static const char schema[] =
    "CREATE TABLE blobs( -- every item ever seen: a blob, a file, or a part of one\n"
    "  id INTEGER PRIMARY KEY,\n"
    "  item TEXT NOT NULL UNIQUE, -- blobref; of a part: blobref;media type\n"
    "  kind TEXT NOT NULL, -- blob, file or part\n"
    "  size INTEGER,\n"
    "  ts TEXT, -- when it was stored (of a deleted one: deleted)\n"
    "  seq INTEGER NOT NULL, -- its latest change in the store's queue; of a part: 0\n"
    "  deleted INTEGER NOT NULL DEFAULT 0,\n"
    "  name TEXT, -- of a file\n"
    "  mtime TEXT, -- of a file\n"
    "  mapped_at TEXT, -- when the live lane's mappers last saw it\n"
    "  ref TEXT GENERATED ALWAYS AS (CASE kind WHEN 'part' THEN\n"
    "    substr(item, 1, instr(item, ';') - 1) ELSE item END) VIRTUAL,\n"
    "  media TEXT GENERATED ALWAYS AS (CASE kind WHEN 'part' THEN\n"
    "    substr(item, instr(item, ';') + 1) END) VIRTUAL);\n"

    "CREATE TABLE refuge_lanes( -- generations of mappers: one live, others being built\n"
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,\n"
    "  state TEXT NOT NULL, -- live, building or dropping\n"
    "  full INTEGER NOT NULL, -- its swap replaces every mapper\n"
    "  position TEXT NOT NULL DEFAULT '', -- complete up to here in the change queue\n"
    "  writer TEXT, -- token of who moved it last\n"
    "  started TEXT NOT NULL);\n"

    "CREATE TABLE refuge_mappers( -- texts and declarations, so that an index can be rebuilt\n"
    "  identity TEXT PRIMARY KEY, -- hash of all that decides the rows\n"
    "  name TEXT NOT NULL,\n"
    "  version TEXT NOT NULL,\n"
    "  title TEXT,\n"
    "  declaration TEXT NOT NULL, -- JSON\n"
    "  bundle BLOB NOT NULL) WITHOUT ROWID;\n"

    "CREATE TABLE refuge_lane_mappers( -- one mapper in one lane\n"
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,\n"
    "  lane INTEGER NOT NULL REFERENCES refuge_lanes(id),\n"
    "  ordinal INTEGER NOT NULL,\n"
    "  name TEXT NOT NULL,\n"
    "  identity TEXT NOT NULL REFERENCES refuge_mappers(identity),\n"
    "  edges_only INTEGER NOT NULL DEFAULT 0, -- runs along for its parts\n"
    "  UNIQUE(lane, name));\n"

    "CREATE TABLE refuge_tables( -- which mapper fills which table\n"
    "  mapper INTEGER NOT NULL REFERENCES refuge_lane_mappers(id),\n"
    "  name TEXT NOT NULL,\n"
    "  title TEXT,\n"
    "  search INTEGER NOT NULL, -- has a full-text table <name>_fts\n"
    "  PRIMARY KEY(mapper, name)) WITHOUT ROWID;\n"

    "CREATE TABLE refuge_parts( -- edges: an item cut out of another\n"
    "  mapper INTEGER NOT NULL REFERENCES refuge_lane_mappers(id),\n"
    "  parent INTEGER NOT NULL REFERENCES blobs(id),\n"
    "  n INTEGER NOT NULL,\n"
    "  child INTEGER NOT NULL REFERENCES blobs(id),\n"
    "  name TEXT,\n"
    "  offset INTEGER, -- within the parent's content; null: made by the mapper\n"
    "  size INTEGER NOT NULL,\n"
    "  PRIMARY KEY(mapper, parent, n)) WITHOUT ROWID;\n"
    "CREATE INDEX refuge_parts_child ON refuge_parts(child, mapper);\n"

    "CREATE TABLE refuge_needs( -- other blobs a mapper read for an item, in order\n"
    "  mapper INTEGER NOT NULL REFERENCES refuge_lane_mappers(id),\n"
    "  blob INTEGER NOT NULL REFERENCES blobs(id),\n"
    "  n INTEGER NOT NULL,\n"
    "  ref TEXT NOT NULL,\n"
    "  present INTEGER NOT NULL,\n"
    "  PRIMARY KEY(mapper, blob, n)) WITHOUT ROWID;\n"
    "CREATE INDEX refuge_needs_ref ON refuge_needs(ref, present);\n"

    "CREATE TABLE refuge_parks( -- mapping that waits\n"
    "  id INTEGER PRIMARY KEY AUTOINCREMENT,\n"
    "  mapper INTEGER NOT NULL REFERENCES refuge_lane_mappers(id),\n"
    "  blob INTEGER NOT NULL REFERENCES blobs(id),\n"
    "  kind TEXT NOT NULL, -- slow, need or ready\n"
    "  reason TEXT,\n"
    "  attempts INTEGER NOT NULL,\n"
    "  at TEXT NOT NULL,\n"
    "  UNIQUE(mapper, blob));\n"
    "CREATE INDEX refuge_parks_mapper ON refuge_parks(mapper, kind);\n"

    "CREATE TABLE refuge_dead_letters( -- set aside with the reason\n"
    "  mapper INTEGER NOT NULL REFERENCES refuge_lane_mappers(id),\n"
    "  blob INTEGER NOT NULL REFERENCES blobs(id),\n"
    "  class TEXT NOT NULL, -- mapper, limit, blob or sink\n"
    "  reason TEXT,\n"
    "  attempts INTEGER NOT NULL,\n"
    "  at TEXT NOT NULL,\n"
    "  PRIMARY KEY(mapper, blob)) WITHOUT ROWID;\n"

    "CREATE TABLE refuge_cuts( -- values that were cleaned\n"
    "  mapper INTEGER NOT NULL REFERENCES refuge_lane_mappers(id),\n"
    "  blob INTEGER NOT NULL REFERENCES blobs(id),\n"
    "  n INTEGER NOT NULL, -- of the row\n"
    "  \"table\" TEXT NOT NULL,\n"
    "  \"column\" TEXT NOT NULL,\n"
    "  kind TEXT NOT NULL, -- utf8, nul, long, year or float\n"
    "  PRIMARY KEY(mapper, blob, n, \"table\", \"column\", kind)) WITHOUT ROWID;\n"

    "CREATE TABLE refuge_facts(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;\n"

    "CREATE VIEW refuge_errors AS -- the live lane's dead letters in words\n"
    "  SELECT b.item, b.name, m.name AS mapper, d.class, d.reason, d.attempts, d.at\n"
    "  FROM refuge_dead_letters d JOIN refuge_lane_mappers m ON m.id = d.mapper\n"
    "  JOIN refuge_lanes l ON l.id = m.lane AND l.state = 'live' JOIN blobs b ON b.id = d.blob;\n"
    "CREATE VIEW refuge_edges AS -- the live lane's parts in words\n"
    "  SELECT p.item AS parent, m.name AS mapper, e.n, c.item AS part, e.name, c.media, e.offset,\n"
    "  e.size FROM refuge_parts e JOIN refuge_lane_mappers m ON m.id = e.mapper\n"
    "  JOIN refuge_lanes l ON l.id = m.lane AND l.state = 'live'\n"
    "  JOIN blobs p ON p.id = e.parent JOIN blobs c ON c.id = e.child;\n";

enum rf_status rf_sqlite_make_schema(struct rf_db *db, struct rf_error *err)
{
    enum rf_status status = rf_db_exec(db, err, "BEGIN IMMEDIATE");

    if (!status)
        status = rf_db_exec(db, err, "%s", schema);
    if (!status)
        status = rf_db_exec(db, err, "PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT;",
                            RF_DB_APPLICATION, RF_DB_FORMAT);
    if (status && !sqlite3_get_autocommit(db->handle))
        sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

/* ---- mapper tables ---- */

static const char *sql_type(enum rf_type type)
{
    switch (type) {
    case RF_TYPE_INT:
    case RF_TYPE_BOOL:
        return "INTEGER";
    case RF_TYPE_FLOAT:
        return "REAL";
    default:
        return "TEXT";
    }
}

size_t rf_sqlite_search_count(const struct rf_table *table)
{
    size_t count = 0;

    for (size_t i = 0; i < table->column_count; i++)
        count += table->columns[i].search;
    return count;
}

static char *copy_name(struct rf_arena *arena, const char *name)
{
    size_t size = strlen(name) + 1;

    return memcpy(rf_arena_alloc(arena, size), name, size);
}

void rf_sqlite_table_names(struct rf_arena *arena, const struct rf_table *table, uint32_t lane,
                           bool live, char **name, char **fts)
{
    char text[RF_NAME_MAX + 32], suffix[16] = "";

    if (!live)
        snprintf(suffix, sizeof suffix, "@%u", (unsigned)lane);
    snprintf(text, sizeof text, "%s%s", table->name, suffix);
    *name = copy_name(arena, text);
    *fts = NULL;
    if (rf_sqlite_search_count(table)) {
        snprintf(text, sizeof text, "%s_fts%s", table->name, suffix);
        *fts = copy_name(arena, text);
    }
}

struct names {
    struct rf_arena arena;
    char *name, *fts;
};

static void names_init(struct names *names, const struct rf_table *table, uint32_t lane, bool live)
{
    rf_arena_init(&names->arena, 1024);
    rf_sqlite_table_names(&names->arena, table, lane, live, &names->name, &names->fts);
}

static enum rf_status make_content(struct rf_db *db, const struct rf_table *table,
                                   const char *name, struct rf_error *err)
{
    struct rf_buf sql;
    enum rf_status status;

    rf_buf_init(&sql, 1 << 20);
    rf_buf_printf(&sql,
                  "CREATE TABLE \"%s\"(\n  id INTEGER PRIMARY KEY,\n"
                  "  blob INTEGER NOT NULL REFERENCES blobs(id),\n  n INTEGER NOT NULL",
                  name);
    for (size_t i = 0; i < table->column_count; i++) {
        const struct rf_column *column = &table->columns[i];
        rf_buf_printf(&sql, ",\n  \"%s\" %s", column->name, sql_type(column->type));
        if (column->type == RF_TYPE_TIME)
            rf_buf_printf(&sql, ",\n  \"%s_offset\" INTEGER", column->name);
    }
    if (rf_sqlite_search_count(table))
        rf_buf_put_text(&sql, ",\n  grams TEXT GENERATED ALWAYS AS (NULL) VIRTUAL");
    rf_buf_put_text(&sql, ",\n  UNIQUE(blob, n))");
    status = rf_buf_text(&sql) ? rf_db_exec(db, err, "%s", rf_buf_text(&sql)) : sql.failed;
    rf_buf_release(&sql);
    return status;
}

/* Facet and time columns one by one, then what was declared. An index keeps its name through a
 * swap, so the lane's number is always in it. */
static enum rf_status make_indexes(struct rf_db *db, const struct rf_table *table,
                                   const char *name, uint32_t lane, struct rf_error *err)
{
    enum rf_status status = RF_OK;
    unsigned number = 0;

    for (size_t i = 0; !status && i < table->column_count; i++) {
        const struct rf_column *column = &table->columns[i];
        if (column->facet || column->type == RF_TYPE_TIME)
            status = rf_db_exec(db, err, "CREATE INDEX \"%w@%u index %u\" ON \"%w\"(\"%w\")",
                                table->name, lane, ++number, name, column->name);
    }
    for (size_t i = 0; !status && i < table->index_count; i++) {
        const struct rf_table_index *index = &table->indexes[i];
        struct rf_buf columns;
        rf_buf_init(&columns, 4096);
        for (size_t k = 0; k < index->count; k++)
            rf_buf_printf(&columns, "%s\"%s\"", k ? ", " : "", index->columns[k]);
        status = rf_db_exec(db, err, "CREATE INDEX \"%w@%u index %u\" ON \"%w\"(%s)", table->name,
                            lane, ++number, name, rf_buf_text(&columns));
        rf_buf_release(&columns);
    }
    return status;
}

/* Datasette finds a full-text table by the very text content="<table>". */
static enum rf_status make_fts(struct rf_db *db, const struct rf_table *table, const char *fts,
                               size_t hash, struct rf_error *err)
{
    struct rf_buf columns;
    enum rf_status status;

    rf_buf_init(&columns, 1 << 16);
    for (size_t i = 0; i < table->column_count; i++)
        if (table->columns[i].search)
            rf_buf_printf(&columns, "\"%s\", ", table->columns[i].name);
    status = rf_db_exec(db, err,
                        "CREATE VIRTUAL TABLE \"%w\" USING fts5(%sgrams, content=\"%w\", "
                        "content_rowid=\"id\", tokenize=\"unicode61 remove_diacritics 2\")",
                        fts, rf_buf_text(&columns), table->name);
    rf_buf_release(&columns);
    if (!status)
        status = rf_db_exec(db, err, "INSERT INTO \"%w\"(\"%w\", rank) VALUES('hashsize', %lld)",
                            fts, fts, (long long)hash);
    return status;
}

enum rf_status rf_sqlite_make_table(struct rf_db *db, const struct rf_table *table, uint32_t lane,
                                    bool live, size_t fts_hash, struct rf_error *err)
{
    struct names names;
    enum rf_status status;

    names_init(&names, table, lane, live);
    status = make_content(db, table, names.name, err);
    if (!status)
        status = make_indexes(db, table, names.name, lane, err);
    if (!status && names.fts)
        status = make_fts(db, table, names.fts, fts_hash, err);
    if (!status && live)
        status = rf_sqlite_make_view(db, table, err);
    rf_arena_release(&names.arena);
    return status;
}

/* Newest by the named column or the item's timestamp; ties by sequence, item, then order of
 * rows. */
enum rf_status rf_sqlite_make_view(struct rf_db *db, const struct rf_table *table,
                                   struct rf_error *err)
{
    const struct rf_latest *latest = &table->latest;
    struct rf_buf columns, keys;
    enum rf_status status;

    if (!latest->count)
        return RF_OK;
    rf_buf_init(&columns, 1 << 16);
    rf_buf_init(&keys, 4096);
    rf_buf_put_text(&columns, "id, blob, n");
    for (size_t i = 0; i < table->column_count; i++) {
        rf_buf_printf(&columns, ", \"%s\"", table->columns[i].name);
        if (table->columns[i].type == RF_TYPE_TIME)
            rf_buf_printf(&columns, ", \"%s_offset\"", table->columns[i].name);
    }
    for (size_t i = 0; i < latest->count; i++)
        rf_buf_printf(&keys, "%st.\"%s\"", i ? ", " : "", latest->key[i]);
    status = rf_db_exec(db, err,
                        "CREATE VIEW \"%w_latest\" AS SELECT %s FROM (SELECT t.*, row_number() "
                        "OVER (PARTITION BY %s ORDER BY %s%w%s DESC, b.seq DESC, b.item DESC, "
                        "t.n DESC) AS refuge_rank FROM \"%w\" t JOIN blobs b ON b.id = t.blob) "
                        "WHERE refuge_rank = 1",
                        table->name, rf_buf_text(&columns), rf_buf_text(&keys),
                        latest->by ? "t.\"" : "b.", latest->by ? latest->by : "ts",
                        latest->by ? "\"" : "", table->name);
    rf_buf_release(&columns);
    rf_buf_release(&keys);
    return status;
}

enum rf_status rf_sqlite_drop_table(struct rf_db *db, const struct rf_table *table, uint32_t lane,
                                    bool live, struct rf_error *err)
{
    struct names names;
    enum rf_status status = RF_OK;

    names_init(&names, table, lane, live);
    if (live)
        status = rf_db_exec(db, err, "DROP VIEW IF EXISTS \"%w_latest\"", table->name);
    if (!status && names.fts)
        status = rf_db_exec(db, err, "DROP TABLE IF EXISTS \"%w\"", names.fts);
    if (!status)
        status = rf_db_exec(db, err, "DROP TABLE IF EXISTS \"%w\"", names.name);
    rf_arena_release(&names.arena);
    return status;
}

enum rf_status rf_sqlite_raise_table(struct rf_db *db, const struct rf_table *table, uint32_t lane,
                                     struct rf_error *err)
{
    struct names names;
    enum rf_status status;

    names_init(&names, table, lane, false);
    status = rf_db_exec(db, err, "ALTER TABLE \"%w\" RENAME TO \"%w\"", names.name, table->name);
    if (!status && names.fts)
        status = rf_db_exec(db, err, "ALTER TABLE \"%w\" RENAME TO \"%w_fts\"", names.fts,
                            table->name);
    if (!status)
        status = rf_sqlite_make_view(db, table, err);
    rf_arena_release(&names.arena);
    return status;
}
