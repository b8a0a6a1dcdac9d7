#include "comm/nccl_link.h"

static base_status_t none(base_ctx_t *ctx)
{
    return BASE_FAIL(ctx, BASE_ERR_UNSUPPORTED, BASE_MSG_COMM_06,
                     "transport nccl is not in this program, which was built without NCCL");
}

int comm_nccl_link_carries(base_device_kind_t kind)
{
    (void)kind;
    return 0;
}

base_status_t comm_nccl_link_id(base_ctx_t *ctx, comm_nccl_id_t *id)
{
    (void)id;
    return none(ctx);
}

base_status_t comm_nccl_link_open(base_device_t *dev, int rank, int size, const comm_nccl_id_t *id,
                                  comm_nccl_way_t way, comm_nccl_link_t **link_p)
{
    (void)rank;
    (void)size;
    (void)id;
    (void)way;
    (void)link_p;
    return none(base_device_ctx(dev));
}

base_status_t comm_nccl_link_move(comm_nccl_link_t *link, base_stream_t *stream,
                                  const comm_nccl_piece_t *pieces, int num)
{
    (void)link;
    (void)pieces;
    (void)num;
    return none(base_device_ctx(base_stream_device(stream)));
}

base_status_t comm_nccl_link_check(comm_nccl_link_t *link)
{
    (void)link;
    return BASE_OK;
}

void comm_nccl_link_abort(comm_nccl_link_t *link)
{
    (void)link;
}

void comm_nccl_link_close(comm_nccl_link_t *link)
{
    (void)link;
}
