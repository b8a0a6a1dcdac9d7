/* The attention profile of a run that names none (attention.cost_profile): good enough to balance
 * servers that are alike, since only ratios matter then. `cadre bench profile` measures a better
 * one. */
#ifndef CADRE_TRAINER_LOOP_BUILTIN_PROFILE_H
#define CADRE_TRAINER_LOOP_BUILTIN_PROFILE_H

#include "attention_server/cost_profile.h"
#include "kernels/op.h"

/* bf16: the H200's (trainer/simulate/derived_profile.h); else a CPU's, as measured on an AMD EPYC
 * (docs/measurements/2026-11-22-planner) with 4 query heads of 128 lanes for each KV head. Both in
 * proportion to query heads and lanes. */
void tr_builtin_profile(kern_dtype_t dtype, int32_t group, int32_t head_dim, as_profile_t *profile);

#endif
