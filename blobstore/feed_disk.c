/*
 * feed_disk.c - following the log
 *
 * A feed is a walk: one open segment, one window of 256 KiB, a sequence. It sees what is published
 * and sleeps on the head's word when it has seen all.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "blobstore/disk.h"
#include "blobstore/large.h"

#define WAIT_MAX_MS 60000 /* then look whether 'head' is still the same file */

struct disk_feed {
    struct rf_feed base;
    struct rf_disk *disk;
    struct rf_walk walk;
    struct rf_log_end end; /* of the log, when it was looked at last */
    struct rf_walked last; /* the change given last */
    bool has_last;
    uint64_t seq, chain; /* the position */
    bool chain_known;
    uint32_t cancelled; /* a word to sleep on; never back to 0 */
    struct rf_buf blob;
};

/* The chain after change seq. RF_NOT_FOUND: damage hides it. */
static enum rf_status chain_after(struct rf_disk *disk, const struct rf_head_state *state,
                                  uint64_t seq, uint64_t *chain, struct rf_error *err)
{
    struct rf_error damage = {0};
    struct rf_log_end end;
    struct rf_walked walked;
    struct rf_walk walk;
    enum rf_status status;

    if (seq == state->seq && state->has_chain) {
        *chain = state->chain;
        return RF_OK;
    }
    if (seq == 0) {
        *chain = rf_disk_first_chain(disk);
        return RF_OK;
    }
    rf_disk_end(state, &end);
    rf_walk_init(&walk, &disk->log, seq, true);
    status = rf_walk_at(&walk, &end, seq, &walked, &damage);
    if (status == RF_OK) {
        *chain = rf_log_chain(walked.at.record.chain, &walked.at.record);
    } else if (status == RF_CORRUPT) {
        rf_error_clear(&damage);
        status = rf_walk_at(&walk, &end, seq + 1, &walked, &damage);
        if (status == RF_OK)
            *chain = walked.at.record.chain;
        else if (status == RF_CORRUPT)
            status = RF_NOT_FOUND;
    }
    rf_walk_release(&walk);
    if (status != RF_OK && status != RF_NOT_FOUND)
        rf_error_set(err, status, "%s", damage.message);
    return status;
}

static enum rf_status check_cursor(struct rf_disk *disk, const struct rf_head_state *state,
                                   const struct rf_cursor *from, struct disk_feed *feed,
                                   struct rf_error *err)
{
    struct rf_cursor_bounds bounds = {.generation = disk->generation, .newest_seq = state->seq};
    struct rf_log_place oldest = {.first = 1};
    enum rf_status status;

    rf_log_dir_at(&disk->log, 0, &oldest);
    bounds.oldest_seq = oldest.first;
    status = rf_cursor_check(from, &bounds, err);
    if (status == RF_OK)
        status = chain_after(disk, state, from->seq, &feed->chain, err);
    feed->seq = from->seq;
    feed->chain_known = status == RF_OK;
    if (status == RF_NOT_FOUND)
        return RF_OK; /* the cursor may well be right; what is damaged is reported on the way */
    if (status == RF_OK && from->has_chain && from->chain != feed->chain)
        return rf_cursor_refuse(RF_CURSOR_HISTORY, from, 0, err);
    return status;
}

enum rf_status rf_disk_feed_open(struct rf_feed **out, struct rf_store *base,
                                 const struct rf_cursor *from, struct rf_error *err)
{
    struct rf_disk *disk = (struct rf_disk *)base;
    struct rf_log_place oldest = {.first = 1};
    struct disk_feed *feed = calloc(1, sizeof *feed);
    struct rf_head_state state;
    enum rf_status status;

    if (!feed)
        return rf_error_set(err, RF_NOMEM, "no memory for a feed");
    feed->base.ops = base->ops;
    feed->disk = disk;
    rf_buf_init(&feed->blob, RF_BLOB_INLINE_MAX);
    status = rf_disk_state(disk, &state, err);
    if (status == RF_OK && from) {
        status = check_cursor(disk, &state, from, feed, err);
    } else if (status == RF_OK) {
        rf_log_dir_at(&disk->log, 0, &oldest);
        feed->seq = oldest.first - 1;
        feed->chain = rf_disk_first_chain(disk);
        feed->chain_known = feed->seq == 0;
    }
    rf_walk_init(&feed->walk, &disk->log, feed->seq + 1, false);
    if (status != RF_OK) {
        rf_disk_feed_close(&feed->base);
        return status;
    }
    rf_disk_end(&state, &feed->end);
    *out = &feed->base;
    return RF_OK;
}

void rf_disk_feed_close(struct rf_feed *base)
{
    struct disk_feed *feed = (struct disk_feed *)base;

    rf_walk_release(&feed->walk);
    rf_buf_release(&feed->blob);
    free(feed);
}

/* Whether a later tombstone took the payload of this put. */
static bool is_gone(struct disk_feed *feed, const struct rf_log_record *record)
{
    struct rf_blobref ref = {.algo = record->algo};
    struct rf_head_state state;
    struct rf_entry now;

    memcpy(ref.digest, record->digest, RF_DIGEST_SIZE);
    if (rf_disk_state(feed->disk, &state, NULL) != RF_OK) /* a reader's lookup learns of deletes */
        return false;
    return rf_lookup_find(&feed->disk->lookup, &ref, &now, NULL, NULL) == RF_OK &&
           now.life > record->life;
}

static void position_after(struct disk_feed *feed, const struct rf_log_record *record)
{
    feed->seq = record->seq;
    feed->chain = rf_log_chain(record->chain, record);
    feed->chain_known = true;
}

static enum rf_status give(struct disk_feed *feed, struct rf_change *out, struct rf_error *err)
{
    const struct rf_log_record *record = &feed->last.at.record;
    char text[RF_BLOBREF_SIZE];

    position_after(feed, record);
    *out = (struct rf_change){
        .seq = record->seq,
        .size = record->size,
        .timestamp_us = record->timestamp_us,
        .ref.algo = record->algo,
        .life = record->life,
        .is_delete = record->op == RF_LOG_DELETE,
        .part = record->flags & RF_LOG_PART,
        .lift = record->flags & RF_LOG_LIFT,
        .gone = record->flags & RF_LOG_GONE,
    };
    memcpy(out->ref.digest, record->digest, RF_DIGEST_SIZE);
    rf_disk_feed_cursor(&feed->base, &out->cursor);
    if (rf_log_is_large(record))
        out->gone = is_gone(feed, record);
    if (feed->last.at.damaged) {
        out->gone = is_gone(feed, record);
        if (!out->gone) {
            rf_blobref_format(&out->ref, text);
            return rf_error_set(err, RF_CORRUPT, "blob %s of change %" PRIu64
                                " is corrupt: its payload does not match its checksum", text,
                                record->seq);
        }
    }
    feed->has_last = true;
    return RF_OK;
}

/* Behind changes that cannot be read the chain may still be known: the next change says it, or the
 * head. */
static void position_behind_lost(struct disk_feed *feed)
{
    struct rf_head_state state;

    feed->seq = feed->last.lost_to;
    feed->chain_known = rf_disk_state(feed->disk, &state, NULL) == RF_OK &&
                        chain_after(feed->disk, &state, feed->seq, &feed->chain, NULL) == RF_OK;
}

/* The next of the changes up to feed->end. RF_END: all were given. */
static enum rf_status try_next(struct disk_feed *feed, struct rf_change *out, struct rf_error *err)
{
    enum rf_status status = rf_walk_next(&feed->walk, &feed->end, &feed->last, err);

    feed->has_last = false;
    if (status == RF_OK)
        return give(feed, out, err);
    if (status == RF_CORRUPT && feed->last.lost_to > 0) {
        position_behind_lost(feed);
        *out = (struct rf_change){.seq = feed->last.lost_from};
        rf_disk_feed_cursor(&feed->base, &out->cursor);
    }
    return status;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

enum rf_status rf_disk_feed_next(struct rf_feed *base, struct rf_change *out, int timeout_ms,
                                 struct rf_error *err)
{
    struct disk_feed *feed = (struct disk_feed *)base;
    int64_t deadline = now_ms() + timeout_ms;

    for (;;) {
        uint32_t own = __atomic_load_n(&feed->cancelled, __ATOMIC_ACQUIRE), word;
        int64_t left = WAIT_MAX_MS;
        struct rf_head_state state;
        enum rf_status status;
        if (own)
            return rf_error_set(err, RF_CANCELLED, "the feed was cancelled");
        status = try_next(feed, out, err);
        if (status != RF_END)
            return status;
        word = rf_head_word(feed->disk->head);
        status = rf_disk_state(feed->disk, &state, err);
        if (status != RF_OK)
            return status;
        rf_disk_end(&state, &feed->end);
        if (state.seq > feed->seq)
            continue;
        if (timeout_ms >= 0)
            left = deadline - now_ms();
        if (left <= 0)
            return rf_error_set(err, RF_TIMEOUT, "no change within %d ms", timeout_ms);
        rf_head_wait(feed->disk->head, word, &feed->cancelled, own,
                     (int)(left < WAIT_MAX_MS ? left : WAIT_MAX_MS));
    }
}

static enum rf_status lend_payload(struct disk_feed *feed, struct rf_bytes *out,
                                   struct rf_error *err)
{
    const struct rf_log_record *record = &feed->last.at.record;
    char text[RF_BLOBREF_SIZE];
    struct rf_blobref ref;

    rf_blobref_of(&ref, feed->last.at.payload);
    if (memcmp(ref.digest, record->digest, RF_DIGEST_SIZE) != 0) {
        rf_blobref_format(&ref, text);
        return rf_error_set(err, RF_CORRUPT, "the blob of change %" PRIu64
                            " is corrupt: its content hashes to %s", record->seq, text);
    }
    *out = feed->last.at.payload;
    return RF_OK;
}

enum rf_status rf_disk_feed_blob(struct rf_feed *base, struct rf_bytes *out, struct rf_error *err)
{
    struct disk_feed *feed = (struct disk_feed *)base;
    const struct rf_log_record *record = &feed->last.at.record;
    struct rf_blobref ref = {.algo = record->algo};
    enum rf_status status;

    if (!feed->has_last)
        return rf_error_set(err, RF_INVALID, "the feed has given no change to take the blob of");
    if (record->size > RF_BLOB_INLINE_MAX)
        return rf_error_set(err, RF_LIMIT, "a blob of %" PRIu64 " bytes is not lent: read it",
                            record->size);
    if (record->op == RF_LOG_DELETE)
        return rf_error_set(err, RF_NOT_FOUND, "change %" PRIu64 " is a delete", record->seq);
    if (!(record->flags & (RF_LOG_LIFT | RF_LOG_GONE)) && !feed->last.at.damaged)
        return lend_payload(feed, out, err);
    memcpy(ref.digest, record->digest, RF_DIGEST_SIZE);
    rf_buf_clear(&feed->blob);
    status = rf_disk_get(&feed->disk->base, &ref, &feed->blob, err);
    if (status == RF_OK)
        *out = rf_buf_bytes(&feed->blob);
    return status;
}

void rf_disk_feed_cursor(struct rf_feed *base, struct rf_cursor *out)
{
    struct disk_feed *feed = (struct disk_feed *)base;

    *out = (struct rf_cursor){.generation = feed->disk->generation, .seq = feed->seq,
                              .chain = feed->chain_known ? feed->chain : 0,
                              .has_chain = feed->chain_known};
}

void rf_disk_feed_cancel(struct rf_feed *base)
{
    rf_head_wake(&((struct disk_feed *)base)->cancelled);
}
