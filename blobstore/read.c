/*
 * read.c - the bytes of a blob
 *
 * A lookup entry says where the record stood when the entry was made; compaction may have moved it
 * since. So the header found there must name the change looked for, else the log is searched by
 * sequence. A payload that is missing or bad is reported only after a second look has shown that no
 * delete came between.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "blobstore/disk.h"
#include "blobstore/large.h"
#include "core/control.h"

#define LOOKS 3 /* times a blob is looked up again when it was not where it should be */

enum rf_status rf_disk_find(struct rf_disk *disk, const struct rf_blobref *ref,
                            struct rf_entry *out, struct rf_error *err)
{
    struct rf_head_state state;
    enum rf_status status = rf_disk_state(disk, &state, err);
    char text[RF_BLOBREF_SIZE];

    if (status == RF_OK)
        status = rf_lookup_find(&disk->lookup, ref, out, NULL, err);
    if (status == RF_OK && !rf_entry_alive(out)) {
        rf_blobref_format(ref, text);
        return rf_error_set(err, RF_NOT_FOUND, "no blob %s in this store: it was deleted", text);
    }
    return status;
}

/* Read size bytes at offset into header and then into payload. *got: how many there were. */
static enum rf_status read_record(int fd, uint64_t offset, uint8_t header[RF_LOG_HEADER_SIZE],
                                  uint8_t *payload, size_t size, size_t *got,
                                  struct rf_error *err)
{
    size_t done = 0, all = RF_LOG_HEADER_SIZE + size;

    while (done < all) {
        struct iovec vectors[2];
        int count = 0;
        ssize_t n;
        if (done < RF_LOG_HEADER_SIZE)
            vectors[count++] = (struct iovec){header + done, RF_LOG_HEADER_SIZE - done};
        if (size > 0) {
            size_t at = done > RF_LOG_HEADER_SIZE ? done - RF_LOG_HEADER_SIZE : 0;
            vectors[count++] = (struct iovec){payload + at, size - at};
        }
        n = preadv(fd, vectors, count, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return rf_error_errno(err, RF_IO, errno, "cannot read the log");
        if (n == 0)
            break;
        done += (size_t)n;
    }
    *got = done;
    return RF_OK;
}

static enum rf_status corrupt(const struct rf_blobref *ref, const char *what, struct rf_error *err)
{
    char text[RF_BLOBREF_SIZE];

    rf_blobref_format(ref, text);
    return rf_error_set(err, RF_CORRUPT, "blob %s is corrupt: %s", text, what);
}

/* Read the record of change seq, expected at offset, with up to size bytes of payload. */
static enum rf_status fetch(struct rf_disk *disk, const struct rf_blobref *ref, uint64_t seq,
                            uint64_t offset, struct rf_log_record *record, uint8_t *payload,
                            size_t size, struct rf_error *err)
{
    uint8_t header[RF_LOG_HEADER_SIZE];
    struct rf_segment_file *file = NULL;
    struct rf_log_place place;
    enum rf_status status = RF_NOT_FOUND;
    size_t got = 0;

    if (rf_log_dir_find(&disk->log, seq, &place, NULL))
        status = rf_log_dir_acquire(&disk->log, &place, &file, err);
    if (status == RF_NOT_FOUND)
        return corrupt(ref, "its segment of the log is missing", err);
    if (status == RF_OK && offset > 0)
        status = read_record(file->fd, offset, header, payload, size, &got, err);
    if (status == RF_OK && (got < RF_LOG_HEADER_SIZE ||
                            !rf_log_decode(record, header, &file->place, offset) ||
                            record->seq != seq)) {
        struct rf_scanned found = {0};
        struct rf_scan scan;
        rf_scan_init(&scan, file->fd, &file->place, 0, UINT64_MAX);
        scan.limit = (uint64_t)lseek(file->fd, 0, SEEK_END);
        status = rf_scan_seek(&scan, seq, err);
        scan.headers_only = true;
        if (status == RF_OK)
            status = rf_scan_next(&scan, &found, err);
        rf_scan_release(&scan);
        if (status == RF_END || (status == RF_OK && found.record.seq != seq))
            status = corrupt(ref, "its record in the log is damaged", err);
        if (status == RF_OK)
            status = read_record(file->fd, found.offset, header, payload, size, &got, err);
        if (status == RF_OK)
            *record = found.record;
    }
    rf_log_dir_release_file(&disk->log, file);
    if (status == RF_OK && memcmp(record->digest, ref->digest, RF_DIGEST_SIZE) != 0)
        status = corrupt(ref, "its record in the log is another one's", err);
    if (status == RF_OK && size > 0 && record->stored == size && got < RF_LOG_HEADER_SIZE + size)
        status = corrupt(ref, "the log ends within it", err);
    return status;
}

/* The payload of a small blob into out (entry->size bytes), its checksum compared. */
static enum rf_status fetch_small(struct rf_disk *disk, const struct rf_entry *entry,
                                  uint8_t *out, struct rf_error *err)
{
    size_t size = (size_t)entry->size;
    bool lift = entry->flags & RF_LOG_LIFT;
    struct rf_log_record record = {0};
    enum rf_status status = fetch(disk, &entry->ref, entry->seq, entry->offset, &record, out,
                                  lift ? 0 : size, err);

    if (status == RF_OK && record.flags & RF_LOG_LIFT)
        status = fetch(disk, &entry->ref, record.refers, 0, &record, out, size, err);
    if (status != RF_OK)
        return status;
    if (record.op != RF_LOG_PUT || record.stored != size || record.size != size)
        return corrupt(&entry->ref, "its payload is gone from the log", err);
    if (RF_SAFEGUARD("payload-check") && rf_log_checksum(rf_bytes(out, size)) != record.checksum)
        return corrupt(&entry->ref, "its payload does not match its checksum", err);
    return RF_OK;
}

enum rf_status rf_disk_check_small(struct rf_disk *disk, const struct rf_entry *entry,
                                   struct rf_error *err)
{
    uint8_t *payload = malloc((size_t)entry->size + 1);
    enum rf_status status;

    if (!payload)
        return rf_error_set(err, RF_NOMEM, "no memory to check a blob");
    status = fetch_small(disk, entry, payload, err);
    free(payload);
    return status;
}

/* Whether another look is worth it after a failure: the blob has a newer record than *entry (then
 * *entry is that one). RF_NOT_FOUND: it was deleted meanwhile. */
static enum rf_status look_again(struct rf_disk *disk, struct rf_entry *entry, bool *newer,
                                 struct rf_error *err)
{
    struct rf_entry now;
    enum rf_status status = rf_disk_find(disk, &entry->ref, &now, err);

    *newer = status == RF_OK && now.seq != entry->seq;
    if (*newer)
        *entry = now;
    return status;
}

static enum rf_status get_small(struct rf_disk *disk, const struct rf_entry *entry,
                                struct rf_buf *buf, struct rf_error *err)
{
    uint8_t *to = rf_buf_reserve(buf, (size_t)entry->size);
    struct rf_blobref got;
    enum rf_status status;

    if (!to)
        return rf_error_set(err, buf->failed, "a blob of %" PRIu64 " bytes is more than was asked "
                            "for", entry->size);
    status = fetch_small(disk, entry, to, err);
    if (status != RF_OK)
        return status;
    rf_blobref_of(&got, rf_bytes(to, (size_t)entry->size));
    if (RF_SAFEGUARD("payload-check") && !rf_blobref_equal(&got, &entry->ref)) {
        char text[RF_BLOBREF_SIZE], found[RF_BLOBREF_SIZE];
        rf_blobref_format(&entry->ref, text);
        rf_blobref_format(&got, found);
        return rf_error_set(err, RF_CORRUPT, "blob %s is corrupt: its content hashes to %s", text,
                            found);
    }
    buf->size += (size_t)entry->size;
    return RF_OK;
}

enum rf_status rf_disk_get(struct rf_store *base, const struct rf_blobref *ref,
                           struct rf_buf *buf, struct rf_error *err)
{
    struct rf_disk *disk = (struct rf_disk *)base;
    struct rf_entry entry;
    enum rf_status status = rf_disk_find(disk, ref, &entry, err);
    bool newer = true;

    for (int look = 0; look < LOOKS && status == RF_OK && newer; look++) {
        struct rf_error cause = {0};
        if (entry.size > RF_BLOB_INLINE_MAX)
            status = rf_large_get(disk->dir, ref, entry.life, entry.size, buf, &cause);
        else
            status = get_small(disk, &entry, buf, &cause);
        if (status != RF_NOT_FOUND && status != RF_CORRUPT)
            return status == RF_OK ? RF_OK : rf_error_set(err, status, "%s", cause.message);
        status = look_again(disk, &entry, &newer, err);
        if (status == RF_OK && !newer)
            return rf_error_set(err, RF_CORRUPT, "%s", cause.message);
    }
    if (status == RF_OK)
        return rf_error_set(err, RF_UNAVAILABLE, "the blob changes faster than it can be read");
    return status;
}

static enum rf_status read_small(struct rf_disk *disk, const struct rf_entry *entry,
                                 uint64_t offset, void *out, size_t count, struct rf_error *err)
{
    uint8_t *payload = malloc((size_t)entry->size);
    enum rf_status status;

    if (!payload)
        return rf_error_set(err, RF_NOMEM, "no memory to read a blob");
    status = fetch_small(disk, entry, payload, err);
    if (status == RF_OK)
        memcpy(out, payload + offset, count);
    free(payload);
    return status;
}

enum rf_status rf_disk_read(struct rf_store *base, const struct rf_blobref *ref, uint64_t offset,
                            void *out, size_t size, size_t *got, struct rf_error *err)
{
    struct rf_disk *disk = (struct rf_disk *)base;
    struct rf_entry entry;
    enum rf_status status = rf_disk_find(disk, ref, &entry, err);
    bool newer = true;

    for (int look = 0; look < LOOKS && status == RF_OK && newer; look++) {
        struct rf_error cause = {0};
        size_t count = size;
        if (offset >= entry.size)
            count = 0;
        else if (entry.size - offset < size)
            count = (size_t)(entry.size - offset);
        if (count == 0)
            status = RF_OK;
        else if (entry.size > RF_BLOB_INLINE_MAX)
            status = rf_large_read(disk->dir, ref, entry.life, entry.size, offset, out,
                                   count, &cause);
        else
            status = read_small(disk, &entry, offset, out, count, &cause);
        if (status == RF_OK) {
            *got = count;
            return RF_OK;
        }
        if (status != RF_NOT_FOUND && status != RF_CORRUPT)
            return rf_error_set(err, status, "%s", cause.message);
        status = look_again(disk, &entry, &newer, err);
        if (status == RF_OK && !newer)
            return rf_error_set(err, RF_CORRUPT, "%s", cause.message);
    }
    if (status == RF_OK)
        return rf_error_set(err, RF_UNAVAILABLE, "the blob changes faster than it can be read");
    return status;
}
