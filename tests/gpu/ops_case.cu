#include "tests/gpu/ops_case.cuh"

#include <cmath>
#include <cstdio>
#include <cstring>

namespace
{

constexpr int64_t GPU_BYTES = int64_t{96} << 20, CPU_BYTES = int64_t{384} << 20;

double get(const unsigned char *p, kern_dtype_t dtype, int64_t i)
{
    if (dtype == KERN_F64) return reinterpret_cast<const double *>(p)[i];
    if (dtype == KERN_F32) return static_cast<double>(reinterpret_cast<const float *>(p)[i]);
    if (dtype == KERN_I32) return reinterpret_cast<const int32_t *>(p)[i];
    const uint32_t wide = static_cast<uint32_t>(reinterpret_cast<const uint16_t *>(p)[i]) << 16;
    float f;
    memcpy(&f, &wide, sizeof f);
    return static_cast<double>(f);
}

void put(unsigned char *p, kern_dtype_t dtype, int64_t i, double x)
{
    if (dtype == KERN_F64) reinterpret_cast<double *>(p)[i] = x;
    if (dtype == KERN_F32) reinterpret_cast<float *>(p)[i] = static_cast<float>(x);
    if (dtype == KERN_I32) reinterpret_cast<int32_t *>(p)[i] = static_cast<int32_t>(x);
    if (dtype != KERN_BF16) return;
    const float f = static_cast<float>(x);
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    bits = std::isnan(f) ? 0x7fc00000u : bits + 0x7fffu + (bits >> 16 & 1u);
    reinterpret_cast<uint16_t *>(p)[i] = static_cast<uint16_t>(bits >> 16);
}

} // namespace

struct ops_bench {
    gpu_fixture *fx;
    base_device_t *cpu;
    base_stream_t *cpu_stream;
    base_buffer_t *buffer[2];
    std::vector<ops_summary> summary;
};

ops_bench *ops_bench_open(gpu_fixture *fx)
{
    ops_bench *b = new ops_bench{};
    b->fx = fx;
    GPU_OK(fx, base_device_open(fx->ctx, BASE_DEVICE_CPU, 0, &b->cpu));
    GPU_OK(fx, base_stream_create(b->cpu, BASE_STREAM_COMPUTE, "oracle", &b->cpu_stream));
    GPU_OK(fx, base_buffer_alloc(fx->dev, BASE_MEMORY_DEVICE, GPU_BYTES, "case", &b->buffer[GPU]));
    GPU_OK(fx, base_buffer_alloc(b->cpu, BASE_MEMORY_DEVICE, CPU_BYTES, "case", &b->buffer[CPU]));
    return b;
}

void ops_bench_close(ops_bench *b)
{
    base_buffer_free(b->buffer[GPU]);
    base_buffer_free(b->buffer[CPU]);
    base_stream_destroy(b->cpu_stream);
    base_device_close(b->cpu);
    delete b;
}

gpu_fixture *ops_bench_gpu(ops_bench *b)
{
    return b->fx;
}

const std::vector<ops_summary> &ops_bench_summary(const ops_bench *b)
{
    return b->summary;
}

ops_case::ops_case(ops_bench *b, const std::string &n, oracle o)
    : seed(std::hash<std::string>()(n)), bench(b), name(n), kind(o), used{4096, 4096}
{
    image.assign(4096, 0xff);
}

ops_value ops_case::normal(double deviation)
{
    const uint64_t base = gpu_random(&seed);
    return [base, deviation](int64_t row, int64_t col) {
        uint64_t state = base + static_cast<uint64_t>(row) * 0x1234567ull * 1000003ull +
                         static_cast<uint64_t>(col) * 0x9E3779B97F4A7C15ull;
        const double u = (static_cast<double>(gpu_random(&state) >> 11) + 1.0) * 0x1p-53;
        const double v = static_cast<double>(gpu_random(&state) >> 11) * 0x1p-53;
        return deviation * std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * v);
    };
}

ops_tensor ops_case::add(int64_t rows, int64_t cols, int64_t pad, int64_t shift, kern_dtype_t dtype,
                         bool result, tolerance tol, const ops_value &value)
{
    gpu_fixture *fx = bench->fx;
    const bool exact = kind == oracle::same || dtype == KERN_I32;
    const kern_dtype_t other = exact                                      ? dtype
                               : kind == oracle::f64 || dtype == KERN_F64 ? KERN_F64
                                                                          : KERN_F32;
    const int64_t pitch = cols + pad, span = rows * pitch + 64;
    ops_tensor t = {};
    t.result = result;
    t.tol = tol;
    for (int side = 0; side < 2; side++) {
        const kern_dtype_t d = side == GPU ? dtype : other;
        const int64_t begin = (used[side] + 255) / 256 * 256 + shift * kern_dtype_bytes(d);
        t.mat[side] = kern_mat(base_mem(bench->buffer[side], begin), rows, cols, pitch, d);
        used[side] = begin + span * kern_dtype_bytes(d) + 256;
        if (used[side] > (side == GPU ? GPU_BYTES : CPU_BYTES))
            gpu_fail(__FILE__, __LINE__, name.c_str(), "the case is too large");
    }
    image.resize(static_cast<size_t>(used[GPU]), 0xff);
    unsigned char *on_gpu = image.data() + t.mat[GPU].mem.offset;
    unsigned char *on_cpu = static_cast<unsigned char *>(base_mem_address(t.mat[CPU].mem));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++) {
            if (!value) {
                put(on_cpu, other, i * pitch + j, other == KERN_I32 ? -1 : NAN);
                continue;
            }
            put(on_gpu, dtype, i * pitch + j, value(i, j));
            put(on_cpu, other, i * pitch + j, get(on_gpu, dtype, i * pitch + j));
        }
    if (fx != nullptr) tensors.push_back(t);
    return t;
}

ops_tensor ops_case::input(int64_t rows, int64_t cols, int64_t pad, int64_t shift,
                           kern_dtype_t dtype, const ops_value &value)
{
    return add(rows, cols, pad, shift, dtype, false, EXACT, value);
}

ops_tensor ops_case::output(int64_t rows, int64_t cols, int64_t pad, int64_t shift,
                            kern_dtype_t dtype, tolerance tol)
{
    return add(rows, cols, pad, shift, dtype, true, tol, nullptr);
}

ops_tensor ops_case::inout(int64_t rows, int64_t cols, int64_t pad, int64_t shift,
                           kern_dtype_t dtype, tolerance tol, const ops_value &value)
{
    return add(rows, cols, pad, shift, dtype, true, tol, value);
}

/* The worst error over its tolerance. */
double ops_case::compare(const ops_tensor &t, const std::vector<unsigned char> &got,
                         std::string *fault)
{
    const kern_mat_t &g = t.mat[GPU], &c = t.mat[CPU];
    const unsigned char *on_gpu = got.data() + g.mem.offset;
    const unsigned char *on_cpu = static_cast<unsigned char *>(base_mem_address(c.mem));
    double max = 0, worst = 0;
    char text[256];
    if (std::isinf(t.tol.relative)) return 0; /* scratch */
    for (int64_t i = 0; i < g.rows; i++)
        for (int64_t j = 0; j < g.cols; j++) {
            const double w = std::fabs(get(on_cpu, c.dtype, i * c.pitch + j));
            if (std::isfinite(w) && w > max) max = w;
        }
    for (int64_t i = 0; i < g.rows; i++)
        for (int64_t j = 0; j < g.cols; j++) {
            const double x = get(on_gpu, g.dtype, i * g.pitch + j);
            const double w = get(on_cpu, c.dtype, i * c.pitch + j);
            if ((std::isnan(x) && std::isnan(w)) || x == w) continue;
            const double limit = t.tol.relative * std::fabs(w) + t.tol.scaled * max;
            /* what overflows bf16 or fp32 may be infinite there, and the largest value here */
            if (std::isinf(x) && std::fabs(w) > 3.38e38 && (x > 0) == (w > 0)) continue;
            const double over = limit > 0 ? std::fabs(x - w) / limit : INFINITY;
            if (!(over <= worst)) {
                worst = std::isnan(over) ? INFINITY : over;
                snprintf(text, sizeof text, "(%lld, %lld) of %lld x %lld: got %.9g, want %.9g",
                         static_cast<long long>(i), static_cast<long long>(j),
                         static_cast<long long>(g.rows), static_cast<long long>(g.cols), x, w);
                if (!(worst <= 1)) *fault = text;
            }
        }
    return worst;
}

void ops_case::run(const std::function<base_status_t(base_stream_t *)> &on_gpu,
                   const std::function<base_status_t(base_stream_t *)> &on_cpu)
{
    gpu_fixture *fx = bench->fx;
    const std::string op = name.substr(0, name.find(' '));
    std::vector<unsigned char> got[2];
    std::string fault;
    double worst = 0;
    void *const address = base_mem_address(base_mem(bench->buffer[GPU], 0));
    for (int turn = 0; turn < 2; turn++) {
        got[turn].resize(image.size());
        GPU_CUDA(
            cudaMemcpyAsync(address, image.data(), image.size(), cudaMemcpyDefault, fx->native));
        if (on_gpu(fx->s) < 0 && fault.empty()) {
            base_error_t error;
            fault = "refused: ";
            fault += base_ctx_error(fx->ctx, &error) ? error.text : "";
        }
        GPU_CUDA(cudaMemcpyAsync(got[turn].data(), address, image.size(), cudaMemcpyDefault,
                                 fx->native));
        gpu_sync(fx);
    }
    GPU_OK(fx, on_cpu(bench->cpu_stream));
    GPU_OK(fx, base_stream_sync(bench->cpu_stream));
    for (const ops_tensor &t : tensors)
        if (t.result) worst = std::max(worst, compare(t, got[0], &fault));
    if (memcmp(got[0].data(), got[1].data(), image.size()) != 0)
        fault += " a second run has other bytes;";
    for (const ops_tensor &t : tensors) { /* results are put back; the rest must not have changed */
        const kern_mat_t &g = t.mat[GPU];
        const int64_t bytes = kern_dtype_bytes(g.dtype);
        if (!t.result) continue;
        for (int64_t i = 0; i < g.rows; i++)
            memcpy(got[0].data() + g.mem.offset + i * g.pitch * bytes,
                   image.data() + g.mem.offset + i * g.pitch * bytes,
                   static_cast<size_t>(g.cols * bytes));
    }
    if (memcmp(got[0].data(), image.data(), image.size()) != 0)
        fault += " bytes outside the results were written;";
    ops_summary *sum = nullptr;
    for (ops_summary &s : bench->summary)
        if (s.op == op) sum = &s;
    if (sum == nullptr) {
        bench->summary.push_back({op, 0, 0, 0});
        sum = &bench->summary.back();
    }
    sum->cases++;
    sum->worst = std::max(sum->worst, worst);
    if (fault.empty()) return;
    sum->failures++;
    if (sum->failures > 6) return;
    printf("FAILED %s: %s (%.3g of the tolerance)\n", name.c_str(), fault.c_str(), worst);
}
