/*
 * index.c - one index: which lanes it needs, and driving them
 *
 * At open the mappers asked for are compared with those of the live lane, by name and identity.
 * What changed gets a lane beside the live one; a lane that was being built for the same versions
 * is taken up again, any other is dropped. When a mapper that cuts parts came, went or changed, the
 * lane covers every mapper, because other parts mean other items; else it covers what changed, and
 * runs the splitters along for their parts alone.
 *
 * The live lane always goes first: it is caught up before a lane beside it gets a slice.
 */
#include "indexer/index.h"

#include <assert.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "indexer/index_internal.h"
#include "core/utf8.h"
#include "indexer/pipeline.h"
#include "mappers/media.h"
#include "sinks/query.h"
#include "sinks/table_names.h"

#define BATCH_ITEMS 100000u
#define BATCH_MS 5000u
#define PARTS_MAX 1000000u
#define SLOW_BUDGET_MS 600000u
#define SLICE_MS 2000u             /* of a lane beside the live one, while following */
#define RETRY_FIRST_MS 200u        /* back-off while the sink or the store cannot be reached */
#define RETRY_MAX_MS 30000u

struct rf_index {
    struct rf_index_options options;
    struct rf_store *store;
    struct rf_unit_reader reader;
    struct rf_sink *sink;
    struct rf_pool *pool;
    struct rf_brake *brake;
    struct rf_arena arena;         /* names, lanes as they are now */
    struct rf_arena lanes_arena;
    struct rf_plan plan;           /* of versions side by side (plan.h) */
    bool given_plan;               /* by a verify: nothing of it is kept in the sink */
    struct rf_policy policy;
    struct rf_mapper **wanted;     /* in the order asked for, */
    const char **wanted_paths;     /* each from there, while they are loaded */
    size_t wanted_count, broken;
    struct rf_sink_lane *lanes;    /* live first; at most one beside it */
    size_t lane_count;
    struct rf_pipeline *live, *beside;
    uint64_t beside_until;         /* where the lane beside may go: where the live lane stands */
    const char **removed;          /* mappers that leave with the next swap */
    size_t removed_count;
    struct rf_index_progress progress;
    const struct rf_sample *sample; /* verify: of the store, or NULL */
    uint64_t until_seq;            /* verify: stop there; UINT64_MAX */
    atomic_int stop;
    int stopped;                   /* eventfd: readable once stop is set */
    _Atomic(struct rf_pipeline *) waiting; /* whom rf_index_stop wakes */
};

static void warn(struct rf_index *index, const char *line)
{
    if (index->options.hooks.warn)
        index->options.hooks.warn(index->options.hooks.user, line);
}

static const char *name_of(const struct rf_mapper *mapper)
{
    return rf_mapper_decl(mapper)->name;
}

static struct rf_sink_lane *live_lane(struct rf_index *index)
{
    return index->lane_count && index->lanes[0].live ? &index->lanes[0] : NULL;
}

static struct rf_sink_lane *lane_beside(struct rf_index *index)
{
    for (size_t i = 0; i < index->lane_count; i++) {
        if (!index->lanes[i].live)
            return &index->lanes[i];
    }
    return NULL;
}

static const struct rf_sink_mapper *find_in_lane(const struct rf_sink_lane *lane, const char *name)
{
    for (size_t i = 0; lane && i < lane->mapper_count; i++) {
        if (strcmp(lane->mappers[i].decl->name, name) == 0)
            return &lane->mappers[i];
    }
    return NULL;
}

static struct rf_mapper *find_wanted(const struct rf_index *index, const char *name)
{
    for (size_t i = 0; i < index->wanted_count; i++) {
        if (strcmp(name_of(index->wanted[i]), name) == 0)
            return index->wanted[i];
    }
    return NULL;
}

static enum rf_status read_lanes(struct rf_index *index, struct rf_error *err)
{
    rf_arena_clear(&index->lanes_arena);
    index->lanes = NULL;
    index->lane_count = 0;
    return rf_sink_lanes(index->sink, &index->lanes_arena, &index->lanes, &index->lane_count, err);
}

/* ---- the plan ---- */

static uint64_t seq_of(const char *position)
{
    struct rf_cursor at = {0};

    return position[0] && rf_cursor_parse(&at, position, NULL) == RF_OK ? at.seq : 0;
}

static enum rf_status write_plan(struct rf_index *index, struct rf_error *err)
{
    return index->given_plan ? RF_OK : rf_plan_write(index->sink, &index->plan, err);
}

/* Chains that are over go. */
static enum rf_status settle_plan(struct rf_index *index, struct rf_error *err)
{
    struct rf_plan before = {.mappers = index->plan.mappers, .count = index->plan.count};
    enum rf_status status;

    if (index->given_plan)
        return RF_OK;
    before.mappers = rf_arena_alloc(&index->arena, (before.count + 1) * sizeof *before.mappers);
    if (before.count)
        memcpy(before.mappers, index->plan.mappers, before.count * sizeof *before.mappers);
    for (size_t i = 0; i < before.count; i++) {
        if (!rf_plan_holds(before.mappers[i], index->lanes, index->lane_count))
            rf_plan_remove(&index->plan, before.mappers[i]->name);
    }
    if (index->plan.count == before.count)
        return RF_OK;
    status = write_plan(index, err);
    return status == RF_OK ? rf_plan_forget_texts(index->sink, &before, &index->plan, err) : status;
}

static enum rf_status read_plan(struct rf_index *index, struct rf_error *err)
{
    enum rf_status status;

    if (index->given_plan)
        return RF_OK;
    status = rf_plan_read(index->sink, &index->arena, &index->plan, err);
    if (status == RF_OK)
        status = settle_plan(index, err);
    if (status == RF_OK)
        status = rf_plan_load_texts(index->sink, &index->arena, &index->plan, err);
    if (status == RF_CORRUPT && index->options.forget) {
        rf_error_clear(err);
        index->plan.count = 0;
        status = write_plan(index, err);
    }
    return status;
}

/* The newest version of a mapper of the live lane. */
static const char *newest_identity(const struct rf_index *index,
                                   const struct rf_sink_mapper *running)
{
    const struct rf_plan_mapper *chain = rf_plan_find(&index->plan, running->decl->name);

    return chain ? rf_plan_newest(chain)->identity : running->identity;
}

static struct rf_bytes newest_bundle(const struct rf_index *index,
                                     const struct rf_sink_mapper *running)
{
    const struct rf_plan_mapper *chain = rf_plan_find(&index->plan, running->decl->name);

    return chain && chain->count > 1 ? rf_plan_newest(chain)->bundle : running->bundle;
}

/* The chain by which a lane maps one of its mappers, or NULL. */
static const struct rf_plan_mapper *chain_in_lane(const struct rf_index *index,
                                                  const struct rf_sink_lane *lane,
                                                  const struct rf_sink_mapper *mapper)
{
    const struct rf_plan_mapper *chain = rf_plan_find(&index->plan, mapper->decl->name);

    return chain && !mapper->edges_only && chain->ends != lane->id &&
                   strcmp(chain->versions[0].identity, mapper->identity) == 0
               ? chain : NULL;
}

/* ---- mappers ---- */

/* A mapper that does not load: its running version goes on when the index has one. The name it had
 * is kept as a fact under its path. */
static enum rf_status keep_running_version(struct rf_index *index, const char *path,
                                           const struct rf_error *why, struct rf_error *err)
{
    const struct rf_sink_mapper *running = NULL;
    const char *name = NULL;
    char fact[PATH_MAX_FACT], line[RF_ERROR_SIZE + 200];
    enum rf_status status;

    index->broken++;
    snprintf(fact, sizeof fact, "mapper:%s", path);
    status = rf_sink_get_fact(index->sink, &index->arena, fact, &name, err);
    if (status != RF_OK && status != RF_NOT_FOUND)
        return status;
    rf_error_clear(err);
    if (status == RF_OK)
        running = find_in_lane(live_lane(index), name);
    if (!running) {
        snprintf(line, sizeof line, "mapper '%s' does not load: %s, left out", path, why->message);
        warn(index, line);
        return RF_OK;
    }
    snprintf(line, sizeof line, "mapper '%s' does not load: %s; the version before goes on", path,
             why->message);
    warn(index, line);
    index->wanted_paths[index->wanted_count] = path;
    return rf_pool_load_bundle(index->pool, newest_bundle(index, running),
                               &index->wanted[index->wanted_count++], err);
}

static enum rf_status load_mapper(struct rf_index *index, const char *path, struct rf_error *err)
{
    struct rf_mapper *mapper;
    struct rf_error why = {0};
    char fact[PATH_MAX_FACT], line[RF_ERROR_SIZE];
    enum rf_status status = rf_pool_load(index->pool, path, &mapper, &why);

    if (status == RF_UNAVAILABLE) { /* no worker can be started: not the mapper's fault */
        if (err)
            *err = why;
        return status;
    }
    if (status != RF_OK)
        return keep_running_version(index, path, &why, err);
    if (find_wanted(index, name_of(mapper))) {
        snprintf(line, sizeof line, "mapper '%s' has the name '%s', which another has, left out",
                 path, name_of(mapper));
        warn(index, line);
        index->broken++;
        return RF_OK;
    }
    index->wanted_paths[index->wanted_count] = path;
    index->wanted[index->wanted_count++] = mapper;
    snprintf(fact, sizeof fact, "mapper:%s", path);
    return rf_sink_set_fact(index->sink, fact, name_of(mapper), err);
}

static bool has_changed(const struct rf_index *index, const struct rf_sink_lane *live, size_t i)
{
    const struct rf_sink_mapper *running = find_in_lane(live, name_of(index->wanted[i]));

    return !running ||
           strcmp(newest_identity(index, running), rf_mapper_identity(index->wanted[i])) != 0;
}

/* Whether a lane beside the live one maps a mapper with a chain by its newest version alone. */
static bool forgets(struct rf_index *index, const struct rf_plan_mapper *chain)
{
    const struct rf_sink_lane *beside = lane_beside(index);

    return index->options.forget || (beside && chain->ends == beside->id);
}

enum rf_status rf_index_room_take(struct rf_index_room *room, const struct rf_decl *decl,
                                  struct rf_error *why)
{
    enum rf_status status;

    if (room->count == RF_LANE_MAPPERS_MAX)
        return rf_error_set(why, RF_LIMIT, "an index has room for %u mappers",
                            RF_LANE_MAPPERS_MAX);
    for (size_t i = 0; i < room->count; i++) {
        if (strcmp(room->taken[i]->name, decl->name) == 0)
            return rf_error_set(why, RF_INVALID, "another mapper has the name '%s'", decl->name);
    }
    room->taken[room->count] = decl;
    status = rf_table_names_check(room->taken, room->count + 1, why);
    room->count += status == RF_OK;
    return status;
}

/* A mapper that cannot be taken goes, or its running version stays when there is one. */
static enum rf_status leave_out(struct rf_index *index, size_t i, struct rf_index_room *room,
                                const struct rf_error *why, struct rf_error *err)
{
    const struct rf_sink_mapper *running = find_in_lane(live_lane(index),
                                                        name_of(index->wanted[i]));
    char line[RF_ERROR_SIZE + 200];
    enum rf_status status = RF_OK;

    index->broken++;
    snprintf(line, sizeof line, "mapper '%s' is left out: %s%s", index->wanted_paths[i],
             why->message, running ? "; the version before goes on" : "");
    warn(index, line);
    index->wanted[i] = NULL;
    if (running)
        status = rf_pool_load_bundle(index->pool, newest_bundle(index, running),
                                     &index->wanted[i], err);
    return running && status == RF_OK
               ? rf_index_room_take(room, rf_mapper_decl(index->wanted[i]), err)
               : status;
}

/* What runs as it is goes first: it is the newcomer that gives way, whatever its file is called. */
static enum rf_status leave_out_misfits(struct rf_index *index, struct rf_error *err)
{
    struct rf_index_room room = {.count = 0};
    enum rf_status status = RF_OK;
    size_t kept = 0;

    for (int changed = 0; changed <= 1; changed++) {
        for (size_t i = 0; i < index->wanted_count && status == RF_OK; i++) {
            struct rf_error why = {0};

            if (index->wanted[i] && has_changed(index, live_lane(index), i) == (bool)changed &&
                rf_index_room_take(&room, rf_mapper_decl(index->wanted[i]), &why) != RF_OK)
                status = leave_out(index, i, &room, &why, err);
        }
    }
    for (size_t i = 0; i < index->wanted_count; i++) {
        if (index->wanted[i])
            index->wanted[kept++] = index->wanted[i];
    }
    index->wanted_count = kept;
    return status;
}

static enum rf_status load_mappers(struct rf_index *index, struct rf_error *err)
{
    size_t most = index->options.mapper_count + 1;
    enum rf_status status = RF_OK;

    index->wanted = rf_arena_alloc(&index->arena, most * sizeof *index->wanted);
    index->wanted_paths = rf_arena_alloc(&index->arena, most * sizeof *index->wanted_paths);
    for (size_t i = 0; i < index->options.mapper_count && status == RF_OK; i++)
        status = load_mapper(index, index->options.mappers[i], err);
    if (status == RF_OK)
        status = leave_out_misfits(index, err);
    if (status == RF_OK && index->wanted_count == 0)
        status = rf_error_set(err, RF_INVALID, "%s, so there is nothing to index with",
                              index->options.mapper_count
                                  ? "no mapper loads"
                                  : "no mapper is in use ('refuge mapper new NAME' begins one)");
    return status;
}

/* ---- which lanes ---- */

/* Whether every mapper must be built again, because parts may change. */
static bool parts_may_change(const struct rf_index *index, const struct rf_sink_lane *live)
{
    for (size_t i = 0; i < index->wanted_count; i++) {
        const struct rf_sink_mapper *running = find_in_lane(live, name_of(index->wanted[i]));

        if (has_changed(index, live, i) &&
            (rf_mapper_decl(index->wanted[i])->splits || (running && running->decl->splits)))
            return true;
    }
    for (size_t i = 0; i < live->mapper_count; i++) {
        if (live->mappers[i].decl->splits && !find_wanted(index, live->mappers[i].decl->name))
            return true;
    }
    return false;
}

static struct rf_sink_mapper sink_mapper(const struct rf_mapper *mapper, bool edges_only)
{
    return (struct rf_sink_mapper){.identity = rf_mapper_identity(mapper),
                                   .bundle = rf_mapper_bundle(mapper),
                                   .decl = rf_mapper_decl(mapper),
                                   .edges_only = edges_only};
}

/* A mapper as a lane beside the live one takes it up: by its chain when that goes on. */
static struct rf_sink_mapper mapper_beside(struct rf_index *index, const struct rf_sink_lane *live,
                                           size_t i)
{
    const struct rf_plan_mapper *chain = rf_plan_find(&index->plan, name_of(index->wanted[i]));

    if (chain && !has_changed(index, live, i) && !forgets(index, chain))
        return *find_in_lane(live, chain->name);
    return sink_mapper(index->wanted[i], false);
}

/* The mappers a lane beside the live one needs: those that changed, or all, then the splitters. */
static size_t needed_mappers(struct rf_index *index, const struct rf_sink_lane *live, bool full,
                             struct rf_sink_mapper *out)
{
    size_t count = 0;

    for (size_t i = 0; i < index->wanted_count; i++) {
        if (full || has_changed(index, live, i))
            out[count++] = mapper_beside(index, live, i);
    }
    for (size_t i = 0; i < index->wanted_count && !full && count; i++) {
        if (!has_changed(index, live, i) && rf_mapper_decl(index->wanted[i])->splits)
            out[count++] = sink_mapper(index->wanted[i], true);
    }
    return count;
}

static bool same_mappers(const struct rf_sink_lane *lane, const struct rf_sink_mapper *mappers,
                         size_t count, bool full)
{
    if (lane->mapper_count != count || lane->full != full)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(lane->mappers[i].identity, mappers[i].identity) != 0 ||
            lane->mappers[i].edges_only != mappers[i].edges_only)
            return false;
    }
    return true;
}

static void find_removed(struct rf_index *index, const struct rf_sink_lane *live)
{
    index->removed = rf_arena_alloc(&index->arena,
                                    (live->mapper_count + 1) * sizeof *index->removed);
    index->removed_count = 0;
    for (size_t i = 0; i < live->mapper_count; i++) {
        const char *name = live->mappers[i].decl->name;

        if (!find_wanted(index, name))
            index->removed[index->removed_count++] =
                rf_arena_copy(&index->arena, name, strlen(name));
    }
}

/* A lane without mappers stands at once where the live lane stands: its swap removes mappers. */
static enum rf_status move_empty_lane(struct rf_index *index, uint32_t lane, const char *to,
                                      struct rf_error *err)
{
    enum rf_status status;

    if (!to[0])
        return RF_OK;
    status = rf_sink_begin(index->sink, lane, "", err);
    return status == RF_OK ? rf_sink_commit(index->sink, to, err) : status;
}

/* A lane that was built in vain. What it would have ended goes on: that is noted first. */
static enum rf_status drop_beside(struct rf_index *index, struct rf_error *err)
{
    uint32_t lane = lane_beside(index)->id;
    bool ends = false;
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < index->plan.count; i++) {
        struct rf_plan_mapper *chain = index->plan.mappers[i];

        ends |= chain->ends != 0;
        chain->ends = 0;
    }
    if (ends)
        status = write_plan(index, err);
    return status == RF_OK ? rf_sink_lane_drop(index->sink, lane, err) : status;
}

/* Note which chains end with the swap of the lane beside the live one. */
static enum rf_status note_ends(struct rf_index *index, uint32_t lane,
                                const struct rf_sink_mapper *mappers, const bool *by_chain,
                                size_t count, struct rf_error *err)
{
    bool changed = false;

    for (size_t i = 0; i < count; i++) {
        struct rf_plan_mapper *chain = rf_plan_find(&index->plan, mappers[i].decl->name);
        uint32_t ends = by_chain[i] ? 0 : lane;

        if (!chain || mappers[i].edges_only || chain->ends == ends)
            continue;
        chain->ends = ends;
        changed = true;
    }
    return changed ? write_plan(index, err) : RF_OK;
}

/* ---- policies ---- */

static uint64_t live_seq(struct rf_index *index)
{
    const struct rf_sink_lane *live = live_lane(index);

    return live ? seq_of(live->position) : 0;
}

/* A version that cannot come under its policy: the one before goes on, or it is left out. */
static enum rf_status refuse(struct rf_index *index, size_t i, const char *why,
                             struct rf_error *err)
{
    const char *name = name_of(index->wanted[i]);
    const struct rf_sink_mapper *running = find_in_lane(live_lane(index), name);
    char line[RF_ERROR_SIZE], shown[RF_SHORT_SIZE];

    index->broken++;
    snprintf(line, sizeof line,
             "mapper '%s' cannot come under policy '%s': %s; %s; 'refuge index run "
             "--policy full' maps everything with the new one",
             name, rf_utf8_short(shown, index->options.policy), why,
             running ? "the version before goes on" : "it is left out");
    warn(index, line);
    if (running)
        return rf_pool_load_bundle(index->pool, newest_bundle(index, running), &index->wanted[i],
                                   err);
    memmove(index->wanted + i, index->wanted + i + 1,
            (index->wanted_count - i - 1) * sizeof(*index->wanted));
    index->wanted_count--;
    return RF_OK;
}

static void add_version(struct rf_index *index, struct rf_plan_mapper *chain, const char *identity,
                        const struct rf_policy *policy, uint64_t after)
{
    struct rf_plan_version *version = &chain->versions[chain->count++];

    *version = (struct rf_plan_version){.policy = *policy, .after = after};
    if (policy->pattern)
        version->policy.pattern =
            rf_arena_copy(&index->arena, policy->pattern, strlen(policy->pattern));
    snprintf(version->identity, sizeof version->identity, "%s", identity);
    if (policy->kind == RF_POLICY_FORWARD)
        version->passed = after;
    else if (policy->kind == RF_POLICY_SINCE_SEQ && policy->seq > 0)
        version->passed = policy->seq - 1 < after ? policy->seq - 1 : after;
}

/* A mapper that is new to the index: its empty tables join the live ones. */
static enum rf_status adopt_mapper(struct rf_index *index, size_t i, struct rf_error *err)
{
    struct rf_sink_mapper mapper = sink_mapper(index->wanted[i], false);
    struct rf_sink_lane *live;
    struct rf_plan_mapper *chain;
    uint32_t lane = 0;
    enum rf_status status = lane_beside(index) ? drop_beside(index, err) : RF_OK;

    if (status == RF_OK)
        status = read_lanes(index, err);
    if (status != RF_OK)
        return status;
    live = live_lane(index);
    assert(live); /* only what has a live lane takes a mapper up */
    chain = rf_plan_add(&index->plan, &index->arena, name_of(index->wanted[i]));
    chain->count = 0;
    add_version(index, chain, mapper.identity, &index->policy, live_seq(index));
    status = write_plan(index, err);
    if (status == RF_OK)
        status = rf_sink_lane_begin(index->sink, &mapper, 1, false, &lane, err);
    if (status == RF_OK)
        status = move_empty_lane(index, lane, live->position, err);
    if (status == RF_OK)
        status = rf_sink_lane_ready(index->sink, lane, err);
    if (status == RF_OK)
        status = rf_sink_lane_swap(index->sink, lane, NULL, 0, err);
    return status == RF_OK ? read_lanes(index, err) : status;
}

static bool lane_covers(const struct rf_sink_lane *lane, const char *name)
{
    for (size_t i = 0; i < lane->mapper_count; i++) {
        if (!lane->mappers[i].edges_only && strcmp(lane->mappers[i].decl->name, name) == 0)
            return true;
    }
    return false;
}

/* A new version of a mapper: the plan names it, and from then on it maps what comes. */
static enum rf_status adopt_version(struct rf_index *index, size_t i, struct rf_error *err)
{
    const char *name = name_of(index->wanted[i]);
    const struct rf_sink_mapper *running = find_in_lane(live_lane(index), name);
    struct rf_plan_mapper *chain = rf_plan_find(&index->plan, name);
    struct rf_bytes bundle = rf_mapper_bundle(index->wanted[i]);
    struct rf_error why = {0};
    const char *differs;
    enum rf_status status;

    if (!rf_plan_same_tables(running->decl, rf_mapper_decl(index->wanted[i]), &differs))
        return refuse(index, i, differs, err);
    if (chain && chain->count == RF_PLAN_VERSIONS_MAX)
        return refuse(index, i, "16 versions of it are side by side already", err);
    status = rf_plan_keep_text(index->sink, rf_mapper_identity(index->wanted[i]), bundle, &why);
    if (status == RF_INVALID)
        return refuse(index, i, why.message, err);
    if (status != RF_OK)
        return rf_error_set(err, status, "%s", why.message);
    if (lane_beside(index) && lane_covers(lane_beside(index), name)) {
        status = drop_beside(index, err);
        if (status == RF_OK)
            status = read_lanes(index, err);
        if (status != RF_OK)
            return status;
    }
    if (!chain) {
        const struct rf_policy full = {0};

        chain = rf_plan_add(&index->plan, &index->arena, name);
        running = find_in_lane(live_lane(index), name);
        add_version(index, chain, running->identity, &full, 0);
    }
    add_version(index, chain, rf_mapper_identity(index->wanted[i]), &index->policy,
                live_seq(index));
    chain->versions[chain->count - 1].bundle = bundle;
    return write_plan(index, err);
}

/* Under a policy that is not full, what changed or came needs no lane to be built. */
static enum rf_status adopt(struct rf_index *index, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    if (index->policy.kind == RF_POLICY_FULL || index->options.forget)
        return RF_OK;
    for (size_t i = index->wanted_count; i-- > 0 && status == RF_OK;) {
        const char *why;

        if (!has_changed(index, live_lane(index), i))
            continue;
        if (find_in_lane(live_lane(index), name_of(index->wanted[i])))
            status = adopt_version(index, i, err);
        else if (rf_mapper_decl(index->wanted[i])->splits)
            status = rf_plan_same_tables(rf_mapper_decl(index->wanted[i]),
                                         rf_mapper_decl(index->wanted[i]), &why)
                         ? RF_OK : refuse(index, i, why, err);
        else
            status = adopt_mapper(index, i, err);
    }
    return status;
}

/* ---- settling ---- */

static enum rf_status settle_beside(struct rf_index *index, struct rf_error *err)
{
    struct rf_sink_lane *live = live_lane(index), *beside = lane_beside(index);
    struct rf_sink_mapper *mappers = rf_arena_alloc(
        &index->arena, (2 * index->wanted_count + 1) * sizeof *mappers);
    bool full = parts_may_change(index, live), changed;
    bool *by_chain = rf_arena_alloc(&index->arena, 2 * index->wanted_count + 1);
    enum rf_status status = RF_OK;
    uint32_t lane = beside ? beside->id : 0;
    size_t count;

    find_removed(index, live);
    if (index->options.rebuild || (beside && beside->full && !index->options.rebuild && !full &&
                                   same_mappers(beside, mappers,
                                                needed_mappers(index, live, true, mappers), true)))
        full = true; /* asked for now, or asked for before and not yet finished */
    count = needed_mappers(index, live, full, mappers);
    for (size_t i = 0; i < count; i++) {
        const struct rf_sink_mapper *running = find_in_lane(live, mappers[i].decl->name);

        by_chain[i] = running && running->decl == mappers[i].decl;
    }
    changed = count || index->removed_count;
    if (beside && (!changed || !same_mappers(beside, mappers, count, full))) {
        status = drop_beside(index, err); /* what was read of the lanes is good until below */
        beside = NULL;
    }
    if (status == RF_OK && changed && !beside) {
        status = rf_sink_lane_begin(index->sink, mappers, count, full, &lane, err);
        if (status == RF_OK && count == 0)
            status = move_empty_lane(index, lane, live->position, err);
    }
    if (status == RF_OK && changed)
        status = note_ends(index, lane, mappers, by_chain, count, err);
    return status == RF_OK ? read_lanes(index, err) : status;
}

static enum rf_status settle_lanes(struct rf_index *index, struct rf_error *err)
{
    struct rf_sink_mapper *mappers;
    uint32_t lane;
    enum rf_status status;

    if (live_lane(index)) {
        status = adopt(index, err);
        return status == RF_OK ? settle_beside(index, err) : status;
    }
    mappers = rf_arena_alloc(&index->arena, (index->wanted_count + 1) * sizeof *mappers);
    for (size_t i = 0; i < index->wanted_count; i++)
        mappers[i] = sink_mapper(index->wanted[i], false);
    status = rf_sink_lane_begin(index->sink, mappers, index->wanted_count, true, &lane, err);
    return status == RF_OK ? read_lanes(index, err) : status;
}

/* ---- pipelines ---- */

/* The pool's mapper for one of a lane: as wanted when the identity is the same, else from the text
 * kept in the sink. */
static enum rf_status mapper_of_lane(struct rf_index *index, const struct rf_sink_mapper *kept,
                                     const struct rf_mapper **out, struct rf_error *err)
{
    struct rf_mapper *loaded;
    enum rf_status status;

    for (size_t i = 0; i < index->wanted_count; i++) {
        if (strcmp(rf_mapper_identity(index->wanted[i]), kept->identity) == 0) {
            *out = index->wanted[i];
            return RF_OK;
        }
    }
    status = rf_pool_load_bundle(index->pool, kept->bundle, &loaded, err);
    if (status == RF_OK && strcmp(rf_mapper_identity(loaded), kept->identity) != 0)
        return rf_error_set(err, RF_CORRUPT,
                            "the text of mapper '%s' kept in index '%s' is damaged: it hashes to "
                            "%.12s, not %.12s; run 'refuge index rebuild'",
                            kept->decl->name, index->options.name, rf_mapper_identity(loaded),
                            kept->identity);
    if (status == RF_OK)
        *out = loaded;
    return status;
}

/* All versions of a chain, the base from what the lane keeps. */
static enum rf_status load_chain(struct rf_index *index, const struct rf_plan_mapper *chain,
                                 const struct rf_sink_mapper *kept, struct rf_pipeline_mapper *out,
                                 struct rf_error *err)
{
    const struct rf_mapper **versions =
        rf_arena_alloc(&index->arena, chain->count * sizeof(*versions));
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < chain->count && status == RF_OK; i++) {
        struct rf_sink_mapper version = {.identity = chain->versions[i].identity,
                                         .bundle = i ? chain->versions[i].bundle : kept->bundle,
                                         .decl = kept->decl};

        status = mapper_of_lane(index, &version, &versions[i], err);
    }
    out->chain = chain;
    out->versions = versions;
    if (status == RF_OK)
        out->mapper = versions[chain->count - 1];
    return status;
}

static enum rf_status open_pipeline(struct rf_index *index, const struct rf_sink_lane *lane,
                                    struct rf_pipeline **out, struct rf_error *err)
{
    struct rf_pipeline_mapper *mappers =
        rf_arena_alloc(&index->arena, (lane->mapper_count + 1) * sizeof *mappers);
    struct rf_pipeline_options options = {
        .store = index->store,
        .reader = &index->reader,
        .pool = index->pool,
        .sink = index->sink,
        .brake = index->brake,
        .lane = lane->id,
        .position = lane->position,
        .mappers = mappers,
        .mapper_count = lane->mapper_count,
        .building = !lane->live,
        .partial = !lane->live && !lane->full,
        .batch_items = index->options.batch_items ? index->options.batch_items : BATCH_ITEMS,
        .batch_ms = index->options.batch_ms ? index->options.batch_ms : BATCH_MS,
        .shuffle_seed = index->options.shuffle_seed,
        .parts_max = index->options.parts_max ? index->options.parts_max : PARTS_MAX,
        .sample = index->sample,
        .stop = &index->stop,
        .scratch = index->until_seq != UINT64_MAX,
        .hooks = &index->options.hooks,
        .progress = &index->progress,
    };
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < lane->mapper_count && status == RF_OK; i++) {
        const struct rf_plan_mapper *chain = chain_in_lane(index, lane, &lane->mappers[i]);

        mappers[i] = (struct rf_pipeline_mapper){.edges_only = lane->mappers[i].edges_only};
        status = chain ? load_chain(index, chain, &lane->mappers[i], &mappers[i], err)
                       : mapper_of_lane(index, &lane->mappers[i], &mappers[i].mapper, err);
    }
    if (status == RF_OK)
        status = rf_pipeline_open(out, &options, err);
    return status;
}

static void close_pipelines(struct rf_index *index)
{
    rf_pipeline_close(index->live);
    rf_pipeline_close(index->beside);
    index->live = index->beside = NULL;
}

/* (Re)open the pipelines of the lanes as they are now: all of them, or none. */
static enum rf_status open_pipelines(struct rf_index *index, struct rf_error *err)
{
    enum rf_status status;

    close_pipelines(index);
    status = open_pipeline(index, live_lane(index), &index->live, err);
    if (status == RF_OK && lane_beside(index))
        status = open_pipeline(index, lane_beside(index), &index->beside, err);
    if (status != RF_OK)
        close_pipelines(index);
    return status;
}

/* ---- pool source: what mappers read while they run ---- */

static enum rf_status read_item(void *user, struct rf_item *item, uint64_t offset, void *out,
                                size_t size, size_t *got, struct rf_error *err)
{
    struct rf_index *index = user;

    return rf_pipeline_read_item(&index->reader, item, offset, out, size, got, err);
}

static enum rf_status need_stat(void *user, const struct rf_blobref *ref, uint64_t *size,
                                struct rf_error *err)
{
    struct rf_index *index = user;
    struct rf_stat stat;
    enum rf_status status = rf_store_stat(index->store, ref, &stat, err);

    if (status == RF_OK)
        *size = stat.size;
    return status;
}

static enum rf_status need_read(void *user, const struct rf_blobref *ref, uint64_t offset,
                                void *out, size_t size, size_t *got, struct rf_error *err)
{
    struct rf_index *index = user;

    return rf_store_read(index->store, ref, offset, out, size, got, err);
}

/* ---- stopped mappers ---- */

static bool is_stopped(const struct rf_index *index, const struct rf_sink_lane *live, size_t m)
{
    const struct rf_plan_mapper *chain = chain_in_lane(index, live, &live->mappers[m]);

    for (size_t i = 0; chain && i < chain->count; i++) {
        if (rf_brake_stops_version(index->brake, chain->versions[i].identity))
            return true;
    }
    return rf_brake_stops_version(index->brake, live->mappers[m].identity);
}

/* What the slow lane of an earlier run gave up on is tried again. */
static enum rf_status forget_stopped(struct rf_index *index, struct rf_error *err)
{
    const struct rf_sink_lane *live = live_lane(index);
    enum rf_status status = RF_OK;

    for (size_t i = 0; i < live->mapper_count && status == RF_OK; i++) {
        char fact[sizeof RF_INDEX_STOPPED + RF_NAME_MAX];

        snprintf(fact, sizeof fact, RF_INDEX_STOPPED "%s", live->mappers[i].decl->name);
        status = rf_sink_set_fact(index->sink, fact, NULL, err);
    }
    return status;
}

/* Note in the index whom the brake stops, for who looks at it while nothing runs. */
static enum rf_status note_stopped(struct rf_index *index, struct rf_error *err)
{
    struct rf_index_stopped stopped;
    enum rf_status status;

    for (size_t i = 0; (status = rf_index_stopped(index, i, &stopped, err)) == RF_OK; i++) {
        char fact[sizeof RF_INDEX_STOPPED + RF_NAME_MAX], value[32];

        snprintf(fact, sizeof fact, RF_INDEX_STOPPED "%s", stopped.mapper);
        snprintf(value, sizeof value, "%g", (double)stopped.budget_ms / 1000);
        status = rf_sink_set_fact(index->sink, fact, value, err);
        if (status != RF_OK)
            return status;
    }
    return status == RF_END ? RF_OK : status;
}

enum rf_status rf_index_stopped(struct rf_index *index, size_t i, struct rf_index_stopped *out,
                                struct rf_error *err)
{
    const struct rf_sink_lane *live = live_lane(index);

    for (size_t m = 0; m < live->mapper_count; m++) {
        uint64_t counts[RF_PARK_KIND_COUNT];
        enum rf_status status;

        if (!is_stopped(index, live, m) || i-- > 0)
            continue;
        status = rf_sink_park_counts(index->sink, live->id, (uint16_t)m, counts, err);
        if (status != RF_OK)
            return status;
        *out = (struct rf_index_stopped){.mapper = live->mappers[m].decl->name,
                                         .waiting = counts[RF_PARK_SLOW] + counts[RF_PARK_READY],
                                         .budget_ms = rf_brake_budget_ms(index->brake)};
        return RF_OK;
    }
    return RF_END;
}

/* ---- opening ---- */

/* An index belongs to one store for ever: positions of another mean nothing here. */
static enum rf_status check_store(struct rf_index *index, struct rf_error *err)
{
    struct rf_store_info info;
    const char *uuid;
    enum rf_status status = rf_store_info(index->store, &info, err);

    if (status != RF_OK)
        return status;
    status = rf_sink_get_fact(index->sink, &index->arena, "store", &uuid, err);
    if (status == RF_NOT_FOUND) {
        rf_error_clear(err);
        return rf_sink_set_fact(index->sink, "store", info.uuid, err);
    }
    if (status == RF_OK && strcmp(uuid, info.uuid) != 0)
        return rf_error_set(err, RF_INVALID,
                            "index '%s' was made from store %s, not from store %s at '%s'; use "
                            "another index, or remove it and run 'refuge index run'",
                            index->options.name, uuid, info.uuid, index->options.store_url);
    return status;
}

static enum rf_status open_parts(struct rf_index *index, struct rf_error *err)
{
    const struct rf_index_options *o = &index->options;
    struct rf_store_options store = {.mode = RF_STORE_READ};
    struct rf_sink_options sink = {.name = o->name,
                                   .create = true, .write = true,
                                   .lock_timeout_ms = o->lock_timeout_ms,
                                   .cache_bytes = o->cache_bytes,
                                   .reader = o->reader,
                                   .mend = o->rebuild};
    struct rf_pool_options pool = {.program = o->mapper_program, .workers = o->workers,
                                   .jit_off = o->jit_off};
    struct rf_pool_source source = {read_item, need_stat, need_read, index};
    enum rf_status status;

    if (getrandom(&sink.writer_token, sizeof sink.writer_token, 0) != sizeof sink.writer_token)
        return rf_error_set(err, RF_IO, "the system gives no random numbers");
    status = rf_store_open(&index->store, o->store_url, &store, err);
    index->reader.store = index->store;
    if (status == RF_OK)
        status = rf_sink_open(&index->sink, o->sink_url, &sink, err);
    if (status == RF_OK)
        status = check_store(index, err);
    if (status == RF_OK)
        status = rf_pool_open(&index->pool, &pool, err);
    if (status != RF_OK)
        return status;
    rf_pool_set_source(index->pool, &source);
    index->brake =
        rf_brake_new(index->pool, o->slow_budget_ms ? o->slow_budget_ms : SLOW_BUDGET_MS);
    return index->brake ? RF_OK : rf_error_set(err, RF_NOMEM, "no memory for an index");
}

static struct rf_index *index_new(const struct rf_index_options *options)
{
    struct rf_index *index = calloc(1, sizeof *index);

    if (!index)
        return NULL;
    index->options = *options;
    index->until_seq = UINT64_MAX;
    index->stopped = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (index->stopped < 0) {
        free(index);
        return NULL;
    }
    rf_arena_init(&index->arena, (size_t)256 << 20);
    rf_arena_init(&index->lanes_arena, (size_t)256 << 20);
    return index;
}

enum rf_status rf_index_open_with(struct rf_index **out, const struct rf_index_options *options,
                                  const struct rf_bytes *bundles, size_t bundle_count,
                                  const struct rf_plan *plan, const struct rf_sample *sample,
                                  uint64_t until_seq,
                                  struct rf_error *err)
{
    struct rf_index *index = index_new(options);
    enum rf_status status;

    if (!index)
        return rf_error_set(err, RF_NOMEM, "no memory or descriptor for an index");
    index->until_seq = until_seq;
    index->sample = sample;
    index->given_plan = bundles != NULL;
    if (plan)
        index->plan = *plan;
    status = options->policy ? rf_policy_parse(&index->policy, options->policy, err) : RF_OK;
    if (status == RF_OK)
        status = open_parts(index, err);
    if (status == RF_OK)
        status = read_lanes(index, err);
    if (status == RF_OK)
        status = read_plan(index, err);
    if (status == RF_OK && bundles) {
        index->wanted = rf_arena_alloc(&index->arena, (bundle_count + 1) * sizeof *index->wanted);
        for (size_t i = 0; i < bundle_count && status == RF_OK; i++)
            status = rf_pool_load_bundle(index->pool, bundles[i],
                                         &index->wanted[index->wanted_count++], err);
    } else if (status == RF_OK) {
        status = load_mappers(index, err);
    }
    if (status == RF_OK)
        status = settle_lanes(index, err);
    if (status == RF_OK)
        status = forget_stopped(index, err);
    if (status == RF_OK)
        status = open_pipelines(index, err);
    if (status != RF_OK) {
        rf_index_close(index);
        return rf_error_context(err, status, "cannot open index '%s'", options->name);
    }
    *out = index;
    return RF_OK;
}

enum rf_status rf_index_open(struct rf_index **out, const struct rf_index_options *options,
                             struct rf_error *err)
{
    return rf_index_open_with(out, options, NULL, 0, NULL, NULL, UINT64_MAX, err);
}

void rf_index_close(struct rf_index *index)
{
    if (!index)
        return;
    close_pipelines(index);
    rf_brake_free(index->brake);
    rf_pool_close(index->pool);
    rf_sink_close(index->sink);
    rf_unit_reader_release(&index->reader);
    rf_store_close(index->store);
    rf_arena_release(&index->lanes_arena);
    rf_arena_release(&index->arena);
    close(index->stopped);
    free(index);
}

size_t rf_index_broken(const struct rf_index *index)
{
    return index->broken;
}

/* ---- running ---- */

static enum rf_status note_total(struct rf_index *index, struct rf_error *err)
{
    struct rf_store_info info;
    enum rf_status status = rf_store_info(index->store, &info, err);

    if (status == RF_OK)
        index->progress.changes_total = info.next_seq - 1;
    return status;
}

static enum rf_status reopen_lanes(struct rf_index *index, struct rf_error *err)
{
    enum rf_status status = read_lanes(index, err);

    if (status == RF_OK)
        status = settle_plan(index, err);
    if (status == RF_OK)
        status = open_pipelines(index, err);
    if (status == RF_OK && !index->beside)
        index->removed_count = 0;
    return status;
}

/* When the sink is lost meanwhile, whether it was done shows in the lanes at the next try. */
static enum rf_status swap_lane(struct rf_index *index, struct rf_error *err)
{
    uint32_t lane = lane_beside(index)->id;
    enum rf_status status;

    /* The pipelines hold statements and positions of lanes that are about to change. */
    close_pipelines(index);
    status = rf_sink_lane_swap(index->sink, lane, index->removed, index->removed_count, err);
    return status == RF_OK ? reopen_lanes(index, err) : status;
}

/* ---- passes ---- */

#define PASS_CHANGES 20000u /* looked at between two commits */
#define PASS_WOKEN 5000u    /* items woken between two commits */

/* One reading of the log, up to where a version came: what its policy selects is woken. */
struct pass {
    struct rf_index *index;
    struct rf_plan_version *version;
    const struct rf_plan_mapper *chain;
    uint64_t mapper; /* its bit in the live lane */
    struct rf_feed *feed;
    int64_t deadline_us; /* 0: none */
    uint64_t at;
    size_t changes, woken; /* since the last commit */
    bool open;
};

static enum rf_status wake(struct pass *pass, const char *key, const char *media,
                           struct rf_error *err)
{
    struct rf_index *index = pass->index;
    enum rf_status status = RF_OK;

    if (!pass->open)
        status = rf_sink_begin(index->sink, live_lane(index)->id,
                               rf_pipeline_position(index->live), err);
    pass->open = status == RF_OK;
    pass->woken++;
    return status == RF_OK ? rf_sink_again(index->sink, key, media, pass->mapper, err) : status;
}

/* Look at a blob or file by its content: its name, its media type. */
static enum rf_status look_inside(struct pass *pass, const struct rf_change *change,
                                  struct rf_plan_item *item, struct rf_unit **unit,
                                  struct rf_error *err)
{
    uint8_t head[RF_MEDIA_LOOK];
    size_t got = 0;
    enum rf_status status =
        rf_unit_from_change(unit, &pass->index->reader, pass->feed, change, err);

    if (status != RF_OK || !*unit || (*unit)->kind != RF_UNIT_ITEM)
        return status;
    item->name = (*unit)->item.name;
    if (rf_unit_read(&pass->index->reader, *unit, 0, head, sizeof head, &got, NULL) != RF_OK)
        got = 0;
    item->media = rf_media_find(rf_bytes(head, got), item->name);
    return RF_OK;
}

static enum rf_status pass_change(struct pass *pass, const struct rf_change *change,
                                  struct rf_error *err)
{
    const struct rf_policy *policy = &pass->version->policy;
    bool inside = policy->kind == RF_POLICY_NAME || policy->kind == RF_POLICY_MEDIA;
    struct rf_plan_item item = {.seq = change->seq, .timestamp_us = change->timestamp_us};
    struct rf_unit *unit = NULL;
    char key[RF_BLOBREF_SIZE];
    uint32_t bit = 1u << (pass->version - pass->chain->versions);
    enum rf_status status = RF_OK;

    if (change->gone || change->is_delete || change->part)
        return RF_OK;
    if (inside)
        status = look_inside(pass, change, &item, &unit, err);
    rf_blobref_format(&change->ref, key);
    if (status == RF_OK && (!inside || (unit && unit->kind == RF_UNIT_ITEM))) {
        if (rf_plan_takes(pass->chain, &item) & bit)
            status = wake(pass, key, NULL, err);
        else if (policy->kind == RF_POLICY_MEDIA)
            status = wake(pass, key, policy->pattern, err);
    }
    rf_unit_release(unit);
    return status;
}

/* What was woken is committed before the plan says that the pass came so far. */
static enum rf_status commit_pass(struct pass *pass, struct rf_error *err)
{
    struct rf_index *index = pass->index;
    enum rf_status status = RF_OK;

    if (pass->open)
        status = rf_sink_commit(index->sink, rf_pipeline_position(index->live), err);
    pass->open &= status != RF_OK;
    if (pass->woken)
        rf_pipeline_woken(index->live);
    pass->changes = pass->woken = 0;
    if (status != RF_OK)
        return status;
    pass->version->passed = pass->at < pass->version->after ? pass->at : pass->version->after;
    index->progress.changes_done = pass->version->passed;
    if (index->options.hooks.progress)
        index->options.hooks.progress(index->options.hooks.user, &index->progress);
    return write_plan(index, err);
}

static int64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static enum rf_status read_pass(struct pass *pass, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    while (status == RF_OK && pass->at < pass->version->after) {
        struct rf_change change = {0};
        struct rf_error why = {0};

        status = rf_feed_next(pass->feed, &change, 0, &why);
        if (status == RF_TIMEOUT) { /* the log ends earlier than it did: nothing is left to see */
            pass->at = pass->version->after;
            status = RF_OK;
            break;
        }
        if (status == RF_OK && change.seq <= pass->version->after)
            status = pass_change(pass, &change, &why);
        else if (status == RF_CORRUPT && change.cursor.seq > 0)
            status = RF_OK; /* the run itself tells of it */
        if (status != RF_OK) {
            if (err)
                *err = why;
            break;
        }
        pass->at = change.cursor.seq;
        if (++pass->changes < PASS_CHANGES && pass->woken < PASS_WOKEN)
            continue;
        status = commit_pass(pass, err);
        if (status == RF_OK && pass->index->stop)
            status = RF_CANCELLED;
        else if (status == RF_OK && pass->deadline_us && now_us() >= pass->deadline_us)
            status = RF_TIMEOUT;
    }
    return status == RF_OK ? commit_pass(pass, err) : status;
}

static enum rf_status run_pass(struct rf_index *index, struct rf_plan_mapper *chain,
                               struct rf_plan_version *version, uint64_t mapper,
                               uint32_t slice_ms, struct rf_error *err)
{
    struct pass pass = {.index = index, .chain = chain, .version = version, .mapper = mapper,
                        .at = version->passed,
                        .deadline_us = slice_ms ? now_us() + (int64_t)slice_ms * 1000 : 0};
    struct rf_cursor from = {0};
    enum rf_status status = RF_OK;

    if (rf_pipeline_position(index->live)[0])
        status = rf_cursor_parse(&from, rf_pipeline_position(index->live), err);
    from.seq = pass.at;
    from.has_chain = false;
    if (status == RF_OK)
        status = rf_feed_open(&pass.feed, index->store, from.seq ? &from : NULL, err);
    if (status == RF_OK)
        status = read_pass(&pass, err);
    if (pass.open)
        rf_sink_rollback(index->sink);
    rf_feed_close(pass.feed);
    return status;
}

/* Bring the passes to their end; *woken: there may be something to map again. */
static enum rf_status run_passes(struct rf_index *index, uint32_t slice_ms, bool *woken,
                                 struct rf_error *err)
{
    const struct rf_sink_lane *live = live_lane(index);
    enum rf_status status = RF_OK;

    *woken = false;
    for (size_t m = 0; m < live->mapper_count && status == RF_OK; m++) {
        struct rf_plan_mapper *chain = rf_plan_find(&index->plan, live->mappers[m].decl->name);
        struct rf_plan_version *version;

        if (!chain || index->given_plan || !chain_in_lane(index, live, &live->mappers[m]))
            continue;
        while (status == RF_OK && (version = rf_plan_passing(chain)) != NULL) {
            *woken = index->progress.passing = true;
            status = run_pass(index, chain, version, (uint64_t)1 << m, slice_ms, err);
        }
    }
    index->progress.passing = false;
    return status;
}

/* ---- one look at everything ---- */

/* Live lane to the queue's end, then the lane beside it up to the same change, then the swap. */
static enum rf_status catch_up(struct rf_index *index, uint32_t slice_ms, struct rf_error *err)
{
    bool woken = false;
    enum rf_status status = note_total(index, err);

    if (status == RF_OK && !index->live)
        status = reopen_lanes(index, err);
    if (status == RF_OK)
        status = rf_pipeline_drive(index->live, index->until_seq, 0, err);
    if (status == RF_OK)
        status = rf_sink_lane_ready(index->sink, live_lane(index)->id, err);
    if (status == RF_OK)
        status = run_passes(index, slice_ms, &woken, err);
    if (status == RF_OK && woken)
        status = rf_pipeline_drive(index->live, index->until_seq, 0, err);
    if (status != RF_OK || !index->beside)
        return status;
    status = rf_pipeline_drive(index->beside, rf_pipeline_seq(index->live), slice_ms, err);
    if (status != RF_OK)
        return status;
    if (strcmp(rf_pipeline_position(index->live), rf_pipeline_position(index->beside)) != 0)
        return rf_error_set(err, RF_CORRUPT,
                            "two lanes of index '%s' stand at '%s' and '%s'",
                            index->options.name, rf_pipeline_position(index->live),
                            rf_pipeline_position(index->beside));
    status = rf_sink_lane_ready(index->sink, lane_beside(index)->id, err);
    if (status == RF_OK)
        status = swap_lane(index, err);
    if (status == RF_OK) /* the swap may have parked what the lane missed */
        status = rf_pipeline_drive(index->live, index->until_seq, 0, err);
    return status;
}

/* Wait out what cannot be reached: doubling, with a quarter of jitter, without end. */
static void back_off(struct rf_index *index, uint32_t *delay_ms, const struct rf_error *why)
{
    char line[RF_ERROR_SIZE + 100];
    uint32_t jitter = 0;

    if (getrandom(&jitter, sizeof jitter, 0) != sizeof jitter)
        jitter = 0;
    *delay_ms = *delay_ms ? 2 * *delay_ms : RETRY_FIRST_MS;
    if (*delay_ms > RETRY_MAX_MS)
        *delay_ms = RETRY_MAX_MS;
    snprintf(line, sizeof line, "%s, trying again in %.1f s", why->message, *delay_ms / 1000.0);
    warn(index, line);
    poll(&(struct pollfd){.fd = index->stopped, .events = POLLIN}, 1,
         (int)(*delay_ms + jitter % (*delay_ms / 4 + 1)));
}

static enum rf_status wait_for_change(struct rf_index *index, struct rf_error *err)
{
    enum rf_status status;

    atomic_store(&index->waiting, index->live);
    status = index->stop ? RF_CANCELLED : rf_pipeline_wait(index->live, -1, err);
    atomic_store(&index->waiting, NULL);
    return status == RF_TIMEOUT ? RF_OK : status;
}

enum rf_status rf_index_run(struct rf_index *index, bool follow, struct rf_error *err)
{
    uint32_t delay_ms = 0;
    enum rf_status status;

    for (;;) {
        struct rf_error why = {0};

        status = index->stop ? RF_CANCELLED : catch_up(index, follow ? SLICE_MS : 0, &why);
        if (status == RF_UNAVAILABLE && !index->stop) {
            back_off(index, &delay_ms, &why);
            continue;
        }
        if (status == RF_TIMEOUT) /* the lane beside used its slice up: the live lane again */
            continue;
        delay_ms = 0;
        if (status == RF_OK)
            status = note_stopped(index, &why);
        if (status == RF_OK && follow && !index->stop) {
            status = wait_for_change(index, &why);
            if (status == RF_OK)
                continue;
        }
        if (status != RF_OK && status != RF_CANCELLED && err)
            *err = why;
        return status;
    }
}

void rf_index_stop(struct rf_index *index)
{
    struct rf_pipeline *waiting;

    index->stop = 1;
    if (eventfd_write(index->stopped, 1) != 0)
        return; /* stopped already */
    waiting = atomic_load(&index->waiting);
    if (waiting)
        rf_pipeline_wake(waiting);
}

enum rf_status rf_index_counts(struct rf_index *index, struct rf_sink_counts *out,
                               struct rf_error *err)
{
    const struct rf_sink_lane *live = live_lane(index);

    *out = (struct rf_sink_counts){0};
    return live ? rf_sink_counts(index->sink, live->id, out, err) : RF_OK;
}

void rf_index_totals(const struct rf_index *index, struct rf_index_progress *out)
{
    *out = index->progress;
}
