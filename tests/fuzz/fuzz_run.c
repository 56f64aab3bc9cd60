/*
 * fuzz_run.c - lookup runs made by a hostile hand
 *
 * The first byte chooses: raw bytes, or bytes whose checksums are mended first, so that what lies
 * behind them is reached as well.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "blobstore/run.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void mend(uint8_t *file, size_t size)
{
    size_t footer, pages;
    uint64_t tag;

    if (size < 128 + 8)
        return;
    footer = rf_get_u32(file + size - 128 + 60);
    tag = rf_get_u64(file + size - 128 + 48);
    if (footer < 128 || footer > size)
        return;
    pages = (size - footer) / 4096;
    for (size_t i = 0; i < pages; i++)
        rf_put_u64(file + i * 4096, XXH3_64bits_withSeed(file + i * 4096 + 8, 4088, tag + i));
    rf_put_u64(file + size - 8, XXH3_64bits(file + size - footer, footer - 8));
}

static void use(struct rf_run *run)
{
    struct rf_run *both[2] = {run, run};
    struct rf_run_cursor *cursor;
    struct rf_run_entry entry;
    struct rf_blobref ref = {.algo = RF_ALGO_SHA256};
    struct rf_run_prefix prefix;

    for (int i = 0; i < 256; i++) {
        ref.digest[0] = (uint8_t)i;
        ref.digest[1] = (uint8_t)(i * 37);
        rf_run_prefix(run, (uint8_t)i, &prefix);
        (void)!rf_run_find(run, &ref, &entry, NULL);
    }
    if (rf_run_cursor_open(&cursor, both, 2, &ref, NULL) == RF_OK)
        rf_run_cursor_close(cursor);
    if (rf_run_cursor_open(&cursor, both, 2, NULL, NULL) != RF_OK)
        return;
    while (rf_run_cursor_next(cursor, &entry, NULL) == RF_OK)
        (void)!rf_run_find(run, &entry.ref, &entry, NULL);
    rf_run_cursor_close(cursor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("run", MFD_CLOEXEC), dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
    struct rf_run *run;
    uint8_t *file;
    char name[20];

    if (size < 1 || fd < 0 || dir < 0)
        goto out;
    file = malloc(size);
    if (!file)
        abort();
    memcpy(file, data + 1, size - 1);
    if (data[0] & 1)
        mend(file, size - 1);
    if (write(fd, file, size - 1) != (ssize_t)(size - 1))
        abort();
    free(file);
    snprintf(name, sizeof name, "%d", fd);
    if (rf_run_open(&run, dir, name, NULL) == RF_OK) {
        use(run);
        rf_run_close(run);
    }
out:
    close(fd);
    close(dir);
    return 0;
}
