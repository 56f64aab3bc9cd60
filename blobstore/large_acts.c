/* large_acts.c - see large_acts.h */
#include "blobstore/large_acts.h"

#include <pthread.h>
#include <stdlib.h>

struct rf_large_acts {
    struct rf_store *store;
    pthread_mutex_t lock;
    pthread_cond_t work, room;
    struct rf_act *first, **last;
    unsigned queued, idle, thread_count;
    pthread_t threads[RF_LARGE_THREADS];
    bool stopping;
};

/* The act's own answer, but for the call of done. */
static enum rf_status put_one(struct rf_store *store, struct rf_act *act)
{
    struct rf_blobref expect = act->ref;
    struct rf_large *large = NULL;
    enum rf_status status = store->ops->large_open(&large, store, &act->error);

    if (status != RF_OK)
        return status;
    status = store->ops->large_write(large, act->bytes, &act->error);
    if (status == RF_OK)
        status = store->ops->large_commit(large, expect.algo ? &expect : NULL, act->part,
                                          &act->ref, &act->outcome, &act->seq, &act->error);
    store->ops->large_close(large);
    return status;
}

static void *run(void *user)
{
    struct rf_large_acts *acts = user;

    pthread_mutex_lock(&acts->lock);
    for (;;) {
        struct rf_act *act;
        while (!acts->first && !acts->stopping) {
            acts->idle++;
            pthread_cond_wait(&acts->work, &acts->lock);
            acts->idle--;
        }
        act = acts->first;
        if (!act)
            break;
        acts->first = act->next;
        if (!acts->first)
            acts->last = &acts->first;
        acts->queued--;
        pthread_cond_signal(&acts->room);
        pthread_mutex_unlock(&acts->lock);
        act->next = NULL;
        act->status = put_one(acts->store, act);
        act->done(act);
        pthread_mutex_lock(&acts->lock);
    }
    pthread_mutex_unlock(&acts->lock);
    return NULL;
}

enum rf_status rf_large_acts_open(struct rf_large_acts **out, struct rf_store *store,
                                  struct rf_error *err)
{
    struct rf_large_acts *acts = calloc(1, sizeof *acts);

    if (!acts)
        return rf_error_set(err, RF_NOMEM, "no memory for puts of large blobs");
    acts->store = store;
    acts->last = &acts->first;
    pthread_mutex_init(&acts->lock, NULL);
    pthread_cond_init(&acts->work, NULL);
    pthread_cond_init(&acts->room, NULL);
    *out = acts;
    return RF_OK;
}

void rf_large_acts_close(struct rf_large_acts *acts)
{
    if (!acts)
        return;
    pthread_mutex_lock(&acts->lock);
    acts->stopping = true;
    pthread_cond_broadcast(&acts->work);
    pthread_mutex_unlock(&acts->lock);
    for (unsigned i = 0; i < acts->thread_count; i++)
        pthread_join(acts->threads[i], NULL);
    pthread_mutex_destroy(&acts->lock);
    pthread_cond_destroy(&acts->work);
    pthread_cond_destroy(&acts->room);
    free(acts);
}

/* Caller holds the lock. False: there is no thread, and none can be started. */
static bool have_thread(struct rf_large_acts *acts)
{
    if (acts->idle <= acts->queued && acts->thread_count < RF_LARGE_THREADS &&
        pthread_create(&acts->threads[acts->thread_count], NULL, run, acts) == 0)
        acts->thread_count++;
    return acts->thread_count > 0;
}

void rf_large_acts_submit(struct rf_large_acts *acts, struct rf_act *act)
{
    bool queued;

    pthread_mutex_lock(&acts->lock);
    while (acts->queued == RF_LARGE_QUEUE)
        pthread_cond_wait(&acts->room, &acts->lock);
    queued = have_thread(acts);
    if (queued) {
        *acts->last = act;
        acts->last = &act->next;
        acts->queued++;
        pthread_cond_signal(&acts->work);
    }
    pthread_mutex_unlock(&acts->lock);
    if (!queued) {
        act->status = put_one(acts->store, act);
        act->done(act);
    }
}
