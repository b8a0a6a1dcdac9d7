/* A training run from its configuration to its adapters: what `cadre train` does on each rank.
 *
 * Ranks that are processes each have a log in it, rank-NNNN.log; threads share that of rank 0.
 *
 * Rank 0 owns the run folder: it writes manifest, status, metrics, the adapters as they end (best
 * by evaluation, else the last values), with train.mode full the model, and speaks on the terminal.
 * Checkpoints: train_checkpoints.h. */
#ifndef CADRE_TRAINER_RUN_TRAIN_RUN_H
#define CADRE_TRAINER_RUN_TRAIN_RUN_H

#include "base/config/config.h"
#include "comm/comm.h"
#include "trainer/run/rank_state.h"
#include "trainer/run/signals.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct tr_train_run {
    const base_config_t *config; /* read by all ranks */
    const char *config_path;
    int argc; /* the command line, for the manifest */
    const char *const *argv;
    const char *
        dump_gradients; /* safetensors file for the gradient of the first global batch that each job completes
                                    here (PEFT's names, not clipped), or NULL */
    int64_t trace_microbatches;  /* of which OUTPUT/trace is written (run_trace.h); 0: none */
    bool resume;                 /* go on with the run that `output` holds, if there is one */
    const tr_signals_t *signals; /* that ask to save and stop; NULL: none */
    FILE *out, *err;             /* tables; progress and errors in a list */
    tr_rank_state_t *state;      /* of a rank that is a process; NULL for threads */
    /* Written by rank 0. */
    int32_t num_quarantined;
    bool saved;    /* it was asked to stop: jobs are left, and a checkpoint is there */
    bool reported; /* the error has been printed already, with others of its kind */
} tr_train_run_t;

/* A comm_rank_fn: `user` is a tr_train_run_t: that of all ranks that are threads, or the
 * process's own. */
base_status_t tr_train_run_rank(comm_group_t *group, base_ctx_t *ctx, base_device_t *dev,
                                void *user);

#endif
