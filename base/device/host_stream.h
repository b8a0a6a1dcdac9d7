/* Streams, events, counters and copies of the CPU family (cpu, strict); private to base/device.
 *
 * A stream either runs its items inside the call (inline) or has a worker thread that takes them
 * from a queue in order (host_queue.h): an item is one record of header, operands and a copy of
 * the arguments, and nothing is allocated after warm-up.
 *
 * After an item failed the rest is skipped: work does not run and counters are not raised
 * (whoever waits for them sees the stop request or the deadline, never data that was not made);
 * events that were recorded later carry the error. */
#ifndef CADRE_BASE_DEVICE_HOST_STREAM_H
#define CADRE_BASE_DEVICE_HOST_STREAM_H

#include "base/device/host_timeline.h"

/* The base_device_ops entries. The implementation's own stream_create says whether the stream is
 * inline. */
base_status_t base_host_stream_create(base_device_t *dev, base_stream_kind_t kind, const char *name,
                                      bool runs_inline, base_stream_t **s_p) BASE_MUST_CHECK;
void base_host_stream_destroy(base_stream_t *s);
base_status_t base_host_stream_sync(base_stream_t *s);
base_status_t base_host_stream_submit(base_stream_t *s, base_work_fn work, const void *args,
                                      size_t args_bytes, const base_operand_t *operands,
                                      int num_operands);
base_status_t base_host_stream_mark(base_stream_t *s, const base_mark_t *mark);
base_status_t base_host_counter_create(base_device_t *dev, base_counter_t **c_p);
void base_host_counter_destroy(base_counter_t *c);
base_status_t base_host_stream_signal(base_stream_t *s, base_counter_t *c, uint64_t value);
base_status_t base_host_stream_wait_counter(base_stream_t *s, base_counter_t *c, uint64_t value);
/* host_share.c */
/* Closes a shared buffer's memory, or keeps it until base_host_free_kept when it was exported. */
void base_host_close_shared(base_buffer_t *buf);
void base_host_free_kept(base_device_t *dev);
base_status_t base_host_buffer_export(base_buffer_t *buf, base_export_fields_t *fields);
base_status_t base_host_counter_at(base_device_t *dev, _Atomic uint64_t *word,
                                   base_counter_t **c_p);
/* host_event.c */
base_status_t base_host_event_create(base_device_t *dev, base_event_t **e_p);
void base_host_event_destroy(base_event_t *e);
base_status_t base_host_event_record(base_event_t *e, base_stream_t *s);
base_status_t base_host_stream_wait_event(base_stream_t *s, base_event_t *e);
base_status_t base_host_event_query(base_event_t *e);
/* host_copy.c */
base_status_t base_host_copy(base_stream_t *s, const base_range_t *dst, const base_range_t *src);
base_status_t base_host_fill(base_stream_t *s, const base_range_t *dst, uint8_t byte);
base_status_t base_host_upload(base_stream_t *s, base_mem_t dst, const void *src, int64_t bytes);
base_status_t base_host_download(base_stream_t *s, void *dst, base_mem_t src, int64_t bytes);

/* Between the two: the stream's timeline (borrowed), and an item that waits for item n of a
 * timeline (takes the reference). */
base_host_timeline_t *base_host_stream_timeline(base_stream_t *s);
base_status_t base_host_stream_wait_timeline(base_stream_t *s, base_host_timeline_t *t, uint64_t n);

#endif
