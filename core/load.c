/* load.c - a library that is loaded at its first use */
#include "core/load.h"

#include <dlfcn.h>
#include <string.h>

enum rf_status rf_load(const char *file, const char *package, const struct rf_symbol *symbols,
                       size_t count, struct rf_error *err)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);

    if (!library)
        return rf_error_set(err, RF_UNSUPPORTED, "cannot load a library: %s; install package %s",
                            dlerror(), package);
    for (size_t i = 0; i < count; i++) {
        void *found = dlsym(library, symbols[i].name);

        if (!found)
            return rf_error_set(err, RF_UNSUPPORTED,
                                "library '%s' has no function '%s'; install a newer package %s",
                                file, symbols[i].name, package);
        memcpy(symbols[i].place, &found, sizeof found); /* ISO C has no cast for it, POSIX does */
    }
    return RF_OK;
}
