/*
 * bare_mapper.h - the floor of mapping: a mapper's Lua called in a loop of this process
 *
 * The same environment as in the jail (mappers/lua_env.h), without process, ring, deadline or check
 * of what comes back. Failures end the program.
 */
#ifndef RF_BENCH_BARE_MAPPER_H
#define RF_BENCH_BARE_MAPPER_H

#include "core/arena.h"
#include "core/blobref.h"
#include "core/buf.h"
#include "core/decl.h"

struct bare_mapper {
    struct rf_env *env;
    struct rf_decl *decl;
    struct rf_arena arena;
    struct rf_buf output; /* of the last call */
};

/* Load the file `name` of bench/mappers. */
void bare_mapper_open(struct bare_mapper *mapper, const char *name);
void bare_mapper_close(struct bare_mapper *mapper);

/* Map a blob; answers its encoded output, lent until the next call. */
struct rf_bytes bare_mapper_map(struct bare_mapper *mapper, const struct rf_blobref *ref,
                                struct rf_bytes content, uint64_t seq);

/* The path of a file of bench/mappers; lent until the next but one call. */
const char *bare_mapper_path(const char *name);

/* The program that jails: $REFUGE_MAPPER, else the one of this build. */
const char *bare_mapper_program(void);

#endif
