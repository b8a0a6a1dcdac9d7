/* Lists of matrices as kernel parameters. Their elements, tensors in order and rows ascending, are
 * cut into units of UNIT; blocks share out the units evenly, each a run of neighbours. How a list is
 * shared out depends on the list alone. Longer lists than a launch holds become several launches. */
#ifndef CADRE_KERNELS_CUDA_TENSOR_LIST_CUH
#define CADRE_KERNELS_CUDA_TENSOR_LIST_CUH

#include "kernels/cuda/real_vector.cuh"

namespace kern_real
{

/* LIST_BLOCKS: 4 for each of the 132 processors of an H200, all at work at once, so that a block's
 * beginning (its parameters come from memory) and end cost once a launch. */
constexpr int LIST_THREADS = 256, LIST_BLOCKS = 528, LIST_BLOCKS_A_PROCESSOR = 4;
constexpr int UNIT = LIST_THREADS * CHUNK;

/* Entry: a struct with `int64_t elements` and the addresses of its matrices. */
template <class Entry, int MAX> struct tensor_list {
    int32_t count, units, blocks;
    int32_t share, larger; /* units of a block; the first `larger` blocks have one more */
    int32_t before;        /* blocks of earlier launches */
    int32_t first_unit[MAX + 1];
    uint16_t block_entry[LIST_BLOCKS]; /* where a block's first unit is */
    Entry entries[MAX];

    __host__ __device__ int32_t block_unit(int block) const
    {
        return block * share + (block < larger ? block : larger);
    }
};

/* work(entry, begin, end) for the elements [begin, end) of each entry that the block has a share in;
 * `begin` is a multiple of UNIT. */
template <class List, class Work>
__device__ __forceinline__ void for_share(const List &list, Work work)
{
    const int32_t last = list.block_unit(static_cast<int>(blockIdx.x) + 1);
    int32_t unit = list.block_unit(static_cast<int>(blockIdx.x));
    for (int entry = list.block_entry[blockIdx.x]; unit < last; entry++) {
        const int32_t first = list.first_unit[entry], after = list.first_unit[entry + 1];
        const int32_t until = after < last ? after : last;
        const int64_t all = list.entries[entry].elements, end = int64_t{until - first} * UNIT;
        work(list.entries[entry], int64_t{unit - first} * UNIT, end < all ? end : all);
        unit = until;
    }
}

/* Gives a full list its blocks. */
template <class List> inline void share_out(List &list)
{
    list.blocks = list.units < LIST_BLOCKS ? list.units : LIST_BLOCKS;
    list.share = list.blocks > 0 ? list.units / list.blocks : 0;
    list.larger = list.blocks > 0 ? list.units % list.blocks : 0;
    for (int block = 0, entry = 0; block < list.blocks; block++) {
        while (list.first_unit[entry + 1] <= list.block_unit(block))
            entry++;
        list.block_entry[block] = static_cast<uint16_t>(entry);
    }
}

/* launch(list, is it the last one?) whenever a list is full, and once more at the end (which may have
 * no blocks). fill(i, &entry) describes tensor i, or returns false: it is none of this list. */
template <class List, class Fill, class Launch>
base_status_t for_lists(int64_t num, List &list, Fill fill, Launch launch)
{
    constexpr int MAX = sizeof(list.entries) / sizeof(list.entries[0]);
    list.count = list.units = list.before = list.first_unit[0] = 0;
    for (int64_t i = 0; i < num; i++) {
        auto *entry = &list.entries[list.count];
        if (!fill(i, entry) || entry->elements == 0) continue;
        const int64_t more = (entry->elements + UNIT - 1) / UNIT;
        list.count++;
        list.units += static_cast<int32_t>(more);
        list.first_unit[list.count] = list.units;
        if (list.count < MAX) continue;
        share_out(list);
        BASE_TRY(launch(list, false));
        list.before += list.blocks;
        list.count = list.units = 0;
    }
    share_out(list);
    return launch(list, true);
}

} // namespace kern_real

#endif
