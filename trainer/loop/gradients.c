#include "trainer/loop/gradients.h"

static base_status_t zero(base_stream_t *stream, const kern_mat_t *dense)
{
    const base_range_t all = {.mem = dense->mem,
                              .row_bytes =
                                  dense->rows * dense->cols * kern_dtype_bytes(dense->dtype),
                              .rows = 1};

    return base_fill(stream, &all, 0);
}

base_status_t tr_gradients_zero(tr_trainer_t *trainer)
{
    if (trainer->index < 0) return BASE_OK;
    for (int32_t i = 0; i < trainer->model->num_weights; i++) {
        const kern_mat_t gradient = tr_weights_gradient(trainer->weights, i);
        BASE_TRY(zero(trainer->stream, &gradient));
    }
    const kern_mat_t sums = tr_head_sums(&trainer->head);
    return zero(trainer->stream, &sums);
}

/* A pool rank has no data; it keeps the sequence, with the same count. */
static base_status_t reduce(tr_trainer_t *t, base_mem_t data, int64_t count)
{
    const comm_reduce_t args = {.num_members = t->topology->num_trainers,
                                .members = t->topology->trainer_rank,
                                .data = data,
                                .count = count,
                                .element = t->model->acc == KERN_F64 ? COMM_F64 : COMM_F32,
                                .scratch = base_arena_mem(t->arena, t->reduce_scratch),
                                .stream = t->stream};

    return comm_all_reduce(t->group, &args);
}

base_status_t tr_gradients_reduce(tr_trainer_t *trainer)
{
    const base_mem_t none = {0};
    const int dense = trainer->index >= 0;

    for (int32_t i = 0; i < trainer->model->num_weights; i++) {
        const tr_weight_spec_t *spec = &trainer->model->weights[i];
        const base_mem_t data = dense ? tr_weights_gradient(trainer->weights, i).mem : none;
        BASE_TRY(reduce(trainer, data, spec->rows * spec->cols));
    }
    return reduce(trainer, dense ? tr_head_sums(&trainer->head).mem : none, trainer->num_adapters);
}

static base_status_t download(tr_trainer_t *t, const kern_mat_t *mat, double *values)
{
    return tr_weights_download(t->ctx, t->stream, mat, values);
}

static base_status_t check_trainer(const tr_trainer_t *t)
{
    if (t->index >= 0) return BASE_OK;
    return BASE_FAIL(t->ctx, BASE_ERR_STATE, BASE_MSG_INT_01, "gradients: a pool rank has none");
}

base_status_t tr_gradients_read(tr_trainer_t *trainer, int32_t index, double *values)
{
    BASE_TRY(check_trainer(trainer));
    const kern_mat_t gradient = tr_weights_gradient(trainer->weights, index);
    return download(trainer, &gradient, values);
}

base_status_t tr_gradients_read_losses(tr_trainer_t *trainer, double *losses)
{
    BASE_TRY(check_trainer(trainer));
    const kern_mat_t sums = tr_head_sums(&trainer->head);
    return download(trainer, &sums, losses);
}
