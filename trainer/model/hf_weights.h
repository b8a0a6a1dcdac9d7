/* Between a Hugging Face folder and the model's fused weights.
 *
 *   tr_hf_model_config(&spec, KERN_F32, longest_document, inv_freq, &config);
 *   ... tr_trainer_create with config and given_weights ...
 *   BASE_TRY(tr_hf_load(weights, folder, stream));                     trainer/model/hf_load.h
 *
 * The order of the rows of fused weights is [q | k | v] and [gate | up], as in trainer/model/model.h;
 * nothing is transposed or permuted. */
#ifndef CADRE_TRAINER_MODEL_HF_WEIGHTS_H
#define CADRE_TRAINER_MODEL_HF_WEIGHTS_H

#include "data/hf_folder.h"
#include "trainer/model/weights.h"

/* Fills the config of a model of that spec: everything but frozen and extra_columns, which are the
 * caller's (0). max_positions: rows of the longest document, at least 1. inv_freq: head_dim / 2
 * doubles of the caller's that the config refers to, like the spec's windows, until the model is
 * created. */
void tr_hf_model_config(const data_model_spec_t *spec, kern_dtype_t dtype, int64_t max_positions,
                        double *inv_freq, tr_model_config_t *config);

/* Where tensor `kind` of the spec lies: weight of that kind, from row `row` on (an element for
 * vectors), `rows` rows. */
typedef struct tr_hf_place {
    tr_weight_kind_t kind;
    int64_t row, rows;
} tr_hf_place_t;
tr_hf_place_t tr_hf_place(const tr_model_t *model, data_model_tensor_kind_t kind);

/* Rows [row, row + rows) of a tensor (an element each for vectors) out of the weights, as doubles:
 * what data/hf_write.h asks for. Waits for the stream. */
base_status_t tr_hf_weights_read(const tr_weights_t *weights, const data_model_tensor_t *tensor,
                                 int64_t row, int64_t rows, base_stream_t *stream,
                                 double *values) BASE_MUST_CHECK;

#endif
