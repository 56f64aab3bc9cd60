/*
 * mapper_state.h - how the mapper files of an index stand against what it runs
 */
#ifndef RF_CMD_MAPPER_STATE_H
#define RF_CMD_MAPPER_STATE_H

#include "cmd/index_home.h"
#include "mappers/pool.h"

/* Load the mapper files of the index in the jail and tell of each mapper what the next run will do
 * with it: as lines of text, and as the member "mappers" of the object being written. lanes as
 * rf_sink_lanes gives them. */
void rf_mapper_states_print(struct rf_cli *cli, const struct rf_index_home *index,
                            struct rf_sink *sink, const struct rf_sink_lane *lanes, size_t count);

/* Load the version of a mapper that the index runs: its live lane keeps it. RF_NOT_FOUND: it runs
 * none of that name. */
RF_MUST_USE enum rf_status rf_mapper_running(struct rf_mapper **out, struct rf_pool *pool,
                                             const struct rf_index_home *index, const char *name,
                                             struct rf_error *err);

#endif
