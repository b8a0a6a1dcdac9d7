/* Attention profiles of devices that we have not measured, from published throughput. Marked as
 * derived; `cadre bench profile` writes them, and measured ones replace them. */
#ifndef CADRE_TRAINER_SIMULATE_DERIVED_PROFILE_H
#define CADRE_TRAINER_SIMULATE_DERIVED_PROFILE_H

#include "attention_server/cost_profile.h"

/* H200, bf16, head dim 128. From cuDNN 9.19, causal, one sequence, 64:8 heads (cudnn-frontend,
 * benchmark/sdpa_benchmark_training/results/h200_919_only_cudnn): 484 TF/s forward and 370 backward
 * at 2 k, 688 and 581 at 32 k. A tile row costs a + b keys; a and b give these four figures. The
 * figures between (4 k to 16 k, forward 591, 644, 673; backward 474, 541, 579) follow within 4 %. */
void tr_derived_h200(int32_t group, as_profile_t *profile);

#endif
