/* fuzz_conf.c - configuration: whatever stands there gets an answer; what passes can be read */
#include <stdlib.h>

#include "core/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const choices[] = {"a", "b", NULL};
static const struct rf_option options[] = {
    {.name = "text", .type = RF_OPTION_TEXT},
    {.name = "choice", .type = RF_OPTION_TEXT, .choices = choices},
    {.name = "int", .type = RF_OPTION_INT, .preset = "5", .min = 1, .max = 10},
    {.name = "size", .type = RF_OPTION_SIZE},
    {.name = "wait", .type = RF_OPTION_DURATION},
    {.name = "flag", .type = RF_OPTION_BOOL},
    {.name = "list", .type = RF_OPTION_TEXTS},
    {0},
};
static const struct rf_section sections[] = {
    {.name = "one", .options = options},
    {.name = "many", .named = true, .options = options},
    {0},
};

static void read_all(const struct rf_json *table)
{
    struct rf_setting setting;

    for (size_t i = 0; options[i].name; i++) {
        setting = rf_conf_get(table, options, options[i].name);
        for (size_t j = 0; j < setting.count; j++)
            if (!rf_setting_text(&setting, j))
                abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rf_arena arena;
    struct rf_conf conf;
    struct rf_error err = {0};

    rf_arena_init(&arena, 16 << 20);
    if (rf_conf_parse(&conf, &arena, "f", rf_bytes(data, size), &err) == RF_OK &&
        rf_conf_check(&conf, sections, &err) == RF_OK) {
        const struct rf_json *many = rf_conf_find(&conf, "many", NULL);
        read_all(rf_conf_find(&conf, "one", NULL));
        for (size_t i = 0; many && i < many->count; i++)
            read_all(&many->items[i]);
    } else if (!err.message[0]) {
        abort();
    }
    rf_arena_release(&arena);
    return 0;
}
