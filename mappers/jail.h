/*
 * jail.h - taking every right away from a process
 *
 * In two steps: the zygote gives up what no worker will ever need (network, capabilities, new
 * privileges, the file system); a worker then limits itself and installs the system call filter.
 * What is left: its heap, its shared memory, its one socket to the supervisor, the clock.
 *
 * The filter is an allow-list; any other call kills the process (SIGSYS). Under ASan and TSan it
 * also lets through what their runtimes need, and address space is not limited.
 */
#ifndef RF_MAPPERS_JAIL_H
#define RF_MAPPERS_JAIL_H

#include <stdint.h>

#include "core/error.h"

struct sock_filter;

/* The filter as the kernel takes it. */
struct rf_jail {
    struct sock_filter *program;
    unsigned short count;
};

/* Give up network, capabilities, new privileges and (where the kernel has landlock) all files, as
 * far as permitted; compile the filter. In the zygote, once, single-threaded. */
RF_MUST_USE enum rf_status rf_jail_prepare(struct rf_jail *jail, struct rf_error *err);
void rf_jail_release(struct rf_jail *jail);

/* Limits and filter; no way back. Descriptors 0 up to keep_fd stay open, all others are closed. In
 * the worker, before it sees a byte that is not ours. memory_mb: address space. */
RF_MUST_USE enum rf_status rf_jail_enter(const struct rf_jail *jail, int keep_fd,
                                         uint32_t memory_mb, struct rf_error *err);

#endif
