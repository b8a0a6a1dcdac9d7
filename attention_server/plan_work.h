/* State of the planner. Private to planner.c and plan_*.c: one file a step.
 *
 *   survey    who has which work at home, and how much each server should have
 *   release   servers with too much choose what they give away
 *   fill      servers with too little take it, document by document
 *   polish    single tile rows move where rounding decides
 *   emit      pieces and fragments become tasks
 *   assign    tasks to servers, when the cuts were not made for them
 *
 * Rows are counted in units of `grain` rows on the document's grid; the ends of a piece need not be
 * on it. Work is nanoseconds at AS_SPEED_ONE, forward and backward together. That of rows and heads
 * holds what keys take once, so that two parts take more than both together; it
 * does not hold the constant of a task, loads do: one for what a server keeps of a piece, and one for
 * each fragment that will be a task. */
#ifndef CADRE_ATTENTION_SERVER_PLAN_WORK_H
#define CADRE_ATTENTION_SERVER_PLAN_WORK_H

#include "attention_server/planner.h"

/* What is left of a piece at home: all rows of KV heads [0, heads), and rows before unit `to` of
 * head `heads`. The rest was released. */
typedef struct as_keep {
    int32_t home; /* server */
    int32_t heads;
    int64_t to;
    int64_t begin, end; /* units of the piece */
    int32_t fragment;   /* first of its list, -1: none */
    int32_t given;      /* heads and rows that `fill` has placed: `heads` ... */
    int64_t given_to;   /* ... and `to` as of then */
    int64_t work;       /* of one planned head */
} as_keep_t;

/* Released units [a, b) of one KV head of a piece, on their server. */
typedef struct as_fragment {
    int32_t server, piece, head, next;
    int64_t a, b;
} as_fragment_t;

typedef struct as_rect {
    int32_t server, h0, h1;
    int64_t a, b;
} as_rect_t;

/* A server that can take more; a document with released work. */
typedef struct as_room {
    int64_t room;
    int32_t server;
} as_room_t;
typedef struct as_offer {
    int64_t work;
    int32_t document, half;
} as_offer_t;

struct as_planner {
    base_ctx_t *ctx;
    as_planner_config_t config;
    as_judge_t *judge;
    as_topology_t *reference; /* with cuts_follow_servers = 0; see planner.c */
    as_judge_t *reference_judge;
    int32_t *trainer_nearest; /* [trainers] real server that is nearest, mostly on its rank */
    int32_t *trainer_home;    /* [trainers] server whose work its rows are until released */
    int32_t num_servers;      /* of the plan to make: the real ones, or one for each trainer */
    int64_t grain;
    int32_t heads; /* that are planned apart: num_kv_heads, or 1 with cut_heads = 0 */
    int64_t width; /* KV heads in each of them */

    const data_batch_t *batch;           /* of the run at hand */
    int64_t *load[DATA_NUM_HALVES];      /* [servers] work at home or taken */
    int64_t *goal;                       /* [servers] what both halves should be together */
    int64_t *half_goal[DATA_NUM_HALVES]; /* [servers] most that a half should be */
    int limited;                         /* the plan is made for memory too: p->limit counts */
    int64_t *memory;                     /* [servers] scratch bytes in use, about; when limited */
    int64_t *limit;       /* [servers] scratch_bytes, less where plans were above it */
    int32_t *home_first;  /* [servers + 1] into home_pieces */
    int32_t *home_pieces; /* [pieces] by server, ascending */
    as_keep_t *keep;      /* [pieces] */
    as_room_t *rooms;     /* [servers] ascending room, then descending server */
    int32_t num_rooms;
    as_offer_t *offers; /* [2 documents] a document that spans both halves has two */
    int32_t num_offers;
    int32_t *offered;         /* [2 documents] index in offers, -1 */
    as_fragment_t *fragments; /* [max_fragments] */
    int32_t num_fragments, max_fragments;
    as_room_t *stash; /* [servers] that the document at hand cannot use */
    int32_t num_stash;
    as_rect_t *rects; /* [max_rects] of a piece */
    int32_t max_rects;
    int64_t typical_room;
    int64_t enough_ns; /* a makespan below it is as good as any */
    int32_t *order;    /* [max_tasks] */
    as_task_t *tasks;  /* [max_tasks] the best plan so far */
    int32_t max_tasks;
};

/* ==== work of units ==== */

static inline int64_t as_unit_row(const as_planner_t *p, const data_piece_t *piece, int64_t unit)
{
    const int64_t row = unit * p->grain, end = piece->doc_row + piece->rows;

    return row < piece->doc_row ? piece->doc_row : row > end ? end : row;
}

/* Work of units [a, b) of a piece in one planned head. */
static inline int64_t as_unit_work(const as_planner_t *p, const data_piece_t *piece, int64_t a,
                                   int64_t b)
{
    const int64_t q0 = as_unit_row(p, piece, a), q1 = as_unit_row(p, piece, b);

    if (q0 >= q1) return 0;
    if ((p->config.without & AS_WITHOUT_GRID) != 0)
        return p->width * (as_cost_before(p->config.cost, AS_COST_BOTH, q1) -
                           as_cost_before(p->config.cost, AS_COST_BOTH, q0) +
                           as_cost_keys(p->config.cost, AS_COST_BOTH, q0, q1));
    return p->width * as_cost_rows(p->config.cost, AS_COST_BOTH, q0, q1);
}

/* The constant of a task. */
static inline int64_t as_task_constant(const as_planner_t *p)
{
    return p->config.cost->task_ns[AS_COST_BOTH];
}

/* Of a server that cuts are made for. */
static inline int32_t as_plan_speed(const as_planner_t *p, int32_t server)
{
    return p->config.cuts_follow_servers ? as_machine_speed(p->config.machine, server)
                                         : AS_SPEED_ONE;
}

/* What a piece's home keeps of it, the constant not counted. */
static inline int64_t as_kept_work(const as_planner_t *p, int32_t index)
{
    const as_keep_t *k = &p->keep[index];

    return k->work * k->heads +
           (k->heads < p->heads ? as_unit_work(p, &p->batch->pieces[index], k->begin, k->to) : 0);
}

/* First released unit of planned head h of a piece; its end when nothing is. */
static inline int64_t as_released_from(const as_keep_t *k, int32_t h)
{
    return h < k->heads ? k->end : h == k->heads ? k->to : k->begin;
}

/* ==== steps ==== */

/* `joint` says how much a half may be out of balance when the other makes up for it: 0: not at all;
 * 1000: only their sum counts. */
void as_plan_survey(as_planner_t *p, int64_t joint_per_mille);
/* Makes the offers; servers give away what is above goal + goal * per_mille / 1000, of pieces whose
 * last unit, as a task, is at most max_unit. Returns the work released. */
int64_t as_plan_release(as_planner_t *p, int64_t per_mille, int64_t max_unit);
/* A server may take up to goal * per_mille / 1000 more than it has room for when that is nearer, or
 * with `forced` whatever is nearer. */
void as_plan_fill(as_planner_t *p, int64_t per_mille, int forced);
/* At most AS_POLISH_MOVES moves, while a server is more than per_mille above its goal. */
#define AS_POLISH_MOVES 64 /* enough for few servers, where it matters, and little time for many */
void as_plan_polish(as_planner_t *p, int64_t per_mille);
base_status_t as_plan_emit(as_planner_t *p, as_plan_t *plan) BASE_MUST_CHECK;
void as_plan_assign(as_planner_t *p, as_plan_t *plan);
void as_plan_retain(as_planner_t *p, as_plan_t *plan);
/* Fills the plan anew: every piece whole on the nearest server, resent. */
base_status_t as_plan_home(as_planner_t *p, as_plan_t *plan) BASE_MUST_CHECK;

static inline int64_t as_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t as_most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* What a server can take of a half. */
static inline int64_t as_room_of(const as_planner_t *p, int32_t server, int half)
{
    const int64_t both = p->goal[server] - p->load[DATA_PING][server] - p->load[DATA_PONG][server];

    return as_least(both, p->half_goal[half][server] - p->load[half][server]);
}

#endif
