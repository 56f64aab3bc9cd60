/*
 * load.h - a library that is loaded at its first use
 *
 * A search is a process of two or three milliseconds. Libraries that it does not use, but the
 * program does elsewhere, would cost it as much again before main begins (libpq with all it needs:
 * 3 ms; libcrypto: 0.6). Such a library is not linked: its one user loads it.
 */
#ifndef RF_CORE_LOAD_H
#define RF_CORE_LOAD_H

#include "core/error.h"

struct rf_symbol {
    const char *name;
    void *place; /* of a pointer to the function */
};

/*
 * Load the library `file` ("libpq.so.5") for the rest of the process and fill in the functions.
 * Any thread; once per library. RF_UNSUPPORTED: it is not installed, naming Debian's package, or
 * too old.
 */
RF_MUST_USE enum rf_status rf_load(const char *file, const char *package,
                                   const struct rf_symbol *symbols, size_t count,
                                   struct rf_error *err);

#endif
