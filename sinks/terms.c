/* terms.c - see terms.h */
#include "sinks/terms.h"

#include "sinks/grams.h"

/* Bytes of the blank at a place: ASCII, no-break and ideographic space; 0: none. */
static size_t blank_size(const char *at)
{
    if (*at == ' ' || (*at >= '\t' && *at <= '\r'))
        return 1;
    if (strncmp(at, "\xc2\xa0", 2) == 0)
        return 2;
    return strncmp(at, "\xe3\x80\x80", 3) == 0 ? 3 : 0;
}

static bool has_pieces(struct rf_bytes text)
{
    struct rf_grams_piece piece;
    size_t at = 0;

    return rf_grams_next(text, &at, &piece);
}

/* One term from *at on; false at the end of the line. */
static bool next_term(const char **at, struct rf_term *out)
{
    const char *start;

    while (blank_size(*at))
        *at += blank_size(*at);
    if (!**at)
        return false;
    *out = (struct rf_term){0};
    if (**at == '-' && (*at)[1] && !blank_size(*at + 1)) {
        out->negated = true;
        ++*at;
    }
    if (**at == '"') {
        start = ++*at;
        *at += strcspn(*at, "\"");
        out->phrase = true;
        out->text = rf_bytes(start, (size_t)(*at - start));
        *at += **at == '"';
    } else {
        start = *at;
        while (**at && **at != '"' && !blank_size(*at))
            ++*at;
        out->text = rf_bytes(start, (size_t)(*at - start));
        if (out->text.size && out->text.data[out->text.size - 1] == '*')
            out->prefix = true;
    }
    if (**at == '*') {
        out->prefix = true;
        ++*at;
    }
    return true;
}

enum rf_status rf_terms_parse(struct rf_terms *out, const char *line, struct rf_error *err)
{
    struct rf_term term;
    bool positive = false;

    out->count = 0;
    while (next_term(&line, &term)) {
        if (!has_pieces(term.text))
            continue; /* "&" is no word */
        if (out->count == RF_TERMS_MAX)
            return rf_error_set(err, RF_LIMIT, "cannot search for more than %d words",
                                RF_TERMS_MAX);
        positive |= !term.negated;
        out->items[out->count++] = term;
    }
    if (!positive)
        return rf_error_set(err, RF_INVALID, "there is no word to search for in it");
    return RF_OK;
}

bool rf_terms_may_open(const struct rf_terms *terms)
{
    const struct rf_term *end = &terms->items[terms->count - 1];

    return !end->negated && !end->phrase && !end->prefix;
}
