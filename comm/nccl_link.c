/* The calls of NCCL. */
#include "comm/nccl_meet.h"

#include "base/device/device_host.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

struct comm_nccl_link {
    comm_nccl_caller_t who;
    ncclComm_t comm; /* NULL: aborted */
};

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
 * it moves): 32 over the number of ranks, and from there on twice as many, to at most 32, while a channel's part
 * exceeds 32 chunks. By default (512 KiB) that is 8 channels between two of four ranks up to 128 MiB, and 16 between two
 * of two up to 256 MiB; a direction's worth of NVLink takes 8 to 12, so that both directions at once go at half the rate, and
 * at three quarters. With 96 KiB a message has 32 channels beyond 48 MiB. */
static void set_environment(void)
{
    (void)setenv("NCCL_NVLS_ENABLE", "0", 0);
    (void)setenv("NCCL_P2P_NVL_CHUNKSIZE", "98304", 0);
}

base_status_t comm_nccl_link_id(base_ctx_t *ctx, comm_nccl_id_t *id)
{
    const comm_nccl_caller_t who = {.ctx = ctx, .rank = base_ctx_rank(ctx)};
    ncclUniqueId native;

    set_environment();
    const ncclResult_t r = ncclGetUniqueId(&native);
    if (r != ncclSuccess) return comm_nccl_failed(&who, r, "ncclGetUniqueId");
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
                                  comm_nccl_way_t way, comm_nccl_link_t **link_p)
{
    base_ctx_t *ctx = base_device_ctx(dev);
    base_stream_t *stream = NULL;
    base_status_t st;
    comm_nccl_link_t *link = base_calloc(ctx, 1, sizeof *link, "NCCL communicator");

    if (link == NULL) return BASE_ERR_NOMEM;
    link->who = (comm_nccl_caller_t){.ctx = ctx, .rank = rank};
    set_environment();
    BASE_TRY_GOTO(base_stream_create(dev, BASE_STREAM_ASYNC, "nccl", &stream), st, out);
    BASE_TRY_GOTO(enter(stream), st, out);
    st = comm_nccl_meet(&link->who, size, id, way, &link->comm);
out:
    base_stream_destroy(stream);
    if (st == BASE_OK) {
        base_memory_count_open(base_ctx_memory(ctx), BASE_RESOURCE_COMM);
        *link_p = link;
    } else {
        base_free(ctx, link);
    }
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
    if (r != ncclSuccess) return comm_nccl_failed(&link->who, r, "ncclGroupStart");
    for (int i = 0; i < num && (r == ncclSuccess || r == ncclInProgress); i++) {
        void *at = base_mem_address(pieces[i].mem);
        const size_t bytes = (size_t)pieces[i].bytes;

        r = pieces[i].is_send ? ncclSend(at, bytes, ncclChar, pieces[i].peer, link->comm, native)
                              : ncclRecv(at, bytes, ncclChar, pieces[i].peer, link->comm, native);
    }
    /* The group is ended in any case; its result is that of all of it. */
    const ncclResult_t ended = ncclGroupEnd();
    if (r != ncclSuccess && r != ncclInProgress)
        return comm_nccl_failed(&link->who, r, "ncclSend or ncclRecv");
    return comm_nccl_settle(&link->who, link->comm, ended, "ncclGroupEnd");
}

base_status_t comm_nccl_link_check(comm_nccl_link_t *link)
{
    ncclResult_t r = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(link->comm, &r);

    if (asked != ncclSuccess) return comm_nccl_failed(&link->who, asked, "ncclCommGetAsyncError");
    return r == ncclSuccess || r == ncclInProgress ? BASE_OK
                                                   : comm_nccl_failed(&link->who, r, "a transfer");
}

void comm_nccl_link_abort(comm_nccl_link_t *link)
{
    if (link == NULL || link->comm == NULL) return;
    (void)ncclCommAbort(link->comm);
    base_memory_count_close(base_ctx_memory(link->who.ctx), BASE_RESOURCE_COMM);
    link->comm = NULL;
}

void comm_nccl_link_close(comm_nccl_link_t *link)
{
    if (link == NULL) return;
    if (link->comm != NULL) {
        const base_status_t st = comm_nccl_settle(&link->who, link->comm,
                                                  ncclCommFinalize(link->comm), "ncclCommFinalize");

        (void)st; /* recorded; the communicator goes all the same */
        (void)ncclCommDestroy(link->comm);
        base_memory_count_close(base_ctx_memory(link->who.ctx), BASE_RESOURCE_COMM);
    }
    base_free(link->who.ctx, link);
}
