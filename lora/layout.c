#include "lora/layout.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

const char *lora_target_name(int32_t target)
{
    switch (target) {
#define X(name, bit, word)                                                                         \
    case bit:                                                                                      \
        return word;
        BASE_CONFIG_TARGET_MAP(X)
#undef X
    default:
        return NULL;
    }
}

const char *lora_target_parent(int32_t target)
{
    return target < 4 ? "self_attn" : "mlp";
}

data_model_tensor_kind_t lora_target_tensor(int32_t target)
{
    switch (1 << target) {
    case BASE_CONFIG_TARGET_Q:
        return DATA_TENSOR_Q;
    case BASE_CONFIG_TARGET_K:
        return DATA_TENSOR_K;
    case BASE_CONFIG_TARGET_V:
        return DATA_TENSOR_V;
    case BASE_CONFIG_TARGET_O:
        return DATA_TENSOR_O;
    case BASE_CONFIG_TARGET_GATE:
        return DATA_TENSOR_GATE;
    case BASE_CONFIG_TARGET_UP:
        return DATA_TENSOR_UP;
    default:
        return DATA_TENSOR_DOWN;
    }
}

void lora_target_shape(const data_model_spec_t *spec, int32_t target, int64_t *in, int64_t *out)
{
    const int64_t q = (int64_t)spec->num_q_heads * spec->head_dim;
    const int64_t kv = (int64_t)spec->num_kv_heads * spec->head_dim;

    *in = spec->hidden;
    switch (1 << target) {
    case BASE_CONFIG_TARGET_Q:
        *out = q;
        break;
    case BASE_CONFIG_TARGET_K:
    case BASE_CONFIG_TARGET_V:
        *out = kv;
        break;
    case BASE_CONFIG_TARGET_O:
        *in = q;
        *out = spec->hidden;
        break;
    case BASE_CONFIG_TARGET_GATE:
    case BASE_CONFIG_TARGET_UP:
        *out = spec->intermediate;
        break;
    default: /* down_proj */
        *in = spec->intermediate;
        *out = spec->hidden;
        break;
    }
}

void lora_widen(double *values, int64_t count)
{
    /* From the end on: a float is read before the double that covers it is written. */
    for (int64_t i = count - 1; i >= 0; i--) {
        float single;

        memcpy(&single, (const char *)values + i * (int64_t)sizeof single, sizeof single);
        values[i] = (double)single;
    }
}

double lora_scale(double alpha, int64_t rank, bool rslora)
{
    return rslora ? alpha / sqrt((double)rank) : alpha / (double)rank;
}

base_status_t lora_layout_create(base_ctx_t *ctx, const data_model_spec_t *spec, int32_t rank,
                                 uint32_t targets, lora_layout_t **layout_p)
{
    lora_layout_t *layout = base_calloc(ctx, 1, sizeof *layout, "adapter layout");
    if (layout == NULL) return BASE_ERR_NOMEM;
    layout->ctx = ctx;
    layout->rank = rank;
    layout->targets = targets;
    layout->modules = base_calloc(ctx, (int64_t)spec->num_layers * LORA_NUM_TARGETS,
                                  sizeof *layout->modules, "adapter layout");
    if (layout->modules == NULL) {
        lora_layout_destroy(layout);
        return BASE_ERR_NOMEM;
    }
    for (int32_t l = 0; l < spec->num_layers; l++) {
        for (int32_t t = 0; t < LORA_NUM_TARGETS; t++) {
            if ((targets & (1u << t)) == 0) continue;
            lora_module_t *m = &layout->modules[layout->num_modules++];
            m->layer = l;
            m->target = t;
            lora_target_shape(spec, t, &m->in, &m->out);
            m->a = layout->count;
            m->b = m->a + rank * m->in;
            layout->count = m->b + m->out * rank;
        }
    }
    *layout_p = layout;
    return BASE_OK;
}

void lora_layout_destroy(lora_layout_t *layout)
{
    if (layout == NULL) return;
    base_free(layout->ctx, layout->modules);
    base_free(layout->ctx, layout);
}
