/*
 * definition.h - what `index create` wrote about an index: conf.d/index-NAME.json of the home
 *
 *     {"index": {"sink": "postgresql://ada@db.example/notes#main", "mappers": ["/a/recipes.lua"],
 *      "policy": "forward", "reader": "grafana"}}
 *
 * An index without such a file is kept in index/NAME.db of the home and uses all mappers.
 */
#ifndef RF_CMD_DEFINITION_H
#define RF_CMD_DEFINITION_H

#include "cmd/cli.h"
#include "core/arena.h"

struct rf_definition {
    const char *sink;           /* URL */
    const char *policy;         /* of mappers that change or come, or NULL */
    const char *reader;         /* role that may read the tables, or NULL */
    const char *const *mappers; /* paths and "bundled:NAME"; NULL: those of the home */
    size_t mapper_count;
};

/* Into the arena. RF_NOT_FOUND: no such file. RF_INVALID: file, line and what is wrong. */
RF_MUST_USE enum rf_status rf_definition_read(struct rf_definition *out, struct rf_arena *arena,
                                              const char *path, struct rf_error *err);

/* Complete and durable, or as it was. */
RF_MUST_USE enum rf_status rf_definition_write(const struct rf_definition *definition,
                                               const char *path, struct rf_error *err);

/*
 * A sink's URL as a person wrote it, as it is kept: a path made absolute, a schema or prefix named
 * after the index. Allocated. RF_INVALID: no such kind of sink, or a password in it.
 */
RF_MUST_USE enum rf_status rf_sink_url(char **out, const char *word, const char *index,
                                       struct rf_error *err);

/* Whether it is one of Elasticsearch or OpenSearch. */
bool rf_sink_url_is_elastic(const char *word);

#endif
