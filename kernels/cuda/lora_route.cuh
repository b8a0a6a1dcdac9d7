/* What the LoRA ops share. Work goes in pieces: the rows of one segment for blocks of its adapter,
 * so that rows of two adapters never meet in a product. Lists travel as kernel parameters; longer
 * ones become several launches. */
#ifndef CADRE_KERNELS_CUDA_LORA_ROUTE_CUH
#define CADRE_KERNELS_CUDA_LORA_ROUTE_CUH

#include "kernels/cuda/attention/ptx.cuh"
#include "kernels/cuda/real_vector.cuh"
#include "kernels/dropout.h"

namespace kern_lora
{

using namespace kern_real;

/* The mask of one block: which elements of x are left out. threshold 0: none. */
struct mask_key {
    base_philox_key_t key;
    uint32_t threshold;
    float factor; /* 1 / (1 - p) */
};

inline mask_key mask_of(const kern_lora_route_t &route, const kern_lora_block_t &block)
{
    const kern_lora_adapter_t &adapter = route.adapters[block.adapter];
    return {kern_dropout_key(adapter.seed, adapter.step, static_cast<uint32_t>(route.layer),
                             static_cast<uint32_t>(block.module)),
            kern_dropout_threshold(adapter.dropout),
            static_cast<float>(kern_dropout_factor(adapter.dropout))};
}

inline double scale_of(const kern_lora_route_t &route, const kern_lora_block_t &block)
{
    return route.adapters[block.adapter].scale;
}

/* Where rows find their document and position. */
struct row_names {
    const int32_t *documents, *positions;
    int64_t documents_pitch;
};

inline row_names names_of(const kern_lora_route_t &route)
{
    row_names names = {nullptr, nullptr, 0};
    if (!kern_mat_absent(&route.documents)) {
        names.documents = kern_cuda_pointer<const int32_t>(route.documents.mem);
        names.documents_pitch = route.documents.pitch;
    }
    if (!kern_mat_absent(&route.positions))
        names.positions = kern_cuda_pointer<const int32_t>(route.positions.mem);
    return names;
}

struct row_name {
    int64_t document;
    int32_t position;
};

__device__ __forceinline__ row_name name_of(const row_names &names, int64_t row)
{
    const int32_t *pair = names.documents + row * names.documents_pitch;
    const uint64_t document = static_cast<uint64_t>(static_cast<uint32_t>(pair[1])) << 32 |
                              static_cast<uint32_t>(pair[0]);
    return {static_cast<int64_t>(document), names.positions[row]};
}

/* What a mask keeps of 16 columns of a row: bit 7 of byte n of kept[0], kept[1] for columns
 * [column, column + 8), of kept[2], kept[3] for [column + 32, column + 40); other bits mean nothing.
 * column mod 64 is 0, 8, 16 or 24. */
struct kept_columns {
    uint32_t kept[4];
};

/* Bit 7 of each byte: is that byte of x at least that of `limit`? Differences of the lower seven
 * bits do not borrow from each other, since bit 7 is set in what is subtracted from. */
__device__ __forceinline__ uint32_t at_least(uint32_t x, uint32_t limit)
{
    const uint32_t lower = (x | 0x80808080u) - (limit & 0x7f7f7f7fu);
    return (x & ~limit) | (~(x ^ limit) & lower);
}

__device__ __forceinline__ kept_columns columns_kept(const mask_key &mask, row_name name,
                                                     int64_t column)
{
    const base_philox_t r =
        kern_dropout_words(mask.key, name.document, name.position, kern_dropout_block(column));
    const uint32_t limit = kern_dropout_limit(r, mask.threshold) * 0x01010101u;
    return {{at_least(r.word[0], limit), at_least(r.word[1], limit), at_least(r.word[2], limit),
             at_least(r.word[3], limit)}};
}

/* Two elements, of which those whose byte of `kept` has bit 7 clear become 0, whatever they were. PAIR: which
 * two of four. prmt repeats the upper bit of a byte where the selector has bit 3 set. */
template <int PAIR> __device__ __forceinline__ uint32_t keep_pair(uint32_t pair, uint32_t kept)
{
    uint32_t both;
    asm("prmt.b32 %0, %1, 0, %2;" : "=r"(both) : "r"(kept), "n"(PAIR == 0 ? 0x9988 : 0xbbaa));
    return pair & both;
}

/* half 0: columns [column, column + 8), 1: the 8 that lie 32 further on. */
__device__ __forceinline__ uint4 keep(uint4 x, const kept_columns &k, int half)
{
    const uint32_t left = k.kept[2 * half], right = k.kept[2 * half + 1];
    return make_uint4(keep_pair<0>(x.x, left), keep_pair<1>(x.y, left), keep_pair<0>(x.z, right),
                      keep_pair<1>(x.w, right));
}

__device__ __forceinline__ uint32_t bits_of(const bf16 *p)
{
    return *reinterpret_cast<const uint16_t *>(p);
}

/* Elements [j, j + 8) of a row of `cols`; what lies beyond the end is 0. `aligned`: chunks of rows
 * begin at multiples of 16 bytes. */
__device__ __forceinline__ uint4 load_chunk(const bf16 *row, int64_t j, int64_t cols, bool aligned)
{
    if (aligned && j + CHUNK <= cols) return *reinterpret_cast<const uint4 *>(row + j);
    uint32_t pair[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int64_t k = j + 2 * i;
        pair[i] =
            (k < cols ? bits_of(row + k) : 0u) | (k + 1 < cols ? bits_of(row + k + 1) << 16 : 0u);
    }
    return make_uint4(pair[0], pair[1], pair[2], pair[3]);
}

inline bool rows_aligned(const kern_mat_t &mat, int64_t column = 0)
{
    return (reinterpret_cast<uintptr_t>(base_mem_address(mat.mem)) +
            2 * static_cast<uintptr_t>(column)) %
                   16 ==
               0 &&
           mat.pitch % CHUNK == 0;
}

/* s or ds before its blocks are written: zeros. */
inline base_status_t clear_columns(base_stream_t *s, const char *op, const kern_mat_t &out)
{
    if (out.rows == 0 || out.cols == 0) return BASE_OK;
    return kern_cuda_check(s, op,
                           cudaMemset2DAsync(base_mem_address(out.mem),
                                             static_cast<size_t>(out.pitch) * 2, 0,
                                             static_cast<size_t>(out.cols) * 2,
                                             static_cast<size_t>(out.rows), native(s)));
}

/* lora_ds of the route's blocks, whose rows of ds are written and nothing else of it. */
base_status_t ds_sums(base_stream_t *s, const kern_lora_ds_t *args);

} // namespace kern_lora

#endif
