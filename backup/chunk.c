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

/* Go on up to end. True with look->at behind the first byte after which the bits above shift are
 * zero; false with it at end, or where it was behind it, when there is none. */
static bool roll(const struct rf_chunker *chunker, struct rf_chunk_look *look, const uint8_t *data,
                 size_t end, unsigned shift)
{
    uint64_t hash = look->hash;
    size_t at = look->at;
    bool found = false;

    while (at < end && !found) {
        hash = (hash << 1) + chunker->gear[data[at++]];
        found = hash >> shift == 0;
    }
    look->hash = hash;
    look->at = at;
    return found;
}

size_t rf_chunk_find(const struct rf_chunker *chunker, struct rf_chunk_look *look,
                     struct rf_bytes content)
{
    size_t end = content.size < RF_CHUNK_MAX ? content.size : RF_CHUNK_MAX;
    size_t normal = end < RF_CHUNK_NORMAL ? end : RF_CHUNK_NORMAL;

    if (look->at < RF_CHUNK_MIN)
        look->at = RF_CHUNK_MIN;
    if (roll(chunker, look, content.data, normal, HARD_SHIFT) ||
        roll(chunker, look, content.data, end, EASY_SHIFT))
        return look->at;
    return end == RF_CHUNK_MAX ? end : 0;
}
