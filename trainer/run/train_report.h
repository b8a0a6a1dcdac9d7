/* What a training run tells: the tables before and after, metrics.jsonl, status.json and the
 * progress line. Rank 0. */
#ifndef CADRE_TRAINER_RUN_TRAIN_REPORT_H
#define CADRE_TRAINER_RUN_TRAIN_REPORT_H

#include "trainer/loop/train.h"
#include "trainer/run/checkpoint_write.h"
#include "trainer/run/inputs.h"
#include "trainer/run/run_folder.h"
#include "trainer/run/run_table.h"

#include <stdio.h>

typedef struct tr_train_report tr_train_report_t;

/* Opens everything and prints the table of what is to be done to `err`. `past` is how far the run
 * had come, by its checkpoint; NULL: it begins. What metrics.jsonl says of later steps is taken
 * away. Borrows all. */
base_status_t tr_train_report_create(base_ctx_t *ctx, const tr_inputs_t *inputs,
                                     const tr_trainer_t *trainer, const tr_run_folder_t *folder,
                                     const tr_checkpoint_clock_t *past, FILE *out, FILE *err,
                                     tr_train_report_t **report_p) BASE_MUST_CHECK;

base_status_t tr_train_report_microbatch(tr_train_report_t *report, int64_t microbatch,
                                         int64_t document_rows) BASE_MUST_CHECK;
base_status_t tr_train_report_step(tr_train_report_t *report, int32_t job,
                                   const tr_train_step_t *step) BASE_MUST_CHECK;
base_status_t tr_train_report_evaluated(tr_train_report_t *report, int32_t job,
                                        double loss) BASE_MUST_CHECK;
void tr_train_report_ended(tr_train_report_t *report, int32_t job);

/* All that has ended was exported: the table at the end says where. */
base_status_t tr_train_report_exported(tr_train_report_t *report) BASE_MUST_CHECK;

/* Where the time went on each rank, for the table at the end: copied. */
base_status_t tr_train_report_split(tr_train_report_t *report, const tr_run_table_split_t *rows,
                                    int64_t num_rows) BASE_MUST_CHECK;

/* How often the hosts of all ranks waited between microbatches, and asked for memory, likewise. */
void tr_train_report_waits(tr_train_report_t *report, const tr_train_waits_t *waits);

/* What the driver counts as taken on the device of the rank where that is most, likewise; 0: not known. */
void tr_train_report_device(tr_train_report_t *report, int64_t used_bytes);

/* For a checkpoint: how far the run is now. Makes the metrics last. The array is the report's. */
base_status_t tr_train_report_clock(tr_train_report_t *report,
                                    tr_checkpoint_clock_t *clock) BASE_MUST_CHECK;

/* The run is over, with this status: prints the table of what was done to `out` when it went well,
 * or that it was saved and can go on; writes the last status, closes. NULL is legal. Frees `report`
 * also when it fails. */
base_status_t tr_train_report_close(tr_train_report_t *report, base_status_t outcome, bool saved);

#endif
