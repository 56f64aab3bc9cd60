/* brake.c - see brake.h */
#include "indexer/brake.h"

#include <stdlib.h>
#include <string.h>

#include "core/control.h"

#define MAPPERS_MAX 256    /* of the lanes that a run drives; never more than a few lanes' */
#define KILLS_IN_A_ROW 16u /* in the fast lane, before a mapper counts as slow */
#define FAST_US 100000u    /* a slow call below this belongs into the fast lane */
#define TRIES 2u           /* of a call that hits a limit */

struct watched {
    const struct rf_mapper *mapper;
    uint64_t failed_us; /* by slow calls since the last that did not fail */
    unsigned kills;     /* in the fast lane since the last call that was not */
    bool slow;          /* the fast lane does not try it */
};

struct rf_brake {
    struct rf_pool *pool;
    uint64_t budget_us;
    struct watched list[MAPPERS_MAX];
    size_t count;
};

struct rf_brake *rf_brake_new(struct rf_pool *pool, uint64_t budget_ms)
{
    struct rf_brake *brake = calloc(1, sizeof *brake);

    if (!brake)
        return NULL;
    brake->pool = pool;
    brake->budget_us = budget_ms * 1000;
    return brake;
}

void rf_brake_free(struct rf_brake *brake)
{
    free(brake);
}

uint64_t rf_brake_budget_ms(const struct rf_brake *brake)
{
    return brake->budget_us / 1000;
}

static const struct watched *find(const struct rf_brake *brake, const struct rf_mapper *mapper)
{
    for (size_t i = 0; i < brake->count; i++)
        if (brake->list[i].mapper == mapper)
            return &brake->list[i];
    return NULL;
}

/* The one of this mapper, made if there is room; NULL: not watched. */
static struct watched *watch(struct rf_brake *brake, const struct rf_mapper *mapper)
{
    const struct watched *found = find(brake, mapper);

    if (found)
        return &brake->list[found - brake->list];
    if (brake->count == MAPPERS_MAX)
        return NULL;
    brake->list[brake->count].mapper = mapper;
    return &brake->list[brake->count++];
}

static void set_slow(struct rf_brake *brake, struct watched *watched, bool slow)
{
    if (watched->slow != slow)
        rf_pool_set_slow(brake->pool, watched->mapper, slow);
    watched->slow = slow;
}

static void note_fast(struct rf_brake *brake, struct watched *watched, const struct rf_call *call)
{
    if (call->outcome != RF_CALL_SLOW)
        watched->kills = 0;
    else if (++watched->kills == KILLS_IN_A_ROW)
        set_slow(brake, watched, true);
}

bool rf_brake_note(struct rf_brake *brake, enum rf_pool_lane lane, const struct rf_call *call)
{
    bool failed = call->outcome == RF_CALL_FAILED || call->outcome == RF_CALL_LIMIT, before;
    struct watched *watched;

    if (lane == RF_LANE_FAST && call->outcome != RF_CALL_SLOW && !find(brake, call->mapper))
        return false; /* the usual case: nothing to remember */
    watched = watch(brake, call->mapper);
    if (!watched)
        return false;
    if (lane == RF_LANE_FAST) {
        note_fast(brake, watched, call);
        return false;
    }
    if (call->outcome != RF_CALL_LIMIT && call->cpu_us < FAST_US) {
        watched->kills = 0;
        set_slow(brake, watched, false);
    }
    before = rf_brake_stops(brake, call->mapper);
    watched->failed_us = failed ? watched->failed_us + call->cpu_us : 0;
    return !before && rf_brake_stops(brake, call->mapper);
}

bool rf_brake_stops(const struct rf_brake *brake, const struct rf_mapper *mapper)
{
    const struct watched *watched = find(brake, mapper);

    return watched && watched->failed_us >= brake->budget_us && RF_SAFEGUARD("slow-budget");
}

bool rf_brake_stops_version(const struct rf_brake *brake, const char *identity)
{
    for (size_t i = 0; i < brake->count; i++)
        if (strcmp(rf_mapper_identity(brake->list[i].mapper), identity) == 0 &&
            rf_brake_stops(brake, brake->list[i].mapper))
            return true;
    return false;
}

bool rf_brake_allows(const struct rf_brake *brake, const struct rf_mapper *mapper,
                     size_t under_way)
{
    uint64_t most_us = (uint64_t)rf_mapper_decl(mapper)->limits.cpu_ms * 1000 * TRIES;
    const struct watched *watched = find(brake, mapper);
    uint64_t failed_us = watched ? watched->failed_us : 0;

    if (rf_brake_stops(brake, mapper))
        return false;
    return under_way == 0 || failed_us + under_way * most_us < brake->budget_us ||
           !RF_SAFEGUARD("slow-budget");
}
