/*
 * pool_internal.h - what the files of the pool share
 *
 *   pool.c         the interface: jobs in, results out; lanes and queues
 *   pool_worker.c  one worker seen from outside: sending, receiving, answering, burying
 *   pool_zygote.c  starting the zygote, having it fork, learning how a worker ended
 *   pool_watch.c   the thread that watches deadlines
 *   pool_mapper.c  texts, declarations, bundles
 *
 * States of a call (one mapper of one job) and what moves it:
 *
 *   OPEN --sent--> IN FLIGHT --response--> DONE
 *     ^                |  worker died while another call was running
 *     +----------------+
 *                      |  it hit fast_ms in the fast lane ----------> DONE (slow)
 *                      |  it hit a limit or broke its worker -------> SOLO
 *   SOLO --sent alone to a fresh worker--> IN FLIGHT --response--> DONE
 *     ^                                        |  it broke this one too --> DONE (limit)
 *     +----------------------------------------+  the worker died for no fault of the call
 *
 * A job is in one place at a time: a queue, one worker, or the list of finished ones.
 */
#ifndef RF_MAPPERS_POOL_INTERNAL_H
#define RF_MAPPERS_POOL_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "mappers/pool.h"
#include "mappers/protocol.h"
#include "mappers/ring.h"

#define RF_POOL_QUEUE_MAX 1024 /* items under way in a lane */
#define RF_POOL_WORKERS_MAX 64 /* of the fast lane */
#define RF_POOL_SLOTS (3 * RF_POOL_WORKERS_MAX)
#define RF_POOL_DEPTH 256      /* requests in one worker's ring */
#define RF_POOL_CALLS_MAX 64   /* mappers of one item */
#define RF_POOL_UNLUCKY_MAX 8  /* times a job is sent again after deaths it is not to blame for */
#define RF_POOL_MAPPERS_MAX 4096
#define RF_POOL_WORDS 160

struct rf_job {
    struct rf_job *next;
    struct rf_item *item;
    struct rf_result *result;
    enum rf_pool_lane lane;
    uint8_t unlucky;
    uint64_t todo, solo; /* calls, one bit each; the others are in flight or done */
};

struct rf_job_queue {
    struct rf_job *first, *last;
};

/* A declaration or declared tests asked of a worker of its own. */
struct rf_task {
    struct rf_mapper *mapper;
    struct rf_arena *arena;
    bool done;
    enum rf_status status; /* RF_OK, or RF_INVALID and words */
    struct rf_bytes output;
    char words[RF_ERROR_SIZE];
};

enum rf_worker_kind { RF_WORKER_FAST, RF_WORKER_SLOW, RF_WORKER_SOLO, RF_WORKER_TASK };

/* Why a worker was killed. */
enum rf_verdict {
    RF_VERDICT_NONE,
    RF_VERDICT_DEADLINE, /* the call took too long */
    RF_VERDICT_FAULT,    /* the worker broke a rule, or could not even load the mapper in time */
    RF_VERDICT_HOST      /* nobody's fault in the jail: the host could not answer */
};

struct rf_sent {
    struct rf_job *job; /* NULL: the worker's task */
    uint64_t mask;      /* calls not answered yet */
    uint32_t number;    /* of the request */
    uint32_t index;     /* of the next answer within the request */
};

struct rf_pool_worker {
    uint32_t slot, serial;
    uint32_t zygote; /* serial of the zygote that forked it */
    enum rf_worker_kind kind;
    pid_t pid;
    int pidfd, sock;
    uint32_t memory_mb;
    struct rf_shared *shared;
    uint8_t *window;
    struct rf_ring requests, responses;
    struct rf_task *task;

    struct rf_sent sent[RF_POOL_DEPTH]; /* a ring, oldest first */
    uint32_t sent_first, sent_count, next_number;
    uint64_t calls; /* answered in its life, and their CPU */
    uint64_t cpu_us;
    uint64_t weighed_at; /* calls at the last look at its memory */
    bool retiring;       /* gets no more work */
    bool corrupt;        /* its ring is not read any more */
    bool status_known;
    int status;

    /* the response that arrives in pieces */
    bool assembling;
    struct rf_response head;
    uint8_t *body;
    size_t body_size, body_got;

    struct rf_bytes opened; /* what MORE reads */
    uint32_t needs;         /* asked by the call under way */

    /* for the watchdog */
    _Atomic uint32_t outstanding; /* calls in flight */
    _Atomic uint64_t answered;    /* calls */
    _Atomic uint32_t limit_ms;    /* of the call under way */
    _Atomic bool answering;       /* the host works for it */
    _Atomic uint32_t loads;       /* mappers it asked the text of, since its last answer */
    /* under the watchdog's lock */
    bool watched;
    uint64_t step, seen;
    int64_t step_cpu_us, seen_cpu_us, wall_us, looked_us, looked_cpu_us;
    _Atomic(enum rf_verdict) verdict; /* written under watch.lock, glanced at without */
    uint64_t verdict_call; /* number of the call it is about; 0: the one under way */
    char words[RF_POOL_WORDS];
};

struct rf_watch {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool started, stop;
    _Atomic bool asleep;
};

struct rf_pool {
    char *program;
    unsigned workers_max;
    uint32_t fast_ms, recycle_calls;
    bool jit_off;
    struct rf_pool_source source;

    int epoll;
    pid_t zygote_pid; /* 0: none */
    int zygote_pidfd, zygote_sock;
    uint32_t zygote_serial;
    unsigned stillborn; /* workers in a row that could not enter their jail */

    struct rf_pool_worker *slots[RF_POOL_SLOTS]; /* changed under watch.lock */
    unsigned kinds[4];                           /* workers of a kind that take work */
    uint32_t next_serial;
    struct rf_watch watch;

    struct rf_mapper **mappers;
    _Atomic uint32_t mapper_count;
    uint32_t heaps_mb, output_mb; /* Lua heaps of all mappers; output of the widest */
    uint32_t memory_mb; /* address space that a new worker gets */
    uint32_t rss_max_mb;

    struct rf_job_queue fast, slow, solo, done;
    size_t pending[2];
    unsigned turns;
    struct rf_pool_stats stats;
};

struct rf_text {
    const char *name; /* "countries.lua" */
    struct rf_bytes text;
};

struct rf_mapper {
    uint32_t id;
    struct rf_arena arena;
    int folder;                /* while it is loaded from files: of its modules; else -1 */
    bool bundled;              /* while it is loaded: modules come from the bundled ones */
    struct rf_text files[RF_FILES_MAX]; /* the main one first */
    size_t file_count;
    struct rf_decl *decl;
    bool slow; /* as declared, or as rf_pool_set_slow said: the fast lane does not call it */
    char identity[65];
    struct rf_bytes bundle;
};

/* ---- pool.c ---- */
void rf_job_push(struct rf_job_queue *queue, struct rf_job *job);
void rf_job_push_front(struct rf_job_queue *queue, struct rf_job *job);
struct rf_job *rf_job_pop(struct rf_job_queue *queue);
/* Run a task in a worker of its own, with what it asks; RF_OK: task->done and its status. */
enum rf_status rf_pool_run_task(struct rf_pool *pool, struct rf_task *task, uint16_t op,
                                struct rf_error *err);
/* A mapper with these limits was added: size the workers to come. */
void rf_pool_allow(struct rf_pool *pool, const struct rf_limits *limits);
/* Put a job that is nowhere where it belongs: a queue, or the finished ones. */
void rf_pool_settle(struct rf_pool *pool, struct rf_job *job);

/* ---- pool_worker.c ---- */
enum rf_status rf_worker_open(struct rf_pool *pool, enum rf_worker_kind kind, struct rf_task *task,
                              struct rf_pool_worker **out, struct rf_error *err);
/* Send these calls of a job. false: no room now. */
bool rf_worker_send(struct rf_pool *pool, struct rf_pool_worker *w, struct rf_job *job,
                    uint64_t mask);
bool rf_worker_send_task(struct rf_pool *pool, struct rf_pool_worker *w, uint16_t op);
/* Take what it has written. RF_CORRUPT: it must be buried. */
enum rf_status rf_worker_drain(struct rf_pool *pool, struct rf_pool_worker *w);
/* Answer what it asks on its socket. RF_CORRUPT: it must be buried; RF_END: it is dead. */
enum rf_status rf_worker_answer(struct rf_pool *pool, struct rf_pool_worker *w);
/* Kill it, take what it had finished, blame, and send the rest again. */
void rf_worker_bury(struct rf_pool *pool, struct rf_pool_worker *w);
/* Kill and forget it; nothing is in flight, or nobody cares. */
void rf_worker_discard(struct rf_pool *pool, struct rf_pool_worker *w);
/* No more work for it; gone when idle. */
void rf_worker_retire(struct rf_pool *pool, struct rf_pool_worker *w);

/* ---- pool_zygote.c ---- */
enum rf_status rf_zygote_start(struct rf_pool *pool, struct rf_error *err);
void rf_zygote_stop(struct rf_pool *pool);
enum rf_status rf_zygote_fork(struct rf_pool *pool, struct rf_pool_worker *w, uint32_t flags,
                              int memory, int sock, struct rf_error *err);
/* Take the news that are there, waiting up to timeout_ms for the first. */
enum rf_status rf_zygote_hear(struct rf_pool *pool, int timeout_ms);

/* ---- pool_watch.c ---- */
enum rf_status rf_watch_start(struct rf_pool *pool, struct rf_error *err);
void rf_watch_stop(struct rf_pool *pool);
/* Calls are in flight: look from now on. Cheap when it looks already. */
void rf_watch_wake(struct rf_pool *pool);
/* Record why, unless there is a reason already, and kill. Takes the lock. */
void rf_worker_condemn(struct rf_pool *pool, struct rf_pool_worker *w, enum rf_verdict verdict,
                       const char *words);

/* ---- pool_mapper.c ---- */
/* A text of a mapper by module name ("": the main one), read from its folder while loading. */
enum rf_status rf_mapper_file(struct rf_mapper *mapper, const char *name,
                              const struct rf_text **out);
void rf_mapper_free(struct rf_mapper *mapper);

#endif
