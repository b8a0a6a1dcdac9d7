/* The trainer's side: hand a half's tensors over, take the results back. */
#include "attention_server/marks.h"

static const char *half_name(data_half_t half)
{
    return half == DATA_PING ? "ping" : "pong";
}

/* Zeroes `lane` bytes per row and KV head of the pad rows of a head-group-major tensor. */
static base_status_t zero_head_pads(as_attention_t *at, const as_list_t *pads, base_mem_t mem,
                                    int64_t lane)
{
    const as_pad_t *pad = pads->items;
    for (int64_t i = 0; i < pads->count; i++) {
        const base_range_t range = {base_mem_at(mem, pad[i].row * lane), pad[i].rows * lane,
                                    at->shape.num_kv_heads, at->shape.head_rows * lane};
        BASE_TRY(base_fill(at->compute, &range, 0));
    }
    return BASE_OK;
}

static base_status_t zero_row_pads(as_attention_t *at, const as_list_t *pads, base_mem_t mem)
{
    const as_pad_t *pad = pads->items;
    const int64_t width =
        (int64_t)at->config.num_q_heads * at->config.head_dim * at->shape.real_bytes;
    const int64_t pitch = at->shape.o_pitch * at->shape.real_bytes;
    for (int64_t i = 0; i < pads->count; i++) {
        const base_range_t range = {base_mem_at(mem, pad[i].row * pitch), width, pad[i].rows,
                                    pitch};
        BASE_TRY(base_fill(at->compute, &range, 0));
    }
    return BASE_OK;
}

static base_status_t begin_backward(as_attention_t *at, data_half_t half, const as_schedule_t *s,
                                    const as_tensors_t *t)
{
    const as_shape_t *sh = &at->shape;
    const as_list_t *pads = &s->pads[half];
    const int64_t rows =
        at->batch->trainer_rows[at->topology->rank_trainer[base_ctx_rank(at->ctx)]];
    const int64_t width = (int64_t)at->config.num_q_heads * at->config.head_dim,
                  lane = sh->head_dim * sh->real_bytes;
    BASE_TRY(zero_head_pads(at, pads, t->dq, sh->group * lane));
    BASE_TRY(zero_head_pads(at, pads, t->dk, lane));
    BASE_TRY(zero_head_pads(at, pads, t->dv, lane));
    const kern_attention_delta_t delta = {
        .d_o = kern_mat(t->d_o, rows, width, sh->d_o_pitch, at->config.dtype),
        .o = kern_mat(t->o, rows, width, sh->o_pitch, at->config.dtype),
        .delta = at->bases.mem[half][AS_REGION_DELTA],
        .head_rows = sh->head_rows,
        .num_q_heads = at->config.num_q_heads,
        .num_kv_heads = at->config.num_kv_heads,
        .head_dim = at->config.head_dim};
    return rows > 0 ? kern_attention_delta_run(at->compute, &delta) : BASE_OK;
}

static void keep_tensors(as_attention_t *at, data_half_t half, const as_tensors_t *t)
{
    base_mem_t *mem = at->bases.mem[half];
    mem[AS_REGION_Q] = t->q;
    mem[AS_REGION_K] = t->k;
    mem[AS_REGION_V] = t->v;
    mem[AS_REGION_O] = t->o;
    mem[AS_REGION_LSE] = t->lse;
    mem[AS_REGION_D_O] = t->d_o;
    mem[AS_REGION_DQ] = t->dq;
    mem[AS_REGION_DK] = t->dk;
    mem[AS_REGION_DV] = t->dv;
}

base_status_t as_attention_begin(as_attention_t *at, data_half_t half, int32_t layer,
                                 as_direction_t direction, const as_tensors_t *tensors)
{
    as_half_state_t *state = &at->half[half];
    if (at->installed == 0 || layer < 0 || layer >= at->config.num_layers)
        return BASE_FAIL(at->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "attention: begin of layer %d of %d, %lld microbatches installed", layer,
                         at->config.num_layers, (long long)at->installed);
    if (state->open)
        return BASE_FAIL(at->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                         "attention: begin of %s layer %d while layer %d is open", half_name(half),
                         layer, state->layer);
    const int trains = at->topology->rank_trainer[base_ctx_rank(at->ctx)] >= 0;
    if (trains != (tensors != NULL))
        return BASE_FAIL(at->ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "attention: a %s gave %s tensors",
                         trains ? "trainer" : "pool rank", trains ? "no" : "its");
    const as_schedule_t *s = as_layer_schedule(at, layer);
    /* The backward receives lse where the forward may still be sending it from. */
    if (state->direction != direction)
        BASE_TRY(comm_exchange_sent(at->group, state->back, at->compute));
    if (trains) {
        keep_tensors(at, half, tensors);
        if (direction == AS_FORWARD)
            BASE_TRY(zero_row_pads(at, &s->pads[half], tensors->o));
        else
            BASE_TRY(begin_backward(at, half, s, tensors));
    }
    state->open = 1;
    state->served = 0;
    state->layer = layer;
    state->direction = direction;
    return as_exchange_leg(at, half, layer, direction == AS_FORWARD ? AS_FWD_OUT : AS_BWD_OUT,
                           &state->out);
}

base_status_t as_run_sums(as_attention_t *at, const as_schedule_t *s, int32_t layer,
                          const as_list_t *sums, const as_list_t *parts, base_mem_t dk,
                          base_mem_t dv)
{
    const base_mem_t scratch = as_region_mem(at, DATA_PING, AS_REGION_SCRATCH, layer);
    kern_partial_sum_t sum = {.dtype = at->config.dtype,
                              .num_sums = sums->count,
                              .num_parts = parts->count,
                              .sums = sums->items,
                              .parts = parts->items,
                              .dst = dk,
                              .src = scratch,
                              .src_real = scratch};
    if (sum.num_sums == 0) return BASE_OK;
    BASE_TRY(kern_partial_sum_run(at->compute, &sum));
    sum.dst = dv;
    sum.src = sum.src_real = base_mem_at(scratch, s->partial_stride);
    return kern_partial_sum_run(at->compute, &sum);
}

base_status_t as_attention_settle(as_attention_t *at, data_half_t half)
{
    const as_half_state_t *state = &at->half[half];
    const comm_ticket_t last = state->served ? state->back : state->out;

    return comm_exchange_complete(at->group, last, at->compute);
}

base_status_t as_attention_finish(as_attention_t *at, data_half_t half)
{
    as_half_state_t *state = &at->half[half];
    if (!state->open || !state->served)
        return BASE_FAIL(at->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                         "attention: finish of %s, which was not %s", half_name(half),
                         state->open ? "served" : "begun");
    if (state->direction == AS_BACKWARD && half == DATA_PING && at->half[DATA_PONG].open &&
        at->half[DATA_PONG].direction == AS_BACKWARD && at->half[DATA_PONG].layer >= state->layer)
        return BASE_FAIL(
            at->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
            "attention: backward of ping layer %d finished before pong, whose tail tasks add to it",
            state->layer);
    const as_half_state_t *pong = &at->half[DATA_PONG];
    if (half == DATA_PING && pong->open && !pong->served && pong->layer == state->layer &&
        pong->direction == state->direction)
        return BASE_FAIL(at->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                         "attention: ping of layer %d finished before pong was served, whose tail "
                         "tasks read its keys",
                         state->layer);
    BASE_TRY(comm_exchange_arrived_all(at->group, state->back, at->compute));
    BASE_TRY(comm_exchange_sent(at->group, state->out, at->compute));
    BASE_TRY(as_mark_results(at, half));
    state->open = 0;
    if (state->direction == AS_FORWARD) return BASE_OK;
    /* Of all partial sums. Those of pong's tasks over ping's rows arrived with pong, which is
     * finished first. */
    const as_schedule_t *s = as_layer_schedule(at, state->layer);
    return as_run_sums(at, s, state->layer, &s->sums[half], &s->parts[half],
                       at->bases.mem[half][AS_REGION_DK], at->bases.mem[half][AS_REGION_DV]);
}
