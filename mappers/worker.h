/*
 * worker.h - the life of a jailed worker: requests in, responses out
 */
#ifndef RF_MAPPERS_WORKER_H
#define RF_MAPPERS_WORKER_H

#include "mappers/zygote.h"

/* Enter the jail and serve requests until killed. Does not return. */
void rf_worker_run(const struct rf_worker_start *start);

#endif
