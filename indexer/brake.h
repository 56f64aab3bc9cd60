/*
 * brake.h - a mapper that only fails does not keep the slow lane for ever (internal to indexer/)
 *
 * A call that hits a limit costs the whole of its limit, twice, and a mapper may loop on every item
 * there is. So a run spends at most a budget of CPU time on slow calls of one mapper version that
 * fail with no success in between; then the mapper is stopped: what waits for it stays parked,
 * other mappers go on. A new run is a new budget.
 *
 * Beside that: a mapper whose calls are killed in the fast lane one after another is not tried
 * there any more, until a call of it in the slow lane turns out to be a fast one.
 *
 * One thread. Mappers are told apart by their address: the pool keeps one per version.
 */
#ifndef RF_INDEXER_BRAKE_H
#define RF_INDEXER_BRAKE_H

#include "mappers/pool.h"

struct rf_brake;

struct rf_brake *rf_brake_new(struct rf_pool *pool, uint64_t budget_ms);
void rf_brake_free(struct rf_brake *brake);

uint64_t rf_brake_budget_ms(const struct rf_brake *brake);

/* A call came back from a lane. True when it used up the budget: say so, once. */
bool rf_brake_note(struct rf_brake *brake, enum rf_pool_lane lane, const struct rf_call *call);

/* Whether the mapper is stopped; by address, or by identity. */
bool rf_brake_stops(const struct rf_brake *brake, const struct rf_mapper *mapper);
bool rf_brake_stops_version(const struct rf_brake *brake, const char *identity);

/* Whether one more slow call of the mapper may be started beside so many under way, so that the
 * budget holds even if all of them fail. */
bool rf_brake_allows(const struct rf_brake *brake, const struct rf_mapper *mapper,
                     size_t under_way);

#endif
