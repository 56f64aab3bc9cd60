/* log_record.c - see log_record.h for the format. XXH3 as in xxHash 0.8. */
#include "blobstore/log_record.h"

#include <assert.h>
#include <xxhash.h>

#include "blobstore/blobstore.h"
#include "core/control.h"

#define MAGIC 0x314c4652u /* "RFL1" */

/* Offsets of a header's fields. */
enum {
    AT_MAGIC = 0,
    AT_OP = 4,
    AT_ALGO = 5,
    AT_FLAGS = 6,
    AT_CHECK = 8,
    AT_CHAIN = 16,
    AT_PAYLOAD = 24,
    AT_SEQ = 32,
    AT_TIME = 40,
    AT_SIZE = 48,
    AT_STORED = 56,
    AT_LIFE = 60,
    AT_DIGEST = 64
};

static uint64_t place_seed(const struct rf_log_place *place, uint64_t offset)
{
    uint8_t bytes[28];

    rf_put_u64(bytes, place->salt);
    rf_put_u64(bytes + 8, place->first);
    rf_put_u64(bytes + 16, offset);
    rf_put_u32(bytes + 24, place->attempt);
    return XXH3_64bits(bytes, sizeof bytes);
}

static uint64_t header_checksum(const uint8_t header[RF_LOG_HEADER_SIZE],
                                const struct rf_log_place *place, uint64_t offset)
{
    uint8_t bytes[RF_LOG_HEADER_SIZE - 8];
    struct rf_log_place unsalted = *place;

    memcpy(bytes, header, AT_CHECK);
    memcpy(bytes + AT_CHECK, header + AT_CHAIN, RF_LOG_HEADER_SIZE - AT_CHAIN);
    if (header[AT_OP] == RF_LOG_BEGIN)
        unsalted.salt = 0;
    return XXH3_64bits_withSeed(bytes, sizeof bytes, place_seed(&unsalted, offset));
}

/* What every record must keep; asserted before encoding, checked after decoding. */
static bool is_sound(const struct rf_log_record *r, uint64_t offset)
{
    if (r->flags & ~(unsigned)RF_LOG_FLAGS || r->flags & RF_LOG_ENCRYPTED || r->seq == 0)
        return false;
    if (r->op == RF_LOG_BEGIN)
        return offset == 0 && r->stored == RF_LOG_BEGIN_SIZE && r->flags == 0;
    if (offset == 0 || offset % RF_LOG_ALIGN != 0 || r->algo != RF_ALGO_SHA256)
        return false;
    if (r->op == RF_LOG_DELETE)
        return r->stored == 0 && r->life > 0 && r->life % 2 == 0 &&
               !(r->flags & (RF_LOG_LIFT | RF_LOG_GONE)) && r->refers < r->seq;
    if (r->op != RF_LOG_PUT || r->life % 2 == 0)
        return false;
    if (r->flags & RF_LOG_LIFT)
        return r->stored == 0 && !(r->flags & RF_LOG_PART) && r->refers < r->seq;
    if (r->flags & RF_LOG_GONE)
        return r->stored == 0;
    return r->stored == (r->size <= RF_BLOB_INLINE_MAX ? r->size : 0);
}

void rf_log_encode(uint8_t out[RF_LOG_HEADER_SIZE], const struct rf_log_record *record,
                   const struct rf_log_place *place, uint64_t offset)
{
    assert(is_sound(record, offset));
    rf_put_u32(out + AT_MAGIC, MAGIC);
    out[AT_OP] = record->op;
    out[AT_ALGO] = record->algo;
    rf_put_u16(out + AT_FLAGS, record->flags);
    rf_put_u64(out + AT_CHAIN, record->chain);
    rf_put_u64(out + AT_PAYLOAD, record->checksum);
    rf_put_u64(out + AT_SEQ, record->seq);
    rf_put_u64(out + AT_TIME, (uint64_t)record->timestamp_us);
    rf_put_u64(out + AT_SIZE, record->size);
    rf_put_u32(out + AT_STORED, record->stored);
    rf_put_u32(out + AT_LIFE, record->life);
    memcpy(out + AT_DIGEST, record->digest, RF_DIGEST_SIZE);
    rf_put_u64(out + AT_CHECK, header_checksum(out, place, offset));
}

bool rf_log_decode(struct rf_log_record *out, const uint8_t in[RF_LOG_HEADER_SIZE],
                   const struct rf_log_place *place, uint64_t offset)
{
    struct rf_log_record record;

    if (rf_get_u32(in + AT_MAGIC) != MAGIC)
        return false;
    if (RF_SAFEGUARD("record-checksum") &&
        rf_get_u64(in + AT_CHECK) != header_checksum(in, place, offset))
        return false;
    record.op = in[AT_OP];
    record.algo = in[AT_ALGO];
    record.flags = rf_get_u16(in + AT_FLAGS);
    record.chain = rf_get_u64(in + AT_CHAIN);
    record.checksum = rf_get_u64(in + AT_PAYLOAD);
    record.seq = rf_get_u64(in + AT_SEQ);
    record.timestamp_us = (int64_t)rf_get_u64(in + AT_TIME);
    record.size = rf_get_u64(in + AT_SIZE);
    record.stored = rf_get_u32(in + AT_STORED);
    record.life = rf_get_u32(in + AT_LIFE);
    memcpy(record.digest, in + AT_DIGEST, RF_DIGEST_SIZE);
    if (!is_sound(&record, offset))
        return false;
    *out = record;
    return true;
}

uint64_t rf_log_checksum(struct rf_bytes payload)
{
    return XXH3_64bits(payload.data, payload.size);
}

uint64_t rf_log_chain(uint64_t before, const struct rf_log_record *record)
{
    uint8_t bytes[32 + RF_DIGEST_SIZE];

    rf_put_u64(bytes, record->seq);
    rf_put_u64(bytes + 8, (uint64_t)record->timestamp_us);
    rf_put_u64(bytes + 16, record->size);
    rf_put_u32(bytes + 24, record->life);
    bytes[28] = record->op;
    bytes[29] = record->algo;
    rf_put_u16(bytes + 30, record->flags & (RF_LOG_PART | RF_LOG_LIFT));
    memcpy(bytes + 32, record->digest, RF_DIGEST_SIZE);
    return XXH3_64bits_withSeed(bytes, sizeof bytes, before);
}

void rf_log_tally(const struct rf_log_record *record, uint64_t *blobs, uint64_t *bytes)
{
    if (record->flags & RF_LOG_LIFT)
        return;
    if (record->op == RF_LOG_PUT) {
        ++*blobs;
        *bytes += record->size;
    } else if (record->op == RF_LOG_DELETE) { /* a lost put may be missing from the sums */
        *blobs -= *blobs > 0;
        *bytes -= *bytes < record->size ? *bytes : record->size;
    }
}

void rf_log_begin_encode(uint8_t out[RF_LOG_BEGIN_SIZE], const struct rf_log_begin *begin,
                         uint64_t first)
{
    memset(out, 0, RF_LOG_BEGIN_SIZE);
    rf_put_u32(out, begin->format);
    rf_put_u32(out + 4, begin->generation);
    memcpy(out + 8, begin->uuid, 16);
    rf_put_u64(out + 24, begin->salt);
    rf_put_u64(out + 32, begin->previous_first);
    rf_put_u32(out + 40, begin->previous_attempt);
    rf_put_u64(out + 48, begin->previous_end);
    rf_put_u64(out + 56, begin->blobs);
    rf_put_u64(out + 64, begin->bytes);
    rf_put_u64(out + 72, first);
}

bool rf_log_begin_decode(struct rf_log_begin *out, struct rf_bytes payload)
{
    const uint8_t *in = payload.data;

    if (payload.size != RF_LOG_BEGIN_SIZE)
        return false;
    *out = (struct rf_log_begin){
        .format = rf_get_u32(in),
        .generation = rf_get_u32(in + 4),
        .salt = rf_get_u64(in + 24),
        .previous_first = rf_get_u64(in + 32),
        .previous_attempt = rf_get_u32(in + 40),
        .previous_end = rf_get_u64(in + 48),
        .blobs = rf_get_u64(in + 56),
        .bytes = rf_get_u64(in + 64),
    };
    memcpy(out->uuid, in + 8, 16);
    return true;
}
