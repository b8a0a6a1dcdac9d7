/* What `cadre bench attention` times: the cases of docs/kernels/attention.md, each a set of CA-tasks
 * of one shape, with what is wanted of them. */
#ifndef CADRE_TRAINER_BENCH_BENCH_ATTENTION_CASE_H
#define CADRE_TRAINER_BENCH_BENCH_ATTENTION_CASE_H

#include "attention_server/cost_profile.h"
#include "attention_server/task.h"

#include <stdbool.h>

typedef struct tr_attention_shape {
    int32_t kv_heads, group, head_dim;
    int64_t window; /* 0: none */
} tr_attention_shape_t;

/* CA-tasks of one server. Tasks of a document share its keys; piece, server and retained are not
 * looked at. */
typedef struct tr_attention_set {
    int32_t num_tasks, num_documents;
    as_task_t *tasks;
} tr_attention_set_t;

typedef enum tr_attention_kind {
    TR_SET_DOCUMENTS, /* `count` whole documents of `rows` rows */
    TR_SET_PACK,      /* documents of log-normal length (median 1 k), `rows` rows in all, none
                         longer than a quarter of them */
    TR_SET_LONG,      /* one document of `rows` rows and `count` of 1 k */
    TR_SET_SHARDS,    /* `count` shards of 128 to 4096 rows on prefixes to 128 k */
    TR_SET_SHARDS_AT, /* `count` shards of 512 rows on prefixes of `rows` rows */
    TR_SET_PLANNED    /* what the planner (planner.h) gives one of eight servers: see
                         tr_attention_set_planned */
} tr_attention_kind_t;

/* Forward, backward: AS_PROFILE_FORWARD, AS_PROFILE_BACKWARD. */
typedef struct tr_attention_case {
    const char *name;
    tr_attention_kind_t kind;
    int64_t count, rows;
    tr_attention_shape_t shape;
    bool of_dense; /* ratio is to our own TR_ATTENTION_DENSE, in turns, else to the fastest peer */
    double ratio[AS_PROFILE_DIRECTIONS]; /* at least; 0: not judged */
    double speed[AS_PROFILE_DIRECTIONS]; /* TFLOP/s at least; 0: not judged */
} tr_attention_case_t;

#define TR_ATTENTION_DENSE "2 documents of 16k, 32:8"

const tr_attention_case_t *tr_attention_cases(int32_t *count);
/* The case of that name, or NULL. */
const tr_attention_case_t *tr_attention_case_find(const char *name);

/* The tasks of a case, lengths divided by `shrink` (>= 1), prefixes on the grid of 128 rows. Free
 * with tr_attention_set_free. */
base_status_t tr_attention_set_make(base_ctx_t *ctx, const tr_attention_case_t *of, int64_t shrink,
                                    tr_attention_set_t *set) BASE_MUST_CHECK;
void tr_attention_set_free(base_ctx_t *ctx, tr_attention_set_t *set);

/* For tr_attention_set_make: a batch of documents of DistCA's pretrain lengths, scaled to 128 k, 32 k rows
 * for each of eight servers in place, planned with the derived profile of an H200; of the server
 * whose rows lie deepest in their documents both halves' tasks. bench_attention_plan.c */
base_status_t tr_attention_set_planned(base_ctx_t *ctx, const tr_attention_shape_t *shape,
                                       int64_t shrink, tr_attention_set_t *set) BASE_MUST_CHECK;

/* Floating-point operations of the forward: 4 for each visible pair, query head and lane; the
 * backward has 2.5 times as many. */
double tr_attention_set_flops(const tr_attention_shape_t *shape, const tr_attention_set_t *set);

#endif
