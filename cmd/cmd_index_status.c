/*
 * cmd_index_status.c - refuge index status, errors and retry; refuge status
 */
#include <stdlib.h>
#include <string.h>

#include "cmd/index_home.h"
#include "cmd/mapper_state.h"
#include "core/json.h"
#include "core/row.h"
#include "indexer/plan.h"

#define TALLY_MAX 256 /* mappers counted one by one */

/* ---- dead letters by mapper ---- */

struct tally {
    char names[TALLY_MAX][RF_NAME_MAX + 1];
    uint64_t counts[TALLY_MAX];
    size_t size;
    uint64_t total;
};

static enum rf_status count_letter(void *user, const struct rf_dead_letter *letter)
{
    struct tally *tally = user;

    tally->total++;
    for (size_t i = 0; i < tally->size; i++) {
        if (strcmp(tally->names[i], letter->mapper) == 0) {
            tally->counts[i]++;
            return RF_OK;
        }
    }
    if (tally->size < TALLY_MAX) {
        snprintf(tally->names[tally->size], sizeof tally->names[0], "%s", letter->mapper);
        tally->counts[tally->size++] = 1;
    }
    return RF_OK;
}

/* ---- status ---- */

/* Change a lane has reached; 0 at its start. */
static uint64_t lane_seq(const struct rf_sink_lane *lane)
{
    struct rf_cursor cursor;

    if (!lane->position[0] || rf_cursor_parse(&cursor, lane->position, NULL))
        return 0;
    return cursor.seq;
}

static void print_lane(struct rf_cli *cli, const struct rf_sink_lane *lane, uint64_t newest)
{
    uint64_t at = lane_seq(lane), lag = newest > at ? newest - at : 0;

    rf_out_printf(cli, "  %-9s lane %u at change %llu of %llu%s\n",
                  lane->live ? "live" : "building", lane->id, (unsigned long long)at,
                  (unsigned long long)newest, lag ? "" : ", up to date");
}

static void print_lane_mappers(struct rf_cli *cli, const struct rf_sink_lane *lane)
{
    for (size_t i = 0; i < lane->mapper_count; i++)
        rf_out_printf(cli, "            %s %.12s\n", lane->mappers[i].decl->name,
                      lane->mappers[i].identity);
}

/* Which version of a mapper maps what, where that is not one version for all. */
static enum rf_status print_plan(struct rf_cli *cli, struct rf_sink *sink, struct rf_arena *arena,
                                 const struct rf_sink_lane *lanes, size_t count,
                                 struct rf_error *err)
{
    struct rf_buf json, policy;
    struct rf_plan plan;
    enum rf_status status = rf_plan_of_live(sink, arena, lanes, count, &plan, err);

    if (status != RF_OK)
        return status;
    rf_buf_init(&json, (size_t)4 << 20);
    rf_buf_init(&policy, RF_POLICY_TEXT_MAX);
    rf_buf_put_text(&json, "[");
    for (size_t i = 0; i < plan.count; i++) {
        const struct rf_plan_mapper *chain = plan.mappers[i];

        for (size_t k = 0; k < chain->count; k++) {
            const struct rf_plan_version *version = &chain->versions[k];
            uint64_t left = version->after - version->passed;

            rf_buf_clear(&policy);
            rf_policy_format(&version->policy, &policy);
            rf_out_printf(cli, "%s %s %.12s ", i + k ? "           " : "  plan     ", chain->name,
                          version->identity);
            rf_out_word(cli, rf_buf_bytes(&policy));
            if (version->policy.kind != RF_POLICY_FULL)
                rf_out_printf(cli, "%s%llu", version->policy.kind == RF_POLICY_FORWARD
                                                 ? " from change " : ", and all from change ",
                              (unsigned long long)version->after + 1);
            if (left)
                rf_out_printf(cli, ", %llu changes still to be looked at",
                              (unsigned long long)left);
            rf_out_printf(cli, "\n");
            rf_buf_printf(&json, "%s{\"mapper\":\"%s\",\"identity\":\"%s\",\"policy\":",
                          json.size > 1 ? "," : "", chain->name, version->identity);
            rf_json_put_string(&json, rf_buf_bytes(&policy));
            rf_buf_printf(&json, ",\"after\":%llu,\"left\":%llu}",
                          (unsigned long long)version->after, (unsigned long long)left);
        }
    }
    rf_buf_put_text(&json, "]");
    rf_out_raw(&cli->out, "plan", rf_buf_bytes(&json));
    rf_buf_release(&json);
    rf_buf_release(&policy);
    return RF_OK;
}

static void print_counts(struct rf_cli *cli, const struct rf_sink_counts *counts)
{
    rf_out_printf(cli, "  items     %llu, rows %llu, parts %llu\n",
                  (unsigned long long)counts->items, (unsigned long long)counts->rows,
                  (unsigned long long)counts->parts);
    if (counts->parked_slow + counts->parked_need + counts->parked_ready)
        rf_out_printf(cli, "  parked    %llu for the slow lane, %llu for blobs, %llu ready\n",
                      (unsigned long long)counts->parked_slow,
                      (unsigned long long)counts->parked_need,
                      (unsigned long long)counts->parked_ready);
    if (counts->lost)
        rf_out_printf(cli, "  lost      %s of the log cannot be read; 'refuge store verify' names "
                      "%s\n",
                      RF_COUNT(counts->lost, "change"), counts->lost == 1 ? "it" : "them");
    if (counts->cuts)
        rf_out_printf(cli, "  cleaned   %s\n", RF_COUNT(counts->cuts, "value"));
    rf_out_int(&cli->out, "items", (int64_t)counts->items);
    rf_out_int(&cli->out, "rows", (int64_t)counts->rows);
    rf_out_int(&cli->out, "parts", (int64_t)counts->parts);
    rf_out_int(&cli->out, "parked_slow", (int64_t)counts->parked_slow);
    rf_out_int(&cli->out, "parked_need", (int64_t)counts->parked_need);
    rf_out_int(&cli->out, "parked_ready", (int64_t)counts->parked_ready);
    rf_out_int(&cli->out, "cuts", (int64_t)counts->cuts);
    rf_out_int(&cli->out, "lost", (int64_t)counts->lost);
}

/* Mappers whose slow calls used their budget up in the last run, and what waits for them. */
static enum rf_status print_stopped(struct rf_cli *cli, struct rf_sink *sink,
                                    const struct rf_sink_lane *live, struct rf_arena *arena,
                                    struct rf_error *err)
{
    uint64_t waiting = 0;

    for (size_t i = 0; i < live->mapper_count; i++) {
        const char *name = live->mappers[i].decl->name, *seconds;
        uint64_t counts[RF_PARK_KIND_COUNT];
        char fact[RF_NAME_MAX + 16];
        enum rf_status status;

        snprintf(fact, sizeof fact, RF_INDEX_STOPPED "%s", name);
        if (rf_sink_get_fact(sink, arena, fact, &seconds, NULL))
            continue;
        status = rf_sink_park_counts(sink, live->id, (uint16_t)i, counts, err);
        if (status)
            return status;
        waiting += counts[RF_PARK_SLOW] + counts[RF_PARK_READY];
        rf_out_printf(cli,
                      "  stopped   %s: its slow calls used %s s of CPU one after another and all "
                      "failed;\n            %llu items wait; mend it, or 'refuge index run' tries "
                      "on\n",
                      name, seconds,
                      (unsigned long long)(counts[RF_PARK_SLOW] + counts[RF_PARK_READY]));
    }
    rf_out_int(&cli->out, "stopped", (int64_t)waiting);
    return RF_OK;
}

static void print_tally(struct rf_cli *cli, const struct tally *tally)
{
    if (tally->total)
        rf_out_printf(cli, "  set aside %llu\n", (unsigned long long)tally->total);
    for (size_t i = 0; i < tally->size; i++)
        rf_out_printf(cli, "            %s %llu\n", tally->names[i],
                      (unsigned long long)tally->counts[i]);
    rf_out_int(&cli->out, "dead_letters", (int64_t)tally->total);
}

/* What a store's queue holds; 0 when the store cannot be read, which was told. */
static uint64_t newest_change(struct rf_cli *cli, int *code)
{
    struct rf_store *store = rf_home_store(cli, RF_STORE_READ, code);
    struct rf_store_info info = {.next_seq = 1};
    struct rf_error err = {0};

    if (store && rf_store_info(store, &info, &err))
        *code = rf_fail(cli, &err);
    rf_store_close(store);
    return info.next_seq - 1;
}

static enum rf_status print_index(struct rf_cli *cli, const struct rf_index_home *index,
                                  struct rf_sink *sink, uint64_t newest, bool states,
                                  uint64_t *set_aside, struct rf_error *err)
{
    struct rf_sink_counts counts = {0};
    struct rf_sink_lane *lanes = NULL;
    struct tally *tally = calloc(1, sizeof *tally);
    struct rf_arena arena;
    enum rf_status status;
    size_t count = 0;
    bool paused = rf_index_paused(index);

    if (!tally)
        abort();
    rf_arena_init(&arena, (size_t)256 << 20);
    status = rf_sink_lanes(sink, &arena, &lanes, &count, err);
    if (status == RF_OK && count)
        status = rf_sink_counts(sink, lanes[0].id, &counts, err);
    if (status == RF_OK)
        status = rf_sink_dead_letters(sink, count_letter, tally, err);
    if (status == RF_OK) {
        uint64_t at = count ? lane_seq(&lanes[0]) : 0;

        rf_out_printf(cli, "index     %s%s\n", index->name, paused ? " (paused)" : "");
        rf_out_text(&cli->out, "index", index->name);
        rf_out_bool(&cli->out, "paused", paused);
        rf_out_int(&cli->out, "lanes", (int64_t)count);
        rf_out_int(&cli->out, "seq", (int64_t)at);
        rf_out_int(&cli->out, "lag", (int64_t)(newest > at ? newest - at : 0));
        if (states && count == 0)
            rf_mapper_states_print(cli, index, sink, lanes, count);
        for (size_t i = 0; i < count; i++) {
            print_lane(cli, &lanes[i], newest);
            if (lanes[i].live && states)
                rf_mapper_states_print(cli, index, sink, lanes, count);
            else
                print_lane_mappers(cli, &lanes[i]);
        }
        status = print_plan(cli, sink, &arena, lanes, count, err);
        print_counts(cli, &counts);
        if (count && status == RF_OK)
            status = print_stopped(cli, sink, &lanes[0], &arena, err);
        print_tally(cli, tally);
        *set_aside += tally->total;
    }
    rf_arena_release(&arena);
    free(tally);
    return status;
}

/* states: also how the mapper files stand, which means to load them. */
static int show_index(struct rf_cli *cli, const char *name, uint64_t newest, bool states,
                      uint64_t *set_aside)
{
    struct rf_index_home index;
    struct rf_sink *sink = NULL;
    struct rf_error err = {0};
    enum rf_status status = RF_OK;
    int code = RF_EXIT_OK;

    if (rf_index_home_init(&index, cli, name, true, &code))
        sink = rf_index_home_sink(cli, &index, false, &code);
    if (sink) {
        rf_out_begin(&cli->out, "index");
        status = print_index(cli, &index, sink, newest, states, set_aside, &err);
        if (status == RF_OK)
            rf_out_end(&cli->out);
        else
            code = rf_fail(cli, &err);
        rf_sink_close(sink);
    }
    rf_index_home_release(&index);
    return code;
}

int cmd_index_status(struct rf_cli *cli)
{
    int code = RF_EXIT_OK;
    uint64_t set_aside = 0, newest = newest_change(cli, &code);
    const char *name = cli->args.word_count ? cli->args.words[0] : NULL;

    if (code)
        return code;
    code = show_index(cli, name, newest, true, &set_aside);
    rf_summary_int(cli, "dead_letters", (int64_t)set_aside);
    if (set_aside)
        rf_say(cli, "'refuge index errors%s%s' says why %llu %s set aside", name ? " " : "",
               name ? name : "", (unsigned long long)set_aside, set_aside == 1 ? "is" : "are");
    return code ? code : set_aside ? RF_EXIT_SET_ASIDE : RF_EXIT_OK;
}

int cmd_status(struct rf_cli *cli)
{
    struct rf_store_info info;
    struct rf_error err = {0};
    struct rf_store *store;
    char size[RF_SIZE_TEXT], disk[RF_SIZE_TEXT];
    uint64_t set_aside = 0;
    size_t count;
    char **names;
    int code = RF_EXIT_OK;

    store = rf_home_store(cli, RF_STORE_READ, &code);
    if (!store)
        return code;
    if (rf_store_info(store, &info, &err))
        code = rf_fail(cli, &err);
    rf_store_close(store);
    if (code)
        return code;
    rf_out_printf(cli, "home      %s\nstore     %s, %s, %s on disk, %s\n", cli->home.path,
                  RF_COUNT(info.blobs, "blob"), rf_size_format(info.bytes, size),
                  rf_size_format(info.disk_bytes, disk), RF_COUNT(info.next_seq - 1, "change"));
    rf_summary_text(cli, "home", cli->home.path);
    rf_summary_int(cli, "blobs", (int64_t)info.blobs);
    rf_summary_int(cli, "bytes", (int64_t)info.bytes);
    rf_summary_int(cli, "changes", (int64_t)info.next_seq - 1);
    names = rf_index_names(cli, &count);
    for (size_t i = 0; i < count; i++) {
        int one = show_index(cli, names[i], info.next_seq - 1, false, &set_aside);

        code = one ? one : code;
    }
    rf_names_free(names, count);
    if (count == 0)
        rf_out_printf(cli, "index     none yet; 'refuge index run' makes one\n");
    rf_summary_int(cli, "indexes", (int64_t)count);
    rf_summary_int(cli, "dead_letters", (int64_t)set_aside);
    return code ? code : set_aside ? RF_EXIT_SET_ASIDE : RF_EXIT_OK;
}

/* ---- errors ---- */

struct errors {
    struct rf_cli *cli;
    const struct rf_index_home *index;
    const char *mapper, *item;
    uint64_t limit, count, shown;
};

/* --item may be a key or the beginning of one. */
static bool item_fits(const char *item, const char *key)
{
    return !item || strncmp(key, item, strlen(item)) == 0;
}

static enum rf_status print_letter(void *user, const struct rf_dead_letter *letter)
{
    struct errors *errors = user;
    struct rf_cli *cli = errors->cli;
    bool of_another = strchr(letter->key, ';') && errors->index->argument[0];
    char time[RF_TIME_TEXT_SIZE];

    if ((errors->mapper && strcmp(errors->mapper, letter->mapper) != 0) ||
        !item_fits(errors->item, letter->key))
        return RF_OK;
    errors->count++;
    if (errors->limit && errors->shown == errors->limit)
        return RF_OK;
    errors->shown++;
    rf_time_format(letter->at_us, time);
    rf_out_word(cli, rf_bytes_text(letter->name ? letter->name : letter->key));
    rf_out_printf(cli, "\n  %s (%s): ", letter->mapper, letter->dead_class);
    rf_out_word(cli, rf_bytes_text(letter->reason));
    rf_out_printf(cli, "\n  %s", time);
    if (letter->seq) /* a part is no change of its own */
        rf_out_printf(cli, ", change %llu", (unsigned long long)letter->seq);
    rf_out_printf(cli, ", attempt %u\n", letter->attempts);
    rf_out_printf(cli,
                  "  try it: refuge mapper run %s '%s'%s%s\n"
                  "  again:  refuge index retry%s --mapper %s --item '%s'\n",
                  letter->mapper, letter->key, of_another ? " --index" : "",
                  of_another ? errors->index->argument : "", errors->index->argument,
                  letter->mapper, letter->key);
    rf_out_begin(&cli->out, "dead_letter");
    rf_out_text(&cli->out, "item", letter->key);
    rf_out_text(&cli->out, "name", letter->name);
    rf_out_text(&cli->out, "mapper", letter->mapper);
    rf_out_text(&cli->out, "class", letter->dead_class);
    rf_out_text(&cli->out, "reason", letter->reason);
    rf_out_int(&cli->out, "seq", (int64_t)letter->seq);
    rf_out_int(&cli->out, "attempts", letter->attempts);
    rf_out_text(&cli->out, "time", time);
    rf_out_end(&cli->out);
    return rf_stop_asked() || cli->out.closed ? RF_CANCELLED : RF_OK;
}

/* --item and --mapper are of things there can be: a misspelt one would answer "nothing". */
static int check_choice(struct rf_cli *cli, const struct rf_index_home *index,
                        struct rf_sink *sink)
{
    const char *item = rf_args_text(&cli->args, "item");
    const char *mapper = rf_args_text(&cli->args, "mapper");
    struct rf_sink_lane *lanes = NULL;
    uint8_t digest[RF_DIGEST_SIZE];
    struct rf_error err = {0};
    struct rf_arena arena;
    bool known = mapper == NULL;
    size_t digits, count = 0;
    char ref[RF_ITEM_KEY_SIZE];

    snprintf(ref, sizeof ref, "%.*s", item ? (int)strcspn(item, ";") : 0, item ? item : "");
    if (item && !rf_prefix_parse(ref, digest, &digits))
        return rf_fail_with(cli, RF_EXIT_USAGE,
                            "'%s' is no item: a blobref, or its beginning, with ';' and a media "
                            "type behind it for a part", item);
    rf_arena_init(&arena, (size_t)256 << 20);
    if (mapper && rf_sink_lanes(sink, &arena, &lanes, &count, &err)) {
        rf_arena_release(&arena);
        return rf_fail(cli, &err);
    }
    for (size_t i = 0; count && i < lanes[0].mapper_count; i++)
        known |= mapper && strcmp(lanes[0].mappers[i].decl->name, mapper) == 0;
    rf_arena_release(&arena);
    if (!known)
        return rf_fail_with(cli, RF_EXIT_USAGE,
                            "index '%s' has no mapper '%s'; 'refuge index status%s' names those it "
                            "has", index->name, mapper, index->argument);
    return RF_EXIT_OK;
}

static int list_errors(struct rf_cli *cli, const struct rf_index_home *index,
                       struct rf_sink *sink)
{
    struct errors errors = {.cli = cli, .index = index,
                            .mapper = rf_args_text(&cli->args, "mapper"),
                            .item = rf_args_text(&cli->args, "item"),
                            .limit = rf_args_number(&cli->args, "limit")};
    struct rf_error err = {0};
    enum rf_status status = rf_sink_dead_letters(sink, print_letter, &errors, &err);

    rf_summary_int(cli, "dead_letters", (int64_t)errors.count);
    rf_summary_int(cli, "shown", (int64_t)errors.shown);
    if (rf_stop_asked())
        return RF_EXIT_STOPPED;
    if (status && !cli->out.closed)
        return rf_fail(cli, &err);
    if (errors.count > errors.shown)
        rf_say(cli, "%llu more", (unsigned long long)(errors.count - errors.shown));
    if (errors.count == 0)
        rf_say(cli, "nothing is set aside");
    return errors.count ? RF_EXIT_SET_ASIDE : RF_EXIT_OK;
}

int cmd_index_errors(struct rf_cli *cli)
{
    struct rf_index_home index;
    int code = RF_EXIT_OK;

    if (rf_index_home_init(&index, cli, cli->args.word_count ? cli->args.words[0] : NULL, true,
                           &code)) {
        struct rf_sink *sink = rf_index_home_sink(cli, &index, false, &code);

        if (sink)
            code = check_choice(cli, &index, sink);
        if (sink && code == RF_EXIT_OK)
            code = list_errors(cli, &index, sink);
        rf_sink_close(sink);
    }
    rf_index_home_release(&index);
    return code;
}

/* ---- retry ---- */

static enum rf_status count_fitting(void *user, const struct rf_dead_letter *letter)
{
    struct errors *errors = user;

    errors->count += (!errors->mapper || strcmp(errors->mapper, letter->mapper) == 0) &&
                     (!errors->item || strcmp(errors->item, letter->key) == 0);
    return RF_OK;
}

/* The item whose key begins so; letters come in order of their items. */
struct pick {
    const char *item;
    char key[RF_ITEM_KEY_SIZE];
    unsigned keys;
};

static enum rf_status pick_item(void *user, const struct rf_dead_letter *letter)
{
    struct pick *pick = user;

    if (!item_fits(pick->item, letter->key) || strcmp(pick->key, letter->key) == 0)
        return RF_OK;
    snprintf(pick->key, sizeof pick->key, "%s", letter->key);
    pick->keys++;
    return strcmp(pick->item, letter->key) == 0 ? RF_END : RF_OK; /* it sorts before longer ones */
}

static int retry(struct rf_cli *cli, const struct rf_index_home *index, struct rf_sink *sink,
                 bool dry_run)
{
    struct errors errors = {.mapper = rf_args_text(&cli->args, "mapper"),
                            .item = rf_args_text(&cli->args, "item")};
    struct pick pick = {.item = errors.item};
    struct rf_error err = {0};
    enum rf_status status;

    if (errors.item) {
        status = rf_sink_dead_letters(sink, pick_item, &pick, &err);
        if (status != RF_OK && status != RF_END)
            return rf_fail(cli, &err);
        if (pick.keys > 1)
            return rf_fail_with(cli, RF_EXIT_USAGE,
                                "more than one item that is set aside begins with '%s'",
                                errors.item);
        errors.item = pick.keys ? pick.key : errors.item;
    }
    if (dry_run)
        status = rf_sink_dead_letters(sink, count_fitting, &errors, &err);
    else
        status = rf_sink_retry(sink, errors.mapper, errors.item, &errors.count, &err);
    if (status)
        return rf_fail(cli, &err);
    rf_summary_int(cli, "retried", (int64_t)errors.count);
    rf_say(cli, "%llu %s mapped again by 'refuge index run%s'", (unsigned long long)errors.count,
           dry_run ? "would be" : "will be", index->argument);
    return RF_EXIT_OK;
}

int cmd_index_retry(struct rf_cli *cli)
{
    bool dry_run = rf_args_flag(&cli->args, "dry-run");
    struct rf_index_home index;
    int code = RF_EXIT_OK;

    if (!rf_args_flag(&cli->args, "all") && !rf_args_text(&cli->args, "mapper") &&
        !rf_args_text(&cli->args, "item"))
        return rf_fail_with(cli, RF_EXIT_USAGE,
                            "'refuge index retry' needs --all, --mapper or --item");
    if (rf_index_home_init(&index, cli, cli->args.word_count ? cli->args.words[0] : NULL, true,
                           &code)) {
        struct rf_sink *sink = rf_index_home_sink(cli, &index, !dry_run, &code);

        if (sink)
            code = check_choice(cli, &index, sink);
        if (sink && code == RF_EXIT_OK)
            code = retry(cli, &index, sink, dry_run);
        rf_sink_close(sink);
    }
    rf_index_home_release(&index);
    return code;
}
