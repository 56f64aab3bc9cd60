/*
 * folder.h - all that stands below a folder, in order of its names
 *
 * Names are ordered by their bytes, and what a folder holds comes where its name stands. Of each
 * folder on the way to where the walk is, the names are held, and nothing else: some 30 bytes and
 * the name for each, while they are sorted. Symlinks are not followed, but the folder itself may
 * be one. No file is kept open between two visits.
 */
#ifndef RF_CMD_FOLDER_H
#define RF_CMD_FOLDER_H

#include <sys/stat.h>

struct rf_folder_entry {
    const char *path, *name;  /* lent during the visit */
    const struct stat *st;    /* NULL: it could not be looked at, or the folder not be read: */
    int errnum;
};

/* What becomes of the walk. SKIP: of a folder, it is not entered. */
enum rf_folder_way { RF_FOLDER_ON, RF_FOLDER_SKIP, RF_FOLDER_END };

/*
 * Visit the folder `path` and everything below; a folder before what it holds, and once more with
 * an errnum, behind what could be read of it, when not all of it could.
 */
void rf_folder_walk(const char *path,
                    enum rf_folder_way (*visit)(void *user, const struct rf_folder_entry *entry),
                    void *user);

#endif
