/*
 * index_home.c - the indexes of a home: their files, mappers and settings
 */
#include "cmd/index_home.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/settings.h"

/* ---- names ---- */

void rf_names_free(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

static void add_name(char ***names, size_t *count, char *name)
{
    char **more = realloc(*names, (*count + 1) * sizeof **names);

    if (!more || !name)
        abort();
    more[(*count)++] = name;
    *names = more;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* File names of a folder that end so, without hidden ones, sorted; NULL when it is not there. */
static char **folder_names(const char *folder, const char *suffix, size_t *count)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    char **names = NULL;

    *count = 0;
    while (dir && (entry = readdir(dir)) != NULL) {
        size_t size = strlen(entry->d_name), end = strlen(suffix);

        if (entry->d_name[0] != '.' && size > end &&
            strcmp(entry->d_name + size - end, suffix) == 0)
            add_name(&names, count, strdup(entry->d_name));
    }
    if (dir)
        closedir(dir);
    if (*count)
        qsort(names, *count, sizeof *names, compare_names);
    return names;
}

#define DEFINITION_PREFIX "index-"

static void cut_end(char **names, size_t count, size_t end)
{
    for (size_t i = 0; i < count; i++)
        names[i][strlen(names[i]) - end] = '\0';
}

char **rf_index_names(struct rf_cli *cli, size_t *count)
{
    size_t defined_count, prefix = strlen(DEFINITION_PREFIX);
    char **names = folder_names(cli->home.index_dir, ".db", count);
    char **defined = folder_names(cli->home.conf_dir, ".json", &defined_count);

    cut_end(names, *count, 3);
    cut_end(defined, defined_count, 5);
    for (size_t i = 0; i < defined_count; i++) {
        bool known = strncmp(defined[i], DEFINITION_PREFIX, prefix) != 0;

        for (size_t k = 0; k < *count && !known; k++)
            known = strcmp(names[k], defined[i] + prefix) == 0;
        if (!known)
            add_name(&names, count, strdup(defined[i] + prefix));
    }
    rf_names_free(defined, defined_count);
    if (*count)
        qsort(names, *count, sizeof *names, compare_names);
    return names;
}

static bool valid_name(const char *name)
{
    size_t size = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-");

    return size > 0 && size <= RF_NAME_MAX && name[size] == '\0' && name[0] >= 'a' &&
           name[0] <= 'z';
}

/* ---- mappers ---- */

void rf_mapper_path_name(const char *path, char *out, size_t size)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, *dot;

    if (strncmp(base, "bundled:", 8) == 0)
        base += 8;
    dot = strrchr(base, '.');
    snprintf(out, size, "%.*s", (int)(dot ? (size_t)(dot - base) : strlen(base)), base);
}

static bool is_disabled(const struct rf_cli *cli, const char *path)
{
    const char *const *names;
    size_t count = rf_settings_disabled(cli->settings, &names);
    char name[RF_NAME_MAX + 1];

    rf_mapper_path_name(path, name, sizeof name);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0)
            return true;
    }
    return false;
}

char **rf_mapper_paths(struct rf_cli *cli, size_t *count)
{
    const char *const *paths;
    size_t path_count = rf_settings_mappers(cli->settings, &paths), own_count;
    char **own = folder_names(cli->home.mapper_dir, ".lua", &own_count), **names = NULL;

    *count = 0;
    for (size_t i = 0; rf_settings_bundled(cli->settings) && rf_pool_bundled(i); i++) {
        if (strcmp(rf_pool_bundled(i), RF_MAPPER_TEMPLATE) != 0 &&
            !is_disabled(cli, rf_pool_bundled(i)))
            add_name(&names, count, rf_text_join("bundled:", rf_pool_bundled(i), ""));
    }
    for (size_t i = 0; i < path_count; i++) {
        if (is_disabled(cli, paths[i]))
            continue;
        if (paths[i][0] == '/' || strncmp(paths[i], "bundled:", 8) == 0)
            add_name(&names, count, strdup(paths[i]));
        else
            add_name(&names, count, rf_path_join(cli->home.path, paths[i]));
    }
    for (size_t i = 0; i < own_count; i++) {
        if (own[i][0] != '_' && !is_disabled(cli, own[i])) /* "_x.lua" is a module of others */
            add_name(&names, count, rf_path_join(cli->home.mapper_dir, own[i]));
    }
    rf_names_free(own, own_count);
    return names;
}

char **rf_index_mapper_paths(struct rf_cli *cli, const struct rf_index_home *index, size_t *count)
{
    char **names = NULL;

    if (!index->definition.mappers)
        return rf_mapper_paths(cli, count);
    *count = 0;
    for (size_t i = 0; i < index->definition.mapper_count; i++)
        add_name(&names, count, rf_mapper_find(cli, index->definition.mappers[i]));
    return names;
}

char *rf_mapper_find(struct rf_cli *cli, const char *word)
{
    size_t count;
    char **paths, *found = NULL;

    if (strchr(word, '/') || access(word, F_OK) == 0 || strncmp(word, "bundled:", 8) == 0)
        return strdup(word);
    paths = rf_mapper_paths(cli, &count);
    for (size_t i = 0; i < count; i++) {
        char name[RF_NAME_MAX + 1];

        rf_mapper_path_name(paths[i], name, sizeof name);
        if (strcmp(name, word) == 0) { /* the home's own come last and win */
            free(found);
            found = strdup(paths[i]);
        }
    }
    rf_names_free(paths, count);
    return found ? found : strdup(word);
}

char **rf_mapper_arguments(struct rf_cli *cli, size_t *count)
{
    char **paths = NULL;

    if (cli->args.word_count == 0)
        return rf_mapper_paths(cli, count);
    *count = 0;
    for (int i = 0; i < cli->args.word_count; i++)
        add_name(&paths, count, rf_mapper_find(cli, cli->args.words[i]));
    return paths;
}

const char *rf_mapper_program(void)
{
    const char *program = getenv("REFUGE_MAPPER");

    return program && program[0] ? program : NULL;
}

/* ---- one index ---- */

/* Where the index is kept: as its definition says, else in the home's folder. */
static enum rf_status find_sink(struct rf_index_home *out, const char *stem, struct rf_error *err)
{
    enum rf_status status =
        rf_definition_read(&out->definition, &out->arena, out->definition_path, err);

    if (status != RF_OK && status != RF_NOT_FOUND)
        return status;
    rf_error_clear(err);
    out->defined = status == RF_OK;
    out->url = out->defined ? strdup(out->definition.sink) : rf_text_join("sqlite:", stem, ".db");
    if (strncmp(out->url, "sqlite:", 7) == 0)
        out->path = strdup(out->url + 7);
    out->place = out->path ? out->path : out->url;
    out->verify_url = out->path ? rf_text_join(out->url, RF_INDEX_VERIFY_SUFFIX, "")
                                : rf_text_join("sqlite:", stem, ".db" RF_INDEX_VERIFY_SUFFIX);
    return RF_OK;
}

bool rf_index_home_look(struct rf_index_home *out, struct rf_cli *cli, const char *name,
                        struct rf_error *broken, int *code)
{
    struct rf_error err = {0};
    char *stem, *file;

    memset(out, 0, sizeof *out);
    rf_error_clear(broken);
    rf_arena_init(&out->arena, (size_t)4 << 20);
    out->name = name ? name : RF_INDEX_DEFAULT;
    if (!valid_name(out->name)) {
        *code = rf_fail_with(cli, RF_EXIT_USAGE,
                             "'%s' cannot be the name of an index: a letter, then "
                             "letters, digits, '_' or '-', all lower case, at most %d",
                             out->name, RF_NAME_MAX);
        return false;
    }
    if (strcmp(out->name, RF_INDEX_DEFAULT) != 0)
        snprintf(out->argument, sizeof out->argument, " %s", out->name);
    stem = rf_path_join(cli->home.index_dir, out->name);
    file = rf_text_join(DEFINITION_PREFIX, out->name, ".json");
    out->definition_path = rf_path_join(cli->home.conf_dir, file);
    out->metadata_path = rf_text_join(stem, ".metadata.json", "");
    out->paused_path = rf_text_join(stem, ".paused", "");
    free(file);
    if (find_sink(out, stem, &err) != RF_OK)
        rf_error_set(broken, err.status,
                     "cannot tell where index '%s' is kept: %s; mend that file, or 'refuge index "
                     "drop %s' removes it",
                     out->name, err.message, out->name);
    else
        out->exists = !out->path || access(out->path, F_OK) == 0;
    free(stem);
    return true;
}

bool rf_index_home_init(struct rf_index_home *out, struct rf_cli *cli, const char *name,
                        bool must_exist, int *code)
{
    struct rf_error broken;

    if (!rf_index_home_look(out, cli, name, &broken, code))
        return false;
    if (broken.status != RF_OK) {
        *code = rf_fail(cli, &broken);
        return false;
    }
    if (must_exist && !out->exists) {
        *code = rf_fail_no_index(cli, out);
        return false;
    }
    return true;
}

int rf_fail_no_index(struct rf_cli *cli, const struct rf_index_home *index)
{
    if (index->defined || strcmp(index->name, RF_INDEX_DEFAULT) == 0)
        return rf_fail_with(cli, RF_EXIT_FAILED,
                            "there is no index '%s' yet; 'refuge index run%s' makes it",
                            index->name, index->argument);
    return rf_fail_with(cli, RF_EXIT_FAILED,
                        "there is no index '%s'; 'refuge index create %s' makes it, 'refuge index "
                        "list' names those there are",
                        index->name, index->name);
}

void rf_index_home_release(struct rf_index_home *index)
{
    free(index->path);
    free(index->url);
    free(index->verify_url);
    free(index->definition_path);
    rf_arena_release(&index->arena);
    free(index->metadata_path);
    free(index->paused_path);
    memset(index, 0, sizeof *index);
}

struct rf_sink *rf_index_home_sink(struct rf_cli *cli, const struct rf_index_home *index,
                                   bool write, int *code)
{
    struct rf_sink_options options = {.name = index->name, .write = write};
    uint64_t wait_s = write ? rf_args_number(&cli->args, "wait") : 0;
    struct rf_sink *sink = NULL;
    struct rf_error err = {0};
    enum rf_status status;

    options.writer_token = (uint64_t)rf_now_us() << 16 ^ (uint64_t)getpid();
    status = rf_sink_open(&sink, index->url, &options, &err);
    if (status == RF_LOCKED && wait_s > 0) {
        rf_say(cli, "%s; waiting up to %llu s", err.message, (unsigned long long)wait_s);
        rf_error_clear(&err);
        options.lock_timeout_ms = wait_s > INT32_MAX / 1000 ? INT32_MAX : (int)wait_s * 1000;
        status = rf_sink_open(&sink, index->url, &options, &err);
    }
    if (status == RF_OK)
        return sink;
    *code = rf_fail(cli, &err);
    if (status == RF_LOCKED && write) {
        rf_say_wait(cli, wait_s);
        rf_say(cli, "one that follows never ends: 'refuge index pause%s' has it let go, 'refuge "
                    "index resume%s' go on", index->argument, index->argument);
    }
    return NULL;
}

bool rf_index_paused(const struct rf_index_home *index)
{
    return access(index->paused_path, F_OK) == 0;
}

void rf_index_home_counts(const struct rf_index_home *index, struct rf_sink_counts *out)
{
    struct rf_sink_lane *lanes;
    struct rf_sink_options options = {.name = index->name};
    struct rf_sink *sink;
    struct rf_arena arena;
    size_t count = 0;

    *out = (struct rf_sink_counts){0};
    if (rf_sink_open(&sink, index->url, &options, NULL))
        return;
    rf_arena_init(&arena, (size_t)64 << 20);
    if (rf_sink_lanes(sink, &arena, &lanes, &count, NULL) == RF_OK && count > 0)
        (void)!rf_sink_counts(sink, lanes[0].id, out, NULL);
    rf_arena_release(&arena);
    rf_sink_close(sink);
}
