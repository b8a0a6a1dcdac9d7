/* The instructions that attention needs and C++ has no words for; all inline assembly of
 * attention/ is here. sm_80 and later: asynchronous 16-byte copies, ldmatrix, the bf16 matrix
 * product of a warp.
 *
 * Shared memory is addressed by 32-bit offsets (shared_address), since ldmatrix and cp.async
 * take those. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_PTX_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_PTX_CUH

#include <cstdint>

namespace kern_ptx
{

__device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

/* Keeps a value in its register: the compiler would rather work some out anew each time, which here
 * takes longer. */
__device__ __forceinline__ void keep(int &x)
{
    asm volatile("" : "+r"(x));
}

/* ==== copies from global to shared memory ==== */

/* 16 bytes, both sides aligned to 16. Not live: 16 zero bytes, and `src` is not read (it may
 * point anywhere). */
__device__ __forceinline__ void copy16(uint32_t dst, const void *src, bool live)
{
    const int bytes = live ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(bytes)
                 : "memory");
}

/* The same for 4 bytes, aligned to 4. */
__device__ __forceinline__ void copy4(uint32_t dst, const void *src, bool live)
{
    const int bytes = live ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(dst), "l"(src), "r"(bytes)
                 : "memory");
}

/* Ends a group of copies of this thread. */
__device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most the last PENDING groups of this thread are under way. Others see the data
 * after a barrier. */
template <int PENDING> __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* ==== matrix fragments ==== */

/* Four 8 x 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
 * Thread l receives of each matrix the elements (l / 4, 2 (l % 4)) and the one to its right;
 * transposed: the other way round. */
__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

/* The inverse of load_matrices. sm_90. */
__device__ __forceinline__ void store_matrices(uint32_t address, const uint32_t (&r)[4])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                 "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

/* c (16 x 8, fp32) += a (16 x 16, bf16) b (16 x 8, bf16). Thread l holds, with i = l / 4 and j =
 * 2 (l % 4):
 *   c[0..1] row i, columns j, j + 1      c[2..3] the same of row i + 8
 *   a[0] row i, a[1] row i + 8, columns j, j + 1; a[2], a[3] the same 8 columns on
 *   b0 rows j, j + 1 of column i; b1 rows j + 8, j + 9 */
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* ==== global memory that blocks share ==== */

/* What was stored before the release of a value is seen by who acquires it. */
__device__ __forceinline__ int32_t load_acquire(const int32_t *p)
{
    int32_t x;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(x) : "l"(p) : "memory");
    return x;
}

__device__ __forceinline__ void store_release(int32_t *p, int32_t x)
{
    asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(p), "r"(x) : "memory");
}

/* ==== arithmetic ==== */

/* 2^x; 0 for -inf. Error 2 ulp, far below bf16's. */
__device__ __forceinline__ float exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Two floats as bf16, rounded to nearest even, `low` in the low half. */
__device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

} // namespace kern_ptx

#endif
