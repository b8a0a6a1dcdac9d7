#include "trainer/model/hf_weights.h"

void tr_hf_model_config(const data_model_spec_t *spec, kern_dtype_t dtype, int64_t max_positions,
                        double *inv_freq, tr_model_config_t *config)
{
    const double rope_scale = data_model_spec_rope(spec, inv_freq);

    *config = (tr_model_config_t){.num_layers = spec->num_layers,
                                  .hidden = (int32_t)spec->hidden,
                                  .intermediate = (int32_t)spec->intermediate,
                                  .vocab = (int32_t)spec->vocab,
                                  .num_q_heads = spec->num_q_heads,
                                  .num_kv_heads = spec->num_kv_heads,
                                  .head_dim = spec->head_dim,
                                  .max_positions = max_positions,
                                  .rms_eps = spec->rms_eps,
                                  .rope_theta = spec->rope.theta,
                                  .inv_freq = inv_freq,
                                  .rope_scale = rope_scale,
                                  .attention_scale = spec->softmax_scale,
                                  .qkv_bias = spec->qkv_bias,
                                  .o_bias = spec->o_bias,
                                  .mlp_bias = spec->mlp_bias,
                                  .qk_norm = spec->qk_norm,
                                  .tied = spec->tied,
                                  .dtype = dtype,
                                  .layer_window = spec->layer_window};
}

tr_hf_place_t tr_hf_place(const tr_model_t *model, data_model_tensor_kind_t kind)
{
    const tr_model_config_t *c = &model->config;
    const int64_t q = model->q_cols, kv = model->kv_cols, h = c->hidden, f = c->intermediate;

    switch (kind) {
    case DATA_TENSOR_EMBEDDING:
        return (tr_hf_place_t){TR_WEIGHT_EMBEDDING, 0, c->vocab};
    case DATA_TENSOR_FINAL_NORM:
        return (tr_hf_place_t){TR_WEIGHT_FINAL_NORM, 0, h};
    case DATA_TENSOR_LM_HEAD:
        return (tr_hf_place_t){TR_WEIGHT_LM_HEAD, 0, c->vocab};
    case DATA_TENSOR_NORM1:
        return (tr_hf_place_t){TR_WEIGHT_NORM1, 0, h};
    case DATA_TENSOR_Q:
        return (tr_hf_place_t){TR_WEIGHT_QKV, 0, q};
    case DATA_TENSOR_Q_BIAS:
        return (tr_hf_place_t){TR_WEIGHT_QKV_BIAS, 0, q};
    case DATA_TENSOR_Q_NORM:
        return (tr_hf_place_t){TR_WEIGHT_Q_NORM, 0, c->head_dim};
    case DATA_TENSOR_K:
        return (tr_hf_place_t){TR_WEIGHT_QKV, q, kv};
    case DATA_TENSOR_K_BIAS:
        return (tr_hf_place_t){TR_WEIGHT_QKV_BIAS, q, kv};
    case DATA_TENSOR_K_NORM:
        return (tr_hf_place_t){TR_WEIGHT_K_NORM, 0, c->head_dim};
    case DATA_TENSOR_V:
        return (tr_hf_place_t){TR_WEIGHT_QKV, q + kv, kv};
    case DATA_TENSOR_V_BIAS:
        return (tr_hf_place_t){TR_WEIGHT_QKV_BIAS, q + kv, kv};
    case DATA_TENSOR_O:
        return (tr_hf_place_t){TR_WEIGHT_O, 0, h};
    case DATA_TENSOR_O_BIAS:
        return (tr_hf_place_t){TR_WEIGHT_O_BIAS, 0, h};
    case DATA_TENSOR_NORM2:
        return (tr_hf_place_t){TR_WEIGHT_NORM2, 0, h};
    case DATA_TENSOR_GATE:
        return (tr_hf_place_t){TR_WEIGHT_GATE_UP, 0, f};
    case DATA_TENSOR_GATE_BIAS:
        return (tr_hf_place_t){TR_WEIGHT_GATE_UP_BIAS, 0, f};
    case DATA_TENSOR_UP:
        return (tr_hf_place_t){TR_WEIGHT_GATE_UP, f, f};
    case DATA_TENSOR_UP_BIAS:
        return (tr_hf_place_t){TR_WEIGHT_GATE_UP_BIAS, f, f};
    case DATA_TENSOR_DOWN:
        return (tr_hf_place_t){TR_WEIGHT_DOWN, 0, h};
    case DATA_TENSOR_DOWN_BIAS:
        return (tr_hf_place_t){TR_WEIGHT_DOWN_BIAS, 0, h};
    case DATA_TENSOR_NUM_KINDS:
        break;
    }
    return (tr_hf_place_t){TR_WEIGHT_NUM_KINDS, 0, 0};
}

base_status_t tr_hf_weights_read(const tr_weights_t *weights, const data_model_tensor_t *tensor,
                                 int64_t row, int64_t rows, base_stream_t *stream, double *values)
{
    const tr_hf_place_t place = tr_hf_place(weights->model, tensor->kind);
    const int32_t index = tr_model_weight(weights->model, place.kind, tensor->layer);
    kern_mat_t mat = tr_weights_mat(weights, index);
    const int64_t element = kern_dtype_bytes(mat.dtype);

    if (tensor->rank == 1) {
        mat.mem = base_mem_at(mat.mem, (place.row + row) * element);
        mat.cols = rows;
    } else {
        mat.mem = base_mem_at(mat.mem, (place.row + row) * mat.pitch * element);
        mat.rows = rows;
    }
    return tr_weights_download(weights->ctx, stream, &mat, values);
}
