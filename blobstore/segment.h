/*
 * segment.h - reading segments: one after the other, from the middle, and past damage
 *
 * A scan walks the records of one segment through a window that grows no further than the largest
 * record. It never trusts: a record counts when its header checksum, seeded by its place, holds.
 */
#ifndef RF_BLOBSTORE_SEGMENT_H
#define RF_BLOBSTORE_SEGMENT_H

#include "blobstore/log_record.h"

#define RF_LOG_TEMP ".tmp-"      /* begins the name of a segment in the making */
#define RF_SEGMENT_NAME_SIZE 32 /* "<first, 16 hex>-<attempt>" and its NUL */

void rf_segment_name(const struct rf_log_place *place, char out[RF_SEGMENT_NAME_SIZE]);
/* False when name is not a segment's; out->salt is left alone. */
bool rf_segment_parse(struct rf_log_place *out, const char *name);

#define RF_SCAN_WINDOW (256u << 10) /* bytes read ahead */

struct rf_scan {
    int fd; /* lent */
    struct rf_log_place place;
    uint64_t offset; /* of the next record */
    uint64_t limit;  /* bytes of the segment that may be read; nothing beyond exists */
    bool headers_only; /* do not read or check payloads */
    uint8_t *window;
    size_t capacity, filled;
    uint64_t start; /* offset of the window's first byte */
};

struct rf_scanned {
    struct rf_log_record record;
    uint64_t offset;
    struct rf_bytes payload; /* lent until the next call; not with headers_only */
    bool damaged;            /* the header holds, the payload does not match its checksum */
    bool flawed;             /* the bytes that fill up to the next record are not zero */
};

/* Start at offset (0: the begin record). fd is lent until rf_scan_release. */
void rf_scan_init(struct rf_scan *scan, int fd, const struct rf_log_place *place, uint64_t offset,
                  uint64_t limit);
void rf_scan_release(struct rf_scan *scan);

/* RF_OK: a record (see damaged). RF_END: no room for another before limit. RF_CORRUPT: what stands
 * here is no record; the scan stays, rf_scan_resync goes on. RF_IO, RF_NOMEM. */
RF_MUST_USE enum rf_status rf_scan_next(struct rf_scan *scan, struct rf_scanned *out,
                                        struct rf_error *err);

/* Move to the next sound header behind the present offset. RF_END: none before limit. */
RF_MUST_USE enum rf_status rf_scan_resync(struct rf_scan *scan, struct rf_error *err);

/* Set the scan so that rf_scan_next gives the first sound record with sequence seq or higher;
 * RF_END when there is none before limit (scan->offset is then behind the last sound record).
 * Bisects: reads a few windows, not the segment. */
RF_MUST_USE enum rf_status rf_scan_seek(struct rf_scan *scan, uint64_t seq, struct rf_error *err);

#endif
