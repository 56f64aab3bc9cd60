/*
 * lexemes.c - see lexemes.h
 *
 * Unique words are found by a hash table; each occurrence is a pair (word, position) in the order
 * of the text, so that a word's positions come out in order without a sort.
 */
#include "sinks/lexemes.h"

#include "core/utf8.h"
#include "sinks/grams.h"

#include <stdlib.h>
#include <utf8proc.h>

#define VECTOR_BYTES 1000000u /* of the 1,048,575 that a tsvector may have */
#define LEXEME_BYTES 2046u
#define POSITIONS_MAX 255u
#define POSITION_MAX 16383u
#define SLOTS_FIRST 1024u
#define GRAM_MAX 3

struct word {
    uint32_t offset, size, hash;
    uint32_t count; /* positions so far; while encoding: where the next one stands */
};

struct place {
    uint32_t word;
    uint16_t position;
};

struct rf_lexemes {
    struct rf_buf texts; /* of words, one behind the other */
    struct word *words;
    size_t word_count, word_room;
    struct place *places;
    size_t place_count, place_room;
    uint32_t *slots; /* word + 1; 0: empty */
    size_t slot_count;
    size_t bytes;    /* of the vector so far */
    uint32_t position; /* of the next word */
    bool is_long;
    struct rf_buf folded;
};

struct rf_lexemes *rf_lexemes_new(void)
{
    struct rf_lexemes *l = calloc(1, sizeof *l);

    if (!l)
        abort();
    rf_buf_init(&l->texts, 4u << 20);
    rf_buf_init(&l->folded, 64u << 20);
    return l;
}

void rf_lexemes_free(struct rf_lexemes *l)
{
    if (!l)
        return;
    rf_buf_release(&l->texts);
    rf_buf_release(&l->folded);
    free(l->words);
    free(l->places);
    free(l->slots);
    free(l);
}

void rf_lexemes_clear(struct rf_lexemes *l)
{
    rf_buf_clear(&l->texts);
    l->word_count = l->place_count = l->bytes = 0;
    l->position = 1;
    l->is_long = false;
    if (l->slot_count > SLOTS_FIRST) { /* a long row came before: most have few words */
        free(l->slots);
        l->slots = NULL;
        l->slot_count = 0;
    } else if (l->slots) {
        memset(l->slots, 0, l->slot_count * sizeof *l->slots);
    }
}

static void *grow(void *items, size_t count, size_t *room, size_t size)
{
    if (count < *room)
        return items;
    *room = *room ? 2 * *room : 256;
    items = realloc(items, *room * size);
    if (!items)
        abort();
    return items;
}

static uint32_t hash_of(const uint8_t *data, size_t size)
{
    uint32_t hash = 2166136261u;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * 16777619u;
    return hash;
}

static void rehash(struct rf_lexemes *l)
{
    l->slot_count = l->slot_count ? 2 * l->slot_count : SLOTS_FIRST;
    free(l->slots);
    l->slots = calloc(l->slot_count, sizeof *l->slots);
    if (!l->slots)
        abort();
    for (size_t i = 0; i < l->word_count; i++) {
        size_t slot = l->words[i].hash & (l->slot_count - 1);
        while (l->slots[slot])
            slot = (slot + 1) & (l->slot_count - 1);
        l->slots[slot] = (uint32_t)i + 1;
    }
}

/* The word's number, made when it is new; UINT32_MAX: no room for it. */
static uint32_t find_word(struct rf_lexemes *l, const uint8_t *data, size_t size)
{
    uint32_t hash = hash_of(data, size);
    size_t slot;

    if (2 * (l->word_count + 1) > l->slot_count)
        rehash(l);
    for (slot = hash & (l->slot_count - 1); l->slots[slot];
         slot = (slot + 1) & (l->slot_count - 1)) {
        const struct word *word = &l->words[l->slots[slot] - 1];
        if (word->hash == hash && word->size == size &&
            memcmp(l->texts.data + word->offset, data, size) == 0)
            return l->slots[slot] - 1;
    }
    if (l->bytes + size + 8 > VECTOR_BYTES)
        return UINT32_MAX;
    l->bytes += size + 4; /* with what aligns it, and the number of its positions */
    l->words = grow(l->words, l->word_count, &l->word_room, sizeof *l->words);
    l->words[l->word_count] = (struct word){
        .offset = (uint32_t)l->texts.size, .size = (uint32_t)size, .hash = hash};
    rf_buf_put(&l->texts, data, size);
    l->slots[slot] = (uint32_t)l->word_count + 1;
    return (uint32_t)l->word_count++;
}

static void put(struct rf_lexemes *l, const uint8_t *data, size_t size, uint32_t position)
{
    uint32_t number = size && size <= LEXEME_BYTES ? find_word(l, data, size) : UINT32_MAX;
    struct word *word;

    if (number == UINT32_MAX) {
        l->is_long |= size > 0;
        return;
    }
    word = &l->words[number];
    if (position > POSITION_MAX) {
        l->is_long = true;
        if (word->count)
            return;
        position = POSITION_MAX;
    }
    if (word->count == POSITIONS_MAX || l->bytes + 2 > VECTOR_BYTES) {
        l->is_long = true;
        return;
    }
    l->bytes += 2;
    word->count++;
    l->places = grow(l->places, l->place_count, &l->place_room, sizeof *l->places);
    l->places[l->place_count++] =
        (struct place){.word = number, .position = (uint16_t)position};
}

void rf_lexemes_fold(struct rf_buf *out, struct rf_bytes piece)
{
    size_t start = out->size;
    bool ascii = true;
    utf8proc_uint8_t *folded = NULL;
    utf8proc_ssize_t size;

    for (size_t i = 0; i < piece.size; i++)
        ascii &= piece.data[i] < 0x80;
    if (ascii) {
        for (size_t i = 0; i < piece.size; i++)
            rf_buf_put_u8(out, piece.data[i] >= 'A' && piece.data[i] <= 'Z' ? piece.data[i] | 0x20
                                                                            : piece.data[i]);
    } else {
        size = utf8proc_map(piece.data, (utf8proc_ssize_t)piece.size, &folded,
                            UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_STRIPMARK |
                                UTF8PROC_CASEFOLD);
        if (size > 0)
            rf_buf_put(out, folded, (size_t)size);
        free(folded);
    }
    if (out->size - start > LEXEME_BYTES)
        out->size = start + rf_utf8_cut(rf_bytes(out->data + start, out->size - start),
                                        LEXEME_BYTES);
}

/* Grams from each letter of a run on, all at the letter's position. */
static void add_run(struct rf_lexemes *l, struct rf_bytes run)
{
    struct rf_bytes letters[GRAM_MAX];
    uint8_t gram[GRAM_MAX * 4];
    size_t at = 0, have = 0;

    for (;;) {
        size_t size = 0;
        while (have < GRAM_MAX && rf_grams_letter(run, &at, &letters[have]))
            have++;
        if (!have)
            return;
        for (size_t i = 0; i < have; i++) {
            memcpy(gram + size, letters[i].data, letters[i].size);
            size += letters[i].size;
            put(l, gram, size, l->position);
        }
        l->position++;
        have--;
        memmove(letters, letters + 1, have * sizeof *letters);
    }
}

void rf_lexemes_add(struct rf_lexemes *l, struct rf_bytes text)
{
    struct rf_grams_piece piece;
    size_t at = 0;

    while (rf_grams_next(text, &at, &piece)) {
        if (piece.gram) {
            add_run(l, piece.text);
            continue;
        }
        rf_buf_clear(&l->folded);
        rf_lexemes_fold(&l->folded, piece.text);
        put(l, l->folded.data, l->folded.size, l->position++);
    }
    l->position++; /* what stands in the next column does not follow */
}

static int by_text(const void *a, const void *b, void *user)
{
    const struct rf_lexemes *l = user;
    const struct word *x = &l->words[*(const uint32_t *)a], *y = &l->words[*(const uint32_t *)b];
    int order = memcmp(l->texts.data + x->offset, l->texts.data + y->offset,
                       x->size < y->size ? x->size : y->size);

    return order ? order : (x->size > y->size) - (x->size < y->size);
}

static void put_be(struct rf_buf *out, uint32_t value, size_t size)
{
    for (size_t i = size; i-- > 0;)
        rf_buf_put_u8(out, (uint8_t)(value >> (8 * i)));
}

void rf_lexemes_encode(struct rf_lexemes *l, struct rf_buf *out)
{
    uint32_t *order = malloc((l->word_count + 1) * sizeof *order);
    uint32_t *starts = malloc((l->word_count + 1) * sizeof *starts);
    uint16_t *positions = malloc((l->place_count + 1) * sizeof *positions);
    uint32_t start = 0;

    if (!order || !starts || !positions)
        abort();
    for (size_t i = 0; i < l->word_count; i++) {
        order[i] = (uint32_t)i;
        starts[i] = start;
        start += l->words[i].count;
    }
    for (size_t i = 0; i < l->place_count; i++)
        positions[starts[l->places[i].word]++] = l->places[i].position;
    if (l->word_count)
        qsort_r(order, l->word_count, sizeof *order, by_text, l);
    put_be(out, (uint32_t)(l->word_count + l->is_long), 4);
    if (l->is_long)
        rf_buf_put(out, RF_LEXEME_LONG "\0\0", 4); /* its NUL, and no positions */
    for (size_t i = 0; i < l->word_count; i++) {
        const struct word *word = &l->words[order[i]];
        rf_buf_put(out, l->texts.data + word->offset, word->size);
        rf_buf_put_u8(out, 0);
        put_be(out, word->count, 2);
        for (uint32_t k = starts[order[i]] - word->count; k < starts[order[i]]; k++)
            put_be(out, positions[k], 2);
    }
    free(order);
    free(starts);
    free(positions);
}
