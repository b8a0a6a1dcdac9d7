#include "kernels/cpu/real.h"

/* On the CPU acc and real are one type, so the sum grows in its destination. */
static void sum_head(const kern_partial_sum_t *args, const kern_sum_t *sum, int64_t head)
{
    const kern_sum_part_t *parts = args->parts + sum->first_part;
    real_t *to = real_at(args->dst) + sum->dst + head * sum->dst_head;

    if (sum->num_parts == 0) memset(to, 0, (size_t)sum->count * sizeof *to);
    for (int32_t p = 0; p < sum->num_parts; p++) {
        const real_t *from = real_at(parts[p].real ? args->src_real : args->src) + parts[p].src +
                             head * parts[p].src_head;

        if (p == 0) memcpy(to, from, (size_t)sum->count * sizeof *to);
        for (int64_t i = 0; p > 0 && i < sum->count; i++)
            to[i] += from[i];
    }
}

base_status_t KERN_NAME(partial_sum)(void *args)
{
    const kern_partial_sum_t *p = args;

    for (int64_t s = 0; s < p->num_sums; s++)
        for (int32_t h = 0; h < p->sums[s].heads && p->sums[s].count > 0; h++)
            sum_head(p, &p->sums[s], h);
    return BASE_OK;
}
