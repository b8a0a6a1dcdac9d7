/* What the seam leaves in a trace: a span for each launch of tasks, and arrows from whoever sends
 * to whoever works with it. Private to attention_server/. Costs nothing to speak of without a
 * trace. */
#ifndef CADRE_ATTENTION_SERVER_MARKS_H
#define CADRE_ATTENTION_SERVER_MARKS_H

#include "attention_server/seam.h"

/* "q,k,v of ping": the transfers of a leg, and their arrows. */
const char *as_leg_name(as_leg_t leg, data_half_t half);

/* An arrow begins for each peer that gets something from this rank in the exchange about to begin. */
base_status_t as_mark_sent(as_attention_t *at, data_half_t half, int32_t layer,
                           as_leg_t leg) BASE_MUST_CHECK;
/* Arrows end in the span that is open: of all peers of the half's last exchange. */
base_status_t as_mark_results(as_attention_t *at, data_half_t half) BASE_MUST_CHECK;

/* Around the kernel call of a launch. Arrows of the exchanges that it waits for, and that no launch
 * before it has waited for, end here. */
base_status_t as_mark_launch(as_attention_t *at, const as_schedule_t *s, const as_launch_t *launch,
                             int32_t layer, as_direction_t direction) BASE_MUST_CHECK;
base_status_t as_mark_launched(as_attention_t *at) BASE_MUST_CHECK;

#endif
