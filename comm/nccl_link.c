/* The calls of NCCL. */
#include "comm/nccl_link.h"

#include "base/clock.h"
#include "base/device/device_host.h"
#include "base/memory.h"
#include "comm/watch.h"

#include <nccl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define SPIN_NS 200000 /* look without a sleep for this long */
#define NAP_NS  50000

struct comm_nccl_link {
    base_ctx_t *ctx;
    int rank;
    ncclComm_t meeting; /* non-blocking; while the link is opened */
    ncclComm_t comm;    /* NULL: aborted, or never made */
};

_Static_assert(sizeof(ncclUniqueId) <= sizeof(comm_nccl_id_t), "an id's bytes");

static base_status_t failed(const comm_nccl_link_t *link, ncclResult_t r, const char *call)
{
    return BASE_FAIL(link->ctx, BASE_ERR_COMM, BASE_MSG_COMM_04, "rank %d: %s: %s: %s", link->rank,
                     call, ncclGetErrorString(r), ncclGetLastError(NULL));
}

/* Calls of a non-blocking communicator go on behind the call; nothing else may be asked of it until
 * they are through. */
static base_status_t settle(const comm_nccl_link_t *link, ncclComm_t comm, ncclResult_t r,
                            const char *call)
{
    const int64_t start_ns = base_clock_ns();

    while (r == ncclInProgress) {
        const int64_t waited_ns = base_clock_ns() - start_ns;
        const ncclResult_t asked = ncclCommGetAsyncError(comm, &r);

        if (asked != ncclSuccess) return failed(link, asked, "ncclCommGetAsyncError");
        if (r != ncclInProgress) break;
        if (base_ctx_stop_requested(link->ctx)) return comm_watch_stopped(link->ctx);
        if (waited_ns > comm_watch_limit_ns(link->ctx))
            return BASE_FAIL(
                link->ctx, BASE_ERR_TIMEOUT, BASE_MSG_COMM_02,
                "rank %d: %s: NCCL has not come back in %lld ms; not all ranks have come "
                "so far",
                link->rank, call, (long long)(waited_ns / 1000000));
        if (waited_ns < SPIN_NS)
            (void)sched_yield();
        else
            base_clock_sleep_ns(NAP_NS);
    }
    return r == ncclSuccess ? BASE_OK : failed(link, r, call);
}

int comm_nccl_link_carries(base_device_kind_t kind)
{
    return kind == BASE_DEVICE_CUDA;
}

/* Settings of NCCL that only its environment has, for all communicators of the process; what the user has
 * set stays.
 *
 * NCCL_NVLS_ENABLE: multicast objects need rights that containers often lack, and only collectives, of which
 * there are none here, gain by them.
 *
 * NCCL_P2P_NVL_CHUNKSIZE: a message is spread over a number of channels (a multiprocessor each, while
 * it moves) that doubles, to at most 32, while a channel's part exceeds 32 chunks. By default (512 KiB)
 * a message between two of four ranks has 8 channels up to 128 MiB, which is one direction's worth
 * of NVLink: both directions at once go at half the rate. With 192 KiB it has 16 beyond 48 MiB. */
static void set_environment(void)
{
    (void)setenv("NCCL_NVLS_ENABLE", "0", 0);
    (void)setenv("NCCL_P2P_NVL_CHUNKSIZE", "196608", 0);
}

base_status_t comm_nccl_link_id(base_ctx_t *ctx, comm_nccl_id_t *id)
{
    const comm_nccl_link_t none = {.ctx = ctx, .rank = base_ctx_rank(ctx)};
    ncclUniqueId native;

    set_environment();
    const ncclResult_t r = ncclGetUniqueId(&native);
    if (r != ncclSuccess) return failed(&none, r, "ncclGetUniqueId");
    memset(id, 0, sizeof *id);
    memcpy(id->bytes, &native, sizeof native);
    return BASE_OK;
}

/* A communicator belongs to the GPU that is current; so does every call on it. */
static base_status_t enter(base_stream_t *stream)
{
    if (base_stream_native(stream) != NULL) return BASE_OK;
    return BASE_FAIL(base_device_ctx(base_stream_device(stream)), BASE_ERR_UNSUPPORTED,
                     BASE_MSG_COMM_06, "transport nccl on %s",
                     base_device_name(base_stream_device(stream)));
}

static void end_meeting(comm_nccl_link_t *link, base_status_t st)
{
    if (link->meeting != NULL && st >= 0) (void)ncclCommDestroy(link->meeting);
    if (link->meeting != NULL && st < 0) (void)ncclCommAbort(link->meeting);
    link->meeting = NULL;
}

/* Ranks meet in a non-blocking communicator, since nobody knows whether all will come. But every group
 * that is given to such a one is launched by a thread of its own, which takes 70 us; so exchanges go
 * through a blocking one that is split off, whose groups are launched within the call. */
static base_status_t meet(comm_nccl_link_t *link, int size, const comm_nccl_id_t *id)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId native;

    memcpy(&native, id->bytes, sizeof native);
    config.blocking = 0;
    const ncclResult_t met =
        ncclCommInitRankConfig(&link->meeting, size, native, link->rank, &config);
    BASE_TRY(settle(link, link->meeting, met, "ncclCommInitRankConfig"));
    config.blocking = 1;
    config.splitShare = 0;
    const ncclResult_t split = ncclCommSplit(link->meeting, 0, link->rank, &link->comm, &config);
    return settle(link, link->meeting, split, "ncclCommSplit");
}

base_status_t comm_nccl_link_open(base_device_t *dev, int rank, int size, const comm_nccl_id_t *id,
                                  comm_nccl_link_t **link_p)
{
    base_ctx_t *ctx = base_device_ctx(dev);
    base_stream_t *stream = NULL;
    base_status_t st;
    comm_nccl_link_t *link = base_calloc(ctx, 1, sizeof *link, "NCCL communicator");

    if (link == NULL) return BASE_ERR_NOMEM;
    link->ctx = ctx;
    link->rank = rank;
    set_environment();
    BASE_TRY_GOTO(base_stream_create(dev, BASE_STREAM_ASYNC, "nccl", &stream), st, out);
    BASE_TRY_GOTO(enter(stream), st, out);
    st = meet(link, size, id);
out:
    base_stream_destroy(stream);
    end_meeting(link, st);
    if (st >= 0) {
        base_memory_count_open(base_ctx_memory(ctx), BASE_RESOURCE_COMM);
        *link_p = link;
        return BASE_OK;
    }
    if (link->comm != NULL) (void)ncclCommAbort(link->comm);
    base_free(ctx, link);
    return st;
}

base_status_t comm_nccl_link_move(comm_nccl_link_t *link, base_stream_t *stream,
                                  const comm_nccl_piece_t *pieces, int num)
{
    const cudaStream_t native = base_stream_native(stream);
    ncclResult_t r;

    if (num == 0) return BASE_OK;
    BASE_TRY(enter(stream));
    r = ncclGroupStart();
    if (r != ncclSuccess) return failed(link, r, "ncclGroupStart");
    for (int i = 0; i < num && (r == ncclSuccess || r == ncclInProgress); i++) {
        void *at = base_mem_address(pieces[i].mem);
        const size_t bytes = (size_t)pieces[i].bytes;

        r = pieces[i].is_send ? ncclSend(at, bytes, ncclChar, pieces[i].peer, link->comm, native)
                              : ncclRecv(at, bytes, ncclChar, pieces[i].peer, link->comm, native);
    }
    /* The group is ended in any case; its result is that of all of it. */
    const ncclResult_t ended = ncclGroupEnd();
    if (r != ncclSuccess && r != ncclInProgress) return failed(link, r, "ncclSend or ncclRecv");
    return settle(link, link->comm, ended, "ncclGroupEnd");
}

base_status_t comm_nccl_link_check(comm_nccl_link_t *link)
{
    ncclResult_t r = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(link->comm, &r);

    if (asked != ncclSuccess) return failed(link, asked, "ncclCommGetAsyncError");
    return r == ncclSuccess || r == ncclInProgress ? BASE_OK : failed(link, r, "a transfer");
}

void comm_nccl_link_abort(comm_nccl_link_t *link)
{
    if (link == NULL || link->comm == NULL) return;
    (void)ncclCommAbort(link->comm);
    base_memory_count_close(base_ctx_memory(link->ctx), BASE_RESOURCE_COMM);
    link->comm = NULL;
}

void comm_nccl_link_close(comm_nccl_link_t *link)
{
    if (link == NULL) return;
    if (link->comm != NULL) {
        (void)settle(link, link->comm, ncclCommFinalize(link->comm), "ncclCommFinalize");
        (void)ncclCommDestroy(link->comm);
        base_memory_count_close(base_ctx_memory(link->ctx), BASE_RESOURCE_COMM);
    }
    base_free(link->ctx, link);
}
