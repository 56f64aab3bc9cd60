/*
 * utf8.h - checking and cleaning text (Unicode 15, table 3-7: no surrogates, nothing over-long)
 */
#ifndef RF_CORE_UTF8_H
#define RF_CORE_UTF8_H

#include "core/buf.h"

/* Bytes of the longest valid prefix; text.size when all of it is valid. */
size_t rf_utf8_valid(struct rf_bytes text);

/* Append text with each maximal invalid sequence replaced by U+FFFD and NULs left out when
 * drop_nul. Says what it changed through the two flags (may be NULL), which it only sets. */
void rf_utf8_clean(struct rf_buf *buf, struct rf_bytes text, bool drop_nul, bool *replaced,
                   bool *dropped);

/* The largest size <= max at which text can be cut without splitting a character. */
size_t rf_utf8_cut(struct rf_bytes text, size_t max);

/* A text as a message shows it, in out of RF_SHORT_SIZE bytes, which is the answer: whole, or cut
 * between characters with "…" behind. */
#define RF_SHORT_SIZE 104
const char *rf_utf8_short(char out[RF_SHORT_SIZE], const char *text);

#endif
