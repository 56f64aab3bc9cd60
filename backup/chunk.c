/* chunk.c - see chunk.h; one shift, one addition and one comparison per byte. */
#include "backup/chunk.h"

#include "core/blobref.h"

/* The upper bits of the hash take part, as each has seen the most bytes. */
#define HARD_SHIFT (64 - 22) /* one in 2^22 below the normal size */
#define EASY_SHIFT (64 - 18) /* one in 2^18 from there on */

void rf_chunker_init(struct rf_chunker *chunker)
{
    struct rf_blobref ref;

    for (unsigned i = 0; i < 256; i++) {
        uint8_t byte = (uint8_t)i;
        rf_blobref_of(&ref, rf_bytes(&byte, 1));
        chunker->gear[i] = rf_get_u64(ref.digest);
    }
}

/* Go on from at to end. True with *at behind the first byte after which the bits above shift are
 * zero; false with *at at end when there is none. */
static bool roll(const struct rf_chunker *chunker, const uint8_t *data, size_t *at, size_t end,
                 unsigned shift, uint64_t *hash)
{
    uint64_t h = *hash;
    size_t i = *at;
    bool found = false;

    while (i < end && !found) {
        h = (h << 1) + chunker->gear[data[i++]];
        found = h >> shift == 0;
    }
    *hash = h;
    *at = i;
    return found;
}

size_t rf_chunk_cut(const struct rf_chunker *chunker, struct rf_bytes content)
{
    size_t end = content.size < RF_CHUNK_MAX ? content.size : RF_CHUNK_MAX;
    size_t normal = end < RF_CHUNK_NORMAL ? end : RF_CHUNK_NORMAL, at = RF_CHUNK_MIN;
    uint64_t hash = 0;

    if (end <= RF_CHUNK_MIN)
        return end;
    if (!roll(chunker, content.data, &at, normal, HARD_SHIFT, &hash))
        (void)roll(chunker, content.data, &at, end, EASY_SHIFT, &hash);
    return at;
}
