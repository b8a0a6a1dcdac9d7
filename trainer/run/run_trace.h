/* The trace of a run: OUTPUT/trace/rank-NNNN.json for each rank, of so many microbatches from a start
 * on (evaluations count). `cadre trace` puts them together.
 *
 *   BASE_TRY(tr_run_trace_create(ctx, group, output, microbatches, trainer, role, &trace));
 *   for each microbatch, done since:  BASE_TRY(tr_run_trace_microbatch(trace, done));
 *   st = tr_run_trace_close(trace, st);
 *
 * Room for all events is taken at creation. The clocks of hosts are compared at both ends, so
 * create, the microbatch that ends the trace, and close after success are collective. */
#ifndef CADRE_TRAINER_RUN_RUN_TRACE_H
#define CADRE_TRAINER_RUN_RUN_TRACE_H

#include "trainer/loop/trainer.h"

typedef struct tr_run_trace tr_run_trace_t;

/* Borrows all until close; `role` ("trainer 0") is copied. From here on the rank records. */
base_status_t tr_run_trace_create(base_ctx_t *ctx, comm_group_t *group, const char *output,
                                  int64_t microbatches, tr_trainer_t *trainer, const char *role,
                                  tr_run_trace_t **trace_p) BASE_MUST_CHECK;

/* After a microbatch: when it was the last one of the trace, waits for the compute stream, writes
 * the file and records no more. NULL is legal. */
base_status_t tr_run_trace_microbatch(tr_run_trace_t *trace, int64_t done) BASE_MUST_CHECK;

/* Ends it: a run that was shorter, or failed (`outcome`), leaves what there is. Frees `trace`; NULL
 * is legal. Returns what goes wrong here. */
base_status_t tr_run_trace_close(tr_run_trace_t *trace, base_status_t outcome);

#endif
