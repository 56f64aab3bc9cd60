/*
 * cmd_delete.c - refuge delete: tombstones for blobs, and for file contents nothing else holds
 *
 * What may be content of a file (a blob that is no file itself, and with --content the parts of the
 * files) goes only when no other file holds it: every file blob of the store is read once. What is
 * to go is kept as one sorted list, so memory follows what is deleted, not what is stored.
 */
#include <stdlib.h>
#include <string.h>

#include "backup/schema.h"
#include "cmd/cli.h"
#include "core/control.h"

struct candidate {
    struct rf_blobref ref, holder; /* holder.algo 0: no other file has it */
};

struct candidates {
    struct candidate *list;
    size_t count, capacity;
};

struct deletion {
    struct rf_cli *cli;
    struct rf_store *store;
    bool dry_run;
    struct rf_blobref *refs; /* asked for, sorted */
    size_t ref_count;
    struct candidates parts; /* of the files asked for, and what is asked for and no file */
    const struct rf_blobref *other; /* the file being looked at */
    uint64_t deleted, absent, errors;
    struct rf_error err;     /* while scanning */
};

static int compare_refs(const void *a, const void *b)
{
    return rf_blobref_compare(a, b);
}

static void add_candidate(struct candidates *parts, const struct rf_blobref *ref)
{
    if (parts->count == parts->capacity) {
        parts->capacity = parts->capacity ? 2 * parts->capacity : 64;
        parts->list = realloc(parts->list, parts->capacity * sizeof *parts->list);
        if (!parts->list)
            abort();
    }
    parts->list[parts->count++] = (struct candidate){.ref = *ref};
}

/* Call visit for each part of ref when it is a file blob; *is_file says whether it is one. */
static enum rf_status each_part(struct deletion *del, const struct rf_blobref *ref,
                                void (*visit)(struct deletion *del, const struct rf_blobref *part),
                                bool *is_file, struct rf_error *err)
{
    enum rf_schema_kind kind = RF_SCHEMA_NONE;
    struct rf_file file = {0};
    struct rf_arena arena;
    struct rf_buf buf;
    enum rf_status status;

    rf_arena_init(&arena, (size_t)64 << 20);
    rf_buf_init(&buf, RF_BLOB_INLINE_MAX);
    status = rf_store_get(del->store, ref, &buf, err);
    if (status == RF_OK && rf_schema_is(rf_buf_bytes(&buf)) &&
        rf_schema_parse(&kind, &file, &arena, rf_buf_bytes(&buf), NULL) == RF_OK &&
        kind == RF_SCHEMA_FILE) {
        *is_file = true;
        for (size_t i = 0; i < file.part_count; i++)
            visit(del, &file.parts[i].ref);
    }
    rf_buf_release(&buf);
    rf_arena_release(&arena);
    return status;
}

static void note_part(struct deletion *del, const struct rf_blobref *part)
{
    add_candidate(&del->parts, part);
}

static void ignore_part(struct deletion *del, const struct rf_blobref *part)
{
    (void)del;
    (void)part;
}

static struct candidate *find_candidate(const struct deletion *del, const struct rf_blobref *ref)
{
    return del->parts.count ? bsearch(ref, del->parts.list, del->parts.count,
                                      sizeof *del->parts.list, compare_refs)
                            : NULL;
}

static void note_shared(struct deletion *del, const struct rf_blobref *part)
{
    struct candidate *found = find_candidate(del, part);

    if (found)
        found->holder = *del->other;
}

static enum rf_status visit_other(void *user, const struct rf_stat *stat)
{
    struct deletion *del = user;
    enum rf_status status;
    bool is_file;

    if (rf_stop_asked())
        return RF_CANCELLED;
    if (stat->part || stat->size > RF_BLOB_INLINE_MAX ||
        bsearch(&stat->ref, del->refs, del->ref_count, sizeof stat->ref, compare_refs))
        return RF_OK;
    del->other = &stat->ref;
    status = each_part(del, &stat->ref, note_shared, &is_file, &del->err);
    if (status == RF_NOT_FOUND) { /* deleted meanwhile */
        rf_error_clear(&del->err);
        status = RF_OK;
    }
    return status; /* a file that cannot be read may share anything: nothing is deleted then */
}

/* What may be content, and who holds it. */
static enum rf_status collect_content(struct deletion *del, struct rf_error *err)
{
    bool content = rf_args_flag(&del->cli->args, "content");
    enum rf_status status = RF_OK;
    size_t kept = 0;

    for (size_t i = 0; i < del->ref_count && status == RF_OK; i++) {
        bool is_file = false;

        status = each_part(del, &del->refs[i], content ? note_part : ignore_part, &is_file, err);
        if (status == RF_OK && !is_file)
            note_part(del, &del->refs[i]);
        if (status == RF_NOT_FOUND || status == RF_LIMIT || status == RF_CORRUPT) {
            if (status != RF_NOT_FOUND) /* too large for a file blob, or damaged: may be content */
                note_part(del, &del->refs[i]);
            rf_error_clear(err);
            status = RF_OK;
        }
    }
    if (status || del->parts.count == 0)
        return status;
    qsort(del->parts.list, del->parts.count, sizeof *del->parts.list, compare_refs);
    for (size_t i = 0; i < del->parts.count; i++) {
        if (i == 0 || !rf_blobref_equal(&del->parts.list[i].ref, &del->parts.list[kept - 1].ref))
            del->parts.list[kept++] = del->parts.list[i];
    }
    del->parts.count = kept;
    status = rf_store_list(del->store, NULL, visit_other, del, err);
    if (del->err.status) {
        *err = del->err;
        status = err->status;
    }
    return status;
}

/* Told, with the name of the file. */
static void tell_held(struct deletion *del, const struct candidate *held)
{
    enum rf_schema_kind kind = RF_SCHEMA_NONE;
    char text[RF_BLOBREF_SIZE], holder[RF_BLOBREF_SIZE];
    struct rf_file file = {0};
    struct rf_arena arena;
    struct rf_buf buf;

    rf_arena_init(&arena, (size_t)64 << 20);
    rf_buf_init(&buf, RF_BLOB_INLINE_MAX);
    if (rf_store_get(del->store, &held->holder, &buf, NULL) == RF_OK)
        (void)!rf_schema_parse(&kind, &file, &arena, rf_buf_bytes(&buf), NULL);
    rf_blobref_format(&held->ref, text);
    rf_blobref_format(&held->holder, holder);
    del->errors++;
    (void)rf_fail_with(del->cli, RF_EXIT_FAILED,
                       "cannot delete %s: it is content of file '%.*s' (%s), which would be lost; "
                       "delete that first, or --force",
                       text, (int)file.name.size, (const char *)file.name.data, holder);
    rf_buf_release(&buf);
    rf_arena_release(&arena);
}

static void delete_one(struct deletion *del, const struct rf_blobref *ref, bool asked)
{
    struct rf_cli *cli = del->cli;
    enum rf_put_outcome outcome = RF_PUT_DELETED;
    struct rf_error err = {0};
    struct rf_stat stat;
    char text[RF_BLOBREF_SIZE];
    enum rf_status status;

    rf_blobref_format(ref, text);
    status = rf_store_stat(del->store, ref, &stat, &err);
    if (status == RF_OK && !asked && !stat.part)
        return; /* somebody put the same bytes as an item of its own */
    if (status == RF_OK && !del->dry_run)
        status = rf_store_delete(del->store, ref, &outcome, &err);
    if (status == RF_NOT_FOUND || outcome == RF_PUT_ABSENT) {
        del->absent++;
        if (asked)
            (void)rf_fail_with(cli, RF_EXIT_FAILED, "cannot delete %s: it is not in the store",
                               text);
        return;
    }
    if (status) {
        del->errors++;
        (void)rf_fail(cli, &err);
        return;
    }
    del->deleted++;
    rf_out_printf(cli, "%s\n", text);
    rf_out_begin(&cli->out, "item");
    rf_out_text(&cli->out, "ref", text);
    rf_out_bool(&cli->out, "content", !asked);
    rf_out_end(&cli->out);
}

static int run(struct deletion *del)
{
    struct rf_cli *cli = del->cli;
    struct rf_error err = {0};

    if (!rf_args_flag(&cli->args, "force") && RF_SAFEGUARD("delete-held") &&
        collect_content(del, &err))
        return rf_fail(cli, &err);
    for (size_t i = 0; i < del->ref_count && !rf_stop_asked(); i++) {
        const struct candidate *one = find_candidate(del, &del->refs[i]);

        if (one && one->holder.algo)
            tell_held(del, one);
        else
            delete_one(del, &del->refs[i], true);
    }
    for (size_t i = 0; i < del->parts.count && !rf_stop_asked(); i++) {
        const struct candidate *one = &del->parts.list[i];

        if (!one->holder.algo && !bsearch(&one->ref, del->refs, del->ref_count, sizeof one->ref,
                                          compare_refs))
            delete_one(del, &one->ref, false);
    }
    rf_summary_int(cli, "deleted", (int64_t)del->deleted);
    rf_summary_int(cli, "absent", (int64_t)del->absent);
    rf_summary_int(cli, "errors", (int64_t)del->errors);
    if (del->deleted + del->absent > 1 || del->dry_run)
        rf_say(cli, "%s%s", del->dry_run ? "would delete " : "deleted ",
               RF_COUNT(del->deleted, "blob"));
    if (rf_stop_asked())
        return RF_EXIT_STOPPED;
    return del->errors || del->absent ? RF_EXIT_FAILED : RF_EXIT_OK;
}

int cmd_delete(struct rf_cli *cli)
{
    struct deletion del = {.cli = cli, .dry_run = rf_args_flag(&cli->args, "dry-run")};
    struct rf_error err = {0};
    int code;

    if (rf_args_flag(&cli->args, "content") && rf_args_flag(&cli->args, "force"))
        return rf_fail_with(cli, RF_EXIT_USAGE,
                            "--content deletes what nothing else holds, --force does not look: "
                            "one of them");

    del.refs = calloc((size_t)cli->args.word_count, sizeof *del.refs);
    if (!del.refs)
        abort();
    for (int i = 0; i < cli->args.word_count; i++) {
        const char *word = cli->args.words[i];

        if (rf_blobref_parse(&del.refs[i], word, strlen(word), &err)) {
            free(del.refs);
            return rf_fail_with(cli, RF_EXIT_USAGE, "%s; 'refuge delete' needs whole blobrefs",
                                err.message);
        }
    }
    del.ref_count = (size_t)cli->args.word_count;
    qsort(del.refs, del.ref_count, sizeof *del.refs, compare_refs);
    del.store = rf_home_store(cli, del.dry_run ? RF_STORE_READ : RF_STORE_WRITE, &code);
    if (del.store)
        code = run(&del);
    rf_store_close(del.store);
    free(del.refs);
    free(del.parts.list);
    return code;
}
