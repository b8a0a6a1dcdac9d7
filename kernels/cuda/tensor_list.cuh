/* Lists of matrices as kernel parameters: the elements of all of them, tensors in order and rows
 * ascending, in pieces of PIECE that are given to a block each. Longer lists than a launch holds
 * become several launches; `first_piece` numbers pieces through. */
#ifndef CADRE_KERNELS_CUDA_TENSOR_LIST_CUH
#define CADRE_KERNELS_CUDA_TENSOR_LIST_CUH

#include "kernels/cuda/real_vector.cuh"

namespace kern_real
{

constexpr int LIST_THREADS = 256, PIECE = 16 * LIST_THREADS * 4;

/* Entry: a struct with `int64_t rows, cols` and the addresses of its matrices. */
template <class Entry, int MAX> struct tensor_list {
    int32_t count, pieces;
    int64_t before; /* pieces of earlier launches */
    int32_t first_piece[MAX + 1];
    Entry entries[MAX];
};

struct piece_place {
    int32_t entry;
    int64_t begin, end; /* elements of the entry */
};

template <class List> __device__ piece_place find_piece(const List &list)
{
    int low = 0, high = list.count; /* first_piece[low] <= block < first_piece[high] */
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (list.first_piece[middle] <= static_cast<int>(blockIdx.x))
            low = middle;
        else
            high = middle;
    }
    const int64_t begin = int64_t{static_cast<int>(blockIdx.x) - list.first_piece[low]} * PIECE;
    const int64_t all = list.entries[low].rows * list.entries[low].cols;
    return {low, begin, begin + PIECE < all ? begin + PIECE : all};
}

/* launch(list) whenever a list is full, and at the end; entry_of(i) describes tensor i. Returns the
 * number of pieces in *pieces. */
template <class List, class EntryOf, class Launch>
base_status_t for_lists(int64_t num, List &list, int64_t *pieces, EntryOf entry_of, Launch launch)
{
    constexpr int MAX = sizeof(list.entries) / sizeof(list.entries[0]);
    list.count = list.pieces = 0;
    list.before = 0;
    for (int64_t i = 0; i < num; i++) {
        const auto entry = entry_of(i);
        const int64_t more = (entry.rows * entry.cols + PIECE - 1) / PIECE;
        if (more == 0) continue;
        if (list.count == MAX || list.pieces + more > INT32_MAX) {
            BASE_TRY(launch(list));
            list.before += list.pieces;
            list.count = list.pieces = 0;
        }
        list.entries[list.count] = entry;
        list.first_piece[list.count++] = list.pieces;
        list.pieces += static_cast<int32_t>(more);
        list.first_piece[list.count] = list.pieces;
    }
    if (list.pieces > 0) BASE_TRY(launch(list));
    *pieces = list.before + list.pieces;
    return BASE_OK;
}

} // namespace kern_real

#endif
