/*
 * backend.h - what a kind of blob store provides
 *
 * A backend is one constant table, found by the scheme of the url ("disk:PATH"); its store, feed
 * and large upload embed the structs below first. The functions of blobstore.h assert the contract
 * and dispatch here, so each promise is as written there. Backends know nothing of each other.
 */
#ifndef RF_BLOBSTORE_BACKEND_H
#define RF_BLOBSTORE_BACKEND_H

#include "blobstore/blobstore.h"

struct rf_large_acts;

struct rf_store {
    const struct rf_store_ops *ops;
    bool writable;
    struct rf_large_acts *large_acts; /* of a writable store; blobstore.c's */
};

struct rf_feed {
    const struct rf_store_ops *ops;
};

/* A payload above RF_BLOB_INLINE_MAX on its way in; the backend hashes it. */
struct rf_large {
    const struct rf_store_ops *ops;
};

struct rf_store_ops {
    const char *name; /* the scheme of its urls */

    enum rf_status (*open)(struct rf_store **out, const char *path,
                           const struct rf_store_options *options, struct rf_error *err);
    void (*close)(struct rf_store *store);
    enum rf_status (*info)(struct rf_store *store, struct rf_store_info *out,
                           struct rf_error *err);

    /* At most RF_BLOB_INLINE_MAX bytes. act->ref and act->own.size are settled, bytes match the
     * ref, the store is writable. */
    void (*submit)(struct rf_store *store, struct rf_act *act);

    enum rf_status (*large_open)(struct rf_large **out, struct rf_store *store,
                                 struct rf_error *err);
    enum rf_status (*large_write)(struct rf_large *large, struct rf_bytes bytes,
                                  struct rf_error *err);
    /* May take fewer bytes than size (*taken, also 0): the rest comes by large_write. NULL: never
     * takes any. */
    enum rf_status (*large_clone)(struct rf_large *large, int fd, uint64_t offset, uint64_t size,
                                  uint64_t *taken, struct rf_error *err);
    enum rf_status (*large_commit)(struct rf_large *large, const struct rf_blobref *expect,
                                   bool part, struct rf_blobref *out,
                                   enum rf_put_outcome *outcome, uint64_t *seq,
                                   struct rf_error *err);
    void (*large_close)(struct rf_large *large);

    enum rf_status (*stat)(struct rf_store *store, const struct rf_blobref *ref,
                           struct rf_stat *out, struct rf_error *err);
    enum rf_status (*get)(struct rf_store *store, const struct rf_blobref *ref,
                          struct rf_buf *buf, struct rf_error *err);
    enum rf_status (*read)(struct rf_store *store, const struct rf_blobref *ref, uint64_t offset,
                           void *out, size_t size, size_t *got, struct rf_error *err);
    enum rf_status (*list)(struct rf_store *store, const struct rf_blobref *after,
                           enum rf_status (*visit)(void *user, const struct rf_stat *stat),
                           void *user, struct rf_error *err);

    enum rf_status (*feed_open)(struct rf_feed **out, struct rf_store *store,
                                const struct rf_cursor *from, struct rf_error *err);
    void (*feed_close)(struct rf_feed *feed);
    enum rf_status (*feed_next)(struct rf_feed *feed, struct rf_change *out, int timeout_ms,
                                struct rf_error *err);
    enum rf_status (*feed_blob)(struct rf_feed *feed, struct rf_bytes *out, struct rf_error *err);
    void (*feed_cursor)(struct rf_feed *feed, struct rf_cursor *out);
    void (*feed_cancel)(struct rf_feed *feed);

    enum rf_status (*verify)(struct rf_store *store, struct rf_verify_report *out,
                             void (*problem)(void *user, const char *line),
                             void (*progress)(void *user, uint64_t done, uint64_t total),
                             void *user, struct rf_error *err);
    enum rf_status (*check)(struct rf_store *store, uint64_t *damaged,
                            void (*problem)(void *user, const char *line), void *user,
                            struct rf_error *err);
    enum rf_status (*compact)(struct rf_store *store, uint64_t *freed, struct rf_error *err);
};

extern const struct rf_store_ops rf_store_disk_ops;
extern const struct rf_store_ops rf_store_memory_ops;

/* "b1946ac9-..." of 16 bytes, with version 4 and variant bits as they are. */
void rf_uuid_format(const uint8_t uuid[16], char out[37]);
bool rf_uuid_parse(uint8_t uuid[16], const char *text);
void rf_uuid_random(uint8_t uuid[16]);

/* The answer to a cursor that does not fit, worded the same by every backend. */
enum rf_status rf_cursor_refuse(enum rf_status status, const struct rf_cursor *cursor,
                                uint64_t bound, struct rf_error *err);

/* Where the log stands, as far as a cursor is concerned. chain_after answers the chain after a
 * sequence within the log; RF_NOT_FOUND when it cannot be told any more. */
struct rf_cursor_bounds {
    uint32_t generation;
    uint64_t oldest_seq, newest_seq;
};
/* RF_OK, or the refusal of what can be told without the chain. */
enum rf_status rf_cursor_check(const struct rf_cursor *cursor,
                               const struct rf_cursor_bounds *bounds, struct rf_error *err);

/*
 * To submit an act and sleep until it is answered, give it rf_act_settle as done. A backend that
 * does not answer before its submit returns points own.answers to a word that it raises, and wakes
 * all sleepers on (a private futex), each time it has answered some of them: so one call wakes
 * many.
 */
void rf_act_settle(struct rf_act *act);
void rf_act_await(struct rf_act *act);

/* Now, as the log's timestamps count. */
int64_t rf_store_now_us(void);

#endif
