#include "base/device/host_stream.h"

#include <string.h>

/* Copies of the CPU family are work like any other, so that the strict device opens their
 * operands. */

typedef struct copy_args {
    unsigned char *dst;
    const unsigned char *src;
    int64_t row_bytes, rows, dst_pitch, src_pitch;
} copy_args_t;

static base_status_t copy_work(void *args)
{
    const copy_args_t *a = args;
    for (int64_t r = 0; r < a->rows; r++)
        memcpy(a->dst + r * a->dst_pitch, a->src + r * a->src_pitch, (size_t)a->row_bytes);
    return BASE_OK;
}

typedef struct fill_args {
    unsigned char *dst;
    int64_t row_bytes, rows, pitch;
    uint8_t byte;
} fill_args_t;

static base_status_t fill_work(void *args)
{
    const fill_args_t *a = args;
    for (int64_t r = 0; r < a->rows; r++)
        memset(a->dst + r * a->pitch, a->byte, (size_t)a->row_bytes);
    return BASE_OK;
}

base_status_t base_host_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src)
{
    const copy_args_t args = {.dst = base_mem_address(dst->mem),
                              .src = base_mem_address(src->mem),
                              .row_bytes = dst->row_bytes,
                              .rows = dst->rows,
                              .dst_pitch = dst->pitch,
                              .src_pitch = src->pitch};
    const base_operand_t operands[2] = {{*dst, BASE_WRITE}, {*src, BASE_READ}};
    return base_host_stream_submit(s, copy_work, &args, sizeof args, operands, 2);
}

base_status_t base_host_fill(base_stream_t *s, const base_range_t *dst, uint8_t byte)
{
    const fill_args_t args = {.dst = base_mem_address(dst->mem),
                              .row_bytes = dst->row_bytes,
                              .rows = dst->rows,
                              .pitch = dst->pitch,
                              .byte = byte};
    const base_operand_t operand = {*dst, BASE_WRITE};
    return base_host_stream_submit(s, fill_work, &args, sizeof args, &operand, 1);
}

base_status_t base_host_upload(base_stream_t *s, base_mem_t dst, const void *src, int64_t bytes)
{
    const copy_args_t args = {
        .dst = base_mem_address(dst), .src = src, .row_bytes = bytes, .rows = 1};
    const base_operand_t operand = {{dst, bytes, 1, 0}, BASE_WRITE};
    return base_host_stream_submit(s, copy_work, &args, sizeof args, &operand, 1);
}

base_status_t base_host_download(base_stream_t *s, void *dst, base_mem_t src, int64_t bytes)
{
    const copy_args_t args = {
        .dst = dst, .src = base_mem_address(src), .row_bytes = bytes, .rows = 1};
    const base_operand_t operand = {{src, bytes, 1, 0}, BASE_READ};
    return base_host_stream_submit(s, copy_work, &args, sizeof args, &operand, 1);
}
