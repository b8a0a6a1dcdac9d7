#include "tests/gpu/ops_timing.cuh"

#include "kernels/cuda/cuda_ops.h"
#include "tests/gpu/ops_sides.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace
{

constexpr int64_t T = 16384, H = 4096, F = 14336, V = 128256, Q = 32, G = 8, D = 128;
constexpr int64_t SPACE = int64_t{6} << 30;
constexpr double WANTED_SHARE = 0.80;      /* of a copy */
constexpr long long LEAD_CYCLES = 1000000; /* half a millisecond and more */

/* Operands one after the other in one buffer, filled with normal bf16. */
struct space {
    gpu_fixture *fx;
    base_buffer_t *buffer;
    int64_t used = 0;
    double copy = 0; /* bytes per ms of a device copy, read and written */
    FILE *json;
    const char *comma = "";

    kern_mat_t mat(int64_t rows, int64_t cols, kern_dtype_t dtype = KERN_BF16)
    {
        const base_mem_t mem = base_mem(buffer, used);
        used += (rows * cols * kern_dtype_bytes(dtype) + 255) / 256 * 256;
        if (used > SPACE) gpu_fail(__FILE__, __LINE__, "timing", "the buffer is too small");
        return kern_mat(mem, rows, cols, cols, dtype);
    }

    void zero(const kern_mat_t &m)
    {
        GPU_CUDA(cudaMemsetAsync(base_mem_address(m.mem), 0,
                                 static_cast<size_t>(m.rows * m.cols * kern_dtype_bytes(m.dtype)),
                                 fx->native));
    }

    /* One op; `bytes` that it must read and write. */
    void op(const char *name, int64_t bytes,
            const std::function<base_status_t(base_stream_t *)> &run)
    {
        const double ms = ops_time(
            fx, [&] { GPU_OK(fx, run(fx->s)); }, 3, 9, true);
        const double share = static_cast<double>(bytes) / ms / copy;
        printf("%-28s %9.1f us %7.2f TB/s %6.1f %% of a copy%s\n", name, ms * 1e3,
               static_cast<double>(bytes) / ms * 1e-9, 100 * share,
               share < WANTED_SHARE ? "  LESS THAN 80 %" : "");
        if (json != nullptr)
            fprintf(json, "%s\n{\"op\": \"%s\", \"us\": %.2f, \"bytes\": %lld, \"share\": %.4f}",
                    comma, name, ms * 1e3, static_cast<long long>(bytes), share);
        comma = ",";
        used = 0;
    }
};

#define OP(text, bytes, op_name, ...)                                                              \
    x.op(text, bytes, [&](base_stream_t *s) {                                                      \
        const kern_##op_name##_t args = __VA_ARGS__;                                               \
        return gpu_##op_name(s, &args);                                                            \
    })

int64_t bytes_of(std::initializer_list<kern_mat_t> mats)
{
    int64_t sum = 0;
    for (const kern_mat_t &m : mats)
        sum += m.rows * m.cols * kern_dtype_bytes(m.dtype);
    return sum;
}

void elementwise(space &x)
{
    {
        const kern_mat_t a = x.mat(T, H), b = x.mat(T, H), y = x.mat(T, H);
        OP("add", bytes_of({a, b, y}), add, {a, b, y});
    }
    {
        const kern_mat_t a = x.mat(T, H, KERN_F32), y = x.mat(T, H);
        OP("convert fp32 to bf16", bytes_of({a, y}), convert, {a, y});
    }
    {
        const kern_mat_t a = x.mat(1, 6144), y = x.mat(T, 6144);
        OP("bias_add", bytes_of({a, y, y}), bias_add, {a, y});
    }
    {
        const kern_mat_t a = x.mat(T, 6144), y = x.mat(1, 6144, KERN_F32);
        OP("column_sum", bytes_of({a, y, y}), column_sum, {a, y});
    }
    {
        const kern_mat_t g = x.mat(T, 2 * F), y = x.mat(T, F);
        OP("swiglu_fwd", bytes_of({g, y}), swiglu_fwd, {g, y});
    }
    {
        const kern_mat_t d = x.mat(T, F), g = x.mat(T, 2 * F), y = x.mat(T, 2 * F);
        OP("swiglu_bwd", bytes_of({d, g, y}), swiglu_bwd, {d, g, y});
    }
    {
        const kern_mat_t t = x.mat(1, T, KERN_I32), y = x.mat(T, H), w = x.mat(V, H);
        std::vector<int32_t> tokens(T);
        for (size_t i = 0; i < tokens.size(); i++)
            tokens[i] = static_cast<int32_t>(i * 7919 % V);
        GPU_CUDA(cudaMemcpy(base_mem_address(t.mem), tokens.data(), 4 * tokens.size(),
                            cudaMemcpyDefault));
        OP("embedding_fwd", bytes_of({t, y, y}), embedding_fwd, {t, w, y});
    }
}

void rows(space &x)
{
    {
        const kern_mat_t a = x.mat(T, H), w = x.mat(1, H), y = x.mat(T, H),
                         r = x.mat(1, T, KERN_F32);
        OP("rmsnorm_fwd", bytes_of({a, w, y, r}), rmsnorm_fwd, {a, w, y, r, 1e-5});
    }
    {
        const kern_mat_t a = x.mat(T, H), b = x.mat(T, H), sum = x.mat(T, H), w = x.mat(1, H),
                         y = x.mat(T, H), r = x.mat(1, T, KERN_F32);
        OP("add_rmsnorm_fwd", bytes_of({a, b, sum, w, y, r}), add_rmsnorm_fwd,
           {a, b, sum, w, y, r, 1e-5});
    }
    {
        const kern_mat_t a = x.mat(T, H), w = x.mat(1, H), dy = x.mat(T, H), dres = x.mat(T, H),
                         dx = x.mat(T, H), r = x.mat(1, T, KERN_F32);
        OP("rmsnorm_bwd", bytes_of({a, dy, dres, dx, r}), rmsnorm_bwd,
           {dy, a, w, r, dres, dx, kern_mat_t{}});
    }
    {
        const kern_mat_t a = x.mat(T, Q * D), w = x.mat(1, D), y = x.mat(T, Q * D),
                         r = x.mat(T, Q, KERN_F32);
        OP("head_norm_fwd", bytes_of({a, y, r}), head_norm_fwd, {a, w, y, r, D, 1e-6});
    }
    {
        const kern_mat_t a = x.mat(T, Q * D), w = x.mat(1, D), dy = x.mat(T, Q * D),
                         dx = x.mat(T, Q * D), r = x.mat(T, Q, KERN_F32);
        OP("head_norm_bwd", bytes_of({a, dy, dx, r}), head_norm_bwd,
           {dy, a, w, r, dx, kern_mat_t{}, D});
    }
    for (int forward = 0; forward < 2; forward++) {
        const kern_mat_t p = x.mat(1, T, KERN_I32), table = x.mat(T, D, KERN_F32);
        const kern_mat_t fused = x.mat(T, (Q + 2 * G) * D), q = x.mat(T, Q * D),
                         k = x.mat(T, G * D), v = x.mat(T, G * D);
        std::vector<int32_t> positions(T);
        for (size_t i = 0; i < positions.size(); i++)
            positions[i] = static_cast<int32_t>(i % 4096);
        GPU_CUDA(cudaMemcpy(base_mem_address(p.mem), positions.data(), 4 * positions.size(),
                            cudaMemcpyDefault));
        if (forward)
            OP("rope_fwd", bytes_of({fused, fused, p}), rope_fwd,
               {fused, p, table, q.mem, k.mem, v.mem, T, Q, G, D});
        else
            OP("rope_bwd", bytes_of({fused, fused, p}), rope_bwd,
               {q.mem, k.mem, v.mem, T, p, table, fused, Q, G, D});
    }
}

/* What stands beside attention, for documents of 4096 rows in one call. */
void attention_parts(space &x)
{
    {
        const kern_mat_t d_o = x.mat(T, Q * D), o = x.mat(T, Q * D), out = x.mat(T, Q, KERN_F32);
        OP("attention_delta", bytes_of({d_o, o, out}), attention_delta,
           {d_o, o, out.mem, T, Q, G, D});
    }
    for (const int32_t per_sum : {1, 4}) {
        constexpr int64_t ROWS = 4096, DOCUMENTS = T / ROWS, COUNT = ROWS * D;
        std::vector<kern_sum_t> sums;
        std::vector<kern_sum_part_t> parts;
        for (int64_t i = 0; i < DOCUMENTS; i++) {
            sums.push_back({i * COUNT, T * D, COUNT, static_cast<int32_t>(G), per_sum,
                            static_cast<int64_t>(parts.size())});
            for (int32_t j = 0; j < per_sum; j++)
                parts.push_back({(i * per_sum + j) * G * COUNT, COUNT, 0, 0});
        }
        const kern_mat_t dst = x.mat(T, G * D), src = x.mat(per_sum * T, G * D, KERN_F32);
        OP(per_sum == 1 ? "partial_sum, 1 part" : "partial_sum, 4 parts", bytes_of({dst, src}),
           partial_sum,
           {KERN_BF16, DOCUMENTS, static_cast<int64_t>(parts.size()), sums.data(), parts.data(),
            dst.mem, src.mem, kern_mat_t{}.mem});
    }
}

/* The tensors of an adapter of rank 16 on the seven linears of 32 layers: 42 M elements. */
void step(space &x)
{
    std::vector<kern_mat_t> gradients;
    std::vector<kern_adamw_tensor_t> tensors;
    const int64_t shapes[][2] = {{H, H}, {H, 1024}, {H, 1024}, {H, H}, {H, F}, {H, F}, {F, H}};
    int64_t elements = 0;
    for (int layer = 0; layer < 32; layer++)
        for (const auto &s : shapes)
            for (int b = 0; b < 2; b++) {
                const int64_t n = b ? s[1] : 16, m = b ? 16 : s[0];
                kern_adamw_tensor_t t = {x.mat(n, m, KERN_F32), x.mat(n, m, KERN_F32),
                                         x.mat(n, m, KERN_F32), x.mat(n, m, KERN_F32), x.mat(n, m)};
                for (const kern_mat_t &state : {t.w, t.m, t.v, t.gradient})
                    x.zero(state);
                gradients.push_back(t.gradient);
                tensors.push_back(t);
                elements += n * m;
            }
    const kern_mat_t sum = x.mat(1, 1, KERN_F32), count = x.mat(1, 1, KERN_I32);
    const int64_t num = static_cast<int64_t>(tensors.size());
    const int64_t keep = x.used;
    OP("grad_norm (42 M, L2 holds some)", 4 * elements, grad_norm, {num, gradients.data(), sum});
    x.used = keep;
    OP("finite_check", 4 * elements, finite_check, {KERN_F32, num, gradients.data(), count, 0});
    x.used = keep;
    OP("adamw", 30 * elements, adamw,
       {KERN_BF16, num, tensors.data(), 1e-4, 0.9, 0.999, 1e-8, 0.01, 3, kern_mat_t{},
        kern_mat_t{}});
}

/* What is left of an all-reduce of an adapter's gradient, of 42 M elements as above. */
void sums(space &x)
{
    constexpr int64_t COUNT = 41943040;
    for (const int64_t num_parts : {2, 4}) {
        const kern_mat_t dst = x.mat(1, COUNT, KERN_F32);
        kern_vector_sum_t sum = {dst, num_parts, {}};
        for (int64_t i = 0; i < num_parts; i++)
            sum.parts[i] = x.mat(1, COUNT, KERN_F32).mem;
        OP(num_parts == 2 ? "vector_sum, 2 parts" : "vector_sum, 4 parts",
           (num_parts + 1) * bytes_of({dst}), vector_sum, sum);
    }
}

constexpr int64_t LOSS_ROWS = 4096;

/* Milliseconds of loss_linear_ce over LOSS_ROWS rows, and of its products alone. Those take what the
 * op takes, its gradient of the logits included (products of other numbers, or of NaN, run at
 * another clock), and are searched, as a run's are. */
struct loss_time {
    double all, products;
};

loss_time time_loss(space &x, kern_dtype_t dtype, int64_t hidden, int64_t chunk)
{
    /* inputs lie where they lie for all, so that no case finds results of another in them */
    x.used = 0;
    const auto narrow = [&](kern_mat_t m) {
        m.cols = m.pitch = hidden;
        return m;
    };
    kern_mat_t in = narrow(x.mat(LOSS_ROWS, H));
    const kern_mat_t w = narrow(x.mat(V, H)), dx = narrow(x.mat(LOSS_ROWS, H));
    const kern_mat_t list = x.mat(1, LOSS_ROWS, KERN_I32), target = x.mat(1, LOSS_ROWS, KERN_I32);
    const kern_mat_t weight = x.mat(1, LOSS_ROWS, KERN_F32), out = x.mat(1, LOSS_ROWS, KERN_F32);
    const kern_mat_t logits = x.mat(chunk, V, dtype), gathered = narrow(x.mat(chunk, H));
    std::vector<int32_t> numbers(LOSS_ROWS);
    for (size_t i = 0; i < numbers.size(); i++)
        numbers[i] = static_cast<int32_t>(i);
    for (const kern_mat_t &m : {list, target})
        GPU_CUDA(cudaMemcpy(base_mem_address(m.mem), numbers.data(), 4 * numbers.size(),
                            cudaMemcpyDefault));
    const kern_loss_linear_ce_t args = {in,  w,  list,         target, weight,
                                        out, dx, kern_mat_t{}, logits, gathered};
    const auto op = [&] { GPU_OK(x.fx, gpu_loss_linear_ce(x.fx->s, &args)); };
    in.rows = chunk;
    kern_mat_t dz = logits;
    dz.pitch = logits.pitch * kern_dtype_bytes(dtype) / 2;
    dz.dtype = KERN_BF16;
    const kern_gemm_t forward = {in, w, logits, 0, 1, 0}, backward = {dz, w, gathered, 0, 0, 0};
    op();
    GPU_OK(x.fx, kern_cuda_gemm_search(x.fx->s, &backward));
    GPU_OK(x.fx, kern_cuda_gemm_search(x.fx->s, &forward));
    (void)ops_time(x.fx, op, 1, 20); /* until the clock is that of a product in company */
    const double all = ops_time(x.fx, op, 1, 9, true);
    const auto time_gemm = [&](const kern_gemm_t &gemm) {
        return ops_time(
            x.fx, [&] { GPU_OK(x.fx, gpu_gemm(x.fx->s, &gemm)); }, 1, 9, true);
    };
    const double once = time_gemm(backward) + time_gemm(forward); /* which ends dz */
    x.used = 0;
    return {all, once * static_cast<double>(LOSS_ROWS) / static_cast<double>(chunk)};
}

/* In one chunk, and in chunks as large as training's; then with so few hidden columns that the
 * kernel between the products, which reads and writes logits, can be told from them. */
void loss(space &x)
{
    constexpr int64_t FEW = 512;
    for (const kern_dtype_t dtype : {KERN_BF16, KERN_F32})
        for (const int64_t chunk : {LOSS_ROWS, int64_t{1024}}) {
            const char *name = kern_dtype_name(dtype);
            const loss_time t = time_loss(x, dtype, H, chunk);
            printf("loss_linear_ce, %s logits, 4096 rows in chunks of %lld: %.2f ms, its products "
                   "%.2f ms (%.0f TF/s whole)\n",
                   name, static_cast<long long>(chunk), t.all, t.products,
                   4.0 * LOSS_ROWS * H * V / t.all * 1e-9);
            const loss_time few = time_loss(x, dtype, FEW, chunk);
            const double kernel = few.all - few.products,
                         bytes = static_cast<double>(LOSS_ROWS * V * (kern_dtype_bytes(dtype) + 2));
            printf("  of %lld hidden columns: %.2f ms beside its products, %.1f %% of a copy\n",
                   static_cast<long long>(FEW), kernel, 100 * bytes / kernel / x.copy);
            if (x.json != nullptr)
                fprintf(x.json,
                        "%s\n{\"op\": \"loss_linear_ce %s %lld\", \"us\": %.2f, \"gemm_us\": "
                        "%.2f, \"kernel_us\": %.2f}",
                        x.comma, name, static_cast<long long>(chunk), t.all * 1e3, t.products * 1e3,
                        kernel * 1e3);
        }
}

} // namespace

/* Keeps the stream busy for `cycles` of a processor's clock, without touching memory. */
static __global__ void lead_kernel(long long cycles)
{
    const long long begin = clock64();
    while (clock64() - begin < cycles)
        ;
}

double ops_time(gpu_fixture *fx, const std::function<void()> &call, int calls, int repeats,
                bool lead)
{
    cudaEvent_t begin, end;
    std::vector<float> times;
    GPU_CUDA(cudaEventCreate(&begin));
    GPU_CUDA(cudaEventCreate(&end));
    call();
    call();
    for (int i = 0; i < repeats; i++) {
        float ms = 0;
        if (lead) lead_kernel<<<1, 1, 0, fx->native>>>(LEAD_CYCLES);
        GPU_CUDA(cudaGetLastError());
        GPU_CUDA(cudaEventRecord(begin, fx->native));
        for (int j = 0; j < calls; j++)
            call();
        GPU_CUDA(cudaEventRecord(end, fx->native));
        GPU_CUDA(cudaEventSynchronize(end));
        GPU_CUDA(cudaEventElapsedTime(&ms, begin, end));
        times.push_back(ms / static_cast<float>(calls));
    }
    GPU_CUDA(cudaEventDestroy(begin));
    GPU_CUDA(cudaEventDestroy(end));
    std::sort(times.begin(), times.end());
    return static_cast<double>(times[times.size() / 2]);
}

void ops_timing(gpu_fixture *fx, FILE *json)
{
    space x;
    x.fx = fx;
    x.json = json;
    GPU_OK(fx, base_buffer_alloc(fx->dev, BASE_MEMORY_DEVICE, SPACE, "timing", &x.buffer));
    char *const base = static_cast<char *>(base_mem_address(base_mem(x.buffer, 0)));
    gpu_fill_normal(fx, reinterpret_cast<__nv_bfloat16 *>(base), SPACE / 2, 1, 1.0f);
    constexpr size_t COPY = size_t{512} << 20;
    const auto copy = [&] {
        GPU_CUDA(
            cudaMemcpyAsync(base + 2 * COPY, base, COPY, cudaMemcpyDeviceToDevice, fx->native));
    };
    const double warm = ops_time(fx, copy, 20, 40);
    const double ms = ops_time(fx, copy, 3, 9, true);
    x.copy = 2.0 * static_cast<double>(COPY) / ms;
    printf("device copy of 512 MB: %.2f TB/s (%.2f while warming up)\n", x.copy * 1e-9,
           2.0 * static_cast<double>(COPY) / warm * 1e-9);
    if (json != nullptr) fprintf(json, "\"copy_tb_s\": %.4f,\n\"ops\": [", x.copy * 1e-9);
    elementwise(x);
    rows(x);
    attention_parts(x);
    gpu_fill_normal(fx, reinterpret_cast<__nv_bfloat16 *>(base), SPACE / 2, 2, 0.02f);
    loss(x);
    step(x);
    sums(x);
    if (json != nullptr) fprintf(json, "],\n");
    base_buffer_free(x.buffer);
}
