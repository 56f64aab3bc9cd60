/* fuzz_schema.c - schema blobs from a hostile store: what passes is in its one form */
#include <stdlib.h>
#include <string.h>

#include "backup/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool good)
{
    if (!good)
        abort();
}

static void look_at(const struct rf_file *file, struct rf_bytes bytes)
{
    struct rf_buf buf;
    uint64_t total = 0;

    must(file->name.size > 0 && !memchr(file->name.data, '/', file->name.size));
    must(strlen((const char *)file->name.data) == file->name.size);
    must(strcmp((const char *)file->name.data, "..") != 0);
    for (size_t i = 0; i < file->part_count; i++) {
        must(file->parts[i].offset == total && file->parts[i].size > 0);
        total += file->parts[i].size;
    }
    must(total == file->size);
    rf_buf_init(&buf, 8 << 20);
    rf_file_encode(&buf, file);
    must(rf_bytes_equal(rf_buf_bytes(&buf), bytes));
    rf_buf_release(&buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char head[] = "{\"!refuge\":\"file/1\",";
    struct rf_arena arena;
    struct rf_file file;
    enum rf_schema_kind kind;
    struct rf_error err = {0};
    struct rf_buf text;

    /* As it is, and behind the first member, which a fuzzer finds late. */
    rf_buf_init(&text, 8 << 20);
    for (int round = 0; round < 2; round++) {
        rf_buf_clear(&text);
        if (round)
            rf_buf_put(&text, head, sizeof head - 1);
        rf_buf_put(&text, data, size);
        rf_arena_init(&arena, 64 << 20);
        rf_error_clear(&err);
        if (!text.failed && rf_schema_parse(&kind, &file, &arena, rf_buf_bytes(&text),
                                            &err) == RF_OK) {
            if (kind == RF_SCHEMA_FILE)
                look_at(&file, rf_buf_bytes(&text));
        } else {
            must(text.failed || err.message[0]);
        }
        rf_arena_release(&arena);
    }
    rf_buf_release(&text);
    return 0;
}
