/* One setting of `cadre bench plan`: layouts drawn from a distribution, planned by one arm after
 * another and judged alike. */
#ifndef CADRE_TRAINER_BENCH_BENCH_PLAN_CASE_H
#define CADRE_TRAINER_BENCH_BENCH_PLAN_CASE_H

#include "attention_server/planner.h"
#include "trainer/simulate/draw_lengths.h"

typedef struct tr_plan_setting {
    tr_lengths_t lengths;
    int scaled;
    int64_t max_rows;      /* longest document */
    int64_t rows_each;     /* per server; all together at least two longest documents */
    int32_t num_servers;   /* trainers, and servers in place */
    int32_t pool_per_host; /* so many ranks of each host only serve, beside ranks_per_host trainers;
                               0: in place */
    int32_t uneven;        /* 1: every second server has half the speed */
    int32_t ranks_per_host; /* 1: all links between hosts */
    int32_t num_kv_heads, group, head_dim;
    const as_profile_t *profile; /* time that all arms are judged by */
    int32_t draws;
    uint64_t seed; /* of the first draw; the others follow */
} tr_plan_setting_t;

typedef enum tr_plan_arm_kind {
    TR_ARM_CADRE,
    TR_ARM_PAIRS, /* cadre without its time model: balances (q, k) pairs */
    TR_ARM_DISTCA_PUBLISHED,
    TR_ARM_DISTCA_SHIPPED
} tr_plan_arm_kind_t;

typedef struct tr_plan_arm {
    const char *name;
    tr_plan_arm_kind_t kind;
    int32_t cut_heads, retain, cuts_follow_servers, without; /* cadre, and the next */
    int32_t grad_bytes;          /* of an element of dk, dv on the wire */
    int32_t tolerance_per_mille; /* distca */
    int32_t distca_wire;         /* 1: charged what DistCA's messages carry (always for distca) */
} tr_plan_arm_t;

/* Over the draws of a setting. */
typedef struct tr_plan_row {
    const char *name;
    int64_t ratio_median, ratio_worst; /* makespan over bound, 1/10000 */
    int64_t link_median;               /* bytes of the busiest link and direction */
    int64_t flow_median[AS_NUM_FLOWS]; /* the same of each exchange */
    int64_t network_median;            /* of the busiest link between hosts */
    int64_t duplex_median, total_median;
    int64_t pass_median; /* forward and backward of a layer with its links, ns */
    int64_t pass_bound_median;
    int64_t plan_ns_median, plan_ns_worst; /* time to plan */
    int64_t tasks_median;
} tr_plan_row_t;

#define TR_PLAN_MAX_DRAWS 64

/* One row for each arm. */
base_status_t tr_plan_case_run(base_ctx_t *ctx, const tr_plan_setting_t *setting,
                               const tr_plan_arm_t *arms, int32_t num_arms,
                               tr_plan_row_t *rows) BASE_MUST_CHECK;

#endif
