/*
 * cmd_index.c - refuge index: run, rebuild, verify, pause, resume, list, drop
 *
 * Thin over indexer/index.h: options come from the home, progress and warnings go to stderr, the
 * first signal ends a run after the batch at hand.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/index_home.h"
#include "cmd/settings.h"
#include "core/row.h"
#include "sinks/query.h"

/* ---- speaking while an index works ---- */

static void show_progress(void *user, const struct rf_index_progress *progress)
{
    struct rf_progress shown = {.noun = "change",
                                .done = progress->changes_done,
                                .total = progress->changes_total,
                                .errors = progress->dead_letters,
                                .note =
                                    progress->building ? "building beside the live tables" : NULL};

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
        .mappers = (const char *const *)mappers,
        .mapper_count = count,
        .mapper_program = rf_mapper_program(),
        .workers = rf_settings_workers(settings),
        .cache_bytes = rf_settings_cache_bytes(settings),
        .batch_items = rf_settings_batch_items(settings),
        .batch_ms = rf_settings_batch_ms(settings),
        .slow_budget_ms = rf_settings_slow_budget_ms(settings),
        .hooks = {.progress = show_progress, .warn = show_warning, .user = cli},
    };
}

/* ---- run and rebuild ---- */

/* What Datasette shows beside the tables; a reader sees the old or the new file, never half. */
static void write_metadata(struct rf_cli *cli, const struct rf_index_home *index)
{
    char *temporary = rf_text_join(index->metadata_path, ".new", "");
    struct rf_error err = {0};
    struct rf_buf buf;
    int fd;

    rf_buf_init(&buf, (size_t)16 << 20);
    if (rf_query_metadata(index->url, &buf, &err)) {
        rf_warn(cli, "%s", err.message);
    } else {
        bool ok = false;

        fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0) {
            ok = write(fd, buf.data, buf.size) == (ssize_t)buf.size;
            ok = close(fd) == 0 && ok && rename(temporary, index->metadata_path) == 0;
        }
        if (!ok)
            rf_warn(cli, "cannot write '%s': %s", index->metadata_path, strerror(errno));
    }
    rf_buf_release(&buf);
    free(temporary);
}

static void stop_index(void *user)
{
    rf_index_stop(user);
}

/* Mappers whose slow calls used their budget up. */
static size_t tell_stopped(struct rf_cli *cli, struct rf_index *index, const char *name)
{
    struct rf_index_stopped stopped;
    size_t count = 0;

    while (rf_index_stopped(index, count, &stopped, NULL) == RF_OK) {
        rf_warn(cli,
                "%llu items wait for mapper '%s', whose slow calls used %g s of CPU one after "
                "another and all failed ('refuge index errors --mapper %s' says how); mend the "
                "mapper, or have 'refuge index run %s' try on",
                (unsigned long long)stopped.waiting, stopped.mapper,
                (double)stopped.budget_ms / 1000, stopped.mapper, name);
        rf_out_begin(&cli->out, "stopped");
        rf_out_text(&cli->out, "mapper", stopped.mapper);
        rf_out_int(&cli->out, "waiting", (int64_t)stopped.waiting);
        rf_out_end(&cli->out);
        count++;
    }
    return count;
}

/* What stands in the index after a run. */
struct left {
    uint64_t set_aside, waiting; /* for blobs */
    size_t broken, stopped;      /* mappers */
    bool early;
};

static int tell_totals(struct rf_cli *cli, const struct rf_index_home *index,
                       const struct rf_index_progress *totals, const struct left *left)
{

    rf_summary_text(cli, "index", index->name);
    rf_summary_int(cli, "changes", (int64_t)totals->changes_done);
    rf_summary_int(cli, "items", (int64_t)totals->items);
    rf_summary_int(cli, "rows", (int64_t)totals->rows);
    rf_summary_int(cli, "dead_letters", (int64_t)left->set_aside);
    rf_summary_int(cli, "parked", (int64_t)totals->parked);
    rf_summary_int(cli, "broken_mappers", (int64_t)left->broken);
    rf_summary_int(cli, "stopped_mappers", (int64_t)left->stopped);
    rf_summary_int(cli, "map_cpu_us", (int64_t)totals->pool_cpu_us);
    rf_summary_int(cli, "sink_us", (int64_t)totals->sink_us);
    rf_summary_int(cli, "feed_us", (int64_t)totals->feed_us);
    rf_say(cli, "index '%s' %s: %s and %s in this run", index->name,
           left->early     ? "stopped"
           : left->stopped ? "is up to date but for what waits"
                           : "is up to date",
           RF_COUNT(totals->items, "item"), RF_COUNT(totals->rows, "row"));
    if (left->set_aside)
        rf_say(cli, "%llu set aside; 'refuge index errors' says why",
               (unsigned long long)left->set_aside);
    if (left->waiting)
        rf_say(cli, "%llu wait%s for blobs that are not in the store",
               (unsigned long long)left->waiting, left->waiting == 1 ? "s" : "");
    if (left->early)
        return RF_EXIT_STOPPED;
    return left->set_aside || left->broken || left->stopped ? RF_EXIT_SET_ASIDE : RF_EXIT_OK;
}

/* Open, waiting for another writer as --wait says. */
static enum rf_status open_index(struct rf_cli *cli, struct rf_index_options *options,
                                 struct rf_index **out, struct rf_error *err)
{
    uint64_t wait_s = rf_args_number(&cli->args, "wait");
    enum rf_status status = rf_index_open(out, options, err);

    if (status != RF_LOCKED)
        return status;
    if (wait_s == 0) {
        rf_say(cli, "'--wait SECONDS' waits for the other process");
        return status;
    }
    rf_say(cli, "%s; waiting up to %llu s", err->message, (unsigned long long)wait_s);
    rf_error_clear(err);
    options->lock_timeout_ms = wait_s > INT32_MAX / 1000 ? INT32_MAX : (int)wait_s * 1000;
    return rf_index_open(out, options, err);
}

static int run_index(struct rf_cli *cli, const struct rf_index_home *home, bool follow,
                     bool rebuild)
{
    struct rf_index_progress totals = {0};
    struct rf_index_options options;
    struct rf_index *index = NULL;
    struct rf_error err = {0};
    enum rf_status status;
    struct rf_sink_counts counts;
    struct left left = {0};
    size_t mapper_count;
    char **mappers = rf_mapper_paths(cli, &mapper_count);
    bool opened;

    fill_options(&options, cli, home, mappers, mapper_count);
    options.rebuild = rebuild;
    status = open_index(cli, &options, &index, &err);
    opened = status == RF_OK;
    if (opened) {
        rf_stop_call(stop_index, index);
        status = rf_index_run(index, follow, &err);
        rf_stop_call(NULL, NULL);
        rf_index_totals(index, &totals);
        left.broken = rf_index_broken(index);
        rf_progress_clear(cli);
        if (status == RF_OK)
            left.stopped = tell_stopped(cli, index, home->name);
    }
    rf_index_close(index);
    rf_names_free(mappers, mapper_count);
    if (status == RF_OK || (status == RF_CANCELLED && rf_stop_asked())) {
        write_metadata(cli, home);
        rf_index_home_counts(home, &counts);
        left.set_aside = counts.dead_letters;
        left.waiting = counts.parked_need;
        left.early = status == RF_CANCELLED;
        return tell_totals(cli, home, &totals, &left);
    }
    if (status == RF_DENIED && opened) /* another writer came first */
        return rf_fail(cli, &err), RF_EXIT_LOCKED;
    return rf_fail(cli, &err);
}

/* True when the index is paused; that was told. */
static bool tell_paused(struct rf_cli *cli, const struct rf_index_home *index)
{
    struct rf_sink_options options = {0};
    struct rf_sink *sink;
    bool paused = false;

    if (index->exists && rf_sink_open(&sink, index->url, &options, NULL) == RF_OK) {
        paused = rf_sink_paused(sink);
        rf_sink_close(sink);
    }
    if (paused)
        rf_say(cli, "index '%s' is paused; 'refuge index resume %s' lets it run", index->name,
               index->name);
    return paused;
}

static int run_unless_paused(struct rf_cli *cli, bool follow, bool rebuild)
{
    const char *name = cli->args.word_count ? cli->args.words[0] : NULL;
    struct rf_index_home index;
    int code = RF_EXIT_OK;

    if (rf_index_home_init(&index, cli, name, false, &code)) {
        if (tell_paused(cli, &index))
            rf_summary_text(cli, "state", "paused");
        else
            code = run_index(cli, &index, follow, rebuild);
    }
    rf_index_home_release(&index);
    return code;
}

int cmd_index_run(struct rf_cli *cli)
{
    return run_unless_paused(cli, rf_args_flag(&cli->args, "follow"), false);
}

int cmd_index_rebuild(struct rf_cli *cli)
{
    return run_unless_paused(cli, false, true);
}

/* ---- verify ---- */

static int verify_index(struct rf_cli *cli, const struct rf_index_home *home)
{
    struct rf_compare_report report = {0};
    struct rf_index_options options;
    struct rf_error err = {0};
    enum rf_status status;
    size_t mapper_count;
    char **mappers = rf_mapper_paths(cli, &mapper_count);
    const char *scratch = getenv("TMPDIR");

    fill_options(&options, cli, home, mappers, mapper_count);
    options.scratch_dir = scratch && scratch[0] ? scratch : "/tmp";
    status = rf_index_verify(&options, show_problem, &report, &err);
    rf_names_free(mappers, mapper_count);
    rf_progress_clear(cli);
    rf_summary_text(cli, "index", home->name);
    rf_summary_int(cli, "tables", (int64_t)report.tables);
    rf_summary_int(cli, "rows", (int64_t)report.rows);
    rf_summary_int(cli, "differences", (int64_t)report.differences);
    rf_summary_int(cli, "limit_letters", (int64_t)report.limit_letters);
    rf_summary_int(cli, "parked", (int64_t)report.parked);
    if (status == RF_OK || status == RF_CORRUPT)
        rf_out_printf(cli, "%s, %s compared: %s\n", RF_COUNT(report.tables, "table"),
                      RF_COUNT(report.rows, "row"), RF_COUNT(report.differences, "difference"));
    if (report.limit_letters)
        rf_out_printf(cli, "left out: %s of class limit\n",
                      RF_COUNT(report.limit_letters, "dead letter"));
    if (report.parked)
        rf_out_printf(cli, "left out: %s for the slow lane, here or in the rebuild\n",
                      RF_COUNT(report.parked, "park"));
    return status ? rf_fail(cli, &err) : RF_EXIT_OK;
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

static int set_paused(struct rf_cli *cli, const struct rf_index_home *index, bool paused)
{
    struct rf_error err = {0};
    enum rf_status status;
    char time[RF_TIME_TEXT_SIZE];
    struct rf_sink *sink;
    bool before;
    int code;

    sink = rf_index_home_sink(cli, index, true, &code);
    if (!sink) {
        if (code == RF_EXIT_LOCKED)
            rf_say(cli, "a run holds the index; stop it (SIGTERM ends it after the batch at hand), "
                        "then try again");
        return code;
    }
    before = rf_sink_paused(sink);
    rf_time_format(rf_now_us(), time);
    status =
        before == paused ? RF_OK : rf_sink_set_fact(sink, "paused", paused ? time : NULL, &err);
    rf_sink_close(sink);
    if (status)
        return rf_fail(cli, &err);
    rf_summary_text(cli, "index", index->name);
    rf_summary_text(cli, "state", paused ? "paused" : "ready");
    rf_say(cli, "index '%s' is %s%s", index->name, before == paused ? "already " : "",
           paused ? "paused" : before ? "ready to run again" : "not paused");
    return RF_EXIT_OK;
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

/* ---- list and drop ---- */

int cmd_index_list(struct rf_cli *cli)
{
    size_t count;
    char **names = rf_index_names(cli, &count);

    for (size_t i = 0; i < count; i++) {
        char *stem = rf_path_join(cli->home.index_dir, names[i]);
        char *path = rf_text_join(stem, ".db", ""), size[RF_SIZE_TEXT];
        struct stat st = {0};

        if (stat(path, &st) == 0) {
            rf_out_printf(cli, "%-16s %9s  %s\n", names[i],
                          rf_size_format((uint64_t)st.st_size, size), path);
            rf_out_begin(&cli->out, "item");
            rf_out_text(&cli->out, "index", names[i]);
            rf_out_int(&cli->out, "bytes", st.st_size);
            rf_out_text(&cli->out, "path", path);
            rf_out_end(&cli->out);
        }
        free(path);
        free(stem);
    }
    if (count == 0)
        rf_say(cli, "there is no index yet; 'refuge index run' makes index '" RF_INDEX_DEFAULT "'");
    rf_summary_int(cli, "indexes", (int64_t)count);
    rf_names_free(names, count);
    return RF_EXIT_OK;
}

static int drop_index(struct rf_cli *cli, const struct rf_index_home *index)
{
    struct rf_sink_options how = {.write = true};
    struct rf_error err = {0};
    struct rf_sink *sink = NULL;
    int code;

    if (rf_args_flag(&cli->args, "dry-run")) {
        rf_say(cli, "would remove '%s'", index->path);
        return RF_EXIT_OK;
    }
    if (rf_sink_open(&sink, index->url, &how, &err) == RF_CORRUPT) {
        rf_say(cli, "%s", err.message); /* what cannot be read may go all the same */
        rf_error_clear(&err);
    } else {
        rf_sink_close(sink);
        rf_error_clear(&err);
        sink = rf_index_home_sink(cli, index, true, &code); /* its lock: nobody writes it */
        if (!sink)
            return code;
        rf_sink_close(sink);
    }
    (void)unlink(index->metadata_path);
    if (rf_sink_erase(index->url, &err))
        return rf_fail(cli, &err);
    rf_say(cli, "index '%s' is removed", index->name);
    return RF_EXIT_OK;
}

int cmd_index_drop(struct rf_cli *cli)
{
    struct rf_index_home index;
    int code = RF_EXIT_OK;

    if (rf_index_home_init(&index, cli, cli->args.words[0], true, &code))
        code = drop_index(cli, &index);
    rf_summary_text(cli, "index", cli->args.words[0]);
    rf_index_home_release(&index);
    return code;
}
