/* Inside view of the device, for kernels/ and the device transports of comm/ only
 * (tests/checks/includes.py).
 *
 * CPU family (cpu, strict): work is a host function submitted to a stream together with the
 * memory it names. The strict device opens exactly the pages of the named operands while the
 * function runs: whole pages, so neighbours in the first and last page are open too, and for
 * every thread. */
#ifndef CADRE_BASE_DEVICE_DEVICE_HOST_H
#define CADRE_BASE_DEVICE_DEVICE_HOST_H

#include "base/device/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum base_access { BASE_READ = 1, BASE_WRITE = 2, BASE_READ_WRITE = 3 } base_access_t;

/* Operand of submitted work: the span from the range's first to its last byte. */
typedef struct base_operand {
    base_range_t range;
    base_access_t access;
} base_operand_t;

/* Work. `args` is the copy that the stream made. A negative status sticks to the stream. */
typedef base_status_t (*base_work_fn)(void *args);

/* Stack of every thread that work may run on: the workers of streams have it, and a thread that feeds a
 * COMPUTE stream of the cpu device, where work runs inside the call, needs it. Attention tiles lie on the
 * stack (kernels/cpu: at most 3 MiB). */
#define BASE_HOST_STACK_BYTES ((size_t)8 * 1024 * 1024)

/* Gives work to a stream of a cpu or strict device (others: BASE_ERR_UNSUPPORTED). `args`
 * (args_bytes) and `operands` are copied; what pointers inside args point to must stay until the
 * stream has passed. Operands may lie in buffers of other devices of the CPU family in this
 * process. */
base_status_t base_stream_submit(base_stream_t *s, base_work_fn work, const void *args,
                                 size_t args_bytes, const base_operand_t *operands,
                                 int num_operands) BASE_MUST_CHECK;

/* The address of a place. CPU family: valid to dereference only inside work that named it as an
 * operand (or between base_host_open and base_host_close). cuda: a device address. */
void *base_mem_address(base_mem_t mem);

/* A buffer that is memory of the caller's, for work that calls a function of places on scratch of
 * its own. No stream may be given work or copies that name it. dev: of the CPU family. */
base_status_t base_host_view_create(base_device_t *dev, void *memory, int64_t bytes,
                                    base_buffer_t **buf_p) BASE_MUST_CHECK;
void base_host_view_destroy(base_buffer_t *buf); /* before the memory goes; NULL is legal */

/* Tells a buffer from one that had the same address before it. */
uint64_t base_buffer_serial(const base_buffer_t *buf);

/* Opens and closes operands by hand, inside work whose operands are known only when it runs
 * (transports). Ranges must have been checked. A failure to open is recorded (MEM-01) and the
 * access that follows faults. */
void base_host_open(const base_operand_t *operands, int num_operands);
void base_host_close(const base_operand_t *operands, int num_operands);

/* Waits inside submitted work (not for COMPUTE streams of cpu): until counter >= value, as
 * base_stream_wait_counter. */
base_status_t base_counter_wait_host(base_ctx_t *ctx, base_counter_t *c, uint64_t value,
                                     int64_t slice_ms) BASE_MUST_CHECK;
/* slice_ms < 0: the context's deadline, else returns BASE_PENDING after slice_ms. */

/* Makes `st` (< 0, its text recorded) the stream's first error unless it has one, for an op whose
 * launch failed; returns `st`. */
base_status_t base_stream_fail(base_stream_t *s, base_status_t st);

/* The native stream (cudaStream_t), or NULL. Makes its GPU current for the calling thread, which
 * may then launch. */
void *base_stream_native(base_stream_t *s);

/* State that an implementation above keeps with a stream, such as a library's handle and scratch
 * memory: made by the thread that feeds the stream, destroyed with it, after its last work. One a
 * stream; the stream owns it from base_stream_keep on. */
typedef struct base_stream_part base_stream_part_t;
struct base_stream_part {
    void (*destroy)(base_stream_part_t *part);
};
base_stream_part_t *base_stream_kept(const base_stream_t *s); /* NULL: none yet */
void base_stream_keep(base_stream_t *s, base_stream_part_t *part);

#ifdef __cplusplus
}
#endif
#endif
