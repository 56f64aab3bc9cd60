/*
 * pool_harness.h - a pool, mappers from text, and items, for tests
 */
#ifndef RF_TESTS_POOL_HARNESS_H
#define RF_TESTS_POOL_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mappers/pool.h"

#define DEADLINE_MS 120000 /* for whatever is awaited */

struct folder {
    char path[64];
    unsigned files;
};

static inline void folder_make(struct folder *folder)
{
    snprintf(folder->path, sizeof folder->path, "/tmp/refuge-pool-XXXXXX");
    assert_non_null(mkdtemp(folder->path));
    folder->files = 0;
}

static inline void folder_remove(struct folder *folder)
{
    DIR *dir = opendir(folder->path);
    struct dirent *entry;
    char path[400];

    while (dir && (entry = readdir(dir))) {
        snprintf(path, sizeof path, "%s/%s", folder->path, entry->d_name);
        unlink(path);
    }
    if (dir)
        closedir(dir);
    rmdir(folder->path);
}

static inline const char *folder_write(struct folder *folder, const char *name, const char *text)
{
    static char path[400];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", folder->path, name);
    file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
    return path;
}

static inline const char *mapper_program(void)
{
    const char *program = getenv("REFUGE_MAPPER");

    return program ? program : RF_BINARY_DIR "/bin/refuge-mapper";
}

static inline struct rf_pool *pool_open(struct rf_pool_options options)
{
    struct rf_error err = {.status = RF_OK};
    struct rf_pool *pool = NULL;

    if (!options.program)
        options.program = mapper_program();
    if (rf_pool_open(&pool, &options, &err) != RF_OK)
        fail_msg("%s", err.message);
    return pool;
}

/* Load a mapper whose map function has this body (blob, emit), with a table t (word text, num int)
 * and these further fields. */
static inline struct rf_mapper *mapper_with(struct rf_pool *pool, struct folder *folder,
                                            const char *name, const char *fields,
                                            const char *before, const char *body)
{
    struct rf_error err = {.status = RF_OK};
    struct rf_mapper *mapper = NULL;
    char *text = NULL, file[80];

    if (asprintf(&text,
                 "%s\nreturn {name = '%s', on = 'blob', %s tables = {%s_t = {columns = "
                 "{{'word', 'text'}, {'num', 'int'}}}},\nmap = function(blob, emit)\n"
                 "local row = emit.%s_t\n%s\nend}\n",
                 before, name, fields, name, name, body) < 0)
        fail_msg("no memory");
    snprintf(file, sizeof file, "%s.lua", name);
    if (rf_pool_load(pool, folder_write(folder, file, text), &mapper, &err) != RF_OK)
        fail_msg("%s: %s", name, err.message);
    free(text);
    return mapper;
}

static inline struct rf_item item_of(const void *content, size_t size)
{
    struct rf_item item = {.kind = RF_ITEM_BLOB, .mtime_us = INT64_MIN, .timestamp_us = 1,
                           .seq = 1, .size = size, .content = content};

    rf_blobref_of(&item.ref, rf_bytes(content, size));
    return item;
}

static inline struct rf_item item_text(const char *text)
{
    return item_of(text, strlen(text));
}

static inline void submit(struct rf_pool *pool, enum rf_pool_lane lane, struct rf_item *item,
                          const struct rf_mapper *mapper)
{
    struct rf_error err = {.status = RF_OK};

    if (rf_pool_submit(pool, lane, item, &mapper, 1, &err) != RF_OK)
        fail_msg("%s", err.message);
}

static inline struct rf_result *next(struct rf_pool *pool)
{
    struct rf_error err = {.status = RF_OK};
    struct rf_result *result = NULL;
    enum rf_status status = rf_pool_next(pool, &result, DEADLINE_MS, &err);

    if (status)
        fail_msg("awaited a result: %s %s", rf_status_name(status), err.message);
    return result;
}

/* Submit one item and wait for its result. */
static inline struct rf_result *map_one(struct rf_pool *pool, enum rf_pool_lane lane,
                                        struct rf_item *item, const struct rf_mapper *mapper)
{
    submit(pool, lane, item, mapper);
    return next(pool);
}

/* The text of column word of the row-th row of a call; NULL when there is none. */
static inline char *word_of(const struct rf_call *call, const struct rf_item *item, unsigned row)
{
    struct rf_output_reader reader;
    struct rf_record record;
    char *word = NULL;

    rf_output_init(&reader, call->output, rf_mapper_decl(call->mapper), item->size);
    while (!word && rf_output_next(&reader, &record, NULL) == RF_OK)
        if (record.kind == RF_RECORD_ROW && row-- == 0)
            word = record.values[0].type == RF_TYPE_TEXT
                       ? strndup((const char *)record.values[0].text.data,
                                 record.values[0].text.size)
                       : strdup("");
    rf_output_release(&reader);
    return word;
}

static inline int64_t num_of(const struct rf_call *call, const struct rf_item *item)
{
    struct rf_output_reader reader;
    struct rf_record record;
    int64_t num = -1;

    rf_output_init(&reader, call->output, rf_mapper_decl(call->mapper), item->size);
    while (rf_output_next(&reader, &record, NULL) == RF_OK)
        if (record.kind == RF_RECORD_ROW)
            num = record.values[1].integer;
    rf_output_release(&reader);
    return num;
}

/* ---- processes ---- */

/* What /proc says of a process: its state ('Z': ended, not yet taken note of), its parent, and its
 * CPU in clock ticks. false: there is none. */
static inline bool process_find(pid_t pid, char *state, pid_t *parent, unsigned long *ticks)
{
    char path[64], text[1024] = "", *at;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    file = fopen(path, "r");
    if (!file)
        return false;
    at = fgets(text, sizeof text, file) ? strrchr(text, ')') : NULL;
    fclose(file);
    if (!at)
        return false;
    *state = at[2];
    *parent = (pid_t)strtol(at + 4, &at, 10);
    for (int field = 5; field < 14; field++) /* up to utime, the 14th */
        at = strchr(at + 1, ' ');
    *ticks = strtoul(at, &at, 10);
    *ticks += strtoul(at, &at, 10);
    return true;
}

/* Children of a process that have not ended. */
static inline size_t children_of(pid_t of, pid_t *out, size_t max)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    size_t count = 0;

    while (dir && (entry = readdir(dir)) && count < max) {
        char *end, state;
        pid_t pid = (pid_t)strtol(entry->d_name, &end, 10), parent;
        unsigned long ticks;

        if (pid > 0 && !*end && process_find(pid, &state, &parent, &ticks) && state != 'Z' &&
            parent == of)
            out[count++] = pid;
    }
    if (dir)
        closedir(dir);
    return count;
}

static inline unsigned long ticks_of(pid_t pid)
{
    char state;
    pid_t parent;
    unsigned long ticks = 0;

    (void)process_find(pid, &state, &parent, &ticks);
    return ticks;
}

/* The pool's zygote: the host's only child. Fails the test when there is not exactly one. */
static inline pid_t zygote_of(pid_t host)
{
    pid_t pids[8];
    size_t count = children_of(host, pids, 8);

    if (count != 1)
        fail_msg("process %d has %zu children, not one zygote", (int)host, count);
    return pids[0];
}

/* Signal one process that is a child of parent right now; never a group, never everybody. */
static inline void kill_child(pid_t parent, pid_t pid, int signal_number)
{
    pid_t pids[64];
    size_t count = children_of(parent, pids, 64);

    if (pid <= 1)
        fail_msg("refusing to signal %d", (int)pid);
    for (size_t i = 0; i < count; i++)
        if (pids[i] == pid)
            kill(pid, signal_number);
}

static inline int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline void nap_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* Wait until a condition holds; fail saying what was awaited. */
#define AWAIT(condition, what)                                                                     \
    do {                                                                                           \
        int64_t until_ = now_ms() + DEADLINE_MS;                                                   \
        while (!(condition)) {                                                                     \
            if (now_ms() > until_)                                                                 \
                fail_msg("awaited: %s", what);                                                     \
            nap_ms(5);                                                                             \
        }                                                                                          \
    } while (0)

#endif
