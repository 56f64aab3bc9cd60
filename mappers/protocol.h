/*
 * protocol.h - what the pool, the zygote and the jailed workers say to each other
 *
 * Three channels, all between processes of one build on one machine, so that structures travel as
 * they are in memory:
 *
 *   pool <-> zygote   a SEQPACKET socket: fork requests with the new worker's descriptors; back
 *                     come its pidfd and, when it has died, its wait status
 *   pool <-> worker   a sealed memfd: control page, request ring, response ring, window
 *   worker -> pool    a SEQPACKET socket: asks (bytes of the item, of a needed blob, of a mapper's
 *                     text; or the doorbell) and their answers, whose bytes lie in the window
 *
 * The supervisor trusts nothing a worker writes: it keeps its own positions, copies a record out
 * of shared memory before it looks at it, and a rule broken costs the worker its life.
 */
#ifndef RF_MAPPERS_PROTOCOL_H
#define RF_MAPPERS_PROTOCOL_H

#include <stdatomic.h>
#include <stdint.h>

#include "core/blobref.h"

#define RF_PROTOCOL_VERSION 1

#define RF_ZYGOTE_FD 3 /* the socket a zygote is born with; in a worker its own socket */

#define RF_CONTROL_SIZE 4096u
#define RF_REQUEST_RING_SIZE (1u << 20)
#define RF_RESPONSE_RING_SIZE (1u << 20)
#define RF_WINDOW_SIZE (256u << 10) /* bytes of one answer at most */
#define RF_SHARED_SIZE                                                                             \
    (RF_CONTROL_SIZE + RF_REQUEST_RING_SIZE + RF_RESPONSE_RING_SIZE + RF_WINDOW_SIZE)

#define RF_INLINE_MAX (64u << 10)  /* content up to this size travels in the request */
#define RF_PIECE_MAX (64u << 10)   /* a response larger than this follows in pieces */
#define RF_MESSAGE_MAX (4u << 10)  /* bytes of a script's message */
#define RF_TRACEBACK_MAX (16u << 10)
#define RF_TRACE_MAX (1u << 20)
#define RF_ANSWER_MAX (4u << 20)   /* bytes of a declaration or of declared tests */
#define RF_ITEM_TEXT_MAX 65535u    /* bytes of an item's name or media type */
#define RF_LOAD_MS 5000u           /* CPU of running a mapper's chunk */
#define RF_WORKER_CPU_S 3600u      /* CPU of a worker's whole life; it is recycled at half */

#define RF_FILE_NAME_MAX 100       /* bytes of a mapper file's name, NUL included */
#define RF_FILE_SIZE_MAX (1u << 20) /* bytes of one text of a mapper */
#define RF_FILES_MAX 64            /* texts of one mapper */
#define RF_NEEDS_MAX 1000          /* other blobs one call may ask for */

/* How a worker ends itself. */
#define RF_EXIT_QUIET 0   /* the supervisor is gone */
#define RF_EXIT_JAIL 2    /* the jail could not be entered */
#define RF_EXIT_MEMORY 3  /* the mapper's heap passed its limit */
#define RF_EXIT_PROTOCOL 4 /* the supervisor's words make no sense */

/*
 * The control page. Words are written by one side only, but both could: each side keeps its own
 * position privately and uses the page only to publish it.
 */
struct rf_shared {
    /* supervisor writes */
    _Alignas(64) _Atomic uint64_t request_head;
    _Alignas(64) _Atomic uint64_t response_tail;
    /* worker writes */
    _Alignas(64) _Atomic uint64_t request_tail;
    _Alignas(64) _Atomic uint64_t response_head;
    _Alignas(64) _Atomic uint64_t step;    /* call's number * 4 + enum rf_phase */
    /* set by the one who goes to sleep, cleared by the one who wakes it */
    _Alignas(64) _Atomic uint32_t supervisor_waits; /* wake: a doorbell on the worker's socket */
    _Alignas(64) _Atomic uint32_t worker_waits;     /* wake: futex; for requests */
    _Alignas(64) _Atomic uint32_t room_waits;       /* wake: futex; for room in the responses */
};

_Static_assert(sizeof(struct rf_shared) <= RF_CONTROL_SIZE, "the control page is one page");

enum rf_phase { RF_PHASE_IDLE = 0, RF_PHASE_LOAD = 1, RF_PHASE_RUN = 2 };

/* ---- records of the request ring ---- */

enum rf_request_op { RF_REQUEST_MAP = 1, RF_REQUEST_DECLARE, RF_REQUEST_TESTS };

#define RF_REQUEST_TRACE 1u
#define RF_REQUEST_INLINE 2u /* the content is in the record */

/* Followed by mapper_count ids (u32), media and a NUL, name and a NUL, then the content. */
struct rf_request {
    uint32_t number; /* of the request, running */
    uint16_t op, flags;
    uint32_t kind; /* enum rf_item_kind */
    uint32_t mapper_count;
    int64_t mtime_us, timestamp_us;
    uint64_t seq, size;
    uint32_t media_size, name_size; /* UINT32_MAX: none, and no NUL */
    struct rf_blobref ref, content_ref;
};

/* ---- records of the response ring ---- */

enum rf_response_kind { RF_RESPONSE_CALL = 1, RF_RESPONSE_PIECE };

/* One per mapper of a request, in order. Body: output, message, traceback, trace. It follows in
 * the record when it is at most RF_PIECE_MAX, else in records {rf_piece, bytes} right behind. */
struct rf_response {
    uint32_t kind;
    uint32_t number; /* of the request */
    uint32_t index;  /* of the mapper within the request */
    uint32_t outcome; /* enum rf_env_outcome */
    uint32_t cpu_us, wall_us;
    uint32_t output_size, message_size, traceback_size, trace_size;
};

struct rf_piece {
    uint32_t kind;
    uint32_t number;
};

/* ---- the worker's socket ---- */

enum rf_ask_op {
    RF_ASK_BELL = 1,  /* results are in the ring; no answer */
    RF_ASK_READ,      /* bytes of the item under way */
    RF_ASK_NEED,      /* size of another blob */
    RF_ASK_NEED_READ, /* its bytes */
    RF_ASK_FILE,      /* open a text of a mapper: name, "" for the main one; first bytes */
    RF_ASK_DECL,      /* open a mapper's declaration; first bytes */
    RF_ASK_MORE       /* further bytes of what FILE or DECL opened */
};

struct rf_ask {
    uint32_t op;
    uint32_t mapper; /* FILE, DECL */
    uint64_t offset;
    uint32_t size; /* at most RF_WINDOW_SIZE */
    struct rf_blobref ref; /* NEED, NEED_READ */
    char name[RF_FILE_NAME_MAX]; /* FILE */
};

struct rf_answer {
    uint32_t status; /* enum rf_status */
    uint32_t got;    /* bytes in the window */
    uint64_t size;   /* of the whole */
    char name[RF_FILE_NAME_MAX]; /* FILE: as messages should call it */
};

/* ---- the zygote's socket ---- */

#define RF_FORK_NICE 1u
#define RF_FORK_JIT_OFF 2u

/* With two descriptors: the memfd, the worker's socket. */
struct rf_fork_request {
    uint32_t version;
    uint32_t tag; /* comes back in the reply */
    uint32_t flags;
    uint32_t memory_mb; /* of address space */
};

enum rf_zygote_news { RF_ZYGOTE_HELLO = 1, RF_ZYGOTE_FORKED, RF_ZYGOTE_FAILED, RF_ZYGOTE_EXITED };

/* FORKED comes with one descriptor: the pidfd. */
struct rf_zygote_reply {
    uint32_t version;
    uint32_t kind;
    uint32_t tag;   /* FORKED, FAILED */
    int32_t pid;    /* FORKED, EXITED */
    int32_t status; /* FAILED: errno; EXITED: wait status */
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define RF_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define RF_SANITIZED 1
#endif
#endif
#ifndef RF_SANITIZED
#define RF_SANITIZED 0
#endif

#endif
