/*
 * cmd_index_why.c - refuge index why: what became of a blob or file, mapper by mapper
 *
 * Answers from the index by SQL (the tables are drawn in sinks/sqlite_schema.c), or by what
 * sinks/query.h asks a sink without SQL, and, for what the index has never seen, from the store:
 * not there, not yet reached, or not an item at all. Why a mapper has nothing of an item is not
 * kept in the index: the mapper, as the index has it, is asked once more, and a small mapper of our
 * own says what the content is.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup/schema.h"
#include "cmd/definition.h"
#include "cmd/index_home.h"
#include "cmd/mapper_item.h"
#include "core/utf8.h"
#include "indexer/plan.h"
#include "sinks/query.h"

#define ITEMS_MAX 64    /* items of one name that are told of */
#define MAPPERS_MAX 256
#define CALLS_MAX 64    /* mappers asked once more */

struct item {
    int64_t id;
    char key[RF_ITEM_KEY_SIZE];
    char *kind, *name;
    int64_t seq;
    bool deleted;
};

struct lane_mapper {
    int64_t id;
    char name[RF_NAME_MAX + 1];
};

struct why {
    struct rf_cli *cli;
    const struct rf_index_home *index;
    struct rf_arena arena;
    struct item items[ITEMS_MAX];
    size_t item_count;
    struct lane_mapper mappers[MAPPERS_MAX];
    size_t mapper_count;
    bool no_sql;
    char position[RF_POSITION_SIZE];
    /* for asking mappers once more: made when first needed */
    struct rf_store *store;
    struct rf_pool *pool;
    struct rf_sink *sink;
    struct rf_arena lane_arena;
    struct rf_sink_lane *lane;
    struct rf_plan plan;
    struct rf_mapper *probe;
    bool no_pool;
    unsigned calls;
    /* of the item at hand */
    const struct item *item;
    struct rf_mapper_item content;
    bool opened;
    unsigned unmatched;  /* mappers whose match does not take it */
    char *media, *note;  /* what its content is, and what is odd about it; NULL: not known */
    /* of the mapper at hand */
    const struct lane_mapper *mapper;
    char *state, *reason;
    uint64_t rows, parts, parts_aside;
    struct rf_buf table_list;
};

/* ---- asking ---- */

static char *keep(struct why *why, struct rf_bytes text)
{
    char *copy = rf_arena_copy(&why->arena, text.data ? (const void *)text.data : "", text.size);

    return copy ? copy : rf_arena_alloc(&why->arena, 1);
}

/* Run a query whose text is made like printf's. */
RF_PRINTF(4, 5)
static enum rf_status ask(struct why *why, rf_query_visit visit, struct rf_error *err,
                          const char *format, ...)
{
    struct rf_buf sql;
    char text[8192];
    va_list args;
    enum rf_status status;
    int size;

    va_start(args, format);
    size = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (size < 0 || (size_t)size >= sizeof text)
        return rf_error_set(err, RF_LIMIT, "the name is too long");
    rf_buf_init(&sql, sizeof text);
    rf_buf_put_text(&sql, text);
    status = rf_query_sql(why->index->url, rf_buf_text(&sql), NULL, visit, why, &rf_stop_flag, err);
    rf_buf_release(&sql);
    return status;
}

/* A text as an SQL literal; too long a one becomes a text that nothing equals. */
static const char *quoted(char *out, size_t size, const char *text)
{
    size_t used = 0;

    out[used++] = '\'';
    for (; *text && used + 4 < size; text++) {
        if (*text == '\'')
            out[used++] = '\'';
        out[used++] = *text;
    }
    out[used++] = '\'';
    out[used] = '\0';
    return out;
}

static enum rf_status visit_item(void *user, uint64_t index, size_t count,
                                 const char *const *names, const struct rf_cell *cells)
{
    struct why *why = user;
    struct item *item;

    (void)names;
    (void)count;
    if (index >= ITEMS_MAX)
        return RF_END;
    item = &why->items[why->item_count++];
    item->id = cells[0].integer;
    snprintf(item->key, sizeof item->key, "%.*s", (int)cells[1].text.size,
             (const char *)cells[1].text.data);
    item->kind = keep(why, cells[2].text);
    item->name = cells[3].type == RF_CELL_NULL ? NULL : keep(why, cells[3].text);
    item->seq = cells[4].integer;
    item->deleted = cells[5].integer != 0;
    return RF_OK;
}

static enum rf_status visit_mapper(void *user, uint64_t index, size_t count,
                                   const char *const *names, const struct rf_cell *cells)
{
    struct why *why = user;

    (void)names;
    (void)count;
    if (index >= MAPPERS_MAX)
        return RF_END;
    why->mappers[index].id = cells[0].integer;
    snprintf(why->mappers[index].name, sizeof why->mappers[0].name, "%.*s",
             (int)cells[1].text.size, (const char *)cells[1].text.data);
    snprintf(why->position, sizeof why->position, "%.*s", (int)cells[2].text.size,
             (const char *)cells[2].text.data);
    why->mapper_count = index + 1;
    return RF_OK;
}

/* ---- one item, one mapper ---- */

static enum rf_status visit_letter(void *user, uint64_t index, size_t count,
                                   const char *const *names, const struct rf_cell *cells)
{
    struct why *why = user;

    (void)index;
    (void)count;
    (void)names;
    why->state = keep(why, cells[0].text);
    why->reason = keep(why, cells[1].text);
    return RF_OK;
}

static enum rf_status visit_count(void *user, uint64_t index, size_t count,
                                  const char *const *names, const struct rf_cell *cells)
{
    struct why *why = user;

    (void)index;
    (void)count;
    (void)names;
    if (cells[1].integer > 0)
        rf_buf_printf(&why->table_list, "%s%.*s %lld", why->table_list.size ? ", " : "",
                      (int)cells[0].text.size, (const char *)cells[0].text.data,
                      (long long)cells[1].integer);
    why->rows += (uint64_t)cells[1].integer;
    return RF_OK;
}

static enum rf_status visit_parts(void *user, uint64_t index, size_t count,
                                  const char *const *names, const struct rf_cell *cells)
{
    struct why *why = user;

    (void)index;
    (void)count;
    (void)names;
    why->parts = (uint64_t)cells[0].integer;
    why->parts_aside = (uint64_t)cells[1].integer;
    return RF_OK;
}

/* "select 'mail' as name, count(*) ... union all ..." needs the names of the mapper's tables. */
static enum rf_status visit_table(void *user, uint64_t index, size_t count,
                                  const char *const *names, const struct rf_cell *cells)
{
    struct why *why = user;

    (void)index;
    (void)count;
    (void)names;
    return ask(why, visit_count, NULL,
               "SELECT '%.*s', count(*) FROM \"%.*s\" WHERE blob = %lld", (int)cells[0].text.size,
               (const char *)cells[0].text.data, (int)cells[0].text.size,
               (const char *)cells[0].text.data, (long long)why->item->id);
}

static void print_state(struct why *why)
{
    struct rf_cli *cli = why->cli;
    const char *tables = rf_buf_text(&why->table_list);

    rf_out_printf(cli, "  %-16s ", why->mapper->name);
    if (why->state) {
        rf_out_printf(cli, "%s: ", why->state);
        rf_out_word(cli, rf_bytes_text(why->reason));
        rf_out_printf(cli, "\n");
    } else {
        rf_out_printf(cli, "mapped: %s%s%s%s", RF_COUNT(why->rows, "row"), tables[0] ? " (" : "",
                      tables, tables[0] ? ")" : "");
        rf_out_printf(cli, why->parts ? ", %s" : "", RF_COUNT(why->parts, "part"));
        if (why->parts_aside)
            rf_out_printf(cli, " (%llu set aside; 'refuge index errors%s' says why)",
                          (unsigned long long)why->parts_aside, why->index->argument);
        rf_out_printf(cli, "\n");
    }
    rf_out_begin(&cli->out, "mapper");
    rf_out_text(&cli->out, "item", why->item->key);
    rf_out_text(&cli->out, "mapper", why->mapper->name);
    rf_out_text(&cli->out, "state", why->state ? why->state : "mapped");
    rf_out_int(&cli->out, "rows", (int64_t)why->rows);
    rf_out_int(&cli->out, "parts", (int64_t)why->parts);
    rf_out_int(&cli->out, "parts_set_aside", (int64_t)why->parts_aside);
    rf_out_text(&cli->out, "reason", why->reason);
    if (why->media)
        rf_out_text(&cli->out, "media", why->media);
    if (why->note)
        rf_out_text(&cli->out, "note", why->note);
    rf_out_end(&cli->out);
}

/* ---- asking a mapper once more ---- */

/* What the content is: its media type, and what keeps mappers from reading it. */
static const char probe_bundle[] =
    "{\"name\":\"why\",\"files\":{\"why.lua\":\""
    "local function odd(blob) "
    "if blob.size == 0 then return 'it is empty' end "
    "local a, b, c, d = blob:sub(1, 4):byte(1, 4) "
    "if a == 255 and b == 254 or a == 254 and b == 255 then "
    "return 'it is text in UTF-16; mapper record makes a part of it in UTF-8' end "
    "if d and (a == 0 and c == 0 and b > 0 and d > 0 or "
    "b == 0 and d == 0 and a > 0 and c > 0) then "
    "return 'it looks like UTF-16 without a byte order mark; mappers read UTF-8' end "
    "if blob.media == 'text/csv' or blob.media == 'text/tab-separated-values' then "
    "local lines = 0 "
    "for line in blob:lines() do lines = lines + 1 if lines == 2 then return end end "
    "return 'it has a header and no records' end "
    "end "
    "return { name = 'why', tables = { why = { columns = { 'media text', 'note text' } } }, "
    "map = function(blob, emit) emit.why { media = blob.media, note = odd(blob) } end }"
    "\"}}";

/* The pool, and the mappers as the index has them. */
static bool prepare_calls(struct why *why)
{
    struct rf_pool_options options = {.program = rf_mapper_program(), .workers = 1};
    struct rf_sink_options how = {0};
    size_t count = 0;

    if (why->pool || why->no_pool)
        return !why->no_pool;
    why->no_pool =
        rf_sink_open(&why->sink, why->index->url, &how, NULL) != RF_OK ||
        rf_sink_lanes(why->sink, &why->lane_arena, &why->lane, &count, NULL) != RF_OK ||
        count == 0 ||
        rf_plan_of_live(why->sink, &why->lane_arena, why->lane, count, &why->plan, NULL) != RF_OK ||
        rf_pool_open(&why->pool, &options, NULL) != RF_OK ||
        rf_pool_load_bundle(why->pool, rf_bytes_text(probe_bundle), &why->probe, NULL) != RF_OK;
    return !why->no_pool;
}

static bool open_content(struct why *why)
{
    struct rf_mapper_source from = {why->cli, why->store, why->pool, why->index};

    if (!why->opened)
        why->opened = rf_mapper_item_key(&why->content, &from, why->item->key, NULL) == RF_OK;
    return why->opened;
}

static struct rf_result *call(struct why *why, const struct rf_mapper *mapper)
{
    struct rf_result *result = NULL;

    if (why->calls++ >= CALLS_MAX || rf_stop_asked() ||
        rf_mapper_item_map(why->pool, &why->content, why->store, mapper, &result, NULL) != RF_OK)
        return NULL;
    return result;
}

static void look_at_content(struct why *why)
{
    struct rf_result *result = why->media ? NULL : call(why, why->probe);
    struct rf_output_reader reader;
    struct rf_record record;

    if (result && result->calls[0].outcome == RF_CALL_ROWS) {
        rf_output_init(&reader, result->calls[0].output, rf_mapper_decl(why->probe),
                       why->content.item.size);
        while (rf_output_next(&reader, &record, NULL) == RF_OK) {
            if (record.kind != RF_RECORD_ROW)
                continue;
            why->media = keep(why, record.values[0].text);
            why->note = record.values[1].type ? keep(why, record.values[1].text) : NULL;
        }
        rf_output_release(&reader);
    }
    rf_result_free(result);
}

struct held {
    const struct rf_plan_mapper *chain;
    uint32_t takes;
};

static enum rf_status take_holder(void *user, const struct rf_sink_holder *holder)
{
    struct held *held = user;
    struct rf_plan_item item = {.seq = holder->seq, .timestamp_us = holder->timestamp_us,
                                .name = holder->name};

    held->takes &= rf_plan_takes(held->chain, &item);
    return RF_OK;
}

/* The version of a chain that maps the item at hand, or -1. */
static int version_of(struct why *why, const struct rf_plan_mapper *chain)
{
    const struct rf_item *at = &why->content.item;
    struct rf_plan_item item = {.seq = at->seq, .timestamp_us = at->timestamp_us,
                                .name = at->name, .media = why->media};
    struct held held = {.chain = chain, .takes = rf_plan_all(chain)};

    if (at->kind != RF_ITEM_PART)
        return rf_plan_choose(rf_plan_takes(chain, &item));
    if (rf_sink_holders(why->sink, why->lane->id, why->item->key, take_holder, &held, NULL))
        return -1;
    return rf_plan_choose(held.takes | rf_plan_takes_media(chain, at->media));
}

/* The version of the mapper at hand that maps the item; *none: the plan has none for it. */
static struct rf_mapper *load_mapper(struct why *why, bool *none)
{
    const struct rf_sink_mapper *one = NULL;
    const struct rf_plan_mapper *chain = rf_plan_find(&why->plan, why->mapper->name);
    struct rf_mapper *mapper = NULL;
    struct rf_bytes bundle;
    int version = 0;

    for (size_t i = 0; i < why->lane->mapper_count && !one; i++)
        one = strcmp(why->lane->mappers[i].decl->name, why->mapper->name) == 0
                  ? &why->lane->mappers[i] : NULL;
    if (!one)
        return NULL;
    bundle = one->bundle;
    if (chain)
        version = version_of(why, chain);
    *none = version < 0;
    if (version < 0 ||
        (version > 0 && rf_plan_text(why->sink, &why->lane_arena,
                                     chain->versions[version].identity, &bundle, NULL)) ||
        rf_pool_load_bundle(why->pool, bundle, &mapper, NULL) != RF_OK)
        return NULL;
    return mapper;
}

static void set_state(struct why *why, const char *state, const char *reason)
{
    why->state = keep(why, rf_bytes_text(state));
    why->reason = keep(why, rf_bytes_text(reason));
}

static void explain_no_match(struct why *why, const struct rf_decl *decl)
{
    enum rf_item_kind kind = why->content.item.kind;
    char words[256], shown[RF_SHORT_SIZE];

    why->unmatched++;
    if (kind == RF_ITEM_FILE && !(decl->on & RF_ON_FILE)) {
        set_state(why, "no match", "it maps bare blobs, not files");
    } else if (kind == RF_ITEM_BLOB && !(decl->on & RF_ON_BLOB)) {
        set_state(why, "no match", "it maps files, not bare blobs");
    } else {
        snprintf(words, sizeof words, "its match does not take it (media type '%s')",
                 rf_utf8_short(shown, why->media ? why->media : "unknown"));
        set_state(why, "no match", words);
    }
}

/* Nothing of this item is in the index and nothing is set aside: the mapper itself knows why. */
static void explain_nothing(struct why *why)
{
    struct rf_mapper *mapper = NULL;
    struct rf_result *result = NULL;
    bool none = false;

    if (prepare_calls(why) && open_content(why)) {
        look_at_content(why);
        mapper = load_mapper(why, &none);
        result = mapper ? call(why, mapper) : NULL;
    }
    if (none)
        set_state(why, "left out", "it was there before this mapper came, and the policy of that "
                                   "does not select it");
    else if (result && result->calls[0].outcome == RF_CALL_NONE)
        explain_no_match(why, rf_mapper_decl(mapper));
    else if (result && result->calls[0].outcome == RF_CALL_ROWS && result->calls[0].rows == 0 &&
             result->calls[0].parts == 0)
        set_state(why, "no rows", "it ran and emitted nothing");
    else if (result && result->calls[0].outcome == RF_CALL_ROWS)
        set_state(why, "no rows", "it would make some now; 'refuge index verify' looks into that");
    else
        set_state(why, "no rows", "no match, or it emitted nothing");
    rf_result_free(result);
}

static void begin_mapper(struct why *why)
{
    why->state = why->reason = NULL;
    why->rows = why->parts = why->parts_aside = 0;
    rf_buf_clear(&why->table_list);
}

/* The same of an index that answers no SQL. */
static enum rf_status visit_call(void *user, const struct rf_item_call_answer *call)
{
    struct why *why = user;

    begin_mapper(why);
    for (size_t i = 0; i < why->mapper_count; i++)
        if (strcmp(why->mappers[i].name, call->mapper) == 0)
            why->mapper = &why->mappers[i];
    if (!why->mapper)
        return RF_OK;
    if (call->state) {
        why->state = keep(why, rf_bytes_text(call->state));
        why->reason = keep(why, rf_bytes_text(call->reason));
    }
    rf_buf_put_text(&why->table_list, call->tables);
    why->rows = call->rows;
    why->parts = call->parts;
    why->parts_aside = call->parts_aside;
    if (!why->state && !why->rows && !why->parts)
        explain_nothing(why);
    print_state(why);
    return RF_OK;
}

static enum rf_status explain_mapper(struct why *why, struct rf_error *err)
{
    long long item = why->item->id, mapper = why->mapper->id;
    enum rf_status status;

    begin_mapper(why);
    status = ask(why, visit_letter, err,
                 "SELECT 'set aside (' || class || ')', reason FROM refuge_dead_letters WHERE "
                 "blob = %lld AND mapper = %lld UNION ALL SELECT 'parked (' || kind || ')', "
                 "coalesce(reason, '') || CASE kind WHEN 'need' THEN (SELECT ' waits for ' || "
                 "min(ref) || CASE WHEN count(*) > 1 THEN ' and ' || (count(*) - 1) || ' more' "
                 "ELSE '' END FROM refuge_needs n WHERE n.mapper = p.mapper AND n.blob = p.blob "
                 "AND present = 0) ELSE '' END FROM refuge_parks p WHERE blob = %lld AND mapper = "
                 "%lld",
                 item, mapper, item, mapper);
    if (status == RF_OK)
        status = ask(why, visit_table, err, "SELECT name FROM refuge_tables WHERE mapper = %lld",
                     mapper);
    if (status == RF_OK)
        status = ask(why, visit_parts, err,
                     "SELECT count(*), count(CASE WHEN EXISTS (SELECT 1 FROM refuge_dead_letters d "
                     "WHERE d.blob = p.child) THEN 1 END) FROM refuge_parts p WHERE mapper = %lld "
                     "AND parent = %lld", mapper, item);
    if (status == RF_OK && !why->state && !why->rows && !why->parts)
        explain_nothing(why);
    if (status == RF_OK)
        print_state(why);
    return status;
}

/* ---- one item ---- */

static void print_parent(struct why *why, struct rf_bytes key, struct rf_bytes name,
                         struct rf_bytes mapper)
{
    struct rf_cli *cli = why->cli;

    rf_out_printf(cli, "  is a part of ");
    rf_out_word(cli, name);
    rf_out_printf(cli, ", cut out by mapper %.*s\n", (int)mapper.size, (const char *)mapper.data);
    rf_out_begin(&cli->out, "edge");
    rf_out_text(&cli->out, "item", why->item->key);
    rf_out_bytes(&cli->out, "parent", key);
    rf_out_bytes(&cli->out, "mapper", mapper);
    rf_out_end(&cli->out);
}

static enum rf_status visit_parent(void *user, uint64_t index, size_t count,
                                   const char *const *names, const struct rf_cell *cells)
{
    struct why *why = user;

    (void)index;
    (void)count;
    (void)names;
    print_parent(why, cells[0].text, cells[1].type == RF_CELL_NULL ? cells[0].text : cells[1].text,
                 cells[2].text);
    return RF_OK;
}

static enum rf_status visit_parent_answer(void *user, const struct rf_item_parent_answer *parent)
{
    print_parent(user, rf_bytes_text(parent->key),
                 rf_bytes_text(parent->name ? parent->name : parent->key),
                 rf_bytes_text(parent->mapper));
    return RF_OK;
}

/* A name that is no text is not in the index; the file blob has it. */
static void print_name(struct why *why)
{
    struct rf_cli *cli = why->cli;
    struct rf_bytes name = rf_bytes_text(why->item->name ? why->item->name : "");

    if (!why->item->name && strcmp(why->item->kind, "file") == 0 && open_content(why))
        name = why->content.file.name;
    if (name.size) {
        rf_out_printf(cli, "  ");
        rf_out_word(cli, name);
        rf_out_name(&cli->out, name);
    } else {
        rf_out_text(&cli->out, "name", NULL);
    }
}

static enum rf_status explain_item(struct why *why, struct rf_error *err)
{
    struct rf_cli *cli = why->cli;
    const struct item *item = why->item;
    char key[2 * RF_ITEM_KEY_SIZE];
    enum rf_status status;

    rf_out_begin(&cli->out, "item");
    rf_out_text(&cli->out, "item", item->key);
    rf_out_text(&cli->out, "kind", item->kind);
    rf_out_word(cli, rf_bytes_text(item->key));
    print_name(why);
    rf_out_int(&cli->out, "seq", item->seq);
    rf_out_bool(&cli->out, "deleted", item->deleted);
    rf_out_printf(cli, "\n");
    rf_out_end(&cli->out);
    if (item->deleted) {
        rf_out_printf(cli, "  deleted by change %lld; its rows are gone\n", (long long)item->seq);
        return RF_OK;
    }
    if (!why->no_sql)
        status = ask(why, visit_parent, err, "SELECT parent, (SELECT name FROM blobs WHERE item = "
                     "parent), mapper FROM refuge_edges WHERE part = %s LIMIT 20",
                     quoted(key, sizeof key, item->key));
    else
        status = rf_query_item(why->index->url, item->key, visit_parent_answer, visit_call, why,
                               err);
    for (size_t i = 0; !why->no_sql && i < why->mapper_count && status == RF_OK; i++) {
        why->mapper = &why->mappers[i];
        status = explain_mapper(why, err);
    }
    if (status == RF_OK && why->unmatched == why->mapper_count)
        rf_out_printf(cli, "  no mapper takes it\n");
    if (status == RF_OK && why->note)
        rf_out_printf(cli, "  note: %s\n", why->note);
    return status;
}

static enum rf_status explain_items(struct why *why, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < why->item_count && status == RF_OK && !rf_stop_asked(); i++) {
        why->item = &why->items[i];
        why->opened = false;
        why->unmatched = 0;
        why->media = why->note = NULL;
        rf_mapper_item_init(&why->content);
        status = explain_item(why, err);
        rf_mapper_item_release(&why->content);
    }
    return status;
}

/* ---- what the index has never seen ---- */

static int explain_absent(struct why *why, const char *word, const struct rf_stat *stat)
{
    struct rf_cli *cli = why->cli;
    struct rf_cursor cursor = {0};

    if (why->position[0] && rf_cursor_parse(&cursor, why->position, NULL))
        cursor.seq = 0;
    rf_summary_text(cli, "state",
                    stat->seq > cursor.seq ? "not_yet" : stat->part ? "part" : "none");
    if (stat->part)
        rf_out_printf(cli, "%s is content of a file, not an item of its own; ask for the file\n",
                      word);
    else if (stat->seq > cursor.seq)
        rf_out_printf(cli,
                      "%s is not indexed yet: it is change %llu, index '%s' is at %llu; 'refuge "
                      "index run %s' goes on\n",
                      word, (unsigned long long)stat->seq, why->index->name,
                      (unsigned long long)cursor.seq, why->index->name);
    else
        rf_out_printf(cli, "%s was passed by index '%s': no mapper takes such blobs\n", word,
                      why->index->name);
    return RF_EXIT_OK;
}

/* ---- finding ---- */

/* What a word may mean: refs and names of items. */
struct wanted {
    bool is_file;              /* a local one; the refs are of what a put of it would store */
    struct rf_blobref refs[4]; /* the ref itself, or file blobs, then the content */
    size_t ref_count;
    bool content_known;        /* the hash of its bytes is among refs */
    const char *names[2];
    size_t name_count;
    char target[PATH_MAX];     /* what a symlink stands for */
    struct rf_error no_ref;    /* why it is no ref */
};

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash && slash[1] ? slash + 1 : path;
}

/* The ref of a local file's bytes. */
static bool hash_file(const char *path, struct rf_blobref *out)
{
    struct rf_hasher *hasher;
    uint8_t block[65536];
    ssize_t got;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return false;
    hasher = rf_hasher_new();
    while ((got = read(fd, block, sizeof block)) > 0 && !rf_stop_asked())
        rf_hasher_update(hasher, block, (size_t)got);
    rf_hasher_finish(hasher, out);
    rf_hasher_free(hasher);
    close(fd);
    return got == 0;
}

/* The file blob that a put of a local file would store, and its content when that is one blob. */
static void add_file(struct why *why, struct wanted *out, const char *path, const char *name)
{
    struct rf_put_file_options look = {.dry_run = true};
    struct rf_put_file_result result;

    if (rf_utf8_valid(rf_bytes_text(name)) == strlen(name))
        out->names[out->name_count++] = name;
    if (!out->is_file || rf_put_file(why->store, path, name, &look, &result, NULL) != RF_OK)
        return;
    out->refs[out->ref_count++] = result.ref;
    if (result.content.algo && !out->content_known)
        out->refs[out->ref_count++] = result.content;
    out->content_known |= result.content.algo != 0;
}

static void find_wanted(struct why *why, const char *word, struct wanted *out)
{
    struct rf_blobref ref;
    struct stat st;

    out->is_file = stat(word, &st) == 0 && S_ISREG(st.st_mode);
    add_file(why, out, word, base_name(word));
    if (out->is_file && realpath(word, out->target) &&
        strcmp(base_name(out->target), base_name(word)) != 0)
        add_file(why, out, word, base_name(out->target));
    if (out->is_file ? !out->content_known && hash_file(word, &ref)
                     : rf_ref_resolve(&ref, why->store, word, &out->no_ref) == RF_OK)
        out->refs[out->ref_count++] = ref;
}

static enum rf_status visit_item_answer(void *user, const struct rf_item_answer *answer)
{
    struct why *why = user;
    struct item *item = &why->items[why->item_count];

    if (why->item_count == ITEMS_MAX)
        return RF_END;
    *item = (struct item){.id = (int64_t)why->item_count, .seq = (int64_t)answer->seq,
                          .deleted = answer->deleted};
    snprintf(item->key, sizeof item->key, "%s", answer->key);
    item->kind = keep(why, rf_bytes_text(answer->kind));
    item->name = answer->name ? keep(why, rf_bytes_text(answer->name)) : NULL;
    why->item_count++;
    return RF_OK;
}

/* As find_items, of an index that answers no SQL. */
static enum rf_status ask_items(struct why *why, const char *word, const struct wanted *wanted,
                                const char *from, struct rf_error *err)
{
    const char *keys[sizeof wanted->refs / sizeof *wanted->refs + 1] = {NULL};
    const char *names[sizeof wanted->names / sizeof *wanted->names + 1] = {NULL};
    struct rf_items_question question = {.keys = keys, .names = names, .part_prefix = from,
                                         .limit = ITEMS_MAX};
    char text[RF_BLOBREF_SIZE];
    enum rf_status status;

    for (size_t i = 0; i < wanted->ref_count; i++) {
        rf_blobref_format(&wanted->refs[i], text);
        keys[question.key_count++] = keep(why, rf_bytes_text(text));
    }
    if (strchr(word, ';'))
        keys[question.key_count++] = word;
    for (size_t i = 0; i < wanted->name_count; i++)
        names[question.name_count++] = wanted->names[i];
    status = rf_query_items(why->index->url, &question, visit_item_answer, why, err);
    return status == RF_END ? RF_OK : status;
}

/* The items that word means: a key, a ref, a local file as it was put, its bytes, or a name. */
static enum rf_status find_items(struct why *why, const char *word, const struct wanted *wanted,
                                 struct rf_error *err)
{
    char text[1024], from[RF_BLOBREF_SIZE];
    uint8_t digest[RF_DIGEST_SIZE];
    struct rf_buf refs, names;
    enum rf_status status;
    size_t digits;

    /* The beginning of a part's ref: the store knows none of those. */
    if (!rf_prefix_parse(word, digest, &digits) || digits < 6)
        digits = 0;
    snprintf(from, sizeof from, "sha256-%.*s", (int)digits, word + strlen(word) - digits);
    if (why->no_sql)
        return ask_items(why, word, wanted, digits ? from : NULL, err);
    rf_buf_init(&refs, 4096);
    rf_buf_init(&names, 4096);
    for (size_t i = 0; i < wanted->ref_count; i++) {
        rf_blobref_format(&wanted->refs[i], text);
        rf_buf_printf(&refs, "%s'%s'", i ? "," : "", text);
    }
    if (strchr(word, ';') && rf_utf8_valid(rf_bytes_text(word)) == strlen(word))
        rf_buf_printf(&refs, "%s%s", refs.size ? "," : "", quoted(text, sizeof text, word));
    for (size_t i = 0; i < wanted->name_count; i++)
        rf_buf_printf(&names, "%s%s", i ? "," : "",
                      quoted(text, sizeof text, wanted->names[i]));
    rf_buf_put_text(&refs, "");
    rf_buf_put_text(&names, "");
    status = ask(why, visit_item, err,
                 "SELECT id, item, kind, name, seq, deleted FROM blobs WHERE item IN (%s) OR "
                 "(kind = 'part' AND ref IN (%s)) OR name IN (%s) OR (%d = 1 AND kind = 'part' AND "
                 "item >= '%s' AND item < '%sg') ORDER BY seq DESC, item",
                 rf_buf_text(&refs), rf_buf_text(&refs), rf_buf_text(&names), digits ? 1 : 0, from,
                 from);
    rf_buf_release(&refs);
    rf_buf_release(&names);
    return status == RF_END ? RF_OK : status;
}

/* No item is found: what does the store know of it? */
static int ask_store(struct why *why, const char *word, const struct wanted *wanted)
{
    uint8_t digest[RF_DIGEST_SIZE];
    struct rf_error err = {0};
    struct rf_stat stat;
    size_t digits;

    for (size_t i = 0; i < wanted->ref_count; i++) {
        rf_error_clear(&err);
        if (rf_store_stat(why->store, &wanted->refs[i], &stat, &err) == RF_OK &&
            (!stat.part || !wanted->is_file))
            return explain_absent(why, word, &stat);
        if (err.status != RF_OK && err.status != RF_NOT_FOUND)
            return rf_fail(why->cli, &err);
    }
    if (wanted->is_file)
        return rf_fail_with(why->cli, RF_EXIT_FAILED,
                            "the store has no file '%s' as it is now%s; 'refuge put' stores it",
                            word,
                            err.status == RF_OK ? ", only its content under another name, time or "
                                                  "mode" : "");
    if (wanted->ref_count)
        return rf_fail(why->cli, &err);
    if (rf_prefix_parse(word, digest, &digits) && digits >= 6)
        return rf_fail_argument(why->cli, &wanted->no_ref);
    return rf_fail_with(why->cli, RF_EXIT_FAILED,
                        "index '%s' knows no item called '%s'%s; 'refuge put' stores files",
                        why->index->name, word,
                        wanted->name_count ? "" : " (names that are not UTF-8 are not in it: ask "
                                                  "by the file itself or its blobref)");
}

/* Whether one of the items is the file as it is now, or its bytes. */
static bool is_current(const struct why *why, const struct wanted *wanted)
{
    char text[RF_BLOBREF_SIZE];

    for (size_t i = 0; i < wanted->ref_count; i++) {
        rf_blobref_format(&wanted->refs[i], text);
        for (size_t k = 0; k < why->item_count; k++) {
            if (strncmp(why->items[k].key, text, strlen(text)) == 0)
                return true;
        }
    }
    return false;
}

/* The mappers of the live lane, by the sink itself. */
static enum rf_status list_mappers(struct why *why, struct rf_error *err)
{
    struct rf_sink_options how = {0};
    struct rf_sink_lane *lanes = NULL;
    struct rf_sink *sink = NULL;
    size_t count = 0;
    enum rf_status status = rf_sink_open(&sink, why->index->url, &how, err);

    if (status == RF_OK)
        status = rf_sink_lanes(sink, &why->arena, &lanes, &count, err);
    for (size_t i = 0; status == RF_OK && count && i < lanes[0].mapper_count; i++) {
        const struct rf_sink_mapper *mapper = &lanes[0].mappers[i];
        struct lane_mapper *to = &why->mappers[why->mapper_count];
        if (mapper->edges_only || why->mapper_count == MAPPERS_MAX)
            continue;
        to->id = (int64_t)i;
        snprintf(to->name, sizeof to->name, "%s", mapper->decl->name);
        why->mapper_count++;
    }
    if (status == RF_OK && count)
        snprintf(why->position, sizeof why->position, "%s", lanes[0].position);
    rf_sink_close(sink);
    return status;
}

static int explain(struct why *why, const char *word)
{
    struct wanted wanted = {0};
    struct rf_error err = {0};
    enum rf_status status;

    find_wanted(why, word, &wanted);
    if (why->no_sql)
        status = list_mappers(why, &err);
    else
        status = ask(why, visit_mapper, &err,
                 "SELECT m.id, m.name, l.position FROM refuge_lane_mappers m JOIN refuge_lanes l "
                 "ON l.id = m.lane WHERE l.state = 'live' AND m.edges_only = 0 ORDER BY m.name");
    if (status == RF_OK || status == RF_END)
        status = find_items(why, word, &wanted, &err);
    rf_summary_int(why->cli, "items", (int64_t)why->item_count);
    if (status == RF_OK && why->item_count == 0)
        return ask_store(why, word, &wanted);
    if (status == RF_OK)
        status = explain_items(why, &err);
    if (status == RF_OK && wanted.is_file && !is_current(why, &wanted))
        rf_say(why->cli, "'%s' as it is now is not in the index: above is what was put under its "
               "name", word);
    if (rf_stop_asked())
        return RF_EXIT_STOPPED;
    return status ? rf_fail(why->cli, &err) : RF_EXIT_OK;
}

int cmd_index_why(struct rf_cli *cli)
{
    const char *name = cli->args.word_count > 1 ? cli->args.words[1] : NULL;
    struct rf_index_home index;
    struct why *why;
    int code = RF_EXIT_OK;

    if (!rf_index_home_init(&index, cli, name, true, &code)) {
        rf_index_home_release(&index);
        return code;
    }
    why = calloc(1, sizeof *why);
    if (!why)
        abort();
    why->cli = cli;
    why->index = &index;
    why->no_sql = rf_sink_url_is_elastic(index.url);
    rf_arena_init(&why->arena, (size_t)16 << 20);
    rf_arena_init(&why->lane_arena, (size_t)256 << 20);
    rf_buf_init(&why->table_list, 1 << 16);
    rf_buf_put_text(&why->table_list, "");
    why->store = rf_home_store(cli, RF_STORE_READ, &code);
    if (why->store)
        code = explain(why, cli->args.words[0]);
    rf_pool_close(why->pool);
    rf_sink_close(why->sink);
    rf_store_close(why->store);
    rf_buf_release(&why->table_list);
    rf_arena_release(&why->lane_arena);
    rf_arena_release(&why->arena);
    free(why);
    rf_index_home_release(&index);
    return code;
}
