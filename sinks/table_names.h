/*
 * table_names.h - names that tables of mappers bring into an index, and whether they clash
 *
 * The same in every kind of index, also the names of SQLite's full-text tables and of PostgreSQL's
 * column of searched words: what is right in one kind is right in the others.
 */
#ifndef RF_SINKS_TABLE_NAMES_H
#define RF_SINKS_TABLE_NAMES_H

#include "core/decl.h"

/* RF_INVALID: two tables of these mappers need the same name, or a column has one that an index
 * needs; err says which. */
RF_MUST_USE enum rf_status rf_table_names_check(const struct rf_decl *const *decls, size_t count,
                                                struct rf_error *err);

#endif
