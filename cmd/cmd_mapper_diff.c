/*
 * cmd_mapper_diff.c - refuge mapper diff: what another version of a mapper would change
 *
 * Items of the store are mapped with both versions and what comes of it is compared; nothing is
 * written. Parts are items too: those that other mappers in use cut out of an item reach both
 * versions, those that a version cuts reach that version, so a part that only one of them makes has
 * all its rows come or go.
 *
 * The sample needs no list of the store: a blobref is a hash, so the items that follow a place
 * drawn from the seed, in the order of their blobrefs and round again, are as good as drawn one by
 * one. Parts of an item are taken in the same order. An item and its parts fill a tenth of the
 * sample at most, so that one large file does not stand for the store.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/index_home.h"
#include "cmd/mapper_item.h"
#include "cmd/mapper_rows.h"
#include "cmd/mapper_state.h"

#define EXAMPLES_MAX 10
#define CHUNK 256          /* blobrefs asked for at once */
#define DEPTH_MAX 32       /* of parts within parts */
#define LOOKED_MAX 1000    /* parts of one item that are tried, of a sample */
#define EXAMPLE_COLUMNS 60 /* of a value that is shown */

enum side { BEFORE, AFTER, SIDES };
#define BOTH (1u << BEFORE | 1u << AFTER)

struct tally {
    const char *table; /* of a declaration */
    uint64_t rows[RF_ROWS_CHANGE_COUNT];
};

struct diff {
    struct rf_cli *cli;
    struct rf_store *store;
    struct rf_pool *pool;
    const struct rf_mapper *versions[SIDES];
    const struct rf_mapper **splitters; /* other mappers in use that cut items up */
    size_t splitter_count;
    struct tally *tallies;
    size_t tally_count;
    uint64_t seed, sample; /* sample 0: all */
    struct rf_blobref start;
    uint64_t looked, matched, changed, fails, mends, parts[SIDES], unreadable;
    unsigned examples;
    bool none_left; /* every item was looked at, */
    bool passed_by; /* but not all parts of it */
};

/* An item on the way down to a part. */
struct level {
    const struct level *up;
    unsigned depth;
    char key[RF_ITEM_KEY_SIZE];
    const char *name; /* of the item of the store, or its key */
    bool differs;
    struct diff *diff;
};

/* ---- telling ---- */

/* An example is wanted; false: there were enough, or --json tells all. */
static bool begin_example(struct level *level, const char *what)
{
    struct diff *diff = level->diff;

    if (diff->cli->out.json || diff->examples == EXAMPLES_MAX)
        return false;
    diff->examples++;
    rf_out_printf(diff->cli, "%-8s ", what);
    rf_out_word(diff->cli, rf_bytes_text(level->name));
    if (level->depth)
        rf_out_printf(diff->cli, " %s", level->key);
    return true;
}

static void print_value(struct rf_cli *cli, struct rf_bytes json)
{
    size_t fit;

    if (!json.data)
        json = rf_bytes_text("null");
    fit = rf_text_fit(json, EXAMPLE_COLUMNS);
    rf_out_word(cli, rf_bytes(json.data, fit));
    if (fit < json.size)
        rf_out_printf(cli, "...");
}

static void begin_object(struct level *level, const char *change)
{
    struct rf_out *out = &level->diff->cli->out;

    rf_out_begin(out, "difference");
    rf_out_text(out, "change", change);
    rf_out_text(out, "item", level->key);
    rf_out_text(out, "name", level->name);
}

static void tell_values(struct level *level, const char *word,
                        const struct rf_rows_difference *difference)
{
    static const char none[] = "null";
    struct rf_cli *cli = level->diff->cli;
    bool example = begin_example(level, word);

    if (example)
        rf_out_printf(cli, " %s[%zu]", difference->table, difference->n);
    for (size_t i = 0; i < difference->column_count; i++) {
        const struct rf_rows_column *column = &difference->columns[i];

        if (example) {
            rf_out_printf(cli, "%s%s: ", i ? ", " : " ", column->name);
            print_value(cli, column->before);
            rf_out_printf(cli, " -> ");
            print_value(cli, column->after);
        }
        begin_object(level, word);
        rf_out_text(&cli->out, "table", difference->table);
        rf_out_int(&cli->out, "n", (int64_t)difference->n);
        rf_out_text(&cli->out, "column", column->name);
        rf_out_raw(&cli->out, "old",
                   column->before.data ? column->before : rf_bytes_text(none));
        rf_out_raw(&cli->out, "new", column->after.data ? column->after : rf_bytes_text(none));
        rf_out_end(&cli->out);
    }
    if (example)
        rf_out_printf(cli, "\n");
}

static void tell_row(struct level *level, const char *word,
                     const struct rf_rows_difference *difference)
{
    struct rf_cli *cli = level->diff->cli;
    bool example = begin_example(level, word);
    struct rf_buf json;

    if (!example && !cli->out.json)
        return;
    rf_buf_init(&json, SIZE_MAX / 4);
    rf_table_row_json(&json, difference->of, difference->row);
    if (example) {
        rf_out_printf(cli, " %s[%zu] ", difference->table, difference->n);
        print_value(cli, rf_buf_bytes(&json));
        rf_out_printf(cli, "\n");
    }
    begin_object(level, word);
    rf_out_text(&cli->out, "table", difference->table);
    rf_out_int(&cli->out, "n", (int64_t)difference->n);
    rf_out_raw(&cli->out, "row", rf_buf_bytes(&json));
    rf_out_end(&cli->out);
    rf_buf_release(&json);
}

static void tell_difference(void *user, const struct rf_rows_difference *difference)
{
    static const char *const words[] = {[RF_ROWS_ADDED] = "added", [RF_ROWS_REMOVED] = "removed",
                                        [RF_ROWS_CHANGED] = "changed"};
    struct level *level = user;
    struct diff *diff = level->diff;

    level->differs = true;
    for (size_t i = 0; i < diff->tally_count; i++) {
        if (strcmp(diff->tallies[i].table, difference->table) == 0)
            diff->tallies[i].rows[difference->change]++;
    }
    if (difference->change == RF_ROWS_CHANGED)
        tell_values(level, words[difference->change], difference);
    else
        tell_row(level, words[difference->change], difference);
}

static void tell_failure(struct level *level, const struct rf_mapper_rows made[SIDES])
{
    bool fails = rf_mapper_rows_failed(&made[AFTER]);
    const struct rf_mapper_rows *failed = &made[fails ? AFTER : BEFORE];
    const char *message = failed->message ? failed->message : "no reason";
    struct rf_cli *cli = level->diff->cli;

    if (fails == rf_mapper_rows_failed(&made[BEFORE]))
        return;
    level->differs = true;
    level->diff->fails += fails;
    level->diff->mends += !fails;
    if (begin_example(level, fails ? "fails" : "mends")) {
        rf_out_printf(cli, ": ");
        rf_out_word(cli, rf_bytes_text(message));
        rf_out_printf(cli, "\n");
    }
    begin_object(level, fails ? "fails" : "mends");
    rf_out_text(&cli->out, "message", message);
    rf_out_end(&cli->out);
}

static void show_progress(struct diff *diff)
{
    struct rf_progress shown = {.noun = "item", .done = diff->matched, .total = diff->sample,
                                .errors = diff->fails};

    rf_progress_show(diff->cli, &shown);
}

/* ---- parts of an item ---- */

struct part {
    struct rf_blobref ref;
    char media[RF_MEDIA_MAX + 1];
    unsigned sides;          /* which versions it reaches */
    struct rf_record record; /* lent from a result */
    const struct diff *diff;
};

struct parts {
    struct part *list;
    size_t count, room;
};

/* By the place behind the start, then media type. */
static int by_place(const void *a, const void *b)
{
    const struct part *x = a, *y = b;
    bool x_before = rf_blobref_compare(&x->ref, &x->diff->start) <= 0;
    bool y_before = rf_blobref_compare(&y->ref, &y->diff->start) <= 0;
    int order = x_before != y_before ? x_before - y_before : rf_blobref_compare(&x->ref, &y->ref);

    return order ? order : strcmp(x->media, y->media);
}

static enum rf_status add_parts(struct diff *diff, struct rf_mapper_item *parent,
                                const struct rf_call *call, unsigned sides, struct parts *parts,
                                struct rf_error *err)
{
    struct rf_output_reader reader;
    struct rf_record record;
    enum rf_status status = RF_OK;

    if (call->outcome != RF_CALL_ROWS || call->parts == 0)
        return RF_OK;
    rf_output_init(&reader, call->output, rf_mapper_decl(call->mapper), parent->item.size);
    while (status == RF_OK && !rf_stop_asked() && rf_output_next(&reader, &record, NULL) == RF_OK) {
        struct rf_mapper_item item;
        struct part *one;

        if (record.kind != RF_RECORD_PART)
            continue;
        if (parts->count == parts->room) {
            parts->room = parts->room ? 2 * parts->room : 64;
            parts->list = realloc(parts->list, parts->room * sizeof *parts->list);
            if (!parts->list)
                abort();
        }
        one = &parts->list[parts->count];
        *one = (struct part){.sides = sides, .record = record, .diff = diff};
        rf_mapper_item_init(&item);
        status = rf_mapper_item_record(&item, parent, &record, err);
        if (status == RF_OK) {
            one->ref = item.item.ref;
            snprintf(one->media, sizeof one->media, "%s", item.item.media);
            parts->count++;
        }
        rf_mapper_item_release(&item);
    }
    rf_output_release(&reader);
    return status;
}

/* Equal parts are one item, which reaches whom any of them reaches. */
static void sort_parts(struct parts *parts)
{
    size_t count = 0;

    if (parts->count == 0)
        return;
    qsort(parts->list, parts->count, sizeof *parts->list, by_place);
    for (size_t i = 1; i < parts->count; i++) {
        if (by_place(&parts->list[count], &parts->list[i]) == 0)
            parts->list[count].sides |= parts->list[i].sides;
        else
            parts->list[++count] = parts->list[i];
    }
    parts->count = count + 1;
}

/* ---- one item ---- */

/* What an item of the store and its parts may still take of the sample. */
struct budget {
    uint64_t matched;
};

static bool is_full(const struct diff *diff, const struct budget *budget)
{
    return rf_stop_asked() || diff->cli->out.closed || budget->matched == 0;
}

static enum rf_status walk(struct diff *diff, struct rf_mapper_item *item, struct level *level,
                           unsigned sides, struct budget *budget, struct rf_error *err);

static enum rf_status walk_part(struct diff *diff, struct rf_mapper_item *parent,
                                const struct level *up, const struct part *part,
                                struct budget *budget, struct rf_error *err)
{
    struct level level = {.up = up, .depth = up->depth + 1, .name = up->name, .diff = diff};
    char ref[RF_BLOBREF_SIZE];
    struct rf_mapper_item item;
    enum rf_status status;

    rf_blobref_format(&part->ref, ref);
    snprintf(level.key, sizeof level.key, "%s;%s", ref, part->media);
    for (const struct level *one = up; one; one = one->up) {
        if (strcmp(one->key, level.key) == 0) /* made of itself */
            return RF_OK;
    }
    rf_mapper_item_init(&item);
    status = rf_mapper_item_record(&item, parent, &part->record, err);
    if (status == RF_OK)
        status = walk(diff, &item, &level, part->sides, budget, err);
    rf_mapper_item_release(&item);
    return status;
}

/* Map with the versions that the item reaches; the other one has nothing of it. */
static enum rf_status map_both(struct diff *diff, struct rf_mapper_item *item, unsigned sides,
                               struct rf_result *results[SIDES], struct rf_mapper_rows made[SIDES],
                               struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (int side = 0; side < SIDES && status == RF_OK; side++) {
        if (!(sides & 1u << side))
            continue;
        status = rf_mapper_item_map(diff->pool, item, diff->store, diff->versions[side],
                                    &results[side], err);
        if (status == RF_OK)
            status = rf_mapper_rows_take(&made[side], &results[side]->calls[0], item->item.size,
                                         err);
    }
    return status;
}

static enum rf_status find_parts(struct diff *diff, struct rf_mapper_item *item, unsigned sides,
                                 struct rf_result *const *results, struct rf_result **split,
                                 struct parts *parts, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (int side = 0; side < SIDES && status == RF_OK; side++) {
        if (results[side])
            status = add_parts(diff, item, &results[side]->calls[0], 1u << side, parts, err);
    }
    for (size_t i = 0; i < diff->splitter_count && status == RF_OK; i++) {
        status = rf_mapper_item_map(diff->pool, item, diff->store, diff->splitters[i], &split[i],
                                    err);
        if (status == RF_OK)
            status = add_parts(diff, item, &split[i]->calls[0], sides, parts, err);
    }
    sort_parts(parts);
    return status;
}

static void compare(struct diff *diff, struct level *level, const struct rf_mapper_rows *made,
                    const struct parts *parts, unsigned sides, struct budget *budget)
{
    if (made[BEFORE].outcome == RF_CALL_NONE && made[AFTER].outcome == RF_CALL_NONE)
        return;
    diff->matched++;
    budget->matched--;
    rf_mapper_rows_compare(&made[BEFORE], &made[AFTER], tell_difference, level);
    tell_failure(level, made);
    for (size_t i = 0; sides == BOTH && i < parts->count; i++) {
        if (parts->list[i].sides == BOTH)
            continue;
        level->differs = true;
        diff->parts[parts->list[i].sides == 1u << AFTER ? AFTER : BEFORE]++;
    }
    diff->changed += level->differs;
}

static enum rf_status walk(struct diff *diff, struct rf_mapper_item *item, struct level *level,
                           unsigned sides, struct budget *budget, struct rf_error *err)
{
    struct rf_result *results[SIDES] = {NULL};
    struct rf_result **split = calloc(diff->splitter_count + 1, sizeof *split);
    struct rf_mapper_rows made[SIDES];
    struct parts parts = {0};
    uint64_t looked = 0;
    enum rf_status status;

    if (!split)
        abort();
    rf_mapper_rows_init(&made[BEFORE]);
    rf_mapper_rows_init(&made[AFTER]);
    diff->looked++;
    show_progress(diff);
    status = map_both(diff, item, sides, results, made, err);
    if (status == RF_OK)
        status = find_parts(diff, item, sides, results, split, &parts, err);
    if (status == RF_OK)
        compare(diff, level, made, &parts, sides, budget);
    for (size_t i = 0; status == RF_OK && level->depth < DEPTH_MAX && i < parts.count; i++) {
        if (is_full(diff, budget) || (diff->sample && looked++ == LOOKED_MAX)) {
            diff->passed_by = true;
            break;
        }
        status = walk_part(diff, item, level, &parts.list[i], budget, err);
    }
    free(parts.list);
    for (size_t i = 0; i < diff->splitter_count; i++)
        rf_result_free(split[i]);
    free(split);
    for (int side = 0; side < SIDES; side++) {
        rf_result_free(results[side]);
        rf_mapper_rows_release(&made[side]);
    }
    return status;
}

/* An item of the store. What cannot be read is told and passed over. */
static enum rf_status walk_ref(struct diff *diff, const struct rf_blobref *ref,
                               struct rf_error *err)
{
    uint64_t left = diff->sample - diff->matched, most = diff->sample / 10 ? diff->sample / 10 : 1;
    struct budget budget = {.matched = diff->sample == 0 ? UINT64_MAX : left < most ? left : most};
    struct level level = {.diff = diff};
    struct rf_mapper_item item;
    enum rf_status status;

    rf_blobref_format(ref, level.key);
    rf_mapper_item_init(&item);
    status = rf_mapper_item_ref(&item, diff->store, ref, err);
    level.name = status == RF_OK && item.item.name ? item.item.name : level.key;
    if (status == RF_OK)
        status = walk(diff, &item, &level, BOTH, &budget, err);
    switch (status) {
    case RF_NOT_FOUND: /* deleted meanwhile, or a file whose content is */
    case RF_CORRUPT:
    case RF_LIMIT:
        rf_warn(diff->cli, "cannot map %s, passed over: %s", level.key, err->message);
        rf_error_clear(err);
        diff->unreadable++;
        status = RF_OK;
        break;
    default:
        break;
    }
    rf_mapper_item_release(&item);
    return status;
}

/* ---- the sample ---- */

struct chunk {
    struct rf_blobref refs[CHUNK];
    size_t count;
    struct rf_blobref last; /* looked at, an item or not */
};

static enum rf_status take_ref(void *user, const struct rf_stat *stat)
{
    struct chunk *chunk = user;

    chunk->last = stat->ref;
    if (!stat->part)
        chunk->refs[chunk->count++] = stat->ref;
    return chunk->count == CHUNK ? RF_END : RF_OK;
}

static bool is_enough(const struct diff *diff)
{
    return rf_stop_asked() || diff->cli->out.closed ||
           (diff->sample && diff->matched >= diff->sample);
}

/* Items behind `after` (NULL: from the first), up to `until` (NULL: to the last). */
static enum rf_status walk_range(struct diff *diff, const struct rf_blobref *after,
                                 const struct rf_blobref *until, struct rf_error *err)
{
    struct chunk chunk = {0};
    enum rf_status status = RF_END;

    while (status == RF_END && !is_enough(diff)) {
        enum rf_status one = RF_OK;

        chunk.count = 0;
        status = rf_store_list(diff->store, after, take_ref, &chunk, err);
        if (status != RF_OK && status != RF_END)
            return status;
        for (size_t i = 0; i < chunk.count && one == RF_OK && !is_enough(diff); i++) {
            if (until && rf_blobref_compare(&chunk.refs[i], until) > 0)
                return RF_OK;
            one = walk_ref(diff, &chunk.refs[i], err);
        }
        if (one != RF_OK)
            return one;
        after = &chunk.last;
    }
    return RF_OK;
}

static enum rf_status walk_sample(struct diff *diff, struct rf_error *err)
{
    char text[64];
    enum rf_status status;

    snprintf(text, sizeof text, "refuge sample %llu", (unsigned long long)diff->seed);
    rf_blobref_of(&diff->start, rf_bytes_text(text));
    if (diff->sample == 0)
        memset(diff->start.digest, 0, sizeof diff->start.digest);
    status = walk_range(diff, &diff->start, NULL, err);
    if (status == RF_OK && !is_enough(diff))
        status = walk_range(diff, NULL, &diff->start, err);
    diff->none_left = status == RF_OK && !is_enough(diff);
    return status;
}

/* ---- the mappers ---- */

static void add_tallies(struct diff *diff)
{
    const struct rf_decl *decls[] = {rf_mapper_decl(diff->versions[BEFORE]),
                                     rf_mapper_decl(diff->versions[AFTER])};

    diff->tallies = calloc(decls[0]->table_count + decls[1]->table_count + 1,
                           sizeof *diff->tallies);
    if (!diff->tallies)
        abort();
    for (int side = 0; side < SIDES; side++) {
        for (size_t i = 0; i < decls[side]->table_count; i++) {
            const char *table = decls[side]->tables[i].name;
            bool known = false;

            for (size_t j = 0; j < diff->tally_count; j++) {
                assert(diff->tallies[j].table);
                known |= strcmp(diff->tallies[j].table, table) == 0;
            }
            if (!known)
                diff->tallies[diff->tally_count++].table = table;
        }
    }
}

static bool is_version(const struct diff *diff, const struct rf_mapper *mapper)
{
    const char *name = rf_mapper_decl(mapper)->name;

    return strcmp(name, rf_mapper_decl(diff->versions[BEFORE])->name) == 0 ||
           strcmp(name, rf_mapper_decl(diff->versions[AFTER])->name) == 0;
}

static void add_splitters(struct diff *diff, const struct rf_index_home *index)
{
    size_t count;
    char **paths = rf_index_mapper_paths(diff->cli, index, &count);

    diff->splitters = calloc(count + 1, sizeof(struct rf_mapper *));
    if (!diff->splitters)
        abort();
    for (size_t i = 0; i < count; i++) {
        struct rf_mapper *mapper;
        struct rf_error err = {0};

        if (rf_pool_load(diff->pool, paths[i], &mapper, &err))
            rf_warn(diff->cli, "%s; left out", err.message);
        else if (rf_mapper_decl(mapper)->splits && !is_version(diff, mapper))
            diff->splitters[diff->splitter_count++] = mapper;
    }
    rf_names_free(paths, count);
}

static enum rf_status load_file(struct diff *diff, const char *word, const struct rf_mapper **out,
                                struct rf_error *err)
{
    struct rf_mapper *mapper = NULL;
    char *path = rf_mapper_find(diff->cli, word);
    enum rf_status status = rf_pool_load(diff->pool, path, &mapper, err);

    free(path);
    if (status == RF_OK)
        *out = mapper;
    return status;
}

/* "running" is the version that the index keeps of the other one's mapper. */
static int load_mappers(struct diff *diff)
{
    const char *before = diff->cli->args.words[0];
    bool running = strcmp(before, "running") == 0;
    struct rf_mapper *kept = NULL;
    struct rf_index_home index;
    struct rf_error err = {0};
    enum rf_status status;
    int code = RF_EXIT_OK;

    if (!rf_index_home_init(&index, diff->cli, rf_args_text(&diff->cli->args, "index"), running,
                            &code)) {
        rf_index_home_release(&index);
        return code;
    }
    status = load_file(diff, diff->cli->args.words[1], &diff->versions[AFTER], &err);
    if (status == RF_OK && running)
        status = rf_mapper_running(&kept, diff->pool, &index,
                                   rf_mapper_decl(diff->versions[AFTER])->name, &err);
    else if (status == RF_OK)
        status = load_file(diff, before, &diff->versions[BEFORE], &err);
    if (kept)
        diff->versions[BEFORE] = kept;
    if (status == RF_OK) {
        add_tallies(diff);
        add_splitters(diff, &index);
    } else {
        code = rf_fail(diff->cli, &err);
    }
    rf_index_home_release(&index);
    return code;
}

/* ---- the command ---- */

static void tell_tables(struct diff *diff, uint64_t sums[RF_ROWS_CHANGE_COUNT])
{
    struct rf_cli *cli = diff->cli;

    for (size_t i = 0; i < diff->tally_count; i++) {
        const struct tally *tally = &diff->tallies[i];

        for (int j = 0; j < RF_ROWS_CHANGE_COUNT; j++)
            sums[j] += tally->rows[j];
        rf_out_printf(cli, "table %s: %s added, %llu removed, %llu changed\n", tally->table,
                      RF_COUNT(tally->rows[RF_ROWS_ADDED], "row"),
                      (unsigned long long)tally->rows[RF_ROWS_REMOVED],
                      (unsigned long long)tally->rows[RF_ROWS_CHANGED]);
        rf_out_begin(&cli->out, "table");
        rf_out_text(&cli->out, "table", tally->table);
        rf_out_int(&cli->out, "added", (int64_t)tally->rows[RF_ROWS_ADDED]);
        rf_out_int(&cli->out, "removed", (int64_t)tally->rows[RF_ROWS_REMOVED]);
        rf_out_int(&cli->out, "changed", (int64_t)tally->rows[RF_ROWS_CHANGED]);
        rf_out_end(&cli->out);
    }
}

static int tell_totals(struct diff *diff)
{
    uint64_t sums[RF_ROWS_CHANGE_COUNT] = {0};
    struct rf_cli *cli = diff->cli;

    tell_tables(diff, sums);
    rf_out_printf(cli, "%llu of %s %s\n", (unsigned long long)diff->changed,
                  RF_COUNT(diff->matched, "item"), diff->changed == 1 ? "changes" : "change");
    if (diff->fails || diff->mends)
        rf_out_printf(cli, "%s newly, %llu no more\n", RF_COUNT(diff->fails, "failure"),
                      (unsigned long long)diff->mends);
    if (diff->parts[BEFORE] || diff->parts[AFTER])
        rf_out_printf(cli, "%s added, %llu removed\n", RF_COUNT(diff->parts[AFTER], "part"),
                      (unsigned long long)diff->parts[BEFORE]);
    rf_summary_int(cli, "seed", (int64_t)diff->seed);
    rf_summary_int(cli, "items", (int64_t)diff->matched);
    rf_summary_int(cli, "items_changed", (int64_t)diff->changed);
    rf_summary_int(cli, "rows_added", (int64_t)sums[RF_ROWS_ADDED]);
    rf_summary_int(cli, "rows_removed", (int64_t)sums[RF_ROWS_REMOVED]);
    rf_summary_int(cli, "rows_changed", (int64_t)sums[RF_ROWS_CHANGED]);
    rf_summary_int(cli, "fails", (int64_t)diff->fails);
    rf_summary_int(cli, "mends", (int64_t)diff->mends);
    rf_summary_int(cli, "parts_added", (int64_t)diff->parts[AFTER]);
    rf_summary_int(cli, "parts_removed", (int64_t)diff->parts[BEFORE]);
    rf_summary_int(cli, "unreadable", (int64_t)diff->unreadable);
    if (rf_stop_asked()) {
        rf_say(cli, "stopped, not all was compared");
        return RF_EXIT_STOPPED;
    }
    if (!diff->none_left || diff->passed_by)
        rf_say(cli, "a sample; '--seed %llu' draws it again", (unsigned long long)diff->seed);
    return diff->fails || diff->unreadable ? RF_EXIT_SET_ASIDE : RF_EXIT_OK;
}

static int run(struct diff *diff)
{
    struct rf_pool_options options = {.program = rf_mapper_program(), .workers = 1};
    struct rf_error err = {0};
    enum rf_status status = rf_pool_open(&diff->pool, &options, &err);
    int code;

    if (status)
        return rf_fail(diff->cli, &err);
    code = load_mappers(diff);
    if (code == RF_EXIT_OK) {
        status = walk_sample(diff, &err);
        rf_progress_clear(diff->cli);
        code = status && !(status == RF_CANCELLED && rf_stop_asked()) ? rf_fail(diff->cli, &err)
                                                                      : tell_totals(diff);
    }
    rf_pool_close(diff->pool);
    free(diff->splitters);
    free(diff->tallies);
    return code;
}

int cmd_mapper_diff(struct rf_cli *cli)
{
    struct diff diff = {.cli = cli, .sample = rf_args_number(&cli->args, "sample"),
                        .seed = rf_args_number(&cli->args, "seed")};
    int code = RF_EXIT_OK;

    if (!rf_args_text(&cli->args, "seed")) /* one that is easily typed again */
        diff.seed = ((uint64_t)rf_now_us() ^ (uint64_t)getpid() << 20) % 1000000;
    diff.store = rf_home_store(cli, RF_STORE_READ, &code);
    if (diff.store)
        code = run(&diff);
    rf_store_close(diff.store);
    return code;
}
