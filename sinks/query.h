/*
 * query.h - asking an index: SQL, search, and whether it is true
 *
 * Every function opens its own read-only connection and may run while a writer works.
 */
#ifndef RF_SINKS_QUERY_H
#define RF_SINKS_QUERY_H

#include "core/arena.h"
#include "core/buf.h"
#include "core/error.h"
#include "core/row.h"

/* ---- SQL ---- */

enum rf_cell_type { RF_CELL_NULL, RF_CELL_INT, RF_CELL_FLOAT, RF_CELL_TEXT, RF_CELL_BYTES };

struct rf_cell {
    enum rf_cell_type type;
    int64_t integer;
    double real;
    struct rf_bytes text; /* TEXT and BYTES */
};

/* Called once per row (index from 0) with all cells; names are the same each time. What it answers
 * other than RF_OK ends the query with that status. */
typedef enum rf_status (*rf_query_visit)(void *user, uint64_t index, size_t count,
                                         const char *const *names, const struct rf_cell *cells);

/* Run one read-only statement. RF_INVALID: SQL error or a statement that would write, with SQLite's
 * words and the place. RF_END: there is no statement in it. header is called first, also without
 * rows; may be NULL. interrupted is polled; when it turns nonzero the query ends with RF_CANCELLED;
 * may be NULL. */
RF_MUST_USE enum rf_status rf_query_sql(const char *url, const char *sql,
                                        void (*header)(void *user, size_t count,
                                                       const char *const *names),
                                        rf_query_visit visit, void *user,
                                        const volatile int *interrupted, struct rf_error *err);

/* ---- search ---- */

struct rf_hit {
    const char *table, *mapper;
    const char *item;     /* key of the item it was mapped from */
    const char *name;     /* of the item or of its part, or NULL */
    const char *column;   /* the one the snippet is from */
    const char *snippet;  /* hit marked by \x02 and \x03 */
    const char *title;    /* the first text column's beginning, or NULL */
    double rank;          /* bm25; lower is better */
    int64_t row;          /* id within its table */
    int64_t timestamp_us; /* of the item or of what reaches it; INT64_MIN: unknown */
};

#define RF_HITS_MAX 100000 /* limit and offset together */

struct rf_search_options {
    size_t limit;        /* 0: 20 */
    size_t offset;
    const char *table;   /* only this table, or NULL */
};

/*
 * Search every `search` column of the live lane. Words are joined by AND; "a phrase"; prefix*;
 * -word excludes; the last word of the line also matches as a prefix when nothing else does. Any
 * text is a valid query: characters FTS5 would take for syntax are data. Hits in order of rank,
 * ties by item. total: hits in all. RF_INVALID: no word in it.
 */
RF_MUST_USE enum rf_status rf_query_search(const char *url, const char *words,
                                           const struct rf_search_options *options,
                                           enum rf_status (*visit)(void *user,
                                                                   const struct rf_hit *hit),
                                           void *user, uint64_t *total, struct rf_error *err);

/* ---- one item ---- */

/* What a sink without SQL is asked about items; for the others the tables are there to be asked:
 * RF_UNSUPPORTED. */
struct rf_items_question {
    const char *const *keys; /* of items; also of what parts are made of: blobrefs */
    size_t key_count;
    const char *const *names;
    size_t name_count;
    const char *part_prefix; /* what keys of parts begin with, or NULL */
    size_t limit;
};

struct rf_item_answer {
    const char *key, *kind, *name; /* name NULL: none */
    uint64_t seq;
    bool deleted;
};

/* Newest first. */
RF_MUST_USE enum rf_status rf_query_items(const char *url,
                                          const struct rf_items_question *question,
                                          enum rf_status (*visit)(void *user,
                                                                  const struct rf_item_answer *),
                                          void *user, struct rf_error *err);

struct rf_item_call_answer { /* of one mapper of the live lane, in order of names */
    const char *mapper;
    const char *state, *reason; /* "set aside (mapper)", "parked (need)"; NULL: neither */
    const char *tables;         /* "note 2, tag 1" */
    uint64_t rows, parts, parts_aside; /* parts_aside: have a dead letter */
};

struct rf_item_parent_answer {
    const char *key, *name, *mapper; /* name NULL: none */
};

RF_MUST_USE enum rf_status
rf_query_item(const char *url, const char *key,
              enum rf_status (*parent)(void *user, const struct rf_item_parent_answer *),
              enum rf_status (*call)(void *user, const struct rf_item_call_answer *), void *user,
              struct rf_error *err);

/* ---- truth ---- */

struct rf_compare_report {
    uint64_t tables, rows;  /* compared */
    uint64_t differences;
    bool begun;             /* anything was compared */
    bool unsound;           /* what a rebuild beside it would not mend: pages, references, lanes */
    uint64_t by_hand;       /* differences that nothing mends but what their lines say */
    /* left out, by (item, mapper), with the parts below: */
    uint64_t limit_letters; /* dead letters of class limit, which may differ between machines */
    uint64_t parked;        /* what still waits for the slow lane on either side */
    /* Told by rf_index_verify: changes and contents that the store could not read, so that
     * what the index holds of them counts as different. */
    uint64_t unreadable;
    uint64_t until_seq, newest_seq; /* and: the change the index is at, and the store's newest */
};

/* The rebuilt index holds some items only: rows of others are not looked at. */
struct rf_compare_sample {
    const char *const *unsure; /* mappers whose rows of parts depend on items that are not there */
    size_t unsure_count;
};

struct rf_compare_progress {
    const char *what;    /* is being looked at, "comparing table 'mail'"; lent during the call */
    uint64_t done;       /* canonical rows compared, and rows whose full-text entries were */
    uint64_t total;      /* about; 0: not known */
    uint64_t differences;
};

struct rf_compare_options {
    const struct rf_compare_sample *sample; /* NULL: all items */
    uint64_t rows, others; /* the rebuilt index holds, about: rows of mapper tables, and others */
    /* One line per difference: table, item, n, column, what is there and what should be; at most
     * 1,000 lines, then a count. */
    void (*problem)(void *user, const char *line);
    /* Some ten times a second, also while a database is silent. */
    void (*progress)(void *user, const struct rf_compare_progress *progress);
    void *user;
    const volatile int *interrupted; /* polled: nonzero ends the comparing with RF_CANCELLED */
};

/*
 * Compare the live lane of two indexes by canonical rows: items, rows of every mapper table (in
 * order of item and n, surrogate ids and times of mapping left out), edges, needs, parks, dead
 * letters, and the full-text index of each table against a fresh one made from its rows. Each of
 * the options may be 0 or NULL. RF_CORRUPT when they differ.
 */
RF_MUST_USE enum rf_status rf_query_compare(const char *url, const char *rebuilt_url,
                                            const struct rf_compare_options *options,
                                            struct rf_compare_report *out, struct rf_error *err);

/* SHA-256 over the canonical rows of the live lane: equal in two indexes that hold the same, of
 * whatever kind. rows: how many those are. interrupted as in rf_compare_options. */
struct rf_digest {
    char hex[65];
    uint64_t rows;
};
RF_MUST_USE enum rf_status rf_query_digest(const char *url, const volatile int *interrupted,
                                           struct rf_digest *out, struct rf_error *err);

/* ---- for other tools ---- */

/* Append a metadata.json for Datasette: titles, facets and labels from the mappers'
 * declarations. */
RF_MUST_USE enum rf_status rf_query_metadata(const char *url, struct rf_buf *buf,
                                             struct rf_error *err);

#endif
