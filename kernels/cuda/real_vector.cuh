/* For the ops that are limited by memory: N neighbouring elements in one access, as fp32. N = 8
 * wants addresses of 16 bytes and widths that are multiples of 8, N = 4 (fp32 to bf16) half of
 * that; N = 1 takes anything. The host asks in_chunks which it may launch. */
#ifndef CADRE_KERNELS_CUDA_REAL_VECTOR_CUH
#define CADRE_KERNELS_CUDA_REAL_VECTOR_CUH

#include "kernels/cuda/cuda_launch.h"
#include "kernels/op.h"

#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

namespace kern_real
{

using bf16 = __nv_bfloat16;
constexpr int CHUNK = 8;

template <int N> struct values {
    float v[N];
};

/* bf16 is the upper half of fp32. */
__device__ __forceinline__ float low_half(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}
__device__ __forceinline__ float high_half(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}
__device__ __forceinline__ uint32_t pack(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}

__device__ __forceinline__ values<8> unpack(uint4 raw)
{
    return {{low_half(raw.x), high_half(raw.x), low_half(raw.y), high_half(raw.y), low_half(raw.z),
             high_half(raw.z), low_half(raw.w), high_half(raw.w)}};
}

__device__ __forceinline__ values<8> unpack(float4 a, float4 b)
{
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

__device__ __forceinline__ uint4 load_raw(const bf16 *p)
{
    return *reinterpret_cast<const uint4 *>(p);
}

template <int N> __device__ __forceinline__ values<N> load(const bf16 *p)
{
    if constexpr (N == CHUNK)
        return unpack(load_raw(p));
    else
        return {{__bfloat162float(*p)}};
}

template <int N> __device__ __forceinline__ values<N> load(const float *p)
{
    if constexpr (N == CHUNK) {
        return unpack(reinterpret_cast<const float4 *>(p)[0],
                      reinterpret_cast<const float4 *>(p)[1]);
    } else if constexpr (N == CHUNK / 2) {
        const float4 raw = *reinterpret_cast<const float4 *>(p);
        return {{raw.x, raw.y, raw.z, raw.w}};
    } else {
        static_assert(N == 1);
        return {{*p}};
    }
}

/* 16 and 8 bytes in one instruction. A plain store of a uint4 the compiler often cuts into four, of
 * which each then touches every sector that the warp writes. */
__device__ __forceinline__ void store_raw(void *p, uint4 x)
{
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(__cvta_generic_to_global(p)), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w)
                 : "memory");
}
__device__ __forceinline__ void store_raw(void *p, uint2 x)
{
    asm volatile("st.global.v2.b32 [%0], {%1, %2};"
                 :
                 : "l"(__cvta_generic_to_global(p)), "r"(x.x), "r"(x.y)
                 : "memory");
}
__device__ __forceinline__ void store_raw(void *p, float4 x)
{
    store_raw(p, make_uint4(__float_as_uint(x.x), __float_as_uint(x.y), __float_as_uint(x.z),
                            __float_as_uint(x.w)));
}

template <int N> __device__ __forceinline__ void store(bf16 *p, const values<N> &x)
{
    if constexpr (N == CHUNK)
        store_raw(p, make_uint4(pack(x.v[0], x.v[1]), pack(x.v[2], x.v[3]), pack(x.v[4], x.v[5]),
                                pack(x.v[6], x.v[7])));
    else if constexpr (N == CHUNK / 2)
        store_raw(p, make_uint2(pack(x.v[0], x.v[1]), pack(x.v[2], x.v[3])));
    else
        *p = __float2bfloat16_rn(x.v[0]);
}

template <int N> __device__ __forceinline__ void store(float *p, const values<N> &x)
{
    if constexpr (N == CHUNK) {
        store_raw(p, make_float4(x.v[0], x.v[1], x.v[2], x.v[3]));
        store_raw(p + 4, make_float4(x.v[4], x.v[5], x.v[6], x.v[7]));
    } else {
        *p = x.v[0];
    }
}

/* The sum over the WIDTH lanes that a value's lane belongs to, in every one of them; one order. */
template <int WIDTH> __device__ __forceinline__ float lane_sum(float x)
{
#pragma unroll
    for (int step = 1; step < WIDTH; step *= 2)
        x = __fadd_rn(x, __shfl_xor_sync(~0u, x, step));
    return x;
}

/* The sum over a block of THREADS, in every thread; one order. */
template <int THREADS> __device__ __forceinline__ float block_sum(float x)
{
    __shared__ float part[THREADS / 32];
    x = lane_sum<32>(x);
    __syncthreads(); /* part may still be read for the sum before */
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = x;
    __syncthreads();
    x = part[0];
#pragma unroll
    for (int i = 1; i < THREADS / 32; i++)
        x = __fadd_rn(x, part[i]);
    return x;
}

/* A matrix as a kernel takes it. */
template <class T> struct matrix {
    T *at;
    int64_t pitch;

    __device__ T *row(int64_t t) const
    {
        return at + t * pitch;
    }
};

template <class T> inline matrix<T> matrix_of(const kern_mat_t &mat)
{
    if (mat.mem.buffer == nullptr) return {nullptr, 0};
    return {kern_cuda_pointer<T>(mat.mem), mat.pitch};
}

inline cudaStream_t native(base_stream_t *s)
{
    return static_cast<cudaStream_t>(base_stream_native(s));
}

/* Do chunks of 8 elements of all rows begin at multiples of 16 bytes? Absent: yes. */
inline bool in_chunks(const kern_mat_t &mat)
{
    if (mat.mem.buffer == nullptr) return true;
    return reinterpret_cast<uintptr_t>(base_mem_address(mat.mem)) % 16 == 0 &&
           mat.cols % CHUNK == 0 &&
           (mat.rows <= 1 || mat.pitch * kern_dtype_bytes(mat.dtype) % 16 == 0);
}

template <class... Mats> inline bool in_chunks(const kern_mat_t &mat, const Mats &...mats)
{
    return in_chunks(mat) && in_chunks(mats...);
}

inline unsigned blocks_of(int64_t items, int64_t per_block)
{
    return static_cast<unsigned>((items + per_block - 1) / per_block);
}

/* The row of an element; a 64-bit division costs as much as the rest of an element's work. */
__device__ __forceinline__ int64_t row_of(int64_t element, int64_t cols)
{
    return (element | cols) >> 32 == 0
               ? static_cast<uint32_t>(element) / static_cast<uint32_t>(cols)
               : element / cols;
}

/* ==== work on each element of rows x cols alone ==== */

constexpr int EACH_THREADS = 256;

/* work(row, col) for the first of every N columns. */
template <int N, class Work>
__global__ void __launch_bounds__(EACH_THREADS)
    each_kernel(int64_t items, uint32_t per_row, Work work)
{
    const int64_t item = int64_t{blockIdx.x} * EACH_THREADS + threadIdx.x;
    if (item >= items) return;
    const int64_t row =
        items <= UINT32_MAX ? static_cast<uint32_t>(item) / per_row : item / per_row;
    work(row, (item - row * per_row) * N);
}

template <int N, class Work>
inline base_status_t each(base_stream_t *s, const char *op, int64_t rows, int64_t cols, Work work)
{
    const int64_t items = rows * (cols / N);
    if (items == 0) return BASE_OK;
    each_kernel<N><<<blocks_of(items, EACH_THREADS), EACH_THREADS, 0, native(s)>>>(
        items, static_cast<uint32_t>(cols / N), work);
    return kern_cuda_check(s, op, cudaGetLastError());
}

} // namespace kern_real

#endif
