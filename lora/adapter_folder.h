/* The folder of an adapter: names of its files and tensors as PEFT has them, and how a finished
 * folder takes its place.
 *
 *   BASE_TRY(lora_folder_begin(ctx, dir, &f));
 *   ... write the files into f.temporary ...
 *   return lora_folder_commit(&f);                  or, when that failed, lora_folder_discard(&f)
 *
 * Until the commit DIR is as it was, and with it DIR is the new folder: where the file system can
 * exchange two folders in one step there is no moment without one. Elsewhere (some network file
 * systems) the old folder is called DIR.old-RRRR for that moment, and is complete under that name
 * if the process dies in it. What is replaced is deleted. One rank at a time may write a DIR. */
#ifndef CADRE_LORA_ADAPTER_FOLDER_H
#define CADRE_LORA_ADAPTER_FOLDER_H

#include "data/model_spec.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define LORA_FOLDER_CONFIG  "adapter_config.json"
#define LORA_FOLDER_WEIGHTS "adapter_model.safetensors"
#define LORA_FOLDER_PICKLE  "adapter_model.bin"
#define LORA_FOLDER_README  "README.md"

#define LORA_TENSOR_PREFIX     "base_model.model."
#define LORA_TENSOR_A_SUFFIX   ".lora_A.weight"
#define LORA_TENSOR_B_SUFFIX   ".lora_B.weight"
#define LORA_TENSOR_NAME_BYTES (DATA_MODEL_NAME_BYTES + 40)

/* "model.layers.3.self_attn.q_proj": the module as the base calls it. `name` has
 * DATA_MODEL_NAME_BYTES. */
void lora_module_name(int32_t layer, int32_t target, char *name);
/* "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight". `name` has
 * LORA_TENSOR_NAME_BYTES. */
void lora_tensor_name(int32_t layer, int32_t target, bool is_b, char *name);

typedef struct lora_folder {
    base_ctx_t *ctx;
    char *dir;       /* without slashes at its end */
    char *temporary; /* DIR.tmp-RRRR */
} lora_folder_t;

/* Makes an empty DIR.tmp-RRRR beside DIR (with DIR's parents; what a run that died left there is
 * removed). DIR may be absent, an empty folder or an adapter folder: adapter_config.json, the
 * weights, a README.md and nothing else, since what stands in it will be gone. Anything else is
 * BASE_ERR_CONFIG (DATA-48). BASE_ERR_IO (IO-02), BASE_ERR_NOMEM. On success the caller ends *f. */
base_status_t lora_folder_begin(base_ctx_t *ctx, const char *dir, lora_folder_t *f) BASE_MUST_CHECK;
/* Takes *f, also when it fails: then DIR is as it was and the temporary folder is gone. Only when
 * the last step, the sync of DIR's parent, fails, DIR is the new folder already. */
base_status_t lora_folder_commit(lora_folder_t *f) BASE_MUST_CHECK;
void lora_folder_discard(lora_folder_t *f);

#ifdef __cplusplus
}
#endif
#endif
