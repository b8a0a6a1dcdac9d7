/* The tables of a run: what it will do, before the first microbatch, and what it did.
 *
 *   adapter    documents  supervised tokens  steps  rank  scale  trainable parameters
 *   legal         12,000          4,812,331    750    16      2            41,943,040
 *   code          30,112         11,020,009  1,882    32      2            83,886,080
 *   2 adapters    42,112         15,832,340  2,632                        125,829,120
 *
 *   adapter    steps  first loss  last loss  eval loss
 *   legal    750/750      2.1021     1.4410     1.4802
 *
 *   adapters:
 *     runs/three/adapters/legal
 *   next:
 *     cadre verify --model models/Llama-3.1-8B --adapter runs/three/adapters/legal
 *
 *   rank  is           ms a microbatch  dense  attention  exchange  waiting   idle
 *      0  trainer 0              812.4  71.3%      12.0%      0.4%     9.1%   7.2%
 *      1  server 0               812.4   0.0%      64.9%      0.2%    30.8%   4.1%
 *
 * Pure functions of their arguments; faults of the stream stay with the stream. */
#ifndef CADRE_TRAINER_RUN_RUN_TABLE_H
#define CADRE_TRAINER_RUN_RUN_TABLE_H

#include "base/meter.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct tr_run_table_plan {
    const char *name; /* "model" with train.mode full */
    int64_t documents;
    int64_t supervised_tokens;
    int64_t steps;
    int64_t rank; /* 0: the model itself; rank and scale are left empty */
    double scale; /* alpha / rank, with rslora alpha / sqrt(rank) */
    int64_t trainable_parameters;
} tr_run_table_plan_t;

void tr_run_table_plan(FILE *out, const tr_run_table_plan_t *rows, int64_t num_rows);

typedef struct tr_run_table_result {
    const char *name;
    int64_t steps;
    int64_t total_steps; /* more than steps: it was stopped early */
    double first_loss;   /* not finite: left empty; so are the others */
    double last_loss;
    double eval_loss;   /* of what was exported */
    const char *folder; /* where it was exported, or NULL: nowhere */
} tr_run_table_result_t;

/* `model` is the base's folder and `full` says that the folders are models themselves; `data` is a
 * prepared dataset worth scoring on, or NULL. The commands below the table are for the first row
 * with a folder, quoted for a shell. */
void tr_run_table_results(FILE *out, const tr_run_table_result_t *rows, int64_t num_rows,
                          const char *model, bool full, const char *data);

/* Where the time of a rank's compute stream went (base/meter.h); ns[BASE_PART_NONE] is idle, so that
 * all of them are the whole. */
#define TR_RUN_ROLE_BYTES 32
typedef struct tr_run_table_split {
    int64_t rank;
    char role[TR_RUN_ROLE_BYTES]; /* "trainer 0" */
    int64_t microbatches;
    int64_t ns[BASE_NUM_PARTS];
} tr_run_table_split_t;

void tr_run_table_split(FILE *out, const tr_run_table_split_t *rows, int64_t num_rows);

#endif
