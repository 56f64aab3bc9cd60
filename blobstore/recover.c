/*
 * recover.c - finding the end of the log when a writer opens it
 *
 * Only the last segment can have an open end. What lies behind the last lookup run is dropped from
 * the page cache, made durable, read again from the disk, and only then trusted.
 *
 * A record that does not hold there is either torn or damaged. Torn: written by a batch that never
 * became durable, so nobody was answered; it and what follows is cut off. Damaged: it was durable
 * once. That is so when a later batch follows (the first record of a batch says that everything
 * before it was durable), or when the head or a lookup run says that it was published. Damage is
 * skipped and stays for `verify` to report; it is never cut off.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "blobstore/disk.h"
#include "core/control.h"

#define BEGIN_SPAN (RF_LOG_HEADER_SIZE + RF_LOG_BEGIN_SIZE)

struct recovery {
    struct rf_disk *disk;
    struct rf_head_state head; /* what the last writer published */
    bool has_head;
    struct rf_log_place place; /* the last segment */
    int fd;
    uint64_t size;    /* of its file */
    uint64_t covered; /* lookup runs say that changes up to here were durable */
    struct rf_commit_point point;
    bool chain_known;
    uint64_t counted; /* point.blobs and bytes are those after this change */
};

/* ---- which segment is the last ---- */

/* Whether something of the segment was published once. */
static bool is_known(const struct recovery *r, const struct rf_log_place *place)
{
    return r->covered >= place->first ||
           (r->has_head && r->head.seq >= place->first && r->head.segment_first == place->first &&
            r->head.segment_attempt == place->attempt);
}

/* A segment with neither a begin record nor any other was being made when the writer died, unless
 * it is known: then all of it is damaged. */
static enum rf_status is_empty(struct rf_disk *disk, const struct rf_log_place *place, bool *empty,
                               struct rf_error *err)
{
    struct rf_segment_file *file;
    struct rf_scanned found;
    struct rf_scan scan;
    struct stat st;
    enum rf_status status = rf_log_dir_acquire(&disk->log, place, &file, err);

    if (status != RF_OK)
        return status;
    if (fstat(file->fd, &st) != 0)
        st.st_size = 0;
    rf_scan_init(&scan, file->fd, place, 0, (uint64_t)st.st_size);
    status = rf_scan_next(&scan, &found, err);
    if (status == RF_CORRUPT || (status == RF_OK && found.damaged))
        status = rf_scan_resync(&scan, err);
    rf_scan_release(&scan);
    rf_log_dir_release_file(&disk->log, file);
    *empty = status == RF_END;
    return status == RF_END ? RF_OK : status;
}

static enum rf_status find_last(struct recovery *r, struct rf_error *err)
{
    struct rf_disk *disk = r->disk;
    bool empty = true;

    for (;;) {
        char name[RF_SEGMENT_NAME_SIZE];
        size_t count = rf_log_dir_count(&disk->log);
        enum rf_status status;
        if (count == 0) {
            r->place = (struct rf_log_place){0};
            return RF_OK;
        }
        rf_log_dir_at(&disk->log, count - 1, &r->place);
        if (is_known(r, &r->place))
            return RF_OK;
        status = is_empty(disk, &r->place, &empty, err);
        if (status != RF_OK || !empty)
            return status;
        rf_segment_name(&r->place, name);
        rf_log_dir_forget(&disk->log);
        if (unlinkat(disk->log.fd, name, 0) != 0)
            return rf_error_errno(err, RF_IO, errno, "cannot remove unfinished segment %s", name);
        status = rf_log_dir_list(&disk->log, err);
        if (status != RF_OK)
            return status;
    }
}

static enum rf_status open_last(struct recovery *r, struct rf_error *err)
{
    char name[RF_SEGMENT_NAME_SIZE];
    struct stat st;

    rf_segment_name(&r->place, name);
    r->fd = openat(r->disk->log.fd, name, O_RDWR | O_CLOEXEC);
    if (r->fd < 0 || fstat(r->fd, &st) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot open segment %s", name);
    r->size = (uint64_t)st.st_size;
    if (r->has_head && (r->head.segment_first != r->place.first ||
                        r->head.segment_attempt != r->place.attempt))
        r->has_head = false; /* of another history, or of the segment before */
    return RF_OK;
}

/* What is read from now on is what the disk has. */
static enum rf_status settle(struct recovery *r, struct rf_error *err)
{
    posix_fadvise(r->fd, 0, 0, POSIX_FADV_DONTNEED);
    if (RF_SAFEGUARD("log-fdatasync") && fdatasync(r->fd) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot make the end of the log durable");
    posix_fadvise(r->fd, 0, 0, POSIX_FADV_DONTNEED);
    return RF_OK;
}

/* ---- taking records ---- */

static enum rf_status take(struct recovery *r, const struct rf_scanned *found, uint64_t first,
                           struct rf_error *err)
{
    struct rf_entry entry;
    enum rf_status status = RF_OK;

    if (found->record.seq > r->counted)
        rf_log_tally(&found->record, &r->point.blobs, &r->point.bytes);
    r->point.next_seq = found->record.seq + 1;
    r->point.chain = rf_log_chain(found->record.chain, &found->record);
    r->chain_known = true;
    if (found->record.seq <= r->covered)
        return RF_OK;
    rf_entry_of(&entry, &found->record, first, found->offset);
    status = rf_lookup_reserve(&r->disk->lookup, 1, err);
    if (status != RF_OK)
        return status;
    rf_lookup_add(&r->disk->lookup, &entry, 1, rf_log_span(&found->record));
    /* What was read is durable (settle), so a run may say so. Bounds the memory of a recovery. */
    if (rf_lookup_tail_bytes(&r->disk->lookup) >= r->disk->run_bytes)
        status = rf_lookup_flush(&r->disk->lookup, found->record.seq, err);
    return status;
}

/* Changes of sealed segments that no run covers. */
static enum rf_status take_sealed(struct recovery *r, struct rf_error *err)
{
    struct rf_log_end end = {.seq = r->place.first - 1, .segment_first = r->place.first};
    struct rf_log_place oldest;
    uint64_t from = r->covered + 1;
    struct rf_walked walked;
    struct rf_walk walk;
    enum rf_status status = RF_OK;

    rf_log_dir_at(&r->disk->log, 0, &oldest);
    if (from < oldest.first)
        from = oldest.first;
    rf_walk_init(&walk, &r->disk->log, from, true);
    while (status == RF_OK) {
        struct rf_error damage = {0};
        status = rf_walk_next(&walk, &end, &walked, &damage);
        if (status == RF_OK)
            status = take(r, &walked.at, walked.first, err);
        else if (status == RF_CORRUPT)
            status = RF_OK; /* verify reports it */
        else if (status != RF_END)
            rf_error_set(err, status, "%s", damage.message);
    }
    rf_walk_release(&walk);
    return status == RF_END ? RF_OK : status;
}

/* ---- the last segment ---- */

/* Where the bytes end that were ever written: preallocated room reads as a hole. */
static uint64_t written_end(int fd, uint64_t offset, uint64_t size)
{
    off_t hole = lseek(fd, (off_t)offset, SEEK_HOLE);

    if (hole < 0 || lseek(fd, hole, SEEK_DATA) >= 0 || errno != ENXIO)
        return size;
    return (uint64_t)hole < size ? (uint64_t)hole : size;
}

/* Whether a sound record behind offset begins a batch. */
static enum rf_status batch_follows(struct recovery *r, const struct rf_scan *at, bool *follows,
                                    struct rf_error *err)
{
    struct rf_scanned found;
    struct rf_scan scan;
    enum rf_status status;

    rf_scan_init(&scan, r->fd, &r->place, at->offset, written_end(r->fd, at->offset, at->limit));
    scan.headers_only = true;
    *follows = false;
    do {
        status = rf_scan_next(&scan, &found, err);
        if (status == RF_CORRUPT)
            status = rf_scan_resync(&scan, err);
        else if (status == RF_OK && found.record.flags & RF_LOG_BATCH &&
                 found.record.seq > r->point.next_seq)
            *follows = true;
    } while (status == RF_OK && !*follows);
    rf_scan_release(&scan);
    return status == RF_END ? RF_OK : status;
}

/* Whether what stands at offset was durable once. scan stands behind it, or at it when its header
 * does not hold. */
static enum rf_status was_durable(struct recovery *r, const struct rf_scan *scan, uint64_t offset,
                                  bool *durable, struct rf_error *err)
{
    *durable = (r->has_head && offset < r->head.segment_end) ||
               r->point.next_seq <= r->covered;
    if (*durable)
        return RF_OK;
    return batch_follows(r, scan, durable, err);
}

/* Whether a record is the one that must come next; behind damage, any later one. */
static bool fits(const struct recovery *r, const struct rf_scanned *found)
{
    if (found->damaged)
        return false;
    return !r->chain_known || (found->record.seq == r->point.next_seq &&
                               found->record.chain == r->point.chain);
}

/* Nothing sound follows, yet the head or a run knows of more: go on behind it. The file may end
 * before that, when its end was cut off; what is written next then stands behind a hole, where no
 * record that was cut through reaches. */
static void pass_damaged_end(struct recovery *r)
{
    uint64_t seq = r->covered;

    if (r->has_head && r->head.seq >= seq)
        seq = r->head.seq;
    if (r->point.next_seq > seq)
        return; /* all of it was read, and counted */
    if (r->has_head && r->head.seq == seq) {
        r->point.blobs = r->head.blobs;
        r->point.bytes = r->head.bytes;
    }
    if (r->has_head && r->head.seq == seq) {
        r->point.chain = r->head.chain;
        r->point.end = r->head.segment_end;
    } else {
        struct rf_log_record unknown = {.seq = seq};
        r->point.chain = rf_log_chain(r->point.chain, &unknown);
        if (r->point.end < r->size)
            r->point.end = r->size & ~(uint64_t)(RF_LOG_ALIGN - 1);
        r->point.has_segment = false; /* where it ends is not known: leave it as it is */
    }
    r->point.next_seq = seq + 1;
}

/* Walk from where scan stands to the end. */
static enum rf_status take_open(struct recovery *r, struct rf_scan *scan, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    while (status == RF_OK) {
        struct rf_scanned found = {.offset = scan->offset};
        bool durable = true;
        uint64_t at = scan->offset;
        status = rf_scan_next(scan, &found, err);
        if (status == RF_OK && found.record.op == RF_LOG_BEGIN)
            continue;
        if (status == RF_OK && found.record.seq < r->point.next_seq)
            continue; /* before the part that is looked at */
        if (status == RF_OK && !fits(r, &found))
            status = RF_CORRUPT;
        else if (status != RF_CORRUPT && status != RF_OK)
            break;
        if (status == RF_CORRUPT) {
            bool header = found.record.seq >= r->point.next_seq;
            status = was_durable(r, scan, at, &durable, err);
            if (status != RF_OK || !durable)
                break;
            if (!header) {
                r->chain_known = false;
                status = rf_scan_resync(scan, err);
                continue;
            }
        }
        status = take(r, &found, r->place.first, err);
        r->point.end = scan->offset;
    }
    if (status == RF_END)
        status = RF_OK;
    if (status == RF_OK)
        pass_damaged_end(r);
    return status;
}

/* Read the begin record: it knows the counts and the chain at the segment's start. */
static enum rf_status start_at_begin(struct recovery *r, struct rf_scan *scan,
                                     struct rf_error *err)
{
    struct rf_log_begin begin;
    struct rf_scanned found;
    enum rf_status status;

    scan->offset = 0;
    status = rf_scan_next(scan, &found, err);
    r->point.next_seq = r->place.first;
    if (status == RF_OK && !found.damaged && found.record.op == RF_LOG_BEGIN &&
        rf_log_begin_decode(&begin, found.payload)) {
        r->point.chain = found.record.chain;
        r->point.blobs = begin.blobs;
        r->point.bytes = begin.bytes;
        r->chain_known = true;
    } else if (status != RF_OK && status != RF_CORRUPT && status != RF_END) {
        return status;
    }
    r->counted = r->place.first - 1;
    r->point.end = scan->offset = BEGIN_SPAN;
    return RF_OK;
}

/* Start behind what is covered and counted already, if the head's counts can be trusted: its chain
 * must be that of the log. */
static enum rf_status start_behind(struct recovery *r, struct rf_scan *scan, struct rf_error *err)
{
    uint64_t seq = r->head.seq < r->covered ? r->head.seq : r->covered;
    struct rf_scanned found;
    enum rf_status status;

    if (!r->has_head || seq < r->place.first)
        return start_at_begin(r, scan, err);
    status = rf_scan_seek(scan, r->head.seq, err);
    if (status == RF_OK)
        status = rf_scan_next(scan, &found, err);
    if (status == RF_OK && (found.record.seq != r->head.seq ||
                            rf_log_chain(found.record.chain, &found.record) != r->head.chain))
        status = RF_END;
    if (status == RF_OK && seq != r->head.seq) {
        status = rf_scan_seek(scan, seq, err);
        if (status == RF_OK)
            status = rf_scan_next(scan, &found, err);
        if (status == RF_OK && found.record.seq != seq)
            status = RF_END;
    }
    if (status == RF_END || status == RF_CORRUPT)
        return start_at_begin(r, scan, err);
    if (status != RF_OK)
        return status;
    r->counted = r->head.seq;
    r->point.blobs = r->head.blobs;
    r->point.bytes = r->head.bytes;
    r->point.next_seq = seq + 1;
    r->point.chain = rf_log_chain(found.record.chain, &found.record);
    r->chain_known = true;
    r->point.end = scan->offset;
    return RF_OK;
}

static enum rf_status cut_off(struct recovery *r, struct rf_error *err)
{
    if (!r->point.has_segment || r->size <= r->point.end)
        return RF_OK;
    if (ftruncate(r->fd, (off_t)r->point.end) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot cut off the torn end of the log");
    if (RF_SAFEGUARD("log-fdatasync") && fdatasync(r->fd) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot make the end of the log durable");
    return RF_OK;
}

static enum rf_status recover_last(struct recovery *r, struct rf_error *err)
{
    struct rf_scan scan;
    enum rf_status status = open_last(r, err);

    if (status == RF_OK)
        status = settle(r, err);
    if (status != RF_OK)
        return status;
    rf_scan_init(&scan, r->fd, &r->place, 0, r->size);
    r->point.has_segment = true;
    status = start_behind(r, &scan, err);
    if (status == RF_OK)
        status = take_open(r, &scan, err);
    rf_scan_release(&scan);
    if (status == RF_OK)
        status = cut_off(r, err);
    return status;
}

enum rf_status rf_disk_recover(struct rf_disk *disk, struct rf_commit_point *resume,
                               struct rf_error *err)
{
    struct recovery r = {.disk = disk, .fd = -1, .covered = rf_lookup_covered(&disk->lookup)};
    enum rf_status status;

    r.has_head = rf_head_read(disk->head, &r.head);
    r.point.next_seq = 1;
    r.point.chain = rf_disk_first_chain(disk);
    status = find_last(&r, err);
    if (status == RF_OK && r.place.first > 0) {
        r.point.place = r.place;
        if (r.covered + 1 < r.place.first)
            status = take_sealed(&r, err);
        if (status == RF_OK)
            status = recover_last(&r, err);
    }
    if (r.fd >= 0)
        close(r.fd);
    *resume = r.point;
    return status;
}
