/*
 * cmd_index_why.c - refuge index why: what became of a blob or file, mapper by mapper
 *
 * Answers from the index by SQL (the tables are drawn in sinks/sqlite_schema.c) and, for what the
 * index has never seen, from the store: not there, not yet reached, or not an item at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/index_home.h"
#include "sinks/query.h"

#define ITEMS_MAX 64    /* items of one name that are told of */
#define MAPPERS_MAX 256

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
    char position[RF_POSITION_SIZE];
    /* of the (item, mapper) at hand */
    const struct item *item;
    const struct lane_mapper *mapper;
    char *state, *reason, *tables;
    uint64_t rows, parts;
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
    } else if (why->rows || why->parts) {
        rf_out_printf(cli, "mapped: %s%s%s%s", RF_COUNT(why->rows, "row"), tables[0] ? " (" : "",
                      tables, tables[0] ? ")" : "");
        rf_out_printf(cli, why->parts ? ", %s\n" : "\n", RF_COUNT(why->parts, "part"));
    } else {
        rf_out_printf(cli, "no match, or it made no rows\n");
    }
    rf_out_begin(&cli->out, "mapper");
    rf_out_text(&cli->out, "item", why->item->key);
    rf_out_text(&cli->out, "mapper", why->mapper->name);
    rf_out_text(&cli->out, "state", why->state ? why->state : why->rows || why->parts ? "mapped"
                                                                                       : "none");
    rf_out_int(&cli->out, "rows", (int64_t)why->rows);
    rf_out_int(&cli->out, "parts", (int64_t)why->parts);
    rf_out_text(&cli->out, "reason", why->reason);
    rf_out_end(&cli->out);
}

static enum rf_status explain_mapper(struct why *why, struct rf_error *err)
{
    long long item = why->item->id, mapper = why->mapper->id;
    enum rf_status status;

    why->state = why->reason = NULL;
    why->rows = why->parts = 0;
    rf_buf_clear(&why->table_list);
    status = ask(why, visit_letter, err,
                 "SELECT 'set aside (' || class || ')', reason FROM refuge_dead_letters WHERE "
                 "blob = %lld AND mapper = %lld UNION ALL SELECT 'parked (' || kind || ')', "
                 "coalesce(reason, '') || CASE kind WHEN 'need' THEN (SELECT ' waits for ' || "
                 "group_concat(ref, ' ') FROM refuge_needs n WHERE n.mapper = p.mapper AND n.blob "
                 "= p.blob AND NOT present) ELSE '' END FROM refuge_parks p WHERE blob = %lld AND "
                 "mapper = %lld", item, mapper, item, mapper);
    if (status == RF_OK)
        status = ask(why, visit_table, err, "SELECT name FROM refuge_tables WHERE mapper = %lld",
                     mapper);
    if (status == RF_OK)
        status = ask(why, visit_parts, err, "SELECT count(*) FROM refuge_parts WHERE mapper = %lld "
                     "AND parent = %lld", mapper, item);
    if (status == RF_OK)
        print_state(why);
    return status;
}

/* ---- one item ---- */

static enum rf_status visit_parent(void *user, uint64_t index, size_t count,
                                   const char *const *names, const struct rf_cell *cells)
{
    struct why *why = user;
    struct rf_cli *cli = why->cli;

    (void)index;
    (void)count;
    (void)names;
    rf_out_printf(cli, "  is a part of ");
    rf_out_word(cli, cells[1].type == RF_CELL_NULL ? cells[0].text : cells[1].text);
    rf_out_printf(cli, ", cut out by mapper %.*s\n", (int)cells[2].text.size,
                  (const char *)cells[2].text.data);
    rf_out_begin(&cli->out, "edge");
    rf_out_text(&cli->out, "item", why->item->key);
    rf_out_bytes(&cli->out, "parent", cells[0].text);
    rf_out_bytes(&cli->out, "mapper", cells[2].text);
    rf_out_end(&cli->out);
    return RF_OK;
}

static enum rf_status explain_item(struct why *why, struct rf_error *err)
{
    struct rf_cli *cli = why->cli;
    const struct item *item = why->item;
    char key[2 * RF_ITEM_KEY_SIZE];
    enum rf_status status;

    rf_out_word(cli, rf_bytes_text(item->key));
    if (item->name) {
        rf_out_printf(cli, "  ");
        rf_out_word(cli, rf_bytes_text(item->name));
    }
    rf_out_printf(cli, "\n");
    rf_out_begin(&cli->out, "item");
    rf_out_text(&cli->out, "item", item->key);
    rf_out_text(&cli->out, "kind", item->kind);
    rf_out_text(&cli->out, "name", item->name);
    rf_out_int(&cli->out, "seq", item->seq);
    rf_out_bool(&cli->out, "deleted", item->deleted);
    rf_out_end(&cli->out);
    if (item->deleted) {
        rf_out_printf(cli, "  deleted by change %lld; its rows are gone\n", (long long)item->seq);
        return RF_OK;
    }
    status = ask(why, visit_parent, err, "SELECT parent, (SELECT name FROM blobs WHERE item = "
                 "parent), mapper FROM refuge_edges WHERE part = %s LIMIT 20",
                 quoted(key, sizeof key, item->key));
    for (size_t i = 0; i < why->mapper_count && status == RF_OK; i++) {
        why->mapper = &why->mappers[i];
        status = explain_mapper(why, err);
    }
    return status;
}

/* ---- what the index has never seen ---- */

static int explain_absent(struct why *why, struct rf_store *store, const char *word,
                          const struct rf_blobref *ref)
{
    struct rf_cli *cli = why->cli;
    struct rf_cursor cursor = {0};
    struct rf_error err = {0};
    struct rf_stat stat;
    enum rf_status status;

    if (!ref)
        return rf_fail_with(cli, RF_EXIT_FAILED,
                            "index '%s' knows no item called '%s'; 'refuge put' "
                            "stores files",
                            why->index->name, word);
    status = rf_store_stat(store, ref, &stat, &err);
    if (status)
        return rf_fail(cli, &err);
    if (why->position[0] && rf_cursor_parse(&cursor, why->position, NULL))
        cursor.seq = 0;
    rf_summary_text(cli, "state", stat.seq > cursor.seq ? "not_yet" : stat.part ? "part" : "none");
    if (stat.part)
        rf_out_printf(cli, "%s is content of a file, not an item of its own; ask for the file\n",
                      word);
    else if (stat.seq > cursor.seq)
        rf_out_printf(cli,
                      "%s is not indexed yet: it is change %llu, index '%s' is at %llu; 'refuge "
                      "index run %s' goes on\n",
                      word, (unsigned long long)stat.seq, why->index->name,
                      (unsigned long long)cursor.seq, why->index->name);
    else
        rf_out_printf(cli, "%s was passed by index '%s': no mapper takes such blobs\n", word,
                      why->index->name);
    return RF_EXIT_OK;
}

/* ---- finding ---- */

/* The ref of a local file's bytes. */
static bool hash_file(const char *path, struct rf_blobref *out)
{
    struct rf_hasher *hasher;
    uint8_t block[65536];
    struct stat st;
    ssize_t got = -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return false;
    hasher = rf_hasher_new();
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        while ((got = read(fd, block, sizeof block)) > 0 && !rf_stop_asked())
            rf_hasher_update(hasher, block, (size_t)got);
    }
    rf_hasher_finish(hasher, out);
    rf_hasher_free(hasher);
    close(fd);
    return got == 0;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash && slash[1] ? slash + 1 : path;
}

/* The items that word means: a key, a ref, a local file's bytes or name, or a name. */
static enum rf_status find_items(struct why *why, const char *word, const struct rf_blobref *ref,
                                 struct rf_error *err)
{
    char text[RF_BLOBREF_SIZE] = "", name[1024], key[1024];

    if (ref)
        rf_blobref_format(ref, text);
    return ask(why, visit_item, err,
               "SELECT id, item, kind, name, seq, deleted FROM blobs WHERE item IN (%s, '%s') OR "
               "(kind = 'part' AND ref = '%s') OR name = %s ORDER BY seq DESC, item",
               quoted(key, sizeof key, word), text, text,
               quoted(name, sizeof name, base_name(word)));
}

static int explain(struct why *why, struct rf_store *store, const char *word)
{
    struct rf_error err = {0}, no_ref = {0};
    struct rf_blobref ref;
    bool known = hash_file(word, &ref) || rf_ref_resolve(&ref, store, word, &no_ref) == RF_OK;
    enum rf_status status;

    status = ask(why, visit_mapper, &err,
                 "SELECT m.id, m.name, l.position FROM refuge_lane_mappers m JOIN refuge_lanes l "
                 "ON l.id = m.lane WHERE l.state = 'live' AND NOT m.edges_only ORDER BY m.name");
    if (status == RF_OK || status == RF_END)
        status = find_items(why, word, known ? &ref : NULL, &err);
    if (status != RF_OK && status != RF_END)
        return rf_fail(why->cli, &err);
    rf_summary_int(why->cli, "items", (int64_t)why->item_count);
    if (why->item_count == 0)
        return explain_absent(why, store, word, known ? &ref : NULL);
    for (size_t i = 0; i < why->item_count; i++) {
        why->item = &why->items[i];
        if (explain_item(why, &err))
            return rf_fail(why->cli, &err);
    }
    return RF_EXIT_OK;
}

int cmd_index_why(struct rf_cli *cli)
{
    const char *name = cli->args.word_count > 1 ? cli->args.words[1] : NULL;
    struct rf_index_home index;
    struct rf_store *store;
    struct why *why;
    int code = RF_EXIT_OK;

    if (!rf_index_home_init(&index, cli, name, true, &code)) {
        rf_index_home_release(&index);
        return code;
    }
    store = rf_home_store(cli, RF_STORE_READ, &code);
    why = calloc(1, sizeof *why);
    if (!why)
        abort();
    why->cli = cli;
    why->index = &index;
    rf_arena_init(&why->arena, (size_t)16 << 20);
    rf_buf_init(&why->table_list, 1 << 16);
    rf_buf_put_text(&why->table_list, "");
    if (store)
        code = explain(why, store, cli->args.words[0]);
    rf_store_close(store);
    rf_buf_release(&why->table_list);
    rf_arena_release(&why->arena);
    free(why);
    rf_index_home_release(&index);
    return code;
}
