#include "trainer/run/resume.h"

#include "base/config/diff.h"
#include "base/log.h"
#include "base/memory.h"
#include "trainer/run/checkpoint_folder.h"
#include "trainer/run/run_setup.h"

#include <inttypes.h>
#include <string.h>

/* ==== which one ==== */

static base_status_t verify(base_ctx_t *ctx, const char *root, int64_t microbatch)
{
    char *folder;

    BASE_TRY(tr_checkpoint_path(ctx, root, microbatch, 0, &folder));
    const base_status_t st = tr_checkpoint_verify(ctx, folder);
    base_free(ctx, folder);
    return st;
}

/* A checkpoint that cannot be read is as bad as a damaged one; what is no fault of the file is not.
 */
static base_status_t put_aside(base_ctx_t *ctx, const char *root, int64_t microbatch, int is_last)
{
    base_error_t error;

    if (!base_ctx_error(ctx, &error)) return BASE_ERR_INTERNAL;
    if (is_last) return error.status; /* nothing before it: the error is the answer */
    base_ctx_clear_error(ctx);
    base_log_warn(base_ctx_log(ctx), "damaged-checkpoint",
                  "%s: %s; the checkpoint before it is taken", base_message_id(error.message),
                  error.text);
    return tr_checkpoint_set_aside(ctx, root, microbatch);
}

base_status_t tr_resume_find(base_ctx_t *ctx, const char *root, int64_t *microbatch)
{
    int64_t *list, count;
    base_status_t st;

    *microbatch = -1;
    BASE_TRY(tr_checkpoint_list(ctx, root, &list, &count));
    st = BASE_OK;
    for (int64_t i = count - 1; i >= 0 && *microbatch < 0 && st >= 0; i--) {
        st = verify(ctx, root, list[i]);
        if (st >= 0)
            *microbatch = list[i];
        else if (st == BASE_ERR_FORMAT || st == BASE_ERR_IO)
            st = put_aside(ctx, root, list[i], i == 0);
    }
    base_free(ctx, list);
    return st;
}

/* ==== whether ==== */

static base_status_t compare_configs(base_ctx_t *ctx, const char *folder, const base_config_t *now,
                                     const char *config_path, base_error_list_t *errors)
{
    base_config_t *before = NULL;
    base_diff_t diff;
    char *path;
    base_status_t st;

    BASE_TRY(tr_checkpoint_file(ctx, folder, TR_CHECKPOINT_CONFIG, &path));
    st = base_config_load(ctx, path, NULL, 0, errors, &before);
    base_free(ctx, path);
    BASE_TRY(st);
    base_diff_init(&diff, ctx);
    st = base_diff_configs(&diff, before, now);
    for (size_t i = 0; i < diff.count && st >= 0; i++) {
        const base_diff_item_t *d = &diff.items[i];

        if (d->refused)
            base_error_list_add(
                errors, BASE_MSG_RUN_05, (base_error_place_t){.source = config_path},
                "%s is %s, the run began with %s: %s", d->path, d->now, d->before, d->why);
        else
            base_log_info(base_ctx_log(ctx), "resume: %s is %s now, was %s", d->path, d->now,
                          d->before);
    }
    base_diff_deinit(&diff);
    base_config_destroy(before);
    return st;
}

/* The run began with `before`; "" says nothing. */
static void compare_content(base_error_list_t *errors, const char *source, const char *what,
                            const char *before, const char *now)
{
    if (before[0] == '\0' || now[0] == '\0' || strcmp(before, now) == 0) return;
    base_error_list_add(errors, BASE_MSG_RUN_05, (base_error_place_t){.source = source},
                        "%s has another content: %.16s, the run began with %.16s", what, now,
                        before);
}

/* What auto stands for follows the device, which may be another one now. Other words for it than
 * auto, the configurations have shown. */
static void compare_dtype(const base_config_t *now, const char *config_path, const char *before,
                          base_error_list_t *errors)
{
    const char *name = kern_dtype_name(tr_setup_dtype(now));

    if (now->train.dtype != BASE_CONFIG_DTYPE_AUTO || strcmp(name, before) == 0) return;
    base_error_list_add(errors, BASE_MSG_RUN_05, (base_error_place_t){.source = config_path},
                        "train.dtype: auto is %s on this device, the run began with %s: it changes "
                        "what was learned",
                        name, before);
}

static void compare_inputs(const tr_inputs_t *in, const tr_checkpoint_head_t *head,
                           const tr_checkpoint_data_t *data, base_error_list_t *errors)
{
    compare_content(errors, in->config->model, "the base model", head->model_hash, in->model_hash);
    compare_content(errors, in->config->model, "the tokenizer", head->tokenizer_sha256,
                    in->tokenizer_sha256);
    for (int32_t j = 0; j < in->num_jobs; j++) {
        const tr_job_t *job = in->jobs[j];

        compare_content(errors, data_dataset_path(job->data), "the dataset", data[j].data_sha256,
                        data_dataset_attributes(job->data)->content_sha256);
        if (job->eval != NULL)
            compare_content(errors, data_dataset_path(job->eval), "the evaluation set",
                            data[j].eval_sha256,
                            data_dataset_attributes(job->eval)->content_sha256);
    }
}

static base_status_t compare_all(base_ctx_t *ctx, const char *folder, const tr_inputs_t *inputs,
                                 const char *config_path, int num_ranks, tr_checkpoint_data_t *data,
                                 base_error_list_t *errors)
{
    tr_checkpoint_head_t head;

    BASE_TRY(compare_configs(ctx, folder, inputs->config, config_path, errors));
    BASE_TRY(tr_checkpoint_read_head(ctx, folder, inputs, &head, data));
    compare_dtype(inputs->config, config_path, head.dtype, errors);
    compare_inputs(inputs, &head, data, errors);
    if (head.num_ranks != num_ranks)
        base_log_info(base_ctx_log(ctx), "resume: %d ranks now, %" PRId64 " before", num_ranks,
                      head.num_ranks);
    return base_error_list_finish(errors);
}

base_status_t tr_resume_compare(base_ctx_t *ctx, const char *root, int64_t microbatch,
                                const tr_inputs_t *inputs, const char *config_path, int num_ranks,
                                base_error_list_t *errors)
{
    tr_checkpoint_data_t *data = base_calloc(ctx, inputs->num_jobs, sizeof *data, "resume");
    char *folder;
    base_status_t st;

    if (data == NULL) return BASE_ERR_NOMEM;
    st = tr_checkpoint_path(ctx, root, microbatch, 0, &folder);
    if (st >= 0) {
        st = compare_all(ctx, folder, inputs, config_path, num_ranks, data, errors);
        base_free(ctx, folder);
    }
    base_free(ctx, data);
    return st;
}
