/* T rows, H hidden, V vocabulary, N supervised rows, worked in chunks of C = logits.rows. */
#include "kernels/cpu/real.h"

#include <inttypes.h>

typedef struct chunk {
    int64_t first, count; /* of the N rows */
    real_t *x_CH, *z_CV;  /* gathered, logits */
} chunk_t;

static base_status_t check_lists(const kern_loss_linear_ce_t *p, const int32_t *rows,
                                 const int32_t *targets)
{
    base_ctx_t *ctx = base_device_ctx(base_buffer_device(p->x.mem.buffer));

    for (int64_t i = 0; i < p->rows.cols; i++) {
        if (rows[i] < 0 || rows[i] >= p->x.rows || (i > 0 && rows[i] <= rows[i - 1]))
            return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "loss_linear_ce: entry %" PRId64 " lists row %" PRId32
                             ", want ascending below %" PRId64,
                             i, rows[i], p->x.rows);
        if (targets[i] < 0 || targets[i] >= p->w.rows)
            return BASE_FAIL(ctx, BASE_ERR_FORMAT, BASE_MSG_INT_01,
                             "loss_linear_ce: entry %" PRId64 " has target %" PRId32
                             ", the vocabulary %" PRId64,
                             i, targets[i], p->w.rows);
    }
    return BASE_OK;
}

/* loss = m + log(sum exp(z - m)) - z[target]. Turns z into exp(z - m) and returns its sum through
 * *sum. */
static real_t row_loss(int64_t vocabulary, real_t *z, int32_t target, real_t *sum)
{
    const real_t z_target = z[target];
    const real_t max = real_max(vocabulary, z, z[0]);

    for (int64_t j = 0; j < vocabulary; j++)
        z[j] = real_exp(z[j] - max);
    *sum = real_sum(vocabulary, z);
    return max + real_log(*sum) - z_target;
}

/* Losses of the chunk; its logits become weight (p - onehot). A weight of 0 clears logits and
 * gathered row, so that a row that is switched off adds nothing to dW even when it is not finite.
 */
static void chunk_loss(const kern_loss_linear_ce_t *p, const chunk_t *c)
{
    const int32_t *targets = int_row(&p->targets) + c->first;
    const real_t *weights = real_row(&p->weights, 0) + c->first;
    real_t *loss = real_row(&p->loss, 0) + c->first;

    for (int64_t i = 0; i < c->count; i++) {
        real_t *z = c->z_CV + i * p->logits.pitch, sum;

        loss[i] = row_loss(p->w.rows, z, targets[i], &sum);
        if (weights[i] == 0) {
            memset(z, 0, (size_t)p->w.rows * sizeof *z);
            memset(c->x_CH + i * p->gathered.pitch, 0, (size_t)p->x.cols * sizeof *z);
            continue;
        }
        for (int64_t j = 0; j < p->w.rows; j++)
            z[j] *= weights[i] / sum;
        z[targets[i]] -= weights[i];
    }
}

static void chunk_gradient(const kern_loss_linear_ce_t *p, const chunk_t *c)
{
    const int64_t hidden = p->x.cols, vocabulary = p->w.rows;
    const int32_t *rows = int_row(&p->rows) + c->first;

    if (!kern_mat_absent(&p->dw))
        real_gemm(1, 0, vocabulary, hidden, c->count, 1, c->z_CV, p->logits.pitch, c->x_CH,
                  p->gathered.pitch, 1, real_row(&p->dw, 0), p->dw.pitch);
    if (kern_mat_absent(&p->dx)) return;
    /* x is not needed any more; its gradient takes its place, then the rows go home. */
    real_gemm(0, 0, c->count, hidden, vocabulary, 1, c->z_CV, p->logits.pitch, real_row(&p->w, 0),
              p->w.pitch, 0, c->x_CH, p->gathered.pitch);
    for (int64_t i = 0; i < c->count; i++)
        memcpy(real_row(&p->dx, rows[i]), c->x_CH + i * p->gathered.pitch,
               (size_t)hidden * sizeof(real_t));
}

base_status_t KERN_NAME(loss_linear_ce)(void *args)
{
    const kern_loss_linear_ce_t *p = args;
    const int32_t *rows = int_row(&p->rows);
    chunk_t c = {0, 0, real_row(&p->gathered, 0), real_row(&p->logits, 0)};

    BASE_TRY(check_lists(p, rows, int_row(&p->targets)));
    for (int64_t t = 0; !kern_mat_absent(&p->dx) && t < p->dx.rows; t++)
        memset(real_row(&p->dx, t), 0, (size_t)p->dx.cols * sizeof(real_t));
    for (; c.first < p->rows.cols; c.first += c.count) {
        const int64_t left = p->rows.cols - c.first;

        c.count = left < p->logits.rows ? left : p->logits.rows;
        for (int64_t i = 0; i < c.count; i++)
            memcpy(c.x_CH + i * p->gathered.pitch, real_row(&p->x, rows[c.first + i]),
                   (size_t)p->x.cols * sizeof(real_t));
        real_gemm(0, 1, c.count, p->w.rows, p->x.cols, 1, c.x_CH, p->gathered.pitch,
                  real_row(&p->w, 0), p->w.pitch, 0, c.z_CV, p->logits.pitch);
        chunk_loss(p, &c);
        chunk_gradient(p, &c);
    }
    return BASE_OK;
}
