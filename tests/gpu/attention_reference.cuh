/* Core attention by its definition, in double, on the GPU: one block a row or a key, nothing
 * clever. */
#ifndef CADRE_TESTS_GPU_ATTENTION_REFERENCE_CUH
#define CADRE_TESTS_GPU_ATTENTION_REFERENCE_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

/* Keys [0, T) of a document and its rows [q_begin, T). Layouts, with nq = T - q_begin:
 *   q, dq (G, nq, R, D)   k, v, dk, dv (G, T, D)   o, d_o (nq, G, R, D)   lse, delta (G, nq, R) */
struct reference_doc {
    int64_t T, q_begin, window; /* window 0: none */
    int G, R, D;
    double scale;
    const __nv_bfloat16 *q, *k, *v, *d_o;
    double *o, *lse, *delta, *dq, *dk, *dv;
};

/* o, lse, delta. */
void attention_reference_forward(const reference_doc &doc, cudaStream_t stream);

/* dq, dk, dv from q, k, v, d_o, lse and delta. The op is given a delta that was made from the
 * rounded o, so with `given_delta` (layout of delta; may be NULL) this is what the op is asked
 * for, and without it the gradient of the exact forward. The two differ by the rounding of o,
 * which rows of few keys show. */
void attention_reference_backward(const reference_doc &doc, const float *given_delta,
                                  cudaStream_t stream);

#endif
