#include "trainer/loop/attention_plans.h"

#include "base/memory.h"
#include "trainer/loop/builtin_profile.h"

/* Retained tasks of one server, so that what the seam's alignment adds to them is known: each has
 * q, lse and at most one run, whose k and v are aligned apart. */
#define MAX_RETAINED   1024
#define RETAINED_ALIGN (INT64_C(4) * 256)
#define PAGE           INT64_C(4096)

/* Picoseconds for 1024 bytes, within a host and between hosts; they decide between plans that are
 * balanced alike. On the CPU a copy, and Ethernet; on a GPU NVLink and InfiniBand as `cadre bench
 * plan` has them. */
static const int64_t cpu_links[AS_NUM_TIERS] = {250000, 1000000};
static const int64_t gpu_links[AS_NUM_TIERS] = {2753, 25600};

struct tr_attention_plans {
    base_ctx_t *ctx;
    int32_t num_kinds;
    int64_t *retain; /* [servers], all alike */
    int32_t *kept;   /* [servers] retained tasks of the plan at hand */
    as_machine_t machine;
    as_cost_t *cost[AS_MAX_KINDS];
    as_planner_t *planner[AS_MAX_KINDS];
};

static as_wire_t wire_of(const tr_attention_plans_options_t *o)
{
    const int32_t acc = (int32_t)kern_dtype_bytes(kern_dtype_acc(o->dtype));
    as_wire_t wire;

    as_wire_seam(o->group, o->head_dim, (int32_t)kern_dtype_bytes(o->dtype), acc, acc, &wire);
    wire.partial_per_task = 1; /* as the seam does it today */
    return wire;
}

/* ==== memory for retained tasks ==== */

/* q and lse of every row of the microbatch, k and v of every row, in all layers: there is no more
 * to keep on one server. Where nothing comes from another rank nothing is worth keeping. */
static int64_t retain_limit(const tr_attention_plans_options_t *o)
{
    if (o->topology->num_ranks == 1 || o->topology->placement == AS_LOCAL) return 0;
    const as_wire_t wire = wire_of(o);
    const int64_t row =
        wire.row[AS_FLOW_BWD_OUT][0] - wire.row[AS_FLOW_BWD_OUT][1] + wire.key[AS_FLOW_FWD_OUT][0];
    const int64_t all =
        o->topology->num_trainers * o->tokens_per_trainer * o->num_kv_heads * row * o->num_layers;

    return o->retain_bytes < all ? o->retain_bytes : all;
}

static int32_t max_retained(const tr_attention_plans_options_t *o)
{
    const int64_t most = (int64_t)o->topology->num_trainers * o->tokens_per_trainer /
                             DATA_ROW_ALIGN * o->num_kv_heads +
                         (int64_t)o->max_pieces * o->num_kv_heads;

    return (int32_t)(most < MAX_RETAINED ? most : MAX_RETAINED);
}

int64_t tr_attention_plans_retained(const tr_attention_plans_options_t *options)
{
    const int64_t limit = retain_limit(options);

    if (limit == 0) return 0;
    return limit + options->num_layers * (max_retained(options) * RETAINED_ALIGN + PAGE);
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
    p->kept = base_calloc(ctx, servers, sizeof *p->kept, "plans");
    if (p->retain == NULL || p->kept == NULL) goto err_destroy;
    for (int32_t s = 0; s < servers; s++)
        p->retain[s] = retain_limit(options);
    if (options->profile != NULL)
        profile = *options->profile;
    else
        tr_builtin_profile(options->dtype, options->group, options->head_dim, &profile);
    make_machine(p, options, &profile);
    for (int32_t k = 0; k < options->num_kinds; k++)
        BASE_TRY_GOTO(make_planner(p, options, &profile, k), st, err_destroy);
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
    base_free(plans->ctx, plans->kept);
    base_free(plans->ctx, plans->retain);
    base_free(plans->ctx, plans);
}

int32_t tr_attention_plans_max_tasks(const tr_attention_plans_t *plans)
{
    return as_planner_max_tasks(plans->planner[0]);
}

/* ==== running ==== */

/* No more retained tasks of a server than memory was set aside for. */
static base_status_t limit_retained(tr_attention_plans_t *p, const data_batch_t *batch,
                                    as_plan_t *plan)
{
    const as_topology_t *t = p->machine.topology;
    int changed = 0;

    for (int32_t s = 0; s < t->num_servers; s++)
        p->kept[s] = 0;
    for (int32_t i = 0; i < plan->num_tasks; i++) {
        as_task_t *task = &plan->tasks[i];

        if (!task->retained || p->kept[task->server]++ < MAX_RETAINED) continue;
        task->retained = 0;
        changed = 1;
    }
    return changed ? as_plan_finish(plan, batch, t) : BASE_OK;
}

base_status_t tr_attention_plans_run(tr_attention_plans_t *plans, const data_batch_t *batch,
                                     as_plan_t *const *plan, as_score_t *score)
{
    for (int32_t k = 0; k < plans->num_kinds; k++) {
        BASE_TRY(as_planner_run(plans->planner[k], batch, plan[k], &score[k]));
        BASE_TRY(limit_retained(plans, batch, plan[k]));
    }
    return BASE_OK;
}
