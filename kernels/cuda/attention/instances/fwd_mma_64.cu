#include "kernels/cuda/attention/fwd_mma_kernel.cuh"

namespace kern_attention
{

template cudaError_t launch_fwd_mma<64>(fwd_params &, cudaStream_t);

} // namespace kern_attention
