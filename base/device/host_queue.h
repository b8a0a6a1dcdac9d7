/* A queue of records of any size, for the items of a worker's stream; private to base/device.
 *
 * Records are written one after the other into chunks; a chunk that has been read goes to a free
 * list. The queue allocates only when its backlog is longer than ever before, and starts with
 * room for several hundred items. Not locked: the stream's mutex is held for every call. A
 * record stays where it is until it is popped. */
#ifndef CADRE_BASE_DEVICE_HOST_QUEUE_H
#define CADRE_BASE_DEVICE_HOST_QUEUE_H

#include "base/device/device_ops.h"

typedef struct base_host_chunk base_host_chunk_t;

typedef struct base_host_queue {
    base_ctx_t *ctx;
    base_host_chunk_t *first; /* is read */
    base_host_chunk_t *last;  /* is written */
    base_host_chunk_t *unused;
} base_host_queue_t;

/* On failure deinit is still legal. */
base_status_t base_host_queue_init(base_host_queue_t *q, base_ctx_t *ctx) BASE_MUST_CHECK;
void base_host_queue_deinit(base_host_queue_t *q);

/* A record at the end, `bytes` a multiple of 16, so that records are aligned; NULL after MEM-01. */
void *base_host_queue_push(base_host_queue_t *q, size_t bytes);

/* The oldest record, or NULL. */
void *base_host_queue_head(base_host_queue_t *q);

/* Drops the oldest record, which has `bytes` bytes. */
void base_host_queue_pop(base_host_queue_t *q, size_t bytes);

#endif
