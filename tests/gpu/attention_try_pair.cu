#include "tests/gpu/attention_try.h"
#include "tests/gpu/attention_try_pair.cuh"

using namespace kern_attention;

namespace
{

template <int D>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(PAIR_THREADS, 1)
    fwd_sm90_pair(const __grid_constant__ sm90_params p)
{
    fwd_sm90_kernel::fwd_block<D, PAIR_CONSUMERS, true>(p);
}

} // namespace

extern "C" base_status_t try_fwd_pair(base_stream_t *s, const kern_attention_fwd_t *args)
{
    const auto kernel = fwd_sm90_pair<128>;
    return run_pair(
        s, args, kernel, [=](const sm90_params &piece, int blocks, cudaStream_t stream) {
            kernel<<<static_cast<unsigned>(blocks), PAIR_THREADS, PAIR_BYTES, stream>>>(piece);
            return cudaGetLastError();
        });
}
