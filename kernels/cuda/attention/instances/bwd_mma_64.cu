#include "kernels/cuda/attention/bwd_mma_kernel.cuh"

namespace kern_attention
{

template cudaError_t launch_bwd_mma<64>(bwd_params &, cudaStream_t);

} // namespace kern_attention
