/*
 * schema.h - blobs that describe other blobs: the file blob
 *
 * A schema blob is RFC 8785 JSON that starts with {"!refuge":". A file blob names a file and lists
 * the blobs its content is joined from; those are stored with the flag `part`. Format page:
 * doc/format-schema.md. Chunk borders come from content, so that an edit moves few of them.
 */
#ifndef RF_BACKUP_SCHEMA_H
#define RF_BACKUP_SCHEMA_H

#include "blobstore/blobstore.h"
#include "core/arena.h"

#define RF_CHUNK_FROM ((uint64_t)4 << 20) /* bytes; a larger file is cut into chunks (chunk.h) */
#define RF_FILE_NAME_MAX 1024             /* bytes of a name */
#define RF_FILE_PARTS_MAX 524288          /* parts of a file */
#define RF_SCHEMA_SIZE_MAX (64u << 20)    /* bytes of a schema blob */

enum rf_schema_kind { RF_SCHEMA_NONE, RF_SCHEMA_FILE, RF_SCHEMA_TREE, RF_SCHEMA_REF };

struct rf_file_part {
    struct rf_blobref ref;
    uint64_t size;
    uint64_t offset; /* in the file: the sum of the sizes before it */
};

struct rf_file {
    struct rf_bytes name; /* raw bytes, as the file system has them; NUL behind. One name,
        no path */
    bool name_is_text;    /* valid UTF-8 */
    uint64_t size;
    uint32_t mode; /* permission bits: at most 07777 */
    uint32_t uid, gid;
    int64_t mtime_ns;
    struct rf_file_part *parts;
    size_t part_count;
    struct rf_blobref prev; /* algo 0: none */
};

/* Whether bytes can be a schema blob at all (their first bytes). */
bool rf_schema_is(struct rf_bytes bytes);

/* Which kind; strict: RF_INVALID for a schema blob that breaks a rule (err says which), then *kind
 * is what it claims to be. On RF_SCHEMA_FILE out is filled, in the arena, which needs some 10 times
 * the blob's size (else RF_LIMIT). Of a tree or ref only form and version are checked here. A blob
 * that does not start as one is RF_OK and RF_SCHEMA_NONE. A newer version or an unknown kind is
 * RF_UNSUPPORTED. */
RF_MUST_USE enum rf_status rf_schema_parse(enum rf_schema_kind *kind, struct rf_file *out,
                                           struct rf_arena *arena, struct rf_bytes bytes,
                                           struct rf_error *err);

/* Append the file blob's bytes. The parts' sizes add up to the file's (asserted). */
void rf_file_encode(struct rf_buf *buf, const struct rf_file *file);

struct rf_put_file_options {
    bool dry_run; /* store nothing: the result says what would be stored and what is there */
    /* So many bytes of the file are done; often, and from 0 again when the file changed meanwhile.
     * May be NULL. */
    void (*progress)(void *user, uint64_t bytes);
    void *user;
    /* Of all who put files at the same time: how many chunks they may have on their way beyond one
     * for each. NULL: three, and no others are known. */
    _Atomic int *spare_chunks;
};

struct rf_put_file_result {
    struct rf_blobref ref;     /* of the file blob */
    struct rf_blobref content; /* of the content when it is one blob; else algo 0 */
    uint64_t size, stored;     /* bytes of the file; of these new to the store */
    bool present;              /* the very same file blob was there */
};

/* Store a regular file: content as parts, then the file blob. name is what the file blob calls it:
 * not empty, ".", ".." or with '/'. Memory: the file blob, and RF_CHUNK_MAX for each of up to four
 * chunks on their way, whatever the file's size.
 * RF_INVALID when it is no regular file or changed while being read (3 tries). RF_NOT_FOUND,
 * RF_DENIED, RF_IO: it cannot be read. options may be NULL. */
RF_MUST_USE enum rf_status rf_put_file(struct rf_store *store, const char *path, const char *name,
                                       const struct rf_put_file_options *options,
                                       struct rf_put_file_result *out, struct rf_error *err);

/* Up to size bytes of a file's content from offset, joined over its parts; *got is less only at the
 * file's end. file is one of rf_schema_parse. RF_NOT_FOUND: a part is not in the store. RF_CORRUPT:
 * a part is shorter than the file blob says. */
RF_MUST_USE enum rf_status rf_file_read(struct rf_store *store, const struct rf_file *file,
                                        uint64_t offset, void *out, size_t size, size_t *got,
                                        struct rf_error *err);

#endif
