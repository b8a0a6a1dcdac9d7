#include "data/hf_write_random.h"

#include "base/philox.h"

#define USE_INIT 0x49u /* 'I' */

typedef enum fill { FILL_NORMAL, FILL_ONE, FILL_ZERO } fill_t;

static fill_t fill_of(data_model_tensor_kind_t kind)
{
    switch (kind) {
    case DATA_TENSOR_FINAL_NORM:
    case DATA_TENSOR_NORM1:
    case DATA_TENSOR_NORM2:
    case DATA_TENSOR_Q_NORM:
    case DATA_TENSOR_K_NORM:
        return FILL_ONE;
    case DATA_TENSOR_Q_BIAS:
    case DATA_TENSOR_K_BIAS:
    case DATA_TENSOR_V_BIAS:
    case DATA_TENSOR_O_BIAS:
    case DATA_TENSOR_GATE_BIAS:
    case DATA_TENSOR_UP_BIAS:
    case DATA_TENSOR_DOWN_BIAS:
        return FILL_ZERO;
    default:
        return FILL_NORMAL;
    }
}

base_status_t data_hf_random_rows(void *arg, int64_t index, const data_model_tensor_t *tensor,
                                  int64_t row, int64_t num_rows, float *to)
{
    const data_hf_random_t *random = arg;
    const base_philox_key_t key = base_philox_key(random->seed);
    const int64_t cols = tensor->rank == 2 ? tensor->shape[1] : 1;
    const int64_t first = row * cols, count = num_rows * cols;
    const fill_t fill = fill_of(tensor->kind);
    double pair[2] = {0.0, 0.0};

    for (int64_t i = 0; i < count; i++) {
        const int64_t element = first + i;

        if (fill != FILL_NORMAL) {
            to[i] = fill == FILL_ONE ? 1.0f : 0.0f;
            continue;
        }
        if (i == 0 || element % 2 == 0) {
            const uint64_t number = (uint64_t)element / 2;

            base_philox_normal2(base_philox(key, (uint32_t)(number & 0xffffffffu),
                                            (uint32_t)(number >> 32), (uint32_t)index, USE_INIT),
                                pair);
        }
        to[i] = (float)(random->std * pair[element % 2]);
    }
    return BASE_OK;
}
