/* maintain.c - see maintain.h */
#include "blobstore/maintain.h"

#include <pthread.h>
#include <stdlib.h>

#include "blobstore/disk.h"

#define CLOSE_ENTRIES 65536 /* runs of so many entries in all are merged while closing */

struct rf_maintain {
    struct rf_disk *disk;
    pthread_t thread;
    pthread_mutex_t lock, work; /* work: held by whoever merges, heals or compacts */
    pthread_cond_t wake;
    bool poked, stopping;
};

static bool is_stopping(struct rf_maintain *maintain)
{
    bool stopping;

    pthread_mutex_lock(&maintain->lock);
    stopping = maintain->stopping;
    pthread_mutex_unlock(&maintain->lock);
    return stopping;
}

/* One piece of work. false: nothing to do, or it failed. */
static bool do_one(struct rf_maintain *maintain)
{
    struct rf_disk *disk = maintain->disk;
    enum rf_status status;

    pthread_mutex_lock(&maintain->work);
    status = rf_lookup_heal(&disk->lookup, NULL);
    if (status == RF_END)
        status = rf_lookup_merge(&disk->lookup, UINT64_MAX, NULL);
    pthread_mutex_unlock(&maintain->work);
    if (status == RF_OK)
        rf_disk_raise_epoch(disk);
    return status == RF_OK;
}

static void compact_if_due(struct rf_maintain *maintain)
{
    struct rf_disk *disk = maintain->disk;
    struct rf_head_state state;
    uint64_t freed = 0;

    if (rf_disk_state(disk, &state, NULL) != RF_OK || state.dead < disk->segment_bytes / 2)
        return;
    pthread_mutex_lock(&maintain->work);
    if (rf_disk_compact_all(disk, &freed, NULL) != RF_OK)
        freed = 0; /* what failed is tried when as much has been deleted again */
    pthread_mutex_unlock(&maintain->work);
}

static void *run(void *user)
{
    struct rf_maintain *maintain = user;

    for (;;) {
        bool stopping;
        pthread_mutex_lock(&maintain->lock);
        while (!maintain->poked && !maintain->stopping)
            pthread_cond_wait(&maintain->wake, &maintain->lock);
        maintain->poked = false;
        stopping = maintain->stopping;
        pthread_mutex_unlock(&maintain->lock);
        if (stopping)
            return NULL;
        while (do_one(maintain) && !is_stopping(maintain))
            ;
        if (!is_stopping(maintain))
            compact_if_due(maintain);
    }
}

static void poke(void *user)
{
    rf_maintain_poke(user);
}

enum rf_status rf_maintain_open(struct rf_maintain **out, struct rf_disk *disk,
                                struct rf_error *err)
{
    struct rf_maintain *maintain = calloc(1, sizeof *maintain);

    if (!maintain)
        return rf_error_set(err, RF_NOMEM, "no memory for the maintenance thread");
    maintain->disk = disk;
    maintain->poked = true;
    pthread_mutex_init(&maintain->lock, NULL);
    pthread_mutex_init(&maintain->work, NULL);
    pthread_cond_init(&maintain->wake, NULL);
    disk->lookup.user = maintain;
    disk->lookup.damaged = poke;
    if (pthread_create(&maintain->thread, NULL, run, maintain) != 0) {
        disk->lookup.damaged = NULL;
        free(maintain);
        return rf_error_set(err, RF_NOMEM, "cannot start the maintenance thread");
    }
    *out = maintain;
    return RF_OK;
}

void rf_maintain_close(struct rf_maintain *maintain)
{
    if (!maintain)
        return;
    pthread_mutex_lock(&maintain->lock);
    maintain->stopping = true;
    pthread_cond_signal(&maintain->wake);
    pthread_mutex_unlock(&maintain->lock);
    pthread_join(maintain->thread, NULL);
    maintain->disk->lookup.damaged = NULL;
    while (rf_lookup_merge(&maintain->disk->lookup, CLOSE_ENTRIES, NULL) == RF_OK)
        ;
    pthread_mutex_destroy(&maintain->lock);
    pthread_mutex_destroy(&maintain->work);
    pthread_cond_destroy(&maintain->wake);
    free(maintain);
}

void rf_maintain_poke(struct rf_maintain *maintain)
{
    if (!maintain)
        return;
    pthread_mutex_lock(&maintain->lock);
    maintain->poked = true;
    pthread_cond_signal(&maintain->wake);
    pthread_mutex_unlock(&maintain->lock);
}

void rf_maintain_begin(struct rf_maintain *maintain)
{
    pthread_mutex_lock(&maintain->work);
}

void rf_maintain_end(struct rf_maintain *maintain)
{
    pthread_mutex_unlock(&maintain->work);
}
