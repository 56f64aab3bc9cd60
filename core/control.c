/* control.c - see control.h; empty unless built with RF_CONTROLS. */
#include "core/control.h"

#ifdef RF_CONTROLS
#include <stdlib.h>
#include <string.h>

bool rf_control_kept(const char *name)
{
    const char *list = getenv("REFUGE_WITHOUT");
    size_t size = strlen(name);

    while (list && *list) {
        size_t part = strcspn(list, ",");
        if (part == size && memcmp(list, name, size) == 0)
            return false;
        list += part + (list[part] == ',');
    }
    return true;
}
#else
typedef int rf_control_empty; /* a translation unit needs a declaration */
#endif
