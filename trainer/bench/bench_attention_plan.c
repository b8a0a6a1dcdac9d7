/* The set of CA-tasks that the planner gives one of eight servers. */
#include "attention_server/planner.h"
#include "base/memory.h"
#include "lora/pack.h"
#include "trainer/bench/bench_attention_case.h"
#include "trainer/simulate/derived_profile.h"
#include "trainer/simulate/draw_lengths.h"

#define SERVERS       8
#define MAX_ROWS      131072
#define ROWS_EACH     32768
#define SEED          5 /* one document of 131,072 rows, one of 84,944, many below 16 k */
#define MAX_DOCUMENTS 4096
#define MAX_PIECES    (MAX_DOCUMENTS + 2 * SERVERS)
/* As cadre bench plan counts them: NVLink, and the dense layers of 16 k rows of an 8B model. */
#define LINK_PS_PER_KIB 2753
#define DENSE_NS        14450000

typedef struct planned {
    base_ctx_t *ctx;
    as_topology_t *topology;
    data_batch_t *batch;
    as_cost_t *cost;
    as_planner_t *planner;
    as_plan_t *plan;
    data_document_t *documents;
} planned_t;

static int64_t divided(int64_t rows, int64_t shrink, int64_t multiple)
{
    const int64_t few = rows / shrink / multiple * multiple;

    return few > 0 ? few : multiple;
}

static int32_t draw_documents(planned_t *p, int64_t max_rows, int64_t total)
{
    const tr_draw_t draw = {
        .lengths = TR_LENGTHS_PRETRAIN, .scaled = 1, .max_rows = MAX_ROWS, .seed = SEED};
    int64_t left = total - DATA_ROW_ALIGN + 1;
    int32_t count = 0;

    while (left > 0 && count < MAX_DOCUMENTS) {
        int64_t rows = tr_draw_rows(&draw, (uint32_t)count) * max_rows / MAX_ROWS;

        if (rows < 1) rows = 1;
        if (rows > left) rows = left;
        p->documents[count] = (data_document_t){.rows = rows, .index = count};
        left -= rows;
        count++;
    }
    return count;
}

static base_status_t make_plan(planned_t *p, const tr_attention_shape_t *shape, int64_t shrink)
{
    const int64_t max_rows = divided(MAX_ROWS, shrink, DATA_ROW_ALIGN);
    const int64_t rows_each = divided(ROWS_EACH, shrink, 2 * DATA_ROW_ALIGN);
    as_machine_t machine = {.num_layers = 1,
                            .link_ps_per_kib = {LINK_PS_PER_KIB, LINK_PS_PER_KIB},
                            .dense_ns = {DENSE_NS, DENSE_NS}};
    as_planner_config_t config = {.machine = &machine,
                                  .num_kv_heads = shape->kv_heads,
                                  .cut_heads = 1,
                                  .retain = 1,
                                  .max_documents = MAX_DOCUMENTS,
                                  .max_pieces = MAX_PIECES};
    as_profile_t profile;
    as_score_t score;

    p->documents = base_calloc(p->ctx, MAX_DOCUMENTS, sizeof *p->documents, "bench: documents");
    if (p->documents == NULL) return BASE_ERR_NOMEM;
    const lora_pack_t pack = {.num_trainers = SERVERS,
                              .tokens_per_trainer = rows_each,
                              .num_documents = draw_documents(p, max_rows, SERVERS * rows_each),
                              .documents = p->documents};
    tr_derived_h200(shape->group, &profile);
    BASE_TRY(as_topology_create(p->ctx, AS_IN_PLACE, SERVERS, NULL, 0, &p->topology));
    BASE_TRY(data_batch_create(p->ctx, MAX_DOCUMENTS, MAX_PIECES, SERVERS, &p->batch));
    BASE_TRY(lora_pack_fast(p->ctx, &pack, p->batch));
    BASE_TRY(as_cost_create(p->ctx, &profile, shape->window, MAX_ROWS, &p->cost));
    as_wire_seam(shape->group, shape->head_dim, 2, 4, 2, &machine.wire);
    machine.topology = p->topology;
    config.cost = p->cost;
    BASE_TRY(as_planner_create(p->ctx, &config, &p->planner));
    BASE_TRY(as_plan_create(p->ctx, as_planner_max_tasks(p->planner), &p->plan));
    return as_planner_run(p->planner, p->batch, p->plan, &score);
}

/* Those of the server whose rows lie deepest in their documents, which are numbered anew. */
static base_status_t take_tasks(const planned_t *p, tr_attention_set_t *set)
{
    int64_t prefixes[SERVERS] = {0};
    int32_t counts[SERVERS] = {0}, most = 0, last = -1;

    for (int32_t i = 0; i < p->plan->num_tasks; i++) {
        counts[p->plan->tasks[i].server]++;
        prefixes[p->plan->tasks[i].server] += p->plan->tasks[i].q0;
    }
    for (int32_t s = 1; s < SERVERS; s++)
        if (prefixes[s] > prefixes[most]) most = s;
    set->tasks = base_calloc(p->ctx, counts[most], sizeof *set->tasks, "bench: tasks");
    if (set->tasks == NULL) return BASE_ERR_NOMEM;
    for (int32_t i = 0; i < p->plan->num_tasks; i++) {
        as_task_t task = p->plan->tasks[i];

        if (task.server != most) continue;
        if (task.document != last) set->num_documents++;
        last = task.document;
        task.document = set->num_documents - 1;
        set->tasks[set->num_tasks++] = task;
    }
    return BASE_OK;
}

base_status_t tr_attention_set_planned(base_ctx_t *ctx, const tr_attention_shape_t *shape,
                                       int64_t shrink, tr_attention_set_t *set)
{
    planned_t p = {.ctx = ctx};
    base_status_t st;

    BASE_TRY_GOTO(make_plan(&p, shape, shrink), st, done);
    BASE_TRY_GOTO(take_tasks(&p, set), st, done);
done:
    as_plan_destroy(p.plan);
    as_planner_destroy(p.planner);
    as_cost_destroy(p.cost);
    data_batch_destroy(p.batch);
    as_topology_destroy(p.topology);
    base_free(ctx, p.documents);
    return st;
}
