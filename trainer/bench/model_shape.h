/* Sizes of models that benchmarks run without a folder. */
#ifndef CADRE_TRAINER_BENCH_MODEL_SHAPE_H
#define CADRE_TRAINER_BENCH_MODEL_SHAPE_H

#include "data/model_spec.h"

/* The spec of that name with plain rotary embedding; or, of a word that ends in .json, that of a model's
 * config.json. layers > 0: so many instead of its own, whose windows are gone through again where they are more.
 * max_positions: at least the longest document. CLI-02 for another word; what data_hf_config_read returns. */
base_status_t tr_model_shape(base_ctx_t *ctx, const char *shape, int64_t layers,
                             int64_t max_positions, data_model_spec_t *spec) BASE_MUST_CHECK;

#endif
