#include "attention_server/planner.h"

#include "attention_server/plan_work.h"
#include "base/memory.h"

#include <inttypes.h>
#include <string.h>

/* A server may have so much more than its share; what is not worth moving stays within it. */
#define SLACK_PER_MILLE 8
/* Rounds of release and fill. The first moves nearly everything; the others level what the length
 * of a tile row left over, with documents whose tile rows are shorter. */
#define MAX_ROUNDS 6
#define FINE_GRAIN 16
/* Plans that are made before one is said not to fit. */
#define MAX_TRIES 8

/* ==== creation ==== */

/* The server of a trainer's own rank, or one of its host in proportion, or one of all. */
static void find_nearest(const as_topology_t *t, int32_t *nearest)
{
    for (int32_t i = 0; i < t->num_trainers; i++) {
        const int32_t rank = t->trainer_rank[i], host = t->rank_host[rank];
        int32_t servers = 0, trainers = 0, place = 0, at;

        nearest[i] = t->rank_server[rank];
        if (nearest[i] >= 0) continue;
        for (int32_t s = 0; s < t->num_servers; s++)
            servers += t->rank_host[t->server_rank[s]] == host;
        for (int32_t j = 0; j < t->num_trainers; j++) {
            if (t->rank_host[t->trainer_rank[j]] != host) continue;
            place += j < i;
            trainers++;
        }
        at = servers > 0 ? place * servers / trainers : i * t->num_servers / t->num_trainers;
        for (int32_t s = 0; s < t->num_servers; s++) {
            if (servers > 0 && t->rank_host[t->server_rank[s]] != host) continue;
            if (at-- == 0) nearest[i] = s;
        }
    }
}

/* The machine that cuts are made for when they are to follow the layout alone: every trainer a
 * server, on a host of its own. */
static base_status_t create_reference(as_planner_t *p)
{
    const int32_t trainers = p->config.machine->topology->num_trainers;
    as_machine_t reference = *p->config.machine;
    base_status_t st;

    if (p->config.cuts_follow_servers) return BASE_OK;
    for (int32_t i = 0; i < trainers; i++)
        p->home_first[i] = i; /* free until a run */
    st = as_topology_create(p->ctx, AS_IN_PLACE, trainers, p->home_first, 0, &p->reference);
    if (st < 0) return st;
    reference.topology = p->reference;
    reference.speed = NULL;
    reference.scratch_bytes = reference.retain_bytes = NULL;
    reference.trainer_scratch_bytes = NULL;
    return as_judge_create(p->ctx, &reference, p->config.num_kv_heads, &p->reference_judge);
}

static base_status_t allocate(as_planner_t *p)
{
    base_ctx_t *ctx = p->ctx;
    const as_topology_t *t = p->config.machine->topology;
    const int64_t servers = as_most(t->num_servers, t->num_trainers);
    const int64_t pieces = p->config.max_pieces, documents = p->config.max_documents;

    if ((p->trainer_nearest = base_calloc(ctx, t->num_trainers, sizeof(int32_t), "planner")) ==
            NULL ||
        (p->trainer_home = base_calloc(ctx, t->num_trainers, sizeof(int32_t), "planner")) == NULL ||
        (p->load[DATA_PING] = base_calloc(ctx, servers, sizeof(int64_t), "planner")) == NULL ||
        (p->load[DATA_PONG] = base_calloc(ctx, servers, sizeof(int64_t), "planner")) == NULL ||
        (p->half_goal[DATA_PING] = base_calloc(ctx, servers, sizeof(int64_t), "planner")) == NULL ||
        (p->half_goal[DATA_PONG] = base_calloc(ctx, servers, sizeof(int64_t), "planner")) == NULL ||
        (p->goal = base_calloc(ctx, servers, sizeof(int64_t), "planner")) == NULL ||
        (p->memory = base_calloc(ctx, servers, sizeof(int64_t), "planner")) == NULL ||
        (p->limit = base_calloc(ctx, servers, sizeof(int64_t), "planner")) == NULL ||
        (p->home_first = base_calloc(ctx, servers + 1, sizeof(int32_t), "planner")) == NULL ||
        (p->home_pieces = base_calloc(ctx, pieces, sizeof(int32_t), "planner")) == NULL ||
        (p->keep = base_calloc(ctx, pieces, sizeof *p->keep, "planner: pieces")) == NULL ||
        (p->rooms = base_calloc(ctx, servers, sizeof *p->rooms, "planner")) == NULL ||
        (p->stash = base_calloc(ctx, servers, sizeof *p->stash, "planner")) == NULL ||
        (p->offers = base_calloc(ctx, 2 * documents, sizeof *p->offers, "planner")) == NULL ||
        (p->offered = base_calloc(ctx, 2 * documents, sizeof(int32_t), "planner")) == NULL ||
        (p->fragments = base_calloc(ctx, p->max_fragments, sizeof *p->fragments,
                                    "planner: fragments")) == NULL ||
        (p->rects = base_calloc(ctx, p->max_rects, sizeof *p->rects, "planner: rectangles")) ==
            NULL ||
        (p->order = base_calloc(ctx, p->max_tasks, sizeof(int32_t), "planner: order")) == NULL ||
        (p->tasks = base_calloc(ctx, p->max_tasks, sizeof *p->tasks, "planner: tasks")) == NULL)
        return BASE_ERR_NOMEM;
    BASE_TRY(as_judge_create(ctx, p->config.machine, p->config.num_kv_heads, &p->judge));
    return create_reference(p);
}

/* In a round each head of each piece is one stretch, which is divided where a server is full, and
 * where one that was full again can take: at most twice a server and document. */
static void set_capacity(as_planner_t *p)
{
    const as_topology_t *t = p->config.machine->topology;
    const int64_t servers = as_most(t->num_servers, t->num_trainers);
    const int64_t most = (int64_t)p->config.max_pieces * p->heads +
                         MAX_ROUNDS * (2 * servers + 2 * (int64_t)p->config.max_documents) +
                         AS_POLISH_MOVES * ((int64_t)p->heads + 1);

    p->max_fragments = (int32_t)as_least(most, INT32_MAX / 4);
    p->max_tasks = (int32_t)as_least(
        2 * (int64_t)p->config.max_pieces + most + 16 * (int64_t)t->num_trainers, INT32_MAX / 2);
    p->max_rects = p->max_tasks;
}

base_status_t as_planner_create(base_ctx_t *ctx, const as_planner_config_t *config,
                                as_planner_t **planner_p)
{
    const as_topology_t *t = config->machine->topology;
    base_status_t st;

    if (config->num_kv_heads < 1 || config->num_kv_heads > AS_MAX_KV_HEADS ||
        config->max_documents < 1 || config->max_pieces < 1)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "planner: %" PRId32 " KV heads, %" PRId32 " documents, %" PRId32 " pieces",
                         config->num_kv_heads, config->max_documents, config->max_pieces);
    as_planner_t *p = base_calloc(ctx, 1, sizeof *p, "planner");
    if (p == NULL) return BASE_ERR_NOMEM;
    p->ctx = ctx;
    p->config = *config;
    p->grain = config->without & AS_WITHOUT_GRID ? FINE_GRAIN : DATA_ROW_ALIGN;
    p->heads = config->cut_heads ? config->num_kv_heads : 1;
    p->width = config->num_kv_heads / p->heads;
    p->num_servers = config->cuts_follow_servers ? t->num_servers : t->num_trainers;
    set_capacity(p);
    BASE_TRY_GOTO(allocate(p), st, err_destroy);
    find_nearest(t, p->trainer_nearest);
    for (int32_t i = 0; i < t->num_trainers; i++)
        p->trainer_home[i] = config->cuts_follow_servers ? p->trainer_nearest[i] : i;
    *planner_p = p;
    return BASE_OK;
err_destroy:
    as_planner_destroy(p);
    return st;
}

void as_planner_destroy(as_planner_t *p)
{
    if (p == NULL) return;
    as_judge_destroy(p->reference_judge);
    as_topology_destroy(p->reference);
    as_judge_destroy(p->judge);
    base_free(p->ctx, p->tasks);
    base_free(p->ctx, p->order);
    base_free(p->ctx, p->rects);
    base_free(p->ctx, p->fragments);
    base_free(p->ctx, p->offered);
    base_free(p->ctx, p->offers);
    base_free(p->ctx, p->stash);
    base_free(p->ctx, p->rooms);
    base_free(p->ctx, p->keep);
    base_free(p->ctx, p->home_pieces);
    base_free(p->ctx, p->home_first);
    base_free(p->ctx, p->limit);
    base_free(p->ctx, p->memory);
    base_free(p->ctx, p->goal);
    for (int half = 0; half < DATA_NUM_HALVES; half++) {
        base_free(p->ctx, p->half_goal[half]);
        base_free(p->ctx, p->load[half]);
    }
    base_free(p->ctx, p->trainer_home);
    base_free(p->ctx, p->trainer_nearest);
    base_free(p->ctx, p);
}

int32_t as_planner_max_tasks(const as_planner_t *p)
{
    return p->max_tasks;
}

const as_judge_t *as_planner_judge(const as_planner_t *p)
{
    return p->judge;
}

/* ==== running ==== */

static base_status_t check_batch(const as_planner_t *p, const data_batch_t *batch)
{
    const as_topology_t *t = p->config.machine->topology;

    if (!batch->finished || t->num_trainers != batch->num_trainers)
        return BASE_FAIL(p->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "microbatch %" PRId64 ": %s layout of %" PRId32 " trainers, want %" PRId32,
                         batch->microbatch, batch->finished ? "finished" : "unfinished",
                         batch->num_trainers, t->num_trainers);
    if (batch->num_documents > p->config.max_documents || batch->num_pieces > p->config.max_pieces)
        return BASE_FAIL(p->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "microbatch %" PRId64 ": %" PRId32 " documents in %" PRId32
                         " pieces, the planner is for %" PRId32 " and %" PRId32,
                         batch->microbatch, batch->num_documents, batch->num_pieces,
                         p->config.max_documents, p->config.max_pieces);
    for (int32_t d = 0; d < batch->num_documents; d++)
        if (as_tile_ceil(batch->documents[d].rows) > p->config.cost->num_tile_rows)
            return BASE_FAIL(p->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "microbatch %" PRId64 ": document %" PRId32 " of %" PRId64
                             " rows, the cost table is for %" PRId64,
                             batch->microbatch, d, batch->documents[d].rows,
                             p->config.cost->num_tile_rows * DATA_ROW_ALIGN);
    return BASE_OK;
}

/* The most that any server is above its goal. */
static int64_t worst_excess(const as_planner_t *p)
{
    int64_t most = 0;

    for (int32_t s = 0; s < p->num_servers; s++) {
        const int64_t both = p->load[DATA_PING][s] + p->load[DATA_PONG][s];

        most = as_most(most, both - p->goal[s] - p->goal[s] * SLACK_PER_MILLE / 1000);
    }
    return most;
}

static int64_t largest_room(const as_planner_t *p)
{
    int64_t most = 0;

    for (int32_t s = 0; s < p->num_servers; s++)
        most = as_most(most, as_most(as_room_of(p, s, DATA_PING), as_room_of(p, s, DATA_PONG)));
    return most;
}

/* The first round moves nearly everything, the fine ones level what tile rows left over, with
 * documents whose tile rows are shorter. Where those are too long for every room, one goes to a
 * server that has not enough room, and this one gives away something shorter. */
static void level(as_planner_t *p, int64_t joint_per_mille)
{
    p->num_fragments = 0;
    as_plan_survey(p, joint_per_mille);
    if (p->config.machine->topology->placement == AS_LOCAL && p->config.cuts_follow_servers) return;
    for (int round = 0; round < MAX_ROUNDS; round++) {
        const int forced = round == 3;
        const int64_t max_unit = round == 0 || forced ? INT64_MAX : largest_room(p);

        if (forced && worst_excess(p) == 0) break;
        if (as_plan_release(p, SLACK_PER_MILLE, max_unit) > 0)
            as_plan_fill(p, SLACK_PER_MILLE, forced);
    }
    as_plan_polish(p, SLACK_PER_MILLE);
}

/* The makespan that both ways aim at: what cuts at the trainers' edges cost is in it, unlike in the
 * bound. */
static int64_t aim(const as_planner_t *p)
{
    int64_t most = 0;

    for (int32_t s = 0; s < p->num_servers; s++)
        most = as_most(most, as_at_speed(p->goal[s], as_plan_speed(p, s)));
    return most + most * SLACK_PER_MILLE / 800;
}

/* One way to cut, judged on the machine that the cuts are for. */
static base_status_t try_plan(as_planner_t *p, int64_t joint_per_mille, const as_bounds_t *bounds,
                              as_plan_t *plan, as_score_t *score)
{
    level(p, joint_per_mille);
    p->enough_ns = aim(p);
    BASE_TRY(as_plan_emit(p, plan));
    if (p->config.cuts_follow_servers) as_plan_retain(p, plan);
    as_judge_run(p->config.cuts_follow_servers ? p->judge : p->reference_judge, p->config.cost,
                 p->batch, bounds, plan->tasks, plan->num_tasks, 0, score);
    return BASE_OK;
}

/* Balance first, as far as the slack; then the whole pass; then bytes. */
static int is_better(const as_score_t *a, const as_score_t *b, int64_t enough)
{
    const int64_t x = a->pass_ns[0] + a->pass_ns[1], y = b->pass_ns[0] + b->pass_ns[1];

    if (a->fits != b->fits) return a->fits;
    if (as_most(a->compute_ns, enough) != as_most(b->compute_ns, enough))
        return a->compute_ns < b->compute_ns;
    return x != y ? x < y : a->link_bytes < b->link_bytes;
}

/* Halves that make up for each other take fewer bytes, halves that are balanced each by itself hide
 * their links better: the better of both. */
static base_status_t choose_plan(as_planner_t *p, as_plan_t *plan)
{
    static const int64_t joint[] = {0, 1000};
    const int first = p->config.without & AS_WITHOUT_EACH_HALF ? 1 : 0;
    const int end = p->config.without & AS_WITHOUT_BOTH_HALVES ? 1 : 2;
    as_machine_t machine = *p->config.machine;
    as_bounds_t bounds;
    as_score_t best = {0}, score;
    int32_t num_best = 0;

    if (!p->config.cuts_follow_servers) {
        machine.topology = p->reference;
        machine.speed = NULL;
    }
    as_bounds_of(&machine, p->config.cost, p->config.num_kv_heads, p->batch, &bounds);

    for (int way = first; way < end; way++) {
        BASE_TRY(try_plan(p, joint[way], &bounds, plan, &score));
        if (way > first && !is_better(&score, &best, p->enough_ns)) continue;
        best = score;
        num_best = plan->num_tasks;
        memcpy(p->tasks, plan->tasks, (size_t)num_best * sizeof *p->tasks);
    }
    memcpy(plan->tasks, p->tasks, (size_t)num_best * sizeof *p->tasks);
    plan->num_tasks = num_best;
    return BASE_OK;
}

/* as_plan_retain counts each task's own heads, a run holds all between its first and its last: where
 * that is too much the server keeps nothing. Gives 1 when something changed. */
static int forget_retained(as_planner_t *p, as_plan_t *plan)
{
    const as_machine_t *m = p->config.machine;
    int forgot = 0;

    for (int32_t i = 0; i < plan->num_tasks && m->retain_bytes != NULL; i++) {
        as_task_t *task = &plan->tasks[i];
        const int32_t rank = m->topology->server_rank[task->server];

        if (!task->retained ||
            as_judge_retain_bytes(p->judge, rank) <= m->retain_bytes[task->server])
            continue;
        task->retained = 0;
        forgot = 1;
    }
    return forgot;
}

static void judge(as_planner_t *p, const as_plan_t *plan, as_score_t *score)
{
    as_bounds_t bounds;

    as_bounds_of(p->config.machine, p->config.cost, p->config.num_kv_heads, p->batch, &bounds);
    as_judge_run(p->judge, p->config.cost, p->batch, &bounds, plan->tasks, plan->num_tasks, 0,
                 score);
}

/* One plan with p->limit. */
static base_status_t make_plan(as_planner_t *p, as_plan_t *plan, as_score_t *score)
{
    memset(p->offered, 0xff, 2 * (size_t)p->batch->num_documents * sizeof *p->offered);
    BASE_TRY(choose_plan(p, plan));
    if (!p->config.cuts_follow_servers) {
        as_plan_assign(p, plan);
        as_plan_retain(p, plan);
    }
    judge(p, plan, score);
    if (!score->fits && forget_retained(p, plan)) judge(p, plan, score);
    return BASE_OK;
}

/* Memory is estimated while planning. Where the plan took more than it may, the next one is made for
 * so much less; 0: nothing is to be gained by another. */
static int lower_limits(as_planner_t *p)
{
    const as_machine_t *m = p->config.machine;
    int lowered = 0;

    if (!p->config.cuts_follow_servers || m->scratch_bytes == NULL) return 0;
    if (!p->limited)
        memcpy(p->limit, m->scratch_bytes, (size_t)m->topology->num_servers * sizeof *p->limit);
    for (int32_t s = 0; s < m->topology->num_servers; s++) {
        const int64_t over =
            as_judge_scratch_bytes(p->judge, m->topology->server_rank[s]) - m->scratch_bytes[s];

        if (over <= 0 || p->limit[s] == 0) continue;
        if (p->limited) p->limit[s] = as_most(p->limit[s] - over, 0);
        lowered = 1;
    }
    p->limited = 1;
    return lowered;
}

base_status_t as_planner_run(as_planner_t *p, const data_batch_t *batch, as_plan_t *plan,
                             as_score_t *score)
{
    BASE_TRY(check_batch(p, batch));
    p->batch = batch;
    p->limited = 0;
    for (int i = 0; i < MAX_TRIES; i++) {
        BASE_TRY(make_plan(p, plan, score));
        if (score->fits || !lower_limits(p)) break;
    }
    if (!score->fits) {
        BASE_TRY(as_plan_home(p, plan));
        judge(p, plan, score);
        score->at_home = 1;
    }
    if (!(p->config.without & AS_WITHOUT_GRID))
        BASE_TRY(as_plan_finish(plan, batch, p->config.machine->topology));
    if (score->fits) return BASE_OK;
    return BASE_FAIL(p->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                     "plan of microbatch %" PRId64 ": a server needs %" PRId64
                     " bytes of scratch and %" PRId64 " for retained tasks",
                     batch->microbatch, score->scratch_bytes, score->retain_bytes);
}
