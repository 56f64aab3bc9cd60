/* bare_mapper.c - the floor of mapping: a mapper's Lua called in a loop of this process */
#include "bench/bare_mapper.h"

#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"
#include "mappers/lua_env.h"
#include "mappers/pool.h"

const char *bare_mapper_path(const char *name)
{
    static char paths[2][1024];
    static unsigned next;
    char *path = paths[next++ % 2];

    snprintf(path, sizeof paths[0], "%s/bench/mappers/%s", RF_SOURCE_DIR, name);
    return path;
}

const char *bare_mapper_program(void)
{
    const char *program = getenv("REFUGE_MAPPER");

    return program ? program : RF_BINARY_DIR "/bin/refuge-mapper";
}

static void out_of_memory(void *user, size_t bytes)
{
    bench_die("the mapper '%s' passed its memory limit with %zu bytes", (const char *)user, bytes);
}

static enum rf_status no_module(void *user, const char *name, struct rf_bytes *text)
{
    (void)user, (void)name, (void)text;
    return RF_NOT_FOUND;
}

static void read_text(const char *path, struct rf_buf *text)
{
    FILE *file = fopen(path, "re");
    char piece[4096];
    size_t got;

    while (file && (got = fread(piece, 1, sizeof piece, file)) > 0)
        rf_buf_put(text, piece, got);
    if (!file || fclose(file) != 0 || text->failed)
        bench_die("cannot read '%s'", path);
}

void bare_mapper_open(struct bare_mapper *mapper, const char *name)
{
    struct rf_env_options options = {.out_of_memory = out_of_memory, .module = no_module,
                                     .user = (void *)(uintptr_t)name};
    struct rf_error err = {0};
    struct rf_buf text, json;
    struct rf_env *env;

    rf_arena_init(&mapper->arena, 1 << 20);
    rf_buf_init(&text, 1 << 20);
    rf_buf_init(&json, 1 << 20);
    read_text(bare_mapper_path(name), &text);
    bench_must(rf_env_open(&env, name, rf_buf_bytes(&text), NULL, &options, &err), &err, name);
    bench_must(rf_env_declare(env, &json, &err), &err, name);
    rf_env_close(env);
    bench_must(rf_decl_parse(&mapper->decl, &mapper->arena, rf_buf_bytes(&json), &err), &err, name);
    bench_must(rf_env_open(&mapper->env, name, rf_buf_bytes(&text), mapper->decl, &options, &err),
               &err, name);
    rf_buf_init(&mapper->output, (size_t)mapper->decl->limits.output_mb << 20);
    rf_buf_release(&text);
    rf_buf_release(&json);
}

void bare_mapper_close(struct bare_mapper *mapper)
{
    rf_env_close(mapper->env);
    rf_buf_release(&mapper->output);
    rf_arena_release(&mapper->arena);
}

struct rf_bytes bare_mapper_map(struct bare_mapper *mapper, const struct rf_blobref *ref,
                                struct rf_bytes content, uint64_t seq)
{
    const struct rf_env_item item = {.kind = RF_ITEM_BLOB, .ref = *ref, .seq = seq,
                                     .mtime_us = INT64_MIN, .timestamp_us = 1700000000000000,
                                     .size = content.size, .content = content.data};
    const char *message = NULL, *traceback = NULL;

    if (rf_env_map(mapper->env, &item, &mapper->output, NULL, &message, &traceback) != RF_ENV_ROWS)
        bench_die("a note was not mapped: %s", message ? message : "no rows");
    return rf_buf_bytes(&mapper->output);
}
