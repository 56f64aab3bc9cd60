/*
 * conf.h - configuration: one data-only table, and the options it may hold
 *
 * A configuration file is the text of one Lua table that holds only data, or the same tree as JSON:
 *
 *     -- refuge.conf
 *     return {
 *         server = { listen = "127.0.0.1:7080", idle = "30s" },
 *         index = {
 *             main = { sink = "sqlite:index/main.db", batch_items = 10000, cache = "64M" },
 *         },
 *     }
 *
 * `return` may be left out. Allowed are tables, `name = value`, `["name"] = value`, lists, strings
 * ('…', "…", [[…]]), numbers, true, false and both kinds of comment; no variable, call or
 * operator, so the file is valid Lua but nothing in it can run. Top-level names are sections. A
 * section holds options, or, when its table says `named`, one table of options per name ("main"
 * above).
 *
 * How to use it: describe each section once, in a constant array of struct rf_section (the same
 * arrays feed --help and the manual); rf_conf_read, then rf_conf_check the whole tree against them;
 * after that lookups cannot fail:
 *
 *     static const struct rf_option index_options[] = {
 *         {.name = "sink", .type = RF_OPTION_TEXT, .help = "where rows go"},
 *         {.name = "batch_items", .type = RF_OPTION_INT, .preset = "10000", .min = 1,
 *          .max = 1000000, .help = "items in one transaction"},
 *         {.name = "cache", .type = RF_OPTION_SIZE, .preset = "64M", .help = "memory of the sink"},
 *         {0},
 *     };
 *     static const struct rf_section sections[] = {
 *         {.name = "index", .named = true, .options = index_options, .help = "..."},
 *         {0},
 *     };
 *     const struct rf_json *table = rf_conf_find(&conf, "index", "main");
 *     struct rf_setting cache = rf_conf_get(table, index_options, "cache");
 *     use(cache.number);
 *
 * Errors are for a person and name file and line:
 *     refuge.conf:12: unknown option 'bach_items' in index 'main', did you mean 'batch_items'?
 */
#ifndef RF_CORE_CONF_H
#define RF_CORE_CONF_H

#include "core/json.h"
#include "core/nearest.h"

#define RF_CONF_SIZE_MAX (1u << 20) /* bytes of a configuration file */
#define RF_CONF_DEPTH_MAX 16        /* tables within each other */

/* ---- reading ---- */

struct rf_conf {
    const char *file;           /* for messages, as given */
    const struct rf_json *root; /* always an object; each value knows its line */
};

/* Parse a configuration's text into the arena, to which file is copied. A text whose first byte is
 * '{' followed by '"' or '}' is JSON (no section of a Lua table begins so), any other is Lua.
 * RF_INVALID: "file:line: what is wrong and what is allowed"; RF_LIMIT: too large or too deep. */
RF_MUST_USE enum rf_status rf_conf_parse(struct rf_conf *out, struct rf_arena *arena,
                                         const char *file, struct rf_bytes text,
                                         struct rf_error *err);

/* The same of a file. RF_NOT_FOUND, RF_DENIED (not readable), RF_IO. */
RF_MUST_USE enum rf_status rf_conf_read(struct rf_conf *out, struct rf_arena *arena,
                                        const char *path, struct rf_error *err);

/* ---- options ---- */

enum rf_option_type {
    RF_OPTION_TEXT,     /* string */
    RF_OPTION_PATH,     /* string; as written, the caller resolves it */
    RF_OPTION_INT,      /* whole number */
    RF_OPTION_SIZE,     /* bytes: a number, or "10k", "64M", "1G", "2T" (powers of 1024) */
    RF_OPTION_DURATION, /* milliseconds: "500ms", "2s", "5m", "12h",
        "30d"; a bare number is refused */
    RF_OPTION_BOOL,     /* true or false */
    RF_OPTION_TEXTS     /* list of strings; a single string is a list of one */
};

struct rf_option {
    const char *name; /* NULL ends an array */
    enum rf_option_type type;
    const char *preset;         /* the default, as one would write it (without quotes), or NULL */
    int64_t min, max;           /* of INT, SIZE, DURATION; max 0: INT64_MAX */
    const char *const *choices; /* TEXT: the only values, ended by NULL; or NULL */
    bool required;
    const char *help; /* one line */
};

struct rf_section {
    const char *name; /* NULL ends an array */
    bool named;       /* holds tables by name, not options */
    const struct rf_option *options;
    const char *help;
};

/* Whether the tree holds only what these sections and options allow, each value of its type and
 * within its bounds. Names of named sections match [a-z0-9][a-z0-9_-]{0,47}. RF_INVALID: the first
 * thing that is wrong. */
RF_MUST_USE enum rf_status rf_conf_check(const struct rf_conf *conf,
                                         const struct rf_section *sections, struct rf_error *err);

/* The table of options of a section (name NULL) or of one of a named section, or NULL. */
const struct rf_json *rf_conf_find(const struct rf_conf *conf, const char *section,
                                   const char *name);

/* The value of an option. */
struct rf_setting {
    bool given;          /* by the configuration, not by preset */
    bool present;        /* given, or it has a preset */
    uint32_t line;       /* when given */
    const char *text;    /* TEXT, PATH: lent from the tree or the table; NULL when not present */
    int64_t number;      /* INT, SIZE (bytes), DURATION (ms) */
    bool flag;           /* BOOL */
    const struct rf_json *list; /* TEXTS: count strings; NULL when not given */
    size_t count;
};

/* The option called name (it must be in options: asserted) in a table that passed rf_conf_check;
 * NULL is an empty table. TEXTS have no preset. */
struct rf_setting rf_conf_get(const struct rf_json *table, const struct rf_option *options,
                              const char *name);

/* The i-th string of a TEXTS setting, i < count. */
const char *rf_setting_text(const struct rf_setting *setting, size_t i);

/* A value from text (a command line, a preset) under the option's rules. out->text is lent from
 * text. Not for TEXTS. RF_INVALID: err says what the option wants. */
RF_MUST_USE enum rf_status rf_option_parse(const struct rf_option *option, const char *text,
                                           struct rf_setting *out, struct rf_error *err);

/* "text", "size", ... for help and manual. */
const char *rf_option_type_name(enum rf_option_type type);

#endif
