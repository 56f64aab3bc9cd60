/*
 * segment.c - see segment.h
 *
 * Sequence numbers rise with offsets, so any position can be found by bisection: jump somewhere,
 * look for the next sound header (resync), compare its sequence. This is why neither lookups nor
 * cursors need an exact offset that would have to be kept true: an offset is a hint.
 */
#include "blobstore/segment.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define RESYNC_STEP (64u << 10) /* bytes looked at per read when searching a header */
#define LINEAR_SIZE (64u << 10) /* bytes below which a seek walks instead of bisecting */

void rf_segment_name(const struct rf_log_place *place, char out[RF_SEGMENT_NAME_SIZE])
{
    snprintf(out, RF_SEGMENT_NAME_SIZE, "%016" PRIx64 "-%" PRIu32, place->first, place->attempt);
}

bool rf_segment_parse(struct rf_log_place *out, const char *name)
{
    struct rf_log_place place = {0};
    char again[RF_SEGMENT_NAME_SIZE];

    if (sscanf(name, "%16" SCNx64 "-%" SCNu32, &place.first, &place.attempt) != 2)
        return false;
    rf_segment_name(&place, again);
    if (strcmp(again, name) != 0 || place.first == 0)
        return false;
    out->first = place.first;
    out->attempt = place.attempt;
    return true;
}

void rf_scan_init(struct rf_scan *scan, int fd, const struct rf_log_place *place, uint64_t offset,
                  uint64_t limit)
{
    *scan = (struct rf_scan){.fd = fd, .place = *place, .offset = offset, .limit = limit};
}

void rf_scan_release(struct rf_scan *scan)
{
    free(scan->window);
    scan->window = NULL;
    scan->capacity = scan->filled = 0;
}

static bool grow_window(struct rf_scan *scan, size_t size)
{
    uint8_t *grown;

    if (scan->capacity >= size)
        return true;
    grown = realloc(scan->window, size);
    if (!grown)
        return false;
    scan->window = grown;
    scan->capacity = size;
    return true;
}

/* Fill the window from offset on with at least need bytes; ahead: read as many if they are there.
 * *out is NULL when the file or the limit ends before need bytes. */
static enum rf_status want(struct rf_scan *scan, uint64_t offset, size_t need, size_t ahead,
                           const uint8_t **out, struct rf_error *err)
{
    size_t size = need > ahead ? need : ahead;

    *out = NULL;
    if (scan->filled && offset >= scan->start && offset + need <= scan->start + scan->filled) {
        *out = scan->window + (offset - scan->start);
        return RF_OK;
    }
    if (offset > scan->limit || need > scan->limit - offset)
        return RF_OK;
    if (size > scan->limit - offset)
        size = (size_t)(scan->limit - offset);
    if (!grow_window(scan, size))
        return rf_error_set(err, RF_NOMEM, "no memory to read the log");
    scan->start = offset;
    scan->filled = 0;
    while (scan->filled < size) {
        ssize_t n = pread(scan->fd, scan->window + scan->filled, size - scan->filled,
                          (off_t)(offset + scan->filled));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            scan->filled = 0;
            return rf_error_errno(err, RF_IO, errno, "cannot read segment %016" PRIx64 "-%" PRIu32,
                                  scan->place.first, scan->place.attempt);
        }
        if (n == 0)
            break;
        scan->filled += (size_t)n;
    }
    if (scan->filled >= need)
        *out = scan->window;
    return RF_OK;
}

/* The payload of the record at scan->offset, and the padding behind it where there is any. */
static enum rf_status read_payload(struct rf_scan *scan, struct rf_scanned *out,
                                   struct rf_error *err)
{
    size_t end = RF_LOG_HEADER_SIZE + out->record.stored;
    size_t span = (size_t)rf_log_span(&out->record);
    const uint8_t *at;
    enum rf_status status = want(scan, scan->offset, span, RF_SCAN_WINDOW, &at, err);

    for (size_t i = end; at && i < span; i++)
        out->flawed |= at[i] != 0;
    if (status == RF_OK && !at) /* a file may end without the padding */
        status = want(scan, scan->offset, end, RF_SCAN_WINDOW, &at, err);
    if (status != RF_OK)
        return status;
    if (at)
        out->payload = rf_bytes(at + RF_LOG_HEADER_SIZE, out->record.stored);
    out->damaged = !at || rf_log_checksum(out->payload) != out->record.checksum;
    return RF_OK;
}

enum rf_status rf_scan_next(struct rf_scan *scan, struct rf_scanned *out, struct rf_error *err)
{
    size_t ahead = scan->headers_only ? LINEAR_SIZE : RF_SCAN_WINDOW;
    const uint8_t *at;
    enum rf_status status = want(scan, scan->offset, RF_LOG_HEADER_SIZE, ahead, &at, err);

    if (status != RF_OK)
        return status;
    if (!at)
        return RF_END;
    *out = (struct rf_scanned){.offset = scan->offset};
    if (!rf_log_decode(&out->record, at, &scan->place, scan->offset))
        return RF_CORRUPT;
    if (out->record.stored > 0 && !scan->headers_only)
        status = read_payload(scan, out, err);
    if (status != RF_OK)
        return status;
    scan->offset += rf_log_span(&out->record);
    return RF_OK;
}

enum rf_status rf_scan_resync(struct rf_scan *scan, struct rf_error *err)
{
    uint64_t offset = (scan->offset + RF_LOG_ALIGN) & ~(uint64_t)(RF_LOG_ALIGN - 1);
    struct rf_log_record record;
    const uint8_t *at;

    for (;;) {
        enum rf_status status = want(scan, offset, RF_LOG_HEADER_SIZE, RESYNC_STEP, &at, err);
        size_t room;
        if (status != RF_OK)
            return status;
        if (!at)
            return RF_END;
        room = scan->filled - (size_t)(offset - scan->start);
        for (; room >= RF_LOG_HEADER_SIZE; room -= RF_LOG_ALIGN) {
            if (rf_log_decode(&record, at, &scan->place, offset)) {
                scan->offset = offset;
                return RF_OK;
            }
            at += RF_LOG_ALIGN;
            offset += RF_LOG_ALIGN;
            if (room < RF_LOG_HEADER_SIZE + RF_LOG_ALIGN)
                break;
        }
    }
}

/* Narrow [low, high) down while low stays at a sound record (or the segment's start) whose
 * sequence is below seq. */
static enum rf_status bisect(struct rf_scan *scan, uint64_t seq, uint64_t *low,
                             struct rf_error *err)
{
    uint64_t high = scan->limit, limit = scan->limit;
    struct rf_scanned found;
    enum rf_status status = RF_OK;

    while (high > *low + LINEAR_SIZE) {
        uint64_t middle = *low + (high - *low) / 2;
        scan->offset = middle;
        scan->limit = high;
        status = rf_scan_resync(scan, err);
        if (status == RF_OK)
            status = rf_scan_next(scan, &found, err);
        scan->limit = limit;
        if (status == RF_END || (status == RF_OK && found.record.seq >= seq))
            high = middle;
        else if (status == RF_OK)
            *low = found.offset;
        else
            break;
    }
    return status == RF_END ? RF_OK : status;
}

enum rf_status rf_scan_seek(struct rf_scan *scan, uint64_t seq, struct rf_error *err)
{
    bool headers_only = scan->headers_only;
    uint64_t low = 0, end = 0;
    struct rf_scanned found;
    enum rf_status status;

    scan->headers_only = true;
    status = bisect(scan, seq, &low, err);
    scan->offset = low;
    while (status == RF_OK) {
        status = rf_scan_next(scan, &found, err);
        if (status == RF_CORRUPT)
            status = rf_scan_resync(scan, err);
        else if (status == RF_OK && found.record.seq >= seq && found.record.op != RF_LOG_BEGIN) {
            scan->offset = found.offset;
            break;
        } else if (status == RF_OK) {
            end = scan->offset;
        }
    }
    if (status == RF_END)
        scan->offset = end;
    scan->headers_only = headers_only;
    return status;
}
