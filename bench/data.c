/* data.c - the same documents in every benchmark and every run */
#include "bench/data.h"

#include <stdio.h>
#include <string.h>

#include "bench/bench.h"

static uint64_t seed_of(uint64_t number)
{
    uint64_t state = (number + 1) * 0x9e3779b97f4a7c15u;

    state = state ? state : 1;
    bench_random(&state);
    bench_random(&state);
    return state;
}

const char *data_word(unsigned k)
{
    static char words[DATA_WORDS][12];
    uint64_t state = 88172645463325252u;

    if (!words[0][0])
        for (unsigned i = 0; i < DATA_WORDS; i++) {
            unsigned size = 3 + (unsigned)(bench_random(&state) % 8);
            for (unsigned c = 0; c < size; c++)
                words[i][c] = "etaoinshrdlucmfw"[bench_random(&state) >> 20 & 15];
        }
    return words[k % DATA_WORDS];
}

static const char *any_word(uint64_t *state)
{
    uint64_t draw = bench_random(state) >> 16;
    unsigned k = (unsigned)(draw % DATA_WORDS);

    /* three of four come from the quarter of the list that is frequent, its beginning most so */
    if (draw >> 20 & 3)
        k = (unsigned)((uint64_t)k * (draw >> 24 & 127) / 512);
    return data_word(k);
}

size_t data_words(char *out, size_t size, uint64_t number)
{
    uint64_t state = seed_of(number);
    size_t used = 0;

    while (used < size) {
        const char *word = any_word(&state);
        size_t length = strlen(word);
        memcpy(out + used, word, length);
        used += length;
        out[used++] = ' ';
    }
    return used;
}

size_t data_note(char *out, size_t size, uint64_t number)
{
    uint64_t state = seed_of(number);
    unsigned who = (unsigned)(number % 997);
    size_t room = size + 512, used;

    used = (size_t)snprintf(out, room, "{\"type\":\"note\","
                            "\"title\":\"%s %s note %llu about %s and %s\",\"created\":%llu,"
                            "\"author\":{\"name\":\"Ann Example %u\","
                            "\"email\":\"a%u@example.org\"},\"tags\":[\"t%u\",\"lua\"],"
                            "\"history\":[",
                            any_word(&state), any_word(&state), (unsigned long long)number,
                            any_word(&state), any_word(&state),
                            (unsigned long long)(1600000000 + bench_random(&state) % 100000000),
                            who, who, who % 20);
    for (bool first = true; used < size / 2; first = false)
        used += (size_t)snprintf(out + used, room - used,
                                 "%s{\"at\":%u,\"op\":\"edit\",\"by\":\"u%u\",\"n\":%u}",
                                 first ? "" : ",", (unsigned)(bench_random(&state) >> 34),
                                 (unsigned)(bench_random(&state) >> 16 & 63),
                                 (unsigned)(bench_random(&state) >> 16 & 1023));
    used += (size_t)snprintf(out + used, room - used, "],\"body\":\"");
    while (used < size - 12)
        used += (size_t)snprintf(out + used, room - used, "%s ", any_word(&state));
    used += (size_t)snprintf(out + used, room - used, "\"}");
    return used;
}
