#include "kernels/cpu/real.h"

/* On the CPU acc and real are one type, so the sum grows in its destination. */
static void sum_head(const kern_sum_t *sum, const kern_sum_part_t *parts, int64_t head, real_t *dst,
                     const real_t *src)
{
    real_t *to = dst + sum->dst + head * sum->dst_head;

    memcpy(to, src + parts[0].src + head * parts[0].src_head, (size_t)sum->count * sizeof *to);
    for (int32_t p = 1; p < sum->num_parts; p++) {
        const real_t *from = src + parts[p].src + head * parts[p].src_head;

        for (int64_t i = 0; i < sum->count; i++)
            to[i] += from[i];
    }
}

base_status_t KERN_NAME(partial_sum)(void *args)
{
    const kern_partial_sum_t *p = args;
    real_t *dst = real_at(p->dst);
    const real_t *src = real_at(p->src);

    for (int64_t s = 0; s < p->num_sums; s++)
        for (int32_t h = 0; h < p->sums[s].heads; h++)
            sum_head(&p->sums[s], p->parts + p->sums[s].first_part, h, dst, src);
    return BASE_OK;
}
