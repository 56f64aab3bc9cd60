/*
 * writer.h - units into the sink, on a thread of its own (internal to indexer/)
 *
 * SQLite takes most of the time of an index run. Its work is done here while the thread that drives
 * the pipeline reads, maps and checks what comes next:
 *
 *   driving thread   read_changes -> submit -> take_results -> rf_writer_put
 *                          ^                                        |  at most 512 units, 4 MiB of
 *                          |                                        v  output or a unit above that
 *                    rf_writer_take <------ written -------- write(user, units)  writer's thread
 *
 * A unit is the writer's from rf_writer_put until it is taken again. So is the sink: the driving
 * thread may use it only when rf_writer_idle, which rf_writer_settle brings about. Units are
 * written in the order they were put; the first that fails keeps those behind it from being
 * written, until that was told by rf_writer_settle.
 *
 * All functions: the driving thread.
 */
#ifndef RF_INDEXER_WRITER_H
#define RF_INDEXER_WRITER_H

#include "indexer/unit.h"

struct rf_writer;

/* write is called in the writer's thread, with the sink to itself, for units linked by `next`, at
 * most RF_WRITER_GROUP_MAX: it writes them in order and stops at the first that fails. */
#define RF_WRITER_GROUP_MAX 256u
RF_MUST_USE enum rf_status rf_writer_open(struct rf_writer **out,
                                          enum rf_status (*write)(void *user,
                                                                  struct rf_unit *units,
                                                                  struct rf_error *err),
                                          void *user, struct rf_error *err);
void rf_writer_close(struct rf_writer *writer); /* must be idle; NULL is fine */

/* Hand units over; the queue is empty then. Waits while too much is under way. */
void rf_writer_put(struct rf_writer *writer, struct rf_queue *units);

/* Take back what was written or, after a failure, passed over: appended to units. Does not wait.
 * The status is how writing fares; after a failure it stays until rf_writer_settle. */
RF_MUST_USE enum rf_status rf_writer_take(struct rf_writer *writer, struct rf_queue *units,
                                          struct rf_error *err);

/* The same when all that was put is through: idle then, and ready for more whatever happened. */
RF_MUST_USE enum rf_status rf_writer_settle(struct rf_writer *writer, struct rf_queue *units,
                                            struct rf_error *err);

/* Nothing was put that was not taken again. */
bool rf_writer_idle(const struct rf_writer *writer);

#endif
