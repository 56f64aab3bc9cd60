/*
 * mapper_item.h - one item for a mapper, from the store, a local file or a test, and its rows
 *
 * What `refuge mapper run` and `refuge mapper test` share: no index is needed or touched.
 */
#ifndef RF_CMD_MAPPER_ITEM_H
#define RF_CMD_MAPPER_ITEM_H

#include "backup/schema.h"
#include "cmd/index_home.h"
#include "mappers/pool.h"

/* An item and what its content is read from. Init by one of the functions below. */
struct rf_mapper_item {
    struct rf_item item;
    struct rf_store *store;    /* lent */
    struct rf_store *scratch;  /* ours: holds a local file */
    struct rf_arena arena;
    struct rf_file file;
    struct rf_buf content;     /* of a test or a part */
    char *name, *media;
};

void rf_mapper_item_init(struct rf_mapper_item *item);
void rf_mapper_item_release(struct rf_mapper_item *item);

/* A blob or file of a store. */
RF_MUST_USE enum rf_status rf_mapper_item_ref(struct rf_mapper_item *item, struct rf_store *store,
                                              const struct rf_blobref *ref, struct rf_error *err);
/* A local file, as if it had been put. */
RF_MUST_USE enum rf_status rf_mapper_item_path(struct rf_mapper_item *item, const char *path,
                                               const char *name, struct rf_error *err);
/* Bytes: a file when they have a name, a part when they have a media type, else a blob. */
void rf_mapper_item_bytes(struct rf_mapper_item *item, struct rf_bytes bytes, const char *name,
                          const char *media);

/* A range of another item's content as a part. */
RF_MUST_USE enum rf_status rf_mapper_item_part(struct rf_mapper_item *item,
                                               struct rf_mapper_item *parent, uint64_t offset,
                                               uint64_t size, const char *media,
                                               struct rf_error *err);

/* What a mapper cut out of another item, or made of it. */
RF_MUST_USE enum rf_status rf_mapper_item_record(struct rf_mapper_item *item,
                                                 struct rf_mapper_item *parent,
                                                 const struct rf_record *record,
                                                 struct rf_error *err);

/* Map it with one mapper, in the slow lane. needs may be NULL: the store blob:need asks. */
RF_MUST_USE enum rf_status rf_mapper_item_map(struct rf_pool *pool, struct rf_mapper_item *item,
                                              struct rf_store *needs,
                                              const struct rf_mapper *mapper,
                                              struct rf_result **out, struct rf_error *err);

/* Where items are got from; all lent. */
struct rf_mapper_source {
    struct rf_cli *cli;
    struct rf_store *store;
    struct rf_pool *pool;
    const struct rf_index_home *index; /* of rf_mapper_item_key */
};

struct rf_parts_found {
    uint64_t count;
    char mapper[RF_NAME_MAX + 1]; /* the first that made some */
};

/* Count the parts of an item: what the mapper `first` cuts out of it, then the mappers in use. The
 * one with number want, from 1, becomes out (0: none does). */
RF_MUST_USE enum rf_status rf_mapper_item_cut(const struct rf_mapper_source *from,
                                              struct rf_mapper_item *parent,
                                              const struct rf_mapper *first, uint64_t want,
                                              struct rf_parts_found *found,
                                              struct rf_mapper_item *out, struct rf_error *err);

/* The item with this key: a blobref, or a part's "<blobref>;<media>", which is cut out of its
 * parent again as the index knows it, or made again by the mappers in use. */
RF_MUST_USE enum rf_status rf_mapper_item_key(struct rf_mapper_item *item,
                                              const struct rf_mapper_source *from, const char *key,
                                              struct rf_error *err);

/* Append a row as a JSON object of its columns that are not null; a time as text, and its offset
 * when known. */
void rf_row_json(struct rf_buf *buf, const struct rf_table *table, const struct rf_record *row);

/* Append a value as JSON. */
void rf_value_json(struct rf_buf *buf, const struct rf_value *value);

/* A value as text for a table; lent from value or buf. */
struct rf_bytes rf_value_text(const struct rf_value *value, struct rf_buf *buf);

#endif
