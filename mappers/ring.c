/*
 * ring.c - see ring.h
 *
 * Order: the writer fills a record, then stores head with release; the reader loads head with
 * acquire, reads, then stores tail with release. Nothing read from the other side is used before it
 * was copied into a local and checked there.
 */
#include "mappers/ring.h"

#include <assert.h>

#define HEAD_SIZE 8u
#define SKIP UINT32_MAX
#define PADDED(n) (((uint64_t)(n) + HEAD_SIZE + 7) & ~(uint64_t)7)

/* One load, so that what is checked is what is used. */
static uint32_t load_size(const void *at)
{
    const volatile uint32_t *word = at;

    return *word;
}

static void store_size(void *at, uint32_t size)
{
    uint32_t *word = at;

    *word = size;
}

void rf_ring_init(struct rf_ring *ring, uint8_t *data, uint64_t size, _Atomic uint64_t *head,
                  _Atomic uint64_t *tail)
{
    assert(size >= 64 && (size & (size - 1)) == 0);
    *ring = (struct rf_ring){.data = data, .size = size, .head = head, .tail = tail};
}

/* Take over the reader's position if it is one that a reader could have. */
static enum rf_status look_at_tail(struct rf_ring *ring)
{
    uint64_t tail = atomic_load_explicit(ring->tail, memory_order_acquire);

    if (tail < ring->theirs || tail > ring->mine || (tail & 7))
        return RF_CORRUPT;
    ring->theirs = tail;
    return RF_OK;
}

enum rf_status rf_ring_reserve(struct rf_ring *ring, uint32_t size, uint8_t **out)
{
    uint64_t need = PADDED(size), at = ring->mine & (ring->size - 1), left = ring->size - at;
    uint64_t skip = left < need ? left : 0;

    assert(size <= rf_ring_record_max(ring));
    if (ring->mine + skip + need - ring->theirs > ring->size) {
        if (look_at_tail(ring) != RF_OK)
            return RF_CORRUPT;
        if (ring->mine + skip + need - ring->theirs > ring->size)
            return RF_END;
    }
    if (skip) {
        store_size(ring->data + at, SKIP);
        ring->mine += skip;
        at = 0;
    }
    *out = ring->data + at + HEAD_SIZE;
    return RF_OK;
}

void rf_ring_commit(struct rf_ring *ring, uint32_t size)
{
    uint8_t *head = ring->data + (ring->mine & (ring->size - 1));

    store_size(head, size);
    ring->mine += PADDED(size);
}

void rf_ring_publish(struct rf_ring *ring)
{
    atomic_store_explicit(ring->head, ring->mine, memory_order_release);
}

bool rf_ring_drained(struct rf_ring *ring)
{
    return look_at_tail(ring) == RF_OK && ring->theirs == ring->mine;
}

enum rf_status rf_ring_peek(struct rf_ring *ring, struct rf_bytes *out)
{
    for (;;) {
        uint64_t at = ring->mine & (ring->size - 1), there;
        uint32_t size;

        if (ring->theirs == ring->mine) {
            uint64_t head = atomic_load_explicit(ring->head, memory_order_acquire);
            if (head == ring->mine)
                return RF_END;
            if (head < ring->mine || head - ring->mine > ring->size || (head & 7))
                return RF_CORRUPT;
            ring->theirs = head;
        }
        there = ring->theirs - ring->mine; /* a multiple of 8, so a record's head is there */
        size = load_size(ring->data + at);
        if (size == SKIP) {
            if (ring->size - at > there || at == 0)
                return RF_CORRUPT;
            ring->mine += ring->size - at;
            continue;
        }
        if (size > rf_ring_record_max(ring) || PADDED(size) > there ||
            PADDED(size) > ring->size - at)
            return RF_CORRUPT;
        ring->pending = PADDED(size);
        *out = rf_bytes(ring->data + at + HEAD_SIZE, size);
        return RF_OK;
    }
}

void rf_ring_consume(struct rf_ring *ring)
{
    ring->mine += ring->pending;
    ring->pending = 0;
    atomic_store_explicit(ring->tail, ring->mine, memory_order_release);
}

bool rf_ring_empty(struct rf_ring *ring)
{
    return ring->theirs == ring->mine &&
           atomic_load_explicit(ring->head, memory_order_acquire) == ring->mine;
}
