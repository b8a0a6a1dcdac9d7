#include "tests/gpu/attention_try.h"

#include "tests/gpu/checked_ops.h"

#include "kernels/op_check.h"

#include <string.h>

static base_status_t need_cuda(base_stream_t *s)
{
    base_device_t *dev = base_stream_device(s);

    if (base_device_kind(dev) == BASE_DEVICE_CUDA) return BASE_OK;
    return BASE_FAIL(base_device_ctx(dev), BASE_ERR_UNSUPPORTED, BASE_MSG_DEV_01,
                     "%s: these ops are of a GPU", base_device_name(dev));
}

#define CHECKED(op, name)                                                                          \
    static base_status_t checked_##name(base_stream_t *s, const kern_attention_##op##_t *args)     \
    {                                                                                              \
        BASE_TRY(need_cuda(s));                                                                    \
        BASE_TRY(kern_attention_##op##_check(base_device_ctx(base_stream_device(s)), args));       \
        return try_##name(s, args);                                                                \
    }
CHECKED(bwd, bwd_fetched)
#undef CHECKED

static const tr_attention_ops_t PRODUCT = {"product", checked_attention_fwd, checked_attention_bwd,
                                           kern_attention_bwd_workspace},
                                FETCHED = {"fetched", checked_attention_fwd, checked_bwd_fetched,
                                           kern_attention_bwd_workspace},
                                PLAIN = {"mma", checked_attention_fwd_mma,
                                         checked_attention_bwd_mma, kern_attention_bwd_workspace};
static const tr_attention_ops_t *const ALL[] = {&PRODUCT, &FETCHED, &PLAIN};

const tr_attention_ops_t *const *gpu_attention_ops(int *count)
{
    *count = sizeof ALL / sizeof ALL[0];
    return ALL;
}

const tr_attention_ops_t *gpu_attention_ops_find(const char *name)
{
    for (size_t i = 0; i < sizeof ALL / sizeof ALL[0]; i++)
        if (strcmp(ALL[i]->name, name) == 0) return ALL[i];
    return NULL;
}
