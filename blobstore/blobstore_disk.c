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
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "blobstore/disk.h"
#include "core/control.h"

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
        .disk_bytes = bytes_in(disk->dir, ".") + bytes_in(disk->dir, "log") +
                      bytes_in(disk->dir, "large") + bytes_in(disk->dir, "run"),
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
    if (!disk->opened || fsync(disk->large_dir) != 0 || rf_head_sync(disk->head, NULL) != RF_OK)
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
    for (size_t i = 0; i < RF_DISK_OLD_HEADS; i++)
        rf_head_close(disk->old_heads[i]);
    if (disk->large_dir >= 0)
        close(disk->large_dir);
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

/* A folder of the store; a writer makes it when it is missing, as it may be after a loss. */
static enum rf_status open_part(struct rf_disk *disk, const char *name, bool writing, int *out,
                                struct rf_error *err)
{
    if (writing && mkdirat(disk->dir, name, 0700) == 0 && fsync(disk->dir) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot make '%s/%s' durable", disk->path, name);
    *out = openat(disk->dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*out < 0)
        return rf_error_errno(err, RF_IO, errno, "cannot open '%s/%s'", disk->path, name);
    return RF_OK;
}

static enum rf_status open_log(struct rf_disk *disk, bool writing, struct rf_error *err)
{
    struct rf_log_place oldest = {.first = 1};
    enum rf_status status;
    int fd = -1;

    status = open_part(disk, "log", writing, &fd, err);
    if (status == RF_OK)
        status = rf_log_dir_init(&disk->log, fd, err);
    disk->log.salt = disk->salt;
    if (status == RF_OK)
        status = open_part(disk, "run", writing, &fd, err);
    if (status != RF_OK)
        return status;
    /* Without any segment, runs speak of nothing. */
    if (!rf_log_dir_at(&disk->log, 0, &oldest))
        oldest.first = UINT64_MAX;
    status = rf_lookup_open(&disk->lookup, fd, &disk->log, oldest.first, disk->run_bytes, err);
    if (oldest.first == UINT64_MAX)
        disk->lookup.oldest = 1;
    return status;
}

static enum rf_status start_writing(struct rf_disk *disk, struct rf_error *err)
{
    struct rf_commit_point point;
    uint64_t strays = 0;
    enum rf_status status =
        rf_head_open(&disk->head, disk->dir, true, rf_disk_seed(disk), err);

    if (status == RF_OK)
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
    disk->opened = status == RF_OK;
    return status;
}

static enum rf_status open_store(struct rf_disk *disk, const struct rf_store_options *options,
                                 struct rf_error *err)
{
    bool writing = options->mode != RF_STORE_READ;
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
        status = open_part(disk, "large", writing, &disk->large_dir, err);
    if (status == RF_OK)
        status = open_log(disk, writing, err);
    if (status != RF_OK)
        return status;
    return writing ? start_writing(disk, err) : rf_disk_state(disk, &state, err);
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
    disk->dir = disk->large_dir = disk->lock_fd = disk->log.fd = disk->lookup.dir = -1;
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
 * The last writer left without closing and nobody writes now: what it acknowledged may stand behind
 * the published end, which after a power cut is an old one or gone. Only a writer may look there.
 */
static bool needs_writer(struct rf_disk *disk)
{
    struct rf_head_state state;
    bool closed, alone = false;
    int fd;

    if (!RF_SAFEGUARD("reader-recovers"))
        return false;
    closed = rf_identity_was_closed(disk, &fd);
    if (closed && disk->head && rf_head_read(disk->head, &state)) {
        close(fd);
        return false;
    }
    if (fd >= 0) {
        alone = flock(fd, LOCK_SH | LOCK_NB) == 0;
        close(fd);
    }
    return alone || fd < 0;
}

static enum rf_status disk_open(struct rf_store **out, const char *path,
                                const struct rf_store_options *options, struct rf_error *err)
{
    struct rf_store_options writing = *options;
    struct rf_store *store = NULL, *writer = NULL;
    enum rf_status status = open_once(&store, path, options, err);

    if (status != RF_OK || !store)
        return status;
    if (options->mode == RF_STORE_READ && needs_writer((struct rf_disk *)store)) {
        writing.mode = RF_STORE_WRITE;
        writing.lock_timeout_ms = 0;
        /* Where that cannot be (we may not write), the store is read as it is. */
        if (open_once(&writer, path, &writing, NULL) == RF_OK && writer) {
            disk_close(writer);
            disk_close(store);
            return open_once(out, path, options, err);
        }
    }
    *out = store;
    return RF_OK;
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
    .compact = rf_disk_compact,
};
