/*
 * unit.c - items under way: how their bytes are had, held and let go
 *
 * A part that is a range of a stored blob costs no memory until it is mapped; a part whose bytes a
 * mapper made is copied once. Nothing here talks to the sink or the pool.
 */
#include "indexer/unit.h"

#include "indexer/index_internal.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define PIECE_MIN ((size_t)128 << 10) /* bytes a reader keeps of a content, at first */
#define PIECE_MAX ((size_t)1 << 20)   /* and while it is read in order */
#define SCHEMA_SIZE_MAX ((size_t)64 << 20) /* bytes of one file blob: 700,000 chunks */

static void *must(void *memory)
{
    if (!memory) {
        fputs("refuge: out of memory\n", stderr);
        abort();
    }
    return memory;
}

struct rf_unit *rf_unit_new(enum rf_unit_kind kind)
{
    struct rf_unit *unit = must(calloc(1, sizeof *unit));

    unit->kind = kind;
    unit->holders = 1;
    unit->root = unit;
    unit->item.user = unit;
    unit->item.mtime_us = INT64_MIN;
    unit->item.timestamp_us = INT64_MIN;
    return unit;
}

void rf_unit_hold(struct rf_unit *unit)
{
    unit->holders++;
}

void rf_unit_release(struct rf_unit *unit)
{
    while (unit && --unit->holders == 0) {
        struct rf_unit *parent = unit->parent;

        assert(!unit->parts);
        rf_result_free(unit->result);
        rf_arena_release(&unit->arena);
        free(unit->owned);
        free((uint8_t *)(uintptr_t)unit->head.data);
        free(unit->dead_reason);
        free(unit->versions);
        if (unit->kind == RF_UNIT_PART)
            free((char *)unit->item.media);
        free(unit);
        unit = parent;
    }
}

size_t rf_unit_bytes(const struct rf_unit *unit)
{
    return sizeof *unit + (unit->owned ? unit->item.size : 0) + unit->head.size +
           unit->arena.size;
}

size_t rf_unit_output_bytes(const struct rf_unit *unit)
{
    size_t size = 0;

    for (size_t i = 0; unit->result && i < unit->result->call_count; i++)
        size += unit->result->calls[i].output.size;
    return size;
}

/* Name the content blob of a file that is not there. */
static void find_missing(struct rf_unit_reader *reader, struct rf_unit *unit,
                         const struct rf_unit *root)
{
    struct rf_stat stat;

    if (!root->file) {
        unit->missing = root->item.ref;
        return;
    }
    for (size_t i = 0; i < root->file->part_count; i++) {
        if (rf_store_stat(reader->store, &root->file->parts[i].ref, &stat, NULL) == RF_NOT_FOUND) {
            unit->missing = root->file->parts[i].ref;
            return;
        }
    }
    /* It came back meanwhile: name the first, so that the park is looked at again at once. */
    if (root->file->part_count)
        unit->missing = root->file->parts[0].ref;
}

static enum rf_status read_root(struct rf_unit_reader *reader, const struct rf_unit *root,
                                uint64_t offset, void *out, size_t size, size_t *got,
                                struct rf_error *err)
{
    return root->file
               ? rf_file_read(reader->store, root->file, offset, out, size, got, err)
               : rf_store_read(reader->store, &root->item.ref, offset, out, size, got, err);
}

/* The piece that holds an offset of a root, or ends just before it; else the one unused longest. */
static struct rf_unit_piece *piece_at(struct rf_unit_reader *reader, const struct rf_blobref *ref,
                                      uint64_t offset)
{
    struct rf_unit_piece *oldest = &reader->pieces[0];

    for (size_t i = 0; i < sizeof reader->pieces / sizeof reader->pieces[0]; i++) {
        struct rf_unit_piece *piece = &reader->pieces[i];
        if (piece->ref.algo && offset >= piece->offset &&
            offset <= piece->offset + piece->size && rf_blobref_equal(&piece->ref, ref))
            return piece;
        if (piece->used < oldest->used)
            oldest = piece;
    }
    oldest->ref = (struct rf_blobref){0};
    oldest->size = 0;
    return oldest;
}

/* Fill a piece from offset on: twice what it held when it goes on in order. */
static bool fill_piece(struct rf_unit_reader *reader, struct rf_unit_piece *piece,
                       const struct rf_unit *root, uint64_t offset, size_t size)
{
    size_t want = piece->ref.algo ? 2 * piece->size : PIECE_MIN, got = 0;
    uint64_t left = (root->file ? root->file->size : root->item.size) - offset;

    want = want < PIECE_MIN ? PIECE_MIN : want > PIECE_MAX ? PIECE_MAX : want;
    if (want < size)
        want = size;
    if (want > left)
        want = (size_t)left;
    if (piece->capacity < want) {
        free(piece->bytes);
        piece->capacity = want;
        piece->bytes = must(malloc(want));
    }
    piece->ref = (struct rf_blobref){0};
    if (read_root(reader, root, offset, piece->bytes, want, &got, NULL) != RF_OK || got < size)
        return false;
    piece->ref = root->item.ref;
    piece->offset = offset;
    piece->size = got;
    return true;
}

/* Read from the pieces. False: the read is large, or a piece cannot be had, though the read itself
 * may succeed, since a piece reaches further. */
static bool read_ahead(struct rf_unit_reader *reader, const struct rf_unit *root, uint64_t offset,
                       void *out, size_t size)
{
    struct rf_unit_piece *piece;

    if (size > PIECE_MAX / 2)
        return false;
    piece = piece_at(reader, &root->item.ref, offset);
    if ((!piece->ref.algo || offset + size > piece->offset + piece->size) &&
        !fill_piece(reader, piece, root, offset, size))
        return false;
    piece->used = ++reader->clock;
    memcpy(out, piece->bytes + (offset - piece->offset), size);
    return true;
}

void rf_unit_reader_release(struct rf_unit_reader *reader)
{
    for (size_t i = 0; i < sizeof reader->pieces / sizeof reader->pieces[0]; i++)
        free(reader->pieces[i].bytes);
    *reader = (struct rf_unit_reader){0};
}

/* From the root's content on, at this place of it. */
static enum rf_status read_rest(struct rf_unit_reader *reader, struct rf_unit *unit, uint64_t at,
                                void *out, size_t size, size_t *got, struct rf_error *err)
{
    struct rf_unit *root = unit->root;
    enum rf_status status;

    *got = size;
    if (root->item.content) {
        memcpy(out, root->item.content + at, size);
        return RF_OK;
    }
    if (read_ahead(reader, root, at, out, size))
        return RF_OK;
    status = read_root(reader, root, at, out, size, got, err);
    if (status == RF_NOT_FOUND)
        find_missing(reader, unit, root);
    else if (status == RF_OK && *got != size)
        status = rf_error_set(err, RF_CORRUPT, "content of '%s' ends %" PRIu64 " bytes early",
                              root->key, (uint64_t)(size - *got));
    return status;
}

enum rf_status rf_unit_read(struct rf_unit_reader *reader, struct rf_unit *unit, uint64_t offset,
                            void *out, size_t size, size_t *got, struct rf_error *err)
{
    size_t head = 0;
    enum rf_status status = RF_OK;

    if (offset >= unit->item.size) {
        *got = 0;
        return RF_OK;
    }
    if (size > unit->item.size - offset)
        size = (size_t)(unit->item.size - offset);
    if (unit->item.content) {
        memcpy(out, unit->item.content + offset, size);
        *got = size;
        return RF_OK;
    }
    if (offset < unit->head.size) {
        head = size < unit->head.size - offset ? size : (size_t)(unit->head.size - offset);
        memcpy(out, unit->head.data + offset, head);
    }
    *got = 0;
    if (size > head)
        status = read_rest(reader, unit, unit->base + offset + head - unit->head.size,
                           (uint8_t *)out + head, size - head, got, err);
    *got += head;
    return status;
}

/* Read all of a small content into memory of the unit's own. */
static enum rf_status load_content(struct rf_unit_reader *reader, struct rf_unit *unit,
                                   struct rf_error *err)
{
    uint8_t *memory = must(malloc(unit->item.size ? (size_t)unit->item.size : 1));
    enum rf_status status;
    size_t got = 0;

    status = rf_unit_read(reader, unit, 0, memory, (size_t)unit->item.size, &got, err);
    if (status != RF_OK) {
        free(memory);
        return status;
    }
    unit->owned = memory;
    unit->item.content = memory;
    return RF_OK;
}

static void set_dead(struct rf_unit *unit, const struct rf_error *why)
{
    unit->dead = true;
    unit->dead_reason = must(strdup(why->message));
}

/* Content that is not there parks the item, content that is damaged makes it a dead letter; only a
 * store that cannot be read stops the index. */
static enum rf_status settle_content(struct rf_unit *unit, enum rf_status status,
                                     const struct rf_error *why, struct rf_error *err)
{
    if (status == RF_OK || status == RF_NOT_FOUND)
        return RF_OK;
    if (status == RF_CORRUPT || status == RF_INVALID || status == RF_LIMIT) {
        set_dead(unit, why);
        return RF_OK;
    }
    if (err)
        *err = *why;
    return status;
}

/* A file blob: its name, and its content joined. */
static enum rf_status make_file(struct rf_unit *unit, struct rf_unit_reader *reader,
                                struct rf_error *err)
{
    const struct rf_file *file = unit->file;
    struct rf_error why = {0};
    enum rf_status status = RF_OK;

    unit->item.kind = RF_ITEM_FILE;
    unit->item.size = file->size;
    unit->item.name = file->name_is_text ? (const char *)file->name.data : NULL;
    unit->item.mtime_us = file->mtime_ns / 1000 - (file->mtime_ns % 1000 < 0);
    if (file->part_count == 1)
        unit->item.content_ref = file->parts[0].ref;
    if (file->size <= RF_CONTENT_INLINE_MAX)
        status = load_content(reader, unit, &why);
    return settle_content(unit, status, &why, err);
}

static enum rf_status make_schema(struct rf_unit *unit, struct rf_unit_reader *reader,
                                  struct rf_bytes bytes, struct rf_error *err)
{
    enum rf_schema_kind kind = RF_SCHEMA_NONE;
    struct rf_error why = {0};
    enum rf_status status;

    rf_arena_init(&unit->arena, 4 * SCHEMA_SIZE_MAX);
    unit->file = rf_arena_alloc(&unit->arena, sizeof *unit->file);
    status = rf_schema_parse(&kind, unit->file, &unit->arena, bytes, &why);
    if (status != RF_OK) {
        unit->file = NULL;
        unit->item.kind = RF_ITEM_FILE;
        unit->item.size = bytes.size;
        if (status == RF_UNSUPPORTED)
            status = RF_INVALID; /* a blob of a newer program is set aside, not lost */
        return settle_content(unit, status, &why, err);
    }
    if (kind == RF_SCHEMA_FILE)
        return make_file(unit, reader, err);
    unit->file = NULL; /* trees and refs join files; they are no items */
    unit->kind = RF_UNIT_ARRIVED;
    return RF_OK;
}

/* The bytes of a large blob that starts as a schema blob does. */
static enum rf_status load_large_schema(struct rf_unit *unit, struct rf_unit_reader *reader,
                                        struct rf_error *err)
{
    struct rf_error why = {0};
    struct rf_buf whole;
    enum rf_status status;

    rf_buf_init(&whole, SCHEMA_SIZE_MAX);
    status = rf_store_get(reader->store, &unit->item.ref, &whole, &why);
    if (status == RF_OK)
        status = make_schema(unit, reader, rf_buf_bytes(&whole), err);
    else
        status = settle_content(unit, status, &why, err);
    rf_buf_release(&whole);
    return status;
}

static enum rf_status make_large(struct rf_unit *unit, struct rf_unit_reader *reader,
                                 struct rf_error *err)
{
    struct rf_error why = {0};
    uint8_t head[32];
    size_t got = 0;
    enum rf_status status =
        rf_store_read(reader->store, &unit->item.ref, 0, head, sizeof head, &got, &why);

    if (status == RF_OK && rf_schema_is(rf_bytes(head, got)))
        return load_large_schema(unit, reader, err);
    if (status == RF_NOT_FOUND)
        unit->missing = unit->item.ref;
    return settle_content(unit, status, &why, err);
}

enum rf_status rf_unit_from_blob(struct rf_unit **out, struct rf_unit_reader *reader,
                                 const struct rf_stat *stat, struct rf_bytes bytes,
                                 struct rf_error *err)
{
    struct rf_unit *unit = rf_unit_new(RF_UNIT_ITEM);
    enum rf_status status = RF_OK;

    unit->item.kind = RF_ITEM_BLOB;
    unit->item.ref = stat->ref;
    unit->item.seq = stat->seq;
    unit->item.timestamp_us = stat->timestamp_us;
    unit->item.size = stat->size;
    rf_blobref_format(&stat->ref, unit->key);
    if (!bytes.data && stat->size) {
        status = make_large(unit, reader, err);
    } else if (rf_schema_is(bytes)) {
        status = make_schema(unit, reader, bytes, err);
    } else {
        unit->owned = must(malloc(bytes.size ? bytes.size : 1));
        assert(bytes.data || bytes.size == 0);
        if (bytes.size)
            memcpy(unit->owned, bytes.data, bytes.size);
        unit->item.content = unit->owned;
    }
    if (status != RF_OK) {
        rf_unit_release(unit);
        return status;
    }
    *out = unit;
    return RF_OK;
}

enum rf_status rf_unit_from_change(struct rf_unit **out, struct rf_unit_reader *reader,
                                   struct rf_feed *feed, const struct rf_change *change,
                                   struct rf_error *err)
{
    struct rf_stat stat = {.ref = change->ref, .size = change->size, .seq = change->seq,
                           .timestamp_us = change->timestamp_us};
    struct rf_bytes bytes = {0};
    struct rf_error why = {0};
    struct rf_unit *unit;
    enum rf_status status = RF_OK;

    *out = NULL;
    if (change->gone)
        return RF_OK;
    if (change->is_delete || change->part) {
        unit = rf_unit_new(change->is_delete ? RF_UNIT_REMOVE : RF_UNIT_ARRIVED);
        unit->item.ref = change->ref;
        unit->item.seq = change->seq;
        unit->item.timestamp_us = change->timestamp_us;
        rf_blobref_format(&change->ref, unit->key);
        *out = unit;
        return RF_OK;
    }
    if (change->lift && change->size <= RF_BLOB_INLINE_MAX) {
        struct rf_buf whole;

        rf_buf_init(&whole, RF_BLOB_INLINE_MAX);
        status = rf_store_get(reader->store, &change->ref, &whole, &why);
        if (status == RF_OK)
            status = rf_unit_from_blob(out, reader, &stat,
                                       rf_bytes(whole.data ? whole.data : (const uint8_t *)"",
                                                whole.size), err);
        rf_buf_release(&whole);
    } else {
        if (change->size <= RF_BLOB_INLINE_MAX)
            status = rf_feed_blob(feed, &bytes, &why);
        if (status == RF_OK)
            status = rf_unit_from_blob(out, reader, &stat, bytes, err);
    }
    if (status == RF_NOT_FOUND) /* a tombstone follows */
        return RF_OK;
    if (status == RF_CORRUPT && !*out) {
        unit = rf_unit_new(RF_UNIT_ITEM);
        unit->item.kind = RF_ITEM_BLOB;
        unit->item.ref = change->ref;
        unit->item.seq = change->seq;
        unit->item.timestamp_us = change->timestamp_us;
        unit->item.size = change->size;
        rf_blobref_format(&change->ref, unit->key);
        unit->dead = true;
        unit->dead_reason = strdup(why.message);
        *out = unit;
        return RF_OK;
    }
    if (status != RF_OK && err && err->status == RF_OK)
        *err = why;
    return status;
}

static bool equals_ancestor(const struct rf_unit *unit, const struct rf_blobref *ref)
{
    for (; unit; unit = unit->parent) {
        if (rf_blobref_equal(&unit->item.ref, ref) ||
            rf_blobref_equal(&unit->item.content_ref, ref))
            return true;
    }
    return false;
}

/* Hash a head and a range of the parent's content, in pieces when it is not in memory. */
static enum rf_status hash_range(struct rf_unit_reader *reader, struct rf_unit *parent,
                                 struct rf_bytes head, uint64_t offset, uint64_t size,
                                 struct rf_blobref *ref, struct rf_error *err)
{
    struct rf_hasher *hasher;
    uint8_t *piece;
    enum rf_status status = RF_OK;

    if (parent->item.content && head.size == 0) {
        rf_blobref_of(ref, rf_bytes(parent->item.content + offset, (size_t)size));
        return RF_OK;
    }
    hasher = rf_hasher_new();
    if (head.size)
        rf_hasher_update(hasher, head.data, head.size);
    piece = must(malloc(RF_BLOB_BLOCK_SIZE));
    while (size && status == RF_OK) {
        size_t got = 0, want = size < RF_BLOB_BLOCK_SIZE ? (size_t)size : RF_BLOB_BLOCK_SIZE;
        status = rf_unit_read(reader, parent, offset, piece, want, &got, err);
        if (status == RF_OK)
            rf_hasher_update(hasher, piece, got);
        offset += got;
        size -= got;
    }
    if (status == RF_OK)
        rf_hasher_finish(hasher, ref);
    free(piece);
    rf_hasher_free(hasher);
    return status;
}

enum rf_status rf_unit_hash_part(struct rf_unit_reader *reader, struct rf_unit *parent,
                                 const struct rf_part_spec *spec, struct rf_blobref *ref,
                                 char key[RF_ITEM_KEY_SIZE], struct rf_error *err)
{
    enum rf_status status = RF_OK;
    size_t used;

    if (parent->depth + 1 > RF_PART_DEPTH_MAX)
        return rf_error_set(err, RF_LIMIT, "parts are nested deeper than %d", RF_PART_DEPTH_MAX);
    if (spec->inlined)
        rf_blobref_of(ref, spec->bytes);
    else
        status = hash_range(reader, parent, spec->head, spec->offset, spec->size, ref, err);
    if (status != RF_OK)
        return status;
    if (equals_ancestor(parent, ref))
        return RF_EXISTS;
    rf_blobref_format(ref, key);
    used = strlen(key);
    assert(spec->media.size <= RF_MEDIA_MAX);
    key[used++] = ';';
    memcpy(key + used, spec->media.data, spec->media.size);
    key[used + spec->media.size] = '\0';
    return RF_OK;
}

/* Where a range of the parent begins: within what is in memory, or in the root, maybe behind some
 * of the parent's head. */
static void set_range(struct rf_unit *unit, struct rf_unit *parent,
                      const struct rf_part_spec *spec)
{
    size_t covered = 0; /* of the parent's head */
    uint8_t *head;

    unit->item.size = spec->head.size + spec->size;
    if (parent->item.content) {
        unit->root = parent;
        unit->base = spec->offset;
    } else {
        unit->root = parent->root;
        unit->base = parent->base;
        if (spec->offset >= parent->head.size)
            unit->base += spec->offset - parent->head.size;
        else if (spec->size < parent->head.size - spec->offset)
            covered = (size_t)spec->size;
        else
            covered = parent->head.size - (size_t)spec->offset;
    }
    if (spec->head.size + covered == 0)
        return;
    head = must(malloc(spec->head.size + covered));
    if (spec->head.size)
        memcpy(head, spec->head.data, spec->head.size);
    if (covered)
        memcpy(head + spec->head.size, parent->head.data + spec->offset, covered);
    unit->head = rf_bytes(head, spec->head.size + covered);
}

enum rf_status rf_unit_from_part(struct rf_unit **out, struct rf_unit_reader *reader,
                                 struct rf_unit *parent, const struct rf_part_spec *spec,
                                 const struct rf_blobref *ref, const char *key,
                                 struct rf_error *err)
{
    struct rf_unit *unit = rf_unit_new(RF_UNIT_PART);
    struct rf_error why = {0};
    enum rf_status status = RF_OK;

    snprintf(unit->key, sizeof unit->key, "%s", key);
    unit->parent = parent;
    rf_unit_hold(parent);
    unit->depth = parent->depth + 1;
    unit->item.kind = RF_ITEM_PART;
    unit->item.ref = *ref;
    unit->item.media = must(strndup((const char *)spec->media.data, spec->media.size));
    if (spec->inlined) {
        unit->item.size = spec->bytes.size;
        unit->owned = must(malloc(spec->bytes.size ? spec->bytes.size : 1));
        if (spec->bytes.size)
            memcpy(unit->owned, spec->bytes.data, spec->bytes.size);
        unit->item.content = unit->owned;
    } else {
        set_range(unit, parent, spec);
        if (parent->item.content && unit->head.size == 0)
            unit->item.content = parent->item.content + spec->offset;
        else if (unit->item.size <= RF_CONTENT_INLINE_MAX)
            status = load_content(reader, unit, &why);
    }
    status = settle_content(unit, status, &why, err);
    if (status != RF_OK) {
        rf_unit_release(unit);
        return status;
    }
    *out = unit;
    return RF_OK;
}

/* ---- queues ---- */

void rf_queue_init(struct rf_queue *queue)
{
    queue->head = NULL;
    queue->tail = &queue->head;
    queue->count = 0;
}

void rf_queue_put(struct rf_queue *queue, struct rf_unit *unit)
{
    unit->next = NULL;
    *queue->tail = unit;
    queue->tail = &unit->next;
    queue->count++;
}

void rf_queue_put_first(struct rf_queue *queue, struct rf_unit *unit)
{
    unit->next = queue->head;
    if (!queue->head)
        queue->tail = &unit->next;
    queue->head = unit;
    queue->count++;
}

struct rf_unit *rf_queue_take(struct rf_queue *queue)
{
    struct rf_unit *unit = queue->head;

    if (unit) {
        queue->head = unit->next;
        if (!queue->head)
            queue->tail = &queue->head;
        unit->next = NULL;
        queue->count--;
    }
    return unit;
}

void rf_queue_append(struct rf_queue *queue, struct rf_queue *from)
{
    if (!from->head)
        return;
    *queue->tail = from->head;
    queue->tail = from->tail;
    queue->count += from->count;
    rf_queue_init(from);
}

enum rf_status rf_pipeline_read_item(struct rf_unit_reader *reader, struct rf_item *item,
                                     uint64_t offset, void *out, size_t size, size_t *got,
                                     struct rf_error *err)
{
    return rf_unit_read(reader, item->user, offset, out, size, got, err);
}
