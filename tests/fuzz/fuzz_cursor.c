/* fuzz_cursor.c - a cursor that is read must be written as the same text */
#include <assert.h>
#include <string.h>

#include "blobstore/blobstore.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[256], again[RF_CURSOR_SIZE];
    struct rf_cursor cursor;
    struct rf_error err = {0};

    if (size >= sizeof text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (rf_cursor_parse(&cursor, text, &err) != RF_OK) {
        assert(err.status == RF_INVALID && err.message[0]);
        return 0;
    }
    rf_cursor_format(&cursor, again);
    assert(strcmp(text, again) == 0);
    return 0;
}
