#include "base/device/stream_mark.h"

#include "base/clock.h"
#include "base/device/device_ops.h"

void base_stream_measure(base_stream_t *s, base_meter_t *meter, int lane)
{
    s->meter = meter;
    s->lane = lane;
}

int base_stream_measured(const base_stream_t *s)
{
    return s->meter != NULL && s->dev->ops->stream_mark != NULL;
}

static base_status_t give(base_stream_t *s, const base_mark_t *mark)
{
    if (!base_stream_measured(s)) return BASE_OK;
    const base_status_t st = (base_status_t)atomic_load_explicit(&s->status, memory_order_acquire);
    return st < 0 ? st : s->dev->ops->stream_mark(s, mark);
}

base_status_t base_stream_begin(base_stream_t *s, const char *name, const base_trace_note_t *note)
{
    const base_mark_t mark = {.kind = BASE_TRACE_BEGIN, .name = name, .note = *note};

    return give(s, &mark);
}

base_status_t base_stream_end(base_stream_t *s)
{
    const base_mark_t mark = {.kind = BASE_TRACE_END, .name = ""};

    return give(s, &mark);
}

static base_status_t give_flow(base_stream_t *s, base_trace_kind_t kind, const char *name,
                               int64_t id)
{
    const base_mark_t mark = {.kind = kind, .name = name, .flow = id};

    return base_ctx_trace(s->dev->ctx) == NULL ? BASE_OK : give(s, &mark);
}

base_status_t base_stream_flow_start(base_stream_t *s, const char *name, int64_t id)
{
    return give_flow(s, BASE_TRACE_FLOW_START, name, id);
}

base_status_t base_stream_flow_finish(base_stream_t *s, const char *name, int64_t id)
{
    return give_flow(s, BASE_TRACE_FLOW_FINISH, name, id);
}

void base_stream_marked(base_stream_t *s, const base_mark_t *mark, int64_t at_ns)
{
    if (mark->kind == BASE_TRACE_BEGIN) base_meter_begin(s->meter, mark->note.part, at_ns);
    if (mark->kind == BASE_TRACE_END) base_meter_end(s->meter, at_ns);
    base_trace_record(base_ctx_trace(s->dev->ctx), mark->kind, s->lane, mark->name, at_ns,
                      mark->flow, &mark->note);
}

static void record_wait(base_stream_t *s, const char *name, base_part_t part,
                        const base_trace_note_t *note, int64_t from_ns, int64_t to_ns)
{
    base_trace_note_t of = *note;

    if (to_ns <= from_ns) return;
    of.part = part;
    base_trace_record(base_ctx_trace(s->dev->ctx), BASE_TRACE_SPAN, s->lane, name, from_ns,
                      to_ns - from_ns, &of);
}

void base_stream_waited(base_stream_t *s, const base_trace_note_t *note, int64_t from_ns,
                        int64_t ready_ns)
{
    const int64_t now = base_clock_ns();
    const int64_t late = ready_ns < now ? ready_ns : now;
    const int64_t ready = late > from_ns ? late : from_ns;

    if (!base_stream_measured(s)) return;
    base_meter_waited(s->meter, from_ns, ready, now);
    record_wait(s, "wait for the rank", BASE_PART_WAITING, note, from_ns, ready);
    record_wait(s, "wait for the data", BASE_PART_EXCHANGE, note, ready, now);
}
