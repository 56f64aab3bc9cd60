/*
 * log_dir.h - the segments of a log, and their open files
 *
 * Knows which segments there are and keeps a few of them open. A file handed out stays readable
 * when its name is replaced by a compacted copy or the segment is put away: descriptors live on
 * until the last one lets go. Any thread.
 */
#ifndef RF_BLOBSTORE_LOG_DIR_H
#define RF_BLOBSTORE_LOG_DIR_H

#include <pthread.h>

#include "blobstore/segment.h"

#define RF_LOG_FILES_MAX 16 /* segments kept open without being used */

struct rf_segment_file {
    unsigned refs; /* guarded by the log's lock */
    int fd;
    struct rf_log_place place;
};

struct rf_log_dir {
    int fd; /* of the folder */
    uint64_t salt;
    pthread_mutex_t lock;
    struct rf_log_place *segments; /* by first, one attempt each: the highest */
    size_t count, capacity;
    struct rf_segment_file *files[RF_LOG_FILES_MAX]; /* last used first */
};

/* Takes fd over, also on failure. */
RF_MUST_USE enum rf_status rf_log_dir_init(struct rf_log_dir *log, int fd, struct rf_error *err);
void rf_log_dir_release(struct rf_log_dir *log);

/* Read the folder again. */
RF_MUST_USE enum rf_status rf_log_dir_list(struct rf_log_dir *log, struct rf_error *err);

/* A segment was made (replaces an attempt of the same first). */
RF_MUST_USE enum rf_status rf_log_dir_add(struct rf_log_dir *log,
                                          const struct rf_log_place *place, struct rf_error *err);

/* Number of segments, and a copy of one; false when there is none with that index. */
size_t rf_log_dir_count(struct rf_log_dir *log);
bool rf_log_dir_at(struct rf_log_dir *log, size_t index, struct rf_log_place *out);

/* The segment that holds seq: the last one whose first is not above it. *next (may be NULL) is the
 * first of the segment behind it, UINT64_MAX when there is none. */
bool rf_log_dir_find(struct rf_log_dir *log, uint64_t seq, struct rf_log_place *out,
                     uint64_t *next);

/* Open a segment's file for reading, or share the open one. RF_NOT_FOUND when it is not there. */
RF_MUST_USE enum rf_status rf_log_dir_acquire(struct rf_log_dir *log,
                                              const struct rf_log_place *place,
                                              struct rf_segment_file **out, struct rf_error *err);
void rf_log_dir_release_file(struct rf_log_dir *log, struct rf_segment_file *file);

/* Forget open files, so that the next use sees what has that name now. */
void rf_log_dir_forget(struct rf_log_dir *log);

#endif
