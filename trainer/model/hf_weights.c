#include "trainer/model/hf_weights.h"

#include "base/memory.h"

#define PIECE_ELEMENTS (INT64_C(1) << 19)

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

/* The model's weight that holds a vector has one row: its elements are the tensor's rows. */
static base_status_t load_vector(const tr_weights_t *weights, const data_hf_folder_t *folder,
                                 int64_t tensor, int32_t index, tr_hf_place_t place,
                                 base_stream_t *stream, double *values)
{
    const tr_weight_spec_t *spec = &weights->model->weights[index];

    /* A vector that is a part of a fused one: the others' elements are kept. */
    if (place.rows != spec->cols) BASE_TRY(tr_weights_read(weights, index, stream, values));
    BASE_TRY(data_hf_folder_read_double(folder, tensor, 0, place.rows, values + place.row));
    return tr_weights_write(weights, index, stream, values);
}

static base_status_t load_tensor(const tr_weights_t *weights, const data_hf_folder_t *folder,
                                 int64_t tensor, base_stream_t *stream, double *values)
{
    data_model_tensor_t t;

    data_model_spec_tensor(data_hf_folder_spec(folder), tensor, &t);
    const tr_hf_place_t place = tr_hf_place(weights->model, t.kind);
    const int32_t index = tr_model_weight(weights->model, place.kind, t.layer);

    if (t.rank == 1) return load_vector(weights, folder, tensor, index, place, stream, values);
    const int64_t most = PIECE_ELEMENTS / t.shape[1] > 0 ? PIECE_ELEMENTS / t.shape[1] : 1;
    for (int64_t row = 0; row < place.rows; row += most) {
        const int64_t rows = place.rows - row < most ? place.rows - row : most;

        BASE_TRY(data_hf_folder_read_double(folder, tensor, row, rows, values));
        BASE_TRY(tr_weights_write_rows(weights, index, place.row + row, rows, stream, values));
    }
    return BASE_OK;
}

/* Elements of the largest piece: so many, or one row of the widest weight, or a vector. */
static int64_t piece_elements(const tr_model_t *model)
{
    int64_t most = PIECE_ELEMENTS;

    for (int32_t i = 0; i < model->num_weights; i++)
        most = model->weights[i].cols > most ? model->weights[i].cols : most;
    return most;
}

base_status_t tr_hf_weights_load(const tr_weights_t *weights, const data_hf_folder_t *folder,
                                 base_stream_t *stream)
{
    const int64_t count = data_model_spec_num_tensors(data_hf_folder_spec(folder));
    base_status_t st = BASE_OK;

    double *values = base_calloc(weights->ctx, piece_elements(weights->model), sizeof *values,
                                 "weights to load");
    if (values == NULL) return BASE_ERR_NOMEM;
    for (int64_t i = 0; i < count && st >= 0; i++)
        st = load_tensor(weights, folder, i, stream, values);
    base_free(weights->ctx, values);
    return st;
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
