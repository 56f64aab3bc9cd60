/* snippet.c - see snippet.h */
#include "sinks/snippet.h"

#include "core/utf8.h"
#include "sinks/grams.h"
#include "sinks/lexemes.h"

#include <stdlib.h>
#include <string.h>

#define SNIPPET_TOKENS 24

struct token {
    size_t start, end;
    bool hit;
};

struct snippet {
    struct token *tokens;
    size_t count, room, hits;
};

/* Whether a word of the text is one that is searched for. */
static bool is_wanted(const struct rf_terms *terms, bool open, struct rf_bytes word,
                      struct rf_buf *scratch)
{
    for (size_t i = 0; i < terms->count; i++) {
        const struct rf_term *term = &terms->items[i];
        struct rf_grams_piece piece;
        size_t at = 0, folded_at = 0;

        while (!term->negated && rf_grams_next(term->text, &at, &piece)) {
            bool begins = term->prefix || (open && i + 1 == terms->count);
            struct rf_bytes want;
            if (piece.gram)
                continue;
            folded_at = scratch->size;
            rf_lexemes_fold(scratch, piece.text);
            want = rf_bytes(scratch->data + folded_at, scratch->size - folded_at);
            scratch->size = folded_at;
            if (want.size <= word.size && memcmp(want.data, word.data, want.size) == 0 &&
                (want.size == word.size || begins))
                return true;
        }
    }
    return false;
}

/* Bytes of the longest run searched for that the text goes on with; 0: none. */
static size_t run_here(const struct rf_terms *terms, struct rf_bytes text)
{
    size_t best = 0;

    for (size_t i = 0; i < terms->count; i++) {
        const struct rf_term *term = &terms->items[i];
        struct rf_grams_piece piece;
        size_t at = 0;

        while (!term->negated && rf_grams_next(term->text, &at, &piece))
            if (piece.gram && piece.text.size > best && piece.text.size <= text.size &&
                memcmp(piece.text.data, text.data, piece.text.size) == 0)
                best = piece.text.size;
    }
    return best;
}

static void add_token(struct snippet *s, size_t start, size_t end, bool hit)
{
    if (s->count == s->room) {
        s->room = s->room ? 2 * s->room : 256;
        s->tokens = realloc(s->tokens, s->room * sizeof *s->tokens);
        if (!s->tokens)
            abort();
    }
    s->tokens[s->count++] = (struct token){start, end, hit};
    s->hits += hit;
}

/* Letters of a run are tokens of their own, but for what is searched for. */
static void add_run(const struct rf_terms *terms, struct snippet *s, struct rf_bytes text,
                    struct rf_bytes run)
{
    size_t start = (size_t)(run.data - text.data), at = 0;

    while (at < run.size) {
        size_t hit = run_here(terms, rf_bytes(run.data + at, run.size - at)), size = 1;
        while (!hit && at + size < run.size && (run.data[at + size] & 0xc0) == 0x80)
            size++;
        add_token(s, start + at, start + at + (hit ? hit : size), hit > 0);
        at += hit ? hit : size;
    }
}

/* The tokens of a text; those that are searched for are hits. */
static void cut_text(const struct rf_terms *terms, bool open, struct snippet *s,
                     struct rf_bytes text)
{
    struct rf_grams_piece piece;
    struct rf_buf word;
    size_t at = 0;

    s->count = s->hits = 0;
    rf_buf_init(&word, 16 << 20);
    while (rf_grams_next(text, &at, &piece)) {
        if (piece.gram) {
            add_run(terms, s, text, piece.text);
        } else {
            size_t start = (size_t)(piece.text.data - text.data);
            rf_buf_clear(&word);
            rf_lexemes_fold(&word, piece.text);
            add_token(s, start, start + piece.text.size,
                      is_wanted(terms, open, rf_bytes(word.data, word.size), &word));
        }
    }
    rf_buf_release(&word);
}

/* Where the window with the most hits begins, a little before its first. */
static size_t best_window(const struct snippet *s)
{
    size_t best = 0, best_hits = 0, hits = 0, first;

    for (size_t end = 0; end < s->count; end++) {
        hits += s->tokens[end].hit;
        if (end >= SNIPPET_TOKENS)
            hits -= s->tokens[end - SNIPPET_TOKENS].hit;
        if (hits > best_hits) {
            best_hits = hits;
            best = end + 1 > SNIPPET_TOKENS ? end + 1 - SNIPPET_TOKENS : 0;
        }
    }
    for (first = best; first < s->count && !s->tokens[first].hit; first++)
        ;
    if (best == 0 && first < SNIPPET_TOKENS / 2)
        return 0;
    return first > SNIPPET_TOKENS / 4 ? first - SNIPPET_TOKENS / 4 : 0;
}

static void put_snippet(struct rf_buf *out, const struct snippet *s, struct rf_bytes text)
{
    size_t first = s->count ? best_window(s) : 0;
    size_t last = first + SNIPPET_TOKENS < s->count ? first + SNIPPET_TOKENS : s->count;
    size_t at = first ? s->tokens[first].start : 0;
    size_t end = last < s->count ? s->tokens[last - 1].end : text.size;

    if (first)
        rf_buf_put_text(out, "…");
    for (size_t i = first; i < last; i++) {
        const struct token *token = &s->tokens[i];
        if (!token->hit)
            continue;
        rf_buf_put(out, text.data + at, token->start - at);
        rf_buf_put_u8(out, 2);
        while (i + 1 < last && s->tokens[i + 1].hit && s->tokens[i + 1].start == s->tokens[i].end)
            i++; /* letters of a run */
        rf_buf_put(out, text.data + token->start, s->tokens[i].end - token->start);
        rf_buf_put_u8(out, 3);
        at = s->tokens[i].end;
    }
    if (end > at + 2000) /* what no word interrupts */
        end = at + rf_utf8_cut(rf_bytes(text.data + at, end - at), 2000);
    rf_buf_put(out, text.data + at, end - at);
    if (end < text.size)
        rf_buf_put_text(out, "…");
}

size_t rf_snippet_make(struct rf_buf *out, const struct rf_terms *terms, bool open,
                       struct rf_bytes text)
{
    struct snippet s = {0};
    size_t hits;

    cut_text(terms, open, &s, text);
    hits = s.hits;
    rf_buf_clear(out);
    put_snippet(out, &s, text);
    free(s.tokens);
    return hits;
}

/* A marked piece of a text. */
static void mark_words(struct rf_buf *out, struct rf_bytes marked)
{
    struct rf_grams_piece piece;
    size_t at = 0, written = 0;
    bool open = false;

    while (rf_grams_next(marked, &at, &piece)) {
        size_t start = (size_t)(piece.text.data - marked.data);

        if (!open || start > written) {
            if (open)
                rf_buf_put_u8(out, 3);
            rf_buf_put(out, marked.data + written, start - written);
            rf_buf_put_u8(out, 2);
        }
        open = true;
        written = start + piece.text.size;
        rf_buf_put(out, piece.text.data, piece.text.size);
    }
    if (open)
        rf_buf_put_u8(out, 3);
    rf_buf_put(out, marked.data + written, marked.size - written);
}

void rf_snippet_mark_words(struct rf_buf *out, struct rf_bytes snippet)
{
    const uint8_t *at = snippet.data, *end = snippet.data + snippet.size;

    while (at < end) {
        const uint8_t *mark = memchr(at, 2, (size_t)(end - at));
        const uint8_t *close = mark ? memchr(mark, 3, (size_t)(end - mark)) : NULL;

        if (!close)
            break;
        rf_buf_put(out, at, (size_t)(mark - at));
        mark_words(out, rf_bytes(mark + 1, (size_t)(close - mark) - 1));
        at = close + 1;
    }
    rf_buf_put(out, at, (size_t)(end - at));
}
