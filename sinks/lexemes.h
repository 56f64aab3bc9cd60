/*
 * lexemes.h - texts of a row as one tsvector, made here and not by the server
 *
 * The words of a text are the pieces of grams.h, folded: lower case, without accents. So a search
 * finds in PostgreSQL what it finds in SQLite, which the server's own parser would not ("foo.bar"
 * is a host name to it, "a/b" a file), and the server is spared the work. Of a run of a script
 * without spaces every 1-, 2- and 3-gram is a lexeme, at the position of its first letter.
 *
 * PostgreSQL bounds a tsvector to 1 MB, a lexeme to 2,046 bytes and 256 positions, a position to
 * 16,383. What does not fit is left out; when a word or a position was, the row has the lexeme
 * RF_LEXEME_LONG, so that a phrase can be looked for by its words there.
 */
#ifndef RF_SINKS_LEXEMES_H
#define RF_SINKS_LEXEMES_H

#include "core/buf.h"

#define RF_LEXEME_LONG "\x01" /* no text has it */

struct rf_lexemes;
struct rf_lexemes *rf_lexemes_new(void); /* never NULL */
void rf_lexemes_free(struct rf_lexemes *lexemes);
void rf_lexemes_clear(struct rf_lexemes *lexemes);

/* Add the words of one column; those of another are never in one phrase with them. */
void rf_lexemes_add(struct rf_lexemes *lexemes, struct rf_bytes text);

/* Append the tsvector in binary form. */
void rf_lexemes_encode(struct rf_lexemes *lexemes, struct rf_buf *out);

/* Append a piece (rf_grams_next) of other scripts as it stands in the tsvector: folded. */
void rf_lexemes_fold(struct rf_buf *out, struct rf_bytes piece);

#endif
