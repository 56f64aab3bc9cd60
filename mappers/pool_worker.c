/*
 * pool_worker.c - one worker seen from outside
 *
 * Everything a worker can write is hostile: ring positions, record sizes, every number in a
 * record, every ask. A record is copied into the result's arena first and checked there. Answers
 * must come in the order of the requests, one per mapper; anything else condemns the worker, and
 * the call it was in is tried once more, alone.
 */
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/control.h"
#include "core/utf8.h"
#include "mappers/lua_env.h"
#include "mappers/pool_internal.h"

#define DEATH_MS 30000 /* from SIGKILL to the end of a process */
#define ASKS_A_TURN 16 /* asks of one worker answered before others get their turn */

/* ---- opening ---- */

/* A memfd that can neither shrink nor grow: touching it can never fault. */
static int make_memory(void)
{
    int fd = memfd_create("refuge-mapper", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd >= 0 && (ftruncate(fd, RF_SHARED_SIZE) != 0 ||
                    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static void map_rings(struct rf_pool_worker *w, void *map)
{
    uint8_t *base = map;

    w->shared = map;
    rf_ring_init(&w->requests, base + RF_CONTROL_SIZE, RF_REQUEST_RING_SIZE,
                 &w->shared->request_head, &w->shared->request_tail);
    rf_ring_init(&w->responses, base + RF_CONTROL_SIZE + RF_REQUEST_RING_SIZE,
                 RF_RESPONSE_RING_SIZE, &w->shared->response_head, &w->shared->response_tail);
    w->window = base + RF_CONTROL_SIZE + RF_REQUEST_RING_SIZE + RF_RESPONSE_RING_SIZE;
}

static void release(struct rf_pool_worker *w)
{
    if (w->shared)
        munmap(w->shared, RF_SHARED_SIZE);
    if (w->sock >= 0)
        close(w->sock);
    if (w->pidfd >= 0)
        close(w->pidfd);
    free(w);
}

/* Have it forked; start the zygote first if there is none, and again if it dies meanwhile. */
static enum rf_status fork_worker(struct rf_pool *pool, struct rf_pool_worker *w, int memory,
                                  int sock, struct rf_error *err)
{
    bool background = w->kind == RF_WORKER_SLOW || w->kind == RF_WORKER_SOLO;
    uint32_t flags = (background ? RF_FORK_NICE : 0) | (pool->jit_off ? RF_FORK_JIT_OFF : 0);
    enum rf_status status = RF_END;

    for (int attempt = 0; attempt < 2 && status == RF_END; attempt++) {
        rf_error_clear(err);
        if (attempt)
            rf_zygote_stop(pool);
        status = pool->zygote_pid ? RF_OK : rf_zygote_start(pool, err);
        if (status == RF_OK)
            status = rf_zygote_fork(pool, w, flags, memory, sock, err);
    }
    return status == RF_END ? RF_UNAVAILABLE : status;
}

static enum rf_status enlist(struct rf_pool *pool, struct rf_pool_worker *w)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)w->slot << 32 | w->serial};

    if (epoll_ctl(pool->epoll, EPOLL_CTL_ADD, w->sock, &event) != 0)
        return RF_IO;
    pthread_mutex_lock(&pool->watch.lock);
    pool->slots[w->slot] = w;
    pthread_mutex_unlock(&pool->watch.lock);
    pool->kinds[w->kind]++;
    pool->stats.workers_started++;
    return RF_OK;
}

enum rf_status rf_worker_open(struct rf_pool *pool, enum rf_worker_kind kind, struct rf_task *task,
                              struct rf_pool_worker **out, struct rf_error *err)
{
    struct rf_pool_worker *w = calloc(1, sizeof *w);
    struct rf_error own = {.status = RF_OK};
    enum rf_status status = RF_IO;
    int pair[2] = {-1, -1}, memory = -1;
    void *map = MAP_FAILED;

    if (!w)
        return rf_error_set(err, RF_NOMEM, "no memory for a worker");
    *w = (struct rf_pool_worker){.kind = kind, .task = task, .pidfd = -1, .sock = -1,
                                 .serial = ++pool->next_serial, .memory_mb = pool->memory_mb};
    while (w->slot < RF_POOL_SLOTS && pool->slots[w->slot])
        w->slot++;
    if (w->slot == RF_POOL_SLOTS)
        goto out;
    memory = make_memory();
    if (memory >= 0)
        map = mmap(NULL, RF_SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    if (map == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        goto out;
    map_rings(w, map);
    w->sock = pair[0];
    status = fork_worker(pool, w, memory, pair[1], &own);
    if (status == RF_OK)
        status = enlist(pool, w);
out:
    if (status)
        rf_error_set(err, status, "%s", own.status ? own.message : "cannot start a worker");
    if (pair[1] >= 0)
        close(pair[1]);
    if (memory >= 0)
        close(memory);
    if (status) {
        if (w->pidfd >= 0)
            (void)syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0);
        release(w);
        return status;
    }
    *out = w;
    return RF_OK;
}

/* ---- sending ---- */

static void wake(_Atomic uint32_t *waits)
{
    atomic_thread_fence(memory_order_seq_cst); /* our position before its flag */
    if (atomic_load_explicit(waits, memory_order_relaxed) && atomic_exchange(waits, 0))
        syscall(SYS_futex, waits, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static struct rf_sent *sent_at(struct rf_pool_worker *w, uint32_t index)
{
    return &w->sent[(w->sent_first + index) % RF_POOL_DEPTH];
}

static uint8_t *put_text(uint8_t *to, const char *text, uint32_t size)
{
    if (!text)
        return to;
    memcpy(to, text, (size_t)size + 1);
    return to + size + 1;
}

static uint32_t text_size(const char *text)
{
    return text ? (uint32_t)strlen(text) : UINT32_MAX;
}

static uint32_t text_room(uint32_t size)
{
    return size == UINT32_MAX ? 0 : size + 1;
}

/* Fill what the ring shows the worker of an item. */
static void fill_request(struct rf_request *head, const struct rf_item *item)
{
    head->op = RF_REQUEST_MAP;
    head->kind = item->kind;
    head->mtime_us = item->mtime_us;
    head->timestamp_us = item->timestamp_us;
    head->seq = item->seq;
    head->size = item->size;
    head->media_size = text_size(item->media);
    head->name_size = text_size(item->name);
    head->ref = item->ref;
    head->content_ref = item->content_ref;
    if (item->trace)
        head->flags |= RF_REQUEST_TRACE;
    if (item->size == 0 || (item->content && item->size <= RF_INLINE_MAX))
        head->flags |= RF_REQUEST_INLINE;
}

static void now_in_flight(struct rf_pool *pool, struct rf_pool_worker *w, struct rf_sent sent,
                          uint32_t calls, uint32_t limit_ms)
{
    *sent_at(w, w->sent_count++) = sent;
    atomic_store_explicit(&w->limit_ms, limit_ms, memory_order_relaxed);
    atomic_fetch_add_explicit(&w->outstanding, calls, memory_order_relaxed);
    rf_ring_publish(&w->requests);
    wake(&w->shared->worker_waits);
    rf_watch_wake(pool);
}

bool rf_worker_send(struct rf_pool *pool, struct rf_pool_worker *w, struct rf_job *job,
                    uint64_t mask)
{
    struct rf_request head = {.number = w->next_number,
                              .mapper_count = (uint32_t)__builtin_popcountll(mask)};
    const struct rf_item *item = job->item;
    uint32_t size, limit_ms = pool->fast_ms;
    uint8_t *to;

    if (w->sent_count == RF_POOL_DEPTH)
        return false;
    fill_request(&head, item);
    size = (uint32_t)sizeof head + 4 * head.mapper_count + text_room(head.media_size) +
           text_room(head.name_size) +
           (head.flags & RF_REQUEST_INLINE ? (uint32_t)item->size : 0);
    if (rf_ring_reserve(&w->requests, size, &to) != RF_OK)
        return false; /* also when its position makes no sense: it gets nothing more to do */
    memcpy(to, &head, sizeof head);
    to += sizeof head;
    for (uint64_t left = mask; left; left &= left - 1, to += 4) {
        const struct rf_mapper *mapper = job->result->calls[__builtin_ctzll(left)].mapper;
        rf_put_u32(to, mapper->id);
        if (w->kind != RF_WORKER_FAST)
            limit_ms = mapper->decl->limits.cpu_ms;
    }
    to = put_text(to, item->media, head.media_size);
    to = put_text(to, item->name, head.name_size);
    if ((head.flags & RF_REQUEST_INLINE) && item->size)
        memcpy(to, item->content, item->size);
    rf_ring_commit(&w->requests, size);
    now_in_flight(pool, w, (struct rf_sent){.job = job, .mask = mask, .number = w->next_number++},
                  head.mapper_count, limit_ms);
    return true;
}

bool rf_worker_send_task(struct rf_pool *pool, struct rf_pool_worker *w, uint16_t op)
{
    struct rf_request head = {.number = w->next_number, .op = op, .mapper_count = 1,
                              .media_size = UINT32_MAX, .name_size = UINT32_MAX};
    uint8_t *to;

    if (rf_ring_reserve(&w->requests, sizeof head + 4, &to) != RF_OK)
        return false;
    memcpy(to, &head, sizeof head);
    rf_put_u32(to + sizeof head, w->task->mapper->id);
    rf_ring_commit(&w->requests, sizeof head + 4);
    now_in_flight(pool, w, (struct rf_sent){.mask = 1, .number = w->next_number++}, 1, RF_LOAD_MS);
    return true;
}

/* ---- receiving ---- */

static enum rf_status corrupt(struct rf_pool *pool, struct rf_pool_worker *w, const char *words)
{
    w->corrupt = true;
    rf_worker_condemn(pool, w, RF_VERDICT_FAULT, words);
    return RF_CORRUPT;
}

static struct rf_arena *arena_of(struct rf_pool_worker *w)
{
    struct rf_sent *sent = sent_at(w, 0);

    return sent->job ? &sent->job->result->arena : w->task->arena;
}

static struct rf_call *call_of(struct rf_sent *sent)
{
    return &sent->job->result->calls[__builtin_ctzll(sent->mask)];
}

/* A script's words for a person: valid UTF-8, no control bytes but what keep names. */
static const char *clean_words(struct rf_arena *arena, struct rf_bytes words, const char *keep)
{
    struct rf_buf buf;
    const char *copy;

    rf_buf_init(&buf, RF_TRACE_MAX * 3 + 16);
    rf_utf8_clean(&buf, words, true, NULL, NULL);
    for (size_t i = 0; i < buf.size; i++)
        if ((buf.data[i] < 0x20 || buf.data[i] == 0x7f) && !strchr(keep, buf.data[i]))
            buf.data[i] = ' ';
    copy = rf_arena_copy(arena, buf.data, buf.size);
    rf_buf_release(&buf);
    return copy ? copy : "";
}

/* Count and check the records of an output. RF_OK, or what is wrong with it. */
static enum rf_status check_output(struct rf_call *call, const struct rf_item *item,
                                   struct rf_error *err)
{
    struct rf_output_reader reader;
    struct rf_record record;
    enum rf_status status;

    rf_output_init(&reader, call->output, call->mapper->decl, item->size);
    while ((status = rf_output_next(&reader, &record, err)) == RF_OK) {
        call->rows += record.kind == RF_RECORD_ROW;
        call->parts += record.kind == RF_RECORD_PART;
        call->needs += record.kind == RF_RECORD_NEED;
        call->cuts += record.kind == RF_RECORD_CUT;
        if (call->outcome == RF_CALL_MISSING && record.kind != RF_RECORD_NEED) {
            status = rf_error_set(err, RF_INVALID, "rows beside a missing blob");
            break;
        }
    }
    rf_output_release(&reader);
    return status == RF_END ? RF_OK : status;
}

static enum rf_call_outcome outcome_of(uint32_t outcome)
{
    switch (outcome) {
    case RF_ENV_ROWS:
        return RF_CALL_ROWS;
    case RF_ENV_NONE:
        return RF_CALL_NONE;
    case RF_ENV_LIMIT:
        return RF_CALL_LIMIT;
    case RF_ENV_MISSING:
        return RF_CALL_MISSING;
    default:
        return RF_CALL_FAILED;
    }
}

/* Fill a call from a response whose body is in the arena. */
static enum rf_status take_call(struct rf_pool *pool, struct rf_pool_worker *w,
                                struct rf_sent *sent, const struct rf_response *head,
                                const uint8_t *body)
{
    struct rf_call *call = call_of(sent);
    struct rf_arena *arena = &sent->job->result->arena;
    struct rf_error err = {.status = RF_OK};
    const uint8_t *text = body + head->output_size;

    call->outcome = outcome_of(head->outcome);
    call->output = rf_bytes(body, head->output_size);
    call->cpu_us += head->cpu_us;
    call->wall_us = head->wall_us;
    if (call->outcome == RF_CALL_FAILED || call->outcome == RF_CALL_LIMIT) {
        call->message = clean_words(arena, rf_bytes(text, head->message_size), "");
        if (head->traceback_size)
            call->traceback = clean_words(
                arena, rf_bytes(text + head->message_size, head->traceback_size), "\n\t");
    }
    if (head->trace_size)
        call->trace = clean_words(
            arena, rf_bytes(text + head->message_size + head->traceback_size, head->trace_size),
            "\n\t");
    if (RF_SAFEGUARD("output-check") && check_output(call, sent->job->item, &err) != RF_OK) {
        char words[RF_POOL_WORDS];
        call->output = rf_bytes(NULL, 0);
        call->rows = call->parts = call->needs = call->cuts = 0;
        snprintf(words, sizeof words, "output refused: %.120s", err.message);
        return corrupt(pool, w, words);
    }
    pool->stats.calls++;
    pool->stats.cpu_us += head->cpu_us;
    return RF_OK;
}

static void take_task(struct rf_task *task, const struct rf_response *head, const uint8_t *body)
{
    task->done = true;
    task->status = head->outcome == RF_ENV_ROWS ? RF_OK : RF_INVALID;
    task->output = rf_bytes(body, head->output_size);
    if (task->status)
        snprintf(task->words, sizeof task->words, "%s",
                 clean_words(task->arena, rf_bytes(body + head->output_size, head->message_size),
                             ""));
}

/* The oldest request has one answer more. */
static void step_on(struct rf_pool *pool, struct rf_pool_worker *w)
{
    struct rf_sent *sent = sent_at(w, 0);
    struct rf_job *job = sent->job;

    sent->mask &= sent->mask - 1;
    sent->index++;
    w->calls++;
    w->needs = 0;
    w->assembling = false;
    w->body = NULL;
    pool->stillborn = 0;
    atomic_store_explicit(&w->loads, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&w->answered, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&w->outstanding, 1, memory_order_relaxed);
    if (sent->mask)
        return;
    w->sent_first = (w->sent_first + 1) % RF_POOL_DEPTH;
    w->sent_count--;
    if (job)
        rf_pool_settle(pool, job);
}

static enum rf_status finish_response(struct rf_pool *pool, struct rf_pool_worker *w)
{
    struct rf_sent *sent = sent_at(w, 0);
    enum rf_status status = RF_OK;

    w->cpu_us += w->head.cpu_us;
    if (sent->job)
        status = take_call(pool, w, sent, &w->head, w->body);
    else
        take_task(w->task, &w->head, w->body);
    if (status == RF_OK)
        step_on(pool, w);
    return status;
}

/* Does a response's head keep the rules? */
static bool plausible(struct rf_pool_worker *w, const struct rf_response *head)
{
    struct rf_sent *sent = w->sent_count ? sent_at(w, 0) : NULL;
    uint64_t output_max = RF_ANSWER_MAX;
    bool traced = false, records;

    if (!sent || head->kind != RF_RESPONSE_CALL || head->number != sent->number ||
        head->index != sent->index || head->outcome > RF_ENV_MISSING)
        return false;
    records = head->outcome == RF_ENV_ROWS || (sent->job && head->outcome == RF_ENV_MISSING);
    if (sent->job) {
        output_max = (uint64_t)call_of(sent)->mapper->decl->limits.output_mb << 20;
        traced = sent->job->item->trace;
    }
    return head->output_size <= (records ? output_max : 0) &&
           head->message_size <= RF_MESSAGE_MAX && head->traceback_size <= RF_TRACEBACK_MAX &&
           head->trace_size <= (traced ? RF_TRACE_MAX : 0);
}

/* The first record of a response: its head, and its body if that is small. */
static enum rf_status take_head(struct rf_pool *pool, struct rf_pool_worker *w,
                                struct rf_bytes record)
{
    size_t total;

    if (record.size < sizeof w->head)
        return corrupt(pool, w, "worker wrote half a response");
    memcpy(&w->head, record.data, sizeof w->head);
    if (!plausible(w, &w->head))
        return corrupt(pool, w, "worker wrote a response that nobody asked for");
    total = (size_t)w->head.output_size + w->head.message_size + w->head.traceback_size +
            w->head.trace_size;
    w->body = rf_arena_try(arena_of(w), total);
    if (!w->body)
        return corrupt(pool, w, "no memory for the worker's output");
    w->body_size = total;
    w->body_got = 0;
    if (total > RF_PIECE_MAX) {
        w->assembling = true;
        total = 0; /* of the body in this record */
    }
    if (record.size != sizeof w->head + total)
        return corrupt(pool, w, "worker wrote a response of two sizes");
    memcpy(w->body, record.data + sizeof w->head, total);
    return w->assembling ? RF_OK : finish_response(pool, w);
}

static enum rf_status take_piece(struct rf_pool *pool, struct rf_pool_worker *w,
                                 struct rf_bytes record)
{
    struct rf_piece head;
    size_t size;

    if (record.size <= sizeof head)
        return corrupt(pool, w, "worker wrote half a piece");
    memcpy(&head, record.data, sizeof head);
    size = record.size - sizeof head;
    if (head.kind != RF_RESPONSE_PIECE || head.number != w->head.number ||
        size > w->body_size - w->body_got)
        return corrupt(pool, w, "worker wrote a piece of something else");
    memcpy(w->body + w->body_got, record.data + sizeof head, size);
    w->body_got += size;
    return w->body_got == w->body_size ? finish_response(pool, w) : RF_OK;
}

enum rf_status rf_worker_drain(struct rf_pool *pool, struct rf_pool_worker *w)
{
    struct rf_bytes record;
    enum rf_status status = RF_OK;
    bool any = false;

    while (!w->corrupt && (status = rf_ring_peek(&w->responses, &record)) == RF_OK) {
        status = w->assembling ? take_piece(pool, w, record) : take_head(pool, w, record);
        if (status)
            break;
        rf_ring_consume(&w->responses);
        any = true;
    }
    if (any)
        wake(&w->shared->room_waits);
    if (status == RF_END || w->corrupt)
        return w->corrupt ? RF_CORRUPT : RF_OK;
    return status ? corrupt(pool, w, "worker's ring makes no sense") : RF_OK;
}

/* ---- answering ---- */

/* The host could not answer: the item ends so, through no fault of a mapper. */
static enum rf_status host_failed(struct rf_pool *pool, struct rf_pool_worker *w,
                                  enum rf_status status, const struct rf_error *err)
{
    struct rf_job *job = sent_at(w, 0)->job;

    job->result->status = status;
    job->result->error = *err;
    job->result->error.status = status;
    rf_worker_condemn(pool, w, RF_VERDICT_HOST, "");
    return RF_CORRUPT;
}

static enum rf_status answer_read(struct rf_pool *pool, struct rf_pool_worker *w,
                                  const struct rf_ask *ask, struct rf_answer *answer)
{
    struct rf_item *item = sent_at(w, 0)->job->item;
    struct rf_error err = {.status = RF_OK};
    uint64_t left = ask->offset < item->size ? item->size - ask->offset : 0;
    size_t size = ask->size < left ? ask->size : (size_t)left, got = size;
    enum rf_status status = RF_OK;

    if (item->content && size)
        memcpy(w->window, item->content + ask->offset, size);
    else if (size && !pool->source.read)
        status = rf_error_set(&err, RF_IO, "no way to read the item's content");
    else if (size)
        status = pool->source.read(pool->source.user, item, ask->offset, w->window, size, &got,
                                   &err);
    if (status)
        return host_failed(pool, w, status, &err);
    answer->got = (uint32_t)(got < size ? got : size);
    answer->size = item->size;
    return RF_OK;
}

static enum rf_status answer_need(struct rf_pool *pool, struct rf_pool_worker *w,
                                  const struct rf_ask *ask, struct rf_answer *answer)
{
    struct rf_error err = {.status = RF_OK};
    enum rf_status status = RF_NOT_FOUND;

    if (++w->needs > RF_NEEDS_MAX + 1) /* its environment says so at one less */
        return corrupt(pool, w, "asked for too many other blobs");
    if (pool->source.need_stat)
        status = pool->source.need_stat(pool->source.user, &ask->ref, &answer->size, &err);
    if (status != RF_OK && status != RF_NOT_FOUND)
        return host_failed(pool, w, status, &err);
    answer->status = status;
    return RF_OK;
}

static enum rf_status answer_need_read(struct rf_pool *pool, struct rf_pool_worker *w,
                                       const struct rf_ask *ask, struct rf_answer *answer)
{
    struct rf_error err = {.status = RF_OK};
    enum rf_status status = RF_IO;
    size_t got = 0;

    if (pool->source.need_read)
        status = pool->source.need_read(pool->source.user, &ask->ref, ask->offset, w->window,
                                        ask->size, &got, &err);
    if (status)
        return host_failed(pool, w, status, &err);
    answer->got = (uint32_t)(got < ask->size ? got : ask->size);
    return RF_OK;
}

/* Lend what is left of the opened bytes, as much as fits into the window. */
static void answer_opened(struct rf_pool_worker *w, uint64_t offset, uint32_t size,
                          struct rf_answer *answer)
{
    uint64_t left = offset < w->opened.size ? w->opened.size - offset : 0;

    answer->size = w->opened.size;
    answer->got = (uint32_t)(size < left ? size : left);
    if (answer->got)
        memcpy(w->window, w->opened.data + offset, answer->got);
}

static enum rf_status answer_text(struct rf_pool *pool, struct rf_pool_worker *w,
                                  const struct rf_ask *ask, struct rf_answer *answer)
{
    uint32_t count = atomic_load_explicit(&pool->mapper_count, memory_order_relaxed);
    struct rf_mapper *mapper = w->task ? w->task->mapper
                               : ask->mapper < count ? pool->mappers[ask->mapper]
                                                     : NULL;
    const struct rf_text *text;

    if (!mapper || !memchr(ask->name, '\0', sizeof ask->name))
        return corrupt(pool, w, "asked for a mapper that is not there");
    if (ask->op == RF_ASK_DECL) {
        if (!mapper->decl)
            return corrupt(pool, w, "asked for a declaration that is not there");
        w->opened = mapper->decl->json;
    } else {
        answer->status = rf_mapper_file(mapper, ask->name, &text);
        if (answer->status != RF_OK) {
            answer->status = RF_NOT_FOUND;
            return RF_OK;
        }
        w->opened = text->text;
        if (!ask->name[0])
            atomic_fetch_add_explicit(&w->loads, 1, memory_order_relaxed);
        snprintf(answer->name, sizeof answer->name, "%s", text->name);
    }
    answer_opened(w, 0, RF_WINDOW_SIZE, answer);
    return RF_OK;
}

static enum rf_status make_answer(struct rf_pool *pool, struct rf_pool_worker *w,
                                  const struct rf_ask *ask, struct rf_answer *answer)
{
    bool item = ask->op == RF_ASK_READ || ask->op == RF_ASK_NEED || ask->op == RF_ASK_NEED_READ;

    if (w->sent_count == 0 || ask->size > RF_WINDOW_SIZE || (item && !sent_at(w, 0)->job))
        return corrupt(pool, w, "asked for something while it had nothing to do");
    switch (ask->op) {
    case RF_ASK_READ:
        return answer_read(pool, w, ask, answer);
    case RF_ASK_NEED:
        return answer_need(pool, w, ask, answer);
    case RF_ASK_NEED_READ:
        return answer_need_read(pool, w, ask, answer);
    case RF_ASK_FILE:
    case RF_ASK_DECL:
        return answer_text(pool, w, ask, answer);
    case RF_ASK_MORE:
        answer_opened(w, ask->offset, ask->size, answer);
        return RF_OK;
    default:
        return corrupt(pool, w, "asked for something that does not exist");
    }
}

/* One ask. What it had finished before is taken first, so that the oldest request is the one that
 * asks. */
static enum rf_status answer_one(struct rf_pool *pool, struct rf_pool_worker *w,
                                 const struct rf_ask *ask)
{
    struct rf_answer answer = {.status = RF_OK};
    enum rf_status status = rf_worker_drain(pool, w);

    if (status || ask->op == RF_ASK_BELL)
        return status;
    atomic_store_explicit(&w->answering, true, memory_order_relaxed);
    status = make_answer(pool, w, ask, &answer);
    if (status == RF_OK)
        (void)!send(w->sock, &answer, sizeof answer, MSG_NOSIGNAL | MSG_DONTWAIT);
    atomic_store_explicit(&w->answering, false, memory_order_relaxed);
    return status;
}

enum rf_status rf_worker_answer(struct rf_pool *pool, struct rf_pool_worker *w)
{
    for (int i = 0; i < ASKS_A_TURN; i++) {
        struct rf_ask ask;
        ssize_t size = recv(w->sock, &ask, sizeof ask, MSG_DONTWAIT | MSG_TRUNC);
        enum rf_status status;

        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            return RF_OK;
        if (size <= 0)
            return RF_END;
        if (size != (ssize_t)sizeof ask)
            return corrupt(pool, w, "asked in words that do not exist");
        status = answer_one(pool, w, &ask);
        if (status)
            return status;
    }
    return RF_OK;
}

/* ---- the end ---- */

static void delist(struct rf_pool *pool, struct rf_pool_worker *w)
{
    pthread_mutex_lock(&pool->watch.lock);
    pool->slots[w->slot] = NULL;
    pthread_mutex_unlock(&pool->watch.lock);
    if (!w->retiring)
        pool->kinds[w->kind]--;
    epoll_ctl(pool->epoll, EPOLL_CTL_DEL, w->sock, NULL);
}

void rf_worker_discard(struct rf_pool *pool, struct rf_pool_worker *w)
{
    (void)syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0);
    delist(pool, w);
    release(w);
}

void rf_worker_retire(struct rf_pool *pool, struct rf_pool_worker *w)
{
    if (!w->retiring) {
        w->retiring = true;
        pool->kinds[w->kind]--;
    }
    if (w->sent_count == 0) {
        pool->stats.recycled++;
        rf_worker_discard(pool, w);
    }
}

/* Kill, and wait until it can write no more. */
static void wait_dead(struct rf_pool_worker *w)
{
    struct pollfd wait = {.fd = w->pidfd, .events = POLLIN};

    (void)syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0);
    while (poll(&wait, 1, DEATH_MS) < 0 && errno == EINTR)
        ;
}

/* How it ended, from the zygote; false when the zygote is gone too. */
static bool know_status(struct rf_pool *pool, struct rf_pool_worker *w)
{
    while (!w->status_known && pool->zygote_pid && w->zygote == pool->zygote_serial) {
        struct pollfd wait = {.fd = pool->zygote_sock, .events = POLLIN};
        int ready = poll(&wait, 1, DEATH_MS);
        if ((ready < 0 && errno == EINTR))
            continue;
        if (ready <= 0)
            break;
        if (rf_zygote_hear(pool, 0) == RF_END)
            rf_zygote_stop(pool);
    }
    return w->status_known;
}

/* Why the call it was in is to blame, in words; RF_VERDICT_NONE: it is not. */
static enum rf_verdict judge(struct rf_pool *pool, struct rf_pool_worker *w, char *words,
                             size_t size)
{
    struct rf_sent *sent = sent_at(w, 0);
    uint64_t running = atomic_load(&w->shared->step) / 4, answered = atomic_load(&w->answered);
    int signal_number;

    if (w->verdict != RF_VERDICT_NONE) {
        snprintf(words, size, "%s", w->words);
        if (w->verdict_call && w->verdict_call != answered + 1)
            return RF_VERDICT_NONE; /* that call was answered just before the kill */
        return w->verdict;
    }
    if (!know_status(pool, w)) {
        snprintf(words, size, "worker died with the process that forked it");
        return RF_VERDICT_NONE;
    }
    if (WIFEXITED(w->status) && WEXITSTATUS(w->status) == RF_EXIT_MEMORY) {
        uint32_t mb = sent->job ? call_of(sent)->mapper->decl->limits.memory_mb : 16;
        snprintf(words, size, "needed more than %u MB of memory", mb);
    } else if (WIFEXITED(w->status)) {
        snprintf(words, size, "worker ended with status %d", WEXITSTATUS(w->status));
        if (WEXITSTATUS(w->status) == RF_EXIT_JAIL)
            pool->stillborn++;
    } else {
        const char *name;
        signal_number = WTERMSIG(w->status);
        name = sigabbrev_np(signal_number);
        snprintf(words, size, "worker died by signal %d (SIG%s)", signal_number,
                 name ? name : "?");
    }
    pool->stats.crashes++;
    return running == answered + 1 ? RF_VERDICT_FAULT : RF_VERDICT_NONE;
}

/* The watchdog is done with a dead worker. CPU of the call it was in, as far as was seen. */
static uint32_t unwatch(struct rf_pool *pool, struct rf_pool_worker *w)
{
    int64_t cpu = 0;

    pthread_mutex_lock(&pool->watch.lock);
    if (w->watched && w->step / 4 == atomic_load(&w->answered) + 1)
        cpu = w->looked_cpu_us - w->step_cpu_us;
    atomic_store(&w->outstanding, 0);
    pthread_mutex_unlock(&pool->watch.lock);
    return cpu < 0 ? 0 : cpu > UINT32_MAX ? UINT32_MAX : (uint32_t)cpu;
}

static void limit_reached(struct rf_job *job, struct rf_call *call, const char *words)
{
    call->outcome = RF_CALL_LIMIT;
    call->message = rf_arena_copy(&job->result->arena, words, strlen(words));
    if (!call->message)
        call->message = "hit a limit";
}

/* What becomes of the call that was under way. */
static void sentence(struct rf_pool *pool, struct rf_pool_worker *w, struct rf_sent *sent,
                     enum rf_verdict verdict, uint32_t cpu_us, const char *words)
{
    struct rf_job *job = sent->job;
    uint64_t bit = sent->mask & -sent->mask;
    struct rf_call *call = call_of(sent);

    if (verdict == RF_VERDICT_HOST)
        return; /* the whole item ends; rf_pool_settle sees its status */
    if (verdict == RF_VERDICT_NONE) {
        if (++job->unlucky <= RF_POOL_UNLUCKY_MAX) {
            if (w->kind == RF_WORKER_SOLO) {
                job->solo |= bit;
                sent->mask &= ~bit;
            }
            return;
        }
        verdict = RF_VERDICT_FAULT; /* too often to be chance */
    }
    call->cpu_us += cpu_us;
    pool->stats.cpu_us += cpu_us;
    sent->mask &= ~bit;
    if (w->kind == RF_WORKER_FAST && verdict == RF_VERDICT_DEADLINE) {
        call->outcome = RF_CALL_SLOW;
        pool->stats.kills_slow++;
        return;
    }
    pool->stats.kills_limit++;
    if (w->kind == RF_WORKER_SOLO)
        limit_reached(job, call, words);
    else
        job->solo |= bit;
}

/* Everything in flight goes back, the oldest in front. */
static void send_back(struct rf_pool *pool, struct rf_pool_worker *w)
{
    for (uint32_t i = w->sent_count; i-- > 0;) {
        struct rf_sent *sent = sent_at(w, i);
        if (!sent->job)
            continue;
        sent->job->todo |= sent->mask;
        rf_pool_settle(pool, sent->job);
    }
}

void rf_worker_bury(struct rf_pool *pool, struct rf_pool_worker *w)
{
    char words[RF_POOL_WORDS] = "";

    wait_dead(w);
    (void)rf_worker_drain(pool, w); /* complete records count, however it died */
    if (w->sent_count) {
        uint32_t cpu_us = unwatch(pool, w);
        enum rf_verdict verdict;

        verdict = judge(pool, w, words, sizeof words);
        if (w->task) {
            w->task->status = verdict == RF_VERDICT_NONE ? RF_UNAVAILABLE : RF_LIMIT;
            snprintf(w->task->words, sizeof w->task->words, "%s", words);
            w->task->done = true;
        } else {
            sentence(pool, w, sent_at(w, 0), verdict, cpu_us, words);
        }
        send_back(pool, w);
    }
    delist(pool, w);
    release(w);
}
