/* Whether all ranks are about to run the same: compared once, before anything is built. Plans are
 * computed by every rank by itself, so a rank with another configuration, model, data or attention
 * profile must be found here, and by name. */
#ifndef CADRE_TRAINER_RUN_AGREEMENT_H
#define CADRE_TRAINER_RUN_AGREEMENT_H

#include "comm/comm.h"
#include "trainer/run/inputs.h"

typedef struct tr_agreement {
    uint64_t config;   /* every key, defaults filled in; not where the run is resumed from */
    uint64_t model;    /* config.json and the tensors' names, shapes and places */
    uint64_t datasets; /* content, rows and supervised rows of every document of every job */
    uint64_t profile;  /* of attention.cost_profile; 0: built in */
} tr_agreement_t;

tr_agreement_t tr_agreement_of(const tr_inputs_t *inputs);

/* Collective. COMM-03 (BASE_ERR_MISMATCH) on every rank when one has another hash than rank 0: it
 * names the first such rank and what differs. */
base_status_t tr_agreement_check(base_ctx_t *ctx, comm_group_t *group,
                                 const tr_agreement_t *mine) BASE_MUST_CHECK;

/* Collective, once adapters have their first values: COMM-03 when a trainer has others than the
 * first one (init: DIR, of which each reads its own copy). `values`: a hash; of a server nothing. */
base_status_t tr_agreement_check_start(base_ctx_t *ctx, comm_group_t *group, int trains,
                                       uint64_t values) BASE_MUST_CHECK;

#endif
