/* definition.c - what `index create` wrote about an index */
#include "cmd/definition.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/conf.h"
#include "core/decl.h"
#include "core/json.h"

static const struct rf_option options[] = {
    {.name = "sink", .type = RF_OPTION_TEXT, .required = true, .help = "URL of where its rows go"},
    {.name = "mappers", .type = RF_OPTION_TEXTS,
     .help = "mapper files it uses instead of those of the home"},
    {.name = "policy", .type = RF_OPTION_TEXT,
     .help = "of mappers that change or come, instead of index.policy"},
    {.name = "reader", .type = RF_OPTION_TEXT, .help = "role that may read its tables"},
    {0},
};

static const struct rf_section sections[] = {
    {.name = "index", .options = options, .help = "where an index is kept"},
    {0},
};

/* ---- kinds of sinks ---- */

#define NO_SUCH_SINK                                                                               \
    "no such kind of sink; write sqlite:PATH, postgresql://USER@HOST/DATABASE or "                 \
    "elasticsearch+http://HOST:PORT"

static bool is_file(const char *word)
{
    return strncmp(word, "sqlite:", 7) == 0 && word[7];
}

static bool is_postgres(const char *word)
{
    return strncmp(word, "postgresql:", 11) == 0 || strncmp(word, "postgres:", 9) == 0;
}

bool rf_sink_url_is_elastic(const char *word)
{
    return strncmp(word, "elasticsearch+", 14) == 0 || strncmp(word, "opensearch+", 11) == 0;
}

static bool is_sink(const char *word)
{
    return is_file(word) || ((is_postgres(word) || rf_sink_url_is_elastic(word)) &&
                             strstr(word, "://"));
}

/* ---- the file ---- */

enum rf_status rf_definition_read(struct rf_definition *out, struct rf_arena *arena,
                                  const char *path, struct rf_error *err)
{
    const struct rf_json *table;
    struct rf_setting sink, mappers;
    struct rf_conf conf;
    enum rf_status status = rf_conf_read(&conf, arena, path, err);

    *out = (struct rf_definition){0};
    if (status == RF_OK)
        status = rf_conf_check(&conf, sections, err);
    if (status != RF_OK)
        return status;
    table = rf_conf_find(&conf, "index", NULL);
    if (!table)
        return rf_error_set(err, RF_INVALID, "%s: section 'index' is missing", path);
    sink = rf_conf_get(table, options, "sink");
    if (!is_sink(sink.text))
        return rf_error_set(err, RF_INVALID,
                            "%s:%u: cannot use sink '%s': " NO_SUCH_SINK, path, sink.line,
                            sink.text);
    out->sink = sink.text;
    out->policy = rf_conf_get(table, options, "policy").text;
    out->reader = rf_conf_get(table, options, "reader").text;
    mappers = rf_conf_get(table, options, "mappers");
    if (mappers.given) {
        const char **paths = rf_arena_alloc(arena, (mappers.count + 1) * sizeof *paths);
        for (size_t i = 0; i < mappers.count; i++)
            paths[i] = rf_setting_text(&mappers, i);
        out->mappers = paths;
        out->mapper_count = mappers.count;
    }
    return RF_OK;
}

static void put_member(struct rf_buf *buf, const char *name, const char *value)
{
    rf_buf_printf(buf, "%s\"%s\": ", strcmp(name, "sink") == 0 ? "" : ",\n    ", name);
    rf_json_put_string(buf, rf_bytes_text(value));
}

enum rf_status rf_definition_write(const struct rf_definition *definition, const char *path,
                                   struct rf_error *err)
{
    struct rf_buf buf;
    enum rf_status status = RF_OK;

    rf_buf_init(&buf, RF_CONF_SIZE_MAX);
    rf_buf_put_text(&buf, "{\"index\": {\n    ");
    put_member(&buf, "sink", definition->sink);
    if (definition->mappers) {
        rf_buf_put_text(&buf, ",\n    \"mappers\": [");
        for (size_t i = 0; i < definition->mapper_count; i++) {
            rf_buf_put_text(&buf, i ? ", " : "");
            rf_json_put_string(&buf, rf_bytes_text(definition->mappers[i]));
        }
        rf_buf_put_text(&buf, "]");
    }
    if (definition->policy)
        put_member(&buf, "policy", definition->policy);
    if (definition->reader)
        put_member(&buf, "reader", definition->reader);
    rf_buf_put_text(&buf, "\n}}\n");
    if (buf.failed)
        status = rf_error_set(err, buf.failed, "cannot write '%s': it would be too large", path);
    else if (!rf_file_replace(path, rf_buf_bytes(&buf)))
        status = rf_error_errno(err, rf_status_of_errno(errno), errno, "cannot write '%s'", path);
    rf_buf_release(&buf);
    return status;
}

/* ---- URLs ---- */

static char *absolute_path(const char *path)
{
    char *folder, *whole;

    if (path[0] == '/')
        return strdup(path);
    folder = getcwd(NULL, 0);
    whole = folder ? rf_path_join(folder, path) : strdup(path);
    free(folder);
    return whole;
}

/* "user:secret@" or a parameter "password=" or "apikey=". */
static bool has_password(const char *rest)
{
    size_t authority = strcspn(rest, "/?"); /* a '#' may be of the password */
    const char *at = memchr(rest, '@', authority), *colon = memchr(rest, ':', authority);
    const char *query = strchr(rest, '?');

    if (at && colon && colon < at)
        return true;
    for (; query; query = strchr(query + 1, '&')) {
        if (strncmp(query + 1, "password=", 9) == 0 || strncmp(query + 1, "apikey=", 7) == 0)
            return true;
    }
    return false;
}

/* "my-notes" as a schema: "my_notes". */
static void schema_name(char *out, size_t size, const char *index)
{
    snprintf(out, size, "#%s", index);
    for (; *out; out++)
        *out = *out == '-' ? '_' : *out;
}

enum rf_status rf_sink_url(char **out, const char *word, const char *index, struct rf_error *err)
{
    const char *rest = strstr(word, "://");
    char schema[RF_NAME_MAX + 2];
    char *path;

    if (!is_sink(word))
        return rf_error_set(err, RF_INVALID, "cannot use sink '%s': " NO_SUCH_SINK, word);
    if (is_file(word)) {
        path = absolute_path(word + 7);
        *out = rf_text_join("sqlite:", path, "");
        free(path);
        return RF_OK;
    }
    if (has_password(rest + 3) && rf_sink_url_is_elastic(word))
        return rf_error_set(err, RF_INVALID,
                            "a password in a URL is seen by everybody who lists processes; put "
                            "USER:PASSWORD, or an API key, into a file that only you can read "
                            "(mode 600) and write "
                            "elasticsearch+https://HOST:PORT?passfile=FILE, or ?apikeyfile=FILE");
    if (has_password(rest + 3))
        return rf_error_set(err, RF_INVALID,
                            "a password in a URL is seen by everybody who lists processes; put it "
                            "into a file of libpq's passfile format that only you can read (mode "
                            "600, default ~/.pgpass) and write "
                            "postgresql://USER@HOST/DATABASE?passfile=FILE");
    schema_name(schema, sizeof schema, index);
    *out = rf_text_join(word, strchr(word, '#') ? "" : schema, "");
    return RF_OK;
}
