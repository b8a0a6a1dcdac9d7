/* The backward on mma.sync (see bwd_operands.cuh): one launch, whose first blocks own keys, the others packed
 * rows, so that these begin where the last of those leave processors idle. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_BWD_MMA_KERNEL_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_BWD_MMA_KERNEL_CUH

#include "kernels/cuda/attention/dkv_mma_kernel.cuh"
#include "kernels/cuda/attention/dq_mma_kernel.cuh"

#include <algorithm>

namespace kern_attention
{

template <int D>
__global__ void __launch_bounds__(bwd::THREADS, bwd::BLOCKS_PER_SM)
    bwd_mma(const __grid_constant__ bwd_params p)
{
    extern __shared__ __align__(1024) uint8_t shared[];
    const int item = static_cast<int>(blockIdx.x), key_items = p.first_key_item[p.list.num_tasks];
    if (item < key_items)
        dkv_mma_kernel::work_on<D>(p, shared, item);
    else
        dq_mma_kernel::work_on<D>(p, shared, item - key_items);
}

template <int D> cudaError_t launch_bwd_mma(bwd_params &p, cudaStream_t stream)
{
    constexpr int BYTES = std::max(dkv_mma_kernel::SHARED_BYTES<D>, dq_mma_kernel::SHARED_BYTES<D>);
    const int32_t group = p.dims.group.divisor;
    const int32_t key_items =
        count_items(p.list, p.first_key_item,
                    [](const kern_attention_task_t &t) { return dkv_mma_kernel::tiles_of<D>(t); });
    const int32_t row_items =
        count_items(p.list, p.list.first_item, [group](const kern_attention_task_t &t) {
            return dq_mma_kernel::tiles_of(t, group);
        });
    const cudaError_t e =
        cudaFuncSetAttribute(bwd_mma<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, BYTES);
    if (e != cudaSuccess) return e;
    bwd_mma<D><<<static_cast<unsigned>(key_items + row_items), bwd::THREADS, BYTES, stream>>>(p);
    return cudaGetLastError();
}

} // namespace kern_attention

#endif
