/* The public functions of a group: argument checks, then the transport's table. */
#include "comm/exchange.h"
#include "comm/transport.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>

base_status_t comm_group_init(comm_group_t *group, const comm_ops_t *ops, base_ctx_t *ctx,
                              base_device_t *dev, int rank, int size)
{
    group->ops = ops;
    group->ctx = ctx;
    group->dev = dev;
    group->rank = rank;
    group->size = size;
    group->hosts = NULL;
    group->reducer = NULL;
    for (int c = 0; c < COMM_NUM_CHANNELS; c++) {
        group->begun[c] = 0;
        group->passed[c] = NULL;
    }
    for (int c = 0; c < COMM_NUM_CHANNELS; c++)
        BASE_TRY(base_event_create(dev, &group->passed[c]));
    return comm_reducer_create(group, &group->reducer);
}

void comm_group_deinit(comm_group_t *group)
{
    comm_reducer_destroy(group, group->reducer);
    group->reducer = NULL;
    for (int c = 0; c < COMM_NUM_CHANNELS; c++) {
        base_event_destroy(group->passed[c]);
        group->passed[c] = NULL;
    }
}

const char *comm_channel_name(int channel)
{
    return channel == COMM_CHANNEL_PING   ? "ping"
           : channel == COMM_CHANNEL_PONG ? "pong"
                                          : "unknown";
}

int comm_group_rank(const comm_group_t *group)
{
    return group->rank;
}

int comm_group_size(const comm_group_t *group)
{
    return group->size;
}

const char *comm_group_transport(const comm_group_t *group)
{
    return group->ops->name;
}

const int32_t *comm_group_hosts(const comm_group_t *group)
{
    return group->hosts;
}

void comm_group_destroy(comm_group_t *group)
{
    if (group != NULL) group->ops->destroy(group);
}

/* ==== what is measured ==== */

base_trace_note_t comm_note(const comm_tag_t *tag, int peer, int64_t bytes)
{
    static const char *const KEYS[BASE_TRACE_NOTES] = {"layer", "microbatch", "peer", "bytes"};

    return (base_trace_note_t){.keys = KEYS, .values = {tag->layer, tag->microbatch, peer, bytes}};
}

void comm_trace_transfer(base_ctx_t *ctx, int channel, const char *name,
                         const base_trace_note_t *note, int64_t ready_ns)
{
    base_trace_t *trace = base_ctx_trace(ctx);
    const int lane = BASE_LANE_EXCHANGE + (int)note->values[2] * COMM_NUM_CHANNELS + channel;

    if (trace == NULL) return;
    base_trace_record(trace, BASE_TRACE_SPAN, lane, name != NULL ? name : "exchange", ready_ns,
                      base_clock_ns() - ready_ns, note);
}

void comm_trace_name_lanes(base_trace_t *trace, const comm_group_t *group)
{
    char name[BASE_TRACE_NAME_BYTES];

    for (int r = 0; r < group->size; r++)
        for (int c = 0; c < COMM_NUM_CHANNELS && r != group->rank; c++) {
            (void)snprintf(name, sizeof name, "from rank %d, %s", r, comm_channel_name(c));
            base_trace_name_lane(trace, BASE_LANE_EXCHANGE + r * COMM_NUM_CHANNELS + c, name);
        }
}

/* ==== exchanges ==== */

base_status_t comm_group_give_event(comm_group_t *group, int channel, comm_exchange_t *ex)
{
    if (ex->after == NULL) return BASE_OK;
    BASE_TRY(base_event_record(group->passed[channel], ex->after));
    ex->ready = group->passed[channel];
    ex->after = NULL;
    return BASE_OK;
}

base_status_t comm_exchange_begin(comm_group_t *group, int channel, const comm_exchange_t *ex,
                                  comm_ticket_t *ticket_p)
{
    comm_exchange_t given;
    uint64_t sequence = 0;

    if (channel < 0 || channel >= COMM_NUM_CHANNELS || ex == NULL || ticket_p == NULL)
        return BASE_FAIL(group->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "rank %d: exchange on channel %d of %d%s%s", group->rank, channel,
                         COMM_NUM_CHANNELS, ex == NULL ? ", no lists" : "",
                         ticket_p == NULL ? ", no place for the ticket" : "");
    BASE_TRY(comm_exchange_check(group->ctx, ex, group->rank, group->size));
    given = *ex;
    if (!group->ops->takes_after) BASE_TRY(comm_group_give_event(group, channel, &given));
    BASE_TRY(group->ops->begin(group, channel, &given, &sequence));
    group->begun[channel] = sequence;
    *ticket_p = (comm_ticket_t){.channel = channel, .sequence = sequence};
    return BASE_OK;
}

static base_status_t check_ticket(const comm_group_t *group, comm_ticket_t ticket,
                                  const base_stream_t *stream)
{
    if (ticket.channel < 0 || ticket.channel >= COMM_NUM_CHANNELS || stream == NULL)
        return BASE_FAIL(group->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "rank %d: ticket of channel %d of %d%s", group->rank, ticket.channel,
                         COMM_NUM_CHANNELS, stream == NULL ? ", no stream to wait" : "");
    if (ticket.sequence > group->begun[ticket.channel])
        return BASE_FAIL(group->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "rank %d: ticket of exchange %" PRIu64
                         " of channel %s; begun so far: %" PRIu64,
                         group->rank, ticket.sequence, comm_channel_name(ticket.channel),
                         group->begun[ticket.channel]);
    return BASE_OK;
}

/* Waits that run on the host account for themselves (base_stream_waited); those of a GPU's stream are
 * marked, and whether it was the rank or the data that was late is not known. */
static base_status_t begin_wait(base_stream_t *stream)
{
    const base_trace_note_t note = {.part = BASE_PART_EXCHANGE};

    if (base_device_kind(base_stream_device(stream)) != BASE_DEVICE_CUDA) return BASE_OK;
    return base_stream_begin(stream, "wait for the data", &note);
}

static base_status_t end_wait(base_stream_t *stream)
{
    if (base_device_kind(base_stream_device(stream)) != BASE_DEVICE_CUDA) return BASE_OK;
    return base_stream_end(stream);
}

base_status_t comm_exchange_arrived(comm_group_t *group, comm_ticket_t ticket, int peer,
                                    base_stream_t *stream)
{
    if (ticket.sequence == 0) return BASE_OK;
    BASE_TRY(check_ticket(group, ticket, stream));
    if (peer < 0 || peer >= group->size)
        return BASE_FAIL(group->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "rank %d: waits for rank %d; wanted 0..%d", group->rank, peer,
                         group->size - 1);
    BASE_TRY(begin_wait(stream));
    BASE_TRY(group->ops->arrived(group, ticket, peer, stream));
    return end_wait(stream);
}

base_status_t comm_exchange_arrived_all(comm_group_t *group, comm_ticket_t ticket,
                                        base_stream_t *stream)
{
    if (ticket.sequence == 0) return BASE_OK;
    BASE_TRY(check_ticket(group, ticket, stream));
    BASE_TRY(begin_wait(stream));
    BASE_TRY(group->ops->arrived_all(group, ticket, stream));
    return end_wait(stream);
}

base_status_t comm_exchange_sent(comm_group_t *group, comm_ticket_t ticket, base_stream_t *stream)
{
    if (ticket.sequence == 0) return BASE_OK;
    BASE_TRY(check_ticket(group, ticket, stream));
    BASE_TRY(begin_wait(stream));
    BASE_TRY(group->ops->sent(group, ticket, stream));
    return end_wait(stream);
}

base_status_t comm_exchange_complete(comm_group_t *group, comm_ticket_t ticket,
                                     base_stream_t *stream)
{
    if (ticket.sequence == 0) return BASE_OK;
    if (group->ops->complete == NULL) {
        BASE_TRY(comm_exchange_arrived_all(group, ticket, stream));
        return comm_exchange_sent(group, ticket, stream);
    }
    BASE_TRY(check_ticket(group, ticket, stream));
    BASE_TRY(begin_wait(stream));
    BASE_TRY(group->ops->complete(group, ticket, stream));
    return end_wait(stream);
}

/* ==== collectives ==== */

base_status_t comm_barrier(comm_group_t *group)
{
    return group->ops->barrier(group);
}

base_status_t comm_allgather(comm_group_t *group, const void *mine, int64_t bytes, void *all)
{
    if (bytes < 0 || (bytes > 0 && (mine == NULL || all == NULL)))
        return BASE_FAIL(group->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "rank %d: all-gather of %" PRId64 " bytes%s%s", group->rank, bytes,
                         mine == NULL ? ", nothing to give" : "", all == NULL ? ", no place" : "");
    return group->ops->allgather(group, mine, bytes, all);
}

void comm_group_stop(comm_group_t *group, const base_error_t *error)
{
    group->ops->stop(group, error);
}
