/* Marks: what a stream does, measured where it does it and not where the host said so.
 *
 *   base_stream_measure(s, &meter, LANE);
 *   BASE_TRY(base_stream_begin(s, "dense ping forward", &note));      note.part BASE_PART_DENSE
 *   ... work is given to s ...
 *   BASE_TRY(base_stream_end(s));
 *
 * A mark is given to the stream like work. When the stream comes to it, the time goes to the
 * stream's meter and, while the rank has a trace (base_ctx_set_trace), a begin or end to its lane
 * there. A stream that is not measured ignores marks; a GPU's are counted when base_stream_sync has
 * waited, or when many are waiting. A mark of a stream with an error returns that error, as other calls do. */
#ifndef CADRE_BASE_DEVICE_STREAM_MARK_H
#define CADRE_BASE_DEVICE_STREAM_MARK_H

#include "base/device/device.h"
#include "base/trace.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct base_mark {
    base_trace_kind_t kind; /* BEGIN, END, FLOW_START, FLOW_FINISH */
    const char *name;       /* static */
    int64_t flow;           /* id */
    base_trace_note_t note; /* of BEGIN */
} base_mark_t;

/* Before the first mark; borrows the meter while the stream lives. */
void base_stream_measure(base_stream_t *s, base_meter_t *meter, int lane);
/* Whether marks of this stream are counted. */
int base_stream_measured(const base_stream_t *s);

base_status_t base_stream_begin(base_stream_t *s, const char *name,
                                const base_trace_note_t *note) BASE_MUST_CHECK;
base_status_t base_stream_end(base_stream_t *s) BASE_MUST_CHECK;
/* The two ends of an arrow, each within the span that is open (base/trace.h). Nothing without a
 * trace. */
base_status_t base_stream_flow_start(base_stream_t *s, const char *name,
                                     int64_t id) BASE_MUST_CHECK;
base_status_t base_stream_flow_finish(base_stream_t *s, const char *name,
                                      int64_t id) BASE_MUST_CHECK;

/* ==== from work that runs on the stream ==== */

/* It waited from `from_ns` until now: until ready_ns for another rank, then for the data. */
void base_stream_waited(base_stream_t *s, const base_trace_note_t *note, int64_t from_ns,
                        int64_t ready_ns);

/* For devices: the stream came to the mark at this time. In the order of the stream. */
void base_stream_marked(base_stream_t *s, const base_mark_t *mark, int64_t at_ns);

#ifdef __cplusplus
}
#endif
#endif
