#include "kernels/cpu/real.h"

#include <inttypes.h>

base_status_t KERN_NAME(rope_table)(void *args)
{
    const kern_rope_table_t *p = args;
    const int64_t half = p->cos_sin.cols / 2;

    for (int64_t pos = 0; pos < p->cos_sin.rows; pos++) {
        real_t *row = real_row(&p->cos_sin, pos);

        for (int64_t i = 0; i < half; i++) {
            const double angle = (double)pos * p->inv_freq[i];

            row[i] = (real_t)(p->scale * cos(angle));
            row[half + i] = (real_t)(p->scale * sin(angle));
        }
    }
    return BASE_OK;
}

static base_status_t check_position(const kern_mat_t *cos_sin, int64_t t, int32_t position)
{
    if (position >= 0 && position < cos_sin->rows) return BASE_OK;
    return BASE_FAIL(base_device_ctx(base_buffer_device(cos_sin->mem.buffer)), BASE_ERR_ARG,
                     BASE_MSG_INT_01,
                     "rope: row %" PRId64 " has position %" PRId32 ", the table %" PRId64, t,
                     position, cos_sin->rows);
}

/* sign +1 rotates forward, -1 back (the transpose of a rotation and scale, which is what the
 * gradient needs). */
static void rotate(int64_t half, const real_t *cos_sin, real_t sign, const real_t *x, real_t *out)
{
    for (int64_t j = 0; j < half; j++) {
        const real_t c = cos_sin[j], s = sign * cos_sin[half + j];
        const real_t lo = x[j], hi = x[j + half];

        out[j] = lo * c - hi * s;
        out[j + half] = hi * c + lo * s;
    }
}

base_status_t KERN_NAME(rope_fwd)(void *args)
{
    const kern_rope_fwd_t *p = args;
    const int64_t dim = p->head_dim, heads = p->num_kv_heads, group = p->num_q_heads / heads;
    const int32_t *positions = int_row(&p->positions);
    real_t *q = real_at(p->q), *k = real_at(p->k), *v = real_at(p->v);

    for (int64_t t = 0; t < p->qkv.rows; t++) {
        const real_t *row = real_row(&p->qkv, t), *angle;

        BASE_TRY(check_position(&p->cos_sin, t, positions[t]));
        angle = real_row(&p->cos_sin, positions[t]);
        for (int64_t h = 0; h < heads; h++)
            for (int64_t r = 0; r < group; r++, row += dim)
                rotate(dim / 2, angle, 1, row, q + ((h * p->head_rows + t) * group + r) * dim);
        for (int64_t h = 0; h < heads; h++, row += dim)
            rotate(dim / 2, angle, 1, row, k + (h * p->head_rows + t) * dim);
        for (int64_t h = 0; h < heads; h++, row += dim)
            memcpy(v + (h * p->head_rows + t) * dim, row, (size_t)dim * sizeof *v);
    }
    return BASE_OK;
}

base_status_t KERN_NAME(rope_bwd)(void *args)
{
    const kern_rope_bwd_t *p = args;
    const int64_t dim = p->head_dim, heads = p->num_kv_heads, group = p->num_q_heads / heads;
    const int32_t *positions = int_row(&p->positions);
    const real_t *dq = real_at(p->dq), *dk = real_at(p->dk), *dv = real_at(p->dv);

    for (int64_t t = 0; t < p->dqkv.rows; t++) {
        const real_t *angle;
        real_t *row = real_row(&p->dqkv, t);

        BASE_TRY(check_position(&p->cos_sin, t, positions[t]));
        angle = real_row(&p->cos_sin, positions[t]);
        for (int64_t h = 0; h < heads; h++)
            for (int64_t r = 0; r < group; r++, row += dim)
                rotate(dim / 2, angle, -1, dq + ((h * p->head_rows + t) * group + r) * dim, row);
        for (int64_t h = 0; h < heads; h++, row += dim)
            rotate(dim / 2, angle, -1, dk + (h * p->head_rows + t) * dim, row);
        for (int64_t h = 0; h < heads; h++, row += dim)
            memcpy(row, dv + (h * p->head_rows + t) * dim, (size_t)dim * sizeof *row);
    }
    return BASE_OK;
}
