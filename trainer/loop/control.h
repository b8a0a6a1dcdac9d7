/* What all ranks must know alike: decisions that follow from numbers which only trainers have.
 *
 * A pool rank runs the same loop over the same jobs as a trainer, but no dense layers: it does not
 * know whether a gradient was finite or what an evaluation gave, and so not which job goes on. At
 * each such place of the program every rank calls tr_control_share, and goes on with what the first
 * trainer knows. Where every rank is a trainer all have computed it from the same bits, and nothing
 * is sent. */
#ifndef CADRE_TRAINER_LOOP_CONTROL_H
#define CADRE_TRAINER_LOOP_CONTROL_H

#include "trainer/loop/trainer.h"

#define TR_CONTROL_MAX_BYTES 64

typedef struct tr_control tr_control_t;

/* Borrows the trainer. The caller frees *control_p with tr_control_destroy. */
base_status_t tr_control_create(const tr_trainer_t *trainer,
                                tr_control_t **control_p) BASE_MUST_CHECK;
void tr_control_destroy(tr_control_t *control); /* NULL is legal */

/* Collective where there are pool ranks: `bytes` (at most TR_CONTROL_MAX_BYTES) of every rank
 * become the first trainer's. The trainers' are compared byte by byte: BASE_ERR_MISMATCH (COMM-03),
 * naming `what` and the rank, when one has another result. Blocks the host; only where the stream
 * has been waited for. */
base_status_t tr_control_share(tr_control_t *control, const char *what, void *data,
                               int64_t bytes) BASE_MUST_CHECK;

/* ==== once per microbatch ==== */

/* What a rank may want; the same bits on all ranks. */
enum { TR_CONTROL_END = 1 }; /* the run is to end here, its jobs as they are */

/* Records of a microbatch are read so many microbatches later, so that nobody waits for them. */
#define TR_CONTROL_LOOK_AHEAD 2

/* Collective. Before a microbatch runs: gives its plan's hash and what this rank wants, and says
 * what some rank wanted TR_CONTROL_LOOK_AHEAD microbatches ago: that takes effect after this
 * microbatch, on all ranks alike. BASE_ERR_MISMATCH (COMM-03) when a rank has another microbatch or
 * plan. */
base_status_t tr_control_microbatch(tr_control_t *control, int64_t microbatch, uint64_t plan_hash,
                                    uint64_t wanted, uint64_t *agreed) BASE_MUST_CHECK;
/* Collective, after the last microbatch: nothing is on its way any more. */
base_status_t tr_control_finish(tr_control_t *control) BASE_MUST_CHECK;

#endif
