/*
 * snippet.h - the piece of a text that shows why it was found
 *
 * For kinds of index whose server would cut words in its own way. Words are those of grams.h,
 * folded as lexemes.h does.
 */
#ifndef RF_SINKS_SNIPPET_H
#define RF_SINKS_SNIPPET_H

#include "core/buf.h"
#include "sinks/terms.h"

/* The window with the most hits, each hit between \x02 and \x03; out is cleared first. Answers how
 * many hits the whole text has. The line's last word is taken as a beginning, too. */
size_t rf_snippet_make(struct rf_buf *out, const struct rf_terms *terms, struct rf_bytes text);

#endif
