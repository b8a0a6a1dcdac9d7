#include "trainer/loop/microbatch.h"

static base_status_t run_dense(void *user, const tr_step_t *step)
{
    const tr_trainer_t *t = user;

    if (step->direction == AS_FORWARD)
        return tr_graph_forward(&t->graph, step->half, step->layer, 0);
    return tr_graph_backward(&t->graph, step->half, step->layer);
}

static base_status_t run_dense_evaluate(void *user, const tr_step_t *step)
{
    const tr_trainer_t *t = user;

    return tr_graph_forward(&t->graph, step->half, step->layer, 1);
}

static base_status_t run_begin(void *user, const tr_step_t *step)
{
    const tr_trainer_t *t = user;

    if (t->index < 0)
        return as_attention_begin(t->attention, step->half, step->layer, step->direction, NULL);
    const as_tensors_t tensors =
        tr_graph_tensors(&t->graph, step->half, step->layer, step->direction);
    return as_attention_begin(t->attention, step->half, step->layer, step->direction, &tensors);
}

static base_status_t run_serve(void *user, const tr_step_t *step)
{
    const tr_trainer_t *t = user;

    return as_attention_serve(t->attention, step->half, step->layer, step->direction);
}

static base_status_t run_finish(void *user, const tr_step_t *step)
{
    const tr_trainer_t *t = user;

    return as_attention_finish(t->attention, step->half);
}

/* The adapters of the batch, ascending. */
static int32_t list_used(tr_trainer_t *t, const data_batch_t *batch)
{
    int32_t n = 0;

    for (int32_t a = 0; a < t->num_adapters; a++) {
        int32_t d = 0;
        while (d < batch->num_documents && batch->documents[d].adapter != a)
            d++;
        if (d < batch->num_documents) t->used[n++] = a;
    }
    return n;
}

static base_status_t install_adapters(tr_trainer_t *t, const data_batch_t *batch, int evaluate)
{
    const int32_t num_used = list_used(t, batch);
    lora_route_rows_t rows;

    for (int h = 0; h < DATA_NUM_HALVES; h++) {
        rows.documents[h] = tr_rows_documents(t->rows, (data_half_t)h);
        rows.positions[h] = tr_rows_positions(t->rows, (data_half_t)h);
    }
    BASE_TRY(lora_adapter_set_place(t->adapters, batch->microbatch, t->used, num_used, t->stream));
    return lora_route_install(t->route, batch, t->index, t->used, num_used, &rows, evaluate);
}

static base_status_t install(tr_trainer_t *t, const data_batch_t *batch,
                             const as_plan_t *const *plans, int evaluate)
{
    if (batch->num_trainers != t->topology->num_trainers)
        return BASE_FAIL(t->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "microbatch %lld: laid out for %d trainers, the job has %d",
                         (long long)batch->microbatch, batch->num_trainers,
                         t->topology->num_trainers);
    BASE_TRY(as_attention_microbatch(t->attention, batch, plans));
    if (t->index < 0) return BASE_OK;
    BASE_TRY(tr_rows_install(t->rows, batch, t->index));
    return t->adapters == NULL ? BASE_OK : install_adapters(t, batch, evaluate);
}

base_status_t tr_microbatch_run(tr_trainer_t *trainer, const data_batch_t *batch,
                                const as_plan_t *const *plans)
{
    const tr_static_program_ops_t ops = {.dense = trainer->index < 0 ? NULL : run_dense,
                                         .begin = run_begin,
                                         .serve = run_serve,
                                         .finish = run_finish};

    BASE_TRY(install(trainer, batch, plans, 0));
    return tr_static_program_run(trainer->program, trainer->program->num_steps, &ops, trainer);
}

base_status_t tr_microbatch_evaluate(tr_trainer_t *trainer, const data_batch_t *batch,
                                     const as_plan_t *const *plans)
{
    const tr_static_program_ops_t ops = {.dense = trainer->index < 0 ? NULL : run_dense_evaluate,
                                         .begin = run_begin,
                                         .serve = run_serve,
                                         .finish = run_finish};

    BASE_TRY(install(trainer, batch, plans, 1));
    return tr_static_program_run(trainer->program, trainer->program->num_forward_steps, &ops,
                                 trainer);
}
