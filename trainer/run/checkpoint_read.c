#include "trainer/run/checkpoint_read.h"

#include "base/memory.h"
#include "trainer/loop/job_saved.h"
#include "trainer/loop/snapshot.h"
#include "trainer/run/checkpoint_folder.h"
#include "trainer/run/checkpoint_format.h"
#include "trainer/run/checkpoint_h5.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ==== the head ==== */

static base_status_t get_head(const tr_h5_t *file, tr_checkpoint_head_t *head)
{
    char format[32];
    int64_t version;

    BASE_TRY(tr_h5_get_text(file, "format", format, sizeof format));
    BASE_TRY(tr_h5_get_int(file, "format_version", &version));
    if (strcmp(format, TR_CHECKPOINT_FORMAT) != 0 || version != TR_CHECKPOINT_FORMAT_VERSION)
        return BASE_FAIL(file->ctx, BASE_ERR_FORMAT, BASE_MSG_RUN_06,
                         "%s: format \"%s\", version %" PRId64 "; this program reads \"%s\", "
                         "version %d",
                         file->path, format, version, TR_CHECKPOINT_FORMAT,
                         TR_CHECKPOINT_FORMAT_VERSION);
    BASE_TRY(tr_h5_get_int(file, "microbatch", &head->microbatch));
    BASE_TRY(tr_h5_get_int(file, "num_ranks", &head->num_ranks));
    BASE_TRY(tr_h5_get_int(file, "num_trainers", &head->num_trainers));
    BASE_TRY(tr_h5_get_int(file, "rank_columns", &head->rank_columns));
    BASE_TRY(tr_h5_get_int(file, "metrics_bytes", &head->metrics_bytes));
    BASE_TRY(tr_h5_get_int(file, "elapsed_ns", &head->elapsed_ns));
    BASE_TRY(tr_h5_get_text(file, "dtype", head->dtype, sizeof head->dtype));
    BASE_TRY(tr_h5_get_text(file, "model_hash", head->model_hash, sizeof head->model_hash));
    return tr_h5_get_text(file, "tokenizer_sha256", head->tokenizer_sha256,
                          sizeof head->tokenizer_sha256);
}

static base_status_t open_state(base_ctx_t *ctx, const char *folder, tr_h5_t *file)
{
    char *path;

    BASE_TRY(tr_checkpoint_file(ctx, folder, TR_CHECKPOINT_STATE, &path));
    const base_status_t st = tr_h5_open(ctx, path, file);
    base_free(ctx, path);
    return st;
}

static base_status_t get_data(const tr_h5_t *file, const tr_job_t *job, tr_checkpoint_data_t *data)
{
    char name[TR_CHECKPOINT_GROUP_BYTES];
    tr_h5_t group;

    *data = (tr_checkpoint_data_t){.data_sha256 = ""};
    tr_checkpoint_group(job, name);
    if (!tr_h5_has_group(file, name)) return BASE_OK;
    BASE_TRY(tr_h5_group(file, name, &group));
    base_status_t st =
        tr_h5_get_text(&group, "data_sha256", data->data_sha256, sizeof data->data_sha256);
    if (st >= 0)
        st = tr_h5_get_text(&group, "eval_sha256", data->eval_sha256, sizeof data->eval_sha256);
    tr_h5_leave(&group);
    return st;
}

base_status_t tr_checkpoint_read_head(base_ctx_t *ctx, const char *folder,
                                      const tr_inputs_t *inputs, tr_checkpoint_head_t *head,
                                      tr_checkpoint_data_t *data)
{
    tr_h5_t file;

    BASE_TRY(open_state(ctx, folder, &file));
    base_status_t st = get_head(&file, head);
    for (int32_t j = 0; j < inputs->num_jobs && st >= 0; j++)
        st = get_data(&file, inputs->jobs[j], &data[j]);
    return tr_h5_close(&file, st);
}

/* ==== what a job has learned ==== */

static base_status_t get_vector(const tr_checkpoint_t *c, const tr_h5_t *at,
                                const tr_snapshot_vector_t *v)
{
    void *data = base_alloc(c->ctx, (size_t)tr_snapshot_bytes(&v->mat), "checkpoint");
    base_status_t st;

    if (data == NULL) return BASE_ERR_NOMEM;
    st = tr_h5_get_array(at, v->name, v->mat.dtype, v->mat.rows * v->mat.cols, data);
    if (st >= 0) st = tr_snapshot_write(c->train->trainer, &v->mat, data);
    base_free(c->ctx, data);
    return st;
}

static base_status_t get_best(const tr_checkpoint_t *c, const tr_h5_t *at, int32_t j)
{
    const kern_dtype_t acc = c->train->trainer->model->acc;
    const int64_t count = tr_checkpoint_parameters(c->train, j);
    double *best = c->train->best[j];

    if (best == NULL || isnan(c->inputs->jobs[j]->best_eval)) return BASE_OK;
    /* Floats are read into the lower half and widened from the end. */
    BASE_TRY(tr_h5_get_array(at, "best", acc == KERN_F64 ? KERN_F64 : KERN_F32, count, best));
    if (acc != KERN_F64) lora_widen(best, count);
    return BASE_OK;
}

/* Where the adapter's columns lie has bits, so it gets its place back, if there are as many. */
static base_status_t get_adapter(const tr_checkpoint_t *c, const tr_checkpoint_head_t *head,
                                 const tr_h5_t *at, int32_t j)
{
    tr_trainer_t *trainer = c->train->trainer;
    int64_t step, column, last_used;

    if (c->train->options.full) return BASE_OK;
    BASE_TRY(tr_h5_get_int(at, "adapter_step", &step));
    BASE_TRY(tr_h5_get_int(at, "column", &column));
    BASE_TRY(tr_h5_get_int(at, "last_used", &last_used));
    trainer->adapters->adapters[j].step = (uint32_t)step;
    if (head->rank_columns != c->train->options.rank_columns) column = last_used = -1;
    return lora_adapter_set_restore_place(trainer->adapters, j, (int32_t)column, last_used,
                                          trainer->stream);
}

static base_status_t get_learned(const tr_checkpoint_t *c, const tr_checkpoint_head_t *head,
                                 const tr_h5_t *at, int32_t j)
{
    const tr_trainer_t *trainer = c->train->trainer;

    if (trainer->index < 0) return BASE_OK;
    for (int64_t i = 0; i < tr_snapshot_count(trainer, j, TR_SNAPSHOT_LEARNED); i++) {
        const tr_snapshot_vector_t v = tr_snapshot_at(trainer, j, TR_SNAPSHOT_LEARNED, i);

        BASE_TRY(get_vector(c, at, &v));
    }
    BASE_TRY(get_best(c, at, j));
    return get_adapter(c, head, at, j);
}

static base_status_t get_job(const tr_checkpoint_t *c, const tr_h5_t *at, int32_t j,
                             int64_t *since_step_ns)
{
    tr_job_saved_t saved;
    int64_t parameters;

    BASE_TRY(tr_h5_get_int(at, "parameters", &parameters));
    if (c->train->trainer->index >= 0 && parameters != tr_checkpoint_parameters(c->train, j))
        return BASE_FAIL(c->ctx, BASE_ERR_FORMAT, BASE_MSG_RUN_06,
                         "%s: %s has %" PRId64 " trainable parameters, here it has %" PRId64,
                         at->path, c->inputs->jobs[j]->name, parameters,
                         tr_checkpoint_parameters(c->train, j));
#define X(name) BASE_TRY(tr_h5_get_int(at, #name, &saved.name));
    TR_JOB_SAVED_INT_MAP(X)
#undef X
#define X(name) BASE_TRY(tr_h5_get_double(at, #name, &saved.name));
    TR_JOB_SAVED_DOUBLE_MAP(X)
#undef X
    BASE_TRY(tr_h5_get_int(at, "rows", &c->train->rows[j]));
    BASE_TRY(tr_h5_get_int(at, "pad_rows", &c->train->pad_rows[j]));
    BASE_TRY(tr_h5_get_int(at, "since_step_ns", &since_step_ns[j]));
    return tr_job_restore(c->inputs->jobs[j], &saved, at->path);
}

/* Where the loop is. A job that was done and has more steps now runs on. */
static base_status_t get_loop(const tr_checkpoint_t *c, const tr_h5_t *file,
                              const tr_checkpoint_head_t *head)
{
    const int64_t bytes = tr_train_state_bytes(c->train);
    void *state = base_alloc(c->ctx, (size_t)bytes, "checkpoint");

    if (state == NULL) return BASE_ERR_NOMEM;
    base_status_t st = tr_h5_get_bytes(file, "loop", bytes, state);
    if (st >= 0) st = tr_train_load_state(c->train, state, bytes);
    base_free(c->ctx, state);
    BASE_TRY(st);
    if (c->train->microbatch != head->microbatch)
        return BASE_FAIL(c->ctx, BASE_ERR_FORMAT, BASE_MSG_RUN_06,
                         "%s: microbatch %" PRId64 ", and %" PRId64 " in \"loop\"", file->path,
                         head->microbatch, c->train->microbatch);
    for (int32_t j = 0; j < c->inputs->num_jobs; j++) {
        tr_job_t *job = c->inputs->jobs[j];

        if (job->verdict != TR_JOB_DONE || job->step >= job->total_steps) continue;
        job->state = job->verdict = TR_JOB_RUNNING;
        job->end_at = -1;
    }
    return BASE_OK;
}

static base_status_t restore_state(const tr_checkpoint_t *c, const tr_h5_t *file,
                                   tr_checkpoint_head_t *head, int64_t *since_step_ns)
{
    BASE_TRY(get_head(file, head));
    for (int32_t j = 0; j < c->inputs->num_jobs; j++) {
        char name[TR_CHECKPOINT_GROUP_BYTES];
        tr_h5_t group;

        tr_checkpoint_group(c->inputs->jobs[j], name);
        BASE_TRY(tr_h5_group(file, name, &group));
        base_status_t st = get_job(c, &group, j, since_step_ns);
        if (st >= 0) st = get_learned(c, head, &group, j);
        tr_h5_leave(&group);
        BASE_TRY(st);
    }
    return get_loop(c, file, head);
}

/* ==== gradients ==== */

/* Adds an array to the vector as it is on the device. */
static base_status_t add_vector(const tr_checkpoint_t *c, const tr_h5_t *at,
                                const tr_snapshot_vector_t *v)
{
    const int64_t count = v->mat.rows * v->mat.cols;
    const size_t bytes = (size_t)tr_snapshot_bytes(&v->mat);
    void *sum = base_alloc(c->ctx, bytes, "checkpoint");
    void *more = base_alloc(c->ctx, bytes, "checkpoint");
    base_status_t st = sum == NULL || more == NULL ? BASE_ERR_NOMEM : BASE_OK;

    if (st >= 0) st = tr_snapshot_read(c->train->trainer, &v->mat, sum);
    if (st >= 0) st = tr_h5_get_array(at, v->name, v->mat.dtype, count, more);
    for (int64_t i = 0; st >= 0 && i < count; i++) {
        if (v->mat.dtype == KERN_F64)
            ((double *)sum)[i] += ((const double *)more)[i];
        else
            ((float *)sum)[i] += ((const float *)more)[i];
    }
    if (st >= 0) st = tr_snapshot_write(c->train->trainer, &v->mat, sum);
    base_free(c->ctx, more);
    base_free(c->ctx, sum);
    return st;
}

static base_status_t get_gradient(const tr_checkpoint_t *c, const tr_h5_t *file, int32_t j, int add)
{
    const tr_trainer_t *trainer = c->train->trainer;
    char name[TR_CHECKPOINT_GROUP_BYTES];
    base_status_t st = BASE_OK;
    tr_h5_t group;

    tr_checkpoint_group(c->inputs->jobs[j], name);
    if (c->inputs->jobs[j]->state != TR_JOB_RUNNING || !tr_h5_has_group(file, name)) return BASE_OK;
    BASE_TRY(tr_h5_group(file, name, &group));
    for (int64_t i = 0; st >= 0 && i < tr_snapshot_count(trainer, j, TR_SNAPSHOT_ACCUMULATED);
         i++) {
        const tr_snapshot_vector_t v = tr_snapshot_at(trainer, j, TR_SNAPSHOT_ACCUMULATED, i);

        if (!tr_h5_has_array(&group, v.name)) continue; /* zero */
        st = add ? add_vector(c, &group, &v) : get_vector(c, &group, &v);
    }
    tr_h5_leave(&group);
    return st;
}

/* Of one trainer of the run that wrote it. */
static base_status_t get_gradients(const tr_checkpoint_t *c, const char *folder, int32_t from,
                                   int add)
{
    char name[TR_CHECKPOINT_FILE_BYTES];
    char *path;
    tr_h5_t file;

    tr_checkpoint_gradients_name(from, name);
    BASE_TRY(tr_checkpoint_file(c->ctx, folder, name, &path));
    base_status_t st = tr_h5_open(c->ctx, path, &file);
    base_free(c->ctx, path);
    BASE_TRY(st);
    for (int32_t j = 0; j < c->inputs->num_jobs && st >= 0; j++)
        st = get_gradient(c, &file, j, add);
    return tr_h5_close(&file, st);
}

static base_status_t restore_gradients(const tr_checkpoint_t *c, const char *folder,
                                       const tr_checkpoint_head_t *head)
{
    const tr_trainer_t *trainer = c->train->trainer;

    if (trainer->index < 0) return BASE_OK;
    if (head->num_trainers == trainer->topology->num_trainers)
        return get_gradients(c, folder, trainer->index, 0);
    for (int32_t from = 0; trainer->index == 0 && from < head->num_trainers; from++)
        BASE_TRY(get_gradients(c, folder, from, 1));
    return BASE_OK;
}

base_status_t tr_checkpoint_restore(const tr_checkpoint_t *checkpoint, const char *folder,
                                    tr_checkpoint_head_t *head, int64_t *since_step_ns)
{
    const tr_checkpoint_t *c = checkpoint;
    tr_h5_t file;

    BASE_TRY(tr_gradients_zero(c->train->trainer));
    BASE_TRY(open_state(c->ctx, folder, &file));
    base_status_t st = restore_state(c, &file, head, since_step_ns);
    st = tr_h5_close(&file, st);
    if (st >= 0) st = restore_gradients(c, folder, head);
    return st;
}
