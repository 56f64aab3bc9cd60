/* buf.c - growth by doubling, bounded by the buffer's maximum. */
#include "core/buf.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

void rf_buf_init(struct rf_buf *buf, size_t max)
{
    *buf = (struct rf_buf){.max = max};
}

void rf_buf_release(struct rf_buf *buf)
{
    if (!buf)
        return;
    free(buf->data);
    *buf = (struct rf_buf){.max = buf->max};
}

void rf_buf_clear(struct rf_buf *buf)
{
    buf->size = 0;
    buf->failed = RF_OK;
}

uint8_t *rf_buf_reserve(struct rf_buf *buf, size_t size)
{
    size_t capacity = buf->capacity ? buf->capacity : 256;
    uint8_t *grown;

    if (buf->failed)
        return NULL;
    if (size > buf->max || buf->size > buf->max - size) {
        buf->failed = RF_LIMIT;
        return NULL;
    }
    if (buf->size + size <= buf->capacity && buf->data)
        return buf->data + buf->size;
    while (capacity < buf->size + size)
        capacity *= 2;
    grown = realloc(buf->data, capacity);
    if (!grown) {
        buf->failed = RF_NOMEM;
        return NULL;
    }
    buf->data = grown;
    buf->capacity = capacity;
    return buf->data + buf->size;
}

void rf_buf_put(struct rf_buf *buf, const void *data, size_t size)
{
    uint8_t *to;

    if (size == 0)
        return;
    to = rf_buf_reserve(buf, size);
    if (to) {
        memcpy(to, data, size);
        buf->size += size;
    }
}

void rf_buf_put_text(struct rf_buf *buf, const char *text)
{
    rf_buf_put(buf, text, strlen(text));
}

void rf_buf_put_u8(struct rf_buf *buf, uint8_t value)
{
    rf_buf_put(buf, &value, 1);
}

void rf_buf_put_u16(struct rf_buf *buf, uint16_t value)
{
    uint8_t bytes[2];

    rf_put_u16(bytes, value);
    rf_buf_put(buf, bytes, sizeof bytes);
}

void rf_buf_put_u32(struct rf_buf *buf, uint32_t value)
{
    uint8_t bytes[4];

    rf_put_u32(bytes, value);
    rf_buf_put(buf, bytes, sizeof bytes);
}

void rf_buf_put_u64(struct rf_buf *buf, uint64_t value)
{
    uint8_t bytes[8];

    rf_put_u64(bytes, value);
    rf_buf_put(buf, bytes, sizeof bytes);
}

void rf_buf_printf(struct rf_buf *buf, const char *format, ...)
{
    va_list args, again;
    int size;
    uint8_t *to;

    va_start(args, format);
    va_copy(again, args);
    size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    assert(size >= 0);
    to = rf_buf_reserve(buf, (size_t)size + 1);
    if (to) {
        vsnprintf((char *)to, (size_t)size + 1, format, again);
        buf->size += (size_t)size;
    }
    va_end(again);
}

const char *rf_buf_text(struct rf_buf *buf)
{
    uint8_t *end;

    if (buf->failed)
        return NULL;
    buf->max++; /* the NUL is not content */
    end = rf_buf_reserve(buf, 1);
    buf->max--;
    if (!end)
        return NULL;
    *end = '\0';
    return (const char *)buf->data;
}
