/*
 * elastic_group.c - what is written together, and parts nothing reaches
 *
 * A group is of puts or of removes, and holds each item at most once. Its flush writes manifests
 * first, then rows and edges, each as one bulk; see sink_elastic.h for why. A document that the
 * server refuses for itself (400, too large) condemns its call: what else it wrote is taken back, a
 * dead letter stands in the manifest, written again.
 *
 * Then what blobs that came or went mean for others: parks become ready, or dependants lose what
 * they have. Those are found by search, so the index is refreshed first.
 *
 * Memory: GROUP_BYTES of rows (elastic_write.c), or those of one item.
 */
#include "sinks/sink_elastic.h"

#include "core/control.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT_MAX ((size_t)2 << 30)
#define TEXT_KEEP ((size_t)32 << 20)
#define REFS_AT_ONCE 500

/* ---- the group ---- */

void rf_elastic_group_init(struct rf_el_group *group)
{
    *group = (struct rf_el_group){.number = 1};
    rf_buf_init(&group->text, TEXT_MAX);
}

static void drop_calls(struct rf_el_group *group)
{
    for (size_t i = 0; i < group->call_count; i++)
        free(group->calls[i].reason);
    group->call_count = 0;
}

void rf_elastic_group_release(struct rf_el_group *group)
{
    drop_calls(group);
    rf_buf_release(&group->text);
    free(group->ops);
    free(group->changed);
    free(group->calls);
    free(group->loosened);
    free(group->trims);
    free(group->refs);
}

/* What one large item needed is not kept. */
void rf_elastic_group_clear(struct rf_el_group *group)
{
    for (size_t i = 0; i < group->changed_count; i++)
        group->changed[i]->changed = false;
    drop_calls(group);
    if (group->text.capacity > TEXT_KEEP)
        rf_buf_release(&group->text);
    rf_buf_clear(&group->text);
    group->op_count = group->changed_count = group->trim_count = group->ref_count = 0;
    group->loosened_count = 0;
    group->items = 0;
    group->edges = group->refused = false;
    group->kind = RF_EL_GROUP_EMPTY;
    group->number++;
}

struct rf_el_call *rf_elastic_call(struct rf_el_content *content, int64_t gen)
{
    for (size_t i = 0; i < content->call_count; i++)
        if (content->calls[i].has.gen == gen)
            return &content->calls[i];
    return NULL;
}

void rf_elastic_drop_call(struct rf_el_item *item, int64_t gen)
{
    struct rf_el_call *call = rf_elastic_call(&item->cur, gen);

    if (call)
        *call = item->cur.calls[--item->cur.call_count];
}

static bool is_lane_gen(const struct rf_elastic *sink, int64_t gen)
{
    return rf_elastic_mapper_of(&sink->state, gen) != NULL;
}

/* Its own copy of the calls: what was is kept as it was. */
static void keep_prev(struct rf_elastic *sink, struct rf_el_item *item)
{
    size_t count = 0;

    item->prev = rf_arena_alloc(&sink->arena, sizeof *item->prev);
    *item->prev = item->cur;
    item->cur.calls =
        rf_arena_alloc(&sink->arena, (item->prev->call_count + 1) * sizeof *item->cur.calls);
    for (size_t i = 0; i < item->prev->call_count; i++) /* without those of lanes long gone */
        if (is_lane_gen(sink, item->prev->calls[i].has.gen))
            item->cur.calls[count++] = item->prev->calls[i];
    item->cur.call_count = count;
}

void rf_elastic_touch(struct rf_elastic *sink, struct rf_el_item *item)
{
    struct rf_el_group *group = &sink->group;

    if (!item->prev)
        keep_prev(sink, item);
    if (item->changed)
        return;
    item->changed = true;
    group->changed = rf_elastic_grow(group->changed, group->changed_count, &group->changed_room,
                                     sizeof *group->changed);
    group->changed[group->changed_count++] = item;
    if (group->kind == RF_EL_GROUP_EMPTY)
        group->kind = RF_EL_GROUP_PUTS;
}

struct rf_el_extent *rf_elastic_junk(struct rf_elastic *sink, struct rf_el_item *item, int64_t gen)
{
    struct rf_el_extent *wider;

    for (size_t i = 0; i < item->junk_count; i++)
        if (item->junk[i].gen == gen)
            return &item->junk[i];
    wider = rf_arena_alloc(&sink->arena, (item->junk_count + 1) * sizeof *wider);
    if (item->junk_count)
        memcpy(wider, item->junk, item->junk_count * sizeof *wider);
    wider[item->junk_count] = (struct rf_el_extent){.gen = gen};
    item->junk = wider;
    return &item->junk[item->junk_count++];
}

/* Whether what is known of a batch's rows names all of an extent. */
static bool names(const struct rf_el_extent *junk, const struct rf_el_extent *extent)
{
    return junk->gen == extent->gen && junk->edges >= extent->edges &&
           junk->runs.count == extent->runs.count &&
           (junk->runs.count == 0 || memcmp(junk->runs.items, extent->runs.items,
                                            junk->runs.count * sizeof *junk->runs.items) == 0);
}

void rf_elastic_note(struct rf_elastic *sink, struct rf_el_item *item,
                     const struct rf_el_extent *extent)
{
    struct rf_el_extent *junk = rf_elastic_junk(sink, item, extent->gen), *wider;

    if (!junk->runs.count) {
        junk->runs = extent->runs;
        junk->edges = extent->edges > junk->edges ? extent->edges : junk->edges;
        return;
    }
    for (size_t i = 0; i < item->junk_count; i++)
        if (names(&item->junk[i], extent))
            return; /* each break would add it once more */
    wider = rf_arena_alloc(&sink->arena, (item->junk_count + 1) * sizeof *wider);
    memcpy(wider, item->junk, item->junk_count * sizeof *wider);
    wider[item->junk_count++] = *extent;
    item->junk = wider;
}

/* The act's line. */
static void put_act(struct rf_buf *out, const struct rf_elastic *sink, const char *what,
                    const char *index, struct rf_bytes id)
{
    rf_buf_printf(out, "{\"%s\":{\"_index\":\"%s\",\"_id\":", what, index);
    rf_json_put_string(out, id);
    if (RF_SAFEGUARD("sink-versions"))
        rf_buf_printf(out, ",\"version\":%" PRIu64 ",\"version_type\":\"external_gte\"",
                      sink->batch);
    rf_buf_put_text(out, "}}");
}

enum rf_status rf_elastic_op(struct rf_elastic *sink, uint32_t call, const char *index,
                             const char *id, struct rf_bytes document, struct rf_error *err)
{
    struct rf_el_group *group = &sink->group;
    size_t before = group->text.size;
    struct rf_el_op *op;

    assert(document.size <= UINT32_MAX);
    put_act(&group->text, sink, document.data ? "index" : "delete", index, rf_bytes_text(id));
    if (group->text.failed)
        return rf_error_set(err, group->text.failed, "no memory for the rows of an item");
    group->ops = rf_elastic_grow(group->ops, group->op_count, &group->op_room,
                                 sizeof *group->ops);
    op = &group->ops[group->op_count++];
    *op = (struct rf_el_op){.call = call, .act_size = (uint32_t)(group->text.size - before),
                            .document_size = (uint32_t)document.size};
    rf_buf_put(&group->text, document.data, document.size);
    if (group->text.failed)
        return rf_error_set(err, group->text.failed, "no memory for the rows of an item");
    if (group->kind == RF_EL_GROUP_EMPTY)
        group->kind = RF_EL_GROUP_PUTS;
    return RF_OK;
}

/* ---- what goes ---- */

/* The table of row n; -1: there is no such row. */
static int64_t table_at(const struct rf_el_runs *runs, uint32_t n)
{
    for (size_t i = 0; i < runs->count; i++) {
        if (n < runs->items[i].count)
            return runs->items[i].table;
        n -= runs->items[i].count;
    }
    return -1;
}

static enum rf_status delete_rows(struct rf_elastic *sink, struct rf_el_item *item,
                                  const struct rf_el_mapper *mapper,
                                  const struct rf_el_runs *old, const struct rf_el_runs *kept,
                                  struct rf_error *err)
{
    uint32_t n = 0;
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < old->count; i++) {
        const struct rf_el_run *run = &old->items[i];
        struct rf_el_table *table;
        if (run->table >= mapper->decl->table_count || mapper->edges_only)
            continue;
        table = &mapper->tables[run->table];
        for (uint32_t k = 0; !status && k < run->count; k++, n++) {
            char id[RF_NAME_MAX + RF_ITEM_KEY_SIZE + 16];
            if (kept && table_at(kept, n) == run->table)
                continue;
            snprintf(id, sizeof id, "%s:%s:%u", table->decl->name, item->key, n);
            status = rf_elastic_op(sink, RF_EL_NO_CALL, table->index, id, rf_bytes(NULL, 0), err);
            table->stale = sink->rows_stale = true;
        }
    }
    return status;
}

enum rf_status rf_elastic_loosen(struct rf_elastic *sink, struct rf_el_item *child,
                                 struct rf_error *err)
{
    struct rf_el_group *group = &sink->group;

    (void)err;
    if (child->loosened == group->number)
        return RF_OK;
    child->loosened = group->number;
    sink->loose = true;
    group->loosened = rf_elastic_grow(group->loosened, group->loosened_count,
                                      &group->loosened_room, sizeof *group->loosened);
    group->loosened[group->loosened_count++] = child;
    if (group->kind == RF_EL_GROUP_EMPTY)
        group->kind = RF_EL_GROUP_PUTS;
    return RF_OK;
}

/* Children of edges from..to of an item, as stored. */
static enum rf_status loosen_some(struct rf_elastic *sink, const char *key, int64_t gen,
                                  uint32_t from, uint32_t to, struct rf_error *err)
{
    const char *children[RF_ELASTIC_PAGE] = {NULL};
    const struct rf_json *docs;
    struct rf_es_reply reply;
    struct rf_arena arena;
    struct rf_buf body;
    size_t count = 0;
    enum rf_status status;

    rf_buf_init(&body, 1 << 20);
    rf_arena_init(&arena, 1 << 22);
    rf_buf_put_text(&body, "{\"ids\":[");
    for (uint32_t n = from; n < to; n++) {
        rf_buf_put_text(&body, n > from ? ",\"" : "\"");
        rf_elastic_edge_id(&body, gen, n, key);
        rf_buf_put_u8(&body, '"');
    }
    rf_buf_put_text(&body, "]}");
    status = rf_es_call(sink->es, &reply, "POST", rf_buf_bytes(&body), err,
                        "/%s/_mget?_source_includes=child,kind", sink->own);
    docs = status ? NULL : rf_json_find(reply.json, "docs");
    if (!status && (reply.status >= 300 || !docs))
        status = rf_es_unexpected(sink->es, &reply, "read edges", err);
    for (size_t i = 0; !status && docs && i < docs->count && count < RF_ELASTIC_PAGE; i++) {
        const struct rf_json *source = rf_json_find(&docs->items[i], "_source");
        const char *child = rf_json_string(rf_json_find(source, "child"));
        if (child)
            children[count++] = rf_arena_copy(&arena, child, strlen(child));
    }
    if (!status)
        status = rf_elastic_look_up(sink, children, count, err);
    for (size_t i = 0; !status && i < count; i++) {
        struct rf_el_item *item = rf_elastic_find(sink, children[i]);
        if (item)
            status = rf_elastic_loosen(sink, item, err);
    }
    rf_buf_release(&body);
    rf_arena_release(&arena);
    return status;
}

static enum rf_status delete_edges(struct rf_elastic *sink, struct rf_el_item *item, int64_t gen,
                                   uint32_t old, struct rf_error *err)
{
    struct rf_el_group *group = &sink->group;
    enum rf_status status = RF_OK;

    if (!old)
        return RF_OK;
    for (uint32_t from = 0; !status && from < old; from += RF_ELASTIC_PAGE)
        status = loosen_some(sink, item->key, gen, from,
                             old - from < RF_ELASTIC_PAGE ? old : from + RF_ELASTIC_PAGE, err);
    group->trims = rf_elastic_grow(group->trims, group->trim_count, &group->trim_room,
                                   sizeof *group->trims);
    group->trims[group->trim_count++] = (struct rf_el_trim){item, gen, old};
    group->edges = true;
    return status;
}

enum rf_status rf_elastic_unmap(struct rf_elastic *sink, struct rf_el_item *item,
                                const struct rf_el_mapper *mapper, const struct rf_el_runs *kept,
                                struct rf_error *err)
{
    struct rf_el_call *call = rf_elastic_call(&item->cur, mapper->gen);
    uint32_t edges = call ? call->has.edges : 0;
    enum rf_status status = RF_OK;

    rf_elastic_touch(sink, item);
    call = rf_elastic_call(&item->cur, mapper->gen);
    if (call)
        status = delete_rows(sink, item, mapper, &call->has.runs, kept, err);
    for (size_t i = 0; !status && i < item->junk_count; i++) {
        const struct rf_el_runs *runs = &item->junk[i].runs;
        if (item->junk[i].gen != mapper->gen)
            continue;
        edges = item->junk[i].edges > edges ? item->junk[i].edges : edges;
        if (call && runs->count && runs->count == call->has.runs.count &&
            memcmp(runs->items, call->has.runs.items, runs->count * sizeof *runs->items) == 0)
            continue;
        status = delete_rows(sink, item, mapper, runs, kept, err);
    }
    if (!status && edges) {
        status = delete_edges(sink, item, mapper->gen, edges, err);
        item->cuts++;
    }
    rf_elastic_junk(sink, item, mapper->gen); /* the batch answers for it from now on */
    return status;
}

/* ---- the flush ---- */

struct flushing {
    struct rf_elastic *sink;
    bool manifests;
};

static enum rf_status came_first(struct rf_elastic *sink, const struct rf_es_failure *failure,
                                 struct rf_error *err)
{
    return rf_error_set(err, RF_LOCKED,
                        "index '%s' was written by somebody else: another writer came first, or "
                        "it was changed behind refuge's back: then run 'refuge index rebuild' "
                        "(%.200s)",
                        rf_es_name(sink->es), failure->reason);
}

static enum rf_status refuse(struct rf_elastic *sink, uint32_t number,
                             const struct rf_es_failure *failure)
{
    struct rf_el_group_call *call = &sink->group.calls[number];
    const struct rf_el_mapper *mapper = &sink->lane->mappers[call->mapper];

    sink->group.refused = true;
    if (call->refused)
        return RF_OK;
    call->refused = true;
    if (asprintf(&call->reason, "a row was refused by the tables of '%s': %s: %.800s",
                 mapper->name, failure->error, failure->reason) < 0)
        abort();
    return RF_OK;
}

static enum rf_status act_failed(void *user, const struct rf_es_failure *failure,
                                 struct rf_error *err)
{
    struct flushing *flushing = user;
    struct rf_elastic *sink = flushing->sink;

    if (failure->status == 409)
        return came_first(sink, failure, err);
    if (failure->status == 404)
        return rf_error_set(err, RF_CORRUPT,
                            "index '%s' was changed behind refuge's back: %.300s; run 'refuge "
                            "index rebuild'",
                            rf_es_name(sink->es), failure->reason);
    if ((failure->status == 400 || failure->status == 413) && !flushing->manifests &&
        failure->tag != RF_EL_NO_CALL && RF_SAFEGUARD("sink-refusal")) {
        if (strstr(failure->error, "strict_dynamic_mapping"))
            return rf_error_set(err, RF_CORRUPT,
                                "index '%s' was changed behind refuge's back: %.300s; run 'refuge "
                                "index rebuild'",
                                rf_es_name(sink->es), failure->reason);
        return refuse(sink, (uint32_t)failure->tag, failure);
    }
    return rf_error_set(err, failure->status == 403 ? RF_DENIED : RF_IO,
                        "cannot write to index '%s': %ld %s %.300s", rf_es_name(sink->es),
                        failure->status, failure->error, failure->reason);
}

/* The l: document of a part that loses an edge. Acts of one bulk are done in any order: this one
 * must be there before the edge goes. */
static enum rf_status write_loosened(struct rf_elastic *sink, const struct rf_el_item *child,
                                     struct rf_error *err)
{
    char id[RF_ITEM_KEY_SIZE + 4];

    snprintf(id, sizeof id, "l:%s", child->key);
    rf_buf_clear(&sink->act);
    put_act(&sink->act, sink, "index", sink->own, rf_bytes_text(id));
    rf_buf_clear(&sink->scratch);
    rf_buf_put_text(&sink->scratch, "{\"kind\":\"loose\",\"child\":");
    rf_json_put_string(&sink->scratch, rf_bytes_text(child->key));
    rf_buf_put_u8(&sink->scratch, '}');
    return rf_es_bulk_add(sink->es, RF_EL_NO_CALL, rf_buf_bytes(&sink->act),
                          rf_buf_bytes(&sink->scratch), err);
}

/* remove: the manifests of items that are gone. They are written like the others first, and go when
 * their rows have gone: until then they are all that names these. */
static enum rf_status write_manifests(struct rf_elastic *sink, bool remove, struct rf_error *err)
{
    struct flushing flushing = {sink, true};
    struct rf_el_group *group = &sink->group;
    char id[RF_ITEM_KEY_SIZE + 4];
    enum rf_status status = RF_OK;
    size_t count = remove ? 0 : group->loosened_count;

    for (size_t i = 0; i < group->changed_count; i++)
        count += !remove || group->changed[i]->gone;
    if (!count)
        return RF_OK;
    status = rf_es_bulk_begin(sink->es, act_failed, &flushing, err);
    if (status)
        return status;
    sink->own_stale = true;
    for (size_t i = 0; !status && !remove && i < group->loosened_count; i++)
        status = write_loosened(sink, group->loosened[i], err);
    for (size_t i = 0; !status && i < group->changed_count; i++) {
        struct rf_el_item *item = group->changed[i];
        if (remove && !item->gone)
            continue;
        snprintf(id, sizeof id, "i:%s", item->key);
        rf_buf_clear(&sink->act);
        put_act(&sink->act, sink, remove ? "delete" : "index", sink->own, rf_bytes_text(id));
        rf_buf_clear(&sink->scratch);
        if (!remove)
            rf_elastic_put_item(&sink->scratch, sink, item);
        if (sink->scratch.failed)
            status = rf_error_set(err, sink->scratch.failed, "no memory for a manifest");
        if (status)
            rf_es_bulk_abort(sink->es);
        else
            status = rf_es_bulk_add(sink->es, RF_EL_NO_CALL, rf_buf_bytes(&sink->act),
                                    rf_buf_bytes(&sink->scratch), err);
    }
    if (!status)
        status = rf_es_bulk_end(sink->es, err);
    return status;
}

/* Surplus edges, now that it is known how many there are. */
static enum rf_status put_trims(struct rf_elastic *sink, struct rf_error *err)
{
    struct rf_el_group *group = &sink->group;
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < group->trim_count; i++) {
        const struct rf_el_trim *trim = &group->trims[i];
        const struct rf_el_call *call = rf_elastic_call(&trim->item->cur, trim->gen);
        for (uint32_t n = call ? call->has.edges : 0; !status && n < trim->old; n++) {
            rf_buf_clear(&sink->act);
            rf_elastic_edge_id(&sink->act, trim->gen, n, trim->item->key);
            status = rf_elastic_op(sink, RF_EL_NO_CALL, sink->own, rf_buf_text(&sink->act),
                                   rf_bytes(NULL, 0), err);
        }
    }
    group->trim_count = 0;
    return status;
}

static enum rf_status write_ops(struct rf_elastic *sink, struct rf_error *err)
{
    struct flushing flushing = {sink, false};
    struct rf_el_group *group = &sink->group;
    const uint8_t *at = group->text.data;
    enum rf_status status;

    if (!group->op_count)
        return RF_OK;
    status = rf_es_bulk_begin(sink->es, act_failed, &flushing, err);
    sink->own_stale = true;
    for (size_t i = 0; !status && i < group->op_count; i++) {
        const struct rf_el_op *op = &group->ops[i];
        status = rf_es_bulk_add(sink->es, op->call, rf_bytes(at, op->act_size),
                                rf_bytes(op->document_size ? at + op->act_size : NULL,
                                         op->document_size),
                                err);
        at += (size_t)op->act_size + op->document_size;
    }
    return status ? status : rf_es_bulk_end(sink->es, err);
}

/* Calls of which a row was refused: all they wrote goes, a dead letter says why. */
static enum rf_status take_back(struct rf_elastic *sink, struct rf_error *err)
{
    struct rf_el_group *group = &sink->group;
    size_t count = group->call_count;
    enum rf_status status = RF_OK;

    group->op_count = 0;
    rf_buf_clear(&group->text);
    group->number++; /* loosened once more */
    for (size_t i = 0; i < group->changed_count; i++)
        group->changed[i]->changed = false;
    group->changed_count = group->loosened_count = 0;
    for (size_t i = 0; !status && i < count; i++) {
        struct rf_el_group_call *refused = &group->calls[i];
        const struct rf_el_mapper *mapper = &sink->lane->mappers[refused->mapper];
        struct rf_el_call *call;
        if (!refused->refused)
            continue;
        status = rf_elastic_unmap(sink, refused->item, mapper, NULL, err);
        call = rf_elastic_call(&refused->item->cur, mapper->gen);
        if (!status && call) {
            call->has = (struct rf_el_extent){.gen = mapper->gen};
            call->cuts = NULL;
            call->cut_count = 0;
            call->outcome = RF_EL_DEAD;
            call->kind = RF_DEAD_SINK;
            call->attempts = refused->attempts;
            call->at = sink->now;
            call->reason = rf_arena_copy(&sink->arena, refused->reason, strlen(refused->reason));
        }
        if (sink->put_last == refused->item)
            sink->put_taken[refused->mapper] = 0;
    }
    if (!status)
        status = put_trims(sink, err);
    if (!status)
        status = write_manifests(sink, false, err);
    if (!status)
        status = write_ops(sink, err);
    return status ? status : write_manifests(sink, true, err);
}

static enum rf_status write_group(struct rf_elastic *sink, struct rf_error *err)
{
    struct rf_el_group *group = &sink->group;
    bool first = RF_SAFEGUARD("sink-manifest-first"), last = RF_SAFEGUARD("sink-manifest-last");
    enum rf_status status = put_trims(sink, err);

    if (!group->changed_count && !group->op_count && !group->loosened_count)
        return status;
    sink->written = true;
    if (!status && first)
        status = write_manifests(sink, false, err);
    if (!status && !last)
        status = write_manifests(sink, true, err);
    if (!status)
        status = write_ops(sink, err);
    if (!status && !first)
        status = write_manifests(sink, false, err);
    if (!status && last)
        status = write_manifests(sink, true, err);
    if (!status && group->refused)
        status = take_back(sink, err);
    return status;
}

/* ---- blobs that came or went ---- */

/* {"terms":{"miss":["gen:ref",...]}} of some refs and all mappers of the lane. */
static void put_ref_query(struct rf_buf *out, const struct rf_elastic *sink, const char *field,
                          size_t from, size_t to)
{
    const struct rf_el_lane *lane = sink->lane;
    bool any = false;

    rf_buf_printf(out, "{\"size\":%d,\"query\":{\"terms\":{\"%s\":[", RF_ELASTIC_PAGE, field);
    for (size_t i = from; i < to; i++) {
        for (size_t k = 0; k < lane->mapper_count; k++) {
            rf_buf_printf(out, "%s\"%lld:%s\"", any ? "," : "", (long long)lane->mappers[k].gen,
                          sink->group.refs[i]);
            any = true;
        }
    }
    rf_buf_put_text(out, "]}},\"sort\":[\"item\"]");
}

static bool names_ref(const struct rf_elastic *sink, const char *ref)
{
    for (size_t i = 0; i < sink->group.ref_count; i++)
        if (strcmp(sink->group.refs[i], ref) == 0)
            return true;
    return false;
}

/* A blob that a parked call waits for came. */
static void wake(struct rf_elastic *sink, struct rf_el_item *item,
                 const struct rf_el_mapper *mapper)
{
    struct rf_el_call *call = rf_elastic_call(&item->cur, mapper->gen);
    bool named = false;

    if (!call || call->outcome != RF_EL_PARK || call->kind != RF_PARK_NEED)
        return;
    for (size_t i = 0; i < call->need_count; i++)
        named |= !call->needs[i].present && names_ref(sink, call->needs[i].ref);
    if (!named)
        return;
    rf_elastic_touch(sink, item);
    call = rf_elastic_call(&item->cur, mapper->gen);
    call->kind = RF_PARK_READY;
    call->at = sink->now;
    item->park_at = ++sink->park_at;
}

/* The first of the blobs that a call read which is gone now; need_count: none is. */
static size_t first_gone(const struct rf_elastic *sink, const struct rf_el_call *call)
{
    size_t i = 0;

    while (i < call->need_count &&
           (!call->needs[i].present || !names_ref(sink, call->needs[i].ref)))
        i++;
    return i;
}

/* A blob that a call read is gone: what it made goes, and it waits. The needs behind the missing
 * one go: a mapper stops at the first blob that is not there. */
static enum rf_status lay_off(struct rf_elastic *sink, struct rf_el_item *item,
                              const struct rf_el_mapper *mapper, struct rf_error *err)
{
    struct rf_el_call *call = rf_elastic_call(&item->cur, mapper->gen);
    size_t first = call ? first_gone(sink, call) : 0;
    struct rf_el_need *needs;
    enum rf_status status;

    if (!call || first == call->need_count)
        return RF_OK;
    status = rf_elastic_unmap(sink, item, mapper, NULL, err);
    if (status)
        return status;
    call = rf_elastic_call(&item->cur, mapper->gen);
    needs = rf_arena_alloc(&sink->arena, (first + 1) * sizeof *needs);
    memcpy(needs, call->needs, (first + 1) * sizeof *needs);
    needs[first].present = false;
    *call = (struct rf_el_call){.has.gen = mapper->gen, .outcome = RF_EL_PARK,
                                .kind = RF_PARK_NEED, .needs = needs, .need_count = first + 1,
                                .at = sink->now, .reason = "a blob it needs was deleted"};
    item->park_at = ++sink->park_at;
    sink->waiting = RF_EL_WAITING_SOME;
    return RF_OK;
}

static enum rf_status tell_item(struct rf_elastic *sink, struct rf_el_item *item, bool arrived,
                                struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t k = 0; !status && k < sink->lane->mapper_count; k++) {
        if (arrived)
            wake(sink, item, &sink->lane->mappers[k]);
        else
            status = lay_off(sink, item, &sink->lane->mappers[k], err);
    }
    return status;
}

/* All items that these refs concern, by pages; changed and written. */
static enum rf_status tell_some(struct rf_elastic *sink, bool arrived, size_t from, size_t to,
                                struct rf_error *err)
{
    char after[RF_ITEM_KEY_SIZE] = "";
    struct rf_arena arena;
    struct rf_buf body;
    bool more = true;
    enum rf_status status = RF_OK;

    rf_buf_init(&body, 16 << 20);
    rf_arena_init(&arena, 16 << 20);
    while (!status && more) {
        const struct rf_json *hits = NULL;
        struct rf_el_item *items[RF_ELASTIC_PAGE];
        size_t count = 0;
        rf_buf_clear(&body);
        put_ref_query(&body, sink, arrived ? "miss" : "have", from, to);
        if (after[0]) {
            rf_buf_put_text(&body, ",\"search_after\":[");
            rf_json_put_string(&body, rf_bytes_text(after));
            rf_buf_put_u8(&body, ']');
        }
        rf_buf_put_u8(&body, '}');
        status = rf_elastic_refresh(sink, false, err);
        if (!status)
            status = rf_elastic_search_own(sink, rf_buf_text(&body), &hits, NULL, NULL, err);
        more = !status && hits->count == RF_ELASTIC_PAGE;
        for (size_t i = 0; !status && i < hits->count; i++) {
            status = rf_elastic_take_hit(sink, &hits->items[i], &items[count], err);
            if (!status)
                count++;
        }
        if (!status && count)
            snprintf(after, sizeof after, "%s", items[count - 1]->key);
        for (size_t i = 0; !status && i < count; i++)
            status = tell_item(sink, items[i], arrived, err);
        if (!status)
            status = write_group(sink, err);
        sink->group.op_count = sink->group.trim_count = 0;
        rf_buf_clear(&sink->group.text);
        for (size_t i = 0; i < sink->group.changed_count; i++)
            sink->group.changed[i]->changed = false;
        sink->group.changed_count = sink->group.loosened_count = 0;
        sink->group.number++;
    }
    rf_buf_release(&body);
    rf_arena_release(&arena);
    return status;
}

/* Whether there is any document with this field. */
static enum rf_status look_for(struct rf_elastic *sink, const char *field, int *out,
                               struct rf_error *err)
{
    char body[160];
    uint64_t total = 0;
    enum rf_status status = rf_elastic_refresh(sink, false, err);

    snprintf(body, sizeof body,
             "{\"size\":0,\"terminate_after\":1,\"track_total_hits\":true,\"query\":{\"exists\":"
             "{\"field\":\"%s\"}}}",
             field);
    if (!status)
        status = rf_elastic_search_own(sink, body, NULL, &total, NULL, err);
    if (!status)
        *out = total ? RF_EL_WAITING_SOME : RF_EL_WAITING_NONE;
    return status;
}

static enum rf_status tell_refs(struct rf_elastic *sink, bool arrived, struct rf_error *err)
{
    struct rf_el_group *group = &sink->group;
    int some = (int)(arrived ? sink->waiting : sink->needing);
    enum rf_status status = RF_OK;

    if (!group->ref_count || !sink->lane->mapper_count)
        return RF_OK;
    if (some == RF_EL_WAITING_UNKNOWN) {
        status = look_for(sink, arrived ? "miss" : "have", &some, err);
        if (arrived)
            sink->waiting = some == RF_EL_WAITING_NONE ? RF_EL_WAITING_NONE : RF_EL_WAITING_SOME;
        else
            sink->needing = some == RF_EL_WAITING_NONE ? RF_EL_WAITING_NONE : RF_EL_WAITING_SOME;
    }
    if (status || some == RF_EL_WAITING_NONE)
        return status;
    for (size_t from = 0; !status && from < group->ref_count; from += REFS_AT_ONCE)
        status = tell_some(sink, arrived, from,
                           group->ref_count - from < REFS_AT_ONCE ? group->ref_count
                                                                  : from + REFS_AT_ONCE,
                           err);
    return status;
}

enum rf_status rf_elastic_group_flush(struct rf_elastic *sink, struct rf_error *err)
{
    struct rf_el_group *group = &sink->group;
    int kind = (int)group->kind;
    enum rf_status status = RF_OK;

    if (kind == RF_EL_GROUP_EMPTY)
        return RF_OK;
    status = write_group(sink, err);
    group->op_count = group->trim_count = 0;
    rf_buf_clear(&group->text);
    for (size_t i = 0; i < group->changed_count; i++)
        group->changed[i]->changed = false;
    group->changed_count = group->loosened_count = 0;
    drop_calls(group);
    group->refused = false;
    group->number++;
    if (!status)
        status = tell_refs(sink, kind == RF_EL_GROUP_PUTS, err);
    if (!status)
        rf_elastic_group_clear(group);
    return status;
}

/* ---- parts nothing reaches ---- */

static enum rf_status drop_part(struct rf_elastic *sink, const struct rf_el_lane *lane,
                                struct rf_el_item *item, bool wholly, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t k = 0; !status && k < lane->mapper_count; k++) {
        const struct rf_el_mapper *mapper = &lane->mappers[k];
        status = rf_elastic_unmap(sink, item, mapper, NULL, err);
        rf_elastic_drop_call(item, mapper->gen);
    }
    rf_elastic_touch(sink, item);
    item->gone = wholly;
    return status;
}

/* The children among these that an edge of the lane reaches; NULL: of any lane. */
static enum rf_status find_reached(struct rf_elastic *sink, const struct rf_el_lane *only,
                                   struct rf_el_item *const *items, size_t count, bool *reached,
                                   struct rf_error *err)
{
    const struct rf_json *hits = NULL;
    struct rf_buf body;
    enum rf_status status;

    rf_buf_init(&body, 4 << 20);
    rf_buf_printf(&body, "{\"size\":%d,\"_source\":[\"child\"],\"collapse\":{\"field\":\"child\"},"
                         "\"query\":{\"bool\":{\"filter\":[{\"term\":{\"kind\":\"edge\"}},"
                         "{\"terms\":{\"child\":[",
                  RF_ELASTIC_PAGE);
    for (size_t i = 0; i < count; i++) {
        rf_buf_put_text(&body, i ? "," : "");
        rf_json_put_string(&body, rf_bytes_text(items[i]->key));
        reached[i] = false;
    }
    rf_buf_put_text(&body, "]}}");
    if (only) {
        rf_buf_put_text(&body, ",{\"terms\":{\"gen\":");
        rf_elastic_put_gens(&body, only);
        rf_buf_put_text(&body, "}}");
    } else {
        bool any = false;
        rf_buf_put_text(&body, ",{\"terms\":{\"gen\":[");
        for (size_t i = 0; i < sink->state.lane_count; i++) {
            const struct rf_el_lane *lane = sink->state.lanes[i];
            for (size_t k = 0; lane->state != RF_EL_DROPPING && k < lane->mapper_count; k++) {
                rf_buf_printf(&body, "%s%lld", any ? "," : "", (long long)lane->mappers[k].gen);
                any = true;
            }
        }
        rf_buf_put_text(&body, "]}}");
    }
    rf_buf_put_text(&body, "]}}}");
    status = rf_elastic_search_own(sink, rf_buf_text(&body), &hits, NULL, NULL, err);
    for (size_t i = 0; !status && i < hits->count; i++) {
        const char *child =
            rf_json_string(rf_json_find(rf_json_find(&hits->items[i], "_source"), "child"));
        for (size_t k = 0; child && k < count; k++)
            reached[k] |= strcmp(items[k]->key, child) == 0;
    }
    rf_buf_release(&body);
    return status;
}

/* Parts that lost an edge and are reached all the same (rf_sink_share). */
static enum rf_status wake_shared(struct rf_elastic *sink, const char *const *keys,
                                  const bool *reached, size_t count, struct rf_error *err)
{
    const char *shared[RF_ELASTIC_PAGE];
    uint64_t mappers = sink->shared;
    size_t used = 0;

    if (sink->every_lane && RF_SAFEGUARD("sink-lost-share"))
        mappers = UINT64_MAX;
    for (size_t i = 0; i < count; i++)
        if (reached[i])
            shared[used++] = keys[i];
    if (!used || !mappers || !RF_SAFEGUARD("sink-shared-again"))
        return RF_OK;
    return rf_elastic_wake_below(sink, shared, used, NULL, mappers, err);
}

/* The lanes that may have lost edges. */
static size_t lanes_at_hand(const struct rf_elastic *sink,
                            struct rf_el_lane *lanes[RF_EL_LANES_MAX])
{
    size_t count = 0;

    for (size_t i = 0; sink->every_lane && i < sink->state.lane_count; i++)
        if (sink->state.lanes[i]->state != RF_EL_DROPPING &&
            (sink->state.lanes[i] == sink->lane || RF_SAFEGUARD("sink-every-lane")))
            lanes[count++] = sink->state.lanes[i];
    if (!count)
        lanes[count++] = sink->lane;
    return count;
}

static enum rf_status wake_in_lanes(struct rf_elastic *sink, struct rf_el_lane *const *lanes,
                                    size_t lane_count, const char *const *keys,
                                    bool reached[][RF_ELASTIC_PAGE], size_t count,
                                    struct rf_error *err)
{
    struct rf_el_lane *own = sink->lane;
    enum rf_status status = RF_OK;

    for (size_t l = 0; !status && l < lane_count; l++) {
        sink->lane = lanes[l];
        status = wake_shared(sink, keys, reached[l], count, err);
    }
    sink->lane = own;
    return status;
}

static enum rf_status collect_some(struct rf_elastic *sink, const struct rf_json *hits,
                                   struct rf_error *err)
{
    struct rf_el_lane *lanes[RF_EL_LANES_MAX];
    struct rf_el_item *items[RF_ELASTIC_PAGE];
    bool reached[RF_EL_LANES_MAX][RF_ELASTIC_PAGE], any[RF_ELASTIC_PAGE];
    const char *keys[RF_ELASTIC_PAGE];
    size_t lane_count = lanes_at_hand(sink, lanes);
    struct rf_arena arena;
    size_t count = 0;
    uint64_t number;
    enum rf_status status;

    rf_arena_init(&arena, 16 << 20);
    for (size_t i = 0; i < hits->count && count < RF_ELASTIC_PAGE; i++) {
        const char *child =
            rf_json_string(rf_json_find(rf_json_find(&hits->items[i], "_source"), "child"));
        if (child)
            keys[count++] = rf_arena_copy(&arena, child, strlen(child));
    }
    status = rf_elastic_look_up(sink, keys, count, err);
    for (size_t i = 0; !status && i < count; i++)
        status = rf_elastic_get(sink, keys[i], false, &items[i], err);
    for (size_t l = 0; !status && l < lane_count; l++)
        status = find_reached(sink, lanes[l], items, count, reached[l], err);
    if (!status)
        status = find_reached(sink, NULL, items, count, any, err);
    number = sink->group.number;
    for (size_t i = 0; !status && i < count; i++) {
        bool part = strchr(items[i]->key, ';') != NULL, safe = RF_SAFEGUARD("sink-shared-part");
        for (size_t l = 0; !status && part && !items[i]->cur.absent && l < lane_count; l++)
            if (!reached[l][i] || !safe)
                status = drop_part(sink, lanes[l], items[i], !any[i] || !safe, err);
    }
    if (!status) { /* those looked at are done with, unless they were loosened once more */
        bool *again = rf_arena_alloc(&arena, count + 1);
        for (size_t i = 0; i < count; i++)
            again[i] = items[i]->loosened == number;
        status = rf_elastic_group_flush(sink, err);
        if (!status)
            status = wake_in_lanes(sink, lanes, lane_count, keys, reached, count, err);
        for (size_t i = 0; !status && i < count; i++) {
            char id[RF_ITEM_KEY_SIZE + 4];
            if (items[i]->gone) {
                items[i]->cur = (struct rf_el_content){.absent = true, .size = -1,
                                                       .ts = INT64_MIN, .mtime = INT64_MIN};
                items[i]->gone = false;
                items[i]->reach = RF_EL_REACH_NONE;
            }
            snprintf(id, sizeof id, "l:%s", items[i]->key);
            if (!again[i])
                status = rf_elastic_op(sink, RF_EL_NO_CALL, sink->own, id, rf_bytes(NULL, 0), err);
        }
    }
    if (!status)
        status = rf_elastic_group_flush(sink, err);
    rf_arena_release(&arena);
    return status;
}

enum rf_status rf_elastic_collect(struct rf_elastic *sink, struct rf_error *err)
{
    char body[160];
    enum rf_status status = rf_elastic_group_flush(sink, err);

    snprintf(body, sizeof body,
             "{\"size\":%d,\"_source\":[\"child\"],\"query\":{\"term\":{\"kind\":\"loose\"}}}",
             RF_ELASTIC_PAGE);
    while (!status && sink->loose) {
        const struct rf_json *hits = NULL;
        status = rf_elastic_refresh(sink, false, err);
        if (!status)
            status = rf_elastic_search_own(sink, body, &hits, NULL, NULL, err);
        if (!status && !hits->count) {
            sink->loose = false;
            break;
        }
        if (!status)
            status = collect_some(sink, hits, err);
    }
    return status;
}
