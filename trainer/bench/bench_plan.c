#include "trainer/bench/bench_plan.h"

#include "base/json_write.h"
#include "trainer/bench/bench_plan_case.h"
#include "trainer/simulate/derived_profile.h"

#include <inttypes.h>

#define ROWS_EACH      65536
#define MODEL_KV_HEADS 8
#define GROUP          4 /* of the derived profile */
#define MAX_ARMS       16

/* ==== arms ==== */

enum { CADRE, FIXED, FP32, SAME_MESSAGES, PUBLISHED, SHIPPED, NUM_MAIN };

/* grad_bytes 2: dk and dv return in bf16, one sum for each server and document, as DistCA's do. */
static const tr_plan_arm_t main_arms[NUM_MAIN] = {
    {"cadre", TR_ARM_CADRE, 1, 1, 1, 0, 2, 0, 0},
    {"cadre, cuts by layout", TR_ARM_CADRE, 1, 1, 0, 0, 2, 0, 0},
    {"cadre, dk and dv fp32", TR_ARM_CADRE, 1, 1, 1, 0, 4, 0, 0},
    {"cadre, DistCA's messages", TR_ARM_CADRE, 1, 0, 1, 0, 2, 0, 1},
    {"DistCA published 0.05", TR_ARM_DISTCA_PUBLISHED, 0, 0, 0, 0, 0, 50, 1},
    {"DistCA shipped 0.05", TR_ARM_DISTCA_SHIPPED, 0, 0, 0, 0, 0, 50, 1},
};

static const tr_plan_arm_t ablation_arms[] = {
    {"cadre", TR_ARM_CADRE, 1, 1, 1, 0, 2, 0, 0},
    {"without links", TR_ARM_CADRE, 1, 1, 1, AS_WITHOUT_LINKS, 2, 0, 0},
    {"without the 128-row grid", TR_ARM_CADRE, 1, 1, 1, AS_WITHOUT_GRID, 2, 0, 0},
    {"without residency", TR_ARM_CADRE, 1, 1, 1, AS_WITHOUT_RESIDENCY, 2, 0, 0},
    {"without the time model", TR_ARM_PAIRS, 1, 1, 1, 0, 2, 0, 0},
    {"halves each by itself", TR_ARM_CADRE, 1, 1, 1, AS_WITHOUT_BOTH_HALVES, 2, 0, 0},
    {"halves together only", TR_ARM_CADRE, 1, 1, 1, AS_WITHOUT_EACH_HALF, 2, 0, 0},
    {"without retained tasks", TR_ARM_CADRE, 1, 0, 1, 0, 2, 0, 0},
    {"without head cuts", TR_ARM_CADRE, 0, 1, 1, 0, 2, 0, 0},
};
enum { NUM_ABLATIONS = sizeof ablation_arms / sizeof ablation_arms[0] };

static const tr_plan_arm_t distca_arms[] = {
    {"cadre", TR_ARM_CADRE, 1, 1, 1, 0, 2, 0, 0},
    {"DistCA published 0", TR_ARM_DISTCA_PUBLISHED, 0, 0, 0, 0, 0, 0, 1},
    {"DistCA published 0.05", TR_ARM_DISTCA_PUBLISHED, 0, 0, 0, 0, 0, 50, 1},
    {"DistCA published 0.10", TR_ARM_DISTCA_PUBLISHED, 0, 0, 0, 0, 0, 100, 1},
    {"DistCA shipped 0", TR_ARM_DISTCA_SHIPPED, 0, 0, 0, 0, 0, 0, 1},
    {"DistCA shipped 0.05", TR_ARM_DISTCA_SHIPPED, 0, 0, 0, 0, 0, 50, 1},
    {"DistCA shipped 0.10", TR_ARM_DISTCA_SHIPPED, 0, 0, 0, 0, 0, 100, 1},
};
enum { NUM_DISTCA = sizeof distca_arms / sizeof distca_arms[0] };

/* ==== writing ==== */

typedef struct writer {
    base_ctx_t *ctx;
    const tr_bench_plan_t *options;
    FILE *out;
} writer_t;

static void json_setting(base_json_t *j, const tr_plan_setting_t *s)
{
    base_json_put_string(j, "lengths", tr_lengths_name(s->lengths));
    base_json_put_bool(j, "scaled", s->scaled != 0);
    base_json_put_int(j, "max_rows", s->max_rows);
    base_json_put_int(j, "servers", s->num_servers);
    base_json_put_int(j, "kv_heads", s->num_kv_heads);
    base_json_put_int(j, "draws", s->draws);
    base_json_put_string(j, "profile", s->profile->source);
    base_json_put_bool(j, "profile_derived", s->profile->derived != 0);
}

static base_status_t json_row(const writer_t *w, const tr_plan_setting_t *s,
                              const tr_plan_row_t *row)
{
    const struct {
        const char *key;
        int64_t value;
    } numbers[] = {
        {"makespan_median_1e4", row->ratio_median},
        {"makespan_worst_1e4", row->ratio_worst},
        {"link_bytes_median", row->link_median},
        {"network_bytes_median", row->network_median},
        {"duplex_bytes_median", row->duplex_median},
        {"total_bytes_median", row->total_median},
        {"layer_ns_median", row->pass_median},
        {"layer_bound_ns_median", row->pass_bound_median},
        {"plan_thread_ns_median", row->plan_ns_median},
        {"plan_thread_ns_worst", row->plan_ns_worst},
        {"tasks_median", row->tasks_median},
    };
    base_json_t j;

    base_json_to_file(&j, w->out);
    base_json_begin_object(&j);
    json_setting(&j, s);
    base_json_put_string(&j, "arm", row->name);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        base_json_put_int(&j, numbers[i].key, numbers[i].value);
    }
    base_json_end(&j);
    base_json_newline(&j);
    return base_json_finish(&j, w->ctx, "bench plan");
}

static void write_ratio(FILE *out, const tr_plan_row_t *row)
{
    (void)fprintf(out, "  %.4f %.4f", (double)row->ratio_median / 1e4,
                  (double)row->ratio_worst / 1e4);
}

/* Bytes of the busiest link over those of the better of DistCA's two. */
static double link_share(const tr_plan_row_t *rows, int arm)
{
    const int64_t a = rows[PUBLISHED].link_median, b = rows[SHIPPED].link_median;

    return (double)rows[arm].link_median / (double)(a < b ? a : b);
}

static void write_main(FILE *out, const tr_plan_setting_t *s, const tr_plan_row_t *rows)
{
    (void)fprintf(out, "%-8s %-7s %4" PRId64 "k %4" PRId32, tr_lengths_name(s->lengths),
                  s->scaled ? "scaled" : "natural", s->max_rows / 1024, s->num_servers);
    write_ratio(out, &rows[CADRE]);
    write_ratio(out, &rows[FIXED]);
    write_ratio(out, &rows[PUBLISHED]);
    write_ratio(out, &rows[SHIPPED]);
    (void)fprintf(out, "  %8.1f  %.2f %.2f %.2f %.2f", (double)rows[CADRE].link_median / 1e6,
                  link_share(rows, CADRE), link_share(rows, FIXED), link_share(rows, FP32),
                  link_share(rows, SAME_MESSAGES));
    (void)fprintf(out, "  %.3f %.3f %.3f",
                  (double)rows[CADRE].pass_median / (double)rows[CADRE].pass_bound_median,
                  (double)rows[PUBLISHED].pass_median / (double)rows[PUBLISHED].pass_bound_median,
                  (double)rows[SHIPPED].pass_median / (double)rows[SHIPPED].pass_bound_median);
    (void)fprintf(out, "  %7.3f %7.3f %8.3f\n", (double)rows[CADRE].plan_ns_median / 1e6,
                  (double)rows[FIXED].plan_ns_median / 1e6,
                  (double)rows[PUBLISHED].plan_ns_median / 1e6);
}

static void write_arms(FILE *out, const tr_plan_setting_t *s, const tr_plan_row_t *rows,
                       int32_t num_rows)
{
    (void)fprintf(out, "\n%s %s %" PRId64 "k, %" PRId32 " servers, %" PRId32 " KV heads\n",
                  tr_lengths_name(s->lengths), s->scaled ? "scaled" : "natural", s->max_rows / 1024,
                  s->num_servers, s->num_kv_heads);
    (void)fprintf(out, "%-26s %-15s  %9s %6s  %10s  %9s  %s\n", "", "makespan/bound", "link MB", "",
                  "network MB", "total MB", "layer/bound");
    for (int32_t i = 0; i < num_rows; i++) {
        (void)fprintf(out, "%-26s", rows[i].name);
        write_ratio(out, &rows[i]);
        (void)fprintf(out, "  %9.1f %5.2fx  %10.1f  %9.0f  %.3f\n",
                      (double)rows[i].link_median / 1e6,
                      (double)rows[i].link_median / (double)rows[0].link_median,
                      (double)rows[i].network_median / 1e6, (double)rows[i].total_median / 1e6,
                      (double)rows[i].pass_median / (double)rows[i].pass_bound_median);
    }
}

/* ==== tables ==== */

static base_status_t run_setting(const writer_t *w, const tr_plan_setting_t *s,
                                 const tr_plan_arm_t *arms, int32_t num_arms)
{
    tr_plan_row_t rows[MAX_ARMS];

    BASE_TRY(tr_plan_case_run(w->ctx, s, arms, num_arms, rows));
    if (w->options->json) {
        for (int32_t i = 0; i < num_arms; i++)
            BASE_TRY(json_row(w, s, &rows[i]));
    } else if (arms == main_arms) {
        write_main(w->out, s, rows);
    } else {
        write_arms(w->out, s, rows, num_arms);
    }
    (void)fflush(w->out);
    return BASE_OK;
}

static tr_plan_setting_t setting_of(const writer_t *w, tr_lengths_t lengths, int scaled,
                                    int64_t max_rows, int32_t servers, int32_t kv_heads)
{
    return (tr_plan_setting_t){.lengths = lengths,
                               .scaled = scaled,
                               .max_rows = max_rows,
                               .rows_each = ROWS_EACH,
                               .num_servers = servers,
                               .ranks_per_host = 1,
                               .num_kv_heads = kv_heads,
                               .group = w->options->profile->group,
                               .head_dim = w->options->profile->head_dim,
                               .profile = w->options->profile,
                               .draws = w->options->draws,
                               .seed = 1};
}

static base_status_t main_table(const writer_t *w, int32_t kv_heads)
{
    static const int64_t longest[] = {131072, 262144, 524288};

    if (!w->options->json)
        (void)fprintf(
            w->out,
            "\n%s\n"
            "makespan / bound: median and worst; link: busiest link and direction, MB of a layer,"
            " and over DistCA's (the better of both);\n"
            "layer: with links and dense layers, over its bound; plan: ms of one thread\n\n"
            "%-27s  %-13s  %-13s  %-13s  %-13s  %8s  %-19s  %-17s  %s\n"
            "%-27s  %-13s  %-13s  %-13s  %-13s  %8s  %-19s  %-17s  %s\n",
            kv_heads > 1 ? "KV heads can be cut: 8 KV heads on a server"
                         : "KV heads cannot be cut: 1 KV head on a server",
            "lengths  shape   max serv", "cadre", "cuts by layout", "published", "shipped", "cadre",
            "over DistCA's link", "layer over bound", "plan ms", "", "", "", "", "", "MB",
            "bf16 cut  fp32 same", "cadre pub. ship.", "cadre   cut     published");
    for (int l = 0; l < TR_NUM_LENGTHS; l++)
        for (int scaled = 0; scaled < 2; scaled++)
            for (int m = 0; m < 3; m++)
                for (int32_t n = 4; n <= w->options->max_servers; n *= 2) {
                    const tr_plan_setting_t s =
                        setting_of(w, (tr_lengths_t)l, scaled, longest[m], n, kv_heads);

                    if (n == 16) continue;
                    BASE_TRY(run_setting(w, &s, main_arms, NUM_MAIN));
                }
    return BASE_OK;
}

static const tr_plan_arm_t machine_arms[] = {
    {"cuts for the servers", TR_ARM_CADRE, 1, 1, 1, 0, 2, 0, 0},
    {"cuts by layout", TR_ARM_CADRE, 1, 1, 0, 0, 2, 0, 0},
    {"without tiers", TR_ARM_CADRE, 1, 1, 1, AS_WITHOUT_TIERS, 2, 0, 0},
};
enum { NUM_MACHINE = sizeof machine_arms / sizeof machine_arms[0] };

/* Pools, servers of two speeds, several ranks on a host. */
static base_status_t machine_tables(const writer_t *w)
{
    static const struct {
        const char *name;
        int32_t ranks_per_host, pool_per_host, uneven;
    } machines[] = {
        {"in place, 8 ranks a host", 8, 0, 0},
        {"in place, every second server of half speed", 8, 0, 1},
        {"a pool of 1 beside 8 trainers on each host", 8, 1, 0},
        {"a pool of 2 beside 8 trainers, of two speeds", 8, 2, 1},
    };

    if (!w->options->json) (void)fprintf(w->out, "\nOther machines\n");
    for (size_t i = 0; i < sizeof machines / sizeof machines[0]; i++)
        for (int scaled = 0; scaled < 2; scaled++) {
            tr_plan_setting_t s = setting_of(w, TR_LENGTHS_PRETRAIN, scaled, 131072, 32, 8);

            s.ranks_per_host = machines[i].ranks_per_host;
            s.pool_per_host = machines[i].pool_per_host;
            s.uneven = machines[i].uneven;
            if (!w->options->json) (void)fprintf(w->out, "\n%s:", machines[i].name);
            BASE_TRY(run_setting(w, &s, machine_arms, NUM_MACHINE));
        }
    return BASE_OK;
}

static base_status_t small_tables(const writer_t *w)
{
    static const struct {
        tr_lengths_t lengths;
        int scaled;
        int32_t servers, kv_heads;
    } rows[] = {
        {TR_LENGTHS_PROLONG, 0, 32, 1},
        {TR_LENGTHS_PRETRAIN, 0, 64, 1},
        {TR_LENGTHS_PRETRAIN, 0, 16, 8},
        {TR_LENGTHS_PRETRAIN, 1, 32, 8},
    };

    /* A kernel that computes whole tiles: cuts off the grid cost most there. */
    as_profile_t whole_tiles = *w->options->profile;
    whole_tiles.row_grain = 128;
    for (int whole = 0; whole < 2; whole++) {
        if (!w->options->json)
            (void)fprintf(w->out, "\nTerms of the objective left out%s\n",
                          whole ? ", rows in multiples of 128" : "");
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            tr_plan_setting_t s = setting_of(w, rows[i].lengths, rows[i].scaled, 131072,
                                             rows[i].servers, rows[i].kv_heads);

            if (whole) s.profile = &whole_tiles;
            BASE_TRY(run_setting(w, &s, ablation_arms, NUM_ABLATIONS));
        }
    }
    if (!w->options->json) (void)fprintf(w->out, "\nDistCA's tolerance\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const tr_plan_setting_t s = setting_of(w, rows[i].lengths, rows[i].scaled, 131072,
                                               rows[i].servers, rows[i].kv_heads);

        BASE_TRY(run_setting(w, &s, distca_arms, NUM_DISTCA));
    }
    return BASE_OK;
}

base_status_t tr_bench_plan(base_ctx_t *ctx, const tr_bench_plan_t *options, FILE *out)
{
    as_profile_t derived;
    tr_bench_plan_t o = *options;
    const writer_t w = {.ctx = ctx, .options = &o, .out = out};

    tr_derived_h200(GROUP, &derived);
    if (o.profile == NULL) o.profile = &derived;
    if (!o.json)
        (void)fprintf(out, "profile: %s, %s (%s); %" PRId32 " draws, %d rows a server\n",
                      o.profile->device, o.profile->derived ? "derived" : "measured",
                      o.profile->source, o.draws, ROWS_EACH);
    BASE_TRY(small_tables(&w));
    BASE_TRY(machine_tables(&w));
    BASE_TRY(main_table(&w, MODEL_KV_HEADS));
    return main_table(&w, 1);
}
