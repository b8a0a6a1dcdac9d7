/* The HDF5 files of a checkpoint: groups with numbers and texts (attributes) and arrays.
 *
 *   BASE_TRY(tr_h5_create(ctx, path, &file));
 *   BASE_TRY(tr_h5_group(&file, "jobs/legal", &group));
 *   BASE_TRY(tr_h5_put_int(&group, "step", 12));
 *   tr_h5_leave(&group);
 *   BASE_TRY(tr_h5_close(&file));
 *
 * Objects are the caller's memory. A file that is written survives a full disk (data/h5_sink.h) and
 * is removed when it could not be written. Statuses: writing BASE_ERR_SPACE (no space, quota,
 * largest size of a file) or BASE_ERR_IO, both RUN-07; reading BASE_ERR_FORMAT (RUN-06). One thread
 * a file. */
#ifndef CADRE_TRAINER_RUN_CHECKPOINT_H5_H
#define CADRE_TRAINER_RUN_CHECKPOINT_H5_H

#include "data/dataset_h5.h"
#include "data/h5_sink.h"
#include "kernels/op.h"

/* A file, or a group of one. Private. */
typedef struct tr_h5 {
    base_ctx_t *ctx;
    char *path;
    char group[96]; /* "" or "jobs/legal", for messages */
    hid_t id;
    data_h5_sink_t *sink; /* of a file that is written */
    data_h5_quiet_t quiet;
} tr_h5_t;

base_status_t tr_h5_create(base_ctx_t *ctx, const char *path, tr_h5_t *file) BASE_MUST_CHECK;
base_status_t tr_h5_open(base_ctx_t *ctx, const char *path, tr_h5_t *file) BASE_MUST_CHECK;
/* What went wrong while writing comes out here at the latest. `outcome`: that of the calls before;
 * the first failure is returned. Frees in any case. */
base_status_t tr_h5_close(tr_h5_t *file, base_status_t outcome) BASE_MUST_CHECK;

/* Created, with its parents, or opened. Borrows the file. */
base_status_t tr_h5_group(const tr_h5_t *file, const char *name, tr_h5_t *group) BASE_MUST_CHECK;
void tr_h5_leave(tr_h5_t *group);

base_status_t tr_h5_put_int(const tr_h5_t *at, const char *name, int64_t value) BASE_MUST_CHECK;
base_status_t tr_h5_put_double(const tr_h5_t *at, const char *name, double value) BASE_MUST_CHECK;
base_status_t tr_h5_put_text(const tr_h5_t *at, const char *name, const char *text) BASE_MUST_CHECK;
/* BF16 is stored as its 16 bits. */
base_status_t tr_h5_put_array(const tr_h5_t *at, const char *name, kern_dtype_t dtype,
                              int64_t count, const void *data) BASE_MUST_CHECK;

base_status_t tr_h5_put_bytes(const tr_h5_t *at, const char *name, int64_t count,
                              const void *data) BASE_MUST_CHECK;

base_status_t tr_h5_get_int(const tr_h5_t *at, const char *name, int64_t *value) BASE_MUST_CHECK;
base_status_t tr_h5_get_double(const tr_h5_t *at, const char *name, double *value) BASE_MUST_CHECK;
/* At most room - 1 bytes. */
base_status_t tr_h5_get_text(const tr_h5_t *at, const char *name, char *text,
                             size_t room) BASE_MUST_CHECK;
/* Exactly `count` elements of that type. */
base_status_t tr_h5_get_array(const tr_h5_t *at, const char *name, kern_dtype_t dtype,
                              int64_t count, void *data) BASE_MUST_CHECK;
base_status_t tr_h5_get_bytes(const tr_h5_t *at, const char *name, int64_t count,
                              void *data) BASE_MUST_CHECK;
int tr_h5_has_array(const tr_h5_t *at, const char *name);
int tr_h5_has_group(const tr_h5_t *file, const char *name);

#endif
