/*
 * signals.c - the only place that handles signals
 *
 * The first SIGINT or SIGTERM sets a flag and wakes a thread that may call anything (a handler may
 * not); the second ends the process at once. SIGUSR1 asks for one line of progress. SIGPIPE is
 * ignored: writing reports EPIPE instead. Handlers, not a blocked mask, so that programs started
 * from here inherit nothing.
 */
#include "cmd/cli.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

volatile int rf_stop_flag;
static volatile sig_atomic_t status_wanted;
static int wake_fd = -1;

static pthread_mutex_t stop_lock = PTHREAD_MUTEX_INITIALIZER;
static void (*stop_function)(void *user);
static void *stop_user;

static void on_stop(int number)
{
    int saved = errno;
    uint64_t one = 1;

    (void)number;
    if (rf_stop_flag)
        _exit(RF_EXIT_STOPPED);
    rf_stop_flag = 1;
    if (wake_fd >= 0 && write(wake_fd, &one, sizeof one) < 0)
        _exit(RF_EXIT_STOPPED);
    errno = saved;
}

static void on_status(int number)
{
    (void)number;
    status_wanted = 1;
}

static void *call_on_stop(void *unused)
{
    uint64_t count;

    (void)unused;
    while (read(wake_fd, &count, sizeof count) != (ssize_t)sizeof count) {
        if (errno != EINTR)
            return NULL;
    }
    pthread_mutex_lock(&stop_lock);
    if (stop_function)
        stop_function(stop_user);
    pthread_mutex_unlock(&stop_lock);
    return NULL;
}

void rf_stop_watch(void)
{
    struct sigaction stop = {.sa_handler = on_stop}, usr1 = {.sa_handler = on_status,
                                                             .sa_flags = SA_RESTART};
    struct sigaction pipe = {.sa_handler = SIG_IGN};
    sigset_t all, before;
    pthread_t thread;

    wake_fd = eventfd(0, EFD_CLOEXEC);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals go to the main thread */
    if (wake_fd < 0 || pthread_create(&thread, NULL, call_on_stop, NULL))
        abort();
    pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGUSR1, &usr1, NULL);
    sigaction(SIGPIPE, &pipe, NULL);
}

bool rf_stop_asked(void)
{
    return rf_stop_flag != 0;
}

void rf_stop_call(void (*stop)(void *user), void *user)
{
    pthread_mutex_lock(&stop_lock);
    stop_function = stop;
    stop_user = user;
    if (stop && rf_stop_flag)
        stop(user);
    pthread_mutex_unlock(&stop_lock);
}

bool rf_status_asked(void)
{
    bool asked = status_wanted != 0;

    if (asked)
        status_wanted = 0;
    return asked;
}
