/*
 * lua_host.h - what the files behind lua_env.h share
 *
 * Private to mappers/lua_*.c. Helpers are C functions called by LuaJIT: they may raise (lua_error
 * jumps over them), so they own nothing but what lies in the Lua state, in env->scratch or in the
 * output buffer. Bytes appended to the output count only once they are committed, so a call that
 * raises half way leaves no half record.
 */
#ifndef RF_MAPPERS_LUA_HOST_H
#define RF_MAPPERS_LUA_HOST_H

#include "core/arena.h"
#include "core/row.h"
#include "mappers/lua_env.h"

#include <lauxlib.h>
#include <lua.h>

#define RF_LUA_TCDATA 10 /* lua_type of a 64-bit integer beyond 2^53; lua.h does not name it */
#define RF_LUA_EXACT 9007199254740992.0 /* 2^53: integers up to here are exact as numbers */
#define RF_MESSAGE_SIZE 1025
#define RF_TRACEBACK_SIZE 4096
#define RF_WINDOW ((size_t)256 * 1024) /* bytes read at once of content that is not in memory */

/* A blob, time, buffer or room made by us; the only full userdata a script can ever hold. */
enum rf_tag { RF_TAG_BLOB = 0x52460001, RF_TAG_TIME, RF_TAG_WINDOW, RF_TAG_ROOM };

struct rf_lua_time {
    uint32_t tag;
    int16_t offset; /* minutes, or RF_OFFSET_UNKNOWN */
    int64_t us;
};

/* The item's blob, or one that blob:need answered. Valid during one call. */
struct rf_lua_blob {
    uint32_t tag;
    bool needed; /* read through need_read */
    uint64_t call;
    uint64_t size;
    struct rf_blobref ref;
};

struct rf_pattern {
    const char *text;
    bool is_name; /* of a file's name; else of a media type */
};

struct rf_env {
    lua_State *L;
    struct rf_env_options options;
    const struct rf_decl *decl; /* NULL while declaring */
    char file[128];

    size_t used, used_max; /* bytes of the Lua heap */
    size_t band_low, band_high; /* between them the collector's settings stay */

    bool loading; /* require works, globals may be written */
    bool mapping; /* the item is there */
    uint64_t call; /* number of the present call, so that a blob kept from another is noticed */
    const struct rf_env_item *item;
    const char *media; /* of the item, once found */
    struct rf_buf *output, *trace;
    size_t committed; /* bytes of output that count */
    size_t output_max;
    uint32_t rows, parts, needs;
    bool replaced; /* unicode.decode put U+FFFD into a text of this call */

    bool stuck; /* a limit was passed or a blob is missing: no pcall hides that */
    enum rf_env_outcome stuck_outcome;
    char message[RF_MESSAGE_SIZE];
    char traceback[RF_TRACEBACK_SIZE];

    struct rf_buf scratch; /* text a helper is making; never held across a call into Lua */
    struct rf_buf encoded; /* the text of json.encode */
    struct rf_buf need_records; /* the call's N records, for when one is missing */
    struct rf_arena arena; /* what lives as long as the env */
    struct rf_pattern *patterns;
    size_t pattern_count;

    int ref_mapper, ref_map, ref_match, ref_emit, ref_environment, ref_modules; /* registry */
    int ref_handler, ref_map_call;
    int ref_int64, ref_istype, ref_uint64, ref_format;
    int ref_array, ref_blob, ref_time; /* metatables */
    int ref_next, ref_content;
    size_t next_at;
};

/* The env of a state; its coroutines too. */
struct rf_env *rf_host(lua_State *L);

/* A limit was passed: notes it so that it sticks, then raises. */
int rf_host_limit(lua_State *L, enum rf_env_outcome outcome, const char *format, ...)
    RF_PRINTF(3, 4) __attribute__((noreturn));

/* Raise an error of the script's: "<file:line>: <words>". */
int rf_host_error(lua_State *L, const char *format, ...) RF_PRINTF(2, 3) __attribute__((noreturn));

/* Collect garbage when size more bytes would come near the heap's limit. False: even then there is
 * no room for them. */
bool rf_host_room(lua_State *L, uint64_t size);

/* Scratch, emptied. rf_host_push_scratch makes its content a Lua string, raising when it failed. */
struct rf_buf *rf_host_scratch(lua_State *L);
void rf_host_push_scratch(lua_State *L);

/* Register functions into the table on top of the stack. */
struct rf_host_function {
    const char *name;
    lua_CFunction call;
};
void rf_host_register(lua_State *L, const struct rf_host_function *functions, size_t count);

/* Replace the table on top by a value that is indexed as it is and cannot be changed; what: its
 * name. */
void rf_host_freeze(lua_State *L, const char *what);

/* ---- values (lua_base.c) ---- */

/* Numbers up to 2^53, else a 64-bit integer of LuaJIT's (cdata), which compares and calculates. */
void rf_host_push_int(lua_State *L, int64_t value);
/* A cdata integer that fits 64 signed bits. */
bool rf_host_to_int64(lua_State *L, int index, int64_t *out);
static inline void rf_host_push_null(lua_State *L)
{
    lua_pushlightuserdata(L, NULL);
}
static inline bool rf_host_is_null(lua_State *L, int index)
{
    return lua_type(L, index) == LUA_TLIGHTUSERDATA;
}
/* The text that tostring answers, pushed. */
void rf_host_push_text(lua_State *L, int index);
/* A value of ours with this tag, or NULL. */
void *rf_host_to(lua_State *L, int index, enum rf_tag tag);
/* Whether the table at index carries the metatable of refuge.array. */
bool rf_host_is_array(lua_State *L, int index);

/* ---- the item (lua_blob.c) ---- */

void rf_host_push_blob(lua_State *L);
/* All of the blob's or string's bytes at index, lent until the call ends; raises when they do not
 * fit. what: the function's name for messages. */
struct rf_bytes rf_host_text(lua_State *L, int index, const char *what);
/* Read some of a blob; raises never, waits for the supervisor. Answers the bytes got. */
size_t rf_host_read(struct rf_env *env, const struct rf_lua_blob *blob, uint64_t offset, void *out,
                    size_t size);
const char *rf_host_media(struct rf_env *env);

/* A run through a blob or string in windows: what iterators over large content stand on. Lives in a
 * userdata; bytes are lent until the next call. */
struct rf_window {
    uint32_t tag;
    struct rf_lua_blob *blob; /* NULL: a string */
    struct rf_bytes whole;    /* content that is in memory */
    bool in_memory;           /* whole is all of it; else it is read through blob */
    uint64_t size;            /* of all */
    uint64_t at;              /* offset of the window's first byte */
    size_t held;              /* bytes in the window */
    size_t capacity;
    uint8_t *bytes;           /* of a userdata kept in this one's environment table */
};

/* Push a window over the blob or string at index (whose value must stay reachable: it is kept). */
struct rf_window *rf_host_push_window(lua_State *L, int index, const char *what);
/* The bytes from offset on: at least want of them unless the content ends before; window_index is
 * the window's place on the stack. Raises when want passes what the heap can hold. */
struct rf_bytes rf_host_window(lua_State *L, int window_index, uint64_t offset, size_t want,
                               const char *what);

/* ---- rooms of the refuge table: each pushes its table ---- */

void rf_lua_open_base(lua_State *L);    /* pairs, next, tostring ... into the table on top */
void rf_lua_open_blob(lua_State *L);    /* metatable only */
void rf_lua_open_emit(lua_State *L);    /* the emit object for env->decl */
void rf_lua_open_json(lua_State *L);
void rf_lua_open_text(lua_State *L);
void rf_lua_open_time(lua_State *L);
void rf_lua_open_uri(lua_State *L);
void rf_lua_open_hash(lua_State *L);
void rf_lua_open_unicode(lua_State *L);
void rf_lua_open_csv(lua_State *L);

/* ---- across helpers ---- */

/* Append the value at index as JSON. Raises on functions, threads, mixed or deep tables. for_row:
 * NULs are dropped, NaN and infinities become null, and cuts (bits of 1 << enum rf_cut) say so;
 * else those raise or stay. */
void rf_lua_json_put(lua_State *L, int index, struct rf_buf *buf, bool for_row, unsigned *cuts);
/* Push the decoded value of text; pushes nothing and raises on bad JSON. */
void rf_lua_json_push(lua_State *L, struct rf_bytes text, const char *what);
/* blob:pick and refuge.json.pick: paths are the arguments from first on; pushes one value each. */
int rf_lua_json_pick(lua_State *L, struct rf_bytes text, int first, const char *what);

/* The function text.lines: an iterator over the lines of a string or blob and their offsets. */
int rf_lua_lines(lua_State *L);

/* Append text in Windows-1252 (the WHATWG index) as UTF-8. */
void rf_unicode_put_1252(struct rf_buf *buf, struct rf_bytes text);

void rf_lua_time_push(lua_State *L, int64_t us, int16_t offset);
/* ISO 8601 or RFC 3339 with a date and, maybe, a time. False: no such text. */
bool rf_lua_time_read(struct rf_bytes text, int64_t *us, int16_t *offset);
/* Its ISO 8601 text; out holds 48 bytes. Answers its size. */
size_t rf_lua_time_text(const struct rf_lua_time *time, char *out);

#endif
