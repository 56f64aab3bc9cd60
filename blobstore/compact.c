/*
 * compact.c - giving back the bytes of deleted blobs
 *
 * A sealed segment of which more than half is payload that nobody can ask for any more is copied,
 * dead records as headers only: same sequences, same chain, new offsets. The copy is durable before
 * it takes the old one's name; who reads the old one keeps its descriptor. Offsets in lookup runs
 * are hints, so they may stay as they are. A segment with damage is left alone: it may be what a
 * repair needs.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blobstore/disk.h"
#include "core/control.h"

#define OUT_BUFFER (256u << 10)

/* ---- how much of each segment is alive ---- */

struct tally {
    struct rf_disk *disk;
    struct rf_log_place *places;
    uint64_t *alive; /* bytes of records whose payload is needed */
    size_t count;
    uint64_t lifted; /* blobs whose payload lies in an older record than their entry */
    struct rf_error *err;
};

static size_t find_segment(const struct tally *tally, uint64_t seq)
{
    size_t low = 0, high = tally->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (tally->places[middle].first > seq)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static enum rf_status tally_one(void *user, const struct rf_entry *entry)
{
    struct tally *tally = user;
    size_t at = find_segment(tally, entry->seq);

    if (!rf_entry_alive(entry) || entry->size > RF_BLOB_INLINE_MAX || at == 0)
        return RF_OK;
    if (entry->flags & RF_LOG_LIFT)
        tally->lifted += entry->size; /* somewhere before: counted for every segment, to be safe */
    else
        tally->alive[at - 1] += (entry->size + RF_LOG_ALIGN - 1) & ~(uint64_t)(RF_LOG_ALIGN - 1);
    return RF_OK;
}

static enum rf_status take_tally(struct tally *tally, struct rf_error *err)
{
    struct rf_log_dir *log = &tally->disk->log;
    size_t count = rf_log_dir_count(log);

    tally->places = calloc(count + 1, sizeof *tally->places);
    tally->alive = calloc(count + 1, sizeof *tally->alive);
    if (!tally->places || !tally->alive)
        return rf_error_set(err, RF_NOMEM, "no memory to look at %zu segments", count);
    while (tally->count < count &&
           rf_log_dir_at(log, tally->count, &tally->places[tally->count]))
        tally->count++;
    return rf_lookup_list(&tally->disk->lookup, NULL, tally_one, tally, err);
}

/* ---- copying one segment ---- */

struct copy {
    struct rf_disk *disk;
    struct rf_log_place place;
    char temp[RF_SEGMENT_NAME_SIZE + 8];
    int fd;
    uint8_t *buffer;
    size_t filled;
    uint64_t offset; /* of the next record in the copy */
    uint64_t next_seq, last_seq;
};

static enum rf_status drain(struct copy *copy, struct rf_error *err)
{
    size_t done = 0;

    while (done < copy->filled) {
        ssize_t n = write(copy->fd, copy->buffer + done, copy->filled - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return rf_error_errno(err, RF_IO, n < 0 ? errno : ENOSPC, "cannot write '%s'",
                                  copy->temp);
        done += (size_t)n;
    }
    copy->filled = 0;
    return RF_OK;
}

static enum rf_status put(struct copy *copy, const uint8_t *data, size_t size,
                          struct rf_error *err)
{
    enum rf_status status = RF_OK;

    while (size > 0 && status == RF_OK) {
        size_t some = OUT_BUFFER - copy->filled < size ? OUT_BUFFER - copy->filled : size;
        memcpy(copy->buffer + copy->filled, data, some);
        copy->filled += some;
        data += some;
        size -= some;
        if (copy->filled == OUT_BUFFER)
            status = drain(copy, err);
    }
    return status;
}

/* Whether a later tombstone made this record's payload useless. */
static enum rf_status is_dead(struct rf_disk *disk, const struct rf_log_record *record, bool *dead,
                              struct rf_error *err)
{
    struct rf_blobref ref = {.algo = record->algo};
    struct rf_entry now;
    enum rf_status status;

    *dead = false;
    if (record->op != RF_LOG_PUT || record->flags & (RF_LOG_LIFT | RF_LOG_GONE))
        return RF_OK;
    memcpy(ref.digest, record->digest, RF_DIGEST_SIZE);
    status = rf_lookup_find(&disk->lookup, &ref, &now, NULL, err);
    *dead = status == RF_OK && now.life > record->life;
    return status;
}

static enum rf_status copy_record(struct copy *copy, struct rf_scanned *found,
                                  struct rf_error *err)
{
    static const uint8_t padding[RF_LOG_ALIGN];
    struct rf_log_record *record = &found->record;
    uint8_t header[RF_LOG_HEADER_SIZE];
    bool dead = false;
    enum rf_status status = is_dead(copy->disk, record, &dead, err);

    if (status != RF_OK)
        return status;
    if (dead) {
        record->flags |= RF_LOG_GONE;
        record->stored = 0;
    } else if (found->damaged) {
        return rf_error_set(err, RF_CORRUPT, "change %" PRIu64 " is damaged", record->seq);
    }
    rf_log_encode(header, record, &copy->place, copy->offset);
    status = put(copy, header, sizeof header, err);
    if (status == RF_OK && record->stored > 0)
        status = put(copy, found->payload.data, record->stored, err);
    if (status == RF_OK)
        status = put(copy, padding, (size_t)(rf_log_span(record) - sizeof header - record->stored),
                     err);
    copy->offset += rf_log_span(record);
    return status;
}

static enum rf_status copy_records(struct copy *copy, struct rf_scan *scan, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    while (status == RF_OK && copy->next_seq <= copy->last_seq) {
        struct rf_scanned found;
        status = rf_scan_next(scan, &found, err);
        if (status == RF_END)
            status = RF_CORRUPT;
        if (status != RF_OK)
            break;
        if (found.record.op != RF_LOG_BEGIN) {
            if (found.record.seq != copy->next_seq)
                return RF_CORRUPT;
            copy->next_seq++;
        }
        status = copy_record(copy, &found, err);
    }
    return status;
}

static enum rf_status name_copy(struct copy *copy, struct rf_error *err)
{
    char name[RF_SEGMENT_NAME_SIZE];
    int dir = copy->disk->log.fd;

    rf_segment_name(&copy->place, name);
    if (RF_SAFEGUARD("log-fdatasync") && fsync(copy->fd) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot make '%s' durable", copy->temp);
    if (renameat(dir, copy->temp, dir, name) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot replace segment %s", name);
    copy->temp[0] = '\0';
    rf_log_dir_forget(&copy->disk->log);
    if (RF_SAFEGUARD("segment-dir-fsync") && fsync(dir) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot make segment %s durable", name);
    return RF_OK;
}

/* *freed: bytes that the copy is shorter. RF_CORRUPT: damaged, left as it is. */
static enum rf_status copy_segment(struct rf_disk *disk, const struct rf_log_place *place,
                                   uint64_t last_seq, uint64_t *freed, struct rf_error *err)
{
    struct copy copy = {.disk = disk, .place = *place, .fd = -1, .next_seq = place->first,
                        .last_seq = last_seq};
    struct rf_segment_file *file = NULL;
    char name[RF_SEGMENT_NAME_SIZE];
    struct rf_scan scan;
    struct stat st = {0};
    enum rf_status status = rf_log_dir_acquire(&disk->log, place, &file, err);

    if (status != RF_OK)
        return status;
    rf_segment_name(place, name);
    snprintf(copy.temp, sizeof copy.temp, RF_LOG_TEMP "%s", name);
    rf_scan_init(&scan, file->fd, place, 0, 0);
    copy.buffer = malloc(OUT_BUFFER);
    if (!copy.buffer)
        status = rf_error_set(err, RF_NOMEM, "no memory to copy a segment");
    if (status == RF_OK && fstat(file->fd, &st) != 0)
        status = rf_error_errno(err, RF_IO, errno, "cannot look at segment %s", name);
    scan.limit = (uint64_t)st.st_size;
    if (status == RF_OK) {
        copy.fd = openat(disk->log.fd, copy.temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (copy.fd < 0)
            status = rf_error_errno(err, RF_IO, errno, "cannot make '%s'", copy.temp);
    }
    if (status == RF_OK)
        status = copy_records(&copy, &scan, err);
    if (status == RF_OK)
        status = drain(&copy, err);
    if (status == RF_OK)
        status = name_copy(&copy, err);
    if (copy.temp[0] && copy.fd >= 0)
        unlinkat(disk->log.fd, copy.temp, 0);
    if (copy.fd >= 0)
        close(copy.fd);
    rf_scan_release(&scan);
    rf_log_dir_release_file(&disk->log, file);
    free(copy.buffer);
    if (status == RF_OK)
        *freed += (uint64_t)st.st_size > copy.offset ? (uint64_t)st.st_size - copy.offset : 0;
    return status;
}

/* ---- which ---- */

static bool is_due(const struct tally *tally, size_t i, uint64_t size)
{
    uint64_t records = tally->places[i + 1].first - tally->places[i].first;
    uint64_t needed = RF_LOG_HEADER_SIZE + RF_LOG_BEGIN_SIZE + records * RF_LOG_HEADER_SIZE +
                      tally->alive[i] + tally->lifted;

    return size > needed && (size - needed) * 2 > size;
}

enum rf_status rf_disk_compact_all(struct rf_disk *disk, uint64_t *freed, struct rf_error *err)
{
    struct tally tally = {.disk = disk};
    uint64_t open_first;
    bool copied = false;
    enum rf_status status;

    pthread_mutex_lock(&disk->lock);
    disk->state.dead = 0;
    open_first = disk->state.segment_first;
    pthread_mutex_unlock(&disk->lock);
    status = take_tally(&tally, err);
    for (size_t i = 0; status == RF_OK && i + 1 < tally.count; i++) {
        char name[RF_SEGMENT_NAME_SIZE];
        struct rf_error cause = {0};
        struct stat st;
        rf_segment_name(&tally.places[i], name);
        if (tally.places[i].first >= open_first || fstatat(disk->log.fd, name, &st, 0) != 0 ||
            !is_due(&tally, i, (uint64_t)st.st_size))
            continue;
        status = copy_segment(disk, &tally.places[i], tally.places[i + 1].first - 1, freed,
                              &cause);
        copied |= status == RF_OK;
        if (status == RF_CORRUPT)
            status = RF_OK;
        else if (status != RF_OK)
            rf_error_set(err, status, "%s", cause.message);
    }
    if (copied)
        rf_disk_raise_epoch(disk);
    free(tally.places);
    free(tally.alive);
    return status;
}

enum rf_status rf_disk_compact(struct rf_store *base, uint64_t *freed, struct rf_error *err)
{
    struct rf_disk *disk = (struct rf_disk *)base;
    enum rf_status status;

    *freed = 0;
    rf_maintain_begin(disk->maintain);
    status = rf_disk_compact_all(disk, freed, err);
    rf_maintain_end(disk->maintain);
    return status;
}
