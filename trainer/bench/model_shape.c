#include "trainer/bench/model_shape.h"

#include <math.h>
#include <string.h>

const char tr_model_shape_names[] = "llama-3.1-8b, llama-3.2-1b, qwen3-8b or tiny";

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

int tr_model_shape(const char *name, int64_t layers, int64_t max_positions, data_model_spec_t *spec)
{
    for (size_t i = 0; i < sizeof SHAPES / sizeof SHAPES[0]; i++) {
        if (strcmp(SHAPES[i].name, name) != 0) continue;
        *spec = (data_model_spec_t){.family = SHAPES[i].family,
                                    .num_layers = layers > 0 ? (int32_t)layers : SHAPES[i].layers,
                                    .hidden = SHAPES[i].hidden,
                                    .intermediate = SHAPES[i].intermediate,
                                    .vocab = SHAPES[i].vocab,
                                    .num_q_heads = SHAPES[i].q_heads,
                                    .num_kv_heads = SHAPES[i].kv_heads,
                                    .head_dim = SHAPES[i].head_dim,
                                    .max_positions = max_positions,
                                    .rms_eps = SHAPES[i].eps,
                                    .softmax_scale = 1.0 / sqrt((double)SHAPES[i].head_dim),
                                    .qk_norm = SHAPES[i].qk_norm,
                                    .tied = SHAPES[i].tied,
                                    .rope = {.kind = DATA_ROPE_PLAIN, .theta = SHAPES[i].theta}};
        return 1;
    }
    return 0;
}
