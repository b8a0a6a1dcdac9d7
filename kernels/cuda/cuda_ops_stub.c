/* In place of cuda_ops.c in builds without CUDA. */
#include "kernels/cuda/cuda_ops.h"

const kern_ops_t *kern_cuda_ops(void)
{
    return NULL;
}
