/*
 * holder.c - see holder.h. What a holder writes into a lock file is there only once it has written
 * it, and stays when it dies; /proc/locks is neither late nor stale.
 */
#include "core/holder.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The command line of a process, its program without a folder, in one line; "" when unknown. */
static void command_line(long pid, char *out, size_t size)
{
    char path[64], text[512], *name = text;
    ssize_t got = -1;
    size_t used;
    int fd;

    snprintf(path, sizeof path, "/proc/%ld/cmdline", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        got = read(fd, text, sizeof text - 1);
        close(fd);
    }
    text[got > 0 ? got : 0] = '\0';
    if (strrchr(text, '/'))
        name = strrchr(text, '/') + 1;
    while (got > 0 && text[got - 1] == '\0')
        got--;
    used = got > 0 ? (size_t)(text + got - name) : 0;
    if (used > size - 1)
        used = size - 1;
    for (size_t i = 0; i < used; i++)
        out[i] = name[i] ? name[i] : ' '; /* arguments end with NULs */
    out[used] = '\0';
}

/* "3: FLOCK  ADVISORY  WRITE 4711 fe:00:9982181 0 EOF"; one that waits has "->" in front. */
static long holder_of(const char *line, const struct stat *st)
{
    unsigned major_number, minor_number;
    unsigned long long inode;
    long pid;

    if (sscanf(line, "%*d: FLOCK %*s %*s %ld %x:%x:%llu", &pid, &major_number, &minor_number,
               &inode) != 4)
        return 0;
    if (major_number != major(st->st_dev) || minor_number != minor(st->st_dev) ||
        inode != (unsigned long long)st->st_ino)
        return 0;
    return pid > 0 ? pid : 0;
}

bool rf_holder_find(int fd, char out[RF_HOLDER_SIZE])
{
    FILE *locks = fopen("/proc/locks", "re");
    char *line = NULL, command[RF_HOLDER_SIZE - 32];
    size_t room = 0;
    struct stat st;
    long pid = 0;

    if (!locks)
        return false;
    if (fstat(fd, &st) == 0) {
        while (pid == 0 && getline(&line, &room, locks) > 0)
            pid = holder_of(line, &st);
    }
    free(line);
    fclose(locks);
    if (pid == 0)
        return false;
    command_line(pid, command, sizeof command);
    snprintf(out, RF_HOLDER_SIZE, command[0] ? "%ld (%s)" : "%ld", pid, command);
    return true;
}
