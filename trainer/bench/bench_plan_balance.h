/* `cadre bench profile`, last step: does a plan made from the profile balance this CPU? */
#ifndef CADRE_TRAINER_BENCH_BENCH_PLAN_BALANCE_H
#define CADRE_TRAINER_BENCH_BENCH_PLAN_BALANCE_H

#include "attention_server/cost_profile.h"

#define TR_BALANCE_SERVERS 4

typedef struct tr_balance {
    int64_t predicted_ns[TR_BALANCE_SERVERS]; /* forward and backward */
    int64_t measured_ns[TR_BALANCE_SERVERS];
} tr_balance_t;

/* Plans documents of unlike lengths (the longest has 3500 rows) on four servers in place, two KV
 * heads, cuts for the servers, and times each server's tasks one after another on this CPU. */
base_status_t tr_bench_balance(base_ctx_t *ctx, const as_profile_t *profile,
                               tr_balance_t *balance) BASE_MUST_CHECK;

#endif
