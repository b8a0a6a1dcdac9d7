/* The safetensors files of a model folder: one model.safetensors, or shards that
 * model.safetensors.index.json lists.
 *
 * The index is {"metadata": {...}, "weight_map": {tensor: file}}. Every tensor of it has to be in
 * the file it names and every tensor of a file in the index, under that file: so no tensor can come
 * from two places. metadata (total_size) is not read: released checkpoints hold wrong ones, and the
 * files themselves are checked. A folder with both a single file and an index is refused, since
 * loaders differ in which of the two they take. Files beside them are not looked at. */
#ifndef CADRE_DATA_HF_SHARDS_H
#define CADRE_DATA_HF_SHARDS_H

#include "data/safetensors_read.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct data_hf_shards {
    base_ctx_t *ctx;
    data_safetensors_t **files; /* in the order of their names */
    int64_t count;
} data_hf_shards_t;

/* Opens all of them; faults go to `errors` (DATA-01, DATA-10 and those of data_safetensors_open)
 * and give BASE_ERR_FORMAT. Other failures are recorded at once. *shards has to be closed in any
 * case. */
base_status_t data_hf_shards_open(base_ctx_t *ctx, const char *folder, base_error_list_t *errors,
                                  data_hf_shards_t *shards) BASE_MUST_CHECK;
void data_hf_shards_close(data_hf_shards_t *shards); /* may be repeated */

/* The tensor of that name and its file, NULL when there is none. */
const data_safetensors_entry_t *data_hf_shards_find(const data_hf_shards_t *shards,
                                                    const char *name,
                                                    const data_safetensors_t **file_p);

/* FOLDER/NAME in memory of the context (base_free), NULL without memory. */
char *data_hf_shards_path(base_ctx_t *ctx, const char *folder, const char *name);

#ifdef __cplusplus
}
#endif
#endif
