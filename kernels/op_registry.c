/* kern_<op>_run: check, then the implementation of the stream's device, or an error that names what
 * is missing. */
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/op_check.h"

const kern_ops_t *kern_ops_of(base_device_kind_t kind)
{
    switch (kind) {
    case BASE_DEVICE_CPU:
    case BASE_DEVICE_STRICT:
        return kern_cpu_ops();
    case BASE_DEVICE_CUDA:
        return kern_cuda_ops();
    }
    return NULL;
}

static base_status_t fail_missing(base_stream_t *s, const char *op, kern_dtype_t dtype)
{
    base_device_t *dev = base_stream_device(s);

    return BASE_FAIL(base_device_ctx(dev), BASE_ERR_UNSUPPORTED, BASE_MSG_INT_01,
                     "%s: no implementation for %s on device %s", op, kern_dtype_name(dtype),
                     base_device_name(dev));
}

/* The check comes first: an argument that is wrong is wrong on every device. An implementation that
 * lacks the dtype returns BASE_ERR_UNSUPPORTED and records nothing; the text is written here. */
#define X(op)                                                                                      \
    base_status_t kern_##op##_run(base_stream_t *s, const kern_##op##_t *args)                     \
    {                                                                                              \
        base_device_t *dev = base_stream_device(s);                                                \
        const kern_ops_t *ops = kern_ops_of(base_device_kind(dev));                                \
        const base_observer_t *observer = base_ctx_observer(base_device_ctx(dev));                 \
        base_status_t st = BASE_ERR_UNSUPPORTED;                                                   \
                                                                                                   \
        BASE_TRY(kern_##op##_check(base_device_ctx(dev), args));                                   \
        if (observer != NULL) observer->begin(observer->user, #op, args);                          \
        if (ops != NULL && ops->op != NULL) st = ops->op(s, args);                                 \
        if (observer != NULL) observer->end(observer->user, #op, args);                            \
        if (st == BASE_ERR_UNSUPPORTED) return fail_missing(s, #op, kern_##op##_dtype(args));      \
        return st;                                                                                 \
    }
KERN_OP_MAP(X)
#undef X

int kern_attention_has_head_dim(base_device_kind_t kind, int64_t head_dim)
{
    const kern_ops_t *ops = kern_ops_of(kind);

    if (ops == NULL || head_dim < 1 || head_dim > KERN_ATTENTION_MAX_HEAD_DIM) return 0;
    return ops->attention_has_head_dim == NULL || ops->attention_has_head_dim(head_dim);
}

base_status_t kern_gemm_search(base_stream_t *s, const kern_gemm_t *args)
{
    base_device_t *dev = base_stream_device(s);
    const kern_ops_t *ops = kern_ops_of(base_device_kind(dev));

    BASE_TRY(kern_gemm_check(base_device_ctx(dev), args));
    return ops == NULL || ops->gemm_search == NULL ? BASE_OK : ops->gemm_search(s, args);
}

base_status_t kern_gemm_search_new(base_stream_t *s, int on)
{
    const kern_ops_t *ops = kern_ops_of(base_device_kind(base_stream_device(s)));

    return ops == NULL || ops->gemm_search_new == NULL ? BASE_OK : ops->gemm_search_new(s, on);
}

base_status_t kern_gemm_choices_save(base_stream_t *s, void *to, int64_t room, int64_t *bytes)
{
    const kern_ops_t *ops = kern_ops_of(base_device_kind(base_stream_device(s)));

    *bytes = 0;
    return ops == NULL || ops->gemm_choices_save == NULL
               ? BASE_OK
               : ops->gemm_choices_save(s, to, room, bytes);
}

base_status_t kern_gemm_choices_load(base_stream_t *s, const void *from, int64_t bytes,
                                     int64_t *taken)
{
    const kern_ops_t *ops = kern_ops_of(base_device_kind(base_stream_device(s)));

    *taken = 0;
    return ops == NULL || ops->gemm_choices_load == NULL
               ? BASE_OK
               : ops->gemm_choices_load(s, from, bytes, taken);
}
