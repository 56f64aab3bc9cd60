/*
 * cmd_changes.c - refuge changes: the change queue, from any position, also while others write
 */
#include <string.h>

#include "cmd/cli.h"
#include "core/row.h"

static const char *change_word(const struct rf_change *change)
{
    if (change->is_delete)
        return "delete";
    if (change->gone)
        return "gone";
    if (change->lift)
        return "lift";
    return change->part ? "part" : "put";
}

static void print_change(struct rf_cli *cli, const struct rf_change *change)
{
    char cursor[RF_CURSOR_SIZE], time[RF_TIME_TEXT_SIZE], ref[RF_BLOBREF_SIZE];

    rf_cursor_format(&change->cursor, cursor);
    rf_time_format(change->timestamp_us, time);
    rf_blobref_format(&change->ref, ref);
    rf_out_printf(cli, "%-24s  %s  %-6s  %s  %llu\n", cursor, time, change_word(change), ref,
                  (unsigned long long)change->size);
    rf_out_begin(&cli->out, "change");
    rf_out_text(&cli->out, "cursor", cursor);
    rf_out_int(&cli->out, "seq", (int64_t)change->seq);
    rf_out_text(&cli->out, "time", time);
    rf_out_text(&cli->out, "op", change_word(change));
    rf_out_text(&cli->out, "ref", ref);
    rf_out_int(&cli->out, "size", (int64_t)change->size);
    rf_out_int(&cli->out, "life", change->life);
    rf_out_bool(&cli->out, "part", change->part);
    rf_out_end(&cli->out);
}

/* Where to begin: CURSOR, 0 or now. */
static enum rf_status find_start(struct rf_store *store, const char *since,
                                 struct rf_cursor *cursor, bool *oldest, struct rf_error *err)
{
    struct rf_store_info info;
    enum rf_status status;

    *oldest = strcmp(since, "0") == 0;
    if (*oldest)
        return RF_OK;
    if (strcmp(since, "now") != 0)
        return rf_cursor_parse(cursor, since, err);
    status = rf_store_info(store, &info, err);
    if (status)
        return status;
    *cursor = (struct rf_cursor){.generation = info.generation, .seq = info.next_seq - 1};
    return RF_OK;
}

static void cancel(void *user)
{
    rf_feed_cancel(user);
}

static enum rf_status print_feed(struct rf_cli *cli, struct rf_feed *feed, uint64_t *count,
                                 uint64_t *corrupt, struct rf_error *err)
{
    bool follow = rf_args_flag(&cli->args, "follow");
    uint64_t limit = rf_args_number(&cli->args, "limit");
    enum rf_status status = RF_OK;
    struct rf_change change;

    while (!cli->out.closed && (limit == 0 || *count < limit)) {
        status = rf_feed_next(feed, &change, 0, err);
        if (status == RF_TIMEOUT && follow) {
            rf_error_clear(err);
            fflush(cli->out.file); /* what a follower has seen must not wait in a buffer */
            status = rf_feed_next(feed, &change, -1, err);
        }
        if (status == RF_CORRUPT) {
            (void)rf_fail(cli, err);
            rf_error_clear(err);
            ++*corrupt;
            continue;
        }
        if (status)
            break;
        print_change(cli, &change);
        ++*count;
    }
    return status == RF_TIMEOUT ? RF_OK : status;
}

static int run(struct rf_cli *cli, struct rf_store *store)
{
    struct rf_cursor cursor = {0};
    struct rf_feed *feed = NULL;
    struct rf_error err = {0};
    enum rf_status status;
    uint64_t count = 0, corrupt = 0;
    char text[RF_CURSOR_SIZE];
    bool oldest = false;

    if (find_start(store, rf_args_text(&cli->args, "since"), &cursor, &oldest, &err))
        return rf_fail_argument(cli, &err);
    status = rf_feed_open(&feed, store, oldest ? NULL : &cursor, &err);
    if (status != RF_OK)
        return rf_fail(cli, &err);
    rf_stop_call(cancel, feed);
    status = print_feed(cli, feed, &count, &corrupt, &err);
    rf_stop_call(NULL, NULL);
    rf_feed_cursor(feed, &cursor);
    rf_feed_close(feed);
    rf_cursor_format(&cursor, text);
    rf_summary_int(cli, "changes", (int64_t)count);
    rf_summary_int(cli, "corrupt", (int64_t)corrupt);
    rf_summary_text(cli, "cursor", text);
    if (rf_stop_asked())
        return RF_EXIT_STOPPED;
    return status ? rf_fail(cli, &err) : corrupt ? RF_EXIT_FAILED : RF_EXIT_OK;
}

int cmd_changes(struct rf_cli *cli)
{
    struct rf_store *store;
    int code;

    store = rf_home_store(cli, RF_STORE_READ, &code);
    if (!store)
        return code;
    code = run(cli, store);
    rf_store_close(store);
    return code;
}
