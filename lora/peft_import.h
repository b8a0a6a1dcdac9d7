/* A PEFT adapter folder, opened against a base model and read into an adapter's vector.
 *
 *   lora_peft_t *peft;
 *   BASE_TRY(lora_peft_open(ctx, "out/code", spec, NULL, &peft));
 *   const lora_peft_info_t *info = lora_peft_info(peft);
 *   BASE_TRY_GOTO(lora_layout_create(ctx, spec, info->rank, info->targets, &layout), ...);
 *   BASE_TRY_GOTO(lora_peft_read(peft, layout, info->scale, values), ...);
 *   lora_peft_close(peft);
 *
 * Open reads adapter_config.json (lora/peft_config.h) and the header of adapter_model.safetensors,
 * and reports in one pass: no adapter folder (DATA-40), weights as a pickle (DATA-41), keys that
 * are not supported (DATA-42), an A without B or the reverse, a layer without a module that other
 * layers have, no tensor at all (DATA-43), tensors of no linear layer of the base, or of one that
 * target_modules leaves out, so that PEFT would drop them (DATA-44), another shape than base and
 * rank give, or a dtype other than F32, F16, BF16, F64 (DATA-45). The names of the tensors decide
 * which modules there are.
 *
 * The folder is only read; its file stays open until close. Reads may come from several threads. */
#ifndef CADRE_LORA_PEFT_IMPORT_H
#define CADRE_LORA_PEFT_IMPORT_H

#include "base/config/error_list.h"
#include "data/model_spec.h"
#include "data/safetensors_read.h"
#include "lora/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lora_peft lora_peft_t;

typedef struct lora_peft_info {
    int32_t rank;          /* the largest of its modules */
    uint32_t targets;      /* bits of base_config_target_t */
    double alpha, dropout; /* as the file says */
    bool rslora;
    bool patterns;          /* modules differ in rank or scale */
    double scale;           /* lora_scale(alpha, r, rslora) of the file, without patterns */
    int64_t parameters;     /* elements of all tensors */
    const char *base_model; /* as the file names it; NULL: not at all */
} lora_peft_info_t;

/* One linear layer of the base that has an adapter. */
typedef struct lora_peft_module {
    int32_t layer, target;
    int64_t in, out, rank;
    double scale;                      /* by what B A is multiplied */
    const data_safetensors_entry_t *a; /* (rank, in) */
    const data_safetensors_entry_t *b; /* (out, rank) */
} lora_peft_module_t;

/* `errors` gets all faults and the caller finishes it (data_errors_finish); with NULL the first one
 * is recorded in the context. BASE_ERR_FORMAT; BASE_ERR_IO, recorded at once; BASE_ERR_NOMEM.
 * `spec` is not needed afterwards. The caller closes *peft_p. */
base_status_t lora_peft_open(base_ctx_t *ctx, const char *dir, const data_model_spec_t *spec,
                             base_error_list_t *errors, lora_peft_t **peft_p) BASE_MUST_CHECK;
void lora_peft_close(lora_peft_t *peft); /* NULL is legal */

/* The rest borrows from the open folder. */
base_ctx_t *lora_peft_ctx(const lora_peft_t *peft);
const data_safetensors_t *lora_peft_file(const lora_peft_t *peft);
const char *lora_peft_path(const lora_peft_t *peft); /* of that file, for messages */
const lora_peft_info_t *lora_peft_info(const lora_peft_t *peft);
int64_t lora_peft_num_modules(const lora_peft_t *peft);
/* Module 0 <= index < num_modules, in the order of lora_layout_t. */
const lora_peft_module_t *lora_peft_module(const lora_peft_t *peft, int64_t index);

/* Whether an adapter of this rank and these targets could begin with it (lora_peft_read). BASE_ERR_CONFIG
 * (DATA-46) with both. */
base_status_t lora_peft_match(const lora_peft_t *peft, int32_t rank,
                              uint32_t targets) BASE_MUST_CHECK;

/* A (rank x in) and B (out x rank) of a module, as they are in the file; one of the two may be
 * NULL. Values that are not finite are given, not refused. */
base_status_t lora_peft_read_module(const lora_peft_t *peft, const lora_peft_module_t *module,
                                    double *a, double *b) BASE_MUST_CHECK;

/* Fills `values` (layout->count) for an adapter whose output is multiplied by `scale` (not 0): A as
 * it is, B times (module's scale / scale), computed in double and rounded once, so that B keeps its
 * bits where the scales are equal. A module that rank_pattern gives a smaller rank is filled up
 * with zero rows in A and zero columns in B, which change nothing.
 *
 * Rank and targets of the layout have to be those of the folder (BASE_ERR_CONFIG, DATA-46, with
 * both): filled-up ranks do not train, since both their gradients are zero, and a missing target
 * would be a decision that nobody made. A value that is not finite, or not in fp32, is
 * BASE_ERR_FORMAT (DATA-47); `values` is undefined then. */
base_status_t lora_peft_read(const lora_peft_t *peft, const lora_layout_t *layout, double scale,
                             float *values) BASE_MUST_CHECK;

/* Open, read, close: for `init: DIR`. */
base_status_t lora_peft_import(base_ctx_t *ctx, const char *dir, const data_model_spec_t *spec,
                               const lora_layout_t *layout, double scale,
                               float *values) BASE_MUST_CHECK;

/* "q_proj, v_proj" of a set of targets, for messages; returns `text`. */
const char *lora_targets_text(uint32_t targets, char *text, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
