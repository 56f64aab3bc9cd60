/* fuzz_json.c - the JSON scanner, tree and writer: they agree, and what was written parses again */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/json_scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
    if (!good)
        abort();
}

/* The canonical form of a canonical form is itself. */
static void write_again(const struct rf_json *value)
{
    struct rf_buf first, second;
    struct rf_arena arena;
    const struct rf_json *again;

    rf_buf_init(&first, 8 << 20);
    rf_buf_init(&second, 8 << 20);
    rf_arena_init(&arena, 64 << 20);
    rf_json_put_canonical(&first, value);
    if (!first.failed) {
        must(rf_json_parse(&again, &arena, rf_buf_bytes(&first), NULL) == RF_OK);
        rf_json_put_canonical(&second, again);
        must(!second.failed && rf_bytes_equal(rf_buf_bytes(&first), rf_buf_bytes(&second)));
    }
    rf_arena_release(&arena);
    rf_buf_release(&first);
    rf_buf_release(&second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rf_bytes text = rf_bytes(data, size);
    struct rf_json_scan strict, fast;
    struct rf_error err = {0};
    struct rf_arena arena;
    const struct rf_json *value;
    bool checked = rf_json_check(text, &err) == RF_OK;

    rf_arena_init(&arena, 64 << 20);
    rf_json_scan_init(&strict, text);
    rf_json_scan_init(&fast, text);
    if (rf_json_check_next(&strict))
        must(rf_json_skip_next(&fast) && fast.p == strict.p);
    else
        (void)rf_json_skip_next(&fast);
    if (rf_json_parse(&value, &arena, text, NULL) == RF_OK) {
        must(checked);
        write_again(value);
    }
    rf_arena_release(&arena);
    return 0;
}
