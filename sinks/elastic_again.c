/*
 * elastic_again.c - versions of a mapper side by side: who holds a part, and mapping it again
 *
 * As in sqlite_again.c. Edges are walked a generation at a time, up or down, by search; what was
 * met is kept, so a ring ends. What is to be mapped again keeps what it has: its call is marked
 * beside what it says.
 *
 * Memory: the keys that were met.
 */
#include "sinks/sink_elastic.h"

#include "core/control.h"
#include "core/glob.h"

#include <stdio.h>
#include <stdlib.h>

#define WALK_SLOTS 4096

struct step {
    struct step *next; /* with the same hash */
    char key[];
};

struct walk {
    struct rf_elastic *sink;
    const struct rf_el_lane *lane;
    bool up;
    struct rf_arena arena;
    struct step *slots[WALK_SLOTS];
    const char **keys; /* in the order they were met */
    size_t count, room, done;
};

static struct walk *walk_new(struct rf_elastic *sink, const struct rf_el_lane *lane, bool up)
{
    struct walk *walk = calloc(1, sizeof *walk);

    if (!walk)
        abort();
    walk->sink = sink;
    walk->lane = lane;
    walk->up = up;
    rf_arena_init(&walk->arena, SIZE_MAX);
    return walk;
}

static void walk_free(struct walk *walk)
{
    rf_arena_release(&walk->arena);
    free(walk->keys);
    free(walk);
}

static void walk_add(struct walk *walk, const char *key)
{
    size_t size = strlen(key) + 1;
    uint64_t hash = 1469598103934665603u;
    struct step **at;

    for (const char *p = key; *p; p++)
        hash = (hash ^ (uint8_t)*p) * 1099511628211u;
    at = &walk->slots[(hash ^ hash >> 32) & (WALK_SLOTS - 1)];
    while (*at && strcmp((*at)->key, key) != 0)
        at = &(*at)->next;
    if (*at)
        return;
    *at = rf_arena_alloc(&walk->arena, sizeof **at + size);
    memcpy((*at)->key, key, size);
    walk->keys = rf_elastic_grow(walk->keys, walk->count, &walk->room, sizeof *walk->keys);
    walk->keys[walk->count++] = (*at)->key;
}

/* Neighbours of keys from..to, page by page. */
static enum rf_status walk_some(struct walk *walk, size_t from, size_t to, struct rf_error *err)
{
    char item[RF_ITEM_KEY_SIZE] = "";
    int64_t gen = 0, n = 0;
    bool more = true;
    enum rf_status status = RF_OK;

    while (!status && more) {
        const struct rf_json *hits = NULL;
        struct rf_buf body;
        rf_buf_init(&body, 4 << 20);
        rf_buf_printf(&body, "{\"size\":%d,\"sort\":[\"item\",\"gen\",\"n\"],\"query\":{\"bool\":{"
                             "\"filter\":[{\"term\":{\"kind\":\"edge\"}},{\"terms\":{\"gen\":",
                      RF_ELASTIC_PAGE);
        rf_elastic_put_gens(&body, walk->lane);
        rf_buf_printf(&body, "}},{\"terms\":{\"%s\":[", walk->up ? "child" : "item");
        for (size_t i = from; i < to; i++) {
            rf_buf_put_text(&body, i > from ? "," : "");
            rf_elastic_put_words(&body, walk->keys[i]);
        }
        rf_buf_put_text(&body, "]}}]}}");
        if (item[0]) {
            rf_buf_put_text(&body, ",\"search_after\":[");
            rf_elastic_put_words(&body, item);
            rf_buf_printf(&body, ",%lld,%lld]", (long long)gen, (long long)n);
        }
        rf_buf_put_u8(&body, '}');
        status = rf_elastic_search_own(walk->sink, rf_buf_text(&body), &hits, NULL, NULL, err);
        rf_buf_release(&body);
        more = !status && hits->count == RF_ELASTIC_PAGE;
        for (size_t i = 0; !status && i < hits->count; i++) {
            const struct rf_json *source = rf_json_find(&hits->items[i], "_source");
            const char *parent = rf_json_string(rf_json_find(source, "item"));
            const char *child = rf_json_string(rf_json_find(source, "child"));
            if (!parent || !child)
                continue;
            walk_add(walk, walk->up ? parent : child);
            snprintf(item, sizeof item, "%s", parent);
            (void)!rf_json_int(rf_json_find(source, "gen"), &gen);
            (void)!rf_json_int(rf_json_find(source, "n"), &n);
        }
    }
    return status;
}

/* From what was added on, to the ends. */
static enum rf_status walk_all(struct walk *walk, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    while (!status && walk->done < walk->count) {
        size_t from = walk->done, to = walk->count - from < RF_ELASTIC_PAGE
                                           ? walk->count
                                           : from + RF_ELASTIC_PAGE;
        walk->done = to;
        status = walk_some(walk, from, to, err);
    }
    return status;
}

/* ---- who holds a part ---- */

enum rf_status rf_elastic_holders(struct rf_sink *base, uint32_t id, const char *key,
                                  enum rf_status (*visit)(void *user,
                                                          const struct rf_sink_holder *),
                                  void *user, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_lane *lane = NULL;
    struct rf_arena arena;
    struct walk *walk;
    enum rf_status status = rf_elastic_ask(sink, err);

    if (!status)
        status = rf_elastic_lane(sink, id, &lane, err);
    if (status)
        return status;
    walk = walk_new(sink, lane, true);
    rf_arena_init(&arena, RF_ES_ANSWER_MAX);
    walk_add(walk, key);
    status = walk_all(walk, err);
    for (size_t i = 0; !status && i < walk->count; i++) {
        struct rf_el_content content = {0};
        struct rf_sink_holder holder;
        if (strchr(walk->keys[i], ';'))
            continue;
        rf_arena_clear(&arena);
        status = rf_elastic_read_one(sink, &arena, walk->keys[i], &content, err);
        if (status == RF_NOT_FOUND) {
            status = RF_OK;
            continue;
        }
        holder = (struct rf_sink_holder){.seq = content.seq, .timestamp_us = content.ts,
                                         .name = content.name};
        if (!status)
            status = visit(user, &holder);
    }
    rf_arena_release(&arena);
    walk_free(walk);
    return status == RF_END ? RF_OK : status;
}

/* ---- mapping again ---- */

static bool is_wanted(const char *key, const char *media)
{
    const char *own = strchr(key, ';');

    return !media || (own && rf_glob_matches(media, own + 1));
}

static enum rf_status wake_walked(struct walk *walk, const char *media, uint64_t mappers,
                                  struct rf_error *err)
{
    struct rf_elastic *sink = walk->sink;
    enum rf_status status = RF_OK;

    for (size_t from = 0; !status && from < walk->count; from += RF_ELASTIC_PAGE) {
        size_t to = walk->count - from < RF_ELASTIC_PAGE ? walk->count : from + RF_ELASTIC_PAGE;
        status = rf_elastic_look_up(sink, walk->keys + from, to - from, err);
        for (size_t i = from; !status && i < to; i++) {
            struct rf_el_item *item = rf_elastic_find(sink, walk->keys[i]);
            if (!item || item->cur.absent || item->cur.deleted ||
                !is_wanted(walk->keys[i], media))
                continue;
            for (size_t m = 0; m < sink->lane->mapper_count; m++)
                if (mappers >> m & 1)
                    rf_elastic_again_call(sink, item, sink->lane->mappers[m].gen);
        }
        if (!status)
            status = rf_elastic_group_flush(sink, err);
    }
    return status;
}

enum rf_status rf_elastic_wake_below(struct rf_elastic *sink, const char *const *keys,
                                     size_t count, const char *media, uint64_t mappers,
                                     struct rf_error *err)
{
    struct walk *walk = walk_new(sink, sink->lane, false);
    enum rf_status status = rf_elastic_refresh(sink, false, err);

    for (size_t i = 0; i < count; i++)
        walk_add(walk, keys[i]);
    if (!status)
        status = walk_all(walk, err);
    if (!status)
        status = wake_walked(walk, media, mappers, err);
    walk_free(walk);
    return status;
}

enum rf_status rf_elastic_again(struct rf_sink *base, const char *key, const char *media,
                                uint64_t mappers, struct rf_error *err)
{
    struct rf_elastic *sink = rf_elastic_of(base);
    struct rf_el_item *item = NULL;
    enum rf_status status = rf_elastic_group_flush(sink, err);

    if (!status)
        status = rf_elastic_get(sink, key, false, &item, err);
    if (!status && !item->cur.absent && !item->cur.deleted)
        status = rf_elastic_wake_below(sink, &key, 1, media, mappers, err);
    if (status)
        rf_elastic_rollback(base);
    return status;
}

enum rf_status rf_elastic_share(struct rf_sink *base, uint64_t mappers, struct rf_error *err)
{
    (void)err;
    rf_elastic_of(base)->shared = mappers;
    return RF_OK;
}
