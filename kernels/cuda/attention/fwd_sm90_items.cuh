/* Items of the sm_90a forward: a tile of packed rows of one head each; how a launch lists them, and how a
 * block walks its share. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_ITEMS_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_ITEMS_CUH

#include "kernels/cuda/attention/fwd_sm90.cuh"
#include "kernels/cuda/attention/mask.cuh"

#include <algorithm>

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

/* ==== host ==== */

struct sm90_range {
    const int *order;
    int count;
};

/* How a kernel cuts: packed rows of an item; of those, and panels of keys, in a box of the copy engine. */
struct sm90_tiles {
    int rows, box_rows, box_panels;
};

/* Describes those tasks of the list. */
inline bool describe_tasks(sm90_params *out, encode_map_t encode, const fwd_params &p,
                           int32_t head_dim, const sm90_tiles &tiles, sm90_range range)
{
    const __nv_bfloat16 *first = std::min(p.k, p.v), *second = std::max(p.k, p.v);
    const int64_t distance = static_cast<int64_t>(reinterpret_cast<uintptr_t>(second) -
                                                  reinterpret_cast<uintptr_t>(first));
    out->o = p.o;
    out->lse = p.lse;
    out->dims = p.dims;
    out->v_first = p.v < p.k;
    out->num_tasks = range.count;
    int32_t items = 0;
    for (int i = 0; i < range.count; i++) {
        const kern_attention_task_t &t = p.list.tasks[range.order[i]];
        const int64_t packed_rows = t.q_rows * p.dims.group.divisor;
        const int64_t keys = t.q_row0 + t.q_rows - t.kv_row0;
        if (!make_map(encode, &out->q_maps[i],
                      {p.q + t.q, packed_rows, head_dim, t.kv_heads, 2 * t.q_head, 0},
                      {tiles.box_rows, head_dim / PANEL_COLUMNS}) ||
            !make_map(encode, &out->kv_maps[i],
                      {first + t.kv, keys, head_dim, t.kv_heads, 2 * t.kv_head, distance},
                      {BOX_ROWS, tiles.box_panels}))
            return false;
        const int32_t row_tiles = static_cast<int32_t>((packed_rows + tiles.rows - 1) / tiles.rows);
        const int64_t fit = SECTION_BYTES / (keys * head_dim * 4);
        out->tasks[i] = {
            static_cast<int32_t>(t.q_row0),
            static_cast<int32_t>(t.q_rows),
            static_cast<int32_t>(t.kv_row0),
            t.kv_heads,
            row_tiles,
            static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(fit, t.kv_heads))),
            0,
            t.o,
            t.o_row,
            t.o_head,
            t.lse,
            t.lse_head};
        out->first_item[i] = items;
        items += row_tiles * t.kv_heads;
    }
    out->first_item[range.count] = out->num_items = items;
    for (int i = range.count - 1, after = 0; i >= 0;
         i--) { /* after: sections of the tasks behind it */
        sm90_task &t = out->tasks[i];
        const int32_t sections = (t.kv_heads + t.section - 1) / t.section;
        t.turned = (sections - 1 + after) % 2;
        after += sections;
    }
    return true;
}

/* Tiles of `rows` packed rows, a box each. */
inline sm90_tiles whole_tiles(int32_t head_dim, int rows)
{
    return {rows, rows, head_dim / PANEL_COLUMNS};
}

/* Launches all tasks of the list, launch(params, processors) each piece of it: launch_fwd_sm90's
 * rules. */
template <class Launch>
cudaError_t launch_pieces(const fwd_params &p, int32_t head_dim, const sm90_tiles &tiles,
                          bool *done, Launch launch)
{
    const encode_map_t encode = find_encode_map();
    *done = false;
    if (encode == nullptr) return cudaSuccess;
    int device = 0, processors = 0;
    cudaError_t e = cudaGetDevice(&device);
    if (e == cudaSuccess)
        e = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
    if (e != cudaSuccess) return e;

    /* The longest tasks first. */
    int order[MAX_TASKS];
    const int num_tasks = p.list.num_tasks;
    for (int i = 0; i < num_tasks; i++)
        order[i] = i;
    std::stable_sort(order, order + num_tasks, [&p](int x, int y) {
        const kern_attention_task_t &a = p.list.tasks[x], &b = p.list.tasks[y];
        return a.q_row0 + a.q_rows > b.q_row0 + b.q_rows;
    });
    const int launches = (num_tasks + SM90_TASKS - 1) / SM90_TASKS;
    for (int i = 0; i < launches; i++) {
        const int begin = num_tasks * i / launches, end = num_tasks * (i + 1) / launches;
        sm90_params params;
        if (!describe_tasks(&params, encode, p, head_dim, tiles, {order + begin, end - begin}))
            return cudaSuccess;
        e = launch(params, processors);
        if (e != cudaSuccess) return e;
    }
    *done = true;
    return cudaSuccess;
}

} // namespace kern_attention

#endif
