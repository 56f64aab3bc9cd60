/*
 * bytes.h - a run of bytes, and numbers within it
 *
 * Every number refuge writes to disk or into shared memory is little-endian and unaligned; these
 * are the only functions that read and write them.
 */
#ifndef RF_CORE_BYTES_H
#define RF_CORE_BYTES_H

#include <stdint.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* Lent bytes; never NUL-terminated by promise. data may be NULL only when size is 0. */
struct rf_bytes {
    const uint8_t *data;
    size_t size;
};

static inline struct rf_bytes rf_bytes(const void *data, size_t size)
{
    return (struct rf_bytes){.data = data, .size = size};
}

static inline struct rf_bytes rf_bytes_text(const char *text)
{
    return (struct rf_bytes){.data = (const uint8_t *)text, .size = strlen(text)};
}

static inline bool rf_bytes_equal(struct rf_bytes a, struct rf_bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline uint16_t rf_get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t rf_get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t rf_get_u64(const uint8_t *p)
{
    return (uint64_t)rf_get_u32(p) | (uint64_t)rf_get_u32(p + 4) << 32;
}

static inline void rf_put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void rf_put_u32(uint8_t *p, uint32_t v)
{
    rf_put_u16(p, (uint16_t)v);
    rf_put_u16(p + 2, (uint16_t)(v >> 16));
}

static inline void rf_put_u64(uint8_t *p, uint64_t v)
{
    rf_put_u32(p, (uint32_t)v);
    rf_put_u32(p + 4, (uint32_t)(v >> 32));
}

#endif
