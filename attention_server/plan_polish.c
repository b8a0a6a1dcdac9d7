/* Where a tile row or a task's constant is a good part of what a server should have, rounding decides
 * the makespan: one unit, fragment or small piece after another moves away from the server that ends
 * last while that lowers the makespan. */
#include "attention_server/plan_work.h"

/* What moves: the last unit that is kept of a piece, all that is kept of it, or a fragment. */
typedef enum what { NOTHING, UNIT, PIECE, FRAGMENT } what_t;

typedef struct mover {
    as_planner_t *p;
    int32_t from, to;
    int64_t end; /* of the later of both after the best move so far */
    what_t what;
    int32_t index; /* of the piece or fragment */
} mover_t;

static int64_t load_of(const as_planner_t *p, int32_t s)
{
    return p->load[DATA_PING][s] + p->load[DATA_PONG][s];
}

/* When server s ends with so much more work. */
static int64_t end_of(const as_planner_t *p, int32_t s, int64_t more)
{
    return as_at_speed(load_of(p, s) + more, as_plan_speed(p, s));
}

static int32_t find_last(const as_planner_t *p)
{
    int32_t last = 0;

    for (int32_t s = 1; s < p->num_servers; s++)
        if (end_of(p, s, 0) > end_of(p, last, 0)) last = s;
    return last;
}

/* The server that ends first with so much more work. */
static int32_t find_first(const as_planner_t *p, int64_t more)
{
    int32_t first = 0;

    for (int32_t s = 1; s < p->num_servers; s++)
        if (end_of(p, s, more) < end_of(p, first, more)) first = s;
    return first;
}

/* ==== what may move ==== */

/* The last unit that piece i keeps; gives its head, or -1 when it keeps nothing. */
static int32_t last_kept(const as_keep_t *k, int32_t heads, int64_t *unit)
{
    if (k->heads < heads && k->to > k->begin) {
        *unit = k->to - 1;
        return k->heads;
    }
    *unit = k->end - 1;
    return k->heads - 1;
}

static int64_t unit_work(const as_planner_t *p, int32_t piece, int64_t unit)
{
    return as_unit_work(p, &p->batch->pieces[piece], unit, unit + 1);
}

static int64_t fragment_work(const as_planner_t *p, const as_fragment_t *f)
{
    return as_unit_work(p, &p->batch->pieces[f->piece], f->a, f->b) + as_task_constant(p);
}

/* The least that can leave m->from; INT64_MAX: nothing. */
static int64_t least_work(const mover_t *m)
{
    const as_planner_t *p = m->p;
    int64_t least = INT64_MAX, unit;

    for (int32_t i = p->home_first[m->from]; i < p->home_first[m->from + 1]; i++) {
        const int32_t index = p->home_pieces[i];

        if (last_kept(&p->keep[index], p->heads, &unit) >= 0)
            least = as_least(least, unit_work(p, index, unit) + as_task_constant(p));
    }
    for (int32_t i = 0; i < p->num_fragments; i++)
        if (p->fragments[i].server == m->from)
            least = as_least(least, fragment_work(p, &p->fragments[i]));
    return least;
}

/* `less` of the one server's work would be `more` of the other's. */
static void weigh(mover_t *m, what_t what, int32_t index, int64_t less, int64_t more)
{
    const int64_t end = as_most(end_of(m->p, m->from, -less), end_of(m->p, m->to, more));

    if (less == 0 || end >= m->end) return;
    m->end = end;
    m->what = what;
    m->index = index;
}

/* Whole fragments: few are large where this matters. */
static void find_move(mover_t *m)
{
    const as_planner_t *p = m->p;
    const int64_t constant = as_task_constant(p);

    m->end = end_of(p, m->from, 0);
    m->what = NOTHING;
    for (int32_t i = p->home_first[m->from]; i < p->home_first[m->from + 1]; i++) {
        const int32_t index = p->home_pieces[i];
        int64_t unit;

        if (last_kept(&p->keep[index], p->heads, &unit) < 0) continue;
        const int64_t work = unit_work(p, index, unit), all = as_kept_work(p, index);
        if (all > work) weigh(m, UNIT, index, work, work + constant);
        weigh(m, PIECE, index, all + constant, all + constant);
    }
    for (int32_t i = 0; i < p->num_fragments; i++) {
        const int64_t work = fragment_work(p, &p->fragments[i]);

        if (p->fragments[i].server == m->from) weigh(m, FRAGMENT, i, work, work);
    }
}

/* ==== moving ==== */

static void add_fragment(mover_t *m, int32_t head, int64_t a, int64_t b)
{
    as_planner_t *p = m->p;
    as_keep_t *k = &p->keep[m->index];

    if (a >= b) return;
    p->fragments[p->num_fragments] = (as_fragment_t){
        .server = m->to, .piece = m->index, .head = head, .next = k->fragment, .a = a, .b = b};
    k->fragment = p->num_fragments++;
}

/* Loads of both servers, in the half of the piece. */
static void move_load(mover_t *m, int32_t piece, int64_t less, int64_t more)
{
    int64_t *load = m->p->load[m->p->batch->pieces[piece].half];

    load[m->from] -= less;
    load[m->to] += more;
}

static void move_unit(mover_t *m)
{
    as_keep_t *k = &m->p->keep[m->index];
    int64_t unit;
    const int32_t head = last_kept(k, m->p->heads, &unit);
    const int64_t work = unit_work(m->p, m->index, unit);

    add_fragment(m, head, unit, unit + 1);
    k->heads = head;
    k->to = unit;
    move_load(m, m->index, work, work + as_task_constant(m->p));
}

static void move_piece(mover_t *m)
{
    as_keep_t *k = &m->p->keep[m->index];
    const int64_t work = as_kept_work(m->p, m->index) + as_task_constant(m->p);

    if (k->heads < m->p->heads) add_fragment(m, k->heads, k->begin, k->to);
    for (int32_t head = k->heads - 1; head >= 0; head--)
        add_fragment(m, head, k->begin, k->end);
    k->heads = 0;
    k->to = k->begin;
    move_load(m, m->index, work, work);
}

static void move_fragment(mover_t *m)
{
    as_fragment_t *f = &m->p->fragments[m->index];
    const int64_t work = fragment_work(m->p, f);

    f->server = m->to;
    move_load(m, f->piece, work, work);
}

void as_plan_polish(as_planner_t *p, int64_t per_mille)
{
    mover_t m = {.p = p};

    /* Moves are not worth counting memory for. */
    if (p->limited) return;
    for (int move = 0; move < AS_POLISH_MOVES; move++) {
        m.from = find_last(p);
        if (load_of(p, m.from) <= p->goal[m.from] + p->goal[m.from] * per_mille / 1000) return;
        const int64_t least = least_work(&m);
        if (least == INT64_MAX) return;
        m.to = find_first(p, least);
        find_move(&m);
        if (m.what == NOTHING) return;
        if (m.what == UNIT) move_unit(&m);
        if (m.what == PIECE) move_piece(&m);
        if (m.what == FRAGMENT) move_fragment(&m);
    }
}
