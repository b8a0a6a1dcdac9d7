#include "trainer/bench/bench_plan_case.h"

#include "base/memory.h"
#include "base/sort.h"
#include "lora/pack.h"
#include "trainer/simulate/arm_distca.h"

#include <string.h>
#include <time.h>

/* 8B model: 436 MFLOP of dense layers per token and layer, at half of 989 TFLOPS; a server with all
 * eight KV heads is one GPU, with fewer it is one of a tensor-parallel group. */
#define DENSE_FLOP_PER_TOKEN 436000000
#define DENSE_FLOP_PER_US    494500000
#define MODEL_KV_HEADS       8
/* NVLink 4 as measured between two H200s (372 GB/s), 400 Gb/s InfiniBand as DistCA counts it
 * (40 GB/s). */
#define NVLINK_PS_PER_KIB  2753
#define NETWORK_PS_PER_KIB 25600

typedef struct samples {
    int64_t ratio[TR_PLAN_MAX_DRAWS], link[TR_PLAN_MAX_DRAWS], duplex[TR_PLAN_MAX_DRAWS];
    int64_t total[TR_PLAN_MAX_DRAWS], pass[TR_PLAN_MAX_DRAWS], bound[TR_PLAN_MAX_DRAWS];
    int64_t network[TR_PLAN_MAX_DRAWS];
    int64_t flow[AS_NUM_FLOWS][TR_PLAN_MAX_DRAWS];
    int64_t plan_ns[TR_PLAN_MAX_DRAWS], tasks[TR_PLAN_MAX_DRAWS];
} samples_t;

typedef struct bench {
    base_ctx_t *ctx;
    const tr_plan_setting_t *setting;
    as_topology_t *topology;
    int32_t *speed;          /* [servers] */
    as_cost_t *cost, *pairs; /* pairs: for TR_ARM_PAIRS */
    data_batch_t **batches;  /* [draws] */
    as_bounds_t *bounds;     /* [draws] */
    int32_t max_documents, max_pieces;
    data_document_t *documents; /* [max_documents] */
    samples_t samples;
} bench_t;

/* ==== layouts ==== */

static int64_t rows_each(const tr_plan_setting_t *s)
{
    const int64_t least = 2 * s->max_rows / s->num_servers;
    const int64_t rows = s->rows_each > least ? s->rows_each : least;

    return rows / (2 * DATA_ROW_ALIGN) * (2 * DATA_ROW_ALIGN);
}

/* Documents until the trainers are full; the last one is cut. */
static int32_t draw_documents(const tr_plan_setting_t *s, int32_t number,
                              data_document_t *documents, int32_t room)
{
    const tr_draw_t draw = {.lengths = s->lengths,
                            .scaled = s->scaled,
                            .max_rows = s->max_rows,
                            .seed = s->seed + (uint64_t)number};
    int64_t left = rows_each(s) * s->num_servers - DATA_ROW_ALIGN + 1;
    int32_t count = 0;

    for (; left > 0; count++) {
        int64_t rows = tr_draw_rows(&draw, (uint32_t)count);

        if (rows > left) rows = left;
        left -= rows;
        if (count < room) documents[count] = (data_document_t){.rows = rows, .index = count};
    }
    return count;
}

static base_status_t lay_out(bench_t *b)
{
    const tr_plan_setting_t *s = b->setting;
    const as_machine_t machine = {.topology = b->topology, .speed = b->speed};

    for (int32_t i = 0; i < s->draws; i++) {
        const int32_t count = draw_documents(s, i, NULL, 0);

        if (count > b->max_documents) b->max_documents = count;
    }
    b->max_pieces = b->max_documents + 2 * s->num_servers;
    b->documents = base_calloc(b->ctx, b->max_documents, sizeof *b->documents, "bench: documents");
    b->batches = base_calloc(b->ctx, s->draws, sizeof *b->batches, "bench: layouts");
    b->bounds = base_calloc(b->ctx, s->draws, sizeof *b->bounds, "bench: bounds");
    if (b->documents == NULL || b->batches == NULL || b->bounds == NULL) return BASE_ERR_NOMEM;
    for (int32_t i = 0; i < s->draws; i++) {
        const lora_pack_t pack = {.microbatch = i,
                                  .num_trainers = s->num_servers,
                                  .tokens_per_trainer = rows_each(s),
                                  .num_documents =
                                      draw_documents(s, i, b->documents, b->max_documents),
                                  .documents = b->documents};

        BASE_TRY(data_batch_create(b->ctx, b->max_documents, b->max_pieces, s->num_servers,
                                   &b->batches[i]));
        BASE_TRY(lora_pack_fast(b->ctx, &pack, b->batches[i]));
        as_bounds_of(&machine, b->cost, s->num_kv_heads, b->batches[i], &b->bounds[i]);
    }
    return BASE_OK;
}

static base_status_t create_topology(bench_t *b)
{
    const tr_plan_setting_t *s = b->setting;
    const int32_t per_host = s->ranks_per_host + s->pool_per_host;
    const int32_t ranks = s->num_servers / s->ranks_per_host * per_host;
    int32_t *hosts = base_calloc(b->ctx, ranks, sizeof *hosts, "bench: hosts");
    base_status_t st;

    if (hosts == NULL) return BASE_ERR_NOMEM;
    for (int32_t r = 0; r < ranks; r++)
        hosts[r] = r / per_host;
    st = as_topology_create(b->ctx, s->pool_per_host > 0 ? AS_POOL : AS_IN_PLACE, ranks, hosts,
                            s->pool_per_host, &b->topology);
    base_free(b->ctx, hosts);
    return st;
}

static base_status_t describe(bench_t *b)
{
    const tr_plan_setting_t *s = b->setting;
    as_profile_t pairs;

    BASE_TRY(create_topology(b));
    b->speed = base_calloc(b->ctx, b->topology->num_servers, sizeof *b->speed, "bench: speeds");
    if (b->speed == NULL) return BASE_ERR_NOMEM;
    for (int32_t i = 0; i < b->topology->num_servers; i++)
        b->speed[i] = s->uneven && i % 2 ? AS_SPEED_ONE / 2 : AS_SPEED_ONE;
    as_profile_pairs(&pairs);
    BASE_TRY(as_cost_create(b->ctx, &pairs, 0, s->max_rows, &b->pairs));
    return as_cost_create(b->ctx, s->profile, 0, s->max_rows, &b->cost);
}

static void close_bench(bench_t *b)
{
    for (int32_t i = 0; b->batches != NULL && i < b->setting->draws; i++)
        data_batch_destroy(b->batches[i]);
    base_free(b->ctx, b->bounds);
    base_free(b->ctx, b->batches);
    base_free(b->ctx, b->documents);
    as_cost_destroy(b->pairs);
    as_cost_destroy(b->cost);
    base_free(b->ctx, b->speed);
    as_topology_destroy(b->topology);
}

static as_machine_t machine_of(const bench_t *b, const tr_plan_arm_t *arm)
{
    const tr_plan_setting_t *s = b->setting;
    const int64_t dense_ns = rows_each(s) / 2 * DENSE_FLOP_PER_TOKEN / DENSE_FLOP_PER_US * 1000 *
                             s->num_kv_heads / MODEL_KV_HEADS;
    as_machine_t m = {.topology = b->topology,
                      .speed = b->speed,
                      .num_layers = 1,
                      .link_ps_per_kib = {NVLINK_PS_PER_KIB, NETWORK_PS_PER_KIB},
                      .dense_ns = {dense_ns, dense_ns}};

    if (arm->distca_wire || arm->kind == TR_ARM_DISTCA_PUBLISHED ||
        arm->kind == TR_ARM_DISTCA_SHIPPED)
        tr_distca_wire(s->group, s->head_dim, 2, 4, &m.wire);
    else
        as_wire_seam(s->group, s->head_dim, 2, 4, arm->grad_bytes, &m.wire);
    return m;
}

/* ==== samples ==== */

static void take_sample(bench_t *b, int32_t i, const as_score_t *score, int64_t ns)
{
    samples_t *x = &b->samples;

    x->ratio[i] = score->compute_ns * 10000 / score->bound_ns;
    x->link[i] = score->link_bytes;
    x->network[i] = score->network_bytes;
    for (int flow = 0; flow < AS_NUM_FLOWS; flow++)
        x->flow[flow][i] = score->flow_bytes[flow];
    x->duplex[i] = score->duplex_bytes;
    x->total[i] = score->total_bytes;
    x->pass[i] = score->pass_ns[0] + score->pass_ns[1];
    x->bound[i] = score->pass_bound_ns[0] + score->pass_bound_ns[1];
    x->plan_ns[i] = ns;
    x->tasks[i] = score->num_tasks;
}

static int by_value(const void *a, const void *b, const void *unused)
{
    (void)unused;
    return base_compare_i64(*(const int64_t *)a, *(const int64_t *)b);
}

/* Sorts the sample. */
static int64_t median(int64_t *x, int32_t count)
{
    base_sort(x, count, sizeof *x, by_value, NULL);
    return count % 2 ? x[count / 2] : (x[count / 2 - 1] + x[count / 2]) / 2;
}

static void summarise(bench_t *b, const tr_plan_arm_t *arm, tr_plan_row_t *row)
{
    samples_t *x = &b->samples;
    const int32_t n = b->setting->draws;

    row->name = arm->name;
    row->ratio_median = median(x->ratio, n);
    row->ratio_worst = x->ratio[n - 1];
    row->link_median = median(x->link, n);
    for (int flow = 0; flow < AS_NUM_FLOWS; flow++)
        row->flow_median[flow] = median(x->flow[flow], n);
    row->network_median = median(x->network, n);
    row->duplex_median = median(x->duplex, n);
    row->total_median = median(x->total, n);
    row->pass_median = median(x->pass, n);
    row->pass_bound_median = median(x->bound, n);
    row->plan_ns_median = median(x->plan_ns, n);
    row->plan_ns_worst = x->plan_ns[n - 1];
    row->tasks_median = median(x->tasks, n);
}

/* Of this thread: other work on the machine does not count. */
static int64_t thread_ns(void)
{
    struct timespec t = {0};

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ==== arms ==== */

static base_status_t run_cadre(bench_t *b, const tr_plan_arm_t *arm)
{
    const tr_plan_setting_t *s = b->setting;
    const as_machine_t machine = machine_of(b, arm);
    const as_planner_config_t config = {
        .machine = &machine,
        .cost = arm->kind == TR_ARM_PAIRS ? b->pairs : b->cost,
        .num_kv_heads = s->num_kv_heads,
        .cut_heads = arm->cut_heads,
        .retain = arm->retain,
        .cuts_follow_servers = arm->cuts_follow_servers,
        .without = arm->without,
        .max_documents = b->max_documents,
        .max_pieces = b->max_pieces,
    };
    as_planner_t *planner = NULL;
    as_judge_t *judge = NULL;
    as_plan_t *plan = NULL;
    base_status_t st;

    BASE_TRY_GOTO(as_planner_create(b->ctx, &config, &planner), st, done);
    BASE_TRY_GOTO(as_judge_create(b->ctx, &machine, s->num_kv_heads, &judge), st, done);
    BASE_TRY_GOTO(as_plan_create(b->ctx, as_planner_max_tasks(planner), &plan), st, done);
    for (int32_t i = 0; i < s->draws; i++) {
        as_score_t score;

        /* Once to warm the memory up: a run plans thousands of microbatches. */
        if (i == 0) BASE_TRY_GOTO(as_planner_run(planner, b->batches[i], plan, &score), st, done);
        const int64_t start = thread_ns();
        BASE_TRY_GOTO(as_planner_run(planner, b->batches[i], plan, &score), st, done);
        const int64_t ns = thread_ns() - start;
        as_judge_run(judge, b->cost, b->batches[i], &b->bounds[i], plan->tasks, plan->num_tasks, 0,
                     &score);
        take_sample(b, i, &score, ns);
    }
done:
    as_plan_destroy(plan);
    as_judge_destroy(judge);
    as_planner_destroy(planner);
    return st;
}

static base_status_t run_distca(bench_t *b, const tr_plan_arm_t *arm)
{
    const tr_plan_setting_t *s = b->setting;
    const as_machine_t machine = machine_of(b, arm);
    const tr_distca_config_t config = {
        .shipped = arm->kind == TR_ARM_DISTCA_SHIPPED,
        .tolerance_per_mille = arm->tolerance_per_mille,
        .num_kv_heads = s->num_kv_heads,
        .q_bytes = 2 * s->group * s->head_dim,
        .kv_bytes = 4 * s->head_dim,
        .max_documents = b->max_documents,
        .max_pieces = b->max_pieces,
        .num_servers = s->num_servers,
    };
    tr_distca_t *distca = NULL;
    as_judge_t *judge = NULL;
    base_status_t st;

    BASE_TRY_GOTO(tr_distca_create(b->ctx, &config, &distca), st, done);
    BASE_TRY_GOTO(as_judge_create(b->ctx, &machine, s->num_kv_heads, &judge), st, done);
    for (int32_t i = 0; i < s->draws; i++) {
        const as_task_t *tasks;
        int32_t num_tasks;
        as_score_t score;
        const int64_t start = thread_ns();

        BASE_TRY_GOTO(tr_distca_run(distca, b->batches[i], &tasks, &num_tasks), st, done);
        const int64_t ns = thread_ns() - start;
        as_judge_run(judge, b->cost, b->batches[i], &b->bounds[i], tasks, num_tasks, 1, &score);
        take_sample(b, i, &score, ns);
    }
done:
    as_judge_destroy(judge);
    tr_distca_destroy(distca);
    return st;
}

base_status_t tr_plan_case_run(base_ctx_t *ctx, const tr_plan_setting_t *setting,
                               const tr_plan_arm_t *arms, int32_t num_arms, tr_plan_row_t *rows)
{
    bench_t b = {.ctx = ctx, .setting = setting};
    base_status_t st;

    if (setting->draws < 1 || setting->draws > TR_PLAN_MAX_DRAWS)
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02, "--draws: %d, want 1 to %d",
                         (int)setting->draws, TR_PLAN_MAX_DRAWS);
    BASE_TRY_GOTO(describe(&b), st, done);
    BASE_TRY_GOTO(lay_out(&b), st, done);
    for (int32_t a = 0; a < num_arms; a++) {
        const int distca =
            arms[a].kind == TR_ARM_DISTCA_PUBLISHED || arms[a].kind == TR_ARM_DISTCA_SHIPPED;

        memset(&b.samples, 0, sizeof b.samples);
        BASE_TRY_GOTO(distca ? run_distca(&b, &arms[a]) : run_cadre(&b, &arms[a]), st, done);
        summarise(&b, &arms[a], &rows[a]);
    }
done:
    close_bench(&b);
    return st;
}
