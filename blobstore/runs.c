/* runs.c - see runs.h */
#include "blobstore/runs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MERGE_MIN 4
#define LOAD_TRIES 10 /* times runs may be merged away while a reader opens them */

void rf_runs_name(uint64_t from, uint64_t to, char out[RF_RUNS_NAME_SIZE])
{
    snprintf(out, RF_RUNS_NAME_SIZE, "%016" PRIx64 "-%016" PRIx64, from, to);
}

bool rf_runs_parse(uint64_t *from, uint64_t *to, const char *name)
{
    char again[RF_RUNS_NAME_SIZE];

    if (sscanf(name, "%16" SCNx64 "-%16" SCNx64, from, to) != 2 || *from == 0 || *to < *from)
        return false;
    rf_runs_name(*from, *to, again);
    return strcmp(again, name) == 0;
}

/* ---- lifetimes ---- */

static void unref_part(struct rf_part *part)
{
    if (!part || __atomic_sub_fetch(&part->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    if (part->run)
        rf_run_close(part->run);
    free(part);
}

void rf_runs_ref(struct rf_runs *runs)
{
    __atomic_add_fetch(&runs->refs, 1, __ATOMIC_RELAXED);
}

void rf_runs_unref(struct rf_runs *runs)
{
    if (!runs || __atomic_sub_fetch(&runs->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (size_t i = 0; i < runs->count; i++)
        unref_part(runs->parts[i]);
    free(runs);
}

static struct rf_runs *new_runs(size_t room)
{
    struct rf_runs *runs = calloc(1, sizeof *runs + room * sizeof(struct rf_part *));

    if (runs)
        runs->refs = 1;
    return runs;
}

static struct rf_part *new_part(uint64_t from, uint64_t to, struct rf_run *run)
{
    struct rf_part *part = calloc(1, sizeof *part);

    if (part)
        *part = (struct rf_part){.refs = 1, .from = from, .to = to, .run = run};
    return part;
}

/* ---- loading ---- */

struct name {
    uint64_t from, to;
};

/* Earlier first; of those that begin together the longest, which was merged from the others. */
static int compare_names(const void *a, const void *b)
{
    const struct name *x = a, *y = b;

    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    return x->to > y->to ? -1 : x->to < y->to;
}

static enum rf_status open_list(int dir, DIR **out, struct rf_error *err)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    *out = fd < 0 ? NULL : fdopendir(fd);
    if (*out)
        return RF_OK;
    rf_error_errno(err, RF_IO, errno, "cannot list the lookup runs");
    if (fd >= 0)
        close(fd);
    return RF_IO;
}

static enum rf_status list_names(int dir, struct name **out, size_t *count, struct rf_error *err)
{
    size_t capacity = 0;
    struct name *names = NULL;
    struct dirent *entry;
    DIR *stream = NULL;
    enum rf_status status = dir < 0 ? RF_OK : open_list(dir, &stream, err);

    *out = NULL;
    *count = 0;
    while (status == RF_OK && stream && (entry = readdir(stream))) {
        struct name name, *grown;
        if (!rf_runs_parse(&name.from, &name.to, entry->d_name))
            continue;
        if (*count == RF_RUNS_MAX) {
            status = rf_error_set(err, RF_LIMIT, "more than %d lookup runs", RF_RUNS_MAX);
            break;
        }
        if (*count == capacity) {
            capacity = capacity ? capacity * 2 : 64;
            grown = realloc(names, capacity * sizeof *names);
            if (!grown) {
                status = rf_error_set(err, RF_NOMEM, "no memory to list the lookup runs");
                break;
            }
            names = grown;
        }
        names[(*count)++] = name;
    }
    if (stream)
        closedir(stream);
    if (status != RF_OK) {
        free(names);
        return status;
    }
    if (*count)
        qsort(names, *count, sizeof *names, compare_names);
    *out = names;
    return RF_OK;
}

/* Open a run, if it is what its name says. */
static enum rf_status open_named(int dir, const struct name *name, struct rf_run **out,
                                 struct rf_error *err)
{
    char text[RF_RUNS_NAME_SIZE];
    const struct rf_run_info *info;
    struct rf_run *run = NULL;
    enum rf_status status;

    rf_runs_name(name->from, name->to, text);
    status = rf_run_open(&run, dir, text, err);
    if (status != RF_OK)
        return status;
    info = rf_run_info(run);
    if (info->source_count == 0 || info->sources[0].from_seq != name->from ||
        info->sources[info->source_count - 1].to_seq != name->to) {
        rf_run_close(run);
        return rf_error_set(err, RF_CORRUPT, "lookup run '%s' covers something else", text);
    }
    *out = run;
    return RF_OK;
}

static enum rf_status add_part(struct rf_runs *runs, uint64_t from, uint64_t to,
                               struct rf_run *run, struct rf_error *err)
{
    struct rf_part *part = new_part(from, to, run);

    if (!part) {
        if (run)
            rf_run_close(run);
        return rf_error_set(err, RF_NOMEM, "no memory for a lookup run");
    }
    runs->parts[runs->count++] = part;
    return RF_OK;
}

/* RF_NOT_FOUND: a run was merged away since the folder was listed. */
static enum rf_status open_names(struct rf_runs *runs, int dir, const struct name *names,
                                 size_t count, uint64_t oldest, struct rf_error *err)
{
    uint64_t next = oldest;
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < count && status == RF_OK; i++) {
        struct rf_run *run = NULL;
        struct rf_error cause = {0};
        if (names[i].from < next)
            continue; /* within a longer one */
        status = open_named(dir, &names[i], &run, &cause);
        if (status == RF_CORRUPT || status == RF_UNSUPPORTED) {
            status = RF_OK; /* as if it were not there */
            runs->broken++;
            continue;
        }
        if (status != RF_OK)
            return status == RF_NOT_FOUND ? status : rf_error_set(err, status, "%s", cause.message);
        if (names[i].from > next)
            status = add_part(runs, next, names[i].from - 1, NULL, err);
        if (status == RF_OK)
            status = add_part(runs, names[i].from, names[i].to, run, err);
        else
            rf_run_close(run);
        next = names[i].to + 1;
    }
    return status;
}

enum rf_status rf_runs_load(struct rf_runs **out, int dir, uint64_t oldest, struct rf_error *err)
{
    enum rf_status status = RF_NOT_FOUND;

    for (int tries = 0; tries < LOAD_TRIES && status == RF_NOT_FOUND; tries++) {
        struct name *names = NULL;
        struct rf_runs *runs;
        size_t count;
        status = list_names(dir, &names, &count, err);
        if (status != RF_OK)
            return status;
        runs = new_runs(count * 2);
        if (runs)
            status = open_names(runs, dir, names, count, oldest, err);
        else
            status = rf_error_set(err, RF_NOMEM, "no memory for the lookup runs");
        free(names);
        if (status == RF_OK)
            *out = runs;
        else
            rf_runs_unref(runs);
    }
    if (status == RF_NOT_FOUND)
        return rf_error_set(err, RF_UNAVAILABLE, "lookup runs change faster than they can be read");
    return status;
}

/* ---- changing ---- */

static void share_part(struct rf_runs *made, struct rf_part *part)
{
    __atomic_add_fetch(&part->refs, 1, __ATOMIC_RELAXED);
    made->parts[made->count++] = part;
}

enum rf_status rf_runs_with_take(struct rf_runs **out, const struct rf_runs *runs, uint64_t from,
                                 uint64_t to, struct rf_run *run, struct rf_error *err)
{
    size_t count = runs ? runs->count : 0, at = 0;
    struct rf_runs *made = new_runs(count + 1);
    struct rf_part *part = made ? new_part(from, to, run) : NULL;

    if (!part) {
        if (run)
            rf_run_close(run);
        rf_runs_unref(made);
        return rf_error_set(err, RF_NOMEM, "no memory for a lookup run");
    }
    for (; at < count && runs->parts[at]->from < from; at++)
        share_part(made, runs->parts[at]);
    made->parts[made->count++] = part;
    for (; at < count; at++) {
        if (runs->parts[at]->from > to)
            share_part(made, runs->parts[at]);
    }
    *out = made;
    return RF_OK;
}

uint64_t rf_runs_covered(const struct rf_runs *runs, uint64_t oldest)
{
    return runs && runs->count ? runs->parts[runs->count - 1]->to : oldest - 1;
}

static bool is_whole(struct rf_part *part)
{
    return part->run && !__atomic_load_n(&part->bad, __ATOMIC_RELAXED);
}

bool rf_runs_merge_due(const struct rf_runs *runs, size_t *first, uint64_t *entries)
{
    for (uint64_t most = 1; runs && most <= UINT64_MAX / 4; most *= 4) {
        size_t at = runs->count;
        uint64_t sum = 0;
        while (at > 0 && runs->count - at < RF_RUN_MERGE_MAX && is_whole(runs->parts[at - 1]) &&
               rf_run_info(runs->parts[at - 1]->run)->count <= most) {
            at--;
            sum += rf_run_info(runs->parts[at]->run)->count;
        }
        if (runs->count - at >= MERGE_MIN) {
            *first = at;
            *entries = sum;
            return true;
        }
        if (at == 0 || !is_whole(runs->parts[at - 1]))
            return false;
    }
    return false;
}

static bool is_part(const struct rf_runs *runs, uint64_t from, uint64_t to)
{
    for (size_t i = 0; runs && i < runs->count; i++) {
        if (runs->parts[i]->run && runs->parts[i]->from == from && runs->parts[i]->to == to)
            return true;
    }
    return false;
}

enum rf_status rf_runs_sweep(const struct rf_runs *runs, int dir, uint64_t *count,
                             struct rf_error *err)
{
    struct dirent *entry;
    DIR *stream = NULL;
    enum rf_status status = open_list(dir, &stream, err);

    while (status == RF_OK && (entry = readdir(stream))) {
        size_t size = strlen(entry->d_name);
        uint64_t from, to;
        bool stray = size > 4 && strcmp(entry->d_name + size - 4, ".tmp") == 0;
        if (rf_runs_parse(&from, &to, entry->d_name))
            stray = !is_part(runs, from, to);
        if (stray && unlinkat(dir, entry->d_name, 0) != 0)
            status = rf_error_errno(err, RF_IO, errno, "cannot remove lookup run '%s'",
                                    entry->d_name);
        *count += stray;
    }
    if (stream)
        closedir(stream);
    return status;
}
