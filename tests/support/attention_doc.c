#include "tests/support/attention_doc.h"

#include <math.h>
#include <stdlib.h>

#define GAP 5 /* elements of NaN between pieces of an arena */

int64_t attention_doc_q_count(const attention_doc_t *doc)
{
    return doc->T * doc->G * doc->R * doc->D;
}

int64_t attention_doc_kv_count(const attention_doc_t *doc)
{
    return doc->T * doc->G * doc->D;
}

int64_t attention_doc_lse_count(const attention_doc_t *doc)
{
    return doc->T * doc->G * doc->R;
}

static double *random_values(uint64_t seed, int64_t count, kern_dtype_t dtype)
{
    double *values = op_doubles(count);

    op_random_fill(seed, count, values);
    for (int64_t i = 0; i < count; i++)
        values[i] = dtype == KERN_F32 ? (double)(float)(2 * values[i]) : 2 * values[i];
    return values;
}

attention_doc_t attention_doc(op_fixture_t *fx, const kern_case_attention_t *c, kern_dtype_t dtype)
{
    attention_doc_t doc = {.fx = fx, .dtype = dtype, .T = c->rows, .W = c->window};
    int64_t q_count, kv_count, lse_count;

    doc.G = c->num_kv_heads;
    doc.R = c->group;
    doc.D = c->head_dim;
    doc.scale = 1 / sqrt((double)c->head_dim);
    q_count = attention_doc_q_count(&doc);
    kv_count = attention_doc_kv_count(&doc);
    lse_count = attention_doc_lse_count(&doc);
    doc.q = random_values(c->seed * 10 + 1, q_count, dtype);
    doc.k = random_values(c->seed * 10 + 2, kv_count, dtype);
    doc.v = random_values(c->seed * 10 + 3, kv_count, dtype);
    doc.d_o = random_values(c->seed * 10 + 4, q_count, dtype);
    doc.o = op_doubles(q_count);
    doc.dq = op_doubles(q_count);
    doc.dk = op_doubles(kv_count);
    doc.dv = op_doubles(kv_count);
    doc.lse = op_doubles(lse_count);
    doc.delta = op_doubles(lse_count);
    return doc;
}

void attention_doc_end(attention_doc_t *doc)
{
    double *const all[] = {doc->q,  doc->k,  doc->v,  doc->d_o, doc->o,
                           doc->dq, doc->dk, doc->dv, doc->lse, doc->delta};

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

/* ==== arenas: pieces of (G, T, width) arrays, one after the other with gaps ==== */

typedef struct arena {
    int64_t count;
    double *values;
    op_tensor_t tensor;
} arena_t;

static void arena_open(attention_doc_t *doc, arena_t *a, int64_t count)
{
    a->count = count;
    a->values = op_doubles(count);
    for (int64_t i = 0; i < count; i++)
        a->values[i] = (double)NAN;
    a->tensor = op_tensor(doc->fx, 1, count, count, doc->dtype);
}

static void arena_close(arena_t *a)
{
    op_tensor_end(&a->tensor);
    free(a->values);
}

static void arena_upload(arena_t *a)
{
    op_tensor_set(&a->tensor, a->values);
}

/* Copies rows [first, first + rows) of heads of `whole` to place `at`, heads `head` elements apart.
 */
static void arena_put(arena_t *a, int64_t at, int64_t head, const double *whole,
                      const attention_doc_t *doc, const attention_cut_t *cut, int64_t first,
                      int64_t rows, int64_t width)
{
    for (int64_t h = 0; h < cut->heads; h++)
        memcpy(a->values + at + h * head, whole + ((cut->head0 + h) * doc->T + first) * width,
               (size_t)(rows * width) * sizeof *whole);
}

/* The way back; adds with `add`. What lies between the pieces must still be NaN. */
static void arena_take(arena_t *a, int64_t at, int64_t head, double *whole,
                       const attention_doc_t *doc, const attention_cut_t *cut, int64_t first,
                       int64_t rows, int64_t width, int add)
{
    for (int64_t h = 0; h < cut->heads; h++) {
        double *to = whole + ((cut->head0 + h) * doc->T + first) * width;
        const double *from = a->values + at + h * head;

        for (int64_t i = 0; i < rows * width; i++)
            to[i] = add ? to[i] + from[i] : from[i];
        for (int64_t i = rows * width; i < head; i++)
            assert_true(isnan(from[i]));
    }
}

/* ==== tasks ==== */

static int64_t kv_row0(const attention_doc_t *doc, int64_t row0)
{
    const int64_t first = doc->W > 0 ? row0 - doc->W + 1 : 0;

    return first > 0 ? first / KERN_ATTENTION_TILE * KERN_ATTENTION_TILE : 0;
}

typedef struct layout {
    kern_attention_task_t *tasks;
    int64_t q_count, kv_count, lse_count;
} layout_t;

static layout_t lay_out(const attention_doc_t *doc, const attention_cut_t *cuts, int num_cuts,
                        int64_t o_pitch)
{
    const int64_t width = (int64_t)doc->R * doc->D;
    layout_t l = {calloc((size_t)num_cuts + 1, sizeof *l.tasks), GAP, GAP, GAP};

    assert_non_null(l.tasks);
    for (int i = 0; i < num_cuts; i++) {
        const attention_cut_t *c = &cuts[i];
        kern_attention_task_t *t = &l.tasks[i];
        const int64_t first = kv_row0(doc, c->row0);

        t->q_row0 = c->row0;
        t->q_rows = c->rows;
        t->kv_row0 = first;
        t->kv_heads = c->heads;
        t->q_head = t->dq_head = c->rows * width + GAP;
        t->q = t->dq = l.q_count;
        t->kv_head = t->dkv_head = (c->row0 + c->rows - first) * doc->D + GAP;
        t->kv = t->dkv = l.kv_count;
        t->lse_head = t->delta_head = c->rows * doc->R + GAP;
        t->lse = t->delta = l.lse_count;
        t->o = t->d_o = c->row0 * o_pitch + c->head0 * width;
        t->o_row = t->d_o_row = o_pitch;
        t->o_head = t->d_o_head = width;
        l.q_count += c->heads * t->q_head;
        l.kv_count += c->heads * t->kv_head;
        l.lse_count += c->heads * t->lse_head;
    }
    return l;
}

/* ==== running ==== */

typedef struct run {
    attention_doc_t *doc;
    const attention_cut_t *cuts;
    int num_cuts;
    layout_t l;
    int64_t o_pitch;
    op_tensor_t o;
    arena_t q, k, v, lse;
} run_t;

static void put_all(run_t *r, arena_t *a, const double *whole, int64_t width, int is_kv)
{
    for (int i = 0; i < r->num_cuts; i++) {
        const kern_attention_task_t *t = &r->l.tasks[i];
        const int64_t first = is_kv ? t->kv_row0 : t->q_row0, end = t->q_row0 + t->q_rows;
        const int64_t at = is_kv ? t->kv : width == r->doc->R ? t->lse : t->q;
        const int64_t head = is_kv ? t->kv_head : width == r->doc->R ? t->lse_head : t->q_head;

        arena_put(a, at, head, whole, r->doc, &r->cuts[i], first, end - first, width);
    }
    arena_upload(a);
}

static void take_all(run_t *r, arena_t *a, double *whole, int64_t width, int is_kv)
{
    op_tensor_get(&a->tensor, a->values);
    if (is_kv) memset(whole, 0, (size_t)attention_doc_kv_count(r->doc) * sizeof *whole);
    for (int i = 0; i < r->num_cuts; i++) {
        const kern_attention_task_t *t = &r->l.tasks[i];
        const int64_t first = is_kv ? t->kv_row0 : t->q_row0, end = t->q_row0 + t->q_rows;
        const int64_t at = is_kv ? t->kv : width == r->doc->R ? t->lse : t->q;
        const int64_t head = is_kv ? t->kv_head : width == r->doc->R ? t->lse_head : t->q_head;

        if (t->q_rows == 0) continue; /* writes nothing */
        arena_take(a, at, head, whole, r->doc, &r->cuts[i], first, end - first, width, is_kv);
    }
}

static void forward(run_t *r)
{
    attention_doc_t *doc = r->doc;
    const kern_attention_fwd_t args = {.dtype = doc->dtype,
                                       .group = doc->R,
                                       .head_dim = doc->D,
                                       .window = doc->W,
                                       .scale = doc->scale,
                                       .num_tasks = r->num_cuts,
                                       .tasks = r->l.tasks,
                                       .q = r->q.tensor.mat.mem,
                                       .k = r->k.tensor.mat.mem,
                                       .v = r->v.tensor.mat.mem,
                                       .o = r->o.mat.mem,
                                       .lse = r->lse.tensor.mat.mem};

    put_all(r, &r->q, doc->q, (int64_t)doc->R * doc->D, 0);
    put_all(r, &r->k, doc->k, doc->D, 1);
    put_all(r, &r->v, doc->v, doc->D, 1);
    op_run(doc->fx, attention_fwd, &args);
    op_tensor_get(&r->o, doc->o);
    take_all(r, &r->lse, doc->lse, doc->R, 0);
}

static void delta(run_t *r, const op_tensor_t *d_o)
{
    attention_doc_t *doc = r->doc;
    op_tensor_t out = op_tensor(doc->fx, doc->G * doc->T, doc->R, doc->R, doc->dtype);
    const kern_attention_delta_t args = {d_o->mat,        r->o.mat, out.mat.mem, doc->T,
                                         doc->G * doc->R, doc->G,   doc->D};

    op_run(doc->fx, attention_delta, &args);
    op_tensor_get(&out, doc->delta);
    op_tensor_end(&out);
}

static void backward(run_t *r)
{
    attention_doc_t *doc = r->doc;
    const int64_t width = (int64_t)doc->R * doc->D;
    op_tensor_t d_o =
        op_tensor_from(doc->fx, doc->T, doc->G * width, r->o_pitch, doc->dtype, doc->d_o);
    arena_t delta_arena, dq, dk, dv;

    delta(r, &d_o);
    arena_open(doc, &delta_arena, r->l.lse_count);
    arena_open(doc, &dq, r->l.q_count);
    arena_open(doc, &dk, r->l.kv_count);
    arena_open(doc, &dv, r->l.kv_count);
    put_all(r, &delta_arena, doc->delta, doc->R, 0);
    {
        const kern_attention_bwd_t args = {.dtype = doc->dtype,
                                           .group = doc->R,
                                           .head_dim = doc->D,
                                           .window = doc->W,
                                           .scale = doc->scale,
                                           .num_tasks = r->num_cuts,
                                           .tasks = r->l.tasks,
                                           .q = r->q.tensor.mat.mem,
                                           .k = r->k.tensor.mat.mem,
                                           .v = r->v.tensor.mat.mem,
                                           .lse = r->lse.tensor.mat.mem,
                                           .d_o = d_o.mat.mem,
                                           .delta = delta_arena.tensor.mat.mem,
                                           .dq = dq.tensor.mat.mem,
                                           .dk = dk.tensor.mat.mem,
                                           .dv = dv.tensor.mat.mem};

        op_run(doc->fx, attention_bwd, &args);
    }
    take_all(r, &dq, doc->dq, width, 0);
    take_all(r, &dk, doc->dk, doc->D, 1);
    take_all(r, &dv, doc->dv, doc->D, 1);
    arena_close(&delta_arena);
    arena_close(&dq);
    arena_close(&dk);
    arena_close(&dv);
    op_tensor_end(&d_o);
}

void attention_doc_run(attention_doc_t *doc, const attention_cut_t *cuts, int num_cuts,
                       int backwards)
{
    const int64_t columns = (int64_t)doc->G * doc->R * doc->D, o_pitch = columns + 3;
    run_t r = {.doc = doc, .cuts = cuts, .num_cuts = num_cuts, .o_pitch = o_pitch};

    r.l = lay_out(doc, cuts, num_cuts, o_pitch);
    r.o = op_tensor(doc->fx, doc->T, columns, o_pitch, doc->dtype);
    arena_open(doc, &r.q, r.l.q_count);
    arena_open(doc, &r.k, r.l.kv_count);
    arena_open(doc, &r.v, r.l.kv_count);
    arena_open(doc, &r.lse, r.l.lse_count);
    forward(&r);
    if (backwards) backward(&r);
    arena_close(&r.q);
    arena_close(&r.k);
    arena_close(&r.v);
    arena_close(&r.lse);
    op_tensor_end(&r.o);
    free(r.l.tasks);
}

void attention_doc_run_whole(attention_doc_t *doc, int backwards)
{
    const attention_cut_t whole = {0, doc->T, 0, doc->G};

    attention_doc_run(doc, &whole, 1, backwards);
}
