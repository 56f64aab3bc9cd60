/*
 * pool_zygote.c - starting refuge-mapper and talking to its zygote
 *
 * posix_spawn works from any thread of any host and copies no memory. The child gets one
 * descriptor; everything else of the host's is closed, whether marked close-on-exec or not.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mappers/pool_internal.h"

#define HELLO_MS 30000 /* for the program to load and say it is there */
#define FORK_MS 30000
#define GOODBYE_MS 5000 /* to end by itself */

/* Lua frees thousands of small blocks at once when it sweeps; with the usual 7 of a size kept ready
 * they go through the heap's slow path, a tenth of a call's time. At most 9 MiB lie idle so. */
static const char allocator[] = "GLIBC_TUNABLES=glibc.malloc.tcache_count=256";

/* The few variables that a zygote may see: the C library's, and those its build itself reads. */
static void fill_environment(char *environment[7], char texts[5][512])
{
    static const char *const names[] = {"ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS",
                                        "LSAN_OPTIONS", "REFUGE_WITHOUT"};
    size_t count = 0;

    environment[count++] = (char *)(uintptr_t)allocator;
#if RF_SANITIZED || defined(RF_CONTROLS)
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value) {
            snprintf(texts[i], sizeof texts[i], "%s=%s", names[i], value);
            environment[count++] = texts[i];
        }
    }
#else
    (void)names;
    (void)texts;
#endif
    environment[count] = NULL;
}

static int set_actions(posix_spawn_file_actions_t *actions, int sock)
{
    int failed = 0;

    failed |= posix_spawn_file_actions_adddup2(actions, sock, RF_ZYGOTE_FD);
    failed |= posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDWR, 0);
    failed |= posix_spawn_file_actions_addopen(actions, 1, "/dev/null", O_RDWR, 0);
    if (!RF_SANITIZED) /* reports of a sanitizer go to the host's stderr */
        failed |= posix_spawn_file_actions_addopen(actions, 2, "/dev/null", O_RDWR, 0);
    failed |= posix_spawn_file_actions_addclosefrom_np(actions, RF_ZYGOTE_FD + 1);
    return failed;
}

/* A clean slate of signals, and a session of its own: a ^C is for the host to handle. */
static int set_attributes(posix_spawnattr_t *attributes)
{
    sigset_t none, all;
    int failed = 0;

    sigemptyset(&none);
    sigfillset(&all);
    failed |= posix_spawnattr_setsigmask(attributes, &none);
    failed |= posix_spawnattr_setsigdefault(attributes, &all);
    failed |= posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                       POSIX_SPAWN_SETSID);
    return failed;
}

static int spawn(const char *program, int sock, pid_t *pid)
{
    char name[] = "refuge-mapper", *arguments[] = {name, NULL};
    char *environment[7], texts[5][512];
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error;

    fill_environment(environment, texts);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    error = set_actions(&actions, sock) | set_attributes(&attributes)
                ? ENOMEM
                : posix_spawn(pid, program, &actions, &attributes, arguments, environment);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return error;
}

void rf_zygote_stop(struct rf_pool *pool)
{
    if (!pool->zygote_pid)
        return;
    close(pool->zygote_sock); /* it ends its workers, then itself */
    if (pool->zygote_pidfd >= 0) {
        struct pollfd wait = {.fd = pool->zygote_pidfd, .events = POLLIN};
        while (poll(&wait, 1, GOODBYE_MS) < 0 && errno == EINTR)
            ;
        (void)syscall(SYS_pidfd_send_signal, pool->zygote_pidfd, SIGKILL, NULL, 0);
        close(pool->zygote_pidfd);
    }
    while (waitpid(pool->zygote_pid, NULL, 0) < 0 && errno == EINTR)
        ;
    pool->zygote_pid = 0;
    pool->zygote_sock = pool->zygote_pidfd = -1;
}

static void note_exit(struct rf_pool *pool, const struct rf_zygote_reply *reply)
{
    for (size_t i = 0; i < RF_POOL_SLOTS; i++) {
        struct rf_pool_worker *w = pool->slots[i];
        if (w && w->pid == reply->pid && w->zygote == pool->zygote_serial) {
            w->status_known = true;
            w->status = reply->status;
        }
    }
}

/* One piece of news. RF_TIMEOUT: none yet; RF_END: the zygote is gone. */
static enum rf_status receive(struct rf_pool *pool, int timeout_ms, struct rf_zygote_reply *reply,
                              int *fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec data = {.iov_base = reply, .iov_len = sizeof *reply};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    struct pollfd wait = {.fd = pool->zygote_sock, .events = POLLIN};
    struct cmsghdr *c;
    int ready;
    ssize_t size;

    *fd = -1;
    while ((ready = poll(&wait, 1, timeout_ms)) < 0 && errno == EINTR)
        ;
    if (ready <= 0)
        return ready == 0 ? RF_TIMEOUT : RF_END;
    size = recvmsg(pool->zygote_sock, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return RF_TIMEOUT;
    c = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(fd, CMSG_DATA(c), sizeof *fd);
    if (size == (ssize_t)sizeof *reply && reply->version == RF_PROTOCOL_VERSION)
        return RF_OK;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    return RF_END;
}

/* Its first words; a program of another version has others. */
static bool greeted(struct rf_pool *pool)
{
    struct rf_zygote_reply reply;
    int fd = -1;

    if (receive(pool, HELLO_MS, &reply, &fd) != RF_OK)
        return false;
    if (fd >= 0)
        close(fd);
    return reply.kind == RF_ZYGOTE_HELLO;
}

enum rf_status rf_zygote_start(struct rf_pool *pool, struct rf_error *err)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
    int pair[2], high, error;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return rf_error_errno(err, RF_IO, errno, "cannot make a socket for the mappers");
    high = fcntl(pair[1], F_DUPFD_CLOEXEC, 10); /* clear of the numbers the child is given */
    error = high < 0 ? errno : spawn(pool->program, high, &pool->zygote_pid);
    close(pair[1]);
    if (high >= 0)
        close(high);
    if (error) {
        close(pair[0]);
        pool->zygote_pid = 0;
        return rf_error_errno(err, RF_UNAVAILABLE, error, "cannot start mappers' program '%s'",
                              pool->program);
    }
    pool->zygote_sock = pair[0];
    pool->zygote_pidfd = (int)syscall(SYS_pidfd_open, pool->zygote_pid, 0);
    pool->zygote_serial++;
    if (!greeted(pool) ||
        epoll_ctl(pool->epoll, EPOLL_CTL_ADD, pool->zygote_sock, &event) != 0) {
        rf_zygote_stop(pool);
        return rf_error_set(err, RF_UNAVAILABLE,
                            "mappers' program '%s' ends at once: is it of this version?",
                            pool->program);
    }
    return RF_OK;
}

enum rf_status rf_zygote_hear(struct rf_pool *pool, int timeout_ms)
{
    struct rf_zygote_reply reply;
    enum rf_status status;
    int fd;

    status = receive(pool, timeout_ms, &reply, &fd);
    while (status == RF_OK) {
        if (fd >= 0)
            close(fd); /* of a fork that nobody waits for any more */
        if (reply.kind == RF_ZYGOTE_EXITED)
            note_exit(pool, &reply);
        status = receive(pool, 0, &reply, &fd);
    }
    return status == RF_TIMEOUT ? RF_OK : status;
}

static enum rf_status send_request(struct rf_pool *pool, const struct rf_fork_request *request,
                                   const int fds[2])
{
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control = {.bytes = {0}};
    struct iovec data = {.iov_base = (void *)request, .iov_len = sizeof *request};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);

    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(c), fds, 2 * sizeof(int));
    return sendmsg(pool->zygote_sock, &message, MSG_NOSIGNAL) == (ssize_t)sizeof *request
               ? RF_OK
               : RF_END;
}

enum rf_status rf_zygote_fork(struct rf_pool *pool, struct rf_pool_worker *w, uint32_t flags,
                              int memory, int sock, struct rf_error *err)
{
    struct rf_fork_request request = {.version = RF_PROTOCOL_VERSION, .tag = w->serial,
                                      .flags = flags, .memory_mb = w->memory_mb};
    struct rf_zygote_reply reply;
    enum rf_status status = send_request(pool, &request, (int[]){memory, sock});
    int fd;

    while (status == RF_OK) {
        status = receive(pool, FORK_MS, &reply, &fd);
        if (status)
            break;
        if (reply.kind == RF_ZYGOTE_EXITED)
            note_exit(pool, &reply);
        if (reply.kind == RF_ZYGOTE_FAILED && reply.tag == request.tag)
            return rf_error_errno(err, RF_UNAVAILABLE, reply.status, "cannot fork a worker");
        if (reply.kind == RF_ZYGOTE_FORKED && reply.tag == request.tag && fd >= 0) {
            w->pid = reply.pid;
            w->pidfd = fd;
            w->zygote = pool->zygote_serial;
            return RF_OK;
        }
        if (fd >= 0)
            close(fd);
    }
    return rf_error_set(err, RF_END, "the process that forks workers is gone");
}
