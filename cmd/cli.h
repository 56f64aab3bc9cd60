/*
 * cli.h - what the subcommands of refuge share: commands, options, output, home, stopping
 *
 * Two tables (commands.c) describe the whole command line: commands and options. The parser, every
 * --help and the manual page are made from them, so they cannot disagree. Data goes to stdout,
 * words to stderr; with --json stdout carries one object a line and a summary last.
 *
 * To add a command: a row in the command table, its options in the option table, a cmd_NAME.c.
 */
#ifndef RF_CMD_CLI_H
#define RF_CMD_CLI_H

#include <stdio.h>

#include "blobstore/blobstore.h"
#include "core/blobref.h"
#include "core/buf.h"
#include "core/error.h"

enum rf_exit {
    RF_EXIT_OK = 0,
    RF_EXIT_FAILED = 1,
    RF_EXIT_USAGE = 2,
    RF_EXIT_SET_ASIDE = 3,    /* finished, with items set aside */
    RF_EXIT_NO_HOME = 10,
    RF_EXIT_LOCKED = 11,
    RF_EXIT_ACCESS = 12,
    RF_EXIT_UNREACHABLE = 75, /* try again later */
    RF_EXIT_STOPPED = 130     /* SIGINT or SIGTERM */
};

struct rf_cli;

/* ---- commands and options ---- */

struct rf_command {
    const char *name;      /* "put", "index run" */
    const char *arguments; /* as the synopsis shows them, or "" */
    const char *help;      /* one line, lower case */
    const char *text;      /* more, for --help and the manual; or NULL */
    const char *examples;  /* lines "command\tmeaning", or NULL */
    int (*run)(struct rf_cli *cli); /* an exit code; NULL: a group, only its members run */
    int min, max;          /* how many arguments; max -1: any number */
    bool dash_words;       /* an argument that starts with one '-' is a word (search -this) */
    bool rows;             /* --json prints rows, and an error behind them, but no summary */
    bool homeless;         /* works without a home */
};

enum rf_cli_option_type { RF_CLI_FLAG, RF_CLI_TEXT, RF_CLI_NUMBER, RF_CLI_LIST };

struct rf_cli_option {
    const char *command;   /* of which command; "": of every command */
    const char *name;      /* long name */
    char letter;           /* or 0 */
    enum rf_cli_option_type type;
    const char *argument;  /* name of its argument, or NULL for a flag */
    const char *fallback;  /* value when it is not given, or NULL */
    const char *help;      /* one line, lower case */
};

extern const struct rf_command rf_commands[];
extern const size_t rf_command_count;
extern const struct rf_cli_option rf_cli_options[];
extern const size_t rf_cli_option_count;

#define RF_LIST_MAX 64      /* times a list option may be given */
#define RF_CLI_OPTIONS_MAX 192  /* rows of the option table */

/* What the command line said. Strings are argv's. */
struct rf_args {
    const struct rf_command *command;
    const char *values[RF_CLI_OPTIONS_MAX]; /* by row of the option table; NULL: not given */
    const char *lists[RF_LIST_MAX]; /* of the one list option of the command */
    size_t list_count;
    char **words;  /* arguments that are no options */
    int word_count;
    bool help, version;
};

/* Read argv. RF_INVALID: err says what is wrong with it and what was perhaps meant. */
RF_MUST_USE enum rf_status rf_args_parse(struct rf_args *out, int argc, char **argv,
                                         struct rf_error *err);
void rf_args_release(struct rf_args *args);

/* By long name; asserts that the command has such an option. */
bool rf_args_flag(const struct rf_args *args, const char *name);
const char *rf_args_text(const struct rf_args *args, const char *name); /* NULL: no value */
uint64_t rf_args_number(const struct rf_args *args, const char *name);  /* 0 without a default */

/* Write the help of a command (NULL: of the program). */
void rf_help_print(FILE *to, const struct rf_command *command);
/* The same as objects: an `option` for each option of every command, a `command` for the command,
 * each of its group, or all. */
void rf_help_json(struct rf_cli *cli, const struct rf_command *command);
/* Write the commands as the manual page has them (mdoc). */
void rf_help_mdoc(FILE *to);

/* ---- output ---- */

struct rf_out {
    FILE *file;        /* stdout */
    bool json, quiet;
    bool terminal;     /* stdout is one */
    bool colour;
    bool closed;       /* stdout takes no more: end; quietly when its reader went away */
    int failed;        /* errno of that */
    struct rf_buf line;    /* the object being written */
    struct rf_buf summary; /* members of the summary so far */
};

/* One JSON object: begin, members, end. Nothing happens unless --json was given. */
void rf_out_begin(struct rf_out *out, const char *type); /* type NULL: without one */
void rf_out_text(struct rf_out *out, const char *key, const char *text); /* NULL: null */
void rf_out_bytes(struct rf_out *out, const char *key, struct rf_bytes text); /* cleaned UTF-8 */
void rf_out_name(struct rf_out *out, struct rf_bytes name); /* "name", or "name_b64" */
void rf_out_int(struct rf_out *out, const char *key, int64_t value);
void rf_out_real(struct rf_out *out, const char *key, double value);
void rf_out_bool(struct rf_out *out, const char *key, bool value);
void rf_out_ref(struct rf_out *out, const char *key, const struct rf_blobref *ref);
void rf_out_time(struct rf_out *out, const char *key, int64_t us);
void rf_out_raw(struct rf_out *out, const char *key, struct rf_bytes json);
void rf_out_end(struct rf_out *out);

/* A member of the summary. */
void rf_summary_int(struct rf_cli *cli, const char *key, int64_t value);
void rf_summary_text(struct rf_cli *cli, const char *key, const char *value);

/* Text on stdout; nothing when --json was given. */
void rf_out_printf(struct rf_cli *cli, const char *format, ...) RF_PRINTF(2, 3);
/* A name or text from outside: its control bytes as \xNN when stdout is a terminal. */
void rf_out_word(struct rf_cli *cli, struct rf_bytes word);
/* The bytes as they are, also with --json. False: the reader is gone or the disk is full. */
bool rf_out_write(struct rf_cli *cli, struct rf_bytes bytes);

/* Words on stderr; rf_say not with --quiet. "refuge: " is put in front by rf_warn. */
void rf_say(struct rf_cli *cli, const char *format, ...) RF_PRINTF(2, 3);
void rf_warn(struct rf_cli *cli, const char *format, ...) RF_PRINTF(2, 3);

/* Tell err on stderr (and as an object) and give the exit code that fits its status. */
int rf_fail(struct rf_cli *cli, const struct rf_error *err);
/* The same for words of one's own. */
int rf_fail_with(struct rf_cli *cli, int code, const char *format, ...) RF_PRINTF(3, 4);
/* Behind a failure because of a lock: what option --wait, which was waited_s, would do. */
void rf_say_wait(struct rf_cli *cli, uint64_t waited_s);
/* As rf_fail for what reading an argument gave: RF_INVALID and RF_LIMIT mean that it is not what
 * the command takes, RF_EXIT_USAGE. */
int rf_fail_argument(struct rf_cli *cli, const struct rf_error *err);
/* RF_EXIT_ACCESS when an errno says that something may not be read or written, else
 * RF_EXIT_FAILED. */
int rf_exit_of_errno(int errnum);

/* "1 file", "2 files": a number with its noun, in the plural where it must be. */
#define RF_COUNT_TEXT 64
const char *rf_count_format(uint64_t count, const char *noun, char out[RF_COUNT_TEXT]);
/* The same for an argument of a printf; lives until the end of the block. */
#define RF_COUNT(count, noun) rf_count_format((count), (noun), (char[RF_COUNT_TEXT]){0})

/* "1.5 KiB". */
#define RF_SIZE_TEXT 24
const char *rf_size_format(uint64_t bytes, char out[RF_SIZE_TEXT]);
int rf_terminal_width(int fd); /* columns; 80 when it is no terminal */
/* Columns a text takes on a terminal. */
size_t rf_text_width(struct rf_bytes text);
/* Bytes of text that fit into so many columns. */
size_t rf_text_fit(struct rf_bytes text, size_t columns);

/* ---- progress ---- */

/* What a long command has done; a total of 0 is not known. */
struct rf_progress {
    const char *noun; /* what is counted: "file", "change" */
    uint64_t done, total, bytes, bytes_total, errors;
    const char *note; /* at the end, or NULL */
};

/* Call often: prints a line on a terminal's stderr when one is due, or when SIGUSR1 came. */
void rf_progress_show(struct rf_cli *cli, const struct rf_progress *progress);
void rf_progress_clear(struct rf_cli *cli);

/* ---- stopping ---- */

/* From now on the first SIGINT or SIGTERM asks to stop, the second ends the process at once. */
void rf_stop_watch(void);
bool rf_stop_asked(void);
/* Turns nonzero when asked; for rf_query_sql. */
extern volatile int rf_stop_flag;
/* What a first signal calls besides, from a thread of its own; NULL: nothing. */
void rf_stop_call(void (*stop)(void *user), void *user);
/* Whether SIGUSR1 came since the last question. */
bool rf_status_asked(void);

/* ---- home ---- */

struct rf_settings; /* home.c: what refuge.conf says */

struct rf_home {
    char *path;        /* absolute */
    char *conf_path;   /* refuge.conf within */
    char *store_url;   /* of store "home" */
    char *index_dir, *mapper_dir;
    char *conf_dir; /* what commands wrote, one file each */
};

struct rf_cli {
    const char *program;
    char **argv; /* as main got it */
    int argc;
    struct rf_args args;
    struct rf_out out;
    struct rf_home home;
    struct rf_settings *settings;
    int64_t started_us;  /* monotonic */
    int64_t shown_us;    /* when progress was last shown */
    bool progress_shown; /* a line stands on the terminal */
    const char *progress_note;      /* of the phase at hand, which began */
    uint64_t progress_from, progress_last; /* with so much done; and has so much done now */
    int64_t progress_since_us;      /* at this time; 0: there was none yet */
};

/* Find the home and read its configuration. *code: the exit code when it fails (told already). */
bool rf_home_open(struct rf_cli *cli, int *code);
void rf_home_release(struct rf_cli *cli);
/* Where the home is or would be: --home, $REFUGE_HOME, $XDG_DATA_HOME/refuge,
 * ~/.local/share/refuge. */
bool rf_home_locate(struct rf_cli *cli, int *code);

/* Open the home's store. NULL: told, *code set. */
struct rf_store *rf_home_store(struct rf_cli *cli, enum rf_store_mode mode, int *code);

/* A blobref from the command line: whole, or the beginning of exactly one that is there (at least
 * 6 hex digits). */
RF_MUST_USE enum rf_status rf_ref_resolve(struct rf_blobref *out, struct rf_store *store,
                                          const char *text, struct rf_error *err);

/* The hex digits of a beginning, "sha256-" before them or not; false: something else is in it. */
bool rf_prefix_parse(const char *text, uint8_t digest[RF_DIGEST_SIZE], size_t *digits);
/* The greatest ref before all those; false: there is none. */
bool rf_prefix_before(const uint8_t digest[RF_DIGEST_SIZE], struct rf_blobref *out);
bool rf_prefix_matches(const struct rf_blobref *ref, const uint8_t *digest, size_t digits);

/* Microseconds: monotonic, and since 1970. */
int64_t rf_clock_us(void);
double rf_seconds_since(int64_t start_us); /* to the millisecond */
int64_t rf_now_us(void);

/* The name of a new folder or file survives a power cut once its folder is synced. A folder that
 * may not be read cannot be synced by us; its file system decides then. */
void rf_folder_sync_of(const char *path);
/* A file with these bytes in the place of what is there, complete and durable or not at all; mode
 * 600. False: errno says why. */
bool rf_file_replace(const char *path, struct rf_bytes bytes);

/* "a/b", allocated; never NULL. */
char *rf_path_join(const char *folder, const char *name);
/* The words one behind the other, allocated; never NULL. */
char *rf_text_join(const char *a, const char *b, const char *c);

/* ---- one function per command ---- */
int cmd_init(struct rf_cli *cli);
int cmd_put(struct rf_cli *cli);
int cmd_get(struct rf_cli *cli);
int cmd_ls(struct rf_cli *cli);
int cmd_stat(struct rf_cli *cli);
int cmd_delete(struct rf_cli *cli);
int cmd_store_verify(struct rf_cli *cli);
int cmd_store_info(struct rf_cli *cli);
int cmd_store_compact(struct rf_cli *cli);
int cmd_changes(struct rf_cli *cli);
int cmd_index_run(struct rf_cli *cli);
int cmd_index_status(struct rf_cli *cli);
int cmd_index_errors(struct rf_cli *cli);
int cmd_index_retry(struct rf_cli *cli);
int cmd_index_rebuild(struct rf_cli *cli);
int cmd_index_verify(struct rf_cli *cli);
int cmd_index_digest(struct rf_cli *cli);
int cmd_index_why(struct rf_cli *cli);
int cmd_index_wait(struct rf_cli *cli);
int cmd_index_pause(struct rf_cli *cli);
int cmd_index_resume(struct rf_cli *cli);
int cmd_index_create(struct rf_cli *cli);
int cmd_index_list(struct rf_cli *cli);
int cmd_index_drop(struct rf_cli *cli);
int cmd_mapper_new(struct rf_cli *cli);
int cmd_mapper_check(struct rf_cli *cli);
int cmd_mapper_run(struct rf_cli *cli);
int cmd_mapper_test(struct rf_cli *cli);
int cmd_mapper_diff(struct rf_cli *cli);
int cmd_mapper_list(struct rf_cli *cli);
int cmd_sql(struct rf_cli *cli);
int cmd_search(struct rf_cli *cli);
int cmd_status(struct rf_cli *cli);
int cmd_config_check(struct rf_cli *cli);
int cmd_config_show(struct rf_cli *cli);
int cmd_doctor(struct rf_cli *cli);
int cmd_help(struct rf_cli *cli);

#endif
