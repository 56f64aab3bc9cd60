/*
 * cmd_index_wait.c - refuge index wait: come back when an index has reached a change
 *
 * The index is only looked at, by asking its sink how far the live lane is and who writes it, so a
 * sink at the other end of a wire will do; the time between two looks grows to LOOK_MOST_MS. Who
 * writes is asked before how far it is: a run that ends between the two has its last batch seen.
 * A follower lets go of the index for a moment when mapper files change, and a run takes a moment
 * to start: that nobody writes counts after NOBODY_MS.
 */
#include <poll.h>
#include <string.h>

#include "cmd/index_home.h"

#define LOOK_FIRST_MS 5
#define LOOK_MOST_MS 200
#define NOBODY_MS 1000

struct wait {
    struct rf_cli *cli;
    const struct rf_index_home *index;
    struct rf_sink *sink;
    uint32_t generation; /* of the store */
    uint64_t seq, newest; /* the change to reach; the newest of the store */
    int64_t until_us;    /* INT64_MAX: as long as somebody writes */
    uint64_t at;         /* the change reached so far */
    char writer[RF_ERROR_SIZE];  /* who writes, in words; "": nobody */
    char told[RF_ERROR_SIZE];    /* the writer that was told last */
    int64_t nobody_us;   /* since when; 0: somebody writes */
};

/* ---- one look ---- */

static enum rf_status look_for_writer(struct wait *wait, struct rf_error *err)
{
    struct rf_error who = {0};
    enum rf_status status = rf_sink_writer(wait->sink, &who);

    if (status != RF_OK && status != RF_LOCKED)
        return rf_error_set(err, status, "%s", who.message);
    snprintf(wait->writer, sizeof wait->writer, "%s", status == RF_LOCKED ? who.message : "");
    if (wait->writer[0])
        wait->nobody_us = 0;
    else if (wait->nobody_us == 0)
        wait->nobody_us = rf_clock_us();
    return RF_OK;
}

/* A position of another generation of the store is no place in this one. */
static enum rf_status look_how_far(struct wait *wait, struct rf_error *err)
{
    struct rf_sink_lane *lanes;
    struct rf_cursor cursor;
    struct rf_arena arena;
    size_t count = 0;
    enum rf_status status;

    rf_arena_init(&arena, (size_t)256 << 20);
    status = rf_sink_lanes(wait->sink, &arena, &lanes, &count, err);
    wait->at = 0;
    if (status == RF_OK && count && lanes[0].live && lanes[0].position[0] &&
        rf_cursor_parse(&cursor, lanes[0].position, NULL) == RF_OK &&
        cursor.generation == wait->generation)
        wait->at = cursor.seq;
    rf_arena_release(&arena);
    return status;
}

static void show(struct wait *wait)
{
    struct rf_progress shown = {.noun = "change", .done = wait->at, .total = wait->seq};

    if (wait->writer[0] && strcmp(wait->writer, wait->told) != 0) {
        rf_say(wait->cli, "%s; waiting for change %llu, it is at %llu", wait->writer,
               (unsigned long long)wait->seq, (unsigned long long)wait->at);
        snprintf(wait->told, sizeof wait->told, "%s", wait->writer);
    }
    rf_progress_show(wait->cli, &shown);
}

/* ---- waiting ---- */

enum ending { ENDING_NONE, ENDING_REACHED, ENDING_STOPPED, ENDING_PAUSED, ENDING_NOBODY,
              ENDING_TIMEOUT };

static enum ending ending_of(const struct wait *wait)
{
    int64_t now = rf_clock_us();
    bool late = now >= wait->until_us;

    if (wait->at >= wait->seq)
        return ENDING_REACHED;
    if (rf_stop_asked())
        return ENDING_STOPPED;
    if (!wait->writer[0] && rf_index_paused(wait->index))
        return ENDING_PAUSED;
    if (!wait->writer[0] && (late || now - wait->nobody_us >= NOBODY_MS * 1000))
        return ENDING_NOBODY;
    return late ? ENDING_TIMEOUT : ENDING_NONE;
}

static void pause_ms(const struct wait *wait, int ms)
{
    int64_t left_ms = (wait->until_us - rf_clock_us()) / 1000 + 1;

    (void)poll(NULL, 0, left_ms < 0 ? 0 : left_ms < ms ? (int)left_ms : ms);
}

static enum rf_status look_until(struct wait *wait, enum ending *ending, struct rf_error *err)
{
    enum rf_status status;
    int ms = LOOK_FIRST_MS;

    for (;;) {
        status = look_for_writer(wait, err);
        if (status == RF_OK)
            status = look_how_far(wait, err);
        if (status != RF_OK)
            return status;
        *ending = ending_of(wait);
        if (*ending != ENDING_NONE)
            return RF_OK;
        show(wait);
        pause_ms(wait, ms);
        ms = ms * 2 < LOOK_MOST_MS ? ms * 2 : LOOK_MOST_MS;
    }
}

/* ---- the command ---- */

static int tell(struct wait *wait, enum ending ending)
{
    static const char *const states[] = {
        [ENDING_NONE] = "", [ENDING_REACHED] = "reached", [ENDING_STOPPED] = "stopped",
        [ENDING_PAUSED] = "paused", [ENDING_NOBODY] = "nobody", [ENDING_TIMEOUT] = "timeout"};
    const char *name = wait->index->name, *argument = wait->index->argument;
    unsigned long long seq = wait->seq, at = wait->at;
    struct rf_cli *cli = wait->cli;

    rf_summary_text(cli, "index", name);
    rf_summary_text(cli, "state", states[ending]);
    rf_summary_int(cli, "seq", (int64_t)seq);
    rf_summary_int(cli, "at", (int64_t)at);
    rf_summary_text(cli, "writer", wait->writer[0] ? wait->writer : NULL);
    switch (ending) {
    case ENDING_REACHED:
        rf_say(cli, "index '%s' is at change %llu", name, at);
        return RF_EXIT_OK;
    case ENDING_STOPPED:
        rf_say(cli, "stopped; index '%s' is at change %llu of %llu", name, at, seq);
        return RF_EXIT_STOPPED;
    case ENDING_PAUSED:
        return rf_fail_with(cli, RF_EXIT_FAILED,
                            "index '%s' will not reach change %llu: it is paused at change %llu; "
                            "'refuge index resume%s' lets it run",
                            name, seq, at, argument);
    case ENDING_NOBODY:
        if (seq > wait->newest)
            return rf_fail_with(cli, RF_EXIT_FAILED,
                                "index '%s' will not reach change %llu: nobody writes it, and the "
                                "store has %llu changes so far",
                                name, seq, (unsigned long long)wait->newest);
        return rf_fail_with(cli, RF_EXIT_FAILED,
                            "index '%s' will not reach change %llu: nobody writes it and it is at "
                            "change %llu; 'refuge index run%s' brings it up to date",
                            name, seq, at, argument);
    default:
        return rf_fail_with(cli, RF_EXIT_FAILED,
                            "index '%s' did not reach change %llu in %llu s: it is at change %llu",
                            name, seq,
                            (unsigned long long)rf_args_number(&cli->args, "timeout"), at);
    }
}

/* What is to be reached, as the store and the options say. */
static bool init_wait(struct wait *wait, int *code)
{
    struct rf_cli *cli = wait->cli;
    struct rf_store *store = rf_home_store(cli, RF_STORE_READ, code);
    uint64_t timeout_s = rf_args_number(&cli->args, "timeout");
    struct rf_store_info info;
    struct rf_error err = {0};

    if (!store)
        return false;
    if (rf_store_info(store, &info, &err)) {
        *code = rf_fail(cli, &err);
    } else {
        wait->generation = info.generation;
        wait->newest = info.next_seq - 1;
        wait->seq = rf_args_text(&cli->args, "seq") ? rf_args_number(&cli->args, "seq")
                                                    : wait->newest;
        wait->until_us = INT64_MAX;
        if (rf_args_text(&cli->args, "timeout") && timeout_s < INT32_MAX)
            wait->until_us = rf_clock_us() + (int64_t)timeout_s * 1000000;
    }
    rf_store_close(store);
    return *code == RF_EXIT_OK;
}

static int wait_for_index(struct wait *wait)
{
    enum ending ending = ENDING_NONE;
    struct rf_error err = {0};
    int code = RF_EXIT_OK;

    if (!init_wait(wait, &code))
        return code;
    wait->sink = rf_index_home_sink(wait->cli, wait->index, false, &code);
    if (!wait->sink)
        return code;
    if (look_until(wait, &ending, &err)) {
        code = rf_fail(wait->cli, &err);
    } else {
        rf_progress_clear(wait->cli);
        code = tell(wait, ending);
    }
    rf_sink_close(wait->sink);
    return code;
}

int cmd_index_wait(struct rf_cli *cli)
{
    struct rf_index_home index;
    struct wait wait = {.cli = cli, .index = &index};
    int code = RF_EXIT_OK;

    if (rf_index_home_init(&index, cli, cli->args.word_count ? cli->args.words[0] : NULL, true,
                           &code))
        code = wait_for_index(&wait);
    rf_index_home_release(&index);
    return code;
}
