/*
 * postgres_group.c - rows of many items, collected and written together
 *
 * A group is up to 10,000 items or 16 MiB of rows (or one item, whatever its size), each item once,
 * only puts or only removals. What was there of its items is deleted first, by `blob = ANY(ids)`,
 * so nothing that is then written can conflict, and every table is filled by binary COPY: it costs
 * the server two thirds of what an INSERT from arrays does.
 *
 *   blobs: new rows, changed rows -> old rows out -> rows of calls in -> needs, parks, letters
 *
 * Items that were written before with the same change, as when a log is read again, are compared
 * first: COPY gives the rows of a table in the very bytes that it takes. Those that are as they
 * should be are left alone.
 *
 * A row that a table refuses undoes the COPY of all calls of the group, back to a savepoint; the
 * calls are then halved until the one at fault is alone. It becomes a dead letter, the rest is
 * stored.
 */
#include "sinks/sink_postgres.h"

#include "core/control.h"
#include "core/utf8.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define SET_MAX ((size_t)2 << 30)  /* bytes of rows for one table: an item's output is bounded */
#define SET_KEEP ((size_t)32 << 20)
#define COMPARE_MAX ((size_t)64 << 20) /* bytes of rows of one table that are compared at once */
#define REASON_MAX 4096

static const char *const own_targets[RF_OWN_COUNT] = {
    [RF_OWN_BLOBS] = "blobs(id, item, kind, size, ts, seq, deleted, name, mtime, mapped_at)",
    [RF_OWN_PARTS] = "refuge_parts(mapper, parent, n, child, name, \"offset\", size)",
    [RF_OWN_CUTS] = "refuge_cuts(mapper, blob, n, \"table\", \"column\", kind)",
    [RF_OWN_NEEDS] = "refuge_needs(mapper, blob, n, ref, present)",
    [RF_OWN_PARKS] = "refuge_parks(mapper, blob, kind, reason, attempts, at)",
    [RF_OWN_LETTERS] = "refuge_dead_letters(mapper, blob, class, reason, attempts, at)",
};

/* ---- containers ---- */

static void *grow(void *items, size_t count, size_t *room, size_t size)
{
    if (count < *room)
        return items;
    *room = *room ? 2 * *room : 64;
    items = realloc(items, *room * size);
    if (!items)
        abort();
    return items;
}

void rf_ids_put(struct rf_ids *ids, int64_t id)
{
    ids->items = grow(ids->items, ids->count, &ids->room, sizeof *ids->items);
    ids->items[ids->count++] = id;
}

void rf_ids_release(struct rf_ids *ids)
{
    free(ids->items);
    *ids = (struct rf_ids){0};
}

void rf_pg_rowset_init(struct rf_pg_rowset *set)
{
    *set = (struct rf_pg_rowset){0};
    rf_buf_init(&set->rows, SET_MAX);
}

void rf_pg_rowset_release(struct rf_pg_rowset *set)
{
    rf_buf_release(&set->rows);
    free(set->slices);
}

enum rf_status rf_pg_group_close(struct rf_pg_group *group, struct rf_pg_rowset *set,
                                 size_t before, uint32_t call, struct rf_error *err)
{
    size_t size = set->rows.size - before;
    struct rf_pg_slice *last = set->slice_count ? &set->slices[set->slice_count - 1] : NULL;

    if (set->rows.failed)
        return rf_error_set(err, set->rows.failed, "no memory for the rows of an item");
    if (size == 0)
        return RF_OK;
    group->bytes += size;
    if (last && last->call == call && last->size <= UINT32_MAX - size) {
        last->size += (uint32_t)size;
        return RF_OK;
    }
    set->slices = grow(set->slices, set->slice_count, &set->slice_room, sizeof *set->slices);
    set->slices[set->slice_count++] = (struct rf_pg_slice){.call = call, .size = (uint32_t)size};
    return RF_OK;
}

/* What one large item needed is not kept. */
static void clear_set(struct rf_pg_rowset *set)
{
    if (set->rows.capacity > SET_KEEP)
        rf_buf_release(&set->rows);
    rf_buf_clear(&set->rows);
    set->slice_count = 0;
}

void rf_pg_group_init(struct rf_pg_group *group)
{
    *group = (struct rf_pg_group){.number = 1};
    for (size_t i = 0; i < RF_OWN_COUNT; i++)
        rf_pg_rowset_init(&group->own[i]);
    rf_arena_init(&group->arena, SIZE_MAX);
}

static void drop_calls(struct rf_pg_group *group)
{
    for (size_t i = 0; i < group->call_count; i++) {
        rf_ids_release(&group->calls[i].children);
        free(group->calls[i].reason);
    }
    group->call_count = 0;
}

void rf_pg_group_release(struct rf_pg_group *group)
{
    for (size_t i = 0; i < RF_OWN_COUNT; i++)
        rf_pg_rowset_release(&group->own[i]);
    drop_calls(group);
    free(group->calls);
    free(group->updates);
    free(group->refs);
    rf_ids_release(&group->unmap);
    rf_ids_release(&group->again);
    rf_arena_release(&group->arena);
}

void rf_pg_group_clear(struct rf_postgres *sink)
{
    struct rf_pg_group *group = &sink->group;
    struct rf_pg_lane *lane = sink->lane;

    for (size_t i = 0; i < RF_OWN_COUNT; i++)
        clear_set(&group->own[i]);
    for (size_t i = 0; lane && i < lane->mapper_count; i++) {
        lane->mappers[i].unmap.count = 0;
        for (size_t k = 0; !lane->mappers[i].edges_only && k < lane->mappers[i].decl->table_count;
             k++)
            clear_set(&lane->mappers[i].tables[k].set);
    }
    drop_calls(group);
    group->update_count = group->ref_count = group->unmap.count = 0;
    group->again.count = 0;
    group->items = group->bytes = 0;
    group->kind = RF_GROUP_EMPTY;
    group->number++;
    rf_arena_clear(&group->arena);
}

uint32_t rf_pg_group_call(struct rf_pg_group *group, int64_t blob, uint16_t mapper,
                          uint32_t attempts)
{
    group->calls =
        grow(group->calls, group->call_count, &group->call_room, sizeof *group->calls);
    group->calls[group->call_count] =
        (struct rf_pg_call){.blob = blob, .mapper = mapper, .attempts = attempts};
    return (uint32_t)group->call_count++;
}

void rf_pg_group_update(struct rf_pg_group *group, const struct rf_pg_update *update)
{
    group->updates =
        grow(group->updates, group->update_count, &group->update_room, sizeof *group->updates);
    group->updates[group->update_count++] = *update;
}

void rf_pg_group_unlike(struct rf_pg_group *group, int64_t blob)
{
    struct rf_ids *again = &group->again;

    if (again->count && again->items[again->count - 1] == blob)
        again->count--;
}

void rf_pg_group_ref(struct rf_pg_group *group, const char *ref)
{
    group->refs = grow(group->refs, group->ref_count, &group->ref_room, sizeof *group->refs);
    snprintf(group->refs[group->ref_count++], RF_BLOBREF_SIZE, "%s", ref);
}

/* Words that may quote anything, as text that the server takes. */
static void put_words(struct rf_buf *out, const char *words)
{
    struct rf_buf clean;

    if (!words) {
        rf_pg_put_null(out);
        return;
    }
    rf_buf_init(&clean, 4 * REASON_MAX);
    rf_utf8_clean(&clean, rf_bytes(words, strnlen(words, REASON_MAX)), true, NULL, NULL);
    rf_pg_put_text(out, rf_bytes(clean.data ? clean.data : (const uint8_t *)"", clean.size));
    rf_buf_release(&clean);
}

enum rf_status rf_pg_group_set_aside(struct rf_postgres *sink, enum rf_pg_own own,
                                     struct rf_pg_mapper *mapper, int64_t blob, const char *kind,
                                     const char *reason, uint32_t attempts, struct rf_error *err)
{
    struct rf_pg_rowset *set = &sink->group.own[own];
    size_t before = set->rows.size;

    rf_pg_group_unlike(&sink->group, blob);
    if (blob > sink->lane->top)
        sink->lane->top = blob;
    rf_pg_row_begin(&set->rows, 6);
    rf_pg_put_bigint(&set->rows, mapper->id);
    rf_pg_put_bigint(&set->rows, blob);
    rf_pg_put_text(&set->rows, rf_bytes_text(kind));
    put_words(&set->rows, reason);
    rf_pg_put_bigint(&set->rows, attempts);
    rf_pg_put_time(&set->rows, sink->now);
    return rf_pg_group_close(&sink->group, set, before, RF_PG_NO_CALL, err);
}

/* ---- what goes ---- */

static int64_t lowest(const int64_t *ids, size_t count)
{
    int64_t low = INT64_MAX;

    for (size_t i = 0; i < count; i++)
        if (ids[i] < low)
            low = ids[i];
    return low;
}

static enum rf_status delete_rows(struct rf_postgres *sink, const struct rf_pg_mapper *mapper,
                                  const int64_t *ids, size_t count, struct rf_error *err)
{
    int64_t low = lowest(ids, count);
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && !mapper->edges_only && i < mapper->decl->table_count; i++) {
        const struct rf_pg_table *table = &mapper->tables[i];
        char sql[RF_POSTGRES_NAME + 64];

        if (table->top < low)
            continue;
        snprintf(sql, sizeof sql, "DELETE FROM \"%s\" WHERE blob = ANY($1)", table->name);
        status = rf_pg_pipe_run(sink->pg, err, sql, "I", ids, count);
    }
    return status;
}

/* What refuge keeps of items, edges left out. The mapper is no condition for the index: keys begin
 * with the item. */
static enum rf_status delete_own(struct rf_postgres *sink, const int64_t *mappers,
                                 size_t mapper_count, const int64_t *ids, size_t count,
                                 bool keep_needs, struct rf_error *err)
{
    static const char *const deletes[] = {
        "DELETE FROM refuge_needs WHERE blob = ANY($1) AND NOT (mapper <> ALL($2))",
        "DELETE FROM refuge_parks WHERE blob = ANY($1) AND NOT (mapper <> ALL($2))",
        "DELETE FROM refuge_dead_letters WHERE blob = ANY($1) AND NOT (mapper <> ALL($2))",
        "DELETE FROM refuge_cuts WHERE blob = ANY($1) AND NOT (mapper <> ALL($2))"};
    enum rf_status status = RF_OK;

    for (size_t i = keep_needs ? 1 : 0; !status && i < sizeof deletes / sizeof *deletes; i++)
        status = rf_pg_pipe_run(sink->pg, err, deletes[i], "II", ids, count, mappers,
                                mapper_count);
    return status;
}

static enum rf_status delete_edges(struct rf_postgres *sink, const int64_t *mappers,
                                   size_t mapper_count, const int64_t *ids, size_t count,
                                   struct rf_error *err)
{
    int64_t orphans = 0;
    enum rf_status status;

    status = rf_pg_run(sink->pg, &orphans, err,
                       "WITH gone AS (DELETE FROM refuge_parts WHERE parent = ANY($1) AND NOT "
                       "(mapper <> ALL($2)) RETURNING child) INSERT INTO pg_temp.refuge_orphans "
                       "SELECT DISTINCT child FROM gone ON CONFLICT DO NOTHING",
                       "II", ids, count, mappers, mapper_count);
    sink->orphans |= orphans > 0;
    return status;
}

/* Remove all that the lane, or one mapper of it, has of items. */
static enum rf_status unmap(struct rf_postgres *sink, struct rf_pg_lane *lane,
                            const struct rf_pg_mapper *only, const int64_t *ids, size_t count,
                            bool keep_needs, struct rf_error *err)
{
    const int64_t *mappers = only ? &only->id : lane->ids;
    size_t mapper_count = only ? 1 : lane->mapper_count;
    bool edges = only && only->has_edges;
    enum rf_status status, ended;

    if (!count || !mapper_count)
        return RF_OK;
    for (size_t i = 0; !only && i < lane->mapper_count; i++)
        edges |= lane->mappers[i].has_edges;
    status = rf_pg_pipe_begin(sink->pg, err);
    if (status)
        return status;
    for (size_t i = 0; !status && !only && i < lane->mapper_count; i++)
        status = delete_rows(sink, &lane->mappers[i], ids, count, err);
    if (!status && only)
        status = delete_rows(sink, only, ids, count, err);
    if (!status)
        status = delete_own(sink, mappers, mapper_count, ids, count, keep_needs, err);
    ended = rf_pg_pipe_end(sink->pg, NULL, err);
    status = status ? status : ended;
    if (!status && edges)
        status = delete_edges(sink, mappers, mapper_count, ids, count, err);
    return status;
}

/* ---- rows of blobs ---- */

/* A column of the updates as an array. */
struct columns {
    int64_t *id, *size, *ts, *seq, *mtime;
    const char **kind, **name;
    size_t count;
};

static void *column(struct rf_arena *arena, size_t count, size_t size)
{
    return rf_arena_alloc(arena, (count + 1) * size);
}

/* The tombstones, or the others. */
static struct columns pick_updates(struct rf_pg_group *group, bool tombstones)
{
    struct rf_arena *arena = &group->arena;
    size_t most = group->update_count;
    struct columns c = {.id = column(arena, most, sizeof *c.id),
                        .size = column(arena, most, sizeof *c.size),
                        .ts = column(arena, most, sizeof *c.ts),
                        .seq = column(arena, most, sizeof *c.seq),
                        .mtime = column(arena, most, sizeof *c.mtime),
                        .kind = column(arena, most, sizeof *c.kind),
                        .name = column(arena, most, sizeof *c.name)};

    for (size_t i = 0; i < most; i++) {
        const struct rf_pg_update *update = &group->updates[i];
        if ((update->kind == NULL) != tombstones)
            continue;
        c.id[c.count] = update->id;
        c.size[c.count] = update->size;
        c.ts[c.count] = update->ts;
        c.seq[c.count] = update->seq;
        c.mtime[c.count] = update->mtime;
        c.kind[c.count] = update->kind;
        c.name[c.count++] = update->name;
    }
    return c;
}

static enum rf_status update_blobs(struct rf_postgres *sink, struct rf_error *err)
{
    int64_t now = sink->lane->live ? sink->now : INT64_MIN;
    struct columns c;
    enum rf_status status = RF_OK;

    if (!sink->group.update_count)
        return RF_OK;
    c = pick_updates(&sink->group, false);
    if (c.count)
        status = rf_pg_run(sink->pg, NULL, err,
                           "UPDATE blobs b SET kind = u.kind, size = u.size, ts = u.ts, seq = "
                           "u.seq, name = u.name, mtime = u.mtime, mapped_at = coalesce($8, "
                           "mapped_at), deleted = 0 FROM unnest($1, $2, $3, $4, $5, $6, $7) "
                           "u(id, kind, size, ts, seq, name, mtime) WHERE b.id = u.id",
                           "ITIMITMm", c.id, c.count, c.kind, c.count, c.size, c.count, c.ts,
                           c.count, c.seq, c.count, c.name, c.count, c.mtime, c.count, now);
    c = pick_updates(&sink->group, true);
    if (!status && c.count)
        status = rf_pg_run(sink->pg, NULL, err,
                           "UPDATE blobs b SET deleted = 1, seq = u.seq, ts = u.ts FROM "
                           "unnest($1, $2, $3) u(id, seq, ts) WHERE b.id = u.id",
                           "IIM", c.id, c.count, c.seq, c.count, c.ts, c.count);
    return status;
}

/* ---- rows of calls ---- */

struct refusal {
    struct rf_error why;
    const struct rf_pg_table *table; /* NULL: one of refuge's own */
    size_t row;                      /* of those that were copied, from 1; 0: not known */
};

/* Copy the slices of calls from first to last that were not refused. */
static enum rf_status copy_slices(struct rf_postgres *sink, const struct rf_pg_rowset *set,
                                  const char *target, size_t first, size_t last,
                                  struct rf_error *err)
{
    struct rf_bytes *pieces;
    size_t count = 0, at = 0;
    enum rf_status status = RF_OK;

    if (!set->slice_count)
        return RF_OK;
    pieces = malloc(set->slice_count * sizeof *pieces);
    if (!pieces)
        abort();
    for (size_t i = 0; i < set->slice_count; i++) {
        const struct rf_pg_slice *slice = &set->slices[i];
        const uint8_t *start = set->rows.data + at;

        at += slice->size;
        if (slice->call != RF_PG_NO_CALL &&
            (slice->call < first || slice->call >= last || sink->group.calls[slice->call].refused ||
             sink->group.calls[slice->call].there))
            continue;
        if (count && pieces[count - 1].data + pieces[count - 1].size == start)
            pieces[count - 1].size += slice->size;
        else
            pieces[count++] = rf_bytes(start, slice->size);
    }
    if (count)
        status = rf_pg_copy(sink->pg, target, pieces, count, err);
    free(pieces);
    return status;
}

static enum rf_status copy_calls(struct rf_postgres *sink, size_t first, size_t last,
                                 struct refusal *refusal)
{
    struct rf_pg_lane *lane = sink->lane;
    enum rf_status status = RF_OK;

    for (size_t i = 0; !status && i < lane->mapper_count; i++) {
        struct rf_pg_mapper *mapper = &lane->mappers[i];
        for (size_t k = 0; !status && !mapper->edges_only && k < mapper->decl->table_count; k++) {
            struct rf_pg_table *table = &mapper->tables[k];
            status = copy_slices(sink, &table->set, table->target, first, last, &refusal->why);
            if (status)
                refusal->table = table;
        }
    }
    for (size_t own = RF_OWN_PARTS; !status && own <= RF_OWN_CUTS; own++)
        status = copy_slices(sink, &sink->group.own[own], own_targets[own], first, last,
                             &refusal->why);
    refusal->row = status ? rf_pg_bad_row(sink->pg) : 0;
    return status;
}

/* What is known of a failure in the schema that somebody else changed. */
static enum rf_status tell(enum rf_status status, const struct refusal *refusal,
                           struct rf_error *err)
{
    if (status != RF_CORRUPT)
        return rf_error_set(err, status, "%s", refusal->why.message);
    return rf_error_set(err, status,
                        "%s: table '%s' was changed behind refuge's back; run 'refuge index "
                        "rebuild'",
                        refusal->why.message,
                        refusal->table ? refusal->table->name : "refuge_parts");
}

/* The words of a refusal without the name of the index in front. */
static const char *bare_words(const char *message)
{
    const char *start = strstr(message, "': ");

    return strncmp(message, "index '", 7) == 0 && start ? start + 3 : message;
}

static uint32_t get_be(const uint8_t *in, size_t size)
{
    uint32_t value = 0;

    for (size_t i = 0; i < size; i++)
        value = value << 8 | in[i];
    return value;
}

/* What the mapper calls the row-th of a call's rows for this table: its column n. */
static int64_t number_of_row(const struct rf_pg_rowset *set, size_t call, size_t row)
{
    const uint8_t *at = set->rows.data;

    for (size_t i = 0; i < set->slice_count; i++) {
        const uint8_t *end = at + set->slices[i].size;
        for (const uint8_t *next = at; set->slices[i].call == call && next < end;) {
            uint32_t fields = get_be(next, 2);
            if (--row == 0) /* fields, size and value of blob, size of n, the high half of n */
                return get_be(next + 2 + 12 + 4 + 4, 4);
            for (next += 2; fields > 0; fields--) {
                uint32_t size = get_be(next, 4);
                next += 4 + (size == UINT32_MAX ? 0 : size);
            }
        }
        at = end;
    }
    return 0;
}

static enum rf_status refuse(struct rf_postgres *sink, size_t index,
                             const struct refusal *refusal, struct rf_error *err)
{
    struct rf_pg_call *call = &sink->group.calls[index];
    struct rf_pg_mapper *mapper = &sink->lane->mappers[call->mapper];
    char reason[RF_ERROR_SIZE + 128], row[32] = "a row";
    enum rf_status status = RF_OK;

    call->refused = true;
    if (refusal->table && refusal->row)
        snprintf(row, sizeof row, "row %lld",
                 (long long)number_of_row(&refusal->table->set, index, refusal->row));
    snprintf(reason, sizeof reason, "%s was refused by table '%s': %s", row,
             refusal->table ? refusal->table->decl->name : "refuge_parts",
             bare_words(refusal->why.message));
    if (call->children.count) {
        status = rf_pg_run(sink->pg, NULL, err,
                           "INSERT INTO pg_temp.refuge_orphans SELECT DISTINCT unnest($1) ON "
                           "CONFLICT DO NOTHING",
                           "I", call->children.items, call->children.count);
        sink->orphans = true;
    }
    rf_pg_cache_cut(&sink->cache, call->blob);
    if (mapper->edges_of == call->blob)
        mapper->edges_of = 0;
    return status ? status
                  : rf_pg_group_set_aside(sink, RF_OWN_LETTERS, mapper, call->blob, "sink", reason,
                                          call->attempts, err);
}

/* Within the savepoint refuge_calls: store these calls, but for those that are at fault. */
static enum rf_status store_calls(struct rf_postgres *sink, size_t first, size_t last,
                                  struct rf_error *err)
{
    struct refusal refusal = {0};
    size_t middle = first + (last - first) / 2;
    enum rf_status status = copy_calls(sink, first, last, &refusal);

    if (!status)
        return rf_pg_exec(sink->pg, err, "RELEASE refuge_calls; SAVEPOINT refuge_calls");
    if (status != RF_INVALID || !RF_SAFEGUARD("sink-refusal"))
        return tell(status, &refusal, err);
    status = rf_pg_exec(sink->pg, err, "ROLLBACK TO refuge_calls");
    if (status)
        return status;
    if (last - first == 1)
        return refuse(sink, first, &refusal, err);
    status = store_calls(sink, first, middle, err);
    return status ? status : store_calls(sink, middle, last, err);
}

static enum rf_status copy_own(struct rf_postgres *sink, enum rf_pg_own own, struct rf_error *err)
{
    enum rf_status status =
        copy_slices(sink, &sink->group.own[own], own_targets[own], 0, 0, err);

    if (status == RF_INVALID && strcmp(rf_pg_state(sink->pg), "23505") == 0)
        status = RF_UNAVAILABLE; /* another writer made the same: read again, write again */
    return status;
}

/* ---- what is there already ---- */

struct old { /* one item, and its rows of the table at hand: as they are, and as they should be */
    int64_t id;
    bool differs;
    size_t is, is_size, be, be_size;
};

static int by_id(const void *a, const void *b)
{
    const struct old *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

static struct old *find_old(struct old *items, size_t count, int64_t id)
{
    struct old key = {.id = id};

    return count ? bsearch(&key, items, count, sizeof *items, by_id) : NULL;
}

static size_t row_size(const uint8_t *row, size_t left)
{
    size_t at = 2;

    for (uint32_t fields = left >= 2 ? get_be(row, 2) : 0; fields > 0 && at + 4 <= left; fields--) {
        uint32_t size = get_be(row + at, 4);
        at += 4 + (size == UINT32_MAX ? 0 : size);
    }
    return at < left ? at : left;
}

/* Where the rows of each item stand in what COPY gave, in order of items. */
static void place_rows(const struct rf_buf *rows, struct old *items, size_t count)
{
    for (size_t at = 0, size; at + 14 <= rows->size; at += size) {
        const uint8_t *row = rows->data + at; /* fields, size and value of blob */
        struct old *item = find_old(items, count, (int64_t)((uint64_t)get_be(row + 6, 4) << 32 |
                                                            get_be(row + 10, 4)));
        size = row_size(row, rows->size - at);
        if (!item)
            continue;
        if (!item->is_size)
            item->is = at;
        item->is_size += size;
    }
}

static void place_slices(const struct rf_pg_group *group, const struct rf_pg_rowset *set,
                         struct old *items, size_t count)
{
    size_t at = 0;

    for (size_t i = 0; i < set->slice_count; at += set->slices[i++].size) {
        struct old *item = find_old(items, count, group->calls[set->slices[i].call].blob);
        if (!item)
            continue;
        if (!item->be_size)
            item->be = at;
        item->be_size += set->slices[i].size;
    }
}

static enum rf_status compare_table(struct rf_postgres *sink, const struct rf_pg_table *table,
                                    struct old *items, size_t count, struct rf_error *err)
{
    struct rf_error why = {0};
    struct rf_buf sql, rows;
    enum rf_status status = RF_OK;

    rf_buf_init(&sql, 1 << 20);
    rf_buf_init(&rows, COMPARE_MAX);
    rf_buf_printf(&sql, "SELECT %.*s FROM \"%s\" WHERE blob IN (",
                  (int)strcspn(strchr(table->target, '(') + 1, ")"),
                  strchr(table->target, '(') + 1, table->name);
    for (size_t i = 0; i < count; i++) {
        items[i].is_size = items[i].be_size = 0;
        rf_buf_printf(&sql, "%s%lld", i ? "," : "", (long long)items[i].id);
    }
    rf_buf_put_text(&sql, ") ORDER BY blob, n");
    if (table->top >= items[0].id)
        status = rf_pg_copy_out(sink->pg, rf_buf_text(&sql), &rows, &why);
    if (status == RF_LIMIT)
        for (size_t i = 0; i < count; i++)
            items[i].differs = true;
    else if (status)
        rf_error_set(err, status, "%s", why.message);
    place_rows(&rows, items, count);
    place_slices(&sink->group, &table->set, items, count);
    for (size_t i = 0; i < count; i++)
        items[i].differs |= items[i].is_size != items[i].be_size ||
                            (items[i].is_size &&
                             memcmp(rows.data + items[i].is, table->set.rows.data + items[i].be,
                                    items[i].is_size) != 0);
    rf_buf_release(&sql);
    rf_buf_release(&rows);
    return status == RF_LIMIT ? RF_OK : status;
}

/* Items that have more than rows of tables. */
static enum rf_status compare_own(struct rf_postgres *sink, struct old *items, size_t count,
                                  struct rf_error *err)
{
    const struct rf_ids *again = &sink->group.again;
    struct rf_pg_rows *rows = NULL;
    enum rf_status status;

    status = rf_pg_query(sink->pg, &rows, err,
                         "SELECT blob FROM refuge_needs WHERE blob = ANY($1) AND mapper = ANY($2) "
                         "UNION ALL SELECT blob FROM refuge_parks WHERE blob = ANY($1) AND mapper "
                         "= ANY($2) UNION ALL SELECT blob FROM refuge_dead_letters WHERE blob = "
                         "ANY($1) AND mapper = ANY($2) UNION ALL SELECT blob FROM refuge_cuts "
                         "WHERE blob = ANY($1) AND mapper = ANY($2) UNION ALL SELECT parent FROM "
                         "refuge_parts WHERE parent = ANY($1) AND mapper = ANY($2)",
                         "II", again->items, again->count, sink->lane->ids,
                         sink->lane->mapper_count);
    for (size_t row = 0; row < rf_pg_count(rows); row++) {
        struct old *item = find_old(items, count, rf_pg_int_at(rows, row, 0));
        if (item)
            item->differs = true;
    }
    rf_pg_rows_free(rows);
    return status;
}

/* What is as it should be is neither deleted nor written; its mapped_at stays. */
static void skip_equal(struct rf_pg_group *group, struct old *items, size_t count)
{
    size_t kept = 0;

    for (size_t i = 0; i < group->unmap.count; i++) {
        const struct old *item = find_old(items, count, group->unmap.items[i]);
        if (!item || item->differs)
            group->unmap.items[kept++] = group->unmap.items[i];
    }
    group->unmap.count = kept;
    kept = 0;
    for (size_t i = 0; i < group->update_count; i++) { /* of the same change: nothing is new */
        const struct old *item = find_old(items, count, group->updates[i].id);
        if (!item || item->differs)
            group->updates[kept++] = group->updates[i];
    }
    group->update_count = kept;
    for (size_t i = 0; i < group->call_count; i++) {
        const struct old *item = find_old(items, count, group->calls[i].blob);
        group->calls[i].there = item && !item->differs;
    }
}

static enum rf_status leave_alone(struct rf_postgres *sink, struct rf_error *err)
{
    struct rf_pg_group *group = &sink->group;
    struct rf_pg_lane *lane = sink->lane;
    size_t count = group->again.count;
    struct old *items;
    enum rf_status status = RF_OK;

    if (!count)
        return RF_OK;
    items = calloc(count, sizeof *items);
    if (!items)
        abort();
    for (size_t i = 0; i < count; i++)
        items[i].id = group->again.items[i];
    qsort(items, count, sizeof *items, by_id);
    if (RF_SAFEGUARD("sink-compares"))
        status = compare_own(sink, items, count, err);
    for (size_t i = 0; !status && i < lane->mapper_count && RF_SAFEGUARD("sink-compares"); i++) {
        const struct rf_pg_mapper *mapper = &lane->mappers[i];
        for (size_t k = 0; !status && !mapper->edges_only && k < mapper->decl->table_count; k++)
            status = compare_table(sink, &mapper->tables[k], items, count, err);
    }
    if (!status)
        skip_equal(group, items, count);
    free(items);
    return status;
}

static enum rf_status flush_puts(struct rf_postgres *sink, struct rf_error *err)
{
    struct rf_pg_group *group = &sink->group;
    struct rf_pg_lane *lane = sink->lane;
    enum rf_status status = copy_own(sink, RF_OWN_BLOBS, err);

    if (!status)
        status = leave_alone(sink, err);
    if (!status)
        status = update_blobs(sink, err);
    if (!status)
        status = unmap(sink, lane, NULL, group->unmap.items, group->unmap.count, false, err);
    for (size_t i = 0; !status && i < lane->mapper_count; i++)
        status = unmap(sink, lane, &lane->mappers[i], lane->mappers[i].unmap.items,
                       lane->mappers[i].unmap.count, false, err);
    if (!status && group->call_count) {
        status = rf_pg_exec(sink->pg, err, "SAVEPOINT refuge_calls");
        if (!status)
            status = store_calls(sink, 0, group->call_count, err);
        if (!status)
            status = rf_pg_exec(sink->pg, err, "RELEASE refuge_calls");
    }
    for (enum rf_pg_own own = RF_OWN_NEEDS; !status && own < RF_OWN_COUNT; own++)
        status = copy_own(sink, own, err);
    return status;
}

/* ---- arrivals and removals ---- */

static const char **list_refs(struct rf_pg_group *group)
{
    const char **refs = rf_arena_alloc(&group->arena, (group->ref_count + 1) * sizeof *refs);

    for (size_t i = 0; i < group->ref_count; i++)
        refs[i] = group->refs[i];
    return refs;
}

/* An item that waits becomes a ready park; one that has rows all the same is mapped again, too. */
static enum rf_status wake(struct rf_postgres *sink, struct rf_error *err)
{
    struct rf_pg_group *group = &sink->group;

    if (!group->ref_count)
        return RF_OK;
    return rf_pg_run(sink->pg, NULL, err,
                     "INSERT INTO refuge_parks(mapper, blob, kind, reason, attempts, at) SELECT "
                     "DISTINCT mapper, blob, 'ready', 'a blob it needs came', 0, $3 FROM "
                     "refuge_needs WHERE ref = ANY($1) AND present = 0 AND mapper = ANY($2) ON "
                     "CONFLICT(blob, mapper) DO UPDATE SET kind = 'ready' WHERE "
                     "refuge_parks.kind <> 'slow'",
                     "TIm", list_refs(group), group->ref_count, sink->lane->ids,
                     sink->lane->mapper_count, sink->now);
}

/* What mapped an item with the help of a blob that is gone now is unmapped and waits for it. The
 * needs behind the missing one go: a mapper stops at the first blob that is not there. */
static enum rf_status park_some(struct rf_postgres *sink, const struct rf_pg_rows *rows,
                                size_t from, size_t to, struct rf_error *err)
{
    struct rf_pg_lane *lane = sink->lane;
    struct rf_ids blobs = {0}, places = {0};
    int64_t mapper_id = rf_pg_int_at(rows, from, 0);
    enum rf_status status = RF_OK;

    for (size_t row = from; row < to; row++) {
        rf_ids_put(&blobs, rf_pg_int_at(rows, row, 1));
        rf_ids_put(&places, rf_pg_int_at(rows, row, 2));
        rf_pg_cache_cut(&sink->cache, rf_pg_int_at(rows, row, 1));
    }
    for (size_t i = 0; !status && i < lane->mapper_count; i++)
        if (lane->mappers[i].id == mapper_id)
            status = unmap(sink, lane, &lane->mappers[i], blobs.items, blobs.count, true, err);
    if (!status)
        status = rf_pg_run(sink->pg, NULL, err,
                           "DELETE FROM refuge_needs d USING unnest($2, $3) u(blob, n) WHERE "
                           "d.mapper = $1 AND d.blob = u.blob AND d.n > u.n",
                           "iII", mapper_id, blobs.items, blobs.count, places.items, places.count);
    if (!status)
        status = rf_pg_run(sink->pg, NULL, err,
                           "UPDATE refuge_needs d SET present = 0 FROM unnest($2, $3) u(blob, n) "
                           "WHERE d.mapper = $1 AND d.blob = u.blob AND d.n = u.n",
                           "iII", mapper_id, blobs.items, blobs.count, places.items, places.count);
    if (!status)
        status = rf_pg_run(sink->pg, NULL, err,
                           "INSERT INTO refuge_parks(mapper, blob, kind, reason, attempts, at) "
                           "SELECT $1, blob, 'need', 'a blob it needs was deleted', 0, $3 FROM "
                           "unnest($2) u(blob)",
                           "iIm", mapper_id, blobs.items, blobs.count, sink->now);
    rf_ids_release(&blobs);
    rf_ids_release(&places);
    return status;
}

static enum rf_status park_dependants(struct rf_postgres *sink, struct rf_error *err)
{
    struct rf_pg_group *group = &sink->group;
    const char **refs = list_refs(group);
    size_t count;
    enum rf_status status;

    do {
        struct rf_pg_rows *rows = NULL;
        status = rf_pg_query(sink->pg, &rows, err,
                             "SELECT mapper, blob, min(n) FROM refuge_needs WHERE ref = ANY($1) "
                             "AND present = 1 AND mapper = ANY($2) GROUP BY mapper, blob "
                             "ORDER BY mapper, blob LIMIT 10000",
                             "TI", refs, group->ref_count, sink->lane->ids,
                             sink->lane->mapper_count);
        count = rf_pg_count(rows);
        if (count)
            sink->waiting = RF_PG_WAITING_SOME;
        for (size_t from = 0, to; !status && from < count; from = to) {
            for (to = from + 1;
                 to < count && rf_pg_int_at(rows, to, 0) == rf_pg_int_at(rows, from, 0); to++)
                ;
            status = park_some(sink, rows, from, to, err);
        }
        rf_pg_rows_free(rows);
    } while (!status && count);
    return status;
}

static enum rf_status flush_removes(struct rf_postgres *sink, struct rf_error *err)
{
    struct rf_pg_group *group = &sink->group;
    enum rf_status status = copy_own(sink, RF_OWN_BLOBS, err);

    if (!status)
        status = update_blobs(sink, err);
    if (!status)
        status = unmap(sink, sink->lane, NULL, group->unmap.items, group->unmap.count, false, err);
    return status || !group->ref_count ? status : park_dependants(sink, err);
}

enum rf_status rf_pg_group_flush(struct rf_postgres *sink, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    if (sink->group.kind == RF_GROUP_PUTS)
        status = flush_puts(sink, err);
    if (!status && sink->group.kind == RF_GROUP_PUTS)
        status = wake(sink, err);
    if (sink->group.kind == RF_GROUP_REMOVES)
        status = flush_removes(sink, err);
    if (!status && sink->group.kind != RF_GROUP_EMPTY)
        rf_pg_group_clear(sink);
    return status;
}

/* ---- parts nothing reaches ---- */

/* Take some orphans out of the list: those that no edge of the lane reaches, and the others. */
static enum rf_status next_orphans(struct rf_postgres *sink, const struct rf_pg_lane *lane,
                                   struct rf_ids *out, struct rf_ids *reached, bool *any,
                                   struct rf_error *err)
{
    struct rf_pg_rows *rows = NULL;
    enum rf_status status;

    out->count = reached->count = 0;
    status = rf_pg_query(sink->pg, &rows, err,
                         "WITH taken AS (DELETE FROM pg_temp.refuge_orphans WHERE id IN (SELECT id "
                         "FROM pg_temp.refuge_orphans LIMIT 10000) RETURNING id) SELECT id, EXISTS("
                         "SELECT 1 FROM refuge_parts p WHERE p.child = taken.id AND "
                         "p.mapper = ANY($1)) FROM taken ORDER BY id",
                         "I", lane->ids, lane->mapper_count);
    *any = rf_pg_count(rows) > 0;
    for (size_t row = 0; row < rf_pg_count(rows); row++)
        if (!rf_pg_int_at(rows, row, 1) || !RF_SAFEGUARD("sink-shared-part"))
            rf_ids_put(out, rf_pg_int_at(rows, row, 0));
        else
            rf_ids_put(reached, rf_pg_int_at(rows, row, 0));
    rf_pg_rows_free(rows);
    return status;
}

enum rf_status rf_postgres_collect_orphans(struct rf_postgres *sink, struct rf_pg_lane *lane,
                                           struct rf_error *err)
{
    struct rf_ids ids = {0}, reached = {0};
    bool any = true;
    enum rf_status status = RF_OK;

    while (!status && any) {
        status = next_orphans(sink, lane, &ids, &reached, &any, err);
        if (!status && reached.count && sink->shared && RF_SAFEGUARD("sink-shared-again"))
            status = rf_postgres_wake_below(sink, lane, reached.items, reached.count, NULL,
                                            sink->shared, err);
        if (status || !ids.count)
            continue;
        status = unmap(sink, lane, NULL, ids.items, ids.count, false, err);
        if (!status)
            status = rf_pg_run(sink->pg, NULL, err,
                               "DELETE FROM blobs b WHERE id = ANY($1) AND kind = 'part' AND NOT "
                               "EXISTS (SELECT 1 FROM refuge_parts p WHERE p.child = b.id)",
                               "I", ids.items, ids.count);
    }
    rf_ids_release(&ids);
    rf_ids_release(&reached);
    if (!status)
        sink->orphans = false;
    return status;
}
