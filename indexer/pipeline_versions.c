/*
 * pipeline_versions.c - which version of a mapper maps what (plan.h)
 *
 * Only mappers with a chain of versions come here; p->chained has their bits. A blob or file is
 * taken by what its change says. A part is first taken to be held by what it is cut from alone:
 * nothing else reached it before. Where that may be wrong, since it was reached already or since
 * what it is cut from is a part that was had again by itself, it is woken with the batch, and the
 * slow lane asks for all its holders.
 */
#include "indexer/pipeline_internal.h"

#include <stdlib.h>

#include "core/control.h"
#include "mappers/media.h"

#define AGAIN_MAX 65536u /* keys; beyond, the parent stands for its parts */

const struct rf_mapper *rf_version_of(const struct rf_pipeline *p, const struct rf_unit *unit,
                                      uint16_t mapper)
{
    const struct rf_pipeline_mapper *of = &p->mappers[mapper];

    if (!of->chain)
        return of->mapper;
    return unit->versions && unit->versions[mapper] >= 0 ? of->versions[unit->versions[mapper]]
                                                         : NULL;
}

bool rf_versions_stopped(const struct rf_pipeline *p, uint16_t mapper)
{
    const struct rf_pipeline_mapper *of = &p->mappers[mapper];

    for (size_t i = 0; of->chain && i < of->chain->count; i++) {
        if (rf_brake_stops(p->options.brake, of->versions[i]))
            return true;
    }
    return rf_brake_stops(p->options.brake, of->mapper);
}

/* What a blob or file is chosen by; media apart. */
static struct rf_plan_item item_of(const struct rf_unit *unit)
{
    return (struct rf_plan_item){.seq = unit->item.seq, .timestamp_us = unit->item.timestamp_us,
                                 .name = unit->item.name};
}

static const struct rf_unit *top_of(const struct rf_unit *unit)
{
    while (unit->parent)
        unit = unit->parent;
    return unit;
}

static bool asks_media(const struct rf_plan_mapper *chain)
{
    for (size_t i = 0; i < chain->count; i++) {
        if (chain->versions[i].policy.kind == RF_POLICY_MEDIA)
            return true;
    }
    return false;
}

/* As the mapper would see it. What cannot be read has no media type but its name's. */
static const char *media_of(struct rf_pipeline *p, struct rf_unit *unit)
{
    uint8_t head[RF_MEDIA_LOOK];
    size_t got = 0, size = unit->item.size < sizeof head ? (size_t)unit->item.size : sizeof head;

    if (unit->item.content)
        return rf_media_find(rf_bytes(unit->item.content, size), unit->item.name);
    if (rf_unit_read(p->options.reader, unit, 0, head, size, &got, NULL) != RF_OK)
        got = 0;
    return rf_media_find(rf_bytes(head, got), unit->item.name);
}

void rf_versions_choose(struct rf_pipeline *p, struct rf_unit *unit)
{
    struct rf_plan_item item;

    if (!p->chained || unit->versions || unit->kind == RF_UNIT_REMOVE ||
        unit->kind == RF_UNIT_ARRIVED)
        return;
    unit->versions = malloc(p->options.mapper_count * sizeof *unit->versions);
    if (!unit->versions)
        abort();
    for (size_t i = 0; i < p->options.mapper_count; i++)
        unit->versions[i] = -1;
    item = item_of(top_of(unit));
    for (size_t i = 0; i < p->options.mapper_count; i++) {
        const struct rf_plan_mapper *chain = p->mappers[i].chain;
        uint32_t takes;

        if (!chain)
            continue;
        if (unit->item.kind == RF_ITEM_PART) {
            takes = rf_plan_takes(chain, &item) | rf_plan_takes_media(chain, unit->item.media);
        } else {
            if (!item.media && asks_media(chain) && !unit->dead && !unit->missing.algo)
                item.media = media_of(p, unit);
            takes = rf_plan_takes(chain, &item);
        }
        unit->versions[i] = (int16_t)rf_plan_choose(takes);
    }
}

struct taken {
    const struct rf_plan_mapper *chain;
    uint32_t takes, least; /* least: the part's own media type takes them whoever holds it */
};

static enum rf_status take_holder(void *user, const struct rf_sink_holder *holder)
{
    struct taken *taken = user;
    struct rf_plan_item item = {.seq = holder->seq, .timestamp_us = holder->timestamp_us,
                                .name = holder->name};

    taken->takes &= rf_plan_takes(taken->chain, &item);
    return (taken->takes & ~taken->least) == 0 ? RF_END : RF_OK;
}

enum rf_status rf_version_of_part(struct rf_pipeline *p, const char *key, const char *media,
                                  uint16_t mapper, int *out, struct rf_error *err)
{
    const struct rf_plan_mapper *chain = p->mappers[mapper].chain;
    struct taken taken = {.chain = chain, .takes = rf_plan_all(chain),
                          .least = rf_plan_takes_media(chain, media)};
    enum rf_status status = RF_OK;

    if (RF_SAFEGUARD("version-holders"))
        status = rf_sink_holders(p->options.sink, p->options.lane, key, take_holder, &taken, err);

    *out = rf_plan_choose(taken.takes | taken.least);
    return status;
}

/* Whether others may hold what is cut from the unit, through the unit: it was had again as a part
 * that may have other holders than those above it here. */
static bool is_unsure(const struct rf_unit *unit)
{
    for (; unit; unit = unit->parent) {
        if (unit->slow && unit->item.kind == RF_ITEM_PART)
            return true;
    }
    return false;
}

/* Whether all versions take whatever the unit's blob or file holds. */
static bool takes_all(const struct rf_pipeline *p, const struct rf_unit *unit)
{
    struct rf_plan_item item = item_of(top_of(unit));

    for (size_t i = 0; i < p->options.mapper_count; i++) {
        const struct rf_plan_mapper *chain = p->mappers[i].chain;

        if (chain && rf_plan_takes(chain, &item) != rf_plan_all(chain))
            return false;
    }
    return true;
}

static enum rf_status note(struct rf_pipeline *p, const char *key, struct rf_error *err)
{
    struct rf_again *again = &p->again;

    if (again->count && strcmp(again->keys[again->count - 1], key) == 0)
        return RF_OK;
    if (again->count == again->capacity) {
        size_t more = again->capacity ? 2 * again->capacity : 64;
        void *grown = realloc(again->keys, more * sizeof *again->keys);

        if (!grown)
            return rf_error_set(err, RF_NOMEM, "no memory to note parts");
        again->keys = grown;
        again->capacity = more;
    }
    memcpy(again->keys[again->count++], key, strlen(key) + 1);
    return RF_OK;
}

enum rf_status rf_versions_note_edge(struct rf_pipeline *p, const struct rf_unit *unit,
                                     const char *key, bool known, struct rf_error *err)
{
    if (!RF_SAFEGUARD("version-known-parts"))
        return RF_OK;
    if (!is_unsure(unit) && (!known || takes_all(p, unit)))
        return RF_OK;
    return note(p, p->again.count < AGAIN_MAX ? key : unit->key, err);
}

enum rf_status rf_versions_wake(struct rf_pipeline *p, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < p->again.count && status == RF_OK; i++)
        status = rf_sink_again(p->options.sink, p->again.keys[i], NULL, p->chained, err);
    p->again.count = 0;
    return status;
}
