/*
 * bench_sink.c - rows into SQLite: ready ones, mapped ones, and bare inserts
 *
 * A row is key, val and at: val is 300 B of words, or 1,008 B searchable. Ready: rf_sink with items
 * whose rows are encoded before the clock starts, 10,000 items a batch, as the indexer writes them.
 * Mapped: a whole index run over a store of JSON blobs that hold the same rows. Floor: bare_sink.h
 * in two shapes, one table (the least that holds the rows) and two (what an index keeps of items).
 *
 * With REFUGE_TEST_POSTGRESQL set, the same into that server: a first fill and the same items once
 * more, beside bare binary COPY of the same two tables, keys included. With
 * REFUGE_TEST_ELASTICSEARCH or REFUGE_TEST_OPENSEARCH set, the same into those, beside bare `_bulk`
 * of the same documents: one for each item, one for each row with its words, ids as the sink has
 * them, 10,000 items at a time and as many requests under way.
 */
#include <stdlib.h>
#include <string.h>

#include "bench/bare_mapper.h"
#include "bench/bare_sink.h"
#include "bench/bench.h"
#include "bench/data.h"
#include "bench/fill.h"
#include "indexer/index.h"
#include "sinks/es_http.h"
#include "sinks/grams.h"
#include "sinks/lexemes.h"
#include "sinks/pg.h"
#include "sinks/sink.h"

#define DISTINCT 4000 /* texts; rows beyond repeat them */
#define TEXT_ROOM 1100
#define BARE_SETTINGS \
    "{\"index\":{\"number_of_replicas\":0,\"refresh_interval\":\"-1\"}}"

static struct bench bench;

struct sink_case {
    bool search;
    uint64_t count;
    enum bare_shape shape;
    const char *server; /* a PostgreSQL server, or NULL: SQLite */
    bool again;         /* items that are there already */
    char store[1024];
};

/* What every side writes: names of items, texts, and for rf_sink the rows encoded. */
struct rows {
    char (*keys)[RF_BLOBREF_SIZE];
    struct rf_blobref *refs;
    char (*texts)[TEXT_ROOM];
    size_t sizes[DISTINCT];
    struct rf_decl *decl;
    struct rf_arena arena;
};

static size_t text_size(bool search)
{
    return search ? 1000 : 300;
}

static size_t make_text(char *out, bool search, uint64_t number)
{
    size_t size = data_words(out, text_size(search), number % DISTINCT);

    return search ? size : text_size(search);
}

static struct rows *make_rows(const struct sink_case *sink)
{
    char decl[300], number[24];
    struct rows *rows = calloc(1, sizeof *rows);
    struct rf_error err = {0};

    if (!rows)
        bench_die("no memory for rows");
    rows->keys = calloc(sink->count, sizeof *rows->keys);
    rows->refs = calloc(sink->count, sizeof *rows->refs);
    rows->texts = calloc(DISTINCT, TEXT_ROOM);
    if (!rows->keys || !rows->refs || !rows->texts)
        bench_die("no memory for %llu rows", (unsigned long long)sink->count);
    for (uint64_t i = 0; i < sink->count; i++) {
        int size = snprintf(number, sizeof number, "%llu", (unsigned long long)i);
        rf_blobref_of(&rows->refs[i], rf_bytes(number, (size_t)size));
        rf_blobref_format(&rows->refs[i], rows->keys[i]);
    }
    for (uint64_t i = 0; i < DISTINCT; i++)
        rows->sizes[i] = make_text(rows->texts[i], sink->search, i);
    rf_arena_init(&rows->arena, 1 << 20);
    snprintf(decl, sizeof decl,
             "{\"name\":\"texts\",\"on\":[\"blob\"],\"tables\":[{\"name\":\"texts\",\"columns\":["
             "{\"name\":\"key\",\"type\":\"text\"},"
             "{\"name\":\"val\",\"type\":\"text\",\"search\":%s},"
             "{\"name\":\"at\",\"type\":\"int\"}]}]}",
             sink->search ? "true" : "false");
    bench_must(rf_decl_parse(&rows->decl, &rows->arena, rf_bytes_text(decl), &err), &err,
               "cannot declare");
    return rows;
}

/* The values of row i; key has room for the key's text. */
static void set_values(struct rf_value values[3], char key[32], const struct rows *rows, uint64_t i)
{
    int size = snprintf(key, 32, "tag:%llu:%llu", (unsigned long long)(i * 7919 % 500),
                        (unsigned long long)i);

    values[0] = (struct rf_value){.type = RF_TYPE_TEXT, .text = rf_bytes(key, (size_t)size)};
    values[1] = (struct rf_value){.type = RF_TYPE_TEXT,
                                  .text = rf_bytes(rows->texts[i % DISTINCT],
                                                   rows->sizes[i % DISTINCT])};
    values[2] = (struct rf_value){.type = RF_TYPE_INT, .integer = (int64_t)i};
}

/* ---- the floor ---- */

static void write_bare(void *arg, struct bench_cost *cost)
{
    const struct sink_case *sink = arg;
    const struct rows *rows = make_rows(sink);
    const char *path = bench_path(&bench, "bare.db");
    struct bare_sink *bare = bare_sink_open(path, rows->decl, sink->shape);
    struct rf_value values[3];
    char key[32];

    bench_start(cost);
    for (uint64_t i = 0; i < sink->count; i++) {
        set_values(values, key, rows, i);
        bare_sink_item(bare, rows->keys[i], TEXT_ROOM, i + 1);
        bare_sink_row(bare, 0, values, 3);
    }
    bare_sink_commit(bare);
    bench_stop(cost, sink->count);
    bare_sink_close(bare);
    bench_remove(path);
}

/* One batch of the floor in PostgreSQL: COPY of items, COPY of rows, one transaction. */
static void copy_batch(struct rf_pg *pg, struct rf_buf *items, struct rf_buf *texts)
{
    struct rf_bytes piece = rf_buf_bytes(items);
    struct rf_error err = {0};

    bench_must(rf_pg_exec(pg, &err, "BEGIN"), &err, "cannot begin");
    bench_must(rf_pg_copy(pg, "items(id, item, kind, size, ts, seq)", &piece, 1, &err), &err,
               "cannot copy");
    piece = rf_buf_bytes(texts);
    bench_must(rf_pg_copy(pg, "texts(blob, n, key, val, at)", &piece, 1, &err), &err,
               "cannot copy");
    bench_must(rf_pg_exec(pg, &err, "COMMIT"), &err, "cannot commit");
    rf_buf_clear(items);
    rf_buf_clear(texts);
}

static void write_copy(void *arg, struct bench_cost *cost)
{
    const struct sink_case *which = arg;
    const struct rows *rows = make_rows(which);
    struct rf_buf items, texts;
    struct rf_error err = {0};
    struct rf_value values[3];
    struct rf_pg *pg;
    char url[1100], key[32];

    rf_buf_init(&items, SIZE_MAX / 2);
    rf_buf_init(&texts, SIZE_MAX / 2);
    snprintf(url, sizeof url, "%s#bench_bare", which->server);
    bench_must(rf_pg_open(&pg, url, &err), &err, "cannot connect");
    bench_must(rf_pg_exec(pg, &err,
                          "DROP SCHEMA IF EXISTS bench_bare CASCADE; CREATE SCHEMA bench_bare; "
                          "CREATE TABLE items(id bigint PRIMARY KEY, item text COLLATE \"C\" "
                          "UNIQUE, kind text, size bigint, ts timestamptz, seq bigint); CREATE "
                          "TABLE texts(blob bigint, n bigint, key text, val text, at bigint%s, "
                          "PRIMARY KEY(blob, n))",
                          which->search ? ", search tsvector GENERATED ALWAYS AS "
                                          "(to_tsvector('simple', coalesce(val, ''))) STORED"
                                        : ""),
               &err, "no tables");
    bench_start(cost);
    for (uint64_t i = 0; i < which->count; i++) {
        set_values(values, key, rows, i);
        rf_pg_row_begin(&items, 6);
        rf_pg_put_bigint(&items, (int64_t)i);
        rf_pg_put_text(&items, rf_bytes_text(rows->keys[i]));
        rf_pg_put_text(&items, rf_bytes_text("blob"));
        rf_pg_put_bigint(&items, TEXT_ROOM);
        rf_pg_put_time(&items, 1700000000000000);
        rf_pg_put_bigint(&items, (int64_t)i + 1);
        rf_pg_row_begin(&texts, 5);
        rf_pg_put_bigint(&texts, (int64_t)i);
        rf_pg_put_bigint(&texts, 0);
        rf_pg_put_text(&texts, values[0].text);
        rf_pg_put_text(&texts, values[1].text);
        rf_pg_put_bigint(&texts, values[2].integer);
        if ((i + 1) % BARE_BATCH == 0 || i + 1 == which->count)
            copy_batch(pg, &items, &texts);
    }
    bench_stop(cost, which->count);
    bench_must(rf_pg_exec(pg, &err, "DROP SCHEMA bench_bare CASCADE"), &err, "cannot drop");
    rf_pg_close(pg);
    rf_buf_release(&items);
    rf_buf_release(&texts);
}

/* ---- the floor in a search engine ---- */

static enum rf_status bare_failed(void *user, const struct rf_es_failure *failure,
                                  struct rf_error *err)
{
    (void)user;
    return rf_error_set(err, RF_IO, "%ld %s", failure->status, failure->reason);
}

static void bare_call(struct rf_es *es, const char *method, const char *body, const char *path)
{
    struct rf_error err = {0};
    struct rf_es_reply reply;

    bench_must(rf_es_call(es, &reply, method, body ? rf_bytes_text(body) : rf_bytes(NULL, 0), &err,
                          "%s", path),
               &err, "no answer");
}

static void put_words(struct rf_buf *out, struct rf_bytes text)
{
    struct rf_grams_piece piece;
    size_t at = 0;

    while (rf_grams_next(text, &at, &piece)) {
        if (out->size)
            rf_buf_put_u8(out, ' ');
        rf_lexemes_fold(out, piece.text);
    }
}

/* The act and document of one row, or of its item. */
static void put_document(struct rf_buf *act, struct rf_buf *doc, const struct sink_case *which,
                         const struct rows *rows, uint64_t i, bool item)
{
    struct rf_value values[3];
    char key[32];

    rf_buf_clear(act);
    rf_buf_clear(doc);
    rf_buf_printf(act, "{\"index\":{\"_index\":\"bench-bare-%s\",\"_id\":\"%s:%s\"}}",
                  item ? "items" : "texts", item ? "i" : "texts", rows->keys[i]);
    if (item) {
        rf_buf_printf(doc, "{\"item\":\"%s\",\"type\":\"blob\",\"size\":%d,\"ts\":1700000000000000,"
                           "\"seq\":%llu}",
                      rows->keys[i], TEXT_ROOM, (unsigned long long)i + 1);
        return;
    }
    set_values(values, key, rows, i);
    rf_buf_printf(doc, "{\"refuge\":{\"item\":\"%s\",\"n\":0", rows->keys[i]);
    if (which->search) {
        struct rf_buf words;
        rf_buf_init(&words, 1 << 20);
        put_words(&words, values[1].text);
        rf_buf_put_text(doc, ",\"words\":");
        rf_json_put_string(doc, rf_buf_bytes(&words));
        rf_buf_release(&words);
    }
    rf_buf_put_text(doc, "},\"key\":");
    rf_json_put_string(doc, values[0].text);
    rf_buf_put_text(doc, ",\"val\":");
    rf_json_put_string(doc, values[1].text);
    rf_buf_printf(doc, ",\"at\":%llu}", (unsigned long long)i);
}

static void write_bulk(void *arg, struct bench_cost *cost)
{
    const struct sink_case *which = arg;
    const struct rows *rows = make_rows(which);
    struct rf_error err = {0};
    struct rf_buf act, doc;
    struct rf_es *es;
    char url[1100], body[800];

    snprintf(url, sizeof url, "%s#bench-bare", strchr(which->server, '+') + 1);
    bench_must(rf_es_open(&es, url, &err), &err, "cannot connect");
    bare_call(es, "DELETE", NULL, "/bench-bare-items");
    bare_call(es, "DELETE", NULL, "/bench-bare-texts");
    bare_call(es, "PUT",
              "{\"settings\":" BARE_SETTINGS ",\"mappings\":{\"properties\":{\"item\":{\"type\":"
              "\"keyword\"},\"type\":{\"type\":\"keyword\"},\"size\":{\"type\":\"long\",\"index\":"
              "false},\"ts\":{\"type\":\"long\",\"index\":false},\"seq\":{\"type\":\"long\"}}}}",
              "/bench-bare-items");
    snprintf(body, sizeof body,
             "{\"settings\":" BARE_SETTINGS ",\"mappings\":{\"properties\":{\"refuge\":{"
             "\"properties\":{\"item\":{\"type\":\"keyword\"},\"n\":{\"type\":\"long\"},"
             "\"words\":{\"type\":\"text\",\"analyzer\":\"whitespace\"}}},\"key\":{\"type\":"
             "\"keyword\"},\"val\":{\"type\":\"%s\"},\"at\":{\"type\":\"long\"}}}}",
             which->search ? "text" : "keyword");
    bare_call(es, "PUT", body, "/bench-bare-texts");
    rf_buf_init(&act, 1 << 16);
    rf_buf_init(&doc, 1 << 20);
    bench_start(cost);
    for (uint64_t i = 0; i < which->count;) {
        uint64_t until = i + BARE_BATCH < which->count ? i + BARE_BATCH : which->count;
        bench_must(rf_es_bulk_begin(es, bare_failed, NULL, &err), &err, "cannot begin");
        for (; i < until; i++) {
            for (int item = 0; item < 2; item++) {
                put_document(&act, &doc, which, rows, i, item);
                bench_must(rf_es_bulk_add(es, i, rf_buf_bytes(&act), rf_buf_bytes(&doc), &err),
                           &err, "cannot add");
            }
        }
        bench_must(rf_es_bulk_end(es, &err), &err, "cannot write");
    }
    bench_stop(cost, which->count);
    bare_call(es, "DELETE", NULL, "/bench-bare-items");
    bare_call(es, "DELETE", NULL, "/bench-bare-texts");
    rf_es_close(es);
    rf_buf_release(&act);
    rf_buf_release(&doc);
}

/* ---- ready rows ---- */

/* Rows encoded one behind the other; ends[i] is where row i ends. */
static uint8_t *encode_rows(const struct rows *rows, uint64_t count, uint64_t *ends)
{
    struct rf_value values[3];
    struct rf_buf buf;
    char key[32];

    rf_buf_init(&buf, SIZE_MAX / 2);
    for (uint64_t i = 0; i < count; i++) {
        set_values(values, key, rows, i);
        rf_row_begin(&buf, 0, 3);
        for (size_t k = 0; k < 3; k++)
            rf_row_put(&buf, &values[k]);
        ends[i] = buf.size;
    }
    if (buf.failed)
        bench_die("no memory for encoded rows");
    return buf.data;
}

/* As the indexer tells of what is ready. */
static void expect_items(struct rf_sink *sink, const struct rows *rows, uint64_t from,
                         uint64_t until)
{
    const char *keys[RF_SINK_EXPECT_MAX];
    struct rf_error err = {0};
    size_t count = 0;

    while (count < RF_SINK_EXPECT_MAX && from < until)
        keys[count++] = rows->keys[from++];
    bench_must(rf_sink_expect(sink, keys, count, &err), &err, "cannot expect");
}

static void write_items(struct rf_sink *sink, uint32_t lane, const struct rows *rows,
                        const uint8_t *encoded, const uint64_t *ends, uint64_t count)
{
    char position[RF_POSITION_SIZE] = "", next[RF_POSITION_SIZE];
    struct rf_error err = {0};

    for (uint64_t i = 0; i < count; ) {
        uint64_t until = i + BARE_BATCH < count ? i + BARE_BATCH : count;
        bench_must(rf_sink_begin(sink, lane, position, &err), &err, "cannot begin");
        for (; i < until; i++) {
            if (i % RF_SINK_EXPECT_MAX == 0)
                expect_items(sink, rows, i, until);
            uint64_t start = i ? ends[i - 1] : 0;
            const struct rf_sink_call call = {.mapper = 0, .outcome = RF_SINK_ROWS,
                .output = rf_bytes(encoded + start, ends[i] - start)};
            const struct rf_sink_item item = {.key = rows->keys[i], .kind = RF_SINK_BLOB,
                .ref = rows->refs[i], .size = TEXT_ROOM, .seq = i + 1,
                .timestamp_us = 1700000000000000, .mtime_us = INT64_MIN, .calls = &call,
                .call_count = 1};
            bench_must(rf_sink_put(sink, &item, NULL, &err), &err, "cannot put");
        }
        snprintf(next, sizeof next, "1-%llu", (unsigned long long)i);
        bench_must(rf_sink_commit(sink, next, &err), &err, "cannot commit");
        memcpy(position, next, sizeof position);
    }
}

static const char *last_position(const struct sink_case *which)
{
    static char text[RF_POSITION_SIZE];

    snprintf(text, sizeof text, "1-%llu", (unsigned long long)which->count);
    return text;
}

static void write_ready(void *arg, struct bench_cost *cost)
{
    const struct sink_case *which = arg;
    const struct rows *rows = make_rows(which);
    const char *path = bench_path(&bench, "ready.db");
    uint64_t *ends = calloc(which->count, sizeof *ends);
    uint8_t *encoded = encode_rows(rows, which->count, ends);
    const struct rf_sink_options options = {.create = true, .write = true, .writer_token = 1};
    const struct rf_sink_mapper mapper = {
        .identity = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        .bundle = rf_bytes_text("{}"), .decl = rows->decl};
    struct rf_error err = {0};
    struct rf_sink *sink;
    char url[1100];
    uint32_t lane;

    if (which->server)
        snprintf(url, sizeof url, "%s#bench_ready", which->server);
    else
        snprintf(url, sizeof url, "sqlite:%s", path);
    if (which->server)
        bench_must(rf_sink_erase(url, &err), &err, "cannot erase");
    bench_must(rf_sink_open(&sink, url, &options, &err), &err, "cannot open the sink");
    bench_must(rf_sink_lane_begin(sink, &mapper, 1, true, &lane, &err), &err, "no lane");
    if (which->again) {
        write_items(sink, lane, rows, encoded, ends, which->count);
        bench_must(rf_sink_lane_ready(sink, lane, &err), &err, "not ready");
        bench_must(rf_sink_begin(sink, lane, last_position(which), &err), &err, "cannot begin");
        bench_must(rf_sink_commit(sink, "", &err), &err, "cannot commit");
    }
    bench_start(cost);
    write_items(sink, lane, rows, encoded, ends, which->count);
    bench_stop(cost, which->count);
    rf_sink_close(sink);
    if (which->server)
        bench_must(rf_sink_erase(url, &err), &err, "cannot erase");
    else
        bench_remove(path);
}

/* ---- mapped rows ---- */

static bool blobs_search;

static size_t make_blob(char *out, size_t size, uint64_t number)
{
    int head = snprintf(out, size, "{\"key\":\"tag:%llu:%llu\",\"at\":%llu,\"val\":\"",
                        (unsigned long long)(number * 7919 % 500), (unsigned long long)number,
                        (unsigned long long)number);
    size_t used = (size_t)head;

    used += make_text(out + used, blobs_search, number);
    memcpy(out + used, "\"}", 2);
    return used + 2;
}

static void make_store(void *arg, struct bench_cost *cost)
{
    const struct sink_case *sink = arg;

    (void)cost;
    blobs_search = sink->search;
    fill_new_store(sink->store, sink->count, TEXT_ROOM + 200, make_blob, TEXT_ROOM + 200);
}

static void write_mapped(void *arg, struct bench_cost *cost)
{
    const struct sink_case *which = arg;
    const char *mappers[] = {bare_mapper_path(which->search ? "texts_search.lua"
                                                            : "texts_plain.lua")};
    char store[1100], sink[1100], path[1024];
    const struct rf_index_options options = {.name = "bench", .store_url = store,
        .sink_url = sink, .mappers = mappers, .mapper_count = 1,
        .mapper_program = bare_mapper_program()};
    struct rf_index_progress totals;
    struct rf_error err = {0};
    struct rf_index *index;

    snprintf(path, sizeof path, "%s", bench_path(&bench, "mapped.db"));
    snprintf(store, sizeof store, "disk:%s", which->store);
    snprintf(sink, sizeof sink, "sqlite:%s", path);
    bench_must(rf_index_open(&index, &options, &err), &err, "cannot open the index");
    bench_start(cost);
    bench_must(rf_index_run(index, false, &err), &err, "cannot index");
    bench_stop(cost, which->count);
    rf_index_totals(index, &totals);
    if (totals.rows != which->count)
        bench_die("%llu rows of %llu items", (unsigned long long)totals.rows,
                  (unsigned long long)which->count);
    bench_note(cost, "us CPU of the host an item", cost->own_cpu_s * 1e6 / (double)which->count);
    bench_note(cost, "us CPU of the workers an item",
               (cost->cpu_s - cost->own_cpu_s) * 1e6 / (double)which->count);
    rf_index_close(index);
    bench_remove(path);
}

static void compare(bool search, uint64_t count)
{
    struct sink_case two = {.search = search, .count = bench_count(&bench, count, 300),
                            .shape = BARE_TWO_TABLES}, one;
    const char *what = search ? "searchable rows of 1 KB (FTS5)" : "rows of 300 B";
    char work[100];

    snprintf(two.store, sizeof two.store, "%s", bench_path(&bench, "store-%d", search));
    one = two;
    one.shape = BARE_ONE_TABLE;
    const struct bench_side ready[] = {
        {"rf_sink, rows encoded before", write_ready, &two, 0},
        {"bare SQLite, one table", write_bare, &one, 0},
        {"bare SQLite, items and rows as an index has them", write_bare, &two, 0.8}};
    const struct bench_side mapped[] = {
        {"index run: log, jail, sink", write_mapped, &two, 0},
        {"rf_sink, rows encoded before", write_ready, &two, 0},
        {"bare SQLite, items and rows as an index has them", write_bare, &two,
         search ? 0.8 : 0}};

    snprintf(work, sizeof work, "ready %s", what);
    bench_compare(&bench, work, BENCH_BY_RATE, ready, 3);
    bench_prepare(make_store, &two, NULL);
    snprintf(work, sizeof work, "mapped %s", what);
    bench_compare(&bench, work, BENCH_BY_RATE, mapped, 3);
    bench_remove(two.store);
}

static void compare_postgres(bool search, uint64_t count, const char *server)
{
    struct sink_case first = {.search = search, .count = bench_count(&bench, count, 300),
                              .server = server}, again = first;
    char work[100];

    again.again = true;
    const struct bench_side sides[] = {
        {"rf_sink into PostgreSQL, rows encoded before", write_ready, &first, 0},
        {"rf_sink into PostgreSQL, items that are there", write_ready, &again, 0},
        {"bare binary COPY of items and rows, with keys", write_copy, &first, 0.8}};

    snprintf(work, sizeof work, "ready %s into PostgreSQL",
             search ? "searchable rows of 1 KB" : "rows of 300 B");
    bench_compare(&bench, work, BENCH_BY_RATE, sides, 3);
}

static void compare_engine(bool search, uint64_t count, const char *engine, const char *server)
{
    struct sink_case first = {.search = search, .count = bench_count(&bench, count, 300)}, again;
    char work[100], url[1000];

    snprintf(url, sizeof url, "%s+%s", engine, server);
    first.server = url;
    again = first;
    again.again = true;
    const struct bench_side sides[] = {
        {"rf_sink into a search engine, rows encoded before", write_ready, &first, 0},
        {"rf_sink into a search engine, items that are there", write_ready, &again, 0},
        {"bare _bulk of items and rows", write_bulk, &first, 0.8}};

    snprintf(work, sizeof work, "ready %s into %s",
             search ? "searchable rows of 1 KB" : "rows of 300 B", engine);
    bench_compare(&bench, work, BENCH_BY_RATE, sides, 3);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name, *variable;
    } engines[] = {{"elasticsearch", "REFUGE_TEST_ELASTICSEARCH"},
                   {"opensearch", "REFUGE_TEST_OPENSEARCH"}};
    const char *server = getenv("REFUGE_TEST_POSTGRESQL");

    bench_open(&bench, "sink", &argc, argv);
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++) {
        const char *engine = getenv(engines[i].variable);
        if (!engine || !engine[0])
            continue;
        compare_engine(false, 50000, engines[i].name, engine);
        compare_engine(true, 20000, engines[i].name, engine);
    }
    if (server && server[0]) {
        compare_postgres(false, 100000, server);
        compare_postgres(true, 30000, server);
    }
    compare(false, 200000);
    compare(true, 60000);
    return bench_close(&bench);
}
