/*
 * head.h - the published end of the log, shared with every process that reads the store
 *
 * One page, mapped by all. The writer fills the slot that is not in use, then moves the word, on
 * which followers sleep (futex). So a writer killed at any instruction leaves one whole slot. The
 * file is made once at full size, written in place and never renamed. It holds nothing that cannot
 * be told from the log; numbers stand in the machine's own order, for it is shared memory.
 *
 *    0 "rfhead01"      64 slot of even words     192 slot of odd words     4096 end
 *    8 u32 word        slot: u64 seq, chain, segment first, segment end, attempt | epoch << 32,
 *                            blobs, bytes, dead, word; u64 XXH3-64 of these, seeded by the store
 */
#ifndef RF_BLOBSTORE_HEAD_H
#define RF_BLOBSTORE_HEAD_H

#include "core/bytes.h"
#include "core/error.h"

struct rf_head_state {
    uint64_t seq;   /* of the newest change that is durable; 0: none */
    uint64_t chain; /* after it */
    uint64_t segment_first, segment_end; /* where the log ends */
    uint32_t segment_attempt;
    uint32_t epoch; /* raised when lookup runs or segments were replaced */
    uint64_t blobs, bytes; /* alive */
    uint64_t dead;  /* bytes deleted from segments since they were last looked at for compaction */
    bool has_chain; /* false: chain is not known (a reader without a sound head) */
};

struct rf_head;

/* Map the file in dir; writing makes or mends it. RF_NOT_FOUND: missing or too short. seed tells
 * this store from others. */
RF_MUST_USE enum rf_status rf_head_open(struct rf_head **out, int dir, bool writing, uint64_t seed,
                                        struct rf_error *err);
void rf_head_close(struct rf_head *head);

/* The published state; false when the page is bad. Any thread. */
bool rf_head_read(struct rf_head *head, struct rf_head_state *out);

/* Changes whenever something is published. One load. */
uint32_t rf_head_word(struct rf_head *head);

/* Publish and wake all followers. One writer thread at a time. */
void rf_head_publish(struct rf_head *head, const struct rf_head_state *state);

/* Make the page durable. */
RF_MUST_USE enum rf_status rf_head_sync(struct rf_head *head, struct rf_error *err);

/* False when the name in dir no longer leads to the mapped file. */
bool rf_head_is_current(struct rf_head *head, int dir);

/* Sleep until the head's word differs from word, *own from own_seen, or timeout_ms passed; may wake
 * early. head may be NULL. *own is a word of this process (rf_head_wake wakes it). */
void rf_head_wait(struct rf_head *head, uint32_t word, uint32_t *own, uint32_t own_seen,
                  int timeout_ms);
void rf_head_wake(uint32_t *own);

#endif
