/*
 * floor_log.h - the raw floors of a durable store: one file, group commit, nothing else
 *
 * struct floor_log is the strict one. What it does for a put: SHA-256 of the payload in the
 * submitting thread (one OpenSSL context per thread), 64 bytes of header and the payload handed
 * to one committer thread; that one takes what queued up during its last fdatasync (it never
 * waits for company), writes all of it by pwritev at the end of one file whose blocks were
 * allocated before the clock started, calls fdatasync once, and answers every submitter by its
 * own semaphore. There is no lookup, no check for what is there already, no checksum but the
 * hash, no second file.
 *
 * struct floor_pack is the plain way to write such a thing, without a thread of its own: each
 * submitter hashes, writes its record by pwrite at the end of the growing file under one lock, and
 * then waits until somebody's fdatasync covers it: the first who finds none running does it for all
 * that is written by then, and wakes everybody.
 */
#ifndef RF_BENCH_FLOOR_LOG_H
#define RF_BENCH_FLOOR_LOG_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FLOOR_HEADER_SIZE 64

struct floor_put {
    uint8_t header[FLOOR_HEADER_SIZE];
    const uint8_t *bytes;
    size_t size;
    sem_t *done; /* posted once when durable */
    struct floor_put *next;
};

struct floor_log {
    int fd;
    uint64_t end, syncs;
    pthread_t committer;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct floor_put *head, **tail;
    int stopping;
};

/* A file of room bytes at path, its committer running. Failures end the program. */
void floor_log_open(struct floor_log *log, const char *path, uint64_t room);
void floor_log_close(struct floor_log *log);

/* Hash and hand over; put and its bytes are the log's until done is posted. */
void floor_log_submit(struct floor_log *log, struct floor_put *put);

struct floor_pack {
    int fd;
    bool syncing;
    uint64_t written, synced, syncs; /* bytes, bytes, calls */
    pthread_mutex_t lock;
    pthread_cond_t woken;
};

void floor_pack_open(struct floor_pack *pack, const char *path);
void floor_pack_close(struct floor_pack *pack);

/* Returns when the bytes (at most 4,096) are durable. */
void floor_pack_put(struct floor_pack *pack, const void *bytes, size_t size);

/* SHA-256 by a context of the calling thread. */
void floor_hash(uint8_t digest[32], const void *bytes, size_t size);

#endif
