/* Results of `cadre bench attention`: medians, ratios, whether they are what is wanted; as a line of a
 * table and as JSON. */
#ifndef CADRE_TRAINER_BENCH_BENCH_ATTENTION_REPORT_H
#define CADRE_TRAINER_BENCH_BENCH_ATTENTION_REPORT_H

#include "base/json_write.h"
#include "trainer/bench/bench_attention_peer.h"
#include "trainer/bench/bench_attention_rig.h"

typedef struct tr_attention_result {
    const tr_attention_case_t *of;
    int32_t num_tasks, num_samples;
    tr_attention_time_t times[AS_PROFILE_DIRECTIONS][TR_PEER_MAX_SAMPLES];
    int64_t dense_ns[AS_PROFILE_DIRECTIONS]
                    [TR_PEER_MAX_SAMPLES]; /* of->of_dense: its times in turns */
    tr_peer_answers_t answers;

    /* by tr_attention_judge */
    bool full;
    double flops[AS_PROFILE_DIRECTIONS];
    int64_t median_ns[AS_PROFILE_DIRECTIONS], host_ns[AS_PROFILE_DIRECTIONS];
    double tflops[AS_PROFILE_DIRECTIONS];
    int64_t peer_ns[AS_PROFILE_DIRECTIONS][TR_PEER_MAX]; /* medians; 0: did not run */
    int32_t fastest[AS_PROFILE_DIRECTIONS];              /* peer; -1: none ran */
    double ratio[AS_PROFILE_DIRECTIONS]; /* to the peer or the dense case; 0: to nobody */
    bool judged[AS_PROFILE_DIRECTIONS], met[AS_PROFILE_DIRECTIONS];
} tr_attention_result_t;

/* forward_flops: of the case; dense_flops: of TR_ATTENTION_DENSE, where the case is compared with it. full: at
 * full length on a GPU; else only ratios to peers are judged. */
void tr_attention_judge(tr_attention_result_t *result, double forward_flops, double dense_flops,
                        bool full);

void tr_attention_print_head(FILE *out);
void tr_attention_print(FILE *out, const tr_attention_result_t *result);
/* One object. */
void tr_attention_write(base_json_t *j, const tr_attention_result_t *result);

#endif
