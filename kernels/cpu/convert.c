/* Conversion goes through double, which holds every value of the three dtypes, so that there is one
 * rounding. */
#include "base/device/device_host.h"
#include "kernels/cpu/cpu_ops.h"

#include <math.h>
#include <string.h>

#define CHUNK 256

static double bf16_load(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float f;

    memcpy(&f, &wide, sizeof f);
    return (double)f;
}

/* Nearest even, from double in one step: the double is first rounded to odd in float (truncated,
 * last bit set when anything was lost), which leaves enough to decide the second rounding as the
 * exact value would (Boldo, Melquiond 2008); rounding to nearest twice would not. */
static uint16_t bf16_store(double d)
{
    const float f = (float)d;
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    if (isnan(d)) return (uint16_t)(bits >> 16 | 0x40u);
    if ((double)f != d) {
        if (fabs((double)f) > fabs(d))
            bits--; /* towards zero; from infinity to the largest float */
        bits |= 1u;
    }
    /* A carry out of the fraction goes into the exponent, from the largest value to infinity: as it
     * should. */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static void load(double *to, const void *from, int64_t first, int64_t count, kern_dtype_t dtype)
{
    if (dtype == KERN_F32)
        for (int64_t i = 0; i < count; i++)
            to[i] = (double)((const float *)from)[first + i];
    else if (dtype == KERN_F64)
        memcpy(to, (const double *)from + first, (size_t)count * sizeof *to);
    else
        for (int64_t i = 0; i < count; i++)
            to[i] = bf16_load(((const uint16_t *)from)[first + i]);
}

static void store(void *to, const double *from, int64_t first, int64_t count, kern_dtype_t dtype)
{
    if (dtype == KERN_F32)
        for (int64_t i = 0; i < count; i++)
            ((float *)to)[first + i] = (float)from[i];
    else if (dtype == KERN_F64)
        memcpy((double *)to + first, from, (size_t)count * sizeof *from);
    else
        for (int64_t i = 0; i < count; i++)
            ((uint16_t *)to)[first + i] = bf16_store(from[i]);
}

base_status_t kern_cpu_convert(void *args)
{
    const kern_convert_t *p = args;
    const int64_t from_pitch = p->a.pitch * kern_dtype_bytes(p->a.dtype);
    const int64_t to_pitch = p->out.pitch * kern_dtype_bytes(p->out.dtype);
    double chunk[CHUNK];

    for (int64_t t = 0; t < p->out.rows; t++) {
        const void *from = base_mem_address(base_mem_at(p->a.mem, t * from_pitch));
        void *to = base_mem_address(base_mem_at(p->out.mem, t * to_pitch));

        for (int64_t j = 0; j < p->out.cols; j += CHUNK) {
            const int64_t count = p->out.cols - j < CHUNK ? p->out.cols - j : CHUNK;

            load(chunk, from, j, count, p->a.dtype);
            store(to, chunk, j, count, p->out.dtype);
        }
    }
    return BASE_OK;
}
