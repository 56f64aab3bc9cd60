/*
 * blobstore.h - immutable blobs by content hash, and the queue of their changes
 *
 * A blob is acknowledged only after it is durable, and its change is part of the same durable
 * append: there is no second store to disagree. Changes are numbered without gaps and read in that
 * order, only after they are durable. A whole read hashes to the blobref or fails; a range holds
 * only bytes whose block checksum was checked in this read.
 *
 * One process writes a store (RF_STORE_WRITE takes its lock); any number read. Every function may
 * be called from any thread on one store; a reader, upload or feed belongs to one thread at a time.
 */
#ifndef RF_BLOBSTORE_BLOBSTORE_H
#define RF_BLOBSTORE_BLOBSTORE_H

#include "core/blobref.h"
#include "core/buf.h"

struct rf_store;

#define RF_BLOB_INLINE_MAX (1u << 20)  /* bytes; a larger blob gets a file of its own */
#define RF_BLOB_BLOCK_SIZE (64u << 10) /* bytes under one checksum in such a file */

enum rf_store_mode {
    RF_STORE_READ,   /* the published part of the log; others may write meanwhile */
    RF_STORE_WRITE,  /* take the lock, recover the tail, write; RF_LOCKED names the holder's pid */
    RF_STORE_CREATE  /* make it (RF_EXISTS when it is there), then as RF_STORE_WRITE */
};

struct rf_store_options {
    enum rf_store_mode mode;
    int lock_timeout_ms;     /* WRITE: wait so long for the lock; 0: do not wait */
    uint64_t segment_bytes;  /* 0: 256 MiB; tests make it small (at least 64 KiB) */
    uint64_t run_bytes;      /* 0: a partial lookup run per 8 MiB of open segment */
};

/*
 * Open the store at url: "disk:PATH" or "memory:" (a store of this process, gone at close).
 *
 * RF_NOT_FOUND  nothing there          RF_LOCKED  another process writes it
 * RF_UNSUPPORTED a newer format        RF_CORRUPT not a store, or its identity is damaged
 */
RF_MUST_USE enum rf_status rf_store_open(struct rf_store **out, const char *url,
                                         const struct rf_store_options *options,
                                         struct rf_error *err);

/* Finish what was submitted, seal what is open, let go of the lock. NULL is fine. */
void rf_store_close(struct rf_store *store);

/* Parts of a store on disk that can be lost without loss: they are made again. */
enum rf_store_part {
    RF_STORE_IDENTITY = 1, /* store.json */
    RF_STORE_LOCK = 2,
    RF_STORE_HEAD = 4,
    RF_STORE_RUNS = 8,  /* of the lookup: the folder, or a file in it */
    RF_STORE_LARGE = 16 /* the folder; what was in it does not come back: verify names it */
};

struct rf_store_info {
    char uuid[37];
    uint32_t generation;
    uint64_t oldest_seq; /* of the oldest change kept; 1 in a new store */
    uint64_t next_seq;   /* the sequence the next change will get */
    uint64_t blobs;      /* alive */
    uint64_t bytes;      /* alive, as their owners count them */
    uint64_t disk_bytes; /* taken on disk; 0 in memory */
    unsigned lost;       /* enum rf_store_part: missing or damaged; the next writer mends it */
    unsigned mended;     /* was so when the store was opened, and was made again */
};

/* One of these in words: what is the matter, and what becomes of it. */
void rf_store_part_describe(enum rf_store_part part, bool mended, char *out, size_t size);

RF_MUST_USE enum rf_status rf_store_info(struct rf_store *store, struct rf_store_info *out,
                                         struct rf_error *err);

/* ---- writing ---- */

enum rf_put_outcome {
    RF_PUT_NEW,     /* stored, with a change of its own */
    RF_PUT_PRESENT, /* it was there; nothing was written */
    RF_PUT_LIFTED,  /* it was there as a part; a change without payload lifts the flag */
    RF_PUT_DELETED, /* of rf_store_delete */
    RF_PUT_ABSENT   /* of rf_store_delete: it was not there; nothing was written */
};

/*
 * One put or delete under way. The caller owns it and its bytes until done was called, exactly
 * once, from a thread of the store (or from rf_store_submit itself when the answer is known);
 * done must be quick and must not call into the store, but may free the act.
 */
struct rf_act {
    /* in */
    bool is_delete;
    bool part;              /* put: flagged as content of a file blob, not an item of its own */
    struct rf_bytes bytes;  /* put: of any size */
    struct rf_blobref ref;  /* delete: which; put: expected, or algo 0 to take what it hashes to */
    void (*done)(struct rf_act *act);
    void *user;
    /* out */
    enum rf_status status;  /* RF_INVALID: bytes do not hash to ref; RF_IO: not stored */
    enum rf_put_outcome outcome;
    uint64_t seq;           /* of the change that holds it */
    struct rf_error error;
    /* the store's, while under way */
    struct rf_act *next;
    struct {
        uint64_t size, checksum; /* of the payload */
        uint64_t epoch;          /* of the lookup that known comes from */
        uint32_t known_life;     /* acts on this ref then, ... */
        uint64_t known_seq, known_size;
        bool known, known_part;
        bool lost;               /* the copy that is there cannot be read: it is replaced */
        uint32_t settled;        /* atomic; see rf_act_await */
        uint32_t *answers;
        bool large;              /* the payload is in a file of its own, */
        uint32_t large_life;     /* named by this life; 0: it was there when looked up */
    } own;
};

/* Hand an act to the store. Blocks only while its queue is full (8,192 acts or 64 MiB; of puts
 * above RF_BLOB_INLINE_MAX 16). */
void rf_store_submit(struct rf_store *store, struct rf_act *act);

/* Submit and wait. bytes of any size. expect may be NULL. out, outcome may be NULL. */
RF_MUST_USE enum rf_status rf_store_put(struct rf_store *store, struct rf_bytes bytes,
                                        const struct rf_blobref *expect, bool part,
                                        struct rf_blobref *out, enum rf_put_outcome *outcome,
                                        struct rf_error *err);

/* Append a tombstone. A large payload is gone when this returns. */
RF_MUST_USE enum rf_status rf_store_delete(struct rf_store *store, const struct rf_blobref *ref,
                                           enum rf_put_outcome *outcome, struct rf_error *err);

/* A blob that arrives in pieces, of any size, in constant memory. */
struct rf_upload;
RF_MUST_USE enum rf_status rf_upload_open(struct rf_upload **out, struct rf_store *store,
                                          struct rf_error *err);
RF_MUST_USE enum rf_status rf_upload_write(struct rf_upload *upload, struct rf_bytes bytes,
                                           struct rf_error *err);
/* Take size bytes of fd at offset; reflinked where source and store allow it and the range is
 * block-aligned. RF_INVALID when the file ends early (it changed while being read). */
RF_MUST_USE enum rf_status rf_upload_write_fd(struct rf_upload *upload, int fd, uint64_t offset,
                                              uint64_t size, struct rf_error *err);
/* Make it durable and answer as rf_store_put. Call once, then rf_upload_close. */
RF_MUST_USE enum rf_status rf_upload_commit(struct rf_upload *upload,
                                            const struct rf_blobref *expect, bool part,
                                            struct rf_blobref *out, enum rf_put_outcome *outcome,
                                            struct rf_error *err);
void rf_upload_close(struct rf_upload *upload); /* leaves nothing behind when not committed */

/* ---- reading ---- */

struct rf_stat {
    struct rf_blobref ref;
    uint64_t size, seq;
    int64_t timestamp_us; /* wall clock of its change, microseconds since 1970 */
    uint32_t life;        /* acts on this ref so far; odd: it is there */
    bool part;
};

/* RF_NOT_FOUND when it was never there or was deleted. */
RF_MUST_USE enum rf_status rf_store_stat(struct rf_store *store, const struct rf_blobref *ref,
                                         struct rf_stat *out, struct rf_error *err);

/* The whole blob, hashed, appended to buf (whose maximum bounds it: RF_LIMIT). RF_CORRUPT when
 * the stored bytes are not the blob. */
RF_MUST_USE enum rf_status rf_store_get(struct rf_store *store, const struct rf_blobref *ref,
                                        struct rf_buf *buf, struct rf_error *err);

/* Up to size bytes from offset; *got is less only at the blob's end. Checked per block, or whole
 * when the blob is small. */
RF_MUST_USE enum rf_status rf_store_read(struct rf_store *store, const struct rf_blobref *ref,
                                         uint64_t offset, void *out, size_t size, size_t *got,
                                         struct rf_error *err);

/* Alive blobs in the order of their refs: those greater than after (NULL: from the first). Calls
 * visit for each until it returns something else than RF_OK, which is then the answer. */
RF_MUST_USE enum rf_status rf_store_list(struct rf_store *store, const struct rf_blobref *after,
                                         enum rf_status (*visit)(void *user,
                                                                 const struct rf_stat *stat),
                                         void *user, struct rf_error *err);

/* ---- the change queue ---- */

/* A position: after the change with this sequence. Text: "<generation>-<seq>-<chain>", decimal,
 * decimal, 16 hex digits; the last part may be missing and is then not checked. */
struct rf_cursor {
    uint32_t generation;
    uint64_t seq;
    uint64_t chain;
    bool has_chain;
};

#define RF_CURSOR_SIZE 64 /* bytes of the text form, its NUL included */
RF_MUST_USE enum rf_status rf_cursor_parse(struct rf_cursor *out, const char *text,
                                           struct rf_error *err);
void rf_cursor_format(const struct rf_cursor *cursor, char out[RF_CURSOR_SIZE]);

struct rf_change {
    uint64_t seq, size;
    int64_t timestamp_us;
    struct rf_blobref ref;
    uint32_t life;
    bool is_delete;
    bool part;   /* content of a file blob, not an item of its own */
    bool lift;   /* the blob was there as a part and is now an item too */
    bool gone;   /* a put whose payload a later tombstone removed: counts as done */
    struct rf_cursor cursor; /* the position after this change */
};

/* A read position in the log; costs no buffer that grows with the backlog. */
struct rf_feed;

/* Follow the queue from a position (NULL: from the oldest change). The cursor is checked:
 * RF_CURSOR_GENERATION, RF_CURSOR_HISTORY, RF_CURSOR_FUTURE, RF_CURSOR_OLD, with what to do. */
RF_MUST_USE enum rf_status rf_feed_open(struct rf_feed **out, struct rf_store *store,
                                        const struct rf_cursor *from, struct rf_error *err);
void rf_feed_close(struct rf_feed *feed);

/* The next change. When there is none: waits up to timeout_ms (-1: without end) for one made by
 * any process, then RF_TIMEOUT. RF_CANCELLED after rf_feed_cancel. RF_CORRUPT: this record is bad
 * and a valid one follows; it is skipped at the next call (out names its seq where known). */
RF_MUST_USE enum rf_status rf_feed_next(struct rf_feed *feed, struct rf_change *out,
                                        int timeout_ms, struct rf_error *err);

/* The blob of the change rf_feed_next gave last, hashed: lent until the next call on feed. Only for
 * a size of at most RF_BLOB_INLINE_MAX. RF_NOT_FOUND: gone meanwhile. */
RF_MUST_USE enum rf_status rf_feed_blob(struct rf_feed *feed, struct rf_bytes *out,
                                        struct rf_error *err);

/* Where the feed stands: after the last change given. */
void rf_feed_cursor(struct rf_feed *feed, struct rf_cursor *out);

/* Make a waiting rf_feed_next return RF_CANCELLED, now and from then on. Any thread. */
void rf_feed_cancel(struct rf_feed *feed);

/* ---- care ---- */

struct rf_verify_report {
    uint64_t changes, blobs, bytes; /* looked at */
    uint64_t corrupt;               /* blobs or records that failed their checksum or hash */
    uint64_t missing;               /* large payloads without their file */
    uint64_t flaws;                 /* other damage in the log, of which no blob suffers */
    uint64_t bad_runs;              /* of the lookup; the next writer makes them again */
    uint64_t tail;                  /* changes that no run lists: new ones, or their run is gone */
    uint64_t rebuilt;               /* lookup runs that were bad and made again (WRITE mode) */
    uint64_t removed;               /* files no record names (WRITE mode) */
};

/* Read everything and check every hash. problem is called with one line per finding, also of what
 * is made again or no blob suffers from. RF_CORRUPT when something is corrupt or missing. progress
 * may be NULL. */
RF_MUST_USE enum rf_status rf_store_verify(struct rf_store *store, struct rf_verify_report *out,
                                           void (*problem)(void *user, const char *line),
                                           void (*progress)(void *user, uint64_t done,
                                                            uint64_t total),
                                           void *user, struct rf_error *err);

/* The part of rf_store_verify that costs little: the first record of every file of the log, which
 * says whose it is and which nobody reads while all is well. *damaged: how many; problem is called
 * for each. */
RF_MUST_USE enum rf_status rf_store_check(struct rf_store *store, uint64_t *damaged,
                                          void (*problem)(void *user, const char *line),
                                          void *user, struct rf_error *err);

/* Copy sealed segments that are more than half dead, dead records as headers only (WRITE mode).
 * Also runs by itself after deletes. *freed: bytes given back; may be NULL. */
RF_MUST_USE enum rf_status rf_store_compact(struct rf_store *store, uint64_t *freed,
                                            struct rf_error *err);

#endif
