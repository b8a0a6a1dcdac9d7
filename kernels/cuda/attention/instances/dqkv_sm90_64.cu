#include "kernels/cuda/attention/dqkv_sm90_op.cuh"

namespace kern_attention
{

template cudaError_t launch_dqkv_sm90<64>(const bwd_sm90_params &, cudaStream_t);

} // namespace kern_attention
