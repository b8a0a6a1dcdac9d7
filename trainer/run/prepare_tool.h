/* The Python tool behind `cadre prepare`: where it lies, and the interpreter that runs it.
 *
 * The tool is the folder share/cadre/prepare beside the program's own bin/ (data/prepare of the
 * source; in a build tree a link leads there). Its script venv.sh finds or makes the interpreter;
 * CADRE_PYTHON names another one. */
#ifndef CADRE_TRAINER_RUN_PREPARE_TOOL_H
#define CADRE_TRAINER_RUN_PREPARE_TOOL_H

#include "base/config/text_pool.h"
#include "base/context.h"
#include "trainer/run/prepare_jobs.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where the tool lies, found from /proc/self/exe. DATA-20 when it is not there. The text belongs to
 * `pool`. */
base_status_t tr_prepare_tool_find(base_ctx_t *ctx, base_text_pool_t *pool,
                                   const char **folder_p) BASE_MUST_CHECK;

/* The interpreter; makes the environment first if need be, which downloads packages and says so on
 * stderr. DATA-20 with the reason when there is none. The text belongs to `pool`. */
base_status_t tr_prepare_tool_python(base_ctx_t *ctx, base_text_pool_t *pool, const char *folder,
                                     const char **python_p) BASE_MUST_CHECK;

/* Finds both and becomes the tool, which does the jobs and whose exit status is then that of the
 * process. `options` are its options and their values, as they are. Does not return unless it fails
 * (DATA-20). Open files that are not close-on-exec go along. */
base_status_t tr_prepare_tool_exec(base_ctx_t *ctx, base_text_pool_t *pool,
                                   const tr_prepare_jobs_t *jobs, const char *const *options,
                                   size_t num_options) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
