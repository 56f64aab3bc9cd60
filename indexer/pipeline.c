/*
 * pipeline.c - changes in, committed rows out
 *
 * The states of items and lanes are drawn in pipeline.h. What holds throughout:
 *  - a batch commits with the position after its last change, only when all its items are written;
 *  - a tombstone, an arrival and an item are written in whatever order they are ready: the sink
 *    refuses what is older than what it holds, so order within a batch does not matter;
 *  - what is written without parts is written by another thread (writer.h). The sink is this
 *    thread's only after rf_pipeline_settle: to begin, commit or roll back, for the edges of parts,
 *    for parks. So a query always sees all that was put before it;
 *  - memory is bounded by WINDOW_UNITS and WINDOW_BYTES, not by the backlog: reading stops there;
 *  - changes are begun in order, and one that is cut into parts only when those of the one before
 *    are all under way: so a batch can end behind the last one begun (end_batch), when it is large
 *    enough, or to stop;
 *  - on any failure the transaction is rolled back and everything under way forgotten: the
 *    committed position is the truth, and reading it again does the same work again.
 */
#include "indexer/index_internal.h"
#include "indexer/pipeline_internal.h"

#include "core/control.h"

#include <assert.h>
#include <inttypes.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define WINDOW_UNITS 2048u               /* items under way, parts included */
#define WINDOW_BYTES ((size_t)24 << 20)  /* of content held by them */
#define PARTS_ANYWAY 8u                  /* parts under way though the window is full */
#define LARGE_MAX 4u                     /* large units of a depth between submit and DONE */
#define PARTS_CHUNK 256u                 /* parts looked at together */
#define WRITE_GROUP 64u                  /* units handed to the writer together */
#define BATCH_BYTES ((uint64_t)16 << 20) /* of output: a batch that wrote so much ends */
#define ORDER_BYTES ((size_t)8 << 20)    /* of output that waits for a change before it */
#define STOP_US 1000000                  /* to finish what was begun; then it is undone */
#define SCRATCH_MAX ((size_t)1 << 30)    /* bytes to write one item: keys of a million parts */

/* Parts of a written unit that are still to become units: where they stand in its result. What a
 * part is, is read again from there, so that a million of them take little memory. */
struct rf_part_list {
    struct part_place {
        uint32_t offset; /* of the record within the call's output */
        uint16_t call;
    } *places;
    size_t count, capacity, at;
    struct rf_output_reader reader; /* of call `reading`, when reading >= 0 */
    int reading;
};

/* One part while its chunk is looked at. */
struct part {
    struct rf_blobref ref;
    char key[RF_ITEM_KEY_SIZE], media[RF_MEDIA_MAX + 1];
    char *name; /* owned, or NULL */
    uint32_t offset; /* of its record */
    bool keep;
};

/* ---- small things ---- */

static int64_t now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void warn(struct rf_pipeline *p, const char *line)
{
    if (p->options.hooks->warn)
        p->options.hooks->warn(p->options.hooks->user, line);
}

static void tell_progress(struct rf_pipeline *p, bool always)
{
    int64_t now = now_us();
    struct rf_pool_stats stats;

    if (!always && now - p->told_us < 200000)
        return;
    p->told_us = now;
    rf_pool_stats(p->options.pool, &stats);
    p->options.progress->pool_cpu_us = stats.cpu_us;
    p->options.progress->building = p->options.building;
    p->options.progress->changes_done = p->position_seq;
    if (p->current.to.seq > p->position_seq)
        p->options.progress->changes_done = p->current.to.seq;
    if (p->options.hooks->progress)
        p->options.hooks->progress(p->options.hooks->user, p->options.progress);
}

/* A stop was asked for, and what was begun did not get done in time. */
static bool stop_is_due(struct rf_pipeline *p)
{
    if (!*p->options.stop)
        return false;
    if (!p->stop_us)
        p->stop_us = now_us();
    return p->options.scratch || now_us() - p->stop_us >= STOP_US;
}

static void free_parts(struct rf_part_list *list)
{
    if (!list)
        return;
    if (list->reading >= 0)
        rf_output_release(&list->reader);
    free(list->places);
    free(list);
}

/* Units of changes keep the order of their reading until they are begun. */
static void enter_order(struct rf_pipeline *p, struct rf_unit *unit)
{
    unit->order_next = NULL;
    unit->order_link = p->order_end;
    *p->order_end = unit;
    p->order_end = &unit->order_next;
}

static void leave_order(struct rf_pipeline *p, struct rf_unit *unit)
{
    if (!unit->order_link)
        return;
    *unit->order_link = unit->order_next;
    if (unit->order_next)
        unit->order_next->order_link = unit->order_link;
    else
        p->order_end = unit->order_link;
    unit->order_link = NULL;
    if (unit->ready) {
        p->order_ready--;
        p->order_bytes -= rf_unit_output_bytes(unit);
    }
}

/* The pipeline is through with a unit. */
void rf_pipeline_done(struct rf_pipeline *p, struct rf_unit *unit)
{
    if (unit->batch) {
        struct rf_batch *batch = unit->batch == p->current.number ? &p->current : &p->next;

        assert(batch->number == unit->batch && batch->outstanding > 0);
        batch->outstanding--;
        p->batch_units--;
    }
    if (unit->large_out) {
        p->large_out[unit->depth]--;
        p->large_next -= unit->batch == p->next.number;
    }
    leave_order(p, unit);
    *unit->all_link = unit->all_next;
    if (unit->all_next)
        unit->all_next->all_link = unit->all_link;
    p->units--;
    p->bytes -= unit->counted_bytes;
    free_parts(unit->parts);
    unit->parts = NULL;
    for (size_t i = 0; i < p->slow_count; i++) {
        if (p->slow[i] == unit)
            p->slow[i] = p->slow[--p->slow_count];
    }
    rf_unit_release(unit);
}

/* ---- taking units in ---- */

static struct rf_batch *reading_batch(struct rf_pipeline *p)
{
    return p->current.closed ? &p->next : &p->current;
}

static bool mapper_wants(const struct rf_pipeline *p, const struct rf_unit *unit, uint16_t index)
{
    const struct rf_mapper *mapper = rf_version_of(p, unit, index);
    unsigned on;

    if (!mapper || (p->mappers[index].edges_only && !rf_mapper_decl(mapper)->splits))
        return false;
    on = rf_mapper_decl(mapper)->on;
    switch (unit->item.kind) {
    case RF_ITEM_BLOB:
        return on & RF_ON_BLOB;
    case RF_ITEM_FILE:
        return on & RF_ON_FILE;
    case RF_ITEM_PART:
        return true;
    }
    return false;
}

/* The mappers a unit is for, as indexes into the lane's. */
static size_t wanted_mappers(const struct rf_pipeline *p, const struct rf_unit *unit,
                             uint16_t indexes[RF_LANE_MAPPERS_MAX])
{
    size_t count = 0;

    if (unit->only_calls) {
        indexes[0] = unit->mapper;
        return 1;
    }
    for (size_t i = 0; i < p->options.mapper_count; i++) {
        if (mapper_wants(p, unit, (uint16_t)i))
            indexes[count++] = (uint16_t)i;
    }
    return count;
}

/* Whether the result of a unit may be large and stay: its parts are cut from it one by one. */
static bool is_large(const struct rf_pipeline *p, const struct rf_unit *unit)
{
    uint16_t indexes[RF_LANE_MAPPERS_MAX];
    size_t count = wanted_mappers(p, unit, indexes);

    if (unit->item.size <= RF_CONTENT_INLINE_MAX || unit->slow)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (rf_mapper_decl(p->mappers[indexes[i]].mapper)->splits)
            return true;
    }
    return false;
}

/* Results, or why there will be none, are known: to whoever goes on with it. */
static void unit_ready(struct rf_pipeline *p, struct rf_unit *unit)
{
    if (unit == p->fetch.unit) {
        p->fetch.mapped = true;
    } else if (unit->order_link) {
        unit->ready = true;
        p->order_ready++;
        p->order_bytes += rf_unit_output_bytes(unit);
    } else {
        rf_queue_put(&p->ready, unit);
    }
}

static bool is_refused(const struct rf_pipeline *p, const struct rf_unit *unit)
{
    for (size_t i = 0; i < p->refused_count; i++)
        if (strcmp(p->refused[i], unit->key) == 0)
            return true;
    return false;
}

/* Of a unit too many parts came. All that came of it is in the open transaction, so that begins
 * again, and the next time the unit is not cut. */
static enum rf_status refuse(struct rf_pipeline *p, const struct rf_unit *unit,
                             struct rf_error *err)
{
    char(*more)[RF_ITEM_KEY_SIZE] =
        realloc(p->refused, (p->refused_count + 1) * sizeof *p->refused);

    if (!more)
        return rf_error_set(err, RF_NOMEM, "no memory to note an item of too many parts");
    p->refused = more;
    memcpy(p->refused[p->refused_count++], unit->key, sizeof unit->key);
    p->restart = true;
    return rf_error_set(err, RF_LIMIT, "too many parts come of '%s'", unit->key);
}

void rf_pipeline_enter(struct rf_pipeline *p, struct rf_unit *unit, struct rf_batch *batch)
{
    if (batch) {
        unit->batch = batch->number;
        batch->outstanding++;
        p->batch_units++;
    }
    unit->all_next = p->all;
    unit->all_link = &p->all;
    if (p->all)
        p->all->all_link = &unit->all_next;
    p->all = unit;
    if (unit->after.seq)
        enter_order(p, unit);
    rf_versions_choose(p, unit);
    unit->refused = p->refused_count && is_refused(p, unit);
    unit->counted_bytes = rf_unit_bytes(unit);
    p->units++;
    p->bytes += unit->counted_bytes;
    if (unit->kind == RF_UNIT_REMOVE || unit->kind == RF_UNIT_ARRIVED || unit->dead ||
        unit->missing.algo)
        unit_ready(p, unit);
    else
        rf_queue_put(is_large(p, unit) ? &p->large : &p->queued, unit);
}

/* QUEUED -> MAPPING, or READY when no mapper wants it. RF_UNAVAILABLE: the pool is full. */
static enum rf_status submit_unit(struct rf_pipeline *p, struct rf_unit *unit,
                                  struct rf_error *err)
{
    const struct rf_mapper *mappers[RF_LANE_MAPPERS_MAX];
    uint16_t indexes[RF_LANE_MAPPERS_MAX];
    size_t count = wanted_mappers(p, unit, indexes);
    enum rf_status status;

    for (size_t i = 0; i < count; i++)
        mappers[i] = rf_version_of(p, unit, indexes[i]);
    if (count == 0 || !mappers[0]) { /* a park may be for a mapper of which no version takes it */
        unit_ready(p, unit);
        return RF_OK;
    }
    status = rf_pool_submit(p->options.pool, unit->slow ? RF_LANE_SLOW : RF_LANE_FAST,
                            &unit->item, mappers, count, err);
    if (status == RF_UNAVAILABLE)
        rf_error_clear(err);
    return status;
}

/* Those of a later batch wait for the current one, and where changes are shuffled they may have
 * come first: they leave it one slot more. */
static bool has_slot(const struct rf_pipeline *p, const struct rf_unit *unit)
{
    unsigned most = LARGE_MAX;

    if (unit->depth == 0 && unit->batch != p->next.number &&
        p->large_next == p->large_out[0] && RF_SAFEGUARD("index-large-slot"))
        most++;
    return p->large_out[unit->depth] < most;
}

/* Large ones take a slot of their depth until they are DONE, so that few of their results are in
 * memory; those cut from them have slots of their own, so that none waits for what is above it. */
static enum rf_status submit_large(struct rf_pipeline *p, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = p->large.count; i > 0; i--) { /* once around: the others keep their order */
        struct rf_unit *unit = rf_queue_take(&p->large);

        if (status == RF_OK && has_slot(p, unit)) {
            status = submit_unit(p, unit, err);
            if (status == RF_OK) {
                unit->large_out = true;
                p->large_out[unit->depth]++;
                p->large_next += unit->batch == p->next.number;
                continue;
            }
        }
        rf_queue_put(&p->large, unit);
    }
    return status == RF_UNAVAILABLE ? RF_OK : status;
}

static enum rf_status submit_units(struct rf_pipeline *p, struct rf_error *err)
{
    enum rf_status status = submit_large(p, err);

    while (status == RF_OK && p->queued.head) {
        struct rf_unit *unit = rf_queue_take(&p->queued);

        status = submit_unit(p, unit, err);
        if (status != RF_OK)
            rf_queue_put_first(&p->queued, unit);
    }
    return status == RF_UNAVAILABLE ? RF_OK : status; /* the pool is full: take results first */
}

/* ---- reading the change queue ---- */

static bool has_room(const struct rf_pipeline *p)
{
    if (!RF_SAFEGUARD("index-window"))
        return true;
    return p->units < WINDOW_UNITS && p->bytes < WINDOW_BYTES && !p->expanding.head &&
           p->queued.count < WINDOW_UNITS / 2;
}

static void release_shuffled(struct rf_pipeline *p, struct rf_batch *batch)
{
    for (size_t i = p->shuffled; i > 1; i--) { /* Fisher and Yates; xorshift64 (Marsaglia 2003) */
        struct rf_unit *swap;
        size_t j;

        p->random ^= p->random << 13;
        p->random ^= p->random >> 7;
        p->random ^= p->random << 17;
        j = (size_t)(p->random % i);
        swap = p->shuffle[i - 1];
        p->shuffle[i - 1] = p->shuffle[j];
        p->shuffle[j] = swap;
    }
    for (size_t i = 0; i < p->shuffled; i++)
        rf_pipeline_enter(p, p->shuffle[i], batch);
    p->shuffled = 0;
}

static bool batch_full(const struct rf_pipeline *p, const struct rf_batch *batch)
{
    return batch->changes >= p->options.batch_items ||
           (batch->changes &&
            now_us() - batch->started_us >= (int64_t)p->options.batch_ms * 1000);
}

static void close_batch(struct rf_pipeline *p, struct rf_batch *batch)
{
    if (batch->closed)
        return;
    release_shuffled(p, batch);
    batch->closed = true;
}

/* ---- where a batch ends ---- */

/* The place of a unit's change in the current batch; 0: it has none there. */
static uint64_t place_in_batch(const struct rf_pipeline *p, const struct rf_unit *unit)
{
    return unit->batch == p->current.number ? unit->after.seq : 0;
}

/* It is in the transaction from now on, so the batch ends behind its change at the earliest. */
static void note_begun(struct rf_pipeline *p, struct rf_unit *unit)
{
    leave_order(p, unit);
    p->current.written++;
    p->current.written_bytes += rf_unit_output_bytes(unit);
    if (place_in_batch(p, unit) > p->current.begun.seq)
        p->current.begun = unit->after;
}

/* What stands behind all that was begun goes to the next batch. How many units that were. */
static size_t move_units(struct rf_pipeline *p)
{
    size_t count = 0;

    for (struct rf_unit *unit = p->order; unit; unit = unit->order_next) {
        if (place_in_batch(p, unit) <= p->current.begun.seq)
            continue;
        unit->batch = p->next.number;
        p->large_next += unit->large_out;
        count++;
    }
    p->current.outstanding -= count;
    p->next.outstanding += count;
    return count;
}

/* Let the current batch end behind the last change that was begun; those after it are the first of
 * the next batch, whatever became of them. */
static void end_batch(struct rf_pipeline *p)
{
    struct rf_batch *current = &p->current, *next = &p->next;
    size_t moved;

    release_shuffled(p, reading_batch(p));
    moved = move_units(p);
    if (moved) {
        if (next->changes == 0) {
            next->to = current->to;
            next->closed = current->closed;
            next->started_us = now_us();
        }
        next->changes += moved;
        current->changes = current->begun.seq ? current->changes - moved : 0;
        current->to = current->begun; /* nowhere, when only parks were written */
    }
    current->closed = current->ended = true;
}

/* Whether the transaction has taken as much or as long as a batch may. */
static bool batch_heavy(const struct rf_pipeline *p)
{
    const struct rf_batch *batch = &p->current;

    if (!p->open || batch->begun.seq == 0 || batch->ended)
        return false;
    return batch->written >= p->options.batch_items || batch->written_bytes >= BATCH_BYTES ||
           now_us() - p->opened_us >= (int64_t)p->options.batch_ms * 1000;
}

/* ---- reading ---- */

/* Bad records cost themselves only; `store verify` names them. change->seq is the first of them,
 * its cursor stands behind the last. */
static enum rf_status pass_damaged(struct rf_pipeline *p, struct rf_batch *batch,
                                   const struct rf_change *change, const char *why,
                                   struct rf_error *err)
{
    struct rf_lost *more = realloc(batch->lost, (batch->lost_count + 1) * sizeof *more);

    if (!more)
        return rf_error_set(err, RF_NOMEM, "no memory to note damaged changes");
    more[batch->lost_count++] = (struct rf_lost){change->seq, change->cursor.seq};
    batch->lost = more;
    batch->begun = change->cursor; /* passed over for good: the batch does not end before it */
    warn(p, why);
    p->options.progress->damaged += change->cursor.seq - change->seq + 1;
    return RF_OK;
}

static void forget_lost(struct rf_batch *batch)
{
    free(batch->lost);
    batch->lost = NULL;
    batch->lost_count = 0;
}

static bool is_sampled(const struct rf_sample *sample, const struct rf_change *change)
{
    return !change->part && rf_sample_number(sample, &change->ref) <= sample->most;
}

/* Read changes while there is room. Sets at_end when the queue, or until_seq, is reached. */
static enum rf_status read_changes(struct rf_pipeline *p, uint64_t until_seq, struct rf_error *err)
{
    int64_t started = now_us();

    p->at_end = false;
    while (has_room(p) && !p->next.closed && !*p->options.stop) {
        struct rf_batch *batch = reading_batch(p);
        struct rf_error why = {0};
        struct rf_change change = {0};
        struct rf_unit *unit;
        struct rf_cursor at;
        enum rf_status status;

        rf_feed_cursor(p->feed, &at);
        if (!p->has_seen && at.seq >= until_seq) {
            p->at_end = true;
            break;
        }
        if (p->has_seen) {
            change = p->seen;
            p->has_seen = false;
            status = p->seen_status;
            why = p->seen_why;
        } else {
            status = rf_feed_next(p->feed, &change, 0, &why);
        }
        if (status == RF_TIMEOUT || status == RF_CANCELLED) {
            p->at_end = true;
            break;
        }
        unit = NULL;
        if (status == RF_CORRUPT && change.cursor.seq > 0) {
            status = pass_damaged(p, batch, &change, why.message, err);
            if (status != RF_OK)
                return status;
        } else if (status != RF_OK) {
            if (err)
                *err = why;
            return status;
        } else {
            if (!p->options.sample || is_sampled(p->options.sample, &change))
                status = rf_unit_from_change(&unit, p->options.reader, p->feed, &change, err);
            if (status != RF_OK)
                return status;
        }
        if (batch->changes++ == 0)
            batch->started_us = now_us();
        batch->to = change.cursor;
        if (unit)
            unit->after = change.cursor;
        if (unit && p->options.shuffle_seed) {
            p->shuffle[p->shuffled++] = unit;
            if (p->shuffled == RF_SHUFFLE_BLOCK)
                release_shuffled(p, batch);
        } else if (unit) {
            rf_pipeline_enter(p, unit, batch);
        }
        if (batch_full(p, batch))
            close_batch(p, batch);
    }
    if (p->at_end && p->shuffled)
        release_shuffled(p, reading_batch(p));
    p->options.progress->feed_us += (uint64_t)(now_us() - started);
    return RF_OK;
}

/* ---- writing ---- */

enum rf_status rf_pipeline_begin(struct rf_pipeline *p, struct rf_error *err)
{
    enum rf_status status;

    if (p->open)
        return RF_OK;
    p->before = *p->options.progress;
    assert(rf_writer_idle(p->writer)); /* what it writes belongs to an open transaction */
    status = rf_sink_begin(p->options.sink, p->options.lane, p->position, err);
    p->open = status == RF_OK;
    p->opened_us = now_us();
    p->order_told = 0;
    if (status == RF_OK && p->chained)
        status = rf_sink_share(p->options.sink, p->chained, err);
    return status;
}

/* What a call needs, as it said itself. */
static enum rf_status collect_needs(struct rf_pipeline *p, const struct rf_unit *unit,
                                    const struct rf_call *call, struct rf_sink_call *to,
                                    struct rf_error *err)
{
    struct rf_output_reader reader;
    struct rf_record record;
    struct rf_sink_need *needs;
    enum rf_status status;

    if (call->needs == 0)
        return RF_OK;
    needs = rf_arena_alloc(&p->scratch, call->needs * sizeof *needs);
    rf_output_init(&reader, call->output, rf_mapper_decl(call->mapper), unit->item.size);
    while ((status = rf_output_next(&reader, &record, err)) == RF_OK) {
        if (record.kind == RF_RECORD_NEED)
            needs[to->need_count++] =
                (struct rf_sink_need){.ref = record.ref, .present = record.present};
    }
    rf_output_release(&reader);
    to->needs = needs;
    return status == RF_END ? RF_OK : status;
}

/* The content blobs of a file are needs of whatever was mapped from it. They stand before what the
 * mapper asked for: the content is looked for first, so its absence is what a park names first. */
static enum rf_status add_file_needs(struct rf_pipeline *p, const struct rf_unit *unit,
                                     struct rf_sink_call *to, struct rf_error *err)
{
    struct rf_sink_need *needs;
    size_t chunks = unit->file ? unit->file->part_count : 0;

    if (chunks == 0)
        return RF_OK;
    needs = rf_arena_try(&p->scratch, (to->need_count + chunks) * sizeof *needs);
    if (!needs)
        return rf_error_set(err, RF_LIMIT, "its content has too many chunks");
    for (size_t i = 0; i < chunks; i++)
        needs[i] = (struct rf_sink_need){.ref = unit->file->parts[i].ref, .present = true};
    if (to->need_count)
        memcpy(needs + chunks, to->needs, to->need_count * sizeof *needs);
    to->needs = needs;
    to->need_count += chunks;
    return RF_OK;
}

/* Everything a call depends on beside its own item's bytes. */
static enum rf_status fill_needs(struct rf_pipeline *p, const struct rf_unit *unit,
                                 const struct rf_call *call, struct rf_sink_call *to,
                                 struct rf_error *err)
{
    enum rf_status status = collect_needs(p, unit, call, to, err);

    return status == RF_OK ? add_file_needs(p, unit, to, err) : status;
}

static void set_dead_call(struct rf_sink_call *to, enum rf_dead_class dead_class,
                          const char *reason)
{
    to->outcome = RF_SINK_DEAD;
    to->dead_class = dead_class;
    to->reason = reason;
    to->parts = NULL;
    to->part_count = 0;
    to->output = rf_bytes(NULL, 0);
}

/* Rows and needs of a call that was mapped; its parts follow once they are written. */
static enum rf_status fill_rows(struct rf_pipeline *p, const struct rf_unit *unit,
                                const struct rf_call *call, struct rf_sink_call *to,
                                struct rf_error *err)
{
    if (call->parts && unit->depth + 1 > RF_PART_DEPTH_MAX) {
        set_dead_call(to, RF_DEAD_LIMIT, "its parts would be nested too deep (16 levels)");
        return RF_OK;
    }
    if (call->parts && unit->refused) {
        set_dead_call(to, RF_DEAD_LIMIT,
                      "more parts would come of it, parts of parts included, than index.parts and "
                      "one for each of its bytes");
        return RF_OK;
    }
    to->outcome = RF_SINK_ROWS;
    to->output = call->output;
    return fill_needs(p, unit, call, to, err);
}

static enum rf_status fill_call(struct rf_pipeline *p, struct rf_unit *unit,
                                const struct rf_call *call, struct rf_sink_call *to,
                                struct rf_error *err)
{
    to->attempts = unit->attempts + 1;
    switch (call->outcome) {
    case RF_CALL_ROWS:
        return fill_rows(p, unit, call, to, err);
    case RF_CALL_NONE:
        to->outcome = RF_SINK_NONE;
        return RF_OK;
    case RF_CALL_FAILED:
        set_dead_call(to, RF_DEAD_MAPPER, call->message);
        return RF_OK;
    case RF_CALL_LIMIT:
        set_dead_call(to, RF_DEAD_LIMIT, call->message);
        return RF_OK;
    case RF_CALL_SLOW:
        to->outcome = RF_SINK_PARKED_SLOW;
        to->reason = "waits for the slow lane";
        unit->tally.slow = true;
        return RF_OK;
    case RF_CALL_MISSING:
        to->outcome = RF_SINK_PARKED_NEED;
        to->reason = "needs a blob that is not there";
        unit->tally.need = true;
        return fill_needs(p, unit, call, to, err);
    }
    return rf_error_set(err, RF_INVALID, "unknown outcome %d of a call", (int)call->outcome);
}

/* Every mapper that wants the unit gets the same outcome: its content is not there, or damaged. */
static size_t fill_without_content(struct rf_pipeline *p, struct rf_unit *unit,
                                   struct rf_sink_call *calls)
{
    uint16_t indexes[RF_LANE_MAPPERS_MAX];
    size_t count = wanted_mappers(p, unit, indexes);
    struct rf_sink_need *need = NULL;

    if (!unit->dead) {
        need = rf_arena_alloc(&p->scratch, sizeof *need);
        need->ref = unit->missing;
        unit->tally.need = true;
    }
    for (size_t i = 0; i < count; i++) {
        calls[i] = (struct rf_sink_call){.mapper = indexes[i], .attempts = unit->attempts + 1};
        if (unit->dead) {
            set_dead_call(&calls[i], unit->dead_class ? unit->dead_class : RF_DEAD_BLOB,
                          unit->dead_reason);
        } else {
            calls[i].outcome = RF_SINK_PARKED_NEED;
            calls[i].reason = "its content is not in the store";
            calls[i].needs = need;
            calls[i].need_count = 1;
        }
    }
    return count;
}

static enum rf_status put_item(struct rf_pipeline *p, struct rf_unit *unit,
                               const struct rf_sink_call *calls, size_t count, bool *stale,
                               struct rf_error *err)
{
    static const enum rf_sink_item_kind kinds[] = {
        [RF_ITEM_BLOB] = RF_SINK_BLOB,
        [RF_ITEM_FILE] = RF_SINK_FILE,
        [RF_ITEM_PART] = RF_SINK_PART,
    };
    struct rf_sink_item item = {
        .key = unit->key,
        .kind = kinds[unit->item.kind],
        .ref = unit->item.ref,
        .size = unit->item.size,
        .seq = unit->item.seq,
        .timestamp_us = unit->item.timestamp_us,
        .media = unit->item.media,
        .name = unit->item.name,
        .mtime_us = unit->item.mtime_us,
        .calls = calls,
        .call_count = count,
        .only_calls = unit->only_calls,
    };
    int64_t started = now_us();
    enum rf_status status = rf_sink_put(p->options.sink, &item, stale, err);

    unit->tally.sink_us += (uint64_t)(now_us() - started);
    return status;
}

static void tally_calls(const struct rf_pipeline *p, struct rf_unit *unit,
                        const struct rf_sink_call *calls, size_t count)
{
    struct rf_unit_tally *tally = &unit->tally;
    bool matched = false;

    tally->items++;
    for (size_t i = 0; i < count; i++) {
        matched |= calls[i].outcome != RF_SINK_NONE;
        tally->dead_letters += calls[i].outcome == RF_SINK_DEAD;
        tally->parked += calls[i].outcome == RF_SINK_PARKED_SLOW ||
                         calls[i].outcome == RF_SINK_PARKED_NEED;
        if (unit->result && calls[i].outcome == RF_SINK_ROWS) {
            for (size_t j = 0; j < unit->result->call_count; j++) {
                if (unit->result->calls[j].mapper == rf_version_of(p, unit, calls[i].mapper))
                    tally->rows += unit->result->calls[j].rows;
            }
        }
    }
    tally->unmatched += !matched && unit->kind == RF_UNIT_ITEM && !unit->only_calls &&
                        unit->item.kind != RF_ITEM_PART && !p->options.partial;
}

/* A park of a mapper with a chain. Without a result no version takes the item; a part whose holders
 * changed while it was mapped has to be mapped by another version: it waits again. */
static enum rf_status check_version(struct rf_pipeline *p, struct rf_unit *unit,
                                    struct rf_sink_call *calls, size_t *count,
                                    struct rf_error *err)
{
    int version = unit->versions[unit->mapper];
    enum rf_status status = RF_OK;

    if (unit->item.kind == RF_ITEM_PART)
        status = rf_version_of_part(p, unit->key, unit->item.media, unit->mapper, &version, err);
    if (status != RF_OK)
        return status;
    if (version != unit->versions[unit->mapper]) {
        unit->tally.slow = true;
        calls[0] = (struct rf_sink_call){.mapper = unit->mapper, .outcome = RF_SINK_PARKED_SLOW,
                                         .reason = "waits for the slow lane"};
        *count = 1;
    } else if (!unit->result) {
        calls[0] = (struct rf_sink_call){.mapper = unit->mapper, .outcome = RF_SINK_NONE};
        *count = 1;
    }
    return RF_OK;
}

static enum rf_status fill_calls(struct rf_pipeline *p, struct rf_unit *unit,
                                 struct rf_sink_call *calls, size_t *count, struct rf_error *err)
{
    uint16_t indexes[RF_LANE_MAPPERS_MAX];
    size_t wanted = wanted_mappers(p, unit, indexes);
    enum rf_status status = RF_OK;

    if (unit->dead || unit->missing.algo) {
        *count = fill_without_content(p, unit, calls);
        return RF_OK;
    }
    assert(!unit->result || unit->result->call_count == wanted);
    *count = unit->result ? wanted : 0;
    for (size_t i = 0; i < *count && status == RF_OK; i++) {
        calls[i] = (struct rf_sink_call){.mapper = indexes[i]};
        status = fill_call(p, unit, &unit->result->calls[i], &calls[i], err);
    }
    if (status == RF_OK && unit->only_calls && p->chained >> unit->mapper & 1)
        status = check_version(p, unit, calls, count, err);
    return status;
}

/* A part that nothing reaches any more (its parent went in this batch) is not written. */
static enum rf_status part_is_reached(struct rf_pipeline *p, const struct rf_unit *unit, bool *out,
                                      struct rf_error *err)
{
    *out = true;
    if (unit->kind != RF_UNIT_PART && unit->item.kind != RF_ITEM_PART)
        return RF_OK;
    return rf_sink_has_part(p->options.sink, p->options.lane, unit->key, out, err);
}

static struct rf_part_spec spec_of(const struct rf_record *record)
{
    return (struct rf_part_spec){.inlined = record->inlined, .head = record->head,
                                 .offset = record->offset, .size = record->size,
                                 .bytes = record->bytes, .media = record->media};
}

/* Hash one part and say whether it makes an item; *keep false: it equals an ancestor. */
static enum rf_status look_at_part(struct rf_pipeline *p, struct rf_unit *unit,
                                   const struct rf_record *record, struct part *part,
                                   struct rf_sink_part *edge, bool *keep, struct rf_error *err)
{
    struct rf_part_spec spec = spec_of(record);
    enum rf_status status =
        rf_unit_hash_part(p->options.reader, unit, &spec, &part->ref, part->key, err);

    *keep = status == RF_OK;
    if (status != RF_OK)
        return status == RF_EXISTS ? RF_OK : status;
    memcpy(part->media, record->media.data, record->media.size);
    part->media[record->media.size] = '\0';
    part->name = record->name.data
                     ? strndup((const char *)record->name.data, record->name.size)
                     : NULL;
    *edge = (struct rf_sink_part){.key = part->key, .ref = part->ref, .media = part->media,
                                  .name = part->name,
                                  .inlined = record->inlined || record->head.data,
                                  .offset = record->offset,
                                  .size = record->inlined ? record->bytes.size
                                                          : record->head.size + record->size};
    return RF_OK;
}

/* A part that something reaches is mapped already. Asked before its edge is written. */
static enum rf_status look_for_known(struct rf_pipeline *p, struct part *parts, size_t count,
                                     struct rf_error *err)
{
    const char *keys[PARTS_CHUNK] = {NULL};
    enum rf_status status;

    for (size_t i = 0; i < count; i++)
        keys[i] = parts[i].key;
    status = rf_sink_expect(p->options.sink, keys, count, err);
    for (size_t i = 0; i < count && status == RF_OK; i++) {
        bool known = false;

        status = rf_sink_has_part(p->options.sink, p->options.lane, parts[i].key, &known, err);
        parts[i].keep = !known;
    }
    return status;
}

static enum rf_status keep_place(struct rf_part_list *list, const struct part *part, uint16_t call,
                                 struct rf_error *err)
{
    if (list->count == list->capacity) {
        size_t more = list->capacity ? 2 * list->capacity : 64;
        struct part_place *grown = realloc(list->places, more * sizeof *grown);

        if (!grown)
            return rf_error_set(err, RF_NOMEM, "no memory for the parts of an item");
        list->places = grown;
        list->capacity = more;
    }
    list->places[list->count++] =
        (struct part_place){.offset = part->offset, .call = call};
    return RF_OK;
}

/* Write the edges of a chunk; of what is to be mapped, remember where it stands. An edge makes its
 * part known, so that a part is kept once however often it is cut. */
static enum rf_status write_chunk(struct rf_pipeline *p, const struct rf_unit *unit,
                                  struct part *parts, struct rf_sink_part *edges, size_t count,
                                  uint16_t call, uint16_t mapper, struct rf_part_list *list,
                                  struct rf_error *err)
{
    enum rf_status status = count ? look_for_known(p, parts, count, err) : RF_OK;

    for (size_t i = 0; i < count && status == RF_OK; i++) {
        for (size_t j = 0; j < i && parts[i].keep; j++)
            parts[i].keep = strcmp(parts[i].key, parts[j].key) != 0;
        if (p->chained)
            status = rf_versions_note_edge(p, unit, parts[i].key, !parts[i].keep, err);
        if (parts[i].keep && status == RF_OK)
            status = keep_place(list, &parts[i], call, err);
    }
    if (status == RF_OK && count)
        status = rf_sink_put_parts(p->options.sink, mapper, edges, count, err);
    for (size_t i = 0; i < count; i++)
        free(parts[i].name);
    return status;
}

/* Write the edges of one call, chunk by chunk. */
static enum rf_status write_parts(struct rf_pipeline *p, struct rf_unit *unit, uint16_t call_index,
                                  uint16_t mapper, struct rf_part_list *list, struct rf_error *err)
{
    const struct rf_call *call = &unit->result->calls[call_index];
    struct rf_output_reader reader;
    struct rf_record record;
    struct part *parts = malloc(PARTS_CHUNK * sizeof *parts);
    struct rf_sink_part *edges = malloc(PARTS_CHUNK * sizeof *edges);
    size_t count = 0, offset = 0;
    enum rf_status status = parts && edges ? RF_OK : RF_NOMEM, written;

    rf_output_init(&reader, call->output, rf_mapper_decl(call->mapper), unit->item.size);
    while (status == RF_OK && (status = rf_output_next(&reader, &record, err)) == RF_OK) {
        bool keep = false;

        if (record.kind == RF_RECORD_PART) {
            parts[count].offset = (uint32_t)offset;
            status = look_at_part(p, unit, &record, &parts[count], &edges[count], &keep, err);
            count += keep && status == RF_OK;
        }
        offset = reader.at;
        if (count == PARTS_CHUNK) {
            written = write_chunk(p, unit, parts, edges, count, call_index, mapper, list, err);
            status = status == RF_OK ? written : status;
            count = 0;
            if (status == RF_OK && stop_is_due(p))
                status = rf_error_set(err, RF_CANCELLED, "stopped");
        }
    }
    if (status == RF_END)
        status = write_chunk(p, unit, parts, edges, count, call_index, mapper, list, err);
    else
        for (size_t i = 0; i < count; i++)
            free(parts[i].name);
    rf_output_release(&reader);
    free(parts);
    free(edges);
    return status;
}

static enum rf_status write_all_parts(struct rf_pipeline *p, struct rf_unit *unit,
                                      const struct rf_sink_call *calls, size_t count,
                                      struct rf_error *err)
{
    struct rf_part_list *list = calloc(1, sizeof *list);
    enum rf_status status = RF_OK;

    if (!list)
        return rf_error_set(err, RF_NOMEM, "no memory for the parts of an item");
    list->reading = -1;
    for (size_t i = 0; i < count && status == RF_OK; i++) {
        if (calls[i].outcome == RF_SINK_ROWS && unit->result->calls[i].parts)
            status = write_parts(p, unit, (uint16_t)i, calls[i].mapper, list, err);
    }
    if (status == RF_OK && list->count)
        unit->parts = list;
    else
        free_parts(list);
    return status;
}

static bool any_parts(const struct rf_unit *unit, const struct rf_sink_call *calls, size_t count)
{
    for (size_t i = 0; i < count && unit->result && !unit->dead && !unit->missing.algo; i++) {
        if (calls[i].outcome == RF_SINK_ROWS && unit->result->calls[i].parts)
            return true;
    }
    return false;
}

/* Write a unit with what is known of it: rows first, then the edges to its parts. */
static enum rf_status write_once(struct rf_pipeline *p, struct rf_unit *unit, struct rf_error *err)
{
    struct rf_sink_call calls[RF_LANE_MAPPERS_MAX];
    bool stale = false;
    size_t count = 0;
    enum rf_status status;

    rf_arena_clear(&p->scratch);
    status = fill_calls(p, unit, calls, &count, err);
    if (status == RF_OK)
        status = put_item(p, unit, calls, count, &stale, err);
    if (status != RF_OK || stale)
        return status;
    tally_calls(p, unit, calls, count);
    return any_parts(unit, calls, count) ? write_all_parts(p, unit, calls, count, err) : RF_OK;
}

/* READY -> WRITTEN, of an item or part. When its content goes, or turns out damaged, while parts
 * are cut from it, it is written once more as what it is then. */
static enum rf_status write_result(struct rf_pipeline *p, struct rf_unit *unit,
                                   struct rf_error *err)
{
    struct rf_error why = {0};
    bool reached;
    enum rf_status status = part_is_reached(p, unit, &reached, err);

    if (status != RF_OK || !reached)
        return status;
    status = write_once(p, unit, &why);
    if (status == RF_CORRUPT || status == RF_LIMIT) {
        unit->dead = true;
        free(unit->dead_reason);
        unit->dead_reason = strdup(why.message);
        status = write_once(p, unit, err);
    } else if (status == RF_NOT_FOUND && unit->missing.algo) {
        status = write_once(p, unit, err);
    } else if (status != RF_OK && err) {
        *err = why;
    }
    return status;
}

/* A tombstone. What needs the blob is parked; where it was put again, its arrival may have been
 * written before this, and the sink knows of no later change when the blob makes no item. */
static enum rf_status write_removal(struct rf_pipeline *p, const struct rf_unit *unit,
                                    struct rf_error *err)
{
    const struct rf_blobref *ref = &unit->item.ref;
    struct rf_stat stat;
    enum rf_status status = rf_sink_remove(p->options.sink, ref, unit->item.seq,
                                           unit->item.timestamp_us, err);

    if (status == RF_OK && RF_SAFEGUARD("index-put-again") &&
        rf_store_stat(p->options.store, ref, &stat, NULL) == RF_OK)
        status = rf_sink_arrived(p->options.sink, ref, err);
    return status;
}

static enum rf_status write_unit(struct rf_pipeline *p, struct rf_unit *unit,
                                 struct rf_error *err)
{
    enum rf_status status = RF_OK;

    if (unit->kind == RF_UNIT_REMOVE)
        return write_removal(p, unit, err);
    if (unit->kind != RF_UNIT_ARRIVED)
        status = write_result(p, unit, err);
    if (status == RF_OK && unit->kind != RF_UNIT_PART)
        status = rf_sink_arrived(p->options.sink, &unit->item.ref, err);
    return status;
}

/* Tell the sink what is about to be written: a unit and those behind it, in its queue or in the
 * order of their changes. How many it was told of. */
static enum rf_status expect_units(struct rf_pipeline *p, const struct rf_unit *unit,
                                   size_t *told, struct rf_error *err)
{
    const char *keys[RF_SINK_EXPECT_MAX] = {NULL};
    size_t count = 0;

    for (*told = 0; unit && *told < RF_SINK_EXPECT_MAX; ++*told) {
        if (unit->kind != RF_UNIT_ARRIVED)
            keys[count++] = unit->key;
        unit = unit->order_link ? unit->order_next : unit->next;
    }
    return rf_sink_expect(p->options.sink, keys, count, err);
}

/* WRITING: in the writer's thread. Of the pipeline it touches the sink, scratch, and what does not
 * change in a drive. */
static enum rf_status write_units(void *user, struct rf_unit *units, struct rf_error *err)
{
    struct rf_pipeline *p = user;
    size_t told;
    enum rf_status status = expect_units(p, units, &told, err);

    for (struct rf_unit *unit = units; unit && status == RF_OK; unit = unit->next) {
        if (atomic_load(&p->undoing))
            return rf_error_set(err, RF_CANCELLED, "what is under way is undone");
        status = write_unit(p, unit, err);
    }
    return status;
}

/* Enter what was written of a unit into the pipeline's books. */
static void count_written(struct rf_pipeline *p, const struct rf_unit *unit)
{
    struct rf_index_progress *progress = p->options.progress;
    const struct rf_unit_tally *tally = &unit->tally;

    progress->items += tally->items;
    progress->rows += tally->rows;
    progress->unmatched += tally->unmatched;
    progress->dead_letters += tally->dead_letters;
    progress->parked += tally->parked;
    progress->sink_us += tally->sink_us;
    p->current.parked_need |= tally->need;
    p->parks_dirty |= tally->slow;
}

/* WRITING -> DONE, of all that the writer is through with. */
static void finish_written(struct rf_pipeline *p, struct rf_queue *written)
{
    struct rf_unit *unit;

    while ((unit = rf_queue_take(written))) {
        count_written(p, unit);
        rf_pipeline_done(p, unit);
    }
}

static enum rf_status take_written(struct rf_pipeline *p, struct rf_error *err)
{
    struct rf_queue written;
    enum rf_status status;

    rf_queue_init(&written);
    status = rf_writer_take(p->writer, &written, err);
    finish_written(p, &written);
    return status;
}

enum rf_status rf_pipeline_settle(struct rf_pipeline *p, struct rf_error *err)
{
    struct rf_queue written;
    enum rf_status status;

    if (rf_writer_idle(p->writer))
        return RF_OK;
    rf_queue_init(&written);
    status = rf_writer_settle(p->writer, &written, err);
    finish_written(p, &written);
    return status;
}

/* The part at the list's place, made a unit. Its bytes are hashed once more: keys are not kept. */
static enum rf_status next_child(struct rf_pipeline *p, struct rf_unit *unit,
                                 struct rf_part_list *list, struct rf_unit **out,
                                 struct rf_error *err)
{
    const struct part_place *place = &list->places[list->at];
    const struct rf_call *call = &unit->result->calls[place->call];
    struct rf_part_spec spec;
    struct rf_record record;
    struct rf_blobref ref;
    char key[RF_ITEM_KEY_SIZE];
    enum rf_status status;

    if (list->reading != place->call) {
        if (list->reading >= 0)
            rf_output_release(&list->reader);
        rf_output_init(&list->reader, call->output, rf_mapper_decl(call->mapper), unit->item.size);
        list->reading = place->call;
    }
    list->reader.at = place->offset;
    list->reader.parts = 0; /* its limits were held at the first reading */
    status = rf_output_next(&list->reader, &record, err);
    assert(status != RF_OK || record.kind == RF_RECORD_PART);
    if (status != RF_OK)
        return status;
    spec = spec_of(&record);
    status = rf_unit_hash_part(p->options.reader, unit, &spec, &ref, key, err);
    if (status == RF_NOT_FOUND || status == RF_CORRUPT || status == RF_EXISTS) {
        /* It could be read a moment ago and cannot now: begin again from the committed position. */
        rf_error_clear(err);
        return rf_error_set(err, RF_UNAVAILABLE, "content of '%s' went while it was read",
                            unit->key);
    }
    return status == RF_OK
               ? rf_unit_from_part(out, p->options.reader, unit, &spec, &ref, key, err)
               : status;
}

/*
 * Units that wait for their parts to be done count for nothing here: when there are no others, room
 * would never come. Since the deepest goes first, there are at most as many of them on each level
 * of parts within parts as the window has units. Nor does room come from units that are mapped
 * already and wait for those before them, or are large and wait for a slot, which those may hold
 * whose parts are cut here: a few parts go on however many of these fill the window.
 */
static bool has_room_for_part(const struct rf_pipeline *p)
{
    size_t active = p->units - p->expanding.count;
    size_t waiting = p->order_ready + p->large.count;

    if (active < WINDOW_UNITS && p->bytes < WINDOW_BYTES)
        return true;
    return active < waiting + PARTS_ANYWAY;
}

/* WRITTEN -> DONE: the unit's new parts become units of the current batch, as room allows: their
 * edges are in its transaction. */
static enum rf_status expand_parts(struct rf_pipeline *p, struct rf_error *err)
{
    while (p->expanding.head && has_room_for_part(p)) {
        struct rf_unit *unit = p->expanding.head, *child = NULL;
        struct rf_part_list *list = unit->parts;
        enum rf_status status = next_child(p, unit, list, &child, err);

        if (status != RF_OK)
            return status;
        child->top = unit->top ? unit->top : unit;
        child->top->below++;
        rf_pipeline_enter(p, child, &p->current);
        if (child->top->below > p->options.parts_max + child->top->item.size &&
            RF_SAFEGUARD("index-parts-below"))
            return refuse(p, child->top, err);
        if (++list->at == list->count) {
            rf_queue_take(&p->expanding);
            rf_pipeline_done(p, unit);
        }
    }
    return RF_OK;
}

/* Whether a unit was cut into parts: their edges are written piece by piece. */
static bool has_parts(const struct rf_unit *unit)
{
    for (size_t i = 0; unit->result && i < unit->result->call_count; i++) {
        if (unit->result->calls[i].parts)
            return true;
    }
    return false;
}

/* The sink becomes this thread's to write a unit with parts; *told: of how many, this one and those
 * behind it, it was told. */
static enum rf_status expect_parted(struct rf_pipeline *p, const struct rf_unit *unit, size_t *told,
                                    struct rf_error *err)
{
    enum rf_status status = rf_pipeline_settle(p, err);

    if (status == RF_OK && *told == 0)
        status = expect_units(p, unit, told, err);
    *told -= *told > 0;
    return status;
}

/* READY -> WRITTEN or DONE, here: cutting reads content, which is this thread's. */
static enum rf_status write_with_parts(struct rf_pipeline *p, struct rf_unit *unit,
                                       struct rf_error *err)
{
    enum rf_status status = write_unit(p, unit, err);

    count_written(p, unit);
    if (status != RF_OK || !unit->parts) {
        rf_pipeline_done(p, unit);
        return status;
    }
    rf_queue_put_first(&p->expanding, unit);
    return expand_parts(p, err);
}

/* Whether a unit in order may be begun. While one is cut into parts no other is. */
static bool may_begin(const struct rf_pipeline *p, const struct rf_unit *unit)
{
    return unit->ready && unit->batch == p->current.number &&
           !(p->expanding.head && has_parts(unit) && RF_SAFEGUARD("changes-in-order"));
}

/* The unit to write next; NULL: there is none. Changes go in order, but for memory's sake. */
static struct rf_unit *next_to_write(const struct rf_pipeline *p)
{
    struct rf_unit *unit = p->order;

    if (p->ready.head)
        return p->ready.head;
    if (p->options.shuffle_seed) /* those moved to the next batch may stand between these */
        while (unit && unit->batch != p->current.number)
            unit = unit->order_next;
    while (unit && !may_begin(p, unit) &&
           (p->order_bytes > ORDER_BYTES || !RF_SAFEGUARD("changes-in-order")))
        unit = unit->order_next;
    return unit && may_begin(p, unit) ? unit : NULL;
}

/* READY -> WRITING, of all that may be written with the current batch. */
static enum rf_status write_ready(struct rf_pipeline *p, struct rf_error *err)
{
    struct rf_unit *unit;
    struct rf_queue group;
    enum rf_status status = RF_OK;
    size_t told = 0; /* of parts that are ready */

    rf_queue_init(&group);
    while (status == RF_OK && (unit = next_to_write(p)) != NULL) {
        bool parts = has_parts(unit);

        status = rf_pipeline_begin(p, err);
        if (parts || group.count == WRITE_GROUP)
            rf_writer_put(p->writer, &group);
        if (parts && status == RF_OK)
            status = expect_parted(p, unit, unit->order_link ? &p->order_told : &told, err);
        if (status != RF_OK)
            break;
        if (!unit->order_link)
            rf_queue_take(&p->ready);
        note_begun(p, unit);
        if (parts)
            status = write_with_parts(p, unit, err);
        else
            rf_queue_put(&group, unit);
    }
    rf_writer_put(p->writer, &group);
    return status;
}

/* Let the brake see how calls ended. */
static void note_calls(struct rf_pipeline *p, const struct rf_unit *unit)
{
    enum rf_pool_lane lane = unit->slow ? RF_LANE_SLOW : RF_LANE_FAST;
    char line[RF_ERROR_SIZE];

    for (size_t i = 0; i < unit->result->call_count && unit->result->status == RF_OK; i++) {
        const struct rf_call *call = &unit->result->calls[i];

        if (!rf_brake_note(p->options.brake, lane, call))
            continue;
        snprintf(line, sizeof line,
                 "mapper '%s' is stopped: its slow calls used %g s of CPU one after another and "
                 "all failed; what waits for it stays parked",
                 rf_mapper_decl(call->mapper)->name,
                 (double)rf_brake_budget_ms(p->options.brake) / 1000);
        warn(p, line);
    }
}

/* MAPPING -> READY, for all results that are there; waits up to timeout_ms for the first. */
static enum rf_status take_results(struct rf_pipeline *p, int timeout_ms, struct rf_error *err)
{
    for (;;) {
        struct rf_result *result;
        struct rf_unit *unit;
        enum rf_status status = rf_pool_next(p->options.pool, &result, timeout_ms, err);

        if (status == RF_TIMEOUT || status == RF_END) {
            rf_error_clear(err);
            return RF_OK;
        }
        if (status != RF_OK)
            return status;
        timeout_ms = 0;
        unit = result->item->user;
        if (result->status == RF_CORRUPT || result->status == RF_INVALID) {
            unit->dead = true;
            unit->dead_reason = strdup(result->error.message);
        } else if (result->status != RF_OK &&
                   !(result->status == RF_NOT_FOUND && unit->missing.algo)) {
            status = result->status;
            if (err)
                *err = result->error;
            rf_result_free(result);
            unit_ready(p, unit);
            return status;
        }
        unit->result = result;
        p->taken++;
        note_calls(p, unit);
        unit_ready(p, unit);
    }
}

/* ---- committing ---- */

static void begin_next_batch(struct rf_pipeline *p)
{
    uint64_t number = p->next.number;

    assert(!p->ready.head);
    p->current = p->next;
    p->next = (struct rf_batch){.number = number + 1};
    p->large_next = 0;
}

static enum rf_status commit_batch(struct rf_pipeline *p, struct rf_error *err)
{
    struct rf_batch *batch = &p->current;
    char to[RF_POSITION_SIZE];
    int64_t started = now_us();
    bool parked_need = batch->parked_need;
    enum rf_status status;

    assert(batch->outstanding == 0 && rf_writer_idle(p->writer));
    if (batch->to.seq)
        rf_cursor_format(&batch->to, to);
    else /* only parks were written */
        memcpy(to, p->position, sizeof to);
    status = rf_pipeline_begin(p, err);
    if (status == RF_OK)
        status = rf_versions_wake(p, err);
    for (size_t i = 0; i < batch->lost_count && status == RF_OK; i++)
        status = rf_sink_lost(p->options.sink, batch->lost[i].first, batch->lost[i].last, err);
    if (status == RF_OK)
        status = rf_sink_commit(p->options.sink, to, err);
    p->options.progress->sink_us += (uint64_t)(now_us() - started);
    if (status != RF_OK)
        return status;
    p->open = false;
    if (batch->to.seq) {
        memcpy(p->position, to, sizeof p->position);
        p->position_seq = batch->to.seq;
    }
    p->parks_dirty = true;
    forget_lost(batch);
    begin_next_batch(p);
    tell_progress(p, false);
    return parked_need ? rf_parks_check_needs(p, err) : RF_OK;
}

/* ---- the loop ---- */

/* Forget everything under way. */
static void forget_units(struct rf_pipeline *p)
{
    atomic_store(&p->undoing, true);
    (void)!rf_pipeline_settle(p, NULL);
    atomic_store(&p->undoing, false);
    p->again.count = 0;
    forget_lost(&p->current);
    forget_lost(&p->next);
    rf_pool_cancel(p->options.pool);
    rf_parks_drop_fetch(p);
    while (p->all)
        rf_pipeline_done(p, p->all);
    for (size_t i = 0; i < p->shuffled; i++)
        rf_unit_release(p->shuffle[i]);
    p->shuffled = 0;
    rf_queue_init(&p->queued);
    rf_queue_init(&p->large);
    rf_queue_init(&p->ready);
    rf_queue_init(&p->expanding);
}

/* Undo what is not committed; the committed position is the truth. */
static void abandon(struct rf_pipeline *p)
{
    struct rf_index_progress *progress = p->options.progress;

    forget_units(p);
    if (p->open) {
        rf_sink_rollback(p->options.sink);
        progress->items = p->before.items;
        progress->rows = p->before.rows;
        progress->dead_letters = p->before.dead_letters;
        progress->parked = p->before.parked;
        progress->unmatched = p->before.unmatched;
    }
    p->open = false;
    p->broken = true;
}

/* (Re)start reading behind the committed position. */
static enum rf_status start_reading(struct rf_pipeline *p, struct rf_error *err)
{
    struct rf_feed *feed = NULL, *old = atomic_exchange(&p->feed, NULL);
    struct rf_cursor from = {0};
    enum rf_status status = RF_OK;

    while (atomic_load(&p->waking))
        sched_yield();
    rf_feed_close(old);
    if (p->position[0])
        status = rf_cursor_parse(&from, p->position, err);
    if (status == RF_OK)
        status = rf_feed_open(&feed, p->options.store, p->position[0] ? &from : NULL, err);
    if (status != RF_OK)
        return status;
    atomic_store(&p->feed, feed);
    p->position_seq = from.seq;
    p->current = (struct rf_batch){.number = 1};
    p->next = (struct rf_batch){.number = 2};
    p->has_seen = p->broken = p->at_end = p->needs_checked = false;
    p->parks_dirty = true;
    return RF_OK;
}

struct drive {
    uint64_t until_seq;
    int64_t deadline_us; /* 0: none */
    bool stopping;       /* nothing new is started */
    enum rf_status answer;
    uint64_t last_batch; /* RF_CANCELLED: the one that was current then */
};

static void look_for_stop(struct rf_pipeline *p, struct drive *drive)
{
    if (drive->stopping)
        return;
    if (*p->options.stop)
        drive->answer = RF_CANCELLED;
    else if (drive->deadline_us && now_us() >= drive->deadline_us)
        drive->answer = RF_TIMEOUT;
    drive->stopping = drive->answer != RF_OK;
    if (drive->answer != RF_CANCELLED)
        return;
    drive->last_batch = p->current.number;
    end_batch(p);
}

/* Commit when every item of the current batch is written, or close the transaction of parks. */
static enum rf_status commit_if_done(struct rf_pipeline *p, struct rf_error *err)
{
    enum rf_status status;

    if (!p->current.closed || p->current.outstanding || p->expanding.head || p->ready.head)
        return RF_OK;
    status = rf_pipeline_settle(p, err); /* parks that are written hold up no batch */
    if (status != RF_OK)
        return status;
    if (p->current.changes || p->open)
        return commit_batch(p, err);
    p->current.closed = false;
    return RF_OK;
}

/* What was begun is committed before a stop, unless that takes too long or an item has many parts
 * left: then it is undone, and mapped again by the next run. */
static bool must_give_up(struct rf_pipeline *p, const struct drive *drive)
{
    const struct rf_unit *cut = p->expanding.head;

    if (drive->answer != RF_CANCELLED)
        return false;
    return !p->open || stop_is_due(p) || (cut && cut->parts->count - cut->parts->at > WINDOW_UNITS);
}

/* Nothing is left to do, or to finish before a stop. */
static bool is_done(const struct rf_pipeline *p, const struct drive *drive, bool parks_left)
{
    if (drive->answer == RF_CANCELLED)
        return !p->open && p->current.number != drive->last_batch;
    if (p->open || p->current.changes || p->next.changes || p->batch_units || p->units)
        return false;
    return drive->stopping || (p->at_end && !parks_left && !p->parks_dirty);
}

/* One turn: read, submit, write, commit, start parks. *idle: nothing is left to do. */
static enum rf_status turn(struct rf_pipeline *p, struct drive *drive, bool *idle,
                           struct rf_error *err)
{
    bool parks_left = false, went = false;
    uint64_t batch = p->current.number;
    size_t units = p->units;
    uint64_t taken = p->taken;
    enum rf_status status = take_written(p, err);

    look_for_stop(p, drive);
    if (status == RF_OK && !drive->stopping)
        status = read_changes(p, drive->until_seq, err);
    if (drive->stopping && p->fetch.mapped)
        rf_parks_drop_fetch(p);
    if (status == RF_OK && !drive->stopping)
        status = rf_parks_fetch(p, &went, err);
    if (status == RF_OK && !drive->stopping)
        status = rf_parks_start(p, &parks_left, err);
    if (status == RF_OK)
        status = expand_parts(p, err);
    if (status == RF_OK)
        status = submit_units(p, err);
    if (status == RF_OK)
        status = take_results(p, 0, err);
    if (status == RF_OK)
        status = write_ready(p, err);
    if (status != RF_OK)
        return status;
    if (drive->stopping || p->at_end || batch_full(p, &p->current))
        close_batch(p, &p->current);
    if (batch_heavy(p))
        end_batch(p);
    status = commit_if_done(p, err);
    if (status != RF_OK)
        return status;
    *idle = is_done(p, drive, parks_left);
    if (!*idle && !went && p->units && p->units == units && p->taken == taken &&
        p->current.number == batch)
        status = rf_writer_idle(p->writer) ? take_results(p, 50, err) : rf_pipeline_settle(p, err);
    tell_progress(p, false);
    return status;
}

/* What is under way stands for the committed position. */
static enum rf_status get_ready(struct rf_pipeline *p, struct rf_error *err)
{
    enum rf_status status = p->broken ? start_reading(p, err) : RF_OK;

    if (status == RF_OK && !p->needs_checked) {
        status = rf_parks_check_needs(p, err);
        p->needs_checked = status == RF_OK;
    }
    return status;
}

enum rf_status rf_pipeline_drive(struct rf_pipeline *p, uint64_t until_seq, uint32_t slice_ms,
                                 struct rf_error *err)
{
    struct drive drive = {.until_seq = until_seq, .answer = RF_OK};
    struct rf_error local = {0};
    enum rf_status status = RF_OK;
    bool idle = false;

    if (!err)
        err = &local;
    if (slice_ms)
        drive.deadline_us = now_us() + (int64_t)slice_ms * 1000;
    status = get_ready(p, err);
    while (status == RF_OK && !idle && !must_give_up(p, &drive)) {
        status = turn(p, &drive, &idle, err);
        if (status == RF_LIMIT && p->restart) {
            rf_error_clear(err);
            abandon(p);
            status = get_ready(p, err);
        }
        p->restart = false;
    }
    if (status == RF_CANCELLED) { /* a stop, seen in the middle of a unit */
        rf_error_clear(err);
        drive.answer = RF_CANCELLED;
        status = RF_OK;
        idle = false;
    }
    if (status != RF_OK || drive.answer == RF_CANCELLED || !idle)
        abandon(p); /* of calls in the slow lane the parks remain */
    else
        forget_units(p);
    tell_progress(p, true);
    return status != RF_OK ? status : drive.answer;
}

enum rf_status rf_pipeline_wait(struct rf_pipeline *p, int timeout_ms, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    if (p->broken)
        status = start_reading(p, err);
    if (status != RF_OK || p->has_seen)
        return status;
    rf_error_clear(&p->seen_why);
    status = rf_feed_next(p->feed, &p->seen, timeout_ms, &p->seen_why);
    p->has_seen = status == RF_OK || status == RF_CORRUPT;
    p->seen_status = status;
    if (status == RF_CORRUPT) /* the next reading tells and passes it */
        status = RF_OK;
    else if (status != RF_OK && err)
        *err = p->seen_why;
    if (status == RF_TIMEOUT || status == RF_CANCELLED || status == RF_OK)
        rf_error_clear(err);
    return status;
}

void rf_pipeline_woken(struct rf_pipeline *p)
{
    p->parks_dirty = true;
}

void rf_pipeline_wake(struct rf_pipeline *p)
{
    struct rf_feed *feed;

    atomic_fetch_add(&p->waking, 1);
    feed = atomic_load(&p->feed);
    if (feed)
        rf_feed_cancel(feed);
    atomic_fetch_sub(&p->waking, 1);
}

const char *rf_pipeline_position(const struct rf_pipeline *p)
{
    return p->position;
}

uint64_t rf_pipeline_seq(const struct rf_pipeline *p)
{
    return p->position_seq;
}

enum rf_status rf_pipeline_open(struct rf_pipeline **out, const struct rf_pipeline_options *options,
                                struct rf_error *err)
{
    struct rf_pipeline *p;
    enum rf_status status;

    if (options->mapper_count > RF_LANE_MAPPERS_MAX)
        return rf_error_set(err, RF_LIMIT, "%zu mappers are more than the %u one index can have",
                            options->mapper_count, RF_LANE_MAPPERS_MAX);
    p = calloc(1, sizeof *p);
    if (!p)
        return rf_error_set(err, RF_NOMEM, "no memory for a pipeline");
    p->options = *options;
    if (options->mapper_count)
        memcpy(p->mappers, options->mappers, options->mapper_count * sizeof *p->mappers);
    p->options.mappers = p->mappers;
    for (size_t i = 0; i < options->mapper_count; i++)
        p->chained |= (uint64_t)(p->mappers[i].chain != NULL) << i;
    snprintf(p->position, sizeof p->position, "%s", options->position);
    p->order_end = &p->order;
    p->random = options->shuffle_seed * 0x9e3779b97f4a7c15u + 1;
    rf_queue_init(&p->queued);
    rf_queue_init(&p->large);
    rf_queue_init(&p->ready);
    rf_queue_init(&p->expanding);
    rf_arena_init(&p->scratch, SCRATCH_MAX);
    status = rf_writer_open(&p->writer, write_units, p, err);
    if (status == RF_OK)
        status = start_reading(p, err);
    if (status != RF_OK) {
        rf_pipeline_close(p);
        return status;
    }
    *out = p;
    return RF_OK;
}

void rf_pipeline_close(struct rf_pipeline *p)
{
    struct rf_feed *feed;

    if (!p)
        return;
    abandon(p);
    feed = atomic_exchange(&p->feed, NULL);
    while (atomic_load(&p->waking))
        sched_yield();
    rf_feed_close(feed);
    rf_writer_close(p->writer);
    rf_arena_release(&p->scratch);
    free(p->again.keys);
    free(p->refused);
    free(p);
}
