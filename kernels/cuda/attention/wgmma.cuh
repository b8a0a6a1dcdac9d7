/* wgmma: matrix products of a warpgroup (sm_90a), 64 x N += 64 x 16 times 16 x N, bf16 with
 * fp32 accumulators. They run asynchronously: between the first product and the wait that covers
 * it nobody may touch the accumulators, a left operand in registers or the tiles.
 *
 * Tiles lie in shared memory as the copy engine writes them with its 128-byte swizzle: panels of
 * 64 columns, in a panel 128 bytes a row; they begin at multiples of 1024 bytes. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_WGMMA_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_WGMMA_CUH

#include <cstdint>

namespace kern_ptx
{

/* What a thread holds of 64 x N accumulators: [n][2 r + e] is row 16 w + l / 4 + 8 r, column
 * 8 n + 2 (l % 4) + e, for warp w of the warpgroup and lane l. */
template <int N> using wgmma_accumulator = float[N / 8][4];

/* Describes an operand in a tile whose panels are PANEL_BYTES apart. Inner dimension along the
 * columns (q, k): the panel distance is not used, a step of 16 is 32 bytes on. Inner dimension
 * along the rows (v): a step of 16 is 2048 bytes on. */
template <int PANEL_BYTES> __device__ __forceinline__ uint64_t wgmma_operand(uint32_t address)
{
    constexpr uint64_t SWIZZLE_128 = uint64_t{1} << 62, EIGHT_ROWS = uint64_t{1024 >> 4} << 32;
    constexpr uint64_t PANELS = uint64_t{PANEL_BYTES >> 4} << 16;
    return SWIZZLE_128 | EIGHT_ROWS | PANELS | (address >> 4 & 0x3fff);
}

/* Before the first product that works on registers which others have written. */
__device__ __forceinline__ void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* Ends a group of products. */
__device__ __forceinline__ void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Holds the wait that follows until x, which is not negative, is known: ptxas may move waits up, away from work that
 * was to be done meanwhile (13.0 does). What would be stored at that shared address never is. x is a sum: of an
 * exponential, or a maximum of some, ptxas knows the sign, and drops all this. tests/checks/sass.py sees what came of it. */
__device__ __forceinline__ void wgmma_hold(float x, uint32_t address)
{
    asm volatile("{\n"
                 ".reg .pred never;\n"
                 "setp.lt.f32 never, %0, 0f00000000;\n"
                 "@never st.shared.f32 [%1], %0;\n"
                 "}" ::"f"(x),
                 "r"(address)
                 : "memory");
}

/* Waits until at most the last PENDING groups are under way. */
template <int PENDING> __device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* The compiler does not know that a wait gives registers their values or sets them free: after
 * the wait, these keep it from moving an access before it. */
template <int N> __device__ __forceinline__ void wgmma_settle(float (&acc)[N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++)
        asm volatile(""
                     : "+f"(acc[n][0]), "+f"(acc[n][1]), "+f"(acc[n][2]),
                       "+f"(acc[n][3])::"memory");
}

template <int N> __device__ __forceinline__ void wgmma_settle(uint32_t (&a)[N][4])
{
#pragma unroll
    for (int n = 0; n < N; n++)
        asm volatile("" : "+r"(a[n][0]), "+r"(a[n][1]), "+r"(a[n][2]), "+r"(a[n][3])::"memory");
}

#define KERN_WGMMA_BLOCK(n) "+f"(acc[n][0]), "+f"(acc[n][1]), "+f"(acc[n][2]), "+f"(acc[n][3])
#define KERN_WGMMA_ACCUMULATORS_64                                                                 \
    KERN_WGMMA_BLOCK(0), KERN_WGMMA_BLOCK(1), KERN_WGMMA_BLOCK(2), KERN_WGMMA_BLOCK(3),            \
        KERN_WGMMA_BLOCK(4), KERN_WGMMA_BLOCK(5), KERN_WGMMA_BLOCK(6), KERN_WGMMA_BLOCK(7)
#define KERN_WGMMA_ACCUMULATORS_128                                                                \
    KERN_WGMMA_ACCUMULATORS_64, KERN_WGMMA_BLOCK(8), KERN_WGMMA_BLOCK(9), KERN_WGMMA_BLOCK(10),    \
        KERN_WGMMA_BLOCK(11), KERN_WGMMA_BLOCK(12), KERN_WGMMA_BLOCK(13), KERN_WGMMA_BLOCK(14),    \
        KERN_WGMMA_BLOCK(15)

/* acc (64 x 128) = or += a b^T: a 64 rows, b 128 rows of tiles, 16 columns of each. */
template <bool ADD>
__device__ __forceinline__ void wgmma_rows(wgmma_accumulator<128> &acc, uint64_t a, uint64_t b)
{
    asm volatile("{\n"
                 ".reg .pred add;\n"
                 "setp.ne.b32 add, %66, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "
                 "%8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, "
                 "%24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, "
                 "%40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, "
                 "%56, %57, %58, %59, %60, %61, %62, %63}, "
                 "%64, %65, add, 1, 1, 0, 0;\n"
                 "}"
                 : KERN_WGMMA_ACCUMULATORS_128
                 : "l"(a), "l"(b), "n"(ADD));
}

/* The same for 64 rows of b: acc is 64 x 64. */
template <bool ADD>
__device__ __forceinline__ void wgmma_rows(wgmma_accumulator<64> &acc, uint64_t a, uint64_t b)
{
    asm volatile("{\n"
                 ".reg .pred add;\n"
                 "setp.ne.b32 add, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "
                 "%8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, "
                 "%24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, add, 1, 1, 0, 0;\n"
                 "}"
                 : KERN_WGMMA_ACCUMULATORS_64
                 : "l"(a), "l"(b), "n"(ADD));
}

/* acc (64 x 128) = or += a b^T: a 64 x 16 in registers as in wgmma_columns, b 128 rows of a tile, 16 columns. */
template <bool ADD>
__device__ __forceinline__ void wgmma_rows(wgmma_accumulator<128> &acc, const uint32_t (&a)[4],
                                           uint64_t b)
{
    asm volatile("{\n"
                 ".reg .pred add;\n"
                 "setp.ne.b32 add, %69, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "
                 "%8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, "
                 "%24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, "
                 "%40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, "
                 "%56, %57, %58, %59, %60, %61, %62, %63}, "
                 "{%64, %65, %66, %67}, %68, add, 1, 1, 0;\n"
                 "}"
                 : KERN_WGMMA_ACCUMULATORS_128
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(ADD));
}

/* The same for 64 rows of b. */
template <bool ADD>
__device__ __forceinline__ void wgmma_rows(wgmma_accumulator<64> &acc, const uint32_t (&a)[4],
                                           uint64_t b)
{
    asm volatile("{\n"
                 ".reg .pred add;\n"
                 "setp.ne.b32 add, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "
                 "%8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, "
                 "%24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, add, 1, 1, 0;\n"
                 "}"
                 : KERN_WGMMA_ACCUMULATORS_64
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(ADD));
}

/* acc (64 x 64) = or += a^T b: 16 rows of two tiles, 64 columns of each. */
template <bool ADD>
__device__ __forceinline__ void wgmma_transposed(wgmma_accumulator<64> &acc, uint64_t a, uint64_t b)
{
    asm volatile("{\n"
                 ".reg .pred add;\n"
                 "setp.ne.b32 add, %34, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "
                 "%8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, "
                 "%24, %25, %26, %27, %28, %29, %30, %31}, "
                 "%32, %33, add, 1, 1, 1, 1;\n"
                 "}"
                 : KERN_WGMMA_ACCUMULATORS_64
                 : "l"(a), "l"(b), "n"(ADD));
}

/* acc (64 x 128) += a b: a 64 x 16 in registers, as the accumulators of two neighbouring blocks of
 * 8 columns; b 16 rows of a tile of 128 columns. */
__device__ __forceinline__ void wgmma_columns(wgmma_accumulator<128> &acc, const uint32_t (&a)[4],
                                              uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "
                 "%8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, "
                 "%24, %25, %26, %27, %28, %29, %30, %31, "
                 "%32, %33, %34, %35, %36, %37, %38, %39, "
                 "%40, %41, %42, %43, %44, %45, %46, %47, "
                 "%48, %49, %50, %51, %52, %53, %54, %55, "
                 "%56, %57, %58, %59, %60, %61, %62, %63}, "
                 "{%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                 : KERN_WGMMA_ACCUMULATORS_128
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

/* The same for 64 columns. */
__device__ __forceinline__ void wgmma_columns(wgmma_accumulator<64> &acc, const uint32_t (&a)[4],
                                              uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "
                 "%8, %9, %10, %11, %12, %13, %14, %15, "
                 "%16, %17, %18, %19, %20, %21, %22, %23, "
                 "%24, %25, %26, %27, %28, %29, %30, %31}, "
                 "{%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : KERN_WGMMA_ACCUMULATORS_64
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef KERN_WGMMA_ACCUMULATORS_128
#undef KERN_WGMMA_ACCUMULATORS_64
#undef KERN_WGMMA_BLOCK

} // namespace kern_ptx

#endif
