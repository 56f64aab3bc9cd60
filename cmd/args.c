/*
 * args.c - reading the command line, and saying what it may hold
 *
 * Everything here works on the two tables of commands.c. Options may stand anywhere before "--";
 * "--name VALUE", "--name=VALUE", "-n VALUE", "-nVALUE" and "-abc" for flags are understood.
 */
#include "cmd/cli.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/nearest.h"

#define HELP_COLUMNS 80
#define WORD_MAX 64 /* bytes of an option's or command's name */

/* ---- the tables ---- */

/* Whether the comma-separated list names this command. */
static bool list_has(const char *list, const char *name)
{
    size_t size = strlen(name);

    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        if (strncmp(at, name, size) == 0 && (at[size] == '\0' || at[size] == ','))
            return true;
    }
    return false;
}

static bool is_global(const struct rf_cli_option *option)
{
    return option->command[0] == '\0';
}

static bool option_fits(const struct rf_cli_option *option, const struct rf_command *command)
{
    return is_global(option) || (command && list_has(option->command, command->name));
}

static const struct rf_command *find_command(const char *name)
{
    for (size_t i = 0; i < rf_command_count; i++) {
        if (strcmp(rf_commands[i].name, name) == 0)
            return &rf_commands[i];
    }
    return NULL;
}

/* ---- did you mean ---- */

static enum rf_status unknown_command(const char *group, const char *word, struct rf_error *err)
{
    const char *names[RF_CLI_OPTIONS_MAX], *near;
    size_t count = 0, skip = group ? strlen(group) + 1 : 0;

    for (size_t i = 0; i < rf_command_count && count < RF_CLI_OPTIONS_MAX; i++) {
        const char *name = rf_commands[i].name;

        if (group && (strncmp(name, group, skip - 1) != 0 || name[skip - 1] != ' '))
            continue;
        if (!group && strchr(name, ' '))
            continue;
        names[count++] = name + skip;
    }
    near = rf_nearest(word, names, count);
    if (near)
        return rf_error_set(err, RF_INVALID, "unknown command '%s%s%s', did you mean '%s'?",
                            group ? group : "", group ? " " : "", word, near);
    return rf_error_set(err, RF_INVALID, "unknown command '%s%s%s'; 'refuge help%s%s' lists them",
                        group ? group : "", group ? " " : "", word, group ? " " : "",
                        group ? group : "");
}

static enum rf_status unknown_option(const struct rf_command *command, const char *word,
                                     size_t size, struct rf_error *err)
{
    const char *names[RF_CLI_OPTIONS_MAX], *near;
    char name[WORD_MAX];
    size_t count = 0;

    for (size_t i = 0; i < rf_cli_option_count; i++) {
        if (option_fits(&rf_cli_options[i], command))
            names[count++] = rf_cli_options[i].name;
    }
    snprintf(name, sizeof name, "%.*s", (int)size, word);
    near = rf_nearest(name, names, count);
    if (near)
        return rf_error_set(err, RF_INVALID, "unknown option '--%s', did you mean '--%s'?", name,
                            near);
    return rf_error_set(err, RF_INVALID, "unknown option '--%s'; 'refuge help%s%s' lists them",
                        name, command ? " " : "", command ? command->name : "");
}

/* ---- parsing ---- */

struct parse {
    struct rf_args *args;
    int argc, at;
    char **argv;
    struct rf_error *err;
};

static enum rf_status check_number(const struct rf_cli_option *option, const char *value,
                                   struct rf_error *err)
{
    char *end;

    errno = 0;
    if (isdigit((unsigned char)value[0])) {
        (void)strtoull(value, &end, 10);
        if (*end == '\0' && errno == 0)
            return RF_OK;
    }
    return rf_error_set(err, RF_INVALID, "option '--%s' needs a whole number, not '%s'",
                        option->name, value);
}

static enum rf_status set_option(struct parse *parse, const struct rf_cli_option *option,
                                 const char *value)
{
    struct rf_args *args = parse->args;
    size_t index = (size_t)(option - rf_cli_options);

    if (option->type == RF_CLI_NUMBER && check_number(option, value, parse->err))
        return RF_INVALID;
    if (option->type == RF_CLI_LIST) {
        if (args->list_count == RF_LIST_MAX)
            return rf_error_set(parse->err, RF_INVALID, "option '--%s' is given more than %d times",
                                option->name, RF_LIST_MAX);
        args->lists[args->list_count++] = value;
    }
    args->values[index] = value;
    if (is_global(option) && strcmp(option->name, "help") == 0)
        args->help = true;
    if (is_global(option) && strcmp(option->name, "version") == 0)
        args->version = true;
    return RF_OK;
}

/* The value of an option: behind '=' (or the letter), or the next argument. */
static enum rf_status take_value(struct parse *parse, const struct rf_cli_option *option,
                                 const char *attached)
{
    if (option->type == RF_CLI_FLAG) {
        if (attached)
            return rf_error_set(parse->err, RF_INVALID, "option '--%s' takes no value",
                                option->name);
        return set_option(parse, option, "");
    }
    if (attached)
        return set_option(parse, option, attached);
    if (parse->at >= parse->argc)
        return rf_error_set(parse->err, RF_INVALID, "option '--%s' needs %s", option->name,
                            option->argument);
    return set_option(parse, option, parse->argv[parse->at++]);
}

static enum rf_status parse_long(struct parse *parse, const char *word)
{
    const char *equals = strchr(word, '=');
    size_t size = equals ? (size_t)(equals - word) : strlen(word);

    for (size_t i = 0; i < rf_cli_option_count; i++) {
        const struct rf_cli_option *option = &rf_cli_options[i];

        if (option_fits(option, parse->args->command) && strlen(option->name) == size &&
            memcmp(option->name, word, size) == 0)
            return take_value(parse, option, equals ? equals + 1 : NULL);
    }
    return unknown_option(parse->args->command, word, size, parse->err);
}

static enum rf_status parse_short(struct parse *parse, const char *letters)
{
    enum rf_status status = RF_OK;

    for (; *letters && status == RF_OK; letters++) {
        const struct rf_cli_option *found = NULL;

        for (size_t i = 0; i < rf_cli_option_count && !found; i++) {
            if (rf_cli_options[i].letter == *letters &&
                option_fits(&rf_cli_options[i], parse->args->command))
                found = &rf_cli_options[i];
        }
        if (!found)
            return rf_error_set(parse->err, RF_INVALID,
                                "unknown option '-%c'; 'refuge help%s%s' lists them", *letters,
                                parse->args->command ? " " : "",
                                parse->args->command ? parse->args->command->name : "");
        if (found->type != RF_CLI_FLAG)
            return take_value(parse, found, letters[1] ? letters + 1 : NULL);
        status = set_option(parse, found, "");
    }
    return status;
}

/* A word: the command, the member of its group, or an argument. */
static enum rf_status take_word(struct parse *parse, char *word)
{
    struct rf_args *args = parse->args;
    char name[2 * WORD_MAX];

    if (!args->command) {
        args->command = find_command(word);
        if (!args->command || strchr(word, ' '))
            return unknown_command(NULL, word, parse->err);
        return RF_OK;
    }
    if (!args->command->run) {
        const char *group = args->command->name;

        snprintf(name, sizeof name, "%s %s", group, word);
        args->command = find_command(name);
        if (!args->command)
            return unknown_command(group, word, parse->err);
        return RF_OK;
    }
    args->words[args->word_count++] = word;
    return RF_OK;
}

static enum rf_status check_count(const struct rf_args *args, struct rf_error *err)
{
    const struct rf_command *command = args->command;

    if (args->help || args->version)
        return RF_OK;
    if (!command)
        return rf_error_set(err, RF_INVALID, "a command is missing; 'refuge help' lists them");
    if (!command->run)
        return rf_error_set(err, RF_INVALID, "'refuge %s' needs one of its commands; 'refuge help "
                            "%s' lists them", command->name, command->name);
    if (args->word_count < command->min)
        return rf_error_set(err, RF_INVALID, "'refuge %s' needs %s; see 'refuge help %s'",
                            command->name, command->arguments, command->name);
    if (command->max >= 0 && args->word_count > command->max)
        return rf_error_set(err, RF_INVALID, "'refuge %s' takes no argument '%s'; see 'refuge help "
                            "%s'", command->name, args->words[command->max], command->name);
    return RF_OK;
}

enum rf_status rf_args_parse(struct rf_args *out, int argc, char **argv, struct rf_error *err)
{
    struct parse parse = {.args = out, .argc = argc, .at = 1, .argv = argv, .err = err};
    enum rf_status status = RF_OK;
    bool only_words = false;

    assert(rf_cli_option_count <= RF_CLI_OPTIONS_MAX);
    memset(out, 0, sizeof *out);
    out->words = calloc((size_t)argc + 1, sizeof *out->words);
    if (!out->words)
        abort();
    while (parse.at < argc && status == RF_OK) {
        char *word = argv[parse.at++];
        bool dash_word = out->command && out->command->dash_words && strlen(word) > 2 &&
                         word[0] == '-' && word[1] != '-';

        if (only_words || dash_word || word[0] != '-' || word[1] == '\0')
            status = take_word(&parse, word);
        else if (strcmp(word, "--") == 0)
            only_words = true;
        else
            status = word[1] == '-' ? parse_long(&parse, word + 2) : parse_short(&parse, word + 1);
    }
    return status ? status : check_count(out, err);
}

void rf_args_release(struct rf_args *args)
{
    free(args->words);
    args->words = NULL;
}

/* The row of an option of this command; asserts that there is one. */
static size_t option_index(const struct rf_args *args, const char *name)
{
    for (size_t i = 0; i < rf_cli_option_count; i++) {
        if (strcmp(rf_cli_options[i].name, name) == 0 &&
            option_fits(&rf_cli_options[i], args->command))
            return i;
    }
    assert(!"a command asks for an option that the table does not give it");
    abort();
}

bool rf_args_flag(const struct rf_args *args, const char *name)
{
    return args->values[option_index(args, name)] != NULL;
}

const char *rf_args_text(const struct rf_args *args, const char *name)
{
    size_t index = option_index(args, name);

    return args->values[index] ? args->values[index] : rf_cli_options[index].fallback;
}

uint64_t rf_args_number(const struct rf_args *args, const char *name)
{
    const char *text = rf_args_text(args, name);

    return text ? strtoull(text, NULL, 10) : 0;
}

/* ---- help ---- */

/* Print text from this column on, wrapped at HELP_COLUMNS, further lines indented. */
static void print_wrapped(FILE *to, const char *text, size_t indent, size_t column)
{
    size_t start = column;

    while (*text) {
        size_t size = strcspn(text, " ");

        if (column > start && column + 1 + size > HELP_COLUMNS) {
            fprintf(to, "\n%*s", (int)indent, "");
            column = start = indent;
        }
        column += (size_t)fprintf(to, "%s%.*s", column > start ? " " : "", (int)size, text);
        text += size;
        text += *text == ' ';
    }
    fputc('\n', to);
}

static void print_option(FILE *to, const struct rf_cli_option *option)
{
    char left[64], help[512];
    int used;

    if (option->letter)
        used = snprintf(left, sizeof left, "  -%c, --%s", option->letter, option->name);
    else
        used = snprintf(left, sizeof left, "      --%s", option->name);
    if (option->argument)
        snprintf(left + used, sizeof left - (size_t)used, " %s", option->argument);
    fprintf(to, "%-28s", left);
    if (strlen(left) > 27)
        fprintf(to, "\n%28s", "");
    snprintf(help, sizeof help, "%s%s%s%s%s", option->help,
             option->type == RF_CLI_LIST ? "; may be given several times" : "",
             option->fallback ? " (default: " : "", option->fallback ? option->fallback : "",
             option->fallback ? ")" : "");
    print_wrapped(to, help, 28, 28);
}

static void print_options(FILE *to, const struct rf_command *command, bool global,
                          const char *title)
{
    bool any = false;

    for (size_t i = 0; i < rf_cli_option_count; i++) {
        if (is_global(&rf_cli_options[i]) != global || !option_fits(&rf_cli_options[i], command))
            continue;
        if (!any)
            fprintf(to, "\n%s\n", title);
        any = true;
        print_option(to, &rf_cli_options[i]);
    }
}

static void print_commands(FILE *to, const char *group)
{
    for (size_t i = 0; i < rf_command_count; i++) {
        const struct rf_command *command = &rf_commands[i];
        size_t size = strlen(group);
        char left[128];

        if (size && (strncmp(command->name, group, size) != 0 || command->name[size] != ' '))
            continue;
        if (!command->run)
            continue;
        snprintf(left, sizeof left, "%s%s%s", command->name, command->arguments[0] ? " " : "",
                 command->arguments);
        fprintf(to, "  %-26s", left);
        if (strlen(left) > 25)
            fprintf(to, "\n%28s", "");
        print_wrapped(to, command->help, 28, 28);
    }
}

static void print_examples(FILE *to, const char *examples)
{
    fprintf(to, "\nexamples:\n");
    while (*examples) {
        size_t size = strcspn(examples, "\t"), words;

        fprintf(to, "  %.*s\n", (int)size, examples);
        examples += size + (examples[size] == '\t');
        words = strcspn(examples, "\n");
        fprintf(to, "      %.*s\n", (int)words, examples);
        examples += words + (examples[words] == '\n');
    }
}

static void print_program(FILE *to)
{
    fprintf(to, "usage: refuge [OPTION]... COMMAND [ARGUMENT]...\n\n"
                "Keep data as immutable blobs, map them by Lua, ask them by SQL and search.\n\n"
                "commands:\n");
    print_commands(to, "");
    print_options(to, NULL, true, "options of every command:");
    fputc('\n', to);
    print_wrapped(to, "'refuge help COMMAND' says more. Exit status: 0 done, 1 failed, 2 usage, 3 "
                  "finished with items set aside, 10 no home, 11 locked, 12 no access, 75 "
                  "unreachable for now, 130 stopped.", 0, 0);
}

void rf_help_print(FILE *to, const struct rf_command *command)
{
    if (!command) {
        print_program(to);
        return;
    }
    if (!command->run) {
        fprintf(to, "usage: refuge %s COMMAND [ARGUMENT]...\n\n", command->name);
        print_wrapped(to, command->help, 0, 0);
        fprintf(to, "\ncommands:\n");
        print_commands(to, command->name);
        return;
    }
    fprintf(to, "usage: refuge %s [OPTION]...%s%s\n\n", command->name,
            command->arguments[0] ? " " : "", command->arguments);
    print_wrapped(to, command->help, 0, 0);
    if (command->text) {
        fputc('\n', to);
        print_wrapped(to, command->text, 0, 0);
    }
    print_options(to, command, false, "options:");
    print_options(to, command, true, "options of every command:");
    if (command->examples)
        print_examples(to, command->examples);
}

/* ---- help as JSON ---- */

static void json_member(struct rf_buf *buf, const char *key, struct rf_bytes value, bool known)
{
    if (buf->size && buf->data[buf->size - 1] != '{')
        rf_buf_put_u8(buf, ',');
    rf_json_put_string(buf, rf_bytes_text(key));
    rf_buf_put_u8(buf, ':');
    if (known)
        rf_json_put_string(buf, value);
    else
        rf_buf_put_text(buf, "null");
}

static void json_text(struct rf_buf *buf, const char *key, const char *value)
{
    json_member(buf, key, rf_bytes_text(value ? value : ""), value != NULL);
}

static void json_option_members(struct rf_buf *buf, const struct rf_cli_option *option)
{
    json_text(buf, "name", option->name);
    json_member(buf, "letter", rf_bytes(&option->letter, 1), option->letter != 0);
    json_text(buf, "argument", option->argument);
    json_text(buf, "default", option->fallback);
    rf_buf_put_text(buf, option->type == RF_CLI_LIST ? ",\"repeated\":true"
                                                     : ",\"repeated\":false");
    json_text(buf, "help", option->help);
}

static void json_options(struct rf_buf *buf, const struct rf_command *command)
{
    bool any = false;

    rf_buf_put_u8(buf, '[');
    for (size_t i = 0; i < rf_cli_option_count; i++) {
        if (is_global(&rf_cli_options[i]) || !option_fits(&rf_cli_options[i], command))
            continue;
        rf_buf_put_text(buf, any ? ",{" : "{");
        any = true;
        json_option_members(buf, &rf_cli_options[i]);
        rf_buf_put_u8(buf, '}');
    }
    rf_buf_put_u8(buf, ']');
}

static void json_examples(struct rf_buf *buf, const char *examples)
{
    bool any = false;

    rf_buf_put_u8(buf, '[');
    while (examples && *examples) {
        size_t size = strcspn(examples, "\t"), words = strcspn(examples, "\n");

        rf_buf_put_text(buf, any ? ",{" : "{");
        any = true;
        json_member(buf, "command", rf_bytes(examples, size), true);
        json_member(buf, "meaning", rf_bytes(examples + size + 1, words - size - 1), true);
        rf_buf_put_u8(buf, '}');
        examples += words + (examples[words] == '\n');
    }
    rf_buf_put_u8(buf, ']');
}

static void json_command(struct rf_out *out, const struct rf_command *command)
{
    struct rf_buf buf;

    rf_buf_init(&buf, 1 << 20);
    rf_out_begin(out, "command");
    rf_out_text(out, "name", command->name);
    rf_out_text(out, "arguments", command->arguments);
    rf_out_text(out, "help", command->help);
    rf_out_text(out, "text", command->text);
    json_options(&buf, command);
    rf_out_raw(out, "options", rf_buf_bytes(&buf));
    rf_buf_clear(&buf);
    json_examples(&buf, command->examples);
    rf_out_raw(out, "examples", rf_buf_bytes(&buf));
    rf_out_end(out);
    rf_buf_release(&buf);
}

/* Whether help of `asked` (NULL: of the program) tells of this command. */
static bool help_covers(const struct rf_command *asked, const struct rf_command *command)
{
    size_t size;

    if (!command->run)
        return false;
    if (!asked || asked == command)
        return true;
    size = strlen(asked->name);
    return !asked->run && strncmp(command->name, asked->name, size) == 0 &&
           command->name[size] == ' ';
}

void rf_help_json(struct rf_cli *cli, const struct rf_command *command)
{
    struct rf_buf buf;

    for (size_t i = 0; i < rf_cli_option_count; i++) {
        if (!is_global(&rf_cli_options[i]))
            continue;
        rf_buf_init(&buf, 1 << 16);
        rf_buf_put_text(&buf, "{\"type\":\"option\"");
        json_option_members(&buf, &rf_cli_options[i]);
        rf_buf_put_text(&buf, "}\n");
        (void)rf_out_write(cli, rf_buf_bytes(&buf));
        rf_buf_release(&buf);
    }
    for (size_t i = 0; i < rf_command_count; i++) {
        if (help_covers(command, &rf_commands[i]))
            json_command(&cli->out, &rf_commands[i]);
    }
}

/* ---- the manual ---- */

/* Text for mdoc: a sentence begins a line, no line starts with a control character. */
static void mdoc_text(FILE *to, const char *text)
{
    bool start = true;

    for (; *text; text++) {
        if (start && (*text == '.' || *text == '\''))
            fputs("\\&", to);
        if (*text == '\\')
            fputs("\\e", to);
        else
            fputc(*text, to);
        start = text[0] == '.' && text[1] == ' ';
        if (start) {
            fputc('\n', to);
            text++;
        }
    }
    fputc('\n', to);
}

static void mdoc_option(FILE *to, const struct rf_cli_option *option)
{
    fputs(".It ", to);
    if (option->letter)
        fprintf(to, "Fl %c , ", option->letter);
    fprintf(to, "Fl -%s", option->name);
    if (option->argument)
        fprintf(to, " Ar \\&%s", option->argument);
    fputc('\n', to);
    mdoc_text(to, option->help);
    if (option->type == RF_CLI_LIST)
        fputs("(may be given several times)\n", to);
    if (option->fallback)
        fprintf(to, "(default:\n.Ql %s )\n", option->fallback);
}

static void mdoc_options(FILE *to, const struct rf_command *command, bool global)
{
    bool any = false;

    for (size_t i = 0; i < rf_cli_option_count; i++) {
        if (is_global(&rf_cli_options[i]) != global || !option_fits(&rf_cli_options[i], command))
            continue;
        if (!any)
            fputs(".Bl -tag -width Ds\n", to);
        any = true;
        mdoc_option(to, &rf_cli_options[i]);
    }
    if (any)
        fputs(".El\n", to);
}

static void mdoc_examples(FILE *to, const char *examples)
{
    fputs(".Pp\nExamples:\n.Bl -tag -width Ds\n", to);
    while (*examples) {
        size_t size = strcspn(examples, "\t"), words;

        fputs(".It Li \"", to);
        for (size_t i = 0; i < size; i++)
            fputs(examples[i] == '"' ? "\\(dq" : examples[i] == '\\' ? "\\e"
                  : (char[2]){examples[i], '\0'}, to);
        fputs("\"\n", to);
        examples += size + (examples[size] == '\t');
        words = strcspn(examples, "\n");
        fprintf(to, "%.*s\n", (int)words, examples);
        examples += words + (examples[words] == '\n');
    }
    fputs(".El\n", to);
}

void rf_help_mdoc(FILE *to)
{
    fputs(".Sh OPTIONS\nEvery command takes these options.\n", to);
    mdoc_options(to, NULL, true);
    fputs(".Sh COMMANDS\n", to);
    for (size_t i = 0; i < rf_command_count; i++) {
        const struct rf_command *command = &rf_commands[i];

        if (!command->run)
            continue;
        fprintf(to, ".Ss refuge %s%s%s\n", command->name, command->arguments[0] ? " " : "",
                command->arguments);
        mdoc_text(to, command->help);
        if (command->text) {
            fputs(".Pp\n", to);
            mdoc_text(to, command->text);
        }
        mdoc_options(to, command, false);
        if (command->examples)
            mdoc_examples(to, command->examples);
    }
}
