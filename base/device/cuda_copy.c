/* Copies of the cuda device. */
#include "base/device/device_cuda.h"

#define SMALL_UPLOAD_BYTES                                                                         \
    65536 /* up to here the driver takes a copy of pageable memory and returns */

static bool contiguous(const base_range_t *r)
{
    return r->rows == 1 || r->pitch == r->row_bytes;
}

base_status_t base_cuda_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src)
{
    const int64_t max_pitch = ((base_cuda_device_t *)s->dev)->max_pitch;
    const cudaStream_t native = ((base_cuda_stream_t *)s)->native;
    unsigned char *to = base_mem_address(dst->mem);
    const unsigned char *from = base_mem_address(src->mem);

    BASE_TRY(base_cuda_enter(s->dev));
    BASE_TRY(base_cuda_pace(s));
    /* The 2-D call limits pitches, also those that say nothing. */
    if (contiguous(dst) && contiguous(src))
        STREAM_TRY(s, "cudaMemcpyAsync",
                   cudaMemcpyAsync(to, from, (size_t)(dst->rows * dst->row_bytes),
                                   cudaMemcpyDefault, native));
    else if (dst->pitch <= max_pitch && src->pitch <= max_pitch)
        STREAM_TRY(s, "cudaMemcpy2DAsync",
                   cudaMemcpy2DAsync(to, (size_t)dst->pitch, from, (size_t)src->pitch,
                                     (size_t)dst->row_bytes, (size_t)dst->rows, cudaMemcpyDefault,
                                     native));
    else
        for (int64_t r = 0; r < dst->rows; r++) /* pitches of 2 GiB: there cannot be many rows */
            STREAM_TRY(s, "cudaMemcpyAsync",
                       cudaMemcpyAsync(to + r * dst->pitch, from + r * src->pitch,
                                       (size_t)dst->row_bytes, cudaMemcpyDefault, native));
    return BASE_OK;
}

base_status_t base_cuda_fill(base_stream_t *s, const base_range_t *dst, uint8_t byte)
{
    const cudaStream_t native = ((base_cuda_stream_t *)s)->native;
    unsigned char *to = base_mem_address(dst->mem);

    BASE_TRY(base_cuda_enter(s->dev));
    BASE_TRY(base_cuda_pace(s));
    if (contiguous(dst))
        STREAM_TRY(s, "cudaMemsetAsync",
                   cudaMemsetAsync(to, byte, (size_t)(dst->rows * dst->row_bytes), native));
    else if (dst->pitch <= ((base_cuda_device_t *)s->dev)->max_pitch)
        STREAM_TRY(s, "cudaMemset2DAsync",
                   cudaMemset2DAsync(to, (size_t)dst->pitch, byte, (size_t)dst->row_bytes,
                                     (size_t)dst->rows, native));
    else
        for (int64_t r = 0; r < dst->rows; r++)
            STREAM_TRY(s, "cudaMemsetAsync",
                       cudaMemsetAsync(to + r * dst->pitch, byte, (size_t)dst->row_bytes, native));
    return BASE_OK;
}

/* With pageable host memory the driver itself waits for the stream, without a deadline; so wait
 * here first. */
static base_status_t before_pageable(base_stream_t *s, const void *host)
{
    struct cudaPointerAttributes attributes;
    STREAM_TRY(s, "cudaPointerGetAttributes", cudaPointerGetAttributes(&attributes, host));
    return attributes.type == cudaMemoryTypeUnregistered ? base_stream_sync(s) : BASE_OK;
}

base_status_t base_cuda_upload(base_stream_t *s, base_mem_t dst, const void *src, int64_t bytes)
{
    BASE_TRY(base_cuda_enter(s->dev));
    BASE_TRY(base_cuda_pace(s));
    if (bytes > SMALL_UPLOAD_BYTES) BASE_TRY(before_pageable(s, src));
    STREAM_TRY(s, "upload",
               cudaMemcpyAsync(base_mem_address(dst), src, (size_t)bytes, cudaMemcpyHostToDevice,
                               ((base_cuda_stream_t *)s)->native));
    return BASE_OK;
}

base_status_t base_cuda_download(base_stream_t *s, void *dst, base_mem_t src, int64_t bytes)
{
    BASE_TRY(base_cuda_enter(s->dev));
    BASE_TRY(base_cuda_pace(s));
    BASE_TRY(before_pageable(s, dst));
    STREAM_TRY(s, "download",
               cudaMemcpyAsync(dst, base_mem_address(src), (size_t)bytes, cudaMemcpyDefault,
                               ((base_cuda_stream_t *)s)->native));
    return BASE_OK;
}
