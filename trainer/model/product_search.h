/* The algorithms of a microbatch's matrix products, before there is a microbatch: those of the four linear
 * layers, for halves that are full to a quarter full, and those of the head are searched
 * (kern_gemm_search) and run once, so that no rank searches, or loads a kernel, while others wait for it.
 * Shapes that come up later (other adapters together, smaller halves) are searched when they do
 * (kern_gemm_search_new), with all exchanges that are under way waited for.
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
