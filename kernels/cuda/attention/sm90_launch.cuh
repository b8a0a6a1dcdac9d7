/* What the sm_90a launches do alike on the host. */
#ifndef CADRE_KERNELS_CUDA_ATTENTION_SM90_LAUNCH_CUH
#define CADRE_KERNELS_CUDA_ATTENTION_SM90_LAUNCH_CUH

#include "kernels/cuda/attention/task_list.cuh"

#include <cuda_runtime.h>

#include <algorithm>

namespace kern_attention
{

/* Of the current device. */
inline cudaError_t count_processors(int *processors)
{
    int device = 0;
    const cudaError_t e = cudaGetDevice(&device);
    if (e != cudaSuccess) return e;
    return cudaDeviceGetAttribute(processors, cudaDevAttrMultiProcessorCount, device);
}

/* Numbers of the list's tasks, those of the greatest length(task) first. */
template <class Length>
inline void order_tasks(const task_list &list, int (&order)[MAX_TASKS], Length length)
{
    for (int i = 0; i < list.num_tasks; i++)
        order[i] = i;
    std::stable_sort(order, order + list.num_tasks,
                     [&](int x, int y) { return length(list.tasks[x]) > length(list.tasks[y]); });
}

} // namespace kern_attention

#endif
