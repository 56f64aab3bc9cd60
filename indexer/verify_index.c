/*
 * verify_index.c - is the index what its store and its mappers say?
 *
 * The log is mapped again into a throw-away index: with the mapper texts kept in the real one, in
 * fresh workers, in another order within each batch, up to the change at which the live lane
 * stands. Then both are compared row by row. It stands beside the real one, or elsewhere when that
 * folder cannot be written or is full.
 */
#include "indexer/index_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/control.h"
#include "core/holder.h"
#include "sinks/query.h"

#define URL_SIZE 4200

/* ---- where the throw-away index stands ---- */

struct place {
    char url[URL_SIZE];
    int hold;              /* of a place that others know */
    char folder[URL_SIZE]; /* made for it, to be removed again; or "" */
};

static const char *path_of(const char *url)
{
    return strchr(url, ':') ? strchr(url, ':') + 1 : url;
}

/* Whether a folder can take so many bytes: RF_DENIED, or RF_IO without room. What speaks against it
 * is appended to why. */
static enum rf_status can_take(const char *folder, uint64_t bytes, struct rf_buf *why)
{
    struct statvfs fs;
    uint64_t room;

    if (access(folder, W_OK | X_OK) != 0 || statvfs(folder, &fs) != 0) {
        rf_buf_printf(why, "%s'%s': %s", why->size ? ", " : "", folder, strerror(errno));
        return RF_DENIED;
    }
    room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (room >= bytes)
        return RF_OK;
    rf_buf_printf(why, "%s'%s': %" PRIu64 " MiB free", why->size ? ", " : "", folder, room >> 20);
    return RF_IO;
}

static enum rf_status make_place(const struct rf_index_options *options, struct place *out,
                                 struct rf_error *err)
{
    snprintf(out->folder, sizeof out->folder, "%s/refuge-verify-XXXXXX", options->scratch_dir);
    if (!mkdtemp(out->folder)) {
        out->folder[0] = '\0';
        return rf_error_errno(err, rf_status_of_errno(errno), errno, "cannot make a folder in '%s'",
                              options->scratch_dir);
    }
    snprintf(out->url, sizeof out->url, "sqlite:%.4000s/index.db", out->folder);
    return RF_OK;
}

/* Beside the index, else in a folder of its own within scratch_dir. It will be about as large as
 * the index. */
static enum rf_status find_place(const struct rf_index_options *options, struct place *out,
                                 struct rf_error *err)
{
    const char *suffix = options->verify_url ? "" : RF_INDEX_VERIFY_SUFFIX;
    const char *url = options->verify_url ? options->verify_url : options->sink_url;
    const char *path = path_of(url), *slash = strrchr(path, '/');
    char folder[URL_SIZE];
    struct stat st = {0};
    struct rf_buf why;
    uint64_t bytes;
    enum rf_status status;

    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1,
             slash ? path : ".");
    bytes = stat(path_of(options->sink_url), &st) == 0 ? (uint64_t)st.st_size : 0;
    out->folder[0] = '\0';
    rf_buf_init(&why, 3 * URL_SIZE);
    status = can_take(folder, bytes, &why);
    if (status == RF_OK) {
        snprintf(out->url, sizeof out->url, "%s%s", url, suffix);
    } else if (options->scratch_dir) {
        status = can_take(options->scratch_dir, bytes, &why);
        if (status == RF_OK)
            status = make_place(options, out, err);
    }
    if (status != RF_OK)
        rf_error_set(err, status,
                     "no folder can take a throw-away index of %" PRIu64 " MiB (%s); set TMPDIR to "
                     "one that can",
                     (bytes >> 20) + 1, rf_buf_text(&why));
    rf_buf_release(&why);
    return status;
}

/* ---- one verify at a time ---- */

static void hold_path(const char *verify_url, char *out)
{
    snprintf(out, URL_SIZE, "%s" RF_INDEX_VERIFY_HOLD, path_of(verify_url));
}

/* Whether the file that was locked still has its name: its last holder removed it, maybe. */
static bool is_named(int fd, const char *path)
{
    struct stat here, there;

    return fstat(fd, &here) == 0 && stat(path, &there) == 0 && here.st_ino == there.st_ino &&
           here.st_dev == there.st_dev;
}

static enum rf_status lock_hold(const char *path, int *fd, struct rf_error *err)
{
    char holder[RF_HOLDER_SIZE] = "another process";
    enum rf_status status = RF_OK;

    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*fd < 0)
        return rf_error_errno(err, rf_status_of_errno(errno), errno, "cannot lock '%s'", path);
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0 || !RF_SAFEGUARD("verify-alone"))
        return RF_OK;
    if (errno != EWOULDBLOCK) {
        status = rf_error_errno(err, RF_IO, errno, "cannot lock '%s'", path);
    } else {
        bool known = rf_holder_find(*fd, holder);

        status = rf_error_set(err, RF_LOCKED,
                              "index '%.*s' is being verified by %s%s; try again when it is done",
                              (int)(strlen(path) - strlen(RF_INDEX_VERIFY_SUFFIX
                                                          RF_INDEX_VERIFY_HOLD)),
                              path, known ? "process " : "", holder);
    }
    close(*fd);
    *fd = -1;
    return status;
}

enum rf_status rf_index_verify_hold(const char *verify_url, int *fd, struct rf_error *err)
{
    char path[URL_SIZE];
    enum rf_status status;

    hold_path(verify_url, path);
    for (;;) {
        status = lock_hold(path, fd, err);
        if (status != RF_OK || is_named(*fd, path))
            return status;
        close(*fd);
    }
}

void rf_index_verify_release(const char *verify_url, int fd)
{
    char path[URL_SIZE];

    hold_path(verify_url, path);
    unlink(path);
    close(fd);
}

/* Nobody else is there, and what an earlier one may have left is gone. */
static enum rf_status take_place(struct place *place, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    place->hold = -1;
    if (!place->folder[0])
        status = rf_index_verify_hold(place->url, &place->hold, err);
    if (status == RF_OK)
        status = rf_sink_erase(place->url, err);
    if (status != RF_OK && place->hold >= 0)
        rf_index_verify_release(place->url, place->hold);
    return status;
}

static void clear_place(const struct place *place)
{
    if (rf_sink_erase(place->url, NULL) == RF_OK && place->folder[0])
        rmdir(place->folder);
    if (place->hold >= 0)
        rf_index_verify_release(place->url, place->hold);
}

/* What the live lane of the index was built from and where it stands. */
struct live {
    struct rf_bytes *bundles;
    size_t count;
    struct rf_plan plan;
    char position[RF_POSITION_SIZE];
};

/* A policy that is not carried out yet: rows of the version before stand where the plan has
 * another. */
static enum rf_status check_passes(const struct rf_index_options *options, struct rf_plan *plan,
                                   struct rf_error *err)
{
    for (size_t i = 0; i < plan->count; i++) {
        const struct rf_plan_version *version = rf_plan_passing(plan->mappers[i]);

        if (version)
            return rf_error_set(err, RF_INVALID,
                                "index '%s' is still to be mapped again by mapper '%s' as its "
                                "policy says, from change %" PRIu64 " to %" PRIu64 "; run 'refuge "
                                "index run' first",
                                options->name, plan->mappers[i]->name, version->passed,
                                version->after);
    }
    return RF_OK;
}

static enum rf_status read_live(const struct rf_index_options *options, struct rf_arena *arena,
                                struct live *out, struct rf_error *err)
{
    struct rf_sink_options how = {.name = options->name, .write = false};
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
    if (status == RF_OK) {
        out->count = lanes[0].mapper_count;
        out->bundles = rf_arena_alloc(arena, (out->count + 1) * sizeof *out->bundles);
        for (size_t i = 0; i < out->count; i++)
            out->bundles[i] = lanes[0].mappers[i].bundle;
        snprintf(out->position, sizeof out->position, "%s", lanes[0].position);
        status = rf_plan_of_live(sink, arena, lanes, count, &out->plan, err);
    }
    if (status == RF_OK)
        status = check_passes(options, &out->plan, err);
    if (status == RF_OK)
        status = rf_plan_load_texts(sink, arena, &out->plan, err);
    rf_sink_close(sink);
    return status;
}

/* ---- a sample ---- */

/* The smallest numbers drawn so far, the largest of them first: a heap. */
struct drawn {
    uint64_t *numbers;
    size_t count, most;
};

static void sift(struct drawn *drawn, size_t at)
{
    for (size_t child; (child = 2 * at + 1) < drawn->count; at = child) {
        uint64_t *n = drawn->numbers, swap;

        child += child + 1 < drawn->count && n[child + 1] > n[child];
        if (n[at] >= n[child])
            return;
        swap = n[at];
        n[at] = n[child];
        n[child] = swap;
    }
}

static void draw(struct drawn *drawn, uint64_t number)
{
    if (drawn->count < drawn->most) {
        size_t at = drawn->count++;

        for (; at && drawn->numbers[(at - 1) / 2] < number; at = (at - 1) / 2)
            drawn->numbers[at] = drawn->numbers[(at - 1) / 2];
        drawn->numbers[at] = number;
    } else if (number < drawn->numbers[0]) {
        drawn->numbers[0] = number;
        sift(drawn, 0);
    }
}

/* All blobs and files of the log, as far as the index is, that are still there. */
static enum rf_status draw_changes(struct drawn *drawn, struct rf_store *store,
                                   struct rf_sample *sample, uint64_t until_seq,
                                   struct rf_error *err)
{
    struct rf_feed *feed = NULL;
    struct rf_change change = {0};
    enum rf_status status = rf_feed_open(&feed, store, NULL, err);

    while (status == RF_OK && change.cursor.seq < until_seq) {
        struct rf_error why = {0};
        struct rf_stat stat;
        uint64_t number;

        status = rf_feed_next(feed, &change, 0, &why);
        if (status == RF_CORRUPT && change.cursor.seq > 0) {
            status = RF_OK;
            continue;
        }
        if (status != RF_OK && status != RF_TIMEOUT && err)
            *err = why;
        number = rf_sample_number(sample, &change.ref);
        if (status != RF_OK || change.gone || change.is_delete || change.part ||
            (drawn->count == drawn->most && number >= drawn->numbers[0]))
            continue;
        if (rf_store_stat(store, &change.ref, &stat, NULL) == RF_OK && stat.seq == change.seq)
            draw(drawn, number);
    }
    rf_feed_close(feed);
    return status == RF_TIMEOUT ? RF_OK : status;
}

static enum rf_status draw_sample(const struct rf_index_options *options, uint64_t until_seq,
                                  struct rf_sample *out, struct rf_error *err)
{
    struct rf_store_options how = {.mode = RF_STORE_READ};
    struct drawn drawn = {.most = options->sample};
    struct rf_store *store = NULL;
    enum rf_status status = rf_store_open(&store, options->store_url, &how, err);

    out->seed = options->sample_seed;
    out->most = 0;
    drawn.numbers = malloc(drawn.most * sizeof *drawn.numbers);
    if (status == RF_OK && !drawn.numbers)
        status = rf_error_set(err, RF_NOMEM, "no memory for a sample");
    if (status == RF_OK)
        status = draw_changes(&drawn, store, out, until_seq, err);
    if (status == RF_OK && drawn.count)
        out->most = drawn.numbers[0];
    free(drawn.numbers);
    rf_store_close(store);
    return status;
}

/* Compare with a rebuild of some items. Under a plan the version of a part depends on all that hold
 * it, also on what was not drawn: rows of such mappers are compared for blobs and files only. */
static enum rf_status compare_sample(const struct rf_index_options *options, const char *url,
                                     const struct rf_plan *plan,
                                     const struct rf_compare_options *all,
                                     struct rf_compare_report *out, struct rf_error *err)
{
    const char **unsure = calloc(plan->count + 1, sizeof(*unsure));
    struct rf_compare_sample sample = {.unsure = unsure, .unsure_count = plan->count};
    struct rf_compare_options how = *all;
    enum rf_status status;

    if (!unsure)
        return rf_error_set(err, RF_NOMEM, "no memory to compare a sample");
    for (size_t i = 0; i < plan->count; i++)
        unsure[i] = plan->mappers[i]->name;
    how.sample = &sample;
    status = rf_query_compare(options->sink_url, url, &how, out, err);
    free(unsure);
    return status;
}

/* Whether the index's place in the log is one of this store: else nothing can be compared. */
static enum rf_status check_position(const struct rf_index_options *options,
                                     const struct rf_cursor *at, uint64_t *newest,
                                     struct rf_error *err)
{
    struct rf_store_info info;
    struct rf_store_options how = {.mode = RF_STORE_READ};
    struct rf_store *store = NULL;
    struct rf_feed *feed = NULL;
    enum rf_status status = rf_store_open(&store, options->store_url, &how, err);

    if (status == RF_OK && at)
        status = rf_feed_open(&feed, store, at, err);
    if (status == RF_OK && (status = rf_store_info(store, &info, err)) == RF_OK)
        *newest = info.next_seq - 1;
    rf_feed_close(feed);
    rf_store_close(store);
    return status;
}

static enum rf_status count_unreadable(void *user, const struct rf_dead_letter *letter)
{
    uint64_t *count = user;

    *count += strcmp(letter->dead_class, "blob") == 0;
    return RF_OK;
}

/* How much there is to compare. */
static enum rf_status count_rebuilt(struct rf_sink *sink, struct rf_compare_options *how,
                                    struct rf_error *err)
{
    struct rf_sink_lane *lanes = NULL;
    struct rf_sink_counts counts = {0};
    struct rf_arena arena;
    size_t count = 0;
    enum rf_status status;

    rf_arena_init(&arena, (size_t)256 << 20);
    status = rf_sink_lanes(sink, &arena, &lanes, &count, err);
    if (status == RF_OK && count)
        status = rf_sink_counts(sink, lanes[0].id, &counts, err);
    how->rows = counts.rows;
    how->others = counts.items + counts.parts + counts.dead_letters + counts.cuts;
    rf_arena_release(&arena);
    return status;
}

/* unreadable: changes and contents that the store could not read. */
static enum rf_status rebuild(const struct rf_index_options *options, const char *url,
                              const struct live *live, const struct rf_sample *sample,
                              uint64_t until_seq, uint64_t *unreadable,
                              struct rf_compare_options *how_much, struct rf_error *err)
{
    struct rf_index_options rebuilt = *options;
    struct rf_index_progress totals = {0};
    struct rf_sink_options how = {0};
    struct rf_index *index = NULL;
    struct rf_sink *sink = NULL;
    enum rf_status status;

    rebuilt.sink_url = url;
    rebuilt.reader = NULL; /* a role of the server's; nobody else reads the throw-away index */
    rebuilt.rebuild = rebuilt.forget = false;
    rebuilt.policy = NULL;
    if (rebuilt.shuffle_seed == 0 &&
        getrandom(&rebuilt.shuffle_seed, sizeof rebuilt.shuffle_seed, 0) < 0)
        rebuilt.shuffle_seed = 1;
    if (rebuilt.shuffle_seed == 0)
        rebuilt.shuffle_seed = 1;
    status = rf_index_open_with(&index, &rebuilt, live->bundles, live->count, &live->plan,
                                sample, until_seq, err);
    if (status == RF_OK) {
        if (options->hooks.works)
            options->hooks.works(options->hooks.user, index);
        status = rf_index_run(index, false, err);
        if (options->hooks.works)
            options->hooks.works(options->hooks.user, NULL);
        rf_index_totals(index, &totals);
        *unreadable = totals.damaged;
    }
    rf_index_close(index);
    if (status == RF_OK)
        status = rf_sink_open(&sink, url, &how, err);
    if (status == RF_OK)
        status = rf_sink_dead_letters(sink, count_unreadable, unreadable, err);
    if (status == RF_OK)
        status = count_rebuilt(sink, how_much, err);
    rf_sink_close(sink);
    malloc_trim(0); /* the writer's cache is in pieces of the heap; comparing needs as much again */
    return status;
}

enum rf_status rf_index_verify(const struct rf_index_options *options,
                               void (*problem)(void *user, const char *line),
                               struct rf_compare_report *out, struct rf_error *err)
{
    struct rf_arena arena;
    struct live live = {0};
    struct rf_sample sample = {0};
    struct rf_cursor at = {0};
    struct rf_compare_options how = {.problem = problem, .progress = options->hooks.compare,
                                     .user = options->hooks.user,
                                     .interrupted = options->interrupted};
    uint64_t unreadable = 0, newest = 0;
    struct place place;
    enum rf_status status;

    rf_arena_init(&arena, (size_t)256 << 20);
    status = read_live(options, &arena, &live, err);
    if (status == RF_OK && live.position[0])
        status = rf_cursor_parse(&at, live.position, err);
    if (status == RF_OK)
        status = check_position(options, live.position[0] ? &at : NULL, &newest, err);
    if (status == RF_OK && options->sample)
        status = draw_sample(options, at.seq, &sample, err);
    if (status == RF_OK)
        status = find_place(options, &place, err);
    if (status == RF_OK)
        status = take_place(&place, err);
    if (status == RF_OK) {
        status = rebuild(options, place.url, &live, options->sample ? &sample : NULL, at.seq,
                         &unreadable, &how, err);
        if (status != RF_OK)
            rf_error_context(err, status, "cannot verify with a throw-away index at '%s'",
                             path_of(place.url));
        else if (options->sample)
            status = compare_sample(options, place.url, &live.plan, &how, out, err);
        else
            status = rf_query_compare(options->sink_url, place.url, &how, out, err);
        out->unreadable = unreadable;
        out->until_seq = at.seq;
        out->newest_seq = newest;
        clear_place(&place);
    }
    rf_arena_release(&arena);
    return status;
}
