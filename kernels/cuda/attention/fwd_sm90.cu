/* The sm_90a forward on the host: describes tasks and launches the kernel of the head dim. */
#include "kernels/cuda/attention/fwd_sm90_items.cuh"
#include "kernels/cuda/attention/sm90_launch.cuh"

#include <algorithm>

namespace kern_attention
{

namespace
{

struct sm90_range {
    const int *order;
    int count;
};

/* Describes those tasks of the list, in tiles of `rows` packed rows. */
bool describe_tasks(sm90_params *out, encode_map_t encode, const fwd_params &p, int32_t head_dim,
                    int32_t rows, sm90_range range)
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
                      {rows, head_dim / PANEL_COLUMNS}) ||
            !make_map(encode, &out->kv_maps[i],
                      {first + t.kv, keys, head_dim, t.kv_heads, 2 * t.kv_head, distance},
                      {BOX_ROWS, head_dim / PANEL_COLUMNS}))
            return false;
        const int32_t row_tiles = static_cast<int32_t>((packed_rows + rows - 1) / rows);
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

} // namespace

cudaError_t launch_fwd_sm90(const fwd_params &p, int32_t head_dim, cudaStream_t stream, bool *done)
{
    const encode_map_t encode = find_encode_map();
    const int32_t rows = head_dim == 64 ? FWD_SM90_ROWS<64> : FWD_SM90_ROWS<128>;
    *done = false;
    if (encode == nullptr) return cudaSuccess;
    int processors = 0;
    cudaError_t e = count_processors(&processors);
    if (e != cudaSuccess) return e;

    int order[MAX_TASKS];
    const int num_tasks = p.list.num_tasks;
    order_tasks(p.list, order, [](const kern_attention_task_t &t) { return t.q_row0 + t.q_rows; });
    const int launches = (num_tasks + SM90_TASKS - 1) / SM90_TASKS;
    for (int i = 0; i < launches; i++) {
        const int begin = num_tasks * i / launches, end = num_tasks * (i + 1) / launches;
        sm90_params params;
        if (!describe_tasks(&params, encode, p, head_dim, rows, {order + begin, end - begin}))
            return cudaSuccess;
        e = head_dim == 64 ? launch_fwd_sm90<64>(params, processors, stream)
                           : launch_fwd_sm90<128>(params, processors, stream);
        if (e != cudaSuccess) return e;
    }
    *done = true;
    return cudaSuccess;
}

} // namespace kern_attention
