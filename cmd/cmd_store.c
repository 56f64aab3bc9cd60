/*
 * cmd_store.c - refuge store verify, info and compact
 */
#include "cmd/cli.h"

static void tell_problem(void *user, const char *line)
{
    struct rf_cli *cli = user;

    rf_out_word(cli, rf_bytes_text(line));
    rf_out_printf(cli, "\n");
    rf_out_begin(&cli->out, "problem");
    rf_out_text(&cli->out, "message", line);
    rf_out_end(&cli->out);
}

static void show_progress(void *user, uint64_t done, uint64_t total)
{
    struct rf_progress progress = {.noun = "change", .done = done, .total = total};

    rf_progress_show(user, &progress);
}

int cmd_store_verify(struct rf_cli *cli)
{
    bool repair = rf_args_flag(&cli->args, "repair");
    struct rf_verify_report report = {0};
    struct rf_error err = {0};
    struct rf_store *store;
    enum rf_status status;
    char size[RF_SIZE_TEXT];
    int code;

    store = rf_home_store(cli, repair ? RF_STORE_WRITE : RF_STORE_READ, &code);
    if (!store)
        return code;
    status = rf_store_verify(store, &report, tell_problem, show_progress, cli, &err);
    rf_store_close(store);
    rf_progress_clear(cli);
    rf_summary_int(cli, "changes", (int64_t)report.changes);
    rf_summary_int(cli, "blobs", (int64_t)report.blobs);
    rf_summary_int(cli, "bytes", (int64_t)report.bytes);
    rf_summary_int(cli, "corrupt", (int64_t)report.corrupt);
    rf_summary_int(cli, "missing", (int64_t)report.missing);
    rf_summary_int(cli, "flaws", (int64_t)report.flaws);
    rf_summary_int(cli, "bad_runs", (int64_t)report.bad_runs);
    rf_summary_int(cli, "rebuilt", (int64_t)report.rebuilt);
    rf_summary_int(cli, "removed", (int64_t)report.removed);
    rf_out_printf(cli, "%s, %s, %s read: %llu corrupt, %llu missing",
                  RF_COUNT(report.changes, "change"), RF_COUNT(report.blobs, "blob"),
                  rf_size_format(report.bytes, size), (unsigned long long)report.corrupt,
                  (unsigned long long)report.missing);
    if (report.flaws)
        rf_out_printf(cli, ", %s of which no blob suffers", RF_COUNT(report.flaws, "flaw"));
    if (report.bad_runs)
        rf_out_printf(cli, ", %s that the next writer makes again",
                      RF_COUNT(report.bad_runs, "lookup run"));
    if (repair)
        rf_out_printf(cli, ", %s made again, %s removed", RF_COUNT(report.rebuilt, "lookup run"),
                      RF_COUNT(report.removed, "stray file"));
    rf_out_printf(cli, "\n");
    return status ? rf_fail(cli, &err) : RF_EXIT_OK;
}

int cmd_store_info(struct rf_cli *cli)
{
    struct rf_store_info info;
    struct rf_error err = {0};
    struct rf_store *store;
    enum rf_status status;
    char bytes[RF_SIZE_TEXT], disk[RF_SIZE_TEXT];
    int code;

    store = rf_home_store(cli, RF_STORE_READ, &code);
    if (!store)
        return code;
    status = rf_store_info(store, &info, &err);
    rf_store_close(store);
    if (status)
        return rf_fail(cli, &err);
    rf_out_printf(cli, "store       %s\nuuid        %s\ngeneration  %u\nchanges     %llu to %llu\n"
                       "blobs       %llu, %s\non disk     %s\n",
                  cli->home.store_url, info.uuid, info.generation,
                  (unsigned long long)info.oldest_seq, (unsigned long long)info.next_seq - 1,
                  (unsigned long long)info.blobs, rf_size_format(info.bytes, bytes),
                  rf_size_format(info.disk_bytes, disk));
    rf_summary_text(cli, "url", cli->home.store_url);
    rf_summary_text(cli, "uuid", info.uuid);
    rf_summary_int(cli, "generation", info.generation);
    rf_summary_int(cli, "oldest_seq", (int64_t)info.oldest_seq);
    rf_summary_int(cli, "next_seq", (int64_t)info.next_seq);
    rf_summary_int(cli, "blobs", (int64_t)info.blobs);
    rf_summary_int(cli, "bytes", (int64_t)info.bytes);
    rf_summary_int(cli, "disk_bytes", (int64_t)info.disk_bytes);
    return RF_EXIT_OK;
}

int cmd_store_compact(struct rf_cli *cli)
{
    struct rf_error err = {0};
    struct rf_store *store;
    enum rf_status status;
    uint64_t freed = 0;
    char size[RF_SIZE_TEXT];
    int code;

    store = rf_home_store(cli, RF_STORE_WRITE, &code);
    if (!store)
        return code;
    status = rf_store_compact(store, &freed, &err);
    rf_store_close(store);
    if (status)
        return rf_fail(cli, &err);
    rf_summary_int(cli, "freed", (int64_t)freed);
    rf_out_printf(cli, "%s freed\n", rf_size_format(freed, size));
    return RF_EXIT_OK;
}
