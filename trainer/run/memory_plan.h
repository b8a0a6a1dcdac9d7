/* `cadre plan`: what a run will take, without training and without taking it.
 *
 * Every rank opens the run's inputs and makes the same objects that training makes, with the same
 * calls; only the device arena is laid out instead of allocated. So what the run holds on the host
 * is counted, not estimated (base/memory.h), and what the arena takes follows from the same
 * declarations. Added to that is what comes and goes beside them: staging while weights are loaded,
 * adapters begin, checkpoints are written, and results are exported; and for GPUs what trainer/run/driver_memory.h says of the
 * driver and libraries, with all ranks on one host. A test compares with the counters of a real run. */
#ifndef CADRE_TRAINER_RUN_MEMORY_PLAN_H
#define CADRE_TRAINER_RUN_MEMORY_PLAN_H

#include "base/config/config.h"
#include "comm/comm.h"
#include "trainer/run/epoch_estimate.h"
#include "trainer/run/memory_limit.h"

#include <stdbool.h>
#include <stdio.h>

/* Of one rank, bytes. */
typedef struct tr_memory_rank {
    int64_t device;    /* the arena and other buffers; on the CPU this is host memory too */
    int64_t driver;    /* on GPUs what the driver and libraries take beside them */
    int64_t host;      /* what the run holds while it trains */
    int64_t transient; /* the most that comes on top of that, for a while */
} tr_memory_rank_t;

int64_t tr_memory_rank_total(const tr_memory_rank_t *rank); /* the high-water mark */

typedef struct tr_memory_plan {
    const base_config_t *config; /* read by all ranks */
    const char *config_path;
    const tr_memory_limit_t *limit; /* NULL: this machine's */
    bool json, regions;
    FILE *out, *err;
    tr_memory_rank_t *ranks; /* [number of ranks], written */
    /* Written by rank 0. */
    bool reported; /* faults were printed already */
    bool fits;
} tr_memory_plan_t;

/* A comm_rank_fn; `user` is the tr_memory_plan_t that all ranks share. Rank 0 writes the answer to
 * `out`. PLAN-01 when a document is longer than a microbatch; else the errors of opening. */
base_status_t tr_memory_plan_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                  void *user);

#endif
