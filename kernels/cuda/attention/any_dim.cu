/* Attention with a head dim that is known at run time only (any_dim.cuh).
 *
 * Forward and dq: a warp owns a packed row and walks the keys it sees, 32 at a time on the document's grid, a key each lane; dk and dv:
 * a warp owns a key and walks the packed rows that see it. A lane computes its score by itself, from a row of shared memory that all
 * lanes read and a row of global memory of its own; then all lanes together add one key's (row's) share after the other to their
 * elements of the sum. So a row's o, lse and dq depend on nothing but its q and the keys it sees, and every sum has one order. */
#include "kernels/cuda/attention/any_dim.cuh"

#include "kernels/cuda/attention/mask.cuh"
#include "kernels/cuda/attention/softmax.cuh"

namespace kern_attention
{
namespace
{

constexpr int WARPS = 8, LANES = 32, THREADS = WARPS * LANES;
constexpr int MAX_DIM = KERN_ATTENTION_MAX_HEAD_DIM;
constexpr int PAIRS = MAX_DIM / 2 / LANES; /* of neighbouring elements a lane has at most */

/* A warp's sum over rows: lane l has elements 2 (l + 32 i) and the next. */
struct row_sum {
    float2 v[PAIRS];

    __device__ __forceinline__ void clear()
    {
#pragma unroll
        for (int i = 0; i < PAIRS; i++)
            v[i] = make_float2(0.0f, 0.0f);
    }
    __device__ __forceinline__ void scale(float factor)
    {
#pragma unroll
        for (int i = 0; i < PAIRS; i++)
            v[i] = make_float2(__fmul_rn(v[i].x, factor), __fmul_rn(v[i].y, factor));
    }
    __device__ __forceinline__ void add(const __nv_bfloat16 *row, int dim, float factor)
    {
        const int lane = threadIdx.x % LANES;
#pragma unroll
        for (int i = 0; i < PAIRS; i++) {
            if (lane + LANES * i >= dim / 2) continue;
            const float2 x =
                __bfloat1622float2(reinterpret_cast<const __nv_bfloat162 *>(row)[lane + LANES * i]);
            v[i] = make_float2(__fmaf_rn(x.x, factor, v[i].x), __fmaf_rn(x.y, factor, v[i].y));
        }
    }
    __device__ __forceinline__ void store(__nv_bfloat16 *to, int dim) const
    {
        const int lane = threadIdx.x % LANES;
#pragma unroll
        for (int i = 0; i < PAIRS; i++)
            if (lane + LANES * i < dim / 2)
                reinterpret_cast<__nv_bfloat162 *>(to)[lane + LANES * i] =
                    __floats2bfloat162_rn(v[i].x, v[i].y);
    }
    __device__ __forceinline__ void store(float *to, int dim) const
    {
        const int lane = threadIdx.x % LANES;
#pragma unroll
        for (int i = 0; i < PAIRS; i++)
            if (lane + LANES * i < dim / 2) reinterpret_cast<float2 *>(to)[lane + LANES * i] = v[i];
    }
};

/* A warp's row, in shared memory. */
__device__ __forceinline__ void load_row(float *to, const __nv_bfloat16 *row, int dim)
{
    for (int i = threadIdx.x % LANES; i < dim; i += LANES)
        to[i] = __bfloat162float(row[i]);
}

/* This lane's product: a row of shared memory with a row of 16-byte pieces. */
__device__ __forceinline__ float dot(const float *a, const __nv_bfloat16 *row, int dim)
{
    float sum = 0.0f;
    for (int i = 0; i < dim; i += 8) {
        const uint4 x = *reinterpret_cast<const uint4 *>(row + i);
        const uint32_t pairs[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (int j = 0; j < 4; j++) {
            sum = __fmaf_rn(a[i + 2 * j], __uint_as_float(pairs[j] << 16), sum);
            sum = __fmaf_rn(a[i + 2 * j + 1], __uint_as_float(pairs[j] & 0xffff0000u), sum);
        }
    }
    return sum;
}

__device__ __forceinline__ float warp_max(float x)
{
#pragma unroll
    for (int lanes = LANES / 2; lanes > 0; lanes /= 2)
        x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
    return x;
}

__device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int lanes = LANES / 2; lanes > 0; lanes /= 2)
        x = __fadd_rn(x, __shfl_xor_sync(~0u, x, lanes));
    return x;
}

/* A warp's packed row of one head. */
struct packed_row {
    int packed, token, in_group; /* of the task; head of the group */
    int position;                /* of the document */
    bool exists;
};

__device__ __forceinline__ packed_row row_of(const kern_attention_task_t &t, const divider &group,
                                             int tile)
{
    packed_row r;
    r.packed = tile * WARPS + static_cast<int>(threadIdx.x) / LANES;
    r.token = group.quotient(r.packed);
    r.in_group = r.packed - r.token * group.divisor;
    r.position = static_cast<int>(t.q_row0) + r.token;
    r.exists = r.token < static_cast<int>(t.q_rows);
    return r;
}

/* Of 32 keys from `key` on those that a row sees: [begin, end). */
struct key_span {
    int begin, end;
};

__device__ __forceinline__ key_span keys_seen(int position, int key, int window)
{
    return {max(0, position - window + 1 - key), min(LANES, position - key + 1)};
}

/* The block's tile of packed rows. */
__device__ __forceinline__ void find_rows(place *at, const task_list &list, int dim)
{
    find_place(at, list, list.first_item, static_cast<int>(blockIdx.x),
               [=](const kern_attention_task_t &t) {
                   return (t.q_row0 + t.q_rows - t.kv_row0) * dim * 4;
               });
}

__global__ void __launch_bounds__(THREADS, 2)
    fwd_any_dim(const __grid_constant__ fwd_params p, int dim)
{
    __shared__ float rows[WARPS][MAX_DIM];
    __shared__ place at;
    find_rows(&at, p.list, dim);
    const kern_attention_task_t &t = p.list.tasks[at.task];
    const packed_row r = row_of(t, p.dims.group, at.num_tiles - 1 - at.tile);
    if (!r.exists) return; /* a whole warp; nobody meets any more */
    const int lane = threadIdx.x % LANES;
    float *q = rows[threadIdx.x / LANES];
    load_row(q, p.q + t.q + at.head * t.q_head + static_cast<int64_t>(r.packed) * dim, dim);
    __syncwarp();
    const int64_t kv =
        t.kv + at.head * t.kv_head - t.kv_row0 * dim; /* of the document's first key */

    row_sum o;
    float max = MINUS_INFINITY, sum = 0.0f; /* scores times log2(e) */
    o.clear();
    for (int key = first_tile(r.position, p.dims.window, LANES); key <= r.position; key += LANES) {
        const key_span seen = keys_seen(r.position, key, p.dims.window);
        float s = MINUS_INFINITY;
        if (lane >= seen.begin && lane < seen.end)
            s = __fmul_rn(dot(q, p.k + kv + static_cast<int64_t>(key + lane) * dim, dim),
                          p.dims.scale_log2);
        const float before = max;
        max = fmaxf(max, warp_max(s)); /* finite: the row sees a key of every tile */
        const float shrink = kern_ptx::exp2_approx(__fsub_rn(before, max));
        const float x = kern_ptx::exp2_approx(__fsub_rn(s, max));
        sum = __fadd_rn(__fmul_rn(sum, shrink), warp_sum(x));
        o.scale(shrink);
        for (int j = seen.begin; j < seen.end; j++)
            o.add(p.v + kv + static_cast<int64_t>(key + j) * dim, dim, __shfl_sync(~0u, x, j));
    }
    o.scale(__frcp_rn(sum));
    o.store(p.o + t.o + r.token * t.o_row + at.head * t.o_head + r.in_group * dim, dim);
    if (lane == 0)
        p.lse[t.lse + at.head * t.lse_head + r.packed] =
            __fmul_rn(__fadd_rn(max, log2f(sum)), 1.0f / LOG2_E);
}

__global__ void __launch_bounds__(THREADS, 2)
    dq_any_dim(const __grid_constant__ bwd_params p, int dim)
{
    __shared__ float rows[WARPS][2][MAX_DIM];
    __shared__ place at;
    find_rows(&at, p.list, dim);
    const kern_attention_task_t &t = p.list.tasks[at.task];
    const packed_row r = row_of(t, p.dims.group, at.num_tiles - 1 - at.tile);
    if (!r.exists) return;
    const int lane = threadIdx.x % LANES;
    float *q = rows[threadIdx.x / LANES][0], *d_o = rows[threadIdx.x / LANES][1];
    load_row(q, p.q + t.q + at.head * t.q_head + static_cast<int64_t>(r.packed) * dim, dim);
    load_row(d_o, p.d_o + t.d_o + r.token * t.d_o_row + at.head * t.d_o_head + r.in_group * dim,
             dim);
    __syncwarp();
    const int64_t kv = t.kv + at.head * t.kv_head - t.kv_row0 * dim;
    const float lse = __fmul_rn(p.lse[t.lse + at.head * t.lse_head + r.packed], LOG2_E);
    const float delta = p.delta[t.delta + at.head * t.delta_head + r.packed];

    row_sum dq;
    dq.clear();
    for (int key = first_tile(r.position, p.dims.window, LANES); key <= r.position; key += LANES) {
        const key_span seen = keys_seen(r.position, key, p.dims.window);
        float ds = 0.0f;
        if (lane >= seen.begin && lane < seen.end) {
            const int64_t at_key = kv + static_cast<int64_t>(key + lane) * dim;
            const float x = kern_ptx::exp2_approx(
                __fmaf_rn(dot(q, p.k + at_key, dim), p.dims.scale_log2, -lse));
            ds = __fmul_rn(x, __fsub_rn(dot(d_o, p.v + at_key, dim), delta));
        }
        for (int j = seen.begin; j < seen.end; j++)
            dq.add(p.k + kv + static_cast<int64_t>(key + j) * dim, dim, __shfl_sync(~0u, ds, j));
    }
    dq.scale(p.dims.scale);
    dq.store(p.dq + t.dq + at.head * t.dq_head + static_cast<int64_t>(r.packed) * dim, dim);
}

/* Packed rows of the task that see a key: [begin, end), from its first on. */
__device__ __forceinline__ key_span rows_that_see(const kern_attention_task_t &t, const shape &dims,
                                                  int key)
{
    const int q_row0 = static_cast<int>(t.q_row0), end = q_row0 + static_cast<int>(t.q_rows);
    const int first = max(key, q_row0);
    const int reach = min(dims.window, end - key); /* the window may be the largest int */
    const int last = min(key + reach, end);
    if (first >= last) return {0, 0};
    return {(first - q_row0) * dims.group.divisor, (last - q_row0) * dims.group.divisor};
}

__global__ void __launch_bounds__(THREADS, 2)
    dkv_any_dim(const __grid_constant__ bwd_params p, int dim)
{
    __shared__ float rows[WARPS][2][MAX_DIM];
    __shared__ place at;
    const int64_t row_bytes = int64_t{p.dims.group.divisor} * dim * 4; /* of a token's q and d_o */
    find_place(&at, p.list, p.first_key_item, static_cast<int>(blockIdx.x),
               [=](const kern_attention_task_t &t) { return t.q_rows * row_bytes; });
    const kern_attention_task_t &t = p.list.tasks[at.task];
    const int row = at.tile * WARPS + static_cast<int>(threadIdx.x) / LANES; /* of k, v, dk, dv */
    if (row >= static_cast<int>(t.q_row0 + t.q_rows - t.kv_row0)) return;
    const int lane = threadIdx.x % LANES;
    float *k = rows[threadIdx.x / LANES][0], *v = rows[threadIdx.x / LANES][1];
    const int64_t kv = t.kv + at.head * t.kv_head + static_cast<int64_t>(row) * dim;
    load_row(k, p.k + kv, dim);
    load_row(v, p.v + kv, dim);
    __syncwarp();
    const __nv_bfloat16 *q = p.q + t.q + at.head * t.q_head;
    const __nv_bfloat16 *d_o = p.d_o + t.d_o + at.head * t.d_o_head;
    const float *lse = p.lse + t.lse + at.head * t.lse_head;
    const float *delta = p.delta + t.delta + at.head * t.delta_head;
    const auto d_o_of = [&](int packed) {
        const int token = p.dims.group.quotient(packed);
        return d_o + token * t.d_o_row + (packed - token * p.dims.group.divisor) * dim;
    };
    const key_span see = rows_that_see(t, p.dims, static_cast<int>(t.kv_row0) + row);

    row_sum dk, dv;
    dk.clear();
    dv.clear();
    for (int first = see.begin; first < see.end; first += LANES) {
        const int packed = first + lane;
        float x = 0.0f, ds = 0.0f;
        if (packed < see.end) {
            x = kern_ptx::exp2_approx(__fmaf_rn(dot(k, q + static_cast<int64_t>(packed) * dim, dim),
                                                p.dims.scale_log2,
                                                -__fmul_rn(lse[packed], LOG2_E)));
            ds = __fmul_rn(x, __fsub_rn(dot(v, d_o_of(packed), dim), delta[packed]));
        }
        const int count = min(LANES, see.end - first);
        for (int j = 0; j < count; j++) {
            dk.add(q + static_cast<int64_t>(first + j) * dim, dim, __shfl_sync(~0u, ds, j));
            dv.add(d_o_of(first + j), dim, __shfl_sync(~0u, x, j));
        }
    }
    dk.scale(p.dims.scale);
    const int64_t to = t.dkv + at.head * t.dkv_head + static_cast<int64_t>(row) * dim;
    if (t.real) {
        dk.store(p.dk_real + to, dim);
        dv.store(p.dv_real + to, dim);
    } else {
        dk.store(p.dk + to, dim);
        dv.store(p.dv + to, dim);
    }
}

int32_t count_row_items(task_list &list, int32_t group)
{
    return count_items(list, list.first_item, [group](const kern_attention_task_t &t) {
        return (t.q_rows * group + WARPS - 1) / WARPS;
    });
}

} // namespace

cudaError_t launch_fwd_any_dim(fwd_params &p, int32_t head_dim, cudaStream_t stream)
{
    const int32_t items = count_row_items(p.list, p.dims.group.divisor);
    fwd_any_dim<<<static_cast<unsigned>(items), THREADS, 0, stream>>>(p, head_dim);
    return cudaGetLastError();
}

cudaError_t launch_bwd_any_dim(bwd_params &p, int32_t head_dim, cudaStream_t stream)
{
    const int32_t row_items = count_row_items(p.list, p.dims.group.divisor);
    const int32_t key_items =
        count_items(p.list, p.first_key_item, [](const kern_attention_task_t &t) {
            return (t.q_row0 + t.q_rows - t.kv_row0 + WARPS - 1) / WARPS;
        });
    dkv_any_dim<<<static_cast<unsigned>(key_items), THREADS, 0, stream>>>(p, head_dim);
    const cudaError_t e = cudaGetLastError();
    if (e != cudaSuccess) return e;
    dq_any_dim<<<static_cast<unsigned>(row_items), THREADS, 0, stream>>>(p, head_dim);
    return cudaGetLastError();
}

} // namespace kern_attention
