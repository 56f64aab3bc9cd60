/*
 * cmd_mapper.c - refuge mapper list, check, new and run
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/index_home.h"
#include "cmd/mapper_item.h"
#include "cmd/print_table.h"
#include "mappers/pool_bundled.h"

static struct rf_pool *open_pool(struct rf_cli *cli, int *code)
{
    struct rf_pool_options options = {.program = rf_mapper_program(), .workers = 1};
    struct rf_error err = {0};
    struct rf_pool *pool = NULL;

    if (rf_pool_open(&pool, &options, &err) == RF_OK)
        return pool;
    *code = rf_fail(cli, &err);
    return NULL;
}

/* ---- list and check ---- */

static void print_mapper(struct rf_cli *cli, const char *path, const struct rf_mapper *mapper,
                         bool details)
{
    const struct rf_decl *decl = rf_mapper_decl(mapper);
    struct rf_out *out = &cli->out;

    rf_out_printf(cli, details ? "ok    " : "");
    rf_out_printf(cli, "%-16s %-8s %s%s%s  %.12s  ", decl->name, decl->version,
                  decl->on & RF_ON_BLOB ? "blob" : "",
                  decl->on == (RF_ON_BLOB | RF_ON_FILE) ? "," : "",
                  decl->on & RF_ON_FILE ? "file" : "", rf_mapper_identity(mapper));
    rf_out_word(cli, rf_bytes_text(path));
    rf_out_printf(cli, "\n");
    for (size_t i = 0; details && i < decl->table_count; i++) {
        const struct rf_table *table = &decl->tables[i];

        rf_out_printf(cli, "      table %s:", table->name);
        for (size_t j = 0; j < table->column_count; j++)
            rf_out_printf(cli, "%s %s %s%s%s", j ? "," : "", table->columns[j].name,
                          rf_type_name(table->columns[j].type),
                          table->columns[j].search ? " search" : "",
                          table->columns[j].facet ? " facet" : "");
        rf_out_printf(cli, "\n");
    }
    rf_out_begin(out, "mapper");
    rf_out_text(out, "mapper", decl->name);
    rf_out_text(out, "version", decl->version);
    rf_out_text(out, "identity", rf_mapper_identity(mapper));
    rf_out_text(out, "path", path);
    rf_out_bool(out, "ok", true);
    rf_out_raw(out, "declaration", decl->json);
    rf_out_end(out);
}

static void print_broken(struct rf_cli *cli, const char *path, const struct rf_error *err)
{
    rf_out_printf(cli, "fail  ");
    rf_out_word(cli, rf_bytes_text(path));
    rf_out_printf(cli, "\n      ");
    rf_out_word(cli, rf_bytes_text(err->message));
    rf_out_printf(cli, "\n");
    rf_out_begin(&cli->out, "mapper");
    rf_out_text(&cli->out, "path", path);
    rf_out_bool(&cli->out, "ok", false);
    rf_out_text(&cli->out, "message", err->message);
    rf_out_end(&cli->out);
}

/* Mappers in use beside which those of the paths would stand: a file of one's name replaces it. */
static void take_others(struct rf_cli *cli, struct rf_pool *pool, struct rf_index_room *room,
                        char **paths, size_t count)
{
    struct rf_index_room own = {.count = 0};
    struct rf_mapper *mapper;
    size_t used_count;
    char **used = rf_mapper_paths(cli, &used_count);

    for (size_t i = 0; i < count && own.count < RF_LANE_MAPPERS_MAX; i++) {
        if (rf_pool_load(pool, paths[i], &mapper, NULL) == RF_OK)
            own.taken[own.count++] = rf_mapper_decl(mapper);
    }
    for (size_t i = 0; i < used_count; i++) {
        bool replaced = rf_pool_load(pool, used[i], &mapper, NULL) != RF_OK;

        for (size_t k = 0; k < own.count && !replaced; k++)
            replaced = strcmp(own.taken[k]->name, rf_mapper_decl(mapper)->name) == 0;
        if (!replaced)
            (void)!rf_index_room_take(room, rf_mapper_decl(mapper), NULL);
    }
    rf_names_free(used, used_count);
}

/* Load each; says which do not, and which cannot stand beside the others. */
static int load_all(struct rf_cli *cli, char **paths, size_t count, bool details)
{
    struct rf_index_room room = {.count = 0};
    struct rf_pool *pool;
    size_t broken = 0;
    int code = RF_EXIT_OK;

    pool = open_pool(cli, &code);
    if (!pool)
        return code;
    take_others(cli, pool, &room, paths, count);
    for (size_t i = 0; i < count && !rf_stop_asked(); i++) {
        struct rf_mapper *mapper;
        struct rf_error err = {0};

        if (rf_pool_load(pool, paths[i], &mapper, &err) ||
            rf_index_room_take(&room, rf_mapper_decl(mapper), &err)) {
            print_broken(cli, paths[i], &err);
            broken++;
        } else {
            print_mapper(cli, paths[i], mapper, details);
        }
    }
    rf_pool_close(pool);
    rf_summary_int(cli, "mappers", (int64_t)count);
    rf_summary_int(cli, "broken", (int64_t)broken);
    if (rf_stop_asked())
        return RF_EXIT_STOPPED;
    if (broken)
        rf_say(cli, "%zu of %s cannot be used", broken, RF_COUNT(count, "mapper"));
    return broken ? RF_EXIT_FAILED : RF_EXIT_OK;
}

int cmd_mapper_list(struct rf_cli *cli)
{
    size_t count;
    char **paths = rf_mapper_paths(cli, &count);
    int code = load_all(cli, paths, count, false);

    if (count == 0)
        rf_say(cli, "no mapper is in use; 'refuge mapper new NAME' begins one");
    rf_names_free(paths, count);
    return code;
}

int cmd_mapper_check(struct rf_cli *cli)
{
    size_t count;
    char **paths = rf_mapper_arguments(cli, &count);
    int code = load_all(cli, paths, count, true);

    rf_names_free(paths, count);
    return code;
}

/* ---- new ---- */

#define TEMPLATE RF_MAPPER_TEMPLATE
#define NEW_NAME_MAX (RF_NAME_MAX - 8) /* so that its tables' names have room for more */

static bool valid_name(const char *name)
{
    size_t size = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");

    return size > 0 && size <= NEW_NAME_MAX && name[size] == '\0' && name[0] >= 'a' &&
           name[0] <= 'z';
}

/* The template's text with the new name wherever its own stands. */
static void fill_template(struct rf_buf *out, const char *name)
{
    const struct rf_bundled *found = rf_bundled_mappers;
    struct rf_bytes text;

    while (strcmp(found->name, TEMPLATE) != 0)
        found++;
    text = rf_bytes(found->text, found->size);
    while (text.size) {
        const uint8_t *at = memmem(text.data, text.size, TEMPLATE, strlen(TEMPLATE));
        size_t before = at ? (size_t)(at - text.data) : text.size;

        rf_buf_put(out, text.data, before);
        if (at)
            rf_buf_put_text(out, name);
        before += at ? strlen(TEMPLATE) : 0;
        text = rf_bytes(text.data + before, text.size - before);
    }
}

static bool write_mapper(const char *path, const char *name, bool replace)
{
    struct rf_buf text;
    struct stat st;
    bool ok;

    if (!replace && lstat(path, &st) == 0) {
        errno = EEXIST;
        return false;
    }
    rf_buf_init(&text, 1 << 20);
    fill_template(&text, name);
    ok = rf_file_replace(path, rf_buf_bytes(&text));
    rf_buf_release(&text);
    return ok;
}

/* One name is one mapper: a second one beside a bundled mapper in use would not load. */
static bool is_bundled(struct rf_cli *cli, const char *name)
{
    size_t count;
    char **paths = rf_mapper_paths(cli, &count);
    bool found = false;

    for (size_t i = 0; !found && i < count; i++)
        found = strncmp(paths[i], "bundled:", 8) == 0 && strcmp(paths[i] + 8, name) == 0;
    rf_names_free(paths, count);
    return found;
}

int cmd_mapper_new(struct rf_cli *cli)
{
    const char *name = cli->args.words[0];
    char *file, *path;
    int code = RF_EXIT_OK;

    if (!valid_name(name))
        return rf_fail_with(cli, RF_EXIT_USAGE,
                            "'%s' cannot be the name of a mapper: a letter, then "
                            "letters, digits or '_', all lower case, at most %d",
                            name, NEW_NAME_MAX);
    if (is_bundled(cli, name))
        return rf_fail_with(cli, RF_EXIT_FAILED,
                            "cannot make mapper '%s': a bundled mapper has that name; choose "
                            "another, or put '%s' into mappers.disabled of refuge.conf",
                            name, name);
    file = rf_text_join(name, ".lua", "");
    path = rf_path_join(cli->home.mapper_dir, file);
    if (rf_args_flag(&cli->args, "dry-run"))
        rf_say(cli, "would write '%s'", path);
    else if (!write_mapper(path, name, rf_args_flag(&cli->args, "force")))
        code = rf_fail_with(cli, rf_exit_of_errno(errno),
                            "cannot write '%s': %s%s", path, strerror(errno),
                            errno == EEXIST ? "; --force replaces it" : "");
    if (code == RF_EXIT_OK) {
        rf_out_printf(cli, "%s\n", path);
        rf_summary_text(cli, "path", path);
        rf_say(cli, "next: edit it, then 'refuge mapper test %s'", name);
    }
    free(path);
    free(file);
    return code;
}

/* ---- run ---- */

struct run {
    struct rf_cli *cli;
    struct rf_store *store;
    struct rf_pool *pool;
    const char *mapper_word, *item_word;
    uint64_t part; /* --part: which part of the item; 0: the item itself */
    uint64_t rows, parts;
};

/* " --part 2", as far as it was given. */
static const char *part_option(const struct run *run, char out[32])
{
    out[0] = '\0';
    if (run->part)
        snprintf(out, 32, " --part %llu", (unsigned long long)run->part);
    return out;
}

static void print_row_json(struct run *run, const struct rf_table *table,
                           const struct rf_record *record, uint64_t n)
{
    struct rf_out *out = &run->cli->out;
    struct rf_buf json;

    rf_buf_init(&json, SIZE_MAX / 4);
    rf_row_json(&json, table, record);
    rf_out_begin(out, "row");
    rf_out_text(out, "table", table->name);
    rf_out_int(out, "n", (int64_t)n);
    rf_out_raw(out, "row", rf_buf_bytes(&json));
    rf_out_end(out);
    rf_buf_release(&json);
}

/* One row as cells; texts are copied so that all stand at the same time. */
static void print_row(struct rf_print_table *table, const struct rf_record *record)
{
    struct rf_cell cells[RF_COLUMNS_MAX] = {{0}};
    struct rf_arena arena;
    struct rf_buf buf;

    rf_arena_init(&arena, (size_t)256 << 20);
    rf_buf_init(&buf, SIZE_MAX / 4);
    for (size_t i = 0; i < record->column_count && i < RF_COLUMNS_MAX; i++) {
        const struct rf_value *value = &record->values[i];
        struct rf_bytes text;
        char *copy;

        if (value->type == RF_TYPE_INT) {
            cells[i] = (struct rf_cell){.type = RF_CELL_INT, .integer = value->integer};
        } else if (value->type == RF_TYPE_FLOAT) {
            cells[i] = (struct rf_cell){.type = RF_CELL_FLOAT, .real = value->real};
        } else if (value->type) {
            text = rf_value_text(value, &buf);
            copy = rf_arena_copy(&arena, text.data ? (const void *)text.data : "", text.size);
            cells[i] = (struct rf_cell){.type = RF_CELL_TEXT,
                                        .text = rf_bytes(copy, copy ? text.size : 0)};
        }
    }
    rf_print_table_row(table, cells);
    rf_buf_release(&buf);
    rf_arena_release(&arena);
}

/* The rows of one table of an output that was checked already. */
static uint64_t print_table_rows(struct run *run, const struct rf_decl *decl, size_t number,
                                 struct rf_bytes output, uint64_t content_size)
{
    const struct rf_table *table = &decl->tables[number];
    const char *names[RF_COLUMNS_MAX];
    struct rf_print_table printed;
    struct rf_output_reader reader;
    struct rf_record record;
    uint64_t rows = 0;

    rf_print_table_init(&printed, run->cli);
    rf_output_init(&reader, output, decl, content_size);
    while (rf_output_next(&reader, &record, NULL) == RF_OK) {
        if (record.kind != RF_RECORD_ROW || record.table != number)
            continue;
        if (rows++ == 0 && !run->cli->out.json) {
            for (size_t i = 0; i < table->column_count; i++)
                names[i] = table->columns[i].name;
            rf_out_printf(run->cli, "table %s\n", table->name);
            rf_print_table_header(&printed, table->column_count, names);
        }
        if (run->cli->out.json)
            print_row_json(run, table, &record, rows - 1);
        else
            print_row(&printed, &record);
    }
    rf_output_release(&reader);
    rf_print_table_finish(&printed);
    if (rows)
        rf_out_printf(run->cli, "\n");
    return rows;
}

/* Parts, needs and cuts. */
static void print_others(struct run *run, const struct rf_decl *decl, struct rf_bytes output,
                         uint64_t content_size)
{
    static const char *const cuts[RF_CUT_COUNT] = {
        [RF_CUT_UTF8] = "invalid UTF-8 replaced", [RF_CUT_NUL] = "NULs removed",
        [RF_CUT_LONG] = "cut to its maximum", [RF_CUT_YEAR] = "year outside 1 to 9999 became null",
        [RF_CUT_FLOAT] = "not a finite number, became null"};
    struct rf_cli *cli = run->cli;
    struct rf_output_reader reader;
    struct rf_record record;
    char ref[RF_BLOBREF_SIZE];

    rf_output_init(&reader, output, decl, content_size);
    while (rf_output_next(&reader, &record, NULL) == RF_OK) {
        if (record.kind == RF_RECORD_PART) {
            run->parts++;
            rf_out_printf(cli, "part %.*s, %s%s ", (int)record.media.size,
                          (const char *)record.media.data,
                          RF_COUNT(record.inlined ? record.bytes.size : record.size, "byte"),
                          record.inlined ? ", made by the mapper" : "");
            rf_out_word(cli, record.name.data ? record.name : rf_bytes("", 0));
            rf_out_printf(cli, "\n");
            rf_out_begin(&cli->out, "part");
            rf_out_bytes(&cli->out, "media", record.media);
            rf_out_int(&cli->out, "size", (int64_t)(record.inlined ? record.bytes.size
                                                                   : record.size));
            rf_out_end(&cli->out);
        } else if (record.kind == RF_RECORD_NEED) {
            rf_blobref_format(&record.ref, ref);
            rf_out_printf(cli, "needs %s, which is %sthere\n", ref, record.present ? "" : "not ");
            rf_out_begin(&cli->out, "need");
            rf_out_text(&cli->out, "ref", ref);
            rf_out_bool(&cli->out, "present", record.present);
            rf_out_end(&cli->out);
        } else if (record.kind == RF_RECORD_CUT) {
            rf_say(cli, "note: %s.%s of row %u: %s", decl->tables[record.table].name,
                   decl->tables[record.table].columns[record.column].name, record.row,
                   cuts[record.cut]);
        }
    }
    rf_output_release(&reader);
}

static void print_trace(struct rf_cli *cli, const char *trace)
{
    while (trace && *trace) {
        size_t size = strcspn(trace, "\n");

        rf_say(cli, "trace: %.*s", (int)size, trace);
        rf_out_begin(&cli->out, "trace");
        rf_out_bytes(&cli->out, "line", rf_bytes(trace, size));
        rf_out_end(&cli->out);
        trace += size + (trace[size] == '\n');
    }
}

/* file:line, blobref, name, traceback, and how to run it again. */
static int print_failure(struct run *run, const struct rf_call *call, const struct rf_item *item)
{
    struct rf_cli *cli = run->cli;
    char ref[RF_BLOBREF_SIZE], part[32];
    int code;

    rf_blobref_format(&item->ref, ref);
    code = rf_fail_with(cli, RF_EXIT_SET_ASIDE, "mapper '%s' failed on %s%s%s: %s",
                        rf_mapper_decl(call->mapper)->name, ref, item->name ? " " : "",
                        item->name ? item->name : "", call->message ? call->message : "no reason");
    for (const char *line = call->traceback; line && *line;) {
        size_t size = strcspn(line, "\n");

        rf_say(cli, "  %.*s", (int)size, line);
        line += size + (line[size] == '\n');
    }
    rf_say(cli, "  again: refuge mapper run '%s' '%s'%s --trace", run->mapper_word, run->item_word,
           part_option(run, part));
    return code;
}

static int print_call(struct run *run, const struct rf_call *call, const struct rf_item *item)
{
    const struct rf_decl *decl = rf_mapper_decl(call->mapper);
    struct rf_cli *cli = run->cli;
    int code = RF_EXIT_OK;

    print_trace(cli, call->trace);
    rf_summary_int(cli, "cpu_us", call->cpu_us);
    switch (call->outcome) {
    case RF_CALL_ROWS:
        for (size_t i = 0; i < decl->table_count; i++)
            run->rows += print_table_rows(run, decl, i, call->output, item->size);
        print_others(run, decl, call->output, item->size);
        rf_say(cli, "%s, %s in %.1f ms CPU", RF_COUNT(run->rows, "row"),
               RF_COUNT(run->parts, "part"), (double)call->cpu_us / 1000);
        break;
    case RF_CALL_NONE:
        rf_say(cli, "mapper '%s' does not want this item: its 'on' or 'match' says so", decl->name);
        break;
    case RF_CALL_MISSING:
        print_others(run, decl, call->output, item->size);
        rf_say(cli, "an index would park this item until the blobs it needs are there");
        code = RF_EXIT_SET_ASIDE;
        break;
    default:
        code = print_failure(run, call, item);
        break;
    }
    rf_summary_int(cli, "rows", (int64_t)run->rows);
    rf_summary_int(cli, "parts", (int64_t)run->parts);
    return code;
}

/* ---- which item ---- */

/* A part, as an index knows it; an exit code, told. */
static int open_part(struct run *run, struct rf_mapper_item *item)
{
    struct rf_index_home index;
    struct rf_mapper_source from = {run->cli, run->store, run->pool, &index};
    struct rf_error err = {0};
    int code = RF_EXIT_OK;

    if (rf_index_home_init(&index, run->cli, rf_args_text(&run->cli->args, "index"), true, &code) &&
        rf_mapper_item_key(item, &from, run->item_word, &err))
        code = rf_fail(run->cli, &err);
    rf_index_home_release(&index);
    return code;
}

/* The item that the second argument means; an exit code, told. */
static int open_item(struct run *run, struct rf_mapper_item *item)
{
    struct rf_error err = {0};
    struct rf_blobref ref;
    struct stat st;
    enum rf_status status;

    if (strchr(run->item_word, ';'))
        return open_part(run, item);
    if (stat(run->item_word, &st) == 0) {
        status = rf_mapper_item_path(item, run->item_word, NULL, &err);
    } else {
        status = rf_ref_resolve(&ref, run->store, run->item_word, &err);
        if (status == RF_INVALID && strncmp(run->item_word, "sha256-", 7) != 0)
            return rf_fail_with(run->cli, /* with a dot or slash it was meant as a file */
                                strpbrk(run->item_word, "./") ? RF_EXIT_FAILED : RF_EXIT_USAGE,
                                "there is no file '%s', and it is no blobref", run->item_word);
        if (status != RF_OK)
            return rf_fail_argument(run->cli, &err);
        status = rf_mapper_item_ref(item, run->store, &ref, &err);
    }
    return status ? rf_fail(run->cli, &err) : RF_EXIT_OK;
}

/* An item that mappers cut up is mapped part by part: say so where it may be what was meant. */
static void hint_at_parts(struct run *run, struct rf_mapper_item *item,
                          const struct rf_mapper *mapper)
{
    struct rf_mapper_source from = {.cli = run->cli, .store = run->store, .pool = run->pool};
    struct rf_parts_found found;

    if (run->part || (run->rows && !run->parts) ||
        rf_mapper_item_cut(&from, item, mapper, 0, &found, NULL, NULL) || found.count == 0)
        return;
    rf_say(run->cli, "mapper '%s' cuts it into %s, each an item of its own", found.mapper,
           RF_COUNT(found.count, "part"));
    rf_say(run->cli, "  try one: refuge mapper run '%s' '%s' --part 1", run->mapper_word,
           run->item_word);
}

/* --part: the part takes the place of its item. */
static int take_part(struct run *run, struct rf_mapper_item *item, struct rf_mapper_item *part,
                     const struct rf_mapper *mapper)
{
    struct rf_mapper_source from = {.cli = run->cli, .store = run->store, .pool = run->pool};
    struct rf_parts_found found;
    struct rf_error err = {0};

    if (rf_mapper_item_cut(&from, item, mapper, run->part, &found, part, &err))
        return rf_fail(run->cli, &err);
    if (found.count < run->part)
        return rf_fail_with(run->cli, RF_EXIT_FAILED, "there is no part %llu of '%s': %s",
                            (unsigned long long)run->part, run->item_word,
                            found.count ? RF_COUNT(found.count, "part")
                                        : "no mapper in use cuts it up");
    return RF_EXIT_OK;
}

static int map_item(struct run *run, struct rf_pool *pool, const char *path)
{
    struct rf_result *result = NULL;
    struct rf_mapper_item item, part, *mapped = run->part ? &part : &item;
    struct rf_mapper *mapper;
    struct rf_error err = {0};
    int code;

    if (rf_pool_load(pool, path, &mapper, &err))
        return rf_fail(run->cli, &err);
    rf_mapper_item_init(&item);
    rf_mapper_item_init(&part);
    code = open_item(run, &item);
    if (code == RF_EXIT_OK && run->part)
        code = take_part(run, &item, &part, mapper);
    mapped->item.trace = rf_args_flag(&run->cli->args, "trace");
    if (code == RF_EXIT_OK && rf_mapper_item_map(pool, mapped, run->store, mapper, &result, &err))
        code = rf_fail(run->cli, &err);
    else if (code == RF_EXIT_OK)
        code = print_call(run, &result->calls[0], &mapped->item);
    mapped->item.trace = false;
    if (code == RF_EXIT_OK)
        hint_at_parts(run, &item, mapper);
    rf_result_free(result);
    rf_mapper_item_release(&part);
    rf_mapper_item_release(&item);
    return code;
}

int cmd_mapper_run(struct rf_cli *cli)
{
    struct run run = {.cli = cli, .mapper_word = cli->args.words[0],
                      .item_word = cli->args.words[1],
                      .part = rf_args_number(&cli->args, "part")};
    struct rf_pool *pool = NULL;
    int code = RF_EXIT_OK;
    char *path;

    if (rf_args_text(&cli->args, "part") && run.part == 0)
        return rf_fail_with(cli, RF_EXIT_USAGE, "option '--part' counts from 1");
    run.store = rf_home_store(cli, RF_STORE_READ, &code);
    if (run.store)
        pool = open_pool(cli, &code);
    run.pool = pool;
    if (pool) {
        path = rf_mapper_find(cli, run.mapper_word);
        code = map_item(&run, pool, path);
        free(path);
    }
    rf_pool_close(pool);
    rf_store_close(run.store);
    return code;
}
