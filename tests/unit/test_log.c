/* test_log.c - records, scans, searches in segments; the table of the tail */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blobstore/large.h"
#include "blobstore/log_record.h"
#include "blobstore/runs.h"
#include "blobstore/segment.h"
#include "blobstore/table.h"

static const struct rf_log_place place = {.salt = 0x1122334455667788, .first = 10, .attempt = 2};

static struct rf_log_record sample(uint64_t seq, uint32_t stored)
{
    struct rf_log_record record = {.op = RF_LOG_PUT, .algo = RF_ALGO_SHA256, .seq = seq,
                                   .timestamp_us = 1790000000000000, .size = stored,
                                   .stored = stored, .life = 1, .chain = seq * 77};

    memset(record.digest, (int)seq, sizeof record.digest);
    return record;
}

static void a_record_comes_back_and_no_flipped_bit_passes(void **state)
{
    struct rf_log_record record = sample(12, 100), back;
    uint8_t bytes[RF_LOG_HEADER_SIZE];
    struct rf_log_place other = place;

    (void)state;
    record.flags = RF_LOG_PART | RF_LOG_BATCH;
    record.checksum = 0xfedcba9876543210;
    rf_log_encode(bytes, &record, &place, 4096);
    assert_true(rf_log_decode(&back, bytes, &place, 4096));
    assert_int_equal(back.op, RF_LOG_PUT);
    assert_int_equal(back.flags, record.flags);
    assert_true(back.checksum == record.checksum && back.chain == record.chain);
    assert_true(back.seq == 12 && back.size == 100 && back.stored == 100 && back.life == 1);
    assert_int_equal(back.timestamp_us, record.timestamp_us);
    assert_memory_equal(back.digest, record.digest, RF_DIGEST_SIZE);
    for (size_t bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        if (rf_log_decode(&back, bytes, &place, 4096))
            fail_msg("bit %zu", bit);
        bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    assert_false(rf_log_decode(&back, bytes, &place, 4104)); /* only where it was written */
    other.attempt++;
    assert_false(rf_log_decode(&back, bytes, &other, 4096));
    other = place;
    other.salt++;
    assert_false(rf_log_decode(&back, bytes, &other, 4096));
}

static void the_chain_says_what_must_not_change(void **state)
{
    struct rf_log_record record = sample(12, 100), other = record;
    uint64_t chain = rf_log_chain(5, &record);

    (void)state;
    other.flags = RF_LOG_GONE | RF_LOG_BATCH; /* what compaction changes is not in it */
    other.stored = 0;
    other.checksum = 1;
    assert_true(rf_log_chain(5, &other) == chain);
    assert_true(rf_log_chain(6, &record) != chain);
    other = record;
    other.life += 2;
    assert_true(rf_log_chain(5, &other) != chain);
    other = record;
    other.flags = RF_LOG_PART;
    assert_true(rf_log_chain(5, &other) != chain);
    other = record;
    other.timestamp_us++;
    assert_true(rf_log_chain(5, &other) != chain);
}

static void counts_follow_the_changes(void **state)
{
    struct rf_log_record record = sample(1, 100);
    uint64_t blobs = 0, bytes = 0;

    (void)state;
    rf_log_tally(&record, &blobs, &bytes);
    assert_true(blobs == 1 && bytes == 100);
    record.flags = RF_LOG_LIFT;
    rf_log_tally(&record, &blobs, &bytes);
    assert_true(blobs == 1 && bytes == 100);
    record.flags = 0;
    record.op = RF_LOG_DELETE;
    rf_log_tally(&record, &blobs, &bytes);
    rf_log_tally(&record, &blobs, &bytes); /* of a put that was lost: not below nothing */
    assert_true(blobs == 0 && bytes == 0);
}

static void names_have_one_form(void **state)
{
    static const char *const bad[] = {"", "0000000000000001", "0000000000000001-", "1-0",
                                      "0000000000000000-0", "000000000000000A-0",
                                      "0000000000000001-00", "0000000000000001-0 ",
                                      ".tmp-0000000000000001-0"};
    struct rf_log_place got = {.salt = 9};
    struct rf_blobref ref;
    char name[RF_LARGE_NAME_SIZE];
    uint64_t from, to;
    uint32_t life;

    (void)state;
    rf_segment_name(&place, name);
    assert_string_equal(name, "000000000000000a-2");
    assert_true(rf_segment_parse(&got, name));
    assert_true(got.salt == 9 && got.first == 10 && got.attempt == 2);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(rf_segment_parse(&got, bad[i]));
    rf_runs_name(1, 255, name);
    assert_string_equal(name, "0000000000000001-00000000000000ff");
    assert_true(rf_runs_parse(&from, &to, name) && from == 1 && to == 255);
    assert_false(rf_runs_parse(&from, &to, "0000000000000002-0000000000000001"));
    assert_false(rf_runs_parse(&from, &to, "0000000000000001-00000000000000ff.tmp"));
    rf_blobref_of(&ref, rf_bytes_text("x"));
    rf_large_name(&ref, 3, name);
    memset(&ref, 0, sizeof ref);
    assert_true(rf_large_parse(&ref, &life, name) && life == 3);
    strcat(name, "x");
    assert_false(rf_large_parse(&ref, &life, name));
}

/* ---- a segment in memory ---- */

struct segment {
    int fd;
    uint64_t size, count;
    uint64_t *offsets; /* by seq - place.first */
};

static void make_segment(struct segment *segment, unsigned seed, uint64_t count)
{
    uint8_t begin[RF_LOG_HEADER_SIZE + RF_LOG_BEGIN_SIZE];
    struct rf_log_begin content = {.format = RF_LOG_FORMAT, .generation = 1, .salt = place.salt};
    struct rf_log_record record = {.op = RF_LOG_BEGIN, .seq = place.first,
                                   .stored = RF_LOG_BEGIN_SIZE};

    segment->fd = memfd_create("segment", MFD_CLOEXEC);
    segment->count = count;
    segment->offsets = calloc(count, sizeof *segment->offsets);
    rf_log_begin_encode(begin + RF_LOG_HEADER_SIZE, &content, place.first);
    record.checksum = rf_log_checksum(rf_bytes(begin + RF_LOG_HEADER_SIZE, RF_LOG_BEGIN_SIZE));
    rf_log_encode(begin, &record, &place, 0);
    assert_int_equal(pwrite(segment->fd, begin, sizeof begin, 0), sizeof begin);
    segment->size = sizeof begin;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t stored = (seed = seed * 1664525u + 1013904223u) >> 28 ? (seed >> 8) % 3000
                                                                        : (seed >> 8) % 300000;
        uint8_t *bytes = malloc(RF_LOG_HEADER_SIZE + stored);
        record = sample(place.first + i, stored);
        memset(bytes + RF_LOG_HEADER_SIZE, (int)i, stored);
        record.checksum = rf_log_checksum(rf_bytes(bytes + RF_LOG_HEADER_SIZE, stored));
        rf_log_encode(bytes, &record, &place, segment->size);
        assert_int_equal(pwrite(segment->fd, bytes, RF_LOG_HEADER_SIZE + stored,
                                (off_t)segment->size), RF_LOG_HEADER_SIZE + stored);
        free(bytes);
        segment->offsets[i] = segment->size;
        segment->size += rf_log_span(&record);
    }
    assert_int_equal(ftruncate(segment->fd, (off_t)segment->size + 4096), 0);
}

static void free_segment(struct segment *segment)
{
    close(segment->fd);
    free(segment->offsets);
}

static void a_scan_gives_every_record_and_passes_damage(void **state)
{
    static const uint8_t junk[100] = {1, 2, 3};
    struct segment segment;
    struct rf_scanned found;
    struct rf_scan scan;
    uint64_t seq = place.first;

    (void)state;
    make_segment(&segment, 1, 500);
    assert_int_equal(pwrite(segment.fd, junk, 100, (off_t)segment.offsets[100] + 8), 100);
    assert_int_equal(pwrite(segment.fd, junk, 1, (off_t)segment.offsets[201] - 9), 1);
    rf_scan_init(&scan, segment.fd, &place, 0, segment.size);
    assert_int_equal(rf_scan_next(&scan, &found, NULL), RF_OK);
    assert_int_equal(found.record.op, RF_LOG_BEGIN);
    while (seq < place.first + 500) {
        enum rf_status status = rf_scan_next(&scan, &found, NULL);
        if (seq == place.first + 100) {
            assert_int_equal(status, RF_CORRUPT);
            assert_int_equal(rf_scan_next(&scan, &found, NULL), RF_CORRUPT); /* it stays */
            assert_int_equal(rf_scan_resync(&scan, NULL), RF_OK);
            seq++;
            continue;
        }
        assert_int_equal(status, RF_OK);
        assert_int_equal(found.record.seq, seq);
        assert_int_equal(found.offset, segment.offsets[seq - place.first]);
        assert_int_equal(found.damaged, seq == place.first + 200);
        assert_int_equal(found.payload.size, found.record.stored);
        if (found.record.stored && !found.damaged)
            assert_int_equal(found.payload.data[0], (uint8_t)(seq - place.first));
        seq++;
    }
    assert_int_equal(rf_scan_next(&scan, &found, NULL), RF_END);
    rf_scan_release(&scan);
    free_segment(&segment);
}

static void a_seek_finds_every_sequence(void **state)
{
    struct segment segment;
    struct rf_scanned found;
    struct rf_scan scan;

    (void)state;
    make_segment(&segment, 7, 3000);
    for (uint64_t i = 0; i < 3000; i += 7) {
        rf_scan_init(&scan, segment.fd, &place, 0, segment.size);
        assert_int_equal(rf_scan_seek(&scan, place.first + i, NULL), RF_OK);
        assert_int_equal(scan.offset, segment.offsets[i]);
        assert_int_equal(rf_scan_next(&scan, &found, NULL), RF_OK);
        assert_int_equal(found.record.seq, place.first + i);
        rf_scan_release(&scan);
    }
    rf_scan_init(&scan, segment.fd, &place, 0, segment.size + 4096);
    assert_int_equal(rf_scan_seek(&scan, place.first + 3000, NULL), RF_END);
    assert_int_equal(scan.offset, segment.size);
    rf_scan_release(&scan);
    free_segment(&segment);
}

/* ---- the table ---- */

static void a_table_keeps_the_newest_of_each(void **state)
{
    struct rf_table table = {0};
    struct rf_entry *sorted = NULL;

    (void)state;
    for (unsigned i = 0; i < 3000; i++) {
        struct rf_entry entry = {.op = RF_LOG_PUT, .seq = i + 1, .life = 1};
        unsigned number = i % 1000;
        rf_blobref_of(&entry.ref, rf_bytes(&number, sizeof number));
        assert_int_equal(rf_table_reserve(&table, 1, NULL), RF_OK);
        rf_table_put(&table, &entry);
    }
    assert_int_equal(table.count, 1000);
    for (unsigned i = 0; i < 2000; i++) {
        struct rf_blobref ref;
        const struct rf_entry *entry;
        rf_blobref_of(&ref, rf_bytes(&i, sizeof i));
        entry = rf_table_find(&table, &ref);
        assert_true(i < 1000 ? entry && entry->seq == i + 2001 : !entry);
    }
    assert_int_equal(rf_table_sorted(&table, &sorted, NULL), RF_OK);
    for (int i = 1; i < 1000; i++)
        assert_true(rf_blobref_compare(&sorted[i - 1].ref, &sorted[i].ref) < 0);
    free(sorted);
    rf_table_release(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_comes_back_and_no_flipped_bit_passes),
        cmocka_unit_test(the_chain_says_what_must_not_change),
        cmocka_unit_test(counts_follow_the_changes),
        cmocka_unit_test(names_have_one_form),
        cmocka_unit_test(a_scan_gives_every_record_and_passes_damage),
        cmocka_unit_test(a_seek_finds_every_sequence),
        cmocka_unit_test(a_table_keeps_the_newest_of_each),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
