/*
 * elastic_canonical.c - the canonical rows of an index in Elasticsearch, see canonical.h
 *
 * Streams are read by pages in order of keyword and number fields, each page behind the last
 * (search_after): nothing is kept open in the server. What manifests say is taken apart and put in
 * order item by item; edges are merged over the generations of the lane, one reader each. A writer
 * that moves the index meanwhile is noticed at the end (check).
 *
 * Memory: a page of each reader, and what is left out.
 */
#include "sinks/sink_elastic.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define PAGE 500                       /* documents of a first page, and keys asked for together */
#define PAGE_MOST 8000                 /* each page costs the server a look at all documents; it
    gives at most 10,000 (index.max_result_window) */
#define PAGE_GROWS ((size_t)4 << 20)   /* a page of less than so many bytes: the next is larger */
#define PAGE_BYTES ((size_t)256 << 20) /* one page at most: rows of 4 MiB are rare */
#define SLOTS 4096

/* ---- readers of documents ---- */

struct reader {
    const char *index;
    char *query, *sort;   /* JSON; sort: fields in brackets, unique together */
    struct rf_arena arena;
    const struct rf_json *hits;
    size_t at, size;      /* size: documents asked for at once */
    uint64_t pages;       /* read so far: hits of the next may stand at the same address */
    char *after;          /* JSON of the last one's sort values */
    bool last;
};

static const struct rf_json *copy_json(struct rf_arena *arena, const struct rf_json *from)
{
    struct rf_json *to = rf_arena_alloc(arena, sizeof *to), *items;

    *to = *from;
    if (from->text.data)
        to->text.data = (const uint8_t *)rf_arena_copy(arena, from->text.data, from->text.size);
    if (from->key.data)
        to->key.data = (const uint8_t *)rf_arena_copy(arena, from->key.data, from->key.size);
    if (!from->count)
        return to;
    items = rf_arena_alloc(arena, from->count * sizeof *items);
    for (size_t i = 0; i < from->count; i++)
        items[i] = *copy_json(arena, &from->items[i]);
    to->items = items;
    return to;
}

static void reader_init(struct reader *reader, const char *index, const char *query,
                        const char *sort)
{
    *reader = (struct reader){.index = index, .query = strdup(query), .sort = strdup(sort),
                              .size = PAGE};
    if (!reader->query || !reader->sort)
        abort();
    rf_arena_init(&reader->arena, PAGE_BYTES);
}

static void reader_release(struct reader *reader)
{
    free(reader->query);
    free(reader->sort);
    free(reader->after);
    if (reader->query)
        rf_arena_release(&reader->arena);
    *reader = (struct reader){0};
}

static enum rf_status read_page(struct rf_elastic *sink, struct reader *reader,
                                struct rf_error *err)
{
    struct rf_es_reply reply;
    const struct rf_json *hits;
    struct rf_buf body;
    enum rf_status status;

    rf_buf_init(&body, 1 << 20);
    rf_buf_printf(&body, "{\"size\":%zu,\"track_total_hits\":false,\"query\":%s,\"sort\":%s",
                  reader->size, reader->query, reader->sort);
    if (reader->after)
        rf_buf_printf(&body, ",\"search_after\":%s", reader->after);
    rf_buf_put_u8(&body, '}');
    status = rf_es_call(sink->es, &reply, "POST", rf_buf_bytes(&body), err, "/%s/_search",
                        reader->index);
    rf_buf_release(&body);
    if (status == RF_LIMIT && reader->size > 1) { /* large documents: fewer of them */
        rf_error_clear(err);
        reader->size /= 8;
        reader->size += reader->size == 0;
        return read_page(sink, reader, err);
    }
    if (status)
        return status;
    hits = rf_json_find(rf_json_find(reply.json, "hits"), "hits");
    if (reply.status == 404)
        return rf_error_set(err, RF_CORRUPT, "index '%s' at '%s' is gone", reader->index,
                            rf_es_name(sink->es));
    if (reply.status >= 300 || !hits || hits->type != RF_JSON_ARRAY)
        return rf_es_unexpected(sink->es, &reply, "read an index", err);
    rf_arena_clear(&reader->arena);
    reader->hits = copy_json(&reader->arena, hits);
    reader->at = 0;
    reader->pages++;
    reader->last = hits->count < reader->size;
    if (reader->arena.size < PAGE_GROWS && 2 * reader->size <= PAGE_MOST)
        reader->size *= 2;
    if (hits->count) {
        struct rf_buf after;
        rf_buf_init(&after, 1 << 16);
        rf_json_put_canonical(&after, rf_json_find(&hits->items[hits->count - 1], "sort"));
        free(reader->after);
        reader->after = rf_buf_text(&after) ? strdup(rf_buf_text(&after)) : NULL;
        rf_buf_release(&after);
        if (!reader->after)
            return rf_error_set(err, RF_CORRUPT, "index '%s' cannot be read in order",
                                reader->index);
    }
    return RF_OK;
}

/* The next document's hit. RF_END. */
static enum rf_status reader_next(struct rf_elastic *sink, struct reader *reader,
                                  const struct rf_json **hit, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    if (!reader->hits || (reader->at == reader->hits->count && !reader->last))
        status = read_page(sink, reader, err);
    if (status)
        return status;
    if (!reader->hits || reader->at == reader->hits->count)
        return RF_END;
    *hit = &reader->hits->items[reader->at++];
    return RF_OK;
}

/* ---- sets of keys ---- */

struct entry {
    struct entry *next;
    bool parked;
    size_t item_size; /* of the key: the item, then a newline and the mapper */
    char key[];
};

struct set {
    struct entry *slots[SLOTS];
    size_t count;
};

static struct entry **find_entry(struct set *set, const char *key)
{
    uint64_t hash = 1469598103934665603u;
    struct entry **at;

    for (const char *p = key; *p; p++)
        hash = (hash ^ (uint8_t)*p) * 1099511628211u;
    at = &set->slots[(hash ^ hash >> 32) & (SLOTS - 1)];
    while (*at && strcmp((*at)->key, key) != 0)
        at = &(*at)->next;
    return at;
}

/* Whether it is new. */
static bool add_entry(struct set *set, struct rf_arena *arena, const char *item,
                      const char *mapper, bool parked)
{
    char key[RF_ITEM_KEY_SIZE + RF_NAME_MAX + 2];
    struct entry **at;
    size_t size;

    snprintf(key, sizeof key, "%s%s%s", item, mapper ? "\n" : "", mapper ? mapper : "");
    at = find_entry(set, key);
    if (*at) {
        (*at)->parked |= parked;
        return false;
    }
    size = strlen(key) + 1;
    *at = rf_arena_alloc(arena, sizeof **at + size);
    memcpy((*at)->key, key, size);
    (*at)->item_size = strlen(item);
    (*at)->parked = parked;
    set->count++;
    return true;
}

static bool has_entry(struct set *set, const char *item, const char *mapper)
{
    char key[RF_ITEM_KEY_SIZE + RF_NAME_MAX + 2];

    if (!set->count)
        return false;
    snprintf(key, sizeof key, "%s%s%s", item, mapper ? "\n" : "", mapper ? mapper : "");
    return *find_entry(set, key) != NULL;
}

/* ---- the index ---- */

struct canon {
    struct rf_canon base;
    struct rf_elastic *sink;
    struct rf_el_lane *lane;  /* the live one */
    uint64_t done;            /* when it was opened */
    struct rf_arena arena, rows_arena;
    struct rf_canon_mapper *mappers;
    size_t *by_name;          /* mappers in order of their names */
    struct set left_out, beneath;

    const struct rf_canon_stream *stream;
    struct rf_canon_stream kept;
    struct reader *readers;   /* one, or one per generation */
    const struct rf_json **heads; /* of edges: the next of each reader */
    size_t reader_count;
    struct rf_cell **rows;    /* of what is at hand */
    size_t row_count, row_room, row_at;
    struct set *reached;      /* parts of the page at hand that the lane reaches */
    uint64_t reached_page;    /* its number, from 1 */
    struct rf_arena reached_arena;
};

static struct canon *of(struct rf_canon *canon)
{
    return (struct canon *)canon;
}

static struct rf_cell null_cell(void)
{
    return (struct rf_cell){.type = RF_CELL_NULL};
}

static struct rf_cell int_cell(int64_t value)
{
    return (struct rf_cell){.type = RF_CELL_INT, .integer = value};
}

static struct rf_cell text_cell(struct canon *canon, const char *text)
{
    if (!text)
        return null_cell();
    return (struct rf_cell){.type = RF_CELL_TEXT,
                            .text = rf_bytes(rf_arena_copy(&canon->rows_arena, text, strlen(text)),
                                             strlen(text))};
}

static struct rf_cell time_cell(struct canon *canon, int64_t us)
{
    char text[RF_TIME_TEXT_SIZE];

    if (us == INT64_MIN)
        return null_cell();
    rf_time_format(us, text);
    return text_cell(canon, text);
}

/* Room for one more row. */
static struct rf_cell *add_row(struct canon *canon)
{
    struct rf_cell *cells =
        rf_arena_alloc(&canon->rows_arena, (canon->kept.count + 1) * sizeof *cells);

    canon->rows = rf_elastic_grow(canon->rows, canon->row_count, &canon->row_room,
                                  sizeof(struct rf_cell *));
    canon->rows[canon->row_count++] = cells;
    return cells;
}

static void clear_rows(struct canon *canon)
{
    canon->row_count = canon->row_at = 0;
    rf_arena_clear(&canon->rows_arena);
}

static bool is_left_out(struct canon *canon, const char *item, const char *mapper)
{
    return has_entry(&canon->beneath, item, NULL) || has_entry(&canon->left_out, item, mapper);
}

/* ---- small streams: all at once ---- */

static void put_lane(struct canon *canon)
{
    struct rf_cell *cells;

    if (!canon->lane)
        return;
    cells = add_row(canon);
    cells[0] = text_cell(canon, "live");
    cells[1] = text_cell(canon, canon->lane->position);
}

static void put_facts(struct canon *canon)
{
    const struct rf_el_state *state = &canon->sink->state;

    for (size_t i = 0; i < state->fact_count; i++) {
        struct rf_cell *cells;
        if (strcmp(state->facts[i].name, "store") != 0)
            continue;
        cells = add_row(canon);
        cells[0] = text_cell(canon, state->facts[i].name);
        cells[1] = text_cell(canon, state->facts[i].value);
    }
}

static int by_table(const void *a, const void *b)
{
    return strcmp((*(const struct rf_el_table *const *)a)->decl->name,
                  (*(const struct rf_el_table *const *)b)->decl->name);
}

static void put_tables(struct canon *canon)
{
    for (size_t i = 0; canon->lane && i < canon->lane->mapper_count; i++) {
        const struct rf_el_mapper *mapper = &canon->lane->mappers[canon->by_name[i]];
        const struct rf_el_table *tables[RF_TABLES_MAX];
        size_t count = 0;
        for (size_t k = 0; k < mapper->decl->table_count && count < RF_TABLES_MAX; k++)
            tables[count++] = &mapper->tables[k];
        if (count)
            qsort(tables, count, sizeof *tables, by_table);
        for (size_t k = 0; k < count; k++) {
            struct rf_cell *cells = add_row(canon);
            cells[0] = text_cell(canon, mapper->name);
            cells[1] = text_cell(canon, tables[k]->decl->name);
            cells[2] = text_cell(canon, tables[k]->decl->title);
            cells[3] = int_cell(tables[k]->search_count > 0);
        }
    }
}

static void put_mappers(struct canon *canon)
{
    for (size_t i = 0; canon->lane && i < canon->lane->mapper_count; i++) {
        const struct rf_el_mapper *mapper = &canon->lane->mappers[canon->by_name[i]];
        struct rf_cell *cells = add_row(canon);
        cells[0] = text_cell(canon, mapper->name);
        cells[1] = text_cell(canon, mapper->identity);
    }
}

/* ---- streams out of manifests ---- */

/* Parts of a page of manifests that an edge of the lane reaches. */
static enum rf_status find_reached(struct canon *canon, const struct reader *reader,
                                   struct rf_error *err)
{
    const struct rf_json *hits = NULL;
    struct rf_buf body;
    size_t count = 0;
    enum rf_status status;

    canon->reached_page = reader->pages;
    rf_arena_clear(&canon->reached_arena);
    memset(canon->reached, 0, sizeof *canon->reached);
    rf_buf_init(&body, 4 << 20);
    rf_buf_printf(&body, "{\"size\":%d,\"_source\":[\"child\"],\"collapse\":{\"field\":\"child\"},"
                         "\"query\":{\"bool\":{\"filter\":[{\"term\":{\"kind\":\"edge\"}},{"
                         "\"terms\":{\"gen\":",
                  (int)reader->hits->count);
    rf_elastic_put_gens(&body, canon->lane);
    rf_buf_put_text(&body, "}},{\"terms\":{\"child\":[");
    for (size_t i = 0; i < reader->hits->count; i++) {
        const char *key =
            rf_json_string(rf_json_find(rf_json_find(&reader->hits->items[i], "_source"), "item"));
        if (!key || !strchr(key, ';'))
            continue;
        rf_buf_put_text(&body, count++ ? "," : "");
        rf_json_put_string(&body, rf_bytes_text(key));
    }
    rf_buf_put_text(&body, "]}}]}}}");
    status = count ? rf_elastic_search_own(canon->sink, rf_buf_text(&body), &hits, NULL, NULL, err)
                   : RF_OK;
    rf_buf_release(&body);
    for (size_t i = 0; !status && hits && i < hits->count; i++) {
        const char *child =
            rf_json_string(rf_json_find(rf_json_find(&hits->items[i], "_source"), "child"));
        if (child)
            add_entry(canon->reached, &canon->reached_arena, child, NULL, false);
    }
    return status;
}

static const char *kind_name(enum rf_sink_item_kind kind)
{
    return kind == RF_SINK_BLOB ? "blob" : kind == RF_SINK_FILE ? "file" : "part";
}

static void put_item(struct canon *canon, const char *key, const struct rf_el_content *content)
{
    struct rf_cell *cells;
    bool gone = content->deleted;

    if (has_entry(&canon->beneath, key, NULL) ||
        (strchr(key, ';') && !has_entry(canon->reached, key, NULL)))
        return;
    cells = add_row(canon);
    cells[0] = text_cell(canon, key);
    cells[1] = int_cell((int64_t)content->seq);
    cells[2] = int_cell(gone);
    cells[3] = time_cell(canon, content->ts);
    cells[4] = gone ? null_cell() : text_cell(canon, kind_name(content->kind));
    cells[5] = gone || content->size < 0 ? null_cell() : int_cell(content->size);
    cells[6] = gone ? null_cell() : text_cell(canon, content->name);
    cells[7] = gone ? null_cell() : time_cell(canon, content->mtime);
}

static int by_ref(const void *a, const void *b)
{
    return strcmp(((const struct rf_el_need *)a)->ref, ((const struct rf_el_need *)b)->ref);
}

/* Each ref once, there if it ever was; of what is parked only what is missing. */
static void put_needs(struct canon *canon, const char *key, const char *mapper,
                      const struct rf_el_call *call)
{
    struct rf_el_need *needs =
        rf_arena_alloc(&canon->rows_arena, (call->need_count + 1) * sizeof *needs);
    size_t count = 0;

    for (size_t i = 0; i < call->need_count; i++)
        if (!call->needs[i].present || (call->outcome != RF_EL_PARK && !call->again))
            needs[count++] = call->needs[i];
    if (count)
        qsort(needs, count, sizeof *needs, by_ref);
    for (size_t i = 0; i < count;) {
        struct rf_cell *cells = add_row(canon);
        bool present = false;
        size_t first = i;
        for (; i < count && strcmp(needs[i].ref, needs[first].ref) == 0; i++)
            present |= needs[i].present;
        cells[0] = text_cell(canon, key);
        cells[1] = text_cell(canon, mapper);
        cells[2] = text_cell(canon, needs[first].ref);
        cells[3] = int_cell(present);
    }
}

struct cut {
    int64_t n;
    const char *table, *column, *kind;
};

static int by_cut(const void *a, const void *b)
{
    const struct cut *x = a, *y = b;
    int order;

    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    order = strcmp(x->column, y->column);
    if (!order)
        order = strcmp(x->kind, y->kind);
    return order ? order : strcmp(x->table, y->table);
}

static enum rf_status put_cuts(struct canon *canon, const char *key, const char *mapper,
                               const struct rf_el_call *call, struct rf_error *err)
{
    const struct rf_json *list = NULL;
    struct cut *cuts;
    size_t count = 0;
    enum rf_status status;

    if (!call->cuts)
        return RF_OK;
    status = rf_json_parse(&list, &canon->rows_arena, rf_bytes_text(call->cuts), err);
    if (status)
        return status;
    cuts = rf_arena_alloc(&canon->rows_arena, (list->count + 1) * sizeof *cuts);
    for (size_t i = 0; i < list->count; i++) {
        const struct rf_json *four = &list->items[i];
        if (four->type != RF_JSON_ARRAY || four->count != 4 ||
            !rf_json_int(&four->items[0], &cuts[count].n))
            continue;
        cuts[count].table = rf_json_string(&four->items[1]);
        cuts[count].column = rf_json_string(&four->items[2]);
        cuts[count].kind = rf_json_string(&four->items[3]);
        count += cuts[count].table && cuts[count].column && cuts[count].kind;
    }
    if (count)
        qsort(cuts, count, sizeof *cuts, by_cut);
    for (size_t i = 0; i < count; i++) {
        struct rf_cell *cells = add_row(canon);
        cells[0] = text_cell(canon, key);
        cells[1] = text_cell(canon, mapper);
        cells[2] = int_cell(cuts[i].n);
        cells[3] = text_cell(canon, cuts[i].column);
        cells[4] = text_cell(canon, cuts[i].kind);
        cells[5] = text_cell(canon, cuts[i].table);
    }
    return RF_OK;
}

static const struct rf_el_call *call_of(const struct rf_el_content *content, int64_t gen)
{
    for (size_t i = 0; i < content->call_count; i++)
        if (content->calls[i].has.gen == gen)
            return &content->calls[i];
    return NULL;
}

static void put_state(struct canon *canon, const char *key, const char *mapper, const char *what)
{
    struct rf_cell *cells = add_row(canon);

    cells[0] = text_cell(canon, key);
    cells[1] = text_cell(canon, mapper);
    cells[2] = text_cell(canon, what);
}

/* What a stream has of one call of an item. */
static enum rf_status put_call(struct canon *canon, const char *key, const char *mapper,
                               const struct rf_el_call *call, struct rf_error *err)
{
    if (is_left_out(canon, key, mapper))
        return RF_OK;
    switch (canon->kept.kind) {
    case RF_CANON_NEEDS:
        put_needs(canon, key, mapper, call);
        return RF_OK;
    case RF_CANON_PARKS:
        if (call->outcome == RF_EL_PARK || call->again)
            put_state(canon, key, mapper,
                      rf_elastic_park_names[call->again ? RF_PARK_READY : call->kind]);
        return RF_OK;
    case RF_CANON_LETTERS:
        if (call->outcome == RF_EL_DEAD && call->kind != RF_DEAD_LIMIT)
            put_state(canon, key, mapper, rf_elastic_dead_names[call->kind]);
        return RF_OK;
    default:
        return put_cuts(canon, key, mapper, call, err);
    }
}

static enum rf_status take_manifest(struct canon *canon, const struct rf_json *hit,
                                    struct rf_error *err)
{
    const struct rf_json *source = rf_json_find(hit, "_source");
    const char *key = rf_json_string(rf_json_find(source, "item"));
    struct rf_el_content content;
    enum rf_status status =
        rf_elastic_read_content(canon->sink, &canon->rows_arena, source, &content, err);

    if (status || content.absent || !key)
        return status;
    if (canon->kept.kind == RF_CANON_ITEMS) {
        put_item(canon, key, &content);
        return RF_OK;
    }
    for (size_t i = 0; !status && i < canon->lane->mapper_count; i++) {
        const struct rf_el_mapper *mapper = &canon->lane->mappers[canon->by_name[i]];
        const struct rf_el_call *call = call_of(&content, mapper->gen);
        if (call)
            status = put_call(canon, key, mapper->name, call, err);
    }
    return status;
}

/* ---- edges and rows ---- */

static struct rf_cell json_cell(struct canon *canon, const struct rf_json *value,
                                enum rf_type type)
{
    struct rf_cell cell = null_cell();

    if (!value || value->type == RF_JSON_NULL)
        return cell;
    switch (type) {
    case RF_TYPE_INT:
        if (rf_json_int(value, &cell.integer)) {
            cell.type = RF_CELL_INT;
            return cell;
        }
        break;
    case RF_TYPE_FLOAT:
        if (rf_json_double(value, &cell.real)) {
            cell.type = RF_CELL_FLOAT;
            return cell;
        }
        break;
    case RF_TYPE_BOOL:
        if (value->type == RF_JSON_TRUE || value->type == RF_JSON_FALSE)
            return int_cell(value->type == RF_JSON_TRUE);
        break;
    default:
        break;
    }
    if (value->type == RF_JSON_STRING) {
        cell.type = RF_CELL_TEXT;
        cell.text = rf_bytes(rf_arena_copy(&canon->rows_arena, value->text.data,
                                           value->text.size),
                             value->text.size);
    } else { /* something else than was written */
        struct rf_buf text;
        rf_buf_init(&text, RF_ES_ANSWER_MAX);
        rf_json_put_canonical(&text, value);
        cell = text_cell(canon, rf_buf_text(&text) ? rf_buf_text(&text) : "?");
        rf_buf_release(&text);
    }
    return cell;
}

static void take_row(struct canon *canon, const struct rf_json *hit)
{
    const struct rf_table *table = canon->kept.table;
    const struct rf_json *source = rf_json_find(hit, "_source");
    const struct rf_json *refuge = rf_json_find(source, "refuge");
    const char *key = rf_json_string(rf_json_find(refuge, "item"));
    struct rf_cell *cells;
    size_t at = 0;

    if (key && is_left_out(canon, key, canon->kept.decl->name))
        return;
    cells = add_row(canon);
    cells[at++] = text_cell(canon, key);
    cells[at++] = json_cell(canon, rf_json_find(refuge, "n"), RF_TYPE_INT);
    for (size_t i = 0; i < table->column_count; i++) {
        const struct rf_column *column = &table->columns[i];
        char offset[RF_NAME_MAX + 16];
        cells[at++] = json_cell(canon, rf_json_find(source, column->name), column->type);
        if (column->type != RF_TYPE_TIME)
            continue;
        snprintf(offset, sizeof offset, "%s_offset", column->name);
        cells[at++] = json_cell(canon, rf_json_find(source, offset), RF_TYPE_INT);
    }
}

/* Readers of edges are in order of the mappers' names: the first of the lowest item is next. */
static enum rf_status next_edge(struct canon *canon, struct rf_error *err)
{
    const char *lowest = NULL;
    size_t best = 0;
    const struct rf_json *source;
    struct rf_cell *cells;
    const char *mapper;
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < canon->reader_count; i++) {
        const char *key;
        if (!canon->readers[i].query)
            continue;
        if (!canon->heads[i])
            status = reader_next(canon->sink, &canon->readers[i], &canon->heads[i], err);
        if (status == RF_END) {
            reader_release(&canon->readers[i]);
            status = RF_OK;
            continue;
        }
        if (status)
            return status;
        key = rf_json_string(rf_json_find(rf_json_find(canon->heads[i], "_source"), "item"));
        if (!lowest || strcmp(key ? key : "", lowest) < 0) {
            lowest = key ? key : "";
            best = i;
        }
    }
    if (!lowest)
        return RF_END;
    source = rf_json_find(canon->heads[best], "_source");
    canon->heads[best] = NULL;
    mapper = canon->lane->mappers[canon->by_name[best]].name;
    if (is_left_out(canon, lowest, mapper))
        return RF_OK;
    cells = add_row(canon);
    cells[0] = text_cell(canon, lowest);
    cells[1] = text_cell(canon, mapper);
    cells[2] = json_cell(canon, rf_json_find(source, "n"), RF_TYPE_INT);
    cells[3] = json_cell(canon, rf_json_find(source, "child"), RF_TYPE_TEXT);
    cells[4] = json_cell(canon, rf_json_find(source, "name"), RF_TYPE_TEXT);
    cells[5] = json_cell(canon, rf_json_find(source, "offset"), RF_TYPE_INT);
    cells[6] = json_cell(canon, rf_json_find(source, "size"), RF_TYPE_INT);
    return RF_OK;
}

/* ---- the stream at hand ---- */

static const struct rf_el_table *table_of(const struct canon *canon,
                                          const struct rf_table *wanted)
{
    for (size_t i = 0; canon->lane && i < canon->lane->mapper_count; i++)
        for (size_t k = 0; k < canon->lane->mappers[i].decl->table_count; k++)
            if (strcmp(canon->lane->mappers[i].tables[k].decl->name, wanted->name) == 0)
                return &canon->lane->mappers[i].tables[k];
    return NULL;
}

static void make_readers(struct canon *canon, size_t count)
{
    canon->readers = calloc(count + 1, sizeof *canon->readers);
    canon->heads = calloc(count + 1, sizeof(const struct rf_json *));
    if (!canon->readers || !canon->heads)
        abort();
    canon->reader_count = count;
}

static const char *manifest_query(enum rf_canon_kind kind)
{
    switch (kind) {
    case RF_CANON_NEEDS:
        return "{\"bool\":{\"minimum_should_match\":1,\"should\":[{\"exists\":{\"field\":\"miss\"}"
               "},{\"exists\":{\"field\":\"have\"}}]}}";
    case RF_CANON_PARKS:
        return "{\"exists\":{\"field\":\"park\"}}";
    case RF_CANON_LETTERS:
        return "{\"exists\":{\"field\":\"dead\"}}";
    case RF_CANON_CUTS:
        return "{\"exists\":{\"field\":\"cut\"}}";
    default:
        return "{\"term\":{\"kind\":\"item\"}}";
    }
}

static void canon_end(struct rf_canon *base)
{
    struct canon *canon = of(base);

    for (size_t i = 0; i < canon->reader_count; i++)
        reader_release(&canon->readers[i]);
    free(canon->readers);
    free(canon->heads);
    canon->readers = NULL;
    canon->heads = NULL;
    canon->reader_count = 0;
    clear_rows(canon);
}

static enum rf_status canon_begin(struct rf_canon *base, const struct rf_canon_stream *stream,
                                  struct rf_error *err)
{
    struct canon *canon = of(base);
    const struct rf_el_table *table;
    char query[128];

    rf_es_interruptible(canon->sink->es, base->interrupted);
    canon->kept = *stream;
    canon->reached_page = 0;
    clear_rows(canon);
    switch (stream->kind) {
    case RF_CANON_LANE:
        put_lane(canon);
        return RF_OK;
    case RF_CANON_FACTS:
        put_facts(canon);
        return RF_OK;
    case RF_CANON_TABLES:
        put_tables(canon);
        return RF_OK;
    case RF_CANON_MAPPERS:
        put_mappers(canon);
        return RF_OK;
    case RF_CANON_STRAYS: /* rows of no item are among the others here */
        return RF_OK;
    case RF_CANON_ROWS:
        table = table_of(canon, stream->table);
        if (!table)
            return rf_error_set(err, RF_CORRUPT, "there is no table '%s'", stream->table->name);
        make_readers(canon, 1);
        reader_init(&canon->readers[0], table->index, "{\"match_all\":{}}",
                    "[\"refuge.item\",\"refuge.n\"]");
        return RF_OK;
    case RF_CANON_PARTS:
        make_readers(canon, canon->lane ? canon->lane->mapper_count : 0);
        for (size_t i = 0; i < canon->reader_count; i++) {
            snprintf(query, sizeof query,
                     "{\"bool\":{\"filter\":[{\"term\":{\"kind\":\"edge\"}},{\"term\":{\"gen\":"
                     "%lld}}]}}",
                     (long long)canon->lane->mappers[canon->by_name[i]].gen);
            reader_init(&canon->readers[i], canon->sink->own, query, "[\"item\",\"n\"]");
        }
        return RF_OK;
    default:
        if (!canon->lane)
            return RF_OK;
        make_readers(canon, 1);
        reader_init(&canon->readers[0], canon->sink->own, manifest_query(stream->kind),
                    "[\"item\"]");
        return RF_OK;
    }
}

/* More rows from the readers. */
static enum rf_status fetch(struct canon *canon, struct rf_error *err)
{
    const struct rf_json *hit;
    enum rf_status status;

    clear_rows(canon);
    if (!canon->reader_count)
        return RF_END;
    if (canon->kept.kind == RF_CANON_PARTS)
        return next_edge(canon, err);
    status = reader_next(canon->sink, &canon->readers[0], &hit, err);
    if (status)
        return status;
    if (canon->kept.kind == RF_CANON_ROWS) {
        take_row(canon, hit);
        return RF_OK;
    }
    if (canon->kept.kind == RF_CANON_ITEMS && canon->reached_page != canon->readers[0].pages)
        status = find_reached(canon, &canon->readers[0], err);
    return status ? status : take_manifest(canon, hit, err);
}

static enum rf_status canon_next(struct rf_canon *base, const struct rf_cell **cells,
                                 struct rf_error *err)
{
    struct canon *canon = of(base);
    enum rf_status status = RF_OK;

    while (!status && canon->row_at == canon->row_count)
        status = fetch(canon, err);
    if (!status)
        *cells = canon->rows[canon->row_at++];
    return status;
}

/* ---- what is left out ---- */

static enum rf_status canon_undecided(struct rf_canon *base,
                                      enum rf_status (*visit)(void *user, const char *item,
                                                              const char *mapper, bool parked),
                                      void *user, struct rf_error *err)
{
    struct canon *canon = of(base);
    struct reader reader;
    const struct rf_json *hit;
    enum rf_status status = RF_OK;

    if (!canon->lane)
        return RF_OK;
    rf_es_interruptible(canon->sink->es, base->interrupted);
    reader_init(&reader, canon->sink->own,
                "{\"bool\":{\"minimum_should_match\":1,\"should\":[{\"exists\":{\"field\":\"dead\"}"
                "},{\"exists\":{\"field\":\"park\"}}]}}",
                "[\"item\"]");
    while (!status && (status = reader_next(canon->sink, &reader, &hit, err)) == RF_OK) {
        const struct rf_json *source = rf_json_find(hit, "_source");
        const char *key = rf_json_string(rf_json_find(source, "item"));
        struct rf_el_content content;
        rf_arena_clear(&canon->rows_arena);
        status = rf_elastic_read_content(canon->sink, &canon->rows_arena, source, &content, err);
        for (size_t i = 0; !status && key && !content.absent && i < canon->lane->mapper_count;
             i++) {
            const struct rf_el_call *call = call_of(&content, canon->lane->mappers[i].gen);
            bool parked = call && (rf_elastic_waits(call, RF_PARK_SLOW) ||
                                   rf_elastic_waits(call, RF_PARK_READY));
            if (parked || (call && call->outcome == RF_EL_DEAD && call->kind == RF_DEAD_LIMIT))
                status = visit(user, key, canon->lane->mappers[i].name, parked);
        }
    }
    reader_release(&reader);
    return status == RF_END ? RF_OK : status;
}

static enum rf_status canon_leave_out(struct rf_canon *base, const char *item, const char *mapper,
                                      bool parked, struct rf_error *err)
{
    (void)err;
    add_entry(&of(base)->left_out, &of(base)->arena, item, mapper, parked);
    return RF_OK;
}

static enum rf_status canon_left_out(struct rf_canon *base, uint64_t *limited, uint64_t *parked,
                                     struct rf_error *err)
{
    struct canon *canon = of(base);

    (void)err;
    *limited = *parked = 0;
    for (size_t i = 0; i < SLOTS; i++)
        for (const struct entry *e = canon->left_out.slots[i]; e; e = e->next)
            *(e->parked ? parked : limited) += 1;
    return RF_OK;
}

struct below { /* items whose children are to be visited */
    char **keys;
    size_t count, room;
    struct set seen;
    struct rf_arena arena;
};

/* Children of an item by edges of one generation, or of the whole lane (gen 0). */
static enum rf_status visit_children(struct canon *canon, struct below *below, const char *key,
                                     int64_t gen,
                                     enum rf_status (*visit)(void *user, const char *item),
                                     void *user, struct rf_error *err)
{
    const struct rf_json *hit;
    struct reader reader;
    struct rf_buf query;
    enum rf_status status = RF_OK;

    rf_buf_init(&query, 1 << 16);
    rf_buf_put_text(&query, "{\"bool\":{\"filter\":[{\"term\":{\"kind\":\"edge\"}},{\"term\":{"
                            "\"item\":");
    rf_json_put_string(&query, rf_bytes_text(key));
    rf_buf_put_text(&query, "}},{\"terms\":{\"gen\":");
    if (gen)
        rf_buf_printf(&query, "[%lld]", (long long)gen);
    else
        rf_elastic_put_gens(&query, canon->lane);
    rf_buf_put_text(&query, "}}]}}");
    reader_init(&reader, canon->sink->own, rf_buf_text(&query), "[\"gen\",\"n\"]");
    rf_buf_release(&query);
    while (!status && (status = reader_next(canon->sink, &reader, &hit, err)) == RF_OK) {
        const char *child =
            rf_json_string(rf_json_find(rf_json_find(hit, "_source"), "child"));
        if (!child || !add_entry(&below->seen, &below->arena, child, NULL, false))
            continue;
        below->keys = rf_elastic_grow(below->keys, below->count, &below->room, sizeof(char *));
        below->keys[below->count++] = rf_arena_copy(&below->arena, child, strlen(child));
        status = visit(user, child);
    }
    reader_release(&reader);
    return status == RF_END ? RF_OK : status;
}

static int64_t gen_of(const struct canon *canon, const char *mapper)
{
    for (size_t i = 0; i < canon->lane->mapper_count; i++)
        if (strcmp(canon->lane->mappers[i].name, mapper) == 0)
            return canon->lane->mappers[i].gen;
    return -1;
}

static enum rf_status canon_beneath(struct rf_canon *base,
                                    enum rf_status (*visit)(void *user, const char *item),
                                    void *user, struct rf_error *err)
{
    struct canon *canon = of(base);
    struct below *below = calloc(1, sizeof *below);
    enum rf_status status = RF_OK;

    if (!below)
        abort();
    rf_arena_init(&below->arena, SIZE_MAX);
    for (size_t i = 0; canon->lane && !status && i < SLOTS; i++) {
        for (const struct entry *e = canon->left_out.slots[i]; !status && e; e = e->next) {
            char item[RF_ITEM_KEY_SIZE];
            snprintf(item, sizeof item, "%.*s", (int)e->item_size, e->key);
            status = visit_children(canon, below, item, gen_of(canon, e->key + e->item_size + 1),
                                    visit, user, err);
        }
    }
    for (size_t i = 0; !status && i < below->count; i++)
        status = visit_children(canon, below, below->keys[i], 0, visit, user, err);
    rf_arena_release(&below->arena);
    free(below->keys);
    free(below);
    return status;
}

static enum rf_status canon_leave_item(struct rf_canon *base, const char *item,
                                       struct rf_error *err)
{
    (void)err;
    add_entry(&of(base)->beneath, &of(base)->arena, item, NULL, false);
    return RF_OK;
}

static enum rf_status canon_mappers(struct rf_canon *base, const struct rf_canon_mapper **out,
                                    size_t *count, struct rf_error *err)
{
    (void)err;
    *out = of(base)->mappers;
    *count = of(base)->lane ? of(base)->lane->mapper_count : 0;
    return RF_OK;
}

/* ---- checks ---- */

RF_PRINTF(4, 5)
static void say(rf_canon_tell tell, void *user, enum rf_canon_mend mend, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    tell(user, mend, text);
}

static bool same_words(const struct rf_table *table, const struct rf_json *source,
                       struct rf_buf *tokens)
{
    const struct rf_json *words = rf_json_find(rf_json_find(source, "refuge"), "words");
    size_t at = 0;

    for (size_t i = 0; i < table->column_count; i++) {
        const struct rf_json *text = rf_json_find(source, table->columns[i].name);
        if (!table->columns[i].search || !text || text->type != RF_JSON_STRING)
            continue;
        rf_buf_clear(tokens);
        rf_elastic_put_tokens(tokens, text->text);
        if (!words || words->type != RF_JSON_ARRAY || at >= words->count ||
            !rf_bytes_equal(words->items[at].text, rf_buf_bytes(tokens)))
            return false;
        at++;
    }
    return at == (words && words->type == RF_JSON_ARRAY ? words->count : 0);
}

static enum rf_status canon_check_search(struct rf_canon *base, const struct rf_table *table,
                                         rf_canon_tell tell, void *user, struct rf_error *err)
{
    struct canon *canon = of(base);
    const struct rf_el_table *mine = table_of(canon, table);
    const struct rf_json *hit;
    struct reader reader;
    struct rf_buf tokens;
    enum rf_status status = RF_OK;

    if (!mine)
        return rf_error_set(err, RF_CORRUPT, "there is no table '%s'", table->name);
    rf_buf_init(&tokens, RF_ES_ANSWER_MAX);
    reader_init(&reader, mine->index, "{\"match_all\":{}}", "[\"refuge.item\",\"refuge.n\"]");
    while (!status && (status = reader_next(canon->sink, &reader, &hit, err)) == RF_OK) {
        const struct rf_json *source = rf_json_find(hit, "_source");
        const struct rf_json *refuge = rf_json_find(source, "refuge");
        const char *key = rf_json_string(rf_json_find(refuge, "item"));
        int64_t n = 0;
        if (same_words(table, source, &tokens))
            continue;
        (void)!rf_json_int(rf_json_find(refuge, "n"), &n);
        say(tell, user, RF_MEND_REBUILD,
            "table '%s', item '%s', n %" PRId64 ": its full-text entry is not that of its text",
            table->name, key ? key : "?", n);
    }
    reader_release(&reader);
    rf_buf_release(&tokens);
    return status == RF_END ? RF_OK : status;
}

/* Items among these that have a manifest. */
static enum rf_status check_items(struct canon *canon, char (*keys)[RF_ITEM_KEY_SIZE],
                                  size_t count, uint64_t *missing, struct rf_error *err)
{
    const struct rf_json *docs;
    struct rf_es_reply reply;
    struct rf_buf body;
    enum rf_status status;

    if (!count)
        return RF_OK;
    rf_buf_init(&body, 4 << 20);
    rf_buf_put_text(&body, "{\"ids\":[");
    for (size_t i = 0; i < count; i++) {
        char id[RF_ITEM_KEY_SIZE + 4];
        snprintf(id, sizeof id, "i:%s", keys[i]);
        rf_buf_put_text(&body, i ? "," : "");
        rf_json_put_string(&body, rf_bytes_text(id));
    }
    rf_buf_put_text(&body, "]}");
    status = rf_es_call(canon->sink->es, &reply, "POST", rf_buf_bytes(&body), err,
                        "/%s/_mget?_source=false", canon->sink->own);
    rf_buf_release(&body);
    docs = status ? NULL : rf_json_find(reply.json, "docs");
    if (!status && (reply.status >= 300 || !docs))
        status = rf_es_unexpected(canon->sink->es, &reply, "read items", err);
    for (size_t i = 0; !status && docs && i < docs->count; i++) {
        const struct rf_json *found = rf_json_find(&docs->items[i], "found");
        *missing += !found || found->type != RF_JSON_TRUE;
    }
    return status;
}

/* Documents whose field names an item that is not there. */
static enum rf_status check_references(struct canon *canon, const char *index, const char *query,
                                       const char *sort, const char *object, const char *field,
                                       const char *what, rf_canon_tell tell, void *user,
                                       struct rf_error *err)
{
    char(*keys)[RF_ITEM_KEY_SIZE] = calloc(PAGE, sizeof *keys);
    const struct rf_json *hit;
    struct reader reader;
    uint64_t missing = 0;
    size_t count = 0;
    enum rf_status status = RF_OK;

    if (!keys)
        abort();
    reader_init(&reader, index, query, sort);
    while (!status && (status = reader_next(canon->sink, &reader, &hit, err)) == RF_OK) {
        const struct rf_json *source = rf_json_find(hit, "_source");
        const char *key =
            rf_json_string(rf_json_find(object ? rf_json_find(source, object) : source, field));
        if (!key) {
            missing++;
            continue;
        }
        if (count && strcmp(keys[count - 1], key) == 0)
            continue;
        snprintf(keys[count++], RF_ITEM_KEY_SIZE, "%s", key);
        if (count == PAGE) {
            status = check_items(canon, keys, count, &missing, err);
            count = 0;
        }
    }
    if (status == RF_END)
        status = check_items(canon, keys, count, &missing, err);
    if (!status && missing)
        say(tell, user, RF_MEND_ANEW, "%s: %" PRIu64 " of an item that is not there", what,
            missing);
    reader_release(&reader);
    free(keys);
    return status;
}

/* What of an alias of ours, or what has its name, is not as refuge makes it. */
static bool tell_alias(const struct rf_json *index, const char *alias, const char *wanted,
                       rf_canon_tell tell, void *user)
{
    const char *name = (const char *)index->key.data;
    const struct rf_json *how = rf_json_find(rf_json_find(index, "aliases"), alias);

    if (strcmp(name, wanted) == 0) {
        for (size_t i = 0; how && how->type == RF_JSON_OBJECT && i < how->count; i++)
            say(tell, user, RF_MEND_REBUILD, "alias '%s': it has '%s', which refuge gives it not",
                alias, (const char *)how->items[i].key.data);
        return true;
    }
    if (strcmp(name, alias) == 0)
        say(tell, user, RF_MEND_HAND,
            "alias '%s': an index has this name; \"DELETE /%s\" takes it away with all it holds",
            alias, alias);
    else
        say(tell, user, RF_MEND_HAND,
            "alias '%s': it also names index '%s'; \"DELETE /%s/_alias/%s\" takes it off", alias,
            name, name, alias);
    return false;
}

static enum rf_status check_alias(struct canon *canon, const struct rf_el_table *table,
                                  rf_canon_tell tell, void *user, struct rf_error *err)
{
    char alias[RF_ELASTIC_NAME];
    struct rf_es_reply reply;
    bool found = false;
    enum rf_status status;

    snprintf(alias, sizeof alias, "%s-%s", rf_es_prefix(canon->sink->es), table->decl->name);
    status = rf_es_call(canon->sink->es, &reply, "GET", rf_bytes(NULL, 0), err, "/%s/_alias",
                        alias);
    if (!status && reply.status >= 300 && reply.status != 404)
        status = rf_es_unexpected(canon->sink->es, &reply, "read an alias", err);
    if (status)
        return status;
    for (size_t i = 0; reply.status < 300 && reply.json && i < reply.json->count; i++)
        found |= tell_alias(&reply.json->items[i], alias, table->index, tell, user);
    if (!found)
        say(tell, user, RF_MEND_REBUILD, "alias '%s': it does not name index '%s'", alias,
            table->index);
    return RF_OK;
}

static enum rf_status canon_check(struct rf_canon *base, rf_canon_tell tell, void *user,
                                  struct rf_error *err)
{
    static const char edges[] = "{\"term\":{\"kind\":\"edge\"}}";
    struct canon *canon = of(base);
    size_t live = 0;
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < canon->sink->state.lane_count; i++)
        live += canon->sink->state.lanes[i]->state == RF_EL_LIVE;
    if (live != 1)
        say(tell, user, RF_MEND_ANEW, "lanes: %zu are live, should be 1", live);
    status = check_references(canon, canon->sink->own, edges, "[\"item\",\"gen\",\"n\"]", NULL,
                              "item", "edges", tell, user, err);
    if (!status)
        status = check_references(canon, canon->sink->own, edges,
                                  "[\"child\",\"item\",\"gen\",\"n\"]", NULL, "child",
                                  "edges to a part", tell, user, err);
    for (size_t i = 0; canon->lane && i < canon->lane->mapper_count; i++) {
        const struct rf_el_mapper *mapper = &canon->lane->mappers[i];
        for (size_t k = 0; !status && k < mapper->decl->table_count; k++) {
            char what[RF_NAME_MAX + 32];
            snprintf(what, sizeof what, "rows of table '%s'", mapper->tables[k].decl->name);
            status = check_references(canon, mapper->tables[k].index, "{\"match_all\":{}}",
                                      "[\"refuge.item\",\"refuge.n\"]", "refuge", "item", what,
                                      tell, user, err);
            if (!status)
                status = check_alias(canon, &mapper->tables[k], tell, user, err);
        }
    }
    if (!status)
        status = rf_elastic_ready(canon->sink, err); /* a reader reads the state anew */
    if (!status && canon->sink->state.done != canon->done)
        status = rf_error_set(err, RF_UNAVAILABLE,
                              "index '%s' was written meanwhile, so what it said is not of one "
                              "time; do it again",
                              rf_es_name(canon->sink->es));
    canon->lane = NULL; /* of the state that is gone */
    return status;
}

/* ---- opening ---- */

static void canon_close(struct rf_canon *base)
{
    struct canon *canon = of(base);

    canon_end(base);
    free(canon->rows);
    free(canon->reached);
    rf_arena_release(&canon->arena);
    rf_arena_release(&canon->rows_arena);
    rf_arena_release(&canon->reached_arena);
    if (canon->sink)
        rf_elastic_close(&canon->sink->base);
    free(canon);
}

static const struct rf_canon_ops canon_ops = {
    .close = canon_close,
    .mappers = canon_mappers,
    .undecided = canon_undecided,
    .leave_out = canon_leave_out,
    .left_out = canon_left_out,
    .beneath = canon_beneath,
    .leave_item = canon_leave_item,
    .begin = canon_begin,
    .next = canon_next,
    .end = canon_end,
    .check_search = canon_check_search,
    .check = canon_check,
};

static void order_mappers(struct canon *canon)
{
    size_t count = canon->lane ? canon->lane->mapper_count : 0;

    canon->mappers = rf_arena_alloc(&canon->arena, (count + 1) * sizeof *canon->mappers);
    canon->by_name = rf_arena_alloc(&canon->arena, (count + 1) * sizeof *canon->by_name);
    for (size_t i = 0; i < count; i++) {
        const struct rf_el_mapper *mapper = &canon->lane->mappers[i];
        size_t at = i;
        canon->mappers[i] =
            (struct rf_canon_mapper){mapper->name, mapper->identity, mapper->decl};
        for (; at > 0 && strcmp(canon->lane->mappers[canon->by_name[at - 1]].name,
                                mapper->name) > 0;
             at--)
            canon->by_name[at] = canon->by_name[at - 1];
        canon->by_name[at] = i;
    }
}

/* Whoever compares wants what is committed, also what cannot be found yet. */
static void refresh_all(struct canon *canon)
{
    canon->sink->own_stale = canon->sink->rows_stale = true;
    for (size_t i = 0; canon->lane && i < canon->lane->mapper_count; i++)
        for (size_t k = 0; k < canon->lane->mappers[i].decl->table_count; k++)
            canon->lane->mappers[i].tables[k].stale = true;
    (void)!rf_elastic_refresh(canon->sink, true, NULL); /* it may not be allowed to */
}

enum rf_status rf_elastic_canon(struct rf_canon **out, const char *rest, struct rf_error *err)
{
    struct canon *canon = calloc(1, sizeof *canon);
    enum rf_status status;

    if (canon)
        canon->reached = calloc(1, sizeof *canon->reached);
    if (!canon || !canon->reached)
        abort();
    canon->base.ops = &canon_ops;
    rf_arena_init(&canon->arena, SIZE_MAX);
    rf_arena_init(&canon->rows_arena, PAGE_BYTES);
    rf_arena_init(&canon->reached_arena, SIZE_MAX);
    status = rf_elastic_open_reader(&canon->sink, rest, err);
    if (status) {
        canon_close(&canon->base);
        return status;
    }
    if (rf_elastic_lane(canon->sink, 0, &canon->lane, NULL) != RF_OK)
        canon->lane = NULL;
    canon->done = canon->sink->state.done;
    order_mappers(canon);
    refresh_all(canon);
    *out = &canon->base;
    return RF_OK;
}
