/*
 * glob.h - patterns with * and ?, as mappers and policies name files and media types
 */
#ifndef RF_CORE_GLOB_H
#define RF_CORE_GLOB_H

#include "core/buf.h"

/* Whether all of text matches: `*` any bytes, `?` one, letters in either case. */
bool rf_glob_matches(const char *pattern, const char *text);

/* The same pattern for SQL's LIKE with '\' as escape. */
void rf_glob_put_like(struct rf_buf *out, const char *pattern);

#endif
