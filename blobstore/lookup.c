/* lookup.c - see lookup.h */
#include "blobstore/lookup.h"

#include <stdlib.h>

void rf_lookup_init(struct rf_lookup *lookup)
{
    *lookup = (struct rf_lookup){0};
    pthread_mutex_init(&lookup->lock, NULL);
}

void rf_lookup_release(struct rf_lookup *lookup)
{
    rf_table_release(&lookup->tail);
    pthread_mutex_destroy(&lookup->lock);
}

enum rf_status rf_lookup_find(struct rf_lookup *lookup, const struct rf_blobref *ref,
                              struct rf_entry *out, uint64_t *epoch, struct rf_error *err)
{
    const struct rf_entry *entry;
    char text[RF_BLOBREF_SIZE];

    pthread_mutex_lock(&lookup->lock);
    entry = rf_table_find(&lookup->tail, ref);
    if (entry)
        *out = *entry;
    if (epoch)
        *epoch = lookup->epoch;
    pthread_mutex_unlock(&lookup->lock);
    if (entry)
        return RF_OK;
    rf_blobref_format(ref, text);
    return rf_error_set(err, RF_NOT_FOUND, "no blob %s in this store", text);
}

enum rf_status rf_lookup_newer(struct rf_lookup *lookup, const struct rf_blobref *ref,
                               uint64_t epoch, struct rf_entry *out)
{
    const struct rf_entry *entry = rf_table_find(&lookup->tail, ref);

    if (entry) {
        *out = *entry;
        return RF_OK;
    }
    return epoch == lookup->epoch ? RF_END : RF_NOT_FOUND;
}

enum rf_status rf_lookup_reserve(struct rf_lookup *lookup, size_t count, struct rf_error *err)
{
    enum rf_status status;

    pthread_mutex_lock(&lookup->lock);
    status = rf_table_reserve(&lookup->tail, count, err);
    pthread_mutex_unlock(&lookup->lock);
    return status;
}

void rf_lookup_add(struct rf_lookup *lookup, const struct rf_entry *entries, size_t count)
{
    pthread_mutex_lock(&lookup->lock);
    for (size_t i = 0; i < count; i++)
        rf_table_put(&lookup->tail, &entries[i]);
    pthread_mutex_unlock(&lookup->lock);
}

enum rf_status rf_lookup_list(struct rf_lookup *lookup, const struct rf_blobref *after,
                              enum rf_status (*visit)(void *user, const struct rf_entry *entry),
                              void *user, struct rf_error *err)
{
    struct rf_entry *entries;
    size_t count;
    enum rf_status status;

    pthread_mutex_lock(&lookup->lock);
    status = rf_table_sorted(&lookup->tail, &entries, err);
    count = lookup->tail.count;
    pthread_mutex_unlock(&lookup->lock);
    if (status != RF_OK)
        return status;
    for (size_t i = 0; i < count && status == RF_OK; i++) {
        if (!after || rf_blobref_compare(&entries[i].ref, after) > 0)
            status = visit(user, &entries[i]);
    }
    free(entries);
    return status;
}
