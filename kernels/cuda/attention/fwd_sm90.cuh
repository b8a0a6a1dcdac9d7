/* The forward on sm_90a's matrix and copy engines (rungs 2 and 3 of docs/kernels/attention.md):
 * what a launch passes to it. Head dims 64 and 128, any group, any window. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_CUH

#include "kernels/cuda/attention/mma_launch.cuh"
#include "kernels/cuda/attention/tma.cuh"

namespace kern_attention
{

constexpr int SM90_TASKS = 96; /* maps make a task larger than in a task_list */
/* Packed rows of a block. 192 at head dim 128 would need more registers than there are. */
template <int D> constexpr int FWD_SM90_ROWS = D == 64 ? 192 : 128;

/* What the kernel needs of a task besides its maps. */
struct sm90_task {
    int32_t q_row0, q_rows, kv_row0, kv_heads;
    int32_t tiles, section; /* tiles of packed rows a head, heads a section (task_list.cuh) */
    int32_t turned;         /* 1: of the task's first section the last tile comes last */
    int64_t o, o_row, o_head, lse, lse_head;
};

struct sm90_params {
    CUtensorMap q_maps[SM90_TASKS], kv_maps[SM90_TASKS]; /* keys and values are a pair */
    __nv_bfloat16 *o;
    float *lse;
    shape dims;
    int32_t v_first; /* the pair's first is v, not k */
    int32_t num_tasks, num_items;
    int32_t first_item[SM90_TASKS + 1];
    sm90_task tasks[SM90_TASKS];
};
static_assert(sizeof(sm90_params) <= MAX_PARAMETER_BYTES, "SM90_TASKS is too large");

/* Works on the whole list if it can: *done. If not, the whole list is still to be worked on: the
 * driver has no maps, or a stride is 2^40 bytes or more. The current device must be the stream's.
 * No task of the list is empty. */
cudaError_t launch_fwd_sm90(const fwd_params &p, int32_t head_dim, cudaStream_t stream, bool *done);

/* The kernel, an instance in each of two files of instances/; `processors`: of the device. */
template <int D>
cudaError_t launch_fwd_sm90(const sm90_params &params, int processors, cudaStream_t stream);

} // namespace kern_attention

#endif
