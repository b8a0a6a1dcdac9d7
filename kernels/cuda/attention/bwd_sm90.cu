/* The sm_90a backward on the host: describes tasks and launches the two kernels. */
#include "kernels/cuda/attention/bwd_sm90_items.cuh"
#include "kernels/cuda/attention/sm90_launch.cuh"

#include <algorithm>

namespace kern_attention
{
namespace
{

struct task_range {
    const int *order;
    int count;
};

int32_t heads_that_fit(int64_t section_bytes, int64_t head_bytes, int32_t heads)
{
    return static_cast<int32_t>(
        std::max<int64_t>(1, std::min<int64_t>(section_bytes / head_bytes, heads)));
}

/* Of tasks behind others' keys, and where nothing is summed in memory: blocks that own keys walk the same rows at nearly the same time, so that little of them
 * need fit L2. With more heads in a section fewer blocks wait for each other in a row. Measured. */
constexpr int64_t ROW_SECTION_BYTES = 4 * SECTION_BYTES;

/* Heads of a section of keys, whose rows are so many bytes of sums each.
 *
 * Blocks that begin together walk the same rows a tile apart. The first keys of a whole document have most rows, so that those blocks
 * end one by one, and whoever begins then walks far behind the one before: what lies between them leaves L2. Two rounds of
 * blocks over the processors are the least that keeps them busy: the second round has the last half of the keys, a fourth of the work,
 * and ends all at once, so that the next section begins together. tests/gpu/attention_l2.py counts both.
 *
 * Sections are alike: a last one of few heads has fewer chains than its blocks need. */
int32_t key_section(const bwd_sm90_task &t, int64_t row_bytes, bool chained, int processors)
{
    const int32_t heads = t.kv_heads;
    int32_t sections;
    if (chained && t.kv_row0 == t.q_row0) {
        const int64_t blocks = int64_t{processors} * 19 / 10; /* a twentieth less than two rounds */
        const int64_t least = (blocks + t.key_tiles - 1) / t.key_tiles;
        sections =
            heads / static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(least, heads)));
    } else {
        const int32_t fit = heads_that_fit(ROW_SECTION_BYTES, row_bytes, heads);
        sections = (heads + fit - 1) / fit;
    }
    return (heads + sections - 1) / sections;
}

/* Tasks come by it, those of the most first, as order_key_items wants them. */
int64_t keys_of(const kern_attention_task_t &t)
{
    return t.q_row0 + t.q_rows - t.kv_row0;
}

template <int D>
bool describe_tasks(bwd_sm90_params *out, encode_map_t encode, const bwd_params &p,
                    task_range range, int processors)
{
    const __nv_bfloat16 *first = std::min(p.k, p.v), *second = std::max(p.k, p.v);
    const int64_t distance = static_cast<int64_t>(reinterpret_cast<uintptr_t>(second) -
                                                  reinterpret_cast<uintptr_t>(first));
    const int32_t R = p.dims.group.divisor, box_tokens = BWD_ROWS<D> / R;
    out->lse = p.lse;
    out->delta = p.delta;
    out->dq = p.dq;
    out->dk = p.dk;
    out->dv = p.dv;
    out->dk_real = p.dk_real;
    out->dv_real = p.dv_real;
    out->real = 0;
    out->dims = p.dims;
    out->v_first = p.v < p.k;
    out->box_tokens = box_tokens;
    out->num_tasks = range.count;
    out->processors = processors;
    int32_t row_items = 0, slots = 0;
    for (int i = 0; i < range.count; i++) {
        const kern_attention_task_t &t = p.list.tasks[range.order[i]];
        const int64_t keys = keys_of(t), tokens = 128 / BWD_ROWS<D> * box_tokens;
        if (!make_token_map(encode, &out->q_maps[i],
                            {p.q + t.q, t.q_rows, R, D, t.kv_heads, 2 * int64_t{R} * D,
                             2 * t.q_head, box_tokens}) ||
            !make_token_map(encode, &out->d_o_maps[i],
                            {p.d_o + t.d_o, t.q_rows, R, D, t.kv_heads, 2 * t.d_o_row,
                             2 * t.d_o_head, box_tokens}) ||
            !make_map(encode, &out->kv_maps[i],
                      {first + t.kv, keys, D, t.kv_heads, 2 * t.kv_head, distance},
                      {BOX_ROWS, D / PANEL_COLUMNS}))
            return false;
        bwd_sm90_task &task = out->tasks[i];
        task.q_row0 = static_cast<int32_t>(t.q_row0);
        task.q_rows = static_cast<int32_t>(t.q_rows);
        task.kv_row0 = static_cast<int32_t>(t.kv_row0);
        task.kv_heads = t.kv_heads;
        task.key_tiles = static_cast<int32_t>((keys + BWD_KEYS - 1) / BWD_KEYS);
        task.key_section =
            key_section(task, t.q_rows * R * D * 4, p.workspace != nullptr, processors);
        task.row_items = static_cast<int32_t>((t.q_rows + tokens - 1) / tokens);
        task.row_section = heads_that_fit(SECTION_BYTES, keys * D * 4, t.kv_heads);
        task.row_tiles = static_cast<int32_t>((t.q_rows + box_tokens - 1) / box_tokens);
        task.first_slot = slots;
        task.lse = t.lse;
        task.lse_head = t.lse_head;
        task.delta = t.delta;
        task.delta_head = t.delta_head;
        task.dq = t.dq;
        task.dq_head = t.dq_head;
        task.dkv = t.dkv;
        task.dkv_head = t.dkv_head;
        out->real |= static_cast<uint64_t>(t.real) << i;
        out->first_row_item[i] = row_items;
        row_items += task.row_items * t.kv_heads;
        slots += task.row_tiles * t.kv_heads;
    }
    order_key_items(out);
    out->first_row_item[range.count] = row_items;
    /* As kern_attention_bwd_workspace counts them; launches use the same memory in turn. */
    out->turns = static_cast<int32_t *>(p.workspace);
    out->dq_sums = static_cast<float *>(p.workspace) + ((1 + int64_t{slots}) * 4 + 255) / 256 * 64;
    return true;
}

} // namespace

cudaError_t launch_bwd_sm90(const bwd_params &p, int32_t head_dim, cudaStream_t stream, bool *done)
{
    const encode_map_t encode = find_encode_map();
    *done = false;
    if (encode == nullptr || p.dims.group.divisor > (head_dim == 64 ? BWD_ROWS<64> : BWD_ROWS<128>))
        return cudaSuccess;
    int processors = 0;
    cudaError_t e = count_processors(&processors);
    if (e != cudaSuccess) return e;

    int order[MAX_TASKS];
    const int num_tasks = p.list.num_tasks;
    order_tasks(p.list, order, keys_of);
    const int launches = (num_tasks + BWD_SM90_TASKS - 1) / BWD_SM90_TASKS;
    for (int i = 0; i < launches; i++) {
        const int begin = num_tasks * i / launches, end = num_tasks * (i + 1) / launches;
        const task_range range = {order + begin, end - begin};
        bwd_sm90_params params;
        if (!(head_dim == 64 ? describe_tasks<64>(&params, encode, p, range, processors)
                             : describe_tasks<128>(&params, encode, p, range, processors)))
            return cudaSuccess;
        if (p.workspace != nullptr) {
            e = head_dim == 64 ? launch_dqkv_sm90<64>(params, stream)
                               : launch_dqkv_sm90<128>(params, stream);
        } else {
            e = head_dim == 64 ? launch_dkv_sm90<64>(params, stream)
                               : launch_dkv_sm90<128>(params, stream);
            if (e != cudaSuccess) return e;
            e = head_dim == 64 ? launch_dq_sm90<64>(params, stream)
                               : launch_dq_sm90<128>(params, stream);
        }
        if (e != cudaSuccess) return e;
    }
    *done = true;
    return cudaSuccess;
}

} // namespace kern_attention
