/* What can be said about an adapter folder without running the model: does it fit the base folder,
 * and does it do anything.
 *
 *   base_error_list_init(&errors, ctx);
 *   st = lora_adapter_verify(ctx, "out/code", base, &errors, &report);
 *   ... base_error_list_print(&errors, stderr) or report->does_nothing, report->max_delta ...
 *   lora_verify_destroy(report);
 *
 * Whether a server really uses it is another question: compare logits. */
#ifndef CADRE_LORA_ADAPTER_VERIFY_H
#define CADRE_LORA_ADAPTER_VERIFY_H

#include "data/hf_folder.h"
#include "lora/peft_import.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lora_verify_module {
    int32_t layer, target; /* lora_module_name */
    int64_t rank;
    double scale;
    bool zero_b; /* all of B is 0: the module changes nothing, as before its training */
    /* Frobenius norm of scale B A, the change of the weight, in double. It comes from the rank x
     * rank products of A and B, so that it is good to about 1e-8 of scale |A| |B|: a product that
     * cancels further is lost in that. */
    double delta;
} lora_verify_module_t;

typedef struct lora_verify {
    base_ctx_t *ctx;
    int32_t rank; /* the largest */
    uint32_t targets;
    int64_t num_tensors, parameters;
    int64_t num_modules;
    lora_verify_module_t *modules; /* in the order of lora_layout_t */
    int64_t num_zero_b;
    bool does_nothing;  /* every delta is 0 */
    int64_t max_module; /* the module that changes most; 0 when none changes */
    double max_delta;
    double delta; /* Frobenius norm over all modules */
} lora_verify_t;

/* Reads the folder against the tensors of the open base. Faults are those of lora_peft_open, a
 * shape that the base folder's own tensor does not have (DATA-45), and tensors with values that are
 * not finite (DATA-47), all in one pass; `errors` as in lora_peft_open. *report_p is set when there
 * are none. */
base_status_t lora_adapter_verify(base_ctx_t *ctx, const char *dir, const data_hf_folder_t *base,
                                  base_error_list_t *errors,
                                  lora_verify_t **report_p) BASE_MUST_CHECK;
void lora_verify_destroy(lora_verify_t *report); /* NULL is legal */

/* Looks for the weight of a module in the base folder's own list and compares it with (out, in);
 * faults (DATA-44, DATA-45) go to `errors` with `source` as their place. */
void lora_adapter_check_base(const data_hf_folder_t *base, const char *source, int32_t layer,
                             int32_t target, int64_t in, int64_t out, base_error_list_t *errors);

#ifdef __cplusplus
}
#endif
#endif
