/*
 * pool_bundled.h - the mappers that come with refuge, compiled in
 *
 * Made by CMake from mappers/lua/ (every .lua file, sorted by name).
 */
#ifndef RF_MAPPERS_POOL_BUNDLED_H
#define RF_MAPPERS_POOL_BUNDLED_H

#include <stddef.h>

struct rf_bundled {
    const char *name; /* "record" */
    const unsigned char *text;
    size_t size;
};

extern const struct rf_bundled rf_bundled_mappers[]; /* ends with name NULL */

#endif
