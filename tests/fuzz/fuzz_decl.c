/* fuzz_decl.c - a declaration from a hostile mapper: names that pass are safe in SQL */
#include <stdlib.h>
#include <string.h>

#include "core/decl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must_be_name(const char *name)
{
    size_t size = strlen(name);

    if (size == 0 || size > RF_NAME_MAX ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != size)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rf_arena arena;
    struct rf_decl *decl;
    struct rf_error err = {0};

    rf_arena_init(&arena, 16 << 20);
    if (rf_decl_parse(&decl, &arena, rf_bytes(data, size), &err) == RF_OK) {
        must_be_name(decl->name);
        for (size_t i = 0; i < decl->table_count; i++) {
            must_be_name(decl->tables[i].name);
            for (size_t j = 0; j < decl->tables[i].column_count; j++)
                must_be_name(decl->tables[i].columns[j].name);
        }
    } else if (!err.message[0]) {
        abort();
    }
    rf_arena_release(&arena);
    return 0;
}
