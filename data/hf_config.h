/* config.json of a Hugging Face folder -> data_model_spec_t.
 *
 *   data_model_spec_t spec;
 *   BASE_TRY(data_hf_config_read(ctx, "models/Llama-3.1-8B/config.json", NULL, &spec));
 *
 * Read are dense llama (2, 3, 3.x), mistral, qwen2 (and 2.5) and qwen3, in the spelling of
 * transformers 4 and 5 (data/hf_rope.h). A library fills what a file leaves out from defaults of
 * its classes, which differ from the released checkpoints; here a missing key is an error
 * (DATA-03). A key that may change numbers and is not supported is an error too (DATA-05;
 * data/hf_keys.h says how keys are told apart). All faults are reported in one pass, placed by the
 * path of the key.
 *
 * What may be missing, and why:
 *   head_dim              not with qwen3. It is younger than the other families; before it
 *                         hidden_size / num_attention_heads was the only possibility
 *   rope_theta            llama files of transformers before 4.33: 10000, then a constant
 *   num_key_value_heads   llama files of transformers before 4.31: num_attention_heads, then the
 *                         only possibility
 *   attention_bias, mlp_bias   false: the switches are younger than the families. Nothing can go
 *                         wrong silently: a bias among the tensors is an error then
 *   sliding_window, use_sliding_window   of qwen2 and qwen3, when both are missing: full attention.
 *                         use_sliding_window decides, so a sliding_window without it is an error
 *   layer_types           only newer files have it; without it the window's own keys decide
 *   eos_token_id          the spec then names none; who needs one has to ask for it
 *   architectures, transformers_version   the family is decided by model_type
 * dtype and torch_dtype are not read: each tensor has its own dtype. */
#ifndef CADRE_DATA_HF_CONFIG_H
#define CADRE_DATA_HF_CONFIG_H

#include "base/config/error_list.h"
#include "data/model_spec.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `errors` gets the faults and the caller finishes it (data_errors_finish); with NULL the first one
 * is recorded in the context. BASE_ERR_FORMAT; BASE_ERR_IO (IO-01, recorded at once);
 * BASE_ERR_NOMEM. *spec is set on success only and then passes data_model_spec_check. */
base_status_t data_hf_config_read(base_ctx_t *ctx, const char *path, base_error_list_t *errors,
                                  data_model_spec_t *spec) BASE_MUST_CHECK;
/* The same from memory; `source` takes the place of the path in messages. */
base_status_t data_hf_config_parse(base_ctx_t *ctx, const char *source, const char *text,
                                   size_t bytes, base_error_list_t *errors,
                                   data_model_spec_t *spec) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
