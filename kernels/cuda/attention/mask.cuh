/* Which keys a row sees: row i sees keys max(0, i - W + 1) ... i. Positions are rows of the
 * document.
 *
 * Keys beyond the end of a task lie after all of its rows, so that the causal rule hides them as
 * well. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_MASK_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_MASK_CUH

namespace kern_attention
{

__device__ __forceinline__ bool sees(int row, int key, int window)
{
    return key <= row && key > row - window;
}

/* What rows [first_row, last_row] see of keys [first_key, last_key]. A tile of which nothing is
 * seen may be worked on or left out: the bits are the same (see softmax.cuh). */
__device__ __forceinline__ bool none_seen(int first_row, int last_row, int first_key, int last_key,
                                          int window)
{
    return first_key > last_row || last_key <= first_row - window;
}

__device__ __forceinline__ bool all_seen(int first_row, int last_row, int first_key, int last_key,
                                         int window)
{
    return last_key <= first_row && first_key > last_row - window;
}

/* The first tile of `keys` keys of which rows from `first_row` on see anything. */
__device__ __forceinline__ int first_tile(int first_row, int window, int keys)
{
    const int key = first_row - window + 1;
    return key > 0 ? key / keys * keys : 0;
}

} // namespace kern_attention

#endif
