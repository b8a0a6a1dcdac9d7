/* Sizes of models that benchmarks run without a folder. */
#ifndef CADRE_TRAINER_BENCH_MODEL_SHAPE_H
#define CADRE_TRAINER_BENCH_MODEL_SHAPE_H

#include "data/model_spec.h"

/* "llama-3.1-8b, llama-3.2-1b, qwen3-8b or tiny": for messages. */
extern const char tr_model_shape_names[];

/* The spec of that name with plain rotary embedding; layers > 0: so many instead of its own.
 * max_positions: at least the longest document. 0: no such name. */
int tr_model_shape(const char *name, int64_t layers, int64_t max_positions,
                   data_model_spec_t *spec);

#endif
