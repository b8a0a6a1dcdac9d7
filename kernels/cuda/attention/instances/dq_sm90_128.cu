#include "kernels/cuda/attention/dq_sm90_kernel.cuh"

namespace kern_attention
{

template cudaError_t launch_dq_sm90<128>(const bwd_sm90_params &, cudaStream_t);

} // namespace kern_attention
