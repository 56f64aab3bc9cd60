/*
 * watch.h - what a run of an index looks at besides its queue: the pause and the mapper files
 *
 * A thread of its own is told by the kernel when a file changes (inotify), and looks by itself now
 * and then, because not every file system tells.
 */
#ifndef RF_CMD_WATCH_H
#define RF_CMD_WATCH_H

#include "cmd/index_home.h"

struct rf_watch;

/* Note how things are, and watch from then on: whether the index is paused and, with mappers, the
 * files that its mappers are made of. Both are lent until rf_watch_close. */
struct rf_watch *rf_watch_open(struct rf_cli *cli, const struct rf_index_home *index, bool mappers);
void rf_watch_close(struct rf_watch *watch); /* no call comes afterwards; NULL is fine */

/* Whether the index was paused when the watch was opened. */
bool rf_watch_paused(const struct rf_watch *watch);

/* Whether something is no longer as it was then. */
bool rf_watch_changed(struct rf_watch *watch);

/* What to call when that is so, once, from the watch's thread (or at once, when it is so already);
 * NULL: nothing. When it returns, what was set before is not being called. */
void rf_watch_call(struct rf_watch *watch, void (*changed)(void *user), void *user);

/* Wait until something changed or a signal asked to stop. */
void rf_watch_wait(struct rf_watch *watch);

#endif
