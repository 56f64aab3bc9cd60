/*
 * bench_search.c - a search in a new process
 *
 * 50,000 items whose rows of 1 KB are searchable, queries of two words that both occur. Ours: this
 * program starts itself with --ask, which calls rf_query_search once and prints the hits as
 * `refuge search` does; and, where the program was built, `refuge search` itself, with its home.
 * Floor: the same process opening the same file and running one FTS5 query by bm25 with a snippet,
 * and the sqlite3 shell doing the same. A round is 50 queries, the time of one is shown.
 */
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bare_mapper.h"
#include "bench/bench.h"
#include "bench/data.h"
#include "bench/fill.h"
#include "indexer/index.h"
#include "sinks/query.h"

#define QUERIES 50
#define NOTE_SIZE 1000
#define NOTE_ROOM (NOTE_SIZE + 512)
#define HITS 20

static struct bench bench;

struct search_case {
    uint64_t count;
    char store[1024], index[1024];
};

static void query_words(char out[64], unsigned number)
{
    snprintf(out, 64, "%s %s", data_word(40 + number), data_word(300 + 7 * number));
}

static size_t make_note(char *out, size_t size, uint64_t number)
{
    int head = snprintf(out, NOTE_ROOM,
                        "{\"title\":\"note %llu\",\"created\":%llu,\"author\":{\"name\":\"Ann\","
                        "\"email\":\"ann@example.org\"},\"body\":\"",
                        (unsigned long long)number, (unsigned long long)number);
    size_t used = (size_t)head;

    used += data_words(out + used, size - used - 2, number);
    memcpy(out + used, "\"}", 2);
    return used + 2;
}

static void make_index(void *arg, struct bench_cost *cost)
{
    const struct search_case *search = arg;
    const char *mappers[] = {bare_mapper_path("notes_search.lua")};
    char store[1100], sink[1100];
    const struct rf_index_options options = {.name = "bench", .store_url = store,
        .sink_url = sink, .mappers = mappers, .mapper_count = 1,
        .mapper_program = bare_mapper_program()};
    struct rf_error err = {0};
    struct rf_index *index;

    (void)cost;
    snprintf(store, sizeof store, "disk:%s", search->store);
    snprintf(sink, sizeof sink, "sqlite:%s", search->index);
    fill_new_store(search->store, search->count, NOTE_ROOM, make_note, NOTE_SIZE);
    bench_must(rf_index_open(&index, &options, &err), &err, "cannot open the index");
    bench_must(rf_index_run(index, false, &err), &err, "cannot index");
    rf_index_close(index);
}

/* ---- the process that is started ---- */

static enum rf_status print_hit(void *user, const struct rf_hit *hit)
{
    unsigned *count = user;

    printf("%s %s %s\n", hit->item, hit->title ? hit->title : "", hit->snippet);
    (*count)++;
    return RF_OK;
}

static int ask_ours(const char *path, const char *words)
{
    struct rf_error err = {0};
    unsigned count = 0;
    uint64_t total = 0;
    char url[1100];

    snprintf(url, sizeof url, "sqlite:%s", path);
    bench_must(rf_query_search(url, words, NULL, print_hit, &count, &total, &err), &err,
               "cannot search");
    printf("%u of %llu\n", count, (unsigned long long)total);
    return count > 0 ? 0 : 3;
}

static const char floor_query[] =
    "SELECT notes.title, snippet(notes_fts, -1, '[', ']', '...', 16) FROM notes_fts JOIN notes ON "
    "notes.id = notes_fts.rowid WHERE notes_fts MATCH '%s' ORDER BY bm25(notes_fts) LIMIT 20";

static int ask_bare(const char *path, const char *words)
{
    char query[600];
    sqlite3_stmt *stmt;
    sqlite3 *db;
    unsigned count = 0;

    snprintf(query, sizeof query, floor_query, words);
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(db, query, -1, &stmt, NULL) != SQLITE_OK)
        bench_die("cannot ask '%s': %s", path, sqlite3_errmsg(db));
    for (; sqlite3_step(stmt) == SQLITE_ROW; count++)
        printf("%s %s\n", (const char *)sqlite3_column_text(stmt, 0),
               (const char *)sqlite3_column_text(stmt, 1));
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return count > 0 ? 0 : 3;
}

/* ---- the sides ---- */

static void start_self(const struct search_case *search, const char *how, struct bench_cost *cost)
{
    char words[64];

    bench_start(cost);
    for (unsigned i = 0; i < QUERIES; i++) {
        const char *argv[] = {"/proc/self/exe", how, search->index, words, NULL};
        int code;
        query_words(words, i);
        code = bench_spawn(argv, NULL);
        if (code != 0 && code != 3)
            bench_die("the search for '%s' ended with status %d", words, code);
    }
    bench_stop(cost, QUERIES);
}

static void search_ours(void *arg, struct bench_cost *cost)
{
    start_self(arg, "--ask", cost);
}

static void search_bare(void *arg, struct bench_cost *cost)
{
    start_self(arg, "--ask-bare", cost);
}

static void search_shell(void *arg, struct bench_cost *cost)
{
    const struct search_case *search = arg;
    char words[64], query[600];
    const char *argv[] = {"sqlite3", "-readonly", search->index, query, NULL};

    bench_start(cost);
    for (unsigned i = 0; i < QUERIES; i++) {
        int code;
        query_words(words, i);
        snprintf(query, sizeof query, floor_query, words);
        code = bench_spawn(argv, NULL);
        if (code == -1) {
            bench_skip(cost, "sqlite3 is not on PATH");
            return;
        }
        if (code != 0)
            bench_die("sqlite3 ended with status %d", code);
    }
    bench_stop(cost, QUERIES);
}

int main(int argc, char **argv)
{
    struct search_case search;
    char work[80];
    const struct bench_side sides[] = {
        {"rf_query_search", search_ours, &search, 0},
        {"bare sqlite3_open and one FTS5 query", search_bare, &search, 0},
        {"sqlite3 shell, the same query", search_shell, &search, 0}};

    if (argc == 4 && strcmp(argv[1], "--ask") == 0)
        return ask_ours(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "--ask-bare") == 0)
        return ask_bare(argv[2], argv[3]);
    bench_open(&bench, "search", &argc, argv);
    search.count = bench_count(&bench, 50000, 300);
    snprintf(search.store, sizeof search.store, "%s", bench_path(&bench, "store"));
    snprintf(search.index, sizeof search.index, "%s", bench_path(&bench, "index.db"));
    bench_prepare(make_index, &search, NULL);
    snprintf(work, sizeof work, "a search of two words, %llu items, new process",
             (unsigned long long)search.count);
    bench_compare(&bench, work, BENCH_BY_TIME, sides, 3);
    return bench_close(&bench);
}
