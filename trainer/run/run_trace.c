#include "trainer/run/run_trace.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "comm/clock_offset.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* 80 bytes each: a rank gives at most so much memory, later events are dropped. */
#define MOST_EVENTS (INT64_C(1) << 21)

struct tr_run_trace {
    base_ctx_t *ctx;
    comm_group_t *group;
    tr_trainer_t *trainer;
    base_trace_t *trace;
    int64_t microbatches;
    int written;
    base_trace_clock_t clock;
    char role[BASE_TRACE_NAME_BYTES];
    char *folder, *path;
};

/* Steps, launches, waits, arrows and transfers of a layer, generously; and what lies around. */
static int64_t count_events(const tr_trainer_t *trainer, int64_t microbatches)
{
    const int64_t layers = trainer->model->config.num_layers + 1;
    const int64_t a_microbatch = layers * 4 * (16 + 10 * (int64_t)trainer->topology->num_ranks);
    const int64_t all = MOST_EVENTS / (a_microbatch + 256);

    return all < microbatches ? MOST_EVENTS : (a_microbatch + 256) * microbatches + 1024;
}

static base_status_t read_clock(tr_run_trace_t *t, int end)
{
    comm_clock_reading_t r;

    BASE_TRY(comm_clock_read(t->group, NULL, NULL, &r));
    t->clock.here_ns[end] = r.here_ns;
    t->clock.offset_ns[end] = r.offset_ns;
    if (r.error_ns > t->clock.error_ns) t->clock.error_ns = r.error_ns;
    return BASE_OK;
}

static base_status_t make_paths(tr_run_trace_t *t, const char *output)
{
    const size_t room = strlen(output) + 64;

    t->folder = base_alloc(t->ctx, room, "path of the trace");
    t->path = base_alloc(t->ctx, room, "path of the trace");
    if (t->folder == NULL || t->path == NULL) return BASE_ERR_NOMEM;
    (void)snprintf(t->folder, room, "%s/trace", output);
    (void)snprintf(t->path, room, "%s/rank-%04d.json", t->folder, base_ctx_rank(t->ctx));
    return base_file_make_dirs(t->ctx, t->folder);
}

static void destroy(tr_run_trace_t *t)
{
    base_trace_destroy(t->trace);
    base_free(t->ctx, t->path);
    base_free(t->ctx, t->folder);
    base_free(t->ctx, t);
}

base_status_t tr_run_trace_create(base_ctx_t *ctx, comm_group_t *group, const char *output,
                                  int64_t microbatches, tr_trainer_t *trainer, const char *role,
                                  tr_run_trace_t **trace_p)
{
    base_status_t st;

    tr_run_trace_t *t = base_calloc(ctx, 1, sizeof *t, "trace of the run");
    if (t == NULL) return BASE_ERR_NOMEM;
    t->ctx = ctx;
    t->group = group;
    t->trainer = trainer;
    t->microbatches = microbatches;
    (void)snprintf(t->role, sizeof t->role, "%s", role);
    BASE_TRY_GOTO(make_paths(t, output), st, err_destroy);
    BASE_TRY_GOTO(base_trace_create(ctx, count_events(trainer, microbatches), &t->trace), st,
                  err_destroy);
    base_trace_name_lane(t->trace, BASE_LANE_COMPUTE, "compute");
    base_trace_name_lane(t->trace, BASE_LANE_HOST, "host");
    base_trace_name_lane(t->trace, BASE_LANE_PLANNING, "planning");
    comm_trace_name_lanes(t->trace, group);
    BASE_TRY_GOTO(read_clock(t, 0), st, err_destroy);
    base_ctx_set_trace(ctx, t->trace);
    *trace_p = t;
    return BASE_OK;
err_destroy:
    destroy(t);
    return st;
}

/* Nothing of what this rank has given is still to be recorded: streams were waited for, or their
 * rank has failed and they record no more. */
static base_status_t write_file(tr_run_trace_t *t)
{
    base_ctx_set_trace(t->ctx, NULL);
    t->written = 1;
    base_trace_set_clock(t->trace, &t->clock);
    BASE_TRY(base_trace_write(t->trace, t->role, t->path));
    if (base_ctx_rank(t->ctx) == 0)
        base_log_info(base_ctx_log(t->ctx),
                      "%s: a trace of %" PRId64 " microbatches, one file a rank", t->folder,
                      t->microbatches);
    return BASE_OK;
}

static base_status_t finish(tr_run_trace_t *t)
{
    BASE_TRY(base_stream_sync(t->trainer->stream));
    BASE_TRY(read_clock(t, 1));
    return write_file(t);
}

base_status_t tr_run_trace_microbatch(tr_run_trace_t *trace, int64_t done)
{
    if (trace == NULL || trace->written || done < trace->microbatches) return BASE_OK;
    return finish(trace);
}

base_status_t tr_run_trace_close(tr_run_trace_t *trace, base_status_t outcome)
{
    base_status_t st = BASE_OK;

    if (trace == NULL) return BASE_OK;
    if (!trace->written) st = outcome >= 0 ? finish(trace) : write_file(trace);
    base_ctx_set_trace(trace->ctx, NULL);
    destroy(trace);
    return st;
}
