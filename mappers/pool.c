/*
 * pool.c - jobs in, results out
 *
 * Submitting feeds at once what workers have room for. Waiting takes turns: take what workers have
 * written, feed again, and only when nothing is there raise the flag that makes workers ring and
 * sleep. No lock and no system call is on the way of an item while both sides are busy.
 *
 * Lanes: the fast lane spreads jobs over its workers, many in flight in each. The slow lane and
 * the second tries send one call at a time, to niced workers; one at a time while the fast lane
 * has work, one per core while it has none.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "mappers/pool_internal.h"

#define EVENTS_A_TURN 64
#define LOOK_AT_SOCKETS 16   /* turns between looks at the sockets while results keep coming */
#define WEIGH_CALLS 2048     /* calls between looks at a worker's memory */
#define STILLBORN_MAX 3
#define BASE_MB 384          /* address space of program, libraries, rings, stack and room */
#define HEAPS_MAX_MB 8192u   /* of all Lua heaps of one worker */
#define RSS_MB 32            /* of a worker with the usual limits; mappers may declare more */

/* ---- queues ---- */

void rf_job_push(struct rf_job_queue *queue, struct rf_job *job)
{
    job->next = NULL;
    if (queue->last)
        queue->last->next = job;
    else
        queue->first = job;
    queue->last = job;
}

void rf_job_push_front(struct rf_job_queue *queue, struct rf_job *job)
{
    job->next = queue->first;
    queue->first = job;
    if (!queue->last)
        queue->last = job;
}

struct rf_job *rf_job_pop(struct rf_job_queue *queue)
{
    struct rf_job *job = queue->first;

    if (job) {
        queue->first = job->next;
        if (!queue->first)
            queue->last = NULL;
    }
    return job;
}

void rf_pool_settle(struct rf_pool *pool, struct rf_job *job)
{
    if (job->result->status)
        rf_job_push(&pool->done, job);
    else if (job->todo)
        rf_job_push_front(job->lane == RF_LANE_FAST ? &pool->fast : &pool->slow, job);
    else if (job->solo)
        rf_job_push(&pool->solo, job);
    else
        rf_job_push(&pool->done, job);
}

/* ---- feeding ---- */

/* May this worker get more work? One that was given less memory than a mapper loaded since then
 * declares is let go. */
static bool takes_work(struct rf_pool *pool, struct rf_pool_worker *w, enum rf_worker_kind kind)
{
    if (!w || w->kind != kind || w->retiring || w->verdict != RF_VERDICT_NONE)
        return false;
    if (w->memory_mb >= pool->memory_mb)
        return true;
    rf_worker_retire(pool, w);
    return false;
}

/* The worker of the fast lane with least to do; a new one as long as there may be more. */
static struct rf_pool_worker *pick_fast(struct rf_pool *pool, enum rf_status *status,
                                        struct rf_error *err)
{
    struct rf_pool_worker *best = NULL;

    for (size_t i = 0; i < RF_POOL_SLOTS; i++) {
        struct rf_pool_worker *w = pool->slots[i];
        if (takes_work(pool, w, RF_WORKER_FAST) && (!best || w->sent_count < best->sent_count))
            best = w;
    }
    if ((!best || best->sent_count) && pool->kinds[RF_WORKER_FAST] < pool->workers_max &&
        pool->stillborn < STILLBORN_MAX) {
        struct rf_pool_worker *fresh;
        *status = rf_worker_open(pool, RF_WORKER_FAST, NULL, &fresh, err);
        if (*status == RF_OK)
            best = fresh;
    }
    return best && best->sent_count < RF_POOL_DEPTH ? best : NULL;
}

static enum rf_status feed_fast(struct rf_pool *pool, struct rf_error *err)
{
    enum rf_status status = RF_OK;

    while (pool->fast.first) {
        struct rf_pool_worker *w = pick_fast(pool, &status, err);
        struct rf_job *job;
        uint64_t mask;

        if (!w)
            break;
        job = rf_job_pop(&pool->fast);
        mask = job->todo;
        job->todo = 0;
        if (rf_worker_send(pool, w, job, mask))
            continue;
        job->todo = mask;
        rf_job_push_front(&pool->fast, job);
        break;
    }
    return status;
}

static unsigned count_busy(const struct rf_pool *pool, unsigned kinds)
{
    unsigned count = 0;

    for (size_t i = 0; i < RF_POOL_SLOTS; i++) {
        const struct rf_pool_worker *w = pool->slots[i];
        count += w && (kinds >> w->kind & 1) && w->sent_count;
    }
    return count;
}

static struct rf_pool_worker *idle_slow(struct rf_pool *pool)
{
    for (size_t i = 0; i < RF_POOL_SLOTS; i++)
        if (takes_work(pool, pool->slots[i], RF_WORKER_SLOW) && !pool->slots[i]->sent_count)
            return pool->slots[i];
    return NULL;
}

/* Send one call of a job that is in no queue. */
static enum rf_status send_one(struct rf_pool *pool, struct rf_job *job, uint64_t *calls,
                               enum rf_worker_kind kind, struct rf_error *err)
{
    struct rf_pool_worker *w = kind == RF_WORKER_SLOW ? idle_slow(pool) : NULL;
    uint64_t bit = *calls & -*calls;
    enum rf_status status = RF_OK;

    if (!w)
        status = rf_worker_open(pool, kind, NULL, &w, err);
    if (status == RF_OK) {
        *calls &= ~bit;
        if (rf_worker_send(pool, w, job, bit))
            return RF_OK;
        *calls |= bit; /* an empty ring without room: its worker is lying */
        rf_worker_discard(pool, w);
    }
    rf_pool_settle(pool, job);
    return status ? status : RF_UNAVAILABLE;
}

static enum rf_status feed_slow(struct rf_pool *pool, struct rf_error *err)
{
    unsigned background = 1u << RF_WORKER_SLOW | 1u << RF_WORKER_SOLO;
    unsigned busy, most = pool->workers_max;
    enum rf_status status = RF_OK;

    if (!pool->solo.first && !pool->slow.first)
        return RF_OK;
    if (pool->fast.first || count_busy(pool, 1u << RF_WORKER_FAST))
        most = 1;
    busy = count_busy(pool, background);
    for (; status == RF_OK && pool->stillborn < STILLBORN_MAX && busy < most; busy++) {
        struct rf_job *job = rf_job_pop(&pool->solo);
        if (job) {
            status = send_one(pool, job, &job->solo, RF_WORKER_SOLO, err);
            continue;
        }
        job = rf_job_pop(&pool->slow);
        if (!job)
            break;
        status = send_one(pool, job, &job->todo, RF_WORKER_SLOW, err);
    }
    return status;
}

/* RF_UNAVAILABLE and words when a worker is missing that could not be started. */
static enum rf_status feed(struct rf_pool *pool, struct rf_error *err)
{
    enum rf_status fast = feed_fast(pool, err), slow = feed_slow(pool, err);

    if (pool->stillborn >= STILLBORN_MAX)
        return rf_error_set(err, RF_UNAVAILABLE, "mappers' workers cannot enter their jail");
    return fast ? fast : slow;
}

/* ---- turns ---- */

/* Resident memory that is the worker's own, in MiB; 0 when it cannot be told. */
static uint64_t weigh(pid_t pid)
{
    char path[40], text[128], *at = text;
    uint64_t pages[3]; /* of the address space, resident, shared */
    ssize_t got;
    int fd;

    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    got = read(fd, text, sizeof text - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    for (size_t i = 0; i < 3; i++)
        pages[i] = strtoull(at, &at, 10);
    return pages[2] > pages[1] ? 0 : (pages[1] - pages[2]) * (uint64_t)sysconf(_SC_PAGESIZE) >> 20;
}

/* Has it lived long enough? */
static bool worn(struct rf_pool *pool, struct rf_pool_worker *w)
{
    if (w->calls >= pool->recycle_calls || w->cpu_us / 1000000 > RF_WORKER_CPU_S / 2)
        return true;
    if (RF_SANITIZED || w->calls - w->weighed_at < WEIGH_CALLS)
        return false;
    w->weighed_at = w->calls;
    return weigh(w->pid) > pool->rss_max_mb;
}

/* Take what every worker has written; let go of those that have served. */
static void collect(struct rf_pool *pool)
{
    for (size_t i = 0; i < RF_POOL_SLOTS; i++) {
        struct rf_pool_worker *w = pool->slots[i];

        if (!w || w->kind == RF_WORKER_TASK)
            continue;
        if (w->sent_count && rf_worker_drain(pool, w) != RF_OK)
            rf_worker_bury(pool, w);
        else if (w->kind == RF_WORKER_SOLO && w->calls && !w->sent_count)
            rf_worker_discard(pool, w);
        else if (w->retiring || worn(pool, w))
            rf_worker_retire(pool, w);
    }
}

/* Handle what the sockets say. false: nothing happened in timeout_ms. */
static bool listen_for(struct rf_pool *pool, int timeout_ms)
{
    struct epoll_event events[EVENTS_A_TURN];
    int count = epoll_wait(pool->epoll, events, EVENTS_A_TURN, timeout_ms);

    for (int i = 0; i < count; i++) {
        uint64_t data = events[i].data.u64;
        struct rf_pool_worker *w;

        if (data == UINT64_MAX) {
            if (pool->zygote_pid && rf_zygote_hear(pool, 0) == RF_END)
                rf_zygote_stop(pool);
            continue;
        }
        w = pool->slots[data >> 32];
        if (!w || w->serial != (uint32_t)data || w->kind == RF_WORKER_TASK)
            continue; /* gone since this event was born */
        if (rf_worker_answer(pool, w) != RF_OK)
            rf_worker_bury(pool, w);
    }
    return count > 0 || (count < 0 && errno == EINTR);
}

/* Ask workers to ring, or no longer. true: there is something to take already. */
static bool want_bell(struct rf_pool *pool, uint32_t wanted)
{
    bool ready = false;

    for (size_t i = 0; i < RF_POOL_SLOTS; i++)
        if (pool->slots[i] && pool->slots[i]->sent_count)
            atomic_store_explicit(&pool->slots[i]->shared->supervisor_waits, wanted,
                                  memory_order_relaxed);
    if (!wanted)
        return false;
    atomic_thread_fence(memory_order_seq_cst); /* our flag before their heads */
    for (size_t i = 0; i < RF_POOL_SLOTS; i++)
        if (pool->slots[i] && pool->slots[i]->sent_count)
            ready |= !rf_ring_empty(&pool->slots[i]->responses);
    return ready;
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* One turn without sleeping. */
static enum rf_status take_turn(struct rf_pool *pool, struct rf_error *err)
{
    collect(pool);
    if (++pool->turns % LOOK_AT_SOCKETS == 0)
        listen_for(pool, 0);
    return feed(pool, err);
}

static struct rf_result *take_result(struct rf_pool *pool)
{
    struct rf_job *job = rf_job_pop(&pool->done);

    if (!job)
        return NULL;
    pool->pending[job->lane]--;
    return job->result;
}

enum rf_status rf_pool_next(struct rf_pool *pool, struct rf_result **out, int timeout_ms,
                            struct rf_error *err)
{
    int64_t until = timeout_ms > 0 ? now_ms() + timeout_ms : 0;

    for (bool late = false;;) {
        struct rf_error own = {.status = RF_OK};
        enum rf_status status;
        int64_t left = -1;

        if (pool->done.first)
            return *out = take_result(pool), RF_OK;
        if (pool->pending[RF_LANE_FAST] + pool->pending[RF_LANE_SLOW] == 0)
            return RF_END;
        status = take_turn(pool, &own);
        if (pool->done.first)
            continue;
        if (status && count_busy(pool, ~0u) == 0) {
            pool->stillborn = 0; /* the next call tries again */
            return rf_error_set(err, status, "%s", own.message);
        }
        if (late)
            return rf_error_set(err, RF_TIMEOUT, "no result in %d ms", timeout_ms);
        if (timeout_ms >= 0)
            left = timeout_ms ? until - now_ms() : 0;
        late = timeout_ms >= 0 && left <= 0;
        if (!want_bell(pool, 1) && !listen_for(pool, late ? 0 : (int)left))
            late = timeout_ms >= 0;
        want_bell(pool, 0);
    }
}

enum rf_status rf_pool_run_task(struct rf_pool *pool, struct rf_task *task, uint16_t op,
                                struct rf_error *err)
{
    struct rf_pool_worker *w;
    enum rf_status status = rf_worker_open(pool, RF_WORKER_TASK, task, &w, err);

    if (status)
        return status;
    task->done = !rf_worker_send_task(pool, w, op);
    while (!task->done) {
        struct pollfd wait = {.fd = w->sock, .events = POLLIN};
        atomic_store(&w->shared->supervisor_waits, 1);
        if (rf_ring_empty(&w->responses) && poll(&wait, 1, -1) < 0)
            continue;
        atomic_store(&w->shared->supervisor_waits, 0);
        status = rf_worker_drain(pool, w);
        if (status == RF_OK && !task->done)
            status = rf_worker_answer(pool, w);
        if (status) {
            rf_worker_bury(pool, w);
            return task->done ? RF_OK : rf_error_set(err, RF_UNAVAILABLE, "worker died");
        }
    }
    rf_worker_discard(pool, w);
    return RF_OK;
}

/* ---- submitting ---- */

/* A job and its result, born in one piece of the result's arena. */
struct birth {
    struct rf_result result;
    struct rf_job job;
    struct rf_call calls[];
};

static struct birth *give_birth(struct rf_item *item, const struct rf_mapper *const *mappers,
                                size_t count)
{
    struct rf_arena arena;
    struct birth *birth;

    rf_arena_init(&arena, SIZE_MAX / 4);
    birth = rf_arena_try(&arena, sizeof *birth + count * sizeof birth->calls[0]);
    if (!birth)
        return NULL;
    birth->result.item = item;
    birth->result.calls = birth->calls;
    birth->result.call_count = count;
    birth->result.status = RF_OK;
    birth->result.error.status = RF_OK;
    birth->result.error.message[0] = '\0';
    birth->result.arena = arena;
    birth->job = (struct rf_job){.item = item, .result = &birth->result};
    for (size_t i = 0; i < count; i++)
        birth->calls[i] = (struct rf_call){.mapper = mappers[i], .outcome = RF_CALL_NONE};
    return birth;
}

static bool too_long(const char *text)
{
    return text && strnlen(text, RF_ITEM_TEXT_MAX + 1) > RF_ITEM_TEXT_MAX;
}

enum rf_status rf_pool_submit(struct rf_pool *pool, enum rf_pool_lane lane, struct rf_item *item,
                              const struct rf_mapper *const *mappers, size_t count,
                              struct rf_error *err)
{
    struct birth *birth;
    struct rf_error own = {.status = RF_OK};

    if (count > RF_POOL_CALLS_MAX)
        return rf_error_set(err, RF_LIMIT, "cannot map an item with %zu mappers at once: the "
                            "most is %d", count, RF_POOL_CALLS_MAX);
    if (too_long(item->name) || too_long(item->media))
        return rf_error_set(err, RF_INVALID, "cannot map an item whose name is longer than %u "
                            "bytes", RF_ITEM_TEXT_MAX);
    if (pool->pending[lane] >= RF_POOL_QUEUE_MAX)
        return rf_error_set(err, RF_UNAVAILABLE, "the mappers' queue is full");
    birth = give_birth(item, mappers, count);
    if (!birth)
        return rf_error_set(err, RF_NOMEM, "no memory for an item");
    birth->job.lane = lane;
    for (size_t i = 0; i < count; i++) {
        if (lane == RF_LANE_FAST && mappers[i]->slow)
            birth->calls[i].outcome = RF_CALL_SLOW;
        else
            birth->job.todo |= (uint64_t)1 << i;
    }
    pool->pending[lane]++;
    if (birth->job.todo)
        rf_job_push(lane == RF_LANE_FAST ? &pool->fast : &pool->slow, &birth->job);
    else
        rf_job_push(&pool->done, &birth->job);
    (void)feed(pool, &own); /* what fails now is tried again, and said, by rf_pool_next */
    return RF_OK;
}

void rf_pool_set_slow(struct rf_pool *pool, const struct rf_mapper *mapper, bool slow)
{
    pool->mappers[mapper->id]->slow = slow || mapper->decl->slow;
}

void rf_result_free(struct rf_result *result)
{
    struct rf_arena arena;

    if (!result)
        return;
    arena = result->arena; /* the result lies within it */
    rf_arena_release(&arena);
}

size_t rf_pool_pending(const struct rf_pool *pool, enum rf_pool_lane lane)
{
    return pool->pending[lane];
}

void rf_pool_set_source(struct rf_pool *pool, const struct rf_pool_source *source)
{
    pool->source = *source;
}

void rf_pool_stats(const struct rf_pool *pool, struct rf_pool_stats *out)
{
    *out = pool->stats;
}

/* ---- opening and closing ---- */

static void forget_all(struct rf_job_queue *queue)
{
    for (struct rf_job *job; (job = rf_job_pop(queue));)
        rf_result_free(job->result);
}

void rf_pool_cancel(struct rf_pool *pool)
{
    for (size_t i = 0; i < RF_POOL_SLOTS; i++) {
        struct rf_pool_worker *w = pool->slots[i];
        if (!w || !w->sent_count)
            continue;
        for (uint32_t k = 0; k < w->sent_count; k++)
            rf_result_free(w->sent[(w->sent_first + k) % RF_POOL_DEPTH].job->result);
        rf_worker_discard(pool, w);
    }
    forget_all(&pool->fast);
    forget_all(&pool->slow);
    forget_all(&pool->solo);
    forget_all(&pool->done);
    pool->pending[RF_LANE_FAST] = pool->pending[RF_LANE_SLOW] = 0;
}

/* The program beside the one that runs. */
static char *find_program(void)
{
    static const char name[] = "refuge-mapper";
    char path[PATH_MAX + sizeof name];
    ssize_t size = readlink("/proc/self/exe", path, PATH_MAX);

    while (size > 0 && path[size - 1] != '/')
        size--;
    if (size <= 0)
        return strdup(name);
    memcpy(path + size, name, sizeof name);
    return strdup(path);
}

enum rf_status rf_pool_open(struct rf_pool **out, const struct rf_pool_options *options,
                            struct rf_error *err)
{
    struct rf_pool *pool = calloc(1, sizeof *pool);
    unsigned cores = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    enum rf_status status;

    if (!pool)
        return rf_error_set(err, RF_NOMEM, "no memory for the mappers' pool");
    pool->workers_max = options && options->workers ? options->workers : cores;
    if (pool->workers_max > RF_POOL_WORKERS_MAX)
        pool->workers_max = RF_POOL_WORKERS_MAX;
    pool->fast_ms = options && options->fast_ms ? options->fast_ms : 100;
    pool->recycle_calls = options && options->recycle_calls ? options->recycle_calls : 100000;
    pool->jit_off = options && options->jit_off;
    pool->program = options && options->program ? strdup(options->program) : find_program();
    pool->memory_mb = BASE_MB;
    pool->rss_max_mb = RSS_MB;
    pool->zygote_sock = pool->zygote_pidfd = -1;
    pool->mappers = calloc(RF_POOL_MAPPERS_MAX, sizeof(struct rf_mapper *));
    pool->epoll = epoll_create1(EPOLL_CLOEXEC);
    status = rf_watch_start(pool, err);
    if (status == RF_OK && (pool->epoll < 0 || !pool->program || !pool->mappers))
        status = rf_error_errno(err, RF_IO, errno, "cannot set up the mappers' pool");
    if (status == RF_OK)
        status = rf_zygote_start(pool, err);
    if (status) {
        rf_pool_close(pool);
        return status;
    }
    *out = pool;
    return RF_OK;
}

void rf_pool_close(struct rf_pool *pool)
{
    if (!pool)
        return;
    rf_pool_cancel(pool);
    for (size_t i = 0; i < RF_POOL_SLOTS; i++)
        if (pool->slots[i])
            rf_worker_bury(pool, pool->slots[i]);
    rf_watch_stop(pool);
    rf_zygote_stop(pool);
    for (uint32_t i = 0; i < pool->mapper_count; i++)
        rf_mapper_free(pool->mappers[i]);
    free(pool->mappers);
    if (pool->epoll >= 0)
        close(pool->epoll);
    free(pool->program);
    free(pool);
}

void rf_pool_allow(struct rf_pool *pool, const struct rf_limits *limits)
{
    uint32_t heap = pool->heaps_mb + limits->memory_mb;

    pool->heaps_mb = heap < HEAPS_MAX_MB ? heap : HEAPS_MAX_MB;
    if (limits->output_mb > pool->output_mb)
        pool->output_mb = limits->output_mb;
    pool->memory_mb = BASE_MB + pool->heaps_mb + 3 * pool->output_mb;
    if (limits->memory_mb > 16 && RSS_MB + limits->memory_mb - 16 > pool->rss_max_mb)
        pool->rss_max_mb = RSS_MB + limits->memory_mb - 16;
}
