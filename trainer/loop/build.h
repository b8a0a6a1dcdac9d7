/* Makes a trainer of the right size: model, adapters and attention memory for the documents and the
 * microbatches of a job.
 *
 *   tr_build_t b = {.spec = spec, .topology = topology, .tokens_per_trainer = 8192,
 *                   .longest = longest document, ...};
 *   BASE_TRY(tr_build_trainer(ctx, dev, group, &b, &lots, &trainer));
 *   BASE_TRY(tr_hf_load(trainer->weights, folder, trainer->stream));
 *
 * What attention stages is bounded, not measured (attention_plans.h): no microbatch of documents up to
 * the longest needs more. */
#ifndef CADRE_TRAINER_LOOP_BUILD_H
#define CADRE_TRAINER_LOOP_BUILD_H

#include "data/model_spec.h"
#include "trainer/loop/lot.h"
#include "trainer/loop/trainer.h"

typedef struct tr_build {
    const data_model_spec_t *spec; /* borrowed as long as the trainer lives, like names below */
    kern_dtype_t dtype;
    const as_topology_t *topology;
    int64_t tokens_per_trainer; /* any number from 256 on; taken down to a multiple of 256 */
    int64_t longest;            /* rows of the longest document; at most what the trainers hold */
    int full;                   /* 1: the model learns itself; adapters are not looked at */
    int optimizer;              /* 0: nothing learns, forward only */
    int32_t num_adapters;       /* 0: none */
    const lora_adapter_options_t *adapters;
    int32_t rank_columns;
    /* Planning: tr_attention_plans_options_t. */
    const as_profile_t *profile;
    const double *server_speeds;
    int64_t retain_bytes;
    int follow_servers; /* 1: cuts_follow_servers and sums_per_server: fast; 0: a run has the same bits
                           whichever servers compute */
    /* What the backward makes again; memory_bytes > 0: the least policy from there on with which the
     * trainer's arena has at most so many bytes, or TR_RECOMPUTE_BLOCK when none has. */
    tr_recompute_t recompute;
    int64_t memory_bytes;
    int layout_only; /* tr_trainer_config_t */
    int serial;      /* the same */
} tr_build_t;

/* The lots that go with it. tokens: 1 on trainers. */
tr_lot_options_t tr_build_lots(const tr_build_t *build, const tr_model_t *model, int tokens);

/* Weights are undefined until they are written. The caller frees *trainer_p with
 * tr_trainer_destroy. PLAN-01 when `longest` does not fit, DEV-01 when attention has no such heads on
 * the device. */
base_status_t tr_build_trainer(base_ctx_t *ctx, base_device_t *dev, comm_group_t *group,
                               const tr_build_t *build, tr_lot_options_t *lots,
                               tr_trainer_t **trainer_p) BASE_MUST_CHECK;

#endif
