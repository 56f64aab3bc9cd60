/*
 * ring.h - records from one process to one other through shared memory
 *
 * A ring of 2^n bytes, one writer, one reader. A record is {u32 size, 4 bytes unused} and size
 * bytes, padded to 8; it never wraps: a size of UINT32_MAX skips what is left before the end.
 * Positions count bytes since the beginning and only grow. Each side keeps its own position and
 * publishes it; the other's is read from shared memory and may be anything, so it is checked.
 *
 *   tail            head
 *    | rec | rec | rec |        |<- end of data: a skip record, then from the start
 */
#ifndef RF_MAPPERS_RING_H
#define RF_MAPPERS_RING_H

#include <stdatomic.h>

#include "core/bytes.h"
#include "core/error.h"

struct rf_ring {
    uint8_t *data;
    uint64_t size;                    /* a power of two, at least 64 */
    _Atomic uint64_t *head, *tail;    /* published positions */
    uint64_t mine;                    /* own position: the writer's head or the reader's tail */
    uint64_t theirs;                  /* the other's position as last read and found good */
    uint64_t pending;                 /* reader: bytes of the record peeked at */
};

void rf_ring_init(struct rf_ring *ring, uint8_t *data, uint64_t size, _Atomic uint64_t *head,
                  _Atomic uint64_t *tail);

/* The largest record a ring takes. */
static inline uint32_t rf_ring_record_max(const struct rf_ring *ring)
{
    return (uint32_t)(ring->size / 2 - 16);
}

/* Writer. RF_OK: room for size bytes (at most rf_ring_record_max), not yet visible; RF_END: full
 * now; RF_CORRUPT: the reader's position makes no sense. */
enum rf_status rf_ring_reserve(struct rf_ring *ring, uint32_t size, uint8_t **out);
/* Keep the record reserved last. Visible to the reader only after rf_ring_publish. */
void rf_ring_commit(struct rf_ring *ring, uint32_t size);
void rf_ring_publish(struct rf_ring *ring);
/* Bytes written that the reader has not taken, as far as is known without looking again. */
bool rf_ring_drained(struct rf_ring *ring);

/* Reader. RF_OK: a record, lent until rf_ring_consume, in memory the writer may change at any
 * time; RF_END: none; RF_CORRUPT: the writer broke a rule. */
enum rf_status rf_ring_peek(struct rf_ring *ring, struct rf_bytes *out);
void rf_ring_consume(struct rf_ring *ring);
/* Nothing to read? Looks at the writer's position again. */
bool rf_ring_empty(struct rf_ring *ring);

#endif
