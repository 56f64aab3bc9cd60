/*
 * zygote.h - the process that forks workers
 *
 * Started by the pool with one descriptor, RF_ZYGOTE_FD. It loads libraries and touches what opens
 * files at its first use, gives up its rights (jail.h), then forks a worker per request and tells
 * how each one ended. It never sees a mapper. It ends when the socket closes or the supervisor
 * dies, and its workers die with it.
 */
#ifndef RF_MAPPERS_ZYGOTE_H
#define RF_MAPPERS_ZYGOTE_H

#include <stdint.h>

#include "mappers/jail.h"
#include "mappers/protocol.h"

/* What a forked worker is given; its socket is RF_ZYGOTE_FD, shared is mapped. */
struct rf_worker_start {
    struct rf_shared *shared;
    uint32_t flags, memory_mb; /* of struct rf_fork_request */
    const struct rf_jail *jail;
};

/* Serve until the supervisor is gone. worker runs in the child and must not return. warm is called
 * once, before rights are given up. Returns the exit status of the program. */
int rf_zygote_run(void (*warm)(void), void (*worker)(const struct rf_worker_start *start));

#endif
