/*
 * lua_env.c - a Lua state, what is in it, and the one protected call
 *
 * A state is built in three steps: the libraries' safe functions are copied into a fresh table (a
 * white list: nothing is reached that was not named here); the mapper's chunk and what it requires
 * run in that table; then the table is frozen. Everything that can raise runs under protect(),
 * which holds the program's only lua_pcall.
 *
 * Memory: the allocator never answers NULL, because compiled code of this LuaJIT crashes then. Past
 * the limit it tells the worker, which ends the process. So that garbage does not count as growth,
 * the collector is made to work harder as the heap fills.
 *
 * To add a helper room: a lua_NAME.c with rf_lua_open_NAME, and a line in refuge_rooms below.
 */
#include "core/control.h"
#include "core/glob.h"
#include "core/utf8.h"
#include "mappers/lua_host.h"
#include "mappers/lua_shape.h"
#include "mappers/pool.h"

#include <assert.h>
#include <luajit.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

#define MEMORY_MB_DEFAULT 16
#define TRACE_LEVELS 24

/* ---- memory ---- */

static void tune_collector(struct rf_env *env)
{
    static const struct {
        unsigned eighths, pause, step;
    } bands[] = {{2, 200, 200}, {3, 160, 300}, {4, 130, 400}, {8, 110, 800}};
    size_t low = 0;

    for (size_t i = 0; i < sizeof bands / sizeof bands[0]; i++) {
        size_t high = env->used_max / 8 * bands[i].eighths;
        if (env->used < high || bands[i].eighths == 8) {
            env->band_low = low;
            env->band_high = bands[i].eighths == 8 ? SIZE_MAX : high;
            lua_gc(env->L, LUA_GCSETPAUSE, (int)bands[i].pause);
            lua_gc(env->L, LUA_GCSETSTEPMUL, (int)bands[i].step);
            return;
        }
        low = high;
    }
}

static void *allocate(void *user, void *memory, size_t old, size_t size)
{
    struct rf_env *env = user;
    void *moved;

    if (size == 0) {
        env->used -= old;
        free(memory);
        return NULL;
    }
    if (!memory)
        old = 0;
    if (size > old && env->used - old + size > env->used_max && RF_SAFEGUARD("lua-heap-limit")) {
        env->options.out_of_memory(env->options.user, env->used - old + size);
        abort(); /* it must not return */
    }
    moved = realloc(memory, size);
    if (!moved) {
        env->options.out_of_memory(env->options.user, env->used - old + size);
        abort();
    }
    env->used = env->used - old + size;
    if (env->L && (env->used < env->band_low || env->used >= env->band_high))
        tune_collector(env);
    return moved;
}

bool rf_host_room(lua_State *L, uint64_t size)
{
    struct rf_env *env = rf_host(L);
    size_t margin = env->used_max / 8;

    if (size > env->used_max - margin)
        return false;
    if (env->used + size <= env->used_max - margin)
        return true;
    lua_gc(L, LUA_GCCOLLECT, 0);
    if (env->used + size <= env->used_max - margin)
        return true;
    /* Compiled code keeps the iterators it was made for, and what they read: let go of it. */
    luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_FLUSH);
    lua_gc(L, LUA_GCCOLLECT, 0);
    return env->used + size <= env->used_max - margin;
}

/* ---- errors ---- */

struct rf_env *rf_host(lua_State *L)
{
    void *user;

    lua_getallocf(L, &user);
    return user;
}

int rf_host_error(lua_State *L, const char *format, ...)
{
    char words[RF_MESSAGE_SIZE];
    va_list args;

    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    luaL_error(L, "%s", words);
    abort(); /* luaL_error does not return */
}

int rf_host_limit(lua_State *L, enum rf_env_outcome outcome, const char *format, ...)
{
    struct rf_env *env = rf_host(L);
    char words[RF_MESSAGE_SIZE];
    va_list args;

    va_start(args, format);
    vsnprintf(words, sizeof words, format, args);
    va_end(args);
    luaL_where(L, 1);
    if (!env->stuck && RF_SAFEGUARD("lua-limit-sticks")) {
        env->stuck = true;
        env->stuck_outcome = outcome;
        snprintf(env->message, sizeof env->message, "%s%s", lua_tostring(L, -1), words);
    }
    lua_pushstring(L, words);
    lua_concat(L, 2);
    lua_error(L);
    abort();
}

/* Copy words as one printable line of at most RF_MESSAGE_SIZE - 1 bytes. */
static void set_message(struct rf_env *env, const char *words, size_t size)
{
    size_t used = 0;
    bool cut = false;

    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)words[i];
        if (used + 8 > sizeof env->message) {
            cut = true;
            break;
        }
        if (c < 0x20 || c == 0x7f)
            used += (size_t)snprintf(env->message + used, 5, "\\x%02x", c);
        else
            env->message[used++] = (char)c;
    }
    used = rf_utf8_cut(rf_bytes(env->message, used), used);
    if (cut)
        used += (size_t)snprintf(env->message + used, sizeof env->message - used, "...");
    env->message[used] = '\0';
}

/* One line per Lua frame, innermost first: "mail.lua:12: in function 'subject'". */
static void write_traceback(lua_State *L, char *out, size_t size)
{
    lua_Debug frame;
    size_t used = 0;

    out[0] = '\0';
    for (int level = 1, lines = 0; lua_getstack(L, level, &frame); level++) {
        int n;
        lua_getinfo(L, "Sln", &frame);
        if (frame.currentline < 0 && !frame.name)
            continue;
        if (lines++ == TRACE_LEVELS) {
            snprintf(out + used, size - used, "...\n");
            return;
        }
        if (frame.currentline < 0)
            n = snprintf(out + used, size - used, "in helper '%.60s'\n", frame.name);
        else if (*frame.what == 'm')
            n = snprintf(out + used, size - used, "%s:%d: in the file's own code\n",
                         frame.short_src, frame.currentline);
        else if (frame.name)
            n = snprintf(out + used, size - used, "%s:%d: in function '%.60s'\n", frame.short_src,
                         frame.currentline, frame.name);
        else
            n = snprintf(out + used, size - used, "%s:%d: in a function begun at line %d\n",
                         frame.short_src, frame.currentline, frame.linedefined);
        if (n < 0 || (size_t)n >= size - used)
            return;
        used += (size_t)n;
    }
}

/* Runs where the error was raised, before the stack unwinds. The message is made here too: an error
 * value may be anything. */
static int on_error(lua_State *L)
{
    struct rf_env *env = rf_host(L);
    size_t size;
    const char *words;

    write_traceback(L, env->traceback, sizeof env->traceback);
    if (env->stuck)
        return 1;
    if (lua_type(L, 1) == LUA_TSTRING || lua_type(L, 1) == LUA_TNUMBER) {
        words = lua_tolstring(L, 1, &size);
        set_message(env, words, size);
    } else if (lua_istable(L, 1)) {
        lua_pushliteral(L, "message");
        lua_rawget(L, 1);
        words = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &size) : NULL;
        if (words)
            set_message(env, words, size);
        else
            snprintf(env->message, sizeof env->message, "the error raised is a table");
    } else {
        snprintf(env->message, sizeof env->message, "the error raised is a %s",
                 luaL_typename(L, 1));
    }
    return 1;
}

/*
 * The only protected call. function gets argument as a light userdata; what it leaves is gone.
 * false: message and traceback say why. All garbage that a helper's scratch held may be used again.
 */
static bool protect(struct rf_env *env, lua_CFunction function, void *argument)
{
    lua_State *L = env->L;
    int status;

    env->message[0] = env->traceback[0] = '\0';
    lua_settop(L, 0);
    lua_pushcfunction(L, on_error);
    lua_pushcfunction(L, function);
    lua_pushlightuserdata(L, argument);
    status = lua_pcall(L, 1, 0, 1);
    lua_settop(L, 0);
    if (status == LUA_ERRMEM) { /* LuaJIT's own bound of a text; no call of on_error */
        env->stuck = true;
        env->stuck_outcome = RF_ENV_LIMIT;
        snprintf(env->message, sizeof env->message, "needed more than %zu MB of memory",
                 env->used_max >> 20);
    } else if (status != 0 && !env->message[0]) {
        snprintf(env->message, sizeof env->message,
                 "error while handling an error (stack overflow)");
    }
    return status == 0;
}

/* ---- shared by helpers ---- */

struct rf_buf *rf_host_scratch(lua_State *L)
{
    struct rf_env *env = rf_host(L);

    rf_buf_clear(&env->scratch);
    return &env->scratch;
}

void rf_host_push_scratch(lua_State *L)
{
    struct rf_env *env = rf_host(L);

    if (env->scratch.failed || !rf_host_room(L, env->scratch.size))
        rf_host_error(L, "the text made here does not fit the heap of %zu MB",
                      env->used_max >> 20);
    lua_pushlstring(L, env->scratch.size ? (const char *)env->scratch.data : "",
                    env->scratch.size);
}

void rf_host_register(lua_State *L, const struct rf_host_function *functions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        lua_pushstring(L, functions[i].name);
        lua_pushcfunction(L, functions[i].call);
        lua_rawset(L, -3);
    }
}

static int refuse_write(lua_State *L)
{
    rf_host_push_text(L, 2);
    return rf_host_error(L, "cannot set '%.60s': %s is read-only", lua_tostring(L, -1),
                         lua_tostring(L, lua_upvalueindex(1)));
}

/* What scripts get is a userdata: table.insert and its like take tables only, and change them
 * whatever their metatable says. */
void rf_host_freeze(lua_State *L, const char *what)
{
    uint32_t *tag;

    if (!RF_SAFEGUARD("lua-rooms-frozen")) {
        lua_newtable(L);
    } else {
        tag = lua_newuserdata(L, sizeof *tag);
        *tag = RF_TAG_ROOM;
    }
    lua_createtable(L, 0, 3);
    lua_pushvalue(L, -3);
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, what);
    lua_pushcclosure(L, refuse_write, 1);
    lua_setfield(L, -2, "__newindex");
    lua_pushstring(L, what);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_replace(L, -2);
}

/* ---- the environment ---- */

struct room {
    const char *name;
    const char *functions[24];
};

/* What scripts get of Lua's own libraries. Left out and why: doc/refuge-mapper.7. */
static const struct room white_list[] = {
    {"", {"assert", "error", "ipairs", "pcall", "rawequal", "rawget", "select", "tonumber", "type",
          "unpack", "xpcall"}},
    {"string", {"byte", "char", "find", "gmatch", "gsub", "len", "lower", "match", "rep", "reverse",
                "sub", "upper"}},
    {"table", {"concat", "insert", "remove", "sort"}},
    {"math", {"abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor",
              "fmod", "frexp", "huge", "ldexp", "log", "log10", "max", "min", "modf", "pi", "pow",
              "rad"}},
    {"bit", {"arshift", "band", "bnot", "bor", "bswap", "bxor", "lshift", "rol", "ror", "rshift",
             "tobit", "tohex"}},
    {"coroutine", {"create", "resume", "running", "status", "wrap", "yield"}},
};

static const struct room math_more = {"math", {"sin", "sinh", "sqrt", "tan", "tanh"}};

static const struct {
    const char *name;
    void (*open)(lua_State *L);
} refuge_rooms[] = {
    {"json", rf_lua_open_json}, {"text", rf_lua_open_text}, {"time", rf_lua_open_time},
    {"uri", rf_lua_open_uri},   {"hash", rf_lua_open_hash}, {"unicode", rf_lua_open_unicode},
    {"csv", rf_lua_open_csv},
};

static void open_libraries(lua_State *L, bool jit_off)
{
    static const struct {
        const char *name;
        lua_CFunction open;
    } libraries[] = {
        {"", luaopen_base},          {LUA_STRLIBNAME, luaopen_string},
        {LUA_TABLIBNAME, luaopen_table}, {LUA_MATHLIBNAME, luaopen_math},
        {LUA_BITLIBNAME, luaopen_bit},   {LUA_JITLIBNAME, luaopen_jit},
        {LUA_FFILIBNAME, luaopen_ffi},
    };

    for (size_t i = 0; i < sizeof libraries / sizeof libraries[0]; i++) {
        lua_pushcfunction(L, libraries[i].open);
        lua_pushstring(L, libraries[i].name);
        lua_call(L, 1, 0);
    }
    if (jit_off)
        luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
}

/* Keep what 64-bit integers need of the ffi library, where no script reaches. */
static void keep_integers(struct rf_env *env)
{
    lua_State *L = env->L;

    lua_getfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_getfield(L, -1, LUA_FFILIBNAME);
    /* All of it: lua_close looks at its table of finalizers, which only its functions hold. */
    lua_pushvalue(L, -1);
    luaL_ref(L, LUA_REGISTRYINDEX);
    lua_getfield(L, -1, "istype");
    env->ref_istype = luaL_ref(L, LUA_REGISTRYINDEX);
    for (int i = 0; i < 2; i++) {
        lua_getfield(L, -1, "typeof");
        lua_pushstring(L, i ? "uint64_t" : "int64_t");
        lua_call(L, 1, 1);
        *(i ? &env->ref_uint64 : &env->ref_int64) = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    lua_pop(L, 2);
}

static void copy_functions(lua_State *L, const struct room *room, int from, int to)
{
    for (size_t i = 0; i < sizeof room->functions / sizeof room->functions[0]; i++) {
        if (!room->functions[i])
            return;
        lua_getfield(L, from, room->functions[i]);
        assert(!lua_isnil(L, -1));
        lua_setfield(L, to, room->functions[i]);
    }
}

static void copy_library(lua_State *L, const struct room *room, int environment)
{
    lua_getglobal(L, room->name);
    lua_newtable(L);
    copy_functions(L, room, lua_gettop(L) - 1, lua_gettop(L));
    if (strcmp(room->name, "math") == 0)
        copy_functions(L, &math_more, lua_gettop(L) - 1, lua_gettop(L));
    if (strcmp(room->name, "string") == 0) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, rf_host(L)->ref_format);
        lua_setfield(L, -2, "format");
        lua_pushliteral(L, ""); /* s:find() reaches this table without passing the frozen one */
        lua_getmetatable(L, -1);
        lua_pushvalue(L, -3);
        lua_setfield(L, -2, "__index");
        lua_pushliteral(L, "string");
        lua_setfield(L, -2, "__metatable");
        lua_pop(L, 2);
    }
    rf_host_freeze(L, room->name);
    lua_setfield(L, environment, room->name);
    lua_pop(L, 1);
}

static int refuge_array(lua_State *L)
{
    if (lua_isnoneornil(L, 1)) {
        lua_settop(L, 0);
        lua_newtable(L);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    if (luaL_getmetafield(L, 1, "__metatable") && !rf_host_is_array(L, 1))
        rf_host_error(L, "refuge.array: this table is read-only");
    lua_settop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, rf_host(L)->ref_array);
    lua_setmetatable(L, 1);
    return 1;
}

static void push_refuge(lua_State *L)
{
    lua_newtable(L);
    for (size_t i = 0; i < sizeof refuge_rooms / sizeof refuge_rooms[0]; i++) {
        char what[32];
        refuge_rooms[i].open(L);
        snprintf(what, sizeof what, "refuge.%s", refuge_rooms[i].name);
        rf_host_freeze(L, what);
        lua_setfield(L, -2, refuge_rooms[i].name);
    }
    rf_host_push_null(L);
    lua_setfield(L, -2, "null");
    lua_pushcfunction(L, refuge_array);
    lua_setfield(L, -2, "array");
    lua_pushinteger(L, RF_API_VERSION);
    lua_setfield(L, -2, "api");
    rf_host_freeze(L, "refuge");
}

/* The table every chunk runs in; it is on the stack afterwards. */
static void build_environment(struct rf_env *env)
{
    lua_State *L = env->L;
    int environment;

    open_libraries(L, env->options.jit_off);
    keep_integers(env);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "array");
    lua_setfield(L, -2, "__metatable");
    env->ref_array = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_getglobal(L, "string");
    lua_getfield(L, -1, "format");
    env->ref_format = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pop(L, 1);

    lua_newtable(L);
    environment = lua_gettop(L);
    copy_functions(L, &white_list[0], LUA_GLOBALSINDEX, environment);
    rf_lua_open_base(L); /* leaves our string.format in ref_format */
    for (size_t i = 1; i < sizeof white_list / sizeof white_list[0]; i++)
        copy_library(L, &white_list[i], environment);
    push_refuge(L);
    lua_setfield(L, environment, "refuge");
    rf_lua_open_blob(L);
    /* Nothing reaches these any more; a mistake elsewhere shall not find them either. */
    lua_pushnil(L);
    lua_setfield(L, LUA_REGISTRYINDEX, "_LOADED");
    lua_pushnil(L);
    while (lua_next(L, LUA_GLOBALSINDEX)) {
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        lua_pushnil(L);
        lua_rawset(L, LUA_GLOBALSINDEX);
    }
    lua_pushvalue(L, environment);
    env->ref_environment = luaL_ref(L, LUA_REGISTRYINDEX);
}

static int refuse_global(lua_State *L)
{
    rf_host_push_text(L, 2);
    return rf_host_error(L,
                         "cannot set global '%.60s': globals are frozen once the file is loaded "
                         "(an item must not change what the next one sees); use 'local'",
                         lua_tostring(L, -1));
}

/* Move what the environment holds behind a table that cannot be written. */
static void freeze_environment(struct rf_env *env)
{
    lua_State *L = env->L;
    int environment;

    lua_rawgeti(L, LUA_REGISTRYINDEX, env->ref_environment);
    environment = lua_gettop(L);
    if (!RF_SAFEGUARD("lua-globals-frozen"))
        return;
    lua_newtable(L);
    lua_pushnil(L);
    while (lua_next(L, environment)) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, environment + 1);
        lua_pushvalue(L, -1);
        lua_pushnil(L);
        lua_rawset(L, environment);
    }
    lua_createtable(L, 0, 3);
    lua_insert(L, -2);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, refuse_global);
    lua_setfield(L, -2, "__newindex");
    lua_pushliteral(L, "globals");
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, environment);
    lua_pop(L, 1);
}

/* ---- chunks ---- */

/* Compile text as a chunk called file and set its environment; raises with file:line. */
static void load_chunk(lua_State *L, const char *file, struct rf_bytes text)
{
    const char *mode = RF_SAFEGUARD("lua-text-chunks") ? "t" : "bt";
    char name[160];

    snprintf(name, sizeof name, "@%s", file);
    if (text.size >= 3 && memcmp(text.data, "\xef\xbb\xbf", 3) == 0)
        text = rf_bytes(text.data + 3, text.size - 3);
    if (luaL_loadbufferx(L, text.size ? (const char *)text.data : "", text.size, name, mode) != 0) {
        if (mode[0] == 't' && text.size && text.data[0] == '\x1b')
            luaL_error(L, "%s: this is compiled Lua; a mapper is given as text", file);
        lua_error(L);
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, rf_host(L)->ref_environment);
    lua_setfenv(L, -2);
}

static int base_require(lua_State *L)
{
    struct rf_env *env = rf_host(L);
    const char *name = luaL_checkstring(L, 1);
    struct rf_bytes text = {0};
    char file[128];

    if (!env->loading)
        rf_host_error(L, "require('%.60s'): modules are loaded only while the file is, not in map",
                      name);
    lua_settop(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, env->ref_modules);
    lua_pushvalue(L, 1);
    lua_rawget(L, 2);
    if (lua_isboolean(L, 3) && !lua_toboolean(L, 3))
        rf_host_error(L, "require('%.60s'): these modules require each other in a circle", name);
    if (!lua_isnil(L, 3))
        return 1;
    if (strlen(name) > 100 || !env->options.module ||
        env->options.module(env->options.user, name, &text) != RF_OK)
        rf_host_error(L, "require('%.60s'): no such module beside the mapper's file, nor a bundled "
                      "mapper of that name", name);
    lua_pushvalue(L, 1);
    lua_pushboolean(L, 0); /* being loaded */
    lua_rawset(L, 2);
    snprintf(file, sizeof file, "%s.lua", name);
    load_chunk(L, file, text);
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        lua_pushboolean(L, 1);
    }
    lua_pushvalue(L, 1);
    lua_pushvalue(L, -2);
    lua_rawset(L, 2);
    return 1;
}

struct open_request {
    struct rf_env *env;
    struct rf_bytes text;
};

/* Keep a function of the mapper's table; 0 when it has none. */
static int keep_field(lua_State *L, const char *name, int type)
{
    lua_getfield(L, -1, name);
    if (lua_type(L, -1) == type)
        return luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pop(L, 1);
    return LUA_NOREF;
}

static int open_body(lua_State *L)
{
    struct open_request *request = lua_touserdata(L, 1);
    struct rf_env *env = request->env;

    build_environment(env);
    lua_pushcfunction(L, base_require);
    lua_setfield(L, -2, "require");
    lua_newtable(L);
    env->ref_modules = luaL_ref(L, LUA_REGISTRYINDEX);
    env->loading = true;
    load_chunk(L, env->file, request->text);
    lua_call(L, 0, 1);
    env->loading = false;
    if (!lua_istable(L, -1)) {
        lua_pushfstring(L, "%s: the file must return a table { name = ..., tables = ..., map = ... "
                        "}, it returned %s", env->file,
                        lua_isnil(L, -1) ? "nothing" : luaL_typename(L, -1));
        lua_error(L);
    }
    lua_pushvalue(L, -1);
    env->ref_mapper = luaL_ref(L, LUA_REGISTRYINDEX);
    rf_shape_check(L, env->file); /* what the table holds; raises */
    env->ref_map = keep_field(L, "map", LUA_TFUNCTION);
    env->ref_match = keep_field(L, "match", LUA_TFUNCTION);
    rf_shape_patterns(L, env);
    freeze_environment(env);
    if (env->decl)
        rf_lua_open_emit(L);
    lua_gc(L, LUA_GCCOLLECT, 0);
    return 0;
}

enum rf_status rf_env_open(struct rf_env **out, const char *file, struct rf_bytes text,
                           const struct rf_decl *decl, const struct rf_env_options *options,
                           struct rf_error *err)
{
    struct rf_env *env = calloc(1, sizeof *env);
    struct open_request request = {env, text};
    uint32_t memory_mb = decl ? decl->limits.memory_mb : MEMORY_MB_DEFAULT;

    if (!env)
        return rf_error_set(err, RF_NOMEM, "cannot open mapper '%s': no memory", file);
    env->options = *options;
    env->decl = decl;
    env->used_max = (size_t)memory_mb << 20;
    env->band_high = SIZE_MAX;
    snprintf(env->file, sizeof env->file, "%s", file);
    rf_buf_init(&env->scratch, env->used_max);
    rf_buf_init(&env->encoded, env->used_max);
    rf_buf_init(&env->need_records, 64 * 1024);
    rf_arena_init(&env->arena, 256 * 1024);
    env->L = lua_newstate(allocate, env);
    if (!env->L) {
        rf_env_close(env);
        return rf_error_set(err, RF_NOMEM, "cannot open mapper '%s': no Lua state", file);
    }
    tune_collector(env);
    if (!protect(env, open_body, &request)) {
        rf_error_set(err, RF_INVALID, "%s", env->message);
        rf_env_close(env);
        return RF_INVALID;
    }
    *out = env;
    return RF_OK;
}

void rf_env_close(struct rf_env *env)
{
    if (!env)
        return;
    if (env->L)
        lua_close(env->L);
    rf_buf_release(&env->scratch);
    rf_buf_release(&env->encoded);
    rf_buf_release(&env->need_records);
    rf_arena_release(&env->arena);
    free(env);
}

/* ---- declaration and tests ---- */

static enum rf_status describe(struct rf_env *env, lua_CFunction body, struct rf_buf *json,
                               struct rf_error *err)
{
    rf_buf_clear(json);
    if (!protect(env, body, json))
        return rf_error_set(err, RF_INVALID, "%s", env->message);
    if (json->failed)
        return rf_error_set(err, json->failed, "%s: its declaration is larger than %zu bytes",
                            env->file, json->max);
    return RF_OK;
}

static int declare_body(lua_State *L)
{
    struct rf_buf *json = lua_touserdata(L, 1);

    lua_rawgeti(L, LUA_REGISTRYINDEX, rf_host(L)->ref_mapper);
    rf_shape_declare(L, rf_host(L)->file, json);
    return 0;
}

enum rf_status rf_env_declare(struct rf_env *env, struct rf_buf *json, struct rf_error *err)
{
    return describe(env, declare_body, json, err);
}

static int tests_body(lua_State *L)
{
    struct rf_buf *json = lua_touserdata(L, 1);

    lua_rawgeti(L, LUA_REGISTRYINDEX, rf_host(L)->ref_mapper);
    rf_shape_tests(L, rf_host(L)->file, json);
    return 0;
}

enum rf_status rf_env_tests(struct rf_env *env, struct rf_buf *json, struct rf_error *err)
{
    return describe(env, tests_body, json, err);
}

/* ---- mapping ---- */

static bool patterns_want(struct rf_env *env)
{
    /* A part has no name. */
    const char *name = env->item->kind == RF_ITEM_PART ? NULL : env->item->name;
    const char *base = name ? strrchr(name, '/') : NULL;

    base = base ? base + 1 : name;
    for (size_t i = 0; i < env->pattern_count; i++) {
        const struct rf_pattern *p = &env->patterns[i];
        if (p->is_name ? base && rf_glob_matches(p->text, base)
                       : rf_glob_matches(p->text, rf_host_media(env)))
            return true;
    }
    return false;
}

static bool item_wanted(struct rf_env *env)
{
    lua_State *L = env->L;
    bool wanted;

    if (env->item->kind == RF_ITEM_BLOB && !(env->decl->on & RF_ON_BLOB))
        return false;
    if (env->item->kind == RF_ITEM_FILE && !(env->decl->on & RF_ON_FILE))
        return false;
    if (env->pattern_count && !patterns_want(env))
        return false;
    if (env->ref_match == LUA_NOREF)
        return true;
    lua_rawgeti(L, LUA_REGISTRYINDEX, env->ref_match);
    rf_host_push_blob(L);
    lua_call(L, 1, 1);
    wanted = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return wanted;
}

/* A line per C function called, for `mapper run --trace`; the interpreter runs then. */
static void on_call(lua_State *L, lua_Debug *frame)
{
    struct rf_env *env = rf_host(L);
    lua_Debug caller;

    lua_getinfo(L, "Sn", frame);
    if (*frame->what != 'C' || !frame->name || !env->trace || !lua_getstack(L, 1, &caller))
        return;
    if (strcmp(frame->name, "print") == 0 || strncmp(frame->name, "__", 2) == 0 ||
        *frame->name == '(') /* what says itself; fields; steps of an iterator */
        return;
    lua_getinfo(L, "Sl", &caller);
    if (caller.currentline > 0)
        rf_buf_printf(env->trace, "%s:%d: %s\n", caller.short_src, caller.currentline,
                      frame->name);
}

static int map_body(lua_State *L)
{
    struct rf_env *env = rf_host(L);
    bool *wanted = lua_touserdata(L, 1);

    *wanted = item_wanted(env);
    if (!*wanted)
        return 0;
    lua_rawgeti(L, LUA_REGISTRYINDEX, env->ref_map);
    rf_host_push_blob(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, env->ref_emit);
    lua_call(L, 2, 0);
    return 0;
}

static void begin_call(struct rf_env *env, const struct rf_env_item *item, struct rf_buf *output,
                       struct rf_buf *trace)
{
    rf_buf_clear(output);
    rf_buf_clear(&env->need_records);
    env->call++;
    env->item = item;
    env->media = NULL;
    env->output = output;
    env->output_max = (size_t)env->decl->limits.output_mb << 20;
    if (env->output_max > output->max)
        env->output_max = output->max;
    env->trace = trace;
    env->committed = 0;
    env->rows = env->parts = env->needs = 0;
    env->replaced = false;
    env->stuck = false;
    env->mapping = true;
    if (trace) {
        luaJIT_setmode(env->L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
        lua_sethook(env->L, on_call, LUA_MASKCALL, 0);
    }
}

static void end_call(struct rf_env *env)
{
    if (env->trace) {
        lua_sethook(env->L, NULL, 0, 0);
        if (!env->options.jit_off)
            luaJIT_setmode(env->L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_ON);
    }
    env->output->size = env->committed; /* a record begun and given up does not count */
    env->output->failed = RF_OK;
    env->mapping = false;
    env->item = NULL;
    for (int i = 0; i < 2; i++) { /* what the call kept in the registry */
        lua_pushboolean(env->L, 0);
        lua_rawseti(env->L, LUA_REGISTRYINDEX, i ? env->ref_next : env->ref_content);
    }
    if (env->used > env->used_max / 4)
        lua_gc(env->L, LUA_GCCOLLECT, 0);
    if (env->scratch.capacity > (1u << 20))
        rf_buf_release(&env->scratch);
    if (env->encoded.capacity > (1u << 20))
        rf_buf_release(&env->encoded);
}

enum rf_env_outcome rf_env_map(struct rf_env *env, const struct rf_env_item *item,
                               struct rf_buf *output, struct rf_buf *trace, const char **message,
                               const char **traceback)
{
    bool wanted = false, done;
    enum rf_env_outcome outcome;

    assert(env->decl);
    begin_call(env, item, output, trace);
    done = protect(env, map_body, &wanted);
    end_call(env);
    *message = env->message;
    *traceback = env->traceback;
    if (env->stuck)
        outcome = env->stuck_outcome;
    else if (!done)
        outcome = RF_ENV_FAILED;
    else
        outcome = wanted ? RF_ENV_ROWS : RF_ENV_NONE;
    if (outcome != RF_ENV_ROWS)
        rf_buf_clear(output);
    if (outcome == RF_ENV_MISSING)
        rf_buf_put(output, env->need_records.data, env->need_records.size);
    return outcome;
}
