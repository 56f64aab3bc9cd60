/*
 * bench_mapper.c - mapper calls in the jail beside the same Lua in a bare loop
 *
 * Ours: a pool with one worker (and, in rows of their own, one per core), driven by this thread as
 * the indexer drives it. Floor: bare_mapper.h, one thread, the same texts and notes, output made
 * and thrown away. Both are warmed up first, so that traces are compiled. CPU of ours is that of
 * the worker and of the host; both are also shown apart. Peer: node, where it is on PATH, with
 * JSON.parse of the same bytes and a function that makes the same three rows.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bare_mapper.h"
#include "bench/bench.h"
#include "bench/data.h"
#include "mappers/pool.h"

#define NOTES 1000
#define WARM 3000

static struct bench bench;

struct map_case {
    const char *mapper;
    size_t size; /* of a note */
    unsigned workers;
    uint64_t count;
};

struct note {
    struct rf_blobref ref;
    struct rf_bytes bytes;
};

static struct note *make_notes(size_t size)
{
    struct note *notes = calloc(NOTES, sizeof *notes);
    char *bytes = malloc(NOTES * (size + 512));

    if (!notes || !bytes)
        bench_die("no memory for notes");
    for (uint64_t i = 0; i < NOTES; i++) {
        char *place = bytes + i * (size + 512);
        notes[i].bytes = rf_bytes(place, data_note(place, size, i));
        rf_blobref_of(&notes[i].ref, notes[i].bytes);
    }
    return notes;
}

/* ---- ours ---- */

struct driver {
    struct rf_pool *pool;
    struct rf_mapper *mapper;
    const struct note *notes;
    uint64_t next, taken, count, rows;
};

static void fill_lane(struct driver *driver)
{
    const struct rf_mapper *mappers[] = {driver->mapper};
    struct rf_error err = {0};

    while (driver->next < driver->count) {
        const struct note *note = &driver->notes[driver->next % NOTES];
        struct rf_item *item = calloc(1, sizeof *item);
        enum rf_status status;
        if (!item)
            bench_die("no memory for an item");
        *item = (struct rf_item){.kind = RF_ITEM_BLOB, .ref = note->ref, .mtime_us = INT64_MIN,
                                 .timestamp_us = 1700000000000000, .seq = driver->next + 1,
                                 .size = note->bytes.size, .content = note->bytes.data};
        status = rf_pool_submit(driver->pool, RF_LANE_FAST, item, mappers, 1, &err);
        if (status == RF_UNAVAILABLE) {
            free(item);
            return;
        }
        bench_must(status, &err, "cannot submit");
        driver->next++;
    }
}

static void take_result(struct driver *driver, int timeout_ms)
{
    struct rf_error err = {0};
    struct rf_result *result;
    enum rf_status status = rf_pool_next(driver->pool, &result, timeout_ms, &err);

    if (status == RF_TIMEOUT && timeout_ms == 0)
        return;
    bench_must(status, &err, "no result");
    if (result->status != RF_OK || result->calls[0].outcome != RF_CALL_ROWS)
        bench_die("a note was not mapped: outcome %d, %s", (int)result->calls[0].outcome,
                  result->calls[0].message ? result->calls[0].message : result->error.message);
    driver->rows += result->calls[0].rows;
    driver->taken++;
    free(result->item);
    rf_result_free(result);
}

static void drive(struct driver *driver, uint64_t count)
{
    driver->next = driver->taken = driver->rows = 0;
    driver->count = count;
    while (driver->taken < count) {
        fill_lane(driver);
        take_result(driver, -1);
    }
}

static void map_jailed(void *arg, struct bench_cost *cost)
{
    const struct map_case *map = arg;
    const struct rf_pool_options options = {.program = bare_mapper_program(),
                                            .workers = map->workers};
    struct driver driver = {.notes = make_notes(map->size)};
    struct rf_error err = {0};

    bench_must(rf_pool_open(&driver.pool, &options, &err), &err, "cannot start mappers");
    bench_must(rf_pool_load(driver.pool, bare_mapper_path(map->mapper), &driver.mapper, &err),
               &err, "cannot load the mapper");
    drive(&driver, WARM);
    bench_start(cost);
    drive(&driver, map->count);
    bench_stop(cost, map->count);
    bench_note(cost, "us CPU of the host a call", cost->own_cpu_s * 1e6 / (double)map->count);
    bench_note(cost, "us CPU of the workers a call",
               (cost->cpu_s - cost->own_cpu_s) * 1e6 / (double)map->count);
    bench_note(cost, "rows a call", (double)driver.rows / (double)map->count);
    bench_note(cost, "MiB resident, largest worker", (double)cost->child_peak_kb / 1024);
    rf_pool_close(driver.pool);
}

/* ---- floor and peer ---- */

static void map_bare(void *arg, struct bench_cost *cost)
{
    const struct map_case *map = arg;
    const struct note *notes = make_notes(map->size);
    struct bare_mapper mapper;

    bare_mapper_open(&mapper, map->mapper);
    for (uint64_t i = 0; i < WARM; i++)
        bare_mapper_map(&mapper, &notes[i % NOTES].ref, notes[i % NOTES].bytes, i + 1);
    bench_start(cost);
    for (uint64_t i = 0; i < map->count; i++)
        bare_mapper_map(&mapper, &notes[i % NOTES].ref, notes[i % NOTES].bytes, i + 1);
    bench_stop(cost, map->count);
    bare_mapper_close(&mapper);
}

static void map_node(void *arg, struct bench_cost *cost)
{
    const struct map_case *map = arg;
    const struct note *notes = make_notes(map->size);
    char lines[1024], answer[1024], script[1024], count[24];
    const char *argv[] = {"node", script, lines, count, NULL};
    double wall, cpu;
    FILE *file;
    int code;

    snprintf(lines, sizeof lines, "%s", bench_path(&bench, "notes"));
    snprintf(answer, sizeof answer, "%s", bench_path(&bench, "node"));
    snprintf(script, sizeof script, "%s/bench/node_map.js", RF_SOURCE_DIR);
    snprintf(count, sizeof count, "%llu", (unsigned long long)map->count);
    file = fopen(lines, "we");
    for (size_t i = 0; file && i < NOTES; i++)
        fprintf(file, "%.*s\n", (int)notes[i].bytes.size, (const char *)notes[i].bytes.data);
    if (!file || fclose(file) != 0)
        bench_die("cannot write '%s'", lines);
    code = bench_spawn(argv, answer);
    if (code == -1) {
        bench_skip(cost, "node is not on PATH");
        return;
    }
    file = fopen(answer, "re");
    if (code != 0 || !file || fscanf(file, "%lf %lf", &wall, &cpu) != 2)
        bench_die("node ended with status %d", code);
    fclose(file);
    cost->items = map->count;
    cost->wall_s = wall;
    cost->cpu_s = cpu;
}

static void compare(const char *work, const char *mapper, size_t size, unsigned workers,
                    uint64_t count, double target, bool node)
{
    struct map_case map = {mapper, size, workers, bench_count(&bench, count, 200)};
    char ours[64];
    const struct bench_side sides[] = {
        {ours, map_jailed, &map, 0},
        {"the same Lua in a bare loop, one thread", map_bare, &map, target},
        {"node: JSON.parse and a function", map_node, &map, node ? 1.0 : 0}};

    snprintf(ours, sizeof ours, "jailed, %u worker%s", workers, workers == 1 ? "" : "s");
    bench_compare(&bench, work, BENCH_BY_CPU, sides, node ? 3 : 2);
}

/* The floor shall have the settings of the allocator in the jail (pool_zygote.c): they can only be
 * given to a program that starts. */
static void start_again(char **argv)
{
    if (getenv("GLIBC_TUNABLES"))
        return;
    setenv("GLIBC_TUNABLES", "glibc.malloc.tcache_count=256", 1);
    execv("/proc/self/exe", argv);
    bench_die("cannot start this program again");
}

int main(int argc, char **argv)
{
    start_again(argv);
    bench_open(&bench, "mapper", &argc, argv);
    compare("2 KB JSON, pick of 5 fields, 3 rows", "notes_pick.lua", 2048, 1, 100000, 0.85, true);
    compare("2 KB JSON, decoded whole, 3 rows", "notes_decode.lua", 2048, 1, 60000, 0.85, false);
    compare("400 B JSON, pick of 3 fields, 1 row", "notes_row.lua", 400, 1, 200000, 0, false);
    compare("2 KB JSON, pick of 5 fields, 3 rows, two workers", "notes_pick.lua", 2048, 2, 150000,
            0, false);
    return bench_close(&bench);
}
