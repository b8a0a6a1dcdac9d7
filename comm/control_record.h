/* The control record: what every rank tells all others once per microbatch, in a few words.
 *
 * Each rank gives its record of microbatch n and gets those of microbatch n - look_ahead of all
 * ranks. They have had that long to travel, so that nobody waits for them while ranks keep pace;
 * and since all ranks get the same records at the same place of the program, what follows from them
 * (save, end, stop a job) happens at the same microbatch everywhere. An event that a rank gives at
 * microbatch n is known, and takes effect, when every rank has been given the records of n: before
 * microbatch n + look_ahead + 1 begins.
 *
 * Ranks that are out of step are found here: microbatch and plan hash are compared.
 *
 * Built on exchanges of COMM_CHANNEL_PING, so that it runs over every transport. */
#ifndef CADRE_COMM_CONTROL_RECORD_H
#define CADRE_COMM_CONTROL_RECORD_H

#include "comm/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

#define COMM_CONTROL_MAX_LOOK_AHEAD 3

/* What happened to one of the caller's things: which job, and how it ended. */
typedef struct comm_control_event {
    int32_t subject, kind; /* the caller's */
} comm_control_event_t;

/* More have to wait for the next record. */
#define COMM_CONTROL_MAX_EVENTS 16

typedef struct comm_control_record {
    int64_t microbatch;
    uint64_t plan_hash;
    uint64_t wants; /* the caller's bits */
    int32_t num_events, reserved;
    comm_control_event_t events[COMM_CONTROL_MAX_EVENTS];
} comm_control_record_t;

typedef struct comm_control comm_control_t;

/* look_ahead 0 to COMM_CONTROL_MAX_LOOK_AHEAD, the same on all ranks. Allocates all that it needs.
 * The caller frees *control_p with comm_control_destroy, before the group. */
base_status_t comm_control_create(comm_group_t *group, base_device_t *dev, int look_ahead,
                                  comm_control_t **control_p) BASE_MUST_CHECK;
/* After comm_control_finish; otherwise this rank has failed, and the group is stopped. NULL is
 * legal. */
void comm_control_destroy(comm_control_t *control);

/* Collective in order. Gives this rank's record; *all_p is the records of all ranks of the
 * microbatch look_ahead calls ago, [size], valid until the next call, or NULL when there is none
 * yet. Waits, with the deadline of every wait, for records that have not come; a rank alone waits for
 * nothing. BASE_ERR_MISMATCH (COMM-03) names two ranks whose microbatch or plan differ. */
base_status_t comm_control_exchange(comm_control_t *control, const comm_control_record_t *mine,
                                    const comm_control_record_t **all_p) BASE_MUST_CHECK;
/* Waits until what was given has been fetched by all. Collective; records not yet given out are
 * lost. */
base_status_t comm_control_finish(comm_control_t *control) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
