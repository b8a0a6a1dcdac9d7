/* Rotary embedding as config.json spells it: the part of data/hf_config.h that reads rope_theta,
 * rope_scaling and rope_parameters.
 *
 *   transformers 4   "rope_theta": 500000.0, "rope_scaling": {"rope_type" | "type": ...} or null
 *   transformers 5   "rope_parameters": {"rope_type": ..., "rope_theta": ...}
 *
 * Both theta may stand there if they are equal; rope_scaling and rope_parameters exclude each
 * other.
 * rope_type is default, linear, llama3 or yarn; any other, and any key that its type does not have,
 * is DATA-05.
 *
 * What may be missing: beta_fast (32), beta_slow (1), truncate (true) and attention_factor (0.1
 * ln(factor) + 1) of yarn, whose method says so. original_max_position_embeddings of yarn may not:
 * readers differ in what they take instead. `factor` is taken as it stands, like transformers 5 and
 * vLLM do, also where max_position_embeddings / original_max_position_embeddings, which some
 * releases of transformers 4 took instead, is another number. */
#ifndef CADRE_DATA_HF_ROPE_H
#define CADRE_DATA_HF_ROPE_H

#include "data/json_read.h"
#include "data/model_spec.h"

#ifdef __cplusplus
extern "C" {
#endif

/* default_theta: 0, or what a missing rope_theta means in this file. Reports in the root's list;
 * *rope is complete when nothing was reported. */
void data_hf_rope_read(const data_json_object_t *root, double default_theta, data_rope_t *rope);

#ifdef __cplusplus
}
#endif
#endif
