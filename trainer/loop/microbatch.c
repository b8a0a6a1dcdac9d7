#include "trainer/loop/microbatch.h"

static base_status_t run_dense(void *user, const tr_step_t *step)
{
    const tr_trainer_t *t = user;

    if (step->direction == AS_FORWARD) return tr_graph_forward(&t->graph, step->half, step->layer);
    return tr_graph_backward(&t->graph, step->half, step->layer);
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

base_status_t tr_microbatch_run(tr_trainer_t *trainer, const data_batch_t *batch,
                                const as_plan_t *const *plans)
{
    const tr_static_program_ops_t ops = {.dense = trainer->index < 0 ? NULL : run_dense,
                                         .begin = run_begin,
                                         .serve = run_serve,
                                         .finish = run_finish};

    if (batch->num_trainers != trainer->topology->num_trainers)
        return BASE_FAIL(trainer->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "microbatch %lld: laid out for %d trainers, the job has %d",
                         (long long)batch->microbatch, batch->num_trainers,
                         trainer->topology->num_trainers);
    BASE_TRY(as_attention_microbatch(trainer->attention, batch, plans));
    if (trainer->index >= 0) BASE_TRY(tr_rows_install(trainer->rows, batch, trainer->index));
    return tr_static_program_run(trainer->program, &ops, trainer);
}
