/* The copy engine of sm_90: boxes of 128 (mostly) rows of bf16 matrices into shared memory, in panels
 * of 64 columns with the 128-byte swizzle (wgmma.cuh says how products read them).
 *
 * A map describes one task's rows of one operand, of all its heads: what lies beyond the last row
 * is not read, and zeros appear on chip. Foreign memory never gets there, be it NaN or not. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_TMA_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_TMA_CUH

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace kern_attention
{

constexpr int BOX_ROWS = 128, PANEL_COLUMNS = 64;
constexpr int PANEL_BYTES = BOX_ROWS * PANEL_COLUMNS * 2;

/* (rows, columns) matrices, columns a multiple of 64, one for each head, of one operand or of two
 * (`pair`) that lie alike. Strides are bytes. */
struct box_source {
    const void *base;
    int64_t rows, columns, heads, head_stride;
    int64_t pair_stride; /* 0: one operand */
};

using encode_map_t = decltype(&cuTensorMapEncodeTiled);

/* The driver's function; it comes through the runtime, so that no program links libcuda. */
inline encode_map_t find_encode_map()
{
    void *function = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    const cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                           12000, cudaEnableDefault, &found);
    if (e != cudaSuccess) (void)cudaGetLastError();
    return e == cudaSuccess && found == cudaDriverEntryPointSuccess
               ? reinterpret_cast<encode_map_t>(function)
               : nullptr;
}

/* At most 256 rows. */
struct box_size {
    int64_t rows, panels;
};

/* False: not a matrix that a map can describe. */
inline bool make_map(encode_map_t encode, CUtensorMap *map, const box_source &from,
                     const box_size &size)
{
    constexpr int64_t STRIDE_LIMIT = int64_t{1} << 40;
    constexpr cuuint64_t UNUSED = 16; /* a stride of a dimension of size 1 */
    if (from.rows > UINT32_MAX || from.head_stride < 0 || from.head_stride >= STRIDE_LIMIT ||
        from.pair_stride >= STRIDE_LIMIT)
        return false;
    const cuuint32_t rank = 5, panels = static_cast<cuuint32_t>(from.columns / PANEL_COLUMNS);
    const cuuint64_t dims[] = {PANEL_COLUMNS, static_cast<cuuint64_t>(from.rows), panels,
                               static_cast<cuuint64_t>(from.heads),
                               from.pair_stride > 0 ? cuuint64_t{2} : cuuint64_t{1}};
    const cuuint64_t strides[] = {
        static_cast<cuuint64_t>(2 * from.columns), 2 * PANEL_COLUMNS,
        from.heads > 1 ? static_cast<cuuint64_t>(from.head_stride) : UNUSED,
        from.pair_stride > 0 ? static_cast<cuuint64_t>(from.pair_stride) : UNUSED};
    const cuuint32_t box[] = {PANEL_COLUMNS, static_cast<cuuint32_t>(size.rows),
                              static_cast<cuuint32_t>(size.panels), 1, 1};
    const cuuint32_t steps[] = {1, 1, 1, 1, 1};
    return encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, rank, const_cast<void *>(from.base), dims,
                  strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/* Tokens of R rows of bf16 (packed rows): columns a multiple of 64, a matrix for each head. Strides
 * are bytes. A box is box_tokens tokens of one panel, their rows behind each other. */
struct token_source {
    const void *base;
    int64_t tokens, rows_per_token, columns, heads, token_stride, head_stride;
    int32_t box_tokens;
};

/* False: not what a map can describe. */
inline bool make_token_map(encode_map_t encode, CUtensorMap *map, const token_source &from)
{
    constexpr int64_t STRIDE_LIMIT = int64_t{1} << 40;
    constexpr cuuint64_t UNUSED = 16; /* a stride of a dimension of size 1 */
    const auto legal = [](int64_t n, int64_t stride) {
        return n == 1 || (stride > 0 && stride < STRIDE_LIMIT);
    };
    if (from.tokens > UINT32_MAX || !legal(from.tokens, from.token_stride) ||
        !legal(from.heads, from.head_stride))
        return false;
    const cuuint32_t rank = 5;
    const cuuint64_t dims[] = {PANEL_COLUMNS, static_cast<cuuint64_t>(from.rows_per_token),
                               static_cast<cuuint64_t>(from.tokens),
                               static_cast<cuuint64_t>(from.columns / PANEL_COLUMNS),
                               static_cast<cuuint64_t>(from.heads)};
    const cuuint64_t strides[] = {
        static_cast<cuuint64_t>(2 * from.columns),
        from.tokens > 1 ? static_cast<cuuint64_t>(from.token_stride) : UNUSED, 2 * PANEL_COLUMNS,
        from.heads > 1 ? static_cast<cuuint64_t>(from.head_stride) : UNUSED};
    const cuuint32_t box[] = {PANEL_COLUMNS, static_cast<cuuint32_t>(from.rows_per_token),
                              static_cast<cuuint32_t>(from.box_tokens), 1, 1};
    const cuuint32_t steps[] = {1, 1, 1, 1, 1};
    return encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, rank, const_cast<void *>(from.base), dims,
                  strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                  CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

/* Five coordinates, the innermost 0. */
__device__ __forceinline__ void load_at(uint32_t to, uint32_t barrier, const CUtensorMap *map,
                                        int c1, int c2, int c3, int c4)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5, %6}], [%7];" ::"r"(to),
                 "l"(map), "r"(0), "r"(c1), "r"(c2), "r"(c3), "r"(c4), "r"(barrier)
                 : "memory");
}

/* Rows [row, row + 128) of that head into a box at a multiple of 1024 bytes; `barrier` counts
 * the whole box, also where rows do not exist. One thread. */
__device__ __forceinline__ void load_box(uint32_t to, uint32_t barrier, const CUtensorMap *map,
                                         int row, int head, int which)
{
    load_at(to, barrier, map, row, 0, head, which);
}

/* The same for rows that nobody else reads soon: L2 gives their lines up before others. */
__device__ __forceinline__ void load_box_once(uint32_t to, uint32_t barrier, const CUtensorMap *map,
                                              int row, int head, int which)
{
    asm volatile("{\n"
                 ".reg .b64 policy;\n"
                 "createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
                 "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%2, %3, %4, %5, %6}], [%7], policy;\n"
                 "}" ::"r"(to),
                 "l"(map), "r"(0), "r"(row), "r"(0), "r"(head), "r"(which), "r"(barrier)
                 : "memory");
}

/* Floats from shared memory to global memory, or added there one by one; both at multiples of 16
 * bytes. One thread, which then waits: until they have been read, or until they are in memory. */
__device__ __forceinline__ void store_floats(float *to, uint32_t from, int bytes)
{
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\n"
                 "cp.async.bulk.commit_group;" ::"l"(to),
                 "r"(from), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void add_floats(float *to, uint32_t from, int bytes)
{
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;\n"
                 "cp.async.bulk.commit_group;" ::"l"(to),
                 "r"(from), "r"(bytes)
                 : "memory");
}

/* The other way; `barrier` counts the bytes, which the thread has announced there. */
__device__ __forceinline__ void load_floats(uint32_t to, uint32_t barrier, const float *from,
                                            int bytes)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], "
                 "%2, [%3];" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier)
                 : "memory");
}

__device__ __forceinline__ void floats_read()
{
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

__device__ __forceinline__ void floats_in_memory()
{
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

/* Between accesses of the copy engine to global memory and those of threads, in either order. */
__device__ __forceinline__ void engine_fence()
{
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

/* Tokens from `token` on of one panel of that head; `barrier` counts the whole box. */
__device__ __forceinline__ void load_tokens(uint32_t to, uint32_t barrier, const CUtensorMap *map,
                                            int token, int panel, int head)
{
    load_at(to, barrier, map, 0, token, panel, head);
}

} // namespace kern_attention

#endif
