#include "tests/gpu/attention_bench.cuh"

#include "tests/gpu/checked_ops.h"

#include <algorithm>

namespace
{

constexpr int64_t MAX_KEYS = int64_t{300}
                             << 20; /* elements of k with a copy of the keys for each task */

int64_t below(uint64_t *seed, int64_t n)
{
    return gpu_random_below(seed, n);
}

/* rows x count elements between two places with strides of their own. */
void copy(const gpu_fixture *fx, void *dst, int64_t dst_pitch, const void *src, int64_t src_pitch,
          int64_t count, int64_t rows, int64_t element)
{
    if (rows == 0 || count == 0) return;
    GPU_CUDA(cudaMemcpy2DAsync(dst, static_cast<size_t>(dst_pitch * element), src,
                               static_cast<size_t>(src_pitch * element),
                               static_cast<size_t>(count * element), static_cast<size_t>(rows),
                               cudaMemcpyDefault, fx->native));
}

/* The same between a task's piece and a master tensor, one way or the other; "clear" makes the
 * piece NaN again. */
enum class way { in, out, clear };
template <class T>
void move(const gpu_fixture *fx, way w, const gpu_pool &pool, int64_t at, int64_t pitch,
          const T *master, int64_t master_pitch, int64_t count, int64_t rows)
{
    void *piece = gpu_pool_address(&pool, at);
    if (w == way::in) copy(fx, piece, pitch, master, master_pitch, count, rows, sizeof(T));
    if (w == way::out)
        copy(fx, const_cast<T *>(master), master_pitch, piece, pitch, count, rows, sizeof(T));
    if (w == way::clear && rows > 0 && count > 0)
        GPU_CUDA(cudaMemset2DAsync(piece, static_cast<size_t>(pitch) * sizeof(T), 0xff,
                                   static_cast<size_t>(count) * sizeof(T),
                                   static_cast<size_t>(rows), fx->native));
}

/* ==== placement ==== */

/* A document's keys, all heads, from `row0` on: one copy for all of its tasks. */
struct shared_keys {
    int64_t at, head, row0;
};

kern_attention_task_t place_rows(attention_bench *b, const attention_cut &c, uint64_t *seed)
{
    const attention_shape &s = b->shape;
    const int64_t lane = int64_t{s.R} * s.D, heads = c.heads;
    kern_attention_task_t t = {};
    t.q_row0 = c.row0;
    t.q_rows = c.rows;
    t.kv_row0 = c.kv_row0;
    t.kv_heads = c.heads;
    if (c.rows == 0 || c.heads == 0) return t;
    t.q_head = c.rows * lane + 8 * below(seed, 3);
    t.q = gpu_pool_take(&b->q, heads * t.q_head, 8, seed);
    t.dq_head = c.rows * lane + 8 * below(seed, 3);
    t.dq = gpu_pool_take(&b->dq, heads * t.dq_head, 8, seed);
    t.lse_head = c.rows * s.R + below(seed, 3);
    t.lse = gpu_pool_take(&b->lse, heads * t.lse_head, 1, seed);
    t.delta_head = c.rows * s.R + below(seed, 3);
    t.delta = gpu_pool_take(&b->delta, heads * t.delta_head, 1, seed);
    t.o_head = lane + 8 * below(seed, 2);
    t.o_row = heads * t.o_head + 8 * below(seed, 3);
    t.o = gpu_pool_take(&b->o, c.rows * t.o_row, 8, seed);
    t.d_o_head = lane;
    t.d_o_row = heads * lane + 8 * below(seed, 3);
    t.d_o = gpu_pool_take(&b->d_o, c.rows * t.d_o_row, 8, seed);
    t.dkv_head = (c.row0 + c.rows - c.kv_row0) * s.D + 4 * below(seed, 3);
    t.dkv = gpu_pool_take(&b->dk, heads * t.dkv_head, 4, seed);
    b->dv.used = b->dk.used;
    return t;
}

void place_keys(attention_bench *b, const std::vector<attention_cut> &cuts,
                std::vector<kern_attention_task_t> &tasks, uint64_t *seed)
{
    const int64_t D = b->shape.D, G = b->shape.G;
    std::vector<shared_keys> shared(b->documents.size(), {-1, 0, 0});
    const bool own = below(seed, 2) == 0;
    for (size_t i = 0; i < cuts.size(); i++) {
        const attention_cut &c = cuts[i];
        const attention_document &doc = b->documents[static_cast<size_t>(c.document)];
        kern_attention_task_t &t = tasks[i];
        if (c.rows == 0 || c.heads == 0) continue;
        shared_keys one = {-1, 0, 0};
        const bool apart = own && b->k.used < MAX_KEYS / 2 && below(seed, 2) == 0;
        shared_keys &keys = apart ? one : shared[static_cast<size_t>(c.document)];
        const int64_t end = apart ? c.row0 + c.rows : doc.T;
        const int64_t h0 = apart ? c.head0 : 0, heads = apart ? c.heads : G;
        if (keys.at < 0) {
            keys.row0 = apart ? c.kv_row0 : 0;
            keys.head = (end - keys.row0) * D + 8 * below(seed, 3);
            keys.at = gpu_pool_take(&b->k, heads * keys.head, 8, seed);
            b->v.used = b->k.used;
        }
        t.kv_head = keys.head;
        t.kv = keys.at + (c.head0 - h0) * keys.head + (c.kv_row0 - keys.row0) * D;
    }
}

/* ==== moving operands ==== */

void move_stats(attention_bench *b, way w, const gpu_pool &pool, const attention_cut &c, int64_t at,
                int64_t head, const float *master)
{
    const attention_document &doc = b->documents[static_cast<size_t>(c.document)];
    const int64_t nq = doc.T - doc.q_begin, R = b->shape.R;
    move(b->fx, w, pool, at, head, master + (c.head0 * nq + c.row0 - doc.q_begin) * R, nq * R,
         c.rows * R, c.heads);
}

void move_rows(attention_bench *b, way w, const gpu_pool &pool, const attention_cut &c, int64_t at,
               int64_t head, const __nv_bfloat16 *master)
{
    const attention_document &doc = b->documents[static_cast<size_t>(c.document)];
    const int64_t nq = doc.T - doc.q_begin, lane = int64_t{b->shape.R} * b->shape.D;
    move(b->fx, w, pool, at, head, master + (c.head0 * nq + c.row0 - doc.q_begin) * lane, nq * lane,
         c.rows * lane, c.heads);
}

void move_tokens(attention_bench *b, way w, const gpu_pool &pool, const attention_cut &c,
                 int64_t at, int64_t row, int64_t head, const __nv_bfloat16 *master)
{
    const attention_document &doc = b->documents[static_cast<size_t>(c.document)];
    const int64_t lane = int64_t{b->shape.R} * b->shape.D, pitch = lane * b->shape.G;
    for (int h = 0; h < c.heads; h++)
        move(b->fx, w, pool, at + h * head, row,
             master + (c.row0 - doc.q_begin) * pitch + (c.head0 + h) * lane, pitch, lane, c.rows);
}

void move_keys(attention_bench *b, const attention_cut &c, const kern_attention_task_t &t)
{
    const reference_doc &ref = b->documents[static_cast<size_t>(c.document)].reference;
    const int64_t count = (c.row0 + c.rows - c.kv_row0) * ref.D;
    const int64_t from = (c.head0 * ref.T + c.kv_row0) * ref.D;
    move(b->fx, way::in, b->k, t.kv, t.kv_head, ref.k + from, ref.T * ref.D, count, c.heads);
    move(b->fx, way::in, b->v, t.kv, t.kv_head, ref.v + from, ref.T * ref.D, count, c.heads);
}

/* ==== dk, dv: the owner's sums ==== */

/* One sum for each head and each range of keys between the ends of tasks, parts in ascending q0. */
void add_sums(const attention_bench *b, int document, const std::vector<attention_cut> &cuts,
              const std::vector<kern_attention_task_t> &tasks, std::vector<kern_sum_t> &sums,
              std::vector<kern_sum_part_t> &parts)
{
    const int64_t D = b->shape.D, T = b->documents[static_cast<size_t>(document)].T;
    std::vector<size_t> order;
    std::vector<int64_t> edges;
    for (size_t i = 0; i < cuts.size(); i++) {
        if (cuts[i].document != document || cuts[i].rows == 0 || cuts[i].heads == 0) continue;
        order.push_back(i);
        edges.push_back(cuts[i].kv_row0);
        edges.push_back(cuts[i].row0 + cuts[i].rows);
    }
    std::sort(order.begin(), order.end(),
              [&](size_t x, size_t y) { return cuts[x].row0 < cuts[y].row0; });
    std::sort(edges.begin(), edges.end());
    edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
    for (int h = 0; h < b->shape.G; h++)
        for (size_t e = 0; e + 1 < edges.size(); e++) {
            kern_sum_t sum = {(h * T + edges[e]) * D,
                              0,
                              (edges[e + 1] - edges[e]) * D,
                              1,
                              0,
                              static_cast<int64_t>(parts.size())};
            for (const size_t i : order) {
                const attention_cut &c = cuts[i];
                if (h < c.head0 || h >= c.head0 + c.heads || edges[e] < c.kv_row0 ||
                    edges[e] >= c.row0 + c.rows)
                    continue;
                parts.push_back(
                    {tasks[i].dkv + (h - c.head0) * tasks[i].dkv_head + (edges[e] - c.kv_row0) * D,
                     0, 0, 0});
                sum.num_parts++;
            }
            if (sum.num_parts > 0) sums.push_back(sum);
        }
}

base_mem_t master_place(const attention_bench *b, const void *p)
{
    return base_mem(b->master,
                    static_cast<const char *>(p) -
                        static_cast<const char *>(base_mem_address(base_mem(b->master, 0))));
}

void sum_gradients(attention_bench *b, const std::vector<attention_cut> &cuts,
                   const std::vector<kern_attention_task_t> &tasks, int slot)
{
    for (size_t d = 0; d < b->documents.size(); d++) {
        const attention_document &doc = b->documents[d];
        const size_t bytes = static_cast<size_t>(b->shape.G * doc.T * b->shape.D) * 2;
        std::vector<kern_sum_t> sums;
        std::vector<kern_sum_part_t> parts;
        add_sums(b, static_cast<int>(d), cuts, tasks, sums, parts);
        for (int v = 0; v < 2; v++) {
            __nv_bfloat16 *dst = v ? doc.results[slot].dv : doc.results[slot].dk;
            GPU_CUDA(cudaMemsetAsync(dst, 0, bytes, b->fx->native)); /* keys of no task */
            const kern_partial_sum_t args = {KERN_BF16,
                                             static_cast<int64_t>(sums.size()),
                                             static_cast<int64_t>(parts.size()),
                                             sums.data(),
                                             parts.data(),
                                             master_place(b, dst),
                                             base_mem(v ? b->dv.buffer : b->dk.buffer, 0),
                                             base_mem(nullptr, 0)};
            GPU_OK(b->fx, checked_partial_sum(b->fx->s, &args));
        }
    }
}

/* ==== tasks that are real ==== */

/* The tasks, about a half of them real, with places of their own for dk and dv. */
std::vector<kern_attention_task_t>
draw_real(attention_bench *b, const std::vector<kern_attention_task_t> &tasks, uint64_t seed)
{
    std::vector<kern_attention_task_t> drawn = tasks;
    for (kern_attention_task_t &t : drawn) {
        if (t.q_rows == 0 || t.kv_heads == 0 || below(&seed, 2) == 0) continue;
        t.real = 1;
        t.dkv_head = (t.q_row0 + t.q_rows - t.kv_row0) * b->shape.D + 8 * below(&seed, 3);
        t.dkv = gpu_pool_take(&b->real[0], t.kv_heads * t.dkv_head, 8, &seed);
    }
    b->real[1].used = b->rounded[0].used = b->rounded[1].used = b->real[0].used;
    return drawn;
}

/* Of `tasks` those that were drawn. */
std::vector<kern_attention_task_t> plain_of(const std::vector<kern_attention_task_t> &tasks,
                                            const std::vector<kern_attention_task_t> &drawn)
{
    std::vector<kern_attention_task_t> plain;
    for (size_t i = 0; i < tasks.size(); i++)
        if (drawn[i].real) plain.push_back(tasks[i]);
    return plain;
}

/* Sums of one part each, of what real tasks have left in fp32 when they were not, to the places where
 * they were. Returns the elements that differ in all of the pools. */
int64_t compare_real(attention_bench *b, const std::vector<kern_attention_task_t> &tasks,
                     const std::vector<kern_attention_task_t> &drawn)
{
    std::vector<kern_sum_t> sums;
    std::vector<kern_sum_part_t> parts;
    int64_t different = 0;
    for (size_t i = 0; i < tasks.size(); i++) {
        const kern_attention_task_t &t = drawn[i];
        if (!t.real) continue;
        sums.push_back({t.dkv, t.dkv_head, (t.q_row0 + t.q_rows - t.kv_row0) * b->shape.D,
                        t.kv_heads, 1, static_cast<int64_t>(parts.size())});
        parts.push_back({tasks[i].dkv, tasks[i].dkv_head, 0, 0});
    }
    for (int v = 0; v < 2; v++) {
        const kern_partial_sum_t args = {KERN_BF16,
                                         static_cast<int64_t>(sums.size()),
                                         static_cast<int64_t>(parts.size()),
                                         sums.data(),
                                         parts.data(),
                                         base_mem(b->rounded[v].buffer, 0),
                                         base_mem(v ? b->dv.buffer : b->dk.buffer, 0),
                                         base_mem(nullptr, 0)};
        GPU_OK(b->fx, checked_partial_sum(b->fx->s, &args));
        different += gpu_pool_different(b->fx, &b->real[v], &b->rounded[v]);
    }
    return different;
}

/* ==== the ops ==== */

void run_forward(attention_bench *b, const kern_attention_task_t *tasks, int64_t count)
{
    kern_attention_fwd_t args = {};
    args.dtype = KERN_BF16;
    args.group = b->shape.R;
    args.head_dim = b->shape.D;
    args.window = b->shape.window;
    args.scale = b->shape.scale;
    args.num_tasks = count;
    args.tasks = tasks;
    args.q = base_mem(b->q.buffer, 0);
    args.k = base_mem(b->k.buffer, 0);
    args.v = base_mem(b->v.buffer, 0);
    args.o = base_mem(b->o.buffer, 0);
    args.lse = base_mem(b->lse.buffer, 0);
    const bool mma = b->kernels == attention_kernels::mma;
    GPU_OK(b->fx,
           mma ? checked_attention_fwd_mma(b->fx->s, &args) : b->ops->forward(b->fx->s, &args));
}

/* workspace: where it begins in its pool. */
void run_backward(attention_bench *b, const kern_attention_task_t *tasks, int64_t count,
                  int64_t workspace)
{
    kern_attention_bwd_t args = {};
    args.dtype = KERN_BF16;
    args.group = b->shape.R;
    args.head_dim = b->shape.D;
    args.window = b->shape.window;
    args.scale = b->shape.scale;
    args.num_tasks = count;
    args.tasks = tasks;
    args.q = base_mem(b->q.buffer, 0);
    args.k = base_mem(b->k.buffer, 0);
    args.v = base_mem(b->v.buffer, 0);
    args.lse = base_mem(b->lse.buffer, 0);
    args.d_o = base_mem(b->d_o.buffer, 0);
    args.delta = base_mem(b->delta.buffer, 0);
    args.dq = base_mem(b->dq.buffer, 0);
    args.dk = base_mem(b->dk.buffer, 0);
    args.dv = base_mem(b->dv.buffer, 0);
    args.dk_real = base_mem(b->real[0].buffer, 0);
    args.dv_real = base_mem(b->real[1].buffer, 0);
    if (b->kernels == attention_kernels::op)
        args.workspace = base_mem(b->workspace.buffer, 4 * workspace);
    const bool mma = b->kernels == attention_kernels::mma;
    GPU_OK(b->fx,
           mma ? checked_attention_bwd_mma(b->fx->s, &args) : b->ops->backward(b->fx->s, &args));
}

/* Floats of a workspace with which the backward of these tasks may be called. */
int64_t workspace_of(const attention_bench *b, const std::vector<kern_attention_task_t> &tasks)
{
    kern_attention_bwd_t args = {};
    args.dtype = KERN_BF16;
    args.group = b->shape.R;
    args.head_dim = b->shape.D;
    args.window = b->shape.window;
    args.num_tasks = static_cast<int64_t>(tasks.size());
    args.tasks = tasks.data();
    return b->ops->workspace(&args) / 4;
}

void run_delta(attention_bench *b, const attention_document &doc, const __nv_bfloat16 *o)
{
    const attention_shape &s = b->shape;
    const int64_t nq = doc.T - doc.q_begin, width = int64_t{s.G} * s.R * s.D;
    kern_attention_delta_t args = {};
    args.d_o = kern_mat(master_place(b, doc.reference.d_o), nq, width, width, KERN_BF16);
    args.o = kern_mat(master_place(b, o), nq, width, width, KERN_BF16);
    args.delta = master_place(b, doc.delta);
    args.head_rows = nq;
    args.num_q_heads = s.G * s.R;
    args.num_kv_heads = s.G;
    args.head_dim = s.D;
    GPU_OK(b->fx, checked_attention_delta(b->fx->s, &args));
}

template <class Run>
void in_calls(const std::vector<kern_attention_task_t> &tasks, int calls, Run run)
{
    const int64_t n = static_cast<int64_t>(tasks.size());
    for (int64_t c = 0; c < calls; c++)
        run(tasks.data() + n * c / calls, n * (c + 1) / calls - n * c / calls);
}

} // namespace

int64_t attention_run(attention_bench *b, const std::vector<attention_cut> &cuts, int calls,
                      int slot, uint64_t *seed)
{
    std::vector<kern_attention_task_t> tasks;
    for (gpu_pool *pool : b->pools())
        pool->used = 0;
    for (const attention_cut &c : cuts)
        tasks.push_back(place_rows(b, c, seed));
    place_keys(b, cuts, tasks, seed);
    const int64_t workspace_floats = workspace_of(b, tasks); /* one for all calls */
    const int64_t workspace = gpu_pool_take(&b->workspace, workspace_floats, 4, seed);
    const std::vector<kern_attention_task_t> drawn = draw_real(b, tasks, *seed ^ 0x5ea1);
    for (gpu_pool *pool : b->pools())
        gpu_pool_poison(b->fx, pool);

    const auto each = [&](auto &&work) {
        for (size_t i = 0; i < cuts.size(); i++)
            if (cuts[i].rows > 0 && cuts[i].heads > 0)
                work(cuts[i], tasks[i], b->documents[static_cast<size_t>(cuts[i].document)]);
    };
    using cut_t = const attention_cut &;
    using task_t = const kern_attention_task_t &;
    using doc_t = const attention_document &;
    each([&](cut_t c, task_t t, doc_t doc) {
        move_rows(b, way::in, b->q, c, t.q, t.q_head, doc.reference.q);
        move_keys(b, c, t);
        move_tokens(b, way::in, b->d_o, c, t.d_o, t.d_o_row, t.d_o_head, doc.reference.d_o);
    });
    in_calls(tasks, calls,
             [b](const kern_attention_task_t *t, int64_t n) { run_forward(b, t, n); });
    each([&](cut_t c, task_t t, doc_t doc) {
        move_tokens(b, way::out, b->o, c, t.o, t.o_row, t.o_head, doc.results[slot].o);
        move_stats(b, way::out, b->lse, c, t.lse, t.lse_head, doc.results[slot].lse);
    });
    for (const attention_document &doc : b->documents)
        run_delta(b, doc, doc.results[slot].o);
    each([&](cut_t c, task_t t, doc_t doc) {
        move_stats(b, way::in, b->delta, c, t.delta, t.delta_head, doc.delta);
    });
    const auto backward = [b, workspace](const kern_attention_task_t *t, int64_t n) {
        run_backward(b, t, n, workspace);
    };
    in_calls(drawn, calls, backward);
    int64_t foreign = 0;
    if (!b->once) {
        in_calls(plain_of(tasks, drawn), 1, backward);
        foreign += compare_real(b, tasks, drawn);
    }
    sum_gradients(b, cuts, tasks, slot);
    each([&](cut_t c, task_t t, doc_t doc) {
        move_rows(b, way::out, b->dq, c, t.dq, t.dq_head, doc.results[slot].dq);
    });

    /* What was written where it belongs becomes NaN again; anything else that is not NaN is
     * foreign. */
    each([&](cut_t c, task_t t, doc_t doc) {
        const int64_t keys = (c.row0 + c.rows - c.kv_row0) * b->shape.D;
        const attention_results &r = doc.results[slot];
        move_tokens(b, way::clear, b->o, c, t.o, t.o_row, t.o_head, r.o);
        move_stats(b, way::clear, b->lse, c, t.lse, t.lse_head, r.lse);
        move_rows(b, way::clear, b->dq, c, t.dq, t.dq_head, r.dq);
        for (const gpu_pool *pool : {&b->dk, &b->dv})
            move(b->fx, way::clear, *pool, t.dkv, t.dkv_head, static_cast<const float *>(nullptr),
                 0, keys, c.heads);
    });
    move(b->fx, way::clear, b->workspace, workspace, workspace_floats,
         static_cast<const float *>(nullptr), 0, workspace_floats, 1);
    for (const gpu_pool *pool : {&b->o, &b->lse, &b->dq, &b->dk, &b->dv, &b->workspace})
        foreign += gpu_pool_foreign(b->fx, pool);
    return foreign;
}
