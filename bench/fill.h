/*
 * fill.h - making the stores that benchmarks read
 */
#ifndef RF_BENCH_FILL_H
#define RF_BENCH_FILL_H

#include <stddef.h>
#include <stdint.h>

#include "blobstore/blobstore.h"

/*
 * Put blobs 0 .. count-1 as made by `make` (which writes at most room bytes to out and answers how
 * many), keeping up to in_flight of them under way from the calling thread. Failures end the
 * program.
 */
void fill_store(struct rf_store *store, uint64_t count, size_t in_flight, size_t room,
                size_t (*make)(char *out, size_t size, uint64_t number), size_t size);

/* A new store at path, filled so and closed. */
void fill_new_store(const char *path, uint64_t count, size_t room,
                    size_t (*make)(char *out, size_t size, uint64_t number), size_t size);

#endif
