/*
 * committer.c - see committer.h
 *
 * A batch: decide for each act what it does to its blob (the lookup, and what earlier acts of the
 * batch did); write all records with one pwritev and one fdatasync; then enter them into the
 * lookup, publish the head, remove large payloads that were deleted, answer everyone. Nobody is
 * answered and nothing can be seen before it is durable.
 */
#include "blobstore/committer.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blobstore/disk.h"
#include "blobstore/large.h"
#include "core/control.h"

#define SLOT_SIZE (RF_LOG_ALIGN + RF_LOG_HEADER_SIZE) /* padding of the record before, header */
#define BATCH_RECORDS 2048
/* An act is one record, or two: a tombstone and a put that replaces a damaged copy. */
#define ACT_OVERHEAD ((uint64_t)2 * (RF_LOG_HEADER_SIZE + RF_LOG_ALIGN))
#define TAIL_RUNS_MAX 8 /* times run_bytes the tail may grow to when no run can be written */

/* An act of the batch at hand. */
struct planned {
    struct rf_act *act;
    bool needs_batch;     /* its answer holds only when the batch is durable */
    uint32_t gone_life;   /* the large payload that ends: the life in its file's name */
};

struct rf_committer {
    struct rf_disk *disk;
    struct rf_append append;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t work, room;
    struct rf_act *first, **last;
    size_t queued, deletes;
    uint64_t queued_bytes;
    uint32_t queue_number; /* of the queue that fills, */
    bool awaited;          /* and that somebody sleeps for an act in it */
    bool stopping;
    uint32_t answers[2];   /* by turns, for those who sleep for an act of a queue */

    /* the queue at hand, the batch at hand; the committer's thread only */
    uint32_t taken_number;
    bool taken_awaited;
    struct planned *planned;
    size_t planned_count;
    uint8_t *headers;         /* SLOT_SIZE bytes per record */
    struct iovec *vectors;
    size_t record_count, vector_count, padding;
    uint64_t size; /* bytes of the batch's records */
    uint64_t seq, chain, blobs, bytes; /* after the batch */
    uint64_t dead;                     /* bytes of segments that its deletes made useless */
    struct rf_table pending; /* what the batch does to each of its blobs */
    uint64_t flush_at;       /* bytes of tail at which the next run is made */
    int64_t now_us;
};

/* ---- what an act does ---- */

static void entry_of_known(const struct rf_act *act, struct rf_entry *out)
{
    *out = (struct rf_entry){
        .ref = act->ref,
        .op = act->own.known_life % 2 ? RF_LOG_PUT : RF_LOG_DELETE,
        .flags = act->own.known_part ? RF_LOG_PART : 0,
        .life = act->own.known_life,
        .seq = act->own.known_seq,
        .size = act->own.known_size,
    };
}

/* What is known of the act's blob, the batch so far included. life 0: nothing. */
static enum rf_status resolve(struct rf_committer *committer, struct rf_act *act,
                              struct rf_entry *out, bool *in_batch)
{
    struct rf_lookup *lookup = &committer->disk->lookup;
    const struct rf_entry *pending = rf_table_find(&committer->pending, &act->ref);
    enum rf_status status = RF_NOT_FOUND;

    *in_batch = pending != NULL;
    if (pending) {
        *out = *pending;
        return RF_OK;
    }
    if (act->own.known) {
        status = rf_lookup_newer(lookup, &act->ref, act->own.epoch, out);
        if (status == RF_END)
            entry_of_known(act, out);
        if (status != RF_NOT_FOUND)
            return RF_OK;
    }
    status = rf_lookup_find(lookup, &act->ref, out, NULL, &act->error);
    if (status == RF_NOT_FOUND) {
        *out = (struct rf_entry){.ref = act->ref};
        rf_error_clear(&act->error);
        status = RF_OK;
    }
    return status;
}

static void add_vector(struct rf_committer *committer, const void *data, size_t size)
{
    committer->vectors[committer->vector_count].iov_base = (void *)(uintptr_t)data;
    committer->vectors[committer->vector_count].iov_len = size;
    committer->vector_count++;
}

static void add_record(struct rf_committer *committer, struct rf_act *act,
                       struct rf_log_record *record)
{
    uint8_t *slot = committer->headers + committer->record_count * SLOT_SIZE;
    const struct rf_commit_point *point = &committer->append.point;
    struct rf_entry entry;
    uint64_t offset = point->end + committer->size;

    record->algo = act->ref.algo;
    memcpy(record->digest, act->ref.digest, RF_DIGEST_SIZE);
    record->seq = committer->seq + 1;
    record->chain = committer->chain;
    record->timestamp_us = committer->now_us;
    if (committer->record_count == 0)
        record->flags |= RF_LOG_BATCH;
    rf_log_encode(slot + RF_LOG_ALIGN, record, &point->place, offset);
    add_vector(committer, slot + RF_LOG_ALIGN - committer->padding,
               committer->padding + RF_LOG_HEADER_SIZE);
    if (record->stored > 0)
        add_vector(committer, act->bytes.data, record->stored);
    committer->padding = (size_t)(rf_log_span(record) - RF_LOG_HEADER_SIZE - record->stored);
    committer->size += rf_log_span(record);
    committer->seq = record->seq;
    committer->chain = rf_log_chain(record->chain, record);
    rf_entry_of(&entry, record, point->place.first, offset);
    rf_table_put(&committer->pending, &entry);
    committer->record_count++;
    act->seq = record->seq;
}

static void add_tombstone(struct rf_committer *committer, struct rf_act *act,
                          const struct rf_entry *was)
{
    struct rf_log_record record = {
        .op = RF_LOG_DELETE,
        .flags = was->flags & RF_LOG_PART,
        .size = was->size,
        .life = was->life + 1,
        .refers = was->seq,
    };

    committer->blobs--;
    committer->bytes -= record.size;
    add_record(committer, act, &record);
}

/* What becomes of a payload whose tombstone is written. */
static void end_payload(struct rf_committer *committer, const struct rf_entry *was,
                        struct planned *planned)
{
    if (was->size > RF_BLOB_INLINE_MAX)
        planned->gone_life = was->life;
    else
        committer->dead += was->size;
}

/* A damaged copy is replaced as if the blob had been deleted first: what was made from it goes. */
static void plan_put(struct rf_committer *committer, struct rf_act *act,
                     const struct rf_entry *was, struct planned *planned)
{
    struct rf_log_record record = {.op = RF_LOG_PUT, .size = act->own.size};
    bool alive = was->life % 2 == 1, part = act->part;
    bool replaces = alive && act->own.lost && was->seq == act->own.known_seq;

    act->seq = was->seq;
    act->outcome = RF_PUT_PRESENT;
    if (replaces) {
        end_payload(committer, was, planned);
        add_tombstone(committer, act, was);
        part &= (was->flags & RF_LOG_PART) != 0; /* an item stays one */
        alive = false;
    }
    if (alive && (!(was->flags & RF_LOG_PART) || act->part))
        return;
    if (!alive && act->own.large && act->own.large_life != was->life + (replaces ? 2 : 1)) {
        act->status = rf_error_set(&act->error, RF_UNAVAILABLE, "deleted meanwhile");
        return;
    }
    planned->needs_batch = true;
    if (alive) {
        record.flags = RF_LOG_LIFT;
        record.life = was->life;
        record.refers = was->seq;
        act->outcome = RF_PUT_LIFTED;
    } else {
        record.flags = part ? RF_LOG_PART : 0;
        record.life = was->life + (replaces ? 2 : 1);
        record.stored = act->own.large ? 0 : (uint32_t)act->own.size;
        record.checksum = act->own.checksum;
        act->outcome = RF_PUT_NEW;
        committer->blobs++;
        committer->bytes += record.size;
    }
    add_record(committer, act, &record);
}

static void plan_delete(struct rf_committer *committer, struct rf_act *act,
                        const struct rf_entry *was, struct planned *planned)
{
    act->outcome = RF_PUT_ABSENT;
    act->seq = was->seq;
    if (was->life % 2 == 0)
        return;
    act->outcome = RF_PUT_DELETED;
    planned->needs_batch = true;
    end_payload(committer, was, planned);
    add_tombstone(committer, act, was);
}

static void plan(struct rf_committer *committer, struct rf_act *act)
{
    struct planned *planned = &committer->planned[committer->planned_count++];
    struct rf_entry was;

    *planned = (struct planned){.act = act};
    act->status = resolve(committer, act, &was, &planned->needs_batch);
    if (act->status != RF_OK)
        return;
    if (act->is_delete)
        plan_delete(committer, act, &was, planned);
    else
        plan_put(committer, act, &was, planned);
}

/* ---- a batch ---- */

static void begin_batch(struct rf_committer *committer)
{
    const struct rf_commit_point *point = &committer->append.point;

    rf_table_clear(&committer->pending);
    committer->planned_count = committer->record_count = committer->vector_count = 0;
    committer->padding = 0;
    committer->size = committer->dead = 0;
    committer->seq = point->next_seq - 1;
    committer->chain = point->chain;
    committer->blobs = point->blobs;
    committer->bytes = point->bytes;
    committer->now_us = rf_store_now_us();
}

static void publish(struct rf_committer *committer)
{
    struct rf_disk *disk = committer->disk;
    struct rf_commit_point *point = &committer->append.point;

    point->end += committer->size;
    point->next_seq = committer->seq + 1;
    point->chain = committer->chain;
    point->blobs = committer->blobs;
    point->bytes = committer->bytes;
    rf_lookup_add(&disk->lookup, committer->pending.entries, committer->pending.count,
                  committer->size);
    pthread_mutex_lock(&disk->lock);
    disk->state.seq = committer->seq;
    disk->state.chain = committer->chain;
    disk->state.segment_first = point->place.first;
    disk->state.segment_attempt = point->place.attempt;
    disk->state.segment_end = point->end;
    disk->state.blobs = point->blobs;
    disk->state.bytes = point->bytes;
    disk->state.dead += committer->dead;
    rf_head_publish(disk->head, &disk->state);
    pthread_mutex_unlock(&disk->lock);
}

static void answer_all(struct rf_committer *committer, enum rf_status status,
                       const struct rf_error *err)
{
    for (size_t i = 0; i < committer->planned_count; i++) {
        struct planned *planned = &committer->planned[i];
        struct rf_act *act = planned->act;
        if (status == RF_OK && planned->gone_life)
            rf_large_remove(committer->disk->dir, &act->ref, planned->gone_life);
        if (act->status == RF_OK && status != RF_OK && planned->needs_batch) {
            act->status = status;
            rf_error_set(&act->error, status, "%s", err->message);
        }
        act->done(act);
    }
    if (committer->taken_awaited) {
        uint32_t *answers = &committer->answers[committer->taken_number & 1];
        __atomic_add_fetch(answers, 1, __ATOMIC_RELEASE);
        syscall(SYS_futex, answers, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }
}

/* Move the lookup's tail into a run when it is long. A failure is told only when the tail has
 * become too long to go on. */
static enum rf_status flush_tail(struct rf_committer *committer, struct rf_error *err)
{
    struct rf_disk *disk = committer->disk;
    uint64_t bytes = rf_lookup_tail_bytes(&disk->lookup);
    struct rf_error cause = {0};

    if (bytes < committer->flush_at)
        return RF_OK;
    if (rf_lookup_flush(&disk->lookup, committer->append.point.next_seq - 1, &cause) == RF_OK) {
        committer->flush_at = disk->run_bytes;
        rf_disk_raise_epoch(disk);
        rf_maintain_poke(disk->maintain);
        return RF_OK;
    }
    if (bytes >= disk->run_bytes * TAIL_RUNS_MAX)
        return rf_error_set(err, RF_IO, "nothing is taken before a lookup run can be written: %s",
                            cause.message);
    committer->flush_at = bytes + disk->run_bytes;
    return RF_OK;
}

/* Take acts off the list while they fit one batch of one segment, and commit them. */
static void commit_some(struct rf_committer *committer, struct rf_act **list)
{
    struct rf_error err = {0};
    uint64_t room = 0, first = ACT_OVERHEAD + (*list)->bytes.size;
    enum rf_status status = flush_tail(committer, &err);

    if (status == RF_OK)
        status = rf_append_prepare(&committer->append, first, &room, &err);
    if (status == RF_OK)
        status = rf_lookup_reserve(&committer->disk->lookup, BATCH_RECORDS, &err);
    if (status == RF_OK)
        status = rf_table_reserve(&committer->pending, BATCH_RECORDS, &err);
    begin_batch(committer);
    while (*list && committer->planned_count < BATCH_RECORDS &&
           committer->record_count < BATCH_RECORDS - 1) {
        struct rf_act *act = *list;
        uint64_t span = ACT_OVERHEAD + act->bytes.size;
        if (committer->planned_count > 0 && committer->size + span > room)
            break;
        *list = act->next;
        act->next = NULL;
        if (status == RF_OK) {
            plan(committer, act);
        } else {
            committer->planned[committer->planned_count++] =
                (struct planned){.act = act, .needs_batch = true};
        }
    }
    if (status == RF_OK && committer->record_count > 0) {
        status = rf_append_write(&committer->append, committer->vectors, committer->vector_count,
                                 committer->size, &err);
        if (status == RF_OK)
            publish(committer);
    }
    answer_all(committer, status, &err);
}

static struct rf_act *take_queue(struct rf_committer *committer)
{
    struct rf_act *list;

    pthread_mutex_lock(&committer->lock);
    while (!committer->first && !committer->stopping)
        pthread_cond_wait(&committer->work, &committer->lock);
    list = committer->first;
    committer->first = NULL;
    committer->last = &committer->first;
    committer->queued = 0;
    committer->queued_bytes = 0;
    committer->taken_number = committer->queue_number++;
    committer->taken_awaited = committer->awaited;
    committer->awaited = false;
    pthread_cond_broadcast(&committer->room);
    pthread_mutex_unlock(&committer->lock);
    return list;
}

static void *run(void *user)
{
    struct rf_committer *committer = user;
    struct rf_act *list;

    while ((list = take_queue(committer))) {
        size_t deletes = 0;
        for (struct rf_act *act = list; act; act = act->next)
            deletes += act->is_delete;
        while (list)
            commit_some(committer, &list);
        (void)flush_tail(committer, NULL);
        pthread_mutex_lock(&committer->lock);
        committer->deletes -= deletes;
        pthread_mutex_unlock(&committer->lock);
    }
    return NULL;
}

/* ---- submitting ---- */

static void enqueue(struct rf_committer *committer, struct rf_act *act)
{
    pthread_mutex_lock(&committer->lock);
    while (committer->queued >= RF_QUEUE_ACTS || committer->queued_bytes >= RF_QUEUE_BYTES)
        pthread_cond_wait(&committer->room, &committer->lock);
    *committer->last = act;
    committer->last = &act->next;
    committer->queued++;
    act->own.answers = &committer->answers[committer->queue_number & 1];
    committer->awaited |= act->done == rf_act_settle;
    committer->deletes += act->is_delete;
    committer->queued_bytes += act->bytes.size;
    pthread_cond_signal(&committer->work);
    pthread_mutex_unlock(&committer->lock);
}

/* A put of what is there already need not go through the log, unless a delete is on its way. */
static bool is_answered(struct rf_committer *committer, const struct rf_act *act,
                        const struct rf_entry *was)
{
    bool deletes;

    if (act->is_delete || was->life % 2 == 0 || (was->flags & RF_LOG_PART && !act->part))
        return false;
    pthread_mutex_lock(&committer->lock);
    deletes = committer->deletes > 0;
    pthread_mutex_unlock(&committer->lock);
    return !deletes;
}

/* Whether the blob that is there cannot be read any more: a put answers for the copy it leaves in
 * place, so it looks. Whoever uploads a large one has looked, and named its file accordingly. */
static bool copy_is_lost(struct rf_committer *committer, const struct rf_act *act,
                         const struct rf_entry *was)
{
    if (act->is_delete || was->life % 2 == 0)
        return false;
    if (act->own.large)
        return act->own.large_life == was->life + 2;
    return was->size <= RF_BLOB_INLINE_MAX && RF_SAFEGUARD("put-checks-copy") &&
           rf_disk_check_small(committer->disk, was, NULL) == RF_CORRUPT;
}

void rf_committer_submit(struct rf_committer *committer, struct rf_act *act)
{
    struct rf_entry was = {0};
    enum rf_status status =
        rf_lookup_find(&committer->disk->lookup, &act->ref, &was, &act->own.epoch, NULL);

    if (status == RF_OK || status == RF_NOT_FOUND) {
        act->own.known = true;
        act->own.known_life = was.life;
        act->own.known_seq = was.seq;
        act->own.known_size = was.size;
        act->own.known_part = was.flags & RF_LOG_PART;
        act->own.lost = status == RF_OK && copy_is_lost(committer, act, &was);
        if (status == RF_OK && !act->own.lost && is_answered(committer, act, &was)) {
            act->outcome = RF_PUT_PRESENT;
            act->seq = was.seq;
            act->done(act);
            return;
        }
    }
    if (!act->is_delete && !act->own.large)
        act->own.checksum = rf_log_checksum(act->bytes);
    enqueue(committer, act);
}

/* ---- open and close ---- */

static void free_committer(struct rf_committer *committer)
{
    rf_append_release(&committer->append);
    rf_table_release(&committer->pending);
    free(committer->planned);
    free(committer->headers);
    free(committer->vectors);
    pthread_mutex_destroy(&committer->lock);
    pthread_cond_destroy(&committer->work);
    pthread_cond_destroy(&committer->room);
    free(committer);
}

enum rf_status rf_committer_open(struct rf_committer **out, struct rf_disk *disk,
                                 const struct rf_commit_point *point, struct rf_error *err)
{
    struct rf_committer *committer = calloc(1, sizeof *committer);
    struct rf_log_begin identity = {.format = RF_LOG_FORMAT, .generation = disk->generation,
                                    .salt = disk->salt};
    enum rf_status status;

    if (!committer)
        return rf_error_set(err, RF_NOMEM, "no memory for the committer");
    memcpy(identity.uuid, disk->uuid, sizeof identity.uuid);
    committer->disk = disk;
    committer->last = &committer->first;
    committer->flush_at = disk->run_bytes;
    pthread_mutex_init(&committer->lock, NULL);
    pthread_cond_init(&committer->work, NULL);
    pthread_cond_init(&committer->room, NULL);
    committer->planned = calloc(BATCH_RECORDS, sizeof *committer->planned);
    committer->headers = calloc(BATCH_RECORDS, SLOT_SIZE);
    committer->vectors = calloc(BATCH_RECORDS * 2, sizeof *committer->vectors);
    status = rf_append_init(&committer->append, &disk->log, disk->segment_bytes, &identity, point,
                            err);
    if (status == RF_OK && (!committer->planned || !committer->headers || !committer->vectors))
        status = rf_error_set(err, RF_NOMEM, "no memory for the committer");
    if (status == RF_OK && pthread_create(&committer->thread, NULL, run, committer) != 0)
        status = rf_error_set(err, RF_NOMEM, "cannot start the committer's thread");
    if (status != RF_OK) {
        free_committer(committer);
        return status;
    }
    *out = committer;
    return RF_OK;
}

void rf_committer_close(struct rf_committer *committer, struct rf_commit_point *point)
{
    if (!committer)
        return;
    pthread_mutex_lock(&committer->lock);
    committer->stopping = true;
    pthread_cond_signal(&committer->work);
    pthread_mutex_unlock(&committer->lock);
    pthread_join(committer->thread, NULL);
    *point = committer->append.point;
    free_committer(committer);
}
