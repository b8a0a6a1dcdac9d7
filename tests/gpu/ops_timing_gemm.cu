/* Products on the shapes of Llama-3.1-8B: cuBLASLt's first candidate, the searched algorithm, and
 * the best of all candidates with a workspace; those of a step with its pitches and with others; and
 * a linear layer with LoRA, as lora/linear.c calls it. */
#include "tests/gpu/ops_timing.cuh"

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/stream_state.h"
#include "tests/gpu/ops_sides.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace
{

/* C: pitches have room for four adapters of rank 16 on q, k and v; products beside each other are
 * measured with EXTRA columns. */
constexpr int64_t T = 16384, C = 192, EXTRA = 64;

struct linear {
    const char *name;
    int64_t n, k;
    std::vector<int64_t> modules; /* outputs of each */
};
const linear LINEARS[] = {
    {"qkv", 6144, 4096, {4096, 1024, 1024}},
    {"o", 4096, 4096, {4096}},
    {"gate_up", 28672, 4096, {14336, 14336}},
    {"down", 4096, 14336, {4096}},
};

/* x (T, k + C), w (n + C, k + C), y (T, n + C) in one buffer of normal values. */
struct layer {
    gpu_fixture *fx;
    base_buffer_t *buffer;
    const linear &l;
    kern_mat_t x, w, y;

    layer(gpu_fixture *f, const linear &shape) : fx(f), buffer(nullptr), l(shape)
    {
        const int64_t kp = l.k + C, np = l.n + C;
        const int64_t x_bytes = T * kp * 2, w_bytes = np * kp * 2, y_bytes = T * np * 2;
        GPU_OK(fx, base_buffer_alloc(fx->dev, BASE_MEMORY_DEVICE, x_bytes + w_bytes + y_bytes,
                                     "layer", &buffer));
        gpu_fill_normal(fx, static_cast<__nv_bfloat16 *>(base_mem_address(base_mem(buffer, 0))),
                        (x_bytes + w_bytes + y_bytes) / 2, 7, 0.5f);
        x = kern_mat(base_mem(buffer, 0), T, l.k, kp, KERN_BF16);
        w = kern_mat(base_mem(buffer, x_bytes), l.n, l.k, kp, KERN_BF16);
        y = kern_mat(base_mem(buffer, x_bytes + w_bytes), T, l.n, np, KERN_BF16);
    }
    ~layer()
    {
        base_buffer_free(buffer);
    }

    /* y = [x s] [W B]^T and dx = [dy ds] [W; A], `extra` columns taken along; dx lies in x. */
    kern_gemm_t forward(int64_t extra) const
    {
        kern_gemm_t g = {x, w, y, 0, 1, 0};
        g.a.cols = g.b.cols = l.k + extra;
        return g;
    }
    kern_gemm_t backward(int64_t extra) const
    {
        kern_gemm_t g = {y, w, x, 0, 0, 0};
        g.a.cols = l.n + extra;
        g.b.rows = l.n + extra;
        return g;
    }
};

int32_t config(const kern_gemm_plans_t *plans, const cublasLtMatmulAlgo_t &algo,
               cublasLtMatmulAlgoConfigAttributes_t attribute)
{
    uint32_t value = 0;
    size_t written = 0;
    const cublasStatus_t status = plans->lt.cublasLtMatmulAlgoConfigGetAttribute(
        &algo, attribute, &value, sizeof value, &written);
    if (status == CUBLAS_STATUS_SUCCESS) return static_cast<int32_t>(value);
    uint16_t small = 0;
    return plans->lt.cublasLtMatmulAlgoConfigGetAttribute(&algo, attribute, &small, sizeof small,
                                                          &written) == CUBLAS_STATUS_SUCCESS
               ? small
               : -1;
}

/* All candidates with their times; returns the best and the first. */
struct best_of {
    double first, best;
    int count;
};
best_of time_candidates(gpu_fixture *fx, const kern_gemm_t &args, int64_t workspace_bytes,
                        FILE *json, const char *comma, const char *name)
{
    kern_gemm_plans_t *plans = nullptr;
    kern_gemm_problem_t problem;
    void *workspace = nullptr;
    best_of out = {0, INFINITY, 0};
    GPU_OK(fx, kern_cuda_gemm_plans(fx->s, &plans));
    GPU_OK(fx, kern_cuda_scratch(fx->s, &workspace));
    GPU_OK(fx, kern_gemm_problem_init(plans, &args, &problem));
    GPU_OK(fx, kern_gemm_candidates(plans, &problem, workspace_bytes, &out.count));
    if (json != nullptr)
        fprintf(json, "%s\n{\"shape\": \"%s\", \"workspace\": %lld, \"candidates\": [", comma, name,
                static_cast<long long>(workspace_bytes));
    for (int i = 0; i < out.count; i++) {
        const cublasLtMatmulAlgo_t algo = plans->candidates[i].algo;
        const double ms = ops_time(
            fx,
            [&] {
                const cublasStatus_t status = kern_gemm_launch(plans, &problem, &algo, workspace,
                                                               workspace_bytes, fx->native);
                GPU_OK(fx, kern_cublaslt_check(plans, "timing", status));
            },
            1, 3);
        if (i == 0) out.first = ms;
        out.best = std::min(out.best, ms);
        if (json != nullptr)
            fprintf(
                json,
                "%s{\"ms\": %.4f, \"id\": %d, \"tile\": %d, \"stages\": %d, \"cluster\": %d, "
                "\"inner\": %d, \"custom\": %d, \"swizzle\": %d, \"splitk\": %d, \"waves\": %.3f}",
                i > 0 ? ", " : "", ms, config(plans, algo, CUBLASLT_ALGO_CONFIG_ID),
                config(plans, algo, CUBLASLT_ALGO_CONFIG_TILE_ID),
                config(plans, algo, CUBLASLT_ALGO_CONFIG_STAGES_ID),
                config(plans, algo, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID),
                config(plans, algo, CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID),
                config(plans, algo, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION),
                config(plans, algo, CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING),
                config(plans, algo, CUBLASLT_ALGO_CONFIG_SPLITK_NUM),
                static_cast<double>(plans->candidates[i].wavesCount));
    }
    if (json != nullptr) fprintf(json, "]}");
    return out;
}

/* Do the candidates differ in bits? Elements that differ from the first one's result. */
int64_t differing_bits(gpu_fixture *fx, const kern_gemm_t &args)
{
    kern_gemm_plans_t *plans = nullptr;
    kern_gemm_problem_t problem;
    const kern_mat_t &c = args.c;
    const size_t bytes = static_cast<size_t>(c.rows * c.pitch * 2);
    char *first = nullptr;
    int64_t differing = 0;
    int count = 0;
    GPU_OK(fx, kern_cuda_gemm_plans(fx->s, &plans));
    GPU_OK(fx, kern_gemm_problem_init(plans, &args, &problem));
    GPU_OK(fx, kern_gemm_candidates(plans, &problem, 0, &count));
    GPU_CUDA(cudaMalloc(reinterpret_cast<void **>(&first), bytes));
    for (int i = 0; i < count; i++) {
        const cublasLtMatmulAlgo_t algo = plans->candidates[i].algo;
        GPU_OK(fx, kern_cublaslt_check(
                       plans, "bits",
                       kern_gemm_launch(plans, &problem, &algo, nullptr, 0, fx->native)));
        if (i == 0)
            GPU_CUDA(cudaMemcpyAsync(first, problem.c_data, bytes, cudaMemcpyDefault, fx->native));
        else
            differing +=
                gpu_count_different(fx, first, problem.c_data, static_cast<int64_t>(bytes));
    }
    gpu_sync(fx);
    GPU_CUDA(cudaFree(first));
    return differing;
}

/* ==== pitches ==== */

/* What lies beside the columns of a matrix, and the part of it that a product takes along, a module of
 * the linear layer. */
struct columns {
    const char *what;
    int64_t beside, module;
};
constexpr columns PITCHES[] = {
    {"16 a module, no gap", 48, 16},      /* 8288 bytes a row of 4096: no whole line of L2 */
    {"16 a module, whole lines", 64, 16}, /* what tr_model_pitch makes of it */
    {"64 a module, whole lines", 192, 64},
};
constexpr int NUM_PITCHES = sizeof PITCHES / sizeof PITCHES[0];

/* A product of a step of 2 x 8192 rows: y = [x s] [W B]^T or dx = [dy ds] [W; A]. What adapters lie
 * beside has the pitch, the result has none. */
struct pitched {
    base_buffer_t *buffer;
    kern_gemm_t gemm;

    pitched(gpu_fixture *fx, const linear &l, bool backward, const columns &of) : buffer(nullptr)
    {
        const int64_t rows = T / 2, taken = of.module * static_cast<int64_t>(l.modules.size());
        const int64_t inner = backward ? l.n : l.k, outer = backward ? l.k : l.n;
        const auto whole = [](int64_t bytes) { return (bytes + 255) / 256 * 256; };
        const int64_t a_bytes = whole(rows * (inner + of.beside) * 2);
        const int64_t b_bytes = whole((l.n + of.beside) * (l.k + of.beside) * 2);
        const int64_t c_bytes = whole(rows * outer * 2);
        GPU_OK(fx, base_buffer_alloc(fx->dev, BASE_MEMORY_DEVICE, a_bytes + b_bytes + c_bytes,
                                     "product", &buffer));
        gpu_fill_normal(fx, static_cast<__nv_bfloat16 *>(base_mem_address(base_mem(buffer, 0))),
                        (a_bytes + b_bytes) / 2, 7, 0.5f);
        gemm = {};
        gemm.a = kern_mat(base_mem(buffer, 0), rows, inner + taken, inner + of.beside, KERN_BF16);
        gemm.b = kern_mat(base_mem(buffer, a_bytes), l.n + (backward ? taken : 0),
                          l.k + (backward ? 0 : taken), l.k + of.beside, KERN_BF16);
        gemm.c = kern_mat(base_mem(buffer, a_bytes + b_bytes), rows, outer, outer, KERN_BF16);
        gemm.transpose_b = backward ? 0 : 1;
        GPU_OK(fx, kern_cuda_gemm_search(fx->s, &gemm));
    }
    ~pitched()
    {
        base_buffer_free(buffer);
    }
    pitched(const pitched &) = delete;
    pitched &operator=(const pitched &) = delete;
};

/* Medians of five rounds, in turns, each round beginning with another one: clocks drift. */
void time_in_turns(gpu_fixture *fx, const pitched *const products[NUM_PITCHES],
                   double ms[NUM_PITCHES])
{
    std::vector<double> rounds[NUM_PITCHES];
    for (int r = 0; r < 5; r++)
        for (int i = 0; i < NUM_PITCHES; i++) {
            const int which = (r + i) % NUM_PITCHES;
            const kern_gemm_t &g = products[which]->gemm;
            rounds[which].push_back(ops_time(
                fx, [&] { GPU_OK(fx, gpu_gemm(fx->s, &g)); }, 5, 3, true));
        }
    for (int i = 0; i < NUM_PITCHES; i++) {
        std::sort(rounds[i].begin(), rounds[i].end());
        ms[i] = rounds[i][2];
    }
}

void time_pitches(gpu_fixture *fx, const linear &l, bool backward, double sums[NUM_PITCHES],
                  FILE *json, const char *comma)
{
    const pitched none(fx, l, backward, PITCHES[0]), lines(fx, l, backward, PITCHES[1]),
        four(fx, l, backward, PITCHES[2]);
    const pitched *const products[NUM_PITCHES] = {&none, &lines, &four};
    double ms[NUM_PITCHES];

    time_in_turns(fx, products, ms);
    printf("pitch %-8s %-2s", l.name, backward ? "dx" : "y");
    for (int i = 0; i < NUM_PITCHES; i++) {
        const kern_gemm_t &g = products[i]->gemm;
        char name[96];
        snprintf(name, sizeof name, "%lldx%lldx%lld %s, pitches %lld, %lld",
                 static_cast<long long>(g.c.rows), static_cast<long long>(g.c.cols),
                 static_cast<long long>(g.a.cols), backward ? "nn" : "nt",
                 static_cast<long long>(g.a.pitch), static_cast<long long>(g.b.pitch));
        const best_of found = time_candidates(fx, g, 0, json, i > 0 ? "," : comma, name);
        printf("%s K = %lld, pitch %lld: %.4f ms (best of %d %.4f)", i > 0 ? ";" : "",
               static_cast<long long>(g.a.cols), static_cast<long long>(g.a.pitch), ms[i],
               found.count, found.best);
        if (json != nullptr) fprintf(json, ",\n{\"shape\": \"%s\", \"op_ms\": %.4f}", name, ms[i]);
        sums[i] += ms[i];
    }
    printf("\n");
}

/* ==== LoRA ==== */

struct adapters {
    std::vector<kern_lora_segment_t> segments;
    std::vector<kern_lora_adapter_t> list;
    std::vector<kern_lora_block_t> blocks;
    base_buffer_t *gradients, *names;
    kern_lora_route_t route;

    /* `num` adapters of rank 16, equal parts of the rows, one block for each module. */
    adapters(gpu_fixture *fx, const layer &y, int num, double p)
    {
        const linear &l = y.l;
        int64_t floats = 0, out = 0, column = 0;
        for (int i = 0; i < num; i++) {
            segments.push_back({T * i / num, T * (i + 1) / num, i, 0});
            list.push_back({2.0, p, static_cast<uint64_t>(i), 1, 0});
        }
        GPU_OK(fx, base_buffer_alloc(fx->dev, BASE_MEMORY_DEVICE, int64_t{256} << 20, "gradients",
                                     &gradients));
        GPU_OK(fx, base_buffer_alloc(fx->dev, BASE_MEMORY_DEVICE, T * 12, "names", &names));
        GPU_CUDA(cudaMemsetAsync(base_mem_address(base_mem(names, 0)), 0,
                                 static_cast<size_t>(T) * 12, fx->native));
        GPU_CUDA(cudaMemsetAsync(base_mem_address(base_mem(gradients, 0)), 0, size_t{256} << 20,
                                 fx->native));
        for (size_t m = 0; m < l.modules.size(); m++) {
            for (int i = 0; i < num; i++) {
                kern_lora_block_t b = {};
                b.adapter = i;
                b.module = static_cast<int32_t>(m);
                b.column = column;
                b.rank = 16;
                b.out_column = out;
                /* A below W, B beside it, as in [W B; A 0] */
                b.a = kern_mat(base_mem_at(y.w.mem, (l.n + column) * y.w.pitch * 2), 16, l.k,
                               y.w.pitch, KERN_BF16);
                b.b = kern_mat(base_mem_at(y.w.mem, (out * y.w.pitch + l.k + column) * 2),
                               l.modules[m], 16, y.w.pitch, KERN_BF16);
                b.da = kern_mat(base_mem(gradients, floats * 4), 16, l.k, l.k, KERN_F32);
                floats += 16 * l.k;
                b.db = kern_mat(base_mem(gradients, floats * 4), l.modules[m], 16, 16, KERN_F32);
                floats += 16 * l.modules[m];
                blocks.push_back(b);
                column += 16;
            }
            out += l.modules[m];
        }
        route = {};
        route.num_segments = route.num_adapters = num;
        route.num_blocks = static_cast<int64_t>(blocks.size());
        route.segments = segments.data();
        route.adapters = list.data();
        route.blocks = blocks.data();
        route.documents = kern_mat(base_mem(names, 0), T, 2, 2, KERN_I32);
        route.positions = kern_vec(base_mem(names, T * 8), T, KERN_I32);
    }
    ~adapters()
    {
        base_buffer_free(gradients);
        base_buffer_free(names);
    }
};

kern_mat_t beside(kern_mat_t mat, int64_t cols)
{
    mat.mem = base_mem_at(mat.mem, mat.cols * 2);
    mat.cols = cols;
    return mat;
}

struct parts {
    double s, forward, dy, da, backward, dx;
    double ops() const
    {
        return s + dy + da + dx;
    }
    double sum() const
    {
        return ops() + forward + backward;
    }
};

/* Parts of a linear layer as in a step, where the host is ahead. */
double time_ahead(gpu_fixture *fx, const std::function<void()> &call)
{
    return ops_time(fx, call, 3, 9, true);
}

/* Products take exactly the columns of the adapters' blocks along, as a microbatch's do. */
parts time_linear(gpu_fixture *fx, const layer &y, int num, double p)
{
    adapters a(fx, y, num, p);
    const int64_t columns = static_cast<int64_t>(a.blocks.size()) * 16;
    const kern_mat_t s = beside(y.x, columns), ds = beside(y.y, columns);
    const kern_lora_s_t to_s = {a.route, y.x, s};
    const kern_lora_dy_t dy = {a.route, y.y, s, ds};
    const kern_lora_da_t da = {a.route, y.x, ds};
    const kern_lora_dx_dropout_t dx = {a.route, ds, y.x};
    const kern_gemm_t forward = y.forward(columns), backward = y.backward(p > 0 ? 0 : columns);
    parts t = {};
    GPU_OK(fx, kern_cuda_gemm_search(fx->s, &forward));
    GPU_OK(fx, kern_cuda_gemm_search(fx->s, &backward));
    t.s = time_ahead(fx, [&] { GPU_OK(fx, gpu_lora_s(fx->s, &to_s)); });
    t.dy = time_ahead(fx, [&] { GPU_OK(fx, gpu_lora_dy(fx->s, &dy)); });
    t.da = time_ahead(fx, [&] { GPU_OK(fx, gpu_lora_da(fx->s, &da)); });
    if (p > 0) t.dx = time_ahead(fx, [&] { GPU_OK(fx, gpu_lora_dx_dropout(fx->s, &dx)); });
    t.forward = time_ahead(fx, [&] { GPU_OK(fx, gpu_gemm(fx->s, &forward)); });
    t.backward = time_ahead(fx, [&] { GPU_OK(fx, gpu_gemm(fx->s, &backward)); });
    return t;
}

} // namespace

void ops_timing_gemm(gpu_fixture *fx, FILE *json)
{
    const char *comma = "";
    if (json != nullptr) fprintf(json, "\"gemm\": [");
    for (const linear &l : LINEARS) {
        layer y(fx, l);
        for (int backward = 0; backward < 2; backward++)
            for (const int64_t extra : {int64_t{0}, int64_t{16}, EXTRA}) {
                if (extra == 16 && l.n != 4096) continue; /* what the plain heuristic lost */
                const kern_gemm_t g = backward ? y.backward(extra) : y.forward(extra);
                char name[64];
                snprintf(name, sizeof name, "%s %s +%d", l.name, backward ? "dx" : "y",
                         static_cast<int>(extra));
                GPU_OK(fx, kern_cuda_gemm_search(fx->s, &g));
                const best_of plain = time_candidates(fx, g, 0, json, comma, name);
                comma = ",";
                const best_of free =
                    time_candidates(fx, g, KERN_CUDA_SCRATCH_BYTES, json, comma, name);
                const double op = time_ahead(fx, [&] { GPU_OK(fx, gpu_gemm(fx->s, &g)); });
                const double flops = 2.0 * T * static_cast<double>(l.n * l.k);
                printf("gemm %-14s first %.3f, best of %d plain %.3f, of %d with workspace: first "
                       "%.3f, "
                       "best %.3f; op %.3f ms, %.0f TF/s of the frozen flops\n",
                       name, plain.first, plain.count, plain.best, free.count, free.first,
                       free.best, op, flops / op * 1e-9);
                if (json != nullptr)
                    fprintf(json, ",\n{\"shape\": \"%s\", \"op_ms\": %.4f}", name, op);
            }
        if (l.n == 4096 && l.k == 4096)
            printf("elements of o's y and dx that differ between plain candidates: %lld, %lld\n",
                   static_cast<long long>(differing_bits(fx, y.forward(EXTRA))),
                   static_cast<long long>(differing_bits(fx, y.backward(EXTRA))));
    }
    if (json != nullptr) fprintf(json, "],\n");
}

/* A step of 32 layers, ping and pong, has each product 64 times. */
void ops_timing_pitch(gpu_fixture *fx, FILE *json)
{
    double sums[NUM_PITCHES] = {};
    const char *comma = "";
    if (json != nullptr) fprintf(json, "\"pitch\": [");
    for (const linear &l : LINEARS)
        for (int backward = 0; backward < 2; backward++) {
            time_pitches(fx, l, backward != 0, sums, json, comma);
            comma = ",";
        }
    if (json != nullptr) fprintf(json, "],\n");
    for (int i = 0; i < NUM_PITCHES; i++)
        printf("pitches, products of a step, %s: %.1f ms, %.3f of the first\n", PITCHES[i].what,
               64 * sums[i], sums[i] / sums[0]);
}

void ops_timing_linear(gpu_fixture *fx, FILE *json)
{
    const char *comma = "";
    const struct {
        int adapters;
        double p;
    } ways[] = {{1, 0.0}, {1, 0.1}, {4, 0.0}};
    double frozens[3] = {}, sums[3] = {}, ops[3] = {};
    if (json != nullptr) fprintf(json, "\"linear\": [");
    for (const linear &l : LINEARS) {
        layer y(fx, l);
        const kern_gemm_t forward = y.forward(0), backward = y.backward(0);
        for (int i = 0; i < 3; i++) { /* frozen and not in turns: clocks drift */
            const double frozen = time_ahead(fx, [&] { GPU_OK(fx, gpu_gemm(fx->s, &forward)); }) +
                                  time_ahead(fx, [&] { GPU_OK(fx, gpu_gemm(fx->s, &backward)); });
            const parts t = time_linear(fx, y, ways[i].adapters, ways[i].p);
            frozens[i] += frozen;
            sums[i] += t.sum();
            ops[i] += t.ops();
            printf("linear %-8s adapters %d p %.1f: frozen %.3f, lora %.3f ms (%+.1f %%): s %.1f, "
                   "dy %.1f, da %.1f, dx %.1f us, y %.3f, dx %.3f ms\n",
                   l.name, ways[i].adapters, ways[i].p, frozen, t.sum(),
                   100 * (t.sum() / frozen - 1), t.s * 1e3, t.dy * 1e3, t.da * 1e3, t.dx * 1e3,
                   t.forward, t.backward);
            if (json != nullptr)
                fprintf(
                    json,
                    "%s\n{\"linear\": \"%s\", \"adapters\": %d, \"p\": %.2f, \"frozen_ms\": %.4f, "
                    "\"s_us\": %.2f, \"dy_us\": %.2f, \"da_us\": %.2f, \"dx_us\": %.2f, "
                    "\"y_ms\": %.4f, \"dx_gemm_ms\": %.4f}",
                    comma, l.name, ways[i].adapters, ways[i].p, frozen, t.s * 1e3, t.dy * 1e3,
                    t.da * 1e3, t.dx * 1e3, t.forward, t.backward);
            comma = ",";
        }
    }
    for (int i = 0; i < 3; i++)
        printf("linears together, adapters %d p %.1f: %+.1f %% over the frozen %.3f ms (ops beside "
               "the products %.1f %%)\n",
               ways[i].adapters, ways[i].p, 100 * (sums[i] / frozens[i] - 1), frozens[i],
               100 * ops[i] / frozens[i]);
    printf("linears together, four adapters beside one: %.3f (at most 1.03)\n", sums[2] / sums[0]);
    if (json != nullptr) fprintf(json, "],\n");
}
