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

/* Eight columns of a row, of which the mask keeps some; column is a multiple of 8. */
__device__ __forceinline__ base_philox_t mask_words(const mask_key &mask, row_name name,
                                                    int64_t column)
{
    return kern_dropout_words(mask.key, name.document, name.position,
                              static_cast<uint32_t>(column / 8));
}

/* Two elements, of which those whose half of `word` is below the threshold become 0, whatever they
 * were. Halves are compared in the upper half of a word: one shift, no field is taken out. */
__device__ __forceinline__ uint32_t keep_pair(uint32_t pair, uint32_t word, uint32_t threshold)
{
    const uint32_t limit = threshold << 16;
    const uint32_t low = word << 16 >= limit ? 0x0000ffffu : 0u;
    const uint32_t high = word >= limit ? 0xffff0000u : 0u;
    return pair & (low | high);
}
__device__ __forceinline__ uint4 keep(uint4 x, const mask_key &mask, row_name name, int64_t column)
{
    const base_philox_t r = mask_words(mask, name, column);
    return make_uint4(
        keep_pair(x.x, r.word[0], mask.threshold), keep_pair(x.y, r.word[1], mask.threshold),
        keep_pair(x.z, r.word[2], mask.threshold), keep_pair(x.w, r.word[3], mask.threshold));
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
