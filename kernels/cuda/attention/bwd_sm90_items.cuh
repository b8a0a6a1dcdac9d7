/* Where the blocks of the sm_90a backward find their work.
 *
 * Blocks that own keys of one head of a task add to dq of the same rows, one after the other in ascending order
 * of keys: a chain. A block passes a tile of rows on within about 3 us and works on it nearly as long, so that no
 * more blocks can work in a chain than its rows have tiles. Tasks of too few rows over all their heads are therefore
 * taken together, in groups with tiles enough for all processors: first the first tile of keys of all their heads, then
 * the second of those that have one, and so on. Within a chain keys ascend, and long blocks still come first.
 *
 * Blocks of a chain that begin together walk the same rows a tile apart, so that these are in L2. Those of the second round over the
 * processors begin one by one instead, whenever a block of the first is done with its rows, and follow each other 128 keys apart: what lies
 * between them is soon more than L2 holds. So they wait for each other, in groups of up to three of each chain.
 *
 * That ends if the launch has as many processors as its largest group has blocks. Of the blocks that have begun and
 * not ended, the first one waits for no turn, since all before it in its chain have ended; if it waits for its group, then only blocks
 * of this group hold processors, fewer than it has, and the next one is drawn. On 132 processors a group has 14 blocks at most: two
 * in each chain of a section of 7 heads (tests/gpu/attention_key_walk.cu; 8 with 8 heads). Where others hold so many processors that
 * fewer are left, a block gives up after a while (GROUP_POLLS in dqkv_sm90_kernel.cuh): a group is about time only. */
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

__host__ __device__ __forceinline__ head_tile head_tile_of(int item, int tiles, int section,
                                                           int heads)
{
    const int first_head = item / (tiles * section) * section;
    const int wide = section < heads - first_head ? section : heads - first_head;
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
    int drawn; /* items, before the block begins */
    int first_key;
    tile_span tiles; /* that see any of them */
};

/* Item `item` of keys: task, head, and tile of the task's keys. */
struct key_place {
    int task, head, tile;
    int drawn; /* its block begins when so many items have been drawn */
};

/* Blocks of a chain that begin together in the second round, `apart` tiles of rows between two that do not. Measured. */
__host__ __device__ __forceinline__ int late_blocks(const bwd_sm90_task &t, int apart)
{
    if (t.key_tiles < 64) return 1;
    return t.key_tiles >= 128 && apart > 8 ? 3 : 2;
}

/* Of a section of `heads` heads, which begins with item 0: items drawn before the block of `item` begins. It waits for blocks of its
 * group only, which are behind each other, and no block before the group waits for these: so those end, and the group is drawn. The
 * last group of a section may be smaller: behind a launch's last item nobody would come. */
__host__ __device__ __forceinline__ int drawn_before(const bwd_sm90_params &p,
                                                     const bwd_sm90_task &t, int item, int heads)
{
    const int apart = (BWD_KEYS + p.box_tokens - 1) / p.box_tokens;
    /* Until half a section's bytes lie between blocks, nobody waits. */
    const int late = p.processors + static_cast<int>(SECTION_BYTES / 2 / STEP_BYTES) / apart;
    const int group = late_blocks(t, apart) * heads;
    if (item < late || group == heads || t.kv_row0 != t.q_row0 || p.dims.window < t.q_rows)
        return item + 1;
    return min(late + ((item - late) / group + 1) * group, heads * t.key_tiles);
}

__host__ __device__ __forceinline__ key_place key_place_of(const bwd_sm90_params &p, int item)
{
    const int number = find_task(p.first_key_item, p.num_tasks, item);
    const bwd_sm90_run &run = p.runs[number];
    item -= p.first_key_item[number];
    int task = run.first_task;
    if (run.first_tile == 0 && run.heads == p.tasks[task].kv_heads) { /* a group by itself */
        const bwd_sm90_task &t = p.tasks[task];
        const head_tile at = head_tile_of(item, t.key_tiles, t.key_section, t.kv_heads);
        const int first_head = at.head - at.head % t.key_section;
        const int first = first_head * t.key_tiles; /* of the section */
        const int heads = min(t.key_section, t.kv_heads - first_head);
        return {task, at.head, at.tile,
                p.first_key_item[number] + first + drawn_before(p, t, item - first, heads)};
    }
    const int drawn = p.first_key_item[number] + item + 1;
    const int tile = run.first_tile + item / run.heads;
    int head = item % run.heads;
    while (head >= p.tasks[task].kv_heads)
        head -= p.tasks[task++].kv_heads;
    return {task, head, tile, drawn};
}

__device__ __forceinline__ key_item key_item_of(const bwd_sm90_params &p, int item)
{
    const key_place at = key_place_of(p, item);
    const bwd_sm90_task &t = p.tasks[at.task];
    key_item w;
    w.task = at.task;
    w.head = at.head;
    w.drawn = at.drawn;
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

__host__ __device__ __forceinline__ int32_t num_row_items(const bwd_sm90_params &p)
{
    return p.first_row_item[p.num_tasks];
}

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

/* ==== host ==== */

inline int64_t row_tiles_of(const bwd_sm90_task &t)
{
    return int64_t{t.row_tiles} * t.kv_heads;
}

/* Tiles that keep the processors busy: a turn takes up to 1.3 times as long as the work on a tile. */
inline int64_t busy_tiles(int processors)
{
    return (4 * int64_t{processors} + 2) / 3;
}

/* A task that is a group by itself. */
inline bool is_alone(const bwd_sm90_task &t, int processors)
{
    return t.key_section < t.kv_heads || row_tiles_of(t) >= busy_tiles(processors);
}

/* Tasks [first, end) are a group: one that keeps the processors busy, or as many as it takes of those that do not; with
 * more, fewer rows and sums would be in L2. What a task is has been written, its number of keys descending. */
inline int group_end(const bwd_sm90_params &p, int first)
{
    const int processors = p.processors;
    int64_t tiles = 0;
    int end = first;
    if (is_alone(p.tasks[first], processors)) return first + 1;
    while (end < p.num_tasks && tiles < busy_tiles(processors) &&
           !is_alone(p.tasks[end], processors))
        tiles += row_tiles_of(p.tasks[end++]);
    return end;
}

/* What follows from the tasks is not passed along: a launch has no byte of parameters to spare. */
inline int32_t num_key_items(const bwd_sm90_params &p)
{
    return p.first_key_item[p.num_tasks];
}

inline int64_t num_slots(const bwd_sm90_params &p)
{
    const bwd_sm90_task &last = p.tasks[p.num_tasks - 1];
    return last.first_slot + row_tiles_of(last);
}

/* Orders the items of keys: first_key_item, runs. */
inline void order_key_items(bwd_sm90_params *p)
{
    int32_t items = 0, end;
    for (int32_t first = 0; first < p->num_tasks; first = end) {
        int32_t heads = 0, tile = 0;
        end = group_end(*p, first);
        for (int32_t i = first; i < end; i++)
            heads += p->tasks[i].kv_heads;
        /* A run ends where the shortest task that is left does. */
        for (int32_t i = first, last = end - 1; i < end; i++, last--) {
            p->first_key_item[i] = items;
            p->runs[i] = {first, tile, heads};
            items += (p->tasks[last].key_tiles - tile) * heads;
            tile = p->tasks[last].key_tiles;
            heads -= p->tasks[last].kv_heads;
        }
    }
    p->first_key_item[p->num_tasks] = items;
}

} // namespace kern_attention

#endif
