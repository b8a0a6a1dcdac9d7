/* A search over several schedules side by side, for windows where no single policy comes near the
 * bound: after each microbatch the best few states go on, each under several policies. Private to
 * the packer.
 *
 * A state is as good as the rows it has placed, less the rows that its next microbatch will have to
 * leave empty because too few documents may come in. The work is bounded by a number of fills, so
 * that it is the same on every rank; long windows get a narrower search. */
#ifndef CADRE_LORA_PACK_BEAM_H
#define CADRE_LORA_PACK_BEAM_H

#include "lora/pack_microbatch.h"

typedef struct lora_pack_beam lora_pack_beam_t;

base_status_t lora_pack_beam_create(base_ctx_t *ctx, const lora_packer_limits_t *limits,
                                    lora_pack_beam_t **beam_p) BASE_MUST_CHECK;
void lora_pack_beam_destroy(lora_pack_beam_t *beam); /* NULL is legal */

/* `state` has just begun. Replaces the schedule when it finds one of fewer microbatches. */
void lora_pack_beam_search(lora_pack_beam_t *beam, lora_pack_state_t *state,
                           lora_schedule_t *schedule);

#endif
