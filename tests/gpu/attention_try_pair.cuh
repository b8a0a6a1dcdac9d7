/* The forward of head dim 128 in pairs of blocks, as launches. */
#ifndef CADRE_TESTS_GPU_ATTENTION_TRY_PAIR_CUH
#define CADRE_TESTS_GPU_ATTENTION_TRY_PAIR_CUH

#include "kernels/cuda/attention/fwd_call.cuh"
#include "kernels/cuda/attention/fwd_sm90_kernel.cuh"

namespace kern_attention
{

constexpr int PAIR_CONSUMERS = 2,
              PAIR_ROWS = fwd_sm90_kernel::ROWS<PAIR_CONSUMERS>; /* of a block */
constexpr int PAIR_THREADS = fwd_sm90_kernel::THREADS<PAIR_CONSUMERS>;
constexpr int PAIR_BYTES = fwd_sm90_kernel::SHARED_BYTES<128, PAIR_CONSUMERS>;

/* start(params, blocks, stream) launches the kernel, whose blocks are clusters of two. Head dim 64: as the op. */
template <class Kernel, class Start>
base_status_t run_pair(base_stream_t *s, const kern_attention_fwd_t *args, Kernel kernel,
                       Start start)
{
    if (args->head_dim != 128) return kern_cuda_attention_fwd(s, args);
    const cudaStream_t stream = static_cast<cudaStream_t>(base_stream_native(s));
    return run_fwd(s, args, [=](fwd_params &params) {
        bool done = false;
        cudaError_t e =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, PAIR_BYTES);
        if (e == cudaSuccess)
            e = launch_pieces(params, 128, {2 * PAIR_ROWS, PAIR_ROWS, 1}, &done,
                              [=](const sm90_params &piece, int processors) {
                                  return start(piece, 2 * std::min(piece.num_items, processors / 2),
                                               stream);
                              });
        if (done || e != cudaSuccess) return e;
        return launch_fwd_mma(params, 128, stream);
    });
}

} // namespace kern_attention

#endif
