/* The sm_90a forward on the host: describes tasks and launches the kernel of the head dim. */
#include "kernels/cuda/attention/fwd_sm90_items.cuh"

namespace kern_attention
{

cudaError_t launch_fwd_sm90(const fwd_params &p, int32_t head_dim, cudaStream_t stream, bool *done)
{
    const int rows = head_dim == 64 ? FWD_SM90_ROWS<64> : FWD_SM90_ROWS<128>;
    return launch_pieces(p, head_dim, whole_tiles(head_dim, rows), done,
                         [=](const sm90_params &params, int processors) {
                             return head_dim == 64
                                        ? launch_fwd_sm90<64>(params, processors, stream)
                                        : launch_fwd_sm90<128>(params, processors, stream);
                         });
}

} // namespace kern_attention
