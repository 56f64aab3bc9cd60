/*
 * blobstore.c - the part of every store that is the same: urls, hashing on the way in, waiting for
 * an answer, uploads up to the size at which a payload gets a file of its own, cursors
 *
 * To add a backend: fill a struct rf_store_ops and name it in `backends`.
 */
#include "blobstore/large_acts.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SEGMENT_BYTES_MIN (64ull << 10)
#define SEGMENT_BYTES_MAX (2ull << 30) /* offsets in lookup runs have 32 bits */

static const struct rf_store_ops *const backends[] = {
    &rf_store_disk_ops,
    &rf_store_memory_ops,
};

/* ---- stores ---- */

static enum rf_status open_backend(struct rf_store **out, const struct rf_store_ops *ops,
                                   const char *path, const struct rf_store_options *options,
                                   struct rf_error *err)
{
    struct rf_store *store = NULL;
    enum rf_status status = ops->open(&store, path, options, err);

    if (status == RF_OK && store->writable)
        status = rf_large_acts_open(&store->large_acts, store, err);
    if (status == RF_OK)
        *out = store;
    else if (store)
        ops->close(store);
    return status;
}

enum rf_status rf_store_open(struct rf_store **out, const char *url,
                             const struct rf_store_options *options, struct rf_error *err)
{
    static const struct rf_store_options defaults = {.mode = RF_STORE_READ};
    size_t scheme = strcspn(url, ":");

    if (!options)
        options = &defaults;
    if (options->segment_bytes && (options->segment_bytes < SEGMENT_BYTES_MIN ||
                                   options->segment_bytes > SEGMENT_BYTES_MAX))
        return rf_error_set(err, RF_INVALID, "segment_bytes is %" PRIu64 ", not within %llu-%llu",
                            options->segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        if (url[scheme] == ':' && strlen(backends[i]->name) == scheme &&
            memcmp(url, backends[i]->name, scheme) == 0)
            return open_backend(out, backends[i], url + scheme + 1, options, err);
    }
    return rf_error_set(err, RF_INVALID,
                        "'%s' is not the url of a store: it must start with 'disk:' or 'memory:'",
                        url);
}

void rf_store_close(struct rf_store *store)
{
    if (!store)
        return;
    rf_large_acts_close(store->large_acts);
    store->ops->close(store);
}

enum rf_status rf_store_info(struct rf_store *store, struct rf_store_info *out,
                             struct rf_error *err)
{
    return store->ops->info(store, out, err);
}

void rf_store_part_describe(enum rf_store_part part, bool mended, char *out, size_t size)
{
    const char *name = part == RF_STORE_IDENTITY ? "store.json" : part == RF_STORE_LOCK ? "lock" :
                       part == RF_STORE_HEAD ? "head" : part == RF_STORE_RUNS ? "run" : "large";

    if (part == RF_STORE_LARGE)
        snprintf(out, size, "folder '%s' of the store was missing%s; if there were blobs above %u "
                 "bytes, 'refuge store verify' names them", name,
                 mended ? " and was made again, empty" : "", RF_BLOB_INLINE_MAX);
    else
        snprintf(out, size, "'%s' of the store %s missing or damaged; nothing is lost, %s again",
                 name, mended ? "was" : "is", mended ? "it was made" : "the next writer makes it");
}

/* ---- writing ---- */

static void answer(struct rf_act *act, enum rf_status status)
{
    act->status = status;
    act->done(act);
}

static enum rf_status settle_ref(struct rf_act *act)
{
    struct rf_blobref ref;
    char text[RF_BLOBREF_SIZE], expected[RF_BLOBREF_SIZE];

    rf_blobref_of(&ref, act->bytes);
    if (act->ref.algo && !rf_blobref_equal(&ref, &act->ref)) {
        rf_blobref_format(&ref, text);
        rf_blobref_format(&act->ref, expected);
        return rf_error_set(&act->error, RF_INVALID, "content hashes to %s, not to %s", text,
                            expected);
    }
    act->ref = ref;
    return RF_OK;
}

void rf_store_submit(struct rf_store *store, struct rf_act *act)
{
    assert(act->done);
    act->status = RF_OK;
    act->seq = 0;
    act->next = NULL;
    memset(&act->own, 0, sizeof act->own);
    rf_error_clear(&act->error);
    if (!store->writable) {
        answer(act, rf_error_set(&act->error, RF_DENIED, "the store is open for reading only"));
        return;
    }
    if (!act->is_delete && act->bytes.size > RF_BLOB_INLINE_MAX) {
        rf_large_acts_submit(store->large_acts, act);
        return;
    }
    if (!act->is_delete) {
        act->own.size = act->bytes.size;
        if (settle_ref(act) != RF_OK) {
            answer(act, RF_INVALID);
            return;
        }
    }
    assert(act->ref.algo == RF_ALGO_SHA256);
    store->ops->submit(store, act);
}

void rf_act_settle(struct rf_act *act)
{
    __atomic_store_n(&act->own.settled, 1, __ATOMIC_RELEASE);
}

void rf_act_await(struct rf_act *act)
{
    for (;;) {
        uint32_t seen = act->own.answers ? __atomic_load_n(act->own.answers, __ATOMIC_ACQUIRE) : 0;
        if (__atomic_load_n(&act->own.settled, __ATOMIC_ACQUIRE))
            return;
        assert(act->own.answers);
        syscall(SYS_futex, act->own.answers, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    }
}

/* Submit and sleep until it is answered. */
static enum rf_status act_and_wait(struct rf_store *store, struct rf_act *act,
                                   enum rf_put_outcome *outcome, struct rf_error *err)
{
    act->done = rf_act_settle;
    rf_store_submit(store, act);
    rf_act_await(act);
    if (act->status != RF_OK)
        return rf_error_set(err, act->status, "%s", act->error.message);
    if (outcome)
        *outcome = act->outcome;
    return RF_OK;
}

enum rf_status rf_store_put(struct rf_store *store, struct rf_bytes bytes,
                            const struct rf_blobref *expect, bool part, struct rf_blobref *out,
                            enum rf_put_outcome *outcome, struct rf_error *err)
{
    struct rf_upload *upload = NULL;
    struct rf_act act = {.bytes = bytes, .part = part};
    enum rf_status status;

    if (bytes.size <= RF_BLOB_INLINE_MAX) {
        if (expect)
            act.ref = *expect;
        status = act_and_wait(store, &act, outcome, err);
        if (status == RF_OK && out)
            *out = act.ref;
        return status;
    }
    status = rf_upload_open(&upload, store, err);
    if (!upload)
        return status;
    if (status == RF_OK)
        status = rf_upload_write(upload, bytes, err);
    if (status == RF_OK)
        status = rf_upload_commit(upload, expect, part, out, outcome, err);
    rf_upload_close(upload);
    return status;
}

enum rf_status rf_store_delete(struct rf_store *store, const struct rf_blobref *ref,
                               enum rf_put_outcome *outcome, struct rf_error *err)
{
    struct rf_act act = {.is_delete = true, .ref = *ref};

    return act_and_wait(store, &act, outcome, err);
}

/* ---- uploads ---- */

struct rf_upload {
    struct rf_store *store;
    struct rf_buf small;    /* everything, while it fits */
    struct rf_large *large; /* everything, once it does not */
};

enum rf_status rf_upload_open(struct rf_upload **out, struct rf_store *store, struct rf_error *err)
{
    struct rf_upload *upload;

    if (!store->writable)
        return rf_error_set(err, RF_DENIED, "the store is open for reading only");
    upload = calloc(1, sizeof *upload);
    if (!upload)
        return rf_error_set(err, RF_NOMEM, "no memory for an upload");
    upload->store = store;
    rf_buf_init(&upload->small, RF_BLOB_INLINE_MAX);
    *out = upload;
    return RF_OK;
}

/* Go on in a file of its own, taking along what came so far. */
static enum rf_status become_large(struct rf_upload *upload, struct rf_error *err)
{
    const struct rf_store_ops *ops = upload->store->ops;
    enum rf_status status;

    if (upload->large)
        return RF_OK;
    status = ops->large_open(&upload->large, upload->store, err);
    if (status == RF_OK && upload->small.size)
        status = ops->large_write(upload->large, rf_buf_bytes(&upload->small), err);
    rf_buf_release(&upload->small);
    return status;
}

enum rf_status rf_upload_write(struct rf_upload *upload, struct rf_bytes bytes,
                               struct rf_error *err)
{
    enum rf_status status;

    if (!upload->large && bytes.size <= RF_BLOB_INLINE_MAX - upload->small.size) {
        rf_buf_put(&upload->small, bytes.data, bytes.size);
        if (upload->small.failed)
            return rf_error_set(err, upload->small.failed, "no memory for an upload");
        return RF_OK;
    }
    status = become_large(upload, err);
    if (status == RF_OK)
        status = upload->store->ops->large_write(upload->large, bytes, err);
    return status;
}

static enum rf_status copy_fd(struct rf_upload *upload, int fd, uint64_t offset, uint64_t size,
                              struct rf_error *err)
{
    size_t step = 256u << 10;
    uint8_t *buffer = malloc(step);
    enum rf_status status = RF_OK;

    if (!buffer)
        return rf_error_set(err, RF_NOMEM, "no memory for an upload");
    while (size > 0 && status == RF_OK) {
        ssize_t n = pread(fd, buffer, size < step ? (size_t)size : step, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            status = rf_error_errno(err, RF_IO, errno, "cannot read the file to be stored");
        else if (n == 0)
            status = rf_error_set(err, RF_INVALID,
                                  "the file ends %" PRIu64 " bytes early: it changed while it was "
                                  "read; try again", size);
        else
            status = rf_upload_write(upload, rf_bytes(buffer, (size_t)n), err);
        if (status == RF_OK) {
            offset += (uint64_t)n;
            size -= (uint64_t)n;
        }
    }
    free(buffer);
    return status;
}

enum rf_status rf_upload_write_fd(struct rf_upload *upload, int fd, uint64_t offset, uint64_t size,
                                  struct rf_error *err)
{
    const struct rf_store_ops *ops = upload->store->ops;
    uint64_t taken = 0;
    enum rf_status status = RF_OK;

    if (!upload->large && size <= RF_BLOB_INLINE_MAX - upload->small.size)
        return copy_fd(upload, fd, offset, size, err);
    status = become_large(upload, err);
    if (status == RF_OK && ops->large_clone)
        status = ops->large_clone(upload->large, fd, offset, size, &taken, err);
    if (status == RF_OK)
        status = copy_fd(upload, fd, offset + taken, size - taken, err);
    return status;
}

enum rf_status rf_upload_commit(struct rf_upload *upload, const struct rf_blobref *expect,
                                bool part, struct rf_blobref *out, enum rf_put_outcome *outcome,
                                struct rf_error *err)
{
    if (!upload->large)
        return rf_store_put(upload->store, rf_buf_bytes(&upload->small), expect, part, out,
                            outcome, err);
    return upload->store->ops->large_commit(upload->large, expect, part, out, outcome,
                                             NULL, err);
}

void rf_upload_close(struct rf_upload *upload)
{
    if (!upload)
        return;
    if (upload->large)
        upload->store->ops->large_close(upload->large);
    rf_buf_release(&upload->small);
    free(upload);
}

/* ---- reading ---- */

enum rf_status rf_store_stat(struct rf_store *store, const struct rf_blobref *ref,
                             struct rf_stat *out, struct rf_error *err)
{
    return store->ops->stat(store, ref, out, err);
}

enum rf_status rf_store_get(struct rf_store *store, const struct rf_blobref *ref,
                            struct rf_buf *buf, struct rf_error *err)
{
    return store->ops->get(store, ref, buf, err);
}

enum rf_status rf_store_read(struct rf_store *store, const struct rf_blobref *ref, uint64_t offset,
                             void *out, size_t size, size_t *got, struct rf_error *err)
{
    return store->ops->read(store, ref, offset, out, size, got, err);
}

enum rf_status rf_store_list(struct rf_store *store, const struct rf_blobref *after,
                             enum rf_status (*visit)(void *user, const struct rf_stat *stat),
                             void *user, struct rf_error *err)
{
    return store->ops->list(store, after, visit, user, err);
}

/* ---- the change queue ---- */

enum rf_status rf_feed_open(struct rf_feed **out, struct rf_store *store,
                            const struct rf_cursor *from, struct rf_error *err)
{
    return store->ops->feed_open(out, store, from, err);
}

void rf_feed_close(struct rf_feed *feed)
{
    if (feed)
        feed->ops->feed_close(feed);
}

enum rf_status rf_feed_next(struct rf_feed *feed, struct rf_change *out, int timeout_ms,
                            struct rf_error *err)
{
    return feed->ops->feed_next(feed, out, timeout_ms, err);
}

enum rf_status rf_feed_blob(struct rf_feed *feed, struct rf_bytes *out, struct rf_error *err)
{
    return feed->ops->feed_blob(feed, out, err);
}

void rf_feed_cursor(struct rf_feed *feed, struct rf_cursor *out)
{
    feed->ops->feed_cursor(feed, out);
}

void rf_feed_cancel(struct rf_feed *feed)
{
    feed->ops->feed_cancel(feed);
}

/* ---- care ---- */

enum rf_status rf_store_verify(struct rf_store *store, struct rf_verify_report *out,
                               void (*problem)(void *user, const char *line),
                               void (*progress)(void *user, uint64_t done, uint64_t total),
                               void *user, struct rf_error *err)
{
    return store->ops->verify(store, out, problem, progress, user, err);
}

enum rf_status rf_store_check(struct rf_store *store, uint64_t *damaged,
                              void (*problem)(void *user, const char *line), void *user,
                              struct rf_error *err)
{
    return store->ops->check(store, damaged, problem, user, err);
}

enum rf_status rf_store_compact(struct rf_store *store, uint64_t *freed, struct rf_error *err)
{
    uint64_t none;

    if (!store->writable)
        return rf_error_set(err, RF_DENIED, "the store is open for reading only");
    return store->ops->compact(store, freed ? freed : &none, err);
}

/* ---- cursors ---- */

/* Decimal digits up to max, at least one, no leading zero but "0" itself. NULL when there are none
 * such; else what follows them. */
static const char *parse_number(const char *text, uint64_t max, uint64_t *out)
{
    const char *at = text;
    uint64_t value = 0;

    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (value > (max - digit) / 10)
            return NULL;
        value = value * 10 + digit;
    }
    if (at == text || (*text == '0' && at != text + 1))
        return NULL;
    *out = value;
    return at;
}

static const char *parse_chain(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    int count = 0;

    for (; count < 16; count++) {
        char c = text[count];
        if (c >= '0' && c <= '9')
            value = value << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uint64_t)(c - 'a' + 10);
        else
            return NULL;
    }
    *out = value;
    return text + 16;
}

enum rf_status rf_cursor_parse(struct rf_cursor *out, const char *text, struct rf_error *err)
{
    struct rf_cursor cursor = {0};
    uint64_t generation = 0;
    const char *at = parse_number(text, UINT32_MAX, &generation);

    if (at && *at == '-')
        at = parse_number(at + 1, UINT64_MAX - 1, &cursor.seq);
    else
        at = NULL;
    if (at && *at == '-') {
        at = parse_chain(at + 1, &cursor.chain);
        cursor.has_chain = true;
    }
    if (!at || *at)
        return rf_error_set(err, RF_INVALID,
                            "'%.80s' is not a cursor: it must be <generation>-<sequence> or "
                            "<generation>-<sequence>-<16 hex digits>", text);
    cursor.generation = (uint32_t)generation;
    *out = cursor;
    return RF_OK;
}

void rf_cursor_format(const struct rf_cursor *cursor, char out[RF_CURSOR_SIZE])
{
    int size = snprintf(out, RF_CURSOR_SIZE, "%" PRIu32 "-%" PRIu64, cursor->generation,
                        cursor->seq);

    if (cursor->has_chain)
        snprintf(out + size, RF_CURSOR_SIZE - (size_t)size, "-%016" PRIx64, cursor->chain);
}

enum rf_status rf_cursor_refuse(enum rf_status status, const struct rf_cursor *cursor,
                                uint64_t bound, struct rf_error *err)
{
    char text[RF_CURSOR_SIZE];

    rf_cursor_format(cursor, text);
    switch (status) {
    case RF_CURSOR_GENERATION:
        return rf_error_set(err, status,
                            "cursor %s is of another generation than the store (%" PRIu64
                            "): the store was made anew; read it from the start", text, bound);
    case RF_CURSOR_FUTURE:
        return rf_error_set(err, status,
                            "cursor %s is past the newest change (%" PRIu64 "): the store was "
                            "rolled back or is another one; read it from the start", text, bound);
    case RF_CURSOR_OLD:
        return rf_error_set(err, status,
                            "cursor %s is older than the log (starts at %" PRIu64
                            "); read it from the start", text, bound);
    default:
        return rf_error_set(err, RF_CURSOR_HISTORY,
                            "cursor %s is of another history: the store was rolled back to an "
                            "older copy and went on differently; read it from the start", text);
    }
}

enum rf_status rf_cursor_check(const struct rf_cursor *cursor,
                               const struct rf_cursor_bounds *bounds, struct rf_error *err)
{
    if (cursor->generation != bounds->generation)
        return rf_cursor_refuse(RF_CURSOR_GENERATION, cursor, bounds->generation, err);
    if (cursor->seq > bounds->newest_seq)
        return rf_cursor_refuse(RF_CURSOR_FUTURE, cursor, bounds->newest_seq, err);
    if (cursor->seq + 1 < bounds->oldest_seq)
        return rf_cursor_refuse(RF_CURSOR_OLD, cursor, bounds->oldest_seq, err);
    return RF_OK;
}

/* ---- small things ---- */

void rf_uuid_random(uint8_t uuid[16])
{
    size_t got = 0;

    while (got < 16) {
        ssize_t n = getrandom(uuid + got, 16 - got, 0);
        if (n > 0)
            got += (size_t)n;
        else if (n < 0 && errno != EINTR)
            abort(); /* without randomness there is no identity; Linux always has it */
    }
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40);
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

void rf_uuid_format(const uint8_t uuid[16], char out[37])
{
    char *to = out;

    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *to++ = '-';
        to += snprintf(to, 3, "%02x", uuid[i]);
    }
}

bool rf_uuid_parse(uint8_t uuid[16], const char *text)
{
    uint8_t bytes[16] = {0};
    char again[37];
    size_t digits = 0;

    if (strlen(text) != 36)
        return false;
    for (const char *at = text; *at; at++) {
        if (*at == '-')
            continue;
        if (digits == 32)
            return false;
        bytes[digits / 2] = (uint8_t)(bytes[digits / 2] << 4 |
                                      (*at <= '9' ? *at - '0' : *at - 'a' + 10));
        digits++;
    }
    rf_uuid_format(bytes, again); /* only what comes out the same was well formed */
    if (strcmp(again, text) != 0)
        return false;
    memcpy(uuid, bytes, 16);
    return true;
}

int64_t rf_store_now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}
