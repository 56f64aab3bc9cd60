/*
 * bench_index.c - small JSON blobs from the log to rows
 *
 * Ours: rf_index_run over a store of notes of about 400 B, one row each, with as many jailed
 * workers as there are cores. Floor: one process, one thread, no jail, no queue, no checkpoint:
 * the notes from a flat file read in pieces of 1 MiB, SHA-256 of each, the same Lua in a bare
 * loop, its output decoded, prepared inserts into the same tables (bare_sink.h). Stages of ours,
 * per item: CPU of the host and of the workers; wall time its thread spent in feed and sink, CPU
 * of the calls.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bare_mapper.h"
#include "bench/bare_sink.h"
#include "bench/bench.h"
#include "bench/data.h"
#include "bench/fill.h"
#include "bench/floor_log.h"
#include "indexer/index.h"

#define NOTE_SIZE 400
#define NOTE_ROOM (NOTE_SIZE + 512)

static struct bench bench;

struct index_case {
    const char *mapper;
    uint64_t count;
    char store[1024], flat[1024];
};

static void make_data(void *arg, struct bench_cost *cost)
{
    const struct index_case *data = arg;
    FILE *flat = fopen(data->flat, "we");
    char note[NOTE_ROOM];
    uint8_t frame[4];

    (void)cost;
    fill_new_store(data->store, data->count, NOTE_ROOM, data_note, NOTE_SIZE);
    for (uint64_t i = 0; flat && i < data->count; i++) {
        size_t size = data_note(note, NOTE_SIZE, i);
        rf_put_u32(frame, (uint32_t)size);
        fwrite(frame, 1, sizeof frame, flat);
        fwrite(note, 1, size, flat);
    }
    if (!flat || fclose(flat) != 0)
        bench_die("cannot write '%s'", data->flat);
}

/* ---- ours ---- */

static void run_index(void *arg, struct bench_cost *cost)
{
    const struct index_case *data = arg;
    const char *mappers[] = {bare_mapper_path(data->mapper)};
    char store[1100], sink[1100], path[1024];
    const struct rf_index_options options = {.name = "bench", .store_url = store,
        .sink_url = sink, .mappers = mappers, .mapper_count = 1,
        .mapper_program = bare_mapper_program()};
    struct rf_index_progress totals;
    struct rf_error err = {0};
    struct rf_index *index;
    double count = (double)data->count;

    snprintf(path, sizeof path, "%s", bench_path(&bench, "index.db"));
    snprintf(store, sizeof store, "disk:%s", data->store);
    snprintf(sink, sizeof sink, "sqlite:%s", path);
    bench_must(rf_index_open(&index, &options, &err), &err, "cannot open the index");
    bench_start(cost);
    bench_must(rf_index_run(index, false, &err), &err, "cannot index");
    bench_stop(cost, data->count);
    rf_index_totals(index, &totals);
    if (totals.rows != data->count)
        bench_die("%llu rows of %llu items", (unsigned long long)totals.rows,
                  (unsigned long long)data->count);
    bench_note(cost, "us CPU of the host an item", cost->own_cpu_s * 1e6 / count);
    bench_note(cost, "us CPU of the workers an item",
               (cost->cpu_s - cost->own_cpu_s) * 1e6 / count);
    bench_note(cost, "us an item in feed", (double)totals.feed_us / count);
    bench_note(cost, "us CPU an item in calls", (double)totals.pool_cpu_us / count);
    bench_note(cost, "us an item in sink", (double)totals.sink_us / count);
    bench_note(cost, "MiB resident, host", (double)cost->peak_kb / 1024);
    bench_note(cost, "MiB resident, largest worker", (double)cost->child_peak_kb / 1024);
    rf_index_close(index);
    bench_remove(path);
}

/* ---- the floor ---- */

struct floor {
    struct bare_mapper mapper;
    struct bare_sink *sink;
    uint64_t seq;
};

static void floor_item(struct floor *floor, struct rf_bytes note)
{
    struct rf_blobref ref = {.algo = RF_ALGO_SHA256};
    char key[RF_BLOBREF_SIZE];
    struct rf_output_reader reader;
    struct rf_record record;
    struct rf_error err = {0};
    enum rf_status status;
    struct rf_bytes output;

    floor_hash(ref.digest, note.data, note.size);
    rf_blobref_format(&ref, key);
    output = bare_mapper_map(&floor->mapper, &ref, note, ++floor->seq);
    bare_sink_item(floor->sink, key, note.size, floor->seq);
    rf_output_init(&reader, output, floor->mapper.decl, note.size);
    while ((status = rf_output_next(&reader, &record, &err)) == RF_OK)
        bare_sink_row(floor->sink, record.table, record.values, record.column_count);
    if (status != RF_END)
        bench_die("cannot decode the output: %s", err.message);
    rf_output_release(&reader);
}

static void run_floor(void *arg, struct bench_cost *cost)
{
    const struct index_case *data = arg;
    const char *path = bench_path(&bench, "bare.db");
    FILE *flat = fopen(data->flat, "re");
    struct floor floor = {0};
    uint8_t frame[4], note[NOTE_ROOM];

    if (!flat)
        bench_die("cannot read '%s'", data->flat);
    setvbuf(flat, NULL, _IOFBF, 1 << 20);
    bare_mapper_open(&floor.mapper, data->mapper);
    floor.sink = bare_sink_open(path, floor.mapper.decl, BARE_TWO_TABLES);
    bench_start(cost);
    while (fread(frame, 1, sizeof frame, flat) == sizeof frame) {
        size_t size = rf_get_u32(frame);
        if (size > sizeof note || fread(note, 1, size, flat) != size)
            bench_die("'%s' is cut", data->flat);
        floor_item(&floor, rf_bytes(note, size));
    }
    bare_sink_commit(floor.sink);
    bench_stop(cost, floor.seq);
    bench_note(cost, "MiB resident", (double)cost->peak_kb / 1024);
    if (floor.seq != data->count)
        bench_die("%llu of %llu notes", (unsigned long long)floor.seq,
                  (unsigned long long)data->count);
    bare_sink_close(floor.sink);
    bare_mapper_close(&floor.mapper);
    fclose(flat);
    bench_remove(path);
}

static void compare(const char *what, const char *mapper, uint64_t count)
{
    struct index_case data = {.mapper = mapper, .count = bench_count(&bench, count, 300)};
    const struct bench_side sides[] = {
        {"index run: log, jail, sink", run_index, &data, 0},
        {"one process: read, hash, Lua, prepared inserts", run_floor, &data, 0}};
    char work[120];

    snprintf(data.store, sizeof data.store, "%s", bench_path(&bench, "store"));
    snprintf(data.flat, sizeof data.flat, "%s", bench_path(&bench, "flat"));
    bench_prepare(make_data, &data, NULL);
    snprintf(work, sizeof work, "%llu JSON blobs of 400 B, %s", (unsigned long long)data.count,
             what);
    bench_compare(&bench, work, BENCH_BY_RATE, sides, 2);
    bench_remove(data.store);
    bench_remove(data.flat);
}

int main(int argc, char **argv)
{
    bench_open(&bench, "index", &argc, argv);
    if (bench.rounds > 3)
        bench.rounds = 3; /* a round is a minute */
    compare("a row each", "notes_row.lua", 1000000);
    compare("a searchable row each (FTS5)", "notes_search.lua", 200000);
    return bench_close(&bench);
}
