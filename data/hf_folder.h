/* A Hugging Face model folder: config.json and the tensors that follow from it.
 *
 *   data_hf_folder_t *folder;
 *   BASE_TRY(data_hf_folder_open(ctx, "models/Llama-3.1-8B", NULL, &folder));
 *   const data_model_spec_t *spec = data_hf_folder_spec(folder);
 *   i = data_model_spec_index(spec, DATA_TENSOR_Q, layer);
 *   BASE_TRY(data_hf_folder_read_float(folder, i, row, num_rows, values));
 *   data_hf_folder_close(folder);
 *
 * Open reads config.json and all headers, and compares the tensors that are there with the spec's
 * list, in one pass: missing (DATA-07), not the model's (DATA-08), of another shape or not F16,
 * BF16, F32 or F64 (DATA-09). Tensors may have different dtypes. Two tensors may be there beyond
 * the list:
 *   lm_head.weight of a tied model, if it is the embedding byte for byte: both are read to the end
 *   ....rotary_emb.inv_freq, a buffer that old checkpoints carry: it follows from config.json and
 *     every loader drops it
 *
 * The folder is only read, and stays open (one file descriptor a shard) until close. After open,
 * reads may come from several threads; each allocates and frees at most a megabyte where it has to
 * convert. */
#ifndef CADRE_DATA_HF_FOLDER_H
#define CADRE_DATA_HF_FOLDER_H

#include "base/config/error_list.h"
#include "data/model_spec.h"
#include "data/safetensors_read.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct data_hf_folder data_hf_folder_t;

/* `errors` gets all faults and the caller finishes it (data_errors_finish); with NULL the first one
 * is recorded in the context. BASE_ERR_FORMAT; BASE_ERR_IO, recorded at once, when a file that is
 * there cannot be read; BASE_ERR_NOMEM. The caller closes *folder_p. */
base_status_t data_hf_folder_open(base_ctx_t *ctx, const char *path, base_error_list_t *errors,
                                  data_hf_folder_t **folder_p) BASE_MUST_CHECK;
void data_hf_folder_close(data_hf_folder_t *folder); /* NULL is legal */

/* Borrowed from the folder. Tensors are numbered as in the spec's list. */
const data_model_spec_t *data_hf_folder_spec(const data_hf_folder_t *folder);
const data_safetensors_entry_t *data_hf_folder_entry(const data_hf_folder_t *folder, int64_t index);

/* Rows of tensor `index` (a vector has one element a row): as they are in the file, or converted.
 * Errors: those of data_safetensors_read_rows. */
base_status_t data_hf_folder_read_raw(const data_hf_folder_t *folder, int64_t index, int64_t row,
                                      int64_t num_rows, void *to) BASE_MUST_CHECK;
base_status_t data_hf_folder_read_float(const data_hf_folder_t *folder, int64_t index, int64_t row,
                                        int64_t num_rows, float *to) BASE_MUST_CHECK;
base_status_t data_hf_folder_read_double(const data_hf_folder_t *folder, int64_t index, int64_t row,
                                         int64_t num_rows, double *to) BASE_MUST_CHECK;

/* The base model's identity, by which adapters, checkpoints and ranks compare: the spec's hash and,
 * for each tensor of the list, name, dtype, shape and its first and last 4096 bytes. It does not
 * depend on how the tensors lie in files. Reading all of a large model would take minutes at every
 * start; training moves every tensor, so two checkpoints that people mix up differ in these bytes.
 * A change in the middle of a tensor alone is not noticed. */
base_status_t data_hf_folder_hash(const data_hf_folder_t *folder, uint64_t *hash) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
