/* Plans that no planner would make: random cuts, head groups, servers and retention. */
#ifndef CADRE_TESTS_SUPPORT_RANDOM_PLAN_H
#define CADRE_TESTS_SUPPORT_RANDOM_PLAN_H

#include "attention_server/task.h"

typedef struct random_plan {
    uint64_t cut_seed; /* where documents are cut, rows and heads; pieces (trainers) matter too */
    uint64_t assign_seed; /* servers and retention */
    int uncut;            /* 1: one task a piece */
    int own_server;       /* 1: trainer t's tasks all on server t mod servers, all retained */
    int64_t window;
    int32_t num_kv_heads;
} random_plan_t;

/* Fills and finishes `plan`. The cuts depend on layout and cut_seed only. */
base_status_t random_plan_fill(const random_plan_t *options, const data_batch_t *batch,
                               const as_topology_t *topology, as_plan_t *plan);

/* A stream of small random integers: [0, below). */
uint32_t random_below(uint64_t *state, uint32_t below);

#endif
