/*
 * pool_watch.c - the thread that watches deadlines
 *
 * It sleeps without a timeout while no call is in flight, and looks every few milliseconds while
 * one is. At each look it reads which call a worker says it is in and the worker's CPU clock:
 *
 *   CPU    of the same call since the first look that saw it > its limit: killed
 *   wall   ten times that, counting neither what the worker waits for the supervisor nor what it
 *          waits for a processor (state R in /proc): killed
 *   total  CPU since the last answer that arrived > what all calls in flight may take together:
 *          killed; a worker that forges its slot lives no longer than that
 *
 * So a call is cut between its limit and one look more. Kills go through the pidfd: they reach the
 * worker that was meant, or nobody.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "core/control.h"
#include "mappers/pool_internal.h"

#define LOOK_MIN_MS 5
#define LOOK_MAX_MS 100
#define WALL_FACTOR 10
#define SPARE_MS 1000 /* CPU of a worker's own start */
#define PATIENCE 10 /* times the wall limit, for a worker that waits for a processor */

static int64_t clock_us(clockid_t clock)
{
    struct timespec t;

    return clock_gettime(clock, &t) == 0 ? (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000 : 0;
}

static int64_t cpu_us(pid_t pid)
{
    clockid_t clock;

    return clock_getcpuclockid(pid, &clock) == 0 ? clock_us(clock) : 0;
}

void rf_worker_condemn(struct rf_pool *pool, struct rf_pool_worker *w, enum rf_verdict verdict,
                       const char *words)
{
    pthread_mutex_lock(&pool->watch.lock);
    if (w->verdict == RF_VERDICT_NONE) {
        w->verdict = verdict;
        w->verdict_call = 0;
        snprintf(w->words, sizeof w->words, "%s", words);
    }
    pthread_mutex_unlock(&pool->watch.lock);
    (void)syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0);
}

/* call: the number of the one that is late; 0: whichever is oldest, as the worker's own word for
 * it cannot be had. */
static void kill_late(struct rf_pool_worker *w, enum rf_verdict verdict, uint64_t call)
{
    if (!RF_SAFEGUARD("deadline-kill"))
        return;
    w->verdict = verdict;
    w->verdict_call = call;
    (void)syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0);
}

/* Is the worker waiting for us? True while there is something for us to do: an ask unread, an
 * answer under way, or results to take. */
static bool waits_for_us(struct rf_pool_worker *w)
{
    struct pollfd wait = {.fd = w->sock, .events = POLLIN};
    uint64_t head = atomic_load_explicit(&w->shared->response_head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&w->shared->response_tail, memory_order_relaxed);

    return head != tail || atomic_load_explicit(&w->answering, memory_order_relaxed) ||
           poll(&wait, 1, 0) > 0;
}

/* Runnable, but without a processor? The third field of /proc/PID/stat says. */
static bool starved(pid_t pid)
{
    char path[40], text[256];
    ssize_t size;
    int fd;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size = read(fd, text, sizeof text - 1);
    close(fd);
    for (ssize_t i = size - 3; i > 0; i--)
        if (text[i] == ')')
            return text[i + 2] == 'R';
    return false;
}

static void seconds(char *out, size_t size, uint64_t ms)
{
    if (ms % 1000)
        snprintf(out, size, "%llu ms", (unsigned long long)ms);
    else
        snprintf(out, size, "%llu s", (unsigned long long)ms / 1000);
}

/* CPU that everything in flight may take together, with the mappers it loads for that. */
static int64_t total_us(const struct rf_pool_worker *w, uint32_t limit)
{
    int64_t calls = atomic_load_explicit(&w->outstanding, memory_order_relaxed);
    int64_t loads = atomic_load_explicit(&w->loads, memory_order_relaxed);

    if (loads > RF_POOL_CALLS_MAX)
        loads = RF_POOL_CALLS_MAX;
    return (calls * limit + loads * RF_LOAD_MS + SPARE_MS) * 1000;
}

/* Remember a new call, or a new answer, as the start of what is measured. */
static void mark(struct rf_pool_worker *w, int64_t cpu, int64_t now)
{
    uint64_t step = atomic_load_explicit(&w->shared->step, memory_order_relaxed);
    uint64_t answered = atomic_load_explicit(&w->answered, memory_order_relaxed);

    if (!w->watched || answered != w->seen) {
        w->seen = answered;
        w->seen_cpu_us = cpu;
    }
    if (!w->watched || step != w->step) {
        w->step = step;
        w->step_cpu_us = cpu;
        w->wall_us = 0;
    } else if (!waits_for_us(w)) {
        w->wall_us += now - w->looked_us;
    }
    w->looked_us = now;
    w->looked_cpu_us = cpu;
    w->watched = true;
}

static void look_at(struct rf_pool_worker *w, uint32_t *limit)
{
    bool loading = (atomic_load_explicit(&w->shared->step, memory_order_relaxed) & 3) ==
                   RF_PHASE_LOAD;
    int64_t cpu = cpu_us(w->pid), limit_us, wall_limit_us;
    char time[32];

    *limit = atomic_load_explicit(&w->limit_ms, memory_order_relaxed);
    limit_us = (int64_t)(loading ? RF_LOAD_MS : *limit) * 1000;
    wall_limit_us = limit_us * WALL_FACTOR;
    mark(w, cpu, clock_us(CLOCK_MONOTONIC));
    if (cpu - w->step_cpu_us > limit_us) {
        seconds(time, sizeof time, (uint64_t)limit_us / 1000);
        snprintf(w->words, sizeof w->words, "took more than %s of CPU%s", time,
                 loading ? " to load" : "");
        kill_late(w, loading ? RF_VERDICT_FAULT : RF_VERDICT_DEADLINE, w->step / 4);
    } else if (w->wall_us > wall_limit_us &&
               (w->wall_us > PATIENCE * wall_limit_us || !starved(w->pid))) {
        seconds(time, sizeof time, (uint64_t)wall_limit_us / 1000);
        snprintf(w->words, sizeof w->words, "took more than %s of time", time);
        kill_late(w, loading ? RF_VERDICT_FAULT : RF_VERDICT_DEADLINE, w->step / 4);
    } else if (cpu - w->seen_cpu_us > total_us(w, *limit)) {
        snprintf(w->words, sizeof w->words, "worker used its CPU time without an answer");
        kill_late(w, RF_VERDICT_FAULT, 0);
    }
}

/* Look at every worker with calls in flight. The milliseconds until the next look; 0: none. */
static uint32_t look(struct rf_pool *pool)
{
    uint32_t next = 0;

    for (size_t i = 0; i < RF_POOL_SLOTS; i++) {
        struct rf_pool_worker *w = pool->slots[i];
        uint32_t limit;

        if (!w || w->verdict != RF_VERDICT_NONE)
            continue;
        if (atomic_load(&w->outstanding) == 0) {
            w->watched = false;
            continue;
        }
        look_at(w, &limit);
        limit = limit / 4 < LOOK_MIN_MS ? LOOK_MIN_MS : limit / 4;
        if (next == 0 || limit < next)
            next = limit;
    }
    return next > LOOK_MAX_MS ? LOOK_MAX_MS : next;
}

static void sleep_ms(struct rf_watch *watch, uint32_t ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&watch->wake, &watch->lock, &until);
}

static void *watch_main(void *argument)
{
    struct rf_pool *pool = argument;
    struct rf_watch *watch = &pool->watch;

    pthread_mutex_lock(&watch->lock);
    while (!watch->stop) {
        uint32_t next = look(pool);
        if (next) {
            sleep_ms(watch, next);
            continue;
        }
        atomic_store(&watch->asleep, true);
        atomic_thread_fence(memory_order_seq_cst);
        if (look(pool) == 0 && !watch->stop) /* a call may have come in between */
            pthread_cond_wait(&watch->wake, &watch->lock);
        atomic_store(&watch->asleep, false);
    }
    pthread_mutex_unlock(&watch->lock);
    return NULL;
}

void rf_watch_wake(struct rf_pool *pool)
{
    atomic_thread_fence(memory_order_seq_cst); /* outstanding before its flag */
    if (!atomic_load_explicit(&pool->watch.asleep, memory_order_relaxed))
        return;
    pthread_mutex_lock(&pool->watch.lock);
    pthread_cond_signal(&pool->watch.wake);
    pthread_mutex_unlock(&pool->watch.lock);
}

enum rf_status rf_watch_start(struct rf_pool *pool, struct rf_error *err)
{
    struct rf_watch *watch = &pool->watch;
    pthread_condattr_t attributes;
    sigset_t all, before;
    int error;

    pthread_mutex_init(&watch->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    sigfillset(&all); /* signals are the host's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&watch->thread, NULL, watch_main, pool);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    watch->started = error == 0;
    return error ? rf_error_errno(err, RF_IO, error, "cannot start the mappers' watchdog") : RF_OK;
}

void rf_watch_stop(struct rf_pool *pool)
{
    struct rf_watch *watch = &pool->watch;

    if (watch->started) {
        pthread_mutex_lock(&watch->lock);
        watch->stop = true;
        pthread_cond_signal(&watch->wake);
        pthread_mutex_unlock(&watch->lock);
        pthread_join(watch->thread, NULL);
    }
    pthread_cond_destroy(&watch->wake);
    pthread_mutex_destroy(&watch->lock);
}
