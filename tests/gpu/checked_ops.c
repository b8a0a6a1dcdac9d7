#include "tests/gpu/checked_ops.h"

#include "kernels/cuda/cuda_ops.h"
#include "kernels/op_check.h"

#define X(op)                                                                                      \
    base_status_t checked_##op(base_stream_t *s, const kern_##op##_t *args)                        \
    {                                                                                              \
        BASE_TRY(kern_##op##_check(base_device_ctx(base_stream_device(s)), args));                 \
        return kern_cuda_ops()->op(s, args);                                                       \
    }
X(attention_fwd)
X(attention_bwd)
X(attention_delta)
X(partial_sum)
#undef X

base_status_t checked_attention_fwd_mma(base_stream_t *s, const kern_attention_fwd_t *args)
{
    BASE_TRY(kern_attention_fwd_check(base_device_ctx(base_stream_device(s)), args));
    return kern_cuda_attention_fwd_mma(s, args);
}

base_status_t checked_attention_bwd_mma(base_stream_t *s, const kern_attention_bwd_t *args)
{
    BASE_TRY(kern_attention_bwd_check(base_device_ctx(base_stream_device(s)), args));
    return kern_cuda_attention_bwd_mma(s, args);
}
