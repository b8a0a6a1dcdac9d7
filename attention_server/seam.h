/* The seam's state on one rank. Private to attention_server/: attention.c makes it, client.c and
 * server.c work it. */
#ifndef CADRE_ATTENTION_SERVER_SEAM_H
#define CADRE_ATTENTION_SERVER_SEAM_H

#include "attention_server/schedule.h"

/* The lists of one exchange with addresses, which must stay until it is complete. A half has enough
 * of them to use them in turn (comm/comm.h: as many as may be open, and one). */
typedef struct as_lists {
    as_list_t ranges; /* base_range_t */
    as_list_t peers;  /* comm_peer_t */
} as_lists_t;
#define AS_NUM_LISTS (COMM_MAX_OPEN_EXCHANGES + 1)

/* Everything derived from one microbatch. There are two, so that the host may prepare the next
 * while the device still works on the last. */
typedef struct as_slot {
    as_schedule_t schedules[AS_MAX_KINDS];
    base_event_t *done; /* recorded when the next microbatch is installed */
    int done_recorded;
    int64_t scratch_offset[AS_MAX_KINDS], scratch_bytes; /* staging of each kind */
    int64_t keep_stride, keep_bytes;                     /* retained: of a layer, of all */
} as_slot_t;

typedef struct as_half_state {
    int open; /* between begin and finish */
    int served;
    int32_t layer;
    as_direction_t direction;
    comm_ticket_t out, back; /* of the last exchanges begun */
    as_lists_t lists[AS_NUM_LISTS];
    int next_lists;
    uint8_t *arrows; /* [num_ranks] in a trace the arrow from there has ended (marks.c) */
} as_half_state_t;

struct as_attention {
    base_ctx_t *ctx;
    as_attention_config_t config; /* layer_kind: own copy */
    int32_t *layer_kind;
    as_shape_t shape;
    const as_topology_t *topology;
    comm_group_t *group;
    base_arena_t *arena;
    base_stream_t *compute;
    base_device_t *dev;
    base_region_t scratch, keep, workspace, delta[DATA_NUM_HALVES];

    as_slot_t slots[2];
    int64_t installed; /* microbatches so far; slot of the current: (installed - 1) & 1 */
    const data_batch_t *batch;
    as_bases_t bases;                /* of the tensors last given, and the seam's own */
    int64_t most_ranges, most_peers; /* of an exchange so far */
    as_half_state_t half[DATA_NUM_HALVES];
};

as_shape_t as_shape_of(const as_attention_config_t *config);

static inline as_slot_t *as_slot(as_attention_t *at)
{
    return &at->slots[(at->installed - 1) & 1];
}

static inline as_schedule_t *as_layer_schedule(as_attention_t *at, int32_t layer)
{
    return &as_slot(at)->schedules[at->layer_kind[layer]];
}

/* Address of a region in a layer: KEEP moves with the layer, SCRATCH with its kind, the others are
 * as last given. */
base_mem_t as_region_mem(const as_attention_t *at, int half, as_region_t region, int32_t layer);

/* Fills the half's next lists with the addresses of one exchange and begins it, ready when the
 * compute stream has come here. */
base_status_t as_exchange_leg(as_attention_t *at, data_half_t half, int32_t layer, as_leg_t leg,
                              comm_ticket_t *ticket_p) BASE_MUST_CHECK;

/* dk, then dv, as these sums of what lies in the layer's SCRATCH. */
base_status_t as_run_sums(as_attention_t *at, const as_schedule_t *s, int32_t layer,
                          const as_list_t *sums, const as_list_t *parts, base_mem_t dk,
                          base_mem_t dv) BASE_MUST_CHECK;

/* The halves' lists. as_lists_expect: the largest exchange of a schedule, to which each list grows
 * when its turn comes, so that a steady state allocates nothing. */
base_status_t as_lists_create(as_attention_t *at) BASE_MUST_CHECK;
void as_lists_destroy(as_attention_t *at);
void as_lists_expect(as_attention_t *at, const as_slot_t *slot);

#endif
