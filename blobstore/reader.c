/*
 * reader.c - what is published, as a writer knows it and as other processes find it out
 *
 * A writer's state lives in memory and is copied to the head. A reader's comes from the head; when
 * its word has moved, the reader walks the new part of the log into its own table, and when the
 * epoch has moved it loads the runs anew. Without a sound head it sees what must be durable all the
 * same: the sealed segments, and what a lookup run stands for.
 */
#include <inttypes.h>
#include <unistd.h>

#include "blobstore/disk.h"

#define TAIL_MAX 1000000 /* changes a reader holds in memory before it reads the log instead */

/* Everything before the last segment is durable; its begin record knows the counts. */
static void sealed_state(struct rf_disk *disk, struct rf_head_state *out)
{
    size_t count = rf_log_dir_count(&disk->log);
    struct rf_log_place last = {.first = 1};
    struct rf_segment_file *file;
    struct rf_log_begin begin;
    struct rf_scanned found;
    struct rf_scan scan;

    if (count > 0)
        rf_log_dir_at(&disk->log, count - 1, &last);
    *out = (struct rf_head_state){.seq = last.first - 1, .segment_first = last.first,
                                  .segment_attempt = last.attempt, .epoch = disk->state.epoch};
    if (count == 0 || rf_log_dir_acquire(&disk->log, &last, &file, NULL) != RF_OK)
        return;
    rf_scan_init(&scan, file->fd, &last, 0, RF_LOG_HEADER_SIZE + RF_LOG_BEGIN_SIZE);
    if (rf_scan_next(&scan, &found, NULL) == RF_OK && !found.damaged &&
        rf_log_begin_decode(&begin, found.payload)) {
        out->chain = found.record.chain;
        out->has_chain = true;
        out->blobs = begin.blobs;
        out->bytes = begin.bytes;
    }
    rf_scan_release(&scan);
    rf_log_dir_release_file(&disk->log, file);
}

static enum rf_status walk_into(struct rf_disk *disk, const struct rf_head_state *state,
                                struct rf_walk *walk, struct rf_table *table,
                                struct rf_error *err)
{
    struct rf_log_end end;
    struct rf_walked walked;
    enum rf_status status = RF_OK;

    rf_disk_end(state, &end);
    while (status == RF_OK) {
        struct rf_error cause = {0};
        struct rf_entry entry;
        status = rf_walk_next(walk, &end, &walked, &cause);
        if (status == RF_CORRUPT && walked.lost_to > 0) {
            status = RF_OK; /* a read or a feed that comes here reports it */
            continue;
        }
        if (status == RF_OK) {
            rf_entry_of(&entry, &walked.at.record, walked.first, walked.at.offset);
            if (table) {
                status = rf_table_reserve(table, 1, &cause);
                if (status == RF_OK)
                    rf_table_put(table, &entry);
            } else {
                status = rf_lookup_reserve(&disk->lookup, 1, &cause);
                if (status == RF_OK)
                    rf_lookup_add(&disk->lookup, &entry, 1, 0);
            }
        }
        if (status != RF_OK && status != RF_END)
            rf_error_set(err, status, "%s", cause.message);
    }
    return status == RF_END ? RF_OK : status;
}

/* The head is older than a run, and runs are made of what is durable: go on to where it ends. */
static enum rf_status pass_head(struct rf_disk *disk, struct rf_head_state *state,
                                uint64_t covered, struct rf_error *err)
{
    struct rf_log_end end = {.seq = covered};
    struct rf_log_place place = {.first = covered};
    struct rf_walked walked;
    struct rf_walk walk;
    enum rf_status status = RF_OK;

    rf_walk_init(&walk, &disk->log, state->seq + 1, true);
    while (status == RF_OK) {
        const struct rf_log_record *record = &walked.at.record;
        struct rf_error cause = {0};
        status = rf_walk_next(&walk, &end, &walked, &cause);
        if (status == RF_CORRUPT && walked.lost_to > 0) {
            status = RF_OK;
            state->has_chain = false;
        } else if (status == RF_OK) {
            state->chain = rf_log_chain(record->chain, record);
            state->has_chain = true;
            rf_log_tally(record, &state->blobs, &state->bytes);
        } else if (status != RF_END) {
            rf_error_set(err, status, "%s", cause.message);
        }
    }
    rf_walk_release(&walk);
    if (status != RF_END)
        return status;
    rf_log_dir_find(&disk->log, covered, &place, NULL);
    state->seq = covered;
    state->segment_first = place.first;
    state->segment_attempt = place.attempt;
    state->segment_end = UINT64_MAX;
    return RF_OK;
}

/* Runs or segments were replaced: load the runs, and make a tail for what they leave. */
static enum rf_status reload(struct rf_disk *disk, struct rf_head_state *state,
                             struct rf_error *err)
{
    uint64_t oldest = disk->lookup.oldest, covered;
    struct rf_runs *runs = NULL, *more = NULL;
    struct rf_table tail = {0};
    struct rf_walk walk;
    enum rf_status status = rf_log_dir_list(&disk->log, err);

    rf_log_dir_forget(&disk->log);
    if (status == RF_OK)
        status = rf_lookup_load(&disk->lookup, &runs, err);
    if (status != RF_OK)
        return status;
    covered = rf_runs_covered(runs, oldest);
    if (state->seq < covered) {
        status = pass_head(disk, state, covered, err);
        if (status != RF_OK) {
            rf_runs_unref(runs);
            return status;
        }
    }
    if (state->seq - covered > TAIL_MAX && state->segment_first > covered + 1) {
        status = rf_runs_with_take(&more, runs, covered + 1, state->segment_first - 1, NULL, err);
        rf_runs_unref(runs);
        if (status != RF_OK)
            return status;
        runs = more;
        covered = state->segment_first - 1;
    }
    rf_walk_init(&walk, &disk->log, covered + 1, true);
    status = walk_into(disk, state, &walk, &tail, err);
    if (status != RF_OK) {
        rf_walk_release(&walk);
        rf_table_release(&tail);
        rf_runs_unref(runs);
        return status;
    }
    if (disk->caught_up)
        rf_walk_release(&disk->tail);
    disk->tail = walk;
    disk->caught_up = true;
    rf_lookup_install_take(&disk->lookup, runs, &tail);
    return RF_OK;
}

static enum rf_status refresh(struct rf_disk *disk, struct rf_error *err)
{
    enum rf_status status = RF_OK;
    struct rf_head_state state;
    uint32_t word;

    word = rf_head_word(disk->head);
    if (!rf_head_read(disk->head, &state)) {
        status = rf_log_dir_list(&disk->log, err);
        sealed_state(disk, &state);
    }
    if (status != RF_OK)
        return status;
    if (!disk->caught_up || state.epoch != disk->state.epoch)
        status = reload(disk, &state, err);
    else if (state.seq >= disk->state.seq)
        status = walk_into(disk, &state, &disk->tail, NULL, err);
    if (status == RF_OK && (state.seq >= disk->state.seq || !disk->caught_up))
        disk->state = state;
    if (status == RF_OK)
        disk->seen_word = word;
    return status;
}

enum rf_status rf_disk_state(struct rf_disk *disk, struct rf_head_state *out,
                             struct rf_error *err)
{
    enum rf_status status = RF_OK;

    pthread_mutex_lock(&disk->lock);
    if (!disk->base.writable &&
        (!disk->caught_up || rf_head_word(disk->head) != disk->seen_word))
        status = refresh(disk, err);
    *out = disk->state;
    pthread_mutex_unlock(&disk->lock);
    return status;
}
