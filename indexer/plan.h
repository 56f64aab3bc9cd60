/*
 * plan.h - which version of a mapper maps what: rebuild policies, kept with the index
 *
 * A new version of a mapper maps everything again unless a policy says otherwise:
 *
 *   full          everything, in a lane beside the live tables that is swapped in (the default)
 *   forward       what comes from now on; older items keep the rows they have
 *   since=SEQ     and, of what is there, changes from this sequence on
 *   since=DATE    and, of what is there, changes from this time on
 *   match=GLOB    and, of what is there, files of such a name
 *   match=MEDIA   and, of what is there, items of such a media type ("message/rfc822", "image/ *")
 *
 * The plan of a mapper is a chain of versions, oldest first. The first is the base: the one whose
 * text the live lane names, with which it was last mapped in full (or with which it came, under a
 * policy of its own). Each later one notes `after`, where the live lane stood when it came, and
 * takes an item when
 *
 *   its change comes behind `after`, or its policy selects it.
 *
 * An item is mapped by the newest version that takes it, by none when none does. So the version is
 * a function of the item and the plan, not of when or in which order things were mapped, and a
 * rebuild by the plan gives the same rows.
 *
 * A part has no change of its own, and equal parts of old and new items are one item. A version
 * takes a part when it takes every blob and file that holds it; match=MEDIA also by the part's own
 * media type. So a part is as old as the oldest item it is held by:
 *
 *   an old item gets a part that was there     rf_sink_again for that part (pipeline.c)
 *   a part loses a holder and lives            rf_sink_share has the sink do it
 *   a part is mapped because of a park         all its holders are asked (rf_sink_holders), before
 *                                              the call and once more before its rows are written
 *
 * All versions of a chain have the same tables: their rows live in them side by side. A mapper that
 * cuts parts has no chain, since what it cuts makes the items of all mappers; it is mapped in full.
 * A chain ends when the mapper is mapped in full or leaves the index.
 *
 * Where it is kept: the fact "plan", JSON, is the whole plan, so that it changes at once; the fact
 * "text:<identity>" is the text of each version behind the base, written before the plan names it.
 *
 *   a new version comes    texts, then the plan with `after`; from then on changes are routed
 *   since=, match=         a pass reads the log up to `after` and wakes what the version selects
 *                          (rf_sink_again); the slow lane maps it. `passed` is how far it came,
 *                          noted behind each batch: what is passed twice is woken twice
 *   mapped in full         the plan notes the lane (`ends`) that brings the version which ends the
 *                          chain. Lanes are never numbered again: when that lane is gone at the
 *                          next look it was swapped in, and the chain is over. Whoever drops a lane
 *                          takes the note back first
 *   a lane underway        covers a mapper with a chain by the same chain. When a new version of
 *                          one of its mappers comes the lane is dropped and begun again
 */
#ifndef RF_INDEXER_PLAN_H
#define RF_INDEXER_PLAN_H

#include "core/arena.h"
#include "core/buf.h"
#include "sinks/sink.h"

#define RF_PLAN_VERSIONS_MAX 16 /* of one mapper; then it is to be mapped in full */
#define RF_POLICY_TEXT_MAX 512  /* bytes of a policy as text */
#define RF_IDENTITY_SIZE 65     /* of a mapper version as text, with NUL */

enum rf_policy_kind {
    RF_POLICY_FULL,
    RF_POLICY_FORWARD,
    RF_POLICY_SINCE_SEQ,
    RF_POLICY_SINCE_TIME,
    RF_POLICY_NAME,
    RF_POLICY_MEDIA
};

struct rf_policy {
    enum rf_policy_kind kind;
    uint64_t seq;        /* SINCE_SEQ */
    int64_t time_us;     /* SINCE_TIME */
    const char *pattern; /* NAME, MEDIA: within the text that was parsed */
};

/* RF_INVALID: err says what may be written instead. */
RF_MUST_USE enum rf_status rf_policy_parse(struct rf_policy *out, const char *text,
                                           struct rf_error *err);
void rf_policy_format(const struct rf_policy *policy, struct rf_buf *out); /* as it is parsed */

struct rf_plan_version {
    char identity[RF_IDENTITY_SIZE];
    struct rf_policy policy;
    uint64_t after;
    uint64_t passed;        /* its pass came so far; at `after` it is over */
    struct rf_bytes bundle; /* of one behind the base, once rf_plan_load_texts has run */
};

struct rf_plan_mapper {
    const char *name;
    uint32_t ends; /* a lane whose swap ends the chain, or 0 */
    struct rf_plan_version versions[RF_PLAN_VERSIONS_MAX];
    size_t count;
};

struct rf_plan {
    struct rf_plan_mapper **mappers;
    size_t count;
};

/* As kept with the index, in the arena; empty when there is none. RF_CORRUPT: it is damaged. */
RF_MUST_USE enum rf_status rf_plan_read(struct rf_sink *sink, struct rf_arena *arena,
                                        struct rf_plan *out, struct rf_error *err);
RF_MUST_USE enum rf_status rf_plan_write(struct rf_sink *sink, const struct rf_plan *plan,
                                         struct rf_error *err);

/* The plan that the live lane is mapped by, for who only reads: without chains that are over, and
 * with no lane that ends one. */
RF_MUST_USE enum rf_status rf_plan_of_live(struct rf_sink *sink, struct rf_arena *arena,
                                           const struct rf_sink_lane *lanes, size_t count,
                                           struct rf_plan *out, struct rf_error *err);
/* Whether a chain goes on: its base is live, and no lane that ends it was swapped in. */
bool rf_plan_holds(const struct rf_plan_mapper *chain, const struct rf_sink_lane *lanes,
                   size_t count);

struct rf_plan_mapper *rf_plan_find(const struct rf_plan *plan, const char *name); /* or NULL */

/* The chain of this name, new when there is none. */
struct rf_plan_mapper *rf_plan_add(struct rf_plan *plan, struct rf_arena *arena, const char *name);
void rf_plan_remove(struct rf_plan *plan, const char *name);

static inline const struct rf_plan_version *rf_plan_newest(const struct rf_plan_mapper *chain)
{
    return &chain->versions[chain->count - 1];
}

/* A version whose pass is not over, or NULL. */
struct rf_plan_version *rf_plan_passing(struct rf_plan_mapper *chain);

/* The text of a version behind the base: kept before the plan names it, forgotten after. */
RF_MUST_USE enum rf_status rf_plan_keep_text(struct rf_sink *sink, const char *identity,
                                             struct rf_bytes bundle, struct rf_error *err);
RF_MUST_USE enum rf_status rf_plan_text(struct rf_sink *sink, struct rf_arena *arena,
                                        const char *identity, struct rf_bytes *out,
                                        struct rf_error *err);
RF_MUST_USE enum rf_status rf_plan_load_texts(struct rf_sink *sink, struct rf_arena *arena,
                                              struct rf_plan *plan, struct rf_error *err);
/* Texts of `before` that `now` does not name any more. */
RF_MUST_USE enum rf_status rf_plan_forget_texts(struct rf_sink *sink, const struct rf_plan *before,
                                                const struct rf_plan *now, struct rf_error *err);

/* What a version is chosen by. */
struct rf_plan_item {
    uint64_t seq;
    int64_t timestamp_us;
    const char *name;  /* of a file, or NULL */
    const char *media; /* or NULL: not known, or not to be looked at */
};

/* The versions that take a blob or file: bit i is versions[i]. Of a part: the bits of all its
 * holders, without media, and those that its own media type adds. */
uint32_t rf_plan_takes(const struct rf_plan_mapper *chain, const struct rf_plan_item *item);
uint32_t rf_plan_takes_media(const struct rf_plan_mapper *chain, const char *media);
uint32_t rf_plan_all(const struct rf_plan_mapper *chain);
/* The version that maps what these take, or -1. */
int rf_plan_choose(uint32_t takes);

/* Whether the rows of two declarations live in the same tables; *why, when not, is a constant. */
bool rf_plan_same_tables(const struct rf_decl *a, const struct rf_decl *b, const char **why);

#endif
