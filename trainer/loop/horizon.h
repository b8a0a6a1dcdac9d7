/* The horizon: what comes next in a run, decided before it runs.
 *
 * A run is one sequence of microbatches, for training and for evaluation, that every rank computes
 * by itself some microbatches ahead (planning.h). What comes next is a pure function of datasets,
 * configuration, attention profile and the events so far (jobs that stopped early or were put
 * aside), and this is its state:
 *
 *   BASE_TRY(tr_horizon_create(ctx, jobs, num_jobs, rank_columns, &horizon));
 *   tr_horizon_apply(horizon, job, TR_JOB_STOPPED);            an event that takes effect here
 *   BASE_TRY(tr_horizon_next(horizon, lot, &entry));           the next microbatch, planned
 *
 * Training: a job goes from global batch to global batch, the next global_batch_documents documents
 * of its order (fewer at the end of an epoch); after the last of them comes its optimizer step, and
 * then, when one is due, its evaluation, as microbatches of their own. The documents of a batch come
 * in any order, as lora/packer.h packs them best (a rolling horizon over the batches at work); a
 * microbatch never holds two batches of a job, since the step lies between. With whole documents
 * (AS_LOCAL) each trainer's rows are packed by themselves.
 *
 * Fairness: jobs are asked in the order of the share of their steps that they have behind them; one
 * that is more than 1 / TR_HORIZON_AHEAD of its run ahead of the last one waits, unless rows would
 * stay empty without it.
 *
 * The state can be taken out and put back as bytes: a run that is resumed with them goes on with the
 * same microbatches. Nothing is allocated after creation. One thread at a time; it owns the jobs'
 * orders and reads of them nothing that changes while they run. */
#ifndef CADRE_TRAINER_LOOP_HORIZON_H
#define CADRE_TRAINER_LOOP_HORIZON_H

#include "trainer/loop/job.h"
#include "trainer/loop/lot.h"

#define TR_HORIZON_AHEAD 16

typedef enum tr_entry_kind {
    TR_ENTRY_TRAIN,
    TR_ENTRY_EVALUATE, /* one part: the job; completes: the evaluation's last microbatch */
    TR_ENTRY_END       /* no job has anything left */
} tr_entry_kind_t;

/* What a job has in a microbatch. */
typedef struct tr_entry_part {
    int32_t job;
    int32_t completes; /* its global batch: after this microbatch comes its step */
    int64_t batch_documents, batch_rows, batch_supervised; /* of the whole global batch */
} tr_entry_part_t;

typedef struct tr_entry {
    int64_t microbatch;
    tr_entry_kind_t kind;
    int32_t num_parts;
    tr_entry_part_t *parts; /* [number of jobs], the caller's; ascending job */
} tr_entry_t;

typedef struct tr_horizon tr_horizon_t;

/* rank_columns 0: ranks do not matter (train.mode full). Borrows the jobs. The caller frees
 * *horizon_p with tr_horizon_destroy. */
base_status_t tr_horizon_create(base_ctx_t *ctx, tr_job_t *const *jobs, int32_t num_jobs,
                                int64_t rank_columns, tr_horizon_t **horizon_p) BASE_MUST_CHECK;
void tr_horizon_destroy(tr_horizon_t *horizon); /* NULL is legal */

/* Before the first microbatch. 1: a window of few documents (lora/pack_process.h) is packed as a whole
 * by the fast packer and from there by the exact one; when that needs fewer microbatches its fullest
 * one comes next, else what the fast packer takes. The program answers for lora_pack_process. */
void tr_horizon_set_exact(tr_horizon_t *horizon, int exact);

/* The job ended so; it has nothing more in what is planned from now on. */
void tr_horizon_apply(tr_horizon_t *horizon, int32_t job, tr_job_state_t state);

/* Fills, packs and plans `lot`, and says what it is. Errors: those of reading, packing, planning. */
base_status_t tr_horizon_next(tr_horizon_t *horizon, tr_lot_t *lot,
                              tr_entry_t *entry) BASE_MUST_CHECK;

/* The microbatch that comes next, from 0. */
int64_t tr_horizon_microbatch(const tr_horizon_t *horizon);
/* Documents of the job in what was planned so far. */
int64_t tr_horizon_documents(const tr_horizon_t *horizon, int32_t job);

/* The state, before the next microbatch, as so many bytes; the same for all states of these jobs.
 * BASE_ERR_ARG (INT-01) for bytes that are not a state of them. */
int64_t tr_horizon_bytes(const tr_horizon_t *horizon);
void tr_horizon_save(const tr_horizon_t *horizon, void *bytes);
base_status_t tr_horizon_load(tr_horizon_t *horizon, const void *bytes,
                              int64_t num_bytes) BASE_MUST_CHECK;

#endif
