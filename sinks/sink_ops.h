/*
 * sink_ops.h - what a backend of sinks is made of
 *
 * A backend is one constant table, named in the array of sink.c and found by the scheme of its URL
 * ("sqlite:PATH"). sink.c asserts the contract of sink.h and query.h and dispatches; a backend
 * knows of no other. Every function is there unless it says so; `rest` is the URL behind the colon.
 */
#ifndef RF_SINKS_SINK_OPS_H
#define RF_SINKS_SINK_OPS_H

#include "core/buf.h"
#include "sinks/canonical.h"
#include "sinks/query.h"
#include "sinks/sink.h"

struct rf_sink_ops;

/* A backend's instance embeds this first. */
struct rf_sink {
    const struct rf_sink_ops *ops;
    bool write;      /* opened for writing */
    bool batch_open; /* from begin to commit or rollback, also by a failure */
};

struct rf_sink_ops {
    const char *scheme, *alias; /* alias: another name of it, or NULL */

    enum rf_status (*open)(struct rf_sink **out, const char *rest,
                           const struct rf_sink_options *options, struct rf_error *err);
    void (*close)(struct rf_sink *sink);
    enum rf_status (*writer)(struct rf_sink *sink, struct rf_error *err);
    enum rf_status (*erase)(const char *rest, struct rf_error *err);

    enum rf_status (*lanes)(struct rf_sink *sink, struct rf_arena *arena,
                            struct rf_sink_lane **lanes, size_t *count, struct rf_error *err);
    enum rf_status (*lane_begin)(struct rf_sink *sink, const struct rf_sink_mapper *mappers,
                                 size_t count, bool full, uint32_t *lane, struct rf_error *err);
    enum rf_status (*lane_ready)(struct rf_sink *sink, uint32_t lane, struct rf_error *err);
    enum rf_status (*lane_swap)(struct rf_sink *sink, uint32_t lane, const char *const *removed,
                                size_t removed_count, struct rf_error *err);
    enum rf_status (*lane_drop)(struct rf_sink *sink, uint32_t lane, struct rf_error *err);

    enum rf_status (*begin)(struct rf_sink *sink, uint32_t lane, const char *from,
                            struct rf_error *err);
    enum rf_status (*expect)(struct rf_sink *sink, const char *const *keys, size_t count,
                             struct rf_error *err);
    enum rf_status (*put)(struct rf_sink *sink, const struct rf_sink_item *item, bool *stale,
                          struct rf_error *err);
    enum rf_status (*put_parts)(struct rf_sink *sink, uint16_t mapper,
                                const struct rf_sink_part *parts, size_t count,
                                struct rf_error *err);
    enum rf_status (*remove)(struct rf_sink *sink, const struct rf_blobref *ref, uint64_t seq,
                             int64_t timestamp_us, struct rf_error *err);
    enum rf_status (*arrived)(struct rf_sink *sink, const struct rf_blobref *ref,
                              struct rf_error *err);
    enum rf_status (*lost)(struct rf_sink *sink, uint64_t first, uint64_t last,
                           struct rf_error *err);
    enum rf_status (*share)(struct rf_sink *sink, uint64_t mappers, struct rf_error *err);
    enum rf_status (*again)(struct rf_sink *sink, const char *key, const char *media,
                            uint64_t mappers, struct rf_error *err);
    enum rf_status (*commit)(struct rf_sink *sink, const char *to, struct rf_error *err);
    void (*rollback)(struct rf_sink *sink);
    enum rf_status (*has_part)(struct rf_sink *sink, uint32_t lane, const char *key, bool *out,
                               struct rf_error *err);
    enum rf_status (*mapper_splits)(struct rf_sink *sink, uint32_t lane, const char *name,
                                    bool *out, struct rf_error *err);

    enum rf_status (*parks)(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                            enum rf_park_kind kind, int64_t *after, struct rf_sink_park *out,
                            size_t max, size_t *count, struct rf_error *err);
    enum rf_status (*park_counts)(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                                  uint64_t counts[RF_PARK_KIND_COUNT], struct rf_error *err);
    enum rf_status (*is_parked)(struct rf_sink *sink, uint32_t lane, uint16_t mapper,
                                const char *key, bool *out, uint32_t *attempts,
                                struct rf_error *err);
    enum rf_status (*park_needs)(struct rf_sink *sink, uint32_t lane,
                                 const struct rf_sink_park *park, struct rf_arena *arena,
                                 struct rf_blobref **refs, size_t *count, struct rf_error *err);
    enum rf_status (*origin_of)(struct rf_sink *sink, uint32_t lane, const char *key,
                                struct rf_sink_origin *out, struct rf_error *err);
    enum rf_status (*holders)(struct rf_sink *sink, uint32_t lane, const char *key,
                              enum rf_status (*visit)(void *user, const struct rf_sink_holder *),
                              void *user, struct rf_error *err);
    enum rf_status (*dead_letters)(struct rf_sink *sink,
                                   enum rf_status (*visit)(void *user,
                                                           const struct rf_dead_letter *),
                                   void *user, struct rf_error *err);
    enum rf_status (*retry)(struct rf_sink *sink, const char *mapper, const char *key,
                            uint64_t *count, struct rf_error *err);
    enum rf_status (*set_fact)(struct rf_sink *sink, const char *name, const char *value,
                               struct rf_error *err);
    enum rf_status (*get_fact)(struct rf_sink *sink, struct rf_arena *arena, const char *name,
                               const char **value, struct rf_error *err);
    enum rf_status (*counts)(struct rf_sink *sink, uint32_t lane, struct rf_sink_counts *out,
                             struct rf_error *err);

    enum rf_status (*query_sql)(const char *rest, const char *sql,
                                void (*header)(void *user, size_t count, const char *const *names),
                                rf_query_visit visit, void *user, const volatile int *interrupted,
                                struct rf_error *err);
    enum rf_status (*query_search)(const char *rest, const char *words,
                                   const struct rf_search_options *options,
                                   enum rf_status (*visit)(void *user, const struct rf_hit *hit),
                                   void *user, uint64_t *total, struct rf_error *err);
    /* Of a sink without SQL; else NULL. */
    enum rf_status (*query_items)(const char *rest, const struct rf_items_question *question,
                                  enum rf_status (*visit)(void *user,
                                                          const struct rf_item_answer *),
                                  void *user, struct rf_error *err);
    enum rf_status (*query_item)(const char *rest, const char *key,
                                 enum rf_status (*parent)(void *user,
                                                          const struct rf_item_parent_answer *),
                                 enum rf_status (*call)(void *user,
                                                        const struct rf_item_call_answer *),
                                 void *user, struct rf_error *err);
    /* Open for reading canonical rows; its own ops->close ends it. */
    enum rf_status (*query_canon)(struct rf_canon **out, const char *rest, struct rf_error *err);
    enum rf_status (*query_metadata)(const char *rest, struct rf_buf *buf, struct rf_error *err);
};

extern const struct rf_sink_ops rf_sink_sqlite_ops, rf_sink_postgres_ops, rf_sink_elastic_ops;

#endif
