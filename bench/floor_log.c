/* floor_log.c - the raw floors of a durable store: one file, group commit, nothing else */
#include "bench/floor_log.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bench/bench.h"

#define PUTS_PER_WRITE 256 /* two pieces each, within IOV_MAX */

void floor_hash(uint8_t digest[32], const void *bytes, size_t size)
{
    static _Thread_local EVP_MD_CTX *context;
    static _Thread_local EVP_MD *sha256;

    if (!context) {
        context = EVP_MD_CTX_new();
        sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    }
    if (!context || !sha256 || !EVP_DigestInit_ex2(context, sha256, NULL) ||
        !EVP_DigestUpdate(context, bytes, size) || !EVP_DigestFinal_ex(context, digest, NULL))
        bench_die("cannot hash");
}

static void write_puts(struct floor_log *log, struct floor_put *put)
{
    struct iovec pieces[2 * PUTS_PER_WRITE];

    while (put) {
        size_t count = 0, size = 0;
        for (; put && count < 2 * PUTS_PER_WRITE; put = put->next) {
            pieces[count++] = (struct iovec){put->header, FLOOR_HEADER_SIZE};
            pieces[count++] = (struct iovec){(void *)(uintptr_t)put->bytes, put->size};
            size += FLOOR_HEADER_SIZE + put->size;
        }
        if (pwritev(log->fd, pieces, (int)count, (off_t)log->end) != (ssize_t)size)
            bench_die("cannot append to the floor's log: %s", strerror(errno));
        log->end += size;
    }
}

static void *commit(void *arg)
{
    struct floor_log *log = arg;
    struct floor_put *put, *next;

    pthread_mutex_lock(&log->lock);
    for (;;) {
        while (!log->head && !log->stopping)
            pthread_cond_wait(&log->work, &log->lock);
        put = log->head;
        log->head = NULL;
        log->tail = &log->head;
        if (!put)
            break;
        pthread_mutex_unlock(&log->lock);
        write_puts(log, put);
        if (fdatasync(log->fd) != 0)
            bench_die("cannot sync the floor's log: %s", strerror(errno));
        log->syncs++;
        for (; put; put = next) {
            next = put->next;
            sem_post(put->done);
        }
        pthread_mutex_lock(&log->lock);
    }
    pthread_mutex_unlock(&log->lock);
    return NULL;
}

void floor_log_open(struct floor_log *log, const char *path, uint64_t room)
{
    memset(log, 0, sizeof *log);
    log->tail = &log->head;
    pthread_mutex_init(&log->lock, NULL);
    pthread_cond_init(&log->work, NULL);
    log->fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    if (log->fd < 0 || fallocate(log->fd, 0, 0, (off_t)room) != 0 || fsync(log->fd) != 0)
        bench_die("cannot make '%s': %s", path, strerror(errno));
    if (pthread_create(&log->committer, NULL, commit, log) != 0)
        bench_die("cannot start the floor's committer");
}

void floor_log_submit(struct floor_log *log, struct floor_put *put)
{
    floor_hash(put->header, put->bytes, put->size);
    put->next = NULL;
    pthread_mutex_lock(&log->lock);
    *log->tail = put;
    log->tail = &put->next;
    pthread_cond_signal(&log->work);
    pthread_mutex_unlock(&log->lock);
}

void floor_log_close(struct floor_log *log)
{
    pthread_mutex_lock(&log->lock);
    log->stopping = 1;
    pthread_cond_signal(&log->work);
    pthread_mutex_unlock(&log->lock);
    pthread_join(log->committer, NULL);
    pthread_mutex_destroy(&log->lock);
    pthread_cond_destroy(&log->work);
    close(log->fd);
}

/* ---- without a committer ---- */

void floor_pack_open(struct floor_pack *pack, const char *path)
{
    memset(pack, 0, sizeof *pack);
    pthread_mutex_init(&pack->lock, NULL);
    pthread_cond_init(&pack->woken, NULL);
    pack->fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    if (pack->fd < 0)
        bench_die("cannot make '%s': %s", path, strerror(errno));
}

/* Under the lock: wait until everything up to end is durable, syncing for all when nobody does. */
static void await_sync(struct floor_pack *pack, uint64_t end)
{
    while (pack->synced < end) {
        uint64_t upto = pack->written;
        if (pack->syncing) {
            pthread_cond_wait(&pack->woken, &pack->lock);
            continue;
        }
        pack->syncing = true;
        pthread_mutex_unlock(&pack->lock);
        if (fdatasync(pack->fd) != 0)
            bench_die("cannot sync the floor's pack: %s", strerror(errno));
        pthread_mutex_lock(&pack->lock);
        pack->syncing = false;
        pack->synced = upto;
        pack->syncs++;
        pthread_cond_broadcast(&pack->woken);
    }
}

void floor_pack_put(struct floor_pack *pack, const void *bytes, size_t size)
{
    uint8_t record[FLOOR_HEADER_SIZE + 4096] = {0};
    ssize_t whole = (ssize_t)(FLOOR_HEADER_SIZE + size);

    floor_hash(record, bytes, size);
    memcpy(record + FLOOR_HEADER_SIZE, bytes, size);
    pthread_mutex_lock(&pack->lock);
    if (pwrite(pack->fd, record, (size_t)whole, (off_t)pack->written) != whole)
        bench_die("cannot append to the floor's pack: %s", strerror(errno));
    pack->written += (uint64_t)whole;
    await_sync(pack, pack->written);
    pthread_mutex_unlock(&pack->lock);
}

void floor_pack_close(struct floor_pack *pack)
{
    pthread_mutex_destroy(&pack->lock);
    pthread_cond_destroy(&pack->woken);
    close(pack->fd);
}
