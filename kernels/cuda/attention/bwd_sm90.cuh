/* The backward on sm_90a's matrix and copy engines (rungs 4 and 5 of docs/kernels/attention.md):
 * what a launch passes to its kernels. Head dims 64 and 128, any window, groups of up to a tile of
 * rows.
 *
 * With a workspace one kernel does it all (dqkv_sm90_kernel.cuh): blocks own keys, walk the packed rows
 * that see them and sum dq in the workspace. Without one, as on mma.sync (bwd_operands.cuh), one
 * kernel owns packed rows and walks the keys they see (dq_sm90_kernel.cuh), the other owns keys and walks
 * rows (dkv_sm90_kernel.cuh): 7 products in place of 5. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_BWD_SM90_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_BWD_SM90_CUH

#include "kernels/cuda/attention/mma_launch.cuh"
#include "kernels/cuda/attention/tma.cuh"

namespace kern_attention
{

constexpr int BWD_SM90_TASKS =
    64; /* three maps make a task larger than in a task_list; bits of `real` */
constexpr int BWD_KEYS = 128; /* of a tile, a box of tma.cuh */

/* Packed rows of a tile. It holds whole tokens, as many as fit: box_tokens; rows left over are zero
 * and count for nothing. */
template <int D> constexpr int BWD_ROWS = 8192 / D;
template <int D> constexpr int ROW_PANEL_BYTES = BWD_ROWS<D> *PANEL_COLUMNS * 2;
template <int D> constexpr int ROW_TILE_BYTES = D / PANEL_COLUMNS *ROW_PANEL_BYTES<D>;
constexpr int SLOT_FLOATS = 8192;    /* of a tile of packed rows */
constexpr int STEP_BYTES = 64 << 10; /* of a tile of packed rows: q, d_o and the sum of dq */
template <int D> constexpr int KEY_TILE_BYTES = D / PANEL_COLUMNS *PANEL_BYTES;

/* What the kernels need of a task besides its maps. A section is heads (task_list.cuh). */
struct bwd_sm90_task {
    int32_t q_row0, q_rows, kv_row0, kv_heads;
    int32_t key_tiles, key_section; /* of 128 keys a head */
    int32_t row_items, row_section; /* of 128 rows a head: one tile of rows, or two */
    int32_t row_tiles, first_slot;  /* of dq_sums: a head's tiles, then the next head's */
    int64_t lse, lse_head, delta, delta_head, dq, dq_head, dkv, dkv_head;
};

/* Items of keys, in the order in which blocks take them (bwd_sm90_items.cuh): tiles of keys from `first_tile` on
 * of all heads of the tasks from `first_task` on that have so many, `heads` in all. */
struct bwd_sm90_run {
    int32_t first_task, first_tile, heads;
};

struct bwd_sm90_params {
    CUtensorMap q_maps[BWD_SM90_TASKS], d_o_maps[BWD_SM90_TASKS];
    CUtensorMap kv_maps[BWD_SM90_TASKS]; /* keys and values are a pair */
    const float *lse, *delta;
    __nv_bfloat16 *dq;
    float *dk, *dv;
    __nv_bfloat16 *dk_real, *dv_real;
    uint64_t real;  /* bit i: task i has dk and dv there */
    int32_t *turns; /* of launch_dqkv_sm90: tickets drawn; then of each slot the tiles added */
    float *dq_sums; /* SLOT_FLOATS a slot, in the order in which threads hold them */
    shape dims;
    int32_t v_first; /* the pair's first is v, not k */
    int32_t box_tokens;
    int32_t num_tasks;
    int32_t processors; /* of the device */
    int32_t first_row_item[BWD_SM90_TASKS + 1];
    int32_t first_key_item[BWD_SM90_TASKS + 1]; /* of each of `runs` */
    bwd_sm90_run runs[BWD_SM90_TASKS];          /* num_tasks of them */
    bwd_sm90_task tasks[BWD_SM90_TASKS];
};
static_assert(sizeof(bwd_sm90_params) <= MAX_PARAMETER_BYTES, "BWD_SM90_TASKS is too large");

/* Works on the whole list if it can: *done. If not, the whole list is still to be worked on: the
 * driver has no maps, a stride is 2^40 bytes or more, or a group is larger than a tile. The current
 * device must be the stream's. No task of the list is empty. */
cudaError_t launch_bwd_sm90(const bwd_params &p, int32_t head_dim, cudaStream_t stream, bool *done);

/* The kernels, an instance in each of two files of instances/. */
template <int D> cudaError_t launch_dqkv_sm90(const bwd_sm90_params &p, cudaStream_t stream);
template <int D> cudaError_t launch_dkv_sm90(const bwd_sm90_params &p, cudaStream_t stream);
template <int D> cudaError_t launch_dq_sm90(const bwd_sm90_params &p, cudaStream_t stream);

} // namespace kern_attention

#endif
