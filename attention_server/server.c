/* The server's side: run this rank's tasks of a half on the compute stream and send the results
 * back. */
#include "attention_server/marks.h"

/* Keys that are here already go to the runs that need them beside remote ones. */
static base_status_t copy_local_keys(as_attention_t *at, const as_schedule_t *s, data_half_t half,
                                     int32_t layer, as_direction_t direction)
{
    const as_local_copy_t *copies = s->copies.items;
    for (int64_t i = 0; i < s->copies.count; i++) {
        const as_local_copy_t *c = &copies[i];
        if ((direction == AS_FORWARD ? c->half : c->backward_half) != (int)half) continue;
        const base_mem_t to = as_region_mem(at, c->half, (as_region_t)c->to_region, layer);
        for (int v = 0; v < 2; v++) {
            const base_mem_t from =
                as_region_mem(at, c->half, v ? AS_REGION_V : AS_REGION_K, layer);
            const base_range_t src = {base_mem_at(from, c->from), c->row_bytes, c->rows,
                                      c->from_pitch};
            const base_range_t dst = {base_mem_at(to, v ? c->to_v : c->to), c->row_bytes, c->rows,
                                      c->to_pitch};
            BASE_TRY(base_copy(at->compute, &dst, &src));
        }
    }
    return BASE_OK;
}

static base_status_t wait_for_inputs(as_attention_t *at, const as_schedule_t *s, int64_t first,
                                     int64_t count)
{
    const as_wait_t *waits = (const as_wait_t *)s->waits.items + first;
    for (int64_t w = 0; w < count; w++)
        BASE_TRY(comm_exchange_arrived(at->group, at->half[waits[w].half].out, waits[w].peer,
                                       at->compute));
    return BASE_OK;
}

/* Bases of a launch: the trainer's tensors of the half, the staged pieces, or the retained ones. */
typedef struct launch_bases {
    base_mem_t q, k, v, o, lse, d_o, delta, dq;
    base_mem_t dk, dv, dk_real, dv_real;
} launch_bases_t;

static launch_bases_t bases_of(const as_attention_t *at, const as_schedule_t *s,
                               const as_launch_t *launch, int32_t layer)
{
    const int half = launch->half;
    const base_mem_t scratch = as_region_mem(at, half, AS_REGION_SCRATCH, layer);
    const base_mem_t keep = as_region_mem(at, half, AS_REGION_KEEP, layer);
    const base_mem_t *tensors = at->bases.mem[half];
    launch_bases_t b;
    if (launch->remote) {
        b.q = b.lse = launch->retained ? keep : scratch;
        b.o = b.d_o = b.delta = b.dq = scratch;
    } else {
        b.q = tensors[AS_REGION_Q];
        b.lse = tensors[AS_REGION_LSE];
        b.o = tensors[AS_REGION_O];
        b.d_o = tensors[AS_REGION_D_O];
        b.delta = tensors[AS_REGION_DELTA];
        b.dq = tensors[AS_REGION_DQ];
    }
    b.dk = b.dk_real = scratch;
    b.dv = b.dv_real = base_mem_at(scratch, s->partial_stride);
    if (launch->kv_region == AS_REGION_K) {
        b.k = tensors[AS_REGION_K];
        b.v = tensors[AS_REGION_V];
        b.dk_real = tensors[AS_REGION_DK];
        b.dv_real = tensors[AS_REGION_DV];
    } else {
        const int kept = launch->kv_region == AS_REGION_KEEP;
        b.k = kept ? keep : scratch;
        b.v = base_mem_at(b.k, kept ? s->keep_stride : s->run_stride);
    }
    return b;
}

static base_status_t run_launch(as_attention_t *at, const as_schedule_t *s,
                                const as_launch_t *launch, int32_t layer, as_direction_t direction)
{
    const launch_bases_t b = bases_of(at, s, launch, layer);
    const kern_attention_task_t *tasks =
        (const kern_attention_task_t *)s->kernel_tasks.items + launch->first_task;
    if (direction == AS_FORWARD) {
        BASE_TRY(wait_for_inputs(at, s, launch->first_wait, launch->num_waits));
        BASE_TRY(as_mark_launch(at, s, launch, layer, direction));
        const kern_attention_fwd_t fwd = {.dtype = at->config.dtype,
                                          .group = at->shape.group,
                                          .head_dim = at->shape.head_dim,
                                          .window = s->plan->window,
                                          .scale = at->config.scale,
                                          .num_tasks = launch->num_tasks,
                                          .tasks = tasks,
                                          .q = b.q,
                                          .k = b.k,
                                          .v = b.v,
                                          .o = b.o,
                                          .lse = b.lse};
        BASE_TRY(kern_attention_fwd_run(at->compute, &fwd));
        return as_mark_launched(at);
    }
    BASE_TRY(wait_for_inputs(at, s, launch->first_bwd_wait, launch->num_bwd_waits));
    BASE_TRY(as_mark_launch(at, s, launch, layer, direction));
    const kern_attention_bwd_t bwd = {.dtype = at->config.dtype,
                                      .group = at->shape.group,
                                      .head_dim = at->shape.head_dim,
                                      .window = s->plan->window,
                                      .scale = at->config.scale,
                                      .num_tasks = launch->num_tasks,
                                      .tasks = tasks,
                                      .q = b.q,
                                      .k = b.k,
                                      .v = b.v,
                                      .lse = b.lse,
                                      .d_o = b.d_o,
                                      .delta = b.delta,
                                      .dq = b.dq,
                                      .dk = b.dk,
                                      .dv = b.dv,
                                      .dk_real = b.dk_real,
                                      .dv_real = b.dv_real,
                                      .workspace = at->shape.workspace_bytes > 0
                                                       ? base_arena_mem(at->arena, at->workspace)
                                                       : (base_mem_t){0}};
    BASE_TRY(kern_attention_bwd_run(at->compute, &bwd));
    return as_mark_launched(at);
}

base_status_t as_attention_serve(as_attention_t *at, data_half_t half, int32_t layer,
                                 as_direction_t direction)
{
    as_half_state_t *state = &at->half[half];
    if (!state->open || state->served || state->layer != layer || state->direction != direction)
        return BASE_FAIL(at->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                         "attention: serve of layer %d without its begin", layer);
    const as_half_state_t *ping = &at->half[DATA_PING];
    if (half == DATA_PONG && (!ping->open || ping->layer != layer || ping->direction != direction ||
                              (direction == AS_FORWARD && !ping->served)))
        return BASE_FAIL(at->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                         "attention: pong of layer %d served before ping %s: its tail tasks read "
                         "ping's keys",
                         layer, direction == AS_FORWARD ? "was served" : "began");
    const as_schedule_t *s = as_layer_schedule(at, layer);
    BASE_TRY(comm_exchange_sent(at->group, state->back,
                                at->compute)); /* the staged results of the layer before */
    BASE_TRY(copy_local_keys(at, s, half, layer, direction));
    const as_launch_t *launches = s->launches.items;
    for (int64_t i = 0; i < s->launches.count; i++)
        if (launches[i].half == (int32_t)half)
            BASE_TRY(run_launch(at, s, &launches[i], layer, direction));
    if (direction == AS_BACKWARD) {
        const base_mem_t scratch = as_region_mem(at, (int)half, AS_REGION_SCRATCH, layer);
        BASE_TRY(as_run_sums(at, s, layer, &s->server_sums[half], &s->server_parts[half], scratch,
                             base_mem_at(scratch, s->partial_stride)));
    }
    state->served = 1;
    return as_exchange_leg(at, half, layer, direction == AS_FORWARD ? AS_FWD_BACK : AS_BWD_BACK,
                           &state->back);
}
