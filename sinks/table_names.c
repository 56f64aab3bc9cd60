/* table_names.c - see table_names.h */
#include "sinks/table_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct taken {
    char name[RF_NAME_MAX + 16];
    const char *mapper, *table;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct taken *)a)->name, ((const struct taken *)b)->name);
}

static bool is_searched(const struct rf_table *table)
{
    for (size_t i = 0; i < table->column_count; i++)
        if (table->columns[i].search)
            return true;
    return false;
}

static size_t take_names(struct taken *out, const struct rf_decl *decl)
{
    static const char *const suffixes[] = {
        "", "_fts", "_fts_data", "_fts_idx", "_fts_docsize", "_fts_config", "_latest"};
    size_t count = 0;

    for (size_t i = 0; i < decl->table_count; i++) {
        const struct rf_table *table = &decl->tables[i];
        for (size_t k = 0; k < 7; k++) {
            struct taken *taken = &out[count];
            if ((k == 6 && !table->latest.count) || (k > 0 && k < 6 && !is_searched(table)))
                continue;
            *taken = (struct taken){.mapper = decl->name, .table = table->name};
            snprintf(taken->name, sizeof taken->name, "%s%s", table->name, suffixes[k]);
            count++;
        }
    }
    return count;
}

/* What a column of PostgreSQL cannot be called, and what columns of our own are. */
static bool is_reserved(const struct rf_table *table, const char *name)
{
    static const char *const of_server[] = {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"};

    for (size_t i = 0; i < sizeof of_server / sizeof *of_server; i++)
        if (strcmp(name, of_server[i]) == 0)
            return true;
    return strcmp(name, "search") == 0 && is_searched(table);
}

static enum rf_status check_columns(const struct rf_decl *decl, struct rf_error *err)
{
    for (size_t i = 0; i < decl->table_count; i++)
        for (size_t k = 0; k < decl->tables[i].column_count; k++)
            if (is_reserved(&decl->tables[i], decl->tables[i].columns[k].name))
                return rf_error_set(err, RF_INVALID,
                                    "table '%s' of mapper '%s' has a column '%s', which a server "
                                    "has by itself: rename it",
                                    decl->tables[i].name, decl->name,
                                    decl->tables[i].columns[k].name);
    return RF_OK;
}

enum rf_status rf_table_names_check(const struct rf_decl *const *decls, size_t count,
                                    struct rf_error *err)
{
    struct taken *taken;
    size_t tables = 0, used = 0;
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < count; i++)
        tables += decls[i]->table_count;
    taken = calloc(7 * tables + 1, sizeof *taken);
    if (!taken)
        abort();
    for (size_t i = 0; i < count; i++)
        used += take_names(taken + used, decls[i]);
    if (used)
        qsort(taken, used, sizeof *taken, by_name);
    for (size_t i = 1; !status && i < used; i++) {
        const struct taken *a = &taken[i - 1], *b = &taken[i];
        if (strcmp(a->name, b->name) == 0)
            status = rf_error_set(err, RF_INVALID,
                                  "table '%s' of mapper '%s' and table '%s' of mapper '%s' both "
                                  "need the name '%s': rename one of them",
                                  a->table, a->mapper, b->table, b->mapper, a->name);
    }
    free(taken);
    for (size_t i = 0; !status && i < count; i++)
        status = check_columns(decls[i], err);
    return status;
}
