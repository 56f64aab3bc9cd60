/*
 * cmd_store.c - refuge store verify, info and compact
 */
#include "backup/schema.h"
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

/* ---- files without their content ---- */

struct holes {
    struct rf_cli *cli;
    struct rf_store *store;
    uint64_t files;
    struct rf_error err;
};

static void tell_hole(struct holes *holes, const struct rf_file *file,
                      const struct rf_blobref *ref, const struct rf_blobref *part)
{
    char whole[RF_BLOBREF_SIZE], missing[RF_BLOBREF_SIZE];
    struct rf_buf line;

    rf_blobref_format(ref, whole);
    rf_blobref_format(part, missing);
    rf_buf_init(&line, 1 << 20);
    rf_buf_printf(&line, "file '%.*s' (%s): its content %s is not in the store",
                  (int)file->name.size, (const char *)file->name.data, whole, missing);
    rf_buf_put_text(&line, "");
    tell_problem(holes->cli, rf_buf_text(&line));
    rf_buf_release(&line);
    holes->files++;
}

/* A file blob whose content was deleted is sound as a blob, and of no use. */
static enum rf_status look_for_hole(void *user, const struct rf_stat *stat)
{
    enum rf_schema_kind kind = RF_SCHEMA_NONE;
    struct holes *holes = user;
    struct rf_file file = {0};
    struct rf_arena arena;
    struct rf_stat part;
    struct rf_buf buf;

    if (rf_stop_asked())
        return RF_CANCELLED;
    if (stat->part || stat->size > RF_BLOB_INLINE_MAX)
        return RF_OK;
    rf_arena_init(&arena, (size_t)64 << 20);
    rf_buf_init(&buf, RF_BLOB_INLINE_MAX);
    if (rf_store_get(holes->store, &stat->ref, &buf, NULL) == RF_OK &&
        rf_schema_is(rf_buf_bytes(&buf)) &&
        rf_schema_parse(&kind, &file, &arena, rf_buf_bytes(&buf), NULL) == RF_OK &&
        kind == RF_SCHEMA_FILE) {
        for (size_t i = 0; i < file.part_count; i++) {
            if (rf_store_stat(holes->store, &file.parts[i].ref, &part, NULL) != RF_NOT_FOUND)
                continue;
            tell_hole(holes, &file, &stat->ref, &file.parts[i].ref);
            break;
        }
    }
    rf_buf_release(&buf);
    rf_arena_release(&arena);
    return RF_OK;
}

int cmd_store_verify(struct rf_cli *cli)
{
    bool repair = rf_args_flag(&cli->args, "repair");
    struct rf_verify_report report = {0};
    struct holes holes = {.cli = cli};
    struct rf_error err = {0};
    struct rf_store *store;
    enum rf_status status;
    char size[RF_SIZE_TEXT];
    int code;

    store = rf_home_store(cli, repair ? RF_STORE_WRITE : RF_STORE_READ, &code);
    if (!store)
        return code;
    status = rf_store_verify(store, &report, tell_problem, show_progress, cli, &err);
    holes.store = store;
    if (status == RF_OK || status == RF_CORRUPT) {
        enum rf_status listed = rf_store_list(store, NULL, look_for_hole, &holes, &holes.err);

        if (status == RF_OK && listed != RF_OK && listed != RF_END) {
            err = holes.err;
            status = listed;
        }
    }
    rf_store_close(store);
    rf_progress_clear(cli);
    rf_summary_int(cli, "files_without_content", (int64_t)holes.files);
    rf_summary_int(cli, "changes", (int64_t)report.changes);
    rf_summary_int(cli, "blobs", (int64_t)report.blobs);
    rf_summary_int(cli, "bytes", (int64_t)report.bytes);
    rf_summary_int(cli, "corrupt", (int64_t)report.corrupt);
    rf_summary_int(cli, "missing", (int64_t)report.missing);
    rf_summary_int(cli, "flaws", (int64_t)report.flaws);
    rf_summary_int(cli, "bad_runs", (int64_t)report.bad_runs);
    rf_summary_int(cli, "tail", (int64_t)report.tail);
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
    if (report.tail)
        rf_out_printf(cli, ", %s in no lookup run, which the next writer makes",
                      RF_COUNT(report.tail, "change"));
    if (repair)
        rf_out_printf(cli, ", %s made again, %s removed", RF_COUNT(report.rebuilt, "lookup run"),
                      RF_COUNT(report.removed, "stray file"));
    if (holes.files)
        rf_out_printf(cli, ", %s without content", RF_COUNT(holes.files, "file"));
    rf_out_printf(cli, "\n");
    if (status == RF_CANCELLED && rf_stop_asked())
        return RF_EXIT_STOPPED;
    if (status)
        return rf_fail(cli, &err);
    if (holes.files)
        return rf_fail_with(cli, RF_EXIT_FAILED,
                            "%s lost content that was deleted: put %s again, or delete %s",
                            RF_COUNT(holes.files, "file"), holes.files == 1 ? "it" : "them",
                            holes.files == 1 ? "it" : "them");
    return RF_EXIT_OK;
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
