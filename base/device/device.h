/* The device: opaque buffers, streams, events, counters and 2-D copies, as one table with
 * several implementations.
 *
 *   cpu     streams of kind COMPUTE run work inside the call; streams of kind ASYNC have a worker
 *           thread
 *   strict  a test device without a GPU: buffers are PROT_NONE except while work that named them
 *           runs; all streams are worker threads that start late and interleave at random
 *           (seeded). Whatever works here has named its operands and ordered its work, as a GPU
 *           needs it.
 *   cuda    one GPU
 *
 * Nothing outside base/device, kernels/ and the device transports of comm/ dereferences a
 * buffer: everyone else holds a base_mem_t and passes it on.
 *
 * Order. Work on one stream runs in the order it was given. Between streams only events (same
 * device) and counters (also other devices and the host) order it. Host memory given to upload
 * or download must stay untouched until the stream has passed that call. A pointer inside an
 * argument struct, likewise.
 *
 * Errors of work that runs later stick to its stream: every later call on that stream, and
 * base_stream_sync, returns the first of them. The work behind it is skipped, so its counters
 * are not raised; a stream that waits for an event recorded behind it fails too. An error of the
 * arguments, returned by the call, does not stick. All functions: from any thread, but one
 * stream is fed by one thread at a time. Not collective.
 *
 *   base_device_t *dev;   base_buffer_t *buf;   base_stream_t *s;
 *   BASE_TRY(base_device_open(ctx, BASE_DEVICE_CPU, 0, &dev));
 *   BASE_TRY(base_buffer_alloc(dev, BASE_MEMORY_DEVICE, bytes, "activations", &buf));
 *   BASE_TRY(base_stream_create(dev, BASE_STREAM_COMPUTE, "compute", &s));
 *   BASE_TRY(base_upload(s, base_mem(buf, 0), host, bytes));
 *   BASE_TRY(base_stream_sync(s)); */
#ifndef CADRE_BASE_DEVICE_DEVICE_H
#define CADRE_BASE_DEVICE_DEVICE_H

#include "base/context.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum base_device_kind {
    BASE_DEVICE_CPU,
    BASE_DEVICE_STRICT,
    BASE_DEVICE_CUDA
} base_device_kind_t;
typedef enum base_memory_kind {
    BASE_MEMORY_DEVICE, /* where kernels work */
    BASE_MEMORY_PINNED, /* host memory that copies reach without staging */
    BASE_MEMORY_KIND_COUNT
} base_memory_kind_t;
typedef enum base_stream_kind {
    /* On cuda giving it work waits, with the deadline, while some 200 pieces given earlier are not done. */
    BASE_STREAM_COMPUTE,
    BASE_STREAM_ASYNC /* copies and exchanges: runs beside the compute stream on every device */
} base_stream_kind_t;

typedef struct base_device base_device_t;
typedef struct base_buffer base_buffer_t;
typedef struct base_stream base_stream_t;
typedef struct base_event base_event_t;
typedef struct base_counter base_counter_t;

/* A place in a buffer. `offset` is in bytes. {NULL, 0} is "nothing". (The tag differs from the
 * function base_mem, which would hide a constructor in C++.) */
typedef struct base_mem_place {
    base_buffer_t *buffer;
    int64_t offset;
} base_mem_t;

/* `rows` pieces of `row_bytes` bytes, `pitch` bytes apart. rows = 1 ignores pitch. */
typedef struct base_range {
    base_mem_t mem;
    int64_t row_bytes;
    int64_t rows;
    int64_t pitch;
} base_range_t;

base_mem_t base_mem(base_buffer_t *buffer, int64_t offset);
base_mem_t base_mem_at(base_mem_t mem, int64_t more_bytes); /* mem moved on by more_bytes */

/* ==== device ==== */

/* Opens device `index` of that kind. BASE_ERR_UNSUPPORTED (DEV-01) when this build or host has
 * none. Borrows ctx. strict takes its seed from base_device_set_seed, else 1. */
base_status_t base_device_open(base_ctx_t *ctx, base_device_kind_t kind, int index,
                               base_device_t **dev_p) BASE_MUST_CHECK;
/* Closes it; streams, events, counters and buffers must have been destroyed. NULL is legal. */
void base_device_close(base_device_t *dev);
base_device_kind_t base_device_kind(const base_device_t *dev);
const char *base_device_name(const base_device_t *dev); /* "cpu", "strict", "cuda:0 NVIDIA H200" */
base_ctx_t *base_device_ctx(const base_device_t *dev);
/* Bytes of DEVICE memory that nobody has taken yet; 0: not known (CPU family). */
int64_t base_device_free_bytes(base_device_t *dev);
/* Bytes of it that are taken, by whomever and for whatever: the driver's count, with CUDA's contexts, code and
 * libraries, which base_ctx_memory does not see; 0: not known. */
int64_t base_device_used_bytes(base_device_t *dev);
/* How often the host has waited for a stream so far: base_stream_sync, and copies that do as it does. */
int64_t base_device_waits(const base_device_t *dev);
/* How often base_event_wait has found its event pending. */
int64_t base_device_event_waits(const base_device_t *dev);
/* strict: the interleavings of streams created from now on; others: ignored. */
void base_device_set_seed(base_device_t *dev, uint64_t seed);

/* ==== buffers ==== */

/* Allocates; contents undefined (strict and sanitizer builds: filled with NaN patterns).
 * Alignment: 4096 bytes on cpu and strict, 256 on cuda. `name` is for the memory accounting and
 * messages and is copied. Counted in base_ctx_memory. MEM-01 when there is not enough. */
base_status_t base_buffer_alloc(base_device_t *dev, base_memory_kind_t kind, int64_t bytes,
                                const char *name, base_buffer_t **buf_p) BASE_MUST_CHECK;
void base_buffer_free(base_buffer_t *buf); /* NULL is legal; no work on it may be pending */
int64_t base_buffer_bytes(const base_buffer_t *buf);
const char *base_buffer_name(const base_buffer_t *buf);
base_device_t *base_buffer_device(const base_buffer_t *buf);

/* ==== streams and events ==== */

base_status_t base_stream_create(base_device_t *dev, base_stream_kind_t kind, const char *name,
                                 base_stream_t **s_p) BASE_MUST_CHECK;
void base_stream_destroy(base_stream_t *s); /* waits for what was given to it; NULL is legal */
base_device_t *base_stream_device(const base_stream_t *s);
/* Blocks until all work given so far has run; returns the stream's first error. Never called
 * between microbatches. BASE_ERR_TIMEOUT when no item ended for the context's deadline (cuda:
 * when not all did), BASE_ERR_PEER when the rank is asked to stop; then work may still be
 * running. */
base_status_t base_stream_sync(base_stream_t *s) BASE_MUST_CHECK;
/* Before a call of the driver that may wait for the whole device with its locks held (CUDA loads a kernel
 * when it is first launched): what the stream then waits for from other ranks would not come, since the
 * thread that moves it needs the driver too. Has everything that was begun with them behind what was
 * given, by what base_stream_on_settle was told, and waits as base_stream_sync does. Some ranks may and
 * others not: what a rank has begun, the others begin too. Rare: it takes away all overlap. */
base_status_t base_stream_settle(base_stream_t *s) BASE_MUST_CHECK;
/* `fn` makes the stream wait for the exchanges that are under way; NULL: there are none. Of the last call. */
typedef base_status_t (*base_settle_fn)(void *user);
void base_stream_on_settle(base_stream_t *s, base_settle_fn fn, void *user);

/* An event is a place in a stream. Recording it again moves it. Waiting for or querying an event
 * that was never recorded is BASE_ERR_STATE (CUDA lets it pass; we do not, since it is always a
 * missing edge). */
base_status_t base_event_create(base_device_t *dev, base_event_t **e_p) BASE_MUST_CHECK;
void base_event_destroy(base_event_t *e);
base_status_t base_event_record(base_event_t *e, base_stream_t *s) BASE_MUST_CHECK;
base_status_t base_stream_wait_event(base_stream_t *s,
                                     base_event_t *e) BASE_MUST_CHECK; /* same device */
base_status_t
base_event_query(base_event_t *e) BASE_MUST_CHECK; /* BASE_OK, BASE_PENDING or an error */
/* The host waits for the event, which it expects to have passed: polls. BASE_ERR_TIMEOUT (COMM-02) and
 * BASE_ERR_PEER (COMM-01) as base_stream_sync, with `what` in the text. */
base_status_t base_event_wait(base_event_t *e, const char *what) BASE_MUST_CHECK;

/* ==== counters: the order between ranks, streams and the host ==== */

/* A monotonic 64-bit counter, first 0. Streams signal and wait in stream order, the host at
 * once; on CUDA it is exported device or mapped memory used by stream memory operations (never
 * an IPC event). One thread or stream raises a counter; raising it to a lower or equal value is
 * BASE_ERR_STATE, found when the call is made (base_counter_raise records it and leaves the
 * counter). Values above BASE_COUNTER_MAX are BASE_ERR_ARG in the same way: GPUs compare signed.
 * Streams of any device of the same process may use a counter, but streams of a GPU only one that
 * was created on a GPU (others: BASE_ERR_UNSUPPORTED). */
#define BASE_COUNTER_MAX (UINT64_C(1) << 62)
base_status_t base_counter_create(base_device_t *dev, base_counter_t **c_p) BASE_MUST_CHECK;
void base_counter_destroy(base_counter_t *c);
base_status_t base_stream_signal(base_stream_t *s, base_counter_t *c,
                                 uint64_t value) BASE_MUST_CHECK;
/* Signals each of at most BASE_MAX_SIGNALS counters, in this order; a GPU takes them in one step. */
#define BASE_MAX_SIGNALS 8
typedef struct base_signal {
    base_counter_t *counter;
    uint64_t value;
} base_signal_t;
base_status_t base_stream_signal_all(base_stream_t *s, const base_signal_t *signals,
                                     int num) BASE_MUST_CHECK;
/* The stream goes on when the counter is >= value. cpu, strict: the wait ends with
 * BASE_ERR_TIMEOUT at the context's deadline and with BASE_ERR_PEER when the rank is asked to
 * stop; on cpu's COMPUTE streams it blocks the caller. cuda: a wait that has been queued ends by
 * its value or by base_counter_release, nothing else. base_stream_sync sees deadline and stop flag
 * on the host and leaves the wait behind. */
base_status_t base_stream_wait_counter(base_stream_t *s, base_counter_t *c,
                                       uint64_t value) BASE_MUST_CHECK;
/* Waits for each of at most BASE_MAX_SIGNALS counters; one call of a GPU's driver. */
base_status_t base_stream_wait_all(base_stream_t *s, const base_signal_t *waits,
                                   int num) BASE_MUST_CHECK;
void base_counter_raise(base_counter_t *c, uint64_t value); /* from the host */
uint64_t base_counter_value(base_counter_t *c);             /* from the host */
/* Ends the counter's use, once the group was stopped: every present and future wait for it passes,
 * its value is UINT64_MAX for good. From the host, any thread, also while another thread or a
 * stream raises it; signals and raises that come later, or were queued before, then do nothing and
 * are no error. What waited goes on without what it waited for: only work whose results nobody
 * will look at may follow. It is there for waits queued on a GPU. (Signals of 2^32 or more that a
 * GPU has already queued still write their value.) */
void base_counter_release(base_counter_t *c);

/* ==== sharing with other processes of the host ====
 * What copy engines between processes need: a process exports a buffer or a bank of counters as plain
 * bytes, another one imports it, and from then on gives it to copies, signals and waits as its own.
 * The two order their use by counters; events do not leave a process. */

#define BASE_EXPORT_BYTES 160
typedef struct base_export {
    unsigned char bytes[BASE_EXPORT_BYTES];
} base_export_t;

/* DEVICE buffers allocated from now on can be exported: cpu and strict take them from memory that
 * processes share, cuda gives each blocks of the driver's for itself. */
void base_device_share(base_device_t *dev);
/* BASE_ERR_STATE for a buffer that is not shared, BASE_ERR_UNSUPPORTED for a pinned one. From
 * then on base_buffer_free keeps the memory until the device is closed: who was given it may open it, or on cuda have
 * it open, after that. */
base_status_t base_buffer_export(base_buffer_t *buf, base_export_t *out) BASE_MUST_CHECK;
/* The buffer of another process as one of `dev`, of the same kind. COMM-05 when it cannot be
 * reached. Not counted in base_ctx_memory; base_buffer_free ends it. */
base_status_t base_buffer_import(base_device_t *dev, const base_export_t *from, const char *name,
                                 base_buffer_t **buf_p) BASE_MUST_CHECK;

/* A bank: `num` counters, all 0, in host memory that processes share and, on cuda, GPUs map. In
 * whichever process, one thread or stream raises a counter; what it was given before is known to that
 * process only. Host memory and not exported device memory, so that after a stop the host can release
 * what its GPU waits for, and can look at a counter without asking the GPU. */
typedef struct base_counter_bank base_counter_bank_t;
base_status_t base_counter_bank_create(base_device_t *dev, int num, const char *name,
                                       base_counter_bank_t **bank_p) BASE_MUST_CHECK;
void base_counter_bank_export(const base_counter_bank_t *bank, base_export_t *out);
base_status_t base_counter_bank_import(base_device_t *dev, const base_export_t *from,
                                       const char *name,
                                       base_counter_bank_t **bank_p) BASE_MUST_CHECK;
/* Created or imported; no stream may use a counter of it any more. NULL is legal. */
void base_counter_bank_destroy(base_counter_bank_t *bank);
int base_counter_bank_count(const base_counter_bank_t *bank);
base_counter_t *base_counter_bank_at(base_counter_bank_t *bank,
                                     int i); /* the bank's; 0 <= i < num */

/* ==== copies ==== */

/* Both ranges hold the same row_bytes and rows; ranges must not overlap. Device and pinned
 * memory of this device, and of devices of the same kind in the process. */
base_status_t base_copy(base_stream_t *s, const base_range_t *dst,
                        const base_range_t *src) BASE_MUST_CHECK;
base_status_t base_fill(base_stream_t *s, const base_range_t *dst, uint8_t byte) BASE_MUST_CHECK;
/* Host memory that is not pinned: on cuda a download, and an upload of more than 64 KiB, first
 * waits for the stream as base_stream_sync does. */
base_status_t base_upload(base_stream_t *s, base_mem_t dst, const void *src,
                          int64_t bytes) BASE_MUST_CHECK;
base_status_t base_download(base_stream_t *s, void *dst, base_mem_t src,
                            int64_t bytes) BASE_MUST_CHECK;

/* Bounds of a range: BASE_ERR_ARG with buffer name, range and size when it reaches outside its
 * buffer or is malformed. An empty range (rows or row_bytes 0) is legal. `what` names the
 * operand in the text. */
base_status_t base_range_check(base_ctx_t *ctx, const base_range_t *r,
                               const char *what) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
