/*
 * head.c - see head.h
 *
 * Waiting is one futex_waitv on two words: the shared one, and one of the feed that its cancel
 * changes. So neither a new change nor a cancel can slip in between a look and the sleep, and a
 * signal handler may cancel the very thread that sleeps.
 */
#include "blobstore/head.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define HEAD_NAME "head"
#define HEAD_SIZE 4096
#define HEAD_MAGIC "rfhead01"
#define READ_TRIES 1000
#define OLD_KERNEL_MS 100 /* without futex_waitv (before Linux 5.16): look so often */

enum {
    SLOT_SEQ,
    SLOT_CHAIN,
    SLOT_FIRST,
    SLOT_END,
    SLOT_ATTEMPT_EPOCH,
    SLOT_BLOBS,
    SLOT_BYTES,
    SLOT_DEAD,
    SLOT_WORD,
    SLOT_CHECK,
    SLOT_COUNT
};

struct page {
    char magic[8];
    uint32_t word;
    uint8_t unused[52];
    uint64_t slots[2][16];
};

struct rf_head {
    int fd;
    uint64_t seed;
    struct page *page;
};

enum rf_status rf_head_open(struct rf_head **out, int dir, bool writing, uint64_t seed,
                            struct rf_error *err)
{
    struct rf_head *head = calloc(1, sizeof *head);
    int flags = writing ? O_RDWR | O_CREAT : O_RDONLY;
    enum rf_status status = RF_OK;
    static const uint8_t empty[HEAD_SIZE];
    void *map;
    struct stat st;

    if (!head)
        return rf_error_set(err, RF_NOMEM, "no memory for the head");
    head->seed = seed;
    head->fd = openat(dir, HEAD_NAME, flags | O_CLOEXEC, 0600);
    if (head->fd < 0 || fstat(head->fd, &st) != 0) {
        status = rf_error_errno(err, errno == ENOENT ? RF_NOT_FOUND : RF_IO, errno,
                                "cannot open 'head'");
        goto out;
    }
    if (st.st_size < HEAD_SIZE && !writing) {
        status = rf_error_set(err, RF_NOT_FOUND, "'head' is too short");
        goto out;
    }
    /* Written, not just extended: a store into a hole of a full disk would be a SIGBUS. */
    if (st.st_size < HEAD_SIZE && pwrite(head->fd, empty, HEAD_SIZE, 0) != HEAD_SIZE) {
        status = rf_error_errno(err, RF_IO, errno ? errno : ENOSPC, "cannot make 'head'");
        goto out;
    }
    map = mmap(NULL, HEAD_SIZE, writing ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED,
               head->fd, 0);
    if (map == MAP_FAILED) {
        status = rf_error_errno(err, RF_IO, errno, "cannot map 'head'");
        goto out;
    }
    head->page = map;
    if (writing)
        memcpy(head->page->magic, HEAD_MAGIC, sizeof head->page->magic);
    *out = head;
    head = NULL;
out:
    rf_head_close(head);
    return status;
}

void rf_head_close(struct rf_head *head)
{
    if (!head)
        return;
    if (head->page)
        munmap(head->page, HEAD_SIZE);
    if (head->fd >= 0)
        close(head->fd);
    free(head);
}

uint32_t rf_head_word(struct rf_head *head)
{
    return __atomic_load_n(&head->page->word, __ATOMIC_ACQUIRE);
}

static uint64_t slot_check(const struct rf_head *head, const uint64_t slot[SLOT_COUNT])
{
    return XXH3_64bits_withSeed(slot, SLOT_CHECK * sizeof *slot, head->seed);
}

static bool read_slot(struct rf_head *head, uint32_t word, uint64_t slot[SLOT_COUNT])
{
    for (int i = 0; i < SLOT_COUNT; i++)
        slot[i] = __atomic_load_n(&head->page->slots[word & 1][i], __ATOMIC_ACQUIRE);
    return slot[SLOT_WORD] == word && slot[SLOT_CHECK] == slot_check(head, slot);
}

bool rf_head_read(struct rf_head *head, struct rf_head_state *out)
{
    uint64_t slot[SLOT_COUNT];
    uint32_t word;
    int tries = 0;

    for (;;) {
        word = rf_head_word(head);
        if (read_slot(head, word, slot))
            break;
        /* Overwritten while we read, which takes two publications; else it is bad. */
        if (rf_head_word(head) == word || ++tries == READ_TRIES)
            return false;
    }
    *out = (struct rf_head_state){
        .seq = slot[SLOT_SEQ],
        .chain = slot[SLOT_CHAIN],
        .segment_first = slot[SLOT_FIRST],
        .segment_end = slot[SLOT_END],
        .segment_attempt = (uint32_t)slot[SLOT_ATTEMPT_EPOCH],
        .epoch = (uint32_t)(slot[SLOT_ATTEMPT_EPOCH] >> 32),
        .blobs = slot[SLOT_BLOBS],
        .bytes = slot[SLOT_BYTES],
        .dead = slot[SLOT_DEAD],
        .has_chain = true,
    };
    return true;
}

static long futex(uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
    return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

void rf_head_publish(struct rf_head *head, const struct rf_head_state *state)
{
    uint32_t word = rf_head_word(head) + 1;
    uint64_t slot[SLOT_COUNT] = {
        [SLOT_SEQ] = state->seq,
        [SLOT_CHAIN] = state->chain,
        [SLOT_FIRST] = state->segment_first,
        [SLOT_END] = state->segment_end,
        [SLOT_ATTEMPT_EPOCH] = state->segment_attempt | (uint64_t)state->epoch << 32,
        [SLOT_BLOBS] = state->blobs,
        [SLOT_BYTES] = state->bytes,
        [SLOT_DEAD] = state->dead,
        [SLOT_WORD] = word,
    };

    slot[SLOT_CHECK] = slot_check(head, slot);
    for (int i = 0; i < SLOT_COUNT; i++)
        __atomic_store_n(&head->page->slots[word & 1][i], slot[i], __ATOMIC_RELEASE);
    __atomic_store_n(&head->page->word, word, __ATOMIC_RELEASE);
    futex(&head->page->word, FUTEX_WAKE, INT_MAX, NULL);
}

enum rf_status rf_head_sync(struct rf_head *head, struct rf_error *err)
{
    if (fdatasync(head->fd) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot make 'head' durable");
    return RF_OK;
}

bool rf_head_is_current(struct rf_head *head, int dir)
{
    struct stat mapped, named;

    return fstat(head->fd, &mapped) == 0 && fstatat(dir, HEAD_NAME, &named, 0) == 0 &&
           mapped.st_dev == named.st_dev && mapped.st_ino == named.st_ino &&
           named.st_size >= HEAD_SIZE;
}

void rf_head_wait(struct rf_head *head, uint32_t word, uint32_t *own, uint32_t own_seen,
                  int timeout_ms)
{
    struct futex_waitv words[2] = {
        {.val = own_seen, .uaddr = (uintptr_t)own, .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG},
        {.val = word, .uaddr = head ? (uintptr_t)&head->page->word : 0, .flags = FUTEX_32},
    };
    struct timespec deadline, slice;

    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += timeout_ms / 1000;
    deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (deadline.tv_nsec >= 1000000000) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000;
    }
    if (syscall(SYS_futex_waitv, words, head ? 2 : 1, 0, &deadline, CLOCK_MONOTONIC) >= 0 ||
        errno != ENOSYS)
        return;
    if (timeout_ms > OLD_KERNEL_MS)
        timeout_ms = OLD_KERNEL_MS;
    slice = (struct timespec){.tv_nsec = (long)timeout_ms * 1000000};
    if (head)
        futex(&head->page->word, FUTEX_WAIT, word, &slice);
    else
        futex(own, FUTEX_WAIT_PRIVATE, own_seen, &slice);
}

void rf_head_wake(uint32_t *own)
{
    __atomic_add_fetch(own, 1, __ATOMIC_RELEASE);
    futex(own, FUTEX_WAKE_PRIVATE, INT_MAX, NULL);
}
