/*
 * bare_sink.h - the floor of a sink: prepared inserts into SQLite, nothing else
 *
 * Settings: WAL, synchronous=NORMAL, pages of 16 KiB, cache of 64 MiB, wal_autocheckpoint=4000,
 * 10,000 items a transaction. Searchable columns go into an FTS5 table with external content that
 * is written explicitly, hashsize 64 MiB. Nothing is looked up, replaced, checked or remembered.
 *
 * Two shapes. ONE_TABLE: one row per item, the item's name UNIQUE in it. TWO_TABLES: as an index
 * keeps them, blobs(id, item UNIQUE, kind, size, ts, seq, mapped_at) and rows (id, blob, n, ...,
 * UNIQUE(blob, n)). Failures end the program.
 */
#ifndef RF_BENCH_BARE_SINK_H
#define RF_BENCH_BARE_SINK_H

#include "core/decl.h"
#include "core/row.h"

#define BARE_BATCH 10000 /* items a transaction */

enum bare_shape { BARE_ONE_TABLE, BARE_TWO_TABLES };

struct bare_sink;

struct bare_sink *bare_sink_open(const char *path, const struct rf_decl *decl,
                                 enum bare_shape shape);

/* Begin an item; its rows follow. key is its name, 71 characters of a blobref. */
void bare_sink_item(struct bare_sink *sink, const char *key, uint64_t size, uint64_t seq);
void bare_sink_row(struct bare_sink *sink, uint16_t table, const struct rf_value *values,
                   uint16_t count);

void bare_sink_commit(struct bare_sink *sink);
void bare_sink_close(struct bare_sink *sink);

#endif
