#include "kernels/cuda/attention/fwd_sm90_op.cuh"

namespace kern_attention
{

template cudaError_t launch_fwd_sm90<64>(const sm90_params &, int, cudaStream_t);

} // namespace kern_attention
