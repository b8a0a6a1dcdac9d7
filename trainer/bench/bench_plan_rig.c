#include "trainer/bench/bench_plan_rig.h"

#include "base/memory.h"
#include "base/philox.h"
#include "kernels/op.h"

#include <math.h>
#include <time.h>

struct tr_rig {
    base_ctx_t *ctx;
    int32_t group, head_dim;
    int64_t max_keys;
    base_device_t *dev;
    base_stream_t *s;
    base_buffer_t *q, *kv, *o, *lse, *delta, *d_o, *dq, *dkv;
};

static base_status_t fill(tr_rig_t *r, base_buffer_t *buffer, int64_t count, uint32_t what)
{
    float *values = base_calloc(r->ctx, count, sizeof *values, "bench: values");
    base_status_t st;

    if (values == NULL) return BASE_ERR_NOMEM;
    for (int64_t i = 0; i < count; i++)
        values[i] =
            base_philox_float(base_philox(base_philox_key(5), (uint32_t)i, what, 0, 0).word[0]) -
            0.5f;
    st = base_upload(r->s, base_mem(buffer, 0), values, count * (int64_t)sizeof *values);
    if (st >= 0) st = base_stream_sync(r->s);
    base_free(r->ctx, values);
    return st;
}

static base_status_t open_all(tr_rig_t *r)
{
    const int64_t rows = r->max_keys, row = r->group * r->head_dim;
    const struct {
        base_buffer_t **buffer;
        int64_t count;
    } buffers[] = {
        {&r->q, rows * row},   {&r->kv, 2 * rows * r->head_dim},
        {&r->o, rows * row},   {&r->lse, rows * r->group},
        {&r->d_o, rows * row}, {&r->delta, rows * r->group},
        {&r->dq, rows * row},  {&r->dkv, 2 * rows * r->head_dim},
    };

    BASE_TRY(base_device_open(r->ctx, BASE_DEVICE_CPU, 0, &r->dev));
    BASE_TRY(base_stream_create(r->dev, BASE_STREAM_COMPUTE, "bench", &r->s));
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        BASE_TRY(base_buffer_alloc(r->dev, BASE_MEMORY_DEVICE,
                                   buffers[i].count * (int64_t)sizeof(float), "bench",
                                   buffers[i].buffer));
        BASE_TRY(fill(r, *buffers[i].buffer, buffers[i].count, (uint32_t)i));
    }
    return BASE_OK;
}

void tr_rig_close(tr_rig_t *r)
{
    if (r == NULL) return;
    base_buffer_t *buffers[] = {r->q, r->kv, r->o, r->lse, r->d_o, r->delta, r->dq, r->dkv};

    base_stream_destroy(r->s);
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        base_buffer_free(buffers[i]);
    base_device_close(r->dev);
    base_free(r->ctx, r);
}

base_status_t tr_rig_open(base_ctx_t *ctx, int32_t group, int32_t head_dim, int64_t max_keys,
                          tr_rig_t **rig_p)
{
    tr_rig_t *r = base_calloc(ctx, 1, sizeof *r, "bench: tensors of attention");

    if (r == NULL) return BASE_ERR_NOMEM;
    *r = (tr_rig_t){.ctx = ctx, .group = group, .head_dim = head_dim, .max_keys = max_keys};
    const base_status_t st = open_all(r);
    if (st < 0)
        tr_rig_close(r);
    else
        *rig_p = r;
    return st;
}

static kern_attention_task_t task_of(const tr_rig_t *r, int64_t q0, int64_t q1)
{
    const int64_t group = r->group, dim = r->head_dim, row = group * dim;

    return (kern_attention_task_t){
        .q_row0 = q0,
        .q_rows = q1 - q0,
        .kv_heads = 1,
        .q = q0 * row,
        .q_head = r->max_keys * row,
        .kv_head = r->max_keys * dim,
        .o = q0 * row,
        .o_row = row,
        .o_head = row,
        .lse = q0 * group,
        .lse_head = r->max_keys * group,
        .d_o = q0 * row,
        .d_o_row = row,
        .d_o_head = row,
        .delta = q0 * group,
        .delta_head = r->max_keys * group,
        .dq = q0 * row,
        .dq_head = r->max_keys * row,
        .dkv_head = r->max_keys * dim,
    };
}

static base_status_t run_task(tr_rig_t *r, int direction, const kern_attention_task_t *task)
{
    const int64_t v = r->max_keys * r->head_dim * (int64_t)sizeof(float);
    const double scale = 1 / sqrt((double)r->head_dim);
    const kern_attention_fwd_t fwd = {.dtype = KERN_F32,
                                      .group = r->group,
                                      .head_dim = r->head_dim,
                                      .scale = scale,
                                      .num_tasks = 1,
                                      .tasks = task,
                                      .q = base_mem(r->q, 0),
                                      .k = base_mem(r->kv, 0),
                                      .v = base_mem(r->kv, v),
                                      .o = base_mem(r->o, 0),
                                      .lse = base_mem(r->lse, 0)};
    const kern_attention_bwd_t bwd = {.dtype = KERN_F32,
                                      .group = r->group,
                                      .head_dim = r->head_dim,
                                      .scale = scale,
                                      .num_tasks = 1,
                                      .tasks = task,
                                      .q = fwd.q,
                                      .k = fwd.k,
                                      .v = fwd.v,
                                      .lse = fwd.lse,
                                      .d_o = base_mem(r->d_o, 0),
                                      .delta = base_mem(r->delta, 0),
                                      .dq = base_mem(r->dq, 0),
                                      .dk = base_mem(r->dkv, 0),
                                      .dv = base_mem(r->dkv, v)};

    if (direction == AS_PROFILE_FORWARD)
        BASE_TRY(kern_attention_fwd_run(r->s, &fwd));
    else
        BASE_TRY(kern_attention_bwd_run(r->s, &bwd));
    return base_stream_sync(r->s);
}

static int64_t process_ns(void)
{
    struct timespec t = {0};

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

base_status_t tr_rig_time(tr_rig_t *r, tr_timed_t *t)
{
    const kern_attention_task_t task = task_of(r, t->q0, t->q1);

    for (int direction = 0; direction < AS_PROFILE_DIRECTIONS; direction++) {
        const int64_t start = process_ns();

        BASE_TRY(run_task(r, direction, &task));
        const int64_t ns = process_ns() - start;
        if (t->ns[direction] == 0 || ns < t->ns[direction]) t->ns[direction] = ns;
    }
    return BASE_OK;
}
