/*
 * lookup_care.c - making runs of the tail, merging them, making damaged ones again
 *
 * A new run gets its name before it takes its place, and what it replaces loses its names after
 * that; so a crash at any moment leaves a longer run beside the shorter ones it was made from, and
 * the longer one counts.
 */
#include "blobstore/lookup_parts.h"

#include <stdlib.h>
#include <unistd.h>

#define SYNC_ENTRIES 65536 /* a larger run is made durable: making it again would take long */
#define SOURCES_MAX RF_RUN_SOURCES_MAX

/* ---- writing a run ---- */

/* The parts of the log that changes from..to lie in. */
static enum rf_status list_sources(struct rf_lookup *lookup, uint64_t from, uint64_t to,
                                   struct rf_run_source **out, size_t *count, struct rf_error *err)
{
    struct rf_run_source *sources = NULL;
    size_t capacity = 0;

    *count = 0;
    while (from <= to) {
        struct rf_log_place place = {.first = from};
        uint64_t next = UINT64_MAX;
        rf_log_dir_find(lookup->log, from, &place, &next);
        if (*count == capacity) {
            struct rf_run_source *grown;
            capacity = capacity ? capacity * 2 : 8;
            grown = capacity <= SOURCES_MAX * 2 ? realloc(sources, capacity * sizeof *grown) : NULL;
            if (!grown) {
                free(sources);
                return rf_error_set(err, RF_LIMIT, "a lookup run of more than %d segments",
                                    SOURCES_MAX);
            }
            sources = grown;
        }
        sources[*count] = (struct rf_run_source){
            .segment = place.first, .from_seq = from, .to_seq = next - 1 < to ? next - 1 : to};
        from = sources[(*count)++].to_seq + 1;
    }
    *out = sources;
    return RF_OK;
}

static enum rf_status begin_run(struct rf_lookup *lookup, uint64_t from, uint64_t to,
                                struct rf_run_writer **out, struct rf_error *err)
{
    struct rf_run_source *sources = NULL;
    char name[RF_RUNS_NAME_SIZE];
    size_t count;
    enum rf_status status = rf_lookup_keep_folder(lookup, err);

    if (status == RF_OK)
        status = list_sources(lookup, from, to, &sources, &count, err);
    if (status != RF_OK)
        return status;
    rf_runs_name(from, to, name);
    status = rf_run_create(out, lookup->dir, name, sources, count, err);
    free(sources);
    return status;
}

/* Name the run and open it. Takes the writer over. */
static enum rf_status end_run_take(struct rf_lookup *lookup, struct rf_run_writer *writer,
                                   uint64_t from, uint64_t to, bool sync, struct rf_run **out,
                                   struct rf_error *err)
{
    char name[RF_RUNS_NAME_SIZE];
    enum rf_status status = rf_run_commit(writer, sync, err);

    rf_run_writer_free(writer);
    rf_runs_name(from, to, name);
    return status == RF_OK ? rf_run_open(out, lookup->dir, name, err) : status;
}

static enum rf_status write_table(struct rf_lookup *lookup, const struct rf_table *table,
                                  uint64_t from, uint64_t to, struct rf_run **out,
                                  struct rf_error *err)
{
    struct rf_run_writer *writer = NULL;
    struct rf_entry *sorted = NULL;
    struct rf_run_entry entry;
    enum rf_status status = rf_table_sorted(table, &sorted, err);

    if (status == RF_OK)
        status = begin_run(lookup, from, to, &writer, err);
    for (size_t i = 0; i < table->count && status == RF_OK; i++) {
        rf_entry_to_run(&entry, &sorted[i]);
        status = rf_run_add(writer, &entry, err);
    }
    free(sorted);
    if (status == RF_OK)
        return end_run_take(lookup, writer, from, to, false, out, err);
    rf_run_writer_free(writer);
    return status;
}

/* ---- the tail becomes a run ---- */

enum rf_status rf_lookup_flush(struct rf_lookup *lookup, uint64_t to, struct rf_error *err)
{
    uint64_t from = rf_lookup_covered(lookup) + 1;
    struct rf_runs *runs = NULL, *old;
    struct rf_run *run = NULL;
    enum rf_status status;

    if (lookup->tail.count == 0) /* only the thread that adds changes the tail: no lock to look */
        return RF_OK;
    status = write_table(lookup, &lookup->tail, from, to, &run, err);
    if (status != RF_OK)
        return status;
    pthread_mutex_lock(&lookup->lock);
    old = lookup->runs;
    status = rf_runs_with_take(&runs, old, from, to, run, err);
    if (status == RF_OK) {
        lookup->runs = runs;
        rf_table_clear(&lookup->tail);
        lookup->tail_bytes = 0;
        lookup->epoch++;
    }
    pthread_mutex_unlock(&lookup->lock);
    if (status == RF_OK)
        rf_runs_unref(old);
    return status;
}

/* ---- merging ---- */

static struct rf_runs *share_runs(struct rf_lookup *lookup)
{
    struct rf_runs *runs;

    pthread_mutex_lock(&lookup->lock);
    runs = lookup->runs;
    rf_runs_ref(runs);
    pthread_mutex_unlock(&lookup->lock);
    return runs;
}

/* One run of the parts first..count of a set, all whole. */
static enum rf_status merge_parts(struct rf_lookup *lookup, const struct rf_runs *runs,
                                  size_t first, struct rf_run **out, struct rf_error *err)
{
    uint64_t from = runs->parts[first]->from, to = runs->parts[runs->count - 1]->to, count = 0;
    struct rf_run *inputs[RF_RUN_MERGE_MAX];
    struct rf_run_cursor *cursor = NULL;
    struct rf_run_writer *writer = NULL;
    struct rf_run_entry entry;
    enum rf_status status;

    for (size_t i = first; i < runs->count; i++)
        inputs[i - first] = runs->parts[i]->run;
    status = rf_run_cursor_open(&cursor, inputs, runs->count - first, NULL, err);
    if (status == RF_OK)
        status = begin_run(lookup, from, to, &writer, err);
    while (status == RF_OK && (status = rf_run_cursor_next(cursor, &entry, err)) == RF_OK) {
        status = rf_run_add(writer, &entry, err);
        count++;
    }
    rf_run_cursor_close(cursor);
    if (status == RF_END)
        return end_run_take(lookup, writer, from, to, count > SYNC_ENTRIES, out, err);
    rf_run_writer_free(writer);
    return status;
}

/* Remove the files of parts that lie within from..to and are not that one run. */
static void remove_files(struct rf_lookup *lookup, const struct rf_runs *runs, uint64_t from,
                         uint64_t to)
{
    for (size_t i = 0; i < runs->count; i++) {
        const struct rf_part *part = runs->parts[i];
        char name[RF_RUNS_NAME_SIZE];
        if (!part->run || part->from < from || part->to > to ||
            (part->from == from && part->to == to))
            continue;
        rf_runs_name(part->from, part->to, name);
        unlinkat(lookup->dir, name, 0); /* what stays is passed over, and swept at the next open */
    }
}

/* Put a run in the place of all parts within from..to. Takes it over. */
static enum rf_status replace_take(struct rf_lookup *lookup, uint64_t from, uint64_t to,
                                   struct rf_run *run, struct rf_error *err)
{
    struct rf_runs *made = NULL, *old;
    enum rf_status status;

    pthread_mutex_lock(&lookup->lock);
    old = lookup->runs;
    status = rf_runs_with_take(&made, old, from, to, run, err);
    if (status == RF_OK)
        lookup->runs = made;
    pthread_mutex_unlock(&lookup->lock);
    if (status != RF_OK)
        return status;
    remove_files(lookup, old, from, to);
    rf_runs_unref(old);
    return RF_OK;
}

enum rf_status rf_lookup_merge(struct rf_lookup *lookup, uint64_t most, struct rf_error *err)
{
    struct rf_runs *runs = share_runs(lookup);
    struct rf_run *run = NULL;
    enum rf_status status = RF_END;
    uint64_t entries = 0, bad = 0;
    size_t first = 0;

    if (rf_runs_merge_due(runs, &first, &entries) && entries <= most) {
        uint64_t from = runs->parts[first]->from, to = runs->parts[runs->count - 1]->to;
        struct rf_error cause = {0};
        status = merge_parts(lookup, runs, first, &run, &cause);
        if (status == RF_OK)
            status = replace_take(lookup, from, to, run, &cause);
        if (status == RF_CORRUPT && rf_runs_check(runs, &bad, NULL) == RF_OK && bad > 0)
            status = RF_OK; /* they are made again first */
        if (status != RF_OK)
            rf_error_set(err, status, "%s", cause.message);
    }
    rf_runs_unref(runs);
    return status;
}

/* ---- healing ---- */

/* A run in the making: pieces of bounded size, merged as they come. */
struct rebuild {
    struct rf_lookup *lookup;
    struct rf_runs *pieces;
    struct rf_table table;
    uint64_t from, bytes; /* of the piece at hand */
    struct rf_error *err;
};

/* Merge the pieces that are due; with all, whatever there is. */
static enum rf_status merge_pieces(struct rebuild *rebuild, bool all)
{
    enum rf_status status = RF_OK;
    uint64_t entries;
    size_t first = 0;

    while (status == RF_OK && (rf_runs_merge_due(rebuild->pieces, &first, &entries) ||
                               (all && rebuild->pieces->count > 1))) {
        struct rf_runs *pieces = rebuild->pieces, *made = NULL;
        struct rf_run *run = NULL;
        uint64_t from, to = pieces->parts[pieces->count - 1]->to;
        if (all)
            first = pieces->count > RF_RUN_MERGE_MAX ? pieces->count - RF_RUN_MERGE_MAX : 0;
        from = pieces->parts[first]->from;
        status = merge_parts(rebuild->lookup, pieces, first, &run, rebuild->err);
        if (status == RF_OK)
            status = rf_runs_with_take(&made, pieces, from, to, run, rebuild->err);
        if (status == RF_OK) {
            remove_files(rebuild->lookup, pieces, from, to);
            rf_runs_unref(pieces);
            rebuild->pieces = made;
        }
    }
    return status;
}

static enum rf_status end_piece(struct rebuild *rebuild, uint64_t to)
{
    struct rf_runs *made = NULL;
    struct rf_run *run = NULL;
    enum rf_status status = write_table(rebuild->lookup, &rebuild->table, rebuild->from, to, &run,
                                        rebuild->err);

    if (status == RF_OK)
        status = rf_runs_with_take(&made, rebuild->pieces, rebuild->from, to, run, rebuild->err);
    if (status != RF_OK)
        return status;
    rf_runs_unref(rebuild->pieces);
    rebuild->pieces = made;
    rf_table_clear(&rebuild->table);
    rebuild->from = to + 1;
    rebuild->bytes = 0;
    return merge_pieces(rebuild, false);
}

static enum rf_status rebuild_one(void *user, const struct rf_entry *entry, uint64_t bytes)
{
    struct rebuild *rebuild = user;
    enum rf_status status = rf_table_reserve(&rebuild->table, 1, rebuild->err);

    if (status != RF_OK)
        return status;
    rf_table_put(&rebuild->table, entry);
    rebuild->bytes += bytes;
    return rebuild->bytes < rebuild->lookup->run_bytes ? RF_OK : end_piece(rebuild, entry->seq);
}

/* Make the run of a part from the log. The last piece may have the part's own name and then
 * replaces the bad file. */
static enum rf_status rebuild_part(struct rf_lookup *lookup, const struct rf_part *part,
                                   struct rf_error *err)
{
    struct rebuild rebuild = {.lookup = lookup, .from = part->from, .err = err};
    enum rf_status status = rf_part_scan(lookup, part, rebuild_one, &rebuild, err);
    struct rf_run *run = NULL;
    char name[RF_RUNS_NAME_SIZE];

    if (status == RF_OK && rebuild.from <= part->to)
        status = end_piece(&rebuild, part->to);
    if (status == RF_OK)
        status = merge_pieces(&rebuild, true);
    rf_runs_name(part->from, part->to, name);
    if (status == RF_OK)
        status = rf_run_open(&run, lookup->dir, name, err);
    if (status == RF_OK)
        status = replace_take(lookup, part->from, part->to, run, err);
    rf_table_release(&rebuild.table);
    rf_runs_unref(rebuild.pieces);
    return status;
}

enum rf_status rf_lookup_heal(struct rf_lookup *lookup, struct rf_error *err)
{
    struct rf_runs *runs = share_runs(lookup);
    enum rf_status status = RF_END;

    for (size_t i = 0; i < runs->count && status == RF_END; i++) {
        if (!rf_part_is_whole(runs->parts[i]))
            status = rebuild_part(lookup, runs->parts[i], err);
    }
    rf_runs_unref(runs);
    return status;
}

/* ---- checking ---- */

enum rf_status rf_runs_check(struct rf_runs *runs, uint64_t *bad, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < runs->count && status == RF_OK; i++) {
        struct rf_part *part = runs->parts[i];
        struct rf_run_cursor *cursor = NULL;
        struct rf_error cause = {0};
        struct rf_run_entry entry;
        if (!rf_part_is_whole(part))
            continue;
        status = rf_run_cursor_open(&cursor, &part->run, 1, NULL, &cause);
        while (status == RF_OK)
            status = rf_run_cursor_next(cursor, &entry, &cause);
        rf_run_cursor_close(cursor);
        if (status == RF_CORRUPT) {
            __atomic_store_n(&part->bad, 1, __ATOMIC_RELEASE);
            ++*bad;
        } else if (status != RF_END) {
            return rf_error_set(err, status, "%s", cause.message);
        }
        status = RF_OK;
    }
    return status;
}

enum rf_status rf_lookup_check(struct rf_lookup *lookup, uint64_t *bad, struct rf_error *err)
{
    struct rf_runs *runs = share_runs(lookup);
    uint64_t found = 0;
    enum rf_status status = rf_runs_check(runs, &found, err);

    *bad = 0;
    for (size_t i = 0; i < runs->count; i++)
        *bad += !rf_part_is_whole(runs->parts[i]);
    rf_runs_unref(runs);
    return status;
}

void rf_lookup_condemn(struct rf_lookup *lookup)
{
    struct rf_runs *runs = share_runs(lookup);

    for (size_t i = 0; i < runs->count; i++)
        __atomic_store_n(&runs->parts[i]->bad, 1, __ATOMIC_RELEASE);
    rf_runs_unref(runs);
}
