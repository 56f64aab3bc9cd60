/*
 * fuzz_record.c - any bytes as a segment: scan, resync, seek
 *
 * The scan must end, never read outside, and give only records whose checksum holds. So that the
 * fuzzer gets past the checksums, the input's first byte says which headers are sealed anew first:
 * each set bit n seals the header at the next multiple of 96 << n bytes.
 */
#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blobstore/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct rf_log_place place = {.salt = 1, .first = 1};

/* Make a sound header of whatever fields stand at offset, as far as the rules allow. */
static void seal(uint8_t *bytes, size_t offset)
{
    uint8_t *at = bytes + offset;
    struct rf_log_record record = {
        .op = offset == 0 ? RF_LOG_BEGIN : RF_LOG_PUT,
        .algo = RF_ALGO_SHA256,
        .chain = rf_get_u64(at + 16),
        .checksum = rf_get_u64(at + 24),
        .seq = rf_get_u64(at + 32) | 1,
        .size = rf_get_u64(at + 48) & 0x1fffff,
        .life = rf_get_u32(at + 60) | 1,
    };

    record.stored = offset == 0 ? RF_LOG_BEGIN_SIZE
                    : record.size <= (1u << 20) ? (uint32_t)record.size : 0;
    rf_log_encode(at, &record, &place, offset);
}

static void scan_all(int fd, uint64_t limit)
{
    struct rf_scanned found;
    struct rf_scan scan;
    enum rf_status status = RF_OK;
    uint64_t before = 0, steps = 0;

    rf_scan_init(&scan, fd, &place, 0, limit);
    while (status == RF_OK) {
        status = rf_scan_next(&scan, &found, NULL);
        if (status == RF_OK) {
            assert(found.offset >= before && scan.offset > found.offset);
            assert(found.payload.size == 0 || found.payload.size == found.record.stored);
            before = found.offset;
            for (size_t i = 0; i < found.payload.size; i += 512)
                steps += found.payload.data[i]; /* the sanitizer looks whether it may be read */
        } else if (status == RF_CORRUPT) {
            status = rf_scan_resync(&scan, NULL);
        }
        assert(++steps < 1u << 30);
    }
    assert(status == RF_END);
    rf_scan_release(&scan);
    rf_scan_init(&scan, fd, &place, 0, limit);
    status = rf_scan_seek(&scan, limit % 1000, NULL);
    assert(status == RF_OK || status == RF_END);
    rf_scan_release(&scan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *bytes;
    int fd;

    if (size < 1 || size > (4u << 20))
        return 0;
    bytes = malloc(size);
    fd = memfd_create("segment", MFD_CLOEXEC);
    if (!bytes || fd < 0)
        abort();
    memcpy(bytes, data + 1, size - 1);
    bytes[size - 1] = 0;
    for (unsigned n = 0; n < 8; n++) {
        size_t step = (size_t)96 << n;
        if (!(data[0] & 1u << n))
            continue;
        for (size_t at = 0; at + RF_LOG_HEADER_SIZE <= size; at += step)
            seal(bytes, at);
    }
    if (write(fd, bytes, size) != (ssize_t)size)
        abort();
    scan_all(fd, size);
    close(fd);
    free(bytes);
    return 0;
}
