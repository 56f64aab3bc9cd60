/*
 * verify_store.c - read everything, check every hash, and put away what nobody names
 *
 * Order: the lookup's runs; the log from its first change (each header, chain, payload checksum,
 * SHA-256, the lookup's answer), with the large payloads as their records come by; then the files
 * that no record names.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "blobstore/disk.h"
#include "blobstore/large.h"

#define PROGRESS_STEP 4096 /* changes between two calls of progress */

struct verify {
    struct rf_disk *disk;
    struct rf_verify_report report;
    void (*problem)(void *user, const char *line);
    void (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
    uint64_t chain; /* expected of the next record */
    bool chain_known;
    uint64_t lookup_wrong; /* answers of the lookup that the log contradicts */
};

static void RF_PRINTF(2, 3) tell(struct verify *v, const char *format, ...)
{
    char line[RF_ERROR_SIZE];
    va_list args;

    if (!v->problem)
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    v->problem(v->user, line);
}

/* ---- one record ---- */

static void check_chain(struct verify *v, const struct rf_log_record *record)
{
    if (v->chain_known && record->chain != v->chain) {
        v->report.corrupt++;
        tell(v, "change %" PRIu64 " does not continue the changes before it", record->seq);
    }
    v->chain = rf_log_chain(record->chain, record);
    v->chain_known = true;
}

static void check_small(struct verify *v, const struct rf_scanned *found, const char *text)
{
    struct rf_blobref ref, got;

    ref.algo = found->record.algo;
    memcpy(ref.digest, found->record.digest, RF_DIGEST_SIZE);
    rf_blobref_of(&got, found->payload);
    if (!found->damaged && rf_blobref_equal(&got, &ref))
        return;
    v->report.corrupt++;
    tell(v, "blob %s is corrupt in change %" PRIu64 ": its content %s", text, found->record.seq,
         found->damaged ? "does not match its checksum" : "hashes to something else");
}

static void check_large(struct verify *v, const struct rf_blobref *ref, const char *text,
                        const struct rf_log_record *record)
{
    struct rf_error err = {0};
    enum rf_status status = rf_large_verify(v->disk->dir, ref, record->life, record->size, &err);

    if (status == RF_NOT_FOUND)
        v->report.missing++;
    else if (status != RF_OK)
        v->report.corrupt++;
    if (status != RF_OK && strstr(err.message, text))
        tell(v, "%s", err.message);
    else if (status != RF_OK)
        tell(v, "blob %s is corrupt: %s", text, err.message);
}

static void check_change(struct verify *v, const struct rf_walked *walked)
{
    const struct rf_log_record *record = &walked->at.record;
    struct rf_blobref ref = {.algo = record->algo};
    struct rf_entry now = {0};
    char text[RF_BLOBREF_SIZE];
    bool dead;

    v->report.changes++;
    check_chain(v, record);
    memcpy(ref.digest, record->digest, RF_DIGEST_SIZE);
    rf_blobref_format(&ref, text);
    if (walked->at.flawed) {
        v->report.flaws++;
        tell(v, "the bytes behind change %" PRIu64 " are damaged; no blob suffers", record->seq);
    }
    if (rf_lookup_find(&v->disk->lookup, &ref, &now, NULL, NULL) != RF_OK ||
        now.seq < record->seq) {
        v->lookup_wrong++;
        tell(v, "the lookup does not know change %" PRIu64 " of %s", record->seq, text);
    }
    dead = now.life > record->life;
    if (record->op != RF_LOG_PUT || record->flags & (RF_LOG_LIFT | RF_LOG_GONE))
        return;
    if (!dead) {
        v->report.blobs++;
        v->report.bytes += record->size;
    }
    if (!rf_log_is_large(record)) {
        if (!dead || !walked->at.damaged) /* what a delete made needless may be damaged */
            check_small(v, &walked->at, text);
    } else if (!dead) {
        check_large(v, &ref, text, record);
    }
}

static enum rf_status check_log(struct verify *v, const struct rf_head_state *state,
                                struct rf_error *err)
{
    struct rf_log_place oldest = {.first = 1};
    struct rf_log_end end;
    struct rf_walked walked;
    struct rf_walk walk;
    enum rf_status status = RF_OK;

    rf_disk_end(state, &end);
    rf_log_dir_at(&v->disk->log, 0, &oldest);
    v->chain = rf_disk_first_chain(v->disk);
    v->chain_known = oldest.first == 1;
    rf_walk_init(&walk, &v->disk->log, oldest.first, false);
    while (status == RF_OK) {
        struct rf_error cause = {0};
        status = rf_walk_next(&walk, &end, &walked, &cause);
        if (status == RF_OK) {
            check_change(v, &walked);
        } else if (status == RF_CORRUPT && walked.lost_to > 0) {
            v->report.corrupt += walked.lost_to - walked.lost_from + 1;
            v->chain_known = false;
            tell(v, "%s", cause.message);
            status = RF_OK;
        } else if (status != RF_END) {
            rf_error_set(err, status, "%s", cause.message);
        }
        if (v->progress && (walk.seq % PROGRESS_STEP == 0 || status == RF_END))
            v->progress(v->user, walk.seq - 1, end.seq);
    }
    if (status == RF_END && v->chain_known && v->chain != state->chain && state->seq > 0) {
        v->report.corrupt++;
        tell(v, "the last change does not end where the head says");
    }
    rf_walk_release(&walk);
    return status == RF_END ? RF_OK : status;
}

/* The walk passes over begin records; each must be whole. And the log holds every change from the
 * first: what is missing before its oldest segment no walk would meet. */
static void check_begins(struct verify *v)
{
    struct rf_log_place place;

    if (rf_log_dir_at(&v->disk->log, 0, &place) && place.first > 1) {
        v->report.corrupt++;
        tell(v, "changes 1 to %" PRIu64 " of the log are lost: the segment that held them is gone",
             place.first - 1);
    }
    for (size_t i = 0; rf_log_dir_at(&v->disk->log, i, &place); i++) {
        struct rf_segment_file *file;
        struct rf_log_begin begin;
        struct rf_scanned found;
        struct rf_scan scan;
        bool sound;
        if (rf_log_dir_acquire(&v->disk->log, &place, &file, NULL) != RF_OK)
            continue;
        rf_scan_init(&scan, file->fd, &place, 0, RF_LOG_HEADER_SIZE + RF_LOG_BEGIN_SIZE);
        sound = rf_scan_next(&scan, &found, NULL) == RF_OK && !found.damaged &&
                found.record.op == RF_LOG_BEGIN && found.record.seq == place.first &&
                rf_log_begin_decode(&begin, found.payload) &&
                memcmp(begin.uuid, v->disk->uuid, sizeof begin.uuid) == 0;
        rf_scan_release(&scan);
        rf_log_dir_release_file(&v->disk->log, file);
        if (sound)
            continue;
        v->report.corrupt++;
        tell(v, "the begin record of segment %016" PRIx64 "-%" PRIu32 " is damaged", place.first,
             place.attempt);
    }
}

/* ---- files nobody names ---- */

/* Whether a record names this file. Caller holds claim_lock, so that no upload publishes a file
 * of this name between our look and our unlink. */
static bool is_named(struct rf_disk *disk, const struct rf_blobref *ref, uint32_t life)
{
    struct rf_error err = {0};
    struct rf_entry now;
    enum rf_status status;

    if (rf_disk_is_claimed(disk, ref))
        return true;
    status = rf_lookup_find(&disk->lookup, ref, &now, NULL, &err);
    if (status == RF_NOT_FOUND)
        return false;
    return status != RF_OK || (rf_entry_alive(&now) && now.life == life);
}

/* Attempts at a segment that a later one replaced, and copies that were not finished. */
static enum rf_status sweep_log(struct rf_disk *disk, uint64_t *count, struct rf_error *err)
{
    int fd = openat(disk->log.fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    enum rf_status status = RF_OK;
    struct dirent *entry;

    if (!dir) {
        int cause = errno;
        if (fd >= 0)
            close(fd);
        return rf_error_errno(err, RF_IO, cause, "cannot list the log");
    }
    while (status == RF_OK && (entry = readdir(dir))) {
        struct rf_log_place place, valid;
        bool stray = strncmp(entry->d_name, RF_LOG_TEMP, sizeof RF_LOG_TEMP - 1) == 0;
        if (rf_segment_parse(&place, entry->d_name))
            stray = rf_log_dir_find(&disk->log, place.first, &valid, NULL) &&
                    valid.first == place.first && valid.attempt > place.attempt;
        if (stray && unlinkat(disk->log.fd, entry->d_name, 0) != 0)
            status = rf_error_errno(err, RF_IO, errno, "cannot remove 'log/%s'", entry->d_name);
        *count += stray;
    }
    closedir(dir);
    return status;
}

enum rf_status rf_disk_sweep(struct rf_disk *disk, bool temps, uint64_t *count,
                             struct rf_error *err)
{
    int fd = openat(disk->dir, RF_LARGE_FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool absent = fd < 0 && errno == ENOENT;
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    enum rf_status status = RF_OK;
    struct dirent *entry;

    if (!dir && !absent) {
        int cause = errno;
        if (fd >= 0)
            close(fd);
        return rf_error_errno(err, RF_IO, cause, "cannot list '%s/" RF_LARGE_FOLDER "'",
                              disk->path);
    }
    while (dir && status == RF_OK && (entry = readdir(dir))) {
        struct rf_blobref ref;
        uint32_t life;
        bool stray;
        pthread_mutex_lock(&disk->claim_lock);
        if (strncmp(entry->d_name, RF_LARGE_TEMP, sizeof RF_LARGE_TEMP - 1) == 0)
            stray = temps;
        else
            stray = rf_large_parse(&ref, &life, entry->d_name) && !is_named(disk, &ref, life);
        if (stray && unlinkat(fd, entry->d_name, 0) != 0)
            status = rf_error_errno(err, RF_IO, errno, "cannot remove 'large/%s'", entry->d_name);
        pthread_mutex_unlock(&disk->claim_lock);
        *count += stray;
    }
    if (dir)
        closedir(dir);
    return status == RF_OK && temps ? sweep_log(disk, count, err) : status;
}

/* ---- the lookup ---- */

/* Bad runs are made again, or reported when we may not write. */
static enum rf_status check_runs(struct verify *v, struct rf_error *err)
{
    struct rf_lookup *lookup = &v->disk->lookup;
    bool writable = v->disk->base.writable;
    enum rf_status status;
    uint64_t bad = 0;

    if (writable)
        rf_maintain_begin(v->disk->maintain); /* else it may mend what was found, uncounted */
    status = rf_lookup_check(lookup, &bad, err);
    if (status == RF_OK && bad > 0)
        tell(v, "%" PRIu64 " lookup run%s damaged or missing: nothing is lost, made again %s", bad,
             bad == 1 ? "" : "s", writable ? "now" : "by the next writer");
    v->report.bad_runs = writable ? 0 : bad;
    while (status == RF_OK && writable && (status = rf_lookup_heal(lookup, err)) == RF_OK)
        v->report.rebuilt++;
    if (writable)
        rf_maintain_end(v->disk->maintain);
    if (v->report.rebuilt)
        rf_disk_raise_epoch(v->disk);
    return status == RF_END ? RF_OK : status;
}

/* The runs are whole but do not say what the log says: make all of them again. */
static enum rf_status remake_runs(struct verify *v, struct rf_error *err)
{
    if (v->lookup_wrong == 0 || !v->disk->base.writable)
        return RF_OK;
    rf_lookup_condemn(&v->disk->lookup);
    return check_runs(v, err);
}

static void tell_lost(struct verify *v)
{
    char words[RF_ERROR_SIZE];

    for (unsigned part = 1; part <= RF_STORE_LARGE; part <<= 1) {
        bool mended = v->disk->mended & part;
        if (!mended && !(v->disk->lost & part))
            continue;
        rf_store_part_describe((enum rf_store_part)part, mended, words, sizeof words);
        tell(v, "%s", words);
    }
}

enum rf_status rf_disk_check(struct rf_store *base, uint64_t *damaged,
                             void (*problem)(void *user, const char *line), void *user,
                             struct rf_error *err)
{
    struct verify v = {.disk = (struct rf_disk *)base, .problem = problem, .user = user};
    struct rf_head_state state;
    enum rf_status status = rf_disk_state(v.disk, &state, err);

    if (status == RF_OK)
        check_begins(&v);
    *damaged = v.report.corrupt;
    return status;
}

enum rf_status rf_disk_verify(struct rf_store *base, struct rf_verify_report *out,
                              void (*problem)(void *user, const char *line),
                              void (*progress)(void *user, uint64_t done, uint64_t total),
                              void *user, struct rf_error *err)
{
    struct rf_disk *disk = (struct rf_disk *)base;
    struct verify v = {.disk = disk, .problem = problem, .progress = progress, .user = user};
    struct rf_head_state state = {0};
    enum rf_status status = rf_disk_state(disk, &state, err);
    uint64_t strays = 0, covered;

    if (status == RF_OK) {
        tell_lost(&v);
        status = check_runs(&v, err);
    }
    if (status == RF_OK)
        status = check_log(&v, &state, err);
    if (status == RF_OK)
        status = remake_runs(&v, err);
    if (status == RF_OK)
        check_begins(&v);
    covered = rf_lookup_covered(&disk->lookup); /* it may grow while we look */
    v.report.tail = state.seq > covered ? state.seq - covered : 0;
    if (status == RF_OK && base->writable)
        status = rf_disk_sweep(disk, false, &strays, err);
    v.report.removed = strays;
    *out = v.report;
    if (status != RF_OK)
        return status;
    if (v.report.corrupt || v.report.missing)
        return rf_error_set(err, RF_CORRUPT, "store '%s': %" PRIu64 " corrupt, %" PRIu64
                            " missing", disk->path, v.report.corrupt, v.report.missing);
    return RF_OK;
}
