/*
 * holder.h - who holds a lock: for words to a person, never for a decision
 */
#ifndef RF_CORE_HOLDER_H
#define RF_CORE_HOLDER_H

#include <stdbool.h>

#define RF_HOLDER_SIZE 160

/* "123 (refuge index run --follow)": the process that took a flock on this open file or folder and
 * its command line, as the kernel tells. False when it does not: another PID namespace, no /proc, a
 * file system that does not show its numbers. */
bool rf_holder_find(int fd, char out[RF_HOLDER_SIZE]);

#endif
