/*
 * lua_harness.h - a mapper's text and a blob in, words for its output out
 *
 * For tests of what scripts see, without processes or jail. The output is read by core/row.h's
 * reader, which shares nothing with what wrote it, and written as one line per record.
 */
#ifndef RF_TESTS_LUA_HARNESS_H
#define RF_TESTS_LUA_HARNESS_H

#include "core/row.h"
#include "mappers/lua_env.h"
#include "mappers/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct harness {
    struct rf_arena arena;
    struct rf_decl *decl;
    struct rf_env *env;
    struct rf_buf output, dump, trace;
    struct rf_env_item item;
    struct rf_error err;
    enum rf_env_outcome outcome;
    const char *message, *traceback;
    bool windowed;        /* content only through read */
    struct rf_bytes content;
    size_t reads;
    size_t oom_bytes;
    jmp_buf oom;
};

static const char harness_module[] = "return { twice = function(x) return x * 2 end }";

static enum rf_status harness_find(void *user, const char *name, struct rf_bytes *text)
{
    (void)user;
    if (strcmp(name, "util") == 0)
        *text = rf_bytes_text(harness_module);
    else if (strcmp(name, "a") == 0)
        *text = rf_bytes_text("return require 'b'");
    else if (strcmp(name, "b") == 0)
        *text = rf_bytes_text("return require 'a'");
    else
        return RF_NOT_FOUND;
    return RF_OK;
}

static enum rf_status harness_read(void *user, uint64_t offset, void *out, size_t size, size_t *got)
{
    struct harness *h = user;

    if (size > 70000)
        size = 70000; /* less than was asked for, as a supervisor may answer */
    if (offset >= h->content.size)
        size = 0;
    else if (size > h->content.size - offset)
        size = h->content.size - (size_t)offset;
    memcpy(out, h->content.data + offset, size);
    *got = size;
    h->reads++;
    return RF_OK;
}

static void harness_oom(void *user, size_t bytes)
{
    (void)user;
    fprintf(stderr, "out of memory at %zu bytes\n", bytes);
    _Exit(42); /* what the worker does */
}

static void harness_init(struct harness *h)
{
    memset(h, 0, sizeof *h);
    rf_arena_init(&h->arena, 1 << 20);
    rf_buf_init(&h->output, 64 << 20);
    rf_buf_init(&h->dump, 64 << 20);
    rf_buf_init(&h->trace, 1 << 20);
    rf_blobref_of(&h->item.ref, rf_bytes_text("item"));
    h->item.mtime_us = h->item.timestamp_us = INT64_MIN;
}

static void harness_close(struct harness *h)
{
    rf_env_close(h->env);
    h->env = NULL;
    rf_arena_clear(&h->arena);
}

static void harness_release(struct harness *h)
{
    harness_close(h);
    rf_arena_release(&h->arena);
    rf_buf_release(&h->output);
    rf_buf_release(&h->dump);
    rf_buf_release(&h->trace);
}

/* Load a mapper; false: h->err says why. */
static bool harness_open(struct harness *h, const char *text, bool jit_off)
{
    struct rf_env_options options = {.jit_off = jit_off, .out_of_memory = harness_oom,
                                     .module = harness_find, .user = h};
    struct rf_env *first;
    struct rf_buf json;
    bool ok;

    harness_close(h);
    rf_error_clear(&h->err);
    if (rf_env_open(&first, "test.lua", rf_bytes_text(text), NULL, &options, &h->err) != RF_OK)
        return false;
    rf_buf_init(&json, 1 << 20);
    ok = rf_env_declare(first, &json, &h->err) == RF_OK &&
         rf_decl_parse(&h->decl, &h->arena, rf_buf_bytes(&json), &h->err) == RF_OK;
    rf_buf_release(&json);
    rf_env_close(first);
    return ok && rf_env_open(&h->env, "test.lua", rf_bytes_text(text), h->decl, &options,
                             &h->err) == RF_OK;
}

static void harness_put_value(struct harness *h, const struct rf_value *v)
{
    char text[RF_BLOBREF_SIZE], when[RF_TIME_TEXT_SIZE];

    switch (v->type) {
    case RF_TYPE_INT:
        rf_buf_printf(&h->dump, "%lld", (long long)v->integer);
        return;
    case RF_TYPE_FLOAT:
        rf_buf_printf(&h->dump, "%.17g", v->real);
        return;
    case RF_TYPE_BOOL:
        rf_buf_put_text(&h->dump, v->boolean ? "true" : "false");
        return;
    case RF_TYPE_TEXT:
        rf_buf_put_text(&h->dump, "\"");
        rf_buf_put(&h->dump, v->text.data, v->text.size);
        rf_buf_put_text(&h->dump, "\"");
        return;
    case RF_TYPE_JSON:
        rf_buf_put(&h->dump, v->text.data, v->text.size);
        return;
    case RF_TYPE_TIME:
        rf_time_format(v->integer, when);
        rf_buf_put_text(&h->dump, when);
        if (v->offset_minutes != RF_OFFSET_UNKNOWN)
            rf_buf_printf(&h->dump, "%+d", v->offset_minutes);
        return;
    case RF_TYPE_BLOBREF:
        rf_blobref_format(&v->ref, text);
        rf_buf_put_text(&h->dump, text);
        return;
    default:
        rf_buf_put_text(&h->dump, "null");
    }
}

static void harness_put_record(struct harness *h, const struct rf_record *r)
{
    static const char *const cuts[] = {"", "utf8", "nul", "long", "year", "float"};

    switch (r->kind) {
    case RF_RECORD_ROW:
        rf_buf_printf(&h->dump, "%s", h->decl->tables[r->table].name);
        for (size_t i = 0; i < r->column_count; i++) {
            rf_buf_put_text(&h->dump, i ? "|" : ":");
            harness_put_value(h, &r->values[i]);
        }
        break;
    case RF_RECORD_PART:
        if (r->inlined)
            rf_buf_printf(&h->dump, "part:%.*s", (int)r->bytes.size, (const char *)r->bytes.data);
        else
            rf_buf_printf(&h->dump, "part:%llu+%llu", (unsigned long long)r->offset,
                          (unsigned long long)r->size);
        rf_buf_printf(&h->dump, "|%.*s|%.*s", (int)r->media.size, (const char *)r->media.data,
                      r->name.data ? (int)r->name.size : 1,
                      r->name.data ? (const char *)r->name.data : "-");
        break;
    case RF_RECORD_NEED:
        rf_buf_printf(&h->dump, "need:%s", r->present ? "there" : "missing");
        break;
    case RF_RECORD_CUT:
        rf_buf_printf(&h->dump, "cut:%u.%u.%u %s", r->table, r->column, r->row, cuts[r->cut]);
        break;
    }
    rf_buf_put_text(&h->dump, "\n");
}

/* Map bytes; the dump is the answer: a line per record, or "failed: ...", "limit: ...". */
static const char *harness_map_bytes(struct harness *h, struct rf_bytes blob, struct rf_buf *trace)
{
    static const char *const names[] = {"rows", "none", "failed", "limit", "missing"};
    struct rf_output_reader reader;
    struct rf_record record;
    enum rf_status status;

    h->content = blob;
    h->item.size = blob.size;
    h->item.content = h->windowed ? NULL : blob.size ? blob.data : (const uint8_t *)"";
    h->item.read = harness_read;
    h->item.user = h;
    rf_buf_clear(&h->dump);
    h->outcome = rf_env_map(h->env, &h->item, &h->output, trace, &h->message, &h->traceback);
    if (h->outcome == RF_ENV_ROWS || h->outcome == RF_ENV_MISSING) {
        rf_output_init(&reader, rf_buf_bytes(&h->output), h->decl, blob.size);
        while ((status = rf_output_next(&reader, &record, &h->err)) == RF_OK)
            harness_put_record(h, &record);
        if (status != RF_END)
            fail_msg("output refused: %s", h->err.message);
        rf_output_release(&reader);
    } else {
        rf_buf_printf(&h->dump, "%s: %s", names[h->outcome], h->message);
    }
    return rf_buf_text(&h->dump);
}

static inline const char *harness_map(struct harness *h, const char *blob)
{
    return harness_map_bytes(h, rf_bytes_text(blob), NULL);
}

/* One table t with a text column v; body is what map does. Its rows' values, joined by blanks, or
 * "failed: ...". */
static inline const char *harness_eval_bytes(struct harness *h, const char *body,
                                             struct rf_bytes blob, bool jit_off)
{
    char *text;
    int n = asprintf(&text, "return { name = 'test', tables = { t = { columns = { 'v text' } } },"
                            " map = function(blob, emit)\n"
                            "local function out(v) emit.t { v = v == nil and refuge.null or "
                            "type(v) == 'string' and v or tostring(v) } end\n%s\nend }", body);

    assert_true(n > 0);
    if (!harness_open(h, text, jit_off))
        fail_msg("cannot load %s: %s", body, h->err.message);
    free(text);
    return harness_map_bytes(h, blob, NULL);
}

static inline const char *harness_eval(struct harness *h, const char *body, const char *blob)
{
    return harness_eval_bytes(h, body, rf_bytes_text(blob), false);
}

#endif
