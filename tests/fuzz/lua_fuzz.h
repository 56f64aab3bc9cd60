/*
 * lua_fuzz.h - one mapper, kept open, fed with bytes: from memory, or by reads of a few bytes
 *
 * A script says what it thinks of its bytes by emitting rows of one text column; what went wrong
 * inside it ends the program.
 */
#ifndef RF_TESTS_LUA_FUZZ_H
#define RF_TESTS_LUA_FUZZ_H

#include "core/row.h"
#include "mappers/lua_env.h"

#include <stdio.h>
#include <stdlib.h>

/* The collector's pointers carry tags, so what a Lua state holds looks lost while it is open. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return 1;
}

struct lua_fuzz {
    struct rf_arena arena;
    struct rf_decl *decl;
    struct rf_env *env;
    struct rf_buf output;
    struct rf_bytes content;
};

static void lua_fuzz_oom(void *user, size_t bytes)
{
    (void)user;
    fprintf(stderr, "out of memory at %zu bytes\n", bytes);
    abort();
}

static enum rf_status lua_fuzz_module(void *user, const char *name, struct rf_bytes *text)
{
    (void)user;
    (void)name;
    (void)text;
    return RF_NOT_FOUND;
}

static enum rf_status lua_fuzz_read(void *user, uint64_t offset, void *out, size_t size,
                                    size_t *got)
{
    const struct lua_fuzz *fuzz = user;

    *got = size < 7 ? size : 7;
    if (*got > fuzz->content.size - offset)
        *got = fuzz->content.size - (size_t)offset;
    memcpy(out, fuzz->content.data + offset, *got);
    return RF_OK;
}

static void lua_fuzz_open(struct lua_fuzz *fuzz, const char *script)
{
    struct rf_env_options options = {.out_of_memory = lua_fuzz_oom, .module = lua_fuzz_module};
    struct rf_env *first;
    struct rf_error err = {0};
    struct rf_buf json;

    rf_arena_init(&fuzz->arena, 1 << 20);
    rf_buf_init(&fuzz->output, 64 << 20);
    rf_buf_init(&json, 1 << 20);
    if (rf_env_open(&first, "fuzz.lua", rf_bytes_text(script), NULL, &options, &err) != RF_OK ||
        rf_env_declare(first, &json, &err) != RF_OK ||
        rf_decl_parse(&fuzz->decl, &fuzz->arena, rf_buf_bytes(&json), &err) != RF_OK) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    rf_env_close(first);
    rf_buf_release(&json);
    if (rf_env_open(&fuzz->env, "fuzz.lua", rf_bytes_text(script), fuzz->decl, &options, &err) !=
        RF_OK)
        abort();
}

static void lua_fuzz_close(struct lua_fuzz *fuzz)
{
    rf_env_close(fuzz->env);
    rf_arena_release(&fuzz->arena);
    rf_buf_release(&fuzz->output);
}

/* Map bytes; the script must not fail, and its output must be readable. */
static struct rf_bytes lua_fuzz_map(struct lua_fuzz *fuzz, struct rf_bytes bytes, bool windowed)
{
    struct rf_env_item item = {.media = "application/octet-stream", .mtime_us = INT64_MIN,
                               .timestamp_us = INT64_MIN, .size = bytes.size,
                               .read = lua_fuzz_read, .user = fuzz};
    struct rf_output_reader reader;
    struct rf_record record;
    struct rf_error err = {0};
    const char *message, *traceback;
    enum rf_status status;

    fuzz->content = bytes;
    item.ref.algo = RF_ALGO_SHA256;
    item.content = windowed ? NULL : bytes.data ? bytes.data : (const uint8_t *)"";
    if (rf_env_map(fuzz->env, &item, &fuzz->output, NULL, &message, &traceback) != RF_ENV_ROWS) {
        fprintf(stderr, "%s\n%s", message, traceback);
        abort();
    }
    rf_output_init(&reader, rf_buf_bytes(&fuzz->output), fuzz->decl, bytes.size);
    while ((status = rf_output_next(&reader, &record, &err)) == RF_OK)
        ;
    if (status != RF_END) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    rf_output_release(&reader);
    return rf_buf_bytes(&fuzz->output);
}

#endif
