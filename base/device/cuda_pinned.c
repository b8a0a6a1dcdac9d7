#include "base/device/cuda_pinned.h"

#include <sys/mman.h>
#include <unistd.h>

/* On a multiple of a huge page; NULL: there is none. */
static unsigned char *map_huge(size_t bytes)
{
    const size_t unit = BASE_CUDA_HUGE_BYTES;
    unsigned char *all =
        mmap(NULL, bytes + unit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (all == MAP_FAILED) return NULL;
    const size_t before = (unit - (uintptr_t)all % unit) % unit;
    if (before > 0) (void)munmap(all, before);
    (void)munmap(all + before + bytes, unit - before);
    (void)madvise(all + before, bytes, MADV_HUGEPAGE); /* a wish */
    return all + before;
}

/* Here, and not within the driver with its locks held. */
static void touch(unsigned char *memory, size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);

    for (size_t at = 0; at < bytes; at += page)
        *(volatile unsigned char *)(memory + at) = 0;
}

static cudaError_t pin_own(base_buffer_t *buf, size_t bytes)
{
    const size_t unit = BASE_CUDA_HUGE_BYTES, all = (bytes + unit - 1) / unit * unit;
    unsigned char *memory = map_huge(all);

    if (memory == NULL) return cudaErrorMemoryAllocation;
    touch(memory, all);
    const cudaError_t e =
        cudaHostRegister(memory, all, cudaHostRegisterPortable | cudaHostRegisterMapped);
    if (e != cudaSuccess) {
        (void)cudaGetLastError();
        (void)munmap(memory, all);
        return e;
    }
    buf->address = memory;
    buf->own_bytes = (int64_t)all;
    return cudaSuccess;
}

cudaError_t base_cuda_pin(base_buffer_t *buf, size_t bytes)
{
    void *address = NULL;

    buf->own_bytes = 0;
    if (bytes >= BASE_CUDA_HUGE_BYTES && pin_own(buf, bytes) == cudaSuccess) return cudaSuccess;
    const cudaError_t e = cudaHostAlloc(&address, bytes, cudaHostAllocPortable);
    if (e == cudaSuccess) buf->address = address;
    return e;
}

cudaError_t base_cuda_unpin(base_buffer_t *buf)
{
    if (buf->own_bytes == 0) return cudaFreeHost(buf->address);
    const cudaError_t e = cudaHostUnregister(buf->address);
    /* What the device may still reach stays. */
    if (e == cudaSuccess) (void)munmap(buf->address, (size_t)buf->own_bytes);
    return e;
}
