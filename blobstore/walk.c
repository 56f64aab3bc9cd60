/* walk.c - see walk.h */
#include "blobstore/walk.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

void rf_walk_init(struct rf_walk *walk, struct rf_log_dir *log, uint64_t seq, bool headers_only)
{
    *walk = (struct rf_walk){.log = log, .headers_only = headers_only, .seq = seq ? seq : 1};
}

static void leave_segment(struct rf_walk *walk)
{
    if (!walk->file)
        return;
    rf_scan_release(&walk->scan);
    rf_log_dir_release_file(walk->log, walk->file);
    walk->file = NULL;
}

void rf_walk_release(struct rf_walk *walk)
{
    leave_segment(walk);
}

static enum rf_status set_limit(struct rf_walk *walk, const struct rf_log_end *end,
                                struct rf_error *err)
{
    struct stat st;

    if (walk->file->place.first == end->segment_first) {
        walk->scan.limit = end->segment_end;
        return RF_OK;
    }
    if (walk->sealed)
        return RF_OK;
    if (fstat(walk->file->fd, &st) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot look at a segment");
    walk->scan.limit = (uint64_t)st.st_size;
    walk->sealed = true;
    return RF_OK;
}

/* Open the segment that holds walk->seq; the scan stands at its begin record. */
static enum rf_status open_segment(struct rf_walk *walk, const struct rf_log_end *end,
                                   struct rf_error *err)
{
    enum rf_status status = RF_NOT_FOUND;

    for (int tries = 0; tries < 3 && status == RF_NOT_FOUND; tries++) {
        struct rf_log_place place;
        struct rf_error cause = {0};
        bool found = rf_log_dir_find(walk->log, walk->seq, &place, &walk->next_first);
        /* A last segment that no new look at the folder finds is gone: this one is the last. */
        bool stale = !found || (walk->next_first == UINT64_MAX && tries < 2 &&
                                place.first < end->segment_first);
        if (found && !stale)
            status = rf_log_dir_acquire(walk->log, &place, &walk->file, &cause);
        if (status == RF_NOT_FOUND) {
            /* Made or put away since we listed the folder. */
            enum rf_status listed = rf_log_dir_list(walk->log, err);
            if (listed != RF_OK)
                return listed;
        } else if (status != RF_OK) {
            return rf_error_set(err, status, "%s", cause.message);
        } else {
            rf_scan_init(&walk->scan, walk->file->fd, &walk->file->place, 0, 0);
            walk->scan.headers_only = walk->headers_only;
            walk->sealed = false;
            return set_limit(walk, end, err);
        }
    }
    return rf_error_set(err, RF_CORRUPT, "no segment of the log holds change %" PRIu64,
                        walk->seq);
}

/* Open, and go to walk->seq or the first sound record behind it. */
static enum rf_status enter_segment(struct rf_walk *walk, const struct rf_log_end *end,
                                    struct rf_error *err)
{
    enum rf_status status = open_segment(walk, end, err);

    if (status != RF_OK || walk->seq == walk->file->place.first)
        return status;
    status = rf_scan_seek(&walk->scan, walk->seq, err);
    return status == RF_END ? RF_OK : status;
}

static enum rf_status lose(struct rf_walk *walk, uint64_t to, struct rf_walked *out,
                           struct rf_error *err)
{
    *out = (struct rf_walked){.lost_from = walk->seq, .lost_to = to};
    walk->seq = to + 1;
    if (out->lost_from == to)
        return rf_error_set(err, RF_CORRUPT, "change %" PRIu64 " of the log is damaged", to);
    return rf_error_set(err, RF_CORRUPT, "changes %" PRIu64 " to %" PRIu64
                        " of the log are damaged", out->lost_from, to);
}

/* What is left of this segment cannot be read: all its further changes are lost. */
static enum rf_status lose_rest(struct rf_walk *walk, const struct rf_log_end *end,
                                struct rf_walked *out, struct rf_error *err)
{
    uint64_t to = walk->next_first - 1 < end->seq ? walk->next_first - 1 : end->seq;

    leave_segment(walk);
    return lose(walk, to, out, err);
}

/* One step within the open segment. RF_END: it is through. */
static enum rf_status step(struct rf_walk *walk, struct rf_walked *out, struct rf_error *err)
{
    for (;;) {
        enum rf_status status = rf_scan_next(&walk->scan, &out->at, err);
        if (status == RF_CORRUPT)
            status = rf_scan_resync(&walk->scan, err);
        else if (status == RF_OK && out->at.record.op != RF_LOG_BEGIN &&
                 out->at.record.seq >= walk->seq)
            return RF_OK;
        if (status != RF_OK)
            return status;
    }
}

enum rf_status rf_walk_next(struct rf_walk *walk, const struct rf_log_end *end,
                            struct rf_walked *out, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    out->lost_from = out->lost_to = 0;
    if (walk->seq > end->seq)
        return RF_END;
    if (walk->file && walk->next_first == UINT64_MAX &&
        walk->file->place.first < end->segment_first) {
        struct rf_log_place place;
        status = rf_log_dir_list(walk->log, err);
        if (status != RF_OK)
            return status;
        rf_log_dir_find(walk->log, walk->file->place.first, &place, &walk->next_first);
    }
    if (walk->file && walk->seq >= walk->next_first)
        leave_segment(walk);
    if (!walk->file)
        status = enter_segment(walk, end, err);
    else
        status = set_limit(walk, end, err);
    if (status == RF_OK)
        status = step(walk, out, err);
    if (status == RF_END)
        return lose_rest(walk, end, out, err);
    if (status != RF_OK)
        return status;
    if (out->at.record.seq > end->seq || out->at.record.seq >= walk->next_first)
        return lose_rest(walk, end, out, err);
    if (out->at.record.seq > walk->seq) {
        walk->scan.offset = out->at.offset;
        return lose(walk, out->at.record.seq - 1, out, err);
    }
    out->first = walk->file->place.first;
    walk->seq++;
    return RF_OK;
}

enum rf_status rf_walk_at(struct rf_walk *walk, const struct rf_log_end *end, uint64_t seq,
                          struct rf_walked *out, struct rf_error *err)
{
    enum rf_status status;

    leave_segment(walk);
    walk->seq = seq;
    status = rf_walk_next(walk, end, out, err);
    if (status == RF_END)
        return rf_error_set(err, RF_CORRUPT, "change %" PRIu64 " is past the end of the log", seq);
    return status;
}
