/*
 * chunk.h - cutting content where the content says so
 *
 * A border depends only on the 64 bytes before it, so an edit moves the borders near it and no
 * others. Gear hash with two masks (Xia et al., "FastCDC", USENIX ATC 2016). Table, masks and
 * bounds are part of the format (doc/format-schema.md): another one stores everything anew.
 */
#ifndef RF_BACKUP_CHUNK_H
#define RF_BACKUP_CHUNK_H

#include "core/bytes.h"

#define RF_CHUNK_MIN ((size_t)256 << 10)
#define RF_CHUNK_NORMAL ((size_t)1 << 20) /* from here on the easier mask holds */
#define RF_CHUNK_MAX ((size_t)4 << 20)

struct rf_chunker {
    uint64_t gear[256]; /* of byte b: the first 8 bytes, little-endian, of SHA-256 of that byte */
};

void rf_chunker_init(struct rf_chunker *chunker);

/* How far a chunk has been looked through; {0} at its start. */
struct rf_chunk_look {
    size_t at;
    uint64_t hash;
};

/* Bytes of the chunk that content begins with; 0 when its end has not come yet: call again with
 * more of the same content, as long as there is more (else it is all that is left). */
size_t rf_chunk_find(const struct rf_chunker *chunker, struct rf_chunk_look *look,
                     struct rf_bytes content);

#endif
