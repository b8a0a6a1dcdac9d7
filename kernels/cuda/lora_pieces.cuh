/* Lists of pieces of the LoRA ops: which the host gives with a launch, and how a block finds its own. A
 * list has works[0, num_work), each of a group with its first_block ascending, and groups[0, num_groups). */
#ifndef CADRE_KERNELS_CUDA_LORA_PIECES_CUH
#define CADRE_KERNELS_CUDA_LORA_PIECES_CUH

#include "kernels/cuda/lora_route.cuh"
#include "kernels/cuda/stream_state.h"

namespace kern_lora
{

/* The last piece that does not begin behind this block. */
template <typename LIST> __device__ __forceinline__ const auto &find_work(const LIST &list)
{
    int low = 0, high = list.num_work;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (list.works[middle].first_block <= static_cast<int>(blockIdx.x))
            low = middle;
        else
            high = middle;
    }
    return list.works[low];
}

/* A piece that leaves sums in scratch. */
struct summed_work {
    int32_t group, first_block;
    int64_t row0, row1;
    int64_t partial; /* place of its sums, in floats */
};

/* For ops whose pieces leave sums in scratch: the rows of the adapter's segments in pieces of
 * PIECE_ROWS of group g, each with `floats` of scratch. b.p is the list and b.used what it has of
 * scratch; a list or scratch that is full is launched by flush(b), and g begins again in the next one.
 * There is room for a group. */
template <int PIECE_ROWS, typename BUILDER, typename GROUP>
base_status_t add_pieces(BUILDER &b, const char *op, const kern_lora_route_t &route,
                         int32_t adapter, const GROUP &g, int64_t floats)
{
    auto &p = b.p;
    const int64_t room = KERN_CUDA_SCRATCH_BYTES / 4;
    const int max_work = static_cast<int>(sizeof p.works / sizeof p.works[0]);
    const auto begin = [&] {
        p.groups[p.num_groups] = g;
        p.groups[p.num_groups].first_work = p.num_work;
        p.groups[p.num_groups++].num_works = 0;
    };

    if (floats > room)
        return BASE_FAIL(base_device_ctx(base_stream_device(b.s)), BASE_ERR_ARG, BASE_MSG_INT_01,
                         "%s: %lld sums of a block, want at most %lld", op,
                         static_cast<long long>(floats), static_cast<long long>(room));
    begin();
    for (int64_t i = 0; i < route.num_segments; i++) {
        const kern_lora_segment_t &segment = route.segments[i];
        if (segment.adapter != adapter) continue;
        for (int64_t row = segment.row0; row < segment.row1; row += PIECE_ROWS) {
            if (p.num_work == max_work || b.used + floats > room) {
                BASE_TRY(flush(b));
                begin();
            }
            const int64_t end = row + PIECE_ROWS < segment.row1 ? row + PIECE_ROWS : segment.row1;
            p.works[p.num_work++] = summed_work{p.num_groups - 1, 0, row, end, b.used};
            p.groups[p.num_groups - 1].num_works++;
            b.used += floats;
        }
    }
    return BASE_OK;
}

} // namespace kern_lora

#endif
