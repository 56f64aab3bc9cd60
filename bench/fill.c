/* fill.c - making the stores that benchmarks read */
#include "bench/fill.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"

/* Acts that are free, as a stack that the committer's thread pushes on. */
struct pool {
    pthread_mutex_t lock;
    sem_t count;
    struct rf_act *free;
};

static void push(struct rf_act *act)
{
    struct pool *pool = act->user;

    if (act->status != RF_OK)
        bench_die("cannot put: %s", act->error.message);
    pthread_mutex_lock(&pool->lock);
    act->next = pool->free;
    pool->free = act;
    pthread_mutex_unlock(&pool->lock);
    sem_post(&pool->count);
}

static struct rf_act *pop(struct pool *pool)
{
    struct rf_act *act;

    while (sem_wait(&pool->count) != 0)
        continue;
    pthread_mutex_lock(&pool->lock);
    act = pool->free;
    pool->free = act->next;
    pthread_mutex_unlock(&pool->lock);
    return act;
}

void fill_store(struct rf_store *store, uint64_t count, size_t in_flight, size_t room,
                size_t (*make)(char *out, size_t size, uint64_t number), size_t size)
{
    struct rf_act *acts = calloc(in_flight, sizeof *acts);
    char *bytes = malloc(in_flight * room);
    struct pool pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

    if (!acts || !bytes)
        bench_die("no memory for %zu blobs in flight", in_flight);
    sem_init(&pool.count, 0, 0);
    for (size_t i = 0; i < in_flight; i++) {
        acts[i].user = &pool;
        push(&acts[i]);
    }
    for (uint64_t number = 0; number < count; number++) {
        struct rf_act *act = pop(&pool);
        char *place = bytes + (size_t)(act - acts) * room;
        *act = (struct rf_act){.user = &pool, .done = push};
        act->bytes = rf_bytes(place, make(place, size, number));
        rf_store_submit(store, act);
    }
    for (size_t i = 0; i < in_flight; i++)
        pop(&pool);
    sem_destroy(&pool.count);
    free(bytes);
    free(acts);
}

void fill_new_store(const char *path, uint64_t count, size_t room,
                    size_t (*make)(char *out, size_t size, uint64_t number), size_t size)
{
    const struct rf_store_options options = {.mode = RF_STORE_CREATE};
    struct rf_error err = {0};
    struct rf_store *store;
    char url[1100];

    snprintf(url, sizeof url, "disk:%s", path);
    bench_must(rf_store_open(&store, url, &options, &err), &err, "cannot make a store");
    fill_store(store, count, 512, room, make, size);
    rf_store_close(store);
}
