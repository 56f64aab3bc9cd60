/*
 * elastic_schema.c - what the indexes of an index look like
 *
 * Mappings are strict and name every field: a document with another one is refused. `_meta` says
 * that an index is ours and whose, and no other is ever written or deleted. Rows hold their columns
 * under their own names, and what is refuge's under `refuge`: the item, the row's number in it, and
 * the words that `refuge search` looks for. Words are cut here (lexemes.h), so that a search finds
 * what it finds in the other kinds of index; the columns themselves are analysed as the server's
 * `standard` analyzer does, for whoever asks it directly.
 */
#include "sinks/sink_elastic.h"

#include "core/control.h"

#include <stdio.h>

#define KEYWORD_MAX 8191 /* characters: 32,766 bytes are the most that the server takes */

void rf_elastic_table_index(char out[RF_ELASTIC_NAME], const struct rf_elastic *sink,
                            const char *table, int64_t gen)
{
    snprintf(out, RF_ELASTIC_NAME, "%s-%s-%lld", rf_es_prefix(sink->es), table, (long long)gen);
}

static void put_settings(struct rf_buf *out, const struct rf_elastic *sink, bool hidden)
{
    rf_buf_printf(out,
                  "{\"settings\":{\"index\":{\"number_of_shards\":1,\"number_of_replicas\":%u,"
                  "\"refresh_interval\":\"-1\",\"gc_deletes\":\"24h\"%s}},\"mappings\":{\"_meta\":"
                  "{\"refuge\":{\"format\":%d,\"prefix\":\"%s\"}},\"dynamic\":\"strict\","
                  "\"properties\":{",
                  hidden ? rf_es_replicas(sink->es) : 0, hidden ? ",\"hidden\":true" : "",
                  RF_ELASTIC_FORMAT, rf_es_prefix(sink->es));
}

/* A whole answer of a PUT that makes an index. */
static enum rf_status make(struct rf_elastic *sink, const char *index, struct rf_buf *body,
                           bool again, struct rf_error *err)
{
    struct rf_es_reply reply;
    enum rf_status status = body->failed;

    if (!status)
        status = rf_es_call(sink->es, &reply, "PUT", rf_buf_bytes(body), err, "/%s", index);
    if (status)
        return status;
    if (reply.status == 400 && strstr(reply.error, "already_exists"))
        return again ? rf_elastic_check_ours(sink, index, err)
                     : rf_error_set(err, RF_EXISTS, "index '%s' is there already", index);
    return reply.status < 300 ? RF_OK
                              : rf_es_unexpected(sink->es, &reply, "make an index", err);
}

enum rf_status rf_elastic_make_own(struct rf_elastic *sink, struct rf_error *err)
{
    static const char fields[] =
        "\"kind\":{\"type\":\"keyword\"},\"item\":{\"type\":\"keyword\"},"
        "\"child\":{\"type\":\"keyword\"},\"gen\":{\"type\":\"long\"},\"n\":{\"type\":\"long\"},"
        "\"offset\":{\"type\":\"long\",\"index\":false},"
        "\"type\":{\"type\":\"keyword\"},\"size\":{\"type\":\"long\",\"index\":false},"
        "\"ts\":{\"type\":\"long\",\"index\":false},\"mtime\":{\"type\":\"long\",\"index\":false},"
        "\"seq\":{\"type\":\"long\"},\"deleted\":{\"type\":\"boolean\"},"
        "\"name\":{\"type\":\"keyword\",\"ignore_above\":8191,\"doc_values\":false},"
        "\"batch\":{\"type\":\"long\"},\"fresh\":{\"type\":\"boolean\"},"
        "\"park\":{\"type\":\"keyword\"},\"park_at\":{\"type\":\"long\"},"
        "\"dead\":{\"type\":\"long\"},\"cut\":{\"type\":\"long\"},"
        "\"miss\":{\"type\":\"keyword\"},\"have\":{\"type\":\"keyword\"},"
        "\"gens\":{\"type\":\"long\"},"
        "\"calls\":{\"type\":\"object\",\"enabled\":false},"
        "\"prev\":{\"type\":\"object\",\"enabled\":false},"
        "\"junk\":{\"type\":\"object\",\"enabled\":false},"
        "\"body\":{\"type\":\"object\",\"enabled\":false}}}}";
    struct rf_buf body;
    enum rf_status status;

    rf_buf_init(&body, 1 << 16);
    put_settings(&body, sink, true);
    rf_buf_put_text(&body, fields);
    status = make(sink, sink->own, &body, true, err);
    rf_buf_release(&body);
    return status;
}

static void put_column(struct rf_buf *out, const struct rf_column *column)
{
    rf_buf_printf(out, "\"%s\":", column->name);
    switch (column->type) {
    case RF_TYPE_INT:
        rf_buf_put_text(out, "{\"type\":\"long\"}");
        break;
    case RF_TYPE_FLOAT:
        rf_buf_put_text(out, "{\"type\":\"double\"}");
        break;
    case RF_TYPE_BOOL:
        rf_buf_put_text(out, "{\"type\":\"boolean\"}");
        break;
    case RF_TYPE_TIME:
        rf_buf_printf(out, "{\"type\":\"date\"},\"%s_offset\":{\"type\":\"long\"}", column->name);
        break;
    case RF_TYPE_JSON:
        rf_buf_put_text(out, "{\"type\":\"keyword\",\"index\":false,\"doc_values\":false}");
        break;
    case RF_TYPE_TEXT:
        if (column->search && column->facet)
            rf_buf_printf(out,
                          "{\"type\":\"text\",\"fields\":{\"raw\":{\"type\":\"keyword\","
                          "\"ignore_above\":%d}}}",
                          KEYWORD_MAX);
        else if (column->search)
            rf_buf_put_text(out, "{\"type\":\"text\"}");
        else
            rf_buf_printf(out, "{\"type\":\"keyword\",\"ignore_above\":%d}", KEYWORD_MAX);
        break;
    default:
        rf_buf_put_text(out, "{\"type\":\"keyword\"}");
        break;
    }
}

enum rf_status rf_elastic_make_table(struct rf_elastic *sink, const struct rf_el_table *table,
                                     struct rf_error *err)
{
    struct rf_error why = {0};
    struct rf_buf body;
    enum rf_status status;

    rf_buf_init(&body, 1 << 20);
    put_settings(&body, sink, false);
    for (size_t i = 0; i < table->decl->column_count; i++) {
        put_column(&body, &table->decl->columns[i]);
        rf_buf_put_u8(&body, ',');
    }
    rf_buf_put_text(&body, "\"refuge\":{\"properties\":{\"item\":{\"type\":\"keyword\"},"
                           "\"n\":{\"type\":\"long\"}");
    if (table->search_count)
        rf_buf_put_text(&body, ",\"words\":{\"type\":\"text\",\"analyzer\":\"whitespace\"}");
    rf_buf_put_text(&body, "}}}}}");
    status = make(sink, table->index, &body, false, &why);
    if (status == RF_EXISTS) { /* of a lane that came to nothing */
        status = rf_elastic_drop_index(sink, table->index, err);
        if (!status)
            status = make(sink, table->index, &body, false, err);
    } else if (status) {
        rf_error_set(err, status, "%s", why.message);
    }
    rf_buf_release(&body);
    return status;
}

/* ---- what is there ---- */

static const struct rf_json *mapping_of(const struct rf_json *index)
{
    return rf_json_find(index, "mappings");
}

/* Of the refuge that made an index; NULL: none did. */
static const char *prefix_of(const struct rf_json *index)
{
    const struct rf_json *meta = rf_json_find(mapping_of(index), "_meta");

    return rf_json_string(rf_json_find(rf_json_find(meta, "refuge"), "prefix"));
}

bool rf_elastic_is_ours(const struct rf_elastic *sink, const struct rf_json *index)
{
    const char *prefix = prefix_of(index);

    return prefix && strcmp(prefix, rf_es_prefix(sink->es)) == 0;
}

static enum rf_status not_ours(const struct rf_elastic *sink, const char *index,
                               struct rf_error *err)
{
    return rf_error_set(err, RF_DENIED,
                        "index '%s' at '%s' was not made by refuge for this prefix and is left "
                        "alone: name another prefix behind '#'",
                        index, rf_es_name(sink->es));
}

static enum rf_status get_mapping(struct rf_elastic *sink, const char *index,
                                  struct rf_es_reply *reply, struct rf_error *err)
{
    enum rf_status status =
        rf_es_call(sink->es, reply, "GET", rf_bytes(NULL, 0), err, "/%s/_mapping", index);

    if (status)
        return status;
    if (reply->status == 404)
        return rf_error_set(err, RF_NOT_FOUND, "there is no index '%s' at '%s'", index,
                            rf_es_name(sink->es));
    if (reply->status >= 300 || !reply->json || reply->json->type != RF_JSON_OBJECT)
        return rf_es_unexpected(sink->es, reply, "read a mapping", err);
    return RF_OK;
}

enum rf_status rf_elastic_check_ours(struct rf_elastic *sink, const char *index,
                                     struct rf_error *err)
{
    struct rf_es_reply reply;
    enum rf_status status = get_mapping(sink, index, &reply, err);

    for (size_t i = 0; !status && i < reply.json->count; i++)
        if (!rf_elastic_is_ours(sink, &reply.json->items[i]))
            return not_ours(sink, index, err);
    return status;
}

enum rf_status rf_elastic_check_prefix(struct rf_elastic *sink, struct rf_error *err)
{
    struct rf_es_reply reply;
    enum rf_status status =
        rf_es_call(sink->es, &reply, "GET", rf_bytes(NULL, 0), err,
                   "/%s-*/_mapping?expand_wildcards=all", rf_es_prefix(sink->es));

    if (status || reply.status == 404)
        return status;
    if (reply.status >= 300)
        return rf_es_unexpected(sink->es, &reply, "list indexes", err);
    for (size_t i = 0; reply.json && i < reply.json->count; i++)
        if (!prefix_of(&reply.json->items[i])) /* that of another refuge may go on as 'one-two' */
            return rf_error_set(err, RF_DENIED,
                                "cannot make an index at '%s': index '%s' has a name or an alias "
                                "that begins with '%s-', and was not made by refuge: name another "
                                "prefix behind '#'",
                                rf_es_name(sink->es),
                                (const char *)reply.json->items[i].key.data,
                                rf_es_prefix(sink->es));
    return RF_OK;
}

static const char *type_of(const struct rf_json *properties, const char *field)
{
    const char *type = rf_json_string(rf_json_find(rf_json_find(properties, field), "type"));

    return type ? type : "";
}

static const char *wanted_type(const struct rf_column *column)
{
    static const char *const types[RF_TYPE_COUNT] = {
        [RF_TYPE_INT] = "long",     [RF_TYPE_FLOAT] = "double", [RF_TYPE_BOOL] = "boolean",
        [RF_TYPE_TEXT] = "keyword", [RF_TYPE_JSON] = "keyword", [RF_TYPE_TIME] = "date",
        [RF_TYPE_BLOBREF] = "keyword"};

    return column->type == RF_TYPE_TEXT && column->search ? "text" : types[column->type];
}

enum rf_status rf_elastic_check_table(struct rf_elastic *sink, const struct rf_el_table *table,
                                      struct rf_error *err)
{
    struct rf_es_reply reply;
    struct rf_error why = {0};
    const struct rf_json *properties;
    enum rf_status status = get_mapping(sink, table->index, &reply, &why);

    if (status == RF_NOT_FOUND)
        return rf_error_set(err, RF_UNSOUND,
                            "index '%s' at '%s' is gone, it held table '%s': remove what is left "
                            "by 'refuge index drop' and make it again",
                            table->index, rf_es_name(sink->es), table->decl->name);
    if (status)
        return rf_error_set(err, status, "%s", why.message);
    if (reply.json->count != 1 || !rf_elastic_is_ours(sink, &reply.json->items[0]))
        return not_ours(sink, table->index, err);
    properties = rf_json_find(mapping_of(&reply.json->items[0]), "properties");
    for (size_t i = 0; i < table->decl->column_count; i++) {
        const struct rf_column *column = &table->decl->columns[i];
        if (strcmp(type_of(properties, column->name), wanted_type(column)) != 0)
            return rf_error_set(err, RF_UNSOUND,
                                "index '%s' at '%s' was changed behind refuge's back: field '%s' "
                                "is of type '%s', should be '%s'; remove it by 'refuge index "
                                "drop' and make it again",
                                table->index, rf_es_name(sink->es), column->name,
                                type_of(properties, column->name), wanted_type(column));
    }
    return RF_OK;
}

enum rf_status rf_elastic_check_alias(struct rf_elastic *sink, const struct rf_table *table,
                                      struct rf_error *err)
{
    char alias[RF_ELASTIC_NAME];
    struct rf_es_reply reply;
    struct rf_error why = {0};
    enum rf_status status;

    snprintf(alias, sizeof alias, "%s-%s", rf_es_prefix(sink->es), table->name);
    status = get_mapping(sink, alias, &reply, &why);
    if (status == RF_NOT_FOUND)
        return RF_OK;
    if (status)
        return rf_error_set(err, status, "%s", why.message);
    for (size_t i = 0; i < reply.json->count; i++) {
        const char *name = (const char *)reply.json->items[i].key.data;

        if (strcmp(name, alias) == 0)
            return rf_error_set(err, RF_INVALID,
                                "an index '%s' at '%s', which was not made by refuge and is left "
                                "alone, stands where the alias of table '%s' should: name another "
                                "prefix behind '#', or \"DELETE /%s\" takes it away with all it "
                                "holds",
                                alias, rf_es_name(sink->es), table->name, alias);
        if (!rf_elastic_is_ours(sink, &reply.json->items[i]))
            return rf_error_set(err, RF_INVALID,
                                "alias '%s' at '%s', of table '%s', is on index '%s', which was "
                                "not made by refuge: \"DELETE /%s/_alias/%s\" takes it off",
                                alias, rf_es_name(sink->es), table->name, name, name, alias);
    }
    return RF_OK;
}

enum rf_status rf_elastic_drop_index(struct rf_elastic *sink, const char *index,
                                     struct rf_error *err)
{
    struct rf_es_reply reply;
    struct rf_error why = {0};
    enum rf_status status = rf_elastic_check_ours(sink, index, &why);

    if (status == RF_NOT_FOUND)
        return RF_OK;
    if (status)
        return rf_error_set(err, status, "%s", why.message);
    status = rf_es_call(sink->es, &reply, "DELETE", rf_bytes(NULL, 0), err, "/%s", index);
    if (!status && reply.status >= 300 && reply.status != 404)
        status = rf_es_unexpected(sink->es, &reply, "delete an index", err);
    return status;
}

/* ---- aliases ---- */

/* Tables of mappers that left lose their alias, unless one that stays has it. What is deleted
 * already has none, and the server refuses all actions when one names it. */
static enum rf_status put_removals(struct rf_buf *out, struct rf_elastic *sink, bool *any,
                                   struct rf_error *err)
{
    const struct rf_el_state *state = &sink->state;

    for (size_t i = 0; i < state->doomed_count; i++) {
        for (size_t k = 0; k < state->doomed[i].table_count; k++) {
            char index[RF_ELASTIC_NAME];
            struct rf_error why = {0};
            enum rf_status status;

            rf_elastic_table_index(index, sink, state->doomed[i].tables[k], state->doomed[i].gen);
            status = rf_elastic_check_ours(sink, index, &why);
            if (status == RF_NOT_FOUND && RF_SAFEGUARD("sink-doomed-alias"))
                continue;
            if (status && status != RF_NOT_FOUND)
                return rf_error_set(err, status, "%s", why.message);
            rf_buf_printf(out, "%s{\"remove\":{\"index\":\"%s\",\"alias\":\"%s-%s\","
                          "\"must_exist\":false}}",
                          *any ? "," : "", index, rf_es_prefix(sink->es),
                          state->doomed[i].tables[k]);
            *any = true;
        }
    }
    return RF_OK;
}

static void put_additions(struct rf_buf *out, const struct rf_elastic *sink,
                          const struct rf_el_lane *lane, bool *any)
{
    for (size_t i = 0; i < lane->mapper_count; i++) {
        const struct rf_el_mapper *mapper = &lane->mappers[i];
        for (size_t k = 0; !mapper->edges_only && k < mapper->decl->table_count; k++) {
            rf_buf_printf(out, "%s{\"add\":{\"index\":\"%s\",\"alias\":\"%s-%s\"}}",
                          *any ? "," : "", mapper->tables[k].index, rf_es_prefix(sink->es),
                          mapper->tables[k].decl->name);
            *any = true;
        }
    }
}

enum rf_status rf_elastic_set_aliases(struct rf_elastic *sink, struct rf_error *err)
{
    struct rf_es_reply reply;
    struct rf_buf body;
    bool any = false;
    enum rf_status status;

    rf_buf_init(&body, 4 << 20);
    rf_buf_put_text(&body, "{\"actions\":[");
    status = put_removals(&body, sink, &any, err);
    for (size_t i = 0; i < sink->state.lane_count; i++)
        if (sink->state.lanes[i]->state == RF_EL_LIVE)
            put_additions(&body, sink, sink->state.lanes[i], &any);
    rf_buf_put_text(&body, "]}");
    if (!status && any)
        status = rf_es_call(sink->es, &reply, "POST", rf_buf_bytes(&body), err, "/_aliases");
    if (any && !status && reply.status >= 300)
        status = rf_es_unexpected(sink->es, &reply, "set aliases", err);
    rf_buf_release(&body);
    return status;
}
