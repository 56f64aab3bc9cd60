/*
 * lua_shape.c - reading the table a mapper file returns
 *
 * Structure only: fields are known and of their type. Rules on names, counts and limits are checked
 * once, outside the jail, by rf_decl_parse. To add a field: a line in its list below, and one in
 * declare or write_test.
 */
#include "mappers/lua_shape.h"

#include "core/json.h"
#include "core/nearest.h"
#include "core/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PATTERNS_MAX 256
#define PATTERN_SIZE_MAX 255

/* ---- fields ---- */

#define T(type) (1u << (type))

struct field {
    const char *name;
    unsigned types; /* bits of T(LUA_T...) */
};

static const struct field mapper_fields[] = {
    {"name", T(LUA_TSTRING)},
    {"version", T(LUA_TSTRING) | T(LUA_TNUMBER)},
    {"title", T(LUA_TSTRING)},
    {"language", T(LUA_TSTRING)},
    {"on", T(LUA_TSTRING) | T(LUA_TTABLE)},
    {"match", T(LUA_TFUNCTION) | T(LUA_TTABLE)},
    {"tables", T(LUA_TTABLE)},
    {"limits", T(LUA_TTABLE)},
    {"splits", T(LUA_TBOOLEAN)},
    {"slow", T(LUA_TBOOLEAN)},
    {"map", T(LUA_TFUNCTION)},
    {"tests", T(LUA_TTABLE)},
};

static const struct field match_fields[] = {
    {"media", T(LUA_TTABLE) | T(LUA_TSTRING)},
    {"name", T(LUA_TTABLE) | T(LUA_TSTRING)},
};

static const struct field table_fields[] = {
    {"title", T(LUA_TSTRING)},
    {"columns", T(LUA_TTABLE)},
    {"indexes", T(LUA_TTABLE)},
    {"latest", T(LUA_TTABLE)},
};

static const struct field latest_fields[] = {
    {"key", T(LUA_TTABLE) | T(LUA_TSTRING)},
    {"by", T(LUA_TSTRING)},
};

static const struct field limit_fields[] = {
    {"cpu_ms", T(LUA_TNUMBER)}, {"memory_mb", T(LUA_TNUMBER)}, {"rows", T(LUA_TNUMBER)},
    {"parts", T(LUA_TNUMBER)},  {"output_mb", T(LUA_TNUMBER)},
};

static const struct field test_fields[] = {
    {"name", T(LUA_TSTRING)},
    {"blob", T(LUA_TSTRING) | T(LUA_TTABLE)},
    {"file", T(LUA_TSTRING)},
    {"media", T(LUA_TSTRING)},
    {"filename", T(LUA_TSTRING)},
    {"rows", T(LUA_TTABLE)},
    {"parts", T(LUA_TNUMBER)},
    {"golden", T(LUA_TSTRING)},
    {"error", T(LUA_TSTRING)},
};

#define COUNT(list) (sizeof(list) / sizeof(list)[0])

/* Where a message is about: "countries.lua: tables.countries". */
struct place {
    lua_State *L;
    const char *file;
    char path[200];
};

__attribute__((noreturn, format(printf, 2, 3))) static void refuse(const struct place *place,
                                                                   const char *format, ...)
{
    va_list args;

    va_start(args, format);
    lua_pushfstring(place->L, "%s: %s: ", place->file, place->path);
    lua_pushvfstring(place->L, format, args);
    va_end(args);
    lua_concat(place->L, 2);
    lua_error(place->L);
    abort();
}

/* The table on top has no field but these, each of its type. */
static void check_fields(struct place *place, const struct field *fields, size_t count)
{
    lua_State *L = place->L;
    const char *names[16], *key, *nearest;

    for (size_t i = 0; i < count; i++)
        names[i] = fields[i].name;
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            refuse(place, "its fields have names, but one is a %s", luaL_typename(L, -2));
        key = lua_tostring(L, -2);
        for (size_t i = 0;; i++) {
            if (i == count) {
                nearest = rf_nearest(key, names, count);
                if (nearest)
                    refuse(place, "unknown field '%s', did you mean '%s'?", key, nearest);
                refuse(place, "unknown field '%s'", key);
            }
            if (strcmp(key, fields[i].name) != 0)
                continue;
            if (!(fields[i].types & T(lua_type(L, -1))))
                refuse(place, "field '%s' cannot be a %s", key, luaL_typename(L, -1));
            break;
        }
        lua_pop(L, 1);
    }
}

static void enter(struct place *place, const char *format, ...) RF_PRINTF(2, 3);
static void enter(struct place *place, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(place->path, sizeof place->path, format, args);
    va_end(args);
}

/* ---- check ---- */

void rf_shape_check(lua_State *L, const char *file)
{
    struct place place = {.L = L, .file = file, .path = "the mapper's table"};

    check_fields(&place, mapper_fields, COUNT(mapper_fields));
    lua_getfield(L, -1, "name");
    if (lua_isnil(L, -1))
        refuse(&place, "field 'name' is missing");
    lua_pop(L, 1);
    lua_getfield(L, -1, "map");
    if (lua_isnil(L, -1))
        refuse(&place, "field 'map' is missing: function(blob, emit)");
    lua_pop(L, 1);
    lua_getfield(L, -1, "match");
    if (lua_istable(L, -1)) {
        enter(&place, "match");
        check_fields(&place, match_fields, COUNT(match_fields));
    }
    lua_pop(L, 1);
    lua_getfield(L, -1, "limits");
    if (lua_istable(L, -1)) {
        enter(&place, "limits");
        check_fields(&place, limit_fields, COUNT(limit_fields));
    }
    lua_pop(L, 1);
}

/* ---- match ---- */

static void add_pattern(struct place *place, struct rf_env *env, const char *text, size_t size,
                        bool is_name)
{
    char *copy;

    if (size == 0 || size > PATTERN_SIZE_MAX || strlen(text) != size)
        refuse(place, "a pattern has 1 to %d characters", PATTERN_SIZE_MAX);
    if (env->pattern_count == PATTERNS_MAX)
        refuse(place, "more than %d patterns", PATTERNS_MAX);
    copy = rf_arena_copy(&env->arena, text, size);
    env->patterns[env->pattern_count++] = (struct rf_pattern){.text = copy, .is_name = is_name};
}

static void add_patterns(struct place *place, struct rf_env *env, const char *field, bool is_name)
{
    lua_State *L = place->L;
    size_t size;

    lua_getfield(L, -1, field);
    enter(place, "match.%s", field);
    if (lua_type(L, -1) == LUA_TSTRING) {
        const char *text = lua_tolstring(L, -1, &size);
        add_pattern(place, env, text, size, is_name);
    } else if (lua_istable(L, -1)) {
        for (int i = 1; i <= (int)lua_objlen(L, -1); i++) {
            lua_rawgeti(L, -1, i);
            if (lua_type(L, -1) != LUA_TSTRING)
                refuse(place, "entry %d is a %s, not a string", i, luaL_typename(L, -1));
            add_pattern(place, env, lua_tolstring(L, -1, &size), lua_objlen(L, -1), is_name);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
}

void rf_shape_patterns(lua_State *L, struct rf_env *env)
{
    struct place place = {.L = L, .file = env->file};

    lua_getfield(L, -1, "match");
    if (lua_istable(L, -1)) {
        env->patterns = rf_arena_alloc(&env->arena, PATTERNS_MAX * sizeof *env->patterns);
        add_patterns(&place, env, "media", false);
        add_patterns(&place, env, "name", true);
        if (env->pattern_count == 0) {
            enter(&place, "match");
            refuse(&place, "it names neither media types nor file names");
        }
    }
    lua_pop(L, 1);
}

/* ---- writing JSON ---- */

static void put_key(struct rf_buf *json, const char *name, bool *first)
{
    rf_buf_put_text(json, *first ? "" : ",");
    *first = false;
    rf_json_put_string(json, rf_bytes_text(name));
    rf_buf_put_u8(json, ':');
}

/* A string on top of the stack, which must be UTF-8. */
static void put_string(struct place *place, struct rf_buf *json)
{
    struct rf_bytes text;

    text.data = (const uint8_t *)lua_tolstring(place->L, -1, &text.size);
    if (rf_utf8_valid(text) != text.size)
        refuse(place, "it is not UTF-8 text; keep such bytes in a file of their own");
    rf_json_put_string(json, text);
}

/* Member name of the table on top, when it is there: a string or number as text, a boolean. */
static void put_member(struct place *place, struct rf_buf *json, const char *name, bool *first)
{
    lua_State *L = place->L;

    lua_getfield(L, -1, name);
    if (!lua_isnil(L, -1)) {
        put_key(json, name, first);
        if (lua_isboolean(L, -1)) {
            rf_buf_put_text(json, lua_toboolean(L, -1) ? "true" : "false");
        } else {
            rf_host_push_text(L, -1);
            put_string(place, json);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
}

/* A string, or a list of strings, on top of the stack, as a JSON array. */
static void put_strings(struct place *place, struct rf_buf *json)
{
    lua_State *L = place->L;

    rf_buf_put_u8(json, '[');
    if (lua_type(L, -1) == LUA_TSTRING) {
        put_string(place, json);
    } else if (lua_istable(L, -1)) {
        for (int i = 1; i <= (int)lua_objlen(L, -1); i++) {
            lua_rawgeti(L, -1, i);
            if (lua_type(L, -1) != LUA_TSTRING)
                refuse(place, "entry %d is a %s, not a string", i, luaL_typename(L, -1));
            rf_buf_put_text(json, i > 1 ? "," : "");
            put_string(place, json);
            lua_pop(L, 1);
        }
    } else {
        refuse(place, "a list of names was expected, not a %s", luaL_typename(L, -1));
    }
    rf_buf_put_u8(json, ']');
}

/* ---- columns ---- */

static bool next_word(const char **at, char *word, size_t size)
{
    size_t n = 0;

    while (**at == ' ')
        ++*at;
    while (**at && **at != ' ' && n + 1 < size)
        word[n++] = *(*at)++;
    word[n] = '\0';
    return n > 0;
}

static void put_flag(struct place *place, struct rf_buf *json, const char *word, bool *first)
{
    if (strcmp(word, "search") != 0 && strcmp(word, "facet") != 0)
        refuse(place, "'%s' is neither 'search' nor 'facet'", word);
    put_key(json, word, first);
    rf_buf_put_text(json, "true");
}

/* "population int facet": name, type, then search and facet in any order. */
static void put_column_words(struct place *place, struct rf_buf *json, const char *words)
{
    char word[64];
    bool first = true;

    if (!next_word(&words, word, sizeof word))
        refuse(place, "a column is written \"name type\", maybe with search or facet behind it");
    put_key(json, "name", &first);
    rf_json_put_string(json, rf_bytes_text(word));
    if (!next_word(&words, word, sizeof word))
        refuse(place, "the type is missing: one of int, float, bool, text, json, time, blobref");
    put_key(json, "type", &first);
    rf_json_put_string(json, rf_bytes_text(word));
    while (next_word(&words, word, sizeof word))
        put_flag(place, json, word, &first);
}

/* { "population", "int", facet = true, title = "..." } */
static void put_column_table(struct place *place, struct rf_buf *json)
{
    static const struct field fields[] = {
        {"search", T(LUA_TBOOLEAN)}, {"facet", T(LUA_TBOOLEAN)}, {"title", T(LUA_TSTRING)},
    };
    lua_State *L = place->L;
    bool first = true;

    for (int i = 1; i <= 2; i++) {
        lua_rawgeti(L, -1, i);
        if (lua_type(L, -1) != LUA_TSTRING)
            refuse(place, "a column is { \"name\", \"type\", search = true, ... } or \"name type "
                          "search\"");
        put_key(json, i == 1 ? "name" : "type", &first);
        put_string(place, json);
        lua_pop(L, 1);
    }
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) == LUA_TNUMBER && lua_tonumber(L, -1) <= 2)
            continue;
        if (lua_type(L, -1) != LUA_TSTRING)
            refuse(place, "a column has a name and a type, then named fields only");
        for (size_t i = 0; strcmp(lua_tostring(L, -1), fields[i].name) != 0;)
            if (++i == COUNT(fields))
                refuse(place, "unknown field '%s': a column has search, facet, title",
                       lua_tostring(L, -1));
    }
    for (size_t i = 0; i < COUNT(fields); i++)
        put_member(place, json, fields[i].name, &first);
}

static void put_columns(struct place *place, struct rf_buf *json, const char *table)
{
    lua_State *L = place->L;

    lua_getfield(L, -1, "columns");
    if (!lua_istable(L, -1))
        refuse(place, "field 'columns' is missing: { \"code text\", \"name text search\" }");
    rf_buf_put_u8(json, '[');
    for (int i = 1; i <= (int)lua_objlen(L, -1); i++) {
        enter(place, "tables.%.60s.columns[%d]", table, i);
        lua_rawgeti(L, -1, i);
        rf_buf_put_text(json, i > 1 ? ",{" : "{");
        if (lua_type(L, -1) == LUA_TSTRING)
            put_column_words(place, json, lua_tostring(L, -1));
        else if (lua_istable(L, -1))
            put_column_table(place, json);
        else
            refuse(place, "a column is a string or a table, not a %s", luaL_typename(L, -1));
        rf_buf_put_u8(json, '}');
        lua_pop(L, 1);
    }
    if (lua_objlen(L, -1) == 0)
        refuse(place, "field 'columns' must be a list of at least one column, in the order they "
                      "are to have: { \"code text\", \"name text search\" }");
    rf_buf_put_u8(json, ']');
    lua_pop(L, 1);
}

/* ---- tables ---- */

static void put_indexes(struct place *place, struct rf_buf *json, const char *table, bool *first)
{
    lua_State *L = place->L;

    lua_getfield(L, -1, "indexes");
    if (lua_istable(L, -1)) {
        put_key(json, "indexes", first);
        rf_buf_put_u8(json, '[');
        for (int i = 1; i <= (int)lua_objlen(L, -1); i++) {
            enter(place, "tables.%.60s.indexes[%d]", table, i);
            rf_buf_put_text(json, i > 1 ? "," : "");
            lua_rawgeti(L, -1, i);
            put_strings(place, json);
            lua_pop(L, 1);
        }
        rf_buf_put_u8(json, ']');
    }
    lua_pop(L, 1);
}

static void put_latest(struct place *place, struct rf_buf *json, const char *table, bool *first)
{
    lua_State *L = place->L;
    bool first_inside = true;

    lua_getfield(L, -1, "latest");
    if (lua_istable(L, -1)) {
        enter(place, "tables.%.60s.latest", table);
        check_fields(place, latest_fields, COUNT(latest_fields));
        put_key(json, "latest", first);
        rf_buf_put_u8(json, '{');
        put_key(json, "key", &first_inside);
        lua_getfield(L, -1, "key");
        put_strings(place, json);
        lua_pop(L, 1);
        put_member(place, json, "by", &first_inside);
        rf_buf_put_u8(json, '}');
    }
    lua_pop(L, 1);
}

static void put_table(struct place *place, struct rf_buf *json, const char *name)
{
    bool first = true;

    enter(place, "tables.%.60s", name);
    if (!lua_istable(place->L, -1))
        refuse(place, "a table { columns = { ... } } was expected, not a %s",
               luaL_typename(place->L, -1));
    if (strcmp(name, "part") == 0)
        refuse(place, "a table cannot be called 'part': emit.part makes items");
    check_fields(place, table_fields, COUNT(table_fields));
    rf_buf_put_u8(json, '{');
    put_key(json, "name", &first);
    rf_json_put_string(json, rf_bytes_text(name));
    put_member(place, json, "title", &first);
    put_key(json, "columns", &first);
    put_columns(place, json, name);
    put_indexes(place, json, name, &first);
    put_latest(place, json, name, &first);
    rf_buf_put_u8(json, '}');
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The tables in the order of their names: the same in every process. */
static void put_tables(struct place *place, struct rf_buf *json)
{
    lua_State *L = place->L;
    const char *names[RF_TABLES_MAX] = {NULL};
    size_t count = 0;

    lua_getfield(L, -1, "tables");
    rf_buf_put_u8(json, '[');
    if (lua_istable(L, -1)) {
        lua_pushnil(L);
        while (lua_next(L, -2)) {
            lua_pop(L, 1);
            enter(place, "tables");
            if (lua_type(L, -1) != LUA_TSTRING)
                refuse(place, "tables are named: { countries = { columns = ... } }");
            if (count == RF_TABLES_MAX)
                refuse(place, "more than %d tables", RF_TABLES_MAX);
            names[count] = lua_tostring(L, -1);
            if (strlen(names[count]) != lua_objlen(L, -1) ||
                rf_utf8_valid(rf_bytes_text(names[count])) != lua_objlen(L, -1))
                refuse(place, "a table's name is not text");
            count++;
        }
        qsort(names, count, sizeof *names, compare_names);
        for (size_t i = 0; i < count; i++) {
            rf_buf_put_text(json, i > 0 ? "," : "");
            lua_getfield(L, -1, names[i]);
            put_table(place, json, names[i]);
            lua_pop(L, 1);
        }
    }
    rf_buf_put_u8(json, ']');
    lua_pop(L, 1);
}

/* ---- the declaration ---- */

static void put_limits(struct place *place, struct rf_buf *json)
{
    lua_State *L = place->L;
    bool first = true;

    lua_getfield(L, -1, "limits");
    rf_buf_put_u8(json, '{');
    if (lua_istable(L, -1)) {
        for (size_t i = 0; i < COUNT(limit_fields); i++) {
            double n;
            lua_getfield(L, -1, limit_fields[i].name);
            n = lua_tonumber(L, -1);
            enter(place, "limits.%s", limit_fields[i].name);
            if (!lua_isnil(L, -1)) {
                if (!(n >= 1 && n <= 1e15) || n != floor(n))
                    refuse(place, "it must be a whole number above 0");
                put_key(json, limit_fields[i].name, &first);
                rf_json_put_int(json, (int64_t)n);
            }
            lua_pop(L, 1);
        }
    }
    rf_buf_put_u8(json, '}');
    lua_pop(L, 1);
}

void rf_shape_declare(lua_State *L, const char *file, struct rf_buf *json)
{
    struct place place = {.L = L, .file = file, .path = "the mapper's table"};
    bool first = true;

    rf_buf_put_u8(json, '{');
    put_member(&place, json, "name", &first);
    put_member(&place, json, "version", &first);
    put_member(&place, json, "title", &first);
    put_member(&place, json, "language", &first);
    lua_getfield(L, -1, "on");
    enter(&place, "on");
    put_key(json, "on", &first);
    if (lua_isnil(L, -1))
        rf_buf_put_text(json, "[\"blob\",\"file\"]");
    else
        put_strings(&place, json);
    lua_pop(L, 1);
    put_member(&place, json, "splits", &first);
    put_member(&place, json, "slow", &first);
    put_key(json, "limits", &first);
    put_limits(&place, json);
    put_key(json, "tables", &first);
    put_tables(&place, json);
    rf_buf_put_u8(json, '}');
}

/* ---- tests ---- */

/* A blob given as a table is its JSON. */
static void put_test_blob(struct place *place, struct rf_buf *json, bool *first)
{
    lua_State *L = place->L;
    struct rf_env *env = rf_host(L);

    lua_getfield(L, -1, "blob");
    if (!lua_isnil(L, -1)) {
        put_key(json, "blob", first);
        if (lua_istable(L, -1)) {
            rf_buf_clear(&env->encoded);
            rf_lua_json_put(L, -1, &env->encoded, false, NULL);
            rf_json_put_string(json, rf_buf_bytes(&env->encoded));
        } else {
            put_string(place, json);
        }
    }
    lua_pop(L, 1);
}

/* A table's expected rows are a list even when it is empty. */
static void put_test_rows(struct place *place, struct rf_buf *json, bool *first)
{
    lua_State *L = place->L;
    bool first_table = true;
    const char *names[RF_TABLES_MAX] = {NULL};
    size_t count = 0;

    lua_getfield(L, -1, "rows");
    if (lua_istable(L, -1)) {
        lua_pushnil(L);
        while (lua_next(L, -2)) {
            if (lua_type(L, -2) != LUA_TSTRING || !lua_istable(L, -1) || count == RF_TABLES_MAX)
                refuse(place, "rows are lists by table: rows = { t = { { code = \"AL\" } } }");
            names[count++] = lua_tostring(L, -2);
            lua_pop(L, 1);
        }
        qsort(names, count, sizeof *names, compare_names);
        put_key(json, "rows", first);
        rf_buf_put_u8(json, '{');
        for (size_t i = 0; i < count; i++) {
            put_key(json, names[i], &first_table);
            lua_getfield(L, -1, names[i]);
            rf_buf_put_u8(json, '[');
            for (int row = 1; row <= (int)lua_objlen(L, -1); row++) {
                rf_buf_put_text(json, row > 1 ? "," : "");
                lua_rawgeti(L, -1, row);
                rf_lua_json_put(L, -1, json, false, NULL);
                lua_pop(L, 1);
            }
            rf_buf_put_u8(json, ']');
            lua_pop(L, 1);
        }
        rf_buf_put_u8(json, '}');
    }
    lua_pop(L, 1);
}

static void put_test(struct place *place, struct rf_buf *json)
{
    static const char *const texts[] = {"name", "file", "media", "filename", "golden", "error"};
    lua_State *L = place->L;
    bool first = true;

    if (!lua_istable(L, -1))
        refuse(place, "a table { blob = ..., rows = ... } was expected");
    check_fields(place, test_fields, COUNT(test_fields));
    rf_buf_put_u8(json, '{');
    for (size_t i = 0; i < COUNT(texts); i++)
        put_member(place, json, texts[i], &first);
    put_test_blob(place, json, &first);
    put_test_rows(place, json, &first);
    lua_getfield(L, -1, "parts");
    if (!lua_isnil(L, -1)) {
        put_key(json, "parts", &first);
        rf_json_put_int(json, (int64_t)lua_tonumber(L, -1));
    }
    lua_pop(L, 1);
    rf_buf_put_u8(json, '}');
}

void rf_shape_tests(lua_State *L, const char *file, struct rf_buf *json)
{
    struct place place = {.L = L, .file = file};

    lua_getfield(L, -1, "tests");
    rf_buf_put_u8(json, '[');
    if (lua_istable(L, -1)) {
        for (int i = 1; i <= (int)lua_objlen(L, -1); i++) {
            enter(&place, "tests[%d]", i);
            rf_buf_put_text(json, i > 1 ? "," : "");
            lua_rawgeti(L, -1, i);
            put_test(&place, json);
            lua_pop(L, 1);
        }
    }
    rf_buf_put_u8(json, ']');
    lua_pop(L, 1);
}
