#include "trainer/bench/op_clock.h"

#include "base/clock.h"
#include "kernels/op_check.h"

#include <string.h>
#include <time.h>

int64_t tr_op_clock_cpu_ns(void)
{
    struct timespec t;

    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) != 0) return 0;
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ==== arithmetic ==== */

/* Pairs (row, key) that a task sees, causal and within the window, of one head. */
static double pairs(const kern_attention_task_t *t, int64_t window)
{
    double sum = 0;

    for (int64_t row = t->q_row0; row < t->q_row0 + t->q_rows; row++) {
        const int64_t all = row + 1 - t->kv_row0;
        sum += (double)(window > 0 && all > window ? window : all);
    }
    return sum;
}

/* Two products of 2 D operations a pair in the forward, five in the backward. */
static double attention(const kern_attention_task_t *tasks, int64_t num_tasks, int64_t window,
                        double heads, double dim, double products)
{
    double sum = 0;

    for (int64_t i = 0; i < num_tasks; i++)
        sum += pairs(&tasks[i], window) * (double)tasks[i].kv_heads;
    return sum * heads * products * 2 * dim;
}

static double route(const kern_lora_route_t *r, int64_t width, int outputs)
{
    double sum = 0;

    for (int64_t b = 0; b < r->num_blocks; b++)
        for (int64_t s = 0; s < r->num_segments; s++) {
            if (r->segments[s].adapter != r->blocks[b].adapter) continue;
            const int64_t cols = !outputs                  ? width
                                 : r->blocks[b].b.rows > 0 ? r->blocks[b].b.rows
                                                           : r->blocks[b].db.rows;
            sum += 2.0 *
                   (double)((r->segments[s].row1 - r->segments[s].row0) * cols * r->blocks[b].rank);
        }
    return sum;
}

static double flops(const char *op, const void *args)
{
    if (strcmp(op, "attention_fwd") == 0) {
        const kern_attention_fwd_t *p = args;
        return attention(p->tasks, p->num_tasks, p->window, p->group, p->head_dim, 2);
    }
    if (strcmp(op, "attention_bwd") == 0) {
        const kern_attention_bwd_t *p = args;
        return attention(p->tasks, p->num_tasks, p->window, p->group, p->head_dim, 5);
    }
    if (strcmp(op, "loss_linear_ce") == 0) {
        const kern_loss_linear_ce_t *p = args;
        const int products = 1 + !kern_mat_absent(&p->dx) + !kern_mat_absent(&p->dw);
        return 2.0 * products * (double)p->rows.cols * (double)p->w.rows * (double)p->w.cols;
    }
    if (strcmp(op, "lora_s") == 0) {
        const kern_lora_s_t *p = args;
        return route(&p->route, p->x.cols, 0);
    }
    if (strcmp(op, "lora_ds") == 0) return route(&((const kern_lora_ds_t *)args)->route, 0, 1);
    if (strcmp(op, "lora_da") == 0) {
        const kern_lora_da_t *p = args;
        return route(&p->route, p->x.cols, 0);
    }
    if (strcmp(op, "lora_db") == 0) return route(&((const kern_lora_db_t *)args)->route, 0, 1);
    if (strcmp(op, "lora_dy") == 0) return 2 * route(&((const kern_lora_dy_t *)args)->route, 0, 1);
    return 0;
}

/* ==== memory ==== */

typedef struct traffic {
    kern_visitor_t base; /* first */
    double bytes;
} traffic_t;

static base_status_t add_operand(kern_visitor_t *v, const base_operand_t *operand, const char *name)
{
    const double bytes = (double)operand->range.rows * (double)operand->range.row_bytes;

    (void)name;
    if (operand->access & BASE_READ) ((traffic_t *)v)->bytes += bytes;
    if (operand->access & BASE_WRITE) ((traffic_t *)v)->bytes += bytes;
    return BASE_OK;
}

/* The operand is the whole table; a token takes a row of it. */
static double rows_not_taken(const kern_mat_t *table, const kern_mat_t *tokens)
{
    const int64_t rows = table->rows - tokens->cols;

    return rows <= 0 ? 0 : (double)(rows * table->cols * kern_dtype_bytes(table->dtype));
}

static double bytes(const char *op, const void *args)
{
    traffic_t t = {.base = {.visit = add_operand}};
    base_status_t st = BASE_OK;

#define X(name)                                                                                    \
    if (strcmp(op, #name) == 0) st = kern_##name##_visit(args, &t.base);
    KERN_OP_MAP(X)
#undef X
    if (st < 0) return 0;
    if (strcmp(op, "embedding_fwd") == 0) {
        const kern_embedding_fwd_t *p = args;
        return t.bytes - rows_not_taken(&p->table, &p->tokens);
    }
    if (strcmp(op, "embedding_bwd") == 0) {
        const kern_embedding_bwd_t *p = args;
        return t.bytes - 2 * rows_not_taken(&p->dtable, &p->tokens);
    }
    return t.bytes;
}

/* ==== entries ==== */

static tr_op_entry_t describe(const char *op, const void *args)
{
    tr_op_entry_t e = {.op = op, .calls = 1, .bytes = bytes(op, args)};

    if (strcmp(op, "gemm") != 0) {
        e.flops = flops(op, args);
        return e;
    }
    const kern_gemm_t *g = args;
    e.m = g->c.rows;
    e.n = g->c.cols;
    e.k = g->transpose_a ? g->a.rows : g->a.cols;
    e.ta = g->transpose_a;
    e.tb = g->transpose_b;
    e.accumulate = g->accumulate;
    e.flops = 2.0 * (double)e.m * (double)e.n * (double)e.k;
    return e;
}

static int same(const tr_op_entry_t *a, const tr_op_entry_t *b)
{
    return strcmp(a->op, b->op) == 0 && a->m == b->m && a->n == b->n && a->k == b->k &&
           a->ta == b->ta && a->tb == b->tb && a->accumulate == b->accumulate;
}

/* Waits for the stream, if it is its time that counts. */
static int64_t now_ns(tr_op_clock_t *c)
{
    if (c->stream == NULL) return tr_op_clock_cpu_ns();
    const base_status_t st = base_stream_sync(c->stream);
    if (c->status >= 0) c->status = st;
    return base_clock_ns();
}

static void on_begin(void *user, const char *work, const void *args)
{
    tr_op_clock_t *c = user;

    (void)work;
    (void)args;
    c->begin_ns = now_ns(c);
}

static void on_end(void *user, const char *work, const void *args)
{
    tr_op_clock_t *c = user;
    const int64_t ns = now_ns(c) - c->begin_ns;
    const tr_op_entry_t found = describe(work, args);
    int i = 0;

    while (i < c->count && !same(&c->entries[i], &found))
        i++;
    if (i == TR_OP_CLOCK_ENTRIES) i--;
    if (i == c->count) {
        c->entries[c->count++] = found;
        c->entries[i].ns = ns;
        return;
    }
    c->entries[i].calls++;
    c->entries[i].ns += ns;
    c->entries[i].flops += found.flops;
    c->entries[i].bytes += found.bytes;
}

void tr_op_clock_init(tr_op_clock_t *clock)
{
    *clock = (tr_op_clock_t){.observer = {.begin = on_begin, .end = on_end, .user = clock}};
}

void tr_op_clock_init_stream(tr_op_clock_t *clock, base_stream_t *stream)
{
    tr_op_clock_init(clock);
    clock->stream = stream;
}
