/*
 * append.h - the open end of the log
 *
 * Writes a batch of records behind the last one and makes it durable, in segments of a bounded
 * size. A write or fsync that failed is never tried again on the same file: what the kernel kept of
 * it cannot be known. The segment is abandoned where it was last durable, and the next one's begin
 * record and name say where that was, so that anything beyond is void. One thread.
 *
 *   none -- open_segment --> open -- full --> sealed (trimmed), none
 *                             |
 *                             '-- write or fsync failed --> abandoned, none
 */
#ifndef RF_BLOBSTORE_APPEND_H
#define RF_BLOBSTORE_APPEND_H

#include <sys/uio.h>

#include "blobstore/log_dir.h"

/* Where writing goes on. */
struct rf_commit_point {
    uint64_t next_seq, chain;
    uint64_t blobs, bytes; /* alive */
    bool has_segment;      /* go on in this one; else a new one is made */
    struct rf_log_place place; /* of the last segment; first 0: there is none */
    uint64_t end;
};

struct rf_append {
    struct rf_log_dir *log;
    uint64_t segment_bytes;
    struct rf_log_begin identity; /* format, generation, uuid, salt */
    struct rf_commit_point point;
    int fd; /* -1: none open */
    uint64_t allocated, step;
};

RF_MUST_USE enum rf_status rf_append_init(struct rf_append *append, struct rf_log_dir *log,
                                          uint64_t segment_bytes,
                                          const struct rf_log_begin *identity,
                                          const struct rf_commit_point *point,
                                          struct rf_error *err);

/* Trim the open segment to its end and close it. */
void rf_append_release(struct rf_append *append);

/* Have a segment open with room for at least size bytes, or for any one record. *room: bytes that
 * may be written to it now. */
RF_MUST_USE enum rf_status rf_append_prepare(struct rf_append *append, uint64_t size,
                                             uint64_t *room, struct rf_error *err);

/* Write size bytes at point.end and make them durable; the caller then moves point on. RF_IO: the
 * segment is abandoned. vectors are used up. */
RF_MUST_USE enum rf_status rf_append_write(struct rf_append *append, struct iovec *vectors,
                                           size_t count, uint64_t size, struct rf_error *err);

#endif
