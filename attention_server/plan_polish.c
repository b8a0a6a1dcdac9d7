/* Where a tile row is a good part of what a server should have, rounding decides the makespan: one
 * unit after another moves from the busiest server to the idlest while that lowers the busiest. */
#include "attention_server/plan_work.h"

/* Enough for few servers, where it matters, and little time for many. */
#define MAX_MOVES 64

typedef struct mover {
    as_planner_t *p;
    int32_t from, to;
    int64_t gap;      /* between their loads */
    int64_t distance; /* of the best amount to half of the gap; smaller is better */
    int32_t piece, fragment;
} mover_t;

static int64_t load_of(const as_planner_t *p, int32_t s)
{
    return p->load[DATA_PING][s] + p->load[DATA_PONG][s];
}

/* Loads compare by how far they are above what the server should have. */
static void find_ends(mover_t *m)
{
    const as_planner_t *p = m->p;

    m->from = m->to = 0;
    for (int32_t s = 1; s < p->num_servers; s++) {
        const int64_t above = load_of(p, s) - p->goal[s];

        if (above > load_of(p, m->from) - p->goal[m->from]) m->from = s;
        if (above < load_of(p, m->to) - p->goal[m->to]) m->to = s;
    }
    m->gap = load_of(p, m->from) - p->goal[m->from] - (load_of(p, m->to) - p->goal[m->to]);
    m->distance = m->gap / 2;
    m->piece = m->fragment = -1;
}

static int is_nearer(mover_t *m, int64_t work)
{
    const int64_t distance = work > m->gap / 2 ? work - m->gap / 2 : m->gap / 2 - work;

    if (work == 0 || distance >= m->distance) return 0;
    m->distance = distance;
    return 1;
}

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

static void find_kept(mover_t *m)
{
    const as_planner_t *p = m->p;

    for (int32_t i = p->home_first[m->from]; i < p->home_first[m->from + 1]; i++) {
        const int32_t index = p->home_pieces[i];
        int64_t unit;

        if (last_kept(&p->keep[index], p->heads, &unit) < 0) continue;
        if (is_nearer(m, as_unit_work(p, &p->batch->pieces[index], unit, unit + 1)))
            m->piece = index;
    }
}

/* Whole fragments: few are large where this matters. */
static void find_taken(mover_t *m)
{
    const as_planner_t *p = m->p;

    for (int32_t i = 0; i < p->num_fragments; i++) {
        const as_fragment_t *f = &p->fragments[i];

        if (f->server == m->from &&
            is_nearer(m, as_unit_work(p, &p->batch->pieces[f->piece], f->a, f->b)))
            m->fragment = i;
    }
}

static void move_kept(mover_t *m)
{
    as_planner_t *p = m->p;
    as_keep_t *k = &p->keep[m->piece];
    const data_piece_t *piece = &p->batch->pieces[m->piece];
    int64_t unit;
    const int32_t head = last_kept(k, p->heads, &unit);
    const int64_t work = as_unit_work(p, piece, unit, unit + 1);

    p->fragments[p->num_fragments] = (as_fragment_t){.server = m->to,
                                                     .piece = m->piece,
                                                     .head = head,
                                                     .next = k->fragment,
                                                     .a = unit,
                                                     .b = unit + 1};
    k->fragment = p->num_fragments++;
    k->heads = head;
    k->to = unit;
    p->load[piece->half][m->from] -= work;
    p->load[piece->half][m->to] += work;
}

static void move_taken(mover_t *m)
{
    as_planner_t *p = m->p;
    as_fragment_t *f = &p->fragments[m->fragment];
    const data_piece_t *piece = &p->batch->pieces[f->piece];
    const int64_t work = as_unit_work(p, piece, f->a, f->b);

    f->server = m->to;
    p->load[piece->half][m->from] -= work;
    p->load[piece->half][m->to] += work;
}

void as_plan_polish(as_planner_t *p, int64_t per_mille)
{
    mover_t m = {.p = p};

    /* Moves are not worth counting memory for. */
    if (p->limited) return;
    for (int move = 0; move < MAX_MOVES && p->num_fragments < p->max_fragments; move++) {
        find_ends(&m);
        if (load_of(p, m.from) <= p->goal[m.from] + p->goal[m.from] * per_mille / 1000) return;
        find_kept(&m);
        find_taken(&m);
        if (m.fragment >= 0)
            move_taken(&m);
        else if (m.piece >= 0)
            move_kept(&m);
        else
            return;
    }
}
