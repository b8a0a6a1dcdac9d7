/* Each op on two devices: gpu_<op> checks its arguments and runs on cuda, cpu_<op> runs the oracle.
 * Both without the registry and, with plain_blas.c, without OpenBLAS, so that the test stays one
 * file. */
#ifndef CADRE_TESTS_GPU_OPS_SIDES_H
#define CADRE_TESTS_GPU_OPS_SIDES_H

#include "kernels/op.h"

#ifdef __cplusplus
extern "C" {
#endif

#define X(op)                                                                                      \
    base_status_t gpu_##op(base_stream_t *s, const kern_##op##_t *args);                           \
    base_status_t cpu_##op(base_stream_t *s, const kern_##op##_t *args);
KERN_OP_MAP(X)
#undef X

#ifdef __cplusplus
}
#endif
#endif
