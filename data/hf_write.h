/* Writes a Hugging Face model folder: config.json, model.safetensors and the tokenizer's files.
 *
 *   const data_hf_write_options_t options = {.dtype = DATA_BF16, .files_from = "models/base"};
 *   BASE_TRY(data_hf_write(ctx, "out/model", spec, &options, read_rows, trainer));
 *
 * The folder appears under its name complete, synced and compared, or not at all: everything is
 * written to PATH.tmp-RRRR beside it, opened again with data/hf_folder.h, and renamed when each
 * tensor reads back byte for byte and config.json gives the same spec (users' complaint 12: files
 * that were saved empty). A tied head is not written. One file whatever the size. One thread. */
#ifndef CADRE_DATA_HF_WRITE_H
#define CADRE_DATA_HF_WRITE_H

#include "data/model_spec.h"
#include "data/tensor_dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct data_hf_write_options {
    data_dtype_t dtype; /* of all tensors: DATA_F32 or DATA_BF16 (rounded to nearest, ties even) */
    /* Folder whose tokenizer and generation files are copied as far as they are there:
     * tokenizer.json, tokenizer_config.json, special_tokens_map.json, added_tokens.json,
     * tokenizer.model, vocab.json, merges.txt, chat_template.jinja, generation_config.json. NULL:
     * none. */
    const char *files_from;
    /* A config.json from which data/hf_write_config.h carries what a spec does not hold. NULL: none
     */
    const char *config_from;
} data_hf_write_options_t;

/* Gives rows [row, row + num_rows) of tensor `index` of the spec's list: num_rows * shape[1]
 * numbers (a vector has one a row). Called tensor by tensor, rows ascending, each row once, a few
 * megabytes at a time (at least one row). A failure ends the writing. */
typedef base_status_t (*data_hf_rows_fn)(void *arg, int64_t index,
                                         const data_model_tensor_t *tensor, int64_t row,
                                         int64_t num_rows, float *to);

/* PATH must not exist, or be an empty folder: DATA-16 (BASE_ERR_CONFIG). A number that is not
 * finite in `dtype` is DATA-17 (BASE_ERR_FORMAT). BASE_ERR_IO (IO-01, IO-02; BASE_ERR_SPACE: base/file.h), also when the files
 * read back differently; BASE_ERR_UNSUPPORTED (INT-01), see data_hf_config_write; BASE_ERR_NOMEM;
 * what `rows` returns. After a failure PATH is as it was, unless it was the very last step, the sync
 * of the folder around it, that failed. */
base_status_t data_hf_write(base_ctx_t *ctx, const char *path, const data_model_spec_t *spec,
                            const data_hf_write_options_t *options, data_hf_rows_fn rows,
                            void *arg) BASE_MUST_CHECK;

/* The first of these checks alone, before hours of work. */
base_status_t data_hf_write_check_path(base_ctx_t *ctx, const char *path) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
