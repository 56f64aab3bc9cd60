/*
 * sink_fixture.h - what tests of sinks share: a temporary index, declarations, calls as bytes
 *
 * Included by one test program each; everything is static.
 */
#ifndef RF_TESTS_SINK_FIXTURE_H
#define RF_TESTS_SINK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sinks/query.h"
#include "sinks/sink.h"
#include "tests/elastic_sql.h"
#include "tests/sink_kind.h"

struct fixture {
    char folder[64], url[256], path[96];
    struct rf_arena arena;
    struct rf_sink *sink;
};

#define CHECK(call)                                                                             \
    do {                                                                                        \
        struct rf_error err = {0};                                                              \
        enum rf_status got = (call);                                                            \
        if (got != RF_OK)                                                                       \
            fail_msg("%s: %s: %s", #call, rf_status_name(got), err.message);                    \
    } while (0)
#define CHECK_STATUS(call, expected)                                                            \
    do {                                                                                        \
        struct rf_error err = {0};                                                              \
        enum rf_status got = (call);                                                            \
        if (got != (expected))                                                                  \
            fail_msg("%s: %s (not %s): %s", #call, rf_status_name(got),                         \
                     rf_status_name(expected), err.message);                                    \
        if (got != RF_OK)                                                                       \
            assert_string_not_equal(err.message, "");                                           \
    } while (0)

static inline struct rf_sink *open_sink(const char *url, bool create)
{
    struct rf_sink_options options = {
        .create = create, .write = true, .writer_token = 7, .cache_bytes = 4 << 20};
    struct rf_sink *sink = NULL;

    CHECK(rf_sink_open(&sink, url, &options, &err));
    return sink;
}

static inline void fixture_init(struct fixture *f)
{
    static unsigned made;

    *f = (struct fixture){.folder = "/tmp/rf-sink-XXXXXX"};
    assert_non_null(mkdtemp(f->folder));
    snprintf(f->path, sizeof f->path, "%s/index.db", f->folder);
    if (on_postgres() || on_elastic())
        server_url(f->url, sizeof f->url, ++made);
    else
        snprintf(f->url, sizeof f->url, "sqlite:%s", f->path);
    rf_arena_init(&f->arena, 64 << 20);
    f->sink = open_sink(f->url, true);
}

static inline void fixture_release(struct fixture *f)
{
    rf_sink_close(f->sink);
    CHECK(rf_sink_erase(f->url, &err));
    assert_int_equal(rmdir(f->folder), 0); /* nothing else was left behind */
    rf_arena_release(&f->arena);
}

static inline void reopen(struct fixture *f)
{
    rf_sink_close(f->sink);
    f->sink = open_sink(f->url, false);
}

/* A mapper of this declaration; its identity follows from the text. */
static inline struct rf_sink_mapper mapper_of(struct rf_arena *arena, const char *json)
{
    struct rf_sink_mapper mapper = {0};
    struct rf_decl *decl = NULL;
    struct rf_blobref ref;
    char text[RF_BLOBREF_SIZE];

    CHECK(rf_decl_parse(&decl, arena, rf_bytes_text(json), &err));
    rf_blobref_of(&ref, rf_bytes_text(json));
    rf_blobref_format(&ref, text);
    mapper.identity = rf_arena_copy(arena, text + 7, 64);
    mapper.bundle = rf_bytes("bundle\0text", 11);
    mapper.decl = decl;
    return mapper;
}

static inline struct rf_blobref ref_of(const char *text)
{
    struct rf_blobref ref;

    rf_blobref_of(&ref, rf_bytes_text(text));
    return ref;
}

/* A bare blob whose content is `text`; strings live in the arena. */
static inline struct rf_sink_item blob_item(struct rf_arena *arena, const char *text, uint64_t seq)
{
    struct rf_sink_item item = {.kind = RF_SINK_BLOB,
                                .ref = ref_of(text),
                                .size = strlen(text),
                                .seq = seq,
                                .timestamp_us = 1700000000000000 + (int64_t)seq * 1000000,
                                .mtime_us = INT64_MIN};
    char key[RF_BLOBREF_SIZE];

    rf_blobref_format(&item.ref, key);
    item.key = rf_arena_copy(arena, key, strlen(key));
    return item;
}

static inline struct rf_sink_item part_item(struct rf_arena *arena, const char *text,
                                            const char *media)
{
    struct rf_sink_item item = blob_item(arena, text, 0);
    char key[RF_ITEM_KEY_SIZE];

    snprintf(key, sizeof key, "%s;%s", item.key, media);
    item.key = rf_arena_copy(arena, key, strlen(key));
    item.kind = RF_SINK_PART;
    item.media = media;
    item.timestamp_us = INT64_MIN;
    return item;
}

static inline struct rf_sink_part edge_to(const struct rf_sink_item *part, const char *name)
{
    return (struct rf_sink_part){.key = part->key,
                                 .ref = part->ref,
                                 .media = part->media,
                                 .name = name,
                                 .offset = 3,
                                 .size = part->size};
}

static inline struct rf_value text_value(const char *text)
{
    if (!text)
        return (struct rf_value){0};
    return (struct rf_value){.type = RF_TYPE_TEXT, .text = rf_bytes_text(text)};
}

static inline struct rf_value int_value(int64_t value)
{
    return (struct rf_value){.type = RF_TYPE_INT, .integer = value};
}

/* Run one read-only statement and give all cells as text: columns by '|', rows by newline. */
struct answer {
    struct rf_buf buf;
};

static inline enum rf_status take_row(void *user, uint64_t index, size_t count,
                                      const char *const *names, const struct rf_cell *cells)
{
    struct rf_buf *buf = user;

    (void)names;
    if (index)
        rf_buf_put_text(buf, "\n");
    for (size_t i = 0; i < count; i++) {
        if (i)
            rf_buf_put_text(buf, "|");
        switch (cells[i].type) {
        case RF_CELL_NULL:
            break;
        case RF_CELL_INT:
            rf_buf_printf(buf, "%lld", (long long)cells[i].integer);
            break;
        case RF_CELL_FLOAT:
            rf_buf_printf(buf, "%.17g", cells[i].real);
            break;
        default:
            rf_buf_put(buf, cells[i].text.data, cells[i].text.size);
            break;
        }
    }
    return RF_OK;
}

/* In the arena. */
static inline const char *ask(struct fixture *f, const char *sql)
{
    struct rf_buf buf;
    const char *out;

    rf_buf_init(&buf, 16 << 20);
    if (on_elastic())
        elastic_ask(f->url, sql, &buf);
    else
        CHECK(rf_query_sql(f->url, sql, NULL, take_row, &buf, NULL, &err));
    out = rf_arena_copy(&f->arena, buf.data ? (const char *)buf.data : "", buf.size);
    rf_buf_release(&buf);
    return out;
}

static inline void put(struct rf_sink *sink, const struct rf_sink_item *item)
{
    bool stale = false;

    CHECK(rf_sink_put(sink, item, &stale, &err));
    assert_false(stale);
}

#endif
