/*
 * folder.c - all that stands below a folder, see folder.h
 *
 * fts(3) holds some 300 bytes for each entry of a folder that it sorts, which for a million files
 * is more than all the rest of the program needs.
 */
#include "cmd/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cli.h"
#include "core/arena.h"

#define NAMES_MAX ((size_t)16 << 30) /* bytes of the names of one folder */

struct names {
    struct rf_arena arena;
    char **list;
    size_t count, room;
};

struct walk {
    enum rf_folder_way (*visit)(void *user, const struct rf_folder_entry *entry);
    void *user;
    struct rf_buf path;
};

static bool keep_name(struct names *names, const char *name)
{
    if (names->count == names->room) {
        size_t room = names->room ? 2 * names->room : 64;
        char **grown = realloc(names->list, room * sizeof *grown);

        if (!grown)
            return false;
        names->list = grown;
        names->room = room;
    }
    names->list[names->count] = rf_arena_copy(&names->arena, name, strlen(name));
    if (!names->list[names->count])
        return false;
    names->count++;
    return true;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* 0, or why not all of it could be read. */
static int read_names(int fd, struct names *names)
{
    DIR *folder = fdopendir(fd);
    const struct dirent *entry;
    int errnum = 0;

    if (!folder) {
        errnum = errno;
        close(fd);
        return errnum;
    }
    while (errno = 0, (entry = readdir(folder)) != NULL && !rf_stop_asked()) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            !keep_name(names, entry->d_name)) {
            errno = ENOMEM;
            break;
        }
    }
    errnum = errno;
    closedir(folder);
    if (names->count)
        qsort(names->list, names->count, sizeof *names->list, by_bytes);
    return errnum;
}

static enum rf_folder_way tell(struct walk *walk, const char *name, const struct stat *st,
                               int errnum)
{
    struct rf_folder_entry entry = {rf_buf_text(&walk->path), name, st, errnum};

    return walk->visit(walk->user, &entry);
}

/* False: the walk is over. */
static bool walk_folder(struct walk *walk, const char *name, bool follow);

static bool walk_entry(struct walk *walk, const char *name)
{
    struct stat st;
    enum rf_folder_way way;

    if (lstat(rf_buf_text(&walk->path), &st) != 0)
        return tell(walk, name, NULL, errno) != RF_FOLDER_END;
    way = tell(walk, name, &st, 0);
    if (way == RF_FOLDER_ON && S_ISDIR(st.st_mode))
        return walk_folder(walk, name, false);
    return way != RF_FOLDER_END;
}

static bool walk_folder(struct walk *walk, const char *name, bool follow)
{
    struct names names = {0};
    size_t size = walk->path.size;
    int fd = open(rf_buf_text(&walk->path),
                  O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
    int errnum = fd < 0 ? errno : 0;
    bool on = true;

    rf_arena_init(&names.arena, NAMES_MAX);
    if (fd >= 0)
        errnum = read_names(fd, &names);
    for (size_t i = 0; i < names.count && on; i++) {
        if (walk->path.data[size - 1] != '/')
            rf_buf_put_u8(&walk->path, '/');
        rf_buf_put_text(&walk->path, names.list[i]);
        on = walk_entry(walk, names.list[i]);
        walk->path.size = size;
    }
    free(names.list);
    rf_arena_release(&names.arena);
    if (on && errnum)
        on = tell(walk, name, NULL, errnum) != RF_FOLDER_END;
    return on;
}

void rf_folder_walk(const char *path,
                    enum rf_folder_way (*visit)(void *user, const struct rf_folder_entry *entry),
                    void *user)
{
    struct walk walk = {.visit = visit, .user = user};
    struct stat st;

    rf_buf_init(&walk.path, (size_t)1 << 20);
    rf_buf_put_text(&walk.path, path);
    if (stat(path, &st) != 0)
        (void)tell(&walk, path, NULL, errno);
    else if (tell(&walk, path, &st, 0) == RF_FOLDER_ON && S_ISDIR(st.st_mode))
        (void)walk_folder(&walk, path, true);
    rf_buf_release(&walk.path);
}
