/* glob.c - patterns with * and ? */
#include "core/glob.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

bool rf_glob_matches(const char *pattern, const char *text)
{
    const char *star = NULL, *back = NULL;

    while (*text) {
        if (*pattern == '*') {
            star = pattern++;
            back = text;
        } else if (*pattern == '?' || strncasecmp(pattern, text, 1) == 0) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star + 1;
            text = ++back;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

void rf_glob_put_like(struct rf_buf *out, const char *pattern)
{
    for (; *pattern; pattern++) {
        if (strchr("%_\\", *pattern))
            rf_buf_put_u8(out, '\\');
        rf_buf_put_u8(out, *pattern == '*' ? '%' : *pattern == '?' ? '_' : (uint8_t)*pattern);
    }
}
