/* Trace: what each thread and stream of a rank did when, written as Chrome trace JSON
 * (chrome://tracing, Perfetto).
 *
 * Room for all events is taken once, at creation. Recording is a clock read, one atomic add and a
 * store of 80 bytes: no lock and no allocation. When the room is used up, further events are dropped
 * and counted. Names are static strings: the trace keeps the pointer. Every recording function
 * takes NULL for "no trace" and then costs one comparison:
 *
 *   base_trace_t *t = base_ctx_trace(ctx);
 *   base_trace_begin(t, lane, "dense");
 *   ...
 *   base_trace_end(t, lane);
 *
 * A lane is a line of the picture: one per thread and one per stream, numbered from 0 by the owner
 * of the rank. Begin and end of a lane nest and come from one thread at a time. What a GPU stream
 * did is known only afterwards: measured spans are added with base_trace_span. Spans of a stream
 * come from its marks (base/device/stream_mark.h), with what they are about (base_trace_note_t).
 *
 * Threads: recording from all threads. base_trace_write while others record writes the events that
 * are complete. */
#ifndef CADRE_BASE_TRACE_H
#define CADRE_BASE_TRACE_H

#include "base/context.h"
#include "base/meter.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BASE_TRACE_LANES      64
#define BASE_TRACE_NAME_BYTES 32

/* The lanes of a rank of training. What one rank sends another has a lane for each peer and channel
 * (comm/transport.h), from BASE_LANE_EXCHANGE on. */
enum { BASE_LANE_COMPUTE, BASE_LANE_HOST, BASE_LANE_PLANNING, BASE_LANE_EXCHANGE = 4 };

typedef enum base_trace_kind {
    BASE_TRACE_BEGIN = 1,
    BASE_TRACE_END,
    BASE_TRACE_SPAN,
    BASE_TRACE_INSTANT,
    BASE_TRACE_FLOW_START,
    BASE_TRACE_FLOW_FINISH,
    BASE_TRACE_COUNTER
} base_trace_kind_t;

/* What an event is about: numbers with static names, and the part of the time it is (its category).
 */
#define BASE_TRACE_NOTES 4
typedef struct base_trace_note {
    base_part_t part;
    const char *const *keys; /* static, [BASE_TRACE_NOTES], NULL behind the last; or NULL: none */
    int64_t values[BASE_TRACE_NOTES];
} base_trace_note_t;

/* A straight line through two readings of another clock: at here_ns of ours it was
 * here_ns + offset_ns there, give or take error_ns. */
typedef struct base_trace_clock {
    int64_t here_ns[2], offset_ns[2], error_ns;
} base_trace_clock_t;

/* Takes room for `capacity` events (80 bytes each) from the context, which it borrows. */
base_status_t base_trace_create(base_ctx_t *ctx, int64_t capacity,
                                base_trace_t **trace_p) BASE_MUST_CHECK;
void base_trace_destroy(base_trace_t *trace); /* NULL is legal; nothing may record any more */

/* Names a lane ("compute", "progress"); copied, cut at BASE_TRACE_NAME_BYTES. Before anything
 * records. Lanes beyond BASE_TRACE_LANES keep their number as name. */
void base_trace_name_lane(base_trace_t *trace, int lane, const char *name);

/* When the file is written, every time is brought to that clock (comm/clock_offset.h), so that the
 * files of several hosts fit together. Equal here_ns: the first offset alone. */
void base_trace_set_clock(base_trace_t *trace, const base_trace_clock_t *clock);
int64_t base_trace_clock_at(const base_trace_clock_t *clock, int64_t here_ns);

/* Use the functions below. `value`: flow id, counter value, or length in nanoseconds. `note` may be
 * NULL; it is copied. */
void base_trace_record(base_trace_t *trace, base_trace_kind_t kind, int lane, const char *name,
                       int64_t at_ns, int64_t value, const base_trace_note_t *note);
/* As base_trace_record, now. */
void base_trace_record_now(base_trace_t *trace, base_trace_kind_t kind, int lane, const char *name,
                           int64_t value);

static inline void base_trace_begin(base_trace_t *trace, int lane, const char *name)
{
    if (trace != NULL) base_trace_record_now(trace, BASE_TRACE_BEGIN, lane, name, 0);
}

static inline void base_trace_end(base_trace_t *trace, int lane)
{
    if (trace != NULL) base_trace_record_now(trace, BASE_TRACE_END, lane, "", 0);
}

static inline void base_trace_instant(base_trace_t *trace, int lane, const char *name)
{
    if (trace != NULL) base_trace_record_now(trace, BASE_TRACE_INSTANT, lane, name, 0);
}

/* An arrow from the span that is open on the lane at the start to the one at the finish; also
 * between ranks. Both ends give the same name and id. */
static inline void base_trace_flow_start(base_trace_t *trace, int lane, const char *name,
                                         int64_t id)
{
    if (trace != NULL) base_trace_record_now(trace, BASE_TRACE_FLOW_START, lane, name, id);
}

static inline void base_trace_flow_finish(base_trace_t *trace, int lane, const char *name,
                                          int64_t id)
{
    if (trace != NULL) base_trace_record_now(trace, BASE_TRACE_FLOW_FINISH, lane, name, id);
}

static inline void base_trace_counter(base_trace_t *trace, const char *name, int64_t value)
{
    if (trace != NULL) base_trace_record_now(trace, BASE_TRACE_COUNTER, 0, name, value);
}

/* A span measured elsewhere, on the monotonic clock of base/clock.h. */
static inline void base_trace_span(base_trace_t *trace, int lane, const char *name,
                                   int64_t begin_ns, int64_t end_ns)
{
    if (trace != NULL)
        base_trace_record(trace, BASE_TRACE_SPAN, lane, name, begin_ns, end_ns - begin_ns, NULL);
}

int64_t base_trace_recorded(const base_trace_t *trace);
int64_t base_trace_dropped(const base_trace_t *trace);

/* Writes the events as Chrome trace JSON, one to a line, behind a line with "dropped", "ranks" (how
 * many there are) and "clock_error_us": pid is the rank, tid the lane, ts in
 * microseconds with three decimals; before them the name of the process, `role` ("trainer 0"; NULL:
 * only the rank). Replaces the file at once (base/file.h). The events stay. */
base_status_t base_trace_write(base_trace_t *trace, const char *role,
                               const char *path) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
