#include "trainer/bench/bench_plan_balance.h"

#include "attention_server/planner.h"
#include "lora/pack.h"
#include "trainer/bench/bench_plan_rig.h"

#include <string.h>

#define KV_HEADS  2
#define ROUNDS    5
#define MAX_TASKS 256

static const int64_t document_rows[] = {3500, 1700, 1100, 801, 600, 333, 129, 37};
enum { NUM_DOCUMENTS = sizeof document_rows / sizeof document_rows[0] };
#define MAX_ROWS     3584
#define TRAINER_ROWS 2304
#define MAX_PIECES   (NUM_DOCUMENTS + 2 * TR_BALANCE_SERVERS)

typedef struct balance {
    base_ctx_t *ctx;
    as_topology_t *topology;
    data_batch_t *batch;
    as_cost_t *cost;
    as_planner_t *planner;
    as_plan_t *plan;
} balance_t;

static base_status_t make_plan(balance_t *b, const as_profile_t *profile)
{
    data_document_t documents[NUM_DOCUMENTS];
    const lora_pack_t pack = {.num_trainers = TR_BALANCE_SERVERS,
                              .tokens_per_trainer = TRAINER_ROWS,
                              .num_documents = NUM_DOCUMENTS,
                              .documents = documents};
    as_machine_t machine = {
        .num_layers = 1, .link_ps_per_kib = {1000000, 1000000}, .dense_ns = {1000000, 1000000}};
    as_planner_config_t config = {.machine = &machine,
                                  .num_kv_heads = KV_HEADS,
                                  .cut_heads = 1,
                                  .cuts_follow_servers = 1,
                                  .max_documents = NUM_DOCUMENTS,
                                  .max_pieces = MAX_PIECES};
    as_score_t score;

    for (int32_t d = 0; d < NUM_DOCUMENTS; d++)
        documents[d] = (data_document_t){.rows = document_rows[d], .index = d};
    BASE_TRY(as_topology_create(b->ctx, AS_IN_PLACE, TR_BALANCE_SERVERS, NULL, 0, &b->topology));
    BASE_TRY(data_batch_create(b->ctx, NUM_DOCUMENTS, MAX_PIECES, TR_BALANCE_SERVERS, &b->batch));
    BASE_TRY(lora_pack_fast(b->ctx, &pack, b->batch));
    BASE_TRY(as_cost_create(b->ctx, profile, 0, MAX_ROWS, &b->cost));
    as_wire_seam(profile->group, profile->head_dim, 4, 4, 4, &machine.wire);
    machine.topology = b->topology;
    config.cost = b->cost;
    BASE_TRY(as_planner_create(b->ctx, &config, &b->planner));
    BASE_TRY(as_plan_create(b->ctx, as_planner_max_tasks(b->planner), &b->plan));
    BASE_TRY(as_planner_run(b->planner, b->batch, b->plan, &score));
    if (b->plan->num_tasks > MAX_TASKS)
        return BASE_FAIL(b->ctx, BASE_ERR_INTERNAL, BASE_MSG_INT_01, "bench: %d tasks",
                         (int)b->plan->num_tasks);
    return BASE_OK;
}

/* A head of a task after another: all heads take the same time. */
static base_status_t time_plan(const balance_t *b, tr_rig_t *rig, tr_balance_t *balance)
{
    tr_timed_t timed[MAX_TASKS];

    memset(timed, 0, sizeof timed);
    for (int32_t i = 0; i < b->plan->num_tasks; i++) {
        timed[i].q0 = b->plan->tasks[i].q0;
        timed[i].q1 = b->plan->tasks[i].q1;
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int32_t i = 0; i < b->plan->num_tasks; i++)
            BASE_TRY(tr_rig_time(rig, &timed[i]));
    *balance = (tr_balance_t){{0}, {0}};
    for (int32_t i = 0; i < b->plan->num_tasks; i++) {
        const as_task_t *t = &b->plan->tasks[i];

        balance->predicted_ns[t->server] += as_cost_task(b->cost, AS_COST_BOTH, t);
        balance->measured_ns[t->server] +=
            (t->h1 - t->h0) * (timed[i].ns[AS_PROFILE_FORWARD] + timed[i].ns[AS_PROFILE_BACKWARD]);
    }
    return BASE_OK;
}

base_status_t tr_bench_balance(base_ctx_t *ctx, const as_profile_t *profile, tr_balance_t *balance)
{
    balance_t b = {.ctx = ctx};
    tr_rig_t *rig = NULL;
    base_status_t st;

    BASE_TRY_GOTO(make_plan(&b, profile), st, done);
    BASE_TRY_GOTO(tr_rig_open(ctx, profile->group, profile->head_dim, MAX_ROWS, &rig), st, done);
    BASE_TRY_GOTO(time_plan(&b, rig, balance), st, done);
done:
    tr_rig_close(rig);
    as_plan_destroy(b.plan);
    as_planner_destroy(b.planner);
    as_cost_destroy(b.cost);
    data_batch_destroy(b.batch);
    as_topology_destroy(b.topology);
    return st;
}
