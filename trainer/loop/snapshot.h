/* What a trainer holds that cannot be had again: the vectors of a checkpoint, by name.
 *
 *   for (int64_t i = 0; i < tr_snapshot_count(trainer, job, part); i++) {
 *       const tr_snapshot_vector_t v = tr_snapshot_at(trainer, job, part, i);
 *       void *bytes = base_alloc(ctx, tr_snapshot_bytes(&v.mat), v.name);
 *       BASE_TRY(tr_snapshot_read(trainer, &v.mat, bytes));
 *   }
 *
 * learned       masters and moments of the job's adapter, or of all weights (train.mode full): the
 *               same bits on every trainer
 * accumulated   gradient and loss of the global batch at work: each trainer's own part of a sum
 *
 * Read and written bit for bit, in the dtype in which they lie. On trainers only. Between
 * microbatches; everything waits for the stream. */
#ifndef CADRE_TRAINER_LOOP_SNAPSHOT_H
#define CADRE_TRAINER_LOOP_SNAPSHOT_H

#include "trainer/loop/trainer.h"

typedef enum tr_snapshot_part { TR_SNAPSHOT_LEARNED, TR_SNAPSHOT_ACCUMULATED } tr_snapshot_part_t;

#define TR_SNAPSHOT_NAME_BYTES 96

typedef struct tr_snapshot_vector {
    char name[TR_SNAPSHOT_NAME_BYTES]; /* "masters"; of a model "moment1.layers.3.qkv_proj" */
    kern_mat_t mat;
} tr_snapshot_vector_t;

int64_t tr_snapshot_count(const tr_trainer_t *trainer, int32_t job, tr_snapshot_part_t part);
tr_snapshot_vector_t tr_snapshot_at(const tr_trainer_t *trainer, int32_t job,
                                    tr_snapshot_part_t part, int64_t index);

/* Without the gaps between rows: rows x cols elements. */
int64_t tr_snapshot_bytes(const kern_mat_t *mat);
base_status_t tr_snapshot_read(const tr_trainer_t *trainer, const kern_mat_t *mat,
                               void *bytes) BASE_MUST_CHECK;
base_status_t tr_snapshot_write(const tr_trainer_t *trainer, const kern_mat_t *mat,
                                const void *bytes) BASE_MUST_CHECK;

#endif
