/*
 * index_fixture.h - a store, mappers and an index of a test, in a folder that goes with it
 *
 * The index is of the kind of sink at hand (sink_kind.h).
 *
 * Include it behind cmocka.h.
 */
#ifndef RF_TESTS_INDEX_FIXTURE_H
#define RF_TESTS_INDEX_FIXTURE_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "indexer/index.h"
#include "sinks/query.h"
#include "tests/elastic_sql.h"
#include "tests/sink_kind.h"

#define MAPPERS 4

struct home {
    char path[256], store_url[300], sink_url[300], verify_url[300];
    char mapper[MAPPERS][300];
    const char *mappers[MAPPERS];
    size_t mapper_count;
    struct rf_store *store;
    unsigned warned;
};

static inline void fail_with(const struct rf_error *err, const char *what)
{
    fail_msg("%s: %s: %s", what, rf_status_name(err->status), err->message);
}

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct rf_error err_ = {0}, *err = &err_;                                                  \
        enum rf_status status_ = (call);                                                           \
        if (status_ != RF_OK) {                                                                    \
            err_.status = status_;                                                                 \
            fail_with(&err_, #call);                                                               \
        }                                                                                          \
    } while (0)

static inline void remove_tree(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;

    while (folder && (entry = readdir(folder))) {
        char file[600];
        struct stat st;

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(file, sizeof file, "%s/%s", path, entry->d_name);
        if (lstat(file, &st) == 0 && S_ISDIR(st.st_mode))
            remove_tree(file);
        else
            unlink(file);
    }
    if (folder)
        closedir(folder);
    rmdir(path);
}

static inline void home_open(struct home *home)
{
    static unsigned made;
    struct rf_store_options options = {.mode = RF_STORE_CREATE, .segment_bytes = 256 << 10};

    memset(home, 0, sizeof *home);
    snprintf(home->path, sizeof home->path, "%s/refuge-index-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(home->path));
    snprintf(home->store_url, sizeof home->store_url, "disk:%s/store", home->path);
    if (on_postgres() || on_elastic())
        server_url(home->sink_url, sizeof home->sink_url, ++made);
    if (on_postgres() || on_elastic())
        snprintf(home->verify_url, sizeof home->verify_url, "sqlite:%s/verify.db", home->path);
    else
        snprintf(home->sink_url, sizeof home->sink_url, "sqlite:%s/main.db", home->path);
    OK(rf_store_open(&home->store, home->store_url, &options, err));
}

static inline void home_close(struct home *home)
{
    rf_store_close(home->store);
    OK(rf_sink_erase(home->sink_url, err));
    remove_tree(home->path);
}

/* Write a mapper file; the same slot again is a new version of it. */
static inline void set_mapper(struct home *home, size_t slot, const char *name, const char *text)
{
    char path[300];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s.lua", home->path, name);
    memcpy(home->mapper[slot], path, sizeof path);
    file = fopen(home->mapper[slot], "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    home->mappers[slot] = home->mapper[slot];
    if (slot >= home->mapper_count)
        home->mapper_count = slot + 1;
}

static inline void count_warning(void *user, const char *line)
{
    struct home *home = user;

    print_message("warning: %s\n", line);
    home->warned++;
}

static inline struct rf_index_options index_options(struct home *home)
{
    return (struct rf_index_options){
        .name = "main",
        .store_url = home->store_url,
        .sink_url = home->sink_url,
        .mappers = home->mappers,
        .mapper_count = home->mapper_count,
        .mapper_program = getenv("REFUGE_MAPPER"),
        .workers = 2,
        .verify_url = home->verify_url[0] ? home->verify_url : NULL,
        .hooks = {.warn = count_warning, .user = home},
    };
}

static inline void run_with(struct home *home, const struct rf_index_options *options)
{
    struct rf_index *index;

    (void)home;
    OK(rf_index_open(&index, options, err));
    OK(rf_index_run(index, false, err));
    rf_index_close(index);
}

static inline void run(struct home *home)
{
    struct rf_index_options options = index_options(home);

    run_with(home, &options);
}

static inline void print_problem(void *user, const char *line)
{
    (void)user;
    print_error("verify: %s\n", line);
}

static inline void verify(struct home *home)
{
    struct rf_index_options options = index_options(home);
    struct rf_compare_report report = {0};

    OK(rf_index_verify(&options, print_problem, &report, err));
    assert_int_equal(report.differences, 0);
}

static inline void put(struct home *home, const char *text, struct rf_blobref *ref)
{
    OK(rf_store_put(home->store, rf_bytes_text(text), NULL, false, ref, NULL, err));
}

static inline void delete(struct home *home, const struct rf_blobref *ref)
{
    OK(rf_store_delete(home->store, ref, NULL, err));
}

static inline enum rf_status take_number(void *user, uint64_t index, size_t count,
                                  const char *const *names, const struct rf_cell *cells)
{
    (void)index;
    (void)names;
    if (count != 1)
        return RF_INVALID;
    *(int64_t *)user = cells[0].type == RF_CELL_NULL ? -1 : cells[0].integer;
    return RF_OK;
}

/* The only cell of the answer; -1: null. */
static inline int64_t number(struct home *home, const char *sql)
{
    int64_t value = INT64_MIN;
    struct rf_buf answer;
    char cast[500];

    if (on_elastic()) {
        rf_buf_init(&answer, 1 << 20);
        elastic_ask(home->sink_url, sql, &answer);
        value = answer.size ? strtoll(rf_buf_text(&answer), NULL, 10) : -1;
        rf_buf_release(&answer);
        return value;
    }
    /* A sum is numeric in PostgreSQL. */
    snprintf(cast, sizeof cast, "%s%s%s", form("", "select ("), sql, form("", ")::bigint"));
    OK(rf_query_sql(home->sink_url, cast, NULL, take_number, &value, NULL, err));
    return value;
}

#endif
