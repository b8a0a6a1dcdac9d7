#include "trainer/loop/snapshot.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

static const char *const LEARNED[] = {"masters", "moment1", "moment2"};
enum { NUM_LEARNED = sizeof LEARNED / sizeof LEARNED[0] };

int64_t tr_snapshot_count(const tr_trainer_t *trainer, int32_t job, tr_snapshot_part_t part)
{
    const int64_t weights = trainer->adapters != NULL ? 1 : trainer->model->num_weights;

    (void)job;
    return part == TR_SNAPSHOT_LEARNED ? NUM_LEARNED * weights : weights + 1;
}

static kern_mat_t adapter_vector(const tr_trainer_t *t, int32_t job, int what)
{
    const lora_adapter_t *a = &t->adapters->adapters[job];
    const base_region_t regions[] = {a->weights, a->moment1, a->moment2, a->gradient};

    return lora_adapter_set_vector(t->adapters, job, regions[what]);
}

static kern_mat_t weight_vector(const tr_trainer_t *t, int32_t weight, int what)
{
    const tr_weight_spec_t *spec = &t->model->weights[weight];

    if (what == 0) return tr_weights_mat(t->weights, weight);
    if (what == NUM_LEARNED) return tr_weights_gradient(t->weights, weight);
    return kern_mat(base_arena_mem(t->arena, t->moments[2 * weight + what - 1]), spec->rows,
                    spec->cols, spec->cols, t->model->acc);
}

static kern_mat_t loss(const tr_trainer_t *t, int32_t job)
{
    const kern_mat_t sums = tr_head_sums(&t->head);

    return kern_mat(base_mem_at(sums.mem, job * kern_dtype_bytes(sums.dtype)), 1, 1, 1, sums.dtype);
}

tr_snapshot_vector_t tr_snapshot_at(const tr_trainer_t *trainer, int32_t job,
                                    tr_snapshot_part_t part, int64_t index)
{
    const int whole = trainer->adapters == NULL; /* the model itself */
    tr_snapshot_vector_t v;

    if (part == TR_SNAPSHOT_ACCUMULATED && index == tr_snapshot_count(trainer, job, part) - 1) {
        v.mat = loss(trainer, job);
        (void)snprintf(v.name, sizeof v.name, "loss");
        return v;
    }
    const int what = part == TR_SNAPSHOT_LEARNED ? (int)(index % NUM_LEARNED) : NUM_LEARNED;
    const int32_t weight = (int32_t)(part == TR_SNAPSHOT_LEARNED ? index / NUM_LEARNED : index);
    v.mat = whole ? weight_vector(trainer, weight, what) : adapter_vector(trainer, job, what);
    (void)snprintf(v.name, sizeof v.name, "%s%s%s", what < NUM_LEARNED ? LEARNED[what] : "gradient",
                   whole ? "." : "", whole ? trainer->model->weights[weight].name : "");
    return v;
}

/* ==== bytes ==== */

static int64_t row_bytes(const kern_mat_t *mat)
{
    return mat->cols * kern_dtype_bytes(mat->dtype);
}

int64_t tr_snapshot_bytes(const kern_mat_t *mat)
{
    return mat->rows * row_bytes(mat);
}

/* From the first element to the last, gaps included. */
static int64_t spanned_bytes(const kern_mat_t *mat)
{
    const int64_t pitch = mat->pitch * kern_dtype_bytes(mat->dtype);

    return mat->rows == 0 ? 0 : (mat->rows - 1) * pitch + row_bytes(mat);
}

base_status_t tr_snapshot_read(const tr_trainer_t *trainer, const kern_mat_t *mat, void *bytes)
{
    const int64_t pitch = mat->pitch * kern_dtype_bytes(mat->dtype), row = row_bytes(mat);
    char *all = bytes, *staging = NULL;

    if (pitch != row && mat->rows > 1) {
        staging = base_alloc(trainer->ctx, (size_t)spanned_bytes(mat), "checkpoint");
        if (staging == NULL) return BASE_ERR_NOMEM;
        all = staging;
    }
    const base_status_t st = base_download(trainer->stream, all, mat->mem, spanned_bytes(mat));
    const base_status_t synced = base_stream_sync(trainer->stream);
    for (int64_t r = 0; staging != NULL && r < mat->rows; r++)
        memcpy((char *)bytes + r * row, staging + r * pitch, (size_t)row);
    base_free(trainer->ctx, staging);
    return st < 0 ? st : synced;
}

base_status_t tr_snapshot_write(const tr_trainer_t *trainer, const kern_mat_t *mat,
                                const void *bytes)
{
    const int64_t pitch = mat->pitch * kern_dtype_bytes(mat->dtype), row = row_bytes(mat);
    base_status_t st = BASE_OK;

    if (pitch == row || mat->rows <= 1)
        st = base_upload(trainer->stream, mat->mem, bytes, spanned_bytes(mat));
    for (int64_t r = 0; pitch != row && mat->rows > 1 && r < mat->rows && st >= 0; r++)
        st = base_upload(trainer->stream, base_mem_at(mat->mem, r * pitch),
                         (const char *)bytes + r * row, row);
    const base_status_t synced = base_stream_sync(trainer->stream);
    return st < 0 ? st : synced;
}
