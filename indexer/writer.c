/*
 * writer.c - see writer.h
 *
 * The lock is taken once for a group of units on either side, and a thread that waits is woken only
 * when what it waits for is so: room means half of the queue, so that it does not wake for each.
 */
#include "indexer/writer.h"

#include "core/control.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#define UNITS_MAX 512u
#define BYTES_MAX ((size_t)4 << 20) /* of output */

struct rf_writer {
    enum rf_status (*write)(void *user, struct rf_unit *units, struct rf_error *err);
    void *user;
    pthread_t thread;
    size_t out; /* put and not taken again; of the driving thread */

    pthread_mutex_t lock;
    pthread_cond_t work, fewer;
    struct rf_queue queued, written;
    size_t units, bytes;             /* put and not written */
    size_t units_wanted, bytes_wanted; /* the driving thread waits for no more than these */
    bool waiting, stopping;
    enum rf_status status;
    struct rf_error error;
};

static bool few_enough(const struct rf_writer *writer)
{
    return writer->units <= writer->units_wanted && writer->bytes <= writer->bytes_wanted;
}

/* With the lock. */
static void wait_for_fewer(struct rf_writer *writer, size_t units, size_t bytes)
{
    writer->units_wanted = units;
    writer->bytes_wanted = bytes;
    writer->waiting = true;
    while (!few_enough(writer))
        pthread_cond_wait(&writer->fewer, &writer->lock);
    writer->waiting = false;
}

/* Write some of what is queued. Entered and left with the lock. */
static void write_group(struct rf_writer *writer)
{
    enum rf_status status = writer->status;
    struct rf_error error = {0};
    struct rf_queue group;
    size_t bytes = 0, count;

    rf_queue_init(&group);
    while (writer->queued.head && group.count < RF_WRITER_GROUP_MAX)
        rf_queue_put(&group, rf_queue_take(&writer->queued));
    pthread_mutex_unlock(&writer->lock);
    for (const struct rf_unit *unit = group.head; unit; unit = unit->next)
        bytes += rf_unit_output_bytes(unit);
    if (status == RF_OK || !RF_SAFEGUARD("writer-stops"))
        status = writer->write(writer->user, group.head, &error);
    count = group.count;
    pthread_mutex_lock(&writer->lock);
    if (writer->status == RF_OK && status != RF_OK) {
        writer->status = status;
        writer->error = error;
    }
    rf_queue_append(&writer->written, &group);
    writer->units -= count;
    writer->bytes -= bytes;
    if (writer->waiting && few_enough(writer))
        pthread_cond_signal(&writer->fewer);
}

static void *run(void *arg)
{
    struct rf_writer *writer = arg;

    pthread_mutex_lock(&writer->lock);
    while (!writer->stopping) {
        if (writer->queued.head)
            write_group(writer);
        else
            pthread_cond_wait(&writer->work, &writer->lock);
    }
    pthread_mutex_unlock(&writer->lock);
    return NULL;
}

void rf_writer_put(struct rf_writer *writer, struct rf_queue *units)
{
    struct rf_unit *unit;

    if (!units->head)
        return;
    writer->out += units->count;
    pthread_mutex_lock(&writer->lock);
    while ((unit = rf_queue_take(units))) {
        size_t size = rf_unit_output_bytes(unit);

        if ((writer->units >= UNITS_MAX || writer->bytes + size > BYTES_MAX) &&
            RF_SAFEGUARD("writer-bound")) {
            pthread_cond_signal(&writer->work);
            wait_for_fewer(writer, UNITS_MAX / 2, BYTES_MAX / 2);
        }
        writer->units++;
        writer->bytes += size;
        rf_queue_put(&writer->queued, unit);
    }
    pthread_cond_signal(&writer->work);
    pthread_mutex_unlock(&writer->lock);
}

/* With the lock. */
static enum rf_status take(struct rf_writer *writer, struct rf_queue *units, struct rf_error *err)
{
    writer->out -= writer->written.count;
    rf_queue_append(units, &writer->written);
    if (writer->status != RF_OK && err)
        *err = writer->error;
    return writer->status;
}

enum rf_status rf_writer_take(struct rf_writer *writer, struct rf_queue *units,
                              struct rf_error *err)
{
    enum rf_status status;

    if (rf_writer_idle(writer))
        return RF_OK;
    pthread_mutex_lock(&writer->lock);
    status = take(writer, units, err);
    pthread_mutex_unlock(&writer->lock);
    return status;
}

enum rf_status rf_writer_settle(struct rf_writer *writer, struct rf_queue *units,
                                struct rf_error *err)
{
    enum rf_status status;

    pthread_mutex_lock(&writer->lock);
    wait_for_fewer(writer, 0, 0);
    status = take(writer, units, err);
    writer->status = RF_OK;
    pthread_mutex_unlock(&writer->lock);
    assert(rf_writer_idle(writer));
    return status;
}

bool rf_writer_idle(const struct rf_writer *writer)
{
    return writer->out == 0;
}

enum rf_status rf_writer_open(struct rf_writer **out,
                              enum rf_status (*write)(void *user, struct rf_unit *units,
                                                      struct rf_error *err),
                              void *user, struct rf_error *err)
{
    struct rf_writer *writer = calloc(1, sizeof *writer);

    if (!writer)
        return rf_error_set(err, RF_NOMEM, "no memory for a writer");
    writer->write = write;
    writer->user = user;
    rf_queue_init(&writer->queued);
    rf_queue_init(&writer->written);
    pthread_mutex_init(&writer->lock, NULL);
    pthread_cond_init(&writer->work, NULL);
    pthread_cond_init(&writer->fewer, NULL);
    if (pthread_create(&writer->thread, NULL, run, writer) != 0) {
        pthread_cond_destroy(&writer->fewer);
        pthread_cond_destroy(&writer->work);
        pthread_mutex_destroy(&writer->lock);
        free(writer);
        return rf_error_set(err, RF_NOMEM, "cannot start the thread that writes an index");
    }
    *out = writer;
    return RF_OK;
}

void rf_writer_close(struct rf_writer *writer)
{
    if (!writer)
        return;
    assert(rf_writer_idle(writer));
    pthread_mutex_lock(&writer->lock);
    writer->stopping = true;
    pthread_cond_signal(&writer->work);
    pthread_mutex_unlock(&writer->lock);
    pthread_join(writer->thread, NULL);
    pthread_cond_destroy(&writer->fewer);
    pthread_cond_destroy(&writer->work);
    pthread_mutex_destroy(&writer->lock);
    free(writer);
}
