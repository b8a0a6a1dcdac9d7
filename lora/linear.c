#include "lora/linear.h"

/* Columns [first, first + cols) of a matrix, which may lie beyond its width. */
static kern_mat_t columns(kern_mat_t mat, int64_t first, int64_t cols)
{
    mat.mem = base_mem_at(mat.mem, first * kern_dtype_bytes(mat.dtype));
    mat.cols = cols;
    return mat;
}

static kern_mat_t base_weight(const lora_route_t *route, int32_t layer, lora_linear_t linear)
{
    return route->set->weight[(int64_t)layer * LORA_NUM_LINEARS + linear];
}

base_status_t lora_linear_s(const lora_route_t *route, int32_t layer, lora_linear_t linear,
                            data_half_t half, kern_mat_t x, base_stream_t *stream)
{
    const lora_route_linear_t *l = lora_route_of(route, layer, linear);

    if (l->num_blocks == 0) return BASE_OK;
    const kern_lora_s_t s = {.route = lora_route_args(route, layer, linear, half, 0, l->num_blocks),
                             .x = x,
                             .s = columns(x, x.cols, l->columns)};
    return kern_lora_s_run(stream, &s);
}

base_status_t lora_linear_forward(const lora_route_t *route, int32_t layer, lora_linear_t linear,
                                  data_half_t half, kern_mat_t x, kern_mat_t y,
                                  base_stream_t *stream)
{
    const lora_route_linear_t *l = lora_route_of(route, layer, linear);
    const kern_mat_t w = base_weight(route, layer, linear);

    BASE_TRY(lora_linear_s(route, layer, linear, half, x, stream));
    const kern_gemm_t gemm = {.a = columns(x, 0, x.cols + l->columns),
                              .b = columns(w, 0, w.cols + l->columns),
                              .c = y,
                              .transpose_b = 1};
    return kern_gemm_run(stream, &gemm);
}

static base_status_t adapter_gradients(const lora_route_t *route, int32_t layer,
                                       lora_linear_t linear, data_half_t half, kern_mat_t dy,
                                       kern_mat_t x, base_stream_t *stream)
{
    const lora_route_linear_t *l = lora_route_of(route, layer, linear);
    const kern_lora_route_t all = lora_route_args(route, layer, linear, half, 0, l->num_blocks);
    const kern_mat_t ds = columns(dy, dy.cols, l->columns);
    const kern_lora_dy_t of_dy = {
        .route = all, .dy = dy, .s = columns(x, x.cols, l->columns), .ds = ds};
    const kern_lora_da_t da = {.route = all, .x = x, .ds = ds};

    BASE_TRY(kern_lora_dy_run(stream, &of_dy));
    return kern_lora_da_run(stream, &da);
}

base_status_t lora_linear_backward(const lora_route_t *route, int32_t layer, lora_linear_t linear,
                                   data_half_t half, kern_mat_t dy, kern_mat_t x, kern_mat_t dx,
                                   base_stream_t *stream)
{
    const lora_route_linear_t *l = lora_route_of(route, layer, linear);
    kern_mat_t w = base_weight(route, layer, linear);
    const int64_t masked = l->num_blocks - l->num_plain;

    if (l->num_blocks > 0) BASE_TRY(adapter_gradients(route, layer, linear, half, dy, x, stream));
    if (kern_mat_absent(&dx)) return BASE_OK;
    w.rows += l->plain_columns;
    const kern_gemm_t gemm = {.a = columns(dy, 0, dy.cols + l->plain_columns), .b = w, .c = dx};
    BASE_TRY(kern_gemm_run(stream, &gemm));
    if (masked == 0) return BASE_OK;
    const kern_lora_dx_dropout_t dropout = {
        .route = lora_route_args(route, layer, linear, half, l->num_plain, masked),
        .ds = columns(dy, dy.cols, l->columns),
        .dx = dx};
    return kern_lora_dx_dropout_run(stream, &dropout);
}
