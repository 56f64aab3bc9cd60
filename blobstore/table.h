/*
 * table.h - what the log says of each blob, in memory: the part no lookup run covers yet
 *
 * Bounded by its user: 8 MiB of log make at most some 90,000 entries. Not for several threads.
 */
#ifndef RF_BLOBSTORE_TABLE_H
#define RF_BLOBSTORE_TABLE_H

#include "blobstore/blobstore.h"
#include "blobstore/log_record.h"

/* The newest record of a blob. */
struct rf_entry {
    struct rf_blobref ref;
    uint8_t op;      /* RF_LOG_PUT or RF_LOG_DELETE */
    uint16_t flags;  /* RF_LOG_PART, RF_LOG_LIFT */
    uint32_t life;
    uint64_t seq, size;
    int64_t timestamp_us;
    uint64_t first, offset; /* segment and place of the record; a hint, seq is the truth */
};

void rf_entry_of(struct rf_entry *out, const struct rf_log_record *record, uint64_t first,
                 uint64_t offset);
void rf_entry_stat(const struct rf_entry *entry, struct rf_stat *out);
static inline bool rf_entry_alive(const struct rf_entry *entry)
{
    return entry->op == RF_LOG_PUT;
}

struct rf_table {
    struct rf_entry *entries; /* in the order in which their refs came first */
    size_t count, room;
    uint64_t *index; /* number of the entry + 1 below 32 bits of its digest; 0: free */
    size_t capacity; /* of index: a power of two, or 0 */
};

void rf_table_release(struct rf_table *table);
void rf_table_clear(struct rf_table *table); /* keeps the memory */

/* NULL when there is none. Lent until the next put. */
const struct rf_entry *rf_table_find(const struct rf_table *table, const struct rf_blobref *ref);

/* Put or replace. Make room first, so that what is durable can always be entered. */
RF_MUST_USE enum rf_status rf_table_reserve(struct rf_table *table, size_t more,
                                            struct rf_error *err);
void rf_table_put(struct rf_table *table, const struct rf_entry *entry);

/* A copy of all entries in the order of their refs; yours to free. */
RF_MUST_USE enum rf_status rf_table_sorted(const struct rf_table *table, struct rf_entry **out,
                                           struct rf_error *err);

#endif
