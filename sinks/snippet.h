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

/* The window with the most hits, each hit between \x02 and \x03, words one by one; out is cleared
 * first. Answers how many hits the whole text has. open: the line's last word is taken as a
 * beginning, too. Words of a phrase are hits wherever they stand. */
size_t rf_snippet_make(struct rf_buf *out, const struct rf_terms *terms, bool open,
                       struct rf_bytes text);

/* Append a snippet of somebody else's, whose marks may hold a phrase: each word gets its own. */
void rf_snippet_mark_words(struct rf_buf *out, struct rf_bytes snippet);

#endif
