/*
 * canonical.h - all that the live lane of an index says, as streams of rows in a fixed order
 *
 * A canonical row holds no surrogate ids, times of mapping, attempts or reasons, so that two
 * indexes of the same blobs and mappers give the same streams, whatever kind of sink they are in,
 * in whatever order, by however many runs they came about. compare.c walks the same stream of two
 * indexes, or hashes all streams of one; a backend of sinks gives the streams.
 *
 * Deleted items are told by sequence alone, because a rebuild never sees their bytes; needs of a
 * parked item by what is missing. Dead letters of class limit depend on the machine, and what waits
 * for the slow lane is not settled: an item and mapper that have one in any of the indexes compared
 * are left out of all, with the parts below them.
 *
 * Cells are of the types of struct rf_cell: int and bool RF_CELL_INT, float RF_CELL_FLOAT, all else
 * RF_CELL_TEXT; times as rf_time_format writes them. Rows come in order of the stream's key cells:
 * null, numbers, texts by their bytes.
 *
 * One thread per rf_canon.
 */
#ifndef RF_SINKS_CANONICAL_H
#define RF_SINKS_CANONICAL_H

#include "core/arena.h"
#include "core/decl.h"
#include "sinks/query.h"

enum rf_canon_kind {
    RF_CANON_LANE,    /* state of a lane that is live, its position */
    RF_CANON_FACTS,   /* the fact 'store' */
    RF_CANON_TABLES,  /* mapper, table, title, whether it is searched */
    RF_CANON_MAPPERS, /* mapper, identity */
    RF_CANON_ITEMS,   /* item, seq, deleted, ts; null when it is deleted: kind, size, name, mtime */
    RF_CANON_PARTS,   /* item, mapper, n, key of the part or null, name, offset or null, size */
    RF_CANON_NEEDS,   /* item, mapper, ref, whether it was there */
    RF_CANON_PARKS,   /* item, mapper, kind */
    RF_CANON_LETTERS, /* item, mapper, class; not those of class limit */
    RF_CANON_CUTS,    /* item, mapper, n, column, kind, table */
    RF_CANON_ROWS,    /* of one table: item, n, its columns (a time: and its offset or null) */
    RF_CANON_STRAYS,  /* of one table: n of rows of no item; a sound index has none */
    RF_CANON_COUNT
};

struct rf_canon_stream {
    enum rf_canon_kind kind;
    const struct rf_decl *decl;   /* ROWS, STRAYS: the mapper, */
    const struct rf_table *table; /* and its table; else NULL */
    size_t count;                 /* cells of a row */
};

struct rf_canon_ops;

/* One index opened for this, in one state of it however long it takes. A backend's instance embeds
 * this first. */
struct rf_canon {
    const struct rf_canon_ops *ops;
    const volatile int *interrupted; /* may be NULL; nonzero: whatever runs ends, RF_CANCELLED */
    void (*working)(void *user);     /* may be NULL; called while something takes long */
    void *user;
};

/* For a backend to ask now and then while it works: true when it is to end. */
static inline bool rf_canon_poll(const struct rf_canon *canon)
{
    if (canon->working)
        canon->working(canon->user);
    return canon->interrupted && *canon->interrupted;
}

struct rf_canon_mapper {
    const char *name, *identity;
    const struct rf_decl *decl;
};

/* What makes a thing right again. */
enum rf_canon_mend {
    RF_MEND_REBUILD, /* a rebuild beside it */
    RF_MEND_ANEW,    /* only making the index anew */
    RF_MEND_HAND     /* neither: what its line says */
};

/* Takes one line of words about a thing that is not as it must be. */
typedef void (*rf_canon_tell)(void *user, enum rf_canon_mend mend, const char *line);

struct rf_canon_ops {
    void (*close)(struct rf_canon *canon);

    /* The mappers of the live lane, in its order, lent until close. *count 0: there is none. */
    enum rf_status (*mappers)(struct rf_canon *canon, const struct rf_canon_mapper **out,
                              size_t *count, struct rf_error *err);

    /* Visit what is to be left out as this index sees it: limit letters (parked false) and what
     * waits for the slow lane (parked true). */
    enum rf_status (*undecided)(struct rf_canon *canon,
                                enum rf_status (*visit)(void *user, const char *item,
                                                        const char *mapper, bool parked),
                                void *user, struct rf_error *err);
    /* From now on leave this item of this mapper out; doing so twice is once, parked wins. */
    enum rf_status (*leave_out)(struct rf_canon *canon, const char *item, const char *mapper,
                                bool parked, struct rf_error *err);
    /* How many items and mappers are left out because of a limit letter, and as parked. */
    enum rf_status (*left_out)(struct rf_canon *canon, uint64_t *limited, uint64_t *parked,
                               struct rf_error *err);
    /* Visit the items below what is left out. */
    enum rf_status (*beneath)(struct rf_canon *canon,
                              enum rf_status (*visit)(void *user, const char *item), void *user,
                              struct rf_error *err);
    /* From now on leave this item out. */
    enum rf_status (*leave_item)(struct rf_canon *canon, const char *item, struct rf_error *err);

    /* Begin a stream; the one before it has ended. */
    enum rf_status (*begin)(struct rf_canon *canon, const struct rf_canon_stream *stream,
                            struct rf_error *err);
    /* RF_OK: *cells are stream->count cells, lent until the next call. RF_END. */
    enum rf_status (*next)(struct rf_canon *canon, const struct rf_cell **cells,
                           struct rf_error *err);
    void (*end)(struct rf_canon *canon);

    /* Whether what is searched of a table is what its rows say. */
    enum rf_status (*check_search)(struct rf_canon *canon, const struct rf_table *table,
                                   rf_canon_tell tell, void *user, struct rf_error *err);
    /* What must hold in any index: one live lane, its tables there, no row pointing nowhere, no
     * damaged pages, tables and views and the like as refuge makes them. */
    enum rf_status (*check)(struct rf_canon *canon, rf_canon_tell tell, void *user,
                            struct rf_error *err);
};

/* rf_query_compare and rf_query_digest, of indexes that were opened; the name is for messages. */
RF_MUST_USE enum rf_status rf_canon_compare(struct rf_canon *is, const char *is_name,
                                            struct rf_canon *should,
                                            const struct rf_compare_options *options,
                                            struct rf_compare_report *out, struct rf_error *err);
RF_MUST_USE enum rf_status rf_canon_digest(struct rf_canon *canon, struct rf_digest *out,
                                           struct rf_error *err);

#endif
