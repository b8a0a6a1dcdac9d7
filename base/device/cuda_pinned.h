/* Pinned host memory of the cuda device.
 *
 * From BASE_CUDA_HUGE_BYTES on it is memory of ours, in huge pages where the system has some to give, that the driver
 * pins. Its own memory comes in pages of 4 KiB, half a millisecond a MiB on an H200's host. Where the driver does not
 * take ours, and for less, it is the driver's. Ours is whole huge pages, up to 2 MiB more than was asked for and is counted; and memory
 * that the system has promised and does not have is missed when it is touched, which Linux answers by ending a process. */
#ifndef CADRE_BASE_DEVICE_CUDA_PINNED_H
#define CADRE_BASE_DEVICE_CUDA_PINNED_H

#include "base/device/device_cuda.h"

#define BASE_CUDA_HUGE_BYTES ((size_t)2 << 20)

/* buf->address and buf->own_bytes; the buffer is of kind PINNED. */
cudaError_t base_cuda_pin(base_buffer_t *buf, size_t bytes);
cudaError_t base_cuda_unpin(base_buffer_t *buf);

#endif
