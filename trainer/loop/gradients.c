#include "trainer/loop/gradients.h"

static base_status_t zero(base_stream_t *stream, const kern_mat_t *dense)
{
    const base_range_t all = {.mem = dense->mem,
                              .row_bytes =
                                  dense->rows * dense->cols * kern_dtype_bytes(dense->dtype),
                              .rows = 1};

    return base_fill(stream, &all, 0);
}

/* One adapter's element of the sums. */
static kern_mat_t loss_of(const tr_trainer_t *t, int32_t adapter)
{
    const kern_mat_t sums = tr_head_sums(&t->head);

    return kern_vec(base_mem_at(sums.mem, adapter * kern_dtype_bytes(sums.dtype)), 1, sums.dtype);
}

static kern_mat_t adapter_gradient(const tr_trainer_t *t, int32_t adapter)
{
    return lora_adapter_set_vector(t->adapters, adapter, t->adapters->adapters[adapter].gradient);
}

/* An adapter has a gradient unless the trainer only evaluates, or trains the model itself. */
static int has_gradient(const tr_trainer_t *t)
{
    return t->adapters != NULL && t->adapters->optimizer;
}

base_status_t tr_gradients_zero_adapter(tr_trainer_t *trainer, int32_t adapter)
{
    if (trainer->index < 0) return BASE_OK;
    if (has_gradient(trainer)) {
        const kern_mat_t gradient = adapter_gradient(trainer, adapter);
        BASE_TRY(zero(trainer->stream, &gradient));
    }
    const kern_mat_t loss = loss_of(trainer, adapter);
    return zero(trainer->stream, &loss);
}

/* Of the model itself; a frozen one has none. */
static int32_t num_weight_gradients(const tr_trainer_t *t)
{
    return t->model->config.frozen ? 0 : t->model->num_weights;
}

base_status_t tr_gradients_zero(tr_trainer_t *trainer)
{
    if (trainer->index < 0) return BASE_OK;
    for (int32_t i = 0; i < num_weight_gradients(trainer); i++) {
        const kern_mat_t gradient = tr_weights_gradient(trainer->weights, i);
        BASE_TRY(zero(trainer->stream, &gradient));
    }
    for (int32_t a = 0; a < trainer->num_adapters; a++)
        BASE_TRY(tr_gradients_zero_adapter(trainer, a));
    return BASE_OK;
}

/* comm_sum_fn: on the device, by kernels/. */
static base_status_t sum_parts(void *user, base_stream_t *stream, base_mem_t dst,
                               const base_mem_t *parts, int num_parts, int64_t count,
                               comm_element_t element)
{
    const tr_trainer_t *t = user;
    kern_vector_sum_t args = {.dst =
                                  kern_vec(dst, count, element == COMM_F64 ? KERN_F64 : KERN_F32),
                              .num_parts = num_parts};

    if (num_parts > KERN_VECTOR_SUM_MAX_PARTS)
        return BASE_FAIL(t->ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
                         "gradients: %d trainers, at most %d", num_parts,
                         KERN_VECTOR_SUM_MAX_PARTS);
    for (int i = 0; i < num_parts; i++)
        args.parts[i] = parts[i];
    return kern_vector_sum_run(stream, &args);
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
                                .stream = t->stream,
                                .sum = sum_parts,
                                .sum_user = t};

    return comm_all_reduce(t->group, &args);
}

base_status_t tr_gradients_reduce_adapter(tr_trainer_t *trainer, int32_t adapter)
{
    const base_mem_t none = {0};
    const int64_t count = trainer->adapter_count[adapter];
    const int dense = trainer->index >= 0;

    if (count > 0)
        BASE_TRY(reduce(trainer, dense ? adapter_gradient(trainer, adapter).mem : none, count));
    return reduce(trainer, dense ? loss_of(trainer, adapter).mem : none, 1);
}

base_status_t tr_gradients_reduce(tr_trainer_t *trainer)
{
    const base_mem_t none = {0};
    const int dense = trainer->index >= 0;

    for (int32_t i = 0; i < num_weight_gradients(trainer); i++) {
        const tr_weight_spec_t *spec = &trainer->model->weights[i];
        const base_mem_t data = dense ? tr_weights_gradient(trainer->weights, i).mem : none;
        BASE_TRY(reduce(trainer, data, spec->rows * spec->cols));
    }
    for (int32_t a = 0; a < trainer->num_adapters; a++)
        BASE_TRY(tr_gradients_reduce_adapter(trainer, a));
    return BASE_OK;
}

static base_status_t download(tr_trainer_t *t, const kern_mat_t *mat, double *values)
{
    return tr_weights_download(t->ctx, t->stream, mat, values);
}

base_status_t tr_gradients_reduce_loss(tr_trainer_t *trainer, int32_t adapter, double *loss)
{
    const base_mem_t none = {0};
    const int dense = trainer->index >= 0;

    *loss = 0.0;
    BASE_TRY(reduce(trainer, dense ? loss_of(trainer, adapter).mem : none, 1));
    if (!dense) return BASE_OK;
    BASE_TRY(tr_gradients_read_loss(trainer, adapter, loss));
    const kern_mat_t sum = loss_of(trainer, adapter);
    return zero(trainer->stream, &sum);
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

base_status_t tr_gradients_download_loss(tr_trainer_t *trainer, int32_t adapter, void *to)
{
    BASE_TRY(check_trainer(trainer));
    const kern_mat_t sum = loss_of(trainer, adapter);
    return base_download(trainer->stream, to, sum.mem, kern_dtype_bytes(sum.dtype));
}

base_status_t tr_gradients_read_loss(tr_trainer_t *trainer, int32_t adapter, double *loss)
{
    const int is_wide = trainer->model->acc == KERN_F64;
    double wide = 0.0;
    float single = 0.0F;

    const base_status_t st =
        tr_gradients_download_loss(trainer, adapter, is_wide ? (void *)&wide : (void *)&single);
    const base_status_t synced = base_stream_sync(trainer->stream);
    *loss = is_wide ? wide : (double)single;
    return st < 0 ? st : synced;
}

base_status_t tr_gradients_read_adapter(tr_trainer_t *trainer, int32_t adapter, double *values)
{
    BASE_TRY(check_trainer(trainer));
    return lora_adapter_set_read_region(trainer->adapters, adapter,
                                        trainer->adapters->adapters[adapter].gradient,
                                        trainer->stream, values);
}
