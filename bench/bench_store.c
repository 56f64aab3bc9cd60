/*
 * bench_store.c - the store beside a bare group-committed file
 *
 * Rows: durable put with 1, 16 and 64 writer threads of one blob each, and 64 in flight from one
 * client thread; get in random order; reading the change queue with contents; opening a store of
 * a million blobs. Floors: floor_log.h, both, for puts; one flat file of the same payloads, read
 * at known places and hashed, for reads; SQLite's b-tree with as many keys for opening.
 */
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/data.h"
#include "bench/fill.h"
#include "bench/floor_log.h"
#include "blobstore/blobstore.h"

#define BLOB_SIZE 2048
#define SMALL_SIZE 100
#define WRITERS_MAX 64

static struct bench bench;

/* A payload that no other number has. */
static size_t make_blob(char *out, size_t size, uint64_t number)
{
    uint64_t state = number * 2 + 1;

    for (size_t at = 0; at < size; at += 8) {
        uint64_t bits = bench_random(&state);
        memcpy(out + at, &bits, size - at < 8 ? size - at : 8);
    }
    memcpy(out, &number, sizeof number);
    return size;
}

static struct rf_store *open_store(const char *path, enum rf_store_mode mode)
{
    const struct rf_store_options options = {.mode = mode};
    struct rf_error err = {0};
    struct rf_store *store;
    char url[1100];

    snprintf(url, sizeof url, "disk:%s", path);
    bench_must(rf_store_open(&store, url, &options, &err), &err, "cannot open the store");
    return store;
}

/* ---- put ---- */

struct put_case {
    unsigned writers;
    uint64_t count; /* in all */
    struct rf_store *store;
    struct floor_log *log;
    struct floor_pack *pack;
};

struct writer {
    const struct put_case *put;
    unsigned index;
};

static void *write_ours(void *arg)
{
    const struct writer *writer = arg;
    const struct put_case *put = writer->put;
    struct rf_error err = {0};
    char bytes[BLOB_SIZE];

    for (uint64_t number = writer->index; number < put->count; number += put->writers) {
        make_blob(bytes, BLOB_SIZE, number);
        bench_must(rf_store_put(put->store, rf_bytes(bytes, BLOB_SIZE), NULL, false, NULL, NULL,
                                &err), &err, "cannot put");
    }
    return NULL;
}

static void *write_floor(void *arg)
{
    const struct writer *writer = arg;
    const struct put_case *put = writer->put;
    uint8_t bytes[BLOB_SIZE];
    sem_t done;

    sem_init(&done, 0, 0);
    for (uint64_t number = writer->index; number < put->count; number += put->writers) {
        struct floor_put one = {.bytes = bytes, .size = BLOB_SIZE, .done = &done};
        make_blob((char *)bytes, BLOB_SIZE, number);
        floor_log_submit(put->log, &one);
        while (sem_wait(&done) != 0)
            continue;
    }
    sem_destroy(&done);
    return NULL;
}

static void *write_pack(void *arg)
{
    const struct writer *writer = arg;
    const struct put_case *put = writer->put;
    char bytes[BLOB_SIZE];

    for (uint64_t number = writer->index; number < put->count; number += put->writers) {
        make_blob(bytes, BLOB_SIZE, number);
        floor_pack_put(put->pack, bytes, BLOB_SIZE);
    }
    return NULL;
}

static void run_writers(const struct put_case *put, void *(*body)(void *))
{
    pthread_t threads[WRITERS_MAX];
    struct writer writers[WRITERS_MAX];

    for (unsigned i = 0; i < put->writers; i++) {
        writers[i] = (struct writer){put, i};
        if (pthread_create(&threads[i], NULL, body, &writers[i]) != 0)
            bench_die("cannot start writer %u", i);
    }
    for (unsigned i = 0; i < put->writers; i++)
        pthread_join(threads[i], NULL);
}

static void put_ours(void *arg, struct bench_cost *cost)
{
    struct put_case *put = arg;
    const char *path = bench_path(&bench, "put-store");

    put->store = open_store(path, RF_STORE_CREATE);
    bench_start(cost);
    run_writers(put, write_ours);
    bench_stop(cost, put->count);
    rf_store_close(put->store);
    bench_remove(path);
}

static void put_floor(void *arg, struct bench_cost *cost)
{
    struct put_case *put = arg;
    const char *path = bench_path(&bench, "put-floor");
    struct floor_log log;

    floor_log_open(&log, path, put->count * (BLOB_SIZE + FLOOR_HEADER_SIZE));
    put->log = &log;
    bench_start(cost);
    run_writers(put, write_floor);
    bench_stop(cost, put->count);
    bench_note(cost, "blobs a sync", (double)put->count / (double)log.syncs);
    floor_log_close(&log);
    unlink(path);
}

static void put_pack(void *arg, struct bench_cost *cost)
{
    struct put_case *put = arg;
    const char *path = bench_path(&bench, "put-pack");
    struct floor_pack pack;

    floor_pack_open(&pack, path);
    put->pack = &pack;
    bench_start(cost);
    run_writers(put, write_pack);
    bench_stop(cost, put->count);
    bench_note(cost, "blobs a sync", (double)put->count / (double)pack.syncs);
    floor_pack_close(&pack);
    unlink(path);
}

static void post_done(struct rf_act *act)
{
    if (act->status != RF_OK)
        bench_die("cannot put: %s", act->error.message);
    sem_post(act->user);
}

/* One client, many in flight: each in its place, when the one there before is answered. */
static void client_ours(void *arg, struct bench_cost *cost)
{
    const struct put_case *put = arg;
    const char *path = bench_path(&bench, "put-store");
    struct rf_store *store = open_store(path, RF_STORE_CREATE);
    static struct rf_act acts[WRITERS_MAX];
    static char bytes[WRITERS_MAX][BLOB_SIZE];
    sem_t done[WRITERS_MAX];

    for (unsigned i = 0; i < put->writers; i++)
        sem_init(&done[i], 0, 1);
    bench_start(cost);
    for (uint64_t number = 0; number < put->count; number++) {
        unsigned i = (unsigned)(number % put->writers);
        while (sem_wait(&done[i]) != 0)
            continue;
        acts[i] = (struct rf_act){.bytes = rf_bytes(bytes[i], BLOB_SIZE), .done = post_done,
                                  .user = &done[i]};
        make_blob(bytes[i], BLOB_SIZE, number);
        rf_store_submit(store, &acts[i]);
    }
    for (unsigned i = 0; i < put->writers; i++)
        while (sem_wait(&done[i]) != 0)
            continue;
    bench_stop(cost, put->count);
    rf_store_close(store);
    bench_remove(path);
}

static void client_floor(void *arg, struct bench_cost *cost)
{
    const struct put_case *put = arg;
    const char *path = bench_path(&bench, "put-floor");
    static struct floor_put puts[WRITERS_MAX];
    static uint8_t bytes[WRITERS_MAX][BLOB_SIZE];
    sem_t done[WRITERS_MAX];
    struct floor_log log;

    floor_log_open(&log, path, put->count * (BLOB_SIZE + FLOOR_HEADER_SIZE));
    for (unsigned i = 0; i < put->writers; i++)
        sem_init(&done[i], 0, 1);
    bench_start(cost);
    for (uint64_t number = 0; number < put->count; number++) {
        unsigned i = (unsigned)(number % put->writers);
        while (sem_wait(&done[i]) != 0)
            continue;
        make_blob((char *)bytes[i], BLOB_SIZE, number);
        puts[i] = (struct floor_put){.bytes = bytes[i], .size = BLOB_SIZE, .done = &done[i]};
        floor_log_submit(&log, &puts[i]);
    }
    for (unsigned i = 0; i < put->writers; i++)
        while (sem_wait(&done[i]) != 0)
            continue;
    bench_stop(cost, put->count);
    bench_note(cost, "blobs a sync", (double)put->count / (double)log.syncs);
    floor_log_close(&log);
    unlink(path);
}

static void bench_puts(void)
{
    static const struct {
        unsigned writers;
        uint64_t count;
        double target;
    } cases[] = {{1, 2000, 0.8}, {16, 24000, 0.8}, {64, 60000, 0.8}};
    char work[80];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct put_case put = {.writers = cases[i].writers,
                               .count = bench_count(&bench, cases[i].count, 64)};
        const struct bench_side sides[] = {
            {"rf_store_put, disk store", put_ours, &put, 0},
            {"committer: SHA-256, pwritev, fdatasync, preallocated", put_floor, &put,
             cases[i].target},
            {"leader: SHA-256, pwrite under a lock, fdatasync", put_pack, &put, 0}};
        snprintf(work, sizeof work, "durable put of 2 KB, %u in flight (a thread each)",
                 put.writers);
        bench_compare(&bench, work, BENCH_BY_RATE, sides, 3);
    }
    struct put_case put = {.writers = 64, .count = bench_count(&bench, 60000, 64)};
    const struct bench_side sides[] = {
        {"rf_store_submit, disk store", client_ours, &put, 0},
        {"committer: SHA-256, pwritev, fdatasync, preallocated", client_floor, &put, 0.8}};
    bench_compare(&bench, "durable put of 2 KB, 64 in flight from one thread", BENCH_BY_RATE,
                  sides, 2);
}

/* ---- get and feed ---- */

struct read_case {
    uint64_t count;
    const char *store, *flat;
};

static void make_readable(void *arg, struct bench_cost *cost)
{
    const struct read_case *data = arg;
    char bytes[BLOB_SIZE];
    FILE *flat = fopen(data->flat, "we");

    (void)cost;
    fill_new_store(data->store, data->count, BLOB_SIZE, make_blob, BLOB_SIZE);
    for (uint64_t number = 0; flat && number < data->count; number++) {
        make_blob(bytes, BLOB_SIZE, number);
        fwrite(bytes, 1, BLOB_SIZE, flat);
    }
    if (!flat || fclose(flat) != 0)
        bench_die("cannot write '%s'", data->flat);
}

/* What was asked for in which order; a prime step reaches every number once. */
static struct rf_blobref *make_refs(uint64_t count)
{
    struct rf_blobref *refs = calloc(count, sizeof *refs);
    char bytes[BLOB_SIZE];

    for (uint64_t number = 0; refs && number < count; number++) {
        make_blob(bytes, BLOB_SIZE, number);
        rf_blobref_of(&refs[number], rf_bytes(bytes, BLOB_SIZE));
    }
    if (!refs)
        bench_die("no memory for %llu refs", (unsigned long long)count);
    return refs;
}

static uint64_t nth(const struct read_case *data, uint64_t i)
{
    return i * 7368787 % data->count;
}

static void get_ours(void *arg, struct bench_cost *cost)
{
    const struct read_case *data = arg;
    struct rf_blobref *refs = make_refs(data->count);
    struct rf_store *store = open_store(data->store, RF_STORE_READ);
    struct rf_error err = {0};
    struct rf_buf buf;

    rf_buf_init(&buf, RF_BLOB_INLINE_MAX);
    bench_start(cost);
    for (uint64_t i = 0; i < data->count; i++) {
        rf_buf_clear(&buf);
        bench_must(rf_store_get(store, &refs[nth(data, i)], &buf, &err), &err, "cannot get");
    }
    bench_stop(cost, data->count);
    rf_buf_release(&buf);
    rf_store_close(store);
    free(refs);
}

static void get_floor(void *arg, struct bench_cost *cost)
{
    const struct read_case *data = arg;
    struct rf_blobref *refs = make_refs(data->count);
    int fd = open(data->flat, O_RDONLY | O_CLOEXEC);
    uint8_t bytes[BLOB_SIZE], digest[RF_DIGEST_SIZE];

    bench_start(cost);
    for (uint64_t i = 0; i < data->count; i++) {
        uint64_t number = nth(data, i);
        if (pread(fd, bytes, BLOB_SIZE, (off_t)(number * BLOB_SIZE)) != BLOB_SIZE)
            bench_die("cannot read '%s'", data->flat);
        floor_hash(digest, bytes, BLOB_SIZE);
        if (memcmp(digest, refs[number].digest, RF_DIGEST_SIZE) != 0)
            bench_die("'%s' is not what was written", data->flat);
    }
    bench_stop(cost, data->count);
    close(fd);
    free(refs);
}

static void feed_ours(void *arg, struct bench_cost *cost)
{
    const struct read_case *data = arg;
    struct rf_store *store = open_store(data->store, RF_STORE_READ);
    struct rf_error err = {0};
    struct rf_change change;
    struct rf_bytes bytes;
    struct rf_feed *feed;
    enum rf_status status;
    uint64_t count = 0;

    bench_start(cost);
    bench_must(rf_feed_open(&feed, store, NULL, &err), &err, "cannot follow the queue");
    while ((status = rf_feed_next(feed, &change, 0, &err)) == RF_OK) {
        bench_must(rf_feed_blob(feed, &bytes, &err), &err, "cannot read a change");
        count++;
    }
    bench_stop(cost, count);
    if (status != RF_TIMEOUT || count != data->count)
        bench_die("the queue gave %llu changes, not %llu: %s", (unsigned long long)count,
                  (unsigned long long)data->count, err.message);
    rf_feed_close(feed);
    rf_store_close(store);
}

static void feed_floor(void *arg, struct bench_cost *cost)
{
    const struct read_case *data = arg;
    int fd = open(data->flat, O_RDONLY | O_CLOEXEC);
    size_t room = 1 << 20;
    uint8_t *bytes = malloc(room), digest[RF_DIGEST_SIZE];
    uint64_t count = 0;
    ssize_t got;

    bench_start(cost);
    while (bytes && (got = read(fd, bytes, room)) > 0)
        for (size_t at = 0; at + BLOB_SIZE <= (size_t)got; at += BLOB_SIZE, count++)
            floor_hash(digest, bytes + at, BLOB_SIZE);
    bench_stop(cost, count);
    if (count != data->count)
        bench_die("cannot read '%s'", data->flat);
    free(bytes);
    close(fd);
}

static void bench_reads(void)
{
    char store[1024], flat[1024];
    struct read_case data = {bench_count(&bench, 100000, 200), store, flat};
    const struct bench_side gets[] = {
        {"rf_store_get, disk store", get_ours, &data, 0},
        {"pread at a known place, SHA-256", get_floor, &data, 0.8}};
    const struct bench_side feeds[] = {
        {"rf_feed_next, rf_feed_blob", feed_ours, &data, 0},
        {"read in pieces of 1 MiB, SHA-256 of each blob", feed_floor, &data, 0.8}};

    snprintf(store, sizeof store, "%s", bench_path(&bench, "read-store"));
    snprintf(flat, sizeof flat, "%s", bench_path(&bench, "read-flat"));
    bench_prepare(make_readable, &data, NULL);
    bench_compare(&bench, "get of 2 KB, random order, in the page cache", BENCH_BY_RATE, gets, 2);
    bench_compare(&bench, "change queue with contents of 2 KB", BENCH_BY_RATE, feeds, 2);
    bench_remove(store);
    bench_remove(flat);
}

/* ---- open ---- */

static size_t make_small(char *out, size_t size, uint64_t number)
{
    return make_blob(out, size, number);
}

static void make_openable(void *arg, struct bench_cost *cost)
{
    const struct read_case *data = arg;

    bench_start(cost);
    fill_new_store(data->store, data->count, SMALL_SIZE, make_small, SMALL_SIZE);
    bench_stop(cost, data->count);
}

static void run_sql(sqlite3 *db, const char *sql)
{
    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
        bench_die("%s: %s", sql, sqlite3_errmsg(db));
}

static void make_btree(void *arg, struct bench_cost *cost)
{
    const struct read_case *data = arg;
    char bytes[SMALL_SIZE];
    struct rf_blobref ref;
    sqlite3_stmt *insert;
    sqlite3 *db;

    (void)cost;
    if (sqlite3_open(data->flat, &db) != SQLITE_OK)
        bench_die("cannot open '%s'", data->flat);
    run_sql(db, "PRAGMA page_size=16384; PRAGMA cache_size=-262144; PRAGMA synchronous=OFF;"
                "CREATE TABLE t(ref BLOB PRIMARY KEY, seq, segment, place, size) WITHOUT ROWID;"
                "BEGIN");
    sqlite3_prepare_v2(db, "INSERT INTO t VALUES(?1,?2,1,?2,100)", -1, &insert, NULL);
    for (uint64_t number = 0; number < data->count; number++) {
        make_small(bytes, SMALL_SIZE, number);
        rf_blobref_of(&ref, rf_bytes(bytes, SMALL_SIZE));
        sqlite3_bind_blob(insert, 1, ref.digest, RF_DIGEST_SIZE, SQLITE_STATIC);
        sqlite3_bind_int64(insert, 2, (int64_t)number);
        if (sqlite3_step(insert) != SQLITE_DONE)
            bench_die("cannot insert: %s", sqlite3_errmsg(db));
        sqlite3_reset(insert);
    }
    sqlite3_finalize(insert);
    run_sql(db, "COMMIT");
    sqlite3_close(db);
}

/* A blob in the middle, so that the open is of some use. */
static void ref_of_small(const struct read_case *data, struct rf_blobref *ref)
{
    char bytes[SMALL_SIZE];

    make_small(bytes, SMALL_SIZE, data->count / 2);
    rf_blobref_of(ref, rf_bytes(bytes, SMALL_SIZE));
}

static void open_and_get(const struct read_case *data, enum rf_store_mode mode,
                         struct bench_cost *cost)
{
    struct rf_error err = {0};
    struct rf_blobref ref;
    struct rf_store *store;
    struct rf_buf buf;

    ref_of_small(data, &ref);
    rf_buf_init(&buf, RF_BLOB_INLINE_MAX);
    bench_start(cost);
    store = open_store(data->store, mode);
    bench_must(rf_store_get(store, &ref, &buf, &err), &err, "cannot get");
    bench_stop(cost, 1);
    bench_note(cost, "MiB resident", (double)cost->peak_kb / 1024);
    rf_buf_release(&buf);
    rf_store_close(store);
}

static void open_reader(void *arg, struct bench_cost *cost)
{
    open_and_get(arg, RF_STORE_READ, cost);
}

static void open_writer(void *arg, struct bench_cost *cost)
{
    open_and_get(arg, RF_STORE_WRITE, cost);
}

static void open_btree(void *arg, struct bench_cost *cost)
{
    const struct read_case *data = arg;
    struct rf_blobref ref;
    sqlite3_stmt *select;
    sqlite3 *db;

    ref_of_small(data, &ref);
    bench_start(cost);
    if (sqlite3_open_v2(data->flat, &db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(db, "SELECT place FROM t WHERE ref=?1", -1, &select, NULL) != SQLITE_OK)
        bench_die("cannot open '%s'", data->flat);
    sqlite3_bind_blob(select, 1, ref.digest, RF_DIGEST_SIZE, SQLITE_STATIC);
    if (sqlite3_step(select) != SQLITE_ROW)
        bench_die("cannot find the ref in '%s'", data->flat);
    bench_stop(cost, 1);
    bench_note(cost, "MiB resident", (double)cost->peak_kb / 1024);
    sqlite3_finalize(select);
    sqlite3_close(db);
}

static void bench_opens(void)
{
    char store[1024], flat[1024], work[100];
    struct read_case data = {bench_count(&bench, 1000000, 500), store, flat};
    struct bench_cost filled;
    const struct bench_side readers[] = {
        {"rf_store_open to read, one get", open_reader, &data, 0},
        {"sqlite3_open of as many keys, one lookup", open_btree, &data, 0}};
    const struct bench_side writers[] = {
        {"rf_store_open to write, one get", open_writer, &data, 0},
        {"sqlite3_open of as many keys, one lookup", open_btree, &data, 0}};

    snprintf(store, sizeof store, "%s", bench_path(&bench, "open-store"));
    snprintf(flat, sizeof flat, "%s", bench_path(&bench, "open-btree"));
    bench_prepare(make_openable, &data, &filled);
    if (bench.table)
        printf("%s: filled with %llu blobs of %d B: %.0f /s, %.2f us CPU, %.0f MiB resident\n",
               bench.name, (unsigned long long)data.count, SMALL_SIZE,
               (double)filled.items / filled.wall_s,
               filled.cpu_s * 1e6 / (double)filled.items, (double)filled.peak_kb / 1024);
    bench_prepare(make_btree, &data, NULL);
    snprintf(work, sizeof work, "open to read, %llu small blobs", (unsigned long long)data.count);
    bench_compare(&bench, work, BENCH_BY_TIME, readers, 2);
    snprintf(work, sizeof work, "open to write, %llu small blobs", (unsigned long long)data.count);
    bench_compare(&bench, work, BENCH_BY_TIME, writers, 2);
    bench_remove(store);
    bench_remove(flat);
}

int main(int argc, char **argv)
{
    bench_open(&bench, "store", &argc, argv);
    if (argc == 1 || strcmp(argv[1], "put") == 0)
        bench_puts();
    if (argc == 1 || strcmp(argv[1], "read") == 0)
        bench_reads();
    if (argc == 1 || strcmp(argv[1], "open") == 0)
        bench_opens();
    return bench_close(&bench);
}
