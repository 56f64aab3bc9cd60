/* arena.c - blocks doubling from 1 KiB to 64 KiB, larger pieces in a block of their own. */
#include "core/arena.h"

#include <stdio.h>
#include <stdlib.h>

#define BLOCK_MIN ((size_t)1024)
#define BLOCK_SIZE ((size_t)64 * 1024)
#define ALIGN(n) (((n) + 15) & ~(size_t)15)

struct rf_arena_block {
    struct rf_arena_block *next;
    size_t used, capacity;
    _Alignas(16) uint8_t bytes[];
};

void rf_arena_init(struct rf_arena *arena, size_t max)
{
    *arena = (struct rf_arena){.max = max};
}

void rf_arena_release(struct rf_arena *arena)
{
    struct rf_arena_block *next;

    if (!arena)
        return;
    for (struct rf_arena_block *b = arena->head; b; b = next) {
        next = b->next;
        free(b);
    }
    arena->head = NULL;
    arena->size = 0;
}

void rf_arena_clear(struct rf_arena *arena)
{
    struct rf_arena_block *keep = NULL, *next;

    for (struct rf_arena_block *b = arena->head; b; b = next) {
        next = b->next;
        if (b->capacity <= BLOCK_SIZE && (!keep || keep->capacity < b->capacity)) {
            free(keep);
            keep = b;
        } else {
            free(b);
        }
    }
    if (keep) {
        keep->next = NULL;
        keep->used = 0;
    }
    arena->head = keep;
    arena->size = 0;
}

static void *take(struct rf_arena *arena, size_t size)
{
    struct rf_arena_block *b = arena->head;
    size_t need = ALIGN(size ? size : 1), capacity = b ? 2 * b->capacity : BLOCK_MIN;
    void *memory;

    if (capacity > BLOCK_SIZE)
        capacity = BLOCK_SIZE;
    if (capacity < need)
        capacity = need;
    if (!b || b->capacity - b->used < need) {
        b = malloc(sizeof *b + capacity);
        if (!b)
            return NULL;
        b->used = 0;
        b->capacity = capacity;
        if (need > BLOCK_SIZE / 4 && arena->head) { /* keep the half-full block in front */
            b->next = arena->head->next;
            arena->head->next = b;
        } else {
            b->next = arena->head;
            arena->head = b;
        }
    }
    memory = b->bytes + b->used;
    b->used += need;
    arena->size += need;
    return memory;
}

void *rf_arena_alloc(struct rf_arena *arena, size_t size)
{
    void *memory = take(arena, size);

    if (!memory) {
        fputs("refuge: out of memory\n", stderr);
        abort();
    }
    return memset(memory, 0, size);
}

void *rf_arena_try(struct rf_arena *arena, size_t size)
{
    if (size > arena->max || arena->size > arena->max - size)
        return NULL;
    return take(arena, size);
}

char *rf_arena_copy(struct rf_arena *arena, const void *data, size_t size)
{
    char *copy = size < SIZE_MAX ? rf_arena_try(arena, size + 1) : NULL;

    if (copy) {
        if (size)
            memcpy(copy, data, size);
        copy[size] = '\0';
    }
    return copy;
}
