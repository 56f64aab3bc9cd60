/*
 * run_cursor.c - several runs as one sorted stream, and the merge made of it
 *
 * Each run is an input with a window of 16 checked pages; a binary heap of inputs gives the least
 * ref, of equal ones the highest sequence first, so that the rest of a ref can be passed over.
 */
#include "blobstore/run_format.h"

#include <assert.h>
#include <stdlib.h>

struct input {
    struct rf_run *run;
    uint64_t next; /* index of the entry behind `entry` */
    struct rf_run_entry entry;
    uint64_t window_first, window_count; /* pages at hand */
    uint8_t *window;
};

struct rf_run_cursor {
    struct input *inputs;
    struct input **heap; /* those not yet through */
    size_t input_count, heap_count;
    struct rf_blobref last; /* algo 0: none given yet */
    bool failed;
};

static bool comes_before(const struct input *a, const struct input *b)
{
    int order = rf_blobref_compare(&a->entry.ref, &b->entry.ref);

    return order < 0 || (order == 0 && a->entry.seq > b->entry.seq);
}

static void sift_down(struct rf_run_cursor *cursor, size_t at)
{
    for (;;) {
        size_t child = 2 * at + 1;
        struct input *moved = cursor->heap[at];
        if (child >= cursor->heap_count)
            return;
        if (child + 1 < cursor->heap_count && comes_before(cursor->heap[child + 1],
                                                           cursor->heap[child]))
            child++;
        if (!comes_before(cursor->heap[child], moved))
            return;
        cursor->heap[at] = cursor->heap[child];
        cursor->heap[child] = moved;
        at = child;
    }
}

/* The input's next entry into input->entry; RF_END behind the last. */
static enum rf_status advance(struct input *input, struct rf_error *err)
{
    const struct rf_run_info *info = rf_run_info(input->run);
    uint64_t page = input->next / RUN_PAGE_ENTRIES, pages = run_page_count(info->count);
    enum rf_status status;
    size_t count;

    if (input->next >= info->count)
        return RF_END;
    if (page < input->window_first || page >= input->window_first + input->window_count) {
        count = pages - page < RUN_IO_PAGES ? (size_t)(pages - page) : RUN_IO_PAGES;
        input->window_count = 0;
        status = run_read_pages(input->run, page, count, input->window, err);
        if (status != RF_OK)
            return status;
        input->window_first = page;
        input->window_count = count;
    }
    run_entry_decode(&input->entry,
                     input->window + (page - input->window_first) * RUN_PAGE_SIZE + RUN_PAGE_HEAD +
                                        input->next % RUN_PAGE_ENTRIES * RUN_ENTRY_SIZE);
    input->next++;
    return RF_OK;
}

static enum rf_status start_input(struct input *input, struct rf_run *run,
                                  const struct rf_blobref *after, struct rf_error *err)
{
    enum rf_status status;

    input->run = run;
    input->window = malloc(RUN_IO_PAGES * RUN_PAGE_SIZE);
    if (!input->window)
        return rf_error_set(err, RF_NOMEM, "no memory to read lookup run '%s'", rf_run_name(run));
    if (after) {
        status = run_after(run, after, &input->next, err);
        if (status != RF_OK)
            return status;
    }
    return advance(input, err);
}

enum rf_status rf_run_cursor_open(struct rf_run_cursor **out, struct rf_run *const *runs,
                                  size_t count, const struct rf_blobref *after,
                                  struct rf_error *err)
{
    struct rf_run_cursor *cursor;
    enum rf_status status = RF_OK;

    if (count > RF_RUN_MERGE_MAX)
        return rf_error_set(err, RF_LIMIT, "%zu lookup runs at once, at most %d", count,
                            RF_RUN_MERGE_MAX);
    cursor = calloc(1, sizeof *cursor);
    if (cursor) {
        cursor->inputs = calloc(count + 1, sizeof *cursor->inputs);
        cursor->heap = calloc(count + 1, sizeof(struct input *));
    }
    if (!cursor || !cursor->inputs || !cursor->heap) {
        rf_run_cursor_close(cursor);
        return rf_error_set(err, RF_NOMEM, "no memory to read %zu lookup runs", count);
    }
    cursor->input_count = count;
    for (size_t i = 0; i < count; i++) {
        status = start_input(&cursor->inputs[i], runs[i], after, err);
        if (status == RF_OK)
            cursor->heap[cursor->heap_count++] = &cursor->inputs[i];
        else if (status != RF_END)
            break;
        status = RF_OK;
    }
    if (status != RF_OK) {
        rf_run_cursor_close(cursor);
        return status;
    }
    for (size_t i = cursor->heap_count / 2; i > 0; i--)
        sift_down(cursor, i - 1);
    *out = cursor;
    return RF_OK;
}

void rf_run_cursor_close(struct rf_run_cursor *cursor)
{
    if (!cursor)
        return;
    for (size_t i = 0; i < cursor->input_count; i++)
        free(cursor->inputs[i].window);
    free(cursor->inputs);
    free(cursor->heap);
    free(cursor);
}

/* Move the first input on, or drop it from the heap when it is through. */
static enum rf_status pass_first(struct rf_run_cursor *cursor, struct rf_error *err)
{
    enum rf_status status = advance(cursor->heap[0], err);

    if (status == RF_END)
        cursor->heap[0] = cursor->heap[--cursor->heap_count];
    else if (status != RF_OK)
        return status;
    if (cursor->heap_count > 0)
        sift_down(cursor, 0);
    return RF_OK;
}

enum rf_status rf_run_cursor_next(struct rf_run_cursor *cursor, struct rf_run_entry *out,
                                  struct rf_error *err)
{
    struct rf_run_entry entry;
    enum rf_status status;

    if (cursor->failed)
        return rf_error_set(err, RF_CORRUPT, "these lookup runs could not be read to their end");
    for (;;) {
        if (cursor->heap_count == 0)
            return RF_END;
        entry = cursor->heap[0]->entry;
        status = pass_first(cursor, err);
        if (status != RF_OK) {
            cursor->failed = true;
            return status;
        }
        if (cursor->last.algo && rf_blobref_compare(&entry.ref, &cursor->last) == 0)
            continue; /* an older entry of the same ref */
        break;
    }
    cursor->last = entry.ref;
    *out = entry;
    return RF_OK;
}

/* ---- merging ---- */

static int compare_sources(const void *a, const void *b)
{
    const struct rf_run_source *x = a, *y = b;

    return x->from_seq < y->from_seq ? -1 : x->from_seq > y->from_seq;
}

/* All sources of the runs, those that touch within a segment made one; yours to free. */
static enum rf_status join_sources(struct rf_run *const *runs, size_t count,
                                   struct rf_run_source **out, size_t *out_count,
                                   struct rf_error *err)
{
    struct rf_run_source *all;
    size_t total = 0, kept = 0;

    for (size_t i = 0; i < count; i++)
        total += rf_run_info(runs[i])->source_count;
    all = malloc(total * sizeof *all + 1);
    if (!all)
        return rf_error_set(err, RF_NOMEM, "no memory to merge %zu lookup runs", count);
    total = 0;
    for (size_t i = 0; i < count; i++) {
        const struct rf_run_info *info = rf_run_info(runs[i]);
        if (info->source_count)
            memcpy(all + total, info->sources, info->source_count * sizeof *all);
        total += info->source_count;
    }
    if (total > 0)
        qsort(all, total, sizeof *all, compare_sources);
    for (size_t i = 0; i < total; i++) {
        struct rf_run_source *last = kept ? &all[kept - 1] : NULL;
        if (last && last->segment == all[i].segment && all[i].from_seq <= last->to_seq + 1) {
            if (all[i].to_seq > last->to_seq)
                last->to_seq = all[i].to_seq;
        } else {
            all[kept++] = all[i];
        }
    }
    *out = all;
    *out_count = kept;
    return RF_OK;
}

enum rf_status rf_run_merge(int dir, const char *name, struct rf_run *const *runs, size_t count,
                            bool drop_deleted, bool sync, struct rf_error *err)
{
    struct rf_run_source *sources = NULL;
    struct rf_run_cursor *cursor = NULL;
    struct rf_run_writer *writer = NULL;
    struct rf_run_entry entry;
    enum rf_status status;
    size_t source_count = 0;

    if ((status = join_sources(runs, count, &sources, &source_count, err)) != RF_OK ||
        (status = rf_run_cursor_open(&cursor, runs, count, NULL, err)) != RF_OK ||
        (status = rf_run_create(&writer, dir, name, sources, source_count, err)) != RF_OK)
        goto out;
    while ((status = rf_run_cursor_next(cursor, &entry, err)) == RF_OK) {
        if (drop_deleted && (entry.flags & RF_RUN_DELETE))
            continue;
        status = rf_run_add(writer, &entry, err);
        if (status != RF_OK)
            goto out;
    }
    if (status == RF_END)
        status = rf_run_commit(writer, sync, err);
out:
    rf_run_writer_free(writer);
    rf_run_cursor_close(cursor);
    free(sources);
    return status;
}
