#include "trainer/loop/attention_plans.h"

#include "base/log.h"
#include "base/memory.h"
#include "trainer/loop/builtin_profile.h"

/* Alignment of a hundred retained tasks and their runs, one layer. */
#define RETAINED_ALIGN (INT64_C(100) * 4 * 256)

/* Picoseconds for 1024 bytes, within a host and between hosts; they decide between plans that are
 * balanced alike. On the CPU a copy, and Ethernet; on a GPU NVLink and InfiniBand as `cadre bench
 * plan` has them. */
static const int64_t cpu_links[AS_NUM_TIERS] = {250000, 1000000};
static const int64_t gpu_links[AS_NUM_TIERS] = {2753, 25600};

struct tr_attention_plans {
    base_ctx_t *ctx;
    int32_t num_kinds;
    int64_t *scratch, *retain; /* [servers], all alike */
    int32_t *speed;            /* [servers]; NULL: all alike */
    int64_t trainer_scratch;   /* of a rank that only trains */
    as_machine_t machine;
    as_cost_t *cost[AS_MAX_KINDS];
    as_planner_t *planner[AS_MAX_KINDS];
};

static as_wire_t wire_of(const tr_attention_plans_options_t *o)
{
    const int32_t real = (int32_t)kern_dtype_bytes(o->dtype);
    const int32_t acc = (int32_t)kern_dtype_bytes(kern_dtype_acc(o->dtype));
    as_wire_t wire;

    as_wire_seam(o->group, o->head_dim, real, acc, o->sums_per_server ? real : acc, &wire);
    wire.partial_per_task = !o->sums_per_server;
    return wire;
}

/* ==== memory ==== */

/* q and lse of every row of the microbatch, k and v of every row, in all layers, and something for
 * alignment: there is hardly more to keep on one server. Where nothing comes from another rank nothing
 * is worth keeping. */
static int64_t retain_limit(const tr_attention_plans_options_t *o)
{
    if (o->topology->num_ranks == 1 || o->topology->placement == AS_LOCAL) return 0;
    const as_wire_t wire = wire_of(o);
    const int64_t row =
        wire.row[AS_FLOW_BWD_OUT][0] - wire.row[AS_FLOW_BWD_OUT][1] + wire.key[AS_FLOW_FWD_OUT][0];
    const int64_t rows = o->topology->num_trainers * o->tokens_per_trainer;
    const int64_t all = o->num_layers * (rows * o->num_kv_heads * row + RETAINED_ALIGN);

    return o->retain_bytes < all ? o->retain_bytes : all;
}

int64_t tr_attention_plans_scratch(const tr_attention_plans_t *p, int rank)
{
    const int32_t server = p->machine.topology->rank_server[rank];

    return p->num_kinds * (server >= 0 ? p->scratch[server] : p->trainer_scratch);
}

int64_t tr_attention_plans_retained(const tr_attention_plans_t *p)
{
    return p->retain[0];
}

/* ==== creation ==== */

/* Dense layers of a half, at the speed of attention where it is fastest. */
static int64_t dense_ns(const tr_attention_plans_options_t *o, const as_profile_t *p, int direction)
{
    const int32_t last = p->num_points - 1;
    const int64_t products = direction == AS_PROFILE_FORWARD ? 2 : 5; /* gemms of a tile */
    const int64_t flop = 2 * products * DATA_ROW_ALIGN * p->keys[last] * o->group * o->head_dim;
    const int64_t ns = p->tile_row_ps[direction][last] / 1000 + 1;
    const int64_t rate = flop / ns > 0 ? flop / ns : 1;

    return o->tokens_per_trainer / 2 * o->dense_flop[direction] / rate;
}

static void make_machine(tr_attention_plans_t *p, const tr_attention_plans_options_t *o,
                         const as_profile_t *profile)
{
    const int64_t *links = o->dtype == KERN_BF16 ? gpu_links : cpu_links;

    p->machine = (as_machine_t){.topology = o->topology,
                                .speed = p->speed,
                                .scratch_bytes = p->scratch,
                                .trainer_scratch_bytes = &p->trainer_scratch,
                                .retain_bytes = p->retain,
                                .num_layers = o->num_layers,
                                .link_ps_per_kib = {links[0], links[1]},
                                .dense_ns = {dense_ns(o, profile, AS_PROFILE_FORWARD),
                                             dense_ns(o, profile, AS_PROFILE_BACKWARD)},
                                .wire = wire_of(o)};
}

static base_status_t make_planner(tr_attention_plans_t *p, const tr_attention_plans_options_t *o,
                                  const as_profile_t *profile, int32_t kind)
{
    const int64_t all_rows = o->topology->num_trainers * o->tokens_per_trainer;
    as_planner_config_t config = {.machine = &p->machine,
                                  .num_kv_heads = o->num_kv_heads,
                                  .cut_heads = 1,
                                  .retain = o->retain_bytes > 0,
                                  .cuts_follow_servers = o->cuts_follow_servers,
                                  .max_documents = o->max_documents,
                                  .max_pieces = o->max_pieces};

    BASE_TRY(as_cost_create(p->ctx, profile, o->window[kind], all_rows, &p->cost[kind]));
    config.cost = p->cost[kind];
    return as_planner_create(p->ctx, &config, &p->planner[kind]);
}

/* The limits that every plan is to fit: the planners look at them when they run. */
static void limit_scratch(tr_attention_plans_t *p, const tr_attention_plans_options_t *o)
{
    const int64_t all_rows = o->topology->num_trainers * o->tokens_per_trainer;
    const as_home_bytes_t most = as_planner_staging_bytes(
        p->planner[0], o->longest > 0 ? o->longest : all_rows, o->tokens_per_trainer / 2);

    for (int32_t s = 0; s < o->topology->num_servers; s++)
        p->scratch[s] = most.server;
    p->trainer_scratch = most.trainer;
}

/* Where speeds are unlike; a number of the configuration becomes the same integer everywhere. */
static base_status_t set_speeds(tr_attention_plans_t *p, const tr_attention_plans_options_t *o)
{
    if (o->server_speeds == NULL) return BASE_OK;
    p->speed = base_calloc(p->ctx, o->topology->num_servers, sizeof *p->speed, "plans");
    if (p->speed == NULL) return BASE_ERR_NOMEM;
    for (int32_t s = 0; s < o->topology->num_servers; s++)
        p->speed[s] = (int32_t)(o->server_speeds[s] * AS_SPEED_ONE + 0.5);
    return BASE_OK;
}

base_status_t tr_attention_plans_create(base_ctx_t *ctx,
                                        const tr_attention_plans_options_t *options,
                                        tr_attention_plans_t **plans_p)
{
    const int32_t servers = options->topology->num_servers;
    as_profile_t profile;
    base_status_t st = BASE_ERR_NOMEM;

    tr_attention_plans_t *p = base_calloc(ctx, 1, sizeof *p, "plans");
    if (p == NULL) return BASE_ERR_NOMEM;
    p->ctx = ctx;
    p->num_kinds = options->num_kinds;
    p->retain = base_calloc(ctx, servers, sizeof *p->retain, "plans");
    p->scratch = base_calloc(ctx, servers, sizeof *p->scratch, "plans");
    if (p->retain == NULL || p->scratch == NULL) goto err_destroy;
    BASE_TRY_GOTO(set_speeds(p, options), st, err_destroy);
    for (int32_t s = 0; s < servers; s++)
        p->retain[s] = retain_limit(options);
    if (options->profile != NULL)
        profile = *options->profile;
    else
        tr_builtin_profile(options->dtype, options->group, options->head_dim, &profile);
    make_machine(p, options, &profile);
    for (int32_t k = 0; k < options->num_kinds; k++)
        BASE_TRY_GOTO(make_planner(p, options, &profile, k), st, err_destroy);
    limit_scratch(p, options);
    *plans_p = p;
    return BASE_OK;
err_destroy:
    tr_attention_plans_destroy(p);
    return st;
}

void tr_attention_plans_destroy(tr_attention_plans_t *plans)
{
    if (plans == NULL) return;
    for (int32_t k = 0; k < AS_MAX_KINDS; k++) {
        as_planner_destroy(plans->planner[k]);
        as_cost_destroy(plans->cost[k]);
    }
    base_free(plans->ctx, plans->speed);
    base_free(plans->ctx, plans->scratch);
    base_free(plans->ctx, plans->retain);
    base_free(plans->ctx, plans);
}

int32_t tr_attention_plans_max_tasks(const tr_attention_plans_t *plans)
{
    return as_planner_max_tasks(plans->planner[0]);
}

/* ==== running ==== */

/* Placement is then as it was laid out, and other servers would have other cuts. On local servers and
 * on one rank it never is otherwise. */
static void warn_at_home(const tr_attention_plans_t *p, const data_batch_t *batch)
{
    const as_topology_t *t = p->machine.topology;

    if (t->placement == AS_LOCAL || t->num_ranks == 1 || base_ctx_rank(p->ctx) != 0) return;
    base_log_warn(base_ctx_log(p->ctx), "plan-at-home",
                  "microbatch %lld: attention is not balanced, no such plan fits the memory for "
                  "staging; its sums are in another order than with other servers",
                  (long long)batch->microbatch);
}

base_status_t tr_attention_plans_run(tr_attention_plans_t *plans, const data_batch_t *batch,
                                     as_plan_t *const *plan, as_score_t *score)
{
    for (int32_t k = 0; k < plans->num_kinds; k++) {
        BASE_TRY(as_planner_run(plans->planner[k], batch, plan[k], &score[k]));
        if (score[k].at_home) warn_at_home(plans, batch);
    }
    return BASE_OK;
}
