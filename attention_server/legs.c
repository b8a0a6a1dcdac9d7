/* Beginning exchanges: the schedule's places become addresses, in lists that are used in turn. */
#include "attention_server/marks.h"

#include "base/memory.h"

#include <string.h>

base_status_t as_lists_create(as_attention_t *at)
{
    at->most_ranges = 4 * (int64_t)at->config.max_tasks;
    at->most_peers = at->topology->num_ranks;
    for (int half = 0; half < DATA_NUM_HALVES; half++) {
        at->half[half].arrows = base_calloc(at->ctx, at->topology->num_ranks, 1, "arrows");
        if (at->half[half].arrows == NULL) return BASE_ERR_NOMEM;
        for (int i = 0; i < AS_NUM_LISTS; i++) {
            as_lists_t *lists = &at->half[half].lists[i];
            as_list_init(&lists->ranges, at->ctx, sizeof(base_range_t), "exchange ranges");
            as_list_init(&lists->peers, at->ctx, sizeof(comm_peer_t), "exchange peers");
            BASE_TRY(as_list_reserve(&lists->ranges, at->most_ranges));
            BASE_TRY(as_list_reserve(&lists->peers, at->most_peers));
        }
    }
    return BASE_OK;
}

void as_lists_destroy(as_attention_t *at)
{
    for (int half = 0; half < DATA_NUM_HALVES; half++) {
        base_free(at->ctx, at->half[half].arrows);
        for (int i = 0; i < AS_NUM_LISTS; i++) {
            as_list_deinit(&at->half[half].lists[i].ranges);
            as_list_deinit(&at->half[half].lists[i].peers);
        }
    }
}

void as_lists_expect(as_attention_t *at, const as_slot_t *slot)
{
    for (int kind = 0; kind < at->config.num_kinds; kind++)
        for (int half = 0; half < DATA_NUM_HALVES; half++)
            for (int leg = 0; leg < AS_NUM_LEGS; leg++) {
                const as_exchange_t *e = &slot->schedules[kind].legs[half][leg];
                at->most_ranges = as_max(at->most_ranges, e->entries.count);
                at->most_peers = as_max(at->most_peers, e->peers.count);
            }
}

base_mem_t as_region_mem(const as_attention_t *at, int half, as_region_t region, int32_t layer)
{
    const base_mem_t mem = at->bases.mem[half][region];
    const as_slot_t *slot = &at->slots[(at->installed - 1) & 1];
    if (region == AS_REGION_SCRATCH)
        return base_mem_at(mem, slot->scratch_offset[at->layer_kind[layer]]);
    if (region == AS_REGION_KEEP) return base_mem_at(mem, layer * slot->keep_stride);
    return mem;
}

static base_status_t next_lists(as_attention_t *at, data_half_t half, as_lists_t **lists_p)
{
    as_half_state_t *state = &at->half[half];
    as_lists_t *lists = &state->lists[state->next_lists];
    state->next_lists = (state->next_lists + 1) % AS_NUM_LISTS;
    BASE_TRY(as_list_reserve(&lists->ranges, at->most_ranges));
    BASE_TRY(as_list_reserve(&lists->peers, at->most_peers));
    *lists_p = lists;
    return BASE_OK;
}

base_status_t as_exchange_leg(as_attention_t *at, data_half_t half, int32_t layer, as_leg_t leg,
                              comm_ticket_t *ticket_p)
{
    const as_schedule_t *s = as_layer_schedule(at, layer);
    const as_exchange_t *e = &s->legs[half][leg];
    const as_entry_t *entries = e->entries.items;
    const as_peer_span_t *spans = e->peers.items;
    as_lists_t *lists;
    BASE_TRY(next_lists(at, half, &lists));
    base_range_t *ranges = lists->ranges.items;
    comm_peer_t *peers = lists->peers.items;

    for (int64_t i = 0; i < e->entries.count; i++) {
        const base_mem_t mem =
            as_region_mem(at, entries[i].half, (as_region_t)entries[i].region, layer);
        ranges[i] = (base_range_t){base_mem_at(mem, entries[i].offset), entries[i].row_bytes,
                                   entries[i].rows, entries[i].pitch};
    }
    for (int64_t p = 0; p < e->peers.count; p++) {
        const base_range_t *first = ranges + spans[p].first;
        peers[p] = (comm_peer_t){spans[p].rank, spans[p].num_send, spans[p].num_recv, first,
                                 first + spans[p].num_send};
    }
    const comm_exchange_t exchange = {
        .tag = {s->plan->hash, s->batch->microbatch, layer, (int32_t)leg},
        .name = as_leg_name(leg, half),
        .num_peers = (int32_t)e->peers.count,
        .peers = peers,
        .after = at->compute};
    if (leg == AS_FWD_OUT || leg == AS_BWD_OUT)
        memset(at->half[half].arrows, 0, (size_t)at->topology->num_ranks);
    BASE_TRY(as_mark_sent(at, half, layer, leg)); /* before anybody can have it */
    return comm_exchange_begin(at->group, (int)half, &exchange, ticket_p);
}
