#include "comm/nccl_meet.h"

#include "base/clock.h"
#include "base/log.h"
#include "comm/watch.h"

#include <sched.h>
#include <string.h>

#define SPIN_NS 200000 /* look without a sleep for this long */
#define NAP_NS  50000

_Static_assert(sizeof(ncclUniqueId) <= sizeof(comm_nccl_id_t), "an id's bytes");

base_status_t comm_nccl_failed(const comm_nccl_caller_t *who, ncclResult_t r, const char *call)
{
    return BASE_FAIL(who->ctx, BASE_ERR_COMM, BASE_MSG_COMM_04, "rank %d: %s: %s: %s", who->rank,
                     call, ncclGetErrorString(r), ncclGetLastError(NULL));
}

/* Until the communicator is not in progress any more; *r_p says how what it did went. */
static base_status_t await(const comm_nccl_caller_t *who, ncclComm_t comm, const char *call,
                           ncclResult_t *r_p)
{
    const int64_t start_ns = base_clock_ns();

    for (;;) {
        const int64_t waited_ns = base_clock_ns() - start_ns;
        const ncclResult_t asked = ncclCommGetAsyncError(comm, r_p);

        if (asked != ncclSuccess) return comm_nccl_failed(who, asked, "ncclCommGetAsyncError");
        if (*r_p != ncclInProgress) return BASE_OK;
        if (base_ctx_stop_requested(who->ctx)) return comm_watch_stopped(who->ctx);
        if (waited_ns > comm_watch_limit_ns(who->ctx))
            return BASE_FAIL(
                who->ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                "rank %d: %s: NCCL has not come back in %lld ms; not all ranks have come "
                "so far",
                who->rank, call, (long long)(waited_ns / 1000000));
        if (waited_ns < SPIN_NS)
            (void)sched_yield();
        else
            base_clock_sleep_ns(NAP_NS);
    }
}

base_status_t comm_nccl_settle(const comm_nccl_caller_t *who, ncclComm_t comm, ncclResult_t r,
                               const char *call)
{
    if (r == ncclInProgress) BASE_TRY(await(who, comm, call, &r));
    return r == ncclSuccess ? BASE_OK : comm_nccl_failed(who, r, call);
}

/* A split goes on behind the call, and *comm_p is written at its end, by a thread of NCCL. But it is not to be told
 * from what ncclCommSplit returns (ncclSuccess, in 2.28): the communicator that is split is in progress
 * meanwhile. BASE_PENDING: NCCL has none for this rank. */
static base_status_t split(const comm_nccl_caller_t *who, ncclComm_t met, ncclComm_t *comm_p)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;

    config.blocking = 1;
    config.splitShare = 0;
    ncclResult_t r = ncclCommSplit(met, 0, who->rank, comm_p, &config);
    if (r == ncclSuccess || r == ncclInProgress) BASE_TRY(await(who, met, "ncclCommSplit", &r));
    if (r == ncclSuccess && __atomic_load_n(comm_p, __ATOMIC_ACQUIRE) != NULL) return BASE_OK;
    base_log_warn(
        base_ctx_log(who->ctx), "nccl-split",
        "rank %d: ncclCommSplit: %s: %s: exchanges go through the communicator in which ranks "
        "met, which takes each some 70 us more",
        who->rank, ncclGetErrorString(r), r == ncclSuccess ? "" : ncclGetLastError(NULL));
    return BASE_PENDING;
}

/* The communicator that is split ends first, also in an error: that ends what it does, and a thread of NCCL then writes
 * no handle any more. */
base_status_t comm_nccl_meet(const comm_nccl_caller_t *who, int size, const comm_nccl_id_t *id,
                             comm_nccl_way_t way, ncclComm_t *comm_p)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId native;
    ncclComm_t met = NULL, direct = NULL;

    memcpy(&native, id->bytes, sizeof native);
    config.blocking = 0;
    const ncclResult_t r = ncclCommInitRankConfig(&met, size, native, who->rank, &config);
    base_status_t st = comm_nccl_settle(who, met, r, "ncclCommInitRankConfig");
    if (st >= 0 && way == COMM_NCCL_AS_MET) {
        *comm_p = met;
        return BASE_OK;
    }
    if (st >= 0) st = split(who, met, &direct);
    if (st == BASE_OK) {
        (void)ncclCommDestroy(met);
        *comm_p = direct;
        return BASE_OK;
    }
    (void)ncclCommAbort(met);    /* NULL is legal */
    (void)ncclCommAbort(direct); /* likewise */
    return st;
}
