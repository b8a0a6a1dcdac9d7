/* Where the blocks of the sm_90a backward find their work. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_BWD_SM90_ITEMS_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_BWD_SM90_ITEMS_CUH

#include "kernels/cuda/attention/bwd_sm90.cuh"
#include "kernels/cuda/attention/mask.cuh"

namespace kern_attention
{

/* Item `item` of a task: `tiles` tiles of each head in sections of heads; heads change fastest. */
struct head_tile {
    int head, tile;
};

__device__ __forceinline__ head_tile head_tile_of(int item, int tiles, int section, int heads)
{
    const int first_head = item / (tiles * section) * section;
    const int wide = min(section, heads - first_head);
    item -= first_head * tiles;
    return {first_head + item % wide, item / wide};
}

/* Tiles of packed rows [begin, end) of a task. */
struct tile_span {
    int begin, end;
};

/* Those that see any of the keys [key, key + keys). */
__device__ __forceinline__ tile_span tiles_that_see(const bwd_sm90_task &t, int key, int keys,
                                                    int window, int box_tokens)
{
    const int kv_end = t.q_row0 + t.q_rows;
    const int first = max(key - t.q_row0, 0);
    const int reach = min(window, kv_end - key); /* window may be the largest int */
    const int end = min(key + keys - 1 + reach, kv_end) - t.q_row0;
    if (first >= end) return {0, 0};
    return {first / box_tokens, (end - 1) / box_tokens + 1};
}

/* Keys of one head. */
struct key_item {
    int task, head;
    int first_key;
    tile_span tiles; /* that see any of them */
};

__device__ __forceinline__ key_item key_item_of(const bwd_sm90_params &p, int item)
{
    key_item w;
    w.task = find_task(p.first_key_item, p.num_tasks, item);
    const bwd_sm90_task &t = p.tasks[w.task];
    const head_tile at =
        head_tile_of(item - p.first_key_item[w.task], t.key_tiles, t.key_section, t.kv_heads);
    w.head = at.head;
    /* The first keys of a task are seen by most rows: first. */
    w.first_key = t.kv_row0 + at.tile * BWD_KEYS;
    w.tiles = tiles_that_see(t, w.first_key, BWD_KEYS, p.dims.window, p.box_tokens);
    return w;
}

/* Packed rows of one head, and the keys that they see. */
struct row_item {
    int task, head;
    int first_token;      /* of the task */
    int first_key, steps; /* tiles of keys to visit */
};

template <int D> __device__ __forceinline__ row_item row_item_of(const bwd_sm90_params &p, int item)
{
    row_item w;
    w.task = find_task(p.first_row_item, p.num_tasks, item);
    const bwd_sm90_task &t = p.tasks[w.task];
    const head_tile at =
        head_tile_of(item - p.first_row_item[w.task], t.row_items, t.row_section, t.kv_heads);
    const int tokens = 128 / BWD_ROWS<D> * p.box_tokens;
    w.head = at.head;
    /* The last rows of a task see most: first. */
    w.first_token = (t.row_items - 1 - at.tile) * tokens;
    w.first_key = first_tile(t.q_row0 + w.first_token, p.dims.window, BWD_KEYS);
    const int key_end = t.q_row0 + min(w.first_token + tokens, t.q_rows);
    w.steps = (key_end - w.first_key + BWD_KEYS - 1) / BWD_KEYS;
    return w;
}

} // namespace kern_attention

#endif
