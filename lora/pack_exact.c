#include "lora/pack_exact.h"

#include "base/memory.h"
#include "lora/bound.h"
#include "lora/milp.h"

#include <string.h>

/* Microbatches 0 .. count - 1, of which the first ones are used. Binary columns:
 *   x[d][m]  document d lies in m          y[b][m]  batch b has documents in m
 *   u[m]     m is one of the schedule's    z[b][m]  batch b lies wholly before m
 * and, with padding, whole ones k[b][m]: units of adapter_align that the batch takes in m. */
typedef struct program {
    const lora_window_t *window;
    int32_t count;
    lora_milp_t *milp;
    int32_t x, y, z, u, k; /* first columns */
    int32_t *columns;      /* scratch of a row */
    double *factors;
} program_t;

static int32_t column(const program_t *p, int32_t first, int32_t i, int32_t m)
{
    return first + i * p->count + m;
}

static void add_columns(program_t *p)
{
    const lora_window_t *w = p->window;
    /* One microbatch outweighs all adapters in all of them. */
    const double microbatch = (double)w->num_batches * p->count + 1.0;
    const double units = (double)(w->capacity / w->adapter_align);

    p->x = 0;
    p->y = p->x + w->num_documents * p->count;
    p->z = p->y + w->num_batches * p->count;
    p->u = p->z + w->num_batches * p->count;
    p->k = p->u + p->count;
    for (int32_t i = 0; i < w->num_documents * p->count; i++)
        (void)lora_milp_column(p->milp, 0, 1, 0, 1);
    for (int32_t i = 0; i < w->num_batches * p->count; i++)
        (void)lora_milp_column(p->milp, 0, 1, 1, 1);
    for (int32_t i = 0; i < w->num_batches * p->count; i++)
        (void)lora_milp_column(p->milp, 0, 1, 0, 1);
    for (int32_t i = 0; i < p->count; i++)
        (void)lora_milp_column(p->milp, 0, 1, microbatch, 1);
    for (int32_t i = 0; i < w->num_batches * p->count && w->adapter_align > 1; i++)
        (void)lora_milp_column(p->milp, 0, units, 0, 1);
}

static void row(program_t *p, char sense, int32_t num, double right)
{
    lora_milp_row(p->milp, sense, num, p->columns, p->factors, right);
}

static void term(program_t *p, int32_t *n, int32_t col, double factor)
{
    p->columns[*n] = col;
    p->factors[(*n)++] = factor;
}

/* Each document once, in microbatches where its batch is. */
static void add_document(program_t *p, int32_t batch, int32_t d)
{
    int32_t n = 0;

    for (int32_t m = 0; m < p->count; m++)
        term(p, &n, column(p, p->x, d, m), 1);
    row(p, '=', n, 1);
    for (int32_t m = 0; m < p->count; m++) {
        n = 0;
        term(p, &n, column(p, p->x, d, m), 1);
        term(p, &n, column(p, p->y, batch, m), -1);
        row(p, '<', n, 0);
    }
}

/* Order: what is in m is not before m; the next batch begins `stages` after this one's last. */
static void add_order(program_t *p, int32_t batch, int has_next)
{
    const int32_t stages = p->window->stages;

    for (int32_t m = 0; m < p->count; m++) {
        int32_t n = 0;

        term(p, &n, column(p, p->y, batch, m), 1);
        term(p, &n, column(p, p->z, batch, m), 1);
        row(p, '<', n, 1);
        if (m + 1 < p->count) {
            n = 0;
            term(p, &n, column(p, p->z, batch, m), 1);
            term(p, &n, column(p, p->z, batch, m + 1), -1);
            row(p, '<', n, 0);
        }
        if (!has_next) continue;
        n = 0;
        term(p, &n, column(p, p->y, batch + 1, m), 1);
        if (m - stages + 1 >= 0) term(p, &n, column(p, p->z, batch, m - stages + 1), -1);
        row(p, '<', n, 0);
    }
}

static void add_adapter(program_t *p, int32_t adapter)
{
    const lora_window_t *w = p->window;
    const lora_window_adapter_t *a = &w->adapters[adapter];
    const int32_t end = a->first_batch + a->num_batches;

    for (int32_t b = a->first_batch; b < end; b++) {
        const lora_window_batch_t *batch = &w->batches[b];

        for (int32_t i = 0; i < batch->num_documents; i++)
            add_document(p, b, batch->first_document + i);
        add_order(p, b, b + 1 < end);
        for (int32_t m = 0; m < p->count && m < a->not_before; m++) {
            int32_t n = 0;

            term(p, &n, column(p, p->y, b, m), 1);
            row(p, '=', n, 0);
        }
    }
}

/* With padding: the batch's rows in m fit its units. */
static void add_units(program_t *p, int32_t batch, int32_t m)
{
    const lora_window_t *w = p->window;
    const lora_window_batch_t *b = &w->batches[batch];
    int32_t n = 0;

    for (int32_t d = b->first_document; d < b->first_document + b->num_documents; d++)
        term(p, &n, column(p, p->x, d, m), (double)w->rows[d]);
    term(p, &n, column(p, p->k, batch, m), -(double)w->adapter_align);
    row(p, '<', n, 0);
}

static void add_microbatch(program_t *p, int32_t m)
{
    const lora_window_t *w = p->window;
    int32_t n = 0;

    if (w->adapter_align == 1) {
        /* One longer than the capacity fills a microbatch of its own. */
        for (int32_t d = 0; d < w->num_documents; d++)
            term(p, &n, column(p, p->x, d, m),
                 (double)(w->rows[d] < w->capacity ? w->rows[d] : w->capacity));
    } else {
        for (int32_t b = 0; b < w->num_batches; b++)
            add_units(p, b, m);
        for (int32_t b = 0; b < w->num_batches; b++)
            term(p, &n, column(p, p->k, b, m), (double)w->adapter_align);
    }
    term(p, &n, p->u + m, -(double)w->capacity);
    row(p, '<', n, 0);
    if (m > 0) {
        n = 0;
        term(p, &n, p->u + m, 1);
        term(p, &n, p->u + m - 1, -1);
        row(p, '<', n, 0);
    }
    if (w->rank_columns == 0) return;
    n = 0;
    for (int32_t a = 0; a < w->num_adapters; a++)
        for (int32_t b = 0; b < w->adapters[a].num_batches; b++)
            term(p, &n, column(p, p->y, w->adapters[a].first_batch + b, m),
                 (double)w->adapters[a].rank);
    row(p, '<', n, (double)w->rank_columns);
}

/* The schedule as values of the columns. */
static void start_from(const program_t *p, const lora_schedule_t *schedule, double *values)
{
    const lora_window_t *w = p->window;

    for (int32_t b = 0; b < w->num_batches; b++) {
        const lora_window_batch_t *batch = &w->batches[b];
        int32_t last = -1;

        for (int32_t i = 0; i < batch->num_documents; i++) {
            const int32_t d = batch->first_document + i;
            const int32_t m = schedule->microbatch[d];

            values[column(p, p->x, d, m)] = 1;
            values[column(p, p->y, b, m)] = 1;
            if (w->adapter_align > 1) values[column(p, p->k, b, m)] += (double)w->rows[d];
            if (m > last) last = m;
        }
        for (int32_t m = last + 1; m < p->count; m++)
            values[column(p, p->z, b, m)] = 1;
        for (int32_t m = 0; m < p->count && w->adapter_align > 1; m++) {
            double *units = &values[column(p, p->k, b, m)];

            *units = (double)(lora_window_align(w, (int64_t)*units) / w->adapter_align);
        }
    }
    for (int32_t m = 0; m < schedule->num_microbatches; m++)
        values[p->u + m] = 1;
}

static void read_schedule(const program_t *p, lora_schedule_t *schedule)
{
    schedule->num_microbatches = 0;
    for (int32_t d = 0; d < p->window->num_documents; d++)
        for (int32_t m = 0; m < p->count; m++) {
            if (lora_milp_value(p->milp, column(p, p->x, d, m)) < 0.5) continue;
            schedule->microbatch[d] = m;
            if (m >= schedule->num_microbatches) schedule->num_microbatches = m + 1;
        }
}

static base_status_t solve(base_ctx_t *ctx, program_t *p, const lora_exact_limits_t *limits,
                           double *start, lora_schedule_t *schedule, int32_t *found,
                           lora_exact_result_t *result)
{
    const lora_window_t *w = p->window;
    lora_milp_result_t solved;
    lora_schedule_t better = {.microbatch = found};

    BASE_TRY(lora_milp_create(ctx, &p->milp));
    add_columns(p);
    for (int32_t a = 0; a < w->num_adapters; a++)
        add_adapter(p, a);
    for (int32_t m = 0; m < p->count; m++)
        add_microbatch(p, m);
    start_from(p, schedule, start);
    BASE_TRY(lora_milp_solve(
        p->milp,
        &(lora_milp_options_t){.seconds = limits->seconds, .nodes = limits->nodes, .start = start},
        &solved));
    const int64_t bound =
        (int64_t)(solved.bound / ((double)w->num_batches * p->count + 1.0) + 1e-6);
    if (bound > result->bound && bound <= schedule->num_microbatches) result->bound = bound;
    if (solved.found) {
        read_schedule(p, &better);
        /* A solver's rounding is not ours: what does not stand up is not used. */
        if (better.num_microbatches <= schedule->num_microbatches &&
            lora_schedule_judge(ctx, w, &better, NULL) == BASE_OK) {
            schedule->num_microbatches = better.num_microbatches;
            memcpy(schedule->microbatch, found, (size_t)w->num_documents * sizeof *found);
            if (solved.proven) result->bound = better.num_microbatches;
        } else {
            base_ctx_clear_error(ctx);
        }
    }
    result->proven = result->bound >= schedule->num_microbatches;
    return BASE_OK;
}

base_status_t lora_pack_exact(base_ctx_t *ctx, const lora_window_t *window,
                              const lora_exact_limits_t *limits, lora_schedule_t *schedule,
                              lora_exact_result_t *result)
{
    program_t p = {.window = window, .count = schedule->num_microbatches};
    const int64_t num =
        ((int64_t)window->num_documents + 3 * (int64_t)window->num_batches + 1) * p.count;
    const int64_t longest = num + 1;
    base_status_t st = BASE_ERR_NOMEM;
    lora_bounds_t bounds;

    BASE_TRY(lora_window_check(ctx, window));
    BASE_TRY(lora_schedule_judge(ctx, window, schedule, NULL));
    BASE_TRY(lora_bound_window(ctx, window, &bounds));
    *result = (lora_exact_result_t){bounds.best, bounds.best >= schedule->num_microbatches};
    if (result->proven) return BASE_OK;

    double *start = base_calloc(ctx, num, sizeof *start, "exact packer");
    int32_t *found = base_calloc(ctx, window->num_documents, sizeof *found, "exact packer");
    p.columns = base_calloc(ctx, longest, sizeof *p.columns, "exact packer");
    p.factors = base_calloc(ctx, longest, sizeof *p.factors, "exact packer");
    if (start != NULL && found != NULL && p.columns != NULL && p.factors != NULL)
        st = solve(ctx, &p, limits, start, schedule, found, result);
    lora_milp_destroy(p.milp);
    base_free(ctx, p.factors);
    base_free(ctx, p.columns);
    base_free(ctx, found);
    base_free(ctx, start);
    return st;
}
