/* Sums of vectors, part by part within chunks that stay in the cache. */
#include "kernels/cpu/real.h"

#define CHUNK 4096

base_status_t KERN_NAME(vector_sum)(void *args)
{
    const kern_vector_sum_t *p = args;
    real_t *dst = real_at(p->dst.mem), sum[CHUNK];

    for (int64_t first = 0; first < p->dst.cols; first += CHUNK) {
        const int64_t left = p->dst.cols - first, count = left < CHUNK ? left : CHUNK;

        memcpy(sum, real_at(p->parts[0]) + first, (size_t)count * sizeof *sum);
        for (int64_t i = 1; i < p->num_parts; i++) {
            const real_t *part = real_at(p->parts[i]) + first;

            for (int64_t j = 0; j < count; j++)
                sum[j] += part[j];
        }
        memcpy(dst + first, sum, (size_t)count * sizeof *sum); /* dst may be a part */
    }
    return BASE_OK;
}
