/*
 * zygote.c - see zygote.h
 *
 *   start -> warm -> give up rights -> HELLO -> wait -+-> fork request: FORKED or FAILED
 *                                        ^            +-> child ended: EXITED
 *                                        +------------+-> socket closed, supervisor dead: exit
 *
 * One thread. A worker is its child, so PR_SET_PDEATHSIG kills every worker when the zygote ends,
 * however it ends.
 */
#include "mappers/zygote.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NICE 10
#define FORK_FDS 2
#define CHILDREN_MAX 1024 /* far above what a pool keeps; more are refused */

struct zygote {
    struct rf_jail jail;
    int signals, supervisor; /* signalfd for SIGCHLD; pidfd of the supervisor, or -1 */
    pid_t pid;
    void (*worker)(const struct rf_worker_start *start);
    pid_t children[CHILDREN_MAX]; /* not reaped yet */
    size_t child_count;
};

static bool say(const struct rf_zygote_reply *reply, int fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {.bytes = {0}};
    struct iovec data = {.iov_base = (void *)reply, .iov_len = sizeof *reply};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};

    if (fd >= 0) {
        struct cmsghdr *c;
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    return sendmsg(RF_ZYGOTE_FD, &message, MSG_NOSIGNAL) == (ssize_t)sizeof *reply;
}

/* A fork request and its descriptors. false: the supervisor is gone or talks nonsense. */
static bool hear(struct rf_fork_request *request, int fds[FORK_FDS])
{
    union {
        char bytes[CMSG_SPACE(FORK_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec data = {.iov_base = request, .iov_len = sizeof *request};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c;

    if (recvmsg(RF_ZYGOTE_FD, &message, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof *request ||
        request->version != RF_PROTOCOL_VERSION)
        return false;
    c = CMSG_FIRSTHDR(&message);
    if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(FORK_FDS * sizeof(int)))
        return false;
    memcpy(fds, CMSG_DATA(c), FORK_FDS * sizeof(int));
    return true;
}

/* In the child. Descriptors: 3 becomes the worker's socket, the memory is mapped, the rest goes. */
static _Noreturn void become_worker(const struct zygote *zygote,
                                    const struct rf_fork_request *request, int memory, int sock)
{
    struct rf_worker_start start = {.flags = request->flags, .memory_mb = request->memory_mb,
                                    .jail = &zygote->jail};
    sigset_t none;
    void *map;

    sigemptyset(&none);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != zygote->pid)
        _exit(RF_EXIT_QUIET); /* the zygote died before we asked to die with it */
    setsid();
    if (request->flags & RF_FORK_NICE)
        (void)!setpriority(PRIO_PROCESS, 0, NICE);
    sigprocmask(SIG_SETMASK, &none, NULL);
    map = mmap(NULL, RF_SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (map == MAP_FAILED || dup2(sock, RF_ZYGOTE_FD) < 0)
        _exit(RF_EXIT_JAIL);
    if (!RF_SANITIZED)
        close_range(0, 2, 0); /* sanitizers report on 2 */
    close_range(RF_ZYGOTE_FD + 1, ~0u, 0);
    start.shared = map;
    zygote->worker(&start);
    _exit(RF_EXIT_QUIET);
}

/* Fork one worker and get its pidfd; -1: errno says why not. */
static int fork_worker(struct zygote *zygote, const struct rf_fork_request *request,
                       const int fds[FORK_FDS], pid_t *pid)
{
    if (zygote->child_count == CHILDREN_MAX) {
        errno = EAGAIN;
        return -1;
    }
    *pid = fork();
    if (*pid == 0)
        become_worker(zygote, request, fds[0], fds[1]);
    if (*pid < 0)
        return -1;
    zygote->children[zygote->child_count++] = *pid;
    return (int)syscall(SYS_pidfd_open, *pid, 0); /* not reaped yet, so it is this one */
}

/* Answer one fork request. false: stop serving. */
static bool serve_fork(struct zygote *zygote)
{
    struct rf_fork_request request;
    struct rf_zygote_reply reply = {.version = RF_PROTOCOL_VERSION, .kind = RF_ZYGOTE_FAILED};
    int fds[FORK_FDS], pidfd;
    pid_t pid = -1;
    bool said;

    if (!hear(&request, fds))
        return false;
    reply.tag = request.tag;
    pidfd = fork_worker(zygote, &request, fds, &pid);
    close(fds[0]);
    close(fds[1]);
    if (pidfd >= 0) {
        reply.kind = RF_ZYGOTE_FORKED;
        reply.pid = pid;
    } else {
        reply.status = errno;
        if (pid > 0)
            kill(pid, SIGKILL);
    }
    said = say(&reply, pidfd);
    if (pidfd >= 0)
        close(pidfd);
    return said;
}

static void forget_child(struct zygote *zygote, pid_t pid)
{
    for (size_t i = 0; i < zygote->child_count; i++)
        if (zygote->children[i] == pid)
            zygote->children[i] = zygote->children[--zygote->child_count];
}

/* Tell how children ended. */
static bool serve_exits(struct zygote *zygote)
{
    struct rf_zygote_reply reply = {.version = RF_PROTOCOL_VERSION, .kind = RF_ZYGOTE_EXITED};
    struct signalfd_siginfo drop;
    int status;

    (void)!read(zygote->signals, &drop, sizeof drop);
    while ((reply.pid = waitpid(-1, &status, WNOHANG)) > 0) {
        forget_child(zygote, reply.pid);
        reply.status = status;
        if (!say(&reply, -1))
            return false;
    }
    return true;
}

/* Leave nobody behind. Should this process be killed first, they die by PR_SET_PDEATHSIG. */
static void end_children(struct zygote *zygote)
{
    for (size_t i = 0; i < zygote->child_count; i++)
        kill(zygote->children[i], SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
}

static void serve(struct zygote *zygote)
{
    struct pollfd wait[3] = {{.fd = RF_ZYGOTE_FD, .events = POLLIN},
                             {.fd = zygote->signals, .events = POLLIN},
                             {.fd = zygote->supervisor, .events = POLLIN}};

    for (;;) {
        if (poll(wait, 3, -1) < 0) {
            if (errno == EINTR)
                continue;
            return;
        }
        if (wait[2].revents)
            return;
        if (wait[1].revents && !serve_exits(zygote))
            return;
        if (wait[0].revents && !serve_fork(zygote))
            return;
    }
}

/* Only SIGCHLD matters, and that is read from a descriptor. */
static bool take_signals(struct zygote *zygote)
{
    sigset_t child;

    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    signal(SIGCHLD, SIG_DFL);
    if (sigprocmask(SIG_SETMASK, &child, NULL) != 0)
        return false;
    zygote->signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    return zygote->signals >= 0;
}

int rf_zygote_run(void (*warm)(void), void (*worker)(const struct rf_worker_start *start))
{
    struct zygote zygote = {.pid = getpid(), .worker = worker};
    struct rf_zygote_reply hello = {.version = RF_PROTOCOL_VERSION, .kind = RF_ZYGOTE_HELLO};
    int type = 0;
    socklen_t size = sizeof type;

    if (getsockopt(RF_ZYGOTE_FD, SOL_SOCKET, SO_TYPE, &type, &size) != 0 ||
        type != SOCK_SEQPACKET)
        return 2; /* started by hand */
    zygote.supervisor = (int)syscall(SYS_pidfd_open, getppid(), 0);
    warm();
    if (!take_signals(&zygote) || rf_jail_prepare(&zygote.jail, NULL) != RF_OK)
        return RF_EXIT_JAIL;
    if (say(&hello, -1))
        serve(&zygote);
    end_children(&zygote);
    rf_jail_release(&zygote.jail);
    return RF_EXIT_QUIET;
}
