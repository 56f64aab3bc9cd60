/* nearest.c - optimal string alignment distance over short names, on the stack. */
#include "core/nearest.h"

#include <stdint.h>
#include <string.h>

#define LENGTH_MAX 64

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static unsigned distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
    unsigned rows[3][LENGTH_MAX + 1];
    unsigned *before = rows[0], *last = rows[1], *now = rows[2], *spare;

    for (size_t j = 0; j <= b_size; j++)
        last[j] = (unsigned)j;
    for (size_t i = 1; i <= a_size; i++) {
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= b_size; j++) {
            now[j] = least(last[j - 1] + (a[i - 1] != b[j - 1]), least(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = least(now[j], before[j - 2] + 1);
        }
        spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[b_size];
}

const char *rf_nearest(const char *name, const char *const *names, size_t count)
{
    size_t size = strlen(name), other;
    const char *best = NULL;
    unsigned best_distance = 0, d;

    if (size == 0 || size > LENGTH_MAX)
        return NULL;
    for (size_t i = 0; i < count && (count != SIZE_MAX || names[i]); i++) {
        other = strlen(names[i]);
        if (other > LENGTH_MAX)
            continue;
        d = distance(name, size, names[i], other);
        if (d > (size + 2) / 3 || d >= (size > other ? size : other))
            continue;
        if (!best || d < best_distance) {
            best = names[i];
            best_distance = d;
        }
    }
    return best;
}
