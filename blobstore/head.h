/*
 * head.h - the published end of the log, shared with every process that reads the store
 *
 * One page. The writer writes a slot and the word that says which slot counts, with one call; a
 * reader that comes in the middle sees a slot that does not match its checksum, and looks again.
 * Followers sleep on the word (futex). The file is made once at full size and written in place. It
 * holds nothing that cannot be told from the log; numbers stand in the machine's own order.
 *
 * It is read and written by pread and pwrite alone: the page is mapped only because a futex is an
 * address, and no instruction of ours touches that address. So whoever removes the file, replaces
 * it or cuts it off makes nobody fault: a reader keeps what it knows, and the writer makes the file
 * again when it publishes next.
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

/* Open the file in dir, which is lent until close. seed tells this store from others. A reader's
 * file may be missing (it reads as bad until there is one); writing makes or mends it, and *lost
 * says that it had to. */
RF_MUST_USE enum rf_status rf_head_open(struct rf_head **out, int dir, bool writing, uint64_t seed,
                                        bool *lost, struct rf_error *err);
void rf_head_close(struct rf_head *head);

/* The published state; false when there is none that is whole. Any thread. */
bool rf_head_read(struct rf_head *head, struct rf_head_state *out);

/* Changes whenever something is published; 0 when there is no head. A reader's look is one system
 * call, and once a second a second one, for the file that has the name then. Any thread. */
uint32_t rf_head_word(struct rf_head *head);

/* Publish and wake all followers. One writer thread at a time. What cannot be written is told by
 * rf_head_sync. */
void rf_head_publish(struct rf_head *head, const struct rf_head_state *state);

/* Make durable what was published last. */
RF_MUST_USE enum rf_status rf_head_sync(struct rf_head *head, struct rf_error *err);

/* Sleep until the head's word differs from word, *own from own_seen, or timeout_ms passed; may wake
 * early. *own is a word of this process (rf_head_wake wakes it). */
void rf_head_wait(struct rf_head *head, uint32_t word, uint32_t *own, uint32_t own_seen,
                  int timeout_ms);
void rf_head_wake(uint32_t *own);

#endif
