/* From an op's arguments to launches: what the kernels ask of a task beyond kernels/op_check.c,
 * and the cutting of a batch into lists of MAX_TASKS. Host code. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_TASK_BATCHES_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_TASK_BATCHES_CUH

#include "kernels/cuda/attention/softmax.cuh"
#include "kernels/cuda/attention/task_list.cuh"
#include "kernels/cuda/cuda_launch.h"

#include <array>

namespace kern_attention
{

/* Copies take 16 bytes at a time: 8 elements of bf16, 4 of fp32. */
constexpr int64_t REAL_ALIGN = 8, ACC_ALIGN = 4, BASE_ALIGN = 16;

/* An operand of the op and where a task has it: an offset and its strides, in elements. */
struct operand_place {
    const char *name;
    const void *base;
    int64_t align, offset, stride, row_stride;

    bool is_aligned() const
    {
        return reinterpret_cast<uintptr_t>(base) % BASE_ALIGN == 0 && offset % align == 0 &&
               stride % align == 0 && row_stride % align == 0;
    }
};

inline shape shape_of(int32_t group, int64_t window, double scale)
{
    return {divider::of(group),
            window == 0 || window > NO_WINDOW ? NO_WINDOW : static_cast<int32_t>(window),
            static_cast<float>(scale), static_cast<float>(scale * static_cast<double>(LOG2_E))};
}

/* Positions, packed rows and the pitch of d_o are ints, with room for a tile beyond the last. */
inline bool fits(const kern_attention_task_t &t, int32_t group)
{
    constexpr int64_t LIMIT = INT32_MAX - 4096;
    return t.q_row0 + t.q_rows <= LIMIT && t.q_rows * group <= LIMIT && t.d_o_row <= LIMIT;
}

/* Runs all tasks. places(task) lists the operands whose alignment matters; launch(params) works on
 * params.list. */
template <class Params, class Args, class Places, class Launch>
base_status_t run_batches(base_stream_t *s, const char *op, const Args *args, Params &params,
                          Places places, Launch launch)
{
    base_ctx_t *ctx = base_device_ctx(base_stream_device(s));
    task_list &list = params.list;
    list.num_tasks = 0;
    for (int64_t i = 0; i < args->num_tasks; i++) {
        const kern_attention_task_t &t = args->tasks[i];
        if (t.q_rows == 0 || t.kv_heads == 0) continue;
        if (!fits(t, args->group))
            return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "%s: task %lld: rows, rows times group or a pitch of 2^31 or more", op,
                             static_cast<long long>(i));
        for (const operand_place &place : places(t))
            if (!place.is_aligned())
                return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                                 "%s: task %lld: address or stride of %s is not a multiple of %lld "
                                 "bytes",
                                 op, static_cast<long long>(i), place.name,
                                 static_cast<long long>(BASE_ALIGN));
        list.tasks[list.num_tasks++] = t;
        if (list.num_tasks < MAX_TASKS) continue;
        BASE_TRY(kern_cuda_check(s, op, launch(params)));
        list.num_tasks = 0;
    }
    return list.num_tasks == 0 ? BASE_OK : kern_cuda_check(s, op, launch(params));
}

} // namespace kern_attention

#endif
