#include "trainer/bench/bench_plan_profile.h"

#include "attention_server/cost.h"
#include "base/memory.h"
#include "base/philox.h"
#include "base/version.h"
#include "kernels/op.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

#define TILE    KERN_ATTENTION_TILE
/* Each task is timed once in each round: what slows the machine down for a while does not spoil all
 * runs of one of them. */
#define ROUNDS        20
#define MAX_HELD_ROWS 512

/* Rows [q0, q1) and the least time they took. */
typedef struct timed {
    int64_t q0, q1;
    int64_t ns[AS_PROFILE_DIRECTIONS];
} timed_t;

/* Tensors of one KV head over max_keys rows of one document. */
typedef struct rig {
    base_ctx_t *ctx;
    const tr_bench_profile_t *options;
    base_device_t *dev;
    base_stream_t *s;
    base_buffer_t *q, *kv, *o, *lse, *delta, *d_o, *dq, *dkv;
} rig_t;

static base_status_t fill(rig_t *r, base_buffer_t *buffer, int64_t count, uint32_t what)
{
    float *values = base_calloc(r->ctx, count, sizeof *values, "bench profile: values");
    base_status_t st;

    if (values == NULL) return BASE_ERR_NOMEM;
    for (int64_t i = 0; i < count; i++)
        values[i] = base_philox_float(
                        base_philox(base_philox_key(5), (uint32_t)i, what, 0, 0).word[0]) -
                    0.5f;
    st = base_upload(r->s, base_mem(buffer, 0), values, count * (int64_t)sizeof *values);
    if (st >= 0) st = base_stream_sync(r->s);
    base_free(r->ctx, values);
    return st;
}

static base_status_t open_rig(rig_t *r)
{
    const int64_t rows = r->options->max_keys, row = r->options->group * r->options->head_dim;
    const struct {
        base_buffer_t **buffer;
        int64_t count;
    } buffers[] = {
        {&r->q, rows * row},        {&r->kv, 2 * rows * r->options->head_dim},
        {&r->o, rows * row},        {&r->lse, rows * r->options->group},
        {&r->d_o, rows * row},      {&r->delta, rows * r->options->group},
        {&r->dq, rows * row},       {&r->dkv, 2 * rows * r->options->head_dim},
    };

    BASE_TRY(base_device_open(r->ctx, BASE_DEVICE_CPU, 0, &r->dev));
    BASE_TRY(base_stream_create(r->dev, BASE_STREAM_COMPUTE, "bench profile", &r->s));
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        BASE_TRY(base_buffer_alloc(r->dev, BASE_MEMORY_DEVICE,
                                   buffers[i].count * (int64_t)sizeof(float), "bench profile",
                                   buffers[i].buffer));
        BASE_TRY(fill(r, *buffers[i].buffer, buffers[i].count, (uint32_t)i));
    }
    return BASE_OK;
}

static void close_rig(rig_t *r)
{
    base_buffer_t *buffers[] = {r->q, r->kv, r->o, r->lse, r->d_o, r->delta, r->dq, r->dkv};

    base_stream_destroy(r->s);
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        base_buffer_free(buffers[i]);
    base_device_close(r->dev);
}

static kern_attention_task_t task_of(const rig_t *r, int64_t q0, int64_t q1)
{
    const int64_t group = r->options->group, dim = r->options->head_dim, row = group * dim;

    return (kern_attention_task_t){
        .q_row0 = q0,
        .q_rows = q1 - q0,
        .kv_heads = 1,
        .q = q0 * row,
        .q_head = r->options->max_keys * row,
        .kv_head = r->options->max_keys * dim,
        .o = q0 * row,
        .o_row = row,
        .o_head = row,
        .lse = q0 * group,
        .lse_head = r->options->max_keys * group,
        .d_o = q0 * row,
        .d_o_row = row,
        .d_o_head = row,
        .delta = q0 * group,
        .delta_head = r->options->max_keys * group,
        .dq = q0 * row,
        .dq_head = r->options->max_keys * row,
        .dkv_head = r->options->max_keys * dim,
    };
}

static base_status_t run_task(rig_t *r, int direction, const kern_attention_task_t *task)
{
    const int64_t v = r->options->max_keys * r->options->head_dim * (int64_t)sizeof(float);
    const double scale = 1 / sqrt((double)r->options->head_dim);
    const kern_attention_fwd_t fwd = {.dtype = KERN_F32,
                                      .group = r->options->group,
                                      .head_dim = r->options->head_dim,
                                      .scale = scale,
                                      .num_tasks = 1,
                                      .tasks = task,
                                      .q = base_mem(r->q, 0),
                                      .k = base_mem(r->kv, 0),
                                      .v = base_mem(r->kv, v),
                                      .o = base_mem(r->o, 0),
                                      .lse = base_mem(r->lse, 0)};
    const kern_attention_bwd_t bwd = {.dtype = KERN_F32,
                                      .group = r->options->group,
                                      .head_dim = r->options->head_dim,
                                      .scale = scale,
                                      .num_tasks = 1,
                                      .tasks = task,
                                      .q = fwd.q,
                                      .k = fwd.k,
                                      .v = fwd.v,
                                      .lse = fwd.lse,
                                      .d_o = base_mem(r->d_o, 0),
                                      .delta = base_mem(r->delta, 0),
                                      .dq = base_mem(r->dq, 0),
                                      .dk = base_mem(r->dkv, 0),
                                      .dv = base_mem(r->dkv, v)};

    if (direction == AS_PROFILE_FORWARD)
        BASE_TRY(kern_attention_fwd_run(r->s, &fwd));
    else
        BASE_TRY(kern_attention_bwd_run(r->s, &bwd));
    return base_stream_sync(r->s);
}

static int64_t process_ns(void)
{
    struct timespec t = {0};

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The forward comes first: it writes the lse that the backward reads. */
static base_status_t time_once(rig_t *r, timed_t *t)
{
    const kern_attention_task_t task = task_of(r, t->q0, t->q1);

    for (int direction = 0; direction < AS_PROFILE_DIRECTIONS; direction++) {
        const int64_t start = process_ns();

        BASE_TRY(run_task(r, direction, &task));
        const int64_t ns = process_ns() - start;
        if (t->ns[direction] == 0 || ns < t->ns[direction]) t->ns[direction] = ns;
    }
    return BASE_OK;
}

/* ==== which tasks ==== */

/* The first three give the constant of a task: two of one tile row against one of both. */
enum { FIRST, SECOND, BOTH, NUM_CONSTANT };

static int32_t list_tasks(const rig_t *r, timed_t *tasks)
{
    const int64_t most = r->options->max_keys;
    int32_t count = NUM_CONSTANT;

    tasks[FIRST] = (timed_t){.q0 = 0, .q1 = TILE};
    tasks[SECOND] = (timed_t){.q0 = TILE, .q1 = 2 * TILE};
    tasks[BOTH] = (timed_t){.q0 = 0, .q1 = 2 * TILE};
    for (int64_t keys = TILE; count < NUM_CONSTANT + AS_PROFILE_MAX_POINTS; keys *= 2) {
        if (keys > most) keys = most;
        tasks[count++] = (timed_t){.q0 = keys - TILE, .q1 = keys};
        if (keys == most) break;
    }
    return count;
}

/* Random rows that begin where a task may. */
static void list_held_out(const rig_t *r, timed_t *tasks)
{
    const int64_t tiles = r->options->max_keys / TILE;

    for (int32_t i = 0; i < r->options->num_held_out; i++) {
        const base_philox_t x = base_philox(base_philox_key(77), (uint32_t)i, 0, 0, 0);
        const int64_t q0 = (int64_t)base_philox_below(x.word[0], x.word[1], (uint64_t)tiles) * TILE;
        int64_t room = r->options->max_keys - q0;

        if (room > MAX_HELD_ROWS) room = MAX_HELD_ROWS;
        tasks[i].q0 = q0;
        tasks[i].q1 = q0 + TILE / 2 +
                      (int64_t)base_philox_below(x.word[2], x.word[3],
                                                 (uint64_t)(room - TILE / 2 + 1));
    }
}

static void make_points(as_profile_t *p, const timed_t *tasks, int32_t count)
{
    for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++) {
        const int64_t ns = tasks[FIRST].ns[d] + tasks[SECOND].ns[d] - tasks[BOTH].ns[d];

        p->task_ps[d] = ns > 0 ? ns * 1000 : 0;
    }
    for (int32_t i = NUM_CONSTANT; i < count; i++) {
        p->keys[p->num_points] = tasks[i].q1;
        for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++) {
            const int64_t ps = tasks[i].ns[d] * 1000 - p->task_ps[d];

            p->tile_row_ps[d][p->num_points] = ps > 0 ? ps : 1;
        }
        p->num_points++;
    }
}

static base_status_t predict(rig_t *r, const as_profile_t *p, const timed_t *tasks,
                             tr_held_out_t *held_out)
{
    as_cost_t *cost;

    BASE_TRY(as_cost_create(r->ctx, p, 0, r->options->max_keys, &cost));
    for (int32_t i = 0; i < r->options->num_held_out; i++) {
        tr_held_out_t *h = &held_out[i];

        h->q0 = tasks[i].q0;
        h->q1 = tasks[i].q1;
        for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++) {
            h->measured_ns[d] = tasks[i].ns[d];
            h->predicted_ns[d] =
                cost->task_ns[d] + as_cost_rows(cost, (as_cost_kind_t)d, h->q0, h->q1);
        }
    }
    as_cost_destroy(cost);
    return BASE_OK;
}

static base_status_t measure(rig_t *r, as_profile_t *p, tr_held_out_t *held_out)
{
    timed_t tasks[NUM_CONSTANT + AS_PROFILE_MAX_POINTS + TR_MAX_HELD_OUT] = {{0, 0, {0, 0}}};
    const int32_t points = list_tasks(r, tasks), count = points + r->options->num_held_out;

    list_held_out(r, tasks + points);
    for (int round = 0; round < ROUNDS; round++)
        for (int32_t i = 0; i < count; i++)
            BASE_TRY(time_once(r, &tasks[i]));
    make_points(p, tasks, points);
    return predict(r, p, tasks + points, held_out);
}

base_status_t tr_bench_profile(base_ctx_t *ctx, const tr_bench_profile_t *options,
                               as_profile_t *profile, tr_held_out_t *held_out)
{
    rig_t r = {.ctx = ctx, .options = options};
    as_profile_t p = {.dtype = "fp32",
                      .group = options->group,
                      .head_dim = options->head_dim,
                      .row_grain = TILE}; /* the CPU computes whole tiles */
    base_status_t st;

    if (options->num_held_out > TR_MAX_HELD_OUT)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "bench profile: %d tasks held out",
                         (int)options->num_held_out);
    base_version_cpu(p.device, sizeof p.device);
    (void)snprintf(p.source, sizeof p.source, "cadre bench profile, %s",
                   base_version_commit());
    BASE_TRY_GOTO(open_rig(&r), st, done);
    BASE_TRY_GOTO(measure(&r, &p, held_out), st, done);
    *profile = p;
done:
    close_rig(&r);
    return st;
}
