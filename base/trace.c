#include "base/trace.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json_write.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>

typedef struct event {
    int64_t at_ns;
    int64_t value;
    const char *name;
    int32_t lane;
    _Atomic int32_t kind; /* stored last, with release: 0 while the rest is being written */
} event_t;

struct base_trace {
    base_ctx_t *ctx;
    event_t *events;
    int64_t capacity;
    _Atomic int64_t offset_ns;
    _Atomic int64_t next; /* may pass capacity: the rest was dropped */
    _Atomic(const char *) lane_name[BASE_TRACE_LANES];
};

base_status_t base_trace_create(base_ctx_t *ctx, int64_t capacity, base_trace_t **trace_p)
{
    base_trace_t *trace;

    if (capacity < 1)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "trace: room for %" PRId64 " events, want at least 1", capacity);
    trace = base_calloc(ctx, 1, sizeof *trace, "trace");
    if (trace == NULL) return BASE_ERR_NOMEM;
    trace->events = base_calloc(ctx, capacity, sizeof *trace->events, "trace events");
    if (trace->events == NULL) {
        base_free(ctx, trace);
        return BASE_ERR_NOMEM;
    }
    trace->ctx = ctx;
    trace->capacity = capacity;
    atomic_init(&trace->offset_ns, 0);
    atomic_init(&trace->next, 0);
    for (int i = 0; i < BASE_TRACE_LANES; i++)
        atomic_init(&trace->lane_name[i], NULL);
    for (int64_t i = 0; i < capacity; i++)
        atomic_init(&trace->events[i].kind, 0);
    *trace_p = trace;
    return BASE_OK;
}

void base_trace_destroy(base_trace_t *trace)
{
    base_ctx_t *ctx;

    if (trace == NULL) return;
    ctx = trace->ctx;
    base_free(ctx, trace->events);
    base_free(ctx, trace);
}

void base_trace_name_lane(base_trace_t *trace, int lane, const char *name)
{
    if (trace != NULL && lane >= 0 && lane < BASE_TRACE_LANES)
        atomic_store_explicit(&trace->lane_name[lane], name, memory_order_release);
}

void base_trace_set_offset_ns(base_trace_t *trace, int64_t offset_ns)
{
    atomic_store(&trace->offset_ns, offset_ns);
}

void base_trace_record(base_trace_t *trace, base_trace_kind_t kind, int lane, const char *name,
                       int64_t at_ns, int64_t value)
{
    int64_t i;
    event_t *e;

    if (trace == NULL) return;
    i = atomic_fetch_add_explicit(&trace->next, 1, memory_order_relaxed);
    if (i >= trace->capacity) return;
    e = &trace->events[i];
    e->at_ns = at_ns;
    e->value = value;
    e->name = name;
    e->lane = lane;
    atomic_store_explicit(&e->kind, (int32_t)kind, memory_order_release);
}

void base_trace_record_now(base_trace_t *trace, base_trace_kind_t kind, int lane, const char *name,
                           int64_t value)
{
    base_trace_record(trace, kind, lane, name, base_clock_ns(), value);
}

int64_t base_trace_recorded(const base_trace_t *trace)
{
    const int64_t next = atomic_load(&trace->next);

    return next < trace->capacity ? next : trace->capacity;
}

int64_t base_trace_dropped(const base_trace_t *trace)
{
    const int64_t next = atomic_load(&trace->next);

    return next > trace->capacity ? next - trace->capacity : 0;
}

/* ==== writing ==== */

static void key_string(base_json_t *j, const char *key, const char *value)
{
    base_json_key(j, key);
    base_json_string(j, value);
}

static void key_int(base_json_t *j, const char *key, int64_t value)
{
    base_json_key(j, key);
    base_json_int(j, value);
}

/* Nanoseconds as microseconds. A double holds them to the nanosecond for 104 days after boot. */
static void key_us(base_json_t *j, const char *key, int64_t ns)
{
    base_json_key(j, key);
    base_json_double(j, (double)ns / 1000.0);
}

static void write_meta(base_json_t *j, int rank, int lane, const char *what, const char *name)
{
    base_json_begin_object(j);
    key_string(j, "ph", "M");
    key_int(j, "pid", rank);
    key_int(j, "tid", lane);
    key_string(j, "name", what);
    base_json_key(j, "args");
    base_json_begin_object(j);
    key_string(j, "name", name);
    base_json_end(j);
    base_json_end(j);
}

static const char *phase_of(base_trace_kind_t kind)
{
    switch (kind) {
    case BASE_TRACE_BEGIN:
        return "B";
    case BASE_TRACE_END:
        return "E";
    case BASE_TRACE_SPAN:
        return "X";
    case BASE_TRACE_INSTANT:
        return "i";
    case BASE_TRACE_FLOW_START:
        return "s";
    case BASE_TRACE_FLOW_FINISH:
        return "f";
    case BASE_TRACE_COUNTER:
        return "C";
    }
    return NULL;
}

static void write_event(base_json_t *j, const event_t *e, base_trace_kind_t kind, int rank,
                        int64_t offset_ns)
{
    const char *phase = phase_of(kind);

    if (phase == NULL) return;
    base_json_begin_object(j);
    key_string(j, "ph", phase);
    key_int(j, "pid", rank);
    key_int(j, "tid", e->lane);
    key_us(j, "ts", e->at_ns + offset_ns);
    if (kind != BASE_TRACE_END) key_string(j, "name", e->name);
    switch (kind) {
    case BASE_TRACE_SPAN:
        key_us(j, "dur", e->value);
        break;
    case BASE_TRACE_INSTANT:
        key_string(j, "s", "t"); /* drawn in its lane only */
        break;
    case BASE_TRACE_FLOW_START:
    case BASE_TRACE_FLOW_FINISH:
        key_string(j, "cat", "flow");
        key_int(j, "id", e->value);
        if (kind == BASE_TRACE_FLOW_FINISH)
            key_string(j, "bp", "e"); /* bind to the enclosing span, not to the next one */
        break;
    case BASE_TRACE_COUNTER:
        base_json_key(j, "args");
        base_json_begin_object(j);
        key_int(j, "value", e->value);
        base_json_end(j);
        break;
    case BASE_TRACE_BEGIN:
    case BASE_TRACE_END:
        break;
    }
    base_json_end(j);
}

static void write_all(base_trace_t *trace, base_json_t *j)
{
    const int rank = base_ctx_rank(trace->ctx);
    const int64_t count = base_trace_recorded(trace);
    const int64_t offset_ns = atomic_load(&trace->offset_ns);
    char name[32];

    (void)snprintf(name, sizeof name, "rank %d", rank);
    base_json_begin_object(j);
    key_string(j, "displayTimeUnit", "ms");
    key_int(j, "dropped", base_trace_dropped(trace));
    base_json_key(j, "traceEvents");
    base_json_begin_array(j);
    write_meta(j, rank, 0, "process_name", name);
    for (int lane = 0; lane < BASE_TRACE_LANES; lane++) {
        const char *lane_name = atomic_load_explicit(&trace->lane_name[lane], memory_order_acquire);

        if (lane_name != NULL) write_meta(j, rank, lane, "thread_name", lane_name);
    }
    for (int64_t i = 0; i < count; i++) {
        const event_t *e = &trace->events[i];
        const int32_t kind = atomic_load_explicit(&e->kind, memory_order_acquire);

        if (kind != 0) write_event(j, e, (base_trace_kind_t)kind, rank, offset_ns);
    }
    base_json_end(j);
    base_json_end(j);
    base_json_newline(j);
}

base_status_t base_trace_write(base_trace_t *trace, const char *path)
{
    base_file_t *file;
    base_json_t j;
    base_status_t st;

    BASE_TRY(base_file_create(trace->ctx, path, &file));
    base_json_to_file(&j, base_file_stream(file));
    write_all(trace, &j);
    st = base_json_finish(&j, trace->ctx, path);
    if (st < 0) {
        base_file_discard(file);
        return st;
    }
    return base_file_commit(file);
}
