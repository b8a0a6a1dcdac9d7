/* What the sm_90a kernels do with accumulators between products: products of whole tiles, masks,
 * accumulators as the left operand of the next product, and rows on their way to memory. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_SM90_FRAGMENTS_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_SM90_FRAGMENTS_CUH

#include "kernels/cuda/attention/ptx.cuh"
#include "kernels/cuda/attention/softmax.cuh"
#include "kernels/cuda/attention/tma.cuh"
#include "kernels/cuda/attention/wgmma.cuh"

namespace kern_attention
{

using kern_ptx::wgmma_accumulator;

/* An accumulator of 64 x N, rounded, as the left operand of the next product. */
template <int N> using wgmma_left = uint32_t[N / 16][4];

template <int N> __device__ __forceinline__ void clear(wgmma_accumulator<N> &acc)
{
#pragma unroll
    for (int n = 0; n < N / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            acc[n][e] = 0.0f;
}

/* acc (64 x N) = a b^T, or acc += a b^T, over D columns: 64 rows of a tile whose panels are A_PANEL bytes apart, and
 * N rows of another. Issues the products; the caller ends the group. */
template <int D, int N, int A_PANEL, int B_PANEL, bool ADD = false>
__device__ __forceinline__ void multiply_rows(wgmma_accumulator<N> &acc, uint32_t rows_of_a,
                                              uint32_t rows_of_b)
{
    const uint64_t a = kern_ptx::wgmma_operand<A_PANEL>(rows_of_a);
    const uint64_t b = kern_ptx::wgmma_operand<B_PANEL>(rows_of_b);
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        const int in_a = (k / 4 * A_PANEL + k % 4 * 32) >> 4;
        const int in_b = (k / 4 * B_PANEL + k % 4 * 32) >> 4;
        if (k == 0)
            kern_ptx::wgmma_rows<ADD>(acc, a, b);
        else
            kern_ptx::wgmma_rows<true>(acc, a + in_a, b + in_b);
    }
}

/* acc (64 x N) = a b^T: a 64 x D in registers, N rows of a tile. */
template <int D, int N, int B_PANEL>
__device__ __forceinline__ void multiply_left(wgmma_accumulator<N> &acc, const wgmma_left<D> &a,
                                              uint32_t rows_of_b)
{
    const uint64_t b = kern_ptx::wgmma_operand<B_PANEL>(rows_of_b);
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        const int in_b = (k / 4 * B_PANEL + k % 4 * 32) >> 4;
        if (k == 0)
            kern_ptx::wgmma_rows<false>(acc, a[k], b);
        else
            kern_ptx::wgmma_rows<true>(acc, a[k], b + in_b);
    }
}

/* acc (64 x D) += a b: a 64 x INNER in registers, b the first INNER rows of a tile of D columns. */
template <int INNER, int D, int B_PANEL>
__device__ __forceinline__ void multiply_columns(wgmma_accumulator<D> &acc,
                                                 const wgmma_left<INNER> &a, uint32_t rows_of_b)
{
    const uint64_t b = kern_ptx::wgmma_operand<B_PANEL>(rows_of_b);
#pragma unroll
    for (int k = 0; k < INNER / 16; k++)
        kern_ptx::wgmma_columns(acc, a[k], b + (k * 16 * PANEL_COLUMNS * 2 >> 4));
}

/* acc (64 x 64) = a^T b: the first INNER rows of two panels. */
template <int INNER>
__device__ __forceinline__ void multiply_transposed(wgmma_accumulator<64> &acc, uint32_t panel_of_a,
                                                    uint32_t panel_of_b)
{
    const uint64_t a = kern_ptx::wgmma_operand<PANEL_BYTES>(panel_of_a);
    const uint64_t b = kern_ptx::wgmma_operand<PANEL_BYTES>(panel_of_b);
#pragma unroll
    for (int k = 0; k < INNER / 16; k++) {
        const int at = k * 16 * PANEL_COLUMNS * 2 >> 4;
        if (k == 0)
            kern_ptx::wgmma_transposed<false>(acc, a, b);
        else
            kern_ptx::wgmma_transposed<true>(acc, a + at, b + at);
    }
}

/* Scores of N keys that a row does not see become -inf. */
template <int N>
__device__ __forceinline__ void mask(wgmma_accumulator<N> &s, const int (&rows)[2], int first_key,
                                     int window)
{
    const int key = first_key + 2 * (threadIdx.x % 4);
#pragma unroll
    for (int r = 0; r < 2; r++) {
        /* Columns above `above` up to `last` are seen; no key is below 0. */
        const int last = rows[r] - key, above = max(rows[r] - window, -1) - key;
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (8 * n + e > last || 8 * n + e <= above) s[n][2 * r + e] = MINUS_INFINITY;
    }
}

template <int N>
__device__ __forceinline__ void to_operand(wgmma_left<N> &left, const wgmma_accumulator<N> &s)
{
#pragma unroll
    for (int k = 0; k < N / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            left[k][i] =
                kern_ptx::pack_bf16(s[2 * k + i / 2][i % 2 * 2], s[2 * k + i / 2][i % 2 * 2 + 1]);
}

/* Four lanes hold four words each of one row: lane i gets the i-th word of each lane in place of
 * its own four, which are then 16 bytes in a row. */
__device__ __forceinline__ void transpose_quad(uint32_t (&x)[4])
{
    const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const uint32_t got = __shfl_xor_sync(~0u, odd ? x[i] : x[i + 1], 1);
        (odd ? x[i] : x[i + 1]) = got;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t got = __shfl_xor_sync(~0u, upper ? x[i] : x[i + 2], 2);
        (upper ? x[i] : x[i + 2]) = got;
    }
}

/* Row r (0: lane / 4, 1: 8 further) of the accumulator times `factor`, rounded, to a row of D
 * contiguous elements. All lanes take part; only the live store. */
template <int D>
__device__ __forceinline__ void store_row(__nv_bfloat16 *to, const wgmma_accumulator<D> &acc, int r,
                                          float factor, bool live)
{
#pragma unroll
    for (int n = 0; n < D / 8; n += 4) {
        uint32_t x[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[i] = kern_ptx::pack_bf16(__fmul_rn(acc[n + i][2 * r], factor),
                                       __fmul_rn(acc[n + i][2 * r + 1], factor));
        transpose_quad(x);
        if (live) /* nobody reads it soon */
            __stcs(reinterpret_cast<uint4 *>(to + 8 * n + 8 * (threadIdx.x % 4)),
                   make_uint4(x[0], x[1], x[2], x[3]));
    }
}

} // namespace kern_attention

#endif
