/* grams.c - see grams.h. Letter and digit as unicode61 sees them: categories L, N and Co. */
#include "sinks/grams.h"

#include <utf8proc.h>

#define GRAM_MAX 3

enum class { SEPARATOR, WORD, GRAM, MARK };

/* Han, Hiragana, Katakana, Hangul, Thai, with their half-width and compatibility forms. */
static bool in_gram_script(int32_t c)
{
    static const struct {
        int32_t first, last;
    } ranges[] = {
        {0x0e01, 0x0e5b},   {0x1100, 0x11ff},   {0x2e80, 0x2fdf},   {0x3005, 0x3007},
        {0x3021, 0x3029},   {0x3031, 0x303c},   {0x3041, 0x30ff},   {0x3131, 0x318e},
        {0x31f0, 0x31ff},   {0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xa960, 0xa97c},
        {0xac00, 0xd7fb},   {0xf900, 0xfaff},   {0xff66, 0xffdc},   {0x1aff0, 0x1b16f},
        {0x20000, 0x3ffff},
    };

    if (c < ranges[0].first)
        return false;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i].first && c <= ranges[i].last)
            return true;
    return false;
}

static enum class classify(int32_t c)
{
    utf8proc_category_t category;

    if (c < 0x80)
        return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ? WORD
                                                                                  : SEPARATOR;
    category = utf8proc_category(c);
    switch (category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return in_gram_script(c) ? GRAM : WORD;
    case UTF8PROC_CATEGORY_CO:
        return WORD;
    case UTF8PROC_CATEGORY_MN:
        /* unicode61 lets combining accents belong to the word before them. */
        return in_gram_script(c) ? MARK : c >= 0x300 && c <= 0x331 ? WORD : SEPARATOR;
    default:
        return SEPARATOR;
    }
}

static enum class class_at(struct rf_bytes text, size_t at, size_t *size)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t used;

    if (text.data[at] < 0x80) {
        *size = 1;
        return classify(text.data[at]);
    }
    used = utf8proc_iterate(text.data + at, (utf8proc_ssize_t)(text.size - at), &c);
    if (used <= 0) { /* not UTF-8: cannot come from a checked value */
        *size = 1;
        return SEPARATOR;
    }
    *size = (size_t)used;
    return classify(c);
}

bool rf_grams_next(struct rf_bytes text, size_t *at, struct rf_grams_piece *out)
{
    size_t start = *at, end, size;
    enum class first = SEPARATOR, next;

    while (start < text.size && ((first = class_at(text, start, &size)) == SEPARATOR ||
                                 first == MARK))
        start += size;
    if (start >= text.size)
        return false;
    out->joined = start == *at && start > 0;
    out->gram = first == GRAM;
    for (end = start; end < text.size; end += size) {
        next = class_at(text, end, &size);
        if (next != first && !(first == GRAM && next == MARK))
            break;
    }
    out->text = rf_bytes(text.data + start, end - start);
    *at = end;
    return true;
}

bool rf_grams_letter(struct rf_bytes run, size_t *at, struct rf_bytes *letter)
{
    while (*at < run.size) {
        size_t size, start = *at;
        enum class kind = class_at(run, start, &size);
        *at += size;
        if (kind == GRAM) {
            *letter = rf_bytes(run.data + start, size);
            return true;
        }
    }
    return false;
}

/* All grams of one length, each followed by a space. Returns how many. */
static size_t put_grams(struct rf_buf *out, struct rf_bytes run, size_t length)
{
    struct rf_bytes window[GRAM_MAX];
    size_t at = 0, seen = 0;

    while (rf_grams_letter(run, &at, &window[seen % length])) {
        seen++;
        if (seen < length)
            continue;
        for (size_t k = 0; k < length; k++) {
            struct rf_bytes letter = window[(seen + k) % length];
            rf_buf_put(out, letter.data, letter.size);
        }
        rf_buf_put_u8(out, ' ');
    }
    return seen < length ? 0 : seen - length + 1;
}

static bool may_have_grams(struct rf_bytes text)
{
    unsigned high = 0;

    /* The first letter of these scripts, U+0E01, begins with byte 0xe0; no branch per byte. */
    for (size_t i = 0; i < text.size; i++)
        high |= text.data[i] >= 0xe0;
    return high != 0;
}

void rf_grams_put(struct rf_buf *out, struct rf_bytes text)
{
    struct rf_grams_piece piece, before = {0};
    size_t at = 0;
    bool pending = false; /* the piece before is of other letters and not yet repeated */

    if (!may_have_grams(text))
        return;
    while (rf_grams_next(text, &at, &piece)) {
        if (piece.gram) {
            if (pending && piece.joined) {
                rf_buf_put(out, before.text.data, before.text.size);
                rf_buf_put_u8(out, ' ');
            }
            for (size_t length = 1; length <= GRAM_MAX; length++)
                put_grams(out, piece.text, length);
            pending = false;
        } else if (piece.joined && before.gram) {
            rf_buf_put(out, piece.text.data, piece.text.size);
            rf_buf_put_u8(out, ' ');
            pending = false;
        } else {
            pending = true;
        }
        before = piece;
    }
}

void rf_grams_put_query(struct rf_buf *out, struct rf_bytes run)
{
    for (size_t length = GRAM_MAX; length > 0; length--)
        if (put_grams(out, run, length))
            return;
}
