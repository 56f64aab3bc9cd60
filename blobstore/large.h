/*
 * large.h - a payload in a file of its own
 *
 * large/<ref>-<life> = the blob's bytes, then u64 XXH3-64 of each 64 KiB block (seeded by the
 * block's number), then 64 bytes: "RFLARGE1", u64 size, u32 block size, u32 life, 32 bytes digest,
 * u64 XXH3-64 of the 56 bytes before. The bytes come first so that a source file's blocks can be
 * shared (reflink). Written under a temporary name in the same folder; a name without ".tmp-" is
 * always whole and durable. dir is the store's folder: that of the large payloads may be missing,
 * which is as good as empty, and is made when it is written to.
 */
#ifndef RF_BLOBSTORE_LARGE_H
#define RF_BLOBSTORE_LARGE_H

#include "core/blobref.h"
#include "core/buf.h"

#define RF_LARGE_FOLDER "large"
#define RF_LARGE_NAME_SIZE 96
#define RF_LARGE_FOOTER_SIZE 64
#define RF_LARGE_TEMP ".tmp-"

void rf_large_name(const struct rf_blobref *ref, uint32_t life, char out[RF_LARGE_NAME_SIZE]);
bool rf_large_parse(struct rf_blobref *ref, uint32_t *life, const char *name);

/* ---- writing; constant memory ---- */

struct rf_large_writer;

RF_MUST_USE enum rf_status rf_large_create(struct rf_large_writer **out, int dir,
                                           struct rf_error *err);
RF_MUST_USE enum rf_status rf_large_write(struct rf_large_writer *writer, struct rf_bytes bytes,
                                          struct rf_error *err);
/* Share whole blocks of fd's range; *taken (also 0) bytes of it are in. What was taken is hashed
 * from our own file, so a source that changes meanwhile cannot make the name lie. */
RF_MUST_USE enum rf_status rf_large_clone(struct rf_large_writer *writer, int fd, uint64_t offset,
                                          uint64_t size, uint64_t *taken, struct rf_error *err);
/* No more bytes: what they hash to, and how many. */
RF_MUST_USE enum rf_status rf_large_finish(struct rf_large_writer *writer, struct rf_blobref *ref,
                                           uint64_t *size, struct rf_error *err);
/* After finish: make it durable under its name. */
RF_MUST_USE enum rf_status rf_large_publish(struct rf_large_writer *writer, uint32_t life,
                                            struct rf_error *err);
/* Removes what was not published. NULL is fine. */
void rf_large_free(struct rf_large_writer *writer);

/* ---- reading ---- */

/* All size bytes, hashed, appended to buf. RF_NOT_FOUND: no such file. */
RF_MUST_USE enum rf_status rf_large_get(int dir, const struct rf_blobref *ref, uint32_t life,
                                        uint64_t size, struct rf_buf *buf, struct rf_error *err);
/* The bytes offset..offset+count (within the blob), each block checked in this read. */
RF_MUST_USE enum rf_status rf_large_read(int dir, const struct rf_blobref *ref, uint32_t life,
                                         uint64_t size, uint64_t offset, void *out, size_t count,
                                         struct rf_error *err);
/* Read it all; check hash, block checksums and footer. */
RF_MUST_USE enum rf_status rf_large_verify(int dir, const struct rf_blobref *ref, uint32_t life,
                                           uint64_t size, struct rf_error *err);

/* After its tombstone is durable. A failure leaves a file that no record names, which the next
 * writer removes. */
void rf_large_remove(int dir, const struct rf_blobref *ref, uint32_t life);

/* Make the folder when it is missing. *made (may be NULL): it was. */
RF_MUST_USE enum rf_status rf_large_make_folder(int dir, bool *made, struct rf_error *err);
/* Make the names in it durable. */
RF_MUST_USE enum rf_status rf_large_sync_folder(int dir, struct rf_error *err);

#endif
