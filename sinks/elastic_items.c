/*
 * elastic_items.c - manifests of items: as JSON and back
 *
 *   {"kind":"item", "item":KEY, "batch":NUMBER,
 *    "type":"blob", "size":1, "ts":US, "seq":1, "deleted":false, "name":null, "mtime":null,
 *    "calls":[{"g":GENERATION, "r":[[TABLE,ROWS],...], "e":EDGES, "o":"rows"|"park"|"dead",
 *              "k":KIND, "a":ATTEMPTS, "w":REASON, "t":US, "n":[[REF,PRESENT],...],
 *              "y":true (to be mapped again),
 *              "c":[[N,TABLE,COLUMN,KIND],...]}, ...],
 *    "prev":{what is above from "type" on, before the batch}, "fresh":true (there was nothing),
 *    "junk":[{"g","r","e"}, ...]   what the batch wrote of each generation it touched
 *    and what is looked for: "park":["GEN:KIND"], "park_at", "dead":[GEN], "cut":[GEN],
 *    "miss" and "have":["GEN:REF"], "gens":[GEN]}
 */
#include "sinks/sink_elastic.h"

#include <inttypes.h>
#include <stdio.h>

const char *const rf_elastic_park_names[RF_PARK_KIND_COUNT] = {
    [RF_PARK_SLOW] = "slow", [RF_PARK_NEED] = "need", [RF_PARK_READY] = "ready"};
const char *const rf_elastic_dead_names[RF_DEAD_SINK + 1] = {[RF_DEAD_MAPPER] = "mapper",
                                                             [RF_DEAD_LIMIT] = "limit",
                                                             [RF_DEAD_BLOB] = "blob",
                                                             [RF_DEAD_SINK] = "sink"};
static const char *const kind_names[] = {
    [RF_SINK_BLOB] = "blob", [RF_SINK_FILE] = "file", [RF_SINK_PART] = "part"};

void rf_elastic_edge_id(struct rf_buf *out, int64_t gen, uint32_t n, const char *key)
{
    rf_buf_printf(out, "e:%lld:%u:%s", (long long)gen, n, key);
}

/* ---- out ---- */

static void put_number(struct rf_buf *out, const char *key, int64_t value, bool known)
{
    if (known)
        rf_buf_printf(out, ",\"%s\":%lld", key, (long long)value);
    else
        rf_buf_printf(out, ",\"%s\":null", key);
}

static void put_extent(struct rf_buf *out, const struct rf_el_extent *extent)
{
    rf_buf_printf(out, "\"g\":%lld,\"r\":[", (long long)extent->gen);
    for (size_t i = 0; i < extent->runs.count; i++)
        rf_buf_printf(out, "%s[%u,%u]", i ? "," : "", extent->runs.items[i].table,
                      extent->runs.items[i].count);
    rf_buf_printf(out, "],\"e\":%u", extent->edges);
}

static const char *outcome_name(enum rf_el_outcome outcome)
{
    return outcome == RF_EL_ROWS ? "rows" : outcome == RF_EL_PARK ? "park" : "dead";
}

static void put_call(struct rf_buf *out, const struct rf_el_call *call)
{
    rf_buf_put_u8(out, '{');
    put_extent(out, &call->has);
    rf_buf_printf(out, ",\"o\":\"%s\"", outcome_name(call->outcome));
    if (call->outcome != RF_EL_ROWS) {
        rf_buf_printf(out, ",\"k\":%u,\"a\":%u,\"t\":%lld,\"w\":", (unsigned)call->kind,
                      call->attempts, (long long)call->at);
        rf_elastic_put_words(out, call->reason);
    }
    if (call->again)
        rf_buf_put_text(out, ",\"y\":true");
    for (size_t i = 0; i < call->need_count; i++)
        rf_buf_printf(out, "%s[\"%s\",%d]", i ? "," : ",\"n\":[", call->needs[i].ref,
                      call->needs[i].present);
    rf_buf_put_text(out, call->need_count ? "]" : "");
    if (call->cuts)
        rf_buf_printf(out, ",\"c\":%s", call->cuts);
    rf_buf_put_u8(out, '}');
}

/* Members from "type" on, without braces. */
static void put_content(struct rf_buf *out, const struct rf_el_content *content)
{
    rf_buf_printf(out, "\"type\":\"%s\"", kind_names[content->kind ? content->kind : RF_SINK_BLOB]);
    put_number(out, "size", content->size, content->size >= 0);
    put_number(out, "ts", content->ts, content->ts != INT64_MIN);
    put_number(out, "mtime", content->mtime, content->mtime != INT64_MIN);
    rf_buf_printf(out, ",\"seq\":%" PRIu64 ",\"deleted\":%s,\"name\":", content->seq,
                  content->deleted ? "true" : "false");
    rf_elastic_put_words(out, content->name);
    rf_buf_put_text(out, ",\"calls\":[");
    for (size_t i = 0; i < content->call_count; i++) {
        rf_buf_put_text(out, i ? "," : "");
        put_call(out, &content->calls[i]);
    }
    rf_buf_put_u8(out, ']');
}

/* What is looked for, over all calls. */
static void put_keys(struct rf_buf *out, const struct rf_el_content *content)
{
    static const char *const names[] = {"park", "dead", "cut", "gens", "miss", "have"};

    for (size_t what = 0; what < sizeof names / sizeof *names; what++) {
        bool any = false;
        for (size_t i = 0; i < content->call_count; i++) {
            const struct rf_el_call *call = &content->calls[i];
            long long gen = call->has.gen;
            char sep[24];
            snprintf(sep, sizeof sep, any ? "," : ",\"%s\":[", names[what]);
            if (what == 0 && (call->outcome == RF_EL_PARK || call->again))
                rf_buf_printf(out, "%s\"%lld:%s\"", sep, gen,
                              rf_elastic_park_names[call->again ? RF_PARK_READY : call->kind]);
            else if ((what == 1 && call->outcome == RF_EL_DEAD) || (what == 2 && call->cuts) ||
                     what == 3)
                rf_buf_printf(out, "%s%lld", sep, gen);
            else if (what < 4)
                continue;
            for (size_t k = 0; what >= 4 && k < call->need_count; k++) {
                if (call->needs[k].present != (what == 5))
                    continue;
                rf_buf_printf(out, "%s\"%lld:%s\"", sep, gen, call->needs[k].ref);
                snprintf(sep, sizeof sep, ",");
                any = true;
            }
            any |= what < 4;
        }
        rf_buf_put_text(out, any ? "]" : "");
    }
}

void rf_elastic_put_item(struct rf_buf *out, const struct rf_elastic *sink,
                         const struct rf_el_item *item)
{
    rf_buf_printf(out, "{\"kind\":\"item\",\"item\":");
    rf_json_put_string(out, rf_bytes_text(item->key));
    rf_buf_printf(out, ",\"batch\":%" PRIu64 ",", sink->batch);
    put_content(out, &item->cur);
    put_keys(out, &item->cur);
    if (item->park_at)
        rf_buf_printf(out, ",\"park_at\":%lld", (long long)item->park_at);
    if (item->prev && item->prev->absent) {
        rf_buf_put_text(out, ",\"fresh\":true");
    } else if (item->prev) {
        rf_buf_put_text(out, ",\"prev\":{");
        put_content(out, item->prev);
        rf_buf_put_u8(out, '}');
    }
    for (size_t i = 0; i < item->junk_count; i++) {
        rf_buf_put_text(out, i ? ",{" : ",\"junk\":[{");
        put_extent(out, &item->junk[i]);
        rf_buf_put_u8(out, '}');
    }
    rf_buf_put_text(out, item->junk_count ? "]}" : "}");
}

/* ---- in ---- */

static bool int_of(const struct rf_json *object, const char *key, int64_t *out)
{
    return rf_json_int(rf_json_find(object, key), out);
}

static bool is_true(const struct rf_json *object, const char *key)
{
    const struct rf_json *value = rf_json_find(object, key);

    return value && value->type == RF_JSON_TRUE;
}

static size_t count_of(const struct rf_json *list)
{
    return list && list->type == RF_JSON_ARRAY ? list->count : 0;
}

static bool pair_of(const struct rf_json *pair, int64_t *a, int64_t *b)
{
    return count_of(pair) == 2 && rf_json_int(&pair->items[0], a) &&
           rf_json_int(&pair->items[1], b);
}

static char *keep(struct rf_arena *arena, const char *text)
{
    size_t size = strlen(text) + 1;

    return memcpy(rf_arena_alloc(arena, size), text, size);
}

static bool read_extent(struct rf_arena *arena, const struct rf_json *json,
                        struct rf_el_extent *out)
{
    const struct rf_json *runs = rf_json_find(json, "r");
    int64_t edges = 0;
    bool good = int_of(json, "g", &out->gen) && int_of(json, "e", &edges);

    out->edges = (uint32_t)edges;
    out->runs.items = rf_arena_alloc(arena, (count_of(runs) + 1) * sizeof *out->runs.items);
    for (size_t i = 0; good && i < count_of(runs); i++) {
        int64_t table = 0, count = 0;
        good = pair_of(&runs->items[i], &table, &count) && table >= 0 && count >= 0 &&
               count <= UINT32_MAX;
        out->runs.items[out->runs.count++] =
            (struct rf_el_run){(uint32_t)table, (uint32_t)count};
    }
    return good;
}

static bool read_needs(struct rf_arena *arena, const struct rf_json *list, struct rf_el_call *out)
{
    out->needs = rf_arena_alloc(arena, (count_of(list) + 1) * sizeof *out->needs);
    for (size_t i = 0; i < count_of(list); i++) {
        const struct rf_json *pair = &list->items[i];
        const char *ref = count_of(pair) == 2 ? rf_json_string(&pair->items[0]) : NULL;
        int64_t present = 0;
        if (!ref || !rf_json_int(&pair->items[1], &present))
            return false;
        snprintf(out->needs[out->need_count].ref, RF_BLOBREF_SIZE, "%s", ref);
        out->needs[out->need_count++].present = present != 0;
    }
    return true;
}

static bool read_cuts(struct rf_arena *arena, const struct rf_json *list, struct rf_el_call *out)
{
    struct rf_buf text;

    if (!count_of(list))
        return true;
    rf_buf_init(&text, RF_ES_ANSWER_MAX);
    rf_json_put_canonical(&text, list);
    out->cuts = rf_buf_text(&text) ? keep(arena, rf_buf_text(&text)) : NULL;
    out->cut_count = (uint32_t)list->count;
    rf_buf_release(&text);
    return out->cuts != NULL;
}

static bool read_call(struct rf_arena *arena, const struct rf_json *json, struct rf_el_call *out)
{
    const char *outcome = rf_json_string(rf_json_find(json, "o"));
    const char *reason = rf_json_string(rf_json_find(json, "w"));
    int64_t kind = 0, attempts = 0;
    bool good = read_extent(arena, json, &out->has) && outcome;

    if (!good)
        return false;
    out->again = is_true(json, "y");
    out->outcome = outcome[0] == 'r' ? RF_EL_ROWS : outcome[0] == 'p' ? RF_EL_PARK : RF_EL_DEAD;
    if (out->outcome != RF_EL_ROWS) {
        good = int_of(json, "k", &kind) && int_of(json, "a", &attempts) &&
               int_of(json, "t", &out->at) && kind >= 0 &&
               kind <= (out->outcome == RF_EL_PARK ? RF_PARK_KIND_COUNT - 1 : (int)RF_DEAD_SINK);
        out->kind = (uint8_t)kind;
        out->attempts = (uint32_t)attempts;
        out->reason = reason ? keep(arena, reason) : NULL;
    }
    return good && read_needs(arena, rf_json_find(json, "n"), out) &&
           read_cuts(arena, rf_json_find(json, "c"), out);
}

static bool read_content(struct rf_arena *arena, const struct rf_json *json,
                         struct rf_el_content *out)
{
    const char *type = rf_json_string(rf_json_find(json, "type"));
    const char *name = rf_json_string(rf_json_find(json, "name"));
    const struct rf_json *calls = rf_json_find(json, "calls");
    int64_t seq = 0;
    bool good = type && int_of(json, "seq", &seq);

    *out = (struct rf_el_content){.size = -1, .ts = INT64_MIN, .mtime = INT64_MIN};
    if (!good)
        return false;
    out->kind = type[0] == 'b' ? RF_SINK_BLOB : type[0] == 'f' ? RF_SINK_FILE : RF_SINK_PART;
    out->seq = (uint64_t)seq;
    int_of(json, "size", &out->size);
    int_of(json, "ts", &out->ts);
    int_of(json, "mtime", &out->mtime);
    out->deleted = is_true(json, "deleted");
    out->name = name ? keep(arena, name) : NULL;
    out->calls = rf_arena_alloc(arena, (count_of(calls) + 1) * sizeof *out->calls);
    for (size_t i = 0; good && i < count_of(calls); i++)
        good = read_call(arena, &calls->items[i], &out->calls[out->call_count++]);
    return good;
}

static bool read_prev(struct rf_arena *arena, const struct rf_json *source,
                      struct rf_el_content *out)
{
    const struct rf_json *prev = rf_json_find(source, "prev");

    *out = (struct rf_el_content){.absent = true, .size = -1, .ts = INT64_MIN,
                                  .mtime = INT64_MIN};
    return !prev || prev->type != RF_JSON_OBJECT || read_content(arena, prev, out);
}

static enum rf_status damaged(const struct rf_elastic *sink, const struct rf_json *source,
                              struct rf_error *err)
{
    const char *key = rf_json_string(rf_json_find(source, "item"));
    char what[160];

    snprintf(what, sizeof what, "the manifest of item '%.80s' is not what refuge wrote",
             key ? key : "?");
    return rf_elastic_damaged(sink, what, err);
}

enum rf_status rf_elastic_read_content(const struct rf_elastic *sink, struct rf_arena *arena,
                                       const struct rf_json *source, struct rf_el_content *out,
                                       struct rf_error *err)
{
    int64_t batch = 0;
    bool good = int_of(source, "batch", &batch);

    if (good && ((uint64_t)batch == sink->batch || rf_elastic_is_done(sink, (uint64_t)batch)))
        good = read_content(arena, source, out);
    else if (good)
        good = read_prev(arena, source, out);
    return good ? RF_OK : damaged(sink, source, err);
}

static bool touches(const struct rf_el_item *item, size_t count, int64_t gen)
{
    for (size_t i = 0; i < count; i++)
        if (item->junk[i].gen == gen)
            return true;
    return false;
}

/* The extents that a batch wrote, several of a generation when some before it were given up, too;
 * of one given up also those of its calls. */
static bool read_junk(struct rf_arena *arena, const struct rf_json *source, bool given_up,
                      struct rf_el_item *out)
{
    const struct rf_json *junk = rf_json_find(source, "junk"), *calls;
    bool good = true;

    calls = given_up ? rf_json_find(source, "calls") : NULL;
    out->junk = rf_arena_alloc(arena, (count_of(junk) + count_of(calls) + 1) * sizeof *out->junk);
    out->junk_count = 0;
    for (size_t i = 0; good && i < count_of(junk); i++)
        good = read_extent(arena, &junk->items[i], &out->junk[out->junk_count++]);
    for (size_t i = 0, touched = out->junk_count; good && i < count_of(calls); i++) {
        struct rf_el_extent extent = {0};
        good = read_extent(arena, &calls->items[i], &extent);
        if (good && touches(out, touched, extent.gen))
            out->junk[out->junk_count++] = extent;
    }
    return good;
}

enum rf_status rf_elastic_read_item(struct rf_elastic *sink, const struct rf_json *source,
                                    struct rf_el_item *out, struct rf_error *err)
{
    int64_t batch = 0;
    bool good = int_of(source, "batch", &batch), open, done;

    open = good && sink->batch && (uint64_t)batch == sink->batch;
    done = good && !open && rf_elastic_is_done(sink, (uint64_t)batch);
    int_of(source, "park_at", &out->park_at);
    if (open || done)
        good = good && read_content(&sink->arena, source, &out->cur);
    else
        good = good && read_prev(&sink->arena, source, &out->cur);
    if (good && open) {
        out->prev = rf_arena_alloc(&sink->arena, sizeof *out->prev);
        good = read_prev(&sink->arena, source, out->prev);
    }
    if (good && !done)
        good = read_junk(&sink->arena, source, !open, out);
    return good ? RF_OK : damaged(sink, source, err);
}
