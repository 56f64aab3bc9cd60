/*
 * cmd_search.c - refuge search: words over every search column of an index
 */
#include <string.h>

#include "cmd/index_home.h"
#include "core/row.h"
#include "sinks/query.h"

#define MARK_BEGIN 2 /* around a hit in a snippet */
#define MARK_END 3
#define WORDS_MAX 4096 /* bytes of the whole question */

/* The snippet with the hit bold, or in [ ] where that cannot be shown. */
static void print_snippet(struct rf_cli *cli, const char *snippet)
{
    const char *begin = cli->out.colour ? "\x1b[1m" : "[", *end = cli->out.colour ? "\x1b[0m" : "]";

    while (*snippet) {
        size_t size = strcspn(snippet, "\x02\x03\n\r\t");

        rf_out_word(cli, rf_bytes(snippet, size));
        snippet += size;
        if (*snippet == MARK_BEGIN)
            rf_out_printf(cli, "%s", begin);
        else if (*snippet == MARK_END)
            rf_out_printf(cli, "%s", end);
        else if (*snippet)
            rf_out_printf(cli, " ");
        snippet += *snippet != '\0';
    }
}

static void print_snippet_json(struct rf_cli *cli, const char *snippet)
{
    struct rf_buf buf;

    rf_buf_init(&buf, SIZE_MAX / 4);
    for (; *snippet; snippet++)
        rf_buf_put_u8(&buf, (uint8_t)(*snippet == MARK_BEGIN ? '['
                                      : *snippet == MARK_END ? ']'
                                                             : *snippet));
    rf_out_bytes(&cli->out, "snippet", rf_buf_bytes(&buf));
    rf_buf_release(&buf);
}

static enum rf_status visit_hit(void *user, const struct rf_hit *hit)
{
    struct rf_cli *cli = user;
    struct rf_out *out = &cli->out;
    char time[RF_TIME_TEXT_SIZE] = "";

    if (hit->timestamp_us >= RF_TIME_MIN && hit->timestamp_us <= RF_TIME_MAX)
        rf_time_format(hit->timestamp_us, time);
    if (hit->title && hit->title[0]) {
        rf_out_word(cli, rf_bytes(hit->title, strcspn(hit->title, "\n")));
        rf_out_printf(cli, "\n");
    }
    rf_out_printf(cli, "  ");
    if (!out->json)
        print_snippet(cli, hit->snippet);
    rf_out_printf(cli, "\n  ");
    rf_out_word(cli, rf_bytes_text(hit->name ? hit->name : hit->item));
    rf_out_printf(cli, "  %s.%s%s%.10s\n\n", hit->table, hit->column, time[0] ? "  " : "", time);
    rf_out_begin(out, NULL);
    rf_out_text(out, "table", hit->table);
    rf_out_text(out, "mapper", hit->mapper);
    rf_out_text(out, "item", hit->item);
    rf_out_text(out, "name", hit->name);
    rf_out_text(out, "column", hit->column);
    rf_out_text(out, "title", hit->title);
    if (out->json)
        print_snippet_json(cli, hit->snippet);
    rf_out_real(out, "rank", hit->rank);
    rf_out_int(out, "row", hit->row);
    rf_out_text(out, "time", time[0] ? time : NULL);
    rf_out_end(out);
    return out->closed || rf_stop_asked() ? RF_CANCELLED : RF_OK;
}

static bool join_words(const struct rf_cli *cli, struct rf_buf *words)
{
    for (int i = 0; i < cli->args.word_count; i++)
        rf_buf_printf(words, "%s%s", i ? " " : "", cli->args.words[i]);
    return rf_buf_text(words) != NULL;
}

static int search(struct rf_cli *cli, const struct rf_index_home *index, const char *words)
{
    uint64_t limit = rf_args_number(&cli->args, "limit");
    struct rf_search_options options = {.limit = limit ? (size_t)limit : RF_HITS_MAX,
                                        .table = rf_args_text(&cli->args, "table")};
    struct rf_error err = {0};
    enum rf_status status;
    uint64_t total = 0;

    status = rf_query_search(index->url, words, &options, visit_hit, cli, &total, &err);
    if (rf_stop_asked())
        return RF_EXIT_STOPPED;
    if (cli->out.closed)
        return RF_EXIT_OK;
    if (status == RF_CORRUPT || status == RF_UNSOUND) {
        (void)rf_fail(cli, &err);
        rf_say(cli, "'refuge index verify%s' says what is wrong with the index, and what mends it",
               index->argument);
        return RF_EXIT_FAILED;
    }
    if (status)
        return rf_fail_argument(cli, &err);
    rf_say(cli, "%s", RF_COUNT(total, "hit"));
    return RF_EXIT_OK;
}

int cmd_search(struct rf_cli *cli)
{
    struct rf_index_home index;
    struct rf_buf words;
    int code = RF_EXIT_OK;

    rf_buf_init(&words, WORDS_MAX);
    if (!join_words(cli, &words))
        code = rf_fail_with(cli, RF_EXIT_USAGE, "the words are longer than %d bytes", WORDS_MAX);
    else if (rf_index_home_init(&index, cli, rf_args_text(&cli->args, "index"), true, &code))
        code = search(cli, &index, rf_buf_text(&words));
    if (words.failed == RF_OK)
        rf_index_home_release(&index);
    rf_buf_release(&words);
    return code;
}
