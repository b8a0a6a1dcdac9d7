/* What `cadre verify` writes. */
#ifndef CADRE_TRAINER_RUN_VERIFY_REPORT_H
#define CADRE_TRAINER_RUN_VERIFY_REPORT_H

#include "trainer/run/verify_logits.h"

/* |logit with adapter - logit of the base| over rows x vocabulary. */
typedef struct tr_verify_logits {
    int64_t rows;
    double max, mean;
    int64_t changed; /* rows with another best token */
} tr_verify_logits_t;

void tr_verify_print_text(const tr_verify_t *verify, const tr_score_inputs_t *inputs,
                          const tr_verify_logits_t *found);

/* {"changes": true, "rank": 16, "tensors": 28, "parameters": 41943040, "modules_without_effect": 0,
 *  "delta": 1.2, "targets": {"q_proj": 0.4, ...}, "rows": 64, "max_difference": 0.71,
 *  "mean_difference": 0.02, "changed_rows": 12, "serve": ["vllm serve ...", ...]} */
base_status_t tr_verify_print_json(base_ctx_t *ctx, const tr_verify_t *verify,
                                   const tr_score_inputs_t *inputs,
                                   const tr_verify_logits_t *found) BASE_MUST_CHECK;

#endif
