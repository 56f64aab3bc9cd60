/*
 * index_all.h - one command on every index of the home, each in a process of its own
 */
#ifndef RF_CMD_INDEX_ALL_H
#define RF_CMD_INDEX_ALL_H

#include "cmd/cli.h"

#define RF_ONE_OF_ALL "REFUGE_ONE_OF_ALL" /* in the environment of those processes */

/*
 * Run this program once more for each name, with the command line of this process and the name
 * behind it: one after another, or all at the same time, their words then prefixed by their names.
 * So an index that fails, waits for its sink or runs out of memory costs itself only. SIGINT and
 * SIGTERM are passed on. With --json the end of each is an object of type index, and the summary
 * counts them. Answers an exit code: that of the first that failed, else
 * RF_EXIT_SET_ASIDE when one of them had it.
 */
int rf_index_all(struct rf_cli *cli, char *const *names, size_t count, bool together);

#endif
