/* Random weights of a model: what `cadre init-model` and tests fill a folder with.
 *
 *   data_hf_random_t random = {.seed = 7, .std = 0.02};
 *   BASE_TRY(data_hf_write(ctx, path, spec, &options, data_hf_random_rows, &random));
 *
 * Norms are 1, biases 0, all else is normal with mean 0 and deviation `std`. Each number is a pure
 * function of (seed, index of the tensor in the spec's list, element): Philox with key = seed and
 * counter = {element / 2, low and high word; index; 'I'}, the two elements of a pair from
 * base_philox_normal2. So it depends neither on the order of the calls nor on the dtype of the
 * file; it has the same bits on one libm. */
#ifndef CADRE_DATA_HF_WRITE_RANDOM_H
#define CADRE_DATA_HF_WRITE_RANDOM_H

#include "data/model_spec.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DATA_HF_RANDOM_STD 0.02 /* of a config.json without initializer_range */

typedef struct data_hf_random {
    uint64_t seed;
    double std; /* > 0, finite */
} data_hf_random_t;

/* A data_hf_rows_fn; arg is a data_hf_random_t. Never fails. */
base_status_t data_hf_random_rows(void *arg, int64_t index, const data_model_tensor_t *tensor,
                                  int64_t row, int64_t num_rows, float *to);

#ifdef __cplusplus
}
#endif
#endif
