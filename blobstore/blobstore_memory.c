/*
 * blobstore_memory.c - a store of this process, gone at close
 *
 * For tests, and for programs that index what they do not keep. Blobs hang in a hash table, changes
 * in an array; one lock guards both. A change is public as soon as it is made: there is nothing
 * more durable to wait for.
 */
#include "blobstore/backend.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <xxhash.h>

#define BLOB_SIZE_MAX (1ull << 30) /* bytes of one blob */

struct blob {
    struct rf_stat stat;
    uint8_t *data; /* NULL while deleted */
    struct blob *next;
};

struct change {
    struct rf_change change;
    struct blob *blob;
};

struct memory_store {
    struct rf_store base;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a change was made, or a feed was cancelled */
    struct blob **buckets;
    size_t bucket_count, blob_count;
    struct change *changes;
    size_t change_count, change_capacity;
    uint8_t uuid[16];
    uint64_t chain; /* after the newest change */
    uint64_t alive, alive_bytes;
};

struct memory_feed {
    struct rf_feed base;
    struct memory_store *store;
    uint64_t seq; /* of the last change given */
    uint64_t chain;
    bool cancelled;
    struct rf_buf blob;
};

struct memory_large {
    struct rf_large base;
    struct memory_store *store;
    struct rf_buf bytes;
};

/* ---- the table; callers hold the lock ---- */

static struct blob **find_slot(struct memory_store *store, const struct rf_blobref *ref)
{
    struct blob **slot = &store->buckets[rf_get_u64(ref->digest) & (store->bucket_count - 1)];

    while (*slot && !rf_blobref_equal(&(*slot)->stat.ref, ref))
        slot = &(*slot)->next;
    return slot;
}

static struct blob *find_alive(struct memory_store *store, const struct rf_blobref *ref)
{
    struct blob *blob = *find_slot(store, ref);

    return blob && blob->stat.life % 2 == 1 ? blob : NULL;
}

static bool grow_table(struct memory_store *store)
{
    size_t count = store->bucket_count * 2;
    struct blob **grown;

    if (store->blob_count < store->bucket_count)
        return true;
    grown = calloc(count, sizeof(struct blob *));
    if (!grown)
        return false;
    for (size_t i = 0; i < store->bucket_count; i++) {
        struct blob *blob = store->buckets[i];
        while (blob) {
            struct blob *next = blob->next;
            struct blob **slot = &grown[rf_get_u64(blob->stat.ref.digest) & (count - 1)];
            blob->next = *slot;
            *slot = blob;
            blob = next;
        }
    }
    free(store->buckets);
    store->buckets = grown;
    store->bucket_count = count;
    return true;
}

static struct blob *find_or_add(struct memory_store *store, const struct rf_blobref *ref)
{
    struct blob **slot;

    if (!grow_table(store))
        return NULL;
    slot = find_slot(store, ref);
    if (!*slot) {
        *slot = calloc(1, sizeof **slot);
        if (!*slot)
            return NULL;
        (*slot)->stat.ref = *ref;
        store->blob_count++;
    }
    return *slot;
}

static bool append_change(struct memory_store *store, struct blob *blob, bool lift)
{
    struct change *grown;
    struct rf_stat *stat = &blob->stat;
    struct rf_change *change;

    if (store->change_count == store->change_capacity) {
        size_t capacity = store->change_capacity ? store->change_capacity * 2 : 64;
        grown = realloc(store->changes, capacity * sizeof *grown);
        if (!grown)
            return false;
        store->changes = grown;
        store->change_capacity = capacity;
    }
    change = &store->changes[store->change_count].change;
    store->changes[store->change_count].blob = blob;
    store->change_count++;
    stat->seq = store->change_count;
    stat->timestamp_us = rf_store_now_us();
    *change = (struct rf_change){
        .seq = stat->seq, .size = stat->size, .timestamp_us = stat->timestamp_us,
        .ref = stat->ref, .life = stat->life, .is_delete = stat->life % 2 == 0,
        .part = stat->part, .lift = lift,
        .cursor = {.generation = 1, .seq = stat->seq, .has_chain = true},
    };
    store->chain = XXH3_64bits_withSeed(stat->ref.digest, RF_DIGEST_SIZE,
                                        store->chain ^ stat->life);
    change->cursor.chain = store->chain;
    pthread_cond_broadcast(&store->changed);
    return true;
}

/* ---- writing ---- */

static enum rf_status put_locked(struct memory_store *store, const struct rf_blobref *ref,
                                 struct rf_bytes bytes, bool part, enum rf_put_outcome *outcome,
                                 uint64_t *seq, struct rf_error *err)
{
    struct blob *blob = find_or_add(store, ref);
    uint8_t *data;

    if (!blob)
        return rf_error_set(err, RF_NOMEM, "no memory for another blob");
    *outcome = RF_PUT_PRESENT;
    if (blob->stat.life % 2 == 1) {
        if (blob->stat.part && !part) {
            blob->stat.part = false;
            if (!append_change(store, blob, true)) {
                blob->stat.part = true;
                return rf_error_set(err, RF_NOMEM, "no memory for another change");
            }
            *outcome = RF_PUT_LIFTED;
        }
        *seq = blob->stat.seq;
        return RF_OK;
    }
    data = malloc(bytes.size ? bytes.size : 1);
    if (!data)
        return rf_error_set(err, RF_NOMEM, "no memory for a blob of %zu bytes", bytes.size);
    if (bytes.size)
        memcpy(data, bytes.data, bytes.size);
    blob->stat.life++;
    blob->stat.part = part;
    blob->stat.size = bytes.size;
    if (!append_change(store, blob, false)) {
        blob->stat.life--;
        free(data);
        return rf_error_set(err, RF_NOMEM, "no memory for another change");
    }
    blob->data = data;
    store->alive++;
    store->alive_bytes += bytes.size;
    *outcome = RF_PUT_NEW;
    *seq = blob->stat.seq;
    return RF_OK;
}

static enum rf_status delete_locked(struct memory_store *store, const struct rf_blobref *ref,
                                    enum rf_put_outcome *outcome, uint64_t *seq,
                                    struct rf_error *err)
{
    struct blob *blob = find_alive(store, ref);

    *outcome = RF_PUT_ABSENT;
    if (!blob)
        return RF_OK;
    blob->stat.life++;
    if (!append_change(store, blob, false)) {
        blob->stat.life--;
        return rf_error_set(err, RF_NOMEM, "no memory for another change");
    }
    free(blob->data);
    blob->data = NULL;
    store->alive--;
    store->alive_bytes -= blob->stat.size;
    *outcome = RF_PUT_DELETED;
    *seq = blob->stat.seq;
    return RF_OK;
}

static void memory_submit(struct rf_store *base, struct rf_act *act)
{
    struct memory_store *store = (struct memory_store *)base;

    pthread_mutex_lock(&store->lock);
    if (act->is_delete)
        act->status = delete_locked(store, &act->ref, &act->outcome, &act->seq, &act->error);
    else
        act->status = put_locked(store, &act->ref, act->bytes, act->part, &act->outcome,
                                 &act->seq, &act->error);
    pthread_mutex_unlock(&store->lock);
    act->done(act);
}

static enum rf_status memory_large_open(struct rf_large **out, struct rf_store *base,
                                        struct rf_error *err)
{
    struct memory_large *large = calloc(1, sizeof *large);

    if (!large)
        return rf_error_set(err, RF_NOMEM, "no memory for an upload");
    large->base.ops = base->ops;
    large->store = (struct memory_store *)base;
    rf_buf_init(&large->bytes, BLOB_SIZE_MAX);
    *out = &large->base;
    return RF_OK;
}

static enum rf_status memory_large_write(struct rf_large *base, struct rf_bytes bytes,
                                         struct rf_error *err)
{
    struct memory_large *large = (struct memory_large *)base;

    rf_buf_put(&large->bytes, bytes.data, bytes.size);
    if (large->bytes.failed)
        return rf_error_set(err, large->bytes.failed,
                            "a store in memory takes blobs of at most %llu bytes", BLOB_SIZE_MAX);
    return RF_OK;
}

static enum rf_status memory_large_commit(struct rf_large *base, const struct rf_blobref *expect,
                                          bool part, struct rf_blobref *out,
                                          enum rf_put_outcome *outcome, uint64_t *seq_out,
                                          struct rf_error *err)
{
    struct memory_large *large = (struct memory_large *)base;
    struct rf_bytes bytes = rf_buf_bytes(&large->bytes);
    enum rf_put_outcome result = RF_PUT_NEW;
    struct rf_blobref ref;
    enum rf_status status;
    uint64_t seq = 0;

    rf_blobref_of(&ref, bytes);
    if (expect && !rf_blobref_equal(expect, &ref)) {
        char text[RF_BLOBREF_SIZE], expected[RF_BLOBREF_SIZE];
        rf_blobref_format(&ref, text);
        rf_blobref_format(expect, expected);
        return rf_error_set(err, RF_INVALID, "content hashes to %s, not to %s", text, expected);
    }
    pthread_mutex_lock(&large->store->lock);
    status = put_locked(large->store, &ref, bytes, part, &result, &seq, err);
    pthread_mutex_unlock(&large->store->lock);
    if (status == RF_OK && out)
        *out = ref;
    if (status == RF_OK && outcome)
        *outcome = result;
    if (status == RF_OK && seq_out)
        *seq_out = seq;
    return status;
}

static void memory_large_close(struct rf_large *base)
{
    struct memory_large *large = (struct memory_large *)base;

    rf_buf_release(&large->bytes);
    free(large);
}

/* ---- reading ---- */

static enum rf_status not_found(const struct rf_blobref *ref, struct rf_error *err)
{
    char text[RF_BLOBREF_SIZE];

    rf_blobref_format(ref, text);
    return rf_error_set(err, RF_NOT_FOUND, "no blob %s in this store", text);
}

static enum rf_status memory_stat(struct rf_store *base, const struct rf_blobref *ref,
                                  struct rf_stat *out, struct rf_error *err)
{
    struct memory_store *store = (struct memory_store *)base;
    struct blob *blob;

    pthread_mutex_lock(&store->lock);
    blob = find_alive(store, ref);
    if (blob)
        *out = blob->stat;
    pthread_mutex_unlock(&store->lock);
    return blob ? RF_OK : not_found(ref, err);
}

static enum rf_status memory_get(struct rf_store *base, const struct rf_blobref *ref,
                                 struct rf_buf *buf, struct rf_error *err)
{
    struct memory_store *store = (struct memory_store *)base;
    struct blob *blob;

    pthread_mutex_lock(&store->lock);
    blob = find_alive(store, ref);
    if (blob)
        rf_buf_put(buf, blob->data, (size_t)blob->stat.size);
    pthread_mutex_unlock(&store->lock);
    if (!blob)
        return not_found(ref, err);
    if (buf->failed)
        return rf_error_set(err, buf->failed, "the blob is larger than the %zu bytes asked for",
                            buf->max);
    return RF_OK;
}

static enum rf_status memory_read(struct rf_store *base, const struct rf_blobref *ref,
                                  uint64_t offset, void *out, size_t size, size_t *got,
                                  struct rf_error *err)
{
    struct memory_store *store = (struct memory_store *)base;
    struct blob *blob;
    size_t count = 0;

    pthread_mutex_lock(&store->lock);
    blob = find_alive(store, ref);
    if (blob && offset < blob->stat.size) {
        uint64_t left = blob->stat.size - offset;
        count = size < left ? size : (size_t)left;
        if (count)
            memcpy(out, blob->data + offset, count);
    }
    pthread_mutex_unlock(&store->lock);
    if (!blob)
        return not_found(ref, err);
    *got = count;
    return RF_OK;
}

static int compare_stats(const void *a, const void *b)
{
    return rf_blobref_compare(&((const struct rf_stat *)a)->ref,
                              &((const struct rf_stat *)b)->ref);
}

static enum rf_status memory_list(struct rf_store *base, const struct rf_blobref *after,
                                  enum rf_status (*visit)(void *user, const struct rf_stat *stat),
                                  void *user, struct rf_error *err)
{
    struct memory_store *store = (struct memory_store *)base;
    enum rf_status status = RF_OK;
    struct rf_stat *stats;
    size_t count = 0;

    pthread_mutex_lock(&store->lock);
    stats = malloc((store->alive + 1) * sizeof *stats);
    for (size_t i = 0; stats && i < store->bucket_count; i++) {
        for (struct blob *blob = store->buckets[i]; blob; blob = blob->next) {
            if (blob->stat.life % 2 == 1 &&
                (!after || rf_blobref_compare(&blob->stat.ref, after) > 0))
                stats[count++] = blob->stat;
        }
    }
    pthread_mutex_unlock(&store->lock);
    if (!stats)
        return rf_error_set(err, RF_NOMEM, "no memory to list the store");
    qsort(stats, count, sizeof *stats, compare_stats);
    for (size_t i = 0; i < count && status == RF_OK; i++)
        status = visit(user, &stats[i]);
    free(stats);
    return status;
}

static enum rf_status memory_info(struct rf_store *base, struct rf_store_info *out,
                                  struct rf_error *err)
{
    struct memory_store *store = (struct memory_store *)base;

    (void)err;
    pthread_mutex_lock(&store->lock);
    *out = (struct rf_store_info){.generation = 1, .oldest_seq = 1,
                                  .next_seq = store->change_count + 1, .blobs = store->alive,
                                  .bytes = store->alive_bytes};
    pthread_mutex_unlock(&store->lock);
    rf_uuid_format(store->uuid, out->uuid);
    return RF_OK;
}

/* ---- the change queue ---- */

static enum rf_status memory_feed_open(struct rf_feed **out, struct rf_store *base,
                                       const struct rf_cursor *from, struct rf_error *err)
{
    struct memory_store *store = (struct memory_store *)base;
    struct rf_cursor_bounds bounds = {.generation = 1, .oldest_seq = 1};
    enum rf_status status = RF_OK;
    struct memory_feed *feed;
    uint64_t seq = from ? from->seq : 0, chain = rf_get_u64(store->uuid);

    pthread_mutex_lock(&store->lock);
    bounds.newest_seq = store->change_count;
    if (from)
        status = rf_cursor_check(from, &bounds, err);
    if (status == RF_OK && seq > 0)
        chain = store->changes[seq - 1].change.cursor.chain;
    pthread_mutex_unlock(&store->lock);
    if (status == RF_OK && from && from->has_chain && from->chain != chain)
        status = rf_cursor_refuse(RF_CURSOR_HISTORY, from, 0, err);
    if (status != RF_OK)
        return status;
    feed = calloc(1, sizeof *feed);
    if (!feed)
        return rf_error_set(err, RF_NOMEM, "no memory for a feed");
    feed->base.ops = base->ops;
    feed->store = store;
    feed->seq = seq;
    feed->chain = chain;
    rf_buf_init(&feed->blob, RF_BLOB_INLINE_MAX);
    *out = &feed->base;
    return RF_OK;
}

static void memory_feed_close(struct rf_feed *base)
{
    struct memory_feed *feed = (struct memory_feed *)base;

    rf_buf_release(&feed->blob);
    free(feed);
}

static void deadline_in(struct timespec *out, int timeout_ms)
{
    clock_gettime(CLOCK_MONOTONIC, out);
    out->tv_sec += timeout_ms / 1000;
    out->tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (out->tv_nsec >= 1000000000) {
        out->tv_sec++;
        out->tv_nsec -= 1000000000;
    }
}

static enum rf_status memory_feed_next(struct rf_feed *base, struct rf_change *out,
                                       int timeout_ms, struct rf_error *err)
{
    struct memory_feed *feed = (struct memory_feed *)base;
    struct memory_store *store = feed->store;
    enum rf_status status = RF_OK;
    struct timespec deadline;
    struct change *change;

    deadline_in(&deadline, timeout_ms < 0 ? 0 : timeout_ms);
    pthread_mutex_lock(&store->lock);
    while (!feed->cancelled && feed->seq == store->change_count && status == RF_OK) {
        if (timeout_ms < 0)
            pthread_cond_wait(&store->changed, &store->lock);
        else if (timeout_ms == 0 || pthread_cond_timedwait(&store->changed, &store->lock,
                                                           &deadline) == ETIMEDOUT)
            status = RF_TIMEOUT;
    }
    if (feed->cancelled) {
        status = rf_error_set(err, RF_CANCELLED, "the feed was cancelled");
    } else if (status == RF_OK || feed->seq < store->change_count) {
        change = &store->changes[feed->seq];
        *out = change->change;
        out->gone = !out->is_delete && change->blob->stat.life > out->life;
        feed->seq++;
        feed->chain = out->cursor.chain;
        status = RF_OK;
    } else {
        rf_error_set(err, RF_TIMEOUT, "no change within %d ms", timeout_ms);
    }
    pthread_mutex_unlock(&store->lock);
    return status;
}

static enum rf_status memory_feed_blob(struct rf_feed *base, struct rf_bytes *out,
                                       struct rf_error *err)
{
    struct memory_feed *feed = (struct memory_feed *)base;
    struct rf_change change;
    enum rf_status status;

    assert(feed->seq > 0);
    pthread_mutex_lock(&feed->store->lock);
    change = feed->store->changes[feed->seq - 1].change;
    pthread_mutex_unlock(&feed->store->lock);
    if (change.is_delete)
        return not_found(&change.ref, err);
    rf_buf_clear(&feed->blob);
    status = memory_get(&feed->store->base, &change.ref, &feed->blob, err);
    if (status == RF_OK)
        *out = rf_buf_bytes(&feed->blob);
    return status;
}

static void memory_feed_cursor(struct rf_feed *base, struct rf_cursor *out)
{
    struct memory_feed *feed = (struct memory_feed *)base;

    *out = (struct rf_cursor){.generation = 1, .seq = feed->seq, .chain = feed->chain,
                              .has_chain = true};
}

static void memory_feed_cancel(struct rf_feed *base)
{
    struct memory_feed *feed = (struct memory_feed *)base;

    pthread_mutex_lock(&feed->store->lock);
    feed->cancelled = true;
    pthread_cond_broadcast(&feed->store->changed);
    pthread_mutex_unlock(&feed->store->lock);
}

/* ---- care ---- */

static enum rf_status memory_verify(struct rf_store *base, struct rf_verify_report *out,
                                    void (*problem)(void *user, const char *line),
                                    void (*progress)(void *user, uint64_t done, uint64_t total),
                                    void *user, struct rf_error *err)
{
    struct memory_store *store = (struct memory_store *)base;
    struct rf_verify_report report = {0};

    pthread_mutex_lock(&store->lock);
    report.changes = store->change_count;
    for (size_t i = 0; i < store->bucket_count; i++) {
        for (struct blob *blob = store->buckets[i]; blob; blob = blob->next) {
            struct rf_blobref ref;
            if (blob->stat.life % 2 == 0)
                continue;
            report.blobs++;
            report.bytes += blob->stat.size;
            rf_blobref_of(&ref, rf_bytes(blob->data, (size_t)blob->stat.size));
            if (rf_blobref_equal(&ref, &blob->stat.ref))
                continue;
            report.corrupt++;
            if (problem)
                problem(user, "a blob in memory does not hash to its name");
        }
    }
    pthread_mutex_unlock(&store->lock);
    if (progress)
        progress(user, report.changes, report.changes);
    *out = report;
    if (report.corrupt)
        return rf_error_set(err, RF_CORRUPT, "blobs in memory do not hash to their names");
    return RF_OK;
}

static enum rf_status memory_check(struct rf_store *base, uint64_t *damaged,
                                   void (*problem)(void *user, const char *line), void *user,
                                   struct rf_error *err)
{
    (void)base;
    (void)problem;
    (void)user;
    (void)err;
    *damaged = 0;
    return RF_OK;
}

static enum rf_status memory_compact(struct rf_store *base, uint64_t *freed, struct rf_error *err)
{
    (void)base;
    (void)err;
    *freed = 0; /* a deleted blob's bytes went at once */
    return RF_OK;
}

/* ---- open and close ---- */

static void memory_close(struct rf_store *base)
{
    struct memory_store *store = (struct memory_store *)base;

    for (size_t i = 0; i < store->bucket_count; i++) {
        struct blob *blob = store->buckets[i];
        while (blob) {
            struct blob *next = blob->next;
            free(blob->data);
            free(blob);
            blob = next;
        }
    }
    free(store->buckets);
    free(store->changes);
    pthread_cond_destroy(&store->changed);
    pthread_mutex_destroy(&store->lock);
    free(store);
}

static enum rf_status memory_open(struct rf_store **out, const char *path,
                                  const struct rf_store_options *options, struct rf_error *err)
{
    struct memory_store *store;
    pthread_condattr_t attributes;

    (void)options;
    if (*path)
        return rf_error_set(err, RF_INVALID, "'memory:%s': a store in memory has no path", path);
    store = calloc(1, sizeof *store);
    if (store)
        store->buckets = calloc(1024, sizeof(struct blob *));
    if (!store || !store->buckets) {
        free(store);
        return rf_error_set(err, RF_NOMEM, "no memory for a store");
    }
    store->base.ops = &rf_store_memory_ops;
    store->base.writable = true;
    store->bucket_count = 1024;
    pthread_mutex_init(&store->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&store->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    rf_uuid_random(store->uuid);
    store->chain = rf_get_u64(store->uuid);
    *out = &store->base;
    return RF_OK;
}

const struct rf_store_ops rf_store_memory_ops = {
    .name = "memory",
    .open = memory_open,
    .close = memory_close,
    .info = memory_info,
    .submit = memory_submit,
    .large_open = memory_large_open,
    .large_write = memory_large_write,
    .large_commit = memory_large_commit,
    .large_close = memory_large_close,
    .stat = memory_stat,
    .get = memory_get,
    .read = memory_read,
    .list = memory_list,
    .feed_open = memory_feed_open,
    .feed_close = memory_feed_close,
    .feed_next = memory_feed_next,
    .feed_blob = memory_feed_blob,
    .feed_cursor = memory_feed_cursor,
    .feed_cancel = memory_feed_cancel,
    .verify = memory_verify,
    .check = memory_check,
    .compact = memory_compact,
};
