/*
 * grams.h - making scripts without spaces searchable for stock FTS5
 *
 * unicode61 takes a whole run of Han, Kana, Hangul or Thai letters for one token, so no inner word
 * is found. Beside the text itself an index therefore keeps, for each such run, all its 1-grams,
 * then all 2-grams, then all 3-grams, separated by spaces. Within one size they follow each other,
 * so a run longer than three letters is found as the phrase of its 3-grams, exactly. Where such a
 * run touches other letters without a space ("iPhone用") those are repeated as a token of their own.
 * Thai vowel signs and tone marks, which unicode61 would split at, are left out on both sides.
 *
 * A query is split by the same scanner.
 */
#ifndef RF_SINKS_GRAMS_H
#define RF_SINKS_GRAMS_H

#include "core/buf.h"

#define RF_GRAMS_MAX (32u << 20) /* bytes of the grams of one row; no search beyond */

/* Append the grams of a text, each followed by a space; nothing for a text without such scripts. */
void rf_grams_put(struct rf_buf *out, struct rf_bytes text);

/* A piece of a text: letters and digits in a row, of scripts with grams or of others. */
struct rf_grams_piece {
    struct rf_bytes text;
    bool gram;  /* of a script without spaces */
    bool joined; /* touches the piece before it */
};

/* The next piece from *at on; false at the end. */
bool rf_grams_next(struct rf_bytes text, size_t *at, struct rf_grams_piece *out);

/* The next letter of a run with grams from *at on, the marks between them left out; false at the
 * end. */
bool rf_grams_letter(struct rf_bytes run, size_t *at, struct rf_bytes *letter);

/* Append what finds a run: its gram when it has up to three letters, else its 3-grams in a row. */
void rf_grams_put_query(struct rf_buf *out, struct rf_bytes run);

#endif
