#include "trainer/bench/bench_attention_rig.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/philox.h"

#include <math.h>

/* No power of two, nor near a multiple of one: heads and rows that lie a power of two apart would
 * have the same values. */
#define BLOCK        5000192
#define CACHE_BYTES  (INT64_C(400) << 20) /* sets of more do not stay in a GPU's cache */
#define MAX_COPIES   64
#define TIME_NS      4000000 /* that a time takes at least, on a GPU */
#define MAX_CALLS    256
#define ALIGN_VALUES 64

const tr_attention_ops_t TR_ATTENTION_PRODUCT = {
    "product", kern_attention_fwd_run, kern_attention_bwd_run, kern_attention_bwd_workspace};

/* Places in values from the beginning of a copy: inputs, outputs of the compute dtype, and outputs of
 * the accumulation dtype each have a buffer of their own, so that nothing but random values is ever
 * read as input. */
typedef struct layout {
    int64_t rows, row_heads;     /* row_heads: rows times KV heads of each task */
    int64_t keys, task_keys;     /* task_keys: keys times KV heads of each task */
    int64_t shared_keys;         /* of those that share them with another */
    bool staged;                 /* some task has not all heads: see place() */
    int64_t q, kv;               /* values of one operand */
    int64_t dkv, partial, stats; /* partial: of dkv, what is in fp32 first */
    int64_t inputs, reals, accs; /* of a copy */
} layout_t;

struct tr_attention_rig {
    base_ctx_t *ctx;
    const tr_attention_ops_t *ops;
    base_device_t *dev;
    base_stream_t *s;
    kern_dtype_t dtype;
    bool gpu;
    base_buffer_t *inputs, *reals, *accs, *workspace;

    tr_attention_shape_t shape;
    layout_t layout;
    int64_t copies, next; /* copy that the next call takes */
    int64_t workspace_bytes;
    int64_t calls[AS_PROFILE_DIRECTIONS]; /* of a time */
    int32_t num_tasks;
    kern_attention_task_t *tasks;
    int32_t num_sums; /* of the tasks that are not real, one part each */
    kern_sum_t *sums;
    kern_sum_part_t *parts;
};

/* ==== operands ==== */

static int64_t aligned(int64_t values)
{
    return (values + ALIGN_VALUES - 1) / ALIGN_VALUES * ALIGN_VALUES;
}

/* Keys of each document: up to the last row of any of its tasks. */
static int64_t document_keys(const tr_attention_set_t *set, int32_t document)
{
    int64_t keys = 0;

    for (int32_t i = 0; i < set->num_tasks; i++)
        if (set->tasks[i].document == document && set->tasks[i].q1 > keys) keys = set->tasks[i].q1;
    return keys;
}

/* As in training, where a sum of several tasks' gradients is to be made of them first
 * (attention_server/schedule.h). */
static bool shares_keys(const tr_attention_set_t *set, int32_t task)
{
    for (int32_t i = 0; i < set->num_tasks; i++)
        if (i != task && as_tasks_share_keys(&set->tasks[i], &set->tasks[task])) return true;
    return false;
}

static layout_t layout_of(const tr_attention_shape_t *shape, const tr_attention_set_t *set)
{
    const int64_t heads = shape->kv_heads, lanes = shape->head_dim;
    layout_t l = {0};

    for (int32_t i = 0; i < set->num_tasks; i++) {
        const as_task_t *t = &set->tasks[i];
        const int64_t keys = (t->q1 - t->k0) * (t->h1 - t->h0);

        l.rows += t->q1 - t->q0;
        l.row_heads += (t->q1 - t->q0) * (t->h1 - t->h0);
        l.staged = l.staged || t->h1 - t->h0 < shape->kv_heads;
        l.task_keys += keys;
        l.shared_keys += shares_keys(set, i) ? keys : 0;
    }
    for (int32_t d = 0; d < set->num_documents; d++)
        l.keys += document_keys(set, d);
    l.q = aligned(l.row_heads * shape->group * lanes);
    l.kv = aligned(l.keys * heads * lanes);
    l.dkv = aligned(l.task_keys * lanes);
    l.partial = aligned(l.shared_keys * lanes);
    l.stats = aligned(l.row_heads * shape->group);
    l.inputs = 2 * l.q + 2 * l.kv;        /* q, d_o, k, v */
    l.reals = 2 * l.q + 2 * l.dkv;        /* o, dq, dk and dv */
    l.accs = 2 * l.partial + 2 * l.stats; /* partial dk and dv, lse, delta */
    return l;
}

int64_t tr_attention_set_bytes(kern_dtype_t dtype, const tr_attention_shape_t *shape,
                               const tr_attention_set_t *set)
{
    const layout_t l = layout_of(shape, set);

    return (l.inputs + l.reals) * kern_dtype_bytes(dtype) +
           l.accs * kern_dtype_bytes(kern_dtype_acc(dtype));
}

/* Places of a task's operands, the same in every copy. As in a trainer's tensors: q (KV heads, rows of
 * all tasks, group, lanes), o (rows, all heads); or staged as on a server, each task by itself, then both
 * (heads, rows, group, lanes). `before`: what the tasks before hold; `key`: of the documents before. */
typedef struct held {
    int64_t rows, row_heads, keys, shared_keys;
} held_t;

static kern_attention_task_t place(const tr_attention_rig_t *r, const as_task_t *t, bool real,
                                   const held_t *before, int64_t key)
{
    const layout_t *l = &r->layout;
    const int64_t R = r->shape.group, D = r->shape.head_dim, G = r->shape.kv_heads;
    const int64_t head_rows = l->staged ? t->q1 - t->q0 : l->rows;
    const int64_t first = l->staged ? before->row_heads : before->rows; /* in rows of one head */
    kern_attention_task_t x = {.q_row0 = t->q0,
                               .q_rows = t->q1 - t->q0,
                               .kv_row0 = t->k0,
                               .kv_heads = t->h1 - t->h0,
                               .real = real};

    x.q = x.dq = first * R * D;
    x.q_head = x.dq_head = head_rows * R * D;
    x.lse = x.delta = first * R;
    x.lse_head = x.delta_head = head_rows * R;
    x.o = x.d_o = first * R * D * (l->staged ? 1 : G);
    x.o_row = x.d_o_row = R * D * (l->staged ? 1 : G);
    x.o_head = x.d_o_head = R * D * (l->staged ? head_rows : 1);
    x.kv = (t->h0 * l->keys + key + t->k0) * D;
    x.kv_head = l->keys * D;
    x.dkv = (real ? before->keys : before->shared_keys) * D;
    x.dkv_head = (t->q1 - t->k0) * D;
    return x;
}

static void free_tasks(tr_attention_rig_t *r)
{
    base_free(r->ctx, r->tasks);
    base_free(r->ctx, r->sums);
    base_free(r->ctx, r->parts);
    r->tasks = NULL;
    r->sums = NULL;
    r->parts = NULL;
    r->num_tasks = r->num_sums = 0;
}

static base_status_t place_all(tr_attention_rig_t *r, const tr_attention_set_t *set)
{
    const int64_t D = r->shape.head_dim;
    held_t before = {0};

    free_tasks(r);
    r->tasks = base_calloc(r->ctx, set->num_tasks, sizeof *r->tasks, "bench: tasks");
    r->sums = base_calloc(r->ctx, set->num_tasks, sizeof *r->sums, "bench: sums");
    r->parts = base_calloc(r->ctx, set->num_tasks, sizeof *r->parts, "bench: parts");
    if (r->tasks == NULL || r->sums == NULL || r->parts == NULL) return BASE_ERR_NOMEM;
    r->num_tasks = set->num_tasks;
    for (int32_t i = 0; i < set->num_tasks; i++) {
        const as_task_t *t = &set->tasks[i];
        const int64_t keys = (t->q1 - t->k0) * (t->h1 - t->h0);
        const bool real = !shares_keys(set, i);
        int64_t key = 0;

        for (int32_t d = 0; d < t->document; d++)
            key += document_keys(set, d);
        r->tasks[i] = place(r, t, real, &before, key);
        if (!real) {
            r->parts[r->num_sums].src = before.shared_keys * D;
            r->sums[r->num_sums] = (kern_sum_t){.dst = before.keys * D,
                                                .count = keys * D,
                                                .heads = 1,
                                                .num_parts = 1,
                                                .first_part = r->num_sums};
            r->num_sums++;
            before.shared_keys += keys;
        }
        before.rows += t->q1 - t->q0;
        before.row_heads += (t->q1 - t->q0) * (t->h1 - t->h0);
        before.keys += keys;
    }
    return BASE_OK;
}

typedef struct operands {
    base_mem_t q, d_o, k, v, o, dq, dk_real, dv_real, dk, dv, lse, delta;
} operands_t;

static base_mem_t take(base_mem_t *at, int64_t values, int64_t bytes)
{
    const base_mem_t here = *at;

    *at = base_mem_at(here, values * bytes);
    return here;
}

static operands_t operands_of(const tr_attention_rig_t *r, int64_t copy)
{
    const layout_t *l = &r->layout;
    const int64_t real = kern_dtype_bytes(r->dtype),
                  acc = kern_dtype_bytes(kern_dtype_acc(r->dtype));
    base_mem_t in = base_mem(r->inputs, copy * l->inputs * real);
    base_mem_t out = base_mem(r->reals, copy * l->reals * real);
    base_mem_t sums = base_mem(r->accs, copy * l->accs * acc);
    operands_t x;

    x.q = take(&in, l->q, real);
    x.d_o = take(&in, l->q, real);
    x.k = take(&in, l->kv, real);
    x.v = take(&in, l->kv, real);
    x.o = take(&out, l->q, real);
    x.dq = take(&out, l->q, real);
    x.dk_real = take(&out, l->dkv, real);
    x.dv_real = take(&out, l->dkv, real);
    x.dk = take(&sums, l->partial, acc);
    x.dv = take(&sums, l->partial, acc);
    x.lse = take(&sums, l->stats, acc);
    x.delta = take(&sums, l->stats, acc);
    return x;
}

/* ==== random values ==== */

static base_range_t span(base_buffer_t *buffer, int64_t offset, int64_t bytes)
{
    return (base_range_t){base_mem(buffer, offset), bytes, 1, bytes};
}

static base_status_t upload_block(tr_attention_rig_t *r, base_buffer_t *to, int64_t count)
{
    const base_philox_key_t key = base_philox_key(17);
    float *values = base_calloc(r->ctx, count, sizeof *values, "bench: values");
    base_buffer_t *block = NULL;
    base_status_t st;

    if (values == NULL) return BASE_ERR_NOMEM;
    for (int64_t i = 0; i < count; i += 2) {
        double normal[2];

        base_philox_normal2(base_philox(key, (uint32_t)i, 0, 0, 0), normal);
        values[i] = (float)normal[0];
        if (i + 1 < count) values[i + 1] = (float)normal[1];
    }
    BASE_TRY_GOTO(base_buffer_alloc(r->dev, BASE_MEMORY_DEVICE, count * (int64_t)sizeof *values,
                                    "bench: values", &block),
                  st, done);
    BASE_TRY_GOTO(base_upload(r->s, base_mem(block, 0), values, count * (int64_t)sizeof *values),
                  st, done);
    const kern_convert_t convert = {.a = kern_vec(base_mem(block, 0), count, KERN_F32),
                                    .out = kern_vec(base_mem(to, 0), count, r->dtype)};
    BASE_TRY_GOTO(kern_convert_run(r->s, &convert), st, done);
    BASE_TRY_GOTO(base_stream_sync(r->s), st, done);
done:
    base_buffer_free(block);
    base_free(r->ctx, values);
    return st;
}

static base_status_t fill(tr_attention_rig_t *r, base_buffer_t *to)
{
    const int64_t bytes = base_buffer_bytes(to), real = kern_dtype_bytes(r->dtype);
    const int64_t block = bytes / real < BLOCK ? bytes / real : BLOCK;

    BASE_TRY(upload_block(r, to, block));
    for (int64_t done = block * real; done < bytes;) {
        const int64_t more = done < bytes - done ? done : bytes - done;
        const base_range_t dst = span(to, done, more), src = span(to, 0, more);

        BASE_TRY(base_copy(r->s, &dst, &src));
        done += more;
    }
    return base_stream_sync(r->s);
}

/* A buffer of at least so many bytes; *grown: it is a new one. */
static base_status_t grow(tr_attention_rig_t *r, base_buffer_t **buffer, int64_t bytes,
                          const char *name, bool *grown)
{
    *grown = *buffer == NULL || base_buffer_bytes(*buffer) < bytes;
    if (!*grown) return BASE_OK;
    base_buffer_free(*buffer);
    *buffer = NULL;
    return base_buffer_alloc(r->dev, BASE_MEMORY_DEVICE, bytes, name, buffer);
}

/* ==== calls ==== */

static base_status_t run_forward(tr_attention_rig_t *r, const operands_t *x)
{
    const kern_attention_fwd_t args = {.dtype = r->dtype,
                                       .group = r->shape.group,
                                       .head_dim = r->shape.head_dim,
                                       .window = r->shape.window,
                                       .scale = 1 / sqrt((double)r->shape.head_dim),
                                       .num_tasks = r->num_tasks,
                                       .tasks = r->tasks,
                                       .q = x->q,
                                       .k = x->k,
                                       .v = x->v,
                                       .o = x->o,
                                       .lse = x->lse};

    return r->ops->forward(r->s, &args);
}

static kern_attention_bwd_t backward_args(const tr_attention_rig_t *r, const operands_t *x)
{
    return (kern_attention_bwd_t){.dtype = r->dtype,
                                  .group = r->shape.group,
                                  .head_dim = r->shape.head_dim,
                                  .window = r->shape.window,
                                  .scale = 1 / sqrt((double)r->shape.head_dim),
                                  .num_tasks = r->num_tasks,
                                  .tasks = r->tasks,
                                  .q = x->q,
                                  .k = x->k,
                                  .v = x->v,
                                  .lse = x->lse,
                                  .d_o = x->d_o,
                                  .delta = x->delta,
                                  .dq = x->dq,
                                  .dk = x->dk,
                                  .dv = x->dv,
                                  .dk_real = x->dk_real,
                                  .dv_real = x->dv_real};
}

static base_status_t run_delta(tr_attention_rig_t *r, const operands_t *x)
{
    const layout_t *l = &r->layout;
    const int32_t heads = l->staged ? 1 : r->shape.kv_heads; /* staged: a head's row is a row */
    const int64_t rows = l->staged ? l->row_heads : l->rows;
    const int64_t width = (int64_t)heads * r->shape.group * r->shape.head_dim;
    const kern_attention_delta_t args = {.d_o = kern_mat(x->d_o, rows, width, width, r->dtype),
                                         .o = kern_mat(x->o, rows, width, width, r->dtype),
                                         .delta = x->delta,
                                         .head_rows = rows,
                                         .num_q_heads = heads * r->shape.group,
                                         .num_kv_heads = heads,
                                         .head_dim = r->shape.head_dim};

    return kern_attention_delta_run(r->s, &args);
}

static base_status_t run_convert(tr_attention_rig_t *r, base_mem_t from, base_mem_t to)
{
    const kern_partial_sum_t args = {.dtype = r->dtype,
                                     .num_sums = r->num_sums,
                                     .num_parts = r->num_sums,
                                     .sums = r->sums,
                                     .parts = r->parts,
                                     .dst = to,
                                     .src = from};

    return r->num_sums == 0 ? BASE_OK : kern_partial_sum_run(r->s, &args);
}

static base_status_t run_backward(tr_attention_rig_t *r, const operands_t *x)
{
    kern_attention_bwd_t args = backward_args(r, x);

    if (r->workspace_bytes > 0) args.workspace = base_mem(r->workspace, 0);
    BASE_TRY(run_delta(r, x));
    BASE_TRY(r->ops->backward(r->s, &args));
    BASE_TRY(run_convert(r, x->dk, x->dk_real));
    return run_convert(r, x->dv, x->dv_real);
}

static base_status_t run(tr_attention_rig_t *r, int direction)
{
    const operands_t x = operands_of(r, r->next);

    r->next = (r->next + 1) % r->copies;
    return direction == AS_PROFILE_FORWARD ? run_forward(r, &x) : run_backward(r, &x);
}

static base_status_t time_calls(tr_attention_rig_t *r, int direction, int64_t calls,
                                tr_attention_time_t *time)
{
    const int64_t begin = base_clock_ns();

    for (int64_t i = 0; i < calls; i++)
        BASE_TRY(run(r, direction));
    const int64_t given = base_clock_ns();
    BASE_TRY(base_stream_sync(r->s));
    time->call_ns = (base_clock_ns() - begin) / calls;
    time->host_ns = (given - begin) / calls;
    return BASE_OK;
}

base_status_t tr_attention_rig_time(tr_attention_rig_t *r, int direction, tr_attention_time_t *time)
{
    return time_calls(r, direction, r->calls[direction], time);
}

/* ==== loading ==== */

static base_status_t make_room(tr_attention_rig_t *r)
{
    const int64_t real = kern_dtype_bytes(r->dtype),
                  acc = kern_dtype_bytes(kern_dtype_acc(r->dtype));
    const layout_t *l = &r->layout;
    bool grown;

    BASE_TRY(grow(r, &r->inputs, r->copies * l->inputs * real, "bench: inputs", &grown));
    if (grown) BASE_TRY(fill(r, r->inputs));
    BASE_TRY(grow(r, &r->reals, r->copies * l->reals * real, "bench: outputs", &grown));
    BASE_TRY(grow(r, &r->accs, r->copies * l->accs * acc, "bench: sums", &grown));
    const operands_t x = operands_of(r, 0);
    const kern_attention_bwd_t args = backward_args(r, &x);
    r->workspace_bytes = r->ops->workspace(&args);
    if (r->workspace_bytes == 0) return BASE_OK;
    return grow(r, &r->workspace, r->workspace_bytes, "bench: workspace", &grown);
}

base_status_t tr_attention_rig_load(tr_attention_rig_t *r, const tr_attention_shape_t *shape,
                                    const tr_attention_set_t *set)
{
    const int64_t bytes = tr_attention_set_bytes(r->dtype, shape, set);

    r->shape = *shape;
    r->layout = layout_of(shape, set);
    r->next = 0;
    r->copies = r->gpu ? CACHE_BYTES / bytes + 1 : 1;
    if (r->copies > MAX_COPIES) r->copies = MAX_COPIES;
    BASE_TRY(place_all(r, set));
    BASE_TRY(make_room(r));
    for (int d = 0; d < AS_PROFILE_DIRECTIONS; d++) {
        tr_attention_time_t time;

        /* Every copy once: the backward reads what the forward of that copy has written. */
        BASE_TRY(time_calls(r, d, r->copies, &time));
        BASE_TRY(time_calls(r, d, 1, &time));
        r->calls[d] = r->gpu ? TIME_NS / (time.call_ns + 1) + 1 : 1;
        if (r->calls[d] > MAX_CALLS) r->calls[d] = MAX_CALLS;
    }
    return BASE_OK;
}

/* ==== opening ==== */

base_status_t tr_attention_rig_open(base_ctx_t *ctx, base_device_kind_t kind,
                                    const tr_attention_ops_t *ops, tr_attention_rig_t **rig_p)
{
    tr_attention_rig_t *r = base_calloc(ctx, 1, sizeof *r, "bench: attention");
    base_status_t st;

    if (r == NULL) return BASE_ERR_NOMEM;
    *r = (tr_attention_rig_t){.ctx = ctx, .ops = ops, .gpu = kind == BASE_DEVICE_CUDA};
    r->dtype = r->gpu ? KERN_BF16 : KERN_F32;
    BASE_TRY_GOTO(base_device_open(ctx, kind, 0, &r->dev), st, failed);
    BASE_TRY_GOTO(base_stream_create(r->dev, BASE_STREAM_COMPUTE, "bench", &r->s), st, failed);
    *rig_p = r;
    return BASE_OK;
failed:
    tr_attention_rig_close(r);
    return st;
}

void tr_attention_rig_close(tr_attention_rig_t *r)
{
    if (r == NULL) return;
    base_buffer_t *buffers[] = {r->inputs, r->reals, r->accs, r->workspace};

    base_stream_destroy(r->s);
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        base_buffer_free(buffers[i]);
    base_device_close(r->dev);
    free_tasks(r);
    base_free(r->ctx, r);
}

const char *tr_attention_rig_device(const tr_attention_rig_t *r)
{
    return base_device_name(r->dev);
}

kern_dtype_t tr_attention_rig_dtype(const tr_attention_rig_t *r)
{
    return r->dtype;
}

bool tr_attention_rig_is_gpu(const tr_attention_rig_t *r)
{
    return r->gpu;
}
