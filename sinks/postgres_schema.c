/*
 * postgres_schema.c - what an index looks like in PostgreSQL
 *
 * Tables and columns have the names that they have in SQLite (sqlite_schema.c), so that people and
 * programs ask the same questions; a mapper table "mail" is "mail@2" in lane 2 until it is swapped
 * in. Types are the server's: int bigint, float double precision, bool boolean, text and blobref
 * text, time timestamptz with <column>_offset, json json (not jsonb, which refuses \u0000 and puts
 * members into another order; a cast makes it). Flags of refuge's own are smallint, so that
 * `deleted = 0` is said alike. Keys are in COLLATE "C": in byte order, whatever the locale.
 *
 * A column `search` of a mapper table holds the words of its search columns (lexemes.h), filled by
 * the writer.
 *
 * Indexes but the primary keys, and the foreign key of a mapper table to blobs, are made when a
 * lane has caught up (rf_sink_lane_ready), because a first fill would pay for them with every row.
 * Refuge's own tables have no foreign keys: nobody joins them by a tool, and the one writer there
 * is cannot break them.
 *
 * Whatever refuge made says so in its comment, which ends in MARK: nothing else is ever dropped.
 */
#include "sinks/sink_postgres.h"

#include <stdio.h>
#include <stdlib.h>

#define MARK RF_POSTGRES_MARK
#define STEMS_MAX 100000 /* characters of a row's texts that are stemmed */

static const char schema[] =
    "CREATE TABLE refuge_format(version integer NOT NULL);\n"
    "CREATE SEQUENCE refuge_blob_ids INCREMENT BY 1000;\n" /* one value: a block of ids */

    "CREATE TABLE blobs(\n"
    "  id bigint PRIMARY KEY,\n"
    "  item text COLLATE \"C\" NOT NULL UNIQUE,\n"
    "  kind text NOT NULL,\n"
    "  size bigint,\n"
    "  ts timestamptz,\n"
    "  seq bigint NOT NULL,\n"
    "  deleted smallint NOT NULL DEFAULT 0,\n"
    "  name text,\n"
    "  mtime timestamptz,\n"
    "  mapped_at timestamptz,\n"
    "  ref text COLLATE \"C\" GENERATED ALWAYS AS (split_part(item, ';', 1)) STORED,\n"
    "  media text COLLATE \"C\" GENERATED ALWAYS AS (CASE WHEN kind = 'part' THEN\n"
    "    substr(item, strpos(item, ';') + 1) END) STORED);\n"

    "CREATE TABLE refuge_lanes(\n"
    "  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n"
    "  state text NOT NULL,\n"
    "  \"full\" smallint NOT NULL,\n"
    "  position text NOT NULL DEFAULT '',\n"
    "  writer text,\n"
    "  started timestamptz NOT NULL);\n"

    "CREATE TABLE refuge_mappers(\n"
    "  identity text COLLATE \"C\" PRIMARY KEY,\n"
    "  name text NOT NULL,\n"
    "  version text NOT NULL,\n"
    "  title text,\n"
    "  declaration text NOT NULL,\n"
    "  bundle bytea NOT NULL);\n"

    "CREATE TABLE refuge_lane_mappers(\n"
    "  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,\n"
    "  lane bigint NOT NULL,\n"
    "  ordinal bigint NOT NULL,\n"
    "  name text COLLATE \"C\" NOT NULL,\n"
    "  identity text COLLATE \"C\" NOT NULL,\n"
    "  edges_only smallint NOT NULL DEFAULT 0,\n"
    "  UNIQUE(lane, name));\n"

    "CREATE TABLE refuge_tables(\n"
    "  id bigint GENERATED ALWAYS AS IDENTITY UNIQUE,\n"
    "  mapper bigint NOT NULL,\n"
    "  name text COLLATE \"C\" NOT NULL,\n"
    "  title text,\n"
    "  search smallint NOT NULL,\n"
    "  indexed smallint NOT NULL DEFAULT 0,\n"
    "  PRIMARY KEY(mapper, name));\n"

    "CREATE TABLE refuge_parts(\n"
    "  mapper bigint NOT NULL,\n"
    "  parent bigint NOT NULL,\n"
    "  n bigint NOT NULL,\n"
    "  child bigint NOT NULL,\n"
    "  name text,\n"
    "  \"offset\" bigint,\n"
    "  size bigint NOT NULL,\n"
    "  PRIMARY KEY(parent, mapper, n));\n"
    "CREATE INDEX refuge_parts_child ON refuge_parts(child, mapper);\n"

    "CREATE TABLE refuge_needs(\n"
    "  mapper bigint NOT NULL,\n"
    "  blob bigint NOT NULL,\n"
    "  n bigint NOT NULL,\n"
    "  ref text COLLATE \"C\" NOT NULL,\n"
    "  present smallint NOT NULL,\n"
    "  PRIMARY KEY(blob, mapper, n));\n"
    "CREATE INDEX refuge_needs_ref ON refuge_needs(ref, present);\n"
    "CREATE INDEX refuge_needs_missing ON refuge_needs(mapper) WHERE present = 0;\n"

    "CREATE TABLE refuge_parks(\n"
    "  id bigint GENERATED ALWAYS AS IDENTITY UNIQUE,\n"
    "  mapper bigint NOT NULL,\n"
    "  blob bigint NOT NULL,\n"
    "  kind text NOT NULL,\n"
    "  reason text,\n"
    "  attempts bigint NOT NULL,\n"
    "  at timestamptz NOT NULL,\n"
    "  PRIMARY KEY(blob, mapper));\n"
    "CREATE INDEX refuge_parks_mapper ON refuge_parks(mapper, kind, id);\n"

    "CREATE TABLE refuge_dead_letters(\n"
    "  mapper bigint NOT NULL,\n"
    "  blob bigint NOT NULL,\n"
    "  class text NOT NULL,\n"
    "  reason text,\n"
    "  attempts bigint NOT NULL,\n"
    "  at timestamptz NOT NULL,\n"
    "  PRIMARY KEY(blob, mapper));\n"

    "CREATE TABLE refuge_cuts(\n"
    "  mapper bigint NOT NULL,\n"
    "  blob bigint NOT NULL,\n"
    "  n bigint NOT NULL,\n"
    "  \"table\" text COLLATE \"C\" NOT NULL,\n"
    "  \"column\" text COLLATE \"C\" NOT NULL,\n"
    "  kind text COLLATE \"C\" NOT NULL,\n"
    "  PRIMARY KEY(blob, mapper, n, \"table\", \"column\", kind));\n"

    "CREATE TABLE refuge_facts(name text COLLATE \"C\" PRIMARY KEY, value text NOT NULL);\n"

    "CREATE VIEW refuge_errors AS\n"
    "  SELECT b.item, b.name, m.name AS mapper, d.class, d.reason, d.attempts, d.at\n"
    "  FROM refuge_dead_letters d JOIN refuge_lane_mappers m ON m.id = d.mapper\n"
    "  JOIN refuge_lanes l ON l.id = m.lane AND l.state = 'live' JOIN blobs b ON b.id = d.blob;\n"
    "CREATE VIEW refuge_edges AS\n"
    "  SELECT p.item AS parent, m.name AS mapper, e.n, c.item AS part, e.name, c.media,\n"
    "  e.\"offset\", e.size FROM refuge_parts e JOIN refuge_lane_mappers m ON m.id = e.mapper\n"
    "  JOIN refuge_lanes l ON l.id = m.lane AND l.state = 'live'\n"
    "  JOIN blobs p ON p.id = e.parent JOIN blobs c ON c.id = e.child;\n";

/* Kind, name, what a person should know of it. */
static const char *const comments[][3] = {
    {"TABLE", "refuge_format", "the form of this schema"},
    {"SEQUENCE", "refuge_blob_ids", "blocks of 1000 ids of blobs"},
    {"TABLE", "blobs", "every item ever seen: a blob, a file, or a part of one"},
    {"TABLE", "refuge_lanes", "generations of mappers: one live, others being built"},
    {"TABLE", "refuge_mappers", "texts and declarations, so that an index can be rebuilt"},
    {"TABLE", "refuge_lane_mappers", "one mapper in one lane"},
    {"TABLE", "refuge_tables", "which mapper fills which table"},
    {"TABLE", "refuge_parts", "edges: an item cut out of another"},
    {"TABLE", "refuge_needs", "other blobs a mapper read for an item, in order"},
    {"TABLE", "refuge_parks", "mapping that waits: slow, need or ready"},
    {"TABLE", "refuge_dead_letters", "set aside with the reason"},
    {"TABLE", "refuge_cuts", "values that were cleaned: utf8, nul, long, year or float"},
    {"TABLE", "refuge_facts", "small facts of the index"},
    {"VIEW", "refuge_errors", "the live lane's dead letters in words"},
    {"VIEW", "refuge_edges", "the live lane's parts in words"},
};
static const char *const column_comments[][2] = {
    {"blobs.item", "blobref; of a part: blobref;media type"},
    {"blobs.kind", "blob, file or part"},
    {"blobs.ts", "when it was stored (of a deleted one: deleted)"},
    {"blobs.seq", "its latest change in the store's queue; of a part: 0"},
    {"blobs.mapped_at", "when the live lane's mappers last wrote it"},
    {"refuge_lanes.position", "complete up to here in the change queue"},
    {"refuge_lanes.writer", "token of who moved it last"},
    {"refuge_parts.\"offset\"", "within the parent's content; null: made by the mapper"},
    {"refuge_tables.indexed", "has the indexes that are made behind a first fill"},
};

static enum rf_status run_sql(struct rf_postgres *sink, struct rf_buf *sql, struct rf_error *err)
{
    const char *text = rf_buf_text(sql);
    enum rf_status status = text ? rf_pg_exec(sink->pg, err, "%s", text)
                                 : rf_error_set(err, sql->failed, "a declaration is too long");

    rf_buf_release(sql);
    return status;
}

/* Of what is in the schema only what is ours to give. */
enum rf_status rf_postgres_grant_all(struct rf_postgres *sink, struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    struct rf_buf sql;
    enum rf_status status;

    if (!sink->reader)
        return RF_OK;
    status = rf_pg_query(sink->pg, &rows, err,
                         "SELECT c.relname::text FROM pg_class c JOIN pg_namespace s ON s.oid = "
                         "c.relnamespace WHERE s.nspname = $1 AND c.relkind IN ('r', 'v') AND "
                         "pg_has_role(c.relowner, 'USAGE') ORDER BY 1",
                         "t", rf_pg_schema(sink->pg));
    if (status)
        return status;
    rf_buf_init(&sql, 16 << 20);
    rf_pg_put_sql(&sql, "GRANT USAGE ON SCHEMA \"%w\" TO \"%w\"", rf_pg_schema(sink->pg),
                  sink->reader);
    for (size_t row = 0; row < rf_pg_count(rows); row++)
        rf_pg_put_sql(&sql, "%s\"%w\"", row ? ", " : "; GRANT SELECT ON ",
                      rf_pg_text_at(rows, row, 0));
    if (rf_pg_count(rows))
        rf_pg_put_sql(&sql, " TO \"%w\"", sink->reader);
    rf_pg_rows_free(rows);
    return run_sql(sink, &sql, err);
}

/* A schema of this name that was made for us is used when it is empty. */
static enum rf_status take_schema(struct rf_postgres *sink, struct rf_error *err)
{
    const char *name = rf_pg_schema(sink->pg);
    int64_t things;
    enum rf_status status;

    status = rf_pg_int(sink->pg, &things, -1, err,
                       "SELECT (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid) "
                       "FROM pg_namespace n WHERE nspname = $1",
                       "t", name);
    if (!status && things > 0)
        status = rf_error_set(err, RF_CORRUPT,
                              "index '%s' cannot be made: schema '%s' holds %lld tables or others "
                              "that are not an index; name another schema",
                              rf_pg_name(sink->pg), name, (long long)things);
    if (!status && things < 0)
        status = rf_pg_exec(sink->pg, err,
                            "CREATE SCHEMA \"%w\"; COMMENT ON SCHEMA \"%w\" IS 'an index" MARK "'",
                            name, name);
    return status;
}

enum rf_status rf_postgres_make_own(struct rf_pg *pg, struct rf_error *err)
{
    struct rf_buf sql;
    enum rf_status status;

    rf_buf_init(&sql, 1 << 20);
    rf_buf_put_text(&sql, schema);
    for (size_t i = 0; i < sizeof comments / sizeof *comments; i++) {
        char text[200];
        snprintf(text, sizeof text, "%s" MARK, comments[i][2]);
        rf_pg_put_sql(&sql, "COMMENT ON %s %s IS %Q;\n", comments[i][0], comments[i][1], text);
    }
    for (size_t i = 0; i < sizeof column_comments / sizeof *column_comments; i++)
        rf_pg_put_sql(&sql, "COMMENT ON COLUMN %s IS %Q;\n", column_comments[i][0],
                      column_comments[i][1]);
    status = rf_pg_exec(pg, err, "%s", rf_buf_text(&sql));
    rf_buf_release(&sql);
    return status;
}

enum rf_status rf_postgres_make_schema(struct rf_postgres *sink, struct rf_error *err)
{
    struct rf_pg *pg = sink->pg;
    enum rf_status status = rf_pg_exec(pg, err, "BEGIN");

    if (!status)
        status = take_schema(sink, err);
    if (!status)
        status = rf_postgres_make_own(pg, err);
    if (!status)
        status = rf_pg_exec(pg, err, "INSERT INTO refuge_format VALUES(%d)", RF_POSTGRES_FORMAT);
    if (!status)
        status = rf_postgres_grant_all(sink, err);
    return rf_postgres_finish(sink, status, err);
}

/* ---- mapper tables ---- */

const char *rf_postgres_type(enum rf_type type)
{
    switch (type) {
    case RF_TYPE_INT:
        return "bigint";
    case RF_TYPE_BOOL:
        return "boolean";
    case RF_TYPE_FLOAT:
        return "double precision";
    case RF_TYPE_JSON:
        return "json";
    case RF_TYPE_TIME:
        return "timestamptz";
    default:
        return "text";
    }
}

static const char *sql_column_type(enum rf_type type)
{
    return type == RF_TYPE_BLOBREF ? "text COLLATE \"C\"" : rf_postgres_type(type);
}

size_t rf_postgres_search_count(const struct rf_table *table)
{
    size_t count = 0;

    for (size_t i = 0; i < table->column_count; i++)
        count += table->columns[i].search;
    return count;
}

void rf_postgres_table_name(char out[RF_POSTGRES_NAME], const struct rf_table *table,
                            uint32_t lane, bool live)
{
    if (live)
        snprintf(out, RF_POSTGRES_NAME, "%s", table->name);
    else
        snprintf(out, RF_POSTGRES_NAME, "%s@%u", table->name, (unsigned)lane);
}

bool rf_postgres_has_stems(const struct rf_table *table)
{
    return table->language && rf_postgres_search_count(table);
}

/* Words stemmed by the server. It keeps the column true by itself: whoever writes a row cannot
 * write this. The texts are cut, since a tsvector of more than 1 MiB would cost the row. */
static void put_stems(struct rf_buf *sql, const struct rf_table *table)
{
    const char *between = "";

    rf_pg_put_sql(sql, ",\n  refuge_stems tsvector GENERATED ALWAYS AS (to_tsvector(%Q::regconfig, "
                       "left(", table->language);
    for (size_t i = 0; i < table->column_count; i++) {
        if (!table->columns[i].search)
            continue;
        rf_pg_put_sql(sql, "%scoalesce(\"%w\", '')", between, table->columns[i].name);
        between = " || ' ' || ";
    }
    rf_pg_put_sql(sql, ", %d))) STORED", STEMS_MAX);
}

static void put_columns(struct rf_buf *sql, const struct rf_table *table)
{
    for (size_t i = 0; i < table->column_count; i++) {
        const struct rf_column *column = &table->columns[i];
        rf_pg_put_sql(sql, ",\n  \"%w\" %s", column->name, sql_column_type(column->type));
        if (column->type == RF_TYPE_TIME)
            rf_pg_put_sql(sql, ",\n  \"%w_offset\" integer", column->name);
    }
    if (rf_postgres_search_count(table))
        rf_buf_put_text(sql, ",\n  search tsvector");
    if (rf_postgres_has_stems(table))
        put_stems(sql, table);
}

static void put_comments(struct rf_buf *sql, const struct rf_table *table, const char *name)
{
    char text[600];

    snprintf(text, sizeof text, "%.500s" MARK, table->title ? table->title : table->name);
    rf_pg_put_sql(sql, "COMMENT ON TABLE \"%w\" IS %Q;\n", name, text);
    for (size_t i = 0; i < table->column_count; i++)
        if (table->columns[i].title)
            rf_pg_put_sql(sql, "COMMENT ON COLUMN \"%w\".\"%w\" IS %Q;\n", name,
                          table->columns[i].name, table->columns[i].title);
}

static enum rf_status check_language(struct rf_postgres *sink, const struct rf_table *table,
                                     struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    enum rf_status status;

    if (!rf_postgres_has_stems(table))
        return RF_OK;
    status = rf_pg_query(sink->pg, &rows, err,
                         "SELECT count(*) FILTER (WHERE cfgname::text = $1), string_agg(DISTINCT "
                         "cfgname::text, ', ') FROM pg_ts_config WHERE "
                         "pg_ts_config_is_visible(oid)",
                         "t", table->language);
    if (!status && !rf_pg_int_at(rows, 0, 0))
        status = rf_error_set(err, RF_INVALID,
                              "the server of index '%s' knows no language '%s', which the mapper "
                              "of table '%s' declares; it knows %.300s",
                              rf_pg_name(sink->pg), table->language, table->name,
                              rf_pg_text_at(rows, 0, 1));
    rf_pg_rows_free(rows);
    return status;
}

enum rf_status rf_postgres_make_table(struct rf_postgres *sink, int64_t table_id,
                                      const struct rf_table *table, uint32_t lane, bool live,
                                      struct rf_error *err)
{
    char name[RF_POSTGRES_NAME];
    struct rf_buf sql;
    enum rf_status status = check_language(sink, table, err);

    if (status)
        return status;

    rf_postgres_table_name(name, table, lane, live);
    rf_buf_init(&sql, 1 << 20);
    rf_pg_put_sql(&sql,
                  "CREATE TABLE \"%w\"(\n  id bigint GENERATED BY DEFAULT AS IDENTITY "
                  "(SEQUENCE NAME \"refuge_%lld_id\" CACHE 1000),\n"
                  "  blob bigint NOT NULL,\n  n bigint NOT NULL",
                  name, (long long)table_id);
    put_columns(&sql, table);
    rf_pg_put_sql(&sql, ",\n  CONSTRAINT \"refuge_%lld_key\" PRIMARY KEY(blob, n));\n",
                  (long long)table_id);
    put_comments(&sql, table, name);
    if (sink->reader)
        rf_pg_put_sql(&sql, "GRANT SELECT ON \"%w\" TO \"%w\";\n", name, sink->reader);
    status = run_sql(sink, &sql, err);
    if (!status && live)
        status = rf_postgres_make_view(sink, table, err);
    return status;
}

/* A B-tree takes no value above some 2,700 bytes (a third of a page, BTMaxItemSize of nbtree.h),
 * and one row with a longer text would keep the index from being made. So a text by itself is
 * hashed, which is all that finding a value asks for; among others its beginning is taken. */
#define BTREE_TEXT_CHARS 600u /* of 4 bytes each at most, shared by the texts of an index */

static bool is_long(const struct rf_column *column)
{
    return column->type == RF_TYPE_TEXT || column->type == RF_TYPE_JSON;
}

static const struct rf_column *find_column(const struct rf_table *table, const char *name)
{
    const struct rf_column *column = table->columns;

    while (strcmp(column->name, name) != 0)
        column++;
    return column;
}

static void put_facet(struct rf_buf *sql, const struct rf_column *column)
{
    const char *cast = column->type == RF_TYPE_JSON ? "::text" : "";

    rf_pg_put_sql(sql, is_long(column) ? " USING hash((\"%w\"%s));\n" : "((\"%w\"%s));\n",
                  column->name, cast);
}

static void put_index_columns(struct rf_buf *sql, const struct rf_table *table,
                              const struct rf_table_index *index)
{
    unsigned texts = 0, share = BTREE_TEXT_CHARS;

    for (size_t k = 0; k < index->count; k++)
        texts += is_long(find_column(table, index->columns[k]));
    if (index->count == 1) {
        put_facet(sql, find_column(table, index->columns[0]));
        return;
    }
    if (texts > 1)
        share /= texts;
    rf_buf_put_text(sql, "(");
    for (size_t k = 0; k < index->count; k++) {
        const struct rf_column *column = find_column(table, index->columns[k]);

        rf_pg_put_sql(sql, k ? ", " : "");
        if (is_long(column))
            rf_pg_put_sql(sql, "left(\"%w\"%s, %u)", column->name,
                          column->type == RF_TYPE_JSON ? "::text" : "", share);
        else
            rf_pg_put_sql(sql, "\"%w\"", column->name);
    }
    rf_buf_put_text(sql, ");\n");
}

/* An index keeps its name through a swap; the number of the table makes it one of its own. */
enum rf_status rf_postgres_make_indexes(struct rf_postgres *sink, int64_t table_id,
                                        const struct rf_table *table, const char *name,
                                        struct rf_error *err)
{
    struct rf_buf sql;
    unsigned number = 0;
    long long id = (long long)table_id;

    rf_buf_init(&sql, 1 << 20);
    rf_pg_put_sql(&sql, "CREATE UNIQUE INDEX \"refuge_%lld_%u\" ON \"%w\"(id);\n", id, ++number,
                  name);
    for (size_t i = 0; i < table->column_count; i++) {
        const struct rf_column *column = &table->columns[i];
        if (!column->facet && column->type != RF_TYPE_TIME)
            continue;
        rf_pg_put_sql(&sql, "CREATE INDEX \"refuge_%lld_%u\" ON \"%w\"", id, ++number, name);
        put_facet(&sql, column);
    }
    for (size_t i = 0; i < table->index_count; i++) {
        rf_pg_put_sql(&sql, "CREATE INDEX \"refuge_%lld_%u\" ON \"%w\"", id, ++number, name);
        put_index_columns(&sql, table, &table->indexes[i]);
    }
    if (rf_postgres_search_count(table))
        rf_pg_put_sql(&sql, "CREATE INDEX \"refuge_%lld_%u\" ON \"%w\" USING gin(search);\n", id,
                      ++number, name);
    if (rf_postgres_has_stems(table))
        rf_pg_put_sql(&sql, "CREATE INDEX \"refuge_%lld_%u\" ON \"%w\" USING gin(refuge_stems);\n",
                      id, ++number, name);
    rf_pg_put_sql(&sql, "ALTER TABLE \"%w\" ADD FOREIGN KEY(blob) REFERENCES blobs(id);\n", name);
    rf_pg_put_sql(&sql, "ANALYZE \"%w\";\nUPDATE refuge_tables SET indexed = 1 WHERE id = %lld",
                  name, id);
    return run_sql(sink, &sql, err);
}

/* Newest by the named column or the item's timestamp; ties by sequence, item, then order of
 * rows. NULL is the oldest, as in SQLite. */
enum rf_status rf_postgres_make_view(struct rf_postgres *sink, const struct rf_table *table,
                                     struct rf_error *err)
{
    const struct rf_latest *latest = &table->latest;
    struct rf_buf sql;

    if (!latest->count)
        return RF_OK;
    rf_buf_init(&sql, 1 << 20);
    rf_pg_put_sql(&sql, "CREATE VIEW \"%w_latest\" AS SELECT id, blob, n", table->name);
    for (size_t i = 0; i < table->column_count; i++) {
        rf_pg_put_sql(&sql, ", \"%w\"", table->columns[i].name);
        if (table->columns[i].type == RF_TYPE_TIME)
            rf_pg_put_sql(&sql, ", \"%w_offset\"", table->columns[i].name);
    }
    rf_buf_put_text(&sql, " FROM (SELECT t.*, row_number() OVER (PARTITION BY ");
    for (size_t i = 0; i < latest->count; i++)
        rf_pg_put_sql(&sql, "%st.\"%w\"", i ? ", " : "", latest->key[i]);
    if (latest->by)
        rf_pg_put_sql(&sql, " ORDER BY t.\"%w\"", latest->by);
    else
        rf_buf_put_text(&sql, " ORDER BY b.ts");
    rf_pg_put_sql(&sql,
                  " DESC NULLS LAST, b.seq DESC, b.item DESC, t.n DESC) AS refuge_rank FROM "
                  "\"%w\" t JOIN blobs b ON b.id = t.blob) x WHERE refuge_rank = 1;\n"
                  "COMMENT ON VIEW \"%w_latest\" IS 'the newest row of each key" MARK "';\n",
                  table->name, table->name);
    if (sink->reader)
        rf_pg_put_sql(&sql, "GRANT SELECT ON \"%w_latest\" TO \"%w\";\n", table->name,
                      sink->reader);
    return run_sql(sink, &sql, err);
}

enum rf_status rf_postgres_drop_table(struct rf_postgres *sink, const struct rf_table *table,
                                      uint32_t lane, bool live, struct rf_error *err)
{
    char name[RF_POSTGRES_NAME];
    enum rf_status status = RF_OK;

    rf_postgres_table_name(name, table, lane, live);
    if (live && table->latest.count)
        status = rf_pg_exec(sink->pg, err, "DROP VIEW IF EXISTS \"%w_latest\"", table->name);
    return status ? status : rf_pg_exec(sink->pg, err, "DROP TABLE IF EXISTS \"%w\"", name);
}

enum rf_status rf_postgres_raise_table(struct rf_postgres *sink, const struct rf_table *table,
                                       uint32_t lane, struct rf_error *err)
{
    char name[RF_POSTGRES_NAME];
    enum rf_status status;

    rf_postgres_table_name(name, table, lane, false);
    status = rf_pg_exec(sink->pg, err, "ALTER TABLE \"%w\" RENAME TO \"%w\"", name, table->name);
    return status ? status : rf_postgres_make_view(sink, table, err);
}

/* ---- the whole schema ---- */

/* What we made, by its mark: views and tables in one statement each, so that they may depend on
 * each other; the server refuses when something else depends on them. */
static enum rf_status put_drops(struct rf_pg *pg, struct rf_buf *sql, struct rf_error *err)
{
    static const struct {
        const char *kind, *words;
    } kinds[] = {{"v", "DROP VIEW "}, {"r", "DROP TABLE "}, {"S", "DROP SEQUENCE "}};
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < sizeof kinds / sizeof *kinds; i++) {
        struct rf_pg_rows *rows = NULL;
        status = rf_pg_query(pg, &rows, err,
                             "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid "
                             "= c.relnamespace WHERE n.nspname = $1 AND c.relkind = $2::\"char\" "
                             "AND obj_description(c.oid, 'pg_class') LIKE '%' || $3",
                             "ttt", rf_pg_schema(pg), kinds[i].kind, MARK);
        for (size_t row = 0; row < rf_pg_count(rows); row++)
            rf_pg_put_sql(sql, "%s\"%w\"", row ? ", " : kinds[i].words,
                          rf_pg_text_at(rows, row, 0));
        if (rf_pg_count(rows))
            rf_buf_put_text(sql, ";\n");
        rf_pg_rows_free(rows);
    }
    return status;
}

enum rf_status rf_postgres_drop_schema(struct rf_pg *pg, struct rf_error *err)
{
    struct rf_error why = {0};
    struct rf_buf sql;
    int64_t left;
    enum rf_status status;

    rf_buf_init(&sql, 16 << 20);
    status = put_drops(pg, &sql, err);
    if (!status && !rf_buf_text(&sql))
        status = rf_error_set(err, sql.failed, "index '%s' has too many tables", rf_pg_name(pg));
    if (!status)
        status = rf_pg_exec(pg, &why, "BEGIN; %s", rf_buf_text(&sql));
    rf_buf_release(&sql);
    if (why.status && strcmp(rf_pg_state(pg), "2BP01") == 0)
        status = rf_error_set(err, RF_INVALID, "%s; drop what depends on the index first",
                              why.message);
    else if (why.status)
        status = rf_error_set(err, status, "%s", why.message);
    if (!status)
        status = rf_pg_int(pg, &left, 0, err,
                           "SELECT count(*) FROM pg_depend WHERE refclassid = "
                           "'pg_namespace'::regclass AND refobjid = to_regnamespace($1)",
                           "t", rf_pg_schema(pg));
    if (!status && left == 0)
        status = rf_pg_exec(pg, err, "DROP SCHEMA IF EXISTS \"%w\"", rf_pg_schema(pg));
    if (!status)
        status = rf_pg_exec(pg, err, "COMMIT");
    else if (rf_pg_in_transaction(pg))
        (void)!rf_pg_exec(pg, NULL, "ROLLBACK");
    return status;
}
