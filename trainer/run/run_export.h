/* `cadre export`: an adapter of a finished run, or the model of one with train.mode full, in
 * another folder and form.
 *
 * What was trained with which alpha stands in the run's config.yaml, where the base lies in its
 * run.json (an absolute path). The run folder is only read. */
#ifndef CADRE_TRAINER_RUN_RUN_EXPORT_H
#define CADRE_TRAINER_RUN_RUN_EXPORT_H

#include "base/context.h"
#include "data/tensor_dtype.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct tr_run_export {
    const char *run;     /* the run's folder */
    const char *adapter; /* NULL: the only one, or the model */
    const char *to;      /* the folder to write */
    bool faithful;       /* alpha and rsLoRA as trained, instead of the portable form */
    bool dtype_given;
    data_dtype_t dtype; /* F32 or BF16; adapters are F32 */
    FILE *out, *err;
    bool reported; /* written: faults were printed already */
} tr_run_export_t;

/* Says on `out` what was written. BASE_ERR_CONFIG (RUN-04: not a run, or without this adapter, and
 * which there are; CLI-02: an option that does not suit the run's mode), the errors of
 * lora_export_peft and data_hf_write. `to` is as before then. */
base_status_t tr_run_export(base_ctx_t *ctx, tr_run_export_t *request) BASE_MUST_CHECK;

#endif
