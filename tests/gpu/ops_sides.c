#include "tests/gpu/ops_sides.h"

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/op_check.h"

#define X(op)                                                                                      \
    base_status_t gpu_##op(base_stream_t *s, const kern_##op##_t *args)                            \
    {                                                                                              \
        BASE_TRY(kern_##op##_check(base_device_ctx(base_stream_device(s)), args));                 \
        return kern_cuda_ops()->op(s, args);                                                       \
    }                                                                                              \
    base_status_t cpu_##op(base_stream_t *s, const kern_##op##_t *args)                            \
    {                                                                                              \
        BASE_TRY(kern_##op##_check(base_device_ctx(base_stream_device(s)), args));                 \
        return kern_cpu_ops()->op(s, args);                                                        \
    }
KERN_OP_MAP(X)
#undef X
