/* A set of adapters without a model: the linear layers' weights [W B; A 0] with random W, the set,
 * its route, and microbatches laid out by hand. On any device; fails the running test. */
#ifndef CADRE_TESTS_SUPPORT_ADAPTER_RIG_H
#define CADRE_TESTS_SUPPORT_ADAPTER_RIG_H

#include "tests/support/op_fixture.h"

#include "lora/linear.h"
#include "lora/optimizer.h"

#define ADAPTER_RIG_ROWS        256 /* of each half */
#define ADAPTER_RIG_MAX_LAYERS  4
#define ADAPTER_RIG_WEIGHT_SEED 90 /* of the values of the first weight (op_random_fill) */

typedef struct adapter_rig {
    op_fixture_t *fx;
    data_model_spec_t spec;
    kern_dtype_t dtype;
    base_arena_t *arena;
    base_region_t weight[ADAPTER_RIG_MAX_LAYERS * LORA_NUM_LINEARS];
    lora_adapter_set_t *set;
    lora_route_t *route;
    lora_optimizer_t optimizer;
    data_batch_t *batch;
    int64_t extra;  /* C */
    int64_t beside; /* from the last column to the next row: C, and a gap that is nobody's */
} adapter_rig_t;

/* Two layers, hidden 12, 4 heads of 4 over 2, intermediate 10. */
data_model_spec_t adapter_rig_spec(void);

adapter_rig_t adapter_rig(op_fixture_t *fx, kern_dtype_t dtype,
                          const lora_adapter_options_t *options, int32_t count,
                          int32_t rank_columns);
void adapter_rig_end(adapter_rig_t *rig);

/* N, K of a linear layer. */
void adapter_rig_shape(const adapter_rig_t *rig, lora_linear_t linear, int64_t *n, int64_t *k);
/* The whole region of a layer, (N + C) x (K + beside): op_doubles of the caller's to free. */
double *adapter_rig_weight(adapter_rig_t *rig, int32_t layer, lora_linear_t linear);

/* Writes random masters, of which it returns a copy (free). */
double *adapter_rig_write(adapter_rig_t *rig, int32_t adapter, uint64_t seed);
double *adapter_rig_read(adapter_rig_t *rig, int32_t adapter, base_region_t region);

/* place, which must succeed */
void adapter_rig_place(adapter_rig_t *rig, int64_t microbatch, const int32_t *used, int32_t count);

/* Empties the batch (one trainer); adds a document with its pieces: rows [0, head) at ping row
 * `ping`, the rest at pong row `pong`. */
void adapter_rig_begin(adapter_rig_t *rig);
void adapter_rig_document(adapter_rig_t *rig, int32_t adapter, int64_t index, int64_t rows,
                          int64_t head, int64_t ping, int64_t pong);

#endif
