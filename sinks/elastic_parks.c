/* elastic_parks.c - what waits, what was set aside, and how much there is of everything */
#include "sinks/sink_elastic.h"

#include <stdio.h>
#include <stdlib.h>

/* The blobref an item's key starts with. */
static enum rf_status ref_of(struct rf_blobref *out, const char *key, struct rf_error *err)
{
    return rf_blobref_parse(out, key, strcspn(key, ";"), err);
}

static enum rf_status ask(struct rf_elastic *sink, uint32_t id, struct rf_el_lane **lane,
                          struct rf_error *err)
{
    enum rf_status status = rf_elastic_ask(sink, err);

    return status ? status : rf_elastic_lane(sink, id, lane, err);
}

static const struct rf_el_call *call_of(const struct rf_el_content *content, int64_t gen)
{
    for (size_t i = 0; i < content->call_count; i++)
        if (content->calls[i].has.gen == gen)
            return &content->calls[i];
    return NULL;
}

/* What the index says of one item now. RF_NOT_FOUND: nothing. */
enum rf_status rf_elastic_read_one(struct rf_elastic *sink, struct rf_arena *arena,
                                   const char *key, struct rf_el_content *out,
                                   struct rf_error *err)
{
    struct rf_es_reply reply;
    const struct rf_json *docs, *source;
    struct rf_buf body;
    char id[RF_ITEM_KEY_SIZE + 4];
    enum rf_status status;

    snprintf(id, sizeof id, "i:%s", key);
    rf_buf_init(&body, 4096);
    rf_buf_put_text(&body, "{\"ids\":[");
    rf_json_put_string(&body, rf_bytes_text(id));
    rf_buf_put_text(&body, "]}");
    status = rf_es_call(sink->es, &reply, "POST", rf_buf_bytes(&body), err, "/%s/_mget",
                        sink->own);
    rf_buf_release(&body);
    if (status)
        return status;
    docs = rf_json_find(reply.json, "docs");
    if (reply.status >= 300 || !docs || !docs->count)
        return rf_es_unexpected(sink->es, &reply, "read an item", err);
    source = rf_json_find(&docs->items[0], "_source");
    if (!source)
        return RF_NOT_FOUND;
    status = rf_elastic_read_content(sink, arena, source, out, err);
    return !status && out->absent ? RF_NOT_FOUND : status;
}

/* ---- parks ---- */

static enum rf_status read_park(struct rf_elastic *sink, struct rf_arena *arena,
                                const struct rf_json *hit, const struct rf_el_mapper *of,
                                uint16_t mapper, enum rf_park_kind kind, struct rf_sink_park *out,
                                int64_t *at, bool *taken, struct rf_error *err)
{
    const struct rf_json *source = rf_json_find(hit, "_source");
    const char *key = rf_json_string(rf_json_find(source, "item"));
    const struct rf_el_call *call;
    struct rf_el_content content;
    enum rf_status status = rf_elastic_read_content(sink, arena, source, &content, err);

    *taken = false;
    if (status || !key)
        return status;
    (void)!rf_json_int(rf_json_find(source, "park_at"), at);
    call = call_of(&content, of->gen);
    if (!call || !rf_elastic_waits(call, kind))
        return RF_OK; /* it is no longer so, or not yet */
    *out = (struct rf_sink_park){.park = kind, .mapper = mapper,
                                 .attempts = call->again ? 0 : call->attempts,
                                 .kind = content.kind, .size = (uint64_t)content.size,
                                 .seq = content.seq, .timestamp_us = content.ts};
    snprintf(out->key, sizeof out->key, "%s", key);
    *taken = true;
    return ref_of(&out->ref, out->key, err);
}

enum rf_status rf_elastic_parks(struct rf_sink *base, uint32_t id, uint16_t mapper,
                                enum rf_park_kind kind, int64_t *after, struct rf_sink_park *out,
                                size_t max, size_t *count, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    const struct rf_json *hits = NULL;
    struct rf_el_lane *lane = NULL;
    struct rf_arena arena;
    int64_t last = *after;
    char body[320];
    size_t used = 0;
    enum rf_status status = ask(sink, id, &lane, err);

    rf_arena_init(&arena, RF_ES_ANSWER_MAX);
    for (bool more = !status; more && !status && !used;) {
        size_t page = max < RF_ELASTIC_PAGE ? max : RF_ELASTIC_PAGE;
        snprintf(body, sizeof body,
                 "{\"size\":%zu,\"query\":{\"bool\":{\"filter\":[{\"term\":{\"park\":\"%lld:%s\"}},"
                 "{\"range\":{\"park_at\":{\"gt\":%lld}}}]}},\"sort\":[\"park_at\"]}",
                 page, (long long)lane->mappers[mapper].gen, rf_elastic_park_names[kind],
                 (long long)last);
        status = rf_elastic_search_own(sink, body, &hits, NULL, NULL, err);
        more = !status && hits->count == page;
        for (size_t i = 0; !status && i < hits->count; i++) {
            bool taken;
            status = read_park(sink, &arena, &hits->items[i], &lane->mappers[mapper], mapper, kind,
                               &out[used], &last, &taken, err);
            used += !status && taken;
        }
    }
    rf_arena_release(&arena);
    if (status)
        return status;
    *count = used;
    *after = last;
    return RF_OK;
}

/* How many documents name a generation: the buckets of one field. */
static uint64_t bucket(const struct rf_json *aggregations, const char *name, const char *key)
{
    const struct rf_json *buckets = rf_json_find(rf_json_find(aggregations, name), "buckets");
    int64_t count = 0;

    for (size_t i = 0; buckets && i < buckets->count; i++) {
        const struct rf_json *found = rf_json_find(&buckets->items[i], "key");
        if (found && found->text.data && strcmp((const char *)found->text.data, key) == 0)
            (void)!rf_json_int(rf_json_find(&buckets->items[i], "doc_count"), &count);
    }
    return (uint64_t)count;
}

static enum rf_status aggregate(struct rf_elastic *sink, const struct rf_json **out,
                                uint64_t *items, struct rf_error *err)
{
    return rf_elastic_search_own(
        sink,
        "{\"size\":0,\"track_total_hits\":true,\"query\":{\"bool\":{\"filter\":[{\"term\":{"
        "\"kind\":\"item\"}},{\"term\":{\"deleted\":false}}]}},\"aggs\":{\"park\":{\"terms\":{"
        "\"field\":\"park\",\"size\":10000}},\"dead\":{\"terms\":{\"field\":\"dead\",\"size\":"
        "10000}}}}",
        NULL, items, out, err);
}

static uint64_t parked(const struct rf_json *aggregations, int64_t gen, enum rf_park_kind kind)
{
    char key[40];

    snprintf(key, sizeof key, "%lld:%s", (long long)gen, rf_elastic_park_names[kind]);
    return bucket(aggregations, "park", key);
}

enum rf_status rf_elastic_park_counts(struct rf_sink *base, uint32_t id, uint16_t mapper,
                                      uint64_t counts[RF_PARK_KIND_COUNT], struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    const struct rf_json *aggregations = NULL;
    struct rf_el_lane *lane = NULL;
    enum rf_status status = ask(sink, id, &lane, err);

    if (!status)
        status = aggregate(sink, &aggregations, NULL, err);
    for (int kind = 0; !status && kind < RF_PARK_KIND_COUNT; kind++)
        counts[kind] = parked(aggregations, lane->mappers[mapper].gen, (enum rf_park_kind)kind);
    return status;
}

enum rf_status rf_elastic_is_parked(struct rf_sink *base, uint32_t id, uint16_t mapper,
                                    const char *key, bool *out, uint32_t *attempts,
                                    struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_lane *lane = NULL;
    struct rf_el_content content;
    const struct rf_el_call *call;
    struct rf_arena arena;
    enum rf_status status = ask(sink, id, &lane, err);

    *out = false;
    rf_arena_init(&arena, RF_ES_ANSWER_MAX);
    if (!status)
        status = rf_elastic_read_one(sink, &arena, key, &content, err);
    call = status ? NULL : call_of(&content, lane->mappers[mapper].gen);
    if (call && (rf_elastic_waits(call, RF_PARK_SLOW) || rf_elastic_waits(call, RF_PARK_READY))) {
        *out = true;
        *attempts = call->again ? 0 : call->attempts;
    }
    rf_arena_release(&arena);
    return status == RF_NOT_FOUND ? RF_OK : status;
}

enum rf_status rf_elastic_park_needs(struct rf_sink *base, uint32_t id,
                                     const struct rf_sink_park *park, struct rf_arena *arena,
                                     struct rf_blobref **refs, size_t *count,
                                     struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_lane *lane = NULL;
    struct rf_el_content content = {0};
    const struct rf_el_call *call = NULL;
    struct rf_blobref *list;
    size_t used = 0;
    enum rf_status status = ask(sink, id, &lane, err);

    if (!status)
        status = rf_elastic_read_one(sink, arena, park->key, &content, err);
    if (!status)
        call = call_of(&content, lane->mappers[park->mapper].gen);
    list = rf_arena_alloc(arena, ((call ? call->need_count : 0) + 1) * sizeof *list);
    for (size_t i = 0; call && !status && i < call->need_count; i++)
        if (!call->needs[i].present)
            status = ref_of(&list[used++], call->needs[i].ref, err);
    if (status && status != RF_NOT_FOUND)
        return status;
    *refs = list;
    *count = used;
    return RF_OK;
}

/* ---- where a part comes from ---- */

/* Edges of the lane to a part, by pages of the best: a range before bytes that were made. */
static enum rf_status find_edge(struct rf_elastic *sink, const struct rf_el_lane *lane,
                                const char *key, bool named, const struct rf_json **source,
                                struct rf_error *err)
{
    const struct rf_json *hits = NULL;
    struct rf_buf body;
    enum rf_status status;

    rf_buf_init(&body, 1 << 16);
    rf_buf_put_text(&body, "{\"size\":1,\"query\":{\"bool\":{\"filter\":[{\"term\":{\"kind\":"
                           "\"edge\"}},{\"terms\":{\"gen\":");
    rf_elastic_put_gens(&body, lane);
    rf_buf_put_text(&body, "}},{\"term\":{\"child\":");
    rf_json_put_string(&body, rf_bytes_text(key));
    rf_buf_printf(&body, "}}]}},\"sort\":[%s\"item\",\"n\"]}",
                  named ? "" : "{\"offset\":{\"order\":\"asc\",\"missing\":\"_last\"}},");
    status = rf_elastic_search_own(sink, rf_buf_text(&body), &hits, NULL, NULL, err);
    rf_buf_release(&body);
    *source = !status && hits->count ? rf_json_find(&hits->items[0], "_source") : NULL;
    return status;
}

enum rf_status rf_elastic_origin_of(struct rf_sink *base, uint32_t id, const char *key,
                                    struct rf_sink_origin *out, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_sink_origin origin = {0};
    const struct rf_json *source = NULL;
    struct rf_el_content parent;
    struct rf_el_lane *lane = NULL;
    struct rf_arena arena;
    const char *above;
    int64_t offset = 0, size = 0, gen = 0;
    enum rf_status status;

    if (!strchr(key, ';')) { /* a blob or file is got by its own ref */
        *out = origin;
        return RF_OK;
    }
    status = ask(sink, id, &lane, err);
    if (!status)
        status = find_edge(sink, lane, key, false, &source, err);
    if (status)
        return status;
    if (!source)
        return rf_error_set(err, RF_NOT_FOUND, "no item of index '%s' holds part '%s' any more",
                            rf_es_name(sink->es), key);
    above = rf_json_string(rf_json_find(source, "item"));
    origin.inlined = !rf_json_int(rf_json_find(source, "offset"), &offset);
    (void)!rf_json_int(rf_json_find(source, "size"), &size);
    (void)!rf_json_int(rf_json_find(source, "gen"), &gen);
    snprintf(origin.parent_key, sizeof origin.parent_key, "%s", above ? above : "");
    origin.offset = (uint64_t)offset;
    origin.size = (uint64_t)size;
    for (size_t i = 0; i < lane->mapper_count; i++)
        if (lane->mappers[i].gen == gen)
            origin.mapper = (uint16_t)i;
    rf_arena_init(&arena, RF_ES_ANSWER_MAX);
    status = rf_elastic_read_one(sink, &arena, origin.parent_key, &parent, err);
    if (status == RF_NOT_FOUND)
        status = rf_error_set(err, RF_CORRUPT, "index '%s' has an edge of an item that is not "
                                               "there", rf_es_name(sink->es));
    if (!status)
        origin.parent_kind = parent.kind;
    rf_arena_release(&arena);
    if (!status)
        status = ref_of(&origin.parent_ref, origin.parent_key, err);
    if (!status)
        *out = origin;
    return status;
}

enum rf_status rf_elastic_mapper_splits(struct rf_sink *base, uint32_t id, const char *name,
                                        bool *out, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_lane *lane = NULL;
    uint64_t total = 0;
    int64_t gen = -1;
    char body[200];
    enum rf_status status = ask(sink, id, &lane, err);

    for (size_t i = 0; !status && i < lane->mapper_count; i++)
        if (strcmp(lane->mappers[i].name, name) == 0)
            gen = lane->mappers[i].gen;
    snprintf(body, sizeof body,
             "{\"size\":0,\"terminate_after\":1,\"query\":{\"bool\":{\"filter\":[{\"term\":{"
             "\"kind\":\"edge\"}},{\"term\":{\"gen\":%lld}}]}}}",
             (long long)gen);
    if (!status)
        status = rf_elastic_search_own(sink, body, NULL, &total, NULL, err);
    if (!status)
        *out = total > 0;
    return status;
}

/* ---- dead letters ---- */

/* A part without a name of its own is known by the name its parent gave it, else by its place
 * there: "line 7 of x", "part 7 of x". */
static enum rf_status name_of(struct rf_elastic *sink, struct rf_arena *arena,
                              const struct rf_el_lane *lane, const char *key, const char **out,
                              struct rf_error *err)
{
    const struct rf_json *source = NULL;
    const char *name, *above;
    char words[8300], place[32];
    int64_t n = 0;
    struct rf_el_content parent = {0};
    enum rf_status status = find_edge(sink, lane, key, true, &source, err);

    name = source ? rf_json_string(rf_json_find(source, "name")) : NULL;
    above = source ? rf_json_string(rf_json_find(source, "item")) : NULL;
    if (status || !above)
        return status;
    (void)!rf_json_int(rf_json_find(source, "n"), &n);
    snprintf(place, sizeof place, "part %lld", (long long)n + 1);
    name = name ? rf_arena_copy(arena, name, strlen(name)) : place;
    above = rf_arena_copy(arena, above, strlen(above));
    status = rf_elastic_read_one(sink, arena, above, &parent, err);
    snprintf(words, sizeof words, "%.4096s of %.4096s", name,
             !status && parent.name ? parent.name : above);
    *out = rf_arena_copy(arena, words, strlen(words));
    return status == RF_NOT_FOUND ? RF_OK : status;
}

static int by_mapper(const void *a, const void *b)
{
    return strcmp(((const struct rf_dead_letter *)a)->mapper,
                  ((const struct rf_dead_letter *)b)->mapper);
}

/* The letters of one item, in order of their mappers. */
static size_t list_letters(const struct rf_elastic *sink, const struct rf_el_lane *lane,
                           const char *key, const struct rf_el_content *content,
                           struct rf_dead_letter *out)
{
    size_t count = 0;

    (void)sink;
    for (size_t i = 0; i < lane->mapper_count; i++) {
        const struct rf_el_call *call = call_of(content, lane->mappers[i].gen);
        if (!call || call->outcome != RF_EL_DEAD)
            continue;
        out[count++] = (struct rf_dead_letter){
            .key = key, .mapper = lane->mappers[i].name,
            .reason = call->reason ? call->reason : "",
            .dead_class = rf_elastic_dead_names[call->kind] ? rf_elastic_dead_names[call->kind]
                                                            : "",
            .name = content->name, .seq = content->seq, .attempts = call->attempts,
            .at_us = call->at};
    }
    if (count)
        qsort(out, count, sizeof *out, by_mapper);
    return count;
}

struct letter_page { /* copied out of an answer */
    char key[RF_ITEM_KEY_SIZE];
    struct rf_el_content content;
};

static enum rf_status read_letters(struct rf_elastic *sink, struct rf_arena *arena,
                                   const struct rf_el_lane *lane, const char *after,
                                   struct letter_page *page, size_t *count, struct rf_error *err)
{
    const struct rf_json *hits = NULL;
    struct rf_buf body;
    enum rf_status status;

    rf_buf_init(&body, 1 << 16);
    rf_buf_printf(&body, "{\"size\":%d,\"query\":{\"bool\":{\"filter\":[{\"terms\":{\"dead\":",
                  RF_ELASTIC_PAGE);
    rf_elastic_put_gens(&body, lane);
    rf_buf_put_text(&body, "}}]}},\"sort\":[\"item\"]");
    if (after[0]) {
        rf_buf_put_text(&body, ",\"search_after\":[");
        rf_json_put_string(&body, rf_bytes_text(after));
        rf_buf_put_u8(&body, ']');
    }
    rf_buf_put_u8(&body, '}');
    status = rf_elastic_search_own(sink, rf_buf_text(&body), &hits, NULL, NULL, err);
    rf_buf_release(&body);
    *count = 0;
    for (size_t i = 0; !status && i < hits->count; i++) {
        const struct rf_json *source = rf_json_find(&hits->items[i], "_source");
        const char *key = rf_json_string(rf_json_find(source, "item"));
        snprintf(page[*count].key, sizeof page[*count].key, "%s", key ? key : "");
        status = rf_elastic_read_content(sink, arena, source, &page[(*count)++].content, err);
    }
    return status;
}

enum rf_status rf_elastic_dead_letters(struct rf_sink *base,
                                       enum rf_status (*visit)(void *user,
                                                               const struct rf_dead_letter *),
                                       void *user, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct letter_page *page = calloc(RF_ELASTIC_PAGE, sizeof *page);
    char after[RF_ITEM_KEY_SIZE] = "";
    struct rf_el_lane *lane = NULL;
    struct rf_dead_letter *letters = NULL;
    struct rf_arena arena;
    size_t count = RF_ELASTIC_PAGE;
    enum rf_status status = rf_elastic_ask(sink, err);

    if (!page)
        abort();
    rf_arena_init(&arena, 4 * RF_ES_ANSWER_MAX);
    if (!status && rf_elastic_lane(sink, 0, &lane, NULL) != RF_OK)
        count = 0; /* an index that was never run */
    while (!status && count == RF_ELASTIC_PAGE) {
        rf_arena_clear(&arena);
        letters = rf_arena_alloc(&arena, (lane->mapper_count + 1) * sizeof *letters);
        status = read_letters(sink, &arena, lane, after, page, &count, err);
        if (!status && count)
            snprintf(after, sizeof after, "%s", page[count - 1].key);
        for (size_t i = 0; !status && i < count; i++) {
            size_t found = list_letters(sink, lane, page[i].key, &page[i].content, letters);
            const char *name = page[i].content.name;
            if (found && !name && strchr(page[i].key, ';'))
                status = name_of(sink, &arena, lane, page[i].key, &name, err);
            for (size_t k = 0; !status && k < found; k++) {
                letters[k].name = name;
                status = visit(user, &letters[k]);
            }
        }
    }
    rf_arena_release(&arena);
    free(page);
    return status;
}

/* ---- retry ---- */

static uint64_t retry_item(struct rf_elastic *sink, const struct rf_el_lane *lane,
                           const char *mapper, struct rf_el_item *item)
{
    uint64_t count = 0;

    for (size_t i = 0; i < lane->mapper_count; i++) {
        const struct rf_el_call *call = call_of(&item->cur, lane->mappers[i].gen);
        if (!call || call->outcome != RF_EL_DEAD ||
            (mapper && strcmp(mapper, lane->mappers[i].name) != 0))
            continue;
        rf_elastic_retry_call(sink, item, lane->mappers[i].gen);
        count++;
    }
    return count;
}

static enum rf_status retry_page(struct rf_elastic *sink, const struct rf_el_lane *lane,
                                 const char *mapper, const char *key, char after[RF_ITEM_KEY_SIZE],
                                 bool *more, uint64_t *count, struct rf_error *err)
{
    struct rf_el_item *items[RF_ELASTIC_PAGE];
    const struct rf_json *hits = NULL;
    struct rf_buf body;
    size_t used = 0;
    enum rf_status status = rf_elastic_refresh(sink, false, err);

    rf_buf_init(&body, 1 << 16);
    rf_buf_printf(&body, "{\"size\":%d,\"query\":{\"bool\":{\"filter\":[{\"terms\":{\"dead\":",
                  RF_ELASTIC_PAGE);
    rf_elastic_put_gens(&body, lane);
    rf_buf_put_text(&body, "}}");
    if (key) {
        rf_buf_put_text(&body, ",{\"term\":{\"item\":");
        rf_json_put_string(&body, rf_bytes_text(key));
        rf_buf_put_text(&body, "}}");
    }
    rf_buf_put_text(&body, "]}},\"sort\":[\"item\"]");
    if (after[0]) {
        rf_buf_put_text(&body, ",\"search_after\":[");
        rf_json_put_string(&body, rf_bytes_text(after));
        rf_buf_put_u8(&body, ']');
    }
    rf_buf_put_u8(&body, '}');
    if (!status)
        status = rf_elastic_search_own(sink, rf_buf_text(&body), &hits, NULL, NULL, err);
    rf_buf_release(&body);
    *more = !status && hits->count == RF_ELASTIC_PAGE;
    for (size_t i = 0; !status && i < hits->count; i++) {
        status = rf_elastic_take_hit(sink, &hits->items[i], &items[used], err);
        used += !status;
    }
    if (!status && used)
        snprintf(after, RF_ITEM_KEY_SIZE, "%s", items[used - 1]->key);
    for (size_t i = 0; !status && i < used; i++)
        *count += retry_item(sink, lane, mapper, items[i]);
    if (!status)
        status = rf_elastic_group_flush(sink, err);
    rf_elastic_cache_clear(sink);
    return status;
}

enum rf_status rf_elastic_retry(struct rf_sink *base, const char *mapper, const char *key,
                                uint64_t *count, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_lane *lane = NULL;
    char after[RF_ITEM_KEY_SIZE] = "";
    uint64_t found = 0;
    bool more = true;
    enum rf_status status = rf_elastic_ready(sink, err);

    if (!status && sink->recover)
        status = rf_elastic_recover(sink, err);
    if (!status && rf_elastic_lane(sink, 0, &lane, NULL) != RF_OK)
        more = false;
    if (!status && more)
        status = rf_elastic_work_begin(sink, lane, err);
    if (status || !more)
        return status;
    while (!status && more)
        status = retry_page(sink, lane, mapper, key, after, &more, &found, err);
    status = rf_elastic_work_end(sink, status, err);
    if (!status && count)
        *count = found;
    return status;
}

/* ---- counts ---- */

static enum rf_status count_table(struct rf_elastic *sink, const char *index, uint64_t *out,
                                  struct rf_error *err)
{
    static const char body[] = "{\"size\":0,\"track_total_hits\":true}";
    struct rf_es_reply reply;
    int64_t count = 0;
    enum rf_status status =
        rf_es_call(sink->es, &reply, "POST", rf_bytes_text(body), err, "/%s/_search", index);

    if (status)
        return status;
    if (!rf_json_int(rf_json_find(rf_json_find(rf_json_find(reply.json, "hits"), "total"),
                                  "value"), &count))
        return rf_es_unexpected(sink->es, &reply, "count rows", err);
    *out += (uint64_t)count;
    return RF_OK;
}

static enum rf_status count_cuts(struct rf_elastic *sink, const struct rf_el_lane *lane,
                                 uint64_t *out, struct rf_error *err)
{
    char after[RF_ITEM_KEY_SIZE] = "";
    struct rf_arena arena;
    bool more = true;
    enum rf_status status = RF_OK;

    rf_arena_init(&arena, 4 * RF_ES_ANSWER_MAX);
    while (!status && more) {
        const struct rf_json *hits = NULL;
        struct rf_buf body;
        rf_arena_clear(&arena);
        rf_buf_init(&body, 1 << 16);
        rf_buf_printf(&body, "{\"size\":%d,\"query\":{\"bool\":{\"filter\":[{\"terms\":{\"cut\":",
                      RF_ELASTIC_PAGE / 10);
        rf_elastic_put_gens(&body, lane);
        rf_buf_put_text(&body, "}}]}},\"sort\":[\"item\"]");
        if (after[0]) {
            rf_buf_put_text(&body, ",\"search_after\":[");
            rf_json_put_string(&body, rf_bytes_text(after));
            rf_buf_put_u8(&body, ']');
        }
        rf_buf_put_u8(&body, '}');
        status = rf_elastic_search_own(sink, rf_buf_text(&body), &hits, NULL, NULL, err);
        rf_buf_release(&body);
        more = !status && hits->count == RF_ELASTIC_PAGE / 10;
        for (size_t i = 0; !status && i < hits->count; i++) {
            const struct rf_json *source = rf_json_find(&hits->items[i], "_source");
            const char *key = rf_json_string(rf_json_find(source, "item"));
            struct rf_el_content content = {0};
            snprintf(after, sizeof after, "%s", key ? key : "");
            status = rf_elastic_read_content(sink, &arena, source, &content, err);
            for (size_t k = 0; !status && k < lane->mapper_count; k++) {
                const struct rf_el_call *call = call_of(&content, lane->mappers[k].gen);
                *out += call ? call->cut_count : 0;
            }
        }
    }
    rf_arena_release(&arena);
    return status;
}

static enum rf_status count_edges(struct rf_elastic *sink, const struct rf_el_lane *lane,
                                  uint64_t *out, struct rf_error *err)
{
    struct rf_buf body;
    enum rf_status status;

    rf_buf_init(&body, 1 << 16);
    rf_buf_put_text(&body, "{\"size\":0,\"track_total_hits\":true,\"query\":{\"bool\":{\"filter\":["
                           "{\"term\":{\"kind\":\"edge\"}},{\"terms\":{\"gen\":");
    rf_elastic_put_gens(&body, lane);
    rf_buf_put_text(&body, "}}]}}}");
    status = rf_elastic_search_own(sink, rf_buf_text(&body), NULL, out, NULL, err);
    rf_buf_release(&body);
    return status;
}

enum rf_status rf_elastic_counts(struct rf_sink *base, uint32_t id, struct rf_sink_counts *out,
                                 struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    const struct rf_json *aggregations = NULL;
    struct rf_sink_counts counts = {0};
    struct rf_el_lane *lane = NULL;
    enum rf_status status = ask(sink, id, &lane, err);

    if (!status && base->write)
        status = rf_elastic_refresh(sink, true, err);
    if (!status)
        status = aggregate(sink, &aggregations, &counts.items, err);
    for (size_t i = 0; !status && i < lane->mapper_count; i++) {
        int64_t gen = lane->mappers[i].gen;
        char key[32];
        snprintf(key, sizeof key, "%lld", (long long)gen);
        counts.dead_letters += bucket(aggregations, "dead", key);
        counts.parked_slow += parked(aggregations, gen, RF_PARK_SLOW);
        counts.parked_need += parked(aggregations, gen, RF_PARK_NEED);
        counts.parked_ready += parked(aggregations, gen, RF_PARK_READY);
    }
    if (!status)
        status = count_edges(sink, lane, &counts.parts, err);
    if (!status)
        status = count_cuts(sink, lane, &counts.cuts, err);
    for (size_t i = 0; !status && i < lane->mapper_count; i++)
        for (size_t k = 0; !status && !lane->mappers[i].edges_only &&
                           k < lane->mappers[i].decl->table_count;
             k++)
            status = count_table(sink, lane->mappers[i].tables[k].index, &counts.rows, err);
    for (size_t i = 0; !status && i < lane->lost_count; i++)
        counts.lost += lane->lost[i].last - lane->lost[i].first + 1;
    if (!status)
        *out = counts;
    return status;
}
