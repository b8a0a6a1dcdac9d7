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
CHECKED(fwd, fwd_wide)
CHECKED(fwd, fwd_wide_free)
CHECKED(fwd, fwd_mixed)
CHECKED(fwd, fwd_free)
CHECKED(fwd, fwd_pair)
CHECKED(fwd, fwd_pair_mixed)
CHECKED(bwd, bwd_summed)
CHECKED(bwd, bwd_fetched)
CHECKED(bwd, bwd_late)
CHECKED(bwd, bwd_late_dk)
CHECKED(bwd, bwd_late_fetched)
#undef CHECKED

static const tr_attention_ops_t
    PRODUCT = {"product", checked_attention_fwd, checked_attention_bwd,
               kern_attention_bwd_workspace},
    WIDE = {"wide", checked_fwd_wide, checked_attention_bwd, kern_attention_bwd_workspace},
    WIDE_FREE = {"wide-free", checked_fwd_wide_free, checked_attention_bwd,
                 kern_attention_bwd_workspace},
    MIXED = {"mixed", checked_fwd_mixed, checked_attention_bwd, kern_attention_bwd_workspace},
    FREE = {"free", checked_fwd_free, checked_attention_bwd, kern_attention_bwd_workspace},
    PAIR = {"pair", checked_fwd_pair, checked_attention_bwd, kern_attention_bwd_workspace},
    PAIR_MIXED = {"pair-mixed", checked_fwd_pair_mixed, checked_attention_bwd,
                  kern_attention_bwd_workspace},
    FETCHED = {"fetched", checked_attention_fwd, checked_bwd_fetched, try_bwd_summed_workspace},
    SUMMED = {"summed", checked_attention_fwd, checked_bwd_summed, try_bwd_summed_workspace},
    LATE = {"late", checked_attention_fwd, checked_bwd_late, kern_attention_bwd_workspace},
    LATE_DK = {"late-dk", checked_attention_fwd, checked_bwd_late_dk, kern_attention_bwd_workspace},
    LATE_FETCHED = {"late-fetched", checked_attention_fwd, checked_bwd_late_fetched,
                    kern_attention_bwd_workspace},
    PLAIN = {"mma", checked_attention_fwd_mma, checked_attention_bwd_mma,
             kern_attention_bwd_workspace};
static const tr_attention_ops_t *const ALL[] = {
    &PRODUCT, &WIDE,    &WIDE_FREE, &MIXED,   &FREE,         &PAIR, &PAIR_MIXED,
    &SUMMED,  &FETCHED, &LATE,      &LATE_DK, &LATE_FETCHED, &PLAIN};

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
