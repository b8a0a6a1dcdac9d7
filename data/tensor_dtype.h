/* Element types of safetensors files, and conversions of the floating ones.
 *
 * The order of the list is that of the reference writer, which sorts tensors by descending dtype:
 * with it larger alignments come first. Conversions F16, BF16, F32, F64 -> float, double are exact
 * except F64 -> float; to a narrower type they round to nearest, ties to even, overflow to
 * infinity; a NaN stays a NaN (quiet, upper bits of the payload kept). Files and hosts are
 * little-endian. All functions are pure; bytes need no alignment; source and destination may not
 * overlap. */
#ifndef CADRE_DATA_TENSOR_DTYPE_H
#define CADRE_DATA_TENSOR_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, bytes) */
#define DATA_DTYPE_MAP(X)                                                                          \
    X(BOOL, 1)                                                                                     \
    X(U8, 1)                                                                                       \
    X(I8, 1)                                                                                       \
    X(F8_E5M2, 1)                                                                                  \
    X(F8_E4M3, 1)                                                                                  \
    X(F8_E8M0, 1)                                                                                  \
    X(I16, 2)                                                                                      \
    X(U16, 2)                                                                                      \
    X(F16, 2)                                                                                      \
    X(BF16, 2)                                                                                     \
    X(I32, 4)                                                                                      \
    X(U32, 4)                                                                                      \
    X(F32, 4)                                                                                      \
    X(C64, 8)                                                                                      \
    X(F64, 8)                                                                                      \
    X(I64, 8)                                                                                      \
    X(U64, 8)

typedef enum data_dtype {
#define X(name, bytes) DATA_##name,
    DATA_DTYPE_MAP(X)
#undef X
        DATA_NUM_DTYPES
} data_dtype_t;

/* "BF16"; NULL for a value that is not in the list. Static string. */
const char *data_dtype_name(data_dtype_t dtype);
bool data_dtype_find(const char *name, data_dtype_t *dtype); /* false: there is none */
int64_t data_dtype_bytes(data_dtype_t dtype);
bool data_dtype_is_float(data_dtype_t dtype); /* F16, BF16, F32, F64 */

/* `count` elements; dtype has to be one of the four. */
void data_dtype_to_float(data_dtype_t dtype, const void *from, float *to, int64_t count);
void data_dtype_to_double(data_dtype_t dtype, const void *from, double *to, int64_t count);
void data_dtype_from_float(data_dtype_t dtype, const float *from, void *to, int64_t count);

float data_f16_to_float(uint16_t bits);
float data_bf16_to_float(uint16_t bits);
uint16_t data_f16_from_float(float value);
uint16_t data_bf16_from_float(float value);

#ifdef __cplusplus
}
#endif
#endif
