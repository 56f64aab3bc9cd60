/*
 * fuzz_ring.c - what a worker may write into its response ring
 *
 * First byte even: the rest is written as records, each u16 size (little-endian) and its bytes, so
 * that the decoder of responses is reached. Odd: u32 how far the published head moves, then the
 * raw bytes of the ring. The worker owes five answers: an item with three mappers, one with two.
 */
#include <stdlib.h>

#include "mappers/pool_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char declaration[] =
    "{\"name\":\"fuzz\",\"on\":[\"blob\"],\"splits\":true,\"limits\":{\"output_mb\":1},"
    "\"tables\":[{\"name\":\"fuzz_rows\",\"columns\":[{\"name\":\"word\",\"type\":\"text\"},"
    "{\"name\":\"num\",\"type\":\"int\"}]}]}";

struct birth {
    struct rf_result result;
    struct rf_job job;
    struct rf_call calls[3];
};

static struct birth *give_birth(struct rf_item *item, const struct rf_mapper *mapper, size_t count)
{
    struct birth *birth;
    struct rf_arena arena;

    rf_arena_init(&arena, SIZE_MAX / 4);
    birth = rf_arena_alloc(&arena, sizeof *birth);
    birth->result = (struct rf_result){.item = item, .calls = birth->calls, .call_count = count};
    birth->result.arena = arena;
    birth->job = (struct rf_job){.item = item, .result = &birth->result};
    for (size_t i = 0; i < count; i++)
        birth->calls[i].mapper = mapper;
    return birth;
}

static void owe(struct rf_pool_worker *w, struct birth *birth, uint64_t mask)
{
    w->sent[w->sent_count++] = (struct rf_sent){.job = &birth->job, .mask = mask,
                                                .number = w->next_number++};
    w->outstanding += (uint32_t)__builtin_popcountll(mask);
}

static void write_records(struct rf_pool_worker *w, const uint8_t *data, size_t size)
{
    struct rf_ring ring;
    uint8_t *to;

    rf_ring_init(&ring, w->responses.data, w->responses.size, &w->shared->response_head,
                 &w->shared->response_tail);
    while (size >= 2) {
        uint32_t length = rf_get_u16(data);
        data += 2;
        size -= 2;
        if (length > size)
            length = (uint32_t)size;
        if (rf_ring_reserve(&ring, length, &to) != RF_OK)
            return;
        if (length)
            memcpy(to, data, length);
        rf_ring_commit(&ring, length);
        rf_ring_publish(&ring);
        data += length;
        size -= length;
    }
}

static void write_raw(struct rf_pool_worker *w, const uint8_t *data, size_t size)
{
    if (size < 4)
        return;
    memcpy(w->responses.data, data + 4,
           size - 4 < w->responses.size ? size - 4 : (size_t)w->responses.size);
    w->shared->response_head = rf_get_u32(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rf_pool *pool = calloc(1, sizeof *pool);
    struct rf_pool_worker *w = calloc(1, sizeof *w);
    uint8_t *shared = aligned_alloc(4096, RF_SHARED_SIZE);
    struct rf_mapper *mapper = calloc(1, sizeof *mapper);
    struct rf_item item = {.size = 100};
    struct birth *births[2];

    if (!pool || !w || !shared || !mapper || size == 0)
        goto out;
    memset(shared, 0, RF_CONTROL_SIZE);
    memset(shared + RF_CONTROL_SIZE + RF_REQUEST_RING_SIZE, 0, RF_RESPONSE_RING_SIZE);
    pthread_mutex_init(&pool->watch.lock, NULL);
    rf_arena_init(&mapper->arena, 1 << 20);
    if (rf_decl_parse(&mapper->decl, &mapper->arena, rf_bytes_text(declaration), NULL) != RF_OK)
        abort();
    w->pidfd = w->sock = -1;
    w->shared = (struct rf_shared *)(void *)shared;
    rf_ring_init(&w->responses, shared + RF_CONTROL_SIZE + RF_REQUEST_RING_SIZE,
                 RF_RESPONSE_RING_SIZE, &w->shared->response_head, &w->shared->response_tail);
    births[0] = give_birth(&item, mapper, 3);
    births[1] = give_birth(&item, mapper, 2);
    owe(w, births[0], 7);
    owe(w, births[1], 3);
    if (data[0] % 2 == 0)
        write_records(w, data + 1, size - 1);
    else
        write_raw(w, data + 1, size - 1);
    if (rf_worker_drain(pool, w) == RF_CORRUPT && w->verdict == RF_VERDICT_NONE)
        abort(); /* refused without a reason */
    if (w->answered + w->outstanding != 5)
        abort(); /* an answer was counted twice, or not at all */
    rf_result_free(&births[0]->result);
    rf_result_free(&births[1]->result);
    rf_arena_release(&mapper->arena);
    pthread_mutex_destroy(&pool->watch.lock);
out:
    free(mapper);
    free(shared);
    free(w);
    free(pool);
    return 0;
}
