/* A rank of a training job: its part of the model, its memory, and what connects them to attention.
 *
 *   tr_trainer_t *trainer;
 *   BASE_TRY(tr_trainer_create(ctx, dev, group, topology, &config, &trainer));
 *   BASE_TRY(tr_gradients_zero(trainer));                                          (gradients.h)
 *   for each microbatch of the global batch
 *       BASE_TRY(tr_microbatch_run(trainer, batch, plans));                        (microbatch.h)
 *   BASE_TRY(tr_gradients_reduce(trainer));
 *   BASE_TRY(tr_trainer_sync(trainer));
 *   tr_trainer_destroy(trainer);
 *
 * Every rank of the group makes the same calls. On a trainer there are weights, gradients,
 * activations and the dense graph; a pool rank has none of them (`index` is -1), only attention and
 * the model's dimensions.
 *
 * All work goes to one compute stream; no call waits on the host except where it says so. One
 * device arena holds everything, attention's memory too, and is committed at creation: after the
 * first two microbatches nothing is allocated. Borrows ctx, dev, group and topology. One thread.
 * Errors: forwarded; those of later work come out of the next call. */
#ifndef CADRE_TRAINER_LOOP_TRAINER_H
#define CADRE_TRAINER_LOOP_TRAINER_H

#include "base/device/stream_mark.h"
#include "comm/comm.h"
#include "lora/optimizer.h"
#include "trainer/loop/static_program.h"
#include "trainer/model/graph.h"

typedef struct tr_trainer_config {
    tr_model_config_t model;
    uint64_t weight_seed; /* of random weights */
    int given_weights;    /* 1: the caller writes them (hf_weights.h); not drawn */
    int32_t num_adapters; /* parts of the loss; adapters->num_adapters when that is given */
    /* Adapters on a frozen model, which then has model.frozen and extra_columns to suit; NULL:
     * none. Borrowed for the call, spec and names as long as the trainer lives. */
    const lora_adapter_set_config_t *adapters;
    int optimizer;      /* full mode: moments for every weight (full_step.h) */
    int32_t max_pieces; /* of a microbatch; with adapters */
    int layout_only;    /* 1: nothing is committed: only the arena's sizes are of use */
    int serial;         /* 1: without ping-pong (static_program.h), for comparison */
    tr_recompute_t recompute;
    int64_t max_rows;      /* most rows of a half on a trainer; multiple of DATA_ROW_ALIGN */
    int64_t scratch_bytes; /* the next four go to as_attention_config_t */
    int64_t retain_bytes;
    int32_t sums_per_server;
    int32_t max_tasks;
} tr_trainer_config_t;

/* What should not happen while a microbatch is given to the device, from the third microbatch on: the
 * first ones make what is made once. Requests for memory are those of the whole rank. */
#define TR_WARM_MICROBATCHES 2
typedef struct tr_stalls {
    int64_t microbatches; /* given so far, the first ones too */
    int64_t counted;      /* those from the third on: of no other are the next two */
    int64_t waits;        /* of the host for a stream or an event */
    int64_t allocations;
} tr_stalls_t;

/* Fields are for trainer/loop; others only read them. */
typedef struct tr_trainer {
    base_ctx_t *ctx;
    comm_group_t *group;
    const as_topology_t *topology;
    int32_t index; /* among the trainers; -1: pool rank */
    int32_t num_adapters;
    int32_t *used;          /* [num_adapters] adapters of the microbatch at work, ascending */
    int64_t *adapter_count; /* [num_adapters] elements of each adapter; 0 without adapters */
    base_stream_t *stream;
    base_meter_t meter; /* of the stream */
    tr_stalls_t stalls;
    base_arena_t *arena;
    tr_model_t *model;
    tr_static_program_t *program;
    as_attention_t *attention;
    base_region_t reduce_scratch;
    /* absent on a pool rank */
    lora_adapter_set_t *adapters; /* NULL without adapters */
    lora_route_t *route;
    lora_optimizer_t optimizer;
    /* full mode, else NULL */
    base_region_t *moments;            /* [num_weights][2] */
    kern_adamw_tensor_t *full_tensors; /* [num_weights] lists of every step */
    kern_mat_t *full_gradients;
    int64_t full_decayed; /* of those; 0: not listed yet */
    tr_weights_t *weights;
    tr_activations_t *activations;
    tr_rows_t *rows;
    tr_head_t head;
    tr_graph_t graph;
} tr_trainer_t;

/* The seam's part of a config; layer_kind is borrowed from the model. */
as_attention_config_t tr_trainer_attention_config(const tr_model_t *model,
                                                  const tr_trainer_config_t *config);

/* Declares, commits, draws the weights from the seed and uploads them (waits for that). Adapters
 * hold undefined values until they are written (lora_adapter_set_write). Not collective. The caller
 * frees *trainer_p with tr_trainer_destroy. */
base_status_t tr_trainer_create(base_ctx_t *ctx, base_device_t *dev, comm_group_t *group,
                                const as_topology_t *topology, const tr_trainer_config_t *config,
                                tr_trainer_t **trainer_p) BASE_MUST_CHECK;
/* Waits for the stream. NULL is legal. */
void tr_trainer_destroy(tr_trainer_t *trainer);

/* Waits until all work given so far has run and no peer reads this rank's memory any more; returns
 * the stream's first error. Between microbatches; every rank does it before it destroys its
 * trainer. */
base_status_t tr_trainer_sync(tr_trainer_t *trainer) BASE_MUST_CHECK;

/* The final normed hidden states of the last microbatch: rows x hidden doubles, rows as installed.
 * Waits; allocates; for scoring and tests. BASE_ERR_STATE on a pool rank. */
base_status_t tr_trainer_read_hidden(tr_trainer_t *trainer, data_half_t half,
                                     double *hidden) BASE_MUST_CHECK;

#endif
