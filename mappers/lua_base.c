/*
 * lua_base.c - Lua's own functions where ours must differ: order, addresses, integers
 *
 * pairs and next go in an order that depends on the keys alone (numbers ascending, then strings by
 * bytes, then false, true), because the order inside a table differs from process to process and
 * compiled loops over the built-in ones can end early (LuaJIT issues 827 and 1510). A traversal
 * visits the keys that were there when it began and still are when their turn comes.
 *
 * tostring and string.format show no addresses. 64-bit integers beyond 2^53 are cdata of LuaJIT
 * (int64_t): they compare, calculate and print exactly; the ffi library itself is out of reach.
 */
#include "core/control.h"
#include "mappers/lua_host.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- integers, null, tags ---- */

void rf_host_push_int(lua_State *L, int64_t value)
{
    if (value >= -(int64_t)RF_LUA_EXACT && value <= (int64_t)RF_LUA_EXACT) {
        lua_pushnumber(L, (lua_Number)value);
        return;
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, rf_host(L)->ref_int64);
    lua_call(L, 0, 1);
    memcpy((void *)(uintptr_t)lua_topointer(L, -1), &value, sizeof value);
}

static bool is_ctype(lua_State *L, int index, int ref)
{
    bool is;

    lua_rawgeti(L, LUA_REGISTRYINDEX, rf_host(L)->ref_istype);
    lua_rawgeti(L, LUA_REGISTRYINDEX, ref);
    lua_pushvalue(L, index);
    lua_call(L, 2, 1);
    is = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return is;
}

/* index is absolute. 1: signed in *out; 2: unsigned in *out; 0: neither. */
static int to_integer(lua_State *L, int index, uint64_t *out)
{
    if (lua_type(L, index) != RF_LUA_TCDATA)
        return 0;
    for (int i = 1; i <= 2; i++) {
        if (is_ctype(L, index, i == 1 ? rf_host(L)->ref_int64 : rf_host(L)->ref_uint64)) {
            memcpy(out, lua_topointer(L, index), sizeof *out);
            return i;
        }
    }
    return 0;
}

bool rf_host_to_int64(lua_State *L, int index, int64_t *out)
{
    uint64_t bits;
    int kind;

    if (lua_type(L, index) != RF_LUA_TCDATA)
        return false;
    if (index < 0)
        index = lua_gettop(L) + index + 1;
    kind = to_integer(L, index, &bits);
    if (kind == 0 || (kind == 2 && bits > INT64_MAX))
        return false;
    memcpy(out, &bits, sizeof bits);
    return true;
}

void *rf_host_to(lua_State *L, int index, enum rf_tag tag)
{
    const uint32_t *value;

    if (lua_type(L, index) != LUA_TUSERDATA)
        return NULL;
    value = lua_touserdata(L, index);
    return *value == (uint32_t)tag ? (void *)(uintptr_t)value : NULL;
}

bool rf_host_is_array(lua_State *L, int index)
{
    bool is;

    if (!lua_getmetatable(L, index))
        return false;
    lua_rawgeti(L, LUA_REGISTRYINDEX, rf_host(L)->ref_array);
    is = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return is;
}

/* ---- tostring, print, string.format ---- */

static void push_number(lua_State *L, int index)
{
    lua_Number n = lua_tonumber(L, index);

    if (n != n) {
        lua_pushliteral(L, "nan");
        return;
    }
    lua_pushvalue(L, index);
    lua_tolstring(L, -1, NULL);
}

static void push_cdata(lua_State *L, int index)
{
    uint64_t bits;
    int kind = to_integer(L, index, &bits);
    char text[32];

    if (kind == 0)
        rf_host_error(L, "only 64-bit integers may be used, not other values of this kind");
    if (kind == 1)
        snprintf(text, sizeof text, "%lld", (long long)bits);
    else
        snprintf(text, sizeof text, "%llu", (unsigned long long)bits);
    lua_pushstring(L, text);
}

void rf_host_push_text(lua_State *L, int index)
{
    if (index < 0)
        index = lua_gettop(L) + index + 1;
    switch (lua_type(L, index)) {
    case LUA_TSTRING:
        lua_pushvalue(L, index);
        return;
    case LUA_TNUMBER:
        push_number(L, index);
        return;
    case LUA_TBOOLEAN:
        lua_pushstring(L, lua_toboolean(L, index) ? "true" : "false");
        return;
    case LUA_TNIL:
        lua_pushliteral(L, "nil");
        return;
    case LUA_TLIGHTUSERDATA:
        lua_pushliteral(L, "null");
        return;
    case RF_LUA_TCDATA:
        push_cdata(L, index);
        return;
    default:
        if (!luaL_callmeta(L, index, "__tostring"))
            lua_pushstring(L, luaL_typename(L, index)); /* never an address */
        else if (lua_type(L, -1) != LUA_TSTRING)
            rf_host_error(L, "'__tostring' must return a string");
    }
}

static int base_tostring(lua_State *L)
{
    luaL_checkany(L, 1);
    if (!RF_SAFEGUARD("lua-no-addresses") && lua_istable(L, 1)) {
        lua_pushfstring(L, "table: %p", lua_topointer(L, 1));
        return 1;
    }
    rf_host_push_text(L, 1);
    return 1;
}

/* To the trace of `mapper run --trace`; elsewhere it goes nowhere. */
static int base_print(lua_State *L)
{
    struct rf_env *env = rf_host(L);
    int n = lua_gettop(L);

    if (!env->trace)
        return 0;
    luaL_where(L, 1);
    rf_buf_put_text(env->trace, lua_tostring(L, -1));
    for (int i = 1; i <= n; i++) {
        size_t size;
        const char *text;
        rf_host_push_text(L, i);
        text = lua_tolstring(L, -1, &size);
        if (i > 1)
            rf_buf_put_text(env->trace, "\t");
        rf_buf_put(env->trace, text, size);
        lua_pop(L, 1);
    }
    rf_buf_put_text(env->trace, "\n");
    return 0;
}

/* LuaJIT's string.format behind one that makes the texts of %s itself and refuses %p. */
static int string_format(lua_State *L)
{
    size_t size;
    const char *format = luaL_checklstring(L, 1, &size), *end = format + size;
    int argument = 1, top = lua_gettop(L);

    while (format < end) {
        if (*format++ != '%')
            continue;
        if (format < end && *format == '%') {
            format++;
            continue;
        }
        while (format < end && strchr("-+ #0123456789.", *format) && *format)
            format++;
        argument++;
        if (format >= end)
            break;
        if (*format == 'p')
            rf_host_error(L, "string.format: '%%p' is left out: an address differs in each run");
        if (argument > top)
            continue;
        if (*format == 's' && lua_type(L, argument) != LUA_TSTRING) {
            rf_host_push_text(L, argument);
            lua_replace(L, argument);
        }
    }
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, top, 1);
    return 1;
}

/* ---- metatables, raw access ---- */

static int base_getmetatable(lua_State *L)
{
    luaL_checkany(L, 1);
    if (lua_type(L, 1) != LUA_TTABLE || !lua_getmetatable(L, 1)) {
        lua_pushnil(L);
        return 1;
    }
    luaL_getmetafield(L, 1, "__metatable"); /* pushes nothing when there is none */
    return 1;
}

static int base_setmetatable(lua_State *L)
{
    if (rf_host_to(L, 1, RF_TAG_ROOM))
        rf_host_error(L, "setmetatable: this table is read-only");
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argcheck(L, lua_isnil(L, 2) || lua_istable(L, 2), 2, "nil or table expected");
    if (luaL_getmetafield(L, 1, "__metatable"))
        rf_host_error(L, "cannot change a protected metatable");
    lua_settop(L, 2);
    if (lua_istable(L, 2)) {
        lua_pushliteral(L, "__mode");
        lua_rawget(L, 2);
        if (!lua_isnil(L, -1))
            rf_host_error(L, "weak tables are left out: what they hold depends on when garbage is "
                             "collected");
        lua_pop(L, 1);
    }
    lua_setmetatable(L, 1);
    return 1;
}

static int base_rawset(lua_State *L)
{
    if (rf_host_to(L, 1, RF_TAG_ROOM))
        rf_host_error(L, "rawset: this table is read-only");
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checkany(L, 2);
    luaL_checkany(L, 3);
    lua_settop(L, 3);
    if (luaL_getmetafield(L, 1, "__metatable") && !rf_host_is_array(L, 1))
        rf_host_error(L, "rawset: this table is read-only");
    lua_settop(L, 3);
    lua_rawset(L, 1);
    return 1;
}

/* ---- pairs and next ---- */

enum { KEY_NUMBER, KEY_STRING, KEY_BOOLEAN };

struct key {
    int rank;
    size_t size;      /* of text; a boolean's value */
    union {
        lua_Number number;
        const char *text; /* of a string that is a key of the table, so it stays */
    };
};

#define KEYS_ON_STACK 64
#define INSERTION_MAX 16 /* keys sorted without the help of qsort */

static int compare_keys(const void *left, const void *right)
{
    const struct key *a = left, *b = right;
    int order;

    if (a->rank != b->rank)
        return a->rank - b->rank;
    if (a->rank == KEY_NUMBER)
        return (a->number > b->number) - (a->number < b->number);
    if (a->rank == KEY_BOOLEAN)
        return (int)a->size - (int)b->size;
    order = memcmp(a->text, b->text, a->size < b->size ? a->size : b->size);
    return order ? order : (a->size > b->size) - (a->size < b->size);
}

static void read_key(lua_State *L, int index, struct key *key)
{
    switch (lua_type(L, index)) {
    case LUA_TNUMBER:
        key->rank = KEY_NUMBER;
        key->number = lua_tonumber(L, index);
        return;
    case LUA_TSTRING:
        key->rank = KEY_STRING;
        key->text = lua_tolstring(L, index, &key->size);
        return;
    case LUA_TBOOLEAN:
        key->rank = KEY_BOOLEAN;
        key->size = (size_t)lua_toboolean(L, index);
        return;
    default:
        rf_host_error(L, "cannot go through a table in order: one of its keys is a %s; keep such "
                         "values in a list", luaL_typename(L, index));
    }
}

static void push_key(lua_State *L, const struct key *key)
{
    if (key->rank == KEY_NUMBER)
        lua_pushnumber(L, key->number);
    else if (key->rank == KEY_STRING)
        lua_pushlstring(L, key->text, key->size);
    else
        lua_pushboolean(L, (int)key->size);
}

/* Count the keys of the table at 1; *is_list: they are 1 to count, in that order. */
static size_t count_keys(lua_State *L, bool *is_list)
{
    size_t count = 0;

    *is_list = true;
    lua_pushnil(L);
    while (lua_next(L, 1)) {
        lua_pop(L, 1);
        count++;
        if (*is_list && !(lua_type(L, -1) == LUA_TNUMBER &&
                          lua_tonumber(L, -1) == (lua_Number)count))
            *is_list = false;
    }
    return count;
}

static void sort_keys(lua_State *L, struct key *keys)
{
    size_t at = 0;

    lua_pushnil(L);
    while (lua_next(L, 1)) {
        lua_pop(L, 1);
        read_key(L, -1, &keys[at++]);
    }
    if (!RF_SAFEGUARD("lua-ordered-pairs"))
        return;
    if (at > INSERTION_MAX) {
        qsort(keys, at, sizeof *keys, compare_keys);
        return;
    }
    for (size_t i = 1; i < at; i++) {
        struct key key = keys[i];
        size_t to = i;
        for (; to > 0 && compare_keys(&keys[to - 1], &key) > 0; to--)
            keys[to] = keys[to - 1];
        keys[to] = key;
    }
}

/*
 * A traversal's state is a table of its own, so that the iterator is the same function each time
 * and compiled loops keep to it: of a list { the table, count }, else { keys..., the table, how
 * many keys are through }.
 */
static int list_step(lua_State *L)
{
    int at = (int)luaL_checkinteger(L, 2), count;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_rawgeti(L, 1, 2);
    count = (int)lua_tointeger(L, -1);
    lua_rawgeti(L, 1, 1);
    luaL_argcheck(L, lua_istable(L, -1), 1, "not the state of a traversal");
    while (at < count) {
        lua_rawgeti(L, -1, ++at);
        if (!lua_isnil(L, -1)) {
            lua_pushinteger(L, at);
            lua_insert(L, -2);
            return 2;
        }
        lua_pop(L, 1);
    }
    return 0;
}

static int key_step(lua_State *L)
{
    int slots, at;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    slots = (int)lua_objlen(L, 1);
    lua_rawgeti(L, 1, slots);
    at = (int)lua_tointeger(L, -1);
    lua_rawgeti(L, 1, slots - 1);
    luaL_argcheck(L, lua_istable(L, -1), 1, "not the state of a traversal");
    while (at < slots - 2) {
        lua_rawgeti(L, 1, ++at);
        lua_pushvalue(L, -1);
        lua_rawget(L, 3);
        if (!lua_isnil(L, -1)) {
            lua_pushinteger(L, at);
            lua_rawseti(L, 1, slots);
            return 2;
        }
        lua_pop(L, 2);
    }
    return 0;
}

/* Push a list of keys with room for two more slots. */
static void push_key_list(lua_State *L, const struct key *keys, size_t count)
{
    lua_createtable(L, (int)count + 2, 0);
    for (size_t i = 0; i < count; i++) {
        push_key(L, &keys[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
}

/* A room (rf_host_freeze) is gone through by a copy: the table behind it stays out of reach. */
static void copy_room(lua_State *L)
{
    lua_getmetatable(L, 1);
    lua_getfield(L, -1, "__index");
    lua_newtable(L);
    lua_pushnil(L);
    while (lua_next(L, -3)) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, -4);
    }
    lua_replace(L, 1);
}

/* Upvalues: list_step, key_step. */
static int base_pairs(lua_State *L)
{
    struct key few[KEYS_ON_STACK], *keys = few;
    size_t count;
    bool is_list;

    if (rf_host_to(L, 1, RF_TAG_ROOM))
        copy_room(L);
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    count = count_keys(L, &is_list);
    if (is_list) {
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_createtable(L, 2, 0);
        lua_pushvalue(L, 1);
        lua_rawseti(L, -2, 1);
        lua_pushinteger(L, (lua_Integer)count);
        lua_rawseti(L, -2, 2);
        lua_pushinteger(L, 0);
        return 3;
    }
    if (count > KEYS_ON_STACK)
        keys = lua_newuserdata(L, count * sizeof *keys);
    sort_keys(L, keys);
    lua_pushvalue(L, lua_upvalueindex(2));
    push_key_list(L, keys, count);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, (int)count + 1);
    lua_pushinteger(L, 0);
    lua_rawseti(L, -2, (int)count + 2);
    return 2;
}

/* The smallest key of the table at 1 that is greater than after (NULL: the smallest of all). */
static bool find_key(lua_State *L, const struct key *after, struct key *found)
{
    struct key key;
    bool any = false;

    lua_pushnil(L);
    while (lua_next(L, 1)) {
        lua_pop(L, 1);
        read_key(L, -1, &key);
        if (after && compare_keys(&key, after) <= 0)
            continue;
        if (!any || compare_keys(&key, found) < 0)
            *found = key;
        any = true;
    }
    return any;
}

/* A run of next calls over one table goes along the keys noted at the first step: registry slot
 * ref_next holds { the table, list of its keys }, env->next_at the place. */
static bool next_noted(lua_State *L, struct rf_env *env)
{
    bool found = false;

    lua_rawgeti(L, LUA_REGISTRYINDEX, env->ref_next);
    if (lua_istable(L, 3)) {
        lua_rawgeti(L, 3, 1);
        if (lua_rawequal(L, 1, 4)) {
            lua_rawgeti(L, 3, 2);
            lua_rawgeti(L, 5, (int)env->next_at);
            found = lua_rawequal(L, 2, 6);
            lua_settop(L, 5);
        }
    }
    if (!found)
        lua_settop(L, 2);
    return found;
}

static void note_keys(lua_State *L, struct rf_env *env)
{
    bool is_list;
    size_t count = count_keys(L, &is_list);
    struct key *keys;
    struct key here;

    lua_createtable(L, 2, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, 3, 1);
    keys = lua_newuserdata(L, (count ? count : 1) * sizeof *keys);
    sort_keys(L, keys);
    push_key_list(L, keys, count);
    read_key(L, 2, &here);
    env->next_at = 1;
    while (env->next_at <= count && compare_keys(&keys[env->next_at - 1], &here) < 0)
        env->next_at++;
    if (env->next_at > count || compare_keys(&keys[env->next_at - 1], &here) > 0)
        env->next_at--; /* the key is gone: go on behind its place */
    lua_pushvalue(L, -1);
    lua_rawseti(L, 3, 2);
    lua_pushvalue(L, 3);
    lua_rawseti(L, LUA_REGISTRYINDEX, env->ref_next);
    /* on the stack now, as next_noted leaves it: 3 what is noted, 4 anything, 5 the list */
}

static int base_next(lua_State *L)
{
    struct rf_env *env = rf_host(L);
    struct key key;

    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 2);
    if (lua_isnil(L, 2)) {
        if (!find_key(L, NULL, &key)) {
            lua_pushnil(L);
            return 1;
        }
        push_key(L, &key);
        lua_pushvalue(L, -1);
        lua_rawget(L, 1);
        return 2;
    }
    if (!next_noted(L, env))
        note_keys(L, env);
    for (;;) {
        lua_rawgeti(L, 5, (int)++env->next_at);
        if (lua_isnil(L, -1))
            return 1;
        lua_pushvalue(L, -1);
        lua_rawget(L, 1);
        if (!lua_isnil(L, -1))
            return 2;
        lua_pop(L, 2);
    }
}

void rf_lua_open_base(lua_State *L)
{
    static const struct rf_host_function functions[] = {
        {"getmetatable", base_getmetatable},
        {"next", base_next},
        {"print", base_print},
        {"rawset", base_rawset},
        {"setmetatable", base_setmetatable},
        {"tostring", base_tostring},
    };
    struct rf_env *env = rf_host(L);

    rf_host_register(L, functions, sizeof functions / sizeof functions[0]);
    lua_pushcfunction(L, list_step);
    lua_pushcfunction(L, key_step);
    lua_pushcclosure(L, base_pairs, 2);
    lua_setfield(L, -2, "pairs");
    lua_rawgeti(L, LUA_REGISTRYINDEX, env->ref_format);
    lua_pushcclosure(L, string_format, 1);
    lua_rawseti(L, LUA_REGISTRYINDEX, env->ref_format);
    lua_pushboolean(L, 0);
    env->ref_next = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushboolean(L, 0);
    env->ref_content = luaL_ref(L, LUA_REGISTRYINDEX);
}
