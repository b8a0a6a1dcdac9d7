#include "trainer/run/checkpoint_write.h"

#include "base/config/print.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/version.h"
#include "trainer/loop/job_saved.h"
#include "trainer/loop/snapshot.h"
#include "trainer/run/checkpoint_folder.h"
#include "trainer/run/checkpoint_format.h"
#include "trainer/run/checkpoint_h5.h"
#include "trainer/run/run_setup.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ==== what a job has learned ==== */

static base_status_t put_vector(const tr_checkpoint_t *c, const tr_h5_t *at,
                                const tr_snapshot_vector_t *v, int skip_zero)
{
    const int64_t bytes = tr_snapshot_bytes(&v->mat);
    char *data = base_alloc(c->ctx, (size_t)bytes, "checkpoint");
    base_status_t st;

    if (data == NULL) return BASE_ERR_NOMEM;
    st = tr_snapshot_read(c->train->trainer, &v->mat, data);
    /* All bytes are zero when the first is and each is the one before it. */
    const int zero = bytes == 0 || (data[0] == 0 && memcmp(data, data + 1, (size_t)bytes - 1) == 0);
    if (st >= 0 && !(skip_zero && zero))
        st = tr_h5_put_array(at, v->name, v->mat.dtype, v->mat.rows * v->mat.cols, data);
    base_free(c->ctx, data);
    return st;
}

static base_status_t put_part(const tr_checkpoint_t *c, const tr_h5_t *at, int32_t job,
                              tr_snapshot_part_t part)
{
    const tr_trainer_t *trainer = c->train->trainer;

    for (int64_t i = 0; i < tr_snapshot_count(trainer, job, part); i++) {
        const tr_snapshot_vector_t v = tr_snapshot_at(trainer, job, part, i);

        BASE_TRY(put_vector(c, at, &v, part == TR_SNAPSHOT_ACCUMULATED));
    }
    return BASE_OK;
}

/* The values of the best evaluation, which the loop keeps as doubles, in the dtype they came from.
 */
static base_status_t put_best(const tr_checkpoint_t *c, const tr_h5_t *at, int32_t job)
{
    const double *best = c->train->best[job];
    const int64_t count = tr_checkpoint_parameters(c->train, job);
    const kern_dtype_t acc = c->train->trainer->model->acc;

    if (best == NULL || isnan(c->inputs->jobs[job]->best_eval)) return BASE_OK;
    if (acc == KERN_F64) return tr_h5_put_array(at, "best", acc, count, best);
    float *single = base_alloc(c->ctx, (size_t)count * sizeof *single, "checkpoint");
    if (single == NULL) return BASE_ERR_NOMEM;
    for (int64_t i = 0; i < count; i++)
        single[i] = (float)best[i];
    const base_status_t st = tr_h5_put_array(at, "best", KERN_F32, count, single);
    base_free(c->ctx, single);
    return st;
}

/* ==== state.h5 ==== */

static base_status_t put_numbers(const tr_checkpoint_t *c, const tr_checkpoint_clock_t *clock,
                                 const tr_h5_t *at, int32_t j)
{
    tr_job_saved_t saved;

    tr_job_save(c->inputs->jobs[j], &saved);
#define X(name) BASE_TRY(tr_h5_put_int(at, #name, saved.name));
    TR_JOB_SAVED_INT_MAP(X)
#undef X
#define X(name) BASE_TRY(tr_h5_put_double(at, #name, saved.name));
    TR_JOB_SAVED_DOUBLE_MAP(X)
#undef X
    BASE_TRY(tr_h5_put_int(at, "parameters", tr_checkpoint_parameters(c->train, j)));
    BASE_TRY(tr_h5_put_int(at, "rows", c->train->rows[j]));
    BASE_TRY(tr_h5_put_int(at, "pad_rows", c->train->pad_rows[j]));
    return tr_h5_put_int(at, "since_step_ns", clock->since_step_ns[j]);
}

static base_status_t put_adapter(const tr_checkpoint_t *c, const tr_h5_t *at, int32_t j)
{
    if (c->train->options.full) return BASE_OK;
    const lora_adapter_t *a = &c->train->trainer->adapters->adapters[j];
    BASE_TRY(tr_h5_put_int(at, "adapter_step", a->step));
    BASE_TRY(tr_h5_put_int(at, "column", a->column));
    return tr_h5_put_int(at, "last_used", a->last_used);
}

static base_status_t put_job(const tr_checkpoint_t *c, const tr_checkpoint_clock_t *clock,
                             const tr_h5_t *file, int32_t j)
{
    char name[TR_CHECKPOINT_GROUP_BYTES];
    tr_h5_t group;
    base_status_t st;

    tr_checkpoint_group(c->inputs->jobs[j], name);
    BASE_TRY(tr_h5_group(file, name, &group));
    st = put_numbers(c, clock, &group, j);
    if (st >= 0) st = put_adapter(c, &group, j);
    if (st >= 0)
        st = tr_h5_put_text(&group, "data_sha256",
                            data_dataset_attributes(c->inputs->jobs[j]->data)->content_sha256);
    if (st >= 0) st = tr_h5_put_text(&group, "eval_sha256", tr_checkpoint_eval_sha(c->inputs, j));
    if (st >= 0) st = put_part(c, &group, j, TR_SNAPSHOT_LEARNED);
    if (st >= 0) st = put_best(c, &group, j);
    tr_h5_leave(&group);
    return st;
}

static base_status_t put_root(const tr_checkpoint_t *c, const tr_checkpoint_clock_t *clock,
                              const tr_h5_t *file)
{
    char creator[128];

    (void)snprintf(creator, sizeof creator, "cadre %s", base_version_number());
    BASE_TRY(tr_h5_put_text(file, "format", TR_CHECKPOINT_FORMAT));
    BASE_TRY(tr_h5_put_int(file, "format_version", TR_CHECKPOINT_FORMAT_VERSION));
    BASE_TRY(tr_h5_put_text(file, "creator", creator));
    BASE_TRY(tr_h5_put_int(file, "microbatch", c->train->microbatch));
    BASE_TRY(tr_h5_put_int(file, "num_ranks", comm_group_size(c->group)));
    BASE_TRY(tr_h5_put_int(file, "num_trainers", c->train->trainer->topology->num_trainers));
    BASE_TRY(tr_h5_put_int(file, "rank_columns", c->train->options.rank_columns));
    BASE_TRY(tr_h5_put_text(file, "dtype", kern_dtype_name(tr_setup_dtype(c->inputs->config))));
    BASE_TRY(tr_h5_put_text(file, "model_hash", c->inputs->model_hash));
    BASE_TRY(tr_h5_put_text(file, "tokenizer_sha256", c->inputs->tokenizer_sha256));
    BASE_TRY(tr_h5_put_int(file, "metrics_bytes", clock->metrics_bytes));
    return tr_h5_put_int(file, "elapsed_ns", clock->elapsed_ns);
}

/* Where the loop is in its sequence of microbatches. */
static base_status_t put_loop(const tr_checkpoint_t *c, const tr_h5_t *file)
{
    const int64_t bytes = tr_train_state_bytes(c->train);
    void *state = base_calloc(c->ctx, bytes, 1, "checkpoint");
    base_status_t st;

    if (state == NULL) return BASE_ERR_NOMEM;
    st = tr_train_save_state(c->train, state);
    if (st >= 0) st = tr_h5_put_bytes(file, "loop", bytes, state);
    base_free(c->ctx, state);
    return st;
}

static base_status_t write_state(const tr_checkpoint_t *c, const tr_checkpoint_clock_t *clock,
                                 const char *path)
{
    tr_h5_t file;

    BASE_TRY(tr_h5_create(c->ctx, path, &file));
    base_status_t st = put_root(c, clock, &file);
    if (st >= 0) st = put_loop(c, &file);
    for (int32_t j = 0; j < c->inputs->num_jobs && st >= 0; j++)
        st = put_job(c, clock, &file, j);
    return tr_h5_close(&file, st);
}

static base_status_t write_config(const tr_checkpoint_t *c, const char *path)
{
    base_file_t *file;

    BASE_TRY(base_file_create(c->ctx, path, &file));
    base_print_config(c->inputs->config, base_file_stream(file));
    return base_file_commit(file);
}

/* ==== gradients-NNNN.h5 ==== */

static base_status_t write_gradients(const tr_checkpoint_t *c, const char *path)
{
    tr_h5_t file, group;

    BASE_TRY(tr_h5_create(c->ctx, path, &file));
    base_status_t st = tr_h5_put_text(&file, "format", TR_CHECKPOINT_GRADIENTS_FORMAT);
    for (int32_t j = 0; j < c->inputs->num_jobs && st >= 0; j++) {
        char name[TR_CHECKPOINT_GROUP_BYTES];

        if (c->inputs->jobs[j]->state != TR_JOB_RUNNING) continue;
        tr_checkpoint_group(c->inputs->jobs[j], name);
        st = tr_h5_group(&file, name, &group);
        if (st < 0) break;
        st = put_part(c, &group, j, TR_SNAPSHOT_ACCUMULATED);
        tr_h5_leave(&group);
    }
    return tr_h5_close(&file, st);
}

/* ==== all ranks ==== */

/* What a rank tells the others after its part. */
typedef struct verdict {
    int32_t status;
    int32_t reserved;
    char gradients[BASE_SHA256_HEX_BYTES + 7];
    char text[512];
} verdict_t;

/* The caller's part is over, with this status: what all ranks say. */
static base_status_t agree(const tr_checkpoint_t *c, base_status_t mine, verdict_t *said,
                           verdict_t *all, tr_checkpoint_outcome_t *outcome)
{
    base_error_t error;

    said->status = mine;
    if (mine < 0 && base_ctx_error(c->ctx, &error)) {
        (void)snprintf(said->text, sizeof said->text, "%.500s", error.text);
        base_ctx_clear_error(c->ctx);
    }
    BASE_TRY(comm_allgather(c->group, said, (int64_t)sizeof *said, all));
    for (int r = 0; r < comm_group_size(c->group) && outcome->status >= 0; r++) {
        if (all[r].status >= 0) continue;
        outcome->status = (base_status_t)all[r].status;
        memcpy(outcome->text, all[r].text, sizeof outcome->text);
    }
    return BASE_OK;
}

/* A file of this rank: written, sealed. */
static base_status_t write_file(const tr_checkpoint_t *c, const tr_checkpoint_clock_t *clock,
                                const char *folder, const char *name,
                                char sum[BASE_SHA256_HEX_BYTES])
{
    char *path;
    base_status_t st;

    BASE_TRY(tr_checkpoint_file(c->ctx, folder, name, &path));
    if (strcmp(name, TR_CHECKPOINT_STATE) == 0)
        st = write_state(c, clock, path);
    else if (strcmp(name, TR_CHECKPOINT_CONFIG) == 0)
        st = write_config(c, path);
    else
        st = write_gradients(c, path);
    base_free(c->ctx, path);
    return st >= 0 ? tr_checkpoint_seal(c->ctx, folder, name, sum) : st;
}

static base_status_t write_own(const tr_checkpoint_t *c, const tr_checkpoint_clock_t *clock,
                               const char *folder, char (*sums)[BASE_SHA256_HEX_BYTES],
                               verdict_t *said)
{
    const tr_trainer_t *trainer = c->train->trainer;
    char name[TR_CHECKPOINT_FILE_BYTES];

    if (clock != NULL) {
        BASE_TRY(write_file(c, clock, folder, TR_CHECKPOINT_CONFIG, sums[0]));
        BASE_TRY(write_file(c, clock, folder, TR_CHECKPOINT_STATE, sums[1]));
    }
    if (trainer->index < 0) return BASE_OK;
    tr_checkpoint_gradients_name(trainer->index, name);
    return write_file(c, clock, folder, name, said->gradients);
}

static base_status_t finish(const tr_checkpoint_t *c, char (*sums)[BASE_SHA256_HEX_BYTES],
                            const verdict_t *all)
{
    const as_topology_t *t = c->train->trainer->topology;
    const int32_t num_files = t->num_trainers + 2;
    base_status_t st = BASE_ERR_NOMEM;

    char(*names)[TR_CHECKPOINT_FILE_BYTES] =
        base_calloc(c->ctx, num_files, sizeof *names, "checkpoint");
    if (names == NULL) return st;
    (void)snprintf(names[0], sizeof names[0], TR_CHECKPOINT_CONFIG);
    (void)snprintf(names[1], sizeof names[1], TR_CHECKPOINT_STATE);
    for (int32_t i = 0; i < t->num_trainers; i++) {
        tr_checkpoint_gradients_name(i, names[2 + i]);
        memcpy(sums[2 + i], all[t->trainer_rank[i]].gradients, sizeof sums[2 + i]);
    }
    st = tr_checkpoint_finish(c->ctx, c->root, c->train->microbatch, c->keep, num_files, names,
                              sums);
    base_free(c->ctx, names);
    return st;
}

static base_status_t write_all(const tr_checkpoint_t *c, const tr_checkpoint_clock_t *clock,
                               base_status_t before, const char *folder,
                               char (*sums)[BASE_SHA256_HEX_BYTES], verdict_t *all,
                               tr_checkpoint_outcome_t *outcome)
{
    verdict_t said = {.status = before};
    base_status_t st = before;

    if (st >= 0 && clock != NULL) st = tr_checkpoint_begin(c->ctx, c->root, c->train->microbatch);
    BASE_TRY(agree(c, st, &said, all, outcome));
    if (outcome->status < 0) return BASE_OK;
    st = write_own(c, clock, folder, sums, &said);
    BASE_TRY(agree(c, st, &said, all, outcome));
    if (outcome->status < 0) return BASE_OK;
    st = clock != NULL ? finish(c, sums, all) : BASE_OK;
    return agree(c, st, &said, all, outcome);
}

base_status_t tr_checkpoint_write(const tr_checkpoint_t *checkpoint,
                                  const tr_checkpoint_clock_t *clock, base_status_t before,
                                  tr_checkpoint_outcome_t *outcome)
{
    const tr_checkpoint_t *c = checkpoint;
    const int64_t deadline = base_ctx_deadline_ms(c->ctx);
    char *folder;
    base_status_t st;

    *outcome = (tr_checkpoint_outcome_t){.status = BASE_OK};
    BASE_TRY(tr_checkpoint_path(c->ctx, c->root, c->train->microbatch, 1, &folder));
    verdict_t *all = base_calloc(c->ctx, comm_group_size(c->group), sizeof *all, "checkpoint");
    char(*sums)[BASE_SHA256_HEX_BYTES] =
        base_calloc(c->ctx, comm_group_size(c->group) + 2, sizeof *sums, "checkpoint");
    if (all != NULL && sums != NULL) {
        base_ctx_set_deadline_ms(c->ctx, TR_CHECKPOINT_DEADLINE_MS);
        st = write_all(c, clock, before, folder, sums, all, outcome);
        base_ctx_set_deadline_ms(c->ctx, deadline);
        if (st >= 0 && outcome->status < 0 && clock != NULL)
            tr_checkpoint_discard(c->ctx, c->root, c->train->microbatch);
    } else
        st = BASE_ERR_NOMEM;
    base_free(c->ctx, sums);
    base_free(c->ctx, all);
    base_free(c->ctx, folder);
    return st;
}
