/* table.c - open addressing by the digest's first bytes, at most half full. */
#include "blobstore/table.h"

#include <assert.h>
#include <stdlib.h>

void rf_entry_of(struct rf_entry *out, const struct rf_log_record *record, uint64_t first,
                 uint64_t offset)
{
    *out = (struct rf_entry){
        .ref.algo = record->algo,
        .op = record->op,
        .flags = record->flags & (RF_LOG_PART | RF_LOG_LIFT),
        .life = record->life,
        .seq = record->seq,
        .size = record->size,
        .timestamp_us = record->timestamp_us,
        .first = first,
        .offset = offset,
    };
    memcpy(out->ref.digest, record->digest, RF_DIGEST_SIZE);
}

void rf_entry_stat(const struct rf_entry *entry, struct rf_stat *out)
{
    *out = (struct rf_stat){
        .ref = entry->ref,
        .size = entry->size,
        .seq = entry->seq,
        .timestamp_us = entry->timestamp_us,
        .life = entry->life,
        .part = entry->flags & RF_LOG_PART,
    };
}

void rf_table_release(struct rf_table *table)
{
    free(table->slots);
    *table = (struct rf_table){0};
}

void rf_table_clear(struct rf_table *table)
{
    if (table->count)
        memset(table->slots, 0, table->capacity * sizeof *table->slots);
    table->count = 0;
}

/* Everything goes, so a chain may be cut: from where each entry's search begins, free what follows
 * up to a free slot. A slot cut off by an earlier round was freed in that round too. */
void rf_table_clear_all_of(struct rf_table *table, const struct rf_entry *entries, size_t count)
{
    size_t mask = table->capacity - 1;

    if (count >= table->capacity / 8) {
        rf_table_clear(table);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        size_t at = (size_t)rf_get_u64(entries[i].ref.digest) & mask;
        for (; table->slots[at].seq; at = (at + 1) & mask)
            table->slots[at].seq = 0;
    }
    table->count = 0;
}

static struct rf_entry *find_slot(const struct rf_table *table, const struct rf_blobref *ref)
{
    size_t mask = table->capacity - 1;
    size_t at = (size_t)rf_get_u64(ref->digest) & mask;

    while (table->slots[at].seq && !rf_blobref_equal(&table->slots[at].ref, ref))
        at = (at + 1) & mask;
    return &table->slots[at];
}

const struct rf_entry *rf_table_find(const struct rf_table *table, const struct rf_blobref *ref)
{
    const struct rf_entry *slot;

    if (table->count == 0)
        return NULL;
    slot = find_slot(table, ref);
    return slot->seq ? slot : NULL;
}

enum rf_status rf_table_reserve(struct rf_table *table, size_t more, struct rf_error *err)
{
    struct rf_table grown = {.capacity = table->capacity ? table->capacity : 64,
                             .count = table->count};

    while ((table->count + more) * 2 > grown.capacity)
        grown.capacity *= 2;
    if (grown.capacity == table->capacity)
        return RF_OK;
    grown.slots = calloc(grown.capacity, sizeof *grown.slots);
    if (!grown.slots)
        return rf_error_set(err, RF_NOMEM, "no memory for %zu more entries of the log's tail",
                            more);
    for (size_t i = 0; i < table->capacity; i++) {
        if (table->slots[i].seq)
            *find_slot(&grown, &table->slots[i].ref) = table->slots[i];
    }
    free(table->slots);
    *table = grown;
    return RF_OK;
}

void rf_table_put(struct rf_table *table, const struct rf_entry *entry)
{
    struct rf_entry *slot = find_slot(table, &entry->ref);

    assert(entry->seq > 0 && table->count < table->capacity);
    if (!slot->seq)
        table->count++;
    *slot = *entry;
}

static int compare_entries(const void *a, const void *b)
{
    return rf_blobref_compare(&((const struct rf_entry *)a)->ref,
                              &((const struct rf_entry *)b)->ref);
}

enum rf_status rf_table_sorted(const struct rf_table *table, struct rf_entry **out,
                               struct rf_error *err)
{
    struct rf_entry *entries = malloc((table->count + 1) * sizeof *entries);
    size_t count = 0;

    if (!entries)
        return rf_error_set(err, RF_NOMEM, "no memory to sort the log's tail");
    for (size_t i = 0; i < table->capacity; i++) {
        if (table->slots[i].seq)
            entries[count++] = table->slots[i];
    }
    qsort(entries, count, sizeof *entries, compare_entries);
    *out = entries;
    return RF_OK;
}
