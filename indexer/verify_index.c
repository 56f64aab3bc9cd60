/*
 * verify_index.c - is the index what its store and its mappers say?
 *
 * The log is mapped again into a throw-away index beside the real one: with the mapper texts kept
 * in the real one, in fresh workers, in another order within each batch, up to the change at which
 * the live lane stands. Then both are compared row by row.
 */
#include "indexer/index_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "sinks/query.h"

static void remove_rebuilt(const char *url)
{
    static const char *const endings[] = {"", "-wal", "-shm", "-journal", ".lock"};
    const char *path = strchr(url, ':') ? strchr(url, ':') + 1 : url;
    char file[4200];

    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        snprintf(file, sizeof file, "%s%s", path, endings[i]);
        unlink(file);
    }
}

/* What the live lane of the index was built from and where it stands. */
struct live {
    struct rf_bytes *bundles;
    size_t count;
    char position[RF_POSITION_SIZE];
    uint64_t pending; /* parks that the slow lane has not seen to */
};

static enum rf_status read_live(const struct rf_index_options *options, struct rf_arena *arena,
                                struct live *out, struct rf_error *err)
{
    struct rf_sink_options how = {.write = false};
    struct rf_sink_counts counts;
    struct rf_sink *sink = NULL;
    struct rf_sink_lane *lanes = NULL;
    size_t count = 0;
    enum rf_status status = rf_sink_open(&sink, options->sink_url, &how, err);

    if (status == RF_OK)
        status = rf_sink_lanes(sink, arena, &lanes, &count, err);
    if (status == RF_OK && (count == 0 || !lanes[0].live))
        status = rf_error_set(err, RF_NOT_FOUND,
                              "index '%s' holds nothing yet; run 'refuge index run' first",
                              options->name);
    if (status == RF_OK)
        status = rf_sink_counts(sink, lanes[0].id, &counts, err);
    if (status == RF_OK) {
        out->count = lanes[0].mapper_count;
        out->bundles = rf_arena_alloc(arena, (out->count + 1) * sizeof *out->bundles);
        for (size_t i = 0; i < out->count; i++)
            out->bundles[i] = lanes[0].mappers[i].bundle;
        snprintf(out->position, sizeof out->position, "%s", lanes[0].position);
        out->pending = counts.parked_slow + counts.parked_ready;
    }
    rf_sink_close(sink);
    return status;
}

static enum rf_status rebuild(const struct rf_index_options *options, const char *url,
                              const struct live *live, uint64_t until_seq, struct rf_error *err)
{
    struct rf_index_options rebuilt = *options;
    struct rf_index *index = NULL;
    enum rf_status status;

    rebuilt.sink_url = url;
    rebuilt.rebuild = false;
    if (rebuilt.shuffle_seed == 0 &&
        getrandom(&rebuilt.shuffle_seed, sizeof rebuilt.shuffle_seed, 0) < 0)
        rebuilt.shuffle_seed = 1;
    if (rebuilt.shuffle_seed == 0)
        rebuilt.shuffle_seed = 1;
    status = rf_index_open_with(&index, &rebuilt, live->bundles, live->count, until_seq, err);
    if (status == RF_OK)
        status = rf_index_run(index, false, err);
    rf_index_close(index);
    return status;
}

enum rf_status rf_index_verify(const struct rf_index_options *options,
                               void (*problem)(void *user, const char *line),
                               struct rf_compare_report *out, struct rf_error *err)
{
    struct rf_arena arena;
    struct live live = {0};
    struct rf_cursor at = {0};
    char url[4200];
    enum rf_status status;

    rf_arena_init(&arena, (size_t)256 << 20);
    status = read_live(options, &arena, &live, err);
    if (status == RF_OK && live.pending)
        status = rf_error_set(err, RF_UNAVAILABLE,
                              "%" PRIu64 " items of index '%s' still wait for the slow lane; run "
                              "'refuge index run' first",
                              live.pending, options->name);
    if (status == RF_OK && live.position[0])
        status = rf_cursor_parse(&at, live.position, err);
    if (status == RF_OK) {
        snprintf(url, sizeof url, "%s.verify", options->sink_url);
        remove_rebuilt(url);
        status = rebuild(options, url, &live, at.seq, err);
        if (status == RF_OK)
            status = rf_query_compare(options->sink_url, url, problem, options->hooks.user, out,
                                      err);
        remove_rebuilt(url);
    }
    rf_arena_release(&arena);
    return status;
}
