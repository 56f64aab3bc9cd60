/*
 * cmd_index.c - refuge index: run, rebuild, verify, pause, resume, create, list, drop
 *
 * Thin over indexer/index.h: options come from the home, progress and warnings go to stderr, the
 * first signal ends a run soon, with what it began finished or undone.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/index_all.h"
#include "cmd/index_home.h"
#include "cmd/settings.h"
#include "cmd/watch.h"
#include "core/row.h"
#include "indexer/plan.h"
#include "sinks/query.h"

#define SAMPLE_MAX 1000000u /* blobs and files */
#define REACH_MAX_MS 30000u /* between two attempts to reach a sink */
#define VERIFY_KEEPS "nothing is kept, the index is as it was"
#define LOCK_SLICE_MS 1000 /* of waiting for a lock, between looks at the signals */

/* ---- speaking while an index works ---- */

static void show_progress(void *user, const struct rf_index_progress *progress)
{
    struct rf_progress shown = {.noun = "change",
                                .done = progress->changes_done,
                                .total = progress->changes_total,
                                .errors = progress->dead_letters,
                                .note =
                                    progress->building  ? "building beside the live tables"
                                    : progress->passing ? "looking for what is mapped again"
                                                        : NULL};

    rf_progress_show(user, &shown);
}

static void show_comparing(void *user, const struct rf_compare_progress *progress)
{
    struct rf_progress shown = {.noun = "row",
                                .done = progress->done,
                                .total = progress->total,
                                .errors = progress->differences,
                                .note = progress->what};

    rf_progress_show(user, &shown);
}

static void show_warning(void *user, const char *line)
{
    struct rf_cli *cli = user;

    rf_warn(cli, "%s", line);
    rf_out_begin(&cli->out, "warning");
    rf_out_text(&cli->out, "message", line);
    rf_out_end(&cli->out);
}

static void show_problem(void *user, const char *line)
{
    struct rf_cli *cli = user;

    rf_out_word(cli, rf_bytes_text(line));
    rf_out_printf(cli, "\n");
    rf_out_begin(&cli->out, "problem");
    rf_out_text(&cli->out, "message", line);
    rf_out_end(&cli->out);
}

static void fill_options(struct rf_index_options *options, struct rf_cli *cli,
                         const struct rf_index_home *index, char **mappers, size_t count)
{
    const struct rf_settings *settings = cli->settings;

    *options = (struct rf_index_options){
        .name = index->name,
        .store_url = cli->home.store_url,
        .sink_url = index->url,
        .verify_url = index->verify_url,
        .mappers = (const char *const *)mappers,
        .mapper_count = count,
        .mapper_program = rf_mapper_program(),
        .workers = rf_settings_workers(settings),
        .cache_bytes = rf_settings_cache_bytes(settings),
        .reader = index->definition.reader,
        .batch_items = rf_settings_batch_items(settings),
        .batch_ms = rf_settings_batch_ms(settings),
        .parts_max = rf_settings_parts_max(settings),
        .slow_budget_ms = rf_settings_slow_budget_ms(settings),
        .policy = index->definition.policy ? index->definition.policy
                                           : rf_settings_policy(settings),
        .hooks = {.progress = show_progress, .warn = show_warning, .user = cli},
    };
}

/* The command that made an index, to type it again. */
static void put_create(struct rf_buf *words, const struct rf_index_home *home)
{
    rf_buf_printf(words, "'refuge index create %s --sink %s", home->name, home->url);
    if (home->definition.reader)
        rf_buf_printf(words, " --reader %s", home->definition.reader);
    if (home->definition.policy)
        rf_buf_printf(words, " --policy %s", home->definition.policy);
    for (size_t i = 0; i < home->definition.mapper_count; i++)
        rf_buf_printf(words, " --mapper %s", home->definition.mappers[i]);
    rf_buf_printf(words, "'");
}

/* What makes a damaged index again, as commands to type. */
static void say_what_mends(struct rf_cli *cli, const struct rf_index_home *home, bool unsound)
{
    struct rf_buf words;

    if (!unsound) {
        rf_say(cli, "'refuge index rebuild%s' makes it again", home->argument);
        return;
    }
    rf_buf_init(&words, 1 << 16);
    rf_buf_printf(&words, "'refuge index drop %s'", home->name);
    if (home->defined) {
        rf_buf_printf(&words, ", ");
        put_create(&words, home);
    }
    rf_say(cli, "%s and 'refuge index run%s' make it again; a rebuild beside it would not",
           rf_buf_text(&words), home->argument);
    rf_buf_release(&words);
}

/* What a person has to do comes first: a rebuild may be refused until then. */
static void say_what_helps(struct rf_cli *cli, const struct rf_index_home *home,
                           const struct rf_compare_report *report)
{
    if (report->by_hand)
        rf_say(cli, "what a line says is to be sent to the server by hand: refuge takes away "
                    "nothing that it did not make");
    if (report->differences > report->by_hand)
        say_what_mends(cli, home, report->unsound);
    else
        rf_say(cli, "then 'refuge index verify%s' says whether all is well", home->argument);
}

/* An index whose place in the log is no place of this store can only be made anew. */
static bool lost_its_place(enum rf_status status)
{
    return status == RF_CURSOR_GENERATION || status == RF_CURSOR_HISTORY ||
           status == RF_CURSOR_FUTURE || status == RF_CURSOR_OLD;
}

static int fail_index(struct rf_cli *cli, const struct rf_index_home *index,
                      const struct rf_error *err)
{
    struct rf_error told = {0};
    int code;

    if (lost_its_place(err->status) && !index->defined) {
        rf_error_set(&told, err->status,
                     "%s; 'refuge index drop %s' and 'refuge index run %s' make it anew",
                     err->message, index->name, index->name);
        return rf_fail(cli, &told);
    }
    code = rf_fail(cli, err);
    /* A drop takes the definition along: how to make it again is said while it is there. */
    if (index->defined &&
        (lost_its_place(err->status) || err->status == RF_UNSOUND))
        say_what_mends(cli, index, true);
    return code;
}

/* A policy is a matter of usage: it is told before anything is opened. */
static bool check_policy(struct rf_cli *cli, int *code)
{
    const char *text = rf_args_text(&cli->args, "policy");
    struct rf_policy policy;
    struct rf_error err = {0};

    if (!text || rf_policy_parse(&policy, text, &err) == RF_OK)
        return true;
    *code = rf_fail_with(cli, RF_EXIT_USAGE, "%s", err.message);
    return false;
}

/* ---- run and rebuild ---- */

/* What Datasette shows beside the tables; a reader sees the old or the new file, never half. */
static void write_metadata(struct rf_cli *cli, const struct rf_index_home *index)
{
    struct rf_error err = {0};
    struct rf_buf buf;

    if (!index->path)
        return;
    rf_buf_init(&buf, (size_t)16 << 20);
    if (rf_query_metadata(index->url, &buf, &err))
        rf_warn(cli, "%s", err.message);
    else if (!rf_file_replace(index->metadata_path, rf_buf_bytes(&buf)))
        rf_warn(cli, "cannot write '%s': %s", index->metadata_path, strerror(errno));
    rf_buf_release(&buf);
}

static void stop_index(void *user)
{
    rf_index_stop(user);
}

/* What a signal calls, while the thread that works may be writing progress: one write, no state. */
static void tell_stopping(const char *kept)
{
    char line[200];
    int size = snprintf(line, sizeof line,
                        "%sstopping: %s; a second signal ends it at once\n",
                        isatty(STDERR_FILENO) ? "\r\x1b[K" : "", kept);

    (void)!write(STDERR_FILENO, line, (size_t)size);
}

static void stop_run(void *user)
{
    tell_stopping("what is committed stays, what was begun is finished if that takes a second");
    rf_index_stop(user);
}

static void stop_verify(void *user)
{
    tell_stopping(VERIFY_KEEPS);
    rf_index_stop(user);
}

/* Mappers whose slow calls used their budget up. */
static size_t tell_stopped(struct rf_cli *cli, struct rf_index *index,
                           const struct rf_index_home *home)
{
    struct rf_index_stopped stopped;
    size_t count = 0;

    while (rf_index_stopped(index, count, &stopped, NULL) == RF_OK) {
        rf_warn(cli,
                "%s wait%s for mapper '%s', whose slow calls used %g s of CPU one after another "
                "and all failed ('refuge index errors%s --mapper %s' says how); mend the mapper, "
                "or have 'refuge index run%s' try on",
                RF_COUNT(stopped.waiting, "item"), stopped.waiting == 1 ? "s" : "", stopped.mapper,
                (double)stopped.budget_ms / 1000, home->argument, stopped.mapper, home->argument);
        rf_out_begin(&cli->out, "stopped");
        rf_out_text(&cli->out, "mapper", stopped.mapper);
        rf_out_int(&cli->out, "waiting", (int64_t)stopped.waiting);
        rf_out_end(&cli->out);
        count++;
    }
    return count;
}

enum ending { ENDED_DONE, ENDED_STOPPED, ENDED_PAUSED };

/* One command's work on an index: with --follow the index is closed and opened again when mapper
 * files change, and while it is paused. */
struct work {
    struct rf_cli *cli;
    const struct rf_index_home *home;
    struct rf_watch *watch;
    bool follow, rebuild;
    bool opened, running;            /* once at least; now */
    struct rf_index_progress totals; /* of all its runs */
    size_t broken, stopped;          /* mappers, in the last one */
    struct rf_sink_counts counts;    /* behind the last one */
    bool counted;                    /* else it came to none */
};

static int tell_totals(const struct work *work, enum ending ending)
{
    static const char *const words[] = {[ENDED_DONE] = "is up to date",
                                        [ENDED_STOPPED] = "stopped",
                                        [ENDED_PAUSED] = "was paused"};
    const struct rf_index_progress *totals = &work->totals;
    struct rf_cli *cli = work->cli;
    struct rf_sink_counts counts = work->counts;

    if (!work->counted)
        rf_index_home_counts(work->home, &counts);
    rf_summary_text(cli, "index", work->home->name);
    if (ending == ENDED_PAUSED)
        rf_summary_text(cli, "state", "paused");
    rf_summary_int(cli, "changes", (int64_t)totals->changes_done);
    rf_summary_int(cli, "items", (int64_t)totals->items);
    rf_summary_int(cli, "rows", (int64_t)totals->rows);
    rf_summary_int(cli, "unmatched", (int64_t)totals->unmatched);
    rf_summary_int(cli, "dead_letters", (int64_t)counts.dead_letters);
    rf_summary_int(cli, "parked", (int64_t)totals->parked);
    rf_summary_int(cli, "damaged", (int64_t)totals->damaged);
    rf_summary_int(cli, "broken_mappers", (int64_t)work->broken);
    rf_summary_int(cli, "stopped_mappers", (int64_t)work->stopped);
    rf_summary_int(cli, "map_cpu_us", (int64_t)totals->pool_cpu_us);
    rf_summary_int(cli, "sink_us", (int64_t)totals->sink_us);
    rf_summary_int(cli, "feed_us", (int64_t)totals->feed_us);
    if (work->opened)
        rf_say(cli, "index '%s' %s%s: %s and %s in this run", work->home->name, words[ending],
               ending == ENDED_DONE && work->stopped ? " but for what waits" : "",
               RF_COUNT(totals->items, "item"), RF_COUNT(totals->rows, "row"));
    if (totals->unmatched)
        rf_say(cli, "%s no mapper takes; 'refuge index why REF|PATH%s' says why",
               RF_COUNT(totals->unmatched, "item"), work->home->argument);
    if (counts.dead_letters)
        rf_say(cli, "%llu set aside; 'refuge index errors%s' says why",
               (unsigned long long)counts.dead_letters, work->home->argument);
    if (totals->damaged)
        rf_say(cli, "%s passed over, damaged in the store; 'refuge store verify' names %s",
               RF_COUNT(totals->damaged, "change"), totals->damaged == 1 ? "it" : "them");
    if (counts.parked_need)
        rf_say(cli, "%llu wait%s for blobs that are not in the store",
               (unsigned long long)counts.parked_need, counts.parked_need == 1 ? "s" : "");
    if (ending == ENDED_STOPPED)
        return RF_EXIT_STOPPED;
    return counts.dead_letters || totals->damaged || work->broken || work->stopped
               ? RF_EXIT_SET_ASIDE : RF_EXIT_OK;
}

/* A follower waits for a sink that cannot be reached, without end: doubling, with jitter. */
static enum rf_status await_sink(const struct work *work, struct rf_index_options *options,
                                 struct rf_index **out, struct rf_error *err)
{
    enum rf_status status = RF_UNAVAILABLE;

    for (uint32_t delay_ms = 200; status == RF_UNAVAILABLE && !rf_stop_asked();
         delay_ms = delay_ms < REACH_MAX_MS / 2 ? 2 * delay_ms : REACH_MAX_MS) {
        int64_t until = rf_clock_us() + (int64_t)delay_ms * 1000;

        until += rf_clock_us() % (delay_ms * 250 + 1);
        rf_warn(work->cli, "%s, trying again in %.1f s", err->message, delay_ms / 1000.0);
        while (rf_clock_us() < until && !rf_stop_asked())
            poll(NULL, 0, 100);
        rf_error_clear(err);
        if (!rf_stop_asked())
            status = rf_index_open(out, options, err);
    }
    return status == RF_UNAVAILABLE ? RF_CANCELLED : status;
}

/* Open, waiting for another writer as --wait says; a follower that had the index before waits as
 * long as it takes. */
static enum rf_status open_index(const struct work *work, struct rf_index_options *options,
                                 struct rf_index **out, struct rf_error *err)
{
    struct rf_cli *cli = work->cli;
    uint64_t wait_s = rf_args_number(&cli->args, "wait");
    enum rf_status status = rf_index_open(out, options, err);

    if (status == RF_UNAVAILABLE && work->follow)
        status = await_sink(work, options, out, err);
    if (status != RF_LOCKED)
        return status;
    if (work->opened) {
        rf_say(cli, "%s; waiting", err->message);
        options->lock_timeout_ms = LOCK_SLICE_MS;
        while (status == RF_LOCKED && !rf_stop_asked()) {
            rf_error_clear(err);
            status = rf_index_open(out, options, err);
        }
        return status == RF_LOCKED ? RF_CANCELLED : status;
    }
    if (wait_s == 0)
        return status;
    rf_say(cli, "%s; waiting up to %llu s", err->message, (unsigned long long)wait_s);
    rf_error_clear(err);
    options->lock_timeout_ms = wait_s > INT32_MAX / 1000 ? INT32_MAX : (int)wait_s * 1000;
    return rf_index_open(out, options, err);
}

static void add_totals(struct work *work, const struct rf_index *index)
{
    struct rf_index_progress one, *sum = &work->totals;

    rf_index_totals(index, &one);
    sum->changes_done = one.changes_done;
    sum->parked = one.parked;
    sum->items += one.items;
    sum->rows += one.rows;
    sum->unmatched += one.unmatched;
    sum->damaged += one.damaged;
    sum->pool_cpu_us += one.pool_cpu_us;
    sum->sink_us += one.sink_us;
    sum->feed_us += one.feed_us;
    work->broken = rf_index_broken(index);
}

/* Run until it is done, stopped, or something that is watched changed: then RF_CANCELLED. */
static enum rf_status run_once(struct work *work, struct rf_error *err)
{
    struct rf_index_options options;
    struct rf_index *index = NULL;
    enum rf_status status;
    size_t count;
    char **mappers = rf_index_mapper_paths(work->cli, work->home, &count);

    fill_options(&options, work->cli, work->home, mappers, count);
    options.rebuild = work->rebuild;
    options.forget = work->rebuild && rf_args_flag(&work->cli->args, "full");
    if (!work->rebuild && rf_args_text(&work->cli->args, "policy"))
        options.policy = rf_args_text(&work->cli->args, "policy");
    status = open_index(work, &options, &index, err);
    work->running = status == RF_OK;
    if (work->running) {
        work->opened = true;
        rf_stop_call(work->cli->out.quiet ? stop_index : stop_run, index);
        rf_watch_call(work->watch, stop_index, index);
        status = rf_index_run(index, work->follow, err);
        rf_watch_call(work->watch, NULL, NULL);
        rf_stop_call(NULL, NULL);
        add_totals(work, index);
        work->counted = (status == RF_OK || status == RF_CANCELLED) &&
                        rf_index_counts(index, &work->counts, NULL) == RF_OK;
        rf_progress_clear(work->cli);
        work->stopped = status == RF_OK ? tell_stopped(work->cli, index, work->home) : 0;
    }
    rf_index_close(index);
    rf_names_free(mappers, count);
    return status;
}

static void tell_paused(struct rf_cli *cli, const struct rf_index_home *index)
{
    rf_say(cli, "index '%s' is paused; 'refuge index resume%s' lets it run", index->name,
           index->argument);
}

/* Run until done or stopped; with follow, again whenever mapper files changed or a pause ended. */
static int work_on(struct work *work)
{
    struct rf_cli *cli = work->cli;
    struct rf_error err = {0};
    enum rf_status status = RF_OK;
    bool again = true;
    int code;

    while (again) {
        work->watch = rf_watch_open(cli, work->home, work->follow);
        if (!rf_watch_paused(work->watch)) {
            status = run_once(work, &err);
            again = status == RF_CANCELLED && work->follow && !rf_stop_asked();
            if (again && !rf_index_paused(work->home))
                rf_say(cli, "mapper files changed: loading them again");
        } else {
            tell_paused(cli, work->home);
            status = RF_CANCELLED;
            again = work->follow;
            if (again)
                rf_watch_wait(work->watch);
            again = again && !rf_stop_asked();
        }
        rf_watch_close(work->watch);
        if (work->opened && (status == RF_OK || status == RF_CANCELLED))
            write_metadata(cli, work->home);
    }
    if (status == RF_OK || status == RF_CANCELLED)
        return tell_totals(work, status == RF_OK     ? ENDED_DONE
                                 : rf_stop_asked()   ? ENDED_STOPPED
                                                     : ENDED_PAUSED);
    code = fail_index(cli, work->home, &err);
    if (status == RF_LOCKED && !work->running)
        rf_say_wait(cli, rf_args_number(&cli->args, "wait"));
    return code;
}

static int run_one(struct rf_cli *cli, const char *name, bool follow, bool rebuild)
{
    struct rf_index_home index;
    struct work work = {.cli = cli, .home = &index, .follow = follow, .rebuild = rebuild};
    int code = RF_EXIT_OK;

    if (rf_index_home_init(&index, cli, name, false, &code)) {
        /* Only the index that everybody has comes about by itself: a name may be misspelt. */
        if (index.defined || index.exists || strcmp(index.name, RF_INDEX_DEFAULT) == 0)
            code = work_on(&work);
        else
            code = rf_fail_no_index(cli, &index);
    }
    rf_index_home_release(&index);
    return code;
}

int cmd_index_run(struct rf_cli *cli)
{
    bool follow = rf_args_flag(&cli->args, "follow");
    size_t count = 0;
    char **names;
    int code;

    if (!check_policy(cli, &code))
        return code;
    if (cli->args.word_count)
        return run_one(cli, cli->args.words[0], follow, false);
    names = rf_index_names(cli, &count);
    code = count > 1 ? rf_index_all(cli, names, count, follow)
                     : run_one(cli, count ? names[0] : NULL, follow, false);
    rf_names_free(names, count);
    return code;
}

int cmd_index_rebuild(struct rf_cli *cli)
{
    return run_one(cli, cli->args.word_count ? cli->args.words[0] : NULL, false, true);
}

/* ---- verify ---- */

static void stop_comparing(void *user)
{
    (void)user;
    tell_stopping(VERIFY_KEEPS);
}

/* While it compares, the flag alone ends it. */
static void stop_with(void *user, struct rf_index *index)
{
    const struct rf_cli *cli = user;

    if (index)
        rf_stop_call(cli->out.quiet ? stop_index : stop_verify, index);
    else
        rf_stop_call(cli->out.quiet || rf_stop_asked() ? NULL : stop_comparing, NULL);
}

static int verify_index(struct rf_cli *cli, const struct rf_index_home *home)
{
    struct rf_compare_report report = {0};
    struct rf_index_options options;
    struct rf_error err = {0};
    enum rf_status status;
    int code;
    size_t mapper_count;
    char **mappers = rf_index_mapper_paths(cli, home, &mapper_count);
    const char *scratch = getenv("TMPDIR");

    fill_options(&options, cli, home, mappers, mapper_count);
    options.scratch_dir = scratch && scratch[0] ? scratch : "/tmp";
    options.interrupted = &rf_stop_flag;
    options.hooks.works = stop_with;
    options.hooks.compare = show_comparing;
    options.sample = rf_args_number(&cli->args, "sample");
    if (options.sample > SAMPLE_MAX)
        options.sample = SAMPLE_MAX;
    if (options.sample) {
        options.sample_seed = rf_args_number(&cli->args, "seed");
        if (!rf_args_text(&cli->args, "seed")) /* one that is easily typed again */
            options.sample_seed = ((uint64_t)rf_now_us() ^ (uint64_t)getpid() << 20) % 1000000;
        rf_say(cli, "a sample of %s; --seed %llu draws it again",
               RF_COUNT(options.sample, "item"), (unsigned long long)options.sample_seed);
        rf_summary_int(cli, "seed", (int64_t)options.sample_seed);
    }
    status = rf_index_verify(&options, show_problem, &report, &err);
    rf_stop_call(NULL, NULL);
    rf_names_free(mappers, mapper_count);
    rf_progress_clear(cli);
    rf_summary_text(cli, "index", home->name);
    rf_summary_int(cli, "tables", (int64_t)report.tables);
    rf_summary_int(cli, "rows", (int64_t)report.rows);
    rf_summary_int(cli, "differences", (int64_t)report.differences);
    rf_summary_int(cli, "limit_letters", (int64_t)report.limit_letters);
    rf_summary_int(cli, "parked", (int64_t)report.parked);
    rf_summary_int(cli, "unreadable", (int64_t)report.unreadable);
    if (status == RF_CANCELLED && rf_stop_asked()) {
        rf_say(cli, report.begun ? "stopped, not all was compared"
                                 : "stopped, nothing was compared");
        return RF_EXIT_STOPPED;
    }
    if (status == RF_OK || report.differences)
        rf_out_printf(cli, "%s, %s compared: %s\n", RF_COUNT(report.tables, "table"),
                      RF_COUNT(report.rows, "row"), RF_COUNT(report.differences, "difference"));
    if (report.until_seq < report.newest_seq && (status == RF_OK || status == RF_CORRUPT))
        rf_out_printf(cli, "as of change %llu of %llu: 'refuge index run%s' goes on\n",
                      (unsigned long long)report.until_seq, (unsigned long long)report.newest_seq,
                      home->argument);
    if (report.limit_letters)
        rf_out_printf(cli, "left out: %s of class limit\n",
                      RF_COUNT(report.limit_letters, "dead letter"));
    if (report.parked)
        rf_out_printf(cli, "left out: %s for the slow lane, here or in the rebuild\n",
                      RF_COUNT(report.parked, "park"));
    if (status == RF_OK)
        return RF_EXIT_OK;
    code = fail_index(cli, home, &err);
    if (status == RF_CORRUPT && report.unreadable)
        rf_say(cli,
               "the store cannot read all that the index was made from: rows of what is damaged "
               "count as different, and a rebuild would lose them. 'refuge store verify' names "
               "it; put those files again, then verify again");
    else if (status == RF_CORRUPT && report.differences)
        say_what_helps(cli, home, &report);
    return code;
}

int cmd_index_verify(struct rf_cli *cli)
{
    const char *name = cli->args.word_count ? cli->args.words[0] : NULL;
    struct rf_index_home index;
    int code = RF_EXIT_OK;

    if (rf_index_home_init(&index, cli, name, true, &code))
        code = verify_index(cli, &index);
    rf_index_home_release(&index);
    return code;
}

/* ---- pause and resume ---- */

/* The file that says so, with the time; it was there already or not. */
static bool write_pause(struct rf_cli *cli, const struct rf_index_home *index, int *code)
{
    char time[RF_TIME_TEXT_SIZE];
    bool ok;

    rf_time_format(rf_now_us(), time);
    ok = rf_file_replace(index->paused_path, rf_bytes_text(time));
    if (!ok)
        *code = rf_fail_with(cli, rf_exit_of_errno(errno), "cannot write '%s': %s",
                             index->paused_path, strerror(errno));
    return ok;
}

/* Once nobody holds the lock, nothing writes the index until it is resumed. */
static int wait_for_run(struct rf_cli *cli, const struct rf_index_home *index)
{
    int code = RF_EXIT_OK;
    struct rf_sink *sink = rf_index_home_sink(cli, index, true, &code);

    rf_sink_close(sink);
    if (code == RF_EXIT_LOCKED)
        rf_say(cli, "it is paused from the batch after the one at hand");
    return code;
}

static int set_paused(struct rf_cli *cli, const struct rf_index_home *index, bool paused)
{
    bool before = rf_index_paused(index);
    int code = RF_EXIT_OK;

    if (paused) {
        if (!write_pause(cli, index, &code))
            return code;
        code = wait_for_run(cli, index);
    } else if (before && unlink(index->paused_path) && errno != ENOENT) {
        return rf_fail_with(cli, rf_exit_of_errno(errno), "cannot remove '%s': %s",
                            index->paused_path, strerror(errno));
    }
    rf_summary_text(cli, "index", index->name);
    rf_summary_text(cli, "state", paused ? "paused" : "ready");
    if (code == RF_EXIT_OK)
        rf_say(cli, "index '%s' is %s%s", index->name, before == paused && paused ? "already " : "",
               paused ? "paused" : before ? "ready to run again" : "not paused");
    return code;
}

static int pause_or_resume(struct rf_cli *cli, bool paused)
{
    const char *name = cli->args.word_count ? cli->args.words[0] : NULL;
    struct rf_index_home index;
    int code = RF_EXIT_OK;

    if (rf_index_home_init(&index, cli, name, true, &code))
        code = set_paused(cli, &index, paused);
    rf_index_home_release(&index);
    return code;
}

int cmd_index_pause(struct rf_cli *cli)
{
    return pause_or_resume(cli, true);
}

int cmd_index_resume(struct rf_cli *cli)
{
    return pause_or_resume(cli, false);
}

/* ---- create ---- */

/* Whether the mappers load is the run's to say; that each is there, is said now. */
static bool resolve_mappers(struct rf_cli *cli, struct rf_definition *definition,
                            struct rf_arena *arena, int *code)
{
    const char **paths = rf_arena_alloc(arena, (cli->args.list_count + 1) * sizeof *paths);

    for (size_t i = 0; i < cli->args.list_count; i++) {
        const char *word = cli->args.lists[i];
        char *found = rf_mapper_find(cli, word);
        bool bundled = strncmp(found, "bundled:", 8) == 0;
        char *whole = bundled ? strdup(found) : realpath(found, NULL);

        free(found);
        if (!whole) {
            *code = rf_fail_with(cli, RF_EXIT_FAILED,
                                 "cannot use mapper '%s': %s; 'refuge mapper list' names those "
                                 "in use",
                                 word, strerror(errno));
            return false;
        }
        paths[i] = rf_arena_copy(arena, whole, strlen(whole));
        free(whole);
    }
    if (cli->args.list_count) {
        definition->mappers = paths;
        definition->mapper_count = cli->args.list_count;
    }
    return true;
}

static bool same_file(const char *a, const char *b)
{
    struct stat st_a, st_b;

    return strncmp(a, "sqlite:", 7) == 0 && strncmp(b, "sqlite:", 7) == 0 &&
           stat(a + 7, &st_a) == 0 && stat(b + 7, &st_b) == 0 && st_a.st_dev == st_b.st_dev &&
           st_a.st_ino == st_b.st_ino;
}

/* Whether two places may be one: the same, one file by two paths, or in a server, which may have
 * many names, what stands behind the '#'. */
static bool may_be_one(const char *a, const char *b, bool strictly)
{
    const char *in_a = strchr(a, '#'), *in_b = strchr(b, '#');

    if (strcmp(a, b) == 0)
        return true;
    return !strictly && (same_file(a, b) || (in_a && in_b && strcmp(in_a, in_b) == 0));
}

/* The name of another index kept in the same place, or NULL; allocated. One whose definition cannot
 * be read may be anywhere. */
static char *sharing(struct rf_cli *cli, const char *url, const char *name, bool strictly)
{
    size_t count;
    char **names = rf_index_names(cli, &count), *found = NULL;
    int code;

    for (size_t i = 0; i < count && !found; i++) {
        struct rf_index_home other;
        struct rf_error broken;

        if (strcmp(names[i], name) == 0)
            continue;
        if (rf_index_home_look(&other, cli, names[i], &broken, &code) &&
            (other.url ? may_be_one(other.url, url, strictly) : !strictly))
            found = strdup(names[i]);
        rf_index_home_release(&other);
    }
    rf_names_free(names, count);
    return found;
}

/* The store of the home, told otherwise. */
static bool store_uuid(struct rf_cli *cli, struct rf_store_info *info, int *code)
{
    struct rf_store *store = rf_home_store(cli, RF_STORE_READ, code);
    struct rf_error err = {0};
    bool known = store && rf_store_info(store, info, &err) == RF_OK;

    if (store && !known)
        *code = rf_fail(cli, &err);
    rf_store_close(store);
    return known;
}

/* Write whose the place is, which its first run would do otherwise: who asks for it by another
 * name meanwhile is told. What is there already may be this index, whose definition was lost; not
 * one of another store. */
static enum rf_status claim_place(struct rf_sink *sink, const char *place, const char *uuid,
                                  bool *again, struct rf_error *err)
{
    const char *found = NULL;
    struct rf_arena arena;
    enum rf_status status;

    rf_arena_init(&arena, 4096);
    status = rf_sink_get_fact(sink, &arena, "store", &found, err);
    *again = status == RF_OK;
    if (status == RF_NOT_FOUND) {
        rf_error_clear(err);
        status = rf_sink_set_fact(sink, "store", uuid, err);
    } else if (status == RF_OK && strcmp(uuid, found) != 0) {
        status = rf_error_set(err, RF_INVALID,
                              "cannot make an index at '%s': one of another store (%s) is there",
                              place, found);
    }
    rf_arena_release(&arena);
    return status;
}

/* Somebody's file is left alone: told before anything is made beside it. */
static enum rf_status check_place(const struct rf_definition *definition,
                                  const struct rf_sink_options *how, struct rf_error *err)
{
    struct rf_sink_options look = {.name = how->name};
    struct rf_sink *sink;
    enum rf_status status;

    if (strncmp(definition->sink, "sqlite:", 7) != 0)
        return RF_OK;
    status = rf_sink_open(&sink, definition->sink, &look, err);
    if (status == RF_OK) {
        rf_sink_close(sink);
    } else if (status == RF_NOT_FOUND) {
        rf_error_clear(err);
        status = RF_OK;
    } else if (status == RF_UNSOUND) {
        rf_error_clear(err);
        status = rf_error_set(err, RF_INVALID,
                              "cannot make an index at '%s': the file there is no index of refuge, "
                              "or a damaged one; choose another place or move it away",
                              definition->sink + 7);
    }
    return status;
}

/* Make the sink, so that a mistake in its URL shows now. Its lock is held until the definition is
 * there: of two that want the same place at once, one sees what the other made of it. */
static int create_index(struct rf_cli *cli, const struct rf_index_home *index,
                        const struct rf_definition *definition)
{
    struct rf_sink_options how = {.name = index->name, .create = true, .write = true,
                                  .reader = definition->reader};
    struct rf_store_info info;
    struct rf_sink *sink = NULL;
    struct rf_error err = {0};
    enum rf_status status;
    int code = RF_EXIT_OK;
    bool again = false;
    char *other;

    if (!store_uuid(cli, &info, &code))
        return code;
    status = check_place(definition, &how, &err);
    if (status == RF_OK)
        status = rf_sink_open(&sink, definition->sink, &how, &err);
    if (status == RF_OK)
        status = claim_place(sink, definition->sink, info.uuid, &again, &err);
    other = again ? sharing(cli, definition->sink, index->name, false) : NULL;
    if (status == RF_OK && other)
        status = rf_error_set(&err, RF_INVALID,
                              "cannot make an index at '%s': there is one of this home already, "
                              "which may be '%s'; two cannot share a place",
                              definition->sink, other);
    free(other);
    if (status == RF_OK && mkdir(cli->home.conf_dir, 0700) == 0)
        rf_folder_sync_of(cli->home.conf_dir);
    if (status == RF_OK)
        status = rf_definition_write(definition, index->definition_path, &err);
    rf_sink_close(sink);
    if (status != RF_OK)
        return rf_fail(cli, &err);
    rf_summary_text(cli, "index", index->name);
    rf_summary_text(cli, "sink", definition->sink);
    rf_say(cli, "index '%s' is %s; 'refuge index run%s' %s", index->name,
           again ? "taken up again" : "made", index->argument, again ? "goes on" : "fills it");
    return RF_EXIT_OK;
}

int cmd_index_create(struct rf_cli *cli)
{
    struct rf_definition definition = {0};
    const char *word = rf_args_text(&cli->args, "sink");
    struct rf_index_home index;
    struct rf_error err = {0};
    char *url = NULL, *taken = NULL;
    int code = RF_EXIT_OK;

    if (!check_policy(cli, &code))
        return code;
    if (!rf_index_home_init(&index, cli, cli->args.words[0], false, &code)) {
        rf_index_home_release(&index);
        return code;
    }
    if (index.defined || index.exists) {
        code = rf_fail_with(cli, RF_EXIT_FAILED,
                            "there is an index '%s' already, kept in '%s'; 'refuge index drop %s' "
                            "removes it",
                            index.name, index.place, index.name);
    } else if (rf_sink_url(&url, word ? word : index.url, index.name, &err) != RF_OK) {
        code = rf_fail_with(cli, RF_EXIT_USAGE, "%s", err.message);
    } else if ((taken = sharing(cli, url, index.name, true)) != NULL) {
        code = rf_fail_with(cli, RF_EXIT_FAILED,
                            "index '%s' is kept in '%s' already: two cannot share a place", taken,
                            url);
    } else if (resolve_mappers(cli, &definition, &index.arena, &code)) {
        definition.sink = url;
        definition.policy = rf_args_text(&cli->args, "policy");
        definition.reader = rf_args_text(&cli->args, "reader");
        code = create_index(cli, &index, &definition);
    }
    free(url);
    free(taken);
    rf_index_home_release(&index);
    return code;
}

/* ---- list and drop ---- */

static void list_index(struct rf_cli *cli, const struct rf_index_home *index)
{
    char size[RF_SIZE_TEXT] = "";
    struct stat st = {0};

    if (index->path && stat(index->path, &st) == 0)
        rf_size_format((uint64_t)st.st_size, size);
    rf_out_printf(cli, "%-16s %9s  ", index->name, size);
    rf_out_word(cli, rf_bytes_text(index->place));
    rf_out_printf(cli, "\n");
    rf_out_begin(&cli->out, "item");
    rf_out_text(&cli->out, "index", index->name);
    if (size[0])
        rf_out_int(&cli->out, "bytes", st.st_size);
    rf_out_text(&cli->out, "path", index->path);
    rf_out_text(&cli->out, "sink", index->url);
    rf_out_end(&cli->out);
}

int cmd_index_list(struct rf_cli *cli)
{
    size_t count;
    char **names = rf_index_names(cli, &count);
    int code = RF_EXIT_OK;

    for (size_t i = 0; i < count; i++) {
        struct rf_index_home index;

        if (rf_index_home_init(&index, cli, names[i], false, &code))
            list_index(cli, &index);
        rf_index_home_release(&index);
    }
    if (count == 0)
        rf_say(cli, "there is no index yet; 'refuge index run' makes index '" RF_INDEX_DEFAULT "'");
    rf_summary_int(cli, "indexes", (int64_t)count);
    rf_names_free(names, count);
    return code;
}

/* The way out where the sink refuses: it is in nobody's way then. */
static int fail_drop(struct rf_cli *cli, const struct rf_index_home *index,
                     const struct rf_error *err)
{
    int code = rf_fail(cli, err);

    if (index->defined && !index->path && err->status != RF_LOCKED)
        rf_say(cli, "'refuge index drop %s --forget' forgets the index here, whatever the server "
                    "holds of it", index->name);
    return code;
}

/* Wait for whoever writes it; what is not there, or cannot be read, may go all the same. */
static bool lock_to_drop(struct rf_cli *cli, const struct rf_index_home *index, int *code)
{
    struct rf_sink_options how = {.name = index->name, .write = true};
    struct rf_error err = {0};
    struct rf_sink *sink = NULL;
    enum rf_status status = rf_sink_open(&sink, index->url, &how, &err);

    rf_sink_close(sink);
    if (status == RF_CORRUPT || status == RF_UNSOUND)
        rf_say(cli, "%s", err.message);
    if (status == RF_CORRUPT || status == RF_UNSOUND || (status == RF_NOT_FOUND && index->defined))
        return true;
    if (status != RF_OK && status != RF_LOCKED) {
        *code = fail_drop(cli, index, &err);
        return false;
    }
    sink = rf_index_home_sink(cli, index, true, code);
    rf_sink_close(sink);
    return sink != NULL;
}

/* What is in the home, and what the sink holds unless it is to stay. */
static enum rf_status erase_all(const struct rf_index_home *index, bool forget,
                                struct rf_error *err)
{
    int hold = -1;
    enum rf_status status = rf_index_verify_hold(index->verify_url, &hold, err);

    if (status == RF_NOT_FOUND) /* there is not even the folder of an index that is defined */
        rf_error_clear(err);
    else if (status)
        return status;
    (void)unlink(index->metadata_path);
    (void)unlink(index->paused_path);
    status = rf_sink_erase(index->verify_url, err); /* what an interrupted verify left */
    if (status == RF_OK && !forget)
        status = rf_sink_erase(index->url, err);
    if (hold >= 0)
        rf_index_verify_release(index->verify_url, hold);
    return status;
}

/* What stays in a sink: "schema 'team' stays in 'postgresql://...'". */
static void say_what_stays(struct rf_cli *cli, const struct rf_index_home *index, bool done)
{
    const char *at = strrchr(index->url, '#');
    bool schema = strncmp(index->url, "postgres", 8) == 0;
    struct rf_buf words;

    rf_buf_init(&words, 1 << 16);
    if (at && !index->path)
        rf_buf_printf(&words, "%s '%s%s' ", schema ? "schema" : "what is named", at + 1,
                      schema ? "" : "-*");
    else
        rf_buf_printf(&words, "what it holds ");
    rf_buf_printf(&words, "%s in '%s'", done ? "stays" : "would stay", index->place);
    if (done) {
        rf_buf_printf(&words, ": ");
        put_create(&words, index);
        rf_buf_printf(&words, " takes it up again");
    }
    rf_say(cli, "%s", rf_buf_text(&words));
    rf_buf_release(&words);
}

static int drop_index(struct rf_cli *cli, const struct rf_index_home *index)
{
    bool forget = rf_args_flag(&cli->args, "forget");
    struct rf_error err = {0};
    enum rf_status status;
    int code = RF_EXIT_OK;

    if (forget && !index->defined)
        return rf_fail_with(cli, RF_EXIT_USAGE,
                            "--forget is for an index kept elsewhere: index '%s' is '%s' alone",
                            index->name, index->place);
    if (rf_args_flag(&cli->args, "dry-run")) {
        rf_say(cli, forget ? "would forget index '%s'" : "would remove '%s'",
               forget ? index->name : index->place);
        if (forget)
            say_what_stays(cli, index, false);
        return RF_EXIT_OK;
    }
    if (!forget && !lock_to_drop(cli, index, &code))
        return code;
    status = erase_all(index, forget, &err);
    if (status)
        return fail_drop(cli, index, &err);
    if (index->defined && unlink(index->definition_path) != 0 && errno != ENOENT)
        return rf_fail_with(cli, rf_exit_of_errno(errno), "cannot remove '%s': %s",
                            index->definition_path, strerror(errno));
    rf_summary_text(cli, "state", forget ? "forgotten" : "removed");
    rf_say(cli, "index '%s' is %s", index->name, forget ? "forgotten" : "removed");
    if (forget)
        say_what_stays(cli, index, true);
    return RF_EXIT_OK;
}

/* Remove a definition that cannot be read; what it meant to name is left alone. */
static int drop_broken(struct rf_cli *cli, const struct rf_index_home *index)
{
    char *path = rf_text_join(cli->home.index_dir, "/", index->name);
    char *own = rf_text_join(path, ".db", "");
    int code = RF_EXIT_OK;

    if (rf_args_flag(&cli->args, "dry-run")) {
        rf_say(cli, "would remove '%s', which cannot be read, and nothing else",
               index->definition_path);
    } else if (unlink(index->definition_path) != 0 && errno != ENOENT) {
        code = rf_fail_with(cli, rf_exit_of_errno(errno), "cannot remove '%s': %s",
                            index->definition_path, strerror(errno));
    } else if (access(own, F_OK) == 0) {
        rf_say(cli, "'%s' is removed; index '%s' is now the one in '%s', which 'refuge index drop "
                    "%s' removes, too",
               index->definition_path, index->name, own, index->name);
    } else {
        (void)unlink(index->paused_path);
        rf_say(cli, "'%s' is removed; what there may be in the sink it meant could not be told and "
                    "stays: 'refuge index create %s --sink URL' takes it up again",
               index->definition_path, index->name);
    }
    free(path);
    free(own);
    return code;
}

int cmd_index_drop(struct rf_cli *cli)
{
    struct rf_index_home index;
    struct rf_error broken;
    int code = RF_EXIT_OK;

    if (rf_index_home_look(&index, cli, cli->args.words[0], &broken, &code)) {
        if (broken.status != RF_OK)
            code = drop_broken(cli, &index);
        else if (!index.exists)
            code = rf_fail_no_index(cli, &index);
        else
            code = drop_index(cli, &index);
    }
    rf_summary_text(cli, "index", cli->args.words[0]);
    rf_index_home_release(&index);
    return code;
}
