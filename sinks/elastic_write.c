/*
 * elastic_write.c - one batch of items: begin, put, remove, commit; what a crash left
 *
 * What the index has of the items at hand is kept in a cache for the length of a batch, filled for
 * many keys by one question. A document is read by its id, which needs no refresh; only whether an
 * edge reaches a part is a search, and only for a part that is there already.
 *
 * Whether something reaches a part is known by a witness, an item that has an edge to it. When the
 * witness is unmapped later in the batch the answer is void.
 *
 * Memory: the group, and some 500 bytes for each of up to CACHE_ITEMS items.
 */
#include "sinks/sink_elastic.h"

#include "core/control.h"
#include "core/utf8.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define GROUP_ITEMS 5000
#define GROUP_BYTES ((size_t)8 << 20)
#define CACHE_ITEMS 50000
#define CACHE_SLOTS 4096
#define REFRESH_US 5000000 /* what is written can be found so soon while a lane is first filled */
#define CUTS_OF_ROW 64     /* kinds of cleaning of one row looked through for repeats */

static const char *const cut_names[RF_CUT_COUNT] = {[RF_CUT_UTF8] = "utf8",
                                                    [RF_CUT_NUL] = "nul",
                                                    [RF_CUT_LONG] = "long",
                                                    [RF_CUT_YEAR] = "year",
                                                    [RF_CUT_FLOAT] = "float"};

/* Every failure of a write ends the batch: what was half done must not be committed. */
static enum rf_status settle(struct rf_elastic *sink, enum rf_status status)
{
    if (status)
        rf_elastic_rollback(&sink->base);
    return status;
}

/* ---- the cache ---- */

static size_t hash_key(const char *key)
{
    uint64_t hash = 1469598103934665603u;

    for (; *key; key++)
        hash = (hash ^ (uint8_t)*key) * 1099511628211u;
    return (size_t)(hash ^ hash >> 32);
}

struct rf_el_item *rf_elastic_find(const struct rf_elastic *sink, const char *key)
{
    struct rf_el_item *item =
        sink->slot_count ? sink->slots[hash_key(key) & (sink->slot_count - 1)] : NULL;

    while (item && strcmp(item->key, key) != 0)
        item = item->next;
    return item;
}

static void widen(struct rf_elastic *sink)
{
    size_t count = sink->slot_count ? 4 * sink->slot_count : CACHE_SLOTS;
    struct rf_el_item **slots = calloc(count, sizeof(struct rf_el_item *));

    if (!slots)
        abort();
    for (size_t i = 0; i < sink->slot_count; i++) {
        for (struct rf_el_item *item = sink->slots[i], *next; item; item = next) {
            size_t slot = hash_key(item->key) & (count - 1);
            next = item->next;
            item->next = slots[slot];
            slots[slot] = item;
        }
    }
    free(sink->slots);
    sink->slots = slots;
    sink->slot_count = count;
}

static struct rf_el_item *add_item(struct rf_elastic *sink, const char *key)
{
    size_t size = strlen(key) + 1, slot;
    struct rf_el_item *item = rf_arena_alloc(&sink->arena, sizeof *item + size);

    if (sink->item_count >= sink->slot_count)
        widen(sink);
    assert(sink->slots);
    memcpy(item->key, key, size);
    item->cur = (struct rf_el_content){.absent = true, .size = -1, .ts = INT64_MIN,
                                       .mtime = INT64_MIN};
    slot = hash_key(key) & (sink->slot_count - 1);
    item->next = sink->slots[slot];
    sink->slots[slot] = item;
    sink->item_count++;
    return item;
}

void rf_elastic_cache_clear(struct rf_elastic *sink)
{
    rf_elastic_group_clear(&sink->group); /* it is of items of the cache */
    if (sink->slots)
        memset(sink->slots, 0, sink->slot_count * sizeof(struct rf_el_item *));
    sink->item_count = 0;
    rf_arena_clear(&sink->arena);
}

static bool exists(const struct rf_el_item *item)
{
    return !item->cur.absent;
}

static bool knows_reach(const struct rf_el_item *item)
{
    return !exists(item) || item->reach == RF_EL_REACH_NONE ||
           (item->witness && item->witness->cuts == item->witness_cuts);
}

static void take_reach(struct rf_el_item *item, struct rf_el_item *witness)
{
    item->reach = witness ? RF_EL_REACH_SOME : RF_EL_REACH_NONE;
    item->witness = witness;
    item->witness_cuts = witness ? witness->cuts : 0;
}

enum rf_status rf_elastic_take_hit(struct rf_elastic *sink, const struct rf_json *hit,
                                   struct rf_el_item **out, struct rf_error *err)
{
    const struct rf_json *source = rf_json_find(hit, "_source");
    const char *key = rf_json_string(rf_json_find(source, "item"));
    struct rf_el_item *item = key ? rf_elastic_find(sink, key) : NULL;
    enum rf_status status = RF_OK;

    if (!key || strlen(key) >= RF_ITEM_KEY_SIZE)
        return rf_elastic_damaged(sink, "a manifest names no item", err);
    if (!item) {
        item = add_item(sink, key);
        status = rf_elastic_read_item(sink, source, item, err);
    }
    *out = item;
    return status;
}

enum rf_status rf_elastic_look_up(struct rf_elastic *sink, const char *const *keys, size_t count,
                                  struct rf_error *err)
{
    const struct rf_json *docs;
    struct rf_es_reply reply;
    struct rf_buf body;
    size_t asked = 0;
    enum rf_status status;

    rf_buf_init(&body, 4 << 20);
    rf_buf_put_text(&body, "{\"ids\":[");
    for (size_t i = 0; i < count; i++) {
        char id[RF_ITEM_KEY_SIZE + 4];
        if (rf_elastic_find(sink, keys[i]))
            continue;
        snprintf(id, sizeof id, "i:%s", keys[i]);
        rf_buf_put_text(&body, asked++ ? "," : "");
        rf_json_put_string(&body, rf_bytes_text(id));
    }
    rf_buf_put_text(&body, "]}");
    if (!asked) {
        rf_buf_release(&body);
        return RF_OK;
    }
    status = rf_es_call(sink->es, &reply, "POST", rf_buf_bytes(&body), err,
                        "/%s/_mget?filter_path=docs.found,docs._source,docs.error.reason",
                        sink->own);
    rf_buf_release(&body);
    docs = status ? NULL : rf_json_find(reply.json, "docs");
    if (!status && (reply.status >= 300 || !docs))
        status = rf_es_unexpected(sink->es, &reply, "read items", err);
    for (size_t i = 0; !status && docs && i < docs->count; i++) {
        struct rf_el_item *item;
        if (rf_json_find(&docs->items[i], "error"))
            return rf_error_set(err, RF_UNAVAILABLE, "index '%s' cannot be read now",
                                rf_es_name(sink->es));
        if (rf_json_find(&docs->items[i], "_source"))
            status = rf_elastic_take_hit(sink, &docs->items[i], &item, err);
    }
    for (size_t i = 0; !status && i < count; i++)
        if (!rf_elastic_find(sink, keys[i]))
            add_item(sink, keys[i]);
    return status;
}

/* What a search for edges to these parts found. The witnesses become known, so that it is noticed
 * when one is unmapped. */
static enum rf_status take_witnesses(struct rf_elastic *sink, struct rf_el_item *const *items,
                                     size_t count, const struct rf_json *hits,
                                     struct rf_error *err)
{
    const char **parents = rf_arena_alloc(&sink->arena, (hits->count + 1) * sizeof *parents);
    struct rf_el_item **children =
        rf_arena_alloc(&sink->arena, (hits->count + 1) * sizeof(struct rf_el_item *));
    size_t found = 0;
    enum rf_status status;

    for (size_t i = 0; i < hits->count; i++) {
        const struct rf_json *source = rf_json_find(&hits->items[i], "_source");
        const char *child = rf_json_string(rf_json_find(source, "child"));
        const char *parent = rf_json_string(rf_json_find(source, "item"));
        children[found] = child ? rf_elastic_find(sink, child) : NULL;
        if (children[found] && parent)
            parents[found++] = rf_arena_copy(&sink->arena, parent, strlen(parent));
    }
    status = rf_elastic_look_up(sink, parents, found, err);
    for (size_t i = 0; !status && i < count; i++)
        take_reach(items[i], NULL);
    for (size_t i = 0; !status && i < found; i++)
        take_reach(children[i], rf_elastic_find(sink, parents[i]));
    return status;
}

/* Which of these an edge of the lane reaches, as stored: what the group has of edges goes first. */
static enum rf_status look_up_reach(struct rf_elastic *sink, struct rf_el_item *const *items,
                                    size_t count, struct rf_error *err)
{
    const struct rf_json *hits = NULL;
    struct rf_buf body;
    enum rf_status status = RF_OK;

    if (!count)
        return RF_OK;
    if (sink->group.edges)
        status = rf_elastic_group_flush(sink, err);
    if (!status)
        status = rf_elastic_refresh(sink, false, err);
    if (status)
        return status;
    rf_buf_init(&body, 4 << 20);
    rf_buf_printf(&body, "{\"size\":%d,\"_source\":[\"child\",\"item\"],\"collapse\":{\"field\":"
                         "\"child\"},\"query\":{\"bool\":{\"filter\":[{\"term\":{\"kind\":"
                         "\"edge\"}},{\"terms\":{\"gen\":",
                  RF_ELASTIC_PAGE);
    rf_elastic_put_gens(&body, sink->lane);
    rf_buf_put_text(&body, "}},{\"terms\":{\"child\":[");
    for (size_t i = 0; i < count; i++) {
        rf_buf_put_text(&body, i ? "," : "");
        rf_json_put_string(&body, rf_bytes_text(items[i]->key));
    }
    rf_buf_put_text(&body, "]}}]}}}");
    status = rf_elastic_search_own(sink, rf_buf_text(&body), &hits, NULL, NULL, err);
    rf_buf_release(&body);
    return status ? status : take_witnesses(sink, items, count, hits, err);
}

static bool is_part(const char *key)
{
    return strchr(key, ';') != NULL;
}

enum rf_status rf_elastic_expect(struct rf_sink *base, const char *const *keys, size_t count,
                                 struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_item *unknown[RF_SINK_EXPECT_MAX] = {NULL};
    size_t used = 0;
    enum rf_status status = rf_elastic_look_up(sink, keys, count, err);

    for (size_t i = 0; !status && i < count; i++) {
        struct rf_el_item *item = rf_elastic_find(sink, keys[i]);
        if (item && is_part(keys[i]) && !knows_reach(item))
            unknown[used++] = item;
    }
    return settle(sink, status ? status : look_up_reach(sink, unknown, used, err));
}

enum rf_status rf_elastic_get(struct rf_elastic *sink, const char *key, bool with_reach,
                              struct rf_el_item **out, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    *out = rf_elastic_find(sink, key);
    if (!*out)
        status = rf_elastic_look_up(sink, &key, 1, err);
    if (!status)
        *out = rf_elastic_find(sink, key);
    if (!status && with_reach && *out && !knows_reach(*out))
        status = look_up_reach(sink, out, 1, err);
    return status;
}

/* ---- the group ---- */

/* Make the group one of this kind that does not hold the item yet. */
static enum rf_status open_group(struct rf_elastic *sink, int kind, const struct rf_el_item *item,
                                 struct rf_error *err)
{
    struct rf_el_group *group = &sink->group;
    enum rf_status status = RF_OK;

    if ((group->kind != RF_EL_GROUP_EMPTY && (int)group->kind != kind) ||
        (item && item->group == group->number))
        status = rf_elastic_group_flush(sink, err);
    group->kind = kind == RF_EL_GROUP_PUTS ? RF_EL_GROUP_PUTS : RF_EL_GROUP_REMOVES;
    return status;
}

static enum rf_status close_item(struct rf_elastic *sink, struct rf_error *err)
{
    struct rf_el_group *group = &sink->group;
    enum rf_status status = RF_OK;

    group->items++;
    if (group->items >= GROUP_ITEMS || group->text.size >= GROUP_BYTES)
        status = rf_elastic_group_flush(sink, err);
    if (!status && sink->item_count > CACHE_ITEMS) {
        char key[RF_ITEM_KEY_SIZE] = "";
        if (sink->put_last)
            snprintf(key, sizeof key, "%s", sink->put_last->key);
        status = rf_elastic_group_flush(sink, err);
        rf_elastic_cache_clear(sink);
        sink->put_last = NULL;
        if (!status && key[0]) /* it may have more parts */
            status = rf_elastic_get(sink, key, false, &sink->put_last, err);
    }
    return status;
}

static uint32_t group_call(struct rf_elastic *sink, struct rf_el_item *item, uint16_t mapper,
                           uint32_t attempts)
{
    struct rf_el_group *group = &sink->group;

    group->calls = rf_elastic_grow(group->calls, group->call_count, &group->call_room,
                                   sizeof *group->calls);
    group->calls[group->call_count] = (struct rf_el_group_call){
        .item = item, .mapper = mapper, .attempts = attempts};
    return (uint32_t)group->call_count++;
}

static void group_ref(struct rf_elastic *sink, const char *ref)
{
    struct rf_el_group *group = &sink->group;

    group->refs = rf_elastic_grow(group->refs, group->ref_count, &group->ref_room,
                                  sizeof *group->refs);
    snprintf(group->refs[group->ref_count++], RF_BLOBREF_SIZE, "%s", ref);
}

static const char *keep_words(struct rf_elastic *sink, const char *words)
{
    struct rf_buf clean;
    const char *copy;

    if (!words)
        return NULL;
    rf_buf_init(&clean, 1 << 20);
    rf_utf8_clean(&clean, rf_bytes(words, strnlen(words, 4096)), true, NULL, NULL);
    copy = rf_arena_copy(&sink->arena, clean.data ? (const char *)clean.data : "", clean.size);
    rf_buf_release(&clean);
    return copy;
}

/* A time as the other kinds of index keep it: within years 1-9999. */
static int64_t bounded(int64_t us)
{
    if (us == INT64_MIN)
        return us;
    return us < RF_TIME_MIN ? RF_TIME_MIN : us > RF_TIME_MAX ? RF_TIME_MAX : us;
}

/* ---- rows ---- */

/* "name":value of a column, and its offset. */
static void put_value(struct rf_buf *out, const struct rf_column *column,
                      const struct rf_value *value)
{
    char text[RF_BLOBREF_SIZE > RF_TIME_TEXT_SIZE ? RF_BLOBREF_SIZE : RF_TIME_TEXT_SIZE];

    if (value->type == 0)
        return; /* null: left out */
    rf_buf_printf(out, ",\"%s\":", column->name);
    switch (value->type) {
    case RF_TYPE_INT:
        rf_json_put_int(out, value->integer);
        break;
    case RF_TYPE_BOOL:
        rf_buf_put_text(out, value->boolean ? "true" : "false");
        break;
    case RF_TYPE_FLOAT:
        rf_json_put_double(out, value->real);
        break;
    case RF_TYPE_TEXT:
    case RF_TYPE_JSON:
        rf_json_put_string(out, value->text.data ? value->text : rf_bytes("", 0));
        break;
    case RF_TYPE_TIME:
        rf_time_format(value->integer, text);
        rf_buf_printf(out, "\"%s\"", text);
        if (value->offset_minutes != RF_OFFSET_UNKNOWN)
            rf_buf_printf(out, ",\"%s_offset\":%d", column->name, value->offset_minutes);
        break;
    default:
        rf_blobref_format(&value->ref, text);
        rf_buf_printf(out, "\"%s\"", text);
        break;
    }
}

static enum rf_status put_row(struct rf_elastic *sink, struct rf_el_table *table,
                              const struct rf_el_item *item, uint32_t n,
                              const struct rf_record *record, uint32_t call,
                              struct rf_error *err)
{
    char id[RF_NAME_MAX + RF_ITEM_KEY_SIZE + 16];
    struct rf_buf *out = &sink->scratch;
    bool searched = false;

    rf_buf_clear(out);
    rf_buf_put_text(out, "{\"refuge\":{\"item\":");
    rf_json_put_string(out, rf_bytes_text(item->key));
    rf_buf_printf(out, ",\"n\":%u", n);
    for (size_t i = 0; table->search_count && i < record->column_count; i++) {
        const struct rf_value *value = &record->values[i];
        if (!table->decl->columns[i].search || value->type != RF_TYPE_TEXT)
            continue;
        rf_buf_clear(&sink->words);
        rf_elastic_put_tokens(&sink->words, value->text);
        rf_buf_put_text(out, searched ? "," : ",\"words\":[");
        rf_json_put_string(out, sink->words.data ? rf_buf_bytes(&sink->words) : rf_bytes("", 0));
        searched = true;
    }
    rf_buf_put_text(out, searched ? "]}" : "}");
    for (size_t i = 0; i < table->decl->column_count && i < record->column_count; i++)
        put_value(out, &table->decl->columns[i], &record->values[i]);
    rf_buf_put_u8(out, '}');
    if (out->failed || sink->words.failed)
        return rf_error_set(err, RF_LIMIT, "no memory for a row of table '%s'", table->decl->name);
    snprintf(id, sizeof id, "%s:%s:%u", table->decl->name, item->key, n);
    table->stale = sink->rows_stale = true;
    return rf_elastic_op(sink, call, table->index, id, rf_buf_bytes(out), err);
}

/* Repeats of one row's cleanings are stored once. */
struct cuts_seen {
    uint32_t row;
    size_t count;
    uint32_t what[CUTS_OF_ROW];
};

static bool is_repeat(struct cuts_seen *seen, const struct rf_record *record)
{
    uint32_t what = (uint32_t)record->table << 16 | (uint32_t)record->column << 8 |
                    (uint32_t)record->cut;

    if (seen->row != record->row)
        *seen = (struct cuts_seen){.row = record->row};
    for (size_t i = 0; i < seen->count; i++)
        if (seen->what[i] == what)
            return true;
    if (seen->count < CUTS_OF_ROW)
        seen->what[seen->count++] = what;
    return false;
}

/* The rows of one call as they come. */
struct rows {
    struct rf_el_run *runs;
    size_t count, room;
    struct rf_buf cuts;
    uint32_t cut_count;
};

static void add_run(struct rows *rows, uint32_t table)
{
    struct rf_el_run *last = rows->count ? &rows->runs[rows->count - 1] : NULL;

    if (last && last->table == table) {
        last->count++;
        return;
    }
    rows->runs = rf_elastic_grow(rows->runs, rows->count, &rows->room, sizeof *rows->runs);
    rows->runs[rows->count++] = (struct rf_el_run){table, 1};
}

static void add_cut(struct rows *rows, const struct rf_decl *decl, const struct rf_record *record)
{
    const struct rf_table *table = &decl->tables[record->table];

    rf_buf_printf(&rows->cuts, "%s[%u,\"%s\",\"%s\",\"%s\"]", rows->cut_count++ ? "," : "[",
                  record->row, table->name, table->columns[record->column].name,
                  cut_names[record->cut]);
}

/* All rows and cuts of a call; *why: the output is damaged, and the call with it. */
static enum rf_status put_rows(struct rf_elastic *sink, const struct rf_el_mapper *mapper,
                               const struct rf_el_item *item, const struct rf_sink_call *call,
                               uint32_t number, struct rows *rows, struct rf_error *why,
                               struct rf_error *err)
{
    struct cuts_seen seen = {.row = UINT32_MAX};
    struct rf_output_reader reader;
    struct rf_record record;
    uint32_t n = 0;
    enum rf_status status = RF_OK;

    rf_output_init(&reader, call->output, mapper->decl, UINT64_MAX);
    while (!status && (status = rf_output_next(&reader, &record, why)) == RF_OK) {
        if (record.kind == RF_RECORD_ROW) {
            add_run(rows, record.table);
            status = put_row(sink, &mapper->tables[record.table], item, n++, &record, number, err);
        } else if (record.kind == RF_RECORD_CUT && !is_repeat(&seen, &record)) {
            add_cut(rows, mapper->decl, &record);
        }
    }
    rf_output_release(&reader);
    if (status == RF_NOMEM && why->status)
        return rf_error_set(err, status, "%s", why->message);
    return status == RF_END || why->status ? RF_OK : status;
}

/* ---- edges, needs ---- */

static enum rf_status put_edge(struct rf_elastic *sink, uint16_t index, struct rf_el_item *item,
                               const struct rf_sink_part *part, struct rf_error *err)
{
    const struct rf_el_mapper *mapper = &sink->lane->mappers[index];
    struct rf_el_call *call = rf_elastic_call(&item->cur, mapper->gen);
    struct rf_el_extent *junk = rf_elastic_junk(sink, item, mapper->gen);
    struct rf_el_item *child = NULL;
    enum rf_status status = rf_elastic_get(sink, part->key, false, &child, err);

    if (status)
        return status;
    if (child->cur.absent) {
        rf_elastic_touch(sink, child);
        child->cur.absent = false;
        child->cur.kind = RF_SINK_PART;
        child->cur.size = (int64_t)part->size;
    }
    rf_buf_clear(&sink->scratch);
    rf_buf_put_text(&sink->scratch, "{\"kind\":\"edge\",\"item\":");
    rf_json_put_string(&sink->scratch, rf_bytes_text(item->key));
    rf_buf_put_text(&sink->scratch, ",\"child\":");
    rf_json_put_string(&sink->scratch, rf_bytes_text(part->key));
    rf_buf_printf(&sink->scratch, ",\"gen\":%lld,\"n\":%u,\"size\":%" PRIu64 ",\"name\":",
                  (long long)mapper->gen, call->has.edges, part->size);
    rf_elastic_put_words(&sink->scratch, part->name);
    if (part->inlined)
        rf_buf_put_text(&sink->scratch, "}");
    else
        rf_buf_printf(&sink->scratch, ",\"offset\":%" PRIu64 "}", part->offset);
    rf_buf_clear(&sink->act);
    rf_elastic_edge_id(&sink->act, mapper->gen, call->has.edges++, item->key);
    if (call->has.edges > junk->edges)
        junk->edges = call->has.edges;
    take_reach(child, item);
    sink->group.edges = true;
    return rf_elastic_op(sink, sink->put_calls[index], sink->own, rf_buf_text(&sink->act),
                         rf_buf_bytes(&sink->scratch), err);
}

static enum rf_status put_edges(struct rf_elastic *sink, uint16_t index, struct rf_el_item *item,
                                const struct rf_sink_part *parts, size_t count,
                                struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < count; i++) {
        if (i % RF_SINK_EXPECT_MAX == 0) {
            const char *keys[RF_SINK_EXPECT_MAX];
            size_t some = count - i < RF_SINK_EXPECT_MAX ? count - i : RF_SINK_EXPECT_MAX;
            for (size_t k = 0; k < some; k++)
                keys[k] = parts[i + k].key;
            status = rf_elastic_look_up(sink, keys, some, err);
        }
        if (!status)
            status = put_edge(sink, index, item, &parts[i], err);
    }
    return status;
}

static void put_needs(struct rf_elastic *sink, struct rf_el_call *to,
                      const struct rf_sink_call *call)
{
    to->needs = rf_arena_alloc(&sink->arena, (call->need_count + 1) * sizeof *to->needs);
    to->need_count = call->need_count;
    for (size_t i = 0; i < call->need_count; i++) {
        rf_blobref_format(&call->needs[i].ref, to->needs[i].ref);
        to->needs[i].present = call->needs[i].present;
        if (call->needs[i].present)
            sink->needing = RF_EL_WAITING_SOME;
        else
            sink->waiting = RF_EL_WAITING_SOME;
    }
}

/* ---- calls ---- */

static struct rf_el_call *add_call(struct rf_elastic *sink, struct rf_el_item *item, int64_t gen)
{
    struct rf_el_content *cur = &item->cur;
    struct rf_el_call *call = rf_elastic_call(cur, gen), *wider;

    if (!call) {
        wider = rf_arena_alloc(&sink->arena, (cur->call_count + 1) * sizeof *wider);
        if (cur->call_count)
            memcpy(wider, cur->calls, cur->call_count * sizeof *wider);
        cur->calls = wider;
        call = &cur->calls[cur->call_count++];
    }
    *call = (struct rf_el_call){.has.gen = gen};
    return call;
}

static void set_aside(struct rf_elastic *sink, struct rf_el_item *item, struct rf_el_call *to,
                      enum rf_el_outcome outcome, uint8_t kind, const char *reason,
                      uint32_t attempts)
{
    to->outcome = outcome;
    to->kind = kind;
    to->reason = keep_words(sink, reason);
    to->attempts = attempts;
    to->at = sink->now;
    if (outcome == RF_EL_PARK)
        item->park_at = ++sink->park_at;
}

void rf_elastic_park(struct rf_elastic *sink, struct rf_el_item *item, int64_t gen,
                     enum rf_park_kind kind, const char *reason, uint32_t attempts)
{
    rf_elastic_touch(sink, item);
    set_aside(sink, item, add_call(sink, item, gen), RF_EL_PARK, (uint8_t)kind, reason, attempts);
}

void rf_elastic_again_call(struct rf_elastic *sink, struct rf_el_item *item, int64_t gen)
{
    struct rf_el_call *call;

    rf_elastic_touch(sink, item);
    call = rf_elastic_call(&item->cur, gen);
    if (!call)
        call = add_call(sink, item, gen);
    if (call->outcome != RF_EL_PARK)
        call->again = true;
    else if (call->kind == RF_PARK_NEED)
        call->kind = RF_PARK_READY;
    item->park_at = ++sink->park_at;
}

void rf_elastic_retry_call(struct rf_elastic *sink, struct rf_el_item *item, int64_t gen)
{
    struct rf_el_call *call;

    rf_elastic_touch(sink, item);
    call = rf_elastic_call(&item->cur, gen);
    call->outcome = RF_EL_PARK;
    call->kind = RF_PARK_READY;
    call->again = false;
    item->park_at = ++sink->park_at;
}

static enum rf_status write_rows(struct rf_elastic *sink, uint16_t index, struct rf_el_item *item,
                                 const struct rf_sink_call *call, struct rf_error *err)
{
    const struct rf_el_mapper *mapper = &sink->lane->mappers[index];
    struct rf_el_group *group = &sink->group;
    size_t ops = group->op_count, text = group->text.size;
    uint32_t number = group_call(sink, item, index, call->attempts);
    struct rows rows = {0};
    struct rf_error why = {0};
    char reason[RF_ERROR_SIZE + 64];
    struct rf_el_call *to;
    enum rf_status status = RF_OK;

    rf_buf_init(&rows.cuts, RF_ES_DOCUMENT_MAX / 2);
    if (!mapper->edges_only)
        status = put_rows(sink, mapper, item, call, number, &rows, &why, err);
    if (!status && why.status) { /* output that was not checked: the call is at fault */
        group->op_count = ops;
        group->text.size = text;
        rows.count = 0;
        rows.cut_count = 0;
    }
    if (!status) {
        struct rf_el_runs kept = {rows.runs, rows.count};
        status = rf_elastic_unmap(sink, item, mapper, &kept, err);
    }
    to = status ? NULL : add_call(sink, item, mapper->gen);
    if (to && rows.count) {
        to->has.runs.items = rf_arena_alloc(&sink->arena, rows.count * sizeof *rows.runs);
        memcpy(to->has.runs.items, rows.runs, rows.count * sizeof *rows.runs);
        to->has.runs.count = rows.count;
        rf_elastic_note(sink, item, &to->has);
    }
    if (to && rows.cut_count) {
        rf_buf_put_u8(&rows.cuts, ']');
        if (!rows.cuts.failed)
            to->cuts = rf_arena_copy(&sink->arena, rows.cuts.data, rows.cuts.size);
        to->cut_count = rows.cut_count;
        if (!to->cuts)
            status = rf_error_set(err, RF_LIMIT, "too many values of an item were cleaned");
    }
    free(rows.runs);
    rf_buf_release(&rows.cuts);
    if (to && why.status) {
        snprintf(reason, sizeof reason, "output is damaged: %.400s", why.message);
        set_aside(sink, item, to, RF_EL_DEAD, RF_DEAD_SINK, reason, call->attempts);
        put_needs(sink, to, call);
        return RF_OK;
    }
    if (status)
        return status;
    put_needs(sink, to, call);
    sink->put_taken[index] = 1;
    sink->put_calls[index] = number;
    return put_edges(sink, index, item, call->parts, call->part_count, err);
}

static enum rf_status write_call(struct rf_elastic *sink, uint16_t index, struct rf_el_item *item,
                                 const struct rf_sink_call *call, struct rf_error *err)
{
    const struct rf_el_mapper *mapper = &sink->lane->mappers[index];
    struct rf_el_call *to;
    enum rf_status status;

    if (call && call->outcome == RF_SINK_ROWS)
        return write_rows(sink, index, item, call, err);
    status = rf_elastic_unmap(sink, item, mapper, NULL, err);
    if (status)
        return status;
    rf_elastic_drop_call(item, mapper->gen);
    if (!call || (call->outcome == RF_SINK_NONE && !call->need_count) ||
        (call->outcome == RF_SINK_DEAD && mapper->edges_only && !call->need_count))
        return RF_OK;
    to = add_call(sink, item, mapper->gen);
    if (call->outcome == RF_SINK_DEAD && !mapper->edges_only)
        set_aside(sink, item, to, RF_EL_DEAD, (uint8_t)call->dead_class, call->reason,
                  call->attempts);
    else if (call->outcome == RF_SINK_PARKED_SLOW)
        set_aside(sink, item, to, RF_EL_PARK, RF_PARK_SLOW, call->reason, call->attempts);
    else if (call->outcome == RF_SINK_PARKED_NEED)
        set_aside(sink, item, to, RF_EL_PARK, RF_PARK_NEED, call->reason, call->attempts);
    put_needs(sink, to, call);
    return RF_OK;
}

/* Whether there may be anything of a generation. */
static bool has_any(struct rf_el_item *item, int64_t gen)
{
    for (size_t i = 0; i < item->junk_count; i++)
        if (item->junk[i].gen == gen)
            return true;
    return rf_elastic_call(&item->cur, gen) != NULL;
}

static enum rf_status write_calls(struct rf_elastic *sink, const struct rf_sink_item *item,
                                  struct rf_el_item *known, struct rf_error *err)
{
    const struct rf_el_lane *lane = sink->lane;
    const struct rf_sink_call **calls = sink->calls;
    enum rf_status status = RF_OK;

    memset(calls, 0, lane->mapper_count * sizeof *calls);
    for (size_t i = 0; i < item->call_count; i++) {
        assert(item->calls[i].mapper < lane->mapper_count);
        calls[item->calls[i].mapper] = &item->calls[i];
    }
    for (size_t i = 0; !status && i < lane->mapper_count; i++)
        if (calls[i] || (!item->only_calls && has_any(known, lane->mappers[i].gen)))
            status = write_call(sink, (uint16_t)i, known, calls[i], err);
    return status;
}

/* ---- the item ---- */

static void place_item(struct rf_elastic *sink, const struct rf_sink_item *item,
                       struct rf_el_item *known)
{
    struct rf_el_content *cur = &known->cur;

    rf_elastic_touch(sink, known);
    if (cur->absent || cur->seq != item->seq || cur->deleted || item->kind == RF_SINK_PART) {
        cur->absent = cur->deleted = false;
        cur->kind = item->kind;
        cur->size = (int64_t)item->size;
        cur->ts = bounded(item->timestamp_us);
        cur->seq = item->seq;
        cur->name = keep_words(sink, item->name);
        cur->mtime = bounded(item->mtime_us);
    }
}

static bool is_stale(const struct rf_sink_item *item, const struct rf_el_item *known)
{
    if (item->kind == RF_SINK_PART)
        return known->cur.absent || /* a part that no edge ever named */
               (known->reach != RF_EL_REACH_SOME && RF_SAFEGUARD("sink-part-reached"));
    return !known->cur.absent &&
           (known->cur.seq > item->seq || (known->cur.seq == item->seq && known->cur.deleted)) &&
           RF_SAFEGUARD("sink-stale");
}

static enum rf_status put_item(struct rf_elastic *sink, const struct rf_sink_item *item,
                               bool *stale, struct rf_error *err)
{
    struct rf_el_item *known = NULL;
    enum rf_status status = rf_elastic_get(sink, item->key, item->kind == RF_SINK_PART, &known,
                                           err);

    if (status)
        return status;
    *stale = is_stale(item, known);
    sink->put_last = NULL;
    memset(sink->put_taken, 0, sink->lane->mapper_count);
    if (*stale)
        return RF_OK;
    status = open_group(sink, RF_EL_GROUP_PUTS, known, err);
    if (status)
        return status;
    place_item(sink, item, known);
    known->group = sink->group.number;
    sink->put_last = known;
    sink->put_group = sink->group.number;
    return write_calls(sink, item, known, err);
}

enum rf_status rf_elastic_put(struct rf_sink *base, const struct rf_sink_item *item, bool *stale,
                              struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    bool is_stale_now = false;
    enum rf_status status = put_item(sink, item, &is_stale_now, err);

    if (!status)
        status = close_item(sink, err);
    if (!status && stale)
        *stale = is_stale_now;
    return settle(sink, status);
}

enum rf_status rf_elastic_put_parts(struct rf_sink *base, uint16_t mapper,
                                    const struct rf_sink_part *parts, size_t count,
                                    struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    enum rf_status status = RF_OK;

    assert(mapper < sink->lane->mapper_count);
    if (!sink->put_last || !sink->put_taken[mapper] || !count)
        return RF_OK;
    if (sink->put_group != sink->group.number) {
        /* The group with the call itself is written: these make calls of their own. */
        status = open_group(sink, RF_EL_GROUP_PUTS, NULL, err);
        for (size_t i = 0; i < sink->lane->mapper_count; i++)
            if (sink->put_taken[i])
                sink->put_calls[i] = group_call(sink, sink->put_last, (uint16_t)i, 1);
        sink->put_group = sink->group.number;
    }
    if (!status && sink->put_last) {
        rf_elastic_touch(sink, sink->put_last);
        status = put_edges(sink, mapper, sink->put_last, parts, count, err);
    }
    return settle(sink, status ? status : close_item(sink, err));
}

/* ---- removal and arrival ---- */

static enum rf_status remove_item(struct rf_elastic *sink, const char *key, uint64_t seq,
                                  int64_t timestamp_us, struct rf_error *err)
{
    struct rf_el_item *known = NULL;
    enum rf_status status = rf_elastic_get(sink, key, false, &known, err);

    if (status || (!known->cur.absent && known->cur.seq > seq && RF_SAFEGUARD("sink-stale")))
        return status;
    status = open_group(sink, RF_EL_GROUP_REMOVES, known, err);
    if (status)
        return status;
    rf_elastic_touch(sink, known);
    known->group = sink->group.number;
    group_ref(sink, key);
    if (known->cur.absent)
        known->cur = (struct rf_el_content){.kind = RF_SINK_BLOB, .size = -1, .mtime = INT64_MIN};
    known->cur.ts = bounded(timestamp_us);
    known->cur.seq = seq;
    known->cur.deleted = true;
    known->cur.name = NULL;
    for (size_t i = 0; !status && i < sink->lane->mapper_count; i++)
        if (has_any(known, sink->lane->mappers[i].gen))
            status = write_call(sink, (uint16_t)i, known, NULL, err);
    return status;
}

enum rf_status rf_elastic_remove(struct rf_sink *base, const struct rf_blobref *ref, uint64_t seq,
                                 int64_t timestamp_us, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    char key[RF_BLOBREF_SIZE];
    enum rf_status status;

    rf_blobref_format(ref, key);
    status = remove_item(sink, key, seq, timestamp_us, err);
    return settle(sink, status ? status : close_item(sink, err));
}

enum rf_status rf_elastic_arrived(struct rf_sink *base, const struct rf_blobref *ref,
                                  struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    char text[RF_BLOBREF_SIZE];
    enum rf_status status = RF_OK;

    if (sink->waiting == RF_EL_WAITING_NONE)
        return RF_OK;
    status = open_group(sink, RF_EL_GROUP_PUTS, NULL, err);
    if (status)
        return settle(sink, status);
    rf_blobref_format(ref, text);
    group_ref(sink, text);
    return settle(sink, close_item(sink, err));
}

enum rf_status rf_elastic_lost(struct rf_sink *base, uint64_t first, uint64_t last,
                               struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_lane *lane = sink->lane;
    struct rf_el_lost *wider =
        rf_arena_alloc(&sink->state.arena, (lane->lost_count + 1) * sizeof *wider);

    (void)err;
    if (lane->lost_count)
        memcpy(wider, lane->lost, lane->lost_count * sizeof *wider);
    lane->lost = wider;
    for (size_t i = 0; i < lane->lost_count; i++) {
        if (lane->lost[i].first == first) {
            lane->lost[i].last = last;
            return RF_OK;
        }
    }
    lane->lost[lane->lost_count++] = (struct rf_el_lost){first, last};
    return RF_OK;
}

/* ---- the batch ---- */

static void open_batch(struct rf_elastic *sink, struct rf_el_lane *lane)
{
    size_t count = lane->mapper_count + 1;

    sink->put_taken = realloc(sink->put_taken, count * sizeof *sink->put_taken);
    sink->put_calls = realloc(sink->put_calls, count * sizeof *sink->put_calls);
    sink->calls = realloc(sink->calls, count * sizeof(const struct rf_sink_call *));
    if (!sink->put_taken || !sink->put_calls || !sink->calls)
        abort();
    memset(sink->put_taken, 0, count);
    sink->lane = lane;
    sink->batch = ++sink->counter;
    sink->written = false;
    sink->shared = 0;
    sink->put_last = NULL;
    sink->now = rf_elastic_now();
    sink->park_at = sink->now > sink->park_at ? sink->now : sink->park_at + 1;
}

static void close_batch(struct rf_elastic *sink)
{
    rf_elastic_cache_clear(sink);
    sink->batch = 0;
    sink->lane = NULL;
    sink->put_last = NULL;
}

enum rf_status rf_elastic_work_begin(struct rf_elastic *sink, struct rf_el_lane *lane,
                                     struct rf_error *err)
{
    enum rf_status status = RF_OK;

    assert(!sink->base.batch_open);
    if (sink->recover)
        status = rf_elastic_recover(sink, err);
    if (!status)
        open_batch(sink, lane);
    return status;
}

enum rf_status rf_elastic_work_end(struct rf_elastic *sink, enum rf_status status,
                                   struct rf_error *err)
{
    if (!status)
        status = rf_elastic_collect(sink, err);
    if (!status) {
        sink->state.done = sink->batch;
        status = rf_elastic_save(sink, err);
    }
    sink->recover |= status && sink->written;
    close_batch(sink);
    return status;
}

/* All that the batches that were given up may have left of this item goes. What had rows or edges
 * before waits to be mapped again. */
static enum rf_status take_away(struct rf_elastic *sink, struct rf_el_item *item,
                                struct rf_error *err)
{
    size_t count = item->junk_count;
    int64_t *gens = rf_arena_alloc(&sink->arena, (count + 1) * sizeof *gens);
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < count; i++)
        gens[i] = item->junk[i].gen;
    rf_elastic_touch(sink, item);
    for (size_t i = 0; !status && i < count; i++) {
        const struct rf_el_mapper *mapper = rf_elastic_mapper_of(&sink->state, gens[i]);
        struct rf_el_call *call;
        if (!mapper)
            continue;
        status = rf_elastic_unmap(sink, item, mapper, NULL, err);
        call = rf_elastic_call(&item->cur, gens[i]);
        if (!call || (!call->has.runs.count && !call->has.edges))
            continue;
        call->has = (struct rf_el_extent){.gen = gens[i]};
        if (RF_SAFEGUARD("sink-lost-again"))
            rf_elastic_again_call(sink, item, gens[i]);
    }
    item->gone = item->cur.absent;
    if (!status && is_part(item->key))
        status = rf_elastic_loosen(sink, item, err);
    return status;
}

/* Numbers that were given up, those above what is done included. */
static void put_given_up(struct rf_buf *out, const struct rf_elastic *sink)
{
    const struct rf_el_state *state = &sink->state;

    rf_buf_printf(out, "{\"size\":%d,\"query\":{\"bool\":{\"should\":[", RF_ELASTIC_PAGE);
    for (size_t i = 0; i < state->aborted_count; i++)
        rf_buf_printf(out, "%s{\"range\":{\"batch\":{\"gte\":%" PRIu64 ",\"lte\":%" PRIu64 "}}}",
                      i ? "," : "", state->aborted[i].first, state->aborted[i].last);
    rf_buf_put_text(out, "]}}}");
}

/* A page of their manifests. */
static enum rf_status recover_some(struct rf_elastic *sink, bool *more, struct rf_error *err)
{
    struct rf_el_item *items[RF_ELASTIC_PAGE] = {NULL};
    const struct rf_json *hits = NULL;
    struct rf_buf body;
    size_t count = 0;
    enum rf_status status = rf_elastic_refresh(sink, false, err);

    rf_buf_init(&body, 1 << 20);
    put_given_up(&body, sink);
    if (!status)
        status = rf_elastic_search_own(sink, rf_buf_text(&body), &hits, NULL, NULL, err);
    rf_buf_release(&body);
    *more = !status && hits->count > 0;
    for (size_t i = 0; !status && i < hits->count; i++) {
        status = rf_elastic_take_hit(sink, &hits->items[i], &items[count], err);
        count += !status;
    }
    for (size_t i = 0; !status && i < count && items[i]; i++)
        status = take_away(sink, items[i], err);
    status = status ? status : rf_elastic_group_flush(sink, err);
    rf_elastic_cache_clear(sink);
    return status;
}

enum rf_status rf_elastic_recover(struct rf_elastic *sink, struct rf_error *err)
{
    struct rf_el_lane none = {0}, *live = &none;
    bool more = true;
    enum rf_status status = rf_elastic_ready(sink, err);

    if (status)
        return status;
    sink->recover = false;
    if (sink->counter > sink->state.done)
        rf_elastic_give_up(&sink->state, sink->state.done + 1, sink->counter);
    if (rf_elastic_lane(sink, 0, &live, NULL) != RF_OK)
        live = &none;
    open_batch(sink, live);
    sink->own_stale = sink->loose = sink->every_lane = true;
    while (!status && more && sink->state.aborted_count)
        status = recover_some(sink, &more, err);
    status = rf_elastic_work_end(sink, status, err);
    sink->every_lane = false;
    sink->recover = status != RF_OK;
    return status;
}

/* Where the lane stands; a commit whose answer was lost may have moved it. */
static enum rf_status check_position(struct rf_elastic *sink, const char *from,
                                     struct rf_error *err)
{
    const char *position = sink->lane->position;
    char token[24];

    snprintf(token, sizeof token, "%016llx", (unsigned long long)sink->token);
    if (strcmp(position, from) == 0 || !RF_SAFEGUARD("sink-cas"))
        snprintf(sink->from, sizeof sink->from, "%s", from);
    else if (sink->unknown_lane == sink->lane->id && strcmp(position, sink->unknown_to) == 0 &&
             strcmp(sink->lane->writer, token) == 0)
        snprintf(sink->from, sizeof sink->from, "%s", position); /* our own */
    else
        return rf_error_set(err, RF_LOCKED,
                            "index '%s' stands at '%s', not at '%s': another writer came first",
                            rf_es_name(sink->es), position, from);
    return RF_OK;
}

enum rf_status rf_elastic_begin(struct rf_sink *base, uint32_t id, const char *from,
                                struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_lane *lane = NULL;
    enum rf_status status = rf_elastic_ready(sink, err);

    if (!status && sink->recover)
        status = rf_elastic_recover(sink, err);
    if (!status)
        status = rf_elastic_lane(sink, id, &lane, err);
    if (status)
        return status;
    open_batch(sink, lane);
    status = check_position(sink, from, err);
    base->batch_open = true;
    return settle(sink, status);
}

/* What is committed can be found: at once when the lane is through, else every few seconds. */
static enum rf_status show(struct rf_elastic *sink, bool at_once, struct rf_error *err)
{
    if (!at_once && rf_elastic_now() - sink->refreshed < REFRESH_US)
        return RF_OK;
    return rf_elastic_refresh(sink, true, err);
}

/* The answer was lost: whether it was done is to be seen in the state. */
static enum rf_status find_out(struct rf_elastic *sink, uint32_t id, uint64_t batch,
                               const char *to, struct rf_error *err)
{
    struct rf_error why = {0};
    enum rf_status status;

    sink->unknown_lane = id;
    snprintf(sink->unknown_to, sizeof sink->unknown_to, "%s", to);
    status = rf_elastic_ready(sink, &why);
    if (status == RF_UNAVAILABLE || status == RF_TIMEOUT)
        return rf_error_set(err, RF_TIMEOUT,
                            "connection to index '%s' was lost at the end of a batch; whether it "
                            "was stored is not known yet",
                            rf_es_name(sink->es));
    if (status)
        return rf_error_set(err, status, "%s", why.message);
    sink->unknown_lane = 0;
    if (sink->state.done == batch)
        return RF_OK;
    sink->recover = true;
    return rf_error_set(err, RF_UNAVAILABLE,
                        "connection to index '%s' was lost at the end of a batch",
                        rf_es_name(sink->es));
}

enum rf_status rf_elastic_commit(struct rf_sink *base, const char *to, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_error why = {0};
    uint32_t lane = sink->lane->id;
    uint64_t batch = sink->batch;
    bool ready;
    enum rf_status status = rf_elastic_collect(sink, err);

    if (status)
        return settle(sink, status);
    snprintf(sink->lane->position, sizeof sink->lane->position, "%s", to);
    snprintf(sink->lane->writer, sizeof sink->lane->writer, "%016llx",
             (unsigned long long)sink->token);
    sink->state.done = batch;
    ready = sink->lane->ready;
    status = rf_elastic_save(sink, &why);
    base->batch_open = false;
    close_batch(sink);
    if (status == RF_UNAVAILABLE)
        return find_out(sink, lane, batch, to, err);
    if (status)
        return rf_error_set(err, status, "%s", why.message);
    sink->unknown_lane = 0;
    (void)!show(sink, ready, NULL); /* it is stored; who searches sees it a little later */
    return RF_OK;
}

void rf_elastic_rollback(struct rf_sink *base)
{
    struct rf_elastic *sink = rf_elastic_of(base);

    sink->recover |= sink->written;
    sink->state.known = false; /* what the batch changed in it is forgotten */
    rf_es_bulk_abort(sink->es);
    close_batch(sink);
    base->batch_open = false;
}

enum rf_status rf_elastic_has_part(struct rf_sink *base, uint32_t id, const char *key, bool *out,
                                   struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_item *known = NULL;
    struct rf_el_lane *lane = NULL, *before;
    bool open = base->batch_open && sink->lane->id == id;
    enum rf_status status = open ? RF_OK : rf_elastic_ask(sink, err);

    if (!open && !status)
        status = rf_elastic_lane(sink, id, &lane, err);
    if (!open) { /* asked beside any batch: nothing is kept */
        if (status)
            return status;
        before = sink->lane;
        sink->lane = lane;
        rf_elastic_cache_clear(sink);
    }
    status = rf_elastic_get(sink, key, true, &known, err);
    if (!status)
        *out = exists(known) && known->reach == RF_EL_REACH_SOME;
    if (open)
        return settle(sink, status);
    rf_elastic_cache_clear(sink);
    sink->lane = before;
    return status;
}
