/*
 * lua_blob.c - what a script may read: the item's blob and those it needs
 *
 * A blob is valid during its own call. Content in memory is never copied to be scanned; content
 * that is not is read whole into the Lua heap when it fits, or by windows: lines() and the record
 * iterators go through content of any size in RF_WINDOW bytes and the longest line or record.
 */
#include "core/control.h"
#include "mappers/lua_host.h"
#include "mappers/media.h"
#include "mappers/pool.h"

#include <math.h>
#include <string.h>

#define HEAD_SIZE RF_MEDIA_LOOK
#define NEEDS_MAX 1000

/* ---- the blob ---- */

static struct rf_lua_blob *check_blob(lua_State *L, int index, const char *what)
{
    struct rf_lua_blob *blob = rf_host_to(L, index, RF_TAG_BLOB);
    struct rf_env *env = rf_host(L);

    if (!blob)
        rf_host_error(L, "%s: a blob was expected, got a %s (call it with ':')", what,
                      luaL_typename(L, index));
    if (!env->mapping || blob->call != env->call)
        rf_host_error(L, "%s: this blob was of another call; a blob is there only while map runs",
                      what);
    return blob;
}

static void push_blob(lua_State *L, const struct rf_blobref *ref, uint64_t size, bool needed)
{
    struct rf_lua_blob *blob = lua_newuserdata(L, sizeof *blob);

    *blob = (struct rf_lua_blob){.tag = RF_TAG_BLOB, .needed = needed, .call = rf_host(L)->call,
                                 .size = size, .ref = *ref};
    lua_rawgeti(L, LUA_REGISTRYINDEX, rf_host(L)->ref_blob);
    lua_setmetatable(L, -2);
}

void rf_host_push_blob(lua_State *L)
{
    const struct rf_env_item *item = rf_host(L)->item;

    push_blob(L, &item->ref, item->size, false);
}

size_t rf_host_read(struct rf_env *env, const struct rf_lua_blob *blob, uint64_t offset, void *out,
                    size_t size)
{
    const struct rf_env_item *item = env->item;
    size_t done = 0, got;

    if (offset >= blob->size)
        return 0;
    if (size > blob->size - offset)
        size = (size_t)(blob->size - offset);
    if (!blob->needed && item->content) {
        memcpy(out, item->content + offset, size);
        return size;
    }
    while (done < size) {
        got = 0;
        if ((blob->needed
                 ? item->need_read(item->user, &blob->ref, offset + done, (uint8_t *)out + done,
                                   size - done, &got)
                 : item->read(item->user, offset + done, (uint8_t *)out + done, size - done,
                              &got)) != RF_OK || got == 0)
            break;
        done += got;
    }
    return done;
}

const char *rf_host_media(struct rf_env *env)
{
    const struct rf_env_item *item = env->item;
    struct rf_lua_blob blob = {.size = item->size};
    uint8_t head[HEAD_SIZE];
    size_t size;

    if (item->media)
        return item->media;
    if (!env->media) {
        size = item->size < sizeof head ? (size_t)item->size : sizeof head;
        if (item->content)
            env->media = rf_media_find(rf_bytes(item->content, size), item->name);
        else
            env->media = rf_media_find(rf_bytes(head, rf_host_read(env, &blob, 0, head, size)),
                                       item->name);
    }
    return env->media;
}

/* ---- whole content ---- */

__attribute__((noreturn)) static void too_large(lua_State *L, uint64_t size, const char *what)
{
    struct rf_env *env = rf_host(L);

    rf_host_error(L, "%s: %.1f MB do not fit the Lua heap of %zu MB; go through it by blob:lines() "
                     "or blob:sub(from, to); the mapper's limits.memory_mb sets this", what,
                  (double)size / (1 << 20), env->used_max >> 20);
}

/* Read all of a blob into a userdata that the registry keeps until the call ends. */
static struct rf_bytes read_whole(lua_State *L, const struct rf_lua_blob *blob, const char *what)
{
    struct rf_env *env = rf_host(L);
    uint8_t *bytes;
    size_t size;

    if (!rf_host_room(L, blob->size))
        too_large(L, blob->size, what);
    lua_rawgeti(L, LUA_REGISTRYINDEX, env->ref_content);
    if (!lua_istable(L, -1)) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_rawseti(L, LUA_REGISTRYINDEX, env->ref_content);
    }
    lua_pushlstring(L, (const char *)&blob->ref, sizeof blob->ref);
    lua_rawget(L, -2);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        bytes = lua_newuserdata(L, blob->size ? (size_t)blob->size : 1);
        size = rf_host_read(env, blob, 0, bytes, (size_t)blob->size);
        if (size != blob->size)
            rf_host_error(L, "%s: only %zu of %llu bytes could be read", what, size,
                          (unsigned long long)blob->size);
        lua_pushlstring(L, (const char *)&blob->ref, sizeof blob->ref);
        lua_pushvalue(L, -2);
        lua_rawset(L, -4);
    }
    bytes = lua_touserdata(L, -1);
    lua_pop(L, 2);
    return rf_bytes(bytes, (size_t)blob->size);
}

static struct rf_bytes whole_content(lua_State *L, const struct rf_lua_blob *blob, const char *what)
{
    const struct rf_env_item *item = rf_host(L)->item;

    if (!blob->needed && item->content)
        return rf_bytes(item->content, (size_t)item->size);
    return read_whole(L, blob, what);
}

struct rf_bytes rf_host_text(lua_State *L, int index, const char *what)
{
    struct rf_bytes text;

    if (lua_type(L, index) == LUA_TSTRING) {
        text.data = (const uint8_t *)lua_tolstring(L, index, &text.size);
        return text;
    }
    if (lua_type(L, index) == LUA_TUSERDATA)
        return whole_content(L, check_blob(L, index, what), what);
    rf_host_error(L, "%s: a string or a blob was expected, got %s", what,
                  lua_isnoneornil(L, index) ? "nil" : luaL_typename(L, index));
}

static int blob_content(lua_State *L)
{
    struct rf_lua_blob *blob = check_blob(L, 1, "blob:content");
    struct rf_bytes text;

    if (!rf_host_room(L, blob->size))
        too_large(L, blob->size, "blob:content");
    text = whole_content(L, blob, "blob:content");
    if (!rf_host_room(L, text.size))
        too_large(L, blob->size, "blob:content");
    lua_pushlstring(L, (const char *)text.data, text.size);
    return 1;
}

/* As string.sub: from 1, both ends included, negative ones count from the end. */
static int blob_sub(lua_State *L)
{
    struct rf_lua_blob *blob = check_blob(L, 1, "blob:sub");
    double size = (double)blob->size, from = luaL_checknumber(L, 2), to = luaL_optnumber(L, 3, -1);
    uint64_t offset;
    size_t count;
    uint8_t *bytes;

    if (from < 0)
        from = from < -size ? 1 : size + from + 1;
    else if (!(from >= 1))
        from = 1;
    if (to < 0)
        to = size + to + 1;
    else if (to > size)
        to = size;
    if (!(from <= to)) {
        lua_pushliteral(L, "");
        return 1;
    }
    offset = (uint64_t)floor(from) - 1;
    count = (size_t)((uint64_t)floor(to) - offset);
    if (!rf_host_room(L, 2 * (uint64_t)count))
        too_large(L, count, "blob:sub");
    if (!blob->needed && rf_host(L)->item->content) {
        lua_pushlstring(L, (const char *)rf_host(L)->item->content + offset, count);
        return 1;
    }
    bytes = lua_newuserdata(L, count);
    count = rf_host_read(rf_host(L), blob, offset, bytes, count);
    lua_pushlstring(L, (const char *)bytes, count);
    return 1;
}

static int blob_json(lua_State *L)
{
    rf_lua_json_push(L, whole_content(L, check_blob(L, 1, "blob:json"), "blob:json"), "blob:json");
    return 1;
}

static int blob_pick(lua_State *L)
{
    return rf_lua_json_pick(L, whole_content(L, check_blob(L, 1, "blob:pick"), "blob:pick"), 2,
                            "blob:pick");
}

/* ---- windows ---- */

struct rf_window *rf_host_push_window(lua_State *L, int index, const char *what)
{
    struct rf_window *w;
    struct rf_lua_blob *blob = NULL;
    struct rf_bytes whole = {0};
    const struct rf_env_item *item = rf_host(L)->item;

    if (lua_type(L, index) == LUA_TSTRING) {
        whole = rf_host_text(L, index, what);
    } else {
        if (lua_type(L, index) != LUA_TUSERDATA)
            rf_host_error(L, "%s: a string or a blob was expected, got %s", what,
                          lua_isnoneornil(L, index) ? "nil" : luaL_typename(L, index));
        blob = check_blob(L, index, what);
        if (!blob->needed && item->content)
            whole = rf_bytes(item->content, (size_t)item->size);
    }
    w = lua_newuserdata(L, sizeof *w);
    *w = (struct rf_window){.tag = RF_TAG_WINDOW, .blob = blob, .whole = whole,
                            .size = blob ? blob->size : whole.size, .in_memory = whole.data ||
                            !blob || blob->size == 0};
    lua_createtable(L, 2, 0);
    lua_pushvalue(L, index);
    lua_rawseti(L, -2, 1);
    lua_setfenv(L, -2);
    return w;
}

/* Make the window's memory hold capacity bytes, keeping what it holds. */
static void grow_window(lua_State *L, int index, struct rf_window *w, size_t capacity,
                        const char *what)
{
    uint8_t *grown;

    if (!rf_host_room(L, capacity))
        rf_host_error(L, "%s: at byte %llu: a line or record is longer than the Lua heap of %zu MB "
                         "can hold, which the mapper's limits.memory_mb sets",
                      what, (unsigned long long)w->at, rf_host(L)->used_max >> 20);
    lua_getfenv(L, index);
    grown = lua_newuserdata(L, capacity);
    if (w->held)
        memcpy(grown, w->bytes, w->held);
    lua_rawseti(L, -2, 2);
    lua_pop(L, 1);
    w->bytes = grown;
    w->capacity = capacity;
}

struct rf_bytes rf_host_window(lua_State *L, int window_index, uint64_t offset, size_t want,
                               const char *what)
{
    struct rf_window *w = lua_touserdata(L, window_index);
    struct rf_env *env = rf_host(L);
    size_t drop, got, capacity;

    if (w->blob && (!env->mapping || w->blob->call != env->call))
        rf_host_error(L, "%s: this iterator was of another call", what);
    if (offset >= w->size)
        return rf_bytes("", 0);
    if (w->in_memory)
        return rf_bytes(w->whole.data + offset, (size_t)(w->size - offset));
    if (want > w->size - offset)
        want = (size_t)(w->size - offset);
    if (offset >= w->at && offset - w->at < w->held && w->held - (size_t)(offset - w->at) >= want)
        return rf_bytes(w->bytes + (offset - w->at), w->held - (size_t)(offset - w->at));
    if (offset < w->at || offset - w->at >= w->held) {
        w->held = 0;
    } else {
        drop = (size_t)(offset - w->at);
        memmove(w->bytes, w->bytes + drop, w->held - drop);
        w->held -= drop;
    }
    w->at = offset;
    capacity = w->capacity ? w->capacity : w->size < RF_WINDOW ? (size_t)w->size : RF_WINDOW;
    while (capacity < want)
        capacity *= 2;
    if (capacity != w->capacity)
        grow_window(L, window_index, w, capacity, what);
    got = rf_host_read(env, w->blob, w->at + w->held, w->bytes + w->held, w->capacity - w->held);
    w->held += got;
    if (w->held < want)
        rf_host_error(L, "%s: the content ended early, at byte %llu of %llu", what,
                      (unsigned long long)(w->at + w->held), (unsigned long long)w->size);
    return rf_bytes(w->bytes, w->held);
}

/* Upvalues: window, offset of the next line. Answers the line without its end, and its offset. */
static int lines_step(lua_State *L)
{
    uint64_t offset = (uint64_t)lua_tonumber(L, lua_upvalueindex(2));
    const struct rf_window *w;
    struct rf_bytes bytes;
    const uint8_t *end;
    size_t want = 1, size;

    lua_settop(L, 0);
    lua_pushvalue(L, lua_upvalueindex(1));
    w = lua_touserdata(L, 1);
    if (offset >= w->size)
        return 0;
    for (;;) {
        bytes = rf_host_window(L, 1, offset, want, "lines");
        if (bytes.size == 0)
            return 0;
        end = memchr(bytes.data, '\n', bytes.size);
        if (end || offset + bytes.size == w->size)
            break;
        want = bytes.size * 2;
    }
    size = end ? (size_t)(end - bytes.data) : bytes.size;
    lua_pushnumber(L, (lua_Number)(offset + size + (end ? 1 : 0)));
    lua_replace(L, lua_upvalueindex(2));
    if (size > 0 && bytes.data[size - 1] == '\r')
        size--;
    if (size > RF_WINDOW && !rf_host_room(L, size))
        too_large(L, size, "lines: a line of");
    lua_pushlstring(L, (const char *)bytes.data, size);
    lua_pushnumber(L, (lua_Number)offset);
    return 2;
}

int rf_lua_lines(lua_State *L)
{
    rf_host_push_window(L, 1, "lines");
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, lines_step, 2);
    return 1;
}

/* ---- other blobs ---- */

/* blob:need(ref): the blob of that name. When the store does not have it the call ends, and the
 * item is mapped again once it is there. */
static int blob_need(lua_State *L)
{
    struct rf_env *env = rf_host(L);
    struct rf_blobref ref;
    struct rf_error err = {0};
    size_t size;
    const char *text;
    uint64_t found = 0;
    bool present;

    check_blob(L, 1, "blob:need");
    text = luaL_checklstring(L, 2, &size);
    if (rf_blobref_parse(&ref, text, size, &err) != RF_OK)
        rf_host_error(L, "blob:need: %s", err.message);
    if (!env->item->need)
        rf_host_error(L, "blob:need: no store can be asked here");
    if (env->needs == NEEDS_MAX)
        rf_host_limit(L, RF_ENV_LIMIT, "blob:need was called more than %d times", NEEDS_MAX);
    env->needs++;
    present = env->item->need(env->item->user, &ref, &found) == RF_OK;
    env->output->size = env->committed;
    rf_need_put(env->output, &ref, present);
    rf_need_put(&env->need_records, &ref, present);
    if (env->output->failed || env->output->size > env->output_max)
        rf_host_limit(L, RF_ENV_LIMIT, "output is larger than limits.output_mb = %u",
                      env->decl->limits.output_mb);
    env->committed = env->output->size;
    if (!present)
        rf_host_limit(L, RF_ENV_MISSING, "blob %.*s is needed and not there", (int)size, text);
    push_blob(L, &ref, found, true);
    return 1;
}

/* ---- fields ---- */

enum field { F_SIZE, F_MEDIA, F_REF, F_NAME, F_TIMESTAMP, F_SEQ, F_MTIME, F_CONTENT_REF, F_KIND,
             F_COUNT };

static const char *const field_names[F_COUNT] = {
    "size", "media", "ref", "name", "timestamp", "seq", "mtime", "content_ref", "kind",
};

static void push_ref(lua_State *L, const struct rf_blobref *ref)
{
    char text[RF_BLOBREF_SIZE];

    rf_blobref_format(ref, text);
    lua_pushlstring(L, text, RF_BLOBREF_SIZE - 1);
}

static void push_time(lua_State *L, int64_t us)
{
    if (us == INT64_MIN)
        lua_pushnil(L);
    else
        rf_lua_time_push(L, us, RF_OFFSET_UNKNOWN);
}

/* What a part answers must follow from its bytes and media type alone: it is mapped once for all
 * its parents. */
static void push_field(lua_State *L, const struct rf_lua_blob *blob, enum field field)
{
    static const char *const kinds[] = {"blob", "file", "part"};
    struct rf_env *env = rf_host(L);
    const struct rf_env_item *item = env->item;
    bool part = blob->needed || item->kind == RF_ITEM_PART;

    lua_pushnil(L);
    switch (field) {
    case F_SIZE:
        lua_pushnumber(L, (lua_Number)blob->size);
        return;
    case F_REF:
        push_ref(L, &blob->ref);
        return;
    case F_MEDIA:
        if (!blob->needed)
            lua_pushstring(L, rf_host_media(env));
        return;
    case F_KIND:
        lua_pushstring(L, blob->needed ? "blob" : kinds[item->kind <= 2 ? item->kind : 0]);
        return;
    case F_NAME:
        if (!part && item->name)
            lua_pushstring(L, item->name);
        return;
    case F_SEQ:
        if (!part && item->seq)
            rf_host_push_int(L, (int64_t)item->seq);
        return;
    case F_TIMESTAMP:
        if (!part)
            push_time(L, item->timestamp_us);
        return;
    case F_MTIME:
        if (!part)
            push_time(L, item->mtime_us);
        return;
    default:
        if (!part && item->content_ref.algo)
            push_ref(L, &item->content_ref);
    }
}

/* Upvalue 1: methods and field numbers by name. */
static int blob_index(lua_State *L)
{
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    if (lua_type(L, -1) == LUA_TNUMBER) {
        push_field(L, check_blob(L, 1, "blob"), (enum field)lua_tointeger(L, -1));
        return 1;
    }
    if (lua_isnil(L, -1)) {
        rf_host_push_text(L, 2);
        rf_host_error(L, "a blob has no field or method '%.60s'", lua_tostring(L, -1));
    }
    return 1;
}

static int blob_newindex(lua_State *L)
{
    return rf_host_error(L, "a blob's fields cannot be set");
}

static int blob_tostring(lua_State *L)
{
    const struct rf_lua_blob *blob = rf_host_to(L, 1, RF_TAG_BLOB);

    if (blob)
        push_ref(L, &blob->ref);
    else
        lua_pushliteral(L, "blob");
    return 1;
}

static int blob_length(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)check_blob(L, 1, "#blob")->size);
    return 1;
}

void rf_lua_open_blob(lua_State *L)
{
    static const struct rf_host_function methods[] = {
        {"content", blob_content}, {"sub", blob_sub},   {"lines", rf_lua_lines},
        {"json", blob_json},       {"pick", blob_pick}, {"need", blob_need},
    };

    lua_createtable(L, 0, 5);
    lua_newtable(L);
    rf_host_register(L, methods, sizeof methods / sizeof methods[0]);
    for (int i = 0; i < F_COUNT; i++) {
        lua_pushinteger(L, i);
        lua_setfield(L, -2, field_names[i]);
    }
    lua_pushcclosure(L, blob_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, blob_newindex);
    lua_setfield(L, -2, "__newindex");
    lua_pushcfunction(L, blob_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pushcfunction(L, blob_length);
    lua_setfield(L, -2, "__len");
    lua_pushliteral(L, "blob");
    lua_setfield(L, -2, "__metatable");
    rf_host(L)->ref_blob = luaL_ref(L, LUA_REGISTRYINDEX);
}
