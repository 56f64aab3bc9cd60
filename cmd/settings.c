/*
 * settings.c - what refuge.conf says, as the commands use it
 *
 * The tables below are all there is: they check the file, make the one that `init` writes, and fill
 * doc/refuge.conf.5 (scripts/manual). An environment variable REFUGE_SECTION__OPTION wins over the
 * file. To add an option: a row, and a function that hands its value out.
 */
#include "cmd/settings.h"

#include <assert.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "core/conf.h"

#define SETTINGS_MAX 32
#define ENTRIES_MAX 256 /* of one list */

extern char **environ;

static const struct rf_option store_options[] = {
    {.name = "segment", .type = RF_OPTION_SIZE, .preset = "256M", .min = 64 << 10,
     .max = (int64_t)4 << 30, .help = "size of one file of the log"},
    {0},
};

static const struct rf_option index_options[] = {
    {.name = "workers", .type = RF_OPTION_INT, .preset = "0", .min = 0, .max = 256,
     .help = "mapper processes at the same time; 0: one per core"},
    {.name = "cache", .type = RF_OPTION_SIZE, .preset = "64M", .min = 1 << 20,
     .max = (int64_t)64 << 30, .help = "memory of the database while it is written"},
    {.name = "batch_items", .type = RF_OPTION_INT, .preset = "100000", .min = 1, .max = 1000000,
     .help = "items in one transaction at most, while there are more to come; 16 MiB of rows and "
             "texts end it, too"},
    {.name = "batch_time", .type = RF_OPTION_DURATION, .preset = "5s", .min = 1, .max = 60000,
     .help = "time before a transaction is committed at most"},
    {.name = "parts", .type = RF_OPTION_INT, .preset = "1000000", .min = 1, .max = INT64_C(1) << 40,
     .help = "parts, parts of parts included, that may come of one item, beside one for each of "
             "its bytes; what would have more is set aside"},
    {.name = "slow_budget", .type = RF_OPTION_DURATION, .preset = "10m", .min = 1,
     .max = (int64_t)30 * 86400 * 1000,
     .help = "CPU time that one mapper's slow calls may use up in a run when all of them fail; "
             "what still waits for it then stays parked until the next run"},
    {.name = "policy", .type = RF_OPTION_TEXT, .preset = "full",
     .help = "what a mapper that changed or came does with what is in the store already: full, "
             "forward, since=SEQUENCE, since=DATE, match=NAME or match=MEDIA/TYPE; see 'index run' "
             "in refuge(1)"},
    {0},
};

static const struct rf_option mapper_options[] = {
    {.name = "bundled", .type = RF_OPTION_BOOL, .preset = "true",
     .help = "use the mappers that come with refuge"},
    {.name = "paths", .type = RF_OPTION_TEXTS,
     .help = "more mapper files, besides those in the home's folder mappers"},
    {.name = "disabled", .type = RF_OPTION_TEXTS, .help = "names of mappers that are not used"},
    {0},
};

static const struct rf_section sections[] = {
    {.name = "store", .options = store_options, .help = "the blob store"},
    {.name = "index", .options = index_options, .help = "how indexes are run"},
    {.name = "mappers", .options = mapper_options, .help = "which mappers indexes use"},
    {0},
};

struct value {
    const struct rf_section *section;
    const struct rf_option *option;
    struct rf_setting setting;
    const char **texts; /* of a TEXTS option */
    size_t count;
    char origin[160];
};

struct rf_settings {
    struct rf_arena arena;
    struct rf_conf conf;
    struct value values[SETTINGS_MAX];
    size_t count;
};

/* ---- reading ---- */

static void variable_name(char *out, size_t size, const char *section, const char *option)
{
    snprintf(out, size, "REFUGE_%s__%s", section, option);
    for (; *out; out++)
        *out = (char)toupper((unsigned char)*out);
}

/* "a,b" as a list. */
static void split_list(struct rf_settings *settings, struct value *value, const char *text)
{
    value->texts = rf_arena_alloc(&settings->arena, ENTRIES_MAX * sizeof *value->texts);
    while (*text && value->count < ENTRIES_MAX) {
        size_t size = strcspn(text, ",");
        char *copy = rf_arena_copy(&settings->arena, text, size);

        if (size && copy)
            value->texts[value->count++] = copy;
        text += size + (text[size] == ',');
    }
}

static void copy_list(struct rf_settings *settings, struct value *value)
{
    size_t count = value->setting.count;

    value->texts = rf_arena_alloc(&settings->arena, (count + 1) * sizeof *value->texts);
    for (size_t i = 0; i < count; i++)
        value->texts[i] = rf_setting_text(&value->setting, i);
    value->count = count;
}

static enum rf_status read_value(struct rf_settings *settings, struct value *value,
                                 struct rf_error *err)
{
    const struct rf_json *table = rf_conf_find(&settings->conf, value->section->name, NULL);
    char variable[128];
    const char *text;

    value->setting = rf_conf_get(table, value->section->options, value->option->name);
    if (value->setting.given)
        snprintf(value->origin, sizeof value->origin, "refuge.conf:%u", value->setting.line);
    else
        snprintf(value->origin, sizeof value->origin, "default");
    variable_name(variable, sizeof variable, value->section->name, value->option->name);
    text = getenv(variable);
    if (text)
        snprintf(value->origin, sizeof value->origin, "$%s", variable);
    if (value->option->type == RF_OPTION_TEXTS) {
        if (text)
            split_list(settings, value, text);
        else
            copy_list(settings, value);
        return RF_OK;
    }
    if (!text)
        return RF_OK;
    if (rf_option_parse(value->option, text, &value->setting, err))
        return rf_error_context(err, RF_INVALID, "environment variable %s", variable);
    return RF_OK;
}

/* A variable that looks like an option but is none is a mistake, not to be passed over. */
static enum rf_status check_environment(const struct rf_settings *settings, struct rf_error *err)
{
    char names[SETTINGS_MAX][128], word[128];
    const char *list[SETTINGS_MAX], *near;

    for (size_t i = 0; i < settings->count; i++) {
        variable_name(names[i], sizeof names[i], settings->values[i].section->name,
                      settings->values[i].option->name);
        list[i] = names[i];
    }
    for (char **at = environ; *at; at++) {
        size_t size = strcspn(*at, "=");
        bool known = false;

        snprintf(word, sizeof word, "%.*s", (int)size, *at);
        if (strncmp(word, "REFUGE_", 7) != 0 || !strstr(word + 7, "__"))
            continue;
        for (size_t i = 0; i < settings->count; i++)
            known |= strcmp(names[i], word) == 0;
        near = known ? NULL : rf_nearest(word, list, settings->count);
        if (near)
            return rf_error_set(err, RF_INVALID,
                                "environment variable %s is no option, did you mean "
                                "%s?",
                                word, near);
        if (!known)
            return rf_error_set(err, RF_INVALID, "environment variable %s is no option; 'refuge "
                                "config show' lists them", word);
    }
    return RF_OK;
}

static void list_values(struct rf_settings *settings)
{
    for (const struct rf_section *section = sections; section->name; section++) {
        for (const struct rf_option *option = section->options; option->name; option++) {
            assert(settings->count < SETTINGS_MAX);
            settings->values[settings->count].section = section;
            settings->values[settings->count++].option = option;
        }
    }
}

enum rf_status rf_settings_read(struct rf_cli *cli, struct rf_error *err)
{
    struct rf_settings *settings = calloc(1, sizeof *settings);
    enum rf_status status;

    if (!settings)
        abort();
    rf_settings_free(cli->settings);
    cli->settings = settings;
    rf_arena_init(&settings->arena, (size_t)16 << 20);
    list_values(settings);
    status = rf_conf_read(&settings->conf, &settings->arena, cli->home.conf_path, err);
    if (status == RF_OK)
        status = rf_conf_check(&settings->conf, sections, err);
    for (size_t i = 0; i < settings->count && status == RF_OK; i++)
        status = read_value(settings, &settings->values[i], err);
    return status ? status : check_environment(settings, err);
}

bool rf_settings_load(struct rf_cli *cli, int *code)
{
    struct rf_error err = {0};

    if (rf_settings_read(cli, &err) == RF_OK)
        return true;
    *code = rf_fail(cli, &err);
    return false;
}

void rf_settings_free(struct rf_settings *settings)
{
    if (settings)
        rf_arena_release(&settings->arena);
    free(settings);
}

/* ---- showing ---- */

/* A value as one would write it in the file. */
static void value_text(const struct value *value, struct rf_buf *out)
{
    const struct rf_setting *setting = &value->setting;

    switch (value->option->type) {
    case RF_OPTION_TEXTS:
        rf_buf_put_u8(out, '{');
        for (size_t i = 0; i < value->count; i++)
            rf_buf_printf(out, "%s\"%s\"", i ? ", " : " ", value->texts[i]);
        rf_buf_put_text(out, value->count ? " }" : "}");
        break;
    case RF_OPTION_BOOL:
        rf_buf_put_text(out, setting->flag ? "true" : "false");
        break;
    case RF_OPTION_DURATION:
        rf_buf_printf(out, "\"%lldms\"", (long long)setting->number);
        break;
    case RF_OPTION_INT:
    case RF_OPTION_SIZE:
        rf_buf_printf(out, "%lld", (long long)setting->number);
        break;
    default:
        rf_buf_printf(out, "\"%s\"", setting->text ? setting->text : "");
        break;
    }
}

static void show_json(struct rf_cli *cli, const struct value *value, const char *name)
{
    struct rf_out *out = &cli->out;

    rf_out_begin(out, "option");
    rf_out_text(out, "option", name);
    if (value->option->type == RF_OPTION_TEXTS) {
        struct rf_buf list;

        rf_buf_init(&list, RF_CONF_SIZE_MAX);
        rf_buf_put_u8(&list, '[');
        for (size_t i = 0; i < value->count; i++) {
            rf_buf_put_text(&list, i ? "," : "");
            rf_json_put_string(&list, rf_bytes_text(value->texts[i]));
        }
        rf_buf_put_u8(&list, ']');
        rf_out_raw(out, "value", rf_buf_bytes(&list));
        rf_buf_release(&list);
    } else if (value->option->type == RF_OPTION_BOOL) {
        rf_out_bool(out, "value", value->setting.flag);
    } else if (value->option->type == RF_OPTION_TEXT || value->option->type == RF_OPTION_PATH) {
        rf_out_text(out, "value", value->setting.text);
    } else {
        rf_out_int(out, "value", value->setting.number);
    }
    rf_out_text(out, "origin", value->origin);
    rf_out_end(out);
}

void rf_settings_show(struct rf_cli *cli, bool origin)
{
    const struct rf_settings *settings = cli->settings;

    for (size_t i = 0; i < settings->count; i++) {
        const struct value *value = &settings->values[i];
        char name[128];
        struct rf_buf text;

        rf_buf_init(&text, RF_CONF_SIZE_MAX);
        snprintf(name, sizeof name, "%s.%s", value->section->name, value->option->name);
        value_text(value, &text);
        rf_out_printf(cli, "%-20s = ", name);
        rf_out_word(cli, rf_buf_bytes(&text));
        rf_out_printf(cli, origin ? "    -- %s\n" : "\n", value->origin);
        show_json(cli, value, name);
        rf_buf_release(&text);
    }
}

/* A default as the file shows it. */
static void preset_text(const struct rf_option *option, struct rf_buf *out)
{
    bool quoted = option->type == RF_OPTION_TEXT || option->type == RF_OPTION_PATH ||
                  option->type == RF_OPTION_SIZE || option->type == RF_OPTION_DURATION;

    if (option->type == RF_OPTION_TEXTS)
        rf_buf_put_text(out, "{}");
    else
        rf_buf_printf(out, quoted ? "\"%s\"" : "%s", option->preset ? option->preset : "");
}

void rf_settings_template(struct rf_buf *out)
{
    rf_buf_put_text(out, "-- refuge.conf - configuration of this home, see refuge.conf(5)\n"
                         "--\n"
                         "-- One Lua table of data. What is commented out is the default.\n"
                         "return {\n");
    for (const struct rf_section *section = sections; section->name; section++) {
        rf_buf_printf(out, "%s    -- %s\n    %s = {\n", section == sections ? "" : "\n",
                      section->help, section->name);
        for (const struct rf_option *option = section->options; option->name; option++) {
            rf_buf_printf(out, "        -- %s\n        -- %s = ", option->help, option->name);
            preset_text(option, out);
            rf_buf_put_text(out, ",\n");
        }
        rf_buf_put_text(out, "    },\n");
    }
    rf_buf_put_text(out, "}\n");
}

void rf_settings_mdoc(FILE *to)
{
    for (const struct rf_section *section = sections; section->name; section++) {
        fprintf(to, ".Ss %s\n%s.\n.Bl -tag -width Ds\n", section->name, section->help);
        for (const struct rf_option *option = section->options; option->name; option++) {
            fprintf(to, ".It Ic %s Pq %s\n%s\n", option->name, rf_option_type_name(option->type),
                    option->help);
            if (option->preset)
                fprintf(to, "(default:\n.Ql %s )\n", option->preset);
        }
        fputs(".El\n", to);
    }
}

/* ---- handing out ---- */

static const struct value *find_value(const struct rf_settings *settings, const char *section,
                                      const char *option)
{
    for (size_t i = 0; settings && i < settings->count; i++) {
        if (strcmp(settings->values[i].section->name, section) == 0 &&
            strcmp(settings->values[i].option->name, option) == 0)
            return &settings->values[i];
    }
    assert(!settings);
    return NULL;
}

static int64_t number(const struct rf_settings *settings, const char *section, const char *option)
{
    const struct value *value = find_value(settings, section, option);

    return value ? value->setting.number : 0; /* 0 is "the default" to every library */
}

uint64_t rf_settings_segment_bytes(const struct rf_settings *settings)
{
    return (uint64_t)number(settings, "store", "segment");
}

uint64_t rf_settings_cache_bytes(const struct rf_settings *settings)
{
    return (uint64_t)number(settings, "index", "cache");
}

uint32_t rf_settings_batch_items(const struct rf_settings *settings)
{
    return (uint32_t)number(settings, "index", "batch_items");
}

uint32_t rf_settings_batch_ms(const struct rf_settings *settings)
{
    return (uint32_t)number(settings, "index", "batch_time");
}

uint64_t rf_settings_parts_max(const struct rf_settings *settings)
{
    return (uint64_t)number(settings, "index", "parts");
}

uint64_t rf_settings_slow_budget_ms(const struct rf_settings *settings)
{
    return (uint64_t)number(settings, "index", "slow_budget");
}

const char *rf_settings_policy(const struct rf_settings *settings)
{
    const struct value *value = find_value(settings, "index", "policy");

    return value ? value->setting.text : NULL;
}

uint32_t rf_settings_workers(const struct rf_settings *settings)
{
    return (uint32_t)number(settings, "index", "workers");
}

bool rf_settings_bundled(const struct rf_settings *settings)
{
    const struct value *value = find_value(settings, "mappers", "bundled");

    return !value || value->setting.flag;
}

size_t rf_settings_mappers(const struct rf_settings *settings, const char *const **paths)
{
    const struct value *value = find_value(settings, "mappers", "paths");

    *paths = value ? value->texts : NULL;
    return value ? value->count : 0;
}

size_t rf_settings_disabled(const struct rf_settings *settings, const char *const **names)
{
    const struct value *value = find_value(settings, "mappers", "disabled");

    *names = value ? value->texts : NULL;
    return value ? value->count : 0;
}
