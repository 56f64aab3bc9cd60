/*
 * watch.c - noticing that an index was paused or that a mapper file changed
 *
 * What is compared is one hash over the names and times of all files that count, so a touch is a
 * change, too: the mappers are loaded again then and found to be the same. The thread waits until
 * the files stand still, because an editor may write one in pieces. A pause counts at once.
 */
#include "cmd/watch.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOK_EVERY_MS 60000   /* where the kernel tells of changes */
#define LOOK_BLIND_MS 1000    /* where it does not */
#define QUIET_MS 100          /* no event for so long: the files stand still */
#define QUIET_TRIES 20

#define FOLDER_EVENTS (IN_CREATE | IN_CLOSE_WRITE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)
#define FILE_EVENTS (IN_CLOSE_WRITE | IN_ATTRIB) /* what a link in a folder stands for */

struct state {
    bool paused;
    struct rf_blobref mappers;
};

struct rf_watch {
    struct rf_cli *cli;
    const struct rf_index_home *index;
    bool mappers;
    struct state first;
    int events, ending; /* inotify, or -1; eventfd */
    bool blind;         /* something cannot be watched: look often */
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool changed, stopped;
    void (*call)(void *user);
    void *user;
};

/* ---- how things are ---- */

static void hash_file(struct rf_hasher *hasher, const char *path)
{
    struct stat st;
    int64_t facts[6] = {0};

    if (stat(path, &st) == 0) {
        facts[0] = (int64_t)st.st_ino;
        facts[1] = st.st_size;
        facts[2] = st.st_mtim.tv_sec;
        facts[3] = st.st_mtim.tv_nsec;
        facts[4] = st.st_ctim.tv_sec;
        facts[5] = st.st_ctim.tv_nsec;
    }
    rf_hasher_update(hasher, path, strlen(path) + 1);
    rf_hasher_update(hasher, facts, sizeof facts);
}

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup("./");

    if (!folder)
        abort();
    return folder;
}

/* A mapper may require any other Lua file of its folder. */
static void hash_folder(struct rf_hasher *hasher, const char *folder)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, NULL, alphasort);

    for (int i = 0; i < count; i++) {
        size_t size = strlen(entries[i]->d_name);

        if (size > 4 && strcmp(entries[i]->d_name + size - 4, ".lua") == 0) {
            char *path = rf_path_join(folder, entries[i]->d_name);

            hash_file(hasher, path);
            free(path);
        }
        free(entries[i]);
    }
    free(entries);
}

static bool is_bundled(const char *path)
{
    return strncmp(path, "bundled:", 8) == 0;
}

static void hash_mappers(const struct rf_watch *watch, struct rf_blobref *out)
{
    struct rf_hasher *hasher = rf_hasher_new();
    size_t count;
    char **paths = rf_index_mapper_paths(watch->cli, watch->index, &count);

    for (size_t i = 0; i < count; i++) {
        char *folder = is_bundled(paths[i]) ? NULL : folder_of(paths[i]);

        rf_hasher_update(hasher, paths[i], strlen(paths[i]) + 1);
        if (folder)
            hash_folder(hasher, folder);
        free(folder);
    }
    rf_names_free(paths, count);
    rf_hasher_finish(hasher, out);
    rf_hasher_free(hasher);
}

static void look(const struct rf_watch *watch, struct state *out)
{
    memset(out, 0, sizeof *out);
    out->paused = rf_index_paused(watch->index);
    if (watch->mappers)
        hash_mappers(watch, &out->mappers);
}

static bool is_first(const struct rf_watch *watch, const struct state *state)
{
    return state->paused == watch->first.paused &&
           rf_blobref_equal(&state->mappers, &watch->first.mappers);
}

/* ---- being told ---- */

static void watch_path(struct rf_watch *watch, const char *path, uint32_t events)
{
    if (watch->events < 0 || inotify_add_watch(watch->events, path, events) < 0)
        watch->blind = true;
}

static void watch_paths(struct rf_watch *watch)
{
    size_t count;
    char **paths;

    watch->events = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    watch->blind = watch->events < 0;
    watch_path(watch, watch->cli->home.index_dir, FOLDER_EVENTS & ~(uint32_t)IN_CLOSE_WRITE);
    if (!watch->mappers)
        return;
    watch_path(watch, watch->cli->home.mapper_dir, FOLDER_EVENTS);
    paths = rf_index_mapper_paths(watch->cli, watch->index, &count);
    for (size_t i = 0; i < count; i++) {
        char *folder;

        if (is_bundled(paths[i]))
            continue;
        folder = folder_of(paths[i]);
        watch_path(watch, folder, FOLDER_EVENTS);
        watch_path(watch, paths[i], FILE_EVENTS);
        free(folder);
    }
    rf_names_free(paths, count);
}

/* Wait for an event, and take what there is. False: the watch ends. */
static bool await(struct rf_watch *watch, int timeout_ms, bool *told)
{
    struct pollfd fds[] = {{.fd = watch->ending, .events = POLLIN},
                           {.fd = watch->events, .events = POLLIN}};
    char block[4096];

    *told = poll(fds, 2, timeout_ms) > 0 && (fds[1].revents & POLLIN);
    while (*told && read(watch->events, block, sizeof block) > 0)
        continue;
    return !(fds[0].revents & POLLIN);
}

static void tell(struct rf_watch *watch)
{
    pthread_mutex_lock(&watch->lock);
    watch->changed = true;
    if (watch->call)
        watch->call(watch->user);
    pthread_cond_signal(&watch->wake);
    pthread_mutex_unlock(&watch->lock);
}

static void *run(void *argument)
{
    struct rf_watch *watch = argument;
    struct state state;
    bool told;

    look(watch, &state); /* something may have changed before it was watched */
    while (is_first(watch, &state)) {
        if (!await(watch, watch->blind ? LOOK_BLIND_MS : LOOK_EVERY_MS, &told))
            return NULL;
        look(watch, &state);
        for (int i = 0; told && state.paused == watch->first.paused && i < QUIET_TRIES; i++) {
            if (!await(watch, QUIET_MS, &told))
                return NULL;
            look(watch, &state);
        }
    }
    tell(watch);
    return NULL;
}

/* ---- the watch ---- */

struct rf_watch *rf_watch_open(struct rf_cli *cli, const struct rf_index_home *index, bool mappers)
{
    struct rf_watch *watch = calloc(1, sizeof *watch);
    sigset_t all, before;

    if (!watch)
        abort();
    watch->cli = cli;
    watch->index = index;
    watch->mappers = mappers;
    watch->ending = eventfd(0, EFD_CLOEXEC);
    pthread_mutex_init(&watch->lock, NULL);
    pthread_cond_init(&watch->wake, NULL);
    look(watch, &watch->first);
    watch_paths(watch);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals go to the main thread */
    if (watch->ending < 0 || pthread_create(&watch->thread, NULL, run, watch))
        abort();
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return watch;
}

void rf_watch_close(struct rf_watch *watch)
{
    if (!watch)
        return;
    rf_watch_call(watch, NULL, NULL);
    if (eventfd_write(watch->ending, 1) != 0)
        abort();
    pthread_join(watch->thread, NULL);
    if (watch->events >= 0)
        close(watch->events);
    close(watch->ending);
    pthread_cond_destroy(&watch->wake);
    pthread_mutex_destroy(&watch->lock);
    free(watch);
}

bool rf_watch_paused(const struct rf_watch *watch)
{
    return watch->first.paused;
}

bool rf_watch_changed(struct rf_watch *watch)
{
    bool changed;

    pthread_mutex_lock(&watch->lock);
    changed = watch->changed;
    pthread_mutex_unlock(&watch->lock);
    return changed;
}

void rf_watch_call(struct rf_watch *watch, void (*changed)(void *user), void *user)
{
    pthread_mutex_lock(&watch->lock);
    watch->call = changed;
    watch->user = user;
    if (changed && watch->changed)
        changed(user);
    pthread_mutex_unlock(&watch->lock);
}

static void stop_waiting(void *user)
{
    struct rf_watch *watch = user;

    pthread_mutex_lock(&watch->lock);
    watch->stopped = true;
    pthread_cond_signal(&watch->wake);
    pthread_mutex_unlock(&watch->lock);
}

void rf_watch_wait(struct rf_watch *watch)
{
    rf_stop_call(stop_waiting, watch);
    pthread_mutex_lock(&watch->lock);
    while (!watch->changed && !watch->stopped)
        pthread_cond_wait(&watch->wake, &watch->lock);
    pthread_mutex_unlock(&watch->lock);
    rf_stop_call(NULL, NULL);
}
