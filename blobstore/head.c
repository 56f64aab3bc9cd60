/*
 * head.c - see head.h
 *
 * Waiting is one futex_waitv on two words: the shared one, and one of the feed that its cancel
 * changes. So neither a new change nor a cancel can slip in between a look and the sleep, and a
 * signal handler may cancel the very thread that sleeps.
 *
 * When another file has the name, it takes the place of the one that was open under the same
 * descriptor and at the same address (dup3, MAP_FIXED), so threads that use either need no lock.
 */
#include "blobstore/head.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define HEAD_NAME "head"
#define HEAD_SIZE 4096
#define HEAD_MAGIC "rfhead01"
#define READ_TRIES 1000
#define NAME_LOOK_MS 1000 /* how often a reader looks which file has the name */
#define BLIND_MS 1000     /* without a page to sleep on: look so often */
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

/* The part of the page that is used; zeros follow. */
struct image {
    char magic[8];
    uint32_t word;
    uint8_t unused[52];
    uint64_t slots[2][16];
};

struct rf_head {
    int dir;
    int fd; /* always open: a reader without the file holds its folder, which reads as bad */
    bool writing;
    uint64_t seed;
    uint8_t *map;       /* HEAD_SIZE bytes for futex calls, never touched by us */
    int64_t look_at_ms; /* atomic; a reader: when to look at the name again, */
    bool following;     /* atomic: and that a thread does */
    struct image image; /* a writer: what it published last, */
    uint32_t word;      /* atomic: the word of that, on which its own followers sleep, */
    bool failed;        /* and that it could not be written */
};

static int64_t now_ms(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- reading and writing the page ---- */

static bool read_image(const struct rf_head *head, struct image *out)
{
    ssize_t n;

    do
        n = pread(head->fd, out, sizeof *out, 0);
    while (n < 0 && errno == EINTR);
    return n == sizeof *out;
}

static bool write_bytes(int fd, const void *data, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t n = pwrite(fd, (const uint8_t *)data + done, size - done, (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            errno = n < 0 ? errno : ENOSPC;
            return false;
        }
        done += (size_t)n;
    }
    return true;
}

static bool write_page(int fd, const struct image *image)
{
    uint8_t page[HEAD_SIZE] = {0};

    memcpy(page, image, sizeof *image);
    return write_bytes(fd, page, sizeof page);
}

static uint64_t slot_check(const struct rf_head *head, const uint64_t slot[SLOT_COUNT])
{
    return XXH3_64bits_withSeed(slot, SLOT_CHECK * sizeof *slot, head->seed);
}

/* The slot that counts; NULL when it is not whole. */
static const uint64_t *sound_slot(const struct rf_head *head, const struct image *image)
{
    const uint64_t *slot = image->slots[image->word & 1];

    return slot[SLOT_WORD] == image->word && slot[SLOT_CHECK] == slot_check(head, slot) ? slot
                                                                                        : NULL;
}

/* ---- the file ---- */

/* Asked for its times, too, a file system would have to note a new time with the next write. */
static bool look_at(int dir, const char *name, unsigned what, struct statx *out)
{
    return statx(dir, name, AT_EMPTY_PATH, what, out) == 0 && (out->stx_mask & what) == what;
}

static bool is_file_of_name(const struct rf_head *head)
{
    struct statx open, named;

    return look_at(head->fd, "", STATX_INO, &open) &&
           look_at(head->dir, HEAD_NAME, STATX_INO, &named) && open.stx_ino == named.stx_ino &&
           open.stx_dev_major == named.stx_dev_major && open.stx_dev_minor == named.stx_dev_minor;
}

/* Put a file in the place of the one that is open. Takes fd over. */
static bool adopt_take(struct rf_head *head, int fd)
{
    bool done = mmap(head->map, HEAD_SIZE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == head->map &&
                dup3(fd, head->fd, O_CLOEXEC) >= 0;
    int cause = errno;

    close(fd);
    errno = cause;
    return done;
}

/* A reader follows the name to another file. */
static void follow_name(struct rf_head *head)
{
    int fd;

    if (is_file_of_name(head) ||
        __atomic_exchange_n(&head->following, true, __ATOMIC_ACQUIRE))
        return;
    fd = openat(head->dir, HEAD_NAME, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        (void)adopt_take(head, fd);
    __atomic_store_n(&head->following, false, __ATOMIC_RELEASE);
}

/* Go on with what is there. A word that starts anew must not be the one that a reader of the file
 * before saw last. */
static enum rf_status mend(struct rf_head *head, bool *lost, struct rf_error *err)
{
    *lost = !read_image(head, &head->image) ||
            memcmp(head->image.magic, HEAD_MAGIC, sizeof head->image.magic) != 0;
    if (*lost) {
        head->image = (struct image){.magic = HEAD_MAGIC};
        if (getrandom(&head->image.word, sizeof head->image.word, 0) < 0)
            return rf_error_errno(err, RF_IO, errno, "cannot take a random number");
    }
    head->word = head->image.word;
    if (!write_page(head->fd, &head->image))
        return rf_error_errno(err, RF_IO, errno, "cannot make '" HEAD_NAME "'");
    return RF_OK;
}

enum rf_status rf_head_open(struct rf_head **out, int dir, bool writing, uint64_t seed,
                            bool *lost, struct rf_error *err)
{
    struct rf_head *head = calloc(1, sizeof *head);
    int flags = writing ? O_RDWR | O_CREAT : O_RDONLY;
    enum rf_status status = RF_OK;

    if (!head)
        return rf_error_set(err, RF_NOMEM, "no memory for the head");
    *head = (struct rf_head){.dir = dir, .seed = seed, .writing = writing};
    head->fd = openat(dir, HEAD_NAME, flags | O_CLOEXEC, 0600);
    head->map = mmap(NULL, HEAD_SIZE, head->fd < 0 ? PROT_NONE : PROT_READ,
                     head->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED, head->fd, 0);
    if (head->fd < 0 && !writing)
        head->fd = fcntl(dir, F_DUPFD_CLOEXEC, 0);
    if (head->fd < 0 || head->map == MAP_FAILED)
        status = rf_error_errno(err, RF_IO, errno, "cannot open '" HEAD_NAME "'");
    else if (writing)
        status = mend(head, lost, err);
    if (status != RF_OK)
        rf_head_close(head);
    else
        *out = head;
    return status;
}

void rf_head_close(struct rf_head *head)
{
    if (!head)
        return;
    if (head->map != MAP_FAILED)
        munmap(head->map, HEAD_SIZE);
    if (head->fd >= 0)
        close(head->fd);
    free(head);
}

/* ---- reading ---- */

uint32_t rf_head_word(struct rf_head *head)
{
    uint32_t word = 0;
    int64_t now, look_at;

    if (head->writing)
        return __atomic_load_n(&head->word, __ATOMIC_ACQUIRE);
    now = now_ms(CLOCK_MONOTONIC_COARSE);
    look_at = __atomic_load_n(&head->look_at_ms, __ATOMIC_RELAXED);
    if (now >= look_at && __atomic_compare_exchange_n(&head->look_at_ms, &look_at,
                                                      now + NAME_LOOK_MS, false, __ATOMIC_RELAXED,
                                                      __ATOMIC_RELAXED))
        follow_name(head);
    if (pread(head->fd, &word, sizeof word, offsetof(struct image, word)) != sizeof word)
        return 0;
    return word;
}

/* A page that is bad, and not because it is being written, does not change from look to look. */
static const uint64_t *find_slot(const struct rf_head *head, struct image *image)
{
    struct image before;
    const uint64_t *slot = NULL;

    for (int tries = 0; !slot && tries < READ_TRIES; tries++) {
        before = *image;
        if (!read_image(head, image))
            return NULL;
        slot = sound_slot(head, image);
        if (!slot && tries > 0 && memcmp(image, &before, sizeof before) == 0)
            return NULL;
    }
    return slot;
}

bool rf_head_read(struct rf_head *head, struct rf_head_state *out)
{
    struct image image = {.word = 0};
    const uint64_t *slot = find_slot(head, &image);

    if (!slot && !head->writing) { /* maybe the writer made another one */
        follow_name(head);
        slot = find_slot(head, &image);
    }
    if (!slot)
        return false;
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

/* ---- publishing ---- */

static long futex(void *word, int op, uint32_t value, const struct timespec *timeout)
{
    return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

static uint8_t *word_address(const struct rf_head *head)
{
    return head->map + offsetof(struct image, word);
}

/* The file lost its name: make it again, and send the readers of the old one there. */
static bool make_again(struct rf_head *head)
{
    struct image bad = head->image;
    int fd = openat(head->dir, HEAD_NAME, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0)
        return false;
    if (!write_page(fd, &head->image)) {
        close(fd);
        return false;
    }
    memset(bad.slots, 0, sizeof bad.slots);
    (void)write_bytes(head->fd, &bad, sizeof bad);
    futex(word_address(head), FUTEX_WAKE, INT_MAX, NULL);
    return adopt_take(head, fd);
}

void rf_head_publish(struct rf_head *head, const struct rf_head_state *state)
{
    uint32_t word = head->word + 1;
    uint64_t *slot = head->image.slots[word & 1];
    struct statx file;

    assert(head->writing);
    slot[SLOT_SEQ] = state->seq;
    slot[SLOT_CHAIN] = state->chain;
    slot[SLOT_FIRST] = state->segment_first;
    slot[SLOT_END] = state->segment_end;
    slot[SLOT_ATTEMPT_EPOCH] = state->segment_attempt | (uint64_t)state->epoch << 32;
    slot[SLOT_BLOBS] = state->blobs;
    slot[SLOT_BYTES] = state->bytes;
    slot[SLOT_DEAD] = state->dead;
    slot[SLOT_WORD] = word;
    slot[SLOT_CHECK] = slot_check(head, slot);
    head->image.word = word;
    head->failed = !write_bytes(head->fd, &head->image, sizeof head->image);
    if (!look_at(head->fd, "", STATX_NLINK, &file) || file.stx_nlink == 0)
        head->failed = !make_again(head);
    futex(word_address(head), FUTEX_WAKE, INT_MAX, NULL);
    __atomic_store_n(&head->word, word, __ATOMIC_RELEASE);
    futex(&head->word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL);
}

enum rf_status rf_head_sync(struct rf_head *head, struct rf_error *err)
{
    if (head->failed)
        return rf_error_set(err, RF_IO, "'" HEAD_NAME "' could not be written");
    if (fdatasync(head->fd) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot make '" HEAD_NAME "' durable");
    return RF_OK;
}

/* ---- waiting ---- */

void rf_head_wait(struct rf_head *head, uint32_t word, uint32_t *own, uint32_t own_seen,
                  int timeout_ms)
{
    void *shared = head->writing ? (uint8_t *)&head->word : word_address(head);
    uint32_t private = head->writing ? FUTEX_PRIVATE_FLAG : 0;
    struct futex_waitv words[2] = {
        {.val = own_seen, .uaddr = (uintptr_t)own, .flags = FUTEX_32 | FUTEX_PRIVATE_FLAG},
        {.val = word, .uaddr = (uintptr_t)shared, .flags = FUTEX_32 | private},
    };
    int64_t until_ms = now_ms(CLOCK_MONOTONIC) + timeout_ms;
    struct timespec deadline = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    struct timespec slice = {0};
    bool old_kernel;

    if (syscall(SYS_futex_waitv, words, 2, 0, &deadline, CLOCK_MONOTONIC) >= 0)
        return;
    old_kernel = errno == ENOSYS;
    if (!old_kernel && errno != EFAULT)
        return;
    if (timeout_ms > (old_kernel ? OLD_KERNEL_MS : BLIND_MS))
        timeout_ms = old_kernel ? OLD_KERNEL_MS : BLIND_MS;
    slice.tv_sec = timeout_ms / 1000;
    slice.tv_nsec = timeout_ms % 1000 * 1000000;
    if (old_kernel && (futex(shared, FUTEX_WAIT | (int)private, word, &slice) == 0 ||
                       errno != EFAULT))
        return;
    futex(own, FUTEX_WAIT_PRIVATE, own_seen, &slice); /* no page is there to sleep on */
}

void rf_head_wake(uint32_t *own)
{
    __atomic_add_fetch(own, 1, __ATOMIC_RELEASE);
    futex(own, FUTEX_WAKE_PRIVATE, INT_MAX, NULL);
}
