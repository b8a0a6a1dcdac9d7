/* What a stream of the CPU family has been given and what has run, counted; private to
 * base/device.
 *
 * Item n (1, 2, ...) has run when num_done >= n, since a stream runs in order. An event is
 * therefore a timeline and a number: recording costs no item, a wait copies the two and keeps
 * its meaning when the event is recorded again, and a timeline outlives its stream while events
 * or waits refer to it (references counted).
 *
 * All fields but refs are guarded by mutex, which also gives the happens-before edge from the
 * worker's writes to whoever saw num_done. */
#ifndef CADRE_BASE_DEVICE_HOST_TIMELINE_H
#define CADRE_BASE_DEVICE_HOST_TIMELINE_H

#include "base/device/device_ops.h"

typedef struct base_host_timeline {
    base_ctx_t *ctx;
    pthread_mutex_t mutex;
    pthread_cond_t given; /* the worker waits here */
    pthread_cond_t done;  /* everyone else waits here */
    uint64_t num_given;
    uint64_t num_done;
    uint64_t failed_at; /* first item that failed, 0: none */
    base_status_t status;
    _Atomic int refs;
} base_host_timeline_t;

base_status_t base_host_timeline_create(base_ctx_t *ctx,
                                        base_host_timeline_t **t_p) BASE_MUST_CHECK;
void base_host_timeline_retain(base_host_timeline_t *t);
void base_host_timeline_release(base_host_timeline_t *t); /* the last one frees; NULL is legal */

/* BASE_PENDING until item n has run, then BASE_OK, or the error of the first item up to n that
 * failed. */
base_status_t base_host_timeline_query(base_host_timeline_t *t, uint64_t n);

/* Waits for that. Ends at the deadline and at a stop request of the context; `who` is named in
 * the text. */
base_status_t base_host_timeline_wait(base_host_timeline_t *t, uint64_t n,
                                      const char *who) BASE_MUST_CHECK;

/* As base_host_timeline_wait, for the owner of the stream: the deadline counts from the last
 * item that ended, and after a stop request the work gets a little time to end by itself, since
 * its memory is about to be freed. */
base_status_t base_host_timeline_drain(base_host_timeline_t *t, const char *who) BASE_MUST_CHECK;

/* Item num_done + 1 has run with this status. */
void base_host_timeline_advance(base_host_timeline_t *t, base_status_t st);

#endif
