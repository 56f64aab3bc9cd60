/*
 * unit.h - one item under way, and where its bytes are (internal to indexer/)
 *
 * A unit counts its holders: the pipeline, and every part that reads from it. Content is in memory
 * (read from the queue, joined from a small file, or made by a mapper) or stays in the store, where
 * a part is a range of the blob or file it was cut from, however deep, maybe behind a short head
 * that its mapper put before it.
 */
#ifndef RF_INDEXER_UNIT_H
#define RF_INDEXER_UNIT_H

#include "backup/schema.h"
#include "blobstore/blobstore.h"
#include "mappers/pool.h"
#include "sinks/sink.h"

#define RF_CONTENT_INLINE_MAX (256u << 10) /* bytes kept in memory; more is read by range */
#define RF_PART_DEPTH_MAX 16               /* parts within parts */

enum rf_unit_kind {
    RF_UNIT_ITEM,    /* a blob or file, because of a change or a park */
    RF_UNIT_PART,    /* cut out of another unit */
    RF_UNIT_REMOVE,  /* a tombstone */
    RF_UNIT_ARRIVED  /* a put that is no item of its own: wakes parks */
};

/* Where the bytes of a part come from; bytes and media are lent. */
struct rf_part_spec {
    bool inlined;
    struct rf_bytes head; /* before the range */
    uint64_t offset, size;
    struct rf_bytes bytes, media;
};

struct rf_unit {
    enum rf_unit_kind kind;
    struct rf_item item; /* lent to the pool; item.user is this unit */
    char key[RF_ITEM_KEY_SIZE];
    unsigned holders, depth;
    struct rf_unit *parent; /* PART: held */
    struct rf_unit *root;   /* the blob or file that ranges refer to (not held twice) */
    struct rf_bytes head;   /* how the content begins, before what is read from the root; owned */
    uint64_t base;          /* where the rest of the content starts within the root's */
    uint8_t *owned;         /* content in memory of its own, or NULL */
    struct rf_file *file;   /* a FILE's blob, in the arena */
    struct rf_arena arena;  /* of a FILE; max 0 when not used */
    struct rf_blobref missing; /* algo 0, or the blob whose absence ended its mapping */
    struct rf_cursor after; /* the place behind its change; seq 0: it comes from none */
    uint64_t batch;         /* number of the batch it belongs to; 0: of none, it resolves a park */
    bool slow;              /* in the slow lane */
    bool large_out;         /* holds a slot of the large ones */
    bool refused;           /* more parts would come of it than may: its splits are dead letters */
    struct rf_unit *top;    /* PART: what is cut, with its parts, in this batch (not held twice) */
    uint64_t below;         /* of such a one: the parts that came of it so far */
    bool only_calls;        /* only `mapper` is run; the others' rows stay */
    bool dead;              /* content could not be had: dead_reason for every mapper */
    enum rf_dead_class dead_class; /* of that; 0: RF_DEAD_BLOB */
    uint16_t mapper;        /* only_calls: index into the lane's mappers */
    uint32_t attempts;
    int16_t *versions;      /* where a lane has chains: which maps it, by mapper; -1: none; owned */
    char *dead_reason;      /* owned */
    struct rf_result *result; /* READY: what the pool answered, owned */
    struct rf_unit_tally {      /* what was written of it, for the pipeline's books */
        bool slow, need;        /* it was parked as slow; it waits for a blob */
        uint32_t items, dead_letters, parked, unmatched;
        uint64_t rows, sink_us;
    } tally;
    struct rf_part_list *parts; /* WRITTEN: parts still to become units, owned */
    size_t counted_bytes;   /* what the pipeline counts for it */
    struct rf_unit *next;   /* in the queue it is in */
    struct rf_unit *order_next, **order_link; /* among changes not begun yet; link NULL: not */
    bool ready;             /* of them: it may be written */
    struct rf_unit *all_next, **all_link; /* among all units under way */
};

/*
 * Reads the content of units from a store. A store checks what it reads in whole blocks, of up to
 * 1 MiB, while parts are small and workers ask by range: the reader keeps a few pieces that were
 * read last, and reads further ahead the longer a content is read in order. 4 MiB at most; content
 * never changes, so nothing it keeps goes stale. One thread.
 */
struct rf_unit_reader {
    struct rf_store *store; /* lent */
    uint64_t clock;
    struct rf_unit_piece {
        struct rf_blobref ref; /* of the root whose content it is; algo 0: nothing is kept */
        uint64_t offset, used;
        size_t size, capacity;
        uint8_t *bytes;
    } pieces[4];
};

void rf_unit_reader_release(struct rf_unit_reader *reader); /* {.store = store} makes one */

/* A new unit with one holder. */
struct rf_unit *rf_unit_new(enum rf_unit_kind kind);
void rf_unit_hold(struct rf_unit *unit);
void rf_unit_release(struct rf_unit *unit);

/* Units in a row, by their `next`. */
struct rf_queue {
    struct rf_unit *head, **tail;
    size_t count;
};

void rf_queue_init(struct rf_queue *queue);
void rf_queue_put(struct rf_queue *queue, struct rf_unit *unit);
void rf_queue_put_first(struct rf_queue *queue, struct rf_unit *unit);
struct rf_unit *rf_queue_take(struct rf_queue *queue); /* NULL: it is empty */
void rf_queue_append(struct rf_queue *queue, struct rf_queue *from); /* from is empty then */

/* Bytes it keeps in memory, for the pipeline's bound; bytes of output its calls gave. */
size_t rf_unit_bytes(const struct rf_unit *unit);
size_t rf_unit_output_bytes(const struct rf_unit *unit);

/* Read from the content of a unit, from memory or from the store. RF_NOT_FOUND: unit->missing
 * names what is not there. */
RF_MUST_USE enum rf_status rf_unit_read(struct rf_unit_reader *reader, struct rf_unit *unit,
                                        uint64_t offset, void *out, size_t size, size_t *got,
                                        struct rf_error *err);

/*
 * Make an ITEM unit of a stored blob: bytes are its own when small (lent: they are copied), data
 * NULL when it is large. Schema blobs become files, their content in memory when small; a unit of a
 * tree or ref blob is an ARRIVED one. A broken schema blob is a unit with dead set.
 */
RF_MUST_USE enum rf_status rf_unit_from_blob(struct rf_unit **out,
                                             struct rf_unit_reader *reader,
                                             const struct rf_stat *stat, struct rf_bytes bytes,
                                             struct rf_error *err);

/* The unit of the change that a feed gave last, or NULL: there is nothing to do about it. */
RF_MUST_USE enum rf_status rf_unit_from_change(struct rf_unit **out,
                                               struct rf_unit_reader *reader,
                                               struct rf_feed *feed,
                                               const struct rf_change *change,
                                               struct rf_error *err);

/* The part of a parent that a range or bytes describe; ref and key are found by hashing it. On
 * failure the parent's missing says what is not there. RF_LIMIT: too deep. RF_EXISTS: it equals
 * its parent or an ancestor and makes no item. */
RF_MUST_USE enum rf_status rf_unit_hash_part(struct rf_unit_reader *reader,
                                             struct rf_unit *parent,
                                             const struct rf_part_spec *spec,
                                             struct rf_blobref *ref, char key[RF_ITEM_KEY_SIZE],
                                             struct rf_error *err);
RF_MUST_USE enum rf_status rf_unit_from_part(struct rf_unit **out,
                                             struct rf_unit_reader *reader,
                                             struct rf_unit *parent,
                                             const struct rf_part_spec *spec,
                                             const struct rf_blobref *ref, const char *key,
                                             struct rf_error *err);

#endif
