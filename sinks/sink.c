/*
 * sink.c - the table of sink backends, and the contract of sink.h in one place
 *
 * Each function asserts what its caller promised and passes on. To add a backend: write its table
 * (sink_ops.h), name it in `backends`, and run tests/contract/test_sink.c over it.
 */
#include "sinks/sink_ops.h"

#include <assert.h>

static const struct rf_sink_ops *const backends[] = {
    &rf_sink_sqlite_ops,
    &rf_sink_postgres_ops,
    &rf_sink_elastic_ops,
};

static bool is_scheme(const char *url, size_t size, const char *scheme)
{
    return strlen(scheme) == size && memcmp(url, scheme, size) == 0;
}

/* The backend of a URL and what stands behind the colon, or the plus; NULL: there is none
 * (RF_UNSUPPORTED). */
static const struct rf_sink_ops *find_backend(const char *url, const char **rest,
                                              struct rf_error *err)
{
    size_t size = strcspn(url, ":+"); /* "elasticsearch+https://..." is of scheme elasticsearch */

    for (size_t i = 0; url[size] && url[size + 1] && i < sizeof backends / sizeof *backends; i++) {
        const struct rf_sink_ops *ops = backends[i];
        if (is_scheme(url, size, ops->scheme) || (ops->alias && is_scheme(url, size, ops->alias))) {
            *rest = url + size + 1;
            return ops;
        }
    }
    rf_error_set(err, RF_UNSUPPORTED,
                 "cannot use sink '%s': no such kind of sink, write sqlite:PATH, "
                 "postgresql://USER@HOST/DATABASE#SCHEMA or "
                 "elasticsearch+http://HOST:PORT#PREFIX",
                 url);
    return NULL;
}

enum rf_status rf_sink_open(struct rf_sink **out, const char *url,
                            const struct rf_sink_options *options, struct rf_error *err)
{
    const char *rest;
    const struct rf_sink_ops *ops = find_backend(url, &rest, err);

    assert(!options->create || options->write);
    if (!ops)
        return RF_UNSUPPORTED;
    return ops->open(out, rest, options, err);
}

void rf_sink_close(struct rf_sink *sink)
{
    if (sink)
        sink->ops->close(sink);
}

enum rf_status rf_sink_writer(struct rf_sink *sink, struct rf_error *err)
{
    return sink->ops->writer(sink, err);
}

enum rf_status rf_sink_erase(const char *url, struct rf_error *err)
{
    const char *rest;
    const struct rf_sink_ops *ops = find_backend(url, &rest, err);

    return ops ? ops->erase(rest, err) : RF_UNSUPPORTED;
}

static enum rf_status need_write(const struct rf_sink *sink, struct rf_error *err)
{
    if (!sink->write)
        return rf_error_set(err, RF_DENIED, "cannot change this index: it was opened for reading");
    return RF_OK;
}

/* ---- lanes ---- */

enum rf_status rf_sink_lanes(struct rf_sink *sink, struct rf_arena *arena,
                             struct rf_sink_lane **lanes, size_t *count, struct rf_error *err)
{
    return sink->ops->lanes(sink, arena, lanes, count, err);
}

enum rf_status rf_sink_lane_begin(struct rf_sink *sink, const struct rf_sink_mapper *mappers,
                                  size_t count, bool full, uint32_t *lane, struct rf_error *err)
{
    enum rf_status status = need_write(sink, err);

    assert(!sink->batch_open);
    assert(count <= UINT16_MAX);
    return status ? status : sink->ops->lane_begin(sink, mappers, count, full, lane, err);
}

enum rf_status rf_sink_lane_ready(struct rf_sink *sink, uint32_t lane, struct rf_error *err)
{
    enum rf_status status = need_write(sink, err);

    assert(!sink->batch_open);
    return status ? status : sink->ops->lane_ready(sink, lane, err);
}

enum rf_status rf_sink_lane_swap(struct rf_sink *sink, uint32_t lane, const char *const *removed,
                                 size_t removed_count, struct rf_error *err)
{
    enum rf_status status = need_write(sink, err);

    assert(!sink->batch_open);
    return status ? status : sink->ops->lane_swap(sink, lane, removed, removed_count, err);
}

enum rf_status rf_sink_lane_drop(struct rf_sink *sink, uint32_t lane, struct rf_error *err)
{
    enum rf_status status = need_write(sink, err);

    assert(!sink->batch_open);
    return status ? status : sink->ops->lane_drop(sink, lane, err);
}

/* ---- writing ---- */

enum rf_status rf_sink_begin(struct rf_sink *sink, uint32_t lane, const char *from,
                             struct rf_error *err)
{
    enum rf_status status = need_write(sink, err);

    assert(!sink->batch_open);
    assert(strlen(from) < RF_POSITION_SIZE);
    return status ? status : sink->ops->begin(sink, lane, from, err);
}

/* A write behind a failure that rolled the batch back: the first error was the one to heed. */
static enum rf_status need_batch(const struct rf_sink *sink, struct rf_error *err)
{
    if (!sink->batch_open)
        return rf_error_set(err, RF_INVALID, "cannot write to the index: no batch is open");
    return RF_OK;
}

enum rf_status rf_sink_expect(struct rf_sink *sink, const char *const *keys, size_t count,
                              struct rf_error *err)
{
    enum rf_status status = need_batch(sink, err);

    assert(count <= RF_SINK_EXPECT_MAX);
    return status ? status : sink->ops->expect(sink, keys, count, err);
}

enum rf_status rf_sink_put(struct rf_sink *sink, const struct rf_sink_item *item, bool *stale,
                           struct rf_error *err)
{
    enum rf_status status = need_batch(sink, err);

    assert(strlen(item->key) < RF_ITEM_KEY_SIZE);
    assert(item->kind != RF_SINK_PART || item->seq == 0);
    assert(item->seq <= INT64_MAX && item->size <= INT64_MAX);
    return status ? status : sink->ops->put(sink, item, stale, err);
}

enum rf_status rf_sink_put_parts(struct rf_sink *sink, uint16_t mapper,
                                 const struct rf_sink_part *parts, size_t count,
                                 struct rf_error *err)
{
    enum rf_status status = need_batch(sink, err);

    return status ? status : sink->ops->put_parts(sink, mapper, parts, count, err);
}

enum rf_status rf_sink_remove(struct rf_sink *sink, const struct rf_blobref *ref, uint64_t seq,
                              int64_t timestamp_us, struct rf_error *err)
{
    enum rf_status status = need_batch(sink, err);

    assert(seq <= INT64_MAX);
    return status ? status : sink->ops->remove(sink, ref, seq, timestamp_us, err);
}

enum rf_status rf_sink_arrived(struct rf_sink *sink, const struct rf_blobref *ref,
                               struct rf_error *err)
{
    enum rf_status status = need_batch(sink, err);

    return status ? status : sink->ops->arrived(sink, ref, err);
}

enum rf_status rf_sink_lost(struct rf_sink *sink, uint64_t first, uint64_t last,
                            struct rf_error *err)
{
    enum rf_status status = need_batch(sink, err);

    assert(first <= last && last <= INT64_MAX);
    return status ? status : sink->ops->lost(sink, first, last, err);
}

enum rf_status rf_sink_share(struct rf_sink *sink, uint64_t mappers, struct rf_error *err)
{
    enum rf_status status = need_batch(sink, err);

    return status ? status : sink->ops->share(sink, mappers, err);
}

enum rf_status rf_sink_again(struct rf_sink *sink, const char *key, const char *media,
                             uint64_t mappers, struct rf_error *err)
{
    enum rf_status status = need_batch(sink, err);

    assert(strlen(key) < RF_ITEM_KEY_SIZE);
    return status ? status : sink->ops->again(sink, key, media, mappers, err);
}

enum rf_status rf_sink_commit(struct rf_sink *sink, const char *to, struct rf_error *err)
{
    enum rf_status status = need_batch(sink, err);

    assert(strlen(to) < RF_POSITION_SIZE);
    return status ? status : sink->ops->commit(sink, to, err);
}

void rf_sink_rollback(struct rf_sink *sink)
{
    if (sink->batch_open)
        sink->ops->rollback(sink);
    assert(!sink->batch_open);
}

enum rf_status rf_sink_has_part(struct rf_sink *sink, uint32_t lane, const char *key, bool *out,
                                struct rf_error *err)
{
    return sink->ops->has_part(sink, lane, key, out, err);
}

enum rf_status rf_sink_mapper_splits(struct rf_sink *sink, uint32_t lane, const char *name,
                                     bool *out, struct rf_error *err)
{
    return sink->ops->mapper_splits(sink, lane, name, out, err);
}

/* ---- parks, dead letters, facts ---- */

enum rf_status rf_sink_parks(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                             enum rf_park_kind kind, int64_t *after, struct rf_sink_park *out,
                             size_t max, size_t *count, struct rf_error *err)
{
    assert(kind < RF_PARK_KIND_COUNT);
    return sink->ops->parks(sink, lane, mapper, kind, after, out, max, count, err);
}

enum rf_status rf_sink_park_counts(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                                   uint64_t counts[RF_PARK_KIND_COUNT], struct rf_error *err)
{
    return sink->ops->park_counts(sink, lane, mapper, counts, err);
}

enum rf_status rf_sink_is_parked(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                                 const char *key, bool *out, uint32_t *attempts,
                                 struct rf_error *err)
{
    return sink->ops->is_parked(sink, lane, mapper, key, out, attempts, err);
}

enum rf_status rf_sink_park_needs(struct rf_sink *sink, uint32_t lane,
                                  const struct rf_sink_park *park, struct rf_arena *arena,
                                  struct rf_blobref **refs, size_t *count, struct rf_error *err)
{
    return sink->ops->park_needs(sink, lane, park, arena, refs, count, err);
}

enum rf_status rf_sink_origin_of(struct rf_sink *sink, uint32_t lane, const char *key,
                                 struct rf_sink_origin *out, struct rf_error *err)
{
    return sink->ops->origin_of(sink, lane, key, out, err);
}

enum rf_status rf_sink_holders(struct rf_sink *sink, uint32_t lane, const char *key,
                               enum rf_status (*visit)(void *user, const struct rf_sink_holder *),
                               void *user, struct rf_error *err)
{
    return sink->ops->holders(sink, lane, key, visit, user, err);
}

enum rf_status rf_sink_dead_letters(struct rf_sink *sink,
                                    enum rf_status (*visit)(void *user,
                                                            const struct rf_dead_letter *),
                                    void *user, struct rf_error *err)
{
    return sink->ops->dead_letters(sink, visit, user, err);
}

enum rf_status rf_sink_retry(struct rf_sink *sink, const char *mapper, const char *key,
                             uint64_t *count, struct rf_error *err)
{
    enum rf_status status = need_write(sink, err);

    assert(!sink->batch_open);
    return status ? status : sink->ops->retry(sink, mapper, key, count, err);
}

enum rf_status rf_sink_set_fact(struct rf_sink *sink, const char *name, const char *value,
                                struct rf_error *err)
{
    enum rf_status status = need_write(sink, err);

    return status ? status : sink->ops->set_fact(sink, name, value, err);
}

enum rf_status rf_sink_get_fact(struct rf_sink *sink, struct rf_arena *arena, const char *name,
                                const char **value, struct rf_error *err)
{
    return sink->ops->get_fact(sink, arena, name, value, err);
}

enum rf_status rf_sink_counts(struct rf_sink *sink, uint32_t lane, struct rf_sink_counts *out,
                              struct rf_error *err)
{
    return sink->ops->counts(sink, lane, out, err);
}

/* ---- queries ---- */

enum rf_status rf_query_sql(const char *url, const char *sql,
                            void (*header)(void *user, size_t count, const char *const *names),
                            rf_query_visit visit, void *user, const volatile int *interrupted,
                            struct rf_error *err)
{
    const char *rest;
    const struct rf_sink_ops *ops = find_backend(url, &rest, err);

    return ops ? ops->query_sql(rest, sql, header, visit, user, interrupted, err)
               : RF_UNSUPPORTED;
}

enum rf_status rf_query_search(const char *url, const char *words,
                               const struct rf_search_options *options,
                               enum rf_status (*visit)(void *user, const struct rf_hit *hit),
                               void *user, uint64_t *total, struct rf_error *err)
{
    const char *rest;
    const struct rf_sink_ops *ops = find_backend(url, &rest, err);

    return ops ? ops->query_search(rest, words, options, visit, user, total, err)
               : RF_UNSUPPORTED;
}

static enum rf_status asked_by_sql(const char *url, struct rf_error *err)
{
    return rf_error_set(err, RF_UNSUPPORTED, "index '%s' is asked by SQL", url);
}

enum rf_status rf_query_items(const char *url, const struct rf_items_question *question,
                              enum rf_status (*visit)(void *user, const struct rf_item_answer *),
                              void *user, struct rf_error *err)
{
    const char *rest;
    const struct rf_sink_ops *ops = find_backend(url, &rest, err);

    if (!ops || !ops->query_items)
        return ops ? asked_by_sql(url, err) : RF_UNSUPPORTED;
    return ops->query_items(rest, question, visit, user, err);
}

enum rf_status rf_query_item(const char *url, const char *key,
                             enum rf_status (*parent)(void *user,
                                                      const struct rf_item_parent_answer *),
                             enum rf_status (*call)(void *user,
                                                    const struct rf_item_call_answer *),
                             void *user, struct rf_error *err)
{
    const char *rest;
    const struct rf_sink_ops *ops = find_backend(url, &rest, err);

    if (!ops || !ops->query_item)
        return ops ? asked_by_sql(url, err) : RF_UNSUPPORTED;
    return ops->query_item(rest, key, parent, call, user, err);
}

/* A place in words: the path of a file, the URL of a server without its parameters. */
static void name_place(const char *url, const char *rest, struct rf_buf *out)
{
    size_t size = strcspn(url, "?#");

    if (strncmp(rest, "//", 2) == 0 || url[strcspn(url, ":+")] == '+')
        rf_buf_printf(out, "%.*s%s", (int)size, url, strchr(url, '#') ? strchr(url, '#') : "");
    else
        rf_buf_put_text(out, rest);
}

static enum rf_status open_canon(struct rf_canon **out, const char *url, const char **rest,
                                 struct rf_error *err)
{
    const struct rf_sink_ops *ops = find_backend(url, rest, err);

    return ops ? ops->query_canon(out, *rest, err) : RF_UNSUPPORTED;
}

enum rf_status rf_query_compare(const char *url, const char *rebuilt_url,
                                const struct rf_compare_options *options,
                                struct rf_compare_report *out, struct rf_error *err)
{
    struct rf_canon *is = NULL, *should = NULL;
    const char *rest = "", *rebuilt_rest;
    enum rf_status status = open_canon(&is, url, &rest, err);

    if (status == RF_OK)
        status = open_canon(&should, rebuilt_url, &rebuilt_rest, err);
    if (status == RF_OK) {
        struct rf_buf name;

        rf_buf_init(&name, 1 << 16);
        name_place(url, rest, &name);
        is->interrupted = should->interrupted = options->interrupted;
        status = rf_canon_compare(is, rf_buf_text(&name) ? rf_buf_text(&name) : rest, should,
                                  options, out, err);
        rf_buf_release(&name);
    }
    if (is)
        is->ops->close(is);
    if (should)
        should->ops->close(should);
    return status;
}

enum rf_status rf_query_digest(const char *url, const volatile int *interrupted,
                               struct rf_digest *out, struct rf_error *err)
{
    struct rf_canon *canon = NULL;
    const char *rest;
    enum rf_status status = open_canon(&canon, url, &rest, err);

    if (status == RF_OK) {
        canon->interrupted = interrupted;
        status = rf_canon_digest(canon, out, err);
    }
    if (canon)
        canon->ops->close(canon);
    return status;
}

enum rf_status rf_query_metadata(const char *url, struct rf_buf *buf, struct rf_error *err)
{
    const char *rest;
    const struct rf_sink_ops *ops = find_backend(url, &rest, err);

    return ops ? ops->query_metadata(rest, buf, err) : RF_UNSUPPORTED;
}
