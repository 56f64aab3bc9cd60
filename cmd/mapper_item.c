/*
 * mapper_item.c - one item for a mapper, from the store, a local file or a test, and its rows
 */
#include "cmd/mapper_item.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "sinks/sink.h"

#define CONTENT_MAX ((size_t)1 << 30) /* bytes of a part held in memory */

void rf_mapper_item_init(struct rf_mapper_item *item)
{
    memset(item, 0, sizeof *item);
    rf_arena_init(&item->arena, (size_t)256 << 20);
    rf_buf_init(&item->content, CONTENT_MAX);
    item->item.mtime_us = item->item.timestamp_us = INT64_MIN;
    item->item.user = item;
}

void rf_mapper_item_release(struct rf_mapper_item *item)
{
    rf_store_close(item->scratch);
    rf_arena_release(&item->arena);
    rf_buf_release(&item->content);
    free(item->name);
    free(item->media);
    memset(item, 0, sizeof *item);
}

/* ---- where content comes from ---- */

static enum rf_status read_item(void *user, struct rf_item *one, uint64_t offset, void *out,
                                size_t size, size_t *got, struct rf_error *err)
{
    struct rf_mapper_item *item = one->user;

    (void)user;
    if (item->item.content) {
        uint64_t left = offset < one->size ? one->size - offset : 0;

        *got = size < left ? size : (size_t)left;
        memcpy(out, item->item.content + (*got ? offset : 0), *got);
        return RF_OK;
    }
    if (one->kind == RF_ITEM_FILE)
        return rf_file_read(item->store, &item->file, offset, out, size, got, err);
    return rf_store_read(item->store, &one->ref, offset, out, size, got, err);
}

static enum rf_status stat_need(void *user, const struct rf_blobref *ref, uint64_t *size,
                                struct rf_error *err)
{
    struct rf_stat stat;
    enum rf_status status;

    if (!user)
        return RF_NOT_FOUND;
    status = rf_store_stat(user, ref, &stat, err);
    if (status == RF_OK)
        *size = stat.size;
    else if (status == RF_NOT_FOUND)
        rf_error_clear(err);
    return status;
}

static enum rf_status read_need(void *user, const struct rf_blobref *ref, uint64_t offset,
                                void *out, size_t size, size_t *got, struct rf_error *err)
{
    return user ? rf_store_read(user, ref, offset, out, size, got, err) : RF_NOT_FOUND;
}

/* ---- making items ---- */

static void become_file(struct rf_mapper_item *item)
{
    struct rf_item *one = &item->item;

    one->kind = RF_ITEM_FILE;
    one->size = item->file.size;
    one->mtime_us = item->file.mtime_ns / 1000 - (item->file.mtime_ns % 1000 < 0);
    if (item->file.part_count == 1)
        one->content_ref = item->file.parts[0].ref;
    if (item->file.name_is_text)
        one->name = (const char *)item->file.name.data;
}

enum rf_status rf_mapper_item_ref(struct rf_mapper_item *item, struct rf_store *store,
                                  const struct rf_blobref *ref, struct rf_error *err)
{
    enum rf_schema_kind kind = RF_SCHEMA_NONE;
    struct rf_stat stat;
    struct rf_buf buf;
    enum rf_status status = rf_store_stat(store, ref, &stat, err);

    if (status)
        return status;
    item->store = store;
    item->item.kind = RF_ITEM_BLOB;
    item->item.ref = *ref;
    item->item.size = stat.size;
    item->item.seq = stat.seq;
    item->item.timestamp_us = stat.timestamp_us;
    if (stat.size > RF_BLOB_INLINE_MAX)
        return RF_OK;
    rf_buf_init(&buf, RF_BLOB_INLINE_MAX);
    status = rf_store_get(store, ref, &buf, err);
    if (status == RF_OK)
        status = rf_schema_parse(&kind, &item->file, &item->arena, rf_buf_bytes(&buf), err);
    if (status == RF_OK && kind == RF_SCHEMA_FILE)
        become_file(item);
    rf_buf_release(&buf);
    return status;
}

enum rf_status rf_mapper_item_path(struct rf_mapper_item *item, const char *path, const char *name,
                                   struct rf_error *err)
{
    struct rf_store_options options = {.mode = RF_STORE_CREATE};
    struct rf_put_file_result result;
    const char *slash = strrchr(path, '/');
    enum rf_status status = rf_store_open(&item->scratch, "memory:", &options, err);

    if (status == RF_OK)
        status = rf_put_file(item->scratch, path, name ? name : slash ? slash + 1 : path, NULL,
                             &result, err);
    return status ? status : rf_mapper_item_ref(item, item->scratch, &result.ref, err);
}

static char *copy_text(const char *text)
{
    char *copy = text ? strdup(text) : NULL;

    if (text && !copy)
        abort();
    return copy;
}

void rf_mapper_item_bytes(struct rf_mapper_item *item, struct rf_bytes bytes, const char *name,
                          const char *media)
{
    struct rf_item *one = &item->item;

    rf_buf_put(&item->content, bytes.data, bytes.size);
    rf_buf_put_u8(&item->content, 0); /* so that even empty content is a pointer */
    assert(!item->content.failed);
    item->name = copy_text(name);
    item->media = copy_text(media);
    one->kind = media ? RF_ITEM_PART : name ? RF_ITEM_FILE : RF_ITEM_BLOB;
    one->content = item->content.data;
    one->size = bytes.size;
    one->media = item->media;
    one->name = media ? NULL : item->name;
    rf_blobref_of(&one->ref, bytes);
    if (one->kind != RF_ITEM_PART) {
        one->seq = 1;
        one->timestamp_us = 0;
    }
    if (one->kind == RF_ITEM_FILE) {
        one->content_ref = one->ref;
        one->mtime_us = 0;
    }
}

enum rf_status rf_mapper_item_part(struct rf_mapper_item *item, struct rf_mapper_item *parent,
                                   uint64_t offset, uint64_t size, const char *media,
                                   struct rf_error *err)
{
    struct rf_buf bytes;
    enum rf_status status = RF_OK;

    rf_buf_init(&bytes, CONTENT_MAX);
    while (status == RF_OK && bytes.size < size) {
        uint64_t left = size - bytes.size;
        size_t want = left < (1 << 20) ? (size_t)left : (size_t)1 << 20, got = 0;
        uint8_t *room = rf_buf_reserve(&bytes, want);

        if (!room)
            status = rf_error_set(err, RF_LIMIT, "the part is larger than %zu bytes", CONTENT_MAX);
        else
            status = read_item(NULL, &parent->item, offset + bytes.size, room, want, &got, err);
        if (status == RF_OK && got == 0)
            status = rf_error_set(err, RF_CORRUPT, "the part reaches past the end of its item");
        bytes.size += got;
    }
    if (status == RF_OK)
        rf_mapper_item_bytes(item, rf_buf_bytes(&bytes), NULL, media);
    rf_buf_release(&bytes);
    return status;
}

/* ---- mapping ---- */

enum rf_status rf_mapper_item_map(struct rf_pool *pool, struct rf_mapper_item *item,
                                  struct rf_store *needs, const struct rf_mapper *mapper,
                                  struct rf_result **out, struct rf_error *err)
{
    const struct rf_pool_source source = {.read = read_item, .need_stat = stat_need,
                                          .need_read = read_need, .user = needs};
    const struct rf_mapper *mappers[] = {mapper};
    struct rf_result *result = NULL;
    enum rf_status status;

    rf_pool_set_source(pool, &source);
    status = rf_pool_submit(pool, RF_LANE_SLOW, &item->item, mappers, 1, err);
    do {
        if (status == RF_OK || status == RF_TIMEOUT)
            status = rf_pool_next(pool, &result, 200, err);
        if (status == RF_TIMEOUT)
            rf_error_clear(err);
        if (status == RF_TIMEOUT && rf_stop_asked()) {
            rf_pool_cancel(pool);
            return rf_error_set(err, RF_CANCELLED, "stopped");
        }
    } while (status == RF_TIMEOUT);
    if (status)
        return status;
    status = result->status;
    if (status == RF_OK) {
        *out = result;
        return RF_OK;
    }
    rf_error_set(err, status, "%s", result->error.message);
    rf_result_free(result);
    return status;
}

/* ---- parts ---- */

/* The bytes that a mapper put before a range, and the range. */
static enum rf_status take_headed(struct rf_mapper_item *item, struct rf_mapper_item *parent,
                                  const struct rf_record *record, const char *media,
                                  struct rf_error *err)
{
    struct rf_mapper_item range;
    struct rf_buf bytes;
    enum rf_status status;

    rf_mapper_item_init(&range);
    rf_buf_init(&bytes, CONTENT_MAX);
    status = rf_mapper_item_part(&range, parent, record->offset, record->size, "", err);
    if (status == RF_OK) {
        rf_buf_put(&bytes, record->head.data, record->head.size);
        rf_buf_put(&bytes, range.item.content, (size_t)record->size);
        if (bytes.failed)
            status = rf_error_set(err, RF_LIMIT, "the part is larger than %zu bytes", CONTENT_MAX);
        else
            rf_mapper_item_bytes(item, rf_buf_bytes(&bytes), NULL, media);
    }
    rf_buf_release(&bytes);
    rf_mapper_item_release(&range);
    return status;
}

enum rf_status rf_mapper_item_record(struct rf_mapper_item *item, struct rf_mapper_item *parent,
                                     const struct rf_record *record, struct rf_error *err)
{
    char media[RF_MEDIA_MAX + 1];

    snprintf(media, sizeof media, "%.*s", (int)record->media.size,
             (const char *)record->media.data);
    if (record->head.data)
        return take_headed(item, parent, record, media, err);
    if (!record->inlined)
        return rf_mapper_item_part(item, parent, record->offset, record->size, media, err);
    rf_mapper_item_bytes(item, record->bytes, NULL, media);
    return RF_OK;
}

/* The bytes of the part with this key among what a call put out. */
static bool take_made_part(const struct rf_call *call, struct rf_mapper_item *parent,
                           const char *key, const char *media, struct rf_mapper_item *out)
{
    struct rf_output_reader reader;
    struct rf_record record;
    char text[RF_BLOBREF_SIZE];
    bool found = false;

    rf_output_init(&reader, call->output, rf_mapper_decl(call->mapper), parent->item.size);
    while (!found && rf_output_next(&reader, &record, NULL) == RF_OK) {
        struct rf_mapper_item part;

        if (record.kind != RF_RECORD_PART || !(record.inlined || record.head.data))
            continue;
        rf_mapper_item_init(&part);
        if (rf_mapper_item_record(&part, parent, &record, NULL) == RF_OK) {
            rf_blobref_format(&part.item.ref, text);
            found = strncmp(key, text, (size_t)(media - key)) == 0;
        }
        if (found)
            rf_mapper_item_bytes(out, rf_bytes(part.item.content, (size_t)part.item.size), NULL,
                                 media + 1);
        rf_mapper_item_release(&part);
    }
    rf_output_release(&reader);
    return found;
}

/* A part that its parent's mapper made: the mappers in use map the parent again until one does. */
static enum rf_status make_part(const struct rf_mapper_source *from, struct rf_mapper_item *parent,
                                const char *key, const char *media, struct rf_mapper_item *out,
                                struct rf_error *err)
{
    size_t count;
    char **paths = rf_mapper_paths(from->cli, &count);
    bool found = false;

    for (size_t i = 0; i < count && !found && !rf_stop_asked(); i++) {
        struct rf_result *result = NULL;
        struct rf_mapper *mapper;

        if (rf_pool_load(from->pool, paths[i], &mapper, NULL) == RF_OK &&
            rf_mapper_item_map(from->pool, parent, from->store, mapper, &result, NULL) == RF_OK &&
            result->calls[0].outcome == RF_CALL_ROWS)
            found = take_made_part(&result->calls[0], parent, key, media, out);
        rf_result_free(result);
    }
    rf_names_free(paths, count);
    if (found)
        return RF_OK;
    return rf_error_set(err, RF_NOT_FOUND, "no mapper in use makes part '%s' any more", key);
}

/* The content of a part: cut out of its parent, which may be a part itself. */
static enum rf_status find_part(const struct rf_mapper_source *from, struct rf_sink *sink,
                                uint32_t lane, const char *key, unsigned depth,
                                struct rf_mapper_item *out, struct rf_error *err)
{
    const char *media = strchr(key, ';');
    struct rf_mapper_item parent;
    struct rf_sink_origin origin;
    enum rf_status status;

    if (depth > 32)
        return rf_error_set(err, RF_LIMIT, "parts are nested deeper than 32");
    status = rf_sink_origin_of(sink, lane, key, &origin, err);
    if (status == RF_NOT_FOUND) {
        rf_error_clear(err);
        return rf_error_set(err, status, "index '%s' knows no part '%s'", from->index->name, key);
    }
    if (status)
        return status;
    rf_mapper_item_init(&parent);
    if (origin.parent_kind == RF_SINK_PART)
        status = find_part(from, sink, lane, origin.parent_key, depth + 1, &parent, err);
    else
        status = rf_mapper_item_ref(&parent, from->store, &origin.parent_ref, err);
    if (status == RF_OK && origin.inlined)
        status = make_part(from, &parent, key, media, out, err);
    else if (status == RF_OK)
        status = rf_mapper_item_part(out, &parent, origin.offset, origin.size, media + 1, err);
    rf_mapper_item_release(&parent);
    return status;
}

/* Count the parts of an output from *count on; the one with number want becomes out. */
static enum rf_status count_parts(const struct rf_call *call, struct rf_mapper_item *parent,
                                  uint64_t want, uint64_t *count, struct rf_mapper_item *out,
                                  struct rf_error *err)
{
    struct rf_output_reader reader;
    struct rf_record record;
    enum rf_status status = RF_OK;

    rf_output_init(&reader, call->output, rf_mapper_decl(call->mapper), parent->item.size);
    while (status == RF_OK && rf_output_next(&reader, &record, NULL) == RF_OK) {
        if (record.kind == RF_RECORD_PART && ++*count == want)
            status = rf_mapper_item_record(out, parent, &record, err);
    }
    rf_output_release(&reader);
    return status;
}

/* One mapper of those that may cut parts out of an item. */
static enum rf_status cut_parts(const struct rf_mapper_source *from, struct rf_mapper_item *parent,
                                const struct rf_mapper *mapper, uint64_t want,
                                struct rf_parts_found *found, struct rf_mapper_item *out,
                                struct rf_error *err)
{
    const struct rf_decl *decl = rf_mapper_decl(mapper);
    struct rf_result *result = NULL;
    uint64_t before = found->count;
    enum rf_status status = RF_OK;

    if (!decl->splits)
        return RF_OK;
    status = rf_mapper_item_map(from->pool, parent, from->store, mapper, &result, err);
    if (status == RF_OK && result->calls[0].outcome == RF_CALL_ROWS)
        status = count_parts(&result->calls[0], parent, want, &found->count, out, err);
    rf_result_free(result);
    if (found->count > before && !found->mapper[0])
        snprintf(found->mapper, sizeof found->mapper, "%s", decl->name);
    return status;
}

enum rf_status rf_mapper_item_cut(const struct rf_mapper_source *from,
                                  struct rf_mapper_item *parent, const struct rf_mapper *first,
                                  uint64_t want, struct rf_parts_found *found,
                                  struct rf_mapper_item *out, struct rf_error *err)
{
    size_t count;
    char **paths = rf_mapper_paths(from->cli, &count);
    enum rf_status status;

    memset(found, 0, sizeof *found);
    status = cut_parts(from, parent, first, want, found, out, err);
    for (size_t i = 0; i < count && status == RF_OK; i++) {
        struct rf_mapper *mapper;

        if (rf_pool_load(from->pool, paths[i], &mapper, NULL) == RF_OK &&
            strcmp(rf_mapper_decl(mapper)->name, rf_mapper_decl(first)->name) != 0)
            status = cut_parts(from, parent, mapper, want, found, out, err);
    }
    rf_names_free(paths, count);
    return status;
}

enum rf_status rf_mapper_item_key(struct rf_mapper_item *item,
                                  const struct rf_mapper_source *from, const char *key,
                                  struct rf_error *err)
{
    struct rf_sink_options options = {0};
    struct rf_sink_lane *lanes;
    struct rf_sink *sink = NULL;
    struct rf_blobref ref;
    struct rf_arena arena;
    enum rf_status status;
    size_t count = 0;

    if (!strchr(key, ';')) {
        status = rf_blobref_parse(&ref, key, strlen(key), err);
        return status ? status : rf_mapper_item_ref(item, from->store, &ref, err);
    }
    rf_arena_init(&arena, (size_t)256 << 20);
    status = rf_sink_open(&sink, from->index->url, &options, err);
    if (status == RF_OK)
        status = rf_sink_lanes(sink, &arena, &lanes, &count, err);
    if (status == RF_OK)
        status = count ? find_part(from, sink, lanes[0].id, key, 0, item, err)
                       : rf_error_set(err, RF_NOT_FOUND, "index '%s' is empty",
                                      from->index->name);
    rf_sink_close(sink);
    rf_arena_release(&arena);
    return status;
}

/* ---- rows ---- */

struct rf_bytes rf_value_text(const struct rf_value *value, struct rf_buf *buf)
{
    char text[RF_BLOBREF_SIZE > RF_TIME_TEXT_SIZE ? RF_BLOBREF_SIZE : RF_TIME_TEXT_SIZE];

    rf_buf_clear(buf);
    switch (value->type) {
    case RF_TYPE_INT:
        rf_buf_printf(buf, "%lld", (long long)value->integer);
        break;
    case RF_TYPE_FLOAT:
        rf_json_put_double(buf, value->real);
        break;
    case RF_TYPE_BOOL:
        rf_buf_put_text(buf, value->boolean ? "true" : "false");
        break;
    case RF_TYPE_TEXT:
    case RF_TYPE_JSON:
        return value->text;
    case RF_TYPE_TIME:
        rf_time_format(value->integer, text);
        rf_buf_put_text(buf, text);
        if (value->offset_minutes != RF_OFFSET_UNKNOWN)
            rf_buf_printf(buf, " %+03d:%02d", value->offset_minutes / 60,
                          abs(value->offset_minutes % 60));
        break;
    case RF_TYPE_BLOBREF:
        rf_blobref_format(&value->ref, text);
        rf_buf_put_text(buf, text);
        break;
    default:
        break;
    }
    return rf_buf_bytes(buf);
}

void rf_value_json(struct rf_buf *buf, const struct rf_value *value)
{
    char text[RF_BLOBREF_SIZE > RF_TIME_TEXT_SIZE ? RF_BLOBREF_SIZE : RF_TIME_TEXT_SIZE];

    switch (value->type) {
    case RF_TYPE_INT:
        rf_json_put_int(buf, value->integer);
        break;
    case RF_TYPE_FLOAT:
        rf_json_put_double(buf, value->real);
        break;
    case RF_TYPE_BOOL:
        rf_buf_put_text(buf, value->boolean ? "true" : "false");
        break;
    case RF_TYPE_TEXT:
        rf_json_put_string(buf, value->text);
        break;
    case RF_TYPE_JSON:
        rf_buf_put(buf, value->text.data, value->text.size);
        break;
    case RF_TYPE_TIME:
        rf_time_format(value->integer, text);
        rf_json_put_string(buf, rf_bytes_text(text));
        break;
    case RF_TYPE_BLOBREF:
        rf_blobref_format(&value->ref, text);
        rf_json_put_string(buf, rf_bytes_text(text));
        break;
    default:
        rf_buf_put_text(buf, "null");
        break;
    }
}

static void put_key(struct rf_buf *buf, const char *key, const char *suffix, bool *first)
{
    rf_buf_printf(buf, "%s\"%s%s\":", *first ? "" : ",", key, suffix); /* names need no escaping */
    *first = false;
}

void rf_row_json(struct rf_buf *buf, const struct rf_table *table, const struct rf_record *row)
{
    bool first = true;

    rf_buf_put_u8(buf, '{');
    for (size_t i = 0; i < row->column_count; i++) {
        const struct rf_value *value = &row->values[i];

        if (value->type == 0)
            continue;
        put_key(buf, table->columns[i].name, "", &first);
        rf_value_json(buf, value);
        if (value->type == RF_TYPE_TIME && value->offset_minutes != RF_OFFSET_UNKNOWN) {
            put_key(buf, table->columns[i].name, "_offset", &first);
            rf_buf_printf(buf, "%d", value->offset_minutes);
        }
    }
    rf_buf_put_u8(buf, '}');
}
