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
    ncclComm_t comm; /* NULL: aborted, or never made */
};

_Static_assert(sizeof(ncclUniqueId) <= sizeof(comm_nccl_id_t), "an id's bytes");

static base_status_t failed(const comm_nccl_link_t *link, ncclResult_t r, const char *call)
{
    return BASE_FAIL(link->ctx, BASE_ERR_COMM, BASE_MSG_COMM_04, "rank %d: %s: %s: %s", link->rank,
                     call, ncclGetErrorString(r),
                     link->comm != NULL ? ncclGetLastError(link->comm) : "no communicator");
}

/* Calls of a non-blocking communicator go on behind the call; nothing else may be asked of it until
 * they are through. */
static base_status_t settle(const comm_nccl_link_t *link, ncclResult_t r, const char *call)
{
    const int64_t start_ns = base_clock_ns();

    while (r == ncclInProgress) {
        const int64_t waited_ns = base_clock_ns() - start_ns;
        const ncclResult_t asked = ncclCommGetAsyncError(link->comm, &r);

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

base_status_t comm_nccl_link_id(base_ctx_t *ctx, comm_nccl_id_t *id)
{
    const comm_nccl_link_t none = {.ctx = ctx, .rank = base_ctx_rank(ctx)};
    ncclUniqueId native;

    /* Multicast objects need rights that containers often lack, and only collectives, of which there
     * are none here, gain by them. */
    (void)setenv("NCCL_NVLS_ENABLE", "0", 0);
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

base_status_t comm_nccl_link_open(base_device_t *dev, int rank, int size, const comm_nccl_id_t *id,
                                  comm_nccl_link_t **link_p)
{
    base_ctx_t *ctx = base_device_ctx(dev);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    base_stream_t *stream = NULL;
    ncclUniqueId native;
    base_status_t st;
    comm_nccl_link_t *link = base_calloc(ctx, 1, sizeof *link, "NCCL communicator");

    if (link == NULL) return BASE_ERR_NOMEM;
    link->ctx = ctx;
    link->rank = rank;
    config.blocking = 0;
    (void)setenv("NCCL_NVLS_ENABLE", "0", 0);
    memcpy(&native, id->bytes, sizeof native);
    BASE_TRY_GOTO(base_stream_create(dev, BASE_STREAM_ASYNC, "nccl", &stream), st, err_close);
    BASE_TRY_GOTO(enter(stream), st, err_close);
    BASE_TRY_GOTO(settle(link, ncclCommInitRankConfig(&link->comm, size, native, rank, &config),
                         "ncclCommInitRankConfig"),
                  st, err_close);
    base_memory_count_open(base_ctx_memory(ctx), BASE_RESOURCE_COMM);
    base_stream_destroy(stream);
    *link_p = link;
    return BASE_OK;
err_close:
    base_stream_destroy(stream);
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
    return settle(link, ended, "ncclGroupEnd");
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
        (void)settle(link, ncclCommFinalize(link->comm), "ncclCommFinalize");
        (void)ncclCommDestroy(link->comm);
        base_memory_count_close(base_ctx_memory(link->ctx), BASE_RESOURCE_COMM);
    }
    base_free(link->ctx, link);
}
