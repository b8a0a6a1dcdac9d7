#include "trainer/bench/model_shape.h"

#include "base/text.h"
#include "data/hf_config.h"

#include <math.h>
#include <string.h>

/* From the config.json of the models of these names. */
static const struct {
    const char *name;
    data_model_family_t family;
    int32_t layers;
    int64_t hidden, intermediate, vocab;
    int32_t q_heads, kv_heads, head_dim;
    double theta, eps;
    bool qk_norm, tied;
} SHAPES[] = {
    {"llama-3.1-8b", DATA_MODEL_LLAMA, 32, 4096, 14336, 128256, 32, 8, 128, 5e5, 1e-5, false,
     false},
    {"llama-3.2-1b", DATA_MODEL_LLAMA, 16, 2048, 8192, 128256, 32, 8, 64, 5e5, 1e-5, false, true},
    {"qwen3-8b", DATA_MODEL_QWEN3, 36, 4096, 12288, 151936, 32, 8, 128, 1e6, 1e-6, true, false},
    {"tiny", DATA_MODEL_LLAMA, 2, 256, 512, 512, 4, 2, 64, 1e4, 1e-5, false, false},
};

static int named(const char *name, data_model_spec_t *spec)
{
    for (size_t i = 0; i < sizeof SHAPES / sizeof SHAPES[0]; i++) {
        if (strcmp(SHAPES[i].name, name) != 0) continue;
        *spec = (data_model_spec_t){.family = SHAPES[i].family,
                                    .num_layers = SHAPES[i].layers,
                                    .hidden = SHAPES[i].hidden,
                                    .intermediate = SHAPES[i].intermediate,
                                    .vocab = SHAPES[i].vocab,
                                    .num_q_heads = SHAPES[i].q_heads,
                                    .num_kv_heads = SHAPES[i].kv_heads,
                                    .head_dim = SHAPES[i].head_dim,
                                    .rms_eps = SHAPES[i].eps,
                                    .softmax_scale = 1.0 / sqrt((double)SHAPES[i].head_dim),
                                    .qk_norm = SHAPES[i].qk_norm,
                                    .tied = SHAPES[i].tied,
                                    .rope = {.kind = DATA_ROPE_PLAIN, .theta = SHAPES[i].theta}};
        return 1;
    }
    return 0;
}

base_status_t tr_model_shape(base_ctx_t *ctx, const char *shape, int64_t layers,
                             int64_t max_positions, data_model_spec_t *spec)
{
    if (base_text_ends_in(shape, ".json"))
        BASE_TRY(data_hf_config_read(ctx, shape, NULL, spec));
    else if (!named(shape, spec))
        return BASE_FAIL(ctx, BASE_ERR_CONFIG, BASE_MSG_CLI_02,
                         "--model-shape: found \"%s\", wanted llama-3.1-8b, llama-3.2-1b, "
                         "qwen3-8b, tiny or a model's config.json",
                         shape);
    for (int64_t l = spec->num_layers; l < layers && l < DATA_MODEL_MAX_LAYERS; l++)
        spec->layer_window[l] = spec->layer_window[l - spec->num_layers];
    if (layers > 0) spec->num_layers = (int32_t)layers;
    if (spec->max_positions < max_positions) spec->max_positions = max_positions;
    return BASE_OK;
}
