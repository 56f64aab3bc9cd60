/*
 * refuge.c - the program: reads the command line, runs one command, tells how it ended
 */
#include "cmd/cli.h"
#include "cmd/index_all.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/settings.h"

#define LINE_MAX_BYTES ((size_t)64 << 20) /* of one JSON object on stdout */

static void out_init(struct rf_out *out)
{
    const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");

    out->file = stdout;
    out->terminal = isatty(STDOUT_FILENO) == 1;
    out->colour =
        out->terminal && !(no_colour && no_colour[0]) && term && strcmp(term, "dumb") != 0;
    rf_buf_init(&out->line, LINE_MAX_BYTES);
    rf_buf_init(&out->summary, LINE_MAX_BYTES);
}

/* Whether --json or --quiet stands anywhere: a usage error must know before the line is parsed. */
static bool has_word(int argc, char **argv, const char *word)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], word) == 0)
            return true;
    }
    return false;
}

static void write_summary(struct rf_cli *cli, int code)
{
    struct rf_out *out = &cli->out;
    const struct rf_command *command = cli->args.command;
    bool ran = !cli->args.help && !cli->args.version;

    if (!out->json || (ran && command && command->rows))
        return;
    /* One of all indexes is no end of the output: the process that runs all has the summary. */
    rf_out_begin(out, getenv(RF_ONE_OF_ALL) ? "index" : "summary");
    rf_out_text(out, "command", command ? command->name : NULL);
    rf_out_bool(out, "ok", code == RF_EXIT_OK);
    rf_out_int(out, "exit", code);
    rf_out_real(out, "seconds", rf_seconds_since(cli->started_us));
    rf_buf_put(&out->line, out->summary.data, out->summary.size);
    rf_out_end(out);
}

static int print_help(struct rf_cli *cli, const struct rf_command *command)
{
    if (cli->out.json)
        rf_help_json(cli, command);
    else
        rf_help_print(stdout, command);
    return RF_EXIT_OK;
}

int cmd_help(struct rf_cli *cli)
{
    char name[128];

    if (cli->out.json && rf_args_flag(&cli->args, "mdoc"))
        return rf_fail_with(cli, RF_EXIT_USAGE, "--mdoc and --json exclude each other");
    if (rf_args_flag(&cli->args, "mdoc")) {
        if (cli->args.word_count == 1 && strcmp(cli->args.words[0], "config") == 0)
            rf_settings_mdoc(stdout);
        else
            rf_help_mdoc(stdout);
        return RF_EXIT_OK;
    }
    if (cli->args.word_count == 0)
        return print_help(cli, NULL);
    snprintf(name, sizeof name, "%s%s%s", cli->args.words[0], cli->args.word_count > 1 ? " " : "",
             cli->args.word_count > 1 ? cli->args.words[1] : "");
    for (size_t i = 0; i < rf_command_count; i++) {
        if (strcmp(rf_commands[i].name, name) == 0)
            return print_help(cli, &rf_commands[i]);
    }
    return rf_fail_with(cli, RF_EXIT_USAGE, "unknown command '%s'; 'refuge help' lists them", name);
}

static int run_command(struct rf_cli *cli)
{
    int code = RF_EXIT_FAILED;

    if (cli->args.version) {
        rf_out_printf(cli, "refuge %s\n", REFUGE_VERSION);
        rf_out_begin(&cli->out, "version");
        rf_out_text(&cli->out, "version", REFUGE_VERSION);
        rf_out_end(&cli->out);
        return RF_EXIT_OK;
    }
    if (cli->args.help)
        return print_help(cli, cli->args.command);
    rf_stop_watch();
    if (!cli->args.command->homeless && !rf_home_open(cli, &code))
        return code;
    return cli->args.command->run(cli);
}

/* What stdio still holds must reach the reader; one that left is no error, nor is a person who did
 * not want to wait for a slow one. */
static int flush_stdout(struct rf_cli *cli, int code)
{
    int cause = cli->out.failed;

    errno = 0;
    if (!cause && (fflush(stdout) != 0 || ferror(stdout)))
        cause = errno ? errno : EIO;
    if (cause == 0 || cause == EPIPE)
        return code;
    if (cause == EINTR && rf_stop_asked()) {
        __fpurge(stdout); /* or exit would wait for the reader again */
        return code == RF_EXIT_OK ? RF_EXIT_STOPPED : code;
    }
    rf_warn(cli, "cannot write to standard output: %s", strerror(cause));
    return code == RF_EXIT_OK || code == RF_EXIT_SET_ASIDE ? RF_EXIT_FAILED : code;
}

/* Who starts us with 0, 1 or 2 closed must not find the files we open in their place. What was
 * closed fails as it would: nothing can be read from 0, nothing written to 1 and 2. */
static bool fill_standard_files(void)
{
    int fd;

    for (int i = 0; i <= STDERR_FILENO; i++) {
        if (fcntl(i, F_GETFD) >= 0 || errno != EBADF)
            continue;
        fd = open("/dev/null", i == STDIN_FILENO ? O_WRONLY : O_RDONLY); /* the lowest: it is i */
        if (fd != i)
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct rf_cli cli = {.program = argv[0], .argv = argv, .argc = argc,
                         .started_us = rf_clock_us()};
    struct rf_error err = {0};
    int code;

    if (!fill_standard_files())
        return RF_EXIT_FAILED;
    out_init(&cli.out);
    cli.out.json = has_word(argc, argv, "--json");
    cli.out.quiet = has_word(argc, argv, "--quiet");
    if (rf_args_parse(&cli.args, argc, argv, &err)) {
        code = rf_fail_with(&cli, RF_EXIT_USAGE, "%s", err.message);
    } else {
        cli.out.json = rf_args_flag(&cli.args, "json");
        cli.out.quiet = rf_args_flag(&cli.args, "quiet");
        code = run_command(&cli);
    }
    rf_progress_clear(&cli);
    write_summary(&cli, code);
    code = flush_stdout(&cli, code);
    rf_home_release(&cli);
    rf_args_release(&cli.args);
    rf_buf_release(&cli.out.line);
    rf_buf_release(&cli.out.summary);
    return code;
}
