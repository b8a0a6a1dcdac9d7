#include "tests/gpu/attention_try.h"
#include "tests/gpu/barrier_watch.cuh" /* before the kernels */

#include "tests/gpu/attention_try_pair.cuh"

#include <cstdio>
#include <cstring>
#include <map>
#include <string>

using namespace kern_attention;

namespace
{

constexpr int WARPS = PAIR_THREADS / 32;

__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(PAIR_THREADS, 1)
    fwd_sm90_pair_watched(const __grid_constant__ sm90_params p, barrier_stall *stalls)
{
    kern_ptx::barrier_watch_begin(stalls);
    fwd_sm90_kernel::fwd_block<128, PAIR_CONSUMERS, true>(p);
}

/* What warp `warp` of a block waits for; the tiles before the barriers are whole multiples of the arena's alignment. */
std::string words_of(const barrier_stall &stall, int warp)
{
    using namespace fwd_sm90_kernel;
    static_assert(TILES_BYTES<128, PAIR_CONSUMERS> % ALIGNMENT == 0, "");
    static const char *const OPERANDS[] = {"q", "keys", "values"};
    std::string role = warp < 4 ? "loader" : "consumer " + std::to_string(warp / 4 - 1);
    if (stall.waits == 0) return role + ": at no mbarrier";
    const int index = static_cast<int>(stall.barrier % ALIGNMENT / 8), tile = index % TILES;
    return role + ": until stage " + std::to_string(tile % STAGES) + " of " +
           OPERANDS[tile / STAGES] + (index < TILES ? " is full" : " is empty") + ", parity " +
           std::to_string(stall.parity);
}

void report(const barrier_stall *stalls, int blocks)
{
    struct group {
        int warps = 0, first_block = 0;
    };
    std::map<std::string, group> groups;
    for (int i = 0; i < blocks * WARPS; i++) {
        const int block = i / WARPS, warp = i % WARPS;
        if (warp > 0 && warp < 4) continue; /* beside the loader's */
        group &g =
            groups[(block % 2 ? "second block, " : "first block, ") + words_of(stalls[i], warp)];
        if (g.warps++ == 0) g.first_block = block;
    }
    std::fprintf(stderr, "pair-watched: %d blocks of %d warps\n", blocks, WARPS);
    for (const auto &entry : groups)
        std::fprintf(stderr, "  %s: %d warps, from block %d on\n", entry.first.c_str(),
                     entry.second.warps, entry.second.first_block);
}

cudaError_t watch(const sm90_params &piece, int blocks, cudaStream_t stream)
{
    const size_t bytes = sizeof(barrier_stall) * static_cast<size_t>(blocks * WARPS);
    void *memory = nullptr;
    cudaError_t e = cudaHostAlloc(&memory, bytes, cudaHostAllocMapped);
    if (e != cudaSuccess) return e;
    std::memset(memory, 0, bytes);
    barrier_stall *stalls = static_cast<barrier_stall *>(memory);
    fwd_sm90_pair_watched<<<static_cast<unsigned>(blocks), PAIR_THREADS, PAIR_BYTES, stream>>>(
        piece, stalls);
    e = cudaGetLastError();
    if (e == cudaSuccess) e = cudaStreamSynchronize(stream);
    if (e != cudaSuccess) report(stalls, blocks);
    (void)cudaFreeHost(memory);
    return e;
}

} // namespace

extern "C" base_status_t try_fwd_pair_watched(base_stream_t *s, const kern_attention_fwd_t *args)
{
    return run_pair(s, args, fwd_sm90_pair_watched, watch);
}
