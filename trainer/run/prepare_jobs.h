/* What `cadre prepare` has to make: which file becomes which dataset. */
#ifndef CADRE_TRAINER_RUN_PREPARE_JOBS_H
#define CADRE_TRAINER_RUN_PREPARE_JOBS_H

#include "base/config/config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tr_prepare_job {
    const char *source; /* .jsonl */
    const char *output; /* .h5 */
} tr_prepare_job_t;

typedef struct tr_prepare_jobs {
    const char *model; /* folder with the tokenizer */
    tr_prepare_job_t *jobs;
    size_t count;
} tr_prepare_jobs_t;

/* Every .jsonl that the configuration names, in its order; none when it names .h5 only. CONF-04
 * for a name that is neither. CONF-07 when two would become one file: the evaluation set of the
 * adapter `x` and the data of an adapter called `x.eval`. `config_path` is for messages. All texts
 * belong to `pool`; `config` may go. */
base_status_t tr_prepare_jobs_of_config(base_ctx_t *ctx, base_text_pool_t *pool,
                                        const base_config_t *config, const char *config_path,
                                        tr_prepare_jobs_t *jobs) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
