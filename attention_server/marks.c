#include "attention_server/marks.h"

#include "base/device/stream_mark.h"

const char *as_leg_name(as_leg_t leg, data_half_t half)
{
    static const char *const NAMES[AS_NUM_LEGS][DATA_NUM_HALVES] = {
        [AS_FWD_OUT] = {"q,k,v of ping", "q,k,v of pong"},
        [AS_FWD_BACK] = {"o of ping", "o of pong"},
        [AS_BWD_OUT] = {"d_o of ping", "d_o of pong"},
        [AS_BWD_BACK] = {"dq,dk,dv of ping", "dq,dk,dv of pong"}};

    return NAMES[leg][half];
}

/* The same number on both sides; below 2^53, which is all that JSON readers keep. */
static int64_t arrow(const as_attention_t *at, data_half_t half, int32_t layer, as_leg_t leg,
                     int32_t from, int32_t to)
{
    int64_t id = at->batch->microbatch;

    id = id * at->config.num_layers + layer;
    id = (id * AS_NUM_LEGS + leg) * DATA_NUM_HALVES + half;
    return (id * at->topology->num_ranks + from) * at->topology->num_ranks + to;
}

base_status_t as_mark_sent(as_attention_t *at, data_half_t half, int32_t layer, as_leg_t leg)
{
    const as_exchange_t *e = &as_layer_schedule(at, layer)->legs[half][leg];
    const as_peer_span_t *spans = e->peers.items;

    if (base_ctx_trace(at->ctx) == NULL) return BASE_OK;
    for (int64_t p = 0; p < e->peers.count; p++) {
        if (spans[p].num_send == 0) continue;
        BASE_TRY(base_stream_flow_start(
            at->compute, as_leg_name(leg, half),
            arrow(at, half, layer, leg, base_ctx_rank(at->ctx), spans[p].rank)));
    }
    return BASE_OK;
}

static base_status_t end_arrow(as_attention_t *at, data_half_t half, int32_t layer, as_leg_t leg,
                               int32_t from)
{
    return base_stream_flow_finish(at->compute, as_leg_name(leg, half),
                                   arrow(at, half, layer, leg, from, base_ctx_rank(at->ctx)));
}

base_status_t as_mark_results(as_attention_t *at, data_half_t half)
{
    const as_half_state_t *state = &at->half[half];
    const as_leg_t leg = state->direction == AS_FORWARD ? AS_FWD_BACK : AS_BWD_BACK;
    const as_exchange_t *e = &as_layer_schedule(at, state->layer)->legs[half][leg];
    const as_peer_span_t *spans = e->peers.items;

    if (base_ctx_trace(at->ctx) == NULL) return BASE_OK;
    for (int64_t p = 0; p < e->peers.count; p++)
        if (spans[p].num_recv > 0) BASE_TRY(end_arrow(at, half, state->layer, leg, spans[p].rank));
    return BASE_OK;
}

static base_status_t end_inputs(as_attention_t *at, const as_wait_t *waits, int64_t count,
                                int32_t layer, as_leg_t leg)
{
    if (base_ctx_trace(at->ctx) == NULL) return BASE_OK;
    for (int64_t w = 0; w < count; w++) {
        as_half_state_t *state = &at->half[waits[w].half];

        if (state->arrows[waits[w].peer]) continue;
        state->arrows[waits[w].peer] = 1;
        BASE_TRY(end_arrow(at, (data_half_t)waits[w].half, layer, leg, waits[w].peer));
    }
    return BASE_OK;
}

base_status_t as_mark_launch(as_attention_t *at, const as_schedule_t *s, const as_launch_t *launch,
                             int32_t layer, as_direction_t direction)
{
    static const char *const KEYS[BASE_TRACE_NOTES] = {"layer", "microbatch", "tasks", "owner"};
    static const char *const NAMES[DATA_NUM_HALVES][2] = {
        [DATA_PING] = {[AS_FORWARD] = "tasks ping forward", [AS_BACKWARD] = "tasks ping backward"},
        [DATA_PONG] = {[AS_FORWARD] = "tasks pong forward", [AS_BACKWARD] = "tasks pong backward"}};
    const as_launch_key_t *key = (const as_launch_key_t *)s->launch_keys.items + launch->first_task;
    const base_trace_note_t note = {
        .part = BASE_PART_ATTENTION,
        .keys = KEYS,
        .values = {layer, at->batch->microbatch, launch->num_tasks, key->owner}};
    const int forward = direction == AS_FORWARD;

    BASE_TRY(base_stream_begin(at->compute, NAMES[launch->half][direction], &note));
    return end_inputs(at,
                      (const as_wait_t *)s->waits.items +
                          (forward ? launch->first_wait : launch->first_bwd_wait),
                      forward ? launch->num_waits : launch->num_bwd_waits, layer,
                      forward ? AS_FWD_OUT : AS_BWD_OUT);
}

base_status_t as_mark_launched(as_attention_t *at)
{
    return base_stream_end(at->compute);
}
