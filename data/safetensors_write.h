/* Safetensors files, written as the reference writer does: tensors by descending dtype, then by
 * name, so that each lies at a multiple of its element's size; the header padded with spaces to a
 * multiple of 8; __metadata__ {"format":"pt"}, which loaders ask for.
 *
 *   BASE_TRY(data_safetensors_create(ctx, path, tensors, num_tensors, &writer));
 *   while ((i = data_safetensors_next(writer)) >= 0)
 *       BASE_TRY_GOTO(data_safetensors_append(writer, bytes of tensors[i], size), st, err_discard);
 *   return data_safetensors_commit(writer);
 *
 * The bytes of a tensor may come in several pieces; the order of the tensors is the writer's, so
 * nothing but a piece has to be in memory. The file appears under its name, complete and synced,
 * with the commit (base/file.h); until then, and after a discard, PATH is as it was. The same
 * tensors give the same bytes on every host. One thread. */
#ifndef CADRE_DATA_SAFETENSORS_WRITE_H
#define CADRE_DATA_SAFETENSORS_WRITE_H

#include "data/safetensors_read.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct data_safetensors_tensor {
    const char *name; /* UTF-8, not "__metadata__", unique; borrowed while the writer lives */
    data_dtype_t dtype;
    int32_t rank; /* 0: a scalar */
    int64_t shape[DATA_SAFETENSORS_MAX_RANK];
} data_safetensors_tensor_t;

typedef struct data_safetensors_writer data_safetensors_writer_t;

/* Writes the header. BASE_ERR_ARG (INT-01) for tensors that the format cannot hold; BASE_ERR_IO
 * or BASE_ERR_SPACE (IO-02, base/file.h). The caller ends *writer_p with commit or discard. */
base_status_t data_safetensors_create(base_ctx_t *ctx, const char *path,
                                      const data_safetensors_tensor_t *tensors, int64_t count,
                                      data_safetensors_writer_t **writer_p) BASE_MUST_CHECK;
/* Index, in the caller's list, of the tensor whose bytes come next, -1 when all are written.
 * Tensors without elements are passed over. */
int64_t data_safetensors_next(const data_safetensors_writer_t *writer);
/* Bytes of the next tensor; BASE_ERR_ARG when they are more than it has left. */
base_status_t data_safetensors_append(data_safetensors_writer_t *writer, const void *data,
                                      int64_t bytes) BASE_MUST_CHECK;
/* Takes `writer`, also when it fails. BASE_ERR_STATE when bytes are missing. */
base_status_t data_safetensors_commit(data_safetensors_writer_t *writer) BASE_MUST_CHECK;
void data_safetensors_discard(data_safetensors_writer_t *writer); /* NULL is legal */

/* All of it in one call: data[i] are the bytes of tensors[i]. */
base_status_t data_safetensors_write(base_ctx_t *ctx, const char *path,
                                     const data_safetensors_tensor_t *tensors,
                                     const void *const *data, int64_t count) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
