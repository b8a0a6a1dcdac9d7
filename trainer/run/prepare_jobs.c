#include "trainer/run/prepare_jobs.h"

#include "base/memory.h"
#include "trainer/run/prepared.h"

#include <string.h>

static base_status_t add_set(base_ctx_t *ctx, base_text_pool_t *pool, const base_config_t *config,
                             const char *config_path, const base_config_adapter_t *job,
                             tr_prepared_set_t set, tr_prepare_jobs_t *jobs)
{
    const char *source = tr_prepared_source(job, set);
    char *path = NULL;

    if (source == NULL || tr_prepared_is_dataset(source)) return BASE_OK;
    BASE_TRY(tr_prepared_path(ctx, config, job, set, &path));
    const char *output = base_text_pool_copy(pool, path, strlen(path));
    base_free(ctx, path);
    source = base_text_pool_copy(pool, source, strlen(source));
    if (output == NULL || source == NULL) return BASE_ERR_NOMEM;
    for (size_t i = 0; i < jobs->count; i++) {
        if (strcmp(jobs->jobs[i].output, output) == 0)
            return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CONF_07,
                             "%s: %s and %s would both be prepared as %s; rename adapter %s",
                             config_path, jobs->jobs[i].source, source, output, job->name);
    }
    jobs->jobs[jobs->count++] = (tr_prepare_job_t){source, output};
    return BASE_OK;
}

base_status_t tr_prepare_jobs_of_config(base_ctx_t *ctx, base_text_pool_t *pool,
                                        const base_config_t *config, const char *config_path,
                                        tr_prepare_jobs_t *jobs)
{
    const bool full = config->train.mode == BASE_CONFIG_MODE_FULL;
    const size_t count = full ? 1 : (size_t)config->num_adapters;

    jobs->count = 0;
    jobs->model = base_text_pool_copy(pool, config->model, strlen(config->model));
    jobs->jobs = base_text_pool_take(pool, 2 * count * sizeof *jobs->jobs);
    if (jobs->model == NULL || jobs->jobs == NULL) return BASE_ERR_NOMEM;
    for (size_t i = 0; i < count; i++) {
        const base_config_adapter_t *job = full ? &config->full : &config->adapters[i];

        BASE_TRY(add_set(ctx, pool, config, config_path, job, TR_PREPARED_DATA, jobs));
        BASE_TRY(add_set(ctx, pool, config, config_path, job, TR_PREPARED_EVAL, jobs));
    }
    return BASE_OK;
}
