/* What the files of the cuda device share; private to base/device. Only device_cuda.c
 * and cuda_*.c include it, and builds without CUDA have none of them. */
#ifndef CADRE_BASE_DEVICE_DEVICE_CUDA_H
#define CADRE_BASE_DEVICE_DEVICE_CUDA_H

#include "base/device/device_ops.h"

#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

typedef struct base_cuda_device {
    base_device_t base;
    PFN_cuStreamWaitValue64_v11070 wait_value;
    PFN_cuStreamWriteValue64_v11070 write_value;
    PFN_cuStreamWriteValue32_v11070 write_low;
    PFN_cuStreamBatchMemOp_v11070 memory_ops;
    PFN_cuCtxGetCurrent_v4000 current;
    CUcontext context; /* that cudaSetDevice makes current; NULL: not known */
    int64_t max_pitch;
    struct base_cuda_kept *_Atomic kept; /* memory that other processes may have open */
    atomic_bool stuck;                   /* a stream did not become idle */
} base_cuda_device_t;

typedef struct base_cuda_marks base_cuda_marks_t;

#define BASE_CUDA_PACE_EVENTS 12
#define BASE_CUDA_PACE_STRIDE 16

/* A stream's launch queue holds about a thousand entries. A thread that finds it full waits inside the
 * driver, and other threads' calls may wait with it: also those of a transport that would bring what the
 * stream waits for. So a COMPUTE stream is never given more than EVENTS x STRIDE pieces of work (an op, a
 * copy; a few launches each) that are not done: every STRIDE pieces an event is recorded, and the one
 * that is recorded again must have happened. */
typedef struct base_cuda_stream {
    base_stream_t base;
    cudaStream_t native;
    cudaEvent_t pace[BASE_CUDA_PACE_EVENTS]; /* NULL where there is no limit */
    uint64_t given;                          /* pieces of work; the feeding thread's */
    base_cuda_marks_t *marks;                /* NULL until the first */
} base_cuda_stream_t;

/* Records what a call of the runtime answered, "where: what: text", and returns the status that
 * it means. */
base_status_t base_cuda_fail(base_ctx_t *ctx, cudaError_t e, const char *file, int line,
                             const char *where, const char *what);

#define CUDA_TRY(ctx, where, what, expr)                                                           \
    do {                                                                                           \
        const cudaError_t cuda_try_e_ = (expr);                                                    \
        if (cuda_try_e_ != cudaSuccess)                                                            \
            return base_cuda_fail((ctx), cuda_try_e_, __FILE__, __LINE__, (where), (what));        \
    } while (0)

/* Work that was refused or failed: the stream's further work would rest on it. */
#define STREAM_TRY(s, what, expr)                                                                  \
    do {                                                                                           \
        const cudaError_t stream_try_e_ = (expr);                                                  \
        if (stream_try_e_ != cudaSuccess)                                                          \
            return base_stream_fail((s), base_cuda_fail((s)->dev->ctx, stream_try_e_, __FILE__,    \
                                                        __LINE__, (s)->name, (what)));             \
    } while (0)

/* Makes the device current for the calling thread. Every entry does it: each call may come from
 * another thread. */
base_status_t base_cuda_enter(const base_device_t *dev) BASE_MUST_CHECK;

/* For destructors, which cannot fail: records the error. */
void base_cuda_drop(base_device_t *dev, cudaError_t e, const char *what);
bool base_cuda_stuck(base_device_t *dev);

base_status_t base_cuda_stream_sync(base_stream_t *s);
/* Before each piece of work: waits when too much of what was given is not done. */
base_status_t base_cuda_pace(base_stream_t *s) BASE_MUST_CHECK;

/* cuda_event.c */
base_status_t base_cuda_event_create(base_device_t *dev, base_event_t **e_p);
void base_cuda_event_destroy(base_event_t *e);
base_status_t base_cuda_event_record(base_event_t *e, base_stream_t *s);
base_status_t base_cuda_stream_wait_event(base_stream_t *s, base_event_t *e);
base_status_t base_cuda_event_query(base_event_t *e);
base_status_t base_cuda_counter_create(base_device_t *dev, base_counter_t **c_p);
base_status_t base_cuda_counter_at(base_device_t *dev, _Atomic uint64_t *word,
                                   base_counter_t **c_p);
void base_cuda_counter_destroy(base_counter_t *c);
base_status_t base_cuda_stream_signal(base_stream_t *s, base_counter_t *c, uint64_t value);
base_status_t base_cuda_stream_signal_all(base_stream_t *s, const base_signal_t *signals, int num);
base_status_t base_cuda_stream_wait_counter(base_stream_t *s, base_counter_t *c, uint64_t value);
base_status_t base_cuda_stream_wait_all(base_stream_t *s, const base_signal_t *waits, int num);

/* cuda_mark.c */
base_status_t base_cuda_stream_mark(base_stream_t *s, const base_mark_t *mark);
/* The stream is idle: what it passed is counted. */
base_status_t base_cuda_marks_settle(base_cuda_stream_t *s);
void base_cuda_marks_destroy(base_cuda_stream_t *s);

/* cuda_share.c */
base_status_t base_cuda_buffer_export(base_buffer_t *buf, base_export_fields_t *fields);
base_status_t base_cuda_buffer_import(base_device_t *dev, const base_export_fields_t *fields,
                                      const char *name, base_buffer_t **buf_p);
void base_cuda_buffer_free(base_buffer_t *buf);
void base_cuda_free_kept(base_device_t *dev); /* at the end */
base_status_t base_cuda_bank_map(base_device_t *dev, void *address, int64_t bytes);
void base_cuda_bank_unmap(base_device_t *dev, void *address);

/* cuda_copy.c */
base_status_t base_cuda_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src);
base_status_t base_cuda_fill(base_stream_t *s, const base_range_t *dst, uint8_t byte);
base_status_t base_cuda_upload(base_stream_t *s, base_mem_t dst, const void *src, int64_t bytes);
base_status_t base_cuda_download(base_stream_t *s, void *dst, base_mem_t src, int64_t bytes);

#endif
