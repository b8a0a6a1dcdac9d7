/* Shapes on which ops are tested and measured: one table a family, shared by tests and benches.
 * Small ones come first and odd ones are on purpose; `pad` is added to every pitch. Values come
 * from the seed. */
#ifndef CADRE_KERNELS_CASES_OP_CASES_H
#define CADRE_KERNELS_CASES_OP_CASES_H

#include <stdint.h>

typedef struct kern_case_gemm {
    int64_t m, n, k, pad;
    int transpose_a, transpose_b, accumulate;
    uint64_t seed;
} kern_case_gemm_t;

/* rmsnorm, swiglu, add, embedding: T rows of H */
typedef struct kern_case_rows {
    int64_t rows, cols, pad;
    uint64_t seed;
} kern_case_rows_t;

typedef struct kern_case_rope {
    int64_t rows, extra_head_rows, pad;
    int32_t num_q_heads, num_kv_heads, head_dim;
    uint64_t seed;
} kern_case_rope_t;

typedef struct kern_case_loss {
    int64_t rows, supervised, hidden, vocabulary, chunk, pad;
    uint64_t seed;
} kern_case_loss_t;

typedef struct kern_case_attention {
    int64_t rows, window;
    int32_t num_kv_heads, group, head_dim;
    uint64_t seed;
} kern_case_attention_t;

/* A linear layer of `in` inputs and num_modules modules side by side, num_adapters adapters, and
 * the rows of a stream as runs of one adapter each (-1: pad rows). A gap of one unused column
 * follows each block. */
#define KERN_CASE_LORA_MAX  3
#define KERN_CASE_LORA_RUNS 6
typedef struct kern_case_lora {
    int32_t num_runs, run_rows[KERN_CASE_LORA_RUNS], run_adapter[KERN_CASE_LORA_RUNS];
    int64_t in;
    int32_t num_modules, num_adapters;
    int64_t out[KERN_CASE_LORA_MAX];
    int32_t rank[KERN_CASE_LORA_MAX];
    double dropout[KERN_CASE_LORA_MAX];
    int64_t pad;
    uint64_t seed;
} kern_case_lora_t;

/* num_kern_cases_<family> entries each */
extern const kern_case_gemm_t kern_cases_gemm[];
extern const kern_case_rows_t kern_cases_rows[];
extern const kern_case_rope_t kern_cases_rope[];
extern const kern_case_loss_t kern_cases_loss[];
extern const kern_case_attention_t kern_cases_attention[];
extern const kern_case_lora_t kern_cases_lora[];
extern const int num_kern_cases_gemm, num_kern_cases_rows, num_kern_cases_rope, num_kern_cases_loss,
    num_kern_cases_attention, num_kern_cases_lora;

#endif
