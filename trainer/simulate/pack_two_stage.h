/* LoRAFusion's packer (arXiv 2510.00206; CentML/lorafusion), written anew from its description:
 * what our packer is compared with.
 *
 * Adapters are paired, longest mean length with shortest. Round by round each pair's two global
 * batches are packed by themselves: first-fit decreasing, then a mixed-integer program for fewest
 * microbatches, then a second one that makes the emptiest microbatch as empty as it can be; the
 * better of solver and first-fit is kept. A last pass fills the emptiest microbatch of a pair with
 * documents of the pair that follows.
 *
 * Where it differs from theirs, to its advantage: the first program has as many microbatches as
 * first-fit needs instead of one for each document and starts from that solution, and is left out
 * where first-fit meets the L2 bound; pairs are kept for every number of stages; the order is
 * checked exactly, so that pauses stand only where they must. */
#ifndef CADRE_TRAINER_SIMULATE_PACK_TWO_STAGE_H
#define CADRE_TRAINER_SIMULATE_PACK_TWO_STAGE_H

#include "lora/pack_window.h"

typedef struct tr_two_stage {
    double seconds; /* limit of each program; 0: first-fit only, with pairs and last pass */
    int32_t solved; /* out: rounds of a pair where the solver's packing was kept */
} tr_two_stage_t;

base_status_t tr_pack_two_stage(base_ctx_t *ctx, const lora_window_t *window,
                                tr_two_stage_t *options, lora_schedule_t *schedule) BASE_MUST_CHECK;

#endif
