/* What gives the pieces of weights that were read to the device: one thread does, so that the driver, which
 * takes calls of a process one at a time, is asked little and by nobody else. For trainer/model/hf_load.c.
 *
 *   BASE_TRY(tr_hf_feed_open(&feed, dev, &options));
 *   while (...) { BASE_TRY(tr_hf_feed_give(&feed, slot, &staging, at, &rows)); ... tr_hf_feed_passed ... }
 *   st = tr_hf_feed_close(&feed);
 *
 * A piece costs the driver three calls: a copy, the recording of an event, and a look at it. A copy puts
 * rows where they belong, though they lie apart there; or, to compare with that, it goes to a landing on
 * the device, out of which a second stream puts the rows in place (three calls more). */
#ifndef CADRE_TRAINER_MODEL_HF_LOAD_FEED_H
#define CADRE_TRAINER_MODEL_HF_LOAD_FEED_H

#include "base/device/staging.h"
#include "trainer/model/hf_load.h"

/* Room on the device for one piece whose rows are then put apart. */
typedef struct tr_hf_landing {
    base_mem_t mem;
    base_event_t *placed; /* nothing reads it any more */
    int used;             /* it was recorded */
} tr_hf_landing_t;

typedef struct tr_hf_feed {
    base_stream_t *upload;
    base_event_t *given[TR_HF_LOAD_SLOTS]; /* of each slot: its upload */
    int on_way[TR_HF_LOAD_SLOTS];          /* a ring: slots in the order in which they were given */
    int64_t num_given, num_passed;
    base_stream_t *place; /* out of landings; NULL: there are none */
    base_buffer_t *landing_memory;
    tr_hf_landing_t landings[TR_HF_LOAD_LANDINGS];
    int num_landings;
    int64_t num_landed;
} tr_hf_feed_t;

/* `way`: its slots, and landings of so many bytes. The caller ends *feed, which was {0}, with
 * tr_hf_feed_close, also after an error. */
base_status_t tr_hf_feed_open(tr_hf_feed_t *feed, base_device_t *dev,
                              const tr_hf_load_way_t *way) BASE_MUST_CHECK;
base_status_t tr_hf_feed_close(tr_hf_feed_t *feed); /* waits; the streams' first error */

/* `slot` holds rows from byte `at` of the staging on, and is on its way until it has passed. */
base_status_t tr_hf_feed_give(tr_hf_feed_t *feed, int slot, const base_staging_t *staging,
                              int64_t at, const base_range_t *rows) BASE_MUST_CHECK;
int tr_hf_feed_num_on_way(const tr_hf_feed_t *feed);
/* *slot is the one that was given longest ago, and no longer on its way; BASE_PENDING: it still is. There
 * must be one. */
base_status_t tr_hf_feed_passed(tr_hf_feed_t *feed, int *slot) BASE_MUST_CHECK;
/* As that, but the host waits; with the deadline of base_event_wait. */
base_status_t tr_hf_feed_wait(tr_hf_feed_t *feed, int *slot) BASE_MUST_CHECK;

#endif
