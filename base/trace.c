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
    base_trace_note_t note;
    int32_t lane;
    _Atomic int32_t kind; /* stored last, with release: 0 while the rest is being written */
} event_t;

struct base_trace {
    base_ctx_t *ctx;
    event_t *events;
    int64_t capacity;
    base_trace_clock_t clock;
    _Atomic int64_t next; /* may pass capacity: the rest was dropped */
    char lane_name[BASE_TRACE_LANES][BASE_TRACE_NAME_BYTES];
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
    atomic_init(&trace->next, 0);
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
        (void)snprintf(trace->lane_name[lane], BASE_TRACE_NAME_BYTES, "%s", name);
}

void base_trace_set_clock(base_trace_t *trace, const base_trace_clock_t *clock)
{
    trace->clock = *clock;
}

int64_t base_trace_clock_at(const base_trace_clock_t *clock, int64_t here_ns)
{
    const int64_t between = clock->here_ns[1] - clock->here_ns[0];
    const double drift = (double)(clock->offset_ns[1] - clock->offset_ns[0]);

    if (between <= 0) return here_ns + clock->offset_ns[0];
    return here_ns + clock->offset_ns[0] +
           (int64_t)(drift * (double)(here_ns - clock->here_ns[0]) / (double)between);
}

void base_trace_record(base_trace_t *trace, base_trace_kind_t kind, int lane, const char *name,
                       int64_t at_ns, int64_t value, const base_trace_note_t *note)
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
    e->note = note != NULL ? *note : (base_trace_note_t){.part = BASE_PART_NONE};
    atomic_store_explicit(&e->kind, (int32_t)kind, memory_order_release);
}

void base_trace_record_now(base_trace_t *trace, base_trace_kind_t kind, int lane, const char *name,
                           int64_t value)
{
    base_trace_record(trace, kind, lane, name, base_clock_ns(), value, NULL);
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
    base_json_put_string(j, key, value);
}

static void key_int(base_json_t *j, const char *key, int64_t value)
{
    base_json_put_int(j, key, value);
}

/* Nanoseconds as microseconds. A double holds them to the nanosecond for 104 days after boot. */
static void key_us(base_json_t *j, const char *key, int64_t ns)
{
    base_json_put_double(j, key, (double)ns / 1000.0);
}

/* An event a line, so that files of any length can be read line by line. */
typedef struct writer {
    base_trace_t *trace;
    FILE *file;
    const char *path;
    int rank;
    int64_t lines;
    base_json_t json;
    base_status_t status;
} writer_t;

static base_json_t *begin_line(writer_t *w, const char *phase, int lane)
{
    if (w->lines++ > 0) (void)fputs(",\n", w->file);
    base_json_to_file(&w->json, w->file);
    base_json_begin_object(&w->json);
    key_string(&w->json, "ph", phase);
    key_int(&w->json, "pid", w->rank);
    key_int(&w->json, "tid", lane);
    return &w->json;
}

static void end_line(writer_t *w)
{
    base_json_end(&w->json);
    const base_status_t st = base_json_finish(&w->json, w->trace->ctx, w->path);
    if (w->status >= 0) w->status = st;
}

static void write_meta(writer_t *w, int lane, const char *what, const char *name)
{
    base_json_t *j = begin_line(w, "M", lane);

    key_string(j, "name", what);
    base_json_key(j, "args");
    base_json_begin_object(j);
    key_string(j, "name", name);
    base_json_end(j);
    end_line(w);
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

static void write_note(base_json_t *j, const base_trace_note_t *note)
{
    if (note->part != BASE_PART_NONE) key_string(j, "cat", base_part_word(note->part));
    if (note->keys == NULL) return;
    base_json_key(j, "args");
    base_json_begin_object(j);
    for (int i = 0; i < BASE_TRACE_NOTES && note->keys[i] != NULL; i++)
        key_int(j, note->keys[i], note->values[i]);
    base_json_end(j);
}

static void write_event(writer_t *w, const event_t *e, base_trace_kind_t kind)
{
    const char *phase = phase_of(kind);

    if (phase == NULL) return;
    base_json_t *j = begin_line(w, phase, e->lane);
    key_us(j, "ts", base_trace_clock_at(&w->trace->clock, e->at_ns));
    if (kind != BASE_TRACE_END) key_string(j, "name", e->name);
    switch (kind) {
    case BASE_TRACE_SPAN:
        key_us(j, "dur", e->value);
        write_note(j, &e->note);
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
        write_note(j, &e->note);
        break;
    case BASE_TRACE_END:
        break;
    }
    end_line(w);
}

static void write_all(writer_t *w, const char *role)
{
    base_trace_t *trace = w->trace;
    const int64_t count = base_trace_recorded(trace);
    char name[64];

    if (role != NULL)
        (void)snprintf(name, sizeof name, "rank %d (%s)", w->rank, role);
    else
        (void)snprintf(name, sizeof name, "rank %d", w->rank);
    (void)fprintf(w->file,
                  "{\"displayTimeUnit\":\"ms\",\"dropped\":%" PRId64
                  ",\"ranks\":%d,\"clock_error_us\":%.3f,\"traceEvents\":[\n",
                  base_trace_dropped(trace), base_ctx_size(trace->ctx),
                  (double)trace->clock.error_ns / 1000.0);
    write_meta(w, 0, "process_name", name);
    for (int lane = 0; lane < BASE_TRACE_LANES; lane++)
        if (trace->lane_name[lane][0] != '\0')
            write_meta(w, lane, "thread_name", trace->lane_name[lane]);
    for (int64_t i = 0; i < count; i++) {
        const event_t *e = &trace->events[i];
        const int32_t kind = atomic_load_explicit(&e->kind, memory_order_acquire);

        if (kind != 0) write_event(w, e, (base_trace_kind_t)kind);
    }
    (void)fputs("\n]}\n", w->file);
}

base_status_t base_trace_write(base_trace_t *trace, const char *role, const char *path)
{
    writer_t w = {.trace = trace, .path = path, .rank = base_ctx_rank(trace->ctx)};
    base_file_t *file;

    BASE_TRY(base_file_create(trace->ctx, path, &file));
    w.file = base_file_stream(file);
    write_all(&w, role);
    if (w.status < 0) {
        base_file_discard(file);
        return w.status;
    }
    return base_file_commit(file);
}
