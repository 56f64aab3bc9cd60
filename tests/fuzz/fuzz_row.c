/* fuzz_row.c - output of a mapper call from a hostile worker; what passes must keep its promises */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/row.h"
#include "core/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char decl_json[] =
    "{\"name\":\"m\",\"splits\":true,\"tables\":["
    "{\"name\":\"none\",\"columns\":[{\"name\":\"i\",\"type\":\"int\"}]},"
    "{\"name\":\"all\",\"columns\":[{\"name\":\"i\",\"type\":\"int\"},{\"name\":\"f\","
    "\"type\":\"float\"},"
    "{\"name\":\"b\",\"type\":\"bool\"},{\"name\":\"s\",\"type\":\"text\"},{\"name\":\"j\","
    "\"type\":\"json\"},"
    "{\"name\":\"t\",\"type\":\"time\"},{\"name\":\"r\",\"type\":\"blobref\"}]}]}";

static void must(bool good)
{
    if (!good)
        abort();
}

static void look_at(const struct rf_record *record)
{
    char text[RF_TIME_TEXT_SIZE];

    if (record->kind == RF_RECORD_PART && !record->inlined)
        must(record->size <= 100 && record->offset <= 100 - record->size);
    if (record->kind != RF_RECORD_ROW)
        return;
    for (size_t i = 0; i < record->column_count; i++) {
        const struct rf_value *value = &record->values[i];
        if (value->type == RF_TYPE_TEXT || value->type == RF_TYPE_JSON)
            must(rf_utf8_valid(value->text) == value->text.size);
        if (value->type == RF_TYPE_FLOAT)
            must(isfinite(value->real));
        if (value->type == RF_TYPE_TIME)
            rf_time_format(value->integer, text);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rf_arena arena;
    struct rf_decl *decl;
    struct rf_output_reader reader;
    struct rf_record record;
    struct rf_error err = {0};

    rf_arena_init(&arena, 1 << 20);
    must(rf_decl_parse(&decl, &arena, rf_bytes_text(decl_json), NULL) == RF_OK);
    rf_output_init(&reader, rf_bytes(data, size), decl, 100);
    while (rf_output_next(&reader, &record, &err) == RF_OK)
        look_at(&record);
    rf_output_release(&reader);
    rf_arena_release(&arena);
    return 0;
}
