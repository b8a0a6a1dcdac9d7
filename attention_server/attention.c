/* Making the seam and installing microbatches. */
#include "attention_server/seam.h"

#include "base/clock.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

static base_status_t check_config(base_ctx_t *ctx, const as_attention_config_t *c)
{
    if (c->num_kv_heads <= 0 || c->num_q_heads <= 0 || c->num_q_heads % c->num_kv_heads != 0 ||
        c->head_dim <= 0)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "attention: %d query heads over %d KV heads of dim %d", c->num_q_heads,
                         c->num_kv_heads, c->head_dim);
    if (c->num_layers <= 0 || c->num_kinds <= 0 || c->num_kinds > AS_MAX_KINDS)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01, "attention: %d layers of %d kinds",
                         c->num_layers, c->num_kinds);
    const int64_t width = (int64_t)c->num_q_heads * c->head_dim;
    if (c->head_rows < c->max_rows || c->o_pitch < width || c->d_o_pitch < width)
        return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "attention: head_rows %lld, o_pitch %lld, d_o_pitch %lld for %lld rows of "
                         "%lld elements",
                         (long long)c->head_rows, (long long)c->o_pitch, (long long)c->d_o_pitch,
                         (long long)c->max_rows, (long long)width);
    for (int32_t l = 0; c->layer_kind != NULL && l < c->num_layers; l++)
        if (c->layer_kind[l] < 0 || c->layer_kind[l] >= c->num_kinds)
            return BASE_FAIL(ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                             "attention: layer %d has kind %d of %d", l, c->layer_kind[l],
                             c->num_kinds);
    return BASE_OK;
}

static base_status_t declare_memory(as_attention_t *at)
{
    const as_attention_config_t *c = &at->config;
    BASE_TRY(base_arena_declare(at->arena, "attention_server", "scratch", c->scratch_bytes,
                                BASE_LIFETIME_RUN, &at->scratch));
    BASE_TRY(base_arena_declare(at->arena, "attention_server", "retained", c->retain_bytes,
                                BASE_LIFETIME_RUN, &at->keep));
    const int serves = at->topology->rank_server[base_ctx_rank(at->ctx)] >= 0;
    BASE_TRY(base_arena_declare(at->arena, "attention_server", "workspace",
                                serves ? at->shape.workspace_bytes : 0, BASE_LIFETIME_RUN,
                                &at->workspace));
    const int trains = at->topology->rank_trainer[base_ctx_rank(at->ctx)] >= 0;
    const int64_t delta = trains ? c->num_q_heads * c->head_rows * at->shape.acc_bytes : 0;
    for (int half = 0; half < DATA_NUM_HALVES; half++)
        BASE_TRY(base_arena_declare(at->arena, "attention_server",
                                    half == DATA_PING ? "delta ping" : "delta pong", delta,
                                    BASE_LIFETIME_RUN, &at->delta[half]));
    return BASE_OK;
}

static base_status_t create_slot(as_attention_t *at, as_slot_t *slot)
{
    const as_attention_config_t *c = &at->config;
    for (int kind = 0; kind < c->num_kinds; kind++)
        as_schedule_init(&slot->schedules[kind], at->ctx, at->topology, &at->shape,
                         base_ctx_rank(at->ctx));
    for (int kind = 0; kind < c->num_kinds; kind++)
        BASE_TRY(as_schedule_reserve(&slot->schedules[kind], c->max_tasks));
    return base_event_create(at->dev, &slot->done);
}

/* What was begun and is not finished; waiting twice is nothing. */
static base_status_t settle_all(void *user)
{
    const as_attention_t *at = user;

    for (int half = 0; half < DATA_NUM_HALVES; half++) {
        const as_half_state_t *state = &at->half[half];
        const comm_ticket_t tickets[] = {state->out, state->back};

        for (int i = 0; i < 2; i++)
            BASE_TRY(comm_exchange_complete(at->group, tickets[i], at->compute));
    }
    return BASE_OK;
}

base_status_t as_attention_create(base_ctx_t *ctx, const as_attention_config_t *config,
                                  const as_topology_t *topology, comm_group_t *group,
                                  base_arena_t *arena, base_stream_t *compute,
                                  as_attention_t **attention_p)
{
    BASE_TRY(check_config(ctx, config));
    as_attention_t *at = base_calloc(ctx, 1, sizeof *at, "attention seam");
    if (at == NULL) return BASE_ERR_NOMEM;
    base_status_t st;
    at->ctx = ctx;
    at->config = *config;
    at->topology = topology;
    at->group = group;
    at->arena = arena;
    at->compute = compute;
    at->dev = base_stream_device(compute);
    at->shape = as_shape_of(config);
    at->layer_kind = base_calloc(ctx, config->num_layers, sizeof *at->layer_kind, "layer kinds");
    if (at->layer_kind == NULL) {
        st = BASE_ERR_NOMEM;
        goto err_destroy;
    }
    if (config->layer_kind != NULL)
        memcpy(at->layer_kind, config->layer_kind,
               (size_t)config->num_layers * sizeof *at->layer_kind);
    at->config.layer_kind = at->layer_kind;
    BASE_TRY_GOTO(declare_memory(at), st, err_destroy);
    for (int i = 0; i < 2; i++)
        BASE_TRY_GOTO(create_slot(at, &at->slots[i]), st, err_destroy);
    BASE_TRY_GOTO(as_lists_create(at), st, err_destroy);
    base_stream_on_settle(compute, settle_all, at);
    *attention_p = at;
    return BASE_OK;
err_destroy:
    as_attention_destroy(at);
    return st;
}

void as_attention_destroy(as_attention_t *at)
{
    if (at == NULL) return;
    base_stream_on_settle(at->compute, NULL, NULL);
    as_lists_destroy(at);
    for (int i = 0; i < 2; i++) {
        as_slot_t *slot = &at->slots[i];
        base_event_destroy(slot->done);
        for (int kind = 0; kind < at->config.num_kinds; kind++)
            as_schedule_deinit(&slot->schedules[kind]);
    }
    base_free(at->ctx, at->layer_kind);
    base_free(at->ctx, at);
}

base_status_t as_attention_drain(as_attention_t *at)
{
    for (int half = 0; half < DATA_NUM_HALVES; half++) {
        if (at->half[half].open)
            return BASE_FAIL(at->ctx, BASE_ERR_STATE, BASE_MSG_INT_01,
                             "attention: %s of layer %d was not finished",
                             half == DATA_PING ? "ping" : "pong", at->half[half].layer);
        BASE_TRY(comm_exchange_sent(at->group, at->half[half].out, at->compute));
        BASE_TRY(comm_exchange_sent(at->group, at->half[half].back, at->compute));
    }
    return BASE_OK;
}

/* Each kind stages in memory of its own: the results of a layer may still be on their way when the
 * next layer, of another kind and layout, begins to receive. Retained pieces have memory of their
 * own per layer. */
static base_status_t place_kinds(as_attention_t *at, as_slot_t *slot)
{
    int64_t scratch = 0, keep = 0;
    for (int kind = 0; kind < at->config.num_kinds; kind++) {
        slot->scratch_offset[kind] = scratch;
        scratch += as_page(slot->schedules[kind].scratch_bytes);
        keep = as_max(keep, slot->schedules[kind].keep_bytes);
    }
    slot->keep_stride = as_page(keep);
    slot->scratch_bytes = scratch;
    slot->keep_bytes = slot->keep_stride * at->config.num_layers;
    if (slot->scratch_bytes <= at->config.scratch_bytes &&
        slot->keep_bytes <= at->config.retain_bytes)
        return BASE_OK;
    return BASE_FAIL(at->ctx, BASE_ERR_NOMEM, BASE_MSG_MEM_01,
                     "microbatch %lld: attention needs %lld bytes of staging and %lld of retained "
                     "memory, has %lld and %lld",
                     (long long)slot->schedules[0].batch->microbatch,
                     (long long)slot->scratch_bytes, (long long)slot->keep_bytes,
                     (long long)at->config.scratch_bytes, (long long)at->config.retain_bytes);
}

base_status_t as_attention_microbatch(as_attention_t *at, const data_batch_t *batch,
                                      const as_plan_t *const *plans)
{
    if (at->installed > 0) {
        BASE_TRY(as_attention_drain(at));
        BASE_TRY(base_event_record(as_slot(at)->done, at->compute));
        as_slot(at)->done_recorded = 1;
    }
    as_slot_t *slot = &at->slots[at->installed & 1];
    if (slot->done_recorded) /* normally long over */
        BASE_TRY(base_event_wait(slot->done, "attention: the microbatch before the last"));
    const int32_t trainer = at->topology->rank_trainer[base_ctx_rank(at->ctx)];
    if (trainer >= 0 && batch->trainer_rows[trainer] > at->config.max_rows)
        return BASE_FAIL(at->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                         "attention: %lld rows in a half, created for %lld",
                         (long long)batch->trainer_rows[trainer], (long long)at->config.max_rows);
    for (int kind = 0; kind < at->config.num_kinds; kind++) {
        if (plans[kind]->window != at->config.window[kind] ||
            plans[kind]->num_kv_heads != at->config.num_kv_heads)
            return BASE_FAIL(
                at->ctx, BASE_ERR_ARG, BASE_MSG_INT_01,
                "attention: plan of kind %d has window %lld and %d KV heads, want %lld and %d",
                kind, (long long)plans[kind]->window, plans[kind]->num_kv_heads,
                (long long)at->config.window[kind], at->config.num_kv_heads);
        BASE_TRY(as_schedule_build(&slot->schedules[kind], batch, plans[kind]));
    }
    BASE_TRY(place_kinds(at, slot));
    as_lists_expect(at, slot);
    at->batch = batch;
    at->installed++;
    for (int half = 0; half < DATA_NUM_HALVES; half++) {
        at->bases.mem[half][AS_REGION_SCRATCH] = base_arena_mem(at->arena, at->scratch);
        at->bases.mem[half][AS_REGION_KEEP] = base_arena_mem(at->arena, at->keep);
        at->bases.mem[half][AS_REGION_DELTA] = base_arena_mem(at->arena, at->delta[half]);
    }
    return BASE_OK;
}

void as_attention_stats(const as_attention_t *at, as_attention_stats_t *stats)
{
    *stats = (as_attention_stats_t){0};
    if (at->installed == 0) return;
    const as_slot_t *slot = &at->slots[(at->installed - 1) & 1];
    for (int kind = 0; kind < at->config.num_kinds; kind++) {
        const as_schedule_t *s = &slot->schedules[kind];
        stats->tasks += s->tasks_here;
        stats->local_tasks += s->local_tasks;
        for (int half = 0; half < DATA_NUM_HALVES; half++) {
            stats->sent_bytes[AS_FORWARD] +=
                s->legs[half][AS_FWD_OUT].sent_bytes + s->legs[half][AS_FWD_BACK].sent_bytes;
            stats->sent_bytes[AS_BACKWARD] +=
                s->legs[half][AS_BWD_OUT].sent_bytes + s->legs[half][AS_BWD_BACK].sent_bytes;
        }
    }
    stats->scratch_bytes = slot->scratch_bytes;
    stats->retain_bytes = slot->keep_bytes;
}
