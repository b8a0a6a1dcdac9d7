/* Shared memory of the sm_90a forward. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_ARENA_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_FWD_SM90_ARENA_CUH

#include "kernels/cuda/attention/fwd_sm90_items.cuh"
#include "kernels/cuda/attention/mbarrier.cuh"

namespace kern_attention
{
namespace fwd_sm90_kernel
{

constexpr int KEYS = SM90_KEYS, STAGES = 2;
constexpr int GROUP_THREADS = 128, GROUP_ROWS = 64;
template <int CONSUMERS> constexpr int ROWS = CONSUMERS *GROUP_ROWS;

/* q, keys and values, each in stages; then barriers, "full" and "empty" of each of these tiles. */
constexpr int TILES = 3 * STAGES, BARRIERS = 2 * TILES;
constexpr int ALIGNMENT = 1024;
template <int D> constexpr int BOX_BYTES = D / PANEL_COLUMNS *PANEL_BYTES;
template <int CONSUMERS> constexpr int Q_PANEL_BYTES = ROWS<CONSUMERS> *PANEL_COLUMNS * 2;
template <int D, int CONSUMERS> constexpr int Q_BYTES = D / PANEL_COLUMNS *Q_PANEL_BYTES<CONSUMERS>;
template <int D, int CONSUMERS>
constexpr int TILES_BYTES = STAGES *Q_BYTES<D, CONSUMERS> + 2 * STAGES *BOX_BYTES<D>;
template <int D, int CONSUMERS>
constexpr int SHARED_BYTES = TILES_BYTES<D, CONSUMERS> + 8 * BARRIERS + ALIGNMENT;
constexpr int Q_TILES = 0, K_TILES = STAGES, V_TILES = 2 * STAGES;

template <int D, int CONSUMERS> struct arena {
    uint32_t base;

    __device__ __forceinline__ uint32_t q_tile(int stage) const
    {
        return base + stage * Q_BYTES<D, CONSUMERS>;
    }
    /* Of keys or values. */
    __device__ __forceinline__ uint32_t tile(int index) const
    {
        return base + STAGES * Q_BYTES<D, CONSUMERS> + (index - STAGES) * BOX_BYTES<D>;
    }
    __device__ __forceinline__ uint32_t full(int index) const
    {
        return base + TILES_BYTES<D, CONSUMERS> + 8 * index;
    }
    __device__ __forceinline__ uint32_t empty(int index) const
    {
        return full(index) + 8 * TILES;
    }
    /* This warp is done with a tile. */
    __device__ __forceinline__ void release(int index) const
    {
        if (threadIdx.x % 32 == 0) kern_ptx::barrier_arrive(empty(index));
    }
};

/* A position in the stages: the n-th tile of q, or of keys, of all that a block works on. */
struct ring {
    int stage = 0;
    uint32_t parity = 0;

    __device__ __forceinline__ void next()
    {
        stage ^= 1;
        parity ^= stage == 0;
    }
};
static_assert(STAGES == 2, "ring");

} // namespace fwd_sm90_kernel
} // namespace kern_attention

#endif
