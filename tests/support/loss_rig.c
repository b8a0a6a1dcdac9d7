#include "tests/support/loss_rig.h"

#include <math.h>
#include <stdlib.h>

loss_rig_t loss_rig(op_fixture_t *fx, const kern_case_loss_t *c, kern_dtype_t dtype)
{
    loss_rig_t rig = {.fx = fx, .c = c, .dtype = dtype};
    uint64_t seed = c->seed;
    int64_t listed = 0;

    rig.T = c->rows;
    rig.N = c->supervised;
    rig.H = c->hidden;
    rig.V = c->vocabulary;
    rig.x = op_doubles(rig.T * rig.H);
    rig.w = op_doubles(rig.V * rig.H);
    rig.rows = op_doubles(rig.N);
    rig.targets = op_doubles(rig.N);
    rig.weights = op_doubles(rig.N);
    rig.loss = op_doubles(rig.N);
    rig.dx = op_doubles(rig.T * rig.H);
    rig.dw = op_doubles(rig.V * rig.H);
    rig.dw0 = op_doubles(rig.V * rig.H);
    op_random_fill(c->seed + 1, rig.T * rig.H, rig.x);
    op_random_fill(c->seed + 2, rig.V * rig.H, rig.w);
    op_random_fill(c->seed + 3, rig.N, rig.weights);
    op_random_fill(c->seed + 4, rig.V * rig.H, rig.dw0);
    for (int64_t t = 0; t < rig.T; t++) /* of the rows that are left, as many as are needed */
        if (op_random_below(&seed, rig.T - t) < rig.N - listed) rig.rows[listed++] = (double)t;
    for (int64_t i = 0; i < rig.N; i++)
        rig.targets[i] = (double)op_random_below(&seed, rig.V);
    if (rig.N > 2) rig.weights[1] = 0;
    return rig;
}

void loss_rig_end(loss_rig_t *rig)
{
    double *const all[] = {rig->x,    rig->w,  rig->rows, rig->targets, rig->weights,
                           rig->loss, rig->dx, rig->dw,   rig->dw0};

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

base_status_t loss_rig_run(loss_rig_t *rig, int gradient)
{
    op_fixture_t *fx = rig->fx;
    const kern_dtype_t dtype = rig->dtype;
    const int64_t pad = rig->c->pad, H = rig->H, V = rig->V, N = rig->N, chunk = rig->c->chunk;
    op_tensor_t x = op_tensor_from(fx, rig->T, H, H + pad, dtype, rig->x);
    op_tensor_t w = op_tensor_from(fx, V, H, H + 2 * pad, dtype, rig->w);
    op_tensor_t rows = op_tensor_from(fx, 1, N, N, KERN_I32, rig->rows);
    op_tensor_t targets = op_tensor_from(fx, 1, N, N, KERN_I32, rig->targets);
    op_tensor_t weights = op_tensor_from(fx, 1, N, N, dtype, rig->weights);
    op_tensor_t loss = op_tensor(fx, 1, N, N, dtype);
    op_tensor_t dx = op_tensor(fx, rig->T, H, H + pad, dtype);
    op_tensor_t dw = op_tensor_from(fx, V, H, H + pad, dtype, rig->dw0);
    op_tensor_t logits = op_tensor(fx, chunk, V, V + pad, dtype);
    op_tensor_t gathered = op_tensor(fx, chunk, H, H + pad, dtype);
    op_tensor_t *const all[] = {&x,    &w,  &rows, &targets, &weights,
                                &loss, &dx, &dw,   &logits,  &gathered};
    kern_loss_linear_ce_t args = {x.mat,    w.mat,  rows.mat, targets.mat, weights.mat,
                                  loss.mat, dx.mat, dw.mat,   logits.mat,  gathered.mat};
    base_status_t st;

    if (!gradient) args.dx = args.dw = (kern_mat_t){{NULL, 0}, 0, 0, 0, KERN_F32};
    st = kern_loss_linear_ce_run(fx->s, &args);
    if (st >= 0) st = base_stream_sync(fx->s);
    if (st >= 0) {
        op_tensor_get(&loss, rig->loss);
        op_tensor_get(&dx, rig->dx);
        op_tensor_get(&dw, rig->dw);
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
            op_tensor_end(all[i]);
        return st;
    }
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        base_buffer_free(all[i]->mat.mem.buffer);
    return st;
}

void loss_rig_reference(loss_rig_t *rig)
{
    const int64_t H = rig->H, V = rig->V;
    double *p = op_doubles(V);

    memset(rig->dx, 0, (size_t)(rig->T * H) * sizeof *rig->dx);
    memcpy(rig->dw, rig->dw0, (size_t)(V * H) * sizeof *rig->dw);
    for (int64_t i = 0; i < rig->N; i++) {
        const int64_t row = (int64_t)rig->rows[i], target = (int64_t)rig->targets[i];
        double sum = 0;

        for (int64_t j = 0; j < V; j++) /* values are small: no maximum is needed */
            sum += exp(p[j] = op_dot(rig->x + row * H, rig->w + j * H, H));
        rig->loss[i] = log(sum) - p[target];
        for (int64_t j = 0; j < V; j++) {
            const double d = rig->weights[i] * (exp(p[j]) / sum - (j == target));

            for (int64_t h = 0; h < H; h++) {
                rig->dx[row * H + h] += d * rig->w[j * H + h];
                rig->dw[j * H + h] += d * rig->x[row * H + h];
            }
        }
    }
    free(p);
}
