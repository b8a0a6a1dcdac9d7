/* The algorithms of a microbatch's matrix products, before there is a microbatch: those of the four linear
 * layers and of the head, for halves of every size and for any of the adapters together, are searched
 * (kern_gemm_search) and run once, so that no rank searches, or loads a kernel, while others wait for it, and no
 * host waits between microbatches. Products share an algorithm by steps of their rows and columns
 * (kernels/gemm_key.h), so that these are few: for each power of two of rows mostly one, of as many columns of adapters
 * as there can be, and for the input gradient one more without, where adapters have dropout. Products of train.mode: full
 * alone (gradients of weights) are not among them.
 *
 *   if (tr_product_has_choice(&graph)) BASE_TRY(tr_product_search(&graph));
 *
 * Waits; activations are as tr_activations_fill leaves them. Weights have to be there: the operands take their values,
 * since how fast a product is depends on the power that its numbers cost. */
#ifndef CADRE_TRAINER_MODEL_PRODUCT_SEARCH_H
#define CADRE_TRAINER_MODEL_PRODUCT_SEARCH_H

#include "trainer/model/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Whether the device has several algorithms for a product; for others the search is for nothing. */
int tr_product_has_choice(const tr_graph_t *graph);
base_status_t tr_product_search(const tr_graph_t *graph) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
