/*
 * lua_env.h - one mapper in one Lua state: what scripts see
 *
 * Used only inside a jailed worker. A state belongs to one mapper version; its environment is a
 * white list; the only protected call of the program is in lua_env.c, and code between it and Lua
 * owns nothing outside the call's output buffer or the Lua state. A script's failure concerns one
 * item.
 */
#ifndef RF_MAPPERS_LUA_ENV_H
#define RF_MAPPERS_LUA_ENV_H

#include "core/blobref.h"
#include "core/buf.h"
#include "core/decl.h"

struct rf_env;

struct rf_env_options {
    bool jit_off;
    /* The allocator passed memory_mb: called with the bytes in use; must not return (writes the
     * reason to the slot and exits the process; returning NULL crashes this LuaJIT under JIT). */
    void (*out_of_memory)(void *user, size_t bytes);
    /* The text of a required module ("name" as given to require), lent for the call; RF_NOT_FOUND.
     * Only while the mapper is being loaded. */
    enum rf_status (*module)(void *user, const char *name, struct rf_bytes *text);
    void *user;
};

/*
 * A state with this mapper's chunk run in it. file names it in messages ("countries.lua"). decl is
 * NULL the first time: only rf_env_declare may be called then; with decl, rf_env_map may.
 * RF_INVALID: err is the script's error with file:line.
 */
RF_MUST_USE enum rf_status rf_env_open(struct rf_env **out, const char *file, struct rf_bytes text,
                                       const struct rf_decl *decl,
                                       const struct rf_env_options *options, struct rf_error *err);
void rf_env_close(struct rf_env *env);

/* The declaration as JSON (form: core/decl.h), from the table the chunk returned. */
RF_MUST_USE enum rf_status rf_env_declare(struct rf_env *env, struct rf_buf *json,
                                          struct rf_error *err);

/* The declared tests as JSON: [{"name","blob" (text) or "file","media","filename",
 * "rows":{"t":[{}]},"golden","parts":N,"error"}], each member only when it was given. */
RF_MUST_USE enum rf_status rf_env_tests(struct rf_env *env, struct rf_buf *json,
                                        struct rf_error *err);

/* What a script may ask about its item; filled by the worker. */
struct rf_env_item {
    unsigned kind;          /* enum rf_item_kind of pool.h */
    struct rf_blobref ref, content_ref; /* content_ref.algo 0: not known */
    const char *media;      /* NULL: find it by content, then by name */
    const char *name;       /* or NULL */
    int64_t mtime_us, timestamp_us; /* INT64_MIN: none */
    uint64_t seq;           /* 0: none (a part) */
    uint64_t size;
    const uint8_t *content; /* whole, or NULL: use read */
    /* RF_OK or the end of the process: the worker waits for the supervisor in it. */
    enum rf_status (*read)(void *user, uint64_t offset, void *out, size_t size, size_t *got);
    /* blob:need(ref): RF_OK and its size, or RF_NOT_FOUND; then its bytes. */
    enum rf_status (*need)(void *user, const struct rf_blobref *ref, uint64_t *size);
    enum rf_status (*need_read)(void *user, const struct rf_blobref *ref, uint64_t offset,
                                void *out, size_t size, size_t *got);
    void *user;
};

enum rf_env_outcome {
    RF_ENV_ROWS,    /* mapped; output holds records (core/row.h) */
    RF_ENV_NONE,    /* not wanted by `on` or `match` */
    RF_ENV_FAILED,  /* message, traceback */
    RF_ENV_LIMIT,   /* rows, parts or output passed its limit: message */
    RF_ENV_MISSING  /* a needed blob is not there: output holds the N records seen so far */
};

/*
 * Map one item. output is cleared first; its maximum is decl->limits.output_mb. trace, when not
 * NULL, gets a line per emit and helper call for `mapper run --trace`. message and traceback are
 * the env's until the next call.
 */
enum rf_env_outcome rf_env_map(struct rf_env *env, const struct rf_env_item *item,
                               struct rf_buf *output, struct rf_buf *trace, const char **message,
                               const char **traceback);

#endif
