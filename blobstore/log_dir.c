/* log_dir.c - see log_dir.h */
#include "blobstore/log_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum rf_status rf_log_dir_init(struct rf_log_dir *log, int fd, struct rf_error *err)
{
    *log = (struct rf_log_dir){.fd = fd};
    pthread_mutex_init(&log->lock, NULL);
    return rf_log_dir_list(log, err);
}

/* Caller holds the lock. */
static void unref_file(struct rf_segment_file *file)
{
    if (--file->refs > 0)
        return;
    close(file->fd);
    free(file);
}

static void forget_locked(struct rf_log_dir *log)
{
    for (size_t i = 0; i < RF_LOG_FILES_MAX; i++) {
        if (log->files[i])
            unref_file(log->files[i]);
        log->files[i] = NULL;
    }
}

void rf_log_dir_release(struct rf_log_dir *log)
{
    forget_locked(log);
    free(log->segments);
    if (log->fd >= 0)
        close(log->fd);
    pthread_mutex_destroy(&log->lock);
}

static enum rf_status add_locked(struct rf_log_dir *log, const struct rf_log_place *place,
                                 struct rf_error *err)
{
    size_t at = log->count;

    while (at > 0 && log->segments[at - 1].first > place->first)
        at--;
    if (at > 0 && log->segments[at - 1].first == place->first) {
        if (log->segments[at - 1].attempt < place->attempt)
            log->segments[at - 1] = *place;
        return RF_OK;
    }
    if (log->count == log->capacity) {
        size_t capacity = log->capacity ? log->capacity * 2 : 16;
        struct rf_log_place *grown = realloc(log->segments, capacity * sizeof *grown);
        if (!grown)
            return rf_error_set(err, RF_NOMEM, "no memory for the list of segments");
        log->segments = grown;
        log->capacity = capacity;
    }
    memmove(log->segments + at + 1, log->segments + at, (log->count - at) * sizeof *log->segments);
    log->segments[at] = *place;
    log->count++;
    return RF_OK;
}

enum rf_status rf_log_dir_list(struct rf_log_dir *log, struct rf_error *err)
{
    int fd = openat(log->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    enum rf_status status = RF_OK;
    struct dirent *entry;

    if (!dir) {
        int cause = errno;
        if (fd >= 0)
            close(fd);
        return rf_error_errno(err, RF_IO, cause, "cannot list the log");
    }
    pthread_mutex_lock(&log->lock);
    log->count = 0;
    while (status == RF_OK && (entry = readdir(dir))) {
        struct rf_log_place place = {.salt = log->salt};
        if (rf_segment_parse(&place, entry->d_name))
            status = add_locked(log, &place, err);
    }
    pthread_mutex_unlock(&log->lock);
    closedir(dir);
    return status;
}

enum rf_status rf_log_dir_add(struct rf_log_dir *log, const struct rf_log_place *place,
                              struct rf_error *err)
{
    enum rf_status status;

    pthread_mutex_lock(&log->lock);
    status = add_locked(log, place, err);
    pthread_mutex_unlock(&log->lock);
    return status;
}

size_t rf_log_dir_count(struct rf_log_dir *log)
{
    size_t count;

    pthread_mutex_lock(&log->lock);
    count = log->count;
    pthread_mutex_unlock(&log->lock);
    return count;
}

bool rf_log_dir_at(struct rf_log_dir *log, size_t index, struct rf_log_place *out)
{
    bool there;

    pthread_mutex_lock(&log->lock);
    there = index < log->count;
    if (there) {
        *out = log->segments[index];
        out->salt = log->salt;
    }
    pthread_mutex_unlock(&log->lock);
    return there;
}

bool rf_log_dir_find(struct rf_log_dir *log, uint64_t seq, struct rf_log_place *out,
                     uint64_t *next)
{
    size_t low = 0, high;

    pthread_mutex_lock(&log->lock);
    high = log->count;
    while (low < high) { /* the first segment whose first is above seq */
        size_t middle = low + (high - low) / 2;
        if (log->segments[middle].first > seq)
            high = middle;
        else
            low = middle + 1;
    }
    if (low > 0) {
        *out = log->segments[low - 1];
        out->salt = log->salt;
        if (next)
            *next = low < log->count ? log->segments[low].first : UINT64_MAX;
    }
    pthread_mutex_unlock(&log->lock);
    return low > 0;
}

static bool same_place(const struct rf_segment_file *file, const struct rf_log_place *place)
{
    return file->place.first == place->first && file->place.attempt == place->attempt;
}

/* Put a file in front of the open ones; the last one makes room. Caller holds the lock. */
static void remember(struct rf_log_dir *log, struct rf_segment_file *file, size_t from)
{
    if (from == RF_LOG_FILES_MAX - 1 && log->files[from] && log->files[from] != file)
        unref_file(log->files[from]);
    memmove(log->files + 1, log->files, from * sizeof(struct rf_segment_file *));
    log->files[0] = file;
}

static enum rf_status open_file(struct rf_log_dir *log, const struct rf_log_place *place,
                                struct rf_segment_file **out, struct rf_error *err)
{
    struct rf_segment_file *file = calloc(1, sizeof *file);
    char name[RF_SEGMENT_NAME_SIZE];
    int cause;

    if (!file)
        return rf_error_set(err, RF_NOMEM, "no memory for a segment");
    rf_segment_name(place, name);
    file->fd = openat(log->fd, name, O_RDONLY | O_CLOEXEC);
    if (file->fd < 0) {
        cause = errno;
        free(file);
        return rf_error_errno(err, cause == ENOENT ? RF_NOT_FOUND : RF_IO, cause,
                              "cannot open segment %s", name);
    }
    file->place = *place;
    file->place.salt = log->salt;
    file->refs = 1;
    *out = file;
    return RF_OK;
}

enum rf_status rf_log_dir_acquire(struct rf_log_dir *log, const struct rf_log_place *place,
                                  struct rf_segment_file **out, struct rf_error *err)
{
    struct rf_segment_file *file = NULL;
    enum rf_status status = RF_OK;
    size_t at = 0;

    pthread_mutex_lock(&log->lock);
    while (at < RF_LOG_FILES_MAX && log->files[at] && !same_place(log->files[at], place))
        at++;
    if (at < RF_LOG_FILES_MAX)
        file = log->files[at];
    if (!file)
        status = open_file(log, place, &file, err);
    if (file) {
        remember(log, file, at < RF_LOG_FILES_MAX ? at : RF_LOG_FILES_MAX - 1);
        file->refs++;
        *out = file;
    }
    pthread_mutex_unlock(&log->lock);
    return status;
}

void rf_log_dir_release_file(struct rf_log_dir *log, struct rf_segment_file *file)
{
    if (!file)
        return;
    pthread_mutex_lock(&log->lock);
    unref_file(file);
    pthread_mutex_unlock(&log->lock);
}

void rf_log_dir_forget(struct rf_log_dir *log)
{
    pthread_mutex_lock(&log->lock);
    forget_locked(log);
    pthread_mutex_unlock(&log->lock);
}
