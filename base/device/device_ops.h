/* Private to base/device: what the public functions share with the implementations.
 *
 * device.c, device_stream.c, device_counter.c and device_range.c hold the public functions. They
 * check arguments and states once for all devices (ranges, never-recorded events, failed
 * streams, counters that go back) and dispatch through base_device_ops. An implementation
 * therefore sees only arguments that are legal and not empty.
 *
 * Each implementation has structs of its own whose first member is the common struct below; it
 * allocates them, fills the common part with base_*_init_common, and casts back.
 *
 *   device_cpu.c     cpu       \  both on host_stream.c (worker threads, events, copies) and
 *   device_strict.c  strict    /  host_timeline.c (what has run, and waiting for it)
 *   device_cuda.c    cuda, or device_cuda_stub.c in builds without CUDA */
#ifndef CADRE_BASE_DEVICE_DEVICE_OPS_H
#define CADRE_BASE_DEVICE_DEVICE_OPS_H

#include "base/device/device.h"
#include "base/device/device_host.h"
#include "base/device/stream_mark.h"
#include "base/memory.h"
#include "base/shared_memory.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#define BASE_DEVICE_NAME_BYTES 96
#define BASE_DEVICE_POLL_MS    50 /* longest time between two looks at the stop flag */

/* What base_export_t holds. */
typedef struct base_export_fields {
    uint64_t magic;
    int32_t kind;  /* base_device_kind_t */
    int32_t count; /* counters of a bank; -1: a buffer */
    int64_t bytes;
    base_shared_name_t memory;
    unsigned char native[64]; /* cudaIpcMemHandle_t */
} base_export_fields_t;

/* One entry per operation. Entries marked "CPU family" are NULL elsewhere. */
typedef struct base_device_ops {
    void (*close)(base_device_t *dev);
    /* Of DEVICE memory, all that there is and what nobody has taken; NULL, or 0 returned: not known. */
    int (*memory)(base_device_t *dev, int64_t *free_bytes, int64_t *all_bytes);

    base_status_t (*buffer_alloc)(base_device_t *dev, base_memory_kind_t kind, int64_t bytes,
                                  const char *name, base_buffer_t **buf_p);
    void (*buffer_free)(base_buffer_t *buf);
    /* CPU family, may be NULL: let the running work touch bytes [offset, offset + bytes), and no
     * longer. */
    base_status_t (*buffer_open)(base_buffer_t *buf, int64_t offset, int64_t bytes,
                                 base_access_t access);
    void (*buffer_close)(base_buffer_t *buf, int64_t offset, int64_t bytes, base_access_t access);

    base_status_t (*stream_create)(base_device_t *dev, base_stream_kind_t kind, const char *name,
                                   base_stream_t **s_p);
    void (*stream_destroy)(base_stream_t *s);
    base_status_t (*stream_sync)(base_stream_t *s);
    void (*stream_dawdle)(
        uint64_t *random); /* CPU family, may be NULL: called before each item of a worker */
    base_status_t (*stream_submit)(base_stream_t *s, base_work_fn work, const void *args,
                                   size_t args_bytes, const base_operand_t *operands,
                                   int num_operands); /* CPU family */
    void *(*stream_native)(base_stream_t *s);         /* NULL: none */
    /* May be NULL: the device cannot tell. Calls base_stream_marked when the stream comes to this
     * place, or once it is known when it did (a device with events: at the next synchronisation). */
    base_status_t (*stream_mark)(base_stream_t *s, const base_mark_t *mark);

    base_status_t (*event_create)(base_device_t *dev, base_event_t **e_p);
    void (*event_destroy)(base_event_t *e);
    base_status_t (*event_record)(base_event_t *e, base_stream_t *s);
    base_status_t (*stream_wait_event)(base_stream_t *s, base_event_t *e);
    base_status_t (*event_query)(base_event_t *e);

    base_status_t (*counter_create)(base_device_t *dev, base_counter_t **c_p);
    void (*counter_destroy)(base_counter_t *c);
    base_status_t (*stream_signal)(base_stream_t *s, base_counter_t *c, uint64_t value);
    /* May be NULL: one by one. */
    base_status_t (*stream_signal_all)(base_stream_t *s, const base_signal_t *signals, int num);
    base_status_t (*stream_wait_counter)(base_stream_t *s, base_counter_t *c, uint64_t value);
    /* May be NULL: one by one. */
    base_status_t (*stream_wait_all)(base_stream_t *s, const base_signal_t *waits, int num);

    /* Of a buffer that can be exported; fills memory or native of what base_export holds. */
    base_status_t (*buffer_export)(base_buffer_t *buf, base_export_fields_t *fields);
    base_status_t (*buffer_import)(base_device_t *dev, const base_export_fields_t *fields,
                                   const char *name, base_buffer_t **buf_p);
    /* Of a bank's memory; NULL: nothing to do. */
    base_status_t (*bank_map)(base_device_t *dev, void *address, int64_t bytes);
    void (*bank_unmap)(base_device_t *dev, void *address);
    /* A counter whose word lies in a bank; destroyed by counter_destroy. */
    base_status_t (*counter_at)(base_device_t *dev, _Atomic uint64_t *word, base_counter_t **c_p);

    base_status_t (*copy)(base_stream_t *s, const base_range_t *dst, const base_range_t *src);
    base_status_t (*fill)(base_stream_t *s, const base_range_t *dst, uint8_t byte);
    base_status_t (*upload)(base_stream_t *s, base_mem_t dst, const void *src, int64_t bytes);
    base_status_t (*download)(base_stream_t *s, void *dst, base_mem_t src, int64_t bytes);
} base_device_ops_t;

struct base_device {
    const base_device_ops_t *ops;
    base_ctx_t *ctx;
    base_device_kind_t kind;
    int index;
    _Atomic uint64_t seed;
    atomic_bool shares;                  /* new DEVICE buffers can be exported */
    _Atomic int64_t waits;               /* base_device_waits */
    _Atomic int64_t event_waits;         /* base_device_event_waits */
    _Atomic uint64_t num_buffers;        /* made so far */
    struct base_host_kept *_Atomic kept; /* CPU family: memory that other processes may open */
    char name[BASE_DEVICE_NAME_BYTES];
};

struct base_buffer {
    base_device_t *dev;
    base_memory_kind_t kind;
    int64_t bytes;
    unsigned char *address; /* never NULL */
    uint64_t serial;        /* no two buffers of a device have the same */
    bool imported, exported;
    int64_t own_bytes;     /* cuda, pinned: of memory of ours (cuda_pinned.h); 0: the driver's */
    base_shared_t *shared; /* CPU family: the memory, when other processes can reach it */
    struct base_host_kept *note; /* with which it is kept; NULL until it is exported */
    char name[BASE_DEVICE_NAME_BYTES];
};

struct base_stream {
    base_device_t *dev;
    base_stream_kind_t kind;
    _Atomic int
        status; /* first error of work given earlier (base_status_t); every later call returns it */
    base_stream_part_t *part; /* NULL: none */
    base_meter_t *meter;      /* NULL: marks are nothing */
    int lane;                 /* of the trace */
    base_settle_fn settle;    /* NULL: nothing is under way */
    void *settle_user;
    char name[BASE_DEVICE_NAME_BYTES];
};

struct base_event {
    base_device_t *dev;
    atomic_bool recorded;
};

/* The value lives in *word: `own`, or memory that the device or other processes write as well. A
 * released counter's is above BASE_COUNTER_MAX. Waiters of the CPU family sleep on `raised`, those of a
 * bank's counter on the word itself (futex); a device's writes do not wake them, so with
 * device_writes they look often instead. */
struct base_counter {
    base_device_t *dev;
    _Atomic uint64_t *word;
    _Atomic uint64_t own;
    _Atomic uint64_t promised; /* highest value that any signal or raise was given; UINT64_MAX:
                                  released */
    pthread_mutex_t mutex;
    pthread_cond_t raised;
    bool device_writes;
    bool in_bank;
};

/* ==== openers, one per kind; called by base_device_open ==== */

base_status_t base_device_open_cpu(base_ctx_t *ctx, int index,
                                   base_device_t **dev_p) BASE_MUST_CHECK;
base_status_t base_device_open_strict(base_ctx_t *ctx, int index,
                                      base_device_t **dev_p) BASE_MUST_CHECK;
base_status_t base_device_open_cuda(base_ctx_t *ctx, int index,
                                    base_device_t **dev_p) BASE_MUST_CHECK;

/* ==== common parts ==== */

void base_device_init_common(base_device_t *dev, const base_device_ops_t *ops, base_ctx_t *ctx,
                             base_device_kind_t kind, int index, const char *name);
void base_buffer_init_common(base_buffer_t *buf, base_device_t *dev, base_memory_kind_t kind,
                             int64_t bytes, const char *name);
void base_stream_init_common(base_stream_t *s, base_device_t *dev, base_stream_kind_t kind,
                             const char *name);
/* word NULL: the counter's own. */
base_status_t base_counter_init_common(base_counter_t *c, base_device_t *dev,
                                       _Atomic uint64_t *word) BASE_MUST_CHECK;
void base_counter_deinit_common(base_counter_t *c);

/* Stores value, unless the counter is released, and wakes waiters; the caller has seen to it that
 * it is higher. */
void base_counter_store(base_counter_t *c, uint64_t value);
/* base_counter_wait_host with the waiter's name in the text. */
base_status_t base_counter_wait_named(base_ctx_t *ctx, const char *who, base_counter_t *c,
                                      uint64_t value, int64_t slice_ms) BASE_MUST_CHECK;

/* Bytes from the range's first to its last, for a checked range that is not empty. */
int64_t base_range_span(const base_range_t *r);

/* CLOCK_MONOTONIC in nanoseconds, and a condition variable that runs on it. */
int64_t base_device_now_ns(void);
int base_device_cond_init(pthread_cond_t *cond);
/* Waits until the condition is signalled or `ns` have passed; the mutex is held. */
void base_device_cond_wait_ns(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t ns);

static inline bool base_device_is_host(const base_device_t *dev)
{
    return dev->kind != BASE_DEVICE_CUDA;
}

#endif
