/* Communicators of NCCL: how ranks come to one, and how calls of a non-blocking one end. No GPU takes part, so that tests
 * run this with a fake of NCCL (tests/support/nccl_fake_api.h); private to comm/nccl_link.c. */
#ifndef CADRE_COMM_NCCL_MEET_H
#define CADRE_COMM_NCCL_MEET_H

#include "comm/nccl_link.h"

#include <nccl.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Who asks NCCL. */
typedef struct comm_nccl_caller {
    base_ctx_t *ctx;
    int rank;
} comm_nccl_caller_t;

/* COMM-04: what NCCL said of `call`. */
base_status_t comm_nccl_failed(const comm_nccl_caller_t *who, ncclResult_t r,
                               const char *call) BASE_MUST_CHECK;
/* Calls of a non-blocking communicator go on behind the call; nothing else may be asked of it until they are
 * through. `r` is what the call returned; the deadline and the stop flag end the wait. */
base_status_t comm_nccl_settle(const comm_nccl_caller_t *who, ncclComm_t comm, ncclResult_t r,
                               const char *call) BASE_MUST_CHECK;
/* Collective, see comm_nccl_link_open. What it returns is the caller's, to abort or to destroy. */
base_status_t comm_nccl_meet(const comm_nccl_caller_t *who, int size, const comm_nccl_id_t *id,
                             comm_nccl_way_t way, ncclComm_t *comm_p) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
