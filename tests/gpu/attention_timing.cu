#include "tests/gpu/attention_timing.cuh"

#include "tests/gpu/checked_ops.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

namespace
{

constexpr int REPEATS = 30;
constexpr double WARM_SECONDS = 0.4;
constexpr int64_t ROTATE_BYTES =
    int64_t{400} << 20; /* inputs larger than this do not stay in L2 between calls */

/* A task: rows [prefix, prefix + rows) of a document of its own, all heads. */
struct timing_piece {
    int64_t prefix, rows;
};

struct timing_shape {
    const char *name;
    std::vector<timing_piece> pieces;
    int q_heads, kv_heads, head_dim;
    int64_t window;
};

std::vector<timing_piece> same(size_t count, int64_t prefix, int64_t rows)
{
    return std::vector<timing_piece>(count, {prefix, rows});
}

/* Documents of log-normal length (median 1 k), none longer than a quarter of the total. */
std::vector<timing_piece> pack(int64_t total)
{
    std::vector<timing_piece> pieces;
    uint64_t seed = 7;
    while (total > 0) {
        double normal = -6.0; /* of deviation 1 */
        for (int i = 0; i < 12; i++)
            normal += 0x1p-20 * static_cast<double>(gpu_random_below(&seed, 1 << 20));
        const int64_t rows = std::min<int64_t>(
            {static_cast<int64_t>(1024.0 * std::exp(normal)) + 1, total, 32768 / 4});
        pieces.push_back({0, rows});
        total -= rows;
    }
    return pieces;
}

/* One long document and fillers of 1 k. */
std::vector<timing_piece> long_and_short(int64_t rows, size_t fillers)
{
    std::vector<timing_piece> pieces = same(fillers, 0, 1024);
    pieces.push_back({0, rows});
    return pieces;
}

/* What a planner makes of long documents: shards of 128 to 4096 rows on prefixes up to 128 k. */
std::vector<timing_piece> shards(int count)
{
    std::vector<timing_piece> pieces;
    uint64_t seed = 9;
    for (int i = 0; i < count; i++) {
        const int64_t prefix = 128 * gpu_random_log(&seed, 1, 1024);
        pieces.push_back({prefix, 128 * gpu_random_log(&seed, 1, 32)});
    }
    return pieces;
}

const std::vector<timing_shape> &shapes()
{
    static const std::vector<timing_shape> list = {
        {"causal 4k 32:8 hd128", same(1, 0, 4096), 32, 8, 128, 0},
        {"causal 16k 32:8 hd128", same(1, 0, 16384), 32, 8, 128, 0},
        {"causal 32k 32:8 hd128", same(1, 0, 32768), 32, 8, 128, 0},
        {"causal 16k 28:4 hd128", same(1, 0, 16384), 28, 4, 128, 0},
        {"causal 16k 64:8 hd64", same(1, 0, 16384), 64, 8, 64, 0},
        {"window 1024, 16k 32:8 hd128", same(1, 0, 16384), 32, 8, 128, 1024},
        {"8 documents of 4k 32:8 hd128", same(8, 0, 4096), 32, 8, 128, 0},
        {"16 shards of 512 rows on 16k 32:8 hd128", same(16, 16384, 512), 32, 8, 128, 0},
        {"128 documents of 128 rows 32:8 hd128", same(128, 0, 128), 32, 8, 128, 0},
        {"1 document of 128 rows 32:8 hd128", same(1, 0, 128), 32, 8, 128, 0},
        {"causal 16k 64:8 hd128", same(1, 0, 16384), 64, 8, 128, 0},
        {"log-normal pack of 32k 32:8 hd128", pack(32768), 32, 8, 128, 0},
        {"64k and 16 of 1k 32:8 hd128", long_and_short(65536, 16), 32, 8, 128, 0},
        {"24 shards, prefixes to 128k 32:8 hd128", shards(24), 32, 8, 128, 0},
    };
    return list;
}

double area_of(const timing_shape &s)
{
    double area = 0;
    for (const timing_piece &piece : s.pieces)
        for (int64_t i = piece.prefix; i < piece.prefix + piece.rows; i++)
            area += static_cast<double>(s.window > 0 ? std::min(i + 1, s.window) : i + 1);
    return area;
}

/* All operands of one input set, one buffer; the tasks' places count from their own bases. */
struct operands {
    base_mem_t q, k, v, o, lse, d_o, delta, dq, dk, dv, dk_real, dv_real;
};

struct layout {
    int64_t rows, keys, q_elements, kv_elements, stats, bytes;
};

layout layout_of(const timing_shape &s)
{
    layout l;
    l.rows = l.keys = 0;
    for (const timing_piece &piece : s.pieces) {
        l.rows += piece.rows;
        l.keys += piece.prefix + piece.rows;
    }
    l.q_elements = l.rows * s.q_heads * s.head_dim;
    l.kv_elements = l.keys * s.kv_heads * s.head_dim;
    l.stats = l.rows * s.q_heads;
    l.bytes =
        4 * 2 * l.q_elements + 4 * 2 * l.kv_elements + 2 * 4 * l.kv_elements + 2 * 4 * l.stats;
    return l;
}

operands operands_at(base_buffer_t *buffer, const layout &l, int64_t set)
{
    int64_t at = set * l.bytes;
    const auto next = [&](int64_t bytes) {
        const base_mem_t mem = base_mem(buffer, at);
        at += bytes;
        return mem;
    };
    operands x;
    x.q = next(2 * l.q_elements);
    x.d_o = next(2 * l.q_elements);
    x.k = next(2 * l.kv_elements);
    x.v = next(2 * l.kv_elements);
    x.o = next(2 * l.q_elements);
    x.dq = next(2 * l.q_elements);
    x.dk = next(4 * l.kv_elements);
    x.dv = next(4 * l.kv_elements);
    x.dk_real = next(2 * l.kv_elements);
    x.dv_real = next(2 * l.kv_elements);
    x.lse = next(4 * l.stats);
    x.delta = next(4 * l.stats);
    return x;
}

/* As a trainer holds them: q (G, rows, R, D), k and v (G, keys, D), o (rows, Q D). */
std::vector<kern_attention_task_t> tasks_of(const timing_shape &s, const layout &l)
{
    const int64_t R = s.q_heads / s.kv_heads, D = s.head_dim;
    std::vector<kern_attention_task_t> tasks;
    int64_t row = 0, key = 0; /* of the pieces before */
    for (const timing_piece &piece : s.pieces) {
        kern_attention_task_t t = {};
        t.q_row0 = piece.prefix;
        t.q_rows = piece.rows;
        t.kv_row0 = 0;
        t.kv_heads = s.kv_heads;
        t.q = t.dq = row * R * D;
        t.q_head = t.dq_head = l.rows * R * D;
        t.kv = t.dkv = key * D;
        t.kv_head = t.dkv_head = l.keys * D;
        t.o = t.d_o = row * s.q_heads * D;
        t.o_row = t.d_o_row = s.q_heads * D;
        t.o_head = t.d_o_head = R * D;
        t.lse = t.delta = row * R;
        t.lse_head = t.delta_head = l.rows * R;
        tasks.push_back(t);
        row += piece.rows;
        key += piece.prefix + piece.rows;
    }
    return tasks;
}

void forward(gpu_fixture *fx, const timing_shape &s,
             const std::vector<kern_attention_task_t> &tasks, const operands &x)
{
    const kern_attention_fwd_t args = {KERN_BF16,
                                       s.q_heads / s.kv_heads,
                                       s.head_dim,
                                       s.window,
                                       1.0 / std::sqrt(static_cast<double>(s.head_dim)),
                                       static_cast<int64_t>(tasks.size()),
                                       tasks.data(),
                                       x.q,
                                       x.k,
                                       x.v,
                                       x.o,
                                       x.lse};
    GPU_OK(fx, checked_attention_fwd(fx->s, &args));
}

/* workspace: or none, buffer null. */
void backward(gpu_fixture *fx, const timing_shape &s,
              const std::vector<kern_attention_task_t> &tasks, const operands &x,
              base_mem_t workspace)
{
    const kern_attention_bwd_t args = {KERN_BF16,
                                       s.q_heads / s.kv_heads,
                                       s.head_dim,
                                       s.window,
                                       1.0 / std::sqrt(static_cast<double>(s.head_dim)),
                                       static_cast<int64_t>(tasks.size()),
                                       tasks.data(),
                                       x.q,
                                       x.k,
                                       x.v,
                                       x.lse,
                                       x.d_o,
                                       x.delta,
                                       x.dq,
                                       x.dk,
                                       x.dv,
                                       workspace};
    GPU_OK(fx, checked_attention_bwd(fx->s, &args));
}

void delta(gpu_fixture *fx, const timing_shape &s, const layout &l, const operands &x)
{
    const int64_t width = int64_t{s.q_heads} * s.head_dim;
    const kern_attention_delta_t args = {kern_mat(x.d_o, l.rows, width, width, KERN_BF16),
                                         kern_mat(x.o, l.rows, width, width, KERN_BF16),
                                         x.delta,
                                         l.rows,
                                         s.q_heads,
                                         s.kv_heads,
                                         s.head_dim};
    GPU_OK(fx, checked_attention_delta(fx->s, &args));
}

/* dk, dv to bf16, as for a range of keys with one contributor. */
void to_real(gpu_fixture *fx, const layout &l, const operands &x)
{
    const kern_sum_t sum = {0, 0, l.kv_elements, 1, 1, 0};
    const kern_sum_part_t part = {0, 0};
    const kern_partial_sum_t dk = {KERN_BF16, 1, 1, &sum, &part, x.dk_real, x.dk};
    const kern_partial_sum_t dv = {KERN_BF16, 1, 1, &sum, &part, x.dv_real, x.dv};
    GPU_OK(fx, checked_partial_sum(fx->s, &dk));
    GPU_OK(fx, checked_partial_sum(fx->s, &dv));
}

struct quantiles {
    double p10, median, p90; /* milliseconds */
    double host;             /* milliseconds that a call takes on the host */
};

template <class Work> quantiles measure(gpu_fixture *fx, int64_t sets, Work work)
{
    using clock = std::chrono::steady_clock;
    std::vector<cudaEvent_t> events(2 * REPEATS);
    std::vector<float> ms(REPEATS);
    for (cudaEvent_t &e : events)
        GPU_CUDA(cudaEventCreate(&e));
    const clock::time_point start = clock::now();
    for (int64_t i = 0; std::chrono::duration<double>(clock::now() - start).count() < WARM_SECONDS;
         i++) {
        work(i % sets);
        gpu_sync(fx);
    }
    const clock::time_point issue = clock::now();
    for (int i = 0; i < REPEATS; i++) {
        GPU_CUDA(cudaEventRecord(events[static_cast<size_t>(2 * i)], fx->native));
        work(i % sets);
        GPU_CUDA(cudaEventRecord(events[static_cast<size_t>(2 * i + 1)], fx->native));
    }
    const double host = std::chrono::duration<double>(clock::now() - issue).count() / REPEATS;
    gpu_sync(fx);
    for (size_t i = 0; i < REPEATS; i++)
        GPU_CUDA(cudaEventElapsedTime(&ms[i], events[2 * i], events[2 * i + 1]));
    for (const cudaEvent_t &e : events)
        GPU_CUDA(cudaEventDestroy(e));
    std::sort(ms.begin(), ms.end());
    return {static_cast<double>(ms[REPEATS / 10]), static_cast<double>(ms[REPEATS / 2]),
            static_cast<double>(ms[REPEATS - 1 - REPEATS / 10]), 1e3 * host};
}

void time_shape(gpu_fixture *fx, const timing_shape &s, base_buffer_t *buffer,
                base_buffer_t *workspace, FILE *json, bool first)
{
    const layout l = layout_of(s);
    const int64_t sets = std::max<int64_t>(
        1, std::min(ROTATE_BYTES / l.bytes + 1, base_buffer_bytes(buffer) / l.bytes));
    const std::vector<kern_attention_task_t> tasks = tasks_of(s, l);
    const double flops = 4 * area_of(s) * s.q_heads * s.head_dim;
    for (int64_t i = 0; i < sets; i++)
        gpu_fill_normal(fx,
                        static_cast<__nv_bfloat16 *>(base_mem_address(operands_at(buffer, l, i).q)),
                        2 * l.q_elements + 2 * l.kv_elements, 17 + static_cast<uint64_t>(i), 1.0f);
    const auto at = [&](int64_t i) { return operands_at(buffer, l, i); };
    const quantiles fwd = measure(fx, sets, [&](int64_t i) { forward(fx, s, tasks, at(i)); });
    const auto measure_backward = [&](base_mem_t memory) {
        return measure(fx, sets, [&](int64_t i) {
            delta(fx, s, l, at(i));
            backward(fx, s, tasks, at(i), memory);
            to_real(fx, l, at(i));
        });
    };
    const quantiles bwd = measure_backward(base_mem(workspace, 0));
    const quantiles alone = measure_backward(base_mem(nullptr, 0));
    const auto tera = [](double f, const quantiles &q) { return f / q.median * 1e-9; };
    printf("%-42s fwd %8.3f ms %5.0f TF/s, host %.3f   bwd %8.3f ms %5.0f TF/s, host %.3f, "
           "without workspace %5.0f\n",
           s.name, fwd.median, tera(flops, fwd), fwd.host, bwd.median, tera(2.5 * flops, bwd),
           bwd.host, tera(2.5 * flops, alone));
    fflush(stdout);
    if (json == nullptr) return;
    fprintf(
        json,
        "%s\n  {\"shape\": \"%s\", \"fwd_flops\": %.6g, \"input_sets\": %lld, \"repeats\": %d,\n"
        "   \"fwd_ms\": [%.5f, %.5f, %.5f], \"fwd_tflops\": %.1f, \"fwd_host_ms\": %.5f,\n"
        "   \"bwd_ms\": [%.5f, %.5f, %.5f], \"bwd_tflops\": %.1f,\n"
        "   \"bwd_without_workspace_ms\": [%.5f, %.5f, %.5f], \"bwd_without_workspace_tflops\": "
        "%.1f}",
        first ? "" : ",", s.name, flops, static_cast<long long>(sets), REPEATS, fwd.p10, fwd.median,
        fwd.p90, tera(flops, fwd), fwd.host, bwd.p10, bwd.median, bwd.p90, tera(2.5 * flops, bwd),
        alone.p10, alone.median, alone.p90, tera(2.5 * flops, alone));
}

} // namespace

void attention_timing(gpu_fixture *fx, int64_t first_shape, int64_t count, FILE *json)
{
    base_buffer_t *buffer = nullptr, *workspace = nullptr;
    GPU_OK(fx,
           base_buffer_alloc(fx->dev, BASE_MEMORY_DEVICE, int64_t{32} << 30, "timing", &buffer));
    GPU_OK(fx, base_buffer_alloc(fx->dev, BASE_MEMORY_DEVICE, int64_t{4} << 30, "workspace",
                                 &workspace));
    const int64_t all = static_cast<int64_t>(shapes().size());
    for (int64_t i = first_shape; i < all && i - first_shape < count; i++)
        time_shape(fx, shapes()[static_cast<size_t>(i)], buffer, workspace, json, i == first_shape);
    base_buffer_free(workspace);
    base_buffer_free(buffer);
}
