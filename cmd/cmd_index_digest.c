/*
 * cmd_index_digest.c - refuge index digest: one number for all that an index says
 *
 * Two indexes of the same blobs and mappers have the same, whatever kind of sink they are in: the
 * cheap question beside `index verify`, which maps everything again.
 */
#include "cmd/index_home.h"
#include "sinks/query.h"

static int digest_of(struct rf_cli *cli, const char *name)
{
    struct rf_index_home index;
    struct rf_digest digest;
    struct rf_error err = {0};
    int code = RF_EXIT_OK;

    if (!rf_index_home_init(&index, cli, name, true, &code)) {
        rf_index_home_release(&index);
        return code;
    }
    if (rf_query_digest(index.url, &rf_stop_flag, &digest, &err)) {
        code = rf_stop_asked() ? RF_EXIT_STOPPED : rf_fail(cli, &err);
    } else {
        rf_out_printf(cli, "%s  %s\n", digest.hex, index.name);
        rf_out_begin(&cli->out, "item");
        rf_out_text(&cli->out, "index", index.name);
        rf_out_text(&cli->out, "digest", digest.hex);
        rf_out_int(&cli->out, "rows", (int64_t)digest.rows);
        rf_out_end(&cli->out);
    }
    rf_index_home_release(&index);
    return code;
}

int cmd_index_digest(struct rf_cli *cli)
{
    size_t count = (size_t)cli->args.word_count;
    char **all = count ? NULL : rf_index_names(cli, &count);
    int code = RF_EXIT_OK;

    for (size_t i = 0; i < count && !rf_stop_asked(); i++) {
        int one = digest_of(cli, all ? all[i] : cli->args.words[i]);

        if (code == RF_EXIT_OK)
            code = one;
    }
    if (count == 0)
        rf_say(cli, "there is no index yet; 'refuge index run' makes index '" RF_INDEX_DEFAULT "'");
    rf_summary_int(cli, "indexes", (int64_t)count);
    if (all)
        rf_names_free(all, count);
    return code;
}
