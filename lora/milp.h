/* Mixed-integer linear programs, solved by CBC: for the exact packer and for what it is compared
 * with. Minimizes. Not for the microbatch loop: CBC takes memory of its own, which is not counted.
 *
 *   BASE_TRY(lora_milp_create(ctx, &milp));
 *   x = lora_milp_column(milp, 0, 1, cost, 1);
 *   lora_milp_row(milp, '<', 3, columns, factors, 7);
 *   BASE_TRY(lora_milp_solve(milp, &options, &result));
 *   lora_milp_value(milp, x)
 *   lora_milp_destroy(milp);
 *
 * One thread, so that a solution that was proven optimal is the same on every host with the same
 * CBC; one that a limit of nodes ended is too, and one that a limit of time
 * ended is not. So ranks that each solve the same program need a limit of nodes, and no message
 * (lora/pack_process.h); limits of time are for benches. CBC's solver keeps state in globals and
 * sets a handler for SIGINT while it runs: one thread of a process at a time. */
#ifndef CADRE_LORA_MILP_H
#define CADRE_LORA_MILP_H

#include "base/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lora_milp lora_milp_t;

typedef struct lora_milp_options {
    double
        seconds; /* CBC looks at the clock between its steps and may take twice as long; 0: none */
    int32_t nodes;       /* of the search tree; 0: no limit */
    double gap;          /* stop when within this share of the optimum; 0: to the end */
    const double *start; /* [columns] a solution to start from; NULL: none */
} lora_milp_options_t;

typedef struct lora_milp_result {
    int found;    /* 1: a solution exists and lora_milp_value reads it */
    int proven;   /* 1: solution optimal (to the gap), or proven that there is none */
    double value; /* of the solution */
    double bound; /* no solution is below it */
} lora_milp_result_t;

base_status_t lora_milp_create(base_ctx_t *ctx, lora_milp_t **milp_p) BASE_MUST_CHECK;
void lora_milp_destroy(lora_milp_t *milp); /* NULL is legal */

/* A column and its index, from 0. */
int32_t lora_milp_column(lora_milp_t *milp, double low, double high, double cost, int integer);
/* sum of factors[i] * column[i] sense right; sense is '<', '=' or '>'. */
void lora_milp_row(lora_milp_t *milp, char sense, int32_t num, const int32_t *columns,
                   const double *factors, double right);

base_status_t lora_milp_solve(lora_milp_t *milp, const lora_milp_options_t *options,
                              lora_milp_result_t *result) BASE_MUST_CHECK;
double lora_milp_value(const lora_milp_t *milp, int32_t column);

#ifdef __cplusplus
}
#endif
#endif
