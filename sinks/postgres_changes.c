/*
 * postgres_changes.c - what of an index's tables somebody changed or dropped
 *
 * Read from the catalogue, in one question for all tables and in the state that the transaction
 * sees: who asks the tables themselves learns of one at a time, and a statement that fails ends the
 * transaction it is in.
 */
#include "sinks/sink_postgres.h"

#include <stdio.h>
#include <stdlib.h>

/* A row for each column that there should be. */
struct wanted {
    const char **tables, **names, **types;
    char (*offsets)[RF_POSTGRES_NAME]; /* names of our making */
    size_t count;
};

static void want(struct wanted *wanted, const char *table, const char *name, const char *type)
{
    wanted->tables[wanted->count] = table;
    wanted->names[wanted->count] = name;
    wanted->types[wanted->count++] = type;
}

static void want_table(struct wanted *wanted, const struct rf_pg_named *named)
{
    const struct rf_table *decl = named->decl;

    want(wanted, named->name, "id", "bigint");
    want(wanted, named->name, "blob", "bigint");
    want(wanted, named->name, "n", "bigint");
    for (size_t i = 0; i < decl->column_count; i++) {
        char *offset = wanted->offsets[wanted->count];

        want(wanted, named->name, decl->columns[i].name, rf_postgres_type(decl->columns[i].type));
        if (decl->columns[i].type != RF_TYPE_TIME)
            continue;
        snprintf(offset, RF_POSTGRES_NAME, "%s_offset", decl->columns[i].name);
        want(wanted, named->name, offset, "integer");
    }
    if (rf_postgres_search_count(decl))
        want(wanted, named->name, "search", "tsvector");
    if (rf_postgres_has_stems(decl))
        want(wanted, named->name, "refuge_stems", "tsvector");
}

enum rf_status rf_postgres_find_changes(struct rf_pg *pg, const struct rf_pg_named *tables,
                                        size_t count, struct rf_pg_rows **out,
                                        struct rf_error *err)
{
    static const char sql[] =
        "SELECT w.tab, CASE WHEN c.oid IS NULL THEN 'it is not there' ELSE string_agg('column ' || "
        "w.name || ' is ' || coalesce(format_type(a.atttypid, a.atttypmod) || ', not ' || w.type, "
        "'not there'), '; ' ORDER BY w.at) END FROM unnest($1, $2, $3) WITH ORDINALITY w(tab, "
        "name, type, at) LEFT JOIN pg_class c ON c.relname = w.tab::name AND c.relnamespace = "
        "(SELECT oid FROM pg_namespace WHERE nspname = $4) LEFT JOIN pg_attribute a ON a.attrelid "
        "= c.oid AND a.attname = w.name::name AND NOT a.attisdropped WHERE a.atttypid IS DISTINCT "
        "FROM w.type::regtype::oid GROUP BY w.tab, c.oid ORDER BY min(w.at)";
    struct wanted wanted = {0};
    size_t most = 1;
    enum rf_status status;

    for (size_t i = 0; i < count; i++)
        most += 5 + 2 * tables[i].decl->column_count;
    wanted.tables = malloc(most * sizeof *wanted.tables);
    wanted.names = malloc(most * sizeof *wanted.names);
    wanted.types = malloc(most * sizeof *wanted.types);
    wanted.offsets = malloc(most * sizeof *wanted.offsets);
    if (!wanted.tables || !wanted.names || !wanted.types || !wanted.offsets)
        abort();
    for (size_t i = 0; i < count; i++)
        want_table(&wanted, &tables[i]);
    status = rf_pg_query(pg, out, err, sql, "TTTt", wanted.tables, wanted.count, wanted.names,
                         wanted.count, wanted.types, wanted.count, rf_pg_schema(pg));
    free(wanted.tables);
    free(wanted.names);
    free(wanted.types);
    free(wanted.offsets);
    return status;
}

enum rf_status rf_postgres_lane_changes(struct rf_postgres *sink, const struct rf_pg_lane *lane,
                                        struct rf_pg_rows **out, struct rf_error *err)
{
    struct rf_pg_named *tables;
    size_t most = 1, count = 0;
    enum rf_status status;

    for (size_t i = 0; i < lane->mapper_count; i++)
        most += lane->mappers[i].decl->table_count;
    tables = malloc(most * sizeof *tables);
    if (!tables)
        abort();
    for (size_t i = 0; i < lane->mapper_count; i++)
        for (size_t k = 0; !lane->mappers[i].edges_only && k < lane->mappers[i].decl->table_count;
             k++)
            tables[count++] = (struct rf_pg_named){lane->mappers[i].tables[k].name,
                                                   lane->mappers[i].tables[k].decl};
    status = rf_postgres_find_changes(sink->pg, tables, count, out, err);
    free(tables);
    return status;
}

enum rf_status rf_postgres_tell_changes(struct rf_postgres *sink, const struct rf_pg_rows *changes,
                                        struct rf_error *err)
{
    struct rf_buf words;
    enum rf_status status = RF_OK;

    rf_buf_init(&words, 1 << 20);
    for (size_t row = 0; row < rf_pg_count(changes); row++)
        rf_buf_printf(&words, "%stable '%s' was changed behind refuge's back: %.200s",
                      row ? ", " : "", rf_pg_text_at(changes, row, 0),
                      rf_pg_text_at(changes, row, 1));
    if (rf_pg_count(changes))
        status = rf_error_set(err, RF_CORRUPT,
                              "index '%s': %.600s; run 'refuge index rebuild%s'",
                              rf_pg_name(sink->pg), rf_buf_text(&words), sink->argument);
    rf_buf_release(&words);
    return status;
}
