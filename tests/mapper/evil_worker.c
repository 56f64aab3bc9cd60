/*
 * evil_worker.c - a refuge-mapper whose workers have been taken over
 *
 * The zygote is the real one; the worker does not enter the jail and writes into the rings and onto
 * the socket what the first word of an item's content says. The pool must refuse all of it. For a
 * declaration it always answers the same; "good" is answered as an honest worker would.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <linux/futex.h>
#include <time.h>
#include <unistd.h>

#include "core/row.h"
#include "mappers/lua_env.h"
#include "mappers/ring.h"
#include "mappers/zygote.h"

static const char declaration[] =
    "{\"name\":\"evil\",\"on\":[\"blob\"],\"limits\":{\"output_mb\":1,\"cpu_ms\":300},"
    "\"tables\":[{\"name\":\"evil_rows\",\"columns\":[{\"name\":\"word\",\"type\":\"text\"}]}]}";

struct evil {
    struct rf_shared *shared;
    struct rf_ring requests, responses;
    uint8_t *response_data;
    uint64_t call;
};

static void bell(void)
{
    struct rf_ask ask = {.op = RF_ASK_BELL};

    (void)!send(RF_ZYGOTE_FD, &ask, sizeof ask, MSG_NOSIGNAL);
}

static void put(struct evil *e, const void *data, uint32_t size)
{
    uint8_t *to;

    while (rf_ring_reserve(&e->responses, size, &to) != RF_OK)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    memcpy(to, data, size);
    rf_ring_commit(&e->responses, size);
    rf_ring_publish(&e->responses);
}

/* A response with this body, as its head says. */
static void answer(struct evil *e, struct rf_response head, const void *body, uint32_t size)
{
    uint8_t record[8192];

    memcpy(record, &head, sizeof head);
    if (size)
        memcpy(record + sizeof head, body, size);
    put(e, record, (uint32_t)sizeof head + size);
}

static _Noreturn void spin(struct evil *e, bool forge)
{
    for (;;)
        if (forge) /* pretend to be in a new call all the time */
            atomic_fetch_add(&e->shared->step, 4);
}

static _Noreturn void wait_for_death(void)
{
    bell();
    for (;;)
        pause();
}

static void make_row(struct rf_buf *buf, uint16_t table, const char *text)
{
    struct rf_value value = {.type = RF_TYPE_TEXT, .text = rf_bytes_text(text)};

    rf_row_begin(buf, table, 1);
    rf_row_put(buf, &value);
}

/* Answers that are wrong in one way each. true: the mode is one of these. */
static bool answer_wrongly(struct evil *e, const char *mode, struct rf_response head)
{
    uint8_t piece[sizeof(struct rf_piece) + 16] = {RF_RESPONSE_PIECE};
    struct rf_buf out;

    rf_buf_init(&out, 4096);
    make_row(&out, strcmp(mode, "table") == 0 ? 7 : 0, strcmp(mode, "utf8") == 0 ? "\xff" : "x");
    if (strcmp(mode, "part") == 0) {
        rf_buf_clear(&out);
        rf_part_put_range(&out, rf_bytes(NULL, 0), 0, 1u << 30, rf_bytes_text("text/plain"),
                          rf_bytes(NULL, 0));
    }
    if (strcmp(mode, "cut") == 0)
        out.size--;
    head.output_size = (uint32_t)out.size;
    if (strcmp(mode, "number") == 0)
        head.number++;
    else if (strcmp(mode, "index") == 0)
        head.index++;
    else if (strcmp(mode, "outcome") == 0)
        head.outcome = 77;
    else if (strcmp(mode, "kind") == 0)
        head.kind = 9;
    else if (strcmp(mode, "huge") == 0)
        head.output_size = UINT32_MAX;
    else if (strcmp(mode, "sizes") == 0)
        head.message_size = 100;
    else if (strcmp(mode, "trace") == 0)
        head.trace_size = 1;
    else if (strcmp(mode, "rowsmissing") == 0)
        head.outcome = RF_ENV_MISSING;
    else if (strcmp(mode, "rowsnone") == 0)
        head.outcome = RF_ENV_NONE;
    else if (strcmp(mode, "stray") == 0)
        put(e, piece, sizeof piece);
    else if (strcmp(mode, "pieces") == 0) {
        head.output_size = RF_PIECE_MAX + 1;
        answer(e, head, NULL, 0);
        head.output_size = 3; /* then something else than the pieces */
    } else if (strcmp(mode, "table") != 0 && strcmp(mode, "utf8") != 0 &&
               strcmp(mode, "part") != 0 && strcmp(mode, "cut") != 0) {
        rf_buf_release(&out);
        return false;
    }
    answer(e, head, out.data, (uint32_t)out.size);
    wait_for_death();
}

/* Ring positions and record sizes. */
static void damage_ring(struct evil *e, const char *mode)
{
    uint64_t head = atomic_load(&e->shared->response_head);
    uint32_t size = UINT32_MAX - 16;

    if (strcmp(mode, "headodd") == 0)
        head += 7;
    else if (strcmp(mode, "headfar") == 0)
        head += (uint64_t)1 << 40;
    else if (strcmp(mode, "headback") == 0)
        head -= 8;
    else if (strcmp(mode, "recordsize") == 0) {
        memcpy(e->response_data + (head & (RF_RESPONSE_RING_SIZE - 1)), &size, sizeof size);
        head += 64;
    } else if (strcmp(mode, "skip") == 0) {
        memset(e->response_data, 0xff, RF_RESPONSE_RING_SIZE);
        head += RF_RESPONSE_RING_SIZE;
    } else {
        return;
    }
    atomic_store(&e->shared->response_head, head);
    wait_for_death();
}

/* Asks that make no sense. */
static void ask_nonsense(const char *mode)
{
    struct rf_ask ask = {.op = RF_ASK_READ, .size = 16};

    if (strcmp(mode, "askop") == 0)
        ask.op = 99;
    else if (strcmp(mode, "asksize") == 0)
        ask.size = UINT32_MAX;
    else if (strcmp(mode, "askmapper") == 0)
        ask.op = RF_ASK_FILE, ask.mapper = UINT32_MAX;
    else if (strcmp(mode, "askname") == 0)
        ask.op = RF_ASK_FILE, memset(ask.name, 'a', sizeof ask.name);
    else if (strcmp(mode, "askneeds") == 0)
        ask.op = RF_ASK_NEED;
    else if (strcmp(mode, "askwords") != 0)
        return;
    do
        (void)!send(RF_ZYGOTE_FD, &ask, strcmp(mode, "askwords") == 0 ? 3 : sizeof ask, 0);
    while (strcmp(mode, "askneeds") == 0);
    wait_for_death();
}

static void die(struct evil *e, const char *mode)
{
    if (strcmp(mode, "segv") == 0)
        signal(SIGSEGV, SIG_DFL), raise(SIGSEGV);
    if (strcmp(mode, "exit") == 0)
        _exit(0);
    if (strcmp(mode, "exit3") == 0)
        _exit(RF_EXIT_MEMORY);
    if (strcmp(mode, "before") == 0) { /* as if between two calls */
        atomic_store(&e->shared->step, (e->call - 1) * 4);
        _exit(9);
    }
    if (strcmp(mode, "spin") == 0)
        spin(e, false);
    if (strcmp(mode, "forge") == 0)
        spin(e, true);
    if (strcmp(mode, "bells") == 0)
        for (;;)
            bell();
    if (strcmp(mode, "sleep") == 0)
        for (;;)
            pause();
}

static void serve(struct evil *e, struct rf_bytes record)
{
    struct rf_request request;
    struct rf_response head = {.kind = RF_RESPONSE_CALL, .outcome = RF_ENV_ROWS};
    const uint8_t *content;
    char mode[32] = "";
    struct rf_buf out;

    memcpy(&request, record.data, sizeof request);
    head.number = request.number;
    atomic_store(&e->shared->step, ++e->call * 4 + RF_PHASE_RUN);
    if (request.op != RF_REQUEST_MAP) {
        head.output_size = sizeof declaration - 1;
        answer(e, head, declaration, sizeof declaration - 1);
        return;
    }
    content = record.data + record.size - request.size;
    for (size_t i = 0; i < request.size && i < sizeof mode - 1 && content[i] != ' '; i++)
        mode[i] = (char)content[i];
    ask_nonsense(mode);
    damage_ring(e, mode);
    die(e, mode);
    if (answer_wrongly(e, mode, head))
        return;
    rf_buf_init(&out, 4096);
    make_row(&out, 0, mode);
    head.output_size = (uint32_t)out.size;
    answer(e, head, out.data, (uint32_t)out.size);
    rf_buf_release(&out);
}

static void work(const struct rf_worker_start *start)
{
    struct evil e = {.shared = start->shared};
    uint8_t *base = (uint8_t *)start->shared;
    struct rf_bytes record;

    e.response_data = base + RF_CONTROL_SIZE + RF_REQUEST_RING_SIZE;
    rf_ring_init(&e.requests, base + RF_CONTROL_SIZE, RF_REQUEST_RING_SIZE,
                 &start->shared->request_head, &start->shared->request_tail);
    rf_ring_init(&e.responses, e.response_data, RF_RESPONSE_RING_SIZE,
                 &start->shared->response_head, &start->shared->response_tail);
    for (;;) {
        if (rf_ring_peek(&e.requests, &record) == RF_OK) {
            serve(&e, record);
            rf_ring_consume(&e.requests);
            continue;
        }
        bell();
        atomic_store(&start->shared->worker_waits, 1);
        if (rf_ring_empty(&e.requests))
            syscall(SYS_futex, &start->shared->worker_waits, FUTEX_WAIT, 1, NULL, NULL, 0);
    }
}

static void warm(void)
{
}

int main(void)
{
    return rf_zygote_run(warm, work);
}
