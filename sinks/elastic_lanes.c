/*
 * elastic_lanes.c - generations of mappers side by side
 *
 *   (none) --begin--> live                                 the first lane of an index
 *   (none) --begin--> building --ready, swap--> gone       its mappers belong to the live lane now
 *                     building --drop--> gone
 *
 * A mapper in a lane is a generation, with indexes of its own and a number that is never used
 * again. A swap gives the live lane the generations of the other one: one change of the state
 * document, so it is done or not. Aliases follow by one request, in which all change at once; until
 * it was made the state says so, and opening makes it again. What left is listed as doomed in the
 * same change: its edges are loosened, its indexes deleted, and only then is it off the list. What
 * manifests say of a generation that is in no lane counts for nothing, and goes when they are next
 * written.
 */
#include "sinks/sink_elastic.h"

#include "core/control.h"
#include "sinks/table_names.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static char *keep(struct rf_arena *arena, const char *text)
{
    size_t size = strlen(text) + 1;

    return memcpy(rf_arena_alloc(arena, size), text, size);
}

/* ---- texts of mappers ---- */

static void put_hex(struct rf_buf *out, struct rf_bytes bytes)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < bytes.size; i++) {
        rf_buf_put_u8(out, (uint8_t)digits[bytes.data[i] >> 4]);
        rf_buf_put_u8(out, (uint8_t)digits[bytes.data[i] & 15]);
    }
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_hex(struct rf_arena *arena, const char *text, struct rf_bytes *out)
{
    size_t size = strlen(text) / 2;
    uint8_t *bytes = rf_arena_try(arena, size + 1);

    for (size_t i = 0; bytes && i < size; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    *out = rf_bytes(bytes, size);
    return bytes != NULL;
}

static enum rf_status text_refused(void *user, const struct rf_es_failure *failure,
                                   struct rf_error *err)
{
    const struct rf_elastic *sink = user;

    return rf_error_set(err, RF_IO, "cannot keep the texts of a mapper in index '%s': %ld %.300s",
                        rf_es_name(sink->es), failure->status, failure->reason);
}

static enum rf_status write_texts(struct rf_elastic *sink, const struct rf_sink_mapper *mappers,
                                  size_t count, struct rf_error *err)
{
    struct rf_buf act, doc;
    enum rf_status status = rf_es_bulk_begin(sink->es, text_refused, sink, err);

    rf_buf_init(&act, 4096);
    rf_buf_init(&doc, RF_ES_DOCUMENT_MAX);
    for (size_t i = 0; !status && i < count; i++) {
        rf_buf_clear(&act);
        rf_buf_clear(&doc);
        rf_buf_printf(&act, "{\"index\":{\"_index\":\"%s\",\"_id\":\"mapper:%s\"}}", sink->own,
                      mappers[i].identity);
        rf_buf_put_text(&doc, "{\"kind\":\"mapper\",\"body\":{\"declaration\":");
        rf_json_put_string(&doc, mappers[i].decl->json);
        rf_buf_put_text(&doc, ",\"bundle\":\"");
        put_hex(&doc, mappers[i].bundle);
        rf_buf_put_text(&doc, "\"}}");
        if (doc.failed) {
            status = rf_error_set(err, doc.failed, "the texts of mapper '%s' are too long",
                                  mappers[i].decl->name);
            rf_es_bulk_abort(sink->es);
        } else {
            status = rf_es_bulk_add(sink->es, 0, rf_buf_bytes(&act), rf_buf_bytes(&doc), err);
        }
    }
    if (!status)
        status = rf_es_bulk_end(sink->es, err);
    rf_buf_release(&act);
    rf_buf_release(&doc);
    return status;
}

/* ---- the list ---- */

static enum rf_status list_mapper(struct rf_elastic *sink, struct rf_arena *arena,
                                  const struct rf_el_mapper *mapper, struct rf_sink_mapper *out,
                                  struct rf_error *err)
{
    struct rf_es_reply reply;
    const struct rf_json *docs, *body;
    struct rf_decl *decl = NULL;
    const char *bundle, *declaration;
    char question[160], what[RF_NAME_MAX + 40];
    enum rf_status status;

    snprintf(question, sizeof question, "{\"ids\":[\"mapper:%s\"]}", mapper->identity);
    status = rf_es_call(sink->es, &reply, "POST", rf_bytes_text(question), err, "/%s/_mget",
                        sink->own);
    if (status)
        return status;
    docs = rf_json_find(reply.json, "docs");
    body = docs && docs->count ? rf_json_find(rf_json_find(&docs->items[0], "_source"), "body")
                               : NULL;
    bundle = rf_json_string(rf_json_find(body, "bundle"));
    declaration = rf_json_string(rf_json_find(body, "declaration"));
    if (reply.status >= 300)
        return rf_es_unexpected(sink->es, &reply, "read a mapper", err);
    if (!bundle || !declaration || !read_hex(arena, bundle, &out->bundle)) {
        snprintf(what, sizeof what, "the texts of mapper '%s' are gone", mapper->name);
        return rf_elastic_damaged(sink, what, err);
    }
    status = rf_decl_parse(&decl, arena,
                           rf_bytes(keep(arena, declaration), strlen(declaration)), err);
    out->identity = keep(arena, mapper->identity);
    out->edges_only = mapper->edges_only;
    out->decl = decl;
    return status;
}

static enum rf_status list_lane(struct rf_elastic *sink, struct rf_arena *arena,
                                const struct rf_el_lane *lane, struct rf_sink_lane *out,
                                struct rf_error *err)
{
    struct rf_sink_mapper *mappers =
        rf_arena_alloc(arena, (lane->mapper_count + 1) * sizeof *mappers);
    enum rf_status status = RF_OK;

    *out = (struct rf_sink_lane){.id = lane->id, .live = lane->state == RF_EL_LIVE,
                                 .full = lane->full, .mappers = mappers,
                                 .mapper_count = lane->mapper_count,
                                 .started_us = lane->started};
    snprintf(out->position, sizeof out->position, "%s", lane->position);
    for (size_t i = 0; !status && i < lane->mapper_count; i++)
        status = list_mapper(sink, arena, &lane->mappers[i], &mappers[i], err);
    return status;
}

enum rf_status rf_elastic_lanes(struct rf_sink *base, struct rf_arena *arena,
                                struct rf_sink_lane **lanes, size_t *count, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_sink_lane *list = rf_arena_alloc(arena, (RF_EL_LANES_MAX + 1) * sizeof *list);
    size_t used = 0;
    enum rf_status status = rf_elastic_ready(sink, err);

    for (int live = 1; live >= 0; live--) {
        for (size_t i = 0; !status && i < sink->state.lane_count; i++) {
            const struct rf_el_lane *lane = sink->state.lanes[i];
            if ((lane->state == RF_EL_LIVE) != (live == 1) || lane->state == RF_EL_DROPPING)
                continue;
            status = list_lane(sink, arena, lane, &list[used++], err);
        }
    }
    if (!status) {
        *lanes = list;
        *count = used;
    }
    return status;
}

/* ---- begin ---- */

static bool names_mapper(const struct rf_sink_mapper *mappers, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!mappers[i].edges_only && strcmp(mappers[i].decl->name, name) == 0)
            return true;
    return false;
}

static enum rf_status check_names(const struct rf_el_lane *live,
                                  const struct rf_sink_mapper *mappers, size_t count, bool full,
                                  struct rf_error *err)
{
    size_t others = live && !full ? live->mapper_count : 0, used = 0;
    const struct rf_decl **decls = calloc(count + others + 1, sizeof(const struct rf_decl *));
    enum rf_status status;

    if (!decls)
        abort();
    for (size_t i = 0; i < count; i++)
        if (!mappers[i].edges_only)
            decls[used++] = mappers[i].decl;
    for (size_t i = 0; i < others; i++)
        if (!names_mapper(mappers, count, live->mappers[i].name))
            decls[used++] = live->mappers[i].decl;
    status = rf_table_names_check(decls, used, err);
    for (size_t i = 0; !status && i < count; i++)
        for (size_t k = 0; k < mappers[i].decl->table_count; k++)
            for (size_t c = 0; c < mappers[i].decl->tables[k].column_count; c++)
                if (strcmp(mappers[i].decl->tables[k].columns[c].name, "refuge") == 0)
                    status = rf_error_set(err, RF_INVALID,
                                          "table '%s' of mapper '%s' has a column 'refuge', where "
                                          "refuge keeps its own fields: rename it",
                                          mappers[i].decl->tables[k].name, mappers[i].decl->name);
    free(decls);
    return status;
}

/* The lane's mappers with their tables, in the arena of the state. */
static enum rf_status describe_mappers(struct rf_elastic *sink, struct rf_el_lane *lane,
                                       const struct rf_sink_mapper *mappers, size_t count,
                                       struct rf_error *err)
{
    struct rf_el_state *state = &sink->state;
    enum rf_status status = RF_OK;

    lane->mappers = rf_arena_alloc(&state->arena, (count + 1) * sizeof *lane->mappers);
    lane->mapper_count = count;
    for (size_t i = 0; !status && i < count; i++) {
        lane->mappers[i] = (struct rf_el_mapper){
            .gen = state->next_gen++,
            .identity = keep(&state->arena, mappers[i].identity),
            .edges_only = mappers[i].edges_only};
        status = rf_elastic_keep_decl(sink, &lane->mappers[i], mappers[i].decl->json, err);
    }
    return status;
}

static enum rf_status make_tables(struct rf_elastic *sink, const struct rf_el_lane *lane,
                                  struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < lane->mapper_count; i++) {
        const struct rf_el_mapper *mapper = &lane->mappers[i];
        for (size_t k = 0; !status && !mapper->edges_only && k < mapper->decl->table_count; k++) {
            status = rf_elastic_check_alias(sink, mapper->tables[k].decl, err);
            if (!status)
                status = rf_elastic_make_table(sink, &mapper->tables[k], err);
        }
    }
    return status;
}

enum rf_status rf_elastic_lane_begin(struct rf_sink *base, const struct rf_sink_mapper *mappers,
                                     size_t count, bool full, uint32_t *out,
                                     struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_state *state = &sink->state;
    struct rf_el_lane *live = NULL, *lane;
    enum rf_status status = rf_elastic_ready(sink, err);

    if (!status && rf_elastic_lane(sink, 0, &live, NULL) != RF_OK)
        live = NULL;
    if (!status)
        status = check_names(live, mappers, count, full, err);
    if (!status && state->lane_count == RF_EL_LANES_MAX)
        status = rf_error_set(err, RF_LIMIT, "index '%s' has too many lanes",
                              rf_es_name(sink->es));
    if (status)
        return status;
    lane = rf_arena_alloc(&state->arena, sizeof *lane);
    lane->id = state->next_lane++;
    lane->state = live ? RF_EL_BUILDING : RF_EL_LIVE;
    lane->full = full;
    lane->started = rf_elastic_now();
    status = describe_mappers(sink, lane, mappers, count, err);
    if (!status)
        status = write_texts(sink, mappers, count, err);
    if (!status)
        status = make_tables(sink, lane, err);
    if (!status) {
        state->lanes[state->lane_count++] = lane;
        state->aliases |= !live;
        status = rf_elastic_save(sink, err);
    }
    if (status) {
        state->known = false; /* numbers that were taken are given back */
        return status;
    }
    if (!live) {
        status = rf_elastic_set_aliases(sink, err);
        state->aliases = status != RF_OK;
    }
    if (!status)
        *out = lane->id;
    return status;
}

/* ---- ready ---- */

static enum rf_status set_replicas(struct rf_elastic *sink, const char *index,
                                   struct rf_error *err)
{
    struct rf_es_reply reply;
    char body[64];
    enum rf_status status;

    snprintf(body, sizeof body, "{\"index\":{\"number_of_replicas\":%u}}",
             rf_es_replicas(sink->es));
    status = rf_es_call(sink->es, &reply, "PUT", rf_bytes_text(body), err, "/%s/_settings", index);
    return status || reply.status < 300 ? status
                                        : rf_es_unexpected(sink->es, &reply,
                                                           "set replicas", err);
}

enum rf_status rf_elastic_lane_ready(struct rf_sink *base, uint32_t id, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_lane *lane = NULL;
    enum rf_status status = rf_elastic_ready(sink, err);

    if (!status)
        status = rf_elastic_lane(sink, id, &lane, err);
    if (!status)
        status = rf_elastic_refresh(sink, true, err);
    if (status || lane->ready)
        return status;
    for (size_t i = 0; !status && rf_es_replicas(sink->es) && i < lane->mapper_count; i++) {
        const struct rf_el_mapper *mapper = &lane->mappers[i];
        for (size_t k = 0; !status && !mapper->edges_only && k < mapper->decl->table_count; k++)
            status = set_replicas(sink, mapper->tables[k].index, err);
    }
    if (status)
        return status;
    lane->ready = true;
    return rf_elastic_save(sink, err);
}

/* ---- what left ---- */

static void add_doomed(struct rf_elastic *sink, const struct rf_el_mapper *mapper)
{
    struct rf_el_state *state = &sink->state;
    struct rf_el_doomed *wider =
        rf_arena_alloc(&state->arena, (state->doomed_count + 1) * sizeof *wider), *doomed;

    if (state->doomed_count)
        memcpy(wider, state->doomed, state->doomed_count * sizeof *wider);
    state->doomed = wider;
    doomed = &wider[state->doomed_count++];
    *doomed = (struct rf_el_doomed){.gen = mapper->gen};
    if (mapper->edges_only)
        return;
    doomed->tables = rf_arena_alloc(&state->arena,
                                    (mapper->decl->table_count + 1) * sizeof *doomed->tables);
    for (size_t i = 0; i < mapper->decl->table_count; i++)
        doomed->tables[doomed->table_count++] =
            keep(&state->arena, mapper->decl->tables[i].name);
}

/* Children of a page of edges of some generations are loosened; the edges go. */
static enum rf_status loosen_page(struct rf_elastic *sink, bool *more, struct rf_error *err)
{
    const char **children, **ids;
    const struct rf_json *hits = NULL;
    struct rf_arena arena;
    struct rf_buf body;
    size_t count = 0;
    enum rf_status status = rf_elastic_refresh(sink, false, err);

    rf_arena_init(&arena, 16 << 20);
    rf_buf_init(&body, 1 << 20);
    rf_buf_printf(&body, "{\"size\":%d,\"_source\":[\"child\"],\"query\":{\"bool\":{\"filter\":["
                         "{\"term\":{\"kind\":\"edge\"}},{\"terms\":{\"gen\":[",
                  RF_ELASTIC_PAGE);
    for (size_t i = 0; i < sink->state.doomed_count; i++)
        rf_buf_printf(&body, "%s%lld", i ? "," : "", (long long)sink->state.doomed[i].gen);
    rf_buf_put_text(&body, "]}}]}}}");
    if (!status)
        status = rf_elastic_search_own(sink, rf_buf_text(&body), &hits, NULL, NULL, err);
    *more = !status && hits->count;
    children = rf_arena_alloc(&arena, (hits ? hits->count + 1 : 1) * sizeof *children);
    ids = rf_arena_alloc(&arena, (hits ? hits->count + 1 : 1) * sizeof *ids);
    for (size_t i = 0; !status && i < hits->count; i++) {
        const char *child =
            rf_json_string(rf_json_find(rf_json_find(&hits->items[i], "_source"), "child"));
        const char *id = rf_json_string(rf_json_find(&hits->items[i], "_id"));
        if (!child || !id)
            continue;
        ids[count] = keep(&arena, id);
        children[count++] = keep(&arena, child);
    }
    if (!status)
        status = rf_elastic_look_up(sink, children, count, err);
    for (size_t i = 0; !status && i < count; i++) {
        status = rf_elastic_loosen(sink, rf_elastic_find(sink, children[i]), err);
        if (!status)
            status = rf_elastic_op(sink, RF_EL_NO_CALL, sink->own, ids[i], rf_bytes(NULL, 0), err);
    }
    if (!status)
        status = rf_elastic_group_flush(sink, err);
    rf_elastic_cache_clear(sink);
    rf_buf_release(&body);
    rf_arena_release(&arena);
    return status;
}

/* A full lane knows nothing of items whose latest change it could not read. */
static enum rf_status forget_lost(struct rf_elastic *sink, const struct rf_el_lane *live,
                                  struct rf_error *err)
{
    bool more = true;
    enum rf_status status = RF_OK;

    while (!status && more && live->lost_count && RF_SAFEGUARD("sink-forgets-lost")) {
        struct rf_el_item *items[RF_ELASTIC_PAGE];
        const struct rf_json *hits = NULL;
        struct rf_buf body;
        size_t count = 0;
        rf_buf_init(&body, 4 << 20);
        rf_buf_printf(&body, "{\"size\":%d,\"query\":{\"bool\":{\"filter\":[{\"term\":{\"kind\":"
                             "\"item\"}},{\"terms\":{\"type\":[\"blob\",\"file\"]}}],"
                             "\"minimum_should_match\":1,\"should\":[",
                      RF_ELASTIC_PAGE);
        for (size_t i = 0; i < live->lost_count; i++)
            rf_buf_printf(&body, "%s{\"range\":{\"seq\":{\"gte\":%llu,\"lte\":%llu}}}",
                          i ? "," : "", (unsigned long long)live->lost[i].first,
                          (unsigned long long)live->lost[i].last);
        rf_buf_put_text(&body, "]}}}");
        status = rf_elastic_refresh(sink, false, err);
        if (!status)
            status = rf_elastic_search_own(sink, rf_buf_text(&body), &hits, NULL, NULL, err);
        rf_buf_release(&body);
        more = !status && hits->count;
        for (size_t i = 0; !status && i < hits->count; i++) {
            status = rf_elastic_take_hit(sink, &hits->items[i], &items[count], err);
            count += !status;
        }
        for (size_t i = 0; !status && i < count; i++) {
            rf_elastic_touch(sink, items[i]);
            items[i]->gone = true;
        }
        if (!status)
            status = rf_elastic_group_flush(sink, err);
        rf_elastic_cache_clear(sink);
    }
    return status;
}

static enum rf_status drop_doomed(struct rf_elastic *sink, struct rf_error *err)
{
    struct rf_el_state *state = &sink->state;
    char index[RF_ELASTIC_NAME];
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < state->doomed_count; i++) {
        for (size_t k = 0; !status && k < state->doomed[i].table_count; k++) {
            rf_elastic_table_index(index, sink, state->doomed[i].tables[k], state->doomed[i].gen);
            status = rf_elastic_drop_index(sink, index, err);
        }
    }
    return status;
}

/* Texts of mappers that are in no lane any more. */
static enum rf_status forget_texts(struct rf_elastic *sink, struct rf_error *err)
{
    const struct rf_json *hits = NULL;
    char *unused[64];
    size_t count = 0;
    enum rf_status status = rf_elastic_refresh(sink, false, err);

    if (!status)
        status = rf_elastic_search_own(sink, "{\"size\":64,\"_source\":false,\"query\":{\"term\":"
                                             "{\"kind\":\"mapper\"}}}",
                                       &hits, NULL, NULL, err);
    for (size_t i = 0; !status && i < hits->count; i++) {
        const char *id = rf_json_string(rf_json_find(&hits->items[i], "_id"));
        bool used = false;
        for (size_t l = 0; id && l < sink->state.lane_count; l++)
            for (size_t k = 0; k < sink->state.lanes[l]->mapper_count; k++)
                used |= strcmp(id + strlen("mapper:"),
                               sink->state.lanes[l]->mappers[k].identity) == 0;
        if (id && !used)
            unused[count++] = strdup(id);
    }
    if (!status)
        status = rf_es_bulk_begin(sink->es, text_refused, sink, err);
    for (size_t i = 0; !status && i < count; i++) {
        rf_buf_clear(&sink->act);
        rf_buf_printf(&sink->act, "{\"delete\":{\"_index\":\"%s\",\"_id\":\"%s\"}}", sink->own,
                      unused[i]);
        status = rf_es_bulk_add(sink->es, 0, rf_buf_bytes(&sink->act), rf_bytes(NULL, 0), err);
    }
    if (!status)
        status = rf_es_bulk_end(sink->es, err);
    for (size_t i = 0; i < count; i++)
        free(unused[i]);
    sink->own_stale = true;
    return status;
}

enum rf_status rf_elastic_finish_lanes(struct rf_elastic *sink, struct rf_error *err)
{
    struct rf_el_state *state = &sink->state;
    struct rf_el_lane *live = NULL;
    bool more = true;
    enum rf_status status = RF_OK;

    if (state->aliases) {
        status = rf_elastic_set_aliases(sink, err);
        state->aliases = status != RF_OK;
    }
    if (status || !state->doomed_count)
        return status;
    status = rf_elastic_lane(sink, 0, &live, err);
    if (!status)
        status = rf_elastic_work_begin(sink, live, err);
    if (status)
        return status;
    while (!status && more)
        status = loosen_page(sink, &more, err);
    if (!status)
        status = forget_lost(sink, live, err);
    if (!status)
        status = rf_elastic_collect(sink, err);
    if (!status)
        status = drop_doomed(sink, err);
    if (!status)
        status = forget_texts(sink, err);
    if (!status)
        state->doomed_count = 0;
    return rf_elastic_work_end(sink, status, err);
}

/* ---- swap ---- */

struct swap {
    struct rf_el_lane *live, *lane;
    const char *const *removed;
    size_t removed_count;
};

/* Whether the live lane's mapper makes way. */
static bool is_replaced(const struct swap *swap, const struct rf_el_mapper *mapper)
{
    if (swap->lane->full)
        return true;
    for (size_t i = 0; i < swap->removed_count; i++)
        if (strcmp(swap->removed[i], mapper->name) == 0)
            return true;
    for (size_t i = 0; i < swap->lane->mapper_count; i++)
        if (!swap->lane->mappers[i].edges_only &&
            strcmp(swap->lane->mappers[i].name, mapper->name) == 0)
            return true;
    return false;
}

/* Parts that a splitter cut in the live lane alone wait for the mappers that the lane brings. */
static enum rf_status park_part(struct rf_elastic *sink, const struct swap *swap,
                                struct rf_el_item *item, struct rf_error *err)
{
    (void)err;
    for (size_t i = 0; i < swap->lane->mapper_count; i++) {
        const struct rf_el_mapper *mapper = &swap->lane->mappers[i];
        if (!mapper->edges_only && !rf_elastic_call(&item->cur, mapper->gen))
            rf_elastic_park(sink, item, mapper->gen, RF_PARK_READY,
                            "its part was not cut while this version was built", 0);
    }
    return RF_OK;
}

static enum rf_status park_page(struct rf_elastic *sink, const struct swap *swap, int64_t gen,
                                char after[RF_ITEM_KEY_SIZE], int64_t *after_n, bool *more,
                                struct rf_error *err)
{
    const char **children;
    const struct rf_json *hits = NULL;
    struct rf_arena arena;
    struct rf_buf body;
    size_t count = 0;
    enum rf_status status = rf_elastic_refresh(sink, false, err);

    rf_arena_init(&arena, 16 << 20);
    rf_buf_init(&body, 1 << 20);
    rf_buf_printf(&body, "{\"size\":%d,\"_source\":[\"child\",\"item\",\"n\"],\"query\":{\"bool\":"
                         "{\"filter\":[{\"term\":{\"kind\":\"edge\"}},{\"term\":{\"gen\":%lld}}]}},"
                         "\"sort\":[\"item\",\"n\"]",
                  RF_ELASTIC_PAGE, (long long)gen);
    if (after[0]) {
        rf_buf_put_text(&body, ",\"search_after\":[");
        rf_json_put_string(&body, rf_bytes_text(after));
        rf_buf_printf(&body, ",%lld]", (long long)*after_n);
    }
    rf_buf_put_u8(&body, '}');
    if (!status)
        status = rf_elastic_search_own(sink, rf_buf_text(&body), &hits, NULL, NULL, err);
    *more = !status && hits->count == RF_ELASTIC_PAGE;
    children = rf_arena_alloc(&arena, (hits ? hits->count + 1 : 1) * sizeof *children);
    for (size_t i = 0; !status && i < hits->count; i++) {
        const struct rf_json *source = rf_json_find(&hits->items[i], "_source");
        const char *child = rf_json_string(rf_json_find(source, "child"));
        const char *parent = rf_json_string(rf_json_find(source, "item"));
        if (!child || !parent)
            continue;
        children[count++] = keep(&arena, child);
        snprintf(after, RF_ITEM_KEY_SIZE, "%s", parent);
        (void)!rf_json_int(rf_json_find(source, "n"), after_n);
    }
    if (!status)
        status = rf_elastic_expect(&sink->base, children, count, err);
    for (size_t i = 0; !status && i < count; i++) {
        struct rf_el_item *item = NULL;
        status = rf_elastic_get(sink, children[i], true, &item, err);
        if (!status && item->reach != RF_EL_REACH_SOME && !item->cur.absent)
            status = park_part(sink, swap, item, err);
    }
    if (!status)
        status = rf_elastic_group_flush(sink, err);
    rf_elastic_cache_clear(sink);
    rf_buf_release(&body);
    rf_arena_release(&arena);
    return status;
}

static enum rf_status park_missed(struct rf_elastic *sink, const struct swap *swap,
                                  struct rf_error *err)
{
    bool any = false;
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < swap->lane->mapper_count; i++)
        any |= swap->lane->mappers[i].edges_only;
    if (!any || !RF_SAFEGUARD("sink-missed-parts"))
        return RF_OK;
    status = rf_elastic_work_begin(sink, swap->lane, err);
    if (status)
        return status;
    for (size_t i = 0; i < swap->lane->mapper_count; i++) {
        const struct rf_el_mapper *helper = &swap->lane->mappers[i];
        for (size_t k = 0; helper->edges_only && k < swap->live->mapper_count; k++) {
            char after[RF_ITEM_KEY_SIZE] = "";
            int64_t after_n = 0;
            bool more = strcmp(swap->live->mappers[k].name, helper->name) == 0;
            while (!status && more)
                status = park_page(sink, swap, swap->live->mappers[k].gen, after, &after_n, &more,
                                   err);
        }
    }
    return rf_elastic_work_end(sink, status, err);
}

/* A replaced mapper leaves its place in the order to the new one; a new one comes last. */
static void swap_mappers(struct rf_elastic *sink, const struct swap *swap)
{
    struct rf_el_lane *live = swap->live, *lane = swap->lane;
    struct rf_el_mapper *mappers = rf_arena_alloc(
        &sink->state.arena, (live->mapper_count + lane->mapper_count + 1) * sizeof *mappers);
    bool *placed = rf_arena_alloc(&sink->state.arena, lane->mapper_count + 1);
    size_t count = 0;

    for (size_t i = 0; i < live->mapper_count; i++) {
        const struct rf_el_mapper *old = &live->mappers[i];
        if (!is_replaced(swap, old)) {
            mappers[count++] = *old;
            continue;
        }
        add_doomed(sink, old);
        for (size_t k = 0; !lane->full && k < lane->mapper_count; k++) {
            if (!lane->mappers[k].edges_only && strcmp(lane->mappers[k].name, old->name) == 0) {
                mappers[count++] = lane->mappers[k];
                placed[k] = true;
            }
        }
    }
    for (size_t k = 0; k < lane->mapper_count; k++) {
        if (lane->mappers[k].edges_only)
            add_doomed(sink, &lane->mappers[k]);
        else if (!placed[k])
            mappers[count++] = lane->mappers[k];
    }
    live->mappers = mappers;
    live->mapper_count = count;
}

static void remove_lane(struct rf_el_state *state, const struct rf_el_lane *lane)
{
    size_t count = 0;

    for (size_t i = 0; i < state->lane_count; i++)
        if (state->lanes[i] != lane)
            state->lanes[count++] = state->lanes[i];
    state->lane_count = count;
}

static enum rf_status find_lanes(struct rf_elastic *sink, uint32_t id, struct swap *swap,
                                 struct rf_error *err)
{
    enum rf_status status = rf_elastic_lane(sink, 0, &swap->live, err);

    if (!status)
        status = rf_elastic_lane(sink, id, &swap->lane, err);
    if (!status && swap->lane == swap->live)
        status = rf_error_set(err, RF_INVALID, "lane %u of index '%s' is live already",
                              (unsigned)id, rf_es_name(sink->es));
    if (!status && strcmp(swap->live->position, swap->lane->position) != 0 &&
        RF_SAFEGUARD("sink-swap-position"))
        status = rf_error_set(err, RF_DENIED,
                              "cannot swap lane %u of index '%s': it does not stand where the live "
                              "lane stands",
                              (unsigned)id, rf_es_name(sink->es));
    return status;
}

enum rf_status rf_elastic_lane_swap(struct rf_sink *base, uint32_t id, const char *const *removed,
                                    size_t removed_count, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_state *state = &sink->state;
    struct swap swap = {.removed = removed, .removed_count = removed_count};
    enum rf_status status = rf_elastic_ready(sink, err);

    if (!status && sink->recover)
        status = rf_elastic_recover(sink, err);
    if (!status)
        status = find_lanes(sink, id, &swap, err);
    if (!status)
        status = rf_elastic_lane_ready(base, id, err);
    if (!status)
        status = park_missed(sink, &swap, err);
    if (status)
        return status;
    swap_mappers(sink, &swap);
    if (swap.lane->full) {
        swap.live->lost = swap.lane->lost;
        swap.live->lost_count = swap.lane->lost_count;
    }
    swap.live->ready = true;
    remove_lane(state, swap.lane);
    state->aliases = true;
    status = rf_elastic_save(sink, err);
    return status ? status : rf_elastic_finish_lanes(sink, err);
}

/* ---- drop ---- */

enum rf_status rf_elastic_lane_drop(struct rf_sink *base, uint32_t id, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_lane *lane = NULL;
    enum rf_status status = rf_elastic_ready(sink, err);

    if (status)
        return status;
    if (rf_elastic_lane(sink, id, &lane, NULL) != RF_OK || lane->state == RF_EL_LIVE)
        return rf_error_set(err, RF_NOT_FOUND,
                            "cannot drop lane %u of index '%s': there is no such lane beside the "
                            "live one",
                            (unsigned)id, rf_es_name(sink->es));
    if (sink->recover) {
        status = rf_elastic_recover(sink, err);
        if (!status)
            status = rf_elastic_lane(sink, id, &lane, err);
        if (status)
            return status;
    }
    for (size_t i = 0; i < lane->mapper_count; i++)
        add_doomed(sink, &lane->mappers[i]);
    remove_lane(&sink->state, lane);
    status = rf_elastic_save(sink, err);
    return status ? status : rf_elastic_finish_lanes(sink, err);
}
