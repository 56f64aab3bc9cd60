/*
 * blobstore_disk.c - the store on disk: opening, closing, and what ties its parts together
 *
 * disk.h says what the folder holds and which order makes an acknowledgement true.
 */
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "blobstore/disk.h"
#include "blobstore/large.h"
#include "core/control.h"

#define LOG_FOLDER "log"
#define OPEN_TRIES 3 /* times another writer may come before a reader that wants to recover */

uint64_t rf_disk_seed(const struct rf_disk *disk)
{
    return XXH3_64bits_withSeed(disk->uuid, sizeof disk->uuid, disk->salt ^ disk->generation);
}

uint64_t rf_disk_first_chain(const struct rf_disk *disk)
{
    return XXH3_64bits_withSeed(disk->uuid, sizeof disk->uuid, disk->generation);
}

void rf_disk_end(const struct rf_head_state *state, struct rf_log_end *out)
{
    *out = (struct rf_log_end){.seq = state->seq, .segment_first = state->segment_first,
                               .segment_end = state->segment_end};
}

void rf_disk_raise_epoch(struct rf_disk *disk)
{
    pthread_mutex_lock(&disk->lock);
    disk->state.epoch++;
    rf_head_publish(disk->head, &disk->state);
    pthread_mutex_unlock(&disk->lock);
}

/* ---- the table's functions that are short ---- */

static void disk_submit(struct rf_store *base, struct rf_act *act)
{
    rf_committer_submit(((struct rf_disk *)base)->committer, act);
}

static enum rf_status disk_stat(struct rf_store *base, const struct rf_blobref *ref,
                                struct rf_stat *out, struct rf_error *err)
{
    struct rf_entry entry;
    enum rf_status status = rf_disk_find((struct rf_disk *)base, ref, &entry, err);

    if (status == RF_OK)
        rf_entry_stat(&entry, out);
    return status;
}

struct list {
    enum rf_status (*visit)(void *user, const struct rf_stat *stat);
    void *user;
};

static enum rf_status visit_alive(void *user, const struct rf_entry *entry)
{
    struct list *list = user;
    struct rf_stat stat;

    if (!rf_entry_alive(entry))
        return RF_OK;
    rf_entry_stat(entry, &stat);
    return list->visit(list->user, &stat);
}

static enum rf_status disk_list(struct rf_store *base, const struct rf_blobref *after,
                                enum rf_status (*visit)(void *user, const struct rf_stat *stat),
                                void *user, struct rf_error *err)
{
    struct rf_disk *disk = (struct rf_disk *)base;
    struct list list = {.visit = visit, .user = user};
    struct rf_head_state state;
    enum rf_status status = rf_disk_state(disk, &state, err);

    if (status != RF_OK)
        return status;
    return rf_lookup_list(&disk->lookup, after, visit_alive, &list, err);
}

static uint64_t bytes_in(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    uint64_t bytes = 0;
    struct dirent *entry;
    struct stat st;

    if (!dir) {
        if (fd >= 0)
            close(fd);
        return 0;
    }
    while ((entry = readdir(dir))) {
        if (fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            bytes += (uint64_t)st.st_blocks * 512;
    }
    closedir(dir);
    return bytes;
}

static enum rf_status disk_info(struct rf_store *base, struct rf_store_info *out,
                                struct rf_error *err)
{
    struct rf_disk *disk = (struct rf_disk *)base;
    struct rf_log_place oldest = {.first = 1};
    struct rf_head_state state;
    enum rf_status status = rf_disk_state(disk, &state, err);

    if (status != RF_OK)
        return status;
    rf_log_dir_at(&disk->log, 0, &oldest);
    *out = (struct rf_store_info){
        .generation = disk->generation,
        .oldest_seq = oldest.first,
        .next_seq = state.seq + 1,
        .blobs = state.blobs,
        .bytes = state.bytes,
        .disk_bytes = bytes_in(disk->dir, ".") + bytes_in(disk->dir, LOG_FOLDER) +
                      bytes_in(disk->dir, RF_LARGE_FOLDER) + bytes_in(disk->dir, RF_LOOKUP_FOLDER),
        .lost = disk->lost,
        .mended = disk->mended,
    };
    rf_uuid_format(disk->uuid, out->uuid);
    return RF_OK;
}

/* ---- open and close ---- */

static void publish_state(struct rf_disk *disk, const struct rf_commit_point *point)
{
    pthread_mutex_lock(&disk->lock);
    disk->state.seq = point->next_seq - 1;
    disk->state.chain = point->chain;
    disk->state.has_chain = true;
    disk->state.segment_first = point->place.first;
    disk->state.segment_attempt = point->place.attempt;
    disk->state.segment_end = point->end;
    disk->state.blobs = point->blobs;
    disk->state.bytes = point->bytes;
    disk->state.epoch++;
    rf_head_publish(disk->head, &disk->state);
    pthread_mutex_unlock(&disk->lock);
}

/* Commit what was submitted, give the log's tail to a run, and say that nothing is unfinished. */
static void stop_writing(struct rf_disk *disk)
{
    struct rf_commit_point point;
    bool closed = true;

    if (disk->committer) {
        rf_committer_close(disk->committer, &point);
        if (rf_lookup_flush(&disk->lookup, point.next_seq - 1, NULL) != RF_OK)
            closed = false; /* the next writer reads the tail again */
    }
    rf_maintain_close(disk->maintain);
    if (disk->committer)
        publish_state(disk, &point);
    /* A removed large payload whose unlink is not durable would come back unnamed. */
    if (!disk->opened || rf_large_sync_folder(disk->dir, NULL) != RF_OK ||
        rf_head_sync(disk->head, NULL) != RF_OK)
        closed = false;
    rf_identity_unlock(disk, closed);
}

static void disk_close(struct rf_store *base)
{
    struct rf_disk *disk = (struct rf_disk *)base;

    stop_writing(disk);
    if (disk->caught_up)
        rf_walk_release(&disk->tail);
    rf_lookup_close(&disk->lookup);
    rf_log_dir_release(&disk->log);
    rf_head_close(disk->head);
    if (disk->dir >= 0)
        close(disk->dir);
    pthread_mutex_destroy(&disk->lock);
    pthread_mutex_destroy(&disk->claim_lock);
    pthread_cond_destroy(&disk->claim_free);
    free(disk->path);
    free(disk);
}

/* The store's own name must survive a power cut before anything in it is promised. Also when the
 * folder was there: whoever made it may have ended before this. */
static enum rf_status sync_name(struct rf_disk *disk, struct rf_error *err)
{
    int parent = openat(disk->dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool synced = parent >= 0 && (!RF_SAFEGUARD("store-folder-fsync") || fsync(parent) == 0);
    int saved = errno;

    if (parent >= 0)
        close(parent);
    if (synced)
        return RF_OK;
    return rf_error_errno(err, RF_IO, saved, "cannot make the name of '%s' durable", disk->path);
}

static enum rf_status open_folder(struct rf_disk *disk, bool create, struct rf_error *err)
{
    if (create && mkdir(disk->path, 0700) != 0 && errno != EEXIST)
        return rf_error_errno(err, RF_IO, errno, "cannot make blob store '%s'", disk->path);
    disk->dir = open(disk->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (disk->dir >= 0)
        return create ? sync_name(disk, err) : RF_OK;
    if (errno == ENOENT || errno == ENOTDIR)
        return rf_error_set(err, RF_NOT_FOUND, "there is no store in '%s'", disk->path);
    return rf_error_errno(err, errno == EACCES ? RF_DENIED : RF_IO, errno,
                          "cannot open blob store '%s'", disk->path);
}

static enum rf_status open_log(struct rf_disk *disk, bool writing, struct rf_error *err)
{
    int fd;
    enum rf_status status;

    if (writing && mkdirat(disk->dir, LOG_FOLDER, 0700) == 0 && fsync(disk->dir) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot make '%s/" LOG_FOLDER "' durable",
                              disk->path);
    fd = openat(disk->dir, LOG_FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return rf_error_errno(err, RF_IO, errno, "cannot open '%s/" LOG_FOLDER "'", disk->path);
    status = rf_log_dir_init(&disk->log, fd, err);
    disk->log.salt = disk->salt;
    return status;
}

static enum rf_status open_lookup(struct rf_disk *disk, bool writing, struct rf_error *err)
{
    struct rf_log_place oldest = {.first = 1};
    enum rf_status status;
    bool lost = false;

    /* Without any segment, runs speak of nothing. */
    if (!rf_log_dir_at(&disk->log, 0, &oldest))
        oldest.first = UINT64_MAX;
    status = rf_lookup_open(&disk->lookup, disk->dir, writing, &disk->log, oldest.first,
                            disk->run_bytes, &lost, err);
    if (oldest.first == UINT64_MAX)
        disk->lookup.oldest = 1;
    disk->lost |= lost ? RF_STORE_RUNS : 0;
    return status;
}

static enum rf_status open_large(struct rf_disk *disk, bool writing, struct rf_error *err)
{
    bool made = false;
    enum rf_status status = writing ? rf_large_make_folder(disk->dir, &made, err) : RF_OK;

    if (made || (!writing && faccessat(disk->dir, RF_LARGE_FOLDER, F_OK, 0) != 0))
        disk->lost |= RF_STORE_LARGE;
    return status;
}

/* Nothing is begun anew, and no payload swept away, where there was a log once. */
static enum rf_status expect_log(struct rf_disk *disk, struct rf_error *err)
{
    struct rf_head_state state;

    if (rf_log_dir_count(&disk->log) > 0 || !rf_head_read(disk->head, &state) || state.seq == 0)
        return RF_OK;
    return rf_error_set(err, RF_CORRUPT, "the log of store '%s' is gone: %" PRIu64 " changes were "
                        "published, and '" LOG_FOLDER "' holds no segment; put the segments back",
                        disk->path, state.seq);
}

static enum rf_status start_writing(struct rf_disk *disk, struct rf_error *err)
{
    struct rf_commit_point point;
    struct rf_head_state state;
    uint64_t strays = 0;
    enum rf_status status;

    /* Without a close, a power cut may have left any page in its place. */
    if (disk->was_closed && !rf_head_read(disk->head, &state))
        disk->lost |= RF_STORE_HEAD;
    status = rf_disk_recover(disk, &point, err);
    if (status == RF_OK && !disk->was_closed)
        status = rf_disk_sweep(disk, true, &strays, err);
    if (status == RF_OK)
        status = rf_runs_sweep(disk->lookup.runs, disk->lookup.dir, &strays, err);
    if (status != RF_OK)
        return status;
    publish_state(disk, &point);
    status = rf_head_sync(disk->head, err);
    if (status == RF_OK)
        status = rf_maintain_open(&disk->maintain, disk, err);
    if (status == RF_OK)
        status = rf_committer_open(&disk->committer, disk, &point, err);
    if (status == RF_OK)
        status = rf_identity_ready(disk, err);
    disk->opened = status == RF_OK;
    return status;
}

static enum rf_status open_store(struct rf_disk *disk, const struct rf_store_options *options,
                                 struct rf_error *err)
{
    bool writing = options->mode != RF_STORE_READ, lost = false;
    struct rf_head_state state;
    enum rf_status status = open_folder(disk, options->mode == RF_STORE_CREATE, err);

    if (status == RF_OK && writing && options->mode != RF_STORE_CREATE)
        status = rf_identity_load(disk, false, err);
    if (status == RF_OK && writing)
        status = rf_identity_lock(disk, options->lock_timeout_ms, err);
    if (status == RF_OK && options->mode == RF_STORE_CREATE)
        status = rf_identity_create(disk, err);
    else if (status == RF_OK)
        status = rf_identity_load(disk, writing, err);
    if (status == RF_OK)
        status = open_large(disk, writing, err);
    if (status == RF_OK)
        status = open_log(disk, writing, err);
    if (status == RF_OK)
        status = open_lookup(disk, writing, err);
    if (status == RF_OK)
        status = rf_head_open(&disk->head, disk->dir, writing, rf_disk_seed(disk), &lost, err);
    if (status != RF_OK)
        return status;
    disk->lost |= lost ? RF_STORE_HEAD : 0;
    status = expect_log(disk, err);
    if (status != RF_OK)
        return status;
    if (!writing)
        return rf_disk_state(disk, &state, err);
    status = start_writing(disk, err);
    if (options->mode != RF_STORE_CREATE) /* else nothing was there to be lost */
        disk->mended = disk->lost;
    disk->lost = 0;
    return status;
}

static enum rf_status open_once(struct rf_store **out, const char *path,
                                const struct rf_store_options *options, struct rf_error *err)
{
    struct rf_disk *disk = calloc(1, sizeof *disk);
    enum rf_status status;

    if (disk)
        disk->path = strdup(path);
    if (!disk || !disk->path) {
        free(disk);
        return rf_error_set(err, RF_NOMEM, "no memory for a store");
    }
    disk->base.ops = &rf_store_disk_ops;
    disk->base.writable = options->mode != RF_STORE_READ;
    disk->dir = disk->lock_fd = disk->log.fd = disk->lookup.dir = -1;
    disk->segment_bytes = options->segment_bytes ? options->segment_bytes : RF_DISK_SEGMENT_BYTES;
    disk->run_bytes = options->run_bytes ? options->run_bytes : RF_DISK_RUN_BYTES;
    pthread_mutex_init(&disk->lock, NULL);
    pthread_mutex_init(&disk->log.lock, NULL);
    pthread_mutex_init(&disk->lookup.lock, NULL);
    pthread_mutex_init(&disk->claim_lock, NULL);
    pthread_cond_init(&disk->claim_free, NULL);
    status = open_store(disk, options, err);
    if (status != RF_OK)
        disk_close(&disk->base);
    else
        *out = &disk->base;
    return status;
}

/*
 * Whether what was acknowledged may stand behind the published end, which after a power cut is an
 * old one or gone, and nobody is about to publish it. Only a writer may look there.
 */
static bool needs_writer(struct rf_disk *disk)
{
    struct rf_head_state state;
    enum rf_writer writer;

    if (!RF_SAFEGUARD("reader-recovers"))
        return false;
    writer = rf_identity_writer(disk);
    if (writer == RF_WRITER_CLOSED && !rf_head_read(disk->head, &state)) {
        disk->lost |= RF_STORE_HEAD;
        return true;
    }
    return writer == RF_WRITER_DIED;
}

/* Open to write and close at once. RF_LOCKED: another process came first. *mended: enum
 * rf_store_part. */
static enum rf_status write_once(const char *path, const struct rf_store_options *options,
                                 unsigned *mended)
{
    struct rf_store_options writing = *options;
    struct rf_store *writer = NULL;
    enum rf_status status;

    writing.mode = RF_STORE_WRITE;
    writing.lock_timeout_ms = 0;
    status = open_once(&writer, path, &writing, NULL);
    if (status != RF_OK || !writer)
        return status;
    *mended = ((struct rf_disk *)writer)->mended;
    disk_close(writer);
    return RF_OK;
}

static enum rf_status disk_open(struct rf_store **out, const char *path,
                                const struct rf_store_options *options, struct rf_error *err)
{
    struct rf_store *store = NULL;
    enum rf_status status = open_once(&store, path, options, err), wrote = RF_LOCKED;
    unsigned mended = 0;

    if (status != RF_OK || !store)
        return status;
    for (int tries = 0; options->mode == RF_STORE_READ && wrote == RF_LOCKED &&
                        tries < OPEN_TRIES && needs_writer((struct rf_disk *)store); tries++)
        wrote = write_once(path, options, &mended);
    if (wrote == RF_OK) { /* else nobody need write, or we may not: it is read as it is */
        disk_close(store);
        store = NULL;
        status = open_once(&store, path, options, err);
        if (status == RF_OK && store)
            ((struct rf_disk *)store)->mended = mended;
    }
    if (status == RF_OK)
        *out = store;
    return status;
}

const struct rf_store_ops rf_store_disk_ops = {
    .name = "disk",
    .open = disk_open,
    .close = disk_close,
    .info = disk_info,
    .submit = disk_submit,
    .large_open = rf_disk_large_open,
    .large_write = rf_disk_large_write,
    .large_clone = rf_disk_large_clone,
    .large_commit = rf_disk_large_commit,
    .large_close = rf_disk_large_close,
    .stat = disk_stat,
    .get = rf_disk_get,
    .read = rf_disk_read,
    .list = disk_list,
    .feed_open = rf_disk_feed_open,
    .feed_close = rf_disk_feed_close,
    .feed_next = rf_disk_feed_next,
    .feed_blob = rf_disk_feed_blob,
    .feed_cursor = rf_disk_feed_cursor,
    .feed_cancel = rf_disk_feed_cancel,
    .verify = rf_disk_verify,
    .check = rf_disk_check,
    .compact = rf_disk_compact,
};
