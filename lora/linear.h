/* A linear layer with its adapters: y = x W^T + (bias: the caller's) + sum over adapters of scale
 * dropout(x) A^T B^T, in one product of the base's size, and its backward.
 *
 *   forward   lora_s writes s beside x;  y = [x s] [W B]^T
 *   backward  lora_dy writes ds beside dy and adds dy^T s to dB;  dA += ds^T dropout(x);
 *             dx = [dy ds] [W; A] of the adapters without dropout, and lora_dx_dropout for the
 *             others
 *
 * Rows of another adapter, and pad rows, meet zeros in s and ds (kernels/op.h). Layers without any
 * block of the microbatch are plain products. x has pitch >= K + C and keeps s until its backward;
 * dy has pitch >= N + C. In stream order, no host wait, no allocation. */
#ifndef CADRE_LORA_LINEAR_H
#define CADRE_LORA_LINEAR_H

#include "lora/route.h"

#ifdef __cplusplus
extern "C" {
#endif

base_status_t lora_linear_forward(const lora_route_t *route, int32_t layer, lora_linear_t linear,
                                  data_half_t half, kern_mat_t x, kern_mat_t y,
                                  base_stream_t *stream) BASE_MUST_CHECK;

/* Of the forward only what the backward reads: s, beside x. */
base_status_t lora_linear_s(const lora_route_t *route, int32_t layer, lora_linear_t linear,
                            data_half_t half, kern_mat_t x, base_stream_t *stream) BASE_MUST_CHECK;

/* dx absent: not wanted. */
base_status_t lora_linear_backward(const lora_route_t *route, int32_t layer, lora_linear_t linear,
                                   data_half_t half, kern_mat_t dy, kern_mat_t x, kern_mat_t dx,
                                   base_stream_t *stream) BASE_MUST_CHECK;

#ifdef __cplusplus
}
#endif
#endif
