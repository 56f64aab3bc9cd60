/*
 * terms.h - a line of words to search for, cut into terms
 *
 * Words are joined by AND; "a phrase"; prefix*; -word excludes. Any text is a valid line; what has
 * neither letter nor digit is no word.
 */
#ifndef RF_SINKS_TERMS_H
#define RF_SINKS_TERMS_H

#include "core/bytes.h"
#include "core/error.h"

#define RF_TERMS_MAX 64
#define RF_TERM_PIECES_MAX 64 /* pieces (rf_grams_next) of one term */
#define RF_SEARCH_LIMIT 20    /* hits when nobody says how many */
#define RF_SEARCH_CLIMB_MAX 32 /* parents asked for a name and a time */
#define RF_SEARCH_TITLE_BYTES 160

struct rf_term {
    struct rf_bytes text; /* lent from the line */
    bool negated, phrase, prefix;
};

struct rf_terms {
    struct rf_term items[RF_TERMS_MAX];
    size_t count;
};

/* RF_INVALID: no word in it. RF_LIMIT: too many. */
RF_MUST_USE enum rf_status rf_terms_parse(struct rf_terms *out, const char *line,
                                          struct rf_error *err);

/* Whether the last word may match as a prefix when nothing else does. */
bool rf_terms_may_open(const struct rf_terms *terms);

#endif
