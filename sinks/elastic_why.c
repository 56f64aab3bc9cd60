/* elastic_why.c - what became of one item: for a person, in a handful of small questions */
#include "sinks/sink_elastic.h"

#include <stdio.h>
#include <stdlib.h>

#define PARENTS_MAX 20
#define ANSWER_ARENA ((size_t)64 << 20)

static const char *kind_name(enum rf_sink_item_kind kind)
{
    return kind == RF_SINK_BLOB ? "blob" : kind == RF_SINK_FILE ? "file" : "part";
}

static void put_strings(struct rf_buf *out, const char *const *texts, size_t count)
{
    rf_buf_put_u8(out, '[');
    for (size_t i = 0; i < count; i++) {
        rf_buf_put_text(out, i ? "," : "");
        rf_elastic_put_words(out, texts[i]);
    }
    rf_buf_put_u8(out, ']');
}

static const char *copy_text(struct rf_arena *arena, const struct rf_json *object,
                             const char *key)
{
    const char *text = rf_json_string(rf_json_find(object, key));

    return text ? rf_arena_copy(arena, text, strlen(text)) : NULL;
}

/* A reader that finds all that is committed. */
static enum rf_status open_reader(struct rf_elastic **out, const char *rest, struct rf_error *err)
{
    enum rf_status status = rf_elastic_open_reader(out, rest, err);

    if (status)
        return status;
    (*out)->own_stale = true;
    (void)!rf_elastic_refresh(*out, false, NULL); /* it may not be allowed to */
    return RF_OK;
}

/* ---- which items ---- */

static void put_question(struct rf_buf *out, const struct rf_items_question *question)
{
    rf_buf_printf(out, "{\"size\":%zu,\"sort\":[{\"seq\":\"desc\"},\"item\"],\"query\":{"
                       "\"bool\":{\"filter\":[{\"term\":{\"kind\":\"item\"}}],"
                       "\"minimum_should_match\":1,\"should\":[{\"terms\":{\"item\":",
                  question->limit);
    put_strings(out, question->keys, question->key_count);
    rf_buf_put_text(out, "}},{\"terms\":{\"name\":");
    put_strings(out, question->names, question->name_count);
    rf_buf_put_text(out, "}}");
    for (size_t i = 0; i < question->key_count; i++) {
        if (strchr(question->keys[i], ';'))
            continue;
        rf_buf_printf(out, ",{\"prefix\":{\"item\":\"%s;\"}}", question->keys[i]);
    }
    if (question->part_prefix)
        rf_buf_printf(out, ",{\"bool\":{\"filter\":[{\"term\":{\"type\":\"part\"}},{\"prefix\":"
                           "{\"item\":\"%s\"}}]}}",
                      question->part_prefix);
    rf_buf_put_text(out, "]}}}");
}

enum rf_status rf_elastic_query_items(const char *rest, const struct rf_items_question *question,
                                      enum rf_status (*visit)(void *user,
                                                              const struct rf_item_answer *),
                                      void *user, struct rf_error *err)
{
    struct rf_elastic *sink = NULL;
    const struct rf_json *hits = NULL;
    struct rf_arena arena;
    struct rf_buf body;
    enum rf_status status = open_reader(&sink, rest, err);

    if (status)
        return status;
    rf_arena_init(&arena, ANSWER_ARENA);
    rf_buf_init(&body, 1 << 20);
    put_question(&body, question);
    status = rf_elastic_search_own(sink, rf_buf_text(&body), &hits, NULL, NULL, err);
    for (size_t i = 0; !status && i < hits->count; i++) {
        const struct rf_json *source = rf_json_find(&hits->items[i], "_source");
        const char *key = copy_text(&arena, source, "item");
        struct rf_el_content content;
        struct rf_item_answer answer;
        status = rf_elastic_read_content(sink, &arena, source, &content, err);
        if (status || content.absent || !key)
            continue;
        answer = (struct rf_item_answer){.key = key, .kind = kind_name(content.kind),
                                         .name = content.name, .seq = content.seq,
                                         .deleted = content.deleted};
        status = visit(user, &answer);
    }
    rf_buf_release(&body);
    rf_arena_release(&arena);
    rf_elastic_close(&sink->base);
    return status;
}

/* ---- one of them ---- */

struct asking {
    struct rf_elastic *sink;
    struct rf_el_lane *lane;
    const char *key;
    struct rf_arena arena;
};

static enum rf_status count_in(struct asking *asking, const char *index, const char *body,
                               uint64_t *out, struct rf_error *err)
{
    struct rf_es_reply reply;
    int64_t count = 0;
    enum rf_status status = rf_es_call(asking->sink->es, &reply, "POST", rf_bytes_text(body), err,
                                       "/%s/_search", index);

    if (!status && !rf_json_int(rf_json_find(rf_json_find(rf_json_find(reply.json, "hits"),
                                                          "total"), "value"), &count))
        status = rf_es_unexpected(asking->sink->es, &reply, "count", err);
    *out = (uint64_t)count;
    return status;
}

/* Parents of a part, by edges of the lane. */
static enum rf_status tell_parents(struct asking *asking,
                                   enum rf_status (*parent)(void *user,
                                                            const struct rf_item_parent_answer *),
                                   void *user, struct rf_error *err)
{
    struct rf_item_parent_answer answers[PARENTS_MAX];
    const struct rf_json *hits = NULL;
    struct rf_buf body;
    size_t count = 0;
    enum rf_status status;

    rf_buf_init(&body, 1 << 16);
    rf_buf_printf(&body, "{\"size\":%d,\"query\":{\"bool\":{\"filter\":[{\"term\":{\"kind\":"
                         "\"edge\"}},{\"terms\":{\"gen\":",
                  PARENTS_MAX);
    rf_elastic_put_gens(&body, asking->lane);
    rf_buf_put_text(&body, "}},{\"term\":{\"child\":");
    rf_elastic_put_words(&body, asking->key);
    rf_buf_put_text(&body, "}}]}},\"sort\":[\"item\",\"n\"]}");
    status = rf_elastic_search_own(asking->sink, rf_buf_text(&body), &hits, NULL, NULL, err);
    for (size_t i = 0; !status && i < hits->count && count < PARENTS_MAX; i++) {
        const struct rf_json *source = rf_json_find(&hits->items[i], "_source");
        const struct rf_el_mapper *mapper;
        int64_t gen = 0;
        (void)!rf_json_int(rf_json_find(source, "gen"), &gen);
        mapper = rf_elastic_mapper_of(&asking->sink->state, gen);
        answers[count++] = (struct rf_item_parent_answer){
            .key = copy_text(&asking->arena, source, "item"), .mapper = mapper ? mapper->name : ""};
    }
    for (size_t i = 0; !status && i < count; i++) {
        const char *key = answers[i].key ? answers[i].key : "";
        char question[RF_ITEM_KEY_SIZE + 120];
        snprintf(question, sizeof question,
                 "{\"size\":1,\"query\":{\"bool\":{\"filter\":[{\"term\":{\"kind\":\"item\"}},"
                 "{\"term\":{\"item\":\"%s\"}}]}}}",
                 key);
        status = rf_elastic_search_own(asking->sink, question, &hits, NULL, NULL, err);
        if (!status && hits->count)
            answers[i].name = copy_text(&asking->arena,
                                        rf_json_find(&hits->items[0], "_source"), "name");
        if (!status)
            status = parent(user, &answers[i]);
    }
    rf_buf_release(&body);
    return status;
}

/* Rows in each table of a mapper. */
static enum rf_status count_rows(struct asking *asking, const struct rf_el_mapper *mapper,
                                 struct rf_item_call_answer *out, struct rf_error *err)
{
    struct rf_buf body, tables;
    enum rf_status status = RF_OK;

    rf_buf_init(&body, 4096);
    rf_buf_init(&tables, 1 << 16);
    rf_buf_put_text(&body, "{\"size\":0,\"track_total_hits\":true,\"query\":{\"term\":{"
                           "\"refuge.item\":");
    rf_elastic_put_words(&body, asking->key);
    rf_buf_put_text(&body, "}}}");
    for (size_t i = 0; !status && i < mapper->decl->table_count; i++) {
        uint64_t count = 0;
        status = count_in(asking, mapper->tables[i].index, rf_buf_text(&body), &count, err);
        if (count)
            rf_buf_printf(&tables, "%s%s %llu", tables.size ? ", " : "",
                          mapper->tables[i].decl->name, (unsigned long long)count);
        out->rows += count;
    }
    out->tables = rf_arena_copy(&asking->arena, tables.data ? (const char *)tables.data : "",
                                tables.size);
    rf_buf_release(&body);
    rf_buf_release(&tables);
    return status;
}

/* Edges of a mapper, and how many of their children have a dead letter. */
static enum rf_status count_parts(struct asking *asking, const struct rf_el_mapper *mapper,
                                  struct rf_item_call_answer *out, struct rf_error *err)
{
    bool more = true;
    int64_t after = -1;
    enum rf_status status = RF_OK;

    while (!status && more) {
        const struct rf_json *hits = NULL;
        uint64_t aside = 0;
        size_t count = 0;
        struct rf_buf body, children;
        rf_buf_init(&body, 4096);
        rf_buf_init(&children, 1 << 20);
        rf_buf_printf(&body, "{\"size\":%d,\"sort\":[\"n\"],\"query\":{\"bool\":{\"filter\":[{"
                             "\"term\":{\"kind\":\"edge\"}},{\"term\":{\"gen\":%lld}},{\"range\":"
                             "{\"n\":{\"gt\":%lld}}},{\"term\":{\"item\":",
                      RF_ELASTIC_PAGE, (long long)mapper->gen, (long long)after);
        rf_elastic_put_words(&body, asking->key);
        rf_buf_put_text(&body, "}}]}}}");
        status = rf_elastic_search_own(asking->sink, rf_buf_text(&body), &hits, NULL, NULL, err);
        more = !status && hits->count == RF_ELASTIC_PAGE;
        rf_buf_put_text(&children,
                        "{\"size\":0,\"track_total_hits\":true,\"query\":{\"bool\":{\"filter\":[{"
                        "\"exists\":{\"field\":\"dead\"}},{\"terms\":{\"item\":[");
        for (size_t i = 0; !status && i < hits->count; i++) {
            const struct rf_json *source = rf_json_find(&hits->items[i], "_source");
            rf_buf_put_text(&children, count++ ? "," : "");
            rf_elastic_put_words(&children, rf_json_string(rf_json_find(source, "child")));
            (void)!rf_json_int(rf_json_find(source, "n"), &after);
        }
        rf_buf_put_text(&children, "]}}]}}}");
        if (!status && count)
            status = count_in(asking, asking->sink->own, rf_buf_text(&children), &aside, err);
        out->parts += count;
        out->parts_aside += aside;
        rf_buf_release(&body);
        rf_buf_release(&children);
    }
    return status;
}

static void take_state(struct asking *asking, const struct rf_el_call *call,
                       struct rf_item_call_answer *out)
{
    const char *lowest = NULL;
    size_t missing = 0;
    struct rf_buf text;

    if (call && call->again) {
        out->state = "parked (ready)";
        out->reason = "another version may have to map it";
        return;
    }
    if (!call || call->outcome == RF_EL_ROWS)
        return;
    rf_buf_init(&text, 1 << 16);
    rf_buf_printf(&text, call->outcome == RF_EL_DEAD ? "set aside (%s)" : "parked (%s)",
                  call->outcome == RF_EL_DEAD ? rf_elastic_dead_names[call->kind]
                                              : rf_elastic_park_names[call->kind]);
    out->state = rf_arena_copy(&asking->arena, text.data, text.size);
    rf_buf_clear(&text);
    rf_buf_put_text(&text, call->reason ? call->reason : "");
    for (size_t i = 0; i < call->need_count; i++) {
        if (call->needs[i].present)
            continue;
        missing++;
        if (!lowest || strcmp(call->needs[i].ref, lowest) < 0)
            lowest = call->needs[i].ref;
    }
    if (lowest && call->outcome == RF_EL_PARK && call->kind == RF_PARK_NEED) {
        rf_buf_printf(&text, " waits for %s", lowest);
        if (missing > 1)
            rf_buf_printf(&text, " and %zu more", missing - 1);
    }
    out->reason = rf_arena_copy(&asking->arena, text.data ? (const char *)text.data : "",
                                text.size);
    rf_buf_release(&text);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const struct rf_el_mapper *const *)a)->name,
                  (*(const struct rf_el_mapper *const *)b)->name);
}

static enum rf_status tell_calls(struct asking *asking,
                                 enum rf_status (*call)(void *user,
                                                        const struct rf_item_call_answer *),
                                 void *user, struct rf_error *err)
{
    const struct rf_el_mapper **mappers = rf_arena_alloc(
        &asking->arena, (asking->lane->mapper_count + 1) * sizeof(const struct rf_el_mapper *));
    struct rf_el_content content = {.absent = true};
    const struct rf_json *hits = NULL;
    struct rf_buf body;
    size_t count = 0;
    enum rf_status status;

    rf_buf_init(&body, 4096);
    rf_buf_put_text(&body, "{\"size\":1,\"query\":{\"bool\":{\"filter\":[{\"term\":{\"kind\":"
                           "\"item\"}},{\"term\":{\"item\":");
    rf_elastic_put_words(&body, asking->key);
    rf_buf_put_text(&body, "}}]}}}");
    status = rf_elastic_search_own(asking->sink, rf_buf_text(&body), &hits, NULL, NULL, err);
    rf_buf_release(&body);
    if (!status && hits->count)
        status = rf_elastic_read_content(asking->sink, &asking->arena,
                                         rf_json_find(&hits->items[0], "_source"), &content, err);
    for (size_t i = 0; i < asking->lane->mapper_count; i++)
        if (!asking->lane->mappers[i].edges_only)
            mappers[count++] = &asking->lane->mappers[i];
    if (count)
        qsort(mappers, count, sizeof *mappers, by_name);
    for (size_t i = 0; !status && i < count; i++) {
        struct rf_item_call_answer answer = {.mapper = mappers[i]->name, .tables = ""};
        take_state(asking, rf_elastic_call(&content, mappers[i]->gen), &answer);
        status = count_rows(asking, mappers[i], &answer, err);
        if (!status)
            status = count_parts(asking, mappers[i], &answer, err);
        if (!status)
            status = call(user, &answer);
    }
    return status;
}

enum rf_status rf_elastic_query_item(const char *rest, const char *key,
                                     enum rf_status (*parent)(void *user,
                                                              const struct rf_item_parent_answer *),
                                     enum rf_status (*call)(void *user,
                                                            const struct rf_item_call_answer *),
                                     void *user, struct rf_error *err)
{
    struct asking asking = {.key = key};
    enum rf_status status = open_reader(&asking.sink, rest, err);

    if (status)
        return status;
    rf_arena_init(&asking.arena, ANSWER_ARENA);
    status = rf_elastic_lane(asking.sink, 0, &asking.lane, err);
    if (!status)
        status = tell_parents(&asking, parent, user, err);
    if (!status)
        status = tell_calls(&asking, call, user, err);
    rf_arena_release(&asking.arena);
    rf_elastic_close(&asking.sink->base);
    return status;
}
