/*
 * decl.c - checking what a mapper declares
 *
 * Whatever passes here becomes SQL names, so each rule is checked in one place and each error names
 * the table and column. Adding a member: the list of its object's names, the reader of the object.
 */
#include "core/decl.h"

#include <string.h>

#include "core/json.h"
#include "core/nearest.h"
#include "core/utf8.h"

#define INDEXES_MAX 16 /* of one table */
#define WORDS_MAX 200  /* bytes of a title or version */

struct check {
    struct rf_arena *arena;
    struct rf_error *err;
};

static const char *const type_names[RF_TYPE_COUNT] = {
    [RF_TYPE_INT] = "int",   [RF_TYPE_FLOAT] = "float", [RF_TYPE_BOOL] = "bool",
    [RF_TYPE_TEXT] = "text", [RF_TYPE_JSON] = "json",   [RF_TYPE_TIME] = "time",
    [RF_TYPE_BLOBREF] = "blobref",
};

const char *rf_type_name(enum rf_type type)
{
    return type > 0 && type < RF_TYPE_COUNT ? type_names[type] : "null";
}

enum rf_type rf_type_find(const char *name, size_t size)
{
    for (unsigned i = 1; i < RF_TYPE_COUNT; i++)
        if (strlen(type_names[i]) == size && memcmp(type_names[i], name, size) == 0)
            return (enum rf_type)i;
    return 0;
}

/* ---- values ---- */

static const char *kind_of(const struct rf_json *value)
{
    static const char *const kinds[] = {"null",     "a boolean", "a boolean", "a number",
                                        "a string", "a list",    "an object"};
    return kinds[value->type];
}

static enum rf_status wrong_kind(struct check *check, const struct rf_json *value,
                                 const char *member, const char *want)
{
    return rf_error_set(check->err, RF_INVALID, "'%s' must be %s, not %s", member, want,
                        kind_of(value));
}

/* An object whose members are all in names. */
static enum rf_status check_members(struct check *check, const struct rf_json *value,
                                    const char *what, const char *const *names, size_t count)
{
    const char *key, *near;
    size_t i;

    if (value->type != RF_JSON_OBJECT)
        return rf_error_set(check->err, RF_INVALID, "%s must be an object, not %s", what,
                            kind_of(value));
    for (size_t m = 0; m < value->count; m++) {
        key = (const char *)value->items[m].key.data;
        for (i = 0; i < count && strcmp(key, names[i]) != 0; i++)
            ;
        if (i < count && strlen(key) == value->items[m].key.size)
            continue;
        near = rf_nearest(key, names, count);
        return rf_error_set(check->err, RF_INVALID, "unknown member '%s' of %s%s%s%s", key, what,
                            near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    return RF_OK;
}

static const struct rf_json *list_find(const struct rf_json *object, const char *name)
{
    const struct rf_json *value = rf_json_find(object, name);
    static const struct rf_json none = {.type = RF_JSON_ARRAY};

    if (!value || value->type == RF_JSON_NULL)
        return &none;
    /* A Lua table without entries has no kind of its own. */
    return value->type == RF_JSON_OBJECT && value->count == 0 ? &none : value;
}

static enum rf_status take_flag(struct check *check, const struct rf_json *object,
                                const char *member, bool *out)
{
    const struct rf_json *value = rf_json_find(object, member);

    if (!value || value->type == RF_JSON_NULL)
        return RF_OK;
    if (value->type != RF_JSON_TRUE && value->type != RF_JSON_FALSE)
        return wrong_kind(check, value, member, "true or false");
    *out = value->type == RF_JSON_TRUE;
    return RF_OK;
}

static enum rf_status copy_text(struct check *check, struct rf_bytes text, const char **out)
{
    *out = rf_arena_copy(check->arena, text.data, text.size);
    return *out ? RF_OK : rf_error_set(check->err, RF_LIMIT, "the declaration is too large");
}

/* Words for a person: short, without NUL. Absent: *out is left alone. */
static enum rf_status take_words(struct check *check, const struct rf_json *object,
                                 const char *member, const char **out)
{
    const struct rf_json *value = rf_json_find(object, member);

    if (!value || value->type == RF_JSON_NULL)
        return RF_OK;
    if (value->type != RF_JSON_STRING && value->type != RF_JSON_NUMBER)
        return wrong_kind(check, value, member, "text");
    if (value->text.size > WORDS_MAX || memchr(value->text.data, 0, value->text.size))
        return rf_error_set(check->err, RF_INVALID, "'%s' must be at most %d bytes without NUL",
                            member, WORDS_MAX);
    return copy_text(check, value->text, out);
}

/* ---- names ---- */

static bool name_is_good(const char *name, size_t size)
{
    if (size == 0 || size > RF_NAME_MAX || name[0] < 'a' || name[0] > 'z')
        return false;
    for (size_t i = 0; i < size; i++) {
        char c = name[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '_')
            return false;
    }
    return true;
}

static bool is_one_of(const char *name, const char *const *list)
{
    for (; *list; list++)
        if (strcmp(name, *list) == 0)
            return true;
    return false;
}

/* What a language is called: of the form of a name, whether a sink knows it or not. */
static enum rf_status take_language(struct check *check, const struct rf_json *object,
                                    const char **out)
{
    enum rf_status status = take_words(check, object, "language", out);
    char shown[RF_SHORT_SIZE];

    if (status == RF_OK && *out && !name_is_good(*out, strlen(*out)))
        status = rf_error_set(check->err, RF_INVALID,
                              "'language' must be a name like \"english\", not '%s'",
                              rf_utf8_short(shown, *out));
    return status;
}

/* The name of a mapper, table or column, by the rules they share and the words reserved for it. */
static enum rf_status take_name(struct check *check, const struct rf_json *object,
                                const char *what, const char *const *reserved, const char **out)
{
    static const char *const prefixes[] = {"refuge", "sqlite", "pg_"};
    const struct rf_json *value = rf_json_find(object, "name");
    const char *name = rf_json_string(value);

    if (!value)
        return rf_error_set(check->err, RF_INVALID, "%s has no 'name'", what);
    if (!name)
        return wrong_kind(check, value, "name", "text");
    if (!name_is_good(name, value->text.size))
        return rf_error_set(check->err, RF_INVALID,
                            "name '%s' of %s must be a-z, then a-z, 0-9 or _, at most %d in all",
                            name, what, RF_NAME_MAX);
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return rf_error_set(check->err, RF_INVALID,
                                "name '%s' of %s: names beginning with '%s' are reserved", name,
                                what, prefixes[i]);
    if (is_one_of(name, reserved))
        return rf_error_set(check->err, RF_INVALID, "name '%s' of %s is reserved", name, what);
    return copy_text(check, value->text, out);
}

static const struct rf_column *column_find(const struct rf_table *table, const char *name)
{
    for (size_t i = 0; i < table->column_count; i++)
        if (strcmp(table->columns[i].name, name) == 0)
            return &table->columns[i];
    return NULL;
}

/* An existing column named by a string within an index or a latest view. */
static enum rf_status take_column(struct check *check, const struct rf_table *table,
                                  const struct rf_json *value, const char *what,
                                  const struct rf_column **out)
{
    const char *name = rf_json_string(value), *names[RF_COLUMNS_MAX], *near;

    if (!name)
        return wrong_kind(check, value, what, "the name of a column");
    *out = strlen(name) == value->text.size ? column_find(table, name) : NULL;
    if (*out)
        return RF_OK;
    for (size_t i = 0; i < table->column_count; i++)
        names[i] = table->columns[i].name;
    near = rf_nearest(name, names, table->column_count);
    return rf_error_set(check->err, RF_INVALID, "%s names no column '%s'%s%s%s", what, name,
                        near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* One to eight different columns. */
static enum rf_status take_columns(struct check *check, const struct rf_table *table,
                                   const struct rf_json *list, const char *what,
                                   const char *out[8], size_t *count)
{
    const struct rf_column *column;
    enum rf_status status;

    if (list->type != RF_JSON_ARRAY || list->count == 0 || list->count > 8)
        return rf_error_set(check->err, RF_INVALID, "%s must be a list of one to eight columns",
                            what);
    for (size_t i = 0; i < list->count; i++) {
        status = take_column(check, table, &list->items[i], what, &column);
        if (status != RF_OK)
            return status;
        for (size_t j = 0; j < i; j++)
            if (out[j] == column->name)
                return rf_error_set(check->err, RF_INVALID, "%s names column '%s' twice", what,
                                    column->name);
        out[i] = column->name;
    }
    *count = list->count;
    return RF_OK;
}

/* ---- tables ---- */

static enum rf_status read_column(struct check *check, const struct rf_json *value,
                                  struct rf_column *out)
{
    static const char *const members[] = {"name", "type", "search", "facet", "title"};
    static const char *const reserved[] = {"id", "blob", "n", "grams", "rowid", "rank", NULL};
    const struct rf_json *type;
    const char *near;
    enum rf_status status;

    if ((status = check_members(check, value, "a column", members, 5)) != RF_OK ||
        (status = take_name(check, value, "a column", reserved, &out->name)) != RF_OK)
        return status;
    type = rf_json_find(value, "type");
    if (!rf_json_string(type))
        return rf_error_set(check->err, RF_INVALID, "column '%s' has no 'type'", out->name);
    out->type = rf_type_find((const char *)type->text.data, type->text.size);
    if (!out->type) {
        near = rf_nearest(rf_json_string(type), type_names + 1, RF_TYPE_COUNT - 1);
        return rf_error_set(check->err, RF_INVALID,
                            "column '%s': unknown type '%s'%s%s%s", out->name, rf_json_string(type),
                            near ? ", did you mean '" : "; types are int, float, bool, text, json, "
                                                        "time, blobref",
                            near ? near : "", near ? "'?" : "");
    }
    if ((status = take_flag(check, value, "search", &out->search)) != RF_OK ||
        (status = take_flag(check, value, "facet", &out->facet)) != RF_OK ||
        (status = take_words(check, value, "title", &out->title)) != RF_OK)
        return rf_error_context(check->err, status, "column '%s'", out->name);
    if (out->search && out->type != RF_TYPE_TEXT)
        return rf_error_set(check->err, RF_INVALID,
                            "column '%s': only text can be searched, not %s",
                            out->name, rf_type_name(out->type));
    return RF_OK;
}

/* No name twice, and none that a time column's offset takes. */
static enum rf_status check_columns_apart(struct check *check, const struct rf_table *table)
{
    char stem[RF_NAME_MAX + 1];
    const struct rf_column *other;

    for (size_t i = 0; i < table->column_count; i++) {
        const char *name = table->columns[i].name;
        size_t size = strlen(name);
        if (column_find(table, name) != &table->columns[i])
            return rf_error_set(check->err, RF_INVALID, "column '%s' is there twice", name);
        if (size <= 7 || strcmp(name + size - 7, "_offset") != 0)
            continue;
        memcpy(stem, name, size - 7);
        stem[size - 7] = '\0';
        other = column_find(table, stem);
        if (other && other->type == RF_TYPE_TIME)
            return rf_error_set(check->err, RF_INVALID,
                                "column '%s': the time column '%s' makes a column of that name",
                                name, stem);
    }
    return RF_OK;
}

static enum rf_status read_columns(struct check *check, const struct rf_json *object,
                                   struct rf_table *table)
{
    const struct rf_json *list = list_find(object, "columns");
    enum rf_status status;

    if (list->type != RF_JSON_ARRAY)
        return wrong_kind(check, list, "columns", "a list");
    if (list->count == 0 || list->count > RF_COLUMNS_MAX)
        return rf_error_set(check->err, RF_INVALID, "%zu columns; a table has 1 to %d", list->count,
                            RF_COLUMNS_MAX);
    table->columns = rf_arena_alloc(check->arena, list->count * sizeof *table->columns);
    for (size_t i = 0; i < list->count; i++) {
        status = read_column(check, &list->items[i], &table->columns[i]);
        if (status != RF_OK)
            return status;
    }
    table->column_count = list->count;
    return check_columns_apart(check, table);
}

static enum rf_status read_indexes(struct check *check, const struct rf_json *object,
                                   struct rf_table *table)
{
    const struct rf_json *list = list_find(object, "indexes");
    enum rf_status status;

    if (list->type != RF_JSON_ARRAY)
        return wrong_kind(check, list, "indexes", "a list of lists of columns");
    if (list->count > INDEXES_MAX)
        return rf_error_set(check->err, RF_INVALID, "%zu indexes; a table has at most %d",
                            list->count, INDEXES_MAX);
    if (list->count > 0)
        table->indexes = rf_arena_alloc(check->arena, list->count * sizeof *table->indexes);
    for (size_t i = 0; i < list->count; i++) {
        status = take_columns(check, table, &list->items[i], "an index", table->indexes[i].columns,
                              &table->indexes[i].count);
        if (status != RF_OK)
            return status;
    }
    table->index_count = list->count;
    return RF_OK;
}

static enum rf_status read_latest(struct check *check, const struct rf_json *object,
                                  struct rf_table *table)
{
    static const char *const members[] = {"key", "by"};
    const struct rf_json *value = rf_json_find(object, "latest"), *by;
    const struct rf_column *column;
    enum rf_status status;

    if (!value || value->type == RF_JSON_NULL)
        return RF_OK;
    if ((status = check_members(check, value, "'latest'", members, 2)) != RF_OK ||
        (status = take_columns(check, table, list_find(value, "key"), "the key of 'latest'",
                               table->latest.key, &table->latest.count)) != RF_OK)
        return status;
    by = rf_json_find(value, "by");
    if (!by || by->type == RF_JSON_NULL)
        return RF_OK;
    if ((status = take_column(check, table, by, "'by' of 'latest'", &column)) != RF_OK)
        return status;
    if (column->type != RF_TYPE_TIME && column->type != RF_TYPE_INT)
        return rf_error_set(check->err, RF_INVALID,
                            "'by' of 'latest': column '%s' is %s, not time or int",
                            column->name, rf_type_name(column->type));
    table->latest.by = column->name;
    return RF_OK;
}

static enum rf_status read_table(struct check *check, const struct rf_json *value,
                                 struct rf_table *out)
{
    static const char *const members[] = {"name", "title", "columns", "indexes", "latest"};
    static const char *const reserved[] = {"blobs", "everything", NULL};
    enum rf_status status;

    if ((status = check_members(check, value, "a table", members, 5)) != RF_OK ||
        (status = take_name(check, value, "a table", reserved, &out->name)) != RF_OK)
        return status;
    if ((status = take_words(check, value, "title", &out->title)) != RF_OK ||
        (status = read_columns(check, value, out)) != RF_OK ||
        (status = read_indexes(check, value, out)) != RF_OK ||
        (status = read_latest(check, value, out)) != RF_OK)
        return rf_error_context(check->err, status, "table '%s'", out->name);
    return RF_OK;
}

/* No name twice, and none that another table's latest view takes. */
static enum rf_status check_tables_apart(struct check *check, const struct rf_decl *decl)
{
    for (size_t i = 0; i < decl->table_count; i++)
        for (size_t j = 0; j < decl->table_count; j++) {
            const struct rf_table *a = &decl->tables[i], *b = &decl->tables[j];
            size_t size = strlen(a->name);
            if (j < i && strcmp(a->name, b->name) == 0)
                return rf_error_set(check->err, RF_INVALID, "table '%s' is there twice", a->name);
            if (a->latest.count > 0 && strncmp(b->name, a->name, size) == 0 &&
                strcmp(b->name + size, "_latest") == 0)
                return rf_error_set(check->err, RF_INVALID,
                                    "table '%s': 'latest' of table '%s' makes a view of that name",
                                    b->name, a->name);
        }
    return RF_OK;
}

static enum rf_status read_tables(struct check *check, const struct rf_json *root,
                                  struct rf_decl *decl)
{
    const struct rf_json *list = list_find(root, "tables");
    enum rf_status status;

    if (list->type != RF_JSON_ARRAY)
        return wrong_kind(check, list, "tables", "a list");
    if (list->count > RF_TABLES_MAX)
        return rf_error_set(check->err, RF_INVALID, "%zu tables; a mapper has at most %d",
                            list->count, RF_TABLES_MAX);
    if (list->count > 0)
        decl->tables = rf_arena_alloc(check->arena, list->count * sizeof *decl->tables);
    for (size_t i = 0; i < list->count; i++) {
        status = read_table(check, &list->items[i], &decl->tables[i]);
        if (status != RF_OK)
            return status;
    }
    decl->table_count = list->count;
    return check_tables_apart(check, decl);
}

/* ---- the mapper ---- */

static enum rf_status read_on(struct check *check, const struct rf_json *root, struct rf_decl *decl)
{
    const struct rf_json *value = rf_json_find(root, "on"), *items = value;
    size_t count = 1;

    decl->on = RF_ON_BLOB;
    if (!value || value->type == RF_JSON_NULL)
        return RF_OK;
    if (value->type == RF_JSON_ARRAY) {
        items = value->items;
        count = value->count;
    }
    decl->on = 0;
    for (size_t i = 0; i < count; i++) {
        const char *word = rf_json_string(&items[i]);
        if (word && strcmp(word, "blob") == 0)
            decl->on |= RF_ON_BLOB;
        else if (word && strcmp(word, "file") == 0)
            decl->on |= RF_ON_FILE;
        else
            decl->on = 0, i = count - 1;
    }
    if (decl->on == 0)
        return rf_error_set(check->err, RF_INVALID,
                            "'on' must be \"blob\", \"file\" or a list of them");
    return RF_OK;
}

static enum rf_status read_limits(struct check *check, const struct rf_json *root,
                                  struct rf_limits *out)
{
    static const char *const members[] = {"cpu_ms", "memory_mb", "rows", "parts", "output_mb"};
    static const uint32_t most[] = {600000, 1024, 10000000, 10000000, 256};
    uint32_t *const values[] = {&out->cpu_ms, &out->memory_mb, &out->rows, &out->parts,
                                &out->output_mb};
    const struct rf_json *object = rf_json_find(root, "limits"), *value;
    enum rf_status status;
    int64_t number;

    *out = (struct rf_limits){
        .cpu_ms = 5000, .memory_mb = 16, .rows = 10000, .parts = 10000, .output_mb = 16};
    if (!object || object->type == RF_JSON_NULL ||
        (object->type == RF_JSON_ARRAY && object->count == 0))
        return RF_OK;
    if ((status = check_members(check, object, "'limits'", members, 5)) != RF_OK)
        return status;
    for (size_t i = 0; i < 5; i++) {
        value = rf_json_find(object, members[i]);
        if (!value || value->type == RF_JSON_NULL)
            continue;
        if (!rf_json_int(value, &number) || number < 1 || number > most[i])
            return rf_error_set(check->err, RF_INVALID,
                                "limit '%s' must be a whole number from 1 to %u", members[i],
                                most[i]);
        *values[i] = (uint32_t)number;
    }
    return RF_OK;
}

static enum rf_status read_decl(struct check *check, const struct rf_json *root,
                                struct rf_decl *decl)
{
    static const char *const members[] = {"name", "version", "title",  "on",    "language",
                                          "splits", "slow",  "limits", "tables"};
    static const char *const reserved[] = {NULL};
    enum rf_status status;

    decl->version = "";
    if ((status = check_members(check, root, "a mapper", members, 9)) != RF_OK ||
        (status = take_name(check, root, "a mapper", reserved, &decl->name)) != RF_OK)
        return status;
    if ((status = take_words(check, root, "version", &decl->version)) != RF_OK ||
        (status = take_words(check, root, "title", &decl->title)) != RF_OK ||
        (status = take_language(check, root, &decl->language)) != RF_OK ||
        (status = read_on(check, root, decl)) != RF_OK ||
        (status = take_flag(check, root, "splits", &decl->splits)) != RF_OK ||
        (status = take_flag(check, root, "slow", &decl->slow)) != RF_OK ||
        (status = read_limits(check, root, &decl->limits)) != RF_OK ||
        (status = read_tables(check, root, decl)) != RF_OK)
        return rf_error_context(check->err, status, "mapper '%s'", decl->name);
    for (size_t i = 0; i < decl->table_count; i++)
        decl->tables[i].language = decl->language;
    return RF_OK;
}

enum rf_status rf_decl_parse(struct rf_decl **out, struct rf_arena *arena, struct rf_bytes json,
                             struct rf_error *err)
{
    struct check check = {.arena = arena, .err = err};
    const struct rf_json *root;
    struct rf_decl *decl;
    enum rf_status status;
    const char *copy;

    status = rf_json_parse(&root, arena, json, err);
    if (status != RF_OK)
        return rf_error_context(err, status, "the mapper's declaration");
    decl = rf_arena_alloc(arena, sizeof *decl);
    if ((status = read_decl(&check, root, decl)) != RF_OK ||
        (status = copy_text(&check, json, &copy)) != RF_OK)
        return status;
    decl->json = rf_bytes(copy, json.size);
    *out = decl;
    return RF_OK;
}
