/*
 * table.c - entries in an array, found by an index with open addressing, at most half full
 *
 * A put looks for its blob three times before it is entered, most often in vain: such a look stays
 * within the index, which is a tenth of the entries and fits a cache.
 */
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
    free(table->entries);
    free(table->index);
    *table = (struct rf_table){0};
}

static uint64_t hash_of(const struct rf_blobref *ref)
{
    return rf_get_u64(ref->digest);
}

/* The upper half of the hash tells entries apart, the lower says where the search begins. */
static uint64_t tag_of(uint64_t hash)
{
    return hash & ~(uint64_t)UINT32_MAX;
}

static struct rf_entry *entry_at(const struct rf_table *table, uint64_t slot)
{
    return &table->entries[(uint32_t)slot - 1];
}

/* Everything goes, so a chain may be cut: from where each entry's search begins, free what follows
 * up to a free slot. A slot cut off by an earlier round was freed in that round too. */
void rf_table_clear(struct rf_table *table)
{
    size_t mask = table->capacity - 1;

    if (table->count >= table->capacity / 8 && table->count > 0) {
        memset(table->index, 0, table->capacity * sizeof *table->index);
    } else {
        for (size_t i = 0; i < table->count; i++) {
            size_t at = (size_t)hash_of(&table->entries[i].ref) & mask;
            for (; table->index[at]; at = (at + 1) & mask)
                table->index[at] = 0;
        }
    }
    table->count = 0;
}

/* Where in the index the ref stands, or would stand. */
static size_t find_slot(const struct rf_table *table, const struct rf_blobref *ref)
{
    uint64_t hash = hash_of(ref), slot;
    size_t mask = table->capacity - 1, at = (size_t)hash & mask;

    for (; (slot = table->index[at]) != 0; at = (at + 1) & mask) {
        if (tag_of(slot) == tag_of(hash) && rf_blobref_equal(&entry_at(table, slot)->ref, ref))
            break;
    }
    return at;
}

const struct rf_entry *rf_table_find(const struct rf_table *table, const struct rf_blobref *ref)
{
    uint64_t slot;

    if (table->count == 0)
        return NULL;
    slot = table->index[find_slot(table, ref)];
    return slot ? entry_at(table, slot) : NULL;
}

static bool grow_index(struct rf_table *table, size_t capacity)
{
    uint64_t *index = calloc(capacity, sizeof *index);

    if (!index)
        return false;
    for (size_t i = 0; i < table->count; i++) {
        uint64_t hash = hash_of(&table->entries[i].ref);
        size_t at = (size_t)hash & (capacity - 1);
        while (index[at])
            at = (at + 1) & (capacity - 1);
        index[at] = tag_of(hash) | (i + 1);
    }
    free(table->index);
    table->index = index;
    table->capacity = capacity;
    return true;
}

enum rf_status rf_table_reserve(struct rf_table *table, size_t more, struct rf_error *err)
{
    size_t capacity = table->capacity ? table->capacity : 64;
    struct rf_entry *entries;
    bool grown = true;

    assert(table->count + more < UINT32_MAX);
    while ((table->count + more) * 2 > capacity)
        capacity *= 2;
    if (capacity > table->capacity)
        grown = grow_index(table, capacity);
    if (grown && table->room < capacity / 2) {
        entries = realloc(table->entries, capacity / 2 * sizeof *entries);
        grown = entries != NULL;
        if (grown) {
            table->entries = entries;
            table->room = capacity / 2;
        }
    }
    if (!grown)
        return rf_error_set(err, RF_NOMEM, "no memory for %zu more entries of the log's tail",
                            more);
    return RF_OK;
}

void rf_table_put(struct rf_table *table, const struct rf_entry *entry)
{
    size_t at = find_slot(table, &entry->ref);

    assert(entry->seq > 0 && (table->index[at] || table->count < table->room));
    if (!table->index[at]) {
        table->entries[table->count] = *entry;
        table->index[at] = tag_of(hash_of(&entry->ref)) | ++table->count;
    } else {
        *entry_at(table, table->index[at]) = *entry;
    }
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

    if (!entries)
        return rf_error_set(err, RF_NOMEM, "no memory to sort the log's tail");
    if (table->count) {
        memcpy(entries, table->entries, table->count * sizeof *entries);
        qsort(entries, table->count, sizeof *entries, compare_entries);
    }
    *out = entries;
    return RF_OK;
}
