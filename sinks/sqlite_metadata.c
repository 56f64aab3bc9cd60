/*
 * sqlite_metadata.c - metadata.json for Datasette, from the mappers' declarations
 *
 * Form: docs.datasette.io, "Metadata": databases -> NAME -> tables -> {title, columns, facets,
 * sort_desc, label_column}. refuge's own tables are hidden there, not removed.
 */
#include "sinks/sink_sqlite.h"

#include "core/json.h"
#include "core/utf8.h"

static void put_key(struct rf_buf *buf, const char *key)
{
    rf_json_put_string(buf, rf_bytes_text(key));
    rf_buf_put_text(buf, ": ");
}

static void put_text(struct rf_buf *buf, const char *key, const char *value)
{
    put_key(buf, key);
    rf_json_put_string(buf, rf_bytes_text(value));
}

/* The name Datasette gives a database: its file's name without the ending. */
static void put_database_name(struct rf_buf *buf, const char *path)
{
    struct rf_buf clean;
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    size_t size = strlen(name);

    if (size > 3 && strcmp(name + size - 3, ".db") == 0)
        size -= 3;
    rf_buf_init(&clean, 1 << 16);
    rf_utf8_clean(&clean, rf_bytes(name, size), false, NULL, NULL);
    rf_json_put_string(buf, rf_buf_bytes(&clean));
    rf_buf_release(&clean);
}

static void put_columns(struct rf_buf *buf, const struct rf_table *table)
{
    const char *separator = "";

    rf_buf_put_text(buf, ",\n     \"columns\": {");
    for (size_t i = 0; i < table->column_count; i++) {
        const struct rf_column *column = &table->columns[i];
        if (column->title) {
            rf_buf_put_text(buf, separator);
            put_text(buf, column->name, column->title);
            separator = ", ";
        }
    }
    rf_buf_put_text(buf, "}");
}

static void put_facets(struct rf_buf *buf, const struct rf_table *table)
{
    const char *separator = "";

    rf_buf_put_text(buf, ",\n     \"facets\": [");
    for (size_t i = 0; i < table->column_count; i++) {
        if (table->columns[i].facet) {
            rf_buf_put_text(buf, separator);
            rf_json_put_string(buf, rf_bytes_text(table->columns[i].name));
            separator = ", ";
        }
    }
    rf_buf_put_text(buf, "]");
}

static void put_table(struct rf_buf *buf, const struct rf_decl *decl, const struct rf_table *table)
{
    const struct rf_column *label = NULL, *time = NULL;

    for (size_t i = table->column_count; i-- > 0;) {
        if (table->columns[i].type == RF_TYPE_TEXT)
            label = &table->columns[i];
        if (table->columns[i].type == RF_TYPE_TIME)
            time = &table->columns[i];
    }
    rf_buf_put_text(buf, ",\n    ");
    put_key(buf, table->name);
    rf_buf_put_text(buf, "{");
    put_text(buf, "title", table->title ? table->title : table->name);
    rf_buf_put_text(buf, ", ");
    put_text(buf, "source", decl->title ? decl->title : decl->name);
    put_columns(buf, table);
    put_facets(buf, table);
    if (label) {
        rf_buf_put_text(buf, ", ");
        put_text(buf, "label_column", label->name);
    }
    if (time) {
        rf_buf_put_text(buf, ", ");
        put_text(buf, "sort_desc", time->name);
    }
    rf_buf_put_text(buf, "}");
}

enum rf_status rf_sqlite_metadata(const char *path, struct rf_buf *buf, struct rf_error *err)
{
    static const char *const own[] = {"refuge_lanes",        "refuge_mappers", "refuge_tables",
                                      "refuge_lane_mappers", "refuge_parts",   "refuge_needs",
                                      "refuge_parks",        "refuge_facts",   "refuge_cuts",
                                      "refuge_dead_letters"};
    struct rf_sqlite_live live;
    struct rf_arena arena;
    struct rf_db db;
    enum rf_status status = rf_db_open(&db, path, RF_DB_READ, 0, NULL, err);

    if (status)
        return status;
    rf_arena_init(&arena, 64u << 20);
    (void)rf_db_hold(&db); /* until it is closed */
    status = rf_sqlite_live(&db, &arena, &live, err);
    if (status)
        goto out;
    rf_buf_put_text(buf, "{\"databases\": {");
    put_database_name(buf, path);
    rf_buf_put_text(buf, ": {\n  \"tables\": {\n    \"blobs\": {\"label_column\": \"item\", "
                         "\"sort_desc\": \"seq\"}");
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        rf_buf_printf(buf, ",\n    \"%s\": {\"hidden\": true}", own[i]);
    for (size_t i = 0; i < live.count; i++)
        for (size_t k = 0; k < live.mappers[i].decl->table_count; k++)
            put_table(buf, live.mappers[i].decl, &live.mappers[i].decl->tables[k]);
    rf_buf_put_text(buf, "\n  }\n}}}\n");
    if (buf->failed)
        status = rf_error_set(err, buf->failed, "the metadata of index '%s' has no room", path);
out:
    rf_arena_release(&arena);
    rf_db_close(&db);
    return status;
}
