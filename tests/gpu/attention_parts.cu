#include "tests/gpu/attention_parts.cuh"

#include "tests/gpu/checked_ops.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

namespace
{

float to_float(uint16_t bits)
{
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float f;
    memcpy(&f, &wide, sizeof f);
    return f;
}

/* Round to nearest even; finite values. */
uint16_t to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

float uniform(uint64_t *seed)
{
    return static_cast<float>(gpu_random(seed) >> 40) * 0x1p-23f - 1.0f;
}

/* A buffer on the device with these contents. */
template <class T> base_buffer_t *upload(gpu_fixture *fx, const std::vector<T> &values)
{
    base_buffer_t *buffer = nullptr;
    const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(T));
    GPU_OK(fx, base_buffer_alloc(fx->dev, BASE_MEMORY_DEVICE, bytes, "operand", &buffer));
    GPU_OK(fx, base_upload(fx->s, base_mem(buffer, 0), values.data(), bytes));
    gpu_sync(fx);
    return buffer;
}

template <class T> void download(gpu_fixture *fx, base_buffer_t *buffer, std::vector<T> *values)
{
    GPU_OK(fx, base_download(fx->s, values->data(), base_mem(buffer, 0),
                             static_cast<int64_t>(values->size() * sizeof(T))));
    gpu_sync(fx);
    base_buffer_free(buffer);
}

int report(const char *what, int64_t wrong)
{
    if (wrong > 0) printf("FAILED %s: %lld values\n", what, static_cast<long long>(wrong));
    return wrong > 0;
}

/* Sums of odd lengths over several heads, of parts in fp32 and in bf16, some of none, in more launches
 * than one; every element of dst is written or left alone, bit for bit as on the host. */
int sums(gpu_fixture *fx)
{
    uint64_t seed = 21;
    std::vector<float> src(1 << 20);
    std::vector<uint16_t> dst(1 << 18, 0xffff), want = dst, real(src.size());
    std::vector<kern_sum_t> list;
    std::vector<kern_sum_part_t> parts;
    int64_t wrong = 0;
    for (size_t i = 0; i < src.size(); i++) {
        src[i] = uniform(&seed);
        real[i] = to_bf16(uniform(&seed));
    }
    for (int64_t at = 0, i = 0; i < 600; i++) {
        kern_sum_t s = {};
        s.count = i == 0 ? 10000 : gpu_random_below(&seed, 70);
        s.heads = static_cast<int32_t>(gpu_random_below(&seed, 4));
        s.dst_head = (s.count + 3) / 4 * 4 + 4 * gpu_random_below(&seed, 2);
        s.dst = at;
        at += s.heads * s.dst_head + 4;
        s.num_parts = i == 1 ? 1000 : static_cast<int32_t>(gpu_random_below(&seed, 10));
        s.first_part = static_cast<int64_t>(parts.size());
        for (int32_t p = 0; p < s.num_parts; p++)
            parts.push_back({4 * gpu_random_below(&seed, 100000),
                             s.dst_head + 4 * gpu_random_below(&seed, 20000),
                             static_cast<int32_t>(gpu_random_below(&seed, 2)), 0});
        for (int64_t h = 0; h < s.heads; h++)
            for (int64_t j = 0; j < s.count; j++) {
                float sum = 0;
                for (int32_t p = 0; p < s.num_parts; p++) {
                    const kern_sum_part_t &part = parts[static_cast<size_t>(s.first_part + p)];
                    const auto place = static_cast<size_t>(part.src + h * part.src_head + j);
                    const float x = part.real ? to_float(real[place]) : src[place];
                    sum = p == 0 ? x : sum + x;
                }
                want[static_cast<size_t>(s.dst + h * s.dst_head + j)] = to_bf16(sum);
            }
        list.push_back(s);
    }
    base_buffer_t *src_buffer = upload(fx, src), *real_buffer = upload(fx, real),
                  *dst_buffer = upload(fx, dst);
    const kern_partial_sum_t args = {KERN_BF16,
                                     static_cast<int64_t>(list.size()),
                                     static_cast<int64_t>(parts.size()),
                                     list.data(),
                                     parts.data(),
                                     base_mem(dst_buffer, 0),
                                     base_mem(src_buffer, 0),
                                     base_mem(real_buffer, 0)};
    GPU_OK(fx, checked_partial_sum(fx->s, &args));
    download(fx, dst_buffer, &dst);
    base_buffer_free(real_buffer);
    base_buffer_free(src_buffer);
    for (size_t i = 0; i < dst.size(); i++)
        wrong += dst[i] != want[i];
    return report("partial_sum", wrong);
}

int deltas(gpu_fixture *fx, int32_t G, int32_t R, int32_t D)
{
    const int64_t rows = 77, head_rows = 80, width = int64_t{G} * R * D;
    const int64_t o_pitch = width + 64, d_o_pitch = width + 8;
    uint64_t seed = 22;
    std::vector<uint16_t> o(static_cast<size_t>(rows * o_pitch), 0xffff),
        d_o(static_cast<size_t>(rows * d_o_pitch), 0xffff);
    std::vector<float> got(static_cast<size_t>(G * head_rows * R), -7.0f);
    std::vector<double> want(got.size(), -7.0);
    int64_t wrong = 0;
    for (int64_t t = 0; t < rows; t++)
        for (int64_t q = 0; q < G * R; q++) {
            double sum = 0;
            for (int64_t i = q * D; i < (q + 1) * D; i++) {
                uint16_t &a = o[static_cast<size_t>(t * o_pitch + i)];
                uint16_t &b = d_o[static_cast<size_t>(t * d_o_pitch + i)];
                a = to_bf16(uniform(&seed));
                b = to_bf16(uniform(&seed));
                sum += static_cast<double>(to_float(a)) * static_cast<double>(to_float(b));
            }
            want[static_cast<size_t>((q / R * head_rows + t) * R + q % R)] = sum;
        }
    base_buffer_t *o_buffer = upload(fx, o), *d_o_buffer = upload(fx, d_o),
                  *buffer = upload(fx, got);
    const kern_attention_delta_t args = {
        kern_mat(base_mem(d_o_buffer, 0), rows, width, d_o_pitch, KERN_BF16),
        kern_mat(base_mem(o_buffer, 0), rows, width, o_pitch, KERN_BF16),
        base_mem(buffer, 0),
        head_rows,
        G * R,
        G,
        D};
    GPU_OK(fx, checked_attention_delta(fx->s, &args));
    download(fx, buffer, &got);
    base_buffer_free(o_buffer);
    base_buffer_free(d_o_buffer);
    for (size_t i = 0; i < got.size(); i++)
        wrong += !(std::fabs(static_cast<double>(got[i]) - want[i]) <= 1e-5);
    return report("attention_delta", wrong);
}

int expect(gpu_fixture *fx, base_status_t got, base_status_t want, const char *what)
{
    base_ctx_clear_error(fx->ctx);
    if (got == want) return 0;
    printf("FAILED %s: %s, want %s\n", what, base_status_name(got), base_status_name(want));
    return 1;
}

int refusals(gpu_fixture *fx)
{
    base_buffer_t *buffer = nullptr;
    GPU_OK(fx, base_buffer_alloc(fx->dev, BASE_MEMORY_DEVICE, 1 << 20, "operands", &buffer));
    const base_mem_t mem = base_mem(buffer, 0);
    kern_attention_task_t task = {};
    task.q_rows = 4;
    task.kv_heads = 1;
    task.q = task.kv = 1024;
    task.o_row = 128;
    kern_attention_fwd_t args = {KERN_BF16,
                                 1,
                                 128,
                                 0,
                                 1.0,
                                 1,
                                 &task,
                                 mem,
                                 mem,
                                 mem,
                                 base_mem(buffer, 1 << 18),
                                 base_mem(buffer, 1 << 19)};
    int wrong = expect(fx, checked_attention_fwd(fx->s, &args), BASE_OK, "a legal task");
    task.q = 1028;
    wrong += expect(fx, checked_attention_fwd(fx->s, &args), BASE_ERR_ARG, "q not aligned");
    task.q = 1024;
    args.o = base_mem(buffer, (1 << 18) + 8);
    wrong += expect(fx, checked_attention_fwd(fx->s, &args), BASE_ERR_ARG, "o not aligned");
    args.o = base_mem(buffer, 1 << 18);
    task.kv_head = 4;
    wrong += expect(fx, checked_attention_fwd(fx->s, &args), BASE_ERR_ARG, "kv_head not aligned");
    task.kv_head = 0;
    task.kv_row0 = 64;
    wrong += expect(fx, checked_attention_fwd(fx->s, &args), BASE_ERR_ARG, "kv_row0 off the grid");
    task.kv_row0 = 0;
    task.q_rows = 1 << 20;
    wrong += expect(fx, checked_attention_fwd(fx->s, &args), BASE_ERR_ARG, "beyond the buffer");
    task.q_rows = 4;
    args.head_dim = 100;
    wrong += expect(fx, checked_attention_fwd(fx->s, &args), BASE_ERR_UNSUPPORTED, "head dim 100");
    args.head_dim = 128;
    args.dtype = KERN_F32;
    wrong += expect(fx, checked_attention_fwd(fx->s, &args), BASE_ERR_UNSUPPORTED, "fp32");
    args.dtype = KERN_BF16;
    args.num_tasks = 0;
    wrong += expect(fx, checked_attention_fwd(fx->s, &args), BASE_OK, "no tasks");
    gpu_sync(fx);
    base_buffer_free(buffer);
    return wrong;
}

} // namespace

int attention_parts(gpu_fixture *fx)
{
    const int wrong = sums(fx) + deltas(fx, 2, 3, 64) + deltas(fx, 1, 5, 128) +
                      deltas(fx, 3, 1, 72) + refusals(fx);
    printf("parts: %d of 5 groups of calls failed\n", wrong);
    fflush(stdout);
    return wrong;
}
