/*
 * arena.h - memory that dies together
 *
 * What is born of a batch is allocated here and freed in one step. Allocations are 16-byte aligned.
 * Small fixed allocations never fail (the process aborts when memory is gone); a size that came
 * from outside is bounded by the arena's maximum: rf_arena_try answers NULL there. One thread.
 */
#ifndef RF_CORE_ARENA_H
#define RF_CORE_ARENA_H

#include "core/bytes.h"
#include "core/error.h"

struct rf_arena_block;

struct rf_arena {
    struct rf_arena_block *head; /* newest block first */
    size_t size;                 /* bytes handed out since init or the last clear */
    size_t max;                  /* bytes at most, for rf_arena_try */
};

void rf_arena_init(struct rf_arena *arena, size_t max);
void rf_arena_release(struct rf_arena *arena);

/* Free all but one block, which is used again. Everything handed out is gone. */
void rf_arena_clear(struct rf_arena *arena);

/* Zeroed memory for something of a size we fixed. Aborts when there is none. */
void *rf_arena_alloc(struct rf_arena *arena, size_t size);

/* Memory (not zeroed) for a size from outside, or NULL when the maximum or memory is reached. */
void *rf_arena_try(struct rf_arena *arena, size_t size);

/* A copy with a NUL behind it, or NULL as rf_arena_try. */
char *rf_arena_copy(struct rf_arena *arena, const void *data, size_t size);

#endif
