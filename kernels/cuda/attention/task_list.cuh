/* The tasks of one launch, as kernel parameters, and where a block finds its piece of work.
 *
 * The list travels with the launch (CUDA passes up to 32,764 bytes of parameters by value):
 * nothing is allocated or synchronised, the host's list is free as soon as the call returns, and
 * the kernel reads it through the constant cache. A batch of more than MAX_TASKS tasks becomes
 * several launches, one after the other.
 *
 * Work items. A task is kv_heads x tiles items; item i of a launch belongs to the task t with
 * first_item[t] <= i < first_item[t + 1]. Its heads are taken in sections, as many as L2 holds the
 * walked operand of; within a section tiles come in their order and heads change fastest. The
 * kernels number tiles so that the longest come first: no long block begins when the others are
 * done.
 *
 * Packed rows. The R query heads of a KV head are consecutive in q, so (token, head) pairs are
 * rows of one matrix: packed row p is token p / R, head p % R of the group. All kernels work on
 * packed rows; a tile may begin and end inside a token, so that a group of 5 or 7 wastes
 * nothing. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_TASK_LIST_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_TASK_LIST_CUH

#include "kernels/op.h"

#include <cstdint>

namespace kern_attention
{

constexpr int MAX_TASKS = 128;

/* Division by a group's size, which is known only at run time: one high product, one addition,
 * one shift. Exact for 0 <= n < 2^31 (Granlund, Montgomery 1994). */
struct divider {
    uint32_t multiplier, shift;
    int32_t divisor;

    static divider of(int32_t d)
    {
        uint32_t shift = 0;
        while ((int64_t{1} << shift) < d)
            shift++;
        const uint64_t over = (uint64_t{1} << shift) - static_cast<uint64_t>(d);
        const uint64_t multiplier = (over << 32) / static_cast<uint64_t>(d) + 1;
        return {static_cast<uint32_t>(multiplier), shift, d};
    }

    __device__ __forceinline__ int quotient(int n) const
    {
        const uint32_t u = static_cast<uint32_t>(n);
        return static_cast<int>((__umulhi(u, multiplier) + u) >> shift);
    }
};

struct task_list {
    int32_t num_tasks;
    int32_t first_item[MAX_TASKS + 1];
    kern_attention_task_t tasks[MAX_TASKS];
};

/* What every kernel of attention needs to know of the op. */
struct shape {
    divider group;
    int32_t window;   /* keys a row sees, NO_WINDOW: all before it */
    float scale;      /* of the scores */
    float scale_log2; /* scale log2(e): exponentials are powers of two */
};
constexpr int32_t NO_WINDOW = INT32_MAX; /* row - NO_WINDOW is below every key and still an int */

constexpr int64_t SECTION_BYTES = int64_t{32} << 20; /* of 50 MB L2 */

/* A block's task, head and tile. It lies in shared memory and is read where it is needed: the loops
 * between have no register to spare. */
struct place {
    int task, head, tile, num_tiles;
};

/* The task that item belongs to. */
__host__ __device__ __forceinline__ int find_task(const int32_t *first_item, int num_tasks,
                                                  int item)
{
    int low = 0, high = num_tasks; /* first_item[low] <= item < first_item[high] */
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (first_item[middle] <= item)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Writes *at for the whole block, of that item; head_bytes(task): what the blocks of one head walk. */
template <class HeadBytes>
__device__ __forceinline__ void find_place(place *at, const task_list &list,
                                           const int32_t *first_item, int item,
                                           HeadBytes head_bytes)
{
    if (threadIdx.x == 0) {
        const int low = find_task(first_item, list.num_tasks, item);
        const int begin = first_item[low], heads = list.tasks[low].kv_heads;
        const int tiles = (first_item[low + 1] - begin) / heads;
        const int64_t fit = SECTION_BYTES / head_bytes(list.tasks[low]);
        const int width = fit < 1 ? 1 : fit < heads ? static_cast<int>(fit) : heads;
        const int first = (item - begin) / (tiles * width) * width; /* head of the section */
        const int in_section = item - begin - first * tiles, wide = min(width, heads - first);
        *at = {low, first + in_section % wide, in_section / wide, tiles};
    }
    __syncthreads();
}

/* Keys and values of one head of a task. */
template <int D> __device__ __forceinline__ int64_t keys_bytes(const kern_attention_task_t &t)
{
    return (t.q_row0 + t.q_rows - t.kv_row0) * D * 4;
}

/* Counts the items into first_item; tiles_of(task) is the number of tiles of one head. Returns the number
 * of blocks to launch. */
template <class TilesOf>
inline int32_t count_items(const task_list &list, int32_t (&first_item)[MAX_TASKS + 1],
                           TilesOf tiles_of)
{
    int32_t items = 0;
    for (int32_t t = 0; t < list.num_tasks; t++) {
        first_item[t] = items;
        items += static_cast<int32_t>(tiles_of(list.tasks[t]) * list.tasks[t].kv_heads);
    }
    first_item[list.num_tasks] = items;
    return items;
}

} // namespace kern_attention

#endif
