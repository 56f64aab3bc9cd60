/*
 * pipeline_parks.c - the slow lane: what is parked is mapped again
 *
 * A park is one (item, mapper) and is resolved by that mapper alone: a blob or file is read again,
 * a part is had again along its chain of edges, from a stored blob down:
 *
 *   as long as edges are ranges    cut out; nothing is mapped for it
 *   from the first made part on    fetched (struct rf_fetch): at most one fetch at a time, which
 *                                  serves all parked parts of its item as the slow lane has room
 *
 * Mappers take turns, and the brake (brake.h) says whether one may start a call. Every park that is
 * started ends as something else than a slow or ready park: rows, a need, a dead letter. So the
 * slow lane comes to an end.
 */
#include "indexer/pipeline_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define PARKS_READ 32u        /* parks read at a time: more than can be under way */
#define PARTS_CHUNK 256u      /* parts looked at in one turn of a fetch */
#define NEED_ATTEMPTS_MAX 5u  /* of a call whose need is there and yet missing */
#define SLOW_BUSY 2u          /* parks under way while there are changes to map */

/* ---- needs ---- */

static enum rf_status look_for_needs(struct rf_pipeline *p, const struct rf_sink_park *park,
                                     struct rf_error *err)
{
    struct rf_blobref *refs;
    size_t count = 0;
    enum rf_status status;

    if (park->attempts >= NEED_ATTEMPTS_MAX)
        return RF_OK; /* it is there, yet the call says it is not: a retry by hand may tell */
    rf_arena_clear(&p->scratch);
    status = rf_sink_park_needs(p->options.sink, p->options.lane, park, &p->scratch, &refs, &count,
                                err);
    for (size_t i = 0; i < count && status == RF_OK; i++) {
        struct rf_stat stat;

        if (rf_store_stat(p->options.store, &refs[i], &stat, NULL) != RF_OK)
            continue;
        status = rf_pipeline_begin(p, err);
        if (status == RF_OK)
            status = rf_sink_arrived(p->options.sink, &refs[i], err);
        p->parks_dirty = true;
    }
    return status;
}

enum rf_status rf_parks_check_needs(struct rf_pipeline *p, struct rf_error *err)
{
    assert(rf_writer_idle(p->writer));
    for (size_t m = 0; m < p->options.mapper_count; m++) {
        struct rf_sink_park parks[PARKS_READ];
        int64_t after = 0;
        size_t count = 1;

        while (count) {
            enum rf_status status =
                rf_sink_parks(p->options.sink, p->options.lane, (uint16_t)m, RF_PARK_NEED, &after,
                              parks, PARKS_READ, &count, err);
            for (size_t i = 0; i < count && status == RF_OK; i++)
                status = look_for_needs(p, &parks[i], err);
            if (status != RF_OK)
                return status;
        }
    }
    return RF_OK;
}

/* ---- starting a unit of the slow lane ---- */

static const struct rf_mapper *mapper_at(const struct rf_pipeline *p, uint16_t index)
{
    return p->mappers[index].mapper;
}

static bool under_way(const struct rf_pipeline *p, const char *key, uint16_t mapper)
{
    for (size_t i = 0; i < p->slow_count; i++) {
        if (p->slow[i]->mapper == mapper && strcmp(p->slow[i]->key, key) == 0)
            return true;
    }
    return false;
}

/* Whether the slow lane has room for one more call, of this mapper. */
static bool has_room(const struct rf_pipeline *p, uint16_t mapper)
{
    size_t most = p->at_end ? RF_SLOW_MAX : SLOW_BUSY, same = 0;

    if (p->slow_count >= most)
        return false;
    for (size_t i = 0; i < p->slow_count; i++)
        same += mapper_at(p, p->slow[i]->mapper) == mapper_at(p, mapper);
    return rf_brake_allows(p->options.brake, mapper_at(p, mapper), same);
}

/* The unit goes its way, called by one mapper alone; a part with a chain of versions by the one
 * that all its holders say. */
static enum rf_status start_unit(struct rf_pipeline *p, struct rf_unit *unit, uint16_t mapper,
                                 uint32_t attempts, struct rf_error *err)
{
    bool ask = p->chained >> mapper & 1 && unit->item.kind == RF_ITEM_PART && !unit->dead &&
               !unit->missing.algo;
    int version = -1;
    enum rf_status status = RF_OK;

    assert(p->slow_count < RF_SLOW_MAX);
    if (ask)
        status = rf_version_of_part(p, unit->key, unit->item.media, mapper, &version, err);
    if (status != RF_OK) {
        rf_unit_release(unit);
        return status;
    }
    unit->slow = true;
    unit->only_calls = true;
    unit->mapper = mapper;
    unit->attempts = attempts;
    p->slow[p->slow_count++] = unit;
    rf_pipeline_enter(p, unit, NULL);
    if (ask)
        unit->versions[mapper] = (int16_t)version;
    return RF_OK;
}

/* A park whose item cannot be had again: it becomes a dead letter, or waits for the blob that is
 * missing. reason is copied. */
static void give_up(struct rf_pipeline *p, const struct rf_sink_park *park,
                    const struct rf_blobref *missing, enum rf_dead_class dead_class,
                    const char *reason)
{
    static const enum rf_item_kind kinds[] = {
        [RF_SINK_BLOB] = RF_ITEM_BLOB,
        [RF_SINK_FILE] = RF_ITEM_FILE,
        [RF_SINK_PART] = RF_ITEM_PART,
    };
    struct rf_unit *unit =
        rf_unit_new(park->kind == RF_SINK_PART ? RF_UNIT_PART : RF_UNIT_ITEM);

    memcpy(unit->key, park->key, sizeof unit->key);
    unit->item.kind = kinds[park->kind];
    unit->item.ref = park->ref;
    unit->item.seq = park->seq;
    unit->item.size = park->size;
    unit->item.timestamp_us = park->timestamp_us;
    if (missing && missing->algo) {
        unit->missing = *missing;
    } else {
        unit->dead = true;
        unit->dead_class = dead_class;
        unit->dead_reason = strdup(reason);
    }
    (void)!start_unit(p, unit, park->mapper, park->attempts, NULL); /* asks for nothing */
}

/* Read a stored blob again as an item; *out is NULL when it is not there: its tombstone follows. */
static enum rf_status unit_of_stored(struct rf_pipeline *p, const struct rf_blobref *ref,
                                     struct rf_unit **out, struct rf_error *err)
{
    struct rf_stat stat;
    struct rf_buf whole;
    enum rf_status status;

    *out = NULL;
    rf_buf_init(&whole, RF_BLOB_INLINE_MAX);
    status = rf_store_stat(p->options.store, ref, &stat, err);
    if (status == RF_OK && stat.size <= RF_BLOB_INLINE_MAX)
        status = rf_store_get(p->options.store, ref, &whole, err);
    if (status == RF_OK)
        status = rf_unit_from_blob(
            out, p->options.reader, &stat,
            stat.size <= RF_BLOB_INLINE_MAX
                ? rf_bytes(whole.data ? whole.data : (const uint8_t *)"", whole.size)
                : rf_bytes(NULL, 0),
            err);
    rf_buf_release(&whole);
    return status;
}

/* ---- chains ---- */

/* The edges from a stored blob down to a part, and that blob. RF_NOT_FOUND: nothing reaches it. */
static enum rf_status chain_of(struct rf_pipeline *p, const struct rf_sink_park *park,
                               struct rf_fetch_step steps[RF_PART_DEPTH_MAX], size_t *count,
                               struct rf_blobref *root, struct rf_error *err)
{
    size_t first = RF_PART_DEPTH_MAX;
    struct rf_sink_origin origin = {.parent_kind = RF_SINK_PART};
    char key[RF_ITEM_KEY_SIZE];

    memcpy(key, park->key, sizeof key);

    while (origin.parent_kind == RF_SINK_PART) {
        enum rf_status status =
            first == 0 ? rf_error_set(err, RF_NOT_FOUND, "parts hold each other")
                       : rf_sink_origin_of(p->options.sink, p->options.lane, key, &origin, err);
        if (status != RF_OK)
            return status;
        first--;
        steps[first] = (struct rf_fetch_step){.mapper = origin.mapper, .inlined = origin.inlined,
                                              .offset = origin.offset, .size = origin.size};
        memcpy(steps[first].key, key, sizeof key);
        memcpy(key, origin.parent_key, sizeof key);
        *root = origin.parent_ref;
    }
    *count = RF_PART_DEPTH_MAX - first;
    memmove(steps, steps + first, *count * sizeof *steps);
    return RF_OK;
}

static struct rf_bytes media_of(const char *key)
{
    const char *semicolon = strchr(key, ';');

    assert(semicolon); /* it is a part's */
    return rf_bytes_text(semicolon + 1);
}

static enum rf_status ref_of(const char *key, struct rf_blobref *ref, struct rf_error *err)
{
    return rf_blobref_parse(ref, key, strcspn(key, ";"), err);
}

/* Cut along ranges as far as they go. *unit is replaced by the deepest; *at counts the steps. */
static enum rf_status cut_ranges(struct rf_pipeline *p, const struct rf_fetch_step *steps,
                                 size_t count, struct rf_unit **unit, size_t *at,
                                 struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (*at = 0; *at < count && !steps[*at].inlined && status == RF_OK; ++*at) {
        const struct rf_fetch_step *step = &steps[*at];
        struct rf_part_spec spec = {.offset = step->offset, .size = step->size,
                                    .media = media_of(step->key)};
        struct rf_unit *above = *unit, *part = NULL;
        struct rf_blobref ref;

        if (above->dead || above->missing.algo)
            break;
        status = ref_of(step->key, &ref, err);
        if (status == RF_OK)
            status = rf_unit_from_part(&part, p->options.reader, above, &spec, &ref, step->key,
                                       err);
        if (status == RF_OK) {
            *unit = part;
            rf_unit_release(above); /* the part holds it */
        }
    }
    return status;
}

/* ---- fetching ---- */

void rf_parks_drop_fetch(struct rf_pipeline *p)
{
    struct rf_fetch *fetch = &p->fetch;
    struct rf_unit *unit = fetch->unit;

    if (!unit)
        return;
    if (fetch->reading)
        rf_output_release(&fetch->reader);
    free(fetch->steps);
    *fetch = (struct rf_fetch){0};
    rf_pipeline_done(p, unit);
    p->parks_dirty = true; /* others may wait for their turn */
}

static enum rf_status begin_fetch(struct rf_pipeline *p, const struct rf_sink_park *park,
                                  struct rf_unit *unit, const struct rf_fetch_step *steps,
                                  size_t count, struct rf_error *err)
{
    struct rf_fetch *fetch = &p->fetch;

    *fetch = (struct rf_fetch){.unit = unit, .park = *park, .step_count = count};
    fetch->steps = malloc(count * sizeof *steps);
    if (!fetch->steps) {
        fetch->unit = NULL;
        rf_unit_release(unit);
        return rf_error_set(err, RF_NOMEM, "no memory for a parked part");
    }
    memcpy(fetch->steps, steps, count * sizeof *steps);
    for (size_t m = 0; m < p->options.mapper_count; m++) {
        uint64_t counts[RF_PARK_KIND_COUNT];
        enum rf_status status = rf_sink_park_counts(p->options.sink, p->options.lane, (uint16_t)m,
                                                    counts, err);

        if (status != RF_OK) {
            free(fetch->steps);
            *fetch = (struct rf_fetch){0};
            rf_unit_release(unit);
            return status;
        }
        fetch->waiting[m] = counts[RF_PARK_SLOW] + counts[RF_PARK_READY] > 0;
    }
    return start_unit(p, unit, steps[0].mapper, 0, err);
}

/* The parked part cannot be had: the fetch ends with its park as something else. */
static void fail_fetch(struct rf_pipeline *p, const struct rf_blobref *missing,
                       enum rf_dead_class dead_class, const char *reason)
{
    struct rf_sink_park park = p->fetch.park;
    struct rf_blobref ref = missing ? *missing : (struct rf_blobref){0};
    char words[RF_ERROR_SIZE];

    snprintf(words, sizeof words, "the part could not be cut out again: %s", reason);
    rf_parks_drop_fetch(p); /* its place in the slow lane is free now */
    give_up(p, &park, missing ? &ref : NULL, dead_class, words);
}

/* The first blob that a call missed. */
static struct rf_blobref missed_by(const struct rf_call *call, uint64_t size)
{
    struct rf_output_reader reader;
    struct rf_record record;
    struct rf_blobref ref = {0};

    rf_output_init(&reader, call->output, rf_mapper_decl(call->mapper), size);
    while (!ref.algo && rf_output_next(&reader, &record, NULL) == RF_OK) {
        if (record.kind == RF_RECORD_NEED && !record.present)
            ref = record.ref;
    }
    rf_output_release(&reader);
    return ref;
}

/* Look at the outcome of the fetched call. false: the fetch ended here. */
static bool take_outcome(struct rf_pipeline *p)
{
    const struct rf_unit *unit = p->fetch.unit;
    const struct rf_call *call = unit->result && !unit->dead && !unit->missing.algo
                                     ? &unit->result->calls[0]
                                     : NULL;
    struct rf_blobref missing = unit->missing;
    char words[RF_ERROR_SIZE];

    if (!call) {
        snprintf(words, sizeof words, "%s", unit->dead ? unit->dead_reason : "its content went");
        fail_fetch(p, &missing, RF_DEAD_BLOB, words);
        return false;
    }
    switch (call->outcome) {
    case RF_CALL_ROWS:
        return true;
    case RF_CALL_MISSING:
        missing = missed_by(call, unit->item.size);
        fail_fetch(p, &missing, RF_DEAD_MAPPER, "a blob is missing");
        return false;
    case RF_CALL_LIMIT:
        snprintf(words, sizeof words, "%s", call->message);
        fail_fetch(p, NULL, RF_DEAD_LIMIT, words);
        return false;
    case RF_CALL_FAILED:
        snprintf(words, sizeof words, "%s", call->message);
        fail_fetch(p, NULL, RF_DEAD_MAPPER, words);
        return false;
    case RF_CALL_NONE:
    case RF_CALL_SLOW:
        break;
    }
    fail_fetch(p, NULL, RF_DEAD_MAPPER, "the mapper that made it does not want the item any more");
    return false;
}

static struct rf_part_spec spec_of(const struct rf_record *record)
{
    return (struct rf_part_spec){.inlined = record->inlined, .head = record->head,
                                 .offset = record->offset, .size = record->size,
                                 .bytes = record->bytes, .media = record->media};
}

/* On the way down: the part found is fetched next. */
static enum rf_status fetch_below(struct rf_pipeline *p, const struct rf_part_spec *spec,
                                  const struct rf_blobref *ref, const char *key,
                                  struct rf_error *err)
{
    struct rf_fetch *fetch = &p->fetch;
    struct rf_unit *above = fetch->unit, *part;
    enum rf_status status =
        rf_unit_from_part(&part, p->options.reader, above, spec, ref, key, err);

    if (status != RF_OK)
        return status;
    rf_output_release(&fetch->reader);
    fetch->reading = fetch->mapped = false;
    fetch->unit = part;
    rf_pipeline_done(p, above);
    return start_unit(p, part, fetch->steps[++fetch->at].mapper, 0, err);
}

/* Start this part for every mapper it is parked for; *held: there was no room for one of them. */
static enum rf_status start_parked(struct rf_pipeline *p, const struct rf_part_spec *spec,
                                   const struct rf_blobref *ref, const char *key, bool *held,
                                   struct rf_error *err)
{
    struct rf_fetch *fetch = &p->fetch;
    enum rf_status status = RF_OK;

    *held = false;
    if (strcmp(key, fetch->park.key) == 0)
        fetch->met = true;
    for (; fetch->mapper < p->options.mapper_count && status == RF_OK; fetch->mapper++) {
        bool parked = false;
        uint32_t attempts;
        struct rf_unit *part;

        if (!fetch->waiting[fetch->mapper] || rf_versions_stopped(p, fetch->mapper))
            continue;
        status = rf_sink_is_parked(p->options.sink, p->options.lane, fetch->mapper, key, &parked,
                                   &attempts, err);
        if (status != RF_OK || !parked || under_way(p, key, fetch->mapper))
            continue;
        if (!has_room(p, fetch->mapper)) {
            *held = true;
            return RF_OK;
        }
        status = rf_unit_from_part(&part, p->options.reader, fetch->unit, spec, ref, key, err);
        if (status == RF_OK)
            status = start_unit(p, part, fetch->mapper, attempts, err);
    }
    fetch->mapper = 0;
    return status;
}

/* One part of the fetched item. */
static enum rf_status look_at_part(struct rf_pipeline *p, const struct rf_record *record,
                                   bool *held, struct rf_error *err)
{
    struct rf_fetch *fetch = &p->fetch;
    struct rf_part_spec spec = spec_of(record);
    struct rf_error why = {0};
    struct rf_blobref ref;
    char key[RF_ITEM_KEY_SIZE];
    enum rf_status status =
        rf_unit_hash_part(p->options.reader, fetch->unit, &spec, &ref, key, &why);

    if (status == RF_EXISTS)
        return RF_OK;
    if (status == RF_NOT_FOUND || status == RF_CORRUPT || status == RF_LIMIT) {
        fail_fetch(p, &fetch->unit->missing, RF_DEAD_BLOB, why.message);
        return RF_OK;
    }
    if (status != RF_OK) {
        if (err)
            *err = why;
        return status;
    }
    if (fetch->at + 1 == fetch->step_count)
        return start_parked(p, &spec, &ref, key, held, err);
    return strcmp(key, fetch->steps[fetch->at].key) == 0 ? fetch_below(p, &spec, &ref, key, err)
                                                         : RF_OK;
}

static void end_fetch(struct rf_pipeline *p)
{
    char words[2 * RF_NAME_MAX + 100];

    if (p->fetch.met) {
        rf_parks_drop_fetch(p);
        return;
    }
    snprintf(words, sizeof words, "mapper '%s' does not make it any more",
             rf_mapper_decl(mapper_at(p, p->fetch.unit->mapper))->name);
    fail_fetch(p, NULL, RF_DEAD_MAPPER, words);
}

enum rf_status rf_parks_fetch(struct rf_pipeline *p, bool *went, struct rf_error *err)
{
    struct rf_fetch *fetch = &p->fetch;
    const struct rf_unit *unit = fetch->unit;
    enum rf_status status = RF_OK;
    bool held = false;

    *went = false;
    if (!unit || !fetch->mapped)
        return RF_OK;
    status = rf_pipeline_settle(p, err);
    if (status != RF_OK)
        return status;
    if (!fetch->reading) {
        *went = true;
        if (!take_outcome(p))
            return RF_OK;
        rf_output_init(&fetch->reader, unit->result->calls[0].output,
                       rf_mapper_decl(unit->result->calls[0].mapper), unit->item.size);
        fetch->reading = true;
    }
    for (size_t i = 0; i < PARTS_CHUNK && status == RF_OK; i++) {
        struct rf_record record;
        size_t at = fetch->reader.at;

        status = rf_output_next(&fetch->reader, &record, err);
        if (status == RF_END) {
            end_fetch(p);
            *went = true;
            return RF_OK;
        }
        if (status == RF_OK && record.kind == RF_RECORD_PART)
            status = look_at_part(p, &record, &held, err);
        if (status == RF_OK && (fetch->unit != unit || !fetch->reading)) {
            *went = true; /* it ended, or goes on one level below */
            return RF_OK;
        }
        if (held) {
            fetch->reader.at = at;
            fetch->reader.parts = 0; /* its limits were held at the first reading */
            return RF_OK;
        }
        *went = true;
    }
    return status;
}

/* ---- starting parks ---- */

enum start { STARTED, NOT_NOW, MUST_WAIT };

static enum rf_status start_part(struct rf_pipeline *p, const struct rf_sink_park *park,
                                 struct rf_unit *root, const struct rf_fetch_step *steps,
                                 size_t count, struct rf_error *err)
{
    struct rf_unit *unit = root;
    struct rf_error why = {0};
    size_t at;
    enum rf_status status = cut_ranges(p, steps, count, &unit, &at, &why);

    if (status == RF_CORRUPT || (status == RF_OK && unit->dead)) {
        give_up(p, park, NULL, RF_DEAD_BLOB, status == RF_OK ? unit->dead_reason : why.message);
    } else if (status == RF_OK && unit->missing.algo) {
        give_up(p, park, &unit->missing, RF_DEAD_BLOB, NULL);
    } else if (status == RF_OK && at == count) {
        return start_unit(p, unit, park->mapper, park->attempts, err);
    } else if (status == RF_OK) {
        return begin_fetch(p, park, unit, steps + at, count - at, err);
    } else if (err) {
        *err = why;
    }
    rf_unit_release(unit);
    return status == RF_CORRUPT ? RF_OK : status;
}

/* Whether the chain needs a fetch that cannot begin now: there is one, or who would be called is
 * stopped. */
static bool must_wait(const struct rf_pipeline *p, const struct rf_fetch_step *steps, size_t count)
{
    size_t at = 0;

    while (at < count && !steps[at].inlined)
        at++;
    for (size_t i = at; i < count; i++) {
        if (p->fetch.unit || rf_versions_stopped(p, steps[i].mapper))
            return true;
    }
    return false;
}

static enum rf_status start_park(struct rf_pipeline *p, const struct rf_sink_park *park,
                                 enum start *answer, struct rf_error *err)
{
    struct rf_fetch_step steps[RF_PART_DEPTH_MAX];
    struct rf_blobref root = park->ref;
    struct rf_error why = {0};
    struct rf_unit *unit = NULL;
    size_t count = 0;
    enum rf_status status = RF_OK;

    *answer = NOT_NOW;
    if (under_way(p, park->key, park->mapper))
        return RF_OK;
    if (park->kind == RF_SINK_PART)
        status = chain_of(p, park, steps, &count, &root, &why);
    if (status == RF_NOT_FOUND) {
        *answer = STARTED;
        give_up(p, park, NULL, RF_DEAD_MAPPER, "no item holds this part any more");
        return RF_OK;
    }
    if (status == RF_OK && must_wait(p, steps, count)) {
        *answer = MUST_WAIT;
        return RF_OK;
    }
    if (status == RF_OK)
        status = unit_of_stored(p, &root, &unit, &why);
    if (status == RF_NOT_FOUND) /* a tombstone follows */
        return RF_OK;
    *answer = STARTED;
    if (status == RF_CORRUPT) {
        give_up(p, park, NULL, RF_DEAD_BLOB, why.message);
        return RF_OK;
    }
    if (status == RF_OK && count == 0)
        return start_unit(p, unit, park->mapper, park->attempts, err);
    if (status == RF_OK)
        return start_part(p, park, unit, steps, count, err);
    if (status != RF_OK && err)
        *err = why;
    return status;
}

/* Start one park of a mapper; *answer says whether there was one. */
static enum rf_status start_one(struct rf_pipeline *p, uint16_t mapper, enum rf_park_kind kind,
                                enum start *answer, struct rf_error *err)
{
    struct rf_sink_park parks[PARKS_READ];
    int64_t after = 0;
    size_t count = 1, waiting = 0;

    *answer = NOT_NOW;
    while (count && waiting < PARKS_READ) {
        enum rf_status status =
            rf_sink_parks(p->options.sink, p->options.lane, mapper, kind, &after, parks,
                          PARKS_READ, &count, err);

        for (size_t i = 0; i < count && status == RF_OK; i++) {
            status = start_park(p, &parks[i], answer, err);
            if (status == RF_OK && *answer == STARTED)
                return RF_OK;
            waiting += *answer == MUST_WAIT;
        }
        if (status != RF_OK)
            return status;
    }
    return RF_OK;
}

/* Each mapper in turn starts one, until all had their turn without any or there is no room. */
static enum rf_status start_in_turn(struct rf_pipeline *p, struct rf_error *err)
{
    size_t idle = 0, count = p->options.mapper_count;

    while (idle < count) {
        uint16_t mapper = p->turn = (uint16_t)((p->turn + 1u) % count);
        enum start answer = NOT_NOW;
        enum rf_status status = RF_OK;

        if (p->slow_count >= (p->at_end ? RF_SLOW_MAX : SLOW_BUSY)) {
            p->parks_dirty = true; /* there may be more: look again when one is through */
            return RF_OK;
        }
        idle++;
        if (rf_versions_stopped(p, mapper))
            continue;
        if (!has_room(p, mapper)) { /* what it has under way may use its budget up */
            p->parks_dirty = true;
            continue;
        }
        status = start_one(p, mapper, RF_PARK_READY, &answer, err);
        if (status == RF_OK && answer != STARTED)
            status = start_one(p, mapper, RF_PARK_SLOW, &answer, err);
        if (status != RF_OK)
            return status;
        if (answer == STARTED)
            idle = 0;
    }
    return RF_OK;
}

enum rf_status rf_parks_start(struct rf_pipeline *p, bool *left, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    if (p->parks_dirty && p->slow_count < (p->at_end ? RF_SLOW_MAX : SLOW_BUSY)) {
        status = rf_pipeline_settle(p, err);
        p->parks_dirty = false;
        if (status == RF_OK)
            status = start_in_turn(p, err);
    }
    *left = p->slow_count > 0 || p->parks_dirty;
    return status;
}
