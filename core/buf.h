/*
 * buf.h - bytes that grow up to a maximum
 *
 * The caller's storage; {0} is not ready, use rf_buf_init. A write that would pass the maximum
 * leaves the buffer as it was and marks it failed; the mark stays until rf_buf_clear, so a writer
 * may check once at the end. Not for several threads.
 */
#ifndef RF_CORE_BUF_H
#define RF_CORE_BUF_H

#include "core/bytes.h"
#include "core/error.h"

struct rf_buf {
    uint8_t *data;
    size_t size;     /* bytes in use */
    size_t capacity; /* bytes allocated */
    size_t max;      /* bytes at most */
    enum rf_status failed; /* RF_OK, RF_LIMIT or RF_NOMEM */
};

void rf_buf_init(struct rf_buf *buf, size_t max);
void rf_buf_release(struct rf_buf *buf);

/* Empty it and forget a failure; the memory is kept. */
void rf_buf_clear(struct rf_buf *buf);

/* Room for size more bytes: a pointer to them, or NULL (failed). Not yet in use: add to size. */
uint8_t *rf_buf_reserve(struct rf_buf *buf, size_t size);

void rf_buf_put(struct rf_buf *buf, const void *data, size_t size);
void rf_buf_put_text(struct rf_buf *buf, const char *text);
void rf_buf_put_u8(struct rf_buf *buf, uint8_t value);
void rf_buf_put_u16(struct rf_buf *buf, uint16_t value);
void rf_buf_put_u32(struct rf_buf *buf, uint32_t value);
void rf_buf_put_u64(struct rf_buf *buf, uint64_t value);
void rf_buf_printf(struct rf_buf *buf, const char *format, ...) RF_PRINTF(2, 3);

/* The content with a NUL behind it (not counted in size); NULL on failure. Lent until changed. */
const char *rf_buf_text(struct rf_buf *buf);

static inline struct rf_bytes rf_buf_bytes(const struct rf_buf *buf)
{
    return rf_bytes(buf->data, buf->size);
}

#endif
