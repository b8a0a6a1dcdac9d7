#include "kernels/cpu/cpu_ops.h"

#include "kernels/op_check.h"

/* Operands that are passed on one by one. A batch of attention tasks can have more; then each
 * operand becomes one range that covers all of its pieces, which only makes the strict device less
 * strict. */
#define MAX_OPERANDS 64

typedef struct collector {
    kern_visitor_t base; /* first */
    int count, hull;
    base_operand_t operands[MAX_OPERANDS];
    const char *names[MAX_OPERANDS];
} collector_t;

static base_status_t collect_piece(kern_visitor_t *v, const base_operand_t *operand,
                                   const char *name)
{
    collector_t *self = (collector_t *)v;

    (void)name;
    if (operand->range.rows == 0 || operand->range.row_bytes == 0) return BASE_OK;
    if (self->count < MAX_OPERANDS) self->operands[self->count] = *operand;
    self->count++;
    return BASE_OK;
}

static void extend(base_range_t *hull, const base_range_t *piece)
{
    const int64_t end = hull->mem.offset + hull->row_bytes;
    const int64_t piece_end =
        piece->mem.offset + (piece->rows - 1) * piece->pitch + piece->row_bytes;
    const int64_t begin =
        piece->mem.offset < hull->mem.offset ? piece->mem.offset : hull->mem.offset;

    hull->mem.offset = begin;
    hull->row_bytes = (piece_end > end ? piece_end : end) - begin;
}

static base_status_t collect_hull(kern_visitor_t *v, const base_operand_t *operand,
                                  const char *name)
{
    collector_t *self = (collector_t *)v;
    const base_range_t *piece = &operand->range;
    int i = 0;

    if (piece->rows == 0 || piece->row_bytes == 0) return BASE_OK;
    /* An operand has one literal for a name. Its pieces may lie in several buffers; a range cannot.
     */
    while (i < self->count &&
           (self->names[i] != name || self->operands[i].range.mem.buffer != piece->mem.buffer))
        i++;
    if (i == MAX_OPERANDS)
        return BASE_FAIL(
            base_device_ctx(base_buffer_device(piece->mem.buffer)), BASE_ERR_ARG, BASE_MSG_INT_01,
            "%s: the operands lie in too many buffers, want at most %d in all", name, MAX_OPERANDS);
    if (i == self->count) {
        self->names[i] = name;
        self->operands[i].access = operand->access;
        self->operands[i].range = (base_range_t){piece->mem, piece->row_bytes, 1, 0};
        self->count++;
    }
    extend(&self->operands[i].range, piece);
    return BASE_OK;
}

static base_work_fn work_of(kern_dtype_t dtype, base_work_fn f32, base_work_fn f64,
                            base_work_fn bf16)
{
    if (dtype == KERN_BF16) return bf16;
    return dtype == KERN_F32 ? f32 : f64;
}

#define SUBMIT(op, s, args, work)                                                                  \
    do {                                                                                           \
        collector_t list;                                                                          \
                                                                                                   \
        list.base.visit = collect_piece;                                                           \
        list.count = 0;                                                                            \
        BASE_TRY(kern_##op##_visit(args, &list.base));                                             \
        if (list.count > MAX_OPERANDS) {                                                           \
            list.base.visit = collect_hull;                                                        \
            list.count = 0;                                                                        \
            BASE_TRY(kern_##op##_visit(args, &list.base));                                         \
        }                                                                                          \
        return base_stream_submit(s, work, args, sizeof *(args), list.operands, list.count);       \
    } while (0)

#define X(op)                                                                                      \
    static base_status_t submit_##op(base_stream_t *s, const kern_##op##_t *args)                  \
    {                                                                                              \
        const base_work_fn work = work_of(kern_##op##_dtype(args), kern_cpu_##op##_f32,            \
                                          kern_cpu_##op##_f64, kern_cpu_##op##_bf16);              \
                                                                                                   \
        SUBMIT(op, s, args, work);                                                                 \
    }
KERN_REAL_OP_MAP(X)
#undef X

static base_status_t submit_convert(base_stream_t *s, const kern_convert_t *args)
{
    SUBMIT(convert, s, args, kern_cpu_convert);
}

static base_status_t submit_add_rmsnorm_fwd(base_stream_t *s, const kern_add_rmsnorm_fwd_t *args)
{
    SUBMIT(add_rmsnorm_fwd, s, args, kern_cpu_add_rmsnorm_fwd);
}

static const kern_ops_t CPU_OPS = {.device = "cpu",
#define X(op) .op = submit_##op,
                                   KERN_OP_MAP(X)
#undef X
};

const kern_ops_t *kern_cpu_ops(void)
{
    return &CPU_OPS;
}
