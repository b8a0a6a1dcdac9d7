/* Pieces and fragments become tasks, in the order of a finished plan. */
#include "attention_server/plan_work.h"

#include "base/sort.h"

/* Servers that the cuts were not made for may be fewer or unequal: no task holds more than this
 * part of what a server has on average. */
#define TASKS_PER_SERVER 4

typedef struct emitter {
    as_planner_t *p;
    as_plan_t *plan;
    int32_t piece, num_rects;
    int64_t most; /* work of a task */
} emitter_t;

static void add_rect(emitter_t *e, int32_t server, int32_t h0, int32_t h1, int64_t a, int64_t b)
{
    if (h0 < h1 && a < b) e->p->rects[e->num_rects++] = (as_rect_t){server, h0, h1, a, b};
}

/* Rectangles that differ in their heads only come together. */
static int by_rows(const void *pa, const void *pb, const void *unused)
{
    const as_rect_t *x = pa, *y = pb;
    int c = base_compare_i64(x->a, y->a);

    (void)unused;
    if (c == 0) c = base_compare_i64(x->b, y->b);
    if (c == 0) c = base_compare_i64(x->server, y->server);
    return c != 0 ? c : base_compare_i64(x->h0, y->h0);
}

static int by_task(const void *pa, const void *pb, const void *unused)
{
    const as_rect_t *x = pa, *y = pb;
    const int c = base_compare_i64(x->a, y->a);

    (void)unused;
    return c != 0 ? c : base_compare_i64(x->h0, y->h0);
}

static void merge_heads(emitter_t *e)
{
    as_rect_t *r = e->p->rects;
    int32_t count = 0;

    base_sort(r, e->num_rects, sizeof *r, by_rows, NULL);
    for (int32_t i = 0; i < e->num_rects; i++) {
        as_rect_t *last = count > 0 ? &r[count - 1] : NULL;

        if (last != NULL && last->a == r[i].a && last->b == r[i].b && last->server == r[i].server &&
            last->h1 == r[i].h0)
            last->h1 = r[i].h1;
        else
            r[count++] = r[i];
    }
    e->num_rects = count;
}

/* Rows of one head that follow each other on one server. */
static void merge_rows(emitter_t *e)
{
    as_rect_t *r = e->p->rects;
    int32_t count = 0;

    base_sort(r, e->num_rects, sizeof *r, by_task, NULL);
    for (int32_t i = 0; i < e->num_rects; i++) {
        int32_t j = count - 1;

        while (j >= 0 && !(r[j].b == r[i].a && r[j].server == r[i].server && r[j].h0 == r[i].h0 &&
                           r[j].h1 == r[i].h1))
            j--;
        if (j >= 0)
            r[j].b = r[i].b;
        else
            r[count++] = r[i];
    }
    e->num_rects = count;
    base_sort(r, e->num_rects, sizeof *r, by_task, NULL);
}

static base_status_t add_task(emitter_t *e, const as_rect_t *r)
{
    const as_planner_t *p = e->p;
    const data_piece_t *piece = &p->batch->pieces[e->piece];
    const int64_t q0 = as_unit_row(p, piece, r->a);
    const as_task_t task = {.document = piece->document,
                            .piece = e->piece,
                            .server = r->server,
                            .h0 = (int32_t)(r->h0 * p->width),
                            .h1 = (int32_t)(r->h1 * p->width),
                            .q0 = q0,
                            .q1 = as_unit_row(p, piece, r->b),
                            .k0 = as_task_first_key(q0, p->config.cost->window)};

    return as_plan_add(e->plan, &task);
}

/* Divides rectangle `i` into parts of at most e->most work, equal as far as units allow; the first
 * stays in its place. */
static void divide(emitter_t *e, int32_t i)
{
    as_planner_t *p = e->p;
    const data_piece_t *piece = &p->batch->pieces[e->piece];
    const as_rect_t r = p->rects[i];
    const int64_t heads = r.h1 - r.h0, work = as_unit_work(p, piece, r.a, r.b) * heads;
    const int64_t parts = (work + e->most - 1) / e->most;
    int64_t a = r.a;

    for (int64_t part = 1; part <= parts && a < r.b; part++) {
        int64_t low = a + 1, high = r.b;

        while (low < high) { /* the first unit at which the part is full */
            const int64_t middle = low + (high - low) / 2;

            if (as_unit_work(p, piece, r.a, middle) * heads < work / parts * part)
                low = middle + 1;
            else
                high = middle;
        }
        if (part == parts) low = r.b;
        const as_rect_t one = {r.server, r.h0, r.h1, a, low};
        p->rects[a == r.a ? i : e->num_rects++] = one;
        a = low;
    }
}

static base_status_t emit_piece(emitter_t *e)
{
    const as_planner_t *p = e->p;
    const as_keep_t *k = &p->keep[e->piece];

    e->num_rects = 0;
    add_rect(e, k->home, 0, k->heads, k->begin, k->end);
    if (k->heads < p->heads) add_rect(e, k->home, k->heads, k->heads + 1, k->begin, k->to);
    for (int32_t f = k->fragment; f >= 0; f = p->fragments[f].next) {
        const as_fragment_t *g = &p->fragments[f];

        add_rect(e, g->server, g->head, g->head + 1, g->a, g->b);
    }
    if (e->num_rects > 1) {
        merge_heads(e);
        merge_rows(e);
    }
    if (!p->config.cuts_follow_servers) {
        const int32_t whole = e->num_rects;

        for (int32_t i = 0; i < whole; i++)
            divide(e, i);
        if (e->num_rects > whole)
            base_sort(p->rects, e->num_rects, sizeof *p->rects, by_task, NULL);
    }
    for (int32_t i = 0; i < e->num_rects; i++)
        BASE_TRY(add_task(e, &p->rects[i]));
    return BASE_OK;
}

base_status_t as_plan_emit(as_planner_t *p, as_plan_t *plan)
{
    emitter_t e = {.p = p, .plan = plan};
    int64_t work = 0;

    BASE_TRY(
        as_plan_begin(plan, p->batch->microbatch, p->config.cost->window, p->config.num_kv_heads));
    for (int32_t s = 0; s < p->num_servers; s++)
        work += p->goal[s];
    e.most = as_most(work / p->num_servers / TASKS_PER_SERVER, 1);
    for (e.piece = 0; e.piece < p->batch->num_pieces; e.piece++)
        BASE_TRY(emit_piece(&e));
    return BASE_OK;
}
