/*
 * nearest.h - "did you mean": the name a person most likely meant
 */
#ifndef RF_CORE_NEAREST_H
#define RF_CORE_NEAREST_H

#include <stddef.h>

/*
 * The entry of names (count of them, or up to a NULL when count is SIZE_MAX) that is nearest to
 * name by insertions, deletions, replacements and swaps of neighbours, or NULL when none is near:
 * at most one change per three letters, and at least one letter kept. The first of equals. A
 * longer name than 64 bytes is near nothing. Lent from names.
 */
const char *rf_nearest(const char *name, const char *const *names, size_t count);

#endif
