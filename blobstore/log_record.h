/*
 * log_record.h - one record of the log, as bytes
 *
 * Format 1; numbers little-endian; records start at multiples of 8, bytes between are zero:
 *
 *    0 u32 magic "RFL1"            32 u64 seq
 *    4 u8  op (1 put, 2 delete,    40 i64 timestamp, us since 1970
 *          3 begin of a segment)   48 u64 size of the blob
 *    5 u8  algo (1 SHA-256)        56 u32 stored: bytes that follow this header
 *    6 u16 flags                   60 u32 life: acts on this ref (odd: it is there)
 *    8 u64 header checksum         64 32 bytes digest
 *   16 u64 chain                   96 stored bytes
 *   24 u64 payload checksum, or the
 *          seq this record refers to
 *
 * The header checksum is XXH3-64 over bytes 0-7 and 16-95, seeded by where the record stands (salt
 * of the store, segment, offset), so that bytes of one place never pass for a record of another:
 * neither a block written astray, nor a blob that holds a copy of a log. `chain` is a running hash
 * of what the earlier changes said (rf_log_chain); it survives compaction.
 */
#ifndef RF_BLOBSTORE_LOG_RECORD_H
#define RF_BLOBSTORE_LOG_RECORD_H

#include "core/blobref.h"

#define RF_LOG_HEADER_SIZE 96
#define RF_LOG_ALIGN 8

enum rf_log_op {
    RF_LOG_PUT = 1,
    RF_LOG_DELETE = 2, /* `refers` is the seq of the put (or lift) it ends; size is that blob's */
    RF_LOG_BEGIN = 3   /* the first record of every segment; its seq is that of the next change */
};

enum rf_log_flag {
    RF_LOG_PART = 1,      /* content of a file blob */
    RF_LOG_LIFT = 2,      /* a put without payload: the blob of `refers` is no part any more */
    RF_LOG_ENCRYPTED = 4, /* reserved: refused by this version */
    RF_LOG_GONE = 8,      /* a put whose payload was left out when its segment was copied */
    RF_LOG_BATCH = 16,    /* everything before this record was durable when it was written */
    RF_LOG_FLAGS = 31
};

struct rf_log_record {
    uint8_t op;
    uint8_t algo;
    uint16_t flags;
    uint64_t chain; /* of the changes before this one */
    union {
        uint64_t checksum; /* XXH3-64 of the payload, when stored > 0 or a blob of size 0 */
        uint64_t refers;   /* lift and delete */
    };
    uint64_t seq;
    int64_t timestamp_us;
    uint64_t size;
    uint32_t stored;
    uint32_t life;
    uint8_t digest[RF_DIGEST_SIZE];
};

/* Where a segment's records stand: what seeds their checksums. */
struct rf_log_place {
    uint64_t salt;  /* of the store */
    uint64_t first; /* sequence in the segment's name */
    uint32_t attempt;
};

/* Bytes from one record's start to the next one's. */
static inline uint64_t rf_log_span(const struct rf_log_record *record)
{
    return (RF_LOG_HEADER_SIZE + (uint64_t)record->stored + RF_LOG_ALIGN - 1) &
           ~(uint64_t)(RF_LOG_ALIGN - 1);
}

/* A put whose payload lies in a file of its own. */
static inline bool rf_log_is_large(const struct rf_log_record *record)
{
    return record->op == RF_LOG_PUT && record->stored == 0 && record->size > 0 &&
           !(record->flags & (RF_LOG_LIFT | RF_LOG_GONE));
}

void rf_log_encode(uint8_t out[RF_LOG_HEADER_SIZE], const struct rf_log_record *record,
                   const struct rf_log_place *place, uint64_t offset);

/* False when these bytes are not a record of this place and version, or break a rule. */
bool rf_log_decode(struct rf_log_record *out, const uint8_t in[RF_LOG_HEADER_SIZE],
                   const struct rf_log_place *place, uint64_t offset);

/* XXH3-64 of a payload. */
uint64_t rf_log_checksum(struct rf_bytes payload);

/* The chain after a change, from the one before it: XXH3-64, seeded by that, over seq, timestamp,
 * size (u64 each), life (u32), op, algo (u8 each), flags PART and LIFT (u16), digest. */
uint64_t rf_log_chain(uint64_t before, const struct rf_log_record *record);

/* Count in what a change does to the number and bytes of blobs that are alive. */
void rf_log_tally(const struct rf_log_record *record, uint64_t *blobs, uint64_t *bytes);

/* ---- the payload of a begin record ---- */

#define RF_LOG_BEGIN_SIZE 88
#define RF_LOG_FORMAT 1

/* 0 u32 format, 4 u32 generation, 8 16 bytes uuid, 24 u64 salt, 32 u64 first and 40 u32 attempt of
 * the segment before (0, 0: none), 44 u32 zero, 48 u64 where that one ends, 56 u64 blobs and 64
 * u64 bytes alive here, 72 u64 seq of the first change, 80 u64 zero. Its header is sealed with
 * salt 0, so that it can be read before the salt is known. */
struct rf_log_begin {
    uint32_t format, generation;
    uint8_t uuid[16];
    uint64_t salt;
    uint64_t previous_first, previous_end;
    uint32_t previous_attempt;
    uint64_t blobs, bytes;
};

void rf_log_begin_encode(uint8_t out[RF_LOG_BEGIN_SIZE], const struct rf_log_begin *begin,
                         uint64_t first);

/* False when the payload is not one; a newer format is told by begin->format. */
bool rf_log_begin_decode(struct rf_log_begin *out, struct rf_bytes payload);

#endif
