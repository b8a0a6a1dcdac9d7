/* An adapter as a PEFT folder: adapter_config.json, adapter_model.safetensors, README.md.
 *
 * Portable form, the default: fp32, lora_alpha = r, use_rslora false, no patterns, and the scale
 * multiplied into B. B A times the file's scale of 1 is then the adapter for every loader, also for
 * one that ignores use_rslora or patterns. The product is computed in double and rounded once, so
 * that B keeps its bits when the scale is a power of two. `faithful` keeps alpha, rsLoRA and B.
 *
 * Before anything is written, modules and shapes are compared with the base folder's own tensors
 * (DATA-44, DATA-45) and all values have to be finite (DATA-47, with the tensor's name). The
 * folder is written beside DIR, synced, opened again, compared to the last byte (DATA-49) and only
 * then takes DIR's place (lora/adapter_folder.h, DATA-48). The same adapter gives the same bytes.
 */
#ifndef CADRE_LORA_EXPORT_PEFT_H
#define CADRE_LORA_EXPORT_PEFT_H

#include "data/hf_folder.h"
#include "lora/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All borrowed for the call. Rank and targets are the layout's. */
typedef struct lora_export {
    const char *name; /* of the adapter: under it README.md lets servers load it */
    const lora_layout_t *layout;
    const float *values; /* layout->count, on the host */
    double alpha, dropout;
    bool rslora;
    bool faithful;
    const char *base_model; /* base_model_name_or_path: the base as users find it */
    const data_hf_folder_t *base;
} lora_export_t;

/* Writes DIR. BASE_ERR_FORMAT (DATA-44, 45, 47), BASE_ERR_CONFIG (DATA-48), BASE_ERR_IO (IO-02,
 * DATA-49), BASE_ERR_SPACE (IO-02), BASE_ERR_NOMEM; DIR is as before then. Allocates about a megabyte and the names. */
base_status_t lora_export_peft(base_ctx_t *ctx, const char *dir,
                               const lora_export_t *adapter) BASE_MUST_CHECK;

/* Whether DIR holds this adapter in this form: names, shapes, dtypes and bytes of the tensors and
 * the numbers of adapter_config.json. BASE_ERR_IO (DATA-49) with the first difference, or the
 * errors of the readers. Export calls it before the folder gets its name. */
base_status_t lora_export_compare(base_ctx_t *ctx, const char *dir,
                                  const lora_export_t *adapter) BASE_MUST_CHECK;

/* The first value that an export would refuse: BASE_ERR_FORMAT (DATA-47) with `place`, the tensor's
 * name and the element; also one whose product with the scale overflows. */
base_status_t lora_export_check_finite(base_ctx_t *ctx, const char *place,
                                       const lora_export_t *adapter) BASE_MUST_CHECK;

/* Writes PATH, the README.md of an adapter that users will find in DIR: what it is and the exact
 * lines that serve it with vLLM, SGLang, PEFT and llama.cpp. BASE_ERR_IO. */
base_status_t lora_export_readme(base_ctx_t *ctx, const char *path, const char *dir,
                                 const lora_export_t *adapter) BASE_MUST_CHECK;

/* The smallest --max-lora-rank of vLLM that takes this rank: one of 8, 16, 32, 64, 128, 256, 320,
 * 512 (newer versions have 1 too); 0 when there is none. */
int64_t lora_export_vllm_rank(int64_t rank);

#ifdef __cplusplus
}
#endif
#endif
