/*
 * lua_emit.c - emit.<table>{...} and emit.part{...}: Lua values into records of core/row.h
 *
 * The declared type decides how a value is converted; a value that does not fit its column raises,
 * naming table, column, type and value. Values that only need cleaning (bad UTF-8, NUL, over-long
 * text, years outside 1-9999, NaN) are cleaned, once, here, and a cut record says so.
 *
 * Upvalues of an emit function: number of its table, list of its column names, the tables name.
 */
#include "core/control.h"
#include "core/nearest.h"
#include "core/utf8.h"
#include "mappers/lua_host.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CUTS_MAX 64 /* cut columns of one row that are noted one by one */

struct emission {
    lua_State *L;
    struct rf_env *env;
    const struct rf_table *table;
    uint16_t table_index, column;
    size_t cut_count;
    struct {
        uint16_t column;
        uint8_t kind;
    } cuts[CUTS_MAX];
};

static void add_cut(struct emission *e, enum rf_cut kind)
{
    if (e->cut_count == CUTS_MAX)
        return;
    e->cuts[e->cut_count].column = e->column;
    e->cuts[e->cut_count++].kind = (uint8_t)kind;
}

__attribute__((noreturn)) static void refuse_value(struct emission *e, int index, const char *wants)
{
    const struct rf_column *column = &e->table->columns[e->column];
    const char *type = luaL_typename(e->L, index);
    char shown[80] = "";

    if (lua_type(e->L, index) == LUA_TNUMBER || lua_type(e->L, index) == LUA_TSTRING ||
        lua_type(e->L, index) == LUA_TBOOLEAN || lua_type(e->L, index) == RF_LUA_TCDATA) {
        size_t size;
        const char *text;
        rf_host_push_text(e->L, index);
        text = lua_tolstring(e->L, -1, &size);
        size = rf_utf8_cut(rf_bytes(text, size), size < 60 ? size : 60);
        snprintf(shown, sizeof shown, " '%.*s'", (int)size, text);
    }
    rf_host_error(e->L, "emit.%s: column '%s' (%s) cannot take the %s%s: %s", e->table->name,
                  column->name, rf_type_name(column->type), type, shown, wants);
}

/* ---- one function per column type ---- */

static bool read_digits(struct rf_bytes text, int64_t *out)
{
    bool negative = text.size > 0 && text.data[0] == '-';
    size_t i = negative;
    uint64_t value = 0, max = (uint64_t)INT64_MAX + negative;

    if (i == text.size)
        return false;
    for (; i < text.size; i++) {
        unsigned digit = text.data[i] - (unsigned)'0';
        if (digit > 9 || value > (max - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

static void put_int(struct emission *e, int index, struct rf_value *value)
{
    static const char wants[] = "wants a whole number within 64 bits (number, 64-bit integer or "
                                "decimal digits)";
    double n;
    struct rf_bytes text;

    switch (lua_type(e->L, index)) {
    case LUA_TNUMBER:
        n = lua_tonumber(e->L, index);
        if (!(n >= -9223372036854775808.0 && n < 9223372036854775808.0) || n != floor(n))
            refuse_value(e, index, wants);
        value->integer = (int64_t)n;
        return;
    case LUA_TSTRING:
        text.data = (const uint8_t *)lua_tolstring(e->L, index, &text.size);
        if (!read_digits(text, &value->integer))
            refuse_value(e, index, wants);
        return;
    default:
        if (!rf_host_to_int64(e->L, index, &value->integer))
            refuse_value(e, index, wants);
    }
}

/* Decimal text as JSON writes numbers, a leading '+' allowed. */
static bool read_float(const char *text, size_t size, double *out)
{
    static const char allowed[] = "+-.0123456789eE";
    char *end;

    if (size == 0 || size > 400)
        return false;
    for (size_t i = 0; i < size; i++)
        if (!memchr(allowed, text[i], sizeof allowed - 1))
            return false;
    *out = strtod(text, &end);
    return end == text + size;
}

static void put_float(struct emission *e, int index, struct rf_value *value)
{
    int64_t integer;
    size_t size;
    const char *text;

    switch (lua_type(e->L, index)) {
    case LUA_TNUMBER:
        value->real = lua_tonumber(e->L, index);
        break;
    case LUA_TSTRING:
        text = lua_tolstring(e->L, index, &size);
        if (!read_float(text, size, &value->real))
            refuse_value(e, index, "wants a number or decimal digits");
        break;
    default:
        if (!rf_host_to_int64(e->L, index, &integer))
            refuse_value(e, index, "wants a number or decimal digits");
        value->real = (double)integer;
    }
    if (!isfinite(value->real)) {
        add_cut(e, RF_CUT_FLOAT);
        value->type = 0;
    } else if (value->real == 0) {
        value->real = 0.0; /* -0.0 is no value of its own */
    }
}

/* What unicode.decode could not read is U+FFFD by now, and looks like text that is as it was. */
static bool holds_replaced(const struct emission *e, struct rf_bytes text)
{
    return e->env->replaced && text.size && memmem(text.data, text.size, "\xef\xbf\xbd", 3);
}

/* Clean text; the result is lent from Lua or from the scratch. */
static struct rf_bytes clean_text(struct emission *e, struct rf_bytes text)
{
    bool replaced = false, dropped = false, has_nul;
    struct rf_buf *scratch;

    has_nul = text.size > 0 && memchr(text.data, 0, text.size);
    if ((has_nul || rf_utf8_valid(text) != text.size) && RF_SAFEGUARD("emit-text-clean")) {
        if (text.size > 2 * (size_t)RF_TEXT_MAX) { /* enough for what is kept, with NULs dropped */
            text.size = 2 * (size_t)RF_TEXT_MAX;
            add_cut(e, RF_CUT_LONG);
        }
        scratch = rf_host_scratch(e->L);
        rf_utf8_clean(scratch, text, true, &replaced, &dropped);
        if (scratch->failed)
            rf_host_error(e->L, "emit.%s: column '%s': the text does not fit the heap",
                          e->table->name, e->table->columns[e->column].name);
        if (replaced)
            add_cut(e, RF_CUT_UTF8);
        if (dropped)
            add_cut(e, RF_CUT_NUL);
        text = rf_buf_bytes(scratch);
    }
    if (!replaced && holds_replaced(e, text))
        add_cut(e, RF_CUT_UTF8);
    if (text.size > RF_TEXT_MAX) {
        text.size = rf_utf8_cut(text, RF_TEXT_MAX);
        if (e->cut_count == 0 || e->cuts[e->cut_count - 1].kind != RF_CUT_LONG)
            add_cut(e, RF_CUT_LONG);
    }
    return text;
}

static void put_text(struct emission *e, int index, struct rf_value *value)
{
    int type = lua_type(e->L, index);
    struct rf_bytes text;

    if (type == LUA_TSTRING) {
        text.data = (const uint8_t *)lua_tolstring(e->L, index, &text.size);
        value->text = clean_text(e, text);
        return;
    }
    if (type == LUA_TNUMBER || type == RF_LUA_TCDATA) { /* as JSON writes it: 1000000, 0.1 */
        if (type == LUA_TNUMBER && !isfinite(lua_tonumber(e->L, index))) {
            add_cut(e, RF_CUT_FLOAT);
            value->type = 0;
            return;
        }
        rf_lua_json_put(e->L, index, rf_host_scratch(e->L), false, NULL);
        value->text = rf_buf_bytes(&e->env->scratch);
        return;
    }
    refuse_value(e, index, "wants a string or a number (tostring makes one of other values)");
}

static void put_json(struct emission *e, int index, struct rf_value *value)
{
    unsigned cuts = 0;

    rf_buf_clear(&e->env->encoded);
    rf_lua_json_put(e->L, index, &e->env->encoded, true, &cuts);
    if (holds_replaced(e, rf_buf_bytes(&e->env->encoded)))
        cuts |= 1u << RF_CUT_UTF8;
    for (unsigned kind = 1; kind < RF_CUT_COUNT; kind++)
        if (cuts >> kind & 1)
            add_cut(e, (enum rf_cut)kind);
    if (e->env->encoded.failed || e->env->encoded.size > RF_TEXT_MAX) {
        add_cut(e, RF_CUT_LONG); /* half a JSON text is none: it becomes null */
        value->type = 0;
        return;
    }
    value->text = rf_buf_bytes(&e->env->encoded);
}

static void put_time(struct emission *e, int index, struct rf_value *value)
{
    static const char wants[] = "wants a time of refuge.time or ISO 8601 text "
                                "(refuge.time.parse reads other forms, refuge.time.epoch numbers)";
    const struct rf_lua_time *time = rf_host_to(e->L, index, RF_TAG_TIME);
    struct rf_bytes text;

    if (time) {
        value->integer = time->us;
        value->offset_minutes = time->offset;
    } else if (lua_type(e->L, index) == LUA_TSTRING) {
        text.data = (const uint8_t *)lua_tolstring(e->L, index, &text.size);
        if (!rf_lua_time_read(text, &value->integer, &value->offset_minutes))
            refuse_value(e, index, wants);
    } else {
        refuse_value(e, index, wants);
    }
    if (value->integer < RF_TIME_MIN || value->integer > RF_TIME_MAX) {
        add_cut(e, RF_CUT_YEAR);
        value->type = 0;
    }
}

static void put_blobref(struct emission *e, int index, struct rf_value *value)
{
    const struct rf_lua_blob *blob = rf_host_to(e->L, index, RF_TAG_BLOB);
    struct rf_error err = {0};
    size_t size;
    const char *text;

    if (blob) {
        value->ref = blob->ref;
        return;
    }
    if (lua_type(e->L, index) != LUA_TSTRING)
        refuse_value(e, index, "wants a blobref (\"sha256-\" and 64 hex digits)");
    text = lua_tolstring(e->L, index, &size);
    if (rf_blobref_parse(&value->ref, text, size, &err) != RF_OK)
        refuse_value(e, index, "wants a blobref (\"sha256-\" and 64 hex digits)");
}

/* Write the value on top of the stack into the present column; true when there was one. */
static bool put_column(struct emission *e)
{
    struct rf_value value = {.type = e->table->columns[e->column].type};
    int index = lua_gettop(e->L), type = lua_type(e->L, index);

    if (type == LUA_TNIL || type == LUA_TLIGHTUSERDATA) {
        value.type = 0;
        rf_row_put(e->env->output, &value);
        return type != LUA_TNIL;
    }
    switch (value.type) {
    case RF_TYPE_INT:
        put_int(e, index, &value);
        break;
    case RF_TYPE_FLOAT:
        put_float(e, index, &value);
        break;
    case RF_TYPE_BOOL:
        if (type != LUA_TBOOLEAN)
            refuse_value(e, index, "wants true or false");
        value.boolean = lua_toboolean(e->L, index);
        break;
    case RF_TYPE_TEXT:
        put_text(e, index, &value);
        break;
    case RF_TYPE_JSON:
        put_json(e, index, &value);
        break;
    case RF_TYPE_TIME:
        put_time(e, index, &value);
        break;
    default:
        put_blobref(e, index, &value);
    }
    rf_row_put(e->env->output, &value);
    return true;
}

/* ---- rows ---- */

static void check_mapping(lua_State *L, struct rf_env *env)
{
    if (!env->mapping)
        rf_host_error(L, "emit: only while map runs");
    if (env->stuck && RF_SAFEGUARD("lua-limit-sticks"))
        rf_host_error(L, "emit: %s", env->message);
}

/* Commit what was appended, or raise when the output is full. */
static void commit(lua_State *L, struct rf_env *env)
{
    if (env->output->failed || env->output->size > env->output_max) {
        env->output->failed = RF_OK;
        rf_host_limit(L, RF_ENV_LIMIT,
                      "output of one call is larger than limits.output_mb = %u",
                      env->decl->limits.output_mb);
    }
    env->committed = env->output->size;
}

/* A key of the row at 1 is no column: say which. */
static void find_unknown(lua_State *L, const struct rf_table *table)
{
    const char *names[RF_COLUMNS_MAX], *nearest, *key;
    size_t count = 0;

    for (; count < table->column_count && count < RF_COLUMNS_MAX; count++)
        names[count] = table->columns[count].name;
    lua_pushnil(L);
    while (lua_next(L, 1)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING)
            rf_host_error(L, "emit.%s: a row's fields are named after columns, but this one has a "
                             "%s as name", table->name, luaL_typename(L, -1));
        key = lua_tostring(L, -1);
        for (size_t i = 0;; i++) {
            if (i == count) {
                nearest = rf_nearest(key, names, count);
                rf_host_error(L, "emit.%s: unknown column '%.60s'%s%s%s", table->name, key,
                              nearest ? ", did you mean '" : "", nearest ? nearest : "",
                              nearest ? "'?" : "");
            }
            if (strcmp(key, names[i]) == 0)
                break;
        }
    }
}

static void trace_row(struct emission *e)
{
    lua_State *L = e->L;
    unsigned cuts = 0;

    luaL_where(L, 1);
    rf_buf_put_text(e->env->trace, lua_tostring(L, -1));
    lua_pop(L, 1);
    rf_buf_printf(e->env->trace, "emit.%s {", e->table->name);
    for (size_t i = 0; i < e->table->column_count; i++) {
        lua_getfield(L, 1, e->table->columns[i].name);
        if (!lua_isnil(L, -1)) {
            rf_buf_printf(e->env->trace, " %s=", e->table->columns[i].name);
            if (rf_host_to(L, -1, RF_TAG_BLOB))
                rf_host_push_text(L, -1);
            rf_buf_clear(&e->env->encoded);
            rf_lua_json_put(L, -1, &e->env->encoded, true, &cuts);
            rf_buf_put(e->env->trace, e->env->encoded.data,
                       e->env->encoded.size < 200 ? e->env->encoded.size : 200);
        }
        lua_settop(L, 1);
    }
    rf_buf_put_text(e->env->trace, " }\n");
}

static int emit_row(lua_State *L)
{
    struct emission e = {.L = L, .env = rf_host(L)};
    struct rf_env *env = e.env;
    size_t given = 0, known = 0;

    check_mapping(L, env);
    e.table_index = (uint16_t)lua_tointeger(L, lua_upvalueindex(1));
    e.table = &env->decl->tables[e.table_index];
    if (!lua_istable(L, 1))
        rf_host_error(L, "emit.%s: a table of columns was expected, got a %s", e.table->name,
                      lua_isnoneornil(L, 1) ? "nil" : luaL_typename(L, 1));
    lua_settop(L, 1);
    if (env->rows >= env->decl->limits.rows)
        rf_host_limit(L, RF_ENV_LIMIT, "more than limits.rows = %u rows in one call",
                      env->decl->limits.rows);
    env->output->size = env->committed;
    rf_row_begin(env->output, e.table_index, (uint16_t)e.table->column_count);
    for (size_t i = 0; i < e.table->column_count; i++) {
        e.column = (uint16_t)i;
        lua_rawgeti(L, lua_upvalueindex(2), (int)i + 1);
        lua_rawget(L, 1);
        known += put_column(&e);
        lua_settop(L, 1);
    }
    lua_pushnil(L);
    while (lua_next(L, 1)) {
        lua_pop(L, 1);
        given++;
    }
    if (given != known)
        find_unknown(L, e.table);
    for (size_t i = 0; i < e.cut_count; i++)
        rf_cut_put(env->output, e.table_index, e.cuts[i].column, env->rows,
                   (enum rf_cut)e.cuts[i].kind);
    commit(L, env);
    env->rows++;
    if (env->trace)
        trace_row(&e);
    return 0;
}

/* ---- parts ---- */

struct part {
    bool has_offset, has_size;
    uint64_t offset, size;
    struct rf_bytes bytes, head, media, name; /* bytes.data NULL: a range */
};

static uint64_t read_position(lua_State *L, int index, const char *field)
{
    double n = lua_type(L, index) == LUA_TNUMBER ? lua_tonumber(L, index) : -1;

    if (!(n >= 0 && n <= RF_LUA_EXACT) || n != floor(n))
        rf_host_error(L, "emit.part: '%s' must be a whole number of bytes from 0", field);
    return (uint64_t)n;
}

static struct rf_bytes read_field(lua_State *L, int index, const char *field)
{
    struct rf_bytes text;

    if (lua_type(L, index) != LUA_TSTRING)
        rf_host_error(L, "emit.part: '%s' must be a string, not a %s", field,
                      luaL_typename(L, index));
    text.data = (const uint8_t *)lua_tolstring(L, index, &text.size);
    return text;
}

/* Strings stay on the stack's table at 1, so what was read is lent from there. */
static void read_part(lua_State *L, struct part *part)
{
    static const char *const fields[] = {"bytes", "head", "media", "name", "offset", "size"};

    lua_pushnil(L);
    while (lua_next(L, 1)) {
        const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
        if (rf_host_is_null(L, -1)) {
            lua_pop(L, 1);
            continue;
        }
        if (strcmp(key, "bytes") == 0) {
            part->bytes = read_field(L, -1, key);
        } else if (strcmp(key, "head") == 0) {
            part->head = read_field(L, -1, key);
        } else if (strcmp(key, "media") == 0) {
            part->media = read_field(L, -1, key);
        } else if (strcmp(key, "name") == 0) {
            part->name = read_field(L, -1, key);
        } else if (strcmp(key, "offset") == 0) {
            part->offset = read_position(L, -1, key);
            part->has_offset = true;
        } else if (strcmp(key, "size") == 0) {
            part->size = read_position(L, -1, key);
            part->has_size = true;
        } else {
            const char *nearest = rf_nearest(key, fields, 6);
            rf_host_error(L, "emit.part: unknown field '%.60s'%s%s%s (a part has offset, size and "
                             "maybe head, or bytes, and media, name)",
                          key, nearest ? ", did you mean '" : "",
                          nearest ? nearest : "", nearest ? "'?" : "");
        }
        lua_pop(L, 1);
    }
}

/* type "/" subtype of visible ASCII without blanks, lower case. */
static bool media_valid(struct rf_bytes media)
{
    const uint8_t *slash = media.size ? memchr(media.data, '/', media.size) : NULL;

    if (!slash || slash == media.data || slash + 1 == media.data + media.size ||
        media.size > RF_MEDIA_MAX)
        return false;
    for (size_t i = 0; i < media.size; i++)
        if (media.data[i] <= ' ' || media.data[i] > '~' ||
            (media.data[i] >= 'A' && media.data[i] <= 'Z'))
            return false;
    return true;
}

static void check_part(lua_State *L, const struct rf_env *env, const struct part *part)
{
    if (part->bytes.data ? part->has_offset || part->has_size || part->head.data
                         : !part->has_offset || !part->has_size)
        rf_host_error(L, "emit.part: give either offset and size, or bytes");
    if (part->head.size > RF_PART_HEAD_MAX)
        rf_host_error(L, "emit.part: 'head' has %zu bytes, at most %u are allowed",
                      part->head.size, RF_PART_HEAD_MAX);
    if (!part->bytes.data && (part->size > env->item->size ||
                              part->offset > env->item->size - part->size))
        rf_host_error(L, "emit.part: bytes %llu to %llu are not within the blob of %llu bytes "
                         "(offset counts from 0)", (unsigned long long)part->offset,
                      (unsigned long long)(part->offset + part->size),
                      (unsigned long long)env->item->size);
    if (!media_valid(part->media))
        rf_host_error(L, "emit.part: 'media' must be a media type in lower case, such as "
                         "'message/rfc822', of at most %d bytes", RF_MEDIA_MAX);
}

/* A name comes from foreign data: cleaned, and cut to what a part may carry. */
static struct rf_bytes clean_name(lua_State *L, struct rf_bytes name)
{
    struct rf_buf *scratch;

    if (!name.data)
        return name;
    if (memchr(name.data, 0, name.size) || rf_utf8_valid(name) != name.size) {
        scratch = rf_host_scratch(L);
        rf_utf8_clean(scratch, name, true, NULL, NULL);
        name = rf_bytes(scratch->data ? (const void *)scratch->data : "", scratch->size);
    }
    if (name.size > RF_PART_NAME_MAX)
        name.size = rf_utf8_cut(name, RF_PART_NAME_MAX);
    return name;
}

static int emit_part(lua_State *L)
{
    struct rf_env *env = rf_host(L);
    struct part part = {0};

    check_mapping(L, env);
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    read_part(L, &part);
    check_part(L, env, &part);
    part.name = clean_name(L, part.name);
    if (env->parts >= env->decl->limits.parts)
        rf_host_limit(L, RF_ENV_LIMIT, "more than limits.parts = %u parts in one call",
                      env->decl->limits.parts);
    env->output->size = env->committed;
    if (part.bytes.data)
        rf_part_put_bytes(env->output, part.bytes, part.media, part.name);
    else
        rf_part_put_range(env->output, part.head, part.offset, part.size, part.media, part.name);
    commit(L, env);
    env->parts++;
    if (env->trace) {
        luaL_where(L, 1);
        rf_buf_printf(env->trace, "%semit.part { %.*s, %llu bytes }\n", lua_tostring(L, -1),
                      (int)part.media.size, (const char *)part.media.data,
                      (unsigned long long)(part.bytes.data ? part.bytes.size
                                                           : part.head.size + part.size));
    }
    return 0;
}

static int refuse_part(lua_State *L)
{
    return rf_host_error(L, "emit.part: a mapper that makes items of parts says so: add 'splits = "
                            "true' to its table");
}

/* ---- the emit object ---- */

static int unknown_table(lua_State *L)
{
    const struct rf_decl *decl = rf_host(L)->decl;
    const char *names[RF_TABLES_MAX + 1], *nearest, *key;
    size_t count = 0;

    for (; count < decl->table_count && count < RF_TABLES_MAX; count++)
        names[count] = decl->tables[count].name;
    names[count++] = "part";
    rf_host_push_text(L, 2);
    key = lua_tostring(L, -1);
    nearest = rf_nearest(key, names, count);
    return rf_host_error(L, "emit.%.60s: no table of this name is declared%s%s%s", key,
                         nearest ? ", did you mean '" : "", nearest ? nearest : "",
                         nearest ? "'?" : "");
}

void rf_lua_open_emit(lua_State *L)
{
    struct rf_env *env = rf_host(L);
    const struct rf_decl *decl = env->decl;

    lua_newtable(L);
    for (size_t t = 0; t < decl->table_count; t++) {
        lua_pushinteger(L, (lua_Integer)t);
        lua_createtable(L, (int)decl->tables[t].column_count, 0);
        for (size_t c = 0; c < decl->tables[t].column_count; c++) {
            lua_pushstring(L, decl->tables[t].columns[c].name);
            lua_rawseti(L, -2, (int)c + 1);
        }
        lua_pushcclosure(L, emit_row, 2);
        lua_setfield(L, -2, decl->tables[t].name);
    }
    lua_pushcfunction(L, decl->splits ? emit_part : refuse_part);
    lua_setfield(L, -2, "part");
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, unknown_table);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
    rf_host_freeze(L, "emit");
    env->ref_emit = luaL_ref(L, LUA_REGISTRYINDEX);
}
