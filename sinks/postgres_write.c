/*
 * postgres_write.c - one batch of items, all in one transaction
 *
 * What the database has of the items at hand is kept in a cache for the length of the transaction,
 * filled for many keys by one question (expect) and for a single key where nobody said before that
 * it comes. There is one writer, so what it knows stays true until it writes itself; put, put_parts
 * and remove note that in the cache and add to the group (postgres_group.c), which goes to the
 * server when it is large, before a question that the cache cannot answer, and at commit.
 *
 * Whether an edge reaches a part is known by a witness: an item that has such an edge. When the
 * witness is unmapped later in the batch the answer is void and asked for anew; edges that the
 * group is going to delete are left out of that question, so it needs no flush.
 *
 * A call that is refused when its group is written has its edges taken back: their children become
 * orphans, and at commit those that nothing reaches go, with the rows they were given meanwhile.
 *
 * Memory: the group, and some 200 bytes for each of up to 100,000 items in the cache.
 */
#include "sinks/sink_postgres.h"

#include "core/control.h"
#include "core/utf8.h"
#include "sinks/lexemes.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define GROUP_ITEMS 10000
#define GROUP_BYTES ((size_t)16 << 20)
#define CACHE_ITEMS 100000
#define CACHE_SLOTS 4096
#define ID_BLOCK 1000
#define CUTS_OF_ROW 64 /* kinds of cleaning of one row looked through for repeats */

static const char *const item_kinds[] = {
    [RF_SINK_BLOB] = "blob", [RF_SINK_FILE] = "file", [RF_SINK_PART] = "part"};
static const char *const dead_classes[] = {[RF_DEAD_MAPPER] = "mapper",
                                           [RF_DEAD_LIMIT] = "limit",
                                           [RF_DEAD_BLOB] = "blob",
                                           [RF_DEAD_SINK] = "sink"};
static const char *const cut_names[RF_CUT_COUNT] = {[RF_CUT_UTF8] = "utf8",
                                                    [RF_CUT_NUL] = "nul",
                                                    [RF_CUT_LONG] = "long",
                                                    [RF_CUT_YEAR] = "year",
                                                    [RF_CUT_FLOAT] = "float"};

/* Every failure of a write ends the batch: what was half done must not be committed. */
static enum rf_status settle(struct rf_postgres *sink, enum rf_status status)
{
    if (status)
        rf_postgres_rollback(&sink->base);
    return status;
}

enum rf_status rf_postgres_flush(struct rf_postgres *sink, struct rf_error *err)
{
    return sink->base.batch_open ? rf_pg_group_flush(sink, err) : RF_OK;
}

/* ---- the cache ---- */

static size_t hash_key(const char *key)
{
    uint64_t hash = 1469598103934665603u;

    for (; *key; key++)
        hash = (hash ^ (uint8_t)*key) * 1099511628211u;
    return (size_t)(hash ^ hash >> 32);
}

static struct rf_pg_item *find_item(const struct rf_pg_cache *cache, const char *key)
{
    struct rf_pg_item *item =
        cache->slot_count ? cache->slots[hash_key(key) & (cache->slot_count - 1)] : NULL;

    while (item && strcmp(item->key, key) != 0)
        item = item->next;
    return item;
}

static void widen(struct rf_pg_cache *cache)
{
    size_t count = cache->slot_count ? 4 * cache->slot_count : CACHE_SLOTS;
    struct rf_pg_item **slots = calloc(count, sizeof *slots);

    if (!slots)
        abort();
    for (size_t i = 0; i < cache->slot_count; i++) {
        for (struct rf_pg_item *item = cache->slots[i], *next; item; item = next) {
            size_t slot = hash_key(item->key) & (count - 1);
            next = item->next;
            item->next = slots[slot];
            slots[slot] = item;
        }
    }
    free(cache->slots);
    cache->slots = slots;
    cache->slot_count = count;
}

static struct rf_pg_item *add_item(struct rf_pg_cache *cache, const char *key)
{
    size_t size = strlen(key) + 1, slot;
    struct rf_pg_item *item = rf_arena_alloc(&cache->arena, sizeof *item + size);

    if (cache->count >= cache->slot_count)
        widen(cache);
    memcpy(item->key, key, size);
    item->absent = true;
    slot = hash_key(key) & (cache->slot_count - 1);
    item->next = cache->slots[slot];
    cache->slots[slot] = item;
    cache->count++;
    return item;
}

static void clear_cache(struct rf_pg_cache *cache)
{
    if (cache->slots)
        memset(cache->slots, 0, cache->slot_count * sizeof *cache->slots);
    cache->count = 0;
    rf_arena_clear(&cache->arena);
    if (cache->cuts)
        memset(cache->cuts, 0, cache->cut_room * sizeof *cache->cuts);
    cache->cut_count = 0;
}

void rf_pg_cache_release(struct rf_pg_cache *cache)
{
    free(cache->slots);
    free(cache->cuts);
    rf_arena_release(&cache->arena);
}

/* The counter of an unmapped id, or the empty place for it. */
static struct rf_pg_cut *find_cut(const struct rf_pg_cache *cache, int64_t id)
{
    size_t at = (size_t)((uint64_t)id * 0x9e3779b97f4a7c15u >> 20) & (cache->cut_room - 1);

    while (cache->cuts[at].id && cache->cuts[at].id != id)
        at = (at + 1) & (cache->cut_room - 1);
    return &cache->cuts[at];
}

static uint32_t cuts_of(const struct rf_pg_cache *cache, int64_t id)
{
    return cache->cut_room ? find_cut(cache, id)->count : 0;
}

void rf_pg_cache_cut(struct rf_pg_cache *cache, int64_t id)
{
    struct rf_pg_cut *cut;

    if (2 * (cache->cut_count + 1) > cache->cut_room) {
        struct rf_pg_cache wider = {.cut_room = cache->cut_room ? 2 * cache->cut_room : 1024};
        wider.cuts = calloc(wider.cut_room, sizeof *wider.cuts);
        if (!wider.cuts)
            abort();
        for (size_t i = 0; i < cache->cut_room; i++)
            if (cache->cuts[i].id)
                *find_cut(&wider, cache->cuts[i].id) = cache->cuts[i];
        free(cache->cuts);
        cache->cuts = wider.cuts;
        cache->cut_room = wider.cut_room;
    }
    cut = find_cut(cache, id);
    cache->cut_count += cut->id == 0;
    cut->id = id;
    cut->count++;
}

static bool knows_reach(const struct rf_postgres *sink, const struct rf_pg_item *item)
{
    return item->absent || item->reach == RF_REACH_NONE ||
           (item->reach == RF_REACH_SOME &&
            cuts_of(&sink->cache, item->witness) == item->witness_cuts);
}

static void take_reach(struct rf_postgres *sink, struct rf_pg_item *item, int64_t witness)
{
    item->reach = witness ? RF_REACH_SOME : RF_REACH_NONE;
    item->witness = witness;
    item->witness_cuts = witness ? cuts_of(&sink->cache, witness) : 0;
}

static bool lane_has_edges(const struct rf_pg_lane *lane)
{
    for (size_t i = 0; i < lane->mapper_count; i++)
        if (lane->mappers[i].has_edges)
            return true;
    return false;
}

/* A single mapper's edges are to be deleted: they cannot be left out of a question. */
static bool has_partial_unmaps(const struct rf_pg_lane *lane)
{
    for (size_t i = 0; i < lane->mapper_count; i++)
        if (lane->mappers[i].unmap.count)
            return true;
    return false;
}

static void take_row(struct rf_postgres *sink, const struct rf_pg_rows *rows, size_t row)
{
    struct rf_pg_item *item = find_item(&sink->cache, rf_pg_text_at(rows, row, 0));

    if (!item) /* a key was asked for twice */
        return;
    if (item->absent && item->group != sink->group.number) {
        item->absent = false;
        item->id = rf_pg_int_at(rows, row, 1);
        item->seq = (uint64_t)rf_pg_int_at(rows, row, 2);
        item->deleted = rf_pg_int_at(rows, row, 3) != 0;
        item->seen_now = rf_pg_time_at(rows, row, 4) == sink->now;
    }
    take_reach(sink, item, rf_pg_int_at(rows, row, 5));
}

/* Ask for these keys. */
static enum rf_status look_up(struct rf_postgres *sink, const char *const *keys, size_t count,
                              struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    enum rf_status status = RF_OK;

    if (!count)
        return RF_OK;
    if (has_partial_unmaps(sink->lane))
        status = rf_pg_group_flush(sink, err);
    if (status)
        return status;
    if (lane_has_edges(sink->lane))
        status = rf_pg_query(sink->pg, &rows, err,
                             "SELECT b.item, b.id, b.seq, b.deleted, b.mapped_at, CASE WHEN kind = "
                             "'part' THEN (SELECT p.parent FROM refuge_parts p WHERE p.child = "
                             "b.id AND p.mapper = ANY($2) AND p.parent <> ALL($3) LIMIT 1) END "
                             "FROM blobs b WHERE b.item = ANY($1)",
                             "TII", keys, count, sink->lane->ids, sink->lane->mapper_count,
                             sink->group.unmap.items, sink->group.unmap.count);
    else
        status = rf_pg_query(sink->pg, &rows, err,
                             "SELECT item, id, seq, deleted, mapped_at, null::bigint FROM blobs "
                             "WHERE item = ANY($1)",
                             "T", keys, count);
    for (size_t i = 0; !status && i < count; i++)
        if (!find_item(&sink->cache, keys[i]))
            add_item(&sink->cache, keys[i]);
    for (size_t row = 0; !status && row < rf_pg_count(rows); row++)
        take_row(sink, rows, row);
    rf_pg_rows_free(rows);
    return status;
}

enum rf_status rf_postgres_expect(struct rf_sink *base, const char *const *keys, size_t count,
                                  struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    const char *unknown[RF_SINK_EXPECT_MAX] = {NULL};
    size_t used = 0;

    for (size_t i = 0; i < count; i++) {
        const struct rf_pg_item *item = find_item(&sink->cache, keys[i]);
        if (!item || (strchr(keys[i], ';') && !knows_reach(sink, item)))
            unknown[used++] = keys[i];
    }
    return settle(sink, look_up(sink, unknown, used, err));
}

/* One item, known by now; with_reach: and what reaches it. */
static enum rf_status get_item(struct rf_postgres *sink, const char *key, bool with_reach,
                               struct rf_pg_item **out, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    *out = find_item(&sink->cache, key);
    if (!*out || (with_reach && !knows_reach(sink, *out)))
        status = look_up(sink, &key, 1, err);
    if (!status)
        *out = find_item(&sink->cache, key);
    return status;
}

/* ---- the group ---- */

/* Make the group one of this kind that does not hold the item yet. */
static enum rf_status open_group(struct rf_postgres *sink, int kind, struct rf_pg_item *item,
                                 struct rf_error *err)
{
    struct rf_pg_group *group = &sink->group;
    enum rf_status status = RF_OK;

    if ((group->kind != RF_GROUP_EMPTY && (int)group->kind != kind) ||
        (item && item->group == group->number))
        status = rf_pg_group_flush(sink, err);
    group->kind = kind == RF_GROUP_PUTS ? RF_GROUP_PUTS : RF_GROUP_REMOVES;
    return status;
}

static enum rf_status close_item(struct rf_postgres *sink, struct rf_error *err)
{
    struct rf_pg_group *group = &sink->group;
    enum rf_status status = RF_OK;

    group->items++;
    if (group->items >= GROUP_ITEMS || group->bytes >= GROUP_BYTES)
        status = rf_pg_group_flush(sink, err);
    if (!status && sink->cache.count > CACHE_ITEMS) {
        status = rf_pg_group_flush(sink, err);
        clear_cache(&sink->cache);
    }
    return status;
}

static enum rf_status next_id(struct rf_postgres *sink, int64_t *out, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    if (sink->next_id > sink->last_id || sink->next_id == 0) {
        status = rf_pg_int(sink->pg, &sink->next_id, 0, err, "SELECT nextval('refuge_blob_ids')",
                           "");
        sink->last_id = sink->next_id + ID_BLOCK - 1;
    }
    if (!status)
        *out = sink->next_id++;
    return status;
}

static void put_words(struct rf_buf *out, const char *words)
{
    struct rf_buf clean;
    struct rf_bytes text = rf_bytes(words, words ? strlen(words) : 0);

    if (!words || rf_utf8_valid(text) == text.size) {
        rf_pg_put_text(out, text);
        return;
    }
    rf_buf_init(&clean, 1 << 20);
    rf_utf8_clean(&clean, text, true, NULL, NULL);
    rf_pg_put_text(out, rf_bytes(clean.data ? clean.data : (const uint8_t *)"", clean.size));
    rf_buf_release(&clean);
}

/* A time as the server takes it: within years 1-9999. */
static int64_t bounded(int64_t us)
{
    if (us == INT64_MIN)
        return us;
    return us < RF_TIME_MIN ? RF_TIME_MIN : us > RF_TIME_MAX ? RF_TIME_MAX : us;
}

struct blob_row {
    const char *kind, *name;
    int64_t size, ts, seq, mtime, mapped_at; /* size < 0: null */
    bool deleted;
};

/* A new row of blobs, under an id of its own. */
static enum rf_status insert_blob(struct rf_postgres *sink, struct rf_pg_item *item,
                                  const struct blob_row *row, struct rf_error *err)
{
    struct rf_pg_rowset *set = &sink->group.own[RF_OWN_BLOBS];
    size_t before = set->rows.size;
    enum rf_status status = next_id(sink, &item->id, err);

    if (status)
        return status;
    rf_pg_row_begin(&set->rows, 10);
    rf_pg_put_bigint(&set->rows, item->id);
    rf_pg_put_text(&set->rows, rf_bytes_text(item->key));
    rf_pg_put_text(&set->rows, rf_bytes_text(row->kind));
    if (row->size < 0)
        rf_pg_put_null(&set->rows);
    else
        rf_pg_put_bigint(&set->rows, row->size);
    rf_pg_put_time(&set->rows, bounded(row->ts));
    rf_pg_put_bigint(&set->rows, row->seq);
    rf_pg_put_smallint(&set->rows, row->deleted);
    put_words(&set->rows, row->name);
    rf_pg_put_time(&set->rows, bounded(row->mtime));
    rf_pg_put_time(&set->rows, row->mapped_at);
    item->absent = false;
    item->seq = (uint64_t)row->seq;
    item->deleted = row->deleted;
    item->seen_now = row->mapped_at == sink->now;
    item->reach = RF_REACH_NONE;
    return rf_pg_group_close(&sink->group, set, before, RF_PG_NO_CALL, err);
}

static const char *keep_words(struct rf_postgres *sink, const char *words)
{
    struct rf_buf clean;
    char *copy;

    if (!words)
        return NULL;
    rf_buf_init(&clean, 1 << 20);
    rf_utf8_clean(&clean, rf_bytes_text(words), true, NULL, NULL);
    copy = rf_arena_copy(&sink->group.arena, clean.data ? (const char *)clean.data : "",
                         clean.size);
    rf_buf_release(&clean);
    return copy;
}

/* ---- unmapping ---- */

/* All that the lane, or one mapper, has of an item goes with the group. */
static void unmap(struct rf_postgres *sink, struct rf_pg_mapper *only, int64_t id)
{
    if (id > sink->lane->top)
        return;
    rf_ids_put(only ? &only->unmap : &sink->group.unmap, id);
    rf_pg_cache_cut(&sink->cache, id);
}

static void touch(struct rf_postgres *sink, int64_t id)
{
    if (id > sink->lane->top)
        sink->lane->top = id;
}

/* ---- rows ---- */

static void put_value(struct rf_buf *out, const struct rf_value *value, enum rf_type declared)
{
    char text[RF_BLOBREF_SIZE];

    switch (value->type) {
    case RF_TYPE_INT:
        rf_pg_put_bigint(out, value->integer);
        break;
    case RF_TYPE_BOOL:
        rf_pg_put_bool(out, value->boolean);
        break;
    case RF_TYPE_FLOAT:
        rf_pg_put_float(out, value->real);
        break;
    case RF_TYPE_TEXT:
    case RF_TYPE_JSON:
        rf_pg_put_text(out, value->text.data ? value->text : rf_bytes("", 0));
        break;
    case RF_TYPE_TIME:
        rf_pg_put_time(out, value->integer);
        break;
    case RF_TYPE_BLOBREF:
        rf_blobref_format(&value->ref, text);
        rf_pg_put_text(out, rf_bytes_text(text));
        break;
    default:
        rf_pg_put_null(out);
        break;
    }
    if (declared != RF_TYPE_TIME)
        return;
    if (value->type == RF_TYPE_TIME && value->offset_minutes != RF_OFFSET_UNKNOWN)
        rf_pg_put_int(out, value->offset_minutes);
    else
        rf_pg_put_null(out);
}

static enum rf_status put_row(struct rf_postgres *sink, struct rf_pg_table *table, int64_t blob,
                              uint32_t n, const struct rf_record *record, uint32_t call,
                              struct rf_error *err)
{
    static const struct rf_value null = {0};
    struct rf_buf *rows = &table->set.rows;
    size_t before = rows->size;
    bool searched = false;

    rf_pg_row_begin(rows, table->columns);
    rf_pg_put_bigint(rows, blob);
    rf_pg_put_bigint(rows, n);
    if (table->search_count)
        rf_lexemes_clear(sink->lexemes);
    for (size_t i = 0; i < table->decl->column_count; i++) {
        const struct rf_column *column = &table->decl->columns[i];
        const struct rf_value *value = i < record->column_count ? &record->values[i] : &null;
        put_value(rows, value, column->type);
        if (column->search && value->type == RF_TYPE_TEXT) {
            rf_lexemes_add(sink->lexemes, value->text);
            searched = true;
        }
    }
    if (searched) {
        rf_buf_clear(&sink->vector);
        rf_lexemes_encode(sink->lexemes, &sink->vector);
        rf_pg_put_text(rows, rf_buf_bytes(&sink->vector));
    } else if (table->search_count) {
        rf_pg_put_null(rows);
    }
    touch(sink, blob);
    if (blob > table->top)
        table->top = blob;
    return rf_pg_group_close(&sink->group, &table->set, before, call, err);
}

/* Repeats of one row's cleanings are stored once. */
struct cuts_seen {
    uint32_t row;
    size_t count;
    uint32_t what[CUTS_OF_ROW];
};

static bool is_repeat(struct cuts_seen *seen, const struct rf_record *record)
{
    uint32_t what = (uint32_t)record->table << 16 | (uint32_t)record->column << 8 |
                    (uint32_t)record->cut;

    if (seen->row != record->row)
        *seen = (struct cuts_seen){.row = record->row};
    for (size_t i = 0; i < seen->count; i++)
        if (seen->what[i] == what)
            return true;
    if (seen->count < CUTS_OF_ROW)
        seen->what[seen->count++] = what;
    return false;
}

static enum rf_status put_cut(struct rf_postgres *sink, struct rf_pg_mapper *mapper, int64_t blob,
                              const struct rf_record *record, uint32_t call, struct rf_error *err)
{
    const struct rf_table *table = &mapper->decl->tables[record->table];
    struct rf_pg_rowset *set = &sink->group.own[RF_OWN_CUTS];
    size_t before = set->rows.size;

    touch(sink, blob);
    rf_pg_group_unlike(&sink->group, blob);
    rf_pg_row_begin(&set->rows, 6);
    rf_pg_put_bigint(&set->rows, mapper->id);
    rf_pg_put_bigint(&set->rows, blob);
    rf_pg_put_bigint(&set->rows, record->row);
    rf_pg_put_text(&set->rows, rf_bytes_text(table->name));
    rf_pg_put_text(&set->rows, rf_bytes_text(table->columns[record->column].name));
    rf_pg_put_text(&set->rows, rf_bytes_text(cut_names[record->cut]));
    return rf_pg_group_close(&sink->group, set, before, call, err);
}

/* All rows and cuts of a call; *why: the output is damaged, and the call with it. */
static enum rf_status put_rows(struct rf_postgres *sink, struct rf_pg_mapper *mapper, int64_t blob,
                               const struct rf_sink_call *call, uint32_t number,
                               struct rf_error *why, struct rf_error *err)
{
    struct cuts_seen seen = {.row = UINT32_MAX};
    struct rf_output_reader reader;
    struct rf_record record;
    uint32_t n = 0;
    enum rf_status status = RF_OK;

    rf_output_init(&reader, call->output, mapper->decl, UINT64_MAX);
    while (!status && (status = rf_output_next(&reader, &record, why)) == RF_OK) {
        if (record.kind == RF_RECORD_ROW)
            status = put_row(sink, &mapper->tables[record.table], blob, n++, &record, number, err);
        else if (record.kind == RF_RECORD_CUT && !is_repeat(&seen, &record))
            status = put_cut(sink, mapper, blob, &record, number, err);
    }
    rf_output_release(&reader);
    if (status == RF_NOMEM && why->status)
        return rf_error_set(err, status, "%s", why->message);
    return status == RF_END || why->status ? RF_OK : status;
}

/* ---- edges, needs ---- */

static enum rf_status put_edge(struct rf_postgres *sink, struct rf_pg_mapper *mapper, int64_t blob,
                               const struct rf_sink_part *part, struct rf_error *err)
{
    struct rf_pg_rowset *set = &sink->group.own[RF_OWN_PARTS];
    struct rf_pg_item *child;
    size_t before;
    enum rf_status status = get_item(sink, part->key, false, &child, err);

    if (!status && child->absent) {
        status = insert_blob(sink, child,
                             &(struct blob_row){.kind = "part", .size = (int64_t)part->size,
                                                .ts = INT64_MIN, .mtime = INT64_MIN,
                                                .mapped_at = sink->now},
                             err);
    }
    if (status)
        return status;
    rf_pg_group_unlike(&sink->group, blob);
    before = set->rows.size;
    rf_pg_row_begin(&set->rows, 7);
    rf_pg_put_bigint(&set->rows, mapper->id);
    rf_pg_put_bigint(&set->rows, blob);
    rf_pg_put_bigint(&set->rows, mapper->edges++);
    rf_pg_put_bigint(&set->rows, child->id);
    put_words(&set->rows, part->name);
    if (part->inlined)
        rf_pg_put_null(&set->rows);
    else
        rf_pg_put_bigint(&set->rows, (int64_t)part->offset);
    rf_pg_put_bigint(&set->rows, (int64_t)part->size);
    take_reach(sink, child, blob);
    rf_ids_put(&sink->group.calls[mapper->edges_call].children, child->id);
    return rf_pg_group_close(&sink->group, set, before, mapper->edges_call, err);
}

/* Keys of parts that nobody told of are asked for together. */
static enum rf_status expect_parts(struct rf_postgres *sink, const struct rf_sink_part *parts,
                                   size_t count, struct rf_error *err)
{
    const char *unknown[RF_SINK_EXPECT_MAX] = {NULL};
    size_t used = 0;

    for (size_t i = 0; i < count; i++)
        if (!find_item(&sink->cache, parts[i].key))
            unknown[used++] = parts[i].key;
    return look_up(sink, unknown, used, err);
}

static enum rf_status put_edges(struct rf_postgres *sink, struct rf_pg_mapper *mapper,
                                int64_t blob, const struct rf_sink_part *parts, size_t count,
                                struct rf_error *err)
{
    enum rf_status status = RF_OK;

    if (count) {
        touch(sink, blob);
        mapper->has_edges = true;
    }
    for (size_t i = 0; !status && i < count; i++) {
        if (i % RF_SINK_EXPECT_MAX == 0)
            status = expect_parts(sink, parts + i,
                                  count - i < RF_SINK_EXPECT_MAX ? count - i : RF_SINK_EXPECT_MAX,
                                  err);
        if (!status && mapper->edges_group != sink->group.number) {
            /* The group with the call itself is written: these make a call of their own. */
            status = open_group(sink, RF_GROUP_PUTS, NULL, err);
            mapper->edges_call = rf_pg_group_call(&sink->group, blob,
                                                  (uint16_t)(mapper - sink->lane->mappers), 1);
            mapper->edges_group = sink->group.number;
        }
        if (!status && mapper->edges_of == blob)
            status = put_edge(sink, mapper, blob, &parts[i], err);
    }
    return status;
}

static enum rf_status put_needs(struct rf_postgres *sink, struct rf_pg_mapper *mapper,
                                int64_t blob, const struct rf_sink_call *call,
                                struct rf_error *err)
{
    struct rf_pg_rowset *set = &sink->group.own[RF_OWN_NEEDS];
    size_t before = set->rows.size;
    char text[RF_BLOBREF_SIZE];

    if (call->need_count)
        rf_pg_group_unlike(&sink->group, blob);
    for (size_t i = 0; i < call->need_count; i++) {
        touch(sink, blob);
        if (!call->needs[i].present)
            sink->waiting = RF_PG_WAITING_SOME;
        rf_blobref_format(&call->needs[i].ref, text);
        rf_pg_row_begin(&set->rows, 5);
        rf_pg_put_bigint(&set->rows, mapper->id);
        rf_pg_put_bigint(&set->rows, blob);
        rf_pg_put_bigint(&set->rows, (int64_t)i);
        rf_pg_put_text(&set->rows, rf_bytes_text(text));
        rf_pg_put_smallint(&set->rows, call->needs[i].present);
    }
    return rf_pg_group_close(&sink->group, set, before, RF_PG_NO_CALL, err);
}

/* ---- calls ---- */

static enum rf_status set_aside(struct rf_postgres *sink, enum rf_pg_own own,
                                struct rf_pg_mapper *mapper, int64_t blob, const char *kind,
                                const struct rf_sink_call *call, struct rf_error *err)
{
    touch(sink, blob);
    return rf_pg_group_set_aside(sink, own, mapper, blob, kind, call->reason, call->attempts, err);
}

static enum rf_status write_rows(struct rf_postgres *sink, struct rf_pg_mapper *mapper,
                                 uint16_t index, int64_t blob, const struct rf_sink_call *call,
                                 struct rf_error *err)
{
    struct rf_error why = {0};
    char reason[RF_ERROR_SIZE + 64];
    uint32_t number =
        rf_pg_group_call(&sink->group, blob, index, call->attempts);
    enum rf_status status = RF_OK;

    if (!mapper->edges_only)
        status = put_rows(sink, mapper, blob, call, number, &why, err);
    if (!status && why.status) { /* output that was not checked: the call is at fault */
        sink->group.calls[number].refused = true; /* its rows so far stay behind */
        snprintf(reason, sizeof reason, "output is damaged: %.400s", why.message);
        touch(sink, blob);
        return rf_pg_group_set_aside(sink, RF_OWN_LETTERS, mapper, blob,
                                     dead_classes[RF_DEAD_SINK], reason, call->attempts, err);
    }
    mapper->edges_of = blob;
    mapper->edges = 0;
    mapper->edges_call = number;
    mapper->edges_group = sink->group.number;
    return status ? status
                  : put_edges(sink, mapper, blob, call->parts, call->part_count, err);
}

static enum rf_status write_call(struct rf_postgres *sink, uint16_t index, int64_t blob,
                                 const struct rf_sink_call *call, struct rf_error *err)
{
    struct rf_pg_mapper *mapper = &sink->lane->mappers[index];
    enum rf_status status = RF_OK;

    switch (call->outcome) {
    case RF_SINK_ROWS:
        status = write_rows(sink, mapper, index, blob, call, err);
        break;
    case RF_SINK_NONE:
        break;
    case RF_SINK_DEAD:
        if (!mapper->edges_only)
            status = set_aside(sink, RF_OWN_LETTERS, mapper, blob,
                               dead_classes[call->dead_class], call, err);
        break;
    case RF_SINK_PARKED_SLOW:
        status = set_aside(sink, RF_OWN_PARKS, mapper, blob,
                           rf_postgres_park_names[RF_PARK_SLOW], call, err);
        break;
    case RF_SINK_PARKED_NEED:
        status = set_aside(sink, RF_OWN_PARKS, mapper, blob,
                           rf_postgres_park_names[RF_PARK_NEED], call, err);
        break;
    }
    return status ? status : put_needs(sink, mapper, blob, call, err);
}

static enum rf_status write_calls(struct rf_postgres *sink, const struct rf_sink_item *item,
                                  int64_t id, bool is_new, struct rf_error *err)
{
    struct rf_pg_lane *lane = sink->lane;
    enum rf_status status = RF_OK;

    memset(lane->calls, 0, lane->mapper_count * sizeof *lane->calls);
    for (size_t i = 0; i < item->call_count; i++) {
        assert(item->calls[i].mapper < lane->mapper_count);
        lane->calls[item->calls[i].mapper] = &item->calls[i];
    }
    if (!is_new && !item->only_calls)
        unmap(sink, NULL, id);
    for (size_t i = 0; !status && i < lane->mapper_count; i++) {
        const struct rf_sink_call *call = lane->calls[i];
        if (!call)
            continue;
        if (!is_new && item->only_calls)
            unmap(sink, &lane->mappers[i], id);
        status = write_call(sink, (uint16_t)i, id, call, err);
    }
    return status;
}

/* ---- the item ---- */

/* Insert the item's row, or note its change. *fresh: it has nothing yet. */
static enum rf_status place_item(struct rf_postgres *sink, const struct rf_sink_item *item,
                                 struct rf_pg_item *known, bool *fresh, struct rf_error *err)
{
    *fresh = known->absent;
    if (!known->absent && !known->deleted && known->seq == item->seq && !item->only_calls &&
        known->id <= sink->lane->top)
        rf_ids_put(&sink->group.again, known->id);
    if (known->absent)
        return insert_blob(sink, known,
                           &(struct blob_row){.kind = item_kinds[item->kind], .name = item->name,
                                              .size = (int64_t)item->size,
                                              .ts = item->timestamp_us,
                                              .seq = (int64_t)item->seq, .mtime = item->mtime_us,
                                              .mapped_at = sink->now},
                           err);
    /* Another lane sees the same item with the same facts; only the live one says when. */
    if (known->seq == item->seq && !known->deleted && (known->seen_now || !sink->lane->live))
        return RF_OK;
    rf_pg_group_update(&sink->group, &(struct rf_pg_update){
                                         .id = known->id, .kind = item_kinds[item->kind],
                                         .name = keep_words(sink, item->name),
                                         .size = (int64_t)item->size,
                                         .ts = bounded(item->timestamp_us),
                                         .seq = (int64_t)item->seq,
                                         .mtime = bounded(item->mtime_us)});
    known->seq = item->seq;
    known->deleted = false;
    known->seen_now |= sink->lane->live;
    return RF_OK;
}

static bool is_stale(const struct rf_sink_item *item, const struct rf_pg_item *known)
{
    if (item->kind == RF_SINK_PART)
        return known->absent || /* a part that no edge ever named */
               (known->reach != RF_REACH_SOME && RF_SAFEGUARD("sink-part-reached"));
    return !known->absent &&
           (known->seq > item->seq || (known->seq == item->seq && known->deleted)) &&
           RF_SAFEGUARD("sink-stale");
}

static enum rf_status put_item(struct rf_postgres *sink, const struct rf_sink_item *item,
                               bool *stale, struct rf_error *err)
{
    struct rf_pg_item *known = NULL;
    bool fresh = false;
    enum rf_status status =
        get_item(sink, item->key, item->kind == RF_SINK_PART, &known, err);

    if (status)
        return status;
    *stale = is_stale(item, known);
    for (size_t i = 0; i < sink->lane->mapper_count; i++)
        sink->lane->mappers[i].edges_of = 0;
    sink->put_last = 0;
    if (*stale)
        return RF_OK;
    status = open_group(sink, RF_GROUP_PUTS, known, err);
    if (!status)
        status = place_item(sink, item, known, &fresh, err);
    if (status)
        return status;
    known->group = sink->group.number;
    sink->put_last = known->id;
    return write_calls(sink, item, known->id, fresh, err);
}

enum rf_status rf_postgres_put(struct rf_sink *base, const struct rf_sink_item *item, bool *stale,
                               struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    bool is_stale_now = false;
    enum rf_status status = put_item(sink, item, &is_stale_now, err);

    if (!status)
        status = close_item(sink, err);
    if (!status && stale)
        *stale = is_stale_now;
    return settle(sink, status);
}

enum rf_status rf_postgres_put_parts(struct rf_sink *base, uint16_t mapper,
                                     const struct rf_sink_part *parts, size_t count,
                                     struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_pg_mapper *to = &sink->lane->mappers[mapper];
    enum rf_status status;

    assert(mapper < sink->lane->mapper_count);
    if (sink->put_last == 0 || to->edges_of != sink->put_last)
        return RF_OK;
    status = put_edges(sink, to, sink->put_last, parts, count, err);
    return settle(sink, status ? status : close_item(sink, err));
}

/* ---- removal and arrival ---- */

static enum rf_status remove_item(struct rf_postgres *sink, const char *key, uint64_t seq,
                                  int64_t timestamp_us, struct rf_error *err)
{
    struct rf_pg_item *known = NULL;
    bool fresh;
    enum rf_status status = get_item(sink, key, false, &known, err);

    if (status || (!known->absent && known->seq > seq && RF_SAFEGUARD("sink-stale")))
        return status;
    status = open_group(sink, RF_GROUP_REMOVES, known, err);
    if (status)
        return status;
    fresh = known->absent;
    known->group = sink->group.number;
    rf_pg_group_ref(&sink->group, key);
    if (fresh)
        return insert_blob(sink, known,
                           &(struct blob_row){.kind = "blob", .size = -1, .ts = timestamp_us,
                                              .seq = (int64_t)seq, .mtime = INT64_MIN,
                                              .mapped_at = INT64_MIN, .deleted = true},
                           err);
    rf_pg_group_update(&sink->group, &(struct rf_pg_update){.id = known->id,
                                                            .ts = bounded(timestamp_us),
                                                            .seq = (int64_t)seq});
    known->seq = seq;
    known->deleted = true;
    unmap(sink, NULL, known->id);
    return RF_OK;
}

enum rf_status rf_postgres_remove(struct rf_sink *base, const struct rf_blobref *ref, uint64_t seq,
                                  int64_t timestamp_us, struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    char key[RF_BLOBREF_SIZE];
    enum rf_status status;

    rf_blobref_format(ref, key);
    status = remove_item(sink, key, seq, timestamp_us, err);
    return settle(sink, status ? status : close_item(sink, err));
}

/* Whether any item waits for a blob. Once true it stays: a rollback may only make it needlessly
 * so. */
static enum rf_status look_for_waiting(struct rf_postgres *sink, struct rf_error *err)
{
    int64_t some;
    enum rf_status status;

    status = rf_pg_int(sink->pg, &some, 0, err,
                       "SELECT 1 FROM refuge_needs WHERE present = 0 LIMIT 1", "");
    if (!status)
        sink->waiting = some ? RF_PG_WAITING_SOME : RF_PG_WAITING_NONE;
    return status;
}

enum rf_status rf_postgres_arrived(struct rf_sink *base, const struct rf_blobref *ref,
                                   struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    char text[RF_BLOBREF_SIZE];
    enum rf_status status = RF_OK;

    if (sink->waiting == RF_PG_WAITING_UNKNOWN)
        status = look_for_waiting(sink, err);
    if (!status && sink->waiting == RF_PG_WAITING_NONE)
        return RF_OK;
    if (!status)
        status = open_group(sink, RF_GROUP_PUTS, NULL, err);
    if (status)
        return settle(sink, status);
    rf_blobref_format(ref, text);
    rf_pg_group_ref(&sink->group, text);
    return settle(sink, close_item(sink, err));
}

enum rf_status rf_postgres_lost(struct rf_sink *base, uint64_t first, uint64_t last,
                                struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);

    return settle(sink, rf_pg_run(sink->pg, NULL, err,
                                  "INSERT INTO refuge_facts(name, value) VALUES('lost:' || "
                                  "$1::bigint || ':' || $2::bigint, $3::bigint::text) ON "
                                  "CONFLICT(name) DO UPDATE SET value = excluded.value",
                                  "iii", (int64_t)sink->lane->id, (int64_t)first,
                                  (int64_t)last));
}

/* ---- the batch ---- */

/* Where the lane stands; a commit whose answer was lost may have moved it. */
static enum rf_status check_position(struct rf_postgres *sink, const char *from,
                                     struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    char token[24];
    const char *position;
    enum rf_status status;

    snprintf(token, sizeof token, "%016llx", (unsigned long long)sink->token);
    status = rf_pg_query(sink->pg, &rows, err,
                         "SELECT position, coalesce(writer, '') FROM refuge_lanes WHERE id = $1",
                         "i", (int64_t)sink->lane->id);
    if (!status && !rf_pg_count(rows))
        status = rf_error_set(err, RF_NOT_FOUND, "index '%s' has no lane %u", rf_pg_name(sink->pg),
                              (unsigned)sink->lane->id);
    if (status) {
        rf_pg_rows_free(rows);
        return status;
    }
    position = rf_pg_text_at(rows, 0, 0);
    if (strcmp(position, from) == 0 || !RF_SAFEGUARD("sink-cas"))
        snprintf(sink->from, sizeof sink->from, "%s", from);
    else if (sink->unknown_lane == sink->lane->id && strcmp(position, sink->unknown_to) == 0 &&
             strcmp(rf_pg_text_at(rows, 0, 1), token) == 0 && RF_SAFEGUARD("sink-lost-answer"))
        snprintf(sink->from, sizeof sink->from, "%s", position); /* our own; to write it again
                                                                  * changes nothing */
    else
        status = rf_error_set(err, RF_LOCKED,
                              "index '%s' stands at '%s', not at '%s': another writer came first",
                              rf_pg_name(sink->pg), position, from);
    rf_pg_rows_free(rows);
    return status;
}

enum rf_status rf_postgres_begin(struct rf_sink *base, uint32_t lane, const char *from,
                                 struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    enum rf_status status = rf_postgres_ready(sink, err);

    /* Taken away, each statement commits alone: a crash then leaves half an item behind. */
    if (!status && RF_SAFEGUARD("sink-one-transaction"))
        status = rf_pg_exec(sink->pg, err, "BEGIN");
    if (status)
        return status;
    base->batch_open = true;
    sink->orphans = false;
    sink->put_last = 0;
    sink->now = rf_postgres_now();
    status = rf_postgres_lane_get(sink, lane, &sink->lane, err);
    if (!status)
        status = check_position(sink, from, err);
    return settle(sink, status);
}

static enum rf_status move_position(struct rf_postgres *sink, const char *to, struct rf_error *err)
{
    char token[24];
    int64_t moved = 0;
    enum rf_status status;

    snprintf(token, sizeof token, "%016llx", (unsigned long long)sink->token);
    status = rf_pg_run(sink->pg, &moved, err,
                       "UPDATE refuge_lanes SET position = $2, writer = $3 WHERE id = $1 AND "
                       "position = $4",
                       "ittt", (int64_t)sink->lane->id, to, token, sink->from);
    if (!status && moved == 0 && RF_SAFEGUARD("sink-cas"))
        status = rf_error_set(err, RF_LOCKED,
                              "index '%s' does not stand at '%s' any more: another writer came "
                              "first",
                              rf_pg_name(sink->pg), sink->from);
    return status;
}

/* The answer of COMMIT was lost: whether it was done is to be seen in the position. */
static enum rf_status find_out(struct rf_postgres *sink, uint32_t lane, const char *to,
                               struct rf_error *err)
{
    struct rf_error why = {0};
    int64_t there = 0;
    char token[24];
    enum rf_status status = rf_postgres_ready(sink, &why);

    sink->unknown_lane = lane;
    snprintf(sink->unknown_to, sizeof sink->unknown_to, "%s", to);
    snprintf(token, sizeof token, "%016llx", (unsigned long long)sink->token);
    if (!status)
        status = rf_pg_int(sink->pg, &there, 0, &why,
                           "SELECT CASE WHEN position = $2 AND writer = $3 THEN 1 ELSE 0 END FROM "
                           "refuge_lanes WHERE id = $1",
                           "itt", (int64_t)lane, to, token);
    if (status)
        return rf_error_set(err, RF_TIMEOUT,
                            "connection to index '%s' was lost at the end of a batch; whether it "
                            "was stored is not known yet",
                            rf_pg_name(sink->pg));
    sink->unknown_lane = 0;
    return there && strcmp(sink->from, to) != 0 && RF_SAFEGUARD("sink-lost-answer")
               ? RF_OK
               : rf_error_set(err, RF_UNAVAILABLE,
                              "connection to index '%s' was lost at the end of a batch",
                              rf_pg_name(sink->pg));
}

enum rf_status rf_postgres_commit(struct rf_sink *base, const char *to, struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_error why = {0};
    uint32_t lane = sink->lane->id;
    enum rf_status status = rf_pg_group_flush(sink, err);

    if (!status && sink->orphans)
        status = rf_postgres_collect_orphans(sink, sink->lane, err);
    if (!status)
        status = move_position(sink, to, err);
    if (status)
        return settle(sink, status);
    if (RF_SAFEGUARD("sink-one-transaction"))
        status = rf_pg_exec(sink->pg, &why, "COMMIT");
    rf_postgres_rollback(base); /* nothing is left to undo: the batch is forgotten */
    if (!status) {
        sink->unknown_lane = 0;
        return RF_OK;
    }
    if (rf_pg_is_lost(sink->pg))
        return find_out(sink, lane, to, err);
    return rf_error_set(err, status, "%s", why.message);
}

void rf_postgres_rollback(struct rf_sink *base)
{
    struct rf_postgres *sink = rf_postgres_of(base);

    if (!rf_pg_is_lost(sink->pg) && rf_pg_in_transaction(sink->pg))
        (void)!rf_pg_exec(sink->pg, NULL, "ROLLBACK");
    rf_pg_group_clear(sink);
    clear_cache(&sink->cache);
    sink->lane = NULL;
    sink->shared = 0;
    base->batch_open = false;
}

enum rf_status rf_postgres_has_part(struct rf_sink *base, uint32_t id, const char *key, bool *out,
                                    struct rf_error *err)
{
    struct rf_postgres *sink = rf_postgres_of(base);
    struct rf_pg_item *known = NULL;
    int64_t found = 0;
    enum rf_status status = RF_OK;

    if (base->batch_open && sink->lane->id == id) {
        status = get_item(sink, key, true, &known, err);
        if (!status)
            *out = !known->absent && known->reach == RF_REACH_SOME;
        return settle(sink, status);
    }
    status = base->batch_open ? rf_postgres_flush(sink, err) : rf_postgres_ready(sink, err);
    if (!status)
        status = rf_pg_int(sink->pg, &found, 0, err,
                           "SELECT 1 FROM blobs b JOIN refuge_parts p ON p.child = b.id WHERE "
                           "b.item = $1 AND p.mapper IN (SELECT id FROM refuge_lane_mappers WHERE "
                           "lane = $2) LIMIT 1",
                           "ti", key, (int64_t)id);
    if (!status)
        *out = found != 0;
    return status;
}
