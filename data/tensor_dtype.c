#include "data/tensor_dtype.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are read without swapping bytes");

const char *data_dtype_name(data_dtype_t dtype)
{
    static const char *const name[] = {
#define X(word, bytes) #word,
        DATA_DTYPE_MAP(X)
#undef X
    };

    return (unsigned)dtype < DATA_NUM_DTYPES ? name[dtype] : NULL;
}

int64_t data_dtype_bytes(data_dtype_t dtype)
{
    static const int64_t size[] = {
#define X(word, bytes) bytes,
        DATA_DTYPE_MAP(X)
#undef X
    };

    assert((unsigned)dtype < DATA_NUM_DTYPES);
    return size[dtype];
}

bool data_dtype_find(const char *name, data_dtype_t *dtype)
{
    for (int i = 0; i < DATA_NUM_DTYPES; i++) {
        if (strcmp(name, data_dtype_name((data_dtype_t)i)) != 0) continue;
        *dtype = (data_dtype_t)i;
        return true;
    }
    return false;
}

bool data_dtype_is_float(data_dtype_t dtype)
{
    return dtype == DATA_F16 || dtype == DATA_BF16 || dtype == DATA_F32 || dtype == DATA_F64;
}

/* ==== one value ==== */

static float float_of(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

float data_bf16_to_float(uint16_t bits)
{
    return float_of((uint32_t)bits << 16);
}

uint16_t data_bf16_from_float(float value)
{
    const uint32_t bits = bits_of(value);

    /* Rounding could carry a NaN into infinity. */
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

float data_f16_to_float(uint16_t bits)
{
    const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    const uint32_t exponent = bits >> 10 & 0x1fu, fraction = bits & 0x3ffu;

    if (exponent == 0x1fu) return float_of(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) { /* a multiple of 2^-24: exact in float */
        const float magnitude = (float)fraction * (1.0f / 16777216.0f);

        return float_of(sign | bits_of(magnitude));
    }
    return float_of(sign | (exponent + 112u) << 23 | fraction << 13);
}

uint16_t data_f16_from_float(float value)
{
    const uint32_t bits = bits_of(value);
    const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    const uint32_t exponent = magnitude >> 23;
    uint32_t fraction, shift, kept, rest, half;

    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above */
    if (magnitude < 0x33000000u) return (uint16_t)sign;              /* below 2^-25 */
    fraction = (magnitude & 0x7fffffu) | 0x800000u;
    /* Normal results drop 13 bits, subnormal ones more; `kept` carries the leading one, which adds
     * one to the exponent. */
    shift = exponent < 113u ? 126u - exponent : 13u;
    kept = fraction >> shift;
    rest = fraction & ((1u << shift) - 1u);
    half = 1u << (shift - 1u);
    if (rest > half || (rest == half && (kept & 1u) != 0)) kept++;
    if (exponent >= 113u) kept += (exponent - 113u) << 10;
    return (uint16_t)(sign | kept);
}

/* ==== many ==== */

/* Bytes may lie at any address, so each element goes through memcpy. */
static uint16_t half_at(const void *from, int64_t i)
{
    uint16_t bits;

    memcpy(&bits, (const char *)from + 2 * i, sizeof bits);
    return bits;
}

void data_dtype_to_float(data_dtype_t dtype, const void *from, float *to, int64_t count)
{
    assert(data_dtype_is_float(dtype));
    if (count <= 0) return;
    if (dtype == DATA_F32) memcpy(to, from, (size_t)count * sizeof *to);
    for (int64_t i = 0; i < count; i++) {
        double wide;

        if (dtype == DATA_F16) to[i] = data_f16_to_float(half_at(from, i));
        if (dtype == DATA_BF16) to[i] = data_bf16_to_float(half_at(from, i));
        if (dtype != DATA_F64) continue;
        memcpy(&wide, (const char *)from + 8 * i, sizeof wide);
        to[i] = (float)wide;
    }
}

void data_dtype_to_double(data_dtype_t dtype, const void *from, double *to, int64_t count)
{
    assert(data_dtype_is_float(dtype));
    if (count <= 0) return;
    if (dtype == DATA_F64) memcpy(to, from, (size_t)count * sizeof *to);
    for (int64_t i = 0; i < count; i++) {
        float narrow;

        if (dtype == DATA_F16) to[i] = (double)data_f16_to_float(half_at(from, i));
        if (dtype == DATA_BF16) to[i] = (double)data_bf16_to_float(half_at(from, i));
        if (dtype != DATA_F32) continue;
        memcpy(&narrow, (const char *)from + 4 * i, sizeof narrow);
        to[i] = (double)narrow;
    }
}

void data_dtype_from_float(data_dtype_t dtype, const float *from, void *to, int64_t count)
{
    assert(data_dtype_is_float(dtype));
    if (count <= 0) return;
    if (dtype == DATA_F32) memcpy(to, from, (size_t)count * sizeof *from);
    for (int64_t i = 0; i < count; i++) {
        const double wide = (double)from[i];
        uint16_t bits;

        if (dtype == DATA_F64) memcpy((char *)to + 8 * i, &wide, sizeof wide);
        if (dtype != DATA_F16 && dtype != DATA_BF16) continue;
        bits = dtype == DATA_F16 ? data_f16_from_float(from[i]) : data_bf16_from_float(from[i]);
        memcpy((char *)to + 2 * i, &bits, sizeof bits);
    }
}
