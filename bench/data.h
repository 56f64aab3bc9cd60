/*
 * data.h - the same documents in every benchmark and every run
 *
 * A note is a JSON object with type, title, created, author {name, email}, tags, history (an
 * array of small records, until half of the size) and body (words until the size): the first five
 * come first, as mappers commonly pick from the head of a document. The same number gives the
 * same bytes.
 */
#ifndef RF_BENCH_DATA_H
#define RF_BENCH_DATA_H

#include <stddef.h>
#include <stdint.h>

/* Write note `number` of about size bytes (at least 300) into out, which has room for size + 512;
 * answers its exact size. */
size_t data_note(char *out, size_t size, uint64_t number);

/* Words as in a language: few are frequent, most are rare; 20,000 in all. Answers the size, about
 * `size`, never more than size + 16. */
size_t data_words(char *out, size_t size, uint64_t number);

/* The k-th word, its letters small ASCII; lent for the life of the process. */
const char *data_word(unsigned k);
#define DATA_WORDS 20000u

/* The words of a note's body or title are these, so that searches find them. */

#endif
