/*
 * elastic_sql.h - what an index in Elasticsearch says, as tables that SQL can ask
 *
 * A reader of its own, written from what sinks/sink_elastic.h promises of the documents: it loads
 * all of an index into tables in memory that look as those of an index in SQLite, so that the same
 * questions can be put to every kind of sink. Only the requests are those of the code under test.
 */
#ifndef RF_TESTS_ELASTIC_SQL_H
#define RF_TESTS_ELASTIC_SQL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/row.h"
#include "sinks/es_http.h"

struct elastic_load {
    sqlite3 *db;
    struct rf_es *es;
    struct rf_arena arena;
    const struct rf_json *state; /* its body */
};

static inline void load_exec(struct elastic_load *load, char *sql)
{
    char *words = NULL;

    if (sqlite3_exec(load->db, sql, NULL, NULL, &words) != SQLITE_OK)
        fail_msg("%s: %s", sql, words);
    sqlite3_free(sql);
}

/* An answer is lent until the next one. */
static inline const struct rf_json *load_copy(struct rf_arena *arena, const struct rf_json *from)
{
    struct rf_json *to = rf_arena_alloc(arena, sizeof *to), *items;

    *to = *from;
    if (from->text.data)
        to->text.data = (const uint8_t *)rf_arena_copy(arena, from->text.data, from->text.size);
    if (from->key.data)
        to->key.data = (const uint8_t *)rf_arena_copy(arena, from->key.data, from->key.size);
    items = rf_arena_alloc(arena, (from->count + 1) * sizeof *items);
    for (size_t i = 0; i < from->count; i++)
        items[i] = *load_copy(arena, &from->items[i]);
    to->items = items;
    return to;
}

static inline struct rf_es_reply load_call(struct elastic_load *load, const char *method,
                                           const char *body, const char *path)
{
    struct rf_es_reply reply;
    struct rf_error why = {0};

    if (rf_es_call(load->es, &reply, method,
                   body ? rf_bytes_text(body) : rf_bytes(NULL, 0), &why, "%s", path) != RF_OK)
        fail_msg("%s %s: %s", method, path, why.message);
    return reply;
}

/* All documents of an index, page by page. */
static inline const struct rf_json *load_all(struct elastic_load *load, const char *index)
{
    struct rf_json *all = rf_arena_alloc(&load->arena, sizeof *all), *items;
    const struct rf_json *page;
    char path[300], body[100], after[60] = "";

    *all = (struct rf_json){.type = RF_JSON_ARRAY};
    snprintf(path, sizeof path, "/%s/_refresh", index);
    load_call(load, "POST", NULL, path);
    snprintf(path, sizeof path, "/%s/_search", index);
    do {
        snprintf(body, sizeof body, "{\"size\":10000,\"sort\":[\"_seq_no\"]%s}", after);
        page = rf_json_find(rf_json_find(load_call(load, "POST", body, path).json, "hits"),
                            "hits");
        assert_non_null(page);
        page = load_copy(&load->arena, page);
        items = rf_arena_alloc(&load->arena, (all->count + page->count + 1) * sizeof *items);
        if (all->count)
            memcpy(items, all->items, all->count * sizeof *items);
        if (page->count) {
            const struct rf_json *last = &page->items[page->count - 1];
            memcpy(items + all->count, page->items, page->count * sizeof *items);
            snprintf(after, sizeof after, ",\"search_after\":[%s]",
                     (const char *)rf_json_find(last, "sort")->items[0].text.data);
        }
        all->items = items;
        all->count += page->count;
    } while (page->count == 10000);
    return all;
}

static inline int64_t load_int(const struct rf_json *object, const char *key, int64_t otherwise)
{
    int64_t value;

    return rf_json_int(rf_json_find(object, key), &value) ? value : otherwise;
}

static inline const char *load_text(const struct rf_json *object, const char *key)
{
    return rf_json_string(rf_json_find(object, key));
}

static inline bool load_is(const struct rf_json *object, const char *key)
{
    const struct rf_json *value = rf_json_find(object, key);

    return value && value->type == RF_JSON_TRUE;
}

static inline void load_schema(struct elastic_load *load)
{
    load_exec(load, sqlite3_mprintf(
        "CREATE TABLE blobs(id INTEGER PRIMARY KEY, item UNIQUE, ref, media, kind, size, ts, seq, "
        "deleted, name, mtime);"
        "CREATE TABLE refuge_lanes(id, state, position);"
        "CREATE TABLE refuge_lane_mappers(id, lane, ordinal, name, identity, edges_only);"
        "CREATE TABLE refuge_mappers(identity);"
        "CREATE TABLE refuge_facts(name, value);"
        "CREATE TABLE refuge_parts(mapper, parent, n, child, name, offset, size);"
        "CREATE TABLE refuge_needs(mapper, blob, n, ref, present);"
        "CREATE TABLE refuge_parks(mapper, blob, kind, reason, attempts);"
        "CREATE TABLE refuge_dead_letters(mapper, blob, class, reason, attempts);"
        "CREATE TABLE refuge_cuts(mapper, blob, n, \"table\", \"column\", kind);"
        "CREATE VIEW refuge_errors AS SELECT b.item, m.name AS mapper, d.class, d.reason FROM "
        "refuge_dead_letters d JOIN refuge_lane_mappers m ON m.id = d.mapper JOIN refuge_lanes l "
        "ON l.id = m.lane AND l.state = 'live' JOIN blobs b ON b.id = d.blob;"
        "CREATE VIEW refuge_edges AS SELECT p.item AS parent, m.name AS mapper, e.n, c.item AS "
        "part FROM refuge_parts e JOIN refuge_lane_mappers m ON m.id = e.mapper JOIN refuge_lanes "
        "l ON l.id = m.lane AND l.state = 'live' JOIN blobs p ON p.id = e.parent JOIN blobs c ON "
        "c.id = e.child"));
}

static inline const char *load_mapper_name(const struct rf_json *docs, const char *identity)
{
    for (size_t i = 0; i < docs->count; i++) {
        const char *id = load_text(&docs->items[i], "_id");
        const struct rf_json *body =
            rf_json_find(rf_json_find(&docs->items[i], "_source"), "body");
        const char *declaration = load_text(body, "declaration"), *at;
        if (!id || strncmp(id, "mapper:", 7) != 0 || strcmp(id + 7, identity) != 0)
            continue;
        at = declaration ? strstr(declaration, "\"name\":\"") : NULL;
        return at ? at + 8 : "?";
    }
    return "?";
}

static inline void load_state(struct elastic_load *load, const struct rf_json *docs)
{
    const struct rf_json *lanes, *facts;

    for (size_t i = 0; i < docs->count; i++) {
        const char *id = load_text(&docs->items[i], "_id");
        if (strcmp(id, "state") == 0)
            load->state = rf_json_find(rf_json_find(&docs->items[i], "_source"), "body");
        else if (strncmp(id, "mapper:", 7) == 0)
            load_exec(load, sqlite3_mprintf("INSERT INTO refuge_mappers VALUES(%Q)", id + 7));
    }
    assert_non_null(load->state);
    lanes = rf_json_find(load->state, "lanes");
    for (size_t i = 0; i < lanes->count; i++) {
        const struct rf_json *mappers = rf_json_find(&lanes->items[i], "mappers");
        int64_t lane = load_int(&lanes->items[i], "id", -1);
        load_exec(load, sqlite3_mprintf("INSERT INTO refuge_lanes VALUES(%lld, %Q, %Q)",
                                        (long long)lane, load_text(&lanes->items[i], "state"),
                                        load_text(&lanes->items[i], "position")));
        for (size_t k = 0; k < mappers->count; k++) {
            const char *identity = load_text(&mappers->items[k], "identity");
            const char *name = load_mapper_name(docs, identity);
            load_exec(load, sqlite3_mprintf(
                                "INSERT INTO refuge_lane_mappers VALUES(%lld, %lld, %d, "
                                "substr(%Q, 1, %d), %Q, %d)",
                                (long long)load_int(&mappers->items[k], "gen", -1),
                                (long long)lane, (int)k, name, (int)strcspn(name, "\""), identity,
                                load_is(&mappers->items[k], "edges_only")));
        }
    }
    facts = rf_json_find(load->state, "facts");
    for (size_t i = 0; i < facts->count; i++)
        load_exec(load, sqlite3_mprintf("INSERT INTO refuge_facts VALUES(%Q, %Q)",
                                        load_text(&facts->items[i], "name"),
                                        load_text(&facts->items[i], "value")));
}

/* Whether a batch's number is done: not above the state's, and not given up. */
static inline bool load_done(const struct elastic_load *load, int64_t batch)
{
    const struct rf_json *aborted = rf_json_find(load->state, "aborted");

    for (size_t i = 0; i < aborted->count; i++) {
        int64_t first = 0, last = 0;
        (void)!rf_json_int(&aborted->items[i].items[0], &first);
        (void)!rf_json_int(&aborted->items[i].items[1], &last);
        if (batch >= first && batch <= last)
            return false;
    }
    return batch <= load_int(load->state, "done", -1);
}

static inline char *load_time(int64_t us)
{
    char text[RF_TIME_TEXT_SIZE];

    if (us == INT64_MIN)
        return sqlite3_mprintf("NULL");
    rf_time_format(us, text);
    return sqlite3_mprintf("%Q", text);
}

static inline void load_calls(struct elastic_load *load, int64_t blob, const struct rf_json *calls)
{
    static const char *const parks[] = {"slow", "need", "ready"};
    static const char *const classes[] = {"", "mapper", "limit", "blob", "sink"};

    for (size_t i = 0; i < calls->count; i++) {
        const struct rf_json *call = &calls->items[i], *needs = rf_json_find(call, "n");
        const struct rf_json *cuts = rf_json_find(call, "c");
        long long gen = load_int(call, "g", -1);
        const char *outcome = load_text(call, "o");
        if (strcmp(outcome, "park") == 0)
            load_exec(load, sqlite3_mprintf("INSERT INTO refuge_parks VALUES(%lld, %lld, %Q, %Q, "
                                            "%lld)",
                                            gen, (long long)blob, parks[load_int(call, "k", 0)],
                                            load_text(call, "w"), load_int(call, "a", 0)));
        if (load_is(call, "y"))
            load_exec(load, sqlite3_mprintf("INSERT INTO refuge_parks VALUES(%lld, %lld, 'ready', "
                                            "NULL, 0)",
                                            gen, (long long)blob));
        if (strcmp(outcome, "dead") == 0)
            load_exec(load, sqlite3_mprintf("INSERT INTO refuge_dead_letters VALUES(%lld, %lld, "
                                            "%Q, %Q, %lld)",
                                            gen, (long long)blob, classes[load_int(call, "k", 0)],
                                            load_text(call, "w"), load_int(call, "a", 0)));
        for (size_t k = 0; needs && k < needs->count; k++)
            load_exec(load, sqlite3_mprintf("INSERT INTO refuge_needs VALUES(%lld, %lld, %d, %Q, "
                                            "%s)",
                                            gen, (long long)blob, (int)k,
                                            rf_json_string(&needs->items[k].items[0]),
                                            (const char *)needs->items[k].items[1].text.data));
        for (size_t k = 0; cuts && k < cuts->count; k++)
            load_exec(load, sqlite3_mprintf("INSERT INTO refuge_cuts VALUES(%lld, %lld, %s, %Q, "
                                            "%Q, %Q)",
                                            gen, (long long)blob,
                                            (const char *)cuts->items[k].items[0].text.data,
                                            rf_json_string(&cuts->items[k].items[1]),
                                            rf_json_string(&cuts->items[k].items[2]),
                                            rf_json_string(&cuts->items[k].items[3])));
    }
}

static inline void load_items(struct elastic_load *load, const struct rf_json *docs)
{
    int64_t id = 0;

    for (size_t i = 0; i < docs->count; i++) {
        const struct rf_json *source = rf_json_find(&docs->items[i], "_source"), *content = source;
        const char *kind = load_text(source, "kind"), *key = load_text(source, "item");
        char *ts, *mtime, *size;
        if (!kind || strcmp(kind, "item") != 0)
            continue;
        if (!load_done(load, load_int(source, "batch", INT64_MAX)))
            content = rf_json_find(source, "prev");
        if (!content)
            continue;
        ts = load_time(load_int(content, "ts", INT64_MIN));
        mtime = load_time(load_int(content, "mtime", INT64_MIN));
        size = load_int(content, "size", -1) < 0
                   ? sqlite3_mprintf("NULL")
                   : sqlite3_mprintf("%lld", (long long)load_int(content, "size", -1));
        load_exec(load,
                  sqlite3_mprintf("INSERT INTO blobs VALUES(%lld, %Q, substr(%Q, 1, 71), CASE WHEN "
                                  "length(%Q) > 71 THEN substr(%Q, 73) END, %Q, %s, %s, %lld, %d, "
                                  "%Q, %s)",
                                  (long long)++id, key, key, key, key, load_text(content, "type"),
                                  size, ts, (long long)load_int(content, "seq", 0),
                                  load_is(content, "deleted"), load_text(content, "name"),
                                  mtime));
        sqlite3_free(ts);
        sqlite3_free(mtime);
        sqlite3_free(size);
        load_calls(load, id, rf_json_find(content, "calls"));
    }
}

static inline void load_edges(struct elastic_load *load, const struct rf_json *docs)
{
    for (size_t i = 0; i < docs->count; i++) {
        const struct rf_json *source = rf_json_find(&docs->items[i], "_source");
        const char *kind = load_text(source, "kind");
        char *offset;
        if (!kind || strcmp(kind, "edge") != 0)
            continue;
        offset = rf_json_find(source, "offset")
                     ? sqlite3_mprintf("%lld", (long long)load_int(source, "offset", -1))
                     : sqlite3_mprintf("NULL");
        load_exec(load,
                  sqlite3_mprintf("INSERT INTO refuge_parts VALUES(%lld, (SELECT id FROM blobs "
                                  "WHERE item = %Q), %lld, (SELECT id FROM blobs WHERE item = %Q), "
                                  "%Q, %s, %lld)",
                                  (long long)load_int(source, "gen", -1),
                                  load_text(source, "item"), (long long)load_int(source, "n", -1),
                                  load_text(source, "child"), load_text(source, "name"), offset,
                                  (long long)load_int(source, "size", -1)));
        sqlite3_free(offset);
    }
}

/* "note" of the live lane, "note@2" of another, "note@9" of none. */
static inline char *load_table_name(struct elastic_load *load, const char *index)
{
    const char *table = index + strlen(rf_es_prefix(load->es)) + 1, *dash = strrchr(table, '-');
    const struct rf_json *lanes = rf_json_find(load->state, "lanes");
    long long gen = strtoll(dash + 1, NULL, 10);
    int size = (int)(dash - table);

    for (size_t i = 0; i < lanes->count; i++) {
        const struct rf_json *mappers = rf_json_find(&lanes->items[i], "mappers");
        for (size_t k = 0; k < mappers->count; k++) {
            if (load_int(&mappers->items[k], "gen", -1) != gen)
                continue;
            if (strcmp(load_text(&lanes->items[i], "state"), "live") == 0)
                return sqlite3_mprintf("%.*s", size, table);
            return sqlite3_mprintf("%.*s@%lld", size, table,
                                   (long long)load_int(&lanes->items[i], "id", -1));
        }
    }
    return sqlite3_mprintf("%.*s@9", size, table);
}

static inline void load_value(sqlite3_stmt *stmt, int at, const struct rf_json *value,
                              const char *type)
{
    int64_t integer;
    double real;

    if (!value)
        sqlite3_bind_null(stmt, at);
    else if (value->type == RF_JSON_TRUE || value->type == RF_JSON_FALSE)
        sqlite3_bind_int(stmt, at, value->type == RF_JSON_TRUE);
    else if (type && strcmp(type, "double") == 0 && rf_json_double(value, &real))
        sqlite3_bind_double(stmt, at, real);
    else if (rf_json_int(value, &integer))
        sqlite3_bind_int64(stmt, at, integer);
    else
        sqlite3_bind_text(stmt, at, rf_json_string(value), (int)value->text.size,
                          SQLITE_TRANSIENT);
}

static inline void load_rows(struct elastic_load *load, const char *name,
                             const struct rf_json *properties, const struct rf_json *docs)
{
    char *sql = sqlite3_mprintf("CREATE TABLE \"%w\"(id INTEGER PRIMARY KEY, blob, n", name);
    sqlite3_stmt *stmt = NULL, *words_stmt = NULL;

    for (size_t i = 0; i < properties->count; i++)
        if (strcmp((const char *)properties->items[i].key.data, "refuge") != 0)
            sql = sqlite3_mprintf("%z, \"%w\"", sql, properties->items[i].key.data);
    load_exec(load, sqlite3_mprintf("%z)", sql));
    load_exec(load, sqlite3_mprintf("CREATE VIRTUAL TABLE \"%w_fts\" USING fts5(words)", name));
    sql = sqlite3_mprintf("INSERT INTO \"%w\" VALUES(NULL, (SELECT id FROM blobs WHERE item = ?1), "
                          "?2", name);
    for (size_t i = 0, at = 3; i < properties->count; i++)
        if (strcmp((const char *)properties->items[i].key.data, "refuge") != 0)
            sql = sqlite3_mprintf("%z, ?%d", sql, (int)at++);
    sql = sqlite3_mprintf("%z)", sql);
    assert_int_equal(sqlite3_prepare_v2(load->db, sql, -1, &stmt, NULL), SQLITE_OK);
    sqlite3_free(sql);
    sql = sqlite3_mprintf("INSERT INTO \"%w_fts\" VALUES(?1)", name);
    assert_int_equal(sqlite3_prepare_v2(load->db, sql, -1, &words_stmt, NULL), SQLITE_OK);
    sqlite3_free(sql);
    for (size_t k = 0; k < docs->count; k++) {
        const struct rf_json *source = rf_json_find(&docs->items[k], "_source");
        const struct rf_json *refuge = rf_json_find(source, "refuge");
        const struct rf_json *words = rf_json_find(refuge, "words");
        int at = 3;
        load_value(stmt, 1, rf_json_find(refuge, "item"), NULL);
        load_value(stmt, 2, rf_json_find(refuge, "n"), NULL);
        for (size_t i = 0; i < properties->count; i++) {
            const char *column = (const char *)properties->items[i].key.data;
            if (strcmp(column, "refuge") != 0)
                load_value(stmt, at++, rf_json_find(source, column),
                           load_text(&properties->items[i], "type"));
        }
        assert_int_equal(sqlite3_step(stmt), SQLITE_DONE);
        sqlite3_reset(stmt);
        for (size_t i = 0; words && i < words->count; i++) {
            load_value(words_stmt, 1, &words->items[i], NULL);
            assert_int_equal(sqlite3_step(words_stmt), SQLITE_DONE);
            sqlite3_reset(words_stmt);
        }
    }
    sqlite3_finalize(stmt);
    sqlite3_finalize(words_stmt);
}

static inline void load_tables(struct elastic_load *load)
{
    const struct rf_json *indexes;
    char path[300];

    snprintf(path, sizeof path, "/%s-*/_mapping", rf_es_prefix(load->es));
    indexes = load_copy(&load->arena, load_call(load, "GET", NULL, path).json);
    for (size_t i = 0; i < indexes->count; i++) {
        const char *index = (const char *)indexes->items[i].key.data;
        char *name;
        if (strstr(index, "-.refuge"))
            continue;
        name = load_table_name(load, index);
        load_rows(load, name,
                  rf_json_find(rf_json_find(&indexes->items[i], "mappings"), "properties"),
                  load_all(load, index));
        sqlite3_free(name);
    }
}

static inline void load_answer(struct elastic_load *load, const char *sql, struct rf_buf *out)
{
    sqlite3_stmt *stmt = NULL;
    bool any = false;

    if (sqlite3_prepare_v2(load->db, sql, -1, &stmt, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(load->db));
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        if (any)
            rf_buf_put_text(out, "\n");
        any = true;
        for (int i = 0; i < sqlite3_column_count(stmt); i++) {
            if (i)
                rf_buf_put_text(out, "|");
            if (sqlite3_column_type(stmt, i) == SQLITE_FLOAT)
                rf_buf_printf(out, "%.17g", sqlite3_column_double(stmt, i));
            else if (sqlite3_column_type(stmt, i) != SQLITE_NULL)
                rf_buf_put(out, sqlite3_column_text(stmt, i),
                           (size_t)sqlite3_column_bytes(stmt, i));
        }
    }
    sqlite3_finalize(stmt);
}

/* Append all cells of the answer as text: columns by '|', rows by newline. */
static inline void elastic_ask(const char *url, const char *sql, struct rf_buf *out)
{
    struct elastic_load load = {0};
    struct rf_error why = {0};
    const struct rf_json *docs;
    char own[200];

    rf_arena_init(&load.arena, 512 << 20);
    if (rf_es_open(&load.es, strchr(url, '+') + 1, &why) != RF_OK)
        fail_msg("%s", why.message);
    assert_int_equal(sqlite3_open(":memory:", &load.db), SQLITE_OK);
    load_schema(&load);
    snprintf(own, sizeof own, "%s-.refuge", rf_es_prefix(load.es));
    docs = load_all(&load, own);
    load_state(&load, docs);
    load_items(&load, docs);
    load_edges(&load, docs);
    load_tables(&load);
    load_answer(&load, sql, out);
    sqlite3_close(load.db);
    rf_es_close(load.es);
    rf_arena_release(&load.arena);
}

#endif
