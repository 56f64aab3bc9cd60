/* test_core.c - errors, buffers, arenas, blobrefs */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "core/arena.h"
#include "core/blobref.h"
#include "core/buf.h"

static void error_keeps_the_first_cause(void **state)
{
    struct rf_error err = {0};

    (void)state;
    assert_int_equal(rf_error_set(&err, RF_IO, "cannot read '%s'", "a\nb"), RF_IO);
    rf_error_set(&err, RF_LIMIT, "another");
    assert_string_equal(err.message, "cannot read 'a\\x0ab'");
    assert_int_equal(rf_error_context(&err, RF_INVALID, "store '%s'", "home"), RF_IO);
    assert_string_equal(err.message, "store 'home': cannot read 'a\\x0ab'");
    assert_int_equal(rf_error_set(NULL, RF_IO, "nobody listens"), RF_IO);
    for (int i = 0; i < 200; i++) /* words pile up: cut, never past the end */
        rf_error_context(&err, RF_IO, "a layer with some words of its own");
    assert_true(strlen(err.message) < RF_ERROR_SIZE);
    for (int i = 0; i < RF_STATUS_COUNT; i++)
        assert_string_not_equal(rf_status_name((enum rf_status)i), "unknown");
}

static void buf_stops_at_its_maximum(void **state)
{
    struct rf_buf buf;

    (void)state;
    rf_buf_init(&buf, 10);
    rf_buf_put_text(&buf, "12345");
    rf_buf_put_text(&buf, "678901");
    assert_int_equal(buf.failed, RF_LIMIT);
    assert_int_equal(buf.size, 5);
    assert_null(rf_buf_text(&buf));
    rf_buf_clear(&buf);
    rf_buf_printf(&buf, "%d-%s", 7, "1234567");
    assert_string_equal(rf_buf_text(&buf), "7-1234567");
    rf_buf_put_u8(&buf, 'x');
    assert_int_equal(buf.size, 10);
    assert_string_equal(rf_buf_text(&buf), "7-1234567x");
    rf_buf_release(&buf);
}

static void buf_numbers_are_little_endian(void **state)
{
    struct rf_buf buf;

    (void)state;
    rf_buf_init(&buf, 100);
    rf_buf_put_u16(&buf, 0x1234);
    rf_buf_put_u32(&buf, 0x89abcdef);
    rf_buf_put_u64(&buf, 0x0102030405060708);
    assert_memory_equal(buf.data, "\x34\x12\xef\xcd\xab\x89\x08\x07\x06\x05\x04\x03\x02\x01", 14);
    assert_int_equal(rf_get_u32(buf.data + 2), 0x89abcdef);
    assert_true(rf_get_u64(buf.data + 6) == 0x0102030405060708);
    rf_buf_release(&buf);
}

static void arena_hands_out_aligned_memory(void **state)
{
    struct rf_arena arena;
    char *first;

    (void)state;
    rf_arena_init(&arena, 1 << 20);
    for (int round = 0; round < 3; round++) {
        for (size_t size = 0; size < 300000; size = size * 3 + 1) {
            char *memory = rf_arena_try(&arena, size);
            assert_non_null(memory);
            assert_int_equal((uintptr_t)memory % 16, 0);
            memset(memory, 0xaa, size);
        }
        first = rf_arena_alloc(&arena, 40);
        for (int i = 0; i < 40; i++)
            assert_int_equal(first[i], 0);
        assert_null(rf_arena_try(&arena, 1 << 20));
        assert_null(rf_arena_try(&arena, SIZE_MAX));
        rf_arena_clear(&arena);
    }
    assert_string_equal(rf_arena_copy(&arena, "abcdef", 3), "abc");
    rf_arena_release(&arena);
}

/* Digests from FIPS 180-4's examples. */
static void blobref_names_bytes(void **state)
{
    struct rf_blobref ref, again;
    char text[RF_BLOBREF_SIZE];
    struct rf_hasher *hasher = rf_hasher_new();

    (void)state;
    rf_blobref_of(&ref, rf_bytes_text("abc"));
    rf_blobref_format(&ref, text);
    assert_string_equal(text,
        "sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    rf_blobref_of(&again, rf_bytes_text(""));
    rf_blobref_format(&again, text);
    assert_string_equal(text,
        "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for (int round = 0; round < 2; round++) {
        rf_hasher_update(hasher, "a", 1);
        rf_hasher_update(hasher, "bc", 2);
        rf_hasher_finish(hasher, &again);
        assert_true(rf_blobref_equal(&ref, &again));
    }
    rf_hasher_free(hasher);
}

static void blobref_parse_is_strict(void **state)
{
    static const char *const bad[] = {
        "", "sha256-", "sha1-ba7816bf8f01cfea414140de5dae2223b00361a3",
        "sha256-BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
        "sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a",
        "sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015adx",
        "sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a/",
    };
    const char *good = "sha256-ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    struct rf_blobref ref;
    char text[RF_BLOBREF_SIZE];

    (void)state;
    assert_int_equal(rf_blobref_parse(&ref, good, strlen(good), NULL), RF_OK);
    rf_blobref_format(&ref, text);
    assert_string_equal(text, good);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rf_error err = {0};
        assert_int_equal(rf_blobref_parse(&ref, bad[i], strlen(bad[i]), &err), RF_INVALID);
        assert_non_null(strstr(err.message, "is not a blobref"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error_keeps_the_first_cause),
        cmocka_unit_test(buf_stops_at_its_maximum),
        cmocka_unit_test(buf_numbers_are_little_endian),
        cmocka_unit_test(arena_hands_out_aligned_memory),
        cmocka_unit_test(blobref_names_bytes),
        cmocka_unit_test(blobref_parse_is_strict),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
