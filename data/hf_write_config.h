/* config.json of a data_model_spec_t, in the spelling of transformers 4 (top-level rope_theta and
 * rope_scaling), which transformers 5 and every server read too.
 *
 * All keys that our own reader wants are written, none is left to a default. Windows of Qwen are
 * written by layer (layer_types) besides sliding_window and max_window_layers. What the spec does
 * not know and users of the folder may need is carried over from another config.json:
 * bos_token_id, pad_token_id and initializer_range. */
#ifndef CADRE_DATA_HF_WRITE_CONFIG_H
#define CADRE_DATA_HF_WRITE_CONFIG_H

#include "data/model_spec.h"
#include "data/tensor_dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct data_hf_carried {
    int64_t bos, pad;         /* -1: not written */
    double initializer_range; /* 0: not written */
} data_hf_carried_t;

/* From a config.json that data_hf_config_read takes; what is missing there, or of another type, is
 * left out. path NULL: nothing is carried. BASE_ERR_IO; BASE_ERR_FORMAT (DATA-02). */
base_status_t data_hf_carried_read(base_ctx_t *ctx, const char *path,
                                   data_hf_carried_t *carried) BASE_MUST_CHECK;

/* Writes PATH and has read back from the text what was meant: a spec that no config.json of its
 * family can express is BASE_ERR_UNSUPPORTED (INT-01), since no file gives such a spec. `dtype` of
 * the tensors: DATA_F32 or DATA_BF16. BASE_ERR_IO (IO-02). */
base_status_t data_hf_config_write(base_ctx_t *ctx, const char *path, const data_model_spec_t *spec,
                                   data_dtype_t dtype,
                                   const data_hf_carried_t *carried) BASE_MUST_CHECK;

/* Whether two specs are equal in the hash and in what the hash leaves out: max_positions and the
 * end-of-text tokens. */
bool data_hf_config_same(const data_model_spec_t *a, const data_model_spec_t *b);

#ifdef __cplusplus
}
#endif
#endif
