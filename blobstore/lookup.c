/*
 * lookup.c - finding: the tail, then runs from the newest to the oldest; see lookup.h
 *
 * Making, merging and healing runs is in lookup_care.c.
 */
#include "blobstore/lookup_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blobstore/walk.h"

#define LIST_HOLES_MAX 2000000 /* entries held in memory while a list reads holes from the log */

/* ---- the folder ---- */

static int find_folder(const struct rf_lookup *lookup)
{
    return openat(lookup->store_dir, RF_LOOKUP_FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Open what has the folder's name now; a missing one is empty. */
static enum rf_status open_folder(struct rf_lookup *lookup, struct rf_error *err)
{
    int fd = find_folder(lookup);

    if (fd < 0 && errno != ENOENT)
        return rf_error_errno(err, RF_IO, errno, "cannot open '" RF_LOOKUP_FOLDER "'");
    if (lookup->dir >= 0)
        close(lookup->dir);
    lookup->dir = fd;
    return RF_OK;
}

static enum rf_status make_folder(const struct rf_lookup *lookup, bool *made, struct rf_error *err)
{
    *made = mkdirat(lookup->store_dir, RF_LOOKUP_FOLDER, 0700) == 0;
    if (!*made && errno != EEXIST)
        return rf_error_errno(err, RF_IO, errno, "cannot make folder '" RF_LOOKUP_FOLDER "'");
    if (*made && fsync(lookup->store_dir) != 0)
        return rf_error_errno(err, RF_IO, errno,
                              "cannot make the name of '" RF_LOOKUP_FOLDER "' durable");
    return RF_OK;
}

enum rf_status rf_lookup_keep_folder(struct rf_lookup *lookup, struct rf_error *err)
{
    struct stat ours, named;
    enum rf_status status;
    bool made;
    int fd;

    if (fstat(lookup->dir, &ours) == 0 &&
        fstatat(lookup->store_dir, RF_LOOKUP_FOLDER, &named, 0) == 0 &&
        ours.st_ino == named.st_ino && ours.st_dev == named.st_dev)
        return RF_OK;
    status = make_folder(lookup, &made, err);
    if (status != RF_OK)
        return status;
    fd = find_folder(lookup);
    if (fd < 0 || dup3(fd, lookup->dir, O_CLOEXEC) < 0) /* another thread may be using the number */
        status = rf_error_errno(err, RF_IO, errno, "cannot open '" RF_LOOKUP_FOLDER "'");
    if (fd >= 0)
        close(fd);
    return status;
}

enum rf_status rf_lookup_open(struct rf_lookup *lookup, int store_dir, bool writing,
                              struct rf_log_dir *log, uint64_t oldest, uint64_t run_bytes,
                              bool *lost, struct rf_error *err)
{
    enum rf_status status = RF_OK;
    bool made = false;

    *lookup = (struct rf_lookup){.store_dir = store_dir, .dir = -1, .log = log, .oldest = oldest,
                                 .run_bytes = run_bytes};
    pthread_mutex_init(&lookup->lock, NULL);
    if (writing)
        status = make_folder(lookup, &made, err);
    if (status == RF_OK)
        status = rf_lookup_load(lookup, &lookup->runs, err);
    *lost = made || lookup->dir < 0 || (lookup->runs && lookup->runs->broken > 0);
    return status;
}

void rf_lookup_close(struct rf_lookup *lookup)
{
    rf_table_release(&lookup->tail);
    rf_runs_unref(lookup->runs);
    if (lookup->dir >= 0)
        close(lookup->dir);
    pthread_mutex_destroy(&lookup->lock);
}

uint64_t rf_lookup_covered(struct rf_lookup *lookup)
{
    uint64_t covered;

    pthread_mutex_lock(&lookup->lock);
    covered = rf_runs_covered(lookup->runs, lookup->oldest);
    pthread_mutex_unlock(&lookup->lock);
    return covered;
}

uint64_t rf_lookup_tail_bytes(struct rf_lookup *lookup)
{
    uint64_t bytes;

    pthread_mutex_lock(&lookup->lock);
    bytes = lookup->tail_bytes;
    pthread_mutex_unlock(&lookup->lock);
    return bytes;
}

/* ---- entries in runs ---- */

void rf_entry_to_run(struct rf_run_entry *out, const struct rf_entry *entry)
{
    bool lift = entry->flags & RF_LOG_LIFT, dead = entry->op == RF_LOG_DELETE;
    bool large = entry->size > RF_BLOB_INLINE_MAX;

    *out = (struct rf_run_entry){
        .ref = entry->ref,
        .flags = (dead ? RF_RUN_DELETE : 0) | (entry->flags & RF_LOG_PART ? RF_RUN_PART : 0) |
                 (large ? RF_RUN_LARGE : 0) | (lift ? RF_RUN_LIFT : 0),
        .life = entry->life,
        .seq = entry->seq,
        .size = entry->size,
        .timestamp_us = entry->timestamp_us,
        .segment = entry->first,
        .offset = (uint32_t)entry->offset,
        .stored = lift || dead || large ? 0 : (uint32_t)entry->size,
    };
}

void rf_entry_from_run(struct rf_entry *out, const struct rf_run_entry *entry)
{
    *out = (struct rf_entry){
        .ref = entry->ref,
        .op = entry->flags & RF_RUN_DELETE ? RF_LOG_DELETE : RF_LOG_PUT,
        .flags = (entry->flags & RF_RUN_PART ? RF_LOG_PART : 0) |
                 (entry->flags & RF_RUN_LIFT ? RF_LOG_LIFT : 0),
        .life = entry->life,
        .seq = entry->seq,
        .size = entry->size,
        .timestamp_us = entry->timestamp_us,
        .first = entry->segment,
        .offset = entry->offset,
    };
}

/* ---- finding ---- */

bool rf_part_is_whole(struct rf_part *part)
{
    return part->run && !__atomic_load_n(&part->bad, __ATOMIC_ACQUIRE);
}

/* Call visit for every change of a part, from the log. */
enum rf_status rf_part_scan(struct rf_lookup *lookup, const struct rf_part *part,
                            enum rf_status (*visit)(void *user, const struct rf_entry *entry,
                                                    uint64_t bytes),
                            void *user, struct rf_error *err)
{
    struct rf_log_end end = {.seq = part->to};
    struct rf_walked walked;
    struct rf_walk walk;
    enum rf_status status = RF_OK;

    rf_walk_init(&walk, lookup->log, part->from, true);
    while (status == RF_OK) {
        struct rf_error cause = {0};
        struct rf_entry entry;
        status = rf_walk_next(&walk, &end, &walked, &cause);
        if (status == RF_CORRUPT && walked.lost_to > 0) {
            status = RF_OK;
            continue;
        }
        if (status == RF_OK) {
            rf_entry_of(&entry, &walked.at.record, walked.first, walked.at.offset);
            status = visit(user, &entry, rf_log_span(&walked.at.record));
        } else if (status != RF_END) {
            rf_error_set(err, status, "%s", cause.message);
        }
    }
    rf_walk_release(&walk);
    return status == RF_END ? RF_OK : status;
}

struct search {
    const struct rf_blobref *ref;
    struct rf_entry *out;
    bool found;
};

static enum rf_status match(void *user, const struct rf_entry *entry, uint64_t bytes)
{
    struct search *search = user;

    (void)bytes;
    if (rf_blobref_equal(&entry->ref, search->ref)) {
        *search->out = *entry;
        search->found = true;
    }
    return RF_OK;
}

static enum rf_status find_in_part(struct rf_lookup *lookup, struct rf_part *part,
                                   const struct rf_blobref *ref, struct rf_entry *out,
                                   struct rf_error *err)
{
    struct search search = {.ref = ref, .out = out};
    enum rf_status status = RF_CORRUPT;
    struct rf_run_entry entry;
    struct rf_error cause; /* not cleared throughout: this is called for every run, for every put */

    rf_error_clear(&cause);
    if (rf_part_is_whole(part))
        status = rf_run_find(part->run, ref, &entry, &cause);
    if (status == RF_OK)
        rf_entry_from_run(out, &entry);
    if (status == RF_OK || status == RF_NOT_FOUND)
        return status;
    if (status != RF_CORRUPT)
        return rf_error_set(err, status, "%s", cause.message);
    if (part->run && !__atomic_exchange_n(&part->bad, 1, __ATOMIC_ACQ_REL) && lookup->damaged)
        lookup->damaged(lookup->user);
    status = rf_part_scan(lookup, part, match, &search, err);
    return status == RF_OK && !search.found ? RF_NOT_FOUND : status;
}

enum rf_status rf_lookup_find(struct rf_lookup *lookup, const struct rf_blobref *ref,
                              struct rf_entry *out, uint64_t *epoch, struct rf_error *err)
{
    enum rf_status status = RF_NOT_FOUND;
    const struct rf_entry *entry;
    char text[RF_BLOBREF_SIZE];
    struct rf_runs *runs;

    pthread_mutex_lock(&lookup->lock);
    entry = rf_table_find(&lookup->tail, ref);
    if (entry)
        *out = *entry;
    if (epoch)
        *epoch = lookup->epoch;
    runs = lookup->runs;
    if (!entry)
        rf_runs_ref(runs);
    pthread_mutex_unlock(&lookup->lock);
    if (entry)
        return RF_OK;
    for (size_t i = runs->count; i > 0 && status == RF_NOT_FOUND; i--)
        status = find_in_part(lookup, runs->parts[i - 1], ref, out, err);
    rf_runs_unref(runs);
    if (status != RF_NOT_FOUND || !err) /* a put of something new looks for it: no words then */
        return status;
    rf_blobref_format(ref, text);
    return rf_error_set(err, RF_NOT_FOUND, "no blob %s in this store", text);
}

enum rf_status rf_lookup_newer(struct rf_lookup *lookup, const struct rf_blobref *ref,
                               uint64_t epoch, struct rf_entry *out)
{
    const struct rf_entry *entry = rf_table_find(&lookup->tail, ref);

    if (entry) {
        *out = *entry;
        return RF_OK;
    }
    return epoch == lookup->epoch ? RF_END : RF_NOT_FOUND;
}

/* ---- adding ---- */

enum rf_status rf_lookup_reserve(struct rf_lookup *lookup, size_t count, struct rf_error *err)
{
    enum rf_status status;

    pthread_mutex_lock(&lookup->lock);
    status = rf_table_reserve(&lookup->tail, count, err);
    pthread_mutex_unlock(&lookup->lock);
    return status;
}

void rf_lookup_add(struct rf_lookup *lookup, const struct rf_entry *entries, size_t count,
                   uint64_t bytes)
{
    pthread_mutex_lock(&lookup->lock);
    for (size_t i = 0; i < count; i++)
        rf_table_put(&lookup->tail, &entries[i]);
    lookup->tail_bytes += bytes;
    pthread_mutex_unlock(&lookup->lock);
}

enum rf_status rf_lookup_load(struct rf_lookup *lookup, struct rf_runs **out, struct rf_error *err)
{
    enum rf_status status = open_folder(lookup, err);

    return status == RF_OK ? rf_runs_load(out, lookup->dir, lookup->oldest, err) : status;
}

void rf_lookup_install_take(struct rf_lookup *lookup, struct rf_runs *runs, struct rf_table *tail)
{
    struct rf_table old;
    struct rf_runs *gone;

    pthread_mutex_lock(&lookup->lock);
    gone = lookup->runs;
    old = lookup->tail;
    lookup->runs = runs;
    lookup->tail = *tail;
    lookup->epoch++;
    pthread_mutex_unlock(&lookup->lock);
    *tail = (struct rf_table){0};
    rf_table_release(&old);
    rf_runs_unref(gone);
}

/* ---- listing ---- */

/* What is merged by a list: the whole runs through one cursor, and all else from memory. */
struct list {
    struct rf_runs *runs;
    struct rf_table loose;
    struct rf_entry *sorted;
    size_t at;
    struct rf_error *err;
};

static enum rf_status put_loose(void *user, const struct rf_entry *entry, uint64_t bytes)
{
    struct list *list = user;
    const struct rf_entry *old = rf_table_find(&list->loose, &entry->ref);
    enum rf_status status;

    (void)bytes;
    if (old && old->seq >= entry->seq)
        return RF_OK;
    if (list->loose.count >= LIST_HOLES_MAX)
        return rf_error_set(list->err, RF_LIMIT, "the lookup is damaged: open the store for "
                            "writing once, with 'refuge store verify', to have it made again");
    status = rf_table_reserve(&list->loose, 1, list->err);
    if (status == RF_OK)
        rf_table_put(&list->loose, entry);
    return status;
}

static enum rf_status open_list(struct rf_lookup *lookup, struct list *list, struct rf_error *err)
{
    enum rf_status status;
    struct rf_entry *tail = NULL;
    size_t tail_count;

    *list = (struct list){.err = err};
    pthread_mutex_lock(&lookup->lock);
    status = rf_table_sorted(&lookup->tail, &tail, err);
    tail_count = lookup->tail.count;
    list->runs = lookup->runs;
    rf_runs_ref(list->runs);
    pthread_mutex_unlock(&lookup->lock);
    for (size_t i = 0; i < list->runs->count && status == RF_OK; i++) {
        if (!rf_part_is_whole(list->runs->parts[i]))
            status = rf_part_scan(lookup, list->runs->parts[i], put_loose, list, err);
    }
    if (status == RF_OK && list->loose.count == 0) { /* as ever: nothing but the tail */
        list->loose.count = tail_count;
        list->sorted = tail;
        return RF_OK;
    }
    for (size_t i = 0; i < tail_count && status == RF_OK; i++)
        status = put_loose(list, &tail[i], 0);
    if (status == RF_OK)
        status = rf_table_sorted(&list->loose, &list->sorted, err);
    free(tail);
    return status;
}

static void close_list(struct list *list)
{
    rf_runs_unref(list->runs);
    rf_table_release(&list->loose);
    free(list->sorted);
}

static enum rf_status open_cursor(struct list *list, const struct rf_blobref *after,
                                  struct rf_run_cursor **out, struct rf_error *err)
{
    struct rf_run **whole = calloc(list->runs->count + 1, sizeof(struct rf_run *));
    enum rf_status status;
    size_t count = 0;

    if (!whole)
        return rf_error_set(err, RF_NOMEM, "no memory to list the store");
    for (size_t i = 0; i < list->runs->count; i++) {
        if (rf_part_is_whole(list->runs->parts[i]))
            whole[count++] = list->runs->parts[i]->run;
    }
    status = rf_run_cursor_open(out, whole, count, after, err);
    free(whole);
    return status;
}

/* Visit until the end or damage; *last is the ref visited last. */
static enum rf_status merge_list(struct list *list, struct rf_blobref *last, bool *any,
                                 enum rf_status (*visit)(void *user,
                                                         const struct rf_entry *entry),
                                 void *user, struct rf_error *err)
{
    struct rf_run_cursor *cursor = NULL;
    struct rf_run_entry raw;
    struct rf_entry entry;
    enum rf_status status = open_cursor(list, *any ? last : NULL, &cursor, err), more;
    size_t count = list->loose.count;

    if (status != RF_OK)
        return status;
    while (list->at < count && *any && rf_blobref_compare(&list->sorted[list->at].ref, last) <= 0)
        list->at++;
    more = rf_run_cursor_next(cursor, &raw, err);
    while (status == RF_OK && (more == RF_OK || (more == RF_END && list->at < count))) {
        int order = more == RF_END ? 1 : list->at == count ? -1 :
                    rf_blobref_compare(&raw.ref, &list->sorted[list->at].ref);
        if (order < 0 || (order == 0 && raw.seq > list->sorted[list->at].seq))
            rf_entry_from_run(&entry, &raw);
        else
            entry = list->sorted[list->at];
        if (order >= 0)
            list->at++;
        if (order <= 0)
            more = rf_run_cursor_next(cursor, &raw, err);
        *last = entry.ref;
        *any = true;
        status = visit(user, &entry);
    }
    rf_run_cursor_close(cursor);
    return status != RF_OK ? status : more == RF_END ? RF_OK : more;
}

enum rf_status rf_lookup_list(struct rf_lookup *lookup, const struct rf_blobref *after,
                              enum rf_status (*visit)(void *user, const struct rf_entry *entry),
                              void *user, struct rf_error *err)
{
    struct rf_blobref last = {0};
    bool any = after != NULL;
    enum rf_status status = RF_OK;

    if (after)
        last = *after;
    for (bool again = true; again;) {
        struct rf_error cause = {0};
        struct list list;
        status = open_list(lookup, &list, &cause);
        again = false;
        if (status == RF_OK)
            status = merge_list(&list, &last, &any, visit, user, &cause);
        if (status == RF_CORRUPT && cause.status == RF_CORRUPT) {
            uint64_t bad = 0;
            status = rf_runs_check(list.runs, &bad, err);
            again = status == RF_OK && bad > 0;
            if (again && lookup->damaged)
                lookup->damaged(lookup->user);
            if (!again)
                status = RF_CORRUPT;
        }
        close_list(&list);
        if (!again && cause.message[0])
            rf_error_set(err, status, "%s", cause.message);
    }
    return status;
}
