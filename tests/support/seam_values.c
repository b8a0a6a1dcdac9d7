#include "tests/support/seam_values.h"

#include "tests/support/random_plan.h"

#include <math.h>
#include <string.h>

/* In [-1, 1), a function of its place only. */
double seam_value(int tensor, int layer, int64_t document, int64_t row, int64_t column)
{
    uint64_t state = ((uint64_t)tensor << 60) ^ ((uint64_t)layer << 52) ^
                     ((uint64_t)document << 44) ^ ((uint64_t)row << 20) ^ (uint64_t)column;
    (void)random_below(&state, 2);
    return (double)random_below(&state, 1u << 24) / (double)(1u << 23) - 1.0;
}

/* The bf16 number towards zero. */
static uint16_t bf16_bits(double v)
{
    const float f = (float)v;
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static double bf16_value(uint16_t number)
{
    const uint32_t bits = (uint32_t)number << 16;
    float f;

    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

void seam_put(const seam_case_t *c, void *array, int64_t i, double v)
{
    if (c->bf16_values) v = bf16_value(bf16_bits(v));
    if (c->dtype == KERN_F64)
        ((double *)array)[i] = v;
    else if (c->dtype == KERN_F32)
        ((float *)array)[i] = (float)v;
    else
        ((uint16_t *)array)[i] = bf16_bits(v);
}

static double get(const void *array, int64_t i, int64_t bytes)
{
    if (bytes == 8) return ((const double *)array)[i];
    if (bytes == 4) return (double)((const float *)array)[i];
    return bf16_value(((const uint16_t *)array)[i]);
}

double seam_distance(const void *a, int64_t a_bytes, const void *b, int64_t b_bytes, int64_t count)
{
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < count; i++) {
        const double x = get(a, i, a_bytes), y = get(b, i, b_bytes);
        difference += (x - y) * (x - y);
        norm += y * y;
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}
