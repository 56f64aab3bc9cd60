/*
 * cmd_ls.c - refuge ls and refuge stat: which blobs there are, and what is known of one
 */
#include <string.h>

#include "backup/schema.h"
#include "cmd/cli.h"
#include "core/row.h"

struct listing {
    struct rf_cli *cli;
    bool details, items;
    uint8_t prefix[RF_DIGEST_SIZE];
    size_t digits;
    uint64_t limit, count, bytes;
};

static void print_stat(struct listing *list, const struct rf_stat *stat)
{
    struct rf_cli *cli = list->cli;
    char ref[RF_BLOBREF_SIZE], time[RF_TIME_TEXT_SIZE];

    rf_blobref_format(&stat->ref, ref);
    rf_time_format(stat->timestamp_us, time);
    if (list->details)
        rf_out_printf(cli, "%s %12llu  %s  %s\n", ref, (unsigned long long)stat->size, time,
                      stat->part ? "part" : "item");
    else
        rf_out_printf(cli, "%s\n", ref);
    rf_out_begin(&cli->out, "item");
    rf_out_text(&cli->out, "ref", ref);
    rf_out_int(&cli->out, "size", (int64_t)stat->size);
    rf_out_int(&cli->out, "seq", (int64_t)stat->seq);
    rf_out_time(&cli->out, "time", stat->timestamp_us);
    rf_out_bool(&cli->out, "part", stat->part);
    rf_out_end(&cli->out);
}

static enum rf_status visit_blob(void *user, const struct rf_stat *stat)
{
    struct listing *list = user;

    if (!rf_prefix_matches(&stat->ref, list->prefix, list->digits))
        return RF_END;
    if (list->items && stat->part)
        return RF_OK;
    print_stat(list, stat);
    list->count++;
    list->bytes += stat->size;
    if (rf_stop_asked() || list->cli->out.closed)
        return RF_CANCELLED;
    return list->limit && list->count == list->limit ? RF_END : RF_OK;
}

int cmd_ls(struct rf_cli *cli)
{
    struct listing list = {.cli = cli, .details = rf_args_flag(&cli->args, "long"),
                           .items = rf_args_flag(&cli->args, "items"),
                           .limit = rf_args_number(&cli->args, "limit")};
    const char *prefix = rf_args_text(&cli->args, "prefix");
    struct rf_error err = {0};
    struct rf_blobref after;
    struct rf_store *store;
    enum rf_status status;
    int code;

    if (prefix && !rf_prefix_parse(prefix, list.prefix, &list.digits))
        return rf_fail_with(cli, RF_EXIT_USAGE,
                            "option '--prefix' needs the beginning of a blobref, "
                            "not '%s'",
                            prefix);
    store = rf_home_store(cli, RF_STORE_READ, &code);
    if (!store)
        return code;
    status = rf_store_list(store, rf_prefix_before(list.prefix, &after) ? &after : NULL, visit_blob,
                           &list, &err);
    rf_store_close(store);
    rf_summary_int(cli, "blobs", (int64_t)list.count);
    rf_summary_int(cli, "bytes", (int64_t)list.bytes);
    if (rf_stop_asked())
        return RF_EXIT_STOPPED;
    return status == RF_OK || status == RF_END || status == RF_CANCELLED ? RF_EXIT_OK
                                                                         : rf_fail(cli, &err);
}

/* ---- stat ---- */

static void print_file(struct rf_cli *cli, const struct rf_file *file)
{
    char time[RF_TIME_TEXT_SIZE] = "", ref[RF_BLOBREF_SIZE];
    int64_t us = file->mtime_ns / 1000 - (file->mtime_ns % 1000 < 0);
    bool known = us >= RF_TIME_MIN && us <= RF_TIME_MAX;

    if (known)
        rf_time_format(us, time);
    rf_out_printf(cli, "  file     ");
    rf_out_word(cli, file->name);
    rf_out_printf(cli, "\n  content  %s in %s\n  modified %s\n  mode     %04o\n",
                  RF_COUNT(file->size, "byte"), RF_COUNT(file->part_count, "part"),
                  known ? time : "unknown", file->mode & 07777);
    rf_out_name(&cli->out, file->name);
    rf_out_int(&cli->out, "content_size", (int64_t)file->size);
    rf_out_int(&cli->out, "parts", (int64_t)file->part_count);
    if (file->part_count == 1) {
        rf_blobref_format(&file->parts[0].ref, ref);
        rf_out_printf(cli, "  part     %s\n", ref);
        rf_out_text(&cli->out, "content_ref", ref);
    }
    rf_out_time(&cli->out, "mtime", us);
    rf_out_int(&cli->out, "mode", file->mode);
}

/* What a blob is: its schema kind, read only when it can be one. */
static enum rf_status describe(struct rf_cli *cli, struct rf_store *store,
                               const struct rf_stat *stat, struct rf_error *err)
{
    enum rf_schema_kind kind = RF_SCHEMA_NONE;
    struct rf_error broken = {0};
    struct rf_file file = {0};
    struct rf_arena arena;
    struct rf_buf buf;
    enum rf_status status = RF_OK;

    rf_arena_init(&arena, (size_t)64 << 20);
    rf_buf_init(&buf, RF_BLOB_INLINE_MAX);
    if (stat->size <= RF_BLOB_INLINE_MAX)
        status = rf_store_get(store, &stat->ref, &buf, err);
    if (status == RF_OK && rf_schema_is(rf_buf_bytes(&buf))) {
        if (rf_schema_parse(&kind, &file, &arena, rf_buf_bytes(&buf), &broken)) {
            rf_out_printf(cli, "  schema   broken: %s\n", broken.message);
            rf_out_text(&cli->out, "schema_error", broken.message);
        } else {
            rf_out_text(&cli->out, "kind", kind == RF_SCHEMA_FILE ? "file"
                        : kind == RF_SCHEMA_TREE ? "tree" : "ref");
            if (kind == RF_SCHEMA_FILE)
                print_file(cli, &file);
        }
    } else {
        rf_out_text(&cli->out, "kind", stat->part ? "part" : "blob");
    }
    rf_buf_release(&buf);
    rf_arena_release(&arena);
    return status;
}

static enum rf_status stat_one(struct rf_cli *cli, struct rf_store *store,
                               const struct rf_blobref *ref, struct rf_error *err)
{
    char text[RF_BLOBREF_SIZE], time[RF_TIME_TEXT_SIZE], size[RF_SIZE_TEXT];
    struct rf_stat stat;
    enum rf_status status = rf_store_stat(store, ref, &stat, err);

    if (status)
        return status;
    rf_blobref_format(ref, text);
    rf_time_format(stat.timestamp_us, time);
    rf_out_printf(cli, "%s\n  size     %s (%s)\n  stored   %s, change %llu%s\n", text,
                  RF_COUNT(stat.size, "byte"), rf_size_format(stat.size, size), time,
                  (unsigned long long)stat.seq, stat.part ? ", part of a file" : "");
    rf_out_begin(&cli->out, "item");
    rf_out_text(&cli->out, "ref", text);
    rf_out_int(&cli->out, "size", (int64_t)stat.size);
    rf_out_int(&cli->out, "seq", (int64_t)stat.seq);
    rf_out_time(&cli->out, "time", stat.timestamp_us);
    rf_out_int(&cli->out, "life", stat.life);
    rf_out_bool(&cli->out, "part", stat.part);
    status = describe(cli, store, &stat, err);
    rf_out_end(&cli->out);
    return status;
}

int cmd_stat(struct rf_cli *cli)
{
    int code = RF_EXIT_OK, ended;
    struct rf_store *store = rf_home_store(cli, RF_STORE_READ, &ended);
    int64_t failed = 0;

    if (!store)
        return ended;
    for (int i = 0; i < cli->args.word_count && !rf_stop_asked(); i++) {
        struct rf_error err = {0};
        struct rf_blobref ref;
        int one = RF_EXIT_OK;

        if (rf_ref_resolve(&ref, store, cli->args.words[i], &err))
            one = rf_fail_argument(cli, &err);
        else if (stat_one(cli, store, &ref, &err))
            one = rf_fail(cli, &err);
        failed += one != RF_EXIT_OK;
        code = one ? one : code;
    }
    rf_store_close(store);
    rf_summary_int(cli, "blobs", cli->args.word_count - failed);
    rf_summary_int(cli, "errors", failed);
    return code;
}
