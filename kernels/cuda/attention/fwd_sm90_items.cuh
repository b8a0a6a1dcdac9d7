/* Items of the sm_90a forward: a tile of packed rows of one head each, and how a block walks its share. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_ITEMS_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_ITEMS_CUH

#include "kernels/cuda/attention/fwd_sm90.cuh"
#include "kernels/cuda/attention/mask.cuh"

namespace kern_attention
{

constexpr int SM90_KEYS = 128;
static_assert(SM90_KEYS == BOX_ROWS, "a tile is a box");
static_assert(KERN_ATTENTION_TILE % SM90_KEYS == 0, "kv_row0 is on our grid");

/* An item: packed rows of one head, and the keys that they see. */
struct item_work {
    int task, head;
    int first_packed, live; /* packed rows, counted from the task's first */
    int first_key, steps;   /* tiles of keys to visit */
};

/* ROWS: packed rows of a tile. */
template <int ROWS> __device__ __forceinline__ item_work work_of(const sm90_params &p, int item)
{
    const int task = find_task(p.first_item, p.num_tasks, item);
    const sm90_task &t = p.tasks[task];
    const divider &group = p.dims.group;
    item -= p.first_item[task];
    const int section = item / (t.tiles * t.section), first_head = section * t.section;
    const int wide = min(t.section, t.kv_heads - first_head);
    item -= first_head * t.tiles;
    item_work w;
    w.task = task;
    w.head = first_head + item % wide;
    /* The last tile of a task sees most. It comes first in the last section of a launch and in every
     * other one before it, last in those between: items of a round over the blocks are then as long as
     * each other also where sections meet. */
    const int place = item / wide;
    w.first_packed = ((section + t.turned) % 2 ? place : t.tiles - 1 - place) * ROWS;
    w.live = min(ROWS, t.q_rows * group.divisor - w.first_packed);
    w.first_key = first_tile(t.q_row0 + group.quotient(w.first_packed), p.dims.window, SM90_KEYS);
    const int key_end = t.q_row0 + group.quotient(w.first_packed + w.live - 1) + 1;
    w.steps = (key_end - w.first_key + SM90_KEYS - 1) / SM90_KEYS;
    return w;
}

/* The items of a block: one of every round over the blocks, whose order turns round by round, so that no block has
 * the longer one every time. */
struct item_walk {
    int round = 0;

    __device__ __forceinline__ int item() const
    {
        const int all = gridDim.x, own = blockIdx.x;
        return round * all + (round & 1 ? all - 1 - own : own);
    }
};

} // namespace kern_attention

#endif
