/*
 * worker.c - see worker.h
 *
 *   wait for a request -> per mapper: [load its texts] -> map -> respond -> next mapper
 *
 * Requests are served in order, one response per mapper in the order of the request: the supervisor
 * counts on it. The doorbell is rung when there is nothing left to do or enough to fetch, and only
 * when the supervisor sleeps. A mapper's texts and declaration are fetched when a request first
 * names it. Whatever should not happen ends the process; the supervisor knows what to do then.
 */
#include "mappers/worker.h"

#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "mappers/lua_env.h"
#include "mappers/ring.h"

#define MAPPERS_MAX 128      /* loaded at once; the one loaded longest ago makes room */
#define BELL_RESULTS 32      /* enough results to wake the supervisor for */
#define BELL_BYTES (128u << 10)
#define BELL_US 2000         /* the first of them has waited so long */
#define SHORT_US 200         /* calls shorter than this count their time as CPU */
#define OUTPUT_KEEP (1u << 20) /* output buffers larger than this are given back */

struct loaded {
    uint32_t id;
    struct rf_env *env;
    struct rf_decl *decl;
    struct rf_arena arena; /* the declaration */
};

struct worker {
    const struct rf_worker_start *start;
    struct rf_shared *shared;
    struct rf_ring requests, responses;
    const uint8_t *window;
    struct loaded loaded[MAPPERS_MAX];
    size_t loaded_count, evict;
    struct rf_buf output, trace;
    struct rf_arena texts;    /* while a mapper is being loaded */
    uint32_t loading;         /* its id */
    uint64_t call;            /* number of the call, running */
    uint32_t unrung, unrung_bytes; /* results since the doorbell */
    int64_t unrung_since;
    int64_t cpu_read, cpu_counted; /* the CPU clock when last read; counted for calls since */
};

static int64_t clock_us(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

/* ---- the socket ---- */

static void send_ask(const struct rf_ask *ask)
{
    if (send(RF_ZYGOTE_FD, ask, sizeof *ask, MSG_NOSIGNAL) != (ssize_t)sizeof *ask)
        _exit(RF_EXIT_QUIET);
}

/* Ask and wait. The answer is RF_OK or RF_NOT_FOUND. */
static struct rf_answer ask_supervisor(const struct rf_ask *ask)
{
    struct rf_answer answer;

    send_ask(ask);
    if (recv(RF_ZYGOTE_FD, &answer, sizeof answer, 0) != (ssize_t)sizeof answer)
        _exit(RF_EXIT_QUIET);
    if ((answer.status != RF_OK && answer.status != RF_NOT_FOUND) || answer.got > RF_WINDOW_SIZE)
        _exit(RF_EXIT_PROTOCOL);
    return answer;
}

static void ring_bell(struct worker *w)
{
    struct rf_ask bell = {.op = RF_ASK_BELL};

    w->unrung = w->unrung_bytes = 0;
    atomic_thread_fence(memory_order_seq_cst); /* our head before its flag */
    if (atomic_load_explicit(&w->shared->supervisor_waits, memory_order_relaxed) &&
        atomic_exchange(&w->shared->supervisor_waits, 0))
        send_ask(&bell);
}

/* ---- responses ---- */

/* Room for a record of so many bytes; waits for the supervisor to make it. */
static uint8_t *reserve(struct worker *w, uint32_t size)
{
    uint8_t *to;

    while (rf_ring_reserve(&w->responses, size, &to) == RF_END) {
        atomic_store(&w->shared->room_waits, 1);
        ring_bell(w);
        if (rf_ring_reserve(&w->responses, size, &to) != RF_END)
            break;
        futex_wait(&w->shared->room_waits, 1);
    }
    return to;
}

static void send_pieces(struct worker *w, uint32_t number, struct rf_bytes bytes)
{
    struct rf_piece head = {.kind = RF_RESPONSE_PIECE, .number = number};

    for (size_t at = 0; at < bytes.size;) {
        size_t size = bytes.size - at < RF_PIECE_MAX ? bytes.size - at : RF_PIECE_MAX;
        uint8_t *to = reserve(w, (uint32_t)(sizeof head + size));
        memcpy(to, &head, sizeof head);
        memcpy(to + sizeof head, bytes.data + at, size);
        rf_ring_commit(&w->responses, (uint32_t)(sizeof head + size));
        rf_ring_publish(&w->responses);
        at += size;
    }
}

static struct rf_bytes cut(const char *text, size_t max)
{
    size_t size = text ? strlen(text) : 0;

    return rf_bytes(text, size < max ? size : max);
}

static void respond(struct worker *w, struct rf_response *head, const char *message,
                    const char *traceback)
{
    struct rf_bytes body[] = {rf_buf_bytes(&w->output), cut(message, RF_MESSAGE_MAX),
                              cut(traceback, RF_TRACEBACK_MAX), rf_buf_bytes(&w->trace)};
    size_t total = 0, count = sizeof body / sizeof *body;
    uint32_t size = sizeof *head;
    uint8_t *to;

    for (size_t i = 0; i < count; i++)
        total += body[i].size;
    head->kind = RF_RESPONSE_CALL;
    head->output_size = (uint32_t)body[0].size;
    head->message_size = (uint32_t)body[1].size;
    head->traceback_size = (uint32_t)body[2].size;
    head->trace_size = (uint32_t)body[3].size;
    if (total <= RF_PIECE_MAX)
        size += (uint32_t)total;
    to = reserve(w, size);
    memcpy(to, head, sizeof *head);
    to += sizeof *head;
    for (size_t i = 0; i < count && total <= RF_PIECE_MAX; i++) {
        if (body[i].size)
            memcpy(to, body[i].data, body[i].size);
        to += body[i].size;
    }
    rf_ring_commit(&w->responses, size);
    rf_ring_publish(&w->responses);
    for (size_t i = 0; i < count && total > RF_PIECE_MAX; i++)
        send_pieces(w, head->number, body[i]);
    w->unrung++;
    w->unrung_bytes += size;
}

/* ---- what a script may read ---- */

static enum rf_status read_ranges(const struct worker *w, enum rf_ask_op op,
                                  const struct rf_blobref *ref, uint64_t offset, void *out,
                                  size_t size, size_t *got)
{
    struct rf_ask ask = {.op = op};

    if (ref)
        ask.ref = *ref;
    *got = 0;
    while (*got < size) {
        size_t want = size - *got < RF_WINDOW_SIZE ? size - *got : RF_WINDOW_SIZE;
        struct rf_answer answer;

        ask.offset = offset + *got;
        ask.size = (uint32_t)want;
        answer = ask_supervisor(&ask);
        if (answer.status != RF_OK || answer.got > want)
            _exit(RF_EXIT_PROTOCOL);
        if (answer.got)
            memcpy((uint8_t *)out + *got, w->window, answer.got);
        *got += answer.got;
        if (answer.got < want)
            break;
    }
    return RF_OK;
}

static enum rf_status item_read(void *user, uint64_t offset, void *out, size_t size, size_t *got)
{
    return read_ranges(user, RF_ASK_READ, NULL, offset, out, size, got);
}

static enum rf_status item_need(void *user, const struct rf_blobref *ref, uint64_t *size)
{
    struct rf_ask ask = {.op = RF_ASK_NEED, .ref = *ref};
    struct rf_answer answer = ask_supervisor(&ask);

    (void)user;
    *size = answer.size;
    return (enum rf_status)answer.status;
}

static enum rf_status item_need_read(void *user, const struct rf_blobref *ref, uint64_t offset,
                                     void *out, size_t size, size_t *got)
{
    return read_ranges(user, RF_ASK_NEED_READ, ref, offset, out, size, got);
}

/* ---- loading a mapper ---- */

/* Bytes that FILE or DECL opens, into the arena of the mapper being loaded. */
static enum rf_status fetch(struct worker *w, const struct rf_ask *ask, struct rf_bytes *out,
                            char name[RF_FILE_NAME_MAX])
{
    struct rf_answer answer = ask_supervisor(ask);
    uint64_t size = answer.size, at = answer.got;
    uint8_t *to;

    if (answer.status != RF_OK)
        return (enum rf_status)answer.status;
    to = (uint8_t *)rf_arena_try(&w->texts, size + 1);
    if (!to)
        _exit(RF_EXIT_MEMORY);
    if (name)
        memcpy(name, answer.name, RF_FILE_NAME_MAX);
    if (at > size)
        _exit(RF_EXIT_PROTOCOL);
    memcpy(to, w->window, at);
    while (at < size) {
        struct rf_ask more = {.op = RF_ASK_MORE, .offset = at, .size = RF_WINDOW_SIZE};
        answer = ask_supervisor(&more);
        if (answer.status != RF_OK || answer.got == 0 || answer.got > size - at)
            _exit(RF_EXIT_PROTOCOL);
        memcpy(to + at, w->window, answer.got);
        at += answer.got;
    }
    to[size] = 0;
    *out = rf_bytes(to, size);
    return RF_OK;
}

static enum rf_status module_text(void *user, const char *name, struct rf_bytes *text)
{
    struct worker *w = user;
    struct rf_ask ask = {.op = RF_ASK_FILE, .mapper = w->loading};

    size_t size = strlen(name);

    if (size == 0 || size >= sizeof ask.name)
        return RF_NOT_FOUND;
    memcpy(ask.name, name, size);
    return fetch(w, &ask, text, NULL);
}

/* Ends the process: LuaJIT cannot live on without memory. */
static void out_of_memory(void *user, size_t bytes)
{
    (void)user;
    (void)bytes;
    _exit(RF_EXIT_MEMORY);
}

static void unload(struct loaded *m)
{
    rf_env_close(m->env);
    rf_arena_release(&m->arena);
    *m = (struct loaded){0};
}

static struct loaded *free_place(struct worker *w)
{
    struct loaded *m;

    if (w->loaded_count < MAPPERS_MAX)
        return &w->loaded[w->loaded_count++];
    m = &w->loaded[w->evict++ % MAPPERS_MAX];
    unload(m);
    return m;
}

/* Run a mapper's chunk. declared: with its declaration, ready to map. */
static enum rf_status load(struct worker *w, struct loaded *m, uint32_t id, bool declared,
                           struct rf_error *err)
{
    struct rf_env_options options = {.jit_off = w->start->flags & RF_FORK_JIT_OFF,
                                     .out_of_memory = out_of_memory, .module = module_text,
                                     .user = w};
    struct rf_ask main = {.op = RF_ASK_FILE, .mapper = id};
    struct rf_ask decl = {.op = RF_ASK_DECL, .mapper = id};
    char file[RF_FILE_NAME_MAX];
    struct rf_bytes text, json;
    enum rf_status status;

    rf_arena_init(&w->texts, (size_t)(RF_FILES_MAX + 8) * RF_FILE_SIZE_MAX);
    rf_arena_init(&m->arena, 4 * RF_ANSWER_MAX);
    m->id = w->loading = id;
    status = fetch(w, &main, &text, file);
    if (status == RF_OK && declared)
        status = fetch(w, &decl, &json, NULL);
    if (status)
        _exit(RF_EXIT_PROTOCOL); /* the supervisor named a mapper it does not have */
    if (declared)
        status = rf_decl_parse(&m->decl, &m->arena, json, err);
    if (status == RF_OK)
        status = rf_env_open(&m->env, file, text, m->decl, &options, err);
    rf_arena_release(&w->texts);
    return status;
}

/* The mapper of a request, loaded if need be; NULL: err says why it cannot. */
static struct loaded *find_mapper(struct worker *w, uint32_t id, struct rf_error *err)
{
    struct loaded *m;

    for (size_t i = 0; i < w->loaded_count; i++)
        if (w->loaded[i].env && w->loaded[i].id == id)
            return &w->loaded[i];
    atomic_store_explicit(&w->shared->step, w->call * 4 + RF_PHASE_LOAD, memory_order_relaxed);
    m = free_place(w);
    if (load(w, m, id, true, err) != RF_OK) {
        unload(m);
        m = NULL;
    }
    w->cpu_read = clock_us(CLOCK_PROCESS_CPUTIME_ID); /* loading is not a call's own time */
    w->cpu_counted = 0;
    return m;
}

/* ---- requests ---- */

/* A request taken apart; everything lies in the ring until it is consumed. */
struct request {
    struct rf_request head;
    const uint8_t *mappers;
    struct rf_env_item item;
};

/* Text of size bytes and a NUL at *at, or NULL when there is none. */
static const char *take_text(struct rf_bytes *rest, uint32_t size)
{
    const char *text = (const char *)rest->data;

    if (size == UINT32_MAX)
        return NULL;
    if (rest->size <= size || text[size] != '\0')
        _exit(RF_EXIT_PROTOCOL);
    *rest = rf_bytes(rest->data + size + 1, rest->size - size - 1);
    return text;
}

static void take_request(struct worker *w, struct rf_bytes record, struct request *out)
{
    struct rf_bytes rest = record;
    struct rf_env_item *item = &out->item;

    if (rest.size < sizeof out->head)
        _exit(RF_EXIT_PROTOCOL);
    memcpy(&out->head, rest.data, sizeof out->head);
    rest = rf_bytes(rest.data + sizeof out->head, rest.size - sizeof out->head);
    if (rest.size / 4 < out->head.mapper_count)
        _exit(RF_EXIT_PROTOCOL);
    out->mappers = rest.data;
    rest = rf_bytes(rest.data + 4 * (size_t)out->head.mapper_count,
                    rest.size - 4 * (size_t)out->head.mapper_count);
    *item = (struct rf_env_item){
        .kind = out->head.kind, .ref = out->head.ref, .content_ref = out->head.content_ref,
        .mtime_us = out->head.mtime_us, .timestamp_us = out->head.timestamp_us,
        .seq = out->head.seq, .size = out->head.size, .read = item_read, .need = item_need,
        .need_read = item_need_read, .user = w};
    item->media = take_text(&rest, out->head.media_size);
    item->name = take_text(&rest, out->head.name_size);
    if (out->head.flags & RF_REQUEST_INLINE) {
        if (rest.size != out->head.size)
            _exit(RF_EXIT_PROTOCOL);
        item->content = rest.data;
    }
}

/* Output of the next call, of this size at most. */
static void clear_output(struct worker *w, size_t max)
{
    if (w->output.capacity > OUTPUT_KEEP)
        rf_buf_release(&w->output);
    if (w->trace.capacity > OUTPUT_KEEP)
        rf_buf_release(&w->trace);
    rf_buf_clear(&w->output);
    rf_buf_clear(&w->trace);
    w->output.max = max;
}

/* CPU of the call that just took so long. Reading the CPU clock is a system call, worth it for long
 * calls only; what short ones counted is taken off. */
static uint32_t cpu_of_call(struct worker *w, int64_t wall_us)
{
    int64_t now, cpu;

    if (wall_us < SHORT_US) {
        w->cpu_counted += wall_us;
        return (uint32_t)wall_us;
    }
    now = clock_us(CLOCK_PROCESS_CPUTIME_ID);
    cpu = now - w->cpu_read - w->cpu_counted;
    w->cpu_read = now;
    w->cpu_counted = 0;
    return cpu < 0 ? 0 : (uint32_t)(cpu < wall_us ? cpu : wall_us);
}

static void map_one(struct worker *w, const struct request *request, uint32_t index)
{
    uint32_t id = rf_get_u32(request->mappers + 4 * (size_t)index);
    struct rf_response head = {.number = request->head.number, .index = index};
    bool traced = request->head.flags & RF_REQUEST_TRACE;
    struct rf_error err = {.status = RF_OK};
    const char *message = NULL, *traceback = NULL;
    struct loaded *m = find_mapper(w, id, &err);
    int64_t start = clock_us(CLOCK_MONOTONIC), now;

    if (!m) {
        clear_output(w, 0);
        head.outcome = RF_ENV_FAILED;
        respond(w, &head, err.message, NULL);
        return;
    }
    atomic_store_explicit(&w->shared->step, w->call * 4 + RF_PHASE_RUN, memory_order_relaxed);
    clear_output(w, (size_t)m->decl->limits.output_mb << 20);
    head.outcome = rf_env_map(m->env, &request->item, &w->output, traced ? &w->trace : NULL,
                              &message, &traceback);
    if (head.outcome != RF_ENV_ROWS && head.outcome != RF_ENV_MISSING)
        rf_buf_clear(&w->output);
    if (head.outcome == RF_ENV_ROWS || head.outcome == RF_ENV_NONE)
        message = traceback = NULL;
    now = clock_us(CLOCK_MONOTONIC);
    head.wall_us = (uint32_t)(now - start);
    head.cpu_us = cpu_of_call(w, now - start);
    if (w->unrung == 0)
        w->unrung_since = now;
    respond(w, &head, message, traceback);
    if (w->unrung >= BELL_RESULTS || w->unrung_bytes >= BELL_BYTES ||
        now - w->unrung_since >= BELL_US)
        ring_bell(w);
}

/* A mapper's declaration, or its declared tests. */
static void describe(struct worker *w, const struct request *request)
{
    bool tests = request->head.op == RF_REQUEST_TESTS;
    struct rf_response head = {.number = request->head.number, .outcome = RF_ENV_ROWS};
    struct rf_error err = {.status = RF_OK};
    struct loaded m = {.id = 0};
    enum rf_status status;

    if (request->head.mapper_count != 1)
        _exit(RF_EXIT_PROTOCOL);
    atomic_store_explicit(&w->shared->step, w->call * 4 + RF_PHASE_LOAD, memory_order_relaxed);
    clear_output(w, RF_ANSWER_MAX);
    status = load(w, &m, rf_get_u32(request->mappers), tests, &err);
    if (status == RF_OK)
        status = tests ? rf_env_tests(m.env, &w->output, &err)
                       : rf_env_declare(m.env, &w->output, &err);
    if (status) {
        rf_buf_clear(&w->output);
        head.outcome = RF_ENV_FAILED;
    }
    respond(w, &head, status ? err.message : NULL, NULL);
    unload(&m);
}

static void serve_request(struct worker *w, struct rf_bytes record)
{
    struct request request;

    take_request(w, record, &request);
    if (request.head.op != RF_REQUEST_MAP) {
        w->call++;
        describe(w, &request);
        atomic_store_explicit(&w->shared->step, w->call * 4 + RF_PHASE_IDLE, memory_order_relaxed);
        return;
    }
    for (uint32_t i = 0; i < request.head.mapper_count; i++) {
        w->call++;
        map_one(w, &request, i);
        atomic_store_explicit(&w->shared->step, w->call * 4 + RF_PHASE_IDLE, memory_order_relaxed);
    }
}

static void wait_for_request(struct worker *w)
{
    ring_bell(w);
    atomic_store(&w->shared->worker_waits, 1);
    atomic_thread_fence(memory_order_seq_cst); /* our flag before its head */
    if (rf_ring_empty(&w->requests))
        futex_wait(&w->shared->worker_waits, 1);
    atomic_store_explicit(&w->shared->worker_waits, 0, memory_order_relaxed);
}

static void serve(struct worker *w)
{
    for (;;) {
        struct rf_bytes record;

        switch (rf_ring_peek(&w->requests, &record)) {
        case RF_OK:
            serve_request(w, record);
            rf_ring_consume(&w->requests);
            break;
        case RF_END:
            wait_for_request(w);
            break;
        default:
            _exit(RF_EXIT_PROTOCOL);
        }
    }
}

void rf_worker_run(const struct rf_worker_start *start)
{
    struct worker *w = calloc(1, sizeof *w);
    uint8_t *base = (uint8_t *)start->shared;

    if (!w)
        _exit(RF_EXIT_JAIL);
    w->start = start;
    w->shared = start->shared;
    rf_ring_init(&w->requests, base + RF_CONTROL_SIZE, RF_REQUEST_RING_SIZE,
                 &w->shared->request_head, &w->shared->request_tail);
    rf_ring_init(&w->responses, base + RF_CONTROL_SIZE + RF_REQUEST_RING_SIZE,
                 RF_RESPONSE_RING_SIZE, &w->shared->response_head, &w->shared->response_tail);
    w->window = base + RF_CONTROL_SIZE + RF_REQUEST_RING_SIZE + RF_RESPONSE_RING_SIZE;
    rf_buf_init(&w->output, RF_ANSWER_MAX);
    rf_buf_init(&w->trace, RF_TRACE_MAX);
    if (rf_jail_enter(start->jail, RF_ZYGOTE_FD, start->memory_mb, NULL) != RF_OK)
        _exit(RF_EXIT_JAIL);
    serve(w);
}
